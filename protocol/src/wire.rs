//! The wire: length-prefixed postcard messages on QUIC streams (DESIGN §4.2). Pure: turns messages into bytes and back.
//!
//! One message = length (u32, little-endian) ‖ body. Bodies are postcard in its one canonical form: a decoder encodes what
//! it read and compares, so a varint that is longer than it need be, or a trailing byte, is `malformed`.

mod control;
mod credit;
mod hello;
mod lane;

pub use control::*;
pub use credit::*;
pub use hello::*;
pub use lane::*;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// ALPN of the protocol.
pub const ALPN: &[u8] = b"weir/1";
/// The version that a client opens with.
pub const VERSION: u16 = 1;
/// Most bytes in the body of a message before a key is proven, and of any control request.
pub const MAX_REQUEST: usize = 16 * 1024;
/// Most bytes in the body of any other message: a frame of 1,024 payments to 1,024 payees, a page of history, a credit.
pub const MAX_MESSAGE: usize = 192 * 1024;
/// Width of the length.
pub const LENGTH_BYTES: usize = 4;

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than this place allows.
    #[error("message of {length} bytes is above the limit of {limit}")]
    TooLong {
        /// The announced length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// Not a message, or not in canonical form.
    #[error("message is malformed")]
    Malformed,
}

/// Encodes a message with its length in front.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH_BYTES];
    encode_into(message, &mut bytes);
    let length = u32::try_from(bytes.len() - LENGTH_BYTES).unwrap_or(u32::MAX);
    if let Some(prefix) = bytes.get_mut(..LENGTH_BYTES) {
        prefix.copy_from_slice(&length.to_le_bytes());
    }
    bytes
}

/// Encodes a body without its length, at the end of a buffer.
pub fn encode_into<T: Serialize>(message: &T, bytes: &mut Vec<u8>) {
    let taken = core::mem::take(bytes);
    // Writing to memory cannot fail for the types of this crate: none has an unknown length.
    *bytes = postcard::to_extend(message, taken).unwrap_or_default();
}

/// The length that four bytes announce, checked against the limit of the place.
pub const fn decode_length(prefix: [u8; LENGTH_BYTES], limit: usize) -> Result<usize, DecodeError> {
    let length = u32::from_le_bytes(prefix) as usize;
    if length > limit { Err(DecodeError::TooLong { length, limit }) } else { Ok(length) }
}

/// Decodes a body. Only the canonical encoding is taken.
pub fn decode<T: Serialize + DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    let message: T = postcard::from_bytes(body).map_err(|_| DecodeError::Malformed)?;
    let same = postcard::serialize_with_flavor(&message, Compare { rest: body });
    if same.is_ok_and(|all| all) { Ok(message) } else { Err(DecodeError::Malformed) }
}

/// Compares what is serialised with bytes at hand, without a buffer.
struct Compare<'a> {
    rest: &'a [u8],
}

impl postcard::ser_flavors::Flavor for Compare<'_> {
    type Output = bool;

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        // Called for each byte of a hash.
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                Ok(())
            }
            _ => Err(postcard::Error::SerializeBufferFull),
        }
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.rest = self.rest.strip_prefix(bytes).ok_or(postcard::Error::SerializeBufferFull)?;
        Ok(())
    }

    fn finalize(self) -> postcard::Result<bool> {
        Ok(self.rest.is_empty())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn varint_longer_than_needed_and_trailing_bytes_are_malformed() {
        assert_eq!(decode::<u64>(&[0x05]), Ok(5));
        assert_eq!(decode::<u64>(&[0x85, 0x00]), Err(DecodeError::Malformed));
        assert_eq!(decode::<u64>(&[0x05, 0x00]), Err(DecodeError::Malformed));
        assert_eq!(decode::<u64>(&[]), Err(DecodeError::Malformed));
    }

    #[test]
    fn length_above_the_limit_is_refused() {
        assert_eq!(decode_length(5_u32.to_le_bytes(), 5), Ok(5));
        assert!(decode_length(6_u32.to_le_bytes(), 5).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(message) = decode::<Request>(&bytes) {
                prop_assert_eq!(encode(&message).split_off(LENGTH_BYTES), bytes.clone());
            }
            let _ = decode::<Opening>(&bytes);
            let _ = decode::<LaneRequest>(&bytes);
            let _ = decode::<LaneReply>(&bytes);
            let _ = decode::<Reply>(&bytes);
            let _ = decode::<CreditMessage>(&bytes);
        }
    }

    #[test]
    fn empty_input_is_malformed_for_every_message() {
        assert!(decode::<Opening>(&[]).is_err());
        assert!(decode::<Request>(&[]).is_err());
        assert_eq!(encode(&Opening::Control { version: 1 }).get(..4).unwrap(), 2_u32.to_le_bytes());
    }
}
