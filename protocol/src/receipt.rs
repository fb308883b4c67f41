//! Receipts: proof for one payment that anyone can check offline against the hub id alone.

use serde::{Deserialize, Serialize};

use crate::amount::{Amount, Currency, Time};
use crate::commit::{Commit, ProofError, SignedCertificate, SignedCommit, group_item};
use crate::hash::Hash;
use crate::id::{AccountId, HubId, PaymentId, Reference};
use crate::keys::Signature;
use crate::merkle::Path;
use crate::payment::{Payment, receipt_leaf};

/// Most bytes that an encoded [`Receipt`] can take: ten hashes up the group, twelve up the commit.
pub const MAX_RECEIPT_BYTES: usize = 904;

/// A receipt on the wire. It omits what the verifier has: hub, payee, currency, amount, reference, certificate; and the
/// commit's root and item count, which the paths give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The payment.
    pub payment_id: PaymentId,
    /// From the payment's leaf to the group's tree.
    pub leaf_path: Path,
    /// The head that the group leads to, opaque.
    pub head: Hash,
    /// From the group to the commit's root.
    pub group_path: Path,
    /// The commit's chain.
    pub chain: u64,
    /// The commit's number.
    pub number: u64,
    /// The commit's time.
    pub time: Time,
    /// The commit's history.
    pub history: Hash,
    /// The signing key's signature over the commit.
    pub signature: Signature,
}

/// What the verifier of a receipt knows by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptClaim {
    /// The hub.
    pub hub: HubId,
    /// The currency.
    pub currency: Currency,
    /// Payee, amount and reference.
    pub payment: Payment,
}

impl Receipt {
    /// Checks the receipt against what it should prove; the commit that it proves it with is the answer.
    pub fn check(&self, claim: &ReceiptClaim, certificate: &SignedCertificate) -> Result<SignedCommit, ProofError> {
        certificate.check(&claim.hub)?;
        self.check_certified(claim, certificate)
    }

    /// The same, when the certificate was checked before: one signature check instead of two.
    pub fn check_certified(
        &self,
        claim: &ReceiptClaim,
        certificate: &SignedCertificate,
    ) -> Result<SignedCommit, ProofError> {
        let leaf = receipt_leaf(&self.payment_id, &claim.payment, claim.currency);
        let leaves = self.leaf_path.root(&leaf).ok_or(ProofError::Path)?;
        let item = group_item(&self.head, self.leaf_path.count, &leaves);
        let root = self.group_path.root(&item).ok_or(ProofError::Path)?;
        let commit = SignedCommit {
            commit: Commit {
                hub: claim.hub,
                chain: self.chain,
                number: self.number,
                time: self.time,
                history: self.history,
                items: self.group_path.count,
                root,
            },
            signature: self.signature,
        };
        commit.check(&claim.hub, &certificate.certificate)?;
        Ok(commit)
    }
}

/// A receipt as `weir` writes it: self-contained JSON. `weir verify` needs nothing else but the hub id that one trusts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptFile {
    /// The format: [`ReceiptFile::FORMAT`].
    pub format: String,
    /// The hub.
    pub hub: HubId,
    /// Who was paid.
    pub payee: AccountId,
    /// How much, in major units.
    pub amount: Amount,
    /// Of which currency.
    pub currency: Currency,
    /// What for.
    pub reference: Reference,
    /// Which key signed, by the hub's identity key.
    pub certificate: SignedCertificate,
    /// The proof.
    pub receipt: Receipt,
}

impl ReceiptFile {
    /// The value of `format`.
    pub const FORMAT: &'static str = "weir-receipt/1";

    /// Checks everything inside against the hub that it names.
    pub fn check(&self) -> Result<SignedCommit, ProofError> {
        if self.format != Self::FORMAT {
            return Err(ProofError::Content);
        }
        let payment = Payment { payee: self.payee, amount: self.amount, reference: self.reference };
        let claim = ReceiptClaim { hub: self.hub, currency: self.currency, payment };
        self.receipt.check(&claim, &self.certificate)
    }
}
