//! The state machine of the store: balances, reservations, draws, and who waits for whom. Pure: time is an argument, and
//! what must be written is handed back as records; it knows no file, no thread and no task.
//!
//! Held at all times, for each balance: drawn + reserved + taken for refunds ≤ amount; and for each key at most one
//! reservation.

mod keep;
mod refund;
mod views;

use std::collections::{BTreeSet, HashMap, VecDeque};

use foldhash::fast::RandomState;
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::id::PaymentId;

use super::error::{Bound, ReserveError, ShowError, TooMany};
use super::record::{Counted, Draw, Facts, Record, RefundState, ShownFor, Standing};
use super::types::{Ask, Count, Counter, Credit, DrawKey, Drawn, Limits, MAX_COUNTERS, Shown, Totals};

pub(super) use self::refund::Note;

/// How many remembered requests whose window is over are dropped at one call: more than one call adds.
const PURGED_AT_ONCE: usize = 4;

/// Somebody who waits for an outcome.
pub(super) trait Waiting {
    /// Whether he has gone.
    fn is_gone(&self) -> bool;
}

#[derive(Debug)]
pub(super) struct Waiter<W> {
    pub(super) who: W,
    max: Amount,
    window_ms: u64,
}

#[derive(Debug)]
struct Waiters<W>(VecDeque<Waiter<W>>);

/// What is known of one request of a balance.
#[derive(Debug)]
enum Slot<W> {
    /// Under way.
    Open { reserved: Amount, waiters: Option<Box<Waiters<W>>> },
    /// Committed, and being written.
    Writing { drawn: Amount, at: Time, until: Time, waiters: Option<Box<Waiters<W>>> },
    /// Durable; served again before `until`.
    Drawn { drawn: Amount, at: Time, until: Time },
}

#[derive(Debug)]
struct Balance<W> {
    facts: Facts,
    shown: Option<ShownFor>,
    drawn: Amount,
    reserved: Amount,
    used_at: Time,
    refund: RefundState,
    slots: HashMap<DrawKey, Slot<W>, RandomState>,
    /// Units that were used, at most [`MAX_COUNTERS`] of them.
    counters: Vec<Counted>,
    /// Records about it, besides draws, that wait to be written: it must not be forgotten meanwhile.
    queued: u32,
    /// Whether `facts` and `shown` are in the log, or on their way into it.
    logged: bool,
}

impl<W> Balance<W> {
    fn new(facts: Facts) -> Self {
        Self {
            facts,
            shown: None,
            drawn: Amount::ZERO,
            reserved: Amount::ZERO,
            used_at: Time(0),
            refund: RefundState::default(),
            slots: HashMap::default(),
            counters: Vec::new(),
            queued: 0,
            logged: false,
        }
    }

    /// What is neither drawn nor reserved nor taken for a refund. `None` would be more of these than was paid.
    fn checked_left(&self) -> Option<Amount> {
        let left = self.facts.amount.checked_sub(self.drawn).ok()?;
        left.checked_sub(self.reserved).ok()?.checked_sub(self.refund.total).ok()
    }

    /// The same; nothing, should the invariant be broken.
    fn left(&self) -> Amount {
        self.checked_left().unwrap_or(Amount::ZERO)
    }

    fn refunding(&self) -> Amount {
        self.refund.total.checked_sub(self.refund.confirmed).unwrap_or(Amount::ZERO)
    }

    fn standing(&self, payment_id: PaymentId) -> Standing {
        Standing {
            payment_id,
            facts: self.facts,
            shown: self.shown,
            drawn: self.drawn,
            used_at: self.used_at,
            refund: self.refund,
        }
    }

    /// Units that were used under a counter.
    fn units(&self, counter: Counter) -> u64 {
        self.counters.iter().find(|counted| counted.counter == counter).map_or(0, |counted| counted.total)
    }

    /// Takes a count, if it is the greatest and there is room for it; whether it is remembered.
    fn count(&mut self, counted: Counted) -> bool {
        if let Some(known) = self.counters.iter_mut().find(|known| known.counter == counted.counter) {
            known.total = known.total.max(counted.total);
            return true;
        }
        let has_room = self.counters.len() < MAX_COUNTERS;
        if has_room {
            self.counters.push(counted);
        }
        has_room
    }

    /// The record that brings the balance itself into the log, if it is not there: of where it stands now, so it is
    /// asked for before anything is changed.
    fn log(&mut self, payment_id: PaymentId) -> Option<Record> {
        if std::mem::replace(&mut self.logged, true) { None } else { Some(Record::Standing(self.standing(payment_id))) }
    }
}

/// What `reserve` came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// `max` is reserved.
    New,
    /// This request was drawn before.
    Again(Drawn),
    /// The same request is under way; the waiter was taken.
    Wait,
}

/// What became of those who waited for a reservation that was released.
#[derive(Debug)]
pub(super) struct HandedOn<W> {
    /// Has the reservation now: who, how much, its window.
    pub(super) to: Option<(W, Amount, u64)>,
    /// Asked for more than is left.
    pub(super) refused: Vec<(W, ReserveError)>,
}

/// What is to be written before a draw counts, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) records: [Option<Record>; 2],
    pub(super) drawn: Drawn,
}

/// All balances.
#[derive(Debug)]
pub(super) struct Book<W> {
    limits: Limits,
    balances: HashMap<PaymentId, Balance<W>, RandomState>,
    /// All balances in the order in which they are listed and forgotten.
    by_time: BTreeSet<(Time, PaymentId)>,
    /// Those whose receipt was never shown and of which something is left.
    unshown: BTreeSet<(Time, PaymentId)>,
    /// Those with a refund that is not confirmed.
    refunding: BTreeSet<PaymentId>,
    /// Remembered requests by the end of their window.
    expiring: BTreeSet<(Time, PaymentId, DrawKey)>,
    totals: Vec<(Currency, Totals)>,
    /// All slots; those that are open or being written; all waiters.
    draws: usize,
    open: usize,
    waiting: usize,
    /// Payments from before it that are not in the book are not taken: they may have been used and forgotten.
    floor: Time,
    /// The newest payment's time: the clock of forgetting. It is the hub's, so a wrong clock here forgets nothing.
    newest: Time,
    /// `newest` when it was last looked for what can be forgotten.
    swept: Time,
}

impl<W: Waiting> Book<W> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            balances: HashMap::default(),
            by_time: BTreeSet::new(),
            unshown: BTreeSet::new(),
            refunding: BTreeSet::new(),
            expiring: BTreeSet::new(),
            totals: Vec::new(),
            draws: 0,
            open: 0,
            waiting: 0,
            floor: Time(0),
            newest: Time(0),
            swept: Time(0),
        }
    }

    /// Changes a balance and keeps sums and indexes with it.
    fn change<T>(&mut self, id: PaymentId, change: impl FnOnce(&mut Balance<W>) -> T) -> Option<T> {
        let balance = self.balances.get_mut(&id)?;
        let before = views::Parts::of(balance);
        let result = change(balance);
        let after = views::Parts::of(balance);
        if before != after {
            let (currency, place) = (balance.facts.currency, (balance.facts.paid_at, id));
            if before.is_unshown() != after.is_unshown() {
                if after.is_unshown() {
                    self.unshown.insert(place)
                } else {
                    self.unshown.remove(&place)
                };
            }
            if before.is_refunding() != after.is_refunding() {
                if after.is_refunding() {
                    self.refunding.insert(id)
                } else {
                    self.refunding.remove(&id)
                };
            }
            let totals = views::totals_of(&mut self.totals, currency);
            before.leave(totals);
            after.join(totals);
        }
        Some(result)
    }

    /// Makes room for and adds a balance that is not there.
    fn add(&mut self, id: PaymentId, balance: Balance<W>) {
        let parts = views::Parts::of(&balance);
        let place = (balance.facts.paid_at, id);
        self.newest = self.newest.max(balance.facts.paid_at);
        let totals = views::totals_of(&mut self.totals, balance.facts.currency);
        totals.balances += 1;
        parts.join(totals);
        self.by_time.insert(place);
        if parts.is_unshown() {
            self.unshown.insert(place);
        }
        if parts.is_refunding() {
            self.refunding.insert(id);
        }
        self.draws += balance.slots.len();
        self.balances.insert(id, balance);
    }

    fn has_room(&mut self) -> Result<(), TooMany> {
        let limit = self.limits.most_balances;
        if self.balances.len() >= limit {
            self.forget();
        }
        if self.balances.len() < limit { Ok(()) } else { Err(TooMany { what: Bound::Balances, limit }) }
    }

    /// Registers a receipt that was checked.
    pub(super) fn show(&mut self, credit: &Credit, now: Time) -> Result<Shown, ShowError> {
        self.purge(now, PURGED_AT_ONCE);
        let id = credit.payment.payment_id();
        let facts = Facts::of(&credit.payment);
        let shown = ShownFor { at: now, resource: credit.resource };
        if let Some(balance) = self.balances.get(&id) {
            if balance.facts != facts || balance.shown.is_some_and(|known| known.resource != credit.resource) {
                return Err(ShowError::Differs(id));
            }
            let (first, left) = (balance.shown.is_none(), balance.left());
            if first {
                self.change(id, |balance| {
                    balance.shown = Some(shown);
                    balance.logged = false;
                });
            }
            return Ok(Shown { first, left, resource: credit.resource });
        }
        if facts.paid_at < self.floor {
            return Err(ShowError::TooOld { taken_from: self.floor });
        }
        self.has_room()?;
        self.add(id, Balance { shown: Some(shown), ..Balance::new(facts) });
        Ok(Shown { first: true, left: facts.amount, resource: credit.resource })
    }

    /// Reserves, says that it was drawn before, or takes the waiter that `waiter` makes.
    pub(super) fn reserve(&mut self, ask: &Ask, now: Time, waiter: impl FnOnce() -> W) -> Result<Step, ReserveError> {
        if self.draws >= self.limits.most_draws {
            self.purge(now, usize::MAX);
        }
        let unknown = ReserveError::Unknown(ask.payment_id);
        let balance =
            self.balances.get_mut(&ask.payment_id).filter(|balance| balance.shown.is_some()).ok_or(unknown)?;
        let left = balance.left();
        let mut over = None;
        match balance.slots.get_mut(&ask.key) {
            Some(Slot::Drawn { drawn, until, .. }) if *until > now => {
                return Ok(Step::Again(Drawn { drawn: *drawn, until: *until, left }));
            }
            Some(Slot::Drawn { until, .. }) => over = Some(*until),
            Some(Slot::Open { waiters, .. } | Slot::Writing { waiters, .. }) => {
                let Waiters(waiters) = &mut **waiters.get_or_insert_with(|| Box::new(Waiters(VecDeque::new())));
                let each = self.limits.most_waiting_each;
                if waiters.len() >= each || self.waiting >= self.limits.most_waiting {
                    let before = waiters.len();
                    waiters.retain(|waiter| !waiter.who.is_gone());
                    self.waiting -= before - waiters.len();
                }
                bound(Bound::WaitingForOne, waiters.len(), each)?;
                bound(Bound::Waiting, self.waiting, self.limits.most_waiting)?;
                waiters.push_back(Waiter { who: waiter(), max: ask.max, window_ms: ask.window_ms });
                self.waiting += 1;
                return Ok(Step::Wait);
            }
            None => {}
        }
        if ask.max > left {
            return Err(short(balance, ask.max, over));
        }
        bound(Bound::Open, self.open, self.limits.most_open)?;
        if over.is_none() {
            bound(Bound::Draws, self.draws, self.limits.most_draws)?;
            bound(Bound::DrawsOfBalance, balance.slots.len(), self.limits.most_draws_each)?;
        }
        if let Some(until) = over {
            self.expiring.remove(&(until, ask.payment_id, ask.key));
        } else {
            self.draws += 1;
        }
        self.open += 1;
        self.change(ask.payment_id, |balance| {
            // Not above `left`, so the sum is not above the amount.
            balance.reserved = balance.reserved.checked_add(ask.max).unwrap_or(Amount::MAX);
            balance.slots.insert(ask.key, Slot::Open { reserved: ask.max, waiters: None });
        });
        Ok(Step::New)
    }

    /// Gives a reservation back, or on to the first who waits for it and for whom enough is left.
    pub(super) fn release(&mut self, id: PaymentId, key: DrawKey) -> HandedOn<W> {
        let mut handed = HandedOn { to: None, refused: Vec::new() };
        let mut taken = 0;
        let freed = self.change(id, |balance| {
            let Some(Slot::Open { reserved, waiters }) = balance.slots.get_mut(&key) else { return false };
            balance.reserved = balance.reserved.checked_sub(*reserved).unwrap_or(Amount::ZERO);
            *reserved = Amount::ZERO;
            let mut waiters = waiters.take();
            while let Some(waiter) = waiters.as_mut().and_then(|waiters| waiters.0.pop_front()) {
                taken += 1;
                if waiter.max > balance.left() {
                    handed.refused.push((waiter.who, short(balance, waiter.max, None)));
                    continue;
                }
                balance.reserved = balance.reserved.checked_add(waiter.max).unwrap_or(Amount::MAX);
                balance.slots.insert(key, Slot::Open { reserved: waiter.max, waiters });
                handed.to = Some((waiter.who, waiter.max, waiter.window_ms));
                return false;
            }
            drop_slot(balance, &key);
            true
        });
        if freed == Some(true) {
            self.open -= 1;
            self.draws -= 1;
        }
        self.waiting -= taken;
        handed
    }

    /// What a reservation holds; none: there is no such reservation.
    pub(super) fn reserved(&self, id: PaymentId, key: DrawKey) -> Option<Amount> {
        match self.balances.get(&id)?.slots.get(&key)? {
            Slot::Open { reserved, .. } => Some(*reserved),
            Slot::Writing { .. } | Slot::Drawn { .. } => None,
        }
    }

    /// Units of a balance that were used under a counter, by requests that are committed.
    pub(super) fn units(&self, id: PaymentId, counter: Counter) -> u64 {
        self.balances.get(&id).map_or(0, |balance| balance.units(counter))
    }

    /// Draws from a reservation what was used of it; the rest is free again. `None`: more than reserved, or there is no
    /// such reservation; nothing is changed. Until [`Self::written`] nobody else hears of it. Units are counted with it.
    pub(super) fn commit(
        &mut self,
        id: PaymentId,
        key: DrawKey,
        used: Amount,
        count: Option<Count>,
        window_ms: u64,
        now: Time,
    ) -> Option<Committed> {
        self.purge(now, PURGED_AT_ONCE);
        if self.reserved(id, key).is_none_or(|reserved| used > reserved) {
            return None;
        }
        let until = now.plus_ms(window_ms);
        let committed = self.change(id, |balance| {
            let Some(Slot::Open { reserved, waiters }) = balance.slots.get_mut(&key) else { return None };
            let (reserved, waiters) = (*reserved, waiters.take());
            balance.slots.insert(key, Slot::Writing { drawn: used, at: now, until, waiters });
            // Nothing drawn and nothing to remember needs no record.
            let count = count.filter(|count| count.units > 0);
            let write = !used.is_zero() || window_ms > 0 || count.is_some();
            let standing = if write { balance.log(id) } else { None };
            balance.reserved = balance.reserved.checked_sub(reserved).ok()?;
            balance.drawn = balance.drawn.checked_add(used).ok()?;
            balance.used_at = balance.used_at.max(now);
            let draw = Draw { payment_id: id, key, drawn: used, drawn_total: balance.drawn, at: now, until };
            let counted = count.map(|Count { counter, units }| {
                let total = balance.units(counter).saturating_add(units);
                Counted { counter, total }
            });
            let record = match counted.filter(|counted| balance.count(*counted)) {
                Some(counted) => Record::Counted { draw, counted },
                None => Record::Draw(draw),
            };
            let drawn = Drawn { drawn: used, until, left: balance.left() };
            Some(Committed { records: [standing, write.then_some(record)], drawn })
        });
        committed.flatten()
    }

    /// A draw is durable: it is remembered for its window, and those who waited for it are handed over with what they
    /// hear.
    pub(super) fn written(&mut self, id: PaymentId, key: DrawKey) -> (Drawn, Vec<W>) {
        let mut outcome = Drawn { drawn: Amount::ZERO, until: Time(0), left: Amount::ZERO };
        let Some(balance) = self.balances.get_mut(&id) else { return (outcome, Vec::new()) };
        let left = balance.left();
        let Some(slot) = balance.slots.get_mut(&key) else { return (outcome, Vec::new()) };
        let Slot::Writing { drawn, at, until, waiters } = slot else { return (outcome, Vec::new()) };
        let (drawn, at, until, waiters) = (*drawn, *at, *until, waiters.take());
        outcome = Drawn { drawn, until, left };
        self.open -= 1;
        if until > at {
            *slot = Slot::Drawn { drawn, at, until };
            self.expiring.insert((until, id, key));
        } else {
            drop_slot(balance, &key);
            self.draws -= 1;
        }
        let waiters: Vec<W> =
            waiters.map(|waiters| waiters.0.into_iter().map(|waiter| waiter.who).collect()).unwrap_or_default();
        self.waiting -= waiters.len();
        (outcome, waiters)
    }

    /// Everybody who waits for anything: the store is closed.
    pub(super) fn give_up(&mut self) -> Vec<W> {
        let mut gone = Vec::new();
        for balance in self.balances.values_mut() {
            for slot in balance.slots.values_mut() {
                if let Slot::Open { waiters, .. } | Slot::Writing { waiters, .. } = slot
                    && let Some(waiters) = waiters.take()
                {
                    gone.extend(waiters.0.into_iter().map(|waiter| waiter.who));
                }
            }
        }
        self.waiting = 0;
        gone
    }

    /// Forgets requests whose window is over, so many at most.
    fn purge(&mut self, now: Time, most: usize) {
        for _ in 0..most {
            let Some((until, id, key)) = self.expiring.first().copied().filter(|(until, ..)| *until <= now) else {
                return;
            };
            self.expiring.remove(&(until, id, key));
            if let Some(balance) = self.balances.get_mut(&id) {
                drop_slot(balance, &key);
                self.draws -= 1;
            }
        }
    }
}

/// Takes a slot out, and gives the memory back with the last one: most balances have one draw in their life.
fn drop_slot<W>(balance: &mut Balance<W>, key: &DrawKey) {
    balance.slots.remove(key);
    if balance.slots.is_empty() {
        balance.slots = HashMap::default();
    }
}

fn short<W>(balance: &Balance<W>, asked: Amount, over: Option<Time>) -> ReserveError {
    let left = balance.left();
    if left.is_zero() && balance.reserved.is_zero() {
        ReserveError::Spent { over }
    } else {
        ReserveError::Insufficient { left, reserved: balance.reserved, asked }
    }
}

fn bound(what: Bound, count: usize, limit: usize) -> Result<(), TooMany> {
    if count < limit { Ok(()) } else { Err(TooMany { what, limit }) }
}
