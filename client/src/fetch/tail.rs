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
use weir_protocol::http::{METHOD, header};

use super::pay::{Open, Paid, Payer};
use super::wallet::Target;

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
            let headers = match self.offered {
                Some(headers) => headers,
                None => {
                    let method = self.target.method.parse().unwrap_or(http::Method::GET);
                    let asked = self.client.request(method, self.url).header(header::ACCEPT_PAYMENT, METHOD).send();
                    let Ok(answer) = asked.await else { return };
                    if answer.status() != StatusCode::PAYMENT_REQUIRED {
                        return;
                    }
                    answer.headers().clone()
                }
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
