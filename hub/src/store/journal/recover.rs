//! Finds the end of the journal at start, and cuts off what a power cut tore.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use super::{
    Running,
    segment::{self, HEADER_BLOCK_BYTES, Link, Scanner, SegmentHeader},
};
use crate::store::{Cut, StoreError, files::At};

/// A journal ready to be appended to.
pub(super) struct Recovered {
    pub(super) running: Running,
    pub(super) link: Link,
    pub(super) cut: Option<Cut>,
}

/// Recovers the journal in `directory`; `None` if it has no segment yet. Nothing at or below commit `floor` is cut.
///
/// The two newest segments are walked through; older ones are checked by whoever reads them.
pub(super) fn recover(directory: &Path, floor: u64) -> Result<Option<Recovered>, StoreError> {
    let firsts = segment::list(directory).at("list", directory)?;
    let Some(first) = firsts.last().copied() else {
        return Ok(None);
    };
    let path = segment::path(directory, first);
    let file = OpenOptions::new().read(true).write(true).open(&path).at("open", &path)?;
    let header = SegmentHeader::read(&file, &path, first)?;
    if let Some(before) = firsts.iter().rev().nth(1) {
        check_sealed(directory, *before, header.link)?;
    }

    let mut scanner = Scanner::new(&file, header.segment_id, HEADER_BLOCK_BYTES, Some(header.link));
    let mut last_record = HEADER_BLOCK_BYTES;
    while let Some(record) = scanner.next().at("read", &path)? {
        last_record = record.offset;
    }
    let offset = scanner.offset();
    let link = scanner.link().unwrap_or(header.link);
    let number = link.next_number;
    let tail = segment::inspect_tail(&file, header.segment_id, offset, number).at("read", &path)?;
    if tail.whole_record.is_some() {
        return Err(StoreError::Damaged { number, path, offset, what: "no whole record here, but a whole one later" });
    }
    let cut = (tail.written_end > 0).then(|| Cut { number, bytes: tail.written_end - offset });
    if cut.is_some() && number <= floor {
        return Err(StoreError::CutBelowFloor { number, floor });
    }
    rewrite(&file, last_record, offset).at("rewrite", &path)?;
    let file_bytes = make_clean(&file, offset, tail.written_end, header.file_bytes).at("clean", &path)?;
    Ok(Some(Recovered { running: Running { file, path, header, offset, file_bytes }, link, cut }))
}

/// Writes the last record once more, as it is. Its sync may have failed in an earlier process; then the kernel shows it
/// from its cache and believes that it is on the disk. The sync that follows makes that true.
fn rewrite(file: &File, from: u64, to: u64) -> io::Result<()> {
    let mut bytes = vec![0; (to - from) as usize];
    file.read_exact_at(&mut bytes, from)?;
    file.write_all_at(&bytes, from)
}

/// Leaves zeros, synced, from `offset` to the end of the file, and says where that is.
fn make_clean(file: &File, offset: u64, written_end: u64, file_bytes: u64) -> io::Result<u64> {
    segment::write_zeros(file, offset, written_end)?;
    // A file that was shortened gets its full size again.
    let length = file.metadata()?.len();
    segment::write_zeros(file, length, file_bytes)?;
    file.sync_all()?;
    Ok(length.max(file_bytes))
}

/// A segment that has a successor was synced to its last record, so it must lead up to `link`.
fn check_sealed(directory: &Path, first: u64, link: Link) -> Result<(), StoreError> {
    let path = segment::path(directory, first);
    let file = File::open(&path).at("open", &path)?;
    let header = SegmentHeader::read(&file, &path, first)?;
    let mut scanner = Scanner::new(&file, header.segment_id, HEADER_BLOCK_BYTES, Some(header.link));
    while scanner.next().at("read", &path)?.is_some() {}
    let end = scanner.link().unwrap_or(header.link);
    if end == link {
        return Ok(());
    }
    Err(StoreError::Damaged {
        number: end.next_number.min(link.next_number),
        path,
        offset: scanner.offset(),
        what: "the segment does not lead up to the next one",
    })
}
