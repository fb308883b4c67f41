//! What an audit says: amounts as strings in major units, times in milliseconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_protocol::commit::Commit;
use weir_protocol::hash::Hash;
use weir_protocol::id::HubId;

use crate::engine::ledger::{Ledger, Sums, units};

/// What an audit comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything follows.
    Clean,
    /// Something does not.
    Broken,
}

/// The first thing that does not follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstError {
    /// The commit.
    pub commit: u64,
    /// What is wrong.
    pub what: String,
}

/// An audit's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The result.
    pub audit: Verdict,
    /// Whose commits.
    pub hub: HubId,
    /// The last commit that was found right.
    pub commits: u64,
    /// The first commit that was checked: above 1 when older ones are pruned and a snapshot was believed for them.
    pub from: u64,
    /// Payments in them.
    pub payments: u64,
    /// The same commit.
    pub head: Option<CommitRow>,
    /// Money after it, by currency; empty when the next commit is broken.
    pub sums: BTreeMap<String, SumsRow>,
    /// Refunds compared with their payments.
    pub refunds: u64,
    /// Commits whose snapshots were compared with what was recomputed.
    pub snapshots: Vec<u64>,
    /// What is odd and harms nothing.
    pub notes: Vec<String>,
    /// What is wrong, if something is.
    pub first_error: Option<FirstError>,
}

/// The sums of one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is described at `engine::ledger::Sums`")]
pub struct SumsRow {
    pub available: String,
    pub locked: String,
    pub earned: String,
    pub payable: String,
    pub marked: String,
    pub in_transit: String,
    #[serde(default)]
    pub provisional: String,
    pub fees: String,
    pub suspense: String,
    pub cash: String,
    #[serde(default)]
    pub shortfall: String,
    #[serde(default)]
    pub unexplained: String,
}

impl From<&Sums> for SumsRow {
    fn from(sums: &Sums) -> Self {
        Self {
            available: units(sums.available),
            locked: units(sums.locked),
            earned: units(sums.earned),
            payable: units(sums.payable),
            marked: units(sums.marked),
            in_transit: units(sums.in_transit),
            provisional: units(sums.provisional),
            fees: units(sums.fees),
            suspense: units(sums.suspense),
            cash: units(sums.cash),
            shortfall: units(sums.shortfall),
            unexplained: units(sums.unexplained),
        }
    }
}

/// The sums of every currency.
pub fn sums(ledger: &Ledger) -> BTreeMap<String, SumsRow> {
    ledger.sums().iter().map(|(currency, sums)| (currency.to_string(), sums.into())).collect()
}

/// A commit, by what names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRow {
    /// Its chain.
    pub chain: u64,
    /// Its number.
    pub number: u64,
    /// Its id.
    pub id: Hash,
    /// Its time.
    pub time_ms: u64,
}

impl From<&Commit> for CommitRow {
    fn from(commit: &Commit) -> Self {
        Self { chain: commit.chain, number: commit.number, id: commit.id(), time_ms: commit.time.0 }
    }
}
