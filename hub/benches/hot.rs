//! The engine's hot functions, one by one: judging a frame, hashing a group, writing a record.
//!
//! `cargo bench -p weir-hub --bench hot [-- FILTER]`. Times are this machine's, under its load: compare within a run.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run should say where")]

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use weir_hub::engine::record::{GroupRecord, ItemRecord, Record};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::channel::{LaneGrant, LaneMode};
use weir_protocol::commit::{Commit, SignedCommit};
use weir_protocol::hash::{Hash, sha256};
use weir_protocol::id::{AccountId, ChannelId, HubId, Reference};
use weir_protocol::keys::{PublicKey, SecretKey};
use weir_protocol::lane::hub::{Bounds, Lane};
use weir_protocol::payment::{Frame, Head, Payment, Run, next_state};

/// Payments of a frame.
const SIZES: [usize; 3] = [1, 256, 1024];
/// Different payees of the payments.
const PAYEES: u64 = 100;

fn hash(number: u64) -> Hash {
    sha256(&number.to_le_bytes())
}

fn key() -> SecretKey {
    SecretKey::from_bytes(&[7; 32]).unwrap()
}

fn lane() -> Lane {
    Lane::new(LaneGrant {
        channel: ChannelId(hash(1).0),
        lane: 0,
        scheme: 0,
        key: key().public(),
        mode: LaneMode::Shared,
        payee: None,
        limit: Amount::from_nanos(u64::MAX),
        period: 0,
        expires_at: Time::MAX,
    })
}

const fn bounds() -> Bounds {
    Bounds {
        now: Time(1),
        opened_at: Time(0),
        expires_at: Time::MAX,
        headroom: Amount::from_nanos(u64::MAX),
        headroom_from: Time(0),
        frozen: false,
        payment_max: Amount::ZERO,
    }
}

/// The lane's first frame, and the head that it leads to.
fn frame(lane: &Lane, count: usize) -> (Frame, Head) {
    let mut head = *lane.head();
    let mut payments = Vec::new();
    for sequence in (1..).take(count) {
        let payment = Payment {
            payee: AccountId(PublicKey(hash(sequence % PAYEES).0)),
            amount: Amount::from_nanos(1 + sequence * 1_000),
            reference: Reference(hash(sequence).0),
        };
        head.state = next_state(&head.state, sequence, &payment);
        head.sequence = sequence;
        head.total = head.total.checked_add(payment.amount).unwrap();
        payments.push(payment);
    }
    let signature = key().sign(&head.digest(&lane.id()));
    let run = Run::new(1, &payments).unwrap();
    (Frame { previous_sequence: 0, run, valid_until: Time(0), signature }, head)
}

fn group(count: usize) -> GroupRecord {
    let lane = lane();
    let (frame, head) = frame(&lane, count);
    let signature = frame.signature;
    GroupRecord { lane: lane.id(), currency: Currency::EUR, head, signature, runs: vec![frame.run] }
}

fn judging(criterion: &mut Criterion) {
    let (lane, bounds, parsed) = (lane(), bounds(), key().public().parse().unwrap());
    let mut group = criterion.benchmark_group("judge, with its signature");
    for size in SIZES {
        let (frame, head) = frame(&lane, size);
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::new("frame", size), |bench| {
            bench.iter_batched(
                || vec![frame.clone()],
                |frames| {
                    let taken = lane.judge(frames, &bounds, &parsed, &mut |_| Ok(()));
                    assert_eq!(taken.groups.first().map(|group| group.head), Some(head));
                    taken
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn groups(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("group");
    for size in SIZES {
        let group = group(size);
        let receipts = group.receipts();
        benches.throughput(Throughput::Elements(size as u64));
        benches.bench_function(BenchmarkId::new("receipts", size), |bench| bench.iter(|| black_box(&group).receipts()));
        benches.bench_function(BenchmarkId::new("item", size), |bench| {
            bench.iter(|| black_box(&group).item(black_box(&receipts)));
        });
    }
    benches.finish();
}

fn records(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("record");
    // Groups of a commit and payments of each: many lanes that pay singly, one that is busy, many that are.
    for (groups, size) in [(256, 1), (1, 1024), (64, 1024)] {
        let items: Vec<ItemRecord> = vec![ItemRecord::Group(group(size)); groups];
        let commit = Commit {
            hub: HubId(key().public()),
            chain: 1,
            number: 2,
            time: Time(3),
            history: hash(4),
            items: u32::try_from(groups).unwrap(),
            root: hash(5),
        };
        let commit = SignedCommit { commit, signature: key().sign(&commit.id()) };
        let record = Record { commit, items };
        let payload = record.encode();
        let name = format!("{groups} x {size}");
        benches.throughput(Throughput::Elements((groups * size) as u64));
        benches.bench_function(BenchmarkId::new("encode", &name), |bench| bench.iter(|| black_box(&record).encode()));
        benches.bench_function(BenchmarkId::new("decode", &name), |bench| {
            bench.iter(|| Record::decode(black_box(&payload)).unwrap());
        });
    }
    benches.finish();
}

criterion_group!(hot, judging, groups, records);
criterion_main!(hot);
