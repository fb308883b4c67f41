//! Channels by id, their lanes by id, and the acts that change them. A shard owns one of these; recovery and audit own
//! one for the whole hub. Every act is judged and applied by the same function, live and again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use weir_protocol::act::{Act, Amend, Close, CloseCause};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::channel::ChannelTerms;
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, ChannelId, LaneId};
use weir_protocol::keys::PublicKey;
use weir_protocol::lane::hub::{Group, Holds, Lane};
use weir_protocol::reject::Reject;

use super::channel::{Channel, Numbered, check_number};

/// What an item of a channel does to the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Payments: from the payer's locked money to what the payees earned.
    Pay {
        /// Whose channel.
        payer: AccountId,
        /// The currency.
        currency: Currency,
        /// Sums by payee; a payee may come more than once.
        credits: Vec<(AccountId, Amount)>,
    },
    /// A close: what was not spent goes from locked to available.
    Return {
        /// Whose channel.
        account: AccountId,
        /// The currency.
        currency: Currency,
        /// How much.
        amount: Amount,
    },
}

/// Channels and lanes by id.
#[derive(Debug, Default)]
pub struct Channels {
    by_id: BTreeMap<ChannelId, Box<Channel>>,
    lanes: HashMap<LaneId, (ChannelId, u32)>,
    expiries: BTreeSet<(Time, ChannelId)>,
    by_account: BTreeSet<(AccountId, ChannelId)>,
}

impl Channels {
    /// Takes a channel over, from a snapshot or from another shard's share.
    pub fn insert(&mut self, channel: Box<Channel>) {
        let id = channel.id();
        for (lane, number) in channel.lanes().iter().zip(0..) {
            self.lanes.insert(lane.id(), (id, number));
        }
        if channel.closed().is_none() {
            self.expiries.insert((channel.expires_at(), id));
        }
        self.by_account.insert((channel.account(), id));
        self.by_id.insert(id, channel);
    }

    /// Opens a channel whose terms the books accepted.
    pub fn open(&mut self, terms: ChannelTerms) {
        self.insert(Box::new(Channel::new(terms)));
    }

    /// The planted bug of that name.
    #[cfg(feature = "planted-bugs")]
    pub(super) fn forget_voids(&mut self) {
        self.by_id.values_mut().for_each(|channel| channel.forget_voids());
    }

    /// All channels, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.by_id.values().map(Box::as_ref)
    }

    /// Gives all channels away, by id.
    pub fn into_channels(self) -> impl Iterator<Item = Box<Channel>> {
        self.by_id.into_values()
    }

    /// Channels above an id, by id.
    pub fn after(&self, after: Option<ChannelId>) -> impl Iterator<Item = &Channel> {
        let start = after.map_or(core::ops::Bound::Unbounded, core::ops::Bound::Excluded);
        self.by_id.range((start, core::ops::Bound::Unbounded)).map(|(_, channel)| channel.as_ref())
    }

    /// Channels of an account above an id, by id.
    pub fn of(&self, account: AccountId, after: Option<ChannelId>) -> impl Iterator<Item = &Channel> {
        let start = match after {
            Some(after) => core::ops::Bound::Excluded((account, after)),
            None => core::ops::Bound::Included((account, ChannelId::ZERO)),
        };
        let end = core::ops::Bound::Included((account, ChannelId([0xff; 32])));
        self.by_account.range((start, end)).filter_map(|(_, id)| self.get(id))
    }

    /// How many there are, closed ones included.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// One channel.
    pub fn get(&self, id: &ChannelId) -> Option<&Channel> {
        self.by_id.get(id).map(Box::as_ref)
    }

    /// One lane, with its channel and its number.
    pub fn lane(&self, id: &LaneId) -> Option<(&Channel, &Lane, u32)> {
        let (channel, number) = self.lanes.get(id)?;
        let channel = self.get(channel)?;
        Some((channel, channel.lane(*number)?, *number))
    }

    /// Channels whose expiry has come, or that a request asks to close.
    pub fn expired(&self, now: Time) -> impl Iterator<Item = ChannelId> + '_ {
        self.expiries.range(..=(now, ChannelId([0xff; 32]))).map(|(_, id)| *id)
    }

    /// When the next channel expires.
    pub fn next_expiry(&self) -> Option<Time> {
        self.expiries.first().map(|(time, _)| *time)
    }

    fn get_mut(&mut self, id: &ChannelId) -> Result<&mut Channel, Reject> {
        self.by_id.get_mut(id).map(Box::as_mut).ok_or(Reject::UnknownChannel)
    }

    /// Takes a judged group; what it does to the ledger.
    pub fn apply_group(&mut self, lane: &LaneId, group: &Group, time: Time) -> Result<Effect, Reject> {
        let (id, number) = *self.lanes.get(lane).ok_or(Reject::UnknownLane)?;
        let channel = self.get_mut(&id)?;
        channel.apply_group(number, group, time);
        let mut credits = Vec::new();
        for run in &group.runs {
            let mut sums = vec![Amount::ZERO; run.payees().len()];
            for (_, place, payment) in run.indexed() {
                if let Some(sum) = sums.get_mut(place) {
                    // The lane's total, checked when the group was judged, bounds every part of it.
                    *sum = sum.checked_add(payment.amount).map_err(|_| Reject::Overflow)?;
                }
            }
            credits.extend(run.payees().iter().copied().zip(sums));
        }
        Ok(Effect::Pay { payer: channel.account(), currency: channel.currency(), credits })
    }

    /// The close that ends a channel now.
    pub fn close(&self, id: &ChannelId, cause: CloseCause) -> Result<Close, Reject> {
        self.get(id).map(|channel| channel.close(cause)).ok_or(Reject::UnknownChannel)
    }

    /// Judges an act of channels at a time and applies it; what it does to the ledger, and when the judgement holds.
    ///
    /// `author`: the key that signed it, already checked against the digest. Nothing is changed by a refusal.
    pub fn act(&mut self, act: &Act, digest: Hash, author: Option<PublicKey>, now: Time) -> Result<Done, Reject> {
        match act {
            Act::Grant(grant) => {
                let channel = self.get_mut(&grant.channel)?;
                if author != Some(channel.terms().key) {
                    return Err(Reject::Unauthenticated);
                }
                if channel.lane(grant.lane).is_some_and(|lane| lane.id() == grant.id()) {
                    return Ok(Done::Again);
                }
                still_open(channel)?;
                let holds = channel.check_grant(grant, now)?;
                channel.add_lane(*grant);
                self.lanes.insert(grant.id(), (grant.channel, grant.lane));
                Ok(Done::Staged(holds, Effect::None))
            }
            Act::Revoke(revoke) => {
                let channel = self.get_mut(&revoke.channel)?;
                if author != Some(channel.terms().key) {
                    return Err(Reject::Unauthenticated);
                }
                if check_number(channel.last(), revoke.number, &digest)? == Numbered::Again {
                    return Ok(Done::Again);
                }
                still_open(channel)?;
                let lane = channel.lane_mut(revoke.lane).ok_or(Reject::UnknownLane)?;
                if lane.is_revoked() {
                    return Err(Reject::Revoked);
                }
                lane.revoke();
                channel.set_last(revoke.number, digest);
                Ok(Done::staged())
            }
            Act::CloseRequest(request) => {
                let channel = self.get_mut(&request.channel)?;
                if author == Some(channel.terms().key) {
                    if check_number(channel.last(), request.number, &digest)? == Numbered::Again {
                        return Ok(Done::Again);
                    }
                    still_open(channel)?;
                    channel.set_last(request.number, digest);
                } else if author != Some(channel.account().key()) {
                    return Err(Reject::Unauthenticated);
                }
                still_open(channel)?;
                channel.request_close(digest);
                Ok(Done::staged())
            }
            Act::Close(close) => {
                let channel = self.get_mut(&close.channel)?;
                let mut holds = channel.check_close(close)?;
                if close.cause == CloseCause::Expiry && now < channel.expires_at() {
                    return Err(Reject::Malformed);
                }
                if close.cause != CloseCause::Expiry {
                    holds = Holds::ALWAYS;
                }
                channel.apply_close(*close);
                let effect =
                    Effect::Return { account: channel.account(), currency: channel.currency(), amount: close.returned };
                let expiry = (channel.expires_at(), close.channel);
                self.expiries.remove(&expiry);
                Ok(Done::Staged(holds, effect))
            }
            Act::Roll(roll) => {
                let channel = self.get_mut(&roll.channel)?;
                let holds = channel.check_roll(roll)?;
                let before = channel.expires_at();
                if now >= before {
                    return Err(Reject::Expired);
                }
                channel.apply_roll(roll);
                self.move_expiry(roll.channel, before, roll.expires_at);
                Ok(Done::Staged(holds, Effect::None))
            }
            Act::Void(void) => {
                let (id, number) = *self.lanes.get(&void.lane).ok_or(Reject::UnknownLane)?;
                let channel = self.get_mut(&id)?;
                if channel.closed().is_some() {
                    return Err(Reject::Closed);
                }
                channel.lane_mut(number).ok_or(Reject::UnknownLane)?.apply_void(void)?;
                Ok(Done::staged())
            }
            _ => Err(Reject::Unsupported),
        }
    }

    /// Takes an amendment that the books accepted.
    pub fn amend(&mut self, amend: &Amend) -> Result<(), Reject> {
        let channel = self.get_mut(&amend.channel)?;
        channel.check_amend(amend)?;
        let before = channel.expires_at();
        channel.apply_amend(amend);
        self.move_expiry(amend.channel, before, amend.expires_at);
        Ok(())
    }

    fn move_expiry(&mut self, id: ChannelId, before: Time, after: Time) {
        self.expiries.remove(&(before, id));
        self.expiries.insert((after, id));
    }
}

/// What became of an act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It was applied: when the judgement holds, and what it does to the ledger.
    Staged(Holds, Effect),
    /// It is the one that was taken last: nothing changed, the answer is the same.
    Again,
}

impl Done {
    const fn staged() -> Self {
        Self::Staged(Holds::ALWAYS, Effect::None)
    }
}

fn still_open(channel: &Channel) -> Result<(), Reject> {
    if channel.closed().is_some() || channel.close_request().is_some() { Err(Reject::Closed) } else { Ok(()) }
}
