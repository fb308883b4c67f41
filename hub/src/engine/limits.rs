//! The operator's bounds on what accounts do: their balance, what they lock in a day, how soon a changed bank account
//! counts. What one payment may be is part of an account's standing, which shards know.
//!
//! Pure: judged at commit time by [`super::books::Books`], live and again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use weir_protocol::act::{ApproveIban, Limits};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::id::AccountId;
use weir_protocol::keys::PublicKey;
use weir_protocol::reject::Reject;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// How long a changed bank account waits if nobody says otherwise: three days.
pub const IBAN_WAIT_S: u32 = 3 * 24 * 60 * 60;

/// A bank account that does not count yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingIban {
    /// The account.
    pub iban: String,
    /// The first cut-off at or after this pays out to it, if by then nobody need agree, or an operator does.
    pub from: Time,
    /// The operators who agree.
    pub approvals: BTreeSet<PublicKey>,
}

/// What bounds one account, everything considered. Zero: no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Of available and locked money after a deposit.
    pub balance_max: Amount,
    /// Of what is locked on a day.
    pub day_max: Amount,
}

/// Everybody's and single accounts' bounds, and what they are measured against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bounded {
    everybody: Limits,
    own: BTreeMap<AccountId, Limits>,
    /// The day that `locked` is about, in days since 1970.
    day: u64,
    locked: BTreeMap<(AccountId, Currency), Amount>,
    waiting: BTreeMap<AccountId, WaitingIban>,
    /// Of accounts whose bank account changed since the bank was last told to pay them: the one before.
    before: BTreeMap<AccountId, String>,
}

impl Default for Bounded {
    fn default() -> Self {
        Self {
            everybody: Limits {
                account: None,
                payment_max: Amount::ZERO,
                balance_max: Amount::ZERO,
                day_max: Amount::ZERO,
                iban_wait_s: IBAN_WAIT_S,
            },
            own: BTreeMap::new(),
            day: 0,
            locked: BTreeMap::new(),
            waiting: BTreeMap::new(),
            before: BTreeMap::new(),
        }
    }
}

impl Bounded {
    /// What was said of an account, or of everybody.
    pub(super) fn limits(&self, account: Option<&AccountId>) -> Option<Limits> {
        account.map_or(Some(self.everybody), |account| self.own.get(account).copied())
    }

    pub(super) fn set(&mut self, limits: &Limits) {
        match limits.account {
            None => self.everybody = *limits,
            Some(account) => {
                let none = Limits {
                    account: Some(account),
                    payment_max: Amount::ZERO,
                    balance_max: Amount::ZERO,
                    day_max: Amount::ZERO,
                    iban_wait_s: 0,
                };
                if *limits == none {
                    self.own.remove(&account);
                } else {
                    self.own.insert(account, *limits);
                }
            }
        }
    }

    pub(super) fn bounds(&self, account: &AccountId) -> Bounds {
        let own = self.own.get(account);
        let of = |part: fn(&Limits) -> Amount| {
            let own = own.map(part).filter(|bound| !bound.is_zero());
            match own.unwrap_or_else(|| part(&self.everybody)) {
                Amount::MAX => Amount::ZERO,
                bound => bound,
            }
        };
        Bounds { balance_max: of(|limits| limits.balance_max), day_max: of(|limits| limits.day_max) }
    }

    /// Whether an account may hold `held`, a deposit included.
    pub(super) fn check_balance(&self, account: &AccountId, held: Amount) -> Result<(), Reject> {
        let bound = self.bounds(account).balance_max;
        if bound.is_zero() || held <= bound { Ok(()) } else { Err(Reject::TooLarge) }
    }

    /// Whether an account may lock `more` now.
    pub(super) fn check_day(
        &self,
        account: AccountId,
        currency: Currency,
        more: Amount,
        now: Time,
    ) -> Result<(), Reject> {
        let bound = self.bounds(&account).day_max;
        let before = if self.day == now.0 / DAY_MS { self.locked.get(&(account, currency)).copied() } else { None };
        let fits = before.unwrap_or(Amount::ZERO).checked_add(more).is_ok_and(|after| after <= bound);
        if bound.is_zero() || fits { Ok(()) } else { Err(Reject::TooLarge) }
    }

    /// Notes what was locked. The day before is forgotten with the first of a new one.
    pub(super) fn lock(&mut self, account: AccountId, currency: Currency, more: Amount, now: Time) {
        let day = now.0 / DAY_MS;
        if day != self.day {
            self.day = day;
            self.locked.clear();
        }
        let locked = self.locked.entry((account, currency)).or_insert(Amount::ZERO);
        // Judged before; what has no bound may reach the end of the range, which bounds nothing either.
        *locked = locked.checked_add(more).unwrap_or(Amount::MAX);
    }

    /// The bank account in force after a registration that names `new`: the new one at once, or the old one while the
    /// new one waits, for its time or for an operator. `approvals`: how many must agree to a plan; 0: nobody need agree.
    pub(super) fn change_iban(
        &mut self,
        account: AccountId,
        (old, new): (&str, &str),
        approvals: u32,
        now: Time,
    ) -> String {
        let wait_s = u64::from(self.everybody.iban_wait_s);
        if old == new || wait_s == 0 && approvals == 0 || old.is_empty() {
            self.waiting.remove(&account);
            self.note_iban(account, (old, new));
            return new.to_owned();
        }
        // The same one again waits no longer than it did.
        if self.waiting.get(&account).is_none_or(|waiting| waiting.iban != new) {
            let from = now.plus_ms(wait_s.saturating_mul(1000));
            self.waiting.insert(account, WaitingIban { iban: new.to_owned(), from, approvals: BTreeSet::new() });
        }
        old.to_owned()
    }

    /// Notes that another bank account is in force. The first one before it since the last payout is kept; back at that
    /// one, nothing is.
    fn note_iban(&mut self, account: AccountId, (old, new): (&str, &str)) {
        if old.is_empty() || old == new {
            return;
        }
        let before = self.before.entry(account).or_insert_with(|| old.to_owned());
        if before == new {
            self.before.remove(&account);
        }
    }

    /// Where payouts of an account went, or would have gone, before its bank account changed; none if it did not since
    /// the last payout.
    pub(super) fn iban_before(&self, account: &AccountId) -> Option<&str> {
        self.before.get(account).map(String::as_str)
    }

    /// The bank is told to pay accounts: their bank accounts are no longer new.
    pub(super) fn paid_out<T>(&mut self, payouts: &BTreeMap<AccountId, T>) {
        if !self.before.is_empty() {
            self.before.retain(|account, _| !payouts.contains_key(account));
        }
    }

    pub(super) fn waiting_iban(&self, account: &AccountId) -> Option<&WaitingIban> {
        self.waiting.get(account)
    }

    /// An operator agrees to the bank account that waits. `Stale`: that one does not wait, or not any more.
    pub(super) fn approve_iban(&mut self, act: &ApproveIban) -> Result<(), Reject> {
        // Two pairs of eyes: nobody agrees with himself.
        if act.operator == act.account.key() {
            return Err(Reject::Unauthenticated);
        }
        let waiting = self.waiting.get_mut(&act.account).filter(|waiting| waiting.iban == act.iban);
        let waiting = waiting.ok_or(Reject::Stale)?;
        if waiting.approvals.insert(act.operator) { Ok(()) } else { Err(Reject::Exists) }
    }

    /// The bank accounts that have waited long enough and that are agreed to; they wait no longer. `old` gives the one in
    /// force.
    pub(super) fn take_due_ibans(
        &mut self,
        now: Time,
        agreed: impl Fn(&WaitingIban) -> bool,
        old: impl Fn(&AccountId) -> String,
    ) -> Vec<(AccountId, String)> {
        let due = self.waiting.iter().filter(|(_, waiting)| waiting.from <= now && agreed(waiting));
        let due: Vec<_> = due.map(|(account, waiting)| (*account, waiting.iban.clone())).collect();
        for (account, new) in &due {
            self.waiting.remove(account);
            self.note_iban(*account, (&old(account), new));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_protocol::keys::PublicKey;

    const EUR: Currency = Currency::EUR;

    fn account(fill: u8) -> AccountId {
        AccountId(PublicKey([fill; 32]))
    }

    fn nanos(nanos: u64) -> Amount {
        Amount::from_nanos(nanos)
    }

    fn limits(account: Option<AccountId>, balance_max: u64, day_max: u64) -> Limits {
        Limits {
            account,
            payment_max: Amount::ZERO,
            balance_max: nanos(balance_max),
            day_max: nanos(day_max),
            iban_wait_s: if account.is_some() { 0 } else { IBAN_WAIT_S },
        }
    }

    fn in_force(_: &AccountId) -> String {
        "A".to_owned()
    }

    #[test]
    fn bank_account_before_is_known_until_the_bank_is_told() {
        let mut bounded = Bounded::default();
        bounded.set(&Limits { iban_wait_s: 0, ..limits(None, 0, 0) });
        let change = |bounded: &mut Bounded, old, new| bounded.change_iban(account(1), (old, new), 0, Time(0));
        change(&mut bounded, "", "A");
        assert_eq!(bounded.iban_before(&account(1)), None, "the first one is no change");
        change(&mut bounded, "A", "B");
        change(&mut bounded, "B", "C");
        assert_eq!(bounded.iban_before(&account(1)), Some("A"), "not the one between, which nobody was paid at");
        change(&mut bounded, "C", "A");
        assert_eq!(bounded.iban_before(&account(1)), None);
        change(&mut bounded, "A", "B");
        bounded.paid_out(&BTreeMap::from([(account(2), 0_u8)]));
        assert_eq!(bounded.iban_before(&account(1)), Some("A"), "others were paid");
        bounded.paid_out(&BTreeMap::from([(account(1), 0_u8)]));
        assert_eq!(bounded.iban_before(&account(1)), None);
        // One that waits is no change before its time.
        bounded.set(&limits(None, 0, 0));
        bounded.change_iban(account(1), ("A", "B"), 0, Time(0));
        assert_eq!(bounded.iban_before(&account(1)), None);
        bounded.take_due_ibans(Time(u64::MAX), |_| true, in_force);
        assert_eq!(bounded.iban_before(&account(1)), Some("A"));
    }

    #[test]
    fn own_bound_goes_before_everybodys_and_can_lift_it() {
        let mut bounded = Bounded::default();
        assert_eq!(bounded.check_balance(&account(1), Amount::MAX), Ok(()));
        bounded.set(&limits(None, 100, 0));
        bounded.set(&limits(Some(account(1)), 200, 0));
        bounded.set(&limits(Some(account(2)), u64::MAX, 0));
        for (who, most) in [(1, 200), (3, 100)] {
            assert_eq!(bounded.check_balance(&account(who), nanos(most)), Ok(()));
            assert_eq!(bounded.check_balance(&account(who), nanos(most + 1)), Err(Reject::TooLarge));
        }
        assert_eq!(bounded.check_balance(&account(2), nanos(u64::MAX)), Ok(()));
        bounded.set(&limits(Some(account(1)), 0, 0));
        assert_eq!(bounded.limits(Some(&account(1))), None);
        assert_eq!(bounded.check_balance(&account(1), nanos(101)), Err(Reject::TooLarge));
    }

    #[test]
    fn what_a_day_locks_counts_until_midnight_and_by_currency() {
        let mut bounded = Bounded::default();
        bounded.set(&limits(None, 0, 100));
        let evening = Time(DAY_MS - 1);
        bounded.lock(account(1), EUR, nanos(60), evening);
        assert_eq!(bounded.check_day(account(1), EUR, nanos(40), evening), Ok(()));
        assert_eq!(bounded.check_day(account(1), EUR, nanos(41), evening), Err(Reject::TooLarge));
        assert_eq!(bounded.check_day(account(2), EUR, nanos(100), evening), Ok(()));
        assert_eq!(bounded.check_day(account(1), "CHF".parse().unwrap_or(EUR), nanos(100), evening), Ok(()));
        assert_eq!(bounded.check_day(account(1), EUR, nanos(100), Time(DAY_MS)), Ok(()));
        bounded.lock(account(1), EUR, nanos(100), Time(DAY_MS));
        assert_eq!(bounded.check_day(account(1), EUR, nanos(1), Time(DAY_MS)), Err(Reject::TooLarge));
    }

    #[test]
    fn changed_bank_account_waits_and_the_old_one_counts_meanwhile() {
        let mut bounded = Bounded::default();
        let wait_ms = u64::from(IBAN_WAIT_S) * 1000;
        assert_eq!(bounded.change_iban(account(1), ("", "A"), 0, Time(0)), "A", "the first one counts at once");
        assert_eq!(bounded.change_iban(account(1), ("A", "B"), 0, Time(5)), "A");
        assert_eq!(bounded.change_iban(account(1), ("A", "B"), 0, Time(9)), "A");
        assert_eq!(bounded.waiting_iban(&account(1)).map(|waiting| waiting.from), Some(Time(5 + wait_ms)));
        assert!(bounded.take_due_ibans(Time(4 + wait_ms), |_| true, in_force).is_empty());
        assert_eq!(bounded.take_due_ibans(Time(5 + wait_ms), |_| true, in_force), [(account(1), "B".to_owned())]);
        assert!(bounded.take_due_ibans(Time(u64::MAX), |_| true, in_force).is_empty());
        // Whoever goes back to the old one, or names a third, starts anew.
        bounded.change_iban(account(1), ("B", "C"), 0, Time(0));
        bounded.change_iban(account(1), ("B", "D"), 0, Time(7));
        assert_eq!(bounded.waiting_iban(&account(1)).map(|waiting| waiting.from), Some(Time(7 + wait_ms)));
        assert_eq!(bounded.change_iban(account(1), ("B", "B"), 0, Time(8)), "B");
        assert_eq!(bounded.waiting_iban(&account(1)), None);
    }

    #[test]
    fn changed_bank_account_counts_after_its_wait_and_with_an_operator() {
        let operator = PublicKey([9; 32]);
        let act =
            |iban: &str, operator| ApproveIban { number: 1, operator, account: account(1), iban: iban.to_owned() };
        let agreed = |waiting: &WaitingIban| waiting.approvals.contains(&operator);
        let mut bounded = Bounded::default();
        let wait_ms = u64::from(IBAN_WAIT_S) * 1000;
        assert_eq!(bounded.approve_iban(&act("B", operator)), Err(Reject::Stale), "nothing waits");
        bounded.change_iban(account(1), ("A", "B"), 1, Time(0));
        assert_eq!(bounded.approve_iban(&act("C", operator)), Err(Reject::Stale), "another one waits");
        assert_eq!(bounded.approve_iban(&act("B", account(1).key())), Err(Reject::Unauthenticated));
        assert!(bounded.take_due_ibans(Time(wait_ms), agreed, in_force).is_empty(), "the wait alone is not enough");
        assert_eq!(bounded.approve_iban(&act("B", operator)), Ok(()));
        assert_eq!(bounded.approve_iban(&act("B", operator)), Err(Reject::Exists));
        assert!(
            bounded.take_due_ibans(Time(wait_ms - 1), agreed, in_force).is_empty(),
            "the operator alone is not enough"
        );
        assert_eq!(bounded.take_due_ibans(Time(wait_ms), agreed, in_force), [(account(1), "B".to_owned())]);
        // A third one needs an agreement of its own; without a wait the operator is asked all the same.
        bounded.set(&Limits { iban_wait_s: 0, ..limits(None, 0, 0) });
        bounded.change_iban(account(1), ("B", "C"), 1, Time(0));
        bounded.approve_iban(&act("C", operator)).ok();
        assert_eq!(bounded.change_iban(account(1), ("B", "D"), 1, Time(0)), "B");
        assert!(bounded.take_due_ibans(Time(u64::MAX), agreed, in_force).is_empty());
        assert_eq!(
            bounded.change_iban(account(1), ("B", "D"), 0, Time(0)),
            "D",
            "nobody need agree, nothing to wait for"
        );
    }
}
