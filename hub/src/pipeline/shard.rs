//! A shard's thread: gathers what has arrived, judges it at one time, hands it on.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use weir_protocol::amount::Time;
use weir_protocol::reject::Reject;

use super::committer::{Bundle, ToCommitter};
use super::gate::TimeGate;
use super::handle::ReplyTo;
use crate::clock::Clock;
use crate::engine::said::Said;
use crate::engine::shard::{Input, Output, Shard};

/// Inputs that are judged together at most: under load, a commit is worth its sync.
const BATCH_MAX: usize = 1024;
/// Payments from which on nothing more joins those that are judged together.
const BATCH_PAYMENTS: usize = 32 * 1024;
/// Batches of a shard that may wait at the committer; beyond, the shard waits.
pub(super) const BATCHES_AHEAD: usize = 3;
/// Longest sleep of an idle shard: a set clock is noticed by then.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// A message to a shard. Clients' messages carry a permit, which bounds the queue; the committer's are few.
#[derive(Debug)]
pub(super) struct ToShard {
    pub(super) input: Input<ReplyTo>,
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// Everything that a shard's thread owns.
#[derive(Debug)]
pub(super) struct ShardThread {
    pub(super) number: usize,
    pub(super) shard: Shard<ReplyTo>,
    pub(super) inputs: Receiver<ToShard>,
    pub(super) committer: SyncSender<ToCommitter>,
    /// Takes a place for each batch on its way; the committer gives it back.
    pub(super) places: SyncSender<()>,
    pub(super) gate: Arc<TimeGate>,
    pub(super) clock: Arc<Clock>,
    /// The last time that the clock could be trusted.
    pub(super) time: Time,
}

impl ShardThread {
    /// Runs until the handle and the committer are gone.
    pub(super) fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            match self.gather(&mut batch) {
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            }
            if self.gate.is_closed() {
                return;
            }
            let mut refused = Vec::new();
            if let Ok(now) = self.clock.now() {
                self.time = now;
            } else {
                // The hub's own messages still count; nobody is served until the clock can be trusted again.
                let (own, clients) = batch.drain(..).partition(is_own);
                batch = own;
                refused = clients.into_iter().filter_map(refuse).collect();
            }
            let now = self.gate.enter(self.number, self.time);
            let mut outputs = self.shard.handle(batch.drain(..), now);
            outputs.append(&mut refused);
            let handed_on = self.hand_on(now, outputs);
            self.gate.leave(self.number);
            if !handed_on {
                return;
            }
        }
    }

    fn gather(&self, batch: &mut Vec<Input<ReplyTo>>) -> Result<(), RecvTimeoutError> {
        let now = Time(crate::clock::wall_ms());
        let sleep = match self.shard.next_wake() {
            Some(wake) => Duration::from_millis(wake.0.saturating_sub(now.0)).min(SLEEP_MAX),
            None => SLEEP_MAX,
        };
        let first = self.inputs.recv_timeout(sleep)?;
        let mut payments = payments(&first.input);
        batch.push(open(first));
        while batch.len() < BATCH_MAX && payments < BATCH_PAYMENTS {
            let Ok(next) = self.inputs.try_recv() else { break };
            payments += self::payments(&next.input);
            batch.push(open(next));
        }
        Ok(())
    }

    /// `false`: the committer is gone.
    fn hand_on(&self, judged_at: Time, outputs: Vec<Output<ReplyTo>>) -> bool {
        if outputs.is_empty() {
            return true;
        }
        let bundle = Bundle { shard: self.number, judged_at, outputs: outputs.into() };
        // Fails only when the committer is gone, which the next line says.
        let _ = self.places.send(());
        self.committer.send(ToCommitter::Bundle(bundle)).is_ok()
    }
}

fn payments(input: &Input<ReplyTo>) -> usize {
    if let Input::Frame { frame, .. } = input { frame.run.len() } else { 0 }
}

fn open(message: ToShard) -> Input<ReplyTo> {
    drop(message.permit);
    message.input
}

/// Whether a message comes from the hub itself.
fn is_own(input: &Input<ReplyTo>) -> bool {
    match input {
        Input::Notice(_) | Input::Decided { .. } | Input::Restrict { .. } | Input::Lift { .. } | Input::Gone { .. } => {
            true
        }
        Input::Attach { .. } | Input::Frame { .. } | Input::Act { .. } | Input::Close { .. } | Input::Ask { .. } => {
            false
        }
    }
}

/// The answer to what arrives while the clock cannot be trusted. Frames are dropped: their stream is told at its attach.
fn refuse(input: Input<ReplyTo>) -> Option<Output<ReplyTo>> {
    match input {
        Input::Attach { reply, .. } => {
            Some(Output::Say { reply, said: Said::Hint { reject: Reject::Stopped, fault: 0 } })
        }
        Input::Act { reply, .. } | Input::Close { reply, .. } | Input::Ask { reply, .. } => {
            Some(Output::Say { reply, said: Said::Refused(Reject::Stopped) })
        }
        _ => None,
    }
}
