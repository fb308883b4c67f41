//! The sandbox bank of `dev`: money arrives only as files in the hub's inbox. People order transfers with a small file in
//! `DIR/sandbox/orders/`; see [`Branch`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::bank::{Behaviour, Branch, Currency, IncomingTransfer, SandboxOptions, Spool};
use crate::clock::wall_ms;
use crate::settlement::BankAccount;

/// How often the bank looks at its directories.
const ROUND: Duration = Duration::from_millis(20);

/// The bank, shared by its own round and by `dev`'s people.
#[derive(Debug, Clone)]
pub(super) struct DevBank {
    branch: Arc<Mutex<Branch>>,
    fetched: PathBuf,
}

impl DevBank {
    pub(super) fn open(dir: &Path, spool: &Spool, account: &BankAccount) -> anyhow::Result<Self> {
        let options = SandboxOptions {
            dir: dir.to_owned(),
            outbox: spool.outbox().to_owned(),
            inbox: spool.inbox().to_owned(),
            name: account.name.clone(),
            iban: account.iban,
            currency: Currency::EUR,
            rejects: std::collections::BTreeMap::default(),
            batch_booking: false,
        };
        // Days end when `dev` says so.
        let branch = Branch::open(options, Behaviour::default(), 0, wall_ms())?;
        Ok(Self { branch: Arc::new(Mutex::new(branch)), fetched: dir.join("bank/fetched") })
    }

    /// Serves its directories until the task is dropped.
    pub(super) async fn serve(self) {
        let mut tick = tokio::time::interval(ROUND);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Err(error) = self.branch.lock().await.round(wall_ms()) {
                tracing::error!(error = &error as &dyn std::error::Error, "the sandbox bank");
            }
        }
    }

    /// Money arrives at the hub's account.
    pub(super) async fn transfer(&self, transfer: IncomingTransfer) -> anyhow::Result<()> {
        self.branch.lock().await.bank_mut().receive_transfer(&transfer, wall_ms())?;
        Ok(())
    }

    /// Where the bank keeps a file that it fetched.
    pub(super) fn fetched(&self, name: &str) -> Option<PathBuf> {
        Some(self.fetched.join(name)).filter(|path| path.exists())
    }

    /// The day's statement.
    pub(super) async fn end_of_day(&self) -> anyhow::Result<()> {
        self.branch.lock().await.bank_mut().end_of_day(wall_ms())?;
        Ok(())
    }
}

/// A valid German IBAN of nobody: bank code 10000000, account `number`.
pub(super) fn nobodys_iban(number: u64) -> String {
    let account = format!("10000000{:010}", number % 10_000_000_000);
    // ISO 7064 mod 97-10 over account ‖ "DE" as 1314 ‖ "00".
    let rest = format!("{account}131400").bytes().fold(0_u64, |rest, digit| (rest * 10 + u64::from(digit - b'0')) % 97);
    format!("DE{:02}{account}", 98 - rest)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    #[test]
    fn nobodys_iban_has_right_check_digits() {
        for number in [0, 1, 42, 9_999_999_999] {
            nobodys_iban(number).parse::<crate::bank::Iban>().unwrap();
        }
    }
}
