//! What honest clients do.

use weir_protocol::act::{Act, CloseRequest, Refund};
use weir_protocol::channel::LaneGrant;
use weir_protocol::id::LaneId;
use weir_protocol::merkle::history_includes;
use weir_protocol::payment::payment_id;
use weir_protocol::reject::Reject;
use weir_protocol::wire::{Attach, KeyScope, LaneReply, Opening, Reply, Request};
use weir_protocol::wire::{CreditMessage, Cursor, LaneRequest, StatementItem, Subscribe};

use super::client::{Client, Hub, Payer, account, channel_key, eur, key, read, register, terms, units};

/// A payer with an open channel of ten euros, attached to lane 0.
pub(super) async fn payer(hub: &Hub, seed: u8) -> (Client, Payer, LaneGrant) {
    let mut client = Client::registered(hub, seed).await;
    hub.deposit(account(seed), units(100)).await;
    let terms = terms(hub, seed, units(10));
    let done = client.act(Act::Open(terms).sign(&hub.id, &key(seed))).await.unwrap();
    assert_eq!(done.act, Act::Open(terms));
    let grant = terms.lane_zero();
    client.prove(KeyScope::Lane(grant.id()), &channel_key(seed)).await.unwrap();
    let payer = client.attach(grant.id(), channel_key(seed)).await;
    (client, payer, grant)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attach_that_overtakes_the_proof_of_its_key_waits_for_it() {
    let hub = Hub::start();
    let (client, payer, grant) = payer(&hub, 1).await;
    drop((client, payer));
    let mut client = Client::connect(&hub).await;
    let attach = Attach { lane: grant.id(), void_through: 0 };
    let (_send, mut recv) = client.open(&Opening::Lane(attach)).await;
    // It arrives before the proof: the reply to a request that was sent behind it is here.
    assert!(client.ask(Request::Hub).await.is_ok());
    client.prove(KeyScope::Lane(grant.id()), &channel_key(1)).await.unwrap();
    assert!(matches!(read::<LaneReply>(&mut recv).await, Some(LaneReply::Attached(_))));
}

fn taken(reply: LaneReply) -> weir_protocol::commit::Answer {
    match reply {
        LaneReply::Taken(answer) => *answer,
        other => panic!("not taken: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payment_is_answered_with_a_proof_and_shows_in_every_read() {
    let hub = Hub::start();
    let mut payee = Client::registered(&hub, 2).await;
    let (mut client, mut payer, grant) = payer(&hub, 1).await;
    payer.pay(&[(account(2), units(1)), (account(2), units(2))]).await;
    let answer = taken(payer.reply().await);
    let certificate = client.welcome.unwrap().certificate.certificate;
    answer.commit.check(&hub.id, &certificate).unwrap();
    answer.includes(&payer.head.digest(&payer.lane)).unwrap();
    assert_eq!((answer.first_sequence, answer.through_sequence, answer.count), (1, 2, 2));

    let Reply::Account(info) = payee.ask(Request::Account(account(2))).await.unwrap() else { panic!() };
    assert_eq!(info.balances.first().unwrap().earned, units(3));
    let Reply::Channels(channels) = client.ask(Request::Channels { account: account(1), after: None }).await.unwrap()
    else {
        panic!()
    };
    assert_eq!(channels.first().unwrap().spent, units(3));
    let Reply::Lanes(lanes) = client.ask(Request::Lanes { channel: grant.channel, from: 0 }).await.unwrap() else {
        panic!()
    };
    assert_eq!(lanes.first().unwrap().head, payer.head);
    let Reply::History(Some(page)) = client.ask(Request::History { lane: payer.lane, since: 0 }).await.unwrap() else {
        panic!()
    };
    assert_eq!((page.head, page.answer, page.payments.len()), (payer.head, answer.clone(), 2));
    assert_eq!(client.ask(Request::History { lane: payer.lane, since: 2 }).await, Ok(Reply::History(None)));

    let Reply::Statement { entries, .. } =
        payee.ask(Request::Statement { account: account(2), after: Cursor::default(), skip: 0 }).await.unwrap()
    else {
        panic!()
    };
    let earned = entries.iter().filter(|entry| matches!(entry.what, StatementItem::Earned { .. })).count();
    assert_eq!(earned, 2);
    let Reply::Statement { entries, through, skip: 0 } =
        client.ask(Request::Statement { account: account(1), after: Cursor::default(), skip: 0 }).await.unwrap()
    else {
        panic!()
    };
    assert!(entries.iter().any(|entry| matches!(entry.what, StatementItem::Paid { count: 2, .. })));
    let again = client.ask(Request::Statement { account: account(1), after: through, skip: 0 }).await.unwrap();
    assert_eq!(again, Reply::Statement { entries: Vec::new(), through, skip: 0 });

    let Reply::Commit(info) = payee.ask(Request::Commit { number: 1 }).await.unwrap() else { panic!() };
    let (leaf, count) = (info.commit.commit.id(), info.newest.commit.number - 1);
    assert!(history_includes(0, count, &leaf, &info.path, &info.newest.commit.history));
    let Reply::DepositInstructions(instructions) =
        payee.ask(Request::DepositInstructions { account: account(2), currency: eur() }).await.unwrap()
    else {
        panic!()
    };
    assert!(instructions.reference.starts_with("RF"));
    let Reply::Hub(info) = payee.ask(Request::Hub).await.unwrap() else { panic!() };
    assert!(info.newest.number >= answer.commit.commit.number);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_connections_pay_one_payee_whose_credits_come_from_journal_and_live() {
    let hub = Hub::start();
    let payee = Client::registered(&hub, 3).await;
    let (_first, mut one, _) = payer(&hub, 1).await;
    let (_second, mut two, _) = payer(&hub, 2).await;
    one.pay(&[(account(3), units(1))]).await;
    taken(one.reply().await);

    let subscribe = Subscribe { account: account(3), after: Cursor::default() };
    let (_send, mut credits) = payee.open(&Opening::Credit(subscribe)).await;
    let first = credit(&mut credits, &hub, &payee).await;
    assert_eq!(first, (1, units(1)));
    for (payer, amount) in [(&mut one, 2), (&mut two, 3)] {
        payer.pay(&[(account(1), units(1)), (account(3), units(amount))]).await;
        taken(payer.reply().await);
        assert_eq!(credit(&mut credits, &hub, &payee).await, (1, units(amount)));
    }

    // From the last cursor on there is nothing; from a place that is not there, a refusal.
    let newest = Cursor { number: hub.handle.ids().count(), chain: payee.welcome.unwrap().newest.chain };
    for (after, refused) in [
        (newest, None),
        (Cursor { number: newest.number + 1, ..newest }, Some(Reject::Conflict)),
        (Cursor { chain: newest.chain + 1, ..newest }, Some(Reject::Conflict)),
    ] {
        let (_send, mut stream) = payee.open(&Opening::Credit(Subscribe { account: account(3), after })).await;
        let said: CreditMessage = read(&mut stream).await.unwrap();
        match refused {
            None => assert_eq!(said, CreditMessage::Through(newest)),
            Some(reject) => assert_eq!(said, CreditMessage::Refused(reject)),
        }
    }
}

/// The next credits of one commit: how many groups, and their sum.
async fn credit(stream: &mut quinn::RecvStream, hub: &Hub, payee: &Client) -> (usize, weir_protocol::amount::Amount) {
    let mut commit = None;
    let mut groups = 0;
    let mut sum = weir_protocol::amount::Amount::ZERO;
    loop {
        match read(stream).await.unwrap() {
            CreditMessage::Commit { commit: signed, certificate } => {
                certificate.check(&hub.id).unwrap();
                signed.check(&hub.id, &certificate.certificate).unwrap();
                commit = Some(signed);
            }
            CreditMessage::Group(group) => {
                group.check(&account(3), commit.as_ref().unwrap()).unwrap();
                groups += 1;
                for credit in &group.credits {
                    sum = sum.checked_add(credit.amount).unwrap();
                }
            }
            CreditMessage::Through(_) if groups > 0 => return (groups, sum),
            CreditMessage::Through(_) => {}
            CreditMessage::Refused(reject) => panic!("{reject} for {:?}", payee.hub),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn act_sent_again_gets_the_same_answer_also_after_a_restart() {
    let hub = Hub::start();
    let (mut client, mut payer, grant) = payer(&hub, 1).await;
    payer.pay(&[(account(1), units(1))]).await;
    taken(payer.reply().await);
    let registered = client.act(register(&hub, 1, 1)).await.unwrap();
    assert_eq!(registered.act, register(&hub, 1, 1).act);
    let request = Act::CloseRequest(CloseRequest { number: 2, channel: grant.channel }).sign(&hub.id, &key(1));
    let closed = client.act(request.clone()).await.unwrap();
    let Act::Close(close) = &closed.act else { panic!("{closed:?}") };
    assert_eq!((close.spent, close.returned), (units(1), units(9)));
    assert_eq!(client.act(request.clone()).await.unwrap(), closed);
    assert_eq!(client.act(register(&hub, 1, 1)).await, Err(Reject::Stale));

    // The stream was told; an attach gets the close, and its proof.
    assert_eq!(payer.reply().await, LaneReply::Refused { reject: Reject::Closed, fault: 0 });
    payer.send(&LaneRequest::Attach(Attach { lane: payer.lane, void_through: 9 })).await;
    let LaneReply::Closed(lane) = payer.reply().await else { panic!() };
    assert_eq!((lane.close, &lane.proof, lane.head), (*close, &closed.proof, payer.head));

    let hub = hub.restart().await;
    let mut client = Client::connect(&hub).await;
    assert!(client.welcome.unwrap().newest.number > closed.proof.commit.commit.number);
    let again = client.act(request).await.unwrap();
    assert_eq!(again, closed);
    again.proof.check(&hub.id, &client.welcome.unwrap().certificate.certificate, &again.act).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refund_of_a_payment_is_found_by_its_place_and_of_another_place_is_unknown() {
    let hub = Hub::start();
    let mut payee = Client::registered(&hub, 2).await;
    let (_client, mut payer, _) = payer(&hub, 1).await;
    payer.pay(&[(account(2), units(4))]).await;
    let answer = taken(payer.reply().await);
    let refund = Refund {
        chain: answer.commit.commit.chain,
        commit: answer.commit.commit.number,
        group: answer.path.index,
        leaf: 0,
        payment_id: payment_id(&payer.lane, 1),
        refunded_total: units(3),
    };
    for wrong in [
        Refund { leaf: 1, ..refund },
        Refund { group: refund.group + 1, ..refund },
        Refund { commit: refund.commit + 100, ..refund },
        Refund { commit: 0, ..refund },
        Refund { chain: 1, ..refund },
        Refund { payment_id: payment_id(&LaneId::ZERO, 1), ..refund },
    ] {
        let refused = payee.act(Act::Refund(wrong).sign(&hub.id, &key(2))).await;
        assert_eq!(refused, Err(Reject::UnknownPayment), "{wrong:?}");
    }
    let by_payer = payee.act(Act::Refund(refund).sign(&hub.id, &key(1))).await;
    assert_eq!(by_payer, Err(Reject::Unauthenticated));
    payee.act(Act::Refund(refund).sign(&hub.id, &key(2))).await.unwrap();
    let Reply::Account(info) = payee.ask(Request::Account(account(2))).await.unwrap() else { panic!() };
    assert_eq!(info.balances.first().unwrap().earned, units(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_gives_every_group_once_from_any_sequence() {
    let hub = Hub::start();
    let (mut client, mut payer, _) = payer(&hub, 1).await;
    let mut ends = Vec::new();
    for count in [1, 3, 2, 1, 4] {
        let payments = vec![(account(1), weir_protocol::amount::Amount::from_nanos(7)); count];
        payer.pay(&payments).await;
        ends.push(taken(payer.reply().await).through_sequence);
        // Voids of the lane, and commits without it, lie between.
        payer.send(&LaneRequest::Attach(Attach { lane: payer.lane, void_through: 0 })).await;
        assert!(matches!(payer.reply().await, LaneReply::Attached(_)));
        hub.deposit(account(1), units(1)).await;
    }
    for since in 0..payer.head.sequence {
        let Reply::History(Some(page)) = client.ask(Request::History { lane: payer.lane, since }).await.unwrap() else {
            panic!()
        };
        let expected = ends.iter().find(|end| **end > since).unwrap();
        assert_eq!(page.head.sequence, *expected, "since {since}");
        assert_eq!(page.payments.last().unwrap().0, *expected);
    }
}
