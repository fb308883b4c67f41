//! `evidence`, `statement`, `export`: what is told from the journal. They read the directory themselves, also beside a
//! running hub, up to the last commit that is whole when they begin; they write nothing in it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use weir_protocol::amount::{Currency, Time};
use weir_protocol::evidence::{Evidence, Verdict, end_to_end_id};
use weir_protocol::id::{AccountId, ChannelId};
use weir_protocol::merkle;
use weir_protocol::receipt::ReceiptFile;

use super::printer::{self, Printer, say};
use super::{DataArg, Failure};
use crate::admin::offline::Offline;
use crate::audit::journal_of;
use crate::clock::wall_ms;
use crate::config::Settings;
use crate::engine::state::State;
use crate::keys::KeyFiles;
use crate::report::evidence::{Archive, EvidenceFault, Finder, PayoutFacts, certificates};
use crate::report::export::{By, Format, export as write_journal};
use crate::report::replay::Source;
use crate::report::statement::{Span, Statement};
use crate::store::ids::Ids;
use crate::store::journal::JournalReader;
use crate::store::snapshot::Snapshots;

#[derive(Debug, Subcommand)]
pub(super) enum EvidenceCommand {
    /// What was spent of a channel, by whose signatures, and how it was closed.
    Channel {
        #[command(flatten)]
        to: Target,
        /// The channel.
        channel: ChannelId,
    },
    /// One payment: that its payer authorised it and that the hub took it.
    #[command(
        after_help = "Examples:\n  weir-hub evidence payment 1042:0:7 --data hub -o payment.json\n  weir-hub evidence payment receipt.json --without-payer --data hub"
    )]
    Payment {
        #[command(flatten)]
        to: Target,
        /// Its place, COMMIT:GROUP:LEAF, or a file with its receipt.
        payment: String,
        /// As its payee could show it: without payer, channel and lane.
        #[arg(long)]
        without_payer: bool,
    },
    /// One payout: that a window's plan paid it out, to which bank account, and what the bank said.
    #[command(
        after_help = "Examples:\n  weir-hub evidence payout W3-989c0b76cb563971fdc9be --data hub\n  weir-hub evidence payout weir1… --window 3 --data hub"
    )]
    Payout {
        #[command(flatten)]
        to: Target,
        /// Its end-to-end id, or the account.
        payout: String,
        /// The window, where an account was named.
        #[arg(long)]
        window: Option<u64>,
        /// The currency.
        #[arg(long, default_value = "EUR")]
        currency: Currency,
    },
    /// One act by itself: a line of a statement.
    Act {
        #[command(flatten)]
        to: Target,
        /// Its place: COMMIT:ITEM.
        place: String,
    },
}

/// Where a report comes from and goes to.
#[derive(Debug, Clone, Args)]
pub(super) struct Target {
    #[command(flatten)]
    data: DataArg,
    /// Write it to this file instead of stdout.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weir-hub statement weir1… --data hub --format html -o statement.html\n  weir-hub statement weir1… --data hub --window 3"
)]
pub(super) struct StatementArgs {
    #[command(flatten)]
    to: Target,
    /// Whose.
    account: AccountId,
    /// The window [default: the one that was cut off last].
    #[arg(long, value_name = "N")]
    window: Option<u64>,
    /// The form.
    #[arg(long, value_enum, default_value_t = Form::Json)]
    format: Form,
}

/// The form of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Json,
    Csv,
    Html,
}

#[derive(Debug, Subcommand)]
pub(super) enum ExportCommand {
    /// Every double entry of the journal.
    Journal(JournalArgs),
}

#[derive(Debug, Args)]
#[command(
    after_help = "What the hub has is positive, what it owes is negative: each transaction is zero, and so is all of it.\n\nExamples:\n  weir-hub export journal --data hub -o hub.journal && hledger -f hub.journal balance\n  weir-hub export journal --data hub --format csv --by day"
)]
pub(super) struct JournalArgs {
    #[command(flatten)]
    to: Target,
    /// The form.
    #[arg(long, value_enum, default_value_t = LedgerForm::Hledger)]
    format: LedgerForm,
    /// What makes one transaction.
    #[arg(long, value_enum, default_value_t = Grain::Commit)]
    by: Grain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LedgerForm {
    Hledger,
    Csv,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Grain {
    Commit,
    Day,
}

/// What reports read.
struct Reading {
    state: State,
    journal: JournalReader,
    snapshots: Snapshots,
}

impl Reading {
    fn open(data: &Path) -> Result<Self, Failure> {
        let hub = KeyFiles::of(data).certificate()?.hub;
        let journal = journal_of(data)?;
        let journal =
            journal.ok_or_else(|| anyhow!("the hub in `{}` has never run: it has no journal", data.display()))?;
        let state = Offline::open(data, hub)?.into_state();
        Ok(Self { state, journal, snapshots: Snapshots::new(data.join("snapshots")) })
    }

    fn source(&self) -> Source<'_> {
        Source { hub: self.state.hub(), journal: &self.journal, snapshots: &self.snapshots }
    }
}

/// A report that was written to a file.
#[derive(Debug, Serialize)]
struct Written {
    file: String,
    kind: &'static str,
    proven: Vec<String>,
    not_proven: Vec<String>,
}

/// Makes evidence and gives it away; it is checked first.
pub(super) fn evidence(command: &EvidenceCommand, printer: Printer) -> Result<(), Failure> {
    let to = match command {
        EvidenceCommand::Channel { to, .. }
        | EvidenceCommand::Payment { to, .. }
        | EvidenceCommand::Payout { to, .. }
        | EvidenceCommand::Act { to, .. } => to,
    };
    let data = &to.data.data;
    let reading = Reading::open(data)?;
    let ids = Ids::open_read_only(&data.join("ids"))?;
    let last = reading.state.last().map_or(0, |last| last.number);
    // The file of ids may be behind the journal by what a running hub has not written yet.
    let newest = last.min(ids.count() + 1);
    let history = |index: u64, count: u64| {
        let leaves = ids.read(1..count + 1)?.into_iter().map(Into::into).collect::<Vec<_>>();
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        merkle::history_path(&leaves, index).ok_or(EvidenceFault::Unknown("commit in the history"))
    };
    let books = reading.state.books();
    let certificates = certificates(books);
    let archive = Archive {
        hub: reading.state.hub(),
        journal: &reading.journal,
        finder: Finder::Scan,
        history: &history,
        certificates: &certificates,
        newest,
    };
    let evidence = subject(command, &reading, &archive)?;
    let verdict = evidence.check()?;
    let bytes = evidence.to_json()?;
    match &to.output {
        None => printer.raw(&bytes),
        Some(path) => {
            std::fs::write(path, &bytes).with_context(|| format!("cannot write `{}`", path.display()))?;
            let Verdict { kind, proven, open, .. } = verdict;
            let written = Written { file: path.display().to_string(), kind, proven, not_proven: open };
            printer.print(&written, show_written)
        }
    }
}

fn show_written(written: &Written) -> String {
    let mut facts = vec![("file", written.file.clone()), ("kind", written.kind.to_owned())];
    facts.extend(written.proven.iter().map(|sentence| ("proven", sentence.clone())));
    facts.extend(written.not_proven.iter().map(|sentence| ("not proven", sentence.clone())));
    printer::facts(facts)
}

fn subject(command: &EvidenceCommand, reading: &Reading, archive: &Archive<'_>) -> Result<Evidence, Failure> {
    let state = &reading.state;
    let now = Time(wall_ms());
    let refunded = |payment: &weir_protocol::id::PaymentId| Ok(state.books().refunded(payment));
    match command {
        EvidenceCommand::Channel { channel, .. } => {
            let found = state.channels().get(channel).ok_or_else(|| anyhow!("there is no channel {channel}"))?;
            let lanes: Vec<_> = found.lanes().map(|lane| found.lane_info(lane)).collect();
            Ok(archive.channel(&found.info(now), &lanes)?)
        }
        EvidenceCommand::Payment { payment, without_payer, .. } => {
            let at = place_of(payment)?;
            if *without_payer {
                return Ok(archive.receipt(at, &refunded)?);
            }
            let (lane, sequence) = archive.sequence(at)?;
            let (channel, lane, _) = state.channels().lane(&lane).ok_or(EvidenceFault::Unknown("lane"))?;
            Ok(archive.payment(&channel.info(now), &channel.lane_info(lane), sequence, &refunded)?)
        }
        EvidenceCommand::Payout { payout, window, currency, .. } => {
            let (account, window) = match (payout.parse::<AccountId>(), window) {
                (Ok(account), Some(window)) => (account, *window),
                (Ok(_), None) => return Err(Failure::usage(anyhow!("name the window of the payout with `--window`"))),
                (Err(_), _) => by_end_to_end_id(payout, state)?,
            };
            let facts = PayoutFacts::of(state.books().windows(), window, *currency);
            let facts = facts.ok_or_else(|| anyhow!("window {window} has no plan in {currency}"))?;
            Ok(archive.payout(&facts, account)?)
        }
        EvidenceCommand::Act { place, .. } => {
            let [commit, item] = numbers(place)
                .ok_or_else(|| Failure::usage(anyhow!("`{place}` is not a place: expected COMMIT:ITEM")))?;
            Ok(archive.act(commit, u32::try_from(item).unwrap_or(u32::MAX))?)
        }
    }
}

/// Numbers with colons between.
fn numbers<const N: usize>(text: &str) -> Option<[u64; N]> {
    let parts: Vec<u64> = text.split(':').map(u64::from_str).collect::<Result<_, _>>().ok()?;
    parts.try_into().ok()
}

/// A payment's place, from the command line or from its receipt.
fn place_of(payment: &str) -> Result<(u64, u32, u32), Failure> {
    if let Some([commit, group, leaf]) = numbers(payment) {
        let narrow = |number| u32::try_from(number).unwrap_or(u32::MAX);
        return Ok((commit, narrow(group), narrow(leaf)));
    }
    let bytes = std::fs::read(payment)
        .with_context(|| format!("`{payment}` is neither a place (COMMIT:GROUP:LEAF) nor a file that can be read"))?;
    let file: ReceiptFile =
        serde_json::from_slice(&bytes).with_context(|| format!("`{payment}` is not a file with a receipt"))?;
    Ok((file.receipt.number, file.receipt.group_path.index, file.receipt.leaf_path.index))
}

fn by_end_to_end_id(id: &str, state: &State) -> Result<(AccountId, u64), Failure> {
    let unknown = || {
        let error = anyhow!("`{id}` is neither an account nor an end-to-end id of this hub");
        Failure::from(error).hint("`weir-hub statement ACCOUNT` shows the end-to-end ids of its payouts")
    };
    let (window, account) = id.strip_prefix('W').and_then(|rest| rest.split_once('-')).ok_or_else(unknown)?;
    let window = window.parse().map_err(|_| unknown())?;
    let prefix = hex::decode(account).map_err(|_| unknown())?;
    let account = state.books().account_by_prefix(&prefix).ok_or_else(unknown)?;
    if end_to_end_id(window, &account) == id { Ok((account, window)) } else { Err(unknown()) }
}

/// Makes a statement.
pub(super) fn statement(args: &StatementArgs, printer: Printer) -> Result<(), Failure> {
    let data = &args.to.data.data;
    let reading = Reading::open(data)?;
    let name = Settings::gather(data, &Vec::new(), |name| std::env::var(name).ok())?.resolve()?.name;
    let books = reading.state.books();
    if books.account(&args.account).is_none() {
        let error = anyhow!("there is no account {}", args.account);
        return Err(Failure::from(error).hint("`weir-hub accounts list` shows them all"));
    }
    let span = Span::of(books.windows(), args.window)?;
    let statement = Statement::make(reading.source(), &name, args.account, span)?;
    let text = match args.format {
        Form::Json => serde_json::to_string(&statement)? + "\n",
        Form::Csv => statement.to_csv(),
        Form::Html => statement.to_html(),
    };
    match &args.to.output {
        None => printer.raw(text.as_bytes()),
        Some(path) => {
            std::fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
            say(&format!("The statement of window {} is in `{}`.", statement.window, path.display()));
            Ok(())
        }
    }
}

#[derive(Debug, Serialize)]
struct Exported {
    file: String,
    transactions: u64,
    commits: u64,
}

/// Writes the journal for another program.
pub(super) fn export(args: &JournalArgs, printer: Printer) -> Result<(), Failure> {
    let data = &args.to.data.data;
    let hub = KeyFiles::of(data).certificate()?.hub;
    let journal = journal_of(data)?;
    let journal = journal.ok_or_else(|| anyhow!("the hub in `{}` has never run: it has no journal", data.display()))?;
    let snapshots = Snapshots::new(data.join("snapshots"));
    let source = Source { hub, journal: &journal, snapshots: &snapshots };
    let format = match args.format {
        LedgerForm::Hledger => Format::Hledger,
        LedgerForm::Csv => Format::Csv,
        LedgerForm::Json => Format::Json,
    };
    let by = match args.by {
        Grain::Commit => By::Commit,
        Grain::Day => By::Day,
    };
    let Some(path) = &args.to.output else {
        let mut out = BufWriter::new(std::io::stdout().lock());
        write_journal(source, (format, by), &mut out, &mut |_| ())?;
        out.flush()?;
        return Ok(());
    };
    let file = File::create(path).with_context(|| format!("cannot create `{}`", path.display()))?;
    let done = write_journal(source, (format, by), &mut BufWriter::new(file), &mut |_| ())?;
    let exported =
        Exported { file: path.display().to_string(), transactions: done.transactions, commits: done.commits };
    printer.print(&exported, |exported| {
        printer::facts([
            ("file", exported.file.clone()),
            ("transactions", exported.transactions.to_string()),
            ("commits", exported.commits.to_string()),
            ("checked", "the sum of every account is the hub's own".to_owned()),
        ])
    })
}
