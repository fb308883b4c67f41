//! The one thread that writes: whatever is queued goes into one frame and one sync, then all of it is answered. It also
//! compacts the log, a page at a time between frames, so that draws wait for one page at most.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use weir_protocol::amount::Time;
use weir_protocol::id::PaymentId;

use super::Reserved;
use super::book::{Book, Waiting};
use super::error::{Closed, CommitError, ReserveError};
use super::log::{Draft, Log, Placing};
use super::record::{BODY_BYTES_MAX, RECORD_BYTES_MAX, Record};
use super::types::{DrawKey, Drawn};

/// Most records of a frame: they fit whatever they are.
pub(super) const BATCH_RECORDS: usize = BODY_BYTES_MAX / RECORD_BYTES_MAX;
/// Balances that are copied under one lock when the log is compacted.
const PAGE_BALANCES: usize = 256;
/// The log is compacted when it is so many times as large as the state.
const COMPACT_TIMES: u64 = 4;

/// While many draw at once, how long a frame waits for more of them: a sync and a wake of the threads that serve cost about as
/// much as a request, and so many share them. One who draws alone never waits.
const GATHER: Duration = Duration::from_micros(500);

/// Who waits for the same request's outcome.
pub(super) type Waiter = oneshot::Sender<Result<Reserved, ReserveError>>;

impl<T> Waiting for oneshot::Sender<T> {
    fn is_gone(&self) -> bool {
        self.is_closed()
    }
}

/// Whom to tell that a record is durable.
pub(super) enum Done {
    /// Nobody: another record follows it.
    Nobody,
    /// A draw.
    Draw { id: PaymentId, key: DrawKey, answer: oneshot::Sender<Result<Drawn, CommitError>> },
    /// Something else about a balance.
    Act { id: PaymentId, answer: Option<oneshot::Sender<Result<(), Closed>>> },
    /// Everything before it.
    All { answer: oneshot::Sender<Result<(), Closed>> },
}

/// What waits to be written.
pub(super) struct Pending {
    pub(super) record: Option<Record>,
    pub(super) done: Done,
}

/// What callers and the writer share. No lock is held while anything is written.
pub(super) struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

pub(super) struct State {
    pub(super) book: Book<Waiter>,
    pub(super) queue: VecDeque<Pending>,
    pub(super) closed: Option<Closed>,
    /// No handle is left: the writer ends when the queue is empty.
    ending: bool,
    /// The writer waits to be woken.
    asleep: bool,
}

impl State {
    pub(super) fn check(&self) -> Result<(), Closed> {
        self.closed.clone().map_or(Ok(()), Err)
    }
}

impl Shared {
    pub(super) fn new(book: Book<Waiter>) -> Self {
        let state = State { book, queue: VecDeque::new(), closed: None, ending: false, asleep: false };
        Self { state: Mutex::new(state), wake: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the writer have what was queued. Takes the lock, so that the writer is not woken into it.
    pub(super) fn wake(&self, mut state: MutexGuard<'_, State>) {
        let asleep = std::mem::replace(&mut state.asleep, false);
        drop(state);
        if asleep {
            self.wake.notify_one();
        }
    }

    /// Lets the writer end when all is written.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ending = true;
        self.wake(state);
    }

    /// What is queued, for one frame. Nothing when there is nothing and `wait` is false; `None` at the end.
    fn take(&self, wait: bool) -> Option<Vec<Pending>> {
        let mut state = self.lock();
        loop {
            if !state.queue.is_empty() {
                let count = state.queue.len().min(BATCH_RECORDS);
                return Some(state.queue.drain(..count).collect());
            }
            if state.ending {
                return None;
            }
            if !wait {
                return Some(Vec::new());
            }
            state.asleep = true;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.asleep = false;
        }
    }

    /// What was taken is durable: it counts now, and everybody hears of it.
    fn finish(&self, batch: Vec<Pending>) {
        let mut draws = Vec::with_capacity(batch.len());
        let mut answers = Vec::new();
        let mut state = self.lock();
        for pending in batch {
            match pending.done {
                Done::Nobody => {}
                Done::Draw { id, key, answer } => {
                    let (drawn, waiters) = state.book.written(id, key);
                    draws.push((answer, drawn, waiters));
                }
                Done::Act { id, answer } => {
                    state.book.settled(id);
                    answers.extend(answer);
                }
                Done::All { answer } => answers.push(answer),
            }
        }
        drop(state);
        // Whoever has gone need not hear it; what he drew is drawn.
        for (answer, drawn, waiters) in draws {
            let _ = answer.send(Ok(drawn));
            tell_again(waiters, drawn);
        }
        for answer in answers {
            let _ = answer.send(Ok(()));
        }
    }

    /// Takes nothing more, and tells everybody who waits. The first reason stays.
    pub(super) fn close(&self, why: &str, batch: Vec<Pending>) {
        let mut state = self.lock();
        let closed = state.closed.get_or_insert_with(|| Closed(why.into())).clone();
        let queue = std::mem::take(&mut state.queue);
        let waiters = state.book.give_up();
        drop(state);
        for pending in batch.into_iter().chain(queue) {
            match pending.done {
                Done::Nobody | Done::Act { answer: None, .. } => {}
                Done::Draw { answer, .. } => drop(answer.send(Err(closed.clone().into()))),
                Done::Act { answer: Some(answer), .. } | Done::All { answer } => drop(answer.send(Err(closed.clone()))),
            }
        }
        for waiter in waiters {
            drop(waiter.send(Err(closed.clone().into())));
        }
    }
}

/// Tells those who waited for a request that it was drawn.
pub(super) fn tell_again(waiters: Vec<Waiter>, drawn: Drawn) {
    for waiter in waiters {
        drop(waiter.send(Ok(Reserved::Again(drawn))));
    }
}

/// However the writer ends, nobody waits for it for ever.
struct CloseAtEnd(Arc<Shared>);

impl Drop for CloseAtEnd {
    fn drop(&mut self) {
        self.0.close("its writer has ended", Vec::new());
    }
}

/// Writes until the store ends or the first failure.
pub(super) fn run(shared: Arc<Shared>, mut log: Log, compact_bytes: u64) {
    let shared = CloseAtEnd(shared);
    let shared = &*shared.0;
    let mut compaction: Option<Compaction> = None;
    // After a compaction that failed, the next is tried when the log has doubled.
    let mut not_below = compact_bytes;
    let mut crowded = false;
    loop {
        if crowded {
            std::thread::sleep(GATHER);
        }
        let mut batch = shared.take(false);
        if batch.as_ref().is_some_and(Vec::is_empty) && compaction.is_none() {
            if let Err(cause) = log.prepare() {
                return fail(shared, &log, "write ahead", &cause.to_string(), Vec::new());
            }
            batch = shared.take(true);
        }
        let Some(batch) = batch else { break };
        crowded = batch.iter().filter(|pending| !matches!(pending.done, Done::Nobody)).count() > 1;
        if !batch.is_empty() {
            if let Err(cause) = log.append(batch.iter().filter_map(|pending| pending.record.as_ref())) {
                return fail(shared, &log, "append to", &cause.to_string(), batch);
            }
            let copied = compaction.as_mut().map(|running| running.copy(shared, &batch));
            shared.finish(batch);
            if let Some(Err(cause)) = copied {
                not_below = give_up(compaction.take(), &log, &cause.to_string());
            }
        }
        match compaction.take() {
            None if log.bytes() >= not_below && log.bytes() / COMPACT_TIMES >= shared.lock().book.log_bytes() => {
                match Compaction::start(shared, &log) {
                    Ok(started) => compaction = Some(started),
                    Err(cause) => not_below = give_up(None, &log, &cause),
                }
            }
            None => {}
            Some(mut running) => match running.step(shared) {
                Ok(false) => compaction = Some(running),
                Err(cause) => not_below = give_up(Some(running), &log, &cause.to_string()),
                Ok(true) => match running.finish(shared) {
                    Ok(placed) => {
                        tracing::debug!(before = log.bytes(), after = placed.bytes(), "compacted the balance log");
                        log = placed;
                        not_below = compact_bytes;
                    }
                    Err(Placing::Failed(error)) => not_below = give_up(None, &log, &error.to_string()),
                    Err(Placing::Unknown(error)) => {
                        return fail(shared, &log, "replace", &error.to_string(), Vec::new());
                    }
                },
            },
        }
    }
    if let Some(running) = compaction {
        running.draft.discard();
    }
}

/// Compacts a log at once, before anybody uses it, if it is so much larger than the state.
pub(super) fn compact_now(shared: &Shared, log: Log, compact_bytes: u64) -> Result<Log, super::BalanceError> {
    if log.bytes() < compact_bytes || log.bytes() / COMPACT_TIMES < shared.lock().book.log_bytes() {
        return Ok(log);
    }
    let compacted = Compaction::start(shared, &log).map_err(Placed::Before).and_then(|mut running| {
        loop {
            match running.step(shared) {
                Ok(false) => {}
                Ok(true) => return running.finish(shared).map_err(Placed::At),
                Err(cause) => {
                    running.draft.discard();
                    return Err(Placed::Before(cause.to_string()));
                }
            }
        }
    });
    match compacted {
        Ok(log) => Ok(log),
        Err(Placed::At(Placing::Unknown(error))) => Err(error),
        Err(Placed::At(Placing::Failed(error))) => {
            give_up(None, &log, &error.to_string());
            Ok(log)
        }
        Err(Placed::Before(cause)) => {
            give_up(None, &log, &cause);
            Ok(log)
        }
    }
}

/// Where a compaction failed.
enum Placed {
    Before(String),
    At(Placing),
}

fn fail(shared: &Shared, log: &Log, verb: &str, cause: &str, batch: Vec<Pending>) {
    let why = format!("cannot {verb} the log in `{}`: {cause}", log.directory().display());
    tracing::error!("the balance store is closed: {why}");
    shared.close(&why, batch);
}

/// Goes on with the log as it is; from which size on to try again.
fn give_up(running: Option<Compaction>, log: &Log, cause: &str) -> u64 {
    tracing::warn!(cause, "cannot compact the balance log, it goes on growing");
    if let Some(running) = running {
        running.draft.discard();
    }
    log.bytes().saturating_mul(2)
}

/// A log that is being written anew: pages of the state, and between them what is written meanwhile about balances of
/// pages before. A page may be ahead of records that follow it, which does no harm: they say where balances stand.
struct Compaction {
    draft: Draft,
    after: Option<(Time, PaymentId)>,
    records: Vec<Record>,
}

impl Compaction {
    fn start(shared: &Shared, log: &Log) -> Result<Self, String> {
        shared.lock().book.forget();
        let draft = Draft::create(log.directory()).map_err(|error| error.to_string())?;
        Ok(Self { draft, after: None, records: Vec::new() })
    }

    /// Adds what was written meanwhile about balances whose page is written.
    fn copy(&mut self, shared: &Shared, batch: &[Pending]) -> std::io::Result<()> {
        self.records.clear();
        let state = shared.lock();
        let written = batch.iter().filter_map(|pending| pending.record);
        self.records.extend(written.filter(|record| state.book.is_past(record, self.after)));
        drop(state);
        self.draft.append(self.records.iter())
    }

    /// Writes a page; whether it was the last.
    fn step(&mut self, shared: &Shared) -> std::io::Result<bool> {
        self.records.clear();
        self.after = shared.lock().book.page(self.after, PAGE_BALANCES, &mut self.records);
        self.draft.append(self.records.iter())?;
        Ok(self.after.is_none())
    }

    fn finish(mut self, shared: &Shared) -> Result<Log, Placing> {
        // At the end: what was forgotten before its page was copied is covered by the floor of now.
        let floor = Record::Floor(shared.lock().book.floor());
        if let Err(cause) = self.draft.append(std::iter::once(&floor)) {
            let error = super::BalanceError::io("write", self.draft.directory())(cause);
            self.draft.discard();
            return Err(Placing::Failed(error));
        }
        self.draft.put_in_place()
    }
}
