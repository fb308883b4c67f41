//! The guide's axum service: its code is the example's, and its commands run as they stand against a real hub.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::tour::{FirstTerminal, blocks, path_with_binaries, run, script};

const README: &str = include_str!("../../client/README.md");
const EXAMPLE: &str = include_str!("../../client/examples/axum_service.rs");

#[test]
fn guide_s_axum_service_is_the_example_to_the_letter() {
    let code = blocks(README, "rust,no_run").into_iter().find(|code| code.contains("WeirLayer::builder")).unwrap();
    assert!(EXAMPLE.ends_with(&code), "`client/examples/axum_service.rs` ends with the code of the guide");
}

#[test]
fn guide_s_axum_service_is_paid_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let binaries = path_with_binaries();
    let mut folders = vec![example()];
    folders.extend(std::env::split_paths(&binaries));
    let path = std::env::join_paths(folders).unwrap();
    let service = FirstTerminal::start(&blocks(README, "sh axum service").concat(), folder.path(), &path);
    service.wait_for("listening on http://");
    let commands = blocks(README, "sh axum").concat();
    let (script, expected) = script(&commands);
    assert!(expected.len() >= 4, "the guide says what to look for");
    run(&script, &expected, folder.path(), &path);
}

/// The folder of the example's binary.
fn example() -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(["build", "-p", "weir-client", "--example", "axum_service", "--message-format=json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(built.status.success(), "the example can be built");
    let messages = String::from_utf8(built.stdout).unwrap();
    let messages = messages.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut binaries = messages.filter_map(|message| Some(message.get("executable")?.as_str()?.to_owned()));
    let binary = binaries.next_back().unwrap();
    Path::new(&binary).parent().unwrap().to_owned()
}
