//! A data directory with many open channels, made by the hub's own engine and store: shard, committer, journal, read
//! index, snapshot. Every act and every payment is signed, and checked as it is live. Only the clock is not real: channels
//! are opened over the 30 days before now.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use weir_hub::clock::wall_ms;
use weir_hub::engine::books::Books;
use weir_hub::engine::channels::Channels;
use weir_hub::engine::committer::{Committer, Seal, Start, ToShard};
use weir_hub::engine::record::Authorship;
use weir_hub::engine::said::Said;
use weir_hub::engine::shard::{Input, Shard, StreamId};
use weir_hub::engine::state::State;
use weir_hub::keys::KeyFiles;
use weir_hub::pipeline::compact;
use weir_hub::pipeline::recover::keys_of;
use weir_hub::store::Store as _;
use weir_hub::store::disk::DiskStore;
use weir_hub::store::index::Index;
use weir_hub::store::journal::JournalOptions;
use weir_protocol::act::{Act, Chain, Deposit, Policy, Register};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::channel::ChannelTerms;
use weir_protocol::hash::{Hash, sha256};
use weir_protocol::id::{AccountId, HubId, Reference};
use weir_protocol::keys::SecretKey;
use weir_protocol::payment::{Frame, Head, Payment, Run, next_state};

const DAY_MS: u64 = 86_400_000;
const IBAN: &str = "DE89370400440532013000";
/// Channels opened, and paid with, in one commit.
const BATCH: u64 = 500;
/// Payments in a frame of [`fill_payees`].
const FRAME: usize = 1024;
/// What each of its payees is paid.
const CENTS: Amount = Amount::from_nanos(50_100_000);
const CAPACITY: Amount = Amount::from_nanos(10_000_000_000);

/// Who is to be in a hub.
#[derive(Debug, Clone, Copy)]
pub struct Population {
    /// Payers.
    pub accounts: u64,
    /// Channels of each.
    pub channels_each: u64,
    /// Whether each channel has paid once: its lane then has a head with a signature, and a void.
    pub paying: bool,
}

impl Population {
    /// Channels in all.
    pub const fn channels(&self) -> u64 {
        self.accounts * self.channels_each
    }
}

/// Fills the data directory of a hub that was made and never ran, and leaves a snapshot at its last commit.
pub fn fill(data: &Path, population: Population) -> anyhow::Result<()> {
    let mut maker = Maker::new(data)?;
    maker.people(population)?;
    let step = 29 * DAY_MS / population.channels().max(1);
    let mut first = 0;
    while first < population.channels() {
        let end = population.channels().min(first + BATCH);
        maker.channels(population, first..end, step)?;
        first = end;
    }
    maker.finish()
}

/// The same with so many payees, each of whom one payer has paid 5.01 cents once.
pub fn fill_payees(data: &Path, payees: u64) -> anyhow::Result<()> {
    let mut maker = Maker::new(data)?;
    maker.payees(payees)?;
    maker.finish()
}

struct Maker {
    hub: HubId,
    shard: Shard<()>,
    committer: Committer<()>,
    store: DiskStore,
    inputs: Vec<Input<()>>,
    now: Time,
}

impl Maker {
    fn new(data: &Path) -> anyhow::Result<Self> {
        let now = Time(wall_ms());
        let begin = now.minus_ms(30 * DAY_MS);
        let keys = KeyFiles::of(data);
        // A key whose certificate covers the commits to come.
        let certificate = keys.replace(&keys.identity_path(), begin, now, 365)?;
        let (key, _) = keys.load()?;
        let hub = certificate.hub;
        let store = DiskStore::open(data, JournalOptions::default())?;
        let index = Arc::new(Index::open(&data.join("index"), store.reader(), keys_of())?);
        store.attach_index(Arc::clone(&index));
        let (books, _, history, last) = State::new(hub).into_parts();
        let start = Start { hub, chain: begin.0, last, history, books, key, secret: [7; 32] };
        let mut maker = Self {
            hub,
            shard: Shard::new(hub, Amount::ZERO, [], Channels::default()),
            committer: Committer::new(start),
            store,
            inputs: Vec::new(),
            now: begin,
        };
        maker.committer.begin(begin);
        let opening = Chain { previous_chain: 0, kept_number: 0, kept_id: Hash::ZERO, cut: 0 };
        maker.committer.open_chain(opening, Some(&certificate.signed)).context("the chain is refused")?;
        let policy = Policy {
            open_registration: true,
            approvals: 0,
            currencies: vec![Currency::EUR],
            ..Books::new(maker.hub).policy().clone()
        };
        maker.committer.act(Act::Policy(policy), None, None).context("the policy is refused")?;
        maker.seal()?;
        Ok(maker)
    }

    fn finish(self) -> anyhow::Result<()> {
        compact::compact(self.hub, &self.store.reader(), &self.store.snapshots())?;
        Ok(())
    }

    /// Registers payees, signed but for speed not judged by a shard, and pays each of them out of one channel.
    fn payees(&mut self, count: u64) -> anyhow::Result<()> {
        let mut accounts = Vec::new();
        self.committer.begin(self.now);
        let payer = key("payer", 0)?;
        for number in 0..=count {
            if !self.committer.has_room() {
                self.seal()?;
                self.committer.begin(self.now);
            }
            let person = if number == 0 { key("payer", 0)? } else { key("payee", number)? };
            let account = AccountId(person.public());
            let name = format!("Payee number {number}");
            let act = Act::Register(Register { number: 1, account, name, iban: IBAN.into() });
            let signature = person.sign(&act.digest(&self.hub));
            let author = Authorship { key: person.public(), signature };
            let notice = self.committer.act(act, Some(author), None).context("a registration is refused")?;
            self.inputs.extend(notice.map(Input::Notice));
            if number > 0 {
                accounts.push(account);
            }
        }
        self.seal()?;
        let capacity = Amount::from_nanos(CENTS.nanos() * (count + 1));
        let deposit = Deposit {
            account: Some(AccountId(payer.public())),
            currency: Currency::EUR,
            amount: capacity,
            connector: IBAN.into(),
            bank_reference: "all".into(),
        };
        self.committer.begin(self.now);
        self.committer.act(Act::Deposit(deposit), None, None).context("a deposit is refused")?;
        self.seal()?;
        self.commit()?;
        let spender = key("channel", 0)?;
        let terms = ChannelTerms {
            hub: self.hub,
            account: AccountId(payer.public()),
            scheme: 0,
            key: spender.public(),
            currency: Currency::EUR,
            capacity,
            opened_at: self.now,
            expires_at: self.now.plus_ms(90 * DAY_MS),
            renew: true,
            salt: [1; 32],
        };
        self.sign(Act::Open(terms), &payer);
        self.commit()?;
        let (lane, stream) = (terms.lane_zero().id(), StreamId(1));
        self.inputs.push(Input::Attach { lane, stream, void_through: 0, reply: () });
        self.commit()?;
        let mut head = Head::empty(&lane);
        for payees in accounts.chunks(FRAME) {
            let pay = |payee: &AccountId| Payment { payee: *payee, amount: CENTS, reference: Reference([5; 32]) };
            let payments: Vec<Payment> = payees.iter().map(pay).collect();
            let previous_sequence = head.sequence;
            for payment in &payments {
                head.sequence += 1;
                head.state = next_state(&head.state, head.sequence, payment);
                head.total = head.total.checked_add(payment.amount)?;
            }
            let run = Run::new(previous_sequence + 1, &payments).context("a run")?;
            let signature = spender.sign(&head.digest(&lane));
            let frame = Frame { previous_sequence, run, valid_until: Time(0), signature };
            self.inputs.push(Input::Frame { lane, stream, frame });
            self.commit()?;
        }
        Ok(())
    }

    fn people(&mut self, population: Population) -> anyhow::Result<()> {
        if population.accounts == 0 {
            return Ok(());
        }
        let payees = core::iter::once(key("payee", 0)?);
        let payers = (0..population.accounts).map(|number| key("payer", number)).collect::<anyhow::Result<Vec<_>>>()?;
        for person in payees.chain(payers) {
            let account = AccountId(person.public());
            let register = Register { number: 1, account, name: "Somebody".into(), iban: IBAN.into() };
            self.sign(Act::Register(register), &person);
            if self.inputs.len() as u64 >= BATCH {
                self.commit()?;
            }
        }
        self.commit()?;
        self.committer.begin(self.now);
        for number in 0..population.accounts {
            if !self.committer.has_room() {
                self.seal()?;
                self.committer.begin(self.now);
            }
            let deposit = Deposit {
                account: Some(AccountId(key("payer", number)?.public())),
                currency: Currency::EUR,
                amount: Amount::from_nanos(CAPACITY.nanos() * population.channels_each),
                connector: IBAN.into(),
                bank_reference: number.to_string(),
            };
            self.committer.act(Act::Deposit(deposit), None, None).context("a deposit is refused")?;
        }
        self.seal()
    }

    /// Opens channels, then pays once with each.
    fn channels(&mut self, population: Population, numbers: core::ops::Range<u64>, step: u64) -> anyhow::Result<()> {
        let mut opened = Vec::new();
        for number in numbers.clone() {
            let payer = key("payer", number % population.accounts)?;
            let spender = key("channel", number)?;
            let terms = ChannelTerms {
                hub: self.hub,
                account: AccountId(payer.public()),
                scheme: 0,
                key: spender.public(),
                currency: Currency::EUR,
                capacity: CAPACITY,
                opened_at: self.now,
                expires_at: self.now.plus_ms(90 * DAY_MS + number % 1000),
                renew: true,
                salt: sha256(&number.to_le_bytes()).0,
            };
            self.sign(Act::Open(terms), &payer);
            opened.push((number, terms, spender));
        }
        self.commit()?;
        if population.paying {
            let payee = AccountId(key("payee", 0)?.public());
            for (number, terms, spender) in opened {
                let (lane, stream) = (terms.lane_zero().id(), StreamId(number + 1));
                self.inputs.push(Input::Attach { lane, stream, void_through: 0, reply: () });
                let payment = Payment { payee, amount: Amount::from_nanos(1 + number), reference: Reference([5; 32]) };
                let mut head = Head::empty(&lane);
                head.state = next_state(&head.state, 1, &payment);
                head.sequence = 1;
                head.total = payment.amount;
                let run = Run::new(1, &[payment]).context("a run of one payment")?;
                let signature = spender.sign(&head.digest(&lane));
                let frame = Frame { previous_sequence: 0, run, valid_until: Time(0), signature };
                self.inputs.push(Input::Frame { lane, stream, frame });
                self.inputs.push(Input::Gone { lane, stream });
            }
            self.commit()?;
        }
        self.now = self.now.plus_ms(step * (numbers.end - numbers.start));
        Ok(())
    }

    fn sign(&mut self, act: Act, by: &SecretKey) {
        let signed = Box::new(act.sign(&self.hub, by));
        self.inputs.push(Input::Act { signed, refund: None, reply: () });
    }

    /// Judges what was gathered, commits it, and hands on what the shard is told.
    fn commit(&mut self) -> anyhow::Result<()> {
        while !self.inputs.is_empty() {
            let inputs = core::mem::take(&mut self.inputs);
            let outputs = self.shard.handle(inputs, self.now);
            self.committer.begin(self.now);
            for output in outputs {
                if !self.committer.has_room() {
                    self.seal()?;
                    self.committer.begin(self.now);
                }
                for message in self.committer.stage(output) {
                    self.inputs.push(match message {
                        ToShard::One(_, input) => input,
                        ToShard::All(notice) => Input::Notice(notice),
                    });
                }
            }
            self.seal()?;
        }
        Ok(())
    }

    fn seal(&mut self) -> anyhow::Result<()> {
        let said = match self.committer.seal() {
            None => Vec::new(),
            Some(Seal::Words(words)) => words,
            Some(Seal::Commit(sealed)) => {
                let durable = self.store.append(self.committer.chain(), sealed.position, &sealed.payload)?;
                sealed.release(&durable).0
            }
        };
        for ((), said) in said {
            if !matches!(said, Said::Done { .. } | Said::Taken { .. } | Said::Attached { .. }) {
                bail!("refused: {said:?}");
            }
        }
        Ok(())
    }
}

/// Somebody's key, the same in every run.
pub(super) fn key(who: &str, number: u64) -> anyhow::Result<SecretKey> {
    SecretKey::from_bytes(&sha256(format!("{who} {number}").as_bytes()).0).context("a key")
}
