//! What is kept: reading records back, giving out the whole state page by page, forgetting.

use std::ops::Bound;

use weir_protocol::amount::{Amount, Time};
use weir_protocol::id::PaymentId;

use super::{Balance, Book, Slot, Waiting, views};
use crate::gate::balance::record::{Counted, Draw, Record, Standing};

/// It is looked again for what can be forgotten when payments have come from so much later, ms.
const SWEEP_MS: u64 = 60 * 1000;
/// About how many bytes a balance and a draw take in the log.
const BALANCE_LOG_BYTES: usize = 150;
const DRAW_LOG_BYTES: usize = 100;

impl<W: Waiting> Book<W> {
    /// Takes a record that was read back. An error says what is wrong with it.
    pub(in crate::gate::balance) fn apply(&mut self, record: &Record) -> Result<(), &'static str> {
        match record {
            Record::Standing(standing) => self.apply_standing(standing),
            Record::Draw(draw) => self.apply_draw(draw),
            Record::Counted { draw, counted } => {
                self.apply_draw(draw)?;
                self.apply_units(draw.payment_id, *counted)
            }
            Record::Units { payment_id, counted } => self.apply_units(*payment_id, *counted),
            Record::Refund { payment_id, refund } => {
                let fits = self.change(*payment_id, |balance| {
                    if refund.number > balance.refund.number {
                        balance.refund = *refund;
                    }
                    is_sound(balance)
                });
                fits.ok_or("a refund is of a balance that is not there")?
            }
            Record::Floor(time) => {
                self.floor = self.floor.max(*time);
                Ok(())
            }
        }
    }

    fn apply_standing(&mut self, standing: &Standing) -> Result<(), &'static str> {
        let Standing { payment_id, facts, shown, drawn, used_at, refund } = *standing;
        if self.balances.contains_key(&payment_id) {
            let fits = self.change(payment_id, |balance| {
                if balance.facts != facts {
                    return Err("a balance is there twice with different facts");
                }
                balance.shown = balance.shown.or(shown);
                balance.drawn = balance.drawn.max(drawn);
                balance.used_at = balance.used_at.max(used_at);
                if refund.number > balance.refund.number {
                    balance.refund = refund;
                }
                is_sound(balance)
            });
            return fits.unwrap_or(Ok(()));
        }
        let balance = Balance { shown, drawn, used_at, refund, logged: true, ..Balance::new(facts) };
        is_sound(&balance)?;
        self.add(payment_id, balance);
        Ok(())
    }

    fn apply_units(&mut self, payment_id: PaymentId, counted: Counted) -> Result<(), &'static str> {
        let balance = self.balances.get_mut(&payment_id).ok_or("units are of a balance that is not there")?;
        balance.count(counted);
        Ok(())
    }

    fn apply_draw(&mut self, draw: &Draw) -> Result<(), &'static str> {
        let Draw { payment_id, key, drawn, drawn_total, at, until } = *draw;
        let mut replaced = None;
        let fits = self.change(payment_id, |balance| {
            balance.drawn = balance.drawn.max(drawn_total);
            balance.used_at = balance.used_at.max(at);
            if until > at {
                match balance.slots.get(&key) {
                    // The same request, drawn again after its window: the later one counts.
                    Some(Slot::Drawn { at: known, .. }) if *known > at => {}
                    known => {
                        replaced = Some(match known {
                            Some(Slot::Drawn { until, .. }) => Some(*until),
                            _ => None,
                        });
                        balance.slots.insert(key, Slot::Drawn { drawn, at, until });
                    }
                }
            }
            if drawn > balance.drawn { Err("a request drew more than its balance") } else { is_sound(balance) }
        });
        if let Some(replaced) = replaced {
            if let Some(until) = replaced {
                self.expiring.remove(&(until, payment_id, key));
            } else {
                self.draws += 1;
            }
            self.expiring.insert((until, payment_id, key));
        }
        fits.ok_or("a draw is of a balance that is not there")?
    }

    /// Writes out the next balances after a place, at most so many, with what is remembered of them. Where to go on;
    /// `None`: that was all.
    pub(in crate::gate::balance) fn page(
        &self,
        after: Option<(Time, PaymentId)>,
        most: usize,
        out: &mut Vec<Record>,
    ) -> Option<(Time, PaymentId)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        for (count, place) in self.by_time.range((from, Bound::Unbounded)).enumerate() {
            if count >= most {
                return last;
            }
            last = Some(*place);
            let id = place.1;
            let Some(balance) = self.balances.get(&id) else { continue };
            out.push(Record::Standing(balance.standing(id)));
            out.extend(balance.counters.iter().map(|counted| Record::Units { payment_id: id, counted: *counted }));
            out.extend(balance.slots.iter().filter_map(|(key, slot)| match *slot {
                Slot::Open { .. } => None,
                // Its balance stands as if it was written already, so it goes with it.
                Slot::Writing { drawn, at, until, .. } | Slot::Drawn { drawn, at, until } => {
                    let drawn_total = balance.drawn;
                    Some(Record::Draw(Draw { payment_id: id, key: *key, drawn, drawn_total, at, until }))
                }
            }));
        }
        None
    }

    /// Whether a record must follow the pages up to a place. Its balance was on one of them, or came later and is in the
    /// records itself; what lies beyond will be on a page as it stands by then.
    pub(in crate::gate::balance) fn is_past(&self, record: &Record, place: Option<(Time, PaymentId)>) -> bool {
        let id = match record {
            Record::Standing(standing) => standing.payment_id,
            Record::Draw(draw) | Record::Counted { draw, .. } => draw.payment_id,
            Record::Refund { payment_id, .. } | Record::Units { payment_id, .. } => *payment_id,
            Record::Floor(_) => return true,
        };
        place.is_some_and(|place| self.balances.get(&id).is_some_and(|balance| (balance.facts.paid_at, id) <= place))
    }

    /// Payments from before it, unless they are in the book, are not taken.
    pub(in crate::gate::balance) const fn floor(&self) -> Time {
        self.floor
    }

    /// About how large a log of nothing but the state is.
    pub(in crate::gate::balance) fn log_bytes(&self) -> u64 {
        (self.balances.len() * BALANCE_LOG_BYTES + self.draws * DRAW_LOG_BYTES) as u64
    }

    /// Forgets what was used up long ago and what was left over very long ago; from now on no payment of that time is
    /// taken as new. How many were forgotten.
    pub(in crate::gate::balance) fn forget(&mut self) -> usize {
        if self.newest < self.swept.plus_ms(SWEEP_MS) {
            return 0;
        }
        self.swept = self.newest;
        let floor = self.newest.minus_ms(self.limits.late_ms).max(self.floor);
        let unused = self.newest.minus_ms(self.limits.keep_ms.max(self.limits.late_ms));
        let old = self.by_time.range(..(floor, PaymentId::ZERO));
        let gone: Vec<(Time, PaymentId)> = old
            .filter(|(_, id)| {
                self.balances.get(id).is_some_and(|balance| {
                    let used_at = balance.used_at.max(balance.facts.paid_at);
                    let quiet = balance.slots.is_empty() && balance.queued == 0 && balance.refunding().is_zero();
                    quiet && (balance.left().is_zero() || used_at < unused)
                })
            })
            .copied()
            .collect();
        self.floor = floor;
        for place in &gone {
            self.by_time.remove(place);
            self.unshown.remove(place);
            if let Some(balance) = self.balances.remove(&place.1) {
                let totals = views::totals_of(&mut self.totals, balance.facts.currency);
                totals.balances -= 1;
                views::Parts::of(&balance).leave(totals);
            }
        }
        gone.len()
    }
}

fn is_sound<W>(balance: &Balance<W>) -> Result<(), &'static str> {
    let refund = &balance.refund;
    if refund.confirmed > refund.total || balance.checked_left().is_none() || balance.reserved != Amount::ZERO {
        return Err("more was taken from a balance than was paid");
    }
    Ok(())
}
