//! The payment method `weir` in HTTP: challenges, lists of them, credentials in both dialects, right and wrong, and answers.

use serde_json::{Value, json};
use weir_protocol::act::{Act, Certificate};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::commit::{Commit, SignedCertificate, group_item};
use weir_protocol::hash::{Hash, sha256};
use weir_protocol::http::challenge::{Details, MAX_DESCRIPTION_BYTES, MAX_REALM_BYTES};
use weir_protocol::http::crawler::CrawlerPrice;
use weir_protocol::http::problem::PaymentProblem;
use weir_protocol::http::x402::{PaymentPayload, PaymentRequired, PaymentResponse, Requirements, ResourceInfo};
use weir_protocol::http::{
    Challenge, ChargeRequest, Credential, CredentialError, Expected, MAX_CHALLENGE_BYTES, MAX_CREDENTIAL_BYTES,
    Payload, PaymentReceipt, Resource, SCALE, Secret, base64url, from_base64url,
};
use weir_protocol::id::{AccountId, HubId};
use weir_protocol::merkle::Tree;
use weir_protocol::payment::{Payment, payment_id, receipt_leaf};
use weir_protocol::receipt::{Receipt, ReceiptFile};

use super::world::{DAY, START, World, case, key, nanos, value};

const SECRET: [u8; 32] = [0x5e; 32];
const REALM: &str = "news.example";
const ISSUED: u64 = START + 2_000;
const EXPIRES: u64 = ISSUED + 300_000;
const PRICE: u64 = 50_000_000;

fn secret() -> Secret {
    Secret::from(SECRET)
}

fn request(world: &World) -> ChargeRequest {
    ChargeRequest {
        amount: nanos(PRICE),
        currency: Currency::EUR,
        description: Some("Article 2".to_owned()),
        details: Details {
            hub: world.hub,
            issued_at: Some(Time(ISSUED)),
            metered: false,
            resource: Some(Resource::of("GET", "/article/2")),
            scale: SCALE,
        },
        recipient: world.shop,
    }
}

fn issue(realm: &str, request: &ChargeRequest, header: Option<&str>) -> Challenge {
    Challenge::issue(&secret(), realm, request, Time(EXPIRES), [0x0a; 16], header).unwrap()
}

fn issued(world: &World) -> Challenge {
    issue(REALM, &request(world), None)
}

/// The largest challenge that can be issued.
fn largest(world: &World) -> Challenge {
    let mut request = request(world);
    request.amount = Amount::MAX;
    request.description = Some("\u{20ac}".repeat(MAX_DESCRIPTION_BYTES / 3));
    request.details.issued_at = Some(Time(253_402_300_799_998));
    request.details.metered = true;
    let realm = format!("\"{}\\", "r".repeat(MAX_REALM_BYTES - 2));
    let header = Some("Payment-Authorization");
    Challenge::issue(&secret(), &realm, &request, Time::MAX, [0xfb; 16], header).unwrap()
}

/// A challenge with its text changed and its MAC made anew: by an issuer that has the secret and other habits.
fn remade(challenge: &Challenge, change: &dyn Fn(&mut Challenge)) -> Challenge {
    let mut changed = challenge.clone();
    change(&mut changed);
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let slots = [&changed.realm, &changed.method, &changed.intent, &changed.request].map(String::as_str).join("|");
    let bound = format!("{slots}|{}|{}|{}", text(&changed.expires), text(&changed.digest), text(&changed.opaque));
    changed.id = base64url(&secret().mac(bound.as_bytes()));
    changed
}

/// How a payment is made: its amount, its commit's time, sizes of group and commit, the certificate.
struct Paid {
    nanos: u64,
    time: u64,
    leaves: u32,
    items: u32,
    number: u64,
    certificate: SignedCertificate,
}

fn paid(world: &World) -> Paid {
    Paid { nanos: PRICE, time: ISSUED + 1000, leaves: 2, items: 3, number: 3, certificate: world.certificate }
}

fn receipt(world: &World, challenge: &Challenge, payee: AccountId, paid: &Paid) -> ReceiptFile {
    let lane = world.groups[2].lane;
    let payment_id = payment_id(&lane, 2);
    let payment = Payment { payee, amount: nanos(paid.nanos), reference: challenge.reference() };
    let tree = |count: u32, last: Hash| {
        Tree::new((1..count).map(|at| sha256(&at.to_le_bytes())).chain([last]).collect::<Vec<_>>())
    };
    let leaves = tree(paid.leaves, receipt_leaf(&payment_id, &payment, Currency::EUR));
    let head = sha256(b"head");
    let items = tree(paid.items, group_item(&head, paid.leaves, &leaves.root()));
    let commit = Commit {
        hub: world.hub,
        chain: START.max(paid.number),
        number: paid.number,
        time: Time(paid.time),
        history: sha256(b"history"),
        items: paid.items,
        root: items.root(),
    };
    let receipt = Receipt {
        payment_id,
        leaf_path: leaves.path(paid.leaves as usize - 1).unwrap(),
        head,
        group_path: items.path(paid.items as usize - 1).unwrap(),
        chain: commit.chain,
        number: commit.number,
        time: commit.time,
        history: commit.history,
        signature: world.signing.sign(&commit.id()),
    };
    ReceiptFile {
        format: ReceiptFile::FORMAT.into(),
        hub: world.hub,
        payee,
        amount: payment.amount,
        currency: Currency::EUR,
        reference: payment.reference,
        certificate: paid.certificate,
        receipt,
    }
}

fn credential(world: &World, challenge: &Challenge, paid: &Paid) -> Credential {
    Credential::new(challenge.clone(), &receipt(world, challenge, world.shop, paid))
}

fn problem(error: CredentialError) -> &'static str {
    PaymentProblem::from(error).as_str()
}

/// One header with what the gate knows and what it finds.
fn shown(world: &World, name: &str, dialect: &str, realm: &str, header: &str, problem_is: Option<&str>) -> Value {
    let expected = Expected { realm, hub: world.hub, payee: world.shop, currency: Currency::EUR };
    let read = if dialect == "x402" {
        PaymentPayload::from_header(header).and_then(|payload| payload.credential())
    } else {
        Credential::from_header(header).unwrap()
    };
    let proven =
        read.and_then(|read| read.prove(&secret(), &expected, |certificate, _| certificate.check(&world.hub).is_ok()));
    assert_eq!(proven.map_err(problem).err(), problem_is, "{name}");
    let proven = proven.ok().map(|proven| {
        json!({
            "payment_id": proven.payment_id, "amount": proven.amount, "reference": proven.reference,
            "asked": proven.asked, "resource": proven.resource, "paid_at": proven.paid_at,
            "chain": proven.place.chain, "commit": proven.place.commit,
            "group": proven.place.group, "leaf": proven.place.leaf,
        })
    });
    let body = json!({
        "dialect": dialect, "header": header, "secret": hex::encode(SECRET), "realm": realm, "hub": world.hub,
        "payee": world.shop, "currency": "EUR", "valid": problem_is.is_none(), "problem": problem_is, "proven": proven,
    });
    case("http_credential", name, body)
}

pub(crate) fn cases(world: &World) -> Vec<Value> {
    let mut cases = challenges(world);
    cases.extend(lists(world));
    cases.extend(credentials(world));
    cases.extend(wrong_headers(world));
    cases.extend(wrong_payments(world));
    cases.extend(wrong_challenges(world));
    cases.extend(answers(world));
    cases
}

fn challenges(world: &World) -> Vec<Value> {
    let plain = request(world);
    let described = |text: &str| ChargeRequest { description: Some(text.to_owned()), ..plain.clone() };
    let metered = Details { metered: true, ..plain.details.clone() };
    let named = Some("Payment-Authorization");
    let list = [
        ("the worked example", issued(world)),
        ("a named header", issue(REALM, &plain, named)),
        ("a quoted realm", issue("the \"news\" \\ desk", &plain, None)),
        ("no description", issue(REALM, &ChargeRequest { description: None, ..plain.clone() }, None)),
        ("text beyond ASCII", issue(REALM, &described("Caf\u{e9} \u{2028}\u{1f4f0} \"\\/\""), None)),
        ("metered", issue(REALM, &ChargeRequest { details: metered, ..plain.clone() }, None)),
        ("one nano", issue(REALM, &ChargeRequest { amount: nanos(1), ..plain.clone() }, None)),
        ("the largest", largest(world)),
    ];
    let mut cases: Vec<Value> = list
        .iter()
        .map(|(name, challenge)| {
            let url = "https://news.example/article/2";
            let demand = PaymentRequired::new(challenge, ResourceInfo::at(url), None).unwrap();
            let header = challenge.to_header();
            assert!(header.len() <= MAX_CHALLENGE_BYTES && demand.to_header().len() <= MAX_CHALLENGE_BYTES, "{name}");
            let body = json!({
                "secret": hex::encode(SECRET),
                "request": value(&challenge.charge().unwrap()),
                "request_json": String::from_utf8(from_base64url(&challenge.request).unwrap()).unwrap(),
                "challenge": challenge,
                "expires_at": challenge.expires_at().unwrap(),
                "www_authenticate": header,
                "requirements": Requirements::of(challenge).unwrap(),
                "payment_required": demand.to_header(),
                "reference": challenge.reference(),
            });
            case("http_challenge", name, body)
        })
        .collect();
    for (method, target) in [("GET", "/article/2"), ("GET", "/article/2?page=1"), ("POST", "/article/2")] {
        let body = json!({ "method": method, "target": target, "resource": Resource::of(method, target) });
        cases.push(case("http_resource", &format!("{method} {target}"), body));
    }
    cases
}

fn lists(world: &World) -> Vec<Value> {
    let text = issued(world).to_header();
    let foreign = "Payment id=\"1\", realm=\"r\", method=\"tempo\", intent=\"charge\", request=\"e30\"";
    let right = [
        ("beside Bearer with a quoted comma", format!("Bearer realm=\"x, Payment y\", {text}")),
        ("before Basic", format!("{text}, Basic realm=\"x\", charset=\"UTF-8\"")),
        ("after Negotiate with a token68", format!("Negotiate YIIJvw/+A==, {text}, NTLM")),
        ("after another method", format!("{foreign}, {text}")),
        ("after one that cannot be read", format!("Payment id=\"1\", {text}")),
        ("another spelling", text.replace("Payment ", "pAYMENT  ").replace("method=\"weir\"", "Method = weir")),
        ("an unknown parameter", text.replace(", intent", ", description=\"Caf\u{e9}\", intent")),
        ("twice", format!("{text}, {text}")),
    ];
    let wrong = [
        ("another method alone", foreign.to_owned()),
        ("another intent", text.replace("charge", "session")),
        ("a parameter twice", text.replace("intent=", "Method=\"weir\", intent=")),
        ("a parameter missing", text.replace("realm=", "area=")),
        ("no end of a quote", text.trim_end_matches('"').to_owned()),
        ("another scheme", text.replace("Payment ", "Pay ")),
    ];
    let right = right.map(|(name, text)| (name, text, true)).into_iter();
    right
        .chain(wrong.map(|(name, text)| (name, text, false)))
        .map(|(name, text, valid)| {
            let found = Challenge::from_header(&text).ok();
            assert_eq!(found.is_some(), valid, "{name}");
            case("http_list", name, json!({ "header": text, "valid": valid, "id": found.map(|found| found.id) }))
        })
        .collect()
}

fn credentials(world: &World) -> Vec<Value> {
    let challenge = issued(world);
    let good = credential(world, &challenge, &paid(world));
    let text = good.to_header();
    let payload = PaymentPayload::of(&good).unwrap();
    let mut echoed = payload.clone();
    echoed.resource = Some(json!({ "url": "https://news.example/article/2" }));
    echoed.extensions = Some(json!({ "payment-identifier": { "info": { "required": false, "id": "pay_1" } } }));
    let mut sourced = good.clone();
    sourced.source = Some("did:example:reader".to_owned());
    let show = |name: &str, dialect: &str, header: &str| shown(world, name, dialect, REALM, header, None);
    let of = |change: &dyn Fn(&mut Paid)| {
        let mut paid = paid(world);
        change(&mut paid);
        credential(world, &challenge, &paid).to_header()
    };
    let named = issue(REALM, &request(world), Some("Payment-Authorization"));
    let mut cases = vec![
        show("the worked example", "payment", &text),
        show("padded, another spelling of the scheme", "payment", &format!("{}==", text.replace("Payment", "payment"))),
        show("with a source", "payment", &sourced.to_header()),
        show("in x402", "x402", &payload.to_header()),
        show("in x402, base64url without padding", "x402", &base64url(&serde_json::to_vec(&payload).unwrap())),
        show("in x402, with a resource and an identifier", "x402", &echoed.to_header()),
        show("with a named header", "payment", &credential(world, &named, &paid(world)).to_header()),
        show("a nano more than asked", "payment", &of(&|paid| paid.nanos = PRICE + 1)),
        show("in the millisecond of its issue", "payment", &of(&|paid| paid.time = ISSUED)),
        show("in the last millisecond", "payment", &of(&|paid| paid.time = EXPIRES - 1)),
    ];
    cases.extend(deepest(world));
    cases
}

/// The largest challenge with the deepest receipt, in both dialects; in x402 with a resource of 200 bytes.
fn deepest(world: &World) -> Vec<Value> {
    let challenge = largest(world);
    let certificate =
        Certificate { key: world.signing.public(), not_before: Time(u64::MAX - 1), not_after: Time(u64::MAX) };
    let signature = world.identity.sign(&Act::Certificate(certificate).digest(&world.hub));
    let certificate = SignedCertificate { certificate, signature };
    // A commit of that time is not in the challenge's: it only shows the size.
    let late = Paid { nanos: u64::MAX, time: u64::MAX - 1, leaves: 1024, items: 4096, number: u64::MAX, certificate };
    let deepest = credential(world, &challenge, &late);
    let mut payload = PaymentPayload::of(&deepest).unwrap();
    payload.resource = Some(json!({ "url": format!("https://news.example/{}", "a".repeat(179)) }));
    let headers =
        [("the largest", "payment", deepest.to_header()), ("the largest in x402", "x402", payload.to_header())];
    headers
        .iter()
        .map(|(name, dialect, header)| {
            assert!(header.len() <= MAX_CREDENTIAL_BYTES, "{name}: {}", header.len());
            shown(world, name, dialect, &challenge.realm, header, Some("payment-expired"))
        })
        .collect()
}

fn wrong_headers(world: &World) -> Vec<Value> {
    let good = credential(world, &issued(world), &paid(world));
    let text = good.to_header();
    let flipped = |at: usize| {
        let mut changed = text.clone().into_bytes();
        *changed.get_mut(at).unwrap() ^= 1;
        String::from_utf8(changed).unwrap()
    };
    let json_of = |change: &dyn Fn(&mut Value)| {
        let mut json = value(&good);
        change(&mut json);
        format!("Payment {}", base64url(&serde_json::to_vec(&json).unwrap()))
    };
    let list = [
        ("nothing after the scheme", "Payment".to_owned()),
        ("not base64url", "Payment a+b".to_owned()),
        ("a flipped byte of the text", flipped(20)),
        ("too long", format!("Payment {}", "A".repeat(MAX_CREDENTIAL_BYTES - 7))),
        ("no payload", json_of(&|json| drop(json.as_object_mut().unwrap().remove("payload")))),
        ("an amount that is a number", json_of(&|json| json["payload"]["amount"] = json!(PRICE))),
        ("an amount with a zero before", json_of(&|json| json["payload"]["amount"] = json!("050000000"))),
        ("a receipt that is hex", json_of(&|json| json["payload"]["receipt"] = json!("00ff"))),
        ("a certificate cut short", json_of(&|json| json["payload"]["certificate"] = json!("AAAA"))),
    ];
    let mut cases: Vec<Value> = list
        .iter()
        .map(|(name, header)| shown(world, name, "payment", REALM, header, Some("malformed-credential")))
        .collect();
    let payload = PaymentPayload::of(&good).unwrap();
    let change = |change: &dyn Fn(&mut PaymentPayload)| {
        let mut payload = payload.clone();
        change(&mut payload);
        payload.to_header()
    };
    let list = [
        ("x402 of another version", change(&|payload| payload.x402_version = 1), "malformed-credential"),
        ("x402 of another scheme", change(&|payload| payload.accepted.scheme = "upto".into()), "malformed-credential"),
        ("x402 with another scale", change(&|payload| payload.accepted.extra.scale = 2), "malformed-credential"),
        ("x402 with a nano less", change(&|payload| payload.accepted.amount = nanos(PRICE - 1)), "invalid-challenge"),
        ("x402 with another payee", change(&|payload| payload.accepted.pay_to = world.press), "invalid-challenge"),
        ("x402 with another expiry", change(&|payload| payload.accepted.extra.expires.clear()), "invalid-challenge"),
    ];
    cases.extend(list.iter().map(|(name, header, is)| shown(world, name, "x402", REALM, header, Some(is))));
    cases
}

fn wrong_payments(world: &World) -> Vec<Value> {
    let challenge = issued(world);
    let of = |change: &dyn Fn(&mut Paid)| {
        let mut paid = paid(world);
        change(&mut paid);
        credential(world, &challenge, &paid)
    };
    let good = of(&|_| ());
    let file = receipt(world, &challenge, world.shop, &paid(world));
    let filed = |change: &dyn Fn(&mut ReceiptFile)| {
        let mut file = file.clone();
        change(&mut file);
        Credential::new(challenge.clone(), &file)
    };
    let signed = |key: &weir_protocol::keys::SecretKey, certificate: Certificate| {
        let signature = key.sign(&Act::Certificate(certificate).digest(&world.hub));
        SignedCertificate { certificate, signature }
    };
    let inner = world.certificate.certificate;
    let other = signed(&world.identity, Certificate { key: key(10).public(), ..inner });
    let ended = signed(&world.identity, Certificate { not_after: Time(ISSUED + 1000), ..inner });
    let stranger = signed(&key(9), inner);
    let press = Credential::new(challenge.clone(), &receipt(world, &challenge, world.press, &paid(world)));
    let next = Challenge::issue(&secret(), REALM, &request(world), Time(EXPIRES), [0x0b; 16], None).unwrap();
    let another = Credential { challenge: next, ..good.clone() };
    let verification = "verification-failed";
    let list = [
        ("a nano less than asked", of(&|paid| paid.nanos = PRICE - 1), "payment-insufficient"),
        ("a millisecond before its issue", of(&|paid| paid.time = ISSUED - 1), "payment-expired"),
        ("in the millisecond of its expiry", of(&|paid| paid.time = EXPIRES), "payment-expired"),
        ("a day late", of(&|paid| paid.time = EXPIRES + DAY), "payment-expired"),
        ("a nano more than was paid", filed(&|file| file.amount = nanos(PRICE + 1)), verification),
        ("paid to another payee", press, verification),
        ("paid for another challenge", another, verification),
        ("another certificate of the hub", of(&|paid| paid.certificate = other), verification),
        ("a certificate that ended", of(&|paid| paid.certificate = ended), verification),
        ("a stranger's certificate", of(&|paid| paid.certificate = stranger), verification),
        ("another payment id", filed(&|file| file.receipt.payment_id.0[0] ^= 1), verification),
        ("another head", filed(&|file| file.receipt.head.0[0] ^= 1), verification),
        ("a hash less in a path", filed(&|file| file.receipt.group_path.hashes.truncate(0)), verification),
        ("another time in the challenge's", filed(&|file| file.receipt.time = Time(ISSUED + 1001)), verification),
        ("a flipped signature", filed(&|file| file.receipt.signature.0[63] ^= 1), verification),
        ("no signature", filed(&|file| file.receipt.signature.0 = [0; 64]), verification),
    ];
    list.iter().map(|(name, made, is)| shown(world, name, "payment", REALM, &made.to_header(), Some(is))).collect()
}

fn wrong_challenges(world: &World) -> Vec<Value> {
    let challenge = issued(world);
    let with = |change: &dyn Fn(&mut ChargeRequest)| {
        let mut request = request(world);
        change(&mut request);
        credential(world, &issue(REALM, &request, None), &paid(world))
    };
    let changed = |change: &dyn Fn(&mut Challenge)| {
        let mut changed = challenge.clone();
        change(&mut changed);
        credential(world, &changed, &paid(world))
    };
    let anew = |change: &dyn Fn(&mut Challenge)| credential(world, &remade(&challenge, change), &paid(world));
    let (not_ours, malformed) = ("invalid-challenge", "malformed-credential");
    let list = [
        ("for another hub", with(&|request| request.details.hub = HubId(key(9).public())), not_ours),
        ("for another payee", with(&|request| request.recipient = world.press), not_ours),
        ("for another currency", with(&|request| request.currency = "USD".parse().unwrap()), not_ours),
        (
            "for another realm",
            credential(world, &issue("other.example", &request(world), None), &paid(world)),
            not_ours,
        ),
        ("a realm changed", changed(&|challenge| challenge.realm.push('x')), not_ours),
        ("a header added", changed(&|challenge| challenge.header = Some("payment-authorization".into())), not_ours),
        ("an expiry dropped", changed(&|challenge| challenge.expires = None), not_ours),
        ("an id with padding", changed(&|challenge| challenge.id.push('=')), not_ours),
        ("an id cut short", changed(&|challenge| challenge.id.truncate(22)), not_ours),
        (
            "slots split in another way",
            changed(&|challenge| {
                challenge.realm = format!("{REALM}|weir");
                challenge.method = "charge".into();
                challenge.intent = std::mem::take(&mut challenge.request);
                challenge.request = challenge.expires.take().unwrap();
                challenge.digest = challenge.opaque.take();
            }),
            not_ours,
        ),
        ("a digest of a body", anew(&|challenge| challenge.digest = Some("sha-256=AA==".into())), not_ours),
        ("no expiry", anew(&|challenge| challenge.expires = None), not_ours),
        ("an expiry that is no time", anew(&|challenge| challenge.expires = Some("soon".into())), malformed),
        ("another method", anew(&|challenge| challenge.method = "tempo".into()), malformed),
        ("an empty request", anew(&|challenge| challenge.request = base64url(b"{}")), malformed),
    ];
    list.iter().map(|(name, made, is)| shown(world, name, "payment", REALM, &made.to_header(), Some(is))).collect()
}

fn answers(world: &World) -> Vec<Value> {
    let paid_id = payment_id(&world.groups[2].lane, 2);
    let mut receipt = PaymentReceipt::new(paid_id, nanos(PRICE), Currency::EUR, Time(ISSUED + 1500));
    let whole = receipt.clone();
    receipt.challenge_id = Some(issued(world).id);
    receipt.drawn = nanos(20_000_000);
    receipt.left = nanos(30_000_000);
    receipt.metered = true;
    let mut cases: Vec<Value> = [("nothing drawn", whole), ("metered, in part", receipt)]
        .iter()
        .map(|(name, receipt)| case("http_receipt", name, json!({ "header": receipt.to_header(), "value": receipt })))
        .collect();
    let taken = PaymentResponse::taken(&world.hub, &paid_id, nanos(20_000_000));
    let refused = PaymentResponse::refused(&world.hub, "verification-failed");
    for (name, response) in [("taken", taken), ("refused", refused)] {
        cases.push(case("http_response", name, json!({ "header": response.to_header(), "value": response })));
    }
    let payload = Payload::new(&super::http::receipt(world, &issued(world), world.shop, &paid(world)));
    cases.push(case("http_payload", "the worked example", value(&payload)));
    for text in ["EUR 0.01", "EUR  1", "EUR 0.010", "eur 0.01", "0.01 EUR", "EUR -1", "EUR 0.0000000001", "EUR"] {
        let price = text.parse::<CrawlerPrice>().ok();
        let body = json!({
            "text": text, "valid": price.is_some(), "shown": price.map(|price| price.to_string()),
            "amount": price.map(|price| price.amount.nanos()),
        });
        cases.push(case("http_price", text, body));
    }
    cases
}
