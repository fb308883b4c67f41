//! Groups of credits as a payee checks them, right and wrong.

use serde_json::{Value, json};
use weir_protocol::commit::SignedCommit;
use weir_protocol::hash::Hash;
use weir_protocol::id::AccountId;
use weir_protocol::merkle::Tree;
use weir_protocol::payment::payment_id;
use weir_protocol::wire::{self, Credit, CreditGroup};

use super::world::{Built, Group, World, case, nanos};

/// The payee's payments of a group.
pub(crate) fn credit_group(group: &Group, payee: &AccountId, built: &Built, index: usize) -> CreditGroup {
    let credits: Vec<Credit> = (0..)
        .zip(&group.payments)
        .filter(|(_, (_, payment))| payment.payee == *payee)
        .map(|(leaf, (sequence, payment))| Credit {
            leaf,
            payment_id: payment_id(&group.lane, *sequence),
            amount: payment.amount,
            reference: payment.reference,
        })
        .collect();
    let indices: Vec<u32> = credits.iter().map(|credit| credit.leaf).collect();
    CreditGroup {
        head: group.head.digest(&group.lane),
        count: group.count(),
        currency: "EUR".parse().unwrap(),
        proof: Tree::new(group.leaves()).multiproof(&indices),
        credits,
        path: built.path(index),
    }
}

fn credit_case(
    world: &World,
    name: &str,
    payee: &AccountId,
    group: &CreditGroup,
    commit: &SignedCommit,
    valid: bool,
) -> Value {
    let holds = commit.check(&world.hub, &world.certificate.certificate).and_then(|()| group.check(payee, commit));
    assert_eq!(holds.is_ok(), valid, "{name}");
    let mut bytes = Vec::new();
    wire::encode_into(group, &mut bytes);
    let body = json!({
        "hub": world.hub, "certificate": world.certificate, "signed": commit, "payee": payee,
        "group": hex::encode(bytes), "value": group, "valid": valid,
    });
    case("credit_group", name, body)
}

pub(crate) fn cases(world: &World) -> Vec<Value> {
    let built = world.commit(3);
    let commit = built.signed;
    let [first, second, third] = &world.groups;
    let good = credit_group(first, &world.shop, built, 0);
    let right = [
        ("two of three payments", &world.shop, good.clone()),
        ("one of three payments", &world.press, credit_group(first, &world.press, built, 0)),
        ("a whole group of two", &world.press, credit_group(second, &world.press, built, 2)),
        ("a whole group of one", &world.shop, credit_group(third, &world.shop, built, 4)),
    ];
    let mut cases: Vec<Value> =
        right.iter().map(|(name, payee, group)| credit_case(world, name, payee, group, &commit, true)).collect();
    let change = |change: &dyn Fn(&mut CreditGroup)| {
        let mut group = good.clone();
        change(&mut group);
        group
    };
    let wrong = [
        ("a nano more", change(&|group| group.credits[0].amount = nanos(50_000_001))),
        ("another reference", change(&|group| group.credits[1].reference.0[0] ^= 1)),
        ("another payment id", change(&|group| group.credits[1].payment_id.0[0] ^= 1)),
        ("a credit in another place", change(&|group| group.credits[1].leaf = 1)),
        ("credits not ascending", change(&|group| group.credits.reverse())),
        ("a credit left out", change(&|group| group.credits.truncate(1))),
        ("no credits", change(&|group| group.credits.clear())),
        ("another count", change(&|group| group.count = 4)),
        ("another currency", change(&|group| group.currency = "USD".parse().unwrap())),
        ("another head", change(&|group| group.head = Hash::ZERO)),
        ("a hash more in the proof", change(&|group| group.proof.push(Hash::ZERO))),
        ("no proof", change(&|group| group.proof.clear())),
        ("another place in the commit", change(&|group| group.path.index = 1)),
        ("a hash less in the path", change(&|group| group.path.hashes.truncate(2))),
    ];
    cases.extend(wrong.iter().map(|(name, group)| credit_case(world, name, &world.shop, group, &commit, false)));
    cases.push(credit_case(world, "another payee's credits", &world.press, &good, &commit, false));
    cases.push(credit_case(world, "another commit", &world.shop, &good, &world.commit(4).signed, false));
    cases
}
