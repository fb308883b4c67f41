//! The operator's side of a gate, with real processes: money that is left goes back once, whatever is killed; what was never
//! shown is listed; a store has one owner.
#![expect(clippy::print_stdout, reason = "what a run came to is worth seeing")]

mod site;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_client::gate::balance::{Balances, Limits};
use weir_client::gate::ops::refund::{Condition, Refunds};
use weir_client::gate::ops::shapes::RefundOutcome;
use weir_client::{Client, Order, Outcome};
use weir_protocol::amount::{Amount, Time};
use weir_protocol::http::{Challenge, Credential};
use weir_protocol::id::{PaymentId, Reference};
use weir_tests::harness::people::{self, PATIENCE};
use weir_tests::harness::place::{Place, stderr};
use weir_tests::harness::random::Random;

use crate::HUB;
use site::{Site, Upstream};

const PRICE: &str = "0.05";
/// Payments of which something is left when gates are killed.
const LEFTOVERS: u64 = 40;
const KILLS: u64 = 8;

/// A person with a lane.
struct Reader {
    client: Client,
    lane: weir_client::Lane,
    payee: weir_protocol::id::AccountId,
}

impl Reader {
    async fn pay(&self, reference: Reference, amount: &str) -> (PaymentId, weir_protocol::receipt::ReceiptFile) {
        let order = Order { payee: self.payee, amount: amount.parse().unwrap(), reference, deadline: None };
        let outcome = self.lane.pay(order).await.unwrap();
        let Outcome::Paid(paid) = outcome else { panic!("not paid: {outcome:?}") };
        (paid.payment_id().unwrap(), paid.receipt().unwrap())
    }

    /// Pays what a challenge asks for, or more; what shows it.
    async fn buy(&self, challenge: Challenge, amount: &str) -> (PaymentId, String) {
        let (id, file) = self.pay(challenge.reference(), amount).await;
        (id, Credential::new(challenge, &file).to_header())
    }

    async fn available(&self) -> Amount {
        available(&self.client).await
    }
}

async fn available(client: &Client) -> Amount {
    let info = client.account_info().await.unwrap();
    info.balances.iter().map(|balance| balance.available).next().unwrap_or_default()
}

async fn earned(client: &Client) -> Amount {
    let info = client.account_info().await.unwrap();
    info.balances.iter().map(|balance| balance.earned).next().unwrap_or_default()
}

fn amount(text: &str) -> Amount {
    text.parse().unwrap()
}

/// Asks until it holds.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn states(page: &Value) -> Vec<(String, String)> {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    page["balances"].as_array().unwrap().iter().map(|row| (text(row, "payment"), text(row, "state"))).collect()
}

async fn unshown(site: &Site, payment: PaymentId) {
    let wanted = (payment.to_string(), "unshown".to_owned());
    until("the payment is listed as never shown", async || {
        states(&site.json(&["balances", "--state", "unshown"])).contains(&wanted).then_some(())
    })
    .await;
}

/// A hub, a site with its payee, and a reader with 20 euros in a channel.
async fn town(name: &str, place: &Place, address: &weir_protocol::id::HubAddress) -> (Site, Client, Reader) {
    let payee = people::registered(place, "payee", address).await;
    let (client, lane) = people::payer(place, "reader", address, 20).await;
    let lane = client.lane(lane.id()).unwrap();
    let site = Site::new(place, name, address, payee.account(), Upstream::start());
    let reader = Reader { client, lane, payee: payee.account() };
    (site, payee, reader)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_and_what_was_never_shown_goes_back_exactly() {
    let place = Place::new(HUB);
    let hub = place.run();
    let (mut site, payee, reader) = town("news", &place, &hub.address).await;
    site.start();

    // More than the price, drawn once.
    let (first, shown) = reader.buy(site.challenge("/a/1"), "0.2").await;
    assert_eq!(site.get("/a/1", Some(&shown)).0, 200);
    // Never shown; and one that was never meant for the gate.
    let (lost, lost_shown) = reader.buy(site.challenge("/a/2"), PRICE).await;
    let (other, _) = reader.pay(Reference([7; 32]), "0.07").await;
    unshown(&site, lost).await;
    until("the other payment is counted", async || (site.json(&["status"])["credits"]["foreign"] == 1).then_some(()))
        .await;
    let page = site.json(&["balances"]);
    assert_eq!(page["next"], Value::Null);
    assert_eq!(states(&page).len(), 2, "{page}");
    let row = &site.json(&["balances", "--payment", &first.to_string()[..8]])["balances"][0];
    assert_eq!((&row["drawn"], &row["left"], &row["state"]), (&"0.05".into(), &"0.15".into(), &"open".into()));
    let status = site.json(&["status"]);
    assert_eq!((&status["running"], &status["unshown"]), (&true.into(), &1.into()), "{status}");
    assert_eq!(status["credits"]["connected"], true, "{status}");
    assert_eq!(status["totals"][0]["paid"], "0.25", "{status}");
    assert!(status["certificate"]["key"].is_string(), "{status}");
    let metrics = site.metrics();
    for line in ["weir_gate_unshown 1", "weir_gate_unshown_nanos 50000000", "weir_gate_hub_connected 1"] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }

    // A store has one owner, and a socket that only its owner may use.
    let second = site.verb(&[]);
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("in use by another gate"), "{}", stderr(&second));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(site.state().join("admin.sock")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);

    // Too early, not confirmed, only looked at: nothing moves.
    let early = site.verb(&["refund", "--never-shown-older-than", "10m", "--yes"]);
    assert_eq!(early.status.code(), Some(2), "{}", stderr(&early));
    assert_eq!(site.verb(&["refund", &first.to_string()]).status.code(), Some(2));
    let dry = site.json(&["refund", "--remainders-older-than", "1ms", "--dry-run"]);
    assert_eq!((&dry["sums"][0]["amount"], &dry["refunds"][0]["outcome"]), (&"0.15".into(), &"planned".into()));
    let unknown = site.verb(&["refund", &other.to_string(), "--yes"]);
    assert_eq!(unknown.status.code(), Some(1), "{}", stderr(&unknown));
    assert!(reader.available().await.is_zero());

    let done = site.json(&["refund", "--remainders-older-than", "1ms", "--yes"]);
    let refund = &done["refunds"][0];
    assert_eq!((&refund["payment"], &refund["outcome"]), (&first.to_string().into(), &"refunded".into()), "{done}");
    assert_eq!((&refund["amount"], done["refunds"].as_array().unwrap().len()), (&"0.15".into(), 1), "{done}");
    assert!(refund["act"].is_string() && refund["commit"].is_u64(), "{done}");
    assert_eq!(reader.available().await, amount("0.15"));
    site.json(&["refund", &lost.to_string(), "--yes"]);
    assert_eq!(reader.available().await, amount("0.2"));
    assert_eq!(earned(&payee).await, amount("0.12"), "one article, and what was never the gate's");
    // What was given back buys nothing, and is not given back again.
    assert_eq!(site.get("/a/2", Some(&lost_shown)).0, 402);
    assert_eq!(site.get("/a/9", Some(&shown)).0, 402);
    let again = site.json(&["refund", &first.to_string(), &lost.to_string(), "--yes"]);
    assert_eq!(again["sums"], Value::Array(Vec::new()), "{again}");
    assert!(site.metrics().contains("weir_gate_refunds_total{outcome=\"refunded\"} 2"), "{}", site.metrics());

    // Without a running gate the verbs do the same. A payment made meanwhile is found at the next start.
    let (kept, shown) = reader.buy(site.challenge("/a/3"), "0.15").await;
    assert_eq!(site.get("/a/3", Some(&shown)).0, 200);
    let late = site.challenge("/a/4");
    site.stop();
    let (late, late_shown) = reader.buy(late, PRICE).await;
    assert_eq!(site.json(&["status"])["running"], false);
    let done = site.json(&["refund", &kept.to_string(), "--yes"]);
    assert_eq!(done["refunds"][0]["amount"], "0.1", "{done}");
    assert_eq!(reader.available().await, amount("0.3"));
    site.start();
    unshown(&site, late).await;
    assert_eq!(site.get("/a/4", Some(&late_shown)).0, 200, "late is not too late");
    let (gone, _) = reader.buy(site.challenge("/a/5"), PRICE).await;
    unshown(&site, gone).await;
    let (twice, shown) = reader.buy(site.challenge("/a/6"), "0.15").await;
    assert_eq!(site.get("/a/6", Some(&shown)).0, 200);
    site.stop();
    assert!(!site.state().join("admin.sock").exists());
    assert!(site.state().join("certificates.json").exists());

    // What the gate does by itself after `refund_unshown_after`: not a moment too early.
    let balances = Balances::open(&site.state(), Limits::default()).unwrap();
    let paid_at = balances.balance(gone).unwrap().payment.paid_at;
    let refunds = Refunds::new(balances.clone(), payee.clone());
    let heard: weir_client::gate::ops::refund::Heard = std::sync::Arc::new(|_| {});
    refunds.refund_unshown(paid_at, &heard).await;
    assert_eq!(reader.available().await, amount("0.3"));
    refunds.refund_unshown(Time(paid_at.0 + 1), &heard).await;
    assert_eq!(reader.available().await, amount("0.35"));

    // Given back behind the gate's back, against all advice: nothing of it can be drawn or given back once more.
    payee.refund(balances.balance(twice).unwrap().payment.place, amount("0.15")).await.unwrap();
    assert_eq!(reader.available().await, amount("0.5"));
    let done = refunds.refund(twice, Condition::Named).await;
    assert_eq!((done.outcome, done.commit), (RefundOutcome::Refunded, None), "{done:?}");
    assert!(balances.balance(twice).unwrap().left.is_zero());
    assert_eq!(reader.available().await, amount("0.5"));
    drop((refunds, balances));

    assert_eq!(earned(&payee).await, amount("0.22"));
    reader.client.shut_down().await;
    payee.shut_down().await;
    hub.stop();
    place.clean_audit();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gate_killed_between_balance_and_hub_refunds_exactly_once() {
    let mut random = Random::seeded("gate_ops");
    let place = Place::new(HUB);
    let hub = place.run();
    let (mut site, payee, reader) = town("news", &place, &hub.address).await;
    site.start();
    for number in 0..LEFTOVERS {
        let path = format!("/a/{number}");
        let (_, shown) = reader.buy(site.challenge(&path), "0.07").await;
        assert_eq!(site.get(&path, Some(&shown)).0, 200);
    }
    let back = |count: u64| Amount::from_nanos(count * 20_000_000);
    let mut kills = 0;
    let mut left_open = 0;
    let mut given = 0;
    while kills < KILLS && given + 2 < LEFTOVERS {
        // Killed while money moves: after some more of it has come back.
        let some = given + 1 + random.below(3);
        let verb = site.spawn(&["refund", "--remainders-older-than", "1ms", "--yes"]);
        until("some of it is given back", async || (reader.available().await >= back(some)).then_some(())).await;
        site.kill();
        let output = verb.wait_with_output().unwrap();
        kills += 1;
        if output.status.code() != Some(0) {
            assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
        }
        left_open += states(&site.json(&["balances", "--state", "refunding"])).len();
        site.start();
        // What was under way is finished by itself.
        until("nothing is under way", async || {
            site.json(&["balances", "--state", "refunding"])["balances"].as_array().unwrap().is_empty().then_some(())
        })
        .await;
        let spent = states(&site.json(&["balances", "--state", "spent"])).len() as u64;
        assert_eq!(reader.available().await, back(spent), "after {kills} kills");
        given = spent;
    }
    println!("{kills} kills, {left_open} left a refund under way");
    assert!(kills >= 3, "only {kills} kills hit");
    let rest = site.json(&["refund", "--remainders-older-than", "1ms", "--yes"]);
    assert_eq!(rest["not_tried"], 0);
    assert_eq!(reader.available().await, back(LEFTOVERS));
    assert_eq!(earned(&payee).await, Amount::from_nanos(LEFTOVERS * 50_000_000));
    let totals = &site.json(&["status"])["totals"][0];
    assert_eq!((&totals["left"], &totals["refunding"], &totals["refunded"]), (&"0".into(), &"0".into(), &"0.8".into()));

    // Without the hub, nothing is taken from a balance, and what was paid goes on being served.
    let (last, shown) = reader.buy(site.challenge("/a/last"), "0.15").await;
    reader.client.shut_down().await;
    payee.shut_down().await;
    hub.stop();
    assert_eq!(site.get("/a/last", Some(&shown)).0, 200);
    let output = site.verb(&["refund", &last.to_string(), "--yes"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let row = &site.json(&["balances", "--payment", &last.to_string()])["balances"][0];
    assert_eq!((&row["left"], &row["refunding"]), (&"0.1".into(), &"0".into()));
    until("the gate says that the hub is gone", async || {
        site.metrics().contains("weir_gate_hub_connected 0").then_some(())
    })
    .await;
    site.stop();
    place.clean_audit();
    assert!(Path::new(&site.state()).join("issued.log").exists());
}
