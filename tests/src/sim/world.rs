//! One simulated world, from its first event to rest.

use weir_protocol::act::{Act, Certificate};
use weir_protocol::amount::Time;
use weir_protocol::commit::SignedCertificate;
use weir_protocol::id::HubId;
use weir_protocol::keys::SecretKey;

use super::cx::{Cx, Event};
use super::hub::Hub;
use super::log::{Checked, Failure, ensure};
use super::model::Pot;
use super::net::{ActorId, ConnId, ToClient};
use super::operator::{Operator, first_policy};
use super::person::Person;
use super::random::Rng;
use super::rogue::Rogue;
use super::{Options, Report};
use crate::note;

/// The operator's place among the actors.
const OPERATOR: ActorId = ActorId(usize::MAX);
/// Virtual time after the traffic in which everything must come to rest.
const REST_US: u64 = 600_000_000;

/// Events after which a world without operations should long be at rest.
const EVENTS_MAX: u64 = 300_000;

#[derive(Debug)]
enum Actor {
    Person(Box<Person>),
    Rogue(Box<Rogue>),
}

/// Everything.
#[derive(Debug)]
pub(crate) struct World {
    seed: u64,
    cx: Cx,
    hub: Hub,
    actors: Vec<Actor>,
    operator: Operator,
    calm_since: u64,
    at_rest: bool,
}

impl World {
    /// A world before its first event.
    pub(crate) fn new(options: Options) -> Checked<Self> {
        let mut rng = Rng::new(options.seed);
        let mut key = || SecretKey::from_bytes(&rng.bytes()).map_err(|error| Failure(error.to_string()));
        let (identity, signing) = (key()?, key()?);
        let id = HubId(identity.public());
        let certificate = Certificate { key: signing.public(), not_before: Time(0), not_after: Time::MAX };
        let signature = identity.sign(&Act::Certificate(certificate).digest(&id));
        let certificate = SignedCertificate { certificate, signature };
        let mut cx = Cx::new(rng, options.operations, id, certificate);
        let hub = Hub::new(id, signing, certificate, first_policy());
        let mut actors = Vec::new();
        let (payers, payees) = (cx.rng.range(2, 4), cx.rng.range(1, 3));
        for _ in 0..payers {
            let id = ActorId(actors.len());
            actors.push(Actor::Person(Box::new(Person::new(&mut cx, id, true)?)));
        }
        for _ in 0..payees {
            let id = ActorId(actors.len());
            actors.push(Actor::Person(Box::new(Person::new(&mut cx, id, false)?)));
        }
        let id = ActorId(actors.len());
        actors.push(Actor::Rogue(Box::new(Rogue::new(&mut cx, id)?)));
        for at in 0..actors.len() {
            let delay = cx.rng.below(50_000);
            cx.after(delay, Event::Wake(ActorId(at)));
        }
        cx.after(0, Event::Start);
        cx.after(1_000, Event::Wake(OPERATOR));
        cx.after(500_000, Event::Fault);
        Ok(Self { seed: options.seed, cx, hub, actors, operator: Operator::default(), calm_since: 0, at_rest: false })
    }

    /// Runs until everything is at rest.
    pub(crate) fn run(&mut self) -> Checked {
        while !self.at_rest {
            let Some(event) = self.cx.next() else { return Err(Failure("nothing happens any more".into())) };
            self.step(event)?;
            ensure(self.cx.scheduled() < EVENTS_MAX + 1000 * self.cx.wanted, || "it runs in circles".into())?;
            if !self.cx.calm && self.cx.operations >= self.cx.wanted {
                note!(self.cx, "the faults stop");
                self.cx.calm = true;
                self.calm_since = self.cx.now_us;
                // A long pause after a crash is a fault as well.
                self.cx.after(0, Event::Start);
            }
            if self.cx.calm && self.cx.now_us > self.calm_since + REST_US {
                return Err(Failure(format!("it does not come to rest: {}", self.waits_for())));
            }
        }
        self.check_rest()
    }

    /// How it ended.
    pub(crate) fn report(self, failure: Option<Failure>) -> Report {
        let last = self.cx.log.last().map(ToOwned::to_owned).collect();
        Report {
            seed: self.seed,
            operations: self.cx.operations,
            commits: self.cx.model.last(),
            payments: self.cx.model.payments.len() as u64,
            crashes: self.hub.crashes,
            hash: self.cx.log.hash(),
            reached: {
                let mut reached = self.cx.reached;
                for (kind, count) in self.cx.model.kinds {
                    reached.insert(format!("committed: {kind}"), count);
                }
                reached
            },
            failure: failure.map(|failure| (failure, last)),
        }
    }

    fn step(&mut self, event: Event) -> Checked {
        let (cx, hub) = (&mut self.cx, &mut self.hub);
        match event {
            Event::Start => hub.start(cx),
            Event::Judge(life, shard) if life == cx.life => {
                hub.judge(cx, shard);
                Ok(())
            }
            Event::Judged(life, shard) if life == cx.life => {
                hub.judged(cx, shard);
                Ok(())
            }
            Event::Commit(life) if life == cx.life => hub.commit(cx),
            Event::Append(life) if life == cx.life => hub.append(cx),
            Event::Release(life) if life == cx.life => hub.release(cx),
            Event::Judge(..) | Event::Judged(..) | Event::Commit(_) | Event::Append(_) | Event::Release(_) => Ok(()),
            Event::ToHub(conn, message) => {
                if cx.net.get(conn).is_some_and(|conn| conn.hub_open) {
                    hub.hear(cx, conn, *message)?;
                }
                Ok(())
            }
            Event::HubSeesGone(conn) => {
                if let Some(conn) = cx.net.get_mut(conn) {
                    conn.hub_open = false;
                    conn.cut = true;
                }
                hub.forget(cx, conn);
                Ok(())
            }
            Event::Connected(conn) => self.connected(conn),
            Event::ToClient(conn, message) => self.tell_client(conn, *message),
            Event::ClientSeesGone(conn) => {
                self.client_sees_gone(conn);
                Ok(())
            }
            Event::Wake(actor) => self.wake(actor),
            Event::Drive(actor, life, lane) => match self.actors.get_mut(actor.0) {
                Some(Actor::Person(person)) => person.drive_later(cx, life, lane),
                _ => Ok(()),
            },
            Event::Reserved { actor, life, lane, mark } => match self.actors.get_mut(actor.0) {
                Some(Actor::Person(person)) => person.reserved(cx, life, lane, mark),
                _ => Ok(()),
            },
            Event::Fault => self.fault(),
        }
    }

    fn connected(&mut self, id: ConnId) -> Checked {
        let cx = &mut self.cx;
        let (life, up) = (cx.life, cx.hub_up);
        let Some(conn) = cx.net.get_mut(id) else { return Ok(()) };
        let owner = conn.owner;
        if conn.life != life || !up || conn.cut {
            conn.cut = true;
            self.client_sees_gone(id);
            return Ok(());
        }
        conn.hub_open = true;
        conn.client_open = true;
        note!(cx, "actor {} is connected", owner.0);
        match self.actors.get_mut(owner.0) {
            Some(Actor::Person(person)) => person.connected(cx, id),
            Some(Actor::Rogue(rogue)) => {
                rogue.connected(id);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn tell_client(&mut self, id: ConnId, message: ToClient) -> Checked {
        let cx = &mut self.cx;
        let Some(conn) = cx.net.get(id).filter(|conn| conn.client_open) else { return Ok(()) };
        match self.actors.get_mut(conn.owner.0) {
            Some(Actor::Person(person)) => person.hear(cx, id, message),
            Some(Actor::Rogue(rogue)) => rogue.hear(cx, message),
            None => Ok(()),
        }
    }

    fn client_sees_gone(&mut self, id: ConnId) {
        let Some(conn) = self.cx.net.get_mut(id) else { return };
        conn.client_open = false;
        match self.actors.get_mut(conn.owner.0) {
            Some(Actor::Person(person)) => person.gone(&mut self.cx, id),
            Some(Actor::Rogue(rogue)) => rogue.gone(id),
            None => {}
        }
    }

    fn wake(&mut self, actor: ActorId) -> Checked {
        let cx = &mut self.cx;
        let delay = if actor == OPERATOR {
            let delay = self.operator.wake(cx, &mut self.hub);
            self.settle_down();
            delay
        } else {
            match self.actors.get_mut(actor.0) {
                Some(Actor::Person(person)) => person.wake(cx)?,
                Some(Actor::Rogue(rogue)) => rogue.wake(cx)?,
                None => return Ok(()),
            }
        };
        self.cx.after(delay, Event::Wake(actor));
        Ok(())
    }

    fn fault(&mut self) -> Checked {
        if self.cx.calm {
            return Ok(());
        }
        let cx = &mut self.cx;
        let delay = cx.rng.range(50_000, cx.mood.faults_us);
        cx.after(delay, Event::Fault);
        match cx.rng.below(16) {
            0..=5 => {
                let open = cx.net.open_at_hub();
                if let Some(conn) = cx.rng.pick(&open).copied() {
                    note!(cx, "a connection is cut");
                    cx.cut(conn);
                }
            }
            6..=8 => self.hub.crash(cx),
            9 | 10 => self.hub.fail_next_sync(cx),
            11 => self.hub.backup_or_restore(cx)?,
            12 | 13 => {
                let at = cx.rng.place(self.actors.len());
                if let Some(Actor::Person(person)) = self.actors.get_mut(at) {
                    person.crash(cx);
                }
            }
            _ => {
                let at = cx.rng.place(self.actors.len());
                if let Some(Actor::Person(person)) = self.actors.get_mut(at) {
                    person.drop_connection(cx);
                }
            }
        }
        Ok(())
    }

    fn persons(&self) -> impl Iterator<Item = &Person> {
        self.actors.iter().filter_map(|actor| match actor {
            Actor::Person(person) => Some(person.as_ref()),
            Actor::Rogue(_) => None,
        })
    }

    fn waits_for(&self) -> String {
        let mut waits: Vec<String> = self.persons().filter_map(Person::waits_for).collect();
        let missing: usize = self.persons().map(|person| person.missing_credits(&self.cx)).sum();
        if missing > 0 {
            waits.push(format!("{missing} credits"));
        }
        let windows = self.cx.model.windows.values().filter(|window| !window.settled).count();
        waits.push(format!("{windows} windows"));
        waits.join("; ")
    }

    /// When nobody waits any more, the operator closes and settles everything.
    fn settle_down(&mut self) {
        if !self.cx.calm || self.persons().any(|person| person.waits_for().is_some()) {
            return;
        }
        let settled = self.operator.finish(&mut self.cx, &mut self.hub);
        let heard = self.persons().all(|person| person.missing_credits(&self.cx) == 0);
        self.at_rest = settled && heard && self.hub.is_idle();
    }

    fn check_rest(&mut self) -> Checked {
        let model = &self.cx.model;
        model.invariant_told()?;
        model.invariant_receipts()?;
        for (account, pot, nanos) in model.money.holders() {
            let rests = matches!(pot, Pot::Available | Pot::Payable | Pot::Provisional) || nanos == 0;
            ensure(rests, || format!("{nanos} of {account} are still {pot:?}"))?;
        }
        let audited = self.hub.audit()?;
        ensure(audited == self.cx.model.last(), || "the audit ends at another commit".into())
    }
}
