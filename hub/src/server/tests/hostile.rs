//! What is refused, and that it harms nobody else.

use std::time::Duration;

use weir_protocol::act::{Act, Settled};
use weir_protocol::id::LaneId;
use weir_protocol::reject::Reject;
use weir_protocol::wire::{
    Attach, CreditMessage, Cursor, KeyScope, LaneReply, LaneRequest, MAX_REQUEST, Opening, Reply, Request, Subscribe,
    encode,
};

use super::client::{Client, Hub, account, channel_key, key, read, register, reset_code, units};
use super::flows::payer;
use crate::server::limits::{Limits, Rate, RateLimits};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proof_with_another_key_scope_or_connection_is_refused() {
    let hub = Hub::start();
    let (mut client, payer, grant) = payer(&hub, 1).await;
    let lane = KeyScope::Lane(payer.lane);
    assert_eq!(client.prove(lane, &key(1)).await, Err(Reject::Unauthenticated));
    assert_eq!(client.prove(KeyScope::Lane(LaneId::ZERO), &channel_key(1)).await, Err(Reject::Unauthenticated));
    assert_eq!(client.prove(KeyScope::Account(account(2)), &key(1)).await, Err(Reject::Unauthenticated));
    let mut other = Client::connect(&hub).await;
    other.nonce = client.nonce;
    assert_eq!(other.prove(lane, &channel_key(1)).await, Err(Reject::Unauthenticated));
    other.nonce = other.welcome.unwrap().nonce;
    other.prove(lane, &channel_key(1)).await.unwrap();
    // A lane's key shows its channel, not its account or the other lanes.
    assert!(matches!(other.ask(Request::Channel(grant.channel)).await, Ok(Reply::Channel(_))));
    let lanes = other.ask(Request::Lanes { channel: grant.channel, from: 0 }).await;
    assert_eq!(lanes, Err(Reject::Unauthenticated));
    assert_eq!(other.ask(Request::Account(account(1))).await, Err(Reject::Unauthenticated));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attach_without_the_lane_key_is_refused_and_the_stream_lives() {
    let hub = Hub::with(Limits { proof_wait: Duration::from_millis(50), ..Limits::default() });
    let (_payer, payer, _) = payer(&hub, 1).await;
    let mut other = Client::registered(&hub, 2).await;
    let attach = Attach { lane: payer.lane, void_through: 0 };
    let (mut send, mut recv) = other.open(&Opening::Lane(attach)).await;
    let refused = LaneReply::Refused { reject: Reject::Unauthenticated, fault: 0 };
    assert_eq!(read::<LaneReply>(&mut recv).await, Some(refused));
    other.prove(KeyScope::Lane(payer.lane), &channel_key(1)).await.unwrap();
    send.write_all(&encode(&LaneRequest::Attach(attach))).await.unwrap();
    assert!(matches!(read::<LaneReply>(&mut recv).await, Some(LaneReply::Attached(_))));
    let (_send, mut credits) =
        other.open(&Opening::Credit(Subscribe { account: account(1), after: Cursor::default() })).await;
    let refused = CreditMessage::Refused(Reject::Unauthenticated);
    assert_eq!(read::<CreditMessage>(&mut credits).await, Some(refused));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lane_attached_elsewhere_ends_the_older_stream_and_what_it_sends_is_dropped() {
    let hub = Hub::start();
    let (client, mut old, _) = payer(&hub, 1).await;
    let mut new = client.attach(old.lane, channel_key(1)).await;
    assert_eq!(old.reply().await, LaneReply::Refused { reject: Reject::Detached, fault: 0 });
    assert_eq!(read::<LaneReply>(&mut old.recv).await, None);
    new.pay(&[(account(1), units(1))]).await;
    assert!(matches!(new.reply().await, LaneReply::Taken(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frame_sent_twice_or_malformed_is_a_hint_until_an_attach() {
    let hub = Hub::start();
    let (_client, mut payer, _) = payer(&hub, 1).await;
    let frame = payer.frame(&[(account(1), units(1))]);
    payer.send(&LaneRequest::Frame(frame.clone())).await;
    assert!(matches!(payer.reply().await, LaneReply::Taken(_)));
    payer.send(&LaneRequest::Frame(frame)).await;
    assert!(matches!(payer.reply().await, LaneReply::Refused { reject: Reject::Conflict, .. }));
    let attach = LaneRequest::Attach(Attach { lane: payer.lane, void_through: 5 });
    payer.send(&attach).await;
    let LaneReply::Attached(attached) = payer.reply().await else { panic!() };
    assert_eq!((attached.head, attached.void.void_through), (payer.head, 5));

    payer.send.write_all(&[3, 0, 0, 0, 9, 9, 9]).await.unwrap();
    assert_eq!(payer.reply().await, LaneReply::Refused { reject: Reject::Malformed, fault: 0 });
    payer.send(&LaneRequest::Attach(Attach { lane: LaneId::ZERO, void_through: 5 })).await;
    assert_eq!(payer.reply().await, LaneReply::Refused { reject: Reject::UnknownLane, fault: 0 });
    payer.send(&attach).await;
    assert!(matches!(payer.reply().await, LaneReply::Attached(_)));

    payer.send.write_all(&[0xff; 8]).await.unwrap();
    assert_eq!(reset_code(&mut payer.recv).await, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_control_stream_is_refused_as_far_as_it_can_be_read() {
    let hub = Hub::start();
    let mut client = Client::registered(&hub, 1).await;
    client.raw(&[7, 0x63]).await;
    let reply = client.reply().await;
    assert_eq!((reply.id, reply.reply), (7, Err(Reject::Unsupported)));
    client.raw(&[8, 2, 0]).await;
    let reply = client.reply().await;
    assert_eq!((reply.id, reply.reply), (8, Err(Reject::Malformed)));
    let own = Act::Settled(Settled { window: 1 }).sign(&hub.id, &key(1));
    assert_eq!(client.act(own).await, Err(Reject::Unsupported));
    let mut forged = register(&hub, 1, 2);
    forged.signature.0[0] ^= 1;
    assert_eq!(client.act(forged).await, Err(Reject::Unauthenticated));
    assert!(client.ask(Request::Hub).await.is_ok());

    let too_long = u32::try_from(MAX_REQUEST + 1).unwrap().to_le_bytes();
    let (send, recv) = client.control.as_mut().unwrap();
    send.write_all(&too_long).await.unwrap();
    assert_eq!(reset_code(recv).await, Some(1));
    // Its other streams live.
    let subscribe = Subscribe { account: account(1), after: Cursor::default() };
    let (_send, mut credits) = client.open(&Opening::Credit(subscribe)).await;
    assert!(matches!(read::<CreditMessage>(&mut credits).await, Some(CreditMessage::Through(_))));
    let (mut send, mut recv) = client.quinn.open_bi().await.unwrap();
    send.write_all(&[1, 0, 0, 0, 0x77]).await.unwrap();
    assert_eq!(reset_code(&mut recv).await, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_that_proves_nothing_in_time_ends() {
    let limits = Limits { proof_timeout: Duration::from_millis(100), ..Limits::default() };
    let hub = Hub::with(limits);
    let silent = Client::silent(&hub).await;
    let idle = Client::connect(&hub).await;
    let proven = Client::registered(&hub, 1).await;
    for client in [silent, idle] {
        let quinn::ConnectionError::ApplicationClosed(close) = client.quinn.closed().await else { panic!() };
        assert_eq!(close.error_code.into_inner(), u64::from(Reject::Unauthenticated.code()));
    }
    assert_eq!(proven.quinn.close_reason(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registrations_above_the_rate_are_busy() {
    let rates = RateLimits { registrations: Rate { per_second: 1, burst: 2 }, ..RateLimits::default() };
    let hub = Hub::with(Limits { rates, ..Limits::default() });
    let mut client = Client::connect(&hub).await;
    for seed in [1, 2] {
        client.act(register(&hub, seed, 1)).await.unwrap();
    }
    assert_eq!(client.act(register(&hub, 3, 1)).await, Err(Reject::Busy));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_that_reads_no_answers_stops_being_read_and_stalls_nobody() {
    let hub = Hub::with(Limits { frames: 2, ..Limits::default() });
    let (_client, mut payer, _) = payer(&hub, 1).await;
    let (_other, mut free, _) = super::flows::payer(&hub, 2).await;
    for _ in 0..50 {
        payer.pay(&[(account(1), units(1).checked_sub(units(1)).unwrap())]).await;
    }
    free.pay(&[(account(1), units(1))]).await;
    assert!(matches!(free.reply().await, LaneReply::Taken(_)));
    assert_eq!(payer.reply().await, LaneReply::Refused { reject: Reject::Zero, fault: 1 });
}
