//! A hub in a directory of its own, as a process that can be killed, stopped, held, and started again on the same port.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;
use weir_protocol::id::HubAddress;

/// The hub's own bank account in tests.
pub const HUB_IBAN: &str = "DE89370400440532013000";
/// Its owner.
pub const HUB_NAME: &str = "Test hub";

/// A data directory, an anchor beside it, and the binary.
#[derive(Debug)]
pub struct Place {
    binary: PathBuf,
    root: tempfile::TempDir,
    port: u16,
    settings: Vec<(&'static str, String)>,
}

impl Place {
    /// With a hub made in it: open registration, small segments, a bank that is looked at often.
    pub fn new(binary: &str) -> Self {
        Self::at(binary, tempfile::tempdir().unwrap())
    }

    /// The same in a directory that the caller made, on a file system of its choice.
    pub fn at(binary: &str, root: tempfile::TempDir) -> Self {
        // Free now, for TCP; a hub takes UDP. Another process could take it in between: the start fails then, loudly.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let place = Self { binary: binary.into(), root, port, settings: Vec::new() };
        let anchor = place.anchor();
        let anchor = ["--anchor", anchor.to_str().unwrap()];
        place.json(&[&["init", "--name", HUB_NAME, "--iban", HUB_IBAN], &anchor[..]].concat());
        place
    }

    /// A setting of the hub's from its next start on, by the name of its variable.
    pub fn set(&mut self, variable: &'static str, value: &str) {
        self.settings.push((variable, value.to_owned()));
    }

    /// A path beside the data directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.path("hub")
    }

    /// The anchor's file.
    pub fn anchor(&self) -> PathBuf {
        self.path("anchor.json")
    }

    /// A command on this directory, undisturbed by the environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WEIR_")) {
            command.env_remove(name);
        }
        command.args(args).arg("--data").arg(self.data()).stdin(Stdio::null());
        command
            .env("WEIR_HUB_JOURNAL_SEGMENT_MIB", "1")
            .env("WEIR_HUB_POLICY_REGISTRATION", "open")
            // Nobody here is a second operator.
            .env("WEIR_HUB_POLICY_APPROVALS", "0")
            .env("WEIR_HUB_BANK_POLL_MS", "20")
            .env("WEIR_HUB_SNAPSHOT_INTERVAL_S", "0")
            .envs(self.settings.iter().cloned());
        command
    }

    /// Runs a command to its end.
    pub fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The JSON of a command that succeeds.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.output(args);
        assert!(output.status.success(), "{args:?}: {}{}", stdout(&output), stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What a command that fails says on stderr.
    pub fn fails(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(!output.status.success(), "{args:?} succeeded: {}", stdout(&output));
        stderr(&output)
    }

    /// Starts the hub and waits until it accepts.
    pub fn run(&self) -> Hub {
        self.run_with(&[])
    }

    /// The same with more arguments.
    pub fn run_with(&self, args: &[&str]) -> Hub {
        let listen = format!("127.0.0.1:{}", self.port);
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let mut child = self
            .command(&[&["run", "--json", "--listen", &listen], args].concat())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        if line.is_empty() {
            let status = child.wait().unwrap();
            panic!("the hub does not start, {status}: {}", self.said());
        }
        let ready: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(ready["pid"], u64::from(child.id()));
        Hub { child, address: ready["address"].as_str().unwrap().parse().unwrap(), _out: out }
    }

    /// What the hubs of this place said on stderr.
    pub fn log(&self) -> PathBuf {
        self.path("hub.log")
    }

    /// The same, as text.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Audits; the report, which must be clean. No hub may have panicked.
    pub fn clean_audit(&self) -> Value {
        let report = self.json(&["audit"]);
        assert_eq!(report["audit"], "clean", "{report}");
        assert_eq!(report["first_error"], Value::Null);
        let said = self.said();
        assert!(!said.contains("panicked"), "{said}");
        report
    }
}

/// What a process wrote to stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a process wrote to stdout.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Copies a directory with everything in it, sockets excepted.
pub fn copy(from: &Path, to: &Path) {
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
#[derive(Debug)]
pub struct Hub {
    child: Child,
    /// Where clients connect.
    pub address: HubAddress,
    _out: BufReader<ChildStdout>,
}

impl Hub {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits for the clean stop.
    pub fn stop(mut self) {
        self.signal("TERM");
        let status = self.child.wait().unwrap();
        assert!(status.success(), "a hub that is told to stop ends well: {status}");
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let killed = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for a hub that ends by itself; whether it ended well.
    pub fn ends(mut self) -> bool {
        self.child.wait().unwrap().success()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // Ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
