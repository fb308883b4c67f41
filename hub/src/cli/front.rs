//! Where clients come in.

use std::net::SocketAddr;

use anyhow::Context as _;

use crate::config::Config;
use crate::pipeline::Handle;

/// The door for clients. The QUIC server takes this place.
#[derive(Debug)]
pub(super) struct Front {
    socket: std::net::UdpSocket,
    local_addr: SocketAddr,
}

impl Front {
    /// Takes the port. Within a runtime.
    pub(super) fn bind(_handle: &Handle, config: &Config, _reset_key: [u8; 32]) -> anyhow::Result<Self> {
        let listen = config.listen;
        let socket = std::net::UdpSocket::bind(listen).with_context(|| format!("cannot listen on `{listen}`"))?;
        let local_addr = socket.local_addr()?;
        Ok(Self { socket, local_addr })
    }

    /// Where clients connect.
    pub(super) const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until it is shut down.
    pub(super) async fn run(&self) {
        tracing::warn!(socket = ?self.socket, "clients are not served");
        std::future::pending::<()>().await;
    }

    /// Says goodbye to clients.
    pub(super) async fn shutdown(&self) {
        tokio::task::yield_now().await;
    }
}
