//! The files of a plan on their way to the bank: staged, checked, moved to the outbox once.
//!
//! Only [`Stage`] touches `staged/`. A file that has left it is never made again: whether the bank has fetched it, nobody
//! here can know.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use weir_protocol::amount::Currency;
use weir_protocol::hash::Hash;
use weir_protocol::id::HubId;

use super::fuse::Fuse;
use super::plan::{Draft, PlanFile, file_root, is_file_of};
use super::side::side_by_side;
use super::{SettlementError, io as failed};
use crate::bank::{inspect_transfers, write_atomically};

/// Where files wait until the bank may be told.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    staged: PathBuf,
    outbox: PathBuf,
    fuse: Fuse,
}

impl Stage {
    /// The directory, made where it is missing.
    pub(super) fn open(staged: PathBuf, outbox: PathBuf, fuse: Fuse) -> Result<Self, SettlementError> {
        fs::create_dir_all(&staged).map_err(failed("create", &staged))?;
        Ok(Self { staged, outbox, fuse })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.staged
    }

    /// Writes the files of a draft, each whole or not at all; what they are.
    pub(super) fn write(&self, draft: &Draft) -> Result<Vec<PlanFile>, SettlementError> {
        self.clear_but(&draft.names(), |name| draft.is_file(name))?;
        draft.write(|name, write| {
            self.fuse.burn()?;
            write_atomically(&self.staged, name, |out| {
                write(out)?;
                out.flush().map_err(failed("write into", &self.staged))?;
                // Whole, and not there under its name.
                self.fuse.burn()
            })?;
            // By other code than the writer's, before anybody can plan it.
            let path = self.staged.join(name);
            inspect_transfers(File::open(&path).map_err(failed("open", &path))?)?;
            self.fuse.burn()
        })
    }

    /// Whether files of these names wait here and are the planned ones.
    pub(super) fn holds(&self, names: &[String], planned: Hash) -> Result<bool, SettlementError> {
        let files = side_by_side(names.len(), |at| {
            let Some(name) = names.get(at) else { return Ok(None) };
            match sha256_of(&self.staged.join(name)) {
                Ok(sha256) => Ok(Some(PlanFile { name: name.clone(), sha256 })),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(failed("read", &self.staged.join(name))(source)),
            }
        })?;
        let all: Option<Vec<PlanFile>> = files.into_iter().collect();
        Ok(all.is_some_and(|all| file_root(&all) == planned))
    }

    /// Whether a file waits here and is this one.
    pub(super) fn is(&self, file: &PlanFile) -> Result<bool, SettlementError> {
        let path = self.staged.join(&file.name);
        Ok(sha256_of(&path).map_err(failed("read", &path))? == file.sha256)
    }

    /// Hands a file to the bank.
    pub(super) fn release(&self, name: &str) -> Result<(), SettlementError> {
        let staged = self.staged.join(name);
        self.fuse.burn()?;
        fs::rename(&staged, self.outbox.join(name)).map_err(failed("move to the outbox", &staged))?;
        self.fuse.burn()?;
        self.sync()?;
        self.fuse.burn()
    }

    /// The names of all files that wait here for a window.
    pub(super) fn waiting(&self, hub: &HubId, window: u64, currency: Currency) -> Result<Vec<String>, SettlementError> {
        self.list(|name| is_file_of(name, hub, window, currency))
    }

    /// Removes what waits for a window that has no plan.
    pub(super) fn clear(&self, hub: &HubId, window: u64, currency: Currency) -> Result<(), SettlementError> {
        self.clear_but(&[], |name| is_file_of(name, hub, window, currency))
    }

    /// Removes what is `of` something, but for these.
    fn clear_but(&self, names: &[String], of: impl Fn(&str) -> bool) -> Result<(), SettlementError> {
        let mut removed = false;
        for name in self.list(of)? {
            if names.contains(&name) {
                continue;
            }
            let path = self.staged.join(name);
            self.fuse.burn()?;
            fs::remove_file(&path).map_err(failed("remove", &path))?;
            self.fuse.burn()?;
            removed = true;
        }
        if removed { self.sync() } else { Ok(()) }
    }

    fn list(&self, of: impl Fn(&str) -> bool) -> Result<Vec<String>, SettlementError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.staged).map_err(failed("list", &self.staged))? {
            let entry = entry.map_err(failed("list", &self.staged))?;
            names.extend(entry.file_name().to_str().filter(|name| of(name)).map(str::to_owned));
        }
        Ok(names)
    }

    fn sync(&self) -> Result<(), SettlementError> {
        for dir in [&self.outbox, &self.staged] {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))?;
        }
        Ok(())
    }
}

/// SHA-256 of a file's content.
pub fn sha256_of(path: &Path) -> io::Result<Hash> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Hash(hash.finalize().into())),
            read => hash.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}
