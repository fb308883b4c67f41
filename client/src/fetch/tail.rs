//! The end of a metered answer: its head said the most that it can cost, and its trailers say what it came to.
//!
//! What was not drawn is counted on again before the reader of the body sees the end, so that the next request finds it. A
//! server's word only frees what its own head had taken, never more than was there before, and nothing is ever paid here but
//! what [`Ahead`] pays within the budget.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Frame, SizeHint};
use reqwest::{Body, Response, ResponseBuilderExt as _, Url};
use tokio::task::JoinHandle;
use weir_protocol::amount::Amount;
use weir_protocol::http::x402::PaymentResponse;
use weir_protocol::http::{METHOD, PaymentReceipt, header};

use super::pay::{Paid, Payer};
use super::wallet::Target;

/// A metered answer that runs.
#[derive(Debug)]
pub(super) struct Open {
    payer: Payer,
    paid: Paid,
}

impl Open {
    pub(super) const fn new(payer: Payer, paid: Paid) -> Self {
        Self { payer, paid }
    }

    /// The answer has ended, with these trailers: keeps what they say, and what is left by that.
    pub(super) async fn ended(self, trailers: &HeaderMap) -> Amount {
        let Self { payer, paid } = self;
        let (receipt, response) = receipts(trailers);
        let (drawn, stated) = match (receipt.filter(|receipt| !receipt.metered), response) {
            (Some(receipt), _) => (Some(receipt.drawn), receipt.left),
            (None, Some(response)) => (drawn(&response), Amount::MAX),
            (None, None) => (None, Amount::MAX),
        };
        let (Some(most), Some(drawn)) = (paid.drawn, drawn) else { return paid.left };
        // At most what the head took: no word of a server makes more of it.
        let unused = most.checked_sub(drawn).unwrap_or_default().min(paid.taken);
        let (store, reference) = (payer.store().clone(), paid.reference);
        let kept = tokio::task::spawn_blocking(move || store.returned(reference, unused, stated)).await;
        let left = match kept {
            Ok(Ok(Some(left))) => left,
            Ok(Err(error)) => {
                tracing::warn!(%error, "what is left of a payment could not be kept");
                return paid.left;
            }
            // Forgotten meanwhile, or the program ends.
            Ok(Ok(None)) | Err(_) => return paid.left,
        };
        // Said once: an answer has one end.
        let _ = paid.end.set((drawn, left));
        left
    }
}

/// What an answer's headers or trailers say of its payment, in both dialects.
pub(super) fn receipts(headers: &HeaderMap) -> (Option<PaymentReceipt>, Option<PaymentResponse>) {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let receipt = text(header::PAYMENT_RECEIPT).and_then(PaymentReceipt::from_header);
    let response = text(header::PAYMENT_RESPONSE).and_then(PaymentResponse::from_header);
    (receipt, response.filter(|response| response.success))
}

/// What a dialect's answer says was drawn.
pub(super) fn drawn(response: &PaymentResponse) -> Option<Amount> {
    response.amount.as_ref().and_then(|nanos| nanos.parse().ok()).map(Amount::from_nanos)
}

/// Pays ahead in the background, when a balance has less left than the next request costs.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) client: reqwest::Client,
    pub(super) url: Url,
    pub(super) payer: Payer,
    pub(super) target: Target,
    /// What the last answer was paid with: only the same seller is paid ahead.
    pub(super) paid: Paid,
    /// The answer's headers, when they offer the next demand: then nothing needs to be asked.
    pub(super) offered: Option<HeaderMap>,
}

impl Ahead {
    /// So much is left.
    pub(super) fn go(self, left: Amount) {
        if !self.payer.runs_low(&self.target, left) {
            return;
        }
        // Another sending of what changes something could do it twice, should it have become free: its demand is taken only
        // where it is offered.
        if self.offered.is_none() && !self.target.is_safe() {
            return;
        }
        tokio::spawn(async move {
            let headers = if let Some(headers) = self.offered {
                headers
            } else {
                let method = self.target.method.parse().unwrap_or(http::Method::GET);
                let asked = self.client.request(method, self.url).header(header::ACCEPT_PAYMENT, METHOD).send();
                let Ok(answer) = asked.await else { return };
                if answer.status() != StatusCode::PAYMENT_REQUIRED {
                    return;
                }
                answer.headers().clone()
            };
            if let Err(error) = self.payer.attempt(self.target, None).top_up(&headers, &self.paid).await {
                tracing::info!(%error, "nothing was paid ahead");
            }
        });
    }
}

/// The same answer, which tells at its end what it came to.
pub(super) fn follow(answer: Response, open: Open, ahead: Option<Ahead>) -> Response {
    replace(answer, |rest| Body::wrap(Metered { rest, stage: Stage::Flows(Box::new((open, ahead))) }))
}

/// The same answer with another body. Its address stays.
pub(super) fn replace(answer: Response, body: impl FnOnce(Body) -> Body) -> Response {
    let url = answer.url().clone();
    let (mut parts, rest) = http::Response::<Body>::from(answer).into_parts();
    // Where the library keeps the address is its own; a builder puts it in.
    if let Ok(named) = http::Response::builder().url(url).body(()) {
        parts.extensions.extend(named.into_parts().0.extensions);
    }
    Response::from(http::Response::from_parts(parts, body(rest)))
}

/// A metered answer's body.
#[derive(Debug)]
struct Metered {
    rest: Body,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Flows(Box<(Open, Option<Ahead>)>),
    /// What the trailers say is being kept.
    Settles(HeaderMap, JoinHandle<()>),
    Over,
}

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        let me = &mut *self;
        loop {
            match &mut me.stage {
                Stage::Flows(_) => {
                    let frame = ready!(Pin::new(&mut me.rest).poll_frame(context));
                    let trailers = match frame {
                        Some(Ok(frame)) => match frame.into_trailers() {
                            Ok(trailers) => trailers,
                            Err(frame) => return Poll::Ready(Some(Ok(frame))),
                        },
                        // Without trailers the head's word stands.
                        None => HeaderMap::new(),
                        Some(Err(error)) => {
                            me.stage = Stage::Over;
                            return Poll::Ready(Some(Err(error)));
                        }
                    };
                    let Stage::Flows(open) = std::mem::replace(&mut me.stage, Stage::Over) else { continue };
                    let (open, ahead) = *open;
                    let said = trailers.clone();
                    let settling = tokio::spawn(async move {
                        let left = open.ended(&said).await;
                        if let Some(ahead) = ahead {
                            ahead.go(left);
                        }
                    });
                    me.stage = Stage::Settles(trailers, settling);
                }
                Stage::Settles(trailers, settling) => {
                    if ready!(Pin::new(settling).poll(context)).is_err() {
                        tracing::debug!("what an answer came to was not kept");
                    }
                    let trailers = std::mem::take(trailers);
                    me.stage = Stage::Over;
                    return Poll::Ready((!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))));
                }
                Stage::Over => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // The end is told only by reading it.
        matches!(self.stage, Stage::Over)
    }

    fn size_hint(&self) -> SizeHint {
        self.rest.size_hint()
    }
}
