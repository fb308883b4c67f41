//! Merkle trees: roots, paths, multiproofs, consistency; and wrong ones.

use serde_json::{Value, json};
use weir_protocol::hash::{Hash, sha256};
use weir_protocol::merkle::{self, Path, Tree};

use super::world::case;

/// Leaf number `at` of every tree here: SHA-256 of its number, four bytes little-endian.
fn leaves(count: u32) -> Vec<Hash> {
    (0..count).map(|at| sha256(&at.to_le_bytes())).collect()
}

pub(crate) fn cases() -> Vec<Value> {
    let mut cases = Vec::new();
    for count in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 1000] {
        let root = merkle::root(&leaves(count));
        let rule = "leaf i = SHA-256(i as 4 bytes little-endian)";
        cases.push(case("tree", &format!("{count} leaves"), json!({ "count": count, "leaves": rule, "root": root })));
    }
    for (index, count) in [(0_u32, 1), (0, 2), (1, 2), (2, 3), (0, 5), (4, 5), (6, 7), (3, 8), (12, 13), (999, 1000)] {
        let path = Tree::new(leaves(count)).path(index as usize).unwrap();
        let leaf = sha256(&index.to_le_bytes());
        let root = path.root(&leaf).unwrap();
        cases.push(path_case(&format!("leaf {index} of {count}"), &leaf, &path, &root, true));
    }
    cases.extend(wrong_paths());
    cases.extend(multiproofs());
    for (old, new) in [(1, 1), (1, 2), (2, 3), (3, 5), (4, 7), (6, 7), (4, 8), (7, 8), (8, 13), (13, 13)] {
        let all = leaves(new);
        let hashes = merkle::consistency_proof(&all, old as usize).unwrap();
        let (old_root, new_root) = (merkle::root(&leaves(old)), merkle::root(&all));
        let name = format!("{old} of {new}");
        cases.push(consistency(&name, [old, new], [&old_root, &new_root], &hashes, true));
        let other = sha256(b"another tree");
        cases.push(consistency(&format!("{name}, another old root"), [old, new], [&other, &new_root], &hashes, false));
        let longer = [hashes.clone(), vec![other]].concat();
        cases.push(consistency(&format!("{name}, a hash more"), [old, new], [&old_root, &new_root], &longer, false));
        if !hashes.is_empty() {
            let shorter = hashes.get(1..).unwrap();
            let name = format!("{name}, a hash less");
            cases.push(consistency(&name, [old, new], [&old_root, &new_root], shorter, false));
        }
    }
    let root = merkle::root(&leaves(3));
    cases.push(consistency("nothing of 3", [0, 3], [&Hash::ZERO, &root], &[], false));
    cases.push(consistency("4 of 3", [4, 3], [&root, &root], &[], false));
    cases
}

pub(crate) fn path_case(name: &str, leaf: &Hash, path: &Path, root: &Hash, valid: bool) -> Value {
    assert_eq!(path.root(leaf) == Some(*root), valid, "{name}");
    case("path", name, json!({ "leaf": leaf, "path": path, "root": root, "valid": valid }))
}

fn wrong_paths() -> Vec<Value> {
    let tree = Tree::new(leaves(5));
    let (good, leaf, root) = (tree.path(2).unwrap(), sha256(&2_u32.to_le_bytes()), tree.root());
    let change = |change: &dyn Fn(&mut Path)| {
        let mut path = good.clone();
        change(&mut path);
        path
    };
    let wrong = [
        ("another index", change(&|path| path.index = 3)),
        ("another count", change(&|path| path.count = 4)),
        ("a count that needs more hashes", change(&|path| path.count = 9)),
        ("index past the end", change(&|path| path.index = 5)),
        ("count of zero", change(&|path| (path.index, path.count) = (0, 0))),
        ("a hash more", change(&|path| path.hashes.push(Hash::ZERO))),
        ("a hash less", change(&|path| path.hashes.truncate(2))),
        ("hashes in another order", change(&|path| path.hashes.reverse())),
        ("a byte flipped", change(&|path| path.hashes.iter_mut().for_each(|hash| hash.0[31] ^= 1))),
    ];
    let mut cases: Vec<_> = wrong.iter().map(|(name, path)| path_case(name, &leaf, path, &root, false)).collect();
    cases.push(path_case("another leaf", &sha256(b"another"), &good, &root, false));
    cases
}

fn multiproofs() -> Vec<Value> {
    let mut cases = Vec::new();
    let sets: [(u32, &[u32]); 9] = [
        (1, &[0]),
        (2, &[1]),
        (3, &[2]),
        (5, &[0, 4]),
        (5, &[1, 2]),
        (5, &[0, 1, 2, 3, 4]),
        (7, &[3, 6]),
        (8, &[0, 1, 2, 3]),
        (13, &[2, 5, 12]),
    ];
    for (count, indices) in sets {
        let all = leaves(count);
        let hashes = Tree::new(all.clone()).multiproof(indices);
        let root = merkle::root(&all);
        let wanted = pick(&all, indices);
        let name = format!("{indices:?} of {count}");
        cases.push(multiproof(&name, count, &wanted, &hashes, &root, true));
    }
    let all = leaves(7);
    let (good, root) = (Tree::new(all.clone()).multiproof(&[3, 6]), merkle::root(&all));
    let wanted = pick(&all, &[3, 6]);
    let swapped: Vec<_> = wanted.iter().rev().copied().collect();
    let twice = pick(&all, &[3, 3, 6]);
    let longer = [good.clone(), vec![Hash::ZERO]].concat();
    cases.push(multiproof("a hash more", 7, &wanted, &longer, &root, false));
    cases.push(multiproof("a hash less", 7, &wanted, good.get(1..).unwrap(), &root, false));
    cases.push(multiproof("another count", 6, &wanted, &good, &root, false));
    cases.push(multiproof("not ascending", 7, &swapped, &good, &root, false));
    cases.push(multiproof("a leaf twice", 7, &twice, &good, &root, false));
    cases.push(multiproof("no leaf", 7, &[], &[root], &root, false));
    cases.push(multiproof("a leaf past the end", 7, &[(7, *all.first().unwrap())], &good, &root, false));
    cases
}

fn pick(all: &[Hash], indices: &[u32]) -> Vec<(u32, Hash)> {
    indices.iter().map(|at| (*at, *all.get(*at as usize).unwrap())).collect()
}

fn multiproof(name: &str, count: u32, leaves: &[(u32, Hash)], hashes: &[Hash], root: &Hash, valid: bool) -> Value {
    assert_eq!(merkle::multiproof_root(count, leaves, hashes) == Some(*root), valid, "{name}");
    let body = json!({ "count": count, "leaves": leaves, "hashes": hashes, "root": root, "valid": valid });
    case("multiproof", name, body)
}

pub(crate) fn consistency(name: &str, sizes: [u32; 2], roots: [&Hash; 2], hashes: &[Hash], valid: bool) -> Value {
    let ([old, new], [old_root, new_root]) = (sizes, roots);
    let holds = merkle::consistent(u64::from(old), old_root, u64::from(new), new_root, hashes);
    assert_eq!(holds, valid, "{name}");
    let body = json!({
        "old": old, "old_root": old_root, "new": new, "new_root": new_root, "hashes": hashes, "valid": valid,
    });
    case("consistency", name, body)
}
