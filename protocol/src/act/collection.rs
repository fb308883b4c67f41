//! Acts of direct debits: mandates, and what is collected under them.

use serde::{Deserialize, Serialize};

use super::{MAX_IBAN, MAX_TEXT};
use crate::amount::{Amount, Currency, Time};
use crate::hash::{Hash, Preimage};
use crate::id::AccountId;
use crate::keys::PublicKey;

/// Most bytes of a mandate's id: what a bank file holds.
pub const MAX_MANDATE_ID: usize = 35;
/// Most days for which collected money may be provisional.
pub const MAX_PROVISIONAL_DAYS: u32 = 400;

/// Under which of SEPA's rules a mandate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MandateScheme {
    /// CORE: its debtor may take a collection back for eight weeks without a reason.
    Core,
    /// B2B: between companies, no refund of what was authorised.
    B2b,
}

impl MandateScheme {
    /// The number in a preimage.
    pub const fn code(self) -> u16 {
        match self {
            Self::Core => 0,
            Self::B2b => 1,
        }
    }
}

/// An account lets the hub collect from a bank account, or ends that. Signed by the account key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mandate {
    /// Above the last number taken from the account key.
    pub number: u64,
    /// The account that is topped up.
    pub account: AccountId,
    /// The rules.
    pub scheme: MandateScheme,
    /// What names it at the banks: never used again.
    pub mandate_id: String,
    /// The bank account that is debited.
    pub iban: String,
    /// When it was signed; the file says the day (UTC).
    pub signed_at: Time,
    /// Whether it ends. Final.
    pub revoked: bool,
}

/// The operator accepts a mandate, sets what counts at once, or ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MandateTerms {
    /// The account.
    pub account: AccountId,
    /// Which mandate.
    pub mandate_id: String,
    /// Whether the hub collects under it. That it does not any more is final.
    pub accepted: bool,
    /// CORE: so much of what was collected from the account and can still be taken back counts as available at once; zero
    /// for B2B, where all of it does.
    pub at_once: Amount,
    /// CORE: for how many days the rest stays provisional; zero for B2B.
    pub provisional_days: u32,
}

/// The bank is told to collect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collect {
    /// Counts the hub's collections from 1: its ids at the bank are made of it.
    pub collection: u64,
    /// The account.
    pub account: AccountId,
    /// Under which mandate.
    pub mandate_id: String,
    /// The currency.
    pub currency: Currency,
    /// How much: a whole number of minor units.
    pub amount: Amount,
    /// When the file was made.
    pub created_at: Time,
    /// The day (UTC) on which the debtor is debited: its first millisecond.
    pub due: Time,
    /// Whether it is the mandate's first.
    pub first: bool,
    /// SHA-256 of the file.
    pub file: Hash,
}

/// An operator agrees that the bank be told to collect, or gives a collection up that it was not told of. The first who agrees
/// has planned it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApproveCollect {
    /// Above the last number taken from the operator's key.
    pub number: u64,
    /// Who says so.
    pub operator: PublicKey,
    /// Whether the bank may be told; if not, the collection is given up.
    pub approved: bool,
    /// The act that will tell of it: another one is not agreed to.
    pub collect: Collect,
}

/// What the bank says of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CollectionWord {
    /// It booked the money.
    Booked,
    /// It booked the money back to the debtor.
    Returned,
    /// It did not and will not collect; nothing was booked.
    Refused,
}

impl CollectionWord {
    /// The number in a preimage.
    pub const fn code(self) -> u16 {
        match self {
            Self::Booked => 0,
            Self::Returned => 1,
            Self::Refused => 2,
        }
    }
}

/// The bank's word on one collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// The collection.
    pub collection: u64,
    /// The account.
    pub account: AccountId,
    /// The currency.
    pub currency: Currency,
    /// The collection's amount.
    pub amount: Amount,
    /// What happened.
    pub word: CollectionWord,
    /// The bank's reference or reason.
    pub reference: String,
}

impl Mandate {
    pub(super) fn lay(&self, start: Preimage) -> Preimage {
        start
            .u64(self.number)
            .raw(self.account.as_bytes())
            .u16(self.scheme.code())
            .text(&self.mandate_id)
            .text(&self.iban)
            .time(self.signed_at)
            .flag(self.revoked)
    }

    pub(super) const fn within_limits(&self) -> bool {
        !self.mandate_id.is_empty() && self.mandate_id.len() <= MAX_MANDATE_ID && self.iban.len() <= MAX_IBAN
    }
}

impl MandateTerms {
    pub(super) fn lay(&self, start: Preimage) -> Preimage {
        start
            .raw(self.account.as_bytes())
            .text(&self.mandate_id)
            .flag(self.accepted)
            .amount(self.at_once)
            .u32(self.provisional_days)
    }

    pub(super) const fn within_limits(&self) -> bool {
        self.mandate_id.len() <= MAX_MANDATE_ID && self.provisional_days <= MAX_PROVISIONAL_DAYS
    }
}

impl Collect {
    pub(super) fn lay(&self, start: Preimage) -> Preimage {
        start
            .u64(self.collection)
            .raw(self.account.as_bytes())
            .text(&self.mandate_id)
            .currency(self.currency)
            .amount(self.amount)
            .time(self.created_at)
            .time(self.due)
            .flag(self.first)
            .raw(&self.file.0)
    }

    pub(super) const fn within_limits(&self) -> bool {
        self.mandate_id.len() <= MAX_MANDATE_ID
    }
}

impl ApproveCollect {
    pub(super) fn lay(&self, start: Preimage) -> Preimage {
        let start = start.u64(self.number).raw(&self.operator.0).flag(self.approved);
        self.collect.lay(start)
    }
}

impl Collected {
    pub(super) fn lay(&self, start: Preimage) -> Preimage {
        start
            .u64(self.collection)
            .raw(self.account.as_bytes())
            .currency(self.currency)
            .amount(self.amount)
            .u16(self.word.code())
            .text(&self.reference)
    }

    pub(super) const fn within_limits(&self) -> bool {
        self.reference.len() <= MAX_TEXT
    }
}
