//! The wallet and the budget on disk: one log in the home, shared by all its processes.
//!
//! ```text
//! fetch/lock           held while a process reads on or writes
//! fetch/purchases.log  a line a record: CRC-32 in hex, a space, JSON
//! ```
//!
//! A purchase is written and synced before its payment is signed: it counts for the budget from then on, and a crash
//! leaves a record that is settled before anything else is paid for the same resource. What comes after is not synced: the
//! receipt is in the lane's log, and what is left the gate tells again. A torn last line was never acted on and is cut; a
//! damaged one before it stops, since the budget would forget what was spent. When most of the log is over it is written
//! anew. Must not pay and knows no HTTP.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::http::Payload;
use weir_protocol::id::Reference;

use super::budget::{Budget, BudgetError, Held, Limits, Spend};
use super::wallet::{Purchase, Wallet, WalletFull};
use crate::error::HomeError;

/// A log of this size is written anew when most of it is over.
const COMPACT_FROM: u64 = 1 << 20;
/// No line is longer: a purchase with its credential is about 6 KB.
const MAX_LINE: usize = 64 * 1024;
const FORMAT: &str = "weir-purchases/1";

/// Why a purchase does not begin. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// A limit is in the way.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// There is no room.
    #[error(transparent)]
    Full(#[from] WalletFull),
    /// The files.
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// Purchases and budget of a home. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    log: PathBuf,
    lock: PathBuf,
    file: Option<File>,
    /// Which writing of the log is open: a newer one has another.
    writing: u64,
    /// Read up to here.
    read: u64,
    /// Its size when it was last written anew.
    compacted: u64,
    state: State,
    /// The budget as it was at the start, for reading everything again.
    limits: (BTreeMap<Currency, Limits>, u64),
}

/// What the records come to.
#[derive(Debug)]
struct State {
    wallet: Wallet,
    budget: Budget,
    /// Of the purchases whose outcome is open.
    held: HashMap<Reference, Held>,
    /// Those that this process began.
    own: HashSet<Reference>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    /// The first line.
    Format { name: String, writing: u64 },
    /// A purchase begins: it counts.
    Begin(Box<Purchase>),
    /// A purchase that was kept when the log was written anew: it counted before.
    Kept(Box<Purchase>),
    /// It is paid.
    Paid { reference: Reference, payload: Payload },
    /// What the gate said is left.
    Left { reference: Reference, left: Amount, served: bool },
    /// Nothing was paid, for good.
    Unpaid { reference: Reference },
    /// It is not kept any more; what was paid was paid.
    Gone { reference: Reference },
    /// What was spent in a period, when the log was written anew.
    Spent { period: u64, host: String, currency: Currency, amount: Amount },
}

impl Store {
    /// Opens the purchases of a home, with the limits of this process. A period is so many milliseconds.
    pub fn open(home: &Path, limits: BTreeMap<Currency, Limits>, period_ms: u64) -> Result<Self, HomeError> {
        let folder = home.join("fetch");
        if !folder.is_dir() {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true);
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.create(&folder).map_err(|cause| fault("create", &folder, cause))?;
            sync_folder(home)?;
        }
        let state = State {
            wallet: Wallet::default(),
            budget: Budget::new(limits.clone(), period_ms),
            held: HashMap::new(),
            own: HashSet::new(),
        };
        let mut inner = Inner {
            log: folder.join("purchases.log"),
            lock: folder.join("lock"),
            file: None,
            writing: 0,
            read: 0,
            compacted: 0,
            state,
            limits: (limits, period_ms),
        };
        let guard = inner.lock()?;
        inner.catch_up()?;
        drop(guard);
        Ok(Self { inner: Arc::new(Mutex::new(inner)) })
    }

    /// Looks at the wallet as this process knows it. Waits for nobody.
    pub fn wallet<T>(&self, look: impl FnOnce(&mut Wallet) -> T) -> T {
        look(&mut self.guard().state.wallet)
    }

    /// Looks at the budget as this process knows it.
    pub fn budget<T>(&self, look: impl FnOnce(&Budget) -> T) -> T {
        look(&self.guard().state.budget)
    }

    /// Reads what other processes of the home wrote.
    pub fn refresh(&self) -> Result<(), HomeError> {
        let mut inner = self.guard();
        let guard = inner.lock()?;
        inner.catch_up()?;
        drop(guard);
        Ok(())
    }

    /// Begins a purchase: reserves its amount in the budget and keeps it; durable when it returns. Then it may be paid. It
    /// is held by this request in the wallet.
    pub fn begin(&self, mut purchase: Purchase, now: Time) -> Result<(), BeginError> {
        let mut inner = self.guard();
        let guard = inner.lock()?;
        inner.catch_up()?;
        let spend = Spend {
            host: purchase.target.host().to_owned(),
            currency: purchase.currency,
            price: purchase.price,
            amount: purchase.amount,
        };
        let crowded = inner.state.wallet.crowded()?;
        let held = inner.state.budget.reserve(now, &spend)?;
        purchase.period = held.period;
        let mut lines = Vec::new();
        if let Some(reference) = crowded {
            lines.push(Record::Gone { reference });
        }
        lines.push(Record::Begin(Box::new(purchase.clone())));
        if let Err(error) = inner.append(&lines, true) {
            inner.state.budget.release(&held);
            return Err(error.into());
        }
        if let Some(reference) = crowded {
            inner.state.wallet.remove(&reference);
        }
        let reference = purchase.reference;
        inner.state.held.insert(reference, held);
        inner.state.own.insert(reference);
        inner.state.wallet.keep(purchase);
        inner.state.wallet.hold(reference, Amount::ZERO);
        drop(guard);
        Ok(())
    }

    /// The payment was made, and this proves it.
    pub fn paid(&self, reference: Reference, payload: Payload) -> Result<(), HomeError> {
        self.write(Record::Paid { reference, payload })
    }

    /// Nothing was paid and nothing ever will be: the amount is free again.
    pub fn unpaid(&self, reference: Reference) -> Result<(), HomeError> {
        self.write(Record::Unpaid { reference })
    }

    /// What the gate said about a purchase.
    pub fn left(&self, reference: Reference, left: Amount, served: bool) -> Result<(), HomeError> {
        self.write(Record::Left { reference, left, served })
    }

    /// A metered answer has ended: so much of what its head had taken is free again, and the gate says that `stated` is left.
    /// What is left by that; none: the purchase is not kept.
    ///
    /// The gate's word alone would not do. It was given when the answer ended, and requests that began since have taken their
    /// part; so what they took stays taken, and only this answer's own part comes back.
    pub fn returned(&self, reference: Reference, unused: Amount, stated: Amount) -> Result<Option<Amount>, HomeError> {
        self.write_with(|state| {
            let purchase = state.wallet.get(&reference)?;
            let back = purchase.left.checked_add(unused).unwrap_or(Amount::MAX);
            let left = back.min(stated).min(purchase.amount);
            Some((left, Record::Left { reference, left, served: true }))
        })
    }

    /// Forgets a purchase whatever is left of it.
    pub fn forget(&self, reference: Reference) -> Result<(), HomeError> {
        self.write(Record::Gone { reference })
    }

    fn write(&self, record: Record) -> Result<(), HomeError> {
        self.write_with(|_| Some(((), record))).map(drop)
    }

    /// Writes what the state, with all that other processes wrote, makes of it; nothing when that is nothing.
    fn write_with<T>(&self, make: impl FnOnce(&State) -> Option<(T, Record)>) -> Result<Option<T>, HomeError> {
        let mut inner = self.guard();
        let guard = inner.lock()?;
        inner.catch_up()?;
        let Some((made, record)) = make(&inner.state) else { return Ok(None) };
        inner.append(std::slice::from_ref(&record), false)?;
        inner.state.apply(record);
        if inner.read > COMPACT_FROM.max(inner.compacted.saturating_mul(2)) {
            inner.compact()?;
        }
        drop(guard);
        Ok(Some(made))
    }

    fn guard(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn settled(&mut self, reference: &Reference) -> Option<Held> {
        self.own.remove(reference);
        self.held.remove(reference)
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Format { .. } => {}
            Record::Begin(purchase) => {
                let host = purchase.target.host().to_owned();
                let held = self.budget.adopt(purchase.period, &host, purchase.currency, purchase.amount);
                let own = self.own.contains(&purchase.reference);
                self.held.insert(purchase.reference, held.of(own, purchase.amount));
                self.wallet.keep(*purchase);
            }
            Record::Kept(purchase) => {
                if !purchase.is_paid() {
                    // Counted in `Spent`; noted so that it can be released.
                    let (host, own) = (purchase.target.host(), self.own.contains(&purchase.reference));
                    let held = self.budget.adopt(purchase.period, host, purchase.currency, Amount::ZERO);
                    self.held.insert(purchase.reference, held.of(own, purchase.amount));
                }
                self.wallet.keep(*purchase);
            }
            Record::Paid { reference, payload } => {
                self.settled(&reference);
                self.wallet.paid(&reference, payload);
            }
            Record::Left { reference, left, served } => {
                if served {
                    self.wallet.drawn(&reference, left);
                } else {
                    self.wallet.short_of(&reference, left.checked_add(Amount::from_nanos(1)).unwrap_or(Amount::MAX));
                }
            }
            Record::Unpaid { reference } => {
                if let Some(held) = self.settled(&reference) {
                    self.budget.release(&held);
                }
                self.wallet.remove(&reference);
            }
            Record::Gone { reference } => {
                self.settled(&reference);
                self.wallet.remove(&reference);
            }
            Record::Spent { period, host, currency, amount } => {
                drop(self.budget.adopt(period, &host, currency, amount));
            }
        }
    }
}

impl Inner {
    /// Held while anything is read on or written; other processes wait, a few milliseconds each.
    fn lock(&self) -> Result<File, HomeError> {
        let mut options = private();
        let file = options.truncate(false).open(&self.lock).map_err(|cause| fault("open", &self.lock, cause))?;
        file.lock().map_err(|cause| fault("lock", &self.lock, cause))?;
        Ok(file)
    }

    /// Reads what was written since, by whomever. A log that was written anew is read from its start.
    fn catch_up(&mut self) -> Result<(), HomeError> {
        let mut file =
            private().read(true).truncate(false).open(&self.log).map_err(|cause| fault("open", &self.log, cause))?;
        let whole = file.metadata().map_err(|cause| fault("read", &self.log, cause))?.len();
        if whole == 0 {
            self.file = Some(file);
            (self.read, self.writing) = (0, self.writing.max(1));
            let first = Record::Format { name: FORMAT.to_owned(), writing: self.writing };
            return self.append(&[first], true);
        }
        let writing = self.first_line(&mut file)?;
        if self.file.is_none() || writing != self.writing || whole < self.read {
            self.again(writing);
        }
        file.seek(SeekFrom::Start(self.read)).map_err(|cause| fault("read", &self.log, cause))?;
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = (&mut reader).take(MAX_LINE as u64).read_until(b'\n', &mut line);
            let length = length.map_err(|cause| fault("read", &self.log, cause))? as u64;
            if length == 0 {
                break;
            }
            match parse(&line) {
                Some(record) => self.state.apply(record),
                // Torn: whoever wrote it died before it acted on it.
                None if self.read + length >= whole && !line.ends_with(b"\n") => {
                    let file = reader.get_ref();
                    file.set_len(self.read).map_err(|cause| fault("cut", &self.log, cause))?;
                    break;
                }
                None => return Err(self.damaged()),
            }
            self.read += length;
        }
        if self.compacted == 0 {
            self.compacted = self.read;
        }
        self.file = Some(reader.into_inner());
        Ok(())
    }

    fn first_line(&self, file: &mut File) -> Result<u64, HomeError> {
        let mut line = Vec::new();
        let read = BufReader::new(file).take(256).read_until(b'\n', &mut line);
        read.map_err(|cause| fault("read", &self.log, cause))?;
        match parse(&line) {
            Some(Record::Format { name, writing }) if name == FORMAT => Ok(writing),
            _ => Err(self.damaged()),
        }
    }

    /// Everything is read again. What this process holds and spent stays its own.
    fn again(&mut self, writing: u64) {
        let budget = self.state.budget.restarted(&self.limits.0, self.limits.1);
        let wallet = self.state.wallet.restarted();
        let own = std::mem::take(&mut self.state.own);
        self.state = State { wallet, budget, held: HashMap::new(), own };
        (self.read, self.writing, self.compacted) = (0, writing, 0);
    }

    fn append(&mut self, records: &[Record], durable: bool) -> Result<(), HomeError> {
        let mut lines = Vec::new();
        records.iter().try_for_each(|record| write_line(record, &mut lines)).map_err(|cause| self.unfit(&cause))?;
        let log = &self.log;
        let Some(file) = &mut self.file else { return Err(self.damaged()) };
        let start = self.read;
        let mut write = || -> io::Result<()> {
            file.seek(SeekFrom::Start(start))?;
            file.write_all(&lines)?;
            if durable { file.sync_data() } else { Ok(()) }
        };
        if let Err(cause) = write() {
            // Whatever stands there was never acted on.
            let _ = file.set_len(start);
            return Err(fault("write", log, cause));
        }
        self.read += lines.len() as u64;
        Ok(())
    }

    /// Writes the log anew: what is kept, and the sums of the period.
    fn compact(&mut self) -> Result<(), HomeError> {
        let writing = self.writing + 1;
        let mut lines = Vec::new();
        let mut records = vec![Record::Format { name: FORMAT.to_owned(), writing }];
        records.extend(self.state.budget.spent().map(|(period, currency, host, amount)| Record::Spent {
            period,
            host: host.to_owned(),
            currency,
            amount,
        }));
        records.extend(self.state.wallet.purchases().map(|one| Record::Kept(Box::new(one.clone()))));
        records.iter().try_for_each(|record| write_line(record, &mut lines)).map_err(|cause| self.unfit(&cause))?;
        let temporary = self.log.with_extension("new");
        let put = || -> io::Result<File> {
            let mut file = private().read(true).truncate(true).open(&temporary)?;
            file.write_all(&lines)?;
            file.sync_all()?;
            fs::rename(&temporary, &self.log)?;
            Ok(file)
        };
        self.file = Some(put().map_err(|cause| fault("write", &temporary, cause))?);
        (self.read, self.writing, self.compacted) = (lines.len() as u64, writing, lines.len() as u64);
        self.log.parent().map_or(Ok(()), sync_folder)
    }

    fn damaged(&self) -> HomeError {
        let cause = "a record that the budget counts on cannot be read; moved away, the file is begun anew, and what was \
                     prepaid and spent today is forgotten (the receipts are in `receipts`)";
        HomeError::Damaged { path: self.log.clone(), cause: cause.to_owned() }
    }

    fn unfit(&self, cause: &serde_json::Error) -> HomeError {
        HomeError::Damaged { path: self.log.clone(), cause: cause.to_string() }
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn fault(verb: &'static str, path: &Path, cause: io::Error) -> HomeError {
    HomeError::Io { verb, path: path.to_owned(), cause: Arc::new(cause) }
}

fn sync_folder(folder: &Path) -> Result<(), HomeError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|cause| fault("sync", folder, cause))
}

fn write_line(record: &Record, to: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let json = serde_json::to_vec(record)?;
    to.extend_from_slice(format!("{:08x} ", crc32fast::hash(&json)).as_bytes());
    to.extend_from_slice(&json);
    to.push(b'\n');
    Ok(())
}

fn parse(line: &[u8]) -> Option<Record> {
    let (sum, rest) = line.split_at_checked(9)?;
    let json = rest.strip_suffix(b"\n")?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?.strip_suffix(' ')?, 16).ok()?;
    if sum == crc32fast::hash(json) { serde_json::from_slice(json).ok() } else { None }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::super::budget::DAY_MS;
    use super::super::wallet::tests::{payload, purchase, target};
    use super::*;

    fn limits(per_period: u64) -> BTreeMap<Currency, Limits> {
        let per_period = Some(Amount::from_nanos(per_period));
        BTreeMap::from([(Currency::EUR, Limits { per_period, ..Limits::default() })])
    }

    fn open(home: &Path, per_period: u64) -> Store {
        Store::open(home, limits(per_period), DAY_MS).unwrap()
    }

    fn in_period(store: &Store) -> u64 {
        store.budget(|budget| budget.in_period(Currency::EUR).nanos())
    }

    #[test]
    fn purchases_and_budget_are_the_same_for_two_processes_and_after_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let (one, two) = (open(home.path(), 10), open(home.path(), 10));
        let get = target("GET", "/a");
        one.begin(purchase(1, get.clone(), 6, 6), Time(5)).unwrap();
        let full = two.begin(purchase(2, get.clone(), 6, 6), Time(5));
        assert!(matches!(full, Err(BeginError::Budget(BudgetError::Period { .. }))));
        assert!(two.wallet(|wallet| wallet.unsettled(&get).is_some()), "what the other one began");
        two.begin(purchase(2, get.clone(), 4, 4), Time(5)).unwrap();
        one.unpaid(Reference([1; 32])).unwrap();
        two.paid(Reference([2; 32]), payload(4)).unwrap();
        two.left(Reference([2; 32]), Amount::from_nanos(3), true).unwrap();
        one.refresh().unwrap();
        let again = open(home.path(), 10);
        for store in [&one, &two, &again] {
            assert_eq!(in_period(store), 4);
            let left = store.wallet(|wallet| wallet.get(&Reference([2; 32])).map(|one| one.left.nanos()));
            assert_eq!(left, Some(3));
            assert_eq!(store.wallet(|wallet| wallet.len()), 1);
        }
        assert_eq!(again.budget(|budget| budget.own(Currency::EUR)), Amount::ZERO);
    }

    #[test]
    fn log_torn_at_any_byte_of_its_last_line_goes_on_and_damage_before_it_stops() {
        let home = tempfile::tempdir().unwrap();
        let store = open(home.path(), 100);
        store.begin(purchase(1, target("GET", "/a"), 6, 6), Time(5)).unwrap();
        let log = home.path().join("fetch/purchases.log");
        let before = fs::read(&log).unwrap().len();
        store.begin(purchase(2, target("GET", "/b"), 5, 5), Time(5)).unwrap();
        let whole = fs::read(&log).unwrap();
        for cut in before..whole.len() {
            fs::write(&log, &whole[..cut]).unwrap();
            let again = open(home.path(), 100);
            assert_eq!(in_period(&again), 6, "cut at {cut}");
            again.begin(purchase(3, target("GET", "/c"), 1, 1), Time(5)).unwrap();
            assert_eq!(in_period(&open(home.path(), 100)), 7);
        }
        for at in (0..before).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x01;
            fs::write(&log, bytes).unwrap();
            let opened = Store::open(home.path(), limits(100), DAY_MS);
            assert!(matches!(opened, Err(HomeError::Damaged { .. })), "byte {at}");
        }
    }

    #[test]
    fn log_written_anew_keeps_sums_holds_and_what_other_processes_do() {
        let home = tempfile::tempdir().unwrap();
        let (one, two) = (open(home.path(), 1_000_000), open(home.path(), 1_000_000));
        one.begin(purchase(200, target("GET", "/open"), 7, 7), Time(5)).unwrap();
        one.begin(purchase(201, target("GET", "/kept"), 3, 50), Time(5)).unwrap();
        one.paid(Reference([201; 32]), payload(50)).unwrap();
        let log = home.path().join("fetch/purchases.log");
        let mut shrank = false;
        let mut last = 0;
        for left in (0..12_000_u64).rev() {
            one.left(Reference([201; 32]), Amount::from_nanos(left), true).unwrap();
            let size = fs::metadata(&log).unwrap().len();
            shrank |= size < last;
            last = size;
        }
        assert!(shrank && last <= COMPACT_FROM + 8192, "{last}");
        two.begin(purchase(202, target("GET", "/two"), 2, 2), Time(6)).unwrap();
        two.unpaid(Reference([200; 32])).unwrap();
        one.refresh().unwrap();
        for store in [&one, &two, &open(home.path(), 1_000_000)] {
            assert_eq!(in_period(store), 52);
        }
        assert_eq!(one.budget(|budget| budget.own(Currency::EUR).nanos()), 57 - 7);
    }

    #[test]
    fn begins_of_many_threads_and_stores_reach_the_budget_and_no_more() {
        let home = tempfile::tempdir().unwrap();
        let stores: Vec<_> = (0..5).map(|_| open(home.path(), 30)).collect();
        let began: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..50_u8)
                .map(|at| {
                    let store = stores[usize::from(at) % stores.len()].clone();
                    scope.spawn(move || {
                        store.begin(purchase(at, target("GET", &format!("/{at}")), 1, 1), Time(5)).is_ok()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
        });
        assert_eq!(began, 30);
        assert_eq!(in_period(&open(home.path(), 30)), 30);
    }
}
