//! What is counted while payments are made: shared by all lanes, cheap to touch, read from outside at any instant.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use weir_client::PaidGroup;
use weir_client::protocol::payment::{Frame, Run};
use weir_client::protocol::wire::{LaneReply, LaneRequest, encode};

/// Places for counting, so that lanes seldom meet at one.
const SHARDS: usize = 16;
/// Latencies above this count as this.
const LONGEST_US: u64 = 600 * 1_000_000;
/// One group of a lane in so many is looked at for its size on the wire.
const SAMPLE_EVERY: u64 = 64;

/// A histogram of microseconds, or of whatever whole numbers, to three digits.
pub(super) fn histogram() -> Histogram<u64> {
    // The bounds are right, so this does not fail.
    Histogram::new_with_bounds(1, LONGEST_US, 3)
        .unwrap_or_else(|_| Histogram::new(3).unwrap_or_else(|_| unreachable!()))
}

#[derive(Debug)]
struct Shard {
    sent: AtomicU64,
    sent_nanos: AtomicU64,
    paid: AtomicU64,
    frames: AtomicU64,
    groups: AtomicU64,
    latency: Mutex<Histogram<u64>>,
    sizes: Mutex<Sizes>,
}

/// Bytes of messages that were looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sizes {
    messages: u64,
    up: u64,
    down: u64,
}

impl Sizes {
    /// Mean bytes of a frame, and of answers for each frame; none before any was looked at.
    pub(super) const fn mean(&self) -> Option<(u64, u64)> {
        if self.messages == 0 {
            None
        } else {
            Some((self.up.div_ceil(self.messages), self.down.div_ceil(self.messages)))
        }
    }
}

/// Totals since the beginning.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    /// Orders given to lanes.
    pub(super) sent: u64,
    /// Their sum.
    pub(super) sent_nanos: u64,
    /// Payments whose commit was checked: signature and path.
    pub(super) paid: u64,
    /// Frames that they were sent in.
    pub(super) frames: u64,
    /// Groups that they came back in, each under one signature of a lane.
    pub(super) groups: u64,
}

/// The counters.
#[derive(Debug)]
pub(super) struct Meter {
    base: Instant,
    /// Latencies of payments begun from then on count; in nanoseconds since `base`.
    from_ns: AtomicU64,
    shards: Vec<Shard>,
    failure: Mutex<Option<String>>,
}

impl Meter {
    pub(super) fn new() -> Self {
        let shard = || Shard {
            sent: AtomicU64::new(0),
            sent_nanos: AtomicU64::new(0),
            paid: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            groups: AtomicU64::new(0),
            latency: Mutex::new(histogram()),
            sizes: Mutex::default(),
        };
        Self {
            base: Instant::now(),
            from_ns: AtomicU64::new(u64::MAX),
            shards: (0..SHARDS).map(|_| shard()).collect(),
            failure: Mutex::default(),
        }
    }

    /// Now, as a tag of orders.
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The instant of a tag.
    pub(super) fn instant(&self, tag_ns: u64) -> Instant {
        self.base + Duration::from_nanos(tag_ns)
    }

    /// Latencies of payments begun from now on count.
    pub(super) fn record(&self) {
        self.from_ns.store(self.now_ns(), Ordering::Relaxed);
    }

    /// Latencies of payments begun from now on do not count.
    pub(super) fn rest(&self) {
        self.from_ns.store(u64::MAX, Ordering::Relaxed);
    }

    fn shard(&self, lane: usize) -> Option<&Shard> {
        self.shards.get(lane % SHARDS)
    }

    /// Orders go to a lane.
    pub(super) fn sent(&self, lane: usize, orders: u64, nanos: u64) {
        if let Some(shard) = self.shard(lane) {
            shard.sent.fetch_add(orders, Ordering::Relaxed);
            shard.sent_nanos.fetch_add(nanos, Ordering::Relaxed);
        }
    }

    /// Payments of a group of a lane are proven, begun at these instants.
    pub(super) fn paid(&self, lane: usize, group: &PaidGroup, begun_ns: impl ExactSizeIterator<Item = u64>) {
        let Some(shard) = self.shard(lane) else { return };
        let (now, from) = (self.now_ns(), self.from_ns.load(Ordering::Relaxed));
        let count = begun_ns.len() as u64;
        {
            let mut latency = shard.latency.lock().unwrap_or_else(PoisonError::into_inner);
            // Payments given together began together: one entry for all of them.
            let (mut last, mut run) = (0, 0);
            for begun in begun_ns {
                if begun != last {
                    add(&mut latency, now, last, run, from);
                    (last, run) = (begun, 0);
                }
                run += 1;
            }
            add(&mut latency, now, last, run, from);
        }
        shard.frames.fetch_add(group.runs.len() as u64, Ordering::Relaxed);
        let before = shard.groups.fetch_add(1, Ordering::Relaxed);
        if before % SAMPLE_EVERY == 0 {
            self.sample(lane, group);
        }
        shard.paid.fetch_add(count, Ordering::Relaxed);
    }

    /// Looks at the bytes of a group's messages: its frames up, one answer down.
    fn sample(&self, lane: usize, group: &PaidGroup) {
        let Some(shard) = self.shard(lane) else { return };
        let frame = |run: &Run| {
            let previous_sequence = run.first_sequence().saturating_sub(1);
            let (valid_until, signature) = (group.head.valid_until, group.signature);
            LaneRequest::Frame(Frame { previous_sequence, run: run.clone(), valid_until, signature })
        };
        let mut sizes = shard.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        sizes.messages += group.runs.len() as u64;
        sizes.up += group.runs.iter().map(|run| frame(run).encode().len() as u64).sum::<u64>();
        sizes.down += encode(&LaneReply::Taken(Box::new(group.answer.clone()))).len() as u64;
    }

    /// The totals now.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for shard in &self.shards {
            totals.paid += shard.paid.load(Ordering::Relaxed);
            totals.frames += shard.frames.load(Ordering::Relaxed);
            totals.groups += shard.groups.load(Ordering::Relaxed);
            totals.sent += shard.sent.load(Ordering::Relaxed);
            totals.sent_nanos += shard.sent_nanos.load(Ordering::Relaxed);
        }
        totals
    }

    /// All latencies that counted, in microseconds.
    pub(super) fn latencies(&self) -> Histogram<u64> {
        let mut all = histogram();
        for shard in &self.shards {
            // Both have the same bounds.
            let _ = all.add(&*shard.latency.lock().unwrap_or_else(PoisonError::into_inner));
        }
        all
    }

    /// Sizes of messages.
    pub(super) fn sizes(&self) -> Sizes {
        let mut all = Sizes::default();
        for shard in &self.shards {
            let sizes = *shard.sizes.lock().unwrap_or_else(PoisonError::into_inner);
            all.messages += sizes.messages;
            all.up += sizes.up;
            all.down += sizes.down;
        }
        all
    }

    /// Something went wrong on a lane; the first word is kept.
    pub(super) fn fail(&self, what: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
    }

    /// What went wrong first.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn add(latency: &mut Histogram<u64>, now: u64, begun: u64, count: u64, from: u64) {
    if count > 0 && begun >= from {
        let us = (now.saturating_sub(begun) / 1_000).max(1);
        latency.saturating_record_n(us, count);
    }
}
