//! Evidence for one payout: that a window's plan paid it out to the bank account that its owner registered, and what the bank
//! said.

use serde::{Deserialize, Serialize};

use super::{ActPart, Checked, EvidenceError, Verdict, expect_act, order};
use crate::act::{Act, PayoutOutcome, payout_leaf};
use crate::amount::{Amount, Currency};
use crate::commit::ProofError;
use crate::hash::Hash;
use crate::id::AccountId;
use crate::merkle::Path;

/// `EndToEndId` of a payout: `W`, the window, `-`, and the first 11 bytes of the account as hex. At most 35 characters for
/// windows below 10^11; it is the same however often it is made.
pub fn end_to_end_id(window: u64, account: &AccountId) -> String {
    let id = hex::encode(account.as_bytes().get(..11).unwrap_or_default());
    format!("W{window}-{id}")
}

/// How far a payout has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayoutStage {
    /// Fixed by the plan.
    Planned,
    /// The bank was told.
    Instructed,
    /// The bank says that it is paid; nothing is booked yet.
    Confirmed,
    /// The bank booked it.
    Settled,
    /// The bank refused it.
    Refused,
    /// The bank booked it back.
    Returned,
}

impl PayoutStage {
    /// Where a word of the bank leads.
    pub const fn after(word: PayoutOutcome) -> Self {
        match word {
            PayoutOutcome::Confirmed => Self::Confirmed,
            PayoutOutcome::Settled => Self::Settled,
            PayoutOutcome::Refused => Self::Refused,
            PayoutOutcome::Returned => Self::Returned,
        }
    }
}

/// What is claimed of a payout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayoutClaim {
    /// Whose money it is.
    pub account: AccountId,
    /// The window.
    pub window: u64,
    /// How much.
    pub amount: Amount,
    /// Of which currency.
    pub currency: Currency,
    /// As the bank sees it.
    pub end_to_end_id: String,
    /// How far it has come.
    pub stage: PayoutStage,
    /// How often the bank said something of it.
    pub words: u32,
    /// SHA-256 of the file for the bank.
    pub file: Hash,
}

/// The parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayoutEvidence {
    /// What is claimed.
    pub claim: PayoutClaim,
    /// The account's newest registration before the plan that names the bank account that is paid.
    pub registration: ActPart,
    /// The window's cut-off.
    pub cutoff: ActPart,
    /// The plan.
    pub plan: ActPart,
    /// From the payout's leaf to the plan's root.
    pub payout: Path,
    /// The instruction.
    pub instruction: Option<ActPart>,
    /// The bank's words, oldest first.
    pub outcomes: Vec<ActPart>,
}

impl PayoutEvidence {
    pub(super) fn check(&self, checked: &Checked<'_>) -> Result<Verdict, EvidenceError> {
        let claim = &self.claim;
        let registration = expect_act!(self.registration, Register, "registration")?;
        checked.act(&self.registration, &[claim.account.key()], "registration")?;
        let cutoff = expect_act!(self.cutoff, Cutoff, "cutoff")?;
        checked.act(&self.cutoff, &[], "cutoff")?;
        let plan = expect_act!(self.plan, Plan, "plan")?;
        checked.act(&self.plan, plan.operator.as_slice(), "plan")?;
        if cutoff.window != claim.window
            || (plan.window, plan.currency, plan.file) != (claim.window, claim.currency, claim.file)
            || registration.account != claim.account
            || claim.end_to_end_id != end_to_end_id(claim.window, &claim.account)
        {
            return Err(EvidenceError::Content("the plan is another than is claimed"));
        }
        // Which of equals comes first does not matter; the plan comes after the others.
        if order(&self.plan) <= order(&self.cutoff) || order(&self.plan) <= order(&self.registration) {
            return Err(EvidenceError::Content("the plan comes before what it follows from"));
        }
        let leaf = payout_leaf(claim.window, &claim.account, claim.currency, claim.amount);
        if self.payout.count != plan.payouts || self.payout.root(&leaf) != Some(plan.root) {
            return Err(EvidenceError::Proof("payout", ProofError::Path));
        }
        let (stage, last) = self.stage(checked)?;
        if stage != claim.stage || self.outcomes.len() != claim.words as usize {
            return Err(EvidenceError::Content("the payout has come to another stage than is claimed"));
        }
        Ok(self.verdict(last, registration.iban.as_str(), registration.name.as_str()))
    }

    /// How far the parts show it to have come, and the commit that says so.
    fn stage(&self, checked: &Checked<'_>) -> Result<(PayoutStage, u64), EvidenceError> {
        let claim = &self.claim;
        let (mut stage, mut last) = (PayoutStage::Planned, order(&self.plan));
        if let Some(part) = &self.instruction {
            let instruct = expect_act!(part, Instruct, "instruction")?;
            checked.act(part, &[], "instruction")?;
            let fits = (instruct.window, instruct.currency) == (claim.window, claim.currency)
                && instruct.plan == self.plan.act.digest(checked.hub)
                && order(part) > last;
            if !fits {
                return Err(EvidenceError::Content("the instruction is of another plan"));
            }
            (stage, last) = (PayoutStage::Instructed, order(part));
        }
        for part in &self.outcomes {
            let outcome = expect_act!(part, Outcome, "outcome")?;
            checked.act(part, &[], "outcome")?;
            let fits = (outcome.window, outcome.account, outcome.currency, outcome.amount)
                == (claim.window, claim.account, claim.currency, claim.amount)
                && order(part) > last;
            if !fits || stage == PayoutStage::Planned {
                return Err(EvidenceError::Content("an outcome is of another payout, or out of order"));
            }
            // Which word may follow which is the hub's to judge; the last one counts.
            stage = PayoutStage::after(outcome.outcome);
            last = order(part);
        }
        Ok((stage, last.0))
    }

    fn verdict(&self, commit: u64, iban: &str, name: &str) -> Verdict {
        let claim = &self.claim;
        let currency = claim.currency;
        let mut verdict = Verdict::new("payout", commit);
        verdict.fact("account", claim.account);
        verdict.fact("window", claim.window);
        verdict.fact("amount", format!("{} {currency}", claim.amount));
        verdict.fact("end to end id", &claim.end_to_end_id);
        verdict.fact("bank account", format!("{iban} of {name}"));
        verdict.fact("bank file", format!("SHA-256 {}", claim.file));
        verdict.proven(format!(
            "The plan of window {} pays {} {currency} to this account under the end-to-end id {}, in the bank file with this \
             SHA-256.",
            claim.window, claim.amount, claim.end_to_end_id
        ));
        verdict.proven(format!("The account's own key signed {iban} as its bank account before the plan."));
        verdict.open(
            "Whether the file names this bank account or an earlier one, where a change still waited: the file itself \
             shows it.",
        );
        let said = match claim.stage {
            PayoutStage::Planned => None,
            PayoutStage::Instructed => {
                Some("The hub committed itself to tell the bank; the bank's word is not in this file.")
            }
            PayoutStage::Confirmed => {
                Some("The hub recorded the bank's word that it is paid; the booking is not in this file.")
            }
            PayoutStage::Settled => Some("The hub recorded the bank's booking of it."),
            PayoutStage::Refused => Some("The hub recorded that the bank refused it: the account has it again."),
            PayoutStage::Returned => {
                Some("The hub recorded that it came back from the bank: the account has it again.")
            }
        };
        match said {
            Some(said) => verdict.proven(said),
            None => verdict.open("That the bank was told."),
        }
        verdict.open("That the bank moved the money: the bank's own statement shows it under the end-to-end id.");
        verdict.open("That the amount is all that the account had earned: its statement shows how it came about.");
        verdict
    }
}
