//! What can go wrong, in families: the hub refused, the network or the disk failed, the caller misused something, or the
//! hub contradicts itself.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_protocol::act::SignedAct;
use weir_protocol::commit::{ProofError, SignedCommit};
use weir_protocol::id::{ChannelId, LaneId};
use weir_protocol::lane::payer::{CommitFault, Evidence, SubmitError};
use weir_protocol::reject::Reject;
use weir_protocol::wire::{CreditMessage, Cursor, DecodeError, Done};

/// Anything that a call can fail with.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Network or hub out of reach.
    #[error(transparent)]
    Infra(#[from] InfraError),
    /// The hub refused.
    #[error("refused by the hub: {0}")]
    Refused(Reject),
    /// The caller asked for something that cannot be.
    #[error(transparent)]
    Misuse(#[from] MisuseError),
    /// The hub contradicts itself or what this client holds. The file keeps both sides.
    #[error("the hub contradicts what it signed: {what}{}", .file.as_ref().map(|file| format!(", kept in `{}`", file.display())).unwrap_or_default())]
    Evidence {
        /// What does not fit.
        what: String,
        /// Where it is kept; none when the disk refused.
        file: Option<PathBuf>,
    },
    /// The home's files.
    #[error(transparent)]
    Home(#[from] HomeError),
}

impl Error {
    /// Whether the same call may be made again without doing anything twice.
    ///
    /// True for every failure of the network: acts are sent again byte for byte, and none works twice.
    pub const fn retry_is_safe(&self) -> bool {
        match self {
            Self::Infra(_) => true,
            Self::Refused(reject) => matches!(reject, Reject::Busy | Reject::Stopped),
            Self::Misuse(_) | Self::Evidence { .. } | Self::Home(_) => false,
        }
    }

    /// Whether the hub may have done what was asked although no answer came: look before doing anything else.
    pub const fn outcome_unknown(&self) -> bool {
        matches!(self, Self::Infra(InfraError::Unfinished { .. }))
    }
}

/// Network and transport.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InfraError {
    /// No connection could be made.
    #[error("cannot reach `{address}`: {cause}")]
    Unreachable {
        /// The address.
        address: String,
        /// Why.
        cause: String,
    },
    /// Something answers at the address, and it is not the hub that the address names.
    #[error("`{address}` is not the hub that it should be: {cause}")]
    WrongHub {
        /// The address.
        address: String,
        /// What did not fit.
        cause: ProofError,
    },
    /// The connection broke before the answer.
    #[error("connection to the hub was lost")]
    Lost,
    /// No answer in time.
    #[error("the hub did not answer in time")]
    Timeout,
    /// The hub sent what is not a message of the protocol.
    #[error("the hub broke the protocol: {0}")]
    Decode(#[from] DecodeError),
    /// The hub sent another kind of reply than was asked for.
    #[error("the hub broke the protocol: unexpected reply")]
    UnexpectedReply,
    /// An act was sent and no answer came: it may be done. The same call again is safe.
    #[error("no answer to `{act}`, it may have been done")]
    Unfinished {
        /// Which act.
        act: &'static str,
    },
}

/// The caller asked for something that cannot be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MisuseError {
    /// The home holds no such lane.
    #[error("no lane `{0}` in this home")]
    UnknownLane(LaneId),
    /// The home holds no such channel.
    #[error("no channel `{0}` in this home")]
    UnknownChannel(ChannelId),
    /// The home was opened beside another process: it can ask and receive, not pay.
    #[error("another process may hold this home: it was opened without its lock")]
    HomeShared,
    /// The home does not keep the certificate of an old commit. [`crate::Client::commit`] fetches it.
    #[error("the certificate of commit {0} is not kept: ask the hub for it")]
    NoCertificate(u64),
    /// Another client of this process drives the lane.
    #[error("lane `{0}` is in use by another client of this process")]
    LaneInUse(LaneId),
    /// The lane's channel is at another hub than the home's.
    #[error("lane is at another hub")]
    OtherHub,
    /// The client was shut down.
    #[error("client was shut down")]
    ShutDown,
}

/// The home's files.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HomeError {
    /// There is no home in this folder.
    #[error("`{0}` is not a home: run `weir init` first")]
    Missing(PathBuf),
    /// There is one already.
    #[error("`{0}` holds a home already")]
    Exists(PathBuf),
    /// Another process holds it.
    #[error("`{0}` is in use by another process")]
    Locked(PathBuf),
    /// A file cannot be read or written.
    #[error("cannot {verb} `{path}`: {cause}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: Arc<std::io::Error>,
    },
    /// A file holds something else than it should.
    #[error("`{path}` is damaged: {cause}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A key cannot be opened: wrong passphrase, or another sealer.
    #[error("key `{path}` cannot be opened: {cause}")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: String,
    },
}

/// Why a payment has no outcome at all. Nothing was signed for it by this call.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PayError {
    /// The order cannot be.
    #[error(transparent)]
    Order(#[from] SubmitError),
    /// The lane does nothing more by itself.
    #[error("lane has stopped: {0}")]
    Stopped(LaneStopped),
}

/// Why a lane does nothing more by itself.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LaneStopped {
    /// Another process attached it.
    #[error("another process uses this lane's key")]
    Detached,
    /// The hub holds a head that this home never made.
    #[error(
        "the hub holds payments that this home never made: a newer copy of it, or another holder of the lane's key (sequence {sequence})"
    )]
    NewerCopy {
        /// The sequence of the hub's head.
        sequence: u64,
    },
    /// The hub refuses to attach it.
    #[error("the hub refuses to attach it: {0}")]
    Attach(Reject),
    /// The hub contradicts itself.
    #[error("the hub contradicts what it signed: {what}")]
    Evidence {
        /// What does not fit.
        what: String,
        /// Where both sides are kept; none when the disk refused.
        file: Option<PathBuf>,
    },
    /// The home's files failed: what the lane must keep cannot be kept.
    #[error(transparent)]
    Home(HomeError),
    /// The client was shut down.
    #[error("client was shut down")]
    ShutDown,
}

/// A contradiction of the hub, as it is kept in the home's `evidence` folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HubEvidence {
    /// About a lane.
    Lane(Box<Evidence>),
    /// The hub's newest commit is behind one that it signed: it lost what it had acknowledged.
    RolledBack {
        /// What it signed before.
        held: SignedCommit,
        /// What it calls its newest.
        newest: Cursor,
    },
    /// An act was answered with a proof that does not hold.
    Act {
        /// What was asked.
        asked: Box<SignedAct>,
        /// What was answered.
        answered: Box<Done>,
        /// What does not fit.
        fault: String,
    },
    /// A credit that its commit does not prove.
    Credit {
        /// The commit sent before it, if any.
        commit: Option<SignedCommit>,
        /// The message.
        message: Box<CreditMessage>,
        /// What does not fit.
        fault: String,
    },
    /// A commit that does not hold, or one of two with the same number.
    Commit {
        /// The commit.
        commit: SignedCommit,
        /// What does not fit.
        fault: CommitFault,
    },
}
