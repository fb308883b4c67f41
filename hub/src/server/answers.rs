//! The answers to all lanes of one connection: one queue and one task, so that what a commit brings for many lanes is
//! written in one go.
//!
//! A stream that can take no more is written by a task of its own until it has taken everything, and holds up no other.
//! What an answer settles is settled once it is written: that is what bounds what waits here.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use quinn::{Connection, SendStream};
use tokio::sync::{mpsc, oneshot};
use weir_protocol::act::Act;
use weir_protocol::reject::Reject;
use weir_protocol::wire::{ClosedLane, LaneReply};

use super::flow::{Flow, Settles};
use super::framing::append;
use super::{Shared, code, lookup};
use crate::engine::said::{About, Said};
use crate::pipeline::ReplyTo;
use crate::pipeline::recover::index_key;

/// Answers that are taken from the queue at once.
const BATCH: usize = 1024;
/// Bytes that a stream's buffer keeps while nothing is written.
const KEPT_BYTES: usize = 4096;

/// A lane's stream among those of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Line(u32);

/// What the readers hold.
#[derive(Debug)]
pub(super) struct Answers {
    said: mpsc::UnboundedSender<(u64, Said)>,
    events: mpsc::UnboundedSender<(Line, Event)>,
    next: AtomicU32,
}

/// What happens to a line, besides answers.
#[derive(Debug)]
enum Event {
    Open(SendStream, Arc<Flow>),
    /// Its reader is done: it ends with its last answer, or is reset.
    Close(Option<Reject>),
    /// A reply that had to be read from the journal.
    Found(u32, Box<LaneReply>),
    /// A stream that could take no more has taken everything; `None`: it is gone.
    Written(Option<SendStream>),
}

impl Answers {
    /// Starts the task. It ends with the connection, or when nobody can say anything any more.
    pub(super) fn start(shared: Arc<Shared>, quinn: Connection) -> Self {
        let (said, words) = mpsc::unbounded_channel();
        let (events, happened) = mpsc::unbounded_channel();
        let writer = Writer { shared, quinn, events: events.downgrade(), lines: HashMap::new() };
        tokio::spawn(writer.run(words, happened));
        Self { said, events, next: AtomicU32::new(0) }
    }

    /// Takes a stream over.
    pub(super) fn open(&self, send: SendStream, flow: Arc<Flow>) -> Line {
        let line = Line(self.next.fetch_add(1, Ordering::Relaxed));
        self.tell(line, Event::Open(send, flow));
        line
    }

    /// The line's reader is done. `None`: what was taken is still answered, and the stream ends with the last answer.
    pub(super) fn close(&self, line: Line, reset: Option<Reject>) {
        self.tell(line, Event::Close(reset));
    }

    /// Where the pipeline's answers to an attach and its frames go.
    pub(super) fn reply_to(&self, line: Line, epoch: u32) -> ReplyTo {
        ReplyTo::new(word_id(line, epoch), self.said.clone())
    }

    /// Says something that the pipeline did not.
    pub(super) fn say(&self, line: Line, epoch: u32, said: Said) {
        // Fails only when the connection is gone.
        let _ = self.said.send((word_id(line, epoch), said));
    }

    fn tell(&self, line: Line, event: Event) {
        // Fails only when the connection is gone.
        let _ = self.events.send((line, event));
    }
}

/// A line and its epoch as one number.
fn word_id(line: Line, epoch: u32) -> u64 {
    u64::from(line.0) << 32 | u64::from(epoch)
}

/// How a line ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    /// With the last answer.
    Settled,
    /// With what is being written: another stream has the lane.
    Detached,
}

struct Open {
    flow: Arc<Flow>,
    /// `None` while a task of its own writes it.
    stream: Option<SendStream>,
    /// Ends that task.
    give_up: Option<oneshot::Sender<Reject>>,
    bytes: Vec<u8>,
    /// What the bytes settle once they are written.
    settles: Vec<(u32, Settles)>,
    /// The same for what a task of its own writes.
    writing: Vec<(u32, Settles)>,
    ending: Ending,
}

struct Writer {
    shared: Arc<Shared>,
    quinn: Connection,
    events: mpsc::WeakUnboundedSender<(Line, Event)>,
    lines: HashMap<Line, Open>,
}

impl Writer {
    async fn run(
        mut self,
        mut words: mpsc::UnboundedReceiver<(u64, Said)>,
        mut happened: mpsc::UnboundedReceiver<(Line, Event)>,
    ) {
        let quinn = self.quinn.clone();
        let closed = quinn.closed();
        tokio::pin!(closed);
        let mut batch = Vec::new();
        let mut touched = Vec::new();
        loop {
            tokio::select! {
                biased;
                count = words.recv_many(&mut batch, BATCH) => if count == 0 { break },
                event = happened.recv() => {
                    let Some((line, event)) = event else { break };
                    self.happened(line, event, &mut touched);
                }
                _ = &mut closed => break,
            }
            // A line is opened before anything can be said to it.
            while let Ok((line, event)) = happened.try_recv() {
                self.happened(line, event, &mut touched);
            }
            for (id, said) in batch.drain(..) {
                let (line, epoch) = (Line((id >> 32) as u32), id as u32);
                if matches!(said, Said::Hangup) {
                    self.quinn.close(code(Reject::Signature), b"");
                    return;
                }
                self.said(line, epoch, said, &mut touched);
            }
            for line in touched.drain(..) {
                self.write(line).await;
            }
        }
        for open in self.lines.values() {
            open.flow.end(Reject::Stopped);
        }
    }

    fn happened(&mut self, line: Line, event: Event, touched: &mut Vec<Line>) {
        if let Event::Open(stream, flow) = event {
            let (bytes, settles, writing) = (Vec::new(), Vec::new(), Vec::new());
            let stream = Some(stream);
            let open = Open { flow, stream, give_up: None, bytes, settles, writing, ending: Ending::No };
            self.lines.insert(line, open);
            return;
        }
        let Some(open) = self.lines.get_mut(&line) else { return };
        match event {
            Event::Open(..) => {}
            Event::Close(Some(reject)) => {
                open.flow.end(reject);
                // Either fails only when the stream is over already.
                if let Some(stream) = &mut open.stream {
                    let _ = stream.reset(code(reject));
                }
                if let Some(give_up) = open.give_up.take() {
                    let _ = give_up.send(reject);
                }
                self.lines.remove(&line);
            }
            Event::Close(None) => {
                if open.ending == Ending::No {
                    open.ending = Ending::Settled;
                }
                touched.push(line);
            }
            Event::Found(epoch, reply) => {
                append(reply.as_ref(), &mut open.bytes);
                open.settles.push((epoch, Settles::Everything));
                touched.push(line);
            }
            Event::Written(None) => self.lost(line),
            Event::Written(Some(stream)) => {
                open.stream = Some(stream);
                let settled = core::mem::take(&mut open.writing);
                open.flow.change(|state| settled.iter().for_each(|(epoch, settles)| state.heard(*epoch, settles)));
                touched.push(line);
            }
        }
    }

    fn said(&mut self, line: Line, epoch: u32, said: Said, touched: &mut Vec<Line>) {
        let Some(open) = self.lines.get_mut(&line) else { return };
        let settles = match said {
            Said::Taken { commit, index } => {
                let Some(parts) = commit.answer_parts(index) else { return };
                parts.append(&mut open.bytes);
                Settles::Through(parts.through_sequence)
            }
            Said::LaneClosed { .. } => return self.find_close(line, epoch, said),
            Said::Attached { .. } => {
                append(&said.lane_reply().unwrap_or(STOPPED), &mut open.bytes);
                Settles::Attached
            }
            Said::Refused(reject) => {
                append(&LaneReply::Refused { reject, fault: 0 }, &mut open.bytes);
                Settles::Everything
            }
            said => {
                if let Said::Hint { reject: Reject::Detached, .. } = said {
                    open.ending = Ending::Detached;
                }
                // Nothing else than a hint is said to a lane.
                append(&said.lane_reply().unwrap_or(STOPPED), &mut open.bytes);
                Settles::Everything
            }
        };
        open.settles.push((epoch, settles));
        touched.push(line);
    }

    /// Reads the proof of a channel's close from the journal, beside everything else.
    fn find_close(&self, line: Line, epoch: u32, said: Said) {
        let (shared, events) = (Arc::clone(&self.shared), self.events.clone());
        tokio::spawn(async move {
            let reply = closed_reply(&shared, said).await;
            if let Some(events) = events.upgrade() {
                // Fails only when the connection is gone.
                let _ = events.send((line, Event::Found(epoch, Box::new(reply))));
            }
        });
    }

    /// Writes what a line has, as far as its stream takes it at once.
    async fn write(&mut self, line: Line) {
        let Some(open) = self.lines.get_mut(&line) else { return };
        let Some(stream) = &mut open.stream else { return };
        let mut at = 0;
        while let Some(rest) = open.bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_write(cx, rest))).await {
                Poll::Ready(Ok(count)) => at += count,
                Poll::Ready(Err(_)) => return self.lost(line),
                Poll::Pending => return self.write_apart(line, at),
            }
        }
        open.bytes.clear();
        open.bytes.shrink_to(KEPT_BYTES);
        let is_settled = open.flow.change(|state| {
            open.settles.drain(..).for_each(|(epoch, settles)| state.heard(epoch, &settles));
            state.is_settled()
        });
        match open.ending {
            Ending::Settled if is_settled => self.finish(line),
            Ending::Detached => {
                open.flow.end(Reject::Detached);
                self.finish(line);
            }
            Ending::No | Ending::Settled => {}
        }
    }

    /// Leaves the rest to a task of its own, which waits until the stream takes it.
    fn write_apart(&mut self, line: Line, at: usize) {
        let Some(open) = self.lines.get_mut(&line) else { return };
        let Some(mut stream) = open.stream.take() else { return };
        let mut bytes = core::mem::take(&mut open.bytes);
        open.writing = core::mem::take(&mut open.settles);
        let (give_up, given_up) = oneshot::channel();
        open.give_up = Some(give_up);
        let events = self.events.clone();
        tokio::spawn(async move {
            let rest = bytes.split_off(at);
            let written = tokio::select! {
                written = stream.write_all(&rest) => written.is_ok(),
                Ok(reject) = given_up => {
                    // Fails only when the stream is over already.
                    let _ = stream.reset(code(reject));
                    return;
                }
            };
            if let Some(events) = events.upgrade() {
                // Fails only when the connection is gone.
                let _ = events.send((line, Event::Written(written.then_some(stream))));
            }
        });
    }

    /// Ends a stream on which everything was said.
    fn finish(&mut self, line: Line) {
        let Some(mut stream) = self.lines.remove(&line).and_then(|open| open.stream) else { return };
        let _ = stream.finish();
    }

    fn lost(&mut self, line: Line) {
        if let Some(open) = self.lines.remove(&line) {
            open.flow.end(Reject::Stopped);
        }
    }
}

/// What is said where nothing better can be: it never is.
const STOPPED: LaneReply = LaneReply::Refused { reject: Reject::Stopped, fault: 0 };

async fn closed_reply(shared: &Arc<Shared>, said: Said) -> LaneReply {
    let refused = |reject| LaneReply::Refused { reject, fault: 0 };
    let Said::LaneClosed { close, head, signature, path } = said else { return STOPPED };
    let key = index_key(&About::Channel(close.channel));
    let find = move |shared: &Shared| {
        let is_it =
            |record: &crate::engine::record::ActRecord| matches!(&record.act, Act::Close(found) if *found == close);
        lookup::find_act(&shared.handle, key, &is_it)
    };
    match lookup::blocking(shared, find).await {
        Ok(Some((_, proof))) => LaneReply::Closed(Box::new(ClosedLane { close, proof, head, signature, path })),
        Ok(None) => refused(Reject::Pruned),
        Err(reject) => refused(reject),
    }
}
