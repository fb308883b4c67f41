//! Preimages laid out a second time, from tables instead of code: each vector's bytes are made here and must hash to what
//! the crate gives.

use serde_json::Value;
use weir_protocol::amount::Amount;
use weir_protocol::hash::{Hash, tag};
use weir_protocol::id::{AccountId, HubId};

/// How a field's JSON value becomes bytes.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Hex as it is.
    Raw,
    /// bech32m of an account; `null` is 32 zeros.
    Account,
    /// bech32m of a hub.
    Hub,
    U8,
    U16,
    U32,
    U64,
    Amount,
    Currency,
    Flag,
    Text,
    Currencies,
    /// A fee schedule.
    Fees,
    /// The fields of a collection.
    Collection,
    /// Hex of a key; `null` is 32 zeros.
    Key,
    /// A word whose number is its place in the list, two bytes.
    Word(&'static [&'static str]),
}

use Kind::{
    Account, Amount as Nanos, Collection, Currencies, Currency, Fees, Flag, Hub, Key, Raw, Text, U8, U16, U32, U64,
    Word,
};

type Fields = &'static [(&'static str, Kind)];

/// Tag → fields. Acts begin with the hub, which is added by [`act`].
const LAYOUTS: &[(&str, Fields)] = &[
    ("weir/node", &[("left", Raw), ("right", Raw)]),
    ("weir/payment", &[("state", Raw), ("sequence", U64), ("amount", Nanos), ("payee", Account), ("reference", Raw)]),
    ("weir/head", &[("lane", Raw), ("state", Raw), ("sequence", U64), ("total", Nanos), ("valid_until", U64)]),
    ("weir/id", &[("lane", Raw), ("sequence", U64)]),
    (
        "weir/receipt",
        &[("payment_id", Raw), ("payee", Account), ("amount", Nanos), ("currency", Currency), ("reference", Raw)],
    ),
    ("weir/group", &[("head", Raw), ("count", U32), ("leaves", Raw)]),
    ("weir/act", &[("blind", Raw), ("kind", U16), ("digest", Raw)]),
    ("weir/blind", &[("secret", Raw), ("chain", U64), ("number", U64), ("index", U32)]),
    (
        "weir/commit",
        &[
            ("hub", Hub),
            ("chain", U64),
            ("number", U64),
            ("time", U64),
            ("history", Raw),
            ("items", U32),
            ("root", Raw),
        ],
    ),
    ("weir/tls", &[("hub", Hub), ("spki_sha256", Raw), ("not_after", U64)]),
    ("weir/hello", &[("hub", Hub), ("key", Raw), ("scope", U16), ("binding", Raw)]),
    ("weir/payout", &[("window", U64), ("account", Account), ("currency", Currency), ("amount", Nanos)]),
    ("weir/reference", &[("challenge", Raw)]),
    (
        "weir/channel",
        &[
            ("hub", Hub),
            ("account", Account),
            ("scheme", U8),
            ("key", Raw),
            ("currency", Currency),
            ("capacity", Nanos),
            ("opened_at", U64),
            ("expires_at", U64),
            ("renew", Flag),
            ("salt", Raw),
        ],
    ),
    (
        "weir/lane",
        &[
            ("channel", Raw),
            ("lane", U32),
            ("scheme", U8),
            ("key", Raw),
            ("mode", U8),
            ("payee", Account),
            ("limit", Nanos),
            ("period", U32),
            ("expires_at", U64),
        ],
    ),
    ("weir/chain", &[("previous_chain", U64), ("kept_number", U64), ("kept_id", Raw), ("cut", U64)]),
    ("weir/certificate", &[("key", Raw), ("not_before", U64), ("not_after", U64)]),
    (
        "weir/policy",
        &[
            ("open_registration", Flag),
            ("refund_days", U32),
            ("payment_max", Nanos),
            ("payout_min", Nanos),
            ("fee_basis_points", U32),
            ("fee_per_payment", Nanos),
            ("fee_minimum", Nanos),
            ("approvals", U32),
            ("currencies", Currencies),
        ],
    ),
    ("weir/register", &[("number", U64), ("account", Account), ("name", Text), ("iban", Text)]),
    ("weir/approve", &[("account", Account)]),
    ("weir/freeze", &[("account", Account), ("incoming", Flag), ("outgoing", Flag), ("reason", Text)]),
    (
        "weir/deposit",
        &[
            ("account", Account),
            ("currency", Currency),
            ("amount", Nanos),
            ("connector", Text),
            ("bank_reference", Text),
        ],
    ),
    ("weir/revoke", &[("number", U64), ("channel", Raw), ("lane", U32)]),
    ("weir/amend", &[("number", U64), ("channel", Raw), ("capacity", Nanos), ("expires_at", U64), ("renew", Flag)]),
    ("weir/void", &[("lane", Raw), ("head", Raw), ("sequence", U64), ("total", Nanos), ("void_through", U64)]),
    ("weir/close-request", &[("number", U64), ("channel", Raw)]),
    (
        "weir/close",
        &[
            ("channel", Raw),
            ("cause", Word(&["Request", "Expiry", "Operator"])),
            ("request", Raw),
            ("root", Raw),
            ("spent", Nanos),
            ("returned", Nanos),
        ],
    ),
    (
        "weir/roll",
        &[("channel", Raw), ("roll", U64), ("root", Raw), ("spent", Nanos), ("capacity", Nanos), ("expires_at", U64)],
    ),
    (
        "weir/refund",
        &[
            ("chain", U64),
            ("commit", U64),
            ("group", U32),
            ("leaf", U32),
            ("payment_id", Raw),
            ("refunded_total", Nanos),
        ],
    ),
    ("weir/withdraw", &[("number", U64), ("account", Account), ("currency", Currency), ("marked", Nanos)]),
    ("weir/cutoff", &[("window", U64)]),
    (
        "weir/plan",
        &[
            ("number", U64),
            ("operator", Key),
            ("window", U64),
            ("currency", Currency),
            ("payouts", U32),
            ("total", Nanos),
            ("root", Raw),
            ("file", Raw),
        ],
    ),
    ("weir/instruct", &[("window", U64), ("currency", Currency), ("plan", Raw)]),
    (
        "weir/outcome",
        &[
            ("window", U64),
            ("account", Account),
            ("currency", Currency),
            ("amount", Nanos),
            ("outcome", Word(&["Settled", "Returned", "Refused", "Confirmed"])),
            ("reference", Text),
        ],
    ),
    ("weir/settled", &[("window", U64)]),
    (
        "weir/debit",
        &[
            ("cause", Word(&["Charge", "Unknown"])),
            ("currency", Currency),
            ("amount", Nanos),
            ("connector", Text),
            ("bank_reference", Text),
        ],
    ),
    (
        "weir/allocate",
        &[
            ("account", Account),
            ("incoming", Flag),
            ("currency", Currency),
            ("amount", Nanos),
            ("connector", Text),
            ("bank_reference", Text),
        ],
    ),
    (
        "weir/statement",
        &[
            ("currency", Currency),
            ("connector", Text),
            ("statement", Text),
            ("sequence", U64),
            ("opening_overdrawn", Flag),
            ("opening", Nanos),
            ("closing_overdrawn", Flag),
            ("closing", Nanos),
            ("closed_at", U64),
            ("entries", U32),
            ("file", Raw),
        ],
    ),
    ("weir/operator", &[("number", U64), ("by", Key), ("key", Raw), ("stands", Flag), ("name", Text)]),
    (
        "weir/approval",
        &[("number", U64), ("operator", Raw), ("window", U64), ("currency", Currency), ("plan", Raw), ("file", Raw)],
    ),
    (
        "weir/abort",
        &[("number", U64), ("operator", Key), ("window", U64), ("currency", Currency), ("plan", Raw), ("reason", Text)],
    ),
    ("weir/fees", &[("number", U64), ("operator", Key), ("account", Account), ("own", Flag), ("schedule", Fees)]),
    ("weir/force-final", &[("number", U64), ("operator", Key), ("window", U64), ("account", Account)]),
    (
        "weir/earnings",
        &[("number", U64), ("account", Account), ("currency", Currency), ("becomes", Word(&["PayOut", "Net", "Keep"]))],
    ),
    (
        "weir/limits",
        &[
            ("account", Account),
            ("payment_max", Nanos),
            ("balance_max", Nanos),
            ("day_max", Nanos),
            ("iban_wait_s", U32),
        ],
    ),
    (
        "weir/mandate",
        &[
            ("number", U64),
            ("account", Account),
            ("scheme", Word(&["Core", "B2b"])),
            ("mandate_id", Text),
            ("iban", Text),
            ("signed_at", U64),
            ("revoked", Flag),
        ],
    ),
    (
        "weir/mandate-terms",
        &[
            ("account", Account),
            ("mandate_id", Text),
            ("accepted", Flag),
            ("at_once", Nanos),
            ("provisional_days", U32),
        ],
    ),
    (
        "weir/collect",
        &[
            ("collection", U64),
            ("account", Account),
            ("mandate_id", Text),
            ("currency", Currency),
            ("amount", Nanos),
            ("created_at", U64),
            ("due", U64),
            ("first", Flag),
            ("file", Raw),
        ],
    ),
    (
        "weir/collected",
        &[
            ("collection", U64),
            ("account", Account),
            ("currency", Currency),
            ("amount", Nanos),
            ("word", Word(&["Booked", "Returned", "Refused"])),
            ("reference", Text),
        ],
    ),
    ("weir/approve-collect", &[("number", U64), ("operator", Key), ("approved", Flag), ("collect", Collection)]),
    ("weir/approve-iban", &[("number", U64), ("operator", Key), ("account", Account), ("iban", Text)]),
];

/// The preimage of a thing with this tag.
pub(crate) fn lay(tag: &str, fields: &Value) -> Vec<u8> {
    let (_, layout) = LAYOUTS.iter().find(|(name, _)| *name == tag).expect("every tag has a layout");
    assert_eq!(layout.len(), fields.as_object().unwrap().len(), "{tag}: as many fields as laid out");
    layout.iter().flat_map(|(name, kind)| bytes(*kind, fields.get(name).expect(name))).collect()
}

/// The preimage of an act: hub ‖ fields, but for openings and grants.
pub(crate) fn act(tag: &str, hub: &HubId, fields: &Value) -> Vec<u8> {
    match tag {
        "weir/channel" | "weir/lane" => lay(tag, fields),
        _ => [hub.as_bytes().to_vec(), lay(tag, fields)].concat(),
    }
}

/// `H(tag, preimage)` by the tag's name.
pub(crate) fn hash(name: &str, preimage: &[u8]) -> Hash {
    tag::ALL_TAGS.iter().find(|tag| tag.name() == name).expect("a known tag").hash(preimage)
}

fn bytes(kind: Kind, value: &Value) -> Vec<u8> {
    let text = || value.as_str().unwrap();
    let number = || value.as_u64().unwrap();
    let with_length = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat();
    match kind {
        Raw => hex::decode(text()).unwrap(),
        Account | Key if value.is_null() => vec![0; 32],
        Key => bytes(Raw, value),
        Fees => [("basis_points", U32), ("per_payment", Nanos), ("minimum", Nanos)]
            .into_iter()
            .flat_map(|(name, kind)| bytes(kind, value.get(name).expect(name)))
            .collect(),
        Collection => lay("weir/collect", value),
        Account => text().parse::<AccountId>().unwrap().as_bytes().to_vec(),
        Hub => text().parse::<HubId>().unwrap().as_bytes().to_vec(),
        U8 => vec![u8::try_from(number()).unwrap()],
        U16 => u16::try_from(number()).unwrap().to_le_bytes().to_vec(),
        U32 => u32::try_from(number()).unwrap().to_le_bytes().to_vec(),
        U64 => number().to_le_bytes().to_vec(),
        Nanos => text().parse::<Amount>().unwrap().nanos().to_le_bytes().to_vec(),
        Currency => [text().as_bytes(), &[0]].concat(),
        Flag => vec![u8::from(value.as_bool().unwrap())],
        Text => with_length(text().as_bytes()),
        Currencies => {
            let list = value.as_array().unwrap();
            let count = u32::try_from(list.len()).unwrap().to_le_bytes().to_vec();
            list.iter().fold(count, |bytes, one| [bytes, self::bytes(Currency, one)].concat())
        }
        Word(words) => {
            let place = words.iter().position(|word| *word == text()).unwrap();
            u16::try_from(place).unwrap().to_le_bytes().to_vec()
        }
    }
}
