//! Disks that lose, tear, fill up or go back in time, and processes that stand still.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "which harm was done, and what was skipped, must be seen"
)]

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use weir_client::{Client, Error, Lane, LaneRecord, LaneStopped, Outcome, PayError, Retry};
use weir_protocol::id::PaymentId;
use weir_tests::harness::books::Books;
use weir_tests::harness::orders::Series;
use weir_tests::harness::people::{self, PATIENCE};
use weir_tests::harness::place::{Hub, Place, copy};

use crate::HUB;

/// A hub, a payee and a payer whose client lives through the hub's restarts.
pub(crate) struct Town {
    pub(crate) place: Place,
    pub(crate) hub: Option<Hub>,
    payee: Client,
    payer: Client,
    lane: LaneRecord,
    series: Series,
    paid: Vec<PaymentId>,
}

impl Town {
    pub(crate) async fn new() -> Self {
        Self::at(Place::new(HUB)).await
    }

    pub(crate) async fn at(place: Place) -> Self {
        let hub = place.run();
        let payee = people::registered(&place, "payee", &hub.address).await;
        let (payer, lane) = people::payer(&place, "payer", &hub.address, 100).await;
        let series = Series { seed: 1, payees: vec![payee.account()] };
        Self { place, hub: Some(hub), payee, payer, lane, series, paid: Vec::new() }
    }

    fn lane(&self) -> Lane {
        self.payer.lane(self.lane.id()).unwrap()
    }

    /// The next payment is not acknowledged. It is the one that is paid next.
    pub(crate) async fn pays_nothing(&self) {
        let order = self.series.order(self.paid.len() as u64);
        let asked = self.lane().pay_within(order, Duration::from_secs(2)).await;
        assert!(!matches!(asked, Ok(Outcome::Paid(_))), "{asked:?}");
    }

    /// What the payer has locked.
    pub(crate) async fn locked(&self) -> u64 {
        self.payer.account_info().await.unwrap().balances[0].locked.nanos()
    }

    /// Pays so many more, each acknowledged.
    pub(crate) async fn pay(&mut self, count: u64) {
        let lane = self.lane();
        for _ in 0..count {
            let index = self.paid.len() as u64;
            match tokio::time::timeout(PATIENCE, lane.pay(self.series.order(index))).await.unwrap() {
                Ok(Outcome::Paid(paid)) => {
                    paid.receipt().unwrap().check().unwrap();
                    self.paid.push(paid.payment_id().unwrap());
                }
                other => panic!("payment {index}: {other:?}\n{}", self.place.said()),
            }
        }
    }

    pub(crate) fn kill(&mut self) {
        self.hub.take().unwrap().kill();
    }

    pub(crate) fn start(&mut self) {
        self.hub = Some(self.place.run());
    }

    /// Everything acknowledged is there, once, and nothing else.
    pub(crate) async fn all_is_there(&mut self) {
        let books = Books::read(&self.place.data());
        assert_eq!(books.by_id.len(), self.paid.len());
        assert!(self.paid.iter().all(|id| books.by_id.contains_key(id)));
        let earned = self.payee.account_info().await.unwrap().balances[0].earned;
        assert_eq!(earned.nanos(), books.received(self.payee.account()).1);
        assert_eq!(self.place.clean_audit()["payments"], self.paid.len());
    }

    /// What the hub reads from its index: the lane's history and the payee's statement, from the beginning.
    async fn read_back(&self, credits_too: bool) {
        let mut ids = Vec::new();
        let mut since = 0;
        while let Some(group) = self.payer.history(self.lane.id(), since).await.unwrap() {
            for (sequence, _) in &group.payments {
                ids.push(weir_protocol::payment::payment_id(&self.lane.id(), *sequence));
                since = *sequence;
            }
        }
        assert_eq!(ids, self.paid);
        if !credits_too {
            return;
        }
        let mut credits = self.payee.credits_after(weir_protocol::wire::Cursor::default());
        let mut credited = Vec::new();
        while credited.len() < self.paid.len() {
            let event = tokio::time::timeout(PATIENCE, credits.next()).await.unwrap().unwrap();
            if let weir_client::CreditEvent::Credited(group) = event {
                credited.extend(group.payments().map(|payment| payment.payment_id));
            }
        }
        assert_eq!(credited, self.paid);
    }

    pub(crate) async fn end(mut self) {
        self.payer.shut_down().await;
        self.payee.shut_down().await;
        self.hub.take().unwrap().stop();
        self.place.clean_audit();
    }
}

/// What is done to a folder.
type Harm = Box<dyn Fn(&Path)>;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_index_lost_or_damaged_in_any_way_loses_nothing() {
    let mut town = Town::new().await;
    // More than a segment, so that a sealed one is in the index.
    let (sink, mut outcomes) = town.lane().pay_many();
    let orders: Vec<_> = (0..30_000).map(|index| (index, town.series.order(index))).collect();
    let sending = tokio::spawn(async move { sink.send_all(orders).await });
    let mut paid = std::collections::BTreeMap::new();
    while paid.len() < 30_000 {
        match outcomes.next().await.unwrap() {
            weir_client::BatchOutcome::Paid { group, payments } => {
                paid.extend(payments.into_iter().map(|(place, tag)| (tag, group.payment_id(place).unwrap())));
            }
            other => panic!("{other:?}"),
        }
    }
    sending.await.unwrap().unwrap();
    town.paid = paid.into_values().collect();
    let segments = files(&town.place.data().join("journal"));
    let sealed = segments.iter().filter(|path| path.extension().is_some_and(|end| end == "seg")).count();
    assert!(sealed > 1, "{segments:?}");

    let index = town.place.data().join("index");
    let older = town.place.path("older-index");
    town.kill();
    copy(&index, &older);
    town.start();
    let each = |change: fn(&Path)| -> Harm { Box::new(move |index| files(index).iter().for_each(|path| change(path))) };
    let harms: Vec<(&str, Harm)> = vec![
        ("deleted", Box::new(|index| std::fs::remove_dir_all(index).unwrap())),
        (
            "inverted",
            each(|path| {
                let bytes = std::fs::read(path).unwrap();
                std::fs::write(path, bytes.iter().map(|byte| !byte).collect::<Vec<_>>()).unwrap();
            }),
        ),
        ("emptied", each(|path| std::fs::write(path, []).unwrap())),
        (
            "one bit",
            each(|path| {
                let mut bytes = std::fs::read(path).unwrap();
                let middle = bytes.len() / 2;
                if let Some(byte) = bytes.get_mut(middle) {
                    *byte ^= 4;
                }
                std::fs::write(path, bytes).unwrap();
            }),
        ),
        (
            "an older copy",
            Box::new(move |index| {
                std::fs::remove_dir_all(index).unwrap();
                copy(&older, index);
            }),
        ),
        (
            "a file in its place",
            Box::new(|index| {
                std::fs::remove_dir_all(index).unwrap();
                std::fs::write(index, "not a folder").unwrap();
            }),
        ),
    ];
    for ((what, harm), number) in harms.into_iter().zip(0..) {
        println!("index: {what}");
        town.pay(2).await;
        town.kill();
        harm(&index);
        town.start();
        town.read_back(number % 3 == 0).await;
        town.pay(1).await;
        town.all_is_there().await;
    }
    town.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_copy_of_the_data_is_refused_by_the_hub_and_then_by_its_clients() {
    let mut town = Town::new().await;
    town.pay(5).await;
    town.hub.take().unwrap().stop();
    copy(&town.place.data(), &town.place.path("backup"));
    town.start();
    town.pay(5).await;
    let held = town.payer.proofs().newest().unwrap().commit.number;
    town.hub.take().unwrap().stop();
    let newest = town.place.path("newest");
    std::fs::rename(town.place.data(), &newest).unwrap();
    copy(&town.place.path("backup"), &town.place.data());

    let said = town.place.fails(&["run"]);
    assert!(said.contains("old copy") && said.contains("--accept-rollback"), "{said}");
    let report: Value = serde_json::from_slice(&town.place.output(&["audit"]).stdout).unwrap();
    assert_eq!(report["audit"], "broken", "{report}");

    // The operator decides for it: the clients that hold newer commits do not.
    let commit: String =
        said.split("--accept-rollback ").nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect();
    town.hub = Some(town.place.run_with(&["--accept-rollback", &commit]));
    assert!(commit.parse::<u64>().unwrap() < held);
    let refused = town.payer.account_info().await;
    let Err(Error::Evidence { what, file: Some(file) }) = refused else { panic!("{refused:?}") };
    assert!(what.contains("old copy"), "{what}");
    let kept = std::fs::read_to_string(file).unwrap();
    assert!(kept.contains("rolled_back") && kept.contains("weir-contradiction/1"), "{kept}");
    let outcome = town.lane().pay_within(town.series.order(10), Duration::from_secs(10)).await;
    assert!(
        matches!(outcome, Err(PayError::Stopped(LaneStopped::Evidence { .. })) | Ok(Outcome::Unknown(Retry { .. }))),
        "{outcome:?}"
    );
    assert_eq!(Books::read(&town.place.data()).by_id.len(), 5, "nothing was paid on the old copy");

    // A process that starts afresh on the home has not forgotten.
    let Town { place, hub, payer, paid, .. } = town;
    payer.shut_down().await;
    drop(payer);
    let home = weir_client::Home::open(place.path("payer"), weir_client::PlainKeys::sealer()).unwrap();
    let fresh = Client::start(home).unwrap();
    assert!(matches!(fresh.account_info().await, Err(Error::Evidence { .. })));
    fresh.shut_down().await;

    // The right data put back: nothing that was acknowledged is missing there, and the anchor knows it from the branch.
    hub.unwrap().stop();
    place.clean_audit();
    std::fs::rename(place.data(), place.path("branch")).unwrap();
    std::fs::rename(&newest, place.data()).unwrap();
    let books = Books::read(&place.data());
    assert!(paid.iter().all(|id| books.by_id.contains_key(id)));
}

/// Where the last record of the journal begins, and the end of what is written.
fn tail(place: &Place) -> (PathBuf, u64, u64) {
    let segments = files(&place.data().join("journal"));
    let records = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        let starts = (4096..bytes.len()).step_by(8).filter(|at| bytes[*at..].starts_with(b"WREC"));
        let last = starts.max()?;
        let length = u32::from_le_bytes(bytes[last + 16..last + 20].try_into().unwrap());
        Some((last as u64, last as u64 + 104 + u64::from(length)))
    };
    let mut segments = segments.iter().filter(|path| path.extension().is_some_and(|end| end == "seg")).rev();
    let found = segments.find_map(|path| Some((path.clone(), records(path)?)));
    let (path, (last, end)) = found.unwrap();
    (path, last, end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torn_tail_is_cut_and_damage_before_it_stops_the_start() {
    let mut town = Town::new().await;
    town.pay(5).await;
    town.kill();
    // A record that was being written when the power went: its beginning is there, its end is not.
    for torn in [4, 104, 180] {
        println!("torn after {torn} bytes");
        let (path, last, end) = tail(&town.place);
        let journal = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut begun = vec![0; torn];
        journal.read_exact_at(&mut begun, last).unwrap();
        // Another record than the last one: its checksum is over more than is there.
        if let Some(byte) = begun.get_mut(5) {
            *byte ^= 1;
        }
        journal.write_all_at(&begun, end.next_multiple_of(8)).unwrap();
        assert_eq!(town.place.clean_audit()["payments"], 5, "an audit looks at whole commits");
        town.start();
        town.kill();
    }
    town.start();
    town.pay(3).await;
    town.all_is_there().await;
    town.kill();

    // One bit in the middle: no start, the commit named, and nothing is cut.
    let (path, last, _) = tail(&town.place);
    let journal = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    let at = 4096 + 24 + (last - 4096) / 2;
    journal.read_exact_at(&mut byte, at).unwrap();
    journal.write_all_at(&[byte[0] ^ 1], at).unwrap();
    let said = town.place.fails(&["run"]);
    assert!(said.contains("commit "), "{said}");
    let report: Value = serde_json::from_slice(&town.place.output(&["audit"]).stdout).unwrap();
    assert_eq!(report["audit"], "broken", "{report}");
    journal.write_all_at(&byte, at).unwrap();
    town.start();
    town.pay(1).await;
    town.all_is_there().await;
    town.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hub_that_stands_still_for_a_while_goes_on() {
    let mut town = Town::new().await;
    town.pay(3).await;
    let index = town.paid.len() as u64;
    town.hub.as_ref().unwrap().signal("STOP");
    let (lane, order) = (town.lane(), town.series.order(index));
    let waiting = tokio::spawn(async move { lane.pay(order).await });
    let asked = town.lane().pay_within(town.series.order(index), Duration::from_secs(2)).await;
    assert!(matches!(asked, Ok(Outcome::Unknown(Retry { .. }))), "{asked:?}");
    town.hub.as_ref().unwrap().signal("CONT");
    let outcome = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    let Ok(Outcome::Paid(paid)) = outcome else { panic!("{outcome:?}") };
    town.paid.push(paid.payment_id().unwrap());
    // Asked again, it is the same one.
    let again = town.lane().pay(town.series.order(index)).await;
    let Ok(Outcome::Paid(again)) = again else { panic!("{again:?}") };
    assert_eq!(again.payment_id(), paid.payment_id());
    town.pay(3).await;
    town.all_is_there().await;
    town.end().await;
}

/// A small file system of its own, unmounted when it is dropped.
struct SmallDisk {
    mount: PathBuf,
    _root: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where this cannot be done: said loudly, and a failure where `WEIR_CI` is set.
    fn new(size: &str) -> Option<Self> {
        let root = tempfile::tempdir().unwrap();
        let mount = root.path().join("disk");
        std::fs::create_dir(&mount).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "weir-test"]).arg(&mount).output();
        let why = match mounted {
            Ok(output) if output.status.success() => return Some(Self { mount, _root: root }),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        assert!(std::env::var_os("WEIR_CI").is_none(), "cannot mount: {why}");
        eprintln!("SKIPPED, nothing was tested: cannot mount a small disk: {why}");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may still hold it.
        let _ = Command::new("umount").arg("-l").arg(&self.mount).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_stops_the_hub_and_loses_nothing_acknowledged() {
    let Some(disk) = SmallDisk::new("24m") else { return };
    let root = tempfile::tempdir_in(&disk.mount).unwrap();
    // Homes are elsewhere: the payer's disk is not full.
    let mut town = Town::at(Place::at(HUB, root)).await;
    let homes = tempfile::tempdir().unwrap();
    town.payer.shut_down().await;
    copy(&town.place.path("payer"), &homes.path().join("payer"));
    let home = weir_client::Home::open(homes.path().join("payer"), weir_client::PlainKeys::sealer()).unwrap();
    town.payer = Client::start(home).unwrap();
    town.pay(5).await;

    let ballast = disk.mount.join("ballast");
    let mut filler = std::fs::File::create(&ballast).unwrap();
    let block = vec![1; 64 * 1024];
    while std::io::Write::write_all(&mut filler, &block).is_ok() {}
    // Segments are written ahead of use: pay until what is left of them is used up.
    let lane = town.lane();
    let mut unanswered = None;
    let (sink, mut outcomes) = lane.pay_many();
    let mut known = town.paid.len() as u64;
    let series = town.series.clone();
    let sending = tokio::spawn(async move {
        for index in known.. {
            if sink.send(index, series.order(index)).await.is_err() {
                return;
            }
        }
    });
    let mut paid = std::collections::BTreeMap::new();
    while unanswered.is_none() {
        match tokio::time::timeout(Duration::from_secs(8), outcomes.next()).await {
            Ok(Some(weir_client::BatchOutcome::Paid { group, payments })) => {
                paid.extend(payments.into_iter().map(|(place, tag)| (tag, group.payment_id(place).unwrap())));
            }
            Ok(Some(other)) => panic!("{other:?}"),
            Ok(None) | Err(_) => unanswered = Some(known),
        }
    }
    known += paid.len() as u64;
    sending.abort();
    println!("{} payments until the disk was full", paid.len());
    town.paid.extend(paid.into_values());
    assert_eq!(town.paid.len() as u64, known);
    let hub = town.hub.take().unwrap();
    assert!(!hub.ends(), "a hub whose disk is full does not end well");
    assert!(town.place.said().contains("No space left"), "{}", town.place.said());

    drop(filler);
    std::fs::remove_file(&ballast).unwrap();
    town.start();
    // What was sent and not answered is answered now, or was never taken: the journal says which.
    assert!(matches!(town.lane().pay(town.series.order(0)).await, Ok(Outcome::Paid(_))));
    let status = town.lane().attach().await.unwrap();
    assert!(status.open, "{status:?}");
    town.payer.shut_down().await;
    let books = Books::read(&town.place.data());
    assert!(town.paid.iter().all(|id| books.by_id.contains_key(id)));
    town.payee.shut_down().await;
    town.hub.take().unwrap().stop();
    town.place.clean_audit();
}
