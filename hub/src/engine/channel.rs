//! One channel: its capacity, its lanes, its end. Pure rules; the payments themselves are judged by
//! [`weir_protocol::lane::hub::Lane`].

use serde::{Deserialize, Serialize};
use weir_protocol::act::{Amend, Close, CloseCause, Roll};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::channel::{ChannelTerms, LaneGrant, LaneMode, MAX_LANES};
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, ChannelId};
use weir_protocol::lane::hub::{Bounds, Group, Holds, Lane};
use weir_protocol::merkle::Tree;
use weir_protocol::reject::Reject;
use weir_protocol::wire::{ChannelInfo, LaneInfo};

/// A number taken from a key, and the digest of the act that carried it: the same act again gets the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastAct {
    /// The number.
    pub number: u64,
    /// The act's digest.
    pub digest: Hash,
}

/// How an act's number compares with the last one taken from its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbered {
    /// Above: the act may be taken.
    New,
    /// The very act that was taken last: it gets the same answer.
    Again,
}

/// Compares an act's number with the last one taken. Before the first, that is 0.
pub fn check_number(last: Option<&LastAct>, number: u64, digest: &Hash) -> Result<Numbered, Reject> {
    match last {
        Some(last) if last.number == number && last.digest == *digest => Ok(Numbered::Again),
        Some(last) if number <= last.number => Err(Reject::Stale),
        None if number == 0 => Err(Reject::Stale),
        _ => Ok(Numbered::New),
    }
}

/// A channel as its shard keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    id: ChannelId,
    terms: ChannelTerms,
    capacity: Amount,
    expires_at: Time,
    renew: bool,
    last: Option<LastAct>,
    rolls: u64,
    rolled_spent: Amount,
    lanes: Vec<Lane>,
    close_request: Option<Hash>,
    closed: Option<Close>,
}

impl Channel {
    /// As its terms say, with lane 0.
    pub fn new(terms: ChannelTerms) -> Self {
        Self {
            id: terms.id(),
            terms,
            capacity: terms.capacity,
            expires_at: terms.expires_at,
            renew: terms.renew,
            last: None,
            rolls: 0,
            rolled_spent: Amount::ZERO,
            lanes: vec![Lane::new(terms.lane_zero())],
            close_request: None,
            closed: None,
        }
    }

    /// Its id.
    pub const fn id(&self) -> ChannelId {
        self.id
    }

    /// As opened.
    pub const fn terms(&self) -> &ChannelTerms {
        &self.terms
    }

    /// Who owns it.
    pub const fn account(&self) -> AccountId {
        self.terms.account
    }

    /// Its currency.
    pub const fn currency(&self) -> Currency {
        self.terms.currency
    }

    /// What is locked for it in all.
    pub const fn capacity(&self) -> Amount {
        self.capacity
    }

    /// When it ends by itself.
    pub const fn expires_at(&self) -> Time {
        self.expires_at
    }

    /// Its lanes, by number.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// One lane.
    pub fn lane(&self, number: u32) -> Option<&Lane> {
        self.lanes.get(number as usize)
    }

    #[cfg(feature = "planted-bugs")]
    pub(super) fn forget_voids(&mut self) {
        self.lanes.iter_mut().for_each(Lane::forget_voids);
    }

    pub(super) fn lane_mut(&mut self, number: u32) -> Option<&mut Lane> {
        self.lanes.get_mut(number as usize)
    }

    /// The close, once it is closed.
    pub const fn closed(&self) -> Option<&Close> {
        self.closed.as_ref()
    }

    /// The digest of a close request that was taken and not carried out yet.
    pub const fn close_request(&self) -> Option<Hash> {
        self.close_request
    }

    pub(super) const fn last(&self) -> Option<&LastAct> {
        self.last.as_ref()
    }

    pub(super) const fn set_last(&mut self, number: u64, digest: Hash) {
        self.last = Some(LastAct { number, digest });
    }

    pub(super) const fn request_close(&mut self, request: Hash) {
        self.close_request = Some(request);
    }

    /// Σ totals of all lanes.
    pub fn spent(&self) -> Amount {
        self.sum(|lane| lane.head().total)
    }

    /// Σ over lanes of what they take of the capacity.
    fn claimed(&self, time: Time) -> Amount {
        #[cfg(feature = "planted-bugs")]
        if weir_protocol::planted::Bug::CapacityAcrossLanes.is_planted() {
            return self.lanes.iter().map(|lane| lane.claim(time)).max().unwrap_or(Amount::ZERO);
        }
        self.sum(|lane| lane.claim(time))
    }

    fn sum(&self, part: impl Fn(&Lane) -> Amount) -> Amount {
        let sum = self.lanes.iter().try_fold(Amount::ZERO, |sum, lane| sum.checked_add(part(lane)));
        // Invariant 1 bounds the sum by the capacity; saturating keeps every check above it closed.
        sum.unwrap_or(Amount::MAX)
    }

    /// What is set aside for live reserved lanes and not spent by them.
    fn reserved(&self, time: Time) -> Amount {
        self.claimed(time).checked_sub(self.spent()).unwrap_or(Amount::ZERO)
    }

    /// What no lane claims, and from when on that holds.
    fn unclaimed(&self, time: Time) -> (Amount, Time) {
        let from = self
            .lanes
            .iter()
            .filter(|lane| lane.grant().mode == LaneMode::Reserved && !lane.is_revoked())
            .map(|lane| lane.grant().expires_at)
            .filter(|expiry| *expiry <= time)
            .max()
            .unwrap_or(Time(0));
        (self.capacity.checked_sub(self.claimed(time)).unwrap_or(Amount::ZERO), from)
    }

    /// What a lane's payments are held against at a time.
    pub fn bounds(&self, lane: &Lane, now: Time, frozen: bool, payment_max: Amount) -> Bounds {
        let live_reserved = lane.grant().mode == LaneMode::Reserved && !lane.has_ended(now);
        let (headroom, headroom_from) = if live_reserved {
            (lane.grant().limit.checked_sub(lane.head().total).unwrap_or(Amount::ZERO), Time(0))
        } else {
            self.unclaimed(now)
        };
        Bounds {
            now,
            opened_at: self.terms.opened_at,
            expires_at: self.expires_at,
            headroom,
            headroom_from,
            frozen,
            payment_max,
        }
    }

    /// Takes a judged group of one of its lanes.
    pub fn apply_group(&mut self, number: u32, group: &Group, time: Time) {
        assert!(self.closed.is_none(), "a closed channel takes nothing");
        if let Some(lane) = self.lane_mut(number) {
            lane.apply(group);
        }
        assert!(self.claimed(time) <= self.capacity, "invariant 1: lanes claim more than the capacity");
    }

    /// Whether a lane can be granted, and when that judgement holds.
    pub fn check_grant(&self, grant: &LaneGrant, now: Time) -> Result<Holds, Reject> {
        grant.check()?;
        let next = u32::try_from(self.lanes.len()).unwrap_or(u32::MAX);
        if grant.lane >= MAX_LANES {
            return Err(Reject::LanesFull);
        }
        if grant.lane != next {
            return Err(Reject::LaneNumber);
        }
        let until = grant.expires_at.min(self.expires_at);
        if now >= until {
            return Err(Reject::Expired);
        }
        if grant.mode != LaneMode::Reserved {
            return Ok(Holds { from: Time(0), until });
        }
        if grant.limit.is_zero() {
            return Err(Reject::Zero);
        }
        let (unclaimed, from) = self.unclaimed(now);
        if grant.limit > unclaimed {
            return Err(Reject::Capacity);
        }
        Ok(Holds { from, until })
    }

    /// Adds a lane that was checked.
    pub(super) fn add_lane(&mut self, grant: LaneGrant) {
        self.lanes.push(Lane::new(grant));
    }

    /// Whether an amendment can be taken: capacity and expiry only grow.
    pub fn check_amend(&self, amend: &Amend) -> Result<(), Reject> {
        if self.closed.is_some() || self.close_request.is_some() {
            return Err(Reject::Closed);
        }
        if amend.capacity < self.capacity || amend.expires_at < self.expires_at {
            return Err(Reject::Lower);
        }
        Ok(())
    }

    /// Takes an amendment that was checked.
    pub(super) fn apply_amend(&mut self, amend: &Amend) {
        self.capacity = amend.capacity;
        self.expires_at = amend.expires_at;
        self.renew = amend.renew;
    }

    /// Over the heads of every lane ever granted, by number.
    pub fn heads(&self) -> Tree {
        Tree::new(self.lanes.iter().map(Lane::head_digest).collect())
    }

    /// The close that ends the channel now.
    pub fn close(&self, cause: CloseCause) -> Close {
        let spent = self.spent();
        Close {
            channel: self.id,
            cause,
            request: match cause {
                CloseCause::Request => self.close_request.unwrap_or(Hash::ZERO),
                CloseCause::Expiry | CloseCause::Operator => Hash::ZERO,
            },
            root: self.heads().root(),
            spent,
            returned: self.capacity.checked_sub(spent).unwrap_or(Amount::ZERO),
        }
    }

    /// Whether a close is the one that ends this channel, and when that judgement holds.
    pub fn check_close(&self, close: &Close) -> Result<Holds, Reject> {
        if self.closed.is_some() {
            return Err(Reject::Closed);
        }
        let asked = self.close_request.is_some();
        if *close != self.close(close.cause) || (close.cause == CloseCause::Request) != asked {
            return Err(Reject::Malformed);
        }
        let from = if close.cause == CloseCause::Expiry { self.expires_at } else { Time(0) };
        Ok(Holds { from, until: Time::MAX })
    }

    pub(super) const fn apply_close(&mut self, close: Close) {
        self.closed = Some(close);
    }

    /// The roll that a window's end brings, when there is one: the payer consented, and there is something to book or
    /// less than half the channel's term left.
    pub fn due_roll(&self, now: Time) -> Option<Roll> {
        let term = self.terms.expires_at.0.saturating_sub(self.terms.opened_at.0);
        let ends_soon = self.expires_at <= now.plus_ms(term / 2);
        let open = self.closed.is_none() && self.close_request.is_none() && now < self.expires_at;
        if !open || !self.renew || (self.spent() == self.rolled_spent && !ends_soon) {
            return None;
        }
        Some(Roll {
            channel: self.id,
            roll: self.rolls + 1,
            root: self.heads().root(),
            spent: self.spent(),
            capacity: self.capacity,
            expires_at: self.expires_at.max(now.plus_ms(term)),
        })
    }

    /// Whether a roll fits this channel now, and when that judgement holds.
    pub fn check_roll(&self, roll: &Roll) -> Result<Holds, Reject> {
        if self.closed.is_some() {
            return Err(Reject::Closed);
        }
        let fits = roll.roll == self.rolls + 1
            && roll.root == self.heads().root()
            && roll.spent == self.spent()
            && roll.capacity == self.capacity
            && roll.expires_at >= self.expires_at
            && self.renew;
        if fits { Ok(Holds { from: Time(0), until: self.expires_at }) } else { Err(Reject::Malformed) }
    }

    pub(super) const fn apply_roll(&mut self, roll: &Roll) {
        self.rolls = roll.roll;
        self.rolled_spent = roll.spent;
        self.expires_at = roll.expires_at;
    }

    /// As its owner sees it.
    pub fn info(&self, time: Time) -> ChannelInfo {
        ChannelInfo {
            channel: self.id,
            terms: self.terms,
            capacity: self.capacity,
            expires_at: self.expires_at,
            renew: self.renew,
            spent: self.spent(),
            reserved: self.reserved(time),
            lanes: u32::try_from(self.lanes.len()).unwrap_or(u32::MAX),
            rolls: self.rolls,
            number: self.last.map_or(0, |last| last.number),
            closed: self.closed.is_some(),
        }
    }

    /// One lane as its owner sees it.
    pub fn lane_info(lane: &Lane) -> LaneInfo {
        LaneInfo {
            lane: lane.id(),
            grant: *lane.grant(),
            head: *lane.head(),
            void_through: lane.void_through().max(lane.head().sequence),
            spent_in_period: lane.spent_in_period(),
            revoked: lane.is_revoked(),
        }
    }
}
