//! What goes into the store and what it tells: plain values.

use std::fmt;

use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::id::{PaymentId, Reference};

use crate::acts::RefundPlace;

/// A payment that the hub has proven: by a receipt that was checked, or by a credit. All facts are the hub's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payment {
    /// What it was for.
    pub reference: Reference,
    /// How much was paid.
    pub amount: Amount,
    /// The currency.
    pub currency: Currency,
    /// The commit's time.
    pub paid_at: Time,
    /// What a refund names; its payment id names the balance. A receipt says all of it: chain and number of its commit,
    /// the index of its group path, the index of its leaf path.
    pub place: RefundPlace,
}

impl Payment {
    /// The balance's name.
    pub const fn payment_id(&self) -> PaymentId {
        self.place.payment_id
    }
}

/// A payment whose receipt was shown to the gate, and checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// What the receipt proves.
    pub payment: Payment,
    /// What the challenge was for, as the gate names its resources.
    pub resource: [u8; 16],
}

/// What [`show`](super::Balances::show) found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// Whether this receipt was never shown before.
    pub first: bool,
    /// What can be reserved now.
    pub left: Amount,
    /// What the balance was first shown for.
    pub resource: [u8; 16],
}

/// One request's name within a balance: the same request again has the same key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct DrawKey(pub [u8; 32]);

impl fmt::Debug for DrawKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DrawKey({})", hex::encode(self.0))
    }
}

/// What a request wants to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// From which balance.
    pub payment_id: PaymentId,
    /// Which request.
    pub key: DrawKey,
    /// Most that it may cost.
    pub max: Amount,
    /// How long after it was committed the same key is served again and charged nothing. 0: only those that waited for it.
    pub window_ms: u64,
}

/// What units are counted under within a balance: a route with steps of price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Counter(pub [u8; 16]);

/// Most counters of one balance; what is counted under further ones is not remembered, so each of their requests costs as
/// the balance's first does.
pub const MAX_COUNTERS: usize = 64;

/// Units that one request used, and what they are counted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Under what.
    pub counter: Counter,
    /// How many.
    pub units: u64,
}

/// What was drawn by a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// How much.
    pub drawn: Amount,
    /// The same request is served again, and charged nothing, before this time.
    pub until: Time,
    /// What could be reserved right after it.
    pub left: Amount,
}

/// Money that was taken from a balance to be given back. The hub's act names `place` and `refunded_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefundDraw {
    /// Where the payment stands.
    pub place: RefundPlace,
    /// The currency.
    pub currency: Currency,
    /// What is given back with this.
    pub amount: Amount,
    /// All that was given back of the payment, with this: cumulative, as the hub counts.
    pub refunded_total: Amount,
}

/// What is the matter with a balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BalanceState {
    /// The hub credited it; its receipt was never shown.
    Unshown,
    /// Something is left, or reserved.
    Open,
    /// All of it was drawn or refunded.
    Spent,
    /// A refund was taken from it and not yet confirmed.
    Refunding,
}

/// One balance, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalanceView {
    /// The facts.
    pub payment: Payment,
    /// When its receipt was first shown, and for what; none: never.
    pub shown: Option<(Time, [u8; 16])>,
    /// What requests have used.
    pub drawn: Amount,
    /// What requests under way may use.
    pub reserved: Amount,
    /// What can be reserved or refunded.
    pub left: Amount,
    /// Taken for a refund that is not confirmed.
    pub refunding: Amount,
    /// Refunded, confirmed by the hub.
    pub refunded: Amount,
    /// When it was last drawn from; zero: never.
    pub used_at: Time,
    /// In a word.
    pub state: BalanceState,
}

impl BalanceView {
    /// The page after this balance.
    pub const fn page_end(&self) -> PageEnd {
        PageEnd(Some((self.payment.paid_at, self.payment.payment_id())))
    }
}

/// Where a page of a listing ended: the next one begins after it. Balances are listed by time of payment, then by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct PageEnd(pub(super) Option<(Time, PaymentId)>);

/// `TIME-PAYMENT`, the time in milliseconds since 1970; empty for the beginning.
impl fmt::Display for PageEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Some((time, payment_id))) = self else { return Ok(()) };
        write!(f, "{}-{payment_id}", time.0)
    }
}

/// Not the end of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the end of a page: expected `TIME-PAYMENT`")]
pub struct PageEndError;

impl std::str::FromStr for PageEnd {
    type Err = PageEndError;

    fn from_str(text: &str) -> Result<Self, PageEndError> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let (time, payment_id) = text.split_once('-').ok_or(PageEndError)?;
        let time = time.parse().map_err(|_| PageEndError)?;
        Ok(Self(Some((Time(time), payment_id.parse().map_err(|_| PageEndError)?))))
    }
}

/// Sums over the balances of one currency. `paid` = `drawn` + `reserved` + `refunding` + `refunded` + `left`; nanos,
/// 128 bits because they are sums. Balances that were forgotten no longer count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// How many balances.
    pub balances: u64,
    /// What was paid.
    pub paid_nanos: u128,
    /// What requests have used.
    pub drawn_nanos: u128,
    /// What requests under way may use.
    pub reserved_nanos: u128,
    /// Taken for refunds that are not confirmed.
    pub refunding_nanos: u128,
    /// Refunded.
    pub refunded_nanos: u128,
    /// What can be reserved or refunded.
    pub left_nanos: u128,
    /// The part of `left` whose receipts were never shown.
    pub unshown_nanos: u128,
}

/// What became of credits that were noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Noted {
    /// Not known before.
    pub new: usize,
    /// Noted or shown before.
    pub known: usize,
    /// Paid so long ago that the store may have used and forgotten them: left out.
    pub too_old: usize,
}

/// How much the store is at work, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Balances in memory.
    pub balances: usize,
    /// Those that were noted, never shown, and not refunded.
    pub unshown: usize,
    /// Requests that are remembered or under way.
    pub draws: usize,
    /// Reservations that are open or being written.
    pub open: usize,
    /// Requests that wait for the same request's outcome.
    pub waiting: usize,
    /// Records that wait to be written.
    pub queued: usize,
    /// Whether the store takes nothing more.
    pub closed: bool,
}

/// The bounds of a store. All are checked; what is above one is refused, never dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most balances in memory, at 350 to 700 bytes each.
    pub most_balances: usize,
    /// Most requests remembered or under way in all, at about 250 bytes each.
    pub most_draws: usize,
    /// Most requests remembered or under way of one balance.
    pub most_draws_each: usize,
    /// Most reservations open or being written at once.
    pub most_open: usize,
    /// Most requests that wait for the outcome of the same request, in all.
    pub most_waiting: usize,
    /// Most requests that wait for one other.
    pub most_waiting_each: usize,
    /// Most records that wait to be written; draws do not count, each of them had a reservation.
    pub most_queued: usize,
    /// A receipt that was not seen within this time after its payment may no longer be taken, ms. What is used up is
    /// forgotten then.
    pub late_ms: u64,
    /// What is left of a balance is forgotten when it was not used for so long, ms; never less than `late_ms`.
    pub keep_ms: u64,
    /// The log is not compacted below this size, bytes.
    pub compact_bytes: u64,
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

impl Default for Limits {
    fn default() -> Self {
        Self {
            most_balances: 1_000_000,
            most_draws: 1_000_000,
            most_draws_each: 65_536,
            most_open: 65_536,
            most_waiting: 65_536,
            most_waiting_each: 4_096,
            most_queued: 65_536,
            late_ms: 30 * DAY_MS,
            keep_ms: 400 * DAY_MS,
            compact_bytes: 8 << 20,
        }
    }
}
