//! The answer's body on its way out: of a paid answer the end waits until the draw is durable.
//!
//! Of an answer of known length the last piece is held, of any other the end of the stream. An answer that is withheld or
//! breaks ends in an error, so that no client takes it for whole.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::charge::{ChargeError, Guard};
use crate::gate::desk::Settled;
use crate::gate::proxy::BoxError;

type Piece = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// The body of an answer behind the layer.
pub struct LayerBody<B>(Kind<B>);

enum Kind<B> {
    /// Bytes that are here, and what follows them.
    Full(Bytes, Option<HeaderMap>),
    /// The service's, that cost nothing.
    Plain(Pin<Box<B>>),
    /// The service's, that were paid for.
    Relayed(Box<Relayed<B>>),
}

impl<B> LayerBody<B> {
    pub(super) const fn full(bytes: Bytes) -> Self {
        Self(Kind::Full(bytes, None))
    }

    pub(super) fn whole(whole: Whole) -> Self {
        Self(Kind::Full(whole.bytes, whole.trailers))
    }

    pub(super) fn plain(body: B) -> Self {
        Self(Kind::Plain(Box::pin(body)))
    }

    pub(super) fn relayed(body: Relayed<B>) -> Self {
        Self(Kind::Relayed(Box::new(body)))
    }
}

impl<B> fmt::Debug for LayerBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Full(..) => "LayerBody(full)",
            Kind::Plain(_) => "LayerBody(plain)",
            Kind::Relayed(_) => "LayerBody(relayed)",
        })
    }
}

impl<B> Body for LayerBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Piece {
        match &mut self.get_mut().0 {
            Kind::Full(bytes, trailers) if bytes.is_empty() => {
                Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Kind::Full(bytes, _) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Plain(body) => body.as_mut().poll_frame(cx).map_err(Into::into),
            Kind::Relayed(relayed) => relayed.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full(bytes, trailers) => bytes.is_empty() && trailers.is_none(),
            Kind::Plain(body) => body.is_end_stream(),
            Kind::Relayed(relayed) => matches!(relayed.stage, Stage::Over),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(bytes, _) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Plain(body) => body.size_hint(),
            Kind::Relayed(relayed) => relayed.size_hint(),
        }
    }
}

/// An answer that was read to its end.
#[derive(Debug, Default)]
pub(super) struct Whole {
    bytes: Bytes,
    trailers: Option<HeaderMap>,
}

/// Reads an answer of known length to its end. Holds no more than that.
pub(super) async fn read<B>(body: B, length: u64) -> Result<Whole, BoxError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut body = std::pin::pin!(body);
    let (mut bytes, mut trailers) = (BytesMut::new(), None);
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame.map_err(Into::into)?.into_data() {
            Ok(data) if (bytes.len() + data.len()) as u64 > length => return Err(Box::new(WrongLength)),
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    if bytes.len() as u64 != length {
        return Err(Box::new(WrongLength));
    }
    Ok(Whole { bytes: bytes.freeze(), trailers })
}

/// A paid answer.
pub(super) struct Relayed<B> {
    body: Pin<Box<B>>,
    guard: Guard,
    stage: Stage,
    /// Bytes of the declared length that were not handed over.
    remaining: Option<u64>,
    /// The client is not told the length, so that trailers can follow.
    hidden: bool,
}

enum Stage {
    /// Pieces pass.
    Flow,
    /// The declared length is reached; its last piece is held until the service's body ends.
    Tail(Bytes),
    /// All is here, and being drawn.
    Held {
        last: Option<Bytes>,
        trailers: Option<HeaderMap>,
        settling: Pin<Box<dyn Future<Output = Result<Settled, ChargeError>> + Send>>,
    },
    /// It is drawn.
    Free {
        last: Option<Bytes>,
        trailers: Option<HeaderMap>,
    },
    Over,
}

/// An answer that does not keep to its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer's body is not as long as its head said")]
struct WrongLength;

impl<B> Relayed<B> {
    pub(super) fn new(body: B, guard: Guard, length: Option<u64>, hidden: bool) -> Self {
        Self { body: Box::pin(body), guard, stage: Stage::Flow, remaining: length, hidden }
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.filter(|_| !self.hidden).map_or_else(SizeHint::new, SizeHint::with_exact)
    }

    /// The answer broke by itself.
    fn fail(&mut self, error: BoxError) -> Piece {
        self.guard.failed();
        self.stage = Stage::Over;
        Poll::Ready(Some(Err(error)))
    }

    fn whole(&mut self, trailers: Option<HeaderMap>) {
        let last = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Tail(last) => Some(last),
            _ => None,
        };
        self.stage = Stage::Held { last, trailers, settling: self.guard.settling() };
    }

    /// One piece of data; none where it is held.
    fn data(&mut self, data: Bytes) -> Option<Piece> {
        if let Some(remaining) = &mut self.remaining {
            let len = data.len() as u64;
            if len > *remaining || matches!(self.stage, Stage::Tail(_)) {
                return Some(self.fail(Box::new(WrongLength)));
            }
            if len == *remaining {
                self.stage = Stage::Tail(data);
                return None;
            }
            *remaining -= len;
        }
        Some(Poll::Ready(Some(Ok(Frame::data(data)))))
    }
}

impl<B> Relayed<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Piece {
        loop {
            match &mut self.stage {
                Stage::Over => return Poll::Ready(None),
                Stage::Free { last, trailers } => {
                    if let Some(last) = last.take() {
                        self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(last.len() as u64));
                        if trailers.is_none() {
                            self.stage = Stage::Over;
                        }
                        return Poll::Ready(Some(Ok(Frame::data(last))));
                    }
                    let trailers = trailers.take();
                    self.stage = Stage::Over;
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
                Stage::Held { last, trailers, settling } => {
                    let settled = ready!(settling.as_mut().poll(cx));
                    let (last, trailers) = (last.take(), trailers.take());
                    match settled {
                        Ok(settled) => {
                            self.stage = Stage::Free { last, trailers: self.guard.trailers(trailers, &settled) }
                        }
                        Err(error) => {
                            tracing::error!(%error, "a draw is not durable: the answer is withheld");
                            return self.fail(Box::new(error));
                        }
                    }
                }
                Stage::Tail(_) if self.body.is_end_stream() => self.whole(None),
                Stage::Flow | Stage::Tail(_) => match ready!(self.body.as_mut().poll_frame(cx)) {
                    None if matches!(self.stage, Stage::Flow) && self.remaining.is_some_and(|left| left > 0) => {
                        return self.fail(Box::new(WrongLength));
                    }
                    None => self.whole(None),
                    Some(Err(error)) => return self.fail(error.into()),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) if data.is_empty() => {}
                        Ok(data) => {
                            if let Some(piece) = self.data(data) {
                                return piece;
                            }
                        }
                        Err(frame) => {
                            if let Ok(trailers) = frame.into_trailers() {
                                self.whole(Some(trailers));
                            }
                        }
                    },
                },
            }
        }
    }
}
