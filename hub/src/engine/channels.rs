//! Channels by id, their lanes by id, and the acts that change them. A shard owns one of these; recovery and audit own
//! one for the whole hub. Every act is judged and applied by the same function, live and again.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use weir_protocol::act::{Act, Amend, Close, CloseCause};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::channel::ChannelTerms;
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, ChannelId, LaneId};
use weir_protocol::keys::PublicKey;
use weir_protocol::lane::hub::{Group, Holds, Lane};
use weir_protocol::reject::Reject;

use super::channel::{Channel, Numbered, Owner, check_number};
use super::ledger::Credit;

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
        credits: Vec<Credit>,
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

/// Where a channel is in the slab. No channel is ever forgotten, so there are never more than fit.
type Slot = u32;

/// Bytes of an id that an ordered set keeps beside the slot: two ids that share them are told apart by looking.
const PREFIX_BYTES: usize = 8;

/// A channel in an ordered set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    prefix: [u8; PREFIX_BYTES],
    slot: Slot,
}

impl Key {
    fn new(id: &ChannelId, slot: Slot) -> Self {
        let mut prefix = [0; PREFIX_BYTES];
        prefix.iter_mut().zip(id.0).for_each(|(to, from)| *to = from);
        Self { prefix, slot }
    }

    const LAST: Self = Self { prefix: [u8::MAX; PREFIX_BYTES], slot: Slot::MAX };
}

/// An account with channels.
#[derive(Debug)]
struct Held {
    owner: Arc<Owner>,
    channels: BTreeSet<Key>,
}

/// Channels and lanes by id.
///
/// Channels lie in one slab, and everything else names them by their place in it: what is kept of a channel is a few
/// hundred bytes in all, and no allocation of its own.
#[derive(Debug, Default)]
pub struct Channels {
    slab: Vec<Channel>,
    by_id: BTreeSet<Key>,
    /// Lanes 0, by their ids. Keyed at random: whoever makes ids must not choose where they fall.
    lanes: HashTable<Slot>,
    /// Other lanes, by theirs.
    granted: HashTable<(Slot, u32)>,
    hasher: RandomState,
    expiries: BTreeSet<(Time, Slot)>,
    by_account: HashMap<AccountId, Held>,
}

impl FromIterator<(ChannelId, Channel)> for Channels {
    /// Takes many channels over at once, which leaves its sets in less memory than one after the other does. Each id is
    /// its channel's, and there once.
    fn from_iter<I: IntoIterator<Item = (ChannelId, Channel)>>(channels: I) -> Self {
        let mut this = Self::default();
        let (mut by_id, mut expiries) = (Vec::new(), Vec::new());
        let mut accounts: HashMap<AccountId, (Arc<Owner>, Vec<Key>)> = HashMap::new();
        for (id, mut channel) in channels {
            let key = Key::new(&id, this.next_slot());
            let (owner, keys) =
                accounts.entry(channel.account()).or_insert_with(|| (Arc::clone(channel.owner()), Vec::new()));
            channel.share(owner);
            keys.push(key);
            by_id.push(key);
            if channel.closed().is_none() {
                expiries.push((channel.expires_at(), key.slot));
            }
            this.slab.push(channel);
        }
        this.lanes.reserve(this.slab.len(), |_| 0);
        for slot in 0..this.next_slot() {
            this.index_lanes(slot);
        }
        this.by_id = by_id.into_iter().collect();
        this.expiries = expiries.into_iter().collect();
        let held = |(account, (owner, keys)): (_, (_, Vec<Key>))| {
            (account, Held { owner, channels: keys.into_iter().collect() })
        };
        this.by_account = accounts.into_iter().map(held).collect();
        this
    }
}

impl Channels {
    /// Takes a channel over.
    pub fn insert(&mut self, mut channel: Channel) {
        let id = channel.id();
        let held = self
            .by_account
            .entry(channel.account())
            .or_insert_with(|| Held { owner: Arc::clone(channel.owner()), channels: BTreeSet::new() });
        channel.share(&held.owner);
        let open = channel.closed().is_none();
        let expires_at = channel.expires_at();
        if let Some(known) = self.slot_of(&id) {
            // The books let nobody open a channel twice; if they did, the later one would count.
            if let Some(before) = self.slab.get_mut(known as usize) {
                self.expiries.remove(&(before.expires_at(), known));
                *before = channel;
            }
            if open {
                self.expiries.insert((expires_at, known));
            }
            return;
        }
        let slot = self.next_slot();
        let key = Key::new(&id, slot);
        if let Some(held) = self.by_account.get_mut(&channel.account()) {
            held.channels.insert(key);
        }
        self.by_id.insert(key);
        if open {
            self.expiries.insert((expires_at, slot));
        }
        self.slab.push(channel);
        self.index_lanes(slot);
    }

    fn next_slot(&self) -> Slot {
        let Ok(slot) = Slot::try_from(self.slab.len()) else { unreachable!("there is memory for 2^32 channels") };
        slot
    }

    /// Makes the lanes of a new channel known.
    fn index_lanes(&mut self, slot: Slot) {
        let Some(channel) = self.slab.get(slot as usize) else { return };
        let ids: Vec<LaneId> = channel.lanes().skip(1).map(Lane::id).collect();
        let (slab, hasher) = (&self.slab, &self.hasher);
        if let Some(zero) = channel.lane(0) {
            self.lanes.insert_unique(hasher.hash_one(zero.id()), slot, |slot| hash_of(hasher, slab, *slot, 0));
        }
        for (id, number) in ids.into_iter().zip(1..) {
            self.index_lane(id, slot, number);
        }
    }

    /// Makes a lane known that is not lane 0.
    fn index_lane(&mut self, id: LaneId, slot: Slot, number: u32) {
        let (slab, hasher) = (&self.slab, &self.hasher);
        let hash = |(slot, number): &(Slot, u32)| hash_of(hasher, slab, *slot, *number);
        self.granted.insert_unique(hasher.hash_one(id), (slot, number), hash);
    }

    /// Opens a channel whose terms the books accepted.
    pub fn open(&mut self, terms: ChannelTerms) {
        self.insert(Channel::new(&terms));
    }

    /// The planted bug of that name.
    #[cfg(feature = "planted-bugs")]
    pub fn forget_voids(&mut self) {
        self.slab.iter_mut().for_each(Channel::forget_voids);
    }

    /// All channels, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.in_order(self.by_id.iter(), None)
    }

    /// Gives all channels away.
    pub fn into_channels(self) -> impl Iterator<Item = Channel> {
        // What only finds them goes first: whoever takes them over makes it anew.
        let Self { slab, .. } = self;
        slab.into_iter()
    }

    /// Shares them out: `part_of` says to which of `parts`.
    pub fn split(self, parts: usize, part_of: impl Fn(&ChannelId) -> usize) -> Vec<Self> {
        if parts == 1 {
            return vec![self];
        }
        let mut shares: Vec<Vec<(ChannelId, Channel)>> = (0..parts).map(|_| Vec::new()).collect();
        for channel in self.into_channels() {
            let id = channel.id();
            if let Some(share) = shares.get_mut(part_of(&id)) {
                share.push((id, channel));
            }
        }
        shares.into_iter().map(|share| share.into_iter().collect()).collect()
    }

    /// Channels above an id, by id.
    pub fn after(&self, after: Option<ChannelId>) -> impl Iterator<Item = &Channel> {
        self.in_order(self.by_id.range(from(after)..=Key::LAST), after)
    }

    /// Channels of an account above an id, by id.
    pub fn of(&self, account: AccountId, after: Option<ChannelId>) -> impl Iterator<Item = &Channel> {
        let held = self.by_account.get(&account).into_iter();
        self.in_order(held.flat_map(move |held| held.channels.range(from(after)..=Key::LAST)), after)
    }

    /// Channels above an id by their keys: ordered by more than the prefix where prefixes are the same.
    fn in_order<'a>(
        &'a self,
        keys: impl Iterator<Item = &'a Key>,
        after: Option<ChannelId>,
    ) -> impl Iterator<Item = &'a Channel> {
        let mut keys = keys.filter_map(|key| Some((key.prefix, self.slab.get(key.slot as usize)?))).peekable();
        let start = from(after).prefix;
        let mut alike: Vec<(ChannelId, &Channel)> = Vec::new();
        core::iter::from_fn(move || {
            loop {
                if let Some((_, channel)) = alike.pop() {
                    return Some(channel);
                }
                let (prefix, channel) = keys.next()?;
                let is_alone = keys.peek().is_none_or(|(next, _)| *next != prefix);
                if is_alone && (after.is_none() || prefix != start) {
                    return Some(channel);
                }
                alike.push((channel.id(), channel));
                while let Some((_, next)) = keys.next_if(|(next, _)| *next == prefix) {
                    alike.push((next.id(), next));
                }
                alike.retain(|(id, _)| after.is_none_or(|after| *id > after));
                alike.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
            }
        })
    }

    /// How many there are, closed ones included.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    fn slot_of(&self, id: &ChannelId) -> Option<Slot> {
        let mut alike = self.by_id.range(Key::new(id, 0)..=Key::new(id, Slot::MAX)).map(|key| key.slot);
        alike.rfind(|slot| self.slab.get(*slot as usize).is_some_and(|channel| channel.id() == *id))
    }

    /// One channel.
    pub fn get(&self, id: &ChannelId) -> Option<&Channel> {
        self.slab.get(self.slot_of(id)? as usize)
    }

    fn place_of(&self, id: &LaneId) -> Option<(Slot, u32)> {
        let hash = self.hasher.hash_one(id);
        let is = |slot: Slot, number| lane_at(&self.slab, slot, number).is_some_and(|lane| lane.id() == *id);
        let zero = self.lanes.find(hash, |slot| is(*slot, 0)).map(|slot| (*slot, 0));
        zero.or_else(|| self.granted.find(hash, |(slot, number)| is(*slot, *number)).copied())
    }

    /// One lane, with its channel and its number.
    pub fn lane(&self, id: &LaneId) -> Option<(&Channel, &Lane, u32)> {
        let (slot, number) = self.place_of(id)?;
        let channel = self.slab.get(slot as usize)?;
        Some((channel, channel.lane(number)?, number))
    }

    /// Channels whose expiry has come.
    pub fn expired(&self, now: Time) -> impl Iterator<Item = ChannelId> + '_ {
        self.expiries.range(..=(now, Slot::MAX)).filter_map(|(_, slot)| self.slab.get(*slot as usize)).map(Channel::id)
    }

    /// When the next channel expires.
    pub fn next_expiry(&self) -> Option<Time> {
        self.expiries.first().map(|(time, _)| *time)
    }

    fn get_mut(&mut self, id: &ChannelId) -> Result<(Slot, &mut Channel), Reject> {
        let slot = self.slot_of(id).ok_or(Reject::UnknownChannel)?;
        let channel = self.slab.get_mut(slot as usize).ok_or(Reject::UnknownChannel)?;
        Ok((slot, channel))
    }

    fn lane_mut(&mut self, id: &LaneId) -> Result<(&mut Channel, u32), Reject> {
        let (slot, number) = self.place_of(id).ok_or(Reject::UnknownLane)?;
        Ok((self.slab.get_mut(slot as usize).ok_or(Reject::UnknownLane)?, number))
    }

    /// Takes a judged group; what it does to the ledger.
    pub fn apply_group(&mut self, lane: &LaneId, group: &Group, time: Time) -> Result<Effect, Reject> {
        let (channel, number) = self.lane_mut(lane)?;
        channel.apply_group(number, group, time);
        let mut credits = Vec::new();
        for run in &group.runs {
            let first = credits.len();
            let nothing = |payee: &AccountId| Credit { payee: *payee, amount: Amount::ZERO, payments: 0 };
            credits.extend(run.payees().iter().map(nothing));
            for (_, place, payment) in run.indexed() {
                if let Some(credit) = credits.get_mut(first + place) {
                    // The lane's total, checked when the group was judged, bounds every part of it.
                    credit.amount = credit.amount.checked_add(payment.amount).map_err(|_| Reject::Overflow)?;
                    credit.payments += 1;
                }
            }
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
                let (slot, channel) = self.get_mut(&grant.channel)?;
                if author != Some(channel.key()) {
                    return Err(Reject::Unauthenticated);
                }
                if channel.lane(grant.lane).is_some_and(|lane| lane.id() == grant.id()) {
                    return Ok(Done::Again);
                }
                still_open(channel)?;
                let holds = channel.check_grant(grant, now)?;
                channel.add_lane(*grant);
                self.index_lane(grant.id(), slot, grant.lane);
                Ok(Done::Staged(holds, Effect::None))
            }
            Act::Revoke(revoke) => {
                let (_, channel) = self.get_mut(&revoke.channel)?;
                if author != Some(channel.key()) {
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
                let (_, channel) = self.get_mut(&request.channel)?;
                if author == Some(channel.key()) {
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
                let (slot, channel) = self.get_mut(&close.channel)?;
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
                let expiry = (channel.expires_at(), slot);
                self.expiries.remove(&expiry);
                Ok(Done::Staged(holds, effect))
            }
            Act::Roll(roll) => {
                let (slot, channel) = self.get_mut(&roll.channel)?;
                let holds = channel.check_roll(roll)?;
                let before = channel.expires_at();
                if now >= before {
                    return Err(Reject::Expired);
                }
                channel.apply_roll(roll);
                self.move_expiry(slot, before, roll.expires_at);
                Ok(Done::Staged(holds, Effect::None))
            }
            Act::Void(void) => {
                let (channel, number) = self.lane_mut(&void.lane)?;
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
        let (slot, channel) = self.get_mut(&amend.channel)?;
        channel.check_amend(amend)?;
        let before = channel.expires_at();
        channel.apply_amend(amend);
        self.move_expiry(slot, before, amend.expires_at);
        Ok(())
    }

    fn move_expiry(&mut self, slot: Slot, before: Time, after: Time) {
        self.expiries.remove(&(before, slot));
        self.expiries.insert((after, slot));
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

/// The first key that a channel above an id can have.
fn from(after: Option<ChannelId>) -> Key {
    Key::new(&after.unwrap_or(ChannelId::ZERO), 0)
}

fn lane_at(slab: &[Channel], slot: Slot, number: u32) -> Option<&Lane> {
    slab.get(slot as usize)?.lane(number)
}

fn hash_of(hasher: &RandomState, slab: &[Channel], slot: Slot, number: u32) -> u64 {
    // Every place that is known is one of a lane.
    lane_at(slab, slot, number).map_or(0, |lane| hasher.hash_one(lane.id()))
}

fn still_open(channel: &Channel) -> Result<(), Reject> {
    if channel.closed().is_some() || channel.close_request().is_some() { Err(Reject::Closed) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use weir_protocol::id::HubId;

    use super::*;

    fn terms(number: u64) -> ChannelTerms {
        ChannelTerms {
            hub: HubId(PublicKey([1; 32])),
            account: AccountId(PublicKey([(number % 3) as u8; 32])),
            scheme: 0,
            key: PublicKey([9; 32]),
            currency: Currency::EUR,
            capacity: Amount::from_nanos(1 + number),
            opened_at: Time(number),
            expires_at: Time(1_000 + number % 7),
            renew: number.is_multiple_of(2),
            salt: weir_protocol::hash::sha256(&number.to_le_bytes()).0,
        }
    }

    fn many() -> Vec<ChannelTerms> {
        (0..300).map(terms).collect()
    }

    fn ids<'a>(channels: impl Iterator<Item = &'a Channel>) -> Vec<ChannelId> {
        channels.map(Channel::id).collect()
    }

    /// Whatever can be asked gives the same, however the channels came in.
    fn check(channels: &Channels) {
        let mut expected: Vec<ChannelId> = many().iter().map(ChannelTerms::id).collect();
        expected.sort_unstable();
        assert_eq!(ids(channels.iter()), expected);
        assert_eq!(ids(channels.after(None)), expected);
        let account = terms(1).account;
        let is_of = |id: &ChannelId| many().iter().any(|terms| terms.id() == *id && terms.account == account);
        let of: Vec<ChannelId> = expected.iter().copied().filter(is_of).collect();
        assert_eq!(ids(channels.of(account, None)), of);
        for (at, id) in expected.iter().enumerate() {
            assert!(channels.after(Some(*id)).map(Channel::id).eq(expected.iter().skip(at + 1).copied()));
        }
        for (at, id) in of.iter().enumerate() {
            assert!(channels.of(account, Some(*id)).map(Channel::id).eq(of.iter().skip(at + 1).copied()));
        }
        for terms in many() {
            assert_eq!(channels.get(&terms.id()).map(Channel::terms), Some(terms));
            let found = channels.lane(&terms.lane_zero().id());
            assert_eq!(found.map(|(channel, lane, number)| (channel.id(), lane.id(), number)), {
                Some((terms.id(), terms.lane_zero().id(), 0))
            });
        }
        assert_eq!(channels.get(&ChannelId([7; 32])), None);
        assert_eq!(channels.next_expiry(), Some(Time(1_000)));
        assert_eq!(channels.expired(Time(1_002)).count(), many().iter().filter(|at| at.expires_at.0 <= 1_002).count());
    }

    #[test]
    fn channels_taken_over_one_by_one_at_once_and_in_parts_are_found_alike() {
        let mut one_by_one = Channels::default();
        for terms in many() {
            one_by_one.open(terms);
        }
        check(&one_by_one);
        let at_once: Channels = many().iter().map(|terms| (terms.id(), Channel::new(terms))).collect();
        check(&at_once);
        let parts = at_once.split(3, |id| usize::from(id.0[31]) % 3);
        assert_eq!(parts.iter().map(Channels::len).sum::<usize>(), 300);
        assert!(parts.iter().zip(0..).all(|(part, at)| part.iter().all(|channel| channel.id().0[31] % 3 == at)));
        let mut together = Channels::default();
        parts.into_iter().flat_map(Channels::into_channels).for_each(|channel| together.insert(channel));
        check(&together);
    }

    #[test]
    fn ids_that_begin_alike_are_told_apart_and_in_order() {
        let mut channels = Channels::default();
        for terms in many() {
            channels.open(terms);
        }
        // Nobody can make ids of which 8 bytes are the same; their keys can be made so.
        channels.by_id = (0..300).map(|slot| Key { prefix: [5; PREFIX_BYTES], slot }).collect();
        let mut expected: Vec<ChannelId> = many().iter().map(ChannelTerms::id).collect();
        expected.sort_unstable();
        assert_eq!(ids(channels.iter()), expected);
        for low in [ChannelId([5; 32]), ChannelId([4; 32])] {
            let above = expected.iter().copied().filter(|id| *id > low).collect::<Vec<_>>();
            assert_eq!(ids(channels.after(Some(low))), above);
        }
    }

    #[test]
    fn channel_is_kept_in_few_bytes() {
        // With what finds it, under 400 (issue 3, g).
        assert!(size_of::<Channel>() <= 288, "{}", size_of::<Channel>());
        assert_eq!(size_of::<Key>(), 12);
    }

    #[test]
    fn granted_lane_is_found_and_outlives_an_amendment_a_roll_and_a_snapshot() {
        let mut channels = Channels::default();
        let terms = terms(2);
        channels.open(terms);
        let grant = weir_protocol::channel::LaneGrant {
            channel: terms.id(),
            lane: 1,
            limit: Amount::from_nanos(1),
            ..terms.lane_zero()
        };
        let act = Act::Grant(grant);
        let done = channels.act(&act, act.digest(&terms.hub), Some(terms.key), Time(5));
        assert!(matches!(done, Ok(Done::Staged(..))), "{done:?}");
        let amend = Amend {
            number: 1,
            channel: terms.id(),
            capacity: Amount::from_nanos(9),
            expires_at: Time(2_000),
            renew: true,
        };
        assert_eq!(channels.amend(&amend), Ok(()));
        let roll = channels.get(&terms.id()).and_then(|channel| channel.due_roll(Time(1_900)));
        let act = roll.map(Act::Roll);
        let rolled = act.map(|act| channels.act(&act, act.digest(&terms.hub), None, Time(1_900)));
        assert!(matches!(rolled, Some(Ok(Done::Staged(..)))), "{rolled:?}");
        let before = channels.get(&terms.id()).cloned();
        let image = before.as_ref().map(|channel| (channel.image(), Arc::clone(channel.owner())));
        let again: Channels =
            image.map(|(image, owner)| (image.id, Channel::from_image(image, owner))).into_iter().collect();
        for channels in [&channels, &again] {
            let channel = channels.get(&terms.id());
            assert_eq!(channel, before.as_ref());
            assert_eq!(channel.map(Channel::terms), Some(terms), "terms are as opened");
            assert_eq!(channel.map(Channel::capacity), Some(Amount::from_nanos(9)));
            assert_eq!(
                channels.lane(&grant.id()).map(|(_, lane, number)| (lane.grant(terms.id()), number)),
                Some((grant, 1))
            );
            assert_eq!(channels.next_expiry(), channel.map(Channel::expires_at));
        }
    }
}
