//! The model's view of acts.

use std::collections::{BTreeMap, BTreeSet};

use weir_hub::engine::record::ActRecord;
use weir_protocol::act::{Act, Amend, Close, CloseCause, EarningsUse, Operator, Plan, Refund, Void};
use weir_protocol::amount::Time;
use weir_protocol::channel::{ChannelTerms, LaneGrant};
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, ChannelId};
use weir_protocol::keys::PublicKey;
use weir_protocol::merkle;
use weir_protocol::payment::Head;

use super::{AccountModel, ChannelModel, LaneModel, Model, PayoutModel, Pot, WindowModel, nanos};
use crate::sim::log::{Checked, Failure, ensure};

pub(super) const CENT: i128 = 10_000_000;
pub(super) const DAY_MS: u64 = 86_400_000;

pub(super) fn missing(what: &str) -> impl FnOnce() -> Failure + '_ {
    move || Failure(format!("unknown {what}"))
}

impl Model {
    #[expect(clippy::too_many_lines, reason = "one row per kind of act")]
    pub(super) fn act(&mut self, record: &ActRecord, time: Time, touched: &mut BTreeSet<ChannelId>) -> Checked {
        let key = record.author.map(|author| author.key);
        match &record.act {
            Act::Chain(_) | Act::Certificate(_) | Act::Limits(_) | Act::Statement(_) => Ok(()),
            Act::Policy(policy) => {
                let before = self.policy.as_ref().map_or(0, |policy| policy.approvals);
                ensure(policy.approvals >= before || self.standing() < 2, || "four eyes were closed".into())?;
                self.policy = Some(policy.clone());
                Ok(())
            }
            Act::Register(act) => {
                self.number(act.account.key(), None, act.number, key)?;
                let open = self.policy.as_ref().is_some_and(|policy| policy.open_registration);
                let account = self
                    .accounts
                    .entry(act.account)
                    .or_insert_with(|| AccountModel { approved: open, ..AccountModel::default() });
                account.iban.clone_from(&act.iban);
                account.name.clone_from(&act.name);
                Ok(())
            }
            Act::Approve(act) => {
                self.accounts.get_mut(&act.account).ok_or_else(missing("account"))?.approved = true;
                Ok(())
            }
            Act::Freeze(act) => {
                let account = self.accounts.get_mut(&act.account).ok_or_else(missing("account"))?;
                account.frozen_incoming = act.incoming;
                account.frozen_outgoing = act.outgoing;
                self.owing.remove(&act.account);
                Ok(())
            }
            Act::Deposit(act) => {
                let name = format!("{}/{}", act.connector, act.bank_reference);
                ensure(self.deposits.insert(name), || "a deposit was posted twice".into())?;
                self.money.cash += nanos(act.amount);
                if let Some(account) = &act.account {
                    ensure(self.accounts.contains_key(account), || "deposit for nobody".into())?;
                    return self.money.add(account, Pot::Available, nanos(act.amount));
                }
                self.money.suspense += nanos(act.amount);
                self.waiting.insert(format!("{}/{}", act.connector, act.bank_reference), nanos(act.amount));
                Ok(())
            }
            Act::Open(terms) => {
                touched.insert(terms.id());
                self.open(terms, key, time)
            }
            Act::Grant(grant) => {
                touched.insert(grant.channel);
                self.grant(grant, key, time)
            }
            Act::Revoke(act) => {
                touched.insert(act.channel);
                let channel = self.open_channel(&act.channel)?;
                let (owner, lane) = (channel.terms.key, channel.lanes.get(act.lane as usize).copied());
                self.number(owner, Some(act.channel), act.number, key)?;
                let lane = lane.and_then(|id| self.lanes.get_mut(&id)).ok_or_else(missing("lane"))?;
                ensure(!lane.revoked, || "a lane was revoked twice".into())?;
                lane.revoked = true;
                Ok(())
            }
            Act::Amend(act) => {
                touched.insert(act.channel);
                self.amend(act, key)
            }
            Act::Void(void) => self.void(void),
            Act::CloseRequest(act) => {
                let channel = self.open_channel(&act.channel)?;
                let (by_channel, by_owner) = (channel.terms.key, channel.terms.account.key());
                if key == Some(by_channel) {
                    self.number(by_channel, Some(act.channel), act.number, key)?;
                } else {
                    self.number(by_owner, None, act.number, key)?;
                }
                let digest = record.act.digest(&self.hub);
                let channel = self.channels.get_mut(&act.channel).ok_or_else(missing("channel"))?;
                ensure(channel.asked.is_none(), || "a channel was asked to close twice".into())?;
                channel.asked = Some(digest);
                Ok(())
            }
            Act::Close(close) => {
                touched.insert(close.channel);
                self.close(close, time)
            }
            Act::Roll(roll) => {
                let channel = self.open_channel(&roll.channel)?.clone();
                let fits = channel.renew
                    && channel.asked.is_none()
                    && roll.roll == channel.rolls + 1
                    && nanos(roll.spent) == self.spent(&channel)
                    && nanos(roll.capacity) == channel.capacity
                    && roll.root == self.heads(&channel)
                    && roll.expires_at >= channel.expires_at
                    && time < channel.expires_at;
                ensure(fits, || "a roll does not fit its channel".into())?;
                let channel = self.channels.get_mut(&roll.channel).ok_or_else(missing("channel"))?;
                channel.rolls += 1;
                channel.expires_at = roll.expires_at;
                Ok(())
            }
            Act::Refund(refund) => self.refund(refund, key, time),
            Act::Withdraw(act) => {
                self.number(act.account.key(), None, act.number, key)?;
                self.active(&act.account)?;
                let more = nanos(act.marked) - self.money.of(&act.account, Pot::Marked);
                self.money.shift(&act.account, Pot::Available, Pot::Marked, more)
            }
            Act::Cutoff(act) => {
                self.cut_off(act.window)?;
                self.debits_mature(time)
            }
            Act::Plan(plan) => {
                self.said_by(plan.operator, plan.number, key, self.approvals() == 0)?;
                self.plan(plan, record.act.digest(&self.hub))
            }
            Act::Operator(act) => {
                self.said_by(act.by, act.number, key, self.standing() < 2)?;
                self.operator(act)
            }
            Act::Approval(act) => {
                self.said_by(Some(act.operator), act.number, key, false)?;
                let window = self.windows.get_mut(&act.window).ok_or_else(missing("window"))?;
                let fits = window.planned == Some(act.plan) && window.file == Some(act.file) && !window.instructed;
                ensure(fits, || "an approval of another plan".into())?;
                ensure(window.planner != Some(act.operator), || "a planner approved his own plan".into())?;
                ensure(window.agreed.insert(act.operator), || "an operator approved twice".into())
            }
            Act::Abort(act) => {
                self.said_by(act.operator, act.number, key, self.approvals() == 0)?;
                let window = self.windows.get_mut(&act.window).ok_or_else(missing("window"))?;
                ensure(window.planned == Some(act.plan) && !window.instructed, || "an abort of another plan".into())?;
                window.planned = None;
                window.payouts.clear();
                window.agreed.clear();
                Ok(())
            }
            Act::Fees(act) => {
                self.said_by(act.operator, act.number, key, self.approvals() == 0)?;
                let account = self.accounts.get_mut(&act.account).ok_or_else(missing("account"))?;
                let own = act.schedule;
                let own = (i128::from(own.basis_points), nanos(own.per_payment), nanos(own.minimum));
                account.fees = act.own.then_some(own);
                Ok(())
            }
            // People here name one bank account for ever, so none waits for an operator.
            Act::ApproveIban(_) => Err(Failure("a bank account was agreed to that nobody changed".into())),
            Act::ForceFinal(act) => {
                self.said_by(act.operator, act.number, key, self.approvals() == 0)?;
                let window = self.windows.get_mut(&act.window).ok_or_else(missing("window"))?;
                ensure(window.planned.is_none() && !window.settled, || "last payouts after the plan".into())?;
                match act.account {
                    Some(account) => drop(window.last.insert(account)),
                    None => window.last_all = true,
                }
                Ok(())
            }
            Act::Earnings(act) => {
                self.number(act.account.key(), None, act.number, key)?;
                self.active(&act.account)?;
                let account = self.accounts.get_mut(&act.account).ok_or_else(missing("account"))?;
                account.earnings = act.becomes;
                Ok(())
            }
            Act::Mandate(act) => self.mandate(act, key),
            Act::MandateTerms(act) => self.mandate_terms(act),
            Act::Collect(act) => self.collect(act, time),
            Act::ApproveCollect(act) => {
                self.said_by(Some(act.operator), act.number, key, false)?;
                self.approve_collect(act)
            }
            Act::Collected(act) => self.collected(act, time),
            Act::Instruct(act) => {
                self.four_eyes(act.window)?;
                let window = self.windows.get_mut(&act.window).ok_or_else(missing("window"))?;
                ensure(window.planned == Some(act.plan), || "instructed without its plan".into())?;
                ensure(!window.instructed, || "invariant 5: a payout was instructed twice".into())?;
                window.instructed = true;
                for (account, (nanos, state)) in &mut window.payouts {
                    *state = PayoutModel::Instructed;
                    self.money.shift(account, Pot::Payable, Pot::InTransit, *nanos)?;
                }
                Ok(())
            }
            Act::Outcome(act) => self.outcome(act),
            Act::Debit(act) => self.debit(act),
            Act::Allocate(act) => self.allocate(act),
            Act::Settled(act) => {
                let due = self.due(act.window).is_empty();
                let window = self.windows.get_mut(&act.window).ok_or_else(missing("window"))?;
                let done = window
                    .payouts
                    .values()
                    .all(|(_, state)| matches!(state, PayoutModel::Settled | PayoutModel::Returned));
                let may = if window.planned.is_some() { done } else { due };
                ensure(may && !window.settled, || "settled too early, or twice".into())?;
                window.settled = true;
                Ok(())
            }
        }
    }

    pub(super) fn approvals(&self) -> u32 {
        self.policy.as_ref().map_or(0, |policy| policy.approvals)
    }

    fn standing(&self) -> usize {
        self.operators.values().filter(|(stands, _)| *stands).count()
    }

    pub(super) fn stands(&self, key: &PublicKey) -> bool {
        self.operators.get(key).is_some_and(|(stands, _)| *stands)
    }

    /// An operator who stands has signed it, or the hub says it where it may by itself.
    fn said_by(&mut self, by: Option<PublicKey>, number: u64, signed: Option<PublicKey>, alone: bool) -> Checked {
        match by {
            None => ensure(alone && signed.is_none() && number == 0, || "the hub spoke for its operators".into()),
            Some(key) => {
                ensure(self.stands(&key), || "the word of nobody who stands".into())?;
                self.number(key, None, number, signed)
            }
        }
    }

    fn operator(&mut self, act: &Operator) -> Checked {
        let (stands, named_by) = self.operators.get(&act.key).copied().unwrap_or_default();
        let after = match (act.stands, act.by) {
            (false, _) => {
                ensure(stands || named_by.is_some(), || "an operator ended who was none".into())?;
                (false, None)
            }
            (true, None) => (true, None),
            (true, Some(by)) => {
                ensure(!stands && named_by != Some(by), || "an operator was named twice by one".into())?;
                if named_by.is_some_and(|first| self.stands(&first)) { (true, None) } else { (false, Some(by)) }
            }
        };
        self.operators.insert(act.key, after);
        Ok(())
    }

    /// What may be told the bank: as planned, by somebody who stands, with enough others who stand, to people who are
    /// still who they were.
    fn four_eyes(&self, window: u64) -> Checked {
        let window = self.windows.get(&window).ok_or_else(missing("window"))?;
        let agreed = window.agreed.iter().filter(|key| self.stands(key)).count();
        ensure(agreed >= self.approvals() as usize, || format!("instructed with {agreed} approvals"))?;
        ensure(window.planner.is_none_or(|key| self.stands(&key)), || "the planner does not stand".into())?;
        for (id, (name, iban)) in &window.named {
            let account = self.accounts.get(id).ok_or_else(missing("account"))?;
            let same = account.approved && !account.frozen_outgoing && account.name == *name && account.iban == *iban;
            ensure(same && !self.owing.contains(id), || "instructed though a payee changed".into())?;
        }
        Ok(())
    }

    fn open_channel(&self, id: &ChannelId) -> Checked<&ChannelModel> {
        let channel = self.channels.get(id).ok_or_else(missing("channel"))?;
        ensure(!channel.closed, || "an act on a closed channel".into())?;
        Ok(channel)
    }

    /// An act's number must be above every one taken before, and its key the right one.
    pub(super) fn number(
        &mut self,
        key: PublicKey,
        of: Option<ChannelId>,
        number: u64,
        signed: Option<PublicKey>,
    ) -> Checked {
        ensure(signed == Some(key), || "an act of another key".into())?;
        let last = self.numbers.entry((key, of)).or_default();
        ensure(number > *last, || format!("number {number} was taken after {last}"))?;
        *last = number;
        Ok(())
    }

    pub(super) fn active(&self, id: &AccountId) -> Checked {
        let account = self.accounts.get(id).ok_or_else(missing("account"))?;
        let may = account.approved && !account.frozen_outgoing && !self.owing.contains(id);
        ensure(may, || "an act of an account that may not act".into())
    }

    fn open(&mut self, terms: &ChannelTerms, key: Option<PublicKey>, time: Time) -> Checked {
        ensure(key == Some(terms.account.key()), || "opened by another key".into())?;
        self.active(&terms.account)?;
        ensure(terms.opened_at.0.abs_diff(time.0) <= 600_000, || "opened at another time than said".into())?;
        ensure(time < terms.expires_at, || "opened after its expiry".into())?;
        ensure(!self.channels.contains_key(&terms.id()), || "a channel was opened twice".into())?;
        self.money.shift(&terms.account, Pot::Available, Pot::Locked, nanos(terms.capacity))?;
        let zero = terms.lane_zero();
        let channel = ChannelModel {
            terms: *terms,
            capacity: nanos(terms.capacity),
            expires_at: terms.expires_at,
            renew: terms.renew,
            rolls: 0,
            lanes: vec![zero.id()],
            asked: None,
            closed: false,
        };
        self.channels.insert(terms.id(), channel);
        self.add_lane(&zero);
        Ok(())
    }

    fn add_lane(&mut self, grant: &LaneGrant) {
        let id = grant.id();
        let lane = LaneModel {
            grant: *grant,
            head: Head::empty(&id),
            total: 0,
            by_period: std::collections::BTreeMap::new(),
            voided: Vec::new(),
            revoked: false,
        };
        self.lanes.insert(id, lane);
    }

    fn grant(&mut self, grant: &LaneGrant, key: Option<PublicKey>, time: Time) -> Checked {
        let channel = self.open_channel(&grant.channel)?;
        ensure(key == Some(channel.terms.key), || "granted by another key".into())?;
        ensure(channel.asked.is_none(), || "granted on a channel that is closing".into())?;
        ensure(grant.lane as usize == channel.lanes.len(), || "lane numbers do not grow by one".into())?;
        ensure(time < grant.expires_at, || "granted after its expiry".into())?;
        self.add_lane(grant);
        if let Some(channel) = self.channels.get_mut(&grant.channel) {
            channel.lanes.push(grant.id());
        }
        Ok(())
    }

    fn amend(&mut self, act: &Amend, key: Option<PublicKey>) -> Checked {
        let channel = self.open_channel(&act.channel)?.clone();
        let owner = channel.terms.account;
        self.number(owner.key(), None, act.number, key)?;
        self.active(&owner)?;
        let more = nanos(act.capacity) - channel.capacity;
        ensure(more >= 0 && act.expires_at >= channel.expires_at, || "an amendment that lowers".into())?;
        ensure(channel.asked.is_none(), || "an amendment of a channel that is closing".into())?;
        self.money.shift(&owner, Pot::Available, Pot::Locked, more)?;
        if let Some(channel) = self.channels.get_mut(&act.channel) {
            channel.capacity = nanos(act.capacity);
            channel.expires_at = act.expires_at;
            channel.renew = act.renew;
        }
        Ok(())
    }

    fn void(&mut self, void: &Void) -> Checked {
        let lane = self.lanes.get(&void.lane).ok_or_else(missing("lane"))?;
        self.open_channel(&lane.grant.channel)?;
        let before = lane.voided.iter().map(|(_, through)| *through).max().unwrap_or(0);
        let fits = void.head == lane.head.digest(&void.lane)
            && void.sequence == lane.head.sequence
            && nanos(void.total) == lane.total
            && void.void_through >= before;
        ensure(fits, || "a void does not fit its lane".into())?;
        if let Some(lane) = self.lanes.get_mut(&void.lane) {
            lane.voided.push((void.sequence, void.void_through));
        }
        Ok(())
    }

    fn heads(&self, channel: &ChannelModel) -> Hash {
        let digest = |id| self.lanes.get(id).map_or(Hash::ZERO, |lane| lane.head.digest(id));
        let heads: Vec<Hash> = channel.lanes.iter().map(digest).collect();
        merkle::root(&heads)
    }

    fn close(&mut self, close: &Close, time: Time) -> Checked {
        let channel = self.open_channel(&close.channel)?.clone();
        let spent = self.spent(&channel);
        let fits = nanos(close.spent) == spent
            && nanos(close.returned) == channel.capacity - spent
            && close.root == self.heads(&channel);
        ensure(fits, || "a close does not fit its channel".into())?;
        let cause = match close.cause {
            CloseCause::Request => channel.asked == Some(close.request),
            CloseCause::Expiry => time >= channel.expires_at && channel.asked.is_none(),
            CloseCause::Operator => channel.asked.is_none(),
        };
        ensure(cause, || format!("a close for {:?} without it", close.cause))?;
        self.money.shift(&channel.terms.account, Pot::Locked, Pot::Available, nanos(close.returned))?;
        if let Some(channel) = self.channels.get_mut(&close.channel) {
            channel.closed = true;
        }
        Ok(())
    }

    fn refund(&mut self, refund: &Refund, key: Option<PublicKey>, time: Time) -> Checked {
        let payment = self.payments.get_mut(&refund.payment_id).ok_or_else(missing("payment"))?;
        ensure(key == Some(payment.payee.key()), || "refunded by another key than the payee's".into())?;
        ensure(
            (refund.commit, refund.group, refund.leaf) == (payment.commit, payment.place.0, payment.place.1),
            || "a refund that names another place".into(),
        )?;
        let more = nanos(refund.refunded_total) - payment.refunded;
        ensure(more > 0, || "a refund was taken twice".into())?;
        payment.refunded += more;
        ensure(payment.refunded <= payment.amount, || "more was refunded than was paid".into())?;
        let days = self.policy.as_ref().map_or(0, |policy| u64::from(policy.refund_days));
        ensure(time < payment.time.plus_ms(days * DAY_MS), || "refunded too late".into())?;
        let (payer, payee) = (payment.payer, payment.payee);
        let earned = more.min(self.money.of(&payee, Pot::Earned));
        self.money.add(&payee, Pot::Earned, -earned)?;
        self.money.add(&payee, Pot::Available, earned - more)?;
        self.money.add(&payer, Pot::Available, more)
    }

    fn cut_off(&mut self, number: u64) -> Checked {
        ensure(number == self.open_window(), || "another window than the open one was cut off".into())?;
        let policy = self.policy.as_ref();
        let usual = policy.map_or((0, 0, 0), |policy| {
            (i128::from(policy.fee_basis_points), nanos(policy.fee_per_payment), nanos(policy.fee_minimum))
        });
        let holders: Vec<(AccountId, Pot, i128)> =
            self.money.holders().map(|(account, pot, nanos)| (*account, pot, nanos)).collect();
        for (account, pot, nanos) in holders {
            match pot {
                Pot::Earned => {
                    let known = self.accounts.get(&account).cloned().unwrap_or_default();
                    let (points, each, least) = known.fees.unwrap_or(usual);
                    let fee = (nanos * points / 10_000 + each * known.payments).max(least).min(nanos);
                    let kept = match known.earnings {
                        EarningsUse::PayOut => 0,
                        EarningsUse::Net => known.spent.min(nanos - fee),
                        EarningsUse::Keep => nanos - fee,
                    };
                    self.money.fees += fee;
                    self.money.add(&account, Pot::Earned, -nanos)?;
                    self.money.add(&account, Pot::Available, kept)?;
                    self.money.add(&account, Pot::Payable, nanos - fee - kept)?;
                }
                Pot::Marked => self.money.shift(&account, Pot::Marked, Pot::Payable, nanos)?,
                _ => {}
            }
        }
        self.money.cover();
        for account in self.accounts.values_mut() {
            (account.payments, account.spent) = (0, 0);
        }
        self.windows.insert(number, WindowModel::default());
        Ok(())
    }

    /// What a plan of a window must pay out.
    fn due(&self, number: u64) -> BTreeMap<AccountId, i128> {
        let least = self.policy.as_ref().map_or(0, |policy| nanos(policy.payout_min));
        let window = self.windows.get(&number);
        let due = |(account, pot, nanos): (&AccountId, Pot, i128)| {
            let whole = nanos - nanos % CENT;
            let standing = self.accounts.get(account)?;
            let can = standing.approved
                && !standing.frozen_outgoing
                && !standing.iban.is_empty()
                && !self.owing.contains(account);
            let last = window.is_some_and(|window| window.last_all || window.last.contains(account));
            let wanted = pot == Pot::Payable && whole > 0 && (last || whole >= least) && can;
            wanted.then_some((*account, whole))
        };
        self.money.holders().filter_map(due).collect()
    }

    fn plan(&mut self, plan: &Plan, digest: Hash) -> Checked {
        let due = self.due(plan.window);
        let total: i128 = due.values().sum();
        ensure(plan.payouts as usize == due.len() && nanos(plan.total) == total && total > 0, || {
            format!("a plan of {} payouts, {} nanos; due are {}, {total}", plan.payouts, plan.total, due.len())
        })?;
        let others = self.windows.iter().filter(|(number, _)| **number != plan.window);
        let waits = others.filter(|(_, window)| window.planned.is_some() && !window.instructed).count();
        ensure(waits == 0, || "two plans pay out the same".into())?;
        let details = |id: &AccountId| {
            let account = self.accounts.get(id).cloned().unwrap_or_default();
            (*id, (account.name, account.iban))
        };
        let named = due.keys().map(details).collect();
        let window = self.windows.get_mut(&plan.window).ok_or_else(missing("window"))?;
        ensure(window.planned.is_none() && !window.settled, || "a window was planned twice".into())?;
        window.planned = Some(digest);
        (window.planner, window.file) = (plan.operator, Some(plan.file));
        window.named = named;
        window.payouts = due.into_iter().map(|(account, nanos)| (account, (nanos, PayoutModel::Planned))).collect();
        Ok(())
    }
}
