//! The sandbox bank of `dev`: money arrives only as files in the hub's inbox. People order transfers with a small file.
//!
//! An order is `DIR/sandbox/orders/<name>.json`: `{"amount": "5.00", "reference": "RF…", "name": "…", "iban": "…"}`. The
//! bank takes it, books it, and announces it with a camt.054; the order is gone then.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::sync::Mutex;
use weir_client::protocol::amount::Amount;

use crate::bank::{Currency, IncomingTransfer, Remittance, SandboxBank, SandboxOptions, Spool};
use crate::clock::wall_ms;
use crate::settlement::BankAccount;

/// How often the bank looks at its directories.
const ROUND: Duration = Duration::from_millis(20);
/// Most bytes of an order.
const ORDER_MAX: u64 = 4096;

/// What somebody tells the sandbox bank to do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    amount: Amount,
    reference: String,
    name: String,
    iban: String,
}

/// The bank, shared by its own round and by `dev`'s people.
#[derive(Debug, Clone)]
pub(super) struct DevBank {
    bank: Arc<Mutex<SandboxBank>>,
    orders: PathBuf,
    fetched: PathBuf,
}

impl DevBank {
    pub(super) fn open(dir: &Path, spool: &Spool, account: &BankAccount) -> anyhow::Result<Self> {
        let orders = dir.join("orders");
        std::fs::create_dir_all(&orders).with_context(|| format!("cannot create `{}`", orders.display()))?;
        let bank = SandboxBank::open(SandboxOptions {
            dir: dir.join("bank"),
            outbox: spool.outbox().to_owned(),
            inbox: spool.inbox().to_owned(),
            name: account.name.clone(),
            iban: account.iban,
            currency: Currency::EUR,
            rejects: std::collections::BTreeMap::default(),
            batch_booking: false,
        })?;
        Ok(Self { bank: Arc::new(Mutex::new(bank)), orders, fetched: dir.join("bank/fetched") })
    }

    /// Serves its directories until the task is dropped.
    pub(super) async fn serve(self) {
        let mut tick = tokio::time::interval(ROUND);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Err(error) = self.round().await {
                tracing::error!(error = format!("{error:#}"), "the sandbox bank");
            }
        }
    }

    async fn round(&self) -> anyhow::Result<()> {
        let mut bank = self.bank.lock().await;
        for entry in std::fs::read_dir(&self.orders)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                if let Err(error) = take_order(&mut bank, &path) {
                    tracing::warn!(order = %path.display(), error = format!("{error:#}"), "refused an order");
                    std::fs::rename(&path, path.with_extension("refused"))?;
                } else {
                    std::fs::remove_file(&path)?;
                }
            }
        }
        bank.run_once(wall_ms())?;
        Ok(())
    }

    /// Money arrives at the hub's account.
    pub(super) async fn transfer(&self, transfer: IncomingTransfer) -> anyhow::Result<()> {
        self.bank.lock().await.receive_transfer(&transfer, wall_ms())?;
        Ok(())
    }

    /// Where the bank keeps a file that it fetched.
    pub(super) fn fetched(&self, name: &str) -> Option<PathBuf> {
        Some(self.fetched.join(name)).filter(|path| path.exists())
    }

    /// The day's statement.
    pub(super) async fn end_of_day(&self) -> anyhow::Result<()> {
        self.bank.lock().await.end_of_day(wall_ms())?;
        Ok(())
    }
}

fn take_order(bank: &mut SandboxBank, path: &Path) -> anyhow::Result<()> {
    let size = std::fs::metadata(path)?.len();
    anyhow::ensure!(size <= ORDER_MAX, "it is longer than {ORDER_MAX} bytes");
    let order: Order = serde_json::from_slice(&std::fs::read(path)?)?;
    let transfer = IncomingTransfer {
        amount: order.amount.to_decimal(),
        debtor_name: order.name,
        debtor_iban: order.iban.parse()?,
        remittance: Remittance::Reference(order.reference.parse()?),
    };
    bank.receive_transfer(&transfer, wall_ms())?;
    Ok(())
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
