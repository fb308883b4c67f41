//! The body of an answer: empty, a few bytes, an upstream's answer on its way, or any other body in a box.
//!
//! Owns what an answer occupies (its place among the requests in flight) until its last byte is handed over or it is dropped.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::OwnedSemaphorePermit;

use super::peer::ConnectionState;
use super::relay::Relay;

/// Any error, as libraries hand it over.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An answer was broken off; the client sees an unclean end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream failed, or took too long, in its body.
    #[error("the upstream's answer broke off")]
    Upstream,
    /// A hook stopped the answer or withheld its end.
    #[error("the answer was stopped")]
    Stopped,
    /// A boxed body failed.
    #[error(transparent)]
    Other(BoxError),
}

/// The body of an answer.
pub struct GateBody {
    kind: Kind,
    slot: Option<Slot>,
}

/// A place among the requests in flight, of the listener and of the connection.
pub(super) struct Slot {
    connection: Arc<ConnectionState>,
    _place: OwnedSemaphorePermit,
}

impl Slot {
    pub(super) fn new(connection: Arc<ConnectionState>, place: OwnedSemaphorePermit) -> Self {
        connection.request_began();
        Self { connection, _place: place }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connection.request_ended();
    }
}

enum Kind {
    Full(Bytes),
    Relay(Box<Relay>),
    Boxed(UnsyncBoxBody<Bytes, BoxError>),
}

impl GateBody {
    /// No bytes.
    pub fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// These bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self { kind: Kind::Full(bytes.into()), slot: None }
    }

    /// Any other body.
    pub fn boxed<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self { kind: Kind::Boxed(body.map_err(Into::into).boxed_unsync()), slot: None }
    }

    pub(super) fn relay(relay: Relay) -> Self {
        Self { kind: Kind::Relay(Box::new(relay)), slot: None }
    }

    /// Holds a place among the requests in flight until the body ends.
    pub(super) fn occupying(mut self, slot: Slot) -> Self {
        self.slot = Some(slot);
        self
    }
}

impl Body for GateBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.kind {
            Kind::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Relay(relay) => relay.poll_frame(cx),
            Kind::Boxed(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::Other),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Relay(relay) => relay.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Relay(relay) => relay.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for GateBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Full(_) => "full",
            Kind::Relay(_) => "relay",
            Kind::Boxed(_) => "boxed",
        };
        formatter.debug_struct("GateBody").field("kind", &kind).field("in_flight", &self.slot.is_some()).finish()
    }
}
