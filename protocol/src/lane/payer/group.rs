//! A paid group as its payer keeps it: from it a receipt for each of its payments can be made, without the hub.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::amount::Currency;
use crate::commit::{Answer, SignedCertificate};
use crate::hash::Hash;
use crate::id::{HubId, LaneId, PaymentId, Reference};
use crate::keys::Signature;
use crate::merkle::Tree;
use crate::payment::{Head, Payment, Run, payment_id, receipt_leaf};
use crate::receipt::{Receipt, ReceiptClaim, ReceiptFile};

/// Payments that the hub took in one commit, with its answer, checked up to the root of the leaves.
///
/// Head, path and commit were checked when the answer came; the leaves are computed when the first receipt is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PaidGroup {
    /// The hub.
    pub hub: HubId,
    /// The lane.
    pub lane: LaneId,
    /// The channel's currency.
    pub currency: Currency,
    /// Its payments, as they were sent or as the hub told them: ascending, never empty.
    pub runs: Vec<Run>,
    /// The head that they lead to.
    pub head: Head,
    /// The lane key's signature over that head.
    pub signature: Signature,
    /// What the hub answered.
    pub answer: Answer,
    #[serde(skip)]
    tree: OnceLock<Tree>,
}

/// Why there is no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The group has no payment at this index.
    #[error("no payment {0} in this group")]
    Index(usize),
    /// The hub signed another root than the payments give: evidence against it, [`super::Contradiction::Leaves`].
    #[error("the hub signed other payments than were made")]
    Leaves,
}

impl PaidGroup {
    /// Puts a checked answer together with what it answers.
    pub const fn new(
        (hub, lane, currency): (HubId, LaneId, Currency),
        runs: Vec<Run>,
        (head, signature): (Head, Signature),
        answer: Answer,
    ) -> Self {
        Self { hub, lane, currency, runs, head, signature, answer, tree: OnceLock::new() }
    }

    /// How many payments there are.
    #[expect(clippy::len_without_is_empty, reason = "a group is never empty")]
    pub fn len(&self) -> usize {
        self.runs.iter().map(Run::len).sum()
    }

    /// The payments with their sequences, ascending.
    pub fn payments(&self) -> impl Iterator<Item = (u64, Payment)> + '_ {
        self.runs.iter().flat_map(Run::payments)
    }

    /// The payment at `index`, with its sequence.
    pub fn payment(&self, index: usize) -> Option<(u64, Payment)> {
        let mut place = index;
        for run in &self.runs {
            if place < run.len() {
                return run.payment(place);
            }
            place -= run.len();
        }
        None
    }

    /// The place of the payment with this reference.
    pub fn find(&self, reference: &Reference) -> Option<usize> {
        self.runs.iter().flat_map(Run::references).position(|other| other == reference)
    }

    /// The public id of the payment at `index`.
    pub fn payment_id(&self, index: usize) -> Option<PaymentId> {
        self.payment(index).map(|(sequence, _)| payment_id(&self.lane, sequence))
    }

    /// The place of the payment with this sequence.
    pub fn index_of(&self, sequence: u64) -> Option<usize> {
        let mut before = 0;
        for run in &self.runs {
            if (run.first_sequence()..=run.last_sequence()).contains(&sequence) {
                return usize::try_from(sequence - run.first_sequence()).ok().map(|place| before + place);
            }
            before += run.len();
        }
        None
    }

    /// What a receipt for the payment at `index` proves.
    pub fn claim(&self, index: usize) -> Option<ReceiptClaim> {
        let (_, payment) = self.payment(index)?;
        Some(ReceiptClaim { hub: self.hub, currency: self.currency, payment })
    }

    /// The receipt for the payment at `index`. Computes all leaves the first time.
    pub fn receipt(&self, index: usize) -> Result<Receipt, ReceiptError> {
        let payment_id = self.payment_id(index).ok_or(ReceiptError::Index(index))?;
        let tree = self.tree.get_or_init(|| Tree::new(self.leaves()));
        if tree.root() != self.answer.leaves {
            return Err(ReceiptError::Leaves);
        }
        let leaf_path = tree.path(index).ok_or(ReceiptError::Index(index))?;
        let commit = &self.answer.commit.commit;
        Ok(Receipt {
            payment_id,
            leaf_path,
            head: self.head.digest(&self.lane),
            group_path: self.answer.path.clone(),
            chain: commit.chain,
            number: commit.number,
            time: commit.time,
            history: commit.history,
            signature: self.answer.commit.signature,
        })
    }

    /// The receipt as a self-contained file; `certificate` is the one that covers the commit's time.
    pub fn receipt_file(&self, index: usize, certificate: SignedCertificate) -> Result<ReceiptFile, ReceiptError> {
        let receipt = self.receipt(index)?;
        let (_, payment) = self.payment(index).ok_or(ReceiptError::Index(index))?;
        Ok(ReceiptFile {
            format: ReceiptFile::FORMAT.to_owned(),
            hub: self.hub,
            payee: payment.payee,
            amount: payment.amount,
            currency: self.currency,
            reference: payment.reference,
            certificate,
            receipt,
        })
    }

    fn leaves(&self) -> Vec<Hash> {
        let leaf = |(sequence, payment): (u64, Payment)| {
            receipt_leaf(&payment_id(&self.lane, sequence), &payment, self.currency)
        };
        self.payments().map(leaf).collect()
    }
}
