//! The store as its callers use it: many tasks, a real folder, restarts.
#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use std::collections::BTreeSet;
use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::task::JoinSet;
use weir_protocol::amount::Time;

use super::super::{
    BalanceError, BalanceState, Balances, CommitError, Count, Counter, Limits, Noted, PageEnd, RefundError,
    Reservation, ReserveError, Reserved, ShowError,
};
use super::{NOW, PAID_AT, ask, credit, id, nanos, payment};

fn open(folder: &tempfile::TempDir) -> Balances {
    Balances::open(folder.path(), Limits::default()).unwrap()
}

async fn new(balances: &Balances, number: u32, request: u32, max: u64) -> Reservation {
    match balances.reserve(&ask(number, request, max), NOW).await.unwrap() {
        Reserved::New(reservation) => reservation,
        Reserved::Again(drawn) => panic!("drawn before: {drawn:?}"),
    }
}

#[tokio::test]
async fn store_is_held_by_one_and_free_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let balances = open(&folder);
    balances.show(&credit(1, 5), NOW).unwrap();
    let reservation = new(&balances, 1, 1, 5).await;
    drop(balances);
    // A request that is under way holds it.
    let error = Balances::open(folder.path(), Limits::default()).unwrap_err();
    assert!(matches!(&error, BalanceError::Held(path) if path == folder.path()), "{error}");
    reservation.commit(nanos(5), NOW).await.unwrap();
    assert_eq!(open(&folder).balance(id(1)).unwrap().drawn, nanos(5));
}

#[tokio::test]
async fn draw_is_served_again_after_a_restart_and_charged_once() {
    let folder = tempfile::tempdir().unwrap();
    let balances = open(&folder);
    assert!(balances.show(&credit(1, 10), NOW).unwrap().first);
    let drawn = new(&balances, 1, 1, 6).await.commit(nanos(4), NOW).await.unwrap();
    assert_eq!((drawn.drawn, drawn.until, drawn.left), (nanos(4), NOW.plus_ms(1_000), nanos(6)));
    drop(balances);
    let balances = open(&folder);
    let shown = balances.show(&credit(1, 10), NOW).unwrap();
    assert_eq!((shown.first, shown.left), (false, nanos(6)));
    let again = balances.reserve(&ask(1, 1, 6), NOW).await.unwrap();
    assert!(matches!(again, Reserved::Again(again) if again == drawn), "{again:?}");
    // After its window it is a new request.
    let reserved = balances.reserve(&ask(1, 1, 6), NOW.plus_ms(1_000)).await.unwrap();
    assert!(matches!(reserved, Reserved::New(reservation) if reservation.amount() == nanos(6)));
    assert_eq!(balances.balance(id(1)).unwrap().left, nanos(6), "dropped is released");
}

#[tokio::test]
async fn commit_of_nothing_draws_nothing_and_of_too_much_releases() {
    let folder = tempfile::tempdir().unwrap();
    let balances = open(&folder);
    balances.show(&credit(1, 10), NOW).unwrap();
    let too_much = new(&balances, 1, 1, 6).await.commit(nanos(7), NOW).await;
    assert_eq!(too_much, Err(CommitError::MoreThanReserved { used: nanos(7), reserved: nanos(6) }));
    assert_eq!(balances.balance(id(1)).unwrap().left, nanos(10));
    new(&balances, 1, 1, 6).await.commit(nanos(0), NOW).await.unwrap();
    assert!(matches!(balances.reserve(&ask(1, 1, 6), NOW).await, Ok(Reserved::Again(again)) if again.drawn.is_zero()));
    let mut unremembered = ask(1, 2, 6);
    unremembered.window_ms = 0;
    for used in [0, 1, 1] {
        let Reserved::New(reservation) = balances.reserve(&unremembered, NOW).await.unwrap() else { panic!() };
        reservation.commit(nanos(used), NOW).await.unwrap();
    }
    assert_eq!(balances.balance(id(1)).unwrap().drawn, nanos(2));
    assert_eq!(balances.load().draws, 1);
}

#[tokio::test]
async fn commit_that_nobody_waits_for_counts_once_it_was_begun() {
    let folder = tempfile::tempdir().unwrap();
    let balances = open(&folder);
    balances.show(&credit(1, 10), NOW).unwrap();
    drop(new(&balances, 1, 1, 2).await.commit(nanos(2), NOW));
    assert_eq!(balances.balance(id(1)).unwrap().left, nanos(10), "never polled, never drawn");
    {
        let commit = pin!(new(&balances, 1, 1, 2).await.commit(nanos(2), NOW));
        let mut context = Context::from_waker(Waker::noop());
        // Whether or not the writer was quicker.
        let (Poll::Pending | Poll::Ready(Ok(_))) = commit.poll(&mut context) else { panic!() };
    }
    assert!(matches!(balances.reserve(&ask(1, 1, 2), NOW).await.unwrap(), Reserved::Again(_)));
    drop(balances);
    assert_eq!(open(&folder).balance(id(1)).unwrap().drawn, nanos(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn same_request_many_times_at_once_is_drawn_once() {
    let folder = tempfile::tempdir().unwrap();
    let balances = open(&folder);
    balances.show(&credit(1, 7), NOW).unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..500 {
        let balances = balances.clone();
        tasks.spawn(async move {
            match balances.reserve(&ask(1, 1, 7), NOW).await.unwrap() {
                Reserved::New(reservation) => {
                    tokio::task::yield_now().await;
                    reservation.commit(nanos(7), NOW).await.unwrap();
                    true
                }
                Reserved::Again(again) => {
                    assert_eq!(again.drawn, nanos(7));
                    false
                }
            }
        });
    }
    assert_eq!(tasks.join_all().await.into_iter().filter(|new| *new).count(), 1);
    assert_eq!(balances.balance(id(1)).unwrap().drawn, nanos(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn same_request_whose_upstream_fails_is_tried_by_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let balances = open(&folder);
    balances.show(&credit(1, 7), NOW).unwrap();
    let first = new(&balances, 1, 1, 7).await;
    let mut tasks = JoinSet::new();
    for number in 0..300_u32 {
        let balances = balances.clone();
        tasks.spawn(async move {
            let same = ask(1, 1, 7);
            let asked = balances.reserve(&same, NOW);
            // Every third client goes away while it waits.
            let reserved = if number.is_multiple_of(3) {
                match tokio::time::timeout(std::time::Duration::ZERO, asked).await {
                    Ok(reserved) => reserved,
                    Err(_) => return (0, 0),
                }
            } else {
                asked.await
            };
            match reserved.unwrap() {
                Reserved::New(reservation) if number % 10 != 7 => {
                    drop(reservation);
                    (0, 0)
                }
                Reserved::New(reservation) => {
                    reservation.commit(nanos(7), NOW).await.unwrap();
                    (1, 0)
                }
                Reserved::Again(_) => (0, 1),
            }
        });
    }
    while balances.load().waiting < 100 {
        tokio::task::yield_now().await;
    }
    first.release();
    let (new, _again) = tasks.join_all().await.into_iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert_eq!(new, 1);
    let view = balances.balance(id(1)).unwrap();
    assert_eq!((view.drawn, view.reserved, balances.load().waiting), (nanos(7), nanos(0), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_draws_at_once_are_exact_while_the_log_is_compacted_again_and_again() {
    const TASKS: u32 = 32;
    const EACH: u32 = 60;
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { compact_bytes: 8 << 10, ..Limits::default() };
    let balances = Balances::open(folder.path(), limits).unwrap();
    for number in 0..4 {
        balances.show(&credit(number, 3 * u64::from(TASKS * EACH)), NOW).unwrap();
    }
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let balances = balances.clone();
        tasks.spawn(async move {
            for round in 0..EACH {
                // Requests without a window leave nothing but a sum, so the log is soon many times the state.
                let mut ask = ask(task % 4, task * 1_000 + round, 3);
                ask.window_ms = u64::from(round.is_multiple_of(20));
                let Reserved::New(reservation) = balances.reserve(&ask, NOW).await.unwrap() else { panic!() };
                reservation.commit(nanos(u64::from(round % 4)), NOW).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let each_task: u64 = (0..EACH).map(|round| u64::from(round % 4)).sum();
    let expected = nanos(each_task * u64::from(TASKS / 4));
    let check = |balances: &Balances| {
        (0..4).for_each(|number| assert_eq!(balances.balance(id(number)).unwrap().drawn, expected));
    };
    check(&balances);
    drop(balances);
    // One frame a draw would be much more than this.
    let log = std::fs::read(folder.path().join("balances.log")).unwrap();
    let used = log.iter().rposition(|byte| *byte != 0).unwrap();
    assert!(used < 100 << 10, "{used} bytes for 4 balances and 96 draws");
    check(&Balances::open(folder.path(), limits).unwrap());
}

#[tokio::test]
async fn refund_takes_what_is_free_once_and_is_listed_until_it_is_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let balances = open(&folder);
    balances.show(&credit(1, 10), NOW).unwrap();
    new(&balances, 1, 1, 3).await.commit(nanos(3), NOW).await.unwrap();
    let under_way = new(&balances, 1, 2, 2).await;
    let refund = balances.withdraw_for_refund(id(1)).await.unwrap();
    assert_eq!((refund.amount, refund.refunded_total, refund.place), (nanos(5), nanos(5), payment(1, 10).place));
    let short = balances.reserve(&ask(1, 3, 1), NOW).await.unwrap_err();
    assert!(matches!(short, ReserveError::Insufficient { left, .. } if left.is_zero()), "{short}");
    drop(under_way);
    // The same one, although more is free by now; also after a crash.
    drop(balances);
    let balances = open(&folder);
    assert_eq!(balances.unconfirmed_refunds(None, 10), [refund]);
    assert_eq!(balances.balance(id(1)).unwrap().state, BalanceState::Refunding);
    assert_eq!(balances.withdraw_for_refund(id(1)).await, Ok(refund));
    let other = balances.confirm_refund(id(1), nanos(4)).await;
    assert_eq!(other, Err(RefundError::NotUnderWay { payment_id: id(1), total: nanos(4) }));
    balances.confirm_refund(id(1), nanos(5)).await.unwrap();
    balances.confirm_refund(id(1), nanos(5)).await.unwrap();
    assert_eq!(balances.unconfirmed_refunds(None, 10), []);
    // The next one is cumulative; refused by the hub, it is free again.
    let next = balances.withdraw_for_refund(id(1)).await.unwrap();
    assert_eq!((next.amount, next.refunded_total), (nanos(2), nanos(7)));
    balances.restore_refund(id(1), nanos(7)).await.unwrap();
    assert!(balances.restore_refund(id(1), nanos(7)).await.is_err());
    new(&balances, 1, 4, 2).await.commit(nanos(2), NOW).await.unwrap();
    assert!(matches!(balances.withdraw_for_refund(id(1)).await, Err(RefundError::NothingLeft { .. })));
    assert!(matches!(balances.withdraw_for_refund(id(9)).await, Err(RefundError::Unknown(_))));
    drop(balances);
    let view = open(&folder).balance(id(1)).unwrap();
    assert_eq!((view.drawn, view.refunded, view.refunding, view.left), (nanos(5), nanos(5), nanos(0), nanos(0)));
    assert_eq!(view.state, BalanceState::Spent);
}

#[tokio::test]
async fn credits_never_shown_are_listed_until_they_are_shown_or_refunded() {
    let folder = tempfile::tempdir().unwrap();
    let balances = open(&folder);
    let noted = balances.note(&[payment(1, 5), payment(2, 5), payment(3, 5)]).await.unwrap();
    assert_eq!(noted, Noted { new: 3, ..Noted::default() });
    let noted = balances.note(&[payment(1, 5), payment(4, 5)]).await.unwrap();
    assert_eq!(noted, Noted { new: 1, known: 1, too_old: 0 });
    let unknown = balances.reserve(&ask(1, 1, 1), NOW).await.unwrap_err();
    assert_eq!(unknown, ReserveError::Unknown(id(1)), "a credit alone buys nothing");
    balances.show(&credit(1, 5), NOW).unwrap();
    new(&balances, 1, 1, 1).await.commit(nanos(1), NOW).await.unwrap();
    let refund = balances.withdraw_for_refund(id(2)).await.unwrap();
    assert_eq!(refund.amount, nanos(5));
    drop(balances);
    let balances = open(&folder);
    let listed = |before: u64| {
        let page = balances.never_shown(Time(before), PageEnd::default(), 10);
        page.iter().map(|view| view.payment.payment_id()).collect::<Vec<_>>()
    };
    assert_eq!(listed(PAID_AT + 1), [id(3), id(4)]);
    assert_eq!(listed(PAID_AT), []);
    assert_eq!(balances.totals()[0].1.unshown_nanos, 10);
    assert_eq!(balances.balance(id(1)).unwrap().shown, Some((NOW, [4; 16])));
    // Refunded, its receipt buys nothing.
    assert!(balances.show(&credit(2, 5), NOW).unwrap().left.is_zero());
    assert!(matches!(balances.reserve(&ask(2, 1, 1), NOW).await, Err(ReserveError::Spent { .. })));
    assert!(matches!(balances.show(&credit(3, 6), NOW), Err(ShowError::Differs(_))));
}

#[tokio::test]
async fn balances_are_listed_in_pages_that_miss_and_repeat_none() {
    let folder = tempfile::tempdir().unwrap();
    let balances = open(&folder);
    for number in 0..25_u32 {
        let mut credit = credit(number, 5);
        credit.payment.paid_at = Time(PAID_AT + u64::from(number % 3));
        balances.show(&credit, NOW).unwrap();
        balances.persist(id(number)).await.unwrap();
    }
    drop(balances);
    let balances = open(&folder);
    let (mut after, mut seen) = (PageEnd::default(), BTreeSet::new());
    loop {
        let page = balances.list(after, 4);
        let Some(last) = page.last() else { break };
        after = last.page_end();
        assert!(page.iter().all(|view| seen.insert((view.payment.paid_at, view.payment.payment_id()))));
    }
    assert_eq!(seen.len(), 25);
    let limits = Limits { most_queued: 2, ..Limits::default() };
    drop(balances);
    let balances = Balances::open(folder.path(), limits).unwrap();
    assert!(balances.note(&[payment(100, 1)]).await.is_ok());
    assert!(balances.note(&[payment(101, 1), payment(102, 1)]).await.is_err(), "more than can be queued");
}

#[tokio::test]
async fn units_are_counted_in_the_order_of_draws_and_survive_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let balances = open(&folder);
    balances.show(&credit(1, 1_000), NOW).unwrap();
    let counter = Counter([5; 16]);
    // The first 10 units at 3, the others at 1, by 20 requests at once of 3 units each.
    let price = |before: u64| nanos((before..before + 3).map(|unit| if unit < 10 { 3 } else { 1 }).sum());
    let mut requests = JoinSet::new();
    for request in 0..20 {
        let reservation = new(&balances, 1, request, 9).await;
        requests.spawn(reservation.commit_counted(Count { counter, units: 3 }, price, NOW));
    }
    let mut sum = 0;
    while let Some(drawn) = requests.join_next().await {
        sum += drawn.unwrap().unwrap().drawn.nanos();
    }
    assert_eq!(sum, 10 * 3 + 50, "no unit is in two steps");
    drop(balances);
    let balances = open(&folder);
    assert_eq!((balances.units(id(1), counter), balances.balance(id(1)).unwrap().drawn), (60, nanos(sum)));
    assert_eq!(balances.units(id(1), Counter([6; 16])), 0, "another route counts for itself");
    drop(new(&balances, 1, 99, 9).await.commit_counted(Count { counter, units: 3 }, price, NOW));
    assert_eq!(balances.units(id(1), counter), 60, "never polled, never counted");
}
