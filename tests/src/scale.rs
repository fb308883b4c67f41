//! What a hub keeps in memory: for each open channel, after a restart, and for each idle connection.
//!
//! `make` fills a data directory through the real engine; `idle` holds connections; `settle` settles a window; `month`
//! brings statements of a bank; `gate` asks a gate. Here a real hub is started on what was
//! made, and looked at from outside: resident memory, the time until it accepts, bytes on disk.
//!
//! Whoever measures is also the hub: the binary takes the hub's command line, so that one build has both.

pub mod bank_file;
pub mod gate;
pub mod idle;
pub mod make;
pub mod month;
pub mod settle;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use serde_json::{Value, json};

use self::make::Population;
use crate::harness::place::{Hub, Place};

/// A hub as it stands after a start.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// From the start of the process until it says that it accepts.
    pub start_seconds: f64,
    /// Resident then.
    pub rss_bytes: u64,
    /// Most that was ever resident.
    pub peak_bytes: u64,
    /// The read index on disk.
    pub sled_bytes: u64,
    /// The newest snapshot.
    pub snapshot_bytes: u64,
    /// The journal's segments.
    pub journal_bytes: u64,
}

/// What a channel costs: a hub with a population after a restart, and one without.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Open channels.
    pub channels: u64,
    /// With them.
    pub full: Seen,
    /// Without any.
    pub empty: Seen,
}

impl Cost {
    /// Resident bytes for each channel, everything included, rounded up.
    pub fn bytes_per_channel(&self) -> u64 {
        self.full.rss_bytes.saturating_sub(self.empty.rss_bytes).div_ceil(self.channels.max(1))
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({
            "channels": self.channels,
            "bytes_per_channel": self.bytes_per_channel(),
            "start_seconds": self.full.start_seconds,
            "start_seconds_empty": self.empty.start_seconds,
            "rss_bytes": self.full.rss_bytes,
            "rss_bytes_empty": self.empty.rss_bytes,
            "peak_bytes": self.full.peak_bytes,
            "sled_bytes": self.full.sled_bytes,
            "sled_bytes_per_channel": self.full.sled_bytes.div_ceil(self.channels.max(1)),
            "snapshot_bytes": self.full.snapshot_bytes,
            "journal_bytes": self.full.journal_bytes,
        })
    }
}

/// Makes a hub with a population in `directory`, and leaves it there; where its data is.
pub fn keep(binary: &str, directory: &Path, population: Population) -> anyhow::Result<PathBuf> {
    let mut root = tempfile::tempdir_in(directory)?;
    root.disable_cleanup(true);
    let place = Place::at(binary, root);
    make::fill(&place.data(), population)?;
    Ok(place.data())
}

/// Makes a hub with a population, and one without anybody; starts both, stops them, starts them again and looks.
pub fn cost(binary: &str, population: Population) -> anyhow::Result<Cost> {
    let seen = |population| {
        let mut place = Place::new(binary);
        place.set("WEIR_HUB_JOURNAL_SEGMENT_MIB", "64");
        make::fill(&place.data(), population)?;
        place.run().stop();
        look(&place)
    };
    let empty = seen(Population { accounts: 0, channels_each: 0, paying: false })?;
    let full = seen(population)?;
    Ok(Cost { channels: population.channels(), full, empty })
}

fn look(place: &Place) -> anyhow::Result<Seen> {
    let begun = Instant::now();
    let hub = place.run();
    let start_seconds = begun.elapsed().as_secs_f64();
    let data = place.data();
    let newest = |directory: &str| -> anyhow::Result<u64> {
        let files = std::fs::read_dir(data.join(directory))?.collect::<Result<Vec<_>, _>>()?;
        let newest = files.iter().max_by_key(|file| file.file_name()).context("no file")?;
        Ok(newest.metadata()?.len())
    };
    let seen = Seen {
        start_seconds,
        rss_bytes: memory(&hub, "VmRSS")?,
        peak_bytes: memory(&hub, "VmHWM")?,
        sled_bytes: bytes_under(&data.join("index"))?,
        snapshot_bytes: newest("snapshots")?,
        journal_bytes: bytes_under(&data.join("journal"))?,
    };
    hub.stop();
    Ok(seen)
}

/// A figure of `/proc/PID/status`, in bytes.
pub(crate) fn memory(hub: &Hub, name: &str) -> anyhow::Result<u64> {
    memory_of(hub.pid(), name)
}

/// The same of any process.
pub(crate) fn memory_of(pid: u32, name: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(name)).context("no such line in the status of a process")?;
    let kibibytes: u64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
    Ok(kibibytes * 1024)
}

/// CPU time that all threads of a process have taken so far, in seconds.
///
/// `/proc/PID/stat` counts in hundredths on every Linux: `USER_HZ`.
pub(crate) fn cpu_seconds_of(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may have anything in it: the state is field 3, user and system time are 14 and 15.
    let (_, fields) = stat.rsplit_once(')').context("no name in the status of a process")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>).sum::<Result<u32, _>>()?;
    Ok(f64::from(ticks) / 100.0)
}

fn bytes_under(directory: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { bytes_under(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}
