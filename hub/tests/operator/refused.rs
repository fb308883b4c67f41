//! What the command line refuses, before it opens any data.

use std::os::unix::fs::PermissionsExt as _;

use crate::hub::{Place, stderr, weir_hub};

#[test]
fn init_refuses_a_directory_that_is_not_empty() {
    let place = Place::new();
    let before = std::fs::read(place.data().join("keys/signing.key")).unwrap();
    let (code, said) = place.fails(&["init"]);
    assert!(code == 1 && said.contains("is not empty") && said.contains("hint: "), "{said}");
    assert_eq!(std::fs::read(place.data().join("keys/signing.key")).unwrap(), before);
}

#[test]
fn init_refuses_nonsense_and_leaves_nothing() {
    let place = Place::new();
    let other = place.path("other");
    let anchor = place.path("nowhere/anchor");
    let bad: [&[&str]; 5] = [
        &["--iban", "DE00370400440532013000"],
        &["--currency", "USD"],
        &["--listen", "here"],
        &["--bic", "COBADEFFXXX"],
        &["--anchor", anchor.to_str().unwrap()],
    ];
    for args in bad {
        let output = weir_hub(&["init", "--data"]).arg(&other).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(!other.exists(), "{args:?}");
    }
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let place = Place::new();
    let file = place.data().join("hub.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    for (text, named) in [
        ("color = \"blue\"", "unknown key `color`"),
        ("shards = \"two\"", "`shards`"),
        ("[police]\nrefund_days = 3", "unknown key `police`"),
        ("[policy]\npayout_min = 0.01", "`policy.payout_min`"),
        ("listen", "not valid TOML"),
    ] {
        std::fs::write(&file, text).unwrap();
        for command in [&["run"][..], &["config", "show"], &["audit"]] {
            let (code, said) = place.fails(command);
            assert!(code == 2 && said.starts_with("error: ") && said.contains(named), "{said}");
        }
    }
    std::fs::write(&file, good).unwrap();
    let output = place.command(&["run"]).env("WEIR_HUB_POLICY_REFUND_DAYS", "soon").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("environment WEIR_HUB_POLICY_REFUND_DAYS"), "{}", stderr(&output));
    assert!(!place.data().join("journal").exists(), "nothing was opened");
}

#[test]
fn config_show_says_where_each_value_comes_from() {
    let place = Place::new();
    let mut command = place.command(&["config", "show", "--listen", "127.0.0.1:9"]);
    let output = command.env("WEIR_HUB_SHARDS", "2").output().unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |key: &str| {
        let settings = shown["settings"].as_array().unwrap();
        let setting = settings.iter().find(|setting| setting["key"] == key).unwrap();
        (setting["value"].as_str().unwrap().to_owned(), setting["source"].as_str().unwrap().to_owned())
    };
    assert_eq!(of("listen"), ("127.0.0.1:9".into(), "flag --listen".into()));
    assert_eq!(of("shards"), ("2".into(), "environment WEIR_HUB_SHARDS".into()));
    assert_eq!(of("policy.payout_min"), ("0.01".into(), "default".into()));
    assert!(of("name").1.starts_with("file "));
}

#[test]
fn key_that_others_can_read_stops_the_hub() {
    let place = Place::new();
    let key = place.data().join("keys/signing.key");
    let secret = std::fs::read_to_string(&key).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, said) = place.fails(&["run"]);
    assert!(code == 1 && said.contains("can be read by others") && said.contains("hint: chmod 600"), "{said}");
    assert!(!said.contains(secret.trim()));
}

#[test]
fn verbs_without_a_hub_say_so() {
    let place = Place::new();
    for verb in [&["snapshot"][..], &["clock", "confirm"], &["settle", "run", "--yes"]] {
        let (code, said) = place.fails(verb);
        assert!(code == 1 && said.contains("no hub is running") && said.contains("weir-hub run"), "{said}");
    }
    let nowhere = weir_hub(&["status", "--data", "/nonexistent"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(stderr(&nowhere).contains("weir-hub init"), "{}", stderr(&nowhere));
    assert_eq!(weir_hub(&["status"]).output().unwrap().status.code(), Some(2), "without `--data`");
    let script = weir_hub(&["completions", "bash"]).output().unwrap();
    assert!(script.status.success() && !script.stdout.is_empty());
}
