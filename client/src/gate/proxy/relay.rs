//! The upstream's answer on its way to the client.
//!
//! Owns the rule that no client sees a whole answer before the end was let go: of an answer of known length the last piece is
//! held, of any other the end of the stream. An answer whose end is withheld, or that breaks, never looks whole.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::body::BodyError;
use super::headers;
use super::hooks::{Ending, Finish, Guard, Hold, Place, Release, Wait};
use super::peer::ConnectionState;
use super::pool::Lease;

type Piece = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

pub(super) struct Relay {
    body: Incoming,
    guard: Guard,
    stage: Stage,
    /// Bytes of the declared length that the client has not been handed.
    remaining: Option<u64>,
    hides_length: bool,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    lease: Option<Lease>,
    /// The client's connection where an answer that ends early might look whole: HTTP/1.
    reset: Option<Arc<ConnectionState>>,
    /// A piece that came before the head was sent.
    first: Option<Bytes>,
    /// How it failed.
    ended: Option<Ending>,
}

/// What came of an answer before its head was sent.
pub(super) enum Early {
    /// All of it, let go; with headers to add to its head.
    Whole(Bytes, Option<HeaderMap>),
    /// Some of it: the rest passes later.
    Begun,
    /// Nothing that the client could get.
    Failed(Ending),
    /// It is withheld.
    Withheld,
}

enum Stage {
    /// Pieces pass.
    Flow,
    /// The declared length is reached; its last piece is held until the upstream ends its stream.
    Tail(Bytes),
    /// All is here; the hook decides.
    Held {
        last: Option<Bytes>,
        trailers: Option<HeaderMap>,
        decision: Finish,
    },
    /// The hook let it go.
    Free {
        last: Option<Bytes>,
        trailers: Option<HeaderMap>,
    },
    Over,
}

/// What a relay is made of besides the body.
pub(super) struct RelayParts {
    pub(super) guard: Guard,
    pub(super) lease: Lease,
    pub(super) length: Option<u64>,
    /// The client is not told it.
    pub(super) hides_length: bool,
    pub(super) idle: Duration,
    pub(super) reset: Option<Arc<ConnectionState>>,
}

impl Relay {
    pub(super) fn new(body: Incoming, parts: RelayParts) -> Self {
        let RelayParts { guard, lease, length, hides_length, idle, reset } = parts;
        Self {
            body,
            guard,
            stage: Stage::Flow,
            remaining: length,
            hides_length,
            idle,
            timer: None,
            lease: Some(lease),
            reset,
            first: None,
            ended: None,
        }
    }

    /// Waits for the first piece, and for the decision where that is all: so a small answer is one write, and one that is
    /// withheld gets a proper refusal.
    pub(super) async fn early(&mut self) -> Early {
        let reset = self.reset.take();
        let piece = poll_fn(|cx| self.poll_frame(cx)).await;
        self.reset = reset;
        let Some(Ok(frame)) = piece else {
            return match piece {
                Some(Err(BodyError::Stopped)) => Early::Withheld,
                _ => Early::Failed(self.ended.unwrap_or(Ending::UpstreamFailed(Place::Body))),
            };
        };
        let data = frame.into_data().unwrap_or_default();
        match &mut self.stage {
            Stage::Over => Early::Whole(data, None),
            Stage::Free { last: None, trailers } => Early::Whole(data, trailers.take()),
            _ => {
                if let Some(remaining) = &mut self.remaining {
                    *remaining += data.len() as u64;
                }
                self.first = Some(data);
                Early::Begun
            }
        }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Piece {
        if let Some(first) = self.first.take() {
            if let Some(remaining) = &mut self.remaining {
                *remaining = remaining.saturating_sub(first.len() as u64);
            }
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        loop {
            match &mut self.stage {
                Stage::Over => return Poll::Ready(None),
                Stage::Free { last, trailers } => {
                    if let Some(last) = last.take() {
                        if let Some(remaining) = &mut self.remaining {
                            *remaining = remaining.saturating_sub(last.len() as u64);
                        }
                        if trailers.is_none() {
                            self.stage = Stage::Over;
                        }
                        return Poll::Ready(Some(Ok(Frame::data(last))));
                    }
                    let trailers = trailers.take();
                    self.stage = Stage::Over;
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
                Stage::Held { last, trailers, decision } => {
                    let release = ready!(Pin::new(decision).poll(cx));
                    let (last, trailers) = (last.take(), trailers.take());
                    if let Err(error) = self.decided(release, last, trailers) {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                Stage::Tail(_) if self.body.is_end_stream() => self.whole(None),
                Stage::Flow | Stage::Tail(_) => match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Pending => {
                        let idle = self.idle;
                        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
                        ready!(timer.as_mut().poll(cx));
                        return self.fail(Ending::TimedOut(Wait::Idle));
                    }
                    Poll::Ready(None) => {
                        // A declared length that was not reached, and hyper did not mind.
                        if matches!(self.stage, Stage::Flow) && self.remaining.is_some_and(|remaining| remaining > 0) {
                            return self.fail(Ending::UpstreamFailed(Place::Body));
                        }
                        self.whole(None);
                    }
                    Poll::Ready(Some(Err(_))) => {
                        let request = self.guard.upload.as_ref().and_then(|upload| upload.ending());
                        return self.fail(request.unwrap_or(Ending::UpstreamFailed(Place::Body)));
                    }
                    Poll::Ready(Some(Ok(frame))) => {
                        self.timer = None;
                        match frame.into_data() {
                            Ok(data) if data.is_empty() => {}
                            Ok(data) => {
                                if let Some(piece) = self.data(data) {
                                    return piece;
                                }
                            }
                            Err(frame) => {
                                if let Ok(mut trailers) = frame.into_trailers() {
                                    headers::clean_response_trailers(&mut trailers);
                                    if let Some(hooks) = self.guard.hooks() {
                                        hooks.on_trailers(&mut trailers);
                                    }
                                    self.whole(Some(trailers));
                                }
                            }
                        }
                    }
                },
            }
        }
    }

    /// One piece of data; none where it is held.
    fn data(&mut self, data: Bytes) -> Option<Piece> {
        if matches!(self.stage, Stage::Tail(_)) {
            // More than was declared: hyper stops that, but what is charged must not hang on it.
            return Some(self.fail(Ending::UpstreamFailed(Place::Body)));
        }
        if self.guard.chunk(&data) == ControlFlow::Break(()) {
            return Some(self.fail(Ending::Stopped));
        }
        if let Some(remaining) = &mut self.remaining {
            let len = data.len() as u64;
            if len > *remaining {
                return Some(self.fail(Ending::UpstreamFailed(Place::Body)));
            }
            if len == *remaining {
                self.stage = Stage::Tail(data);
                return None;
            }
            *remaining -= len;
        }
        Some(Poll::Ready(Some(Ok(Frame::data(data)))))
    }

    /// All of the answer is here: asks the hook, and gives the upstream's connection back meanwhile.
    fn whole(&mut self, trailers: Option<HeaderMap>) {
        self.timer = None;
        if let Some(lease) = self.lease.take() {
            lease.release();
        }
        let last = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Tail(last) => Some(last),
            _ => None,
        };
        let decision = match self.guard.end(Ending::Complete) {
            Hold::Done(release) => Finish::new(Box::pin(std::future::ready(release))),
            Hold::Until(future) => Finish::new(future),
        };
        self.stage = Stage::Held { last, trailers, decision };
    }

    fn decided(&mut self, release: Release, last: Option<Bytes>, trailers: Option<HeaderMap>) -> Result<(), BodyError> {
        self.stage = Stage::Over;
        let Ok(extra) = release else {
            self.break_off();
            return Err(BodyError::Stopped);
        };
        let trailers = match (trailers, extra) {
            (Some(mut trailers), Some(extra)) => {
                trailers.extend(extra);
                Some(trailers)
            }
            (trailers, extra) => trailers.or(extra),
        };
        self.stage = Stage::Free { last, trailers };
        Ok(())
    }

    fn fail(&mut self, ending: Ending) -> Piece {
        self.stage = Stage::Over;
        self.lease = None;
        self.break_off();
        self.ended = Some(ending);
        self.guard.fail(ending);
        let error = if ending == Ending::Stopped { BodyError::Stopped } else { BodyError::Upstream };
        Poll::Ready(Some(Err(error)))
    }

    fn break_off(&self) {
        if let Some(connection) = &self.reset {
            connection.reset();
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.remaining.filter(|_| !self.hides_length).map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}
