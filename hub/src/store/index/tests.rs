#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use std::{fs::File, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

use tempfile::TempDir;

use super::*;
use crate::store::{
    Position, Store,
    disk::DiskStore,
    journal::{JournalOptions, SEGMENT_BYTES_MIN},
};

/// A payload is a list of one-byte keys, and filler.
const KEYS_OF: KeysOf = KeysOf { version: 1, find: |payload| payload[..8].iter().map(|name| key(*name)).collect() };

fn key(name: u8) -> IndexKey {
    IndexKey { kind: name % 3, key: [name; 32] }
}

/// The keys of a commit: one in all, the others in some.
fn names(number: u64) -> [u8; 8] {
    let number = number as u8;
    [1, 1, 2 + number % 5, 10 + number % 7, 20 + number / 16, 100 + number % 90, 1, 9]
}

fn open(data: &Path) -> DiskStore {
    let options = JournalOptions { segment_bytes: SEGMENT_BYTES_MIN, ..JournalOptions::default() };
    DiskStore::open(data, options).unwrap()
}

fn fill(store: &mut DiskStore, last: u64) {
    for number in store.last().map_or(0, |last| last.number) + 1..=last {
        let position = Position { chain: 1, number, id: [number as u8; 32] };
        let payload = [&names(number)[..], &[0; 200]].concat();
        let _ = store.append(1, position, &payload).unwrap();
    }
}

fn numbers(index: &Index, name: u8, from: u64) -> Vec<u64> {
    let mut numbers = Vec::new();
    index
        .commits_of(key(name), from, &mut |entry| {
            numbers.push(entry.position.number);
            ControlFlow::Continue(())
        })
        .unwrap();
    numbers
}

/// Asks for every key there is and one there is not.
fn check(index: &Index, first: u64, last: u64) {
    for name in 0..=200 {
        let expected: Vec<u64> = (first..=last).filter(|number| names(*number).contains(&name)).collect();
        assert_eq!(numbers(index, name, 0), expected, "key {name}");
    }
    let from = u64::midpoint(first, last).max(first);
    let expected: Vec<u64> = (from..=last).collect();
    assert_eq!(numbers(index, 1, from), expected);
}

struct Fixture {
    directory: TempDir,
    store: DiskStore,
}

impl Fixture {
    fn new(last: u64) -> Self {
        let directory = TempDir::new().unwrap();
        let mut store = open(&directory.path().join("data"));
        fill(&mut store, last);
        Self { directory, store }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("index")
    }

    fn open(&self) -> Index {
        Index::open(&self.path(), self.store.reader(), KEYS_OF).unwrap()
    }

    fn applied(index: &Index) -> Option<u64> {
        let state = index.lock();
        state.sealed.as_ref().map(|sealed| sealed.applied().next_number)
    }
}

#[test]
fn index_follows_the_journal_over_sealed_and_running_segments() {
    let mut fixture = Fixture::new(0);
    let index = fixture.open();
    for last in [0, 1, 11, 12, 13, 60, 100] {
        fill(&mut fixture.store, last);
        check(&index, 1, last);
    }
    let applied = Fixture::applied(&index).unwrap();
    assert!((80..=100).contains(&applied), "{applied}");
    drop(index);
    check(&fixture.open(), 1, 100);
}

#[test]
fn index_deleted_emptied_or_replaced_is_built_again() {
    let fixture = Fixture::new(60);
    let applied = Fixture::applied(&fixture.open());
    let path = fixture.path();
    let spoil: [&dyn Fn(); 4] = [
        &|| std::fs::remove_dir_all(&path).unwrap(),
        &|| std::fs::write(path.join("db"), b"").unwrap(),
        &|| std::fs::write(path.join("conf"), b"nonsense").unwrap(),
        &|| {
            std::fs::remove_dir_all(&path).unwrap();
            std::fs::write(&path, b"a file").unwrap();
        },
    ];
    for spoil in spoil {
        spoil();
        let index = fixture.open();
        check(&index, 1, 60);
        assert_eq!(Fixture::applied(&index), applied);
    }
}

#[test]
fn index_of_another_history_or_version_is_built_again() {
    let fixture = Fixture::new(60);
    drop(fixture.open());
    // Ahead of a younger journal, and the same length with other ids.
    for last in [20, 60] {
        let other = Fixture::new(0);
        let mut store = other.store;
        for number in 1..=last {
            let position = Position { chain: 1, number, id: [number as u8 + 100; 32] };
            let payload = [&names(number + 3)[..], &[0; 200]].concat();
            let _ = store.append(1, position, &payload).unwrap();
        }
        let index = Index::open(&fixture.path(), store.reader(), KEYS_OF).unwrap();
        let expected: Vec<u64> = (1..=last).filter(|n| names(n + 3).contains(&3)).collect();
        assert_eq!(numbers(&index, 3, 1), expected);
    }
    let other = KeysOf { version: 2, find: |_| vec![key(42)] };
    let index = Index::open(&fixture.path(), fixture.store.reader(), other).unwrap();
    assert_eq!(numbers(&index, 42, 1).len(), 60);
    assert!(numbers(&index, 1, 1).is_empty());
}

#[test]
fn index_whose_folder_cannot_be_made_answers_from_the_journal() {
    let mut fixture = Fixture::new(30);
    let path = fixture.directory.path().join("data/lock/index");
    let index = Index::open(&path, fixture.store.reader(), KEYS_OF).unwrap();
    assert_eq!(Fixture::applied(&index), None);
    check(&index, 1, 30);
    fill(&mut fixture.store, 40);
    check(&index, 1, 40);
}

#[test]
fn index_forgets_what_is_pruned_and_still_adds_up() {
    let mut fixture = Fixture::new(60);
    let index = Arc::new(fixture.open());
    fixture.store.attach_index(Arc::clone(&index));
    let last = fixture.store.last().unwrap();
    fixture.store.snapshot(last, &mut |_| Ok(())).unwrap();
    assert!(fixture.store.prune_before(40).unwrap() > 0);
    let first = fixture.store.reader().first().unwrap().unwrap();
    assert!(first > 1);
    check(&index, first, 60);
    let entries = index.lock().sealed.as_ref().unwrap().applied();
    fixture.store.attach_index(Arc::new(
        Index::open(&fixture.directory.path().join("i2"), fixture.store.reader(), KEYS_OF).unwrap(),
    ));
    drop(index);
    let index = fixture.open();
    assert_eq!(index.lock().sealed.as_ref().unwrap().applied(), entries);
    check(&index, first, 60);
}

#[test]
fn key_in_more_commits_than_are_listed_is_found_in_all() {
    let directory = TempDir::new().unwrap();
    let options = JournalOptions { segment_bytes: 128 << 10, ..JournalOptions::default() };
    let mut store = DiskStore::open(&directory.path().join("data"), options).unwrap();
    fill(&mut store, 1000);
    const { assert!(sealed::LISTED_MAX < 300) };
    let path = directory.path().join("index");
    let index = Index::open(&path, store.reader(), KEYS_OF).unwrap();
    assert!(Fixture::applied(&index).unwrap() > 300);
    check(&index, 1, 1000);
}

#[test]
fn index_that_lost_or_gained_an_entry_is_built_again() {
    // What a page of an older time would look like.
    let fixture = Fixture::new(100);
    drop(fixture.open());
    let spoil: [&dyn Fn(&sled::Db); 3] = [
        &|db| {
            let (entry, _) = db.iter().next().unwrap().unwrap();
            db.remove(entry).unwrap();
        },
        &|db| {
            let (entry, _) = db.iter().next().unwrap().unwrap();
            db.insert(entry, &[1, 0, 0, 0]).unwrap();
        },
        &|db| {
            db.insert([1; 12], &[0, 0, 0, 0]).unwrap();
        },
    ];
    for spoil in spoil {
        let db = sled::open(fixture.path()).unwrap();
        spoil(&db);
        db.flush().unwrap();
        drop(db);
        check(&fixture.open(), 1, 100);
    }
}

fn split_mix(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[test]
fn index_with_flipped_bytes_gives_no_wrong_answer() {
    let fixture = Fixture::new(100);
    drop(fixture.open());
    let whole = std::fs::read(fixture.path().join("db")).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut seed = 1;
    for trial in 0..60 {
        let path = fixture.path();
        let file = File::options().write(true).open(path.join("db")).unwrap();
        let flips = 1 + trial % 4;
        for _ in 0..flips {
            let random = split_mix(&mut seed);
            let at = (random >> 3) as usize % used;
            let mask = 1 << (random & 7);
            file.write_all_at(&[whole[at] ^ mask], at as u64).unwrap();
        }
        drop(file);
        check(&fixture.open(), 1, 100);
        Index::remove(&path).unwrap();
        drop(fixture.open());
    }
}
