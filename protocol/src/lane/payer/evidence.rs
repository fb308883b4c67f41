//! What a lane keeps when the hub contradicts itself or the lane's own signatures: enough to show it to a third party.

use serde::{Deserialize, Serialize};

use super::group::PaidGroup;
use super::proofs::CommitFault;
use crate::act::{Close, Void};
use crate::commit::{ActProof, Answer};
use crate::id::{ChannelId, HubId, LaneId};
use crate::keys::{PublicKey, Signature};
use crate::payment::Head;
use crate::wire::{Attached, ClosedLane, HistoryGroup};

/// Why sequences of a lane are given up for ever: what makes a "no" final.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finality {
    /// A committed void.
    Void {
        /// The void.
        void: Void,
        /// Its place in its commit.
        proof: ActProof,
    },
    /// The channel's close.
    Close {
        /// The close.
        close: Close,
        /// Its place in its commit.
        proof: ActProof,
    },
}

/// What does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Contradiction {
    /// A commit is not signed by the hub, or one of two with the same number.
    #[error("commit: {0}")]
    Commit(CommitFault),
    /// A path does not lead to the commit, or the act there is another.
    #[error("the proof does not lead to the signed commit")]
    Path,
    /// An answer does not follow the payments that wait for one, or does not end with one of the frames.
    #[error("the answer does not fit the payments that were sent")]
    Answer,
    /// The root of the leaves is not that of the payments.
    #[error("the hub signed other payments than were made")]
    Leaves,
    /// A void or close is of another lane, another head, or gives up less than was asked.
    #[error("the void does not fit the lane or what was asked")]
    Void,
    /// The head is in a range that an earlier void had given up for ever.
    #[error("the hub took payments that it had given up for ever")]
    Voided,
    /// The head is not signed by the lane's key.
    #[error("the lane's head does not carry the lane key's signature")]
    HeadSignature,
    /// The head is behind payments that the hub had answered.
    #[error("the hub lost payments that it had answered")]
    Behind,
    /// A page of history does not continue the lane, or is missing.
    #[error("the lane's history does not lead to its head")]
    History,
}

/// What the hub said.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is the message of that name")]
pub enum Said {
    Answer(Box<Answer>),
    Attached(Box<Attached>),
    Closed(Box<ClosedLane>),
    History(Option<Box<HistoryGroup>>),
    Group(Box<PaidGroup>),
}

/// What the lane held when the hub said it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The newest head whose payments were all answered.
    pub answered: Head,
    /// The newest answer.
    pub answer: Option<Answer>,
    /// The newest void or close.
    pub finality: Option<Finality>,
    /// Heads that were signed and wait for an answer.
    pub signed: Vec<(Head, Signature)>,
    /// The highest sequence that may have been signed.
    pub used: u64,
}

/// A contradiction with both sides of it, serialisable.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Evidence {
    /// The hub.
    pub hub: HubId,
    /// The channel.
    pub channel: ChannelId,
    /// The lane.
    pub lane: LaneId,
    /// The lane's key.
    pub key: PublicKey,
    /// What does not fit.
    pub contradiction: Contradiction,
    /// What the hub said.
    pub said: Said,
    /// What the lane held.
    pub held: Held,
}
