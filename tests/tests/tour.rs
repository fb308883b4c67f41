//! The tour of the top-level README, run as it stands: its blocks, the real binaries, a folder of its own.
//!
//! A block that begins with "```sh tour hub" is the first terminal's; those that begin with "```sh tour" are the second's,
//! one script in their order. `# prints: TEXT` in it: TEXT stands in what the commands since the last such comment printed.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const README: &str = include_str!("../../README.md");
/// What the first terminal says when the second may begin.
const READY: &str = "the hub stays until Ctrl-C";
/// What the hub says when it has ended well.
const STOPPED: &str = "stopped; everything acknowledged is durable";
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between what is printed for one expectation and for the next.
const MARK: &str = "@@@ the next expectation";
const PRINTS: &str = "# prints: ";

#[test]
fn tour_of_the_readme_works_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_with_binaries();
    let hub = FirstTerminal::start(&blocks(README, "sh tour hub").concat(), folder.path(), &path);
    hub.wait_for(READY);
    let second = blocks(README, "sh tour").concat();
    let (script, expected) = script(&second);
    assert!(expected.len() >= 10, "the README says what to look for");
    run(&script, &expected, folder.path(), &path);
    hub.interrupt();
}

/// Runs the second terminal, and looks for what is expected.
pub(crate) fn run(script: &str, expected: &[Vec<&str>], folder: &Path, path: &OsString) {
    let output = second_terminal(script, folder, path);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the commands end with {}\n{stdout}\n{stderr}", output.status);
    let printed: Vec<&str> = stdout.split(MARK).collect();
    for (texts, printed) in expected.iter().zip(&printed) {
        for text in texts {
            assert!(printed.contains(text), "`{text}` is not in what was printed:\n{printed}\n{stderr}");
        }
    }
}

/// The contents of a README's blocks of exactly this kind.
pub(crate) fn blocks(readme: &str, kind: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        match line.strip_prefix("```") {
            Some(opened) if !inside && opened == kind => {
                inside = true;
                found.push(String::new());
            }
            Some(_) => inside = false,
            None if inside => found.last_mut().unwrap().extend([line, "\n"]),
            None => {}
        }
    }
    assert!(!found.is_empty(), "the README has a block `{kind}`");
    found
}

/// The commands with a mark after each group of expectations; the expectations, group by group.
pub(crate) fn script(tour: &str) -> (String, Vec<Vec<&str>>) {
    let mut script = String::from("set -eu\n");
    let mut expected: Vec<Vec<&str>> = Vec::new();
    let mut in_group = false;
    for line in tour.lines() {
        match line.strip_prefix(PRINTS) {
            Some(text) if in_group => expected.last_mut().unwrap().push(text),
            Some(text) => {
                expected.push(vec![text]);
                script.extend(["echo '", MARK, "'\n"]);
            }
            None => script.extend([line, "\n"]),
        }
        in_group = line.starts_with(PRINTS);
    }
    (script, expected)
}

/// The search path, with the binaries of this workspace first.
pub(crate) fn path_with_binaries() -> OsString {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--bins", "-p", "weir-hub", "-p", "weir-client", "--message-format=json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(built.status.success(), "the binaries can be built");
    let mut folders: Vec<PathBuf> = Vec::new();
    for line in String::from_utf8(built.stdout).unwrap().lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        if let Some(binary) = message.get("executable").and_then(serde_json::Value::as_str) {
            folders.push(Path::new(binary).parent().unwrap().to_owned());
        }
    }
    assert_eq!(folders.len(), 2, "one `weir-hub`, one `weir`");
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    std::env::join_paths(folders).unwrap()
}

fn bash(script: &str, folder: &Path, path: &OsString) -> Command {
    // A limit from outside, so that a loop that waits in the tour cannot wait for ever.
    let mut command = Command::new("timeout");
    command.args([&PATIENCE.as_secs().to_string(), "bash", "-c", script]).current_dir(folder).env("PATH", path);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEIR_")) {
        command.env_remove(name);
    }
    command
}

fn second_terminal(script: &str, folder: &Path, path: &OsString) -> Output {
    bash(script, folder, path).stdin(Stdio::null()).output().unwrap()
}

/// The terminal in which the hub runs, with everything that was started from it.
pub(crate) struct FirstTerminal {
    process: Child,
    lines: mpsc::Receiver<String>,
}

impl FirstTerminal {
    pub(crate) fn start(script: &str, folder: &Path, path: &OsString) -> Self {
        let mut command = bash(script, folder, path);
        // A process group of its own, so that a signal reaches the hub through whatever started it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let said = BufReader::new(process.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                // Read on when nobody listens: the hub must not wait for a full pipe.
                let _ = sender.send(line);
            }
        });
        Self { process, lines }
    }

    pub(crate) fn wait_for(&self, text: &str) {
        let mut said = Vec::new();
        while !said.last().is_some_and(|line: &String| line.contains(text)) {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => said.push(line),
                Err(error) => panic!("the hub did not say `{text}` ({error}):\n{}", said.join("\n")),
            }
        }
    }

    fn signal(&self, name: &str) {
        let group = format!("-{}", self.process.id());
        // It may have ended by itself.
        let _ = Command::new("kill").args(["-s", name, "--", &group]).stderr(Stdio::null()).status();
    }

    /// Ctrl-C, and the hub's last words.
    fn interrupt(mut self) {
        self.signal("INT");
        self.wait_for(STOPPED);
        self.process.wait().unwrap();
    }
}

impl Drop for FirstTerminal {
    fn drop(&mut self) {
        self.signal("KILL");
        let _ = self.process.wait();
    }
}
