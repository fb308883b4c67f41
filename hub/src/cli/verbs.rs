//! The operator's verbs: asked of the running hub; the reading ones of the directory when none is running.

use std::path::Path;

use anyhow::anyhow;
use weir_protocol::amount::Amount;
use weir_protocol::id::{AccountId, ChannelId};

use super::operators::named;
use super::printer::{self, Printer};
use super::{ConfirmArgs, Failure};
use crate::admin::client::Client;
use crate::admin::offline::Offline;
use crate::admin::report::{AccountPage, ChannelPage, ClockRow, Closed, LimitsRow, SnapshotRow, Standing, Status};
use crate::admin::request::{LimitSet, Request};
use crate::admin::sweep::Sweep;
use crate::clock::wall_ms;
use crate::config::Settings;
use crate::engine::operators::OperatorState;
use crate::keys::KeyFiles;

/// The running hub.
pub(super) fn running(data: &Path) -> Result<Client, Failure> {
    // Says first whether there is a hub at all.
    KeyFiles::of(data).certificate()?;
    Client::connect(data)?.ok_or_else(|| {
        Failure::from(anyhow!("no hub is running on `{}`", data.display()))
            .hint(format!("start it with `weir-hub run --data {}`", data.display()))
    })
}

/// The hub that is not running.
pub(super) fn stopped(data: &Path) -> Result<Offline, Failure> {
    Ok(Offline::open(data, KeyFiles::of(data).certificate()?.hub)?)
}

pub(super) fn status(data: &Path, printer: Printer) -> Result<(), Failure> {
    let status: Status = if let Some(mut hub) = Client::connect(data)? {
        hub.ask(&Request::Status {})?
    } else {
        let settings = Settings::gather(data, &Vec::new(), |name| std::env::var(name).ok())?;
        let config = settings.resolve()?;
        stopped(data)?.status(config.name.clone(), config.bank.iban.map(|_| &config.bank))?
    };
    printer.print(&status, show_status)?;
    if status.clock_trusted == Some(false) {
        let error = anyhow!("the wall clock was set while the hub ran: nothing is accepted");
        return Err(Failure::from(error).hint("set it right, or say that it is: `weir-hub clock confirm`"));
    }
    if has_ended(&status) {
        let error = anyhow!("the certificate of the signing key has ended: nothing is accepted");
        return Err(Failure::from(error).hint("renew it with `weir-hub certify`, then start the hub again"));
    }
    match &status.bank {
        Some(bank) if !bank.healthy => {
            let alarms = bank.alarms.len();
            Err(Failure::from(anyhow!(
                "bank and ledger raise {alarms} alarms; the first: {}",
                bank.alarms.first().map_or("", String::as_str)
            ))
            .hint("`weir-hub reconcile` says more"))
        }
        _ => Ok(()),
    }
}

fn has_ended(status: &Status) -> bool {
    status.certificate.is_some_and(|certificate| certificate.not_after_ms <= wall_ms())
}

fn show_status(status: &Status) -> String {
    let mut facts = vec![
        ("hub", status.hub.to_string()),
        ("name", status.name.clone()),
        ("health", if status.running { status.health.clone() } else { "not running".into() }),
    ];
    facts.extend(status.address.iter().map(|address| ("address", address.clone())));
    facts.extend(status.pid.map(|pid| ("process", pid.to_string())));
    if status.clock_trusted == Some(false) {
        facts.push(("clock", "was set: nothing is accepted until `weir-hub clock confirm`".into()));
    }
    if let Some(head) = &status.head {
        facts.push(("last commit", format!("{} at {}", head.number, printer::time(head.time_ms))));
    }
    facts.extend(status.journal_bytes.map(|bytes| ("journaled", format!("{bytes} bytes since the start"))));
    facts.push(("last snapshot", status.snapshot.map_or("none".into(), |commit| format!("commit {commit}"))));
    if let Some(certificate) = &status.certificate {
        let ended = if has_ended(status) {
            ", ENDED: nothing is accepted until `weir-hub certify` and a new start"
        } else {
            ""
        };
        facts.push(("certified until", format!("{}{ended}", printer::time(certificate.not_after_ms))));
    }
    let accounts = &status.accounts;
    let counted = format!("{} ({} waiting, {} frozen)", accounts.all, accounts.waiting, accounts.frozen);
    facts.push(("accounts", counted));
    facts
        .push(("windows", format!("number {} is open, {} not settled", status.windows.open, status.windows.unsettled)));
    let operators = &status.operators;
    let standing = operators.operators.iter().filter(|row| row.state == OperatorState::Stands);
    facts.extend(standing.map(|row| ("operator", named(&row.name, &row.key))));
    let needed = printer::count(operators.approvals_needed.into(), "approval");
    facts.push(("a plan needs", format!("{needed} besides the planner")));
    if let Some(bank) = &status.bank {
        let newest = bank
            .statement_ms
            .map_or("no statement yet".into(), |ms| format!("statement of {}", printer::time(ms.saturating_sub(1))));
        let health = if bank.healthy { "agrees" } else { "ALARM" };
        facts.push(("bank", format!("{health}; {newest}; {} entries in suspense", bank.suspense)));
        facts.extend(bank.alarms.iter().map(|alarm| ("alarm", alarm.clone())));
    }
    facts.extend(status.windows.next_cutoff_ms.map(|next| ("next cut-off", printer::time(next))));
    let money = status.sums.iter().map(|(currency, sums)| {
        [
            currency.clone(),
            sums.available.clone(),
            sums.locked.clone(),
            sums.earned.clone(),
            sums.payable.clone(),
            sums.marked.clone(),
            sums.in_transit.clone(),
            sums.provisional.clone(),
            sums.fees.clone(),
            sums.suspense.clone(),
            sums.cash.clone(),
        ]
    });
    let heading = [
        "MONEY",
        "AVAILABLE",
        "LOCKED",
        "EARNED",
        "PAYABLE",
        "MARKED",
        "IN TRANSIT",
        "PROVISIONAL",
        "FEES",
        "SUSPENSE",
        "AT THE BANK",
    ];
    let money = if status.sums.is_empty() { String::new() } else { format!("\n\n{}", printer::table(heading, money)) };
    format!("{}{money}", printer::facts(facts))
}

pub(super) fn accounts(data: &Path, waiting: bool, printer: Printer) -> Result<(), Failure> {
    let mut hub = Client::connect(data)?;
    let offline = if hub.is_none() { Some(stopped(data)?) } else { None };
    let mut all = AccountPage { accounts: Vec::new(), next: None };
    loop {
        let after = all.next;
        let mut page: AccountPage = match (&mut hub, &offline) {
            (Some(hub), _) => hub.ask(&Request::AccountsList { after, waiting })?,
            (None, Some(offline)) => offline.accounts(after, waiting),
            (None, None) => break,
        };
        all.accounts.append(&mut page.accounts);
        all.next = page.next;
        if all.next.is_none() {
            break;
        }
    }
    printer.print(&all, |all| {
        let rows = all.accounts.iter().map(|account| {
            let standing = match (account.approved, account.frozen_incoming, account.frozen_outgoing) {
                (false, _, _) => "waiting",
                (true, false, false) => "approved",
                (true, true, false) => "frozen in",
                (true, false, true) => "frozen out",
                (true, true, true) => "frozen",
            };
            let of = |part: fn(&crate::admin::report::BalanceRow) -> String| {
                let amounts = account.balances.iter().map(|(currency, row)| format!("{} {currency}", part(row)));
                amounts.collect::<Vec<_>>().join("\n")
            };
            [
                account.account.to_string(),
                account.name.clone(),
                standing.to_owned(),
                of(|row| row.available.to_string()),
                of(|row| row.locked.to_string()),
                of(|row| row.earned.to_string()),
                of(|row| row.payable.to_string()),
                of(|row| row.marked.to_string()),
                of(|row| row.in_transit.to_string()),
            ]
        });
        let heading =
            ["ACCOUNT", "NAME", "STANDING", "AVAILABLE", "LOCKED", "EARNED", "PAYABLE", "MARKED", "IN TRANSIT"];
        printer::table(heading, rows)
    })
}

pub(super) fn approve(data: &Path, account: AccountId, printer: Printer) -> Result<(), Failure> {
    let standing: Standing = running(data)?.ask(&Request::AccountsApprove { account })?;
    printer.print(&standing, show_standing)
}

pub(super) fn freeze(
    data: &Path,
    account: AccountId,
    (incoming, outgoing): (bool, bool),
    reason: String,
    printer: Printer,
) -> Result<(), Failure> {
    let request = Request::AccountsFreeze { account, incoming, outgoing, reason };
    let standing: Standing = running(data)?.ask(&request)?;
    printer.print(&standing, show_standing)
}

/// Shows an account's own bounds, and sets them first if any is given; the others are then as for everybody.
pub(super) fn limits(data: &Path, account: AccountId, set: Option<LimitSet>, printer: Printer) -> Result<(), Failure> {
    let row: LimitsRow = running(data)?.ask(&Request::AccountsLimits { account, set })?;
    printer.print(&row, show_limits)
}

pub(super) fn show_limits(row: &LimitsRow) -> String {
    let bound = |amount: Amount| match amount {
        Amount::ZERO => "as for everybody".to_owned(),
        Amount::MAX => "no bound".to_owned(),
        amount => amount.to_string(),
    };
    let mut facts = vec![
        ("account", row.account.to_string()),
        ("one payment", bound(row.payment_max)),
        ("balance", bound(row.balance_max)),
        ("locked in a day", bound(row.day_max)),
    ];
    if let (Some(iban), Some(until)) = (&row.waiting_iban, row.waiting_until_ms) {
        facts.push(("payouts will go to", format!("{iban}, not before {}", printer::time(until))));
        if row.waiting_approved == Some(false) {
            facts.push(("but first", "an operator must agree (`weir-hub accounts approve-iban`)".to_owned()));
        }
    }
    facts.extend(row.commit.map(|commit| ("commit", commit.to_string())));
    printer::facts(facts)
}

fn show_standing(standing: &Standing) -> String {
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    printer::facts([
        ("account", standing.account.to_string()),
        ("approved", yes(standing.approved)),
        ("incoming frozen", yes(standing.frozen_incoming)),
        ("outgoing frozen", yes(standing.frozen_outgoing)),
        ("commit", standing.commit.map_or("none: it was so already".to_owned(), |commit| commit.to_string())),
    ])
}

pub(super) fn channels(data: &Path, account: Option<AccountId>, printer: Printer) -> Result<(), Failure> {
    let mut hub = Client::connect(data)?;
    let offline = if hub.is_none() { Some(stopped(data)?) } else { None };
    let mut all = ChannelPage { channels: Vec::new(), next: None };
    loop {
        let after = all.next;
        let mut page: ChannelPage = match (&mut hub, &offline) {
            (Some(hub), _) => hub.ask(&Request::ChannelsList { after, account })?,
            (None, Some(offline)) => offline.channels(after, account),
            (None, None) => break,
        };
        all.channels.append(&mut page.channels);
        all.next = page.next;
        if all.next.is_none() {
            break;
        }
    }
    printer.print(&all, |all| {
        let rows = all.channels.iter().map(|channel| {
            [
                channel.channel.to_string(),
                channel.account.to_string(),
                channel.state.clone(),
                format!("{} {}", channel.capacity, channel.currency),
                channel.spent.to_string(),
                channel.lanes.to_string(),
                printer::time(channel.expires_at_ms),
            ]
        });
        printer::table(["CHANNEL", "ACCOUNT", "STATE", "CAPACITY", "SPENT", "LANES", "EXPIRES"], rows)
    })
}

/// Closes idle channels. On a terminal the count and the amounts are to be typed, so that nobody closes many by mistake.
pub(super) fn close_idle(
    data: &Path,
    idle: std::time::Duration,
    (dry_run, confirm): (bool, Option<String>),
    printer: Printer,
) -> Result<(), Failure> {
    let mut hub = running(data)?;
    let idle_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
    let confirm = if let Some(confirm) = confirm {
        confirm
    } else {
        let planned: Sweep = hub.ask(&Request::ChannelsCloseIdle { idle_ms, confirm: None })?;
        if dry_run || planned.channels == 0 {
            return printer.print(&planned, show_sweep);
        }
        printer::say(&show_sweep(&planned));
        printer::typed(&planned.confirm)?
    };
    let done: Sweep = hub.ask(&Request::ChannelsCloseIdle { idle_ms, confirm: Some(confirm) })?;
    printer.print(&done, show_sweep)
}

fn show_sweep(sweep: &Sweep) -> String {
    let mut facts = vec![("idle", sweep.confirm.clone())];
    if sweep.dry_run {
        facts.push(("closed", "none yet".to_owned()));
        facts.push(("to close them", format!("--confirm '{}'", sweep.confirm)));
    } else {
        facts.push(("closed", sweep.closed.to_string()));
    }
    printer::facts(facts)
}

pub(super) fn close(data: &Path, confirm: &ConfirmArgs, channel: ChannelId, printer: Printer) -> Result<(), Failure> {
    let mut hub = running(data)?;
    if confirm.dry_run || !confirm.yes {
        let planned: Closed = hub.ask(&Request::ChannelsClose { channel, dry_run: true })?;
        if confirm.dry_run {
            return printer.print(&planned, show_closed);
        }
        printer::say(&show_closed(&planned));
        printer::confirm("Close this channel for good?")?;
    }
    let closed: Closed = hub.ask(&Request::ChannelsClose { channel, dry_run: false })?;
    printer.print(&closed, show_closed)
}

fn show_closed(closed: &Closed) -> String {
    printer::facts([
        ("channel", closed.channel.to_string()),
        ("account", closed.account.to_string()),
        ("spent", format!("{} {}", closed.spent, closed.currency)),
        ("returned", format!("{} {}", closed.returned, closed.currency)),
        ("commit", closed.commit.map_or("none: nothing was done yet".to_owned(), |commit| commit.to_string())),
    ])
}

pub(super) fn snapshot(data: &Path, printer: Printer) -> Result<(), Failure> {
    let row: SnapshotRow = running(data)?.ask(&Request::Snapshot {})?;
    printer.print(&row, |row| {
        let commit = row.commit.map_or("none".to_owned(), |commit| commit.to_string());
        let written = if row.written { "written" } else { "there already" };
        printer::facts([("snapshot", written.to_owned()), ("commit", commit)])
    })
}

pub(super) fn confirm_clock(data: &Path, printer: Printer) -> Result<(), Failure> {
    let row: ClockRow = running(data)?.ask(&Request::ClockConfirm {})?;
    printer.print(&row, |row| {
        printer::facts([
            ("clock had departed by", format!("{} ms", row.departure_ms)),
            ("time from now on", printer::time(row.time_ms)),
        ])
    })
}
