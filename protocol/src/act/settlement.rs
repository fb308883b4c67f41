//! Acts of operators, and what an account wants of its earnings.

use serde::{Deserialize, Serialize};

use super::{MAX_NAME, MAX_TEXT};
use crate::amount::{Amount, Currency};
use crate::hash::{Hash, Preimage};
use crate::id::AccountId;
use crate::keys::PublicKey;

/// The whole of what a fee in basis points is a part of.
pub const BASIS_POINTS: u32 = 10_000;

/// What a window pays out in one currency; the payouts follow from the ledger at the cut-off.
///
/// Signed by an operator; by nobody (the hub's own) where the policy asks for no approvals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Above the last number taken from the operator's key; 0 for the hub's own.
    pub number: u64,
    /// Who plans; `None` (zeros): the hub itself.
    pub operator: Option<PublicKey>,
    /// The window.
    pub window: u64,
    /// The currency.
    pub currency: Currency,
    /// How many payouts.
    pub payouts: u32,
    /// Their sum.
    pub total: Amount,
    /// Merkle root over [`payout_leaf`](super::payout_leaf)s, ordered by account.
    pub root: Hash,
    /// Merkle root over the SHA-256 of the bank files, in their order: with one file, its SHA-256.
    pub file: Hash,
}

/// An operator's key begins or ends to count.
///
/// The hub's own (`by` is `None`) while fewer than two operators stand. From then on signed by one who stands: one is
/// enough to end a key, two different ones must name a new key before it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// Above the last number taken from the key `by`; 0 for the hub's own.
    pub number: u64,
    /// Who says so; `None` (zeros): the hub itself.
    pub by: Option<PublicKey>,
    /// The key.
    pub key: PublicKey,
    /// Whether it is to stand.
    pub stands: bool,
    /// Whose it is, for people.
    pub name: String,
}

/// Another operator agrees to a plan. Signed by that operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Above the last number taken from the operator's key.
    pub number: u64,
    /// Who agrees.
    pub operator: PublicKey,
    /// The window.
    pub window: u64,
    /// The currency.
    pub currency: Currency,
    /// The plan's digest.
    pub plan: Hash,
    /// The plan's `file`, as the operator found the files to be.
    pub file: Hash,
}

/// A plan that was not instructed is given up; the window can be planned again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    /// Above the last number taken from the operator's key; 0 for the hub's own.
    pub number: u64,
    /// Who gives it up; `None` (zeros): the hub itself.
    pub operator: Option<PublicKey>,
    /// The window.
    pub window: u64,
    /// The currency.
    pub currency: Currency,
    /// The plan's digest.
    pub plan: Hash,
    /// Why.
    pub reason: String,
}

/// What the hub takes of what an account earned in a window: part, so much a payment, and so much at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeeSchedule {
    /// Hundredths of a percent of what was earned, rounded down to a nano; at most [`BASIS_POINTS`].
    pub basis_points: u32,
    /// For each payment that was received.
    pub per_payment: Amount,
    /// At least this in a window in which something was earned.
    pub minimum: Amount,
}

/// An account gets a fee schedule of its own, or goes back to the policy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fees {
    /// Above the last number taken from the operator's key; 0 for the hub's own.
    pub number: u64,
    /// Who says so; `None` (zeros): the hub itself.
    pub operator: Option<PublicKey>,
    /// The account.
    pub account: AccountId,
    /// Whether the schedule is the account's own; if not, the policy's holds again.
    pub own: bool,
    /// The schedule.
    pub schedule: FeeSchedule,
}

/// A window's plans pay out below the minimum, in whole minor units still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForceFinal {
    /// Above the last number taken from the operator's key; 0 for the hub's own.
    pub number: u64,
    /// Who says so; `None` (zeros): the hub itself.
    pub operator: Option<PublicKey>,
    /// The window.
    pub window: u64,
    /// To whom; `None` (zeros): to everybody.
    pub account: Option<AccountId>,
}

/// An operator agrees to the bank account to which an account's owner has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApproveIban {
    /// Above the last number taken from the operator's key.
    pub number: u64,
    /// Who agrees.
    pub operator: PublicKey,
    /// The account.
    pub account: AccountId,
    /// The bank account that waits: an agreement to another one is none.
    pub iban: String,
}

/// What becomes of earnings at a cut-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum EarningsUse {
    /// They are paid out.
    #[default]
    PayOut,
    /// Up to what the account spent in the window they are available again; the rest is paid out.
    Net,
    /// They are available again.
    Keep,
}

impl EarningsUse {
    /// The number in a preimage.
    pub const fn code(self) -> u16 {
        match self {
            Self::PayOut => 0,
            Self::Net => 1,
            Self::Keep => 2,
        }
    }
}

/// What becomes of an account's earnings, from the open window on. Signed by the account key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earnings {
    /// Above the last number taken from the account key.
    pub number: u64,
    /// The account.
    pub account: AccountId,
    /// The currency.
    pub currency: Currency,
    /// What becomes of them.
    pub becomes: EarningsUse,
}

fn key(start: Preimage, key: Option<PublicKey>) -> Preimage {
    start.raw(&key.unwrap_or(PublicKey([0; 32])).0)
}

impl Plan {
    pub(super) fn lay(&self, start: Preimage) -> Preimage {
        key(start.u64(self.number), self.operator)
            .u64(self.window)
            .currency(self.currency)
            .u32(self.payouts)
            .amount(self.total)
            .raw(&self.root.0)
            .raw(&self.file.0)
    }
}

impl Operator {
    pub(super) fn lay(&self, start: Preimage) -> Preimage {
        key(start.u64(self.number), self.by).raw(&self.key.0).flag(self.stands).text(&self.name)
    }

    pub(super) const fn within_limits(&self) -> bool {
        self.name.len() <= MAX_NAME
    }
}

impl Approval {
    pub(super) fn lay(&self, start: Preimage) -> Preimage {
        start
            .u64(self.number)
            .raw(&self.operator.0)
            .u64(self.window)
            .currency(self.currency)
            .raw(&self.plan.0)
            .raw(&self.file.0)
    }
}

impl Abort {
    pub(super) fn lay(&self, start: Preimage) -> Preimage {
        key(start.u64(self.number), self.operator)
            .u64(self.window)
            .currency(self.currency)
            .raw(&self.plan.0)
            .text(&self.reason)
    }

    pub(super) const fn within_limits(&self) -> bool {
        self.reason.len() <= MAX_TEXT
    }
}

impl FeeSchedule {
    /// Whether it is one: no more than everything can be taken.
    pub const fn within_limits(&self) -> bool {
        self.basis_points <= BASIS_POINTS
    }
}

impl Fees {
    pub(super) fn lay(&self, start: Preimage) -> Preimage {
        key(start.u64(self.number), self.operator)
            .raw(self.account.as_bytes())
            .flag(self.own)
            .u32(self.schedule.basis_points)
            .amount(self.schedule.per_payment)
            .amount(self.schedule.minimum)
    }
}

impl ForceFinal {
    pub(super) fn lay(&self, start: Preimage) -> Preimage {
        key(start.u64(self.number), self.operator)
            .u64(self.window)
            .raw(self.account.unwrap_or(AccountId::ZERO).as_bytes())
    }
}

impl ApproveIban {
    pub(super) fn lay(&self, start: Preimage) -> Preimage {
        start.u64(self.number).raw(&self.operator.0).raw(self.account.as_bytes()).text(&self.iban)
    }
}

impl Earnings {
    pub(super) fn lay(&self, start: Preimage) -> Preimage {
        start.u64(self.number).raw(self.account.as_bytes()).currency(self.currency).u16(self.becomes.code())
    }
}
