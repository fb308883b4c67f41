//! The simulated network: connections whose streams keep their order and nothing else does. A connection can be cut at
//! any time; each end notices at a time of its own, and what is under way may still arrive until then.

use std::collections::BTreeMap;

use weir_protocol::act::{Act, SignedAct};
use weir_protocol::commit::ActProof;
use weir_protocol::id::{AccountId, ChannelId, LaneId};
use weir_protocol::reject::Reject;
use weir_protocol::wire::{CreditMessage, Cursor, HistoryGroup, LaneReply, LaneRequest};

use super::random::Rng;

/// Who takes part, besides the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ActorId(pub usize);

/// A connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnId(pub u64);

/// A stream of a connection; 0 is the control stream.
pub(crate) type Stream = u64;

/// What a client says.
#[derive(Debug, Clone)]
pub(crate) enum ToHub {
    /// On a lane's stream.
    Lane {
        /// The stream.
        stream: Stream,
        /// The lane's channel: which shard it goes to.
        channel: ChannelId,
        /// The lane.
        lane: LaneId,
        /// The message.
        request: LaneRequest,
    },
    /// A lane's stream is closed.
    LaneGone {
        /// The stream.
        stream: Stream,
        /// Its lane's channel.
        channel: ChannelId,
        /// Its lane.
        lane: LaneId,
    },
    /// An act.
    Act {
        /// The request.
        id: u64,
        /// The act.
        signed: Box<SignedAct>,
    },
    /// A lane's history.
    History {
        /// The request.
        id: u64,
        /// The lane.
        lane: LaneId,
        /// The last sequence known.
        since: u64,
    },
    /// An account's credits.
    Subscribe {
        /// The stream.
        stream: Stream,
        /// The account.
        account: AccountId,
        /// After this commit.
        after: Cursor,
    },
}

/// What the hub says.
#[derive(Debug, Clone)]
pub(crate) enum ToClient {
    /// On a lane's stream.
    Lane {
        /// The stream.
        stream: Stream,
        /// The message.
        reply: LaneReply,
    },
    /// The act is done.
    Done {
        /// The request.
        id: u64,
        /// The act in the commit.
        act: Box<Act>,
        /// Its place.
        proof: Box<ActProof>,
    },
    /// The request is refused.
    Refused {
        /// The request.
        id: u64,
        /// Why.
        reject: Reject,
    },
    /// A page of history.
    History {
        /// The request.
        id: u64,
        /// The page.
        group: Option<Box<HistoryGroup>>,
    },
    /// Credits.
    Credit {
        /// The stream.
        stream: Stream,
        /// The message.
        message: Box<CreditMessage>,
    },
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Whose it is.
    pub(crate) owner: ActorId,
    /// The life of the hub that it was made to.
    pub(crate) life: u64,
    /// The hub's end is open.
    pub(crate) hub_open: bool,
    /// The client's end is open.
    pub(crate) client_open: bool,
    /// Nothing that is sent from now on arrives.
    pub(crate) cut: bool,
    /// When the last message of a stream arrives: to the hub, to the client.
    order: BTreeMap<(Stream, bool), u64>,
    /// This connection is slow by so much.
    slow_us: u64,
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Net {
    conns: BTreeMap<ConnId, Conn>,
    next: u64,
}

impl Net {
    /// A new connection; its ends open when the world says so.
    pub(crate) fn make(&mut self, owner: ActorId, life: u64, rng: &mut Rng) -> ConnId {
        self.next += 1;
        let id = ConnId(self.next);
        let slow_us = if rng.once_in(4) { rng.below(30_000) } else { rng.below(1_000) };
        let conn =
            Conn { owner, life, hub_open: false, client_open: false, cut: false, order: BTreeMap::new(), slow_us };
        self.conns.insert(id, conn);
        id
    }

    /// One connection.
    pub(crate) fn get(&self, id: ConnId) -> Option<&Conn> {
        self.conns.get(&id)
    }

    /// One connection.
    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(&id)
    }

    /// Connections whose hub's end is open.
    pub(crate) fn open_at_hub(&self) -> Vec<ConnId> {
        self.conns.iter().filter(|(_, conn)| conn.hub_open).map(|(id, _)| *id).collect()
    }

    /// When a message that is sent now arrives, if it does.
    pub(crate) fn arrival(
        &mut self,
        id: ConnId,
        stream: Stream,
        to_hub: bool,
        now_us: u64,
        rng: &mut Rng,
    ) -> Option<u64> {
        let conn = self.conns.get_mut(&id)?;
        if conn.cut {
            return None;
        }
        let delay = if rng.once_in(30) { rng.below(120_000) } else { rng.below(3_000) };
        let last = conn.order.entry((stream, to_hub)).or_default();
        *last = (now_us + 50 + conn.slow_us + delay).max(*last + 1);
        Some(*last)
    }
}
