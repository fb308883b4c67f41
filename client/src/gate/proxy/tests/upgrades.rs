//! Tunnels after a 101.

use super::*;

/// Agrees to the upgrade, echoes until the client's end, says goodbye and ends.
async fn echo() -> String {
    raw_upstream(|_, mut stream| async move {
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
        assert!(head.contains("sec-websocket-key: k\r\n"), "{head}");
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s\r\n\r\nfirst")
            .await
            .unwrap();
        let mut piece = [0; 1024];
        loop {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(len) => stream.write_all(&piece[..len]).await.unwrap(),
            }
        }
        let _ = stream.write_all(b"bye").await;
    })
    .await
}

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";

#[tokio::test]
async fn tunnel_carries_both_ways_and_each_way_ends_by_itself() {
    let mut proxy = Proxy::before(&echo().await).await;
    let mut stream = proxy.connect().await;
    stream.write_all(ASK.as_bytes()).await.unwrap();
    let head = read_until(&mut stream, "first").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.contains("sec-websocket-accept: s\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
    stream.write_all(b"hello").await.unwrap();
    read_until(&mut stream, "hello").await;
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut stream).await, "bye");
    let (ending, passed) = proxy.endings.recv().await.unwrap();
    assert_eq!(ending, Ending::Complete);
    assert_eq!(passed, Passed { up_bytes: 5, down_bytes: 13 });
    proxy.no_other_ending();
}

#[tokio::test]
async fn tunnel_opens_only_after_the_hook_lets_it() {
    for release in [Ok(None), Err(Withheld)] {
        let (decide, gate) = oneshot::channel();
        let heard = Heard { gate: Mutex::new(Some(gate)), ..Heard::default() };
        let settings = UpstreamSettings::new(echo().await.parse().unwrap());
        let mut proxy = Proxy::with(settings, |_| {}, heard).await;
        let mut stream = proxy.connect().await;
        stream.write_all(ASK.as_bytes()).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), stream.read(&mut [0; 8])).await.is_err());
        decide.send(release.clone()).unwrap();
        let head = read_until(&mut stream, "\r\n\r\n").await;
        if release.is_ok() {
            assert!(head.starts_with("HTTP/1.1 101"), "{head}");
            drop(stream);
            let ending = proxy.ending().await;
            assert!(matches!(ending, Ending::Complete | Ending::ClientGone), "{ending:?}");
        } else {
            assert!(head.starts_with("HTTP/1.1 503"), "{head}");
            assert_eq!(proxy.ending().await, Ending::Stopped);
        }
        proxy.no_other_ending();
    }
}

#[tokio::test]
async fn tunnel_in_which_nothing_moves_is_ended() {
    let target = echo().await;
    let mut proxy = Proxy::with(short(&target), |_| {}, Heard::default()).await;
    let mut stream = proxy.connect().await;
    stream.write_all(ASK.as_bytes()).await.unwrap();
    read_until(&mut stream, "first").await;
    read_all(&mut stream).await;
    assert_eq!(proxy.ending().await, Ending::TimedOut(Wait::Idle));
}

#[tokio::test]
async fn tunnel_is_ended_when_the_time_to_drain_is_over() {
    let settings = UpstreamSettings::new(echo().await.parse().unwrap());
    let tune = |settings: &mut ListenerSettings| settings.limits.drain = Duration::from_millis(50);
    let mut proxy = Proxy::with(settings, tune, Heard::default()).await;
    let mut stream = proxy.connect().await;
    stream.write_all(ASK.as_bytes()).await.unwrap();
    read_until(&mut stream, "first").await;
    proxy.stop.take().unwrap().send(()).unwrap();
    read_all(&mut stream).await;
    assert_eq!(proxy.ending().await, Ending::ShutDown);
    (&mut proxy.served).await.unwrap();
}

#[tokio::test]
async fn upstream_that_declines_answers_as_usual_and_one_of_http2_cannot_be_asked() {
    let (target, _heads) = answering("HTTP/1.1 426 Upgrade Required\r\ncontent-length: 2\r\n\r\nno").await;
    let mut proxy = Proxy::before(&target).await;
    let mut stream = proxy.connect().await;
    stream.write_all(ASK.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "\r\n\r\nno").await;
    assert!(answer.starts_with("HTTP/1.1 426"), "{answer}");
    assert_eq!(proxy.ending().await, Ending::Complete);
    let mut proxy = Proxy::before("h2c://127.0.0.1:1").await;
    let mut stream = proxy.connect().await;
    stream.write_all(ASK.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "\r\n\r\n{").await;
    assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
    assert_eq!(proxy.ending().await, Ending::NotSent);
}
