//! Frames and runs as bytes, by hand: the very bytes that postcard gives, without a call per byte.
//!
//! This is the form in which payments travel and are journaled, so it is read and written once a payment. Decoding takes
//! the canonical form only (a varint is as short as it can be) and never allocates more than the bytes at hand can fill.

use super::{Entry, Frame, Run};
use crate::amount::{Amount, Time};
use crate::id::{AccountId, Reference};
use crate::keys::{PublicKey, Signature};
use crate::wire::DecodeError;

/// Least bytes of an entry: payee, amount, reference.
const ENTRY_BYTES_MIN: usize = 2 + Reference::SIZE;

/// Appends the canonical varint of a number.
pub fn put_varint(mut value: u64, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Bytes that are read from the front.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], DecodeError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(DecodeError::Malformed)?;
        self.0 = rest;
        Ok(array)
    }

    /// The next varint, in its canonical form only.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for (at, byte) in self.0.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if at == 9 && bits > 1 {
                break;
            }
            value |= bits << (7 * at);
            if byte & 0x80 == 0 {
                if at > 0 && *byte == 0 {
                    break;
                }
                self.0 = self.0.get(at + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed)
    }

    /// The next list's length: no more than what is left can hold, at `least` bytes each.
    pub fn count(&mut self, least: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.varint()?).map_err(|_| DecodeError::Malformed)?;
        if count > self.0.len() / least { Err(DecodeError::Malformed) } else { Ok(count) }
    }
}

impl Run {
    /// Appends its bytes: first sequence, payees, entries.
    pub fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.reserve(self.encoded_room());
        put_varint(self.first_sequence, bytes);
        put_varint(self.payees.len() as u64, bytes);
        for payee in &self.payees {
            bytes.extend_from_slice(payee.as_bytes());
        }
        put_varint(self.entries.len() as u64, bytes);
        for entry in &self.entries {
            put_varint(u64::from(entry.payee), bytes);
            put_varint(entry.amount.nanos(), bytes);
            bytes.extend_from_slice(&entry.reference.0);
        }
    }

    /// Reads a run. Its shape is not checked: [`Run::check_shape`].
    pub fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        let first_sequence = input.varint()?;
        let count = input.count(PublicKey::SIZE)?;
        let mut payees = Vec::with_capacity(count);
        for _ in 0..count {
            payees.push(AccountId(PublicKey(*input.array()?)));
        }
        let count = input.count(ENTRY_BYTES_MIN)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let payee = u32::try_from(input.varint()?).map_err(|_| DecodeError::Malformed)?;
            let amount = Amount::from_nanos(input.varint()?);
            entries.push(Entry { payee, amount, reference: Reference(*input.array()?) });
        }
        Ok(Self { first_sequence, payees, entries })
    }
}

impl Frame {
    /// Appends its bytes.
    pub fn encode_into(&self, bytes: &mut Vec<u8>) {
        put_varint(self.previous_sequence, bytes);
        self.run.encode_into(bytes);
        put_varint(self.valid_until.0, bytes);
        bytes.extend_from_slice(&self.signature.0);
    }

    /// Reads a frame. The shape of its run is not checked: [`Run::check_shape`].
    pub fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            previous_sequence: input.varint()?,
            run: Run::decode(input)?,
            valid_until: Time(input.varint()?),
            signature: Signature(*input.array()?),
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::payment::Payment;
    use crate::wire;

    fn frame(first: u64, amounts: &[u64], payees: u8, valid_until: u64) -> Frame {
        let payments: Vec<Payment> = amounts
            .iter()
            .zip(0_u64..)
            .map(|(amount, at)| Payment {
                payee: AccountId(PublicKey([(at % u64::from(payees)) as u8; 32])),
                amount: Amount::from_nanos(*amount),
                reference: Reference([at as u8; 32]),
            })
            .collect();
        let run = Run::new(first, &payments).unwrap();
        Frame { previous_sequence: first - 1, run, valid_until: Time(valid_until), signature: Signature([9; 64]) }
    }

    fn postcard(frame: &Frame) -> Vec<u8> {
        let mut bytes = Vec::new();
        wire::encode_into(frame, &mut bytes);
        bytes
    }

    #[test]
    fn varint_is_taken_in_its_canonical_form_only() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(value, &mut bytes);
            assert_eq!(Input(&bytes).varint(), Ok(value));
            assert_eq!(wire::decode::<u64>(&bytes), Ok(value));
        }
        let past_64_bits = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        for bytes in [&[][..], &[0x80], &[0x85, 0x00], &[0x80, 0x80, 0x00], &past_64_bits, &[0xff; 11]] {
            assert_eq!(Input(bytes).varint(), Err(DecodeError::Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn count_beyond_what_is_left_is_malformed_before_anything_is_allocated() {
        let mut bytes = vec![1];
        put_varint(u64::from(u32::MAX), &mut bytes);
        assert_eq!(Run::decode(&mut Input(&bytes)), Err(DecodeError::Malformed));
    }

    proptest! {
        #[test]
        fn frame_has_postcards_bytes_and_comes_back(
            first in 1..u64::MAX / 2, amounts in proptest::collection::vec(any::<u64>(), 1..40), payees in 1_u8..9, until: u64,
        ) {
            let frame = frame(first, &amounts, payees, until);
            let mut bytes = Vec::new();
            frame.encode_into(&mut bytes);
            prop_assert_eq!(&bytes, &postcard(&frame));
            let mut input = Input(&bytes);
            prop_assert_eq!(Frame::decode(&mut input), Ok(frame));
            prop_assert!(input.0.is_empty());
        }

        #[test]
        fn any_bytes_decode_as_postcard_decodes_them(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut input = Input(&bytes);
            let whole = Frame::decode(&mut input).and_then(|frame| match input.0 {
                [] => Ok(frame),
                _ => Err(DecodeError::Malformed),
            });
            prop_assert_eq!(whole, wire::decode::<Frame>(&bytes));
        }

        #[test]
        fn damaged_frame_decodes_as_postcard_decodes_it(at in 0_usize..400, byte: u8, amounts in proptest::collection::vec(0..1_u64 << 40, 1..6)) {
            let mut bytes = postcard(&frame(7, &amounts, 2, 0));
            let at = at % bytes.len();
            *bytes.get_mut(at).unwrap() = byte;
            let mut input = Input(&bytes);
            let whole = Frame::decode(&mut input).and_then(|frame| match input.0 {
                [] => Ok(frame),
                _ => Err(DecodeError::Malformed),
            });
            prop_assert_eq!(whole, wire::decode::<Frame>(&bytes));
        }
    }
}
