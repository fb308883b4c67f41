//! Bytes that are refused before anybody looks at what they say.

use serde_json::{Value, json};
use weir_protocol::act::Act;
use weir_protocol::keys::{PublicKey, Signature};
use weir_protocol::payment::MAX_PAYMENTS;
use weir_protocol::wire::{
    self, Attach, CreditMessage, LaneReply, LaneRequest, Opening, ReplyMessage, Request, RequestMessage, Welcome,
};

use super::world::{World, case};

fn refused(kind: &str, body: &[u8]) -> bool {
    match kind {
        "Opening" => wire::decode::<Opening>(body).is_err(),
        "Welcome" => wire::decode::<Welcome>(body).is_err(),
        "RequestMessage" => wire::decode::<RequestMessage>(body).is_err(),
        "ReplyMessage" => wire::decode::<ReplyMessage>(body).is_err(),
        "LaneRequest" => wire::decode::<LaneRequest>(body).is_err(),
        "LaneReply" => wire::decode::<LaneReply>(body).is_err(),
        "CreditMessage" => wire::decode::<CreditMessage>(body).is_err(),
        "Act" => wire::decode::<Act>(body).is_err(),
        _ => unreachable!("{kind}"),
    }
}

/// A varint as LEB128, with `padding` bytes more than it needs.
fn varint(mut value: u64, padding: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            break;
        }
        bytes.push(low | 0x80);
    }
    if padding > 0 {
        *bytes.last_mut().unwrap() |= 0x80;
        bytes.resize(bytes.len() + padding - 1, 0x80);
        bytes.push(0);
    }
    bytes
}

/// A frame laid out by hand: what the constructor would refuse to make.
pub(crate) fn raw_frame(first: u64, payees: &[PublicKey], entries: &[u64]) -> Vec<u8> {
    let mut body = vec![0];
    body.extend(varint(3, 0));
    body.extend(varint(first, 0));
    body.extend(varint(payees.len() as u64, 0));
    for payee in payees {
        body.extend(payee.0);
    }
    body.extend(varint(entries.len() as u64, 0));
    for payee in entries {
        body.extend(varint(*payee, 0));
        body.extend(varint(5, 0));
        body.extend([0x11; 32]);
    }
    body.push(0);
    body.extend(Signature::ZERO.0);
    body
}

pub(crate) fn cases(world: &World) -> Vec<Value> {
    let mut cases = Vec::new();
    for (kind, name, body) in bytes(world) {
        assert!(refused(kind, &body), "{kind}: {name}");
        cases.push(case("malformed", name, json!({ "type": kind, "body": hex::encode(body) })));
    }
    for (name, limit, length) in [
        ("a request at its limit", wire::MAX_REQUEST, wire::MAX_REQUEST),
        ("a request above its limit", wire::MAX_REQUEST, wire::MAX_REQUEST + 1),
        ("a message at its limit", wire::MAX_MESSAGE, wire::MAX_MESSAGE),
        ("a message above its limit", wire::MAX_MESSAGE, wire::MAX_MESSAGE + 1),
        ("as long as a length can say", wire::MAX_MESSAGE, u32::MAX as usize),
    ] {
        let prefix = u32::try_from(length).unwrap().to_le_bytes();
        let valid = wire::decode_length(prefix, limit).is_ok();
        assert_eq!(valid, length <= limit);
        let limit = if limit == wire::MAX_REQUEST { "MAX_REQUEST" } else { "MAX_MESSAGE" };
        cases.push(case("length", name, json!({ "limit": limit, "prefix": hex::encode(prefix), "valid": valid })));
    }
    cases.extend(shapes(world));
    cases
}

fn bytes(world: &World) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let encode = |request: Request| wire::encode(&RequestMessage { id: 5, request }).split_off(4);
    let account = encode(Request::Account(world.payer));
    let channels = encode(Request::Channels { account: world.payer, after: None });
    let attach =
        wire::encode(&LaneRequest::Attach(Attach { lane: world.grants[0].id(), void_through: 6 })).split_off(4);
    let frame = wire::encode(&LaneRequest::Frame(world.groups[0].frame())).split_off(4);
    let without_tail = |bytes: &[u8], tail: usize| bytes.get(..bytes.len() - tail).unwrap().to_vec();
    let with = |bytes: &[u8], tail: &[u8]| [bytes, tail].concat();
    let mut act = Vec::new();
    wire::encode_into(&world.commit(2).act(0).0, &mut act);
    let name_at = act.windows(3).position(|bytes| bytes == b"Ada").unwrap();
    let mut not_text = act.clone();
    *not_text.get_mut(name_at).unwrap() = 0xff;
    let mut flag = Vec::new();
    wire::encode_into(&Act::Open(world.terms), &mut flag);
    let renew = flag.len() - 33;
    assert_eq!(flag.get(renew), Some(&1));
    *flag.get_mut(renew).unwrap() = 2;
    let mut lower = Vec::new();
    wire::encode_into(&Act::Open(world.terms), &mut lower);
    let currency = lower.windows(3).position(|bytes| bytes == b"EUR").unwrap();
    *lower.get_mut(currency).unwrap() = b'e';
    let mut grant = Vec::new();
    wire::encode_into(&Act::Grant(world.grants[1]), &mut grant);
    let mode_at = 1 + 32 + 1 + 1 + 32;
    assert_eq!(grant.get(mode_at), Some(&0));
    *grant.get_mut(mode_at).unwrap() = 3;
    let mut huge_list = vec![0];
    huge_list.extend(varint(3, 0));
    huge_list.extend(varint(7, 0));
    huge_list.extend(varint(u64::MAX, 0));
    vec![
        ("Opening", "nothing", vec![]),
        ("Opening", "version wider than it need be", vec![0, 0x81, 0x00]),
        ("Opening", "version past 16 bits", vec![0, 0x80, 0x80, 0x04]),
        ("Opening", "a byte after the end", vec![0, 1, 0]),
        ("Opening", "variant wider than it need be", vec![0x80, 0x00, 1]),
        ("Opening", "an unknown variant", vec![3, 1]),
        ("RequestMessage", "a byte short", without_tail(&account, 1)),
        ("RequestMessage", "a byte after the end", with(&account, &[0])),
        ("RequestMessage", "id wider than it need be", with(&varint(5, 1), account.get(1..).unwrap())),
        ("RequestMessage", "id past 64 bits", with(&[0xff; 9], &with(&[0x02], account.get(1..).unwrap()))),
        ("RequestMessage", "id without an end", vec![0xff; 11]),
        ("RequestMessage", "option tag 2", with(&without_tail(&channels, 1), &[2])),
        ("RequestMessage", "option tag wider than it need be", with(&without_tail(&channels, 1), &[0x80, 0x00])),
        ("RequestMessage", "an unknown request", vec![5, 11]),
        ("RequestMessage", "an unknown scope of a key", [vec![5, 0, 3], vec![0; 32 + 32 + 64]].concat()),
        ("ReplyMessage", "result tag 2", vec![5, 2, 0]),
        ("ReplyMessage", "refusal 0", vec![5, 1, 0]),
        ("ReplyMessage", "an unknown refusal", vec![5, 1, 38]),
        ("LaneRequest", "void_through wider than it need be", with(&without_tail(&attach, 1), &varint(6, 2))),
        ("LaneRequest", "a frame a byte short", without_tail(&frame, 1)),
        ("LaneRequest", "a frame and a byte", with(&frame, &[7])),
        ("LaneRequest", "a list longer than the message", huge_list),
        ("LaneReply", "an unknown variant", vec![4]),
        ("CreditMessage", "an unknown variant", vec![4]),
        ("Welcome", "only a version", vec![1]),
        ("Act", "an unknown act", vec![22]),
        ("Act", "text that is not UTF-8", not_text),
        ("Act", "flag 2", flag),
        ("Act", "currency in small letters", lower),
        ("Act", "an unknown lane mode", grant),
    ]
}

/// Frames that decode and yet are no frames.
fn shapes(world: &World) -> Vec<Value> {
    let (shop, press) = (world.shop.key(), world.press.key());
    let list = [
        ("two payments to one payee", raw_frame(7, &[shop], &[0, 0]), true),
        ("payees in order of first use", raw_frame(7, &[shop, press], &[0, 1, 0]), true),
        ("as many payments as may be", raw_frame(7, &[shop], &[0; MAX_PAYMENTS]), true),
        ("the last sequence there is", raw_frame(u64::MAX, &[shop], &[0]), true),
        ("no payment", raw_frame(7, &[], &[]), false),
        ("a payment too many", raw_frame(7, &[shop], &[0; MAX_PAYMENTS + 1]), false),
        ("past the last sequence there is", raw_frame(u64::MAX, &[shop], &[0, 0]), false),
        ("payees out of order", raw_frame(7, &[shop, press], &[1, 0]), false),
        ("a payee that nobody pays", raw_frame(7, &[shop, press], &[0, 0]), false),
        ("a payee past the list", raw_frame(7, &[shop], &[0, 1]), false),
        ("a payee place of 2^32 − 1", raw_frame(7, &[shop], &[u64::from(u32::MAX)]), false),
        ("a payee twice in the list", raw_frame(7, &[shop, shop], &[0, 1]), true),
    ];
    list.iter()
        .map(|(name, body, valid)| {
            let LaneRequest::Frame(frame) = wire::decode(body).unwrap() else { unreachable!("a frame") };
            assert_eq!(frame.run.check_shape().is_ok(), *valid, "{name}");
            case("frame_shape", name, json!({ "pieces": pieces(body, frame.run.len()), "valid": valid }))
        })
        .collect()
}

/// A frame as {hex, times}: before its payments, one of them, after them.
fn pieces(body: &[u8], payments: usize) -> Value {
    const TAIL: usize = 1 + 64;
    let all = || json!([{ "hex": hex::encode(body), "times": 1 }]);
    // Hand-made payments of one small payee place take 34 bytes each.
    let Some(start) = (body.len() - TAIL).checked_sub(34 * payments).filter(|_| payments > 3) else { return all() };
    let (head, rest) = body.split_at(start);
    let (entries, tail) = rest.split_at(34 * payments);
    let entry = entries.get(..34).unwrap();
    assert_eq!(entry.repeat(payments), entries);
    json!([
        { "hex": hex::encode(head), "times": 1 },
        { "hex": hex::encode(entry), "times": payments },
        { "hex": hex::encode(tail), "times": 1 },
    ])
}
