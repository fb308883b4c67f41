//! The protocol's hot functions, one by one: hashes, trees, frames, signatures, answers.
//!
//! `cargo bench -p weir-protocol --bench hot [-- FILTER]`. Times are this machine's, under its load: compare within a run.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run should say where")]

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use weir_protocol::act::Certificate;
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::commit::{Answer, Commit, SignedCertificate, SignedCommit, group_item};
use weir_protocol::hash::{Hash, sha256};
use weir_protocol::http::challenge::Details;
use weir_protocol::http::{Challenge, ChargeRequest, Credential, Expected, Resource, SCALE, Secret};
use weir_protocol::id::{AccountId, HubId, LaneId, Reference};
use weir_protocol::keys::{PublicKey, SecretKey};
use weir_protocol::merkle::{self, Tree, multiproof_root};
use weir_protocol::payment::{Frame, Head, Payment, Run, next_state, payment_id, receipt_leaf};
use weir_protocol::receipt::{Receipt, ReceiptFile};
use weir_protocol::wire::{LENGTH_BYTES, LaneRequest};

/// Payments of a frame, leaves of a tree.
const SIZES: [usize; 3] = [1, 64, 1024];
/// Different payees of the payments.
const PAYEES: u64 = 100;

fn hash(number: u64) -> Hash {
    sha256(&number.to_le_bytes())
}

fn payment(number: u64) -> Payment {
    Payment {
        payee: AccountId(PublicKey(hash(number % PAYEES).0)),
        amount: Amount::from_nanos(1 + number * 1_000),
        reference: Reference(hash(number).0),
    }
}

fn frame(count: usize) -> Frame {
    let payments: Vec<Payment> = (1..).take(count).map(payment).collect();
    let run = Run::new(1_000, &payments).unwrap();
    let signature = SecretKey::from_bytes(&[7; 32]).unwrap().sign(&hash(0));
    Frame { previous_sequence: 999, run, valid_until: Time(0), signature }
}

fn hashes(criterion: &mut Criterion) {
    let (lane, paid) = (LaneId(hash(1).0), payment(1));
    let head = Head { state: hash(2), sequence: 7, total: Amount::from_nanos(9), valid_until: Time(0) };
    let mut group = criterion.benchmark_group("hash");
    group.bench_function("next_state", |bench| bench.iter(|| next_state(black_box(&head.state), 7, black_box(&paid))));
    group.bench_function("payment_id and receipt_leaf", |bench| {
        bench.iter(|| receipt_leaf(&payment_id(black_box(&lane), 7), black_box(&paid), Currency::EUR));
    });
    group.bench_function("head digest", |bench| bench.iter(|| black_box(&head).digest(black_box(&lane))));
    group.finish();
}

fn trees(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("merkle");
    for size in SIZES {
        let leaves: Vec<Hash> = (0..).take(size).map(hash).collect();
        let tree = Tree::new(leaves.clone());
        let root = tree.root();
        let index = size / 2;
        let path = tree.path(index).unwrap();
        // Every third leaf, as one of three payees would have.
        let wanted: Vec<u32> = (0..u32::try_from(size).unwrap()).step_by(3).collect();
        let proof = tree.multiproof(&wanted);
        let shown: Vec<(u32, Hash)> = wanted.iter().map(|at| (*at, leaves[*at as usize])).collect();
        let count = u32::try_from(size).unwrap();
        group.throughput(Throughput::Elements(size as u64));
        group.bench_with_input(BenchmarkId::new("root", size), &leaves, |bench, leaves| {
            bench.iter(|| assert_eq!(merkle::root(leaves), root));
        });
        group.bench_function(BenchmarkId::new("tree", size), |bench| {
            bench.iter_batched(|| leaves.clone(), Tree::new, BatchSize::SmallInput);
        });
        group.bench_function(BenchmarkId::new("path, checked", size), |bench| {
            bench.iter(|| assert_eq!(black_box(&path).root(&leaves[index]), Some(root)));
        });
        group.bench_function(BenchmarkId::new("multiproof of every third", size), |bench| {
            bench.iter(|| tree.multiproof(black_box(&wanted)));
        });
        group.bench_function(BenchmarkId::new("multiproof of every third, checked", size), |bench| {
            bench.iter(|| assert_eq!(multiproof_root(count, black_box(&shown), &proof), Some(root)));
        });
    }
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    for size in SIZES {
        let request = LaneRequest::Frame(frame(size));
        let bytes = request.encode();
        let body = &bytes[LENGTH_BYTES..];
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::new("encode", size), |bench| bench.iter(|| black_box(&request).encode()));
        group.bench_function(BenchmarkId::new("decode", size), |bench| {
            bench.iter(|| LaneRequest::decode(black_box(body)).unwrap());
        });
    }
    group.finish();
}

fn signatures(criterion: &mut Criterion) {
    let key = SecretKey::from_bytes(&[7; 32]).unwrap();
    let (digest, public) = (hash(0), key.public());
    let (signature, parsed) = (key.sign(&digest), public.parse().unwrap());
    let mut group = criterion.benchmark_group("schnorr");
    group.bench_function("sign", |bench| bench.iter(|| key.sign(black_box(&digest))));
    group.bench_function("verify, parsed key", |bench| {
        bench.iter(|| assert!(parsed.verify(black_box(&digest), &signature)));
    });
    group.bench_function("verify, key as it travels", |bench| {
        bench.iter(|| assert!(public.verify(black_box(&digest), &signature)));
    });
    group.finish();
}

/// What a payer does with an answer: the commit's signature, then the group's place in it.
fn answers(criterion: &mut Criterion) {
    let key = SecretKey::from_bytes(&[7; 32]).unwrap();
    let hub = HubId(SecretKey::from_bytes(&[8; 32]).unwrap().public());
    let certificate = Certificate { key: key.public(), not_before: Time(0), not_after: Time::MAX };
    let (head, leaves) = (hash(1), hash(2));
    let items: Vec<Hash> =
        (0..64).map(|at| if at == 40 { group_item(&head, 256, &leaves) } else { hash(at) }).collect();
    let tree = Tree::new(items);
    let commit = Commit { hub, chain: 1, number: 2, time: Time(3), history: hash(4), items: 64, root: tree.root() };
    let commit = SignedCommit { commit, signature: key.sign(&commit.id()) };
    let path = tree.path(40).unwrap();
    let answer = Answer { first_sequence: 1, through_sequence: 256, count: 256, leaves, commit, path };
    let mut group = criterion.benchmark_group("answer");
    group.bench_function("commit", |bench| bench.iter(|| black_box(&answer).commit.check(&hub, &certificate).unwrap()));
    group.bench_function("group in a commit of 64", |bench| bench.iter(|| black_box(&answer).includes(&head).unwrap()));
    group.finish();
}

/// What a payee does with a request over HTTP: a challenge without a credential; with one, its text and one signature. The
/// receipt is of a group of 64 in a commit of 64.
fn http(criterion: &mut Criterion) {
    let (key, identity) = (SecretKey::from_bytes(&[7; 32]).unwrap(), SecretKey::from_bytes(&[8; 32]).unwrap());
    let (hub, payee) = (HubId(identity.public()), AccountId(PublicKey(hash(3).0)));
    let (secret, realm, currency) = (Secret::from([9; 32]), "news.example", Currency::EUR);
    let request = ChargeRequest {
        amount: Amount::from_nanos(50_000_000),
        currency,
        description: Some("Article 2".to_owned()),
        details: Details {
            hub,
            issued_at: Some(Time(1)),
            metered: false,
            resource: Some(Resource::of("GET", "/article/2")),
            scale: SCALE,
        },
        recipient: payee,
    };
    let issue = || Challenge::issue(&secret, realm, black_box(&request), Time(300_000), [5; 16], None).unwrap();
    let challenge = issue();
    let paid = Payment { payee, amount: request.amount, reference: challenge.reference() };
    let payment_id = payment_id(&LaneId(hash(1).0), 7);
    let tree = |last: Hash| Tree::new((1..64).map(hash).chain([last]).collect::<Vec<_>>());
    let (leaves, head) = (tree(receipt_leaf(&payment_id, &paid, currency)), hash(2));
    let items = tree(group_item(&head, 64, &leaves.root()));
    let commit = Commit { hub, chain: 1, number: 2, time: Time(3), history: hash(4), items: 64, root: items.root() };
    let certificate = Certificate { key: key.public(), not_before: Time(0), not_after: Time::MAX };
    let receipt = Receipt {
        payment_id,
        leaf_path: leaves.path(63).unwrap(),
        head,
        group_path: items.path(63).unwrap(),
        chain: 1,
        number: 2,
        time: commit.time,
        history: commit.history,
        signature: key.sign(&commit.id()),
    };
    let file = ReceiptFile {
        format: ReceiptFile::FORMAT.to_owned(),
        hub,
        payee,
        amount: paid.amount,
        currency,
        reference: paid.reference,
        certificate: SignedCertificate { certificate, signature: identity.sign(&hash(0)) },
        receipt,
    };
    let header = Credential::new(challenge, &file).to_header();
    let token = header.strip_prefix("Payment ").unwrap();
    let expected = Expected { realm, hub, payee, currency };
    let mut group = criterion.benchmark_group("http");
    group.bench_function("challenge, issued", |bench| bench.iter(issue));
    group.bench_function("challenge, issued, as a header", |bench| bench.iter(|| issue().to_header()));
    group.bench_function("credential, read", |bench| bench.iter(|| Credential::from_token(black_box(token)).unwrap()));
    // The certificate is known, as at a gate that has seen it before.
    group.bench_function("credential, read and proven", |bench| {
        bench.iter(|| {
            let credential = Credential::from_token(black_box(token)).unwrap();
            credential.prove(&secret, &expected, |_, _| true).unwrap()
        });
    });
    group.finish();
}

criterion_group!(hot, hashes, trees, frames, signatures, answers, http);
criterion_main!(hot);
