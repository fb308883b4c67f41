//! Settlement windows: what a cut-off nets to, what a plan pays out, who agreed to it, what the bank made of it.
//!
//! `open → cut off → planned → approved → instructed → settled`; a plan that is given up takes its window back to cut
//! off, and a window with nothing to pay out settles at once. Every step is an act; doing one twice is refused or changes
//! nothing. Whether the bank may be told is decided in one place: [`Windows::may_instruct`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use weir_protocol::act::{Abort, Approval, ForceFinal, Instruct, Outcome, Plan, payout_leaf};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::hash::Hash;
use weir_protocol::id::AccountId;
use weir_protocol::keys::PublicKey;
use weir_protocol::merkle;
use weir_protocol::reject::Reject;

use super::ledger::{Balances, Ledger, Place, Position, Split};
use super::operators::Operators;
use super::payout::{Owner, Payout, Short};

pub use super::payout::PayoutState;

/// The most that one bank transfer moves: 999,999,999.99 (EPC132-08). What is above waits for the next window.
pub const PAYOUT_MAX: Amount = Amount::from_nanos(999_999_999_990_000_000);

/// Decimal places of the minor unit in which banks move a currency.
///
/// ISO 4217: only what the connectors serve so far; more come with their connectors.
pub const fn minor_digits(_currency: Currency) -> u32 {
    2
}

/// How far a window has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowState {
    /// Its commits are fixed.
    CutOff,
    /// What it pays out is fixed.
    Planned,
    /// As many operators as the policy asks for agree.
    Approved,
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
    /// Who is paid where, hashed: what the file says besides the amounts.
    pub details: Hash,
    /// Where accounts are paid whose newest registration names another bank account, which waited when it was planned.
    pub paid_to: BTreeMap<AccountId, String>,
    /// Who agreed.
    pub approvals: BTreeSet<PublicKey>,
    /// Whether the bank has been told.
    pub instructed: bool,
}

impl PlanRecord {
    /// How many operators agree who stand and are not the planner.
    pub fn counted(&self, operators: &Operators) -> u32 {
        let counts = |key: &&PublicKey| Some(**key) != self.plan.operator && operators.stands(key);
        u32::try_from(self.approvals.iter().filter(counts).count()).unwrap_or(u32::MAX)
    }

    fn is_approved(&self, rules: Rules<'_>) -> bool {
        self.counted(rules.operators) >= rules.approvals
            && self.plan.operator.is_none_or(|planner| rules.operators.stands(&planner))
    }
}

/// What a window came to in one currency, everybody together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Accounts with a position.
    pub accounts: u64,
    /// Payments received.
    pub payments: u64,
    /// Payable from windows before.
    pub carried: Amount,
    /// Earned, less refunds: the gross of the window.
    pub earned: Amount,
    /// Of it, what its earners spent themselves: what could be netted.
    pub nettable: Amount,
    /// The hub's fees.
    pub fees: Amount,
    /// Of the earnings: available again, as their owners wish.
    pub kept: Amount,
    /// Marked for payout.
    pub marked: Amount,
}

impl Totals {
    /// One more position, if it is one.
    pub fn add(&mut self, position: &Position) {
        if position.is_empty() {
            return;
        }
        let plus = |sum: Amount, more: Amount| sum.checked_add(more).unwrap_or(Amount::MAX);
        self.accounts += 1;
        self.payments += position.payments;
        self.carried = plus(self.carried, position.carried);
        self.earned = plus(self.earned, position.earned);
        self.nettable = plus(self.nettable, position.earned.min(position.spent));
        self.fees = plus(self.fees, position.fee);
        self.kept = plus(self.kept, position.kept);
        self.marked = plus(self.marked, position.marked);
    }
}

/// A window that was cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// When it began: the cut-off before it, or the hub's first commit.
    pub opened_at: Time,
    /// The commit that holds the cut-off: the window's last.
    pub commit: u64,
    /// Its time.
    pub time: Time,
    /// How far it has come.
    pub state: WindowState,
    /// Plans, by currency.
    pub plans: BTreeMap<Currency, PlanRecord>,
    /// Digests of plans that were given up.
    pub aborted: Vec<Hash>,
    /// Who is paid out below the minimum; everybody, if `final_all`.
    pub finals: BTreeSet<AccountId>,
    /// See `finals`.
    pub final_all: bool,
    /// What it came to.
    pub totals: BTreeMap<Currency, Totals>,
    /// Every account's part, by account. Kept until the window is settled and another one was cut off after the next.
    pub positions: BTreeMap<Currency, Vec<Position>>,
}

/// Who must agree to what.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The operators.
    pub operators: &'a Operators,
    /// How many besides the planner must agree.
    pub approvals: u32,
}

/// Why the bank cannot be told of a plan now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// There is none.
    #[error("there is no plan")]
    NoPlan,
    /// The bank has been told.
    #[error("the bank has been told already")]
    Told,
    /// Who planned does not stand any more.
    #[error("the operator who planned it was revoked; abort it and plan again")]
    Planner,
    /// Too few agree.
    #[error("{given} of {needed} approvals by operators other than the planner are there")]
    Approvals {
        /// Who do.
        given: u32,
        /// Who must.
        needed: u32,
    },
    /// A payee's name or bank account is not the planned one.
    #[error("a payee's name or bank account was changed since it was planned; abort it and plan again")]
    Details,
    /// A payee cannot be paid out now.
    #[error("{0} cannot be paid out any more: frozen or not approved; abort it and plan again")]
    Payee(AccountId),
    /// A payout is not payable any more.
    #[error("what it pays out is not payable any more; abort it and plan again")]
    Balance,
}

impl NotNow {
    /// As an act is refused for it.
    pub const fn reject(self) -> Reject {
        match self {
            Self::NoPlan => Reject::Unsupported,
            Self::Told | Self::Details => Reject::Stale,
            Self::Planner => Reject::Unauthenticated,
            Self::Approvals { .. } => Reject::NotApproved,
            Self::Payee(_) => Reject::Frozen,
            Self::Balance => Reject::Insufficient,
        }
    }
}

/// All windows; the open one has the number after the last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "its windows are windows")]
pub struct Windows {
    windows: BTreeMap<u64, Window>,
    opened_at: Option<Time>,
    /// Payouts that somebody has to look at: come back, or told of in two ways. Until the account is paid again.
    attention: BTreeSet<(Currency, AccountId, u64)>,
}

impl Windows {
    /// The number of the open window.
    pub fn open(&self) -> u64 {
        self.windows.last_key_value().map_or(1, |(last, _)| last + 1)
    }

    /// When the open window began; none before the first commit.
    pub const fn opened_at(&self) -> Option<Time> {
        self.opened_at
    }

    /// The hub has begun: so has its first window.
    pub fn begin(&mut self, now: Time) {
        self.opened_at.get_or_insert(now);
    }

    /// Windows that were cut off, by number.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, &Window)> {
        self.windows.iter().map(|(number, window)| (*number, window))
    }

    /// One window.
    pub fn get(&self, number: u64) -> Option<&Window> {
        self.windows.get(&number)
    }

    fn get_mut(&mut self, number: u64) -> Result<&mut Window, Reject> {
        self.windows.get_mut(&number).ok_or(Reject::Unsupported)
    }

    /// Cuts the open window off: what everybody earned is divided by `split`, the rest and what they marked becomes
    /// payable. Fees make good first what the hub owes its clients' money.
    pub fn cut_off(
        &mut self,
        number: u64,
        ledger: &mut Ledger,
        split: impl Fn(Currency, &AccountId, &Balances) -> Split,
        at: (u64, Time),
    ) -> Result<(), Reject> {
        if number != self.open() {
            return Err(Reject::Stale);
        }
        let currencies: Vec<Currency> = ledger.sums().keys().copied().collect();
        let mut totals = BTreeMap::new();
        let mut positions = BTreeMap::new();
        for currency in currencies {
            let mut all = Totals::default();
            let mut each = Vec::new();
            ledger.cut_off(
                currency,
                |account, held| split(currency, account, held),
                |position| {
                    all.add(&position);
                    each.push(position);
                },
            );
            totals.insert(currency, all);
            positions.insert(currency, each);
            ledger.cover(currency);
        }
        let (commit, time) = at;
        let window = Window {
            opened_at: self.opened_at.unwrap_or(time),
            commit,
            time,
            state: WindowState::CutOff,
            plans: BTreeMap::new(),
            aborted: Vec::new(),
            finals: BTreeSet::new(),
            final_all: false,
            totals,
            positions,
        };
        self.opened_at = Some(time);
        self.windows.insert(number, window);
        self.forget_positions();
        Ok(())
    }

    /// Of the last two windows everybody's part is kept, and of those that are not settled.
    fn forget_positions(&mut self) {
        let from = self.open().saturating_sub(2);
        for window in self.windows.range_mut(..from).map(|(_, window)| window) {
            if window.state == WindowState::Settled && !window.positions.is_empty() {
                window.positions = BTreeMap::new();
            }
        }
    }

    /// What a window would pay out in one currency: whole minor units of what is payable, from `least` on, to accounts
    /// that `payable_to` allows.
    pub fn payouts(
        ledger: &Ledger,
        currency: Currency,
        least: impl Fn(&AccountId) -> Amount,
        payable_to: impl Fn(&AccountId) -> bool,
    ) -> BTreeMap<AccountId, Amount> {
        ledger
            .accounts(currency)
            .map(|(account, balances)| (account, payout_of(balances.payable, currency)))
            .filter(|(account, amount)| !amount.is_zero() && *amount >= least(account))
            .filter(|(account, _)| payable_to(account))
            .collect()
    }

    /// The least that a window pays out to an account.
    pub fn least(&self, number: u64, account: &AccountId, payout_min: Amount) -> Amount {
        let last = self.get(number).is_some_and(|window| window.final_all || window.finals.contains(account));
        if last { Amount::ZERO } else { payout_min }
    }

    /// The root of a plan: over its payouts, by account.
    pub fn plan_root<'a>(
        window: u64,
        currency: Currency,
        payouts: impl IntoIterator<Item = (&'a AccountId, &'a Amount)>,
    ) -> Hash {
        let leaf = |(account, amount): (&AccountId, &Amount)| payout_leaf(window, account, currency, *amount);
        merkle::root(&payouts.into_iter().map(leaf).collect::<Vec<Hash>>())
    }

    /// Whether a plan for a currency waits in another window. While it does, what it pays out still counts as payable.
    pub fn waiting_elsewhere(&self, number: u64, currency: Currency) -> Option<u64> {
        let waits = |window: &Window| window.plans.get(&currency).is_some_and(|record| !record.instructed);
        self.iter().find(|(other, window)| *other != number && waits(window)).map(|(other, _)| other)
    }

    /// Takes a plan that says exactly what the ledger gives.
    pub fn plan(
        &mut self,
        plan: &Plan,
        digest: Hash,
        payouts: &BTreeMap<AccountId, Amount>,
        (details, paid_to): (Hash, BTreeMap<AccountId, String>),
        rules: Rules<'_>,
    ) -> Result<(), Reject> {
        let waits = self.waiting_elsewhere(plan.window, plan.currency).is_some();
        let window = self.get_mut(plan.window)?;
        if window.state == WindowState::Settled || window.plans.contains_key(&plan.currency) {
            return Err(Reject::Stale);
        }
        if waits {
            return Err(Reject::Busy);
        }
        if payouts.is_empty() {
            return Err(Reject::Zero);
        }
        let total = payouts.values().try_fold(Amount::ZERO, |sum, amount| sum.checked_add(*amount));
        let fits = plan.payouts as usize == payouts.len()
            && total == Ok(plan.total)
            && plan.root == Self::plan_root(plan.window, plan.currency, payouts);
        if !fits {
            return Err(Reject::Stale);
        }
        let payouts = payouts.iter().map(|(account, amount)| (*account, Payout::planned(*amount))).collect();
        let (plan_act, approvals) = (plan.clone(), BTreeSet::new());
        let record = PlanRecord { plan: plan_act, digest, payouts, details, paid_to, approvals, instructed: false };
        window.plans.insert(plan.currency, record);
        window.restate(rules);
        Ok(())
    }

    /// Another operator agrees to a plan, bound to the files that it found.
    pub fn approve(&mut self, approval: &Approval, rules: Rules<'_>) -> Result<(), Reject> {
        let window = self.get_mut(approval.window)?;
        let record = window.plans.get_mut(&approval.currency).ok_or(Reject::Unsupported)?;
        if record.digest != approval.plan || record.plan.file != approval.file || record.instructed {
            return Err(Reject::Stale);
        }
        // Four eyes: nobody agrees with himself.
        if record.plan.operator == Some(approval.operator) {
            return Err(Reject::Unauthenticated);
        }
        if !record.approvals.insert(approval.operator) {
            return Err(Reject::Exists);
        }
        window.restate(rules);
        Ok(())
    }

    /// A plan is given up. Nothing has moved, so nothing moves back.
    pub fn abort(&mut self, abort: &Abort, rules: Rules<'_>) -> Result<(), Reject> {
        let window = self.get_mut(abort.window)?;
        let record = window.plans.get(&abort.currency).ok_or(Reject::Unsupported)?;
        if record.digest != abort.plan || record.instructed {
            return Err(Reject::Stale);
        }
        window.aborted.push(record.digest);
        window.plans.remove(&abort.currency);
        window.restate(rules);
        Ok(())
    }

    /// A window pays out below the minimum, once it is planned.
    pub fn force_final(&mut self, act: &ForceFinal) -> Result<(), Reject> {
        let window = self.get_mut(act.window)?;
        if window.state > WindowState::Planned || !window.plans.is_empty() {
            return Err(Reject::Stale);
        }
        match act.account {
            Some(account) => drop(window.finals.insert(account)),
            None => window.final_all = true,
        }
        Ok(())
    }

    /// Operators or the policy changed: so may what is approved.
    pub fn restate(&mut self, rules: Rules<'_>) {
        for window in self.windows.values_mut() {
            window.restate(rules);
        }
    }

    /// Whether the bank may be told of a plan now. Nothing else decides that, live or again.
    ///
    /// `details` gives the hash of who is paid where as it is now; `payable_to` whether an account can be paid out.
    pub fn may_instruct(
        &self,
        number: u64,
        currency: Currency,
        ledger: &Ledger,
        rules: Rules<'_>,
        details: impl FnOnce(&BTreeMap<AccountId, Payout>) -> Hash,
        payable_to: impl Fn(&AccountId) -> bool,
    ) -> Result<&PlanRecord, NotNow> {
        let record = self.get(number).and_then(|window| window.plans.get(&currency)).ok_or(NotNow::NoPlan)?;
        if record.instructed {
            return Err(NotNow::Told);
        }
        let (given, needed) = (record.counted(rules.operators), rules.approvals);
        if given < needed {
            return Err(NotNow::Approvals { given, needed });
        }
        if !record.is_approved(rules) {
            return Err(NotNow::Planner);
        }
        if let Some(account) = record.payouts.keys().find(|account| !payable_to(account)) {
            return Err(NotNow::Payee(*account));
        }
        if details(&record.payouts) != record.details {
            return Err(NotNow::Details);
        }
        ledger.covers(currency, amounts(&record.payouts)).map_err(|_| NotNow::Balance)?;
        Ok(record)
    }

    /// A plan goes to the bank: its payouts, which are given back, leave the accounts. [`Self::may_instruct`] has said that
    /// it may.
    pub fn instruct(
        &mut self,
        instruct: &Instruct,
        ledger: &mut Ledger,
        rules: Rules<'_>,
    ) -> Result<&BTreeMap<AccountId, Payout>, Reject> {
        let window = self.windows.get_mut(&instruct.window).ok_or(Reject::Unsupported)?;
        let record = window.plans.get_mut(&instruct.currency).ok_or(Reject::Unsupported)?;
        if record.digest != instruct.plan || record.instructed || window.state == WindowState::Settled {
            return Err(Reject::Stale);
        }
        let moved = ledger.instruct(instruct.currency, amounts(&record.payouts));
        assert!(moved.is_ok(), "a plan that may be instructed holds only what is payable");
        record.instructed = true;
        for payout in record.payouts.values_mut() {
            payout.instructed();
        }
        if !self.attention.is_empty() {
            let paid = &record.payouts;
            self.attention
                .retain(|(currency, account, _)| *currency != instruct.currency || !paid.contains_key(account));
        }
        window.restate(rules);
        window.plans.get(&instruct.currency).map(|record| &record.payouts).ok_or(Reject::Unsupported)
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

    /// A person has it from the bank that a payout was not paid: its account has the money again.
    pub fn unpaid(
        &mut self,
        number: u64,
        (currency, account, amount): (Currency, AccountId, Amount),
        ledger: &mut Ledger,
    ) -> Result<(), Reject> {
        let window = self.get_mut(number)?;
        let payout = window.plans.get_mut(&currency).and_then(|record| record.payouts.get_mut(&account));
        let payout = payout.ok_or(Reject::UnknownPayment)?;
        if payout.amount != amount {
            return Err(Reject::Malformed);
        }
        payout.unpaid(ledger, &Owner { account, currency, free: Amount::ZERO, unexplained: false })?;
        self.attention.insert((currency, account, number));
        Ok(())
    }

    /// The window of the payout that a debit of so much for an account must be: the oldest that the bank was told of and
    /// has not booked; one in transit before one that the account was given back.
    pub fn unbooked(&self, currency: Currency, account: &AccountId, amount: Amount) -> Option<u64> {
        let payouts = self.windows.iter().filter_map(|(number, window)| {
            let record = window.plans.get(&currency).filter(|record| record.instructed)?;
            Some((*number, record.payouts.get(account)?))
        });
        let fits = payouts.filter(|(_, payout)| payout.amount == amount && !payout.words.booked);
        fits.min_by_key(|(number, payout)| (!payout.in_transit, *number)).map(|(number, _)| number)
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

    /// A window is done once every payout of it is; one without a plan, when there is nothing to pay out (`nothing_due`).
    pub fn settle(&mut self, number: u64, nothing_due: impl FnOnce() -> bool) -> Result<(), Reject> {
        let window = self.get_mut(number)?;
        if window.state == WindowState::Settled {
            return Err(Reject::Stale);
        }
        let waits = |plan: &PlanRecord| plan.payouts.values().any(Payout::waits);
        let settled = if window.plans.is_empty() { nothing_due() } else { !window.plans.values().any(waits) };
        if !settled {
            return Err(Reject::Busy);
        }
        window.state = WindowState::Settled;
        self.forget_positions();
        Ok(())
    }
}

impl Window {
    fn restate(&mut self, rules: Rules<'_>) {
        if self.state == WindowState::Settled {
            return;
        }
        self.state = if self.plans.is_empty() {
            WindowState::CutOff
        } else if self.plans.values().any(|plan| plan.instructed) {
            WindowState::Instructed
        } else if self.plans.values().all(|plan| plan.is_approved(rules)) {
            WindowState::Approved
        } else {
            WindowState::Planned
        };
    }

    /// One hash for all that the window's plans say: the Merkle root over their digests, by currency. With one plan, its
    /// digest; none before there is one.
    pub fn plan_hash(&self) -> Option<Hash> {
        let digests: Vec<Hash> = self.plans.values().map(|record| record.digest).collect();
        (!digests.is_empty()).then(|| merkle::root(&digests))
    }
}

/// What a bank can move of an amount at once.
pub fn payout_of(payable: Amount, currency: Currency) -> Amount {
    payable.min(PAYOUT_MAX).floor_to_minor(minor_digits(currency))
}

fn amounts(payouts: &BTreeMap<AccountId, Payout>) -> impl Iterator<Item = (&AccountId, Amount)> + Clone {
    payouts.iter().map(|(account, payout)| (account, payout.amount))
}

#[cfg(test)]
mod tests;
