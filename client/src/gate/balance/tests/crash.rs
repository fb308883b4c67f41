//! What is left of a store after a crash: torn and damaged logs, failing disks, `kill -9`.
#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use std::fs;
use std::io;
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::super::log::{Disk, Draft, Log};
use super::super::record::{
    Counted, Draw, Facts, HEADER_BLOCK_BYTES, RECORD_BYTES_MAX, Record, RefundState, ShownFor, Standing, records,
};
use super::super::types::Counter;
use super::super::{BalanceError, Balances, CommitError, Limits, ReserveError, Reserved};
use super::{NOW, ask, credit, id, key, nanos, payment, replay};
use weir_protocol::amount::{Amount, Time};

fn log_of(directory: &Path) -> PathBuf {
    directory.join("balances.log")
}

fn standing(number: u32, drawn: u64) -> Record {
    Record::Standing(Standing {
        payment_id: id(number),
        facts: Facts::of(&payment(number, 100)),
        shown: Some(ShownFor { at: NOW, resource: [4; 16] }),
        drawn: nanos(drawn),
        used_at: NOW,
        refund: RefundState::default(),
    })
}

fn draw(number: u32, request: u32, drawn_total: u64) -> Record {
    let (payment_id, key) = (id(number), key(request));
    Record::Draw(Draw {
        payment_id,
        key,
        drawn: nanos(1),
        drawn_total: nanos(drawn_total),
        at: NOW,
        until: NOW.plus_ms(9),
    })
}

/// A log of one balance and draws of one nano, a frame each: its bytes, and where each frame ends.
fn sample(directory: &Path, draws: u32) -> (Vec<u8>, Vec<usize>) {
    let mut log = Log::open(directory, &mut |_| Ok(())).unwrap();
    let mut ends = Vec::new();
    log.append([standing(1, 0)].iter()).unwrap();
    ends.push(log.bytes() as usize);
    for request in 1..=draws {
        log.append([draw(1, request, u64::from(request))].iter()).unwrap();
        ends.push(log.bytes() as usize);
    }
    drop(log);
    let mut bytes = fs::read(log_of(directory)).unwrap();
    bytes.truncate(ends.last().unwrap() + 64);
    (bytes, ends)
}

#[test]
fn log_torn_at_any_byte_keeps_all_that_was_synced_before_and_is_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, ends) = sample(folder.path(), 4);
    for cut in HEADER_BLOCK_BYTES as usize..=bytes.len() {
        // Cut short, and with zeros where the rest was to be.
        let short = bytes.get(..cut).unwrap().to_vec();
        let mut zeros = short.clone();
        zeros.resize(bytes.len(), 0);
        for torn in [short, zeros] {
            // What was padding may be missing and there all the same.
            let whole = ends.iter().filter(|end| torn.get(..**end) == bytes.get(..**end)).count();
            fs::write(log_of(folder.path()), &torn).unwrap();
            let mut drawn = 0;
            let mut log = Log::open(folder.path(), &mut |record| {
                if let Record::Draw(draw) = record {
                    drawn = draw.drawn_total.nanos();
                }
                Ok(())
            })
            .unwrap();
            assert_eq!(drawn, (whole as u64).saturating_sub(1), "cut at {cut}");
            if cut % 16 == 3 && whole > 0 {
                log.append([draw(1, 77, 50)].iter()).unwrap();
                drop(log);
                let book = replay(folder.path()).unwrap();
                assert_eq!(book.view(id(1)).unwrap().drawn, nanos(50));
            }
        }
    }
}

#[test]
fn log_with_any_flipped_bit_before_the_last_frame_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, ends) = sample(folder.path(), 4);
    let last = ends[ends.len() - 2];
    let places = (0..28).chain(HEADER_BLOCK_BYTES as usize..last);
    for at in places {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(log_of(folder.path()), &damaged).unwrap();
        let begin = ends.iter().filter(|end| **end <= at).max().copied();
        let begin = begin.unwrap_or(if at < 28 { 0 } else { HEADER_BLOCK_BYTES as usize });
        match replay(folder.path()) {
            Err(BalanceError::Damaged { offset, path, .. }) => {
                assert_eq!((offset, path), (begin as u64, log_of(folder.path())), "flipped at {at}");
            }
            other => panic!("flipped at {at}: {:?}", other.map(|_| ())),
        }
    }
}

#[test]
fn log_that_was_written_at_once_is_refused_when_any_of_it_is_cut_or_flipped() {
    let folder = tempfile::tempdir().unwrap();
    let mut draft = Draft::create(folder.path()).unwrap();
    draft.append([standing(1, 3), draw(1, 1, 3)].iter()).unwrap();
    draft.append([standing(2, 0)].iter()).unwrap();
    drop(draft.put_in_place().map_err(|_| ()).unwrap());
    let bytes = fs::read(log_of(folder.path())).unwrap();
    for cut in 0..bytes.len() {
        fs::write(log_of(folder.path()), bytes.get(..cut).unwrap()).unwrap();
        assert!(matches!(replay(folder.path()), Err(BalanceError::Damaged { .. })), "cut at {cut}");
    }
    for at in HEADER_BLOCK_BYTES as usize..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        fs::write(log_of(folder.path()), &damaged).unwrap();
        assert!(matches!(replay(folder.path()), Err(BalanceError::Damaged { .. })), "flipped at {at}");
    }
}

#[test]
fn log_whose_records_take_more_than_was_paid_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for bad in [draw(1, 1, 101), draw(2, 1, 1), standing(1, 101)] {
        let _ = fs::remove_file(log_of(folder.path()));
        let mut log = Log::open(folder.path(), &mut |_| Ok(())).unwrap();
        log.append([standing(1, 0)].iter()).unwrap();
        let at = log.bytes();
        log.append([bad].iter()).unwrap();
        assert!(matches!(replay(folder.path()), Err(BalanceError::Damaged { offset, .. }) if offset == at));
    }
}

#[test]
fn record_of_the_largest_fields_is_within_its_bound() {
    let max = Amount::MAX;
    let facts = Facts {
        amount: max,
        paid_at: Time::MAX,
        chain: u64::MAX,
        commit: u64::MAX,
        group: u32::MAX,
        leaf: u32::MAX,
        ..Facts::of(&payment(1, 1))
    };
    let refund = RefundState { number: u32::MAX, total: max, confirmed: max };
    let shown = Some(ShownFor { at: Time::MAX, resource: [255; 16] });
    let standing = Standing { payment_id: id(1), facts, shown, drawn: max, used_at: Time::MAX, refund };
    let draw = Draw { payment_id: id(1), key: key(1), drawn: max, drawn_total: max, at: Time::MAX, until: Time::MAX };
    let counted = Counted { counter: Counter([255; 16]), total: u64::MAX };
    let units = Record::Units { payment_id: id(1), counted };
    for record in [Record::Standing(standing), Record::Draw(draw), Record::Counted { draw, counted }, units] {
        let bytes = postcard::to_allocvec(&record).unwrap();
        assert!(bytes.len() <= RECORD_BYTES_MAX);
        assert_eq!(records(&bytes), Some(vec![record]));
    }
}

proptest! {
    #[test]
    fn body_of_arbitrary_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = records(&bytes);
    }
}

/// A file that fails from some write or sync on.
struct Failing {
    file: Box<dyn Disk>,
    calls: Arc<AtomicUsize>,
    fail_at: usize,
    /// Fails when syncing instead of when writing.
    in_sync: bool,
}

impl Disk for Failing {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if !self.in_sync && self.calls.fetch_add(1, Ordering::SeqCst) >= self.fail_at {
            return Err(io::Error::other("injected"));
        }
        self.file.write_at(offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.in_sync && self.calls.fetch_add(1, Ordering::SeqCst) >= self.fail_at {
            return Err(io::Error::other("injected"));
        }
        self.file.sync()
    }
}

struct Nothing;

impl Disk for Nothing {
    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn store_after_a_failed_write_takes_nothing_more_and_keeps_what_it_answered() {
    for in_sync in [false, true] {
        // Zeros ahead take the first calls: many writes, one sync.
        for fail_at in if in_sync { [1, 2, 4, 6] } else { [33, 34, 36, 40] } {
            let folder = tempfile::tempdir().unwrap();
            let balances = Balances::open_with(folder.path(), Limits::default(), |log| {
                let file = std::mem::replace(&mut log.disk, Box::new(Nothing));
                log.disk = Box::new(Failing { file, calls: Arc::default(), fail_at, in_sync });
            })
            .unwrap();
            let mut answered = 0;
            let mut requests = 0..20;
            let error = loop {
                let request = requests.next().unwrap();
                if request == 0 {
                    // The store may be closed before anything was drawn.
                    if let Err(error) = balances.show(&credit(1, 100), NOW) {
                        break CommitError::from(balances.closed_because().ok_or(error).unwrap());
                    }
                }
                let Ok(Reserved::New(reservation)) = balances.reserve(&ask(1, request, 5), NOW).await else {
                    break balances.closed_because().unwrap().into();
                };
                match reservation.commit(nanos(2), NOW).await {
                    Ok(_) => answered += 2,
                    Err(error) => break error,
                }
            };
            let CommitError::Closed(closed) = error else { panic!("{error}") };
            assert!(closed.to_string().contains("injected"), "{closed}");
            assert!(balances.load().closed);
            let refused = balances.reserve(&ask(1, 99, 1), NOW).await.unwrap_err();
            assert_eq!(refused, ReserveError::Closed(closed));
            assert!(balances.show(&credit(2, 1), NOW).is_err());
            assert!(balances.note(&[payment(3, 1)]).await.is_err());
            drop(balances);
            let drawn = replay(folder.path()).unwrap().view(id(1)).map_or(0, |view| view.drawn.nanos());
            // The last one's outcome is open.
            assert!(drawn == answered || drawn == answered + 2, "{drawn} is there, {answered} was answered");
        }
    }
}

const CHILD: &str = "WEIR_TEST_BALANCES";
const CHILD_TEST: &str = "gate::balance::tests::crash::child_of_the_kill_test";

/// Not a test by itself: draws from one balance for ever, and says each draw once it is answered.
#[test]
fn child_of_the_kill_test() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let limits = Limits { compact_bytes: 16 << 10, ..Limits::default() };
    let balances = Balances::open(Path::new(&folder), limits).unwrap();
    runtime.block_on(async {
        balances.show(&credit(1, u64::MAX), NOW).unwrap();
        let tasks = (0..8_u32).map(|task| {
            let balances = balances.clone();
            tokio::spawn(async move {
                for round in 0.. {
                    let request = std::process::id() % 1_000 * 1_000_000 + round * 8 + task;
                    let ask = ask(1, request, 5);
                    if let Reserved::New(reservation) = balances.reserve(&ask, NOW).await.unwrap() {
                        reservation.commit(nanos(3), NOW).await.unwrap();
                        let mut line = format!("drawn {request}\n").into_bytes();
                        std::io::stdout().lock().write_all(&line).unwrap();
                        line.clear();
                    }
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
}

#[test]
fn store_killed_in_the_middle_of_draws_keeps_every_one_that_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    let mut answered = Vec::new();
    for kill in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", CHILD_TEST, "--nocapture", "--test-threads", "1"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = io::BufReader::new(child.stdout.take().unwrap()).lines();
        let said = |line: String| line.split_once("drawn ").and_then(|(_, request)| request.parse::<u32>().ok());
        let mut said = lines.by_ref().map_while(Result::ok).filter_map(said);
        answered.extend(said.by_ref().take(100 + 90 * kill));
        child.kill().unwrap();
        child.wait().unwrap();
        answered.extend(said);
        let mut book = replay(folder.path()).unwrap();
        for request in &answered {
            let again = book.reserve(&ask(1, *request, 5), NOW, || unreachable!("nobody is under way"));
            assert!(matches!(again, Ok(super::super::book::Step::Again(_))), "draw {request} is lost: {again:?}");
        }
        let drawn = book.view(id(1)).unwrap().drawn.nanos();
        assert_eq!(drawn % 3, 0);
        assert!(drawn >= 3 * answered.len() as u64);
        // A crash hangs no more than what was under way.
        assert!(drawn <= 3 * (answered.len() as u64 + 8 * (kill as u64 + 1)));
    }
}
