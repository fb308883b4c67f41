//! A store without a disk, for simulation: deterministic, no I/O, and its failures are ordered by the test.
//!
//! It keeps what is synced apart from what is only written. Same rules as the journal's, by the same checks.

use std::{
    io::{self, Cursor, Read, Write},
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Cut, Durable, Entry, Position, Snapshot, Store, StoreError, check_append};

/// Snapshots kept, as on a real disk.
const SNAPSHOTS_KEPT: usize = 2;

/// What a crash leaves of the append whose sync failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedSync {
    /// Nothing.
    Lost,
    /// A part, which the next opening cuts off and reports.
    Torn,
    /// All of it: never acknowledged, and there all the same.
    Persisted,
}

/// The disk: outlives the stores opened on it. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    disk: Arc<Mutex<Disk>>,
}

/// A copy of what was synced at one moment, as a backup would be.
#[derive(Clone, Debug, Default)]
pub struct MemoryCopy {
    entries: Vec<Arc<Entry>>,
    snapshots: Vec<(Position, Arc<Vec<u8>>)>,
    cut: Option<Cut>,
}

#[derive(Debug, Default)]
struct Disk {
    synced: MemoryCopy,
    unsynced: Option<(Arc<Entry>, FailedSync)>,
    /// Ordered for the next append.
    fail_next: Option<FailedSync>,
    fail_next_snapshot: bool,
    /// Which opening may write; an older store is a process that has died.
    generation: u64,
    open: bool,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a store on it, as a starting process does. Refused while another store is open and has not crashed.
    pub fn open(&self) -> Result<MemoryStore, StoreError> {
        let mut disk = self.lock();
        if disk.open {
            return Err(StoreError::Locked { path: "memory".into() });
        }
        disk.settle();
        disk.open = true;
        disk.generation += 1;
        Ok(MemoryStore {
            disk: self.clone(),
            generation: disk.generation,
            last: disk.synced.entries.last().map(|entry| entry.position),
            cut: disk.synced.cut.take(),
            poisoned: false,
        })
    }

    /// The process dies and the power fails: what was not synced goes, unless the order for its failing sync says
    /// otherwise. A store opened before fails from now on.
    pub fn crash(&self) {
        let mut disk = self.lock();
        disk.settle();
        disk.open = false;
        disk.generation += 1;
    }

    /// Orders the sync of the next append to fail, and says what a crash then leaves of it.
    pub fn fail_next_sync(&self, outcome: FailedSync) {
        self.lock().fail_next = Some(outcome);
    }

    /// Orders the next snapshot to fail; the older ones stay.
    pub fn fail_next_snapshot(&self) {
        self.lock().fail_next_snapshot = true;
    }

    /// What is synced now.
    pub fn copy(&self) -> MemoryCopy {
        self.lock().synced.clone()
    }

    /// Puts an old copy in the place of what is there: a rollback. Implies a crash.
    pub fn restore(&self, copy: &MemoryCopy) {
        self.crash();
        self.lock().synced = copy.clone();
    }

    /// The last synced commit.
    pub fn last(&self) -> Option<Position> {
        self.lock().synced.entries.last().map(|entry| entry.position)
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        // A panicking test still wants to look at the disk.
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    /// Decides what becomes of the unsynced write.
    fn settle(&mut self) {
        match self.unsynced.take() {
            Some((entry, FailedSync::Persisted)) => self.synced.entries.push(entry),
            Some((entry, FailedSync::Torn)) => {
                self.synced.cut =
                    Some(Cut { number: entry.position.number, bytes: entry.payload.len() as u64 / 2 + 1 });
            }
            Some((_, FailedSync::Lost)) | None => {}
        }
    }
}

/// A store on a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryStore {
    disk: MemoryDisk,
    generation: u64,
    last: Option<Position>,
    cut: Option<Cut>,
    poisoned: bool,
}

impl MemoryStore {
    /// The disk, unless this store's process has died.
    fn disk(&self) -> Result<MutexGuard<'_, Disk>, StoreError> {
        let disk = self.disk.lock();
        if disk.generation == self.generation { Ok(disk) } else { Err(StoreError::Poisoned) }
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        if let Ok(mut disk) = self.disk() {
            disk.open = false;
        }
    }
}

impl Store for MemoryStore {
    fn append(&mut self, epoch: u64, position: Position, payload: &[u8]) -> Result<Durable, StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        check_append(self.last, epoch, position)?;
        let mut disk = self.disk()?;
        let entry = Arc::new(Entry {
            position,
            previous: self.last.map_or([0; 32], |last| last.id),
            payload: payload.to_vec(),
        });
        if let Some(outcome) = disk.fail_next.take() {
            disk.unsynced = Some((entry, outcome));
            drop(disk);
            self.poisoned = true;
            return Err(StoreError::Append {
                number: position.number,
                path: "memory".into(),
                source: io::Error::other("ordered to fail"),
            });
        }
        disk.synced.entries.push(entry);
        drop(disk);
        self.last = Some(position);
        Ok(Durable { position })
    }

    fn last(&self) -> Option<Position> {
        self.last
    }

    fn cut(&self) -> Option<Cut> {
        self.cut
    }

    fn snapshot(
        &mut self,
        position: Position,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        if self.last.is_none_or(|last| position.number > last.number) {
            return Err(StoreError::NotDurable { number: position.number });
        }
        let failed = |source| StoreError::Io { doing: "write", path: "memory".into(), source };
        let mut state = Vec::new();
        write(&mut state).map_err(failed)?;
        let mut disk = self.disk()?;
        if std::mem::take(&mut disk.fail_next_snapshot) {
            return Err(failed(io::Error::other("ordered to fail")));
        }
        let snapshots = &mut disk.synced.snapshots;
        snapshots.retain(|(kept, _)| kept.number < position.number);
        snapshots.push((position, Arc::new(state)));
        let surplus = snapshots.len().saturating_sub(SNAPSHOTS_KEPT);
        snapshots.drain(..surplus);
        Ok(())
    }

    fn load(&mut self) -> Result<Option<Snapshot>, StoreError> {
        let newest = self.disk()?.synced.snapshots.last().cloned();
        Ok(newest.map(|(position, state)| {
            let state: Box<dyn Read + Send> = Box::new(Cursor::new(state.as_ref().clone()));
            Snapshot { position, state }
        }))
    }

    fn scan(&self, from_number: u64, each: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<(), StoreError> {
        let skip = usize::try_from(from_number.max(1) - 1).unwrap_or(usize::MAX);
        let entries: Vec<_> = self.disk()?.synced.entries.iter().skip(skip).cloned().collect();
        for entry in entries {
            if each(entry.as_ref().clone()).is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use super::*;

    fn position(number: u64) -> Position {
        Position { chain: 1, number, id: [number as u8; 32] }
    }

    fn count(store: &MemoryStore) -> u64 {
        let mut count = 0;
        let mut each = |_| {
            count += 1;
            ControlFlow::Continue(())
        };
        store.scan(1, &mut each).unwrap();
        count
    }

    #[test]
    fn append_whose_sync_fails_poisons_and_leaves_what_was_ordered() {
        for (outcome, left, cut) in
            [(FailedSync::Lost, 1, false), (FailedSync::Torn, 1, true), (FailedSync::Persisted, 2, false)]
        {
            let disk = MemoryDisk::new();
            let mut store = disk.open().unwrap();
            let _ = store.append(1, position(1), b"a").unwrap();
            disk.fail_next_sync(outcome);
            assert!(store.append(1, position(2), b"b").unwrap_err().poisons());
            assert!(matches!(store.append(1, position(2), b"b"), Err(StoreError::Poisoned)));
            assert_eq!(count(&store), 1);
            disk.crash();
            let store = disk.open().unwrap();
            assert_eq!(store.last(), Some(position(left)));
            assert_eq!(count(&store), left);
            assert_eq!(store.cut().is_some(), cut);
            drop(store);
            assert_eq!(disk.open().unwrap().cut(), None);
        }
    }

    #[test]
    fn store_of_a_crashed_process_can_do_nothing() {
        let disk = MemoryDisk::new();
        let mut old = disk.open().unwrap();
        assert!(matches!(disk.open(), Err(StoreError::Locked { .. })));
        disk.crash();
        let mut new = disk.open().unwrap();
        assert!(old.append(1, position(1), b"a").is_err());
        drop(old);
        let _ = new.append(1, position(1), b"a").unwrap();
        assert!(matches!(disk.open(), Err(StoreError::Locked { .. })));
        drop(new);
        disk.open().unwrap();
    }

    #[test]
    fn old_copy_restored_has_the_old_end_and_the_old_snapshot() {
        let disk = MemoryDisk::new();
        let mut store = disk.open().unwrap();
        let _ = store.append(1, position(1), b"a").unwrap();
        store.snapshot(position(1), &mut |out| out.write_all(b"one")).unwrap();
        let copy = disk.copy();
        let _ = store.append(1, position(2), b"b").unwrap();
        store.snapshot(position(2), &mut |out| out.write_all(b"two")).unwrap();
        disk.fail_next_snapshot();
        assert!(store.snapshot(position(2), &mut |_| Ok(())).is_err());
        assert!(matches!(store.snapshot(position(3), &mut |_| Ok(())), Err(StoreError::NotDurable { number: 3 })));
        disk.restore(&copy);
        let mut store = disk.open().unwrap();
        assert_eq!(store.last(), Some(position(1)));
        let mut state = Vec::new();
        store.load().unwrap().unwrap().state.read_to_end(&mut state).unwrap();
        assert_eq!(state, b"one");
    }
}
