//! Starts, kills, restarts, copies put back.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::hub::{Place, copy, stderr};

#[test]
fn hub_lives_through_a_kill_and_its_books_are_clean() {
    let place = Place::new();
    let hub = place.run();
    assert!(hub.address.starts_with("weir://weirhub1") && hub.address.contains("@127.0.0.1:"));
    let status = place.json(&["status"]);
    assert_eq!((&status["running"], &status["health"]), (&Value::Bool(true), &Value::from("running")));
    assert_eq!(status["address"], hub.address.as_str());
    assert_eq!(status["head"]["number"], 1);
    assert_eq!(status["name"], "Test hub");
    let shape = keys(&status);
    assert_eq!(place.clean_audit()["commits"], 1, "an audit works beside a running hub");
    hub.kill();

    assert_eq!(place.clean_audit()["commits"], 1);
    let status = place.json(&["status"]);
    assert_eq!((&status["running"], &status["pid"]), (&Value::Bool(false), &Value::Null));
    assert_eq!(keys(&status), shape, "the same shape every time");

    // The identity key may be taken away, and the socket that the killed hub left is replaced.
    std::fs::remove_file(place.data().join("keys/identity.key")).unwrap();
    let hub = place.run();
    assert_eq!(place.json(&["status"])["head"]["number"], 2);
    hub.stop();
    assert!(!place.data().join("admin.sock").exists());
    let report = place.clean_audit();
    assert_eq!((&report["commits"], &report["head"]["number"]), (&Value::from(2), &Value::from(2)));
}

fn keys(value: &Value) -> Vec<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn socket_is_the_operators_alone_and_survives_nonsense() {
    let place = Place::new();
    let hub = place.run();
    let path = place.data().join("admin.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let ask = |stream: &mut BufReader<UnixStream>, line: &[u8]| -> Value {
        stream.get_mut().write_all(line).unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    };
    let connect = || BufReader::new(UnixStream::connect(&path).unwrap());
    let (mut one, mut two) = (connect(), connect());
    for bad in [&b"\n"[..], b"{}\n", b"{\"verb\":\"stop\"}\n", b"\xff\xfe\n"] {
        assert_eq!(ask(&mut one, bad)["error"]["code"], "malformed");
        assert_eq!(ask(&mut two, b"{\"verb\":\"status\"}\n")["ok"]["health"], "running");
    }
    let unknown = format!("{{\"verb\":\"channels close\",\"channel\":\"{}\",\"dry_run\":false}}\n", "00".repeat(32));
    assert_eq!(ask(&mut one, unknown.as_bytes())["error"]["code"], "UnknownChannel");
    // The bound of a line, on both sides.
    let longest = [&b" ".repeat(16 * 1024 - 17)[..], b"{\"verb\":\"status\"}\n"].concat();
    assert_eq!(ask(&mut one, &longest)["ok"]["health"], "running");
    let mut three = connect();
    assert_eq!(ask(&mut three, &b"x".repeat(16 * 1024 + 1))["error"]["code"], "malformed");
    assert_eq!(three.read_line(&mut String::new()).unwrap(), 0, "then the line is cut");
    hub.stop();
}

#[test]
fn second_hub_on_one_directory_is_refused() {
    let place = Place::new();
    let hub = place.run();
    let (code, said) = place.fails(&["run"]);
    assert_eq!(code, 1);
    assert!(said.contains("another hub is running") && said.contains("hint: "), "{said}");
    assert_eq!(place.fails(&["rebuild"]).0, 1);
    assert_eq!(place.fails(&["certify", "--new-key"]).0, 1);
    assert_eq!(place.json(&["status"])["running"], true, "the first one is undisturbed");
    hub.stop();
}

#[test]
fn old_copy_is_refused_until_the_operator_decides() {
    let place = Place::new();
    place.run().stop();
    copy(&place.data(), &place.path("old"));
    place.run().stop();
    place.run().stop();
    std::fs::rename(place.data(), place.path("newest")).unwrap();
    copy(&place.path("old"), &place.data());

    let (code, said) = place.fails(&["run"]);
    assert_eq!(code, 1);
    assert!(said.contains("old copy") && said.contains("commit 1") && said.contains("--accept-rollback 1"), "{said}");
    let audit = place.output(&["audit"]);
    assert_eq!(audit.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&audit.stdout).unwrap();
    assert_eq!((&report["audit"], &report["first_error"]["commit"]), (&Value::from("broken"), &Value::from(3)));

    let (code, said) = place.fails(&["run", "--accept-rollback", "2"]);
    assert_eq!(code, 1, "another commit than the last one is not what the operator looked at");
    assert!(said.contains('1'), "{said}");
    place.run_with(&["--accept-rollback", "1"]).stop();
    assert_eq!(place.clean_audit()["commits"], 2);
    place.run().stop();
    assert_eq!(place.clean_audit()["commits"], 3);

    // The other branch is now the old copy: it holds another commit of the anchor's number.
    std::fs::rename(place.data(), place.path("branch")).unwrap();
    std::fs::rename(place.path("newest"), place.data()).unwrap();
    let (code, said) = place.fails(&["run"]);
    assert_eq!(code, 1);
    assert!(said.contains("is not the one that the anchor"), "{said}");
}

#[test]
fn read_index_deleted_or_corrupted_loses_nothing() {
    let place = Place::new();
    place.run().stop();
    let index = place.data().join("index");
    assert!(index.is_dir());
    std::fs::remove_dir_all(&index).unwrap();
    place.run().stop();
    for entry in std::fs::read_dir(&index).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, bytes.iter().map(|byte| byte ^ 0x55).collect::<Vec<_>>()).unwrap();
        }
    }
    place.run().stop();
    assert_eq!(place.json(&["rebuild"])["commits"], 3);
    place.run().stop();
    assert_eq!(place.clean_audit()["commits"], 4);
}

#[test]
fn snapshot_is_compared_with_the_journal_and_shortens_the_start() {
    let place = Place::new();
    let hub = place.run();
    let row = place.json(&["snapshot"]);
    assert_eq!((&row["written"], &row["commit"]), (&Value::from(true), &Value::from(1)));
    assert_eq!(place.json(&["snapshot"])["written"], false);
    hub.kill();
    place.run().stop();
    assert_eq!(place.json(&["status"])["snapshot"], 1);
    assert_eq!(place.clean_audit()["snapshots"], serde_json::json!([1]));
    // A damaged snapshot is passed over.
    let snapshot = std::fs::read_dir(place.data().join("snapshots")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&snapshot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&snapshot, bytes).unwrap();
    assert!(place.clean_audit()["notes"][0].as_str().unwrap().contains("damaged"));
    place.run().stop();
    assert_eq!(place.clean_audit()["commits"], 3);
}

#[test]
fn snapshots_are_written_on_a_schedule() {
    let place = Place::new();
    let file = place.data().join("hub.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace("# interval_s = 600", "interval_s = 1");
    std::fs::write(&file, text).unwrap();
    let hub = place.run();
    let begun = std::time::Instant::now();
    while place.json(&["status"])["snapshot"] != 1 {
        assert!(begun.elapsed().as_secs() < 60, "no snapshot within a minute");
    }
    hub.stop();
    assert_eq!(place.clean_audit()["snapshots"], serde_json::json!([1]));
}

#[test]
fn certificate_is_renewed_and_replaced() {
    let place = Place::new();
    place.run().stop();
    let first = place.json(&["certify", "--days", "30"]);
    place.run().stop();
    let second = place.json(&["certify", "--new-key"]);
    assert_eq!(first["hub"], second["hub"]);
    assert_ne!(first["signing_key"], second["signing_key"]);
    place.run().stop();
    let status = place.json(&["status"]);
    assert_eq!(status["certificate"]["key"], second["signing_key"]);
    assert_eq!(place.clean_audit()["commits"], 3);

    let away = place.path("identity.key");
    std::fs::rename(place.data().join("keys/identity.key"), &away).unwrap();
    let (code, said) = place.fails(&["certify"]);
    assert!(code == 1 && said.contains("--identity"), "{said}");
    place.json(&["certify", "--identity", away.to_str().unwrap()]);
}

#[test]
fn settlement_runs_on_an_empty_window() {
    let place = Place::new();
    let hub = place.run();
    let (code, said) = place.fails(&["settle", "run"]);
    assert!(code == 2 && said.contains("--yes"), "nobody is here to confirm: {said}");
    assert_eq!(place.json(&["settle", "run", "--dry-run"])["window"], 1);
    assert_eq!(place.json(&["status"])["windows"]["open"], 1, "a dry run does nothing");
    assert_eq!(place.json(&["settle", "run", "--yes"])["window"], 1);
    let windows = place.json(&["status"])["windows"].clone();
    assert_eq!(windows, serde_json::json!({"open": 2, "unsettled": 0, "next_cutoff_ms": null}));
    hub.stop();
    place.clean_audit();
}

#[test]
fn anchor_that_is_missing_or_damaged_is_told_apart() {
    let place = Place::new();
    place.run().stop();
    std::fs::write(place.anchor(), "{}").unwrap();
    let output = place.output(&["run"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("damaged"), "{}", stderr(&output));
    std::fs::remove_file(place.anchor()).unwrap();
    place.run().stop();
    place.clean_audit();
}
