//! What the hub says to a payer's lane: each word is checked before it changes anything.

use std::sync::Arc;

use super::hint::Voided;
use super::{
    CommitCheck, Contradiction, Event, Finality, Hint, InFlight, Link, PaidGroup, Payer, Pending, ProtocolError, Said,
    SlotId, SlotState, Stop,
};
use crate::act::Act;
use crate::amount::Time;
use crate::commit::Answer;
use crate::keys::Signature;
use crate::payment::{Head, MAX_PAYMENTS, MAX_SKIP, Payment, Run, next_state};
use crate::reject::{Reaction, Reject};
use crate::wire::{Attached, ClosedLane, HistoryGroup, LaneReply};

/// A head as the hub gave it, against what this lane knows.
enum Place {
    /// It is the newest answered head, one of the frames in flight, or one that an earlier process signed.
    Known,
    /// The lane's key signed it, and not in this home.
    Foreign,
}

impl Payer {
    /// Takes a message from the lane's stream.
    ///
    /// The owner makes sure beforehand, where it can, that `commits` knows the certificate of the reply's commit.
    pub fn handle_reply<C: CommitCheck + ?Sized>(
        &mut self,
        reply: LaneReply,
        now: Time,
        commits: &mut C,
    ) -> Result<(), ProtocolError> {
        match (reply, &self.link) {
            (_, Link::Stopped { .. } | Link::Recovering { .. } | Link::Closed(_) | Link::Down) => Ok(()),
            (LaneReply::Taken(answer), _) => {
                self.taken(*answer, commits);
                Ok(())
            }
            (LaneReply::Attached(attached), Link::Attaching { asked: Some(asked), .. }) => {
                let asked = *asked;
                self.attached(*attached, asked, commits);
                Ok(())
            }
            (LaneReply::Closed(closed), Link::Attaching { asked: Some(_), .. }) => {
                self.closed(*closed, commits);
                Ok(())
            }
            (LaneReply::Attached(_) | LaneReply::Closed(_), _) => Err(ProtocolError::OutOfTurn),
            (LaneReply::Refused { reject, fault }, _) => self.refused(reject, fault, now),
        }
    }

    /// Takes the answer to a page of history that [`Payer::poll_history`] asked for, from the same connection.
    pub fn handle_history<C: CommitCheck + ?Sized>(
        &mut self,
        page: Result<Option<HistoryGroup>, Reject>,
        now: Time,
        commits: &mut C,
    ) -> Result<(), ProtocolError> {
        let again = self.backoff(now);
        let Link::Reading { target, requested, at, .. } = &mut self.link else { return Ok(()) };
        *requested = false;
        let target = *target;
        match page {
            Ok(Some(group)) if group.head.sequence <= self.answered.sequence => Ok(()),
            Ok(Some(group)) => {
                self.read(group, &target, commits);
                Ok(())
            }
            Ok(None) => {
                self.evidence(Contradiction::History, Said::History(None));
                Ok(())
            }
            Err(Reject::Pruned) => {
                self.pruned(target);
                Ok(())
            }
            Err(reject) if reject.reaction() == Reaction::Retry => {
                *at = again;
                self.strikes += 1;
                Ok(())
            }
            Err(reject) => Err(ProtocolError::History(reject)),
        }
    }

    // ---- answers ----------------------------------------------------------------------------------------------------

    fn taken<C: CommitCheck + ?Sized>(&mut self, answer: Answer, commits: &mut C) {
        if answer.through_sequence <= self.answered.sequence {
            return; // History was faster.
        }
        let count = match self.answered_frames(&answer, commits) {
            Ok(count) => count,
            Err(contradiction) => return self.evidence(contradiction, Said::Answer(Box::new(answer))),
        };
        let Some(InFlight { head, signature, .. }) = count.checked_sub(1).and_then(|last| self.frames.get(last)) else {
            return;
        };
        let signed = (*head, *signature);
        let mut runs = Vec::with_capacity(count);
        let mut slots = Vec::with_capacity(answer.count as usize);
        for frame in self.frames.drain(..count) {
            for id in frame.slots {
                if let Some(slot) = self.slots.get_mut(id) {
                    slot.state = SlotState::Paid;
                }
                slots.push(Some(id));
            }
            runs.push(frame.run);
        }
        self.in_flight -= slots.len();
        self.settle(runs, slots, signed, answer);
        self.finish_reading();
    }

    /// How many frames from the oldest on the answer is for, after every check of it.
    fn answered_frames<C: CommitCheck + ?Sized>(
        &self,
        answer: &Answer,
        commits: &mut C,
    ) -> Result<usize, Contradiction> {
        commits.check(&answer.commit).map_err(Contradiction::Commit)?;
        let through = answer.through_sequence;
        let place = self.frames.iter().position(|frame| frame.last() == through).ok_or(Contradiction::Answer)?;
        let first = self.frames.front().ok_or(Contradiction::Answer)?.first();
        let payments: usize = self.frames.iter().take(place + 1).map(|frame| frame.slots.len()).sum();
        let head = self.frames.get(place).ok_or(Contradiction::Answer)?.head;
        if first != answer.first_sequence || payments != answer.count as usize || payments > MAX_PAYMENTS {
            return Err(Contradiction::Answer);
        }
        answer.includes(&head.digest(&self.spec.lane)).map_err(|_| Contradiction::Path)?;
        Ok(place + 1)
    }

    fn settle(
        &mut self,
        runs: Vec<Run>,
        slots: Vec<Option<SlotId>>,
        (head, signature): (Head, Signature),
        answer: Answer,
    ) {
        let names = (self.spec.hub, self.spec.lane, self.spec.currency);
        let group = Arc::new(PaidGroup::new(names, runs, (head, signature), answer));
        self.answered = head;
        self.strikes = 0;
        self.answer = Some(Arc::clone(&group));
        self.events.push_back(Pending::Paid(group, slots));
    }

    // ---- attach -----------------------------------------------------------------------------------------------------

    fn attached<C: CommitCheck + ?Sized>(&mut self, attached: Attached, asked: u64, commits: &mut C) {
        if let Err(contradiction) = self.check_attached(&attached, asked, commits) {
            return self.evidence(contradiction, Said::Attached(Box::new(attached)));
        }
        let Attached { void, head, proof, .. } = attached;
        let ours = void.void_through <= asked.max(head.sequence);
        if !ours || matches!(self.place(&head), Place::Foreign) {
            return self.stop_for_newer_copy(head, void.void_through);
        }
        let finality = Arc::new(Finality::Void { void, proof });
        self.used = self.used.max(void.void_through).max(head.sequence);
        self.void_beyond(&head, &finality, None);
        self.start_reading(head, finality, None);
    }

    fn check_attached<C: CommitCheck + ?Sized>(
        &self,
        attached: &Attached,
        asked: u64,
        commits: &mut C,
    ) -> Result<(), Contradiction> {
        let Attached { void, head, signature, proof } = attached;
        let lane = self.spec.lane;
        commits.check(&proof.commit).map_err(Contradiction::Commit)?;
        proof.includes(&self.spec.hub, &Act::Void(*void)).map_err(|_| Contradiction::Path)?;
        let of_head = (void.head, void.sequence, void.total) == (head.digest(&lane), head.sequence, head.total);
        if void.lane != lane || !of_head || void.void_through < asked {
            return Err(Contradiction::Void);
        }
        self.check_head(head, signature.as_ref())
    }

    /// The head must carry the lane key's signature, and must not be behind what was answered.
    fn check_head(&self, head: &Head, signature: Option<&Signature>) -> Result<(), Contradiction> {
        let lane = &self.spec.lane;
        let signed = match signature {
            None => *head == Head::empty(lane),
            Some(signature) => head.sequence > 0 && self.key.verify(&head.digest(lane), signature),
        };
        if !signed {
            return Err(Contradiction::HeadSignature);
        }
        if head.sequence < self.answered.sequence {
            return Err(Contradiction::Behind);
        }
        match self.finality.as_deref() {
            Some(Finality::Void { void, .. })
                if head.sequence > void.sequence && head.sequence <= void.void_through =>
            {
                Err(Contradiction::Voided)
            }
            _ => Ok(()),
        }
    }

    fn place(&self, head: &Head) -> Place {
        let known = if head.sequence == self.answered.sequence {
            *head == self.answered
        } else {
            head.sequence <= self.inherited || self.frames.iter().any(|frame| frame.head == *head)
        };
        if known { Place::Known } else { Place::Foreign }
    }

    fn stop_for_newer_copy(&mut self, head: Head, void_through: u64) {
        let bound = head.sequence.max(void_through).saturating_add(MAX_SKIP);
        self.stop(Stop::NewerCopy { head, bound });
    }

    /// What was signed beyond the head can never be taken: refused for good, or to be signed again.
    fn void_beyond(&mut self, head: &Head, finality: &Arc<Finality>, all: Option<Reject>) {
        let keep = self.frames.partition_point(|frame| frame.last() <= head.sequence);
        let gone = self.frames.split_off(keep);
        self.give_up(gone, finality, all);
    }

    fn give_up(&mut self, gone: impl IntoIterator<Item = InFlight>, finality: &Arc<Finality>, all: Option<Reject>) {
        self.finality = Some(Arc::clone(finality));
        let mut voided = Vec::new();
        for frame in gone {
            self.in_flight -= frame.slots.len();
            for (slot, sequence) in frame.slots.into_iter().zip(frame.run.first_sequence()..) {
                let Some(at) = self.slots.get_mut(slot) else { continue };
                at.voided = Some(Arc::clone(finality));
                voided.push(Voided { sequence, valid_until: frame.head.valid_until, slot, order: at.order });
            }
        }
        let hint = self.hint.take();
        let verdicts = hint.map_or_else(|| vec![false; voided.len()], |hint| hint.judge(&voided));
        let mut again = Vec::new();
        for (Voided { slot, .. }, refused) in voided.into_iter().zip(verdicts) {
            let told = self.slots.get(slot).is_some_and(|slot| slot.state == SlotState::Told);
            match (all, hint) {
                // Its caller was told "unknown" and has not asked again: nobody wants it signed a second time.
                _ if told => self.slots.remove(slot),
                (Some(reject), _) => self.refuse(slot, reject),
                (None, Some(hint)) if refused => {
                    self.strikes = 0;
                    self.refuse(slot, hint.reject);
                }
                _ => again.push(slot),
            }
        }
        self.put_back(again);
    }

    fn closed<C: CommitCheck + ?Sized>(&mut self, closed: ClosedLane, commits: &mut C) {
        if let Err(contradiction) = self.check_closed(&closed, commits) {
            return self.evidence(contradiction, Said::Closed(Box::new(closed)));
        }
        if matches!(self.place(&closed.head), Place::Foreign) {
            return self.stop_for_newer_copy(closed.head, 0);
        }
        let head = closed.head;
        let finality = Arc::new(Finality::Close { close: closed.close, proof: closed.proof.clone() });
        self.void_beyond(&head, &finality, Some(Reject::Closed));
        self.start_reading(head, finality, Some(Box::new(closed)));
    }

    fn check_closed<C: CommitCheck + ?Sized>(&self, closed: &ClosedLane, commits: &mut C) -> Result<(), Contradiction> {
        let ClosedLane { close, proof, head, signature, path } = closed;
        commits.check(&proof.commit).map_err(Contradiction::Commit)?;
        proof.includes(&self.spec.hub, &Act::Close(*close)).map_err(|_| Contradiction::Path)?;
        if close.channel != self.spec.channel {
            return Err(Contradiction::Void);
        }
        if path.root(&head.digest(&self.spec.lane)) != Some(close.root) {
            return Err(Contradiction::Path);
        }
        self.check_head(head, signature.as_ref())
    }

    // ---- reading what was missed ------------------------------------------------------------------------------------

    fn start_reading(&mut self, target: Head, finality: Arc<Finality>, closed: Option<Box<ClosedLane>>) {
        self.tip = target;
        self.link = Link::Reading { target, finality, requested: false, at: Time(0), closed };
        self.finish_reading();
    }

    fn finish_reading(&mut self) {
        let Link::Reading { target, finality, closed, .. } = &mut self.link else { return };
        if self.answered.sequence < target.sequence {
            return;
        }
        let (finality, closed) = (Arc::clone(finality), closed.take());
        self.caught_up = true;
        self.link = if closed.is_some() { Link::Closed(Arc::clone(&finality)) } else { Link::Open };
        // After a recovery another holder's payments stand where these would have been: they can never be taken.
        let left = std::mem::take(&mut self.frames);
        if !left.is_empty() {
            self.give_up(left, &finality, closed.as_ref().map(|_| Reject::Closed));
        }
        if let Some(closed) = closed {
            for id in std::mem::take(&mut self.queue) {
                if let Some(slot) = self.slots.get_mut(id) {
                    slot.voided = Some(Arc::clone(&finality));
                }
                self.refuse(id, Reject::Closed);
            }
            self.events.push_back(Event::ClosedLane(closed).into());
        }
    }

    fn read<C: CommitCheck + ?Sized>(&mut self, group: HistoryGroup, target: &Head, commits: &mut C) {
        if let Err(contradiction) = self.check_history(&group, target, commits) {
            return self.evidence(contradiction, Said::History(Some(Box::new(group))));
        }
        let HistoryGroup { payments, head, signature, answer, .. } = group;
        let Some(runs) = runs_of(&payments) else { return };
        // A frame that is not there has another holder's payments in its place; `finish_reading` decides about it.
        let is_there = |frame: &&InFlight| {
            frame.last() <= head.sequence && payments.binary_search_by_key(&frame.first(), |(at, _)| *at).is_ok()
        };
        let count = self.frames.iter().take_while(is_there).count();
        for frame in self.frames.drain(..count) {
            self.in_flight -= frame.slots.len();
        }
        let mut answered = std::collections::HashSet::new();
        let mut slots = Vec::with_capacity(payments.len());
        for (_, payment) in &payments {
            slots.push(None);
            let Some(id) = self.slots.find(&payment.reference) else { continue };
            let Some(slot) = self.slots.get_mut(id) else { continue };
            if !matches!(slot.state, SlotState::Wanted | SlotState::Told) {
                continue;
            }
            answered.insert(id);
            if slot.payment() == *payment {
                slot.state = SlotState::Paid;
                slots.pop();
                slots.push(Some(id));
            } else {
                let ticket = slot.ticket;
                self.slots.remove(id);
                self.events.push_back(Event::ReferenceTaken { ticket }.into());
            }
        }
        if !answered.is_empty() {
            self.queue.retain(|id| !answered.contains(id));
        }
        self.settle(runs, slots, (head, signature), answer);
        self.finish_reading();
    }

    fn check_history<C: CommitCheck + ?Sized>(
        &self,
        group: &HistoryGroup,
        target: &Head,
        commits: &mut C,
    ) -> Result<(), Contradiction> {
        let HistoryGroup { payments, head, signature, answer, certificate } = group;
        commits.admit(certificate).map_err(|fault| Contradiction::Commit(super::CommitFault::Proof(fault)))?;
        commits.check(&answer.commit).map_err(Contradiction::Commit)?;
        let mut at = self.answered;
        for (sequence, payment) in payments {
            let total = at.total.checked_add(payment.amount).map_err(|_| Contradiction::History)?;
            if *sequence <= at.sequence {
                return Err(Contradiction::History);
            }
            at = Head { state: next_state(&at.state, *sequence, payment), sequence: *sequence, total, ..at };
        }
        let leads = (at.state, at.sequence, at.total) == (head.state, head.sequence, head.total);
        let ends = head.sequence < target.sequence || head == target;
        let first = payments.first().map(|(sequence, _)| *sequence);
        let counted = payments.len() == answer.count as usize && payments.len() <= MAX_PAYMENTS;
        if !leads
            || !ends
            || !counted
            || first != Some(answer.first_sequence)
            || head.sequence != answer.through_sequence
        {
            return Err(Contradiction::History);
        }
        let digest = head.digest(&self.spec.lane);
        if !self.key.verify(&digest, signature) {
            return Err(Contradiction::HeadSignature);
        }
        answer.includes(&digest).map_err(|_| Contradiction::Path)
    }

    /// The hub no longer keeps what was taken up to `target`: nobody can say which payments those were.
    fn pruned(&mut self, target: Head) {
        let fresh = self.caught_up;
        let frames = std::mem::take(&mut self.frames);
        self.in_flight = 0;
        let mut lost: Vec<_> = frames.into_iter().flat_map(|frame| frame.slots).collect();
        if !fresh {
            // An order that waits may be one that an earlier process paid in there.
            lost.extend(std::mem::take(&mut self.queue));
        }
        for id in lost {
            if let Some(slot) = self.slots.get_mut(id) {
                if slot.state == SlotState::Wanted {
                    self.events.push_back(Event::Unknown { ticket: slot.ticket }.into());
                }
                slot.state = SlotState::Pruned;
            }
        }
        self.answered = target;
        self.finish_reading();
    }

    // ---- hints ------------------------------------------------------------------------------------------------------

    fn refused(&mut self, reject: Reject, fault: u64, now: Time) -> Result<(), ProtocolError> {
        if reject == Reject::Detached {
            self.stop(Stop::Detached);
            return Ok(());
        }
        let attaching = matches!(self.link, Link::Attaching { asked: Some(_), .. });
        match (attaching, reject.reaction()) {
            (_, _) if reject == Reject::Unauthenticated => return Err(ProtocolError::NotProven),
            // Unasked, when the channel closes: it crossed the attach, whose answer brings the close.
            (true, _) if reject == Reject::Closed => {}
            (true, Reaction::Retry) => {
                self.link = Link::Attaching { asked: None, at: self.backoff(now) };
                self.strikes += 1;
            }
            (true, _) => self.stop(Stop::Attach(reject)),
            (false, reaction) => {
                // The first time at once; again and again without anything taken, more and more slowly.
                let wait = reaction == Reaction::Retry || self.strikes > 0;
                let at = if wait { self.backoff(now) } else { now };
                self.strikes += 1;
                self.hint = Some(Hint { reject, fault });
                self.link = Link::Attaching { asked: None, at };
            }
        }
        Ok(())
    }
}

/// Payments as runs, a new one after each gap. `None` when one of them breaks a run's shape.
fn runs_of(payments: &[(u64, Payment)]) -> Option<Vec<Run>> {
    let consecutive = |left: &(u64, Payment), right: &(u64, Payment)| left.0.checked_add(1) == Some(right.0);
    payments
        .chunk_by(consecutive)
        .map(|run| {
            let (first, _) = run.first()?;
            let payments: Vec<Payment> = run.iter().map(|(_, payment)| *payment).collect();
            Run::new(*first, &payments).ok()
        })
        .collect()
}
