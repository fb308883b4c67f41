//! One channel: its capacity, its lanes, its end. Pure rules; the payments themselves are judged by
//! [`weir_protocol::lane::hub::Lane`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_protocol::act::{Amend, Close, CloseCause, Roll};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::channel::{ChannelTerms, LaneGrant, LaneMode, MAX_LANES};
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, ChannelId, HubId};
use weir_protocol::keys::PublicKey;
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

/// Whose channels some channels are: kept once for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The hub.
    pub hub: HubId,
    /// The account.
    pub account: AccountId,
}

/// A channel as its shard keeps it: small, because there are many and none is ever forgotten. Its id is computed from its
/// terms when it is asked for; what few channels have lies apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    owner: Arc<Owner>,
    zero: Lane,
    salt: [u8; 32],
    capacity: Amount,
    opened_at: Time,
    expires_at: Time,
    more: Option<Box<More>>,
    currency: Currency,
    scheme: u8,
    renew: bool,
}

/// What a channel has once something else than payments on lane 0 has happened to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct More {
    /// What the terms say where the channel says something else by now.
    opened: Option<Opened>,
    rolls: u64,
    rolled_spent: Amount,
    /// The lanes from number 1 on.
    lanes: Vec<Lane>,
    last: Option<Box<LastAct>>,
    close_request: Option<Box<Hash>>,
    closed: Option<Box<Close>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Opened {
    capacity: Amount,
    expires_at: Time,
    renew: bool,
}

/// A channel in a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Image {
    /// Kept, because it takes longer to compute than to read.
    pub(super) id: ChannelId,
    pub(super) account: AccountId,
    zero: Lane,
    salt: [u8; 32],
    capacity: Amount,
    opened_at: Time,
    expires_at: Time,
    more: Option<Box<More>>,
    currency: Currency,
    scheme: u8,
    renew: bool,
}

impl Channel {
    /// As its terms say, with lane 0.
    pub fn new(terms: &ChannelTerms) -> Self {
        Self {
            owner: Arc::new(Owner { hub: terms.hub, account: terms.account }),
            zero: Lane::new(terms.lane_zero()),
            salt: terms.salt,
            capacity: terms.capacity,
            opened_at: terms.opened_at,
            expires_at: terms.expires_at,
            more: None,
            currency: terms.currency,
            scheme: terms.scheme,
            renew: terms.renew,
        }
    }

    /// As a snapshot has it.
    pub(super) fn from_image(image: Image, owner: Arc<Owner>) -> Self {
        Self {
            owner,
            zero: image.zero,
            salt: image.salt,
            capacity: image.capacity,
            opened_at: image.opened_at,
            expires_at: image.expires_at,
            more: image.more,
            currency: image.currency,
            scheme: image.scheme,
            renew: image.renew,
        }
    }

    /// For a snapshot.
    pub(super) fn image(&self) -> Image {
        Image {
            id: self.id(),
            account: self.owner.account,
            zero: self.zero.clone(),
            salt: self.salt,
            capacity: self.capacity,
            opened_at: self.opened_at,
            expires_at: self.expires_at,
            more: self.more.clone(),
            currency: self.currency,
            scheme: self.scheme,
            renew: self.renew,
        }
    }

    /// Shares what it has in common with its owner's other channels.
    pub(super) fn share(&mut self, owner: &Arc<Owner>) {
        debug_assert_eq!(self.owner, *owner, "a channel does not change its owner");
        self.owner = Arc::clone(owner);
    }

    pub(super) const fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    /// Its id: a hash of its terms, computed at each call.
    pub fn id(&self) -> ChannelId {
        self.terms().id()
    }

    /// As opened.
    pub fn terms(&self) -> ChannelTerms {
        let opened = self.more.as_ref().and_then(|more| more.opened).unwrap_or(self.as_opened());
        ChannelTerms {
            hub: self.owner.hub,
            account: self.owner.account,
            scheme: self.scheme,
            key: *self.zero.key(),
            currency: self.currency,
            capacity: opened.capacity,
            opened_at: self.opened_at,
            expires_at: opened.expires_at,
            renew: opened.renew,
            salt: self.salt,
        }
    }

    const fn as_opened(&self) -> Opened {
        Opened { capacity: self.capacity, expires_at: self.expires_at, renew: self.renew }
    }

    /// The channel key.
    pub const fn key(&self) -> PublicKey {
        *self.zero.key()
    }

    /// Who owns it.
    pub fn account(&self) -> AccountId {
        self.owner.account
    }

    /// Its currency.
    pub const fn currency(&self) -> Currency {
        self.currency
    }

    /// What is locked for it in all.
    pub const fn capacity(&self) -> Amount {
        self.capacity
    }

    /// When it ends by itself.
    pub const fn expires_at(&self) -> Time {
        self.expires_at
    }

    /// The lanes from number 1 on.
    fn granted(&self) -> &[Lane] {
        self.more.as_ref().map_or(&[], |more| &more.lanes)
    }

    /// Its lanes, by number.
    pub fn lanes(&self) -> impl Iterator<Item = &Lane> {
        core::iter::once(&self.zero).chain(self.granted())
    }

    /// How many lanes it has.
    pub fn lane_count(&self) -> u32 {
        u32::try_from(self.granted().len()).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// One lane.
    pub fn lane(&self, number: u32) -> Option<&Lane> {
        match (number as usize).checked_sub(1) {
            None => Some(&self.zero),
            Some(at) => self.granted().get(at),
        }
    }

    #[cfg(feature = "planted-bugs")]
    pub(super) fn forget_voids(&mut self) {
        self.zero.forget_voids();
        self.more.iter_mut().flat_map(|more| &mut more.lanes).for_each(Lane::forget_voids);
    }

    pub(super) fn lane_mut(&mut self, number: u32) -> Option<&mut Lane> {
        match (number as usize).checked_sub(1) {
            None => Some(&mut self.zero),
            Some(at) => self.more.as_mut().and_then(|more| more.lanes.get_mut(at)),
        }
    }

    /// The close, once it is closed.
    pub fn closed(&self) -> Option<&Close> {
        self.more.as_ref().and_then(|more| more.closed.as_deref())
    }

    /// The digest of a close request that was taken and not carried out yet.
    pub fn close_request(&self) -> Option<Hash> {
        self.more.as_ref().and_then(|more| more.close_request.as_deref().copied())
    }

    pub(super) fn last(&self) -> Option<&LastAct> {
        self.more.as_ref().and_then(|more| more.last.as_deref())
    }

    fn rolls(&self) -> u64 {
        self.more.as_ref().map_or(0, |more| more.rolls)
    }

    fn rolled_spent(&self) -> Amount {
        self.more.as_ref().map_or(Amount::ZERO, |more| more.rolled_spent)
    }

    /// What few channels have, to be changed.
    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// The same, before something that the terms say is changed.
    fn departing(&mut self) -> &mut More {
        let opened = self.as_opened();
        let more = self.more();
        more.opened.get_or_insert(opened);
        more
    }

    pub(super) fn set_last(&mut self, number: u64, digest: Hash) {
        self.more().last = Some(Box::new(LastAct { number, digest }));
    }

    pub(super) fn request_close(&mut self, request: Hash) {
        self.more().close_request = Some(Box::new(request));
    }

    /// Σ totals of all lanes.
    pub fn spent(&self) -> Amount {
        self.sum(|lane| lane.head().total)
    }

    /// Σ over lanes of what they take of the capacity.
    fn claimed(&self, time: Time) -> Amount {
        #[cfg(feature = "planted-bugs")]
        if weir_protocol::planted::Bug::CapacityAcrossLanes.is_planted() {
            return self.lanes().map(|lane| lane.claim(time)).max().unwrap_or(Amount::ZERO);
        }
        self.sum(|lane| lane.claim(time))
    }

    fn sum(&self, part: impl Fn(&Lane) -> Amount) -> Amount {
        let sum = self.lanes().try_fold(Amount::ZERO, |sum, lane| sum.checked_add(part(lane)));
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
            .granted()
            .iter()
            .filter(|lane| lane.mode() == LaneMode::Reserved && !lane.is_revoked())
            .map(Lane::expires_at)
            .filter(|expiry| *expiry <= time)
            .max()
            .unwrap_or(Time(0));
        (self.capacity.checked_sub(self.claimed(time)).unwrap_or(Amount::ZERO), from)
    }

    /// What a lane's payments are held against at a time.
    pub fn bounds(&self, lane: &Lane, now: Time, frozen: bool, payment_max: Amount) -> Bounds {
        let live_reserved = lane.mode() == LaneMode::Reserved && !lane.has_ended(now);
        let (headroom, headroom_from) = if live_reserved {
            (lane.limit().checked_sub(lane.head().total).unwrap_or(Amount::ZERO), Time(0))
        } else {
            self.unclaimed(now)
        };
        Bounds {
            now,
            opened_at: self.opened_at,
            expires_at: self.expires_at,
            headroom,
            headroom_from,
            frozen,
            payment_max,
        }
    }

    /// Takes a judged group of one of its lanes.
    pub fn apply_group(&mut self, number: u32, group: &Group, time: Time) {
        assert!(self.closed().is_none(), "a closed channel takes nothing");
        if let Some(lane) = self.lane_mut(number) {
            lane.apply(group);
        }
        assert!(self.claimed(time) <= self.capacity, "invariant 1: lanes claim more than the capacity");
    }

    /// Whether a lane can be granted, and when that judgement holds.
    pub fn check_grant(&self, grant: &LaneGrant, now: Time) -> Result<Holds, Reject> {
        grant.check()?;
        if grant.lane >= MAX_LANES {
            return Err(Reject::LanesFull);
        }
        if grant.lane != self.lane_count() {
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
        self.more().lanes.push(Lane::new(grant));
    }

    /// Whether an amendment can be taken: capacity and expiry only grow.
    pub fn check_amend(&self, amend: &Amend) -> Result<(), Reject> {
        if self.closed().is_some() || self.close_request().is_some() {
            return Err(Reject::Closed);
        }
        if amend.capacity < self.capacity || amend.expires_at < self.expires_at {
            return Err(Reject::Lower);
        }
        Ok(())
    }

    /// Takes an amendment that was checked.
    pub(super) fn apply_amend(&mut self, amend: &Amend) {
        self.departing();
        self.capacity = amend.capacity;
        self.expires_at = amend.expires_at;
        self.renew = amend.renew;
    }

    /// Over the heads of every lane ever granted, by number.
    pub fn heads(&self) -> Tree {
        Tree::new(self.lanes().map(Lane::head_digest).collect())
    }

    /// The close that ends the channel now.
    pub fn close(&self, cause: CloseCause) -> Close {
        let spent = self.spent();
        Close {
            channel: self.id(),
            cause,
            request: match cause {
                CloseCause::Request => self.close_request().unwrap_or(Hash::ZERO),
                CloseCause::Expiry | CloseCause::Operator => Hash::ZERO,
            },
            root: self.heads().root(),
            spent,
            returned: self.capacity.checked_sub(spent).unwrap_or(Amount::ZERO),
        }
    }

    /// Whether a close is the one that ends this channel, and when that judgement holds.
    pub fn check_close(&self, close: &Close) -> Result<Holds, Reject> {
        if self.closed().is_some() {
            return Err(Reject::Closed);
        }
        let asked = self.close_request().is_some();
        if *close != self.close(close.cause) || (close.cause == CloseCause::Request) != asked {
            return Err(Reject::Malformed);
        }
        let from = if close.cause == CloseCause::Expiry { self.expires_at } else { Time(0) };
        Ok(Holds { from, until: Time::MAX })
    }

    pub(super) fn apply_close(&mut self, close: Close) {
        self.more().closed = Some(Box::new(close));
    }

    /// The roll that a window's end brings, when there is one: the payer consented, and there is something to book or
    /// less than half the channel's term left.
    pub fn due_roll(&self, now: Time) -> Option<Roll> {
        if !self.renew || self.closed().is_some() || self.close_request().is_some() || now >= self.expires_at {
            return None;
        }
        let terms = self.terms();
        let term = terms.expires_at.0.saturating_sub(terms.opened_at.0);
        let ends_soon = self.expires_at <= now.plus_ms(term / 2);
        let spent = self.spent();
        if spent == self.rolled_spent() && !ends_soon {
            return None;
        }
        Some(Roll {
            channel: terms.id(),
            roll: self.rolls() + 1,
            root: self.heads().root(),
            spent,
            capacity: self.capacity,
            expires_at: self.expires_at.max(now.plus_ms(term)),
        })
    }

    /// Whether a roll fits this channel now, and when that judgement holds.
    pub fn check_roll(&self, roll: &Roll) -> Result<Holds, Reject> {
        if self.closed().is_some() {
            return Err(Reject::Closed);
        }
        let fits = roll.roll == self.rolls() + 1
            && roll.root == self.heads().root()
            && roll.spent == self.spent()
            && roll.capacity == self.capacity
            && roll.expires_at >= self.expires_at
            && self.renew;
        if fits { Ok(Holds { from: Time(0), until: self.expires_at }) } else { Err(Reject::Malformed) }
    }

    pub(super) fn apply_roll(&mut self, roll: &Roll) {
        let more = self.departing();
        more.rolls = roll.roll;
        more.rolled_spent = roll.spent;
        self.expires_at = roll.expires_at;
    }

    /// As its owner sees it.
    pub fn info(&self, time: Time) -> ChannelInfo {
        let terms = self.terms();
        ChannelInfo {
            channel: terms.id(),
            terms,
            capacity: self.capacity,
            expires_at: self.expires_at,
            renew: self.renew,
            spent: self.spent(),
            reserved: self.reserved(time),
            lanes: self.lane_count(),
            rolls: self.rolls(),
            number: self.last().map_or(0, |last| last.number),
            closed: self.closed().is_some(),
        }
    }

    /// One of its lanes as its owner sees it.
    pub fn lane_info(&self, lane: &Lane) -> LaneInfo {
        LaneInfo {
            lane: lane.id(),
            grant: lane.grant(self.id()),
            head: *lane.head(),
            void_through: lane.void_through().max(lane.head().sequence),
            spent_in_period: lane.spent_in_period(),
            revoked: lane.is_revoked(),
        }
    }
}
