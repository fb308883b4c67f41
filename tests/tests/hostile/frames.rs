//! Frames and attaches.

use std::time::{Duration, Instant};

use serde::Serialize;
use weir_hub::clock::wall_ms;
use weir_protocol::act::{Act, CloseRequest, Revoke};
use weir_protocol::amount::{Amount, Time};
use weir_protocol::channel::LaneMode;
use weir_protocol::id::{AccountId, LaneId, Reference};
use weir_protocol::keys::Signature;
use weir_protocol::payment::{Frame, MAX_PAYMENTS, MAX_SKIP, Payment};
use weir_protocol::reject::Reject;
use weir_protocol::wire::{Attach, KeyScope, LaneReply, LaneRequest, MAX_MESSAGE, Opening, encode};
use weir_tests::harness::people::euro;
use weir_tests::harness::raw::{Draft, Spender, framed, read, reset_code};

use super::{FROZEN, PAYEE, PAYER_SEED, STRANGER, World, ZERO_REFERENCE, account, grant, key, lane_key, nanos, pay};
use super::{lane_scope, spending_key};

/// Which sequence a refusal names.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// None.
    Nothing,
    /// The frame's first.
    First,
    /// That of the payment at this place.
    At(u64),
}

/// Makes the bytes of a row for a lane as it stands.
type Make = Box<dyn Fn(&Spender) -> Vec<u8>>;

/// A frame as its bytes are laid out, without the rules of its shape.
#[derive(Serialize)]
struct Bent {
    variant: u8,
    previous_sequence: u64,
    first_sequence: u64,
    payees: Vec<AccountId>,
    entries: Vec<(u32, Amount, Reference)>,
    valid_until: Time,
    signature: Signature,
}

impl Bent {
    fn new(spender: &Spender, payees: &[AccountId], places: &[u32]) -> Self {
        Self {
            variant: 0,
            previous_sequence: spender.head.sequence,
            first_sequence: spender.head.sequence + 1,
            payees: payees.to_vec(),
            entries: places.iter().map(|place| (*place, nanos(1), ZERO_REFERENCE)).collect(),
            valid_until: Time(0),
            signature: Signature([7; 64]),
        }
    }
}

fn signed(spender: &Spender, draft: &Draft) -> Vec<u8> {
    encode(&LaneRequest::Frame(spender.frame(draft)))
}

/// One payment, changed before it is signed.
fn with(spender: &Spender, payments: &[Payment], change: impl FnOnce(&mut Draft)) -> Vec<u8> {
    let mut draft = spender.draft(payments);
    change(&mut draft);
    signed(spender, &draft)
}

/// A right frame whose bytes were changed afterwards.
fn forged(spender: &Spender, change: impl FnOnce(&mut Frame)) -> Vec<u8> {
    let mut frame = spender.frame(&spender.draft(&[pay(PAYEE, nanos(1))]));
    change(&mut frame);
    encode(&LaneRequest::Frame(frame))
}

/// Sends bytes, expects the refusal, and that it left no trace.
async fn refused(row: &str, spender: &mut Spender, message: Vec<u8>, expected: Reject, fault: Fault) {
    let first = spender.head.sequence.max(spender.void_through) + 1;
    spender.send.write_all(&message).await.unwrap();
    let fault = match fault {
        Fault::Nothing => 0,
        Fault::First => first,
        Fault::At(place) => first + place,
    };
    assert_eq!(spender.reply().await, LaneReply::Refused { reject: expected, fault }, "{row}");
    // What follows a refusal is not heard.
    let after = signed(spender, &spender.draft(&[pay(PAYEE, nanos(1))]));
    spender.send.write_all(&after).await.unwrap();
    spender.attach(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frame_that_is_wrong_in_any_way_gets_its_refusal_and_leaves_no_trace() {
    let mut world = World::new(&[]).await;
    let (mut raw, terms) = world.cast().await;
    let channel = terms.id();
    let mut grants = vec![terms.lane_zero()];
    let mut bound = grant(channel, 1, LaneMode::Shared, euro(1));
    bound.payee = Some(account(PAYEE));
    grants.push(bound);
    grants.push(grant(channel, 2, LaneMode::Reserved, euro(2)));
    grants.push(grant(channel, 3, LaneMode::Shared, euro(1)));
    let mut brief = grant(channel, 4, LaneMode::Shared, euro(1));
    brief.expires_at = Time(wall_ms() + 1_500);
    grants.push(brief);
    let mut spenders = Vec::new();
    for grant in &grants {
        let key = if grant.lane == 0 { spending_key(PAYER_SEED) } else { lane_key(grant.lane) };
        if grant.lane > 0 {
            raw.sign(Act::Grant(*grant), &spending_key(PAYER_SEED)).await.unwrap();
        }
        raw.prove(lane_scope(grant.id()), &key).await.unwrap();
        spenders.push(raw.attach(grant.id(), key).await);
    }
    let mut spenders = spenders.into_iter();
    let (mut free, mut bound, mut reserved, mut revoked, mut brief) = (
        spenders.next().unwrap(),
        spenders.next().unwrap(),
        spenders.next().unwrap(),
        spenders.next().unwrap(),
        spenders.next().unwrap(),
    );
    let taken = free.pay(&[pay(PAYEE, nanos(5)), pay(PAYEE, nanos(6))]).await;
    let elsewhere = bound.pay(&[pay(PAYEE, nanos(7))]).await;

    let one = |payment: Payment| -> Make { Box::new(move |spender| with(spender, &[payment], |_| ())) };
    let rows: Vec<(&str, Make, Reject, Fault)> = vec![
        ("zero", one(pay(PAYEE, Amount::ZERO)), Reject::Zero, Fault::First),
        (
            "zero behind a good one",
            Box::new(|spender| with(spender, &[pay(PAYEE, nanos(1)), pay(PAYEE, Amount::ZERO)], |_| ())),
            Reject::Zero,
            Fault::At(1),
        ),
        ("a payee that nobody knows", one(pay(STRANGER, nanos(1))), Reject::UnknownPayee, Fault::First),
        ("a payee that is frozen", one(pay(FROZEN, nanos(1))), Reject::Frozen, Fault::First),
        (
            "zero before an unknown payee: the order of the checks",
            one(pay(STRANGER, Amount::ZERO)),
            Reject::Zero,
            Fault::First,
        ),
        ("more than the channel has", one(pay(PAYEE, euro(10))), Reject::Capacity, Fault::First),
        (
            "more than the channel has, in the second payment",
            Box::new(|spender| with(spender, &[pay(PAYEE, euro(7)), pay(PAYEE, euro(1))], |_| ())),
            Reject::Capacity,
            Fault::At(1),
        ),
        ("a total past 64 bits", one(pay(PAYEE, Amount::MAX)), Reject::Overflow, Fault::First),
        (
            "a frame that does not follow the head",
            Box::new(|spender| with(spender, &[pay(PAYEE, nanos(1))], |draft| draft.previous_sequence += 1)),
            Reject::Conflict,
            Fault::First,
        ),
        (
            "a frame that follows the head before",
            Box::new(|spender| with(spender, &[pay(PAYEE, nanos(1))], |draft| draft.previous_sequence -= 1)),
            Reject::Conflict,
            Fault::First,
        ),
        (
            "a deadline that is past",
            Box::new(|spender| with(spender, &[pay(PAYEE, nanos(1))], |draft| draft.valid_until = Time(1))),
            Reject::Expired,
            Fault::First,
        ),
        (
            "a signature with a wrong bit",
            Box::new(|spender| forged(spender, |frame| frame.signature.0[9] ^= 4)),
            Reject::Signature,
            Fault::First,
        ),
        (
            "a signature that is no point",
            Box::new(|spender| forged(spender, |frame| frame.signature = Signature([0xff; 64]))),
            Reject::Signature,
            Fault::First,
        ),
        (
            "a signature by the account's key",
            Box::new(|spender| {
                let digest = spender.led_to(&spender.draft(&[pay(PAYEE, nanos(1))])).digest(&spender.lane);
                forged(spender, |frame| frame.signature = key(PAYER_SEED).sign(&digest))
            }),
            Reject::Signature,
            Fault::First,
        ),
        (
            "a signature over another deadline",
            Box::new(|spender| forged(spender, |frame| frame.valid_until = Time(wall_ms() + 60_000))),
            Reject::Signature,
            Fault::First,
        ),
        (
            "a signature over another lane's head",
            Box::new(|spender| {
                let digest = spender.led_to(&spender.draft(&[pay(PAYEE, nanos(1))])).digest(&LaneId([4; 32]));
                let signature = spender.key.sign(&digest);
                forged(spender, |frame| frame.signature = signature)
            }),
            Reject::Signature,
            Fault::First,
        ),
        (
            "a signature over another amount",
            Box::new(|spender| {
                let digest = spender.led_to(&spender.draft(&[pay(PAYEE, nanos(2))])).digest(&spender.lane);
                let signature = spender.key.sign(&digest);
                forged(spender, |frame| frame.signature = signature)
            }),
            Reject::Signature,
            Fault::First,
        ),
    ];
    for (row, make, expected, fault) in &rows {
        let message = make(&free);
        refused(row, &mut free, message, *expected, *fault).await;
    }
    world.honest_traffic_goes_on();

    // Duplicates and replays.
    for (row, frame) in [("a frame sent twice", taken.clone()), ("a frame of another lane", elsewhere)] {
        free.send.write_all(&encode(&LaneRequest::Frame(frame.clone()))).await.unwrap();
        let fault = frame.run.first_sequence();
        assert_eq!(free.reply().await, LaneReply::Refused { reject: Reject::Conflict, fault }, "{row}");
        free.attach(0).await;
    }
    let mut replayed = taken;
    replayed.previous_sequence = free.head.sequence;
    free.send.write_all(&encode(&LaneRequest::Frame(replayed))).await.unwrap();
    assert_eq!(free.reply().await, LaneReply::Refused { reject: Reject::Sequence, fault: 1 }, "sequences again");
    free.attach(0).await;

    // Sequences: too far, on both sides of the bound; given up.
    let far = free.head.sequence + MAX_SKIP;
    let message = with(&free, &[pay(PAYEE, nanos(1))], |draft| draft.first_sequence = far + 1);
    free.send.write_all(&message).await.unwrap();
    assert_eq!(free.reply().await, LaneReply::Refused { reject: Reject::Sequence, fault: far + 1 });
    free.attach(0).await;
    let mut draft = free.draft(&[pay(PAYEE, nanos(1))]);
    draft.first_sequence = far;
    let message = signed(&free, &draft);
    free.send.write_all(&message).await.unwrap();
    assert!(matches!(free.reply().await, LaneReply::Taken(_)), "as far as may be");
    free.head = free.led_to(&draft);
    free.attach(free.head.sequence + 9).await;
    let voided = free.head.sequence + 9;
    let message = with(&free, &[pay(PAYEE, nanos(1))], |draft| draft.first_sequence = voided);
    free.send.write_all(&message).await.unwrap();
    assert_eq!(free.reply().await, LaneReply::Refused { reject: Reject::Sequence, fault: voided }, "given up");
    free.attach(0).await;
    free.pay(&[pay(PAYEE, nanos(1))]).await;
    world.honest_traffic_goes_on();

    // Shapes and bytes.
    let payee = account(PAYEE);
    let many = vec![0; MAX_PAYMENTS + 1];
    let mut bodies: Vec<(&str, Vec<u8>)> = vec![
        ("no payment", encode(&Bent::new(&free, &[], &[]))),
        ("a payee without a payment", encode(&Bent::new(&free, &[payee, account(FROZEN)], &[0]))),
        ("a place that no payee has", encode(&Bent::new(&free, &[payee], &[1]))),
        ("payees out of order", encode(&Bent::new(&free, &[payee, account(FROZEN)], &[1, 0]))),
        ("too many payments", encode(&Bent::new(&free, &[payee], &many))),
        ("sequences past 64 bits", encode(&Bent { first_sequence: u64::MAX, ..Bent::new(&free, &[payee], &[0, 0]) })),
        ("nothing", framed(&[])),
        ("an unknown request", framed(&[9])),
        ("a varint longer than it need be", framed(&[0x80, 0x00])),
        ("a varint that does not end", framed(&[0xff; 12])),
    ];
    let good = signed(&free, &free.draft(&[pay(PAYEE, nanos(1))]));
    let body = &good[4..];
    bodies.push(("a byte behind the end", framed(&[body, &[0]].concat())));
    let cut: Vec<_> = (1..body.len()).step_by(7).map(|length| ("cut short", framed(&body[..length]))).collect();
    bodies.extend(cut);
    for (row, message) in bodies {
        refused(row, &mut free, message, Reject::Malformed, Fault::Nothing).await;
    }
    // The same frame, whole, is good: nothing else was wrong with them.
    free.pay(&[pay(PAYEE, nanos(1))]).await;

    // Limits of lanes, on both sides.
    let too_much = bound.head.total;
    let left = euro(1).checked_sub(too_much).unwrap();
    let message = with(&bound, &[pay(PAYEE, left.checked_add(nanos(1)).unwrap())], |_| ());
    refused("above the lane's limit", &mut bound, message, Reject::Limit, Fault::First).await;
    let message = with(&bound, &[pay(PAYER_SEED, nanos(1))], |_| ());
    refused("another payee than the lane's", &mut bound, message, Reject::WrongPayee, Fault::First).await;
    bound.pay(&[pay(PAYEE, left)]).await;
    let message = with(&bound, &[pay(PAYEE, nanos(1))], |_| ());
    refused("a lane that is used up", &mut bound, message, Reject::Limit, Fault::First).await;
    let message = with(&reserved, &[pay(PAYEE, euro(3))], |_| ());
    refused("above what is set aside", &mut reserved, message, Reject::Limit, Fault::First).await;
    // What is set aside is no other lane's: 10 − 2 − what the shared lanes spent is left, to the nano.
    let spent = free.head.total.checked_add(bound.head.total).unwrap();
    let left = euro(8).checked_sub(spent).unwrap();
    let message = with(&free, &[pay(PAYEE, left.checked_add(nanos(1)).unwrap())], |_| ());
    refused("what is set aside for another", &mut free, message, Reject::Capacity, Fault::First).await;
    free.pay(&[pay(PAYEE, left)]).await;
    reserved.pay(&[pay(PAYEE, euro(2))]).await;
    let message = with(&free, &[pay(PAYEE, nanos(1))], |_| ());
    refused("an empty channel", &mut free, message, Reject::Capacity, Fault::First).await;

    // Attaches.
    let attaches = [
        (LaneId([9; 32]), 0, Reject::UnknownLane),
        (bound.lane, 0, Reject::UnknownLane),
        (free.lane, free.head.sequence.max(free.void_through) + MAX_SKIP + 1, Reject::Sequence),
        (free.lane, u64::MAX, Reject::Sequence),
    ];
    for (lane, void_through, expected) in attaches {
        free.request(&LaneRequest::Attach(Attach { lane, void_through })).await;
        assert_eq!(free.reply().await, LaneReply::Refused { reject: expected, fault: 0 });
    }
    free.attach(0).await;
    let mut other = world.registered(6).await;
    for lane in [free.lane, LaneId([9; 32])] {
        let (_send, mut recv) = other.open(&Opening::Lane(Attach { lane, void_through: 0 })).await;
        let refused = LaneReply::Refused { reject: Reject::Unauthenticated, fault: 0 };
        assert_eq!(read::<LaneReply>(&mut recv).await, Some(refused), "nobody learns which lanes there are");
    }
    let proof = other.prove(KeyScope::Lane(free.lane), &key(6)).await;
    assert_eq!(proof, Err(Reject::Unauthenticated));
    world.honest_traffic_goes_on();

    // Ended lanes.
    let revoke = Revoke { number: 1, channel, lane: 3 };
    raw.sign(Act::Revoke(revoke), &spending_key(PAYER_SEED)).await.unwrap();
    let message = with(&revoked, &[pay(PAYEE, nanos(1))], |_| ());
    refused("a lane that was revoked", &mut revoked, message, Reject::Revoked, Fault::Nothing).await;
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let message = with(&brief, &[pay(PAYEE, Amount::ZERO)], |_| ());
        brief.send.write_all(&message).await.unwrap();
        let reply = brief.reply().await;
        brief.attach(0).await;
        match reply {
            LaneReply::Refused { reject: Reject::Zero, .. } if Instant::now() < end => {}
            reply => {
                assert_eq!(reply, LaneReply::Refused { reject: Reject::Expired, fault: 0 });
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // A message over its bound cannot be skipped.
    let mut message = u32::try_from(MAX_MESSAGE + 1).unwrap().to_le_bytes().to_vec();
    message.extend([0; 64]);
    reserved.send.write_all(&message).await.unwrap();
    assert_eq!(reset_code(&mut reserved.recv).await, Some(1));

    // A channel that is closed.
    let close = CloseRequest { number: 2, channel };
    raw.sign(Act::CloseRequest(close), &spending_key(PAYER_SEED)).await.unwrap();
    assert_eq!(free.reply().await, LaneReply::Refused { reject: Reject::Closed, fault: 0 }, "unasked");
    let (_send, mut recv) = raw.open(&Opening::Lane(Attach { lane: free.lane, void_through: 0 })).await;
    let Some(LaneReply::Closed(closed)) = read::<LaneReply>(&mut recv).await else { panic!("not closed") };
    assert_eq!((closed.head, closed.close.spent), (free.head, euro(10)));
    world.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payment_above_the_policys_bound_is_refused_and_bad_signatures_end_the_connection() {
    let mut world = World::new(&[("WEIR_HUB_POLICY_PAYMENT_MAX", "0.5")]).await;
    let (mut raw, terms) = world.cast().await;
    let lane = terms.lane_zero().id();
    raw.prove(lane_scope(lane), &spending_key(PAYER_SEED)).await.unwrap();
    let mut spender = raw.attach(lane, spending_key(PAYER_SEED)).await;
    spender.pay(&[pay(PAYEE, nanos(500_000_000))]).await;
    let message = with(&spender, &[pay(PAYEE, nanos(500_000_001))], |_| ());
    refused("above the bound", &mut spender, message, Reject::TooLarge, Fault::First).await;
    // A run of wrong signatures, more than any mistake explains.
    let mut refusals = 0;
    let closed = loop {
        let message = forged(&spender, |frame| frame.signature.0[3] ^= 1);
        if spender.send.write_all(&message).await.is_err() {
            break raw.quinn.closed().await;
        }
        match read::<LaneReply>(&mut spender.recv).await {
            Some(reply) => assert!(matches!(reply, LaneReply::Refused { reject: Reject::Signature, .. }), "{reply:?}"),
            None => break raw.quinn.closed().await,
        }
        refusals += 1;
        assert!(refusals < 100, "the connection lives on");
        let attach = LaneRequest::Attach(Attach { lane, void_through: 0 });
        let sent = spender.send.write_all(&encode(&attach)).await;
        // The connection may end right behind a refusal.
        let Some(LaneReply::Attached(_)) = read(&mut spender.recv).await.filter(|_| sent.is_ok()) else {
            break raw.quinn.closed().await;
        };
    };
    assert!(refusals >= 16, "{refusals}");
    let quinn::ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed:?}") };
    assert_eq!(close.error_code.into_inner(), u64::from(Reject::Signature.code()));
    world.honest_traffic_goes_on();
    world.end();
}
