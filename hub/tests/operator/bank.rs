//! The sandbox bank as a command beside a hub.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::hub::Place;

const ORDER: &str = r#"{"amount": "5.00", "text": "for nobody", "name": "Ada", "iban": "NL91ABNA0417164300"}"#;

fn order(place: &Place, name: &str) {
    let orders = place.path("bank/orders");
    std::fs::create_dir_all(&orders).unwrap();
    std::fs::write(orders.join(name), ORDER).unwrap();
}

#[test]
fn sandbox_bank_brings_money_to_a_hub_once() {
    let place = Place::new();
    let hub = place.run();
    let dir = place.path("bank");
    let bank =
        |more: &[&str]| place.json(&[&["sandbox-bank", "--dir", dir.to_str().unwrap(), "--once"], more].concat());
    order(&place, "a.json");
    let round = bank(&["--misbehave", "duplicate-file,duplicate-entry", "--end-of-day"]);
    assert_eq!((&round["deposits"], &round["balance"]), (&Value::from(1), &Value::from("5.00")));
    assert!(round["statement"].as_str().unwrap().ends_with("-camt.053.xml"));
    let inbox = place.data().join("bank/inbox");
    let waits = || std::fs::read_dir(&inbox).unwrap().any(|item| item.unwrap().file_type().unwrap().is_file());
    while waits() {
        std::thread::yield_now();
    }
    // Twice in its file, the file twice, and once more in the statement: one deposit.
    let sums = &place.json(&["status"])["sums"]["EUR"];
    assert_eq!((&sums["suspense"], &sums["cash"]), (&Value::from("5"), &Value::from("5")), "{sums}");
    assert_eq!(bank(&[])["balance"], "5.00", "its books outlive the process");
    hub.stop();
    place.clean_audit();
}

#[test]
fn sandbox_bank_serves_until_it_is_stopped_and_alone() {
    let place = Place::new();
    let dir = place.path("bank");
    let dir = dir.to_str().unwrap();
    let mut child = place
        .command(&["sandbox-bank", "--dir", dir, "--poll-ms", "10", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let open: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&open["iban"], &open["balance"]), (&"DE89370400440532013000".into(), &"0.00".into()));
    let (exit, said) = place.fails(&["sandbox-bank", "--dir", dir, "--once"]);
    assert!(exit == 1 && said.contains("another process has this sandbox bank"), "{said}");
    order(&place, "a.json");
    let inbox = std::path::PathBuf::from(open["inbox"].as_str().unwrap());
    while !inbox.join("0000000001-camt.054.xml").exists() {
        std::thread::yield_now();
    }
    let pid = open["pid"].to_string();
    assert!(std::process::Command::new("kill").arg(&pid).status().unwrap().success());
    assert!(child.wait().unwrap().success());
}

#[test]
fn sandbox_bank_refuses_what_makes_no_sense() {
    let place = Place::new();
    let dir = place.path("bank");
    let dir = dir.to_str().unwrap();
    let refuse = |more: &[&str]| place.fails(&[&["sandbox-bank", "--dir", dir, "--once"], more].concat());
    let (exit, said) = refuse(&["--misbehave", "sulk"]);
    assert!(exit == 2 && said.contains("`sulk` is no fault"), "{said}");
    let (exit, said) = refuse(&["--misbehave", "charge=10%"]);
    assert!(exit == 2 && said.contains("hint: `--charge 0.35`"), "{said}");
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(place.path("bank/bank.toml"), "[misbehave]\nreject = \"often\"\n").unwrap();
    let (exit, said) = refuse(&[]);
    assert!(exit == 2 && said.contains("`often` is no chance"), "{said}");
}
