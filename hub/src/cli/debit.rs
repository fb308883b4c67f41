//! `mandates` and `debit`: top-ups by direct debit.

use clap::{Args, Subcommand};
use weir_protocol::amount::Amount;
use weir_protocol::id::AccountId;

use super::printer::{self, Printer};
use super::verbs::{running, stopped};
use super::{ConfirmArgs, DataArg, Failure};
use crate::admin::client::Client;
use crate::admin::request::{MandateName, Request};
use crate::bank::{Date, Scheme};
use crate::engine::collections::MandateState;
use crate::settlement::collect::{CollectionList, CollectionRow, MandateList, MandateRow, Wish, collections, mandates};

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
    /// Tell the bank to collect from an account's owner.
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
