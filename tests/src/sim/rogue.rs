//! A malicious participant: it holds keys of its own and does everything with them that a client can. Whatever it makes the
//! hub take must be within the rules; what must never be taken it marks in the model.

use std::collections::BTreeMap;

use weir_protocol::act::{Act, Amend, CloseRequest, Deposit, Refund, Register, Revoke, SignedAct, Withdraw};
use weir_protocol::amount::{Amount, Time};
use weir_protocol::channel::{ChannelTerms, LaneGrant, LaneMode};
use weir_protocol::id::{AccountId, ChannelId, LaneId, Reference};
use weir_protocol::keys::{SecretKey, Signature};
use weir_protocol::payment::{Frame, Head, Payment, Run, next_state};
use weir_protocol::wire::{Attach, LaneReply, LaneRequest};

use super::cx::Cx;
use super::log::{Checked, Failure};
use super::model::{EUR, Pot};
use super::net::{ActorId, ConnId, Stream, ToClient, ToHub};
use crate::note;

const IBAN: &str = "DE89370400440532013000";

#[derive(Debug)]
struct Door {
    conn: Option<ConnId>,
    connecting: Option<ConnId>,
}

#[derive(Debug)]
struct Spending {
    channel: ChannelId,
    lane: LaneId,
    secret: SecretKey,
    /// A stream per door.
    streams: [Option<Stream>; 2],
    /// Attaches sent on each of them and not answered with a void.
    asked: [u32; 2],
    /// Where the newest void of each of them stands.
    stands: [(u64, u32); 2],
    /// Which of them the hub said is attached.
    attached: Option<usize>,
    /// The hub's head, and what was built on it.
    tip: Head,
    heads: BTreeMap<u64, Head>,
    voided: u64,
}

#[derive(Debug)]
struct Owned {
    terms: ChannelTerms,
    key: SecretKey,
    lanes: u32,
}

/// The peer.
#[derive(Debug)]
pub(crate) struct Rogue {
    id: ActorId,
    /// Its account.
    pub(crate) account: AccountId,
    key: SecretKey,
    doors: [Door; 2],
    number: u64,
    channels: Vec<Owned>,
    lanes: Vec<Spending>,
    granted: BTreeMap<LaneId, (SecretKey, u32)>,
    sent: Vec<SignedAct>,
}

fn copy(key: &SecretKey) -> Checked<SecretKey> {
    SecretKey::from_bytes(&key.to_bytes()).map_err(|error| Failure(error.to_string()))
}

impl Rogue {
    /// Somebody with a fresh account key.
    pub(crate) fn new(cx: &mut Cx, id: ActorId) -> Checked<Self> {
        let key = cx.key().map_err(|error| Failure(error.to_string()))?;
        let account = AccountId(key.public());
        cx.destinations.push(account);
        Ok(Self {
            id,
            account,
            key,
            doors: [(); 2].map(|()| Door { conn: None, connecting: None }),
            number: 0,
            channels: Vec::new(),
            lanes: Vec::new(),
            granted: BTreeMap::new(),
            sent: Vec::new(),
        })
    }

    /// A connection is there.
    pub(crate) fn connected(&mut self, conn: ConnId) {
        for door in &mut self.doors {
            if door.connecting == Some(conn) {
                door.connecting = None;
                door.conn = Some(conn);
            }
        }
    }

    /// A connection is gone.
    pub(crate) fn gone(&mut self, conn: ConnId) {
        for (at, door) in self.doors.iter_mut().enumerate() {
            if door.connecting == Some(conn) {
                door.connecting = None;
            }
            if door.conn == Some(conn) {
                door.conn = None;
                for lane in &mut self.lanes {
                    if let Some(stream) = lane.streams.get_mut(at) {
                        *stream = None;
                    }
                    if lane.attached == Some(at) {
                        lane.attached = None;
                    }
                }
            }
        }
    }

    /// Some mischief; how long until the next, in microseconds.
    pub(crate) fn wake(&mut self, cx: &mut Cx) -> Checked<u64> {
        for door in &mut self.doors {
            if door.conn.is_none() && door.connecting.is_none() && cx.hub_up {
                door.connecting = Some(cx.connect(self.id));
            }
        }
        if cx.busy() && cx.hub_up {
            if cx.model.accounts.contains_key(&self.account) {
                self.mischief(cx)?;
            } else {
                let number = self.next_number();
                let name = "rogue".into();
                let act = Act::Register(Register { number, account: self.account, name, iban: IBAN.into() });
                self.say(cx, act.sign(&cx.hub, &self.key));
            }
        }
        Ok(cx.rng.range(5_000, 150_000))
    }

    const fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Through one of its doors, or through both at once.
    fn say(&mut self, cx: &mut Cx, signed: SignedAct) {
        cx.operations += 1;
        let both = cx.rng.once_in(3);
        let first = cx.rng.place(2);
        for (at, door) in self.doors.iter().enumerate() {
            if let Some(conn) = door.conn.filter(|_| both || at == first) {
                let id = cx.request();
                cx.tell_hub(conn, 0, ToHub::Act { id, signed: Box::new(signed.clone()) });
            }
        }
        self.sent.push(signed);
    }

    fn mischief(&mut self, cx: &mut Cx) -> Checked {
        let at = cx.rng.place(self.channels.len());
        let lively = self.lanes.iter().any(|lane| lane.attached.is_some()) && cx.rng.once_in(3);
        match if lively { 31 } else { cx.rng.below(32) } {
            0..=3 => self.open(cx)?,
            4 | 5 => {
                let again = cx.rng.place(self.sent.len());
                if let Some(signed) = self.sent.get(again).cloned() {
                    self.say(cx, signed);
                    self.sent.pop();
                }
            }
            6 => self.not_its_to_do(cx),
            7 | 8 => self.amend(cx, at),
            9 => self.end(cx, at),
            10 | 11 => self.grant(cx, at)?,
            12..=14 => self.refund(cx),
            15 => self.withdraw(cx),
            16..=20 => self.attach(cx),
            _ => self.frames(cx),
        }
        Ok(())
    }

    /// Two channels for the same money, the same one again, with keys that are used already.
    fn open(&mut self, cx: &mut Cx) -> Checked {
        let all = u64::try_from(cx.model.money.of(&self.account, Pot::Available)).unwrap_or(0);
        let many = 1 + cx.rng.below(2);
        for _ in 0..many {
            let key = match cx.rng.below(4) {
                0 => copy(&self.key)?,
                _ => cx.key().map_err(|error| Failure(error.to_string()))?,
            };
            let capacity = match cx.rng.below(4) {
                0 => all,
                1 => cx.rng.below(1 + all / 2),
                2 => all / 2 + 1,
                _ => cx.rng.below(90_000_000),
            };
            let life = if cx.rng.once_in(3) { cx.rng.range(500, 6_000) } else { 1_000_000 };
            let terms = ChannelTerms {
                hub: cx.hub,
                account: self.account,
                scheme: u8::from(cx.rng.once_in(20)),
                key: key.public(),
                currency: EUR,
                capacity: Amount::from_nanos(capacity),
                opened_at: cx.now(),
                expires_at: cx.now().plus_ms(life),
                renew: cx.rng.once_in(2),
                salt: cx.rng.bytes(),
            };
            self.channels.push(Owned { terms, key, lanes: 1 });
            let signed = Act::Open(terms).sign(&cx.hub, &self.key);
            self.say(cx, signed.clone());
            if cx.rng.once_in(2) {
                self.say(cx, signed);
            }
        }
        Ok(())
    }

    fn not_its_to_do(&mut self, cx: &mut Cx) {
        let number = self.next_number();
        let others = cx.destinations.clone();
        let account = cx.rng.pick(&others).copied().unwrap_or(self.account);
        let act = match cx.rng.below(4) {
            0 => Act::Deposit(Deposit {
                account: Some(self.account),
                currency: EUR,
                amount: Amount::from_nanos(1_000_000_000),
                connector: "sandbox".into(),
                bank_reference: format!("mine {number}"),
            }),
            1 => Act::Withdraw(Withdraw { number, account, currency: EUR, marked: Amount::from_nanos(1) }),
            2 => Act::Register(Register { number, account: self.account, name: "x".into(), iban: "none".into() }),
            _ => Act::Register(Register { number, account, name: String::new(), iban: IBAN.into() }),
        };
        let signed = act.sign(&cx.hub, &self.key);
        self.say(cx, signed);
    }

    fn amend(&mut self, cx: &mut Cx, at: usize) {
        let number = if cx.rng.once_in(4) { self.number } else { self.next_number() };
        let Some(owned) = self.channels.get(at) else { return };
        let terms = owned.terms;
        let lower = |rng: &mut super::random::Rng, value: u64| match rng.below(3) {
            0 => value.saturating_sub(rng.below(5_000)),
            1 => value,
            _ => value + rng.below(5_000_000),
        };
        let amend = Amend {
            number,
            channel: terms.id(),
            capacity: Amount::from_nanos(lower(&mut cx.rng, terms.capacity.nanos())),
            expires_at: Time(lower(&mut cx.rng, terms.expires_at.0)),
            renew: cx.rng.once_in(2),
        };
        let signed = Act::Amend(amend).sign(&cx.hub, &self.key);
        self.say(cx, signed);
    }

    fn end(&mut self, cx: &mut Cx, at: usize) {
        let number = cx.rng.below(self.number + 4);
        let Some(owned) = self.channels.get(at) else { return };
        let channel = owned.terms.id();
        let act = if cx.rng.once_in(2) {
            Act::Revoke(Revoke { number, channel, lane: u32::try_from(cx.rng.below(3)).unwrap_or(0) })
        } else {
            Act::CloseRequest(CloseRequest { number, channel })
        };
        let signed = act.sign(&cx.hub, if cx.rng.once_in(2) { &owned.key } else { &self.key });
        self.say(cx, signed);
    }

    fn grant(&mut self, cx: &mut Cx, at: usize) -> Checked {
        let key = cx.key().map_err(|error| Failure(error.to_string()))?;
        let Some(owned) = self.channels.get(at) else { return Ok(()) };
        let mode = match cx.rng.below(5) {
            0 => LaneMode::Direct,
            1 | 2 => LaneMode::Reserved,
            _ => LaneMode::Shared,
        };
        let grant = LaneGrant {
            channel: owned.terms.id(),
            lane: owned.lanes + u32::from(cx.rng.once_in(6)),
            scheme: 0,
            key: key.public(),
            mode,
            payee: None,
            limit: Amount::from_nanos(cx.rng.below(2 * owned.terms.capacity.nanos() + 1)),
            period: u32::from(cx.rng.once_in(3)),
            expires_at: if cx.rng.once_in(2) { Time::MAX } else { cx.now().plus_ms(cx.rng.below(4_000)) },
        };
        let signed = Act::Grant(grant).sign(&cx.hub, &owned.key);
        self.granted.insert(grant.id(), (key, grant.lane));
        self.say(cx, signed);
        Ok(())
    }

    /// The same refund again, more than was paid, somebody else's.
    fn refund(&mut self, cx: &mut Cx) {
        let mine: Vec<_> = cx
            .model
            .payments
            .iter()
            .filter(|(_, payment)| payment.payee == self.account || cx.operations.is_multiple_of(7))
            .map(|(id, payment)| (*id, payment.amount, payment.commit, payment.place))
            .collect();
        let Some((payment_id, amount, commit, (group, leaf))) = cx.rng.pick(&mine).copied() else { return };
        let amount = u64::try_from(amount).unwrap_or(0);
        let Some(chain) = cx.model.chain_of(commit) else { return };
        let refunded_total = match cx.rng.below(4) {
            0 => amount + 1,
            1 => cx.rng.range(0, amount),
            _ => amount,
        };
        let refunded_total = Amount::from_nanos(refunded_total);
        let act = Act::Refund(Refund { chain, commit, group, leaf, payment_id, refunded_total });
        let signed = act.sign(&cx.hub, &self.key);
        self.say(cx, signed.clone());
        self.say(cx, signed);
    }

    fn withdraw(&mut self, cx: &mut Cx) {
        let number = self.next_number();
        let marked = Amount::from_nanos(cx.rng.below(90_000_000));
        let withdraw = Withdraw { number, account: self.account, currency: EUR, marked };
        let signed = Act::Withdraw(withdraw).sign(&cx.hub, &self.key);
        self.say(cx, signed);
    }

    fn attach(&mut self, cx: &mut Cx) {
        cx.operations += 1;
        let at = cx.rng.place(self.lanes.len());
        let door = cx.rng.place(2);
        let Some(conn) = self.doors.get(door).and_then(|door| door.conn) else { return };
        let Some(lane) = self.lanes.get_mut(at) else { return };
        let stream = match lane.streams.get_mut(door) {
            Some(Some(stream)) if !cx.rng.once_in(4) => *stream,
            Some(place) => {
                let stream = cx.stream();
                if let Some(stream) = place.replace(stream).filter(|_| cx.rng.once_in(2)) {
                    cx.tell_hub(conn, stream, ToHub::LaneGone { stream, channel: lane.channel, lane: lane.lane });
                }
                lane.asked[door % 2] = 0;
                lane.stands[door % 2] = (0, 0);
                stream
            }
            None => return,
        };
        lane.asked[door % 2] += 1;
        let void_through = match cx.rng.below(8) {
            0 => lane.tip.sequence + cx.rng.below(30),
            1 => lane.tip.sequence + (1 << 33),
            2 => u64::MAX,
            3 => lane.tip.sequence,
            _ => 0,
        };
        let request = LaneRequest::Attach(Attach { lane: lane.lane, void_through });
        cx.tell_hub(conn, stream, ToHub::Lane { stream, channel: lane.channel, lane: lane.lane, request });
        if cx.rng.once_in(30) {
            let others: Vec<LaneId> = cx.lane_owner.keys().copied().collect();
            if let Some(lane) = cx.rng.pick(&others).copied()
                && let Some(model) = cx.model.lanes.get(&lane)
            {
                let channel = model.grant.channel;
                let stream = cx.stream();
                let request = LaneRequest::Attach(Attach { lane, void_through: 1 << 20 });
                cx.tell_hub(conn, stream, ToHub::Lane { stream, channel, lane, request });
            }
        }
    }

    fn frames(&mut self, cx: &mut Cx) {
        let attached: Vec<usize> = (0..self.lanes.len())
            .filter(|at| self.lanes.get(*at).is_some_and(|lane| lane.attached.is_some()))
            .collect();
        let Some(at) = cx.rng.pick(&attached).copied() else { return self.attach(cx) };
        let Some(door) = self.lanes.get(at).and_then(|lane| lane.attached) else { return };
        // Good ones with a bad one behind them, or anything.
        let good_first = cx.rng.once_in(3);
        let count = cx.rng.range(1, 4);
        for number in 1..=count {
            cx.operations += 1;
            let twist = match good_first {
                true if number < count => PLAIN,
                true => 8,
                false if cx.rng.once_in(2) => PLAIN,
                false => cx.rng.below(10),
            };
            self.frame(cx, at, door, twist);
        }
    }

    /// One frame on the lane's tip, with a twist.
    fn frame(&mut self, cx: &mut Cx, at: usize, door: usize, twist: u64) {
        let Some(conn) = self.doors.get(door).and_then(|door| door.conn) else { return };
        let Some(lane) = self.lanes.get_mut(at) else { return };
        let Some(stream) = lane.streams.get(door).copied().flatten() else { return };
        let floor = lane.tip.sequence.max(lane.voided);
        let first = match twist {
            0 if lane.voided > lane.tip.sequence => cx.rng.range(lane.tip.sequence + 1, lane.voided),
            1 => cx.rng.range(0, lane.tip.sequence),
            2 => floor.saturating_add((1 << 32) + 1),
            _ => floor.saturating_add(1 + cx.rng.below(3)),
        };
        let destinations = cx.destinations.clone();
        let mut payments = Vec::new();
        for _ in 0..cx.rng.range(1, 4) {
            let amount = match twist {
                3 => 0,
                4 => u64::MAX - cx.rng.below(4),
                5 => 100_000_000,
                _ => cx.rng.range(1, 4_000_000),
            };
            let payee = match twist {
                6 => AccountId(weir_protocol::keys::PublicKey(cx.rng.bytes())),
                _ => cx.rng.pick(&destinations).copied().unwrap_or(self.account),
            };
            payments.push(Payment { payee, amount: Amount::from_nanos(amount), reference: Reference(cx.rng.bytes()) });
        }
        let Ok(run) = Run::new(first, &payments) else { return };
        let mut head = lane.tip;
        for (sequence, payment) in run.payments() {
            head.state = next_state(&head.state, sequence, &payment);
            head.sequence = sequence;
            head.total = head.total.checked_add(payment.amount).unwrap_or(Amount::MAX);
        }
        let mut forbidden = None;
        head.valid_until = match twist {
            7 => {
                forbidden = Some("it was past its deadline when it was signed");
                Time(cx.now().0.saturating_sub(10_000))
            }
            PLAIN if cx.rng.once_in(4) => cx.now().plus_ms(cx.rng.below(3_000)),
            _ => Time(0),
        };
        let mut signature = lane.secret.sign(&head.digest(&lane.lane));
        if twist == 8 || twist == 9 {
            forbidden = Some("nothing signs it");
            signature = match cx.rng.below(2) {
                0 => Signature([7; 64]),
                _ => self.key.sign(&head.digest(&lane.lane)),
            };
            // With its own account key as the lane's key that would be a good signature.
            if lane.secret.public() == self.key.public() {
                signature = Signature([7; 64]);
            }
        }
        if twist == OLD_STREAM {
            forbidden = Some("it came on an older stream after a newer one had attached");
        }
        if let Some(why) = forbidden {
            for payment in &payments {
                cx.model.forbid(payment.reference, why);
            }
        } else if twist == PLAIN {
            lane.heads.insert(head.sequence, head);
        }
        let frame = Frame { previous_sequence: lane.tip.sequence, run, valid_until: head.valid_until, signature };
        if twist == PLAIN {
            lane.tip = head;
        }
        let request = LaneRequest::Frame(frame);
        cx.tell_hub(conn, stream, ToHub::Lane { stream, channel: lane.channel, lane: lane.lane, request });
    }

    /// A message of the hub.
    pub(crate) fn hear(&mut self, cx: &mut Cx, message: ToClient) -> Checked {
        match message {
            ToClient::Done { act, .. } => match *act {
                Act::Open(terms) => {
                    let key = self.channels.iter().find(|owned| owned.terms == terms).map(|owned| copy(&owned.key));
                    let zero = terms.lane_zero();
                    if let Some(key) = key {
                        self.add_lane(cx, terms.id(), zero.id(), key?);
                    }
                }
                Act::Grant(grant) => {
                    if let Some((key, number)) = self.granted.remove(&grant.id()) {
                        if let Some(owned) = self.channels.iter_mut().find(|owned| owned.terms.id() == grant.channel) {
                            owned.lanes = number + 1;
                        }
                        self.add_lane(cx, grant.channel, grant.id(), key);
                    }
                }
                _ => {}
            },
            ToClient::Refused { reject, .. } => cx.reach(format!("rogue's act refused: {reject}")),
            ToClient::Lane { stream, reply } => self.lane_reply(cx, stream, &reply),
            _ => {}
        }
        Ok(())
    }

    fn add_lane(&mut self, cx: &mut Cx, channel: ChannelId, lane: LaneId, secret: SecretKey) {
        if cx.lane_owner.insert(lane, self.id).is_some() {
            return;
        }
        self.lanes.push(Spending {
            channel,
            lane,
            secret,
            streams: [None; 2],
            asked: [0; 2],
            stands: [(0, 0); 2],
            attached: None,
            tip: Head::empty(&lane),
            heads: BTreeMap::new(),
            voided: 0,
        });
    }

    fn lane_reply(&mut self, cx: &mut Cx, stream: Stream, reply: &LaneReply) {
        let place = self.lanes.iter().enumerate().find_map(|(at, lane)| {
            let door = lane.streams.iter().position(|known| *known == Some(stream))?;
            Some((at, door))
        });
        let Some((at, door)) = place else { return };
        let Some(lane) = self.lanes.get_mut(at) else { return };
        match reply {
            LaneReply::Attached(attached) => {
                lane.tip = attached.head;
                lane.voided = lane.voided.max(attached.void.void_through);
                lane.attached = Some(door);
                lane.asked[door % 2] = lane.asked[door % 2].saturating_sub(1);
                lane.stands[door % 2] = (attached.proof.commit.commit.number, attached.proof.path.index);
                note!(cx, "rogue attaches, voided through {}", lane.voided);
                let other = (door + 1) % 2;
                let older = lane.stands[other] > (0, 0) && lane.stands[other] < lane.stands[door % 2];
                if older && lane.asked[other] == 0 && cx.rng.once_in(2) {
                    self.frame(cx, at, 1 - door, OLD_STREAM);
                }
            }
            LaneReply::Refused { reject, .. } => {
                cx.reach(format!("rogue's hint: {reject}"));
                if lane.attached == Some(door) && !cx.rng.once_in(4) {
                    lane.attached = None;
                }
            }
            LaneReply::Taken(_) | LaneReply::Closed(_) => {}
        }
    }
}

/// The twist of a frame that comes on an older stream.
const OLD_STREAM: u64 = 98;
/// The twist of a frame that has none.
const PLAIN: u64 = 99;
