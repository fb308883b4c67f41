//! The bare transport: a QUIC endpoint with the hub's own settings and none of its work. What it costs is what no hub on
//! this transport can do without; `weir bench` measures it from a process of its own.
//!
//! A stream begins with two 4-byte little-endian numbers, the bytes of a request and of an answer, each up to
//! [`MAX_ECHO`]. From then on every request's worth of bytes is answered with an answer's worth. Holds no key of a hub.

use std::net::SocketAddr;

use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};

use super::limits::Limits;
use super::tls::{ResetKey, TlsIdentity};
use super::{BindError, socket};

/// Most bytes of a request or an answer.
pub const MAX_ECHO: u32 = 1 << 20;
/// Bytes that are taken from a stream at once, as the hub does.
const CHUNK_BYTES: usize = 64 * 1024;

/// An endpoint that answers.
#[derive(Debug)]
pub struct Echo {
    endpoint: Endpoint,
    limits: Limits,
}

impl Echo {
    /// Opens a UDP port. Within a tokio runtime.
    pub fn bind(listen: SocketAddr) -> Result<Self, BindError> {
        let limits = Limits::default();
        let (_, config) = TlsIdentity::generate(&limits).map_err(BindError::Tls)?;
        let listening = |source| BindError::Listen { address: listen, source };
        let socket = socket::bind(listen).map_err(listening)?;
        let mut reset_key = [0; 32];
        getrandom::fill(&mut reset_key).map_err(|error| BindError::Tls(error.to_string()))?;
        let endpoint_config = ResetKey::new(reset_key).endpoint_config();
        let runtime = std::sync::Arc::new(quinn::TokioRuntime);
        let endpoint = Endpoint::new(endpoint_config, Some(config), socket, runtime).map_err(listening)?;
        Ok(Self { endpoint, limits })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Answers until it is dropped.
    pub async fn run(&self) {
        while let Some(incoming) = self.endpoint.accept().await {
            let limits = self.limits;
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else { return };
                serve(connection, limits).await;
            });
        }
    }
}

async fn serve(connection: Connection, limits: Limits) {
    let mut first = true;
    while let Ok((send, recv)) = connection.accept_bi().await {
        if core::mem::take(&mut first) {
            // What a peer that has proven a key gets; one that says nothing costs what it costs before.
            connection.set_max_concurrent_bi_streams(VarInt::from_u32(limits.streams));
            connection.set_receive_window(VarInt::from_u32(limits.window));
            connection.set_send_window(u64::from(limits.window));
        }
        // A stream that broke has nobody left who waits for an answer.
        tokio::spawn(async move {
            let _ = answer(send, recv).await;
        });
    }
}

async fn answer(mut send: SendStream, mut recv: RecvStream) -> Option<()> {
    let mut sizes = [0; 8];
    recv.read_exact(&mut sizes).await.ok()?;
    let (request, answer) = (size(*sizes.first_chunk()?)?, size(*sizes.last_chunk()?)?);
    let bytes = vec![0; answer];
    let mut waiting = 0;
    while let Ok(Some(chunk)) = recv.read_chunk(CHUNK_BYTES, true).await {
        waiting += chunk.bytes.len();
        while waiting >= request {
            waiting -= request;
            send.write_all(&bytes).await.ok()?;
        }
    }
    None
}

/// A size that is allowed.
fn size(bytes: [u8; 4]) -> Option<usize> {
    let size = u32::from_le_bytes(bytes);
    (1..=MAX_ECHO).contains(&size).then_some(size as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_taken_within_its_bounds_only() {
        for (bytes, taken) in [(0, None), (1, Some(1)), (MAX_ECHO, Some(1 << 20)), (MAX_ECHO + 1, None)] {
            assert_eq!(size(u32::to_le_bytes(bytes)), taken);
        }
    }
}
