//! One payout: what the bank has said of it, and where its money is.
//!
//! The bank says four things, in any order, repeatedly, and not always all: it *confirms* or *refuses* (pain.002), it
//! *books* and it *books back* (camt). Only what it books moves cash, so that cash is what the bank's own statements add
//! up to. What a payout comes to follows from the set of what was said, not from its order:
//!
//! | said | the account | cash |
//! |---|---|---|
//! | nothing, or confirmed | in transit | |
//! | refused | payable again | |
//! | refused and confirmed: the bank contradicts itself, a booking decides | in transit | |
//! | booked, whatever else | paid | − |
//! | booked back, before it was booked | payable again, and in transit until it is booked | + |
//! | booked and booked back | payable again | − + |
//!
//! A person who has it from the bank, by another way, that it has not paid and will not, may say so while the money is in
//! transit: then the account has it again, like after a refusal that nothing contradicts.
//!
//! Money that was given back to the account after a refusal, and was paid out again before the bank booked the first
//! payout all the same, is short: nobody but a person can say who bears it, so it is listed like a debit that nobody knows.

use serde::{Deserialize, Serialize};
use weir_protocol::act::PayoutOutcome;
use weir_protocol::amount::{Amount, Currency};
use weir_protocol::id::AccountId;
use weir_protocol::reject::Reject;

use super::ledger::{Ledger, LedgerError, Place};

/// How far a payout has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayoutState {
    /// Fixed by the plan.
    Planned,
    /// In transit.
    Instructed,
    /// The bank booked it.
    Settled,
    /// Refused or come back: the account has it again.
    Returned,
}

/// What the bank has said of a payout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Words {
    /// It says that it paid.
    pub confirmed: bool,
    /// It says that it did not and will not pay.
    pub refused: bool,
    /// It booked the debit.
    pub booked: bool,
    /// It booked the money back.
    pub booked_back: bool,
    /// A person has it from the bank that it has not paid, whatever its messages said.
    pub unpaid: bool,
}

/// One payout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payout {
    /// How much: a whole number of minor units.
    pub amount: Amount,
    /// How far it has come.
    pub state: PayoutState,
    /// What the bank has said.
    pub words: Words,
    /// Whether its money lies in transit.
    pub in_transit: bool,
    /// What the bank booked of it although the account had been given it back, and had it no more.
    pub short: Amount,
}

/// What a payout's short money became when the bank's word was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Short {
    /// Nothing.
    Unchanged,
    /// So much is short now.
    Arose(Amount),
    /// The bank booked it back: no longer.
    Ended(Amount),
}

/// Where a payout's account is.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    /// The account.
    pub account: AccountId,
    /// The payout's currency.
    pub currency: Currency,
    /// What the account has payable that no plan waits for.
    pub free: Amount,
    /// Whether money of this payout that is short is still unexplained; if not, the hub has borne it.
    pub unexplained: bool,
}

impl Payout {
    /// A payout that a plan fixes.
    pub const fn planned(amount: Amount) -> Self {
        let words = Words { confirmed: false, refused: false, booked: false, booked_back: false, unpaid: false };
        Self { amount, state: PayoutState::Planned, words, in_transit: false, short: Amount::ZERO }
    }

    /// Whether the bank still has to say something of it.
    pub const fn waits(&self) -> bool {
        matches!(self.state, PayoutState::Planned) || self.in_transit
    }

    /// Whether somebody has to look at it: it came back, or the bank contradicts itself.
    pub const fn needs_attention(&self) -> bool {
        let Words { refused, booked, booked_back, unpaid, .. } = self.words;
        booked_back || (refused || unpaid) && (!booked || !self.short.is_zero())
    }

    /// The bank is told: the money leaves what is payable. A whole plan is moved at once instead, by the ledger.
    #[cfg(test)]
    pub(super) fn instruct(
        &mut self,
        ledger: &mut Ledger,
        currency: Currency,
        account: AccountId,
    ) -> Result<(), LedgerError> {
        ledger.move_owed(currency, Place::Payable(account), Place::InTransit(account), self.amount)?;
        self.in_transit = true;
        self.state = PayoutState::Instructed;
        Ok(())
    }

    /// The bank is told, and the ledger has moved the money of the whole plan.
    pub const fn instructed(&mut self) {
        self.in_transit = true;
        self.state = PayoutState::Instructed;
    }

    /// Takes the bank's word. `Stale`: it has said so before.
    pub fn hear(&mut self, outcome: PayoutOutcome, ledger: &mut Ledger, owner: &Owner) -> Result<Short, Reject> {
        if self.state == PayoutState::Planned {
            return Err(Reject::Stale);
        }
        let word = match outcome {
            PayoutOutcome::Settled => &mut self.words.booked,
            PayoutOutcome::Returned => &mut self.words.booked_back,
            PayoutOutcome::Refused => &mut self.words.refused,
            PayoutOutcome::Confirmed => &mut self.words.confirmed,
        };
        if *word {
            return Err(Reject::Stale);
        }
        *word = true;
        match outcome {
            PayoutOutcome::Settled => self.booked(ledger, owner),
            PayoutOutcome::Returned => self.booked_back(ledger, owner),
            PayoutOutcome::Refused => {
                let Words { confirmed, booked, booked_back, .. } = self.words;
                if self.in_transit && !confirmed && !booked && !booked_back {
                    self.shift(ledger, owner, Place::InTransit(owner.account), Place::Payable(owner.account))?;
                    self.in_transit = false;
                    self.state = PayoutState::Returned;
                }
                Ok(Short::Unchanged)
            }
            PayoutOutcome::Confirmed => {
                let Words { refused, booked, booked_back, unpaid, .. } = self.words;
                let only_refused = refused && !booked && !booked_back && !unpaid;
                if self.state == PayoutState::Returned && only_refused && owner.free >= self.amount {
                    self.shift(ledger, owner, Place::Payable(owner.account), Place::InTransit(owner.account))?;
                    self.in_transit = true;
                    self.state = PayoutState::Instructed;
                }
                Ok(Short::Unchanged)
            }
        }
    }

    /// A person has it from the bank that it has not paid: the account has the money again. `Stale`: it is not in transit,
    /// or the bank has booked it, one way or the other.
    pub fn unpaid(&mut self, ledger: &mut Ledger, owner: &Owner) -> Result<(), Reject> {
        if !self.in_transit || self.words.booked || self.words.booked_back {
            return Err(Reject::Stale);
        }
        self.shift(ledger, owner, Place::InTransit(owner.account), Place::Payable(owner.account))?;
        self.words.unpaid = true;
        self.in_transit = false;
        self.state = PayoutState::Returned;
        Ok(())
    }

    fn shift(&self, ledger: &mut Ledger, owner: &Owner, from: Place, to: Place) -> Result<(), Reject> {
        ledger.move_owed(owner.currency, from, to, self.amount).map_err(|_| Reject::Insufficient)
    }

    fn booked(&mut self, ledger: &mut Ledger, owner: &Owner) -> Result<Short, Reject> {
        let refused = |error| match error {
            LedgerError::Insufficient => Reject::Insufficient,
            LedgerError::Overflow => Reject::Overflow,
        };
        let mut short = Short::Unchanged;
        if self.in_transit {
            let from = Place::InTransit(owner.account);
            ledger.pay_out(owner.currency, from, self.amount).map_err(refused)?;
            self.in_transit = false;
        } else {
            // Refused before: the account was given it back.
            let part = owner.free.min(self.amount);
            let rest = self.amount.checked_sub(part).map_err(|_| Reject::Overflow)?;
            if ledger.read(owner.currency, &Place::Cash) < self.amount {
                return Err(Reject::Insufficient);
            }
            ledger.pay_out(owner.currency, Place::Payable(owner.account), part).map_err(refused)?;
            ledger.advance(owner.currency, Place::Unexplained, rest).map_err(refused)?;
            self.short = rest;
            if !rest.is_zero() {
                short = Short::Arose(rest);
            }
        }
        if !self.words.booked_back {
            self.state = PayoutState::Settled;
        }
        Ok(short)
    }

    fn booked_back(&mut self, ledger: &mut Ledger, owner: &Owner) -> Result<Short, Reject> {
        let overflow = |_| Reject::Overflow;
        // What follows may be two movements: a refusal must change nothing.
        ledger.check_assets(owner.currency, self.amount).map_err(overflow)?;
        if self.state == PayoutState::Returned {
            // The account has it already, by a refusal. The debit that this undoes is still to be booked.
            ledger.receive(owner.currency, Place::InTransit(owner.account), self.amount).map_err(overflow)?;
            self.in_transit = true;
            return Ok(Short::Unchanged);
        }
        let rest = self.amount.checked_sub(self.short).map_err(|_| Reject::Overflow)?;
        ledger.receive(owner.currency, Place::Payable(owner.account), rest).map_err(overflow)?;
        self.state = PayoutState::Returned;
        let short = core::mem::replace(&mut self.short, Amount::ZERO);
        if short.is_zero() {
            return Ok(Short::Unchanged);
        }
        let recovered = if owner.unexplained {
            ledger.recover(owner.currency, Place::Unexplained, short)
        } else {
            ledger.receive(owner.currency, Place::Fees, short)
        };
        recovered.map_err(overflow)?;
        Ok(Short::Ended(short))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use weir_protocol::keys::PublicKey;

    const EUR: Currency = Currency::EUR;
    const X: Amount = Amount::from_nanos(70);
    const WORDS: [PayoutOutcome; 4] =
        [PayoutOutcome::Confirmed, PayoutOutcome::Refused, PayoutOutcome::Settled, PayoutOutcome::Returned];

    fn account() -> AccountId {
        AccountId(PublicKey([7; 32]))
    }

    fn instructed() -> (Ledger, Payout) {
        let mut ledger = Ledger::default();
        ledger.receive(EUR, Place::Payable(account()), Amount::from_nanos(100)).unwrap();
        let mut payout = Payout::planned(X);
        payout.instruct(&mut ledger, EUR, account()).unwrap();
        (ledger, payout)
    }

    fn owner(ledger: &Ledger) -> Owner {
        let free = ledger.read(EUR, &Place::Payable(account()));
        Owner { account: account(), currency: EUR, free, unexplained: true }
    }

    /// Every sequence of different words, of every length.
    fn orders() -> Vec<Vec<PayoutOutcome>> {
        let mut all: Vec<Vec<PayoutOutcome>> = vec![Vec::new()];
        let mut from = 0;
        while from < all.len() {
            for word in WORDS {
                if !all[from].contains(&word) {
                    let mut longer = all[from].clone();
                    longer.push(word);
                    all.push(longer);
                }
            }
            from += 1;
        }
        all
    }

    /// What the set of words comes to: payable, in transit, cash (of 100 at first), state.
    fn expected(said: &[PayoutOutcome]) -> (u64, u64, u64, PayoutState) {
        let has = |word| said.contains(&word);
        let (confirmed, refused) = (has(PayoutOutcome::Confirmed), has(PayoutOutcome::Refused));
        match (has(PayoutOutcome::Settled), has(PayoutOutcome::Returned)) {
            (true, false) => (30, 0, 30, PayoutState::Settled),
            (true, true) => (100, 0, 100, PayoutState::Returned),
            (false, true) => (100, 70, 170, PayoutState::Returned),
            (false, false) if refused && !confirmed => (100, 0, 100, PayoutState::Returned),
            (false, false) => (30, 70, 100, PayoutState::Instructed),
        }
    }

    #[test]
    fn words_of_the_bank_in_every_order_and_repeated_come_to_the_same_end() {
        let orders = orders();
        assert_eq!(orders.len(), 65);
        for order in orders {
            let (mut ledger, mut payout) = instructed();
            for (heard, word) in order.iter().enumerate() {
                let at = owner(&ledger);
                payout.hear(*word, &mut ledger, &at).unwrap();
                for again in &order[..=heard] {
                    let (before, at) = (ledger.clone(), owner(&ledger));
                    assert_eq!(payout.hear(*again, &mut ledger, &at), Err(Reject::Stale), "{order:?}");
                    assert_eq!(ledger, before);
                }
                assert!(ledger.is_balanced(), "{order:?}");
            }
            let read = |place| ledger.read(EUR, &place).nanos();
            let end =
                (read(Place::Payable(account())), read(Place::InTransit(account())), read(Place::Cash), payout.state);
            assert_eq!(end, expected(&order), "{order:?}");
            assert_eq!(payout.in_transit, end.1 > 0);
        }
    }

    #[test]
    fn payout_booked_after_a_refusal_and_a_second_payout_is_short_until_it_is_booked_back() {
        for allocated in [false, true] {
            let (mut ledger, mut payout) = instructed();
            let at = owner(&ledger);
            payout.hear(PayoutOutcome::Refused, &mut ledger, &at).unwrap();
            // The account is paid out again: 90 of the 100 that it has.
            let mut second = Payout::planned(Amount::from_nanos(90));
            second.instruct(&mut ledger, EUR, account()).unwrap();
            ledger.receive(EUR, Place::Available(account()), Amount::from_nanos(500)).unwrap();
            let at = owner(&ledger);
            let short = payout.hear(PayoutOutcome::Settled, &mut ledger, &at).unwrap();
            assert_eq!(short, Short::Arose(Amount::from_nanos(60)));
            assert_eq!(ledger.read(EUR, &Place::Available(account())).nanos(), 500, "a deposit is not touched");
            assert!(ledger.is_balanced());
            if allocated {
                ledger.write_off(EUR, Place::Unexplained, Amount::from_nanos(60)).unwrap();
                assert_eq!(ledger.read(EUR, &Place::Shortfall).nanos(), 60);
            }
            let at = Owner { unexplained: !allocated, ..owner(&ledger) };
            let short = payout.hear(PayoutOutcome::Returned, &mut ledger, &at).unwrap();
            assert_eq!(short, Short::Ended(Amount::from_nanos(60)));
            ledger.cover(EUR);
            assert!(ledger.is_balanced());
            assert_eq!(ledger.read(EUR, &Place::Payable(account())).nanos(), 10);
            for place in [Place::Unexplained, Place::Shortfall, Place::Fees] {
                assert!(ledger.read(EUR, &place).is_zero(), "{place:?}");
            }
        }
    }

    #[test]
    fn payout_that_was_not_paid_goes_back_once_and_a_booking_decides_all_the_same() {
        for before in orders() {
            let (mut ledger, mut payout) = instructed();
            for word in &before {
                let at = owner(&ledger);
                payout.hear(*word, &mut ledger, &at).unwrap();
            }
            let booked = before.contains(&PayoutOutcome::Settled) || before.contains(&PayoutOutcome::Returned);
            let may = payout.in_transit && !booked;
            let at = owner(&ledger);
            assert_eq!(payout.unpaid(&mut ledger, &at), if may { Ok(()) } else { Err(Reject::Stale) }, "{before:?}");
            assert_eq!(payout.unpaid(&mut ledger, &at), Err(Reject::Stale), "once");
            if !may {
                continue;
            }
            assert_eq!(ledger.read(EUR, &Place::Payable(account())).nanos(), 100);
            for word in WORDS.into_iter().filter(|word| !before.contains(word)) {
                let (mut ledger, mut payout, at) = (ledger.clone(), payout, owner(&ledger));
                payout.hear(word, &mut ledger, &at).unwrap();
                assert!(ledger.is_balanced());
                let (payable, in_transit) = match word {
                    PayoutOutcome::Settled => (30, 0),
                    PayoutOutcome::Returned => (100, 70),
                    PayoutOutcome::Refused | PayoutOutcome::Confirmed => (100, 0),
                };
                let read = |place| ledger.read(EUR, &place).nanos();
                let found = (read(Place::Payable(account())), read(Place::InTransit(account())));
                assert_eq!(found, (payable, in_transit), "{before:?}, then {word:?}");
            }
        }
    }

    #[test]
    fn payout_that_the_bank_was_not_told_of_hears_nothing() {
        let mut ledger = Ledger::default();
        let mut payout = Payout::planned(X);
        let at = owner(&ledger);
        for word in WORDS {
            assert_eq!(payout.hear(word, &mut ledger, &at), Err(Reject::Stale));
        }
        assert!(payout.waits());
    }
}
