//! What can go wrong in a store, and what a caller may conclude from it.

use std::{io, path::PathBuf};

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {doing} `{path}`")]
    Io {
        /// A verb: `open`, `sync`.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Writing or syncing a commit failed. Whether it is on disk is known after a restart only.
    #[error("cannot make commit {number} durable in `{path}`")]
    Append {
        /// The commit.
        number: u64,
        /// The segment.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// An earlier append failed with its outcome unknown.
    #[error("the store is poisoned by an earlier failed write; restart to recover")]
    Poisoned,
    /// No new segment could be made. Nothing was written; the same append may be tried again when there is room.
    #[error("no room for a journal segment of {bytes} bytes at `{path}`")]
    NoSegment {
        /// Size of the segment that is needed.
        bytes: u64,
        /// Where it was to be.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The caller's epoch is older than one that has written already.
    #[error("epoch {epoch} is fenced off: epoch {seen} has taken over")]
    Fenced {
        /// The caller's.
        epoch: u64,
        /// The newest seen.
        seen: u64,
    },
    /// A commit of another chain than its owner's epoch.
    #[error("a commit of chain {chain} does not belong to epoch {epoch}")]
    ForeignChain {
        /// The commit's.
        chain: u64,
        /// The caller's.
        epoch: u64,
    },
    /// Commit numbers have no gaps.
    #[error("commit {number} is out of order: the next one is {expected}")]
    OutOfOrder {
        /// The next number.
        expected: u64,
        /// The number given.
        number: u64,
    },
    /// A commit's content is over its bound.
    #[error("a commit of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// Another process has the directory.
    #[error("`{path}` is locked: another hub is running on this data directory")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A commit that was durable cannot be read.
    #[error("commit {number} is damaged in `{path}` at byte {offset}: {what}")]
    Damaged {
        /// The first commit that cannot be read.
        number: u64,
        /// The segment.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was found.
        what: &'static str,
    },
    /// Cutting the torn tail would cut a commit that was durable.
    #[error("commit {number} is torn, but commit {floor} is known to have been durable")]
    CutBelowFloor {
        /// The torn commit.
        number: u64,
        /// The newest commit known from elsewhere (anchor, snapshot).
        floor: u64,
    },
    /// A snapshot is newer than the journal.
    #[error("the journal ends at commit {last}, before the snapshot at commit {snapshot}")]
    BehindSnapshot {
        /// Last commit of the journal, 0 if none.
        last: u64,
        /// The snapshot's.
        snapshot: u64,
    },
    /// The commit was pruned.
    #[error("commit {number} is pruned: the journal begins at commit {first}")]
    Pruned {
        /// The number asked for.
        number: u64,
        /// The first one kept.
        first: u64,
    },
    /// A commit that is not durable was named.
    #[error("commit {number} is not durable")]
    NotDurable {
        /// The commit.
        number: u64,
    },
    /// The ids of pruned commits are gone; they cannot be derived.
    #[error("`{path}` holds the ids of {held} commits, but the journal begins at commit {first}")]
    IdsLost {
        /// The id file.
        path: PathBuf,
        /// Ids in it.
        held: u64,
        /// First commit of the journal.
        first: u64,
    },
    /// Pruning must leave a snapshot to start from.
    #[error("cannot prune commit {number}: no whole snapshot at or after it")]
    SnapshotMissing {
        /// The last commit that would go.
        number: u64,
    },
    /// A snapshot of another version of this software. Before the first release, none is read but its own.
    #[error("snapshot `{path}` is whole, and of another format than this version writes")]
    SnapshotFormat {
        /// The file.
        path: PathBuf,
    },
    /// The anchor file cannot be believed.
    #[error("anchor `{path}` is damaged: {what}")]
    AnchorDamaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The read index failed; the journal is not affected.
    #[error("the read index failed: {what}")]
    Index {
        /// What it said.
        what: String,
    },
}

impl StoreError {
    /// True if nothing more may be acknowledged until a restart has recovered: the outcome of an append is unknown, or
    /// was unknown before it. False if the store stands as before.
    pub fn poisons(&self) -> bool {
        matches!(self, Self::Append { .. } | Self::Poisoned)
    }
}
