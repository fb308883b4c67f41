//! Bounds that the operator sets on what accounts do.

use serde::{Deserialize, Serialize};

use crate::amount::Amount;
use crate::id::AccountId;

/// Bounds for one account, or, without an account, for everybody who has none of its own. They count in each currency by
/// itself. Zero: no bound; in an account's own: as for everybody. 2^64 − 1: no bound, whatever there is for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The account; none: everybody.
    pub account: Option<AccountId>,
    /// Most that one payment of the account's may be. Zero without an account: everybody's is the policy's.
    pub payment_max: Amount,
    /// Most that a deposit may bring available and locked money to.
    pub balance_max: Amount,
    /// Most that openings and amendments may lock on one day (UTC).
    pub day_max: Amount,
    /// How long a changed bank account of an approved account waits until payouts go there, in seconds. Zero with an
    /// account.
    pub iban_wait_s: u32,
}

impl Limits {
    /// Whether everything is where it may be.
    pub const fn is_well_formed(&self) -> bool {
        if self.account.is_some() { self.iban_wait_s == 0 } else { self.payment_max.is_zero() }
    }
}
