//! Keys, signatures, ids as text, tags, and preimages of fixed width.

use serde_json::{Value, json};
use weir_protocol::act::payout_leaf;
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::commit::{Blind, act_item, group_item};
use weir_protocol::hash::{Hash, sha256, tag};
use weir_protocol::id::{AccountId, HubAddress, HubId};
use weir_protocol::keys::{PublicKey, SecretKey, Signature};
use weir_protocol::merkle;
use weir_protocol::payment::{Head, next_state, payment_id, receipt_leaf};
use weir_protocol::wire::{KeyScope, Nonce, hello_digest, tls_digest};

use super::layout;
use super::world::{SECRETS, START, World, case, key, nanos, value};

/// The curve's order: no secret key.
const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
/// The field's prime: no x coordinate.
const PRIME: &str = "fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f";

pub(crate) fn keys(world: &World) -> Vec<Value> {
    let mut cases: Vec<Value> = SECRETS
        .iter()
        .map(|(name, fill)| {
            case(
                "secret_key",
                name,
                json!({ "secret": hex::encode([*fill; 32]), "public": key(*fill).public(), "valid": true }),
            )
        })
        .collect();
    for (name, secret) in [("zero", "00".repeat(32)), ("order", ORDER.into())] {
        let mut bytes = [0; 32];
        hex::decode_to_slice(&secret, &mut bytes).unwrap();
        assert!(SecretKey::from_bytes(&bytes).is_err());
        cases.push(case("secret_key", name, json!({ "secret": secret, "valid": false })));
    }
    let publics = [
        ("on the curve", world.payer.key().to_string(), true),
        ("off the curve", "55".repeat(32), false),
        ("zeros", "00".repeat(32), false),
        ("the field's prime", PRIME.into(), false),
    ];
    for (name, public, valid) in publics {
        assert_eq!(public.parse::<PublicKey>().unwrap().parse().is_ok(), valid, "{name}");
        cases.push(case("public_key", name, json!({ "public": public, "valid": valid })));
    }
    cases.extend(signatures(world));
    cases
}

fn signatures(world: &World) -> Vec<Value> {
    let mut cases = Vec::new();
    for (name, message) in [("of a hash", sha256(b"message")), ("of zeros", Hash::ZERO), ("of ones", Hash([0xff; 32]))]
    {
        let signature = world.account.sign(&message);
        let body = json!({
            "secret": hex::encode(*world.account.to_bytes()),
            "public": world.account.public(),
            "digest": message,
            "signature": signature,
            "valid": true,
        });
        cases.push(case("signature", name, body));
    }
    let digest = sha256(b"message");
    let good = world.account.sign(&digest);
    let mut wrong = |name: &str, public: PublicKey, digest: Hash, signature: Signature| {
        assert!(!public.verify(&digest, &signature), "{name}");
        let body = json!({ "public": public, "digest": digest, "signature": signature, "valid": false });
        cases.push(case("signature", name, body));
    };
    let public = world.account.public();
    wrong("of another key", world.channel.public(), digest, good);
    wrong("over another digest", public, sha256(b"another"), good);
    wrong("zeros", public, digest, Signature::ZERO);
    for (name, at) in [("first half flipped", 0), ("second half flipped", 63)] {
        let mut flipped = good;
        *flipped.0.get_mut(at).unwrap() ^= 1;
        wrong(name, public, digest, flipped);
    }
    let (nonce, proof) = good.0.split_at(32);
    let mut order = [0; 32];
    hex::decode_to_slice(ORDER, &mut order).unwrap();
    let mut prime = [0; 32];
    hex::decode_to_slice(PRIME, &mut prime).unwrap();
    wrong("s is the order", public, digest, Signature([nonce, &order].concat().try_into().unwrap()));
    wrong("r is the prime", public, digest, Signature([&prime, proof].concat().try_into().unwrap()));
    cases
}

pub(crate) fn ids(world: &World) -> Vec<Value> {
    let mut cases = Vec::new();
    let (account, hub) = (world.payer.to_string(), world.hub.to_string());
    let zeros = AccountId::ZERO.to_string();
    let flipped = account.replace(account.get(20..21).unwrap(), if account.contains('q') { "p" } else { "q" });
    let texts = [
        ("an account", account.clone(), true),
        ("zeros are a name too", zeros, true),
        ("upper case", account.to_uppercase(), false),
        ("mixed case", account.replacen('w', "W", 1), false),
        ("a character changed", flipped, false),
        ("cut short", account.get(..account.len() - 1).unwrap().into(), false),
        ("a space in front", format!(" {account}"), false),
        ("a hub", hub.clone(), false),
        ("bech32 instead of bech32m", bech32_of(world.payer.as_bytes(), false, 32), false),
        ("31 bytes", bech32_of(world.payer.as_bytes(), true, 31), false),
        ("nothing", String::new(), false),
    ];
    for (name, text, valid) in texts {
        let parsed = text.parse::<AccountId>();
        assert_eq!(parsed.is_ok(), valid, "{name}");
        let key = parsed.ok().map(|id| id.key());
        cases.push(case("account_id", name, json!({ "text": text, "key": key, "valid": valid })));
    }
    for (name, text, valid) in [("a hub", hub.clone(), true), ("an account", account, false)] {
        let parsed = text.parse::<HubId>();
        assert_eq!(parsed.is_ok(), valid, "{name}");
        let key = parsed.ok().map(|id| id.key());
        cases.push(case("hub_id", name, json!({ "text": text, "key": key, "valid": valid })));
    }
    let places = [
        "localhost:1",
        "127.0.0.1:65535",
        "[::1]:4433",
        "hub.example.org:443",
        "h",
        "h:",
        ":1",
        "h:65536",
        "h:-1",
        "h:+1",
        "::1:1",
        "[::g]:1",
        "h h:1",
        "[h]:1",
        "h_1:1",
    ];
    for place in places {
        let text = format!("weir://{hub}@{place}");
        let parsed = text.parse::<HubAddress>();
        let body = match &parsed {
            Ok(address) => {
                json!({ "text": text, "hub": hub, "host": address.host, "port": address.port, "valid": true })
            }
            Err(_) => json!({ "text": text, "valid": false }),
        };
        cases.push(case("address", place, body));
    }
    for text in [format!("http://{hub}@h:1"), "weir://".into(), "weir://h:1".into()] {
        assert!(text.parse::<HubAddress>().is_err());
        cases.push(case("address", &text, json!({ "text": text, "valid": false })));
    }
    let amounts = [
        "0",
        "0.000000001",
        "0.05",
        "1",
        "1.50",
        "007",
        "18446744073.709551615",
        "18446744073.709551616",
        "",
        ".",
        "1.",
        ".5",
        "-1",
        "+1",
        "1e3",
        "0.0000000001",
        "1,5",
        "1_0",
        " 1",
    ];
    for text in amounts {
        let body = match text.parse::<Amount>() {
            Ok(amount) => json!({ "text": text, "nanos": amount.nanos(), "shown": amount, "valid": true }),
            Err(_) => json!({ "text": text, "valid": false }),
        };
        cases.push(case("amount", text, body));
    }
    for text in ["EUR", "USD", "eur", "EU", "EURO", "E1R", ""] {
        let body = match text.parse::<Currency>() {
            Ok(currency) => json!({ "text": text, "preimage": hex::encode(currency.to_bytes()), "valid": true }),
            Err(_) => json!({ "text": text, "valid": false }),
        };
        cases.push(case("currency", text, body));
    }
    cases
}

/// An account id made the wrong way.
fn bech32_of(bytes: &[u8], modern: bool, len: usize) -> String {
    let prefix = bech32::Hrp::parse("weir").unwrap();
    let bytes = bytes.get(..len).unwrap();
    if modern {
        bech32::encode::<bech32::Bech32m>(prefix, bytes).unwrap()
    } else {
        bech32::encode::<bech32::Bech32>(prefix, bytes).unwrap()
    }
}

/// A preimage laid out from the table must hash to what the crate gives.
pub(crate) fn hashed(name: &str, tag: &str, fields: &Value, expected: Hash) -> Value {
    let preimage = layout::lay(tag, fields);
    assert_eq!(layout::hash(tag, &preimage), expected, "{tag}: {name}");
    case("hash", name, json!({ "tag": tag, "fields": fields, "preimage": hex::encode(preimage), "hash": expected }))
}

pub(crate) fn hashes(world: &World) -> Vec<Value> {
    let mut cases: Vec<Value> = tag::ALL_TAGS
        .iter()
        .map(|tag| case("tag", tag.name(), json!({ "tag": tag.name(), "hash_of_nothing": tag.hash(&[]) })))
        .collect();
    let [first, second, _] = &world.groups;
    let (left, right) = (sha256(b"left"), sha256(b"right"));
    cases.push(hashed("a node", "weir/node", &json!({ "left": left, "right": right }), merkle::node(&left, &right)));
    let mut head = first.before;
    for (sequence, payment) in &first.payments {
        let state = next_state(&head.state, *sequence, payment);
        let fields = json!({
            "state": head.state, "sequence": sequence, "amount": payment.amount, "payee": payment.payee,
            "reference": payment.reference,
        });
        cases.push(hashed(&format!("payment {sequence}"), "weir/payment", &fields, state));
        let id = payment_id(&first.lane, *sequence);
        let fields = json!({ "lane": first.lane, "sequence": sequence });
        cases.push(hashed(&format!("id of payment {sequence}"), "weir/id", &fields, Hash(id.0)));
        let fields = json!({
            "payment_id": id, "payee": payment.payee, "amount": payment.amount, "currency": "EUR",
            "reference": payment.reference,
        });
        let leaf = receipt_leaf(&id, payment, Currency::EUR);
        cases.push(hashed(&format!("leaf of payment {sequence}"), "weir/receipt", &fields, leaf));
        head.state = state;
    }
    let unused = world.grants[2].id();
    let heads = [
        ("head of group 1", first.head, first.lane),
        ("head with a deadline", second.head, second.lane),
        ("head of an unused lane", Head::empty(&unused), unused),
    ];
    for (name, head, lane) in heads {
        cases.push(hashed(name, "weir/head", &head_fields(&head, &lane), head.digest(&lane)));
    }
    let (head, leaves) = (first.head.digest(&first.lane), merkle::root(&first.leaves()));
    let fields = json!({ "head": head, "count": first.count(), "leaves": leaves });
    cases.push(hashed("group 1", "weir/group", &fields, group_item(&head, first.count(), &leaves)));
    let blind = Blind::derive(&[0x5e; 32], START, 3, 1);
    let fields = json!({ "secret": "5e".repeat(32), "chain": START, "number": 3, "index": 1 });
    let whole = layout::hash("weir/blind", &layout::lay("weir/blind", &fields));
    assert_eq!(whole.0.get(..16).unwrap(), blind.0);
    cases.push(hashed("blind of a commit's second item (the first 16 bytes count)", "weir/blind", &fields, whole));
    let digest = sha256(b"an act's digest");
    let fields = json!({ "blind": blind, "kind": 12, "digest": digest });
    cases.push(hashed("an act as an item", "weir/act", &fields, act_item(&blind, 12, &digest)));
    for built in &world.commits {
        let commit = built.signed.commit;
        cases.push(hashed(&format!("commit {}", commit.number), "weir/commit", &value(&commit), commit.id()));
    }
    cases.push(hashed("the terms", "weir/channel", &value(&world.terms), Hash(world.terms.id().0)));
    for grant in &world.grants {
        cases.push(hashed(&format!("grant of lane {}", grant.lane), "weir/lane", &value(grant), Hash(grant.id().0)));
    }
    cases.extend(connection(world));
    let fields = json!({ "window": 7, "account": world.shop, "currency": "EUR", "amount": nanos(12_340_000_000) });
    let leaf = payout_leaf(7, &world.shop, Currency::EUR, nanos(12_340_000_000));
    cases.push(hashed("a payout", "weir/payout", &fields, leaf));
    let challenge = "x7Tg2pLqR9mKvNwY3hBcZa";
    let fields = json!({ "challenge": hex::encode(challenge) });
    cases.push(hashed("a challenge", "weir/reference", &fields, tag::REFERENCE.hash(challenge.as_bytes())));
    cases
}

pub(crate) fn head_fields(head: &Head, lane: &weir_protocol::id::LaneId) -> Value {
    json!({
        "lane": lane, "state": head.state, "sequence": head.sequence, "total": head.total,
        "valid_until": head.valid_until,
    })
}

fn connection(world: &World) -> Vec<Value> {
    let spki = super::handshake::spki();
    let until = Time(START + 90 * super::world::DAY);
    let fields = json!({ "hub": world.hub, "spki_sha256": sha256(&spki), "not_after": until });
    let mut cases = vec![hashed("a TLS key", "weir/tls", &fields, tls_digest(&world.hub, &spki, until))];
    let nonce = Nonce([0x77; 32]);
    let binding = sha256(&[spki.as_slice(), &nonce.0].concat());
    let scopes = [
        ("hello of an account key", KeyScope::Account(world.payer), world.account.public()),
        ("hello of a channel key", KeyScope::Channel(world.channel_id()), world.channel.public()),
        ("hello of a lane key", KeyScope::Lane(world.grants[1].id()), world.lane_one.public()),
    ];
    for (name, scope, key) in scopes {
        let fields = json!({ "hub": world.hub, "key": key, "scope": scope.code(), "binding": binding });
        cases.push(hashed(name, "weir/hello", &fields, hello_digest(&world.hub, &key, &scope, &spki, &nonce)));
    }
    cases
}
