//! The bank's messages: what arrived becomes deposits, what it says of payouts becomes outcomes.
//!
//! A file is read and checked whole before anything of it is posted; a file that cannot be is set aside with the reason.
//! Everything posted is keyed by the bank's own references, so the same file, or the same entry in another file, posts
//! once. What matches nobody goes to suspense, visibly.

use std::collections::{BTreeMap, HashMap};

use weir_protocol::act::{Act, Deposit, MAX_TEXT, Outcome, PayoutOutcome};
use weir_protocol::amount::{Amount, Currency};
use weir_protocol::hash::sha256;
use weir_protocol::id::AccountId;
use weir_protocol::reject::Reject;

use super::plan::{self, Told};
use super::{BankAccount, SettlementError};
use crate::bank::{
    BankMessage, CreditorReference, Detail, Direction, Entry, EntryStatus, InboxFile, Spool, Statement, StatementFile,
    StatementKind, StatusReport, read_message,
};
use crate::pipeline::Handle;

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct InboxReport {
    /// Files taken.
    pub files: u64,
    /// Files set aside.
    pub rejected: u64,
    /// Deposits credited to accounts.
    pub deposits: u64,
    /// Deposits that match nobody.
    pub suspense: u64,
    /// Payouts confirmed.
    pub settled: u64,
    /// Payouts refused or come back.
    pub returned: u64,
}

/// What the messages are matched against.
struct Known {
    references: HashMap<CreditorReference, AccountId>,
    told: BTreeMap<String, Told>,
}

/// Takes every file of the inbox.
pub(super) async fn take(
    handle: &Handle,
    spool: &Spool,
    account: &BankAccount,
) -> Result<InboxReport, SettlementError> {
    let mut report = InboxReport::default();
    let files = spool.inbox_files()?;
    if files.is_empty() {
        return Ok(report);
    }
    let hub = handle.hub();
    let (accounts, told) = handle
        .read(move |view| {
            let accounts: Vec<AccountId> = view.books.accounts().map(|(id, _)| *id).collect();
            (accounts, plan::told(view.books, &hub))
        })
        .await?;
    let references = accounts.iter().map(|id| (CreditorReference::from_id(id.as_bytes()), *id)).collect();
    let known = Known { references, told };
    for file in files {
        match acts_of(&file, account, &known).await {
            Ok(acts) => {
                for act in acts {
                    post(handle, act, &mut report).await?;
                }
                spool.mark_processed(&file)?;
                report.files += 1;
            }
            Err(why) => {
                tracing::error!(file = %file.name(), %why, "a file of the bank was set aside");
                spool.mark_rejected(&file, &why)?;
                report.rejected += 1;
            }
        }
    }
    Ok(report)
}

/// Everything that a file says, before any of it is posted.
async fn acts_of(file: &InboxFile, account: &BankAccount, known: &Known) -> Result<Vec<Act>, String> {
    let opened = file.open().map_err(|error| error.to_string())?;
    let read = tokio::task::spawn_blocking(move || read_message(std::io::BufReader::new(opened))).await;
    match read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())? {
        BankMessage::Status(report) => Ok(outcomes(&report, &known.told)),
        BankMessage::Statement(file) => statement_acts(&file, account, known),
    }
}

fn statement_acts(file: &StatementFile, account: &BankAccount, known: &Known) -> Result<Vec<Act>, String> {
    let mut acts = Vec::new();
    for statement in &file.statements {
        if statement.account != account.iban.as_str() {
            return Err(format!("it is about account `{}`, not the hub's", statement.account));
        }
        // What an interim report books may still change until the statement.
        if file.kind == StatementKind::Report {
            continue;
        }
        for (entry, index) in statement.entries.iter().zip(0_usize..) {
            if entry.status == EntryStatus::Booked {
                entry_acts(file.kind, statement, entry, index, known, &mut acts)?;
            }
        }
    }
    Ok(acts)
}

fn entry_acts(
    kind: StatementKind,
    statement: &Statement,
    entry: &Entry,
    index: usize,
    known: &Known,
    acts: &mut Vec<Act>,
) -> Result<(), String> {
    let currency: Currency = entry.currency.parse().map_err(|error| format!("entry {index}: {error}"))?;
    let reference = match &entry.account_servicer_reference {
        Some(reference) => reference.clone(),
        // Without the bank's own number only the statement says an entry once and for all.
        None if kind == StatementKind::Statement => format!("{}#{index}", statement.id),
        None => return Ok(()),
    };
    let details: Vec<&Detail> = entry.details().collect();
    if details.is_empty() {
        if entry.direction == Direction::Credit {
            let amount = amount(entry.amount)?;
            acts.push(deposit(None, currency, amount, statement, &reference));
        }
        return Ok(());
    }
    let single = details.len() == 1;
    for (detail, part) in details.iter().zip(0_usize..) {
        let told = detail.end_to_end_id.as_ref().and_then(|id| known.told.get(id));
        let value = amount(detail.amount)?;
        match (detail.direction, told) {
            (Direction::Credit, Some(told)) if detail.is_return() => {
                let why = detail.return_reason.clone().unwrap_or_default();
                acts.push(outcome(told, PayoutOutcome::Returned, &why));
            }
            (Direction::Debit, Some(told)) if told.amount == value => {
                acts.push(outcome(told, PayoutOutcome::Settled, &reference));
            }
            (Direction::Debit, _) => {}
            (Direction::Credit, _) => {
                let reference = if single { reference.clone() } else { format!("{reference}/{part}") };
                acts.push(deposit(owner(detail, known), currency, value, statement, &reference));
            }
        }
    }
    Ok(())
}

/// Whose money it is: the one account that its references name. Two are a case for a person.
fn owner(detail: &Detail, known: &Known) -> Option<AccountId> {
    let mut owners: Vec<AccountId> =
        detail.references().iter().filter_map(|reference| known.references.get(reference).copied()).collect();
    owners.sort();
    owners.dedup();
    match owners.as_slice() {
        [one] => Some(*one),
        _ => None,
    }
}

fn deposit(
    account: Option<AccountId>,
    currency: Currency,
    amount: Amount,
    statement: &Statement,
    reference: &str,
) -> Act {
    Act::Deposit(Deposit {
        account,
        currency,
        amount,
        connector: short(&statement.account),
        bank_reference: short(reference),
    })
}

/// A text within an act's limit; a longer one by its hash, so that it still names one thing.
fn short(text: &str) -> String {
    if text.len() <= MAX_TEXT { text.to_owned() } else { format!("sha256:{}", sha256(text.as_bytes())) }
}

fn amount(decimal: rust_decimal::Decimal) -> Result<Amount, String> {
    Amount::from_decimal(decimal).map_err(|error| error.to_string())
}

fn outcomes(report: &StatusReport, told: &BTreeMap<String, Told>) -> Vec<Act> {
    let verdicts = report.verdicts();
    told.iter()
        .filter(|(_, payout)| payout.batch == report.original_message_id)
        .filter_map(|(end_to_end_id, payout)| {
            let (status, reasons) = verdicts.of(&payout.batch, end_to_end_id)?;
            let codes: Vec<&str> = reasons.iter().map(|reason| reason.code.as_str()).collect();
            // DU01: the bank has seen the file before; that says nothing about its payouts.
            if codes.contains(&"DU01") {
                None
            } else if status.is_settled() {
                Some(outcome(payout, PayoutOutcome::Settled, &report.message_id))
            } else if status.is_refused() {
                Some(outcome(payout, PayoutOutcome::Returned, &codes.join(" ")))
            } else {
                None
            }
        })
        .collect()
}

fn outcome(payout: &Told, outcome: PayoutOutcome, reference: &str) -> Act {
    Act::Outcome(Outcome {
        window: payout.window,
        account: payout.account,
        currency: payout.currency,
        amount: payout.amount,
        outcome,
        reference: short(reference),
    })
}

async fn post(handle: &Handle, mut act: Act, report: &mut InboxReport) -> Result<(), SettlementError> {
    loop {
        match handle.order(act.clone()).await {
            Ok(_) => {
                let count = match &act {
                    Act::Deposit(deposit) if deposit.account.is_some() => &mut report.deposits,
                    Act::Deposit(_) => &mut report.suspense,
                    Act::Outcome(outcome) if outcome.outcome == PayoutOutcome::Settled => &mut report.settled,
                    _ => &mut report.returned,
                };
                *count += 1;
                return Ok(());
            }
            // The money is there all the same: beyond what the account may hold it waits for the operator.
            Err(Reject::TooLarge) if owner_of(&act).is_some() => {
                tracing::warn!(account = ?owner_of(&act), "a deposit is beyond the account's limit; it is in suspense");
                if let Act::Deposit(deposit) = &mut act {
                    deposit.account = None;
                }
            }
            // Posted before: by this file, or by another that says the same.
            Err(Reject::Exists | Reject::Stale) => return Ok(()),
            Err(Reject::Busy) => tokio::task::yield_now().await,
            Err(reject) => return Err(reject.into()),
        }
    }
}

/// Whom a deposit is for.
const fn owner_of(act: &Act) -> Option<AccountId> {
    match act {
        Act::Deposit(deposit) => deposit.account,
        _ => None,
    }
}
