//! What the store refuses, and what can break it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_protocol::amount::{Amount, Time};
use weir_protocol::id::PaymentId;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BalanceError {
    /// Another process, or another part of this one, has it open.
    #[error("balance store `{}` is in use by another gate: stop that one first, or give this one a store of its own", .0.display())]
    Held(PathBuf),
    /// The file system refused.
    #[error("cannot {verb} `{}`: {cause}", .path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// The log cannot be trusted. Restore it from a copy; never delete it, it says what was drawn.
    #[error("balance log `{}` is damaged at byte {offset}: {what}", .path.display())]
    Damaged {
        /// The log.
        path: PathBuf,
        /// Where the damaged frame begins.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The log was written by a newer version.
    #[error("balance log `{}` has format {version}, this version knows 1: update this program", .path.display())]
    Version {
        /// The log.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
}

impl BalanceError {
    pub(super) fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Io { verb, path: path.to_owned(), cause }
    }
}

/// The store takes nothing more: a write failed, and what is on the disk is only known after a restart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the balance store takes nothing more until a restart: {0}")]
pub struct Closed(pub(super) Arc<str>);

/// A bound of [`Limits`](super::Limits) was reached. Trying again later is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many {what}: the limit is {limit}")]
pub struct TooMany {
    /// Of what.
    pub what: Bound,
    /// How many are allowed.
    pub limit: usize,
}

/// What there can be too many of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Balances.
    Balances,
    /// Requests remembered or under way.
    Draws,
    /// The same, of one balance.
    DrawsOfBalance,
    /// Open reservations.
    Open,
    /// Requests that wait for the outcome of the same request.
    Waiting,
    /// The same, for one request.
    WaitingForOne,
    /// Records that wait to be written.
    Queued,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Balances => "balances",
            Self::Draws => "requests remembered",
            Self::DrawsOfBalance => "requests remembered of one balance",
            Self::Open => "requests under way",
            Self::Waiting => "requests waiting for the same request's outcome",
            Self::WaitingForOne => "requests waiting for one request's outcome",
            Self::Queued => "records waiting to be written",
        })
    }
}

/// Why a receipt is not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShowError {
    /// The same payment was registered with other facts. The hub signs a payment once, so one of the two was not checked.
    #[error("payment `{0}` is known with other facts")]
    Differs(PaymentId),
    /// It was paid so long ago that the store may have used and forgotten it.
    #[error("the receipt is too old: payments from before {} ms are no longer known here", .taken_from.0)]
    TooOld {
        /// Payments from this time on are taken.
        taken_from: Time,
    },
    /// A bound.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// The store is closed.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Why nothing is reserved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// No receipt of this payment was shown.
    #[error("no receipt of payment `{0}` was shown")]
    Unknown(PaymentId),
    /// Not enough is left.
    #[error("`{left}` is left of the balance, `{asked}` is needed")]
    Insufficient {
        /// What can be reserved now.
        left: Amount,
        /// What other requests hold; some of it may come back.
        reserved: Amount,
        /// What was asked for.
        asked: Amount,
    },
    /// All of it was drawn or refunded.
    #[error("the balance is used up")]
    Spent {
        /// When this request's access ended, if it had one that is still remembered.
        over: Option<Time>,
    },
    /// A bound.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// The store is closed.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Why a reservation is not committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// More was used than reserved: a mistake of the caller. The reservation is released.
    #[error("`{used}` was used, only `{reserved}` was reserved")]
    MoreThanReserved {
        /// What was to be committed.
        used: Amount,
        /// What was reserved.
        reserved: Amount,
    },
    /// The store is closed; whether this draw counts is known after a restart.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Why credits are not noted, or a balance not made durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// No such balance.
    #[error("payment `{0}` is not known here")]
    Unknown(PaymentId),
    /// See [`ShowError::Differs`].
    #[error("payment `{0}` is known with other facts")]
    Differs(PaymentId),
    /// A bound.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// The store is closed.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Why nothing is taken for a refund, or a refund's end is not noted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefundError {
    /// No such balance.
    #[error("payment `{0}` is not known here")]
    Unknown(PaymentId),
    /// Its receipt was shown meanwhile.
    #[error("the receipt of payment `{0}` was shown meanwhile")]
    Shown(PaymentId),
    /// Nothing is free.
    #[error("nothing of payment `{payment_id}` can be refunded: `{reserved}` is held by requests under way")]
    NothingLeft {
        /// The payment.
        payment_id: PaymentId,
        /// What requests hold; some of it may come back.
        reserved: Amount,
    },
    /// There is no refund under way with this total.
    #[error("no refund of payment `{payment_id}` up to `{total}` is under way")]
    NotUnderWay {
        /// The payment.
        payment_id: PaymentId,
        /// The total that was named.
        total: Amount,
    },
    /// A bound.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// The store is closed.
    #[error(transparent)]
    Closed(#[from] Closed),
}
