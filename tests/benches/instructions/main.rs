//! How many instructions the hot paths take, counted by callgrind: the figure does not wobble with the machine's load.
//!
//! `.ci/instructions` (`cargo bench -p weir-tests --bench instructions`) compares with `baseline.json` beside this file and fails when a path
//! grew by more than [`MOST_GROWTH_PERCENT`] and [`NOISE`]; `.ci/instructions --bless` writes a new baseline. Needs valgrind.
//!
//! Figures repeat to the instruction, but for some hundreds in ten million where hash maps have seeds.
//!
//! Each path runs in a process of its own under valgrind, once to warm up and once counted. Valgrind shows programs a
//! processor without SHA-NI, so SHA-256 is counted in software, several times dearer than on most machines: these figures
//! are for comparing a path with itself, not with another. The baseline names what else it depends on.
#![expect(clippy::print_stdout, reason = "the result of a benchmark")]

mod engine;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use weir_protocol::wire::{LENGTH_BYTES, LaneRequest};

use engine::Engine;

/// A path that grew by more over its baseline fails.
const MOST_GROWTH_PERCENT: u64 = 5;
/// Unless it grew by no more instructions than this: code elsewhere in a crate moves what the compiler inlines here.
const NOISE: u64 = 200;
/// The function around what is counted, as callgrind names it.
const COUNTED: &str = "--toggle-collect=*instructions*counted*";
/// The name under which this program runs itself.
const PROGRAM: &str = "./program";
/// Tells a process what to run.
const RUN: &str = "--run";

/// Prepares a path, runs it counted, and checks what came of it.
type Prepared = fn() -> anyhow::Result<()>;

/// What is counted.
const PATHS: [(&str, Prepared); 9] = [
    ("accept a frame of 1", || accept(1)),
    ("accept a frame of 256", || accept(256)),
    ("encode a frame of 1", || encode_frame(1)),
    ("encode a frame of 256", || encode_frame(256)),
    ("decode a frame of 1", || decode_frame(1)),
    ("decode a frame of 256", || decode_frame(256)),
    ("build a receipt in a group of 1", || build_receipt(1)),
    ("build a receipt in a group of 256", || build_receipt(256)),
    ("check a receipt of a group of 256", || check_receipt(256)),
];

/// The committed figures, and what they were taken with.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Baseline {
    /// Which SHA-256 ran under valgrind: `software` or `SHA-NI`.
    sha256: String,
    /// The compiler.
    rustc: String,
    /// Its version.
    valgrind: String,
    /// By path.
    instructions: BTreeMap<String, u64>,
}

/// Only what happens in here is counted.
#[inline(never)]
fn counted<T>(path: impl FnOnce() -> T) -> T {
    black_box(path())
}

fn accept(count: usize) -> anyhow::Result<()> {
    let mut engine = Engine::new()?;
    engine.pay(count)?;
    let sent = engine.frame(count)?;
    let answer = counted(|| engine.accept(black_box(&sent.bytes)))?;
    engine.paid(sent, &answer).map(drop)
}

fn encode_frame(count: usize) -> anyhow::Result<()> {
    let sent = Engine::new()?.frame(count)?;
    let request = sent.request();
    let bytes = counted(|| black_box(&request).encode());
    ensure!(bytes == sent.bytes, "the frame is encoded in one way only");
    Ok(())
}

fn decode_frame(count: usize) -> anyhow::Result<()> {
    let sent = Engine::new()?.frame(count)?;
    let body = sent.bytes.get(LENGTH_BYTES..).unwrap_or_default();
    let request = counted(|| LaneRequest::decode(black_box(body)))?;
    ensure!(request == sent.request(), "the frame is decoded in one way only");
    Ok(())
}

fn build_receipt(count: usize) -> anyhow::Result<()> {
    let mut engine = Engine::new()?;
    engine.pay(count)?.receipt(0)?;
    let group = engine.pay(count)?;
    let receipt = counted(|| black_box(&group).receipt(count / 2))?;
    let claim = group.claim(count / 2).context("a payment")?;
    receipt.check(&claim, engine.certificate())?;
    Ok(())
}

fn check_receipt(count: usize) -> anyhow::Result<()> {
    let mut engine = Engine::new()?;
    let group = engine.pay(count)?;
    let (receipt, claim) = (group.receipt(count / 2)?, group.claim(count / 2).context("a payment")?);
    let certificate = engine.certificate();
    receipt.check(&claim, certificate)?;
    counted(|| black_box(&receipt).check(black_box(&claim), certificate))?;
    Ok(())
}

/// Which SHA-256 this processor gets.
fn sha256() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("sha") && std::arch::is_x86_feature_detected!("sse4.1") {
        return "SHA-NI";
    }
    "software"
}

/// Runs one path under callgrind; which SHA-256 it had, and its instructions.
///
/// The program's name, arguments and environment lie on its stack and move what lies below, which changes how bytes are
/// copied: so they are the same everywhere.
fn count(name: &str, dir: &Path) -> anyhow::Result<(String, u64)> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", COUNTED, "--callgrind-out-file=counts", PROGRAM, RUN, name])
        .current_dir(dir)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .output()
        .context("cannot run valgrind: install it, on Debian with `apt-get install valgrind`")?;
    ensure!(output.status.success(), "`{name}` under valgrind: {}", String::from_utf8_lossy(&output.stderr));
    let counts = std::fs::read_to_string(dir.join("counts")).context("callgrind wrote nothing")?;
    let total = counts.lines().find_map(|line| line.strip_prefix("totals: ")).context("callgrind gave no total")?;
    let total = total.trim().parse().with_context(|| format!("`{total}` is not one count"))?;
    ensure!(total > 0, "callgrind did not find what to count: {COUNTED}");
    Ok((String::from_utf8(output.stdout)?.trim().to_owned(), total))
}

fn version(program: &str) -> anyhow::Result<String> {
    let output = Command::new(program).arg("--version").output().with_context(|| format!("cannot run {program}"))?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn measure() -> anyhow::Result<Baseline> {
    let dir = tempfile::tempdir()?;
    std::os::unix::fs::symlink(std::env::current_exe()?, dir.path().join(PROGRAM))?;
    let mut now = Baseline {
        sha256: String::new(),
        rustc: version("rustc")?,
        valgrind: version("valgrind")?,
        instructions: BTreeMap::new(),
    };
    for (name, _) in PATHS {
        let (sha256, instructions) = count(name, dir.path())?;
        now.sha256 = sha256;
        now.instructions.insert(name.to_owned(), instructions);
    }
    Ok(now)
}

/// In hundredths of a percent.
fn change(before: u64, now: u64) -> i128 {
    (i128::from(now) - i128::from(before)) * 10_000 / i128::from(before.max(1))
}

/// Prints the table; whether everything is within bounds.
fn compare(before: &Baseline, now: &Baseline) -> bool {
    let mut good = true;
    println!("{:<36} {:>12} {:>12} {:>9}", "instructions", "baseline", "now", "change");
    for (name, _) in PATHS {
        let counted = now.instructions.get(name).copied().unwrap_or_default();
        let Some(known) = before.instructions.get(name).copied() else {
            println!("{name:<36} {:>12} {counted:>12} {:>9}", "-", "new");
            good = false;
            continue;
        };
        let change = change(known, counted);
        let sign = if change < 0 { '-' } else { '+' };
        let percent = format!("{sign}{}.{:02}%", change.abs() / 100, change.abs() % 100);
        let grown = change > i128::from(MOST_GROWTH_PERCENT) * 100 && counted > known + NOISE;
        println!("{name:<36} {known:>12} {counted:>12} {percent:>9}{}", if grown { "  GREW" } else { "" });
        good &= !grown;
    }
    for gone in before.instructions.keys().filter(|name| !now.instructions.contains_key(*name)) {
        println!("{gone}: in the baseline, and no longer counted");
        good = false;
    }
    println!("SHA-256 in {}; {}; {}", now.sha256, now.rustc, now.valgrind);
    for (what, then, today) in [
        ("SHA-256", &before.sha256, &now.sha256),
        ("rustc", &before.rustc, &now.rustc),
        ("valgrind", &before.valgrind, &now.valgrind),
    ] {
        if then != today {
            println!("the baseline was taken with {what} `{then}`: part of the change may come from there");
        }
    }
    good
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|word| word == RUN) {
        let name = arguments.get(at + 1).context("what to run")?;
        let (_, path) = PATHS.iter().find(|(known, _)| known == name).context("no such path")?;
        println!("{}", sha256());
        return path();
    }
    let file: PathBuf = [env!("CARGO_MANIFEST_DIR"), "benches", "instructions", "baseline.json"].iter().collect();
    let now = measure()?;
    if arguments.iter().any(|word| word == "--bless") {
        std::fs::write(&file, serde_json::to_string_pretty(&now)? + "\n")?;
        compare(&now, &now);
        return Ok(());
    }
    let before = std::fs::read(&file).context("no baseline: make one with `-- --bless`")?;
    if !compare(&serde_json::from_slice(&before)?, &now) {
        bail!(
            "a path takes over {MOST_GROWTH_PERCENT} % more instructions than its baseline, or has none; if that is meant: \
             .ci/instructions --bless"
        );
    }
    Ok(())
}
