//! Who sent a request, and the connection it came on.
//!
//! Owns the place among the open connections, which a tunnel keeps after hyper let go of the socket.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::headers;

/// Peers whose word about a client's address is taken: other proxies of the same house.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedPeers(Vec<Network>);

/// A range of addresses: `10.0.0.0/8`, `::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Not a range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address or a range of addresses like `10.0.0.0/8`")]
pub struct NetworkError(String);

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let error = || NetworkError(text.to_owned());
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(width), |bits| bits.parse().map_err(|_| error()))?;
        if bits > width { Err(error()) } else { Ok(Self { address, bits }) }
    }
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        let (own, other, width) = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (u128::from(own.to_bits()), u128::from(other.to_bits()), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits(), other.to_bits(), 128),
            _ => return false,
        };
        let host_bits = width - u32::from(self.bits);
        own.checked_shr(host_bits) == other.checked_shr(host_bits)
    }
}

impl TrustedPeers {
    /// These ranges.
    pub fn new(networks: impl IntoIterator<Item = Network>) -> Self {
        Self(networks.into_iter().collect())
    }

    /// Whether the address is in one of the ranges.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

/// Who sent a request.
#[derive(Clone, Debug)]
pub struct Peer {
    address: SocketAddr,
    secure: bool,
    trusted: bool,
    connection: Option<Arc<ConnectionState>>,
}

impl Peer {
    /// A peer without a connection of this listener: for layers over other servers, and for tests.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, secure: false, trusted: false, connection: None }
    }

    /// The same, connected by TLS.
    #[must_use]
    pub fn secure(self) -> Self {
        Self { secure: true, ..self }
    }

    /// The same, one whose word about a client's address is taken.
    #[must_use]
    pub fn trusted(self) -> Self {
        Self { trusted: true, ..self }
    }

    pub(super) fn on(self, connection: Arc<ConnectionState>) -> Self {
        Self { connection: Some(connection), ..self }
    }

    /// The other end of the connection.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the connection is TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Whether its word about a client's address is taken.
    pub fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// The client's own address: the peer's, or where the peer is trusted what it says (`X-Forwarded-For`, the rightmost
    /// address that is not itself in `trusted`).
    pub fn client_address(&self, headers: &HeaderMap, trusted: &TrustedPeers) -> IpAddr {
        let peer = self.address.ip().to_canonical();
        if !self.trusted {
            return peer;
        }
        headers::forwarded_for(headers, |address| trusted.contains(address)).unwrap_or(peer)
    }

    pub(super) fn connection(&self) -> Option<&Arc<ConnectionState>> {
        self.connection.as_ref()
    }
}

/// What a connection's own task, its requests and its tunnels know of each other.
#[derive(Debug)]
pub(super) struct ConnectionState {
    start: Instant,
    /// Requests whose answer is not over.
    in_flight: AtomicUsize,
    /// Milliseconds after `start` at which the newest request came or the last answer ended.
    active_ms: AtomicU64,
    /// An answer must look broken off: the socket is reset, not closed.
    reset: AtomicBool,
    any_request: AtomicBool,
    shutdown: watch::Receiver<Phase>,
    _place: OwnedSemaphorePermit,
}

/// How far the listener's shutdown is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// No new requests; those in flight go on.
    Draining,
    /// The time to drain is over.
    Closed,
}

impl ConnectionState {
    pub(super) fn new(shutdown: watch::Receiver<Phase>, place: OwnedSemaphorePermit) -> Self {
        Self {
            start: Instant::now(),
            in_flight: AtomicUsize::new(0),
            active_ms: AtomicU64::new(0),
            reset: AtomicBool::new(false),
            any_request: AtomicBool::new(false),
            shutdown,
            _place: place,
        }
    }

    pub(super) fn shutdown(&self) -> watch::Receiver<Phase> {
        self.shutdown.clone()
    }

    pub(super) fn must_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }

    pub(super) fn reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }

    pub(super) fn request_began(&self) {
        self.any_request.store(true, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.touch();
    }

    pub(super) fn request_ended(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.touch();
    }

    /// Since when the connection carries nothing: none while a request is in flight.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let active_ms = self.active_ms.load(Ordering::Relaxed);
        (self.in_flight.load(Ordering::Relaxed) == 0).then(|| self.start + std::time::Duration::from_millis(active_ms))
    }

    pub(super) fn has_had_a_request(&self) -> bool {
        self.any_request.load(Ordering::Relaxed)
    }

    fn touch(&self) {
        let elapsed_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.active_ms.store(elapsed_ms, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use super::*;

    #[test]
    fn networks_hold_their_own_addresses_only() {
        let peers = TrustedPeers::new(["10.0.0.0/8", "192.168.1.7", "2001:db8::/32"].map(|text| text.parse().unwrap()));
        for inside in ["10.255.0.1", "::ffff:10.0.0.1", "192.168.1.7", "2001:db8:1::1"] {
            assert!(peers.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.1", "192.168.1.8", "2001:db9::1", "::1"] {
            assert!(!peers.contains(outside.parse().unwrap()), "{outside}");
        }
        let everything = TrustedPeers::new(["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]);
        assert!(everything.contains("8.8.8.8".parse().unwrap()) && everything.contains("::2".parse().unwrap()));
        for wrong in ["10.0.0.0/33", "::/129", "10.0.0/8", "", "10.0.0.0/", "10.0.0.0/-1", "host"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn client_address_is_believed_from_trusted_peers_only() {
        let trusted = TrustedPeers::new(["10.0.0.0/8".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "1.2.3.4".parse().unwrap());
        let peer = Peer::new("10.0.0.1:1".parse().unwrap());
        assert_eq!(peer.client_address(&headers, &trusted).to_string(), "10.0.0.1");
        assert_eq!(peer.trusted().client_address(&headers, &trusted).to_string(), "1.2.3.4");
    }
}
