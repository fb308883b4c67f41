//! The layer around axum's routers and around bare services, with real receipts; answers that end in every way.
#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use std::convert::Infallible;

use axum::Router;
use axum::routing::get;
use http_body_util::BodyExt as _;
use weir_protocol::amount::Amount;
use weir_protocol::http::{Challenge, Credential, PaymentReceipt};

use super::*;
use crate::gate::price::Tier;
use crate::gate::testing::{Pieces, Then, hub, nanos, paid, payee, pieces, whole};

/// A layer with its folder.
struct Shop {
    layer: WeirLayer,
    _folder: tempfile::TempDir,
}

fn shop(price: impl Fn(&request::Parts) -> Option<PriceTag> + Send + Sync + 'static) -> Shop {
    let folder = tempfile::tempdir().unwrap();
    let layer = WeirLayer::builder(payee(), hub(), "news.example").build(folder.path().join("state"), price).unwrap();
    Shop { layer, _folder: folder }
}

impl Shop {
    fn drawn(&self) -> u128 {
        self.layer.desk().balances().totals().iter().map(|(_, totals)| totals.drawn_nanos).sum()
    }

    fn reserved(&self) -> u128 {
        self.layer.desk().balances().totals().iter().map(|(_, totals)| totals.reserved_nanos).sum()
    }
}

/// A request of HTTP/1.1, with what is shown.
fn request(method: Method, path: &str, shown: Option<&Credential>) -> Request<axum::body::Body> {
    let mut request = Request::new(axum::body::Body::empty());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    request.headers_mut().insert(HOST, HeaderValue::from_static("api.example"));
    if let Some(credential) = shown {
        request.headers_mut().insert("authorization", credential.to_header().parse().unwrap());
    }
    request
}

fn ask(path: &str, shown: Option<&Credential>) -> Request<axum::body::Body> {
    request(Method::GET, path, shown)
}

type Answer = Pin<Box<dyn Future<Output = Response<Pieces>> + Send>>;

/// A handler as a bare service.
#[derive(Clone)]
struct Answers(Arc<dyn Fn(Charge) -> Answer + Send + Sync>);

fn answers<F: Future<Output = Response<Pieces>> + Send + 'static>(
    answer: impl Fn(Charge) -> F + Send + Sync + 'static,
) -> Answers {
    Answers(Arc::new(move |charge| Box::pin(answer(charge))))
}

impl Service<Request<axum::body::Body>> for Answers {
    type Response = Response<Pieces>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Pieces>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<axum::body::Body>) -> Self::Future {
        let answer = (self.0)(request.extensions().get::<Charge>().unwrap().clone());
        Box::pin(async move { Ok(answer.await) })
    }
}

async fn call<S>(shop: &Shop, service: &S, request: Request<axum::body::Body>) -> Response<LayerBody<Pieces>>
where
    S: Service<Request<axum::body::Body>, Response = Response<Pieces>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    shop.layer.layer(service.clone()).call(request).await.unwrap()
}

/// What is asked for, paid with this much.
fn pay<B>(response: &Response<B>, amount: u64) -> Credential {
    assert_eq!(response.status(), StatusCode::PAYMENT_REQUIRED);
    let text = response.headers()["www-authenticate"].to_str().unwrap();
    let challenge = Challenge::from_header(text).unwrap();
    paid(&challenge, amount, now())
}

fn receipt(headers: &HeaderMap) -> Option<PaymentReceipt> {
    PaymentReceipt::from_header(headers.get("payment-receipt")?.to_str().unwrap())
}

fn fixed(price: u64) -> impl Fn(&request::Parts) -> Option<PriceTag> {
    move |_| Some(PriceTag::fixed(nanos(price)))
}

fn metered() -> impl Fn(&request::Parts) -> Option<PriceTag> {
    |_| Some(PriceTag::metered(nanos(2), 100))
}

/// Asks, pays this much, and asks again.
async fn buy<S>(shop: &Shop, service: &S, amount: u64) -> (Response<LayerBody<Pieces>>, Credential)
where
    S: Service<Request<axum::body::Body>, Response = Response<Pieces>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let credential = pay(&call(shop, service, ask("/a", None)).await, amount);
    (call(shop, service, ask("/a", Some(&credential))).await, credential)
}

#[tokio::test]
async fn fixed_price_is_charged_before_the_last_piece_and_once() {
    for (answer, before) in
        [(whole as fn(&'static str) -> Response<Pieces>, ""), (|text| pieces(&["x", text], Then::Ends), "x")]
    {
        let shop = shop(fixed(50));
        let service = answers(move |_| async move { answer("hello") });
        let (mut response, credential) = buy(&shop, &service, 50).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["cache-control"], "private");
        assert_eq!(receipt(response.headers()).unwrap().drawn, nanos(50));
        assert_eq!((shop.drawn(), shop.reserved()), (0, 50));
        if !before.is_empty() {
            let first = response.body_mut().frame().await.unwrap().unwrap();
            assert_eq!(first.into_data().unwrap(), before);
            assert_eq!((shop.drawn(), shop.reserved()), (0, 50));
        }
        let body = response.into_body().collect().await.unwrap();
        assert!(body.trailers().is_none(), "the head said it all");
        assert_eq!(body.to_bytes(), "hello");
        assert_eq!((shop.drawn(), shop.reserved()), (50, 0));
        let again = call(&shop, &service, ask("/a", Some(&credential))).await;
        assert_eq!(receipt(again.headers()).unwrap().drawn, Amount::ZERO);
        again.into_body().collect().await.unwrap();
        assert_eq!(shop.drawn(), 50);
    }
}

#[tokio::test]
async fn demand_is_said_in_every_dialect_with_the_command_that_pays() {
    let shop = shop(fixed(50));
    let response = call(&shop, &answers(|_| async { whole("never") }), ask("/a?b=1", None)).await;
    assert_eq!(response.status(), StatusCode::PAYMENT_REQUIRED);
    for name in ["www-authenticate", "payment-required", "crawler-price"] {
        assert!(response.headers().contains_key(name), "{name}");
    }
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["pay"], "weir fetch 'http://api.example/a?b=1'");
    assert_eq!(body["price"], "0.00000005");
}

#[tokio::test]
async fn answer_that_fails_in_any_way_is_not_charged_for() {
    let failures: [fn() -> Response<Pieces>; 5] = [
        || Response::builder().status(404).body(Pieces::default()).unwrap(),
        || Response::builder().status(500).body(whole("sorry").into_body()).unwrap(),
        || pieces(&["half"], Then::Fails),
        || Response::new(Pieces { length: Some(6), ..whole("short").into_body() }),
        || Response::new(Pieces { length: Some(3), ..whole("long").into_body() }),
    ];
    for failure in failures {
        let shop = shop(fixed(50));
        let service = answers(move |_| async move { failure() });
        let (response, credential) = buy(&shop, &service, 50).await;
        let failed = response.status().as_u16() >= 400;
        assert_eq!(receipt(response.headers()).is_none(), failed, "no receipt on errors");
        assert_eq!(response.into_body().collect().await.is_err(), !failed);
        assert_eq!((shop.drawn(), shop.reserved()), (0, 0));
        let good = answers(|_| async { whole("hello") });
        call(&shop, &good, ask("/a", Some(&credential))).await.into_body().collect().await.unwrap();
        assert_eq!(shop.drawn(), 50, "the payment still opens it");
    }
}

#[tokio::test]
async fn handler_that_panics_or_is_dropped_and_a_client_that_leaves_are_not_charged() {
    let shop = shop(fixed(50));
    let credential = pay(&call(&shop, &answers(|_| async { whole("") }), ask("/a", None)).await, 50);
    let kept: Arc<std::sync::Mutex<Vec<Charge>>> = Arc::default();
    let keep = Arc::clone(&kept);
    let panics = answers(move |charge| {
        keep.lock().unwrap().push(charge);
        async { panic!("a handler's bug") }
    });
    let mut service = shop.layer.layer(panics);
    let asked = ask("/a", Some(&credential));
    assert!(tokio::spawn(async move { service.call(asked).await.map(drop) }).await.is_err());
    assert_eq!(shop.reserved(), 0, "whatever handles are left");
    let handle = kept.lock().unwrap().pop().unwrap();
    assert_eq!(handle.commit(0).await, Err(ChargeError::Ended));
    let waits = answers(|_| std::future::pending());
    let mut service = shop.layer.layer(waits);
    let mut waiting = service.call(ask("/a", Some(&credential)));
    for _ in 0..10 {
        let timeout = std::time::Duration::from_millis(1);
        assert!(tokio::time::timeout(timeout, &mut waiting).await.is_err());
    }
    assert_eq!(shop.reserved(), 50);
    drop(waiting);
    assert_eq!(shop.reserved(), 0);
    let stays = answers(|_| async { pieces(&["one", "two"], Then::Stays) });
    let mut response = call(&shop, &stays, ask("/a", Some(&credential))).await;
    response.body_mut().frame().await.unwrap().unwrap();
    drop(response);
    assert_eq!((shop.drawn(), shop.reserved()), (0, 0));
}

#[tokio::test]
async fn metered_answer_draws_its_units_and_says_so_in_the_head_or_behind_the_body() {
    let shop = shop(metered());
    let small: &str = "a".repeat(MAX_WHOLE_BYTES as usize).leak();
    let large: &str = "a".repeat(MAX_WHOLE_BYTES as usize + 1).leak();
    let service = |text: &'static str| {
        answers(move |charge| async move {
            charge.set_units(3);
            charge.add_units(4);
            whole(text)
        })
    };
    let credential = pay(&call(&shop, &service(small), ask("/a", None)).await, 500);
    let with_trailers = || {
        let mut asked = ask("/a", Some(&credential));
        asked.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        asked
    };
    let response = call(&shop, &service(small), with_trailers()).await;
    let head = receipt(response.headers()).unwrap();
    assert!(!head.metered && head.drawn == nanos(14) && head.left == nanos(486), "its end is known before its head");
    assert_eq!(response.body().size_hint().exact(), Some(MAX_WHOLE_BYTES));
    assert!(response.into_body().collect().await.unwrap().trailers().is_none());
    assert_eq!(shop.drawn(), 14);
    let response = call(&shop, &service(large), with_trailers()).await;
    let head = receipt(response.headers()).unwrap();
    assert!(head.metered && head.drawn == nanos(200));
    assert_eq!(response.headers()["trailer"], "payment-receipt");
    assert_eq!(response.body().size_hint().exact(), None, "HTTP/1.1 has trailers behind chunks only");
    let body = response.into_body().collect().await.unwrap();
    let last = receipt(body.trailers().unwrap()).unwrap();
    assert!(!last.metered && last.drawn == nanos(14) && last.left == nanos(472));
    // Without the client's word for trailers the length stays.
    let response = call(&shop, &service(large), ask("/a", Some(&credential))).await;
    assert_eq!(response.body().size_hint().exact(), Some(MAX_WHOLE_BYTES + 1));
    response.into_body().collect().await.unwrap();
    assert_eq!(shop.drawn(), 42);
}

#[tokio::test]
async fn metered_answer_costs_its_most_at_most_and_nothing_where_nothing_was_counted_or_it_broke() {
    let shop = shop(metered());
    let beyond = answers(|charge| async move {
        charge.set_units(1_000);
        whole("hello")
    });
    let (response, credential) = buy(&shop, &beyond, 600).await;
    response.into_body().collect().await.unwrap();
    assert_eq!(shop.drawn(), 200, "never more than its most");
    let silent = answers(|_| async { whole("hello") });
    call(&shop, &silent, ask("/a", Some(&credential))).await.into_body().collect().await.unwrap();
    let broken = answers(|charge| async move {
        charge.set_units(9);
        Response::new(Pieces { length: Some(9), ..pieces(&["hello"], Then::Fails).into_body() })
    });
    let response = call(&shop, &broken, ask("/a", Some(&credential))).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(receipt(response.headers()).is_none());
    assert_eq!((shop.drawn(), shop.reserved()), (200, 0));
}

#[tokio::test]
async fn handler_that_commits_is_charged_then_and_once_whatever_follows() {
    let shop = shop(metered());
    let fails = answers(|charge| async move {
        assert_eq!(charge.commit(5).await.unwrap().drawn, nanos(10));
        assert_eq!(charge.commit(50).await.unwrap().drawn, nanos(10), "the first counts");
        Response::builder().status(500).body(Pieces::default()).unwrap()
    });
    let (response, credential) = buy(&shop, &fails, 400).await;
    assert!(receipt(response.headers()).is_none());
    assert_eq!((shop.drawn(), shop.reserved()), (10, 0));
    let good = answers(|charge| async move {
        charge.commit(6).await.unwrap();
        charge.set_units(90);
        pieces(&["a", "b"], Then::Ends)
    });
    let response = call(&shop, &good, ask("/a", Some(&credential))).await;
    let said = receipt(response.headers()).unwrap();
    assert!(!said.metered && said.drawn == nanos(12), "known before the body");
    let body = response.into_body().collect().await.unwrap();
    assert!(body.trailers().is_none());
    assert_eq!(shop.drawn(), 22);
}

#[tokio::test]
async fn steps_of_price_go_on_across_requests_of_a_route() {
    let steps = vec![Tier { up_to: Some(10), price: nanos(3) }, Tier { up_to: None, price: nanos(1) }];
    let shop = shop(move |_| {
        let per = std::num::NonZeroU64::MIN;
        Some(PriceTag::stepped(nanos(100), steps.clone(), per, 8).route("chat"))
    });
    let service = answers(|charge| async move {
        assert_eq!(&*charge.payment().unwrap().route, "chat");
        charge.set_units(7);
        whole("hello")
    });
    let (first, credential) = buy(&shop, &service, 1_000).await;
    first.into_body().collect().await.unwrap();
    assert_eq!(shop.drawn(), 121);
    call(&shop, &service, ask("/b", Some(&credential))).await.into_body().collect().await.unwrap();
    assert_eq!(shop.drawn(), 121 + 100 + 9 + 4);
    let unordered = vec![Tier { up_to: Some(10), price: nanos(3) }];
    assert!(PriceTag::stepped(nanos(1), unordered, std::num::NonZeroU64::MIN, 8).price.is_err());
}

#[tokio::test]
async fn client_that_breaks_off_pays_what_was_counted_where_the_price_says_so() {
    let shop = shop(|_| Some(PriceTag::metered(nanos(2), 100).charge_on_abort()));
    let service = answers(|charge| async move {
        charge.set_units(9);
        pieces(&["one", "two"], Then::Stays)
    });
    let (mut response, credential) = buy(&shop, &service, 400).await;
    response.body_mut().frame().await.unwrap().unwrap();
    drop(response);
    while shop.reserved() > 0 || shop.drawn() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(shop.drawn(), 18);
    let broken = answers(|charge| async move {
        charge.set_units(9);
        pieces(&["one"], Then::Fails)
    });
    let response = call(&shop, &broken, ask("/a", Some(&credential))).await;
    assert!(response.into_body().collect().await.is_err());
    assert_eq!((shop.drawn(), shop.reserved()), (18, 0), "what broke by itself is nobody's to pay");
}

#[tokio::test]
async fn answer_is_withheld_when_the_draw_is_not_durable() {
    let shop = shop(fixed(50));
    let service = answers(|_| async { whole("hello") });
    let (response, _) = buy(&shop, &service, 50).await;
    shop.layer.desk().balances().fail("the disk is gone");
    let error = response.into_body().collect().await.unwrap_err();
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    let response = call(&shop, &service, ask("/a", None)).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn answer_without_a_body_is_charged_before_its_head() {
    let shop = shop(fixed(50));
    let empty = answers(|_| async { Response::builder().status(204).body(Pieces::default()).unwrap() });
    let (response, _) = buy(&shop, &empty, 50).await;
    assert_eq!((receipt(response.headers()).unwrap().drawn, shop.drawn()), (nanos(50), 50));
    let service = answers(|_| async { whole("hello") });
    let credential = pay(&call(&shop, &service, request(Method::HEAD, "/a", None)).await, 50);
    let response = call(&shop, &service, request(Method::HEAD, "/a", Some(&credential))).await;
    assert!(receipt(response.headers()).is_some());
    drop(response);
    assert_eq!(shop.drawn(), 100);
    call(&shop, &service, ask("/a", Some(&credential))).await.into_body().collect().await.unwrap();
    assert_eq!(shop.drawn(), 100, "one payment opens both");
}

#[tokio::test]
async fn switch_of_protocols_costs_its_most_before_it_is_made_unless_it_was_committed() {
    let switching = || Response::builder().status(101).header("upgrade", "websocket").body(Pieces::default()).unwrap();
    let metered_shop = shop(metered());
    let service = answers(move |charge| async move {
        // What is counted before the switch is not what follows it.
        charge.set_units(3);
        tokio::spawn(async move {
            // The socket's own task holds it on.
            charge.add_units(1);
            std::future::pending::<()>().await;
        });
        switching()
    });
    let (response, credential) = buy(&metered_shop, &service, 300).await;
    let told = receipt(response.headers()).unwrap();
    assert_eq!(
        (response.status(), told.drawn, told.left, told.metered),
        (101.try_into().unwrap(), nanos(200), nanos(100), false)
    );
    assert_eq!(
        (metered_shop.drawn(), metered_shop.reserved()),
        (200, 0),
        "durable before the switch, and nothing held"
    );
    let short = call(&metered_shop, &service, ask("/a", Some(&credential))).await;
    assert_eq!(short.status(), StatusCode::PAYMENT_REQUIRED, "what is left is less than the most");
    let committed = answers(move |charge| async move {
        assert_eq!(charge.commit(5).await.unwrap().drawn, nanos(10));
        switching()
    });
    let shop_of_commits = shop(metered());
    let (response, _) = buy(&shop_of_commits, &committed, 300).await;
    assert_eq!(receipt(response.headers()).unwrap().drawn, nanos(10));
    assert_eq!((shop_of_commits.drawn(), shop_of_commits.reserved()), (10, 0));
    let refusing = answers(|_| async { Response::builder().status(426).body(Pieces::default()).unwrap() });
    let refused_shop = shop(metered());
    let (response, _) = buy(&refused_shop, &refusing, 300).await;
    assert!(receipt(response.headers()).is_none());
    assert_eq!((refused_shop.drawn(), refused_shop.reserved()), (0, 0));
    let fixed_shop = shop(fixed(50));
    let service = answers(move |_| async move { switching() });
    buy(&fixed_shop, &service, 50).await;
    assert_eq!((fixed_shop.drawn(), fixed_shop.reserved()), (50, 0));
}

#[tokio::test]
async fn free_request_passes_and_a_price_that_is_none_is_refused() {
    let shop = shop(|head| match head.uri.path() {
        "/zero" => Some(PriceTag::fixed(Amount::ZERO)),
        "/odd" => Some(PriceTag::metered(Amount::MAX, 2)),
        "/dear" => Some(PriceTag::fixed(nanos(1))),
        _ => None,
    });
    let service = answers(|charge| async move {
        assert!(charge.is_free());
        assert_eq!(charge.commit(5).await.unwrap().drawn, Amount::ZERO);
        whole("hello")
    });
    let mut preflight = request(Method::OPTIONS, "/dear", None);
    preflight.headers_mut().insert("origin", HeaderValue::from_static("https://a.example"));
    preflight.headers_mut().insert("access-control-request-method", HeaderValue::from_static("GET"));
    for free in [ask("/", None), ask("/zero", None), preflight] {
        let response = call(&shop, &service, free).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(!response.headers().contains_key("cache-control"));
    }
    assert_eq!(call(&shop, &service, ask("/odd", None)).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let longest = format!("/{}", "a".repeat(MAX_TARGET_BYTES - 1));
    assert_eq!(call(&shop, &service, ask(&longest, None)).await.status(), StatusCode::OK);
    let longer = call(&shop, &service, ask(&format!("{longest}a"), None)).await;
    assert_eq!(longer.status(), StatusCode::URI_TOO_LONG);
}

#[test]
fn layer_that_could_not_be_paid_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let builder = |realm: &str| WeirLayer::builder(payee(), hub(), realm);
    let none = |_: &request::Parts| None;
    assert!(matches!(builder("a|b").build(folder.path(), none), Err(LayerError::Demand(_))));
    let accept = crate::gate::config::Accept { payment: false, x402: false, crawler: true };
    assert!(matches!(builder("a").accept(accept).build(folder.path(), none), Err(LayerError::NoDialect)));
    let first = builder("a").build(folder.path(), none).unwrap();
    assert!(matches!(builder("a").build(folder.path(), none), Err(LayerError::Balances(_))), "one process, one store");
    let shared = first.desk().balances().clone();
    builder("a").balances(shared).build(folder.path(), none).unwrap();
}

#[tokio::test]
async fn handlers_of_axum_see_who_paid_and_no_payment_headers_and_stream_events_with_a_receipt_behind() {
    async fn handler(Paid(charge): Paid, headers: HeaderMap) -> axum::response::Response {
        assert!(!headers.contains_key("authorization") && !headers.contains_key("payment-signature"));
        assert_eq!(charge.payment().unwrap().paid, nanos(500));
        charge.set_units(11);
        let events = axum::body::Body::new(pieces(&["data: 1\n\n", "data: 0\n\n"], Then::Ends).into_body());
        axum::response::Response::builder().header("content-type", "text/event-stream").body(events).unwrap()
    }
    let shop = shop(metered());
    let app = Router::new().route("/a", get(handler)).layer(shop.layer.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let response = client.send_request(ask("/a", None)).await.unwrap();
    let credential = pay(&response, 500);
    response.into_body().collect().await.unwrap();
    let mut asked = ask("/a", Some(&credential));
    asked.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    let response = client.send_request(asked).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(receipt(body.trailers().unwrap()).unwrap().drawn, nanos(22));
    assert_eq!(body.to_bytes(), "data: 1\n\ndata: 0\n\n");
    assert_eq!(shop.drawn(), 22);
}

#[tokio::test]
async fn handler_that_takes_a_charge_without_the_layer_is_a_clear_error() {
    async fn handler(Paid(_): Paid) -> &'static str {
        "never"
    }
    let mut app: Router = Router::new().route("/a", get(handler));
    let response = app.call(ask("/a", None)).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("`WeirLayer`"));
}
