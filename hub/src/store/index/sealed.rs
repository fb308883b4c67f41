//! The part of the read index that lies in sled: entries of sealed segments, and the state entry that vouches for them.
//!
//! An entry's key is kind 1 ‖ the key's first 13 bytes ‖ first commit of a segment 8 (big-endian). Its value lists the commits there, as
//! little-endian 32-bit distances from the first; or, where there are many, is `FF FF FF FF` and the segment's last commit
//! in 8 bytes.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{IndexKey, Short};
use crate::store::{
    StoreError,
    files::{bytes_at, u32_at, u64_at},
    journal::JournalReader,
};

/// A segment's commits are listed one by one up to this many for a key; beyond, the whole segment is read.
pub(super) const LISTED_MAX: usize = 64;
/// sled leaks with batches of hundreds of kilobytes.
const BATCH_BYTES_MAX: usize = 128 << 10;
/// sled counts bytes on disk; in memory they are several times as many. What is asked for twice is mostly asked for soon.
const CACHE_BYTES: u64 = 4 << 20;
const STATE_KEY: &[u8] = b"state";
const STATE_BYTES: usize = 72;
const PREFIX_BYTES: usize = size_of::<Short>();
const ENTRY_KEY_BYTES: usize = PREFIX_BYTES + 8;
/// In the place of the first distance: no segment has as many commits.
const MANY: [u8; 4] = [0xff; 4];

/// Where commits with a key may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Candidate {
    /// This commit has it.
    Commit(u64),
    /// Some commits of this segment have it.
    Span { first: u64, last: u64 },
}

/// How far sled has followed, and the sum of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    version: u32,
    /// The first commit of the next segment to be applied.
    pub(super) next_number: u64,
    /// The id of the commit before it.
    last_id: [u8; 32],
    entries: u64,
    /// Sum of the entries' hashes: independent of their order.
    sum: u128,
}

impl Applied {
    /// The state of an empty index of this journal.
    pub(super) fn nothing(version: u32, journal: &JournalReader) -> Result<Self, StoreError> {
        let first = journal.first()?.unwrap_or(1);
        Ok(Self {
            version,
            next_number: first,
            last_id: journal.previous_of(first)?.unwrap_or_default(),
            entries: 0,
            sum: 0,
        })
    }

    /// Whether it was made from the beginnings of this journal: the chain of ids makes one id speak for all before it.
    pub(super) fn fits(&self, journal: &JournalReader) -> Result<bool, StoreError> {
        let spans = journal.segments()?;
        if !spans.iter().any(|span| span.first == self.next_number) {
            return Ok(self.next_number == 1 && spans.is_empty());
        }
        let previous = journal.previous_of(self.next_number)?.unwrap_or_default();
        Ok(previous == self.last_id)
    }

    fn encode(&self) -> [u8; STATE_BYTES] {
        let mut bytes = [0; STATE_BYTES];
        bytes[..4].copy_from_slice(&self.version.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.next_number.to_le_bytes());
        bytes[12..44].copy_from_slice(&self.last_id);
        bytes[44..52].copy_from_slice(&self.entries.to_le_bytes());
        bytes[52..68].copy_from_slice(&self.sum.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..68]);
        bytes[68..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let whole = bytes.len() == STATE_BYTES && u32_at(bytes, 68) == crc32fast::hash(&bytes[..68]);
        whole.then(|| Self {
            version: u32_at(bytes, 0),
            next_number: u64_at(bytes, 4),
            last_id: bytes_at(bytes, 12),
            entries: u64_at(bytes, 44),
            sum: u128::from_le_bytes(bytes_at(bytes, 52)),
        })
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.entries += 1;
        self.sum = self.sum.wrapping_add(entry_hash(key, value));
    }

    fn subtract(&mut self, key: &[u8], value: &[u8]) {
        self.entries = self.entries.saturating_sub(1);
        self.sum = self.sum.wrapping_sub(entry_hash(key, value));
    }
}

fn entry_hash(key: &[u8], value: &[u8]) -> u128 {
    // Keys have one length, so the two cannot be confused.
    let digest = Sha256::new().chain_update(key).chain_update(value).finalize();
    u128::from_le_bytes(bytes_at(&digest, 0))
}

/// An open sled database whose entries have been checked.
#[derive(Debug)]
pub(super) struct Sealed {
    db: sled::Db,
    file: PathBuf,
    applied: Applied,
}

impl Sealed {
    /// Opens what is at `path` and sums it up; an error if it is not there, or not exactly as it was left.
    pub(super) fn open(path: &Path, version: u32) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(failed("it is missing"));
        }
        let db = open_db(path)?;
        let checked = guarded(|| {
            let state = db.get(STATE_KEY).map_err(failed)?;
            let applied = state.and_then(|state| Applied::decode(&state));
            let applied = applied.ok_or_else(|| failed("it has no state"))?;
            let mut found = Applied { entries: 0, sum: 0, ..applied };
            for entry in db.iter() {
                let (key, value) = entry.map_err(failed)?;
                if *key != *STATE_KEY {
                    found.add(&key, &value);
                }
            }
            if found != applied {
                return Err(failed("its entries do not add up"));
            }
            if applied.version != version {
                return Err(failed("it was made by another version"));
            }
            Ok(applied)
        });
        let file = path.join("db");
        match checked {
            Ok(applied) => Ok(Self { db, file, applied }),
            Err(error) => {
                drop_db(db);
                Err(error)
            }
        }
    }

    /// Makes an empty one at `path`, where nothing is.
    pub(super) fn create(path: &Path, applied: Applied) -> Result<Self, StoreError> {
        let mut sealed = Self { db: open_db(path)?, file: path.join("db"), applied };
        match sealed.commit(sled::Batch::default(), applied) {
            Ok(()) => Ok(sealed),
            Err(error) => {
                sealed.close();
                Err(error)
            }
        }
    }

    pub(super) fn applied(&self) -> Applied {
        self.applied
    }

    /// Adds a sealed segment's keys. May be repeated after it stopped half-way.
    pub(super) fn apply(
        &mut self,
        first: u64,
        last: u64,
        last_id: [u8; 32],
        keys: impl Iterator<Item = (Short, Vec<u64>)>,
    ) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        let mut bytes = 0;
        let mut applied = self.applied;
        for (key, numbers) in keys {
            let entry_key = entry_key(key, first);
            if guarded(|| self.db.contains_key(entry_key).map_err(failed))? {
                continue;
            }
            let value = encode_numbers(first, last, &numbers);
            applied.add(&entry_key, &value);
            bytes += ENTRY_KEY_BYTES + value.len();
            batch.insert(&entry_key[..], value);
            if bytes >= BATCH_BYTES_MAX {
                self.commit(std::mem::take(&mut batch), applied)?;
                bytes = 0;
            }
        }
        applied.next_number = last + 1;
        applied.last_id = last_id;
        self.commit(batch, applied)
    }

    /// Where commits of sealed segments with `key` are, in order.
    pub(super) fn candidates(&self, key: IndexKey) -> Result<Vec<Candidate>, StoreError> {
        guarded(|| {
            let mut candidates = Vec::new();
            for entry in self.db.scan_prefix(Short::from(&key).0) {
                let (entry_key, value) = entry.map_err(failed)?;
                decode_numbers(&entry_key, &value, &mut candidates).ok_or_else(|| failed("an entry is malformed"))?;
            }
            Ok(candidates)
        })
    }

    /// Removes the entries of segments that begin before commit `number`.
    pub(super) fn forget_before(&mut self, number: u64) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        let mut bytes = 0;
        let mut applied = self.applied;
        let mut entries = self.db.iter();
        while let Some((key, value)) = guarded(|| entries.next().transpose().map_err(failed))? {
            if key.len() != ENTRY_KEY_BYTES || segment_of(&key) >= number {
                continue;
            }
            applied.subtract(&key, &value);
            bytes += ENTRY_KEY_BYTES;
            batch.remove(key);
            if bytes >= BATCH_BYTES_MAX {
                self.commit(std::mem::take(&mut batch), applied)?;
                bytes = 0;
            }
        }
        self.commit(batch, applied)
    }

    /// Closes it, whatever sled makes of that.
    pub(super) fn close(self) {
        drop_db(self.db);
    }

    /// Writes a batch with the state that vouches for it, and makes both durable.
    fn commit(&mut self, mut batch: sled::Batch, applied: Applied) -> Result<(), StoreError> {
        batch.insert(STATE_KEY, &applied.encode()[..]);
        guarded(|| {
            self.db.apply_batch(batch).map_err(failed)?;
            self.db.flush().map_err(failed)?;
            // sled's flush starts the writing out, but does not sync.
            let file = File::options().write(true).open(&self.file).map_err(failed)?;
            file.sync_data().map_err(failed)
        })?;
        self.applied = applied;
        Ok(())
    }
}

fn open_db(path: &Path) -> Result<sled::Db, StoreError> {
    guarded(|| {
        sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            // Its own flusher only logs errors.
            .flush_every_ms(None)
            .open()
            .map_err(failed)
    })
}

fn drop_db(db: sled::Db) {
    let _ = guarded(|| {
        drop(db);
        Ok(())
    });
}

/// Turns sled's panics, which damaged files can cause, into errors.
fn guarded<T>(act: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    // After a panic the database is closed and not used again.
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| Err(failed("sled panicked")))
}

#[expect(clippy::needless_pass_by_value, reason = "shaped for `map_err`")]
fn failed(what: impl ToString) -> StoreError {
    StoreError::Index { what: what.to_string() }
}

fn entry_key(key: Short, first: u64) -> [u8; ENTRY_KEY_BYTES] {
    let mut bytes = [0; ENTRY_KEY_BYTES];
    bytes[..PREFIX_BYTES].copy_from_slice(&key.0);
    // Big-endian: sled then lists a key's segments in order.
    bytes[PREFIX_BYTES..].copy_from_slice(&first.to_be_bytes());
    bytes
}

fn segment_of(entry_key: &[u8]) -> u64 {
    u64::from_be_bytes(bytes_at(entry_key, PREFIX_BYTES))
}

fn encode_numbers(first: u64, last: u64, numbers: &[u64]) -> Vec<u8> {
    let distances: Option<Vec<u32>> = numbers.iter().map(|number| u32::try_from(number - first).ok()).collect();
    match distances {
        Some(distances) if distances.len() <= LISTED_MAX => {
            let bytes = distances.iter().flat_map(|distance| distance.to_le_bytes());
            bytes.collect()
        }
        _ => [&MANY[..], &last.to_le_bytes()].concat(),
    }
}

/// `None` if the entry is malformed.
fn decode_numbers(entry_key: &[u8], value: &[u8], candidates: &mut Vec<Candidate>) -> Option<()> {
    if entry_key.len() != ENTRY_KEY_BYTES || !value.len().is_multiple_of(4) {
        return None;
    }
    let first = segment_of(entry_key);
    if value.starts_with(&MANY) {
        let last = (value.len() == 12).then(|| u64_at(value, 4))?;
        candidates.push(Candidate::Span { first, last });
    } else {
        for distance in value.chunks_exact(4) {
            let number = first.checked_add(u64::from(u32_at(distance, 0)))?;
            candidates.push(Candidate::Commit(number));
        }
    }
    Some(())
}
