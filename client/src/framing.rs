//! Length-prefixed messages on QUIC streams.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use weir_protocol::wire::{DecodeError, LENGTH_BYTES, decode, decode_length};

use crate::error::InfraError;

/// Pieces that are taken from a stream at once.
const PIECES: usize = 32;

/// Reads one message; `None` when the stream ended before it. Not cancel-safe: run it in a task of its own.
pub(crate) async fn read<T: Serialize + DeserializeOwned>(
    stream: &mut quinn::RecvStream,
    limit: usize,
) -> Result<Option<T>, InfraError> {
    let mut prefix = [0; LENGTH_BYTES];
    match stream.read_exact(&mut prefix).await {
        Ok(()) => {}
        Err(quinn::ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(quinn::ReadExactError::FinishedEarly(_)) => return Err(DecodeError::Malformed.into()),
        Err(quinn::ReadExactError::ReadError(_)) => return Err(InfraError::Lost),
    }
    let mut body = vec![0; decode_length(prefix, limit)?];
    stream.read_exact(&mut body).await.map_err(|_| InfraError::Lost)?;
    Ok(Some(decode(&body)?))
}

/// A stream's incoming side, read by the task that deals with its messages: no task between, and cancel-safe.
#[derive(Debug)]
pub(crate) struct Reader {
    stream: quinn::RecvStream,
    inbox: Inbox,
}

impl Reader {
    pub(crate) fn new(stream: quinn::RecvStream, limit: usize) -> Self {
        Self { stream, inbox: Inbox { bytes: Vec::new(), at: 0, limit } }
    }

    /// The next message that is here whole. Asks nobody.
    pub(crate) fn next<T: Serialize + DeserializeOwned>(&mut self) -> Result<Option<T>, InfraError> {
        Ok(self.inbox.next()?)
    }

    /// Waits until more is here, and takes all of it up to a bound. Fails when the stream has ended. Cancel-safe.
    pub(crate) async fn more(&mut self) -> Result<(), InfraError> {
        let mut pieces = [const { Bytes::new() }; PIECES];
        let count = self.stream.read_chunks(&mut pieces).await.map_err(|_| InfraError::Lost)?;
        let count = count.ok_or(InfraError::Lost)?;
        pieces.iter().take(count).for_each(|piece| self.inbox.put(piece));
        Ok(())
    }
}

/// What has come and was not dealt with.
#[derive(Debug)]
struct Inbox {
    bytes: Vec<u8>,
    /// Everything before it was dealt with.
    at: usize,
    limit: usize,
}

impl Inbox {
    fn put(&mut self, piece: &[u8]) {
        if self.at == self.bytes.len() {
            self.bytes.clear();
            self.at = 0;
        } else if self.at > self.limit {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(piece);
    }

    fn next<T: Serialize + DeserializeOwned>(&mut self) -> Result<Option<T>, DecodeError> {
        let waiting = self.bytes.get(self.at..).unwrap_or_default();
        let Some((prefix, rest)) = waiting.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = decode_length(*prefix, self.limit)?;
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = decode(body)?;
        self.at += LENGTH_BYTES + length;
        Ok(Some(message))
    }
}

/// A stream's outgoing side, written by the task that makes the messages.
#[derive(Debug)]
pub(crate) struct Writer {
    stream: quinn::SendStream,
    unsent: Bytes,
}

impl Writer {
    pub(crate) const fn new(stream: quinn::SendStream) -> Self {
        Self { stream, unsent: Bytes::new() }
    }

    /// Whether the stream would take no more at the moment.
    pub(crate) const fn is_full(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Gives the stream a message, when it is not full, and as much of it as it takes now.
    pub(crate) async fn send(&mut self, message: Vec<u8>) -> Result<(), InfraError> {
        debug_assert!(!self.is_full(), "a message would be lost");
        self.unsent = message.into();
        now_or_never(self.flush()).await.unwrap_or(Ok(()))
    }

    /// Waits until the stream has taken what it was given. Cancel-safe.
    pub(crate) async fn flush(&mut self) -> Result<(), InfraError> {
        while !self.unsent.is_empty() {
            let piece = std::slice::from_mut(&mut self.unsent);
            self.stream.write_chunks(piece).await.map_err(|_| InfraError::Lost)?;
        }
        Ok(())
    }
}

/// What comes of a future that is looked at once; it must be cancel-safe.
pub(crate) async fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    })
    .await
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use weir_protocol::wire::encode;

    #[test]
    fn inbox_gives_whole_messages_however_the_bytes_are_cut() {
        let numbers: Vec<u64> = (0..50).map(|at| 1 << at).collect();
        let bytes: Vec<u8> = numbers.iter().flat_map(encode).collect();
        for piece in 1..20 {
            let mut inbox = Inbox { bytes: Vec::new(), at: 0, limit: 10 };
            let mut got = Vec::new();
            for part in bytes.chunks(piece) {
                inbox.put(part);
                while let Some(number) = inbox.next::<u64>().unwrap() {
                    got.push(number);
                }
            }
            assert_eq!(got, numbers);
        }
    }

    #[test]
    fn inbox_refuses_a_length_above_its_limit_and_bytes_that_are_no_message() {
        let mut inbox = Inbox { bytes: Vec::new(), at: 0, limit: 10 };
        inbox.put(&encode(&u64::MAX));
        assert_eq!(inbox.next(), Ok(Some(u64::MAX)));
        inbox.put(&11_u32.to_le_bytes());
        assert!(matches!(inbox.next::<u64>(), Err(DecodeError::TooLong { length: 11, limit: 10 })));
        let mut inbox = Inbox { bytes: Vec::new(), at: 0, limit: 10 };
        inbox.put(&[2, 0, 0, 0, 0x85, 0x00]);
        assert_eq!(inbox.next::<u64>(), Err(DecodeError::Malformed));
    }
}
