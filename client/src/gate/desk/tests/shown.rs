//! What is shown and does not count, or counts although it looks late; both dialects, cookies, crawlers.

use weir_protocol::commit::SignedCertificate;
use weir_protocol::http::Challenge;
use weir_protocol::http::x402::PaymentPayload;

use super::*;
use crate::gate::site::Site;
use crate::gate::testing::{SIGNING, certificate, desk_of, key, receipt, site};

fn signed(challenge: &Challenge, amount: u64, time: Time, certificate: &SignedCertificate) -> HeaderMap {
    showing(&Credential::new(challenge.clone(), &receipt(challenge, nanos(amount), time, certificate)))
}

#[tokio::test]
async fn receipt_counts_only_from_its_demand_s_issue_to_its_end_and_is_shown_whenever() {
    let shop = Shop::open();
    let article = offer("/a", 50);
    let end = NOW.plus_ms(TTL_MS);
    for (paid_at, counts) in
        [(NOW.minus_ms(1), false), (NOW, true), (end.minus_ms(1), true), (end, false), (end.plus_ms(1), false)]
    {
        let demand = demanded(&shop.desk, &article, NOW).await;
        let shown = showing(&paid(&demand.challenge, 50, paid_at));
        // A day later: the demand is long over, the payment is not.
        let now = NOW.plus_ms(86_400_000);
        match shop.judge(&article, &shown, now).await {
            Verdict::Serve(charge) if counts => drop(charge.commit(Used::Most, now).await.unwrap()),
            Verdict::Demand(demand) if !counts => assert_eq!(demand.problem, PaymentProblem::PaymentExpired),
            other => panic!("paid at {}: {other:?}", paid_at.0),
        }
    }
    assert_eq!(shop.drawn(), 100);
}

#[tokio::test]
async fn payment_of_less_than_was_asked_is_short() {
    let shop = Shop::open();
    let article = offer("/a", 50);
    let shown = showing(&shop.buy(&article, 49).await);
    assert_eq!(shop.problem(&article, &shown, LATER).await, PaymentProblem::PaymentInsufficient);
    assert_eq!(shop.desk.balances().load().balances, 0, "it is not even noted");
}

#[tokio::test]
async fn challenge_of_another_site_is_invalid_here() {
    let shop = Shop::open();
    let article = offer("/a", 50);
    let others: [fn(&mut Site); 5] = [
        |site| site.realm = "other.example".to_owned(),
        |site| site.payee = weir_protocol::id::AccountId(key(8).public()),
        |site| site.currency = "USD".parse().unwrap(),
        |site| site.trust = crate::gate::trust::Trust::new(weir_protocol::id::HubId(key(9).public())),
        |site| site.secret = weir_protocol::http::Secret::from([0x5f; 32]),
    ];
    for change in others {
        let folder = tempfile::tempdir().unwrap();
        let mut other = site();
        change(&mut other);
        let other = desk_of(other, folder.path());
        let demand = demanded(&other, &article, NOW).await;
        let shown = showing(&paid(&demand.challenge, 50, LATER));
        assert_eq!(shop.problem(&article, &shown, LATER).await, PaymentProblem::InvalidChallenge);
    }
}

#[tokio::test]
async fn what_is_no_proof_is_answered_with_its_problem_and_a_fresh_demand() {
    let shop = Shop::open();
    let article = offer("/a", 50);
    let good = shop.buy(&article, 50).await;
    let wrong = |change: &dyn Fn(&mut Credential)| {
        let mut credential = good.clone();
        change(&mut credential);
        credential.to_header()
    };
    let long = format!("Payment {}", "a".repeat(weir_protocol::http::MAX_CREDENTIAL_BYTES));
    for (text, problem) in [
        ("Payment AAAA".to_owned(), PaymentProblem::MalformedCredential),
        (long, PaymentProblem::MalformedCredential),
        (wrong(&|credential| credential.payload.receipt.truncate(8)), PaymentProblem::MalformedCredential),
        (wrong(&|credential| credential.payload.amount = nanos(60)), PaymentProblem::VerificationFailed),
        (wrong(&|credential| credential.challenge.id = "AAAA".to_owned()), PaymentProblem::InvalidChallenge),
        (wrong(&|credential| credential.challenge.realm = "x".to_owned()), PaymentProblem::InvalidChallenge),
    ] {
        let demand = shop.short(&article, &with(&[("authorization", &text)]), LATER).await;
        assert_eq!(demand.problem, problem, "{text}");
        assert_ne!(demand.challenge.id, good.challenge.id);
    }
    // Another payment's receipt.
    let other = shop.buy(&article, 50).await;
    let text = wrong(&|credential| credential.payload = other.payload.clone());
    let shown = with(&[("authorization", &text)]);
    assert_eq!(shop.problem(&article, &shown, LATER).await, PaymentProblem::VerificationFailed);
    assert_eq!(shop.serve(&article, &showing(&good), LATER).await, 50);
}

#[tokio::test]
async fn receipt_of_a_retired_signing_key_counts_for_its_own_time_only() {
    let shop = Shop::open();
    let article = offer("/a", 50);
    let (old, new) = (certificate(SIGNING, NOW.minus_ms(1_000)), certificate(3, NOW.plus_ms(10_000)));
    let buy = async |at: u64, by: &SignedCertificate| {
        let demand = demanded(&shop.desk, &article, NOW).await;
        signed(&demand.challenge, 50, NOW.plus_ms(at), by)
    };
    let (before, after) = (buy(9_999, &old).await, buy(10_000, &old).await);
    assert_eq!(shop.serve(&article, &buy(10_000, &new).await, LATER).await, 50);
    assert_eq!(shop.serve(&article, &before, LATER).await, 50);
    assert_eq!(shop.problem(&article, &after, LATER).await, PaymentProblem::VerificationFailed);
    let foreign = SignedCertificate { signature: key(9).sign(&weir_protocol::hash::Hash::ZERO), ..old };
    assert_eq!(shop.problem(&article, &buy(20, &foreign).await, LATER).await, PaymentProblem::VerificationFailed);
}

#[tokio::test]
async fn x402_is_read_and_answered_in_its_words_and_carries_the_key_of_the_request() {
    let shop = Shop::open();
    let article = offer("/a", 50);
    let credential = shop.buy(&article, 200).await;
    let shown = |id: &str| {
        let mut payload = PaymentPayload::of(&credential).unwrap();
        payload.extensions = Some(serde_json::json!({ "payment-identifier": { "info": { "id": id } } }));
        with(&[("payment-signature", &payload.to_header())])
    };
    let charge = shop.charge(&article, &shown("pay_1"), LATER).await;
    let mut headers = HeaderMap::new();
    charge.write_head(&mut headers, LATER);
    assert!(headers.contains_key("payment-response") && headers.contains_key("payment-receipt"));
    assert_eq!(headers["cache-control"], "private");
    charge.commit(Used::Most, LATER).await.unwrap();
    assert_eq!(shop.serve(&article, &shown("pay_1"), LATER).await, 0);
    assert_eq!(shop.serve(&article, &shown("pay_2"), LATER).await, 50);
    assert_eq!(shop.serve(&article, &keyed(&credential, "pay_2"), LATER).await, 0, "in either dialect the same");
    let broken = with(&[("payment-signature", "AAAA")]);
    let demand = shop.short(&article, &broken, LATER).await;
    let answer = demand.response(shop.desk.options().accept, "https://news.example/a", "weir fetch");
    assert_eq!(answer.status(), StatusCode::PAYMENT_REQUIRED);
    for name in ["payment-response", "payment-required", "www-authenticate", "crawler-price"] {
        assert!(answer.headers().contains_key(name), "{name}");
    }
    assert_eq!(answer.headers()["cache-control"], "no-store");
}

#[tokio::test]
async fn cookie_opens_what_it_names_until_its_end() {
    let shop = Shop::open();
    let (article, other) = (offer("/a", 50), offer("/b", 50));
    let single = shop.buy(&article, 50).await;
    let prepaid = shop.buy(&article, 120).await;
    for credential in [&single, &prepaid] {
        shop.desk.claim(&credential.challenge.id, credential, LATER).await.unwrap();
        let other = shop.buy(&article, 50).await;
        let wrong = shop.desk.claim(&other.challenge.id, credential, LATER).await;
        assert!(matches!(wrong, Err(ClaimError::Other)));
    }
    let id = |credential: &Credential| shop.desk.claimed(credential.challenge.reference()).unwrap();
    let cookie = |text: &str| with(&[("cookie", &format!("a=b; weir={text}"))]);
    let opens = cookie(&shop.desk.cookie(id(&single), Some(article.resource()), None, LATER));
    assert_eq!(shop.problem(&other, &opens, LATER).await, PaymentProblem::PaymentRequired, "a page, and no reproach");
    assert_eq!(shop.serve(&article, &opens, LATER).await, 50);
    assert_eq!(shop.serve(&article, &opens, LATER.plus_ms(1)).await, 0, "reload");
    assert_eq!(shop.serve(&article, &showing(&single), LATER.plus_ms(1)).await, 0, "the receipt is the same payment");
    let end = LATER.plus_ms(GRACE_MS);
    assert_eq!(shop.problem(&article, &opens, end).await, PaymentProblem::PaymentRequired);
    let any = cookie(&shop.desk.cookie(id(&prepaid), None, None, LATER));
    assert_eq!(shop.serve(&article, &any, LATER).await, 50);
    assert_eq!(shop.serve(&other, &any, LATER).await, 50);
    assert_eq!(shop.serve(&other, &any, LATER).await, 0, "reload");
    assert_eq!(shop.problem(&offer("/c", 50), &any, LATER).await, PaymentProblem::PaymentRequired);
    let forged = cookie(&"A".repeat(96));
    assert_eq!(shop.problem(&article, &forged, LATER).await, PaymentProblem::PaymentRequired);
    assert_eq!(shop.drawn(), 150);
}

#[tokio::test]
async fn crawler_that_allows_too_little_is_told_the_price_and_not_charged() {
    let shop = Shop::open();
    let article = offer("/a", 20_000_000);
    let credential = shop.buy(&article, 20_000_000).await;
    for (price, served) in [("EUR 0.02", true), ("EUR 0.019999999", false), ("USD 0.02", false), ("much", false)] {
        let shown = with(&[("authorization", &credential.to_header()), ("crawler-max-price", price)]);
        match shop.judge(&article, &shown, LATER).await {
            Verdict::Serve(charge) if served => {
                let mut headers = HeaderMap::new();
                charge.write_head(&mut headers, LATER);
                assert_eq!(headers["crawler-charged"], "EUR 0.02");
            }
            Verdict::Demand(demand) if !served => {
                let headers = demand.headers(shop.desk.options().accept, "https://news.example/a");
                assert_eq!(headers["crawler-error"], "price-too-low", "{price}");
                assert_eq!(headers["crawler-price"], "EUR 0.02");
            }
            other => panic!("{price}: {other:?}"),
        }
    }
    assert_eq!(shop.drawn(), 0);
}
