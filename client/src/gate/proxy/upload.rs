//! The client's request body on its way up: counted, bounded in length and in time, and held until the upstream wants it
//! where the client asked for that (`Expect: 100-continue`).
//!
//! Owns no memory beyond the piece in passing. What became of the body is left in [`UploadState`] for whoever reads the
//! answer.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::body::BoxError;
use super::headers;
use super::hooks::{Ending, RequestChunks, RequestFault};

/// How long a body that the client holds back (`Expect: 100-continue`) waits for the upstream's word before it is asked for
/// all the same: an upstream may not know the expectation (RFC 9110 §10.1.1).
pub const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// The body did not go up whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request's body did not pass")]
pub(super) struct UploadError;

const SOUND: u8 = 0;
const BROKEN: u8 = 1;
const TOO_SLOW: u8 = 2;
const TOO_LARGE: u8 = 3;
const STOPPED: u8 = 4;

/// What became of a request body; shared with whoever waits for the answer.
#[derive(Debug)]
pub(super) struct UploadState {
    start: Instant,
    bytes: AtomicU64,
    fault: AtomicU8,
    /// Milliseconds after `start` at which the body last made progress.
    progress_ms: AtomicU64,
    /// The client is who does not deliver; its own limit runs.
    waiting: AtomicBool,
    valve: Mutex<Valve>,
}

#[derive(Debug)]
struct Valve {
    open: bool,
    cut: bool,
    waker: Option<Waker>,
}

impl UploadState {
    fn new(open: bool) -> Self {
        Self {
            start: Instant::now(),
            bytes: AtomicU64::new(0),
            fault: AtomicU8::new(SOUND),
            progress_ms: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
            valve: Mutex::new(Valve { open, cut: false, waker: None }),
        }
    }

    /// A state without a body, to count in.
    pub(super) fn bare() -> Arc<Self> {
        Arc::new(Self::new(true))
    }

    /// Counts bytes that went up; the sum.
    pub(super) fn add(&self, len: usize) -> u64 {
        self.bytes.fetch_add(len as u64, Ordering::Relaxed).saturating_add(len as u64)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How the exchange ended, if it was the request body that ended it.
    pub(super) fn ending(&self) -> Option<Ending> {
        match self.fault.load(Ordering::Acquire) {
            SOUND => None,
            TOO_SLOW => Some(Ending::RequestFailed(RequestFault::TooSlow)),
            TOO_LARGE => Some(Ending::RequestFailed(RequestFault::TooLarge)),
            STOPPED => Some(Ending::Stopped),
            _ => Some(Ending::RequestFailed(RequestFault::Broken)),
        }
    }

    /// Since when the upstream owes the next step; none while the client does.
    pub(super) fn progress(&self) -> Option<Instant> {
        let waiting = self.waiting.load(Ordering::Acquire);
        (!waiting).then(|| self.start + Duration::from_millis(self.progress_ms.load(Ordering::Relaxed)))
    }

    /// The upstream said 100: the body may go up.
    pub(super) fn go_on(&self) {
        self.turn(|valve| valve.open = true);
    }

    /// The exchange is over. What is left of the body may still go up to an upstream that answered early and reads on, but
    /// not when the exchange failed, and not when it was never asked for.
    pub(super) fn end(&self, complete: bool) {
        self.turn(|valve| valve.cut = !complete || !valve.open);
    }

    /// Whether the body may go up; wakes the reader when that changes. An error once the exchange is over.
    fn listen(&self, cx: &Context<'_>) -> Result<bool, UploadError> {
        let mut valve = self.valve.lock().unwrap_or_else(PoisonError::into_inner);
        if valve.cut {
            return Err(UploadError);
        }
        if !valve.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            valve.waker = Some(cx.waker().clone());
        }
        Ok(valve.open)
    }

    fn turn(&self, change: impl FnOnce(&mut Valve)) {
        let mut valve = self.valve.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut valve);
        let waker = valve.waker.take();
        drop(valve);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn touch(&self) {
        let elapsed_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.progress_ms.store(elapsed_ms, Ordering::Relaxed);
        self.waiting.store(false, Ordering::Release);
    }
}

/// Bounds of a request body.
#[derive(Clone, Copy, Debug)]
pub(super) struct UploadLimits {
    pub(super) max_bytes: u64,
    pub(super) idle: Duration,
}

/// A request body as the upstream's connection takes it.
pub(super) enum UploadBody {
    Empty,
    Stream(Pin<Box<dyn Body<Data = Bytes, Error = UploadError> + Send>>),
}

impl UploadBody {
    /// A body and its state, which says later what became of it. `held`: wait for [`UploadState::go_on`].
    pub(super) fn stream<B>(
        body: B,
        limits: UploadLimits,
        chunks: Option<RequestChunks>,
        held: bool,
    ) -> (Self, Arc<UploadState>)
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let state = Arc::new(UploadState::new(!held));
        let upload = Upload { body, state: Arc::clone(&state), chunks, limits, held, timer: None };
        (Self::Stream(Box::pin(upload)), state)
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(body) => body.size_hint(),
        }
    }
}

struct Upload<B> {
    body: B,
    state: Arc<UploadState>,
    chunks: Option<RequestChunks>,
    limits: UploadLimits,
    held: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> Upload<B> {
    fn fail(&mut self, fault: u8) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        self.state.fault.store(fault, Ordering::Release);
        self.state.waiting.store(false, Ordering::Release);
        Poll::Ready(Some(Err(UploadError)))
    }

    /// Whether the time that began when this was first asked is over.
    fn is_late(&mut self, limit: Duration, cx: &mut Context<'_>) -> bool {
        self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit))).as_mut().poll(cx).is_ready()
    }

    /// Waits until the upstream wants the body, or says that it does not.
    fn poll_valve(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        if !self.state.listen(cx)? {
            if !self.is_late(CONTINUE_WAIT, cx) {
                return Poll::Pending;
            }
            self.state.go_on();
        }
        self.held = false;
        self.timer = None;
        Poll::Ready(Ok(()))
    }
}

impl<B> Body for Upload<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = &mut *self;
        if this.held
            && let Err(error) = std::task::ready!(this.poll_valve(cx))
        {
            return Poll::Ready(Some(Err(error)));
        }
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                this.timer = None;
                this.state.touch();
                if let Some(data) = frame.data_ref() {
                    let len = data.len();
                    let bytes = this.state.add(len);
                    if bytes > this.limits.max_bytes {
                        return this.fail(TOO_LARGE);
                    }
                    if let Some(chunks) = &this.chunks
                        && chunks(len) == ControlFlow::Break(())
                    {
                        return this.fail(STOPPED);
                    }
                } else if let Some(trailers) = frame.trailers_mut() {
                    headers::clean_request_trailers(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => this.fail(BROKEN),
            Poll::Ready(None) => {
                this.state.touch();
                Poll::Ready(None)
            }
            Poll::Pending => {
                this.state.waiting.store(true, Ordering::Release);
                if let Err(error) = this.state.listen(cx) {
                    return Poll::Ready(Some(Err(error)));
                }
                if this.is_late(this.limits.idle, cx) { this.fail(TOO_SLOW) } else { Poll::Pending }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
