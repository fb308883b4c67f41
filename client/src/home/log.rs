//! A lane's paid groups, appended as they are answered, and found again by reference.
//!
//! One record = body length (u32, little-endian) ‖ first 4 bytes of the body's SHA-256 ‖ body. Each group starts from the
//! head that the one before led to, so what is kept is a prefix of the lane. Never synced: what is missing or torn at the
//! end is cut, and read again from the hub.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_protocol::amount::Currency;
use weir_protocol::commit::Answer;
use weir_protocol::hash::sha256;
use weir_protocol::id::{HubId, LaneId, Reference};
use weir_protocol::keys::Signature;
use weir_protocol::lane::payer::PaidGroup;
use weir_protocol::payment::{Head, Payment};

use super::{LaneRecord, files};
use crate::error::HomeError;

/// Most bytes of a record's body; a group of 1,024 payments takes less than half.
const MAX_BODY: usize = 256 * 1024;
const PREFIX: usize = 8;

/// A group as it is written. Hub, lane and currency are the file's.
#[derive(Serialize, Deserialize)]
struct Record {
    previous: Head,
    payments: Vec<(u64, Payment)>,
    head: Head,
    signature: Signature,
    answer: Answer,
}

/// The log, and where each reference is in it.
#[derive(Debug)]
pub(crate) struct PaidLog {
    path: PathBuf,
    file: File,
    names: (HubId, LaneId, Currency),
    /// Where each group's record starts, and its body's length.
    places: Vec<(u64, u32)>,
    end: u64,
    head: Head,
    /// Eight bytes of a reference's hash → its group. Ambiguous ones are in `others` whole.
    groups: HashMap<u64, u32>,
    others: HashMap<Reference, u32>,
    payments: u64,
    /// The group that was read last: retries of a batch ask for the same one again and again.
    last: Option<(u32, Arc<PaidGroup>)>,
}

impl PaidLog {
    /// Opens the log and reads it through. What is torn at its end is cut when the home is held.
    pub(super) fn open(path: PathBuf, record: &LaneRecord, held: bool) -> Result<Self, HomeError> {
        let mut options = File::options();
        options.read(true);
        if held {
            options.write(true).create(true).truncate(false);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        let file = options.open(&path).map_err(|cause| files::io("open", &path, cause))?;
        let lane = record.id();
        let mut log = Self {
            path,
            file,
            names: (record.terms.hub, lane, record.terms.currency),
            places: Vec::new(),
            end: 0,
            head: Head::empty(&lane),
            groups: HashMap::new(),
            others: HashMap::new(),
            payments: 0,
            last: None,
        };
        log.scan()?;
        if held {
            log.file.set_len(log.end).map_err(|cause| files::io("cut", &log.path, cause))?;
        }
        Ok(log)
    }

    fn scan(&mut self) -> Result<(), HomeError> {
        let io = |path: &PathBuf, cause| files::io("read", path, cause);
        let mut file = self.file.try_clone().map_err(|cause| io(&self.path, cause))?;
        file.seek(SeekFrom::Start(0)).map_err(|cause| io(&self.path, cause))?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        while let Some(body) = next_body(&mut reader).map_err(|cause| io(&self.path, cause))? {
            let Ok(record) = postcard::from_bytes::<Record>(&body) else { break };
            if record.previous != self.head {
                break;
            }
            self.note(&record.payments, record.head, body.len())?;
        }
        Ok(())
    }

    /// The head that the kept groups lead to.
    pub(crate) const fn head(&self) -> &Head {
        &self.head
    }

    /// How many groups and payments are kept.
    pub(crate) const fn counts(&self) -> (usize, u64) {
        (self.places.len(), self.payments)
    }

    /// Appends a group, which must start where the last one ended.
    pub(crate) fn append(&mut self, group: &PaidGroup) -> Result<(), HomeError> {
        let record = Record {
            previous: self.head,
            payments: group.payments.clone(),
            head: group.head,
            signature: group.signature,
            answer: group.answer.clone(),
        };
        let damaged = |cause: &str| HomeError::Damaged { path: self.path.clone(), cause: cause.to_owned() };
        let body = postcard::to_stdvec(&record).map_err(|_| damaged("a group does not encode"))?;
        let length = u32::try_from(body.len()).map_err(|_| damaged("a group is too long"))?;
        let mut bytes = Vec::with_capacity(PREFIX + body.len());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&check(&body));
        bytes.extend_from_slice(&body);
        let io = |cause| files::io("write", &self.path, cause);
        self.file.seek(SeekFrom::Start(self.end)).map_err(io)?;
        self.file.write_all(&bytes).map_err(io)?;
        self.note(&record.payments, record.head, body.len())
    }

    fn note(&mut self, payments: &[(u64, Payment)], head: Head, length: usize) -> Result<(), HomeError> {
        let full =
            || HomeError::Damaged { path: self.path.clone(), cause: "more groups than can be counted".to_owned() };
        let number = u32::try_from(self.places.len()).map_err(|_| full())?;
        let body = u32::try_from(length).map_err(|_| full())?;
        for (_, payment) in payments {
            let old = self.groups.entry(fingerprint(&payment.reference)).or_insert(number);
            if *old != number {
                // The same reference again, or another with the same eight bytes: the first one keeps the short name.
                self.others.entry(payment.reference).or_insert(number);
            }
        }
        self.places.push((self.end, body));
        self.end += (PREFIX + length) as u64;
        self.head = head;
        self.payments += payments.len() as u64;
        Ok(())
    }

    /// The payment with this reference, if it is kept.
    pub(crate) fn find(&mut self, reference: &Reference) -> Result<Option<(Arc<PaidGroup>, usize)>, HomeError> {
        let short = self.groups.get(&fingerprint(reference)).copied();
        let other = self.others.get(reference).copied();
        for number in short.into_iter().chain(other) {
            let group = self.remembered(number)?;
            let index = group.payments.iter().position(|(_, payment)| payment.reference == *reference);
            if let Some(index) = index {
                return Ok(Some((group, index)));
            }
        }
        Ok(None)
    }

    fn remembered(&mut self, number: u32) -> Result<Arc<PaidGroup>, HomeError> {
        if let Some((last, group)) = &self.last
            && *last == number
        {
            return Ok(Arc::clone(group));
        }
        let group = Arc::new(self.group(number as usize)?);
        self.last = Some((number, Arc::clone(&group)));
        Ok(group)
    }

    /// A kept group, by number from 0.
    pub(crate) fn group(&self, number: usize) -> Result<PaidGroup, HomeError> {
        let damaged = || HomeError::Damaged { path: self.path.clone(), cause: format!("group {number} is not there") };
        let (start, length) = *self.places.get(number).ok_or_else(damaged)?;
        let io = |cause| files::io("read", &self.path, cause);
        let mut file = &self.file;
        file.seek(SeekFrom::Start(start)).map_err(io)?;
        let body =
            next_body(&mut file).map_err(io)?.filter(|body| body.len() == length as usize).ok_or_else(damaged)?;
        let record: Record = postcard::from_bytes(&body).map_err(|_| damaged())?;
        Ok(PaidGroup::new(self.names, record.payments, (record.head, record.signature), record.answer))
    }

    /// Makes what is kept durable: when a client stops, not before.
    pub(crate) fn sync(&self) -> Result<(), HomeError> {
        self.file.sync_data().map_err(|cause| files::io("sync", &self.path, cause))
    }
}

/// The next record's body; `None` at the end and where a record is torn or damaged.
fn next_body(reader: &mut impl std::io::Read) -> std::io::Result<Option<Vec<u8>>> {
    let mut prefix = [0; PREFIX];
    match reader.read_exact(&mut prefix) {
        Ok(()) => {}
        Err(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(cause) => return Err(cause),
    }
    let [a, b, c, d, sum @ ..] = prefix;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > MAX_BODY {
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
    let [a, b, c, d, ..] = sha256(body).0;
    [a, b, c, d]
}

/// Eight bytes that any reference may share with another: a hit is looked up.
fn fingerprint(reference: &Reference) -> u64 {
    let hash = sha256(&reference.0);
    let mut short = [0; 8];
    short.copy_from_slice(hash.0.split_at(8).0);
    u64::from_le_bytes(short)
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
                (sequence, Payment { payee, amount, reference: Reference(reference) })
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
            payments,
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
            for (index, (sequence, payment)) in group(first, 50).payments.iter().enumerate() {
                let (found, at) = log.find(&payment.reference).unwrap().unwrap();
                assert_eq!((found.payments.get(at).unwrap().0, at), (*sequence, index));
            }
        }
        assert!(log.find(&Reference([7; 32])).unwrap().is_none());
        // Another reference under the same eight bytes is still told apart.
        let new = group(400, 1);
        let reference = new.payments.first().unwrap().1.reference;
        log.groups.insert(fingerprint(&reference), 0);
        log.append(&new).unwrap();
        assert_eq!(log.find(&reference).unwrap().unwrap().0.head.sequence, 400);
    }
}
