//! Every order of the bank's words, repeated, with the money spent or not.
#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use super::*;
use crate::engine::operators::Operators;
use weir_protocol::act::Operator;
use weir_protocol::keys::{PublicKey, SecretKey};

const EUR: Currency = Currency::EUR;
const CENT: u64 = 10_000_000;
const X: u64 = 70 * CENT;
const WORDS: [CollectionWord; 3] = [CollectionWord::Booked, CollectionWord::Returned, CollectionWord::Refused];
const DAYS: u32 = 56;

fn account() -> AccountId {
    AccountId(PublicKey([7; 32]))
}

fn nanos(nanos: u64) -> Amount {
    Amount::from_nanos(nanos)
}

fn mandate(scheme: MandateScheme, id: &str) -> Mandate {
    let (mandate_id, iban) = (id.to_owned(), "DE89370400440532013000".to_owned());
    Mandate { number: 1, account: account(), scheme, mandate_id, iban, signed_at: Time(5), revoked: false }
}

fn terms(id: &str, at_once: u64, days: u32) -> MandateTerms {
    let (mandate_id, at_once) = (id.to_owned(), nanos(at_once));
    MandateTerms { account: account(), mandate_id, accepted: true, at_once, provisional_days: days }
}

fn collect(number: u64, amount: u64, first: bool) -> Collect {
    Collect {
        collection: number,
        account: account(),
        mandate_id: "M".into(),
        currency: EUR,
        amount: nanos(amount),
        created_at: Time(10),
        due: Time(14 * DAY_MS),
        first,
        file: Hash::ZERO,
    }
}

fn said(number: u64, amount: u64, word: CollectionWord) -> Collected {
    let (currency, amount) = (EUR, nanos(amount));
    Collected { collection: number, account: account(), currency, amount, word, reference: String::new() }
}

/// The bank is told where nobody need agree.
fn tell(all: &mut Collections, act: &Collect, now: Time) -> Result<(), Reject> {
    let operators = Operators::default();
    all.collect_act(act, "Ada", Rules { operators: &operators, approvals: 0 }, now).map_err(NotCollected::reject)
}

/// The hub has 1,000 cents of others at the bank; a mandate is accepted; one collection is told.
fn told(scheme: MandateScheme, at_once: u64) -> (Ledger, Collections) {
    let mut ledger = Ledger::default();
    ledger.receive(EUR, Place::Available(AccountId(PublicKey([9; 32]))), nanos(1000 * CENT)).unwrap();
    let mut all = Collections::default();
    all.mandate_act(&mandate(scheme, "M"), Time(10), 0).unwrap();
    let days = if scheme == MandateScheme::Core { DAYS } else { 0 };
    all.terms_act(&terms("M", at_once, days)).unwrap();
    tell(&mut all, &collect(1, X, true), Time(10)).unwrap();
    (ledger, all)
}

fn read(ledger: &Ledger, place: Place) -> u64 {
    ledger.read(EUR, &place).nanos()
}

fn check(ledger: &Ledger, all: &Collections) {
    assert!(ledger.is_balanced());
    assert_eq!(&ledger.recompute(), ledger.sums());
    assert_eq!(read(ledger, Place::Provisional(account())), all.provisional_of(account()));
}

fn orders() -> Vec<Vec<CollectionWord>> {
    let mut all: Vec<Vec<CollectionWord>> = vec![Vec::new()];
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

#[test]
fn words_of_the_bank_in_every_order_and_repeated_come_to_the_same_end() {
    assert_eq!(orders().len(), 16);
    for (scheme, at_once, counts) in
        [(MandateScheme::Core, 0, 0), (MandateScheme::Core, 30 * CENT, 30 * CENT), (MandateScheme::B2b, 0, X)]
    {
        for order in orders() {
            let (mut ledger, mut all) = told(scheme, at_once);
            for (heard, word) in order.iter().enumerate() {
                all.hear(&said(1, X, *word), &mut ledger, Time(20)).unwrap();
                for again in &order[..=heard] {
                    let before = (ledger.clone(), all.clone());
                    assert_eq!(all.hear(&said(1, X, *again), &mut ledger, Time(21)), Err(Reject::Stale), "{order:?}");
                    assert_eq!((ledger.clone(), all.clone()), before);
                }
                check(&ledger, &all);
            }
            let has = |word| order.contains(&word);
            let (available, provisional, cash, unexplained) =
                match (has(CollectionWord::Booked), has(CollectionWord::Returned)) {
                    (true, false) => (counts, X - counts, 1000 * CENT + X, 0),
                    (false, true) => (0, 0, 1000 * CENT - X, X),
                    (true, true) | (false, false) => (0, 0, 1000 * CENT, 0),
                };
            let found = (
                read(&ledger, Place::Available(account())),
                read(&ledger, Place::Provisional(account())),
                read(&ledger, Place::Cash),
                read(&ledger, Place::Unexplained),
            );
            assert_eq!(found, (available, provisional, cash, unexplained), "{scheme:?} {order:?}");
            assert!(all.owing().is_empty(), "nothing was spent");
        }
    }
}

#[test]
fn spent_collection_that_comes_back_is_short_and_its_account_owes() {
    for (scheme, at_once, counted) in [(MandateScheme::Core, 30 * CENT, 30 * CENT), (MandateScheme::B2b, 0, X)] {
        let (mut ledger, mut all) = told(scheme, at_once);
        all.hear(&said(1, X, CollectionWord::Booked), &mut ledger, Time(20)).unwrap();
        // Ten cents stay.
        let (from, to) = (Place::Available(account()), Place::Locked(account()));
        ledger.move_owed(EUR, from, to, nanos(counted - 10 * CENT)).unwrap();
        let short = all.hear(&said(1, X, CollectionWord::Returned), &mut ledger, Time(21)).unwrap();
        assert_eq!(short, ShortOf::Arose(nanos(counted - 10 * CENT)));
        assert!(all.owing().contains(&account()));
        assert_eq!(read(&ledger, Place::Unexplained), counted - 10 * CENT);
        assert_eq!(read(&ledger, Place::Cash), 1000 * CENT);
        assert_eq!((read(&ledger, from), read(&ledger, to)), (0, counted - 10 * CENT), "locked money is not touched");
        check(&ledger, &all);
        all.mature(&mut ledger, Time(u64::MAX));
        check(&ledger, &all);
        all.answered(&account());
        assert!(all.owing().is_empty());
    }
}

#[test]
fn other_provisional_money_bears_what_available_does_not() {
    let (mut ledger, mut all) = told(MandateScheme::Core, X);
    tell(&mut all, &collect(2, 50 * CENT, false), Time(11)).unwrap();
    all.hear(&said(1, X, CollectionWord::Booked), &mut ledger, Time(20)).unwrap();
    all.hear(&said(2, 50 * CENT, CollectionWord::Booked), &mut ledger, Time(20)).unwrap();
    // The limit is used up by the first: all of the second is provisional.
    assert_eq!(read(&ledger, Place::Provisional(account())), 50 * CENT);
    ledger.move_owed(EUR, Place::Available(account()), Place::Locked(account()), nanos(X)).unwrap();
    let short = all.hear(&said(1, X, CollectionWord::Returned), &mut ledger, Time(21)).unwrap();
    assert_eq!(short, ShortOf::Arose(nanos(20 * CENT)));
    check(&ledger, &all);
    // What bore it is gone when it comes back itself.
    let short = all.hear(&said(2, 50 * CENT, CollectionWord::Returned), &mut ledger, Time(22)).unwrap();
    assert_eq!(short, ShortOf::Arose(nanos(50 * CENT)));
    assert_eq!(read(&ledger, Place::Unexplained), X);
    check(&ledger, &all);
}

#[test]
fn provisional_money_becomes_available_at_its_time_and_can_come_back_after_it() {
    let (mut ledger, mut all) = told(MandateScheme::Core, 30 * CENT);
    all.hear(&said(1, X, CollectionWord::Booked), &mut ledger, Time(20)).unwrap();
    let until = 20 + u64::from(DAYS) * DAY_MS;
    all.mature(&mut ledger, Time(until - 1));
    assert_eq!(read(&ledger, Place::Available(account())), 30 * CENT);
    all.mature(&mut ledger, Time(until));
    assert_eq!(read(&ledger, Place::Available(account())), X);
    check(&ledger, &all);
    // An unauthorised collection may be taken back for thirteen months.
    all.hear(&said(1, X, CollectionWord::Returned), &mut ledger, Time(until + 1)).unwrap();
    assert_eq!(read(&ledger, Place::Available(account())), 0);
    check(&ledger, &all);
}

#[test]
fn return_before_the_booking_that_was_allocated_goes_back_to_whoever_bore_it() {
    for bearer in [None, Some(account())] {
        let (mut ledger, mut all) = told(MandateScheme::Core, 0);
        ledger.receive(EUR, Place::Available(account()), nanos(X)).unwrap();
        all.hear(&said(1, X, CollectionWord::Returned), &mut ledger, Time(20)).unwrap();
        match bearer {
            None => ledger.write_off(EUR, Place::Unexplained, nanos(X)).unwrap(),
            Some(account) => ledger.bear(EUR, Place::Unexplained, Place::Available(account), nanos(X)).unwrap(),
        }
        all.borne("1", bearer);
        all.hear(&said(1, X, CollectionWord::Booked), &mut ledger, Time(21)).unwrap();
        check(&ledger, &all);
        assert_eq!(read(&ledger, Place::Available(account())), X);
        for place in [Place::Unexplained, Place::Shortfall, Place::Fees, Place::Provisional(account())] {
            assert_eq!(read(&ledger, place), 0, "{place:?}");
        }
    }
}

#[test]
fn return_beyond_what_is_at_the_bank_is_refused_and_changes_nothing() {
    let mut ledger = Ledger::default();
    let (_, mut all) = told(MandateScheme::Core, 0);
    let before = (ledger.clone(), all.clone());
    let heard = all.hear(&said(1, X, CollectionWord::Returned), &mut ledger, Time(20));
    assert_eq!(heard, Err(Reject::Insufficient));
    assert_eq!((ledger.clone(), all.clone()), before);
    let other = all.hear(&said(1, X + CENT, CollectionWord::Booked), &mut ledger, Time(20));
    assert_eq!(other, Err(Reject::Malformed));
    assert_eq!(all.hear(&said(2, X, CollectionWord::Booked), &mut ledger, Time(20)), Err(Reject::UnknownPayment));
    assert_eq!((ledger, all), before);
}

#[test]
fn mandate_is_used_once_accepted_one_at_a_time_and_never_after_its_end() {
    let mut all = Collections::default();
    assert_eq!(
        all.mandate_act(&Mandate { iban: "DE00".into(), ..mandate(MandateScheme::Core, "M") }, Time(10), 0),
        Err(Reject::Iban)
    );
    assert_eq!(all.mandate_act(&mandate(MandateScheme::Core, "a b"), Time(10), 0), Err(Reject::Malformed));
    assert_eq!(all.mandate_act(&mandate(MandateScheme::Core, "M"), Time(4), 0), Err(Reject::Clock));
    all.mandate_act(&mandate(MandateScheme::Core, "M"), Time(10), 0).unwrap();
    let other = AccountId(PublicKey([8; 32]));
    let taken = Mandate { account: other, ..mandate(MandateScheme::Core, "M") };
    assert_eq!(all.mandate_act(&taken, Time(10), 0), Err(Reject::Exists));
    assert_eq!(tell(&mut all, &collect(1, X, true), Time(10)), Err(Reject::NotApproved));
    all.mandate_act(&mandate(MandateScheme::B2b, "N"), Time(10), 0).unwrap();
    assert_eq!(all.terms_act(&terms("N", 1, 0)), Err(Reject::Malformed), "B2B has nothing provisional");
    all.terms_act(&terms("M", 0, DAYS)).unwrap();
    assert_eq!(all.terms_act(&terms("N", 0, 0)), Err(Reject::Exists));
    assert_eq!(tell(&mut all, &collect(2, X, true), Time(10)), Err(Reject::Malformed), "numbers have no gaps");
    assert_eq!(tell(&mut all, &collect(1, X + 1, true), Time(10)), Err(Reject::Malformed), "whole cents");
    assert_eq!(tell(&mut all, &collect(1, 0, true), Time(10)), Err(Reject::Zero));
    assert_eq!(tell(&mut all, &collect(1, X, false), Time(10)), Err(Reject::Stale), "it is the first");
    tell(&mut all, &collect(1, X, true), Time(10)).unwrap();
    assert_eq!(tell(&mut all, &collect(1, X, true), Time(10)), Err(Reject::Stale), "told once");
    // After a refusal the next one is the first again.
    let mut ledger = Ledger::default();
    all.hear(&said(1, X, CollectionWord::Refused), &mut ledger, Time(20)).unwrap();
    tell(&mut all, &collect(2, X, true), Time(10)).unwrap();
    all.mandate_act(&Mandate { revoked: true, ..mandate(MandateScheme::Core, "M") }, Time(11), 0).unwrap();
    assert_eq!(all.terms_act(&terms("M", 0, DAYS)), Err(Reject::Revoked));
    assert_eq!(tell(&mut all, &collect(3, X, false), Time(12)), Err(Reject::Revoked));
    // What was told before the end is booked all the same.
    all.hear(&said(2, X, CollectionWord::Booked), &mut ledger, Time(21)).unwrap();
    check(&ledger, &all);
    all.terms_act(&terms("N", 0, 0)).unwrap();
}

fn key(seed: u8) -> PublicKey {
    SecretKey::from_bytes(&[seed; 32]).unwrap().public()
}

fn change(operators: &mut Operators, seed: u8, stands: bool) {
    let name = "Somebody".to_owned();
    operators.change(&Operator { number: 0, by: None, key: key(seed), stands, name }).unwrap();
}

fn agree(all: &mut Collections, by: u8, approved: bool, collect: &Collect) -> Result<(), Reject> {
    let act = ApproveCollect { number: 1, operator: key(by), approved, collect: collect.clone() };
    all.approve_act(&act, "Ada", Time(10))
}

#[test]
fn collection_that_needs_approvals_is_told_once_enough_others_agree_who_stand() {
    let mut operators = Operators::default();
    (1..=4).for_each(|seed| change(&mut operators, seed, true));
    let (_, mut all) = told(MandateScheme::Core, 0);
    let wanted = collect(2, X, false);
    let may = |all: &Collections, operators: &Operators, act: &Collect, name: &str| {
        all.may_collect(act, name, Rules { operators, approvals: 2 }, Time(10)).map(|_| ())
    };
    assert_eq!(may(&all, &operators, &wanted, "Ada"), Err(NotCollected::NoPlan { needed: 2 }));
    assert_eq!(agree(&mut all, 1, true, &collect(3, X, false)), Err(Reject::Malformed), "numbers are in a row");
    agree(&mut all, 1, true, &wanted).unwrap();
    assert_eq!(agree(&mut all, 1, true, &wanted), Err(Reject::Unauthenticated), "nobody agrees with himself");
    agree(&mut all, 2, true, &wanted).unwrap();
    assert_eq!(agree(&mut all, 2, true, &wanted), Err(Reject::Exists));
    assert_eq!(may(&all, &operators, &wanted, "Ada"), Err(NotCollected::Approvals { given: 1, needed: 2 }));
    let more = Collect { amount: nanos(X + CENT), ..wanted.clone() };
    assert_eq!(agree(&mut all, 3, true, &more), Err(Reject::Stale), "to what was planned, or not at all");
    agree(&mut all, 3, true, &wanted).unwrap();
    assert_eq!(may(&all, &operators, &wanted, "Ada"), Ok(()));
    assert_eq!(may(&all, &operators, &more, "Ada"), Err(NotCollected::OtherPlan));
    assert_eq!(may(&all, &operators, &wanted, "Eve"), Err(NotCollected::Name));
    change(&mut operators, 3, false);
    assert_eq!(may(&all, &operators, &wanted, "Ada"), Err(NotCollected::Approvals { given: 1, needed: 2 }));
    change(&mut operators, 3, true);
    change(&mut operators, 1, false);
    assert_eq!(may(&all, &operators, &wanted, "Ada"), Err(NotCollected::Planner));
    change(&mut operators, 1, true);
    all.collect_act(&wanted, "Ada", Rules { operators: &operators, approvals: 2 }, Time(10)).unwrap();
    assert!(all.plans().is_empty());
    assert_eq!(all.get(2).unwrap().told, wanted);
    assert_eq!(agree(&mut all, 4, true, &wanted), Err(Reject::Stale), "it was told");
}

#[test]
fn collection_given_up_leaves_its_number_and_several_may_wait() {
    let (_, mut all) = told(MandateScheme::Core, 0);
    agree(&mut all, 1, true, &collect(2, X, false)).unwrap();
    agree(&mut all, 1, true, &collect(3, X, false)).unwrap();
    assert_eq!(all.next(), 4);
    assert_eq!(agree(&mut all, 2, false, &collect(3, X + CENT, false)), Err(Reject::Stale));
    agree(&mut all, 2, false, &collect(3, X, false)).unwrap();
    assert_eq!(agree(&mut all, 2, false, &collect(3, X, false)), Err(Reject::Stale), "once");
    assert_eq!(all.next(), 3);
    tell(&mut all, &collect(3, X, false), Time(11)).unwrap();
    assert_eq!(all.next(), 4);
    assert!(all.plans().contains_key(&2));
}

#[test]
fn first_collection_of_a_mandate_is_told_before_those_planned_after_it() {
    let mut all = Collections::default();
    all.mandate_act(&mandate(MandateScheme::Core, "M"), Time(10), 0).unwrap();
    all.terms_act(&terms("M", 0, DAYS)).unwrap();
    let (first, second) = (collect(1, X, true), collect(2, X, false));
    assert_eq!(agree(&mut all, 1, true, &collect(1, X, false)), Err(Reject::Stale), "FRST");
    agree(&mut all, 1, true, &first).unwrap();
    assert_eq!(agree(&mut all, 1, true, &collect(2, X, true)), Err(Reject::Stale), "RCUR");
    agree(&mut all, 1, true, &second).unwrap();
    let operators = Operators::default();
    let rules = Rules { operators: &operators, approvals: 0 };
    assert_eq!(all.may_collect(&first, "Ada", rules, Time(10)).map(|_| ()), Err(NotCollected::Planner));
    let mut operators = Operators::default();
    change(&mut operators, 1, true);
    let rules = Rules { operators: &operators, approvals: 0 };
    assert_eq!(all.collect_act(&second, "Ada", rules, Time(10)).map_err(NotCollected::reject), Err(Reject::Stale));
    all.collect_act(&first, "Ada", rules, Time(10)).unwrap();
    all.collect_act(&second, "Ada", rules, Time(10)).unwrap();
}
