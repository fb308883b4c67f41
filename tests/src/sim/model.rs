//! What must be true, written apart from the engine: plain maps and signed sums, fed with durable records only, and with
//! everything that callers were told. It calls nothing of the engine; of the protocol only hashes and proofs.

mod acts;
mod bank;
mod debits;
mod groups;
mod money;
mod told;

use std::collections::{BTreeMap, BTreeSet};

use weir_hub::engine::record::{ItemRecord, Record};
use weir_protocol::act::{Act, EarningsUse, Policy};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::channel::{ChannelTerms, LaneGrant, LaneMode};
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, ChannelId, HubId, LaneId, PaymentId, Reference};
use weir_protocol::keys::PublicKey;
use weir_protocol::payment::Head;

pub(crate) use money::{Money, Pot};
pub(crate) use told::Told;

use super::log::{Checked, Failure, ensure};

/// A participant.
#[derive(Debug, Clone, Default)]
pub(crate) struct AccountModel {
    /// May act.
    pub(crate) approved: bool,
    /// Is not paid.
    pub(crate) frozen_incoming: bool,
    /// Does not pay.
    pub(crate) frozen_outgoing: bool,
    /// Has a bank account.
    pub(crate) iban: String,
    /// As it is named at the bank.
    pub(crate) name: String,
    /// Payments received in the open window.
    pub(crate) payments: i128,
    /// Paid to others in the open window.
    pub(crate) spent: i128,
    /// Its own fees: basis points, for each payment, at least.
    pub(crate) fees: Option<(i128, i128, i128)>,
    /// What becomes of its earnings.
    pub(crate) earnings: EarningsUse,
}

/// A channel.
#[derive(Debug, Clone)]
pub(crate) struct ChannelModel {
    /// As opened.
    pub(crate) terms: ChannelTerms,
    /// Locked in all.
    pub(crate) capacity: i128,
    /// Its end.
    pub(crate) expires_at: Time,
    /// Rolls.
    pub(crate) renew: bool,
    /// How often it rolled.
    pub(crate) rolls: u64,
    /// Its lanes, by number.
    pub(crate) lanes: Vec<LaneId>,
    /// The close request's digest.
    pub(crate) asked: Option<Hash>,
    /// Nothing more happens on it.
    pub(crate) closed: bool,
}

/// A lane.
#[derive(Debug, Clone)]
pub(crate) struct LaneModel {
    /// As granted.
    pub(crate) grant: LaneGrant,
    /// Its head.
    pub(crate) head: Head,
    /// Σ of its payments.
    pub(crate) total: i128,
    /// Σ of its payments by period.
    pub(crate) by_period: BTreeMap<u64, i128>,
    /// Ranges given up: above the first, through the second.
    pub(crate) voided: Vec<(u64, u64)>,
    /// Ended by its channel's key.
    pub(crate) revoked: bool,
}

/// A payment.
#[derive(Debug, Clone)]
pub(crate) struct PaymentModel {
    /// Who paid.
    pub(crate) payer: AccountId,
    /// Who was paid.
    pub(crate) payee: AccountId,
    /// How much.
    pub(crate) amount: i128,
    /// Given back.
    pub(crate) refunded: i128,
    /// When.
    pub(crate) time: Time,
    /// The commit.
    pub(crate) commit: u64,
    /// What for.
    pub(crate) reference: Reference,
    /// The place: group and leaf.
    pub(crate) place: (u32, u32),
}

/// A settlement window.
#[derive(Debug, Clone, Default)]
pub(crate) struct WindowModel {
    /// Planned payouts by account, and what became of them.
    pub(crate) payouts: BTreeMap<AccountId, (i128, PayoutModel)>,
    /// There is a plan.
    pub(crate) planned: Option<Hash>,
    /// Who planned.
    pub(crate) planner: Option<PublicKey>,
    /// The hash of the file.
    pub(crate) file: Option<Hash>,
    /// Who agreed.
    pub(crate) agreed: BTreeSet<PublicKey>,
    /// Who is paid, by name and bank account.
    pub(crate) named: BTreeMap<AccountId, (String, String)>,
    /// Who is paid out below the minimum.
    pub(crate) last: BTreeSet<AccountId>,
    /// Everybody is.
    pub(crate) last_all: bool,
    /// The bank was told.
    pub(crate) instructed: bool,
    /// Done.
    pub(crate) settled: bool,
}

/// A payout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PayoutModel {
    /// In the plan.
    Planned,
    /// At the bank.
    Instructed,
    /// Paid.
    Settled,
    /// Back.
    Returned,
}

/// Everything that the durable records say.
#[derive(Debug)]
pub(crate) struct Model {
    hub: HubId,
    /// Accounts.
    pub(crate) accounts: BTreeMap<AccountId, AccountModel>,
    /// Money.
    pub(crate) money: Money,
    /// Channels.
    pub(crate) channels: BTreeMap<ChannelId, ChannelModel>,
    /// Lanes.
    pub(crate) lanes: BTreeMap<LaneId, LaneModel>,
    /// Payments.
    pub(crate) payments: BTreeMap<PaymentId, PaymentModel>,
    /// Payments by reference.
    pub(crate) by_reference: BTreeMap<Reference, Vec<PaymentId>>,
    /// Windows.
    pub(crate) windows: BTreeMap<u64, WindowModel>,
    /// The bank's entries that were posted.
    pub(crate) deposits: BTreeSet<String>,
    /// Those of them that nobody owns, with the bank account's sign.
    pub(crate) waiting: BTreeMap<String, i128>,
    /// What the bank said of payouts.
    heard: BTreeMap<(u64, AccountId), bank::Heard>,
    /// Permissions to collect, by id.
    mandates: BTreeMap<String, debits::MandateModel>,
    /// Collections, by number.
    debits: BTreeMap<u64, debits::DebitModel>,
    /// What operators agree to collect, by number.
    debit_plans: BTreeMap<u64, debits::DebitPlanModel>,
    /// Accounts that spent what was taken back, until the operator says what they may.
    owing: BTreeSet<AccountId>,
    /// The rules.
    pub(crate) policy: Option<Policy>,
    /// Operators: whether they stand, and who named those that do not yet.
    pub(crate) operators: BTreeMap<PublicKey, (bool, Option<PublicKey>)>,
    /// Ids of the durable commits.
    pub(crate) ids: Vec<Hash>,
    /// Their chains.
    chains: Vec<u64>,
    /// Digests of the acts in them.
    pub(crate) digests: BTreeMap<Hash, u64>,
    numbers: BTreeMap<(PublicKey, Option<ChannelId>), u64>,
    time: Time,
    chain: u64,
    told: BTreeMap<Reference, Told>,
    forbidden: BTreeMap<Reference, &'static str>,
    receipts: Vec<(u64, Hash)>,
    /// How often each kind of item was committed.
    pub(crate) kinds: BTreeMap<String, u64>,
}

pub(super) fn nanos(amount: Amount) -> i128 {
    i128::from(amount.nanos())
}

/// The currency of everything here.
pub(crate) const EUR: Currency = Currency::EUR;

impl Model {
    /// Before the first commit.
    pub(crate) fn new(hub: HubId) -> Self {
        Self {
            hub,
            accounts: BTreeMap::new(),
            money: Money::default(),
            channels: BTreeMap::new(),
            lanes: BTreeMap::new(),
            payments: BTreeMap::new(),
            by_reference: BTreeMap::new(),
            windows: BTreeMap::new(),
            deposits: BTreeSet::new(),
            waiting: BTreeMap::new(),
            heard: BTreeMap::new(),
            mandates: BTreeMap::new(),
            debits: BTreeMap::new(),
            debit_plans: BTreeMap::new(),
            owing: BTreeSet::new(),
            policy: None,
            operators: BTreeMap::new(),
            ids: Vec::new(),
            chains: Vec::new(),
            digests: BTreeMap::new(),
            numbers: BTreeMap::new(),
            time: Time(0),
            chain: 0,
            told: BTreeMap::new(),
            forbidden: BTreeMap::new(),
            receipts: Vec::new(),
            kinds: BTreeMap::new(),
        }
    }

    /// The last durable commit's number.
    pub(crate) fn last(&self) -> u64 {
        self.ids.len() as u64
    }

    /// The chain of a durable commit.
    pub(crate) fn chain_of(&self, number: u64) -> Option<u64> {
        self.chains.get(usize::try_from(number.checked_sub(1)?).ok()?).copied()
    }

    /// The window that is open.
    pub(crate) fn open_window(&self) -> u64 {
        self.windows.last_key_value().map_or(1, |(last, _)| last + 1)
    }

    /// Takes a commit that has become durable, and checks everything that must hold after it.
    pub(crate) fn commit(&mut self, record: &Record) -> Checked {
        let header = *record.header();
        let within = |failure: Failure| Failure(format!("commit {}: {failure}", header.number));
        self.header(record).map_err(within)?;
        let time = header.time;
        let mut touched = BTreeSet::new();
        for (item, index) in record.items.iter().zip(0_u32..) {
            let done = match item {
                ItemRecord::Group(group) => {
                    if let Some(lane) = self.lanes.get(&group.lane) {
                        touched.insert(lane.grant.channel);
                    }
                    self.group(group, time, (header.number, index))
                }
                ItemRecord::Act(act) => {
                    self.digests.insert(act.act.digest(&self.hub), header.number);
                    *self.kinds.entry(kind(&act.act)).or_default() += 1;
                    self.act(act, time, &mut touched)
                }
            };
            done.map_err(|failure| within(Failure(format!("item {index}: {failure}"))))?;
        }
        self.invariant_capacity(&touched, time).map_err(within)?;
        self.invariant_locked(&touched).map_err(within)?;
        self.money.invariant_sums().map_err(within)?;
        self.invariant_provisional().map_err(within)?;
        self.ids.push(header.id());
        self.chains.push(header.chain);
        self.time = time;
        self.chain = header.chain;
        Ok(())
    }

    fn header(&self, record: &Record) -> Checked {
        let header = record.header();
        ensure(header.number == self.last() + 1, || format!("follows commit {}", self.last()))?;
        ensure(header.time >= self.time, || "time went back".into())?;
        ensure(header.chain >= self.chain, || "chain went back".into())?;
        ensure(header.items as usize == record.items.len() && header.items > 0, || "count of items".into())?;
        let opens = matches!(record.items.first(), Some(ItemRecord::Act(act)) if matches!(act.act, Act::Chain(_)));
        ensure(opens == (header.chain > self.chain), || "a chain opens with its act, and only then".into())
    }

    /// Invariant 1: what lanes claim fits the channel.
    fn invariant_capacity(&self, touched: &BTreeSet<ChannelId>, time: Time) -> Checked {
        for channel in touched.iter().filter_map(|id| self.channels.get(id)) {
            let mut claims = 0;
            for lane in channel.lanes.iter().filter_map(|id| self.lanes.get(id)) {
                let live = !lane.revoked && time < lane.grant.expires_at && lane.grant.mode == LaneMode::Reserved;
                claims += if live { nanos(lane.grant.limit) } else { lane.total };
            }
            ensure(claims <= channel.capacity, || {
                format!("invariant 1: lanes claim {claims} of a capacity of {}", channel.capacity)
            })?;
        }
        Ok(())
    }

    /// What is locked of an account is what its open channels have not spent.
    fn invariant_locked(&self, touched: &BTreeSet<ChannelId>) -> Checked {
        let owners: BTreeSet<AccountId> =
            touched.iter().filter_map(|id| self.channels.get(id)).map(|channel| channel.terms.account).collect();
        for owner in owners {
            let open: i128 = self
                .channels
                .values()
                .filter(|channel| channel.terms.account == owner && !channel.closed)
                .map(|channel| channel.capacity - self.spent(channel))
                .sum();
            let locked = self.money.of(&owner, Pot::Locked);
            ensure(open == locked, || format!("invariant 3: {locked} is locked, open channels need {open}"))?;
        }
        Ok(())
    }

    pub(super) fn spent(&self, channel: &ChannelModel) -> i128 {
        channel.lanes.iter().filter_map(|id| self.lanes.get(id)).map(|lane| lane.total).sum()
    }
}

/// The kind of an act, with what makes it a case of its own.
fn kind(act: &Act) -> String {
    match act {
        Act::Close(close) => format!("close by {:?}", close.cause),
        Act::Outcome(outcome) => format!("outcome {:?}", outcome.outcome),
        Act::Collected(collected) => format!("direct debit {:?}", collected.word),
        Act::Void(void) if void.void_through > void.sequence => "void of something".into(),
        Act::Void(_) => "void of nothing".into(),
        Act::Grant(grant) => format!("grant {:?}{}", grant.mode, if grant.period == 0 { "" } else { " by period" }),
        other => format!("{other:?}").split(['(', ' ']).next().unwrap_or_default().to_lowercase(),
    }
}
