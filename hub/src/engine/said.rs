//! What the hub says to somebody. Built by the engine, spoken by the server; whatever depends on a commit is let out only
//! once that commit is durable.

use std::sync::Arc;

use weir_protocol::act::Close;
use weir_protocol::amount::Currency;
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, ChannelId, LaneId};
use weir_protocol::keys::Signature;
use weir_protocol::merkle::Path;
use weir_protocol::payment::Head;
use weir_protocol::reject::Reject;
use weir_protocol::wire::{Attached, ChannelInfo, LaneInfo, LaneReply};

use super::record::Proven;

/// Something said to one client.
#[derive(Debug, Clone)]
pub enum Said {
    /// A group of the lane was taken.
    Taken {
        /// The commit.
        commit: Arc<Proven>,
        /// The group's index.
        index: u32,
    },
    /// The lane is attached.
    Attached {
        /// The commit of the void.
        commit: Arc<Proven>,
        /// The void's index.
        index: u32,
        /// The lane's head.
        head: Head,
        /// Its signature.
        signature: Option<Signature>,
    },
    /// The lane's channel is closed: the journal has the proof.
    LaneClosed {
        /// The close.
        close: Close,
        /// The lane's last head.
        head: Head,
        /// Its signature.
        signature: Option<Signature>,
        /// From that head to the close's root of heads.
        path: Path,
    },
    /// A frame was refused; nothing was kept.
    Hint {
        /// Why.
        reject: Reject,
        /// The sequence at fault, or 0.
        fault: u64,
    },
    /// The peer sends bad signatures on purpose: drop it.
    Hangup,
    /// An act is done.
    Done {
        /// The commit.
        commit: Arc<Proven>,
        /// The act's index.
        index: u32,
    },
    /// The act was done before: the journal has the proof.
    Again(Again),
    /// A request is refused.
    Refused(Reject),
    /// An answer to a question.
    Facts(Box<Facts>),
}

/// Where to look for an act that was done before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// The act's digest.
    pub digest: Hash,
    /// What it is indexed under.
    pub about: About,
}

/// What an act is about: the key of the read index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// An account.
    Account(AccountId),
    /// A channel.
    Channel(ChannelId),
    /// A lane.
    Lane(LaneId),
}

/// A question to a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    /// A channel.
    Channel(ChannelId),
    /// A lane and its channel.
    Lane(LaneId),
    /// Lanes of a channel from a number on.
    Lanes {
        /// The channel.
        channel: ChannelId,
        /// The first number wanted.
        from: u32,
    },
    /// Channels of an account, or of all, above an id.
    Channels {
        /// Whose; `None`: everybody's.
        account: Option<AccountId>,
        /// Only ids above this one.
        after: Option<ChannelId>,
        /// How many at most.
        limit: usize,
    },
}

/// A shard's answer to a question.
#[derive(Debug, Clone)]
pub enum Facts {
    /// A channel.
    Channel(ChannelInfo),
    /// A lane and its channel.
    Lane {
        /// The channel.
        channel: ChannelId,
        /// Whose.
        account: AccountId,
        /// Its currency.
        currency: Currency,
        /// The lane.
        lane: LaneInfo,
    },
    /// Lanes.
    Lanes(Vec<LaneInfo>),
    /// Channels.
    Channels(Vec<ChannelInfo>),
}

impl Said {
    /// The message for a lane's stream, where everything needed is at hand; `None` for what is not said there or needs
    /// the journal.
    pub fn lane_reply(&self) -> Option<LaneReply> {
        match self {
            Self::Taken { commit, index } => commit.answer(*index).map(|answer| LaneReply::Taken(Box::new(answer))),
            Self::Attached { commit, index, head, signature } => {
                let proof = commit.act_proof(*index)?;
                let weir_protocol::act::Act::Void(void) = commit.act(*index)?.act else { return None };
                let attached = Attached { void, head: *head, signature: *signature, proof };
                Some(LaneReply::Attached(Box::new(attached)))
            }
            Self::Hint { reject, fault } => Some(LaneReply::Refused { reject: *reject, fault: *fault }),
            _ => None,
        }
    }
}
