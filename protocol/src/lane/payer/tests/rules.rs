//! One test for each rule of the payer's lane.

use super::*;
use crate::payment::{MAX_SKIP, next_state};
use crate::receipt::ReceiptClaim;

fn start() -> (Hub, Home) {
    let hub = Hub::new();
    let home = Home::new(&hub, small());
    (hub, home)
}

#[test]
fn order_on_an_idle_lane_is_paid_with_a_receipt_that_verifies() {
    let (mut hub, mut home) = start();
    let ticket = home.payer.submit(order(1, 5)).unwrap();
    home.run(&mut hub, 1);
    assert_eq!(home.paid(), [ticket]);
    let group = Arc::clone(&home.groups[0]);
    let receipt = group.receipt(0).unwrap();
    let claim = ReceiptClaim { hub: hub.id, currency: EUR.parse().unwrap(), payment: hub.payments().next().unwrap() };
    assert!(receipt.check(&claim, &hub.certificate).is_ok());
    assert!(group.receipt_file(0, hub.certificate).unwrap().check().is_ok());
    assert_eq!(group.receipt(1), Err(ReceiptError::Index(1)));
    let mut wrong = PaidGroup::clone(&group);
    wrong.answer.leaves = Hash([1; 32]);
    assert_eq!(
        PaidGroup::new(
            (wrong.hub, wrong.lane, wrong.currency),
            wrong.runs,
            (wrong.head, wrong.signature),
            wrong.answer
        )
        .receipt(0),
        Err(ReceiptError::Leaves)
    );
}

#[test]
fn orders_that_gather_share_a_frame_and_bounds_hold_on_both_sides() {
    let (mut hub, mut home) = start();
    home.run(&mut hub, 1);
    for reference in 0..40 {
        home.payer.submit(order(reference, 1)).unwrap();
    }
    home.drain();
    let mut frames = Vec::new();
    while let Some(LaneRequest::Frame(frame)) = home.payer.poll_send(Time(1), &lane_key()) {
        frames.push(frame.run.len());
    }
    assert_eq!(frames, [4, 4], "no sequence beyond the block that is durable");
    home.drain();
    while let Some(LaneRequest::Frame(frame)) = home.payer.poll_send(Time(1), &lane_key()) {
        frames.push(frame.run.len());
    }
    assert_eq!(frames, [4, 4, 4, 4], "no more frames and payments in flight than allowed");
    assert_eq!((home.payer.in_flight(), home.payer.queued()), (16, 24));
}

#[test]
fn reference_again_joins_on_its_way_and_is_misuse_for_another_payment() {
    let (mut hub, mut home) = start();
    let ticket = home.payer.submit(order(1, 5)).unwrap();
    assert_eq!(home.payer.submit(order(1, 5)), Ok(ticket));
    assert_eq!(home.payer.submit(order(1, 6)), Err(SubmitError::ReferenceTaken));
    assert_eq!(home.payer.submit(Order { payee: payee(8), ..order(1, 5) }), Err(SubmitError::ReferenceTaken));
    assert_eq!(home.payer.submit(order(2, 0)), Err(SubmitError::Zero));
    home.run(&mut hub, 1);
    assert_eq!(hub.payments().count(), 1);
}

#[test]
fn lane_for_one_payee_takes_no_order_for_another() {
    let hub = Hub::new();
    let spec = LaneSpec { payee: Some(payee(9)), ..hub.spec() };
    let resume = Resume { mark: 0, head: Head::empty(&hub.lane.id()) };
    let mut payer = Payer::new(spec, resume, small()).unwrap();
    assert!(payer.submit(order(1, 5)).is_ok());
    assert_eq!(payer.submit(Order { payee: payee(8), ..order(2, 5) }), Err(SubmitError::WrongPayee));
}

#[test]
fn frame_bears_the_earliest_deadline_of_everything_unanswered() {
    let (mut hub, mut home) = start();
    home.run(&mut hub, 1);
    home.payer.submit(Order { deadline: Some(Time(500)), ..order(1, 1) }).unwrap();
    home.drain();
    let Some(LaneRequest::Frame(first)) = home.payer.poll_send(Time(1), &lane_key()) else { panic!() };
    home.payer.submit(order(2, 1)).unwrap();
    let Some(LaneRequest::Frame(second)) = home.payer.poll_send(Time(1), &lane_key()) else { panic!() };
    assert_eq!((first.valid_until, second.valid_until), (Time(500), Time(500)));
    hub.bounds.now = Time(400);
    for frame in [first, second] {
        let reply = hub.handle(LaneRequest::Frame(frame)).unwrap();
        home.payer.handle_reply(reply, Time(2), &mut home.proofs).unwrap();
    }
    home.payer.submit(order(3, 1)).unwrap();
    let Some(LaneRequest::Frame(third)) = home.payer.poll_send(Time(1), &lane_key()) else { panic!() };
    assert_eq!(third.valid_until, Time(0));
}

#[test]
fn order_past_its_deadline_is_refused_unsigned_also_without_connection() {
    let (mut hub, mut home) = start();
    home.run(&mut hub, 1);
    home.payer.connection_lost();
    let ticket = home.payer.submit(Order { deadline: Some(Time(500)), ..order(1, 1) }).unwrap();
    assert_eq!(home.payer.wake_at(), Some(Time(500)));
    home.payer.expire(Time(499));
    home.drain();
    assert!(home.events.is_empty());
    home.payer.expire(Time(500));
    home.drain();
    let Some(Event::Refused { ticket: refused, reject: Reject::Expired, proof: None }) = home.events.pop_front() else {
        panic!()
    };
    assert_eq!(refused, ticket);
    assert!(!home.payer.wants_connection());
}

#[test]
fn frame_late_by_the_hubs_clock_refuses_only_what_is_past_its_deadline() {
    let (mut hub, mut home) = start();
    let late = home.payer.submit(Order { deadline: Some(Time(500)), ..order(1, 1) }).unwrap();
    let other = home.payer.submit(order(2, 1)).unwrap();
    hub.bounds.now = Time(600);
    home.run(&mut hub, 100);
    let refused = home.events.pop_front();
    assert!(
        matches!(refused, Some(Event::Refused { ticket, reject: Reject::Expired, proof: Some(_) }) if ticket == late)
    );
    assert_eq!(home.paid(), [other]);
}

#[test]
fn lane_that_can_pay_nothing_more_refuses_every_order_with_one_void() {
    let mut hub = Hub::new();
    let mut home = Home::new(&hub, Limits { frame_payments: 8, ..Limits::default() });
    home.run(&mut hub, 1);
    for reference in 0..20 {
        home.payer.submit(Order { deadline: Some(Time(5_000)), ..order(reference, 1) }).unwrap();
    }
    home.drain();
    let frames: Vec<_> = (0..3).filter_map(|_| home.payer.poll_send(Time(1), &lane_key())).collect();
    hub.bounds.expires_at = hub.bounds.now;
    for frame in frames {
        if let Some(reply) = hub.handle(frame) {
            home.payer.handle_reply(reply, Time(1), &mut home.proofs).unwrap();
        }
    }
    home.run(&mut hub, 1);
    home.run(&mut hub, 10_000);
    let signed = |event: &&Event| matches!(event, Event::Refused { reject: Reject::Expired, proof: Some(_), .. });
    assert_eq!(home.events.iter().filter(signed).count(), 20);
    assert_eq!(hub.voids, 2, "one to attach and one for all refusals");
}

#[test]
fn close_that_crosses_an_attach_is_told_by_the_attachs_answer() {
    let (mut hub, mut home) = start();
    home.payer.submit(order(1, 1)).unwrap();
    home.payer.connected();
    let attach = home.payer.poll_send(Time(1), &lane_key()).unwrap();
    hub.close();
    let unasked = LaneReply::Refused { reject: Reject::Closed, fault: 0 };
    home.payer.handle_reply(unasked.clone(), Time(1), &mut home.proofs).unwrap();
    let reply = hub.handle(attach).unwrap();
    home.payer.handle_reply(reply, Time(1), &mut home.proofs).unwrap();
    home.drain();
    assert!(home.payer.is_closed());
    assert!(matches!(home.events[0], Event::Refused { reject: Reject::Closed, proof: Some(_), .. }));

    let (mut hub, mut home) = start();
    home.run(&mut hub, 1);
    hub.close();
    home.payer.handle_reply(unasked, Time(1), &mut home.proofs).unwrap();
    home.run(&mut hub, 1);
    assert!(home.payer.is_closed(), "unasked on an open lane");
}

#[test]
fn payment_at_fault_is_refused_by_a_void_and_the_rest_is_signed_again() {
    let (mut hub, mut home) = start();
    home.run(&mut hub, 1);
    let bad = Order { payee: payee(200), ..order(2, 1) };
    let tickets: Vec<_> = [order(1, 1), bad, order(3, 1)].map(|order| home.payer.submit(order).unwrap()).to_vec();
    home.run(&mut hub, 1);
    let Some(Event::Refused { ticket, reject: Reject::UnknownPayee, proof: Some(proof) }) = home.events.pop_front()
    else {
        panic!()
    };
    assert_eq!(ticket, tickets[1]);
    let Finality::Void { void, proof } = &*proof else { panic!() };
    assert_eq!((void.sequence, void.void_through), (0, 3), "all that was used");
    assert!(proof.check(&hub.id, &hub.certificate.certificate, &Act::Void(*void)).is_ok());
    assert_eq!(home.paid(), [tickets[0], tickets[2]]);
    assert_eq!(hub.lane.head().sequence, 5, "under new sequences");
    assert!(home.payer.submit(bad).is_ok(), "after a refusal the reference is free");
}

#[test]
fn orders_beyond_the_capacity_are_refused_together() {
    let mut hub = Hub::new();
    let mut home = Home::new(&hub, Limits::default());
    hub.bounds.headroom = Amount::from_nanos(10);
    for reference in 0..500 {
        home.payer.submit(order(reference, 4)).unwrap();
    }
    home.run(&mut hub, 1);
    let refused = home.events.iter().filter(|event| matches!(event, Event::Refused { .. })).count();
    assert_eq!((refused, hub.payments().count()), (498, 2));
    assert_eq!(hub.voids, 2, "one to attach and one for all refusals");
}

#[test]
fn busy_hub_is_asked_again_later_and_nothing_is_lost() {
    let (mut hub, mut home) = start();
    hub.next_refusal = Some(Reject::Busy);
    let ticket = home.payer.submit(order(1, 1)).unwrap();
    home.run(&mut hub, 1);
    let at = home.payer.wake_at().unwrap();
    assert!(at > Time(1));
    home.run(&mut hub, at.0);
    assert_eq!(home.paid(), [ticket]);
    hub.next_refusal = Some(Reject::Stopped);
    let ticket = home.payer.submit(order(2, 1)).unwrap();
    home.run(&mut hub, 10);
    let at = home.payer.wake_at().unwrap();
    home.run(&mut hub, at.0);
    assert_eq!(home.paid(), [ticket]);
}

#[test]
fn lost_answer_is_read_from_history_and_its_caller_is_paid_once() {
    let (mut hub, mut home) = start();
    home.run(&mut hub, 1);
    let taken = home.payer.submit(order(1, 1)).unwrap();
    home.drain();
    let frame = home.payer.poll_send(Time(1), &lane_key()).unwrap();
    hub.handle(frame).unwrap();
    let lost = home.payer.submit(order(2, 1)).unwrap();
    home.payer.poll_send(Time(1), &lane_key()).unwrap();
    home.payer.connection_lost();
    home.run(&mut hub, 1);
    assert_eq!(home.paid(), [taken, lost]);
    assert_eq!(hub.payments().count(), 2);
    assert!(home.groups[0].receipt(0).is_ok());
}

#[test]
fn order_paid_before_a_crash_is_found_in_history_and_not_paid_again() {
    let (mut hub, mut home) = start();
    home.payer.submit(order(1, 1)).unwrap();
    home.payer.submit(order(2, 1)).unwrap();
    home.run(&mut hub, 1);
    home.restart(&hub, small(), 1);
    let again = home.payer.submit(order(2, 1)).unwrap();
    let other = home.payer.submit(order(1, 7)).unwrap();
    home.run(&mut hub, 1);
    assert!(matches!(home.events.pop_front(), Some(Event::ReferenceTaken { ticket }) if ticket == other));
    let Some(Event::Paid { tickets, .. }) = home.events.pop_front() else { panic!() };
    assert_eq!(tickets, [None, Some(again)]);
    assert_eq!(hub.payments().count(), 2);
    assert!(home.groups[0].receipt(1).is_ok());
}

#[test]
fn crash_voids_through_the_blocks_end_and_goes_on_above_it() {
    let (mut hub, mut home) = start();
    home.payer.submit(order(1, 1)).unwrap();
    home.run(&mut hub, 1);
    home.restart(&hub, small(), 0);
    home.payer.submit(order(2, 1)).unwrap();
    home.run(&mut hub, 1);
    assert_eq!(hub.lane.void_through(), 8);
    assert_eq!(hub.lane.head().sequence, 9);
}

#[test]
fn pruned_history_leaves_callers_unknown_and_never_pays_them_again() {
    let (mut hub, mut home) = start();
    home.run(&mut hub, 1);
    let ticket = home.payer.submit(order(1, 1)).unwrap();
    home.drain();
    let frame = home.payer.poll_send(Time(1), &lane_key()).unwrap();
    hub.handle(frame).unwrap();
    home.payer.connection_lost();
    hub.pruned = true;
    home.run(&mut hub, 1);
    assert!(matches!(home.events.pop_front(), Some(Event::Unknown { ticket: unknown }) if unknown == ticket));
    assert_eq!(home.payer.submit(order(1, 1)), Ok(ticket));
    let new = home.payer.submit(order(2, 1)).unwrap();
    home.run(&mut hub, 1);
    assert!(matches!(home.events.pop_front(), Some(Event::Unknown { ticket: unknown }) if unknown == ticket));
    assert_eq!(home.paid(), [new]);
    assert_eq!(hub.payments().count(), 2);
}

#[test]
fn detached_lane_stops_tells_unknown_and_goes_on_only_when_asked() {
    let (mut hub, mut home) = start();
    home.run(&mut hub, 1);
    let signed = home.payer.submit(order(1, 1)).unwrap();
    home.drain();
    let frame = home.payer.poll_send(Time(1), &lane_key()).unwrap();
    hub.handle(frame).unwrap();
    let waiting = home.payer.submit(order(2, 1)).unwrap();
    let detached = LaneReply::Refused { reject: Reject::Detached, fault: 0 };
    home.payer.handle_reply(detached, Time(1), &mut home.proofs).unwrap();
    home.drain();
    assert!(matches!(home.stop(), Stop::Detached));
    assert!(matches!(home.events[1], Event::Unknown { ticket } if ticket == signed));
    assert!(matches!(home.events[2], Event::Unsent { ticket } if ticket == waiting));
    assert_eq!(home.payer.submit(order(3, 1)), Err(SubmitError::Stopped));
    home.payer.connected();
    assert_eq!(home.payer.poll_send(Time(1), &lane_key()), None);
    home.events.clear();
    assert!(home.payer.recover());
    home.run(&mut hub, 1);
    assert_eq!(home.paid(), [signed]);
}

#[test]
fn order_told_unknown_is_not_signed_again_unless_somebody_asks_again() {
    for asked in [false, true] {
        let (mut hub, mut home) = start();
        home.run(&mut hub, 1);
        home.payer.submit(order(1, 1)).unwrap();
        home.drain();
        home.payer.poll_send(Time(1), &lane_key()).unwrap();
        let detached = LaneReply::Refused { reject: Reject::Detached, fault: 0 };
        home.payer.handle_reply(detached, Time(1), &mut home.proofs).unwrap();
        home.drain();
        assert!(home.payer.recover());
        if asked {
            home.payer.submit(order(1, 1)).unwrap();
        }
        home.run(&mut hub, 1);
        assert_eq!(hub.payments().count(), usize::from(asked));
    }
}

#[test]
fn head_of_a_newer_copy_stops_the_lane_and_recovery_voids_through_the_bound() {
    let (mut hub, mut home) = start();
    home.payer.submit(order(1, 1)).unwrap();
    home.run(&mut hub, 1);
    let mark = home.mark;
    home.restart(&hub, small(), 0);
    home.payer.submit(order(2, 1)).unwrap();
    home.run(&mut hub, 1);
    // The home is put back to the copy with the older mark.
    home.mark = mark;
    home.restart(&hub, small(), 1);
    let waiting = home.payer.submit(order(3, 1)).unwrap();
    home.run(&mut hub, 1);
    let Stop::NewerCopy { head, bound } = home.stop() else { panic!() };
    assert_eq!((head.sequence, bound), (9, 9 + MAX_SKIP));
    assert!(home.events.iter().any(|event| matches!(event, Event::Unknown { ticket } if *ticket == waiting)));
    home.events.clear();
    assert!(home.payer.recover());
    home.drain();
    assert_eq!(home.mark, bound, "durable before it is given up");
    let again = home.payer.submit(order(2, 1)).unwrap();
    home.run(&mut hub, 1);
    assert_eq!(home.paid(), [again], "what the newer copy paid is not paid again");
    home.payer.submit(order(3, 1)).unwrap();
    home.run(&mut hub, 1);
    assert_eq!(hub.lane.head().sequence, bound + 1);
    assert_eq!(hub.payments().count(), 3);
}

#[test]
fn void_beyond_what_was_asked_stops_the_lane() {
    let (mut hub, mut home) = start();
    let void = hub.lane.void(100).unwrap();
    hub.lane.apply_void(&void).unwrap();
    home.run(&mut hub, 1);
    assert!(matches!(home.stop(), Stop::NewerCopy { bound, .. } if bound == 100 + MAX_SKIP));
}

#[test]
fn closed_channel_pays_what_it_took_and_refuses_the_rest_for_good() {
    let (mut hub, mut home) = start();
    home.run(&mut hub, 1);
    let taken = home.payer.submit(order(1, 1)).unwrap();
    home.drain();
    let frame = home.payer.poll_send(Time(1), &lane_key()).unwrap();
    hub.handle(frame).unwrap();
    let signed = home.payer.submit(order(2, 1)).unwrap();
    home.payer.poll_send(Time(1), &lane_key()).unwrap();
    let waiting = home.payer.submit(order(3, 1)).unwrap();
    hub.close();
    home.payer.connection_lost();
    home.run(&mut hub, 1);
    let mut seen = Vec::new();
    for event in home.events.drain(..) {
        match event {
            Event::Refused { ticket, reject: Reject::Closed, proof: Some(_) } => seen.push((ticket, "refused")),
            Event::Paid { tickets, .. } => seen.push((tickets[0].unwrap(), "paid")),
            Event::ClosedLane(_) => seen.push((Ticket(99), "closed")),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, [(signed, "refused"), (taken, "paid"), (waiting, "refused"), (Ticket(99), "closed")]);
    assert!(home.payer.is_closed());
    home.payer.submit(order(4, 1)).unwrap();
    assert!(matches!(home.payer.poll_event(), Some(Event::Refused { reject: Reject::Closed, .. })));
}

#[test]
fn closed_channel_met_after_a_crash_still_finds_what_was_paid() {
    let (mut hub, mut home) = start();
    home.payer.submit(order(1, 1)).unwrap();
    home.run(&mut hub, 1);
    hub.close();
    home.restart(&hub, small(), 1);
    let again = home.payer.submit(order(1, 1)).unwrap();
    let new = home.payer.submit(order(2, 1)).unwrap();
    home.run(&mut hub, 1);
    assert!(matches!(&home.events[0], Event::Paid { tickets, .. } if *tickets == [Some(again)]));
    assert!(matches!(&home.events[1], Event::Refused { ticket, reject: Reject::Closed, .. } if *ticket == new));
}

#[test]
fn attach_that_is_refused_stops_the_lane_and_a_key_not_proven_does_not() {
    let (mut hub, mut home) = start();
    hub.next_refusal = Some(Reject::UnknownLane);
    let ticket = home.payer.submit(order(1, 1)).unwrap();
    home.run(&mut hub, 1);
    assert!(matches!(home.stop(), Stop::Attach(Reject::UnknownLane)));
    assert!(matches!(home.events[1], Event::Unknown { ticket: unknown } if unknown == ticket));
    let (hub, mut home) = start();
    home.payer.connected();
    home.payer.poll_send(Time(1), &lane_key()).unwrap();
    let refused = LaneReply::Refused { reject: Reject::Unauthenticated, fault: 0 };
    let result = home.payer.handle_reply(refused, Time(1), &mut hub.proofs());
    assert_eq!(result, Err(ProtocolError::NotProven));
    let result = home.payer.handle_history(Ok(None), Time(1), &mut hub.proofs());
    assert_eq!(result, Ok(()), "a page that nobody asked for is ignored");
}

#[test]
fn payments_to_different_payees_are_never_in_flight_together_when_unlinkable() {
    let mut hub = Hub::new();
    let mut home = Home::new(&hub, Limits { unlinkable: true, ..Limits::default() });
    for reference in 0..6 {
        let other = if (2..=3).contains(&reference) { 8 } else { 9 };
        home.payer.submit(Order { payee: payee(other), ..order(reference, 1) }).unwrap();
    }
    home.run(&mut hub, 1);
    let sizes: Vec<_> = hub.history.iter().map(|group| group.payments.len()).collect();
    assert_eq!(sizes, [2, 2, 2]);
}

/// Runs up to the reply to one frame, changes it, and gives the contradiction that stops the lane.
fn tampered(change: impl FnOnce(&mut Hub, &mut LaneReply)) -> Contradiction {
    let (mut hub, mut home) = start();
    home.payer.submit(order(1, 1)).unwrap();
    home.run(&mut hub, 1);
    home.payer.submit(order(2, 1)).unwrap();
    home.drain();
    let request = home.payer.poll_send(Time(1), &lane_key()).unwrap();
    let mut reply = hub.handle(request).unwrap();
    change(&mut hub, &mut reply);
    home.payer.handle_reply(reply, Time(1), &mut home.proofs).unwrap();
    home.drain();
    let Stop::Evidence(evidence) = home.stop() else { panic!("{:?}", home.stop()) };
    assert!(!home.payer.recover(), "no retry heals evidence");
    assert_eq!(evidence.held.signed.len(), 1);
    evidence.contradiction
}

#[test]
fn answer_that_does_not_fit_is_evidence() {
    let answer = |change: fn(&mut Answer)| {
        tampered(|_, reply| {
            let LaneReply::Taken(answer) = reply else { panic!() };
            change(answer);
        })
    };
    assert_eq!(answer(|answer| answer.first_sequence += 1), Contradiction::Answer);
    assert_eq!(answer(|answer| answer.through_sequence += 1), Contradiction::Answer);
    assert_eq!(answer(|answer| answer.count += 1), Contradiction::Answer);
    assert_eq!(answer(|answer| answer.leaves = Hash::ZERO), Contradiction::Path);
    assert_eq!(answer(|answer| answer.path.index = 0), Contradiction::Path);
    assert!(matches!(answer(|answer| answer.commit.commit.number += 1), Contradiction::Commit(_)));
    assert!(matches!(answer(|answer| answer.commit.signature.0[3] ^= 1), Contradiction::Commit(_)));
}

#[test]
fn two_contents_of_one_commit_are_evidence() {
    let contradiction = tampered(|hub, reply| {
        let LaneReply::Taken(answer) = reply else { panic!() };
        answer.commit.commit.number -= 1;
        answer.commit.signature = hub.signing.sign(&answer.commit.commit.id());
    });
    assert!(matches!(contradiction, Contradiction::Commit(CommitFault::Two { .. })));
}

/// A lane with one answered payment reconnects; the hub's answer to the attach is changed and proven.
fn tampered_attach(change: impl FnOnce(&mut Hub, &mut Attached)) -> Stop {
    let (mut hub, mut home) = start();
    home.payer.submit(order(1, 1)).unwrap();
    home.run(&mut hub, 1);
    home.payer.connection_lost();
    home.payer.connected();
    let request = home.payer.poll_send(Time(1), &lane_key()).unwrap();
    let Some(LaneReply::Attached(mut attached)) = hub.handle(request) else { panic!() };
    change(&mut hub, &mut attached);
    attached.proof = hub.prove(&Act::Void(attached.void));
    home.payer.handle_reply(LaneReply::Attached(attached), Time(1), &mut home.proofs).unwrap();
    home.drain();
    home.stop()
}

fn set_head(hub: &Hub, attached: &mut Attached, head: Head, key: &SecretKey) {
    let digest = head.digest(&hub.lane.id());
    attached.head = head;
    attached.signature = Some(key.sign(&digest));
    attached.void.head = digest;
    attached.void.sequence = head.sequence;
    attached.void.total = head.total;
}

#[test]
fn attach_that_contradicts_what_is_held_is_evidence() {
    let contradiction = |stop| match stop {
        Stop::Evidence(evidence) => evidence.contradiction,
        other => panic!("{other:?}"),
    };
    let empty = tampered_attach(|hub, attached| {
        let empty = Head::empty(&hub.lane.id());
        set_head(hub, attached, empty, &lane_key());
        attached.signature = None;
    });
    assert_eq!(contradiction(empty), Contradiction::Behind);
    let unsigned = tampered_attach(|_, attached| attached.signature.as_mut().unwrap().0[1] ^= 1);
    assert_eq!(contradiction(unsigned), Contradiction::HeadSignature);
    let less = tampered_attach(|_, attached| attached.void.void_through -= 1);
    assert_eq!(contradiction(less), Contradiction::Void);
    let another = tampered_attach(|_, attached| attached.void.total = Amount::MAX);
    assert_eq!(contradiction(another), Contradiction::Void);
}

#[test]
fn head_signed_by_the_lane_key_that_this_process_never_made_is_a_newer_copy() {
    let stop = tampered_attach(|hub, attached| {
        let head =
            Head { sequence: 50, state: next_state(&Hash::ZERO, 50, &hub.payments().next().unwrap()), ..attached.head };
        set_head(hub, attached, head, &lane_key());
        attached.void.void_through = 50;
    });
    assert!(matches!(stop, Stop::NewerCopy { .. }), "{stop:?}");
}

#[test]
fn head_inside_a_voided_range_is_evidence() {
    let (mut hub, mut home) = start();
    home.mark = 8;
    home.restart(&hub, small(), 0);
    home.run(&mut hub, 1);
    home.payer.connection_lost();
    home.payer.connected();
    let request = home.payer.poll_send(Time(1), &lane_key()).unwrap();
    let Some(LaneReply::Attached(mut attached)) = hub.handle(request) else { panic!() };
    let payment = Payment { payee: payee(9), amount: Amount::from_nanos(1), reference: Reference([0; 32]) };
    let head = Head {
        state: next_state(&Hash(hub.lane.id().0), 5, &payment),
        sequence: 5,
        total: Amount::from_nanos(1),
        valid_until: Time(0),
    };
    set_head(&hub, &mut attached, head, &lane_key());
    attached.proof = hub.prove(&Act::Void(attached.void));
    home.payer.handle_reply(LaneReply::Attached(attached), Time(1), &mut home.proofs).unwrap();
    home.drain();
    let Stop::Evidence(evidence) = home.stop() else { panic!() };
    assert_eq!(evidence.contradiction, Contradiction::Voided);
}

#[test]
fn history_that_does_not_lead_to_the_head_is_evidence() {
    type Change = fn(&mut HistoryGroup);
    let changes: [(Change, Contradiction); 5] = [
        (|group| group.payments[0].1.amount = Amount::from_nanos(2), Contradiction::History),
        (|group| group.payments[0].1.payee = payee(8), Contradiction::History),
        (|group| group.answer.count = 2, Contradiction::History),
        (|group| group.signature.0[0] ^= 1, Contradiction::HeadSignature),
        (|group| group.answer.leaves = Hash::ZERO, Contradiction::Path),
    ];
    for (change, expected) in changes {
        let (mut hub, mut home) = start();
        home.payer.submit(order(1, 1)).unwrap();
        home.run(&mut hub, 1);
        home.restart(&hub, small(), 1);
        change(&mut hub.history[0]);
        home.run(&mut hub, 1);
        let Stop::Evidence(evidence) = home.stop() else { panic!() };
        assert_eq!(evidence.contradiction, expected);
    }
    let (mut hub, mut home) = start();
    home.payer.submit(order(1, 1)).unwrap();
    home.run(&mut hub, 1);
    home.restart(&hub, small(), 1);
    hub.history.clear();
    home.run(&mut hub, 1);
    assert!(matches!(home.stop(), Stop::Evidence(evidence) if evidence.contradiction == Contradiction::History));
}

#[test]
fn message_of_a_frame_equals_the_encoded_request() {
    let make = || {
        let (mut hub, mut home) = start();
        home.run(&mut hub, 1);
        for reference in 0..3 {
            home.payer.submit(Order { deadline: Some(Time(5_000)), ..order(reference, 300) }).unwrap();
        }
        home.drain();
        home
    };
    let request = make().payer.poll_send(Time(1), &lane_key()).unwrap();
    assert!(matches!(&request, LaneRequest::Frame(frame) if frame.run.len() == 3));
    assert_eq!(make().payer.poll_message(Time(1), &lane_key()).unwrap(), crate::wire::encode(&request));
    let mut home = make();
    home.payer.connection_lost();
    home.payer.connected();
    let attach = home.payer.poll_message(Time(1), &lane_key()).unwrap();
    assert!(matches!(crate::wire::decode(&attach[4..]), Ok(LaneRequest::Attach(_))));
    assert_eq!(home.payer.poll_attach(Time(1)), None, "asked once");
}
