//! The book against a simple model, under random calls: sums, exactly once, and what a log read back comes to, also one
//! that was compacted meanwhile.
#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use weir_protocol::amount::{Amount, Time};
use weir_protocol::id::PaymentId;

use super::super::book::{Book, Note, Step, Waiting};
use super::super::error::ReserveError;
use super::super::record::Record;
use super::super::types::{Ask, BalanceState, Count, Counter, DrawKey, Limits, PageEnd};
use super::{PAID_AT, credit, id, key, nanos, payment};

const BALANCES: u32 = 3;
const KEYS: u32 = 3;
const PAID: u64 = 100;

impl Waiting for u32 {
    fn is_gone(&self) -> bool {
        false
    }
}

#[derive(Debug, Clone)]
enum Op {
    Show(u32),
    Note(u32),
    Reserve { balance: u32, key: u32, max: u64, window_ms: u64 },
    Release { balance: u32, key: u32 },
    Commit { balance: u32, key: u32, part: u64 },
    Withdraw(u32),
    End { balance: u32, confirmed: bool },
    Write(usize),
    Compact,
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let (balance, key) = (0..BALANCES, 0..KEYS);
    prop_oneof![
        2 => balance.clone().prop_map(Op::Show),
        1 => balance.clone().prop_map(Op::Note),
        6 => (balance.clone(), key.clone(), 0..60_u64, prop_oneof![Just(0_u64), 1..50_u64])
            .prop_map(|(balance, key, max, window_ms)| Op::Reserve { balance, key, max, window_ms }),
        2 => (balance.clone(), key.clone()).prop_map(|(balance, key)| Op::Release { balance, key }),
        5 => (balance.clone(), key, 0..=4_u64).prop_map(|(balance, key, part)| Op::Commit { balance, key, part }),
        1 => balance.clone().prop_map(Op::Withdraw),
        1 => (balance, any::<bool>()).prop_map(|(balance, confirmed)| Op::End { balance, confirmed }),
        4 => (0..4_usize).prop_map(Op::Write),
        3 => Just(Op::Compact),
        2 => (1..20_u64).prop_map(Op::Advance),
    ]
}

/// Requests of even and of odd numbers are counted apart.
fn counter(request: u32) -> Counter {
    Counter([(request % 2) as u8; 16])
}

type Draft = (Vec<Record>, Option<(Time, PaymentId)>);
type Waiters = VecDeque<(u32, u64, u64)>;

/// A balance, told in the simplest way.
#[derive(Debug, Default)]
struct Simple {
    shown: bool,
    drawn: u64,
    /// What was drawn and written.
    durable: u64,
    refunds: u64,
    confirmed: u64,
    open: BTreeMap<u32, (u64, u64, Waiters)>,
    writing: BTreeMap<u32, (u64, u64, u64, Waiters)>,
    /// Drawn, until.
    done: BTreeMap<u32, (u64, u64)>,
    units: BTreeMap<Counter, u64>,
}

impl Simple {
    fn reserved(&self) -> u64 {
        self.open.values().map(|(reserved, ..)| reserved).sum()
    }

    fn left(&self) -> u64 {
        PAID.checked_sub(self.drawn + self.reserved() + self.refunds).unwrap()
    }
}

#[derive(Debug, Clone, Copy)]
enum Told {
    Draw { balance: u32, key: u32 },
    Act { balance: u32 },
    Nobody,
}

#[derive(Debug)]
struct World {
    book: Book<u32>,
    simple: BTreeMap<u32, Simple>,
    now: u64,
    queue: VecDeque<(Record, Told)>,
    log: Vec<Record>,
    /// A log that is being written anew, and the last place that is in it.
    draft: Option<Draft>,
    next_waiter: u32,
}

impl World {
    fn new() -> Self {
        Self {
            book: Book::new(Limits::default()),
            simple: BTreeMap::new(),
            now: PAID_AT,
            queue: VecDeque::new(),
            log: Vec::new(),
            draft: None,
            next_waiter: 0,
        }
    }

    fn queue(&mut self, records: impl IntoIterator<Item = Record>, told: Told) {
        let mut records: Vec<_> = records.into_iter().map(|record| (record, Told::Nobody)).collect();
        records.last_mut().unwrap().1 = told;
        self.queue.extend(records);
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Advance(ms) => self.now += ms,
            Op::Show(number) => {
                let shown = self.book.show(&credit(number, PAID), Time(self.now)).unwrap();
                let simple = self.simple.entry(number).or_default();
                assert_eq!((shown.first, shown.left), (!simple.shown, nanos(simple.left())));
                simple.shown = true;
            }
            Op::Note(number) => match self.book.note(&payment(number, PAID)).unwrap() {
                Note::New(record) => {
                    assert!(self.simple.insert(number, Simple::default()).is_none());
                    self.queue([record], Told::Act { balance: number });
                }
                Note::Known => assert!(self.simple.contains_key(&number)),
                Note::TooOld => panic!("nothing is old"),
            },
            Op::Reserve { balance, key: request, max, window_ms } => self.reserve(balance, request, max, window_ms),
            Op::Release { balance, key: request } => self.release(balance, request),
            Op::Commit { balance, key: request, part } => self.commit(balance, request, part),
            Op::Withdraw(number) => {
                let simple = self.simple.get_mut(&number);
                match (self.book.withdraw(id(number), false), simple) {
                    (Ok((refund, standing, record)), Some(simple)) => {
                        if simple.refunds == simple.confirmed {
                            simple.refunds += simple.left();
                        }
                        assert_eq!(refund.refunded_total, nanos(simple.refunds));
                        assert_eq!(refund.amount, nanos(simple.refunds - simple.confirmed));
                        assert!(!refund.amount.is_zero());
                        self.queue(standing.into_iter().chain([record]), Told::Act { balance: number });
                    }
                    (Err(_), Some(simple)) => assert!(simple.left() == 0 && simple.refunds == simple.confirmed),
                    (outcome, None) => assert!(outcome.is_err()),
                }
            }
            Op::End { balance, confirmed } => {
                let Some(simple) = self.simple.get_mut(&balance) else { return };
                let under_way = simple.refunds > simple.confirmed;
                let outcome = self.book.end_refund(id(balance), nanos(simple.refunds), confirmed);
                // What was confirmed may be confirmed again.
                assert_eq!(outcome.is_ok(), under_way || (confirmed && simple.refunds > 0));
                if under_way && confirmed {
                    simple.confirmed = simple.refunds;
                } else if under_way {
                    simple.refunds = simple.confirmed;
                }
                if let Ok(record) = outcome {
                    self.queue([record], Told::Act { balance });
                }
            }
            Op::Write(count) => (0..count).for_each(|_| self.write()),
            Op::Compact => self.compact(),
        }
    }

    fn reserve(&mut self, number: u32, request: u32, max: u64, window_ms: u64) {
        let ask = Ask { payment_id: id(number), key: key(request), max: nanos(max), window_ms };
        let waiter = self.next_waiter;
        self.next_waiter += 1;
        let step = self.book.reserve(&ask, Time(self.now), || waiter);
        let Some(simple) = self.simple.get_mut(&number).filter(|simple| simple.shown) else {
            return assert_eq!(step, Err(ReserveError::Unknown(id(number))));
        };
        if let Some((_, _, waiters)) = simple.open.get_mut(&request) {
            waiters.push_back((waiter, max, window_ms));
            return assert_eq!(step, Ok(Step::Wait));
        }
        if let Some((.., waiters)) = simple.writing.get_mut(&request) {
            waiters.push_back((waiter, max, window_ms));
            return assert_eq!(step, Ok(Step::Wait));
        }
        if let Some((drawn, until)) = simple.done.get(&request).filter(|(_, until)| *until > self.now) {
            let Ok(Step::Again(again)) = step else { panic!("drawn before, and {step:?}") };
            return assert_eq!((again.drawn, again.until), (nanos(*drawn), Time(*until)));
        }
        if max > simple.left() {
            assert_eq!(
                matches!(step, Err(ReserveError::Spent { .. })),
                simple.left() == 0 && simple.reserved() == 0,
                "{step:?}"
            );
            return assert!(step.is_err());
        }
        assert_eq!(step, Ok(Step::New));
        simple.done.remove(&request);
        simple.open.insert(request, (max, window_ms, Waiters::new()));
    }

    fn release(&mut self, number: u32, request: u32) {
        let handed = self.book.release(id(number), key(request));
        let open = self.simple.get_mut(&number).and_then(|simple| Some((simple.open.remove(&request)?, simple)));
        let Some(((_, _, mut waiters), simple)) = open else {
            return assert!(handed.to.is_none() && handed.refused.is_empty());
        };
        let mut refused = Vec::new();
        let mut to = None;
        while let Some((waiter, max, window_ms)) = waiters.pop_front() {
            if max <= simple.left() {
                to = Some((waiter, nanos(max), window_ms));
                simple.open.insert(request, (max, window_ms, waiters));
                break;
            }
            refused.push(waiter);
        }
        assert_eq!(handed.to, to);
        assert_eq!(handed.refused.into_iter().map(|(waiter, _)| waiter).collect::<Vec<_>>(), refused);
    }

    fn commit(&mut self, number: u32, request: u32, part: u64) {
        let Some(simple) = self.simple.get_mut(&number) else { return };
        let Some((reserved, window_ms, waiters)) = simple.open.remove(&request) else {
            let nothing = self.book.commit(id(number), key(request), nanos(0), None, 5, Time(self.now));
            return assert_eq!(nothing, None);
        };
        let count = Some(Count { counter: counter(request), units: part });
        let too_much =
            self.book.commit(id(number), key(request), nanos(reserved + 1), count, window_ms, Time(self.now));
        assert_eq!(too_much, None);
        let used = reserved * part / 4;
        let committed =
            self.book.commit(id(number), key(request), nanos(used), count, window_ms, Time(self.now)).unwrap();
        simple.drawn += used;
        *simple.units.entry(counter(request)).or_default() += part;
        assert_eq!(committed.drawn.left, nanos(simple.left()));
        simple.writing.insert(request, (used, self.now, self.now + window_ms, waiters));
        if committed.records[1].is_some() {
            self.queue(committed.records.into_iter().flatten(), Told::Draw { balance: number, key: request });
        } else {
            assert!(used == 0 && window_ms == 0 && part == 0);
            self.told(Told::Draw { balance: number, key: request });
        }
    }

    fn write(&mut self) {
        let Some((record, told)) = self.queue.pop_front() else { return };
        self.log.push(record);
        if let Some((draft, after)) = &mut self.draft
            && self.book.is_past(&record, *after)
        {
            draft.push(record);
        }
        self.told(told);
    }

    fn told(&mut self, told: Told) {
        match told {
            Told::Nobody => {}
            Told::Act { balance } => self.book.settled(id(balance)),
            Told::Draw { balance, key: request } => {
                let (drawn, told) = self.book.written(id(balance), key(request));
                let simple = self.simple.get_mut(&balance).unwrap();
                let (used, at, until, waiters) = simple.writing.remove(&request).unwrap();
                assert_eq!((drawn.drawn, drawn.until), (nanos(used), Time(until)));
                assert_eq!(told, waiters.into_iter().map(|(waiter, ..)| waiter).collect::<Vec<_>>());
                simple.durable += used;
                if until > at {
                    simple.done.insert(request, (used, until));
                }
            }
        }
    }

    /// One step of a compaction, as the writer takes it.
    fn compact(&mut self) {
        let (mut draft, after) = self.draft.take().unwrap_or_default();
        let after = self.book.page(after, 1, &mut draft);
        if after.is_some() {
            self.draft = Some((draft, after));
        } else {
            draft.push(Record::Floor(self.book.floor()));
            self.log = draft;
        }
    }

    fn check(&self) {
        let mut left_sum = 0;
        for (number, simple) in &self.simple {
            let view = self.book.view(id(*number)).unwrap();
            let sums = [view.drawn, view.reserved, view.left, view.refunding, view.refunded].map(Amount::nanos);
            let refunding = simple.refunds - simple.confirmed;
            assert_eq!(sums, [simple.drawn, simple.reserved(), simple.left(), refunding, simple.confirmed]);
            assert_eq!(sums.iter().sum::<u64>(), PAID);
            assert_eq!(view.state == BalanceState::Refunding, refunding > 0);
            for counter in [0, 1].map(counter) {
                let units = simple.units.get(&counter).copied().unwrap_or(0);
                assert_eq!(self.book.units(id(*number), counter), units);
            }
            left_sum += u128::from(simple.left());
        }
        let totals = self.book.totals().first().map(|(_, totals)| *totals).unwrap_or_default();
        let parts = totals.drawn_nanos
            + totals.reserved_nanos
            + totals.left_nanos
            + totals.refunding_nanos
            + totals.refunded_nanos;
        assert_eq!((totals.paid_nanos, totals.left_nanos), (parts, left_sum));
        assert_eq!(totals.balances as usize, self.simple.len());
        let unshown = |simple: &&Simple| !simple.shown && simple.left() > 0;
        let listed = self.book.never_shown(Time::MAX, PageEnd::default(), 10);
        assert_eq!(listed.len(), self.simple.values().filter(unshown).count());
        let refunding = self.simple.values().filter(|simple| simple.refunds > simple.confirmed).count();
        assert_eq!(self.book.refunds(None, 10).len(), refunding);
        let load = self.book.load();
        let waiting = |simple: &Simple| {
            let open = simple.open.values().map(|(.., waiters)| waiters.len());
            open.chain(simple.writing.values().map(|(.., waiters)| waiters.len())).sum::<usize>()
        };
        assert_eq!(load.waiting, self.simple.values().map(waiting).sum::<usize>());
        assert_eq!(
            load.open,
            self.simple.values().map(|simple| simple.open.len() + simple.writing.len()).sum::<usize>()
        );
        self.check_replay();
    }

    /// Everything was written: read back, it is the same.
    fn check_whole(&self) {
        let mut book: Book<u32> = Book::new(Limits::default());
        self.log.iter().for_each(|record| book.apply(record).unwrap());
        for (number, simple) in &self.simple {
            let Some(view) = book.view(id(*number)) else {
                assert!(simple.shown && simple.drawn + simple.refunds == 0, "a balance is lost: {simple:?}");
                continue;
            };
            let sums = [view.drawn, view.refunding, view.refunded].map(Amount::nanos);
            assert_eq!(sums, [simple.drawn, simple.refunds - simple.confirmed, simple.confirmed]);
            for (counter, units) in &simple.units {
                assert_eq!(book.units(id(*number), *counter), *units);
            }
            assert!(view.shown.is_some() || simple.drawn == 0, "drawn from, and never shown");
        }
    }

    /// A crash now: what was answered is there, and what is there beyond it was asked for.
    fn check_replay(&self) {
        let mut book: Book<u32> = Book::new(Limits::default());
        for record in &self.log {
            book.apply(record).unwrap();
        }
        for (number, simple) in &self.simple {
            let Some(view) = book.view(id(*number)) else {
                assert_eq!(simple.durable, 0, "a drawn balance is lost");
                continue;
            };
            let drawn = view.drawn.nanos();
            assert!(simple.durable <= drawn && drawn <= simple.drawn, "{drawn} of {simple:?}");
            // All that was drawn is remembered, or its window is over: the same request pays once.
            let (mut book_drawn, mut extra) = (Vec::new(), 0);
            for request in 0..KEYS {
                let ask = Ask { payment_id: id(*number), key: key(request), max: nanos(1_000), window_ms: 1 };
                if let Ok(Step::Again(again)) = book.reserve(&ask, Time(self.now), || 0) {
                    book_drawn.push(request);
                    match (simple.writing.get(&request), simple.done.get(&request)) {
                        (Some((used, _, until, _)), _) if again.until == Time(*until) => extra += used,
                        (_, Some((used, until))) => {
                            assert_eq!((again.drawn, again.until), (nanos(*used), Time(*until)));
                        }
                        // Reserved again after its window; the log knows the first time.
                        _ => {}
                    }
                } else if let Some((_, until)) = simple.done.get(&request) {
                    assert!(*until <= self.now, "request {request} is forgotten");
                }
            }
            let unremembered: u64 =
                simple.writing.iter().filter(|(_, (_, at, until, _))| until == at).map(|(_, (used, ..))| used).sum();
            let over: u64 =
                simple.writing.values().filter(|(_, _, until, _)| *until <= self.now).map(|(used, ..)| used).sum();
            assert!(drawn <= simple.durable + extra + unremembered + over, "drawn and not remembered");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn book_under_random_calls_does_what_the_model_says(ops in proptest::collection::vec(op(), 1..120)) {
        let mut world = World::new();
        for op in &ops {
            world.run(op);
            world.check();
        }
        while !world.queue.is_empty() {
            world.write();
        }
        world.check();
        world.check_whole();
    }
}

#[test]
fn key_of_another_balance_is_another_request() {
    let mut book: Book<u32> = Book::new(Limits::default());
    for number in [1, 2] {
        book.show(&credit(number, 5), Time(PAID_AT)).unwrap();
        let ask = Ask { payment_id: id(number), key: DrawKey([0; 32]), max: nanos(5), window_ms: 9 };
        assert_eq!(book.reserve(&ask, Time(PAID_AT), || 0), Ok(Step::New));
    }
}
