//! What the gate's logic hears of one forwarded request, and where it may hold the answer back.
//!
//! Owns the promise that each exchange ends exactly once: [`Guard`] reports an ending on every way out, a dropped future or
//! body included. Knows nothing of money.

use std::fmt;
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, request, response};

use super::upload::UploadState;

/// How one exchange ended. Each exchange reports exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The upstream's answer is whole. Its last piece is held until [`Hooks::on_end`] lets it go.
    Complete,
    /// The proxy refused to send the request; the upstream never saw it.
    NotSent,
    /// No connection to the upstream; it never saw the request.
    ConnectFailed,
    /// The upstream failed, or its answer was not HTTP. It may have acted on the request.
    UpstreamFailed(Place),
    /// A time limit of the upstream's side ran out.
    TimedOut(Wait),
    /// The client's request body failed on the way.
    RequestFailed(RequestFault),
    /// The client went away, or took too long to read.
    ClientGone,
    /// A hook stopped the exchange.
    Stopped,
    /// The gate was shut down and the time to drain ran out. Only tunnels report it.
    ShutDown,
}

/// Where the upstream failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Before its head was whole.
    Head,
    /// In the body, or in a tunnel.
    Body,
}

/// Which wait took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wait {
    /// The connection, TLS included. The upstream never saw the request.
    Connect,
    /// The head of the answer.
    FirstByte,
    /// The next piece of the answer, or of a tunnel.
    Idle,
}

/// What was wrong with the client's request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestFault {
    /// Broken off, or not HTTP.
    Broken,
    /// The next piece did not come in time.
    TooSlow,
    /// More bytes than the route takes.
    TooLarge,
}

/// Bytes of bodies that passed, without heads, framing and trailers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// From the client to the upstream.
    pub up_bytes: u64,
    /// From the upstream; the held last piece counts.
    pub down_bytes: u64,
}

/// A hook would not let the answer go. Why is the hook's to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the end of the answer was withheld")]
pub struct Withheld;

/// Headers to add to the answer, or its abort. They go into the head where it is not yet sent, else into the trailers (which
/// HTTP/1.0, and HTTP/1.1 answers of a known length, cannot carry: there they are dropped).
pub type Release = Result<Option<HeaderMap>, Withheld>;

/// A future that decides when the held answer goes.
pub type ReleaseFuture = Pin<Box<dyn Future<Output = Release> + Send>>;

/// What a hook says about an answer that is held.
pub enum Hold {
    /// Decided.
    Done(Release),
    /// Decided by this future. It is always run to its end, also when the client goes away meanwhile.
    Until(ReleaseFuture),
}

impl Hold {
    /// Lets the answer go as it is.
    pub fn release() -> Self {
        Self::Done(Ok(None))
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(release) => formatter.debug_tuple("Done").field(release).finish(),
            Self::Until(_) => formatter.write_str("Until"),
        }
    }
}

/// Hears the length of each piece of the request body, before it goes up. `Break` stops the exchange.
pub type RequestChunks = Arc<dyn Fn(usize) -> ControlFlow<()> + Send + Sync>;

/// Hears of one exchange. Called in this order: `request_chunks`, `on_request_head`, `on_response_head`, `on_switch` (only an
/// upgrade), `on_chunk` …, `on_trailers`, and on every way out `on_end`, once. Hooks must not block.
pub trait Hooks: Send + 'static {
    /// Who hears of the request body's pieces; it runs beside the other hooks.
    fn request_chunks(&mut self) -> Option<RequestChunks> {
        None
    }

    /// The head as it goes up, clean of payment headers: the place to add `payment-context`.
    fn on_request_head(&mut self, _head: &mut request::Parts) {}

    /// The upstream's head, clean of payment headers that an upstream might fake, before the client sees it.
    fn on_response_head(&mut self, _head: &mut response::Parts) {}

    /// A piece of the answer before it passes, or of what the upstream says in a tunnel. `Break` stops the exchange: this
    /// piece does not pass.
    fn on_chunk(&mut self, _chunk: &Bytes) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// The upstream's trailers before they pass.
    fn on_trailers(&mut self, _trailers: &mut HeaderMap) {}

    /// The upstream agreed to an upgrade (101), and the client has not heard yet: what must be durable before the tunnel
    /// opens. Withheld: the client gets a 503. Headers are added to the 101.
    fn on_switch(&mut self) -> Hold {
        Hold::release()
    }

    /// The end. With [`Ending::Complete`] the last piece of the answer waits for the [`Hold`]: a withheld answer is broken off
    /// and never looks whole. In every other case nobody waits, but the future is run to its end.
    fn on_end(self: Box<Self>, ending: Ending, passed: Passed) -> Hold;
}

/// Hooks that hear nothing and hold nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHooks;

impl Hooks for NoHooks {
    fn on_end(self: Box<Self>, _ending: Ending, _passed: Passed) -> Hold {
        Hold::release()
    }
}

/// Owns the hooks of one exchange and reports [`Ending::ClientGone`] when it is dropped before an ending was reported: what
/// drops it is hyper, when the client is gone.
pub(super) struct Guard {
    hooks: Option<Box<dyn Hooks>>,
    pub(super) upload: Option<Arc<UploadState>>,
    pub(super) down_bytes: u64,
}

impl Guard {
    pub(super) fn new(hooks: Box<dyn Hooks>) -> Self {
        Self { hooks: Some(hooks), upload: None, down_bytes: 0 }
    }

    /// The hooks, as long as no ending was reported.
    pub(super) fn hooks(&mut self) -> Option<&mut dyn Hooks> {
        match &mut self.hooks {
            Some(hooks) => Some(hooks.as_mut()),
            None => None,
        }
    }

    /// Counts a piece of the answer and shows it to the hooks.
    pub(super) fn chunk(&mut self, chunk: &Bytes) -> ControlFlow<()> {
        match &mut self.hooks {
            Some(hooks) => hooks.on_chunk(chunk)?,
            None => return ControlFlow::Break(()),
        }
        self.down_bytes = self.down_bytes.saturating_add(chunk.len() as u64);
        ControlFlow::Continue(())
    }

    /// Reports the end, the first time; the caller waits for what comes back.
    pub(super) fn end(&mut self, ending: Ending) -> Hold {
        let Some(hooks) = self.hooks.take() else { return Hold::Done(Err(Withheld)) };
        let mut up_bytes = 0;
        if let Some(upload) = &self.upload {
            up_bytes = upload.bytes();
            upload.end(ending == Ending::Complete);
        }
        hooks.on_end(ending, Passed { up_bytes, down_bytes: self.down_bytes })
    }

    /// Reports the end of an exchange that broke: nobody waits, but the hook's future is run to its end.
    pub(super) fn fail(&mut self, ending: Ending) {
        if self.hooks.is_some()
            && let Hold::Until(future) = self.end(ending)
        {
            run(future);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.fail(Ending::ClientGone);
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Guard").field("reported", &self.hooks.is_none()).finish_non_exhaustive()
    }
}

/// Runs a hook's future to its end even when whoever waits for it is dropped.
pub(super) struct Finish(Option<ReleaseFuture>);

impl Finish {
    pub(super) fn new(future: ReleaseFuture) -> Self {
        Self(Some(future))
    }
}

impl Future for Finish {
    type Output = Release;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Release> {
        let Some(future) = &mut self.0 else { return Poll::Ready(Err(Withheld)) };
        let release = std::task::ready!(future.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(release)
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        if let Some(future) = self.0.take() {
            run(future);
        }
    }
}

/// Waits for a hold.
pub(super) async fn settle(hold: Hold) -> Release {
    match hold {
        Hold::Done(release) => release,
        Hold::Until(future) => Finish::new(future).await,
    }
}

/// Outside a runtime (the process is ending) the future is dropped: what it would have done is what a crash leaves undone.
fn run(future: ReleaseFuture) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(future);
    }
}
