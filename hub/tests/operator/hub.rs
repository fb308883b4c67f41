//! A hub in a directory of its own, driven through its command line.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;

/// A command of the binary, undisturbed by the environment.
pub(crate) fn weir_hub(args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("weir-hub"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WEIR_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// A data directory, an anchor beside it.
pub(crate) struct Place {
    root: tempfile::TempDir,
}

impl Place {
    /// With a hub made in it.
    pub(crate) fn new() -> Self {
        let place = Self { root: tempfile::tempdir().unwrap() };
        let anchor = place.anchor();
        let iban = ["--name", "Test hub", "--iban", "DE89370400440532013000", "--listen", "127.0.0.1:0"];
        let made = place.json(&[&["init", "--anchor", anchor.to_str().unwrap()], &iban[..]].concat());
        assert!(made["hub"].as_str().unwrap().starts_with("weirhub1"));
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("hub")
    }

    pub(crate) fn anchor(&self) -> PathBuf {
        self.path("anchor.json")
    }

    /// A command on this directory.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = weir_hub(args);
        // Small segments: they are written ahead in full.
        command.arg("--data").arg(self.data()).env("WEIR_HUB_JOURNAL_SEGMENT_MIB", "1");
        command
    }

    pub(crate) fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The JSON of a command that succeeds.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.output(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What a command that fails says, and its exit code.
    pub(crate) fn fails(&self, args: &[&str]) -> (i32, String) {
        let output = self.output(args);
        assert!(output.stdout.is_empty(), "a failure writes no data");
        (output.status.code().unwrap(), stderr(&output))
    }

    /// Starts the hub and waits until it accepts.
    pub(crate) fn run(&self) -> Hub {
        self.run_with(&[])
    }

    pub(crate) fn run_with(&self, args: &[&str]) -> Hub {
        let mut child = self
            .command(&[&["run", "--json"], args].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the hub does not start: {}", stderr(&child.wait_with_output().unwrap()));
        let ready: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(ready["pid"], u64::from(child.id()));
        Hub { child, address: ready["address"].as_str().unwrap().to_owned(), _out: out }
    }

    /// Audits; the report, which must be clean.
    pub(crate) fn clean_audit(&self) -> Value {
        let report = self.json(&["audit"]);
        assert_eq!(report["audit"], "clean", "{report}");
        assert_eq!(report["first_error"], Value::Null);
        report
    }
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Copies a directory with everything in it, sockets excepted.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy(&entry.path(), &to),
            kind if kind.is_file() => drop(std::fs::copy(entry.path(), to).unwrap()),
            _ => {}
        }
    }
}

/// A running hub; killed when it is dropped.
pub(crate) struct Hub {
    child: Child,
    pub(crate) address: String,
    _out: BufReader<ChildStdout>,
}

impl Hub {
    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits for the clean stop.
    pub(crate) fn stop(mut self) {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(killed.success());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "a hub that is told to stop ends well: {status}");
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // Ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
