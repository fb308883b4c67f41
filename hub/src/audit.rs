//! Recomputes everything from the journal alone: the chain of commits, every signature, every lane, every ledger account;
//! and compares what is derived from it: snapshots, ids, the anchor. Writes nothing; works beside a running hub, up to the
//! last commit that is whole when it begins.
//!
//! One thread reads, decodes and checks the bytes; the other judges. A journal that trips an assertion is broken, not a
//! bug of the audit.

pub mod report;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use weir_protocol::act::{Act, Refund};
use weir_protocol::id::HubId;
use weir_protocol::payment::payment_id;

pub use report::{CommitRow, FirstError, Report, SumsRow, Verdict, sums};

use crate::engine::record::{ItemRecord, Record, RefundContext};
use crate::engine::state::{Depth, State};
use crate::pipeline::compact::ReplayError;
use crate::store::anchor::{AnchorRecord, AnchorState};
use crate::store::ids::Ids;
use crate::store::journal::JournalReader;
use crate::store::snapshot::Snapshots;
use crate::store::{Entry, StoreError};

/// Commits that are decoded ahead of being judged.
const AHEAD: usize = 64;
/// Ids that are read from the file of ids at a time.
const IDS_AT_A_TIME: u64 = 4096;

/// What to audit.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The data directory.
    pub data: &'a Path,
    /// Whose commits they must be.
    pub hub: HubId,
    /// The anchor's file, if there is one.
    pub anchor: Option<&'a Path>,
}

/// Why there is no result: the audit could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The snapshot that stands for pruned commits cannot be used.
    #[error(transparent)]
    Base(#[from] ReplayError),
    /// Older commits are pruned, and no snapshot stands for them.
    #[error("the journal begins at commit {first}, and no whole snapshot stands for what came before")]
    NoBase {
        /// The first commit kept.
        first: u64,
    },
    /// A thread cannot be made.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// The journal of a data directory; `None` before the hub's first start.
pub fn journal_of(data: &Path) -> Result<Option<JournalReader>, StoreError> {
    let directory = data.join("journal");
    if directory.is_dir() { JournalReader::open(&directory).map(Some) } else { Ok(None) }
}

/// Audits a data directory. `progress` hears the number of the commit that was judged, and of the last one.
pub fn audit(subject: Subject<'_>, progress: &mut dyn FnMut(u64, u64)) -> Result<Report, AuditError> {
    // The anchor comes first: a running hub may move it on beyond the last commit that is looked at here.
    let anchor = subject.anchor.map(AnchorRecord::read).transpose()?.flatten();
    let mut run = Run::begin(subject)?;
    if let Some(journal) = journal_of(subject.data)? {
        run.journal(&journal, progress)?;
    }
    run.check_snapshots_ahead()?;
    run.check_anchor(anchor)?;
    Ok(run.report())
}

/// A commit as the reading thread hands it on.
type Decoded = Result<(Entry, Record), FirstError>;

struct Run<'a> {
    subject: Subject<'a>,
    state: State,
    from: u64,
    payments: u64,
    refunds: u64,
    snapshots: Snapshots,
    /// Snapshots that are still to be compared.
    due: Vec<u64>,
    /// The last commit that was found right.
    head: Option<CommitRow>,
    compared: Vec<u64>,
    notes: Vec<String>,
    error: Option<FirstError>,
    /// Whether a broken commit was applied, or a part of it: the sums are nobody's then.
    torn: bool,
}

impl<'a> Run<'a> {
    fn begin(subject: Subject<'a>) -> Result<Self, AuditError> {
        let snapshots = Snapshots::new(subject.data.join("snapshots"));
        let due = snapshots.numbers()?;
        Ok(Self {
            subject,
            state: State::new(subject.hub),
            from: 1,
            payments: 0,
            refunds: 0,
            snapshots,
            due,
            head: None,
            compared: Vec::new(),
            notes: Vec::new(),
            error: None,
            torn: false,
        })
    }

    fn journal(&mut self, journal: &JournalReader, progress: &mut dyn FnMut(u64, u64)) -> Result<(), AuditError> {
        let last = match journal.last() {
            Ok(last) => last.map_or(0, |last| last.number),
            Err(error) => return self.damaged(error),
        };
        if let Some(first) = journal.first()?.filter(|first| *first > 1) {
            self.believe_base(first)?;
        }
        let recent = recent(journal)?;
        let ids = IdFile::open(&self.subject.data.join("ids"), recent);
        let from = self.from;
        let scanned = std::thread::scope(|scope| {
            let (sender, decoded) = sync_channel(AHEAD);
            let reading = std::thread::Builder::new().name("audit-read".into());
            let reading = reading.spawn_scoped(scope, move || read(journal, from, last, &sender));
            let reading = reading.map_err(AuditError::Thread)?;
            self.judge(journal, decoded, ids, last, progress)?;
            // The channel is closed by now, so the thread ends; it only panics if the store does.
            Ok::<_, AuditError>(reading.join().unwrap_or(Ok(())))
        })?;
        match scanned {
            Ok(()) => Ok(()),
            Err(error) => self.damaged(error),
        }
    }

    /// Damage is a result; anything else is a failure of the audit.
    fn damaged(&mut self, error: StoreError) -> Result<(), AuditError> {
        match error {
            StoreError::Damaged { number, .. } => {
                self.blame(number, error.to_string());
                Ok(())
            }
            error => Err(error.into()),
        }
    }

    fn blame(&mut self, commit: u64, what: String) {
        self.error.get_or_insert(FirstError { commit, what });
    }

    /// Older commits are pruned: the oldest snapshot that leads up to the journal stands for them.
    fn believe_base(&mut self, first: u64) -> Result<(), AuditError> {
        for number in self.due.iter().copied().filter(|number| *number + 1 >= first) {
            let Some(state) = self.decode_snapshot(number)? else { continue };
            self.head = state.last().map(CommitRow::from);
            self.state = state;
            self.from = number + 1;
            self.due.retain(|due| *due > number);
            self.notes.push(format!("commits before {first} are pruned; the snapshot at commit {number} was believed"));
            return Ok(());
        }
        Err(AuditError::NoBase { first })
    }

    fn decode_snapshot(&self, number: u64) -> Result<Option<State>, AuditError> {
        let Some(bytes) = self.snapshot_bytes(number)? else { return Ok(None) };
        let state = State::decode(&bytes).ok_or(ReplayError::Snapshot(number))?;
        Ok(Some(state))
    }

    fn snapshot_bytes(&self, number: u64) -> Result<Option<Vec<u8>>, AuditError> {
        let Some(mut snapshot) = self.snapshots.read(number)? else { return Ok(None) };
        let mut bytes = Vec::new();
        snapshot.state.read_to_end(&mut bytes).map_err(|source| StoreError::Io {
            doing: "read",
            path: self.subject.data.join("snapshots"),
            source,
        })?;
        Ok(Some(bytes))
    }

    fn judge(
        &mut self,
        journal: &JournalReader,
        decoded: Receiver<Decoded>,
        mut ids: IdFile,
        last: u64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), AuditError> {
        for item in decoded {
            let (entry, record) = match item {
                Ok(item) => item,
                Err(FirstError { commit, what }) => {
                    self.blame(commit, what);
                    return Ok(());
                }
            };
            let number = entry.position.number;
            let judged = self.commit(journal, &record)?.and_then(|()| ids.check(&entry));
            if let Err(what) = judged {
                self.torn = true;
                self.blame(number, what);
                return Ok(());
            }
            self.head = Some(CommitRow::from(record.header()));
            self.payments += record.payments();
            self.check_snapshot(number)?;
            progress(number, last);
            if self.error.is_some() {
                return Ok(());
            }
        }
        self.notes.append(&mut ids.notes);
        Ok(())
    }

    /// Judges one commit. The outer error: the audit fails; the inner one: the commit is broken.
    fn commit(&mut self, journal: &JournalReader, record: &Record) -> Result<Result<(), String>, AuditError> {
        let state = &mut self.state;
        // The engine asserts what no input may reach. A journal that was tampered with is not an input of the hub.
        let applied = catch_unwind(AssertUnwindSafe(|| state.apply(record, Depth::Everything)));
        match applied {
            Ok(Ok(())) => {}
            Ok(Err(broken)) => return Ok(Err(broken.what)),
            Err(panic) => return Ok(Err(format!("it trips an assertion: {}", panic_text(panic.as_ref())))),
        }
        for (index, act) in record.acts() {
            let (Act::Refund(refund), Some(context)) = (&act.act, &act.context) else { continue };
            if refund.commit < self.from {
                self.notes.push(format!("a refund refers to commit {}, which is pruned", refund.commit));
                continue;
            }
            if let Err(what) = self.refund(journal, record, refund, context)? {
                return Ok(Err(format!("item {index} is a refund {what}")));
            }
            self.refunds += 1;
        }
        Ok(Ok(()))
    }

    /// Whether what a refund was judged by is what the journal says of the payment.
    fn refund(
        &self,
        journal: &JournalReader,
        record: &Record,
        refund: &Refund,
        context: &RefundContext,
    ) -> Result<Result<(), String>, AuditError> {
        let read;
        let paid_in = if refund.commit == record.header().number {
            record
        } else {
            let entry = journal.read(refund.commit)?;
            let Some(found) = entry.and_then(|entry| Record::decode(&entry.payload).ok()) else {
                return Ok(Err(format!("of a payment in commit {}, which is not there", refund.commit)));
            };
            read = found;
            &read
        };
        let header = paid_in.header();
        let Some(ItemRecord::Group(group)) = paid_in.items.get(refund.group as usize) else {
            return Ok(Err("of something that is no group".into()));
        };
        let Some((sequence, payment)) = group.payments().nth(refund.leaf as usize) else {
            return Ok(Err("of a payment that its group does not have".into()));
        };
        let payer = self.state.channels().lane(&group.lane).map(|(channel, _, _)| channel.account());
        let expected = RefundContext {
            lane: group.lane,
            payer: payer.unwrap_or(context.payer),
            payee: payment.payee,
            currency: group.currency,
            paid: payment.amount,
            paid_at: header.time,
        };
        let fits = header.chain == refund.chain
            && payment_id(&group.lane, sequence) == refund.payment_id
            && payer.is_some()
            && *context == expected;
        Ok(if fits { Ok(()) } else { Err("that was judged by something else than the payment".into()) })
    }

    /// Compares a snapshot at this commit with the state.
    fn check_snapshot(&mut self, number: u64) -> Result<(), AuditError> {
        if self.due.first() != Some(&number) {
            return Ok(());
        }
        self.due.remove(0);
        let written = match self.snapshot_bytes(number) {
            Err(AuditError::Store(StoreError::Io { source, .. })) if source.kind() == std::io::ErrorKind::NotFound => {
                // A running hub has written a newer one in the meantime.
                return Ok(());
            }
            other => other?,
        };
        let Some(written) = written else {
            self.notes.push(format!("the snapshot at commit {number} is damaged; a start passes over it"));
            return Ok(());
        };
        let state = core::mem::replace(&mut self.state, State::new(self.subject.hub));
        let recomputed = state.encode();
        let decoded = State::decode(&recomputed);
        if recomputed == written
            && let Some(state) = decoded
        {
            self.state = state;
            self.compared.push(number);
        } else {
            self.state = decoded.unwrap_or_else(|| State::new(self.subject.hub));
            self.blame(number, "its snapshot holds another state than the journal gives".into());
        }
        Ok(())
    }

    /// A snapshot proves that its commit was durable.
    fn check_snapshots_ahead(&mut self) -> Result<(), AuditError> {
        let last = self.state.last().map_or(0, |last| last.number);
        let ahead = self.due.iter().copied().find(|number| *number > last);
        if let Some(number) = ahead
            && self.error.is_none()
            && self.snapshots.numbers()?.contains(&number)
        {
            self.blame(number, format!("there is a snapshot of it, but the journal ends at commit {last}"));
        }
        Ok(())
    }

    fn check_anchor(&mut self, anchor: Option<AnchorRecord>) -> Result<(), AuditError> {
        let (Some(anchor), None) = (anchor, &self.error) else { return Ok(()) };
        let last = self.state.last().map(|last| crate::store::Position {
            chain: last.chain,
            number: last.number,
            id: last.id().0,
        });
        let journal = journal_of(self.subject.data)?;
        let id_of = |number| {
            let entry = journal.as_ref().map(|journal| journal.read(number)).transpose()?.flatten();
            Ok(entry.map(|entry| entry.position.id))
        };
        // A pruned commit cannot be compared; the ids of later ones lead up to it.
        if anchor.number > 0 && anchor.number < self.from {
            return Ok(());
        }
        match anchor.check(self.subject.hub.key().0, last, id_of)? {
            AnchorState::Absent | AnchorState::Same => {}
            AnchorState::Behind { last, anchor } => {
                self.blame(anchor, format!("the anchor knows it, but the journal ends at commit {last}: an old copy"));
            }
            AnchorState::Diverged { number } => {
                self.blame(number, "the anchor knows another commit of that number".into());
            }
            AnchorState::Foreign { .. } => self.blame(anchor.number, "the anchor is another hub's".into()),
        }
        Ok(())
    }

    fn report(self) -> Report {
        let head = self.head;
        Report {
            audit: if self.error.is_some() { Verdict::Broken } else { Verdict::Clean },
            hub: self.subject.hub,
            commits: head.map_or(0, |head| head.number),
            from: self.from,
            payments: self.payments,
            head,
            sums: if self.torn { BTreeMap::new() } else { sums(self.state.books().ledger()) },
            refunds: self.refunds,
            snapshots: self.compared,
            notes: self.notes,
            first_error: self.error,
        }
    }
}

/// Reads and decodes commits, and checks that each is what its entry says, in its one form.
fn read(journal: &JournalReader, from: u64, last: u64, sender: &SyncSender<Decoded>) -> Result<(), StoreError> {
    journal.scan(from, &mut |entry| {
        let number = entry.position.number;
        if number > last {
            return ControlFlow::Break(());
        }
        let decoded = match decode(&entry) {
            Ok(record) => Ok((entry, record)),
            Err(what) => Err(FirstError { commit: number, what }),
        };
        // Whoever judges may have found enough.
        if sender.send(decoded).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
}

fn decode(entry: &Entry) -> Result<Record, String> {
    let record = Record::decode(&entry.payload).map_err(|error| error.to_string())?;
    let header = record.header();
    let named = (header.chain, header.number, header.id().0);
    if named != (entry.position.chain, entry.position.number, entry.position.id) {
        return Err("its header is not the one that was journaled".into());
    }
    if record.encode() != entry.payload {
        return Err("its bytes are not in their one form".into());
    }
    Ok(record)
}

/// The first commit of the last segment but one: ids from there on are repaired by a start and need not be right now.
fn recent(journal: &JournalReader) -> Result<u64, StoreError> {
    let spans = journal.segments()?;
    Ok(spans.iter().rev().nth(1).or(spans.first()).map_or(1, |span| span.first))
}

/// The file of ids, read in step with the journal. It is derived, so that what is missing is a note.
struct IdFile {
    path: PathBuf,
    ids: Option<Ids>,
    recent: u64,
    page: Vec<[u8; 32]>,
    page_from: u64,
    notes: Vec<String>,
}

impl IdFile {
    fn open(path: &Path, recent: u64) -> Self {
        let opened = Ids::open_read_only(path);
        let notes = opened.as_ref().err().map(|_| "there is no file of commit ids; a start makes it again".to_owned());
        Self {
            path: path.to_owned(),
            ids: opened.ok(),
            recent,
            page: Vec::new(),
            page_from: 1,
            notes: notes.into_iter().collect(),
        }
    }

    fn check(&mut self, entry: &Entry) -> Result<(), String> {
        let number = entry.position.number;
        let Some(ids) = &self.ids else { return Ok(()) };
        if number < self.page_from || number >= self.page_from + self.page.len() as u64 {
            self.page_from = number;
            self.page = ids.read(number..number.saturating_add(IDS_AT_A_TIME)).map_err(|error| error.to_string())?;
        }
        let known = self.page.get((number - self.page_from) as usize);
        match known {
            Some(id) if *id == entry.position.id => Ok(()),
            // A running hub is a step ahead of what was opened, a killed one may have left it behind.
            None => Ok(()),
            Some(_) if number >= self.recent => {
                self.notes
                    .push(format!("`{}` is wrong from commit {number} on; a start repairs it", self.path.display()));
                self.ids = None;
                Ok(())
            }
            Some(_) => Err(format!("`{}` has another id for it", self.path.display())),
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown")
}
