//! What settling a window of many accounts takes: a real hub, asked once to cut off, net, plan, write the files and hand
//! them over.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use weir_hub::admin::client::Client;
use weir_hub::admin::request::Request;

use super::{cpu_seconds_of, make, memory_of};
use crate::harness::place::Place;

/// A window, settled.
#[derive(Debug, Clone, Copy)]
pub struct SettleCost {
    /// Accounts that are paid out.
    pub accounts: u64,
    /// From the request until the files are in the outbox and the answer is there.
    pub seconds: f64,
    /// CPU time of the hub meanwhile: what does not depend on who else uses the cores.
    pub cpu_seconds: f64,
    /// Resident before.
    pub rss_before_bytes: u64,
    /// Most that was ever resident, the start of the hub included.
    pub peak_bytes: u64,
    /// The files together.
    pub file_bytes: u64,
    /// How many.
    pub files: u64,
}

impl SettleCost {
    /// As JSON.
    pub fn json(&self) -> Value {
        json!({
            "accounts": self.accounts,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "rss_before_bytes": self.rss_before_bytes,
            "peak_bytes": self.peak_bytes,
            "files": self.files,
            "file_bytes": self.file_bytes,
        })
    }
}

/// Makes a hub in which so many accounts have earned something, starts it, and settles its window.
pub fn cost(binary: &str, accounts: u64) -> anyhow::Result<SettleCost> {
    let mut place = Place::new(binary);
    place.set("WEIR_HUB_JOURNAL_SEGMENT_MIB", "64");
    place.set("WEIR_HUB_POLICY_APPROVALS", "0");
    place.set("WEIR_HUB_POLICY_FEE_BASIS_POINTS", "50");
    // A snapshot holds a second copy of everything; it has nothing to do with settling.
    place.set("WEIR_HUB_SNAPSHOT_INTERVAL_S", "0");
    make::fill_payees(&place.data(), accounts)?;
    let hub = place.run();
    let rss_before_bytes = memory_of(hub.pid(), "VmRSS")?;
    let mut client = Client::connect(&place.data())?.context("the hub runs")?;
    let cpu_before = cpu_seconds_of(hub.pid())?;
    let begun = Instant::now();
    let report: Value = client.ask(&Request::SettleRun { window: None, last: None, dry_run: false })?;
    let seconds = begun.elapsed().as_secs_f64();
    let cpu_seconds = cpu_seconds_of(hub.pid())? - cpu_before;
    let peak_bytes = memory_of(hub.pid(), "VmHWM")?;
    ensure!(report["state"] == "instructed", "the window is {}", report["state"]);
    ensure!(report["sums"]["EUR"]["payouts"] == accounts, "not everybody is paid out: {}", report["sums"]);
    let mut files = 0;
    let mut file_bytes = 0;
    for entry in std::fs::read_dir(place.data().join("bank/outbox"))? {
        files += 1;
        file_bytes += entry?.metadata()?.len();
    }
    hub.stop();
    Ok(SettleCost { accounts, seconds, cpu_seconds, rss_before_bytes, peak_bytes, file_bytes, files })
}
