//! The few file operations whose order decides what survives a power cut.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::StoreError;

/// Names what was being done, and to which file, when an I/O call failed.
pub(super) trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io { doing, path: path.to_owned(), source })
    }
}

/// Makes names created, renamed or removed in `directory` durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Creates `directory` durably: its parent knows it after a power cut.
pub(super) fn create_directory(directory: &Path) -> Result<(), StoreError> {
    std::fs::create_dir_all(directory).at("create", directory)?;
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_directory(parent.unwrap_or(Path::new("."))).at("sync", directory)
}

/// Puts a whole new file in the place of `path`, or leaves the old one: temporary file, sync, rename, sync of the
/// directory. The temporary file is `<path>.tmp`; a left-over one is overwritten.
pub(super) fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let temporary = temporary_name(path);
    let written = (|| {
        let mut file = File::create(&temporary)?;
        write(&mut file)?;
        file.sync_all()
    })();
    if let Err(error) = written {
        // Best effort: a left-over file is overwritten next time.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    std::fs::rename(&temporary, path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_directory(parent.unwrap_or(Path::new(".")))
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

/// The right to write in a data directory, held as long as the value lives. The kernel releases it when the process
/// ends, however it ends.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes `DATA/lock`, or says that another process has it.
    pub fn take(data: &Path) -> Result<Self, StoreError> {
        let path = data.join("lock");
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).at("open", &path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked { path }),
            Err(TryLockError::Error(source)) => return Err(source).at("lock", &path),
        }
        // The process id is for the person who looks; nothing reads it.
        file.set_len(0).at("write", &path)?;
        writeln!(file, "{}", std::process::id()).at("write", &path)?;
        Ok(Self { _file: file })
    }
}

/// `N` bytes of `bytes` at `at`. Panics when they are not there: callers have checked the length.
pub(super) fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// A little-endian `u64` of `bytes` at `at`, under the same condition.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, at))
}

/// A little-endian `u32` of `bytes` at `at`, under the same condition.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(bytes, at))
}
