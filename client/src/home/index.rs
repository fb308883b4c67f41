//! Where a lane's log has a reference: a compact table, eight bytes for each payment and at most a third of free room.
//!
//! It keeps 40 bits of a reference's keyed hash, so what it gives are candidates: the log looks them up. What it does not
//! give is not there.

/// Tables; the hash's top byte chooses one. Each grows by itself, so that no growth takes long.
const TABLES: usize = 256;
/// A free place.
const FREE: Entry = Entry { fingerprint: 0, place: u32::MAX };
/// Entries that the machine's memory hands over together.
const LINE: usize = 8;

/// The index.
#[derive(Debug)]
pub(super) struct Index {
    tables: Vec<Table>,
}

/// Open addressing by lines; an entry stands in the line that its fingerprint gives, or in the first after it with room.
#[derive(Debug, Default)]
struct Table {
    lines: Vec<Line>,
    taken: usize,
}

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line([Entry; LINE]);

#[derive(Debug, Clone, Copy)]
struct Entry {
    fingerprint: u32,
    place: u32,
}

impl Entry {
    const fn is_free(self) -> bool {
        self.place == FREE.place
    }
}

impl Index {
    pub(super) fn new() -> Self {
        Self { tables: std::iter::repeat_with(Table::default).take(TABLES).collect() }
    }

    /// Adds a place, which is below [`u32::MAX`], for a hash.
    pub(super) fn insert(&mut self, hash: u64, place: u32) {
        debug_assert_ne!(place, FREE.place);
        if let Some(table) = self.tables.get_mut((hash >> 56) as usize) {
            table.insert(Entry { fingerprint: (hash >> 24) as u32, place });
        }
    }

    /// The places that the hash may stand for, in no order.
    pub(super) fn places(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        let fingerprint = (hash >> 24) as u32;
        let table = self.tables.get((hash >> 56) as usize);
        let lines = table.into_iter().flat_map(move |table| table.from(fingerprint));
        lines.flat_map(|line| line.0).filter_map(move |entry| {
            let fits = entry.fingerprint == fingerprint && !entry.is_free();
            fits.then_some(entry.place)
        })
    }

    /// Whether the hash stands for any place.
    pub(super) fn has(&self, hash: u64) -> bool {
        let fingerprint = (hash >> 24) as u32;
        let fits = |entry: &Entry| entry.fingerprint == fingerprint && !entry.is_free();
        self.tables.get((hash >> 56) as usize).is_some_and(|table| {
            // Without a branch for each entry.
            table.from(fingerprint).any(|line| line.0.iter().fold(false, |found, entry| found | fits(entry)))
        })
    }

    /// Looks at the places of many hashes at once, and forgets what it saw: in a large index each look waits for memory,
    /// and looks that depend on nothing wait together. What is done with the hashes next finds its places near.
    pub(super) fn touch(&self, hashes: &[u64]) {
        let places = hashes.iter().map(|hash| {
            let table = self.tables.get((hash >> 56) as usize);
            let lines = table.map_or(&[][..], |table| &table.lines);
            lines.get(home((hash >> 24) as u32, lines.len())).map_or(0, |Line([entry, ..])| entry.place)
        });
        std::hint::black_box(places.fold(0, |seen, place| seen ^ place));
    }

    /// Bytes of memory that the tables take.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.tables.iter().map(|table| table.lines.capacity() * size_of::<Line>()).sum()
    }
}

impl Table {
    /// The lines that may hold a fingerprint: from its own to the first with room.
    fn from(&self, fingerprint: u32) -> impl Iterator<Item = &Line> + '_ {
        let (before, after) = self.lines.split_at(home(fingerprint, self.lines.len()));
        let mut full = true;
        after.iter().chain(before).take_while(move |Line([.., last])| std::mem::replace(&mut full, !last.is_free()))
    }

    fn insert(&mut self, entry: Entry) {
        if (self.taken + 1) * 5 > self.lines.len() * LINE * 4 {
            self.grow();
        }
        put(&mut self.lines, entry);
        self.taken += 1;
    }

    /// By a quarter. Fingerprints keep their order, so this goes through both tables from front to back.
    fn grow(&mut self) {
        let room = self.lines.len() + (self.lines.len() / 4).max(1);
        let mut lines = Vec::with_capacity(room);
        lines.resize(room, Line([FREE; LINE]));
        for Line(entries) in std::mem::replace(&mut self.lines, lines) {
            entries.into_iter().filter(|entry| !entry.is_free()).for_each(|entry| put(&mut self.lines, entry));
        }
    }
}

/// Lines fill from the front, so that one with room has it at its end.
fn put(lines: &mut [Line], entry: Entry) {
    let (before, after) = lines.split_at_mut(home(entry.fingerprint, lines.len()));
    for Line(entries) in after.iter_mut().chain(before) {
        if let Some(free) = entries.iter_mut().find(|entry| entry.is_free()) {
            *free = entry;
            return;
        }
    }
}

/// The line of a fingerprint in a table of so many lines.
const fn home(fingerprint: u32, lines: usize) -> usize {
    ((fingerprint as u64 * lines as u64) >> 32) as usize
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
