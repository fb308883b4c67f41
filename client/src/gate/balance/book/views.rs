//! What the book tells: pages, sums, counts.

use std::ops::Bound;

use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::id::PaymentId;

use super::{Balance, Book, Waiting};
use crate::gate::balance::types::{BalanceState, BalanceView, Load, PageEnd, RefundDraw, Totals};

/// What a balance adds to the sums and indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts {
    amount: Amount,
    drawn: Amount,
    reserved: Amount,
    refunding: Amount,
    refunded: Amount,
    left: Amount,
    is_shown: bool,
}

impl Parts {
    pub(super) fn of<W>(balance: &Balance<W>) -> Self {
        Self {
            amount: balance.facts.amount,
            drawn: balance.drawn,
            reserved: balance.reserved,
            refunding: balance.refunding(),
            refunded: balance.refund.confirmed,
            left: balance.left(),
            is_shown: balance.shown.is_some(),
        }
    }

    /// Something is left of it that was never shown.
    pub(super) const fn is_unshown(&self) -> bool {
        !self.is_shown && !self.left.is_zero()
    }

    pub(super) const fn is_refunding(&self) -> bool {
        !self.refunding.is_zero()
    }

    fn fields<'a>(&self, totals: &'a mut Totals) -> [(&'a mut u128, Amount); 7] {
        let unshown = if self.is_unshown() { self.left } else { Amount::ZERO };
        [
            (&mut totals.paid_nanos, self.amount),
            (&mut totals.drawn_nanos, self.drawn),
            (&mut totals.reserved_nanos, self.reserved),
            (&mut totals.refunding_nanos, self.refunding),
            (&mut totals.refunded_nanos, self.refunded),
            (&mut totals.left_nanos, self.left),
            (&mut totals.unshown_nanos, unshown),
        ]
    }

    pub(super) fn join(&self, totals: &mut Totals) {
        for (sum, part) in self.fields(totals) {
            *sum += u128::from(part.nanos());
        }
    }

    /// Takes back what `join` added.
    pub(super) fn leave(&self, totals: &mut Totals) {
        for (sum, part) in self.fields(totals) {
            *sum -= u128::from(part.nanos());
        }
    }
}

/// A currency's sums; a gate takes a handful of currencies, so a search is as quick as a map.
pub(super) fn totals_of(totals: &mut Vec<(Currency, Totals)>, currency: Currency) -> &mut Totals {
    let at = totals.iter().position(|(known, _)| *known == currency).unwrap_or_else(|| {
        totals.push((currency, Totals::default()));
        totals.len() - 1
    });
    &mut totals[at].1
}

impl<W: Waiting> Book<W> {
    /// One balance.
    pub(in crate::gate::balance) fn view(&self, id: PaymentId) -> Option<BalanceView> {
        self.balances.get(&id).map(|balance| view(id, balance))
    }

    /// The balances after a place, at most so many.
    pub(in crate::gate::balance) fn list(&self, after: PageEnd, most: usize) -> Vec<BalanceView> {
        let places = self.by_time.range((start(after), Bound::Unbounded)).take(most);
        places.filter_map(|(_, id)| self.view(*id)).collect()
    }

    /// The same of balances that were paid before a time, never shown, and of which something is left.
    pub(in crate::gate::balance) fn never_shown(
        &self,
        paid_before: Time,
        after: PageEnd,
        most: usize,
    ) -> Vec<BalanceView> {
        let places = self.unshown.range((start(after), Bound::Unbounded)).take(most);
        places.take_while(|(paid_at, _)| *paid_at < paid_before).filter_map(|(_, id)| self.view(*id)).collect()
    }

    /// Refunds that are not confirmed, by payment id, after one.
    pub(in crate::gate::balance) fn refunds(&self, after: Option<PaymentId>, most: usize) -> Vec<RefundDraw> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let ids = self.refunding.range((from, Bound::Unbounded)).take(most);
        ids.filter_map(|id| Some(super::refund::draw(*id, self.balances.get(id)?))).collect()
    }

    /// The sums of each currency.
    pub(in crate::gate::balance) fn totals(&self) -> Vec<(Currency, Totals)> {
        self.totals.clone()
    }

    /// The counts. What is queued is not the book's.
    pub(in crate::gate::balance) fn load(&self) -> Load {
        Load {
            balances: self.balances.len(),
            unshown: self.unshown.len(),
            draws: self.draws,
            open: self.open,
            waiting: self.waiting,
            queued: 0,
            closed: false,
        }
    }
}

fn start(after: PageEnd) -> Bound<(Time, PaymentId)> {
    after.0.map_or(Bound::Unbounded, Bound::Excluded)
}

fn view<W>(id: PaymentId, balance: &Balance<W>) -> BalanceView {
    let parts = Parts::of(balance);
    let state = if parts.is_refunding() {
        BalanceState::Refunding
    } else if parts.is_unshown() {
        BalanceState::Unshown
    } else if parts.left.is_zero() && parts.reserved.is_zero() {
        BalanceState::Spent
    } else {
        BalanceState::Open
    };
    BalanceView {
        payment: balance.facts.payment(id),
        shown: balance.shown.map(|shown| (shown.at, shown.resource)),
        drawn: parts.drawn,
        reserved: parts.reserved,
        left: parts.left,
        refunding: parts.refunding,
        refunded: parts.refunded,
        used_at: balance.used_at,
        state,
    }
}
