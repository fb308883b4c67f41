//! The part of the read index that lies in memory: which commits of the running segment have which keys.
//!
//! A few bytes a key and commit, in two pieces of memory however many there are. It begins anew with each segment.

use std::iter::Peekable;

use super::{IndexKey, Short};

/// Places that are looked through one by one, beside an eighth of those that are in order.
const UNSORTED_MIN: usize = 1024;

/// That a commit has a key. The commit: its distance from `Recent::base`.
type Place = (Short, u32);

/// Keys of the commits of the running segment.
#[derive(Debug, Default)]
pub(super) struct Recent {
    base: u64,
    sorted: Vec<Place>,
    /// What came since the others were put in order, by commit.
    unsorted: Vec<Place>,
}

impl Recent {
    /// Takes the keys of a commit, which may repeat. Commits come in order.
    pub(super) fn add(&mut self, number: u64, keys: &[IndexKey]) {
        if self.sorted.is_empty() && self.unsorted.is_empty() {
            self.base = number;
        }
        // A segment has far fewer commits than that.
        let distance = u32::try_from(number - self.base).unwrap_or(u32::MAX);
        let mut keys: Vec<Short> = keys.iter().map(Short::from).collect();
        keys.sort_unstable();
        keys.dedup();
        self.unsorted.extend(keys.into_iter().map(|key| (key, distance)));
        if self.unsorted.len() > UNSORTED_MIN + self.sorted.len() / 8 {
            self.sort();
        }
    }

    fn sort(&mut self) {
        if !self.unsorted.is_empty() {
            self.sorted.append(&mut self.unsorted);
            self.sorted.sort_unstable();
        }
    }

    /// The commits that have a key, in order.
    pub(super) fn commits_of(&self, key: IndexKey) -> impl Iterator<Item = u64> {
        let key = Short::from(&key);
        let start = self.sorted.partition_point(|(at, _)| *at < key);
        let sorted = self.sorted.get(start..).unwrap_or_default().iter().take_while(move |(at, _)| *at == key);
        let unsorted = self.unsorted.iter().filter(move |(at, _)| *at == key);
        sorted.chain(unsorted).map(|(_, distance)| self.base + u64::from(*distance))
    }

    /// Takes out the commits through `last`: each key once, with its commits in order.
    pub(super) fn take_through(&mut self, last: u64) -> Taken {
        let Self { base, mut sorted, mut unsorted } = std::mem::take(self);
        sorted.append(&mut unsorted);
        let is_later = |place: &Place| base + u64::from(place.1) > last;
        if sorted.iter().any(is_later) {
            self.base = base;
            self.unsorted = sorted.iter().copied().filter(is_later).collect();
            self.unsorted.sort_unstable_by_key(|(_, distance)| *distance);
            sorted.retain(|place| !is_later(place));
        }
        sorted.sort_unstable();
        Taken { base, places: sorted.into_iter().peekable() }
    }
}

/// Keys with their commits, by key.
#[derive(Debug)]
pub(super) struct Taken {
    base: u64,
    places: Peekable<std::vec::IntoIter<Place>>,
}

impl Iterator for Taken {
    type Item = (Short, Vec<u64>);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, first) = self.places.next()?;
        let mut numbers = vec![self.base + u64::from(first)];
        while let Some((_, distance)) = self.places.next_if(|(next, _)| *next == key) {
            numbers.push(self.base + u64::from(distance));
        }
        Some((key, numbers))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(name: u8) -> IndexKey {
        IndexKey { kind: name % 3, key: [name; 32] }
    }

    proptest! {
        #[test]
        fn recent_finds_what_a_plain_map_finds(
            commits in proptest::collection::vec(proptest::collection::vec(0_u8..20, 0..400), 1..30),
            cut in 0_u64..40,
        ) {
            let mut recent = Recent::default();
            let mut model: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
            for (names, number) in commits.iter().zip(7_u64..) {
                recent.add(number, &names.iter().copied().map(key).collect::<Vec<_>>());
                for name in names {
                    let numbers = model.entry(*name).or_default();
                    if numbers.last() != Some(&number) {
                        numbers.push(number);
                    }
                }
            }
            let found = |recent: &Recent, name| recent.commits_of(key(name)).collect::<Vec<_>>();
            for name in 0..20 {
                prop_assert_eq!(found(&recent, name), model.get(&name).cloned().unwrap_or_default());
            }
            let taken: BTreeMap<Short, Vec<u64>> = recent.take_through(7 + cut).collect();
            for name in 0..20 {
                let numbers = model.remove(&name).unwrap_or_default();
                let (before, after): (Vec<u64>, Vec<u64>) = numbers.iter().partition(|number| **number <= 7 + cut);
                prop_assert_eq!(taken.get(&Short::from(&key(name))).cloned().unwrap_or_default(), before);
                prop_assert_eq!(found(&recent, name), after);
            }
        }
    }
}
