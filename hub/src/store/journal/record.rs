//! One commit in a segment, to the byte; see [the format](super). Encodes and judges bytes, does no I/O.

use crate::store::{
    Position,
    files::{bytes_at, u32_at, u64_at},
};

/// Bytes of a record before its payload.
pub(super) const HEADER_BYTES: usize = 104;
/// Records begin at multiples of this.
pub(super) const ALIGNMENT: usize = 8;
/// The largest payload: far above what a commit's limits allow, and below what the length field holds.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 30;

const MAGIC: [u8; 4] = *b"WREC";
/// The checksum covers everything from here to the end of the padding.
const CHECKED_FROM: usize = 8;

/// The fields before the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) checksum: u32,
    pub(super) payload_bytes: usize,
    pub(super) position: Position,
    pub(super) previous: [u8; 32],
}

impl Header {
    /// Reads the fields, if these can be the first bytes of a record of this segment. Says nothing about the checksum.
    pub(super) fn parse(bytes: &[u8], segment_id: u64) -> Option<Self> {
        if bytes.len() < HEADER_BYTES || bytes[..4] != MAGIC || u64_at(bytes, 8) != segment_id || u32_at(bytes, 20) != 0
        {
            return None;
        }
        let payload_bytes = u32_at(bytes, 16) as usize;
        (payload_bytes <= PAYLOAD_BYTES_MAX).then(|| Self {
            checksum: u32_at(bytes, 4),
            payload_bytes,
            position: Position { chain: u64_at(bytes, 24), number: u64_at(bytes, 32), id: bytes_at(bytes, 40) },
            previous: bytes_at(bytes, 72),
        })
    }

    /// The whole record's length, padding included.
    pub(super) fn record_bytes(&self) -> usize {
        record_bytes(self.payload_bytes)
    }

    /// Whether `record`, of [`Self::record_bytes`], is what was written.
    pub(super) fn is_whole(&self, record: &[u8]) -> bool {
        crc32fast::hash(&record[CHECKED_FROM..]) == self.checksum
    }
}

/// Length of a record with a payload of that many bytes.
pub(super) fn record_bytes(payload_bytes: usize) -> usize {
    (HEADER_BYTES + payload_bytes).next_multiple_of(ALIGNMENT)
}

/// Lays a record out in `buffer`, which is emptied first.
pub(super) fn encode(buffer: &mut Vec<u8>, segment_id: u64, position: Position, previous: [u8; 32], payload: &[u8]) {
    buffer.clear();
    buffer.reserve(record_bytes(payload.len()));
    buffer.extend_from_slice(&MAGIC);
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&segment_id.to_le_bytes());
    // The caller has checked the payload against `PAYLOAD_BYTES_MAX`.
    buffer.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&position.chain.to_le_bytes());
    buffer.extend_from_slice(&position.number.to_le_bytes());
    buffer.extend_from_slice(&position.id);
    buffer.extend_from_slice(&previous);
    debug_assert_eq!(buffer.len(), HEADER_BYTES);
    buffer.extend_from_slice(payload);
    buffer.resize(record_bytes(payload.len()), 0);
    let checksum = crc32fast::hash(&buffer[CHECKED_FROM..]);
    buffer[4..8].copy_from_slice(&checksum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position() -> Position {
        Position { chain: 7, number: 9, id: [3; 32] }
    }

    #[test]
    fn record_of_known_fields_has_the_documented_bytes() {
        let mut bytes = Vec::new();
        encode(&mut bytes, 0x0102, position(), [4; 32], b"abc");
        assert_eq!(bytes.len(), 112);
        assert_eq!(bytes[..4], *b"WREC");
        assert_eq!(bytes[8..24], [2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[24..40], [7, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[40..72], [3; 32]);
        assert_eq!(bytes[72..104], [4; 32]);
        assert_eq!(bytes[104..], *b"abc\0\0\0\0\0");
        assert_eq!(bytes[4..8], crc32fast::hash(&bytes[8..]).to_le_bytes());
    }

    proptest! {
        #[test]
        fn record_with_any_flipped_bit_is_not_whole(
            payload in proptest::collection::vec(any::<u8>(), 0..40),
            at in any::<prop::sample::Index>(),
            bit in 0_u32..8,
        ) {
            let mut bytes = Vec::new();
            encode(&mut bytes, 5, position(), [4; 32], &payload);
            let header = Header::parse(&bytes, 5).ok_or(TestCaseError::fail("no header"))?;
            prop_assert!(header.is_whole(&bytes));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let whole = Header::parse(&bytes, 5)
                .is_some_and(|header| header.record_bytes() == bytes.len() && header.is_whole(&bytes));
            prop_assert!(!whole);
        }

        #[test]
        fn header_of_arbitrary_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Header::parse(&bytes, 1);
        }
    }
}
