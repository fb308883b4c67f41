//! What can happen to a hub that runs besides its disk: the wall clock is set, its certificate ends, an assertion fails.
#![expect(clippy::print_stderr, reason = "what was skipped must be seen")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_hub::clock::wall_ms;
use weir_hub::keys::KeyFiles;
use weir_protocol::amount::Time;
use weir_protocol::hash::sha256;
use weir_tests::harness::people::PATIENCE;
use weir_tests::harness::place::{Place, stdout};

use crate::HUB;
use crate::recovery::Town;

const DAY_MS: u64 = 86_400_000;

/// Debian's `libfaketime`. `None` where it is not installed: said loudly, and a failure where `WEIR_CI` is set.
fn faketime() -> Option<PathBuf> {
    let found = std::fs::read_dir("/usr/lib").unwrap().filter_map(|entry| {
        let library = entry.unwrap().path().join("faketime/libfaketimeMT.so.1");
        library.exists().then_some(library)
    });
    let library = found.last();
    if library.is_none() {
        assert!(std::env::var_os("WEIR_CI").is_none(), "the gate has no libfaketime");
        eprintln!("SKIPPED, nothing was tested: libfaketime is not installed, nobody can set one process's clock");
    }
    library
}

/// Sets the wall clock of the hub's programs so many seconds off the real one.
fn set_clock(offset: &Path, seconds: &str) {
    let next = offset.with_extension("next");
    std::fs::write(&next, seconds).unwrap();
    std::fs::rename(next, offset).unwrap();
}

/// What `status` says, and whether it finds the hub well.
fn status(place: &Place) -> (Value, bool) {
    let output = place.output(&["status"]);
    (serde_json::from_str(&stdout(&output)).unwrap(), output.status.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clock_that_is_set_stops_the_hub_until_it_is_right_again_or_confirmed() {
    let Some(library) = faketime() else { return };
    let mut place = Place::new(HUB);
    let offset = place.path("offset");
    set_clock(&offset, "+0");
    place.set("LD_PRELOAD", library.to_str().unwrap());
    place.set("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap());
    for (name, value) in [("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("NO_FAKE_STAT", "1")] {
        place.set(name, value);
    }
    let mut town = Town::at(place).await;
    town.pay(3).await;
    let trusted = |town: &Town| {
        let (said, well) = status(&town.place);
        assert_eq!(said["clock_trusted"], well, "{said}");
        well
    };
    assert!(trusted(&town));

    for seconds in ["+90", "+0"] {
        set_clock(&offset, seconds);
        assert!(!trusted(&town));
        town.pays_nothing().await;
        let confirmed = town.place.json(&["clock", "confirm"]);
        let departed = confirmed["departure_ms"].as_u64().unwrap();
        assert!((80_000..=100_000).contains(&departed), "{confirmed}");
        assert!(trusted(&town));
        town.pay(2).await;
    }
    // Set right again, nobody need confirm it.
    set_clock(&offset, "-90");
    town.pays_nothing().await;
    set_clock(&offset, "+0");
    assert!(trusted(&town));
    town.pay(2).await;
    town.all_is_there().await;
    town.kill();
    town.start();
    town.pay(1).await;
    town.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificate_that_ends_stops_the_hub_until_it_is_renewed() {
    let mut town = Town::new().await;
    town.pay(2).await;
    town.kill();
    let keys = KeyFiles::of(&town.place.data());
    // So soon that it ends while the hub runs, and not before it does.
    let end = wall_ms() + 15_000;
    keys.renew(&keys.identity_path(), Time(end - DAY_MS), 1).unwrap();
    town.start();
    town.pay(2).await;
    let patience = Instant::now() + PATIENCE;
    while status(&town.place).1 {
        assert!(Instant::now() < patience, "{:?}", status(&town.place));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let said = status(&town.place).0;
    assert!(wall_ms() >= end && said["certificate"]["not_after_ms"] == end, "{said}");
    assert_eq!(said["clock_trusted"], true);
    assert!(town.place.fails(&["status"]).contains("weir-hub certify"));
    town.pays_nothing().await;
    town.place.json(&["clock", "confirm"]);
    town.pays_nothing().await;
    let head = said["head"]["time_ms"].as_u64().unwrap();
    assert!(head < end, "nothing is signed outside of the certificate");

    town.hub.take().unwrap().stop();
    assert_eq!(town.place.json(&["audit"])["audit"], "clean");
    let refused = town.place.fails(&["run", "--listen", "127.0.0.1:0"]);
    assert!(refused.contains("certificate does not cover the present time"), "{refused}");
    assert!(refused.contains("weir-hub certify"), "{refused}");
    town.place.json(&["certify"]);
    town.start();
    assert!(status(&town.place).1);
    town.pay(2).await;
    town.all_is_there().await;
    town.end().await;
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 128 {
        bytes.push(number.to_le_bytes()[0] | 128);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
    bytes
}

/// Makes what somebody has locked available in a snapshot, with a right checksum: what a bug of the hub would leave in its
/// memory. The sums stay as they are.
fn unlock(snapshot: &Path, locked: u64) {
    let mut bytes = std::fs::read(snapshot).unwrap();
    bytes.truncate(bytes.len() - 32);
    let number = varint(locked);
    // Available, locked, earned: integers in a row.
    let before = [&[0], &number[..], &[0]].concat();
    let after = [&number[..], &[0, 0]].concat();
    let found: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(&before)).collect();
    let [at] = found[..] else { panic!("{} places for {locked}", found.len()) };
    bytes[at..at + after.len()].copy_from_slice(&after);
    let digest = sha256(&bytes);
    bytes.extend_from_slice(&digest.0);
    std::fs::write(snapshot, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn assertion_that_fails_stops_the_hub_and_acknowledges_nothing_more() {
    let mut town = Town::new().await;
    town.pay(3).await;
    let locked = town.locked().await;
    let made = town.place.json(&["snapshot"]);
    town.kill();
    let snapshots = town.place.data().join("snapshots");
    unlock(&snapshots.join(format!("{:020}.snap", made["commit"].as_u64().unwrap())), locked);
    town.start();
    town.pays_nothing().await;
    assert!(!town.hub.take().unwrap().ends(), "a hub with a bug does not end well");
    let said = town.place.said();
    assert!(said.contains("panicked") && said.contains("invariant 1"), "{said}");

    // The journal is the truth: the audit names what differs from it, and without that all is as it was acknowledged.
    let output = town.place.output(&["audit"]);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(!output.status.success() && report["audit"] == "broken", "{report}");
    assert!(report["first_error"]["what"].as_str().unwrap().contains("snapshot"), "{report}");
    std::fs::remove_dir_all(&snapshots).unwrap();
    std::fs::write(town.place.log(), "").unwrap();
    town.start();
    town.pay(3).await;
    town.all_is_there().await;
    town.end().await;
}
