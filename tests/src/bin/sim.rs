//! Runs the simulator: `sim --seed N [--ops N] [--seeds COUNT] [--bug NAME] [--reached]`. Exit 0 only when everything holds. The same
//! seed gives the same output.

#![expect(clippy::print_stdout, reason = "the report is this program's data")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use anyhow::{Context as _, bail};
use weir_tests::sim::{self, Options, Report};

struct Arguments {
    seed: u64,
    seeds: u64,
    operations: u64,
    reached: bool,
    #[cfg(feature = "planted-bugs")]
    bug: Option<weir_protocol::planted::Bug>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = parse()?;
    // What an assertion says is part of the report.
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (sender, reports) = mpsc::channel::<Report>();
    let mut found: Vec<Report> = std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next, arguments) = (sender.clone(), &next, &arguments);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    if at >= arguments.seeds {
                        break;
                    }
                    let options = Options {
                        seed: arguments.seed + at,
                        operations: arguments.operations,
                        #[cfg(feature = "planted-bugs")]
                        bug: arguments.bug,
                    };
                    if sender.send(sim::run(options)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        reports.iter().collect()
    });
    found.sort_by_key(|report| report.seed);
    let mut failed = 0;
    for report in &found {
        failed += u64::from(print(report));
    }
    let sum = |part: fn(&Report) -> u64| found.iter().map(part).sum::<u64>();
    println!(
        "{} seeds, {failed} failed: {} operations, {} commits, {} payments, {} crashes",
        found.len(),
        sum(|report| report.operations),
        sum(|report| report.commits),
        sum(|report| report.payments),
        sum(|report| report.crashes),
    );
    if arguments.reached {
        let mut all = std::collections::BTreeMap::<&str, u64>::new();
        for (what, count) in found.iter().flat_map(|report| &report.reached) {
            *all.entry(what).or_default() += count;
        }
        for (what, count) in all {
            println!("{count:>8}  {what}");
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints a report; whether the run failed.
fn print(report: &Report) -> bool {
    let Report { seed, operations, commits, payments, crashes, hash, failure, reached: _ } = report;
    let counts = format!("{operations} operations, {commits} commits, {payments} payments, {crashes} crashes");
    match failure {
        None => {
            println!("seed {seed}: holds: {counts}, events {hash:016x}");
            false
        }
        Some((failure, last)) => {
            println!("seed {seed}: FAILS: {failure}");
            println!("  after {counts}, events {hash:016x}; the last events:");
            for event in last {
                println!("  {event}");
            }
            true
        }
    }
}

fn parse() -> anyhow::Result<Arguments> {
    let mut arguments = Arguments {
        seed: 1,
        seeds: 1,
        operations: 500,
        reached: false,
        #[cfg(feature = "planted-bugs")]
        bug: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(name) = words.next() {
        if name == "--reached" {
            arguments.reached = true;
            continue;
        }
        let value = words.next().with_context(|| format!("`{name}` needs a value"))?;
        let number = || value.parse::<u64>().with_context(|| format!("`{value}` is not a number"));
        match name.as_str() {
            "--seed" => arguments.seed = number()?,
            "--seeds" => arguments.seeds = number()?,
            "--ops" => arguments.operations = number()?,
            #[cfg(feature = "planted-bugs")]
            "--bug" => {
                let known = weir_protocol::planted::Bug::ALL.into_iter().find(|(name, _)| *name == value);
                arguments.bug = Some(known.with_context(|| format!("no planted bug is called `{value}`"))?.1);
            }
            #[cfg(not(feature = "planted-bugs"))]
            "--bug" => bail!("build with `--features planted-bugs` to plant `{value}`"),
            _ => bail!("usage: sim --seed N [--ops N] [--seeds COUNT] [--bug NAME] [--reached]"),
        }
    }
    Ok(arguments)
}
