//! The start of a connection: certificates, the hub's welcome, proofs of keys; right and wrong.

use serde_json::{Value, json};
use weir_protocol::act::{Act, Certificate};
use weir_protocol::amount::Time;
use weir_protocol::commit::SignedCertificate;
use weir_protocol::id::HubId;
use weir_protocol::keys::{PublicKey, SecretKey, Signature};
use weir_protocol::wire::{self, Cursor, KeyScope, Nonce, Welcome, hello_digest, tls_digest};

use super::world::{DAY, START, World, case, key};

/// The DER SubjectPublicKeyInfo of an Ed25519 key.
pub(crate) fn spki() -> Vec<u8> {
    let mut der = hex::decode("302a300506032b6570032100").unwrap();
    der.extend(0xa0..0xc0);
    der
}

const NONCE: Nonce = Nonce([0x77; 32]);

pub(crate) fn welcome(world: &World) -> Welcome {
    let not_after = Time(START + 90 * DAY);
    Welcome {
        version: 1,
        hub: world.hub,
        certificate: world.certificate,
        not_after,
        signature: world.signing.sign(&tls_digest(&world.hub, &spki(), not_after)),
        nonce: NONCE,
        time: Time(START + 7500),
        newest: Cursor { chain: START, number: 7 },
    }
}

pub(crate) fn cases(world: &World) -> Vec<Value> {
    let mut cases = certificates(world);
    cases.extend(welcomes(world));
    cases.extend(hellos(world));
    cases
}

fn certificates(world: &World) -> Vec<Value> {
    let good = world.certificate;
    let mut longer = good;
    longer.certificate.not_after = Time(u64::MAX);
    let mut earlier = good;
    earlier.certificate.not_before = Time(0);
    let mut other = good;
    other.certificate.key = key(10).public();
    let next =
        Certificate { key: key(10).public(), not_before: Time(START + 5000), not_after: Time(START + 700 * DAY) };
    let next = SignedCertificate {
        certificate: next,
        signature: world.identity.sign(&Act::Certificate(next).digest(&world.hub)),
    };
    let by_signing = SignedCertificate {
        signature: world.signing.sign(&Act::Certificate(good.certificate).digest(&world.hub)),
        ..good
    };
    let list = [
        ("a certificate", world.hub, good, true),
        ("its successor", world.hub, next, true),
        ("for another hub", HubId(key(9).public()), good, false),
        ("with a longer time", world.hub, longer, false),
        ("with an earlier begin", world.hub, earlier, false),
        ("with another key", world.hub, other, false),
        ("signed by the signing key", world.hub, by_signing, false),
    ];
    list.iter()
        .map(|(name, hub, certificate, valid)| {
            assert_eq!(certificate.check(hub).is_ok(), *valid, "{name}");
            case("certificate", name, json!({ "hub": hub, "certificate": certificate, "valid": valid }))
        })
        .collect()
}

fn welcomes(world: &World) -> Vec<Value> {
    let good = welcome(world);
    let now = START + 7600;
    let change = |change: &dyn Fn(&mut Welcome)| {
        let mut welcome = good;
        change(&mut welcome);
        welcome
    };
    let mut other_spki = spki();
    *other_spki.last_mut().unwrap() ^= 1;
    let tls_end = good.not_after.0;
    let sign = |not_after: u64| world.signing.sign(&tls_digest(&world.hub, &spki(), Time(not_after)));
    let beyond = world.certificate.certificate.not_after.0;
    let outlives = change(&|welcome| (welcome.not_after, welcome.signature) = (Time(u64::MAX), sign(u64::MAX)));
    let stranger = HubId(key(9).public());
    let list = [
        ("a welcome", world.hub, spki(), now, good, true),
        ("at the TLS key's last instant", world.hub, spki(), tls_end - 1, good, true),
        ("when the TLS key is over", world.hub, spki(), tls_end, good, false),
        ("at the certificate's last instant", world.hub, spki(), beyond - 1, outlives, true),
        ("when the certificate is over", world.hub, spki(), beyond, outlives, false),
        ("from another hub than expected", stranger, spki(), now, good, false),
        ("behind another TLS key", world.hub, other_spki, now, good, false),
        (
            "with another not_after",
            world.hub,
            spki(),
            now,
            change(&|welcome| welcome.not_after = Time(tls_end + 1)),
            false,
        ),
        (
            "with another certificate",
            world.hub,
            spki(),
            now,
            change(&|welcome| welcome.certificate.certificate.key = key(10).public()),
            false,
        ),
        (
            "signed by the identity key",
            world.hub,
            spki(),
            now,
            change(&|welcome| {
                welcome.signature = world.identity.sign(&tls_digest(&world.hub, &spki(), welcome.not_after));
            }),
            false,
        ),
        (
            "with zeros as the signature",
            world.hub,
            spki(),
            now,
            change(&|welcome| welcome.signature = Signature::ZERO),
            false,
        ),
    ];
    list.iter()
        .map(|(name, expected, spki, now, welcome, valid)| {
            assert_eq!(welcome.check(expected, spki, Time(*now)).is_ok(), *valid, "{name}");
            let mut bytes = Vec::new();
            wire::encode_into(welcome, &mut bytes);
            let body = json!({
                "expected": expected, "spki": hex::encode(spki), "now": now, "welcome": hex::encode(bytes),
                "value": welcome, "valid": valid,
            });
            case("welcome", name, body)
        })
        .collect()
}

fn hellos(world: &World) -> Vec<Value> {
    let account = KeyScope::Account(world.payer);
    let channel = KeyScope::Channel(world.channel_id());
    let lane = KeyScope::Lane(world.grants[1].id());
    let mut cases = Vec::new();
    let mut add = |name: &str, scope: KeyScope, key: &PublicKey, spki: &[u8], signature: Signature, valid: bool| {
        let digest = hello_digest(&world.hub, key, &scope, spki, &NONCE);
        assert_eq!(key.verify(&digest, &signature), valid, "{name}");
        let body = json!({
            "hub": world.hub, "spki": hex::encode(spki), "nonce": NONCE, "scope": scope, "key": key,
            "digest": digest, "signature": signature, "valid": valid,
        });
        cases.push(case("hello", name, body));
    };
    let prove =
        |scope: &KeyScope, key: &SecretKey| key.sign(&hello_digest(&world.hub, &key.public(), scope, &spki(), &NONCE));
    let (payer, owner, one) = (world.account.public(), world.channel.public(), world.lane_one.public());
    add("an account key", account, &payer, &spki(), prove(&account, &world.account), true);
    add("a channel key", channel, &owner, &spki(), prove(&channel, &world.channel), true);
    add("a lane key", lane, &one, &spki(), prove(&lane, &world.lane_one), true);
    add("proven for another scope", channel, &one, &spki(), prove(&lane, &world.lane_one), false);
    add("proven with another key", lane, &one, &spki(), prove(&lane, &world.channel), false);
    let mut relayed = spki();
    *relayed.last_mut().unwrap() ^= 1;
    add("relayed from another TLS key", account, &payer, &relayed, prove(&account, &world.account), false);
    cases
}
