//! What may be spent: hard limits, asked before anything is signed.
//!
//! Pure: time is an argument, and whoever owns a [`Budget`] holds its one lock. An amount is reserved before the payment
//! and released only when it is known that nothing was paid; what is unknown stays reserved. A period is a fixed span
//! counted from 1970 (a day is a day in UTC), and it never goes back when a clock does. Must not keep files: what other
//! processes of the home spent is told with [`Budget::adopt`].

use std::collections::BTreeMap;

use weir_protocol::amount::{Amount, Currency, Time};

/// A day.
pub const DAY_MS: u64 = 86_400_000;
/// Most hosts that are counted apart in a period; a further one is refused when there is a limit for each host.
pub const MAX_HOSTS: usize = 16_384;

/// Limits of one currency. What is `None` has no limit; a currency without limits is not spent at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Most that one request may cost. Prepaying may pay more at once; the others bound that.
    pub per_request: Option<Amount>,
    /// Most that one host is paid in a period.
    pub per_host: Option<Amount>,
    /// Most in a period, by all processes of the home.
    pub per_period: Option<Amount>,
    /// Most by this process.
    pub in_all: Option<Amount>,
}

/// Why something is not paid. Nothing was reserved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// The currency has no limits here.
    #[error("nothing may be spent in {0}")]
    Currency(Currency),
    /// The price is above the most for one request.
    #[error("the price, {price}, is above the most for one request, {limit}")]
    Request {
        /// The price.
        price: Amount,
        /// The limit.
        limit: Amount,
    },
    /// The host's share of the period is spent.
    #[error("`{host}` would be paid {after} in this period, and the limit for each host is {limit}")]
    Host {
        /// The host.
        host: String,
        /// What it would come to.
        after: Amount,
        /// The limit.
        limit: Amount,
    },
    /// The period's budget is spent.
    #[error("{after} would be spent in this period, and the budget is {limit}")]
    Period {
        /// What it would come to.
        after: Amount,
        /// The limit.
        limit: Amount,
    },
    /// This process's budget is spent.
    #[error("{after} would be spent in all, and the budget is {limit}")]
    All {
        /// What it would come to.
        after: Amount,
        /// The limit.
        limit: Amount,
    },
    /// More hosts than are counted.
    #[error("more than {MAX_HOSTS} hosts were paid in this period")]
    Hosts,
    /// A sum that no amount can hold.
    #[error("the sum of what was spent is too large")]
    Overflow,
}

/// A payment as the budget sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spend {
    /// Who is paid, as the URL names it.
    pub host: String,
    /// Of which currency.
    pub currency: Currency,
    /// What the request costs.
    pub price: Amount,
    /// What is paid: the price, or more when prepaying.
    pub amount: Amount,
}

impl Held {
    /// The same, counted for this process or not, and for an amount that was counted elsewhere.
    pub(super) fn of(self, own: bool, amount: Amount) -> Self {
        Self { own, amount, ..self }
    }
}

/// What was reserved; given back to [`Budget::release`], or kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "what is reserved stays reserved until it is released"]
pub struct Held {
    /// The period that it counts for.
    pub period: u64,
    /// Whether it counts for this process.
    own: bool,
    host: String,
    currency: Currency,
    amount: Amount,
}

#[derive(Debug, Clone, Default)]
struct Book {
    total: Amount,
    hosts: BTreeMap<String, Amount>,
}

/// Limits, and what was spent.
#[derive(Debug, Clone)]
pub struct Budget {
    limits: BTreeMap<Currency, Limits>,
    period_ms: u64,
    period: u64,
    books: BTreeMap<Currency, Book>,
    own: BTreeMap<Currency, Amount>,
}

impl Budget {
    /// With limits by currency, and a period in milliseconds ([`DAY_MS`]; zero counts as one).
    pub fn new(limits: BTreeMap<Currency, Limits>, period_ms: u64) -> Self {
        Self { limits, period_ms: period_ms.max(1), period: 0, books: BTreeMap::new(), own: BTreeMap::new() }
    }

    /// The limits of a currency.
    pub fn limits(&self, currency: Currency) -> Option<&Limits> {
        self.limits.get(&currency)
    }

    /// The most that any request may cost, in whatever currency.
    pub fn per_request(&self) -> Option<Amount> {
        self.limits.values().filter_map(|limits| limits.per_request).min()
    }

    /// Whether this may be spent now. Reserves nothing.
    pub fn check(&self, now: Time, spend: &Spend) -> Result<(), BudgetError> {
        let limits = self.limits.get(&spend.currency).ok_or(BudgetError::Currency(spend.currency))?;
        if let Some(limit) = limits.per_request.filter(|limit| spend.price > *limit) {
            return Err(BudgetError::Request { price: spend.price, limit });
        }
        let new = Book::default();
        let book = if self.number(now) > self.period { &new } else { self.books.get(&spend.currency).unwrap_or(&new) };
        let add = |to: Amount| to.checked_add(spend.amount).map_err(|_| BudgetError::Overflow);
        let after = add(book.hosts.get(&spend.host).copied().unwrap_or_default())?;
        if let Some(limit) = limits.per_host {
            if after > limit {
                return Err(BudgetError::Host { host: spend.host.clone(), after, limit });
            }
            if !book.hosts.contains_key(&spend.host) && book.hosts.len() >= MAX_HOSTS {
                return Err(BudgetError::Hosts);
            }
        }
        let after = add(book.total)?;
        if let Some(limit) = limits.per_period.filter(|limit| after > *limit) {
            return Err(BudgetError::Period { after, limit });
        }
        let after = add(self.own.get(&spend.currency).copied().unwrap_or_default())?;
        match limits.in_all.filter(|limit| after > *limit) {
            Some(limit) => Err(BudgetError::All { after, limit }),
            None => Ok(()),
        }
    }

    /// Reserves, or says which limit is in the way.
    pub fn reserve(&mut self, now: Time, spend: &Spend) -> Result<Held, BudgetError> {
        self.check(now, spend)?;
        self.turn(self.number(now));
        self.count(&spend.host, spend.currency, spend.amount);
        let own = self.own.entry(spend.currency).or_default();
        *own = own.checked_add(spend.amount).unwrap_or(Amount::MAX);
        Ok(Held {
            period: self.period,
            own: true,
            host: spend.host.clone(),
            currency: spend.currency,
            amount: spend.amount,
        })
    }

    /// Nothing was paid: what was reserved is free again, in its own period.
    pub fn release(&mut self, held: &Held) {
        if held.own
            && let Some(own) = self.own.get_mut(&held.currency)
        {
            *own = own.checked_sub(held.amount).unwrap_or_default();
        }
        if held.period != self.period {
            return;
        }
        let Some(book) = self.books.get_mut(&held.currency) else { return };
        book.total = book.total.checked_sub(held.amount).unwrap_or_default();
        if let Some(host) = book.hosts.get_mut(&held.host) {
            *host = host.checked_sub(held.amount).unwrap_or_default();
            if host.is_zero() {
                book.hosts.remove(&held.host);
            }
        }
    }

    /// What another process of the home spent or reserved, or an earlier one, whatever the limits are here. `period` is its
    /// [`Held::period`].
    pub fn adopt(&mut self, period: u64, host: &str, currency: Currency, amount: Amount) -> Held {
        self.turn(period);
        if period == self.period {
            self.count(host, currency, amount);
        }
        Held { period, own: false, host: host.to_owned(), currency, amount }
    }

    /// What was spent in the newest period, by currency and host: what is to be kept.
    pub fn spent(&self) -> impl Iterator<Item = (u64, Currency, &str, Amount)> + '_ {
        let period = self.period;
        self.books.iter().flat_map(move |(currency, book)| {
            book.hosts.iter().map(move |(host, amount)| (period, *currency, host.as_str(), *amount))
        })
    }

    /// What this process spent or holds.
    pub fn own(&self, currency: Currency) -> Amount {
        self.own.get(&currency).copied().unwrap_or_default()
    }

    /// What was spent or is held in the newest period.
    pub fn in_period(&self, currency: Currency) -> Amount {
        self.books.get(&currency).map_or(Amount::ZERO, |book| book.total)
    }

    /// The same with nothing spent but by this process: what others spent is told again.
    pub(super) fn restarted(&self, limits: &BTreeMap<Currency, Limits>, period_ms: u64) -> Self {
        Self { own: self.own.clone(), ..Self::new(limits.clone(), period_ms) }
    }

    const fn number(&self, now: Time) -> u64 {
        now.0 / self.period_ms
    }

    /// A new period begins with nothing spent; an old one never comes back.
    fn turn(&mut self, period: u64) {
        if period > self.period {
            self.period = period;
            self.books.clear();
        }
    }

    fn count(&mut self, host: &str, currency: Currency, amount: Amount) {
        let book = self.books.entry(currency).or_default();
        // At the top it stays at the top: nothing more is spent then.
        book.total = book.total.checked_add(amount).unwrap_or(Amount::MAX);
        let entry = book.hosts.entry(host.to_owned()).or_default();
        *entry = entry.checked_add(amount).unwrap_or(Amount::MAX);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nanos(nanos: u64) -> Amount {
        Amount::from_nanos(nanos)
    }

    fn spend(host: &str, amount: u64) -> Spend {
        Spend { host: host.to_owned(), currency: Currency::EUR, price: nanos(amount), amount: nanos(amount) }
    }

    fn budget(limits: Limits) -> Budget {
        Budget::new(BTreeMap::from([(Currency::EUR, limits)]), 100)
    }

    type Case<'a> = (Limits, &'a dyn Fn(&BudgetError) -> bool);
    /// Period, host, amount, whether this process spent it.
    type Entry = (u64, String, u64, bool);

    #[test]
    fn each_limit_holds_to_the_nano_on_both_sides() {
        let at = Time(1_050);
        let cases: [Case<'_>; 4] = [
            (Limits { per_request: Some(nanos(10)), ..Limits::default() }, &|e| {
                matches!(e, BudgetError::Request { .. })
            }),
            (Limits { per_host: Some(nanos(10)), ..Limits::default() }, &|e| matches!(e, BudgetError::Host { .. })),
            (Limits { per_period: Some(nanos(10)), ..Limits::default() }, &|e| matches!(e, BudgetError::Period { .. })),
            (Limits { in_all: Some(nanos(10)), ..Limits::default() }, &|e| matches!(e, BudgetError::All { .. })),
        ];
        for (limits, expected) in cases {
            let mut budget = budget(limits);
            let error = budget.reserve(at, &spend("a", 11)).unwrap_err();
            assert!(expected(&error), "{error}");
            let held = budget.reserve(at, &spend("a", 10)).unwrap();
            budget.release(&held);
            let _ = budget.reserve(at, &spend("a", 10)).unwrap();
        }
        let dollars = Spend { currency: "USD".parse().unwrap(), ..spend("a", 1) };
        assert!(matches!(budget(Limits::default()).check(at, &dollars), Err(BudgetError::Currency(_))));
        let prepaid = Spend { amount: nanos(100), ..spend("a", 10) };
        budget(Limits { per_request: Some(nanos(10)), ..Limits::default() }).check(at, &prepaid).unwrap();
    }

    #[test]
    fn period_turns_forward_only_and_a_late_release_changes_no_later_period() {
        let mut budget = budget(Limits { per_period: Some(nanos(10)), ..Limits::default() });
        let old = budget.reserve(Time(199), &spend("a", 10)).unwrap();
        let _ = budget.reserve(Time(200), &spend("a", 9)).unwrap();
        // The clock goes back: the newest period goes on.
        assert!(budget.reserve(Time(150), &spend("a", 2)).is_err());
        budget.release(&old);
        assert_eq!(budget.in_period(Currency::EUR), nanos(9));
        let _ = budget.adopt(1, "a", Currency::EUR, nanos(5));
        assert_eq!(budget.in_period(Currency::EUR), nanos(9));
        let _ = budget.adopt(2, "b", Currency::EUR, nanos(5));
        assert_eq!(budget.in_period(Currency::EUR), nanos(14));
        assert_eq!(budget.own(Currency::EUR), nanos(9));
    }

    #[test]
    fn sums_at_the_top_refuse_everything_more() {
        let mut budget = budget(Limits::default());
        let _ = budget.reserve(Time(0), &spend("a", u64::MAX)).unwrap();
        assert_eq!(budget.reserve(Time(0), &spend("a", 1)), Err(BudgetError::Overflow));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Reserve { host: u8, amount: u64 },
        Release(usize),
        Adopt { host: u8, amount: u64 },
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0_u8..3, 1_u64..40).prop_map(|(host, amount)| Step::Reserve { host, amount }),
            (0_usize..8).prop_map(Step::Release),
            (0_u8..3, 1_u64..40).prop_map(|(host, amount)| Step::Adopt { host, amount }),
            (0_u64..70).prop_map(Step::Wait),
        ];
        proptest::collection::vec(step, 0..80)
    }

    proptest! {
        /// Against a plain list of everything that counts.
        #[test]
        fn budget_is_what_a_list_of_all_spends_says(steps in steps()) {
            let limits = Limits {
                per_request: Some(nanos(35)), per_host: Some(nanos(60)), per_period: Some(nanos(100)), in_all: Some(nanos(300)),
            };
            let mut budget = budget(limits);
            let mut now = 0;
            let mut list: Vec<Entry> = Vec::new();
            let mut held = Vec::new();
            for step in steps {
                let period = now / 100;
                match step {
                    Step::Wait(ms) => now += ms,
                    Step::Adopt { host, amount } => {
                        let host = format!("h{host}");
                        let kept = budget.adopt(period, &host, Currency::EUR, nanos(amount));
                        list.push((period, host, amount, false));
                        held.push((kept, list.len() - 1));
                    }
                    Step::Release(at) => {
                        if held.is_empty() { continue }
                        let (kept, place) = held.remove(at % held.len());
                        budget.release(&kept);
                        list[place].2 = 0;
                    }
                    Step::Reserve { host, amount } => {
                        let host = format!("h{host}");
                        let sum = |wanted: &dyn Fn(&Entry) -> bool| -> u64 {
                            list.iter().filter(|entry| wanted(entry)).map(|entry| entry.2).sum()
                        };
                        let fits = amount <= 35
                            && sum(&|entry| entry.0 == period && entry.1 == host) + amount <= 60
                            && sum(&|entry| entry.0 == period) + amount <= 100
                            && sum(&|entry| entry.3) + amount <= 300;
                        let reserved = budget.reserve(Time(now), &spend(&host, amount));
                        prop_assert_eq!(reserved.is_ok(), fits);
                        if let Ok(kept) = reserved {
                            list.push((period, host, amount, true));
                            held.push((kept, list.len() - 1));
                        }
                    }
                }
            }
        }
    }
}
