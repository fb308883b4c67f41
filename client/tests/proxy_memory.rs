//! Large bodies pass the proxy in constant memory. A process of its own, as it looks at the whole process's memory.

#![cfg(all(feature = "gate", target_os = "linux"))]
#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use weir_client::gate::proxy::{
    GateBody, Handler, Listener, ListenerSettings, NoHooks, Peer, Upstream, UpstreamSettings, forward,
};

/// Bytes of each body: beyond what sockets and buffers hold by far. With `WEIR_CI` a gigabyte.
fn body_bytes() -> usize {
    if std::env::var_os("WEIR_CI").is_some() { 1 << 30 } else { 256 << 20 }
}

/// What the process may grow by.
const GROWTH_BYTES: usize = 32 << 20;

struct Plain(Upstream);

impl Handler for Plain {
    async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<GateBody> {
        forward(request, &self.0, &peer, Box::new(NoHooks)).await
    }
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

async fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(bytes).unwrap()
}

/// Takes a body of the asked length, and sends one of the same.
async fn upstream(body_bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                head(&mut stream).await;
                drain(&mut stream, body_bytes).await;
                stream
                    .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {body_bytes}\r\n\r\n").as_bytes())
                    .await
                    .unwrap();
                fill(&mut stream, body_bytes).await;
            });
        }
    });
    address
}

async fn fill(stream: &mut TcpStream, mut bytes: usize) {
    let piece = vec![7; 128 << 10];
    while bytes > 0 {
        let len = stream.write(&piece[..bytes.min(piece.len())]).await.unwrap();
        bytes -= len;
    }
}

async fn drain(stream: &mut TcpStream, mut bytes: usize) {
    let mut piece = vec![0; 128 << 10];
    while bytes > 0 {
        let most = bytes.min(piece.len());
        let len = stream.read(&mut piece[..most]).await.unwrap();
        assert_ne!(len, 0, "{bytes} bytes are missing");
        bytes -= len;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_pass_both_ways_in_constant_memory() {
    let body_bytes = body_bytes();
    let target = format!("http://{}", upstream(body_bytes).await).parse().unwrap();
    let handler = Arc::new(Plain(Upstream::new(UpstreamSettings::new(target)).unwrap()));
    let listener = Listener::bind(ListenerSettings::new("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let address = listener.local_address().unwrap();
    tokio::spawn(listener.serve(handler, std::future::pending()));
    let before = resident_bytes();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {body_bytes}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    fill(&mut stream, body_bytes).await;
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
    drain(&mut stream, body_bytes / 2).await;
    let growth = resident_bytes().saturating_sub(before);
    drain(&mut stream, body_bytes - body_bytes / 2).await;
    assert!(growth < GROWTH_BYTES, "grew by {growth} bytes");
}
