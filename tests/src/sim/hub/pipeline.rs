//! Shards and committer, step by step: each step is an event of its own, so that anything can come between.

use std::sync::Arc;

use weir_hub::engine::committer::{Seal, ToShard};
use weir_hub::engine::record::Authorship;
use weir_hub::engine::restriction::Restriction;
use weir_hub::engine::shard::{Input, Output};
use weir_hub::store::Store as _;
use weir_protocol::act::{Act, SignedAct};
use weir_protocol::amount::Time;
use weir_protocol::keys::PublicKey;

use super::{Barrier, Bundle, Hub, Order, Running, Stage, To, shard_of};
use crate::note;
use crate::sim::cx::{Cx, Event};
use crate::sim::log::{Checked, Failure, ensure};

impl Hub {
    /// The hub's clock: it never falls behind the last commit.
    pub(super) fn clock(&self, cx: &Cx) -> Time {
        let read = Time(cx.now().0.saturating_add_signed(self.clock_off));
        self.running.as_ref().map_or(read, |running| read.max(running.committer.last_time()))
    }

    /// Something for the shard of a channel, or of an account's own acts.
    pub(super) fn input(&mut self, cx: &mut Cx, id: &[u8; 32], input: Input<To>) {
        let shard = shard_of(id);
        if let Some(side) = self.running.as_mut().and_then(|running| running.shards.get_mut(shard)) {
            side.inbox.push_back(input);
        }
        self.wake_shard(cx, shard);
    }

    fn input_all(&mut self, cx: &mut Cx, mut make: impl FnMut() -> Input<To>) {
        for shard in 0..super::SHARDS {
            if let Some(side) = self.running.as_mut().and_then(|running| running.shards.get_mut(shard)) {
                side.inbox.push_back(make());
            }
            self.wake_shard(cx, shard);
        }
    }

    /// An act of the operator.
    pub(crate) fn order(&mut self, cx: &mut Cx, act: Act) {
        let Some(running) = self.running.as_mut() else { return };
        note!(cx, "operator: {}", super::super::short(&act));
        running.orders.push_back(Order { act, author: None });
        self.wake_committer(cx);
    }

    /// An operator says something.
    pub(crate) fn order_signed(&mut self, cx: &mut Cx, signed: SignedAct, key: PublicKey) {
        let Some(running) = self.running.as_mut() else { return };
        note!(cx, "signed by an operator: {}", super::super::short(&signed.act));
        let author = Some(Authorship { key, signature: signed.signature });
        running.orders.push_back(Order { act: signed.act, author });
        self.wake_committer(cx);
    }

    /// The operator closes a channel.
    pub(crate) fn close_channel(&mut self, cx: &mut Cx, channel: weir_protocol::id::ChannelId) {
        note!(cx, "operator: close {}", super::super::brief(&channel.0));
        self.input(cx, &channel.0, Input::Close { channel, reply: To::Operator });
    }

    /// Makes sure that a shard judges when there is something to judge.
    pub(super) fn wake_shard(&mut self, cx: &mut Cx, shard: usize) {
        let now = self.clock(cx);
        let Some(side) = self.running.as_mut().and_then(|running| running.shards.get_mut(shard)) else { return };
        if side.judging.is_some() {
            return;
        }
        let delay_us = if side.inbox.is_empty() {
            match side.shard.next_wake() {
                Some(wake) => wake.0.saturating_sub(now.0).max(1) * 1000,
                None => return,
            }
        } else {
            cx.rng.below(400)
        };
        let at = cx.now_us + delay_us;
        if side.wakes_at.is_some_and(|wakes| wakes <= at && wakes >= cx.now_us) {
            return;
        }
        side.wakes_at = Some(at);
        cx.at(at, Event::Judge(cx.life, shard));
    }

    fn wake_committer(&mut self, cx: &mut Cx) {
        let Some(running) = self.running.as_mut() else { return };
        let waits = !running.orders.is_empty() || running.shards.iter().any(|side| !side.bundles.is_empty());
        if waits && matches!(running.stage, Stage::Idle) {
            running.stage = Stage::Scheduled;
            let delay = if cx.rng.once_in(5) { cx.rng.below(20_000) } else { cx.rng.below(800) };
            cx.after(delay, Event::Commit(cx.life));
        }
    }

    /// A shard takes some of what arrived.
    pub(crate) fn judge(&mut self, cx: &mut Cx, shard: usize) {
        let now = self.clock(cx);
        let Some(side) = self.running.as_mut().and_then(|running| running.shards.get_mut(shard)) else { return };
        if side.judging.is_some() {
            return;
        }
        side.wakes_at = None;
        let choppy = cx.mood.choppy;
        let count = if cx.rng.once_in(choppy) { cx.rng.place(side.inbox.len() + 1) } else { side.inbox.len() };
        let inputs: Vec<_> = side.inbox.drain(..count).collect();
        note!(cx, "shard {shard} judges {count}");
        side.judging = Some((now, inputs));
        let slow = cx.mood.slow;
        let delay = if cx.rng.once_in(slow) { cx.rng.below(30_000) } else { cx.rng.below(300) };
        cx.after(delay, Event::Judged(cx.life, shard));
    }

    /// It has judged them.
    pub(crate) fn judged(&mut self, cx: &mut Cx, shard: usize) {
        let Some(side) = self.running.as_mut().and_then(|running| running.shards.get_mut(shard)) else { return };
        let Some((judged_at, inputs)) = side.judging.take() else { return };
        let outputs = side.shard.handle(inputs, judged_at);
        if !outputs.is_empty() {
            side.bundles.push_back(Bundle { judged_at, outputs: outputs.into() });
        }
        self.wake_shard(cx, shard);
        self.wake_committer(cx);
    }

    /// The committer gives the commit a time, stages what fits and seals.
    pub(crate) fn commit(&mut self, cx: &mut Cx) -> Checked {
        let mut time = self.clock(cx);
        let Some(running) = self.running.as_mut() else { return Ok(()) };
        for side in &running.shards {
            let judging = side.judging.as_ref().map(|(at, _)| *at);
            for at in side.bundles.iter().map(|bundle| bundle.judged_at).chain(judging) {
                time = time.min(at);
            }
        }
        running.committer.begin(time);
        let mut blocked = vec![false; running.shards.len()];
        let mut steps = 0;
        loop {
            let Some(running) = self.running.as_mut() else { return Ok(()) };
            if !running.committer.has_room() || (steps > 0 && cx.rng.once_in(60)) {
                break;
            }
            steps += 1;
            let order = !running.orders.is_empty();
            let ready: Vec<usize> = (0..running.shards.len())
                .filter(|at| !blocked.get(*at).copied().unwrap_or(true))
                .filter(|at| running.shards.get(*at).is_some_and(|side| !side.bundles.is_empty()))
                .collect();
            if order && (ready.is_empty() || cx.rng.once_in(3)) {
                self.stage_order(cx);
            } else if let Some(shard) = cx.rng.pick(&ready).copied() {
                if !self.stage_output(cx, shard)
                    && let Some(blocked) = blocked.get_mut(shard)
                {
                    *blocked = true;
                }
            } else {
                break;
            }
        }
        self.seal(cx)
    }

    fn stage_order(&mut self, cx: &mut Cx) {
        let Some(running) = self.running.as_mut() else { return };
        let Some(order) = running.orders.pop_front() else { return };
        let Some(restriction) = Restriction::of(&order.act) else { return self.decide(cx, order) };
        running.next_token += 1;
        let token = running.next_token;
        running.barriers.insert(token, Barrier { waits_for: super::SHARDS, order });
        self.input_all(cx, || restriction.input(token));
    }

    fn decide(&mut self, cx: &mut Cx, Order { act, author }: Order) {
        let Some(running) = self.running.as_mut() else { return };
        let what = super::super::short(&act);
        match running.committer.act(act, author, None) {
            Ok(notice) => {
                if let Some(notice) = notice {
                    self.input_all(cx, || Input::Notice(notice.clone()));
                }
            }
            Err(reject) => {
                cx.reach(format!("order refused: {reject}"));
                note!(cx, "operator is refused: {what}: {reject}");
            }
        }
    }

    /// Stages a shard's next output; false when it must wait for another commit.
    fn stage_output(&mut self, cx: &mut Cx, shard: usize) -> bool {
        let Some(running) = self.running.as_mut() else { return false };
        let Some(side) = running.shards.get_mut(shard) else { return false };
        let Some(bundle) = side.bundles.front_mut() else { return false };
        let Some(output) = bundle.outputs.pop_front() else {
            side.bundles.pop_front();
            return true;
        };
        if !running.committer.fits(&output) {
            bundle.outputs.push_front(output);
            return false;
        }
        if let Output::Marker(token) = output {
            self.marker(cx, token);
            return true;
        }
        for message in running.committer.stage(output) {
            match message {
                ToShard::One(channel, input) => self.input(cx, &channel.0, input),
                ToShard::All(notice) => self.input_all(cx, || Input::Notice(notice.clone())),
            }
        }
        true
    }

    fn marker(&mut self, cx: &mut Cx, token: u64) {
        let Some(running) = self.running.as_mut() else { return };
        let Some(barrier) = running.barriers.get_mut(&token) else { return };
        barrier.waits_for -= 1;
        if barrier.waits_for == 0
            && let Some(Barrier { order, .. }) = running.barriers.remove(&token)
        {
            self.decide(cx, order);
            self.input_all(cx, || Input::Lift { token });
        }
    }

    fn seal(&mut self, cx: &mut Cx) -> Checked {
        let Some(running) = self.running.as_mut() else { return Ok(()) };
        match running.committer.seal() {
            None => running.stage = Stage::Idle,
            Some(Seal::Words(words)) => {
                running.stage = Stage::Idle;
                note!(cx, "commit of {} words only", words.len());
                self.speak(cx, words)?;
            }
            Some(Seal::Commit(sealed)) => {
                note!(cx, "commit {} sealed: {} bytes", sealed.position.number, sealed.payload.len());
                running.stage = Stage::Sealed(Box::new(sealed));
                let delay = if cx.rng.once_in(10) { cx.rng.below(30_000) } else { cx.rng.range(100, 900) };
                cx.after(delay, Event::Append(cx.life));
                return Ok(());
            }
        }
        self.wake_committer(cx);
        Ok(())
    }

    /// Writes what is sealed. A failing sync poisons the store: the process stops.
    pub(crate) fn append(&mut self, cx: &mut Cx) -> Checked {
        let Some(running) = self.running.as_mut() else { return Ok(()) };
        let Stage::Sealed(sealed) = core::mem::replace(&mut running.stage, Stage::Idle) else { return Ok(()) };
        let epoch = running.committer.chain();
        let number = sealed.position.number;
        match running.store.append(epoch, sealed.position, &sealed.payload) {
            Ok(durable) => {
                note!(cx, "commit {number} is durable");
                running.stage = Stage::Appended(sealed, durable);
                let delay = cx.rng.below(300);
                cx.after(delay, Event::Release(cx.life));
                self.commits += 1;
                self.catch_up(cx)
            }
            Err(error) if error.poisons() => {
                note!(cx, "commit {number}: the sync fails");
                self.crash(cx);
                Ok(())
            }
            Err(error) => Err(Failure(format!("commit {number} cannot be written: {error}"))),
        }
    }

    /// Lets out what waited for the commit.
    pub(crate) fn release(&mut self, cx: &mut Cx) -> Checked {
        let Some(running) = self.running.as_mut() else { return Ok(()) };
        let Stage::Appended(sealed, durable) = core::mem::replace(&mut running.stage, Stage::Idle) else {
            return Ok(());
        };
        let (words, proven) = sealed.release(&durable);
        note!(cx, "commit {} released: {} words", durable.position().number, words.len());
        self.remember(Arc::clone(&proven));
        self.follow(&proven)?;
        self.speak(cx, words)?;
        self.credit(cx, &proven)?;
        if cx.rng.once_in(12) {
            self.note_anchor();
        }
        if cx.rng.once_in(40) {
            self.snapshot(cx)?;
        }
        self.wake_committer(cx);
        Ok(())
    }

    /// Recovery must be able to take every record; and the books that it gives are the live ones.
    fn follow(&mut self, proven: &weir_hub::engine::record::Proven) -> Checked {
        let Some(running) = self.running.as_mut() else { return Ok(()) };
        let Running { follower, committer, .. } = running.as_mut();
        let applied = follower.apply(&proven.record, weir_hub::engine::state::Depth::Rules);
        applied.map_err(|broken| Failure(format!("a restart could not replay the journal: {broken}")))?;
        ensure(follower.books() == committer.books(), || {
            format!("the books after commit {} are not those that a restart would have", committer.last_number())
        })
    }
}
