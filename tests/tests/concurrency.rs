//! Many calls at once, several processes on one home or one lane.
#![expect(clippy::print_stdout, reason = "the figures are worth reading")]

use std::collections::HashSet;
use std::sync::mpsc::channel;
use std::time::Instant;

use tokio::task::JoinSet;
use weir_client::protocol::lane::payer::Limits;
use weir_client::{Client, Home, HomeError, LaneOptions, LaneStopped, Outcome, PayError, PlainKeys};
use weir_tests::harness::books::Books;
use weir_tests::harness::orders::Series;
use weir_tests::harness::payer::{HOME_HELD, Payer, Task};
use weir_tests::harness::people;
use weir_tests::harness::place::{Place, copy};

use crate::{HUB, PAYER};

/// The fan-out of which a comparable system paid 180.
const CALLS: u64 = 2_064;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_at_once_on_one_lane_are_each_paid_exactly_once() {
    let place = Place::new(HUB);
    let hub = place.run();
    let payee = people::registered(&place, "payee", &hub.address).await;
    let (client, lane) = people::payer(&place, "payer", &hub.address, 100).await;
    let series = Series { seed: 1, payees: vec![payee.account()] };
    let paying = client.lane(lane.id()).unwrap();
    let mut calls = JoinSet::new();
    let begin = Instant::now();
    for index in 0..CALLS {
        let (paying, order) = (paying.clone(), series.order(index));
        calls.spawn(async move {
            let Ok(Outcome::Paid(paid)) = paying.pay(order).await else { panic!("payment {index} is not paid") };
            (order, paid)
        });
    }
    let all = calls.join_all().await;
    println!("{CALLS} payments at once on one lane, from its attach on: {:?}", begin.elapsed());
    let mut ids = HashSet::new();
    for (order, paid) in all {
        let receipt = paid.receipt().unwrap();
        receipt.check().unwrap();
        assert_eq!((receipt.reference, receipt.amount), (order.reference, order.amount));
        ids.insert(receipt.receipt.payment_id);
    }
    assert_eq!(ids.len() as u64, CALLS);
    // The same order again, at once from many callers, is the same payment.
    let mut again = JoinSet::new();
    for _ in 0..64 {
        let (paying, order) = (paying.clone(), series.order(7));
        again.spawn(async move {
            let Ok(Outcome::Paid(paid)) = paying.pay(order).await else { panic!("not paid") };
            paid.payment_id().unwrap()
        });
    }
    assert_eq!(again.join_all().await.into_iter().collect::<HashSet<_>>().len(), 1);
    // Another payment under a reference that was used is refused by the client itself.
    let other = weir_client::Order { amount: people::euro(1), ..series.order(7) };
    assert!(matches!(paying.pay(other).await, Err(PayError::Order(_))));

    let books = Books::read(&place.data());
    assert_eq!(books.by_id.keys().copied().collect::<HashSet<_>>(), ids);
    assert_eq!(payee.account_info().await.unwrap().balances[0].earned.nanos(), books.received(payee.account()).1);
    client.shut_down().await;
    hub.stop();
    assert_eq!(place.clean_audit()["payments"], CALLS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_client_on_a_home_is_refused() {
    let place = Place::new(HUB);
    let hub = place.run();
    let (client, lane) = people::payer(&place, "payer", &hub.address, 1).await;
    let payees = vec![client.account()];
    let home = place.path("payer");
    let held = Home::open(&home, PlainKeys::sealer());
    assert!(matches!(held, Err(HomeError::Locked(_))));
    let task = Task { home, lane: lane.id(), series: Series { seed: 1, payees }, first: 0, end: 3, window: 1 };
    let (acknowledged, kept) = channel();
    let mut second = Payer::start(PAYER, &task, acknowledged.clone());
    assert_eq!(second.wait(), Some(i32::from(HOME_HELD)));
    assert!(kept.try_recv().is_err());
    // When the first one has gone, it may.
    client.shut_down().await;
    drop(client);
    let mut third = Payer::start(PAYER, &task, acknowledged);
    assert_eq!(third.wait(), Some(0));
    assert_eq!(kept.try_iter().count(), 3);
    hub.stop();
    assert_eq!(place.clean_audit()["payments"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lane_attached_by_another_process_stops_the_first_and_pays_nothing_twice() {
    let place = Place::new(HUB);
    let hub = place.run();
    let payee = people::registered(&place, "payee", &hub.address).await;
    let (client, lane) = people::payer(&place, "payer", &hub.address, 10).await;
    let series = Series { seed: 1, payees: vec![payee.account()] };
    let paying = client.lane(lane.id()).unwrap();
    for index in 0..40 {
        assert!(matches!(paying.pay(series.order(index)).await, Ok(Outcome::Paid(_))));
    }
    // A copy of the home, as a backup that somebody put to use.
    copy(&place.path("payer"), &place.path("copy"));
    let task =
        Task { home: place.path("copy"), lane: lane.id(), series: series.clone(), first: 20, end: 80, window: 8 };
    let (acknowledged, kept) = channel();
    let mut second = Payer::start(PAYER, &task, acknowledged);
    assert_eq!(second.wait(), Some(0), "the newer attach holds the lane");
    let kept: Vec<_> = kept.try_iter().collect();
    assert_eq!(kept.len(), 60);

    let stopped = paying.pay(series.order(80)).await;
    assert!(matches!(stopped, Err(PayError::Stopped(LaneStopped::Detached))), "{stopped:?}");
    assert!(paying.status().stopped.is_some());
    let before = Books::read(&place.data());
    assert_eq!(before.by_id.len(), 80, "references that both asked for are paid once");
    for one in kept {
        assert!(before.by_id.contains_key(&one.checked().receipt.payment_id));
    }

    // A person says so: it attaches, sees a head of the other one, and stops for the person's word on that; then it reads
    // what the other one paid, and goes on.
    assert!(paying.recover().await);
    let seen = paying.attach().await.unwrap().stopped;
    assert!(matches!(seen, Some(LaneStopped::NewerCopy { .. })), "{seen:?}");
    assert!(paying.recover().await);
    for index in 70..90 {
        assert!(matches!(paying.pay(series.order(index)).await, Ok(Outcome::Paid(_))));
    }
    client.shut_down().await;
    hub.stop();
    assert_eq!(Books::read(&place.data()).by_id.len(), 90);
    assert_eq!(place.clean_audit()["payments"], 90);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_copy_of_a_home_stops_instead_of_signing_what_was_signed() {
    let place = Place::new(HUB);
    let hub = place.run();
    let payee = people::registered(&place, "payee", &hub.address).await;
    let (client, lane) = people::payer(&place, "payer", &hub.address, 10).await;
    let series = Series { seed: 1, payees: vec![payee.account()] };
    // Small blocks of sequences, so that few payments lead past what the copy reserved.
    let limits = Limits { block: 64, ..Limits::default() };
    let paying = client.lane_with(lane.id(), LaneOptions { limits }).unwrap();
    assert!(matches!(paying.pay(series.order(0)).await, Ok(Outcome::Paid(_))));
    copy(&place.path("payer"), &place.path("old"));
    for index in 1..200 {
        assert!(matches!(paying.pay(series.order(index)).await, Ok(Outcome::Paid(_))));
    }
    client.shut_down().await;
    let old = Client::start(Home::open(place.path("old"), PlainKeys::sealer()).unwrap()).unwrap();
    let lane = old.lane(lane.id()).unwrap();
    let outcome = lane.pay(series.order(300)).await;
    assert!(matches!(outcome, Ok(Outcome::Unknown(_))), "it may be one that the newer copy paid: {outcome:?}");
    let stopped = lane.pay(series.order(300)).await;
    assert!(matches!(stopped, Err(PayError::Stopped(LaneStopped::NewerCopy { .. }))), "{stopped:?}");
    old.shut_down().await;
    hub.stop();
    assert_eq!(place.clean_audit()["payments"], 200);
}
