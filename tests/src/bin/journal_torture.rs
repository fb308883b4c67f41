//! Writes commits to a store, and says what survived: the two ends of a power-cut test (`tests/powercut.sh`).
//!
//! `write DIR [--unsafe]` appends until it is stopped and prints `A <n>` once commit n is durable; with `--unsafe` before
//! it is, the known-bad control. `check DIR` opens the store as a starting hub does, checks every commit and snapshot
//! byte by byte, and prints `R <n>`, the last one.

use std::{
    io::{Read, Write},
    ops::ControlFlow,
    path::Path,
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use weir_hub::store::{
    Position, Store,
    anchor::AnchorRecord,
    disk::DiskStore,
    index::{Index, IndexKey, KeysOf},
    journal::JournalOptions,
};

/// Small, so that a run of a second seals several.
const SEGMENT_BYTES: u64 = 256 << 10;
/// A snapshot, and an attempt to prune, every so many commits.
const SNAPSHOT_EVERY: u64 = 500;
/// Pruning leaves this many commits before the last snapshot.
const KEPT: u64 = 1000;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["write", directory] => write(Path::new(directory), false),
        ["write", directory, "--unsafe"] => write(Path::new(directory), true),
        ["check", directory] => check(Path::new(directory)),
        _ => bail!("usage: journal_torture write DIR [--unsafe] | check DIR"),
    }
}

fn open(directory: &Path, skip_sync: bool) -> anyhow::Result<DiskStore> {
    let options = JournalOptions { segment_bytes: SEGMENT_BYTES, skip_sync, ..JournalOptions::default() };
    DiskStore::open(&directory.join("data"), options).context("cannot open the store")
}

/// A commit is found by the length of its content.
fn open_index(directory: &Path, store: &DiskStore) -> anyhow::Result<Index> {
    let keys_of = KeysOf { version: 1, find: |payload| vec![key(payload.len() as u64)] };
    let path = directory.join("data/index");
    Index::open(&path, store.reader(), keys_of).context("cannot open the index")
}

fn key(bytes: u64) -> IndexKey {
    IndexKey { kind: 1, key: [(bytes % 13) as u8; 32] }
}

fn write(directory: &Path, skip_sync: bool) -> anyhow::Result<()> {
    let mut store = open(directory, skip_sync)?;
    let (mut number, chain) = store.last().map_or((0, 1), |last| (last.number, last.chain + 1));
    let index = Arc::new(open_index(directory, &store)?);
    store.attach_index(index);
    let mut out = std::io::stdout().lock();
    loop {
        number += 1;
        let position = Position { chain, number, id: id(number) };
        let durable = store.append(chain, position, &content(number))?;
        writeln!(out, "A {}", durable.position().number)?;
        out.flush()?;
        if number.is_multiple_of(SNAPSHOT_EVERY) && !skip_sync {
            store.snapshot(position, &mut |state| state.write_all(&content(number)))?;
            let snapshots = store.snapshots().numbers()?;
            let oldest = snapshots.first().copied().unwrap_or(0);
            store.prune_before(oldest.saturating_sub(KEPT))?;
        }
    }
}

fn check(directory: &Path) -> anyhow::Result<()> {
    let mut store = open(directory, false)?;
    let last = store.last().map_or(0, |last| last.number);
    let first = store.reader().first()?.context("the journal has no segment")?;
    let mut expected = first;
    let mut wrong = None;
    store.scan(first, &mut |entry| {
        let right = entry.position.number == expected
            && entry.position.id == id(expected)
            && entry.payload == content(expected);
        if !right {
            wrong = Some(expected);
            return ControlFlow::Break(());
        }
        expected += 1;
        ControlFlow::Continue(())
    })?;
    ensure!(wrong.is_none(), "commit {wrong:?} is not what was written");
    ensure!(expected == last + 1, "the journal ends at {expected}, not after {last}");
    let ids = store.ids().read(1..last + 1)?;
    ensure!(ids.len() as u64 == last, "{} ids of {last}", ids.len());
    let wrong = ids.iter().zip(1..).find(|(found, number)| **found != id(*number));
    ensure!(wrong.is_none(), "id {wrong:?} is not what was written");
    if let Some(mut snapshot) = store.load()? {
        let mut state = Vec::new();
        snapshot.state.read_to_end(&mut state)?;
        let number = snapshot.position.number;
        ensure!(state == content(number), "snapshot {number} is not what was written");
        ensure!(number <= last && number + 1 >= first, "snapshot {number} does not fit the journal");
    }
    let index = open_index(directory, &store)?;
    for remainder in 0..13 {
        let mut found = Vec::new();
        index.commits_of(key(remainder), first, &mut |entry| {
            found.push(entry.position.number);
            ControlFlow::Continue(())
        })?;
        let all = first..=last;
        let expected: Vec<u64> = all.filter(|number| content(*number).len() as u64 % 13 == remainder).collect();
        ensure!(found == expected, "the index does not find what was written");
    }
    // The anchor's file goes through the same power cuts.
    let anchor = directory.join("anchor.json");
    let found = AnchorRecord::read(&anchor)?.map_or(0, |anchor| anchor.number);
    ensure!(found <= last, "the anchor names commit {found}, the journal ends at {last}");
    let record = AnchorRecord { hub: [7; 32], chain: 0, number: last, id: id(last) };
    record.write(&anchor)?;
    writeln!(std::io::stdout(), "R {last}")?;
    Ok(())
}

fn id(number: u64) -> [u8; 32] {
    let mut id = [0x5a; 32];
    id[..8].copy_from_slice(&number.to_le_bytes());
    id
}

/// Between nothing and a few pages, now and then more than a segment; no byte is zero.
fn content(number: u64) -> Vec<u8> {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let bytes = match number % 997 {
        996 => SEGMENT_BYTES + mixed % 10_000,
        _ => (mixed >> 40) % 12_000,
    };
    (0..bytes).map(|at| (mixed.wrapping_add(at * 31) >> 8) as u8 | 1).collect()
}
