//! Operators' keys and a window through the command line.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::hub::Place;

pub(crate) fn key(place: &Place, name: &str) -> (String, String) {
    let file = place.path(name).to_str().unwrap().to_owned();
    let made = crate::hub::weir_hub(&["operators", "key", "--out", &file, "--json"]).output().unwrap();
    assert!(made.status.success());
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    (file, made["key"].as_str().unwrap().to_owned())
}

#[test]
fn third_operator_needs_two_and_a_revoked_one_says_nothing_more() {
    let place = Place::new();
    let hub = place.run();
    let (ada, ada_key) = key(&place, "ada.key");
    let (ben, ben_key) = key(&place, "ben.key");
    let (eve, eve_key) = key(&place, "eve.key");
    assert_eq!(std::fs::metadata(&ada).unwrap().permissions().mode() & 0o777, 0o600);
    let again = crate::hub::weir_hub(&["operators", "key", "--out", &ada]).output().unwrap();
    assert_eq!(again.status.code(), Some(1), "a key is never written over");
    assert_eq!(place.json(&["operators", "add", &ada_key, "--name", "Ada"])["standing"], 1);
    assert_eq!(place.json(&["operators", "add", &ben_key, "--name", "Ben"])["standing"], 2);
    let (code, said) = place.fails(&["operators", "add", &eve_key, "--name", "Eve"]);
    assert_eq!(code, 1);
    assert!(said.contains("one of them must sign"), "{said}");
    let (_, said) = place.fails(&["operators", "add", &eve_key, "--name", "Eve", "--operator", &eve]);
    assert!(said.contains("not the key of an operator"), "{said}");
    let add = ["operators", "add", &eve_key, "--name", "Eve", "--operator"];
    assert_eq!(place.json(&[&add[..], &[ada.as_str()]].concat())["standing"], 2);
    let (_, said) = place.fails(&[&add[..], &[ada.as_str()]].concat());
    assert!(said.contains("another operator must name it too") && said.contains("one of Ben runs"), "{said}");
    assert_eq!(place.json(&[&add[..], &[ben.as_str()]].concat())["standing"], 3);
    let (_, said) = place.fails(&[&add[..], &[ben.as_str()]].concat());
    assert!(said.contains("is an operator's key already"), "{said}");
    assert_eq!(place.json(&["operators", "revoke", &ada_key, "--operator", &eve])["standing"], 2);
    let (_, said) = place.fails(&["settle", "plan", "--yes", "--operator", &ada]);
    assert!(said.contains("not the key of an operator"), "{said}");
    hub.stop();
    let list = place.json(&["operators", "list"]);
    assert_eq!((&list["standing"], &list["approvals_needed"]), (&Value::from(2), &Value::from(1)));
    place.clean_audit();

    // Four eyes are not closed by whoever holds the machine.
    let output = place.command(&["run", "--json"]).env("WEIR_HUB_POLICY_APPROVALS", "0").output().unwrap();
    assert!(!output.status.success());
    let said = crate::hub::stderr(&output);
    assert!(said.contains("cannot be lowered from 1 to 0"), "{said}");
}

#[test]
fn empty_window_is_shown_cut_off_and_settled_without_operators() {
    let place = Place::new();
    let hub = place.run();
    let open = place.json(&["settle", "plan"]);
    assert_eq!((&open["window"], &open["state"], &open["plan_hash"]), (&Value::from(1), &"open".into(), &Value::Null));
    for list in ["positions", "payouts", "skipped", "plans"] {
        assert_eq!(open[list], Value::Array(Vec::new()));
    }
    assert_eq!(place.json(&["settle", "cutoff"])["state"], "settled");
    assert_eq!(place.json(&["settle", "status"])["window"], 1);
    assert_eq!(place.json(&["settle", "run", "--yes"])["window"], 2);
    let (code, said) = place.fails(&["settle", "approve", "--window", "9"]);
    assert_eq!(code, 2, "{said}");
    let (_, said) = place.fails(&["settle", "status", "--window", "9"]);
    assert!(said.contains("window 9 was not cut off"), "{said}");
    let (_, said) = place.fails(&["settle", "abort", "--reason", "none"]);
    assert!(said.contains("has no plan"), "{said}");
    hub.stop();
    place.clean_audit();
}

#[test]
fn next_scheduled_cutoff_is_shown() {
    let place = Place::new();
    let hub = place.run();
    assert_eq!(place.json(&["status"])["windows"]["next_cutoff_ms"], Value::Null);
    hub.stop();
    let toml = place.data().join("hub.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    let text = text.replace("# cutoff = \"\"", "cutoff = \"0 0 1 1 *\"");
    assert!(text.contains("0 0 1 1 *"));
    std::fs::write(&toml, text).unwrap();
    let hub = place.run();
    let status = place.json(&["status"]);
    assert!(status["windows"]["next_cutoff_ms"].as_u64().is_some(), "{status}");
    assert_eq!(status["windows"]["open"], 1);
    hub.stop();
}
