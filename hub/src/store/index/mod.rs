//! The read index: which commits concern a lane, a payee, an account. Derived, and never asked about money.
//!
//! Sealed segments are indexed in sled, when they are sealed; the running one in memory, when somebody asks. Both know a
//! key by its first bytes, which leaves a commit of another key to be found about never; whoever asks looks at what he is
//! given. sled is
//! neither crash-safe without help nor able to notice every damage, so nothing here trusts it:
//!
//! - after each batch it is flushed *and* its file is synced by us; batches and values are small;
//! - one entry says how far it has followed the journal (number and id of the last commit) and sums up all others; it is
//!   written in the same batch as they are. When the index is opened, all entries are summed up anew. What does not agree
//!   with itself or with the journal is deleted and built again from the segments;
//! - its panics are caught; and when it cannot be used at all, every question is answered by reading the journal.
//!
//! Opening so costs time in proportion to the index, once a start.

mod recent;
mod sealed;

use std::{
    io,
    ops::ControlFlow,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use self::recent::Recent;
use self::sealed::{Applied, Candidate, Sealed};
use super::{Entry, StoreError, files::At, journal::JournalReader};

/// What commits are looked up by. The kinds are the caller's: lane, payee, account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexKey {
    /// The kind of thing.
    pub kind: u8,
    /// Which one: an id or a hash.
    pub key: [u8; 32],
}

/// Bytes of a key that are kept.
const SHORT_BYTES: usize = 13;

/// A key as it is kept: its first bytes, then its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Short([u8; SHORT_BYTES + 1]);

impl From<&IndexKey> for Short {
    fn from(key: &IndexKey) -> Self {
        let mut bytes = [0; SHORT_BYTES + 1];
        bytes[..SHORT_BYTES].copy_from_slice(&key.key[..SHORT_BYTES]);
        bytes[SHORT_BYTES] = key.kind;
        Self(bytes)
    }
}

/// Finds the keys of a commit in its payload.
#[derive(Clone, Copy, Debug)]
pub struct KeysOf {
    /// Raised whenever `find` finds other keys than before: an index made with another version is built again.
    pub version: u32,
    /// Keys may repeat, in any order.
    pub find: fn(payload: &[u8]) -> Vec<IndexKey>,
}

/// The read index of one journal; for any thread.
#[derive(Debug)]
pub struct Index {
    reader: JournalReader,
    keys_of: KeysOf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` when sled cannot be used: then the journal is read instead.
    sealed: Option<Sealed>,
    /// Keys of the commits after the last segment in `sealed`.
    open: Recent,
    /// The first commit that is in neither.
    next_number: u64,
}

/// How far the journal is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// To the end of the last sealed segment.
    Sealed,
    /// To the last durable commit.
    Everything,
}

impl Index {
    /// Opens the index at `path` and brings it up to date with the journal; deletes and builds it again when it is
    /// missing, damaged, behind by another history, or ahead. Fails only when the *journal* cannot be read.
    pub fn open(path: &Path, reader: JournalReader, keys_of: KeysOf) -> Result<Self, StoreError> {
        let mut sealed = None;
        match Sealed::open(path, keys_of.version) {
            Ok(opened) if opened.applied().fits(&reader)? => sealed = Some(opened),
            Ok(opened) => {
                opened.close();
                tracing::warn!("the read index does not fit the journal; building it again");
            }
            Err(_) if !path.exists() => tracing::debug!("there is no read index; building it"),
            Err(error) => tracing::warn!(%error, "the read index is damaged; building it again"),
        }
        if sealed.is_none() {
            let applied = Applied::nothing(keys_of.version, &reader)?;
            let created = Self::remove(path).and_then(|()| Sealed::create(path, applied));
            sealed = created
                .inspect_err(|error| {
                    tracing::warn!(%error, "no read index; reading the journal instead");
                })
                .ok();
        }
        let next_number = sealed.as_ref().map_or(1, |sealed| sealed.applied().next_number);
        let index = Self { reader, keys_of, state: Mutex::new(State { sealed, open: Recent::default(), next_number }) };
        index.follow(&mut index.lock(), Reach::Sealed)?;
        Ok(index)
    }

    /// Deletes the index at `path`, so that opening builds it again.
    pub fn remove(path: &Path) -> Result<(), StoreError> {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => std::fs::remove_file(path).at("remove", path),
            removed => removed.at("remove", path),
        }
    }

    /// Follows the journal through its last sealed segment. What comes after is read when somebody asks.
    pub fn catch_up(&self) -> Result<(), StoreError> {
        self.follow(&mut self.lock(), Reach::Sealed)
    }

    /// Hands out the commits from `from_number` on that have `key`, in order, until the last one or until `each` breaks. Some
    /// of another key may be among them.
    pub fn commits_of(
        &self,
        key: IndexKey,
        from_number: u64,
        each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let first = self.reader.first()?.unwrap_or(1);
        let from_number = from_number.max(first);
        let candidates = {
            let mut state = self.lock();
            self.follow(&mut state, Reach::Everything)?;
            state.candidates(key, from_number)
        };
        let Some(candidates) = candidates else {
            return self.read_span(key, from_number, u64::MAX, each).map(drop);
        };
        for candidate in candidates {
            let flow = match candidate {
                Candidate::Commit(number) => match self.reader.read(number)? {
                    Some(entry) => each(entry),
                    // Pruned while we were reading.
                    None => continue,
                },
                Candidate::Span { first, last } => self.read_span(key, first.max(from_number), last, each)?,
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Drops what it knows of commits before `number`, which were pruned.
    pub(super) fn forget_before(&self, number: u64) {
        self.lock().using(|sealed| sealed.forget_before(number));
    }

    fn read_span(
        &self,
        key: IndexKey,
        first: u64,
        last: u64,
        each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let mut flow = ControlFlow::Continue(());
        self.reader.scan(first, &mut |entry| {
            if entry.position.number > last {
                return ControlFlow::Break(());
            }
            if (self.keys_of.find)(&entry.payload).contains(&key) {
                flow = each(entry);
            }
            flow
        })?;
        Ok(flow)
    }

    fn follow(&self, state: &mut State, reach: Reach) -> Result<(), StoreError> {
        for span in self.reader.segments()? {
            if span.last.is_none() && reach == Reach::Sealed {
                continue;
            }
            let Some(applied) = state.sealed.as_ref().map(Sealed::applied) else {
                // Nothing to follow for: questions are answered from the journal.
                state.open = Recent::default();
                return Ok(());
            };
            if span.last.is_some_and(|last| last < applied.next_number) {
                continue;
            }
            let last = span.last.unwrap_or(u64::MAX);
            self.read_keys(state, last)?;
            if span.last.is_some() && state.next_number > last {
                let last_id = self.reader.previous_of(last + 1)?.unwrap_or_default();
                // A running segment may have been sealed, and the next one begun, while it was read: what belongs to the
                // next one stays.
                let keys = state.open.take_through(last);
                state.using(|sealed| sealed.apply(span.first, last, last_id, keys));
            }
        }
        Ok(())
    }

    /// Reads the keys of the commits that are not known yet, through commit `last`.
    fn read_keys(&self, state: &mut State, last: u64) -> Result<(), StoreError> {
        if state.next_number > last {
            return Ok(());
        }
        self.reader.scan(state.next_number, &mut |entry| {
            let number = entry.position.number;
            if number > last {
                return ControlFlow::Break(());
            }
            state.open.add(number, &(self.keys_of.find)(&entry.payload));
            state.next_number = number + 1;
            ControlFlow::Continue(())
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in `find` leaves the state behind the journal at worst: `next_number` moves after the keys.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Does something with the part in sled; gives that part up when it fails.
    fn using<T>(&mut self, act: impl FnOnce(&mut Sealed) -> Result<T, StoreError>) -> Option<T> {
        let sealed = self.sealed.as_mut()?;
        match act(sealed) {
            Ok(done) => Some(done),
            Err(error) => {
                tracing::warn!(%error, "the read index is given up; reading the journal instead");
                if let Some(sealed) = self.sealed.take() {
                    sealed.close();
                }
                None
            }
        }
    }

    /// Where commits from `from_number` on with `key` are; `None` if only the journal knows.
    fn candidates(&mut self, key: IndexKey, from_number: u64) -> Option<Vec<Candidate>> {
        let mut candidates = self.using(|sealed| sealed.candidates(key))?;
        candidates.extend(self.open.commits_of(key).map(Candidate::Commit));
        candidates.retain(|candidate| match candidate {
            Candidate::Commit(number) => *number >= from_number,
            Candidate::Span { last, .. } => *last >= from_number,
        });
        Some(candidates)
    }
}

#[cfg(test)]
mod tests;
