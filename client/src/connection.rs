//! One connection to the hub: its identity checked before anything is said, keys proven, requests and replies.
//!
//! Knows nothing of what requests mean. Making it again when it broke is [`crate::Client`]'s matter.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use weir_protocol::amount::Time;
use weir_protocol::id::{HubAddress, HubId};
use weir_protocol::keys::SecretKey;
use weir_protocol::reject::Reject;
use weir_protocol::wire::{
    KeyScope, MAX_MESSAGE, Opening, Reply, ReplyMessage, Request, RequestMessage, VERSION, Welcome, encode,
    hello_digest,
};

use crate::error::{Error, InfraError};
use crate::{framing, tls};

/// Longest wait for a handshake and a welcome, per address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the reply to a request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// The connection is dead after so long without a sign of the hub.
const IDLE_TIMEOUT_MS: u32 = 30_000;
/// A sign of life is sent after so long without traffic.
const KEEP_ALIVE: Duration = Duration::from_secs(8);
/// Longest wait for the hub to hear of an ending.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// Packets for one acknowledgement by the hub.
const ACK_EVERY: u32 = 10;
/// Longest wait for one: keeps a small window from waiting.
const ACK_DELAY: Duration = Duration::from_millis(2);
/// Bytes that the system may keep for the socket, either way, if its own limit allows: packets that come while others use
/// the processor must not be lost.
const BUFFER_BYTES: usize = 4 << 20;
/// Largest UDP payload that is tried: a jumbo frame of 9,000 bytes less the headers of IPv6 and UDP.
const PACKET_BYTES_MAX: u16 = 8_952;
/// Requests in flight on one connection; more wait.
const MAX_REQUESTS: usize = 32;

type Answer = Result<Reply, Reject>;
type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// A connection whose hub has proven who it is.
#[derive(Debug)]
pub struct Connection {
    endpoint: quinn::Endpoint,
    quinn: quinn::Connection,
    hub: HubId,
    welcome: Welcome,
    spki: Vec<u8>,
    requests: mpsc::Sender<Vec<u8>>,
    waiting: Waiting,
    slots: Semaphore,
    next_id: AtomicU64,
    proven: Mutex<HashSet<KeyScope>>,
}

impl Connection {
    /// Connects, and believes nothing before the hub has proven to be the one that the address names.
    pub async fn connect(address: &HubAddress) -> Result<Self, InfraError> {
        let unreachable = |cause: String| InfraError::Unreachable { address: address.to_string(), cause };
        let found = tokio::net::lookup_host((address.host.as_str(), address.port)).await;
        let found: Vec<SocketAddr> = found.map_err(|error| unreachable(error.to_string()))?.collect();
        let mut last = unreachable("the name has no address".to_owned());
        for place in found {
            match timeout(CONNECT_TIMEOUT, Self::connect_to(address, place)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => last = error,
                Err(_) => last = unreachable(format!("no answer from {place}")),
            }
        }
        Err(last)
    }

    async fn connect_to(address: &HubAddress, place: SocketAddr) -> Result<Self, InfraError> {
        let unreachable = |cause: String| InfraError::Unreachable { address: address.to_string(), cause };
        let here: SocketAddr = if place.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let endpoint = quic_endpoint(here).map_err(|error| unreachable(error.to_string()))?;
        let config = quic_config().map_err(unreachable)?;
        let connecting = endpoint.connect_with(config, place, &address.host);
        let connecting = connecting.map_err(|error| unreachable(error.to_string()))?;
        let quinn = connecting.await.map_err(|error| unreachable(error.to_string()))?;
        let spki = tls::peer_spki(&quinn).ok_or_else(|| unreachable("the peer showed no certificate".to_owned()))?;
        let (mut send, mut recv) = quinn.open_bi().await.map_err(|error| unreachable(error.to_string()))?;
        let opening = encode(&Opening::Control { version: VERSION });
        send.write_all(&opening).await.map_err(|error| unreachable(error.to_string()))?;
        let welcome: Welcome = framing::read(&mut recv, MAX_MESSAGE).await?.ok_or(InfraError::Lost)?;
        welcome
            .check(&address.hub, &spki, now())
            .map_err(|cause| InfraError::WrongHub { address: address.to_string(), cause })?;
        if welcome.version < VERSION {
            return Err(unreachable(format!("it speaks version {} and this client {VERSION}", welcome.version)));
        }

        let waiting = Waiting::default();
        let (requests, outgoing) = mpsc::channel(MAX_REQUESTS);
        tokio::spawn(write_requests(send, outgoing));
        tokio::spawn(read_replies(quinn.clone(), recv, Arc::clone(&waiting)));
        Ok(Self {
            endpoint,
            quinn,
            hub: address.hub,
            welcome,
            spki,
            requests,
            waiting,
            slots: Semaphore::new(MAX_REQUESTS),
            next_id: AtomicU64::new(1),
            proven: Mutex::new(HashSet::new()),
        })
    }

    /// What the hub opened with.
    pub const fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Whether it is gone.
    pub fn is_closed(&self) -> bool {
        self.quinn.close_reason().is_some()
    }

    /// Proves a key, once per connection.
    pub async fn prove(&self, scope: KeyScope, key: &SecretKey) -> Result<(), Error> {
        self.prove_and_tell(scope, key, oneshot::channel().0).await
    }

    /// The same; `sent` is dropped when the proof is on its way or was made before, so that what needs it can follow in the
    /// same flight.
    pub(crate) async fn prove_and_tell(
        &self,
        scope: KeyScope,
        key: &SecretKey,
        sent: oneshot::Sender<()>,
    ) -> Result<(), Error> {
        if self.has_proven(&scope) {
            return Ok(());
        }
        let public = key.public();
        let digest = hello_digest(&self.hub, &public, &scope, &self.spki, &self.welcome.nonce);
        let request = Request::Prove { scope, key: public, signature: key.sign(&digest) };
        match self.exchange(request, sent).await?.map_err(Error::Refused)? {
            Reply::Proven => {
                lock(&self.proven).insert(scope);
                Ok(())
            }
            _ => Err(InfraError::UnexpectedReply.into()),
        }
    }

    /// Whether a key was proven on this connection.
    pub(crate) fn has_proven(&self, scope: &KeyScope) -> bool {
        lock(&self.proven).contains(scope)
    }

    /// Asks, and waits for the reply. Any number of requests may be on their way; replies come in any order.
    ///
    /// The outer error says that no reply came: whether the hub heard the request is then unknown.
    pub async fn request(&self, request: Request) -> Result<Answer, InfraError> {
        self.exchange(request, oneshot::channel().0).await
    }

    async fn exchange(&self, request: Request, sent: oneshot::Sender<()>) -> Result<Answer, InfraError> {
        let exchange = async {
            let _slot = self.slots.acquire().await.map_err(|_| InfraError::Lost)?;
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            let (answer, answered) = oneshot::channel();
            lock(&self.waiting).insert(id, answer);
            let _forget = Forget { waiting: &self.waiting, id };
            // Looked at only after the place is taken: the reader empties the places when the connection ends.
            if self.is_closed() {
                return Err(InfraError::Lost);
            }
            let message = encode(&RequestMessage { id, request });
            self.requests.send(message).await.map_err(|_| InfraError::Lost)?;
            drop(sent);
            answered.await.map_err(|_| InfraError::Lost)
        };
        timeout(REQUEST_TIMEOUT, exchange).await.map_err(|_| InfraError::Timeout)?
    }

    /// A new stream.
    pub(crate) async fn open_stream(&self) -> Result<(quinn::SendStream, quinn::RecvStream), InfraError> {
        self.quinn.open_bi().await.map_err(|_| InfraError::Lost)
    }

    /// Ends it; whoever waits hears that it is lost.
    pub fn close(&self) {
        self.quinn.close(0_u32.into(), b"");
    }

    /// Ends it and waits a moment for the hub to hear of it.
    pub async fn finish(&self) {
        self.close();
        // Without this the hub would wait for its idle timeout; that is all that is lost when the moment is too short.
        let _ = timeout(CLOSE_TIMEOUT, self.endpoint.wait_idle()).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

/// Forgets a request whose caller went away, so that places do not pile up.
struct Forget<'a> {
    waiting: &'a Waiting,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.waiting).remove(&self.id);
    }
}

async fn write_requests(mut stream: quinn::SendStream, mut outgoing: mpsc::Receiver<Vec<u8>>) {
    while let Some(message) = outgoing.recv().await {
        if stream.write_all(&message).await.is_err() {
            return;
        }
    }
}

async fn read_replies(connection: quinn::Connection, mut stream: quinn::RecvStream, waiting: Waiting) {
    while let Ok(Some(message)) = framing::read::<ReplyMessage>(&mut stream, MAX_MESSAGE).await {
        let caller = lock(&waiting).remove(&message.id);
        if let Some(caller) = caller {
            // A caller that went away meanwhile wants no answer.
            let _ = caller.send(message.reply);
        }
    }
    // A connection without its control stream is of no use: end it, so that everybody notices.
    connection.close(0_u32.into(), b"");
    lock(&waiting).clear();
}

/// A QUIC endpoint that connects. Public so that the bare transport can be measured.
pub fn quic_endpoint(here: SocketAddr) -> std::io::Result<quinn::Endpoint> {
    let socket = std::net::UdpSocket::bind(here)?;
    let buffers = socket2::SockRef::from(&socket);
    // Where the system allows less, it gives what it allows; where it refuses, the default serves.
    let _ = buffers.set_recv_buffer_size(BUFFER_BYTES);
    let _ = buffers.set_send_buffer_size(BUFFER_BYTES);
    let runtime = Arc::new(quinn::TokioRuntime);
    quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket, runtime)
}

/// The QUIC and TLS settings of every connection. By themselves they believe any peer: who it is, the hub's welcome proves.
/// Public so that the bare transport can be measured.
pub fn quic_config() -> Result<quinn::ClientConfig, String> {
    let mut config = quinn::ClientConfig::new(Arc::new(tls::client_config()?));
    config.transport_config(Arc::new(transport()));
    Ok(config)
}

fn transport() -> quinn::TransportConfig {
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_bidi_streams(0_u8.into());
    transport.max_concurrent_uni_streams(0_u8.into());
    transport.datagram_receive_buffer_size(None);
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    // Answers acknowledge what they answer: few packets need an acknowledgement of their own.
    let mut acks = quinn::AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(ACK_EVERY.into()).max_ack_delay(Some(ACK_DELAY));
    transport.ack_frequency_config(Some(acks));
    let mut discovery = quinn::MtuDiscoveryConfig::default();
    discovery.upper_bound(PACKET_BYTES_MAX);
    transport.mtu_discovery_config(Some(discovery));
    transport.max_idle_timeout(Some(quinn::VarInt::from_u32(IDLE_TIMEOUT_MS).into()));
    transport
}

/// The wall clock.
pub(crate) fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A lock whose holders never panic half way through a change.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
