//! The anchor: the newest commit, noted outside the data directory, so that an old copy of the data is noticed.
//!
//! One JSON object in one file:
//! `{"hub": hex, "chain": number, "number": number, "id": hex, "checksum": hex}`. `chain` is the running process's, also
//! before its first commit; `number` and `id` are the last kept commit's, 0 and zeros if there is none. The checksum is
//! CRC-32 over hub 32 ‖ chain 8 ‖ number 8 ‖ id 32, integers little-endian, written as 8 hex digits.
//!
//! It is written behind, so it may be younger than no commit: the journal may be ahead of it, never the other way round.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{Position, StoreError, files, files::At};

/// Written behind at most this often.
pub const ANCHOR_INTERVAL: Duration = Duration::from_secs(1);
/// No anchor is longer; what is, is not read.
const FILE_BYTES_MAX: u64 = 4096;

/// What an anchor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnchorRecord {
    /// The hub's id.
    pub hub: [u8; 32],
    /// The chain of the process that wrote it.
    pub chain: u64,
    /// The last kept commit, 0 if none.
    pub number: u64,
    /// Its id, zeros if none.
    pub id: [u8; 32],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    hub: String,
    chain: u64,
    number: u64,
    id: String,
    checksum: String,
}

/// How the data directory stands to its anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnchorState {
    /// There is no anchor.
    Absent,
    /// The journal holds the anchor's commit, and perhaps newer ones.
    Same,
    /// The journal ends before the anchor's commit: an old copy of the data.
    Behind {
        /// The journal's last commit, 0 if none.
        last: u64,
        /// The anchor's.
        anchor: u64,
    },
    /// The journal has another commit with the anchor's number: an old copy that went on.
    Diverged {
        /// The number.
        number: u64,
    },
    /// The anchor is another hub's.
    Foreign {
        /// The other hub's id.
        hub: [u8; 32],
    },
}

impl AnchorRecord {
    /// Reads the anchor at `path`; `None` if there is no file.
    pub fn read(path: &Path) -> Result<Option<Self>, StoreError> {
        let damaged = |what: String| StoreError::AnchorDamaged { path: path.to_owned(), what };
        let text = match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(data) if data.len() > FILE_BYTES_MAX => {
                return Err(damaged(format!("it is longer than {FILE_BYTES_MAX} bytes")));
            }
            _ => std::fs::read(path).at("read", path)?,
        };
        Self::from_json(&text).map(Some).map_err(damaged)
    }

    /// Compares it with the journal's `last` commit; `id_of` gives the id of an older one, `None` if it is not known.
    pub fn check(
        &self,
        hub: [u8; 32],
        last: Option<Position>,
        id_of: impl FnOnce(u64) -> Result<Option<[u8; 32]>, StoreError>,
    ) -> Result<AnchorState, StoreError> {
        if self.hub != hub {
            return Ok(AnchorState::Foreign { hub: self.hub });
        }
        if self.number == 0 {
            return Ok(AnchorState::Same);
        }
        let last = last.map_or(0, |last| last.number);
        if last < self.number {
            return Ok(AnchorState::Behind { last, anchor: self.number });
        }
        if id_of(self.number)? == Some(self.id) {
            Ok(AnchorState::Same)
        } else {
            Ok(AnchorState::Diverged { number: self.number })
        }
    }

    fn checksum(&self) -> String {
        let mut hash = crc32fast::Hasher::new();
        hash.update(&self.hub);
        hash.update(&self.chain.to_le_bytes());
        hash.update(&self.number.to_le_bytes());
        hash.update(&self.id);
        format!("{:08x}", hash.finalize())
    }

    fn to_json(self) -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(&Json {
            hub: hex::encode(self.hub),
            chain: self.chain,
            number: self.number,
            id: hex::encode(self.id),
            checksum: self.checksum(),
        })?;
        text.push(b'\n');
        Ok(text)
    }

    fn from_json(text: &[u8]) -> Result<Self, String> {
        let json: Json = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let mut record = Self { hub: [0; 32], chain: json.chain, number: json.number, id: [0; 32] };
        let decoded = hex::decode_to_slice(&json.hub, &mut record.hub)
            .and_then(|()| hex::decode_to_slice(&json.id, &mut record.id));
        decoded.map_err(|error| error.to_string())?;
        if record.checksum() != json.checksum {
            return Err("its checksum is wrong".to_owned());
        }
        Ok(record)
    }

    /// Puts it in the place of the anchor at `path`, durably.
    pub fn write(&self, path: &Path) -> Result<(), StoreError> {
        let text = self.to_json().at("write", path)?;
        files::replace(path, |file| file.write_all(&text)).at("write", path)
    }
}

/// Writes the anchor behind, on a thread of its own.
#[derive(Debug)]
pub struct Anchor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    newest: AnchorRecord,
    written: AnchorRecord,
    trouble: Option<String>,
    closing: bool,
}

impl Anchor {
    /// Writes `record` to `path` at once, which must succeed before the process's first commit, and then whatever is
    /// [noted](Self::note), at most once an `interval`.
    pub fn start(path: PathBuf, record: AnchorRecord, interval: Duration) -> Result<Self, StoreError> {
        record.write(&path)?;
        let shared = Arc::new(Shared {
            path,
            state: Mutex::new(State { newest: record, written: record, trouble: None, closing: false }),
            changed: Condvar::new(),
        });
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("anchor".to_owned()).spawn(move || shared.write_behind(interval))
        };
        let thread = thread.at("start a thread for", &shared.path)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Notes the newest durable commit. Never waits for a disk.
    pub fn note(&self, position: Position) {
        let mut state = self.shared.lock();
        state.newest.chain = position.chain;
        state.newest.number = position.number;
        state.newest.id = position.id;
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Why the anchor could not be written last time, if so. It is tried again with the next commit.
    pub fn trouble(&self) -> Option<String> {
        self.shared.lock().trouble.clone()
    }
}

impl Drop for Anchor {
    /// Writes what is not written yet.
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn write_behind(&self, interval: Duration) {
        let mut state = self.lock();
        loop {
            while !state.closing && state.newest == state.written {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let (record, closing) = (state.newest, state.closing);
            if record != state.written {
                drop(state);
                let written = record.write(&self.path);
                state = self.lock();
                if let Err(error) = &written {
                    let error = error as &dyn std::error::Error;
                    tracing::warn!(error, path = %self.path.display(), "cannot write the anchor");
                } else {
                    state.written = record;
                }
                state.trouble = written.err().map(|error| error.to_string());
            }
            if closing {
                return;
            }
            let until = Instant::now() + interval;
            loop {
                let left = until.saturating_duration_since(Instant::now());
                if state.closing || left.is_zero() {
                    break;
                }
                let waited = self.changed.wait_timeout(state, left);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    const RECORD: AnchorRecord = AnchorRecord { hub: [1; 32], chain: 9_007_199_254_740_993, number: 5, id: [5; 32] };

    fn last(number: u64) -> Position {
        Position { chain: 1, number, id: [number as u8; 32] }
    }

    #[test]
    fn anchor_against_each_kind_of_journal_gives_its_state() {
        let id_of = |number: u64| Ok(Some([number as u8; 32]));
        let check = |last| RECORD.check([1; 32], last, id_of).unwrap();
        let behind = |last| AnchorState::Behind { last, anchor: 5 };
        assert_eq!(check(Some(last(4))), behind(4));
        assert_eq!(check(None), behind(0));
        assert_eq!(check(Some(last(5))), AnchorState::Same);
        assert_eq!(check(Some(last(6))), AnchorState::Same);
        assert_eq!(
            RECORD.check([1; 32], Some(last(6)), |_| Ok(Some([0; 32]))).unwrap(),
            AnchorState::Diverged { number: 5 }
        );
        assert_eq!(RECORD.check([2; 32], Some(last(5)), id_of).unwrap(), AnchorState::Foreign { hub: [1; 32] });
        let fresh = AnchorRecord { number: 0, id: [0; 32], ..RECORD };
        assert_eq!(fresh.check([1; 32], None, id_of).unwrap(), AnchorState::Same);
    }

    #[test]
    fn anchor_written_and_read_is_the_same_and_damaged_is_an_error() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("anchor.json");
        assert_eq!(AnchorRecord::read(&path).unwrap(), None);
        RECORD.write(&path).unwrap();
        assert_eq!(AnchorRecord::read(&path).unwrap(), Some(RECORD));
        let text = std::fs::read_to_string(&path).unwrap();
        for damaged in [text.replace(":5,", ":4,"), text[..90].to_owned(), String::new(), "x".repeat(5000)] {
            std::fs::write(&path, damaged).unwrap();
            assert!(matches!(AnchorRecord::read(&path), Err(StoreError::AnchorDamaged { .. })));
        }
    }

    #[test]
    fn anchor_dropped_has_written_what_was_noted_last() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("anchor.json");
        let anchor = Anchor::start(path.clone(), RECORD, Duration::from_secs(3600)).unwrap();
        assert_eq!(AnchorRecord::read(&path).unwrap(), Some(RECORD));
        for number in 6..=9 {
            anchor.note(last(number));
        }
        assert_eq!(anchor.trouble(), None);
        drop(anchor);
        assert_eq!(AnchorRecord::read(&path).unwrap().unwrap().number, 9);
    }

    #[test]
    fn anchor_that_cannot_be_written_stops_the_start() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("missing/anchor.json");
        assert!(Anchor::start(path, RECORD, ANCHOR_INTERVAL).is_err());
    }

    proptest! {
        #[test]
        fn anchor_of_arbitrary_bytes_never_panics(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = AnchorRecord::from_json(&text);
        }
    }
}
