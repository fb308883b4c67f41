//! Every bound on both sides, and what is forgotten when.
#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use weir_protocol::amount::Time;

use super::super::book::{Book, Note, Step};
use super::super::error::{Bound, KeepError, ReserveError, ShowError, TooMany};
use super::super::record::Record;
use super::super::types::{Ask, Count, Counter, Limits, MAX_COUNTERS, Payment};
use super::{NOW, PAID_AT, ask, credit, id, key, nanos, payment};

fn book(change: impl FnOnce(&mut Limits)) -> Book<u32> {
    let mut limits = Limits::default();
    change(&mut limits);
    Book::new(limits)
}

fn draw(book: &mut Book<u32>, number: u32, request: u32, amount: u64, now: Time) {
    assert_eq!(book.reserve(&ask(number, request, amount), now, || 0), Ok(Step::New));
    assert!(book.commit(id(number), key(request), nanos(amount), None, 1_000, now).is_some());
    book.written(id(number), key(request));
}

fn too_many(what: Bound, limit: usize) -> TooMany {
    TooMany { what, limit }
}

#[test]
fn balances_up_to_the_limit_are_taken_and_one_more_is_not() {
    let mut book = book(|limits| limits.most_balances = 2);
    book.show(&credit(1, 5), NOW).unwrap();
    assert!(matches!(book.note(&payment(2, 5)), Ok(Note::New(_))));
    let full = too_many(Bound::Balances, 2);
    assert_eq!(book.show(&credit(3, 5), NOW), Err(ShowError::TooMany(full)));
    assert_eq!(book.note(&payment(3, 5)), Err(KeepError::TooMany(full)));
    // What is known is not in the way.
    assert!(!book.show(&credit(1, 5), NOW).unwrap().first);
    assert!(book.show(&credit(2, 5), NOW).unwrap().first);
    assert_eq!(book.note(&payment(1, 5)), Ok(Note::Known));
}

#[test]
fn reservations_up_to_the_limit_are_taken_and_one_more_when_one_is_written() {
    let mut book = book(|limits| limits.most_open = 2);
    book.show(&credit(1, 50), NOW).unwrap();
    for request in [1, 2] {
        assert_eq!(book.reserve(&ask(1, request, 1), NOW, || 0), Ok(Step::New));
    }
    let full = ReserveError::TooMany(too_many(Bound::Open, 2));
    assert_eq!(book.reserve(&ask(1, 3, 1), NOW, || 0), Err(full.clone()));
    book.commit(id(1), key(1), nanos(1), None, 1_000, NOW).unwrap();
    assert_eq!(book.reserve(&ask(1, 3, 1), NOW, || 0), Err(full));
    book.written(id(1), key(1));
    assert_eq!(book.reserve(&ask(1, 3, 1), NOW, || 0), Ok(Step::New));
}

#[test]
fn remembered_requests_up_to_the_limits_are_kept_and_make_room_when_their_window_is_over() {
    for (all, each, what) in [(2, 9, Bound::Draws), (9, 2, Bound::DrawsOfBalance)] {
        let mut book = book(|limits| (limits.most_draws, limits.most_draws_each) = (all, each));
        book.show(&credit(1, 50), NOW).unwrap();
        draw(&mut book, 1, 1, 1, NOW);
        draw(&mut book, 1, 2, 1, NOW);
        let full = ReserveError::TooMany(too_many(what, 2));
        assert_eq!(book.reserve(&ask(1, 3, 1), NOW, || 0), Err(full.clone()));
        // Those that are remembered are served, and at the end of their window drawn again in their own place.
        let last = NOW.plus_ms(999);
        assert!(matches!(book.reserve(&ask(1, 1, 1), last, || 0), Ok(Step::Again(_))));
        assert_eq!(book.reserve(&ask(1, 3, 1), last, || 0), Err(full));
        let over = NOW.plus_ms(1_000);
        assert_eq!(book.reserve(&ask(1, 1, 1), over, || 0), Ok(Step::New));
        book.show(&credit(1, 50), over).unwrap();
        assert_eq!(book.reserve(&ask(1, 3, 1), over, || 0), Ok(Step::New));
        assert_eq!(book.load().draws, 2);
    }
}

#[test]
fn waiters_up_to_the_limits_are_taken_and_one_more_is_not() {
    for (all, each, what) in [(2, 9, Bound::Waiting), (9, 2, Bound::WaitingForOne)] {
        let mut book = book(|limits| (limits.most_waiting, limits.most_waiting_each) = (all, each));
        book.show(&credit(1, 50), NOW).unwrap();
        assert_eq!(book.reserve(&ask(1, 1, 1), NOW, || 0), Ok(Step::New));
        for waiter in [1, 2] {
            assert_eq!(book.reserve(&ask(1, 1, 1), NOW, || waiter), Ok(Step::Wait));
        }
        let full = ReserveError::TooMany(too_many(what, 2));
        assert_eq!(book.reserve(&ask(1, 1, 1), NOW, || 3), Err(full));
        assert_eq!(book.release(id(1), key(1)).to.unwrap().0, 1);
        assert_eq!(book.reserve(&ask(1, 1, 1), NOW, || 3), Ok(Step::Wait));
    }
}

#[test]
fn balance_is_drawn_to_its_last_nano_and_no_further() {
    let mut book = book(|_| {});
    book.show(&credit(1, 10), NOW).unwrap();
    let short = |left, reserved, asked| {
        Err(ReserveError::Insufficient { left: nanos(left), reserved: nanos(reserved), asked: nanos(asked) })
    };
    assert_eq!(book.reserve(&ask(1, 1, 11), NOW, || 0), short(10, 0, 11));
    assert_eq!(book.reserve(&ask(1, 1, 6), NOW, || 0), Ok(Step::New));
    assert_eq!(book.reserve(&ask(1, 2, 5), NOW, || 0), short(4, 6, 5));
    assert_eq!(book.reserve(&ask(1, 2, 4), NOW, || 0), Ok(Step::New));
    assert_eq!(book.reserve(&ask(1, 3, 1), NOW, || 0), short(0, 10, 1));
    for (request, amount) in [(1, 6), (2, 4)] {
        book.commit(id(1), key(request), nanos(amount), None, 1_000, NOW).unwrap();
        book.written(id(1), key(request));
    }
    assert_eq!(book.reserve(&ask(1, 3, 1), NOW, || 0), Err(ReserveError::Spent { over: None }));
    let over = NOW.plus_ms(1_000);
    assert_eq!(book.reserve(&ask(1, 1, 6), over, || 0), Err(ReserveError::Spent { over: Some(over) }));
    // What costs nothing needs nothing left.
    assert_eq!(book.reserve(&ask(1, 3, 0), over, || 0), Ok(Step::New));
    let unknown = Ask { payment_id: id(9), ..ask(1, 1, 1) };
    assert_eq!(book.reserve(&unknown, NOW, || 0), Err(ReserveError::Unknown(id(9))));
}

#[test]
fn receipt_with_other_facts_for_a_known_payment_is_refused() {
    let mut book = book(|_| {});
    book.show(&credit(1, 10), NOW).unwrap();
    let mut others = [credit(1, 11), credit(1, 10), credit(1, 10), credit(1, 10)];
    others[1].resource = [5; 16];
    others[2].payment.paid_at = Time(1);
    others[3].payment.place.group = 9;
    for other in others {
        assert_eq!(book.show(&other, NOW), Err(ShowError::Differs(id(1))));
    }
    assert_eq!(book.note(&payment(1, 11)), Err(KeepError::Differs(id(1))));
}

const LATE_MS: u64 = 100_000;
const KEEP_MS: u64 = 300_000;

/// A payment by which time goes on.
fn later(number: u32, ms: u64) -> Payment {
    Payment { paid_at: Time(PAID_AT + ms), ..payment(number, 1) }
}

fn keeping() -> Book<u32> {
    book(|limits| (limits.late_ms, limits.keep_ms) = (LATE_MS, KEEP_MS))
}

#[test]
fn balance_that_is_used_up_is_forgotten_in_time_and_its_receipt_never_taken_again() {
    let mut book = keeping();
    book.show(&credit(1, 5), NOW).unwrap();
    draw(&mut book, 1, 1, 5, NOW);
    book.note(&later(2, LATE_MS)).unwrap();
    assert_eq!(book.forget(), 0, "not before its time");
    assert!(matches!(book.reserve(&ask(1, 1, 5), NOW, || 0), Ok(Step::Again(_))));
    book.note(&later(3, LATE_MS + 60_000)).unwrap();
    assert_eq!(book.forget(), 0, "not while it is remembered");
    // Its window is over and the next call notices.
    book.note(&later(4, LATE_MS + 120_000)).unwrap();
    book.show(&credit(1, 5), NOW.plus_ms(2_000)).unwrap();
    assert_eq!(book.forget(), 1);
    assert!(book.view(id(1)).is_none());
    assert!(matches!(book.show(&credit(1, 5), NOW), Err(ShowError::TooOld { .. })));
    assert_eq!(book.note(&payment(1, 5)), Ok(Note::TooOld));
    let totals = book.totals()[0].1;
    assert_eq!((totals.balances, totals.paid_nanos, totals.left_nanos), (3, 3, 3));
    // Also after a restart, from a log that was compacted.
    let mut records = Vec::new();
    assert_eq!(book.page(None, 10, &mut records), None);
    records.push(Record::Floor(book.floor()));
    let mut again = keeping();
    for record in &records {
        again.apply(record).unwrap();
    }
    assert!(matches!(again.show(&credit(1, 5), NOW), Err(ShowError::TooOld { .. })));
}

#[test]
fn balance_with_something_left_is_kept_longer_and_while_it_is_used() {
    let mut book = keeping();
    for number in [1, 2] {
        book.show(&credit(number, 5), NOW).unwrap();
    }
    book.note(&payment(3, 5)).unwrap();
    book.settled(id(3));
    draw(&mut book, 1, 1, 1, NOW.plus_ms(200_000));
    book.note(&later(9, KEEP_MS)).unwrap();
    assert_eq!(book.forget(), 0);
    // A late reader whose payment was noted is not turned away.
    assert!(book.show(&credit(3, 5), NOW.plus_ms(300_000)).unwrap().first);
    book.note(&later(10, KEEP_MS + 60_000)).unwrap();
    assert_eq!(book.forget(), 2, "not used for so long: 2 and 3");
    assert_eq!(book.view(id(1)).unwrap().left, nanos(4));
}

#[test]
fn full_book_makes_room_by_forgetting() {
    let mut book = book(|limits| (limits.late_ms, limits.keep_ms, limits.most_balances) = (LATE_MS, KEEP_MS, 2));
    book.show(&credit(1, 5), NOW).unwrap();
    draw(&mut book, 1, 1, 5, NOW);
    book.note(&later(2, LATE_MS + 70_000)).unwrap();
    let mut third = credit(3, 5);
    third.payment.paid_at = Time(PAID_AT + LATE_MS + 70_000);
    // The first call drops what is remembered of 1, so 1 can go.
    assert!(book.show(&third, NOW.plus_ms(1_000)).is_ok());
    assert!(book.view(id(1)).is_none());
}

#[test]
fn counters_at_their_most_are_counted_and_one_more_is_not() {
    let mut book: Book<u32> = Book::new(Limits::default());
    book.show(&credit(1, 1_000), NOW).unwrap();
    let counter = |number: usize| Counter([number as u8; 16]);
    for number in 0..=MAX_COUNTERS {
        let request = number as u32;
        let ask = Ask { window_ms: 0, ..ask(1, request, 1) };
        book.reserve(&ask, NOW, || 0).unwrap();
        let count = Count { counter: counter(number), units: 7 };
        let committed = book.commit(id(1), key(request), nanos(1), Some(count), 0, NOW).unwrap();
        let counted = matches!(committed.records[1], Some(Record::Counted { .. }));
        assert_eq!(counted, number < MAX_COUNTERS, "a draw is written in either case");
        book.written(id(1), key(request));
        assert_eq!(book.units(id(1), counter(number)), if number < MAX_COUNTERS { 7 } else { 0 });
    }
}
