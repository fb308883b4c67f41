//! Challenges, credentials and answers against each other, with receipts made here: both dialects, both sides of each limit.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test should say where")]

use proptest::prelude::*;

use super::challenge::{MAX_DESCRIPTION_BYTES, MAX_PAYLOAD_JSON, MAX_REALM_BYTES, NONCE_BYTES, from_rfc3339, rfc3339};
use super::crawler::CrawlerPrice;
use super::problem::{BASE, PaymentProblem, Problem};
use super::x402::{MAX_URL_BYTES, PaymentPayload, PaymentRequired, PaymentResponse, Requirements, ResourceInfo};
use super::*;
use crate::act::{Act, Certificate};
use crate::amount::{Currency, Time};
use crate::commit::{Commit, SignedCertificate, group_item};
use crate::hash::{Hash, sha256};
use crate::http::challenge::Details;
use crate::id::{AccountId, HubId, PaymentId, Reference};
use crate::keys::SecretKey;
use crate::merkle::Tree;
use crate::payment::{Payment, receipt_leaf};
use crate::receipt::{MAX_RECEIPT_BYTES, Receipt, ReceiptFile};

const ISSUED: u64 = 1_790_000_000_000;
const EXPIRES: u64 = ISSUED + 300_000;
const REALM: &str = "news.example";

fn key(fill: u8) -> SecretKey {
    SecretKey::from_bytes(&[fill; 32]).unwrap()
}

fn hub() -> HubId {
    HubId(key(1).public())
}

fn payee() -> AccountId {
    AccountId(key(7).public())
}

fn secret() -> Secret {
    Secret::from([0x5e; 32])
}

fn expected() -> Expected<'static> {
    Expected { realm: REALM, hub: hub(), payee: payee(), currency: Currency::EUR }
}

fn request() -> ChargeRequest {
    ChargeRequest {
        amount: Amount::from_nanos(50_000_000),
        currency: Currency::EUR,
        description: Some("Caf\u{e9} \u{201c}quotes\u{201d} \"and\" \\ \u{2028}".to_owned()),
        details: Details {
            hub: hub(),
            issued_at: Some(Time(ISSUED)),
            metered: false,
            resource: Some(Resource::of("GET", "/article?a=1")),
            scale: SCALE,
        },
        recipient: payee(),
    }
}

fn issued(request: &ChargeRequest) -> Challenge {
    Challenge::issue(&secret(), REALM, request, Time(EXPIRES), [9; NONCE_BYTES], None).unwrap()
}

/// The largest challenge in every field.
fn largest() -> Challenge {
    let mut request = request();
    request.amount = Amount::MAX;
    request.description = Some("\"".repeat(MAX_DESCRIPTION_BYTES));
    request.details.metered = true;
    request.details.issued_at = Some(Time(253_402_300_799_998));
    let header = "payment-of-32-bytes-authorization".strip_prefix('p');
    let realm = "\"".repeat(MAX_REALM_BYTES);
    Challenge::issue(&secret(), &realm, &request, Time::MAX, [0xff; NONCE_BYTES], header).unwrap()
}

fn certificate(not_before: u64, not_after: u64) -> SignedCertificate {
    let certificate = Certificate { key: key(2).public(), not_before: Time(not_before), not_after: Time(not_after) };
    let digest = Act::Certificate(certificate).digest(&hub());
    SignedCertificate { certificate, signature: key(1).sign(&digest) }
}

/// The receipt of a payment of an amount at a time, among `leaves` and `items`, as the last of both.
fn receipt(challenge: &Challenge, amount: Amount, time: Time, leaves: u32, items: u32, big: u64) -> ReceiptFile {
    let reference = challenge.reference();
    let payment = Payment { payee: payee(), amount, reference };
    let payment_id = PaymentId([4; 32]);
    let tree = |count: u32, last: Hash| {
        let others = (1..count).map(|at| sha256(&at.to_le_bytes()));
        Tree::new(others.chain([last]).collect::<Vec<_>>())
    };
    let leaf_tree = tree(leaves, receipt_leaf(&payment_id, &payment, Currency::EUR));
    let head = sha256(b"head");
    let item_tree = tree(items, group_item(&head, leaves, &leaf_tree.root()));
    let history = sha256(b"history");
    let commit = Commit { hub: hub(), chain: big, number: big, time, history, items, root: item_tree.root() };
    let receipt = Receipt {
        payment_id,
        leaf_path: leaf_tree.path(leaves as usize - 1).unwrap(),
        head,
        group_path: item_tree.path(items as usize - 1).unwrap(),
        chain: big,
        number: big,
        time,
        history,
        signature: key(2).sign(&commit.id()),
    };
    ReceiptFile {
        format: ReceiptFile::FORMAT.to_owned(),
        hub: hub(),
        payee: payee(),
        amount,
        currency: Currency::EUR,
        reference,
        certificate: certificate(0, u64::MAX),
        receipt,
    }
}

fn paid(challenge: &Challenge, nanos: u64, time: u64) -> Credential {
    Credential::new(challenge.clone(), &receipt(challenge, Amount::from_nanos(nanos), Time(time), 3, 5, 7))
}

fn prove(credential: &Credential) -> Result<Proven, CredentialError> {
    credential.prove(&secret(), &expected(), |certificate, _| certificate.check(&hub()).is_ok())
}

fn good() -> Credential {
    paid(&issued(&request()), 50_000_000, ISSUED + 1000)
}

#[test]
fn canonical_json_is_sorted_and_escapes_as_rfc_8785() {
    let mut request = request();
    request.details.metered = true;
    request.description = Some("\u{0}\u{8}\t\n\u{b}\u{c}\r\u{1f} \"\\/\u{7f}\u{e9}\u{2028}\u{1f600}".to_owned());
    let text = canonical(&request);
    let start = "{\"amount\":\"50000000\",\"currency\":\"EUR\",\"description\":\"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f \\\"\\\\/\
                 \u{7f}\u{e9}\u{2028}\u{1f600}\",\"methodDetails\":{\"hub\":\"weirhub1";
    assert!(text.starts_with(start), "{text}");
    let end = "\"issuedAt\":1790000000000,\"metered\":true,\"resource\":\"";
    assert!(text.contains(end), "{text}");
    // The fields are declared in order, so that no map needs to sort them.
    let sorted: std::collections::BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&sorted).unwrap(), text);
    assert_eq!(serde_json::from_str::<ChargeRequest>(&text).unwrap(), request);
}

#[test]
fn challenge_id_is_the_mac_over_the_slots_of_the_draft() {
    let plain = issued(&request());
    let text = format!("{REALM}|weir|charge|{}|2026-09-21T14:18:20.000Z||CQkJCQkJCQkJCQkJCQkJCQ", plain.request);
    assert_eq!(plain.expires.as_deref(), Some("2026-09-21T14:18:20.000Z"));
    assert_eq!(plain.id, base64url(&secret().mac(text.as_bytes())));
    let name = Some("Payment-Authorization");
    let named = Challenge::issue(&secret(), REALM, &request(), Time(EXPIRES), [9; NONCE_BYTES], name).unwrap();
    let text = text.replace("||", "||Payment-Authorization|");
    assert_eq!(named.id, base64url(&secret().mac(text.as_bytes())));
    // The default is not named: others leave its slot out.
    let name = Some("AUTHORIZATION");
    let default = Challenge::issue(&secret(), REALM, &request(), Time(EXPIRES), [9; NONCE_BYTES], name).unwrap();
    assert_eq!(default, plain);
    assert_eq!(plain.credential_header(), Ok("authorization"));
    assert_eq!(named.credential_header(), Ok("Payment-Authorization"));
}

#[test]
fn challenge_with_anything_changed_is_not_the_issuers() {
    let good = issued(&request());
    assert!(good.is_issued_with(&secret()));
    assert!(!good.is_issued_with(&Secret::from([0x5f; 32])));
    let changes: [fn(&mut Challenge); 16] = [
        |c| c.realm.push('x'),
        |c| c.method = "other".into(),
        |c| c.intent = "session".into(),
        |c| c.request.push('='),
        |c| c.request = base64url(b"{}"),
        |c| c.expires = Some(rfc3339(Time(EXPIRES + 1))),
        |c| c.expires = None,
        |c| c.digest = Some("sha-256=x".into()),
        |c| c.header = Some("payment-authorization".into()),
        |c| c.opaque = None,
        |c| c.opaque = Some("x".into()),
        |c| c.id.push('='),
        |c| c.id = String::new(),
        |c| c.id.truncate(42),
        |c| c.id.truncate(22),
        // The slots split in another way.
        |c| {
            c.realm = format!("{}|{}", c.realm, c.method);
            c.method = c.intent.clone();
            c.intent = c.request.clone();
            c.request = c.expires.take().unwrap();
            c.expires = Some(String::new());
            c.digest = c.opaque.take();
        },
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut changed = good.clone();
        change(&mut changed);
        assert!(!changed.is_issued_with(&secret()), "change {at}");
    }
    // Another text of the same 32 bytes would be another reference.
    let last = good.id.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for other in alphabet.chars().filter(|c| *c != last) {
        let mut changed = good.clone();
        changed.id.pop();
        changed.id.push(other);
        assert!(!changed.is_issued_with(&secret()), "{other}");
    }
}

#[test]
fn mac_shorter_than_sixteen_bytes_never_counts() {
    let mac = secret().mac(b"word\0text");
    assert!(secret().is_mac(b"word\0text", &mac) && secret().is_mac(b"word\0text", &mac[..16]));
    assert!(!secret().is_mac(b"word\0text", &mac[..15]) && !secret().is_mac(b"word\0text", &[]));
    assert!(!secret().is_mac(b"word\0text", &[&mac[..], &[0]].concat()) && !secret().is_mac(b"word\0texu", &mac));
}

#[test]
fn issue_refuses_what_could_not_be_paid_or_shown() {
    let issue = |realm: &str, change: fn(&mut ChargeRequest), expires: u64, header: Option<&str>| {
        let mut request = request();
        change(&mut request);
        Challenge::issue(&secret(), realm, &request, Time(expires), [0; NONCE_BYTES], header).map(|_| ())
    };
    let (none, text): (fn(&mut ChargeRequest), _) = (|_| (), ChallengeError::Text);
    for realm in ["x".repeat(MAX_REALM_BYTES), "a \"b\" \\ c".to_owned()] {
        assert_eq!(issue(&realm, none, EXPIRES, None), Ok(()));
    }
    for realm in ["x".repeat(MAX_REALM_BYTES + 1), String::new(), "a|b".into(), "a\nb".into(), "caf\u{e9}".into()] {
        assert_eq!(issue(&realm, none, EXPIRES, None), Err(text("realm")), "{realm:?}");
    }
    let longest = "x-234567890123456-authorization".len();
    assert_eq!(longest, 31);
    for header in ["payment-authorization", "Payment-Authorization", "x-2345678901234567-authorization"] {
        assert_eq!(issue(REALM, none, EXPIRES, Some(header)), Ok(()), "{header}");
    }
    let wrong = ["", "cookie", "host", "proxy-authorization", "a|b-authorization", "x y-authorization"];
    for header in wrong.into_iter().chain(["x-23456789012345678-authorization", "payment-authorization:"]) {
        assert_eq!(issue(REALM, none, EXPIRES, Some(header)), Err(text("header")), "{header}");
    }
    assert_eq!(issue(REALM, |r| r.description = Some("\u{e9}".repeat(60)), EXPIRES, None), Ok(()));
    let descriptions: [fn(&mut ChargeRequest); 3] = [
        |r| r.description = Some("x".repeat(MAX_DESCRIPTION_BYTES + 1)),
        |r| r.description = Some("two\nlines".into()),
        |r| r.description = Some("\u{9b}31m".into()),
    ];
    for change in descriptions {
        assert_eq!(issue(REALM, change, EXPIRES, None), Err(text("description")));
    }
    let requests: [fn(&mut ChargeRequest); 5] = [
        |r| r.amount = Amount::ZERO,
        |r| r.details.issued_at = None,
        |r| r.details.resource = None,
        |r| r.details.scale = 2,
        |r| r.details.issued_at = Some(Time(EXPIRES)),
    ];
    for change in requests {
        assert_eq!(issue(REALM, change, EXPIRES, None), Err(ChallengeError::Request));
    }
    assert_eq!(issue(REALM, |r| r.amount = Amount::from_nanos(1), ISSUED + 1, None), Ok(()));
    assert_eq!(issue(REALM, |r| r.details.issued_at = Some(Time::MAX), u64::MAX, None), Err(ChallengeError::Request));
}

#[test]
fn challenge_is_found_beside_other_schemes_and_methods() {
    let ours = issued(&request());
    let text = ours.to_header();
    let other = "Payment id=\"1\", realm=\"r\", method=\"tempo\", intent=\"charge\", request=\"e30\"";
    let rows = [
        text.clone(),
        format!("Bearer realm=\"x, y\", {text}"),
        format!("{text}, Basic realm=\"x\", charset=\"UTF-8\""),
        format!("Negotiate, {other}, {text}"),
        format!("Negotiate YIIJvwYGKwYBBQUCoIIJszCCCa+=, {text}, NTLM TlRMTVNTUAAC=="),
        format!("Payment, Payment id=\"1\", {text}"),
        format!("{text}, {text}"),
        text.replace("Payment ", "payment   "),
        text.replace(", intent", ", later=\"x\", description=\"Caf\u{e9}\", intent"),
        text.replace("method=\"weir\"", "Method = weir"),
    ];
    for row in rows {
        assert_eq!(Challenge::from_header(&row).as_ref(), Ok(&ours), "{row}");
    }
    assert_eq!(Challenge::from_header(other), Err(ChallengeError::Foreign));
    assert_eq!(Challenge::from_header(&text.replace("charge", "session")), Err(ChallengeError::Foreign));
    let twice = text.replace("intent=", "method=\"weir\", intent=");
    for wrong in ["", "Payment", "Basic realm=\"x\"", "weir", &text.replace("id=", "ib="), &twice] {
        assert_eq!(Challenge::from_header(wrong), Err(ChallengeError::Malformed), "{wrong}");
    }
    assert_eq!(Challenge::all_from_header("Basic realm=\"x\""), Ok(vec![]));
    let full = format!("{text}{}", " ".repeat(MAX_ANSWER_BYTES - text.len()));
    assert_eq!(Challenge::from_header(&full), Ok(ours));
    let long = ChallengeError::TooLong { length: MAX_ANSWER_BYTES + 1, limit: MAX_ANSWER_BYTES };
    assert_eq!(Challenge::from_header(&format!("{full} ")), Err(long));
}

#[test]
fn challenge_whose_credential_might_not_fit_is_not_taken() {
    let mut found = issued(&request());
    let room = MAX_CREDENTIAL_BYTES - found.credential_bytes();
    found.opaque.as_mut().unwrap().push_str(&"x".repeat(room / 4 * 3));
    assert_eq!(Challenge::from_header(&found.to_header()), Ok(found.clone()));
    found.opaque.as_mut().unwrap().push_str("xxxx");
    let long = ChallengeError::Unshowable { length: found.credential_bytes() };
    assert_eq!(Challenge::from_header(&found.to_header()), Err(long));
    let both = format!("{}, {}", found.to_header(), issued(&request()).to_header());
    assert_eq!(Challenge::from_header(&both), Ok(issued(&request())));
}

#[test]
fn request_of_others_is_read_only_with_our_scale() {
    let mut found = issued(&request());
    let json = canonical(&request());
    let plain = json.replace(",\"issuedAt\":1790000000000", "").replace("{\"amount\"", "{ \"later\": 1, \"amount\"");
    found.request = format!("{}=", base64url(plain.as_bytes()));
    assert_eq!(found.charge().unwrap().details.issued_at, None);
    for (from, to) in [
        ("\"scale\":9", "\"scale\":2"),
        (",\"scale\":9", ""),
        ("\"50000000\"", "50000000"),
        ("\"50000000\"", "\"050000000\""),
        ("\"50000000\"", "\"+5\""),
        ("\"50000000\"", "\"\""),
        ("\"50000000\"", "\"0.05\""),
        ("\"50000000\"", "\"18446744073709551616\""),
        ("EUR", "eur"),
        ("weirhub1", "weir1"),
        ("{\"amount\"", "{\"amount\":\"1\",\"amount\""),
    ] {
        let changed = json.replace(from, to);
        assert_ne!(changed, json);
        found.request = base64url(changed.as_bytes());
        assert_eq!(found.charge(), Err(ChallengeError::Request), "{changed}");
    }
}

#[test]
fn credential_proves_in_both_dialects() {
    let credential = good();
    let proven = prove(&credential).unwrap();
    let asked = Amount::from_nanos(50_000_000);
    assert_eq!((proven.asked, proven.amount, proven.paid_at), (asked, asked, Time(ISSUED + 1000)));
    assert_eq!(proven.resource, Resource::of("GET", "/article?a=1"));
    assert_eq!((proven.place.group, proven.place.leaf, proven.place.chain, proven.place.commit), (4, 2, 7, 7));
    assert_eq!(credential.receipt_file().unwrap().check().map(|_| ()), Ok(()));
    let header = credential.to_header();
    for text in [header.clone(), header.replace("Payment ", "payment  "), format!(" {header}== ")] {
        assert_eq!(Credential::from_header(&text).unwrap().as_ref(), Ok(&credential));
    }
    let payload = PaymentPayload::of(&credential).unwrap();
    let plain = payload.to_header();
    for text in [plain.clone(), plain.trim_end_matches('=').to_owned(), plain.replace('+', "-").replace('/', "_")] {
        let back = PaymentPayload::from_header(&text).unwrap();
        assert_eq!(back.credential().as_ref(), Ok(&credential));
        assert_eq!(prove(&back.credential().unwrap()), Ok(proven));
    }
}

#[test]
fn credential_of_another_scheme_is_none_and_broken_ones_are_malformed() {
    assert!(Credential::from_header("Bearer abc").is_none());
    assert!(Credential::from_header("").is_none());
    assert!(Credential::from_header(&format!("Basic {}", "A".repeat(9000))).is_none());
    let json = |text: &str| format!("Payment {}", base64url(text.as_bytes()));
    let deep = format!("{}1{}", "[".repeat(1400), "]".repeat(1400));
    for text in
        ["Payment".into(), "Payment ".into(), "Payment !".into(), json("{}"), json("null"), json("[]"), json(&deep)]
    {
        assert_eq!(Credential::from_header(&text), Some(Err(CredentialError::Malformed)), "{text}");
    }
}

#[test]
fn credential_of_just_the_limit_is_read_and_one_byte_more_is_not() {
    let header = |length: usize| format!("Payment {}", "A".repeat(length - 8));
    let at = Credential::from_header(&header(MAX_CREDENTIAL_BYTES));
    assert_eq!(at, Some(Err(CredentialError::Malformed)));
    let length = MAX_CREDENTIAL_BYTES + 1;
    assert_eq!(Credential::from_header(&header(length)), Some(Err(CredentialError::TooLong { length })));
    let x402 = |length: usize| PaymentPayload::from_header(&"A".repeat(length)).map(|_| ());
    assert_eq!(x402(MAX_CREDENTIAL_BYTES), Err(CredentialError::Malformed));
    assert_eq!(x402(length), Err(CredentialError::TooLong { length }));
}

#[test]
fn largest_credential_fits_in_both_dialects() {
    let challenge = largest();
    assert_eq!(challenge.header.as_ref().unwrap().len(), 32);
    assert!(challenge.to_header().len() <= MAX_CHALLENGE_BYTES, "{}", challenge.to_header().len());
    let mut file = receipt(&challenge, Amount::MAX, Time(u64::MAX - 1), 1024, 4096, u64::MAX);
    file.certificate = certificate(u64::MAX - 1, u64::MAX);
    let credential = Credential::new(challenge.clone(), &file);
    assert_eq!(credential.payload.receipt.len(), (MAX_RECEIPT_BYTES * 4).div_ceil(3));
    assert_eq!(serde_json::to_string(&credential.payload).unwrap().len(), MAX_PAYLOAD_JSON);
    let header = credential.to_header();
    assert_eq!(header.len(), challenge.credential_bytes());
    assert!(header.len() <= MAX_CREDENTIAL_BYTES, "{}", header.len());
    assert_eq!(Credential::from_header(&header), Some(Ok(credential.clone())));
    // What a client echoes of the resource is its own choice.
    let mut payload = PaymentPayload::of(&credential).unwrap();
    payload.resource = serde_json::to_value(ResourceInfo {
        url: format!("https://{}", "x".repeat(192)),
        description: Some("x".repeat(MAX_DESCRIPTION_BYTES)),
        mime_type: Some("application/octet-stream".into()),
    })
    .ok();
    let header = payload.to_header();
    assert!(header.len() <= MAX_CREDENTIAL_BYTES, "{}", header.len());
    assert_eq!(PaymentPayload::from_header(&header).unwrap().credential(), Ok(credential));
    let url = format!("https://{}", "x".repeat(MAX_URL_BYTES - 8));
    let resource = ResourceInfo {
        description: Some("\"".repeat(MAX_DESCRIPTION_BYTES)),
        mime_type: Some("application/octet-stream".into()),
        ..ResourceInfo::at(&url)
    };
    assert_eq!(resource.url, url);
    let demand = PaymentRequired::new(&challenge, resource, Some("payment-insufficient".into())).unwrap();
    assert!(demand.to_header().len() <= MAX_CHALLENGE_BYTES, "{}", demand.to_header().len());
    assert_eq!((demand.resource.url, demand.resource.description), (url, None), "`extra` has the description");
}

/// Another challenge of ours, and its payment.
fn again(credential: &mut Credential, change: fn(&mut ChargeRequest)) {
    let mut request = request();
    change(&mut request);
    *credential = paid(&issued(&request), 50_000_000, ISSUED + 1000);
}

/// A challenge of an issuer that has the secret and other habits.
fn signed(credential: &mut Credential, change: fn(&mut Challenge)) {
    change(&mut credential.challenge);
    let bound = {
        let c = &credential.challenge;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let slots = [&c.realm, &c.method, &c.intent, &c.request, &text(&c.expires), &text(&c.digest)];
        format!("{}|{}", slots.map(String::as_str).join("|"), text(&c.opaque))
    };
    credential.challenge.id = base64url(&secret().mac(bound.as_bytes()));
    assert!(credential.challenge.is_issued_with(&secret()));
}

/// What is wrong, what it is, and how it is made.
type Row = (&'static str, CredentialError, fn(&mut Credential));

/// Each way in which a credential fails, and the problem that it is.
#[test]
fn every_credential_error_has_a_row() {
    let wrong = |change: fn(&mut Credential)| {
        let mut credential = good();
        change(&mut credential);
        prove(&credential).unwrap_err()
    };
    let rows: [Row; 27] = [
        ("id", CredentialError::Challenge, |c| c.challenge.id.make_ascii_uppercase()),
        ("a digest that we would not check", CredentialError::Challenge, |c| {
            signed(c, |c| c.digest = Some("x".into()));
        }),
        ("no expiry", CredentialError::Challenge, |c| signed(c, |c| c.expires = None)),
        ("an expiry that is none", CredentialError::Malformed, |c| signed(c, |c| c.expires = Some("soon".into()))),
        ("another method", CredentialError::Malformed, |c| signed(c, |c| c.method = "tempo".into())),
        ("no request", CredentialError::Malformed, |c| signed(c, |c| c.request = base64url(b"{}"))),
        ("no resource", CredentialError::Challenge, |c| {
            signed(c, |c| {
                let mut request = request();
                request.details.resource = None;
                c.request = base64url(canonical(&request).as_bytes());
            });
        }),
        ("realm", CredentialError::Other("realm"), |c| signed(c, |c| c.realm = "other.example".into())),
        ("hub", CredentialError::Other("hub"), |c| again(c, |r| r.details.hub = HubId(key(9).public()))),
        ("payee", CredentialError::Other("payee"), |c| again(c, |r| r.recipient = AccountId(key(9).public()))),
        ("currency", CredentialError::Other("currency"), |c| again(c, |r| r.currency = "USD".parse().unwrap())),
        ("a nano too little", CredentialError::Insufficient, |c| *c = paid(&c.challenge, 49_999_999, ISSUED + 1000)),
        ("too early", CredentialError::Time, |c| *c = paid(&c.challenge, 50_000_000, ISSUED - 1)),
        ("too late", CredentialError::Time, |c| *c = paid(&c.challenge, 50_000_000, EXPIRES)),
        ("a nano claimed more", CredentialError::Receipt, |c| c.payload.amount = Amount::from_nanos(50_000_001)),
        ("no receipt", CredentialError::Malformed, |c| c.payload.receipt.clear()),
        ("not base64url", CredentialError::Malformed, |c| c.payload.receipt.insert(0, '+')),
        ("a receipt and a byte", CredentialError::Malformed, |c| {
            let mut bytes = from_base64url(&c.payload.receipt).unwrap();
            bytes.push(0);
            c.payload.receipt = base64url(&bytes);
        }),
        ("no certificate", CredentialError::Malformed, |c| c.payload.certificate.clear()),
        ("another hub's certificate", CredentialError::Receipt, |c| {
            let mut other = certificate(0, u64::MAX);
            other.signature = key(9).sign(&Act::Certificate(other.certificate).digest(&hub()));
            c.payload.certificate =
                Payload::new(&ReceiptFile { certificate: other, ..c.receipt_file().unwrap() }).certificate;
        }),
        ("a certificate that ends at the commit", CredentialError::Receipt, |c| {
            let certificate = certificate(0, ISSUED + 1000);
            c.payload.certificate = Payload::new(&ReceiptFile { certificate, ..c.receipt_file().unwrap() }).certificate;
        }),
        ("another payment's receipt", CredentialError::Receipt, |c| {
            let mut other = issued(&request());
            other.id.make_ascii_lowercase();
            c.payload = paid(&other, 50_000_000, ISSUED + 1000).payload;
        }),
        ("another commit's time", CredentialError::Receipt, |c| {
            let mut file = c.receipt_file().unwrap();
            file.receipt.time = Time(ISSUED + 1001);
            c.payload = Payload::new(&file);
        }),
        ("signature", CredentialError::Receipt, |c| {
            let mut file = c.receipt_file().unwrap();
            file.receipt.signature.0[5] ^= 1;
            c.payload = Payload::new(&file);
        }),
        ("a leaf's path", CredentialError::Receipt, |c| {
            let mut file = c.receipt_file().unwrap();
            file.receipt.leaf_path.hashes.pop();
            c.payload = Payload::new(&file);
        }),
        ("a payment id", CredentialError::Receipt, |c| {
            let mut file = c.receipt_file().unwrap();
            file.receipt.payment_id.0[0] ^= 1;
            c.payload = Payload::new(&file);
        }),
        ("a payment with the issuer's own reference", CredentialError::Receipt, |c| {
            let mut file = receipt(&c.challenge, Amount::from_nanos(50_000_000), Time(ISSUED + 1000), 1, 1, 1);
            file.reference = Reference([1; 32]);
            file.receipt.head = Hash::ZERO;
            c.payload = Payload::new(&file);
        }),
    ];
    for (name, error, change) in rows {
        assert_eq!(wrong(change), error, "{name}");
    }
    let too_long = Credential::from_token(&"A".repeat(5000)).unwrap_err();
    let problems = [
        (CredentialError::Malformed, "malformed-credential"),
        (too_long, "malformed-credential"),
        (CredentialError::Challenge, "invalid-challenge"),
        (CredentialError::Other("realm"), "invalid-challenge"),
        (CredentialError::Insufficient, "payment-insufficient"),
        (CredentialError::Time, "payment-expired"),
        (CredentialError::Receipt, "verification-failed"),
    ];
    for (error, code) in problems {
        assert_eq!(PaymentProblem::from(error).as_str(), code);
    }
}

#[test]
fn time_is_inclusive_at_issue_and_exclusive_at_expiry_and_more_may_be_paid() {
    let challenge = issued(&request());
    for (nanos, time) in [(50_000_000, ISSUED), (50_000_000, EXPIRES - 1), (50_000_001, ISSUED), (u64::MAX, ISSUED)] {
        let proven = prove(&paid(&challenge, nanos, time)).unwrap();
        assert_eq!((proven.amount.nanos(), proven.paid_at), (nanos, Time(time)));
    }
}

#[test]
fn certificate_is_asked_about_before_the_receipt_counts() {
    let mut asked = None;
    let credential = good();
    let answer = credential.prove(&secret(), &expected(), |certificate, time| {
        asked = Some((*certificate, time));
        false
    });
    assert_eq!(answer, Err(CredentialError::Receipt));
    assert_eq!(asked, Some((certificate(0, u64::MAX), Time(ISSUED + 1000))));
}

#[test]
fn x402_makes_the_same_challenge_again_or_says_so() {
    for challenge in [issued(&request()), largest()] {
        assert_eq!(Requirements::of(&challenge).unwrap().challenge(), Ok(challenge));
    }
    let mut challenges = vec![issued(&request()); 4];
    challenges[0].digest = Some("sha-256=x".into());
    challenges[1].request.push('=');
    challenges[2].request = base64url(canonical(&request()).replace("{\"amount\"", "{\"x\":1,\"amount\"").as_bytes());
    challenges[3].opaque = None;
    for challenge in challenges {
        assert_eq!(Requirements::of(&challenge), Err(ChallengeError::Request));
    }
    let mut short = request();
    short.details.issued_at = Some(Time(EXPIRES - 1999));
    assert_eq!(Requirements::of(&issued(&short)).unwrap().max_timeout_seconds, 1);
    short.details.issued_at = Some(Time(EXPIRES - 1));
    assert_eq!(Requirements::of(&issued(&short)).unwrap().max_timeout_seconds, 1);
}

#[test]
fn x402_demand_is_read_among_other_networks() {
    let challenge = issued(&request());
    let mut demand = PaymentRequired::new(&challenge, ResourceInfo::at("https://news.example/a"), None).unwrap();
    let ours = demand.accepts[0].clone();
    let other = serde_json::json!({"scheme": "exact", "network": "eip155:8453", "amount": 1});
    let mut upto = ours.clone();
    upto["scheme"] = "upto".into();
    let mut broken = ours.clone();
    broken["amount"] = 5.into();
    demand.accepts = vec![other.clone(), upto, broken, ours];
    let back = PaymentRequired::from_header(&demand.to_header()).unwrap();
    assert_eq!(back, demand);
    assert_eq!(back.requirements().unwrap().challenge(), Ok(challenge));
    demand.accepts.pop();
    assert_eq!(demand.requirements(), Err(ChallengeError::Request));
    demand.accepts = vec![other];
    assert_eq!(demand.requirements(), Err(ChallengeError::Foreign));
    demand.x402_version = 1;
    assert_eq!(PaymentRequired::from_header(&demand.to_header()), Err(ChallengeError::Foreign));
    let long = "A".repeat(MAX_ANSWER_BYTES + 1);
    let error = ChallengeError::TooLong { length: long.len(), limit: MAX_ANSWER_BYTES };
    assert_eq!(PaymentRequired::from_header(&long), Err(error));
    assert_eq!(PaymentRequired::from_header(&long[1..]), Err(ChallengeError::Malformed));
    let far = ResourceInfo { url: "x".repeat(2000), ..ResourceInfo::at("") };
    let error = PaymentRequired::new(&issued(&request()), far, None).unwrap_err();
    assert!(matches!(error, ChallengeError::TooLong { limit: MAX_CHALLENGE_BYTES, .. }));
}

#[test]
fn long_addresses_are_cut_at_the_query_and_then_after_the_origin() {
    let base = "https://news.example/a";
    let at = |text: String| ResourceInfo::at(&text).url;
    let query = format!("{base}?{}", "q".repeat(MAX_URL_BYTES - base.len() - 1));
    assert_eq!(at(query.clone()), query);
    assert_eq!(at(format!("{query}q")), base);
    assert_eq!(at(format!("{base}{}", "p".repeat(MAX_URL_BYTES))), "https://news.example/");
    assert_eq!(at("x".repeat(MAX_URL_BYTES + 1)), "");
}

#[test]
fn x402_identifier_is_found_in_either_shape() {
    let mut payload = PaymentPayload::of(&good()).unwrap();
    assert_eq!(payload.identifier(), None);
    for (extensions, id) in [
        (
            serde_json::json!({"payment-identifier": {"info": {"required": false, "id": "pay_1"}, "schema": {}}}),
            Some("pay_1"),
        ),
        (serde_json::json!({"payment-identifier": {"id": "pay_2"}}), Some("pay_2")),
        (serde_json::json!({"payment-identifier": {"info": {"paymentId": "pay_3"}}}), Some("pay_3")),
        (serde_json::json!({"payment-identifier": {"info": {"id": 4}}}), None),
        (serde_json::json!(["payment-identifier"]), None),
    ] {
        payload.extensions = Some(extensions);
        let back = PaymentPayload::from_header(&payload.to_header()).unwrap();
        assert_eq!(back.identifier(), id);
    }
    payload.x402_version = 1;
    assert_eq!(PaymentPayload::from_header(&payload.to_header()), Err(CredentialError::Malformed));
    payload.accepted.network = "eip155:1".into();
    assert_eq!(payload.credential(), Err(CredentialError::Malformed));
}

#[test]
fn answers_come_back_from_their_headers() {
    let mut receipt = PaymentReceipt::new(PaymentId([4; 32]), Amount::from_nanos(9), Currency::EUR, Time(ISSUED));
    receipt.drawn = Amount::from_nanos(5);
    receipt.left = Amount::from_nanos(4);
    receipt.challenge_id = Some(issued(&request()).id);
    receipt.metered = true;
    assert_eq!(PaymentReceipt::from_header(&receipt.to_header()), Some(receipt));
    assert_eq!(PaymentReceipt::from_header(&"A".repeat(MAX_ANSWER_BYTES + 1)), None);
    let taken = PaymentResponse::taken(&hub(), &PaymentId([4; 32]), Amount::from_nanos(5));
    let refused = PaymentResponse::refused(&hub(), "verification-failed");
    for response in [taken, refused] {
        assert_eq!(PaymentResponse::from_header(&response.to_header()), Some(response));
    }
    for kind in PaymentProblem::ALL {
        let problem = Problem::new(kind, Some("why".into()));
        let json = serde_json::to_string(&problem).unwrap();
        assert_eq!(problem.kind, format!("{BASE}{}", kind.as_str()));
        assert_eq!(serde_json::from_str::<Problem>(&json).unwrap(), problem);
    }
}

#[test]
fn crawler_prices_are_a_currency_and_units() {
    let price = CrawlerPrice { currency: Currency::EUR, amount: Amount::from_nanos(10_000_000) };
    assert_eq!(price.to_string(), "EUR 0.01");
    for text in ["EUR 0.01", " EUR  0.010 ", &format!("EUR 0.01{}", " ".repeat(56))] {
        assert_eq!(text.parse(), Ok(price), "{text:?}");
    }
    for text in ["", "EUR", "0.01 EUR", "eur 0.01", "EUR -1", "EUR 1e3", "EUR 0.0000000001", &" ".repeat(65)] {
        assert!(text.parse::<CrawlerPrice>().is_err(), "{text:?}");
    }
    assert!(format!("EUR 0.01{}", " ".repeat(57)).parse::<CrawlerPrice>().is_err());
}

#[test]
fn secrets_and_receipts_do_not_show_when_debugged() {
    let credential = good();
    let shown = format!("{credential:?} {:?}", secret());
    assert!(
        !shown.contains(&credential.payload.receipt) && !shown.contains("5e5e") && !shown.contains("94"),
        "{shown}"
    );
}

#[test]
fn times_are_whole_milliseconds_and_end_with_the_year_9999() {
    for (ms, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (ISSUED + 7, "2026-09-21T14:13:20.007Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ] {
        assert_eq!(rfc3339(Time(ms)), text);
        assert_eq!(from_rfc3339(text), Some(Time(ms)));
    }
    assert_eq!(rfc3339(Time::MAX), "9999-12-31T23:59:59.999Z");
    assert_eq!(from_rfc3339("2026-09-21T14:13:20Z"), Some(Time(ISSUED)));
    for text in ["", "2026-09-21", "2026-09-21T14:13:20", "1969-12-31T23:59:59Z", "2026-09-21T14:13:20+02:00"] {
        assert_eq!(from_rfc3339(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn any_challenge_comes_back_from_both_dialects(
        realm in "[ -{}~]{1,128}", description in proptest::option::of("[^\\p{Cc}]{0,30}"), amount in 1_u64..,
        metered: bool, nonce: [u8; 16], resource: [u8; 16], issued_at in 0..EXPIRES, named: bool,
    ) {
        let mut request = request();
        request.amount = Amount::from_nanos(amount);
        request.description = description.filter(|text| text.len() <= MAX_DESCRIPTION_BYTES);
        request.details.metered = metered;
        request.details.resource = Some(Resource(resource));
        request.details.issued_at = Some(Time(issued_at));
        let header = named.then_some("Payment-Authorization");
        let made = Challenge::issue(&secret(), &realm, &request, Time(EXPIRES), nonce, header).unwrap();
        prop_assert!(made.is_issued_with(&secret()));
        prop_assert_eq!(made.charge(), Ok(request));
        let header = made.to_header();
        prop_assert!(header.len() <= MAX_CHALLENGE_BYTES && header.is_ascii());
        prop_assert_eq!(Challenge::from_header(&header), Ok(made.clone()));
        let demand = PaymentRequired::new(&made, ResourceInfo::at("https://x/"), None).unwrap().to_header();
        prop_assert!(demand.len() <= MAX_CHALLENGE_BYTES && demand.is_ascii());
        let back = PaymentRequired::from_header(&demand).unwrap().requirements().unwrap();
        prop_assert_eq!(back.challenge(), Ok(made));
    }

    #[test]
    fn any_text_is_read_or_refused_without_panic(text in "\\PC{0,200}", json in "[\\[\\]{}\":,a-z0-9 ]{0,200}") {
        for text in [text.clone(), base64url(text.as_bytes()), base64url(json.as_bytes())] {
            let _ = Challenge::all_from_header(&text);
            let _ = Challenge::from_header(&format!("Payment {text}"));
            let _ = Credential::from_token(&text).map(|credential| prove(&credential));
            let _ = Credential::from_header(&text);
            let _ = PaymentRequired::from_header(&text).map(|demand| demand.requirements());
            let _ = PaymentPayload::from_header(&text).map(|payload| payload.credential());
            let _ = (PaymentResponse::from_header(&text), PaymentReceipt::from_header(&text));
            let _ = (text.parse::<CrawlerPrice>(), from_rfc3339(&text), from_base64url(&text));
            let _ = ResourceInfo::at(&text);
        }
    }

    #[test]
    fn flipped_byte_of_a_credential_never_proves(at: prop::sample::Index, flip in 1_u8..) {
        let credential = good();
        // Of the text …
        let mut header = credential.to_header().into_bytes();
        let at_byte = "Payment ".len() + at.index(header.len() - "Payment ".len());
        header[at_byte] ^= flip;
        let text = String::from_utf8_lossy(&header);
        let found = Credential::from_header(&text).and_then(Result::ok);
        prop_assert!(found.is_none_or(|found| prove(&found).is_err()), "{text}");
        // … and of the JSON in it, and in x402.
        let mut json = serde_json::to_vec(&credential).unwrap();
        let at_byte = at.index(json.len());
        json[at_byte] ^= flip;
        let found = Credential::from_token(&base64url(&json)).ok();
        prop_assert!(found.is_none_or(|found| prove(&found).is_err()), "{}", String::from_utf8_lossy(&json));
        let mut header = PaymentPayload::of(&credential).unwrap().to_header().into_bytes();
        let at_byte = at.index(header.len());
        header[at_byte] ^= flip;
        let text = String::from_utf8_lossy(&header).into_owned();
        let found = PaymentPayload::from_header(&text).ok().and_then(|payload| payload.credential().ok());
        // Times out of `maxTimeoutSeconds` and padding prove nothing: what counts must still be the same.
        prop_assert!(found.is_none_or(|found| found == credential || prove(&found).is_err()), "{text}");
    }
}
