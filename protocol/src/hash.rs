//! BIP-340 tagged SHA-256 with the tag's block hashed ahead, and the hand-laid preimages that it takes.

use std::sync::LazyLock;

use sha2::block_api::compress256;
use sha2::{Digest as _, Sha256};

use crate::amount::{Amount, Currency, Time};
use crate::bytes::{byte_newtype, hex_display};

byte_newtype!(
    /// A 32-byte hash.
    Hash, 32
);
hex_display!(Hash);

/// What a hash is for. Every kind of hashed or signed thing has a tag of its own, `weir/…`.
#[derive(Debug)]
pub struct Tag {
    name: &'static str,
    midstate: LazyLock<State>,
}

/// SHA-256 between two blocks.
type State = [u32; 8];
/// Bytes of a block.
const BLOCK: usize = 64;
/// Where SHA-256 begins (FIPS 180-4, 5.3.3).
const INITIAL: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

macro_rules! tags {
    ($($(#[$meta:meta])* $name:ident = $text:literal,)*) => {
        $($(#[$meta])* pub static $name: Tag = Tag {
            name: $text,
            midstate: LazyLock::new(|| midstate($text)),
        };)*

        /// Every tag of the protocol.
        pub static ALL_TAGS: &[&Tag] = &[$(&$name,)*];
    };
}

/// The tags. Their text is part of the signed bytes.
pub mod tag {
    use super::{LazyLock, Tag, midstate};
    tags! {
        /// Inner node of every Merkle tree.
        NODE = "weir/node",
        /// One payment, on top of the state before it.
        PAYMENT = "weir/payment",
        /// What a lane key signs.
        HEAD = "weir/head",
        /// A payment's public, opaque id.
        ID = "weir/id",
        /// A receipt: leaf of a group's tree.
        RECEIPT = "weir/receipt",
        /// A group: item of a commit.
        GROUP = "weir/group",
        /// An act: item of a commit.
        ACT = "weir/act",
        /// The 16 bytes that hide an act's content from its neighbours in the tree.
        BLIND = "weir/blind",
        /// A commit.
        COMMIT = "weir/commit",
        /// The TLS key of a hub, signed by its signing key.
        TLS = "weir/tls",
        /// Proof that a client holds a key, on one connection.
        HELLO = "weir/hello",
        /// One payout of a plan.
        PAYOUT = "weir/payout",
        /// The reference of a payment that answers an HTTP challenge.
        REFERENCE = "weir/reference",
        /// What an HTTP challenge is for.
        RESOURCE = "weir/resource",
        /// Act: a chain of commits begins.
        CHAIN = "weir/chain",
        /// Act: the identity key certifies a signing key.
        CERTIFICATE = "weir/certificate",
        /// Act: the hub's rules.
        POLICY = "weir/policy",
        /// Act: an account and its bank details.
        REGISTER = "weir/register",
        /// Act: the operator approves an account.
        APPROVE = "weir/approve",
        /// Act: the operator freezes or releases an account.
        FREEZE = "weir/freeze",
        /// Act: money arrived at the bank.
        DEPOSIT = "weir/deposit",
        /// Act: a channel's terms; the digest is the channel's id.
        CHANNEL = "weir/channel",
        /// Act: a lane's grant; the digest is the lane's id.
        LANE = "weir/lane",
        /// Act: a lane ends.
        REVOKE = "weir/revoke",
        /// Act: a channel's capacity, expiry and consent to roll change.
        AMEND = "weir/amend",
        /// Act: a range of sequences is given up for ever.
        VOID = "weir/void",
        /// Act: a payer asks that a channel be closed.
        CLOSE_REQUEST = "weir/close-request",
        /// Act: a channel is closed.
        CLOSE = "weir/close",
        /// Act: a channel's books close for a window and it runs on.
        ROLL = "weir/roll",
        /// Act: a payee gives money back.
        REFUND = "weir/refund",
        /// Act: balance is marked for payout.
        WITHDRAW = "weir/withdraw",
        /// Act: a window is cut off.
        CUTOFF = "weir/cutoff",
        /// Act: what a window pays out.
        PLAN = "weir/plan",
        /// Act: a plan goes to the bank.
        INSTRUCT = "weir/instruct",
        /// Act: the bank's word on one payout.
        OUTCOME = "weir/outcome",
        /// Act: a window is done.
        SETTLED = "weir/settled",
        /// Act: money left the bank account without a payout.
        DEBIT = "weir/debit",
        /// Act: an entry of the bank that nobody owned gets an owner.
        ALLOCATE = "weir/allocate",
        /// Act: what a statement of the bank says the account holds.
        STATEMENT = "weir/statement",
        /// Act: an operator's key begins or ends to count.
        OPERATOR = "weir/operator",
        /// Act: another operator agrees to a plan.
        APPROVAL = "weir/approval",
        /// Act: a plan is given up.
        ABORT = "weir/abort",
        /// Act: an account's own fee schedule.
        FEES = "weir/fees",
        /// Act: a window pays out below the minimum.
        FORCE_FINAL = "weir/force-final",
        /// Act: what becomes of an account's earnings.
        EARNINGS = "weir/earnings",
        /// Act: bounds on what accounts do.
        LIMITS = "weir/limits",
        /// Act: an account lets the hub collect from a bank account.
        MANDATE = "weir/mandate",
        /// Act: the operator accepts or ends a mandate.
        MANDATE_TERMS = "weir/mandate-terms",
        /// Act: the bank is told to collect.
        COLLECT = "weir/collect",
        /// Act: the bank's word on one collection.
        COLLECTED = "weir/collected",
        /// Act: an operator agrees to a changed bank account.
        APPROVE_IBAN = "weir/approve-iban",
        /// Act: an operator agrees to a collection, or gives it up.
        APPROVE_COLLECT = "weir/approve-collect",
    }
}

fn midstate(name: &str) -> State {
    let tag = Sha256::digest(name.as_bytes());
    let mut block = [0; BLOCK];
    let (left, right) = block.split_at_mut(BLOCK / 2);
    left.copy_from_slice(&tag);
    right.copy_from_slice(&tag);
    let mut state = INITIAL;
    compress256(&mut state, &[block]);
    state
}

impl Tag {
    /// The tag's text.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// `H(tag, message)` = SHA-256(SHA-256(tag) ‖ SHA-256(tag) ‖ message), BIP-340.
    pub fn hash(&self, message: &[u8]) -> Hash {
        let mut state = *self.midstate;
        let (blocks, rest) = message.as_chunks::<BLOCK>();
        compress256(&mut state, blocks);
        // What remains, a one bit, zeros, and the length in bits of everything with the tag's block (FIPS 180-4, 5.1.1).
        let mut last = [[0; BLOCK]; 2];
        let used = if rest.len() < BLOCK - 8 { 1 } else { 2 };
        let (last, _) = last.split_at_mut(used);
        let flat = last.as_flattened_mut();
        let bits = (BLOCK as u64 + message.len() as u64) * 8;
        let (text, length) = flat.split_at_mut(used * BLOCK - 8);
        let (text, padding) = text.split_at_mut(rest.len());
        text.copy_from_slice(rest);
        if let Some(first) = padding.first_mut() {
            *first = 0x80;
        }
        length.copy_from_slice(&bits.to_be_bytes());
        compress256(&mut state, last);
        let mut hash = [0; 32];
        for (to, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(state) {
            *to = word.to_be_bytes();
        }
        Hash(hash)
    }
}

/// Plain SHA-256.
pub fn sha256(message: &[u8]) -> Hash {
    Hash(Sha256::digest(message).into())
}

/// A fixed-width preimage on the stack, `N` bytes exactly.
///
/// Widths are part of the protocol, so a preimage of the wrong length is a bug of ours and panics in its first test.
#[derive(Debug)]
pub(crate) struct Fixed<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Fixed<N> {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    pub(crate) fn put(mut self, part: &[u8]) -> Self {
        let end = self.len + part.len();
        debug_assert!(end <= N, "a preimage wider than declared");
        if let Some(place) = self.bytes.get_mut(self.len..end) {
            place.copy_from_slice(part);
        }
        self.len = end;
        self
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.put(&value.to_le_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.put(&value.to_le_bytes())
    }

    pub(crate) fn hash(&self, tag: &Tag) -> Hash {
        debug_assert_eq!(self.len, N, "preimage of `{}`", tag.name);
        tag.hash(&self.bytes)
    }
}

/// A preimage of any length, for acts: integers little-endian, text as u16 length ‖ bytes, lists as u32 count ‖ entries.
#[derive(Debug, Default)]
pub struct Preimage(Vec<u8>);

impl Preimage {
    /// An empty preimage.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Bytes as they are.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// One byte.
    #[must_use]
    pub fn u8(self, value: u8) -> Self {
        self.raw(&[value])
    }

    /// A flag: one byte, 0 or 1.
    #[must_use]
    pub fn flag(self, value: bool) -> Self {
        self.u8(u8::from(value))
    }

    /// Two bytes.
    #[must_use]
    pub fn u16(self, value: u16) -> Self {
        self.raw(&value.to_le_bytes())
    }

    /// Four bytes.
    #[must_use]
    pub fn u32(self, value: u32) -> Self {
        self.raw(&value.to_le_bytes())
    }

    /// Eight bytes.
    #[must_use]
    pub fn u64(self, value: u64) -> Self {
        self.raw(&value.to_le_bytes())
    }

    /// Eight bytes of nanos.
    #[must_use]
    pub fn amount(self, value: Amount) -> Self {
        self.u64(value.nanos())
    }

    /// Eight bytes of milliseconds.
    #[must_use]
    pub fn time(self, value: Time) -> Self {
        self.u64(value.0)
    }

    /// Three letters and a zero byte.
    #[must_use]
    pub fn currency(self, value: Currency) -> Self {
        self.raw(&value.to_bytes())
    }

    /// u16 length ‖ bytes. A text longer than 65,535 bytes is cut by no one: limits of every text are far below.
    #[must_use]
    pub fn text(self, value: &str) -> Self {
        let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.u16(len).raw(value.as_bytes())
    }

    /// The bytes so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// `H(tag, the bytes)`.
    pub fn hash(&self, tag: &Tag) -> Hash {
        tag.hash(&self.0)
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a failed test should say where")]
mod tests {
    use super::*;

    #[test]
    fn tag_hash_equals_the_long_way_at_every_length_around_a_block() {
        let tag_hash = Sha256::digest(b"weir/node");
        let message = [0xa5; 200];
        for length in 0..=message.len() {
            let message = &message[..length];
            let long = Sha256::new().chain_update(tag_hash).chain_update(tag_hash).chain_update(message).finalize();
            assert_eq!(tag::NODE.hash(message).0, <[u8; 32]>::from(long), "{length} bytes");
        }
    }

    #[test]
    fn tags_are_all_different() {
        let names: std::collections::BTreeSet<_> = tag::ALL_TAGS.iter().map(|tag| tag.name()).collect();
        assert_eq!(names.len(), tag::ALL_TAGS.len());
    }
}
