//! What the operator is told, and asks: the JSON of `admin.sock` and of the verbs.
//!
//! Amounts are decimal texts in units of the currency, times milliseconds since 1970 in names that end in `_ms`; what does
//! not apply is `null`.

use serde::{Deserialize, Serialize};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::hash::Hash;
use weir_protocol::id::{PaymentId, Reference};

use super::refund::Condition;
use crate::gate::balance::{BalanceState, BalanceView, Totals};

/// One balance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceRow {
    /// Its name.
    pub payment: PaymentId,
    /// What is the matter with it.
    pub state: BalanceState,
    /// Of which currency.
    pub currency: Currency,
    /// What was paid.
    pub paid: Amount,
    /// What requests have used.
    pub drawn: Amount,
    /// What requests under way may use.
    pub reserved: Amount,
    /// What is free.
    pub left: Amount,
    /// Taken for a refund that the hub has not confirmed.
    pub refunding: Amount,
    /// Given back.
    pub refunded: Amount,
    /// The commit's time.
    pub paid_at_ms: u64,
    /// When its receipt was first shown.
    pub shown_at_ms: Option<u64>,
    /// When it was last drawn from.
    pub used_at_ms: Option<u64>,
    /// What the payment was for.
    pub reference: Reference,
}

impl BalanceRow {
    /// As it is kept.
    pub fn of(view: &BalanceView) -> Self {
        Self {
            payment: view.payment.payment_id(),
            state: view.state,
            currency: view.payment.currency,
            paid: view.payment.amount,
            drawn: view.drawn,
            reserved: view.reserved,
            left: view.left,
            refunding: view.refunding,
            refunded: view.refunded,
            paid_at_ms: view.payment.paid_at.0,
            shown_at_ms: view.shown.map(|(at, _)| at.0),
            used_at_ms: (view.used_at != Time(0)).then_some(view.used_at.0),
            reference: view.payment.reference,
        }
    }
}

/// Which balances are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BalancesAsked {
    /// This one alone.
    pub payment: Option<PaymentId>,
    /// Those in this state.
    pub state: Option<BalanceState>,
    /// Those of which this holds.
    pub condition: Option<Condition>,
    /// After the end of an earlier page.
    pub after: String,
    /// At most so many; 0: as many as a page has.
    pub most: usize,
}

/// A page of balances, by time of payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancePage {
    /// The balances.
    pub balances: Vec<BalanceRow>,
    /// Where the next page begins; none: this was the last.
    pub next: Option<String>,
}

/// A refund that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefundAsked {
    /// Of which payment.
    pub payment: PaymentId,
    /// What it must be.
    pub condition: Condition,
}

/// What became of a refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundOutcome {
    /// It would be refunded; nothing was done.
    Planned,
    /// The hub has given it back.
    Refunded,
    /// There was nothing to do.
    Skipped,
    /// The hub refuses it for good; the money is free again.
    Refused,
    /// The payee has too little balance at the hub; the money is free again.
    Insufficient,
    /// The hub cannot be reached; nothing was taken.
    Unreachable,
    /// It was sent and not answered: the money is held, and the same is sent again.
    Unknown,
    /// The balance store failed.
    Failed,
}

impl RefundOutcome {
    /// The word in JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Refunded => "refunded",
            Self::Skipped => "skipped",
            Self::Refused => "refused",
            Self::Insufficient => "insufficient",
            Self::Unreachable => "unreachable",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
        }
    }
}

/// One refund.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refunded {
    /// Of which payment.
    pub payment: PaymentId,
    /// What became of it.
    pub outcome: RefundOutcome,
    /// What is given back with this.
    pub amount: Option<Amount>,
    /// Of which currency.
    pub currency: Option<Currency>,
    /// All that is given back of the payment, with this.
    pub refunded: Option<Amount>,
    /// Why it is not refunded.
    pub why: Option<String>,
    /// The digest of what was signed: sent again, it works once.
    pub act: Option<Hash>,
    /// The number of the hub's commit that holds it.
    pub commit: Option<u64>,
}

impl Refunded {
    pub(super) fn skipped(payment: PaymentId, why: &str) -> Self {
        let (amount, currency, refunded, act, commit) = (None, None, None, None, None);
        let outcome = RefundOutcome::Skipped;
        Self { payment, outcome, amount, currency, refunded, why: Some(why.to_owned()), act, commit }
    }

    pub(super) fn skipped_of(view: &BalanceView, why: &str) -> Self {
        let (currency, refunded) = (Some(view.payment.currency), Some(view.refunded));
        Self { currency, refunded, ..Self::skipped(view.payment.payment_id(), why) }
    }
}

/// Sums over the balances of one currency: `paid` = `drawn` + `reserved` + `left` + `refunding` + `refunded`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotalsRow {
    /// Of which currency.
    pub currency: Currency,
    /// How many balances.
    pub balances: u64,
    /// What was paid.
    pub paid: String,
    /// What requests have used.
    pub drawn: String,
    /// What requests under way may use.
    pub reserved: String,
    /// What is free.
    pub left: String,
    /// The part of `left` whose receipts were never shown.
    pub unshown: String,
    /// Taken for refunds that the hub has not confirmed.
    pub refunding: String,
    /// Given back.
    pub refunded: String,
}

impl TotalsRow {
    pub(super) fn of(currency: Currency, totals: &Totals) -> Self {
        Self {
            currency,
            balances: totals.balances,
            paid: units(totals.paid_nanos),
            drawn: units(totals.drawn_nanos),
            reserved: units(totals.reserved_nanos),
            left: units(totals.left_nanos),
            unshown: units(totals.unshown_nanos),
            refunding: units(totals.refunding_nanos),
            refunded: units(totals.refunded_nanos),
        }
    }
}

/// A sum in units of the currency, as [`Amount`] prints one.
fn units(nanos: u128) -> String {
    const NANOS: u128 = 1_000_000_000;
    let (whole, part) = (nanos / NANOS, nanos % NANOS);
    if part == 0 {
        return whole.to_string();
    }
    let part = format!("{part:09}");
    format!("{whole}.{}", part.trim_end_matches('0'))
}

/// How a gate is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether it runs. If not, this was read from its store, and what only a running one knows is `null`.
    pub running: bool,
    /// The process.
    pub pid: Option<u32>,
    /// Where it listens.
    pub address: Option<String>,
    /// Since when.
    pub started_at_ms: Option<u64>,
    /// Paid requests under way.
    pub in_flight: Option<i64>,
    /// The sums, by currency.
    pub totals: Vec<TotalsRow>,
    /// Payments whose receipt was never shown.
    pub unshown: u64,
    /// The store.
    pub store: StoreStatus,
    /// When the prices in force were read.
    pub prices_read_at_ms: Option<u64>,
    /// The hub's signing key that counts now.
    pub certificate: Option<CertificateStatus>,
    /// The payee's credits; none where the gate has no `home`.
    pub credits: Option<CreditsStatus>,
}

/// The balance store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Balances that are known.
    pub balances: usize,
    /// Requests that are remembered or under way.
    pub draws: usize,
    /// Records that wait to be written.
    pub queued: usize,
    /// Why it takes nothing more; none: it does.
    pub closed: Option<String>,
}

/// A certificate of the hub's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The signing key.
    pub key: String,
    /// From when it counts.
    pub not_before_ms: u64,
    /// Until when.
    pub not_after_ms: u64,
}

/// How far the payee's credits were followed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreditsStatus {
    /// Whether the hub is heard.
    pub connected: bool,
    /// Why not.
    pub why: Option<String>,
    /// Everything up to this commit is noted: its chain.
    pub chain: Option<u64>,
    /// And its number.
    pub number: Option<u64>,
    /// Payments that were noted since the start.
    pub noted: u64,
    /// Payments to the payee since the start that answer no demand that this gate remembers.
    pub foreign: u64,
}

/// What came of reading the prices anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Whether the file's prices are in force.
    pub prices: bool,
    /// Whether it changes something that holds after a restart.
    pub needs_restart: bool,
    /// What is wrong with it: the old prices stay in force.
    pub error: Option<String>,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    #[test]
    fn sums_are_printed_as_amounts_are() {
        for nanos in [0, 1, 10, 1_000_000_000, 1_500_000_000, 123_456_789_012, u64::MAX] {
            assert_eq!(units(u128::from(nanos)), Amount::from_nanos(nanos).to_string());
        }
        assert_eq!(units(u128::from(u64::MAX) + 1), "18446744073.709551616");
    }

    #[test]
    fn asked_balances_and_conditions_are_read_as_they_are_written() {
        let asked: BalancesAsked = serde_json::from_str("{}").unwrap();
        assert_eq!(asked, BalancesAsked::default());
        let text = r#"{"state":"unshown","condition":{"never_shown":5},"most":7}"#;
        let asked: BalancesAsked = serde_json::from_str(text).unwrap();
        assert_eq!(asked.condition, Some(Condition::NeverShown(Time(5))));
        assert_eq!((asked.state, asked.most), (Some(BalanceState::Unshown), 7));
        assert!(serde_json::from_str::<BalancesAsked>(r#"{"unknown":1}"#).is_err());
    }
}
