//! What everybody in a simulation shares: the clock, the agenda, the network, the model, the log.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use weir_protocol::amount::Time;
use weir_protocol::commit::SignedCertificate;
use weir_protocol::id::{AccountId, HubId, LaneId};
use weir_protocol::keys::{KeyError, SecretKey};

use super::log::Log;
use super::model::Model;
use super::net::{ActorId, ConnId, Net, Stream, ToClient, ToHub};
use super::random::Rng;

/// When the simulation begins, in ms since 1970.
const BEGIN_MS: u64 = 1_800_000_000_000;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A client's message arrives at the hub.
    ToHub(ConnId, Box<ToHub>),
    /// A message of the hub arrives at a client.
    ToClient(ConnId, Box<ToClient>),
    /// A connection is made: both ends open.
    Connected(ConnId),
    /// The hub notices that a connection is gone.
    HubSeesGone(ConnId),
    /// The client notices that a connection is gone.
    ClientSeesGone(ConnId),
    /// An actor has something to do.
    Wake(ActorId),
    /// A lane of an actor wants to be polled.
    Drive(ActorId, u64, usize),
    /// A reservation of a lane's sequences is on its owner's disk.
    Reserved {
        /// Whose.
        actor: ActorId,
        /// The life of its process.
        life: u64,
        /// The place of the lane.
        lane: usize,
        /// Through which sequence.
        mark: u64,
    },
    /// A shard takes what has arrived.
    Judge(u64, usize),
    /// It has judged it.
    Judged(u64, usize),
    /// The committer stages and seals.
    Commit(u64),
    /// What is sealed is written.
    Append(u64),
    /// What was written is released.
    Release(u64),
    /// A fault happens.
    Fault,
    /// The hub's process starts.
    Start,
}

#[derive(Debug)]
struct Entry {
    at_us: u64,
    tie: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.at_us, self.tie, self.number).cmp(&(other.at_us, other.tie, other.number))
    }
}

/// How a seed's world is: each is extreme in something else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mood {
    /// A shard takes only a part of its queue once in so many times.
    pub(crate) choppy: u64,
    /// A shard takes long once in so many times.
    pub(crate) slow: u64,
    /// The operator changes its mind once in so many looks, in 30.
    pub(crate) meddling: u64,
    /// Longest time between two looks of the operator.
    pub(crate) looks_us: u64,
    /// Most that a usual payment is.
    pub(crate) payment: u64,
    /// Longest time between two wishes of a client.
    pub(crate) wishes_us: u64,
    /// Longest time between two faults.
    pub(crate) faults_us: u64,
}

impl Mood {
    fn new(rng: &mut Rng) -> Self {
        let mut one = |of: &[u64]| rng.pick(of).copied().unwrap_or(1);
        Self {
            choppy: one(&[1, 2, 4, 30]),
            slow: one(&[2, 10, 100]),
            meddling: one(&[1, 8, 30]),
            looks_us: one(&[10_000, 60_000, 200_000]),
            payment: one(&[20_000, 1_000_000, 15_000_000]),
            wishes_us: one(&[12_000, 60_000, 250_000]),
            faults_us: one(&[400_000, 1_000_000, 4_000_000]),
        }
    }
}

/// The shared part of a simulation.
#[derive(Debug)]
pub(crate) struct Cx {
    /// Virtual time since the beginning.
    pub(crate) now_us: u64,
    /// The run's randomness.
    pub(crate) rng: Rng,
    /// What this world is like.
    pub(crate) mood: Mood,
    /// The network.
    pub(crate) net: Net,
    /// The model.
    pub(crate) model: Model,
    /// The log.
    pub(crate) log: Log,
    /// The hub.
    pub(crate) hub: HubId,
    /// Certifies its signing key.
    pub(crate) certificate: SignedCertificate,
    /// The hub's life: one more with every start.
    pub(crate) life: u64,
    /// The hub runs.
    pub(crate) hub_up: bool,
    /// No more faults, no more malice: everything must come to rest.
    pub(crate) calm: bool,
    /// Operations so far.
    pub(crate) operations: u64,
    /// Operations to be made.
    pub(crate) wanted: u64,
    /// Accounts that can be paid, as the world knows them.
    pub(crate) destinations: Vec<AccountId>,
    /// Who holds a lane's key.
    pub(crate) lane_owner: std::collections::BTreeMap<LaneId, ActorId>,
    /// Situations that came up, with how often.
    pub(crate) reached: std::collections::BTreeMap<String, u64>,
    next_stream: Stream,
    next_request: u64,
    agenda: BinaryHeap<Reverse<Entry>>,
    ties: Rng,
    scheduled: u64,
}

/// Notes an event.
#[macro_export]
macro_rules! note {
    ($cx:expr, $($arguments:tt)*) => {{
        let at = $cx.now_us;
        $cx.log.note(at, format_args!($($arguments)*));
    }};
}

impl Cx {
    /// An empty world.
    pub(crate) fn new(mut rng: Rng, wanted: u64, hub: HubId, certificate: SignedCertificate) -> Self {
        let ties = rng.fork();
        let mood = Mood::new(&mut rng);
        Self {
            now_us: 0,
            rng,
            mood,
            net: Net::default(),
            model: Model::new(hub),
            log: Log::default(),
            hub,
            certificate,
            life: 0,
            hub_up: false,
            calm: false,
            operations: 0,
            wanted,
            destinations: Vec::new(),
            lane_owner: std::collections::BTreeMap::new(),
            reached: std::collections::BTreeMap::new(),
            next_stream: 0,
            next_request: 0,
            agenda: BinaryHeap::new(),
            ties,
            scheduled: 0,
        }
    }

    /// The true time.
    pub(crate) const fn now(&self) -> Time {
        Time(BEGIN_MS + self.now_us / 1000)
    }

    /// Whether the traffic goes on.
    pub(crate) const fn busy(&self) -> bool {
        !self.calm && self.operations < self.wanted
    }

    /// Something happens in a while.
    pub(crate) fn after(&mut self, us: u64, event: Event) {
        let at_us = self.now_us + us;
        self.at(at_us, event);
    }

    /// Something happens at a time.
    pub(crate) fn at(&mut self, at_us: u64, event: Event) {
        self.scheduled += 1;
        let entry = Entry { at_us, tie: self.ties.bits(), number: self.scheduled, event };
        self.agenda.push(Reverse(entry));
    }

    /// The next event; time goes on to it.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let Reverse(entry) = self.agenda.pop()?;
        self.now_us = self.now_us.max(entry.at_us);
        Some(entry.event)
    }

    /// Events that were scheduled so far.
    pub(crate) const fn scheduled(&self) -> u64 {
        self.scheduled
    }

    /// A situation came up: a simulator that never comes to the hard places finds nothing.
    pub(crate) fn reach(&mut self, what: impl Into<String>) {
        *self.reached.entry(what.into()).or_default() += 1;
    }

    /// A number for a new stream.
    pub(crate) const fn stream(&mut self) -> Stream {
        self.next_stream += 1;
        self.next_stream
    }

    /// A number for a new request.
    pub(crate) const fn request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    /// A secret key.
    pub(crate) fn key(&mut self) -> Result<SecretKey, KeyError> {
        SecretKey::from_bytes(&self.rng.bytes())
    }

    /// A client makes a connection; it hears of it by [`Event::Connected`], if the hub is there by then.
    pub(crate) fn connect(&mut self, owner: ActorId) -> ConnId {
        let conn = self.net.make(owner, self.life, &mut self.rng);
        let delay = self.rng.range(200, 20_000);
        self.after(delay, Event::Connected(conn));
        conn
    }

    /// A client says something.
    pub(crate) fn tell_hub(&mut self, conn: ConnId, stream: Stream, message: ToHub) {
        if let Some(at) = self.net.arrival(conn, stream, true, self.now_us, &mut self.rng) {
            self.at(at, Event::ToHub(conn, Box::new(message)));
        }
    }

    /// The hub says something.
    pub(crate) fn tell_client(&mut self, conn: ConnId, stream: Stream, message: ToClient) {
        if let Some(at) = self.net.arrival(conn, stream, false, self.now_us, &mut self.rng) {
            self.at(at, Event::ToClient(conn, Box::new(message)));
        }
    }

    /// The client drops a connection; the hub notices in its time.
    pub(crate) fn close(&mut self, conn: ConnId) {
        let late = if self.calm { 10_000 } else { 2_000_000 };
        let delay = self.rng.below(late);
        if let Some(conn) = self.net.get_mut(conn) {
            conn.client_open = false;
            conn.cut = true;
        }
        self.after(delay, Event::HubSeesGone(conn));
    }

    /// The network cuts a connection; each end notices in its time.
    pub(crate) fn cut(&mut self, conn: ConnId) {
        let (hub, client) = (self.rng.below(2_000_000), self.rng.below(500_000));
        if let Some(conn) = self.net.get_mut(conn) {
            conn.cut = true;
        }
        self.after(hub, Event::HubSeesGone(conn));
        self.after(client, Event::ClientSeesGone(conn));
    }
}
