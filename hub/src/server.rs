//! The hub's QUIC door: connections, proofs of keys, streams; what is said comes from the pipeline (DESIGN §4.2, §5).
//!
//! It owns everything that a peer can exhaust: handshakes, connections, streams, requests in flight, rates. It judges no
//! payment and no act, holds no money state, and signs nothing but the binding of its TLS key.
//!
//! - `tls`: the TLS identity, the reset key. [`limits`]: every bound, with its number.
//! - `connection`: one connection, its keys, its streams. `control`: requests and replies. `lane`: payments, in;
//!   `answers`: their answers, out; `flow`: what those two share. `credit`: credits.
//! - `acts`, `reads`, `statement`, `history`: what requests ask for; `lookup`: where the journal is read.
//! - [`echo`]: the transport without the hub, to measure it.
//! - `framing`: messages on streams. `rates`: how often.

mod acts;
mod answers;
mod connection;
mod control;
mod credit;
pub mod echo;
mod flow;
mod framing;
mod history;
mod lane;
pub mod limits;
mod lookup;
mod proofs;
mod rates;
mod reads;
mod socket;
mod statement;
mod tls;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{Endpoint, Incoming, VarInt};
use tokio::sync::{OnceCell, Semaphore};
use weir_protocol::amount::{Currency, Time};
use weir_protocol::commit::SignedCertificate;
use weir_protocol::reject::Reject;
use weir_protocol::wire::Cursor;

use self::history::HistoryTree;
use self::limits::Limits;
use self::rates::{Rates, network};
use self::tls::{ResetKey, TlsIdentity};
use crate::engine::shard::StreamId;
use crate::pipeline::Handle;
use crate::pipeline::handle::Health;
use crate::store::StoreError;

/// How long a shutdown waits until peers know.
const FAREWELL: Duration = Duration::from_secs(3);

/// The hub's bank account in one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DepositAddress {
    /// The bank account number.
    pub iban: String,
    /// Its holder.
    pub name: String,
    /// The bank.
    pub bic: String,
}

/// What a server is opened with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The UDP address; port 0: any free one.
    pub listen: SocketAddr,
    /// The same at every start, so that clients notice a restart at once.
    pub reset_key: [u8; 32],
    /// What the operator calls the hub.
    pub name: String,
    /// Where deposits go, per currency.
    pub bank: BTreeMap<Currency, DepositAddress>,
    /// What peers may use.
    pub limits: Limits,
}

/// Why a server does not open.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is not free, or not of this machine.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] StoreError),
    /// The TLS key or its configuration.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// What everything in the server shares.
#[derive(Debug)]
struct Shared {
    handle: Handle,
    name: String,
    bank: BTreeMap<Currency, DepositAddress>,
    limits: Limits,
    tls: TlsIdentity,
    /// The chain that the pipeline signs: its first commit was durable before the server could be opened.
    chain: u64,
    rates: Rates,
    certificates: OnceCell<Vec<SignedCertificate>>,
    history: HistoryTree,
    /// Reads of the journal that run at one time.
    journal_reads: Arc<Semaphore>,
    /// Statements that are made at one time: each reads the journal again.
    statements: Arc<Semaphore>,
    next_stream: AtomicU64,
    handshakes: AtomicUsize,
    peers: Mutex<HashMap<IpAddr, usize>>,
}

/// The server. Clones share it.
#[derive(Debug, Clone)]
pub struct Server {
    endpoint: Endpoint,
    local_addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    /// Opens the UDP port with a fresh TLS key. Within a tokio runtime.
    pub fn bind(handle: Handle, options: Options) -> Result<Self, BindError> {
        let (tls, config) = TlsIdentity::generate(&options.limits).map_err(BindError::Tls)?;
        let listen = |source| BindError::Listen { address: options.listen, source };
        let socket = socket::bind(options.listen).map_err(listen)?;
        let endpoint_config = ResetKey::new(options.reset_key).endpoint_config();
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = Endpoint::new(endpoint_config, Some(config), socket, runtime).map_err(listen)?;
        let local_addr = endpoint.local_addr().map_err(listen)?;
        let chain = handle.journal().last()?.map_or(0, |last| last.chain);
        let shared = Shared {
            handle,
            chain,
            bank: options.bank,
            name: options.name,
            tls,
            rates: Rates::new(options.limits.rates),
            certificates: OnceCell::new(),
            history: HistoryTree::default(),
            journal_reads: Arc::new(Semaphore::new(options.limits.journal_reads)),
            statements: Arc::new(Semaphore::new(1)),
            // The pipeline's own wake-up uses stream 0.
            next_stream: AtomicU64::new(1),
            handshakes: AtomicUsize::new(0),
            peers: Mutex::new(HashMap::new()),
            limits: options.limits,
        };
        Ok(Self { endpoint, local_addr, shared: Arc::new(shared) })
    }

    /// Where it listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.endpoint.open_connections()
    }

    /// Serves until [`shutdown`](Self::shutdown), or until the pipeline ends: then peers are told `stopped`.
    pub async fn run(&self) {
        let mut health = self.shared.handle.health();
        loop {
            tokio::select! {
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => self.admit(incoming),
                    None => return,
                },
                // The sender goes with the pipeline: that is an end, too.
                () = async { drop(health.wait_for(|health| *health != Health::Running).await) } => {
                    self.endpoint.close(code(Reject::Stopped), b"");
                    self.endpoint.wait_idle().await;
                    return;
                }
            }
        }
    }

    /// Takes no more connections, ends those that are open, and waits a little until their peers know.
    pub async fn shutdown(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"");
        let _ = tokio::time::timeout(FAREWELL, self.endpoint.wait_idle()).await;
    }

    /// Decides on a first packet, before anything is spent on it.
    fn admit(&self, incoming: Incoming) {
        let limits = &self.shared.limits;
        let in_flight = self.shared.handshakes.load(Ordering::Relaxed);
        if in_flight >= limits.handshakes_max || self.endpoint.open_connections() >= limits.connections_max {
            incoming.ignore();
            return;
        }
        if in_flight >= limits.handshakes_before_retry && !incoming.remote_address_validated() {
            // Fails only for a validated address.
            let _ = incoming.retry();
            return;
        }
        let address = network(incoming.remote_address().ip());
        let Some(admitted) = Admitted::enter(&self.shared, address) else {
            incoming.ignore();
            return;
        };
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let handshake = Handshake::begin(&shared);
            let limit = shared.limits.handshake_timeout;
            let Ok(connecting) = incoming.accept() else { return };
            let connected = tokio::time::timeout(limit, connecting).await;
            drop(handshake);
            if let Ok(Ok(connection)) = connected {
                // A task of its own: the handshake's memory goes.
                tokio::spawn(async move {
                    connection::serve(shared, connection, address).await;
                    drop(admitted);
                });
            }
        });
    }
}

impl Shared {
    fn stream_id(&self) -> StreamId {
        StreamId(self.next_stream.fetch_add(1, Ordering::Relaxed))
    }

    /// The certificate that a commit of this time is checked with: the newest whose `not_before` is not after it.
    async fn certificate_at(&self, time: Time) -> Result<SignedCertificate, Reject> {
        let load = || self.handle.read(|view| view.books.certificates().to_vec());
        let known = self.certificates.get_or_try_init(load).await?;
        Ok(self.newest_of(known, time))
    }

    /// The same where waiting is not possible: [`certificate_at`](Self::certificate_at) must have succeeded before.
    fn known_certificate_at(&self, time: Time) -> Result<SignedCertificate, Reject> {
        let known = self.certificates.get().ok_or(Reject::Busy)?;
        Ok(self.newest_of(known, time))
    }

    fn newest_of(&self, known: &[SignedCertificate], time: Time) -> SignedCertificate {
        // Certificates are taken at start only, so the list is complete.
        let newest = known.iter().rev().find(|signed| signed.certificate.not_before <= time);
        newest.copied().unwrap_or_else(|| self.handle.certificate())
    }

    /// The newest durable commit: never before one of which anybody has an answer.
    fn newest(&self) -> Cursor {
        Cursor { chain: self.chain, number: self.handle.ids().count() }
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is counted for its address.
struct Admitted {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Admitted {
    fn enter(shared: &Arc<Shared>, address: IpAddr) -> Option<Self> {
        let mut peers = shared.peers();
        let count = peers.entry(address).or_default();
        if *count >= shared.limits.connections_per_address {
            return None;
        }
        *count += 1;
        Some(Self { shared: Arc::clone(shared), address })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut peers = self.shared.peers();
        if let Some(count) = peers.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&self.address);
            }
        }
    }
}

/// A handshake that is counted.
struct Handshake<'a>(&'a AtomicUsize);

impl<'a> Handshake<'a> {
    fn begin(shared: &'a Shared) -> Self {
        shared.handshakes.fetch_add(1, Ordering::Relaxed);
        Self(&shared.handshakes)
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A refusal as a QUIC application error code.
const fn code(reject: Reject) -> VarInt {
    VarInt::from_u32(reject.code() as u32)
}
