//! What the hub keeps on disk, and the only way in which a commit becomes durable.
//!
//! The **journal** is the truth; a **snapshot** is the only checkpoint. The id file, the offset files and the read index
//! are derived from the journal and can be deleted at any time. The **anchor** lies outside the data directory and
//! reveals an old copy of it.
//!
//! To the store a commit is a [`Position`] and opaque bytes. It knows nothing of channels, money or signatures, and does
//! no work per payment. It must never say that a commit is durable before the disk has said so: [`Durable`] is made in
//! one place per store, after the sync, and nowhere else.

pub mod anchor;
pub mod disk;
mod error;
mod files;
pub mod ids;
pub mod index;
pub mod journal;
pub mod memory;
pub mod snapshot;

use std::{
    fmt,
    io::{self, Read, Write},
    ops::ControlFlow,
};

pub use error::StoreError;
pub use files::DirectoryLock;

/// Where a commit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The chain that it belongs to (DESIGN §4.5): never smaller than its predecessor's.
    pub chain: u64,
    /// Counts the process's kept commits from 1 without gaps, across its chains.
    pub number: u64,
    /// The commit's id.
    pub id: [u8; 32],
}

/// Proof that a commit is durable. Only a store makes one, after the sync; nothing that depends on the commit may be
/// said to anybody without it.
#[must_use = "what waits for this commit can be answered now"]
#[derive(Debug, PartialEq, Eq)]
pub struct Durable {
    position: Position,
}

impl Durable {
    /// The commit that is durable.
    pub fn position(&self) -> Position {
        self.position
    }
}

/// A commit as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// The id of the commit before it; zeros for commit 1.
    pub previous: [u8; 32],
    /// Its content, as given to [`Store::append`].
    pub payload: Vec<u8>,
}

/// A torn last write that was cut off when the store was opened. Nothing in it was ever acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The number that the torn commit would have had.
    pub number: u64,
    /// Bytes from the end of the last whole commit to the last byte that was not zero.
    pub bytes: u64,
}

/// A state that was kept.
pub struct Snapshot {
    /// The commit at which it was the state.
    pub position: Position,
    /// The bytes that were written, already known to be whole.
    pub state: Box<dyn Read + Send>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Snapshot").field("position", &self.position).finish_non_exhaustive()
    }
}

/// Durable storage of commits and of the state at a commit.
pub trait Store: Send {
    /// Makes one commit durable: one write and one data sync.
    ///
    /// `epoch` is the chain of the process that owns what the commit changes, and so the chain of `position`. An epoch
    /// older than one seen is refused ([`StoreError::Fenced`]), as is a number that is not the next one.
    ///
    /// When writing or syncing fails, the outcome is unknown until a restart, and every later append fails with
    /// [`StoreError::Poisoned`]; the sync is never tried again. [`StoreError::poisons`] tells such errors from those that
    /// wrote nothing.
    fn append(&mut self, epoch: u64, position: Position, payload: &[u8]) -> Result<Durable, StoreError>;

    /// The last durable commit.
    fn last(&self) -> Option<Position>;

    /// The torn tail that opening cut off, if any.
    fn cut(&self) -> Option<Cut>;

    /// Keeps the state at `position`, a durable commit, as `write` writes it out.
    fn snapshot(
        &mut self,
        position: Position,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), StoreError>;

    /// The newest whole snapshot.
    fn load(&mut self) -> Result<Option<Snapshot>, StoreError>;

    /// Hands out the durable commits from `from_number` on, in order, until the last one or until `each` breaks.
    fn scan(&self, from_number: u64, each: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<(), StoreError>;
}

/// Judges what every store must refuse before it writes anything.
fn check_append(last: Option<Position>, epoch: u64, position: Position) -> Result<(), StoreError> {
    let seen = last.map_or(0, |last| last.chain);
    if epoch < seen {
        return Err(StoreError::Fenced { epoch, seen });
    }
    if position.chain != epoch {
        return Err(StoreError::ForeignChain { chain: position.chain, epoch });
    }
    let expected = last.map_or(1, |last| last.number + 1);
    if position.number != expected {
        return Err(StoreError::OutOfOrder { expected, number: position.number });
    }
    Ok(())
}
