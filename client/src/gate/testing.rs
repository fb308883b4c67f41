//! What tests of the gate share: a hub that signs receipts of payments that were never made, and a site that is paid by them.
#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body::Body;
use weir_protocol::act::{Act, Certificate};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::commit::{Commit, SignedCertificate, group_item};
use weir_protocol::hash::sha256;
use weir_protocol::http::{Challenge, Credential, Secret};
use weir_protocol::id::{AccountId, HubId, PaymentId};
use weir_protocol::keys::SecretKey;
use weir_protocol::merkle::Tree;
use weir_protocol::payment::{Payment, receipt_leaf};
use weir_protocol::receipt::{Receipt, ReceiptFile};

use super::balance::{Balances, Limits};
use super::config::Accept;
use super::desk::{Demand, Desk, DeskOptions, Offer, Verdict};
use super::price::{OnAbort, Price};
use super::site::Site;
use super::trust::Trust;

/// When the tests take place.
pub(crate) const NOW: Time = Time(1_790_000_000_000);
/// For so long a demand can be paid.
pub(crate) const TTL_MS: u64 = 600_000;
/// For so long a request that was paid is served again.
pub(crate) const GRACE_MS: u64 = 60_000;
/// The fill of the hub's signing key.
pub(crate) const SIGNING: u8 = 2;

pub(crate) fn nanos(nanos: u64) -> Amount {
    Amount::from_nanos(nanos)
}

pub(crate) fn key(fill: u8) -> SecretKey {
    SecretKey::from_bytes(&[fill; 32]).unwrap()
}

pub(crate) fn hub() -> HubId {
    HubId(key(1).public())
}

pub(crate) fn payee() -> AccountId {
    AccountId(key(7).public())
}

/// A site of this payee.
pub(crate) fn site() -> Site {
    Site {
        realm: "news.example".to_owned(),
        payee: payee(),
        currency: Currency::EUR,
        header: None,
        challenge_ttl_ms: TTL_MS,
        trust: Trust::new(hub()),
        secret: Secret::from([0x5e; 32]),
    }
}

pub(crate) fn options() -> DeskOptions {
    DeskOptions {
        named_requests: false,
        accept: Accept { payment: true, x402: true, crawler: true },
        cookie: "weir".to_owned(),
        grace_ms: GRACE_MS,
        quota_visitors: 100,
    }
}

/// The desk of a site, over the store in a folder.
pub(crate) fn desk_of(site: Site, folder: &Path) -> Desk {
    Desk::new(site, Balances::open(folder, Limits::default()).unwrap(), options())
}

pub(crate) fn desk(folder: &Path) -> Desk {
    desk_of(site(), folder)
}

/// What a `GET` of a path costs, once for each.
pub(crate) fn offer(path: &str, price: u64) -> Offer {
    Offer {
        upstream: None,
        method: Method::GET,
        name: format!("news.example{path}"),
        route: path.into(),
        price: Price::fixed_only(nanos(price)),
        metering: None,
        on_abort: OnAbort::Release,
        access_ms: None,
        title: None,
        mime: None,
        page: false,
    }
}

/// The certificate of one of the hub's signing keys.
pub(crate) fn certificate(signing: u8, not_before: Time) -> SignedCertificate {
    let certificate = Certificate { key: key(signing).public(), not_before, not_after: Time(u64::MAX) };
    let digest = Act::Certificate(certificate).digest(&hub());
    SignedCertificate { certificate, signature: key(1).sign(&digest) }
}

/// The hub's receipt of a payment: the last one of three of its group, the second item of its commit.
pub(crate) fn receipt(challenge: &Challenge, amount: Amount, time: Time, signed: &SignedCertificate) -> ReceiptFile {
    let reference = challenge.reference();
    let request = challenge.charge().unwrap();
    let payment = Payment { payee: request.recipient, amount, reference };
    let name = format!("{} {amount} {}", challenge.id, time.0);
    let payment_id = PaymentId(sha256(name.as_bytes()).0);
    let leaf = receipt_leaf(&payment_id, &payment, request.currency);
    let leaves = Tree::new(vec![sha256(b"one"), sha256(b"two"), leaf]);
    let head = sha256(b"head");
    let items = Tree::new(vec![sha256(b"item"), group_item(&head, 3, &leaves.root())]);
    let history = sha256(b"history");
    let hub = request.details.hub;
    let commit = Commit { hub, chain: 3, number: 5, time, history, items: 2, root: items.root() };
    let signing = (0..=u8::MAX).filter_map(|fill| SecretKey::from_bytes(&[fill; 32]).ok());
    let signing = signing.into_iter().find(|key| key.public() == signed.certificate.key).unwrap();
    let receipt = Receipt {
        payment_id,
        leaf_path: leaves.path(2).unwrap(),
        head,
        group_path: items.path(1).unwrap(),
        chain: 3,
        number: 5,
        time,
        history,
        signature: signing.sign(&commit.id()),
    };
    ReceiptFile {
        format: ReceiptFile::FORMAT.to_owned(),
        hub,
        payee: request.recipient,
        amount,
        currency: request.currency,
        reference,
        certificate: *signed,
        receipt,
    }
}

/// What the payer shows who paid so much at a time.
pub(crate) fn paid(challenge: &Challenge, amount: u64, time: Time) -> Credential {
    let certificate = certificate(SIGNING, Time(NOW.0 - 86_400_000));
    Credential::new(challenge.clone(), &receipt(challenge, nanos(amount), time, &certificate))
}

/// The headers that show a credential.
pub(crate) fn showing(credential: &Credential) -> HeaderMap {
    with(&[("authorization", &credential.to_header())])
}

pub(crate) fn with(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, text) in fields {
        headers.append(*name, HeaderValue::try_from(*text).unwrap());
    }
    headers
}

/// What is asked of who shows nothing.
pub(crate) async fn demanded(desk: &Desk, offer: &Offer, now: Time) -> Demand {
    match desk.judge_offer(offer, &HeaderMap::new(), now).await {
        Verdict::Demand(demand) => *demand,
        other => panic!("no demand but {other:?}"),
    }
}

/// A body of pieces; then it ends, fails, or goes on for ever.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pub(crate) frames: std::collections::VecDeque<&'static str>,
    pub(crate) length: Option<u64>,
    pub(crate) then: Then,
}

#[derive(Debug, Default, Clone, Copy)]
pub(crate) enum Then {
    #[default]
    Ends,
    Fails,
    Stays,
}

pub(crate) fn pieces(pieces: &[&'static str], then: Then) -> Response<Pieces> {
    Response::new(Pieces { frames: pieces.iter().copied().collect(), length: None, then })
}

/// The same with its length known.
pub(crate) fn whole(piece: &'static str) -> Response<Pieces> {
    let length = Some(piece.len() as u64);
    Response::new(Pieces { frames: [piece].into(), length, then: Then::Ends })
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        match (self.frames.pop_front(), self.then) {
            (Some(piece), _) => {
                let piece = Bytes::from_static(piece.as_bytes());
                self.length = self.length.map(|length| length.saturating_sub(piece.len() as u64));
                Poll::Ready(Some(Ok(http_body::Frame::data(piece))))
            }
            (None, Then::Ends) => Poll::Ready(None),
            (None, Then::Fails) => Poll::Ready(Some(Err(std::io::Error::other("the source broke")))),
            (None, Then::Stays) => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && matches!(self.then, Then::Ends)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.length.map_or_else(http_body::SizeHint::new, http_body::SizeHint::with_exact)
    }
}
