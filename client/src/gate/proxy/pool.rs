//! Connections to one upstream.
//!
//! Why not a general client: a request must never be sent twice, the authority that a client names must neither choose the
//! connection nor grow the pool, and one upstream has one address. A request that hyper hands back was not written at all
//! (the kept connection was closed before); only such a request goes on to another connection.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Request, Response, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::hooks::{Ending, Place as FailedIn, Wait};
use super::tls::{self, TlsError};
use super::upload::{UploadBody, UploadState};
use super::upstream::{Place, Protocol, UpstreamSettings};

/// Bytes of an upstream's head.
pub const MAX_RESPONSE_HEADER_BYTES: usize = 64 * 1024;

/// Requests on one HTTP/2 connection before another is opened.
const STREAMS_PER_CONNECTION: usize = 100;

/// HTTP/2 connections to one upstream; beyond what they carry at once, requests wait in the least busy.
const MAX_H2_CONNECTIONS: usize = 16;

/// Kept connections that a request tries before it opens one of its own.
const MAX_STALE: usize = 8;

/// Pings find out that an upstream of HTTP/2 is gone without a word.
const H2_PING: Duration = Duration::from_secs(30);

const UNKNOWN: u8 = 0;
const H1: u8 = 1;
const H2: u8 = 2;

pub(super) struct Pool {
    settings: UpstreamSettings,
    tls: Option<Tls>,
    /// Which protocol the upstream speaks, once a connection has shown it.
    spoken: AtomicU8,
    idle: Mutex<VecDeque<Idle>>,
    shared: Mutex<Vec<Shared>>,
    /// One at a time opens a connection that others may share.
    opening: tokio::sync::Mutex<()>,
}

struct Tls {
    name: ServerName<'static>,
    any: TlsConnector,
    h1_only: TlsConnector,
}

struct Idle {
    sender: http1::SendRequest<UploadBody>,
    since: Instant,
}

#[derive(Clone)]
struct Shared {
    sender: http2::SendRequest<UploadBody>,
    in_flight: Arc<AtomicUsize>,
}

/// A request with what the two protocols write differently.
pub(super) struct Outbound {
    pub(super) request: Request<UploadBody>,
    pub(super) host: HeaderValue,
    pub(super) path: PathAndQuery,
    pub(super) upgrade: Option<HeaderValue>,
    pub(super) takes_trailers: bool,
    pub(super) upload: Option<Arc<UploadState>>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendError {
    /// The upstream is spoken to in HTTP/2 only.
    UpgradeUnavailable,
    Ended(Ending),
}

/// The connection of one exchange. Dropped: an HTTP/1 connection is closed.
pub(super) struct Lease(Held);

enum Held {
    Alone {
        sender: http1::SendRequest<UploadBody>,
        pool: Arc<Pool>,
    },
    #[expect(dead_code, reason = "counts until it is dropped")]
    Shared(InFlight),
}

struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lease {
    /// The answer is whole: the connection may serve another request as soon as it is ready.
    pub(super) fn release(self) {
        let Held::Alone { mut sender, pool } = self.0 else { return };
        if sender.is_closed() {
            return;
        }
        if sender.is_ready() {
            pool.keep(sender);
            return;
        }
        tokio::spawn(async move {
            if sender.ready().await.is_ok() {
                pool.keep(sender);
            }
        });
    }
}

enum Connection {
    H1(http1::SendRequest<UploadBody>),
    H2(Shared),
}

impl Pool {
    pub(super) fn new(settings: UpstreamSettings) -> Result<Self, TlsError> {
        let target = &settings.target;
        let tls = match (&target.place, target.protocol) {
            (Place::Tcp { host, .. }, Protocol::Tls) => {
                let config = |alpn: &[&[u8]]| tls::client_config(settings.ca_file.as_deref(), alpn);
                let name = ServerName::try_from(host.clone()).map_err(|_| {
                    TlsError::Setup(rustls::Error::General("the host is not a name for TLS".to_owned()))
                })?;
                Some(Tls {
                    name,
                    any: TlsConnector::from(Arc::new(config(&[b"h2", b"http/1.1"])?)),
                    h1_only: TlsConnector::from(Arc::new(config(&[b"http/1.1"])?)),
                })
            }
            _ => None,
        };
        let spoken = match target.protocol {
            Protocol::Plain => H1,
            Protocol::H2c => H2,
            Protocol::Tls => UNKNOWN,
        };
        Ok(Self {
            settings,
            tls,
            spoken: AtomicU8::new(spoken),
            idle: Mutex::default(),
            shared: Mutex::default(),
            opening: tokio::sync::Mutex::new(()),
        })
    }

    pub(super) fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    /// Sends a request, once, and waits for the head of the answer.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut outbound: Outbound,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        if outbound.upgrade.is_some() && self.settings.target.protocol == Protocol::H2c {
            return Err(SendError::UpgradeUnavailable);
        }
        for _ in 0..MAX_STALE {
            let Some(connection) = self.kept(outbound.upgrade.is_some()) else { break };
            match self.send_on(connection, outbound).await {
                Ok(answer) => return Ok(answer),
                Err((_, Some(unsent))) => outbound = *unsent,
                Err((ending, None)) => return Err(SendError::Ended(ending)),
            }
        }
        let open = self.open(outbound.upgrade.is_some());
        let connection = match tokio::time::timeout(self.settings.connect_timeout, open).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(Unreachable)) => return Err(SendError::Ended(Ending::ConnectFailed)),
            Err(_) => return Err(SendError::Ended(Ending::TimedOut(Wait::Connect))),
        };
        self.send_on(connection, outbound).await.map_err(|(ending, _)| SendError::Ended(ending))
    }

    /// A kept connection that seems to be open.
    fn kept(&self, alone: bool) -> Option<Connection> {
        if !alone && let Some(shared) = self.shareable() {
            return Some(Connection::H2(shared));
        }
        let now = Instant::now();
        let mut idle = lock(&self.idle);
        while let Some(Idle { sender, since }) = idle.pop_back() {
            if now.duration_since(since) > self.settings.pool_idle {
                // Those before it are older.
                idle.clear();
                return None;
            }
            if sender.is_ready() && !sender.is_closed() {
                return Some(Connection::H1(sender));
            }
        }
        None
    }

    fn keep(&self, sender: http1::SendRequest<UploadBody>) {
        let now = Instant::now();
        let mut idle = lock(&self.idle);
        while idle.front().is_some_and(|oldest| now.duration_since(oldest.since) > self.settings.pool_idle) {
            idle.pop_front();
        }
        if idle.len() < self.settings.max_idle {
            idle.push_back(Idle { sender, since: now });
        }
    }

    /// A connection of HTTP/2 with room, or the least busy if there may be no more.
    fn shareable(&self) -> Option<Shared> {
        if self.spoken.load(Ordering::Relaxed) == H1 {
            return None;
        }
        let mut shared = lock(&self.shared);
        shared.retain(|connection| !connection.sender.is_closed());
        let load = |connection: &&Shared| connection.in_flight.load(Ordering::Relaxed);
        let least = shared.iter().min_by_key(load)?;
        (load(&least) < STREAMS_PER_CONNECTION || shared.len() >= MAX_H2_CONNECTIONS).then(|| least.clone())
    }

    async fn open(&self, alone: bool) -> Result<Connection, Unreachable> {
        if alone || self.spoken.load(Ordering::Relaxed) == H1 {
            return self.connect(alone).await;
        }
        let one = self.opening.lock().await;
        if let Some(shared) = self.shareable() {
            return Ok(Connection::H2(shared));
        }
        if self.spoken.load(Ordering::Relaxed) == H1 {
            drop(one);
            return self.connect(false).await;
        }
        let connection = self.connect(false).await;
        drop(one);
        connection
    }

    async fn connect(&self, alone: bool) -> Result<Connection, Unreachable> {
        let stream = match &self.settings.target.place {
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(Unreachable::because)?;
                return self.speak_h1(stream).await;
            }
            Place::Tcp { host, port } => {
                TcpStream::connect((host.as_str(), *port)).await.map_err(Unreachable::because)?
            }
        };
        stream.set_nodelay(true).map_err(Unreachable::because)?;
        let Some(tls) = &self.tls else {
            return match self.settings.target.protocol {
                Protocol::H2c => self.speak_h2(stream).await,
                _ => self.speak_h1(stream).await,
            };
        };
        let connector = if alone { &tls.h1_only } else { &tls.any };
        let stream = connector.connect(tls.name.clone(), stream).await.map_err(Unreachable::because)?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.spoken.store(H2, Ordering::Relaxed);
            self.speak_h2(stream).await
        } else {
            if !alone {
                self.spoken.store(H1, Ordering::Relaxed);
            }
            self.speak_h1(stream).await
        }
    }

    async fn speak_h1<S>(&self, stream: S) -> Result<Connection, Unreachable>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_RESPONSE_HEADER_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Unreachable::because)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to an upstream ended");
            }
        });
        sender.ready().await.map_err(Unreachable::because)?;
        Ok(Connection::H1(sender))
    }

    async fn speak_h2<S>(&self, stream: S) -> Result<Connection, Unreachable>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(H2_PING)
            .max_header_list_size(u32::try_from(MAX_RESPONSE_HEADER_BYTES).unwrap_or(u32::MAX))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Unreachable::because)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to an upstream ended");
            }
        });
        sender.ready().await.map_err(Unreachable::because)?;
        let shared = Shared { sender, in_flight: Arc::default() };
        lock(&self.shared).push(shared.clone());
        Ok(Connection::H2(shared))
    }

    /// Sends on one connection. The request comes back only if nothing of it was written.
    async fn send_on(
        self: &Arc<Self>,
        connection: Connection,
        mut outbound: Outbound,
    ) -> Result<(Response<Incoming>, Lease), (Ending, Option<Box<Outbound>>)> {
        let upload = outbound.upload.clone();
        let shaped = match &connection {
            Connection::H1(_) => outbound.shape_h1(),
            Connection::H2(_) => outbound.shape_h2(self.settings.target.scheme()),
        };
        if !shaped {
            return Err((Ending::NotSent, None));
        }
        let Outbound { request, host, path, upgrade, takes_trailers, .. } = outbound;
        let limit = first_byte(upload.as_deref(), self.settings.first_byte_timeout);
        let (sent, held) = match connection {
            Connection::H1(mut sender) => {
                let answer = sender.try_send_request(request);
                let sent = tokio::select! {
                    biased;
                    sent = answer => sent,
                    () = limit => return Err((Ending::TimedOut(Wait::FirstByte), None)),
                };
                (sent, Held::Alone { sender, pool: Arc::clone(self) })
            }
            Connection::H2(Shared { mut sender, in_flight }) => {
                in_flight.fetch_add(1, Ordering::Relaxed);
                let in_flight = InFlight(in_flight);
                let answer = sender.try_send_request(request);
                let sent = tokio::select! {
                    biased;
                    sent = answer => sent,
                    () = limit => return Err((Ending::TimedOut(Wait::FirstByte), None)),
                };
                (sent, Held::Shared(in_flight))
            }
        };
        match sent {
            Ok(response) => Ok((response, Lease(held))),
            Err(mut error) => {
                let unsent = error.take_message().map(|request| {
                    Box::new(Outbound { request, host, path, upgrade, takes_trailers, upload: upload.clone() })
                });
                tracing::debug!(error = %error.error(), "an upstream did not answer");
                let ending = upload.and_then(|upload| upload.ending());
                Err((ending.unwrap_or(Ending::UpstreamFailed(FailedIn::Head)), unsent))
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// No connection; why is in the log.
struct Unreachable;

impl Unreachable {
    fn because(error: impl std::fmt::Display) -> Self {
        tracing::debug!(%error, "an upstream cannot be reached");
        Self
    }
}

/// Ends when the upstream owes the head of its answer for longer than `limit`. While the client owes the next piece of its
/// body, the body's own limit runs instead.
async fn first_byte(upload: Option<&UploadState>, limit: Duration) {
    let Some(upload) = upload else { return tokio::time::sleep(limit).await };
    loop {
        let since = upload.progress().unwrap_or_else(Instant::now);
        let end = since + limit;
        if end <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(end).await;
    }
}

impl Outbound {
    fn shape_h1(&mut self) -> bool {
        let request = &mut self.request;
        *request.version_mut() = Version::HTTP_11;
        *request.uri_mut() = Uri::from(self.path.clone());
        let has_length = request.headers().contains_key(http::header::CONTENT_LENGTH);
        let has_body = !request.body().is_end_stream();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        if let Some(protocol) = &self.upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, protocol.clone());
        } else if self.takes_trailers {
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        if has_body && !has_length {
            // Said aloud, since hyper takes a GET without it to have no body.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        true
    }

    fn shape_h2(&mut self, scheme: http::uri::Scheme) -> bool {
        let Ok(authority) = Authority::try_from(self.host.as_bytes()) else { return false };
        let request = &mut self.request;
        *request.version_mut() = Version::HTTP_2;
        let path = self.path.clone();
        match Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(_) => return false,
        }
        let headers = request.headers_mut();
        for name in [HOST, CONNECTION, TRANSFER_ENCODING] {
            headers.remove(name);
        }
        if self.takes_trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        true
    }
}
