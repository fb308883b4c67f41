//! A paid request as it passes the proxy: counted, and charged when its answer is whole. Every other end charges nothing.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, RANGE, TE, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, request, response};
use serde::Serialize;
use weir_protocol::amount::{Amount, Currency};
use weir_protocol::http::{Secret, base64url, header as names};
use weir_protocol::id::PaymentId;

use super::metrics::{Metrics, Outcome};
use super::now;
use crate::gate::desk::{Charge, Used};
use crate::gate::meter::{self, Meter};
use crate::gate::price::{OnAbort, Price};
use crate::gate::proxy::{Ending, Hold, Hooks, Passed, RequestChunks, Withheld};

/// What the upstream is told: base64url of this JSON, a dot, and the first 16 bytes of HMAC-SHA256 over `context`, a zero
/// byte and the JSON, in base64url.
#[derive(Debug, Serialize)]
struct Context<'a> {
    /// The payment's public id.
    payment: PaymentId,
    /// What was paid with it, in units.
    paid: Amount,
    /// The most that this request costs; `0` when it was paid before.
    most: Amount,
    currency: Currency,
    route: &'a str,
    /// Whether this very request was paid before.
    again: bool,
    /// When, milliseconds since 1970.
    time_ms: u64,
}

/// Hears of one paid request.
pub(super) struct PaidHooks {
    /// None when it was charged already: at the switch to another protocol.
    charge: Option<Charge>,
    meter: Meter,
    /// Whether the upstream answered with something that is charged for.
    good: bool,
    up_bytes: Arc<AtomicUsize>,
    /// Bytes of the request's body that the gate put there.
    added_bytes: usize,
    metrics: Arc<Metrics>,
    context: Option<Secret>,
}

impl PaidHooks {
    pub(super) fn new(charge: Charge, metrics: Arc<Metrics>, context: Option<Secret>) -> Self {
        let meter = charge.meter();
        metrics.began();
        Self { charge: Some(charge), meter, good: false, up_bytes: Arc::default(), added_bytes: 0, metrics, context }
    }

    /// So many bytes of the request's body are the gate's own: nobody pays for them.
    pub(super) const fn added(&mut self, bytes: usize) {
        self.added_bytes = bytes;
    }

    /// Commits, and lets the answer end when that is durable.
    fn commit(&mut self, used: Used) -> Hold {
        let Some(charge) = self.charge.take() else { return Hold::release() };
        let again = charge.is_again();
        let metered = charge.is_metered() && !again;
        let metrics = Arc::clone(&self.metrics);
        Hold::Until(Box::pin(async move {
            match charge.commit(used, now()).await {
                Ok(settled) => {
                    metrics.count(if again { Outcome::Again } else { Outcome::Served });
                    metrics.drawn(settled.drawn.drawn);
                    // The head of a metered answer said the most.
                    Ok(metered.then(|| settled.receipt()))
                }
                Err(error) => {
                    tracing::error!(%error, "a draw is not durable: the answer is withheld");
                    metrics.count(Outcome::Withheld);
                    Err(Withheld)
                }
            }
        }))
    }
}

/// `PAYMENT-CONTEXT`.
fn context(secret: &Secret, charge: &Charge) -> Option<HeaderValue> {
    let context = Context {
        payment: charge.payment_id(),
        paid: charge.paid(),
        most: charge.most(),
        currency: charge.currency(),
        route: charge.route(),
        again: charge.is_again(),
        time_ms: now().0,
    };
    let json = serde_json::to_vec(&context).ok()?;
    let mut text = b"context\0".to_vec();
    text.extend_from_slice(&json);
    let mac = secret.mac(&text);
    HeaderValue::try_from(format!("{}.{}", base64url(&json), base64url(mac.get(..16)?))).ok()
}

impl Drop for PaidHooks {
    fn drop(&mut self) {
        self.metrics.ended();
    }
}

impl Hooks for PaidHooks {
    fn request_chunks(&mut self) -> Option<RequestChunks> {
        let bytes = Arc::clone(&self.up_bytes);
        Some(Arc::new(move |length| {
            bytes.fetch_add(length, Ordering::Relaxed);
            ControlFlow::Continue(())
        }))
    }

    fn on_request_head(&mut self, head: &mut request::Parts) {
        let Some(charge) = &self.charge else { return };
        if meter::needs_plain_body(charge.metering()) {
            head.headers.remove(ACCEPT_ENCODING);
            head.headers.remove(RANGE);
        }
        if meter::needs_trailers(charge.metering()) {
            head.headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        if let Some(value) = self.context.as_ref().and_then(|secret| context(secret, charge)) {
            head.headers.insert(HeaderName::from_static(names::PAYMENT_CONTEXT), value);
        }
    }

    fn on_response_head(&mut self, head: &mut response::Parts) {
        self.meter.head(&head.headers);
        // What failed is not charged for, whoever's fault it is.
        self.good = !head.status.is_client_error() && !head.status.is_server_error();
        if let Some(charge) = self.charge.as_ref().filter(|_| self.good) {
            charge.write_head(&mut head.headers, now());
            charge.write_next(&mut head.headers);
            if charge.is_metered() && !charge.is_again() {
                // HTTP/1.1 sends trailers only where they were announced.
                head.headers.append(TRAILER, HeaderValue::from_static(names::PAYMENT_RECEIPT));
            }
        }
    }

    fn on_chunk(&mut self, chunk: &Bytes) -> ControlFlow<()> {
        self.meter.body(chunk);
        ControlFlow::Continue(())
    }

    fn on_trailers(&mut self, trailers: &mut HeaderMap) {
        self.meter.trailers(trailers);
    }

    /// A tunnel has no end that could be held back: it costs its most, before it opens.
    fn on_switch(&mut self) -> Hold {
        self.commit(Used::Most)
    }

    fn on_end(mut self: Box<Self>, ending: Ending, _passed: Passed) -> Hold {
        let Some(charge) = &self.charge else { return Hold::release() };
        let whole = ending == Ending::Complete;
        let left = matches!(ending, Ending::ClientGone | Ending::RequestFailed(_));
        let broken_off = left && charge.on_abort() == OnAbort::Charge;
        if !self.good || !(whole || broken_off) {
            self.metrics.released(ending);
            return Hold::release();
        }
        let mut meter = std::mem::replace(&mut self.meter, Meter::new(&Price::fixed_only(Amount::ZERO), None));
        meter.request_body(self.up_bytes.load(Ordering::Relaxed).saturating_sub(self.added_bytes));
        let metered = meter.finish();
        if let Some(fault) = metered.fault {
            tracing::warn!(route = charge.route(), %fault, "an answer's units are not known");
            self.metrics.count(Outcome::Unreported);
        }
        self.commit(Used::Usage(metered.usage))
    }
}
