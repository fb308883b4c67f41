//! A hub of the bench's own: found, started empty with a sandbox bank, asked how it is, stopped, audited.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use serde::Deserialize;
use tempfile::TempDir;
use weir_client::protocol::id::HubAddress;

use super::super::failure::Failure;

const HUB: &str = "weir-hub";
/// `f_type` of file systems that keep nothing on a disk (statfs(2)): tmpfs, ramfs.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];
/// Longest wait for a hub that is told to stop.
const STOP: Duration = Duration::from_secs(60);

/// The program `weir-hub`: the one that is named, the one beside this program, the one on the PATH.
pub(super) fn find(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(named) = named {
        if named.is_file() {
            return Ok(named.to_owned());
        }
        return Err(missing(&format!("there is no program `{}`", named.display())));
    }
    let name = format!("{HUB}{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.to_owned()));
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let folders = beside.into_iter().chain(std::env::split_paths(&on_path));
    folders
        .map(|folder| folder.join(&name))
        .find(|path| path.is_file())
        .ok_or_else(|| missing(&format!("there is no `{HUB}` beside `weir` and none on the PATH")))
}

fn missing(what: &str) -> Failure {
    Failure::from(anyhow!("{what}")).hint(
        "build it with `cargo build --release -p weir-hub -p weir-client`, or name it with `--hub-bin FILE`; without \
         `--spawn` the home's hub is measured",
    )
}

/// A folder that is removed at the end, on a real disk: a sync to memory would measure nothing.
pub(super) fn folder(named: Option<&Path>) -> Result<TempDir, Failure> {
    let make = |parent: &Path| {
        tempfile::Builder::new()
            .prefix("weir-bench-")
            .tempdir_in(parent)
            .with_context(|| format!("cannot make a folder in `{}`", parent.display()))
    };
    let made = match named {
        Some(named) => {
            std::fs::create_dir_all(named).with_context(|| format!("cannot make `{}`", named.display()))?;
            make(named)
        }
        // A folder for temporary files is often in memory; the current one hardly ever.
        None => make(Path::new(".")).or_else(|_| make(&std::env::temp_dir())),
    }?;
    #[cfg(target_os = "linux")]
    {
        let kind = rustix::fs::statfs(made.path()).map_err(std::io::Error::from)?.f_type;
        #[expect(clippy::useless_conversion, reason = "the type differs from one architecture to another")]
        if IN_MEMORY.contains(&i64::from(kind)) {
            let error = anyhow!("`{}` is in memory: nothing is durable there", made.path().display());
            return Err(Failure::usage(error).hint("name a folder on a disk with `--data DIR`"));
        }
    }
    Ok(made)
}

/// The line that `weir-hub dev --empty --json` prints when it accepts.
#[derive(Debug, Deserialize)]
struct Ready {
    hub: HubAddress,
    pid: u32,
}

/// What `weir-hub status --json` says, as far as it matters here.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Status {
    pub(super) pid: Option<u32>,
    head: Option<Head>,
    pub(super) journal_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Head {
    number: u64,
}

impl Status {
    pub(super) fn commits(&self) -> u64 {
        self.head.map_or(0, |head| head.number)
    }
}

/// What `weir-hub audit --json` says, as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Audited {
    /// `clean` or `broken`.
    pub(super) audit: String,
    pub(super) payments: u64,
    pub(super) commits: u64,
    pub(super) sums: std::collections::BTreeMap<String, Sums>,
    pub(super) first_error: Option<serde_json::Value>,
}

/// The sums of a currency; amounts in units.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Sums {
    pub(super) earned: String,
}

/// Asks a hub how it is.
pub(super) fn status(binary: &Path, data: &Path) -> Result<Status, Failure> {
    let output = command(binary).args(["status", "--json", "--data"]).arg(data).output();
    let output = output.with_context(|| format!("cannot run `{}`", binary.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(anyhow!("`weir-hub status` says: {said}").into());
    }
    Ok(serde_json::from_slice(&output.stdout).context("cannot read what `weir-hub status` says")?)
}

/// Audits the data of a hub that has stopped.
pub(super) fn audit(binary: &Path, data: &Path) -> Result<Audited, Failure> {
    let output = command(binary).args(["audit", "--json", "--data"]).arg(data).output();
    let output = output.with_context(|| format!("cannot run `{}`", binary.display()))?;
    // A broken audit ends with a failure, and its report is on stdout all the same.
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        anyhow!("`weir-hub audit` says: {said}").into()
    })
}

/// A command that the environment's settings for other hubs and homes do not reach.
fn command(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEIR_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// A process that is ended when it is dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
}

impl Process {
    /// Starts a program, and reads the one line that says it is ready.
    pub(super) fn start<T: for<'a> Deserialize<'a>>(command: &mut Command) -> anyhow::Result<(Self, T)> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{name}`"))?;
        let mut process = Self { child };
        let mut line = String::new();
        if let Some(out) = process.child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let ready = serde_json::from_str(&line).with_context(|| format!("`{name}` did not start"))?;
        Ok((process, ready))
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits so long for its end.
    fn ended_within(&mut self, patience: Duration) -> anyhow::Result<Option<std::process::ExitStatus>> {
        let until = Instant::now() + patience;
        loop {
            match self.child.try_wait()? {
                None if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
                ended => return Ok(ended),
            }
        }
    }

    /// SIGTERM, and waits for the end.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).map_err(std::io::Error::from)?;
        }
        match self.ended_within(STOP)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(anyhow!("it ended with {status}")),
            None => Err(anyhow!("it did not stop within {} seconds", STOP.as_secs())),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A hub of the bench's own.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) binary: PathBuf,
    pub(super) address: HubAddress,
    pub(super) pid: u32,
    dev: PathBuf,
    process: Process,
}

impl Spawned {
    /// Starts an empty hub below a folder. Blocks until it accepts.
    pub(super) fn start(binary: &Path, folder: &Path) -> Result<Self, Failure> {
        let dev = folder.join("dev");
        let log = folder.join("hub.log");
        let errors = std::fs::File::create(&log).with_context(|| format!("cannot make `{}`", log.display()))?;
        let mut command = command(binary);
        command.args(["dev", "--empty", "--json", "--data"]).arg(&dev).stderr(errors);
        match Process::start::<Ready>(&mut command) {
            Ok((process, ready)) => {
                Ok(Self { binary: binary.to_owned(), address: ready.hub, pid: ready.pid, dev, process })
            }
            Err(error) => Err(Failure::from(match said(&log) {
                Some(said) => error.context(format!("the hub says: {said}")),
                None => error,
            })),
        }
    }

    /// The folder of the dev hub: its sandbox bank takes orders there.
    pub(super) fn sandbox(&self) -> &Path {
        &self.dev
    }

    /// The hub's data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.dev.join("hub")
    }

    /// Stops it. Everything acknowledged is durable then.
    pub(super) fn stop(self) -> Result<(), Failure> {
        Ok(self.process.stop().context("the hub did not stop well")?)
    }
}

/// The end of what a hub said.
pub(super) fn said(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(5)..)?.join("\n");
    (!last.is_empty()).then_some(last)
}
/// The bare transport in a process of its own.
pub(super) fn echo(binary: &Path) -> anyhow::Result<(Process, std::net::SocketAddr)> {
    #[derive(Debug, Deserialize)]
    struct Ready {
        address: std::net::SocketAddr,
    }
    let mut command = command(binary);
    command.args(["echo", "--json"]).stdin(Stdio::piped()).stderr(Stdio::null());
    let (process, ready) = Process::start::<Ready>(&mut command)?;
    Ok((process, ready.address))
}
