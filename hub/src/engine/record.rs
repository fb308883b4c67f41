//! A commit as it is journaled: everything from which the engine computes, and nothing that follows from it.
//!
//! Payload of a journal entry = version byte ‖ postcard of [`Record`]. Money state is recomputed from records alone.

use serde::{Deserialize, Serialize};
use weir_protocol::act::Act;
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::commit::{ActProof, Answer, Blind, Commit, SignedCommit, act_item, group_item};
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, HubId, LaneId};
use weir_protocol::keys::{PublicKey, Signature};
use weir_protocol::merkle::{self, Tree};
use weir_protocol::payment::codec::{Input, put_varint};
use weir_protocol::payment::{Head, Payment, Run, payment_id, receipt_leaf};
use weir_protocol::wire::{AnswerParts, DecodeError};

/// The first byte of a payload.
pub const VERSION: u8 = 1;
/// The number of [`ItemRecord::Group`] in a payload.
const GROUP: u8 = 0;

/// A commit with its items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The signed header.
    pub commit: SignedCommit,
    /// Groups and acts in the order in which they took effect.
    pub items: Vec<ItemRecord>,
}

/// One item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ItemRecord {
    /// Payments of one lane.
    Group(GroupRecord),
    /// Anything else.
    Act(Box<ActRecord>),
}

/// Payments of one lane under one checked signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// The lane.
    pub lane: LaneId,
    /// The channel's currency.
    pub currency: Currency,
    /// The head that the payments lead to.
    pub head: Head,
    /// The lane key's signature over it.
    pub signature: Signature,
    /// The payments.
    pub runs: Vec<Run>,
}

/// An act with what proves and explains it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActRecord {
    /// Keeps neighbours' paths silent about it.
    pub blind: Blind,
    /// The act.
    pub act: Act,
    /// Who signed it; none for the hub's own acts.
    pub author: Option<Authorship>,
    /// What an act refers to far back in the journal.
    pub context: Option<RefundContext>,
}

/// The key that signed an act, and its signature over the act's digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorship {
    /// The key.
    pub key: PublicKey,
    /// The signature.
    pub signature: Signature,
}

/// The payment that a refund gives back, read from the journal when the refund was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefundContext {
    /// The lane that paid.
    pub lane: LaneId,
    /// Whose channel it is.
    pub payer: AccountId,
    /// Who was paid.
    pub payee: AccountId,
    /// The currency.
    pub currency: Currency,
    /// How much was paid.
    pub paid: Amount,
    /// When.
    pub paid_at: Time,
}

/// A payload that is not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a record of version {VERSION}")]
pub struct RecordError;

impl Record {
    /// The payload of a journal entry.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        put(&self.commit, &mut bytes);
        put_varint(self.items.len() as u64, &mut bytes);
        for item in &self.items {
            match item {
                ItemRecord::Group(group) => {
                    bytes.push(GROUP);
                    group.encode_into(&mut bytes);
                }
                ItemRecord::Act(_) => put(item, &mut bytes),
            }
        }
        bytes
    }

    /// Reads a payload.
    pub fn decode(payload: &[u8]) -> Result<Self, RecordError> {
        let (version, body) = payload.split_first().ok_or(RecordError)?;
        if *version != VERSION {
            return Err(RecordError);
        }
        let mut input = Input(body);
        let commit = take(&mut input)?;
        let count = input.count(2)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(match input.0.split_first() {
                Some((&GROUP, group)) => {
                    input = Input(group);
                    ItemRecord::Group(GroupRecord::decode(&mut input)?)
                }
                _ => take(&mut input)?,
            });
        }
        if input.0.is_empty() { Ok(Self { commit, items }) } else { Err(RecordError) }
    }

    /// The header.
    pub const fn header(&self) -> &Commit {
        &self.commit.commit
    }

    /// How many payments it holds.
    pub fn payments(&self) -> u64 {
        self.groups().map(|(_, group)| u64::from(group.count())).sum()
    }

    /// The groups with their indices.
    pub fn groups(&self) -> impl Iterator<Item = (u32, &GroupRecord)> {
        self.items.iter().zip(0_u32..).filter_map(|(item, index)| match item {
            ItemRecord::Group(group) => Some((index, group)),
            ItemRecord::Act(_) => None,
        })
    }

    /// The acts with their indices.
    pub fn acts(&self) -> impl Iterator<Item = (u32, &ActRecord)> {
        self.items.iter().zip(0_u32..).filter_map(|(item, index)| match item {
            ItemRecord::Act(act) => Some((index, act.as_ref())),
            ItemRecord::Group(_) => None,
        })
    }

    /// Computes everything that proofs need. Costs three hashes a payment.
    pub fn prove(self) -> Proven {
        let hub = self.header().hub;
        let (items, receipts) = self
            .items
            .iter()
            .map(|item| match item {
                ItemRecord::Group(group) => {
                    let receipts = group.receipts();
                    (group.item(&receipts), receipts)
                }
                ItemRecord::Act(act) => (act.item(&hub), Receipts::NONE),
            })
            .unzip();
        Proven::new(self, Tree::new(items), receipts)
    }
}

fn put<T: Serialize>(value: &T, bytes: &mut Vec<u8>) {
    // Writing to memory cannot fail for these types: none has an unknown length.
    *bytes = postcard::to_extend(value, core::mem::take(bytes)).unwrap_or_default();
}

fn take<'a, T: Deserialize<'a>>(input: &mut Input<'a>) -> Result<T, RecordError> {
    let (value, rest) = postcard::take_from_bytes(input.0).map_err(|_| RecordError)?;
    input.0 = rest;
    Ok(value)
}

impl From<DecodeError> for RecordError {
    fn from(_: DecodeError) -> Self {
        Self
    }
}

impl ItemRecord {
    /// The item as the commit's tree has it. Costs three hashes a payment.
    pub fn hash(&self, hub: &HubId) -> Hash {
        match self {
            Self::Group(group) => group.item(&group.receipts()),
            Self::Act(act) => act.item(hub),
        }
    }
}

impl ActRecord {
    /// The item as the commit's tree has it.
    pub fn item(&self, hub: &HubId) -> Hash {
        act_item(&self.blind, self.act.kind(), &self.act.digest(hub))
    }
}

impl GroupRecord {
    /// How many payments.
    pub fn count(&self) -> u32 {
        let count: usize = self.runs.iter().map(Run::len).sum();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The first payment's sequence.
    pub fn first_sequence(&self) -> u64 {
        self.runs.first().map_or(0, Run::first_sequence)
    }

    /// The payments with their sequences, in order.
    pub fn payments(&self) -> impl Iterator<Item = (u64, Payment)> + '_ {
        self.runs.iter().flat_map(Run::payments)
    }

    /// Whether a payment goes to this account.
    pub fn pays(&self, payee: &AccountId) -> bool {
        self.runs.iter().any(|run| run.payees().contains(payee))
    }

    /// The payments' receipts, hashed.
    pub fn receipts(&self) -> Receipts {
        let mut leaves = Vec::with_capacity(self.count() as usize);
        leaves.extend(
            self.payments()
                .map(|(sequence, payment)| receipt_leaf(&payment_id(&self.lane, sequence), &payment, self.currency)),
        );
        let root = merkle::root(&leaves);
        Receipts { leaves, root }
    }

    /// The item as the commit's tree has it.
    pub fn item(&self, receipts: &Receipts) -> Hash {
        group_item(&self.head.digest(&self.lane), self.count(), &receipts.root)
    }

    /// Appends what postcard gives, at less cost a payment.
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        put(&(self.lane, self.currency, self.head, self.signature), bytes);
        put_varint(self.runs.len() as u64, bytes);
        for run in &self.runs {
            run.encode_into(bytes);
        }
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, RecordError> {
        let (lane, currency, head, signature) = take(input)?;
        let count = input.count(3)?;
        let mut runs = Vec::with_capacity(count);
        for _ in 0..count {
            runs.push(Run::decode(input)?);
        }
        Ok(Self { lane, currency, head, signature, runs })
    }
}

/// The hashed receipts of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipts {
    /// One leaf a payment, in order.
    pub leaves: Vec<Hash>,
    /// Of their tree.
    pub root: Hash,
}

impl Receipts {
    /// An act's.
    pub const NONE: Self = Self { leaves: Vec::new(), root: Hash::ZERO };
}

/// A record with its trees: what answers, credits and receipts are made from.
#[derive(Debug)]
pub struct Proven {
    /// The record.
    pub record: Record,
    /// Over the items.
    pub tree: Tree,
    /// Per item.
    pub receipts: Vec<Receipts>,
    /// The signed header's bytes.
    commit: Vec<u8>,
}

impl Proven {
    /// A record with the tree over its items and, per item, its receipts.
    pub fn new(record: Record, tree: Tree, receipts: Vec<Receipts>) -> Self {
        let mut commit = Vec::new();
        put(&record.commit, &mut commit);
        Self { record, tree, receipts, commit }
    }

    /// The signed header.
    pub const fn commit(&self) -> &SignedCommit {
        &self.record.commit
    }

    /// The group at an index.
    pub fn group(&self, index: u32) -> Option<&GroupRecord> {
        match self.record.items.get(index as usize)? {
            ItemRecord::Group(group) => Some(group),
            ItemRecord::Act(_) => None,
        }
    }

    /// The act at an index.
    pub fn act(&self, index: u32) -> Option<&ActRecord> {
        match self.record.items.get(index as usize)? {
            ItemRecord::Act(act) => Some(act),
            ItemRecord::Group(_) => None,
        }
    }

    /// The answer to the payer of the group at an index.
    pub fn answer(&self, index: u32) -> Option<Answer> {
        let group = self.group(index)?;
        Some(Answer {
            first_sequence: group.first_sequence(),
            through_sequence: group.head.sequence,
            count: group.count(),
            leaves: self.receipts.get(index as usize)?.root,
            commit: self.record.commit,
            path: self.tree.path(index as usize)?,
        })
    }

    /// The same without a copy, for the wire.
    pub fn answer_parts(&self, index: u32) -> Option<AnswerParts<'_>> {
        let group = self.group(index)?;
        Some(AnswerParts {
            first_sequence: group.first_sequence(),
            through_sequence: group.head.sequence,
            count: group.count(),
            leaves: &self.receipts.get(index as usize)?.root,
            commit: &self.commit,
            path: self.tree.path_parts(index as usize)?,
        })
    }

    /// The proof of the act at an index.
    pub fn act_proof(&self, index: u32) -> Option<ActProof> {
        let act = self.act(index)?;
        Some(ActProof { commit: self.record.commit, blind: act.blind, path: self.tree.path(index as usize)? })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use proptest::prelude::*;
    use weir_protocol::act::Settled;
    use weir_protocol::id::Reference;

    use super::*;

    fn record(amounts: &[u64], runs: usize) -> Record {
        let payment = |amount: &u64| Payment {
            payee: AccountId(PublicKey([*amount as u8 % 5; 32])),
            amount: Amount::from_nanos(*amount),
            reference: Reference([*amount as u8; 32]),
        };
        let payments: Vec<Payment> = amounts.iter().map(payment).collect();
        let run = Run::new(1, &payments).unwrap();
        let group = GroupRecord {
            lane: LaneId([1; 32]),
            currency: Currency::EUR,
            head: Head::empty(&LaneId([1; 32])),
            signature: Signature([3; 64]),
            runs: vec![run; runs],
        };
        let act = ActRecord {
            blind: Blind([4; 16]),
            act: Act::Settled(Settled { window: 300 }),
            author: Some(Authorship { key: PublicKey([5; 32]), signature: Signature([6; 64]) }),
            context: None,
        };
        let commit = Commit {
            hub: HubId(PublicKey([7; 32])),
            chain: 1 << 47,
            number: 5,
            time: Time(1_800_000_000_000),
            history: Hash([8; 32]),
            items: 3,
            root: Hash([9; 32]),
        };
        let (group, act) = (ItemRecord::Group(group), ItemRecord::Act(Box::new(act)));
        let items = vec![group.clone(), act, group];
        Record { commit: SignedCommit { commit, signature: Signature([10; 64]) }, items }
    }

    proptest! {
        #[test]
        fn payload_is_a_version_and_postcards_bytes(
            amounts in proptest::collection::vec(1_u64.., 1..30), runs in 1_usize..4,
        ) {
            let record = record(&amounts, runs);
            let bytes = record.encode();
            prop_assert_eq!(&bytes, &postcard::to_extend(&record, vec![VERSION]).unwrap());
            prop_assert_eq!(Record::decode(&bytes), Ok(record));
        }

        #[test]
        fn damaged_payload_is_an_error_or_another_record(at in 0_usize..10_000, byte: u8, end in 0_usize..10_000) {
            let mut bytes = record(&[1, 2, 300], 2).encode();
            let whole = bytes.len();
            *bytes.get_mut(at % whole).unwrap() = byte;
            bytes.truncate(end % (whole + 1));
            let _ = Record::decode(&bytes);
        }
    }
}
