//! Reading the journal, beside its writer or without one: by number, or in order. Never writes a segment, never cuts.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    ops::ControlFlow,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    record::{self, Header},
    segment::{self, HEADER_BLOCK_BYTES, Link, Scanner, SegmentHeader},
};
use crate::store::{
    Entry, Position, StoreError,
    files::{At, u32_at, u64_at},
};

const OFFSETS_MAGIC: [u8; 8] = *b"WEIRIDX1";
const OFFSETS_HEADER_BYTES: usize = 28;

/// Reads the journal in a directory. Cheap to make; offsets are found as they are needed and kept.
#[derive(Debug)]
pub struct JournalReader {
    directory: PathBuf,
    /// The last durable commit, if the writer is in this process; else every whole record counts.
    durable: Option<Arc<AtomicU64>>,
    /// Bytes that the writer has appended, if it is in this process.
    appended: Option<Arc<AtomicU64>>,
    segments: Mutex<BTreeMap<u64, Arc<Segment>>>,
}

/// The commits that one segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSpan {
    /// Its first commit.
    pub first: u64,
    /// Its last commit if it is sealed; `None` for the running one.
    pub last: Option<u64>,
}

/// A segment, and the first commit of the one after it if it is sealed.
struct Place {
    segment: Arc<Segment>,
    next: Option<u64>,
}

#[derive(Debug)]
struct Segment {
    first: u64,
    path: PathBuf,
    file: File,
    header: SegmentHeader,
    table: Mutex<Table>,
}

/// Offsets of the records found so far.
#[derive(Debug)]
struct Table {
    /// In units of the record alignment.
    offsets: Vec<u32>,
    /// Where the next record is expected.
    end: u64,
    /// What the next record must follow.
    link: Link,
    /// Whether the offsets came from the file of offsets: then there are no more, and `link` is not known.
    complete: bool,
}

impl JournalReader {
    /// Opens the journal in `directory` read-only, up to the last whole commit. A hub may be running on it.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        std::fs::read_dir(directory).at("list", directory)?;
        Ok(Self { directory: directory.to_owned(), durable: None, appended: None, segments: Mutex::default() })
    }

    pub(super) fn bounded(directory: PathBuf, durable: Arc<AtomicU64>, appended: Arc<AtomicU64>) -> Self {
        Self { directory, durable: Some(durable), appended: Some(appended), segments: Mutex::default() }
    }

    /// Bytes of the records that the writer of this process has appended since it was opened; `None` without one.
    pub fn appended_bytes(&self) -> Option<u64> {
        self.appended.as_ref().map(|bytes| bytes.load(Ordering::Relaxed))
    }

    /// Number of the first commit that is kept, or would be the next one of an empty journal; `None` without segments.
    pub fn first(&self) -> Result<Option<u64>, StoreError> {
        Ok(self.refresh()?.keys().next().copied())
    }

    /// The last commit that can be read.
    pub fn last(&self) -> Result<Option<Position>, StoreError> {
        loop {
            let Some((_, segment)) = self.refresh()?.pop_last() else {
                return Ok(None);
            };
            let link = segment.extend(self.limit())?;
            // Unless the segment was sealed, and the next one begun, in the meantime.
            let newest = self.refresh()?.pop_last().map(|(first, _)| first);
            if newest == Some(segment.first)
                && let Some(link) = link
            {
                return Ok(link.last());
            }
        }
    }

    /// The commit with that number; `None` if it is pruned or not there yet.
    pub fn read(&self, number: u64) -> Result<Option<Entry>, StoreError> {
        if number == 0 || number > self.limit() {
            return Ok(None);
        }
        let Some(Place { segment, next }) = self.locate(number)? else {
            return Ok(None);
        };
        let Some(offset) = segment.offset_of(number, self.limit(), next)? else {
            return if next.is_some() || self.durable.is_some() { Err(segment.damaged(number)) } else { Ok(None) };
        };
        let entry = segment.read_at(offset, number)?;
        entry.map_or_else(|| Err(segment.damaged(number)), |entry| Ok(Some(entry)))
    }

    /// The id that commit `number` follows: also when there is no such commit yet, but a segment begins with it.
    pub(crate) fn previous_of(&self, number: u64) -> Result<Option<[u8; 32]>, StoreError> {
        if let Some(entry) = self.read(number)? {
            return Ok(Some(entry.previous));
        }
        let before = self.last()?.filter(|last| last.number + 1 == number);
        Ok(before.map(|last| last.id))
    }

    /// Hands out the commits from `from_number` on, in order, until the last one or until `each` breaks. Damage is an
    /// error that names the first commit that cannot be read; a torn tail is the end.
    pub fn scan(&self, from_number: u64, each: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<(), StoreError> {
        let mut number = from_number.max(1);
        let mut link = None;
        if let Some(first) = self.first()?
            && number < first
        {
            return Err(StoreError::Pruned { number, first });
        }
        // What a walk found missing is looked for once more: a running hub may have written it, or begun the next
        // segment, in between.
        let mut missing = None;
        while number <= self.limit() {
            let Some(Place { segment, next }) = self.locate(number)? else {
                return Ok(());
            };
            let before = number;
            if segment.walk(&mut number, &mut link, self.limit(), next, each)?.is_break() {
                return Ok(());
            }
            if number > before {
                continue;
            }
            if missing == Some(number) {
                if next.is_some() || self.durable.is_some() || segment.whole_after(number)? {
                    return Err(segment.damaged(number));
                }
                return Ok(());
            }
            missing = Some(number);
        }
        Ok(())
    }

    /// The segments, in order.
    pub fn segments(&self) -> Result<Vec<SegmentSpan>, StoreError> {
        let firsts: Vec<u64> = self.refresh()?.into_keys().collect();
        let lasts = firsts.iter().skip(1).map(|next| Some(next - 1)).chain([None]);
        Ok(firsts.iter().zip(lasts).map(|(first, last)| SegmentSpan { first: *first, last }).collect())
    }

    /// Writes the file of offsets of the sealed segment that begins with commit `first`, if it is not there. For the
    /// process that owns the directory; not synced, because it is derived.
    pub(crate) fn write_offsets(&self, first: u64) -> Result<(), StoreError> {
        let segments = self.refresh()?;
        let next = segments.range(first + 1..).next().map(|(next, _)| *next);
        let (Some(segment), Some(next)) = (segments.get(&first), next) else {
            return Ok(());
        };
        let path = segment.path.with_extension("idx");
        if path.exists() {
            return Ok(());
        }
        if segment.offset_of(next - 1, u64::MAX, None)?.is_none() {
            return Err(segment.damaged(segment.table().link.next_number));
        }
        let table = segment.table();
        let mut bytes = Vec::with_capacity(OFFSETS_HEADER_BYTES + 4 * table.offsets.len() + 4);
        bytes.extend_from_slice(&OFFSETS_MAGIC);
        bytes.extend_from_slice(&segment.header.segment_id.to_le_bytes());
        bytes.extend_from_slice(&first.to_le_bytes());
        bytes.extend_from_slice(&(table.offsets.len() as u32).to_le_bytes());
        for offset in &table.offsets {
            bytes.extend_from_slice(&offset.to_le_bytes());
        }
        drop(table);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        let temporary = segment.path.with_extension("idx.tmp");
        std::fs::write(&temporary, &bytes).at("write", &temporary)?;
        std::fs::rename(&temporary, &path).at("rename", &temporary)
    }

    /// Nothing beyond this number may be read.
    fn limit(&self) -> u64 {
        self.durable.as_ref().map_or(u64::MAX, |durable| durable.load(Ordering::Acquire))
    }

    /// The segment that would hold commit `number`.
    fn locate(&self, number: u64) -> Result<Option<Place>, StoreError> {
        let found = |segments: &BTreeMap<u64, Arc<Segment>>| {
            let segment = segments.range(..=number).next_back()?.1;
            let next = segments.range(number + 1..).next().map(|(next, _)| *next);
            Some(Place { segment: Arc::clone(segment), next })
        };
        let known = found(&self.lock());
        match known {
            Some(place) if place.next.is_some() => Ok(Some(place)),
            // The newest one known: there may be a newer one by now.
            _ => Ok(found(&self.refresh()?)),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Segment>>> {
        // What a panicking thread left is still a map of open files.
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the directory again.
    fn refresh(&self) -> Result<BTreeMap<u64, Arc<Segment>>, StoreError> {
        let firsts = segment::list(&self.directory).at("list", &self.directory)?;
        let mut segments = self.lock();
        segments.retain(|first, _| firsts.binary_search(first).is_ok());
        for first in firsts {
            if segments.contains_key(&first) {
                continue;
            }
            if let Some(segment) = Segment::open(&self.directory, first)? {
                segments.insert(first, Arc::new(segment));
            }
        }
        Ok(segments.clone())
    }
}

impl Segment {
    /// `None` if it was pruned just now.
    fn open(directory: &Path, first: u64) -> Result<Option<Self>, StoreError> {
        let path = segment::path(directory, first);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.at("open", &path)?,
        };
        let header = SegmentHeader::read(&file, &path, first)?;
        let table =
            Mutex::new(Table { offsets: Vec::new(), end: HEADER_BLOCK_BYTES, link: header.link, complete: false });
        Ok(Some(Self { first, path, file, header, table }))
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        // Offsets are pushed one at a time, each after its record was found whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the records that were appended since, through number `limit`. What the next one must follow, unless only
    /// the file of offsets is known.
    fn extend(&self, limit: u64) -> Result<Option<Link>, StoreError> {
        let mut table = self.table();
        if table.complete {
            return Ok(None);
        }
        let segment_id = self.header.segment_id;
        let mut scanner = Scanner::new(&self.file, segment_id, table.end, Some(table.link));
        while table.link.next_number <= limit {
            let Some(record) = scanner.next().at("read", &self.path)? else {
                break;
            };
            let offset = (record.offset / record::ALIGNMENT as u64) as u32;
            table.offsets.push(offset);
            table.end = scanner.offset();
            table.link = scanner.link().unwrap_or(table.link);
        }
        Ok(Some(table.link))
    }

    /// Where commit `number` begins. `next`: the first commit of the next segment, if this one is sealed.
    fn offset_of(&self, number: u64, limit: u64, next: Option<u64>) -> Result<Option<u64>, StoreError> {
        let known = |table: &Table| {
            let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
            let offset = table.offsets.get(index)?;
            Some(u64::from(*offset) * record::ALIGNMENT as u64)
        };
        {
            let mut table = self.table();
            if let Some(next) = next
                && table.offsets.is_empty()
                && let Some(offsets) = self.load_offsets(next - self.first)
            {
                table.end =
                    offsets.last().map_or(HEADER_BLOCK_BYTES, |offset| u64::from(*offset) * record::ALIGNMENT as u64);
                table.offsets = offsets;
                table.complete = true;
            }
            if let Some(offset) = known(&table) {
                return Ok(Some(offset));
            }
        }
        self.extend(limit)?;
        Ok(known(&self.table()))
    }

    /// Reads the file of offsets, if it is there, whole, of this segment, and lists `count` records.
    fn load_offsets(&self, count: u64) -> Option<Vec<u32>> {
        let bytes = std::fs::read(self.path.with_extension("idx")).ok()?;
        let body = bytes.len().checked_sub(4)?;
        let whole = body >= OFFSETS_HEADER_BYTES
            && (body - OFFSETS_HEADER_BYTES).is_multiple_of(4)
            && bytes[..8] == OFFSETS_MAGIC
            && u64_at(&bytes, 8) == self.header.segment_id
            && u64_at(&bytes, 16) == self.first
            && u64::from(u32_at(&bytes, 24)) == count
            && (body - OFFSETS_HEADER_BYTES) as u64 == 4 * count
            && u32_at(&bytes, body) == crc32fast::hash(&bytes[..body]);
        whole.then(|| {
            let offsets = bytes[OFFSETS_HEADER_BYTES..body].chunks_exact(4);
            offsets.map(|offset| u32_at(offset, 0)).collect()
        })
    }

    /// Hands out commits from `number` on, as far as this segment has them, and moves `number` and `link` along.
    fn walk(
        &self,
        number: &mut u64,
        link: &mut Option<Link>,
        limit: u64,
        next: Option<u64>,
        each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        if *number == self.first && *link.get_or_insert(self.header.link) != self.header.link {
            return Err(self.damaged(*number));
        }
        let Some(offset) = self.offset_of(*number, limit, next)? else {
            return Ok(ControlFlow::Continue(()));
        };
        let mut scanner = Scanner::new(&self.file, self.header.segment_id, offset, *link);
        while *number <= limit {
            let entry = match scanner.next().at("read", &self.path)? {
                Some(record) if record.header.position.number == *number => record.entry(),
                Some(_) => return Err(self.damaged(*number)),
                None => break,
            };
            *number += 1;
            *link = scanner.link();
            if each(entry).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The commit whose record begins at `offset`, if it is whole.
    fn read_at(&self, offset: u64, number: u64) -> Result<Option<Entry>, StoreError> {
        let mut bytes = vec![0; record::HEADER_BYTES];
        if !self.read_bytes(&mut bytes, offset)? {
            return Ok(None);
        }
        let Some(header) =
            Header::parse(&bytes, self.header.segment_id).filter(|header| header.position.number == number)
        else {
            return Ok(None);
        };
        let length = self.file.metadata().at("read", &self.path)?.len();
        if header.record_bytes() as u64 > length {
            return Ok(None);
        }
        bytes.resize(header.record_bytes(), 0);
        let rest = offset + record::HEADER_BYTES as u64;
        if !self.read_bytes(&mut bytes[record::HEADER_BYTES..], rest)? || !header.is_whole(&bytes) {
            return Ok(None);
        }
        bytes.drain(..record::HEADER_BYTES);
        bytes.truncate(header.payload_bytes);
        Ok(Some(Entry { position: header.position, previous: header.previous, payload: bytes }))
    }

    /// False where the file is too short.
    fn read_bytes(&self, bytes: &mut [u8], offset: u64) -> Result<bool, StoreError> {
        match self.file.read_exact_at(bytes, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            read => read.at("read", &self.path).map(|()| true),
        }
    }

    /// Whether a whole record lies beyond the place where `number`, the next one, is missing.
    fn whole_after(&self, number: u64) -> Result<bool, StoreError> {
        let offset = self.table().end;
        let tail = segment::inspect_tail(&self.file, self.header.segment_id, offset, number);
        Ok(tail.at("read", &self.path)?.whole_record.is_some())
    }

    fn damaged(&self, number: u64) -> StoreError {
        let table = self.table();
        let offset = number
            .checked_sub(self.first)
            .and_then(|index| table.offsets.get(usize::try_from(index).ok()?))
            .map_or(table.end, |offset| u64::from(*offset) * record::ALIGNMENT as u64);
        StoreError::Damaged {
            number,
            path: self.path.clone(),
            offset,
            what: "no whole record that follows the commit before it",
        }
    }
}

impl segment::Record<'_> {
    fn entry(&self) -> Entry {
        Entry { position: self.header.position, previous: self.header.previous, payload: self.payload.to_vec() }
    }
}
