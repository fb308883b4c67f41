#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use std::{fs::OpenOptions, ops::ControlFlow, sync::mpsc};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::store::Entry;

const SMALL: JournalOptions = JournalOptions { segment_bytes: SEGMENT_BYTES_MIN, floor: 0, skip_sync: false };

fn id(number: u64, salt: u8) -> [u8; 32] {
    let mut id = [salt; 32];
    id[..8].copy_from_slice(&number.to_le_bytes());
    id
}

fn position(number: u64) -> Position {
    Position { chain: 1, number, id: id(number, 9) }
}

fn payload(number: u64, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at as u64 * 7 + number) as u8 | 1).collect()
}

/// Appends commits of `bytes` each, up to and including `last`.
fn fill(journal: &mut Journal, last: u64, bytes: usize) {
    for number in journal.link.next_number..=last {
        let durable = journal.append(1, position(number), &payload(number, bytes)).unwrap();
        assert_eq!(durable.position(), position(number));
    }
}

fn entries(reader: &JournalReader, from: u64) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    reader.scan(from, &mut |entry| {
        entries.push(entry);
        ControlFlow::Continue(())
    })?;
    Ok(entries)
}

fn check_all(reader: &JournalReader, last: u64, bytes: usize) {
    let entries = entries(reader, 1).unwrap();
    assert_eq!(entries.len() as u64, last);
    for (entry, number) in entries.iter().zip(1..) {
        assert_eq!(entry.position, position(number));
        assert_eq!(entry.payload, payload(number, bytes));
        assert_eq!(reader.read(number).unwrap().as_ref(), Some(entry));
    }
    assert_eq!(reader.read(last + 1).unwrap(), None);
    assert_eq!(reader.read(0).unwrap(), None);
    assert_eq!(reader.last().unwrap().map(|last| last.number), (last > 0).then_some(last));
}

#[test]
fn journal_reopened_goes_on_where_it_ended() {
    let directory = TempDir::new().unwrap();
    for last in [0, 1, 5, 60, 61] {
        let mut journal = Journal::open(directory.path(), SMALL).unwrap();
        assert_eq!(journal.cut(), None);
        fill(&mut journal, last, 300);
        check_all(&journal.reader(), last, 300);
        check_all(&JournalReader::open(directory.path()).unwrap(), last, 300);
    }
    assert!(segment::list(directory.path()).unwrap().len() > 4);
}

#[test]
fn record_larger_than_a_segment_gets_a_segment_of_its_own() {
    let directory = TempDir::new().unwrap();
    let mut journal = Journal::open(directory.path(), SMALL).unwrap();
    fill(&mut journal, 2, 10);
    fill(&mut journal, 3, 50_000);
    fill(&mut journal, 4, 10);
    let reader = journal.reader();
    assert_eq!(reader.read(3).unwrap().unwrap().payload, payload(3, 50_000));
    drop(journal);
    let journal = Journal::open(directory.path(), SMALL).unwrap();
    assert_eq!(journal.last(), Some(position(4)));
    assert_eq!(entries(&journal.reader(), 2).unwrap().len(), 3);
}

#[test]
fn record_that_just_fits_stays_and_one_byte_more_rolls() {
    let room = (SEGMENT_BYTES_MIN - HEADER_BLOCK_BYTES) as usize - record::HEADER_BYTES;
    let room = room - record::record_bytes(0);
    for (bytes, segments) in [(room, vec![1]), (room + 1, vec![1, 2])] {
        let directory = TempDir::new().unwrap();
        let mut journal = Journal::open(directory.path(), SMALL).unwrap();
        fill(&mut journal, 1, 0);
        fill(&mut journal, 2, bytes);
        assert_eq!(segment::list(directory.path()).unwrap(), segments);
    }
}

#[test]
fn record_too_large_for_an_empty_segment_makes_it_grow() {
    let directory = TempDir::new().unwrap();
    let mut journal = Journal::open(directory.path(), SMALL).unwrap();
    let reader = JournalReader::open(directory.path()).unwrap();
    assert_eq!(reader.last().unwrap(), None);
    fill(&mut journal, 1, 50_000);
    check_all(&reader, 1, 50_000);
    drop(journal);
    let mut journal = Journal::open(directory.path(), SMALL).unwrap();
    fill(&mut journal, 2, 50_000);
    check_all(&reader, 2, 50_000);
    assert_eq!(segment::list(directory.path()).unwrap(), [1, 2]);
}

#[test]
fn append_out_of_order_or_fenced_is_refused_and_leaves_no_trace() {
    let directory = TempDir::new().unwrap();
    let mut journal = Journal::open(directory.path(), SMALL).unwrap();
    let at = |chain, number| Position { chain, ..position(number) };
    assert!(matches!(journal.append(5, at(5, 2), b"x"), Err(StoreError::OutOfOrder { expected: 1, number: 2 })));
    let _ = journal.append(5, at(5, 1), b"x").unwrap();
    let _ = journal.append(6, at(6, 2), b"x").unwrap();
    assert!(matches!(journal.append(5, at(5, 3), b"x"), Err(StoreError::Fenced { epoch: 5, seen: 6 })));
    assert!(matches!(journal.append(7, at(6, 3), b"x"), Err(StoreError::ForeignChain { chain: 6, epoch: 7 })));
    drop(journal);
    let mut journal = Journal::open(directory.path(), SMALL).unwrap();
    assert!(matches!(journal.append(5, at(5, 3), b"x"), Err(StoreError::Fenced { epoch: 5, seen: 6 })));
    let _ = journal.append(6, at(6, 3), b"x").unwrap();
    assert_eq!(entries(&journal.reader(), 1).unwrap().len(), 3);
}

/// Where each record of a one-segment journal begins, and where the last one ends.
fn bounds(count: usize, bytes: usize) -> Vec<u64> {
    (0..=count).map(|index| HEADER_BLOCK_BYTES + (index * record::record_bytes(bytes)) as u64).collect()
}

fn filled(last: u64, bytes: usize) -> TempDir {
    let directory = TempDir::new().unwrap();
    fill(&mut Journal::open(directory.path(), SMALL).unwrap(), last, bytes);
    directory
}

fn overwrite(directory: &Path, first: u64, offset: u64, bytes: &[u8]) {
    let path = segment::path(directory, first);
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

fn flip(directory: &Path, first: u64, offset: u64, mask: u8) {
    let path = segment::path(directory, first);
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ mask], offset).unwrap();
}

#[test]
fn last_record_cut_short_at_any_byte_is_cut_off() {
    let bounds = bounds(3, 30);
    for end in bounds[2]..bounds[3] {
        for shorten in [true, false] {
            let directory = filled(3, 30);
            let path = segment::path(directory.path(), 1);
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            if shorten {
                file.set_len(end).unwrap();
            } else {
                segment::write_zeros(&file, end, bounds[3]).unwrap();
            }
            let reader = JournalReader::open(directory.path()).unwrap();
            // Padding of zeros that is zeros again is no loss.
            let whole = !shorten && end >= bounds[3] - 2;
            let left = if whole { 3 } else { 2 };
            assert_eq!(entries(&reader, 1).unwrap().len(), left);
            let mut journal = Journal::open(directory.path(), SMALL).unwrap();
            assert_eq!(journal.last(), Some(position(left as u64)), "cut at {end}");
            assert_eq!(journal.cut().is_some(), !whole && end > bounds[2]);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), SEGMENT_BYTES_MIN);
            fill(&mut journal, 4, 30);
            check_all(&journal.reader(), 4, 30);
        }
    }
}

#[test]
fn torn_tail_at_or_below_the_floor_is_not_cut() {
    let directory = filled(3, 30);
    flip(directory.path(), 1, bounds(3, 30)[2] + 50, 1);
    let open = |floor| Journal::open(directory.path(), JournalOptions { floor, ..SMALL });
    assert!(matches!(open(3), Err(StoreError::CutBelowFloor { number: 3, floor: 3 })));
    assert_eq!(open(2).unwrap().cut().unwrap().number, 3);
}

#[test]
fn damage_before_a_later_segment_stops_the_start() {
    let directory = filled(60, 300);
    let firsts = segment::list(directory.path()).unwrap();
    let last_sealed = firsts[firsts.len() - 2];
    flip(directory.path(), last_sealed, HEADER_BLOCK_BYTES + 200, 1);
    assert!(matches!(
        Journal::open(directory.path(), SMALL),
        Err(StoreError::Damaged { number, .. }) if number == last_sealed
    ));
    let reader = JournalReader::open(directory.path()).unwrap();
    assert!(matches!(
        entries(&reader, 1),
        Err(StoreError::Damaged { number, .. }) if number == last_sealed
    ));
    assert!(reader.read(last_sealed - 1).unwrap().is_some());
    assert!(reader.read(last_sealed).is_err());
}

#[test]
fn bytes_of_another_segment_never_count() {
    // Two journals with the same commits, but other segment ids: the second's records are stale bytes in the first.
    let ours = filled(2, 30);
    let theirs = filled(4, 30);
    let bounds = bounds(4, 30);
    let bytes = std::fs::read(segment::path(theirs.path(), 1)).unwrap();
    let stale = &bytes[bounds[2] as usize..bounds[4] as usize];
    overwrite(ours.path(), 1, bounds[2], stale);
    let reader = JournalReader::open(ours.path()).unwrap();
    assert_eq!(entries(&reader, 1).unwrap().len(), 2);
    let mut journal = Journal::open(ours.path(), SMALL).unwrap();
    assert_eq!(journal.last(), Some(position(2)));
    fill(&mut journal, 3, 10);
    assert_eq!(entries(&journal.reader(), 1).unwrap().len(), 3);
}

#[test]
fn record_of_our_own_segment_with_another_predecessor_is_not_taken() {
    let directory = filled(2, 30);
    let file = File::open(segment::path(directory.path(), 1)).unwrap();
    let header = SegmentHeader::read(&file, directory.path(), 1).unwrap();
    let mut bytes = Vec::new();
    record::encode(&mut bytes, header.segment_id, position(3), id(2, 8), b"x");
    overwrite(directory.path(), 1, bounds(2, 30)[2], &bytes);
    // Whole, of this segment, and not a successor: no torn write looks like this.
    assert!(matches!(Journal::open(directory.path(), SMALL), Err(StoreError::Damaged { number: 3, .. })));
}

#[test]
fn offsets_file_missing_or_damaged_changes_no_answer() {
    let directory = filled(60, 300);
    let write = |first| {
        JournalReader::open(directory.path()).unwrap().write_offsets(first).unwrap();
        segment::path(directory.path(), first).with_extension("idx")
    };
    let path = write(1);
    let whole = std::fs::read(&path).unwrap();
    check_all(&JournalReader::open(directory.path()).unwrap(), 60, 300);
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        let reader = JournalReader::open(directory.path()).unwrap();
        assert_eq!(reader.read(3).unwrap().unwrap().position, position(3));
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(std::fs::read(write(1)).unwrap(), whole);
}

#[test]
fn sealed_segments_are_told_and_pruned_in_order() {
    let directory = TempDir::new().unwrap();
    let mut journal = Journal::open(directory.path(), SMALL).unwrap();
    let (sender, sealed) = mpsc::channel();
    journal.tell_sealed(sender);
    fill(&mut journal, 60, 300);
    let reader = journal.reader();
    let spans = reader.segments().unwrap();
    let told: Vec<u64> = sealed.try_iter().collect();
    let firsts: Vec<u64> = spans.iter().map(|span| span.first).collect();
    assert_eq!(told, firsts[..firsts.len() - 1]);
    assert_eq!(journal.prune_before(firsts[2] - 1).unwrap(), 1);
    assert_eq!(journal.prune_before(firsts[2]).unwrap(), 1);
    assert_eq!(reader.first().unwrap(), Some(firsts[2]));
    assert!(matches!(entries(&reader, 1), Err(StoreError::Pruned { number: 1, .. })));
    assert_eq!(reader.read(1).unwrap(), None);
    assert_eq!(journal.prune_before(u64::MAX).unwrap() as usize, firsts.len() - 3);
    assert_eq!(journal.last(), Some(position(60)));
    drop(journal);
    let journal = Journal::open(directory.path(), SMALL).unwrap();
    assert_eq!(journal.last(), Some(position(60)));
}

#[test]
fn reader_in_another_process_sees_what_is_appended_later() {
    let directory = TempDir::new().unwrap();
    let mut journal = Journal::open(directory.path(), SMALL).unwrap();
    let reader = JournalReader::open(directory.path()).unwrap();
    for last in [0, 1, 2, 30, 31, 60] {
        fill(&mut journal, last, 300);
        check_all(&reader, last, 300);
    }
}

#[test]
fn append_that_fails_poisons_and_is_seen_by_nobody() {
    // `/dev/null` takes the write and refuses the sync; a read-only file refuses the write.
    for (file, write) in [("/dev/null", true), ("/dev/zero", false)] {
        let directory = TempDir::new().unwrap();
        let mut journal = Journal::open(directory.path(), SMALL).unwrap();
        fill(&mut journal, 2, 30);
        let good = std::mem::replace(
            &mut journal.running.file,
            OpenOptions::new().read(!write).write(write).open(file).unwrap(),
        );
        let failed = journal.append(1, position(3), b"x").unwrap_err();
        assert!(matches!(failed, StoreError::Append { number: 3, .. }));
        assert!(failed.poisons());
        journal.running.file = good;
        assert!(matches!(journal.append(1, position(3), b"x"), Err(StoreError::Poisoned)));
        check_all(&journal.reader(), 2, 30);
        drop(journal);
        let mut journal = Journal::open(directory.path(), SMALL).unwrap();
        fill(&mut journal, 3, 30);
    }
}

#[test]
fn reader_of_the_same_process_sees_nothing_that_is_not_durable() {
    let directory = TempDir::new().unwrap();
    let mut journal = Journal::open(directory.path(), SMALL).unwrap();
    fill(&mut journal, 3, 30);
    let reader = journal.reader();
    journal.durable.store(2, Ordering::Release);
    check_all(&reader, 2, 30);
    check_all(&JournalReader::open(directory.path()).unwrap(), 3, 30);
    journal.durable.store(3, Ordering::Release);
    check_all(&reader, 3, 30);
}

#[test]
fn segment_that_cannot_be_made_leaves_the_running_one_usable() {
    let directory = TempDir::new().unwrap();
    let mut journal = Journal::open(directory.path(), SMALL).unwrap();
    fill(&mut journal, 1, 30);
    let in_the_way = directory.path().join("spare-large");
    std::fs::create_dir(&in_the_way).unwrap();
    let large = [1; 10_000];
    for _ in 0..2 {
        let failed = journal.append(1, position(2), &large).unwrap_err();
        assert!(matches!(failed, StoreError::NoSegment { .. }));
        assert!(!failed.poisons());
    }
    fill(&mut journal, 2, 30);
    std::fs::remove_dir(&in_the_way).unwrap();
    let _ = journal.append(1, position(3), &large).unwrap();
    assert_eq!(entries(&journal.reader(), 1).unwrap().len(), 3);
}

#[test]
fn payload_over_the_limit_is_refused() {
    let directory = TempDir::new().unwrap();
    let mut journal = Journal::open(directory.path(), SMALL).unwrap();
    // Never touched, so never really allocated.
    let payload = vec![0; PAYLOAD_BYTES_MAX + 1];
    let failed = journal.append(1, position(1), &payload).unwrap_err();
    assert!(matches!(failed, StoreError::TooLarge { .. }));
    assert_eq!(segment::list(directory.path()).unwrap(), [1]);
    assert_eq!(journal.last(), None);
}

#[test]
fn second_lock_on_a_directory_is_refused_until_the_first_is_gone() {
    use crate::store::DirectoryLock;
    let directory = TempDir::new().unwrap();
    let lock = DirectoryLock::take(directory.path()).unwrap();
    assert!(matches!(DirectoryLock::take(directory.path()), Err(StoreError::Locked { .. })));
    drop(lock);
    DirectoryLock::take(directory.path()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever byte is flipped: the start either stops, or every commit before the flipped record is there unchanged and
    /// nothing else is.
    #[test]
    fn journal_with_any_flipped_byte_never_gives_a_wrong_commit(
        sizes in proptest::collection::vec(0_usize..200, 1..12),
        at in any::<prop::sample::Index>(),
        mask in 1_u8..,
    ) {
        let directory = TempDir::new().unwrap();
        let mut journal = Journal::open(directory.path(), SMALL).unwrap();
        let mut ends = vec![HEADER_BLOCK_BYTES];
        for (bytes, number) in sizes.iter().zip(1..) {
            let _ = journal.append(1, position(number), &payload(number, *bytes)).unwrap();
            ends.push(journal.running.offset);
        }
        drop(journal);
        let end = *ends.last().unwrap();
        let offset = at.index(end as usize) as u64;
        flip(directory.path(), 1, offset, mask);
        let hit = ends.iter().filter(|end| **end <= offset).count() as u64;
        let last = sizes.len() as u64;
        match Journal::open(directory.path(), SMALL) {
            Err(StoreError::Damaged { number, .. }) => prop_assert!(number == hit.max(1) && (hit < last || hit == 0)),
            Err(error) => prop_assert!(false, "{error}"),
            Ok(journal) => {
                // Zeros of the header block mean nothing.
                let expected = if offset < HEADER_BLOCK_BYTES { last } else { hit - 1 };
                prop_assert!(offset < HEADER_BLOCK_BYTES || hit == last);
                let entries = entries(&journal.reader(), 1).unwrap();
                prop_assert_eq!(entries.len() as u64, expected);
                for ((entry, number), bytes) in entries.iter().zip(1..).zip(&sizes) {
                    prop_assert_eq!(entry.position, position(number));
                    prop_assert_eq!(&entry.payload, &payload(number, *bytes));
                }
            }
        }
    }
}
