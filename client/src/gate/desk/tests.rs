//! The desk with real challenges and receipts: every verdict, every refusal, and a model under random requests.
#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

mod model;
mod shown;
mod table;

use http::HeaderMap;
use weir_protocol::amount::{Amount, Time};
use weir_protocol::http::problem::PaymentProblem;
use weir_protocol::http::{Challenge, Credential};

use super::*;
use crate::gate::price::{Tier, UnitPrice, Units, Usage};
use crate::gate::testing::{GRACE_MS, NOW, TTL_MS, demanded, desk, nanos, offer, paid, showing, with};

/// A desk and the folder of its store.
struct Shop {
    desk: Desk,
    _folder: tempfile::TempDir,
}

impl Shop {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { desk: desk(folder.path()), _folder: folder }
    }

    async fn judge(&self, offer: &Offer, headers: &HeaderMap, now: Time) -> Verdict {
        self.desk.judge_offer(offer, headers, now).await
    }

    /// Asks, pays so much a second later.
    async fn buy(&self, offer: &Offer, amount: u64) -> Credential {
        let demand = demanded(&self.desk, offer, NOW).await;
        paid(&demand.challenge, amount, NOW.plus_ms(1_000))
    }

    async fn charge(&self, offer: &Offer, headers: &HeaderMap, now: Time) -> Charge {
        match self.judge(offer, headers, now).await {
            Verdict::Serve(charge) => *charge,
            other => panic!("not served but {other:?}"),
        }
    }

    /// Serves and charges the most; what was drawn.
    async fn serve(&self, offer: &Offer, headers: &HeaderMap, now: Time) -> u64 {
        let charge = self.charge(offer, headers, now).await;
        charge.commit(Used::Most, now).await.unwrap().drawn.drawn.nanos()
    }

    async fn short(&self, offer: &Offer, headers: &HeaderMap, now: Time) -> Demand {
        match self.judge(offer, headers, now).await {
            Verdict::Demand(demand) => *demand,
            other => panic!("no demand but {other:?}"),
        }
    }

    async fn problem(&self, offer: &Offer, headers: &HeaderMap, now: Time) -> PaymentProblem {
        self.short(offer, headers, now).await.problem
    }

    async fn refused(&self, offer: &Offer, headers: &HeaderMap) -> Refusal {
        match self.judge(offer, headers, NOW).await {
            Verdict::Refuse(refusal) => refusal,
            other => panic!("not refused but {other:?}"),
        }
    }

    /// All that was drawn, in nanos.
    fn drawn(&self) -> u128 {
        self.desk.balances().totals().iter().map(|(_, totals)| totals.drawn_nanos).sum()
    }
}

/// The same with a key of the request.
fn keyed(credential: &Credential, key: &str) -> HeaderMap {
    with(&[("authorization", &credential.to_header()), ("idempotency-key", key)])
}

const LATER: Time = Time(NOW.0 + 2_000);

#[tokio::test]
async fn payment_of_the_price_opens_its_resource_once_and_no_other() {
    let shop = Shop::open();
    let (article, other) = (offer("/a", 50), offer("/b", 50));
    let shown = showing(&shop.buy(&article, 50).await);
    assert_eq!(shop.problem(&other, &shown, LATER).await, PaymentProblem::InvalidChallenge);
    assert_eq!(shop.serve(&article, &shown, LATER).await, 50);
    let again = shop.charge(&article, &shown, LATER.plus_ms(1)).await;
    assert!(again.is_again() && again.most().is_zero());
    drop(again);
    assert_eq!(shop.serve(&article, &shown, LATER.plus_ms(2)).await, 0);
    assert_eq!(shop.problem(&other, &shown, LATER).await, PaymentProblem::InvalidChallenge);
    assert_eq!(shop.serve(&article, &shown, LATER.plus_ms(GRACE_MS - 1)).await, 0);
    let over = shop.short(&article, &shown, LATER.plus_ms(GRACE_MS)).await;
    assert_eq!(over.problem, PaymentProblem::PaymentExpired);
    assert!(over.payment_id.is_some(), "the payer is told which payment is over");
    assert_eq!(shop.drawn(), 50);
}

#[tokio::test]
async fn same_path_with_another_method_is_another_resource_but_head() {
    let shop = Shop::open();
    let article = offer("/a", 50);
    let shown = showing(&shop.buy(&article, 50).await);
    let posted = Offer { method: Method::POST, ..offer("/a", 50) };
    assert_eq!(shop.problem(&posted, &shown, LATER).await, PaymentProblem::InvalidChallenge);
    assert_eq!(shop.serve(&article, &shown, LATER).await, 50);
}

#[tokio::test]
async fn payment_of_more_is_drawn_for_any_route_until_it_is_short() {
    let shop = Shop::open();
    let (article, other) = (offer("/a", 50), offer("/b", 30));
    let credential = shop.buy(&article, 130).await;
    let shown = showing(&credential);
    for offer in [&article, &other] {
        assert_eq!(shop.serve(offer, &shown, LATER).await, offer.price.most().nanos());
    }
    assert_eq!(shop.serve(&article, &shown, LATER).await, 50, "without a key each request is a new one");
    let demand = shop.short(&other, &shown, LATER).await;
    assert_eq!(demand.problem, PaymentProblem::PaymentExpired, "nothing is left");
    assert_ne!(demand.challenge.id, credential.challenge.id, "the demand is a fresh one");
    let shown = showing(&shop.buy(&article, 70).await);
    assert_eq!(shop.serve(&article, &shown, LATER).await, 50);
    let demand = shop.short(&other, &shown, LATER).await;
    assert_eq!((demand.problem, demand.amount), (PaymentProblem::PaymentInsufficient, nanos(30)));
    assert_eq!(shop.serve(&offer("/c", 20), &shown, LATER).await, 20, "the rest is no loss");
    assert_eq!(shop.drawn(), 200);
}

#[tokio::test]
async fn what_is_held_by_another_request_is_not_drawn_twice() {
    let shop = Shop::open();
    let article = offer("/a", 50);
    let shown = showing(&shop.buy(&article, 60).await);
    let held = shop.charge(&article, &shown, LATER).await;
    assert_eq!(shop.problem(&article, &shown, LATER).await, PaymentProblem::PaymentInsufficient);
    held.release();
    assert_eq!(shop.serve(&article, &shown, LATER).await, 50);
}

#[tokio::test]
async fn key_of_a_request_makes_it_the_same_and_another_key_another() {
    let shop = Shop::open();
    let (article, other) = (offer("/a", 50), offer("/b", 50));
    let credential = shop.buy(&article, 200).await;
    assert_eq!(shop.serve(&article, &keyed(&credential, "one"), LATER).await, 50);
    assert_eq!(shop.serve(&article, &keyed(&credential, "one"), LATER).await, 0);
    assert_eq!(shop.serve(&article, &keyed(&credential, "two"), LATER).await, 50);
    assert_eq!(shop.serve(&other, &keyed(&credential, "one"), LATER).await, 50, "a key is one resource's");
    let over = LATER.plus_ms(GRACE_MS);
    assert_eq!(shop.serve(&article, &keyed(&credential, "one"), over).await, 50, "the window is over");
    let bad = with(&[("authorization", &credential.to_header()), ("idempotency-key", "")]);
    let refusal = shop.refused(&article, &bad).await;
    assert_eq!((refusal.status, refusal.code), (StatusCode::BAD_REQUEST, "bad-idempotency-key"));
}

#[tokio::test]
async fn unsafe_method_is_repeated_so_often_and_no_more() {
    let shop = Shop::open();
    let order = Offer { method: Method::POST, ..offer("/order", 50) };
    let credential = shop.buy(&order, 200).await;
    let shown = keyed(&credential, "k");
    assert_eq!(shop.serve(&order, &shown, LATER).await, 50);
    for _ in 0..MAX_REPEATS {
        assert_eq!(shop.serve(&order, &shown, LATER).await, 0);
    }
    let refusal = shop.refused(&order, &shown).await;
    assert_eq!((refusal.status, refusal.code), (StatusCode::CONFLICT, "already-served"));
    assert_eq!(shop.serve(&order, &keyed(&credential, "l"), LATER).await, 50);
    assert_eq!(shop.drawn(), 100);
    let article = offer("/a", 50);
    let shown = showing(&shop.buy(&article, 50).await);
    for _ in 0..=MAX_REPEATS + 1 {
        shop.serve(&article, &shown, LATER).await;
    }
    assert_eq!(shop.drawn(), 150, "what is safe is repeated without end");
}

#[tokio::test]
async fn access_opens_the_same_again_for_its_span_and_a_balance_nothing_else() {
    let shop = Shop::open();
    let article = Offer { access_ms: Some(GRACE_MS * 10), ..offer("/a", 50) };
    let shown = showing(&shop.buy(&article, 80).await);
    assert_eq!(shop.serve(&article, &shown, LATER).await, 50);
    assert_eq!(shop.serve(&article, &shown, LATER.plus_ms(GRACE_MS * 10 - 1)).await, 0);
    assert_eq!(shop.problem(&article, &shown, LATER.plus_ms(GRACE_MS * 10)).await, PaymentProblem::PaymentInsufficient);
}

#[tokio::test]
async fn price_that_rose_or_fell_after_the_demand_is_the_demanded_one_at_most() {
    let shop = Shop::open();
    let shown = showing(&shop.buy(&offer("/a", 50), 50).await);
    assert_eq!(shop.serve(&offer("/a", 80), &shown, LATER).await, 50, "it rose");
    let shown = showing(&shop.buy(&offer("/b", 50), 50).await);
    assert_eq!(shop.serve(&offer("/b", 20), &shown, LATER).await, 20, "it fell");
    // Prepaid: the old price holds while its demand could be paid, or for the first request however late.
    let shown = showing(&shop.buy(&offer("/c", 50), 1_000).await);
    let (dear, late) = (offer("/c", 80), LATER.plus_ms(TTL_MS));
    assert_eq!(shop.serve(&dear, &shown, LATER).await, 50);
    assert_eq!(shop.serve(&offer("/d", 80), &shown, LATER).await, 80, "another resource was never asked for");
    assert_eq!(shop.serve(&dear, &shown, NOW.plus_ms(1_000 + TTL_MS - 1)).await, 50);
    assert_eq!(shop.serve(&dear, &shown, NOW.plus_ms(1_000 + TTL_MS)).await, 80);
    let shown = showing(&shop.buy(&offer("/e", 50), 60).await);
    assert_eq!(shop.serve(&offer("/e", 80), &shown, late).await, 50, "paid in time, shown late");
}

#[tokio::test]
async fn metered_request_draws_what_it_used_and_steps_go_on_across_requests() {
    let shop = Shop::open();
    let tiers = vec![Tier { up_to: Some(10), price: nanos(3) }, Tier { up_to: None, price: nanos(1) }];
    let units = UnitPrice::Plain { tiers, per: 1.try_into().unwrap(), max: 8 };
    let price = Price::new(Amount::ZERO, None, Some(units)).unwrap();
    let chat = Offer { price, ..offer("/chat", 0) };
    let shown = showing(&shop.buy(&chat, 24).await);
    let usage = Usage { units: Units::plain(7), ..Usage::default() };
    let settled = shop.charge(&chat, &shown, LATER).await.commit(Used::Usage(usage), LATER).await.unwrap();
    assert_eq!((settled.drawn.drawn, settled.drawn.left), (nanos(21), nanos(3)));
    assert!(settled.receipt().contains_key("payment-receipt"));
    assert_eq!(shop.problem(&chat, &shown, LATER).await, PaymentProblem::PaymentInsufficient, "the most is 24");
    let shown = showing(&shop.buy(&chat, 100).await);
    let use_units = async |count: u64| {
        let usage =
            super::super::price::Usage { units: super::super::price::Units::plain(count), ..Default::default() };
        shop.charge(&chat, &shown, LATER).await.commit(Used::Usage(usage), LATER).await.unwrap().drawn.drawn.nanos()
    };
    assert_eq!(use_units(7).await, 21, "another balance begins anew");
    assert_eq!(use_units(7).await, 3 * 3 + 4);
    assert_eq!(use_units(100).await, 8, "no more than its most");
    assert_eq!(use_units(0).await, 0);
}

#[tokio::test]
async fn closed_store_is_never_answered_with_a_demand() {
    let shop = Shop::open();
    let article = offer("/a", 50);
    let (known, fresh) = (shop.buy(&article, 90).await, shop.buy(&article, 50).await);
    let charge = shop.charge(&article, &showing(&known), LATER).await;
    shop.desk.balances().fail("the disk is gone");
    assert!(charge.commit(Used::Most, LATER).await.is_err());
    for credential in [known, fresh] {
        let refusal = shop.refused(&article, &showing(&credential)).await;
        assert_eq!((refusal.status, refusal.code), (StatusCode::SERVICE_UNAVAILABLE, "store-closed"));
        assert!(refusal.retry_after_seconds.is_some());
    }
    let refusal = shop.refused(&article, &HeaderMap::new()).await;
    assert_eq!(refusal.code, "store-closed", "nobody is asked for what cannot be accounted for");
}

#[tokio::test]
async fn hundred_of_the_same_request_at_once_are_one_draw() {
    let shop = std::sync::Arc::new(Shop::open());
    let article = offer("/a", 50);
    let shown = showing(&shop.buy(&article, 50).await);
    let mut requests = tokio::task::JoinSet::new();
    for at in 0..100 {
        let (shop, article, shown) = (std::sync::Arc::clone(&shop), article.clone(), shown.clone());
        requests.spawn(async move {
            // Every third client leaves before the end: the next one has its place.
            let charge = shop.charge(&article, &shown, LATER).await;
            if at % 3 == 0 && !charge.is_again() {
                return 0;
            }
            charge.commit(Used::Most, LATER).await.unwrap().drawn.drawn.nanos()
        });
    }
    let mut drawn = 0;
    while let Some(one) = requests.join_next().await {
        drawn += one.unwrap();
    }
    assert_eq!((drawn, shop.drawn()), (50, 50));
}

#[tokio::test]
async fn restart_forgets_no_draw_and_serves_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let article = offer("/a", 50);
    let shop = Shop { desk: desk(folder.path()), _folder: tempfile::tempdir().unwrap() };
    let shown = showing(&shop.buy(&article, 50).await);
    assert_eq!(shop.serve(&article, &shown, LATER).await, 50);
    drop(shop);
    let shop = Shop { desk: desk(folder.path()), _folder: folder };
    assert_eq!(shop.serve(&article, &shown, LATER).await, 0);
    assert_eq!(shop.drawn(), 50);
}

#[tokio::test]
async fn claim_whose_payment_was_drawn_is_found_after_a_restart_and_opens_what_it_opened() {
    let folder = tempfile::tempdir().unwrap();
    let article = Offer { access_ms: Some(GRACE_MS * 10), ..offer("/a", 50) };
    let shop = Shop { desk: desk(folder.path()), _folder: tempfile::tempdir().unwrap() };
    let credential = shop.buy(&article, 50).await;
    let old = shop.buy(&offer("/old", 50), 50).await;
    shop.desk.claim(&credential.challenge.id, &credential, LATER).await.unwrap();
    assert_eq!(shop.serve(&article, &showing(&credential), LATER).await, 50);
    assert_eq!(shop.serve(&offer("/old", 50), &showing(&old), LATER).await, 50);
    drop(shop);
    let shop = Shop { desk: desk(folder.path()), _folder: folder };
    let payment_id = shop.desk.claimed(credential.challenge.reference()).unwrap();
    let cookie = shop.desk.cookie(payment_id, Some(article.resource()), article.access_ms, LATER);
    let shown = with(&[("cookie", &format!("weir={cookie}"))]);
    assert_eq!(shop.serve(&article, &shown, LATER.plus_ms(GRACE_MS)).await, 0);
    let over = LATER.plus_ms(GRACE_MS * 10);
    assert_eq!(shop.problem(&article, &shown, over).await, PaymentProblem::PaymentRequired, "the access is over");
    assert_eq!(shop.drawn(), 100);
}

#[tokio::test]
async fn next_demand_is_offered_when_a_balance_runs_low_and_never_otherwise() {
    let shop = Shop::open();
    let article = offer("/a", 50);
    let next = async |headers: &HeaderMap| {
        let charge = shop.charge(&article, headers, LATER).await;
        let mut head = HeaderMap::new();
        charge.write_next(&mut head);
        charge.commit(Used::Most, LATER).await.unwrap();
        head.get("www-authenticate").map(|value| Challenge::from_header(value.to_str().unwrap()).unwrap())
    };
    let credential = shop.buy(&article, 120).await;
    assert_eq!(next(&keyed(&credential, "one")).await, None, "70 is left");
    let offered = next(&keyed(&credential, "two")).await.unwrap();
    assert_eq!(next(&keyed(&credential, "two")).await, None, "a retry is offered nothing");
    let ahead = paid(&offered, 150, LATER);
    assert_eq!(shop.serve(&article, &showing(&ahead), LATER).await, 50, "it is a demand like any other");
    let single = shop.buy(&article, 50).await;
    assert_eq!(next(&showing(&single)).await, None, "one payment for one page");
}
