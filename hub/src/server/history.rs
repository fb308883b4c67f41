//! The past: a lane's groups by sequence, and the tree over the ids of all commits.

use std::ops::{ControlFlow, Range};
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

/// Reads ids by commit number, as far as there are any.
pub(super) type ReadIds<'a> = &'a dyn Fn(Range<u64>) -> Result<Vec<[u8; 32]>, Reject>;

/// The tree over the ids of all commits, as roots of its whole blocks: paths cost a block, not all of history.
#[derive(Debug, Default)]
pub(super) struct HistoryTree {
    roots: Mutex<Vec<Hash>>,
}

impl HistoryTree {
    /// The inclusion path of leaf `index` among the first `count` ids.
    pub(super) fn path(&self, ids: ReadIds<'_>, index: u64, count: u64) -> Result<Vec<Hash>, Reject> {
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
fn block(ids: ReadIds<'_>, at: u64, count: u64) -> Result<Vec<Hash>, Reject> {
    let first = at * BLOCK;
    let end = (first + BLOCK).min(count);
    // Numbers count from 1, leaves from 0.
    let read = ids(first + 1..end + 1)?;
    if read.len() as u64 == end - first { Ok(read.into_iter().map(Hash).collect()) } else { Err(Reject::Stopped) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    #[test]
    fn path_by_blocks_is_the_path_of_the_whole_tree() {
        let id = |number: u64| weir_protocol::hash::sha256(&number.to_le_bytes());
        let tree = HistoryTree::default();
        for count in [1, 2, 5, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7, 3 * BLOCK] {
            let leaves: Vec<Hash> = (1..=count).map(id).collect();
            let read = |numbers: Range<u64>| Ok(numbers.filter(|number| *number <= count).map(|at| id(at).0).collect());
            for index in [0, count / 2, BLOCK.min(count) - 1, count - 1] {
                let path = tree.path(&read, index, count).unwrap();
                assert_eq!(path, merkle::history_path(&leaves, index as usize).unwrap(), "{index} of {count}");
            }
        }
    }
}
