//! The running gate before a real upstream, paid with real receipts: metered answers, whatever ends them.
#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use weir_protocol::http::{Challenge, Credential, PaymentReceipt};

use super::*;
use crate::gate::config::GateConfig;
use crate::gate::testing::{Then, hub, paid, payee, pieces, whole};

/// A gate before an upstream.
struct Running {
    gate: start::Running,
    _folder: tempfile::TempDir,
}

async fn gate(upstream: Router, routes: &str) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, upstream).await.unwrap() });
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "listen = \"127.0.0.1:0\"\nupstream = \"http://{address}\"\nrealm = \"api.example\"\npayee = \"{}\"\nhub = \"{}\"\n{routes}",
        payee(),
        hub()
    );
    let config = GateConfig::read(&folder.path().join("gate.toml"), &text).unwrap_or_else(|error| panic!("{error}"));
    Running { gate: start(&config).await.unwrap(), _folder: folder }
}

impl Running {
    fn totals(&self) -> (u128, u128) {
        let totals = self.gate.gate().desk().balances().totals();
        totals.first().map_or((0, 0), |(_, totals)| (totals.drawn_nanos, totals.reserved_nanos))
    }

    async fn stream(&self) -> TokioIo<TcpStream> {
        TokioIo::new(TcpStream::connect(self.gate.address()).await.unwrap())
    }

    /// One request on a connection of its own.
    async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let (mut client, connection) = hyper::client::conn::http1::handshake(self.stream().await).await.unwrap();
        tokio::spawn(connection);
        client.send_request(request).await.unwrap()
    }

    /// Asks without paying, and pays this much.
    async fn buy(&self, method: Method, path: &str, amount: u64) -> Credential {
        let response = self.send(request(method, path, "", None)).await;
        assert_eq!(response.status(), StatusCode::PAYMENT_REQUIRED);
        let text = response.headers()["www-authenticate"].to_str().unwrap();
        paid(&Challenge::from_header(text).unwrap(), amount, now())
    }

    /// Waits until nothing is held any more.
    async fn settled(&self) -> u128 {
        loop {
            let (drawn, reserved) = self.totals();
            let in_flight = self.gate.gate().metrics().text(self.gate.gate().desk().balances());
            if reserved == 0 && in_flight.contains("weir_gate_paid_in_flight 0") {
                return drawn;
            }
            tokio::task::yield_now().await;
        }
    }
}

fn request(method: Method, path: &str, body: &str, shown: Option<&Credential>) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(Bytes::from(body.to_owned())));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    request.headers_mut().insert(HOST, HeaderValue::from_static("api.example"));
    if let Some(credential) = shown {
        request.headers_mut().insert(AUTHORIZATION, credential.to_header().parse().unwrap());
    }
    request
}

fn drawn(headers: &HeaderMap) -> u64 {
    let text = headers["payment-receipt"].to_str().unwrap();
    PaymentReceipt::from_header(text).unwrap().drawn.nanos()
}

const CHAT: &str = r#"
[[route]]
match = "POST /v1/chat/completions"
price_per_byte = "0.000000001"
bytes = "request"
max_bytes = 1000
unit = { from = "openai", input = "0.000000002", output = "0.000000003", max = 100 }
"#;

/// Streams, and reports its usage only to who asked for it.
async fn chat(headers: HeaderMap, body: axum::body::Bytes) -> axum::response::Response {
    assert_eq!(headers["content-length"].to_str().unwrap(), body.len().to_string());
    assert!(!headers.contains_key("transfer-encoding"));
    let asked: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5}}\n\n";
    let mut events = vec!["data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n"];
    if asked["stream_options"]["include_usage"] == true {
        events.push(usage);
    }
    events.push("data: [DONE]\n\n");
    let body = axum::body::Body::new(pieces(&events, Then::Ends).into_body());
    axum::response::Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
}

#[tokio::test]
async fn stream_that_does_not_ask_for_usage_is_made_to_and_pays_for_its_own_bytes_only() {
    let gate = gate(Router::new().route("/v1/chat/completions", post(chat)), CHAT).await;
    let credential = gate.buy(Method::POST, "/v1/chat/completions", 10_000).await;
    let body = r#"{"model":"m","stream":true,"messages":[]}"#;
    for options in ["", r#","stream_options":{"include_usage":true}"#] {
        let body = body.replace('}', &format!("{options}}}"));
        let before = gate.totals().0;
        let response = gate.send(request(Method::POST, "/v1/chat/completions", &body, Some(&credential))).await;
        assert_eq!(response.status(), StatusCode::OK);
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&text).contains("prompt_tokens"));
        let tokens = 7 * 2 + 5 * 3;
        assert_eq!(gate.settled().await - before, tokens + body.len() as u128);
    }
}

#[tokio::test]
async fn request_that_cannot_ask_for_usage_is_refused_and_charged_nothing() {
    let gate = gate(Router::new().route("/v1/chat/completions", post(chat)), CHAT).await;
    let credential = gate.buy(Method::POST, "/v1/chat/completions", 10_000).await;
    let off = r#"{"stream":true,"stream_options":{"include_usage":false}}"#;
    for (body, encoding, status) in [
        (off, None, StatusCode::BAD_REQUEST),
        ("[]", None, StatusCode::BAD_REQUEST),
        ("{}", Some("gzip"), StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ] {
        let mut asked = request(Method::POST, "/v1/chat/completions", body, Some(&credential));
        if let Some(encoding) = encoding {
            asked.headers_mut().insert("content-encoding", HeaderValue::from_static(encoding));
        }
        let response = gate.send(asked).await;
        assert_eq!(response.status(), status, "{body}");
        assert!(!response.headers().contains_key("payment-receipt"));
        assert_eq!(gate.settled().await, 0);
    }
}

#[tokio::test]
async fn request_at_its_largest_is_read_whole_and_a_byte_more_is_not() {
    let most = crate::gate::meter::MAX_REQUEST_BYTES;
    let mut body = b"{}".to_vec();
    body.resize(most, b' ');
    let idle = Duration::from_secs(60);
    let mut head = Request::new(()).into_parts().0;
    let asking = usage::asking(&mut head, Full::new(Bytes::from(body.clone())), idle).await.unwrap();
    assert_eq!(
        (asking.added_bytes, head.headers[http::header::CONTENT_LENGTH].to_str().unwrap()),
        (0, &*most.to_string())
    );
    body.push(b' ');
    let refusal = usage::asking(&mut head, Full::new(Bytes::from(body)), idle).await.unwrap_err();
    assert_eq!(refusal.status, StatusCode::PAYLOAD_TOO_LARGE);
    let stays = pieces(&[], Then::Stays).into_body();
    let slow = usage::asking(&mut head, stays, Duration::from_millis(1)).await.unwrap_err();
    assert_eq!(slow.status, StatusCode::REQUEST_TIMEOUT);
    let breaks = pieces(&["{"], Then::Fails).into_body();
    let broken = usage::asking(&mut head, breaks, idle).await.unwrap_err();
    assert_eq!(broken.status, StatusCode::BAD_REQUEST);
}

/// Bytes of an answer whose head does not wait for its end.
const LARGE: u64 = 100_000 / 6;

const METERED: &str = r#"
[[route]]
match = "GET /whole"
price_per_byte = "0.000000001"
max_bytes = 1000
[[route]]
match = "GET /large"
price_per_byte = "0.000000001"
max_bytes = 20000
[[route]]
match = "GET /events"
unit = { from = "json:/units", price = "0.000000002", max = 100 }
[[route]]
match = "GET /socket"
price_per_byte = "0.000000001"
max_bytes = 1000
[[route]]
match = "GET /release"
price_per_byte = "0.000000001"
max_bytes = 1000
[[route]]
match = "GET /charge"
price_per_byte = "0.000000001"
max_bytes = 1000
on_abort = "charge"
[[route]]
match = "GET /article"
price = "0.000000500"
on_abort = "charge"
"#;

fn upstream() -> Router {
    let events = || async {
        let events = ["data: {\"units\":3}\n\n", "data: {\"units\":8}\n\n"];
        let body = axum::body::Body::new(pieces(&events, Then::Ends).into_body());
        axum::response::Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
    };
    let stays = || async { axum::body::Body::new(pieces(&["12345", "67"], Then::Stays).into_body()) };
    let socket = |request: axum::extract::Request| async move {
        let answer = axum::response::Response::builder().header("connection", "upgrade").header("upgrade", "echo");
        if request.headers()["upgrade"] != "echo" {
            return axum::response::Response::new(axum::body::Body::new(whole("hello").into_body()));
        }
        tokio::spawn(async move { drop(hyper::upgrade::on(request).await) });
        answer.status(101).body(axum::body::Body::empty()).unwrap()
    };
    let fails = || async { axum::body::Body::new(pieces(&["12345", "67"], Then::Fails).into_body()) };
    Router::new()
        .route("/whole", get(|| async { axum::body::Body::new(whole("hello").into_body()) }))
        .route("/large", get(|| async { axum::body::Body::new(whole("a".repeat(LARGE as usize).leak()).into_body()) }))
        .route("/events", get(events))
        .route("/release", get(stays))
        .route("/charge", get(stays).post(fails))
        .route("/article", get(stays))
        .route("/socket", get(socket))
}

#[tokio::test]
async fn metered_answers_say_what_they_came_to_in_a_trailer_over_http_1_and_2() {
    let gate = gate(upstream(), METERED).await;
    for (path, amount, cost) in [("/large", 60_000, LARGE), ("/events", 600, 16)] {
        let credential = gate.buy(Method::GET, path, amount).await;
        let mut first = request(Method::GET, path, "", Some(&credential));
        first.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        let mut second = first.clone();
        *second.uri_mut() = format!("http://api.example{path}").parse().unwrap();
        let response = gate.send(first).await;
        assert!(drawn(response.headers()) > cost, "the head says the most");
        assert_eq!(response.headers()["trailer"], "payment-receipt");
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(drawn(body.trailers().unwrap()), cost, "{path} over HTTP/1.1");
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), gate.stream().await).await.unwrap();
        tokio::spawn(connection);
        second.headers_mut().remove(HOST);
        let response = client.send_request(second).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(drawn(body.trailers().unwrap()), cost, "{path} over HTTP/2");
    }
    let credential = gate.buy(Method::GET, "/large", 60_000).await;
    let response = gate.send(request(Method::GET, "/large", "", Some(&credential))).await;
    assert_eq!(response.headers()["content-length"], LARGE.to_string(), "without the client's word the length stays");
    response.into_body().collect().await.unwrap();
    let credential = gate.buy(Method::GET, "/whole", 3_000).await;
    let response = gate.send(request(Method::GET, "/whole", "", Some(&credential))).await;
    assert_eq!(drawn(response.headers()), 5, "a small answer's end is known before its head");
    response.into_body().collect().await.unwrap();
    assert_eq!(gate.settled().await, 3 * u128::from(LARGE) + 2 * 16 + 5);
}

#[tokio::test]
async fn client_that_leaves_in_the_middle_pays_nothing_or_what_was_counted_as_the_route_says() {
    for (path, amount, cost) in [("/release", 1_000, 0), ("/charge", 1_000, 7), ("/article", 500, 500)] {
        let gate = gate(upstream(), METERED).await;
        let credential = gate.buy(Method::GET, path, amount).await;
        let mut response = gate.send(request(Method::GET, path, "", Some(&credential))).await;
        let mut seen = 0;
        while seen < 7 {
            seen += response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap().len();
        }
        assert!(gate.totals().1 > 0, "it is held");
        drop(response);
        assert_eq!(gate.settled().await, cost, "{path}");
    }
}

#[tokio::test]
async fn switch_of_protocols_on_a_metered_route_costs_its_most_and_a_plain_answer_what_it_used() {
    let gate = gate(upstream(), METERED).await;
    let credential = gate.buy(Method::GET, "/socket", 3_000).await;
    let mut cost = 0;
    for (protocol, status, most) in [("echo", 101, 1_000), ("other", 200, 5)] {
        let mut asked = request(Method::GET, "/socket", "", Some(&credential));
        asked.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
        asked.headers_mut().insert("upgrade", HeaderValue::from_static(protocol));
        let response = gate.send(asked).await;
        assert_eq!(response.status().as_u16(), status);
        cost += most;
        if status == 101 {
            assert_eq!(gate.totals(), (cost, 0), "drawn before the switch is seen, and nothing held");
            assert_eq!(u128::from(drawn(response.headers())), most);
        }
        drop(response);
        assert_eq!(gate.settled().await, cost, "{protocol}");
    }
}
