//! The payment chain, commits, histories, answers, act proofs, and what an attach answers; right and wrong.

use serde_json::{Value, json};
use weir_protocol::act::{Act, Void};
use weir_protocol::amount::{Amount, Time};
use weir_protocol::commit::{ActProof, Answer, SignedCertificate, SignedCommit, group_item};
use weir_protocol::hash::{Hash, sha256};
use weir_protocol::id::HubId;
use weir_protocol::keys::Signature;
use weir_protocol::merkle::{self, Path, Tree};
use weir_protocol::payment::{Head, next_state};
use weir_protocol::wire::{self, Attached, LaneRequest};

use super::trees::{consistency, path_case};
use super::world::{Group, World, case, key, nanos};

pub(crate) fn cases(world: &World) -> Vec<Value> {
    let keys = [world.channel.public(), world.channel.public(), world.lane_one.public()];
    let mut cases: Vec<Value> = world
        .groups
        .iter()
        .zip(keys)
        .zip(["lane 0, sequences 1 to 3", "lane 0, sequences 7 and 8 after a void", "lane 1, sequence 1"])
        .map(|((group, key), name)| states(group, &key.to_string(), name))
        .collect();
    cases.extend(commits(world));
    cases.extend(histories(world));
    cases.extend(answers(world));
    cases.extend(act_proofs(world));
    cases.extend(attaches(world));
    let heads = world.heads();
    let body = json!({ "leaves": heads, "root": merkle::root(&heads) });
    cases.push(case("root", "the heads of the channel's three lanes, by number", body));
    cases
}

fn states(group: &Group, key: &str, name: &str) -> Value {
    let mut state = group.before.state;
    let mut states = Vec::new();
    for (sequence, payment) in &group.payments {
        state = next_state(&state, *sequence, payment);
        states.push(state);
    }
    let mut frame = Vec::new();
    wire::encode_into(&LaneRequest::Frame(group.frame()), &mut frame);
    case(
        "group",
        name,
        json!({
            "lane": group.lane,
            "key": key,
            "before": group.before,
            "payments": group.payments,
            "currency": "EUR",
            "states": states,
            "head": group.head,
            "digest": group.head.digest(&group.lane),
            "signature": group.signature,
            "frame": hex::encode(frame),
            "leaves": group.leaves(),
            "leaves_root": merkle::root(&group.leaves()),
            "item": group.item(),
        }),
    )
}

fn commit_case(name: &str, hub: &HubId, commit: &SignedCommit, certificate: &SignedCertificate, valid: bool) -> Value {
    let holds = certificate.check(hub).and_then(|()| commit.check(hub, &certificate.certificate));
    assert_eq!(holds.is_ok(), valid, "{name}");
    let body = json!({
        "hub": hub, "certificate": certificate, "signed": commit, "id": commit.commit.id(), "valid": valid,
    });
    case("commit", name, body)
}

fn commits(world: &World) -> Vec<Value> {
    let mut cases = Vec::new();
    let mut ids = Vec::new();
    for built in &world.commits {
        let commit = built.signed.commit;
        let name = format!("commit {}", commit.number);
        assert_eq!(merkle::root(&ids), commit.history);
        cases.push(commit_case(&name, &world.hub, &built.signed, &world.certificate, true));
        let body = json!({ "leaves": built.items, "root": commit.root });
        cases.push(case("root", &format!("items of {name}"), body));
        let body = json!({ "leaves": ids, "root": commit.history });
        cases.push(case("root", &format!("history of {name}"), body));
        ids.push(commit.id());
    }
    let good = world.commit(3).signed;
    let resigned = |change: &dyn Fn(&mut SignedCommit)| {
        let mut commit = good;
        change(&mut commit);
        commit.signature = world.signing.sign(&commit.commit.id());
        commit
    };
    let window = world.certificate.certificate;
    let times = [
        ("at the certificate's first instant", window.not_before, true),
        ("before the certificate's first instant", window.not_before.minus_ms(1), false),
        ("at the certificate's last instant", window.not_after.minus_ms(1), true),
        ("when the certificate is over", window.not_after, false),
    ];
    for (name, time, valid) in times {
        let commit = resigned(&|commit| commit.commit.time = time);
        cases.push(commit_case(name, &world.hub, &commit, &world.certificate, valid));
    }
    let other = HubId(key(9).public());
    let commit = resigned(&|commit| commit.commit.hub = other);
    cases.push(commit_case("of another hub", &world.hub, &commit, &world.certificate, false));
    let by_identity = SignedCommit { signature: world.identity.sign(&good.commit.id()), ..good };
    cases.push(commit_case("signed by the identity key", &world.hub, &by_identity, &world.certificate, false));
    let mut flipped = good;
    flipped.signature.0[40] ^= 0x10;
    cases.push(commit_case("a flipped signature", &world.hub, &flipped, &world.certificate, false));
    let mut more = good;
    more.commit.items += 1;
    cases.push(commit_case("another count of items", &world.hub, &more, &world.certificate, false));
    cases
}

fn histories(world: &World) -> Vec<Value> {
    let ids: Vec<Hash> = world.commits.iter().map(|built| built.signed.commit.id()).collect();
    let newest = ids.get(..6).unwrap();
    let root = world.commit(7).signed.commit.history;
    let mut cases = Vec::new();
    for (index, leaf) in newest.iter().enumerate() {
        let path = Tree::new(newest.to_vec()).path(index).unwrap();
        let name = format!("commit {} in the history of commit 7", index + 1);
        cases.push(path_case(&name, leaf, &path, &root, true));
    }
    let path = Tree::new(newest.to_vec()).path(2).unwrap();
    cases.push(path_case("commit 2 in the place of commit 3", newest.get(1).unwrap(), &path, &root, false));
    for old in [2, 3, 6] {
        let history = world.commit(old + 1).signed.commit.history;
        let hashes = merkle::consistency_proof(newest, old).unwrap();
        let name = format!("history of commit {} in that of commit 7", old + 1);
        let sizes = [u32::try_from(old).unwrap(), 6];
        cases.push(consistency(&name, sizes, [&history, &root], &hashes, true));
        let other = sha256(b"another history");
        cases.push(consistency(&format!("{name}, rewritten"), sizes, [&other, &root], &hashes, false));
    }
    cases
}

fn answer_case(world: &World, name: &str, group: &Group, answer: &Answer, valid: bool) -> Value {
    let fits = answer.through_sequence == group.head.sequence;
    let head = group.head.digest(&group.lane);
    let holds = answer.commit.check(&world.hub, &world.certificate.certificate).and_then(|()| answer.includes(&head));
    assert_eq!(holds.is_ok() && fits, valid, "{name}");
    let body = json!({
        "hub": world.hub, "certificate": world.certificate, "head": head, "sequence": group.head.sequence,
        "answer": answer, "valid": valid,
    });
    case("answer", name, body)
}

fn answers(world: &World) -> Vec<Value> {
    let commit = world.commit(3);
    let mut cases = Vec::new();
    for (at, index) in [(0_usize, 0_usize), (1, 2), (2, 4)] {
        let group = world.groups.get(at).unwrap();
        let name = format!("group {} of commit 3, item {index}", at + 1);
        let answer = group.answer(commit, index);
        cases.push(answer_case(world, &name, group, &answer, true));
    }
    let [first, second, _] = &world.groups;
    let good = second.answer(commit, 2);
    let change = |change: &dyn Fn(&mut Answer)| {
        let mut answer = good.clone();
        change(&mut answer);
        answer
    };
    let wrong = [
        ("another count", change(&|answer| answer.count = 3)),
        ("another root of the leaves", change(&|answer| answer.leaves = Hash::ZERO)),
        ("another index", change(&|answer| answer.path.index = 3)),
        ("a count of items that is not the commit's", change(&|answer| answer.path.count = 6)),
        ("a hash more", change(&|answer| answer.path.hashes.push(Hash::ZERO))),
        ("a byte of the path flipped", change(&|answer| answer.path.hashes[0].0[0] ^= 1)),
        ("another commit", change(&|answer| answer.commit = world.commit(4).signed)),
        ("another history in the commit", change(&|answer| answer.commit.commit.history = Hash::ZERO)),
        ("through another sequence", change(&|answer| answer.through_sequence = 7)),
    ];
    cases.extend(wrong.iter().map(|(name, answer)| answer_case(world, name, second, answer, false)));
    cases.push(answer_case(world, "the answer to another group", first, &good, false));
    cases
}

fn act_proof_case(world: &World, name: &str, act: &Act, proof: &ActProof, valid: bool) -> Value {
    let holds = proof.check(&world.hub, &world.certificate.certificate, act);
    assert_eq!(holds.is_ok(), valid, "{name}");
    let body = json!({
        "hub": world.hub, "certificate": world.certificate, "act": act, "proof": proof, "valid": valid,
    });
    case("act_proof", name, body)
}

fn act_proofs(world: &World) -> Vec<Value> {
    let mut cases = Vec::new();
    for (number, index) in [(1, 0), (2, 4), (2, 6), (3, 1), (4, 1), (5, 0)] {
        let (act, proof) = world.commit(number).act(index);
        let name = format!("act {index} of commit {number}");
        cases.push(act_proof_case(world, &name, &act, &proof, true));
    }
    let (act, good) = world.commit(3).act(1);
    let mut blind = good.clone();
    blind.blind.0[0] ^= 1;
    cases.push(act_proof_case(world, "another blind", &act, &blind, false));
    let mut path = good.clone();
    path.path.hashes.swap(0, 1);
    cases.push(act_proof_case(world, "hashes in another order", &act, &path, false));
    let wider = Act::Void(Void { void_through: 7, ..world.void });
    cases.push(act_proof_case(world, "a void that reaches further", &wider, &good, false));
    let (deposit, _) = world.commit(3).act(3);
    cases.push(act_proof_case(world, "the proof of another act", &deposit, &good, false));
    // A group cannot stand in for an act: its hash has another tag.
    let group = group_item(&world.void.head, 3, &Hash::ZERO);
    let alone = Path { index: 0, count: 1, hashes: vec![] };
    let mut stand_in = ActProof { path: alone, ..good };
    stand_in.commit.commit.root = group;
    stand_in.commit.commit.items = 1;
    stand_in.commit.signature = world.signing.sign(&stand_in.commit.commit.id());
    cases.push(act_proof_case(world, "a group in the act's place", &act, &stand_in, false));
    cases
}

fn attaches(world: &World) -> Vec<Value> {
    let [first, ..] = &world.groups;
    let (_, proof) = world.commit(3).act(1);
    let good = Attached { void: world.void, head: first.head, signature: Some(first.signature), proof };
    let change = |change: &dyn Fn(&mut Attached)| {
        let mut attached = good.clone();
        change(&mut attached);
        attached
    };
    let mut flipped = first.signature;
    flipped.0[0] ^= 1;
    let shorter = Head { total: nanos(1), ..first.head };
    let later = Head { valid_until: Time(5), ..first.head };
    let list = [
        ("an attach that voids 4 to 6", 6, good.clone(), true),
        ("an attach that asked for less than was voided before", 2, good.clone(), true),
        ("an attach that asked for more than was voided", 7, good.clone(), false),
        ("a head with another total", 6, change(&|attached| attached.head = shorter), false),
        ("a head with another deadline", 6, change(&|attached| attached.head = later), false),
        ("a void with another total", 6, change(&|attached| attached.void.total = Amount::ZERO), false),
        ("no signature of the lane key", 6, change(&|attached| attached.signature = None), false),
        ("a wrong signature", 6, change(&|attached| attached.signature = Some(flipped)), false),
        ("zeros as the signature", 6, change(&|attached| attached.signature = Some(Signature::ZERO)), false),
        ("a proof with another blind", 6, change(&|attached| attached.proof.blind.0[5] ^= 1), false),
    ];
    list.iter()
        .map(|(name, asked, attached, valid)| {
            let body = json!({
                "hub": world.hub, "certificate": world.certificate, "lane": first.lane,
                "key": world.channel.public(), "asked": asked, "attached": attached, "valid": valid,
            });
            case("attached", name, body)
        })
        .collect()
}
