//! What a client keeps on disk, in one folder that one process holds.
//!
//! ```text
//! config.json       the hub's address and the account
//! lock              held while a process may pay
//! keys/KEY          a secret, sealed; the name is the public key; mode 0600
//! channels/ID.json  terms, and whether the hub has them
//! lanes/ID/lane.json, mark, paid.log
//! certificates.json the hub's, oldest first
//! newest            the newest commit that the hub signed
//! credits.json      how far this account's credits were acknowledged
//! receipts/  evidence/
//! ```
//!
//! What must not be lost is written to a temporary file, synced, renamed, and its folder synced: keys, records, marks. A
//! lane's log of paid groups is not synced: what a crash takes from it is read again from the hub.

pub(crate) mod files;
mod index;
mod keys;
mod log;

use std::collections::HashSet;
use std::fs::TryLockError;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use weir_protocol::channel::{ChannelTerms, LaneGrant};
use weir_protocol::commit::{SignedCertificate, SignedCommit};
use weir_protocol::hash::sha256;
use weir_protocol::id::{AccountId, ChannelId, HubAddress, LaneId, Reference};
use weir_protocol::keys::{PublicKey, SecretKey};
use weir_protocol::lane::payer::PaidGroup;
use weir_protocol::receipt::ReceiptFile;
use weir_protocol::wire::Cursor;

use files::Held;
pub use keys::{KeySealer, PlainKeys, Sealer};
pub(crate) use log::PaidLog;

use crate::connection;
use crate::error::{Error, HomeError, HubEvidence, MisuseError};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    hub: HubAddress,
    account: AccountId,
}

/// Whether the hub has what was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordState {
    /// Signed and sent, not answered: sent again byte for byte before anything new is signed.
    Pending,
    /// The hub took it.
    Done,
}

/// A channel that this home signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelRecord {
    /// As signed when it was opened.
    pub terms: ChannelTerms,
    /// Whether the hub has it.
    pub state: RecordState,
}

/// A lane that this home can pay with, or granted to somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaneRecord {
    /// The channel's terms.
    pub terms: ChannelTerms,
    /// As granted.
    pub grant: LaneGrant,
    /// Whether the hub has it.
    pub state: RecordState,
}

impl LaneRecord {
    /// The lane's id.
    pub fn id(&self) -> LaneId {
        self.grant.id()
    }
}

/// A client's folder.
#[derive(Debug, Clone)]
pub struct Home {
    path: Arc<Path>,
    config: Arc<Config>,
    sealer: Sealer,
    /// Held as long as any clone lives; none when the home was opened beside another process.
    lock: Option<Arc<Held>>,
    /// The lanes that a task of this process drives: never two for one.
    driven: Arc<Mutex<HashSet<LaneId>>>,
}

/// The right to drive a lane, until it is dropped.
#[derive(Debug)]
pub(crate) struct Driving {
    lane: LaneId,
    driven: Arc<Mutex<HashSet<LaneId>>>,
}

impl Drop for Driving {
    fn drop(&mut self) {
        connection::lock(&self.driven).remove(&self.lane);
    }
}

impl Home {
    /// Makes a home for a new account at this hub. The folder may exist; it must not hold a home.
    pub fn create(path: impl AsRef<Path>, hub: &HubAddress, sealer: Sealer) -> Result<Self, HomeError> {
        let path = path.as_ref();
        files::create_folder(path)?;
        let lock = lock(path)?;
        if path.join("config.json").exists() {
            return Err(HomeError::Exists(path.to_owned()));
        }
        create_folders(path)?;
        let key = keys::create(path, &sealer)?;
        let config = Config { hub: hub.clone(), account: AccountId(key.public()) };
        files::write_json(&path.join("config.json"), &config)?;
        Ok(Self { path: path.into(), config: Arc::new(config), sealer, lock: Some(lock), driven: Arc::default() })
    }

    /// Opens a home and holds it: no other process can.
    pub fn open(path: impl AsRef<Path>, sealer: Sealer) -> Result<Self, HomeError> {
        let mut home = Self::open_shared(path, sealer)?;
        home.lock = Some(lock(&home.path)?);
        create_folders(&home.path)?;
        Ok(home)
    }

    /// Opens a home beside a process that may hold it: to ask, to receive, and for acts on the account. It cannot pay, open
    /// channels or grant lanes.
    pub fn open_shared(path: impl AsRef<Path>, sealer: Sealer) -> Result<Self, HomeError> {
        let path = path.as_ref();
        let config: Config =
            files::read_json(&path.join("config.json"))?.ok_or_else(|| HomeError::Missing(path.to_owned()))?;
        Ok(Self { path: path.into(), config: Arc::new(config), sealer, lock: None, driven: Arc::default() })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The hub.
    pub fn hub(&self) -> &HubAddress {
        &self.config.hub
    }

    /// Gives the hub another host and port; its identity stays.
    pub fn set_hub_place(&mut self, host: &str, port: u16) -> Result<(), Error> {
        self.writable()?;
        let hub = HubAddress { hub: self.config.hub.hub, host: host.to_owned(), port };
        let config = Config { hub, account: self.config.account };
        files::write_json(&self.path.join("config.json"), &config)?;
        self.config = Arc::new(config);
        Ok(())
    }

    /// The account.
    pub fn account(&self) -> AccountId {
        self.config.account
    }

    /// Whether this process holds the home.
    pub const fn is_held(&self) -> bool {
        self.lock.is_some()
    }

    pub(crate) fn writable(&self) -> Result<(), MisuseError> {
        if self.is_held() { Ok(()) } else { Err(MisuseError::HomeShared) }
    }

    // ---- keys -------------------------------------------------------------------------------------------------------

    /// The account's key.
    pub fn account_key(&self) -> Result<SecretKey, HomeError> {
        self.key(&self.account().key())
    }

    /// A fresh key, stored durably before it is given: one for each channel and lane.
    pub fn new_key(&self) -> Result<SecretKey, Error> {
        self.writable()?;
        Ok(keys::create(&self.path, &self.sealer)?)
    }

    /// The secret of a public key of this home.
    pub fn key(&self, public: &PublicKey) -> Result<SecretKey, HomeError> {
        keys::read(&self.path, &self.sealer, public)
    }

    /// Whether this home has the secret of a public key.
    pub fn has_key(&self, public: &PublicKey) -> bool {
        keys::path(&self.path, public).exists()
    }

    // ---- channels and lanes -----------------------------------------------------------------------------------------

    /// Every channel that this home signed, by id.
    pub fn channels(&self) -> Result<Vec<ChannelRecord>, HomeError> {
        files::read_folder(&self.path.join("channels"), |path| Some(path.to_owned()))
    }

    /// One channel.
    pub fn channel(&self, channel: &ChannelId) -> Result<ChannelRecord, Error> {
        let found = files::read_json(&self.channel_path(channel))?;
        Ok(found.ok_or(MisuseError::UnknownChannel(*channel))?)
    }

    /// Keeps a channel, durably.
    pub(crate) fn keep_channel(&self, record: &ChannelRecord) -> Result<(), Error> {
        self.writable()?;
        Ok(files::write_json(&self.channel_path(&record.terms.id()), record)?)
    }

    /// Forgets a channel that the hub refused.
    pub(crate) fn forget_channel(&self, channel: &ChannelId) -> Result<(), Error> {
        self.writable()?;
        Ok(files::remove(&self.channel_path(channel))?)
    }

    /// Every lane of this home, by id.
    pub fn lanes(&self) -> Result<Vec<LaneRecord>, HomeError> {
        files::read_folder(&self.path.join("lanes"), |folder| Some(folder.join("lane.json")))
    }

    /// One lane.
    pub fn lane(&self, lane: &LaneId) -> Result<LaneRecord, Error> {
        let found = files::read_json(&self.lane_folder(lane).join("lane.json"))?;
        Ok(found.ok_or(MisuseError::UnknownLane(*lane))?)
    }

    /// Keeps a lane, durably: one of this home's channels, or one that somebody granted to a key of this home.
    pub fn keep_lane(&self, record: &LaneRecord) -> Result<(), Error> {
        self.writable()?;
        if record.terms.hub != self.hub().hub {
            return Err(MisuseError::OtherHub.into());
        }
        let folder = self.lane_folder(&record.id());
        files::create_folder(&folder)?;
        Ok(files::write_json(&folder.join("lane.json"), record)?)
    }

    /// Forgets a lane that the hub refused. Nothing was ever paid with it.
    pub(crate) fn forget_lane(&self, lane: &LaneId) -> Result<(), Error> {
        self.writable()?;
        Ok(files::remove(&self.lane_folder(lane).join("lane.json"))?)
    }

    /// The right to drive a lane: once in a process, and the lock keeps other processes out.
    pub(crate) fn drive(&self, lane: LaneId) -> Result<Driving, MisuseError> {
        self.writable()?;
        if !connection::lock(&self.driven).insert(lane) {
            return Err(MisuseError::LaneInUse(lane));
        }
        Ok(Driving { lane, driven: Arc::clone(&self.driven) })
    }

    /// Every sequence up to here may have been used; 0 for a lane that never paid.
    pub(crate) fn mark(&self, lane: &LaneId) -> Result<u64, HomeError> {
        let path = self.lane_folder(lane).join("mark");
        let Some(bytes) = files::read(&path)? else { return Ok(0) };
        let text = String::from_utf8_lossy(&bytes);
        text.trim().parse().map_err(|_| HomeError::Damaged { path, cause: "not a number".to_owned() })
    }

    /// Reserves sequences durably. Blocking: one sync for each block.
    pub(crate) fn set_mark(&self, lane: &LaneId, mark: u64) -> Result<(), HomeError> {
        files::write(&self.lane_folder(lane).join("mark"), format!("{mark}\n").as_bytes())
    }

    /// The lane's log of paid groups.
    pub(crate) fn log(&self, record: &LaneRecord) -> Result<PaidLog, HomeError> {
        PaidLog::open(self.lane_folder(&record.id()).join("paid.log"), record, self.is_held())
    }

    /// A payment that a lane of this home made, by its reference; `None` when none is kept. Reads the lane's whole log: for
    /// one look-up beside the process that pays. [`crate::Lane::find`] is for many.
    pub fn find_paid(&self, lane: &LaneId, reference: &Reference) -> Result<Option<(Arc<PaidGroup>, usize)>, Error> {
        Ok(self.read_log(lane)?.map_or(Ok(None), |mut log| log.find(reference))?)
    }

    /// The groups that a lane of this home paid, oldest first: those from number `from` on, at most `count`.
    pub fn paid_groups(&self, lane: &LaneId, from: usize, count: usize) -> Result<Vec<PaidGroup>, Error> {
        let Some(log) = self.read_log(lane)? else { return Ok(Vec::new()) };
        let numbers = (from..log.counts().0).take(count);
        Ok(numbers.map(|number| log.group(number)).collect::<Result<_, _>>()?)
    }

    fn read_log(&self, lane: &LaneId) -> Result<Option<PaidLog>, Error> {
        let record = self.lane(lane)?;
        let path = self.lane_folder(lane).join("paid.log");
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(PaidLog::open(path, &record, false)?))
    }

    fn channel_path(&self, channel: &ChannelId) -> PathBuf {
        self.path.join("channels").join(format!("{channel}.json"))
    }

    fn lane_folder(&self, lane: &LaneId) -> PathBuf {
        self.path.join("lanes").join(lane.to_string())
    }

    // ---- what the hub said ------------------------------------------------------------------------------------------

    /// The hub's certificates that were seen, oldest first.
    pub fn certificates(&self) -> Result<Vec<SignedCertificate>, HomeError> {
        Ok(files::read_json(&self.path.join("certificates.json"))?.unwrap_or_default())
    }

    pub(crate) fn keep_certificates(&self, certificates: &[SignedCertificate]) -> Result<(), HomeError> {
        files::write_json(&self.path.join("certificates.json"), &certificates)
    }

    /// The newest commit that the hub signed for this home: an older newest one at the hub reveals a rollback.
    pub fn newest(&self) -> Result<Option<SignedCommit>, HomeError> {
        files::read_json(&self.path.join("newest"))
    }

    /// Not synced: losing the last ones only makes the check weaker.
    pub(crate) fn keep_newest(&self, newest: &SignedCommit) -> Result<(), HomeError> {
        files::replace_json(&self.path.join("newest"), newest)
    }

    /// How far this account's credits were acknowledged.
    pub fn credit_cursor(&self) -> Result<Cursor, HomeError> {
        Ok(files::read_json(&self.path.join("credits.json"))?.unwrap_or_default())
    }

    pub(crate) fn keep_credit_cursor(&self, cursor: Cursor) -> Result<(), HomeError> {
        files::write_json(&self.path.join("credits.json"), &cursor)
    }

    /// Writes a receipt to `receipts/`, named by its payment; the path is the answer.
    pub fn keep_receipt(&self, receipt: &ReceiptFile) -> Result<PathBuf, HomeError> {
        let path = self.path.join("receipts").join(format!("{}.json", receipt.receipt.payment_id));
        files::write_json(&path, receipt)?;
        Ok(path)
    }

    /// Writes evidence to `evidence/`, named by its content; the path is the answer.
    pub fn keep_evidence(&self, evidence: &HubEvidence) -> Result<PathBuf, HomeError> {
        let file = ContradictionFile {
            format: "weir-contradiction/1",
            hub: self.hub(),
            certificates: self.certificates()?,
            evidence,
        };
        let folder = self.path.join("evidence");
        let bytes = files::to_json(&folder, &file)?;
        let name = sha256(&bytes).to_string();
        let path = folder.join(format!("{}.json", name.get(..16).unwrap_or(&name)));
        files::write(&path, &bytes)?;
        Ok(path)
    }
}

#[derive(Serialize)]
struct ContradictionFile<'a> {
    format: &'static str,
    hub: &'a HubAddress,
    certificates: Vec<SignedCertificate>,
    evidence: &'a HubEvidence,
}

/// What is in a home; a restored one may lack some.
fn create_folders(home: &Path) -> Result<(), HomeError> {
    ["keys", "channels", "lanes", "receipts", "evidence"]
        .iter()
        .try_for_each(|folder| files::create_folder(&home.join(folder)))
}

fn lock(path: &Path) -> Result<Arc<Held>, HomeError> {
    let place = path.join("lock");
    Held::take(&place).map(Arc::new).map_err(|cause| match cause {
        TryLockError::WouldBlock => HomeError::Locked(path.to_owned()),
        TryLockError::Error(cause) => files::io("lock", &place, cause),
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use weir_protocol::id::HubId;

    fn address() -> HubAddress {
        HubAddress { hub: HubId(PublicKey([7; 32])), host: "localhost".to_owned(), port: 4433 }
    }

    #[test]
    fn home_is_made_once_held_by_one_process_and_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::create(folder.path(), &address(), PlainKeys::sealer()).unwrap();
        let account = home.account();
        assert_eq!(home.account_key().unwrap().public(), account.key());
        assert!(matches!(Home::open(folder.path(), PlainKeys::sealer()), Err(HomeError::Locked(_))));
        let shared = Home::open_shared(folder.path(), PlainKeys::sealer()).unwrap();
        assert!(matches!(shared.new_key(), Err(Error::Misuse(MisuseError::HomeShared))));
        drop(home);
        let again = Home::open(folder.path(), PlainKeys::sealer()).unwrap();
        assert_eq!((again.account(), again.hub()), (account, &address()));
        assert!(matches!(
            Home::create(folder.path(), &address(), PlainKeys::sealer()),
            Err(HomeError::Locked(_) | HomeError::Exists(_))
        ));
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(Home::open(empty.path(), PlainKeys::sealer()), Err(HomeError::Missing(_))));
    }

    #[test]
    fn mark_and_cursor_are_kept_and_a_damaged_mark_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::create(folder.path(), &address(), PlainKeys::sealer()).unwrap();
        let lane = LaneId([3; 32]);
        assert_eq!(home.mark(&lane).unwrap(), 0);
        files::create_folder(&home.lane_folder(&lane)).unwrap();
        home.set_mark(&lane, 1 << 20).unwrap();
        assert_eq!(home.mark(&lane).unwrap(), 1 << 20);
        std::fs::write(home.lane_folder(&lane).join("mark"), "soon").unwrap();
        assert!(matches!(home.mark(&lane), Err(HomeError::Damaged { .. })));
        assert_eq!(home.credit_cursor().unwrap(), Cursor::default());
        home.keep_credit_cursor(Cursor { chain: 5, number: 9 }).unwrap();
        assert_eq!(home.credit_cursor().unwrap(), Cursor { chain: 5, number: 9 });
    }
}
