//! The model's view of acts.

use std::collections::BTreeSet;

use weir_hub::engine::record::ActRecord;
use weir_protocol::act::{Act, Amend, Close, CloseCause, PayoutOutcome, Plan, Refund, Void};
use weir_protocol::amount::Time;
use weir_protocol::channel::{ChannelTerms, LaneGrant};
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, ChannelId};
use weir_protocol::keys::PublicKey;
use weir_protocol::merkle;
use weir_protocol::payment::Head;

use super::{AccountModel, ChannelModel, LaneModel, Model, PayoutModel, Pot, WindowModel, nanos};
use crate::sim::log::{Checked, Failure, ensure};

const CENT: i128 = 10_000_000;
const DAY_MS: u64 = 86_400_000;

fn missing(what: &str) -> impl FnOnce() -> Failure + '_ {
    move || Failure(format!("unknown {what}"))
}

impl Model {
    #[expect(clippy::too_many_lines, reason = "one row per kind of act")]
    pub(super) fn act(&mut self, record: &ActRecord, time: Time, touched: &mut BTreeSet<ChannelId>) -> Checked {
        let key = record.author.map(|author| author.key);
        match &record.act {
            Act::Chain(_) | Act::Certificate(_) | Act::Limits(_) => Ok(()),
            Act::Policy(policy) => {
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
            Act::Cutoff(act) => self.cut_off(act.window),
            Act::Plan(plan) => self.plan(plan, record.act.digest(&self.hub)),
            Act::Instruct(act) => {
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
            Act::Outcome(act) => {
                let window = self.windows.get_mut(&act.window).ok_or_else(missing("window"))?;
                let (amount, state) = window.payouts.get_mut(&act.account).ok_or_else(missing("payout"))?;
                ensure(*amount == nanos(act.amount), || "an outcome of another amount".into())?;
                let amount = *amount;
                match (*state, act.outcome) {
                    (PayoutModel::Instructed, PayoutOutcome::Settled) => {
                        *state = PayoutModel::Settled;
                        self.money.cash -= amount;
                        self.money.add(&act.account, Pot::InTransit, -amount)
                    }
                    (PayoutModel::Instructed, PayoutOutcome::Returned) => {
                        *state = PayoutModel::Returned;
                        self.money.shift(&act.account, Pot::InTransit, Pot::Payable, amount)
                    }
                    (PayoutModel::Settled, PayoutOutcome::Returned) => {
                        *state = PayoutModel::Returned;
                        self.money.cash += amount;
                        self.money.add(&act.account, Pot::Payable, amount)
                    }
                    (state, outcome) => Err(Failure(format!("{outcome:?} of a payout that is {state:?}"))),
                }
            }
            Act::Settled(act) => {
                let window = self.windows.get_mut(&act.window).ok_or_else(missing("window"))?;
                let done = window
                    .payouts
                    .values()
                    .all(|(_, state)| matches!(state, PayoutModel::Settled | PayoutModel::Returned));
                ensure(window.planned.is_some() && done && !window.settled, || "settled too early, or twice".into())?;
                window.settled = true;
                Ok(())
            }
        }
    }

    fn open_channel(&self, id: &ChannelId) -> Checked<&ChannelModel> {
        let channel = self.channels.get(id).ok_or_else(missing("channel"))?;
        ensure(!channel.closed, || "an act on a closed channel".into())?;
        Ok(channel)
    }

    /// An act's number must be above every one taken before, and its key the right one.
    fn number(&mut self, key: PublicKey, of: Option<ChannelId>, number: u64, signed: Option<PublicKey>) -> Checked {
        ensure(signed == Some(key), || "an act of another key".into())?;
        let last = self.numbers.entry((key, of)).or_default();
        ensure(number > *last, || format!("number {number} was taken after {last}"))?;
        *last = number;
        Ok(())
    }

    fn active(&self, id: &AccountId) -> Checked {
        let account = self.accounts.get(id).ok_or_else(missing("account"))?;
        ensure(account.approved && !account.frozen_outgoing, || "an act of an account that may not act".into())
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
        let points = self.policy.as_ref().map_or(0, |policy| i128::from(policy.fee_basis_points));
        let holders: Vec<(AccountId, Pot, i128)> =
            self.money.holders().map(|(account, pot, nanos)| (*account, pot, nanos)).collect();
        for (account, pot, nanos) in holders {
            match pot {
                Pot::Earned => {
                    let fee = nanos * points / 10_000;
                    self.money.fees += fee;
                    self.money.add(&account, Pot::Earned, -nanos)?;
                    self.money.add(&account, Pot::Payable, nanos - fee)?;
                }
                Pot::Marked => self.money.shift(&account, Pot::Marked, Pot::Payable, nanos)?,
                _ => {}
            }
        }
        self.windows.insert(number, WindowModel::default());
        Ok(())
    }

    fn plan(&mut self, plan: &Plan, digest: Hash) -> Checked {
        let least = self.policy.as_ref().map_or(0, |policy| nanos(policy.payout_min));
        let due = |(account, pot, nanos): (&AccountId, Pot, i128)| {
            let whole = nanos - nanos % CENT;
            let standing = self.accounts.get(account)?;
            let can = standing.approved && !standing.frozen_outgoing && !standing.iban.is_empty();
            let wanted = pot == Pot::Payable && whole > 0 && whole >= least && can;
            wanted.then_some((*account, (whole, PayoutModel::Planned)))
        };
        let payouts: std::collections::BTreeMap<_, _> = self.money.holders().filter_map(due).collect();
        let total: i128 = payouts.values().map(|(nanos, _)| nanos).sum();
        ensure(plan.payouts as usize == payouts.len() && nanos(plan.total) == total, || {
            format!("a plan of {} payouts, {} nanos; due are {}, {total}", plan.payouts, plan.total, payouts.len())
        })?;
        let window = self.windows.get_mut(&plan.window).ok_or_else(missing("window"))?;
        ensure(window.planned.is_none() && !window.settled, || "a window was planned twice".into())?;
        window.planned = Some(digest);
        window.payouts = payouts;
        Ok(())
    }
}
