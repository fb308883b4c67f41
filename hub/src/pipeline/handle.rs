//! What the server, the operator's socket and settlement hold of the pipeline.

use std::sync::mpsc::{Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use weir_protocol::act::{Act, Author, SignedAct};
use weir_protocol::amount::Time;
use weir_protocol::commit::SignedCertificate;
use weir_protocol::id::{ChannelId, HubId, LaneId};
use weir_protocol::keys::SecretKey;
use weir_protocol::reject::Reject;

use super::committer::{ToCommitter, try_send};
use super::gate::TimeGate;
use super::shard::ToShard;
use crate::clock::Clock;
use crate::engine::books::Books;
use crate::engine::record::{Authorship, Proven};
use crate::engine::said::{Facts, Query, Said};
use crate::engine::shard::{Input, StreamId};
use crate::store::ids::Ids;
use crate::store::index::Index;
use crate::store::journal::JournalReader;
use crate::store::snapshot::Snapshots;

/// What may wait at one shard, in payments; an input weighs a few of them. Beyond, senders wait.
pub const SHARD_QUEUE: usize = 128 * 1024;
/// What an input weighs, besides its payments.
const INPUT_WEIGHT: u32 = 16;
/// Commits that a slow subscriber may fall behind before it reads from the journal.
pub const CREDIT_QUEUE: usize = 16;

/// Where an answer goes: a stream's or a connection's queue, with the number that its owner gave it.
#[derive(Debug, Clone)]
pub struct ReplyTo {
    id: u64,
    queue: mpsc::UnboundedSender<(u64, Said)>,
}

impl ReplyTo {
    /// Answers go to `queue` under the number `id`. The owner bounds how many it has asked for.
    pub const fn new(id: u64, queue: mpsc::UnboundedSender<(u64, Said)>) -> Self {
        Self { id, queue }
    }

    pub(super) fn say(&self, said: Said) {
        // Whoever asked may be gone.
        let _ = self.queue.send((self.id, said));
    }
}

/// How the pipeline is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It accepts.
    Running,
    /// The store failed: nothing more is acknowledged until a restart.
    Failed(String),
    /// It was stopped and everything acknowledged is durable.
    Stopped,
}

/// The durable state, while a read runs.
#[derive(Debug)]
pub struct View<'a> {
    /// Accounts, money, windows.
    pub books: &'a Books,
    /// The newest durable commit; `None` before the first of this process.
    pub newest: Option<&'a Proven>,
    /// The hub's time.
    pub time: Time,
}

#[derive(Debug)]
pub(super) struct Door {
    pub(super) inputs: Sender<ToShard>,
    pub(super) permits: Arc<Semaphore>,
}

pub(super) struct Inner {
    pub(super) hub: HubId,
    pub(super) certificate: SignedCertificate,
    pub(super) key: SecretKey,
    pub(super) doors: Vec<Door>,
    pub(super) committer: SyncSender<ToCommitter>,
    pub(super) credits: broadcast::Sender<Arc<Proven>>,
    pub(super) health: watch::Receiver<Health>,
    pub(super) reader: JournalReader,
    pub(super) index: Arc<Index>,
    pub(super) ids: Ids,
    pub(super) snapshots: Snapshots,
    pub(super) clock: Arc<Clock>,
    pub(super) gate: Arc<TimeGate>,
    pub(super) threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

/// The pipeline, to everybody who is not one of its threads. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) inner: Arc<Inner>,
}

impl core::fmt::Debug for Handle {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Handle").field("hub", &self.inner.hub).finish_non_exhaustive()
    }
}

/// Which of `shards` owns an id.
pub(super) fn shard_of(id: &[u8; 32], shards: usize) -> usize {
    let [a, b, c, d, ..] = *id;
    u32::from_le_bytes([a, b, c, d]) as usize % shards.max(1)
}

/// What an input takes of a shard's queue: about its bytes in units of a payment.
fn weight(input: &Input<ReplyTo>) -> u32 {
    match input {
        Input::Frame { frame, .. } => INPUT_WEIGHT + frame.run.len() as u32,
        _ => INPUT_WEIGHT,
    }
}

impl Handle {
    /// The hub.
    pub fn hub(&self) -> HubId {
        self.inner.hub
    }

    /// The certificate of the signing key.
    pub fn certificate(&self) -> SignedCertificate {
        self.inner.certificate
    }

    /// Signs with the signing key: only the TLS binding, commits are signed inside.
    pub fn sign_tls(&self, spki: &[u8], not_after: Time) -> weir_protocol::keys::Signature {
        self.inner.key.sign(&weir_protocol::wire::tls_digest(&self.inner.hub, spki, not_after))
    }

    /// The hub's time, or `Stopped` while the clock cannot be trusted, and once the certificate has ended.
    pub fn now(&self) -> Result<Time, Reject> {
        self.inner.clock.now().map_err(|_| Reject::Stopped)
    }

    /// The clock, for the operator: what is wrong with it, and to confirm it.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// The journal, up to the last durable commit.
    pub fn journal(&self) -> &JournalReader {
        &self.inner.reader
    }

    /// Where accounts, channels and lanes are in the journal.
    pub fn index(&self) -> &Index {
        &self.inner.index
    }

    /// The ids of all durable commits.
    pub fn ids(&self) -> &Ids {
        &self.inner.ids
    }

    /// The snapshots.
    pub fn snapshots(&self) -> &Snapshots {
        &self.inner.snapshots
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.inner.doors.len()
    }

    /// The shard of a channel; of an account, for its acts.
    pub fn shard_of(&self, id: &[u8; 32]) -> usize {
        shard_of(id, self.inner.doors.len())
    }

    /// Hands an input to a shard; waits while its queue is full.
    pub async fn send(&self, shard: usize, input: Input<ReplyTo>) -> Result<(), Reject> {
        let door = self.inner.doors.get(shard).ok_or(Reject::Stopped)?;
        let permit = Arc::clone(&door.permits).acquire_many_owned(weight(&input)).await.map_err(|_| Reject::Stopped)?;
        door.inputs.send(ToShard { input, permit: Some(permit) }).map_err(|_| Reject::Stopped)
    }

    /// Hands an input to a shard, or says `busy` when its queue is full.
    pub fn try_send(&self, shard: usize, input: Input<ReplyTo>) -> Result<(), Reject> {
        let door = self.inner.doors.get(shard).ok_or(Reject::Stopped)?;
        let permit = Arc::clone(&door.permits).try_acquire_many_owned(weight(&input)).map_err(|_| Reject::Busy)?;
        door.inputs.send(ToShard { input, permit: Some(permit) }).map_err(|_| Reject::Stopped)
    }

    /// Asks one shard.
    pub async fn ask(&self, shard: usize, query: Query) -> Result<Facts, Reject> {
        match self.request(shard, |reply| Input::Ask { query, reply }).await? {
            Said::Facts(facts) => Ok(*facts),
            Said::Refused(reject) => Err(reject),
            _ => Err(Reject::Unsupported),
        }
    }

    /// Asks the shard that knows a lane.
    pub async fn ask_lane(&self, lane: LaneId) -> Result<Facts, Reject> {
        for shard in 0..self.shards() {
            match self.ask(shard, Query::Lane(lane)).await {
                Err(Reject::UnknownLane) => {}
                answer => return answer,
            }
        }
        Err(Reject::UnknownLane)
    }

    /// Sends an input that is answered once, and waits for the answer.
    pub async fn request(&self, shard: usize, input: impl FnOnce(ReplyTo) -> Input<ReplyTo>) -> Result<Said, Reject> {
        let (queue, mut answers) = mpsc::unbounded_channel();
        self.try_send(shard, input(ReplyTo::new(0, queue)))?;
        answers.recv().await.map(|(_, said)| said).ok_or(Reject::Stopped)
    }

    /// An act of the hub: the commit that holds it, and its index.
    pub async fn order(&self, act: Act) -> Result<(Arc<Proven>, u32), Reject> {
        self.ordered(act, None).await?.ok_or(Reject::Stale)
    }

    /// An act of an operator, whose signature is checked here: the commit that holds it, and its index; `None` when it is
    /// the one taken last.
    pub async fn order_signed(&self, signed: SignedAct) -> Result<Option<(Arc<Proven>, u32)>, Reject> {
        let Author::Operator(key) = signed.act.author() else { return Err(Reject::Unsupported) };
        if !signed.act.within_limits() {
            return Err(Reject::Malformed);
        }
        if !key.verify(&signed.act.digest(&self.inner.hub), &signed.signature) {
            return Err(Reject::Unauthenticated);
        }
        self.ordered(signed.act, Some(Authorship { key, signature: signed.signature })).await
    }

    async fn ordered(&self, act: Act, author: Option<Authorship>) -> Result<Option<(Arc<Proven>, u32)>, Reject> {
        let (queue, mut answers) = mpsc::unbounded_channel();
        let order = ToCommitter::Order { act: Box::new(act), author, reply: ReplyTo::new(0, queue) };
        try_send(&self.inner.committer, order)?;
        match answers.recv().await {
            Some((_, Said::Done { commit, index })) => Ok(Some((commit, index))),
            Some((_, Said::Again(_))) => Ok(None),
            Some((_, Said::Refused(reject))) => Err(reject),
            _ => Err(Reject::Stopped),
        }
    }

    /// Many acts of the hub or its operator, in order, and not one by one: they share commits. What became of each.
    ///
    /// Waits while the committer's queue is full.
    pub async fn orders(&self, acts: Vec<Act>) -> Result<Vec<Result<u64, Reject>>, Reject> {
        let (queue, mut answers) = mpsc::unbounded_channel();
        let mut done: Vec<Result<u64, Reject>> = acts.iter().map(|_| Err(Reject::Stopped)).collect();
        let mut open = 0_usize;
        let settle = |done: &mut Vec<Result<u64, Reject>>, (id, said): (u64, Said)| {
            let became = match said {
                Said::Done { commit, .. } => Ok(commit.commit().commit.number),
                Said::Refused(reject) => Err(reject),
                _ => Err(Reject::Stopped),
            };
            if let Some(place) = usize::try_from(id).ok().and_then(|id| done.get_mut(id)) {
                *place = became;
            }
        };
        for (id, act) in (0_u64..).zip(acts) {
            loop {
                let reply = ReplyTo::new(id, queue.clone());
                match try_send(
                    &self.inner.committer,
                    ToCommitter::Order { act: Box::new(act.clone()), author: None, reply },
                ) {
                    Ok(()) => break,
                    // Room comes with an answer, or when others have been served.
                    Err(Reject::Busy) if open > 0 => {
                        settle(&mut done, answers.recv().await.ok_or(Reject::Stopped)?);
                        open -= 1;
                    }
                    Err(Reject::Busy) => tokio::time::sleep(core::time::Duration::from_millis(1)).await,
                    Err(reject) => return Err(reject),
                }
            }
            open += 1;
        }
        drop(queue);
        while open > 0 {
            settle(&mut done, answers.recv().await.ok_or(Reject::Stopped)?);
            open -= 1;
        }
        Ok(done)
    }

    /// Closes a channel for the operator: the commit that holds the close, and its index.
    pub async fn close(&self, channel: ChannelId) -> Result<(Arc<Proven>, u32), Reject> {
        let shard = self.shard_of(&channel.0);
        match self.request(shard, |reply| Input::Close { channel, reply }).await? {
            Said::Done { commit, index } => Ok((commit, index)),
            Said::Refused(reject) => Err(reject),
            _ => Err(Reject::Stopped),
        }
    }

    /// Runs a question over the durable state, between two commits: it must be quick.
    pub async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, Reject> {
        let (answer, answered) = oneshot::channel();
        let read = ToCommitter::Read(Box::new(move |view| {
            // Whoever asked may be gone.
            let _ = answer.send(question(view));
        }));
        try_send(&self.inner.committer, read)?;
        answered.await.map_err(|_| Reject::Stopped)
    }

    /// Every commit from now on, as it becomes durable.
    pub fn commits(&self) -> broadcast::Receiver<Arc<Proven>> {
        self.inner.credits.subscribe()
    }

    /// How the pipeline is; changes wake the receiver.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.inner.health.clone()
    }

    pub(super) fn keep(&self, threads: Vec<std::thread::JoinHandle<()>>) {
        *self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner) = threads;
    }

    /// Commits what has been staged, then ends the threads. Everything acknowledged is durable when it returns. Blocks.
    pub fn stop(&self) {
        let _ = self.inner.committer.send(ToCommitter::Stop);
        self.inner.gate.close();
        for door in &self.inner.doors {
            // Wakes a shard that sleeps; there is no such stream.
            let input = Input::Gone { lane: LaneId::ZERO, stream: StreamId(0) };
            let _ = door.inputs.send(ToShard { input, permit: None });
        }
        let threads = core::mem::take(&mut *self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the pipeline panicked");
            }
        }
    }
}
