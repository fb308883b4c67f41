//! One lane's owner around the payer's state machine: the home that outlives the process, and the callers.

use std::collections::BTreeMap;

use weir_protocol::amount::Amount;
use weir_protocol::channel::{ChannelTerms, LaneGrant};
use weir_protocol::id::{AccountId, Reference};
use weir_protocol::keys::SecretKey;
use weir_protocol::lane::payer::{Event, LaneSpec, Limits, Order, Payer, Resume, Stop, SubmitError, Ticket};
use weir_protocol::payment::Head;
use weir_protocol::wire::{HistoryGroup, LaneReply};

use super::Person;
use crate::note;
use crate::sim::cx::{self, Cx};
use crate::sim::log::{Checked, Failure, ensure};
use crate::sim::net::{ActorId, Stream, ToHub};

/// A caller and its order.
#[derive(Debug)]
struct Caller {
    order: Order,
    /// It has its answer.
    answered: bool,
    /// The running process has it.
    submitted: bool,
}

/// A lane with its home.
#[derive(Debug)]
pub(crate) struct LaneSide {
    spec: LaneSpec,
    secret: SecretKey,
    limits: Limits,
    /// Durable: no sequence above it was signed.
    mark: u64,
    /// Durable: every paid group up to here is kept.
    head: Head,
    callers: Vec<Caller>,
    /// Callers by reference; and those whose answer is missing.
    places: BTreeMap<Reference, usize>,
    missing: usize,
    over: bool,
    /// A copy of the home that was made some time ago: mark and head.
    backup: Option<(u64, Head)>,
    // Lost with the process:
    machine: Payer,
    tickets: BTreeMap<Ticket, Reference>,
    stream: Option<Stream>,
}

fn bad_key(error: impl core::fmt::Display) -> Failure {
    Failure(error.to_string())
}

impl LaneSide {
    pub(super) fn new(
        cx: &mut Cx,
        owner: ActorId,
        _channel: usize,
        terms: &ChannelTerms,
        grant: LaneGrant,
        secret: SecretKey,
    ) -> Checked<Self> {
        let spec = LaneSpec::new(terms, &grant);
        cx.lane_owner.insert(spec.lane, owner);
        let limits = Limits {
            block: cx.rng.range(1, 40),
            frames: cx.rng.place(6) + 1,
            payments: cx.rng.place(40) + 1,
            frame_payments: cx.rng.place(12) + 1,
            unlinkable: cx.rng.once_in(5),
        };
        let head = Head::empty(&spec.lane);
        let machine = Payer::new(spec, Resume { mark: 0, head }, limits).map_err(bad_key)?;
        Ok(Self {
            spec,
            secret,
            limits,
            mark: 0,
            head,
            callers: Vec::new(),
            places: BTreeMap::new(),
            missing: 0,
            over: false,
            backup: None,
            machine,
            tickets: BTreeMap::new(),
            stream: None,
        })
    }

    pub(super) const fn stream(&self) -> Option<Stream> {
        self.stream
    }

    pub(super) const fn unanswered(&self) -> usize {
        self.missing
    }

    /// Nothing can be paid here any more, as far as its owner knows.
    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn lost(&mut self) {
        self.machine.connection_lost();
        self.stream = None;
    }

    pub(super) fn crash(&mut self) {
        self.lost();
        self.tickets.clear();
        for caller in &mut self.callers {
            caller.submitted = false;
        }
    }

    /// Makes a copy of the home, or puts the one that was made in its place. What callers were told they keep themselves.
    fn back_up_or_restore(&mut self) {
        match self.backup.take() {
            None => self.backup = Some((self.mark, self.head)),
            Some((mark, head)) => (self.mark, self.head) = (mark, head),
        }
    }

    /// A new process over the same home.
    pub(super) fn restart(&mut self) -> Checked {
        let resume = Resume { mark: self.mark, head: self.head };
        self.machine = Payer::new(self.spec, resume, self.limits).map_err(bad_key)?;
        Ok(())
    }

    /// A caller wants a payment.
    pub(super) fn order(&mut self, cx: &mut Cx, payee: AccountId) -> Checked {
        let payee = self.spec.payee.unwrap_or(payee);
        let most = if cx.rng.once_in(12) { 300_000_000 } else { cx.mood.payment };
        let deadline = cx.rng.once_in(5).then(|| cx.now().plus_ms(cx.rng.range(20, 4_000)));
        let order = Order {
            payee,
            amount: Amount::from_nanos(cx.rng.range(1, most)),
            reference: Reference(cx.rng.bytes()),
            deadline,
        };
        self.places.insert(order.reference, self.callers.len());
        self.callers.push(Caller { order, answered: false, submitted: false });
        self.missing += 1;
        self.submit(cx)
    }

    /// Hands orders that the process does not have to the machine.
    fn submit(&mut self, cx: &mut Cx) -> Checked {
        if self.missing == 0 {
            return Ok(());
        }
        let mut refused = Vec::new();
        for caller in self.callers.iter_mut().filter(|caller| !caller.answered && !caller.submitted) {
            match self.machine.submit(caller.order) {
                Ok(ticket) => {
                    caller.submitted = true;
                    self.tickets.insert(ticket, caller.order.reference);
                }
                Err(SubmitError::Stopped | SubmitError::Full) => break,
                Err(error @ (SubmitError::Zero | SubmitError::WrongPayee | SubmitError::ReferenceTaken)) => {
                    refused.push((caller.order.reference, error));
                }
            }
        }
        for (reference, error) in refused {
            ensure(error != SubmitError::ReferenceTaken, || "a new reference is said to be taken".into())?;
            self.refuse(cx, reference)?;
        }
        Ok(())
    }

    fn refuse(&mut self, cx: &mut Cx, reference: Reference) -> Checked {
        self.answer(reference);
        cx.model.tell_refused(reference)
    }

    fn answer(&mut self, reference: Reference) {
        let caller = self.places.get(&reference).and_then(|at| self.callers.get_mut(*at));
        if let Some(caller) = caller.filter(|caller| !caller.answered) {
            caller.answered = true;
            self.missing -= 1;
        }
    }

    fn event(&mut self, cx: &mut Cx, event: Event, certificate_of: usize) -> Checked {
        match event {
            Event::Paid { group, tickets } => {
                for (index, ((_, payment), ticket)) in group.payments().zip(tickets).enumerate() {
                    let id = group.payment_id(index).ok_or_else(|| Failure("a payment without an id".into()))?;
                    if let Some(ticket) = ticket {
                        let meant = self.tickets.remove(&ticket);
                        ensure(meant == Some(payment.reference), || "a ticket of another order was paid".into())?;
                    }
                    self.answer(payment.reference);
                    cx.model.tell_paid(payment.reference, id, &payment.payee, payment.amount)?;
                }
                self.head = group.head;
                if cx.rng.once_in(6) {
                    let index = cx.rng.place(group.len());
                    let file = group.receipt_file(index, cx.certificate);
                    let file = file.map_err(|error| Failure(format!("no receipt: {error}")))?;
                    let commit = file.check().map_err(|error| Failure(format!("a receipt does not hold: {error}")))?;
                    cx.model.keep_receipt(commit.commit.number, commit.commit.id());
                }
                note!(cx, "person {certificate_of}: {} paid through {}", group.len(), group.head.sequence);
            }
            Event::Refused { ticket, reject, .. } => {
                cx.reach(format!("caller: refused: {reject}"));
                if let Some(reference) = self.tickets.remove(&ticket) {
                    note!(cx, "person {certificate_of}: refused: {reject}");
                    self.refuse(cx, reference)?;
                }
            }
            Event::Unsent { ticket } => {
                cx.reach("caller: unsent");
                if let Some(reference) = self.tickets.remove(&ticket) {
                    self.refuse(cx, reference)?;
                }
            }
            Event::Unknown { ticket } => {
                cx.reach("caller: unknown");
                let reference = self.tickets.remove(&ticket);
                let place = reference.and_then(|reference| self.places.get(&reference));
                if let Some(caller) = place.and_then(|at| self.callers.get_mut(*at)) {
                    caller.submitted = false;
                }
            }
            Event::ReferenceTaken { .. } => return Err(Failure("a new reference is said to be taken".into())),
            Event::Stopped(Stop::Evidence(evidence)) => {
                return Err(Failure(format!("evidence against the hub: {}", evidence.contradiction)));
            }
            Event::Stopped(stop) => {
                note!(cx, "person {certificate_of}: a lane stops: {}", name_of(&stop));
                cx.reach(format!("lane stops: {}", name_of(&stop)));
                self.stream = None;
            }
            Event::ClosedLane(_) => self.over = true,
        }
        Ok(())
    }
}

const fn name_of(stop: &Stop) -> &'static str {
    match stop {
        Stop::Detached => "detached",
        Stop::NewerCopy { .. } => "newer copy",
        Stop::Attach(_) => "attach refused",
        Stop::Evidence(_) => "evidence",
    }
}

impl Person {
    pub(super) fn restart(&mut self, cx: &mut Cx) -> Checked {
        for lane in &mut self.lanes {
            if !cx.calm && cx.rng.once_in(4) {
                note!(cx, "person {}: a lane's home is copied, or replaced by the copy", self.id.0);
                lane.back_up_or_restore();
            }
            lane.restart()?;
            lane.submit(cx)?;
        }
        Ok(())
    }

    /// Polls a lane until it has nothing more to say.
    pub(super) fn drive(&mut self, cx: &mut Cx, at: usize) -> Checked {
        let (id, life, conn) = (self.id, self.life, self.conn);
        let Some(lane) = self.lanes.get_mut(at) else { return Ok(()) };
        if !self.up {
            return Ok(());
        }
        if lane.machine.is_stopped() && cx.rng.once_in(2) {
            lane.machine.recover();
        }
        lane.submit(cx)?;
        lane.machine.expire(cx.now());
        loop {
            let Some(lane) = self.lanes.get_mut(at) else { return Ok(()) };
            if let Some(event) = lane.machine.poll_event() {
                lane.event(cx, event, id.0)?;
                continue;
            }
            if let Some(mark) = lane.machine.poll_reserve() {
                let delay = cx.rng.range(50, 4_000);
                cx.after(delay, cx::Event::Reserved { actor: id, life, lane: at, mark });
                continue;
            }
            let Some(conn) = conn else { break };
            let wanted = lane.missing > 0 || lane.machine.wants_connection();
            if lane.machine.is_down() && wanted {
                let stream = cx.stream();
                lane.stream = Some(stream);
                lane.machine.connected();
            }
            if let Some(since) = lane.machine.poll_history(cx.now()) {
                let request = cx.request();
                self.histories.insert(request, at);
                cx.tell_hub(conn, 0, ToHub::History { id: request, lane: lane.spec.lane, since });
                continue;
            }
            let Some(stream) = lane.stream else { break };
            let Some(request) = lane.machine.poll_send(cx.now(), &lane.secret) else { break };
            let (channel, lane) = (lane.spec.channel, lane.spec.lane);
            cx.tell_hub(conn, stream, ToHub::Lane { stream, channel, lane, request });
        }
        let wake = self.lanes.get(at).and_then(|lane| lane.machine.wake_at());
        if let Some(wake) = wake.filter(|wake| *wake > cx.now()) {
            let delay = (wake.0 - cx.now().0).min(10_000) * 1000;
            if delay < 50_000 {
                cx.after(delay, cx::Event::Drive(id, life, at));
            }
        }
        Ok(())
    }

    /// A reservation is durable.
    pub(crate) fn reserved(&mut self, cx: &mut Cx, life: u64, at: usize, mark: u64) -> Checked {
        // The write was under way when the process died: it may be there or not.
        let counts = life == self.life || cx.rng.once_in(2);
        if let Some(lane) = self.lanes.get_mut(at).filter(|_| counts) {
            lane.mark = lane.mark.max(mark);
            if life == self.life && self.up {
                lane.machine.reserved(mark);
                return self.drive(cx, at);
            }
        }
        Ok(())
    }

    /// A lane wanted to be polled at this time.
    pub(crate) fn drive_later(&mut self, cx: &mut Cx, life: u64, at: usize) -> Checked {
        if life == self.life { self.drive(cx, at) } else { Ok(()) }
    }

    pub(super) fn lane_reply(&mut self, cx: &mut Cx, at: usize, reply: LaneReply) -> Checked {
        let now = cx.now();
        let Some(lane) = self.lanes.get_mut(at) else { return Ok(()) };
        if let LaneReply::Refused { reject, fault } = &reply {
            cx.reach(format!("hint: {reject}"));
            note!(cx, "person {}: hint on a lane: {reject} at {fault}", self.id.0);
        }
        let heard = lane.machine.handle_reply(reply, now, &mut self.proofs);
        heard.map_err(|error| Failure(format!("the hub breaks the order of messages: {error}")))
    }

    pub(super) fn lane_history(&mut self, cx: &mut Cx, at: usize, group: Option<HistoryGroup>) -> Checked {
        let now = cx.now();
        let Some(lane) = self.lanes.get_mut(at) else { return Ok(()) };
        let heard = lane.machine.handle_history(Ok(group), now, &mut self.proofs);
        heard.map_err(|error| Failure(format!("the hub breaks the order of messages: {error}")))
    }

    /// Drops its connection on its own account.
    pub(crate) fn drop_connection(&mut self, cx: &mut Cx) {
        self.hang_up(cx);
    }
}
