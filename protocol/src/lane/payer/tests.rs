//! The payer against a small hub: one lane, one stream, commits with a neighbour so that paths are not empty.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a failed test should say where")]

mod chaos;
mod rules;

use std::collections::VecDeque;

use super::*;
use crate::act::{Act, Certificate, Close, CloseCause};
use crate::amount::{Amount, Currency};
use crate::channel::{LaneGrant, LaneMode};
use crate::commit::{ActProof, Blind, Commit, SignedCertificate, SignedCommit, act_item, group_item};
use crate::hash::Hash;
use crate::id::{AccountId, ChannelId, HubId, Reference};
use crate::keys::PublicKey;
use crate::lane::hub::{Bounds, Lane};
use crate::merkle::{self, Tree};
use crate::payment::{Payment, payment_id, receipt_leaf};
use crate::wire::{Attached, HistoryGroup, LaneReply};

const EUR: &str = "EUR";
const CHANNEL: ChannelId = ChannelId([2; 32]);

fn payee(byte: u8) -> AccountId {
    AccountId(PublicKey([byte; 32]))
}

fn order(reference: u16, nanos: u64) -> Order {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&reference.to_le_bytes());
    Order { payee: payee(9), amount: Amount::from_nanos(nanos), reference: Reference(bytes), deadline: None }
}

fn lane_key() -> SecretKey {
    SecretKey::from_bytes(&[1; 32]).unwrap()
}

/// A hub with one lane. Everything it takes is durable at once.
struct Hub {
    id: HubId,
    signing: SecretKey,
    certificate: SignedCertificate,
    lane: Lane,
    bounds: Bounds,
    number: u64,
    history: Vec<HistoryGroup>,
    closed: Option<(Close, ActProof)>,
    pruned: bool,
    /// Whether the one stream is attached and nothing was refused on it since.
    listening: bool,
    /// Refuse the next request with this.
    next_refusal: Option<Reject>,
    voids: u32,
}

impl Hub {
    fn new() -> Self {
        let identity = SecretKey::from_bytes(&[11; 32]).unwrap();
        let signing = SecretKey::from_bytes(&[12; 32]).unwrap();
        let id = HubId(identity.public());
        let certificate = Certificate { key: signing.public(), not_before: Time(0), not_after: Time(u64::MAX) };
        let signature = identity.sign(&Act::Certificate(certificate).digest(&id));
        let grant = LaneGrant {
            channel: CHANNEL,
            lane: 1,
            scheme: 0,
            key: lane_key().public(),
            mode: LaneMode::Shared,
            payee: None,
            limit: Amount::MAX,
            period: 0,
            expires_at: Time::MAX,
        };
        let bounds = Bounds {
            now: Time(1_000),
            opened_at: Time(0),
            expires_at: Time::MAX,
            headroom: Amount::from_nanos(1_000_000),
            headroom_from: Time(0),
            frozen: false,
            payment_max: Amount::from_nanos(1_000),
        };
        Self {
            id,
            signing,
            certificate: SignedCertificate { certificate, signature },
            lane: Lane::new(grant),
            bounds,
            number: 0,
            history: Vec::new(),
            closed: None,
            pruned: false,
            listening: false,
            next_refusal: None,
            voids: 0,
        }
    }

    fn spec(&self) -> LaneSpec {
        LaneSpec {
            hub: self.id,
            channel: CHANNEL,
            lane: self.lane.id(),
            key: lane_key().public(),
            currency: EUR.parse().unwrap(),
            payee: None,
        }
    }

    fn proofs(&self) -> HubProofs {
        let mut proofs = HubProofs::new(self.id);
        proofs.admit(&self.certificate).unwrap();
        proofs
    }

    fn commit(&mut self, item: Hash) -> (SignedCommit, merkle::Path) {
        self.number += 1;
        let tree = Tree::new(vec![Hash([7; 32]), item, Hash([8; 32])]);
        let commit = Commit {
            hub: self.id,
            chain: 1,
            number: self.number,
            time: self.bounds.now,
            history: Hash::ZERO,
            items: 3,
            root: tree.root(),
        };
        (SignedCommit { commit, signature: self.signing.sign(&commit.id()) }, tree.path(1).unwrap())
    }

    fn prove(&mut self, act: &Act) -> ActProof {
        let blind = Blind([5; 16]);
        let (commit, path) = self.commit(act_item(&blind, act.kind(), &act.digest(&self.id)));
        ActProof { commit, blind, path }
    }

    fn close(&mut self) {
        let close = Close {
            channel: CHANNEL,
            cause: CloseCause::Operator,
            request: Hash::ZERO,
            root: merkle::root(&[self.lane.head_digest()]),
            spent: self.lane.head().total,
            returned: Amount::ZERO,
        };
        let proof = self.prove(&Act::Close(close));
        self.closed = Some((close, proof));
    }

    #[expect(clippy::unnecessary_wraps, reason = "an answer like the others")]
    fn refuse(&mut self, reject: Reject, fault: u64) -> Option<LaneReply> {
        self.listening = false;
        Some(LaneReply::Refused { reject, fault })
    }

    fn handle(&mut self, request: LaneRequest) -> Option<LaneReply> {
        match request {
            LaneRequest::Attach(attach) => {
                if let Some(reject) = self
                    .next_refusal
                    .take_if(|reject| ![Reject::Conflict, Reject::Signature, Reject::Capacity].contains(reject))
                {
                    return self.refuse(reject, 0);
                }
                self.attach(attach)
            }
            LaneRequest::Frame(_) if !self.listening => None,
            LaneRequest::Frame(frame) => {
                if let Some(reject) = self.next_refusal.take() {
                    return self.refuse(reject, frame.run.first_sequence());
                }
                if self.closed.is_some() {
                    return self.refuse(Reject::Closed, frame.run.first_sequence());
                }
                self.frames(vec![frame])
            }
        }
    }

    fn attach(&mut self, attach: Attach) -> Option<LaneReply> {
        self.listening = true;
        let (head, signature) = (*self.lane.head(), self.lane.signature().copied());
        if let Some((close, proof)) = self.closed.clone() {
            let path = Tree::new(vec![self.lane.head_digest()]).path(0).unwrap();
            return Some(LaneReply::Closed(Box::new(ClosedLane { close, proof, head, signature, path })));
        }
        let void = match self.lane.void(attach.void_through) {
            Ok(void) => void,
            Err(reject) => return self.refuse(reject, 0),
        };
        self.lane.apply_void(&void).unwrap();
        self.voids += 1;
        let proof = self.prove(&Act::Void(void));
        Some(LaneReply::Attached(Box::new(Attached { void, head, signature, proof })))
    }

    fn frames(&mut self, frames: Vec<Frame>) -> Option<LaneReply> {
        let key = lane_key().public().parse().unwrap();
        let taken = self.lane.judge(frames, &self.bounds, &key, &mut |payee| {
            if payee.0.0[0] < 100 { Ok(()) } else { Err(Reject::UnknownPayee) }
        });
        if let Some(fault) = taken.fault {
            return self.refuse(fault.reject, fault.sequence);
        }
        let group = &taken.groups[0];
        self.lane.apply(group);
        let payments: Vec<_> = group.runs.iter().flat_map(Run::payments).collect();
        let spent: u64 = payments.iter().map(|(_, payment)| payment.amount.nanos()).sum();
        self.bounds.headroom = Amount::from_nanos(self.bounds.headroom.nanos() - spent);
        let lane = self.lane.id();
        let currency: Currency = EUR.parse().unwrap();
        let leaf = |(at, payment): &(u64, Payment)| receipt_leaf(&payment_id(&lane, *at), payment, currency);
        let leaves = merkle::root(&payments.iter().map(leaf).collect::<Vec<_>>());
        let (commit, path) = self.commit(group_item(&group.head.digest(&lane), payments.len() as u32, &leaves));
        let answer = Answer {
            first_sequence: payments[0].0,
            through_sequence: group.head.sequence,
            count: payments.len() as u32,
            leaves,
            commit,
            path,
        };
        self.history.push(HistoryGroup {
            payments,
            head: group.head,
            signature: group.signature,
            answer: answer.clone(),
            certificate: self.certificate,
        });
        Some(LaneReply::Taken(Box::new(answer)))
    }

    fn read(&self, since: u64) -> Result<Option<HistoryGroup>, Reject> {
        if self.pruned {
            return Err(Reject::Pruned);
        }
        Ok(self.history.iter().find(|group| group.head.sequence > since).cloned())
    }

    fn payments(&self) -> impl Iterator<Item = Payment> + '_ {
        self.history.iter().flat_map(|group| group.payments.iter().map(|(_, payment)| *payment))
    }
}

/// A payer and what its home keeps.
struct Home {
    payer: Payer,
    proofs: HubProofs,
    mark: u64,
    groups: Vec<Arc<PaidGroup>>,
    events: VecDeque<Event>,
}

fn small() -> Limits {
    Limits { block: 8, frames: 4, payments: 16, frame_payments: 4, unlinkable: false }
}

impl Home {
    fn new(hub: &Hub, limits: Limits) -> Self {
        let resume = Resume { mark: 0, head: Head::empty(&hub.lane.id()) };
        let payer = Payer::new(hub.spec(), resume, limits).unwrap();
        Self { payer, proofs: hub.proofs(), mark: 0, groups: Vec::new(), events: VecDeque::new() }
    }

    /// The process dies and starts again with what was kept; `lost` groups were not written yet.
    fn restart(&mut self, hub: &Hub, limits: Limits, lost: usize) {
        let keep = self.groups.len().saturating_sub(lost);
        self.groups.truncate(keep);
        let head = self.groups.last().map_or_else(|| Head::empty(&hub.lane.id()), |group| group.head);
        self.payer = Payer::new(hub.spec(), Resume { mark: self.mark, head }, limits).unwrap();
        self.events.clear();
    }

    fn drain(&mut self) {
        while let Some(event) = self.payer.poll_event() {
            if let Event::Paid { group, .. } = &event {
                self.groups.push(Arc::clone(group));
            }
            self.events.push_back(event);
        }
        if let Some(mark) = self.payer.poll_reserve() {
            self.mark = mark;
            self.payer.reserved(mark);
        }
    }

    /// Everything that can happen without a fault, until nothing does.
    fn run(&mut self, hub: &mut Hub, now: u64) {
        self.payer.connected();
        loop {
            self.drain();
            let page = self.payer.poll_history(Time(now)).map(|since| hub.read(since));
            if let Some(page) = page {
                self.payer.handle_history(page, Time(now), &mut self.proofs).unwrap();
                continue;
            }
            let Some(request) = self.payer.poll_send(Time(now), &lane_key()) else { break };
            if let Some(reply) = hub.handle(request) {
                self.payer.handle_reply(reply, Time(now), &mut self.proofs).unwrap();
            }
        }
        self.drain();
    }

    fn paid(&mut self) -> Vec<Ticket> {
        let events = std::mem::take(&mut self.events);
        let tickets = events.into_iter().flat_map(|event| match event {
            Event::Paid { tickets, .. } => tickets.into_iter().flatten().collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        });
        tickets.collect()
    }

    fn stop(&mut self) -> Stop {
        let stop = self.events.iter().find_map(|event| match event {
            Event::Stopped(stop) => Some(stop.clone()),
            _ => None,
        });
        stop.unwrap()
    }
}
