//! Merkle trees of one shape for everything: split at the largest power of two (RFC 9162 §2.1.1), node hash
//! `H("weir/node", left ‖ right)`, leaves are the hashes themselves, the empty tree is 32 zero bytes.
//!
//! Built level by level: pairs are joined, an odd last node moves up unchanged. That gives the RFC's shape.

use serde::{Deserialize, Serialize};

use crate::hash::{Fixed, Hash, tag};

/// Joins two nodes.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    Fixed::<64>::new().put(&left.0).put(&right.0).hash(&tag::NODE)
}

/// The root over the leaves, without keeping the tree.
pub fn root(leaves: &[Hash]) -> Hash {
    // The first level makes the buffer; the others are joined in place.
    let mut level = next_level(leaves);
    while level.len() > 1 {
        let mut joined = 0;
        for at in (0..level.len()).step_by(2) {
            let Some(left) = level.get(at).copied() else { break };
            let above = level.get(at + 1).map_or(left, |right| node(&left, right));
            if let Some(place) = level.get_mut(joined) {
                *place = above;
            }
            joined += 1;
        }
        level.truncate(joined);
    }
    level.first().copied().unwrap_or(Hash::ZERO)
}

fn next_level(level: &[Hash]) -> Vec<Hash> {
    level
        .chunks(2)
        .map(|pair| match pair {
            [left, right] => node(left, right),
            [odd] => *odd,
            _ => Hash::ZERO,
        })
        .collect()
}

/// A tree that is kept, to give paths.
#[derive(Debug, Clone)]
pub struct Tree {
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// Builds the tree over the leaves.
    pub fn new(leaves: Vec<Hash>) -> Self {
        let mut levels = vec![leaves];
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            let above = next_level(level);
            levels.push(above);
        }
        Self { levels }
    }

    /// How many leaves there are.
    pub fn count(&self) -> usize {
        self.levels.first().map_or(0, Vec::len)
    }

    /// The root; zeros when there is no leaf.
    pub fn root(&self) -> Hash {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or(Hash::ZERO)
    }

    /// The inclusion path of the leaf at `index`, or `None` past the end.
    pub fn path(&self, index: usize) -> Option<Path> {
        let parts = self.path_parts(index)?;
        Some(Path { index: parts.index, count: parts.count, hashes: parts.siblings().copied().collect() })
    }

    /// The same without a copy.
    pub fn path_parts(&self, index: usize) -> Option<PathParts<'_>> {
        let count = self.count();
        let parts = PathParts { index: u32::try_from(index).ok()?, count: u32::try_from(count).ok()?, tree: self };
        (index < count).then_some(parts)
    }

    /// The multiproof of the leaves at `indices`, which ascend strictly: the roots of all largest subtrees without a
    /// wanted leaf, from left to right. Empty when every leaf is wanted.
    pub fn multiproof(&self, indices: &[u32]) -> Vec<Hash> {
        let mut hashes = Vec::new();
        self.collect(self.levels.len().saturating_sub(1), 0, indices, &mut hashes);
        hashes
    }

    fn collect(&self, depth: usize, at: usize, wanted: &[u32], hashes: &mut Vec<Hash>) {
        let Some(hash) = self.levels.get(depth).and_then(|level| level.get(at)) else { return };
        if wanted.is_empty() {
            hashes.push(*hash);
            return;
        }
        if depth == 0 {
            return;
        }
        let middle = (2 * at + 1) << (depth - 1);
        let split = wanted.partition_point(|index| (*index as usize) < middle);
        let (left, right) = wanted.split_at(split);
        self.collect(depth - 1, 2 * at, left, hashes);
        self.collect(depth - 1, 2 * at + 1, right, hashes);
    }
}

/// An inclusion path inside its tree.
#[derive(Debug, Clone, Copy)]
pub struct PathParts<'a> {
    /// Which leaf, from 0.
    pub index: u32,
    /// How many leaves the tree has.
    pub count: u32,
    tree: &'a Tree,
}

impl<'a> PathParts<'a> {
    /// The siblings from the leaf up.
    pub fn siblings(&self) -> impl Iterator<Item = &'a Hash> + use<'a> {
        let index = self.index as usize;
        self.tree.levels.iter().zip(0_u32..).filter_map(move |(level, depth)| level.get((index >> depth) ^ 1))
    }
}

/// An inclusion path: {index 4, count 4, hashes}. Field order on the wire as here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// Which leaf, from 0.
    pub index: u32,
    /// How many leaves the tree has.
    pub count: u32,
    /// The siblings from the leaf up; levels where the node moves up unchanged have none.
    pub hashes: Vec<Hash>,
}

impl Path {
    /// The root that this path gives the leaf, or `None` when the path does not fit {index, count}.
    pub fn root(&self, leaf: &Hash) -> Option<Hash> {
        root_of(u64::from(self.index), u64::from(self.count), leaf, &self.hashes)
    }
}

fn root_of(index: u64, count: u64, leaf: &Hash, hashes: &[Hash]) -> Option<Hash> {
    if index >= count {
        return None;
    }
    let (mut at, mut last) = (index, count - 1);
    let mut hash = *leaf;
    let mut siblings = hashes.iter();
    while last > 0 {
        if at % 2 == 1 {
            hash = node(siblings.next()?, &hash);
        } else if at < last {
            hash = node(&hash, siblings.next()?);
        }
        at /= 2;
        last /= 2;
    }
    siblings.next().is_none().then_some(hash)
}

/// The root that a multiproof gives the leaves `(index, hash)`, which ascend strictly, in a tree of `count` leaves;
/// `None` when the proof does not fit.
pub fn multiproof_root(count: u32, leaves: &[(u32, Hash)], hashes: &[Hash]) -> Option<Hash> {
    let ascending = leaves.windows(2).all(|pair| matches!(pair, [(a, _), (b, _)] if a < b));
    if leaves.is_empty() || !ascending || leaves.last().is_some_and(|(last, _)| *last >= count) {
        return None;
    }
    let mut proof = hashes.iter();
    let root = subtree(0, u64::from(count), leaves, &mut proof)?;
    proof.next().is_none().then_some(root)
}

fn subtree(from: u64, to: u64, leaves: &[(u32, Hash)], proof: &mut core::slice::Iter<'_, Hash>) -> Option<Hash> {
    if leaves.is_empty() {
        return proof.next().copied();
    }
    if to - from == leaves.len() as u64 {
        // They ascend, so they are all of them: nothing of the proof belongs here.
        return whole(leaves);
    }
    let middle = from + largest_power_below(to - from);
    let split = leaves.partition_point(|(index, _)| u64::from(*index) < middle);
    let (left, right) = leaves.split_at(split);
    let left = subtree(from, middle, left, proof)?;
    let right = subtree(middle, to, right, proof)?;
    Some(node(&left, &right))
}

/// The root over all these leaves.
fn whole(leaves: &[(u32, Hash)]) -> Option<Hash> {
    match leaves {
        [] => None,
        [(_, hash)] => Some(*hash),
        [(_, left), (_, right)] => Some(node(left, right)),
        _ => {
            let (left, right) = leaves.split_at(largest_power_below(leaves.len() as u64) as usize);
            Some(node(&whole(left)?, &whole(right)?))
        }
    }
}

/// The largest power of two below `count`, for `count` ≥ 2.
fn largest_power_below(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// A tree that only grows, as its peaks: enough to append and to give the root. Commits' `history` is one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Frontier {
    count: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// How many leaves there are.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for _ in 0..self.count.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = node(&left, &hash);
            }
        }
        self.peaks.push(hash);
        self.count += 1;
    }

    /// The root; zeros when there is no leaf.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return Hash::ZERO };
        peaks.fold(*last, |right, left| node(left, &right))
    }
}

/// Shows that the tree over the first `old` leaves is a prefix of the tree over all (RFC 9162 §2.1.4.1).
///
/// `None` when `old` is zero or more than there are: nothing to prove, or nothing to prove it from.
pub fn consistency_proof(leaves: &[Hash], old: usize) -> Option<Vec<Hash>> {
    if old == 0 || old > leaves.len() {
        return None;
    }
    let mut hashes = Vec::new();
    consistency(leaves, old, true, &mut hashes);
    Some(hashes)
}

fn consistency(leaves: &[Hash], old: usize, whole: bool, hashes: &mut Vec<Hash>) {
    if old == leaves.len() {
        if !whole {
            hashes.push(root(leaves));
        }
        return;
    }
    let middle = largest_power_below(leaves.len() as u64) as usize;
    let (left, right) = leaves.split_at(middle);
    if old <= middle {
        consistency(left, old, whole, hashes);
        hashes.push(root(right));
    } else {
        consistency(right, old - middle, false, hashes);
        hashes.push(root(left));
    }
}

/// Inclusion of one id in a history: the path of leaf `index` among `leaves`.
pub fn history_path(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    Tree::new(leaves.to_vec()).path(index).map(|path| path.hashes)
}

/// Checks a history path: whether `leaf` is number `index` (from 0) of the `count` leaves under `root`.
pub fn history_includes(index: u64, count: u64, leaf: &Hash, hashes: &[Hash], root: &Hash) -> bool {
    root_of(index, count, leaf, hashes).as_ref() == Some(root)
}

/// Checks a consistency proof (RFC 9162 §2.1.4.2) between the roots over the first `old` and the first `new` leaves.
pub fn consistent(old: u64, old_root: &Hash, new: u64, new_root: &Hash, hashes: &[Hash]) -> bool {
    if old == 0 || old > new {
        return false;
    }
    if old == new {
        return hashes.is_empty() && old_root == new_root;
    }
    let mut proof = hashes.iter();
    let (mut at, mut last) = (old - 1, new - 1);
    while at % 2 == 1 {
        at /= 2;
        last /= 2;
    }
    let first = if old.is_power_of_two() { Some(old_root) } else { proof.next() };
    let Some(first) = first else { return false };
    let (mut old_hash, mut new_hash) = (*first, *first);
    for hash in proof {
        if last == 0 {
            return false;
        }
        if at % 2 == 1 || at == last {
            old_hash = node(hash, &old_hash);
            new_hash = node(hash, &new_hash);
            while at % 2 == 0 && at != 0 {
                at /= 2;
                last /= 2;
            }
        } else {
            new_hash = node(&new_hash, hash);
        }
        at /= 2;
        last /= 2;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test should say where")]
mod tests {
    use super::*;

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|at| Hash([u8::try_from(at).unwrap(); 32])).collect()
    }

    /// RFC 9162's definition, word for word.
    fn defined(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Hash::ZERO,
            [one] => *one,
            _ => {
                let (left, right) = leaves.split_at(largest_power_below(leaves.len() as u64) as usize);
                node(&defined(left), &defined(right))
            }
        }
    }

    #[test]
    fn tree_of_every_size_matches_the_definition_and_proves_each_leaf() {
        for count in 0..40 {
            let leaves = leaves(count);
            let tree = Tree::new(leaves.clone());
            assert_eq!(tree.root(), defined(&leaves));
            assert_eq!(root(&leaves), defined(&leaves));
            let mut frontier = Frontier::default();
            for leaf in &leaves {
                frontier.push(*leaf);
            }
            assert_eq!(frontier.root(), defined(&leaves));
            for (at, leaf) in leaves.iter().enumerate() {
                let path = tree.path(at).unwrap();
                assert_eq!(path.root(leaf), Some(tree.root()));
                assert_ne!(path.root(&Hash([0xee; 32])), Some(tree.root()));
                let longer = Path { hashes: [path.hashes.clone(), vec![Hash::ZERO]].concat(), ..path.clone() };
                assert_eq!(longer.root(leaf), None);
            }
            assert!(tree.path(count).is_none());
        }
    }

    #[test]
    fn multiproof_of_every_subset_of_small_trees_fits_and_wrong_ones_do_not() {
        for count in 1_u32..9 {
            let leaves = leaves(count as usize);
            let tree = Tree::new(leaves.clone());
            for subset in 1_u32..(1 << count) {
                let indices: Vec<u32> = (0..count).filter(|at| subset & (1 << at) != 0).collect();
                let proof = tree.multiproof(&indices);
                let wanted: Vec<(u32, Hash)> = indices.iter().map(|at| (*at, leaves[*at as usize])).collect();
                assert_eq!(multiproof_root(count, &wanted, &proof), Some(tree.root()));
                assert_eq!(proof.is_empty(), indices.len() == count as usize);
                let longer = [proof.clone(), vec![Hash::ZERO]].concat();
                assert_eq!(multiproof_root(count, &wanted, &longer), None);
                if !proof.is_empty() {
                    assert_eq!(multiproof_root(count, &wanted, &proof[1..]), None);
                }
            }
        }
    }

    #[test]
    fn consistency_holds_between_every_pair_of_sizes_and_fails_for_another_tree() {
        for new in 1..34 {
            let leaves = leaves(new);
            for old in 1..=new {
                let proof = consistency_proof(&leaves, old).unwrap();
                let (old_root, new_root) = (root(&leaves[..old]), root(&leaves));
                assert!(consistent(old as u64, &old_root, new as u64, &new_root, &proof), "{old} of {new}");
                assert!(!consistent(old as u64, &Hash([0xee; 32]), new as u64, &new_root, &proof));
                let mut longer = proof.clone();
                longer.push(Hash::ZERO);
                assert!(!consistent(old as u64, &old_root, new as u64, &new_root, &longer));
            }
        }
        assert!(consistency_proof(&leaves(3), 0).is_none());
        assert!(consistency_proof(&leaves(3), 4).is_none());
    }
}
