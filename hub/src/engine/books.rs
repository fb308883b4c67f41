//! What the committer owns: accounts, their money, the hub's rules, settlement windows. Every act that touches them is
//! judged and applied by [`Books::act`], live and again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use weir_protocol::act::{
    Act, Allocate, Amend, ApproveCollect, Collect, Collected, CollectionWord, Debit, DebitCause, Deposit, Earnings,
    EarningsUse, FeeSchedule, Fees, Instruct, Limits, Mandate, Outcome as BankOutcome, PayoutOutcome, Plan, Policy,
    Refund, Register, SignedAct, Statement, Withdraw,
};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::channel::{ChannelTerms, OPENED_AT_TOLERANCE_MS, SCHEME_BIP340};
use weir_protocol::commit::SignedCertificate;
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, ChannelId, HubId, PaymentId};
use weir_protocol::reject::Reject;
use weir_protocol::wire::AccountInfo;

use crate::details::{Iban, bank_name};

use super::channel::{Channel, LastAct, Numbered, check_number};
use super::channels::Effect;
use super::collections::{Collections, NotCollected, SHORT, ShortOf};
use super::fees::{default_schedule, fee};
use super::ledger::{Balances, Ledger, LedgerError, Place, Split};
use super::limits::{Bounded, WaitingIban};
use super::operators::{Operators, QUORUM};
use super::payout::{Payout, Short};
use super::record::RefundContext;
use super::unmatched::{AllUnmatched, EntryKey, TWICE, UNPAID, Unmatched, payout_name};
use super::windows::{NotNow, PlanRecord, Rules, WindowState, Windows};

/// The connector under which a bank's entries that are payouts, or such that came back, are known.
pub const PAYOUTS: &str = "payout";
/// Milliseconds in a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A participant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// As registered.
    pub name: String,
    /// Where payouts go.
    pub iban: String,
    /// What it may do.
    pub standing: Standing,
    /// The last number taken from its key.
    pub last: Option<LastAct>,
}

/// What an account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Standing {
    /// Whether it may act at all.
    pub approved: bool,
    /// Whether payments to it are refused.
    pub frozen_incoming: bool,
    /// Whether payments, openings and withdrawals by it are refused.
    pub frozen_outgoing: bool,
    /// Most that one payment by it may be; zero: the policy's.
    pub payment_max: Amount,
}

impl Standing {
    /// Most that one payment by it may be, if everybody's bound is this; zero: no bound.
    pub fn payment_max(&self, everybody: Amount) -> Amount {
        match self.payment_max {
            Amount::ZERO => everybody,
            Amount::MAX => Amount::ZERO,
            own => own,
        }
    }
}

/// What a refund has given back of a payment so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Refunded {
    total: Amount,
    paid_at: Time,
}

/// Accounts, money, rules, windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Books {
    hub: HubId,
    policy: Policy,
    certificates: Vec<SignedCertificate>,
    accounts: BTreeMap<AccountId, Account>,
    ledger: Ledger,
    windows: Windows,
    operators: Operators,
    /// Of accounts whose fees are not the policy's.
    schedules: BTreeMap<AccountId, FeeSchedule>,
    /// Of accounts whose earnings are not simply paid out.
    earnings: BTreeMap<(Currency, AccountId), EarningsUse>,
    /// Every entry of the bank that was posted.
    entries: BTreeSet<EntryKey>,
    unmatched: AllUnmatched,
    /// The newest statement of each bank account.
    statements: BTreeMap<(Currency, String), Statement>,
    refunds: BTreeMap<PaymentId, Refunded>,
    /// Payments from before this are refunded no more, whatever the rules say by now: what was given back of them is
    /// forgotten.
    refunds_from: Time,
    opened: BTreeSet<(Time, ChannelId)>,
    bounded: Bounded,
    collections: Collections,
}

/// What an act of the books means for channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// An account's standing changed.
    Standing(AccountId, Standing),
    /// A channel was opened.
    Opened(ChannelTerms),
    /// A channel was amended.
    Amended(Amend),
    /// The rules changed.
    Policy(Policy),
}

/// What became of an act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Applied; what channels must be told.
    Applied(Option<Notice>),
    /// It is the one taken last: nothing changed, the answer is the same.
    Again,
}

/// What an act refers to beyond the books.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// The channel of an amendment or of a close request, as its shard has it.
    pub channel: Option<&'a ChannelFacts>,
    /// The payment of a refund.
    pub refund: Option<&'a RefundContext>,
    /// The certificate's own signature.
    pub certificate: Option<&'a SignedCertificate>,
}

/// What the books need to know of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelFacts {
    /// Whose it is.
    pub account: AccountId,
    /// Its currency.
    pub currency: Currency,
    /// Its capacity.
    pub capacity: Amount,
    /// Its expiry.
    pub expires_at: Time,
    /// Whether it is closed, or about to be.
    pub closed: bool,
}

impl From<&Channel> for ChannelFacts {
    fn from(channel: &Channel) -> Self {
        Self {
            account: channel.account(),
            currency: channel.currency(),
            capacity: channel.capacity(),
            expires_at: channel.expires_at(),
            closed: channel.closed().is_some() || channel.close_request().is_some(),
        }
    }
}

impl Books {
    /// Empty books under first rules.
    pub fn new(hub: HubId) -> Self {
        let policy = Policy {
            open_registration: false,
            refund_days: 90,
            payment_max: Amount::ZERO,
            payout_min: Amount::from_nanos(10_000_000),
            fee_basis_points: 0,
            fee_per_payment: Amount::ZERO,
            fee_minimum: Amount::ZERO,
            approvals: 1,
            currencies: Vec::new(),
        };
        Self {
            hub,
            policy,
            certificates: Vec::new(),
            accounts: BTreeMap::new(),
            ledger: Ledger::default(),
            windows: Windows::default(),
            operators: Operators::default(),
            schedules: BTreeMap::new(),
            earnings: BTreeMap::new(),
            entries: BTreeSet::new(),
            unmatched: BTreeMap::new(),
            statements: BTreeMap::new(),
            refunds: BTreeMap::new(),
            refunds_from: Time(0),
            opened: BTreeSet::new(),
            bounded: Bounded::default(),
            collections: Collections::default(),
        }
    }

    /// The rules in force.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Every certificate that was taken, oldest first.
    pub fn certificates(&self) -> &[SignedCertificate] {
        &self.certificates
    }

    /// The newest certificate known whose `not_before` is not after a time: what a commit of that time is checked with.
    pub fn certificate_at(&self, time: Time) -> Option<&SignedCertificate> {
        self.certificates.iter().rev().find(|signed| signed.certificate.not_before <= time)
    }

    /// The money.
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The money, to note what is booked: for reports.
    pub(super) const fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// What was given back of a payment so far, as long as it can be refunded.
    pub fn refunded(&self, payment: &PaymentId) -> Amount {
        self.refunds.get(payment).map_or(Amount::ZERO, |refunded| refunded.total)
    }

    /// The settlement windows.
    pub const fn windows(&self) -> &Windows {
        &self.windows
    }

    /// Accounts by id.
    pub fn accounts(&self) -> impl Iterator<Item = (&AccountId, &Account)> {
        self.accounts.iter()
    }

    /// One account.
    pub fn account(&self, id: &AccountId) -> Option<&Account> {
        self.accounts.get(id)
    }

    /// The only account whose id starts with these bytes: how a creditor reference names it.
    pub fn account_by_prefix(&self, prefix: &[u8]) -> Option<AccountId> {
        let mut low = [0; 32];
        low.iter_mut().zip(prefix).for_each(|(to, from)| *to = *from);
        let from = AccountId(weir_protocol::keys::PublicKey(low));
        let mut found =
            self.accounts.range(from..).map(|(id, _)| *id).take_while(|id| id.as_bytes().starts_with(prefix));
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    /// An account as its owner sees it.
    pub fn info(&self, id: &AccountId) -> Option<AccountInfo> {
        let account = self.accounts.get(id)?;
        Some(AccountInfo {
            account: *id,
            name: account.name.clone(),
            iban: account.iban.clone(),
            approved: account.standing.approved,
            frozen_incoming: account.standing.frozen_incoming,
            frozen_outgoing: account.standing.frozen_outgoing,
            number: account.last.map_or(0, |last| last.number),
            balances: self.ledger.balances(id).map(|(currency, balances)| balances.info(currency)).collect(),
        })
    }

    /// Whether a bank's entry was posted before.
    pub fn knows_entry(&self, connector: &str, bank_reference: &str) -> bool {
        self.entries.contains(&EntryKey::of(connector, bank_reference))
    }

    /// Entries of the bank that nobody owns yet, by key.
    pub const fn unmatched(&self) -> &AllUnmatched {
        &self.unmatched
    }

    /// The newest statement of each bank account, by currency and connector.
    pub fn statements(&self) -> impl Iterator<Item = &Statement> {
        self.statements.values()
    }

    /// Mandates and direct debits.
    pub const fn collections(&self) -> &Collections {
        &self.collections
    }

    /// The operators.
    pub const fn operators(&self) -> &Operators {
        &self.operators
    }

    /// What the hub takes of an account's earnings.
    pub fn schedule(&self, id: &AccountId) -> FeeSchedule {
        self.schedules.get(id).copied().unwrap_or_else(|| default_schedule(&self.policy))
    }

    /// Whether an account's fee schedule is its own.
    pub fn has_own_schedule(&self, id: &AccountId) -> bool {
        self.schedules.contains_key(id)
    }

    /// What becomes of an account's earnings.
    pub fn earnings_of(&self, currency: Currency, id: &AccountId) -> EarningsUse {
        self.earnings.get(&(currency, *id)).copied().unwrap_or_default()
    }

    /// How a cut-off would divide what an account earned: the fee first, then what its owner wants to keep.
    pub fn split(&self, currency: Currency, id: &AccountId, held: &Balances) -> Split {
        split(&self.policy, &self.schedules, &self.earnings, currency, id, held)
    }

    /// The payouts that the ledger gives now, for a window's plan.
    pub fn payouts(&self, window: u64, currency: Currency) -> BTreeMap<AccountId, Amount> {
        let least = |id: &AccountId| self.windows.least(window, id, self.policy.payout_min);
        Windows::payouts(&self.ledger, currency, least, |id| self.can_be_paid_out(id))
    }

    const fn rules(&self) -> Rules<'_> {
        Rules { operators: &self.operators, approvals: self.policy.approvals }
    }

    /// Whether the bank may be told of a window's plan now: the one rule, for every path. The plan, if it may.
    pub fn may_instruct(&self, window: u64, currency: Currency) -> Result<&PlanRecord, NotNow> {
        let details = |payouts: &BTreeMap<AccountId, Payout>| self.details(payouts.keys());
        let payable_to = |id: &AccountId| self.can_be_paid_out(id);
        self.windows.may_instruct(window, currency, &self.ledger, self.rules(), details, payable_to)
    }

    /// SHA-256 over account, name and bank account of everybody named: what a bank file says besides amounts.
    pub fn details<'a>(&self, accounts: impl Iterator<Item = &'a AccountId>) -> Hash {
        let mut hash = Sha256::new();
        for id in accounts {
            hash.update(id.as_bytes());
            let known = self.accounts.get(id);
            for text in known.into_iter().flat_map(|account| [&account.name, &account.iban]) {
                hash.update((text.len() as u64).to_le_bytes());
                hash.update(text.as_bytes());
            }
        }
        Hash(hash.finalize().into())
    }

    /// Whether payouts to an account can be made: approved, not frozen, with a bank account.
    pub fn can_be_paid_out(&self, id: &AccountId) -> bool {
        self.accounts.get(id).is_some_and(|account| {
            account.standing.approved
                && !account.standing.frozen_outgoing
                && !account.iban.is_empty()
                && !self.collections.owing().contains(id)
        })
    }

    /// Posts what a channel's item does. It cannot be refused: the shard stages only what the channel's locked money
    /// covers.
    pub fn post(&mut self, effect: &Effect) {
        match effect {
            Effect::None => {}
            Effect::Pay { payer, currency, credits } => {
                let paid = self.ledger.pay(*currency, *payer, credits);
                assert!(paid.is_ok(), "invariant 1: what {payer} has locked cannot bear its payments");
            }
            Effect::Return { account, currency, amount } => {
                self.transfer(*currency, Place::Locked(*account), Place::Available(*account), *amount);
            }
        }
    }

    fn transfer(&mut self, currency: Currency, from: Place, to: Place, amount: Amount) {
        let moved = self.ledger.move_owed(currency, from, to, amount);
        assert!(moved.is_ok(), "invariant 1: {from:?} cannot bear {amount} {currency}");
    }

    /// Judges an act of the books at its commit and applies it. A refusal changes nothing.
    ///
    /// `at`: the commit's number and time. The author's signature has been checked.
    pub fn act(&mut self, act: &Act, digest: Hash, context: Context<'_>, at: (u64, Time)) -> Result<Outcome, Reject> {
        let (_, now) = at;
        if !act.within_limits() {
            return Err(Reject::Malformed);
        }
        match act {
            Act::Chain(_) => {
                self.windows.begin(now);
                self.forget_opened(now);
                Ok(Outcome::Applied(None))
            }
            Act::Certificate(certificate) => {
                let signed = context.certificate.ok_or(Reject::Unauthenticated)?;
                if signed.certificate != *certificate || signed.check(&self.hub).is_err() {
                    return Err(Reject::Unauthenticated);
                }
                self.certificates.push(*signed);
                Ok(Outcome::Applied(None))
            }
            Act::Policy(policy) => {
                // Four eyes would be none if whoever holds the machine could close two of them.
                if policy.approvals < self.policy.approvals && self.operators.standing() >= QUORUM {
                    return Err(Reject::Unauthenticated);
                }
                self.policy = policy.clone();
                self.windows.restate(Rules { operators: &self.operators, approvals: self.policy.approvals });
                Ok(Outcome::Applied(Some(Notice::Policy(policy.clone()))))
            }
            Act::Register(register) => self.register(register, digest, now),
            Act::Approve(approve) => self.change_standing(approve.account, |standing| standing.approved = true),
            Act::Freeze(freeze) => {
                self.collections.answered(&freeze.account);
                self.change_standing(freeze.account, |standing| {
                    standing.frozen_incoming = freeze.incoming;
                    standing.frozen_outgoing = freeze.outgoing;
                })
            }
            Act::Deposit(deposit) => self.deposit(deposit, now),
            Act::Debit(debit) => self.debit(debit, now),
            Act::Allocate(allocate) => self.allocate(allocate, now),
            Act::Statement(statement) => self.statement(statement),
            Act::Open(terms) => self.open(terms, now),
            Act::Amend(amend) => self.amend(amend, digest, context.channel, now),
            Act::CloseRequest(request) => {
                let channel = context.channel.ok_or(Reject::UnknownChannel)?;
                self.number(channel.account, request.number, digest)
            }
            Act::Refund(refund) => self.refund(refund, context.refund.ok_or(Reject::UnknownPayment)?, now),
            Act::Withdraw(withdraw) => self.withdraw(withdraw, digest),
            Act::Earnings(earnings) => self.use_earnings(earnings, digest),
            Act::Cutoff(cutoff) => {
                let Self { windows, ledger, policy, schedules, earnings, .. } = self;
                let split =
                    |currency, id: &AccountId, held: &Balances| split(policy, schedules, earnings, currency, id, held);
                windows.cut_off(cutoff.window, ledger, split, at)?;
                self.forget_opened(now);
                self.forget_refunds(now);
                self.change_due_ibans(now);
                self.collections.mature(&mut self.ledger, now);
                Ok(Outcome::Applied(None))
            }
            Act::Instruct(instruct) => self.instruct(instruct),
            Act::Outcome(outcome) => self.outcome(outcome, now),
            Act::Settled(settled) => {
                let due = self.nothing_due(settled.window);
                self.windows.settle(settled.window, || due)?;
                Ok(Outcome::Applied(None))
            }
            Act::Plan(_)
            | Act::Operator(_)
            | Act::Approval(_)
            | Act::Abort(_)
            | Act::Fees(_)
            | Act::ForceFinal(_)
            | Act::ApproveCollect(_)
            | Act::ApproveIban(_) => self.operator_act(act, digest, now),
            Act::Limits(limits) => {
                let known = limits.account.is_none_or(|account| self.accounts.contains_key(&account));
                if !known {
                    return Err(Reject::UnknownAccount);
                }
                self.bounded.set(limits);
                limits.account.map_or(Ok(Outcome::Applied(None)), |account| {
                    self.change_standing(account, |standing| standing.payment_max = limits.payment_max)
                })
            }
            Act::Mandate(mandate) => self.mandate(mandate, digest, now),
            Act::MandateTerms(terms) => {
                if !self.accounts.contains_key(&terms.account) {
                    return Err(Reject::UnknownAccount);
                }
                self.collections.terms_act(terms)?;
                Ok(Outcome::Applied(None))
            }
            Act::Collect(collect) => self.collect(collect, now),
            Act::Collected(collected) => self.collected(collected, now),
            Act::Grant(_) | Act::Revoke(_) | Act::Void(_) | Act::Close(_) | Act::Roll(_) => Err(Reject::Unsupported),
        }
    }

    /// Takes a number of an account's key.
    fn number(&mut self, id: AccountId, number: u64, digest: Hash) -> Result<Outcome, Reject> {
        let account = self.accounts.get_mut(&id).ok_or(Reject::UnknownAccount)?;
        if check_number(account.last.as_ref(), number, &digest)? == Numbered::Again {
            return Ok(Outcome::Again);
        }
        account.last = Some(LastAct { number, digest });
        Ok(Outcome::Applied(None))
    }

    /// An account that may act on its money.
    fn active(&self, id: &AccountId) -> Result<&Account, Reject> {
        let account = self.accounts.get(id).ok_or(Reject::UnknownAccount)?;
        if !account.standing.approved {
            return Err(Reject::NotApproved);
        }
        if account.standing.frozen_outgoing || self.collections.owing().contains(id) {
            return Err(Reject::Frozen);
        }
        Ok(account)
    }

    fn register(&mut self, register: &Register, digest: Hash, now: Time) -> Result<Outcome, Reject> {
        let known = self.accounts.get(&register.account);
        if check_number(known.and_then(|account| account.last.as_ref()), register.number, &digest)? == Numbered::Again {
            return Ok(Outcome::Again);
        }
        // What a payout would fail on is refused here, where its owner can mend it.
        let iban = register.iban.parse::<Iban>().map_err(|_| Reject::Iban)?;
        if !iban.is_sepa() {
            return Err(Reject::Iban);
        }
        if bank_name(&register.name).is_err() {
            return Err(Reject::Malformed);
        }
        let standing = known
            .map_or(Standing { approved: self.policy.open_registration, ..Standing::default() }, |account| {
                account.standing
            });
        // Whoever waits for approval has no payout yet that could be led astray.
        let old =
            known.filter(|account| account.standing.approved).map_or("", |account| account.iban.as_str()).to_owned();
        let account = Account {
            name: register.name.clone(),
            iban: self.bounded.change_iban(register.account, (&old, iban.as_str()), self.policy.approvals, now),
            standing,
            last: Some(LastAct { number: register.number, digest }),
        };
        self.accounts.insert(register.account, account);
        Ok(Outcome::Applied(Some(Notice::Standing(register.account, standing))))
    }

    fn change_standing(&mut self, id: AccountId, change: impl FnOnce(&mut Standing)) -> Result<Outcome, Reject> {
        let account = self.accounts.get_mut(&id).ok_or(Reject::UnknownAccount)?;
        change(&mut account.standing);
        Ok(Outcome::Applied(Some(Notice::Standing(id, account.standing))))
    }

    /// The key of an entry that may be posted: its currency served, its amount not zero, itself not known.
    fn new_entry(
        &self,
        currency: Currency,
        amount: Amount,
        connector: &str,
        reference: &str,
    ) -> Result<EntryKey, Reject> {
        if !self.policy.currencies.contains(&currency) {
            return Err(Reject::Currency);
        }
        if amount.is_zero() {
            return Err(Reject::Zero);
        }
        let key = EntryKey::of(connector, reference);
        if self.entries.contains(&key) { Err(Reject::Exists) } else { Ok(key) }
    }

    /// Keeps an entry, which is posted with this, until somebody says whose it is.
    fn await_owner(&mut self, entry: Unmatched) {
        let key = EntryKey::of(&entry.connector, &entry.bank_reference);
        self.entries.insert(key);
        self.unmatched.insert(key, entry);
    }

    fn deposit(&mut self, deposit: &Deposit, now: Time) -> Result<Outcome, Reject> {
        let Deposit { account, currency, amount, connector, bank_reference } = deposit;
        let key = self.new_entry(*currency, *amount, connector, bank_reference)?;
        let to = match account {
            Some(account) if self.accounts.contains_key(account) => {
                self.room_for(account, *currency, *amount)?;
                Place::Available(*account)
            }
            Some(_) => return Err(Reject::UnknownAccount),
            None => Place::Suspense,
        };
        self.ledger.receive(*currency, to, *amount).map_err(|_| Reject::Overflow)?;
        self.entries.insert(key);
        if account.is_none() {
            self.await_owner(Unmatched {
                incoming: true,
                currency: *currency,
                amount: *amount,
                posted_at: now,
                connector: connector.clone(),
                bank_reference: bank_reference.clone(),
            });
        }
        Ok(Outcome::Applied(None))
    }

    fn debit(&mut self, debit: &Debit, now: Time) -> Result<Outcome, Reject> {
        let Debit { cause, currency, amount, connector, bank_reference } = debit;
        let key = self.new_entry(*currency, *amount, connector, bank_reference)?;
        self.ledger.advance(*currency, Place::Unexplained, *amount).map_err(refused)?;
        self.entries.insert(key);
        match cause {
            DebitCause::Charge => self.ledger.write_off(*currency, Place::Unexplained, *amount).map_err(refused)?,
            DebitCause::Unknown => self.await_owner(Unmatched {
                incoming: false,
                currency: *currency,
                amount: *amount,
                posted_at: now,
                connector: connector.clone(),
                bank_reference: bank_reference.clone(),
            }),
        }
        Ok(Outcome::Applied(None))
    }

    fn allocate(&mut self, allocate: &Allocate, now: Time) -> Result<Outcome, Reject> {
        if allocate.connector == UNPAID {
            return self.unpaid(allocate);
        }
        let key = EntryKey::of(&allocate.connector, &allocate.bank_reference);
        let Some(entry) = self.unmatched.get(&key) else {
            return Err(if self.entries.contains(&key) { Reject::Stale } else { Reject::UnknownPayment });
        };
        let Allocate { account, incoming, currency, amount, .. } = *allocate;
        if (entry.incoming, entry.currency, entry.amount) != (incoming, currency, amount) {
            return Err(Reject::Malformed);
        }
        if account.is_some_and(|account| !self.accounts.contains_key(&account)) {
            return Err(Reject::UnknownAccount);
        }
        let hubs_own = [TWICE, SHORT].contains(&allocate.connector.as_str());
        if let Some(account) = account.filter(|_| !incoming && !hubs_own) {
            // Money that left for an account and comes to a payout of its own is that payout.
            if let Some(window) = self.windows.unbooked(currency, &account, amount) {
                self.ledger.recover(currency, Place::Unexplained, amount).map_err(refused)?;
                let reference = allocate.bank_reference.clone();
                let outcome = PayoutOutcome::Settled;
                let booked = BankOutcome { window, account, currency, amount, outcome, reference };
                let done = self.outcome(&booked, now);
                assert!(done.is_ok(), "cash that was booked already bears a payout that was not: {done:?}");
                self.unmatched.remove(&key);
                return done;
            }
        }
        match (incoming, account) {
            (true, Some(account)) => {
                self.ledger.move_owed(currency, Place::Suspense, Place::Available(account), amount)
            }
            (true, None) => {
                let moved = self.ledger.move_owed(currency, Place::Suspense, Place::Fees, amount);
                self.ledger.cover(currency);
                moved
            }
            (false, Some(account)) => self.ledger.bear(currency, Place::Unexplained, Place::Available(account), amount),
            (false, None) => self.ledger.write_off(currency, Place::Unexplained, amount),
        }
        .map_err(refused)?;
        self.unmatched.remove(&key);
        if allocate.connector == SHORT {
            self.collections.borne(&allocate.bank_reference, account);
        }
        Ok(Outcome::Applied(None))
    }

    /// A payout in transit that was not paid goes back to its account.
    fn unpaid(&mut self, allocate: &Allocate) -> Result<Outcome, Reject> {
        let Allocate { account: Some(account), incoming: true, currency, amount, .. } = *allocate else {
            return Err(Reject::Malformed);
        };
        let window = allocate.bank_reference.split_once(' ').and_then(|(window, _)| window.parse().ok());
        let window: u64 = window.ok_or(Reject::Malformed)?;
        if allocate.bank_reference != payout_name(window, currency, &account) {
            return Err(Reject::Malformed);
        }
        self.windows.unpaid(window, (currency, account, amount), &mut self.ledger)?;
        Ok(Outcome::Applied(None))
    }

    /// The statement of an older day than one that is known is recorded, and the newer one stays the newest.
    fn statement(&mut self, statement: &Statement) -> Result<Outcome, Reject> {
        if !self.policy.currencies.contains(&statement.currency) {
            return Err(Reject::Currency);
        }
        let sign = if statement.closing_overdrawn { "-" } else { "" };
        let said = format!(
            "{}\0{}\0{}\0{}\0{sign}{}",
            statement.statement,
            statement.sequence,
            statement.currency,
            statement.closed_at.0,
            statement.closing.nanos()
        );
        let key = EntryKey::of(&format!("statement\0{}", statement.connector), &said);
        if !self.entries.insert(key) {
            return Err(Reject::Exists);
        }
        let account = (statement.currency, statement.connector.clone());
        let order = |statement: &Statement| (statement.closed_at, statement.sequence);
        if self.statements.get(&account).is_none_or(|newest| order(newest) <= order(statement)) {
            self.statements.insert(account, statement.clone());
        }
        Ok(Outcome::Applied(None))
    }

    fn outcome(&mut self, outcome: &BankOutcome, now: Time) -> Result<Outcome, Reject> {
        let BankOutcome { window, account, currency, .. } = *outcome;
        let twice = payout_name(window, currency, &account);
        let key = EntryKey::of(TWICE, &twice);
        let unexplained = self.unmatched.contains_key(&key);
        match self.windows.outcome(outcome, &mut self.ledger, unexplained)? {
            Short::Unchanged => {}
            Short::Arose(amount) => self.await_owner(Unmatched {
                incoming: false,
                currency,
                amount,
                posted_at: now,
                connector: TWICE.to_owned(),
                bank_reference: twice,
            }),
            Short::Ended(_) => {
                self.unmatched.remove(&key);
                self.ledger.cover(currency);
            }
        }
        let entry = match outcome.outcome {
            PayoutOutcome::Settled => Some(outcome.reference.as_str()),
            PayoutOutcome::Returned => behind_reason(&outcome.reference),
            PayoutOutcome::Refused | PayoutOutcome::Confirmed => None,
        };
        self.entries.extend(entry.map(|reference| EntryKey::of(PAYOUTS, reference)));
        Ok(Outcome::Applied(None))
    }

    fn mandate(&mut self, mandate: &Mandate, digest: Hash, now: Time) -> Result<Outcome, Reject> {
        let last = self.accounts.get(&mandate.account).ok_or(Reject::UnknownAccount)?.last.as_ref();
        if check_number(last, mandate.number, &digest)? == Numbered::Again {
            return Ok(Outcome::Again);
        }
        self.collections.mandate_act(mandate, now, OPENED_AT_TOLERANCE_MS)?;
        self.number(mandate.account, mandate.number, digest)
    }

    /// The bank is about to be told: no money moves.
    fn collect(&mut self, collect: &Collect, now: Time) -> Result<Outcome, Reject> {
        self.collectable(collect)?;
        let Self { collections, accounts, operators, policy, .. } = self;
        let rules = Rules { operators, approvals: policy.approvals };
        let name = accounts.get(&collect.account).map_or("", |account| account.name.as_str());
        collections.collect_act(collect, name, rules, now).map_err(NotCollected::reject)?;
        Ok(Outcome::Applied(None))
    }

    /// Whether a collection's account can be topped up so.
    fn collectable(&self, collect: &Collect) -> Result<&Account, Reject> {
        let account = self.active(&collect.account)?;
        if !self.policy.currencies.contains(&collect.currency) {
            return Err(Reject::Currency);
        }
        self.room_for(&collect.account, collect.currency, collect.amount)?;
        Ok(account)
    }

    /// Whether the bank may be told of a collection now: the one rule, for every path.
    pub fn may_collect(&self, collect: &Collect, now: Time) -> Result<(), NotCollected> {
        let account = self.collectable(collect)?;
        self.collections.may_collect(collect, &account.name, self.rules(), now)?;
        Ok(())
    }

    /// How many operators agree to a planned collection who stand and did not plan it.
    pub fn counted(&self, plan: &super::collections::CollectPlan) -> u32 {
        plan.counted(self.rules())
    }

    fn approve_collect(&mut self, act: &ApproveCollect, now: Time) -> Result<(), Reject> {
        let planned = self.collections.plans().contains_key(&act.collect.collection);
        // What is planned can be given up, whatever became of its account.
        let name = if planned { String::new() } else { self.collectable(&act.collect)?.name.clone() };
        self.collections.approve_act(act, &name, now)
    }

    fn collected(&mut self, collected: &Collected, now: Time) -> Result<Outcome, Reject> {
        let number = collected.collection.to_string();
        let key = EntryKey::of(SHORT, &number);
        match self.collections.hear(collected, &mut self.ledger, now)? {
            ShortOf::Unchanged => {}
            ShortOf::Arose(amount) => self.await_owner(Unmatched {
                incoming: false,
                currency: collected.currency,
                amount,
                posted_at: now,
                connector: SHORT.to_owned(),
                bank_reference: number,
            }),
            ShortOf::Ended => drop(self.unmatched.remove(&key)),
        }
        let entry = match collected.word {
            CollectionWord::Booked => Some(collected.reference.as_str()),
            CollectionWord::Returned => behind_reason(&collected.reference),
            CollectionWord::Refused => None,
        };
        self.entries.extend(entry.map(|reference| EntryKey::of(PAYOUTS, reference)));
        Ok(Outcome::Applied(None))
    }

    /// Whether an account's bound takes a deposit of so much. What does not fit can go to suspense only.
    pub fn room_for(&self, id: &AccountId, currency: Currency, amount: Amount) -> Result<(), Reject> {
        let held = [Place::Available(*id), Place::Locked(*id), Place::Provisional(*id)]
            .iter()
            .try_fold(amount, |sum, place| sum.checked_add(self.ledger.read(currency, place)))
            .map_err(|_| Reject::Overflow)?;
        self.bounded.check_balance(id, held)
    }

    /// What was said of one account's bounds, or, without one, of everybody's; none: nothing of its own.
    pub fn limits(&self, account: Option<&AccountId>) -> Option<Limits> {
        self.bounded.limits(account)
    }

    /// The bank account to which payouts of an account will go, and from when.
    pub fn waiting_iban(&self, id: &AccountId) -> Option<&WaitingIban> {
        self.bounded.waiting_iban(id)
    }

    /// Where payouts of an account went, or would have gone, before its bank account changed; none if it is the same as
    /// when the bank was last told to pay it.
    pub fn iban_before(&self, id: &AccountId) -> Option<&str> {
        self.bounded.iban_before(id)
    }

    /// Whether a bank account that waits needs nobody's agreement any more: its time is then all that it waits for.
    pub fn iban_agreed(&self, waiting: &WaitingIban) -> bool {
        iban_agreed(&self.policy, &self.operators, waiting)
    }

    fn change_due_ibans(&mut self, now: Time) {
        let Self { accounts, bounded, operators, policy, .. } = self;
        let agreed = |waiting: &WaitingIban| iban_agreed(policy, operators, waiting);
        let old = |id: &AccountId| accounts.get(id).map_or_else(String::new, |account| account.iban.clone());
        for (id, iban) in bounded.take_due_ibans(now, agreed, old) {
            if let Some(account) = accounts.get_mut(&id) {
                account.iban = iban;
            }
        }
    }

    fn open(&mut self, terms: &ChannelTerms, now: Time) -> Result<Outcome, Reject> {
        if terms.hub != self.hub || terms.key.parse().is_err() {
            return Err(Reject::Malformed);
        }
        if terms.scheme != SCHEME_BIP340 {
            return Err(Reject::Unsupported);
        }
        let id = terms.id();
        let known = self.opened.contains(&(terms.opened_at, id));
        #[cfg(feature = "planted-bugs")]
        let known = known && !weir_protocol::planted::Bug::OpenedAgain.is_planted();
        if known {
            return Ok(Outcome::Again);
        }
        self.active(&terms.account)?;
        if !self.policy.currencies.contains(&terms.currency) {
            return Err(Reject::Currency);
        }
        if terms.capacity.is_zero() {
            return Err(Reject::Zero);
        }
        if terms.opened_at.0.abs_diff(now.0) > OPENED_AT_TOLERANCE_MS {
            return Err(Reject::Clock);
        }
        if now >= terms.expires_at {
            return Err(Reject::Expired);
        }
        self.bounded.check_day(terms.account, terms.currency, terms.capacity, now)?;
        let (from, to) = (Place::Available(terms.account), Place::Locked(terms.account));
        let moved = self.ledger.move_owed(terms.currency, from, to, terms.capacity);
        #[cfg(feature = "planted-bugs")]
        let moved = moved.or_else(|error| {
            if weir_protocol::planted::Bug::TwoOpensOneBalance.is_planted() { Ok(()) } else { Err(error) }
        });
        moved.map_err(refused)?;
        self.bounded.lock(terms.account, terms.currency, terms.capacity, now);
        self.forget_opened(now);
        self.opened.insert((terms.opened_at, id));
        Ok(Outcome::Applied(Some(Notice::Opened(*terms))))
    }

    /// An id that is too old to be opened again need not be remembered: the clock rule refuses it.
    fn forget_opened(&mut self, now: Time) {
        let forgotten = now.minus_ms(OPENED_AT_TOLERANCE_MS);
        if self.opened.last().is_some_and(|(opened_at, _)| *opened_at < forgotten) {
            self.opened = BTreeSet::new();
        }
        while self.opened.first().is_some_and(|(opened_at, _)| *opened_at < forgotten) {
            self.opened.pop_first();
        }
    }

    /// What was given back of payments that are too old to be refunded is remembered no longer. That they are stays so,
    /// should the rules become longer.
    fn forget_refunds(&mut self, now: Time) {
        // The first payment that can still be refunded was made after this.
        let closed = now.0.checked_sub(u64::from(self.policy.refund_days).saturating_mul(DAY_MS));
        self.refunds_from = self.refunds_from.max(closed.map_or(Time(0), |closed| Time(closed).plus_ms(1)));
        let from = self.refunds_from;
        self.refunds.retain(|_, refunded| refunded.paid_at >= from);
    }

    fn amend(
        &mut self,
        amend: &Amend,
        digest: Hash,
        channel: Option<&ChannelFacts>,
        now: Time,
    ) -> Result<Outcome, Reject> {
        let channel = channel.ok_or(Reject::UnknownChannel)?;
        let last = self.accounts.get(&channel.account).and_then(|account| account.last.as_ref());
        if check_number(last, amend.number, &digest)? == Numbered::Again {
            return Ok(Outcome::Again);
        }
        if channel.closed {
            return Err(Reject::Closed);
        }
        self.active(&channel.account)?;
        let more = amend.capacity.checked_sub(channel.capacity).map_err(|_| Reject::Lower)?;
        if amend.expires_at < channel.expires_at {
            return Err(Reject::Lower);
        }
        self.bounded.check_day(channel.account, channel.currency, more, now)?;
        let (from, to) = (Place::Available(channel.account), Place::Locked(channel.account));
        self.ledger.move_owed(channel.currency, from, to, more).map_err(refused)?;
        self.bounded.lock(channel.account, channel.currency, more, now);
        self.number(channel.account, amend.number, digest)?;
        Ok(Outcome::Applied(Some(Notice::Amended(*amend))))
    }

    /// Credits the payer's available; debits the payee's earned of the open window, then available.
    fn refund(&mut self, refund: &Refund, paid: &RefundContext, now: Time) -> Result<Outcome, Reject> {
        let days = u64::from(self.policy.refund_days);
        if paid.paid_at < self.refunds_from || now >= paid.paid_at.plus_ms(days.saturating_mul(DAY_MS)) {
            return Err(Reject::RefundClosed);
        }
        let before = self.refunds.get(&refund.payment_id).map_or(Amount::ZERO, |refunded| refunded.total);
        #[cfg(feature = "planted-bugs")]
        let before = if weir_protocol::planted::Bug::RefundedTwice.is_planted() { Amount::ZERO } else { before };
        if refund.refunded_total == before && !before.is_zero() {
            return Ok(Outcome::Again);
        }
        if refund.refunded_total > paid.paid {
            return Err(Reject::RefundAmount);
        }
        let more = refund.refunded_total.checked_sub(before).map_err(|_| Reject::RefundAmount)?;
        if more.is_zero() {
            return Err(Reject::RefundAmount);
        }
        let earned = self.ledger.read(paid.currency, &Place::Earned(paid.payee)).min(more);
        let rest = more.checked_sub(earned).map_err(|_| Reject::Overflow)?;
        if self.ledger.read(paid.currency, &Place::Available(paid.payee)) < rest {
            return Err(Reject::Insufficient);
        }
        let to = Place::Available(paid.payer);
        self.transfer(paid.currency, Place::Earned(paid.payee), to, earned);
        self.transfer(paid.currency, Place::Available(paid.payee), to, rest);
        self.refunds.insert(refund.payment_id, Refunded { total: refund.refunded_total, paid_at: paid.paid_at });
        Ok(Outcome::Applied(None))
    }

    fn withdraw(&mut self, withdraw: &Withdraw, digest: Hash) -> Result<Outcome, Reject> {
        let last = self.accounts.get(&withdraw.account).and_then(|account| account.last.as_ref());
        if check_number(last, withdraw.number, &digest)? == Numbered::Again {
            return Ok(Outcome::Again);
        }
        self.active(&withdraw.account)?;
        if !self.policy.currencies.contains(&withdraw.currency) {
            return Err(Reject::Currency);
        }
        let (available, marked) = (Place::Available(withdraw.account), Place::Marked(withdraw.account));
        let before = self.ledger.read(withdraw.currency, &marked);
        let moved = match withdraw.marked.checked_sub(before) {
            Ok(more) => self.ledger.move_owed(withdraw.currency, available, marked, more),
            Err(_) => match before.checked_sub(withdraw.marked) {
                Ok(less) => self.ledger.move_owed(withdraw.currency, marked, available, less),
                Err(_) => Err(LedgerError::Overflow),
            },
        };
        moved.map_err(refused)?;
        self.number(withdraw.account, withdraw.number, digest)
    }

    /// From the open window on.
    fn use_earnings(&mut self, act: &Earnings, digest: Hash) -> Result<Outcome, Reject> {
        let last = self.accounts.get(&act.account).and_then(|account| account.last.as_ref());
        if check_number(last, act.number, &digest)? == Numbered::Again {
            return Ok(Outcome::Again);
        }
        self.active(&act.account)?;
        if !self.policy.currencies.contains(&act.currency) {
            return Err(Reject::Currency);
        }
        let key = (act.currency, act.account);
        match act.becomes {
            EarningsUse::PayOut => drop(self.earnings.remove(&key)),
            other => drop(self.earnings.insert(key, other)),
        }
        self.number(act.account, act.number, digest)
    }

    /// An act of an operator, or of the hub itself where it may speak for them: who and its number first, then the thing.
    fn operator_act(&mut self, act: &Act, digest: Hash, now: Time) -> Result<Outcome, Reject> {
        let alone = self.policy.approvals == 0;
        let (by, number, alone) = match act {
            Act::Plan(act) => (act.operator, act.number, alone),
            Act::Operator(act) => (act.by, act.number, self.operators.standing() < QUORUM),
            Act::Approval(act) => (Some(act.operator), act.number, false),
            Act::ApproveIban(act) => (Some(act.operator), act.number, false),
            Act::ApproveCollect(act) => (Some(act.operator), act.number, false),
            Act::Abort(act) => (act.operator, act.number, alone),
            Act::Fees(act) => (act.operator, act.number, alone),
            Act::ForceFinal(act) => (act.operator, act.number, alone),
            _ => return Err(Reject::Unsupported),
        };
        if self.operators.check(by, number, &digest, alone)? == Numbered::Again {
            return Ok(Outcome::Again);
        }
        let rules = Rules { operators: &self.operators, approvals: self.policy.approvals };
        match act {
            Act::Plan(plan) => self.plan(plan, digest)?,
            Act::Operator(operator) => {
                self.operators.change(operator)?;
                let rules = Rules { operators: &self.operators, approvals: self.policy.approvals };
                self.windows.restate(rules);
            }
            Act::Approval(approval) => self.windows.approve(approval, rules)?,
            Act::Abort(abort) => self.windows.abort(abort, rules)?,
            Act::Fees(fees) => self.change_fees(fees)?,
            Act::ApproveCollect(act) => self.approve_collect(act, now)?,
            Act::ApproveIban(act) => {
                if !self.accounts.contains_key(&act.account) {
                    return Err(Reject::UnknownAccount);
                }
                self.bounded.approve_iban(act)?;
            }
            Act::ForceFinal(last) => {
                if last.account.is_some_and(|account| !self.accounts.contains_key(&account)) {
                    return Err(Reject::UnknownAccount);
                }
                self.windows.force_final(last)?;
            }
            _ => return Err(Reject::Unsupported),
        }
        self.operators.take(by, number, digest);
        Ok(Outcome::Applied(None))
    }

    fn plan(&mut self, plan: &Plan, digest: Hash) -> Result<(), Reject> {
        if !self.policy.currencies.contains(&plan.currency) {
            return Err(Reject::Currency);
        }
        let payouts = self.payouts(plan.window, plan.currency);
        let details = self.details(payouts.keys());
        let waiting = payouts.keys().filter(|id| self.bounded.waiting_iban(id).is_some());
        let paid_to = waiting.filter_map(|id| Some((*id, self.accounts.get(id)?.iban.clone()))).collect();
        let rules = Rules { operators: &self.operators, approvals: self.policy.approvals };
        self.windows.plan(plan, digest, &payouts, (details, paid_to), rules)
    }

    fn change_fees(&mut self, fees: &Fees) -> Result<(), Reject> {
        if !self.accounts.contains_key(&fees.account) {
            return Err(Reject::UnknownAccount);
        }
        if fees.own {
            self.schedules.insert(fees.account, fees.schedule);
        } else {
            self.schedules.remove(&fees.account);
        }
        Ok(())
    }

    fn instruct(&mut self, instruct: &Instruct) -> Result<Outcome, Reject> {
        self.may_instruct(instruct.window, instruct.currency).map_err(NotNow::reject)?;
        let rules = Rules { operators: &self.operators, approvals: self.policy.approvals };
        let payouts = self.windows.instruct(instruct, &mut self.ledger, rules)?;
        self.bounded.paid_out(payouts);
        Ok(Outcome::Applied(None))
    }

    /// Whether a window that has no plan has nothing to pay out in any currency.
    pub fn nothing_due(&self, window: u64) -> bool {
        let unplanned =
            self.windows.get(window).is_some_and(|known| known.state == WindowState::CutOff && known.plans.is_empty());
        let least = |id: &AccountId| self.windows.least(window, id, self.policy.payout_min);
        unplanned
            && self.policy.currencies.iter().all(|currency| {
                !self.ledger.accounts(*currency).any(|(id, held)| {
                    let amount = super::windows::payout_of(held.payable, *currency);
                    !amount.is_zero() && amount >= least(&id) && self.can_be_paid_out(&id)
                })
            })
    }
}

/// The owner's key is one pair of eyes; where plans need a second one, so does a changed bank account. An operator who
/// ends takes the agreement along.
fn iban_agreed(policy: &Policy, operators: &Operators, waiting: &WaitingIban) -> bool {
    policy.approvals == 0 || waiting.approvals.iter().any(|key| operators.stands(key))
}

fn split(
    policy: &Policy,
    schedules: &BTreeMap<AccountId, FeeSchedule>,
    earnings: &BTreeMap<(Currency, AccountId), EarningsUse>,
    currency: Currency,
    id: &AccountId,
    held: &Balances,
) -> Split {
    let own = if schedules.is_empty() { None } else { schedules.get(id) };
    let fee = fee(&own.copied().unwrap_or(default_schedule(policy)), held.earned, held.payments);
    let net = held.earned.checked_sub(fee).unwrap_or(Amount::ZERO);
    let wish = if earnings.is_empty() { None } else { earnings.get(&(currency, *id)) };
    let kept = match wish.copied().unwrap_or_default() {
        EarningsUse::PayOut => Amount::ZERO,
        EarningsUse::Net => net.min(held.spent),
        EarningsUse::Keep => net,
    };
    Split { fee, kept }
}

const fn refused(error: LedgerError) -> Reject {
    match error {
        LedgerError::Insufficient => Reject::Insufficient,
        LedgerError::Overflow => Reject::Overflow,
    }
}

/// Whether an act of a client carries its author's signature. `owner` and `channel_key`: of the act's channel; `payee`:
/// of a refund's payment. The key that signed it.
pub fn author_of(
    hub: &HubId,
    signed: &SignedAct,
    channel: Option<&Channel>,
    payee: Option<AccountId>,
) -> Result<(Hash, weir_protocol::keys::PublicKey), Reject> {
    use weir_protocol::act::Author;
    let digest = signed.act.digest(hub);
    let candidates = match signed.act.author() {
        Author::Hub | Author::Identity | Author::Operator(_) => return Err(Reject::Unsupported),
        Author::Account(account) => [Some(account.key()), None],
        Author::ChannelOwner(_) => [channel.map(|channel| channel.account().key()), None],
        Author::Channel(_) => [channel.map(Channel::key), None],
        Author::ChannelOrOwner(_) => [channel.map(Channel::key), channel.map(|channel| channel.account().key())],
        Author::Payee(_) => [payee.map(|payee| payee.key()), None],
    };
    candidates
        .into_iter()
        .flatten()
        .find(|key| key.verify(&digest, &signed.signature))
        .map(|key| (digest, key))
        .ok_or(Reject::Unauthenticated)
}

/// The entry in what is said of a return: it stands behind the bank's reason, which a later message may leave out.
fn behind_reason(reference: &str) -> Option<&str> {
    reference.split_once(' ').map(|(_, entry)| entry)
}
