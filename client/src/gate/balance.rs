//! What each receipt still buys: the gate's durable store of prepaid balances.
//!
//! A receipt is a prepaid balance, named by its payment id. A request reserves the most that it may cost, then commits
//! what it used, or releases the reservation by dropping it:
//!
//! ```no_run
//! # use weir_client::gate::balance::{Ask, Balances, Credit, Limits, Reserved};
//! # use weir_protocol::amount::{Amount, Time};
//! # async fn tour(credit: Credit, ask: Ask, now: Time, used: Amount) -> Result<(), Box<dyn std::error::Error>> {
//! let balances = Balances::open("gate/balances".as_ref(), Limits::default())?;
//! balances.show(&credit, now)?;
//! match balances.reserve(&ask, now).await? {
//!     Reserved::New(reservation) => {
//!         // Ask the upstream. On every other way out the reservation is dropped, and nothing is charged.
//!         reservation.commit(used, now).await?;
//!     }
//!     Reserved::Again(drawn) => println!("paid before: {}", drawn.drawn),
//! }
//! # Ok(()) }
//! ```
//!
//! - Of one balance never more is drawn, reserved and refunded than was paid.
//! - [`Reservation::commit`] returns when the draw is durable. A crash loses no draw that was answered.
//! - The same request ([`DrawKey`]) of a balance is drawn once: while it is under way others wait for its outcome, and
//!   within its window it is served again, also after a restart.
//! - One process owns a store. After the first failed write it takes nothing more: fail closed.
//!
//! Knows no HTTP and no hub: what it is given was checked, and the time is an argument.
//!
//! # What is forgotten
//! A balance that is used up is forgotten [`Limits::late_ms`] after it was paid, one with something left when it was not
//! used for [`Limits::keep_ms`]. A forgotten receipt must not count as a new one, so the store keeps a floor: payments
//! from before it are taken only if they are still known. Payees who note their credits ([`Balances::note`]) therefore
//! never turn a late reader away. The clock of all this is the newest payment's time, which the hub signed: a wrong clock
//! here forgets nothing.
//!
//! # Files
//! `lock` is held by the process that owns the store. `balances.log` is the truth; `balances.new` is one that is being
//! made, and means nothing. All integers are little-endian, CRC-32 is that of IEEE 802.3 (zlib's).
//!
//! | offset | bytes | header of the log |
//! |---|---|---|
//! | 0 | 8 | `WEIRBAL1` |
//! | 8 | 8 | log id: random, not zero |
//! | 16 | 8 | what lies below this offset was synced before the file got its name |
//! | 24 | 4 | CRC-32 of bytes 0 to 23 |
//! | 28 | 4068 | zeros |
//!
//! Frames follow from byte 4096 on, each at a multiple of 8, without gaps; zeros are written ahead of them:
//!
//! | offset | bytes | frame |
//! |---|---|---|
//! | 0 | 4 | `WBAL` |
//! | 4 | 4 | CRC-32 of everything from byte 8 to the frame's end |
//! | 8 | 8 | log id |
//! | 16 | 8 | number: 1, 2, 3… |
//! | 24 | 4 | length of the body, at most 2^20 |
//! | 28 | 4 | version of the body's format: 2; 1, which had no counted units, is read too |
//! | 32 | length | records in postcard, one behind the other |
//! | | 0–7 | zeros, to a multiple of 8 |
//!
//! A frame is synced before the next one is written, so a power cut can tear the last one only. What lies behind the last
//! whole frame is such a torn tail if no whole frame follows and it is not below the header's offset; it is overwritten
//! with zeros. Everything else is damage and stops the start.
//!
//! Records say where a balance stands, never by how much it changed, so the log is compacted while draws go on: pages of
//! the state, and what is drawn meanwhile from balances of earlier pages, go into `balances.new`, which is synced and renamed.

mod book;
mod error;
mod log;
mod record;
#[cfg(test)]
mod tests;
mod types;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::id::PaymentId;

use self::book::{Book, Step};
pub use self::error::{
    BalanceError, Bound, Closed, CommitError, KeepError, RefundError, ReserveError, ShowError, TooMany,
};
use self::log::Log;
use self::record::Record;
pub use self::types::{
    Ask, BalanceState, BalanceView, Count, Counter, Credit, DrawKey, Drawn, Limits, Load, MAX_COUNTERS, Noted, PageEnd,
    PageEndError, Payment, RefundDraw, Shown, Totals,
};
use self::writer::{Done, Pending, Shared, State};
use crate::home::files::Held;

/// Most entries of one page of a listing.
pub const PAGE_MOST: usize = 1_000;
/// Most credits of one call of [`Balances::note`].
pub const NOTES_MOST: usize = 4_096;

/// The store of prepaid balances. Clones are handles to the same one; it ends with the last handle and reservation.
#[derive(Clone)]
pub struct Balances(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    limits: Limits,
    thread: Option<JoinHandle<()>>,
    /// Held until the writer has ended.
    _lock: Held,
}

/// What a reservation came to.
#[derive(Debug)]
pub enum Reserved {
    /// Go on: so much is reserved.
    New(Reservation),
    /// This very request was drawn before: serve it, charge nothing.
    Again(Drawn),
}

/// Money of a balance that is held for one request. Dropped, it is free again.
#[must_use = "dropped, it releases what was reserved"]
pub struct Reservation {
    balances: Balances,
    payment_id: PaymentId,
    key: DrawKey,
    amount: Amount,
    window_ms: u64,
    /// Whether it is still to be released.
    held: bool,
}

impl Balances {
    /// Opens the store in this folder, made if it is not there, and holds it alone.
    ///
    /// Reads the whole log, and compacts it when much of it is history. A store that another process has open, or whose
    /// log is damaged anywhere but at its torn end, is an error.
    pub fn open(directory: &Path, limits: Limits) -> Result<Self, BalanceError> {
        Self::open_with(directory, limits, |_| {})
    }

    fn open_with(directory: &Path, limits: Limits, change: impl FnOnce(&mut Log)) -> Result<Self, BalanceError> {
        log::create_directory(directory)?;
        let lock = log::hold(directory)?;
        let mut book = Book::new(limits);
        let log = Log::open(directory, &mut |record| book.apply(record))?;
        book.forget();
        let shared = Arc::new(Shared::new(book));
        let mut log = writer::compact_now(&shared, log, limits.compact_bytes)?;
        change(&mut log);
        let thread = std::thread::Builder::new().name("balances".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || writer::run(shared, log, limits.compact_bytes)
        });
        let thread = thread.map_err(BalanceError::io("start the writer of", directory))?;
        Ok(Self(Arc::new(Inner { shared, limits, thread: Some(thread), _lock: lock })))
    }

    // ---- drawing ----------------------------------------------------------------------------------------------------

    /// Registers a receipt that was checked. Shown again, it is found again; with other facts it is an error.
    ///
    /// In memory only: it is durable with its first draw, and shown again after a crash it is new again. See
    /// [`Self::persist`].
    pub fn show(&self, credit: &Credit, now: Time) -> Result<Shown, ShowError> {
        let mut state = self.0.shared.lock();
        state.check()?;
        state.book.show(credit, now)
    }

    /// Reserves the most that a request may cost.
    ///
    /// When the same request is under way this waits for its outcome, however long that takes: committed, both were drawn
    /// once; released, one of those who wait has the reservation. Cancel-safe.
    pub async fn reserve(&self, ask: &Ask, now: Time) -> Result<Reserved, ReserveError> {
        let mut waiting = None;
        let step = {
            let mut state = self.0.shared.lock();
            state.check()?;
            state.book.reserve(ask, now, || {
                let (sender, receiver) = oneshot::channel();
                waiting = Some(receiver);
                sender
            })?
        };
        match (step, waiting) {
            (Step::Again(drawn), _) => Ok(Reserved::Again(drawn)),
            (Step::Wait, Some(outcome)) => outcome.await.unwrap_or_else(|_| Err(self.closed().into())),
            (Step::New | Step::Wait, _) => {
                Ok(Reserved::New(self.reservation(ask.payment_id, ask.key, ask.max, ask.window_ms)))
            }
        }
    }

    fn reservation(&self, payment_id: PaymentId, key: DrawKey, amount: Amount, window_ms: u64) -> Reservation {
        Reservation { balances: self.clone(), payment_id, key, amount, window_ms, held: true }
    }

    fn closed(&self) -> Closed {
        let closed = self.0.shared.lock().closed.clone();
        closed.unwrap_or_else(|| Closed("its writer has ended".into()))
    }

    /// Makes a balance durable before it is drawn from. Returns when it is.
    pub async fn persist(&self, payment_id: PaymentId) -> Result<(), KeepError> {
        let answer = {
            let mut state = self.0.shared.lock();
            self.room::<KeepError>(&state, 1)?;
            let record = state.book.persist(payment_id)?;
            self.queue_act(state, payment_id, None, record)
        };
        Ok(self.heard(answer).await?)
    }

    // ---- credits and refunds ----------------------------------------------------------------------------------------

    /// Notes payments to the payee that the hub has told of, at most [`NOTES_MOST`]. Returns when they are durable: a
    /// cursor may be acknowledged then. Noted or shown before, they stay as they are.
    ///
    /// Payments that are too old to tell whether they were used and forgotten are left out, and counted. After an error
    /// the same call may be made again.
    pub async fn note(&self, payments: &[Payment]) -> Result<Noted, KeepError> {
        let mut noted = Noted::default();
        let answer = {
            let mut state = self.0.shared.lock();
            if payments.len() > NOTES_MOST {
                return Err(TooMany { what: Bound::Queued, limit: NOTES_MOST }.into());
            }
            self.room::<KeepError>(&state, payments.len() + 1)?;
            let mut failed = None;
            for payment in payments {
                match state.book.note(payment) {
                    Ok(book::Note::New(record)) => {
                        noted.new += 1;
                        let done = Done::Act { id: payment.payment_id(), answer: None };
                        state.queue.push_back(Pending { record: Some(record), done });
                    }
                    Ok(book::Note::Known) => noted.known += 1,
                    Ok(book::Note::TooOld) => noted.too_old += 1,
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            // Also when all were known: they may still be on their way.
            let (answer, receiver) = oneshot::channel();
            state.queue.push_back(Pending { record: None, done: Done::All { answer } });
            self.0.shared.wake(state);
            if let Some(error) = failed {
                return Err(error);
            }
            receiver
        };
        self.heard(answer).await?;
        Ok(noted)
    }

    /// Takes everything that is free of a balance, to be refunded. Returns when that is durable: only then may the hub be
    /// told.
    ///
    /// As long as the refund is neither confirmed nor restored, the same one is handed out again, also after a crash: the
    /// hub's act is cumulative, so sending it again refunds nothing twice.
    pub async fn withdraw_for_refund(&self, payment_id: PaymentId) -> Result<RefundDraw, RefundError> {
        self.withdraw(payment_id, false).await
    }

    /// The same of a payment whose receipt was never shown, and nothing of any other.
    pub async fn withdraw_unshown_for_refund(&self, payment_id: PaymentId) -> Result<RefundDraw, RefundError> {
        self.withdraw(payment_id, true).await
    }

    async fn withdraw(&self, payment_id: PaymentId, only_unshown: bool) -> Result<RefundDraw, RefundError> {
        let (refund, answer) = {
            let mut state = self.0.shared.lock();
            self.room::<RefundError>(&state, 2)?;
            let (refund, standing, record) = state.book.withdraw(payment_id, only_unshown)?;
            (refund, self.queue_act(state, payment_id, standing, record))
        };
        self.heard(answer).await?;
        Ok(refund)
    }

    /// Notes that the hub took the refund up to this total.
    pub async fn confirm_refund(&self, payment_id: PaymentId, refunded_total: Amount) -> Result<(), RefundError> {
        self.end_refund(payment_id, refunded_total, true).await
    }

    /// Frees the money of a refund that the hub refused for good. Never call it while the outcome is unknown: what was
    /// refunded could be drawn again.
    pub async fn restore_refund(&self, payment_id: PaymentId, refunded_total: Amount) -> Result<(), RefundError> {
        self.end_refund(payment_id, refunded_total, false).await
    }

    async fn end_refund(&self, payment_id: PaymentId, total: Amount, confirmed: bool) -> Result<(), RefundError> {
        let answer = {
            let mut state = self.0.shared.lock();
            self.room::<RefundError>(&state, 1)?;
            let record = state.book.end_refund(payment_id, total, confirmed)?;
            self.queue_act(state, payment_id, None, record)
        };
        Ok(self.heard(answer).await?)
    }

    /// Whether so many records more may be queued.
    fn room<E: From<Closed> + From<TooMany>>(&self, state: &State, records: usize) -> Result<(), E> {
        state.check()?;
        let limit = self.0.limits.most_queued;
        if state.queue.len() + records > limit { Err(TooMany { what: Bound::Queued, limit }.into()) } else { Ok(()) }
    }

    fn queue_act(
        &self,
        mut state: std::sync::MutexGuard<'_, State>,
        id: PaymentId,
        standing: Option<Record>,
        record: Record,
    ) -> oneshot::Receiver<Result<(), Closed>> {
        let (answer, receiver) = oneshot::channel();
        if standing.is_some() {
            state.queue.push_back(Pending { record: standing, done: Done::Nobody });
        }
        state.queue.push_back(Pending { record: Some(record), done: Done::Act { id, answer: Some(answer) } });
        self.0.shared.wake(state);
        receiver
    }

    async fn heard(&self, answer: oneshot::Receiver<Result<(), Closed>>) -> Result<(), Closed> {
        answer.await.unwrap_or_else(|_| Err(self.closed()))
    }

    // ---- looking ----------------------------------------------------------------------------------------------------

    /// One balance.
    pub fn balance(&self, payment_id: PaymentId) -> Option<BalanceView> {
        self.0.shared.lock().book.view(payment_id)
    }

    /// Units of a balance that requests have used under a counter so far.
    pub fn units(&self, payment_id: PaymentId, counter: Counter) -> u64 {
        self.0.shared.lock().book.units(payment_id, counter)
    }

    /// The balances after a place, by time of payment; at most so many, and never more than [`PAGE_MOST`]. The next page
    /// begins after the last one's [`BalanceView::page_end`].
    pub fn list(&self, after: PageEnd, most: usize) -> Vec<BalanceView> {
        self.0.shared.lock().book.list(after, most.min(PAGE_MOST))
    }

    /// The same of the credits that were noted, paid before a time, never shown, and not refunded.
    pub fn never_shown(&self, paid_before: Time, after: PageEnd, most: usize) -> Vec<BalanceView> {
        self.0.shared.lock().book.never_shown(paid_before, after, most.min(PAGE_MOST))
    }

    /// Refunds that are neither confirmed nor restored, by payment id, after one: send them to the hub again.
    pub fn unconfirmed_refunds(&self, after: Option<PaymentId>, most: usize) -> Vec<RefundDraw> {
        self.0.shared.lock().book.refunds(after, most.min(PAGE_MOST))
    }

    /// The sums of each currency.
    pub fn totals(&self) -> Vec<(Currency, Totals)> {
        self.0.shared.lock().book.totals()
    }

    /// Its bounds.
    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    /// How much the store is at work, and whether it is closed.
    pub fn load(&self) -> Load {
        let state = self.0.shared.lock();
        Load { queued: state.queue.len(), closed: state.closed.is_some(), ..state.book.load() }
    }

    /// Fails the store, as a disk would.
    #[cfg(test)]
    pub(in crate::gate) fn fail(&self, why: &str) {
        self.0.shared.close(why, Vec::new());
    }

    /// Why the store takes nothing more; none: it does.
    pub fn closed_because(&self) -> Option<Closed> {
        self.0.shared.lock().closed.clone()
    }
}

impl Reservation {
    /// The balance.
    pub const fn payment_id(&self) -> PaymentId {
        self.payment_id
    }

    /// What is reserved.
    pub const fn amount(&self) -> Amount {
        self.amount
    }

    /// Draws what was used, at most what is reserved; the rest is free again. Returns when the draw is durable.
    ///
    /// Nothing used draws nothing, and is remembered for the window. Dropped before it is first polled, nothing is drawn;
    /// after that the draw counts, whether or not anybody waits for it.
    pub async fn commit(self, used: Amount, now: Time) -> Result<Drawn, CommitError> {
        self.commit_with(|_| used, None, now).await
    }

    /// The same for units whose price hangs on how many the balance has used before: `cost` is told that number, and says
    /// what to draw. Which of two requests is the earlier one is decided here, so that no unit is in two steps. The units
    /// are counted with the draw, and survive with it.
    pub async fn commit_counted(
        self,
        count: Count,
        cost: impl FnOnce(u64) -> Amount,
        now: Time,
    ) -> Result<Drawn, CommitError> {
        self.commit_with(cost, Some(count), now).await
    }

    async fn commit_with(
        mut self,
        cost: impl FnOnce(u64) -> Amount,
        count: Option<Count>,
        now: Time,
    ) -> Result<Drawn, CommitError> {
        match self.hand_over(cost, count, now)? {
            Handed::Written(drawn) => Ok(drawn),
            Handed::Queued(answer) => answer.await.unwrap_or_else(|_| Err(self.balances.closed().into())),
        }
    }

    fn hand_over(
        &mut self,
        cost: impl FnOnce(u64) -> Amount,
        count: Option<Count>,
        now: Time,
    ) -> Result<Handed, CommitError> {
        let (id, key) = (self.payment_id, self.key);
        let shared = &self.balances.0.shared;
        let mut state = shared.lock();
        state.check()?;
        let used = cost(count.map_or(0, |count| state.book.units(id, count.counter)));
        let Some(committed) = state.book.commit(id, key, used, count, self.window_ms, now) else {
            return Err(CommitError::MoreThanReserved { used, reserved: self.amount });
        };
        self.held = false;
        let [standing, Some(draw)] = committed.records else {
            let (drawn, waiters) = state.book.written(id, key);
            drop(state);
            writer::tell_again(waiters, drawn);
            return Ok(Handed::Written(drawn));
        };
        if standing.is_some() {
            state.queue.push_back(Pending { record: standing, done: Done::Nobody });
        }
        let (answer, receiver) = oneshot::channel();
        state.queue.push_back(Pending { record: Some(draw), done: Done::Draw { id, key, answer } });
        shared.wake(state);
        Ok(Handed::Queued(receiver))
    }

    /// Releases it; the same as dropping it.
    pub fn release(self) {}
}

/// What became of a draw that was handed over.
enum Handed {
    /// There was nothing to write.
    Written(Drawn),
    Queued(oneshot::Receiver<Result<Drawn, CommitError>>),
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // Given on to the first who waits and is still there. In a loop: each who has gone meanwhile gives it back.
        while std::mem::replace(&mut self.held, false) {
            let handed = self.balances.0.shared.lock().book.release(self.payment_id, self.key);
            for (waiter, error) in handed.refused {
                let _ = waiter.send(Err(error));
            }
            let Some((waiter, amount, window_ms)) = handed.to else { return };
            let next = self.balances.reservation(self.payment_id, self.key, amount, window_ms);
            if let Err(Ok(Reserved::New(mut next))) = waiter.send(Ok(Reserved::New(next))) {
                next.held = false;
                self.held = true;
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.end();
        if let Some(thread) = self.thread.take() {
            // What it had to say, it has told those who waited.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Balances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Balances").field(&self.load()).finish()
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { payment_id, key, amount, .. } = self;
        f.debug_struct("Reservation").field("payment_id", payment_id).field("key", key).field("amount", amount).finish()
    }
}
