//! Round trips, counted behind a relay that delays every packet: what a lane costs before its first answer.
#![expect(clippy::print_stdout, reason = "the figures are worth reading")]

use std::time::{Duration, Instant};

use weir_client::{Client, Home, Outcome, PlainKeys};
use weir_protocol::id::LaneId;
use weir_tests::harness::orders::Series;
use weir_tests::harness::people;
use weir_tests::harness::place::Place;
use weir_tests::harness::relay::Relay;

use crate::HUB;

/// Long, so that what this machine does between packets is little of it.
const ROUND_TRIP: Duration = Duration::from_millis(200);
/// The best counts: a loaded machine is only ever slower.
const TRIES: u64 = 5;

/// What takes its time from when everything else is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// An attach, on a connection that is there and has not proven the lane's key.
    AttachLive,
    /// An attach, without a connection.
    AttachFromNothing,
    /// A payment, without a connection.
    PaymentFromNothing,
}

/// Round trips, in a process that has only just begun.
async fn measured(place: &Place, relay: &Relay, lane: LaneId, what: What, order: weir_client::Order) -> f64 {
    let home = Home::open(place.path("payer"), PlainKeys::sealer()).unwrap();
    let client = Client::start(home).unwrap();
    relay.set_round_trip(ROUND_TRIP);
    if what == What::AttachLive {
        client.account_info().await.unwrap();
    }
    let begin = Instant::now();
    let lane = client.lane(lane).unwrap();
    match what {
        What::AttachLive | What::AttachFromNothing => assert!(lane.attach().await.unwrap().open),
        What::PaymentFromNothing => assert!(matches!(lane.pay(order).await, Ok(Outcome::Paid(_)))),
    }
    let took = begin.elapsed();
    relay.set_round_trip(Duration::ZERO);
    client.shut_down().await;
    took.as_secs_f64() / ROUND_TRIP.as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attach_takes_one_round_trip_on_a_live_connection_and_three_from_nothing() {
    let place = Place::new(HUB);
    let hub = place.run();
    let relay = Relay::new(&hub.address).await;
    let (client, lane) = people::payer(&place, "payer", relay.address(), 10).await;
    let series = Series { seed: 1, payees: vec![client.account()] };
    client.shut_down().await;
    drop(client);
    let bounds = [(What::AttachLive, 1.5), (What::AttachFromNothing, 3.5), (What::PaymentFromNothing, 4.5)];
    for (what, most) in bounds {
        let mut best = f64::MAX;
        for number in 0..TRIES {
            let round_trips = measured(&place, &relay, lane.id(), what, series.order(number)).await;
            best = best.min(round_trips);
            if best < most {
                break;
            }
        }
        println!("{what:?}: {best:.2} round trips");
        assert!(best < most, "{what:?} took {best:.2} round trips");
    }
    drop(relay);
    hub.stop();
    place.clean_audit();
}
