//! Every message of the wire, each variant at least once.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use weir_protocol::act::{Act, MandateScheme};
use weir_protocol::amount::{Currency, Time};
use weir_protocol::hash::Hash;
use weir_protocol::id::{ChannelId, LaneId};
use weir_protocol::merkle::Tree;
use weir_protocol::payment::{Head, payment_id};
use weir_protocol::reject::Reject;
use weir_protocol::wire::{
    self, AccountInfo, Attach, Attached, Balance, ChannelInfo, ClosedLane, CommitInfo, CreditMessage, Cursor,
    DepositInstructions, Done, EvidenceSubject, HistoryGroup, HubInfo, KeyScope, LaneInfo, LaneReply, LaneRequest,
    MandateInfo, MandateStanding, Nonce, Opening, Reply, ReplyMessage, Request, RequestMessage, StatementEntry,
    StatementForm, StatementItem, Subscribe, hello_digest,
};

use super::credits::credit_group;
use super::handshake::{spki, welcome};
use super::world::{DAY, START, World, case, nanos, value};
use super::{acts, evidence, receipts};

/// A message with its JSON value and its bytes, length in front.
fn message<T: Serialize + DeserializeOwned + PartialEq + core::fmt::Debug>(
    kind: &str,
    name: &str,
    message: &T,
) -> Value {
    let bytes = wire::encode(message);
    assert!(bytes.len() <= wire::LENGTH_BYTES + wire::MAX_MESSAGE);
    assert_eq!(&wire::decode::<T>(bytes.get(wire::LENGTH_BYTES..).unwrap()).unwrap(), message, "{name}");
    case("message", name, json!({ "type": kind, "value": value(message), "bytes": hex::encode(bytes) }))
}

pub(crate) fn cases(world: &World) -> Vec<Value> {
    let lane = world.grants[0].id();
    let subscribe = |chain, number| Subscribe { account: world.shop, after: Cursor { chain, number } };
    let mut cases = vec![
        message("Opening", "control", &Opening::Control { version: 1 }),
        message("Opening", "a lane", &Opening::Lane(Attach { lane, void_through: 6 })),
        message("Opening", "a lane, nothing to void", &Opening::Lane(Attach { lane, void_through: 0 })),
        message("Opening", "credits from the first", &Opening::Credit(subscribe(0, 0))),
        message("Opening", "credits from a cursor", &Opening::Credit(subscribe(START, 3))),
        message("Welcome", "welcome", &welcome(world)),
    ];
    cases.extend(requests(world).iter().map(|(name, request)| message("RequestMessage", name, request)));
    cases.extend(replies(world).iter().map(|(name, reply)| message("ReplyMessage", name, reply)));
    for reject in Reject::ALL {
        let refused = ReplyMessage { id: 300, reply: Err(*reject) };
        cases.push(message("ReplyMessage", &format!("refused: {}", reject.name()), &refused));
    }
    cases.extend(lane_messages(world));
    cases.extend(credit_messages(world));
    let (receipt, _) = world.groups[0].receipt(2, world.commit(3), 0);
    assert_eq!(wire::encode(&receipt).get(4..).unwrap(), receipts::body(&receipt));
    cases.push(message("Receipt", "a receipt", &receipt));
    cases
}

fn requests(world: &World) -> Vec<(&'static str, RequestMessage)> {
    let (account, channel, lane) = (world.payer, world.channel_id(), world.grants[1].id());
    let prove = |scope: KeyScope, key: &weir_protocol::keys::SecretKey| {
        let digest = hello_digest(&world.hub, &key.public(), &scope, &spki(), &Nonce([0x77; 32]));
        Request::Prove { scope, key: key.public(), signature: key.sign(&digest) }
    };
    let mut requests = vec![
        ("prove an account key", prove(KeyScope::Account(account), &world.account)),
        ("prove a channel key", prove(KeyScope::Channel(channel), &world.channel)),
        ("prove a lane key", prove(KeyScope::Lane(lane), &world.lane_one)),
        ("the hub", Request::Hub),
        ("an account", Request::Account(account)),
        ("deposit instructions", Request::DepositInstructions { account, currency: Currency::EUR }),
        ("channels", Request::Channels { account, after: None }),
        ("channels after one", Request::Channels { account, after: Some(channel) }),
        ("a channel", Request::Channel(channel)),
        ("lanes", Request::Lanes { channel, from: 200 }),
        ("history", Request::History { lane, since: u64::MAX }),
        ("evidence of a channel", Request::Evidence(EvidenceSubject::Channel(channel))),
        ("evidence of a payment", Request::Evidence(EvidenceSubject::Payment { lane, sequence: 300 })),
        ("evidence of a receipt", Request::Evidence(EvidenceSubject::Receipt { commit: 3, group: 0, leaf: 200 })),
        (
            "evidence of a payout",
            Request::Evidence(EvidenceSubject::Payout { account, window: 3, currency: Currency::EUR }),
        ),
        ("evidence of an act", Request::Evidence(EvidenceSubject::Act { account, commit: 2, item: 2 })),
        ("the last window's statement", Request::WindowStatement { account, window: None, form: StatementForm::Html }),
        ("a window's statement", Request::WindowStatement { account, window: Some(3), form: StatementForm::Json }),
        ("a statement", Request::Statement { account, after: Cursor { chain: START, number: 3 }, skip: 0 }),
        (
            "a statement from within a commit",
            Request::Statement { account, after: Cursor { chain: START, number: 3 }, skip: 256 },
        ),
        ("a commit", Request::Commit { number: 3 }),
        ("mandates", Request::Mandates(account)),
    ];
    for (name, act) in acts::all(world) {
        if let Some(key) = acts::signer(world, &act).filter(|_| !matches!(act, Act::Certificate(_))) {
            requests.push((name, Request::Act(act.sign(&world.hub, &key))));
        }
    }
    let numbered = (0..).zip(requests);
    numbered.map(|(at, (name, request))| (name, RequestMessage { id: at * at * at, request })).collect()
}

fn replies(world: &World) -> Vec<(&'static str, ReplyMessage)> {
    let newest = world.commit(7).signed;
    let at = |number| Cursor { chain: START, number };
    let (opened, open_proof) = world.commit(2).act(4);
    let (closed, close_proof) = world.commit(4).act(1);
    let hub = HubInfo { policy: world.policy.clone(), time: Time(START + 8000), newest: at(7) };
    let instructions = DepositInstructions {
        iban: "DE02120300000000202051".into(),
        name: "Weir Hub".into(),
        bic: "BYLADEM1001".into(),
        reference: "RF18539007547034".into(),
        currency: Currency::EUR,
    };
    let ids: Vec<Hash> = world.commits.iter().take(6).map(|built| built.signed.commit.id()).collect();
    let commit = |number: usize, path| CommitInfo {
        commit: world.commit(number).signed,
        certificate: world.certificate,
        newest,
        newest_certificate: world.certificate,
        path,
    };
    let path = Tree::new(ids).path(2).unwrap().hashes;
    let statement = Reply::Statement { entries: statement(world), through: at(7), skip: 300 };
    let replies = [
        ("proven", Reply::Proven),
        ("an opening is done", Reply::Done(Box::new(Done { act: opened, proof: open_proof }))),
        ("a close request is done", Reply::Done(Box::new(Done { act: closed, proof: close_proof }))),
        ("the hub", Reply::Hub(Box::new(hub))),
        ("an account", Reply::Account(Box::new(account_info(world)))),
        ("deposit instructions", Reply::DepositInstructions(instructions)),
        ("no channels", Reply::Channels(vec![])),
        ("channels", Reply::Channels(vec![channel_info(world)])),
        ("a channel", Reply::Channel(Box::new(channel_info(world)))),
        ("lanes", Reply::Lanes(lane_infos(world))),
        ("nothing more of a history", Reply::History(None)),
        ("a group of a history", Reply::History(Some(Box::new(history(world))))),
        ("a statement", statement),
        ("an empty statement", Reply::Statement { entries: vec![], through: at(7), skip: 0 }),
        ("a commit in the newest history", Reply::Commit(Box::new(commit(3, path)))),
        ("the newest commit", Reply::Commit(Box::new(commit(7, vec![])))),
        ("evidence", Reply::Evidence(Box::new(evidence::small()))),
        ("mandates", Reply::Mandates(mandates())),
        ("no mandates", Reply::Mandates(vec![])),
        ("a window's statement", Reply::WindowStatement("{\"format\":\"weir-statement/1\"}".into())),
    ];
    let numbered = (126..).zip(replies);
    numbered.map(|(id, (name, reply))| (name, ReplyMessage { id, reply: Ok(reply) })).collect()
}

fn mandates() -> Vec<MandateInfo> {
    let one = |mandate_id: &str, scheme, standing, at_once, provisional_days| MandateInfo {
        mandate_id: mandate_id.into(),
        scheme,
        iban: "DE89370400440532013000".into(),
        signed_at: Time(START),
        standing,
        at_once: nanos(at_once),
        provisional_days,
    };
    vec![
        one("W-1", MandateScheme::Core, MandateStanding::Accepted, 20_000_000_000, 56),
        one("W-2", MandateScheme::B2b, MandateStanding::Waiting, 0, 0),
        one("W-3", MandateScheme::Core, MandateStanding::Ended, 0, 0),
    ]
}

fn account_info(world: &World) -> AccountInfo {
    let balance = Balance {
        currency: Currency::EUR,
        available: nanos(30_000_000_000),
        locked: nanos(16_219_999_998),
        earned: nanos(0),
        payable: nanos(1),
        marked: nanos(10_000_000_000),
        in_transit: nanos(127),
        provisional: nanos(50_000_000_000),
    };
    AccountInfo {
        account: world.payer,
        name: "Ada Payer".into(),
        iban: "DE89370400440532013000".into(),
        approved: true,
        frozen_incoming: false,
        frozen_outgoing: true,
        number: 5,
        balances: vec![balance],
    }
}

fn channel_info(world: &World) -> ChannelInfo {
    ChannelInfo {
        channel: world.channel_id(),
        terms: world.terms,
        capacity: nanos(30_000_000_000),
        expires_at: Time(START + 60 * DAY),
        renew: false,
        spent: world.close().spent,
        reserved: nanos(5_000_000_000),
        lanes: 3,
        rolls: 1,
        number: 9,
        closed: false,
    }
}

fn lane_infos(world: &World) -> Vec<LaneInfo> {
    let [_, second, third] = &world.groups;
    let heads = [second.head, third.head, Head::empty(&world.grants[2].id())];
    let info = |(grant, head): (&weir_protocol::channel::LaneGrant, Head)| LaneInfo {
        lane: grant.id(),
        grant: *grant,
        head,
        void_through: head.sequence,
        spent_in_period: head.total,
        revoked: grant.lane == 1,
    };
    world.grants.iter().zip(heads).map(info).collect()
}

fn history(world: &World) -> HistoryGroup {
    let second = &world.groups[1];
    HistoryGroup {
        payments: second.payments.clone(),
        head: second.head,
        signature: second.signature,
        answer: second.answer(world.commit(3), 2),
        certificate: world.certificate,
    }
}

fn statement(world: &World) -> Vec<StatementEntry> {
    let first = &world.groups[0];
    let (sequence, payment) = *first.payments.get(2).unwrap();
    let earned = StatementItem::Earned {
        group: 0,
        leaf: 2,
        payment_id: payment_id(&first.lane, sequence),
        amount: payment.amount,
        currency: Currency::EUR,
        reference: payment.reference,
    };
    let paid = StatementItem::Paid {
        channel: world.channel_id(),
        lane: 0,
        count: 3,
        amount: first.head.total,
        currency: Currency::EUR,
    };
    let list = [(3, earned), (3, paid), (4, StatementItem::Act(Act::Close(world.close())))];
    let entry = |(number, what)| StatementEntry {
        at: Cursor { chain: START, number },
        time: Time(START + number * 1000),
        what,
    };
    list.into_iter().map(entry).collect()
}

fn lane_messages(world: &World) -> Vec<Value> {
    let [first, second, third] = &world.groups;
    let lane = world.grants[0].id();
    let (_, void_proof) = world.commit(3).act(1);
    let attached = Attached { void: world.void, head: first.head, signature: Some(first.signature), proof: void_proof };
    let unused: LaneId = world.grants[2].id();
    let empty = Attached { head: Head::empty(&unused), signature: None, ..attached.clone() };
    let (_, close_proof) = world.commit(4).act(1);
    let path = Tree::new(world.heads()).path(0).unwrap();
    let closed = ClosedLane {
        close: world.close(),
        proof: close_proof,
        head: second.head,
        signature: Some(second.signature),
        path,
    };
    let refused = |reject, fault| LaneReply::Refused { reject, fault };
    vec![
        message("LaneRequest", "a frame of three payments to two payees", &LaneRequest::Frame(first.frame())),
        message("LaneRequest", "a frame with a deadline after a void", &LaneRequest::Frame(second.frame())),
        message("LaneRequest", "a frame of one payment", &LaneRequest::Frame(third.frame())),
        message("LaneRequest", "an attach", &LaneRequest::Attach(Attach { lane, void_through: 1 << 40 })),
        message("LaneReply", "attached", &LaneReply::Attached(Box::new(attached))),
        message("LaneReply", "attached before the first payment", &LaneReply::Attached(Box::new(empty))),
        message("LaneReply", "taken", &LaneReply::Taken(Box::new(second.answer(world.commit(3), 2)))),
        message("LaneReply", "refused at a payment", &refused(Reject::Capacity, 8)),
        message("LaneReply", "refused at no payment", &refused(Reject::Detached, 0)),
        message("LaneReply", "closed", &LaneReply::Closed(Box::new(closed))),
    ]
}

fn credit_messages(world: &World) -> Vec<Value> {
    let commit = world.commit(3);
    let group = credit_group(&world.groups[0], &world.shop, commit, 0);
    let whole = credit_group(&world.groups[2], &world.shop, commit, 4);
    let header = CreditMessage::Commit { commit: commit.signed, certificate: world.certificate };
    let through = CreditMessage::Through(Cursor { chain: START, number: 7 });
    vec![
        message("CreditMessage", "a commit", &header),
        message("CreditMessage", "a group of which the payee has two of three", &CreditMessage::Group(group)),
        message("CreditMessage", "a whole group", &CreditMessage::Group(whole)),
        message("CreditMessage", "through", &through),
        message("CreditMessage", "refused", &CreditMessage::Refused(Reject::Unauthenticated)),
    ]
}

/// Ids of nothing, for wrong cases.
pub(crate) const NO_CHANNEL: ChannelId = ChannelId([0xcc; 32]);
