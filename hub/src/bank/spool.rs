//! The directories through which files come and go, each move atomic and durable.
//!
//! ```text
//! outbox/            what the bank is to fetch
//! inbox/             what the bank has brought
//! inbox/processed/   taken
//! inbox/rejected/    not taken; NAME.reason beside it says why
//! ```
//! Whatever carries the files (SFTP, EBICS) sees whole ones only, under their final names. It must not look into them.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Longest file name that is written.
const MAX_NAME: usize = 120;

/// A file operation failed. Infra family: whether a write took effect is open; the same write again is safe.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// The operating system refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// A name that could leave the directory or be taken for an unfinished file.
    #[error("`{0}` cannot be a file name here")]
    Name(String),
}

impl SpoolError {
    pub(super) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// A file in the inbox.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InboxFile {
    name: OsString,
    path: PathBuf,
}

impl InboxFile {
    /// Its name, for people.
    pub fn name(&self) -> Cow<'_, str> {
        self.name.to_string_lossy()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it for reading.
    pub fn open(&self) -> Result<File, SpoolError> {
        File::open(&self.path).map_err(SpoolError::at("open", &self.path))
    }
}

/// The hub's side of the directories.
#[derive(Debug, Clone)]
pub struct Spool {
    outbox: PathBuf,
    inbox: PathBuf,
}

impl Spool {
    /// The directories inside `root`, made where they are missing.
    pub fn open(root: &Path) -> Result<Self, SpoolError> {
        let spool = Self { outbox: root.join("outbox"), inbox: root.join("inbox") };
        for dir in [spool.outbox.clone(), spool.inbox.clone(), spool.processed_dir(), spool.rejected_dir()] {
            make_dir(&dir)?;
        }
        sync_dir(root)?;
        Ok(spool)
    }

    /// What the bank is to fetch.
    pub fn outbox(&self) -> &Path {
        &self.outbox
    }

    /// What the bank has brought.
    pub fn inbox(&self) -> &Path {
        &self.inbox
    }

    /// What was taken.
    pub fn processed_dir(&self) -> PathBuf {
        self.inbox.join("processed")
    }

    /// What was not.
    pub fn rejected_dir(&self) -> PathBuf {
        self.inbox.join("rejected")
    }

    /// Writes a file for the bank; see [`write_atomically`]. With [`super::write_transfers`] as `write`, nothing is there
    /// if that refuses.
    pub fn write_outbox<T, E: From<SpoolError>>(
        &self,
        name: &str,
        write: impl FnOnce(&mut BufWriter<File>) -> Result<T, E>,
    ) -> Result<T, E> {
        write_atomically(&self.outbox, name, write)
    }

    /// The finished files in the inbox, by name. Directories, links, and what may still be written (a leading dot, or a
    /// name that ends in `.part`, `.tmp`, `.filepart` or `~`) are left alone.
    pub fn inbox_files(&self) -> Result<Vec<InboxFile>, SpoolError> {
        finished_files(&self.inbox)
    }

    /// Moves a file of the inbox to `processed/`, beside what is there; gives its new place.
    pub fn mark_processed(&self, file: &InboxFile) -> Result<PathBuf, SpoolError> {
        let to = free_name(&self.processed_dir(), &file.name);
        self.move_from_inbox(file, to)
    }

    /// Moves a file of the inbox to `rejected/` and writes `reason` beside it; gives its new place.
    pub fn mark_rejected(&self, file: &InboxFile, reason: &str) -> Result<PathBuf, SpoolError> {
        let to = free_name(&self.rejected_dir(), &file.name);
        // The reason first: a file without one would leave the operator with nothing.
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(".reason");
        write_file(&self.rejected_dir(), &name, |out| {
            let target = self.rejected_dir();
            writeln!(out, "{reason}").map_err(SpoolError::at("write into", &target))
        })?;
        self.move_from_inbox(file, to)
    }

    fn move_from_inbox(&self, file: &InboxFile, to: PathBuf) -> Result<PathBuf, SpoolError> {
        fs::rename(&file.path, &to).map_err(SpoolError::at("move", &file.path))?;
        sync_dir(to.parent().unwrap_or(&self.inbox))?;
        sync_dir(&self.inbox)?;
        Ok(to)
    }
}

/// Writes `dir/name` so that it is there whole or not at all, also after a power cut: temporary file, sync, rename, sync
/// of the directory. What was there under the name is replaced. If `write` fails, nothing is there.
pub fn write_atomically<T, E: From<SpoolError>>(
    dir: &Path,
    name: &str,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<T, E>,
) -> Result<T, E> {
    check_name(name)?;
    write_file(dir, name.as_ref(), write)
}

fn write_file<T, E: From<SpoolError>>(
    dir: &Path,
    name: &std::ffi::OsStr,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<T, E>,
) -> Result<T, E> {
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(".part");
    let temporary = dir.join(temporary);
    let result = write_and_sync(&temporary, write).and_then(|value| {
        let path = dir.join(name);
        fs::rename(&temporary, &path).map_err(SpoolError::at("create", &path))?;
        sync_dir(dir)?;
        Ok(value)
    });
    if result.is_err() {
        // Best effort: what stays is ignored by every reader and overwritten by the next try.
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn write_and_sync<T, E: From<SpoolError>>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<T, E>,
) -> Result<T, E> {
    let file = File::create(path).map_err(SpoolError::at("create", path))?;
    let mut out = BufWriter::with_capacity(64 << 10, file);
    let value = write(&mut out)?;
    let file = out.into_inner().map_err(|error| SpoolError::at("write", path)(error.into_error()))?;
    file.sync_all().map_err(SpoolError::at("sync", path))?;
    Ok(value)
}

/// The finished files of `dir`, by name.
pub(super) fn finished_files(dir: &Path) -> Result<Vec<InboxFile>, SpoolError> {
    let mut files = Vec::new();
    for item in fs::read_dir(dir).map_err(SpoolError::at("list", dir))? {
        let item = item.map_err(SpoolError::at("list", dir))?;
        let kind = item.file_type().map_err(SpoolError::at("look at", &item.path()))?;
        if kind.is_file() && is_finished(&item.file_name()) {
            files.push(InboxFile { name: item.file_name(), path: item.path() });
        }
    }
    files.sort();
    Ok(files)
}

fn is_finished(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy().to_ascii_lowercase();
    let unfinished = [".part", ".tmp", ".filepart", "~"];
    !name.starts_with('.') && !unfinished.iter().any(|end| name.ends_with(end))
}

fn check_name(name: &str) -> Result<(), SpoolError> {
    let fits = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        && is_finished(name.as_ref());
    if fits { Ok(()) } else { Err(SpoolError::Name(crate::details::clip(name))) }
}

/// `dir/name`, or `dir/name.1` and so on if that is taken: nothing that was kept is overwritten.
fn free_name(dir: &Path, name: &std::ffi::OsStr) -> PathBuf {
    let mut path = dir.join(name);
    let mut number = 0_u64;
    while path.symlink_metadata().is_ok() {
        number += 1;
        let mut numbered = name.to_owned();
        numbered.push(format!(".{number}"));
        path = dir.join(numbered);
    }
    path
}

pub(super) fn make_dir(dir: &Path) -> Result<(), SpoolError> {
    fs::create_dir_all(dir).map_err(SpoolError::at("create", dir))
}

/// Makes the names in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), SpoolError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(SpoolError::at("sync", dir))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use super::*;

    fn put(spool: &Spool, name: &str) -> Result<(), SpoolError> {
        write_atomically(spool.inbox(), name, |out| {
            out.write_all(b"x").map_err(SpoolError::at("write", Path::new(name)))
        })
    }

    fn names(spool: &Spool) -> Vec<String> {
        spool.inbox_files().unwrap().iter().map(|file| file.name().into_owned()).collect()
    }

    #[test]
    fn inbox_lists_finished_files_by_name() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path()).unwrap();
        for name in ["b.xml", "a.xml", "B.xml"] {
            put(&spool, name).unwrap();
        }
        for name in [".hidden.xml", "c.xml.part", "c.TMP", "c.xml.filepart", "c~"] {
            fs::write(spool.inbox().join(name), "x").unwrap();
        }
        std::os::unix::fs::symlink("/", spool.inbox().join("link.xml")).unwrap();
        assert_eq!(names(&spool), ["B.xml", "a.xml", "b.xml"]);
    }

    #[test]
    fn file_whose_writing_fails_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path()).unwrap();
        let failed: Result<(), SpoolError> = spool.write_outbox("a.xml", |out| {
            out.write_all(b"half").unwrap();
            Err(SpoolError::Name("no".to_owned()))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(spool.outbox()).unwrap().count(), 0);
    }

    #[test]
    fn processed_file_never_replaces_an_older_one() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path()).unwrap();
        for expected in ["a.xml", "a.xml.1", "a.xml.2"] {
            put(&spool, "a.xml").unwrap();
            let file = spool.inbox_files().unwrap().remove(0);
            let to = spool.mark_processed(&file).unwrap();
            assert_eq!(to, spool.processed_dir().join(expected));
        }
        assert_eq!(fs::read_dir(spool.processed_dir()).unwrap().count(), 3);
    }

    #[test]
    fn rejected_file_has_its_reason_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path()).unwrap();
        put(&spool, "a.xml").unwrap();
        let file = spool.inbox_files().unwrap().remove(0);
        spool.mark_rejected(&file, "sums differ").unwrap();
        assert!(names(&spool).is_empty());
        assert!(spool.rejected_dir().join("a.xml").is_file());
        assert_eq!(fs::read_to_string(spool.rejected_dir().join("a.xml.reason")).unwrap(), "sums differ\n");
    }

    #[test]
    fn names_that_could_escape_or_hide_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path()).unwrap();
        assert!(put(&spool, &"x".repeat(MAX_NAME)).is_ok());
        for bad in ["", "../a", "a/b", ".a", "a.part", "a.tmp", "a b", "ä", &"x".repeat(MAX_NAME + 1)] {
            assert!(matches!(put(&spool, bad), Err(SpoolError::Name(_))), "{bad}");
        }
    }
}
