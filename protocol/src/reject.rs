//! Refusals that a peer sees: stable codes, in their order of precedence, and what the client does next.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What the client does after a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// The request can never be taken: tell the caller.
    GiveUp,
    /// The same request may be taken later: wait, then send it again.
    Retry,
    /// The lane's stream is out of step: attach, read, go on.
    Attach,
    /// Something else must happen first (register, fund, prove a key; decide who holds a lane).
    First,
}

macro_rules! rejects {
    ($($(#[$meta:meta])* $name:ident = $code:literal, $text:literal, $reaction:ident;)*) => {
        /// Why something well formed is refused. The numbers are stable; a number once used is never given another
        /// meaning. Where several apply, the check that comes first in the tables of `README.md` ("Precedence") decides.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
        #[repr(u16)]
        pub enum Reject {
            $($(#[$meta])* #[error($text)] $name = $code,)*
        }

        impl Reject {
            /// Every refusal, by code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable number.
            pub const fn code(self) -> u16 {
                self as u16
            }

            /// The refusal with this number.
            pub const fn from_code(code: u16) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            /// The stable name, as in JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What the client does next.
            pub const fn reaction(self) -> Reaction {
                match self { $(Self::$name => Reaction::$reaction,)* }
            }
        }
    };
}

rejects! {
    /// The bytes do not decode, are not in their one canonical form, or a text breaks its limits.
    Malformed = 1, "message is malformed", GiveUp;
    /// Unknown request, version, scheme, mode or kind.
    Unsupported = 2, "not supported by this hub", GiveUp;
    /// The key that this needs has not been proven on this connection, or an act's signature is not its author's.
    Unauthenticated = 3, "the key for this has not been proven", First;
    /// A queue is full or a rate is exceeded.
    Busy = 4, "busy, try again shortly", Retry;
    /// The hub accepts nothing now: its store failed, or its clock left the monotonic one.
    Stopped = 5, "the hub has stopped accepting", Retry;
    /// An act with this number or a greater one was taken from this key.
    Stale = 6, "number is not above the last one taken", GiveUp;
    /// No such account.
    UnknownAccount = 7, "account is not registered", First;
    /// The account waits for the operator's approval.
    NotApproved = 8, "account is not approved yet", First;
    /// No such channel, or not of this account.
    UnknownChannel = 9, "no such channel", GiveUp;
    /// No such lane.
    UnknownLane = 10, "no such lane", GiveUp;
    /// The channel is closed.
    Closed = 11, "channel is closed", GiveUp;
    /// The lane was revoked.
    Revoked = 12, "lane is revoked", GiveUp;
    /// A newer stream attached the lane.
    Detached = 13, "another stream has attached this lane", First;
    /// The frame does not follow the lane's head.
    Conflict = 14, "frame does not follow the lane's head", Attach;
    /// The sequence does not grow, is voided, or skips too far.
    Sequence = 15, "sequence is voided or out of range", Attach;
    /// The deadline, the lane or the channel has expired.
    Expired = 16, "expired", GiveUp;
    /// Nothing cannot be paid.
    Zero = 17, "amount is zero", GiveUp;
    /// The lane pays another payee only.
    WrongPayee = 18, "lane is bound to another payee", GiveUp;
    /// The payee is not registered or not approved.
    UnknownPayee = 19, "payee is not registered with this hub", GiveUp;
    /// The payer's outgoing or the payee's incoming payments are frozen.
    Frozen = 20, "frozen by the operator", GiveUp;
    /// One payment is larger than the hub's policy allows.
    TooLarge = 21, "amount is above the hub's limit", GiveUp;
    /// A total would pass 2^64 − 1 nanos.
    Overflow = 22, "total overflows", GiveUp;
    /// The lane's limit would be passed.
    Limit = 23, "lane's limit is reached", GiveUp;
    /// The channel's capacity would be passed.
    Capacity = 24, "channel's capacity is reached", GiveUp;
    /// The signature over the head is not the lane key's.
    Signature = 25, "signature is wrong", Attach;
    /// The account has less than this takes.
    Insufficient = 26, "balance is insufficient", First;
    /// The hub does not serve this currency.
    Currency = 27, "currency is not served", GiveUp;
    /// `opened_at` is more than ten minutes from the hub's time.
    Clock = 28, "opened_at is too far from the hub's time", GiveUp;
    /// The id is taken.
    Exists = 29, "exists already", GiveUp;
    /// The channel has as many lanes as it may have.
    LanesFull = 30, "channel has no room for another lane", GiveUp;
    /// The lane number does not follow the last one.
    LaneNumber = 31, "lane number does not follow the last one", GiveUp;
    /// An amendment would lower the capacity or the expiry.
    Lower = 32, "capacity and expiry can only grow", GiveUp;
    /// No such payment, or not to this payee.
    UnknownPayment = 33, "no such payment", GiveUp;
    /// The refund is above the payment, or not above what was refunded.
    RefundAmount = 34, "refund does not fit the payment", GiveUp;
    /// The payment is older than the hub's refund period.
    RefundClosed = 35, "refund period is over", GiveUp;
    /// Older than what the hub keeps.
    Pruned = 36, "older than the hub keeps", GiveUp;
    /// The bank account number is not valid.
    Iban = 37, "bank account number is not valid", GiveUp;
}

impl Serialize for Reject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(self.name())
        } else {
            serializer.serialize_u16(self.code())
        }
    }
}

impl<'de> Deserialize<'de> for Reject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let name = String::deserialize(deserializer)?;
            Self::ALL.iter().copied().find(|reject| reject.name() == name)
        } else {
            Self::from_code(u16::deserialize(deserializer)?)
        }
        .ok_or_else(|| serde::de::Error::custom("unknown refusal"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_round_trip() {
        for (at, reject) in Reject::ALL.iter().enumerate() {
            assert_eq!(usize::from(reject.code()), at + 1);
            assert_eq!(Reject::from_code(reject.code()), Some(*reject));
        }
        assert_eq!(Reject::from_code(0), None);
    }
}
