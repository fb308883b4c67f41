//! A segment file: its name, its header block, and walking over its records. Reads only; see [the format](super).

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::record::{self, Header};
use crate::store::{
    StoreError,
    files::{At, bytes_at, u32_at, u64_at},
};

/// The header's block; records begin after it, so that a torn record never touches the header's sectors.
pub(super) const HEADER_BLOCK_BYTES: u64 = 4096;
const MAGIC: [u8; 8] = *b"WEIRSEG1";
const CHECKED_BYTES: usize = 72;
const HEADER_BYTES: usize = CHECKED_BYTES + 4;
/// Read ahead while walking.
const CHUNK_BYTES: usize = 1 << 20;

/// What a commit must follow: the chain and id of the commit before it, and the number that it must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) next_number: u64,
    pub(super) chain: u64,
    pub(super) previous: [u8; 32],
}

/// The first block of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Random, never zero: bytes of another segment never count in this one.
    pub(super) segment_id: u64,
    /// Size of the file when it was made; it may have grown before its first record.
    pub(super) file_bytes: u64,
    /// What the first record follows.
    pub(super) link: Link,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.segment_id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.link.next_number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.file_bytes.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.link.chain.to_le_bytes());
        bytes[40..72].copy_from_slice(&self.link.previous);
        let checksum = crc32fast::hash(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let whole = bytes[..8] == MAGIC && u32_at(bytes, CHECKED_BYTES) == crc32fast::hash(&bytes[..CHECKED_BYTES]);
        whole.then(|| Self {
            segment_id: u64_at(bytes, 8),
            file_bytes: u64_at(bytes, 24),
            link: Link { next_number: u64_at(bytes, 16), chain: u64_at(bytes, 32), previous: bytes_at(bytes, 40) },
        })
    }

    /// Reads the header of the segment that begins with commit `first`. A header is synced before its file gets its
    /// name, so one that cannot be read is damage, never a torn write.
    pub(super) fn read(file: &File, path: &Path, first: u64) -> Result<Self, StoreError> {
        let damaged = |what| StoreError::Damaged { number: first, path: path.to_owned(), offset: 0, what };
        let mut bytes = [0; HEADER_BYTES];
        match file.read_exact_at(&mut bytes, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(damaged("the segment's header is short"));
            }
            read => read.at("read", path)?,
        }
        let header = Self::decode(&bytes).ok_or(damaged("the segment's header is not whole"))?;
        if header.link.next_number != first {
            return Err(damaged("the segment's header names another first commit"));
        }
        Ok(header)
    }
}

/// Name of the segment whose first commit is `first`.
pub(super) fn path(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("{first:020}.seg"))
}

/// First commits of the segments in `directory`, in order. Other names are ignored.
pub(super) fn list(directory: &Path) -> io::Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let first: Option<u64> = name
            .to_str()
            .and_then(|name| name.strip_suffix(".seg"))
            .filter(|digits| digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok());
        firsts.extend(first);
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// A record as it lies in a scanner's buffer.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) header: Header,
    /// Where it begins in the file.
    pub(super) offset: u64,
    pub(super) payload: &'a [u8],
}

/// Walks over the whole records of one segment, each following its predecessor.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    file: &'a File,
    segment_id: u64,
    /// Where the next record is expected.
    offset: u64,
    /// What it must follow; `None` only before the first record of a walk that begins in the middle.
    link: Option<Link>,
    buffer: Vec<u8>,
    /// File offset of the buffer's first byte.
    buffer_offset: u64,
}

impl<'a> Scanner<'a> {
    /// A walk from `offset`, where a record begins or the next one will.
    pub(super) fn new(file: &'a File, segment_id: u64, offset: u64, link: Option<Link>) -> Self {
        Self { file, segment_id, offset, link, buffer: Vec::new(), buffer_offset: offset }
    }

    /// Where the next record is expected.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What the next record must follow.
    pub(super) fn link(&self) -> Option<Link> {
        self.link
    }

    /// The next record, or `None` where no whole one follows. After `None` the file is read afresh, so that a walk can go
    /// on when the hub has appended more.
    pub(super) fn next(&mut self) -> io::Result<Option<Record<'_>>> {
        let Some(header) = self.next_header()? else {
            self.buffer.clear();
            return Ok(None);
        };
        let offset = self.offset;
        self.offset += header.record_bytes() as u64;
        self.link = Some(Link {
            next_number: header.position.number + 1,
            chain: header.position.chain,
            previous: header.position.id,
        });
        let start = (offset - self.buffer_offset) as usize + record::HEADER_BYTES;
        Ok(Some(Record { header, offset, payload: &self.buffer[start..start + header.payload_bytes] }))
    }

    /// The header of the next record, once the record is known to be whole and in the buffer.
    fn next_header(&mut self) -> io::Result<Option<Header>> {
        if !self.fill(record::HEADER_BYTES)? {
            return Ok(None);
        }
        let Some(header) = Header::parse(self.ahead(record::HEADER_BYTES), self.segment_id) else {
            return Ok(None);
        };
        if header.position.number == u64::MAX || !self.follows(&header) {
            return Ok(None);
        }
        let whole = self.fill(header.record_bytes())? && header.is_whole(self.ahead(header.record_bytes()));
        Ok(whole.then_some(header))
    }

    fn follows(&self, header: &Header) -> bool {
        self.link.is_none_or(|link| {
            header.position.number == link.next_number
                && header.previous == link.previous
                && header.position.chain >= link.chain
        })
    }

    fn ahead(&self, bytes: usize) -> &[u8] {
        let start = (self.offset - self.buffer_offset) as usize;
        &self.buffer[start..start + bytes]
    }

    /// Makes `bytes` from the next record's offset on available; false where the file is too short. The buffer never
    /// grows beyond the file: a length field is believed only as far as there is a file behind it.
    fn fill(&mut self, bytes: usize) -> io::Result<bool> {
        let start = (self.offset - self.buffer_offset) as usize;
        if self.buffer.len() >= start + bytes {
            return Ok(true);
        }
        let rest = self.file.metadata()?.len().saturating_sub(self.offset);
        if rest < bytes as u64 {
            return Ok(false);
        }
        self.buffer.clear();
        self.buffer_offset = self.offset;
        let wanted = rest.min(bytes.max(CHUNK_BYTES) as u64) as usize;
        self.buffer.resize(wanted, 0);
        match self.file.read_exact_at(&mut self.buffer, self.offset) {
            Ok(()) => Ok(true),
            // Somebody cut the file in between.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.buffer.clear();
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// What lies where a walk ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    /// End of the last byte that is not zero; 0 if all are zero.
    pub(super) written_end: u64,
    /// Offset of a whole record of this segment: then what lies before it is damage and no torn write, because one
    /// record is synced before the next is begun.
    pub(super) whole_record: Option<u64>,
}

/// Looks at everything from `offset` to the end of the file. `next_number` is the number of the first record that is
/// missing: older ones do not count.
pub(super) fn inspect_tail(file: &File, segment_id: u64, offset: u64, next_number: u64) -> io::Result<Tail> {
    let end = file.metadata()?.len();
    let mut tail = Tail::default();
    let mut chunk = vec![0; CHUNK_BYTES + record::HEADER_BYTES];
    let mut at = offset;
    while at < end {
        // Chunks overlap by a record header, so that none is missed between two.
        let bytes = (end - at).min(chunk.len() as u64) as usize;
        let chunk = &mut chunk[..bytes];
        file.read_exact_at(chunk, at)?;
        if let Some(last) = chunk.iter().rposition(|byte| *byte != 0) {
            tail.written_end = at + last as u64 + 1;
            for start in (0..bytes.min(CHUNK_BYTES)).step_by(record::ALIGNMENT) {
                if tail.whole_record.is_none()
                    && let Some(header) = Header::parse(&chunk[start..], segment_id)
                    && header.position.number >= next_number
                    && is_whole_at(file, at + start as u64, end, &header)?
                {
                    tail.whole_record = Some(at + start as u64);
                }
            }
        }
        at += CHUNK_BYTES as u64;
    }
    Ok(tail)
}

fn is_whole_at(file: &File, offset: u64, end: u64, header: &Header) -> io::Result<bool> {
    if (header.record_bytes() as u64) > end - offset {
        return Ok(false);
    }
    let mut record = vec![0; header.record_bytes()];
    file.read_exact_at(&mut record, offset)?;
    Ok(header.is_whole(&record))
}

/// Overwrites `from..to` with zeros, extending the file if need be. The caller syncs.
pub(super) fn write_zeros(file: &File, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; CHUNK_BYTES];
    let mut at = from;
    while at < to {
        let bytes = (to - at).min(CHUNK_BYTES as u64) as usize;
        file.write_all_at(&zeros[..bytes], at)?;
        at += bytes as u64;
    }
    Ok(())
}
