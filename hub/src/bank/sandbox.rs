//! A sandbox bank: keeps the hub's account and speaks to the hub through the same directories as a real bank.
//!
//! It owns a state of its own (one JSON file, replaced atomically) and answers with real messages only: pain.002 and
//! camt.054 to a pain.001 or pain.008, camt.054 to money that arrives, camt.053 at the end of the day, camt.052 during it
//! if asked. It never reads anything of the hub but its outbox. It executes a file when it fetches it, whatever the
//! execution date says, so that a demonstration need not wait a day. It has no clock: every time is an argument.
//!
//! It misbehaves as its [`Behaviour`] says, and in no other way: its own books are always right.
//!
//! Every step is: messages staged in the state's directory, state replaced (from then on it has happened), messages
//! delivered. What a crash leaves undelivered is delivered at the next call, under the same name. What misbehaviour holds
//! back is delivered by the next [`SandboxBank::run_once`].

mod answers;
mod behaviour;
mod book;
mod branch;
mod instruction;
mod messages;
mod state;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rust_decimal::Decimal;
use serde::Serialize;
use thiserror::Error;

use self::answers::Form;
pub use self::behaviour::{Behaviour, BehaviourError, Chance, Fault, StatusVersion};
use self::book::{Order, Rules};
pub use self::branch::{Branch, BranchRound};
use self::instruction::Instruction;
use self::messages::Listing;
pub use self::state::Received;
use self::state::{Entry, State};
use super::calendar::DateError;
use super::spool::{InboxFile, SpoolError, finished_files, make_dir, sync_dir, write_atomically};
use super::transfer::{Remittance, is_payable};
use super::transfer_read::TransferFile;
use super::xml::ReadError;
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
    /// Another process has it.
    #[error("another process has this sandbox bank (`{}`)", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RunReport {
    /// The fetched files, where they are now, in order.
    pub fetched: Vec<PathBuf>,
    /// Payments and collections executed.
    pub executed: u64,
    /// Payments and collections rejected.
    pub rejected: u64,
    /// Payments that came back, and collections that were taken back.
    pub returned: u64,
    /// Files whose `MsgId` was executed before: fetched, not executed, answered with DU01.
    pub duplicates: u64,
    /// Files that could not be read, answered with a rejection of the whole.
    pub unreadable: u64,
}

/// The bank.
#[derive(Debug)]
pub struct SandboxBank {
    options: SandboxOptions,
    behaviour: Behaviour,
    state: State,
}

/// A message that a step sends.
#[derive(Debug)]
struct Outgoing {
    number: u64,
    /// `camt.054`
    message: &'static str,
    bytes: Vec<u8>,
    /// Not before the next round.
    held: bool,
}

impl SandboxBank {
    /// Opens a bank that does what it should, or founds it with an empty account, and delivers what it still had to.
    pub fn open(options: SandboxOptions) -> Result<Self, SandboxError> {
        Self::open_with(options, Behaviour::default())
    }

    /// Opens or founds a bank that misbehaves.
    pub fn open_with(options: SandboxOptions, behaviour: Behaviour) -> Result<Self, SandboxError> {
        let options = SandboxOptions {
            name: bank_name(&options.name).map_err(|source| SandboxError::Text { field: "name", source })?,
            ..options
        };
        let mut codes = options.rejects.values().chain(behaviour.returns.values());
        if let Some(code) = codes.find(|code| !is_reason_code(code)) {
            return Err(SandboxError::ReasonCode(crate::details::clip(code)));
        }
        if behaviour.charge != Decimal::ZERO && !is_payable(behaviour.charge) {
            return Err(SandboxError::Amount(behaviour.charge));
        }
        for dir in [&options.dir, &staged_dir(&options), &fetched_dir(&options), &options.outbox, &options.inbox] {
            make_dir(dir)?;
        }
        sync_dir(&options.dir)?;
        let state = State::load(&options.dir.join(STATE_FILE), options.iban, options.currency)?;
        let mut bank = Self { options, behaviour, state };
        bank.deliver()?;
        Ok(bank)
    }

    /// Booked balance of the hub's account.
    pub fn balance(&self) -> Decimal {
        self.state.balance
    }

    /// When the last statement was made, milliseconds since 1970; 0: none was.
    pub fn stated_ms(&self) -> u64 {
        self.state.stated_ms
    }

    /// What arrived at the accounts that were paid, by account, since the bank was founded. What came back from there
    /// later is not taken off, it stands beside.
    pub fn received(&self) -> &BTreeMap<Iban, Received> {
        &self.state.received
    }

    /// Messages and money that wait for a later round.
    pub fn pending(&self) -> usize {
        self.state.held.len() + self.state.coming_back.len()
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
        let entry = next.book_credit(transfer, name, &self.behaviour, now_ms)?;
        let reference = entry.reference.clone();
        let message = self.notification(&mut next, &[entry], now_ms)?;
        self.commit(next, vec![message])?;
        Ok(reference)
    }

    /// One round. Delivers what was held back; books what comes back by now; fetches every finished file in the outbox,
    /// executes what can be, and answers each with a pain.002 and, where money moved, a camt.054. A file is executed
    /// once, by its `MsgId`.
    pub fn run_once(&mut self, now_ms: u64) -> Result<RunReport, SandboxError> {
        self.release()?;
        let mut report = RunReport { returned: self.bring_back(now_ms)?, ..RunReport::default() };
        for file in finished_files(&self.options.outbox)? {
            self.take_file(&file, now_ms, &mut report)?;
            report.fetched.push(self.fetch(&file)?);
        }
        if self.behaviour.intraday && report.executed + report.returned > 0 {
            let mut next = self.state.clone();
            let number = next.take_message_number();
            let bytes = messages::listing(&self.options, &next, Listing::Intraday(number), now_ms)?;
            self.commit(next, vec![Outgoing { number, message: "camt.052", bytes, held: false }])?;
        }
        Ok(report)
    }

    /// Ends the day: a camt.053 with every entry since the last one. Gives the name under which it is delivered, if it
    /// is.
    pub fn end_of_day(&mut self, now_ms: u64) -> Result<String, SandboxError> {
        self.deliver()?;
        let mut next = self.state.clone();
        let number = next.take_message_number();
        let statement = next.take_statement_number();
        let bytes = messages::listing(&self.options, &next, Listing::Statement(statement), now_ms)?;
        next.start_day(now_ms);
        let lost = self.behaviour.strikes(Fault::LoseStatement, &format!("statement {statement}"));
        let message = Outgoing { number, message: "camt.053", bytes, held: false };
        let name = file_name(number, message.message);
        self.commit(next, if lost { Vec::new() } else { vec![message] })?;
        Ok(name)
    }

    fn rules(&self) -> Rules<'_> {
        Rules { options: &self.options, behaviour: &self.behaviour }
    }

    fn take_file(&mut self, file: &InboxFile, now_ms: u64, report: &mut RunReport) -> Result<(), SandboxError> {
        let opened = || file.open().map_err(TakeError::Spool);
        let instruction = match Instruction::read(opened) {
            Ok(instruction) => instruction,
            Err(TakeError::Spool(error)) => return Err(error.into()),
            Err(TakeError::Read(error)) => {
                report.unreadable += 1;
                let message_id = TransferFile::read_message_id(file.open()?);
                return self.refuse_file(message_id.as_deref(), None, ("FF01", &error.to_string()), now_ms);
            }
        };
        let id = instruction.message_id.clone();
        if self.state.executed.contains(&id) {
            report.duplicates += 1;
            let why = ("DU01", "a file with this MsgId was there before");
            return self.refuse_file(Some(&id), Some(&instruction.name), why, now_ms);
        }
        if self.behaviour.strikes(Fault::RejectFile, &id) {
            report.rejected += instruction.orders().count() as u64;
            let code = self.behaviour.reject_code(&id);
            let mut next = self.state.clone();
            next.executed.insert(id.clone());
            let message = self.file_report(&mut next, Some(&id), &instruction.name, Some((code, "refused")), now_ms)?;
            return self.commit(next, vec![message]);
        }
        let mut next = self.state.clone();
        next.executed.insert(id);
        let orders = next.judge(&instruction, self.rules());
        let outgoing = self.answer(&mut next, &instruction, &orders, now_ms)?;
        let (executed, rejected) = count(&orders);
        self.commit(next, outgoing)?;
        report.executed += executed;
        report.rejected += rejected;
        Ok(())
    }

    /// Books what a file orders, and says so.
    fn answer(
        &self,
        next: &mut State,
        file: &Instruction,
        orders: &[Vec<Order<'_>>],
        now_ms: u64,
    ) -> Result<Vec<Outgoing>, SandboxError> {
        let strikes = |fault| self.behaviour.strikes(fault, &file.message_id);
        let booked = next.book_orders(file, orders, self.rules(), now_ms)?;
        let mut outgoing = Vec::new();
        if !strikes(Fault::Silent) {
            if strikes(Fault::Interim) {
                outgoing.push(self.file_report(next, Some(&file.message_id), &file.name, None, now_ms)?);
            }
            let number = next.take_message_number();
            let form = Form::new(&self.behaviour, number, now_ms);
            let bytes = answers::first_report(form, file, orders, strikes(Fault::Partial))?;
            outgoing.push(Outgoing { number, message: "pain.002", bytes, held: false });
        }
        if !booked.now.is_empty() {
            outgoing.push(self.notification(next, &booked.now, now_ms)?);
        }
        if strikes(Fault::Reorder) {
            reverse_names(&mut outgoing);
        }
        let number = next.take_message_number();
        if let Some(bytes) = answers::second_report(Form::new(&self.behaviour, number, now_ms), file, orders)? {
            outgoing.push(Outgoing { number, message: "pain.002", bytes, held: true });
        }
        if !booked.later.is_empty() {
            outgoing.push(Outgoing { held: true, ..self.notification(next, &booked.later, now_ms)? });
        }
        Ok(outgoing)
    }

    /// Books and announces what comes back by now; how much that was.
    fn bring_back(&mut self, now_ms: u64) -> Result<u64, SandboxError> {
        if self.state.coming_back.iter().all(|back| back.due_ms > now_ms) {
            return Ok(0);
        }
        let mut next = self.state.clone();
        let waiting = next.coming_back.len();
        let entries = next.book_returns(&self.behaviour, now_ms)?;
        let returned = (waiting - next.coming_back.len()) as u64;
        let message = self.notification(&mut next, &entries, now_ms)?;
        self.commit(next, vec![message])?;
        Ok(returned)
    }

    fn refuse_file(
        &mut self,
        message_id: Option<&str>,
        name: Option<&str>,
        why: (&str, &str),
        now_ms: u64,
    ) -> Result<(), SandboxError> {
        let mut next = self.state.clone();
        let name = name.unwrap_or("pain.001.001.09");
        let message = self.file_report(&mut next, message_id, name, Some(why), now_ms)?;
        self.commit(next, vec![message])
    }

    fn file_report(
        &self,
        next: &mut State,
        message_id: Option<&str>,
        name: &str,
        why: Option<(&str, &str)>,
        now_ms: u64,
    ) -> Result<Outgoing, SandboxError> {
        let number = next.take_message_number();
        let bytes = answers::file_report(Form::new(&self.behaviour, number, now_ms), message_id, name, why)?;
        Ok(Outgoing { number, message: "pain.002", bytes, held: false })
    }

    fn notification(&self, next: &mut State, entries: &[Entry], now_ms: u64) -> Result<Outgoing, SandboxError> {
        let number = next.take_message_number();
        let mut listed = Vec::with_capacity(entries.len());
        for entry in entries {
            listed.push(entry.clone());
            if self.behaviour.strikes(Fault::DuplicateEntry, &entry.reference) {
                listed.push(entry.clone());
            }
        }
        let bytes = messages::notification(&self.options, number, &listed, now_ms)?;
        Ok(Outgoing { number, message: "camt.054", bytes, held: false })
    }

    /// From the state's replacement on it has happened.
    fn commit(&mut self, mut next: State, outgoing: Vec<Outgoing>) -> Result<(), SandboxError> {
        for message in outgoing {
            self.stage(&mut next, message)?;
        }
        next.save(&self.options.dir, STATE_FILE)?;
        self.state = next;
        self.deliver()
    }

    /// Stages a message, and what misbehaviour makes of it.
    fn stage(&self, next: &mut State, message: Outgoing) -> Result<(), SandboxError> {
        let Outgoing { number, message, bytes, mut held } = message;
        let staged = staged_dir(&self.options);
        let strikes = |fault| self.behaviour.strikes(fault, &format!("message {number}"));
        let mut names = vec![file_name(number, message)];
        if strikes(Fault::DuplicateFile) {
            names.push(file_name(next.take_message_number(), message));
        }
        if strikes(Fault::Garble) {
            let name = file_name(next.take_message_number(), message);
            let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
            write_bytes(&staged, &name, half)?;
            next.undelivered.push(name);
            held = true;
        }
        for name in &names {
            write_bytes(&staged, name, &bytes)?;
        }
        if held || strikes(Fault::Late) {
            next.held.append(&mut names);
        } else {
            next.undelivered.append(&mut names);
        }
        Ok(())
    }

    /// Delivers what waited for this round.
    fn release(&mut self) -> Result<(), SandboxError> {
        if !self.state.held.is_empty() {
            let mut next = self.state.clone();
            next.undelivered.append(&mut next.held);
            next.save(&self.options.dir, STATE_FILE)?;
            self.state = next;
        }
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

/// Why a fetched file was not taken: it cannot be opened, or not understood.
#[derive(Debug, Error)]
enum TakeError {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Names sort in the order in which messages were made, unless they were reversed.
fn file_name(number: u64, message: &str) -> String {
    format!("{number:010}-{message}.xml")
}

fn reverse_names(outgoing: &mut [Outgoing]) {
    let numbers: Vec<u64> = outgoing.iter().rev().map(|message| message.number).collect();
    for (message, number) in outgoing.iter_mut().zip(numbers) {
        message.number = number;
    }
}

fn count(orders: &[Vec<Order<'_>>]) -> (u64, u64) {
    let all = orders.iter().flatten();
    let rejected = all.clone().filter(|order| !order.fate.is_executed()).count() as u64;
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
