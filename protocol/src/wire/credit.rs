//! Credits to a subscribed payee: the commit once, then per group the payee's payments with one multiproof.

use serde::{Deserialize, Serialize};

use super::hello::Cursor;
use crate::amount::{Amount, Currency};
use crate::commit::{Commit, ProofError, SignedCertificate, SignedCommit, group_item};
use crate::hash::Hash;
use crate::id::{AccountId, PaymentId, Reference};
use crate::merkle::{Path, multiproof_root};
use crate::payment::{Payment, receipt_leaf};
use crate::reject::Reject;

/// What the hub sends on a credit stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CreditMessage {
    /// A commit that credits the account; its groups follow. Also sent for a newer certificate's first commit.
    Commit {
        /// The commit.
        commit: SignedCommit,
        /// Which key signed it.
        certificate: SignedCertificate,
    },
    /// The account's payments in one group of the last commit sent.
    Group(CreditGroup),
    /// All credits up to here have been sent: the cursor to resume from.
    Through(Cursor),
    /// The subscription is refused or ended.
    Refused(Reject),
}

/// The payee's payments of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreditGroup {
    /// The head that the group leads to, opaque.
    pub head: Hash,
    /// Payments in the group, the payee's and others'.
    pub count: u32,
    /// The channel's currency.
    pub currency: Currency,
    /// The payee's payments, ascending by index.
    pub credits: Vec<Credit>,
    /// Multiproof of the payee's leaves; empty when the whole group is the payee's.
    pub proof: Vec<Hash>,
    /// From the group to the commit's root.
    pub path: Path,
}

/// One payment to the payee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// Index in the group.
    pub leaf: u32,
    /// The payment.
    pub payment_id: PaymentId,
    /// How much.
    pub amount: Amount,
    /// What for.
    pub reference: Reference,
}

impl CreditGroup {
    /// Whether these payments to `payee` are in the commit; the commit's signature must have been checked.
    pub fn check(&self, payee: &AccountId, commit: &SignedCommit) -> Result<(), ProofError> {
        let leaves: Vec<(u32, Hash)> = self
            .credits
            .iter()
            .map(|credit| {
                let payment = Payment { payee: *payee, amount: credit.amount, reference: credit.reference };
                (credit.leaf, receipt_leaf(&credit.payment_id, &payment, self.currency))
            })
            .collect();
        let root = multiproof_root(self.count, &leaves, &self.proof).ok_or(ProofError::Path)?;
        commit.includes(&group_item(&self.head, self.count, &root), &self.path)
    }
}

/// The place of a commit.
impl From<&Commit> for Cursor {
    fn from(commit: &Commit) -> Self {
        Self { chain: commit.chain, number: commit.number }
    }
}
