//! The sandbox bank with a counter: people order transfers to the hub with small files.
//!
//! ```text
//! DIR/orders/NAME.json   {"amount": "5.00", "name": "…", "iban": "…"}, and `reference` (RF…) or `text`, or neither
//! DIR/bank/              the bank's own: state, staged messages, fetched files
//! DIR/lock               one process at a time
//! ```
//! An order is booked, announced, and gone; one that is refused is renamed to `NAME.refused`. It has no clock: every time
//! is an argument.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::behaviour::Behaviour;
use super::{IncomingTransfer, RunReport, SandboxBank, SandboxError, SandboxOptions};
use crate::bank::reference::ReferenceError;
use crate::bank::spool::{SpoolError, make_dir};
use crate::bank::transfer::Remittance;
use crate::details::AccountError;

/// Most bytes of an order.
const ORDER_MAX: u64 = 4096;

/// What somebody tells the bank to do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    amount: String,
    name: String,
    iban: String,
    reference: Option<String>,
    text: Option<String>,
}

/// Why an order is refused.
#[derive(Debug, Error)]
enum OrderError {
    #[error("it is longer than {ORDER_MAX} bytes")]
    TooLong,
    #[error("it is not an order")]
    Form(#[from] serde_json::Error),
    #[error("`{0}` is not an amount")]
    Amount(String),
    #[error("it has a reference and a text; a transfer carries one of them")]
    Both,
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    Bank(#[from] SandboxError),
}

/// What one round did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BranchRound {
    /// What the hub's files came to.
    #[serde(flatten)]
    pub run: RunReport,
    /// People's transfers to the hub.
    pub deposits: u64,
    /// Orders that were refused.
    pub refused: u64,
    /// The statement's name, if the day ended.
    pub statement: Option<String>,
}

impl BranchRound {
    /// Whether there was nothing to do.
    pub fn is_idle(&self) -> bool {
        *self == Self::default()
    }
}

/// The bank with its counter. Holds the directory's lock.
#[derive(Debug)]
pub struct Branch {
    bank: SandboxBank,
    orders: PathBuf,
    /// Length of a day; 0: it never ends by itself.
    day_ms: u64,
    opened_ms: u64,
    _lock: File,
}

impl Branch {
    /// Opens or founds a branch in `options.dir`. Its days are `day_ms` long, counted from 1970; 0: they do not end by
    /// themselves.
    pub fn open(options: SandboxOptions, behaviour: Behaviour, day_ms: u64, now_ms: u64) -> Result<Self, SandboxError> {
        let dir = options.dir;
        let orders = dir.join("orders");
        make_dir(&orders)?;
        let lock = lock(&dir.join("lock"))?;
        let bank = SandboxBank::open_with(SandboxOptions { dir: dir.join("bank"), ..options }, behaviour)?;
        Ok(Self { bank, orders, day_ms, opened_ms: now_ms, _lock: lock })
    }

    /// The bank.
    pub const fn bank(&self) -> &SandboxBank {
        &self.bank
    }

    /// The bank, for what happens beside the counter.
    pub const fn bank_mut(&mut self) -> &mut SandboxBank {
        &mut self.bank
    }

    /// Where orders are laid.
    pub fn orders(&self) -> &Path {
        &self.orders
    }

    /// One round: the counter's orders, the hub's files, and the statement when a day has ended.
    pub fn round(&mut self, now_ms: u64) -> Result<BranchRound, SandboxError> {
        let mut round = BranchRound::default();
        for path in self.waiting()? {
            match self.take_order(&path, now_ms) {
                Ok(()) => {
                    fs::remove_file(&path).map_err(SpoolError::at("remove", &path))?;
                    round.deposits += 1;
                }
                // The bank's own trouble is no fault of the order.
                Err(OrderError::Bank(error @ (SandboxError::Spool(_) | SandboxError::Io(_)))) => return Err(error),
                Err(error) => {
                    tracing::warn!(order = %path.display(), error = &error as &dyn std::error::Error, "refused an order");
                    fs::rename(&path, path.with_extension("refused")).map_err(SpoolError::at("rename", &path))?;
                    round.refused += 1;
                }
            }
        }
        round.run = self.bank.run_once(now_ms)?;
        let since = if self.bank.stated_ms() == 0 { self.opened_ms } else { self.bank.stated_ms() };
        if now_ms.checked_div(self.day_ms) > since.checked_div(self.day_ms) {
            round.statement = Some(self.bank.end_of_day(now_ms)?);
        }
        Ok(round)
    }

    fn waiting(&self) -> Result<Vec<PathBuf>, SpoolError> {
        let mut waiting = Vec::new();
        for item in fs::read_dir(&self.orders).map_err(SpoolError::at("list", &self.orders))? {
            let path = item.map_err(SpoolError::at("list", &self.orders))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                waiting.push(path);
            }
        }
        waiting.sort();
        Ok(waiting)
    }

    fn take_order(&mut self, path: &Path, now_ms: u64) -> Result<(), OrderError> {
        let at = |error| OrderError::Bank(SpoolError::at("read", path)(error).into());
        if fs::metadata(path).map_err(at)?.len() > ORDER_MAX {
            return Err(OrderError::TooLong);
        }
        let order: Order = serde_json::from_slice(&fs::read(path).map_err(at)?)?;
        let remittance = match (order.reference, order.text) {
            (Some(_), Some(_)) => return Err(OrderError::Both),
            (Some(reference), None) => Remittance::Reference(reference.parse()?),
            (None, Some(text)) => Remittance::Text(text),
            (None, None) => Remittance::None,
        };
        let transfer = IncomingTransfer {
            amount: Decimal::from_str_exact(&order.amount)
                .map_err(|_| OrderError::Amount(crate::details::clip(&order.amount)))?,
            debtor_name: order.name,
            debtor_iban: order.iban.parse()?,
            remittance,
        };
        self.bank.receive_transfer(&transfer, now_ms)?;
        Ok(())
    }
}

fn lock(path: &Path) -> Result<File, SandboxError> {
    let file = File::create(path).map_err(SpoolError::at("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SandboxError::Busy { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(SpoolError::at("lock", path)(error).into()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use super::super::tests::options;
    use super::*;
    use crate::bank::spool::Spool;
    use crate::bank::transfer::tests::NOW_MS;

    const DAY_MS: u64 = 86_400_000;

    fn branch(root: &Path) -> Result<Branch, SandboxError> {
        let spool = Spool::open(root).unwrap();
        Branch::open(options(root, &spool), Behaviour::default(), DAY_MS, NOW_MS)
    }

    #[test]
    fn order_is_booked_once_and_a_wrong_one_is_set_aside() {
        let root = tempfile::tempdir().unwrap();
        let mut branch = branch(root.path()).unwrap();
        let put = |name: &str, order: &str| fs::write(branch.orders().join(name), order).unwrap();
        let by = r#""name": "Ada", "iban": "NL91ABNA0417164300""#;
        put("a.json", &format!(r#"{{"amount": "5.00", "reference": "RF18539007547034", {by}}}"#));
        put("b.json", &format!(r#"{{"amount": "1.5", "text": "what for", {by}}}"#));
        put("c.json", &format!(r#"{{"amount": "1", {by}}}"#));
        put("d.json", &format!(r#"{{"amount": "0.001", {by}}}"#));
        put("e.json", "not an order");
        put("f.json", &" ".repeat(usize::try_from(ORDER_MAX).unwrap() + 1));
        put("g.part", "still being written");
        let round = branch.round(NOW_MS).unwrap();
        assert_eq!((round.deposits, round.refused, round.statement), (3, 3, None));
        assert_eq!(branch.bank().balance().to_string(), "7.50");
        assert!(branch.round(NOW_MS).unwrap().is_idle());
        assert!(branch.orders().join("e.refused").exists());
    }

    #[test]
    fn day_ends_once() {
        let root = tempfile::tempdir().unwrap();
        let mut branch = branch(root.path()).unwrap();
        let midnight = (NOW_MS / DAY_MS + 1) * DAY_MS;
        assert_eq!(branch.round(midnight - 1).unwrap().statement, None);
        assert!(branch.round(midnight).unwrap().statement.is_some());
        assert_eq!(branch.round(midnight + DAY_MS - 1).unwrap().statement, None);
        assert!(branch.round(midnight + DAY_MS).unwrap().statement.is_some());
    }

    #[test]
    fn second_process_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let first = branch(root.path()).unwrap();
        assert!(matches!(branch(root.path()), Err(SandboxError::Busy { .. })));
        drop(first);
        assert!(branch(root.path()).is_ok());
    }
}
