//! Where a lane's log has a reference: a compact table, eight bytes for each payment and at most a quarter of free room.
//!
//! It keeps 40 bits of a reference's keyed hash, so what it gives are candidates: the log looks them up. What it does not
//! give is not there.

/// Tables; the hash's top byte chooses one. Each grows by itself, so that no growth takes long.
const TABLES: usize = 256;
/// A free place in a table.
const FREE: u32 = u32::MAX;
/// Places of a table's first room, and the least that it grows by.
const STEP: usize = 8;

/// The index.
#[derive(Debug)]
pub(super) struct Index {
    tables: Vec<Table>,
}

/// Open addressing; an entry stands at or after the place that its fingerprint gives, in the order of coming.
#[derive(Debug, Default)]
struct Table {
    entries: Vec<Entry>,
    taken: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    fingerprint: u32,
    place: u32,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { tables: std::iter::repeat_with(Table::default).take(TABLES).collect() }
    }

    /// Adds a place, which is below [`u32::MAX`], for a hash.
    pub(super) fn insert(&mut self, hash: u64, place: u32) {
        debug_assert_ne!(place, FREE);
        if let Some(table) = self.tables.get_mut((hash >> 56) as usize) {
            table.insert(Entry { fingerprint: (hash >> 24) as u32, place });
        }
    }

    /// The places that the hash may stand for, in no order.
    pub(super) fn places(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        let fingerprint = (hash >> 24) as u32;
        let table = self.tables.get((hash >> 56) as usize);
        table
            .into_iter()
            .flat_map(move |table| table.from(fingerprint))
            .filter_map(move |entry| (entry.fingerprint == fingerprint).then_some(entry.place))
    }

    /// Bytes of memory that the tables take.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.tables.iter().map(|table| table.entries.capacity() * size_of::<Entry>()).sum()
    }
}

impl Table {
    /// The entries from a fingerprint's place up to the next free one.
    fn from(&self, fingerprint: u32) -> impl Iterator<Item = &Entry> + '_ {
        let (before, after) = self.entries.split_at(home(fingerprint, self.entries.len()));
        after.iter().chain(before).take_while(|entry| entry.place != FREE)
    }

    fn insert(&mut self, entry: Entry) {
        if (self.taken + 1) * 5 > self.entries.len() * 4 {
            self.grow();
        }
        put(&mut self.entries, entry);
        self.taken += 1;
    }

    /// By a quarter. Fingerprints keep their order, so this goes through both tables from front to back.
    fn grow(&mut self) {
        let room = self.entries.len() + (self.entries.len() / 4).max(STEP);
        let mut entries = Vec::with_capacity(room);
        entries.resize(room, Entry { fingerprint: 0, place: FREE });
        let old = std::mem::replace(&mut self.entries, entries);
        for entry in old.into_iter().filter(|entry| entry.place != FREE) {
            put(&mut self.entries, entry);
        }
    }
}

fn put(entries: &mut [Entry], entry: Entry) {
    let (before, after) = entries.split_at_mut(home(entry.fingerprint, entries.len()));
    if let Some(free) = after.iter_mut().chain(before).find(|entry| entry.place == FREE) {
        *free = entry;
    }
}

/// The place of a fingerprint in a table of so many places.
const fn home(fingerprint: u32, room: usize) -> usize {
    ((fingerprint as u64 * room as u64) >> 32) as usize
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use std::hash::BuildHasher as _;

    #[test]
    fn every_hash_is_found_and_others_hardly_ever_give_a_place() {
        let hasher = foldhash::fast::RandomState::default();
        let mut index = Index::new();
        for at in 0..200_000_u32 {
            index.insert(hasher.hash_one(at), at / 7);
            if at.is_power_of_two() {
                assert!((0..=at).all(|at| index.places(hasher.hash_one(at)).any(|place| place == at / 7)));
            }
        }
        assert!((0..200_000_u32).all(|at| index.places(hasher.hash_one(at)).any(|place| place == at / 7)));
        let strange = (200_000..400_000_u32).filter(|at| index.places(hasher.hash_one(at)).next().is_some()).count();
        assert!(strange < 20, "{strange} of 200,000");
        assert!(index.bytes() <= 200_000 * 13, "{}", index.bytes());
    }

    #[test]
    fn hashes_that_are_equal_or_stand_at_the_end_keep_all_their_places() {
        let mut index = Index::new();
        for place in 0..100 {
            index.insert(u64::MAX, place);
            index.insert(0, place);
        }
        for hash in [0, u64::MAX] {
            let mut places: Vec<_> = index.places(hash).collect();
            places.sort_unstable();
            assert_eq!(places, (0..100).collect::<Vec<_>>());
        }
        assert_eq!(index.places(1 << 30).next(), None);
        assert_eq!(Index::new().places(5).next(), None, "a table without room");
        assert_eq!(index.tables.first().unwrap().taken, 100);
    }
}
