//! Limits, on both sides of each.

use super::*;

fn ok() -> &'static str {
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
}

#[tokio::test]
async fn heads_are_taken_up_to_the_limit() {
    let (target, _heads) = answering(ok()).await;
    let proxy = Proxy::before(&target).await;
    let with_headers = |bytes: usize| {
        let head = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n";
        // The target and each line's name, value and four more.
        let used = 1 + ("host".len() + 1 + 4) + ("connection".len() + "close".len() + 4);
        let mut rest = bytes - used;
        let mut text = head.to_owned();
        while rest > 0 {
            let len = if rest > 2100 { 1000 } else { rest.min(1500) };
            let len = if rest - len > 0 && rest - len < 6 { len - 6 } else { len };
            text.extend(["x: ", &"y".repeat(len - 5), "\r\n"]);
            rest -= len;
        }
        text + "\r\n"
    };
    let answer = proxy.exchange(with_headers(MAX_HEADER_BYTES)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = proxy.exchange(with_headers(MAX_HEADER_BYTES + 1)).await;
    assert!(answer.starts_with("HTTP/1.1 431") && answer.contains("headers-too-large"), "{answer}");
    let answer = proxy.exchange(with_headers(4 * MAX_HEADER_BYTES)).await;
    assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty() || answer == "<reset>", "{answer}");
    for (len, status) in [(MAX_TARGET_BYTES, "200"), (MAX_TARGET_BYTES + 1, "414")] {
        let path = "p".repeat(len - 1);
        let answer = proxy.exchange(format!("GET /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

#[tokio::test]
async fn heads_of_upstreams_are_taken_up_to_the_limit() {
    for (len, status) in [(MAX_RESPONSE_HEADER_BYTES / 2, "200"), (2 * MAX_RESPONSE_HEADER_BYTES, "502")] {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: {}\r\n\r\nok", "y".repeat(len));
        let (target, _heads) = answering(head.leak()).await;
        let answer = Proxy::before(&target).await.exchange(GET).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{}", &answer[..100]);
    }
}

#[tokio::test]
async fn requests_in_flight_are_bounded_and_the_place_is_given_back() {
    let (target, mut heads) = answering(ok()).await;
    let (decide, gate) = oneshot::channel();
    let heard = Heard { gate: Mutex::new(Some(gate)), ..Heard::default() };
    let settings = UpstreamSettings::new(target.parse().unwrap());
    let mut proxy = Proxy::with(settings, |settings| settings.limits.max_in_flight = 1, heard).await;
    let mut first = proxy.connect().await;
    first.write_all(GET.as_bytes()).await.unwrap();
    heads.recv().await.unwrap();
    let second = proxy.exchange(GET).await;
    assert!(
        second.starts_with("HTTP/1.1 503") && second.contains("retry-after: 1") && second.contains("overloaded"),
        "{second}"
    );
    decide.send(Ok(None)).unwrap();
    assert!(read_all(&mut first).await.ends_with("ok"));
    assert_eq!(proxy.ending().await, Ending::Complete);
    proxy.no_other_ending();
    assert!(proxy.exchange(GET).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let (target, _heads) = answering(ok()).await;
    let settings = UpstreamSettings::new(target.parse().unwrap());
    let proxy = Proxy::with(settings, |settings| settings.limits.max_connections = 1, Heard::default()).await;
    let mut first = proxy.connect().await;
    first.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut first, "\r\n\r\nok").await;
    let mut second = proxy.connect().await;
    second.write_all(GET.as_bytes()).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), second.read(&mut [0; 8])).await.is_err());
    drop(first);
    assert!(read_all(&mut second).await.ends_with("ok"));
}

#[tokio::test]
async fn silent_and_slow_clients_are_cut_off() {
    let (target, _heads) = answering(ok()).await;
    let settings = UpstreamSettings::new(target.parse().unwrap());
    let tune = |settings: &mut ListenerSettings| settings.limits.header_timeout = Duration::from_millis(60);
    let proxy = Proxy::with(settings, tune, Heard::default()).await;
    for bytes in ["", "PRI", "GET / HT", "GET / HTTP/1.1\r\nhost: a\r\nx", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = proxy.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        read_all(&mut stream).await;
    }
    // An idle connection too, after a good answer.
    let mut stream = proxy.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(read_all(&mut stream).await.ends_with("ok"));
}

#[tokio::test]
async fn client_that_stops_reading_is_cut_off_and_the_upstream_is_held_back() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let (sender, mut ended) = mpsc::unbounded_channel();
    let target = raw_upstream(move |_, mut stream| {
        let (count, sender) = (Arc::clone(&count), sender.clone());
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await.unwrap();
            while stream.write_all(&vec![0; 64 * 1024]).await.is_ok() {
                count.fetch_add(64 * 1024, Ordering::Relaxed);
            }
            let _ = sender.send(());
        }
    })
    .await;
    let tune = |settings: &mut ListenerSettings| settings.limits.write_idle_timeout = Duration::from_millis(200);
    let mut proxy = Proxy::with(UpstreamSettings::new(target.parse().unwrap()), tune, Heard::default()).await;
    let mut stream = proxy.connect().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    ended.recv().await.unwrap();
    assert_eq!(proxy.ending().await, Ending::ClientGone);
    // What the sockets of both connections hold (a few MB each on Linux), and no more.
    assert!(sent.load(Ordering::Relaxed) < 64 << 20, "{sent:?}");
}

#[tokio::test]
async fn circle_of_gates_is_found() {
    let (target, _heads) = answering(ok()).await;
    let proxy = Proxy::before(&target).await;
    for (hops, status) in [(MAX_HOPS - 1, "200"), (MAX_HOPS, "508")] {
        let via = vec!["1.1 weir"; hops].join(", ");
        let answer =
            proxy.exchange(format!("GET / HTTP/1.1\r\nHost: a\r\nVia: {via}\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

#[tokio::test]
async fn shutdown_lets_answers_end_and_then_returns() {
    let (target, mut heads) = answering(ok()).await;
    let (decide, gate) = oneshot::channel();
    let heard = Heard { gate: Mutex::new(Some(gate)), ..Heard::default() };
    let mut proxy = Proxy::with(UpstreamSettings::new(target.parse().unwrap()), |_| {}, heard).await;
    let mut idle = proxy.connect().await;
    let mut stream = proxy.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    heads.recv().await.unwrap();
    proxy.stop.take().unwrap().send(()).unwrap();
    read_all(&mut idle).await;
    assert!(!proxy.served.is_finished());
    decide.send(Ok(None)).unwrap();
    assert!(read_all(&mut stream).await.ends_with("ok"));
    (&mut proxy.served).await.unwrap();
    assert!(TcpStream::connect(proxy.address).await.is_err());
}
