//! A paid group as its payer keeps it: from it a receipt for each of its payments can be made, without the hub.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::amount::Currency;
use crate::commit::{Answer, SignedCertificate};
use crate::hash::Hash;
use crate::id::{HubId, LaneId, PaymentId};
use crate::keys::Signature;
use crate::merkle::Tree;
use crate::payment::{Head, Payment, payment_id, receipt_leaf};
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
    /// Payments with their sequences, ascending.
    pub payments: Vec<(u64, Payment)>,
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
        payments: Vec<(u64, Payment)>,
        (head, signature): (Head, Signature),
        answer: Answer,
    ) -> Self {
        Self { hub, lane, currency, payments, head, signature, answer, tree: OnceLock::new() }
    }

    /// The public id of the payment at `index`.
    pub fn payment_id(&self, index: usize) -> Option<PaymentId> {
        self.payments.get(index).map(|(sequence, _)| payment_id(&self.lane, *sequence))
    }

    /// The place of the payment with this sequence.
    pub fn index_of(&self, sequence: u64) -> Option<usize> {
        self.payments.binary_search_by_key(&sequence, |(at, _)| *at).ok()
    }

    /// What a receipt for the payment at `index` proves.
    pub fn claim(&self, index: usize) -> Option<ReceiptClaim> {
        let (_, payment) = *self.payments.get(index)?;
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
        let (_, payment) = *self.payments.get(index).ok_or(ReceiptError::Index(index))?;
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
        let leaf = |(sequence, payment): &(u64, Payment)| {
            receipt_leaf(&payment_id(&self.lane, *sequence), payment, self.currency)
        };
        self.payments.iter().map(leaf).collect()
    }
}
