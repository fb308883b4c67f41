//! The model's view of what the bank does: what it says of payouts, what it takes, whose an entry is.

use std::collections::BTreeSet;

use weir_protocol::act::{Allocate, Debit, DebitCause, Outcome, PayoutOutcome};
use weir_protocol::id::AccountId;

use super::{Model, PayoutModel, Pot, nanos};
use crate::sim::log::{Checked, Failure, ensure};

/// What the bank has said of a payout, and what came of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    words: BTreeSet<u16>,
    /// The account has been given it back.
    open: bool,
    /// It is in transit no more.
    left: bool,
    /// What a second payment cost.
    short: i128,
}

const BOOKED: u16 = 0;
const BACK: u16 = 1;
const REFUSED: u16 = 2;
const CONFIRMED: u16 = 3;

impl Model {
    /// What an account has payable that no plan holds.
    fn free(&self, account: &AccountId) -> i128 {
        let held = self.windows.values().filter(|window| !window.instructed);
        let held: i128 = held.filter_map(|window| window.payouts.get(account)).map(|(amount, _)| amount).sum();
        self.money.of(account, Pot::Payable) - held
    }

    pub(super) fn outcome(&mut self, act: &Outcome) -> Checked {
        let account = act.account;
        let free = self.free(&account);
        let missing = || Failure("an outcome of no payout".into());
        let window = self.windows.get_mut(&act.window).ok_or_else(missing)?;
        let (amount, state) = window.payouts.get_mut(&account).ok_or_else(missing)?;
        let amount = *amount;
        ensure(amount == nanos(act.amount) && *state != PayoutModel::Planned, || {
            "an outcome of another payout".into()
        })?;
        let heard = self.heard.entry((act.window, account)).or_default();
        let word = match act.outcome {
            PayoutOutcome::Settled => BOOKED,
            PayoutOutcome::Returned => BACK,
            PayoutOutcome::Refused => REFUSED,
            PayoutOutcome::Confirmed => CONFIRMED,
        };
        ensure(heard.words.insert(word), || "the bank's word was taken twice".into())?;
        let said = |word: u16| heard.words.contains(&word);
        let (booked, back) = (said(BOOKED), said(BACK));
        let only = |word: u16| said(word) && !booked && !back;
        match word {
            BOOKED if !heard.left => {
                heard.left = true;
                self.money.cash -= amount;
                self.money.add(&account, Pot::InTransit, -amount)?;
            }
            BOOKED => {
                let part = free.clamp(0, amount);
                heard.open = false;
                heard.short = amount - part;
                self.money.cash -= amount;
                self.money.unexplained += amount - part;
                self.money.add(&account, Pot::Payable, -part)?;
            }
            BACK if heard.open => {
                heard.left = false;
                self.money.cash += amount;
                self.money.add(&account, Pot::InTransit, amount)?;
            }
            BACK => {
                heard.open = true;
                let short = std::mem::take(&mut heard.short);
                self.money.cash += amount;
                self.money.add(&account, Pot::Payable, amount - short)?;
                let listed = format!("paid twice/{} EUR {account}", act.window);
                if self.waiting.remove(&listed).is_some() {
                    self.money.unexplained -= short;
                } else {
                    self.money.fees += short;
                }
                self.money.cover();
            }
            REFUSED if only(REFUSED) && !said(CONFIRMED) && !heard.left => {
                (heard.open, heard.left) = (true, true);
                self.money.shift(&account, Pot::InTransit, Pot::Payable, amount)?;
            }
            CONFIRMED if only(REFUSED) && heard.open && free >= amount => {
                (heard.open, heard.left) = (false, false);
                self.money.shift(&account, Pot::Payable, Pot::InTransit, amount)?;
            }
            _ => {}
        }
        *state = match (heard.left, heard.open) {
            (false, _) => PayoutModel::Instructed,
            (true, true) => PayoutModel::Returned,
            (true, false) => PayoutModel::Settled,
        };
        if heard.short > 0 && word == BOOKED {
            let listed = format!("paid twice/{} EUR {account}", act.window);
            self.waiting.insert(listed, -heard.short);
        }
        Ok(())
    }

    pub(super) fn debit(&mut self, act: &Debit) -> Checked {
        let name = format!("{}/{}", act.connector, act.bank_reference);
        ensure(self.deposits.insert(name.clone()), || "a debit was posted twice".into())?;
        let amount = nanos(act.amount);
        self.money.cash -= amount;
        match act.cause {
            DebitCause::Charge => {
                self.money.shortfall += amount;
                self.money.cover();
            }
            DebitCause::Unknown => {
                self.money.unexplained += amount;
                self.waiting.insert(name, -amount);
            }
        }
        Ok(())
    }

    pub(super) fn allocate(&mut self, act: &Allocate) -> Checked {
        let name = format!("{}/{}", act.connector, act.bank_reference);
        let amount = self.waiting.remove(&name).ok_or_else(|| Failure("an entry was allocated twice".into()))?;
        ensure(amount.abs() == nanos(act.amount) && (amount > 0) == act.incoming, || "another entry".into())?;
        if let Some(account) =
            act.account.filter(|_| !act.incoming && !matches!(act.connector.as_str(), "paid twice" | "direct debit"))
        {
            // What left for an account and comes to a payout of its own, which the bank has not booked, is that payout.
            let unbooked = self.windows.iter().filter_map(|(number, window)| {
                let (planned, _) = window.payouts.get(&account).filter(|_| window.instructed)?;
                let heard = self.heard.get(&(*number, account));
                let booked = heard.is_some_and(|heard| heard.words.contains(&BOOKED));
                (*planned == -amount && !booked).then(|| (heard.is_some_and(|heard| heard.left), *number))
            });
            if let Some((_, window)) = unbooked.min() {
                self.money.unexplained += amount;
                self.money.cash -= amount;
                return self.outcome(&Outcome {
                    window,
                    account,
                    currency: act.currency,
                    amount: act.amount,
                    outcome: PayoutOutcome::Settled,
                    reference: act.bank_reference.clone(),
                });
            }
        }
        match (act.account, act.incoming) {
            (Some(account), true) => {
                self.money.suspense -= amount;
                self.money.add(&account, Pot::Available, amount)?;
            }
            (None, true) => {
                self.money.suspense -= amount;
                self.money.fees += amount;
            }
            (Some(account), false) => {
                self.money.unexplained += amount;
                self.money.add(&account, Pot::Available, amount)?;
            }
            (None, false) => {
                self.money.unexplained += amount;
                self.money.shortfall -= amount;
            }
        }
        self.debit_borne(&name, act.account);
        self.money.cover();
        Ok(())
    }
}
