//! The payer's side of a lane, without I/O: it makes frames, and settles what became of each payment (DESIGN §4.4).
//!
//! Owns sequences, what is in flight, and the three outcomes *paid*, *refused for good*, *unknown*. It never gives a
//! sequence to two payments, calls nothing refused that the hub could still take, and calls nothing paid that the hub
//! has not signed for. Must not do I/O, read a clock or draw random numbers; no behaviour depends on the order of a map.
//!
//! How an owner drives it:
//! - commands: [`Payer::submit`], [`Payer::connected`], [`Payer::connection_lost`], [`Payer::recover`];
//! - `poll_*` until each has nothing: [`Payer::poll_event`], [`Payer::poll_reserve`] (store it durably, then
//!   [`Payer::reserved`]), [`Payer::poll_send`], [`Payer::poll_history`];
//! - `handle_*`: [`Payer::handle_reply`], [`Payer::handle_history`]; and [`Payer::expire`] at [`Payer::wake_at`].
//!
//! References that were answered are the owner's to look up before it submits an order: it hears of each group with
//! [`Event::Paid`] and keeps it. While a lane has not read what an earlier process left unanswered it sends nothing, so
//! that an order which was paid before is found and never paid again.

mod evidence;
mod group;
mod hint;
mod order;
mod proofs;
mod replies;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

pub use evidence::{Contradiction, Evidence, Finality, Held, Said};
pub use group::{PaidGroup, ReceiptError};
pub use order::{BLOCK, Event, LaneSpec, Limits, Order, ProtocolError, Resume, Stop, SubmitError, Ticket};
pub use proofs::{CommitCheck, CommitFault, HubProofs, MAX_CERTIFICATES, RECENT_COMMITS};

use slots::{Slot, SlotId, SlotState, Slots};

use crate::amount::Time;
use crate::commit::Answer;
use crate::keys::{KeyError, SecretKey, Signature, VerifyingKey};
use crate::payment::codec::put_varint;
use crate::payment::{Frame, Head, MAX_PAYMENTS, Run, RunBuilder, next_state};
use crate::reject::Reject;
use crate::wire::{Attach, ClosedLane, LENGTH_BYTES, LaneRequest, encode};

/// First wait after the hub asked to try later, or after attaches that led nowhere; it doubles.
const BACKOFF_FIRST_MS: u64 = 20;
/// Longest such wait.
const BACKOFF_MOST_MS: u64 = 5_000;

/// The payer's lane.
#[derive(Debug)]
pub struct Payer {
    spec: LaneSpec,
    key: VerifyingKey,
    limits: Limits,
    /// Reserved durably: no sequence above it is signed.
    mark: u64,
    /// A reservation that the owner is making durable.
    reserving: Option<u64>,
    /// The highest sequence that may have been signed, here or by an earlier process.
    used: u64,
    /// The highest sequence that an earlier process, or another holder before a recovery, may have signed.
    inherited: u64,
    /// Every payment up to this head was answered or read.
    answered: Head,
    /// What the next frame builds on: the head after the last frame signed.
    tip: Head,
    /// Signed and not answered, ascending.
    frames: VecDeque<InFlight>,
    /// Payments in `frames`.
    in_flight: usize,
    /// Not signed, or voided and to be signed again.
    queue: VecDeque<SlotId>,
    /// No deadline in `queue` is before this; a bound, not exact.
    soonest: Time,
    /// Every order until it is answered: those of `queue` and `frames`, and those that the hub no longer knows of.
    slots: Slots,
    next_ticket: u64,
    /// What an earlier process left was read: an order that is in the queue was never paid.
    caught_up: bool,
    link: Link,
    hint: Option<Hint>,
    /// Hints in a row after which nothing was taken or refused for good.
    strikes: u32,
    answer: Option<Arc<PaidGroup>>,
    finality: Option<Arc<Finality>>,
    events: VecDeque<Pending>,
}

/// What waits to be polled.
#[derive(Debug)]
enum Pending {
    Event(Event),
    /// Payments were taken; the order of each, where there is one.
    Paid(Arc<PaidGroup>, Vec<Option<SlotId>>),
}

impl From<Event> for Pending {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

#[derive(Debug)]
struct InFlight {
    run: Run,
    /// The order of each payment.
    slots: Vec<SlotId>,
    /// The earliest deadline in it.
    soonest: Option<Time>,
    /// The sequence that it follows.
    previous: u64,
    head: Head,
    signature: Signature,
}

#[derive(Debug)]
enum Link {
    /// No stream.
    Down,
    /// An attach is to be sent, not before `at`, or waits for its answer.
    Attaching { asked: Option<u64>, at: Time },
    /// Attached; what was taken and not answered is being read up to `target`.
    Reading { target: Head, finality: Arc<Finality>, requested: bool, at: Time, closed: Option<Box<ClosedLane>> },
    /// Frames flow.
    Open,
    /// The channel is closed and everything was answered.
    Closed(Arc<Finality>),
    /// A recovery waits until `bound` is reserved durably.
    Recovering { bound: u64 },
    /// Stopped; the bound is there when a recovery must give up sequences first.
    Stopped { recoverable: bool, bound: Option<u64> },
}

/// A refusal that waits for the void that makes it final.
#[derive(Debug, Clone, Copy)]
struct Hint {
    reject: Reject,
    fault: u64,
}

impl InFlight {
    const fn first(&self) -> u64 {
        self.run.first_sequence()
    }

    const fn last(&self) -> u64 {
        self.head.sequence
    }
}

impl Payer {
    /// A lane as its owner left it. Nothing is sent before [`Payer::connected`].
    pub fn new(spec: LaneSpec, resume: Resume, limits: Limits) -> Result<Self, KeyError> {
        let mark = resume.mark.max(resume.head.sequence);
        let limits = Limits {
            block: limits.block.max(1),
            frames: limits.frames.max(1),
            payments: limits.payments.max(1),
            frame_payments: limits.frame_payments.clamp(1, MAX_PAYMENTS),
            ..limits
        };
        Ok(Self {
            spec,
            key: spec.key.parse()?,
            limits,
            mark,
            reserving: None,
            used: mark,
            inherited: mark,
            answered: resume.head,
            tip: resume.head,
            frames: VecDeque::new(),
            in_flight: 0,
            queue: VecDeque::new(),
            soonest: Time::MAX,
            slots: Slots::default(),
            next_ticket: 0,
            caught_up: false,
            link: Link::Down,
            hint: None,
            strikes: 0,
            answer: None,
            finality: None,
            events: VecDeque::new(),
        })
    }

    // ---- what it is -------------------------------------------------------------------------------------------------

    /// The lane.
    pub const fn spec(&self) -> &LaneSpec {
        &self.spec
    }

    /// Every payment up to this head was answered or read.
    pub const fn answered(&self) -> &Head {
        &self.answered
    }

    /// Orders that wait for a frame.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Payments signed and not answered.
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether there is no stream and there should be one, because something waits for an answer.
    pub fn wants_connection(&self) -> bool {
        matches!(self.link, Link::Down) && !(self.queue.is_empty() && self.frames.is_empty())
    }

    /// Whether there is no stream and one may be made.
    pub const fn is_down(&self) -> bool {
        matches!(self.link, Link::Down)
    }

    /// Whether frames flow: attached, and everything older was read.
    pub const fn is_open(&self) -> bool {
        matches!(self.link, Link::Open)
    }

    /// Whether the lane does nothing more by itself.
    pub const fn is_stopped(&self) -> bool {
        matches!(self.link, Link::Stopped { .. })
    }

    /// Whether the channel is closed and everything was answered.
    pub const fn is_closed(&self) -> bool {
        matches!(self.link, Link::Closed(_))
    }

    // ---- commands ---------------------------------------------------------------------------------------------------

    /// Takes an order. The same reference with the same payee and amount joins the ticket that is on its way; after a
    /// refusal it is a new order, since the old one can never be taken.
    pub fn submit(&mut self, order: Order) -> Result<Ticket, SubmitError> {
        if order.amount.is_zero() {
            return Err(SubmitError::Zero);
        }
        if self.spec.payee.is_some_and(|only| only != order.payee) {
            return Err(SubmitError::WrongPayee);
        }
        let known = self.slots.find(&order.reference);
        if let Some(slot) = known.and_then(|id| self.slots.get_mut(id)) {
            if (slot.order.payee, slot.order.amount) != (order.payee, order.amount) {
                return Err(SubmitError::ReferenceTaken);
            }
            let ticket = slot.ticket;
            let stopped = matches!(self.link, Link::Stopped { .. });
            match slot.state {
                SlotState::Pruned => self.events.push_back(Event::Unknown { ticket }.into()),
                SlotState::Told if stopped => self.events.push_back(Event::Unknown { ticket }.into()),
                SlotState::Told => slot.state = SlotState::Wanted,
                SlotState::Wanted | SlotState::Paid => {}
            }
            return Ok(ticket);
        }
        if self.is_stopped() {
            return Err(SubmitError::Stopped);
        }
        let ticket = Ticket(self.next_ticket);
        if let Link::Closed(proof) = &self.link {
            let proof = Some(Arc::clone(proof));
            self.next_ticket += 1;
            self.events.push_back(Event::Refused { ticket, reject: Reject::Closed, proof }.into());
            return Ok(ticket);
        }
        let slot = self.slots.insert(order, ticket).ok_or(SubmitError::Full)?;
        self.next_ticket += 1;
        self.enqueue(slot, order.deadline);
        Ok(ticket)
    }

    /// A stream for this lane can be used from now on; the first thing sent on it is an attach.
    pub fn connected(&mut self) {
        if self.is_down() {
            self.link = Link::Attaching { asked: None, at: Time(0) };
        }
    }

    /// The stream is gone. What was signed stays unanswered until the lane has attached again.
    pub fn connection_lost(&mut self) {
        if matches!(self.link, Link::Attaching { .. } | Link::Reading { .. } | Link::Open) {
            self.link = Link::Down;
        }
    }

    /// A person asks a stopped lane to go on: it will give up everything that another holder of the key can have signed.
    /// `false`: it is not stopped, or stopped over evidence, which no retry heals.
    pub fn recover(&mut self) -> bool {
        let Link::Stopped { recoverable: true, bound } = self.link else { return false };
        self.link = match bound {
            Some(bound) => Link::Recovering { bound },
            None => Link::Down,
        };
        self.caught_up = false;
        true
    }

    /// Refuses for good what waits unsigned past its deadline, also while there is no connection.
    pub fn expire(&mut self, now: Time) {
        if !self.caught_up || now < self.soonest {
            return;
        }
        self.soonest = Time::MAX;
        for id in std::mem::take(&mut self.queue) {
            match self.slots.get(id) {
                Some(slot) if !slot.is_past(now) => {
                    let deadline = slot.order.deadline;
                    self.enqueue(id, deadline);
                }
                _ => self.refuse(id, Reject::Expired),
            }
        }
    }

    /// When the owner should poll again although nothing arrived: the end of a wait, or a deadline.
    pub fn wake_at(&self) -> Option<Time> {
        let wait = match self.link {
            Link::Attaching { asked: None, at } | Link::Reading { requested: false, at, .. } => Some(at),
            _ => None,
        };
        let deadline = (self.caught_up && self.soonest < Time::MAX).then_some(self.soonest);
        wait.into_iter().chain(deadline).min()
    }

    // ---- polls ------------------------------------------------------------------------------------------------------

    /// The next thing that somebody must hear.
    pub fn poll_event(&mut self) -> Option<Event> {
        let (group, slots) = match self.events.pop_front()? {
            Pending::Event(event) => return Some(event),
            Pending::Paid(group, slots) => (group, slots),
        };
        // From now on the owner knows these references, and no order stands for them here.
        let tickets = slots.into_iter().map(|id| {
            let ticket = self.slots.get(id?)?.ticket;
            self.slots.remove(id?);
            Some(ticket)
        });
        let tickets = tickets.collect();
        Some(Event::Paid { group, tickets })
    }

    /// The mark that must be stored durably next; then call [`Payer::reserved`] with it.
    pub fn poll_reserve(&mut self) -> Option<u64> {
        if self.reserving.is_some() {
            return None;
        }
        let mark = match self.link {
            Link::Recovering { bound } => bound.max(self.mark),
            Link::Open if !self.queue.is_empty() && self.mark.saturating_sub(self.used) <= self.limits.block / 2 => {
                self.mark.checked_add(self.limits.block)?
            }
            _ => return None,
        };
        self.reserving = Some(mark);
        Some(mark)
    }

    /// The mark is durable: sequences up to it may be used.
    pub fn reserved(&mut self, mark: u64) {
        if self.reserving.take_if(|reserving| *reserving == mark).is_none() {
            return;
        }
        self.mark = self.mark.max(mark);
        if let Link::Recovering { .. } = self.link {
            self.used = self.mark;
            self.inherited = self.mark;
            self.link = Link::Down;
        }
    }

    /// The next message for the lane's stream; on a new stream it is an attach, which opens it.
    ///
    /// Signs at most one frame: orders that arrive meanwhile join the next. `secret` is the lane's key.
    pub fn poll_send(&mut self, now: Time, secret: &SecretKey) -> Option<LaneRequest> {
        if let Some(attach) = self.next_attach(now) {
            return Some(LaneRequest::Attach(attach));
        }
        let InFlight { run, previous, head, signature, .. } = self.next_frame(now, secret)?;
        let (run, previous_sequence, valid_until) = (run.clone(), *previous, head.valid_until);
        Some(LaneRequest::Frame(Frame { previous_sequence, run, valid_until, signature: *signature }))
    }

    /// The same message with its length in front, as it goes out on a stream that an attach has opened; nothing is copied
    /// on the way. A new stream's attach is the stream's opening: see [`Payer::poll_attach`].
    pub fn poll_message(&mut self, now: Time, secret: &SecretKey) -> Option<Vec<u8>> {
        if let Some(attach) = self.next_attach(now) {
            return Some(encode(&LaneRequest::Attach(attach)));
        }
        let InFlight { run, previous, head, signature, .. } = self.next_frame(now, secret)?;
        Some(frame_message(run, *previous, head.valid_until, signature))
    }

    /// The attach that opens a new stream, when it is time for it.
    pub fn poll_attach(&mut self, now: Time) -> Option<Attach> {
        self.next_attach(now)
    }

    fn next_attach(&mut self, now: Time) -> Option<Attach> {
        let Link::Attaching { asked: asked @ None, at } = &mut self.link else { return None };
        if *at > now {
            return None;
        }
        *asked = Some(self.used);
        Some(Attach { lane: self.spec.lane, void_through: self.used })
    }

    /// The `since` of the next page of history to ask for, on any stream of the same connection.
    pub fn poll_history(&mut self, now: Time) -> Option<u64> {
        match &mut self.link {
            Link::Reading { requested: requested @ false, at, .. } if *at <= now => {
                *requested = true;
                Some(self.answered.sequence)
            }
            _ => None,
        }
    }

    // ---- frames -----------------------------------------------------------------------------------------------------

    fn next_frame(&mut self, now: Time, secret: &SecretKey) -> Option<&InFlight> {
        if !self.is_open() || self.queue.is_empty() || self.frames.len() >= self.limits.frames {
            return None;
        }
        let reserved = usize::try_from(self.mark.saturating_sub(self.used)).unwrap_or(usize::MAX);
        let room = self.limits.payments.saturating_sub(self.in_flight).min(self.limits.frame_payments).min(reserved);
        let Gathered { run, slots, soonest, mut head } = self.gather(room, now)?;
        let deadlines = self.frames.iter().map(|frame| frame.soonest).chain([soonest]);
        head.valid_until = deadlines.flatten().min().unwrap_or(Time(0));
        let Ok(run) = run.finish() else {
            // Cannot be: `gather` keeps every bound of a frame. Nothing was sent, so nothing is lost.
            debug_assert!(false, "a frame of {} payments", slots.len());
            self.put_back(slots);
            return None;
        };
        let signature = secret.sign(&head.digest(&self.spec.lane));
        let previous = self.tip.sequence;
        self.used = head.sequence;
        self.tip = head;
        self.in_flight += slots.len();
        self.frames.push_back(InFlight { run, slots, soonest, previous, head, signature });
        self.frames.back()
    }

    /// Takes what fits the next frame from the queue, up to `room` payments, and walks the state over it.
    fn gather(&mut self, room: usize, now: Time) -> Option<Gathered> {
        let room = room.min(self.queue.len());
        let mut head = Head { sequence: self.used, ..self.tip };
        let mut run = RunBuilder::new(self.used.checked_add(1)?, room);
        let mut slots = Vec::with_capacity(room);
        let mut soonest: Option<Time> = None;
        let last = self.frames.back().and_then(|frame| frame.run.payment(frame.run.len() - 1));
        let mut only = last.map(|(_, payment)| payment.payee);
        while slots.len() < room {
            let Some(id) = self.queue.pop_front() else { break };
            let Some(slot) = self.slots.get(id) else { continue };
            if slot.is_past(now) {
                self.refuse(id, Reject::Expired);
                continue;
            }
            if self.limits.unlinkable && only.is_some_and(|payee| payee != slot.order.payee) {
                self.queue.push_front(id);
                break;
            }
            let Ok(total) = head.total.checked_add(slot.order.amount) else {
                self.refuse(id, Reject::Overflow);
                continue;
            };
            let payment = slot.payment();
            let deadline = slot.order.deadline;
            let sequence = head.sequence + 1;
            head = Head { state: next_state(&head.state, sequence, &payment), sequence, total, ..head };
            only = Some(payment.payee);
            soonest = soonest.into_iter().chain(deadline).min();
            run.push(&payment);
            slots.push(id);
        }
        (!slots.is_empty()).then_some(Gathered { run, slots, soonest, head })
    }

    // ---- orders -----------------------------------------------------------------------------------------------------

    fn enqueue(&mut self, id: SlotId, deadline: Option<Time>) {
        self.soonest = self.soonest.min(deadline.unwrap_or(Time::MAX));
        self.queue.push_back(id);
    }

    /// Back to the front of the queue, in order.
    fn put_back(&mut self, slots: Vec<SlotId>) {
        for id in slots.into_iter().rev() {
            let deadline = self.slots.get(id).and_then(|slot| slot.order.deadline);
            self.soonest = self.soonest.min(deadline.unwrap_or(Time::MAX));
            self.queue.push_front(id);
        }
    }

    /// Final: the order was never signed, or what was signed is voided.
    fn refuse(&mut self, id: SlotId, reject: Reject) {
        let Some(Slot { ticket, voided, .. }) = self.slots.get(id) else { return };
        let refused = Event::Refused { ticket: *ticket, reject, proof: voided.clone() };
        self.slots.remove(id);
        self.events.push_back(refused.into());
    }

    /// Stops for good or until a person says otherwise, and tells every caller what can be told.
    fn stop(&mut self, stop: Stop) {
        let (recoverable, bound) = match &stop {
            Stop::NewerCopy { bound, .. } => (true, Some(*bound)),
            Stop::Detached | Stop::Attach(_) => (true, None),
            Stop::Evidence(_) => (false, None),
        };
        self.link = Link::Stopped { recoverable, bound };
        self.hint = None;
        self.events.push_back(Event::Stopped(stop).into());
        for id in self.frames.iter().flat_map(|frame| &frame.slots) {
            if let Some(slot) = self.slots.get_mut(*id)
                && slot.state == SlotState::Wanted
            {
                slot.state = SlotState::Told;
                self.events.push_back(Event::Unknown { ticket: slot.ticket }.into());
            }
        }
        self.soonest = Time::MAX;
        for id in std::mem::take(&mut self.queue) {
            let Some(Slot { ticket, .. }) = self.slots.get(id) else { continue };
            let ticket = *ticket;
            self.slots.remove(id);
            // Before what an earlier process left was read, an order that waits may be one that it paid.
            let event = if self.caught_up { Event::Unsent { ticket } } else { Event::Unknown { ticket } };
            self.events.push_back(event.into());
        }
    }

    fn evidence(&mut self, contradiction: Contradiction, said: Said) {
        let held = Held {
            answered: self.answered,
            answer: self.answer.as_ref().map(|group| Answer::clone(&group.answer)),
            finality: self.finality.as_deref().cloned(),
            signed: self.frames.iter().map(|frame| (frame.head, frame.signature)).collect(),
            used: self.used,
        };
        let LaneSpec { hub, channel, lane, key, .. } = self.spec;
        self.stop(Stop::Evidence(Box::new(Evidence { hub, channel, lane, key, contradiction, said, held })));
    }

    /// When to try again after so many hints in a row that led nowhere.
    fn backoff(&self, now: Time) -> Time {
        let doubled = BACKOFF_FIRST_MS.saturating_mul(1 << self.strikes.min(16));
        now.plus_ms(doubled.min(BACKOFF_MOST_MS))
    }
}

struct Gathered {
    run: RunBuilder,
    slots: Vec<SlotId>,
    soonest: Option<Time>,
    head: Head,
}

/// [`LaneRequest::Frame`] with its length in front: what [`encode`] makes of it, without copying the run.
fn frame_message(run: &Run, previous: u64, valid_until: Time, signature: &Signature) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LENGTH_BYTES + 96 + run.encoded_room());
    bytes.extend_from_slice(&[0; LENGTH_BYTES]);
    bytes.push(0); // The first kind of request.
    put_varint(previous, &mut bytes);
    run.encode_into(&mut bytes);
    put_varint(valid_until.0, &mut bytes);
    bytes.extend_from_slice(&signature.0);
    let length = u32::try_from(bytes.len() - LENGTH_BYTES).unwrap_or(u32::MAX);
    bytes.iter_mut().zip(length.to_le_bytes()).for_each(|(to, from)| *to = from);
    bytes
}
