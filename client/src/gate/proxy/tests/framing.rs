//! Heads and framing: what is refused, what is rewritten, what passes.

use proptest::strategy::Strategy as _;

use super::*;

#[tokio::test]
async fn plain_request_passes_with_clean_heads_both_ways() {
    let (target, mut heads) = answering(
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\npayment-receipt: fake\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\nhello",
    )
    .await;
    let mut proxy = Proxy::before(&target).await;
    let answer = proxy
        .exchange(
            "GET /a?b=1 HTTP/1.1\r\nHost: site.example\r\nConnection: close, x-mine\r\nX-Mine: 1\r\nAuthorization: Payment abc\r\n\
             Cookie: a=b; weir=s\r\nPAYMENT-SIGNATURE: s\r\nX-Forwarded-For: 6.6.6.6\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    assert!(!answer.contains("payment-receipt") && !answer.contains("x-hop"), "{answer}");
    assert!(answer.contains("via: 1.1 weir"), "{answer}");
    let head = heads.recv().await.unwrap();
    assert!(head.starts_with("GET /a?b=1 HTTP/1.1\r\n"), "{head}");
    for kept in ["host: site.example\r\n", "cookie: a=b\r\n", "x-forwarded-for: 127.0.0.1\r\n", "via: 1.1 weir\r\n"] {
        assert!(head.contains(kept), "{kept} in {head}");
    }
    for gone in ["abc", "weir=s", "signature", "6.6.6.6", "x-mine", "upgrade", "settings", "connection"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
    assert_eq!(proxy.ending().await, Ending::Complete);
    assert_eq!(*proxy.heard.chunks.lock().unwrap(), b"hello");
    proxy.no_other_ending();
}

#[tokio::test]
async fn requests_that_could_be_read_in_two_ways_are_refused_or_made_plain() {
    let (target, mut heads) = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let proxy = Proxy::before(&target).await;
    let refused: &[(&str, &str)] = &[
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "400"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "400"),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\nX: a\rb\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", "400"),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "405"),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
    ];
    for (request, status) in refused {
        let mut stream = proxy.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) || answer.starts_with(&format!("HTTP/1.0 {status}")),
            "{request:?}: {answer}"
        );
    }
    assert!(heads.try_recv().is_err(), "one of them reached the upstream");
    // Both lengths: read by the transfer coding alone, passed on without the other, and the connection is closed after it.
    for both in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let answer = proxy.exchange(both).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        if let Ok(head) = heads.try_recv() {
            assert!(!head.contains("content-length: 5"), "{head}");
        }
        assert!(heads.try_recv().is_err(), "a second request reached the upstream");
    }
}

#[tokio::test]
async fn absolute_form_never_chooses_the_upstream() {
    let (target, mut heads) = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let proxy = Proxy::before(&target).await;
    let answer =
        proxy.exchange("GET http://elsewhere.example/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let head = heads.recv().await.unwrap();
    assert!(head.starts_with("GET /x HTTP/1.1\r\n") && head.contains("host: elsewhere.example\r\n"), "{head}");
}

#[tokio::test]
async fn answers_without_a_body_keep_their_headers() {
    for (method, upstream, expected) in [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 77\r\n\r\n", "content-length: 77\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\nx: y\r\n\r\n", "x: y\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\ncontent-length: 77\r\n\r\n", "etag: \"1\"\r\n"),
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "content-length: 0\r\n"),
    ] {
        let (target, _heads) = answering(upstream).await;
        let mut proxy = Proxy::before(&target).await;
        let answer = proxy.exchange(format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.contains(expected) && answer.ends_with("\r\n\r\n"), "{answer}");
        assert_eq!(answer.starts_with("HTTP/1.1 204"), upstream.starts_with("HTTP/1.1 204"));
        assert_eq!(proxy.ending().await, Ending::Complete);
        proxy.no_other_ending();
    }
    let (target, _heads) = answering("HTTP/1.1 200 OK\r\nx: y\r\n\r\n").await;
    let answer = Proxy::before(&target).await.exchange("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(!answer.contains("content-length"), "a length that nobody said: {answer}");
}

#[tokio::test]
async fn body_of_a_get_without_a_length_goes_up() {
    let address = hyper_upstream(async |request: Request<Incoming>| {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Full::new(body))
    })
    .await;
    let proxy = Proxy::before(&format!("http://{address}")).await;
    let answer = proxy
        .exchange(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        )
        .await;
    assert!(answer.ends_with("\r\n\r\nabc"), "{answer}");
    assert_eq!(proxy.heard.up.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn body_that_waits_for_100_is_asked_for_only_when_the_upstream_wants_it() {
    let refusing = raw_upstream(|_, mut stream| async move {
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.contains("expect: 100-continue"), "{head}");
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "the body went up");
    })
    .await;
    let ask = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n";
    let mut proxy = Proxy::before(&refusing).await;
    let answer = proxy.exchange(ask).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert_eq!(proxy.ending().await, Ending::Complete);

    let willing = raw_upstream(|_, mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        read_until(&mut stream, "abc").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    })
    .await;
    let proxy = Proxy::before(&willing).await;
    let mut stream = proxy.connect().await;
    stream.write_all(ask.as_bytes()).await.unwrap();
    read_until(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n").await;
    stream.write_all(b"abc").await.unwrap();
    assert!(read_all(&mut stream).await.ends_with("ok"));
}

#[tokio::test]
async fn upstreams_whose_framing_is_unclear_are_not_passed_on() {
    for (bytes, status) in [
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "502"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "502"),
        ("garbage\r\n\r\n", "502"),
        ("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", "502"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "200"),
    ] {
        let (target, _heads) = answering(bytes).await;
        let mut proxy = Proxy::before(&target).await;
        let answer = proxy.exchange(GET).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{bytes}: {answer}");
        let expected = if status == "200" { Ending::Complete } else { Ending::UpstreamFailed(Place::Head) };
        assert_eq!(proxy.ending().await, expected, "{bytes}");
        assert!(!answer.contains("127.0.0.1"), "an address leaks: {answer}");
        if status == "502" {
            assert!(answer.contains("application/problem+json") && answer.contains("no-store"), "{answer}");
            assert!(answer.contains("\"code\":\"upstream-failed\""), "{answer}");
        } else {
            assert!(!answer.contains("content-length"), "{answer}");
        }
    }
}

#[test]
fn garbage_never_panics_nor_hangs() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let proxy = runtime.block_on(async {
        let (target, heads) = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        std::mem::forget(heads);
        Proxy::before(&target).await
    });
    let mut runner = proptest::test_runner::TestRunner::new(proptest::test_runner::Config::with_cases(200));
    let bytes = proptest::prop_oneof![
        proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400),
        "(GET|POST|PRI) [ -~]{0,20} HTTP/[0-2].[01]\r\n([a-zA-Z-]{1,12}: ?[ -~]{0,20}\r\n){0,6}\r\n[ -~]{0,40}"
            .prop_map(String::into_bytes),
        proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200).prop_map(|rest| {
            let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            bytes.extend(rest);
            bytes
        }),
    ];
    runner
        .run(&bytes, |bytes| {
            runtime.block_on(async {
                let mut stream = proxy.connect().await;
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut Vec::new()))
                    .await
                    .map(drop)
                    .unwrap();
            });
            Ok(())
        })
        .unwrap();
    let answer = runtime.block_on(proxy.exchange(GET));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!proxy.served.is_finished());
}
