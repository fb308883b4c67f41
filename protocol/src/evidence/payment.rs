//! Evidence for one payment: that the payer's keys authorised it and that the hub took it; or, as its payee can show it, that
//! the hub took it.

use serde::{Deserialize, Serialize};

use super::{ActPart, Checked, EvidenceError, Place, Verdict, expect_act, order};
use crate::act::Act;
use crate::amount::{Amount, Currency};
use crate::commit::{ProofError, group_item};
use crate::hash::Hash;
use crate::id::{AccountId, ChannelId, LaneId, PaymentId, Reference};
use crate::keys::Signature;
use crate::merkle::Path;
use crate::payment::{Head, MAX_PAYMENTS, Payment, State, next_state, payment_id, receipt_leaf};

/// What both sides may know of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptClaim {
    /// Its public id.
    pub payment_id: PaymentId,
    /// Who was paid.
    pub payee: AccountId,
    /// How much.
    pub amount: Amount,
    /// Of which currency.
    pub currency: Currency,
    /// What for.
    pub reference: Reference,
    /// Given back of it since, in all.
    pub refunded: Amount,
}

/// What the payer knows besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentClaim {
    /// What the payee knows too.
    pub receipt: ReceiptClaim,
    /// Who paid.
    pub payer: AccountId,
    /// From which channel.
    pub channel: ChannelId,
    /// On which lane.
    pub lane: u32,
    /// The payment's sequence on it.
    pub sequence: u64,
}

/// A payment without its payer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptEvidence {
    /// What is claimed.
    pub claim: ReceiptClaim,
    /// From the payment's leaf to the group's tree.
    pub leaf: Path,
    /// The head that the group leads to, opaque.
    pub head: Hash,
    /// The group's place.
    pub group: Place,
    /// The newest refund.
    pub refund: Option<ActPart>,
}

/// A payment with its payer's authorisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentEvidence {
    /// What is claimed.
    pub claim: PaymentClaim,
    /// The channel's opening.
    pub open: ActPart,
    /// The lane's grant; none for lane 0.
    pub grant: Option<ActPart>,
    /// The lane's state before the payment.
    pub before: State,
    /// The group's payments from this one on, with their sequences: they lead to the head.
    pub payments: Vec<(u64, Payment)>,
    /// The head that the group leads to.
    pub head: Head,
    /// The lane key's signature over it.
    pub signature: Signature,
    /// From the payment's leaf to the group's tree.
    pub leaf: Path,
    /// The group's place.
    pub group: Place,
    /// The newest refund.
    pub refund: Option<ActPart>,
}

impl ReceiptEvidence {
    pub(super) fn check(&self, checked: &Checked<'_>) -> Result<Verdict, EvidenceError> {
        taken(checked, &self.claim, &self.leaf, &self.head, &self.group)?;
        refunded(checked, &self.claim, self.refund.as_ref(), (&self.group, &self.leaf))?;
        let mut verdict = Verdict::new("receipt", self.group.commit);
        self.claim.describe(&mut verdict);
        verdict.open("Who paid: the payee does not know.");
        Ok(verdict)
    }
}

impl PaymentEvidence {
    pub(super) fn check(&self, checked: &Checked<'_>) -> Result<Verdict, EvidenceError> {
        let claim = &self.claim;
        let terms = expect_act!(self.open, Open, "open")?;
        checked.act(&self.open, &[terms.account.key()], "open")?;
        if terms.hub != *checked.hub
            || terms.account != claim.payer
            || terms.id() != claim.channel
            || terms.currency != claim.receipt.currency
        {
            return Err(EvidenceError::Content("the channel is another than is claimed"));
        }
        let grant = match &self.grant {
            None => terms.lane_zero(),
            Some(part) => {
                let grant = expect_act!(part, Grant, "grant")?;
                checked.act(part, &[terms.key], "grant")?;
                // Lane 0 comes with the terms; nobody grants it.
                if grant.lane == 0 || order(part) <= order(&self.open) {
                    return Err(EvidenceError::Content("the lane is another than is claimed"));
                }
                *grant
            }
        };
        if grant.channel != claim.channel || grant.lane != claim.lane {
            return Err(EvidenceError::Content("the lane is another than is claimed"));
        }
        let lane = grant.id();
        if order(&self.open) >= (self.group.commit, self.group.path.index)
            || self.grant.as_ref().is_some_and(|part| order(part) >= (self.group.commit, self.group.path.index))
        {
            return Err(EvidenceError::Content("the payment comes before its lane"));
        }
        self.chain(&lane)?;
        let digest = self.head.digest(&lane);
        if !grant.key.verify(&digest, &self.signature) {
            return Err(EvidenceError::Signature("head"));
        }
        taken(checked, &claim.receipt, &self.leaf, &digest, &self.group)?;
        refunded(checked, &claim.receipt, self.refund.as_ref(), (&self.group, &self.leaf))?;
        let mut verdict = Verdict::new("payment", self.group.commit);
        verdict.fact("payer", claim.payer);
        verdict.fact("channel", claim.channel);
        verdict.fact("lane", claim.lane);
        claim.receipt.describe(&mut verdict);
        verdict.proven(format!(
            "The payer authorised it: the account's key signed the channel's opening, {}, and the lane's key signed the head \
             that commits to this payment, its payee, amount and reference, as sequence {}.",
            if claim.lane == 0 { "which names the key of lane 0" } else { "the channel's key granted the lane" },
            claim.sequence
        ));
        verdict.open("Who held the payer's keys when they signed.");
        Ok(verdict)
    }

    /// Whether the payments lead from the state before to the head, and the first is the one that is claimed.
    fn chain(&self, lane: &LaneId) -> Result<(), EvidenceError> {
        let claim = &self.claim;
        let wrong = Err(EvidenceError::Content("the payments do not lead to the head"));
        let Some((sequence, first)) = self.payments.first() else { return wrong };
        let receipt = &claim.receipt;
        let is_claimed = *sequence == claim.sequence
            && (first.payee, first.amount, first.reference) == (receipt.payee, receipt.amount, receipt.reference)
            && payment_id(lane, *sequence) == receipt.payment_id;
        if !is_claimed {
            return Err(EvidenceError::Content("the payment is another than is claimed"));
        }
        let expected = self.leaf.count.checked_sub(self.leaf.index).map(|count| count as usize);
        if expected != Some(self.payments.len()) || self.payments.len() > MAX_PAYMENTS {
            return wrong;
        }
        let (mut state, mut last, mut sum) = (self.before, 0, Amount::ZERO);
        for (sequence, payment) in &self.payments {
            if *sequence <= last {
                return wrong;
            }
            last = *sequence;
            state = next_state(&state, *sequence, payment);
            sum = sum.checked_add(payment.amount).map_err(|_| EvidenceError::Content("the payments overflow"))?;
        }
        let leads = state == self.head.state && last == self.head.sequence && sum <= self.head.total;
        if leads { Ok(()) } else { wrong }
    }
}

impl ReceiptClaim {
    fn describe(&self, verdict: &mut Verdict) {
        let currency = self.currency;
        verdict.fact("payment", self.payment_id);
        verdict.fact("payee", self.payee);
        verdict.fact("amount", format!("{} {currency}", self.amount));
        verdict.fact("reference", self.reference);
        verdict.fact("refunded", format!("{} {currency}", self.refunded));
        verdict.proven(format!(
            "The hub took a payment of {} {currency} to this payee with this reference in commit {}.",
            self.amount, verdict.commit
        ));
        if self.refunded.is_zero() {
            verdict.open("That nothing of it was given back: a refund may be left out of this file.");
        } else {
            verdict.proven(format!("The payee's key signed a refund of {} {currency} in all.", self.refunded));
            verdict.open("That no more of it was given back.");
        }
    }
}

/// Whether the hub took the payment.
fn taken(
    checked: &Checked<'_>,
    claim: &ReceiptClaim,
    leaf: &Path,
    head: &Hash,
    group: &Place,
) -> Result<(), EvidenceError> {
    let payment = Payment { payee: claim.payee, amount: claim.amount, reference: claim.reference };
    let hash = receipt_leaf(&claim.payment_id, &payment, claim.currency);
    let leaves = leaf.root(&hash).ok_or(EvidenceError::Proof("receipt", ProofError::Path))?;
    checked.item(&group_item(head, leaf.count, &leaves), group, "receipt")?;
    Ok(())
}

/// Whether so much was given back, by the payee.
fn refunded(
    checked: &Checked<'_>,
    claim: &ReceiptClaim,
    refund: Option<&ActPart>,
    (group, leaf): (&Place, &Path),
) -> Result<(), EvidenceError> {
    let Some(part) = refund else {
        let none = claim.refunded.is_zero();
        return if none { Ok(()) } else { Err(EvidenceError::Content("the refund is missing")) };
    };
    let refund = expect_act!(part, Refund, "refund")?;
    checked.act(part, &[claim.payee.key()], "refund")?;
    let paid = checked.commit(group.commit, "receipt")?.commit;
    let fits = (refund.chain, refund.commit, refund.group, refund.leaf)
        == (paid.chain, paid.number, group.path.index, leaf.index)
        && refund.payment_id == claim.payment_id
        && refund.refunded_total == claim.refunded
        && claim.refunded <= claim.amount
        && order(part) > (group.commit, group.path.index);
    if fits { Ok(()) } else { Err(EvidenceError::Content("the refund is of another payment or amount")) }
}
