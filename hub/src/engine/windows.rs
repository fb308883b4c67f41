//! Settlement windows: what a cut-off nets to, what a plan pays out, what the bank made of it.
//!
//! `open → cut off → planned → instructed → settled`. Every step is an act; doing one twice is refused or changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use weir_protocol::act::{Instruct, Outcome, Plan, payout_leaf};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::hash::Hash;
use weir_protocol::id::AccountId;
use weir_protocol::merkle;
use weir_protocol::reject::Reject;

use super::ledger::{Ledger, Place};
use super::payout::{Owner, Payout, Short};

pub use super::payout::PayoutState;

/// Decimal places of the minor unit in which banks move a currency.
///
/// ISO 4217: only what the connectors serve so far; more come with their connectors.
pub const fn minor_digits(_currency: Currency) -> u32 {
    2
}

/// How far a window has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowState {
    /// Its commits are fixed.
    CutOff,
    /// What it pays out is fixed.
    Planned,
    /// The bank has been told.
    Instructed,
    /// Nothing of it is in transit.
    Settled,
}

/// A plan as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// The act.
    pub plan: Plan,
    /// Its digest.
    pub digest: Hash,
    /// The payouts, by account.
    pub payouts: BTreeMap<AccountId, Payout>,
    /// Whether the bank has been told.
    pub instructed: bool,
}

/// A window that was cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The commit that holds the cut-off: the window's last.
    pub commit: u64,
    /// Its time.
    pub time: Time,
    /// How far it has come.
    pub state: WindowState,
    /// Plans, by currency.
    pub plans: BTreeMap<Currency, PlanRecord>,
}

/// All windows; the open one has the number after the last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Windows {
    windows: BTreeMap<u64, Window>,
    /// Payouts that somebody has to look at: come back, or told of in two ways. Until the account is paid again.
    attention: BTreeSet<(Currency, AccountId, u64)>,
}

impl Windows {
    /// The number of the open window.
    pub fn open(&self) -> u64 {
        self.windows.last_key_value().map_or(1, |(last, _)| last + 1)
    }

    /// Windows that were cut off, by number.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Window)> {
        self.windows.iter().map(|(number, window)| (*number, window))
    }

    /// One window.
    pub fn get(&self, number: u64) -> Option<&Window> {
        self.windows.get(&number)
    }

    fn get_mut(&mut self, number: u64) -> Result<&mut Window, Reject> {
        self.windows.get_mut(&number).ok_or(Reject::Unsupported)
    }

    /// Cuts the open window off: what everybody earned, less fees, and what they marked, becomes payable.
    ///
    /// Fee = earned · basis points ÷ 10,000, rounded down to a nano: never more than was earned. Fees make good first what
    /// the hub owes its clients' money.
    pub fn cut_off(
        &mut self,
        number: u64,
        ledger: &mut Ledger,
        fee_basis_points: u32,
        at: (u64, Time),
    ) -> Result<(), Reject> {
        if number != self.open() {
            return Err(Reject::Stale);
        }
        let currencies: Vec<Currency> = ledger.sums().keys().copied().collect();
        for currency in currencies {
            let due: Vec<(AccountId, Amount, Amount)> = ledger
                .accounts(currency)
                .filter(|(_, balances)| !balances.earned.is_zero() || !balances.marked.is_zero())
                .map(|(account, balances)| (account, balances.earned, balances.marked))
                .collect();
            for (account, earned, marked) in due {
                let fee = fee(earned, fee_basis_points);
                let net = earned.checked_sub(fee).unwrap_or(Amount::ZERO);
                let mut transfer = |from, to, amount| {
                    let moved = ledger.move_owed(currency, from, to, amount);
                    assert!(moved.is_ok(), "a cut-off moves only what is there");
                };
                transfer(Place::Earned(account), Place::Fees, fee);
                transfer(Place::Earned(account), Place::Payable(account), net);
                transfer(Place::Marked(account), Place::Payable(account), marked);
            }
            ledger.cover(currency);
        }
        let (commit, time) = at;
        self.windows.insert(number, Window { commit, time, state: WindowState::CutOff, plans: BTreeMap::new() });
        Ok(())
    }

    /// What a window would pay out in one currency: whole minor units of what is payable, from the minimum on, to
    /// accounts that `payable_to` allows.
    pub fn payouts(
        ledger: &Ledger,
        currency: Currency,
        payout_min: Amount,
        payable_to: impl Fn(&AccountId) -> bool,
    ) -> BTreeMap<AccountId, Amount> {
        ledger
            .accounts(currency)
            .map(|(account, balances)| (account, balances.payable.floor_to_minor(minor_digits(currency))))
            .filter(|(_, amount)| !amount.is_zero() && *amount >= payout_min)
            .filter(|(account, _)| payable_to(account))
            .collect()
    }

    /// The root of a plan: over its payouts, by account.
    pub fn plan_root(window: u64, currency: Currency, payouts: &BTreeMap<AccountId, Amount>) -> Hash {
        let leaves: Vec<Hash> =
            payouts.iter().map(|(account, amount)| payout_leaf(window, account, currency, *amount)).collect();
        merkle::root(&leaves)
    }

    /// Takes a plan that says exactly what the ledger gives. While a plan waits to be instructed, what it pays out still
    /// counts as payable, so another one for the currency must wait.
    pub fn plan(&mut self, plan: &Plan, digest: Hash, payouts: &BTreeMap<AccountId, Amount>) -> Result<(), Reject> {
        let waits = self
            .windows
            .iter()
            .filter(|(number, _)| **number != plan.window)
            .filter_map(|(_, window)| window.plans.get(&plan.currency))
            .any(|record| !record.instructed && !record.payouts.is_empty());
        let window = self.get_mut(plan.window)?;
        if window.state == WindowState::Settled || window.plans.contains_key(&plan.currency) {
            return Err(Reject::Stale);
        }
        if waits {
            return Err(Reject::Busy);
        }
        let total = payouts.values().try_fold(Amount::ZERO, |sum, amount| sum.checked_add(*amount));
        let fits = plan.payouts as usize == payouts.len()
            && total == Ok(plan.total)
            && plan.root == Self::plan_root(plan.window, plan.currency, payouts);
        if !fits {
            return Err(Reject::Stale);
        }
        let payouts = payouts.iter().map(|(account, amount)| (*account, Payout::planned(*amount))).collect();
        window.plans.insert(plan.currency, PlanRecord { plan: plan.clone(), digest, payouts, instructed: false });
        if window.state == WindowState::CutOff {
            window.state = WindowState::Planned;
        }
        Ok(())
    }

    /// A plan goes to the bank: its payouts leave the accounts.
    pub fn instruct(&mut self, instruct: &Instruct, ledger: &mut Ledger) -> Result<(), Reject> {
        let window = self.windows.get_mut(&instruct.window).ok_or(Reject::Unsupported)?;
        let record = window.plans.get_mut(&instruct.currency).ok_or(Reject::Unsupported)?;
        if record.digest != instruct.plan || record.instructed || window.state == WindowState::Settled {
            return Err(Reject::Stale);
        }
        record.instructed = true;
        for (account, payout) in &mut record.payouts {
            let moved = payout.instruct(ledger, instruct.currency, *account);
            assert!(moved.is_ok(), "a plan holds only what is payable");
            let of_account = (instruct.currency, *account, 0)..=(instruct.currency, *account, u64::MAX);
            let seen: Vec<_> = self.attention.range(of_account).copied().collect();
            for one in seen {
                self.attention.remove(&one);
            }
        }
        window.state = WindowState::Instructed;
        Ok(())
    }

    /// The bank's word on one payout. `unexplained`: whether what is short of it is still listed.
    pub fn outcome(&mut self, outcome: &Outcome, ledger: &mut Ledger, unexplained: bool) -> Result<Short, Reject> {
        let (currency, account) = (outcome.currency, outcome.account);
        let held = self.held(currency, &account);
        let window = self.get_mut(outcome.window)?;
        let record = window.plans.get_mut(&currency).ok_or(Reject::Unsupported)?;
        let payout = record.payouts.get_mut(&account).ok_or(Reject::UnknownAccount)?;
        if payout.amount != outcome.amount {
            return Err(Reject::Malformed);
        }
        let payable = ledger.read(currency, &Place::Payable(account));
        let free = payable.checked_sub(held).unwrap_or(Amount::ZERO);
        let mut heard = *payout;
        let short = heard.hear(outcome.outcome, ledger, &Owner { account, currency, free, unexplained })?;
        *payout = heard;
        let key = (currency, account, outcome.window);
        if heard.needs_attention() {
            self.attention.insert(key);
        } else {
            self.attention.remove(&key);
        }
        Ok(short)
    }

    /// Payouts that somebody has to look at: window, currency, account, payout.
    pub fn attention(&self) -> impl Iterator<Item = (u64, Currency, AccountId, Payout)> {
        self.attention.iter().filter_map(|(currency, account, window)| {
            let payout = self.windows.get(window)?.plans.get(currency)?.payouts.get(account)?;
            Some((*window, *currency, *account, *payout))
        })
    }

    /// What plans that wait to be instructed will take from what an account has payable.
    pub fn held(&self, currency: Currency, account: &AccountId) -> Amount {
        let waiting = self.windows.values().filter_map(|window| window.plans.get(&currency));
        waiting
            .filter(|record| !record.instructed)
            .filter_map(|record| record.payouts.get(account))
            .fold(Amount::ZERO, |sum, payout| sum.checked_add(payout.amount).unwrap_or(Amount::MAX))
    }

    /// A window is done once every payout of it is.
    pub fn settle(&mut self, number: u64) -> Result<(), Reject> {
        let window = self.get_mut(number)?;
        if window.state == WindowState::Settled || window.state == WindowState::CutOff {
            return Err(Reject::Stale);
        }
        let waiting = window.plans.values().flat_map(|plan| plan.payouts.values()).any(Payout::waits);
        if waiting {
            return Err(Reject::Busy);
        }
        window.state = WindowState::Settled;
        Ok(())
    }
}

/// `earned · basis points ÷ 10,000`, rounded down.
pub fn fee(earned: Amount, basis_points: u32) -> Amount {
    let fee = u128::from(earned.nanos()) * u128::from(basis_points.min(10_000)) / 10_000;
    Amount::from_nanos(u64::try_from(fee).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fee_rounds_down_and_never_passes_what_was_earned() {
        assert_eq!(fee(Amount::from_nanos(9_999), 1), Amount::ZERO);
        assert_eq!(fee(Amount::from_nanos(10_000), 1), Amount::from_nanos(1));
        assert_eq!(fee(Amount::MAX, 10_000), Amount::MAX);
        assert_eq!(fee(Amount::MAX, u32::MAX), Amount::MAX);
    }
}
