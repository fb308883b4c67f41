//! Which lane a payment was given to, kept before it is sent: the same reference again asks the same lane, which is what
//! makes a retry safe. No other lane knows of it.
//!
//! `orders/REFERENCE.json` in the home; written durably before the payment, removed when it is refused for good.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde::{Deserialize, Serialize};
use weir_client::protocol::amount::Amount;
use weir_client::protocol::id::{AccountId, LaneId, Reference};

use super::failure::Failure;

/// An order as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptOrder {
    pub(super) reference: Reference,
    pub(super) lane: LaneId,
    pub(super) payee: AccountId,
    pub(super) amount: Amount,
}

/// The folder of a home that keeps them.
#[derive(Debug)]
pub(super) struct Orders {
    folder: PathBuf,
}

impl Orders {
    pub(super) fn of(home: &Path) -> Self {
        Self { folder: home.join("orders") }
    }

    /// What this reference was used for, if it was.
    pub(super) fn find(&self, reference: &Reference) -> Result<Option<KeptOrder>, Failure> {
        let path = self.path(reference);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(anyhow!(error).context(format!("cannot read `{}`", path.display())).into()),
        };
        let order = serde_json::from_slice(&bytes).with_context(|| format!("`{}` is damaged", path.display()))?;
        Ok(Some(order))
    }

    /// Keeps an order; durable when it returns.
    pub(super) fn keep(&self, order: &KeptOrder) -> Result<(), Failure> {
        let path = self.path(&order.reference);
        let write = || -> io::Result<()> {
            if !self.folder.is_dir() {
                fs::create_dir_all(&self.folder)?;
                self.folder.parent().map_or(Ok(()), sync_folder)?;
            }
            let temporary = path.with_extension("new");
            let mut options = OpenOptions::new();
            options.create(true).truncate(true).write(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&temporary)?;
            file.write_all(&serde_json::to_vec(order)?)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            sync_folder(&self.folder)
        };
        write().with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(())
    }

    /// Forgets an order that was refused for good: its reference is free again.
    pub(super) fn forget(&self, reference: &Reference) -> Result<(), Failure> {
        let path = self.path(reference);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(anyhow!(error).context(format!("cannot remove `{}`", path.display())).into())
            }
            _ => Ok(()),
        }
    }

    fn path(&self, reference: &Reference) -> PathBuf {
        self.folder.join(format!("{reference}.json"))
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use weir_client::protocol::keys::PublicKey;

    #[test]
    fn order_is_found_until_it_is_forgotten_and_a_damaged_one_stops() {
        let home = tempfile::tempdir().unwrap();
        let orders = Orders::of(home.path());
        let order = KeptOrder {
            reference: Reference([1; 32]),
            lane: LaneId([2; 32]),
            payee: AccountId(PublicKey([3; 32])),
            amount: "0.05".parse().unwrap(),
        };
        assert_eq!(orders.find(&order.reference).unwrap(), None);
        orders.keep(&order).unwrap();
        orders.keep(&order).unwrap();
        assert_eq!(orders.find(&order.reference).unwrap(), Some(order));
        fs::write(orders.path(&order.reference), "{").unwrap();
        assert!(orders.find(&order.reference).unwrap_err().text().contains("is damaged"));
        orders.forget(&order.reference).unwrap();
        orders.forget(&order.reference).unwrap();
        assert_eq!(orders.find(&order.reference).unwrap(), None);
    }
}
