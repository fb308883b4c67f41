//! The model's money: signed sums, so that a wrong movement shows instead of being refused.

use std::collections::BTreeMap;

use weir_protocol::id::AccountId;

use crate::sim::log::{Checked, ensure};

/// Where an account's money is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pot {
    Available,
    Locked,
    Earned,
    Payable,
    Marked,
    InTransit,
    Provisional,
}

/// All money, in nanos.
#[derive(Debug, Default)]
pub(crate) struct Money {
    pots: BTreeMap<(AccountId, Pot), i128>,
    /// The hub's own.
    pub(crate) fees: i128,
    /// Nobody's.
    pub(crate) suspense: i128,
    /// At the bank.
    pub(crate) cash: i128,
    /// Owed by the hub itself.
    pub(crate) shortfall: i128,
    /// Left the bank for nobody knows whom.
    pub(crate) unexplained: i128,
}

impl Money {
    /// What an account has in a pot.
    pub(crate) fn of(&self, account: &AccountId, pot: Pot) -> i128 {
        self.pots.get(&(*account, pot)).copied().unwrap_or(0)
    }

    /// Adds to a pot; it must not fall below zero.
    pub(crate) fn add(&mut self, account: &AccountId, pot: Pot, nanos: i128) -> Checked {
        let held = self.pots.entry((*account, pot)).or_default();
        *held += nanos;
        let held = *held;
        ensure(held >= 0, || format!("{pot:?} of {account} falls to {held}"))
    }

    /// Moves between the pots of an account.
    pub(crate) fn shift(&mut self, account: &AccountId, from: Pot, to: Pot, nanos: i128) -> Checked {
        self.add(account, from, -nanos)?;
        self.add(account, to, nanos)
    }

    /// Everybody with something in a pot.
    pub(crate) fn holders(&self) -> impl Iterator<Item = (&AccountId, Pot, i128)> {
        self.pots.iter().map(|((account, pot), nanos)| (account, *pot, *nanos))
    }

    /// Fees make good what the hub owes.
    pub(crate) fn cover(&mut self) {
        let covered = self.fees.min(self.shortfall).max(0);
        self.fees -= covered;
        self.shortfall -= covered;
    }

    /// Invariant 3: what is owed is at the bank, or stood for by name, and nothing is negative.
    pub(crate) fn invariant_sums(&self) -> Checked {
        let owed: i128 = self.pots.values().sum::<i128>() + self.fees + self.suspense;
        let assets = self.cash + self.shortfall + self.unexplained;
        ensure(owed == assets, || format!("invariant 3: {owed} is owed, {assets} is there"))?;
        let own = [self.fees, self.suspense, self.cash, self.shortfall, self.unexplained];
        let lowest = self.pots.values().chain(&own).min().copied().unwrap_or(0);
        ensure(lowest >= 0, || format!("a balance is {lowest}"))
    }
}
