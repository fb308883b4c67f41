//! Everything that a peer may send and should not: each gets the refusal that the specification gives it, the hub stays up,
//! and honest traffic beside it goes on the whole time.

mod acts;
mod bytes;
mod frames;

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use weir_hub::bank::CreditorReference;
use weir_hub::clock::wall_ms;
use weir_protocol::act::{Act, Register};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::channel::{ChannelTerms, LaneGrant, LaneMode};
use weir_protocol::id::{AccountId, ChannelId, LaneId, Reference};
use weir_protocol::keys::SecretKey;
use weir_protocol::payment::Payment;
use weir_protocol::reject::Reject;
use weir_protocol::wire::{KeyScope, Reply, Request};
use weir_tests::harness::bank::{self, PERSON_IBAN};
use weir_tests::harness::orders::{Series, reference};
use weir_tests::harness::payer::{Acknowledged, Payer, Task};
use weir_tests::harness::people::{self, PATIENCE, euro};
use weir_tests::harness::place::{Hub, Place};
use weir_tests::harness::raw::Raw;

use crate::{HUB, PAYER};

/// The hostile payer, and what the others are.
const PAYER_SEED: u8 = 1;
const PAYEE: u8 = 2;
const FROZEN: u8 = 3;
const POOR: u8 = 4;
const STRANGER: u8 = 5;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes(&[seed; 32]).unwrap()
}

fn account(seed: u8) -> AccountId {
    AccountId(key(seed).public())
}

/// The key of a channel or lane.
fn spending_key(seed: u8) -> SecretKey {
    key(seed + 100)
}

fn nanos(nanos: u64) -> Amount {
    Amount::from_nanos(nanos)
}

fn pay(payee: u8, amount: Amount) -> Payment {
    Payment { payee: account(payee), amount, reference: reference(77, u64::from(payee)) }
}

/// A hub with people: an honest payer's process that pays all the time, and raw accounts.
struct World {
    place: Place,
    hub: Hub,
    honest: Payer,
    acknowledged: Receiver<Acknowledged>,
    count: u64,
}

impl World {
    async fn new(settings: &[(&'static str, &str)]) -> Self {
        let mut place = Place::new(HUB);
        for (variable, value) in settings {
            place.set(variable, value);
        }
        let hub = place.run();
        let payee = people::registered(&place, "payee", &hub.address).await;
        let (payer, lane) = people::payer(&place, "payer", &hub.address, 1_000).await;
        let series = Series { seed: 9, payees: vec![payee.account()] };
        payer.shut_down().await;
        payee.shut_down().await;
        drop(payer);
        let task = Task { home: place.path("payer"), lane: lane.id(), series, first: 0, end: u64::MAX, window: 2 };
        let (sender, acknowledged) = channel();
        let honest = Payer::start(PAYER, &task, sender);
        Self { place, hub, honest, acknowledged, count: 0 }
    }

    async fn connect(&self) -> Raw {
        Raw::connect(&self.hub.address).await
    }

    /// A connection of an account that is registered.
    async fn registered(&self, seed: u8) -> Raw {
        let mut raw = self.connect().await;
        let name = format!("Account {seed}");
        let register = Register { number: 1, account: account(seed), name, iban: PERSON_IBAN.into() };
        raw.sign(Act::Register(register), &key(seed)).await.unwrap();
        raw.prove(KeyScope::Account(account(seed)), &key(seed)).await.unwrap();
        raw
    }

    /// Money comes in, and is there.
    async fn fund(&self, raw: &mut Raw, seed: u8, amount: Amount) {
        bank::transfer(&self.place, CreditorReference::from_id(account(seed).as_bytes()).as_str(), amount);
        let end = Instant::now() + PATIENCE;
        loop {
            let Ok(Reply::Account(info)) = raw.ask(Request::Account(account(seed))).await else { panic!() };
            if info.balances.iter().any(|balance| balance.available >= amount) {
                return;
            }
            assert!(Instant::now() < end, "the deposit did not arrive");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn terms(&self, seed: u8, capacity: Amount) -> ChannelTerms {
        let now = Time(wall_ms());
        ChannelTerms {
            hub: self.hub.address.hub,
            account: account(seed),
            scheme: 0,
            key: spending_key(seed).public(),
            currency: Currency::EUR,
            capacity,
            opened_at: now,
            expires_at: now.plus_ms(86_400_000),
            renew: false,
            salt: [seed; 32],
        }
    }

    /// The hostile payer with a channel of ten euros, the payee, and a payee whose incoming is frozen.
    async fn cast(&self) -> (Raw, ChannelTerms) {
        for seed in [PAYEE, FROZEN, POOR] {
            self.registered(seed).await;
        }
        let frozen = account(FROZEN).to_string();
        self.place.json(&["accounts", "freeze", &frozen, "--incoming", "--reason", "a test"]);
        let mut raw = self.registered(PAYER_SEED).await;
        self.fund(&mut raw, PAYER_SEED, euro(100)).await;
        let terms = self.terms(PAYER_SEED, euro(10));
        raw.sign(Act::Open(terms), &key(PAYER_SEED)).await.unwrap();
        (raw, terms)
    }

    /// Honest payments were acknowledged since the last look.
    fn honest_traffic_goes_on(&mut self) {
        let end = Instant::now() + PATIENCE;
        // One that is on its way may have been begun before: the second cannot.
        let mut seen = self.acknowledged.try_iter().count() as u64;
        let wanted = seen + 4;
        while seen < wanted {
            assert!(Instant::now() < end, "honest traffic stands still: {}", self.place.said());
            if self.acknowledged.recv_timeout(Duration::from_millis(50)).is_ok() {
                seen += 1;
            }
        }
        self.count += seen;
        assert!(self.hub.is_alive(), "{}", self.place.said());
    }

    /// The hub is up, the honest payer ends well with everything acknowledged, and the books are clean.
    fn end(mut self) {
        self.honest_traffic_goes_on();
        assert_eq!(self.honest.finish(), Some(0));
        self.place.clean_audit();
        self.hub.stop();
        self.place.clean_audit();
    }
}

fn grant(channel: ChannelId, lane: u32, mode: LaneMode, limit: Amount) -> LaneGrant {
    LaneGrant {
        channel,
        lane,
        scheme: 0,
        key: spending_key(10 + u8::try_from(lane % 100).unwrap()).public(),
        mode,
        payee: None,
        limit,
        period: 0,
        expires_at: Time::MAX,
    }
}

/// The key of a lane that [`grant`] makes.
fn lane_key(lane: u32) -> SecretKey {
    spending_key(10 + u8::try_from(lane).unwrap())
}

fn lane_scope(lane: LaneId) -> KeyScope {
    KeyScope::Lane(lane)
}

const ZERO_REFERENCE: Reference = Reference([0; 32]);

/// A row's result against what it should be.
fn expect<T: std::fmt::Debug>(row: &str, said: Result<T, Reject>, expected: Reject) {
    match said {
        Err(reject) => assert_eq!(reject, expected, "{row}"),
        Ok(taken) => panic!("{row} was taken: {taken:?}"),
    }
}
