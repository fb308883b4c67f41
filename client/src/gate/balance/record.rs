//! What the log holds: records in frames; see [the format](super). Encodes and judges bytes, does no I/O.
//!
//! Every record says where a balance stands, never by how much it changed: read again after a later picture of
//! the state, it does no harm. That is what lets the log be compacted while draws go on.

use serde::{Deserialize, Serialize};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::id::{PaymentId, Reference};

use super::types::{Counter, DrawKey, Payment};
use crate::acts::RefundPlace;

/// The file's first block; frames begin after it.
pub(super) const HEADER_BLOCK_BYTES: u64 = 4096;
const HEADER_BYTES: usize = 32;
const MAGIC: [u8; 8] = *b"WEIRBAL1";
/// Bytes of a frame before its body.
pub(super) const FRAME_HEADER_BYTES: usize = 32;
const FRAME_MAGIC: [u8; 4] = *b"WBAL";
/// Frames begin at multiples of it.
pub(super) const ALIGNMENT: usize = 8;
/// Most bytes of a frame's body.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;
/// Most bytes that one record takes; a test holds it.
pub(super) const RECORD_BYTES_MAX: usize = 256;
/// The format of the bodies.
pub(super) const VERSION: u32 = 2;
/// The first format, which had no counters: its records are read as they are.
pub(super) const OLDEST_VERSION: u32 = 1;

/// One record. New kinds go to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Record {
    /// Where a balance stands.
    Standing(Standing),
    /// A request drew.
    Draw(Draw),
    /// Where a balance's refunds stand.
    Refund { payment_id: PaymentId, refund: RefundState },
    /// Payments from before this time that the log does not hold are not taken.
    Floor(Time),
    /// A request drew, and used units that are counted.
    Counted { draw: Draw, counted: Counted },
    /// How many units of a balance are counted.
    Units { payment_id: PaymentId, counted: Counted },
}

/// How many units of a balance were used so far under one counter: the greatest number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counted {
    pub(super) counter: Counter,
    pub(super) total: u64,
}

/// A balance, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    pub(super) payment_id: PaymentId,
    pub(super) facts: Facts,
    pub(super) shown: Option<ShownFor>,
    pub(super) drawn: Amount,
    pub(super) used_at: Time,
    pub(super) refund: RefundState,
}

/// What the hub has proven of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) reference: Reference,
    pub(super) amount: Amount,
    pub(super) currency: Currency,
    pub(super) paid_at: Time,
    pub(super) chain: u64,
    pub(super) commit: u64,
    pub(super) group: u32,
    pub(super) leaf: u32,
}

/// When a receipt was first shown, and what its challenge was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ShownFor {
    pub(super) at: Time,
    pub(super) resource: [u8; 16],
}

/// The greatest number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct RefundState {
    pub(super) number: u32,
    /// Taken for refunds so far, confirmed or not.
    pub(super) total: Amount,
    /// The part that the hub has given back.
    pub(super) confirmed: Amount,
}

/// What a request drew, and what was drawn of its balance with it: the greatest `drawn_total` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Draw {
    pub(super) payment_id: PaymentId,
    pub(super) key: DrawKey,
    pub(super) drawn: Amount,
    pub(super) drawn_total: Amount,
    pub(super) at: Time,
    pub(super) until: Time,
}

impl Facts {
    pub(super) const fn of(payment: &Payment) -> Self {
        let Payment { reference, amount, currency, paid_at, place } = *payment;
        let RefundPlace { chain, commit, group, leaf, payment_id: _ } = place;
        Self { reference, amount, currency, paid_at, chain, commit, group, leaf }
    }

    pub(super) const fn payment(&self, payment_id: PaymentId) -> Payment {
        let Self { reference, amount, currency, paid_at, chain, commit, group, leaf } = *self;
        Payment { reference, amount, currency, paid_at, place: RefundPlace { chain, commit, group, leaf, payment_id } }
    }
}

/// The first block of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Random, never zero: bytes of another file never count in this one.
    pub(super) log_id: u64,
    /// What lies below was synced before the file got its name: damage there is never a torn write.
    pub(super) synced_end: u64,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.log_id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.synced_end.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..24]);
        bytes[24..28].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let whole = bytes[..8] == MAGIC && u32_at(bytes, 24)? == crc32fast::hash(&bytes[..24]);
        Some(Self { log_id: u64_at(bytes, 8)?, synced_end: u64_at(bytes, 16)? })
            .filter(|header| whole && header.log_id != 0)
    }
}

/// The beginning of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    sum: u32,
    pub(super) number: u64,
    pub(super) body_bytes: usize,
    pub(super) version: u32,
}

impl Frame {
    /// Reads a frame's header; nothing is known of its body yet. `None`: none of this log's begins here.
    pub(super) fn parse(bytes: &[u8], log_id: u64) -> Option<Self> {
        let bytes: &[u8; FRAME_HEADER_BYTES] = bytes.first_chunk()?;
        let frame = Self {
            sum: u32_at(bytes, 4)?,
            number: u64_at(bytes, 16)?,
            body_bytes: u32_at(bytes, 24)? as usize,
            version: u32_at(bytes, 28)?,
        };
        let ours = bytes[..4] == FRAME_MAGIC && u64_at(bytes, 8)? == log_id && frame.body_bytes <= BODY_BYTES_MAX;
        ours.then_some(frame)
    }

    /// Its length with header and padding.
    pub(super) const fn frame_bytes(&self) -> usize {
        (FRAME_HEADER_BYTES + self.body_bytes).next_multiple_of(ALIGNMENT)
    }

    /// Whether these bytes, from the header's first on, are the whole frame as it was written.
    pub(super) fn is_whole(&self, bytes: &[u8]) -> bool {
        bytes.get(8..self.frame_bytes()).is_some_and(|checked| crc32fast::hash(checked) == self.sum)
    }
}

/// Writes frames behind each other into a buffer. A frame takes whole records only.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    bytes: Vec<u8>,
    /// Where the frame that is being written begins.
    start: Option<usize>,
}

impl Encoder {
    /// Starts afresh.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.start = None;
    }

    /// Adds a record to the current frame. False: the frame is full, finish it first.
    pub(super) fn put(&mut self, record: &Record) -> bool {
        let start = *self.start.get_or_insert_with(|| {
            let start = self.bytes.len();
            self.bytes.resize(start + FRAME_HEADER_BYTES, 0);
            start
        });
        if self.bytes.len() - start - FRAME_HEADER_BYTES + RECORD_BYTES_MAX > BODY_BYTES_MAX {
            return false;
        }
        // A record of fixed parts always encodes: the buffer grows.
        match postcard::to_extend(record, std::mem::take(&mut self.bytes)) {
            Ok(bytes) => self.bytes = bytes,
            Err(error) => unreachable!("a record of fixed parts encodes: {error}"),
        }
        true
    }

    /// Ends the current frame, if one was begun; whether there was one.
    pub(super) fn finish(&mut self, log_id: u64, number: u64) -> bool {
        let Some(start) = self.start.take() else { return false };
        let body = (self.bytes.len() - start - FRAME_HEADER_BYTES) as u32;
        self.bytes.resize(start + (self.bytes.len() - start).next_multiple_of(ALIGNMENT), 0);
        let frame = &mut self.bytes[start..];
        frame[..4].copy_from_slice(&FRAME_MAGIC);
        frame[8..16].copy_from_slice(&log_id.to_le_bytes());
        frame[16..24].copy_from_slice(&number.to_le_bytes());
        frame[24..28].copy_from_slice(&body.to_le_bytes());
        frame[28..32].copy_from_slice(&VERSION.to_le_bytes());
        let sum = crc32fast::hash(&frame[8..]);
        frame[4..8].copy_from_slice(&sum.to_le_bytes());
        true
    }

    /// The finished frames.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.start.unwrap_or(self.bytes.len())]
    }
}

/// The records of a frame's body. `None`: the body is not made of records.
pub(super) fn records(mut body: &[u8]) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    while !body.is_empty() {
        let (record, rest) = postcard::take_from_bytes(body).ok()?;
        records.push(record);
        body = rest;
    }
    Some(records)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
