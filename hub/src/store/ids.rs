//! The ids of all commits from 1 on, for the history root and its proofs: the file `DATA/ids`, 32 bytes each, commit n at
//! byte 32 · (n − 1).
//!
//! Derived from the journal and repaired from it at start; synced when a segment is sealed and before one is pruned,
//! because ids of pruned commits cannot be derived any more. The file has no checksum: `history` in every commit is one.

use std::{
    fs::{File, OpenOptions},
    io,
    ops::{ControlFlow, Range},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Position, StoreError, files::At, journal::JournalReader};

const ID_BYTES: u64 = 32;

/// Ids by commit number. Clones share one file.
#[derive(Clone, Debug)]
pub struct Ids {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    file: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Ids in the file.
    written: u64,
    /// Ids after those that could not be written yet: a full disk must not stop the journal.
    pending: Vec<[u8; 32]>,
    sync_failed: bool,
}

impl Ids {
    /// Opens the id file, made if it is not there, and brings it in line with the journal.
    pub fn open(path: &Path, journal: &JournalReader) -> Result<Self, StoreError> {
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).at("open", path)?;
        let last = journal.last()?.map_or(0, |last| last.number);
        repair(&file, path, journal, last)?;
        Ok(Self::with(file, path, last))
    }

    /// Opens the id file read-only, as far as it goes.
    pub fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).at("open", path)?;
        let written = file.metadata().at("read", path)?.len() / ID_BYTES;
        Ok(Self::with(file, path, written))
    }

    fn with(file: File, path: &Path, written: u64) -> Self {
        let state = Mutex::new(State { written, pending: Vec::new(), sync_failed: false });
        Self { shared: Arc::new(Shared { path: path.to_owned(), file, state }) }
    }

    /// How many ids there are: the number of the last commit.
    pub fn count(&self) -> u64 {
        let state = self.lock();
        state.written + state.pending.len() as u64
    }

    /// The id of commit `number`, if there is one.
    pub fn id(&self, number: u64) -> Result<Option<[u8; 32]>, StoreError> {
        let next = number.saturating_add(1);
        Ok(self.read(number..next)?.first().copied())
    }

    /// The ids of the commits in `numbers`, as far as there are any.
    pub fn read(&self, numbers: Range<u64>) -> Result<Vec<[u8; 32]>, StoreError> {
        let state = self.lock();
        let count = state.written + state.pending.len() as u64;
        let start = numbers.start.max(1) - 1;
        let end = numbers.end.saturating_sub(1).min(count);
        let from_file = start..end.min(state.written);
        let mut ids = Vec::new();
        if !from_file.is_empty() {
            let bytes = (from_file.end - from_file.start) * ID_BYTES;
            let mut buffer = vec![0; bytes as usize];
            self.shared.file.read_exact_at(&mut buffer, start * ID_BYTES).at("read", &self.shared.path)?;
            let (chunks, _) = buffer.as_chunks();
            ids.extend_from_slice(chunks);
        }
        let pending = state.pending.iter().zip(state.written..);
        let wanted = pending.filter(|(_, at)| (start..end).contains(at));
        ids.extend(wanted.map(|(id, _)| *id));
        Ok(ids)
    }

    /// Adds the id of the commit after the last. A write that fails is tried again with the next one.
    pub(super) fn push(&self, position: Position) {
        let mut state = self.lock();
        let count = state.written + state.pending.len() as u64;
        debug_assert_eq!(position.number, count + 1, "ids have no gaps");
        state.pending.push(position.id);
        if let Err(error) = self.write_pending(&mut state)
            && state.pending.len() == 1
        {
            tracing::warn!(%error, path = %self.shared.path.display(), "cannot write commit ids; keeping them in memory");
        }
    }

    /// Makes all ids durable. After a failed sync every later one fails, too: the file is repaired at the next start.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.sync_failed {
            return Err(io::Error::other("an earlier sync failed")).at("sync", &self.shared.path);
        }
        self.write_pending(&mut state).at("write", &self.shared.path)?;
        drop(state);
        let synced = self.shared.file.sync_all();
        if synced.is_err() {
            self.lock().sync_failed = true;
        }
        synced.at("sync", &self.shared.path)
    }

    fn write_pending(&self, state: &mut State) -> io::Result<()> {
        let offset = state.written * ID_BYTES;
        self.shared.file.write_all_at(state.pending.as_flattened(), offset)?;
        state.written += state.pending.len() as u64;
        state.pending.clear();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change leaves the state whole.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes anew what may not have been synced: everything from the last but one segment on. What is older was synced when
/// that segment was begun; it is believed if it leads up to it, and derived again if not.
fn repair(file: &File, path: &Path, journal: &JournalReader, last: u64) -> Result<(), StoreError> {
    let held = file.metadata().at("read", path)?.len() / ID_BYTES;
    let spans = journal.segments()?;
    let first = spans.first().map_or(1, |span| span.first);
    let recent = spans.iter().rev().nth(1).map_or(first, |span| span.first);
    let mut from = recent.min(held + 1);
    if from < first || !follows(file, path, journal, from)? {
        from = first;
        if held + 1 < first || !follows(file, path, journal, first)? {
            return Err(StoreError::IdsLost { path: path.to_owned(), held, first });
        }
    }
    let mut ids = Vec::new();
    journal.scan(from, &mut |entry| {
        ids.push(entry.position.id);
        ControlFlow::Continue(())
    })?;
    file.write_all_at(ids.as_flattened(), (from - 1) * ID_BYTES).at("write", path)?;
    file.set_len(last * ID_BYTES).at("write", path)?;
    file.sync_all().at("sync", path)
}

/// Whether the id before commit `number` is the one that this commit follows.
fn follows(file: &File, path: &Path, journal: &JournalReader, number: u64) -> Result<bool, StoreError> {
    if number <= 1 {
        return Ok(true);
    }
    let Some(previous) = journal.previous_of(number)? else {
        return Ok(false);
    };
    let mut id = [0; 32];
    match file.read_exact_at(&mut id, (number - 2) * ID_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.at("read", path).map(|()| id == previous),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use tempfile::TempDir;

    use super::*;
    use crate::store::{
        Store,
        disk::DiskStore,
        journal::{JournalOptions, SEGMENT_BYTES_MIN},
    };

    fn open(directory: &Path) -> Result<DiskStore, StoreError> {
        DiskStore::open(directory, JournalOptions { segment_bytes: SEGMENT_BYTES_MIN, ..JournalOptions::default() })
    }

    fn id(number: u64) -> [u8; 32] {
        [number as u8; 32]
    }

    fn fill(store: &mut DiskStore, last: u64) {
        for number in store.last().map_or(0, |last| last.number) + 1..=last {
            let position = Position { chain: 1, number, id: id(number) };
            let _ = store.append(1, position, &[1; 400]).unwrap();
        }
    }

    fn check(ids: &Ids, last: u64) {
        assert_eq!(ids.count(), last);
        let expected: Vec<_> = (1..=last).map(id).collect();
        assert_eq!(ids.read(0..u64::MAX).unwrap(), expected);
        assert_eq!(ids.read(3..5).unwrap(), expected[2..4]);
        assert_eq!(ids.id(last).unwrap(), Some(id(last)));
        assert_eq!(ids.id(last + 1).unwrap(), None);
        assert_eq!(ids.id(0).unwrap(), None);
    }

    #[test]
    fn ids_are_repaired_from_the_journal_whatever_became_of_the_file() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("ids");
        let mut store = open(directory.path()).unwrap();
        fill(&mut store, 50);
        check(&store.ids(), 50);
        drop(store);
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole.len(), 1600);
        let recent_torn = [&whole[..1500], &[0; 100]].concat();
        let longer = [&whole[..], &[7; 70]].concat();
        for bytes in [&[][..], &whole[..33], &whole[..1599], &recent_torn, &longer, &[9; 1600]] {
            std::fs::write(&path, bytes).unwrap();
            check(&open(directory.path()).unwrap().ids(), 50);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn ids_of_pruned_commits_stay_and_their_loss_is_reported() {
        let directory = TempDir::new().unwrap();
        let mut store = open(directory.path()).unwrap();
        fill(&mut store, 50);
        let last = store.last().unwrap();
        assert!(matches!(store.prune_before(50), Err(StoreError::SnapshotMissing { .. })));
        store.snapshot(last, &mut |_| Ok(())).unwrap();
        assert!(store.prune_before(50).unwrap() > 1);
        drop(store);
        check(&open(directory.path()).unwrap().ids(), 50);
        std::fs::remove_file(directory.path().join("ids")).unwrap();
        assert!(matches!(open(directory.path()), Err(StoreError::IdsLost { held: 0, .. })));
    }
}
