//! What goes into a payer's lane and what comes out of it.

use std::sync::Arc;

use super::evidence::{Evidence, Finality};
use super::group::PaidGroup;
use crate::amount::{Amount, Currency, Time};
use crate::channel::{ChannelTerms, LaneGrant};
use crate::id::{AccountId, ChannelId, HubId, LaneId, Reference};
use crate::keys::PublicKey;
use crate::payment::{Head, MAX_PAYMENTS};
use crate::reject::Reject;
use crate::wire::ClosedLane;

/// Sequences that one durable write reserves.
pub const BLOCK: u64 = 1 << 20;

/// What a payer must know of its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneSpec {
    /// The hub.
    pub hub: HubId,
    /// The channel.
    pub channel: ChannelId,
    /// The lane.
    pub lane: LaneId,
    /// The lane's key.
    pub key: PublicKey,
    /// The channel's currency.
    pub currency: Currency,
    /// The only payee, or any.
    pub payee: Option<AccountId>,
}

impl LaneSpec {
    /// From what was signed.
    pub fn new(terms: &ChannelTerms, grant: &LaneGrant) -> Self {
        Self {
            hub: terms.hub,
            channel: grant.channel,
            lane: grant.id(),
            key: grant.key,
            currency: terms.currency,
            payee: grant.payee,
        }
    }
}

/// Where a lane's client left off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// Every sequence up to here may have been used: the last block's end that was made durable. 0 for a new lane.
    pub mark: u64,
    /// The newest head up to which the owner keeps every paid group; [`Head::empty`] when it keeps none.
    pub head: Head,
}

/// Bounds and habits of a lane's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sequences per durable reservation.
    pub block: u64,
    /// Frames signed and not answered.
    pub frames: usize,
    /// Payments signed and not answered.
    pub payments: usize,
    /// Payments in one frame; at most [`MAX_PAYMENTS`].
    pub frame_payments: usize,
    /// Payments to different payees are never in flight together, so that no group ties them to each other.
    pub unlinkable: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { block: BLOCK, frames: 64, payments: 16 * MAX_PAYMENTS, frame_payments: MAX_PAYMENTS, unlinkable: false }
    }
}

/// A payment that a caller wants made once. The reference is the idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Who is paid.
    pub payee: AccountId,
    /// How much; not zero.
    pub amount: Amount,
    /// What for.
    pub reference: Reference,
    /// Not taken from this time on.
    pub deadline: Option<Time>,
}

/// An order on its way. The same reference joins the same ticket until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Why an order is not even tried. Nothing was signed for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Nothing cannot be paid.
    #[error("amount is zero")]
    Zero,
    /// The lane pays another payee only.
    #[error("lane is bound to another payee")]
    WrongPayee,
    /// The reference stands for another payment: other payee or other amount.
    #[error("reference was used for another payment")]
    ReferenceTaken,
    /// Four billion orders wait already.
    #[error("lane has too many orders")]
    Full,
    /// The lane has stopped; the reason was told with [`Event::Stopped`].
    #[error("lane has stopped")]
    Stopped,
}

/// What a caller or the lane's owner must hear.
#[derive(Debug, Clone)]
pub enum Event {
    /// Payments were taken, durably. The owner keeps the group before it submits anything more.
    Paid {
        /// The payments and the hub's answer.
        group: Arc<PaidGroup>,
        /// The ticket of each payment of the group, by index; none for what an earlier process paid and nobody asks about.
        tickets: Vec<Option<Ticket>>,
    },
    /// Refused for good: it was never signed, or what was signed is given up for ever.
    Refused {
        /// The order.
        ticket: Ticket,
        /// Why.
        reject: Reject,
        /// What makes it final; none when it was never signed.
        proof: Option<Arc<Finality>>,
    },
    /// Nobody can say any more, or not now: it was signed and the lane stopped, or the hub no longer keeps the answer.
    /// The same reference may be submitted again and joins what is known.
    Unknown {
        /// The order.
        ticket: Ticket,
    },
    /// The lane stopped before the order was signed: nothing of it can ever be taken.
    Unsent {
        /// The order.
        ticket: Ticket,
    },
    /// The order's reference turned out to be that of another payment, made before.
    ReferenceTaken {
        /// The order.
        ticket: Ticket,
    },
    /// The lane does nothing more by itself.
    Stopped(Stop),
    /// The channel is closed; everything was answered.
    ClosedLane(Box<ClosedLane>),
}

/// Why a lane stopped.
#[derive(Debug, Clone)]
pub enum Stop {
    /// Another stream attached the lane, and it was not this process: two processes use one key.
    Detached,
    /// The hub holds a head, signed with the lane's key, that this home never made: another holder of the key, or a newer
    /// copy of this home. A person may decide to [`super::Payer::recover`].
    NewerCopy {
        /// The head that the hub holds.
        head: Head,
        /// Through which sequence a recovery gives up: nothing beyond it can have been taken.
        bound: u64,
    },
    /// The hub refuses to attach the lane.
    Attach(Reject),
    /// The hub contradicts itself or the lane's signatures.
    Evidence(Box<Evidence>),
}

/// The hub broke the order of messages; nothing is lost. Drop the connection and connect again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A message that nothing asked for.
    #[error("hub sent a message out of turn")]
    OutOfTurn,
    /// The lane's key is not proven on this connection.
    #[error("the lane's key is not proven on this connection")]
    NotProven,
    /// A history request was refused.
    #[error("history was refused: {0}")]
    History(Reject),
}
