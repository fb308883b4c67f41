//! The journal: the truth about what happened, one record per commit, append-only.
//!
//! It owns `DATA/journal/`. It gives no meaning to a record's payload and holds no state of the hub. Only [`Journal`]
//! writes; [`JournalReader`] reads, also beside a running hub.
//!
//! # Format
//!
//! All integers are little-endian. A segment file `NNNNNNNNNNNNNNNNNNNN.seg` is named after its first commit (20 decimal
//! digits), has its full size from the beginning, and is full of zeros where nothing was written yet.
//!
//! | offset | bytes | segment header |
//! |---|---|---|
//! | 0 | 8 | `WEIRSEG1` |
//! | 8 | 8 | segment id: random, not zero |
//! | 16 | 8 | number of the first commit |
//! | 24 | 8 | size of the file when it was made |
//! | 32 | 8 | chain of the commit before the first, 0 if none |
//! | 40 | 32 | id of the commit before the first, zeros if none |
//! | 72 | 4 | CRC-32 of bytes 0 to 71 |
//! | 76 | 4020 | zeros |
//!
//! Records follow from byte 4096 on, each at a multiple of 8, without gaps:
//!
//! | offset | bytes | record |
//! |---|---|---|
//! | 0 | 4 | `WREC` |
//! | 4 | 4 | CRC-32 of everything from byte 8 to the record's end |
//! | 8 | 8 | segment id |
//! | 16 | 4 | length of the payload, at most 2^30 |
//! | 20 | 4 | zeros |
//! | 24 | 8 | chain |
//! | 32 | 8 | number |
//! | 40 | 32 | id |
//! | 72 | 32 | id of the commit before |
//! | 104 | length | payload |
//! | | 0–7 | zeros, to a multiple of 8 |
//!
//! CRC-32 is that of IEEE 802.3 (zlib's). A record counts only if it has its segment's id, a right CRC, the next number,
//! the previous commit's id and a chain not below the previous one's: stale bytes of another file never do. The first
//! place where no record counts is the end.
//!
//! A record that does not fit into what remains seals the segment and opens the next, which is made large enough. A
//! segment without records is not sealed but grows.
//! `<segment>.idx` lists a sealed segment's record offsets; it is derived, and may be deleted at any time:
//!
//! | offset | bytes | offsets file |
//! |---|---|---|
//! | 0 | 8 | `WEIRIDX1` |
//! | 8 | 8 | segment id |
//! | 16 | 8 | number of the first commit |
//! | 24 | 4 | count |
//! | 28 | 4 × count | each record's offset, in units of 8 bytes |
//! | | 4 | CRC-32 of everything before |
//!
//! # Recovery
//!
//! One record is synced before the next is begun, so a power cut can tear the last one only. Whatever lies beyond the
//! last whole record is such a torn tail if no whole record follows, in this segment or a later one; it is overwritten
//! with zeros and synced before anything is appended. Everything else is damage and stops the start.

mod ahead;
mod reader;
mod record;
mod recover;
mod segment;

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

pub use reader::{JournalReader, SegmentSpan};
pub use record::PAYLOAD_BYTES_MAX;

use self::{
    ahead::{Ahead, Spare},
    segment::{HEADER_BLOCK_BYTES, Link, SegmentHeader},
};
use super::{
    Cut, Durable, Position, StoreError, check_append,
    files::{At, create_directory, sync_directory},
};

/// Bytes of a segment unless configured otherwise.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// The smallest segment: a header and a little room.
pub const SEGMENT_BYTES_MIN: u64 = 2 * HEADER_BLOCK_BYTES;
/// The largest segment: offsets are kept as 32-bit counts of 8 bytes.
pub const SEGMENT_BYTES_MAX: u64 = 16 << 30;

/// How to open a journal.
#[derive(Clone, Copy, Debug)]
pub struct JournalOptions {
    /// Size of a segment, brought between [`SEGMENT_BYTES_MIN`] and [`SEGMENT_BYTES_MAX`].
    pub segment_bytes: u64,
    /// The newest commit known from elsewhere to have been durable (anchor, snapshot; 0 if none): a torn tail at or
    /// below it is not cut but reported.
    pub floor: u64,
    /// A known-bad control for power-cut tests: acknowledges without a sync. Never set it in a hub.
    #[doc(hidden)]
    pub skip_sync: bool,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES, floor: 0, skip_sync: false }
    }
}

/// The segment that is being written.
#[derive(Debug)]
struct Running {
    file: File,
    path: PathBuf,
    header: SegmentHeader,
    /// Where the next record goes.
    offset: u64,
    /// Zeros are written up to here.
    file_bytes: u64,
}

/// The journal's one writer.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    options: JournalOptions,
    running: Running,
    link: Link,
    cut: Option<Cut>,
    poisoned: bool,
    /// Number of the last durable commit: readers of this process see nothing beyond it.
    durable: Arc<AtomicU64>,
    /// Bytes of the records that this process has appended.
    appended: Arc<AtomicU64>,
    ahead: Ahead,
    sealed: Option<mpsc::Sender<u64>>,
    buffer: Vec<u8>,
}

impl Journal {
    /// Opens the journal in `directory`, made if it is not there, and recovers it.
    pub fn open(directory: &Path, options: JournalOptions) -> Result<Self, StoreError> {
        let segment_bytes =
            options.segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX).next_multiple_of(HEADER_BLOCK_BYTES);
        let options = JournalOptions { segment_bytes, ..options };
        create_directory(directory)?;
        let mut ahead = Ahead::start(directory.to_owned(), segment_bytes).at("write ahead in", directory)?;
        let (running, link, cut) = if let Some(recovered) = recover::recover(directory, options.floor)? {
            (recovered.running, recovered.link, recovered.cut)
        } else {
            let link = Link { next_number: 1, chain: 0, previous: [0; 32] };
            let spare = ahead.take().map_err(|source| no_segment(directory, segment_bytes, source))?;
            let running = put_into_use(directory, spare, link).at("begin a segment in", directory)?;
            (running, link, None)
        };
        ahead.request();
        Ok(Self {
            directory: directory.to_owned(),
            options,
            running,
            link,
            cut,
            poisoned: false,
            durable: Arc::new(AtomicU64::new(link.next_number - 1)),
            appended: Arc::default(),
            ahead,
            sealed: None,
            buffer: Vec::new(),
        })
    }

    /// The last durable commit.
    pub fn last(&self) -> Option<Position> {
        self.link.last()
    }

    /// The torn tail that opening cut off.
    pub fn cut(&self) -> Option<Cut> {
        self.cut
    }

    /// A reader for this process, which sees durable commits only.
    pub fn reader(&self) -> JournalReader {
        JournalReader::bounded(self.directory.clone(), Arc::clone(&self.durable), Arc::clone(&self.appended))
    }

    /// From now on, sends the first commit of each segment that is sealed.
    pub fn tell_sealed(&mut self, listener: mpsc::Sender<u64>) {
        self.sealed = Some(listener);
    }

    /// No longer sends anything.
    pub fn tell_nobody(&mut self) {
        self.sealed = None;
    }

    /// See [`Store::append`](super::Store::append).
    pub fn append(&mut self, epoch: u64, position: Position, payload: &[u8]) -> Result<Durable, StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        check_append(self.last(), epoch, position)?;
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(StoreError::TooLarge { bytes: payload.len(), limit: PAYLOAD_BYTES_MAX });
        }
        let bytes = record::record_bytes(payload.len()) as u64;
        if self.running.offset + bytes > self.running.file_bytes {
            self.make_room(bytes)?;
        }
        let running = &mut self.running;
        let segment_id = running.header.segment_id;
        record::encode(&mut self.buffer, segment_id, position, self.link.previous, payload);
        let mut made_durable = running.file.write_all_at(&self.buffer, running.offset);
        if made_durable.is_ok() && !self.options.skip_sync {
            made_durable = running.file.sync_data();
        }
        if let Err(source) = made_durable {
            self.poisoned = true;
            return Err(StoreError::Append { number: position.number, path: running.path.clone(), source });
        }
        running.offset += bytes;
        self.appended.fetch_add(bytes, Ordering::Relaxed);
        self.link = Link { next_number: position.number + 1, chain: position.chain, previous: position.id };
        self.durable.store(position.number, Ordering::Release);
        Ok(Durable { position })
    }

    /// Deletes the sealed segments of which every commit is below `number`, and returns how many. The caller has made
    /// sure that a snapshot at or after them exists and that their ids are synced.
    pub fn prune_before(&mut self, number: u64) -> Result<u64, StoreError> {
        let firsts = segment::list(&self.directory).at("list", &self.directory)?;
        let mut pruned = 0;
        // Oldest first: a crash in between leaves no gap.
        for (first, next) in firsts.iter().zip(firsts.iter().skip(1)) {
            if *next > number {
                break;
            }
            let path = segment::path(&self.directory, *first);
            match std::fs::remove_file(path.with_extension("idx")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).at("remove", &path);
                }
                _ => {}
            }
            std::fs::remove_file(&path).at("remove", &path)?;
            sync_directory(&self.directory).at("sync", &self.directory)?;
            pruned += 1;
        }
        Ok(pruned)
    }

    /// Seals the running segment and begins one in which a record of `bytes` fits; an empty one grows instead, because
    /// its successor would have its name. Without room the running segment stays in use, and smaller records may still
    /// fit into it.
    fn make_room(&mut self, bytes: u64) -> Result<(), StoreError> {
        let needed = HEADER_BLOCK_BYTES + bytes;
        if self.running.offset == HEADER_BLOCK_BYTES {
            let needed = needed.next_multiple_of(HEADER_BLOCK_BYTES);
            let running = &mut self.running;
            segment::write_zeros(&running.file, running.file_bytes, needed)
                .and_then(|()| running.file.sync_all())
                .map_err(|source| no_segment(&self.directory, needed, source))?;
            running.file_bytes = needed;
            return Ok(());
        }
        let spare = if needed <= self.options.segment_bytes {
            self.ahead.take()
        } else {
            let needed = needed.next_multiple_of(HEADER_BLOCK_BYTES);
            ahead::create(&self.directory, "spare-large", needed)
        };
        let spare = spare.map_err(|source| no_segment(&self.directory, needed, source))?;
        let path = spare.path.clone();
        let number = self.link.next_number;
        match put_into_use(&self.directory, spare, self.link) {
            Ok(running) => {
                let sealed = std::mem::replace(&mut self.running, running);
                self.ahead.request();
                if let Some(listener) = &self.sealed
                    && listener.send(sealed.header.link.next_number).is_err()
                {
                    self.sealed = None;
                }
                Ok(())
            }
            Err(source) => {
                self.poisoned = true;
                Err(StoreError::Append { number, path, source })
            }
        }
    }
}

impl Link {
    /// The commit that is to be followed.
    fn last(&self) -> Option<Position> {
        (self.next_number > 1).then(|| Position { chain: self.chain, number: self.next_number - 1, id: self.previous })
    }
}

/// Gives a spare its header, syncs it, and only then its name.
fn put_into_use(directory: &Path, spare: Spare, link: Link) -> io::Result<Running> {
    let header = SegmentHeader {
        segment_id: getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?.max(1),
        file_bytes: spare.file_bytes,
        link,
    };
    spare.file.write_all_at(&header.encode(), 0)?;
    spare.file.sync_data()?;
    let path = segment::path(directory, link.next_number);
    std::fs::rename(&spare.path, &path)?;
    sync_directory(directory)?;
    Ok(Running { file: spare.file, path, file_bytes: spare.file_bytes, header, offset: HEADER_BLOCK_BYTES })
}

fn no_segment(directory: &Path, bytes: u64, source: io::Error) -> StoreError {
    StoreError::NoSegment { bytes, path: directory.to_owned(), source }
}

#[cfg(test)]
mod tests;
