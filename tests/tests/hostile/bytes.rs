//! Bytes without sense, on every kind of stream and beneath them.
#![expect(clippy::print_stdout, reason = "what a run came to is worth seeing")]

use std::net::UdpSocket;

use weir_protocol::act::Act;
use weir_protocol::reject::Reject;
use weir_protocol::wire::{
    Attach, CreditMessage, Cursor, KeyScope, LaneRequest, MAX_REQUEST, Opening, Reply, Request, RequestMessage,
    Subscribe, VERSION, encode,
};
use weir_tests::harness::random::Random;
use weir_tests::harness::raw::{Raw, framed, read, reset_code};

use super::{PAYEE, PAYER_SEED, World, account, key, lane_scope, nanos, pay, spending_key};

/// Streams of each kind.
const STREAMS: u64 = 120;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_stream_refuses_what_it_can_read_and_is_reset_over_the_rest() {
    let mut world = World::new(&[]).await;
    let mut raw = world.registered(PAYER_SEED).await;
    let refusals: [(&str, &[u8], u64, Reject); 6] = [
        ("an unknown request", &[7, 0x63], 7, Reject::Unsupported),
        ("an act of an unknown kind", &[8, 1, 99], 8, Reject::Unsupported),
        ("a byte behind the end", &[9, 2, 0], 9, Reject::Malformed),
        ("a request without its fields", &[10, 3, 1, 2], 10, Reject::Malformed),
        ("nothing but an id", &[11], 11, Reject::Malformed),
        (
            "the greatest id",
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0x63],
            u64::MAX,
            Reject::Unsupported,
        ),
    ];
    for (row, body, id, expected) in refusals {
        raw.body(body).await;
        let reply = raw.reply().await;
        assert_eq!((reply.id, reply.reply), (id, Err(expected)), "{row}");
    }
    assert!(matches!(raw.ask(Request::Hub).await, Ok(Reply::Hub(_))), "the stream lives");
    world.honest_traffic_goes_on();

    // What cannot be answered, or cannot be skipped: the stream is reset, others live.
    let too_long = u32::try_from(MAX_REQUEST + 1).unwrap().to_le_bytes();
    let resets: [&[u8]; 4] = [
        &too_long,
        &[0xff; 8],
        &[12, 0, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80],
        &[0; 4],
    ];
    for bytes in resets {
        let mut raw = world.connect().await;
        raw.prove(KeyScope::Account(account(PAYER_SEED)), &key(PAYER_SEED)).await.unwrap();
        let (send, recv) = raw.control();
        send.write_all(bytes).await.unwrap();
        assert_eq!(reset_code(recv).await, Some(1), "{bytes:?}");
        let subscribe = Subscribe { account: account(PAYER_SEED), after: Cursor::default() };
        let (_send, mut credits) = raw.open(&Opening::Credit(subscribe)).await;
        assert!(matches!(read::<CreditMessage>(&mut credits).await, Some(CreditMessage::Through(_))));
    }
    // Openings that are none.
    let openings: [&[u8]; 4] = [&[1, 0, 0, 0, 0x77], &[0, 0, 0, 0], &[0xff; 16], &[2, 0, 0, 0, 1, 7]];
    for bytes in openings {
        let (mut send, mut recv) = raw.quinn.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        assert_eq!(reset_code(&mut recv).await, Some(1), "{bytes:?}");
    }
    let subscribe = Subscribe { account: account(PAYEE), after: Cursor::default() };
    let (_send, mut credits) = raw.open(&Opening::Credit(subscribe)).await;
    assert_eq!(read::<CreditMessage>(&mut credits).await, Some(CreditMessage::Refused(Reject::Unauthenticated)));
    let subscribe = Subscribe { account: account(PAYER_SEED), after: Cursor { chain: u64::MAX, number: u64::MAX } };
    let (_send, mut credits) = raw.open(&Opening::Credit(subscribe)).await;
    // Whatever it makes of a place that is none, it stays up.
    let _ = tokio::time::timeout(std::time::Duration::from_millis(200), read::<CreditMessage>(&mut credits)).await;
    world.honest_traffic_goes_on();
    world.end();
}

/// Valid messages to bend.
fn models(lane: Attach, raw: &Raw) -> Vec<Vec<u8>> {
    let request = |request| encode(&RequestMessage { id: 1, request });
    let act = Act::Settled(weir_protocol::act::Settled { window: 1 }).sign(&raw.hub, &key(PAYER_SEED));
    vec![
        encode(&Opening::Control { version: VERSION }),
        encode(&Opening::Lane(lane)),
        encode(&Opening::Credit(Subscribe { account: account(PAYER_SEED), after: Cursor::default() })),
        encode(&LaneRequest::Attach(lane)),
        request(Request::Hub),
        request(Request::Account(account(PAYER_SEED))),
        request(Request::Act(act)),
        request(Request::History { lane: lane.lane, since: 3 }),
        request(Request::Statement { account: account(PAYER_SEED), after: Cursor::default(), skip: 0 }),
        request(Request::Commit { number: 2 }),
    ]
}

/// Bytes of one stream: noise, noise in frames, or a valid message with something wrong in it.
fn nonsense(random: &mut Random, models: &[Vec<u8>]) -> Vec<u8> {
    let length = usize::try_from(random.below(300)).unwrap();
    match random.below(3) {
        0 => random.bytes(length),
        1 => framed(&random.bytes(length)),
        _ => {
            let mut message = models[usize::try_from(random.below(models.len() as u64)).unwrap()].clone();
            for _ in 0..=random.below(3) {
                let place = usize::try_from(random.below(message.len() as u64)).unwrap();
                message[place] ^= 1 << random.below(8);
            }
            message
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_on_every_kind_of_stream_harm_nobody() {
    let mut random = Random::seeded("hostile");
    let mut world = World::new(&[]).await;
    let (mut first, terms) = world.cast().await;
    let lane = Attach { lane: terms.lane_zero().id(), void_through: 0 };
    first.prove(lane_scope(lane.lane), &spending_key(PAYER_SEED)).await.unwrap();
    let mut spender = first.attach(lane.lane, spending_key(PAYER_SEED)).await;
    spender.pay(&[pay(PAYEE, nanos(1))]).await;
    let frame = encode(&LaneRequest::Frame(spender.frame(&spender.draft(&[pay(PAYEE, nanos(1))]))));
    let mut models = models(lane, &first);
    models.push(frame);
    let openings = [
        None,
        Some(Opening::Control { version: VERSION }),
        Some(Opening::Lane(lane)),
        Some(Opening::Credit(Subscribe { account: account(PAYER_SEED), after: Cursor::default() })),
    ];
    let mut connections = 0;
    for opening in &openings {
        let mut raw: Option<Raw> = None;
        for _ in 0..STREAMS {
            if raw.as_ref().is_none_or(|raw| raw.quinn.close_reason().is_some()) {
                let mut fresh = world.connect().await;
                fresh.prove(lane_scope(lane.lane), &spending_key(PAYER_SEED)).await.unwrap();
                fresh.prove(KeyScope::Account(account(PAYER_SEED)), &key(PAYER_SEED)).await.unwrap();
                connections += 1;
                raw = Some(fresh);
            }
            let Some(open) = &mut raw else { continue };
            // The hub may end the stream or the connection at any moment: that is its right.
            let Ok((mut send, mut recv)) = open.quinn.open_bi().await else { continue };
            let mut bytes = opening.as_ref().map(encode).unwrap_or_default();
            for _ in 0..=random.below(3) {
                bytes.extend(nonsense(&mut random, &models));
            }
            if send.write_all(&bytes).await.is_ok() {
                let _ = send.finish();
                let _ = tokio::time::timeout(std::time::Duration::from_millis(5), recv.read_to_end(1 << 20)).await;
            }
        }
        world.honest_traffic_goes_on();
    }
    println!("{} streams over {connections} connections", STREAMS * openings.len() as u64);
    // Beneath QUIC.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let place = (world.hub.address.host.as_str(), world.hub.address.port);
    for _ in 0..500 {
        let length = usize::try_from(random.below(1_400)).unwrap();
        socket.send_to(&random.bytes(length), place).unwrap();
    }
    world.honest_traffic_goes_on();
    world.end();
}
