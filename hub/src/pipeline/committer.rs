//! The committer's thread: drains its queue, gives the commit a time, stages what fits, makes it durable, lets answers out.
//!
//! Between a release and the next begin the books are exactly the durable ones: reads run then.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, mpsc};

use tokio::sync::{broadcast, watch};
use weir_protocol::act::Act;
use weir_protocol::amount::Time;
use weir_protocol::reject::Reject;

use super::gate::TimeGate;
use super::handle::{Health, ReplyTo, View};
use super::shard::ToShard;
use crate::clock::Clock;
use crate::engine::books::Notice;
use crate::engine::committer::{Committer, Seal, ToShard as Message};
use crate::engine::record::{Authorship, Proven};
use crate::engine::restriction::Restriction;
use crate::engine::said::Said;
use crate::engine::shard::{Input, Output};
use crate::store::anchor::Anchor;
use crate::store::{Store, StoreError};

/// What a shard judged at one time.
#[derive(Debug)]
pub(super) struct Bundle {
    pub(super) shard: usize,
    pub(super) judged_at: Time,
    pub(super) outputs: VecDeque<Output<ReplyTo>>,
}

/// Something to be done with the durable books.
pub(super) type Read = Box<dyn FnOnce(&View<'_>) + Send>;

/// A message to the committer.
pub(super) enum ToCommitter {
    /// From a shard.
    Bundle(Bundle),
    /// An act of the hub or its operator.
    Order { act: Box<Act>, author: Option<Authorship>, reply: ReplyTo },
    /// A question.
    Read(Read),
    /// The end: commit what is there and stop.
    Stop,
}

impl core::fmt::Debug for ToCommitter {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Bundle(_) => "Bundle",
            Self::Order { .. } => "Order",
            Self::Read(_) => "Read",
            Self::Stop => "Stop",
        })
    }
}

/// An act that waits until every shard judges under it.
struct Barrier {
    waits_for: usize,
    order: Order,
}

/// An act that waits for its commit.
struct Order {
    act: Act,
    author: Option<Authorship>,
    reply: ReplyTo,
}

/// Everything that the committer's thread owns.
pub(super) struct CommitterThread {
    pub(super) committer: Committer<ReplyTo>,
    pub(super) store: Box<dyn Store>,
    pub(super) inbox: Receiver<ToCommitter>,
    pub(super) shards: Vec<Sender<ToShard>>,
    /// Per shard: the places that its batches take.
    pub(super) places: Vec<Receiver<()>>,
    pub(super) gate: Arc<TimeGate>,
    pub(super) clock: Arc<Clock>,
    pub(super) anchor: Option<Anchor>,
    pub(super) credits: broadcast::Sender<Arc<Proven>>,
    pub(super) health: watch::Sender<Health>,
    pub(super) newest: Option<Arc<Proven>>,
}

/// What the loop keeps between rounds.
#[derive(Default)]
struct Held {
    bundles: Vec<VecDeque<Bundle>>,
    orders: VecDeque<Order>,
    barriers: BTreeMap<u64, Barrier>,
    next_token: u64,
    stopping: bool,
}

impl CommitterThread {
    /// Runs until it is stopped or the store fails.
    pub(super) fn run(mut self) {
        let mut held = Held { bundles: self.shards.iter().map(|_| VecDeque::new()).collect(), ..Held::default() };
        loop {
            let waits = held.orders.is_empty() && held.bundles.iter().all(VecDeque::is_empty);
            let first = if waits && !held.stopping { self.inbox.recv().ok() } else { None };
            if waits && first.is_none() {
                break;
            }
            if let Err(error) = self.round(first, &mut held) {
                tracing::error!(%error, "the store failed: nothing more is acknowledged until a restart has recovered");
                self.health.send_replace(Health::Failed(error.to_string()));
                return;
            }
        }
        drop(self.anchor.take());
        self.health.send_replace(Health::Stopped);
    }

    fn round(&mut self, first: Option<ToCommitter>, held: &mut Held) -> Result<(), StoreError> {
        let now = self.clock.now().unwrap_or(self.committer.last_time());
        let mut time = self.gate.announce(now);
        for message in first.into_iter().chain(core::iter::from_fn(|| self.inbox.try_recv().ok())) {
            match message {
                ToCommitter::Bundle(bundle) => {
                    if let Some(queue) = held.bundles.get_mut(bundle.shard) {
                        queue.push_back(bundle);
                    }
                }
                ToCommitter::Order { act, author, reply } => {
                    held.orders.push_back(Order { act: *act, author, reply });
                }
                ToCommitter::Read(read) => read(&self.view()),
                ToCommitter::Stop => held.stopping = true,
            }
        }
        for bundle in held.bundles.iter().flatten() {
            time = time.min(bundle.judged_at);
        }
        if held.orders.is_empty() && held.bundles.iter().all(VecDeque::is_empty) {
            return Ok(());
        }
        self.committer.begin(time);
        self.stage_orders(held);
        self.stage_bundles(held);
        self.commit()
    }

    fn view(&self) -> View<'_> {
        View {
            books: self.committer.books(),
            newest: self.newest.as_deref(),
            time: self.clock.now().unwrap_or(self.committer.last_time()),
        }
    }

    fn stage_orders(&mut self, held: &mut Held) {
        while self.committer.has_room() {
            let Some(order) = held.orders.pop_front() else { return };
            match Restriction::of(&order.act) {
                None => self.order(order),
                Some(restriction) => {
                    held.next_token += 1;
                    let token = held.next_token;
                    held.barriers.insert(token, Barrier { waits_for: self.shards.len(), order });
                    self.all_shards(|| restriction.input(token));
                }
            }
        }
    }

    fn order(&mut self, Order { act, author, reply }: Order) {
        match self.committer.act(act, author, Some(reply.clone())) {
            Ok(notice) => self.tell_all(notice),
            Err(reject) => self.committer.say_refused(reply, reject),
        }
    }

    fn tell_all(&self, notice: Option<Notice>) {
        if let Some(notice) = notice {
            self.all_shards(|| Input::Notice(notice.clone()));
        }
    }

    fn all_shards(&self, mut make: impl FnMut() -> Input<ReplyTo>) {
        for shard in &self.shards {
            // A shard that is gone has stopped for good; health says so.
            let _ = shard.send(ToShard { input: make(), permit: None });
        }
    }

    fn stage_bundles(&mut self, held: &mut Held) {
        for queue in 0..held.bundles.len() {
            while self.committer.has_room() {
                let Some(bundle) = held.bundles.get_mut(queue).and_then(VecDeque::front_mut) else { break };
                let Some(output) = bundle.outputs.pop_front() else {
                    if let Some(places) = self.places.get(queue) {
                        // There is one for each batch.
                        let _ = places.try_recv();
                    }
                    if let Some(queue) = held.bundles.get_mut(queue) {
                        queue.pop_front();
                    }
                    continue;
                };
                if !self.committer.fits(&output) {
                    bundle.outputs.push_front(output);
                    break;
                }
                if let Output::Marker(token) = output {
                    self.marker(token, held);
                    continue;
                }
                for message in self.committer.stage(output) {
                    self.forward(message);
                }
            }
        }
    }

    fn marker(&mut self, token: u64, held: &mut Held) {
        let Some(barrier) = held.barriers.get_mut(&token) else { return };
        barrier.waits_for -= 1;
        if barrier.waits_for > 0 {
            return;
        }
        if let Some(Barrier { order, .. }) = held.barriers.remove(&token) {
            self.order(order);
            self.all_shards(|| Input::Lift { token });
        }
    }

    fn forward(&self, message: Message<ReplyTo>) {
        match message {
            Message::One(channel, input) => {
                let shard = super::handle::shard_of(&channel.0, self.shards.len());
                if let Some(shard) = self.shards.get(shard) {
                    let _ = shard.send(ToShard { input, permit: None });
                }
            }
            Message::All(notice) => self.tell_all(Some(notice)),
        }
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        match self.committer.seal() {
            None => {}
            Some(Seal::Words(words)) => deliver(words),
            Some(Seal::Commit(sealed)) => {
                let epoch = self.committer.chain();
                let durable = self.store.append(epoch, sealed.position, &sealed.payload)?;
                let (said, proven) = sealed.release(&durable);
                if let Some(anchor) = &self.anchor {
                    anchor.note(durable.position());
                }
                deliver(said);
                self.newest = Some(Arc::clone(&proven));
                // Nobody may be subscribed.
                let _ = self.credits.send(proven);
            }
        }
        Ok(())
    }
}

fn deliver(said: Vec<(ReplyTo, Said)>) {
    for (reply, said) in said {
        reply.say(said);
    }
}

/// Sends without waiting; whether there was room.
pub(super) fn try_send(inbox: &mpsc::SyncSender<ToCommitter>, message: ToCommitter) -> Result<(), Reject> {
    inbox.try_send(message).map_err(|error| match error {
        mpsc::TrySendError::Full(_) => Reject::Busy,
        mpsc::TrySendError::Disconnected(_) => Reject::Stopped,
    })
}
