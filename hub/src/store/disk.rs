//! The store on a real disk: journal, ids and snapshots of one data directory, under its lock.
//!
//! It owns the order of things: what is derived follows the journal, never the other way round, and nothing derived may
//! delay or fail an append. What follows a sealed segment is done by a thread of its own.

use std::{
    io::{self, Write},
    ops::ControlFlow,
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
};

use super::{
    Cut, DirectoryLock, Durable, Entry, Position, Snapshot, Store, StoreError,
    files::{self, At},
    ids::Ids,
    index::Index,
    journal::{Journal, JournalOptions, JournalReader},
    snapshot::Snapshots,
};

/// A hub's store on disk.
#[derive(Debug)]
pub struct DiskStore {
    journal: Journal,
    ids: Ids,
    snapshots: Snapshots,
    index: SharedIndex,
    followers: Option<JoinHandle<()>>,
    _lock: DirectoryLock,
}

type SharedIndex = Arc<Mutex<Option<Arc<Index>>>>;

impl DiskStore {
    /// Takes the lock of `data`, recovers the journal and brings the ids in line with it.
    ///
    /// A snapshot raises `options.floor`: it proves that its commit was durable. The caller raises it to the anchor's
    /// number, if the anchor is this hub's.
    pub fn open(data: &Path, options: JournalOptions) -> Result<Self, StoreError> {
        files::create_directory(data)?;
        let lock = DirectoryLock::take(data)?;
        let snapshots = Snapshots::new(data.join("snapshots"));
        let snapshot = snapshots.numbers()?.last().copied().unwrap_or(0);
        let mut journal =
            Journal::open(&data.join("journal"), JournalOptions { floor: options.floor.max(snapshot), ..options })?;
        let last = journal.last().map_or(0, |last| last.number);
        if last < snapshot {
            return Err(StoreError::BehindSnapshot { last, snapshot });
        }
        let ids = Ids::open(&data.join("ids"), &journal.reader())?;
        let (sender, sealed) = mpsc::channel();
        journal.tell_sealed(sender);
        let index = SharedIndex::default();
        let followers = {
            let (reader, ids, index) = (journal.reader(), ids.clone(), Arc::clone(&index));
            std::thread::Builder::new()
                .name("journal-follow".to_owned())
                .spawn(move || follow(&sealed, &reader, &ids, &index))
                .at("start a thread for", data)?
        };
        Ok(Self { journal, ids, snapshots, index, followers: Some(followers), _lock: lock })
    }

    /// A reader that sees durable commits only; for any thread.
    pub fn reader(&self) -> JournalReader {
        self.journal.reader()
    }

    /// The ids of all durable commits; for any thread.
    pub fn ids(&self) -> Ids {
        self.ids.clone()
    }

    /// The snapshots: for writing one on another thread, at a position known to be durable.
    pub fn snapshots(&self) -> Snapshots {
        self.snapshots.clone()
    }

    /// Keeps `index` up to date from now on: it follows when a segment is sealed.
    pub fn attach_index(&self, index: Arc<Index>) {
        *self.index.lock().unwrap_or_else(PoisonError::into_inner) = Some(index);
    }

    /// Deletes the sealed segments of which every commit is below `number`; returns how many went. There must be a
    /// snapshot at or after the last commit that goes; the older of two snapshots counts, so that one may be damaged.
    pub fn prune_before(&mut self, number: u64) -> Result<u64, StoreError> {
        let spans = self.journal.reader().segments()?;
        let sealed = spans.iter().filter_map(|span| span.last);
        let Some(last) = sealed.take_while(|last| *last < number).last() else {
            return Ok(0);
        };
        let kept = self.snapshots.numbers()?.first().copied().unwrap_or(0);
        let whole = self.snapshots.load()?.map_or(0, |snapshot| snapshot.position.number);
        if kept < last || whole < last {
            return Err(StoreError::SnapshotMissing { number: last });
        }
        self.ids.sync()?;
        let pruned = self.journal.prune_before(last + 1)?;
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(index) = index {
            index.forget_before(last + 1);
        }
        Ok(pruned)
    }
}

impl Store for DiskStore {
    fn append(&mut self, epoch: u64, position: Position, payload: &[u8]) -> Result<Durable, StoreError> {
        let durable = self.journal.append(epoch, position, payload)?;
        self.ids.push(position);
        Ok(durable)
    }

    fn last(&self) -> Option<Position> {
        self.journal.last()
    }

    fn cut(&self) -> Option<Cut> {
        self.journal.cut()
    }

    fn snapshot(
        &mut self,
        position: Position,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        if self.last().is_none_or(|last| position.number > last.number) {
            return Err(StoreError::NotDurable { number: position.number });
        }
        self.snapshots.write(position, write)
    }

    fn load(&mut self) -> Result<Option<Snapshot>, StoreError> {
        self.snapshots.load()
    }

    fn scan(&self, from_number: u64, each: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.journal.reader().scan(from_number, each)
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        // Ends the thread, and with it its hold on files of the directory, before the lock goes.
        self.journal.tell_nobody();
        if let Some(followers) = self.followers.take() {
            let _ = followers.join();
        }
    }
}

/// Brings up to date what is derived from a segment, whenever one is sealed.
fn follow(sealed: &mpsc::Receiver<u64>, reader: &JournalReader, ids: &Ids, index: &SharedIndex) {
    while let Ok(first) = sealed.recv() {
        if let Err(error) = ids.sync() {
            tracing::warn!(%error, "commit ids are not synced; segments will not be pruned");
        }
        if let Err(error) = reader.write_offsets(first) {
            tracing::warn!(%error, first, "no file of offsets for a sealed segment");
        }
        let index = index.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(index) = index
            && let Err(error) = index.catch_up()
        {
            tracing::warn!(%error, "the read index cannot follow the journal");
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use std::os::unix::fs::FileExt;

    use tempfile::TempDir;

    use super::*;

    const SMALL: JournalOptions = JournalOptions { segment_bytes: 8192, floor: 0, skip_sync: false };

    fn append(store: &mut DiskStore, number: u64) -> Position {
        let position = Position { chain: 4, number, id: [number as u8; 32] };
        store.append(4, position, b"content").unwrap().position()
    }

    #[test]
    fn store_opened_twice_is_locked() {
        let directory = TempDir::new().unwrap();
        let store = DiskStore::open(directory.path(), SMALL).unwrap();
        assert!(matches!(DiskStore::open(directory.path(), SMALL), Err(StoreError::Locked { .. })));
        drop(store);
        DiskStore::open(directory.path(), SMALL).unwrap();
    }

    #[test]
    fn snapshot_proves_that_its_commit_was_durable() {
        let directory = TempDir::new().unwrap();
        let mut store = DiskStore::open(directory.path(), SMALL).unwrap();
        append(&mut store, 1);
        let last = append(&mut store, 2);
        let beyond = Position { number: 3, ..last };
        assert!(matches!(store.snapshot(beyond, &mut |_| Ok(())), Err(StoreError::NotDurable { number: 3 })));
        store.snapshot(last, &mut |out| out.write_all(b"state")).unwrap();
        drop(store);
        let segment = directory.path().join("journal/00000000000000000001.seg");
        let file = std::fs::OpenOptions::new().write(true).open(segment).unwrap();
        // Record 2 begins at 4096 + 112.
        file.write_all_at(b"!", 4096 + 112 + 106).unwrap();
        assert!(matches!(
            DiskStore::open(directory.path(), SMALL),
            Err(StoreError::CutBelowFloor { number: 2, floor: 2 })
        ));
        file.write_all_at(&[0; 112], 4096 + 112).unwrap();
        assert!(matches!(
            DiskStore::open(directory.path(), SMALL),
            Err(StoreError::BehindSnapshot { last: 1, snapshot: 2 })
        ));
    }
}
