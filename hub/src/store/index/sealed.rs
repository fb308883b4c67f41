//! The part of the read index that lies in sled: entries of sealed segments, and the state entry that vouches for them.
//!
//! Keys are packed, because sled keeps about 60 bytes in memory for each entry that it has, whatever its cache may hold:
//! an entry has the keys of one segment that fall into one bucket, in parts of a few kilobytes.
//!
//! An entry's key is bucket 2 ‖ first commit of a segment 8 ‖ part 2, each big-endian. Its value lists keys: the key's
//! first 13 bytes ‖ kind 1 ‖ count 1 ‖ as many commits, as little-endian 32-bit distances from the first; or, where there
//! are many, the count 255 and the segment's last commit in 8 bytes. A key's bucket is its first 10 bits.

use std::{
    fs::File,
    iter::Peekable,
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
const BUCKET_BITS: u32 = 10;
const ENTRY_KEY_BYTES: usize = 12;
/// A part ends with the key that reaches this.
const PART_BYTES: usize = 4 << 10;
/// In the place of the count.
const MANY: u8 = 0xff;

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
        // Opened anew: what the look at every entry has left in memory, more than sled's cache, goes with the first one.
        drop_db(db);
        let applied = checked?;
        Ok(Self { db: open_db(path)?, file: path.join("db"), applied })
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
        for (entry_key, value) in (Parts { keys: keys.peekable(), first, last, previous: None }) {
            if guarded(|| self.db.contains_key(entry_key).map_err(failed))? {
                continue;
            }
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
            let key = Short::from(&key);
            for entry in self.db.scan_prefix(bucket(key).to_be_bytes()) {
                let (entry_key, value) = entry.map_err(failed)?;
                find(key, &entry_key, &value, &mut candidates).ok_or_else(|| failed("an entry is malformed"))?;
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

fn bucket(key: Short) -> u16 {
    u16::from_be_bytes(bytes_at(&key.0, 0)) >> (u16::BITS - BUCKET_BITS)
}

fn entry_key(bucket: u16, first: u64, part: u16) -> [u8; ENTRY_KEY_BYTES] {
    let mut bytes = [0; ENTRY_KEY_BYTES];
    bytes[..2].copy_from_slice(&bucket.to_be_bytes());
    // Big-endian: sled then lists a bucket's segments in order.
    bytes[2..10].copy_from_slice(&first.to_be_bytes());
    bytes[10..].copy_from_slice(&part.to_be_bytes());
    bytes
}

fn segment_of(entry_key: &[u8]) -> u64 {
    u64::from_be_bytes(bytes_at(entry_key, 2))
}

/// The entries of a segment, from its keys in order.
struct Parts<I: Iterator> {
    keys: Peekable<I>,
    first: u64,
    last: u64,
    /// The bucket and the number of the last part.
    previous: Option<(u16, u16)>,
}

impl<I: Iterator<Item = (Short, Vec<u64>)>> Iterator for Parts<I> {
    type Item = ([u8; ENTRY_KEY_BYTES], Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        let at = bucket(self.keys.peek()?.0);
        // No segment has as many keys in one bucket as would need all numbers.
        let part = self.previous.filter(|(before, _)| *before == at).map_or(0, |(_, part)| part.saturating_add(1));
        self.previous = Some((at, part));
        let mut value = Vec::new();
        while value.len() < PART_BYTES
            && let Some((key, numbers)) = self.keys.next_if(|(key, _)| bucket(*key) == at)
        {
            encode(key, self.first, self.last, &numbers, &mut value);
        }
        Some((entry_key(at, self.first, part), value))
    }
}

fn encode(key: Short, first: u64, last: u64, numbers: &[u64], value: &mut Vec<u8>) {
    value.extend_from_slice(&key.0);
    let distances: Option<Vec<u32>> = numbers.iter().map(|number| u32::try_from(number - first).ok()).collect();
    match (distances, u8::try_from(numbers.len())) {
        (Some(distances), Ok(count)) if numbers.len() <= LISTED_MAX => {
            value.push(count);
            value.extend(distances.iter().flat_map(|distance| distance.to_le_bytes()));
        }
        _ => {
            value.push(MANY);
            value.extend_from_slice(&last.to_le_bytes());
        }
    }
}

/// Adds what an entry says of a key. `None` if the entry is malformed.
fn find(key: Short, entry_key: &[u8], value: &[u8], candidates: &mut Vec<Candidate>) -> Option<()> {
    if entry_key.len() != ENTRY_KEY_BYTES {
        return None;
    }
    let first = segment_of(entry_key);
    let mut rest = value;
    while !rest.is_empty() {
        let (at, after) = rest.split_at_checked(key.0.len())?;
        let (count, after) = after.split_first()?;
        let length = if *count == MANY { 8 } else { usize::from(*count) * 4 };
        let (numbers, after) = after.split_at_checked(length)?;
        rest = after;
        if *at != key.0 {
            continue;
        }
        if *count == MANY {
            candidates.push(Candidate::Span { first, last: u64_at(numbers, 0) });
            continue;
        }
        for distance in numbers.chunks_exact(4) {
            let number = first.checked_add(u64::from(u32_at(distance, 0)))?;
            candidates.push(Candidate::Commit(number));
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use super::*;

    #[test]
    fn keys_of_a_segment_are_found_in_its_parts_and_only_there() {
        let key = |name: u32| {
            let mut key = [0; 32];
            // Few buckets, so that each has several parts.
            key[..2].copy_from_slice(&((name % 3) as u16 * 64).to_be_bytes());
            key[2..6].copy_from_slice(&name.to_be_bytes());
            Short::from(&IndexKey { kind: 3, key })
        };
        let numbers = |name: u32| (0..u64::from(name % 70)).map(|at| 100 + at * 2).collect::<Vec<_>>();
        let mut keys: Vec<_> = (0..2_000).map(|name| (key(name), numbers(name))).collect();
        keys.sort_unstable();
        let parts: Vec<_> =
            Parts { keys: keys.into_iter().peekable(), first: 100, last: 500, previous: None }.collect();
        assert!(parts.windows(2).all(|pair| pair[0].0 < pair[1].0), "no entry twice");
        assert!(parts.iter().all(|(_, value)| value.len() < PART_BYTES + 300));
        assert!(parts.len() > 6);
        for name in 0..2_001 {
            let mut found = Vec::new();
            for (entry_key, value) in parts.iter().filter(|(at, _)| at.starts_with(&bucket(key(name)).to_be_bytes())) {
                find(key(name), entry_key, value, &mut found).unwrap();
            }
            let expected = match numbers(name) {
                _ if name == 2_000 => Vec::new(),
                numbers if numbers.len() > LISTED_MAX => vec![Candidate::Span { first: 100, last: 500 }],
                numbers => numbers.into_iter().map(Candidate::Commit).collect(),
            };
            assert_eq!(found, expected, "{name}");
        }
        let (entry_key, value) = &parts[0];
        for end in 1..value.len() {
            // Cut anywhere, it is malformed or ends with a whole key; never a panic.
            let _ = find(key(0), entry_key, &value[..end], &mut Vec::new());
        }
    }
}
