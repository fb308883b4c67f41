//! What verbs answer: JSON objects of one shape each, amounts as strings in major units, times in milliseconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::commit::{Commit, SignedCertificate};
use weir_protocol::id::{AccountId, ChannelId, HubId};
use weir_protocol::keys::PublicKey;
use weir_protocol::wire::{AccountInfo, ChannelInfo};

use super::settle::OperatorList;
use crate::audit::{CommitRow, SumsRow, sums};
use crate::engine::books::{Account, Books};
use crate::engine::windows::WindowState;
use crate::settlement::reconcile::Reconciliation;

/// The signing key and how long it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRow {
    /// The signing key.
    pub key: PublicKey,
    /// From then on.
    pub not_before_ms: u64,
    /// Until before then.
    pub not_after_ms: u64,
}

impl From<&SignedCertificate> for CertificateRow {
    fn from(signed: &SignedCertificate) -> Self {
        let certificate = &signed.certificate;
        Self { key: certificate.key, not_before_ms: certificate.not_before.0, not_after_ms: certificate.not_after.0 }
    }
}

/// How many accounts there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AccountCounts {
    /// All.
    pub all: u64,
    /// Waiting for approval.
    pub waiting: u64,
    /// Frozen in one direction at least.
    pub frozen: u64,
}

/// The settlement windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowCounts {
    /// The number of the open one.
    pub open: u64,
    /// Cut off and not settled yet.
    pub unsettled: u64,
    /// When the open one is cut off by itself, while a hub runs that does so.
    pub next_cutoff_ms: Option<u64>,
}

/// How the hub is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The hub.
    pub hub: HubId,
    /// What its operator calls it.
    pub name: String,
    /// Whether a process answers; if not, this was read from the directory.
    pub running: bool,
    /// `running`, `failed: …` or `stopped`.
    pub health: String,
    /// Where clients connect, while it runs.
    pub address: Option<String>,
    /// Its process, while it runs.
    pub pid: Option<u32>,
    /// Of the program that answers.
    pub version: String,
    /// Whether the wall clock can be trusted; unknown when no process watches it.
    pub clock_trusted: Option<bool>,
    /// The newest durable commit.
    pub head: Option<CommitRow>,
    /// The commit of the newest snapshot.
    pub snapshot: Option<u64>,
    /// Bytes of records that the process has appended to the journal, while it runs.
    pub journal_bytes: Option<u64>,
    /// The certificate in force.
    pub certificate: Option<CertificateRow>,
    /// Accounts.
    pub accounts: AccountCounts,
    /// Windows.
    pub windows: WindowCounts,
    /// Whose word settlement needs.
    pub operators: OperatorList,
    /// Money, by currency.
    pub sums: BTreeMap<String, SumsRow>,
    /// Whether bank and ledger agree; none when the hub has no bank account.
    pub bank: Option<BankRow>,
}

/// Whether bank and ledger agree. `reconcile` says all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BankRow {
    /// Whether nothing raises an alarm.
    pub healthy: bool,
    /// What does.
    pub alarms: Vec<String>,
    /// Entries that nobody owns.
    pub suspense: u64,
    /// The end of the day of the newest statement.
    pub statement_ms: Option<u64>,
}

impl BankRow {
    /// Of a reconciliation.
    pub fn of(report: Reconciliation, books: &Books) -> Self {
        let statements = report.currencies.values().filter_map(|currency| currency.statement.as_ref());
        Self {
            statement_ms: statements.map(|statement| statement.closed_at_ms).max(),
            healthy: report.healthy,
            alarms: report.alarms,
            suspense: books.unmatched().len() as u64,
        }
    }
}

/// What only the process, or the lack of one, knows.
#[derive(Debug, Clone)]
pub struct Process {
    /// What the operator calls the hub.
    pub name: String,
    /// Whether one answers.
    pub running: bool,
    /// How it is.
    pub health: String,
    /// Where clients connect.
    pub address: Option<String>,
    /// Its id.
    pub pid: Option<u32>,
    /// Whether its clock can be trusted.
    pub clock_trusted: Option<bool>,
    /// The newest snapshot.
    pub snapshot: Option<u64>,
    /// Bytes of records that it has appended to the journal.
    pub journal_bytes: Option<u64>,
    /// Bank against ledger.
    pub bank: Option<Reconciliation>,
    /// When the open window is cut off by itself.
    pub next_cutoff_ms: Option<u64>,
}

impl Status {
    /// Put together from the books. Counts accounts: a pass over all of them.
    pub fn of(hub: HubId, process: Process, books: &Books, head: Option<&Commit>) -> Self {
        let mut accounts = AccountCounts::default();
        for (_, account) in books.accounts() {
            accounts.all += 1;
            accounts.waiting += u64::from(is_waiting(account));
            accounts.frozen += u64::from(account.standing.frozen_incoming || account.standing.frozen_outgoing);
        }
        let unsettled = books.windows().iter().filter(|(_, window)| window.state != WindowState::Settled).count();
        Self {
            hub,
            name: process.name,
            running: process.running,
            health: process.health,
            address: process.address,
            pid: process.pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            clock_trusted: process.clock_trusted,
            head: head.map(CommitRow::from),
            snapshot: process.snapshot,
            journal_bytes: process.journal_bytes,
            certificate: head.and_then(|head| books.certificate_at(head.time)).map(CertificateRow::from),
            accounts,
            windows: WindowCounts {
                open: books.windows().open(),
                unsettled: unsettled as u64,
                next_cutoff_ms: process.next_cutoff_ms,
            },
            operators: OperatorList::of(books),
            sums: sums(books.ledger()),
            bank: process.bank.map(|report| BankRow::of(report, books)),
        }
    }
}

const fn is_waiting(account: &Account) -> bool {
    !account.standing.approved
}

/// One account's money in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is described at `engine::ledger::Place`")]
pub struct BalanceRow {
    pub available: Amount,
    pub locked: Amount,
    pub earned: Amount,
    pub payable: Amount,
    pub marked: Amount,
    pub in_transit: Amount,
    #[serde(default)]
    pub provisional: Amount,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRow {
    /// Its id.
    pub account: AccountId,
    /// As registered.
    pub name: String,
    /// Where payouts go.
    pub iban: String,
    /// Whether it may act.
    pub approved: bool,
    /// Whether payments to it are refused.
    pub frozen_incoming: bool,
    /// Whether payments by it are refused.
    pub frozen_outgoing: bool,
    /// Money, by currency.
    pub balances: BTreeMap<String, BalanceRow>,
}

impl From<AccountInfo> for AccountRow {
    fn from(info: AccountInfo) -> Self {
        let balances = info.balances.iter().map(|balance| {
            let row = BalanceRow {
                available: balance.available,
                locked: balance.locked,
                earned: balance.earned,
                payable: balance.payable,
                marked: balance.marked,
                in_transit: balance.in_transit,
                provisional: balance.provisional,
            };
            (balance.currency.to_string(), row)
        });
        Self {
            account: info.account,
            balances: balances.collect(),
            name: info.name,
            iban: info.iban,
            approved: info.approved,
            frozen_incoming: info.frozen_incoming,
            frozen_outgoing: info.frozen_outgoing,
        }
    }
}

/// A page of accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountPage {
    /// By id.
    pub accounts: Vec<AccountRow>,
    /// Where the next page begins; none: this was the last.
    pub next: Option<AccountId>,
}

impl AccountPage {
    /// Reads a page from the books.
    pub fn read(books: &Books, after: Option<AccountId>, waiting: bool, limit: usize) -> Self {
        let mut found = books
            .accounts()
            .filter(|(id, account)| after.is_none_or(|after| **id > after) && (!waiting || is_waiting(account)));
        let ids: Vec<AccountId> = found.by_ref().take(limit).map(|(id, _)| *id).collect();
        let next = found.next().and(ids.last().copied());
        Self { accounts: ids.iter().filter_map(|id| books.info(id)).map(AccountRow::from).collect(), next }
    }
}

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRow {
    /// Its id.
    pub channel: ChannelId,
    /// Whose.
    pub account: AccountId,
    /// Its currency.
    pub currency: Currency,
    /// `open` or `closed`.
    pub state: String,
    /// What is locked for it in all.
    pub capacity: Amount,
    /// Spent in its life.
    pub spent: Amount,
    /// Set aside for reserved lanes and not spent by them.
    pub reserved: Amount,
    /// Lanes ever granted.
    pub lanes: u32,
    /// How often it rolled.
    pub rolls: u64,
    /// When it was opened, by the client's clock.
    pub opened_at_ms: u64,
    /// When it ends by itself.
    pub expires_at_ms: u64,
    /// Whether it may roll.
    pub renew: bool,
}

impl From<&ChannelInfo> for ChannelRow {
    fn from(info: &ChannelInfo) -> Self {
        Self {
            channel: info.channel,
            account: info.terms.account,
            currency: info.terms.currency,
            state: if info.closed { "closed" } else { "open" }.to_owned(),
            capacity: info.capacity,
            spent: info.spent,
            reserved: info.reserved,
            lanes: info.lanes,
            rolls: info.rolls,
            opened_at_ms: info.terms.opened_at.0,
            expires_at_ms: info.expires_at.0,
            renew: info.renew,
        }
    }
}

/// A page of channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelPage {
    /// By id.
    pub channels: Vec<ChannelRow>,
    /// Where the next page begins; none: this was the last.
    pub next: Option<ChannelId>,
}

impl ChannelPage {
    /// A page from at least as many of the channels that follow as it holds.
    pub fn of(mut rows: Vec<ChannelRow>, limit: usize) -> Self {
        rows.sort_by_key(|row| row.channel);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| row.channel);
        Self { channels: rows, next }
    }
}

/// What an account may do from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The account.
    pub account: AccountId,
    /// Whether it may act.
    pub approved: bool,
    /// Whether payments to it are refused.
    pub frozen_incoming: bool,
    /// Whether payments by it are refused.
    pub frozen_outgoing: bool,
    /// The commit that made it so; none when it was so already.
    pub commit: Option<u64>,
}

/// An account's own bounds. Zero: as for everybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsRow {
    /// The account.
    pub account: AccountId,
    /// Most that one payment may be.
    pub payment_max: Amount,
    /// Most that a deposit may bring available and locked money to.
    pub balance_max: Amount,
    /// Most that it may lock in channels on one day.
    pub day_max: Amount,
    /// The bank account to which payouts will go, while it waits.
    pub waiting_iban: Option<String>,
    /// From the first cut-off at or after this.
    pub waiting_until_ms: Option<u64>,
    /// Whether it waits for nothing but its time: an operator has agreed to it, or nobody need.
    pub waiting_approved: Option<bool>,
    /// The commit that made it so; none when it was so already.
    pub commit: Option<u64>,
}

/// A channel's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Whether this only says what would be.
    pub dry_run: bool,
    /// The channel: closing it again changes nothing.
    pub channel: ChannelId,
    /// Whose.
    pub account: AccountId,
    /// Its currency.
    pub currency: Currency,
    /// Spent in its life.
    pub spent: Amount,
    /// Given back to the account.
    pub returned: Amount,
    /// The commit that holds the close.
    pub commit: Option<u64>,
}

/// A snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRow {
    /// Whether one was written; if not, there was nothing newer.
    pub written: bool,
    /// The commit of the newest one.
    pub commit: Option<u64>,
}

/// The clock after its confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockRow {
    /// How far the wall clock had departed; 0: not so far that it mattered.
    pub departure_ms: u64,
    /// The time that holds from now on.
    pub time_ms: u64,
}

impl ClockRow {
    /// After a confirmation.
    pub const fn new(departure_ms: u64, time: Time) -> Self {
        Self { departure_ms, time_ms: time.0 }
    }
}
