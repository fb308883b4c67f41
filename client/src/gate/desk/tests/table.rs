//! The desk over a price table: what is free, denied, malformed, and free requests that run out.

use super::*;
use crate::gate::config::tests::config;
use crate::gate::price::Asked;

const TABLE: &str = r#"
hosts = ["news.example"]
[[route]]
match = "GET /articles/{id}"
price = "0.00000005"
crawlers = { deny = true }
[[route]]
match = "GET /free"
free = true
[[route]]
match = "GET /some/{id}"
price = "0.00000005"
free = { requests = 2, per = "1d", by = "ip" }
"#;

#[tokio::test]
async fn verdicts_of_the_table_are_passed_on_and_free_requests_run_out() {
    let shop = Shop::open();
    let table = config(TABLE).table;
    let judge = async |method: &Method, host: &str, path: &str, headers: &HeaderMap, crawler: bool| {
        let peer = Some(std::net::IpAddr::from([10, 0, 0, 1]));
        let asked = Asked { method, host, path_and_query: path, headers, peer, crawler: Some(crawler) };
        shop.desk.judge(&table, &asked, LATER).await
    };
    let (get, none) = (Method::GET, HeaderMap::new());
    assert!(matches!(
        judge(&get, "news.example", "/free", &none, false).await,
        Verdict::Free(Free::Table(FreeWhy::Route))
    ));
    for (method, host, path, crawler, status) in [
        (Method::GET, "news.example", "/articles/1", true, StatusCode::FORBIDDEN),
        (Method::GET, "other.example", "/articles/1", false, StatusCode::MISDIRECTED_REQUEST),
        (Method::TRACE, "news.example", "/articles/1", false, StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "news.example", "/articles/../1", false, StatusCode::BAD_REQUEST),
    ] {
        match judge(&method, host, path, &none, crawler).await {
            Verdict::Refuse(refusal) => assert_eq!(refusal.status, status),
            other => panic!("{path}: {other:?}"),
        }
    }
    for path in ["/some/1", "/some/2"] {
        let verdict = judge(&get, "news.example", path, &none, false).await;
        assert!(matches!(verdict, Verdict::Free(Free::Quota)), "{verdict:?}");
    }
    let Verdict::Demand(demand) = judge(&get, "news.example", "/some/3", &none, false).await else {
        panic!("the quota is used up");
    };
    let shown = showing(&paid(&demand.challenge, 50, LATER));
    let Verdict::Serve(charge) = judge(&get, "news.example", "/some/3", &shown, false).await else {
        panic!("it was paid");
    };
    assert_eq!(charge.commit(Used::Most, LATER).await.unwrap().drawn.drawn, nanos(50));
}

#[tokio::test]
async fn head_tells_what_get_costs_and_one_payment_opens_both() {
    let shop = Shop::open();
    let table = config(TABLE).table;
    let judge = async |method: &Method, headers: &HeaderMap| {
        let asked =
            Asked { method, host: "news.example", path_and_query: "/articles/1", headers, peer: None, crawler: None };
        shop.desk.judge(&table, &asked, LATER).await
    };
    let Verdict::Demand(demand) = judge(&Method::HEAD, &HeaderMap::new()).await else { panic!("it costs") };
    let shown = showing(&paid(&demand.challenge, 50, LATER));
    for (method, again) in [(Method::HEAD, false), (Method::GET, true)] {
        let Verdict::Serve(charge) = judge(&method, &shown).await else { panic!("it was paid") };
        assert_eq!(charge.is_again(), again);
        charge.commit(Used::Most, LATER).await.unwrap();
    }
    assert_eq!(shop.drawn(), 50);
}
