//! The log file: read back at the start, appended to a frame at a time, replaced whole when it is compacted. See
//! [the format](super). Gives records no meaning.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::error::BalanceError;
use super::record::{
    ALIGNMENT, BODY_BYTES_MAX, Encoder, FRAME_HEADER_BYTES, Frame, HEADER_BLOCK_BYTES, Header, OLDEST_VERSION, Record,
    VERSION, records,
};
use crate::home::files::Held;

const NAME: &str = "balances.log";
/// A log that is being made; removed at the start.
const DRAFT: &str = "balances.new";
/// Zeros are written ahead in steps of it: only blocks that were written before make a sync cheap.
const AHEAD_BYTES: u64 = 1 << 20;

/// What the log needs of a file; tests let it fail.
pub(super) trait Disk: Send {
    /// Writes all of it there.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns when what was written is durable.
    fn sync(&mut self) -> io::Result<()>;
}

impl Disk for File {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.seek(SeekFrom::Start(offset))?;
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The log that is appended to. After any error nothing more may be appended.
pub(super) struct Log {
    directory: PathBuf,
    pub(super) disk: Box<dyn Disk>,
    id: u64,
    /// Where the next frame goes, and its number.
    end: u64,
    number: u64,
    /// The file reaches to here, with zeros from `end` on.
    file_end: u64,
    encoder: Encoder,
}

/// A log that is being made, to take the place of another. Nothing of it counts before [`Draft::put_in_place`].
pub(super) struct Draft {
    directory: PathBuf,
    file: File,
    log_id: u64,
    end: u64,
    number: u64,
    unsynced: u64,
    encoder: Encoder,
}

/// Whether the log before a draft is still the one that counts.
pub(super) enum Placing {
    /// It is: go on with it.
    Failed(BalanceError),
    /// Nobody knows before the next start.
    Unknown(BalanceError),
}

impl Log {
    /// Reads the log in `directory` record by record, cuts a torn tail, and stands ready to append. Makes an empty one
    /// where there is none. `take` says what is wrong with a record.
    pub(super) fn open(
        directory: &Path,
        take: &mut dyn FnMut(&Record) -> Result<(), &'static str>,
    ) -> Result<Self, BalanceError> {
        let draft = directory.join(DRAFT);
        match fs::remove_file(&draft) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(BalanceError::io("remove", &draft)(cause));
            }
            _ => {}
        }
        let path = directory.join(NAME);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                let placed = Draft::create(directory)?.put_in_place();
                return placed.map_err(|(Placing::Failed(error) | Placing::Unknown(error))| error);
            }
            Err(cause) => return Err(BalanceError::io("open", &path)(cause)),
        };
        let file_end = file.metadata().map_err(BalanceError::io("read", &path))?.len();
        let walked = walk(&file, &path, file_end, take)?;
        let mut log = Self {
            directory: directory.to_owned(),
            disk: Box::new(file),
            id: walked.log_id,
            end: walked.end,
            number: walked.number,
            file_end,
            encoder: Encoder::default(),
        };
        if walked.torn_end > log.end {
            tracing::warn!(path = %path.display(), from = log.end, to = walked.torn_end, "cut a torn record off the balance log");
            log.write_zeros(log.end, walked.torn_end)
                .and_then(|()| log.disk.sync())
                .map_err(BalanceError::io("cut", &path))?;
        }
        // A file that was cut short in the middle of a frame has no whole step ahead any more.
        log.file_end = log.file_end.max(log.end);
        Ok(log)
    }

    /// Appends records as one frame and makes it durable. They are few enough for one: see
    /// [`BATCH_RECORDS`](super::writer::BATCH_RECORDS).
    pub(super) fn append<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> io::Result<()> {
        self.encoder.clear();
        for record in records {
            if !self.encoder.put(record) {
                return Err(io::Error::other("a batch of records does not fit into a frame"));
            }
        }
        if !self.encoder.finish(self.id, self.number) {
            return Ok(());
        }
        let end = self.end + self.encoder.bytes().len() as u64;
        if end > self.file_end {
            self.write_ahead(end)?;
        }
        self.disk.write_at(self.end, self.encoder.bytes())?;
        self.disk.sync()?;
        self.end = end;
        self.number += 1;
        Ok(())
    }

    /// Writes zeros ahead while nobody waits, when little is left of them.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        if self.file_end.saturating_sub(self.end) >= AHEAD_BYTES / 2 {
            return Ok(());
        }
        self.write_ahead(self.end)?;
        self.disk.sync()
    }

    fn write_ahead(&mut self, to: u64) -> io::Result<()> {
        let to = (to + 1).next_multiple_of(AHEAD_BYTES) + AHEAD_BYTES;
        self.write_zeros(self.file_end, to)?;
        self.file_end = to;
        Ok(())
    }

    fn write_zeros(&mut self, from: u64, to: u64) -> io::Result<()> {
        let zeros = vec![0; 1 << 16];
        let mut at = from;
        while at < to {
            let bytes = (to - at).min(zeros.len() as u64);
            self.disk.write_at(at, &zeros[..bytes as usize])?;
            at += bytes;
        }
        Ok(())
    }

    /// How much of the file is used.
    pub(super) const fn bytes(&self) -> u64 {
        self.end
    }

    /// The folder.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Draft {
    pub(super) fn create(directory: &Path) -> Result<Self, BalanceError> {
        let path = directory.join(DRAFT);
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).read(true).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path).map_err(BalanceError::io("create", &path))?;
        let random = getrandom::u64().map_err(|error| io::Error::other(error.to_string()));
        let log_id = random.map_err(BalanceError::io("name", &path))?.max(1);
        let (end, encoder) = (HEADER_BLOCK_BYTES, Encoder::default());
        Ok(Self { directory: directory.to_owned(), file, log_id, end, number: 1, unsynced: 0, encoder })
    }

    /// Adds records, in as many frames as they need.
    pub(super) fn append<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> io::Result<()> {
        self.encoder.clear();
        for record in records {
            if !self.encoder.put(record) {
                self.finish_frame();
                if !self.encoder.put(record) {
                    return Err(io::Error::other("a record does not fit into a frame"));
                }
            }
        }
        self.finish_frame();
        let bytes = self.encoder.bytes();
        Disk::write_at(&mut self.file, self.end, bytes)?;
        self.end += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        // In small portions, or the last sync takes long and draws wait for it.
        if self.unsynced >= AHEAD_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }

    fn finish_frame(&mut self) {
        if self.encoder.finish(self.log_id, self.number) {
            self.number += 1;
        }
    }

    /// Syncs the draft, gives it the log's name, and syncs the folder.
    pub(super) fn put_in_place(mut self) -> Result<Log, Placing> {
        let draft = self.directory.join(DRAFT);
        let path = self.directory.join(NAME);
        let header = Header { log_id: self.log_id, synced_end: self.end };
        // The block is filled up, so that the first frame begins in written ground.
        let mut block = header.encode().to_vec();
        block.resize(HEADER_BLOCK_BYTES as usize, 0);
        let written = Disk::write_at(&mut self.file, 0, &block).and_then(|()| self.file.sync_all());
        let placed = written
            .map_err(BalanceError::io("write", &draft))
            .and_then(|()| fs::rename(&draft, &path).map_err(BalanceError::io("rename", &draft)));
        if let Err(error) = placed {
            let _ = fs::remove_file(&draft);
            return Err(Placing::Failed(error));
        }
        sync_directory(&self.directory).map_err(Placing::Unknown)?;
        Ok(Log {
            directory: self.directory,
            disk: Box::new(self.file),
            id: self.log_id,
            end: self.end,
            number: self.number,
            file_end: self.end,
            encoder: self.encoder,
        })
    }

    /// The folder.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Gives it up.
    pub(super) fn discard(self) {
        let _ = fs::remove_file(self.directory.join(DRAFT));
    }
}

/// A folder that only its owner may look into; made with its parents, durably.
pub(super) fn create_directory(directory: &Path) -> Result<(), BalanceError> {
    if directory.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory).map_err(BalanceError::io("create", directory))?;
    match directory.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_directory(Path::new(".")),
        Some(parent) => sync_directory(parent),
        None => Ok(()),
    }
}

/// Takes the folder for this store alone, until it is dropped.
pub(super) fn hold(directory: &Path) -> Result<Held, BalanceError> {
    let path = directory.join("lock");
    Held::take(&path).map_err(|cause| match cause {
        fs::TryLockError::WouldBlock => BalanceError::Held(directory.to_owned()),
        fs::TryLockError::Error(cause) => BalanceError::io("lock", &path)(cause),
    })
}

fn sync_directory(directory: &Path) -> Result<(), BalanceError> {
    File::open(directory).and_then(|folder| folder.sync_all()).map_err(BalanceError::io("sync", directory))
}

/// Where a walk over a log ended.
struct Walked {
    log_id: u64,
    end: u64,
    number: u64,
    /// The end of what is not zero behind `end`; not above it if there is nothing.
    torn_end: u64,
}

fn walk(
    file: &File,
    path: &Path,
    file_end: u64,
    take: &mut dyn FnMut(&Record) -> Result<(), &'static str>,
) -> Result<Walked, BalanceError> {
    let io = || BalanceError::io("read", path);
    let damaged = |offset, what| BalanceError::Damaged { path: path.to_owned(), offset, what };
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut block = vec![0; HEADER_BLOCK_BYTES as usize];
    if file_end < HEADER_BLOCK_BYTES {
        return Err(damaged(0, "the header is short"));
    }
    reader.read_exact(&mut block).map_err(io())?;
    let header = Header::parse(&block).ok_or_else(|| damaged(0, "the header is not whole"))?;
    let mut at = HEADER_BLOCK_BYTES;
    let mut number = 1;
    let mut bytes = Vec::new();
    while file_end - at >= FRAME_HEADER_BYTES as u64 {
        bytes.resize(FRAME_HEADER_BYTES, 0);
        reader.read_exact(&mut bytes).map_err(io())?;
        let Some(frame) = Frame::parse(&bytes, header.log_id).filter(|frame| frame.number == number) else { break };
        if frame.frame_bytes() as u64 > file_end - at {
            break;
        }
        bytes.resize(frame.frame_bytes(), 0);
        reader.read_exact(&mut bytes[FRAME_HEADER_BYTES..]).map_err(io())?;
        if !frame.is_whole(&bytes) {
            break;
        }
        if !(OLDEST_VERSION..=VERSION).contains(&frame.version) {
            return Err(BalanceError::Version { path: path.to_owned(), version: frame.version });
        }
        let body = &bytes[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + frame.body_bytes];
        let records = records(body).ok_or_else(|| damaged(at, "a frame does not hold records"))?;
        for record in &records {
            take(record).map_err(|what| damaged(at, what))?;
        }
        at += frame.frame_bytes() as u64;
        number += 1;
    }
    if at < header.synced_end {
        return Err(damaged(at, "a frame is not whole in the part that was written at once"));
    }
    let torn_end = inspect_tail(file, at, file_end, header.log_id, number).map_err(io())?;
    let torn_end = torn_end.ok_or_else(|| damaged(at, "a frame is not whole and others follow"))?;
    Ok(Walked { log_id: header.log_id, end: at, number, torn_end })
}

/// Looks at everything behind the last whole frame: the end of what is not zero. `None`: a later frame is whole, so what
/// lies between is damage and no torn write, because one frame is synced before the next is written.
fn inspect_tail(mut file: &File, from: u64, file_end: u64, log_id: u64, number: u64) -> io::Result<Option<u64>> {
    let mut torn_end = from;
    // Windows overlap by the largest frame, so that each frame is whole in one of them.
    let step = AHEAD_BYTES as usize;
    let largest = (FRAME_HEADER_BYTES + BODY_BYTES_MAX).next_multiple_of(ALIGNMENT);
    let mut window = vec![0; step + largest];
    let mut at = from;
    while at < file_end {
        let bytes = (file_end - at).min(window.len() as u64) as usize;
        let window = &mut window[..bytes];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(window)?;
        if let Some(last) = window.iter().rposition(|byte| *byte != 0) {
            torn_end = torn_end.max(at + last as u64 + 1);
            for start in (0..bytes.min(step)).step_by(ALIGNMENT) {
                let here = &window[start..];
                let whole =
                    Frame::parse(here, log_id).is_some_and(|frame| frame.number >= number && frame.is_whole(here));
                if whole {
                    return Ok(None);
                }
            }
        }
        at += step as u64;
    }
    Ok(Some(torn_end))
}
