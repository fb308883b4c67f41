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

    /// Whether a file waits here.
    pub(super) fn has(&self, name: &str) -> bool {
        self.staged.join(name).exists()
    }

    /// Whether files of these names wait here and are the planned ones.
    pub(super) fn holds(&self, names: &[String], planned: Hash) -> Result<bool, SettlementError> {
        let mut files = Vec::with_capacity(names.len());
        for name in names {
            match sha256_of(&self.staged.join(name)) {
                Ok(sha256) => files.push(PlanFile { name: name.clone(), sha256 }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(source) => return Err(failed("read", &self.staged.join(name))(source)),
            }
        }
        Ok(file_root(&files) == planned)
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

    /// Removes what waits for a window that has no plan.
    pub(super) fn clear(&self, hub: &HubId, window: u64, currency: Currency) -> Result<(), SettlementError> {
        let mut removed = false;
        for entry in fs::read_dir(&self.staged).map_err(failed("list", &self.staged))? {
            let entry = entry.map_err(failed("list", &self.staged))?;
            if entry.file_name().to_str().is_some_and(|name| is_file_of(name, hub, window, currency)) {
                self.fuse.burn()?;
                fs::remove_file(entry.path()).map_err(failed("remove", &entry.path()))?;
                self.fuse.burn()?;
                removed = true;
            }
        }
        if removed { self.sync() } else { Ok(()) }
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
