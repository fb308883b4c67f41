//! Commit times against judgement times, without a lock.
//!
//! A shard judges at a time t; what it judged holds until some instant after t. The committer must give the commit that
//! takes it a time ≤ t, or the judgement could have lapsed. Times of commits never fall, so every commit's time must be
//! at or before every judgement that is still on its way:
//!
//! - A shard [`enter`](TimeGate::enter)s before it judges and [`leave`](TimeGate::leave)s after what it judged lies in the
//!   committer's queue. While inside, its floor is at or below the time at which it judges.
//! - The committer [`announce`](TimeGate::announce)s its clock *first*, reads the floors, and then drains its queue. A
//!   shard that enters later sees the announcement and judges at or after it; one that was inside holds the time down; one
//!   that had left has its work in the queue, whose own times hold the commit's time down.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use weir_protocol::amount::Time;

/// One per pipeline.
#[derive(Debug)]
pub(super) struct TimeGate {
    announced: AtomicU64,
    floors: Vec<AtomicU64>,
    closed: AtomicBool,
}

impl TimeGate {
    /// `last`: the last commit's time. The clock may have been set back since; nothing is judged at a time before it.
    pub(super) fn new(shards: usize, last: Time) -> Self {
        let floors = (0..shards).map(|_| AtomicU64::new(u64::MAX)).collect();
        Self { announced: AtomicU64::new(last.0), floors, closed: AtomicBool::new(false) }
    }

    /// A shard is about to judge; the time at which it must.
    pub(super) fn enter(&self, shard: usize, now: Time) -> Time {
        if let Some(floor) = self.floors.get(shard) {
            floor.store(now.0, Ordering::SeqCst);
        }
        Time(now.0.max(self.announced.load(Ordering::SeqCst)))
    }

    /// What the shard judged lies in the committer's queue.
    pub(super) fn leave(&self, shard: usize) {
        if let Some(floor) = self.floors.get(shard) {
            floor.store(u64::MAX, Ordering::SeqCst);
        }
    }

    /// The pipeline ends: shards judge nothing more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// The committer's clock; the latest time that the next commit may have for what is not in its queue yet.
    pub(super) fn announce(&self, now: Time) -> Time {
        self.announced.fetch_max(now.0, Ordering::SeqCst);
        let floors = self.floors.iter().map(|floor| floor.load(Ordering::SeqCst)).min();
        Time(now.0.min(floors.unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judgement_holds_the_time_of_commits_down_until_it_is_queued() {
        let gate = TimeGate::new(2, Time(9));
        assert_eq!(gate.enter(0, Time(8)), Time(9), "a clock that was set back");
        gate.leave(0);
        assert_eq!(gate.enter(0, Time(10)), Time(10));
        assert_eq!(gate.announce(Time(12)), Time(10));
        assert_eq!(gate.enter(1, Time(11)), Time(12), "a shard that comes late judges at the announced time");
        gate.leave(0);
        assert_eq!(gate.announce(Time(13)), Time(11));
        gate.leave(1);
        assert_eq!(gate.announce(Time(14)), Time(14));
    }
}
