//! What follows a 101: bytes both ways between two upgraded connections, until both ends are done.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use super::hooks::{Ending, Guard, Place, RequestChunks, Wait};
use super::peer::{ConnectionState, Phase};
use super::upload::UploadState;

/// Bytes of each direction's buffer.
const BUFFER_BYTES: usize = 16 * 1024;

/// Both ends of a tunnel before either has switched, and who hears of it.
pub(super) struct Tunnel {
    pub(super) client: OnUpgrade,
    pub(super) upstream: OnUpgrade,
    pub(super) guard: Guard,
    pub(super) chunks: Option<RequestChunks>,
    pub(super) idle: Duration,
    /// Keeps the place among the open connections, and hears of the shutdown.
    pub(super) connection: Option<Arc<ConnectionState>>,
}

impl Tunnel {
    /// Runs until both directions have ended (each may end first), one breaks, or nothing moves for the idle time. Reports
    /// the ending.
    pub(super) async fn run(mut self) {
        let (client, upstream) = match tokio::time::timeout(self.idle, both(self.client, self.upstream)).await {
            Ok(Ok(ends)) => ends,
            Ok(Err(ending)) => return self.guard.fail(ending),
            Err(_) => return self.guard.fail(Ending::TimedOut(Wait::Idle)),
        };
        let moved = Moved::default();
        let (client_in, client_out) = tokio::io::split(TokioIo::new(client));
        let (upstream_in, upstream_out) = tokio::io::split(TokioIo::new(upstream));
        let chunks = self.chunks.take();
        let guard = &mut self.guard;
        let upload = Arc::clone(guard.upload.get_or_insert_with(UploadState::bare));
        let up = pump(client_in, upstream_out, &moved, |chunk| {
            upload.add(chunk.len());
            chunks.as_ref().map_or(ControlFlow::Continue(()), |chunks| chunks(chunk.len()))
        });
        let down = pump(upstream_in, client_out, &moved, |chunk| guard.chunk(chunk));
        let up =
            async { up.await.map_err(|broken| broken.ending(Ending::ClientGone, Ending::UpstreamFailed(Place::Body))) };
        let down = async {
            down.await.map_err(|broken| broken.ending(Ending::UpstreamFailed(Place::Body), Ending::ClientGone))
        };
        let ending = tokio::select! {
            done = async { tokio::try_join!(up, down) } => done.err().unwrap_or(Ending::Complete),
            () = moved.idle(self.idle) => Ending::TimedOut(Wait::Idle),
            () = closed(self.connection.as_deref()) => Ending::ShutDown,
        };
        self.guard.fail(ending);
    }
}

async fn both(client: OnUpgrade, upstream: OnUpgrade) -> Result<(Upgraded, Upgraded), Ending> {
    let upstream = async { upstream.await.map_err(|_| Ending::UpstreamFailed(Place::Body)) };
    let client = async { client.await.map_err(|_| Ending::ClientGone) };
    tokio::try_join!(client, upstream)
}

/// When the listener's time to drain is over; never without a listener.
async fn closed(connection: Option<&ConnectionState>) {
    if let Some(connection) = connection
        && connection.shutdown().wait_for(|phase| *phase == Phase::Closed).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

enum Broken {
    Source,
    Sink,
    Stopped,
}

impl Broken {
    fn ending(self, source: Ending, sink: Ending) -> Ending {
        match self {
            Self::Source => source,
            Self::Sink => sink,
            Self::Stopped => Ending::Stopped,
        }
    }
}

/// When bytes last moved, in either direction.
struct Moved {
    start: Instant,
    at_ms: AtomicU64,
}

impl Default for Moved {
    fn default() -> Self {
        Self { start: Instant::now(), at_ms: AtomicU64::new(0) }
    }
}

impl Moved {
    fn touch(&self) {
        let elapsed_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.at_ms.store(elapsed_ms, Ordering::Relaxed);
    }

    /// Ends when nothing has moved for `limit`.
    async fn idle(&self, limit: Duration) {
        loop {
            let end = self.start + Duration::from_millis(self.at_ms.load(Ordering::Relaxed)) + limit;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// Copies until the source ends, then ends the sink: the other direction goes on by itself.
async fn pump(
    mut source: impl AsyncRead + Unpin,
    mut sink: impl AsyncWrite + Unpin,
    moved: &Moved,
    mut hear: impl FnMut(&Bytes) -> ControlFlow<()>,
) -> Result<(), Broken> {
    let mut buffer = BytesMut::with_capacity(BUFFER_BYTES);
    loop {
        buffer.reserve(BUFFER_BYTES);
        let len = source.read_buf(&mut buffer).await.map_err(|_| Broken::Source)?;
        moved.touch();
        if len == 0 {
            return match sink.shutdown().await {
                Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(Broken::Sink),
                _ => Ok(()),
            };
        }
        let chunk = buffer.split().freeze();
        if hear(&chunk) == ControlFlow::Break(()) {
            return Err(Broken::Stopped);
        }
        sink.write_all(&chunk).await.map_err(|_| Broken::Sink)?;
        sink.flush().await.map_err(|_| Broken::Sink)?;
        moved.touch();
    }
}
