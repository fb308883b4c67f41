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
use weir_protocol::payment::{Head, Payment, Run, payment_id, receipt_leaf};

/// The first byte of a payload.
pub const VERSION: u8 = 1;

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
        // Writing to memory cannot fail for these types: none has an unknown length.
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default()
    }

    /// Reads a payload.
    pub fn decode(payload: &[u8]) -> Result<Self, RecordError> {
        let (version, body) = payload.split_first().ok_or(RecordError)?;
        if *version != VERSION {
            return Err(RecordError);
        }
        postcard::from_bytes(body).map_err(|_| RecordError)
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

    /// Computes everything that proofs need. Costs a hash or two a payment.
    pub fn prove(self) -> Proven {
        let hub = self.header().hub;
        let leaves: Vec<Vec<Hash>> = self
            .items
            .iter()
            .map(|item| match item {
                ItemRecord::Group(group) => group.leaves(),
                ItemRecord::Act(_) => Vec::new(),
            })
            .collect();
        let hashes = self.items.iter().zip(&leaves).map(|(item, leaves)| item.hash(&hub, leaves)).collect();
        Proven { record: self, tree: Tree::new(hashes), leaves }
    }
}

impl ItemRecord {
    /// The item as the commit's tree has it. `leaves`: of a group.
    pub fn hash(&self, hub: &HubId, leaves: &[Hash]) -> Hash {
        match self {
            Self::Group(group) => group.item(leaves),
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

    /// The payments' receipt leaves, in order.
    pub fn leaves(&self) -> Vec<Hash> {
        self.payments()
            .map(|(sequence, payment)| receipt_leaf(&payment_id(&self.lane, sequence), &payment, self.currency))
            .collect()
    }

    /// The item as the commit's tree has it.
    pub fn item(&self, leaves: &[Hash]) -> Hash {
        group_item(&self.head.digest(&self.lane), self.count(), &merkle::root(leaves))
    }
}

/// A record with its trees: what answers, credits and receipts are made from.
#[derive(Debug)]
pub struct Proven {
    /// The record.
    pub record: Record,
    /// Over the items.
    pub tree: Tree,
    /// Per item: the leaves of a group; empty for an act.
    pub leaves: Vec<Vec<Hash>>,
}

impl Proven {
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
            leaves: merkle::root(self.leaves.get(index as usize)?),
            commit: self.record.commit,
            path: self.tree.path(index as usize)?,
        })
    }

    /// The proof of the act at an index.
    pub fn act_proof(&self, index: u32) -> Option<ActProof> {
        let act = self.act(index)?;
        Some(ActProof { commit: self.record.commit, blind: act.blind, path: self.tree.path(index as usize)? })
    }
}
