//! A lane's paid groups, appended as they are answered, and found again by reference.
//!
//! One record = body length (u32, little-endian) ‖ CRC-32 of the body ‖ body, filled up with zeros to a multiple of 64
//! bytes. Each group starts from the head that the one before led to, so what is kept is a prefix of the lane. One write a
//! group, never synced: what is missing or torn at the end is cut, and read again from the hub.

use std::fs::File;
use std::hash::BuildHasher as _;
use std::io::{BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};
use weir_protocol::amount::Currency;
use weir_protocol::commit::Answer;
use weir_protocol::id::{HubId, LaneId, Reference};
use weir_protocol::keys::Signature;
use weir_protocol::lane::payer::PaidGroup;
use weir_protocol::payment::{Head, Run};

use super::index::Index;
use super::{LaneRecord, files};
use crate::error::HomeError;

/// Most bytes of a record's body; a group of 1,024 payments takes less than half.
const MAX_BODY: usize = 256 * 1024;
const PREFIX: usize = 8;
/// Records start at multiples of it, so that 32 bits name a place in 256 GiB.
const UNIT: usize = 64;
/// Groups between two that are noted with their place.
const STRIDE: usize = 64;

/// A group as it is written, but for its runs, which follow. Hub, lane and currency are the file's.
#[derive(Serialize, Deserialize)]
struct Record {
    previous: Head,
    head: Head,
    signature: Signature,
    answer: Answer,
    runs: u32,
}

/// The log, and where each reference is in it.
#[derive(Debug)]
pub(crate) struct PaidLog {
    path: PathBuf,
    reader: File,
    /// Stands at `end`; none when the home is not held.
    writer: Option<File>,
    names: (HubId, LaneId, Currency),
    /// Where every so manyth group's record starts.
    places: Vec<u64>,
    groups: usize,
    end: u64,
    head: Head,
    /// The record of each reference, in units.
    index: Index,
    /// References are hashed under a key of this process: whoever chooses them cannot make them collide.
    hasher: RandomState,
    payments: u64,
    buffer: Vec<u8>,
    /// The group that was read last: retries of a batch ask for the same one again and again.
    last: Option<(u64, Arc<PaidGroup>)>,
}

impl PaidLog {
    /// Opens the log and reads it through. What is torn at its end is cut when the home is held.
    pub(super) fn open(path: PathBuf, record: &LaneRecord, held: bool) -> Result<Self, HomeError> {
        let io = |cause| files::io("open", &path, cause);
        let writer = held.then(|| open_to_write(&path)).transpose().map_err(io)?;
        let reader = File::open(&path).map_err(io)?;
        let lane = record.id();
        let mut log = Self {
            path,
            reader,
            writer,
            names: (record.terms.hub, lane, record.terms.currency),
            places: Vec::new(),
            groups: 0,
            end: 0,
            head: Head::empty(&lane),
            index: Index::new(),
            hasher: RandomState::default(),
            payments: 0,
            buffer: Vec::new(),
            last: None,
        };
        log.scan()?;
        if let Some(writer) = &mut log.writer {
            let cut = writer.set_len(log.end).and_then(|()| writer.seek(SeekFrom::Start(log.end)));
            cut.map_err(|cause| files::io("cut", &log.path, cause))?;
        }
        Ok(log)
    }

    fn scan(&mut self) -> Result<(), HomeError> {
        let io = |path: &PathBuf, cause| files::io("read", path, cause);
        let file = self.reader.try_clone().map_err(|cause| io(&self.path, cause))?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        while let Some(body) = next_body(&mut reader).map_err(|cause| io(&self.path, cause))? {
            let Some((record, runs)) = parse(&body) else { break };
            if record.previous != self.head {
                break;
            }
            self.note(&runs, record.head, body.len())?;
        }
        Ok(())
    }

    /// The head that the kept groups lead to.
    pub(crate) const fn head(&self) -> &Head {
        &self.head
    }

    /// How many groups and payments are kept.
    pub(crate) const fn counts(&self) -> (usize, u64) {
        (self.groups, self.payments)
    }

    /// Appends a group, which must start where the last one ended. After a failure nothing more may be appended.
    pub(crate) fn append(&mut self, group: &PaidGroup) -> Result<(), HomeError> {
        let damaged = |cause: &str| HomeError::Damaged { path: self.path.clone(), cause: cause.to_owned() };
        let record = Record {
            previous: self.head,
            head: group.head,
            signature: group.signature,
            answer: group.answer.clone(),
            runs: u32::try_from(group.runs.len()).map_err(|_| damaged("a group has too many runs"))?,
        };
        let mut bytes = std::mem::take(&mut self.buffer);
        bytes.clear();
        bytes.extend_from_slice(&[0; PREFIX]);
        bytes = postcard::to_extend(&record, bytes).map_err(|_| damaged("a group does not encode"))?;
        group.runs.iter().for_each(|run| run.encode_into(&mut bytes));
        bytes.resize(bytes.len().next_multiple_of(UNIT), 0);
        let body = bytes.get(PREFIX..).unwrap_or_default();
        let length = u32::try_from(body.len()).map_err(|_| damaged("a group is too long"))?;
        let prefix = length.to_le_bytes().into_iter().chain(check(body));
        let prefix: Vec<u8> = prefix.collect();
        bytes.iter_mut().zip(prefix).for_each(|(to, from)| *to = from);
        let writer = self.writer.as_mut().ok_or_else(|| damaged("it is not open to be written"))?;
        writer.write_all(&bytes).map_err(|cause| files::io("write", &self.path, cause))?;
        self.buffer = bytes;
        self.note(&group.runs, record.head, length as usize)
    }

    fn note(&mut self, runs: &[Run], head: Head, body: usize) -> Result<(), HomeError> {
        let full =
            || HomeError::Damaged { path: self.path.clone(), cause: "it is longer than can be named".to_owned() };
        let place = u32::try_from(self.end / UNIT as u64).ok().filter(|place| *place < u32::MAX).ok_or_else(full)?;
        for reference in runs.iter().flat_map(Run::references) {
            self.index.insert(self.hasher.hash_one(reference.0), place);
            self.payments += 1;
        }
        if self.groups.is_multiple_of(STRIDE) {
            self.places.push(self.end);
        }
        self.groups += 1;
        self.end += (PREFIX + body) as u64;
        self.head = head;
        Ok(())
    }

    /// Whether a payment with this reference may be kept: a look into memory, hardly ever wrong, and never with "no".
    pub(crate) fn may_have(&self, reference: &Reference) -> bool {
        self.index.places(self.hasher.hash_one(reference.0)).next().is_some()
    }

    /// The payment with this reference, if it is kept; the oldest, should another holder of the key have paid it again.
    pub(crate) fn find(&mut self, reference: &Reference) -> Result<Option<(Arc<PaidGroup>, usize)>, HomeError> {
        let mut places: Vec<u32> = self.index.places(self.hasher.hash_one(reference.0)).collect();
        places.sort_unstable();
        places.dedup();
        for place in places {
            let group = self.remembered(u64::from(place) * UNIT as u64)?;
            if let Some(index) = group.find(reference) {
                return Ok(Some((group, index)));
            }
        }
        Ok(None)
    }

    fn remembered(&mut self, start: u64) -> Result<Arc<PaidGroup>, HomeError> {
        if let Some((last, group)) = &self.last
            && *last == start
        {
            return Ok(Arc::clone(group));
        }
        let group = Arc::new(self.read(start)?);
        self.last = Some((start, Arc::clone(&group)));
        Ok(group)
    }

    /// A kept group, by number from 0.
    pub(crate) fn group(&self, number: usize) -> Result<PaidGroup, HomeError> {
        let mut start =
            *self.places.get(number / STRIDE).filter(|_| number < self.groups).ok_or_else(|| self.lost())?;
        let io = |cause| files::io("read", &self.path, cause);
        for _ in 0..number % STRIDE {
            let mut prefix = [0; PREFIX];
            (&self.reader).seek(SeekFrom::Start(start)).map_err(io)?;
            (&self.reader).read_exact(&mut prefix).map_err(io)?;
            let [a, b, c, d, ..] = prefix;
            start += PREFIX as u64 + u64::from(u32::from_le_bytes([a, b, c, d]));
        }
        self.read(start)
    }

    fn read(&self, start: u64) -> Result<PaidGroup, HomeError> {
        let io = |cause| files::io("read", &self.path, cause);
        let mut file = &self.reader;
        file.seek(SeekFrom::Start(start)).map_err(io)?;
        let body = next_body(&mut file).map_err(io)?.ok_or_else(|| self.lost())?;
        let (record, runs) = parse(&body).ok_or_else(|| self.lost())?;
        Ok(PaidGroup::new(self.names, runs, (record.head, record.signature), record.answer))
    }

    fn lost(&self) -> HomeError {
        HomeError::Damaged { path: self.path.clone(), cause: "a group is not there any more".to_owned() }
    }

    /// Makes what is kept durable: when a client stops, not before.
    pub(crate) fn sync(&self) -> Result<(), HomeError> {
        let Some(writer) = &self.writer else { return Ok(()) };
        writer.sync_data().map_err(|cause| files::io("sync", &self.path, cause))
    }
}

fn open_to_write(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A body's record and runs. `None`: it is no record, or its runs are not in order.
fn parse(body: &[u8]) -> Option<(Record, Vec<Run>)> {
    let (record, mut rest) = postcard::take_from_bytes::<Record>(body).ok()?;
    let mut runs = Vec::new();
    for _ in 0..record.runs {
        let (run, after) = postcard::take_from_bytes::<Run>(rest).ok()?;
        run.check_shape().ok()?;
        runs.push(run);
        rest = after;
    }
    rest.iter().all(|byte| *byte == 0).then_some((record, runs))
}

/// The next record's body; `None` at the end and where a record is torn or damaged.
fn next_body(reader: &mut impl Read) -> std::io::Result<Option<Vec<u8>>> {
    let mut prefix = [0; PREFIX];
    match reader.read_exact(&mut prefix) {
        Ok(()) => {}
        Err(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(cause) => return Err(cause),
    }
    let [a, b, c, d, sum @ ..] = prefix;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > MAX_BODY || !(PREFIX + length).is_multiple_of(UNIT) {
        return Ok(None);
    }
    let mut body = vec![0; length];
    match reader.read_exact(&mut body) {
        Ok(()) => Ok((check(&body) == sum).then_some(body)),
        Err(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(cause) => Err(cause),
    }
}

fn check(body: &[u8]) -> [u8; 4] {
    crc32fast::hash(body).to_le_bytes()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use crate::home::RecordState;
    use weir_protocol::amount::{Amount, Time};
    use weir_protocol::channel::ChannelTerms;
    use weir_protocol::commit::{Commit, SignedCommit};
    use weir_protocol::hash::Hash;
    use weir_protocol::id::AccountId;
    use weir_protocol::keys::PublicKey;
    use weir_protocol::merkle::Path;
    use weir_protocol::payment::Payment;

    fn lane() -> LaneRecord {
        let terms = ChannelTerms {
            hub: HubId(PublicKey([1; 32])),
            account: AccountId(PublicKey([2; 32])),
            scheme: 0,
            key: PublicKey([3; 32]),
            currency: "EUR".parse().unwrap(),
            capacity: Amount::from_nanos(10),
            opened_at: Time(1),
            expires_at: Time(2),
            renew: false,
            salt: [4; 32],
        };
        LaneRecord { terms, grant: terms.lane_zero(), state: RecordState::Done }
    }

    fn group(first: u64, count: u64) -> PaidGroup {
        let payments: Vec<_> = (first..first + count)
            .map(|sequence| {
                let mut reference = [0; 32];
                reference[24..].copy_from_slice(&sequence.to_le_bytes());
                let payee = AccountId(PublicKey([9; 32]));
                let amount = Amount::from_nanos(sequence);
                Payment { payee, amount, reference: Reference(reference) }
            })
            .collect();
        let sequence = first + count - 1;
        let head = Head { state: Hash([5; 32]), sequence, total: Amount::ZERO, valid_until: Time(0) };
        let commit = Commit {
            hub: HubId(PublicKey([1; 32])),
            chain: 1,
            number: first,
            time: Time(1),
            history: Hash::ZERO,
            items: 1,
            root: Hash::ZERO,
        };
        let answer = Answer {
            first_sequence: first,
            through_sequence: sequence,
            count: count as u32,
            leaves: Hash::ZERO,
            commit: SignedCommit { commit, signature: Signature::ZERO },
            path: Path { index: 0, count: 1, hashes: Vec::new() },
        };
        let record = lane();
        PaidGroup::new(
            (record.terms.hub, record.id(), record.terms.currency),
            vec![Run::new(first, &payments).unwrap()],
            (head, Signature::ZERO),
            answer,
        )
    }

    #[test]
    fn log_torn_or_damaged_at_any_byte_keeps_the_groups_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("paid.log");
        let mut log = PaidLog::open(path.clone(), &lane(), true).unwrap();
        log.append(&group(1, 3)).unwrap();
        let first = log.end;
        log.append(&group(10, 2)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() as u64 {
            std::fs::write(&path, whole.get(..cut as usize).unwrap()).unwrap();
            let log = PaidLog::open(path.clone(), &lane(), true).unwrap();
            let expected = usize::from(cut >= first);
            assert_eq!(log.counts().0, expected);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), if cut >= first { first } else { 0 });
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            *bytes.get_mut(at).unwrap() ^= 0x10;
            std::fs::write(&path, bytes).unwrap();
            let log = PaidLog::open(path.clone(), &lane(), true).unwrap();
            assert_eq!(log.counts().0, usize::from(at as u64 >= first));
        }
    }

    #[test]
    fn reference_is_found_again_after_opening_and_unknown_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("paid.log");
        let mut log = PaidLog::open(path.clone(), &lane(), true).unwrap();
        for first in [1, 100, 300] {
            log.append(&group(first, 50)).unwrap();
        }
        drop(log);
        let mut log = PaidLog::open(path, &lane(), true).unwrap();
        assert_eq!(log.counts(), (3, 150));
        assert_eq!(log.head().sequence, 349);
        for first in [1, 100, 300] {
            for (index, (sequence, payment)) in group(first, 50).payments().enumerate() {
                let (found, at) = log.find(&payment.reference).unwrap().unwrap();
                assert_eq!((found.payment(at).unwrap().0, at), (sequence, index));
            }
        }
        assert!(log.find(&Reference([7; 32])).unwrap().is_none());
        // Another reference with the same fingerprint is still told apart.
        let new = group(400, 1);
        let (_, Payment { reference, .. }) = new.payment(0).unwrap();
        log.index.insert(log.hasher.hash_one(reference.0), 0);
        assert!(log.may_have(&reference));
        assert!(log.find(&reference).unwrap().is_none());
        log.append(&new).unwrap();
        assert_eq!(log.find(&reference).unwrap().unwrap().0.head.sequence, 400);
    }

    #[test]
    fn groups_are_read_by_number_beyond_the_places_that_are_noted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("paid.log");
        let mut log = PaidLog::open(path.clone(), &lane(), true).unwrap();
        let count = STRIDE as u64 * 2 + 5;
        for at in 0..count {
            log.append(&group(1 + at * 3, 1 + at % 3)).unwrap();
        }
        let beside = PaidLog::open(path, &lane(), false).unwrap();
        for log in [&log, &beside] {
            for at in 0..count {
                assert_eq!(log.group(at as usize).unwrap().payment(0).unwrap().0, 1 + at * 3);
            }
            assert!(log.group(count as usize).is_err());
        }
        let mut beside = beside;
        assert!(beside.append(&group(10_000, 1)).is_err(), "a home that is not held is not written");
    }
}
