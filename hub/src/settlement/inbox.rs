//! The bank's messages: what arrived becomes acts.
//!
//! A file is gone through twice. The first time it is hashed and all of it is checked, and its entries are put into a file
//! of the hub's own (`spill`); only of a file that is whole, about the hub's account, in its currencies, and whose sums are
//! right are they taken from there and posted, some thousand at a time, so that a file of any length takes no more memory
//! than they do. Every act
//! has a key of the bank's own, so a file that a crash interrupted is read again and goes on where it was. A file that
//! cannot be taken is set aside with the reason, and nothing of it is posted.
//!
//! The directory is looked at in intervals: a rename into it on a network share or by an SFTP server raises no event that
//! could be relied on, a look costs one `readdir`, and a bank's message is never urgent to the second.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use rust_decimal::Decimal;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use weir_protocol::act::{Act, CollectionWord, Deposit, PayoutOutcome, Statement as StatementAct};
use weir_protocol::amount::{Currency, Time};
use weir_protocol::hash::Hash;
use weir_protocol::reject::Reject;

use super::heard::{Announced, FileHeard, Heard, OddHeard, RejectedFile, Signed, StatementHeard};
use super::matching::{Judge, Judged, Line, amount, reference_of, short};
use super::spill::{Record, Spill, Spilled};
use super::{BankAccount, SettlementError, io};
use crate::bank::{
    Balance, BankMessage, Entry, EntrySink, EntryStatus, InboxFile, ReadError, Spool, Statement, StatementKind,
    scan_message,
};
use crate::engine::unmatched::EntryKey;
use crate::pipeline::Handle;

/// Entries that are judged and posted together.
const LINES: usize = 2_048;
/// Lots of entries that are read ahead.
const AHEAD: usize = 2;

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct InboxReport {
    /// Files taken.
    pub files: u64,
    /// Files whose content was taken before, under whatever name.
    pub repeated: u64,
    /// Files set aside.
    pub rejected: u64,
    /// Files that wait: what they say does not fit yet what is known.
    pub waiting: u64,
    /// Deposits credited to accounts.
    pub deposits: u64,
    /// Deposits that match nobody.
    pub suspense: u64,
    /// Payouts booked by the bank.
    pub settled: u64,
    /// Payouts refused or come back.
    pub returned: u64,
    /// Direct debits booked by the bank.
    pub collected: u64,
    /// Direct debits refused or taken back.
    pub taken_back: u64,
    /// Charges of the bank.
    pub charges: u64,
    /// Debits that match nobody.
    pub unexplained: u64,
}

/// Reads the inbox of one hub.
#[derive(Debug)]
pub(super) struct Inbox<'a> {
    pub(super) handle: &'a Handle,
    pub(super) spool: &'a Spool,
    /// Holds `inbox/` and what was heard.
    pub(super) root: &'a Path,
    pub(super) account: &'a BankAccount,
    pub(super) heard: &'a mut Heard,
    pub(super) now_ms: u64,
}

/// Why a file is not taken.
enum Trouble {
    /// It can never be.
    Rejected { why: String, currency: bool },
    /// Not now: the ledger cannot bear it before another file is there.
    Later(Reject),
    /// The hub itself.
    Failed(SettlementError),
}

impl From<SettlementError> for Trouble {
    fn from(error: SettlementError) -> Self {
        Self::Failed(error)
    }
}

impl From<Reject> for Trouble {
    fn from(reject: Reject) -> Self {
        Self::Failed(reject.into())
    }
}

/// What became of acts, by their places.
#[derive(Default)]
struct Posted {
    /// How many are new.
    count: u64,
    /// Overtaken by acts posted before them.
    stale: Vec<usize>,
    /// The ledger has not that much at the bank.
    unborne: Vec<usize>,
}

/// A file after its first reading.
struct Checked {
    hash: Hash,
    message: Result<BankMessage, Trouble>,
    /// The entries; all of them where the message is right.
    spilled: Spilled,
}

/// A first reading that goes on.
type Checking = tokio::task::JoinHandle<Result<Checked, SettlementError>>;

/// What the second reading gives out.
enum Piece {
    Lines(Vec<Line>),
    End { kind: StatementKind, statement: Box<Statement>, booked: u32 },
}

impl Inbox<'_> {
    /// Takes every file. A file that is named earlier is taken earlier; none needs to be. While one is posted, the next one
    /// is checked.
    pub(super) async fn take(&mut self) -> Result<InboxReport, SettlementError> {
        let mut report = InboxReport::default();
        let (waiting, files): (Vec<_>, Vec<_>) =
            self.spool.inbox_files()?.into_iter().partition(|file| self.heard.later.contains(file));
        report.waiting += waiting.len() as u64;
        let mut files = files.into_iter();
        let mut next = match files.next() {
            Some(file) => Some(self.check(file).await),
            None => None,
        };
        while let Some(begun) = next.take() {
            let (file, checking) = begun?;
            let checked = checking.await.map_err(|_| Reject::Stopped)??;
            // If it cannot even be opened, that is said when its turn comes.
            next = match files.next() {
                Some(file) => Some(self.check(file).await),
                None => None,
            };
            self.file(&file, checked, &mut report).await?;
        }
        if report.files > 0 {
            // What another file has posted may be what they wait for.
            self.heard.later.clear();
        }
        Ok(report)
    }

    async fn file(
        &mut self,
        file: &InboxFile,
        checked: Checked,
        report: &mut InboxReport,
    ) -> Result<(), SettlementError> {
        let Checked { hash, message: checked, spilled } = checked;
        if checked.is_ok() && self.heard.files.contains_key(&hash.to_string()) {
            tracing::info!(file = %file.name(), "the bank has brought this file before");
            self.spool.mark_processed(file)?;
            report.repeated += 1;
            return Ok(());
        }
        let done = match checked {
            Ok(message) => self.post(file, message, hash, spilled, report).await,
            Err(trouble) => Err(trouble),
        };
        match done {
            Ok(counted) => {
                self.heard.files.insert(hash.to_string(), counted);
                self.heard.rejected.remove(&hash.to_string());
                self.heard.trim();
                self.heard.save(self.root)?;
                self.spool.mark_processed(file)?;
                report.files += 1;
                Ok(())
            }
            Err(Trouble::Rejected { why, currency }) => {
                tracing::error!(file = %file.name(), %why, "a file of the bank was set aside");
                let rejected =
                    RejectedFile { name: file.name().into_owned(), why: why.clone(), currency, at_ms: self.now_ms };
                self.heard.rejected.insert(hash.to_string(), rejected);
                self.heard.save(self.root)?;
                self.spool.mark_rejected(file, &why)?;
                report.rejected += 1;
                Ok(())
            }
            Err(Trouble::Later(reject)) => {
                tracing::warn!(file = %file.name(), %reject, "a file of the bank waits for another");
                report.waiting += 1;
                self.heard.later.insert(file.clone());
                Ok(())
            }
            Err(Trouble::Failed(error)) => Err(error),
        }
    }

    /// Begins the first reading: the file's hash, whether all of it is right, and its entries where nobody else writes.
    async fn check(&self, file: InboxFile) -> Result<(InboxFile, Checking), SettlementError> {
        let currencies = self.handle.read(|view| view.books.policy().currencies.clone()).await?;
        let account = self.account.iban.to_string();
        let input = file.open()?;
        let (source, root) = (file.path().to_owned(), self.root.to_owned());
        let checking = tokio::task::spawn_blocking(move || {
            let spill = Spill::create(&root).map_err(io("write into", &root))?;
            let mut sink = Check { account, currencies, wrong_currency: false, spill, begun: false, failed: None };
            let mut hashed = Hashed { input, hash: Sha256::new() };
            let read = scan_message(&mut hashed, &mut sink);
            if let Some(error) = sink.failed {
                return Err(io("write into", &root)(error));
            }
            // What the reader left is part of the file too.
            io::copy(&mut hashed, &mut io::sink()).map_err(io("read", &source))?;
            let spilled = sink.spill.finish().map_err(io("write into", &root))?;
            let hash = Hash(hashed.hash.finalize().into());
            let message = read.map_err(|error| Trouble::Rejected {
                currency: sink.wrong_currency || matches!(error, ReadError::Currency { .. }),
                why: super::with_causes(&error),
            });
            Ok(Checked { hash, message, spilled })
        });
        Ok((file, checking))
    }

    /// The second reading.
    async fn post(
        &mut self,
        file: &InboxFile,
        message: BankMessage,
        hash: Hash,
        spilled: Spilled,
        report: &mut InboxReport,
    ) -> Result<FileHeard, Trouble> {
        let mut counted =
            FileHeard { name: file.name().into_owned(), at_ms: self.now_ms, posted: 0, known: 0, waiting: 0 };
        if let BankMessage::Status(status) = message {
            let hub = self.handle.hub();
            let acts = self.handle.read(move |view| Judge { books: view.books }.status(&hub, &status)).await?;
            counted.posted = self.order(acts, report).await?.count;
            return Ok(counted);
        }
        let (pieces, mut read) = mpsc::channel(AHEAD);
        let (root, connector) = (self.root.to_owned(), self.account.iban.to_string());
        let reading = tokio::task::spawn_blocking(move || {
            give_out(spilled, &connector, &pieces).map_err(io("read what was read into", &root))
        });
        let (mut ends, mut unborne) = (Vec::new(), Vec::new());
        while let Some(piece) = read.recv().await {
            match piece {
                Piece::Lines(lines) => unborne.extend(self.lines(lines, false, &mut counted, report).await?),
                Piece::End { kind: StatementKind::Statement, statement, booked } => ends.push((statement, booked)),
                Piece::End { .. } => {}
            }
        }
        match reading.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(Trouble::Failed(error)),
            Err(_) => return Err(Trouble::Failed(Reject::Stopped.into())),
        }
        // The bank may have lent for an hour what the ledger cannot: what came in later in the file may bear it.
        if !unborne.is_empty() {
            let unborne = self.lines(unborne, true, &mut counted, report).await?;
            if !unborne.is_empty() {
                return Err(Trouble::Later(Reject::Insufficient));
            }
        }
        for (statement, booked) in ends {
            self.statement(&statement, booked, hash).await?;
        }
        Ok(counted)
    }

    /// Judges and posts entries; those that the ledger cannot bear now.
    async fn lines(
        &mut self,
        mut lines: Vec<Line>,
        begun: bool,
        counted: &mut FileHeard,
        report: &mut InboxReport,
    ) -> Result<Vec<Line>, Trouble> {
        let mut again = Vec::new();
        let mut unborne = Vec::new();
        // Twice: what a first pass finds changed by its own acts is judged once more.
        for pass in 0..2 {
            let hub = self.handle.hub();
            let judge = move |view: &crate::pipeline::View<'_>| {
                let judge = Judge { books: view.books };
                let judged: Vec<Result<Judged, String>> =
                    lines.iter().map(|line| judge.entry(&hub, line, begun)).collect();
                (lines, judged)
            };
            let (judged_lines, judged) = self.handle.read(judge).await?;
            let judged = judged.into_iter().collect::<Result<Vec<Judged>, String>>();
            let judged = judged.map_err(|why| Trouble::Rejected { why, currency: false })?;
            let mut acts = Vec::new();
            let mut of_line = Vec::new();
            for (at, one) in judged.iter().enumerate() {
                acts.extend(one.acts.iter().cloned());
                of_line.extend(std::iter::repeat_n(at, one.acts.len()));
            }
            let refused = self.order(acts, report).await?;
            let lines_of =
                |acts: &[usize]| -> Vec<usize> { acts.iter().filter_map(|at| of_line.get(*at).copied()).collect() };
            let (stale_lines, unborne_lines) = (lines_of(&refused.stale), lines_of(&refused.unborne));
            for (at, (line, judged)) in judged_lines.into_iter().zip(judged).enumerate() {
                if unborne_lines.binary_search(&at).is_ok() {
                    unborne.push(line);
                } else if pass == 0 && stale_lines.binary_search(&at).is_ok() {
                    again.push(line);
                } else {
                    self.note(&line, &judged, counted);
                }
            }
            if again.is_empty() {
                break;
            }
            lines = std::mem::take(&mut again);
        }
        Ok(unborne)
    }

    /// What is remembered of an entry that was judged and posted.
    fn note(&mut self, line: &Line, judged: &Judged, counted: &mut FileHeard) {
        let Some(reference) = reference_of(line).filter(|_| !judged.waits) else {
            counted.waiting += 1;
            return;
        };
        if judged.acts.is_empty() {
            counted.known += 1;
        } else {
            counted.posted += 1;
        }
        for odd in &judged.odd {
            let key = EntryKey::of(&line.connector, &odd.reference).to_string();
            let heard = OddHeard { oddity: odd.oddity, about: odd.about.clone(), file: counted.name.clone() };
            self.heard.odd.insert(key, heard);
        }
        let key = EntryKey::of(&line.connector, &reference).to_string();
        if line.kind == StatementKind::Statement {
            self.heard.announced.remove(&key);
            return;
        }
        let booked_at_ms = line.entry.booking_date.map_or(self.now_ms, crate::bank::Date::end_ms);
        let stated = self.heard.statements.last().map_or(0, |statement| statement.closed_at_ms);
        // A known entry of an older day stood in a statement before.
        if judged.acts.is_empty() && booked_at_ms <= stated {
            return;
        }
        let Ok(currency) = line.entry.currency.parse() else { return };
        let Ok(amount) = amount(line.entry.amount) else { return };
        let amount = Signed::of(line.entry.direction == crate::bank::Direction::Debit, amount);
        let announced = Announced { currency, amount, booked_at_ms, at_ms: self.now_ms, reference };
        self.heard.announced.insert(key, announced);
    }

    /// Posts acts.
    async fn order(&self, acts: Vec<Act>, report: &mut InboxReport) -> Result<Posted, Trouble> {
        let done = self.handle.orders(acts.clone()).await?;
        let (mut posted, mut beyond) = (Posted::default(), Vec::new());
        for (at, (act, done)) in acts.iter().zip(done).enumerate() {
            match done {
                Ok(_) => {
                    posted.count += 1;
                    count(report, act);
                }
                // Posted before: by this file, or by another that says the same.
                Err(Reject::Exists) => {}
                Err(Reject::Stale) => posted.stale.push(at),
                Err(Reject::Insufficient) => posted.unborne.push(at),
                // The money is there all the same: beyond what the account may hold it waits for the operator.
                Err(Reject::TooLarge) if matches!(act, Act::Deposit(_)) => beyond.extend(without_owner(act)),
                Err(reject @ Reject::Overflow) => return Err(Trouble::Later(reject)),
                Err(reject) => return Err(reject.into()),
            }
        }
        if beyond.is_empty() {
            return Ok(posted);
        }
        let done = self.handle.orders(beyond.clone()).await?;
        for (act, done) in beyond.iter().zip(done) {
            match done {
                Ok(_) => {
                    posted.count += 1;
                    count(report, act);
                }
                Err(Reject::Exists) => {}
                Err(reject) => return Err(reject.into()),
            }
        }
        Ok(posted)
    }

    /// The closing balance, after the entries that lead to it.
    async fn statement(&mut self, statement: &Statement, booked: u32, hash: Hash) -> Result<(), Trouble> {
        let wrong = |why: String| Trouble::Rejected { why, currency: false };
        let (Some(opening), Some(closing)) = (&statement.opening, &statement.closing) else { return Ok(()) };
        let balance = |balance: &Balance| {
            let overdrawn = balance.amount < Decimal::ZERO;
            amount(balance.amount.abs()).map(|amount| (overdrawn, amount)).map_err(wrong)
        };
        let ((opening_overdrawn, opening_amount), (closing_overdrawn, closing_amount)) =
            (balance(opening)?, balance(closing)?);
        let currency: Currency = closing.currency.parse().map_err(|error| wrong(format!("{error}")))?;
        let closed_at_ms = closing.date.map_or(self.now_ms, crate::bank::Date::end_ms);
        let act = StatementAct {
            currency,
            connector: short(&statement.account),
            statement: short(&statement.id),
            sequence: statement.sequence.as_deref().and_then(|number| number.trim().parse().ok()).unwrap_or(0),
            opening_overdrawn,
            opening: opening_amount,
            closing_overdrawn,
            closing: closing_amount,
            closed_at: Time(closed_at_ms),
            entries: booked,
            file: hash,
        };
        self.heard.add_statement(StatementHeard {
            currency,
            id: act.statement.clone(),
            sequence: act.sequence,
            closed_at_ms,
            opening: Signed::of(opening_overdrawn, opening_amount),
            closing: Signed::of(closing_overdrawn, closing_amount),
            at_ms: self.now_ms,
        });
        loop {
            match self.handle.order(Act::Statement(act.clone())).await {
                Ok(_) | Err(Reject::Exists) => return Ok(()),
                Err(Reject::Busy) => tokio::task::yield_now().await,
                Err(reject) => return Err(reject.into()),
            }
        }
    }
}

/// A deposit as it is posted to suspense, because its account may not hold it.
fn without_owner(act: &Act) -> Option<Act> {
    let Act::Deposit(deposit) = act else { return None };
    let Deposit { account, amount, currency, .. } = deposit;
    tracing::warn!(?account, %amount, %currency, "a deposit is beyond its account's limit; it is in suspense");
    Some(Act::Deposit(Deposit { account: None, ..deposit.clone() }))
}

fn count(report: &mut InboxReport, act: &Act) {
    let place = match act {
        Act::Deposit(deposit) if deposit.account.is_some() => &mut report.deposits,
        Act::Deposit(_) => &mut report.suspense,
        Act::Outcome(outcome) => match outcome.outcome {
            PayoutOutcome::Settled => &mut report.settled,
            PayoutOutcome::Returned | PayoutOutcome::Refused => &mut report.returned,
            PayoutOutcome::Confirmed => return,
        },
        Act::Collected(collected) => match collected.word {
            CollectionWord::Booked => &mut report.collected,
            CollectionWord::Returned | CollectionWord::Refused => &mut report.taken_back,
        },
        Act::Debit(debit) if debit.cause == weir_protocol::act::DebitCause::Charge => &mut report.charges,
        _ => &mut report.unexplained,
    };
    *place += 1;
}

/// Whether a message is for this hub.
struct Check {
    account: String,
    currencies: Vec<Currency>,
    wrong_currency: bool,
    spill: Spill,
    /// Whether entries of the present statement were spilled.
    begun: bool,
    /// Why there is no spill: not the fault of what is read.
    failed: Option<io::Error>,
}

impl Check {
    fn spill(&mut self, record: &Record) -> Result<(), ReadError> {
        self.spill.push(record).map_err(|error| {
            self.failed = Some(error);
            ReadError::Refused("its entries cannot be kept".to_owned())
        })
    }

    fn currency(&mut self, currency: &str) -> Result<(), ReadError> {
        let served = currency.parse::<Currency>().is_ok_and(|currency| self.currencies.contains(&currency));
        self.wrong_currency |= !served;
        if served {
            Ok(())
        } else {
            Err(ReadError::Refused(format!("it is in {currency}, which the hub does not serve")))
        }
    }

    fn account(&self, statement: &Statement) -> Result<(), ReadError> {
        if statement.account == self.account {
            Ok(())
        } else {
            Err(ReadError::Refused(format!("it is about account `{}`, not the hub's", statement.account)))
        }
    }
}

impl EntrySink for Check {
    fn entry(&mut self, kind: StatementKind, statement: &Statement, entry: Entry) -> Result<(), ReadError> {
        self.account(statement)?;
        if entry.status == EntryStatus::Booked {
            self.currency(&entry.currency)?;
            let amounts = std::iter::once(entry.amount).chain(entry.details().map(|detail| detail.amount));
            for value in amounts.chain([entry.charged]) {
                let _fits = amount(value).map_err(ReadError::Refused)?;
            }
        }
        if !self.begun {
            self.begun = true;
            self.spill(&Record::Begin(kind, statement.id.clone()))?;
        }
        self.spill(&Record::Entry(Box::new(entry)))
    }

    fn end(&mut self, kind: StatementKind, statement: Statement, booked: u32) -> Result<(), ReadError> {
        self.begun = false;
        self.account(&statement)?;
        if kind == StatementKind::Statement {
            if statement.opening.is_none() || statement.closing.is_none() {
                let what = format!("statement `{}` has no opening or no closing balance (OPBD, CLBD)", statement.id);
                return Err(ReadError::Refused(what));
            }
            for balance in statement.opening.iter().chain(&statement.closing) {
                self.currency(&balance.currency)?;
                let _fits = amount(balance.amount.abs()).map_err(ReadError::Refused)?;
            }
        }
        self.spill(&Record::End(kind, Box::new(statement), booked))
    }
}

/// Reads what was spilled and hands it out in lots. Ends early, without an error, when nobody listens any more.
fn give_out(mut spilled: Spilled, connector: &str, pieces: &mpsc::Sender<Piece>) -> io::Result<()> {
    let (connector, mut statement) = (Arc::<str>::from(connector), Arc::<str>::from(""));
    let (mut kind, mut index) = (StatementKind::Statement, 0);
    let mut lines = Vec::with_capacity(LINES);
    while let Some(record) = spilled.next()? {
        let end = match record {
            Record::Begin(of, id) => {
                (kind, statement, index) = (of, id.into(), 0);
                continue;
            }
            Record::Entry(entry) => {
                lines.push(Line {
                    kind,
                    connector: connector.clone(),
                    statement: statement.clone(),
                    index,
                    entry: *entry,
                });
                index += 1;
                if lines.len() < LINES {
                    continue;
                }
                None
            }
            Record::End(kind, statement, booked) => Some(Piece::End { kind, statement, booked }),
            Record::Finished(_) => continue,
        };
        let lot = std::mem::replace(&mut lines, Vec::with_capacity(LINES));
        let lot = (!lot.is_empty()).then_some(Piece::Lines(lot));
        for piece in lot.into_iter().chain(end) {
            if pieces.blocking_send(piece).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Hashes what is read through it.
struct Hashed {
    input: File,
    hash: Sha256,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.hash.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}
