//! A lane's stream, the way in: attaches and frames to the shard, in order.
//!
//! It hands on what arrives while few enough frames wait for an answer; beyond, it stops reading and QUIC's flow control
//! pushes back. The way out is `answers`; what both share is `flow`.

use std::sync::Arc;

use quinn::SendStream;
use weir_protocol::id::LaneId;
use weir_protocol::payment::Frame;
use weir_protocol::reject::Reject;
use weir_protocol::wire::{Attach, LaneRequest, MAX_MESSAGE};

use super::answers::Line;
use super::connection::Peer;
use super::flow::{Flow, State};
use super::framing::{Broken, Messages};
use super::rates::{Kind, Who};
use crate::engine::said::Said;
use crate::engine::shard::{Input, StreamId};

/// Serves a lane's stream after its opening.
pub(super) async fn serve(peer: Arc<Peer>, attach: Attach, send: SendStream, mut messages: Messages) {
    let flow = Arc::new(Flow::default());
    let line = peer.answers().open(send, Arc::clone(&flow));
    let stream = peer.shared.stream_id();
    let mut reader = Reader { peer, lane: attach.lane, stream, line, flow, shard: None };
    let end = reader.run(attach, &mut messages).await;
    if let Some(shard) = reader.shard {
        let gone = Input::Gone { lane: reader.lane, stream };
        // Fails only when the pipeline has ended.
        let _ = reader.peer.shared.handle.send(shard, gone).await;
    }
    let reset = match end {
        // What was taken is still answered; the stream ends with the last answer.
        End::Finished => None,
        End::Reset(reject) => {
            messages.stop(reject);
            Some(reject)
        }
        End::Lost => Some(Reject::Stopped),
    };
    reader.peer.answers().close(line, reset);
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
    line: Line,
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
                // What has arrived needs no look at the other.
                biased;
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
        let (payments, last_sequence) = (frame.run.len(), frame.run.last_sequence());
        if !self.flow.state().expect(last_sequence, payments) {
            return Ok(());
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
        let reply = self.peer.answers().reply_to(self.line, epoch);
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
            self.peer.answers().say(self.line, epoch, Said::Hint { reject, fault: 0 });
        }
        Ok(())
    }

    async fn answered(&self, holds: impl Fn(&State) -> bool) -> Result<(), Reject> {
        let limit = self.peer.shared.limits.answer_timeout;
        tokio::time::timeout(limit, self.flow.until(holds)).await.map_err(|_| Reject::Stopped)?
    }
}
