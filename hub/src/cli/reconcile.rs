//! `reconcile` and `suspense`: bank against ledger, and what a person decides; singly, or many in a CSV.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::printer::{self, Printer};
use super::verbs::{running, stopped};
use super::{ConfirmArgs, DataArg, Failure};
use crate::admin::client::Client;
use crate::admin::request::Request;
use crate::config::{BankConfig, Settings};
use crate::settlement::heard::Signed;
use crate::settlement::reconcile::{Break, CurrencyReport, Reconciliation};
use crate::settlement::resolve::{Decision, Party, Resolved, SuspenseList};

#[derive(Debug, Args)]
pub(super) struct ReconcileArgs {
    #[command(flatten)]
    data: DataArg,
    /// Write the breaks to a CSV file, for `--import`.
    #[arg(long, value_name = "FILE", conflicts_with = "import")]
    export: Option<PathBuf>,
    /// Carry out what the column `resolution` of an exported file says: `allocate` (to `account`: an account or `hub`) or
    /// `accept` (with a `note`). Rows without one stay as they are.
    #[arg(long, value_name = "FILE")]
    import: Option<PathBuf>,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum SuspenseCommand {
    /// All entries that nobody owns, oldest first.
    List {
        #[command(flatten)]
        data: DataArg,
    },
    /// Give an entry its owner. It works once.
    Allocate {
        #[command(flatten)]
        data: DataArg,
        #[command(flatten)]
        confirm: ConfirmArgs,
        /// The entry: its id, the beginning of it, or the bank's reference.
        entry: String,
        /// The account, or `hub`: money that arrived becomes the hub's, money that left is borne by it.
        account: Party,
    },
}

/// One row of the CSV.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    id: String,
    currency: String,
    kind: String,
    amount: String,
    since: String,
    age_days: u64,
    what: String,
    #[serde(default)]
    resolution: String,
    #[serde(default)]
    account: String,
    #[serde(default)]
    note: String,
}

#[derive(Debug, Serialize)]
struct Exported {
    file: PathBuf,
    breaks: u64,
}

#[derive(Debug, Serialize)]
struct Imported {
    dry_run: bool,
    resolved: Vec<Resolved>,
    /// Rows that name no resolution.
    left: u64,
    /// Rows whose break waits no longer.
    gone: Vec<String>,
}

pub(super) fn reconcile(args: &ReconcileArgs, printer: Printer) -> Result<(), Failure> {
    if let Some(file) = &args.import {
        return import(&args.data.data, file, &args.confirm, printer);
    }
    let report = report(&args.data.data)?;
    if let Some(file) = &args.export {
        return export(&report, file, printer);
    }
    printer.print(&report, show)?;
    match report.alarms.first() {
        None => Ok(()),
        Some(first) => Err(Failure::from(anyhow!("{} alarms; the first: {first}", report.alarms.len()))
            .hint("`weir-hub reconcile --export FILE` lists what waits; resolutions go back with `--import FILE`")),
    }
}

fn bank_of(data: &Path) -> Result<BankConfig, Failure> {
    let settings = Settings::gather(data, &Vec::new(), |name| std::env::var(name).ok())?.resolve()?;
    match settings.bank.iban {
        Some(_) => Ok(settings.bank),
        None => Err(Failure::from(anyhow!("this hub has no bank account")).hint("set `bank.iban` in `hub.toml`")),
    }
}

fn report(data: &Path) -> Result<Reconciliation, Failure> {
    match Client::connect(data)? {
        Some(mut hub) => Ok(hub.ask(&Request::Reconcile {})?),
        None => Ok(stopped(data)?.reconcile(&bank_of(data)?)?),
    }
}

fn show(report: &Reconciliation) -> String {
    let text = |value: Option<Signed>| value.map_or("no statement".to_owned(), |value| value.to_string());
    let line = |(currency, one): (&String, &CurrencyReport)| {
        [
            currency.clone(),
            text(one.bank),
            one.cash.to_string(),
            one.liabilities.to_string(),
            one.fees.to_string(),
            one.carry.to_string(),
            one.suspense.to_string(),
            one.shortfall.to_string(),
            one.unexplained.to_string(),
            text(one.difference),
        ]
    };
    let heading = [
        "MONEY",
        "BANK",
        "CASH",
        "LIABILITIES",
        "FEES",
        "CARRY",
        "SUSPENSE",
        "SHORTFALL",
        "UNEXPLAINED",
        "BANK - CASH",
    ];
    let mut text = printer::table(heading, report.currencies.iter().map(line));
    let breaks = report.currencies.iter().flat_map(|(currency, one)| one.breaks.iter().map(move |one| (currency, one)));
    let rows: Vec<[String; 6]> = breaks
        .map(|(currency, one)| {
            let accepted = if one.accepted.is_some() { " (accepted)" } else { "" };
            [
                one.id.clone(),
                format!("{}{accepted}", one.kind.name()),
                format!("{} {currency}", one.amount),
                format!("{} d", one.age_days),
                one.what.clone(),
                one.account.map(|account| account.to_string()).unwrap_or_default(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        let breaks = printer::table(["BREAK", "KIND", "AMOUNT", "AGE", "WHAT", "ACCOUNT"], rows);
        text = format!("{text}\n\n{breaks}");
    }
    for alarm in &report.alarms {
        text = format!("{text}\nALARM: {alarm}");
    }
    text
}

fn row(currency: &str, one: &Break) -> Row {
    Row {
        id: one.id.clone(),
        currency: currency.to_owned(),
        kind: one.kind.name().to_owned(),
        amount: one.amount.to_string(),
        since: printer::time(one.since_ms),
        age_days: one.age_days,
        what: one.what.clone(),
        resolution: String::new(),
        account: String::new(),
        note: one.accepted.clone().unwrap_or_default(),
    }
}

fn export(report: &Reconciliation, file: &Path, printer: Printer) -> Result<(), Failure> {
    let mut out = csv::Writer::from_writer(Vec::new());
    let mut breaks = 0;
    for (currency, one) in &report.currencies {
        for one in &one.breaks {
            out.serialize(row(currency, one))?;
            breaks += 1;
        }
    }
    if breaks == 0 {
        out.write_record([
            "id",
            "currency",
            "kind",
            "amount",
            "since",
            "age_days",
            "what",
            "resolution",
            "account",
            "note",
        ])?;
    }
    let bytes = out.into_inner().map_err(|error| anyhow!("{error}"))?;
    std::fs::write(file, bytes).with_context(|| format!("cannot write `{}`", file.display()))?;
    let exported = Exported { file: file.to_owned(), breaks };
    printer.print(&exported, |exported| format!("{} breaks in `{}`", exported.breaks, exported.file.display()))
}

/// Reads the decisions of a file; all of them, or none.
fn decisions(bytes: &[u8]) -> anyhow::Result<(Vec<(String, Decision)>, u64)> {
    let mut decisions = Vec::new();
    let mut left = 0;
    for (number, row) in csv::Reader::from_reader(bytes).deserialize::<Row>().enumerate() {
        let line = number + 2;
        let row = row.with_context(|| format!("row {line} cannot be read"))?;
        let decision = match row.resolution.trim() {
            "" => {
                left += 1;
                continue;
            }
            "allocate" => Decision::Allocate(row.account.trim().parse().map_err(|why| anyhow!("row {line}: {why}"))?),
            "accept" if row.note.trim().is_empty() => {
                return Err(anyhow!("row {line}: why `{}` is accepted must be said in `note`", row.id));
            }
            "accept" => Decision::Accept(row.note.trim().to_owned()),
            other => return Err(anyhow!("row {line}: resolution `{other}` is neither `allocate` nor `accept`")),
        };
        decisions.push((row.id, decision));
    }
    Ok((decisions, left))
}

fn import(data: &Path, file: &Path, confirm: &ConfirmArgs, printer: Printer) -> Result<(), Failure> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    let (decisions, left) = decisions(&bytes).with_context(|| format!("`{}` cannot be imported", file.display()))?;
    let mut hub = running(data)?;
    let mut ask = |id: &str, decision: &Decision, dry_run: bool| -> Result<Option<Resolved>, Failure> {
        let request = Request::ReconcileResolve { id: id.to_owned(), decision: decision.clone(), dry_run };
        match hub.ask::<Resolved>(&request) {
            Ok(resolved) => Ok(Some(resolved)),
            // Decided before: the same file may be imported again.
            Err(crate::admin::client::AskError::Fault(fault)) if fault.code == "unknown_entry" => Ok(None),
            Err(error) => Err(Failure::from(anyhow::Error::new(error).context(format!("`{id}`")))),
        }
    };
    let mut all = Imported { dry_run: true, resolved: Vec::new(), left, gone: Vec::new() };
    // First all of it without doing anything: a row that is refused stops the whole.
    for (id, decision) in &decisions {
        match ask(id, decision, true)? {
            Some(resolved) => all.resolved.push(resolved),
            None => all.gone.push(id.clone()),
        }
    }
    if confirm.dry_run {
        return printer.print(&all, show_imported);
    }
    if !confirm.yes {
        printer::say(&show_imported(&all));
        printer::confirm("Resolve these?")?;
    }
    all = Imported { dry_run: false, resolved: Vec::new(), left, gone: Vec::new() };
    for (id, decision) in &decisions {
        match ask(id, decision, false)? {
            Some(resolved) => all.resolved.push(resolved),
            None => all.gone.push(id.clone()),
        }
    }
    printer.print(&all, show_imported)
}

fn show_imported(all: &Imported) -> String {
    let rows = all.resolved.iter().map(|one| {
        [
            one.id.clone(),
            one.done.clone(),
            format!("{} {}", one.amount, one.currency.map(|currency| currency.to_string()).unwrap_or_default()),
            one.to.clone().unwrap_or_default(),
            one.commit.map(|commit| commit.to_string()).unwrap_or_default(),
        ]
    });
    let table = printer::table(["BREAK", "RESOLUTION", "AMOUNT", "TO", "COMMIT"], rows);
    let done = if all.dry_run { "would be resolved" } else { "resolved" };
    let (count, left, gone) = (all.resolved.len(), all.left, all.gone.len());
    format!("{table}\n{count} {done}, {left} left as they are, {gone} waited no longer")
}

pub(super) fn suspense(command: &SuspenseCommand, printer: Printer) -> Result<(), Failure> {
    match command {
        SuspenseCommand::List { data } => list(&data.data, printer),
        SuspenseCommand::Allocate { data, confirm, entry, account } => {
            allocate(&data.data, confirm, entry, *account, printer)
        }
    }
}

fn list(data: &Path, printer: Printer) -> Result<(), Failure> {
    let list: SuspenseList = match Client::connect(data)? {
        Some(mut hub) => hub.ask(&Request::SuspenseList {})?,
        None => stopped(data)?.suspense(&bank_of(data)?)?,
    };
    printer.print(&list, |list| {
        let rows = list.entries.iter().map(|one| {
            [
                one.entry.clone(),
                one.direction.clone(),
                format!("{} {}", one.amount, one.currency),
                format!("{} d", one.age_days),
                one.bank_reference.clone(),
                one.about.clone(),
            ]
        });
        printer::table(["ENTRY", "", "AMOUNT", "AGE", "BANK REFERENCE", "ABOUT"], rows)
    })
}

fn allocate(data: &Path, confirm: &ConfirmArgs, entry: &str, account: Party, printer: Printer) -> Result<(), Failure> {
    let mut hub = running(data)?;
    let request =
        |dry_run| Request::ReconcileResolve { id: entry.to_owned(), decision: Decision::Allocate(account), dry_run };
    if confirm.dry_run || !confirm.yes {
        let planned: Resolved = hub.ask(&request(true))?;
        if confirm.dry_run {
            return printer.print(&planned, show_resolved);
        }
        printer::say(&show_resolved(&planned));
        printer::confirm("Give it this owner for good?")?;
    }
    let done: Resolved = hub.ask(&request(false))?;
    printer.print(&done, show_resolved)
}

fn show_resolved(one: &Resolved) -> String {
    printer::facts([
        ("entry", one.id.clone()),
        ("amount", format!("{} {}", one.amount, one.currency.map(|currency| currency.to_string()).unwrap_or_default())),
        ("to", one.to.clone().unwrap_or_default()),
        ("commit", one.commit.map_or("none: nothing was done yet".to_owned(), |commit| commit.to_string())),
    ])
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    const HEADING: &str = "id,currency,kind,amount,since,age_days,what,resolution,account,note\n";

    fn read(rows: &str) -> anyhow::Result<(Vec<(String, Decision)>, u64)> {
        decisions(format!("{HEADING}{rows}").as_bytes())
    }

    #[test]
    fn file_of_decisions_is_taken_whole_or_not_at_all() {
        let (all, left) = read(
            "a,EUR,unmatched_bank,1,now,0,\"x, \"\"y\"\"\",allocate,hub,\n\
             b,EUR,missing,0,now,3,w,accept,,the bank says so\n\
             c,EUR,expected,1,now,0,w,,,\n",
        )
        .unwrap();
        assert_eq!(all[0], ("a".to_owned(), Decision::Allocate(Party::Hub)));
        assert_eq!(all[1], ("b".to_owned(), Decision::Accept("the bank says so".to_owned())));
        assert_eq!((all.len(), left), (2, 1));
        for bad in [
            "a,EUR,missing,0,now,3,w,accept,,\n",
            "a,EUR,missing,0,now,3,w,forget,,x\n",
            "a,EUR,missing,0,now,3,w,allocate,nobody,x\n",
            "a,EUR\n",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
