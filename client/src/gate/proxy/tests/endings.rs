//! How exchanges end: each once, and no answer whole before it was let go.

use super::*;

/// Lets the test decide about the next complete answer.
fn gated() -> (Heard, oneshot::Sender<Release>) {
    let (sender, receiver) = oneshot::channel();
    (Heard { gate: Mutex::new(Some(receiver)), ..Heard::default() }, sender)
}

async fn nothing_more(stream: &mut TcpStream) {
    let more = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut [0; 64])).await;
    assert!(more.is_err(), "the client saw more: {more:?}");
}

#[tokio::test]
async fn last_piece_is_held_until_the_hook_lets_it_go() {
    // Small and whole, chunked, and without any body: what the client may see before, and the whole.
    for (upstream, before, after) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "", "hello"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n", "0\r\n\r\n"),
        ("HTTP/1.1 204 No Content\r\n\r\n", "", "HTTP/1.1 204"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "", "HTTP/1.1 200"),
    ] {
        let (target, _heads) = answering(upstream).await;
        let (heard, decide) = gated();
        let mut proxy = Proxy::with(UpstreamSettings::new(target.parse().unwrap()), |_| {}, heard).await;
        let mut stream = proxy.connect().await;
        stream.write_all(GET.as_bytes()).await.unwrap();
        if !before.is_empty() {
            let seen = read_until(&mut stream, before).await;
            assert!(seen.ends_with(before), "{seen}");
        }
        nothing_more(&mut stream).await;
        proxy.no_other_ending();
        decide.send(Ok(None)).unwrap();
        let rest = read_all(&mut stream).await;
        assert!(rest.contains(after), "{upstream}: {rest}");
        assert_eq!(proxy.ending().await, Ending::Complete);
        proxy.no_other_ending();
    }
}

/// An answer of a known length that is too long to be waited for.
fn long_answer() -> &'static str {
    let length = usize::try_from(SMALL_BYTES).unwrap() + 1;
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}", "b".repeat(length)).leak()
}

#[tokio::test]
async fn last_piece_of_a_long_answer_is_held_after_its_head_was_sent() {
    let (target, _heads) = answering(long_answer()).await;
    let (heard, decide) = gated();
    let mut proxy = Proxy::with(UpstreamSettings::new(target.parse().unwrap()), |_| {}, heard).await;
    let mut stream = proxy.connect().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    let mut seen = read_until(&mut stream, "\r\n\r\n").await;
    let mut buffer = [0; 4096];
    while let Ok(read) = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut buffer)).await {
        seen.push_str(std::str::from_utf8(&buffer[..read.unwrap()]).unwrap());
    }
    assert!(seen.len() < long_answer().len(), "all of it passed");
    proxy.no_other_ending();
    decide.send(Ok(None)).unwrap();
    seen.push_str(&read_all(&mut stream).await);
    assert!(long_answer().ends_with(seen.rsplit("\r\n").next().unwrap()), "{}", seen.len());
    assert_eq!(proxy.ending().await, Ending::Complete);
}

#[tokio::test]
async fn withheld_answer_never_looks_whole() {
    for (upstream, version) in [
        (long_answer(), "1.1"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "1.1"),
        ("HTTP/1.1 200 OK\r\n\r\nhello", "1.0"),
    ] {
        let (target, _heads) = answering(upstream).await;
        let (heard, decide) = gated();
        let mut proxy = Proxy::with(UpstreamSettings::new(target.parse().unwrap()), |_| {}, heard).await;
        let mut stream = proxy.connect().await;
        stream.write_all(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        decide.send(Err(Withheld)).unwrap();
        let seen = read_all(&mut stream).await;
        assert!(seen.ends_with("<reset>"), "{seen}");
        assert!(!seen.contains("\r\n0\r\n\r\n"), "{seen}");
        assert_eq!(proxy.ending().await, Ending::Complete);
    }
    // Nothing was sent yet: a proper refusal.
    for upstream in ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"] {
        let (target, _heads) = answering(upstream).await;
        let (heard, decide) = gated();
        let proxy = Proxy::with(UpstreamSettings::new(target.parse().unwrap()), |_| {}, heard).await;
        decide.send(Err(Withheld)).unwrap();
        let seen = proxy.exchange(GET).await;
        assert!(seen.starts_with("HTTP/1.1 503") && seen.contains("answer-withheld"), "{seen}");
    }
}

#[tokio::test]
async fn decision_under_way_is_finished_when_the_client_leaves() {
    let upstream = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let (target, _heads) = answering(upstream).await;
    let (heard, decide) = gated();
    let mut proxy = Proxy::with(UpstreamSettings::new(target.parse().unwrap()), |_| {}, heard).await;
    let mut stream = proxy.connect().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    read_until(&mut stream, "5\r\nhello\r\n").await;
    drop(stream);
    // The receiver lives in the hook's future only: it is gone if the future was dropped.
    tokio::time::sleep(Duration::from_millis(50)).await;
    decide.send(Ok(None)).unwrap();
    assert_eq!(proxy.ending().await, Ending::Complete);
    proxy.no_other_ending();
}

#[tokio::test]
async fn headers_of_the_hook_go_into_the_head_where_there_is_no_body() {
    let (target, _heads) = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    let (heard, decide) = gated();
    let proxy = Proxy::with(UpstreamSettings::new(target.parse().unwrap()), |_| {}, heard).await;
    let mut extra = http::HeaderMap::new();
    extra.insert("payment-receipt", "mine".parse().unwrap());
    decide.send(Ok(Some(extra))).unwrap();
    let seen = proxy.exchange(GET).await;
    assert!(seen.contains("payment-receipt: mine\r\n"), "{seen}");
}

#[tokio::test]
async fn upstream_that_breaks_off_breaks_the_answer_off() {
    for (bytes, ending) in [
        ("", Ending::UpstreamFailed(Place::Head)),
        ("HTTP/1.1 200 OK\r\ncontent-le", Ending::UpstreamFailed(Place::Head)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", Ending::UpstreamFailed(Place::Body)),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", Ending::UpstreamFailed(Place::Body)),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", Ending::UpstreamFailed(Place::Body)),
    ] {
        let (target, _heads) = answering(bytes).await;
        let mut proxy = Proxy::before(&target).await;
        let seen = proxy.exchange(GET).await;
        assert_eq!(proxy.ending().await, ending, "{bytes}");
        proxy.no_other_ending();
        if ending == Ending::UpstreamFailed(Place::Head) {
            assert!(seen.starts_with("HTTP/1.1 502") && seen.contains("upstream-failed"), "{seen}");
        } else {
            assert!(seen.ends_with("<reset>"), "{bytes}: {seen}");
        }
    }
}

#[tokio::test]
async fn request_that_may_have_arrived_is_never_sent_again() {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    let target = raw_upstream(move |_, mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            // One good answer, then every further request is read and the connection dropped.
            read_until(&mut stream, "\r\n\r\n").await;
            seen.fetch_add(1, Ordering::SeqCst);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            read_until(&mut stream, "\r\n\r\n").await;
            seen.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let mut proxy = Proxy::before(&target).await;
    assert!(proxy.exchange(GET).await.starts_with("HTTP/1.1 200"));
    assert!(proxy.exchange(GET).await.starts_with("HTTP/1.1 502"));
    assert_eq!(count.load(Ordering::SeqCst), 2);
    assert_eq!(proxy.ending().await, Ending::Complete);
    assert_eq!(proxy.ending().await, Ending::UpstreamFailed(Place::Head));
}

#[tokio::test]
async fn kept_connection_that_was_closed_is_replaced() {
    let target = raw_upstream(|_, mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    })
    .await;
    let proxy = Proxy::before(&target).await;
    for _ in 0..20 {
        assert!(proxy.exchange(GET).await.starts_with("HTTP/1.1 200"));
        // The upstream's close is on its way.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn client_that_leaves_is_reported_wherever_the_answer_is() {
    for bytes in [
        "",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let (sender, mut gone) = mpsc::unbounded_channel();
        let target = raw_upstream(move |_, mut stream| {
            let sender = sender.clone();
            async move {
                read_until(&mut stream, "\r\n\r\n").await;
                stream.write_all(bytes.as_bytes()).await.unwrap();
                let _ = sender.send(());
                // The proxy lets go of the connection.
                let _ = stream.read(&mut [0; 8]).await;
                let _ = sender.send(());
            }
        })
        .await;
        let mut proxy = Proxy::before(&target).await;
        let mut stream = proxy.connect().await;
        stream.write_all(GET.as_bytes()).await.unwrap();
        gone.recv().await.unwrap();
        if !bytes.is_empty() {
            read_until(&mut stream, "hello").await;
        }
        drop(stream);
        gone.recv().await.unwrap();
        assert_eq!(proxy.ending().await, Ending::ClientGone, "{bytes}");
        proxy.no_other_ending();
    }
}

#[tokio::test]
async fn request_body_that_fails_is_the_client_s_fault() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\n";
    for (rest, close, ending, status) in [
        ("Content-Length: 9\r\n\r\nabc", false, Ending::RequestFailed(RequestFault::TooSlow), "408"),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz", false, Ending::RequestFailed(RequestFault::Broken), "400"),
        ("Content-Length: 99\r\n\r\nabc", false, Ending::NotSent, "413"),
        (
            "Transfer-Encoding: chunked\r\n\r\n14\r\n01234567890123456789\r\n",
            false,
            Ending::RequestFailed(RequestFault::TooLarge),
            "413",
        ),
        ("Content-Length: 9\r\n\r\nabc", true, Ending::RequestFailed(RequestFault::Broken), ""),
    ] {
        let target = raw_upstream(|_, mut stream| async move {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let settings = UpstreamSettings { max_request_bytes: 16, ..short(&target) };
        let mut proxy = Proxy::with(settings, |_| {}, Heard::default()).await;
        let mut stream = proxy.connect().await;
        stream.write_all(format!("{head}{rest}").as_bytes()).await.unwrap();
        if close {
            drop(stream);
            let seen = proxy.ending().await;
            assert!(seen == ending || seen == Ending::ClientGone, "{rest}: {seen:?}");
        } else {
            let seen = read_all(&mut stream).await;
            // A body that cannot be parsed ends the connection.
            assert!(
                seen.starts_with(&format!("HTTP/1.1 {status}")) || (seen.is_empty() && status == "400"),
                "{rest}: {seen}"
            );
            assert_eq!(proxy.ending().await, ending, "{rest}");
        }
        proxy.no_other_ending();
    }
}

#[tokio::test]
async fn hook_that_stops_the_answer_breaks_it_off_before_the_piece() {
    let (target, _heads) =
        answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    let heard = Heard { stop_after: Some(4), ..Heard::default() };
    let mut proxy = Proxy::with(UpstreamSettings::new(target.parse().unwrap()), |_| {}, heard).await;
    let seen = proxy.exchange(GET).await;
    assert!(!seen.contains("hello") && seen.ends_with("<reset>"), "{seen}");
    assert_eq!(proxy.ending().await, Ending::Stopped);
}

#[tokio::test]
async fn upstream_that_takes_too_long_is_given_up() {
    for (bytes, ending) in [
        ("", Ending::TimedOut(Wait::FirstByte)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", Ending::TimedOut(Wait::Idle)),
    ] {
        let target = raw_upstream(move |_, mut stream| async move {
            read_until(&mut stream, "\r\n\r\n").await;
            stream.write_all(bytes.as_bytes()).await.unwrap();
            let _ = stream.read(&mut [0; 8]).await;
        })
        .await;
        let mut proxy = Proxy::with(short(&target), |_| {}, Heard::default()).await;
        let seen = proxy.exchange(GET).await;
        assert_eq!(proxy.ending().await, ending);
        if bytes.is_empty() {
            assert!(seen.starts_with("HTTP/1.1 504") && seen.contains("upstream-timeout"), "{seen}");
        } else {
            assert!(seen.ends_with("<reset>"), "{seen}");
        }
    }
}

#[tokio::test]
async fn upstream_that_is_not_there_never_saw_the_request() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut proxy = Proxy::before(&format!("http://{free}")).await;
    let seen = proxy.exchange(GET).await;
    assert!(seen.starts_with("HTTP/1.1 502") && seen.contains("upstream-unreachable"), "{seen}");
    assert!(!seen.contains(&free.port().to_string()), "{seen}");
    assert_eq!(proxy.ending().await, Ending::ConnectFailed);
}
