//! HTTP/2 on either side, TLS, trailers, and many requests at once.

use http_body::Frame;

use super::*;

/// Answers like gRPC: echoes the body and adds trailers that say what came.
async fn grpc_like() -> SocketAddr {
    hyper_upstream(async |request: Request<Incoming>| {
        let version = format!("{:?}", request.version());
        let host = request
            .uri()
            .authority()
            .map(ToString::to_string)
            .or_else(|| Some(request.headers().get("host")?.to_str().ok()?.to_owned()));
        let te = request.headers().contains_key("te");
        let collected = request.into_body().collect().await.unwrap();
        let mut trailers = collected.trailers().cloned().unwrap_or_default();
        trailers.insert("grpc-status", "0".parse().unwrap());
        trailers.insert("payment-receipt", "fake".parse().unwrap());
        let mut response = Response::new(Frames([Frame::data(collected.to_bytes()), Frame::trailers(trailers)].into()));
        let headers = response.headers_mut();
        headers.insert("x-version", version.parse().unwrap());
        headers.insert("x-host", host.unwrap().parse().unwrap());
        headers.insert("x-te", te.to_string().parse().unwrap());
        headers.insert("trailer", "grpc-status, x-up".parse().unwrap());
        response
    })
    .await
}

/// Frames, one after the other.
struct Frames(std::collections::VecDeque<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.pop_front().map(Ok))
    }
}

fn grpc_call(host: &str) -> Request<Frames> {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-up", "told".parse().unwrap());
    trailers.insert("authorization", "Payment x".parse().unwrap());
    let body = Frames([Frame::data(Bytes::from_static(b"ping")), Frame::trailers(trailers)].into());
    Request::post(format!("http://{host}/grpc")).header("te", "trailers").body(body).unwrap()
}

#[tokio::test]
async fn trailers_pass_between_all_versions() {
    let upstream = grpc_like().await;
    for (scheme, version) in [("http", "HTTP/1.1"), ("h2c", "HTTP/2.0")] {
        let mut proxy = Proxy::before(&format!("{scheme}://{upstream}")).await;
        let mut client = h2_client(proxy.address).await;
        let response = client.send_request(grpc_call("site.example")).await.unwrap();
        assert_eq!(response.headers()["x-version"], version);
        assert_eq!(response.headers()["x-host"], "site.example");
        assert_eq!(response.headers()["x-te"], "true");
        let collected = response.into_body().collect().await.unwrap();
        let trailers = collected.trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "0", "{scheme}");
        assert_eq!(trailers.get("x-up").map(HeaderValue::as_bytes), (scheme == "h2c").then_some(b"told".as_slice()));
        assert!(!trailers.contains_key("payment-receipt") && !trailers.contains_key("authorization"));
        assert_eq!(collected.to_bytes(), "ping");
        assert_eq!(proxy.ending().await, Ending::Complete);

        let answer = proxy
            .exchange("POST /grpc HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te, close\r\nContent-Length: 4\r\n\r\nping")
            .await;
        assert!(answer.contains("x-te: true\r\n") && answer.contains("grpc-status: 0\r\n"), "{answer}");
        assert!(!answer.contains("fake"), "{answer}");
    }
}

#[tokio::test]
async fn withheld_answer_is_a_reset_stream_in_http2() {
    let (target, _heads) =
        answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    let (decide, gate) = oneshot::channel();
    let heard = Heard { gate: Mutex::new(Some(gate)), ..Heard::default() };
    let mut proxy = Proxy::with(UpstreamSettings::new(target.parse().unwrap()), |_| {}, heard).await;
    let mut client = h2_client(proxy.address).await;
    let response = client.send_request(Request::get("http://a/").body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    decide.send(Err(Withheld)).unwrap();
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(proxy.ending().await, Ending::Complete);
    // The connection lives on.
    let again = client.send_request(Request::get("http://a/").body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!(again.into_body().collect().await.unwrap().to_bytes(), "hello");
}

#[tokio::test]
async fn reset_stream_is_a_client_that_left() {
    let target = raw_upstream(|_, mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello").await.unwrap();
        let _ = stream.read(&mut [0; 8]).await;
    })
    .await;
    let mut proxy = Proxy::before(&target).await;
    let mut client = h2_client(proxy.address).await;
    let response = client.send_request(Request::get("http://a/").body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    drop(response);
    assert_eq!(proxy.ending().await, Ending::ClientGone);
    proxy.no_other_ending();
}

#[tokio::test]
async fn authorities_that_differ_are_refused() {
    let (target, _heads) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let proxy = Proxy::before(&target).await;
    let mut client = h2_client(proxy.address).await;
    for (host, status) in [("a", 200), ("b", 400)] {
        let request = Request::get("http://a/").header("host", host).body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(client.send_request(request).await.unwrap().status(), status);
    }
}

const MANY: usize = 2_064;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_at_once_on_one_connection_are_all_served() {
    for scheme in ["http", "h2c"] {
        let upstream = hyper_upstream(async |_| Response::new(Full::new(Bytes::from_static(b"hello")))).await;
        let mut proxy = Proxy::before(&format!("{scheme}://{upstream}")).await;
        let client = h2_client(proxy.address).await;
        let calls = (0..MANY).map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move {
                let request = Request::get("http://a/").body(Empty::<Bytes>::new()).unwrap();
                let response = client.send_request(request).await.unwrap();
                assert_eq!(response.status(), 200);
                assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        for _ in 0..MANY {
            assert_eq!(proxy.ending().await, Ending::Complete);
        }
        proxy.no_other_ending();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_at_once_on_connections_of_their_own_are_all_served() {
    let upstream = hyper_upstream(async |_| Response::new(Full::new(Bytes::from_static(b"hello")))).await;
    let mut proxy = Proxy::before(&format!("http://{upstream}")).await;
    let address = proxy.address;
    // Each connection is three files here: 600 stay under a usual limit of 4,096 with room for the other tests.
    let calls = (0..600).map(|_| {
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(GET.as_bytes()).await.unwrap();
            let answer = read_all(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    for _ in 0..600 {
        assert_eq!(proxy.ending().await, Ending::Complete);
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in der.chunks(3) {
        let bits = three.iter().chain(&[0, 0]).take(3).fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        let digits = [18, 12, 6, 0].map(|shift| char::from(DIGITS[bits >> shift & 63]));
        text.extend(digits.iter().take(three.len() + 1));
        text.extend(std::iter::repeat_n('=', 3 - three.len()));
    }
    let lines: Vec<String> =
        text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A certificate of an authority of its own for `localhost`: chain, key, authority as files.
fn certificate(folder: &std::path::Path) -> (TlsFiles, std::path::PathBuf) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(params, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    let files = TlsFiles { certificate: folder.join("chain.pem"), key: folder.join("key.pem") };
    std::fs::write(&files.certificate, pem("CERTIFICATE", leaf.der())).unwrap();
    std::fs::write(&files.key, pem("PRIVATE KEY", &key.serialize_der())).unwrap();
    std::fs::write(folder.join("ca.pem"), pem("CERTIFICATE", authority.der())).unwrap();
    (files, folder.join("ca.pem"))
}

#[tokio::test]
async fn tls_holds_on_both_sides_and_strangers_are_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let (files, ca_file) = certificate(folder.path());
    // A proxy with TLS stands for the upstream of another one: both sides in one test.
    let behind = hyper_upstream(async |request: Request<Incoming>| {
        let proto = request.headers()["x-forwarded-proto"].to_str().unwrap().to_owned();
        Response::new(Full::new(Bytes::from(proto)))
    })
    .await;
    let inner = UpstreamSettings::new(format!("http://{behind}").parse().unwrap());
    let inner = Proxy::with(inner, |settings| settings.tls = Some(files), Heard::default()).await;
    let target = format!("https://localhost:{}", inner.address.port());
    for ca_file in [Some(ca_file), None] {
        let trusts = ca_file.is_some();
        let settings = UpstreamSettings { ca_file, ..UpstreamSettings::new(target.parse().unwrap()) };
        let Ok(upstream) = Upstream::new(settings.clone()) else {
            assert!(!trusts, "no roots at all: nothing is trusted");
            continue;
        };
        drop(upstream);
        let mut proxy = Proxy::with(settings, |_| {}, Heard::default()).await;
        let answer = proxy.exchange(GET).await;
        if trusts {
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("https"), "{answer}");
            assert!(answer.contains("via: 1.1 weir\r\nvia: 2 weir\r\n"), "{answer}");
            assert_eq!(proxy.ending().await, Ending::Complete);
        } else {
            assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("upstream-unreachable"), "{answer}");
            assert_eq!(proxy.ending().await, Ending::ConnectFailed);
        }
    }
}

#[test]
fn certificate_is_read_again_when_its_files_change() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = certificate(folder.path());
    let certificates = Certificates::load(files.clone()).unwrap();
    assert!(!certificates.reload_if_changed().unwrap());
    let key = std::fs::read(&files.key).unwrap();
    certificate(folder.path());
    let new_key = std::fs::read(&files.key).unwrap();
    // Half a replacement is not taken, the whole one is.
    std::fs::write(&files.key, &key).unwrap();
    assert!(matches!(certificates.reload(), Err(TlsError::Pair(_))));
    std::fs::write(&files.key, new_key).unwrap();
    certificates.reload().unwrap();
    std::fs::write(&files.certificate, "").unwrap();
    assert!(matches!(certificates.reload_if_changed(), Err(TlsError::NoCertificate(_))));
}
