//! Entries of the bank that nobody owns yet: money that arrived (suspense) and money that left (unexplained).
//!
//! Their sums are the two places of the ledger; here each entry is kept until it is allocated, so that it can be listed
//! with its age and allocated once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::hash::sha256;
use weir_protocol::id::AccountId;

/// The connector of what the bank booked although it had refused it, in place of a bank's own reference.
pub const TWICE: &str = "paid twice";

/// The connector of an allocation that gives a payout in transit back to its account, because a person has it from the bank
/// that it was not paid. The reference is [`payout_name`].
pub const UNPAID: &str = "not paid";

/// Names a payout in place of a bank's own reference.
pub fn payout_name(window: u64, currency: Currency, account: &AccountId) -> String {
    format!("{window} {currency} {account}")
}

/// Names an entry of a bank account: half a SHA-256 over connector ‖ 0 ‖ reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntryKey(pub [u8; 16]);

impl EntryKey {
    /// Of an entry.
    pub fn of(connector: &str, bank_reference: &str) -> Self {
        let mut text = Vec::with_capacity(connector.len() + bank_reference.len() + 1);
        text.extend_from_slice(connector.as_bytes());
        text.push(0);
        text.extend_from_slice(bank_reference.as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(sha256(&text).0.split_at(16).0);
        Self(key)
    }
}

impl core::fmt::Display for EntryKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// An entry that waits for its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmatched {
    /// Whether money arrived; if not, it left.
    pub incoming: bool,
    /// Its currency.
    pub currency: Currency,
    /// How much.
    pub amount: Amount,
    /// When it was posted.
    pub posted_at: Time,
    /// The bank connector.
    pub connector: String,
    /// The bank's own reference.
    pub bank_reference: String,
}

/// All entries that wait, by key.
pub type AllUnmatched = BTreeMap<EntryKey, Unmatched>;
