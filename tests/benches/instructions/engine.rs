//! A hub's engine without threads, disk or network: one shard, one committer, a store in memory, one lane that pays.

use anyhow::{Context as _, bail};
use weir_hub::engine::books::Books;
use weir_hub::engine::channels::Channels;
use weir_hub::engine::committer::{Committer, Seal, Sealed, Start};
use weir_hub::engine::record::Authorship;
use weir_hub::engine::said::Said;
use weir_hub::engine::shard::{Input, Shard, StreamId};
use weir_hub::store::Store as _;
use weir_hub::store::memory::{MemoryDisk, MemoryStore};
use weir_protocol::act::{Act, Certificate, Chain, Deposit, Policy, Register};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::channel::ChannelTerms;
use weir_protocol::commit::{Answer, SignedCertificate};
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, HubId, LaneId, Reference};
use weir_protocol::keys::SecretKey;
use weir_protocol::lane::payer::PaidGroup;
use weir_protocol::merkle::Frontier;
use weir_protocol::payment::{Frame, Head, Payment, Run, next_state};
use weir_protocol::wire::{LENGTH_BYTES, LaneReply, LaneRequest, decode, encode};

const IBAN: &str = "DE89370400440532013000";
const STREAM: StreamId = StreamId(1);
const NOW: Time = Time(1_800_000_000_000);
const DAY_MS: u64 = 86_400_000;
/// Different payees of the payments.
const PAYEES: u8 = 100;

/// The engine and its payer.
pub(crate) struct Engine {
    shard: Shard<()>,
    committer: Committer<()>,
    store: MemoryStore,
    certificate: SignedCertificate,
    lane: LaneId,
    lane_key: SecretKey,
    head: Head,
}

/// A frame as it is sent, and what its payer knows of it.
pub(crate) struct Sent {
    /// The message, with its length in front.
    pub(crate) bytes: Vec<u8>,
    head: Head,
    frame: Frame,
}

fn key(number: u8) -> anyhow::Result<SecretKey> {
    Ok(SecretKey::from_bytes(&[number; 32])?)
}

fn account(key: &SecretKey) -> AccountId {
    AccountId(key.public())
}

impl Engine {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let hub = HubId(key(201)?.public());
        let signing = key(202)?;
        let certificate = Certificate { key: signing.public(), not_before: Time(0), not_after: Time::MAX };
        let signature = key(201)?.sign(&Act::Certificate(certificate).digest(&hub));
        let certificate = SignedCertificate { certificate, signature };
        let history = Frontier::default();
        let start = Start { hub, chain: 1, last: None, history, books: Books::new(hub), key: signing, secret: [9; 32] };
        let mut committer = Committer::new(start);
        committer.begin(NOW);
        let chain = Chain { previous_chain: 0, kept_number: 0, kept_id: Hash::ZERO, cut: 0 };
        committer.open_chain(chain, Some(&certificate))?;
        let (payer, lane_key) = (key(203)?, key(204)?);
        let terms = ChannelTerms {
            hub,
            account: account(&payer),
            scheme: 0,
            key: lane_key.public(),
            currency: Currency::EUR,
            capacity: "1000".parse()?,
            opened_at: NOW,
            expires_at: Time(NOW.0 + DAY_MS),
            renew: false,
            salt: [1; 32],
        };
        let lane = terms.lane_zero().id();
        let mut notices = Vec::new();
        for (act, author) in acts(terms, &payer)? {
            let author = author.map(|key| Authorship { key: key.public(), signature: key.sign(&act.digest(&hub)) });
            notices.extend(committer.act(act, author, None)?);
        }
        let standings: Vec<_> = committer.books().accounts().map(|(id, account)| (*id, account.standing)).collect();
        let mut shard = Shard::new(hub, Amount::ZERO, standings, Channels::default());
        let mut outputs = shard.handle(notices.into_iter().map(Input::Notice), NOW);
        let attach = Input::Attach { lane, stream: STREAM, void_through: 0, reply: () };
        outputs.extend(shard.handle([attach], NOW));
        for output in outputs {
            committer.stage(output);
        }
        let store = MemoryDisk::new().open()?;
        let mut engine = Self { shard, committer, store, certificate, lane, lane_key, head: Head::empty(&lane) };
        engine.append()?;
        Ok(engine)
    }

    /// The next frame of the lane.
    pub(crate) fn frame(&self, count: usize) -> anyhow::Result<Sent> {
        let mut head = self.head;
        let mut payments = Vec::new();
        for sequence in (self.head.sequence + 1..).take(count) {
            let [low, high, ..] = sequence.to_le_bytes();
            let payment = Payment {
                payee: account(&key(1 + low % PAYEES)?),
                amount: Amount::from_nanos(1 + sequence * 1_000),
                reference: Reference(Hash([low ^ high; 32]).0),
            };
            head.state = next_state(&head.state, sequence, &payment);
            head.sequence = sequence;
            head.total = head.total.checked_add(payment.amount)?;
            payments.push(payment);
        }
        let run = Run::new(self.head.sequence + 1, &payments)?;
        let signature = self.lane_key.sign(&head.digest(&self.lane));
        let frame = Frame { previous_sequence: self.head.sequence, run, valid_until: Time(0), signature };
        let request = LaneRequest::Frame(frame.clone());
        Ok(Sent { bytes: request.encode(), head, frame })
    }

    /// The hub's path of a frame, from its bytes to those of the answer: decode, judge with its signature, leaves, group,
    /// ledger, tree, the commit's signature, record, answer.
    pub(crate) fn accept(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
        let LaneRequest::Frame(frame) = LaneRequest::decode(bytes.get(LENGTH_BYTES..).unwrap_or_default())? else {
            bail!("not a frame");
        };
        frame.run.check_shape()?;
        self.head.sequence = frame.run.last_sequence();
        let input = Input::Frame { lane: self.lane, stream: STREAM, frame };
        let outputs = self.shard.handle([input], NOW);
        self.committer.begin(NOW);
        for output in outputs {
            self.committer.stage(output);
        }
        self.append()
    }

    /// Seals, makes durable, and gives the last answer's bytes.
    fn append(&mut self) -> anyhow::Result<Vec<u8>> {
        let Some(Seal::Commit(sealed)) = self.committer.seal() else { bail!("nothing was staged") };
        let Sealed { position, payload, .. } = &sealed;
        let durable = self.store.append(position.chain, *position, payload)?;
        let (said, _) = sealed.release(&durable);
        let last = said.last().and_then(|((), said): &((), Said)| said.lane_reply());
        Ok(encode(&last.context("nobody was answered")?))
    }

    /// The payer's side: the frame is answered, the lane goes on from it.
    pub(crate) fn paid(&mut self, sent: Sent, answer: &[u8]) -> anyhow::Result<PaidGroup> {
        let LaneReply::Taken(answer) = decode::<LaneReply>(answer.get(LENGTH_BYTES..).unwrap_or_default())? else {
            bail!("the frame was refused");
        };
        self.head = sent.head;
        let Sent { head, frame, .. } = sent;
        let names = (answer.commit.commit.hub, self.lane, Currency::EUR);
        let answer: Answer = *answer;
        answer.includes(&head.digest(&self.lane))?;
        Ok(PaidGroup::new(names, vec![frame.run], (head, frame.signature), answer))
    }

    /// Sends a frame and has it answered.
    pub(crate) fn pay(&mut self, count: usize) -> anyhow::Result<PaidGroup> {
        let sent = self.frame(count)?;
        let answer = self.accept(&sent.bytes)?;
        self.paid(sent, &answer)
    }

    pub(crate) const fn certificate(&self) -> &SignedCertificate {
        &self.certificate
    }
}

impl Sent {
    pub(crate) fn request(&self) -> LaneRequest {
        LaneRequest::Frame(self.frame.clone())
    }
}

/// What leads to an open channel and payees, with who signs it.
fn acts(terms: ChannelTerms, payer: &SecretKey) -> anyhow::Result<Vec<(Act, Option<SecretKey>)>> {
    let register = |key: SecretKey, name: &str| {
        let register = Register { number: 1, account: account(&key), name: name.into(), iban: IBAN.into() };
        (Act::Register(register), Some(key))
    };
    let policy = Policy {
        open_registration: true,
        approvals: 0,
        currencies: vec![Currency::EUR],
        ..Books::new(terms.hub).policy().clone()
    };
    let mut acts = vec![(Act::Policy(policy), None), register(key(203)?, "Payer")];
    for payee in 1..=PAYEES {
        acts.push(register(key(payee)?, "Payee"));
    }
    let deposit = Deposit {
        account: Some(account(payer)),
        currency: Currency::EUR,
        amount: terms.capacity,
        connector: IBAN.into(),
        bank_reference: "1".into(),
    };
    acts.push((Act::Deposit(deposit), None));
    acts.push((Act::Open(terms), Some(key(203)?)));
    Ok(acts)
}
