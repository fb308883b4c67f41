//! A small hub for tests of the library's own tasks: real QUIC, one lane, every frame its own commit, faults on demand.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a failed test should say where")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use weir_protocol::act::{Act, Certificate};
use weir_protocol::amount::{Amount, Time};
use weir_protocol::channel::ChannelTerms;
use weir_protocol::commit::{ActProof, Answer, Blind, Commit, SignedCertificate, SignedCommit, act_item, group_item};
use weir_protocol::hash::{Hash, sha256};
use weir_protocol::id::{AccountId, HubAddress, HubId, Reference};
use weir_protocol::keys::{PublicKey, SecretKey};
use weir_protocol::lane::hub::{Bounds, Lane as HubLane};
use weir_protocol::lane::payer::Order;
use weir_protocol::merkle::{self, Path, Tree};
use weir_protocol::payment::{Payment, Run, payment_id, receipt_leaf};
use weir_protocol::wire::{
    ALPN, Attach, Attached, Credit, CreditGroup, CreditMessage, Cursor, HistoryGroup, LaneReply, LaneRequest,
    MAX_MESSAGE, Nonce, Opening, Reply, ReplyMessage, Request, RequestMessage, Welcome, encode, tls_digest,
};

use crate::connection::{lock, now};
use crate::home::{Home, LaneRecord, PlainKeys, RecordState};
use crate::{BatchOutcome, Client, CreditEvent, Error, InfraError, LaneStopped, Outcome, PayError, framing};

struct State {
    lane: Option<HubLane>,
    number: u64,
    history: Vec<HistoryGroup>,
    /// Frames until the connection is cut, before the answer goes out.
    cut_after: Option<u32>,
    /// Times that the connection is still to be cut.
    cuts: u32,
    connections: u32,
}

struct Hub {
    id: HubId,
    signing: SecretKey,
    certificate: SignedCertificate,
    spki: Vec<u8>,
    state: Mutex<State>,
}

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32]).unwrap()
}

const PAYEE: AccountId = AccountId(PublicKey([9; 32]));

/// Starts a hub and makes a home with a lane at it.
fn world(folder: &std::path::Path) -> (Arc<Hub>, Home, LaneRecord) {
    let identity = key(11);
    let id = HubId(identity.public());
    let certificate = Certificate { key: key(12).public(), not_before: Time(0), not_after: Time(u64::MAX) };
    let signature = identity.sign(&Act::Certificate(certificate).digest(&id));
    let tls = rcgen::generate_simple_self_signed(vec!["weir".to_owned()]).unwrap();
    let hub = Arc::new(Hub {
        id,
        signing: key(12),
        certificate: SignedCertificate { certificate, signature },
        spki: rcgen::PublicKeyData::subject_public_key_info(&tls.signing_key),
        state: Mutex::new(State {
            lane: None,
            number: 0,
            history: Vec::new(),
            cut_after: None,
            cuts: 0,
            connections: 0,
        }),
    });
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let secret = rustls::pki_types::PrivatePkcs8KeyDer::from(tls.signing_key.serialize_der());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![tls.cert.der().clone()], secret.into())
        .unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(config).unwrap();
    let server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = quinn::Endpoint::server(server, ([127, 0, 0, 1], 0).into()).unwrap();
    let port = endpoint.local_addr().unwrap().port();
    tokio::spawn(accept(endpoint, Arc::clone(&hub)));

    let address = HubAddress { hub: id, host: "127.0.0.1".to_owned(), port };
    let home = Home::create(folder, &address, PlainKeys::sealer()).unwrap();
    let terms = ChannelTerms {
        hub: id,
        account: home.account(),
        scheme: 0,
        key: home.new_key().unwrap().public(),
        currency: "EUR".parse().unwrap(),
        capacity: Amount::MAX,
        opened_at: Time(1),
        expires_at: Time::MAX,
        renew: false,
        salt: [0; 32],
    };
    let record = LaneRecord { terms, grant: terms.lane_zero(), state: RecordState::Done };
    home.keep_lane(&record).unwrap();
    lock(&hub.state).lane = Some(HubLane::new(record.grant));
    (hub, home, record)
}

async fn accept(endpoint: quinn::Endpoint, hub: Arc<Hub>) {
    while let Some(incoming) = endpoint.accept().await {
        let hub = Arc::clone(&hub);
        lock(&hub.state).connections += 1;
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            while let Ok((send, recv)) = connection.accept_bi().await {
                tokio::spawn(serve(Arc::clone(&hub), connection.clone(), send, recv));
            }
        });
    }
}

async fn serve(hub: Arc<Hub>, connection: quinn::Connection, send: quinn::SendStream, mut recv: quinn::RecvStream) {
    // Whatever breaks, the connection is over.
    let _ = match framing::read(&mut recv, MAX_MESSAGE).await {
        Ok(Some(Opening::Control { .. })) => hub.control(send, recv).await,
        Ok(Some(Opening::Lane(attach))) => hub.lane(attach, &connection, send, recv).await,
        Ok(Some(Opening::Credit(subscribe))) => hub.credit(subscribe.after, &connection, send).await,
        _ => None,
    };
}

impl Hub {
    async fn control(&self, mut send: quinn::SendStream, mut recv: quinn::RecvStream) -> Option<()> {
        let not_after = Time(u64::MAX);
        let number = lock(&self.state).number;
        let welcome = Welcome {
            version: 1,
            hub: self.id,
            certificate: self.certificate,
            not_after,
            signature: self.signing.sign(&tls_digest(&self.id, &self.spki, not_after)),
            nonce: Nonce([1; 32]),
            time: now(),
            newest: Cursor { chain: 1, number },
        };
        send.write_all(&encode(&welcome)).await.ok()?;
        while let Some(RequestMessage { id, request }) = framing::read(&mut recv, MAX_MESSAGE).await.ok()? {
            let reply = match request {
                Request::Prove { .. } => Reply::Proven,
                Request::History { since, .. } => {
                    let state = lock(&self.state);
                    let group = state.history.iter().find(|group| group.head.sequence > since);
                    Reply::History(group.cloned().map(Box::new))
                }
                other => panic!("{other:?}"),
            };
            send.write_all(&encode(&ReplyMessage { id, reply: Ok(reply) })).await.ok()?;
        }
        Some(())
    }

    async fn lane(
        &self,
        attach: Attach,
        connection: &quinn::Connection,
        mut send: quinn::SendStream,
        mut recv: quinn::RecvStream,
    ) -> Option<()> {
        let mut request = LaneRequest::Attach(attach);
        loop {
            let (reply, cut) = self.take(request);
            if cut {
                connection.close(1_u32.into(), b"");
                return None;
            }
            send.write_all(&encode(&reply)).await.ok()?;
            request = framing::read(&mut recv, MAX_MESSAGE).await.ok()??;
        }
    }

    fn take(&self, request: LaneRequest) -> (LaneReply, bool) {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        match request {
            LaneRequest::Attach(attach) => {
                let lane = state.lane.as_mut().unwrap();
                let void = lane.void(attach.void_through).unwrap();
                lane.apply_void(&void).unwrap();
                let (head, signature) = (*lane.head(), lane.signature().copied());
                let act = Act::Void(void);
                let blind = Blind([5; 16]);
                let (commit, path) = self.commit(state, act_item(&blind, act.kind(), &act.digest(&self.id)));
                let proof = ActProof { commit, blind, path };
                (LaneReply::Attached(Box::new(Attached { void, head, signature, proof })), false)
            }
            LaneRequest::Frame(frame) => {
                let reply = self.frame(state, frame);
                let cut = state.cuts > 0 && {
                    let left = state.cut_after.get_or_insert(3);
                    *left -= 1;
                    *left == 0
                };
                if cut {
                    state.cuts -= 1;
                    state.cut_after = None;
                }
                (reply, cut)
            }
        }
    }

    fn frame(&self, state: &mut State, frame: weir_protocol::payment::Frame) -> LaneReply {
        let lane = state.lane.as_mut().unwrap();
        let bounds = Bounds {
            now: now(),
            opened_at: Time(0),
            expires_at: Time::MAX,
            headroom: Amount::MAX,
            headroom_from: Time(0),
            frozen: false,
            payment_max: Amount::from_nanos(1_000_000),
        };
        let taken = lane.judge(vec![frame], &bounds, &lane.key().parse().unwrap(), &mut |_| Ok(()));
        if let Some(fault) = taken.fault {
            return LaneReply::Refused { reject: fault.reject, fault: fault.sequence };
        }
        let group = &taken.groups[0];
        lane.apply(group);
        let payments: Vec<(u64, Payment)> = group.runs.iter().flat_map(Run::payments).collect();
        let (id, currency) = (lane.id(), "EUR".parse().unwrap());
        let leaf = |(at, payment): &(u64, Payment)| receipt_leaf(&payment_id(&id, *at), payment, currency);
        let leaves = merkle::root(&payments.iter().map(leaf).collect::<Vec<_>>());
        let item = group_item(&group.head.digest(&lane.id()), payments.len() as u32, &leaves);
        let (commit, path) = self.commit(state, item);
        let answer = Answer {
            first_sequence: payments[0].0,
            through_sequence: group.head.sequence,
            count: payments.len() as u32,
            leaves,
            commit,
            path,
        };
        let (head, signature, certificate) = (group.head, group.signature, self.certificate);
        state.history.push(HistoryGroup { payments, head, signature, answer: answer.clone(), certificate });
        LaneReply::Taken(Box::new(answer))
    }

    fn commit(&self, state: &mut State, item: Hash) -> (SignedCommit, Path) {
        state.number += 1;
        let tree = Tree::new(vec![Hash([7; 32]), item]);
        let commit = Commit {
            hub: self.id,
            chain: 1,
            number: state.number,
            time: now(),
            history: Hash::ZERO,
            items: 2,
            root: tree.root(),
        };
        (SignedCommit { commit, signature: self.signing.sign(&commit.id()) }, tree.path(1).unwrap())
    }

    /// Sends each commit's credits; breaks off after the third without saying up to where.
    async fn credit(&self, after: Cursor, connection: &quinn::Connection, mut send: quinn::SendStream) -> Option<()> {
        let (groups, lane) = {
            let state = lock(&self.state);
            (state.history.clone(), state.lane.clone().unwrap())
        };
        let first = after.number == 0;
        for (at, group) in groups.iter().filter(|group| group.answer.commit.commit.number > after.number).enumerate() {
            if first && at == 3 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                connection.close(1_u32.into(), b"");
                return None;
            }
            let credit = |(leaf, (sequence, payment)): (usize, &(u64, Payment))| Credit {
                leaf: leaf as u32,
                payment_id: payment_id(&lane.id(), *sequence),
                amount: payment.amount,
                reference: payment.reference,
            };
            let message = CreditGroup {
                head: group.head.digest(&lane.id()),
                count: group.payments.len() as u32,
                currency: "EUR".parse().unwrap(),
                credits: group.payments.iter().enumerate().map(credit).collect(),
                proof: Vec::new(),
                path: group.answer.path.clone(),
            };
            let commit = group.answer.commit;
            let place = Cursor::from(&commit.commit);
            let messages = [
                CreditMessage::Commit { commit, certificate: self.certificate },
                CreditMessage::Group(message),
                CreditMessage::Through(place),
            ];
            // The second commit's end is not told before the break.
            let told = if first && at == 2 { 2 } else { 3 };
            for message in messages.iter().take(told) {
                send.write_all(&encode(message)).await.ok()?;
            }
        }
        std::future::pending().await
    }

    fn paid(&self) -> usize {
        let state = lock(&self.state);
        let payments = state.history.iter().flat_map(|group| &group.payments);
        let references: std::collections::BTreeSet<_> =
            payments.clone().map(|(_, payment)| payment.reference).collect();
        assert_eq!(references.len(), payments.count(), "paid twice");
        references.len()
    }
}

fn order(at: u64) -> Order {
    Order {
        payee: PAYEE,
        amount: Amount::from_nanos(1),
        reference: Reference(sha256(&at.to_le_bytes()).0),
        deadline: None,
    }
}

fn restart(home: Home) -> Home {
    let path = home.path().to_owned();
    drop(home);
    Home::open(path, PlainKeys::sealer()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_at_once_on_one_lane_are_each_paid_once_though_connections_break() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, home, record) = world(folder.path());
    lock(&hub.state).cuts = 4;
    let client = Client::start(home).unwrap();
    let lane = client.lane(record.id()).unwrap();
    let calls: Vec<_> = (0..2_064)
        .map(|at| {
            let lane = lane.clone();
            tokio::spawn(async move { lane.pay(order(at)).await })
        })
        .collect();
    for call in calls {
        let Ok(Outcome::Paid(paid)) = call.await.unwrap() else { panic!() };
        if paid.sequence().is_multiple_of(100) {
            assert!(paid.receipt().unwrap().check().is_ok());
        }
    }
    assert_eq!(hub.paid(), 2_064);
    assert!(lock(&hub.state).connections > 1);
    let Ok(Outcome::Paid(again)) = lane.pay(order(7)).await else { panic!() };
    assert_eq!(again.payment().unwrap().reference, order(7).reference);
    let other = Order { amount: Amount::from_nanos(2), ..order(7) };
    assert!(matches!(lane.pay(other).await, Err(PayError::Order(_))));
    let refused = lane.pay(Order { amount: Amount::from_nanos(2_000_000), ..order(9_999) }).await;
    assert!(matches!(refused, Ok(Outcome::Refused(refused)) if refused.proof.is_some()));
    assert_eq!(hub.paid(), 2_064);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_of_orders_comes_out_in_batches_and_survives_restarts_with_and_without_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, mut home, record) = world(folder.path());
    for (turn, keep_log) in [true, false, true].into_iter().enumerate() {
        let client = Client::start(home.clone()).unwrap();
        let lane = client.lane(record.id()).unwrap();
        let (sink, mut outcomes) = lane.pay_many();
        let feeder = tokio::spawn(async move {
            let orders: Vec<_> = (0..5_000 * (turn as u64 + 1)).map(|at| (at, order(at))).collect();
            sink.send_all(orders).await.unwrap();
        });
        let mut tags = std::collections::BTreeSet::new();
        while let Some(outcome) = outcomes.next().await {
            let BatchOutcome::Paid { group, payments } = outcome else { panic!() };
            for (index, tag) in payments {
                assert_eq!(group.payment(index).unwrap().1.reference, order(tag).reference);
                assert!(tags.insert(tag));
            }
        }
        feeder.await.unwrap();
        assert_eq!(tags.len(), 5_000 * (turn + 1));
        assert_eq!(hub.paid(), tags.len());
        client.shut_down().await;
        assert!(matches!(lane.pay(order(0)).await, Err(PayError::Stopped(LaneStopped::ShutDown))));
        drop((outcomes, lane, client));
        if !keep_log {
            let log = home.path().join("lanes").join(record.id().to_string()).join("paid.log");
            std::fs::remove_file(log).unwrap();
        }
        home = restart(home);
    }
}

#[tokio::test]
async fn hub_of_another_identity_is_not_believed_and_one_on_old_data_stops_the_lane() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, home, record) = world(folder.path());
    let other = tempfile::tempdir().unwrap();
    let address = HubAddress { hub: HubId(key(77).public()), ..home.hub().clone() };
    let stranger = Client::start(Home::create(other.path(), &address, PlainKeys::sealer()).unwrap()).unwrap();
    assert!(matches!(stranger.connect().await, Err(Error::Infra(InfraError::WrongHub { .. }))));

    let client = Client::start(home.clone()).unwrap();
    assert!(matches!(client.lane(record.id()).unwrap().pay(order(1)).await, Ok(Outcome::Paid(_))));
    let second = Client::start(home.clone()).unwrap();
    assert!(matches!(second.lane(record.id()), Err(Error::Misuse(_))), "one task drives a lane");
    client.shut_down().await;
    drop((client, second));
    let home = restart(home);
    lock(&hub.state).number = 1;
    let client = Client::start(home).unwrap();
    let lane = client.lane(record.id()).unwrap();
    assert!(matches!(lane.attach().await, Err(Error::Evidence { file: Some(_), .. })));
    let stopped = lane.pay(order(2)).await;
    assert!(matches!(stopped, Err(PayError::Stopped(LaneStopped::Evidence { .. }))), "{stopped:?}");
    assert!(matches!(lane.pay(order(1)).await, Ok(Outcome::Paid(_))), "what is kept is still known");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn home_is_free_as_soon_as_its_client_is_shut_down() {
    let folder = tempfile::tempdir().unwrap();
    let (_hub, mut home, record) = world(folder.path());
    for round in 0..100 {
        // Some rounds end on a connection, some while one is being made, some while a process is started.
        let client = Client::start(home).unwrap();
        let lane = client.lane(record.id()).unwrap();
        let paying = tokio::spawn(async move { lane.pay(order(round)).await });
        tokio::time::sleep(Duration::from_micros(round * 40)).await;
        let children = (round % 3 == 0).then(|| std::thread::spawn(|| std::process::Command::new("true").output()));
        let path = client.home().path().to_owned();
        client.shut_down().await;
        drop((client, paying.await));
        home = Home::open(&path, PlainKeys::sealer()).unwrap_or_else(|error| panic!("round {round}: {error}"));
        children.map(std::thread::JoinHandle::join);
    }
}

#[tokio::test]
async fn credits_are_told_once_each_though_the_stream_breaks_and_resume_from_the_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (_hub, home, record) = world(folder.path());
    let client = Client::start(home.clone()).unwrap();
    let lane = client.lane(record.id()).unwrap();
    for at in 0..6 {
        assert!(matches!(lane.pay(order(at)).await, Ok(Outcome::Paid(_))));
    }
    // The fake credits everybody; a payment to another account does not check.
    let mut credits = client.credits().unwrap();
    let error = credits.next().await;
    assert!(matches!(error, Err(Error::Evidence { file: Some(_), .. })), "{error:?}");

    let folder = tempfile::tempdir().unwrap();
    let (_hub, home, record) = world(folder.path());
    let client = Client::start(home.clone()).unwrap();
    let lane = client.lane(record.id()).unwrap();
    for at in 0..6 {
        let order = Order { payee: home.account(), ..order(at) };
        assert!(matches!(lane.pay(order).await, Ok(Outcome::Paid(_))));
    }
    let mut credits = client.credits().unwrap();
    let (mut told, mut last) = (Vec::new(), Cursor::default());
    while told.len() < 6 || last.number < 7 {
        let mut events = Vec::new();
        credits.next_many(&mut events, 2).await.unwrap();
        assert!((1..=2).contains(&events.len()));
        for event in events {
            match event {
                CreditEvent::Credited(group) => told.extend(group.payments().map(|credit| credit.reference)),
                CreditEvent::Through(cursor) => last = cursor,
            }
        }
    }
    let expected: Vec<_> = (0..6).map(|at| order(at).reference).collect();
    assert_eq!(told, expected);
    credits.acknowledge(last).unwrap();
    assert_eq!(client.credits().unwrap().through(), last);
}
