//! What the reader of a lane's stream and the writer of its answers share: which frames wait for an answer, and whether
//! the stream is heard. Each attach begins an *epoch*: what is said to an older one no longer changes what is heard.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use weir_protocol::reject::Reject;

use super::limits::Limits;

/// What reader and writer share.
#[derive(Debug, Default)]
pub(super) struct Flow {
    state: Mutex<State>,
    /// Wakes the reader.
    changed: Notify,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Counts the attaches of this stream.
    pub(super) epoch: u32,
    /// Whether frames are heard: from an attach on, until a refusal.
    pub(super) hears: bool,
    /// Whether an attach waits for its answer.
    pub(super) attaching: bool,
    pub(super) unanswered: VecDeque<Unanswered>,
    pub(super) payments: usize,
    /// The last epoch that was refused.
    pub(super) refused: Option<u32>,
    /// Why the stream was given up.
    pub(super) ended: Option<Reject>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Unanswered {
    pub(super) epoch: u32,
    pub(super) last_sequence: u64,
    pub(super) payments: usize,
}

impl State {
    pub(super) const fn has_room(&self, limits: &Limits) -> bool {
        self.payments < limits.payments
    }

    /// A frame goes to the shard and will be answered; `false`: the stream is not heard any more.
    pub(super) fn expect(&mut self, last_sequence: u64, payments: usize) -> bool {
        if self.hears {
            self.unanswered.push_back(Unanswered { epoch: self.epoch, last_sequence, payments });
            self.payments += payments;
        }
        self.hears
    }

    /// Whether nobody waits for anything any more.
    pub(super) fn is_settled(&self) -> bool {
        self.unanswered.is_empty() && !self.attaching
    }

    fn settle(&mut self, settled: impl Fn(&Unanswered) -> bool) {
        while let Some(first) = self.unanswered.front().filter(|first| settled(first)) {
            self.payments -= first.payments;
            self.unanswered.pop_front();
        }
    }

    /// What something said to `epoch` changes.
    pub(super) fn heard(&mut self, epoch: u32, said: &Settles) {
        match said {
            Settles::Through(sequence) => {
                self.settle(|frame| frame.epoch < epoch || (frame.epoch == epoch && frame.last_sequence <= *sequence));
            }
            Settles::Attached => {
                self.settle(|frame| frame.epoch < epoch);
                self.attaching &= self.epoch != epoch;
            }
            Settles::Everything => {
                self.settle(|frame| frame.epoch <= epoch);
                if self.epoch == epoch {
                    self.refused = Some(epoch);
                    self.hears = false;
                    self.attaching = false;
                }
            }
        }
    }
}

/// Which frames an answer settles.
#[derive(Debug, Clone, Copy)]
pub(super) enum Settles {
    /// Those through a sequence.
    Through(u64),
    /// Those before the attach.
    Attached,
    /// All: nothing more is heard until an attach.
    Everything,
}

impl Flow {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.changed.notify_one();
        changed
    }

    /// The writer can do no more.
    pub(super) fn end(&self, reject: Reject) {
        self.change(|state| state.ended = Some(reject));
    }

    /// Waits until something holds or the stream has ended.
    pub(super) async fn until(&self, holds: impl Fn(&State) -> bool) -> Result<(), Reject> {
        loop {
            {
                let state = self.state();
                if let Some(reject) = state.ended {
                    return Err(reject);
                }
                if holds(&state) {
                    return Ok(());
                }
            }
            self.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(frames: &[(u32, u64)]) -> State {
        let mut state = State { epoch: 2, hears: true, attaching: true, ..State::default() };
        for (epoch, last_sequence) in frames {
            state.unanswered.push_back(Unanswered { epoch: *epoch, last_sequence: *last_sequence, payments: 3 });
            state.payments += 3;
        }
        state
    }

    #[test]
    fn answer_settles_its_frames_and_no_later_ones() {
        let mut state = state(&[(1, 5), (2, 8), (2, 9)]);
        state.heard(2, &Settles::Through(8));
        assert_eq!((state.unanswered.len(), state.payments), (1, 3));
        assert!(state.hears && state.attaching);
    }

    #[test]
    fn refusal_of_an_older_attach_leaves_the_newer_one_hearing() {
        let mut state = state(&[(1, 5), (2, 8)]);
        state.heard(1, &Settles::Everything);
        assert_eq!(state.unanswered.len(), 1);
        assert!(state.hears && state.attaching);
        state.heard(2, &Settles::Everything);
        assert_eq!((state.unanswered.len(), state.payments), (0, 0));
        assert!(!state.hears && !state.attaching);
    }

    #[test]
    fn attached_settles_what_was_sent_before_the_attach() {
        let mut state = state(&[(1, 5), (2, 8)]);
        state.heard(2, &Settles::Attached);
        assert_eq!(state.unanswered.len(), 1);
        assert!(state.hears && !state.attaching);
    }
}
