//! Snapshots: the whole state at a commit, in one checksummed file each. The only checkpoint; the two newest are kept.
//!
//! It owns `DATA/snapshots/` and does not know what a state is.
//!
//! # Format of `NNNNNNNNNNNNNNNNNNNN.snap` (20 decimal digits: the commit's number)
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | `WEIRSNP7` |
//! | 8 | 8 | chain, little-endian as all integers |
//! | 16 | 8 | number |
//! | 24 | 32 | id |
//! | 56 | length | state |
//! | | 8 | length of the state |
//! | | 32 | SHA-256 of everything before |
//!
//! A file gets its name only when it is whole and synced. So its name alone proves that its commit was durable, and one
//! that does not check was damaged later: it is skipped for an older one, and said so.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    Position, Snapshot, StoreError,
    files::{self, At, bytes_at, u64_at},
};

const MAGIC: [u8; 8] = *b"WEIRSNP7";
/// What every version begins with.
const FAMILY_BYTES: usize = 7;
const HEADER_BYTES: usize = 56;
const LENGTH_BYTES: usize = 8;
const DIGEST_BYTES: usize = 32;
const KEPT: usize = 2;
const BUFFER_BYTES: usize = 1 << 20;

/// The snapshots in a directory. A snapshot may be written on any thread: the state is the caller's to hold still.
#[derive(Clone, Debug)]
pub struct Snapshots {
    directory: PathBuf,
}

impl Snapshots {
    /// The snapshots in `directory`, which need not exist as long as nothing is written.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Numbers of the commits of which there is a snapshot file, in order.
    pub fn numbers(&self) -> Result<Vec<u64>, StoreError> {
        let entries = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.at("list", &self.directory)?,
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry.at("list", &self.directory)?.file_name();
            let number: Option<u64> = name
                .to_str()
                .and_then(|name| name.strip_suffix(".snap"))
                .filter(|digits| digits.len() == 20)
                .and_then(|digits| digits.parse().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Writes the state at `position`, which the caller knows to be durable, and deletes all but the two newest.
    pub fn write(
        &self,
        position: Position,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        files::create_directory(&self.directory)?;
        let path = self.path(position.number);
        files::replace(&path, |file| {
            let mut out =
                Hashing { inner: BufWriter::with_capacity(BUFFER_BYTES, file), hash: Sha256::new(), bytes: 0 };
            out.write_all(&MAGIC)?;
            out.write_all(&position.chain.to_le_bytes())?;
            out.write_all(&position.number.to_le_bytes())?;
            out.write_all(&position.id)?;
            out.bytes = 0;
            write(&mut out)?;
            let length = out.bytes;
            out.write_all(&length.to_le_bytes())?;
            let digest = out.hash.finalize();
            out.inner.write_all(&digest)?;
            out.inner.flush()
        })
        .at("write", &path)?;
        let numbers = self.numbers()?;
        let surplus = numbers.len().saturating_sub(KEPT);
        for number in &numbers[..surplus] {
            let path = self.path(*number);
            std::fs::remove_file(&path).at("remove", &path)?;
        }
        Ok(())
    }

    /// The newest whole snapshot. Damaged ones before it are logged.
    pub fn load(&self) -> Result<Option<Snapshot>, StoreError> {
        for number in self.numbers()?.into_iter().rev() {
            let Some(snapshot) = self.read(number)? else {
                tracing::warn!(path = %self.path(number).display(), "snapshot is damaged; trying an older one");
                continue;
            };
            return Ok(Some(snapshot));
        }
        Ok(None)
    }

    /// The snapshot at a commit; `None` if it is damaged.
    pub fn read(&self, number: u64) -> Result<Option<Snapshot>, StoreError> {
        let path = self.path(number);
        let mut file = File::open(&path).at("open", &path)?;
        let (position, length) = match check(&mut file, number).at("read", &path)? {
            Checked::Whole(position, length) => (position, length),
            Checked::Damaged => return Ok(None),
            Checked::OtherFormat => return Err(StoreError::SnapshotFormat { path }),
        };
        file.seek(SeekFrom::Start(HEADER_BYTES as u64)).at("read", &path)?;
        let state = BufReader::with_capacity(BUFFER_BYTES, file).take(length);
        Ok(Some(Snapshot { position, state: Box::new(state) }))
    }

    fn path(&self, number: u64) -> PathBuf {
        snapshot_path(&self.directory, number)
    }
}

fn snapshot_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:020}.snap"))
}

/// What a file is.
enum Checked {
    /// What was written: its position and the state's length.
    Whole(Position, u64),
    /// Not what was written.
    Damaged,
    /// What another version of the hub wrote.
    OtherFormat,
}

/// Reads the whole file.
fn check(file: &mut File, number: u64) -> io::Result<Checked> {
    let file_bytes = file.metadata()?.len();
    let frame = (HEADER_BYTES + LENGTH_BYTES + DIGEST_BYTES) as u64;
    let Some(state_bytes) = file_bytes.checked_sub(frame) else {
        return Ok(Checked::Damaged);
    };
    let mut input = BufReader::with_capacity(BUFFER_BYTES, file);
    let mut hash = Sha256::new();
    let mut header = [0; HEADER_BYTES];
    input.read_exact(&mut header)?;
    hash.update(header);
    let hashed = io::copy(
        &mut input.by_ref().take(state_bytes + LENGTH_BYTES as u64),
        &mut Hashing { inner: io::sink(), hash: &mut hash, bytes: 0 },
    )?;
    let mut digest = [0; DIGEST_BYTES];
    if hashed != state_bytes + LENGTH_BYTES as u64 || input.read_exact(&mut digest).is_err() {
        return Ok(Checked::Damaged);
    }
    let position = Position { chain: u64_at(&header, 8), number: u64_at(&header, 16), id: bytes_at(&header, 24) };
    let whole = position.number == number && hash.finalize()[..] == digest;
    Ok(match whole {
        true if header[..8] == MAGIC => Checked::Whole(position, state_bytes),
        // The checksum holds, so the version is what its writer meant.
        true if header[..FAMILY_BYTES] == MAGIC[..FAMILY_BYTES] => Checked::OtherFormat,
        _ => Checked::Damaged,
    })
}

/// Passes bytes on, hashing and counting them.
struct Hashing<W, H> {
    inner: W,
    hash: H,
    bytes: u64,
}

trait Absorb {
    fn absorb(&mut self, bytes: &[u8]);
}

impl Absorb for Sha256 {
    fn absorb(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }
}

impl Absorb for &mut Sha256 {
    fn absorb(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }
}

impl<W: Write, H: Absorb> Write for Hashing<W, H> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.absorb(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use tempfile::TempDir;

    use super::*;

    fn position(number: u64) -> Position {
        Position { chain: 3, number, id: [number as u8; 32] }
    }

    fn write(snapshots: &Snapshots, number: u64, state: &[u8]) {
        snapshots.write(position(number), &mut |out| out.write_all(state)).unwrap();
    }

    fn load(snapshots: &Snapshots) -> Option<(Position, Vec<u8>)> {
        let mut snapshot = snapshots.load().unwrap()?;
        let mut state = Vec::new();
        snapshot.state.read_to_end(&mut state).unwrap();
        Some((snapshot.position, state))
    }

    #[test]
    fn newest_snapshot_is_loaded_and_two_are_kept() {
        let directory = TempDir::new().unwrap();
        let snapshots = Snapshots::new(directory.path().join("snapshots"));
        assert_eq!(load(&snapshots), None);
        write(&snapshots, 9, b"");
        assert_eq!(load(&snapshots), Some((position(9), Vec::new())));
        let large = vec![7; 3 * BUFFER_BYTES + 5];
        write(&snapshots, 10, &large);
        write(&snapshots, 11, b"newest");
        assert_eq!(snapshots.numbers().unwrap(), [10, 11]);
        assert_eq!(load(&snapshots), Some((position(11), b"newest".to_vec())));
        std::fs::remove_file(snapshots.path(11)).unwrap();
        assert_eq!(load(&snapshots), Some((position(10), large)));
    }

    #[test]
    fn snapshot_damaged_anywhere_is_skipped_for_the_older_one() {
        let directory = TempDir::new().unwrap();
        let snapshots = Snapshots::new(directory.path().to_owned());
        write(&snapshots, 1, b"older");
        write(&snapshots, 2, b"newer");
        let path = snapshots.path(2);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            for bytes in [&flipped[..], &whole[..at]] {
                std::fs::write(&path, bytes).unwrap();
                assert_eq!(load(&snapshots), Some((position(1), b"older".to_vec())));
            }
        }
    }

    #[test]
    fn snapshot_of_another_format_is_named_and_not_passed_over() {
        let directory = TempDir::new().unwrap();
        let snapshots = Snapshots::new(directory.path().to_owned());
        write(&snapshots, 1, b"older");
        write(&snapshots, 2, b"newer");
        let path = snapshots.path(2);
        let mut bytes = std::fs::read(&path).unwrap();
        let end = bytes.len() - DIGEST_BYTES;
        bytes[FAMILY_BYTES] = b'1';
        let digest = Sha256::digest(&bytes[..end]);
        bytes[end..].copy_from_slice(&digest);
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(snapshots.load(), Err(StoreError::SnapshotFormat { .. })));
    }

    #[test]
    fn snapshot_that_fails_half_way_leaves_the_older_one() {
        let directory = TempDir::new().unwrap();
        let snapshots = Snapshots::new(directory.path().to_owned());
        write(&snapshots, 1, b"older");
        let mut fail = |out: &mut dyn Write| {
            out.write_all(b"half")?;
            Err(io::Error::other("no"))
        };
        assert!(snapshots.write(position(2), &mut fail).is_err());
        assert_eq!(snapshots.numbers().unwrap(), [1]);
        assert_eq!(load(&snapshots), Some((position(1), b"older".to_vec())));
    }
}
