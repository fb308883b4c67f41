//! A lane's stream: attaches and frames to the shard, answers back, in order.
//!
//! Two tasks share a stream. The reader hands on what arrives while few enough frames wait for an answer; beyond, it stops
//! reading and QUIC's flow control pushes back. The writer lets answers out and frees what they cover. Each attach begins
//! an *epoch*: what is said to an older one no longer changes what is heard.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quinn::SendStream;
use tokio::sync::{Notify, mpsc};
use weir_protocol::id::LaneId;
use weir_protocol::payment::Frame;
use weir_protocol::reject::Reject;
use weir_protocol::wire::{Attach, ClosedLane, LaneReply, LaneRequest, MAX_MESSAGE};

use super::connection::Peer;
use super::framing::{Broken, Messages, append};
use super::limits::Limits;
use super::rates::{Kind, Who};
use super::{Shared, code, lookup};
use crate::engine::said::{About, Said};
use crate::engine::shard::{Input, StreamId};
use crate::pipeline::ReplyTo;
use crate::pipeline::recover::index_key;

/// Answers that are written at once.
const BATCH: usize = 64;

/// Serves a lane's stream after its opening.
pub(super) async fn serve(peer: Arc<Peer>, attach: Attach, send: SendStream, mut messages: Messages) {
    let (queue, said) = mpsc::unbounded_channel();
    let flow = Arc::new(Flow::default());
    tokio::spawn(write(Arc::clone(&peer), Arc::clone(&flow), send, said));
    let stream = peer.shared.stream_id();
    let mut reader = Reader { peer, lane: attach.lane, stream, queue, flow, shard: None };
    let end = reader.run(attach, &mut messages).await;
    if let Some(shard) = reader.shard {
        let gone = Input::Gone { lane: reader.lane, stream };
        // Fails only when the pipeline has ended.
        let _ = reader.peer.shared.handle.send(shard, gone).await;
    }
    match end {
        // What was taken is still answered; the writer ends with the last answer.
        End::Finished => {}
        End::Reset(reject) => {
            messages.stop(reject);
            reader.flow.give_up(reject);
        }
        End::Lost => reader.flow.give_up(Reject::Stopped),
    }
}

/// How a stream ended.
enum End {
    /// The peer sends nothing more.
    Finished,
    /// Neither side has use for it.
    Reset(Reject),
    /// The peer is gone.
    Lost,
}

/// What reader and writer share.
#[derive(Debug, Default)]
struct Flow {
    state: Mutex<State>,
    /// Wakes the reader.
    changed: Notify,
    /// Wakes the writer: the reader has given the stream up.
    given_up: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Counts the attaches of this stream.
    epoch: u64,
    /// Whether frames are heard: from an attach on, until a refusal.
    hears: bool,
    /// Whether an attach waits for its answer.
    attaching: bool,
    unanswered: VecDeque<Unanswered>,
    payments: usize,
    /// The last epoch that was refused.
    refused: Option<u64>,
    /// Why the stream was given up.
    ended: Option<Reject>,
}

#[derive(Debug, Clone, Copy)]
struct Unanswered {
    epoch: u64,
    last_sequence: u64,
    payments: usize,
}

impl State {
    const fn has_room(&self, limits: &Limits) -> bool {
        self.payments < limits.payments
    }

    fn settle(&mut self, settled: impl Fn(&Unanswered) -> bool) {
        while let Some(first) = self.unanswered.front().filter(|first| settled(first)) {
            self.payments -= first.payments;
            self.unanswered.pop_front();
        }
    }

    /// What something said to `epoch` changes.
    fn heard(&mut self, epoch: u64, said: &Settles) {
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
enum Settles {
    /// Those through a sequence.
    Through(u64),
    /// Those before the attach.
    Attached,
    /// All: nothing more is heard until an attach.
    Everything,
}

impl Flow {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_one();
    }

    /// The writer can do no more.
    fn end(&self, reject: Reject) {
        self.change(|state| state.ended = Some(reject));
    }

    /// The reader can do no more: nobody waits for the answers.
    fn give_up(&self, reject: Reject) {
        self.end(reject);
        self.given_up.notify_one();
    }

    /// Waits until something holds or the stream has ended.
    async fn until(&self, holds: impl Fn(&State) -> bool) -> Result<(), Reject> {
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

/// What is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Frame,
    Attach,
}

struct Reader {
    peer: Arc<Peer>,
    lane: LaneId,
    stream: StreamId,
    queue: mpsc::UnboundedSender<(u64, Said)>,
    flow: Arc<Flow>,
    /// The lane's shard, once an attach went there.
    shard: Option<usize>,
}

impl Reader {
    async fn run(&mut self, attach: Attach, messages: &mut Messages) -> End {
        if let Err(reject) = self.attach(attach).await {
            return End::Reset(reject);
        }
        loop {
            let flow = Arc::clone(&self.flow);
            let limits = self.peer.shared.limits;
            let room = flow.until(|state| state.unanswered.len() < limits.frames && state.has_room(&limits));
            match tokio::time::timeout(limits.answer_timeout, room).await {
                Ok(Ok(())) => {}
                Ok(Err(reject)) => return End::Reset(reject),
                Err(_) => return End::Reset(Reject::Stopped),
            }
            let request = tokio::select! {
                body = messages.next(MAX_MESSAGE) => match body {
                    Ok(Some(body)) => LaneRequest::decode(body),
                    Ok(None) => return End::Finished,
                    Err(Broken::Framing(reject)) => return End::Reset(reject),
                    Err(Broken::Lost) => return End::Lost,
                },
                Err(reject) = flow.until(|_| false) => return End::Reset(reject),
            };
            let heard = match request {
                Ok(LaneRequest::Frame(frame)) => self.frame(frame).await,
                Ok(LaneRequest::Attach(attach)) => self.attach(attach).await,
                Err(_) => self.refuse(Reject::Malformed, What::Frame).await,
            };
            if let Err(reject) = heard {
                return End::Reset(reject);
            }
        }
    }

    async fn frame(&self, frame: Frame) -> Result<(), Reject> {
        if !self.flow.state().hears {
            return Ok(());
        }
        if frame.run.check_shape().is_err() {
            return self.refuse(Reject::Malformed, What::Frame).await;
        }
        if let Err(reject) = self.peer.shared.handle.now() {
            return self.refuse(reject, What::Frame).await;
        }
        let Some(shard) = self.shard else { return Ok(()) };
        {
            let mut state = self.flow.state();
            if !state.hears {
                return Ok(());
            }
            let payments = frame.run.len();
            let epoch = state.epoch;
            state.unanswered.push_back(Unanswered { epoch, last_sequence: frame.run.last_sequence(), payments });
            state.payments += payments;
        }
        let input = Input::Frame { lane: self.lane, stream: self.stream, frame };
        self.peer.shared.handle.send(shard, input).await
    }

    async fn attach(&mut self, attach: Attach) -> Result<(), Reject> {
        // One at a time: the next waits here, not in the shard.
        self.answered(|state| !state.attaching).await?;
        let owner = if attach.lane == self.lane {
            self.peer.attaching_lane(&attach.lane).await
        } else {
            Err(Reject::UnknownLane)
        };
        let counted = owner
            .and_then(|owner| self.peer.shared.rates.take(Kind::Attach, Who::Account(owner.account)).map(|()| owner));
        let owner = match counted {
            Ok(owner) => owner,
            Err(reject) => return self.refuse(reject, What::Attach).await,
        };
        let handle = &self.peer.shared.handle;
        let shard = handle.shard_of(&owner.channel.0);
        let epoch = {
            let mut state = self.flow.state();
            state.epoch += 1;
            state.hears = true;
            state.attaching = true;
            state.epoch
        };
        self.shard = Some(shard);
        let reply = ReplyTo::new(epoch, self.queue.clone());
        let input = Input::Attach { lane: self.lane, stream: self.stream, void_through: attach.void_through, reply };
        handle.send(shard, input).await
    }

    /// Refuses what the shard never saw, after everything that it did see was answered. Where the shard's own refusal comes
    /// in between, a frame is one of those that it drops.
    async fn refuse(&self, reject: Reject, what: What) -> Result<(), Reject> {
        let (epoch, was_heard) = {
            let mut state = self.flow.state();
            let was_heard = core::mem::take(&mut state.hears);
            (state.epoch, was_heard)
        };
        self.answered(|state| state.unanswered.is_empty() && !state.attaching).await?;
        let dropped = what == What::Frame && was_heard && self.flow.state().refused == Some(epoch);
        if !dropped {
            // The writer lives as long as the stream.
            let _ = self.queue.send((epoch, Said::Hint { reject, fault: 0 }));
        }
        Ok(())
    }

    async fn answered(&self, holds: impl Fn(&State) -> bool) -> Result<(), Reject> {
        let limit = self.peer.shared.limits.answer_timeout;
        tokio::time::timeout(limit, self.flow.until(holds)).await.map_err(|_| Reject::Stopped)?
    }
}

async fn write(peer: Arc<Peer>, flow: Arc<Flow>, mut send: SendStream, mut said: mpsc::UnboundedReceiver<(u64, Said)>) {
    let mut batch = Vec::new();
    let mut bytes = Vec::new();
    loop {
        tokio::select! {
            count = said.recv_many(&mut batch, BATCH) => if count == 0 { break },
            () = flow.given_up.notified() => return give_up(&flow, &mut send),
        }
        let mut settled = Vec::with_capacity(batch.len());
        let mut ends = None;
        for (epoch, said) in batch.drain(..) {
            if let Said::Hangup = said {
                peer.quinn.close(code(Reject::Signature), b"");
                return;
            }
            if let Said::Hint { reject: Reject::Detached, .. } = said {
                ends = Some(Reject::Detached);
            }
            let settles = match &said {
                Said::Taken { commit, index } => {
                    Settles::Through(commit.group(*index).map_or(0, |group| group.head.sequence))
                }
                Said::Attached { .. } => Settles::Attached,
                _ => Settles::Everything,
            };
            settled.push((epoch, settles));
            append(&reply(&peer.shared, said).await, &mut bytes);
        }
        let written = tokio::select! {
            written = send.write_all(&bytes) => written,
            () = flow.given_up.notified() => return give_up(&flow, &mut send),
        };
        if written.is_err() {
            return flow.end(Reject::Stopped);
        }
        bytes.clear();
        flow.change(|state| settled.iter().for_each(|(epoch, settles)| state.heard(*epoch, settles)));
        if let Some(reject) = ends {
            let _ = send.finish();
            flow.end(reject);
            // Until the peer has it all: dropping the stream later must not take it back.
            let _ = send.stopped().await;
            return;
        }
    }
    // Both may be so at once: the reader gave up, and with it went the last one that could say something.
    if flow.state().ended.is_some() {
        return give_up(&flow, &mut send);
    }
    let _ = send.finish();
}

fn give_up(flow: &Flow, send: &mut SendStream) {
    let reject = flow.state().ended.unwrap_or(Reject::Stopped);
    // Fails only when the stream is over already.
    let _ = send.reset(code(reject));
}

async fn reply(shared: &Arc<Shared>, said: Said) -> LaneReply {
    if let Some(reply) = said.lane_reply() {
        return reply;
    }
    let refused = |reject| LaneReply::Refused { reject, fault: 0 };
    match said {
        Said::LaneClosed { close, head, signature, path } => {
            let key = index_key(&About::Channel(close.channel));
            let find = move |shared: &Shared| {
                lookup::find_act(
                    &shared.handle,
                    key,
                    &|record| matches!(&record.act, weir_protocol::act::Act::Close(found) if *found == close),
                )
            };
            match lookup::blocking(shared, find).await {
                Ok(Some((_, proof))) => LaneReply::Closed(Box::new(ClosedLane { close, proof, head, signature, path })),
                Ok(None) => refused(Reject::Pruned),
                Err(reject) => refused(reject),
            }
        }
        Said::Refused(reject) => refused(reject),
        // Nothing else is said to a lane.
        _ => refused(Reject::Stopped),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(frames: &[(u64, u64)]) -> State {
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
