//! The limit of the transport: bare quinn with the settings of hub and client, messages of the same sizes over as many
//! streams and connections, answered by a process of its own (`weir-hub echo`).

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{process, spawn};

/// Handshakes at a time.
const HANDSHAKES: usize = 16;
/// Time for streams to get going.
const WARMUP: Duration = Duration::from_millis(300);

/// What goes back and forth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) connections: usize,
    /// In all.
    pub(super) streams: usize,
    /// Messages of a stream that wait for their answers.
    pub(super) depth: usize,
    /// Bytes of a message.
    pub(super) up: u64,
    /// Bytes of an answer.
    pub(super) down: u64,
}

/// What it cost.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EchoCost {
    messages: u64,
    hub: Duration,
    own: Duration,
    time: Duration,
}

impl EchoCost {
    /// Another measurement of the same.
    pub(super) fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.hub += other.hub;
        self.own += other.own;
        self.time += other.time;
    }

    fn per_message(&self, time: Duration) -> Option<f64> {
        (self.messages > 0).then(|| time.as_secs_f64() * 1e6 / self.messages as f64)
    }

    /// CPU of the answering side, in microseconds per message.
    pub(super) fn hub_us(&self) -> Option<f64> {
        self.per_message(self.hub)
    }

    /// CPU of the asking side.
    pub(super) fn own_us(&self) -> Option<f64> {
        self.per_message(self.own)
    }
}

/// Measures for so long.
pub(super) async fn measure(binary: &Path, shape: Shape, time: Duration) -> anyhow::Result<EchoCost> {
    let (server, address) =
        tokio::task::block_in_place(|| spawn::echo(binary)).context("cannot measure the transport")?;
    let answered = Arc::new(AtomicU64::new(0));
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let mut connecting = JoinSet::new();
    for index in 0..shape.connections {
        let streams = share(shape.streams, shape.connections, index);
        let (answered, handshakes) = (Arc::clone(&answered), Arc::clone(&handshakes));
        connecting.spawn(async move {
            let _turn = handshakes.acquire().await?;
            connect(address, shape, streams, &answered).await
        });
    }
    let mut open = Vec::new();
    while let Some(connected) = connecting.join_next().await {
        open.push(connected.map_err(|error| anyhow!("{error}"))??);
    }
    tokio::time::sleep(WARMUP).await;
    let cpu = || Some((process::cpu(server.id())?, process::cpu(std::process::id())?));
    let (before, from, begun) = (cpu(), answered.load(Ordering::Relaxed), std::time::Instant::now());
    tokio::time::sleep(time).await;
    let (after, to) = (cpu(), answered.load(Ordering::Relaxed));
    drop(open);
    let (Some((hub_before, own_before)), Some((hub, own))) = (before, after) else { return Ok(EchoCost::default()) };
    Ok(EchoCost {
        messages: to - from,
        hub: hub.saturating_sub(hub_before),
        own: own.saturating_sub(own_before),
        time: begun.elapsed(),
    })
}

/// How many of `all` things the one at `index` of `holders` gets.
pub(super) const fn share(all: usize, holders: usize, index: usize) -> usize {
    all / holders + if index < all % holders { 1 } else { 0 }
}

/// An open connection; its streams end with it.
#[derive(Debug)]
struct Open {
    connection: quinn::Connection,
    _endpoint: quinn::Endpoint,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connection.close(0_u32.into(), b"");
    }
}

async fn connect(address: SocketAddr, shape: Shape, streams: usize, answered: &Arc<AtomicU64>) -> anyhow::Result<Open> {
    let endpoint = weir_client::quic_endpoint(([0, 0, 0, 0], 0).into())?;
    let config = weir_client::quic_config().map_err(|error| anyhow!("{error}"))?;
    let connection = endpoint.connect_with(config, address, "weir")?.await?;
    for _ in 0..streams {
        let (send, recv) = connection.open_bi().await?;
        let answered = Arc::clone(answered);
        // Ends with the connection.
        tokio::spawn(async move { drop(ask(send, recv, shape, &answered).await) });
    }
    Ok(Open { connection, _endpoint: endpoint })
}

async fn ask(
    mut send: quinn::SendStream,
    mut recv: quinn::RecvStream,
    shape: Shape,
    answered: &AtomicU64,
) -> anyhow::Result<()> {
    let mut sizes = Vec::with_capacity(8);
    for size in [shape.up, shape.down] {
        sizes.extend_from_slice(&u32::try_from(size)?.to_le_bytes());
    }
    send.write_all(&sizes).await?;
    let message = vec![0; usize::try_from(shape.up)?];
    for _ in 0..shape.depth {
        send.write_all(&message).await?;
    }
    let mut waiting = 0;
    while let Some(chunk) = recv.read_chunk(usize::MAX, true).await? {
        waiting += chunk.bytes.len() as u64;
        while waiting >= shape.down {
            waiting -= shape.down;
            answered.fetch_add(1, Ordering::Relaxed);
            send.write_all(&message).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_differ_by_one_at_most_and_add_up() {
        for (all, holders) in [(10, 3), (3, 3), (2, 5), (1000, 8)] {
            let shares: Vec<usize> = (0..holders).map(|index| share(all, holders, index)).collect();
            assert_eq!(shares.iter().sum::<usize>(), all);
            assert!(shares.iter().max() <= shares.iter().min().map(|least| least + 1).as_ref());
        }
    }
}
