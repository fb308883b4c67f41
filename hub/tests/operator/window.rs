//! A window that pays out, limits, suspense and reconciliation, through the command line.

use serde_json::{Value, json};
use weir_hub::bank::CreditorReference;
use weir_protocol::act::{Act, Register, Withdraw};
use weir_protocol::amount::Currency;

use crate::books::{Live, account};
use crate::hub::Place;
use crate::operators::key;

const OLD: &str = "DE02120300000000202051";
const NEW: &str = "DE02100500000054540402";

fn register(live: &Live, number: u64, iban: &str) {
    let act = Register { number, account: account(3), name: "Site".into(), iban: iban.into() };
    live.done(Act::Register(act), 3, None);
}

/// Somebody transfers to the hub; one round of the bank.
fn transfer(place: &Place, name: &str, amount: &str, reference: Option<&str>) {
    let orders = place.path("bank/orders");
    std::fs::create_dir_all(&orders).unwrap();
    let order = json!({"amount": amount, "name": "Ada", "iban": OLD, "reference": reference});
    std::fs::write(orders.join(name), order.to_string()).unwrap();
    round(place);
}

/// One round of the bank, a statement, and the hub has read everything.
fn round(place: &Place) {
    let dir = place.path("bank");
    place.json(&["sandbox-bank", "--dir", dir.to_str().unwrap(), "--once", "--end-of-day"]);
    let inbox = place.data().join("bank/inbox");
    while std::fs::read_dir(&inbox).unwrap().any(|item| item.unwrap().file_type().unwrap().is_file()) {
        std::thread::yield_now();
    }
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// A hub with two operators, and an account with 10 of which 5.005 is marked for payout.
fn scene() -> (Live, (String, String), (String, String)) {
    let live = Live::start();
    let place = &live.place;
    register(&live, 1, OLD);
    place.json(&["accounts", "approve", &account(3).to_string()]);
    let (ada, ben) = (key(place, "ada.key"), key(place, "ben.key"));
    place.json(&["operators", "add", &ada.1, "--name", "Ada"]);
    place.json(&["operators", "add", &ben.1, "--name", "Ben"]);
    transfer(place, "a.json", "10.00", Some(&CreditorReference::from_id(account(3).as_bytes()).to_string()));
    let marked = "5.005".parse().unwrap();
    live.done(Act::Withdraw(Withdraw { number: 2, account: account(3), currency: Currency::EUR, marked }), 3, None);
    (live, ada, ben)
}

#[test]
fn window_is_planned_approved_given_up_planned_again_and_paid_out() {
    let (live, (ada, _), (ben, _)) = scene();
    let place = &live.place;
    let dry = place.json(&["settle", "plan"]);
    assert_eq!((&dry["window"], &dry["state"], &dry["plan_hash"]), (&1.into(), &"open".into(), &Value::Null));
    assert_eq!(dry["payouts"][0]["amount"], "5");
    assert_eq!(place.json(&["status"])["windows"]["open"], 1, "a dry run does nothing");
    let (code, said) = place.fails(&["settle", "plan", "--operator", &ada]);
    assert!(code == 2 && said.contains("--yes"), "nobody is here to confirm: {said}");
    let plan = place.json(&["settle", "plan", "--operator", &ada, "--yes"]);
    assert_eq!((&plan["state"], &plan["approvals_needed"]), (&"planned".into(), &1.into()));
    // The shape that programs read.
    for field in ["window", "state", "plan_hash", "positions", "payouts", "skipped", "plans", "files", "sums", "change"]
    {
        assert!(keys(&plan).contains(&field), "{field}");
    }
    assert_eq!(
        keys(&plan["payouts"][0]),
        ["account", "amount", "currency", "end_to_end_id", "iban", "iban_before", "state"]
    );
    assert_eq!(keys(&plan["positions"][0]).len(), 11);
    assert_eq!(plan["payouts"][0]["account"], account(3).to_string());
    assert!(plan["payouts"][0]["end_to_end_id"].as_str().unwrap().starts_with("W1-"));
    assert_eq!(plan["positions"][0]["payable"], "5.005");
    assert_eq!(place.json(&["settle", "plan", "--window", "1"])["plan_hash"], plan["plan_hash"]);

    let (code, said) = place.fails(&["settle", "approve", "--operator", &ada, "--yes"]);
    assert!(code == 1 && said.contains("cannot approve the plan"), "{said}");
    let (code, said) = place.fails(&["settle", "run", "--yes"]);
    assert!(code == 1 && said.contains("0 of 1 approvals"), "{said}");
    let gone = place.json(&["settle", "abort", "--reason", "a mistake", "--operator", &ada]);
    assert_eq!((&gone["state"], &gone["aborted"], &gone["plan_hash"]), (&"cut_off".into(), &1.into(), &Value::Null));
    let again = place.json(&["settle", "plan", "--window", "1", "--operator", &ben, "--yes"]);
    assert_ne!(again["plan_hash"], plan["plan_hash"]);
    let old = plan["plan_hash"].as_str().unwrap();
    let (code, _) = place.fails(&["settle", "approve", "--operator", &ada, "--yes", "--plan-hash", old]);
    assert_eq!(code, 1, "that plan is not the one");
    let hash = again["plan_hash"].as_str().unwrap();
    let agreed = place.json(&["settle", "approve", "--operator", &ada, "--yes", "--plan-hash", hash]);
    assert_eq!((&agreed["state"], &agreed["plans"][0]["counted"]), (&"approved".into(), &1.into()));
    let file = agreed["files"][0].as_str().unwrap();
    let outbox = place.data().join("bank/outbox").join(file);
    assert!(!outbox.exists(), "approved is not told");
    assert_eq!(place.json(&["settle", "run", "--dry-run"])["state"], "approved");
    assert_eq!(place.json(&["settle", "run", "--yes"])["state"], "instructed");
    assert!(outbox.exists());
    round(place);
    // The window ends once what the file says is posted, a moment after the file is gone.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let settled = loop {
        let status = place.json(&["settle", "status", "--window", "1"]);
        if status["state"] == "settled" || std::time::Instant::now() > end {
            break status;
        }
    };
    assert_eq!((&settled["state"], &settled["payouts"][0]["state"]), (&"settled".into(), &"settled".into()));
    let agreed = place.json(&["reconcile"]);
    assert_eq!((&agreed["healthy"], &agreed["currencies"]["EUR"]["bank"]), (&true.into(), &"5".into()), "{agreed}");
    live.stop().clean_audit();
}

#[test]
fn limits_are_shown_set_and_reset_and_a_changed_bank_account_needs_an_operator() {
    let (live, (ada, _), _) = scene();
    let place = &live.place;
    let id = account(3).to_string();
    let limits = |more: &[&str]| place.json(&[&["accounts", "limits", &id], more].concat());
    let none = limits(&[]);
    assert_eq!(
        (&none["payment_max"], &none["commit"], &none["waiting_iban"]),
        (&"0".into(), &Value::Null, &Value::Null)
    );
    let set = limits(&["--payment", "1", "--day", "none"]);
    assert_eq!((&set["payment_max"], &set["day_max"]), (&"1".into(), &"18446744073.709551615".into()));
    assert!(set["commit"].is_u64());
    assert_eq!(limits(&["--payment", "1", "--day", "none"])["commit"], Value::Null, "it was so already");
    assert_eq!(limits(&["--reset"])["payment_max"], "0");

    let approve = ["accounts", "approve-iban", &id];
    let (code, said) = place.fails(&[&approve[..], &["--operator", &ada, "--yes"]].concat());
    assert!(code == 1 && said.contains("waits"), "{said}");
    register(&live, 3, NEW);
    let waits = limits(&[]);
    assert_eq!((&waits["waiting_iban"], &waits["waiting_approved"]), (&NEW.into(), &false.into()));
    let (code, said) = place.fails(&[&approve[..], &["--yes"]].concat());
    assert!(code == 2 && said.contains("--operator FILE"), "{said}");
    let dry = place.json(&[&approve[..], &["--operator", &ada, "--dry-run"]].concat());
    assert_eq!(dry["waiting_approved"], false);
    let agreed = place.json(&[&approve[..], &["--operator", &ada, "--yes"]].concat());
    assert_eq!(
        (&agreed["waiting_iban"], &agreed["waiting_approved"]),
        (&NEW.into(), &true.into()),
        "its time is not over"
    );
    assert_eq!(place.fails(&[&approve[..], &["--operator", &ada, "--yes"]].concat()).0, 1, "once");
    live.stop().clean_audit();
}

#[test]
fn suspense_is_allocated_by_hand_and_by_file() {
    let (live, ..) = scene();
    let place = &live.place;
    transfer(place, "b.json", "7.00", None);
    transfer(place, "c.json", "1.50", None);
    let list = place.json(&["suspense", "list"]);
    let entries = list["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    let entry = entries.iter().find(|entry| entry["amount"] == "7").unwrap()["entry"].as_str().unwrap();
    let id = account(3).to_string();
    let allocate = ["suspense", "allocate", entry, &id];
    let (code, said) = place.fails(&allocate);
    assert!(code == 2 && said.contains("--yes"), "{said}");
    let dry = place.json(&[&allocate[..], &["--dry-run"]].concat());
    assert_eq!((&dry["dry_run"], &dry["commit"]), (&true.into(), &Value::Null));
    assert!(place.json(&[&allocate[..], &["--yes"]].concat())["commit"].is_u64());
    assert_eq!(place.fails(&[&allocate[..], &["--yes"]].concat()).0, 1, "once");

    let file = place.path("breaks.csv");
    let file = file.to_str().unwrap();
    assert_eq!(place.json(&["reconcile", "--export", file])["breaks"], 1);
    let text = std::fs::read_to_string(file).unwrap();
    let filled: Vec<String> = text
        .lines()
        .enumerate()
        .map(|(at, line)| if at == 0 { line.to_owned() } else { line.replace(",,,", ",allocate,hub,") })
        .collect();
    assert_ne!(filled.join("\n"), text.trim_end(), "{text}");
    std::fs::write(file, filled.join("\n") + "\n").unwrap();
    let dry = place.json(&["reconcile", "--import", file, "--dry-run"]);
    assert_eq!((&dry["dry_run"], &dry["resolved"].as_array().unwrap().len().into()), (&true.into(), &Value::from(1)));
    assert_eq!(place.json(&["status"])["sums"]["EUR"]["suspense"], "1.5", "a dry run does nothing");
    let done = place.json(&["reconcile", "--import", file, "--yes"]);
    assert!(done["resolved"][0]["commit"].is_u64(), "{done}");
    let again = place.json(&["reconcile", "--import", file, "--yes"]);
    assert_eq!((again["resolved"].as_array().unwrap().len(), again["gone"].as_array().unwrap().len()), (0, 1));
    let sums = &place.json(&["status"])["sums"]["EUR"];
    assert_eq!((&sums["suspense"], &sums["fees"]), (&"0".into(), &"1.5".into()));
    live.stop().clean_audit();
}
