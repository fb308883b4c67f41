#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use proptest::prelude::*;
use weir_protocol::act::{FeeSchedule, PayoutOutcome};

use super::*;
use crate::engine::fees::fee;
use crate::engine::ledger::Credit;

const EUR: Currency = Currency::EUR;

fn account(n: u8) -> AccountId {
    AccountId(PublicKey([n; 32]))
}

fn amount(nanos: u64) -> Amount {
    Amount::from_nanos(nanos)
}

/// A hub's money and windows without anybody around them.
#[derive(Default)]
struct World {
    ledger: Ledger,
    windows: Windows,
    operators: Operators,
    digests: u8,
}

impl World {
    fn rules(&self) -> Rules<'_> {
        Rules { operators: &self.operators, approvals: 0 }
    }

    fn planned(&mut self, window: u64, least: u64) -> Result<(), Reject> {
        let least = |id: &AccountId| self.windows.least(window, id, amount(least));
        let payouts = Windows::payouts(&self.ledger, EUR, least, |_| true);
        let total = payouts.values().map(|amount| amount.nanos()).sum();
        self.digests = self.digests.wrapping_add(1);
        let plan = Plan {
            number: 0,
            operator: None,
            window,
            currency: EUR,
            payouts: u32::try_from(payouts.len()).unwrap(),
            total: amount(total),
            root: Windows::plan_root(window, EUR, &payouts),
            file: Hash::ZERO,
        };
        let digest = Hash([self.digests; 32]);
        let rules = Rules { operators: &self.operators, approvals: 0 };
        self.windows.plan(&plan, digest, &payouts, (Hash::ZERO, BTreeMap::new()), rules)
    }

    fn step(&mut self, (kind, a, b, nanos): (u8, u8, u8, u64)) {
        let (from, to) = (account(a), account(b));
        let last = self.windows.open().saturating_sub(1);
        let digest = self.windows.get(last).and_then(|window| window.plans.get(&EUR)).map(|record| record.digest);
        let refused_is_fine: Result<(), ()> = match kind {
            0 => self.ledger.receive(EUR, Place::Available(from), amount(nanos)).map_err(drop),
            1 => self.ledger.move_owed(EUR, Place::Available(from), Place::Locked(from), amount(nanos)).map_err(drop),
            2 | 3 => {
                let credits = [Credit { payee: to, amount: amount(nanos / 3), payments: 2 }];
                self.ledger.pay(EUR, from, &credits).map_err(drop)
            }
            // A refund.
            4 => self.ledger.move_owed(EUR, Place::Earned(from), Place::Available(to), amount(nanos / 9)).map_err(drop),
            5 => self.ledger.move_owed(EUR, Place::Available(from), Place::Marked(from), amount(nanos)).map_err(drop),
            6 => {
                let schedule = FeeSchedule {
                    basis_points: u32::from(a) * 900,
                    per_payment: amount(nanos % 1_000),
                    minimum: amount(nanos % 77),
                };
                let number = self.windows.open();
                let split = |_, id: &AccountId, held: &Balances| {
                    let fee = fee(&schedule, held.earned, held.payments);
                    let net = held.earned.checked_sub(fee).unwrap();
                    let kept = if *id == to { net.min(held.spent) } else { Amount::ZERO };
                    Split { fee, kept }
                };
                self.windows.cut_off(number, &mut self.ledger, split, (number, Time(number))).map_err(drop)
            }
            7 => self.planned(last, nanos).map_err(drop),
            8 if b == 0 => {
                let abort = Abort {
                    number: 0,
                    operator: None,
                    window: last,
                    currency: EUR,
                    plan: digest.unwrap_or(Hash::ZERO),
                    reason: String::new(),
                };
                let rules = Rules { operators: &self.operators, approvals: 0 };
                self.windows.abort(&abort, rules).map_err(drop)
            }
            8 | 9 => {
                let instruct = Instruct { window: last, currency: EUR, plan: digest.unwrap_or(Hash::ZERO) };
                let rules = Rules { operators: &self.operators, approvals: 0 };
                let may = self.windows.may_instruct(last, EUR, &self.ledger, rules, |_| Hash::ZERO, |_| true).map(drop);
                let done = self.windows.instruct(&instruct, &mut self.ledger, rules).map(drop);
                assert_eq!(may.is_ok(), done.is_ok(), "the rule and the act agree: {may:?}, {done:?}");
                done.map_err(drop)
            }
            10 => {
                let words = [
                    PayoutOutcome::Settled,
                    PayoutOutcome::Settled,
                    PayoutOutcome::Returned,
                    PayoutOutcome::Refused,
                    PayoutOutcome::Confirmed,
                ];
                let window = self.windows.get(u64::from(b % 3) + 1);
                let payout = window.and_then(|window| window.plans.get(&EUR)?.payouts.get(&from)).copied();
                let outcome = Outcome {
                    window: u64::from(b % 3) + 1,
                    account: from,
                    currency: EUR,
                    amount: payout.map_or(Amount::ZERO, |payout| payout.amount),
                    outcome: words[usize::try_from(nanos % 5).unwrap()],
                    reference: String::new(),
                };
                self.windows.outcome(&outcome, &mut self.ledger, true).map(drop).map_err(drop)
            }
            _ => self.windows.settle(last, || true).map_err(drop),
        };
        let _ = refused_is_fine;
    }
}

proptest! {
    #[test]
    fn random_windows_conserve_money_to_the_nano(
        steps in proptest::collection::vec((0_u8..12, 0_u8..5, 0_u8..5, 0_u64..40_000_000), 0..400),
    ) {
        let mut world = World::default();
        for step in steps {
            world.step(step);
            prop_assert!(world.ledger.is_balanced(), "after {step:?}");
        }
        prop_assert_eq!(&world.ledger.recompute(), world.ledger.sums());
        for (number, window) in world.windows.iter() {
            for (currency, positions) in &window.positions {
                let totals = window.totals.get(currency).copied().unwrap();
                let sum = |part: fn(&Position) -> Amount| -> u64 { positions.iter().map(|one| part(one).nanos()).sum() };
                prop_assert_eq!(sum(|one| one.earned), totals.earned.nanos(), "window {}", number);
                prop_assert_eq!(sum(|one| one.fee), totals.fees.nanos());
                prop_assert_eq!(
                    sum(Position::payable),
                    totals.carried.nanos() + totals.earned.nanos() - totals.fees.nanos() - totals.kept.nanos()
                        + totals.marked.nanos()
                );
            }
        }
        let _ = world.rules();
    }
}

#[test]
fn payout_is_whole_cents_and_no_more_than_a_transfer_moves() {
    assert_eq!(payout_of(amount(9_999_999), EUR), Amount::ZERO);
    assert_eq!(payout_of(amount(10_000_001), EUR), amount(10_000_000));
    assert_eq!(payout_of(PAYOUT_MAX, EUR), PAYOUT_MAX);
    assert_eq!(payout_of(Amount::MAX, EUR), PAYOUT_MAX);
}

#[test]
fn position_divides_what_was_earned_and_starts_anew() {
    let mut world = World::default();
    for (who, nanos) in [(1, 1_000), (2, 100)] {
        world.ledger.receive(EUR, Place::Available(account(who)), amount(nanos)).unwrap();
        let (from, to) = (Place::Available(account(who)), Place::Locked(account(who)));
        world.ledger.move_owed(EUR, from, to, amount(nanos)).unwrap();
    }
    let credit = |payee, nanos| [Credit { payee: account(payee), amount: amount(nanos), payments: 3 }];
    world.ledger.pay(EUR, account(1), &credit(2, 500)).unwrap();
    world.ledger.pay(EUR, account(2), &credit(1, 60)).unwrap();
    let split = |_, id: &AccountId, held: &Balances| {
        assert_eq!(held.payments, 3);
        let kept = if *id == account(2) { held.spent } else { Amount::ZERO };
        Split { fee: amount(10), kept }
    };
    world.windows.cut_off(1, &mut world.ledger, split, (9, Time(9))).unwrap();
    let read = |place| world.ledger.read(EUR, &place).nanos();
    assert_eq!((read(Place::Payable(account(2))), read(Place::Available(account(2)))), (430, 60));
    assert_eq!((read(Place::Payable(account(1))), read(Place::Fees)), (50, 20));
    let totals = world.windows.get(1).unwrap().totals[&EUR];
    assert_eq!((totals.earned, totals.nettable, totals.kept), (amount(560), amount(120), amount(60)));
    assert_eq!((totals.payments, totals.accounts), (6, 2));
    let nothing = |_: Currency, _: &AccountId, held: &Balances| {
        assert_eq!((held.payments, held.spent), (0, Amount::ZERO), "the next window begins with nothing");
        Split::default()
    };
    world.windows.cut_off(2, &mut world.ledger, nothing, (10, Time(10))).unwrap();
}
