//! From a data directory to a running pipeline: the anchor is asked, the journal is read, a new chain is opened.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};

use tokio::sync::{Semaphore, broadcast, watch};
use weir_protocol::act::{Act, Chain, Policy};
use weir_protocol::amount::Time;
use weir_protocol::commit::SignedCertificate;
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, HubId};
use weir_protocol::keys::SecretKey;
use weir_protocol::payment::Run;
use weir_protocol::reject::Reject;

use super::committer::CommitterThread;
use super::compact::{self, ReplayError};
use super::gate::TimeGate;
use super::handle::{CREDIT_QUEUE, Door, Handle, Health, Inner, ReplyTo, SHARD_QUEUE, shard_of};
use super::shard::{BATCHES_AHEAD, ShardThread};
use crate::clock::{Clock, wall_ms};
use crate::engine::channels::Channels;
use crate::engine::committer::{Committer, Seal, Start};
use crate::engine::operators::QUORUM;
use crate::engine::record::{ItemRecord, Record};
use crate::engine::said::About;
use crate::engine::shard::{Shard, about};
use crate::engine::state::Depth;
use crate::store::anchor::{ANCHOR_INTERVAL, Anchor, AnchorRecord, AnchorState};
use crate::store::disk::DiskStore;
use crate::store::index::{Index, IndexKey, KeysOf};
use crate::store::journal::JournalOptions;
use crate::store::{Store as _, StoreError};

/// Messages that wait for the committer.
const COMMITTER_QUEUE: usize = 1024;

/// What a pipeline is started with.
#[derive(Debug)]
pub struct Settings {
    /// The data directory.
    pub data: PathBuf,
    /// The anchor's file.
    pub anchor: Option<PathBuf>,
    /// The last commit of an old copy with which the operator wants to go on.
    pub accept_rollback: Option<u64>,
    /// Shards.
    pub shards: usize,
    /// Size of a journal segment.
    pub segment_bytes: u64,
    /// The rules from now on.
    pub policy: Policy,
    /// The hub.
    pub hub: HubId,
    /// Signs commits.
    pub key: SecretKey,
    /// Certifies that key.
    pub certificate: SignedCertificate,
    /// 32 random bytes.
    pub secret: [u8; 32],
}

/// Why a pipeline does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// An old copy of the data.
    #[error(
        "this data directory is an old copy: it ends at commit {last}, and commit {anchor} is known to have been made (anchor `{path}`)"
    )]
    Rollback {
        /// Its last commit.
        last: u64,
        /// The anchor's.
        anchor: u64,
        /// The anchor.
        path: PathBuf,
    },
    /// An old copy that went on by itself.
    #[error("commit {number} of this data directory is not the one that the anchor `{path}` knows")]
    Diverged {
        /// The number.
        number: u64,
        /// The anchor.
        path: PathBuf,
    },
    /// The anchor of another hub.
    #[error("the anchor `{path}` is another hub's")]
    Foreign {
        /// The anchor.
        path: PathBuf,
    },
    /// The operator named another commit than the last one.
    #[error("`--accept-rollback {named}` does not name the last commit of this data directory, which is {last}")]
    OtherCommit {
        /// What was named.
        named: u64,
        /// The last commit.
        last: u64,
    },
    /// The certificate does not cover the time.
    #[error("the signing key's certificate does not cover the present time, or is not this hub's")]
    Certificate,
    /// Fewer approvals than operators were promised.
    #[error(
        "`policy.approvals` cannot be lowered from {known} to {asked} while two operators or more stand: four eyes would be \
         none if whoever holds the machine could close two of them"
    )]
    Approvals {
        /// What the settings say.
        asked: u32,
        /// What holds.
        known: u32,
    },
    /// The first commit was refused.
    #[error("the hub's own first acts are refused: {0}")]
    Opening(Reject),
    /// A thread cannot be made.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

impl StartError {
    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Rollback { last, .. } => Some(format!(
                "find the newest copy. Going on with this one breaks promises that were made since; if that is what you \
                 want, start with `--accept-rollback {last}`"
            )),
            Self::Approvals { known, .. } => Some(format!(
                "set it to {known} and start the hub; once operators have revoked each other down to one, it may be lowered"
            )),
            Self::Certificate => Some("renew it with `weir-hub certify`".into()),
            _ => None,
        }
    }
}

/// Starts a pipeline. When it returns, the first commit of the new chain is durable.
pub fn start(settings: Settings) -> Result<Handle, StartError> {
    let certificate = settings.certificate.certificate;
    let clock = Arc::new(Clock::until(certificate.not_after));
    let now = Time(wall_ms());
    let covered = certificate.not_before <= now && now < certificate.not_after;
    if settings.certificate.check(&settings.hub).is_err() || !covered || certificate.key != settings.key.public() {
        return Err(StartError::Certificate);
    }
    let anchor = settings.anchor.as_deref().map(AnchorRecord::read).transpose()?.flatten();
    let floor = if settings.accept_rollback.is_some() { 0 } else { anchor.map_or(0, |anchor| anchor.number) };
    let options = JournalOptions { segment_bytes: settings.segment_bytes, floor, ..JournalOptions::default() };
    let mut store = DiskStore::open(&settings.data, options)?;
    let given_up = check_anchor(&settings, anchor, &store)?;
    // Before the state: checking it takes memory for a moment, which the state then fills.
    let index = Arc::new(Index::open(&settings.data.join("index"), store.reader(), keys_of())?);
    store.attach_index(Arc::clone(&index));
    let mut state = compact::load(settings.hub, &store.snapshots())?;
    compact::replay(&mut state, Depth::Rules, |from, each| store.scan(from, each), &mut |_| ())?;

    let (books, channels, history, last) = state.into_parts();
    let seen = last.map_or(0, |last| last.chain).max(anchor.map_or(0, |anchor| anchor.chain));
    let chain = now.0.max(seen + 1);
    let anchor = match &settings.anchor {
        None => None,
        Some(path) => {
            let record = AnchorRecord {
                hub: settings.hub.key().0,
                chain,
                number: last.map_or(0, |last| last.number),
                id: last.map_or([0; 32], |last| last.id().0),
            };
            Some(Anchor::start(path.clone(), record, ANCHOR_INTERVAL)?)
        }
    };

    let known_policy = books.policy().clone();
    let known_certificate = books.certificate_at(now).copied();
    let mut committer = Committer::new(Start {
        hub: settings.hub,
        chain,
        last,
        history,
        books,
        key: SecretKey::from_bytes(&settings.key.to_bytes()).map_err(|_| StartError::Certificate)?,
        secret: settings.secret,
    });
    let torn = store.cut().map_or(0, |cut| cut.number);
    let opening = Chain {
        previous_chain: last.map_or(0, |last| last.chain),
        kept_number: last.map_or(0, |last| last.number),
        kept_id: last.map_or(Hash::ZERO, |last| last.id()),
        cut: given_up.max(torn),
    };
    committer.begin(now);
    let new_certificate = (known_certificate != Some(settings.certificate)).then_some(&settings.certificate);
    committer.open_chain(opening, new_certificate).map_err(StartError::Opening)?;
    if known_policy != settings.policy {
        let (asked, known) = (settings.policy.approvals, known_policy.approvals);
        if asked < known && committer.books().operators().standing() >= QUORUM {
            return Err(StartError::Approvals { asked, known });
        }
        committer.act(Act::Policy(settings.policy.clone()), None, None).map_err(StartError::Opening)?;
    }
    let mut newest = None;
    if let Some(Seal::Commit(sealed)) = committer.seal() {
        let durable = store.append(chain, sealed.position, &sealed.payload)?;
        newest = Some(sealed.release(&durable).1);
        if let Some(anchor) = &anchor {
            anchor.note(durable.position());
        }
    }
    run(settings, clock, store, index, committer, channels, anchor, newest)
}

/// Compares the journal with the anchor; the number of the newest commit that is given up, or 0.
fn check_anchor(settings: &Settings, anchor: Option<AnchorRecord>, store: &DiskStore) -> Result<u64, StartError> {
    let (Some(anchor), Some(path)) = (anchor, settings.anchor.clone()) else { return Ok(0) };
    let last = store.last().map_or(0, |last| last.number);
    if let Some(named) = settings.accept_rollback.filter(|named| *named != last) {
        return Err(StartError::OtherCommit { named, last });
    }
    let accepted = settings.accept_rollback.is_some();
    let ids = store.ids();
    match anchor.check(settings.hub.key().0, store.last(), |number| ids.id(number))? {
        AnchorState::Absent | AnchorState::Same => Ok(0),
        AnchorState::Behind { anchor, .. } if accepted => Ok(anchor),
        AnchorState::Behind { last, anchor } => Err(StartError::Rollback { last, anchor, path }),
        AnchorState::Diverged { number } if accepted => Ok(number),
        AnchorState::Diverged { number } => Err(StartError::Diverged { number, path }),
        AnchorState::Foreign { .. } => Err(StartError::Foreign { path }),
    }
}

#[expect(clippy::too_many_arguments, reason = "one caller; these are the parts that the threads take over")]
fn run(
    settings: Settings,
    clock: Arc<Clock>,
    store: DiskStore,
    index: Arc<Index>,
    committer: Committer<ReplyTo>,
    channels: Channels,
    anchor: Option<Anchor>,
    newest: Option<Arc<crate::engine::record::Proven>>,
) -> Result<Handle, StartError> {
    let shards = settings.shards.max(1);
    let shares = channels.split(shards, |id| shard_of(&id.0, shards));
    let standings: Vec<_> = committer.books().accounts().map(|(id, account)| (*id, account.standing)).collect();
    let payment_max = committer.books().policy().payment_max;
    let gate = Arc::new(TimeGate::new(shards, committer.last_time()));
    let (to_committer, inbox) = mpsc::sync_channel(COMMITTER_QUEUE);
    let (credits, _) = broadcast::channel(CREDIT_QUEUE);
    let (health_sender, health) = watch::channel(Health::Running);
    let mut threads = Vec::new();
    let mut doors = Vec::new();
    let mut to_shards = Vec::new();
    let mut places = Vec::new();
    for (number, share) in shares.into_iter().enumerate() {
        let (sender, inputs) = mpsc::channel();
        let (place, taken) = mpsc::sync_channel(BATCHES_AHEAD);
        places.push(taken);
        let thread = ShardThread {
            number,
            shard: Shard::new(settings.hub, payment_max, standings.iter().copied(), share),
            inputs,
            committer: to_committer.clone(),
            places: place,
            gate: Arc::clone(&gate),
            clock: Arc::clone(&clock),
            time: committer.last_time(),
        };
        doors.push(Door { inputs: sender.clone(), permits: Arc::new(Semaphore::new(SHARD_QUEUE)) });
        to_shards.push(sender);
        threads.push(spawn(format!("shard {number}"), health_sender.clone(), move || thread.run())?);
    }
    let inner = Inner {
        hub: settings.hub,
        certificate: settings.certificate,
        key: settings.key,
        doors,
        committer: to_committer,
        credits: credits.clone(),
        health,
        reader: store.reader(),
        index,
        ids: store.ids(),
        snapshots: store.snapshots(),
        clock: Arc::clone(&clock),
        gate: Arc::clone(&gate),
        threads: Mutex::new(Vec::new()),
    };
    let thread = CommitterThread {
        committer,
        store: Box::new(store),
        inbox,
        shards: to_shards,
        places,
        gate,
        clock,
        anchor,
        credits,
        health: health_sender.clone(),
        newest,
    };
    threads.push(spawn("committer".into(), health_sender, move || thread.run())?);
    let handle = Handle { inner: Arc::new(inner) };
    handle.keep(threads);
    Ok(handle)
}

/// A thread whose panic is seen: an assertion that fails is our bug, and nothing more may be acknowledged.
fn spawn(
    name: String,
    health: watch::Sender<Health>,
    body: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, StartError> {
    let what = format!("a bug stopped the thread `{name}`");
    let guarded = move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_err() {
            health.send_replace(Health::Failed(what));
        }
    };
    std::thread::Builder::new().name(name).spawn(guarded).map_err(StartError::Thread)
}

/// The kinds of keys in the read index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Account = 1,
    Channel = 2,
    Lane = 3,
    Act = 4,
}

/// The index key of what an act or a group is about.
pub fn index_key(about: &About) -> IndexKey {
    let (kind, key) = match about {
        About::Account(id) => (Kind::Account, *id.as_bytes()),
        About::Channel(id) => (Kind::Channel, id.0),
        About::Lane(id) => (Kind::Lane, id.0),
    };
    IndexKey { kind: kind as u8, key }
}

/// The index key of an act that a client signed, by its digest; of a close, by that of the request that it answers.
pub fn act_key(digest: &Hash) -> IndexKey {
    IndexKey { kind: Kind::Act as u8, key: digest.0 }
}

/// How the read index finds its keys in a journal entry.
pub fn keys_of() -> KeysOf {
    KeysOf { version: 4, find: find_keys }
}

fn find_keys(payload: &[u8]) -> Vec<IndexKey> {
    let Ok(record) = Record::decode(payload) else { return Vec::new() };
    let hub = record.header().hub;
    let mut found = Vec::new();
    let mut acts = Vec::new();
    for item in &record.items {
        match item {
            ItemRecord::Group(group) => {
                found.push(About::Lane(group.lane));
                found.extend(group.runs.iter().flat_map(Run::payees).map(|payee| About::Account(*payee)));
            }
            ItemRecord::Act(record) => {
                found.push(about(&record.act));
                match &record.act {
                    Act::Close(close) if !close.request.is_zero() => acts.push(act_key(&close.request)),
                    act if record.author.is_some() => acts.push(act_key(&act.digest(&hub))),
                    _ => {}
                }
                if let Act::Open(terms) = &record.act {
                    found.push(About::Account(terms.account));
                }
                if let Some(refund) = &record.context {
                    found.extend([About::Account(refund.payer), About::Account(refund.payee)]);
                }
            }
        }
    }
    acts.extend(found.iter().filter(|about| **about != About::Account(AccountId::ZERO)).map(index_key));
    acts
}
