//! What paying and being paid cost the client: the library over real QUIC against a hub that only answers.
//!
//! The hub has threads of its own, so that the CPU time of the two is told apart (Linux: `/proc/self/task`). It walks the
//! states, commits what is waiting, signs, and judges nothing; the roots of leaves in its answers are zeros.
//!
//! `cargo bench -p weir-client --no-default-features --bench lane -- SCENE [COUNT]`; scenes: `many` (one lane, large
//! batches), `lanes` (1,000 lanes on 8 connections, 60 payments at a time), `single` (one after the other), `burst` (2,064
//! calls at once), `credits` (a subscribed payee who verifies).
#![expect(clippy::print_stdout, reason = "the result of a benchmark")]
#![expect(clippy::unwrap_used, reason = "a benchmark that fails should say where")]
#![expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]

use std::collections::{BTreeMap, HashMap};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use weir_client::{BatchOutcome, Client, CreditEvent, Home, Lane, LaneRecord, Order, Outcome, PlainKeys, RecordState};
use weir_protocol::act::{Act, Certificate, Void};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::channel::ChannelTerms;
use weir_protocol::commit::{ActProof, Answer, Blind, Commit, SignedCertificate, SignedCommit, act_item, group_item};
use weir_protocol::hash::{Hash, sha256};
use weir_protocol::id::{AccountId, HubAddress, HubId, LaneId, PaymentId, Reference};
use weir_protocol::keys::{PublicKey, SecretKey};
use weir_protocol::merkle::{Path, Tree, root};
use weir_protocol::payment::{Frame, Head, Payment, next_state, receipt_leaf};
use weir_protocol::wire::{
    ALPN, Attach, Attached, Credit, CreditGroup, CreditMessage, Cursor, LENGTH_BYTES, LaneReply, LaneRequest,
    MAX_MESSAGE, Nonce, Opening, Reply, ReplyMessage, Request, RequestMessage, Welcome, decode, decode_length, encode,
    tls_digest,
};

/// Groups in one commit of the hub.
const GROUPS: usize = 256;
/// Payments in a group of credits.
const CREDITS: u32 = 1024;

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32]).unwrap()
}

// ---- the hub ----------------------------------------------------------------------------------------------------------

struct Hub {
    id: HubId,
    certificate: SignedCertificate,
    spki: Vec<u8>,
    queue: mpsc::Sender<Asked>,
}

struct Asked {
    lane: LaneId,
    request: LaneRequest,
    answer: mpsc::UnboundedSender<Vec<u8>>,
}

fn clock() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Time(since.as_millis() as u64)
}

async fn read<T: serde::Serialize + serde::de::DeserializeOwned>(stream: &mut quinn::RecvStream) -> Option<T> {
    let mut prefix = [0; LENGTH_BYTES];
    stream.read_exact(&mut prefix).await.ok()?;
    let mut body = vec![0; decode_length(prefix, MAX_MESSAGE).ok()?];
    stream.read_exact(&mut body).await.ok()?;
    Some(decode(&body).unwrap())
}

/// Starts the hub on the runtime; the address is the answer.
fn start_hub(runtime: &Runtime, credits: u64) -> HubAddress {
    let identity = key(11);
    let id = HubId(identity.public());
    let certificate = Certificate { key: key(12).public(), not_before: Time(0), not_after: Time(u64::MAX) };
    let signature = identity.sign(&Act::Certificate(certificate).digest(&id));
    let certificate = SignedCertificate { certificate, signature };
    let tls = rcgen::generate_simple_self_signed(vec!["weir".to_owned()]).unwrap();
    let spki = rcgen::PublicKeyData::subject_public_key_info(&tls.signing_key);
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
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_bidi_streams(1_100_u32.into());
    server.transport_config(Arc::new(transport));
    let (queue, asked) = mpsc::channel(4096);
    let hub = Arc::new(Hub { id, certificate, spki, queue });
    runtime.block_on(async move {
        tokio::spawn(commit(id, asked));
        let endpoint = quinn::Endpoint::server(server, ([127, 0, 0, 1], 0).into()).unwrap();
        let port = endpoint.local_addr().unwrap().port();
        tokio::spawn(accept(endpoint, hub, credits));
        HubAddress { hub: id, host: "127.0.0.1".to_owned(), port }
    })
}

async fn accept(endpoint: quinn::Endpoint, hub: Arc<Hub>, credits: u64) {
    while let Some(incoming) = endpoint.accept().await {
        let hub = Arc::clone(&hub);
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            while let Ok((send, mut recv)) = connection.accept_bi().await {
                let hub = Arc::clone(&hub);
                tokio::spawn(async move {
                    match read(&mut recv).await {
                        Some(Opening::Control { .. }) => hub.control(send, recv).await,
                        Some(Opening::Lane(attach)) => hub.lane(attach, send, recv).await,
                        Some(Opening::Credit(subscribe)) => hub.credit(subscribe.account, send, credits).await,
                        _ => None,
                    }
                });
            }
        });
    }
}

impl Hub {
    async fn control(&self, mut send: quinn::SendStream, mut recv: quinn::RecvStream) -> Option<()> {
        let not_after = Time(u64::MAX);
        let welcome = Welcome {
            version: 1,
            hub: self.id,
            certificate: self.certificate,
            not_after,
            signature: key(12).sign(&tls_digest(&self.id, &self.spki, not_after)),
            nonce: Nonce([1; 32]),
            time: clock(),
            newest: Cursor { chain: 1, number: 0 },
        };
        send.write_all(&encode(&welcome)).await.ok()?;
        while let Some(RequestMessage { id, request }) = read(&mut recv).await {
            let reply = match request {
                Request::Prove { .. } => Reply::Proven,
                _ => Reply::History(None),
            };
            send.write_all(&encode(&ReplyMessage { id, reply: Ok(reply) })).await.ok()?;
        }
        Some(())
    }

    async fn lane(&self, attach: Attach, mut send: quinn::SendStream, mut recv: quinn::RecvStream) -> Option<()> {
        let (answer, mut answers) = mpsc::unbounded_channel::<Vec<u8>>();
        tokio::spawn(async move {
            while let Some(bytes) = answers.recv().await {
                if send.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        });
        let lane = attach.lane;
        let mut request = LaneRequest::Attach(attach);
        loop {
            self.queue.send(Asked { lane, request, answer: answer.clone() }).await.ok()?;
            request = read(&mut recv).await?;
        }
    }

    /// Credits of so many payments to the account, in commits of one group each.
    async fn credit(&self, account: AccountId, mut send: quinn::SendStream, payments: u64) -> Option<()> {
        let mut seed = 7;
        for number in (1..=payments / u64::from(CREDITS)).map(|number| number + 100) {
            let credits: Vec<Credit> = (0..CREDITS)
                .map(|leaf| Credit {
                    leaf,
                    payment_id: PaymentId(random(&mut seed)),
                    amount: Amount::from_nanos(1 + u64::from(leaf) * 7_919),
                    reference: Reference(random(&mut seed)),
                })
                .collect();
            let leaf = |credit: &Credit| {
                let payment = Payment { payee: account, amount: credit.amount, reference: credit.reference };
                receipt_leaf(&credit.payment_id, &payment, Currency::EUR)
            };
            let leaves = root(&credits.iter().map(leaf).collect::<Vec<_>>());
            let head = Hash([3; 32]);
            let (commit, tree) = sign(self.id, number, vec![group_item(&head, CREDITS, &leaves)]);
            let path = tree.path(0)?;
            let group = CreditGroup { head, count: CREDITS, currency: Currency::EUR, credits, proof: Vec::new(), path };
            let messages = [
                CreditMessage::Commit { commit, certificate: self.certificate },
                CreditMessage::Group(group),
                CreditMessage::Through(Cursor { chain: 1, number }),
            ];
            for message in messages {
                send.write_all(&encode(&message)).await.ok()?;
            }
        }
        std::future::pending().await
    }
}

fn sign(hub: HubId, number: u64, items: Vec<Hash>) -> (SignedCommit, Tree) {
    let tree = Tree::new(items);
    let items = tree.count() as u32;
    let commit = Commit { hub, chain: 1, number, time: clock(), history: Hash::ZERO, items, root: tree.root() };
    (SignedCommit { commit, signature: key(12).sign(&commit.id()) }, tree)
}

/// Commits whatever is waiting, for ever.
async fn commit(hub: HubId, mut asked: mpsc::Receiver<Asked>) {
    let mut heads: HashMap<LaneId, Head> = HashMap::new();
    let (mut number, mut waiting) = (0, Vec::new());
    while asked.recv_many(&mut waiting, GROUPS).await > 0 {
        number += 1;
        let blind = Blind([5; 16]);
        let mut items = Vec::with_capacity(waiting.len());
        let mut notes = Vec::with_capacity(waiting.len());
        for Asked { lane, request, .. } in &waiting {
            let head = heads.entry(*lane).or_insert_with(|| Head::empty(lane));
            match request {
                LaneRequest::Attach(attach) => {
                    let (sequence, total) = (head.sequence, head.total);
                    let void_through = attach.void_through.max(sequence);
                    let void = Void { lane: *lane, head: head.digest(lane), sequence, total, void_through };
                    let act = Act::Void(void);
                    items.push(act_item(&blind, act.kind(), &act.digest(&hub)));
                    notes.push((*head, Some(void)));
                }
                LaneRequest::Frame(frame) => {
                    walk(head, frame);
                    items.push(group_item(&head.digest(lane), frame.run.len() as u32, &Hash::ZERO));
                    notes.push((*head, None));
                }
            }
        }
        let (commit, tree) = sign(hub, number, items);
        for (at, (asked, (head, void))) in waiting.drain(..).zip(notes).enumerate() {
            let path = tree.path(at).unwrap();
            let _ = asked.answer.send(encode(&reply(&asked.request, head, void, commit, blind, path)));
        }
    }
}

fn walk(head: &mut Head, frame: &Frame) {
    for (sequence, payment) in frame.run.payments() {
        head.state = next_state(&head.state, sequence, &payment);
        head.total = head.total.checked_add(payment.amount).unwrap();
        head.sequence = sequence;
    }
    head.valid_until = frame.valid_until;
}

fn reply(
    request: &LaneRequest,
    head: Head,
    void: Option<Void>,
    commit: SignedCommit,
    blind: Blind,
    path: Path,
) -> LaneReply {
    match (request, void) {
        (LaneRequest::Frame(frame), _) => LaneReply::Taken(Box::new(Answer {
            first_sequence: frame.run.first_sequence(),
            through_sequence: frame.run.last_sequence(),
            count: frame.run.len() as u32,
            leaves: Hash::ZERO,
            commit,
            path,
        })),
        (_, void) => {
            let proof = ActProof { commit, blind, path };
            LaneReply::Attached(Box::new(Attached { void: void.unwrap(), head, signature: None, proof }))
        }
    }
}

// ---- the client -------------------------------------------------------------------------------------------------------

/// 32 bytes that nobody has seen (splitmix64).
fn random(seed: &mut u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    for place in bytes.chunks_exact_mut(8) {
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = *seed;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        place.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes
}

fn order(seed: &mut u64) -> Order {
    let reference = Reference(random(seed));
    let amount = Amount::from_nanos(1 + (*seed >> 44));
    let payee = AccountId(PublicKey(sha256(&[(*seed % 100) as u8]).0));
    Order { payee, amount, reference, deadline: None }
}

/// Payees are hashed ahead: only the library's own work is measured.
fn orders(seed: &mut u64, payees: &[AccountId], count: usize) -> Vec<(u64, Order)> {
    (0..count as u64)
        .map(|tag| {
            let reference = Reference(random(seed));
            let amount = Amount::from_nanos(1 + (*seed >> 44));
            let payee = *payees.get((*seed >> 7) as usize % payees.len()).unwrap();
            (tag, Order { payee, amount, reference, deadline: None })
        })
        .collect()
}

fn payees() -> Vec<AccountId> {
    (0..100).map(|byte: u8| AccountId(PublicKey(sha256(&[byte]).0))).collect()
}

/// A home with so many lanes.
fn home(folder: &FilePath, hub: &HubAddress, lanes: usize) -> (Home, Vec<LaneId>) {
    let home = Home::create(folder, hub, PlainKeys::sealer()).unwrap();
    let key = home.new_key().unwrap().public();
    let ids = (0..lanes).map(|lane| {
        let mut salt = [0; 32];
        salt.iter_mut().zip(lane.to_le_bytes()).for_each(|(to, from)| *to = from);
        let terms = ChannelTerms {
            hub: hub.hub,
            account: home.account(),
            scheme: 0,
            key,
            currency: Currency::EUR,
            capacity: Amount::MAX,
            opened_at: Time(1),
            expires_at: Time::MAX,
            renew: false,
            salt,
        };
        let record = LaneRecord { terms, grant: terms.lane_zero(), state: RecordState::Done };
        home.keep_lane(&record).unwrap();
        record.id()
    });
    let ids = ids.collect();
    (home, ids)
}

/// Seconds of CPU of all threads whose name begins so.
fn cpu_seconds(name: &str) -> f64 {
    let mut nanos = 0.0;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if read("comm").starts_with(name) {
            nanos += read("schedstat").split(' ').next().and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
        }
    }
    nanos / 1e9
}

fn rss_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}

async fn many(lane: Lane, count: usize, batch: usize) {
    let (sink, mut outcomes) = lane.pay_many();
    let payees = payees();
    let feeder = tokio::spawn(async move {
        let mut seed = 1;
        for _ in 0..count / batch {
            sink.send_all(orders(&mut seed, &payees, batch)).await.unwrap();
        }
    });
    let mut paid = 0;
    while let Some(outcome) = outcomes.next().await {
        assert!(matches!(outcome, BatchOutcome::Paid { .. }));
        paid += outcome.count();
    }
    assert_eq!(paid, count / batch * batch);
    feeder.await.unwrap();
}

/// Closed loop: 60 orders, their outcomes, again.
async fn rounds(lane: Lane, seed: u64, count: usize) {
    let (sink, mut outcomes) = lane.pay_many();
    let (payees, mut seed) = (payees(), seed);
    for _ in 0..count / 60 {
        sink.send_all(orders(&mut seed, &payees, 60)).await.unwrap();
        let mut paid = 0;
        while paid < 60 {
            let outcome = outcomes.next().await.unwrap();
            assert!(matches!(outcome, BatchOutcome::Paid { .. }));
            paid += outcome.count();
        }
    }
}

async fn singles(lane: Lane, count: usize) {
    let mut seed = 1;
    let mut waits: Vec<Duration> = Vec::with_capacity(count);
    for _ in 0..count {
        let order = order(&mut seed);
        let begin = Instant::now();
        assert!(matches!(lane.pay(order).await, Ok(Outcome::Paid(_))));
        waits.push(begin.elapsed());
    }
    waits.sort();
    println!("  latency p50 {:?}, p99 {:?}", waits.get(count / 2).unwrap(), waits.get(count * 99 / 100).unwrap());
}

async fn burst(lane: Lane, count: usize) {
    let mut seed = 1;
    let calls: Vec<_> = (0..count)
        .map(|_| {
            let (lane, order) = (lane.clone(), order(&mut seed));
            tokio::spawn(async move { lane.pay(order).await })
        })
        .collect();
    for call in calls {
        assert!(matches!(call.await.unwrap(), Ok(Outcome::Paid(_))));
    }
}

async fn credits(client: &Client, count: usize) {
    let mut credits = client.credits().unwrap();
    let (mut heard, mut total) = (0, 0);
    while heard < count / CREDITS as usize * CREDITS as usize {
        if let CreditEvent::Credited(group) = credits.next().await.unwrap() {
            for payment in group.payments() {
                heard += 1;
                total += payment.amount.nanos();
            }
        }
    }
    assert!(total > 0);
}

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let scene = words.next().unwrap_or_else(|| "many".to_owned());
    let counts: BTreeMap<&str, usize> =
        [("many", 3_000_000), ("lanes", 3_000_000), ("single", 3_000), ("burst", 2_064), ("credits", 2_000_000)].into();
    let default = *counts.get(scene.as_str()).unwrap();
    let count = words.next().and_then(|word| word.parse().ok()).unwrap_or(default);
    let batch = words.next().and_then(|word| word.parse().ok()).unwrap_or(1024);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let hub = Builder::new_multi_thread().worker_threads(1).thread_name("hub").enable_all().build().unwrap();
    let address = start_hub(&hub, count as u64);
    let client = Builder::new_multi_thread().worker_threads(1).thread_name("client").enable_all().build().unwrap();
    let (homes, lanes) = if scene == "lanes" { (8, 125) } else { (1, 1) };
    let mut clients = Vec::new();
    for number in 0..homes {
        let (home, ids) = home(&folder.path().join(number.to_string()), &address, lanes);
        let started = client.block_on(async { Client::start(home) }).unwrap();
        clients.push((started, ids));
    }
    // Attaching is not part of it.
    let ready: Vec<(Client, Vec<Lane>)> = client.block_on(async {
        let mut ready = Vec::new();
        for (started, ids) in clients {
            let mut lanes = Vec::new();
            for id in ids {
                let lane = started.lane(id).unwrap();
                lane.attach().await.unwrap();
                lanes.push(lane);
            }
            ready.push((started, lanes));
        }
        ready
    });
    let first = ready.first().unwrap().1.first().unwrap().clone();
    let payer = ready.first().unwrap().0.clone();
    let (before, hub_before, begin) = (cpu_seconds("client"), cpu_seconds("hub"), Instant::now());
    // In a task: what `block_on` runs itself would be charged to another thread.
    let run = match scene.as_str() {
        "lanes" => {
            let each = count / 1000;
            let all: Vec<Lane> = ready.iter().flat_map(|(_, lanes)| lanes.clone()).collect();
            client.spawn(async move {
                let rounds = all.into_iter().zip(1..).map(|(lane, seed)| tokio::spawn(rounds(lane, seed << 32, each)));
                for round in rounds.collect::<Vec<_>>() {
                    round.await.unwrap();
                }
            })
        }
        "single" => client.spawn(singles(first, count)),
        "burst" => client.spawn(burst(first, count)),
        "credits" => client.spawn(async move { credits(&payer, count).await }),
        _ => client.spawn(many(first, count, batch)),
    };
    client.block_on(run).unwrap();
    let (wall, cpu, hub_cpu) = (begin.elapsed(), cpu_seconds("client") - before, cpu_seconds("hub") - hub_before);
    println!(
        "{scene}: {count} in {:.3} s, {:.0}/s; CPU us each: client {:.3}, hub {:.3}; {:.0} MiB",
        wall.as_secs_f64(),
        count as f64 / wall.as_secs_f64(),
        cpu * 1e6 / count as f64,
        hub_cpu * 1e6 / count as f64,
        rss_mib()
    );
    client.block_on(async {
        for (started, _) in &ready {
            started.shut_down().await;
        }
    });
}
