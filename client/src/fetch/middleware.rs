//! The middleware for `reqwest`: sends, pays a 402, sends again.
//!
//! A body that is a stream is kept up to [`BUFFER_BYTES`] so that it can be sent again with the payment; a longer one is sent
//! as it comes, once, and a demand for it is an error before anything is paid. (`Expect: 100-continue` would need the
//! server's and the client library's help; neither is there in general.) A paid request that breaks off, or meets a 502, 503
//! or 504, is sent again with the same credential.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, TE, UPGRADE};
use http::{Extensions, HeaderMap, HeaderValue, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use reqwest::{Body, Request, Response};
use reqwest_middleware::{Error, Middleware, Next as Rest, Result};
use weir_protocol::http::{METHOD, header};

use super::demand;
use super::pay::{Attempt, FetchError, Next, Paid, Payer, pause};
use super::tail::{self, Ahead};
use super::wallet::Target;

/// Most bytes of a streamed body that are kept to be sent again.
pub const BUFFER_BYTES: usize = 1 << 20;
/// Most bytes of a 402's body that are read, for the problem that it names.
const PROBLEM_BYTES: usize = 16 * 1024;
/// Longest wait for them.
const PROBLEM_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a paid request is sent again when the answer does not come.
const RETRIES: u32 = 3;
/// How often one logical request may meet a demand: what was kept, then what is left, then what is paid now.
const DEMANDS: u32 = 4;

/// Pays what servers demand, within the payer's budget.
///
/// Give it a client that follows no redirects, such as [`super::client`]'s: otherwise a redirect could carry a credential to
/// another origin. Answers that were paid for carry [`super::Paid`] as an extension. A 402 that asks for something else than
/// a payment of method `weir` is handed on as it is.
#[derive(Debug, Clone)]
pub struct PayMiddleware {
    payer: Payer,
    ahead: Option<reqwest::Client>,
}

impl PayMiddleware {
    /// Pays with a payer.
    pub const fn new(payer: Payer) -> Self {
        Self { payer, ahead: None }
    }

    /// Also pays ahead in the background, when a balance has less left than the next request costs.
    ///
    /// The demand is the one that the last answer offers, as Weir's gate does when a balance runs low. A server that offers
    /// none is asked by `client` without a payment, but only with methods that ask: it can answer any request for nothing,
    /// and what changes something would then be done twice. Those wait for the demand of their next request.
    #[must_use]
    pub fn ahead(self, client: reqwest::Client) -> Self {
        Self { ahead: Some(client), ..self }
    }

    async fn run(&self, mut request: Request, extensions: &mut Extensions, rest: Rest<'_>) -> Result<Response> {
        if !matches!(request.url().scheme(), "http" | "https") {
            return rest.run(request, extensions).await;
        }
        let target = target(&request);
        let key = request.headers().get(header::IDEMPOTENCY_KEY).and_then(|value| value.to_str().ok());
        let mut attempt = self.payer.attempt(target, key.map(str::to_owned));
        let once = !buffer(&mut request).await?;
        request.headers_mut().entry(header::ACCEPT_PAYMENT).or_insert(HeaderValue::from_static(METHOD));
        attempt.begin();
        let mut demands = 0;
        let mut whole = Some(request);
        loop {
            let next = if once { whole.take() } else { whole.as_ref().and_then(Request::try_clone) };
            let Some(mut sent) = next else {
                return Err(Error::middleware(FetchError::BodyOnce { limit: BUFFER_BYTES }));
            };
            prepare(&mut attempt, &mut sent)?;
            let again = if attempt.shows() && !once { RETRIES } else { 0 };
            let mut answer = send(sent, again, extensions, &rest).await?;
            if answer.status() != StatusCode::PAYMENT_REQUIRED {
                let Some(paid) = attempt.answered(answer.status(), answer.headers()).await else { return Ok(answer) };
                let (open, ahead, left) = (attempt.open(&paid), self.next(&attempt, &paid, &answer), paid.left);
                answer.extensions_mut().insert(paid);
                let Some(open) = open else {
                    if let Some(ahead) = ahead {
                        ahead.go(left);
                    }
                    return Ok(answer);
                };
                return Ok(tail::follow(answer, open, ahead));
            }
            let (answer, told) = told(answer).await;
            if once {
                if attempt.passes(answer.headers()).is_some() {
                    return Ok(answer);
                }
                return Err(Error::middleware(FetchError::BodyOnce { limit: BUFFER_BYTES }));
            }
            demands += 1;
            let problem = demand::problem(answer.headers(), &told);
            match attempt.demanded(answer.headers(), problem).await.map_err(Error::middleware)? {
                Next::Show if demands < DEMANDS => {}
                Next::Show | Next::Pass(_) => return Ok(answer),
            }
        }
    }

    fn next(&self, attempt: &Attempt, paid: &Paid, answer: &Response) -> Option<Ahead> {
        let client = self.ahead.clone()?;
        let offered = demands(answer.headers()).then(|| answer.headers().clone());
        let (payer, target, paid) = (self.payer.clone(), attempt.target().clone(), paid.clone());
        Some(Ahead { client, url: answer.url().clone(), payer, target, paid, offered })
    }
}

impl Middleware for PayMiddleware {
    fn handle<'life0, 'life1, 'life2, 'async_trait>(
        &'life0 self,
        request: Request,
        extensions: &'life1 mut Extensions,
        next: Rest<'life2>,
    ) -> Pin<Box<dyn Future<Output = Result<Response>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        'life2: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(self.run(request, extensions, next))
    }
}

/// A request as the wallet knows it. What a `GET` opens, a `HEAD` opens too.
pub fn target(request: &Request) -> Target {
    let url = request.url();
    let method = if *request.method() == http::Method::HEAD { &http::Method::GET } else { request.method() };
    let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    Target { origin: url.origin().ascii_serialization(), method: method.as_str().to_owned(), path }
}

/// Puts the credential in, and the key of the logical request where a second sending could do something twice.
fn prepare(attempt: &mut Attempt, request: &mut Request) -> Result<()> {
    if attempt.shows() && !attempt.target().is_safe() && attempt.key().is_none() {
        attempt.set_key(random_key()?);
    }
    if let Some(key) = attempt.key()
        && let Ok(value) = HeaderValue::from_str(key)
    {
        request.headers_mut().insert(header::IDEMPOTENCY_KEY, value);
    }
    if attempt.shows() {
        let url = request.url().clone();
        take_trailers(request.headers_mut(), &url);
    }
    attempt.credential(request.headers_mut()).map_err(Error::middleware)
}

/// Says that trailers are read: what a metered answer came to stands there (RFC 9110 §10.1.4).
pub(super) fn take_trailers(headers: &mut HeaderMap, url: &reqwest::Url) {
    if headers.contains_key(TE) || headers.contains_key(UPGRADE) {
        return;
    }
    headers.insert(TE, HeaderValue::from_static("trailers"));
    // HTTP/1.1 wants it named as this connection's. `https` may turn out to be HTTP/2, where that header is an error.
    if url.scheme() == "http" {
        headers.append(CONNECTION, HeaderValue::from_static("te"));
    }
}

fn random_key() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::middleware(FetchError::Task(error.to_string())))?;
    Ok(hex::encode(bytes))
}

/// Sends; again, with what it shows, when the connection or a server in between failed.
async fn send(request: Request, again: u32, extensions: &mut Extensions, rest: &Rest<'_>) -> Result<Response> {
    let mut tries = 0;
    let mut request = Some(request);
    loop {
        let last = tries >= again;
        let next = if last { None } else { request.as_ref().and_then(Request::try_clone) };
        let Some(sent) = request.take() else {
            return Err(Error::middleware(FetchError::BodyOnce { limit: BUFFER_BYTES }));
        };
        let answer = rest.clone().run(sent, extensions).await;
        request = next;
        let failed = match &answer {
            Ok(answer) => matches!(answer.status().as_u16(), 502..=504),
            Err(Error::Reqwest(error)) => !error.is_builder() && !error.is_timeout(),
            Err(_) => false,
        };
        if !failed || request.is_none() {
            return answer;
        }
        tokio::time::sleep(pause(tries)).await;
        tries += 1;
    }
}

/// Reads a streamed body up to the bound, so that it can be sent again. False: it is longer, and goes out once.
async fn buffer(request: &mut Request) -> Result<bool> {
    let Some(body) = request.body_mut() else { return Ok(true) };
    if body.as_bytes().is_some() {
        return Ok(true);
    }
    let mut rest = std::mem::take(body);
    let mut kept = BytesMut::new();
    while kept.len() <= BUFFER_BYTES {
        match rest.frame().await {
            None => {
                *body = Body::from(kept.freeze());
                return Ok(true);
            }
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    kept.extend_from_slice(&data);
                }
            }
            Some(Err(error)) => return Err(Error::Reqwest(error)),
        }
    }
    *body = Body::wrap(Prefixed { prefix: Some(kept.freeze()), rest });
    Ok(false)
}

/// The beginning of an answer's body, and the answer as it was.
async fn told(mut answer: Response) -> (Response, Bytes) {
    let mut kept = BytesMut::new();
    let read = async {
        while kept.len() < PROBLEM_BYTES {
            // What it said until it ends or breaks counts.
            let Ok(Some(data)) = answer.chunk().await else { break };
            kept.extend_from_slice(&data);
        }
    };
    if tokio::time::timeout(PROBLEM_TIMEOUT, read).await.is_err() {
        tracing::debug!("a demand's body does not end: its headers say enough");
    }
    let kept = kept.freeze();
    let answer = tail::replace(answer, |rest| Body::wrap(Prefixed { prefix: Some(kept.clone()), rest }));
    (answer, kept)
}

/// A body whose beginning was read already.
#[derive(Debug)]
struct Prefixed {
    prefix: Option<Bytes>,
    rest: Body,
}

impl http_body::Body for Prefixed {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, reqwest::Error>>> {
        if let Some(prefix) = self.prefix.take().filter(|prefix| !prefix.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(prefix))));
        }
        Pin::new(&mut self.rest).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.prefix.as_ref().is_none_or(Bytes::is_empty) && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // What was read already is no part of the rest's hint.
        SizeHint::default()
    }
}

/// Whether an answer's headers demand a payment of method `weir`: for showing a price and paying nothing.
pub fn demands(headers: &HeaderMap) -> bool {
    headers.contains_key(header::PAYMENT_REQUIRED)
        || headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .any(|value| value.to_str().is_ok_and(|text| weir_protocol::http::Challenge::from_header(text).is_ok()))
}
