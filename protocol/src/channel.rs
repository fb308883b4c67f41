//! Channels and lanes as their owners sign them: terms and grants (DESIGN §4.3).

use serde::{Deserialize, Serialize};

use crate::amount::{Amount, Currency, Time};
use crate::hash::{Fixed, tag};
use crate::id::{AccountId, ChannelId, HubId, LaneId};
use crate::keys::PublicKey;
use crate::reject::Reject;

/// Lanes that one channel may have in its life, ended ones included.
pub const MAX_LANES: u32 = 1024;
/// How far `opened_at` may be from the hub's time, either way.
pub const OPENED_AT_TOLERANCE_MS: u64 = 10 * 60 * 1000;

/// The only signature scheme so far: BIP-340 over secp256k1.
pub const SCHEME_BIP340: u8 = 0;

/// What an account signs to open a channel, with its account key. 158 bytes as a preimage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelTerms {
    /// The hub.
    pub hub: HubId,
    /// Who funds and owns the channel.
    pub account: AccountId,
    /// Signature scheme of `key`: 0.
    pub scheme: u8,
    /// The channel key: signs grants, revocations and, on lane 0, heads.
    pub key: PublicKey,
    /// The currency.
    pub currency: Currency,
    /// How much is locked for spending.
    pub capacity: Amount,
    /// The client's time.
    pub opened_at: Time,
    /// No payment is taken from this time on.
    pub expires_at: Time,
    /// Whether the channel may roll at a window's end.
    pub renew: bool,
    /// Random: makes the id new.
    #[serde(with = "crate::bytes")]
    pub salt: [u8; 32],
}

impl ChannelTerms {
    /// `channel_id = H("weir/channel", terms)`: also what the account key signs.
    pub fn id(&self) -> ChannelId {
        let hash = Fixed::<158>::new()
            .put(self.hub.as_bytes())
            .put(self.account.as_bytes())
            .put(&[self.scheme])
            .put(&self.key.0)
            .put(&self.currency.to_bytes())
            .u64(self.capacity.nanos())
            .u64(self.opened_at.0)
            .u64(self.expires_at.0)
            .put(&[u8::from(self.renew)])
            .put(&self.salt);
        ChannelId(hash.hash(&tag::CHANNEL).0)
    }

    /// Lane 0's grant: the terms' key, any payee, bounded by the channel alone. It needs no signature of its own.
    pub fn lane_zero(&self) -> LaneGrant {
        LaneGrant { channel: self.id(), scheme: self.scheme, key: self.key, ..LaneGrant::LANE_ZERO }
    }
}

/// How a lane takes part in its channel's capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneMode {
    /// Spends what no reserved lane has set aside.
    Shared,
    /// Its limit is set aside for it alone.
    Reserved,
    /// Reserved and irrevocable until it expires: the seat of direct lanes; refused for now.
    Direct,
}

impl LaneMode {
    /// The number in a preimage and on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Shared => 0,
            Self::Reserved => 1,
            Self::Direct => 2,
        }
    }
}

impl Serialize for LaneMode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.code())
    }
}

impl<'de> Deserialize<'de> for LaneMode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            0 => Ok(Self::Shared),
            1 => Ok(Self::Reserved),
            2 => Ok(Self::Direct),
            _ => Err(serde::de::Error::custom("unknown lane mode")),
        }
    }
}

/// What a channel key signs to grant a lane. 122 bytes as a preimage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneGrant {
    /// The channel.
    pub channel: ChannelId,
    /// Its number in the channel; each grant's is one above the last.
    pub lane: u32,
    /// Signature scheme of `key`: 0.
    pub scheme: u8,
    /// The lane key: signs heads.
    pub key: PublicKey,
    /// How it takes part in the capacity.
    pub mode: LaneMode,
    /// The only payee, or any (zeros).
    pub payee: Option<AccountId>,
    /// Most it may spend: in its life, or in a period.
    pub limit: Amount,
    /// Seconds of a period; 0 when the limit is for life.
    pub period: u32,
    /// No payment is taken from this time on.
    pub expires_at: Time,
}

impl LaneGrant {
    /// What every lane 0 has in common; its channel and its key are zeros here.
    pub const LANE_ZERO: Self = Self {
        channel: ChannelId::ZERO,
        lane: 0,
        scheme: SCHEME_BIP340,
        key: PublicKey::ZERO,
        mode: LaneMode::Shared,
        payee: None,
        limit: Amount::MAX,
        period: 0,
        expires_at: Time::MAX,
    };

    /// `lane_id = H("weir/lane", grant)`: also what the channel key signs, and the lane's first state.
    pub fn id(&self) -> LaneId {
        let hash = Fixed::<122>::new()
            .put(&self.channel.0)
            .u32(self.lane)
            .put(&[self.scheme])
            .put(&self.key.0)
            .put(&[self.mode.code()])
            .put(self.payee.unwrap_or(AccountId::ZERO).as_bytes())
            .u64(self.limit.nanos())
            .u32(self.period)
            .u64(self.expires_at.0);
        LaneId(hash.hash(&tag::LANE).0)
    }

    /// Refusals that need no state: scheme, mode, the key itself, and a reserved lane with a period.
    pub fn check(&self) -> Result<(), Reject> {
        if self.scheme != SCHEME_BIP340 || self.mode == LaneMode::Direct {
            return Err(Reject::Unsupported);
        }
        let zero_payee = self.payee.is_some_and(|payee| payee.0.is_zero());
        if zero_payee || self.key.parse().is_err() || (self.mode == LaneMode::Reserved && self.period != 0) {
            return Err(Reject::Malformed);
        }
        Ok(())
    }

    /// Which period of the lane a time falls into: `max(0, time − opened_at) ÷ (1000 · period)`; 0 without periods.
    pub const fn period_at(&self, opened_at: Time, time: Time) -> u64 {
        period_at(self.period, opened_at, time)
    }

    /// When period number `k` begins.
    pub const fn period_start(&self, opened_at: Time, k: u64) -> Time {
        period_start(self.period, opened_at, k)
    }
}

/// [`LaneGrant::period_at`] for a period of so many seconds.
pub(crate) const fn period_at(seconds: u32, opened_at: Time, time: Time) -> u64 {
    if seconds == 0 {
        return 0;
    }
    time.0.saturating_sub(opened_at.0) / (1000 * seconds as u64)
}

/// [`LaneGrant::period_start`] for a period of so many seconds.
pub(crate) const fn period_start(seconds: u32, opened_at: Time, k: u64) -> Time {
    opened_at.plus_ms(k.saturating_mul(1000 * seconds as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn period_counts_from_opening_and_never_before_it() {
        let grant = LaneGrant {
            channel: ChannelId::ZERO,
            lane: 1,
            scheme: 0,
            key: PublicKey::ZERO,
            mode: LaneMode::Shared,
            payee: None,
            limit: Amount::from_nanos(1),
            period: 60,
            expires_at: Time::MAX,
        };
        let opened = Time(1_000_000);
        assert_eq!(grant.period_at(opened, Time(0)), 0);
        assert_eq!(grant.period_at(opened, Time(1_059_999)), 0);
        assert_eq!(grant.period_at(opened, Time(1_060_000)), 1);
        assert_eq!(grant.period_start(opened, 1), Time(1_060_000));
    }
}
