//! A direct debit through the real programs, from the mandate to the money that its debtor takes back: `weir`, `weir-hub`, the
//! sandbox bank, and the hub killed between any two steps.

use std::ffi::OsString;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_tests::harness::bank::PERSON_IBAN;
use weir_tests::harness::people::PATIENCE;
use weir_tests::harness::place::{Hub, Place, stderr, stdout};

use crate::HUB;
use crate::tour::path_with_binaries;

/// A participant with the real `weir`.
struct Ada<'a> {
    place: &'a Place,
    path: OsString,
}

impl<'a> Ada<'a> {
    /// A person with an account at the hub, and the account.
    fn registered(place: &'a Place, hub: &Hub) -> (Self, String) {
        let ada = Self { place, path: path_with_binaries() };
        ada.json(&["init", "--hub", &hub.address.to_string()]);
        ada.json(&["register", "--name", "Ada Example", "--iban", PERSON_IBAN]);
        let account = ada.json(&["id"])["account"].as_str().unwrap().to_owned();
        (ada, account)
    }

    fn output(&self, args: &[&str]) -> Output {
        let mut command = Command::new("weir");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WEIR_")) {
            command.env_remove(name);
        }
        let home = self.place.path("ada");
        command.env("PATH", &self.path).env("WEIR_HOME", home).stdin(Stdio::null());
        command.args(args).arg("--json").output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.output(args);
        assert!(output.status.success(), "{args:?}: {}{}", stdout(&output), stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What is available and what is provisional.
    fn money(&self) -> (String, String) {
        let balance = self.json(&["balance"]);
        let of = |name: &str| balance["balances"][0][name].as_str().unwrap_or("0").to_owned();
        (of("available"), of("provisional"))
    }

    fn waits_for(&self, available: &str, provisional: &str) {
        let end = Instant::now() + PATIENCE;
        while self.money() != (available.to_owned(), provisional.to_owned()) {
            assert!(Instant::now() < end, "{:?}: {}", self.money(), self.place.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A hub that collects, its data directory, and how many files it told the bank.
fn place() -> Place {
    let mut place = Place::new(HUB);
    place.set("WEIR_HUB_BANK_CREDITOR_ID", "DE98ZZZ09999999999");
    place.set("WEIR_HUB_DEBIT_AT_ONCE", "20");
    place
}

fn killed_and_started(place: &Place, hub: Hub) -> Hub {
    hub.kill();
    place.run()
}

fn bank(place: &Place, args: &[&str]) -> Value {
    let dir = place.path("sandbox");
    place.json(&[&["sandbox-bank", "--dir", dir.to_str().unwrap(), "--once"], args].concat())
}

fn outbox(place: &Place) -> Vec<String> {
    let outbox = place.data().join("bank/outbox");
    let names = std::fs::read_dir(outbox).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".pain008.xml")).collect()
}

/// The reconciliation of the euro: everything agrees, and the bank has so much.
fn reconciled(place: &Place, bank: &str) {
    let end = Instant::now() + PATIENCE;
    let line = loop {
        let output = place.output(&["reconcile"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let line = report["currencies"]["EUR"].clone();
        // The bank's newest statement may still be read.
        if line["bank"] == bank && line["difference"] == "0" {
            assert!(output.status.success(), "{report}");
            break line;
        }
        assert!(Instant::now() < end, "{report}: {}", place.said());
        std::thread::sleep(Duration::from_millis(20));
    };
    let amount = |name: &str| line[name].as_str().unwrap().parse::<rust_decimal::Decimal>().unwrap();
    let owed: rust_decimal::Decimal =
        ["liabilities", "fees", "carry", "suspense"].iter().map(|name| amount(name)).sum();
    assert_eq!(amount("bank"), amount("cash"));
    assert_eq!(amount("cash") + amount("shortfall") + amount("unexplained"), owed, "{line}");
    assert_eq!(line["breaks_total"], 0, "{line}");
}

#[test]
fn direct_debit_goes_from_the_mandate_to_the_money_and_back_though_the_hub_is_killed_at_every_step() {
    let place = place();
    let mut hub = place.run();
    let (ada, account) = Ada::registered(&place, &hub);
    let signed = ada.json(&["mandate", "sign", "--yes"]);
    let mandate = signed["mandate_id"].as_str().unwrap();
    let listed = |state: &str| {
        let list = ada.json(&["mandate", "list"]);
        assert_eq!(
            (&list["mandates"][0]["mandate_id"], &list["mandates"][0]["state"]),
            (&mandate.into(), &state.into())
        );
    };
    listed("waiting");
    hub = killed_and_started(&place, hub);

    assert_eq!(place.json(&["mandates", "list"])["mandates"][0]["state"], "waiting");
    assert!(place.fails(&["debit", "collect", &account, "50", "--yes"]).contains("no accepted mandate"));
    place.json(&["mandates", "accept", &account]);
    listed("accepted");
    hub = killed_and_started(&place, hub);
    let known = &place.json(&["mandates", "list"])["mandates"][0];
    assert_eq!((&known["state"], &known["mandate_id"]), (&"accepted".into(), &mandate.into()));
    assert_eq!((&known["at_once"], &known["provisional_days"]), (&"20".into(), &56.into()));

    let planned = place.json(&["debit", "collect", &account, "50", "--dry-run"]);
    assert_eq!((&planned["state"], outbox(&place).len()), (&"planned".into(), 0));
    let told = place.json(&["debit", "collect", &account, "50", "--yes"]);
    assert_eq!((&told["state"], &told["sequence"]), (&"told".into(), &"first".into()));
    assert_eq!(outbox(&place), [told["file"].as_str().unwrap()]);
    hub = killed_and_started(&place, hub);
    let again = place.json(&["debit", "collect", &account, "50", "--yes"]);
    assert_eq!(again["end_to_end_id"], told["end_to_end_id"], "collected once");
    assert_eq!(outbox(&place).len(), 1);

    // The bank executes it while nobody listens.
    hub.kill();
    let run = bank(&place, &["--misbehave", "return"]);
    assert_eq!((&run["executed"], &run["balance"]), (&1.into(), &"50.00".into()), "{run}");
    hub = place.run();
    ada.waits_for("20", "30");
    assert_eq!(place.json(&["debit", "list"])["collections"][0]["state"], "booked");
    let beyond = ada.output(&["open", "20.01", "--yes"]);
    assert!(!beyond.status.success(), "provisional money cannot be spent: {}", stdout(&beyond));
    hub = killed_and_started(&place, hub);
    ada.waits_for("20", "30");

    // Its debtor takes it back.
    let run = bank(&place, &["--end-of-day"]);
    assert_eq!((&run["returned"], &run["balance"]), (&1.into(), &"0.00".into()), "{run}");
    ada.waits_for("0", "0");
    hub = killed_and_started(&place, hub);
    let row = &place.json(&["debit", "list"])["collections"][0];
    assert_eq!((&row["state"], &row["short"]), (&"returned".into(), &"0".into()));
    reconciled(&place, "0");

    // The next one is the mandate's first again, and stays.
    let next = place.json(&["debit", "collect", &account, "60", "--yes"]);
    assert_eq!((&next["collection"], &next["sequence"]), (&2.into(), &"first".into()));
    bank(&place, &["--end-of-day"]);
    ada.waits_for("20", "40");
    reconciled(&place, "60");
    let history = ada.json(&["history"]);
    let kinds: Vec<&str> =
        history["entries"].as_array().unwrap().iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
    let one = ["direct_debit_announced", "direct_debit_booked"];
    let expected = [&["register", "mandate", "mandate_accepted"], &one[..], &["direct_debit_returned"], &one[..]];
    assert_eq!(kinds, expected.concat());
    hub.stop();
    place.clean_audit();
}

#[test]
fn direct_debit_is_told_the_bank_once_though_the_hub_is_killed_while_it_is_told() {
    let place = place();
    let mut hub = place.run();
    let (ada, account) = Ada::registered(&place, &hub);
    ada.json(&["mandate", "sign", "--yes"]);
    place.json(&["mandates", "accept", &account]);
    let rounds: u64 = 8;
    for round in 0..rounds {
        let amount = format!("{}", 10 + round);
        let args = ["debit", "collect", account.as_str(), &amount, "--yes"];
        let mut asking = place.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // From before it is asked until after it has answered.
        std::thread::sleep(Duration::from_millis(round * 7));
        hub = killed_and_started(&place, hub);
        asking.wait().unwrap();
        let told = place.json(&args);
        assert_eq!((&told["state"], &told["collection"]), (&"told".into(), &(round + 1).into()), "{told}");
        assert_eq!(outbox(&place).len() as u64, round + 1);
    }
    let run = bank(&place, &["--end-of-day"]);
    assert_eq!((&run["executed"], &run["duplicates"]), (&rounds.into(), &0.into()), "{run}");
    let sum: u64 = (10..10 + rounds).sum();
    ada.waits_for("20", &(sum - 20).to_string());
    reconciled(&place, &sum.to_string());
    hub.stop();
    place.clean_audit();
}

#[test]
fn direct_debit_that_needs_two_operators_is_told_once_they_agree_though_the_hub_is_killed_at_every_step() {
    let mut place = place();
    place.set("WEIR_HUB_POLICY_APPROVALS", "1");
    let mut hub = place.run();
    let (ada, account) = Ada::registered(&place, &hub);
    ada.json(&["mandate", "sign", "--yes"]);
    place.json(&["mandates", "accept", &account]);
    let files: Vec<String> = ["carla", "omar"].map(|name| place.path(name).to_str().unwrap().to_owned()).into();
    for file in &files {
        let made = Command::new(HUB).args(["operators", "key", "--json", "--out", file]).output().unwrap();
        let made: Value = serde_json::from_slice(&made.stdout).unwrap();
        place.json(&["operators", "add", made["key"].as_str().unwrap(), "--name", file]);
    }
    let [carla, omar] = [0, 1].map(|at| ["--yes", "--operator", files[at].as_str()]);
    assert!(place.fails(&["debit", "collect", &account, "50", "--yes"]).contains("it is not planned"));

    let wish = ["debit", "plan", account.as_str(), "50"];
    assert_eq!(place.json(&wish)["planned_by"], Value::Null, "a look");
    let planned = place.json(&[&wish[..], &carla].concat());
    assert_eq!((&planned["collection"], &planned["state"]), (&1.into(), &"planned".into()));
    assert_eq!(place.json(&[&wish[..], &carla].concat())["collection"], 1, "planned once");
    hub = killed_and_started(&place, hub);
    let needs = "0 of 1 approvals by operators other than the planner are there";
    assert!(place.fails(&["debit", "run", "1", "--yes"]).contains(needs));
    assert!(place.fails(&[&["debit", "approve", "1"][..], &carla].concat()).contains("cannot approve"));
    assert_eq!(place.json(&["debit", "run", "--yes"])["collections"], Value::Array(vec![]), "nothing is ready");
    assert!(outbox(&place).is_empty());

    // A file that somebody changed is agreed to by nobody.
    let staged = place.data().join("bank/staged").join(planned["file"].as_str().unwrap());
    let bytes = std::fs::read(&staged).unwrap();
    let more = String::from_utf8(bytes.clone()).unwrap().replace(">50.00<", ">90.00<");
    std::fs::write(&staged, more).unwrap();
    assert!(place.fails(&[&["debit", "approve", "1"][..], &omar].concat()).contains("is not the file"));
    std::fs::write(&staged, bytes).unwrap();
    let agreed = place.json(&[&["debit", "approve", "1"][..], &omar].concat());
    assert_eq!((&agreed["waits"], agreed["approved_by"].as_array().unwrap().len()), (&Value::Null, 1));
    let names = (&agreed["planned_by_name"], &agreed["approved_by_names"][0]);
    assert_eq!(names, (&files[0].as_str().into(), &files[1].as_str().into()));
    assert_eq!(place.json(&["status"])["operators"], place.json(&["operators", "list"]));
    hub = killed_and_started(&place, hub);
    assert_eq!(place.json(&["debit", "run", "--yes"])["collections"][0]["state"], "told");
    hub = killed_and_started(&place, hub);
    assert_eq!(place.json(&["debit", "run", "1", "--yes"])["collections"][0]["state"], "told", "once");
    assert_eq!(outbox(&place).len(), 1);

    // One that is given up leaves no file, and its number to the next.
    let second = place.json(&[&["debit", "plan", account.as_str(), "60"], &carla[..]].concat());
    assert_eq!((&second["collection"], &second["sequence"]), (&2.into(), &"recurring".into()));
    place.json(&[&["debit", "abort", "2"][..], &omar].concat());
    assert!(place.fails(&["debit", "run", "2", "--yes"]).contains("is not planned"));
    assert_eq!(std::fs::read_dir(place.data().join("bank/staged")).unwrap().count(), 0);

    bank(&place, &["--end-of-day"]);
    ada.waits_for("20", "30");
    reconciled(&place, "50");
    hub.stop();
    place.clean_audit();
}
