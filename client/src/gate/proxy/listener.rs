//! The side that clients see: sockets, TLS, HTTP versions, and a limit on everything that a client may hold.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_rustls::TlsAcceptor;

use super::body::{GateBody, Slot};
use super::peer::{ConnectionState, Peer, Phase, TrustedPeers};
use super::problem::Problem;
use super::socket::ClientSocket;
use super::tls::{Certificates, TlsError, TlsFiles};
use super::{MAX_HEADER_BYTES, admit};

/// How often the certificate's files are looked at.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(30);

/// How long accepting rests when the system has no more files or memory.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What hyper buffers of a head. Twice what is allowed, so that most long heads get a proper answer.
const HEAD_BUFFER_BYTES: usize = 2 * MAX_HEADER_BYTES;

/// Streams that a client of HTTP/2 reset before they were looked at, before its connection is ended (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;

/// Streams that were reset for a client's own errors, before its connection is ended.
const MAX_ERROR_RESETS: usize = 256;

/// What a client of HTTP/2 lets lie in the gate's memory for one stream.
const MAX_SEND_BUFFER_BYTES: usize = 64 * 1024;

/// The gate's logic: what becomes of each request.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request, which was [admitted](admit()): most often with what [`forward`](super::forward()) returns.
    fn handle(&self, request: Request<Incoming>, peer: Peer) -> impl Future<Output = Response<GateBody>> + Send;

    /// How a refusal of the listener itself looks.
    fn refuse(&self, problem: Problem) -> Response<GateBody> {
        problem.response()
    }
}

/// What clients may hold at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once, tunnels included; more wait in the system's queue: 8,192.
    pub max_connections: usize,
    /// Requests whose answer is not over; one more gets a 503: 8,192.
    pub max_in_flight: usize,
    /// Streams of one HTTP/2 connection at once: 256.
    pub max_streams: u32,
    /// For TLS, and for a whole head: from the connection's start or the last answer's end, so also how long an idle
    /// connection is kept: 30 s.
    pub header_timeout: Duration,
    /// How long a client may take no bytes of an answer: 60 s.
    pub write_idle_timeout: Duration,
    /// How long answers and tunnels may go on after a shutdown: 30 s.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 8_192,
            max_in_flight: 8_192,
            max_streams: 256,
            header_timeout: Duration::from_secs(30),
            write_idle_timeout: Duration::from_secs(60),
            drain: Duration::from_secs(30),
        }
    }
}

/// Where and how to listen.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// Port 0: any free one.
    pub address: SocketAddr,
    /// None: in the clear.
    pub tls: Option<TlsFiles>,
    /// What clients may hold.
    pub limits: Limits,
    /// Peers whose word about a client's address is taken.
    pub trusted: TrustedPeers,
}

impl ListenerSettings {
    /// In the clear, with the usual limits, trusting nobody.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, tls: None, limits: Limits::default(), trusted: TrustedPeers::default() }
    }
}

/// A bound listener.
pub struct Listener {
    socket: TcpListener,
    certificates: Option<Arc<Certificates>>,
    acceptor: Option<TlsAcceptor>,
    limits: Limits,
    trusted: TrustedPeers,
}

impl Listener {
    /// Binds, and reads the certificate if there is one.
    pub async fn bind(settings: ListenerSettings) -> io::Result<Self> {
        let invalid = |error: TlsError| io::Error::new(io::ErrorKind::InvalidInput, error);
        let ListenerSettings { address, tls, limits, trusted } = settings;
        let certificates = tls.map(Certificates::load).transpose().map_err(invalid)?;
        let config = certificates.as_ref().map(Certificates::server_config).transpose().map_err(invalid)?;
        let acceptor = config.map(|config| TlsAcceptor::from(Arc::new(config)));
        let socket = TcpListener::bind(address).await?;
        Ok(Self { socket, certificates, acceptor, limits, trusted })
    }

    /// Where it listens.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The certificate, to have it read again at once; its files are looked at every 30 s besides.
    pub fn certificates(&self) -> Option<&Arc<Certificates>> {
        self.certificates.as_ref()
    }

    /// Serves until `shutdown` ends, then lets answers and tunnels go on for the time to drain, and returns.
    pub async fn serve<H: Handler>(self, handler: Arc<H>, shutdown: impl Future<Output = ()>) {
        let (phase, phases) = watch::channel(Phase::Open);
        let places = Arc::new(Semaphore::new(self.limits.max_connections));
        let max_connections = u32::try_from(self.limits.max_connections).unwrap_or(u32::MAX);
        let drain = self.limits.drain;
        let server = Arc::new(Server {
            handler,
            in_flight: Arc::new(Semaphore::new(self.limits.max_in_flight)),
            http: http(&self.limits),
            acceptor: self.acceptor,
            limits: self.limits,
            trusted: self.trusted,
        });
        let mut shutdown = pin!(shutdown);
        let mut check = tokio::time::interval(CERTIFICATE_CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Said once until it works again: whoever holds all connections fills no log.
        let mut cannot = false;
        loop {
            let accept = async {
                // Never closed, so it cannot fail; waiting here leaves more connections in the system's queue.
                let place = Arc::clone(&places).acquire_owned().await.ok();
                (self.socket.accept().await, place)
            };
            tokio::select! {
                () = &mut shutdown => break,
                _ = check.tick(), if self.certificates.is_some() => {
                    if let Some(certificates) = &self.certificates {
                        match certificates.reload_if_changed() {
                            Ok(true) => tracing::info!("the certificate was read again"),
                            Ok(false) => {}
                            Err(error) => tracing::warn!(%error, "the new certificate is not used"),
                        }
                    }
                }
                (accepted, place) = accept => match (accepted, place) {
                    (Ok((stream, address)), Some(place)) => {
                        cannot = false;
                        let state = Arc::new(ConnectionState::new(phases.clone(), place));
                        tokio::spawn(Arc::clone(&server).connection(stream, address, state));
                    }
                    (Err(error), _) if is_of_one_connection(&error) => {}
                    (Err(error), _) => {
                        if !std::mem::replace(&mut cannot, true) {
                            tracing::warn!(%error, "cannot accept connections");
                        }
                        tokio::time::sleep(ACCEPT_REST).await;
                    }
                    (Ok(_), None) => break,
                },
            }
        }
        drop(self.socket);
        phase.send_replace(Phase::Draining);
        // All places free: every connection and tunnel is over.
        if tokio::time::timeout(drain, places.acquire_many(max_connections)).await.is_err() {
            tracing::warn!("connections are cut off, as the time to drain is over");
        }
        phase.send_replace(Phase::Closed);
        let _ = tokio::time::timeout(Duration::from_secs(1), places.acquire_many(max_connections)).await;
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Listener")
            .field("socket", &self.socket)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Errors of `accept` that say nothing of the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

fn http(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(HEAD_BUFFER_BYTES);
    // Not `pipeline_flush`: with it, an answer to a bad request is lost when more bytes follow the request.
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(u32::try_from(HEAD_BUFFER_BYTES).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
        .keep_alive_interval(limits.header_timeout)
        .keep_alive_timeout(limits.header_timeout);
    http
}

struct Server<H> {
    handler: Arc<H>,
    in_flight: Arc<Semaphore>,
    http: auto::Builder<TokioExecutor>,
    acceptor: Option<TlsAcceptor>,
    limits: Limits,
    trusted: TrustedPeers,
}

impl<H: Handler> Server<H> {
    async fn connection(self: Arc<Self>, stream: TcpStream, address: SocketAddr, state: Arc<ConnectionState>) {
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let mut peer = Peer::new(address).on(Arc::clone(&state));
        if self.trusted.contains(address.ip()) {
            peer = peer.trusted();
        }
        let socket = ClientSocket::new(stream, Arc::clone(&state), self.limits.write_idle_timeout);
        let Some(acceptor) = &self.acceptor else { return self.serve(socket, &self.http, peer, state).await };
        let Ok(Ok(stream)) = tokio::time::timeout(self.limits.header_timeout, acceptor.accept(socket)).await else {
            return;
        };
        let http = if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.http.clone().http2_only()
        } else {
            self.http.clone().http1_only()
        };
        self.serve(stream, &http, peer.secure(), state).await;
    }

    async fn serve<S>(&self, stream: S, http: &auto::Builder<TokioExecutor>, peer: Peer, state: Arc<ConnectionState>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = service_fn(|request| {
            let peer = peer.clone();
            let (handler, in_flight) = (Arc::clone(&self.handler), Arc::clone(&self.in_flight));
            let slot = in_flight.try_acquire_owned().ok().map(|place| Slot::new(Arc::clone(&state), place));
            async move { Ok::<_, Infallible>(respond(handler.as_ref(), request, peer, slot).await) }
        });
        let mut connection = pin!(http.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let mut phases = state.shutdown();
        // HTTP/1 connections have hyper's own limit between requests; this one is for HTTP/2, and for connections that do not
        // even say which of the two they are.
        let mut check = tokio::time::interval(self.limits.header_timeout);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        check.reset();
        let mut leaving = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a client's connection ended");
                    }
                    return;
                }
                phase = phases.wait_for(|phase| *phase == Phase::Closed || (!leaving && *phase == Phase::Draining)) => {
                    if phase.is_ok_and(|phase| *phase == Phase::Closed) {
                        return;
                    }
                    leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
                _ = check.tick() => {
                    let silent = !state.has_had_a_request();
                    let idle = state.idle_since().is_some_and(|since| since + self.limits.header_timeout <= Instant::now());
                    if silent || (idle && leaving) {
                        return;
                    }
                    if idle {
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        }
    }
}

async fn respond<H: Handler>(
    handler: &H,
    request: Request<Incoming>,
    peer: Peer,
    slot: Option<Slot>,
) -> Response<GateBody> {
    let Some(slot) = slot else { return handler.refuse(Problem::Overloaded) };
    let version = request.version();
    let (mut head, body) = request.into_parts();
    let mut response = match admit(&mut head) {
        Ok(()) => handler.handle(Request::from_parts(head, body), peer).await,
        Err(problem) => handler.refuse(problem),
    };
    if version == Version::HTTP_2 {
        response.headers_mut().remove(http::header::CONNECTION);
    }
    response.map(|body| body.occupying(slot))
}
