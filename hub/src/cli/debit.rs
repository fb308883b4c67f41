//! `mandates` and `debit`: top-ups by direct debit. What an operator agrees to is checked here first: the file that lies
//! there has the hash that is signed, and says what is shown.

use std::path::Path;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use weir_protocol::act::{Act, ApproveCollect, Collect};
use weir_protocol::amount::Amount;
use weir_protocol::id::AccountId;

use super::operators::{AgreeArgs, PlanSignArgs, Signer, all_named, named};
use super::printer::{self, Printer};
use super::verbs::{running, stopped};
use super::{ConfirmArgs, DataArg, Failure};
use crate::admin::client::Client;
use crate::admin::request::{MandateName, Request};
use crate::bank::{CollectionFile, Date, Scheme};
use crate::engine::collections::MandateState;
use crate::settlement::collect::{
    CollectProposal, CollectionList, CollectionRow, MandateList, MandateRow, Wish, collections, mandates,
};
use crate::settlement::sha256_of;

#[derive(Debug, Subcommand)]
pub(super) enum MandatesCommand {
    /// All mandates, by account.
    List {
        #[command(flatten)]
        data: DataArg,
    },
    /// Collect under a mandate from now on; given again, change what counts at once.
    #[command(
        after_help = "One mandate of an account is in force at a time. B2B needs no `--at-once`: all of it is available.\n\nExample:\n  weir-hub mandates accept weir1… --at-once 20.00 --data hub"
    )]
    Accept {
        #[command(flatten)]
        data: DataArg,
        /// The account.
        account: AccountId,
        /// The mandate's id, where several wait.
        #[arg(long, value_name = "ID")]
        mandate: Option<String>,
        /// CORE: so much of what can still be taken back counts as available at once [default: setting `debit.at_once`].
        #[arg(long, value_name = "AMOUNT")]
        at_once: Option<Amount>,
    },
    /// Collect no more under a mandate, for ever.
    End {
        #[command(flatten)]
        data: DataArg,
        /// The account.
        account: AccountId,
        /// The mandate's id; without it the one in force.
        #[arg(long, value_name = "ID")]
        mandate: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum DebitCommand {
    /// Show what would be collected from an account's owner. With an operator's key: record it as a signed plan.
    #[command(
        after_help = "Needed where `policy.approvals` is 1 or more; then so many other operators agree, and `debit run` tells the bank. The same account, amount and day is planned once.\n\nExample:\n  weir-hub debit plan weir1… 50.00 --data hub --operator ada.key\n  weir-hub debit approve 7 --data hub --operator ben.key\n  weir-hub debit run --data hub"
    )]
    Plan(PlanArgs),
    /// Agree to a planned direct debit, as another operator than the planner.
    Approve(ApproveArgs),
    /// Tell the bank of direct debits that are planned and approved.
    Run(RunArgs),
    /// Give a planned direct debit up that the bank was not told of.
    Abort(ApproveArgs),
    /// Tell the bank to collect from an account's owner, where nobody need agree (`policy.approvals` is 0).
    #[command(
        after_help = "The same account, amount and day is collected once, however often it is asked for. The account's owner reads of it in `weir history`.\n\nExample:\n  weir-hub debit collect weir1… 50.00 --dry-run --data hub"
    )]
    Collect(CollectArgs),
    /// All direct debits, by number.
    List {
        #[command(flatten)]
        data: DataArg,
    },
}

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    data: DataArg,
    /// The account that is topped up.
    account: AccountId,
    /// How much, in euro.
    amount: Amount,
    /// The day on which the debtor is debited, such as 2026-12-15 [default: the first that may be].
    #[arg(long, value_name = "DATE")]
    due: Option<Date>,
    #[command(flatten)]
    sign: PlanSignArgs,
}

#[derive(Debug, Args)]
pub(super) struct ApproveArgs {
    #[command(flatten)]
    data: DataArg,
    /// The direct debit's number, as `debit list` shows it.
    number: u64,
    #[command(flatten)]
    agree: AgreeArgs,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    data: DataArg,
    /// Its number; otherwise each that waits for nothing but this.
    number: Option<u64>,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

#[derive(Debug, Args)]
pub(super) struct CollectArgs {
    #[command(flatten)]
    data: DataArg,
    #[command(flatten)]
    confirm: ConfirmArgs,
    /// The account that is topped up.
    account: AccountId,
    /// How much, in euro.
    amount: Amount,
    /// The day on which the debtor is debited, such as 2026-12-15 [default: the first that may be].
    #[arg(long, value_name = "DATE")]
    due: Option<Date>,
}

const fn scheme(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Core => "core",
        Scheme::B2b => "b2b",
    }
}

const fn state(state: MandateState) -> &'static str {
    match state {
        MandateState::Waiting => "waiting",
        MandateState::Accepted => "accepted",
        MandateState::Ended => "ended",
    }
}

pub(super) fn mandates_command(command: &MandatesCommand, printer: Printer) -> Result<(), Failure> {
    match command {
        MandatesCommand::List { data } => {
            let list: MandateList = match Client::connect(&data.data)? {
                Some(mut hub) => hub.ask(&Request::MandatesList {})?,
                None => mandates(stopped(&data.data)?.state().books()),
            };
            printer.print(&list, show_mandates)
        }
        MandatesCommand::Accept { data, account, mandate, at_once } => {
            let mandate = MandateName { account: *account, mandate_id: mandate.clone() };
            let row: MandateRow = running(&data.data)?.ask(&Request::MandatesAccept { mandate, at_once: *at_once })?;
            printer.print(&row, show_mandate)
        }
        MandatesCommand::End { data, account, mandate } => {
            let mandate = MandateName { account: *account, mandate_id: mandate.clone() };
            let row: MandateRow = running(&data.data)?.ask(&Request::MandatesEnd { mandate })?;
            printer.print(&row, show_mandate)
        }
    }
}

fn show_mandates(list: &MandateList) -> String {
    let rows = list.mandates.iter().map(|row| {
        [
            row.account.to_string(),
            row.mandate_id.clone(),
            state(row.state).to_owned(),
            scheme(row.scheme).to_owned(),
            row.name.clone(),
            row.iban.clone(),
            row.signed_on.map(|day| day.to_string()).unwrap_or_default(),
            row.at_once.to_string(),
        ]
    });
    printer::table(["ACCOUNT", "MANDATE", "STATE", "SCHEME", "NAME", "IBAN", "SIGNED", "AT ONCE"], rows)
}

fn show_mandate(row: &MandateRow) -> String {
    let mut facts = vec![
        ("account", row.account.to_string()),
        ("mandate", row.mandate_id.clone()),
        ("state", state(row.state).to_owned()),
        ("scheme", scheme(row.scheme).to_owned()),
        ("debits", row.iban.clone()),
    ];
    if row.scheme == Scheme::Core && row.state == MandateState::Accepted {
        facts.push(("counts at once", row.at_once.to_string()));
        facts.push(("provisional for", format!("{} days", row.provisional_days)));
    }
    facts.push(("commit", row.commit.map_or("none: it was so before".to_owned(), |commit| commit.to_string())));
    printer::facts(facts)
}

pub(super) fn debit(command: &DebitCommand, printer: Printer) -> Result<(), Failure> {
    match command {
        DebitCommand::List { data } => {
            let list: CollectionList = if let Some(mut hub) = Client::connect(&data.data)? {
                hub.ask(&Request::DebitList {})?
            } else {
                let stopped = stopped(&data.data)?;
                collections(stopped.state().books(), &stopped.state().hub())
            };
            printer.print(&list, show_list)
        }
        DebitCommand::Collect(args) => collect(args, printer),
        DebitCommand::Plan(args) => plan(args, printer),
        DebitCommand::Approve(args) => word(args, true, printer),
        DebitCommand::Abort(args) => word(args, false, printer),
        DebitCommand::Run(args) => run(args, printer),
    }
}

fn collect(args: &CollectArgs, printer: Printer) -> Result<(), Failure> {
    let mut hub = running(&args.data.data)?;
    let mut wish = Wish { account: args.account, amount: args.amount, due: args.due };
    if args.confirm.dry_run || !args.confirm.yes {
        let planned: CollectionRow = hub.ask(&Request::DebitCollect { wish, dry_run: true })?;
        if args.confirm.dry_run || planned.state != "planned" {
            return printer.print(&planned, show);
        }
        printer::say(&show(&planned));
        printer::confirm("Tell the bank to collect this?")?;
        // What was shown is what is done, also past midnight.
        wish.due = Some(planned.due);
    }
    let told: CollectionRow = hub.ask(&Request::DebitCollect { wish, dry_run: false })?;
    printer.print(&told, show)
}

/// Signs an operator's word on a collection.
fn sign(signer: &mut Signer, hub: &mut Client, approved: bool, collect: Collect) -> Result<(), Failure> {
    let number = signer.next();
    let act = ApproveCollect { number, operator: signer.public(), approved, collect };
    signer.send(hub, Act::ApproveCollect(act)).map(|_| ())
}

fn plan(args: &PlanArgs, printer: Printer) -> Result<(), Failure> {
    let file = args.sign.file()?;
    let mut hub = running(&args.data.data)?;
    let wish = Wish { account: args.account, amount: args.amount, due: args.due };
    let proposal: CollectProposal = hub.ask(&Request::DebitProposal { wish })?;
    let CollectProposal { row, collect, .. } = &proposal;
    let (Some(file), Some(collect)) = (file, collect) else { return printer.print(row, show) };
    // What is signed is what was asked for, and what is shown.
    let day = Date::from_unix_ms(collect.due.0).ok();
    let same = collect.account == args.account && collect.amount == args.amount && day == Some(row.due);
    if !same || args.due.is_some_and(|due| day != Some(due)) {
        return Err(anyhow!("the direct debit that the hub wants signed is not the one that was asked for").into());
    }
    let mut signer = Signer::open(&args.data.data, &mut hub, &file)?;
    if !args.sign.agree.yes {
        printer::say(&show_proposal(&proposal));
        printer::confirm_or("Sign this direct debit?", "without `--operator` nothing is done, `--yes` signs")?;
    }
    sign(&mut signer, &mut hub, true, collect.clone())?;
    let planned: CollectProposal = hub.ask(&Request::DebitPlanned { collection: collect.collection })?;
    printer.print(&planned.row, show)
}

/// Another operator's word: he agrees, or gives it up.
fn word(args: &ApproveArgs, approved: bool, printer: Printer) -> Result<(), Failure> {
    let file = args.agree.file()?;
    let mut hub = running(&args.data.data)?;
    let mut signer = Signer::open(&args.data.data, &mut hub, &file)?;
    let look = Request::DebitPlanned { collection: args.number };
    let proposal: CollectProposal = hub.ask(&look)?;
    let Some(collect) = proposal.collect.clone() else {
        return Err(anyhow!("direct debit {} is not planned", args.number).into());
    };
    if approved {
        check_file(&proposal, &collect)?;
    }
    if approved && proposal.row.approved_by.contains(&signer.public()) {
        return printer.print(&proposal.row, show);
    }
    if !args.agree.yes {
        printer::say(&show_proposal(&proposal));
        let question = if approved { "Agree to this direct debit?" } else { "Give this direct debit up?" };
        printer::confirm_or(question, "`weir-hub debit list` shows it, `--yes` does it")?;
    }
    sign(&mut signer, &mut hub, approved, collect)?;
    if approved {
        let after: CollectProposal = hub.ask(&look)?;
        return printer.print(&after.row, show);
    }
    let given_up = CollectionRow { state: "given_up".to_owned(), waits: None, ..proposal.row };
    printer.print(&given_up, show)
}

/// The file that lies there is the planned one, hashed here, not believed; and it says what is shown.
fn check_file(proposal: &CollectProposal, collect: &Collect) -> Result<(), Failure> {
    let path = proposal.staged.join(&proposal.row.file);
    let unreadable = |path: &Path| format!("cannot read `{}`", path.display());
    let other = || {
        let error = anyhow!("`{}` is not the file of this direct debit", path.display());
        Failure::from(error).hint("find out who changed it; `weir-hub debit abort` gives the direct debit up")
    };
    let hash = sha256_of(&path).map_err(|error| anyhow!(error).context(unreadable(&path)))?;
    if hash != collect.file {
        return Err(other());
    }
    let bytes = std::fs::read(&path).map_err(|error| anyhow!(error).context(unreadable(&path)))?;
    let file = CollectionFile::read(bytes.as_slice()).map_err(|error| anyhow!(error).context(unreadable(&path)))?;
    let [batch] = file.batches.as_slice() else { return Err(other()) };
    let [order] = batch.orders.as_slice() else { return Err(other()) };
    let says = order.amount == collect.amount.to_decimal()
        && order.mandate_id == collect.mandate_id
        && order.debtor_iban == proposal.debtor_iban
        && order.end_to_end_id == proposal.row.end_to_end_id
        && Some(batch.collection_date) == Date::from_unix_ms(collect.due.0).ok();
    if says { Ok(()) } else { Err(other()) }
}

fn run(args: &RunArgs, printer: Printer) -> Result<(), Failure> {
    let mut hub = running(&args.data.data)?;
    let numbers = if let Some(number) = args.number {
        vec![number]
    } else {
        let list: CollectionList = hub.ask(&Request::DebitList {})?;
        let ready = list.collections.iter().filter(|row| row.state == "planned" && row.waits.is_none());
        ready.map(|row| row.collection).collect::<Vec<u64>>()
    };
    let mut rows = Vec::with_capacity(numbers.len());
    for collection in &numbers {
        rows.push(hub.ask(&Request::DebitRun { collection: *collection, dry_run: true })?);
    }
    let planned = CollectionList { collections: rows };
    if args.confirm.dry_run || numbers.is_empty() {
        return printer.print(&planned, show_list);
    }
    if !args.confirm.yes {
        printer::say(&show_list(&planned));
        printer::confirm("Tell the bank to collect this?")?;
    }
    let mut rows = Vec::with_capacity(numbers.len());
    for collection in numbers {
        rows.push(hub.ask(&Request::DebitRun { collection, dry_run: false })?);
    }
    printer.print(&CollectionList { collections: rows }, show_list)
}

fn show_proposal(proposal: &CollectProposal) -> String {
    format!("{}\n debits {}", show(&proposal.row), proposal.debtor_iban)
}

fn show(row: &CollectionRow) -> String {
    let mut facts = vec![
        ("direct debit", row.collection.to_string()),
        ("state", row.state.clone()),
        ("account", row.account.to_string()),
        ("amount", format!("{} {}", row.amount, row.currency)),
        ("due", row.due.to_string()),
        ("mandate", format!("{} ({}, {})", row.mandate_id, scheme(row.scheme), row.sequence.code())),
        ("id at the bank", row.end_to_end_id.clone()),
        ("file", row.file.clone()),
    ];
    if let Some(until) = row.until_ms {
        facts.push(("provisional", format!("{} until {}", row.provisional, printer::time(until))));
    }
    let planner = row.planned_by.map(|key| named(row.planned_by_name.as_deref().unwrap_or_default(), &key));
    facts.extend(planner.map(|who| ("planned by", who)));
    facts.extend(all_named(&row.approved_by_names, &row.approved_by).map(|who| ("approved by", who)));
    facts.extend(row.waits.clone().map(|why| ("waits", why)));
    if !row.short.is_zero() {
        facts.push(("short", row.short.to_string()));
    }
    printer::facts(facts)
}

fn show_list(list: &CollectionList) -> String {
    let rows = list.collections.iter().map(|row| {
        [
            row.collection.to_string(),
            row.account.to_string(),
            row.state.clone(),
            format!("{} {}", row.amount, row.currency),
            row.due.to_string(),
            row.provisional.to_string(),
            row.short.to_string(),
            row.end_to_end_id.clone(),
        ]
    });
    printer::table(["NO", "ACCOUNT", "STATE", "AMOUNT", "DUE", "PROVISIONAL", "SHORT", "ID AT THE BANK"], rows)
}
