//! The past: a lane's groups by sequence, and the tree over the ids of all commits.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use weir_protocol::act::Act;
use weir_protocol::hash::Hash;
use weir_protocol::id::LaneId;
use weir_protocol::merkle::{self, Tree};
use weir_protocol::reject::Reject;

use super::{Shared, lookup};
use crate::engine::record::{ItemRecord, Proven, Record};
use crate::engine::said::About;
use crate::pipeline::recover::index_key;
use crate::store::Entry;
use crate::store::ids::Ids;

/// Ids under one kept root. A power of two, so that each block is a whole subtree.
const BLOCK: u64 = 4_096;

/// The first group of a lane that reaches beyond `since`, which the lane's head does: its commit and index. `pruned`:
/// what follows `since` is not kept any more, or may not be.
///
/// Sequences only grow, so the commit is found by bisection: a few reads, however long the lane is.
pub(super) fn group_beyond(shared: &Shared, lane: LaneId, since: u64) -> Result<(Proven, u32), Reject> {
    let newest = shared.newest().number;
    let first = shared.handle.journal().first().map_err(|error| lookup::refused(&error))?.unwrap_or(1);
    let (mut low, mut high) = (first, newest + 1);
    let mut found = None;
    let mut has_earlier = first <= 1;
    while low < high {
        let middle = low + (high - low) / 2;
        match first_of(shared, lane, middle, newest)? {
            Some((number, record)) if reach(&record, lane) <= since => {
                has_earlier = true;
                low = number + 1;
            }
            Some((_, record)) => {
                found = Some(record);
                high = middle;
            }
            None => high = middle,
        }
    }
    let record = found.ok_or(Reject::Pruned)?;
    let group = record.groups().find(|(_, group)| group.lane == lane && group.head.sequence > since);
    let (index, group) = group.ok_or(Reject::Pruned)?;
    let spent = group
        .payments()
        .try_fold(weir_protocol::amount::Amount::ZERO, |sum, (_, payment)| sum.checked_add(payment.amount));
    let is_first = spent.is_ok_and(|spent| spent == group.head.total);
    if has_earlier || is_first { Ok((record.prove(), index)) } else { Err(Reject::Pruned) }
}

/// The first commit from `from` on that concerns a lane.
fn first_of(shared: &Shared, lane: LaneId, from: u64, newest: u64) -> Result<Option<(u64, Record)>, Reject> {
    let mut found = Ok(None);
    let each = &mut |entry: Entry| {
        if entry.position.number <= newest {
            found = lookup::decode(&entry).map(|record| Some((entry.position.number, record)));
        }
        ControlFlow::Break(())
    };
    let read = shared.handle.index().commits_of(index_key(&About::Lane(lane)), from, each);
    read.map_err(|error| lookup::refused(&error))?;
    found
}

/// How far a lane had come with a commit that concerns it.
fn reach(record: &Record, lane: LaneId) -> u64 {
    let reached = record.items.iter().map(|item| match item {
        ItemRecord::Group(group) if group.lane == lane => group.head.sequence,
        ItemRecord::Act(act) => match &act.act {
            Act::Void(void) if void.lane == lane => void.sequence,
            _ => 0,
        },
        ItemRecord::Group(_) => 0,
    });
    reached.max().unwrap_or(0)
}

/// The tree over the ids of all commits, as roots of its whole blocks: paths cost a block, not all of history.
#[derive(Debug, Default)]
pub(super) struct HistoryTree {
    roots: Mutex<Vec<Hash>>,
}

impl HistoryTree {
    /// The inclusion path of leaf `index` among the first `count` ids.
    pub(super) fn path(&self, ids: &Ids, index: u64, count: u64) -> Result<Vec<Hash>, Reject> {
        let mut roots = {
            let mut roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
            let whole = count / BLOCK;
            while (roots.len() as u64) < whole {
                let leaves = block(ids, roots.len() as u64, count)?;
                roots.push(merkle::root(&leaves));
            }
            roots.get(..whole as usize).unwrap_or_default().to_vec()
        };
        let at = index / BLOCK;
        let leaves = block(ids, at, count)?;
        let below = Tree::new(leaves).path((index % BLOCK) as usize).ok_or(Reject::Stopped)?;
        if !count.is_multiple_of(BLOCK) {
            roots.push(merkle::root(&block(ids, count / BLOCK, count)?));
        }
        let above = Tree::new(roots).path(at as usize).ok_or(Reject::Stopped)?;
        Ok([below.hashes, above.hashes].concat())
    }
}

/// The ids of one block, as far as they are among the first `count`.
fn block(ids: &Ids, at: u64, count: u64) -> Result<Vec<Hash>, Reject> {
    let first = at * BLOCK;
    let end = (first + BLOCK).min(count);
    // Numbers count from 1, leaves from 0.
    let read = ids.read(first + 1..end + 1).map_err(|error| lookup::refused(&error))?;
    if read.len() as u64 == end - first { Ok(read.into_iter().map(Hash).collect()) } else { Err(Reject::Stopped) }
}
