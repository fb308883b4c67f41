//! The simulated hub process: the real engine and store, driven as the pipeline drives them, with a crash possible
//! between any two steps.

mod pipeline;
mod recovery;
mod server;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use weir_hub::engine::committer::{Committer, Sealed};
use weir_hub::engine::record::{Authorship, Proven};
use weir_hub::engine::said::Said;
use weir_hub::engine::shard::{Input, Output, Shard};
use weir_hub::engine::state::State;
use weir_hub::store::anchor::AnchorRecord;
use weir_hub::store::memory::{MemoryCopy, MemoryDisk, MemoryStore};
use weir_protocol::act::{Act, Policy};
use weir_protocol::amount::Time;
use weir_protocol::commit::SignedCertificate;
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, ChannelId, HubId, LaneId};
use weir_protocol::keys::SecretKey;
use weir_protocol::wire::Cursor;

use super::net::{ConnId, Stream};

/// Shards of the simulated hub.
pub(crate) const SHARDS: usize = 2;

/// Where an answer of the engine goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// To a lane's stream.
    Lane(ConnId, Stream),
    /// To a request.
    Request(ConnId, u64),
    /// To the operator.
    Operator,
}

/// What a shard judged at one time.
#[derive(Debug)]
struct Bundle {
    judged_at: Time,
    outputs: VecDeque<Output<To>>,
}

#[derive(Debug)]
struct ShardSide {
    shard: Shard<To>,
    inbox: VecDeque<Input<To>>,
    /// The inputs that are being judged, and the clock reading for them.
    judging: Option<(Time, Vec<Input<To>>)>,
    /// A [`super::cx::Event::Judge`] is on its way for this time.
    wakes_at: Option<u64>,
    bundles: VecDeque<Bundle>,
}

#[derive(Debug)]
struct Barrier {
    waits_for: usize,
    order: Order,
}

/// An act of the hub or of an operator.
#[derive(Debug)]
struct Order {
    act: Act,
    author: Option<Authorship>,
}

#[derive(Debug)]
enum Stage {
    Idle,
    Scheduled,
    Sealed(Box<Sealed<To>>),
    Appended(Box<Sealed<To>>, weir_hub::store::Durable),
}

#[derive(Debug)]
struct Subscription {
    account: AccountId,
    after: u64,
}

/// The process.
#[derive(Debug)]
struct Running {
    store: MemoryStore,
    committer: Committer<To>,
    shards: Vec<ShardSide>,
    orders: VecDeque<Order>,
    barriers: BTreeMap<u64, Barrier>,
    next_token: u64,
    stage: Stage,
    /// Rebuilt from the durable records as they come: snapshots, and what a crash would recover.
    follower: State,
    /// The journal with its proofs, by number − 1.
    journal: Vec<Arc<Proven>>,
    groups_of: BTreeMap<LaneId, Vec<(u64, usize, u32)>>,
    acts: BTreeMap<Hash, (usize, u32)>,
    closes: BTreeMap<ChannelId, (usize, u32)>,
    subscriptions: BTreeMap<(ConnId, Stream), Subscription>,
    lanes_attached: BTreeMap<Stream, (ConnId, LaneId, ChannelId)>,
}

/// The hub: its disk and its keys outlive its process.
#[derive(Debug)]
pub(crate) struct Hub {
    id: HubId,
    key: SecretKey,
    certificate: SignedCertificate,
    first_policy: Policy,
    disk: MemoryDisk,
    anchor: AnchorRecord,
    backup: Option<MemoryCopy>,
    /// The hub's clock against the true one, in ms.
    clock_off: i64,
    running: Option<Box<Running>>,
    /// Commits made.
    pub(crate) commits: u64,
    /// Crashes survived.
    pub(crate) crashes: u64,
}

impl Hub {
    /// A hub that was never started.
    pub(crate) fn new(id: HubId, key: SecretKey, certificate: SignedCertificate, first_policy: Policy) -> Self {
        Self {
            id,
            key,
            certificate,
            first_policy,
            disk: MemoryDisk::new(),
            anchor: AnchorRecord { hub: id.key().0, chain: 0, number: 0, id: [0; 32] },
            backup: None,
            clock_off: 0,
            running: None,
            commits: 0,
            crashes: 0,
        }
    }

    /// Whether the process runs.
    pub(crate) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The books as a crash right now would leave them.
    pub(crate) fn durable(&self) -> Option<&weir_hub::engine::books::Books> {
        self.running.as_ref().map(|running| running.follower.books())
    }

    /// Whether nothing waits inside.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.as_ref().is_some_and(|running| {
            matches!(running.stage, Stage::Idle)
                && running.orders.is_empty()
                && running.barriers.is_empty()
                && running
                    .shards
                    .iter()
                    .all(|side| side.inbox.is_empty() && side.judging.is_none() && side.bundles.is_empty())
        })
    }
}

/// Which shard a channel or an account's acts go to.
fn shard_of(id: &[u8; 32]) -> usize {
    usize::from(id[0]) % SHARDS
}

/// The end of a commit's words: nothing that the engine says is heard before here.
type Words = Vec<(To, Said)>;

/// From which commit on a subscription goes on.
const fn after(cursor: &Cursor) -> u64 {
    cursor.number
}
