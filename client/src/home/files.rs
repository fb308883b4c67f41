//! Files that are there whole or not at all.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::HomeError;

/// A folder's `lock` file, held by this process alone. Let go when it is dropped, even while a child that another thread is
/// starting has a copy of the file for a moment.
#[derive(Debug)]
pub(crate) struct Held(File);

impl Held {
    /// `WouldBlock`: somebody else holds it.
    pub(crate) fn take(path: &Path) -> Result<Self, TryLockError> {
        let file = File::options().create(true).truncate(false).write(true).open(path).map_err(TryLockError::Error)?;
        file.try_lock()?;
        Ok(Self(file))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Closing it does the same, as soon as nobody has a copy.
        let _ = self.0.unlock();
    }
}

pub(super) fn io(verb: &'static str, path: &Path, cause: io::Error) -> HomeError {
    HomeError::Io { verb, path: path.to_owned(), cause: Arc::new(cause) }
}

/// A folder that only its owner may look into; made with its parents, durably.
pub(super) fn create_folder(path: &Path) -> Result<(), HomeError> {
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|cause| io("create", path, cause))?;
    sync_parent(path)
}

/// The bytes, or `None` when there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, HomeError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(io("read", path, cause)),
    }
}

/// Replaces a file durably: temporary file, sync, rename, sync of the folder. Mode 0600.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    put(path, bytes, true)?;
    sync_parent(path)
}

fn put(path: &Path, bytes: &[u8], sync: bool) -> Result<(), HomeError> {
    let temporary = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary).map_err(|cause| io("create", &temporary, cause))?;
    file.write_all(bytes).map_err(|cause| io("write", &temporary, cause))?;
    if sync {
        file.sync_all().map_err(|cause| io("sync", &temporary, cause))?;
    }
    fs::rename(&temporary, path).map_err(|cause| io("rename", path, cause))
}

fn sync_parent(path: &Path) -> Result<(), HomeError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(|cause| io("sync", parent, cause))
}

pub(super) fn remove(path: &Path) -> Result<(), HomeError> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(io("remove", path, cause)),
    }
}

pub(super) fn to_json<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, HomeError> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|cause| HomeError::Damaged { path: path.to_owned(), cause: cause.to_string() })?;
    bytes.push(b'\n');
    Ok(bytes)
}

pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), HomeError> {
    write(path, &to_json(path, value)?)
}

/// Replaces a file whole, without a sync.
pub(super) fn replace_json<T: Serialize>(path: &Path, value: &T) -> Result<(), HomeError> {
    put(path, &to_json(path, value)?, false)
}

/// The value, or `None` when there is no such file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, HomeError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|cause| HomeError::Damaged { path: path.to_owned(), cause: cause.to_string() })
}

/// The values of a folder's entries, by name; entries without a file are left out. No folder: none.
pub(super) fn read_folder<T: DeserializeOwned>(
    folder: &Path,
    file: impl Fn(&Path) -> Option<PathBuf>,
) -> Result<Vec<T>, HomeError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // A home restored from its keys alone has no other folder yet.
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(io("list", folder, cause)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|cause| io("list", folder, cause))?.path();
        paths.extend(file(&path).filter(|path| path.extension().is_some_and(|extension| extension == "json")));
    }
    paths.sort();
    let mut values = Vec::with_capacity(paths.len());
    for path in paths {
        values.extend(read_json(&path)?);
    }
    Ok(values)
}
