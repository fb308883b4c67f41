//! A sandbox bank: keeps the hub's account and speaks to the hub through the same directories as a real bank.
//!
//! It owns a state of its own (one JSON file, replaced atomically) and answers with real messages only: pain.002 and
//! camt.054 to a pain.001, camt.054 to money that arrives, camt.053 at the end of the day. It never reads anything of the
//! hub but its outbox. It executes a file when it fetches it, whatever the execution date says, so that a demonstration
//! need not wait a day. It has no clock: every time is an argument.
//!
//! Every step is: messages staged in the state's directory, state replaced (from then on it has happened), messages
//! delivered. What a crash leaves undelivered is delivered at the next call, under the same name.

mod book;
mod messages;
mod state;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rust_decimal::Decimal;
use thiserror::Error;

use self::book::Order;
pub use self::state::Received;
use self::state::State;
use super::calendar::DateError;
use super::spool::{InboxFile, SpoolError, finished_files, make_dir, sync_dir, write_atomically};
use super::transfer::{Remittance, is_payable};
use super::transfer_read::TransferFile;
use crate::details::{Currency, Iban};
use crate::details::{TextError, bank_name, check_remittance};

const STATE_FILE: &str = "state.json";

/// Why the sandbox bank did nothing, or, for `Spool` and `Io`, nothing more.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// A file operation failed. What was booked stays booked; undelivered messages follow with the next call.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Writing a message failed.
    #[error("writing a message failed")]
    Io(#[from] io::Error),
    /// The state file is not one, or of another account.
    #[error("state `{}` {what}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Cannot be transferred in one payment.
    #[error("amount {0} cannot be transferred")]
    Amount(Decimal),
    /// A name or text that no bank carries.
    #[error("`{field}` does not fit")]
    Text {
        /// Which.
        field: &'static str,
        /// Why.
        source: TextError,
    },
    /// Not an ISO reason code: one to four capitals and digits.
    #[error("`{0}` is not a reason code")]
    ReasonCode(String),
    /// The time is out of range.
    #[error("time is out of range")]
    Time(#[from] DateError),
}

/// Where a sandbox bank lives and how it behaves.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// Its own directory: state, staged messages, fetched files.
    pub dir: PathBuf,
    /// The hub's outbox: files are fetched (moved) from here.
    pub outbox: PathBuf,
    /// The hub's inbox: messages are delivered here.
    pub inbox: PathBuf,
    /// Owner of the hub's account.
    pub name: String,
    /// The hub's account.
    pub iban: Iban,
    /// Its currency.
    pub currency: Currency,
    /// Creditor accounts that it refuses to pay, each with the ISO reason code that it gives (AC04, AG01, MD07…).
    pub rejects: BTreeMap<Iban, String>,
    /// Books one line for a batch, with details, instead of a line for each payment. Real banks do either.
    pub batch_booking: bool,
}

/// Money that somebody sends to the hub's account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingTransfer {
    /// Major units, at most two digits behind the point, within the bounds of a payment.
    pub amount: Decimal,
    /// Who sends it; carried as [`bank_name`] gives it.
    pub debtor_name: String,
    /// From where.
    pub debtor_iban: Iban,
    /// What for.
    pub remittance: Remittance,
}

/// What one run did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunReport {
    /// The fetched files, where they are now, in order.
    pub fetched: Vec<PathBuf>,
    /// Payments executed.
    pub executed: u64,
    /// Payments rejected.
    pub rejected: u64,
    /// Files whose `MsgId` was executed before: fetched, not executed, not answered again.
    pub duplicates: u64,
    /// Files that could not be read, answered with a rejection of the whole.
    pub unreadable: u64,
}

/// The bank.
#[derive(Debug)]
pub struct SandboxBank {
    options: SandboxOptions,
    state: State,
}

/// Messages that a step sends: file name and bytes.
type Outgoing = Vec<(String, Vec<u8>)>;

impl SandboxBank {
    /// Opens a bank, or founds it with an empty account, and delivers what it still had to.
    pub fn open(options: SandboxOptions) -> Result<Self, SandboxError> {
        let options = SandboxOptions {
            name: bank_name(&options.name).map_err(|source| SandboxError::Text { field: "name", source })?,
            ..options
        };
        if let Some(code) = options.rejects.values().find(|code| !is_reason_code(code)) {
            return Err(SandboxError::ReasonCode(crate::details::clip(code)));
        }
        for dir in [&options.dir, &staged_dir(&options), &fetched_dir(&options), &options.outbox, &options.inbox] {
            make_dir(dir)?;
        }
        sync_dir(&options.dir)?;
        let state = State::load(&options.dir.join(STATE_FILE), options.iban, options.currency)?;
        let mut bank = Self { options, state };
        bank.deliver()?;
        Ok(bank)
    }

    /// Booked balance of the hub's account.
    pub fn balance(&self) -> Decimal {
        self.state.balance
    }

    /// What arrived at the accounts that were paid, by account, since the bank was founded.
    pub fn received(&self) -> &BTreeMap<Iban, Received> {
        &self.state.received
    }

    /// Money arrives at the hub's account: booked, and announced with a camt.054. Gives the bank's reference of it.
    pub fn receive_transfer(&mut self, transfer: &IncomingTransfer, now_ms: u64) -> Result<String, SandboxError> {
        self.deliver()?;
        if !is_payable(transfer.amount) {
            return Err(SandboxError::Amount(transfer.amount));
        }
        let in_field = |field| move |source| SandboxError::Text { field, source };
        let name = bank_name(&transfer.debtor_name).map_err(in_field("debtor_name"))?;
        if let Remittance::Text(text) = &transfer.remittance {
            check_remittance(text).map_err(in_field("remittance"))?;
        }
        let mut next = self.state.clone();
        let entry = next.book_credit(transfer, name, now_ms)?;
        let reference = entry.reference.clone();
        let message = self.notification(&mut next, &[entry], now_ms)?;
        self.commit(next, vec![message])?;
        Ok(reference)
    }

    /// Fetches every finished file in the outbox, executes what can be, and answers each with a pain.002 and, where money
    /// moved, a camt.054. A file is executed once, by its `MsgId`.
    pub fn run_once(&mut self, now_ms: u64) -> Result<RunReport, SandboxError> {
        self.deliver()?;
        let mut report = RunReport::default();
        for file in finished_files(&self.options.outbox)? {
            self.take_file(&file, now_ms, &mut report)?;
            report.fetched.push(self.fetch(&file)?);
        }
        Ok(report)
    }

    /// Ends the day: a camt.053 with every entry since the last one. Gives its file name.
    pub fn end_of_day(&mut self, now_ms: u64) -> Result<String, SandboxError> {
        self.deliver()?;
        let mut next = self.state.clone();
        let name = next.file_name("camt.053");
        let number = next.take_statement_number();
        let bytes = messages::statement(&self.options, &next, number, now_ms)?;
        next.start_day();
        self.commit(next, vec![(name.clone(), bytes)])?;
        Ok(name)
    }

    fn take_file(&mut self, file: &InboxFile, now_ms: u64, report: &mut RunReport) -> Result<(), SandboxError> {
        let transfers = match TransferFile::read(file.open()?) {
            Ok(transfers) => transfers,
            Err(error) => {
                report.unreadable += 1;
                let message_id = TransferFile::read_message_id(file.open()?);
                return self.refuse_file(message_id.as_deref(), &error.to_string(), now_ms);
            }
        };
        if self.state.executed.contains(&transfers.message_id) {
            report.duplicates += 1;
            return Ok(());
        }
        let mut next = self.state.clone();
        next.executed.insert(transfers.message_id.clone());
        let orders = next.judge(&transfers, &self.options);
        let entries = next.book_debits(&transfers, &orders, self.options.batch_booking, now_ms)?;
        let (executed, rejected) = count(&orders);

        let name = next.file_name("pain.002");
        let bytes = messages::status_report(&name, &transfers, &orders, now_ms)?;
        let mut outgoing = vec![(name, bytes)];
        if !entries.is_empty() {
            outgoing.push(self.notification(&mut next, &entries, now_ms)?);
        }
        self.commit(next, outgoing)?;
        report.executed += executed;
        report.rejected += rejected;
        Ok(())
    }

    fn refuse_file(&mut self, message_id: Option<&str>, why: &str, now_ms: u64) -> Result<(), SandboxError> {
        let mut next = self.state.clone();
        let name = next.file_name("pain.002");
        let bytes = messages::file_rejection(&name, message_id, why, now_ms)?;
        self.commit(next, vec![(name, bytes)])
    }

    fn notification(
        &self,
        next: &mut State,
        entries: &[state::Entry],
        now_ms: u64,
    ) -> Result<(String, Vec<u8>), SandboxError> {
        let name = next.file_name("camt.054");
        let bytes = messages::notification(&self.options, &name, entries, now_ms)?;
        Ok((name, bytes))
    }

    /// From the second line on it has happened.
    fn commit(&mut self, mut next: State, outgoing: Outgoing) -> Result<(), SandboxError> {
        for (name, bytes) in outgoing {
            write_bytes(&staged_dir(&self.options), &name, &bytes)?;
            next.undelivered.push(name);
        }
        next.save(&self.options.dir, STATE_FILE)?;
        self.state = next;
        self.deliver()
    }

    fn deliver(&mut self) -> Result<(), SandboxError> {
        if self.state.undelivered.is_empty() {
            return Ok(());
        }
        let staged = staged_dir(&self.options);
        for name in &self.state.undelivered {
            let path = staged.join(name);
            let mut from = File::open(&path).map_err(SpoolError::at("open", &path))?;
            write_atomically::<_, SandboxError>(&self.options.inbox, name, |out| Ok(io::copy(&mut from, out)?))?;
        }
        let delivered = std::mem::take(&mut self.state.undelivered);
        if let Err(error) = self.state.save(&self.options.dir, STATE_FILE) {
            self.state.undelivered = delivered;
            return Err(error);
        }
        for name in delivered {
            // Best effort: a staged message that stays is never looked at again.
            let _ = fs::remove_file(staged.join(name));
        }
        Ok(())
    }

    /// Moves a file out of the outbox, after its answer is on its way.
    fn fetch(&self, file: &InboxFile) -> Result<PathBuf, SandboxError> {
        let dir = fetched_dir(&self.options);
        let mut to = dir.join(&*file.name());
        let mut number = 0_u64;
        while to.symlink_metadata().is_ok() {
            number += 1;
            to = dir.join(format!("{}.{number}", file.name()));
        }
        fs::rename(file.path(), &to).map_err(SpoolError::at("fetch", file.path()))?;
        sync_dir(&dir)?;
        sync_dir(&self.options.outbox)?;
        Ok(to)
    }
}

fn count(orders: &[Vec<Order<'_>>]) -> (u64, u64) {
    let all = orders.iter().flatten();
    let rejected = all.clone().filter(|order| order.rejection.is_some()).count() as u64;
    (all.count() as u64 - rejected, rejected)
}

fn is_reason_code(code: &str) -> bool {
    (1..=4).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

fn staged_dir(options: &SandboxOptions) -> PathBuf {
    options.dir.join("staged")
}

fn fetched_dir(options: &SandboxOptions) -> PathBuf {
    options.dir.join("fetched")
}

fn write_bytes(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), SandboxError> {
    use io::Write;

    write_atomically::<_, SandboxError>(dir, name, |out| Ok(out.write_all(bytes)?))
}

#[cfg(test)]
mod tests;
