//! Receipts as a verifier sees them, the largest one, and receipt files; right and wrong.

use serde_json::{Value, json};
use weir_protocol::act::{Act, Certificate};
use weir_protocol::amount::Time;
use weir_protocol::commit::{Commit, SignedCertificate, group_item};
use weir_protocol::hash::{Hash, sha256};
use weir_protocol::id::HubId;
use weir_protocol::keys::Signature;
use weir_protocol::merkle::Tree;
use weir_protocol::payment::{payment_id, receipt_leaf};
use weir_protocol::receipt::{MAX_RECEIPT_BYTES, Receipt, ReceiptClaim, ReceiptFile};
use weir_protocol::wire;

use super::world::{World, case, key, nanos, value};

pub(crate) fn body(receipt: &Receipt) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::encode_into(receipt, &mut bytes);
    bytes
}

fn receipt_case(name: &str, bytes: &[u8], claim: &ReceiptClaim, certificate: &SignedCertificate, valid: bool) -> Value {
    let decoded = wire::decode::<Receipt>(bytes).ok();
    let checked = decoded.and_then(|receipt| receipt.check(claim, certificate).ok());
    assert_eq!(checked.is_some(), valid, "{name}");
    assert!(!valid || bytes.len() <= MAX_RECEIPT_BYTES, "{name}");
    let body = json!({
        "claim": claim,
        "certificate": certificate,
        "receipt": hex::encode(bytes),
        "bytes": bytes.len(),
        "commit": checked.map(|commit| commit.commit.id()),
        "valid": valid,
    });
    case("receipt", name, body)
}

pub(crate) fn cases(world: &World) -> Vec<Value> {
    let commit = world.commit(3);
    let mut cases = Vec::new();
    for (at, index) in [(0_usize, 0_usize), (1, 2), (2, 4)] {
        let group = world.groups.get(at).unwrap();
        for leaf in 0..group.payments.len() {
            let (receipt, claim) = group.receipt(leaf, commit, index);
            let name = format!("payment {} of group {}", leaf + 1, at + 1);
            cases.push(receipt_case(&name, &body(&receipt), &claim, &world.certificate, true));
        }
    }
    cases.push(largest(world));
    cases.extend(wrong_receipts(world));
    cases.extend(wrong_claims(world));
    cases.extend(files(world));
    cases
}

/// 1,024 leaves, 4,096 items, and every integer as wide as it can be.
fn largest(world: &World) -> Value {
    let signing = key(10);
    let certificate = Certificate { key: signing.public(), not_before: Time(0), not_after: Time(u64::MAX) };
    let digest = Act::Certificate(certificate).digest(&world.hub);
    let certificate = SignedCertificate { certificate, signature: world.identity.sign(&digest) };
    let group = &world.groups[2];
    let payment = group.payments.first().unwrap().1;
    let claim = ReceiptClaim { hub: world.hub, currency: "EUR".parse().unwrap(), payment };
    let payment_id = payment_id(&group.lane, 1);
    let numbered = |count: u32| (0..count).map(|at| sha256(&at.to_le_bytes())).collect::<Vec<_>>();
    let mut leaves = numbered(1024);
    *leaves.get_mut(1023).unwrap() = receipt_leaf(&payment_id, &payment, claim.currency);
    let leaves = Tree::new(leaves);
    let head = group.head.digest(&group.lane);
    let mut items = numbered(4096);
    *items.get_mut(4095).unwrap() = group_item(&head, 1024, &leaves.root());
    let items = Tree::new(items);
    let commit = Commit {
        hub: world.hub,
        chain: u64::MAX,
        number: u64::MAX,
        time: Time(u64::MAX - 1),
        history: sha256(b"history"),
        items: 4096,
        root: items.root(),
    };
    let receipt = Receipt {
        payment_id,
        leaf_path: leaves.path(1023).unwrap(),
        head,
        group_path: items.path(4095).unwrap(),
        chain: commit.chain,
        number: commit.number,
        time: commit.time,
        history: commit.history,
        signature: signing.sign(&commit.id()),
    };
    let bytes = body(&receipt);
    assert_eq!(bytes.len(), MAX_RECEIPT_BYTES, "the constant is the size of the largest receipt");
    receipt_case("the largest", &bytes, &claim, &certificate, true)
}

fn wrong_receipts(world: &World) -> Vec<Value> {
    let commit = world.commit(3);
    let (good, claim) = world.groups[0].receipt(2, commit, 0);
    let change = |change: &dyn Fn(&mut Receipt)| {
        let mut receipt = good.clone();
        change(&mut receipt);
        body(&receipt)
    };
    let trailing = [body(&good), vec![0]].concat();
    let short = body(&good).split_last().unwrap().1.to_vec();
    let wrong = [
        ("another payment id", change(&|receipt| receipt.payment_id.0[0] ^= 1)),
        ("another leaf index", change(&|receipt| receipt.leaf_path.index = 1)),
        ("another count of leaves", change(&|receipt| receipt.leaf_path.count = 4)),
        ("a hash more in the leaf's path", change(&|receipt| receipt.leaf_path.hashes.push(Hash::ZERO))),
        ("a hash less in the leaf's path", change(&|receipt| receipt.leaf_path.hashes.truncate(0))),
        ("another head", change(&|receipt| receipt.head.0[31] ^= 0x80)),
        ("another group index", change(&|receipt| receipt.group_path.index = 1)),
        ("another count of items", change(&|receipt| receipt.group_path.count = 6)),
        ("a count of items with the same path", change(&|receipt| receipt.group_path.count = 7)),
        ("a flipped hash in the group's path", change(&|receipt| receipt.group_path.hashes[2].0[9] ^= 1)),
        ("another chain", change(&|receipt| receipt.chain += 1)),
        ("another number", change(&|receipt| receipt.number += 1)),
        ("another time", change(&|receipt| receipt.time = receipt.time.plus_ms(1))),
        ("another history", change(&|receipt| receipt.history = Hash::ZERO)),
        ("a flipped signature", change(&|receipt| receipt.signature.0[63] ^= 1)),
        ("zeros as the signature", change(&|receipt| receipt.signature = Signature::ZERO)),
        ("a byte after the end", trailing),
        ("a byte short", short),
    ];
    wrong.iter().map(|(name, bytes)| receipt_case(name, bytes, &claim, &world.certificate, false)).collect()
}

fn wrong_claims(world: &World) -> Vec<Value> {
    let (receipt, claim) = world.groups[0].receipt(2, world.commit(3), 0);
    let bytes = body(&receipt);
    let other_hub = HubId(key(9).public());
    let mut payee = claim;
    payee.payment.payee = world.press;
    let mut amount = claim;
    amount.payment.amount = nanos(claim.payment.amount.nanos() + 1);
    let mut reference = claim;
    reference.payment.reference.0[0] ^= 1;
    let currency = ReceiptClaim { currency: "USD".parse().unwrap(), ..claim };
    let hub = ReceiptClaim { hub: other_hub, ..claim };
    let wrong = [
        ("claimed for another payee", payee),
        ("claimed for a nano more", amount),
        ("claimed for another reference", reference),
        ("claimed in another currency", currency),
        ("claimed of another hub", hub),
    ];
    let mut cases: Vec<Value> =
        wrong.iter().map(|(name, claim)| receipt_case(name, &bytes, claim, &world.certificate, false)).collect();
    let sign = |key: &weir_protocol::keys::SecretKey, certificate: Certificate| {
        let signature = key.sign(&Act::Certificate(certificate).digest(&world.hub));
        SignedCertificate { certificate, signature }
    };
    let good = world.certificate.certificate;
    let time = receipt.time;
    let certificates = [
        ("a certificate that another key signed", sign(&key(9), good)),
        ("a certificate of another signing key", sign(&world.identity, Certificate { key: key(10).public(), ..good })),
        (
            "a certificate that begins after the commit",
            sign(&world.identity, Certificate { not_before: time.plus_ms(1), ..good }),
        ),
        ("a certificate that ends at the commit", sign(&world.identity, Certificate { not_after: time, ..good })),
        (
            "a certificate with times changed after it was signed",
            SignedCertificate { certificate: Certificate { not_after: Time(u64::MAX), ..good }, ..world.certificate },
        ),
    ];
    cases.extend(certificates.iter().map(|(name, certificate)| receipt_case(name, &bytes, &claim, certificate, false)));
    cases
}

fn files(world: &World) -> Vec<Value> {
    let (receipt, claim) = world.groups[0].receipt(0, world.commit(3), 0);
    let good = ReceiptFile {
        format: ReceiptFile::FORMAT.into(),
        hub: claim.hub,
        payee: claim.payment.payee,
        amount: claim.payment.amount,
        currency: claim.currency,
        reference: claim.payment.reference,
        certificate: world.certificate,
        receipt,
    };
    let format = ReceiptFile { format: "weir-receipt/2".into(), ..good.clone() };
    let amount = ReceiptFile { amount: nanos(60_000_000), ..good.clone() };
    let hub = ReceiptFile { hub: HubId(key(9).public()), ..good.clone() };
    let list = [
        ("a file", good, true),
        ("a file of another format", format, false),
        ("a file with another amount", amount, false),
        ("a file that names another hub", hub, false),
    ];
    list.iter()
        .map(|(name, file, valid)| {
            assert_eq!(file.check().is_ok(), *valid, "{name}");
            case("receipt_file", name, json!({ "file": value(file), "valid": valid }))
        })
        .collect()
}
