//! Balances: double entry, per currency, integers only. Every movement takes from one ledger account and gives to
//! another, so nothing is created or destroyed; the sums are kept beside and compared at every commit.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeInclusive};

use serde::{Deserialize, Serialize};
use weir_protocol::amount::{Amount, Currency, NANOS_PER_UNIT};
use weir_protocol::id::AccountId;
use weir_protocol::keys::PublicKey;
use weir_protocol::wire::Balance;

/// Where money can be. `Cash`, `Shortfall` and `Unexplained` are assets; everything else is owed to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Place {
    /// Free to open channels with or to withdraw.
    Available(AccountId),
    /// In open channels and not spent.
    Locked(AccountId),
    /// Earned in the open window.
    Earned(AccountId),
    /// Earned in windows that are cut off, less fees, not yet paid out.
    Payable(AccountId),
    /// Marked for payout by its owner.
    Marked(AccountId),
    /// Instructed and not yet confirmed by the bank.
    InTransit(AccountId),
    /// Collected by direct debit, and its debtor may still take it back: cannot be spent.
    Provisional(AccountId),
    /// The hub's own.
    Fees,
    /// Arrived at the bank and matched to nobody.
    Suspense,
    /// At the bank.
    Cash,
    /// Charges of the bank, and other costs of the hub's own, beyond its fees: the hub owes it to its clients' money.
    Shortfall,
    /// Left the bank, and nobody knows yet for whom.
    Unexplained,
}

/// The sum of each kind of place, in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sums {
    /// Σ available.
    pub available: u128,
    /// Σ locked.
    pub locked: u128,
    /// Σ earned.
    pub earned: u128,
    /// Σ payable.
    pub payable: u128,
    /// Σ marked.
    pub marked: u128,
    /// Σ in transit.
    pub in_transit: u128,
    /// Σ provisional.
    pub provisional: u128,
    /// The hub's fees.
    pub fees: u128,
    /// Matched to nobody.
    pub suspense: u128,
    /// At the bank: with the two below it equals everything above.
    pub cash: u128,
    /// Owed by the hub itself.
    pub shortfall: u128,
    /// Left the bank for nobody knows whom.
    pub unexplained: u128,
}

impl Sums {
    /// What is owed, in nanos.
    pub const fn liabilities(&self) -> u128 {
        self.available
            + self.locked
            + self.earned
            + self.payable
            + self.marked
            + self.in_transit
            + self.provisional
            + self.fees
            + self.suspense
    }

    /// What is owed is covered by this, in nanos.
    pub const fn assets(&self) -> u128 {
        self.cash + self.shortfall + self.unexplained
    }

    fn of(&mut self, place: &Place) -> &mut u128 {
        match place {
            Place::Available(_) => &mut self.available,
            Place::Locked(_) => &mut self.locked,
            Place::Earned(_) => &mut self.earned,
            Place::Payable(_) => &mut self.payable,
            Place::Marked(_) => &mut self.marked,
            Place::InTransit(_) => &mut self.in_transit,
            Place::Provisional(_) => &mut self.provisional,
            Place::Fees => &mut self.fees,
            Place::Suspense => &mut self.suspense,
            Place::Cash => &mut self.cash,
            Place::Shortfall => &mut self.shortfall,
            Place::Unexplained => &mut self.unexplained,
        }
    }
}

/// One account's money in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Balances {
    /// See [`Place::Available`].
    pub available: Amount,
    /// See [`Place::Locked`].
    pub locked: Amount,
    /// See [`Place::Earned`].
    pub earned: Amount,
    /// See [`Place::Payable`].
    pub payable: Amount,
    /// See [`Place::Marked`].
    pub marked: Amount,
    /// See [`Place::InTransit`].
    pub in_transit: Amount,
    /// See [`Place::Provisional`].
    pub provisional: Amount,
    /// Paid to others in the open window. Not a place of money: it is counted for netting.
    pub spent: Amount,
    /// Payments received in the open window: counted for fees.
    pub payments: u64,
}

/// What a payee is paid by one group: the sum, and how many payments it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// Who is paid.
    pub payee: AccountId,
    /// How much in all.
    pub amount: Amount,
    /// With how many payments.
    pub payments: u32,
}

/// How a cut-off divides what an account earned: the rest becomes payable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Split {
    /// The hub's.
    pub fee: Amount,
    /// Available to its owner again.
    pub kept: Amount,
}

/// What a window came to for one account and currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Whose.
    pub account: AccountId,
    /// Payable from windows before.
    pub carried: Amount,
    /// Earned, less refunds.
    pub earned: Amount,
    /// Payments received.
    pub payments: u64,
    /// Paid to others.
    pub spent: Amount,
    /// The hub's fee.
    pub fee: Amount,
    /// Of the earnings: available again.
    pub kept: Amount,
    /// Marked for payout by the owner.
    pub marked: Amount,
}

impl Position {
    /// Payable from now on: `carried + earned − fee − kept + marked`.
    pub fn payable(&self) -> Amount {
        let net = self.earned.checked_sub(self.fee).and_then(|net| net.checked_sub(self.kept));
        // Parts of the bank's cash, which fits.
        let sum = net.and_then(|net| self.carried.checked_add(net)).and_then(|sum| sum.checked_add(self.marked));
        sum.unwrap_or(Amount::MAX)
    }

    /// Whether nothing was earned, marked or carried.
    pub const fn is_empty(&self) -> bool {
        self.carried.is_zero() && self.earned.is_zero() && self.marked.is_zero() && self.payments == 0
    }
}

impl Balances {
    /// The position that a cut-off would make of this.
    pub const fn position(&self, account: AccountId, split: Split) -> Position {
        Position {
            account,
            carried: self.payable,
            earned: self.earned,
            payments: self.payments,
            spent: self.spent,
            fee: split.fee,
            kept: split.kept,
            marked: self.marked,
        }
    }

    /// As the owner sees it.
    pub const fn info(&self, currency: Currency) -> Balance {
        Balance {
            currency,
            available: self.available,
            locked: self.locked,
            earned: self.earned,
            payable: self.payable,
            marked: self.marked,
            in_transit: self.in_transit,
            provisional: self.provisional,
        }
    }
}

/// A movement that the place it takes from cannot bear, or that the place it gives to cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Not so much there.
    #[error("balance is insufficient")]
    Insufficient,
    /// More than 2^64 − 1 nanos.
    #[error("balance overflows")]
    Overflow,
}

/// One side of a movement, as it was booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posting {
    /// The item of the commit that booked it.
    pub item: u32,
    /// The currency.
    pub currency: Currency,
    /// Where.
    pub place: Place,
    /// Whether there is more there than before.
    pub grows: bool,
    /// By how much.
    pub amount: Amount,
}

/// Notes every posting while a journal is read again for a report. Never part of the state.
#[derive(Debug, Clone, Default)]
struct Tape {
    item: u32,
    postings: Vec<Posting>,
}

/// The books of one currency's money.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ledger {
    accounts: BTreeMap<(Currency, AccountId), Balances>,
    fees: BTreeMap<Currency, Amount>,
    suspense: BTreeMap<Currency, Amount>,
    cash: BTreeMap<Currency, Amount>,
    shortfall: BTreeMap<Currency, Amount>,
    unexplained: BTreeMap<Currency, Amount>,
    sums: BTreeMap<Currency, Sums>,
    #[serde(skip)]
    tape: Notes,
}

/// A ledger is the same with and without a tape.
#[derive(Debug, Clone, Default)]
struct Notes(Option<Tape>);

impl PartialEq for Notes {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Notes {}

impl Notes {
    fn note(&mut self, currency: Currency, place: Place, grows: bool, amount: Amount) {
        if let Some(tape) = &mut self.0
            && !amount.is_zero()
        {
            tape.postings.push(Posting { item: tape.item, currency, place, grows, amount });
        }
    }
}

impl Ledger {
    /// Notes postings from now on, for a report.
    pub fn record(&mut self) {
        self.tape = Notes(Some(Tape::default()));
    }

    /// What is booked from now on belongs to this item of its commit.
    pub fn at_item(&mut self, item: u32) {
        if let Some(tape) = &mut self.tape.0 {
            tape.item = item;
        }
    }

    /// The postings noted since they were last taken, in order.
    pub fn take_postings(&mut self) -> Vec<Posting> {
        self.tape.0.as_mut().map(|tape| core::mem::take(&mut tape.postings)).unwrap_or_default()
    }

    fn note(&mut self, currency: Currency, place: Place, grows: bool, amount: Amount) {
        self.tape.note(currency, place, grows, amount);
    }

    /// Money arrives at the bank: cash grows, and somebody owns it. The only way money comes in.
    pub fn receive(&mut self, currency: Currency, to: Place, amount: Amount) -> Result<(), LedgerError> {
        let cash = self.read(currency, &Place::Cash).checked_add(amount).map_err(|_| LedgerError::Overflow)?;
        self.check_assets(currency, amount)?;
        self.give(currency, to, amount)?;
        self.write(currency, Place::Cash, cash);
        self.note(currency, Place::Cash, true, amount);
        *self.sums.entry(currency).or_default().of(&Place::Cash) += u128::from(amount.nanos());
        Ok(())
    }

    /// Money left the bank: cash shrinks with what was owed. The only way money goes out.
    pub fn pay_out(&mut self, currency: Currency, from: Place, amount: Amount) -> Result<(), LedgerError> {
        let cash = self.read(currency, &Place::Cash).checked_sub(amount).map_err(|_| LedgerError::Insufficient)?;
        self.take(currency, from, amount)?;
        self.write(currency, Place::Cash, cash);
        self.note(currency, Place::Cash, false, amount);
        *self.sums.entry(currency).or_default().of(&Place::Cash) -= u128::from(amount.nanos());
        Ok(())
    }

    /// Money left the bank and nobody has borne it: an asset stands for it.
    pub fn advance(&mut self, currency: Currency, asset: Place, amount: Amount) -> Result<(), LedgerError> {
        self.take(currency, Place::Cash, amount)?;
        self.give(currency, asset, amount)
    }

    /// Money that an asset stood for arrives at the bank.
    pub fn recover(&mut self, currency: Currency, asset: Place, amount: Amount) -> Result<(), LedgerError> {
        self.take(currency, asset, amount)?;
        self.give(currency, Place::Cash, amount)
    }

    /// What an asset stood for is borne by what is owed to somebody. Nothing changes when it is refused.
    pub fn bear(&mut self, currency: Currency, asset: Place, from: Place, amount: Amount) -> Result<(), LedgerError> {
        if self.read(currency, &asset) < amount {
            return Err(LedgerError::Insufficient);
        }
        self.take(currency, from, amount)?;
        self.take(currency, asset, amount)
    }

    /// The hub bears what an asset stood for: its fees, and beyond them it owes it.
    pub fn write_off(&mut self, currency: Currency, asset: Place, amount: Amount) -> Result<(), LedgerError> {
        self.take(currency, asset, amount)?;
        self.give(currency, Place::Shortfall, amount)?;
        self.cover(currency);
        Ok(())
    }

    /// Fees make good what the hub owes, as far as they go.
    pub fn cover(&mut self, currency: Currency) {
        let owed = self.read(currency, &Place::Shortfall);
        let amount = owed.min(self.read(currency, &Place::Fees));
        if !amount.is_zero() {
            let covered = self.bear(currency, Place::Shortfall, Place::Fees, amount);
            assert!(covered.is_ok(), "no more is covered than there is");
        }
    }

    /// All assets together fit 64 bits, so that no liability can overflow.
    pub(super) fn check_assets(&self, currency: Currency, more: Amount) -> Result<(), LedgerError> {
        let assets = self.sums.get(&currency).map_or(0, Sums::assets) + u128::from(more.nanos());
        if assets > u128::from(u64::MAX) { Err(LedgerError::Overflow) } else { Ok(()) }
    }

    /// Moves what is owed from one place to another. Nothing changes when it is refused.
    pub fn move_owed(&mut self, currency: Currency, from: Place, to: Place, amount: Amount) -> Result<(), LedgerError> {
        self.take(currency, from, amount)?;
        // Σ liabilities = Σ assets, and `receive` and `advance` keep those within 64 bits: a credit cannot overflow.
        self.give(currency, to, amount)
    }

    /// Moves what a payer has locked to what payees earned: one debit for all of them. Nothing changes when it is refused.
    pub fn pay(&mut self, currency: Currency, payer: AccountId, credits: &[Credit]) -> Result<(), LedgerError> {
        let sum = credits.iter().try_fold(Amount::ZERO, |sum, credit| sum.checked_add(credit.amount));
        let sum = sum.map_err(|_| LedgerError::Overflow)?;
        let held = self.accounts.get_mut(&(currency, payer)).ok_or(LedgerError::Insufficient)?;
        held.locked = held.locked.checked_sub(sum).map_err(|_| LedgerError::Insufficient)?;
        // A count, not money: round and round, a window's payments may pass what is at the bank.
        held.spent = held.spent.checked_add(sum).unwrap_or(Amount::MAX);
        self.tape.note(currency, Place::Locked(payer), false, sum);
        for credit in credits {
            let held = self.accounts.entry((currency, credit.payee)).or_default();
            // Σ liabilities = cash, and cash fits 64 bits: a credit cannot overflow.
            held.earned = held.earned.checked_add(credit.amount).map_err(|_| LedgerError::Overflow)?;
            held.payments = held.payments.saturating_add(u64::from(credit.payments));
            self.tape.note(currency, Place::Earned(credit.payee), true, credit.amount);
        }
        let sums = self.sums.entry(currency).or_default();
        sums.locked -= u128::from(sum.nanos());
        sums.earned += u128::from(sum.nanos());
        Ok(())
    }

    /// Ends a window in one currency: what was earned and marked goes where `split` says; `each` is told every position.
    /// One pass over the accounts.
    ///
    /// # Panics
    /// When a split takes more than was earned.
    pub fn cut_off(
        &mut self,
        currency: Currency,
        mut split: impl FnMut(&AccountId, &Balances) -> Split,
        mut each: impl FnMut(Position),
    ) {
        let mut fees = 0_u128;
        let mut moved = Sums::default();
        for ((_, account), held) in self.accounts.range_mut(whole(currency)) {
            let position = held.position(*account, split(account, held));
            (held.spent, held.payments) = (Amount::ZERO, 0);
            if position.is_empty() {
                continue;
            }
            assert!(
                u128::from(position.fee.nanos()) + u128::from(position.kept.nanos())
                    <= u128::from(position.earned.nanos()),
                "a cut-off takes no more than was earned"
            );
            held.payable = position.payable();
            (held.earned, held.marked) = (Amount::ZERO, Amount::ZERO);
            // Σ liabilities = cash, and cash fits 64 bits: a credit cannot overflow.
            held.available = held.available.checked_add(position.kept).unwrap_or(Amount::MAX);
            fees += u128::from(position.fee.nanos());
            moved.earned += u128::from(position.earned.nanos());
            moved.marked += u128::from(position.marked.nanos());
            moved.available += u128::from(position.kept.nanos());
            let gained = position.payable().checked_sub(position.carried).unwrap_or(Amount::ZERO);
            self.tape.note(currency, Place::Earned(*account), false, position.earned);
            self.tape.note(currency, Place::Marked(*account), false, position.marked);
            self.tape.note(currency, Place::Fees, true, position.fee);
            self.tape.note(currency, Place::Available(*account), true, position.kept);
            self.tape.note(currency, Place::Payable(*account), true, gained);
            each(position);
        }
        let own = self.fees.entry(currency).or_default();
        let all = u64::try_from(u128::from(own.nanos()) + fees);
        *own = Amount::from_nanos(all.unwrap_or(u64::MAX));
        let sums = self.sums.entry(currency).or_default();
        sums.earned -= moved.earned;
        sums.marked -= moved.marked;
        sums.available += moved.available;
        sums.fees += fees;
        sums.payable += moved.earned + moved.marked - moved.available - fees;
    }

    /// Moves payouts, ordered by account, from payable to in transit. One pass over the accounts. Nothing changes when it
    /// is refused.
    pub fn instruct<'a>(
        &mut self,
        currency: Currency,
        payouts: impl Iterator<Item = (&'a AccountId, Amount)> + Clone,
    ) -> Result<(), LedgerError> {
        let total = self.covers(currency, payouts.clone())?;
        let mut accounts = self.accounts.range_mut(whole(currency));
        for (account, amount) in payouts {
            if let Some((_, held)) = accounts.find(|((_, id), _)| id == account) {
                held.payable = held.payable.checked_sub(amount).map_err(|_| LedgerError::Insufficient)?;
                held.in_transit = held.in_transit.checked_add(amount).map_err(|_| LedgerError::Overflow)?;
                self.tape.note(currency, Place::Payable(*account), false, amount);
                self.tape.note(currency, Place::InTransit(*account), true, amount);
            }
        }
        let sums = self.sums.entry(currency).or_default();
        sums.payable -= total;
        sums.in_transit += total;
        Ok(())
    }

    /// Whether payouts, ordered by account, are all payable; their sum in nanos.
    pub fn covers<'a>(
        &self,
        currency: Currency,
        payouts: impl Iterator<Item = (&'a AccountId, Amount)>,
    ) -> Result<u128, LedgerError> {
        let mut accounts = self.accounts.range(whole(currency));
        let mut total = 0;
        for (account, amount) in payouts {
            let (_, held) = accounts.find(|((_, id), _)| id == account).ok_or(LedgerError::Insufficient)?;
            if held.payable < amount {
                return Err(LedgerError::Insufficient);
            }
            total += u128::from(amount.nanos());
        }
        Ok(total)
    }

    fn take(&mut self, currency: Currency, from: Place, amount: Amount) -> Result<(), LedgerError> {
        let left = self.read(currency, &from).checked_sub(amount).map_err(|_| LedgerError::Insufficient)?;
        self.write(currency, from, left);
        self.note(currency, from, false, amount);
        *self.sums.entry(currency).or_default().of(&from) -= u128::from(amount.nanos());
        Ok(())
    }

    fn give(&mut self, currency: Currency, to: Place, amount: Amount) -> Result<(), LedgerError> {
        let sum = self.read(currency, &to).checked_add(amount).map_err(|_| LedgerError::Overflow)?;
        self.write(currency, to, sum);
        self.note(currency, to, true, amount);
        *self.sums.entry(currency).or_default().of(&to) += u128::from(amount.nanos());
        Ok(())
    }

    /// What is at a place.
    pub fn read(&self, currency: Currency, place: &Place) -> Amount {
        let of = |account: &AccountId, part: fn(&Balances) -> Amount| {
            self.accounts.get(&(currency, *account)).map_or(Amount::ZERO, part)
        };
        let own = |map: &BTreeMap<Currency, Amount>| map.get(&currency).copied().unwrap_or(Amount::ZERO);
        match place {
            Place::Available(account) => of(account, |balances| balances.available),
            Place::Locked(account) => of(account, |balances| balances.locked),
            Place::Earned(account) => of(account, |balances| balances.earned),
            Place::Payable(account) => of(account, |balances| balances.payable),
            Place::Marked(account) => of(account, |balances| balances.marked),
            Place::InTransit(account) => of(account, |balances| balances.in_transit),
            Place::Provisional(account) => of(account, |balances| balances.provisional),
            Place::Fees => own(&self.fees),
            Place::Suspense => own(&self.suspense),
            Place::Cash => own(&self.cash),
            Place::Shortfall => own(&self.shortfall),
            Place::Unexplained => own(&self.unexplained),
        }
    }

    fn write(&mut self, currency: Currency, place: Place, amount: Amount) {
        let of = |account: AccountId| (currency, account);
        match place {
            Place::Available(account) => self.accounts.entry(of(account)).or_default().available = amount,
            Place::Locked(account) => self.accounts.entry(of(account)).or_default().locked = amount,
            Place::Earned(account) => self.accounts.entry(of(account)).or_default().earned = amount,
            Place::Payable(account) => self.accounts.entry(of(account)).or_default().payable = amount,
            Place::Marked(account) => self.accounts.entry(of(account)).or_default().marked = amount,
            Place::InTransit(account) => self.accounts.entry(of(account)).or_default().in_transit = amount,
            Place::Provisional(account) => self.accounts.entry(of(account)).or_default().provisional = amount,
            Place::Fees => {
                self.fees.insert(currency, amount);
            }
            Place::Suspense => {
                self.suspense.insert(currency, amount);
            }
            Place::Cash => {
                self.cash.insert(currency, amount);
            }
            Place::Shortfall => {
                self.shortfall.insert(currency, amount);
            }
            Place::Unexplained => {
                self.unexplained.insert(currency, amount);
            }
        }
    }

    /// Everybody's money in one currency, by account.
    pub fn accounts(&self, currency: Currency) -> impl Iterator<Item = (AccountId, &Balances)> {
        self.accounts.range(whole(currency)).map(|((_, account), balances)| (*account, balances))
    }

    /// The same, above an account.
    pub fn accounts_after(
        &self,
        currency: Currency,
        after: Option<AccountId>,
    ) -> impl Iterator<Item = (AccountId, &Balances)> {
        let all = whole(currency);
        let from = after.map_or(Bound::Included(*all.start()), |after| Bound::Excluded((currency, after)));
        let range = (from, Bound::Included(*all.end()));
        self.accounts.range(range).map(|((_, account), balances)| (*account, balances))
    }

    /// One account's money, by currency.
    pub fn balances(&self, account: &AccountId) -> impl Iterator<Item = (Currency, Balances)> {
        self.sums.keys().filter_map(|currency| Some((*currency, *self.accounts.get(&(*currency, *account))?)))
    }

    /// The running sums, by currency.
    pub const fn sums(&self) -> &BTreeMap<Currency, Sums> {
        &self.sums
    }

    /// Σ owed = Σ assets in every currency, by the running sums: asserted at every commit.
    pub fn is_balanced(&self) -> bool {
        self.sums.values().all(|sums| sums.liabilities() == sums.assets())
    }

    /// The sums recomputed from every single balance: what an audit compares the running ones with.
    pub fn recompute(&self) -> BTreeMap<Currency, Sums> {
        let mut all: BTreeMap<Currency, Sums> = BTreeMap::new();
        for ((currency, _), balances) in &self.accounts {
            let sums = all.entry(*currency).or_default();
            sums.available += u128::from(balances.available.nanos());
            sums.locked += u128::from(balances.locked.nanos());
            sums.earned += u128::from(balances.earned.nanos());
            sums.payable += u128::from(balances.payable.nanos());
            sums.marked += u128::from(balances.marked.nanos());
            sums.in_transit += u128::from(balances.in_transit.nanos());
            sums.provisional += u128::from(balances.provisional.nanos());
        }
        let mut own = |map: &BTreeMap<Currency, Amount>, place: Place| {
            for (currency, amount) in map {
                *all.entry(*currency).or_default().of(&place) += u128::from(amount.nanos());
            }
        };
        own(&self.fees, Place::Fees);
        own(&self.suspense, Place::Suspense);
        own(&self.cash, Place::Cash);
        own(&self.shortfall, Place::Shortfall);
        own(&self.unexplained, Place::Unexplained);
        all
    }
}

/// The keys of a currency's accounts.
const fn whole(currency: Currency) -> RangeInclusive<(Currency, AccountId)> {
    let (low, high) = (PublicKey([0; 32]), PublicKey([0xff; 32]));
    RangeInclusive::new((currency, AccountId(low)), (currency, AccountId(high)))
}

/// A sum of nanos, which may be more than an [`Amount`] holds, as amounts are written: `0.5`.
pub fn units(nanos: u128) -> String {
    let (whole, part) = (nanos / u128::from(NANOS_PER_UNIT), nanos % u128::from(NANOS_PER_UNIT));
    if part == 0 { whole.to_string() } else { format!("{whole}.{part:09}").trim_end_matches('0').to_owned() }
}

/// The same with a sign where it is below zero: `-0.5`.
pub fn signed_units(nanos: i128) -> String {
    format!("{}{}", if nanos < 0 { "-" } else { "" }, units(nanos.unsigned_abs()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EUR: Currency = Currency::EUR;

    fn account(n: u8) -> AccountId {
        AccountId(PublicKey([n; 32]))
    }

    #[test]
    fn sums_are_shown_exactly_down_to_a_nano() {
        for (nanos, text) in [
            (0, "0"),
            (1, "0.000000001"),
            (-50_000_000, "-0.05"),
            (10_000_000_000, "10"),
            (-1_000_000_001, "-1.000000001"),
            (i128::from(u64::MAX) + 1, "18446744073.709551616"),
        ] {
            assert_eq!(signed_units(nanos), text);
        }
    }

    #[test]
    fn movement_beyond_the_balance_is_refused_and_changes_nothing() {
        let mut ledger = Ledger::default();
        ledger.receive(EUR, Place::Available(account(1)), Amount::from_nanos(5)).unwrap();
        let before = ledger.clone();
        let (from, to) = (Place::Available(account(1)), Place::Locked(account(1)));
        assert_eq!(ledger.move_owed(EUR, from, to, Amount::from_nanos(6)), Err(LedgerError::Insufficient));
        assert_eq!(ledger, before);
        ledger.move_owed(EUR, from, to, Amount::from_nanos(5)).unwrap();
        assert_eq!(ledger.receive(EUR, to, Amount::MAX), Err(LedgerError::Overflow));
        assert!(ledger.is_balanced());
    }

    proptest! {
        #[test]
        fn any_movements_keep_the_books_balanced(steps in proptest::collection::vec((0_u8..6, 0_u8..4, 0_u8..4, 0_u64..1000), 0..200)) {
            let mut ledger = Ledger::default();
            for (kind, a, b, nanos) in steps {
                let amount = Amount::from_nanos(nanos);
                let _ = match kind {
                    0 => ledger.receive(EUR, Place::Available(account(a)), amount),
                    1 => ledger.pay_out(EUR, Place::InTransit(account(a)), amount),
                    2 => ledger.move_owed(EUR, Place::Available(account(a)), Place::Locked(account(a)), amount),
                    3 => ledger.move_owed(EUR, Place::Locked(account(a)), Place::Earned(account(b)), amount),
                    4 => ledger.move_owed(EUR, Place::Earned(account(a)), Place::Fees, amount),
                    _ => ledger.move_owed(EUR, Place::Earned(account(a)), Place::InTransit(account(a)), amount),
                };
                prop_assert!(ledger.is_balanced());
            }
            prop_assert_eq!(&ledger.recompute(), ledger.sums());
        }
    }
}
