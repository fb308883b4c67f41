//! `audit`, `rebuild`, `config show`: what works on the directory itself.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::printer::{self, Printer};
use super::{Failure, SettingsArgs};
use crate::audit::{self, Report, Subject, Verdict, journal_of};
use crate::config::variable;
use crate::keys::KeyFiles;
use crate::pipeline::recover::keys_of;
use crate::store::DirectoryLock;
use crate::store::index::Index;

/// Work that is done sooner shows no progress.
const QUIET: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Audits the directory; fails when it is broken.
pub(super) fn audit(args: &AuditArgs, printer: Printer) -> Result<(), Failure> {
    let data = &args.settings.data.data;
    let config = args.settings.settings()?.resolve()?;
    let hub = KeyFiles::of(data).certificate()?.hub;
    let mut progress = Progress::new("commits");
    // A journal that trips an assertion is part of the report; the assertion itself is a line in the log.
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "an assertion tripped")));
    let report = audit::audit(Subject { data, hub, anchor: config.anchor.as_deref() }, &mut |done, all| {
        progress.at(done, all);
    })?;
    progress.done();
    printer.print(&report, show_audit)?;
    if report.audit == Verdict::Clean { Ok(()) } else { Err(Failure::said()) }
}

fn show_audit(report: &Report) -> String {
    let verdict = match report.audit {
        Verdict::Clean => "clean",
        Verdict::Broken => "BROKEN",
    };
    let mut facts = vec![
        ("audit", verdict.to_owned()),
        ("commits", report.commits.to_string()),
        ("payments", report.payments.to_string()),
        ("head", report.head.map_or("none".to_owned(), |head| head.id.to_string())),
    ];
    if let Some(error) = &report.first_error {
        facts.push(("first error", format!("commit {}: {}", error.commit, error.what)));
    }
    facts.extend(report.notes.iter().map(|note| ("note", note.clone())));
    for (currency, sums) in &report.sums {
        facts.push(("at the bank", format!("{} {currency}", sums.cash)));
    }
    printer::facts(facts)
}

#[derive(Debug, Serialize)]
struct Rebuilt {
    rebuilt: bool,
    commits: u64,
}

/// Deletes the read index and builds it again.
pub(super) fn rebuild(data: &Path, printer: Printer) -> Result<(), Failure> {
    // Also says whether there is a hub.
    KeyFiles::of(data).certificate()?;
    let _lock = DirectoryLock::take(data)?;
    let path = data.join("index");
    Index::remove(&path)?;
    let mut commits = 0;
    if let Some(journal) = journal_of(data)? {
        commits = journal.last()?.map_or(0, |last| last.number);
        let bar = spinner();
        drop(Index::open(&path, journal, keys_of())?);
        bar.finish_and_clear();
    }
    printer.print(&Rebuilt { rebuilt: true, commits }, |rebuilt| {
        format!("The read index was built again from {} commits.", rebuilt.commits)
    })
}

#[derive(Debug, Serialize)]
struct Shown {
    settings: Vec<ShownSetting>,
}

#[derive(Debug, Serialize)]
struct ShownSetting {
    key: &'static str,
    value: String,
    source: String,
    environment: String,
}

/// Every setting with its origin, checked.
pub(super) fn show_config(args: &SettingsArgs, printer: Printer) -> Result<(), Failure> {
    let settings = args.settings()?;
    let shown = settings.iter().map(|setting| ShownSetting {
        key: setting.name,
        value: setting.value.clone(),
        source: setting.source.to_string(),
        environment: variable(setting.name),
    });
    let shown = Shown { settings: shown.collect() };
    printer.print(&shown, |shown| {
        let rows = shown.settings.iter();
        let rows = rows.map(|setting| [setting.key.to_owned(), setting.value.clone(), setting.source.clone()]);
        printer::table(["KEY", "VALUE", "FROM"], rows)
    })?;
    settings.resolve()?;
    Ok(())
}

/// A progress bar on stderr that shows itself only when the work takes long.
struct Progress {
    unit: &'static str,
    begun: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new(unit: &'static str) -> Self {
        Self { unit, begun: Instant::now(), bar: None }
    }

    fn at(&mut self, done: u64, all: u64) {
        if self.begun.elapsed() < QUIET {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let template = format!("{{bar:40}} {{pos}}/{{len}} {} ({{eta}} left)", self.unit);
            let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(all).with_style(style)
        });
        bar.set_position(done);
    }

    fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// For work whose length nobody knows.
fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(QUIET);
    bar
}
