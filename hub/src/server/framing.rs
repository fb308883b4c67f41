//! Messages on QUIC streams: bytes in, bodies out, within the limit of the place.

use std::ops::Range;

use quinn::{RecvStream, SendStream};
use weir_protocol::reject::Reject;
use weir_protocol::wire::{DecodeError, LENGTH_BYTES, Request, RequestMessage, decode, decode_length, encode_into};

use super::code;

/// Bytes that are taken from a stream at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Room that a stream keeps while it waits for more.
const KEPT_BYTES: usize = 2 * 1024;
/// Kinds of requests that this hub knows.
const REQUESTS: u32 = 11;
/// The request that carries an act.
const REQUEST_ACT: u32 = 1;
/// Kinds of acts that this hub knows.
const ACTS: u32 = 22;

/// Why no message comes any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// The peer is gone, or gave the stream up.
    Lost,
    /// What came cannot be taken apart: the stream is reset with this code.
    Framing(Reject),
}

/// The messages of one stream. Memory grows with what has arrived, never with what was announced.
#[derive(Debug)]
pub(super) struct Messages {
    stream: RecvStream,
    buffer: Vec<u8>,
    at: usize,
}

impl Messages {
    pub(super) const fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: Vec::new(), at: 0 }
    }

    /// The next body; `None` at the stream's end.
    pub(super) async fn next(&mut self, limit: usize) -> Result<Option<&[u8]>, Broken> {
        loop {
            if let Some(body) = self.whole(limit).map_err(|_| Broken::Framing(Reject::Malformed))? {
                self.at = body.end;
                return Ok(self.buffer.get(body));
            }
            self.buffer.drain(..self.at);
            self.at = 0;
            if self.buffer.is_empty() && self.buffer.capacity() > KEPT_BYTES {
                self.buffer = Vec::new();
            }
            match self.stream.read_chunk(CHUNK_BYTES, true).await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Ok(None) if self.buffer.is_empty() => return Ok(None),
                Ok(None) => return Err(Broken::Framing(Reject::Malformed)),
                Err(_) => return Err(Broken::Lost),
            }
        }
    }

    /// Where the next body is, if all of it has arrived.
    fn whole(&self, limit: usize) -> Result<Option<Range<usize>>, DecodeError> {
        let rest = self.buffer.get(self.at..).unwrap_or_default();
        let Some(prefix) = rest.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = decode_length(*prefix, limit)?;
        let start = self.at + LENGTH_BYTES;
        let body = start..start + length;
        Ok((body.end <= self.buffer.len()).then_some(body))
    }

    /// Hears nothing more of this stream, and says why.
    pub(super) fn stop(&mut self, reject: Reject) {
        // Fails only when the stream is over already.
        let _ = self.stream.stop(code(reject));
    }

    /// Throws away whatever else the peer sends. Ends when the peer gives the stream up; its own end changes nothing.
    pub(super) async fn drain(&mut self) {
        self.buffer = Vec::new();
        self.at = 0;
        while let Ok(more) = self.stream.read_chunk(CHUNK_BYTES, true).await {
            if more.is_none() {
                core::future::pending::<()>().await;
            }
        }
    }
}

/// Appends a message with its length in front.
pub(super) fn append<T: serde::Serialize>(message: &T, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; LENGTH_BYTES]);
    encode_into(message, bytes);
    let length = u32::try_from(bytes.len() - start - LENGTH_BYTES).unwrap_or(u32::MAX);
    if let Some(prefix) = bytes.get_mut(start..start + LENGTH_BYTES) {
        prefix.copy_from_slice(&length.to_le_bytes());
    }
}

/// Ends both directions of a stream on which framing is lost.
pub(super) fn reset(send: &mut SendStream, messages: &mut Messages, reject: Reject) {
    // Fails only when the stream is over already.
    let _ = send.reset(code(reject));
    messages.stop(reject);
}

/// A control message: the request, or the number under which to refuse it. `None`: not even that can be read.
pub(super) fn decode_request(body: &[u8]) -> Option<Result<RequestMessage, (u64, Reject)>> {
    if let Ok(message) = decode::<RequestMessage>(body) {
        return Some(Ok(message));
    }
    let (id, rest) = varint::<u64>(body)?;
    Some(Err((id, refuse_request(rest))))
}

/// An unknown request or act is `unsupported`; everything else that does not decode is `malformed`.
fn refuse_request(request: &[u8]) -> Reject {
    match varint::<u32>(request) {
        Some((kind, _)) if kind >= REQUESTS => Reject::Unsupported,
        Some((REQUEST_ACT, act)) => match varint::<u32>(act) {
            Some((kind, _)) if kind >= ACTS => Reject::Unsupported,
            _ => Reject::Malformed,
        },
        _ => Reject::Malformed,
    }
}

/// A varint in its one form, and what follows.
fn varint<T: serde::de::DeserializeOwned + serde::Serialize>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let (value, rest) = postcard::take_from_bytes::<T>(bytes).ok()?;
    let taken = bytes.get(..bytes.len() - rest.len())?;
    decode::<T>(taken).ok()?;
    Some((value, rest))
}

/// Whether the replies to a request can be large, and so are few at one time.
pub(super) const fn is_large(request: &Request) -> bool {
    match request {
        Request::Channels { .. }
        | Request::Lanes { .. }
        | Request::History { .. }
        | Request::Statement { .. }
        | Request::Evidence(_)
        | Request::Mandates(_)
        | Request::WindowStatement { .. } => true,
        Request::Prove { .. }
        | Request::Act(_)
        | Request::Hub
        | Request::Account(_)
        | Request::DepositInstructions { .. }
        | Request::Channel(_)
        | Request::Commit { .. } => false,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use weir_protocol::act::{Act, Settled, SignedAct};
    use weir_protocol::keys::Signature;

    fn body(message: &RequestMessage) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_into(message, &mut bytes);
        bytes
    }

    #[test]
    fn last_known_request_and_act_decode_and_the_next_are_unsupported() {
        let mut last = body(&RequestMessage { id: 7, request: Request::Commit { number: 1 } });
        assert_eq!(last.get(1).copied(), u8::try_from(REQUESTS - 1).ok());
        assert!(matches!(decode_request(&last), Some(Ok(_))));
        *last.get_mut(1).unwrap() += 1;
        assert_eq!(decode_request(&last), Some(Err((7, Reject::Unsupported))));

        let signed = SignedAct { act: Act::Settled(Settled { window: 1 }), signature: Signature([0; 64]) };
        let mut last = body(&RequestMessage { id: 7, request: Request::Act(signed) });
        assert_eq!(last.get(2).copied(), u8::try_from(ACTS - 1).ok());
        assert!(matches!(decode_request(&last), Some(Ok(_))));
        *last.get_mut(2).unwrap() += 1;
        assert_eq!(decode_request(&last), Some(Err((7, Reject::Unsupported))));
    }

    #[test]
    fn request_with_a_broken_body_is_malformed_under_its_id_and_without_an_id_nothing() {
        let mut bytes = body(&RequestMessage { id: 300, request: Request::Hub });
        bytes.push(0);
        assert_eq!(decode_request(&bytes), Some(Err((300, Reject::Malformed))));
        assert_eq!(decode_request(&[0x05]), Some(Err((5, Reject::Malformed))));
        assert_eq!(decode_request(&[0x85, 0x00, 0x02]), None);
        assert_eq!(decode_request(&[]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_a_refusal_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_request(&bytes);
        }
    }
}
