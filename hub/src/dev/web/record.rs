//! What passes the demo's gates: a handler around each gate notes the payments' headers of every request and answer, also
//! of requests that people make by hand.
//!
//! Keeps decoded facts and no credentials: whoever had one could show it. Keeps the newest [`MAX_EXCHANGES`], in memory.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::Bytes;
use axum::http::header::{HeaderMap, USER_AGENT};
use axum::http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use weir_client::gate::proxy::{BodyError, GateBody, Handler, Peer, Problem};
use weir_client::gate::service::Gate;
use weir_client::protocol::amount::{Amount, Time};
use weir_client::protocol::http::x402::{PaymentPayload, PaymentRequired};
use weir_client::protocol::http::{Challenge, ChargeRequest, Credential, PaymentReceipt, header};
use weir_client::protocol::id::{PaymentId, Reference};

use crate::clock::wall_ms;

/// Exchanges that are kept.
pub(super) const MAX_EXCHANGES: usize = 100;
/// Characters of a path, and of a client's name for itself, that are kept.
const MAX_PATH_CHARS: usize = 120;
const MAX_AGENT_CHARS: usize = 60;

/// A demand, decoded.
#[derive(Debug, Clone)]
pub(super) struct Demanded {
    pub(super) at: Time,
    /// Of the challenge.
    pub(super) id: String,
    pub(super) realm: String,
    pub(super) expires: String,
    pub(super) request: ChargeRequest,
    pub(super) reference: Reference,
}

/// A credential, decoded: what it proves, without the proof.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) at: Time,
    /// The name of the header that it came in.
    pub(super) header: &'static str,
    pub(super) challenge: String,
    pub(super) amount: Amount,
    pub(super) reference: Reference,
    pub(super) receipt: Option<Receipt>,
}

/// A hub's receipt, decoded.
#[derive(Debug, Clone)]
pub(super) struct Receipt {
    pub(super) payment_id: PaymentId,
    pub(super) chain: u64,
    pub(super) commit: u64,
    pub(super) time: Time,
    /// The key that signed it, by its certificate.
    pub(super) key: String,
}

/// The answer to a credential.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    pub(super) at: Time,
    pub(super) status: StatusCode,
    pub(super) receipt: Option<PaymentReceipt>,
}

/// How a paid answer ended, and what the gate's books say then.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) at: Time,
    pub(super) bytes: u64,
    /// It came to its end: else the client went away, or it was broken off.
    pub(super) whole: bool,
    /// In the trailers, where the client takes them.
    pub(super) trailer: Option<PaymentReceipt>,
    /// Of the balance: paid, drawn in all, left.
    pub(super) balance: Option<(Amount, Amount, Amount)>,
}

/// One exchange: a demand, how it was met, and what came back.
#[derive(Debug, Clone)]
pub(super) struct Exchange {
    pub(super) number: u64,
    pub(super) site: &'static str,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) agent: String,
    pub(super) began: Time,
    pub(super) demand: Option<Demanded>,
    pub(super) shown: Option<Shown>,
    pub(super) answer: Option<Answered>,
    pub(super) end: Option<Ended>,
}

/// The newest exchanges.
#[derive(Debug, Clone, Default)]
pub(super) struct Board(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    exchanges: VecDeque<Exchange>,
    count: u64,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest first, and how many there were.
    pub(super) fn newest(&self) -> (Vec<Exchange>, u64) {
        let kept = self.lock();
        (kept.exchanges.iter().rev().cloned().collect(), kept.count)
    }

    pub(super) fn find(&self, number: u64) -> Option<Exchange> {
        self.lock().exchanges.iter().find(|one| one.number == number).cloned()
    }

    /// Notes an answer: the second half of an exchange whose demand was seen, or a new one. `None`: nothing of payments.
    fn note(&self, seen: Seen, status: StatusCode, headers: &HeaderMap) -> Option<(u64, Option<PaymentId>)> {
        let now = Time(wall_ms());
        let demand = (status == StatusCode::PAYMENT_REQUIRED).then(|| demanded(headers, now)).flatten();
        let receipt = text(headers, header::PAYMENT_RECEIPT).and_then(PaymentReceipt::from_header);
        if demand.is_none() && receipt.is_none() && seen.shown.is_none() {
            return None;
        }
        let shown_for = seen.shown.as_ref().map(|shown| shown.challenge.as_str());
        let id = shown_for.or_else(|| receipt.as_ref()?.challenge_id.as_deref()).map(str::to_owned);
        let payment = receipt.as_ref().map(|receipt| receipt.reference);
        let answer = (demand.is_none()).then_some(Answered { at: now, status, receipt });
        let mut kept = self.lock();
        let open = |one: &&mut Exchange| {
            one.answer.is_none() && one.demand.as_ref().is_some_and(|demand| Some(&demand.id) == id.as_ref())
        };
        if answer.is_some()
            && let Some(one) = kept.exchanges.iter_mut().rev().find(open)
        {
            (one.shown, one.answer) = (seen.shown, answer);
            return Some((one.number, payment));
        }
        kept.count += 1;
        let number = kept.count;
        if kept.exchanges.len() >= MAX_EXCHANGES {
            kept.exchanges.pop_front();
        }
        kept.exchanges.push_back(Exchange {
            number,
            site: seen.site,
            method: seen.method,
            path: seen.path,
            agent: seen.agent,
            began: seen.at,
            // What was shown and not taken is answered with a new demand.
            shown: seen.shown,
            demand,
            answer,
            end: None,
        });
        Some((number, payment))
    }

    fn ended(&self, number: u64, end: Ended) {
        if let Some(one) = self.lock().exchanges.iter_mut().find(|one| one.number == number) {
            one.end = Some(end);
        }
    }
}

/// What a request says of payments.
struct Seen {
    at: Time,
    site: &'static str,
    method: String,
    path: String,
    agent: String,
    shown: Option<Shown>,
}

impl Seen {
    fn of<B>(site: &'static str, request: &Request<B>) -> Self {
        let at = Time(wall_ms());
        let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
        Self {
            at,
            site,
            method: cut(request.method().as_str(), 16),
            // A query can hold anything, and is not needed here.
            path: cut(request.uri().path(), MAX_PATH_CHARS),
            agent: cut(text(request.headers(), USER_AGENT.as_str()).unwrap_or("a client"), MAX_AGENT_CHARS),
            shown: shown(request.headers(), at),
        }
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn demanded(headers: &HeaderMap, at: Time) -> Option<Demanded> {
    let mut values = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let challenge = values.find_map(|value| Challenge::from_header(value).ok());
    let x402 = || PaymentRequired::from_header(text(headers, header::PAYMENT_REQUIRED)?).ok();
    let challenge = challenge.or_else(|| x402()?.requirements().ok()?.challenge().ok())?;
    let (request, reference) = (challenge.charge().ok()?, challenge.reference());
    let expires = challenge.expires.unwrap_or_default();
    Some(Demanded { at, id: challenge.id, realm: challenge.realm, expires, request, reference })
}

fn shown(headers: &HeaderMap, at: Time) -> Option<Shown> {
    let payment = |name: &'static str| Some((name, Credential::from_header(text(headers, name)?)?.ok()?));
    let x402 =
        |name: &'static str| Some((name, PaymentPayload::from_header(text(headers, name)?).ok()?.credential().ok()?));
    let (header, credential) = payment(header::AUTHORIZATION)
        .or_else(|| payment(header::PAYMENT_AUTHORIZATION))
        .or_else(|| x402(header::PAYMENT_SIGNATURE))?;
    let receipt = credential.receipt_file().map(|file| {
        let (key, receipt) = (file.certificate.certificate.key.to_string(), file.receipt);
        Receipt {
            payment_id: receipt.payment_id,
            chain: receipt.chain,
            commit: receipt.number,
            time: receipt.time,
            key,
        }
    });
    let (amount, reference) = (credential.payload.amount, credential.challenge.reference());
    Some(Shown { at, header, challenge: credential.challenge.id, amount, reference, receipt })
}

/// A gate that is watched.
#[derive(Debug)]
pub(super) struct Recorder {
    site: &'static str,
    gate: Arc<Gate>,
    board: Board,
}

impl Recorder {
    pub(super) const fn new(site: &'static str, gate: Arc<Gate>, board: Board) -> Self {
        Self { site, gate, board }
    }
}

impl Handler for Recorder {
    async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<GateBody> {
        let seen = Seen::of(self.site, &request);
        let response = self.gate.handle(request, peer).await;
        let noted = self.board.note(seen, response.status(), response.headers());
        let Some((number, Some(payment))) = noted else { return response };
        let (gate, board) = (Arc::clone(&self.gate), self.board.clone());
        response.map(|inner| {
            let watch = Watch { gate, board, number, payment, bytes: 0, whole: inner.is_end_stream(), trailer: None };
            GateBody::boxed(Watched { inner, watch })
        })
    }

    fn refuse(&self, problem: Problem) -> Response<GateBody> {
        self.gate.refuse(problem)
    }
}

/// A paid answer on its way.
struct Watched {
    inner: GateBody,
    watch: Watch,
}

/// Notes the end when it is dropped: then the gate has drawn.
struct Watch {
    gate: Arc<Gate>,
    board: Board,
    number: u64,
    payment: PaymentId,
    bytes: u64,
    whole: bool,
    trailer: Option<PaymentReceipt>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let view = self.gate.desk().balances().balance(self.payment);
        let balance = view.map(|view| (view.payment.amount, view.drawn, view.left));
        let (at, trailer) = (Time(wall_ms()), self.trailer.take());
        self.board.ended(self.number, Ended { at, bytes: self.bytes, whole: self.whole, trailer, balance });
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.watch.bytes += data.len() as u64;
                }
                if let Some(trailers) = frame.trailers_ref() {
                    self.watch.trailer = text(trailers, header::PAYMENT_RECEIPT).and_then(PaymentReceipt::from_header);
                }
                self.watch.whole = self.watch.whole || self.inner.is_end_stream() || frame.is_trailers();
            }
            Poll::Ready(None) => self.watch.whole = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    fn asked(path: &str) -> Seen {
        Seen::of("site", &Request::builder().uri(path).body(()).unwrap())
    }

    fn receipt() -> HeaderMap {
        let mut headers = HeaderMap::new();
        let id = PaymentId([7; 32]);
        let receipt =
            PaymentReceipt::new(id, Amount::from_nanos(1), weir_client::protocol::amount::Currency::EUR, Time(1));
        headers.insert(header::PAYMENT_RECEIPT, receipt.to_header().parse().unwrap());
        headers
    }

    #[test]
    fn board_keeps_the_newest_and_leaves_out_what_is_free() {
        let board = Board::default();
        assert!(board.note(asked("/"), StatusCode::OK, &HeaderMap::new()).is_none());
        for _ in 0..MAX_EXCHANGES + 5 {
            assert!(board.note(asked("/a?secret=1"), StatusCode::OK, &receipt()).is_some());
        }
        let (newest, count) = board.newest();
        assert_eq!((newest.len(), count), (MAX_EXCHANGES, MAX_EXCHANGES as u64 + 5));
        assert_eq!((newest[0].number, newest[0].path.as_str()), (count, "/a"));
        assert!(board.find(1).is_none() && board.find(count).is_some());
    }
}
