//! How many payments a file of a plan has at most: a setting when it is planned, and fixed from then on.
//!
//! It is kept in `splits.json` beside `staged/` for every plan in several files that are not of the usual size, before the
//! plan is committed. So a plan's files are the same bytes under the same names whatever the setting becomes. Should that
//! file be lost, files of another size are no files of the plan: a plan that the bank has not been told is refused at `run`
//! and can be given up. What the bank says of a file it says by its name, which has the size in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use weir_protocol::amount::Currency;

use super::SettlementError;
use crate::bank::{MAX_PAYMENTS, write_atomically};

const NAME: &str = "splits.json";

/// The sizes of plans' files.
#[derive(Debug)]
pub(super) struct Splits {
    root: PathBuf,
    /// By window and currency: `7-EUR`.
    unusual: Mutex<BTreeMap<String, usize>>,
}

impl Splits {
    /// What was fixed.
    pub(super) fn load(root: &Path) -> Result<Self, SettlementError> {
        let path = root.join(NAME);
        let read = |source| SettlementError::Io { action: "read", path: path.clone(), source };
        let unusual = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| read(error.into()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(read(source)),
        };
        Ok(Self { root: root.to_owned(), unusual: Mutex::new(unusual) })
    }

    /// Most payments in one file of a window's plan.
    pub(super) fn of(&self, window: u64, currency: Currency) -> usize {
        let unusual = self.unusual.lock().unwrap_or_else(PoisonError::into_inner);
        unusual.get(&key(window, currency)).copied().unwrap_or(MAX_PAYMENTS)
    }

    /// Fixes it, before the plan is committed.
    pub(super) fn fix(&self, window: u64, currency: Currency, per_file: usize) -> Result<(), SettlementError> {
        let mut unusual = self.unusual.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(window, currency);
        if unusual.get(&key).copied().unwrap_or(MAX_PAYMENTS) == per_file {
            return Ok(());
        }
        let mut changed = unusual.clone();
        if per_file == MAX_PAYMENTS {
            changed.remove(&key);
        } else {
            changed.insert(key, per_file);
        }
        let path = self.root.join(NAME);
        write_atomically(&self.root, NAME, |out| {
            serde_json::to_writer(out, &changed).map_err(|error| SettlementError::Io {
                action: "write",
                path,
                source: error.into(),
            })
        })?;
        *unusual = changed;
        Ok(())
    }
}

fn key(window: u64, currency: Currency) -> String {
    format!("{window}-{currency}")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use super::*;

    #[test]
    fn size_is_kept_over_a_restart_and_can_be_fixed_again() {
        let root = tempfile::tempdir().unwrap();
        let splits = Splits::load(root.path()).unwrap();
        splits.fix(7, Currency::EUR, MAX_PAYMENTS).unwrap();
        assert!(!root.path().join(NAME).exists(), "the usual size need not be remembered");
        splits.fix(7, Currency::EUR, 5_000).unwrap();
        splits.fix(8, Currency::EUR, 1).unwrap();
        let splits = Splits::load(root.path()).unwrap();
        assert_eq!([6, 7, 8].map(|window| splits.of(window, Currency::EUR)), [MAX_PAYMENTS, 5_000, 1]);
        splits.fix(7, Currency::EUR, MAX_PAYMENTS).unwrap();
        assert_eq!(Splits::load(root.path()).unwrap().of(7, Currency::EUR), MAX_PAYMENTS);
        std::fs::write(root.path().join(NAME), "{").unwrap();
        assert!(matches!(Splits::load(root.path()), Err(SettlementError::Io { .. })));
    }
}
