//! What the door does with first packets: answers, asks for a proof of the address, ignores.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use quinn::Endpoint;
use tokio::net::UdpSocket;

use super::client::{Client, Hub, client_endpoint};
use crate::server::limits::Limits;

/// Longest wait for an answer that must come.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer that must not come is waited for.
const QUIET: Duration = Duration::from_millis(300);
/// Form and type of a QUIC version 1 long header (RFC 9000 §17.2); the bit between them may be anything (RFC 9287).
const HEADER_KIND: u8 = 0b1011_0000;
const INITIAL: u8 = 0b1000_0000;
const RETRY: u8 = 0b1011_0000;

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Handshake,
    Retry,
    Nothing,
}

/// A client's first packet. The answers go to nobody, so the hub waits for the rest of the handshake.
async fn first_packet(hub: &Hub, wait: Duration) -> (Answer, Endpoint) {
    let tap = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let client = client_endpoint();
    // Driven by the endpoint: dropping this would end it.
    let connecting = client.connect(tap.local_addr().unwrap(), "weir").unwrap();
    tokio::spawn(connecting);
    let mut packet = [0; 2048];
    let (length, _) = tap.recv_from(&mut packet).await.unwrap();
    tap.send_to(packet.get(..length).unwrap(), hub.server.local_addr()).await.unwrap();
    let answered = tokio::time::timeout(wait, async {
        loop {
            let (_, from) = tap.recv_from(&mut packet).await.unwrap();
            if from == hub.server.local_addr() {
                return packet[0] & HEADER_KIND;
            }
        }
    });
    let answer = match answered.await {
        Ok(RETRY) => Answer::Retry,
        Ok(INITIAL) => Answer::Handshake,
        Ok(other) => panic!("an unexpected packet: {other:#b}"),
        Err(_) => Answer::Nothing,
    };
    (answer, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn address_must_be_shown_from_the_limit_of_handshakes_in_flight_on() {
    let hub = Hub::with(Limits { handshakes_before_retry: 1, ..Limits::default() });
    let (answer, _held) = first_packet(&hub, PATIENCE).await;
    assert_eq!(answer, Answer::Handshake);
    let (answer, _refused) = first_packet(&hub, PATIENCE).await;
    assert_eq!(answer, Answer::Retry);
    // Whoever shows it is served.
    Client::connect(&hub).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_packets_over_the_limit_of_handshakes_are_ignored_until_one_ends() {
    let handshake_timeout = Duration::from_secs(2);
    let hub = Hub::with(Limits { handshakes_max: 1, handshake_timeout, ..Limits::default() });
    let (answer, _held) = first_packet(&hub, PATIENCE).await;
    assert_eq!(answer, Answer::Handshake);
    let (answer, _ignored) = first_packet(&hub, QUIET).await;
    assert_eq!(answer, Answer::Nothing);
    // A client that sends its first packet again, as QUIC does, comes in when the handshake that hangs has timed out.
    Client::connect(&hub).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_packets_over_the_limits_of_connections_are_ignored_until_one_ends() {
    let over = [
        Limits { connections_max: 1, ..Limits::default() },
        Limits { connections_per_address: 1, ..Limits::default() },
    ];
    for limits in over {
        let hub = Hub::with(limits);
        let client = Client::connect(&hub).await;
        let (answer, _ignored) = first_packet(&hub, QUIET).await;
        assert_eq!(answer, Answer::Nothing);
        assert_eq!(client.quinn.close_reason(), None);
        drop(client);
        Client::connect(&hub).await;
    }
}
