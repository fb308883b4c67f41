//! Crash, restart, snapshots, old copies.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read as _;
use std::ops::ControlFlow;

use weir_hub::engine::channels::Channels;
use weir_hub::engine::committer::{Committer, Seal, Start};
use weir_hub::engine::record::Record;
use weir_hub::engine::shard::Shard;
use weir_hub::engine::state::{Depth, State};
use weir_hub::store::anchor::AnchorState;
use weir_hub::store::memory::{FailedSync, MemoryStore};
use weir_hub::store::{Entry, Store, StoreError};
use weir_protocol::act::{Act, Chain};
use weir_protocol::amount::Time;
use weir_protocol::hash::Hash;
use weir_protocol::keys::SecretKey;

use super::{Hub, Running, SHARDS, ShardSide, Stage, shard_of};
use crate::note;
use crate::sim::cx::{Cx, Event};
use crate::sim::log::{Checked, Failure, ensure};

fn failed(what: &'static str) -> impl Fn(StoreError) -> Failure {
    move |error| Failure(format!("{what}: {error}"))
}

impl Hub {
    /// The process dies, and the power fails.
    pub(crate) fn crash(&mut self, cx: &mut Cx) {
        if self.running.take().is_none() {
            return;
        }
        self.disk.crash();
        note!(cx, "the hub crashes; commit {} is the last durable one", self.disk.last().map_or(0, |last| last.number));
        self.crashes += 1;
        cx.hub_up = false;
        cx.life += 1;
        for conn in cx.net.open_at_hub() {
            if let Some(conn) = cx.net.get_mut(conn) {
                conn.hub_open = false;
                conn.cut = true;
            }
            let delay = cx.rng.below(300_000);
            cx.after(delay, Event::ClientSeesGone(conn));
        }
        let pause = if cx.rng.once_in(40) && !cx.calm { cx.rng.below(800_000_000) } else { cx.rng.below(400_000) };
        cx.after(pause, Event::Start);
    }

    /// The next sync fails, and leaves something or nothing.
    pub(crate) fn fail_next_sync(&mut self, cx: &mut Cx) {
        let outcome = match cx.rng.below(3) {
            0 => FailedSync::Lost,
            1 => FailedSync::Torn,
            _ => FailedSync::Persisted,
        };
        note!(cx, "the next sync will fail: {outcome:?}");
        self.disk.fail_next_sync(outcome);
    }

    /// Keeps a copy of the disk, or tries to go on with the one that was kept: the anchor must notice.
    pub(crate) fn backup_or_restore(&mut self, cx: &mut Cx) -> Checked {
        let Some(backup) = self.backup.take() else {
            self.backup = Some(self.disk.copy());
            return Ok(());
        };
        self.crash(cx);
        let newest = self.disk.copy();
        self.disk.restore(&backup);
        let last = self.disk.last().map_or(0, |last| last.number);
        if last < self.anchor.number {
            note!(cx, "an old copy is put in place: it ends at commit {last}");
            let store = self.disk.open().map_err(failed("the store does not open"))?;
            let state = self.ask_anchor(&store)?;
            drop(store);
            let noticed = state == AnchorState::Behind { last, anchor: self.anchor.number };
            ensure(noticed, || format!("an old copy was not noticed: {state:?}"))?;
            cx.reach("restart: old copy noticed");
        }
        self.disk.restore(&newest);
        Ok(())
    }

    pub(super) fn note_anchor(&mut self) {
        if let Some(last) = self.running.as_ref().and_then(|running| running.store.last()) {
            self.anchor.number = last.number;
            self.anchor.id = last.id;
        }
    }

    fn ask_anchor(&self, store: &MemoryStore) -> Checked<AnchorState> {
        let id_of = |number| {
            let mut id = None;
            store.scan(number, &mut |entry| {
                id = Some(entry.position.id);
                ControlFlow::Break(())
            })?;
            Ok(id)
        };
        self.anchor.check(self.id.key().0, store.last(), id_of).map_err(failed("the anchor cannot be compared"))
    }

    pub(super) fn snapshot(&mut self, cx: &mut Cx) -> Checked {
        let Some(running) = self.running.as_mut() else { return Ok(()) };
        if running.store.last().map(|last| last.number) != running.follower.last().map(|last| last.number) {
            return Ok(());
        }
        let Some(position) = running.store.last() else { return Ok(()) };
        let state = core::mem::replace(&mut running.follower, State::new(self.id));
        let bytes = state.encode();
        running.follower = State::decode(&bytes).ok_or_else(|| Failure("a snapshot cannot be read back".into()))?;
        if cx.rng.once_in(5) {
            self.disk.fail_next_snapshot();
        }
        let written = running.store.snapshot(position, &mut |file| file.write_all(&bytes));
        note!(cx, "snapshot at commit {}: {}", position.number, if written.is_ok() { "kept" } else { "fails" });
        Ok(())
    }

    /// Gives the model what has become durable.
    pub(super) fn catch_up(&mut self, cx: &mut Cx) -> Checked {
        let Some(running) = self.running.as_ref() else { return Ok(()) };
        let from = cx.model.last() + 1;
        let (mut result, model) = (Ok(()), &mut cx.model);
        let scanned = running.store.scan(from, &mut |entry| {
            result = decode(&entry).and_then(|record| model.commit(&record));
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        scanned.map_err(failed("the journal cannot be read"))?;
        result
    }

    /// The process starts: recovery, a new chain, its first commit.
    pub(crate) fn start(&mut self, cx: &mut Cx) -> Checked {
        if self.running.is_some() {
            return Ok(());
        }
        if !cx.calm && cx.rng.once_in(3) {
            self.clock_off = i64::try_from(cx.rng.below(4_000)).unwrap_or(0) - 2_000;
        }
        let mut store = self.disk.open().map_err(failed("the store does not open"))?;
        ensure(self.ask_anchor(&store)? == AnchorState::Same, || "the anchor does not know the newest disk".into())?;
        let torn = store.cut().map_or(0, |cut| cut.number);
        if torn > 0 {
            cx.reach("restart: torn tail");
        }
        if store.last().is_some_and(|last| last.number > cx.model.last()) {
            cx.reach("restart: a commit whose sync failed is there");
        }
        let mut state = State::new(self.id);
        let from_snapshot = store.load().map_err(failed("no snapshot"))?;
        if let Some(mut snapshot) = from_snapshot {
            cx.reach("restart: from a snapshot");
            let mut bytes = Vec::new();
            snapshot.state.read_to_end(&mut bytes).map_err(|error| Failure(error.to_string()))?;
            state = State::decode(&bytes).ok_or_else(|| Failure("a snapshot cannot be read".into()))?;
        }
        let (mut journal, mut result) = (Vec::new(), Ok(()));
        let replayed = state.last().map_or(0, |last| last.number);
        let known = &cx.model.ids;
        let scanned = store.scan(1, &mut |entry| {
            let number = entry.position.number;
            let before = usize::try_from(number - 1).ok().and_then(|at| known.get(at));
            result = decode(&entry).and_then(|record| {
                ensure(before.is_none_or(|id| id.0 == entry.position.id), || {
                    format!("commit {number} is another one than before the crash")
                })?;
                if number > replayed {
                    let applied = state.apply(&record, Depth::Rules);
                    applied.map_err(|broken| Failure(format!("a restart cannot replay the journal: {broken}")))?;
                }
                journal.push(record);
                Ok(())
            });
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        scanned.map_err(failed("the journal cannot be read"))?;
        result?;
        ensure(journal.len() as u64 >= cx.model.last(), || {
            format!("invariant 2: the journal ends at commit {}, commit {} was durable", journal.len(), cx.model.last())
        })?;
        let bytes = state.encode();
        let again = || State::decode(&bytes).ok_or_else(|| Failure("the state cannot be read back".into()));
        let (books, channels, history, last) = again()?.into_parts();
        let now = Time(cx.now().0.saturating_add_signed(self.clock_off));
        let chain = now.0.max(last.map_or(0, |last| last.chain).max(self.anchor.chain) + 1);
        self.anchor.chain = chain;
        self.anchor.number = last.map_or(0, |last| last.number);
        self.anchor.id = last.map_or([0; 32], |last| last.id().0);
        let key = SecretKey::from_bytes(&self.key.to_bytes()).map_err(|error| Failure(error.to_string()))?;
        let start = Start { hub: self.id, chain, last, history, books, key, secret: cx.rng.bytes() };
        let mut committer = Committer::new(start);
        committer.begin(now);
        let opening = Chain {
            previous_chain: last.map_or(0, |last| last.chain),
            kept_number: last.map_or(0, |last| last.number),
            kept_id: last.map_or(Hash::ZERO, |last| last.id()),
            cut: torn,
        };
        let certificate = last.is_none().then_some(&self.certificate);
        let opened = committer.open_chain(opening, certificate);
        opened.map_err(|reject| Failure(format!("a chain cannot be opened: {reject}")))?;
        if last.is_none() {
            let policy = committer.act(Act::Policy(self.first_policy.clone()), None, None);
            policy.map_err(|reject| Failure(format!("the first policy is refused: {reject}")))?;
        }
        let Some(Seal::Commit(sealed)) = committer.seal() else { return Err(Failure("no first commit".into())) };
        let payment_max = committer.books().policy().payment_max;
        let standings: Vec<_> = committer.books().accounts().map(|(id, account)| (*id, account.standing)).collect();
        let mut shares: Vec<Channels> = (0..SHARDS).map(|_| Channels::default()).collect();
        for channel in channels.into_channels() {
            if let Some(share) = shares.get_mut(shard_of(&channel.id().0)) {
                share.insert(channel);
            }
        }
        let side = |share| ShardSide {
            shard: Shard::new(self.id, payment_max, standings.iter().copied(), share),
            inbox: VecDeque::new(),
            judging: None,
            wakes_at: None,
            bundles: VecDeque::new(),
        };
        let running = Running {
            store,
            committer,
            shards: shares.into_iter().map(side).collect(),
            orders: VecDeque::new(),
            barriers: BTreeMap::new(),
            next_token: 0,
            stage: Stage::Sealed(Box::new(sealed)),
            follower: again()?,
            journal: Vec::new(),
            groups_of: BTreeMap::new(),
            acts: BTreeMap::new(),
            closes: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            lanes_attached: BTreeMap::new(),
        };
        self.running = Some(Box::new(running));
        for record in journal {
            self.remember(std::sync::Arc::new(record.prove()));
        }
        note!(cx, "the hub starts chain {chain} after commit {}", last.map_or(0, |last| last.number));
        self.catch_up(cx)?;
        let delay = cx.rng.below(1_000);
        cx.after(delay, Event::Append(cx.life));
        cx.hub_up = true;
        for shard in 0..SHARDS {
            self.wake_shard(cx, shard);
        }
        Ok(())
    }

    /// The audit: every hash and signature of the journal again; the result is the live state.
    pub(crate) fn audit(&mut self) -> Checked<u64> {
        let Some(running) = self.running.as_mut() else { return Err(Failure("the hub is down at the end".into())) };
        let mut state = State::new(self.id);
        let mut result = Ok(());
        let scanned = running.store.scan(1, &mut |entry| {
            result = decode(&entry).and_then(|record| {
                let applied = state.apply(&record, Depth::Everything);
                applied.map_err(|broken| Failure(format!("the audit finds: {broken}")))
            });
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        scanned.map_err(failed("the journal cannot be read"))?;
        result?;
        ensure(state.books() == running.committer.books(), || "the audited books are not the live ones".into())?;
        for side in &running.shards {
            for channel in side.shard.channels().iter() {
                ensure(state.channels().get(&channel.id()) == Some(channel), || {
                    "an audited channel is not the live one".into()
                })?;
            }
        }
        let live: usize = running.shards.iter().map(|side| side.shard.channels().len()).sum();
        ensure(state.channels().len() == live, || "the audit finds another number of channels".into())?;
        Ok(state.last().map_or(0, |last| last.number))
    }
}

fn decode(entry: &Entry) -> Checked<Record> {
    Record::decode(&entry.payload).map_err(|error| Failure(format!("commit {}: {error}", entry.position.number)))
}
