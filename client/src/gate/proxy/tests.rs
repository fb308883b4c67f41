//! The proxy between real sockets: misbehaving upstreams are raw TCP, well-behaved ones and HTTP/2 clients are hyper's.

#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use super::*;

mod endings;
mod framing;
mod http2;
mod limits;
mod upgrades;

/// What the hooks heard, shared with the test.
#[derive(Default)]
struct Heard {
    chunks: Mutex<Vec<u8>>,
    up: Arc<AtomicUsize>,
    /// Decides about complete answers; none: released at once.
    gate: Mutex<Option<oneshot::Receiver<Release>>>,
    stop_after: Option<usize>,
}

struct Recorder {
    heard: Arc<Heard>,
    endings: mpsc::UnboundedSender<(Ending, Passed)>,
}

impl Hooks for Recorder {
    fn request_chunks(&mut self) -> Option<RequestChunks> {
        let up = Arc::clone(&self.heard.up);
        Some(Arc::new(move |len| {
            up.fetch_add(len, Ordering::Relaxed);
            std::ops::ControlFlow::Continue(())
        }))
    }

    fn on_chunk(&mut self, chunk: &Bytes) -> std::ops::ControlFlow<()> {
        let mut chunks = self.heard.chunks.lock().unwrap();
        if self.heard.stop_after.is_some_and(|stop| chunks.len() + chunk.len() > stop) {
            return std::ops::ControlFlow::Break(());
        }
        if chunks.len() < 1 << 20 {
            chunks.extend_from_slice(chunk);
        }
        std::ops::ControlFlow::Continue(())
    }

    fn on_switch(&mut self) -> Hold {
        self.heard.gate.lock().unwrap().take().map_or_else(Hold::release, |gate| {
            Hold::Until(Box::pin(async move { gate.await.unwrap_or(Err(Withheld)) }))
        })
    }

    fn on_end(self: Box<Self>, ending: Ending, passed: Passed) -> Hold {
        let gate = self.heard.gate.lock().unwrap().take().filter(|_| ending == Ending::Complete);
        let Some(gate) = gate else {
            let _ = self.endings.send((ending, passed));
            return Hold::release();
        };
        Hold::Until(Box::pin(async move {
            let release = gate.await.unwrap_or(Err(Withheld));
            let _ = self.endings.send((ending, passed));
            release
        }))
    }
}

struct Plain {
    upstream: Upstream,
    heard: Arc<Heard>,
    endings: mpsc::UnboundedSender<(Ending, Passed)>,
}

impl Handler for Plain {
    async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<GateBody> {
        let hooks = Recorder { heard: Arc::clone(&self.heard), endings: self.endings.clone() };
        forward(request, &self.upstream, &peer, Box::new(hooks)).await
    }
}

/// A proxy that listens.
struct Proxy {
    address: SocketAddr,
    heard: Arc<Heard>,
    endings: mpsc::UnboundedReceiver<(Ending, Passed)>,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
}

impl Proxy {
    async fn before(target: &str) -> Self {
        let gate_cookies = vec!["weir_gate".to_owned()];
        let upstream = UpstreamSettings { gate_cookies, ..UpstreamSettings::new(target.parse().unwrap()) };
        Self::with(upstream, |_| {}, Heard::default()).await
    }

    async fn with(upstream: UpstreamSettings, tune: impl FnOnce(&mut ListenerSettings), heard: Heard) -> Self {
        let mut settings = ListenerSettings::new("127.0.0.1:0".parse().unwrap());
        tune(&mut settings);
        let heard = Arc::new(heard);
        let (sender, endings) = mpsc::unbounded_channel();
        let handler =
            Arc::new(Plain { upstream: Upstream::new(upstream).unwrap(), heard: Arc::clone(&heard), endings: sender });
        let listener = Listener::bind(settings).await.unwrap();
        let address = listener.local_address().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(listener.serve(handler, async {
            let _ = stopped.await;
        }));
        Self { address, heard, endings, stop: Some(stop), served }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes and reads until the connection ends.
    async fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        // A refused request's answer may come, and the connection end, before all is written.
        let _ = stream.write_all(bytes.as_ref()).await;
        read_all(&mut stream).await
    }

    async fn ending(&mut self) -> Ending {
        self.endings.recv().await.unwrap().0
    }

    /// No ending was reported beyond those already read.
    fn no_other_ending(&mut self) {
        assert!(self.endings.try_recv().is_err());
    }
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes).await {
        Ok(_) => {}
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            bytes.extend_from_slice(b"<reset>");
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until `end` is in what was read.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains(end) {
        let mut piece = [0; 1024];
        let len = stream.read(&mut piece).await.unwrap();
        assert_ne!(len, 0, "the connection ended after {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&piece[..len]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An upstream of raw TCP: each connection is given to `serve` with its number, from 0.
async fn raw_upstream<F, S>(serve: S) -> String
where
    S: Fn(usize, TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(number, stream));
        }
    });
    format!("http://{address}")
}

/// An upstream that answers every first request of a connection with these bytes and hears what it was sent.
async fn answering(answer: &'static str) -> (String, mpsc::UnboundedReceiver<String>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let target = raw_upstream(move |_, mut stream| {
        let sender = sender.clone();
        async move {
            let head = read_until(&mut stream, "\r\n\r\n").await;
            let _ = sender.send(head);
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
            let _ = stream.read(&mut [0; 64]).await;
        }
    })
    .await;
    (target, receiver)
}

/// A well-behaved upstream: HTTP/1.1 and HTTP/2, answers with what `serve` makes of the request.
async fn hyper_upstream<F, S, B>(serve: S) -> SocketAddr
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let serve = serve.clone();
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request| {
                    let answer = serve(request);
                    async move { Ok::<_, std::convert::Infallible>(answer.await) }
                });
                let mut http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                http.http2().max_concurrent_streams(1000);
                let _ = http.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

async fn h2_client<B>(address: SocketAddr) -> hyper::client::conn::http2::SendRequest<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn short(target: &str) -> UpstreamSettings {
    let short = Duration::from_millis(60);
    UpstreamSettings {
        first_byte_timeout: short,
        idle_timeout: short,
        request_idle_timeout: short,
        ..UpstreamSettings::new(target.parse().unwrap())
    }
}

const GET: &str = "GET /a?b=1 HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n";
