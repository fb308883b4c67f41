//! Prices that can be read anew while the gate runs.
//!
//! A request holds the table that it began with to its end, so a new table never changes a price that was quoted. A bad
//! file changes nothing.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use weir_protocol::amount::Time;

use super::PriceTable;
use crate::gate::config::{ConfigErrors, GateConfig, Settings};

/// How often [`LiveTable::watch`] looks at the file.
pub const WATCH_EVERY: Duration = Duration::from_secs(1);

/// The prices in force.
#[derive(Debug)]
pub struct LiveTable {
    file: PathBuf,
    /// Those that the gate was started with.
    settings: Settings,
    table: RwLock<Arc<PriceTable>>,
    /// When they were read, milliseconds since 1970.
    read_at_ms: AtomicU64,
}

/// What came of a good file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reloaded {
    /// Its prices are in force. They are not when it changes what they are read by: mode, currency or grace.
    pub prices: bool,
    /// The file changed something else than prices, which a restart brings into force.
    pub needs_restart: bool,
}

/// What tells that a file was written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Some(Self { modified: metadata.modified().ok(), length: metadata.len(), inode })
    }
}

impl LiveTable {
    /// The prices of a configuration.
    #[must_use]
    pub fn new(config: &GateConfig) -> Self {
        let GateConfig { file, settings, table } = config.clone();
        let read_at_ms = AtomicU64::new(crate::connection::now().0);
        Self { file, settings, table: RwLock::new(table), read_at_ms }
    }

    /// The prices in force now.
    #[must_use]
    pub fn table(&self) -> Arc<PriceTable> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// When the prices in force were read.
    pub fn read_at(&self) -> Time {
        Time(self.read_at_ms.load(Ordering::Relaxed))
    }

    /// Reads the file anew. When it is bad, the old prices stay.
    pub fn reload(&self) -> Result<Reloaded, ConfigErrors> {
        let config = GateConfig::load(&self.file)?;
        let needs_restart = config.settings != self.settings;
        // Prices are read in the light of these: fixed in one mode, in one currency, with the grace in their access.
        let same_light = config.settings.mode == self.settings.mode
            && config.settings.currency == self.settings.currency
            && config.settings.grace_ms == self.settings.grace_ms;
        if same_light {
            *self.table.write().unwrap_or_else(PoisonError::into_inner) = config.table;
            self.read_at_ms.store(crate::connection::now().0, Ordering::Relaxed);
        }
        Ok(Reloaded { prices: same_light, needs_restart })
    }

    /// Whether another file is there than the one seen last. A file that is gone is being replaced.
    fn has_changed(&self, seen: &mut Option<Stamp>) -> bool {
        let stamp = Stamp::of(&self.file);
        let changed = stamp.is_some() && stamp != *seen;
        if changed {
            *seen = stamp;
        }
        changed
    }

    /// Reads the file anew whenever it changes, and on SIGHUP; never ends. What is wrong is logged.
    pub async fn watch(&self) {
        let mut seen = Stamp::of(&self.file);
        let mut hang_up = HangUp::new();
        loop {
            let asked = tokio::select! {
                () = tokio::time::sleep(WATCH_EVERY) => false,
                () = hang_up.recv() => true,
            };
            if !self.has_changed(&mut seen) && !asked {
                continue;
            }
            match self.reload() {
                Ok(Reloaded { prices: false, .. }) => {
                    tracing::warn!(
                        "the file changes mode, currency or grace: it holds after a restart, its prices too"
                    );
                }
                Ok(Reloaded { needs_restart: false, .. }) => tracing::info!("prices were read anew"),
                Ok(Reloaded { needs_restart: true, .. }) => {
                    tracing::warn!("prices were read anew; the file also changed settings that hold after a restart");
                }
                Err(errors) => tracing::error!(%errors, "the changed file is wrong: the old prices stay in force"),
            }
        }
    }
}

/// SIGHUP, where there is such a thing.
struct HangUp {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl HangUp {
    fn new() -> Self {
        Self {
            #[cfg(unix)]
            signal: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok(),
        }
    }

    /// Waits for the next one.
    async fn recv(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal
            && signal.recv().await.is_some()
        {
            return;
        }
        core::future::pending::<()>().await;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    #[test]
    fn file_that_is_replaced_or_grows_is_seen_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.toml");
        let head = crate::gate::config::tests::head();
        std::fs::write(&path, &head).unwrap();
        let live = LiveTable::new(&GateConfig::load(&path).unwrap());
        let mut seen = Stamp::of(&path);
        assert!(!live.has_changed(&mut seen));
        std::fs::remove_file(&path).unwrap();
        assert!(!live.has_changed(&mut seen));
        let new = folder.path().join("new");
        std::fs::write(&new, &head).unwrap();
        std::fs::write(folder.path().join("another"), &head).unwrap();
        std::fs::rename(&new, &path).unwrap();
        assert!(live.has_changed(&mut seen));
        assert!(!live.has_changed(&mut seen));
        std::fs::write(&path, format!("{head}default = \"deny\"\n")).unwrap();
        assert!(live.has_changed(&mut seen));
        assert!(!live.has_changed(&mut seen));
    }
}
