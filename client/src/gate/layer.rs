//! Being paid in process: a [`tower_layer::Layer`] around any HTTP service, and an extractor for axum's handlers.
//!
//! It does what the gate does in front of a web server: asks for money in all dialects, takes what is shown, holds the end
//! of the answer until the draw is durable, and charges nothing for what failed. The prices are the program's own function.
//! [`desk`](super::desk) decides here too.
//!
//! ```no_run
//! # fn tour() -> Result<(), Box<dyn std::error::Error>> {
//! use weir_client::gate::layer::{PriceTag, WeirLayer};
//!
//! let price = "0.05".parse()?;
//! let layer = WeirLayer::builder("weir1…".parse()?, "weirhub1…".parse()?, "news.example")
//!     .build("state", move |head| head.uri.path().starts_with("/articles/").then(|| PriceTag::fixed(price)))?;
//! # let _ = layer; Ok(()) }
//! ```
//!
//! | the answer | is charged |
//! |---|---|
//! | whole, status below 400 | the fixed price, or what [`Charge::set_units`] said, before its last byte goes out |
//! | status of 400 or more, the handler panicked or was dropped, its body failed, the client went away | nothing; with [`PriceTag::charge_on_abort`], what was said until the client went away |
//! | any, after [`Charge::commit`] | what was committed, and no more |
//! | a switch of protocols (101) | the most, at the switch, unless it was committed before |
//!
//! What a metered answer came to stands in `Payment-Receipt`: of the head, where the length is known and at most
//! [`MAX_WHOLE_BYTES`]; else of the trailers, which HTTP/1.1 has only for clients that say `TE: trailers`, and the head says
//! the most.
//!
//! What the handler sees of a request has no payment headers; who paid is in the [`Charge`]. A person's browser gets what
//! programs get: the page with the QR code is the gate's. Scripts of other origins read the payment headers only if the
//! program's own CORS layer, outside of this one, exposes them.

mod body;
mod builder;
mod charge;
mod extract;
mod tag;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TRAILER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, request, response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;
use weir_protocol::http::header as names;

pub use body::LayerBody;
pub use builder::{LayerBuilder, LayerError};
pub use charge::{Charge, ChargeError, Payment};
pub use extract::{MissingLayer, Paid};
pub use tag::PriceTag;

use super::desk::{Demand, Desk, Offer, Refusal, Used, Verdict, keep_private};
use super::price::{is_preflight, path};
use super::proxy::{BoxError, MAX_TARGET_BYTES, strip_payment_headers, wants_trailers};
use crate::connection::now;
use body::Relayed;
use charge::Guard;

/// A metered answer of a known length up to this is read whole before its head goes out.
pub const MAX_WHOLE_BYTES: u64 = 64 * 1024;

type PriceOf = Box<dyn Fn(&request::Parts) -> Option<PriceTag> + Send + Sync>;

/// The layer. Clones are handles to the same one: one store, one secret.
#[derive(Clone)]
pub struct WeirLayer(Arc<Inner>);

struct Inner {
    desk: Desk,
    price: PriceOf,
    /// `https://host`, as links name the service; none: by the request's host.
    origin: Option<String>,
}

impl fmt::Debug for WeirLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeirLayer").field("realm", &self.0.desk.site().realm).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for WeirLayer {
    type Service = WeirService<S>;

    fn layer(&self, inner: S) -> WeirService<S> {
        WeirService { inner, layer: self.clone() }
    }
}

/// A service behind the layer.
#[derive(Debug, Clone)]
pub struct WeirService<S> {
    inner: S,
    layer: WeirLayer,
}

impl<S, B, RB> Service<Request<B>> for WeirService<S>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    RB: Body<Data = Bytes> + Send + 'static,
    RB::Error: Into<BoxError>,
{
    type Response = Response<LayerBody<RB>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that said it is ready is the one that is called.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        Box::pin(async move { layer.serve(request, inner).await })
    }
}

/// What of the request is needed when the answer comes.
struct Asked {
    is_head: bool,
    /// HTTP/1.1, and the client takes trailers: they go out only behind a body without a declared length.
    chunked_trailers: bool,
}

impl WeirLayer {
    /// A layer that is paid to this account, at this hub. `realm` is the name under which receipts count, such as the
    /// site's host name: up to 128 printable characters.
    pub fn builder(
        payee: weir_protocol::id::AccountId,
        hub: weir_protocol::id::HubId,
        realm: impl Into<String>,
    ) -> LayerBuilder {
        LayerBuilder::new(payee, hub, realm.into())
    }

    /// What decides, with the balances.
    pub fn desk(&self) -> &Desk {
        &self.0.desk
    }

    async fn serve<S, B, RB>(&self, request: Request<B>, mut service: S) -> Result<Response<LayerBody<RB>>, S::Error>
    where
        S: Service<Request<B>, Response = Response<RB>>,
        RB: Body<Data = Bytes> + Send + 'static,
        RB::Error: Into<BoxError>,
    {
        let (mut head, body) = request.into_parts();
        let charge = match self.offer(&head) {
            Err(refusal) => return Ok(say(&refusal)),
            Ok(None) => Charge::free(),
            Ok(Some(offer)) => match self.0.desk.judge_offer(&offer, &head.headers, now()).await {
                Verdict::Free(_) => Charge::free(),
                Verdict::Serve(charge) => Charge::paid(charge),
                Verdict::Demand(demand) => return Ok(self.demand(&demand, &head)),
                Verdict::Refuse(refusal) => return Ok(say(&refusal)),
            },
        };
        let asked = Asked {
            is_head: head.method == Method::HEAD,
            chunked_trailers: head.version == Version::HTTP_11 && wants_trailers(&head.headers),
        };
        strip_payment_headers(&mut head.headers, &[]);
        head.extensions.insert(charge.clone());
        // Whatever drops it, a panic of the handler or a client that leaves, releases what is held.
        let guard = Guard::new(charge);
        let response = service.call(Request::from_parts(head, body)).await?;
        Ok(finish(response, guard, &asked).await)
    }

    /// What a request is offered for; none: it is free.
    fn offer(&self, head: &request::Parts) -> Result<Option<Offer>, Refusal> {
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        if target.len() > MAX_TARGET_BYTES {
            return Err(refusal(StatusCode::URI_TOO_LONG, "target-too-long", "the address is too long"));
        }
        // Browsers send it without credentials: it could never be paid.
        if is_preflight(&head.method, &head.headers) {
            return Ok(None);
        }
        let Some(tag) = (self.0.price)(head) else { return Ok(None) };
        let price = tag.price.map_err(|error| {
            tracing::error!(%error, target, "a price cannot be charged");
            let detail = "the price of this cannot be charged; the service's log says why";
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "bad-price", detail)
        })?;
        if price.most().is_zero() {
            return Ok(None);
        }
        Ok(Some(Offer {
            method: if head.method == Method::HEAD { Method::GET } else { head.method.clone() },
            // As it was sent: what another spelling of it names is the service's own affair.
            name: format!("{}{}", path::host(host(head)), tag.resource.as_deref().unwrap_or(target)),
            route: tag.route.unwrap_or_else(|| Arc::from(head.uri.path())),
            price,
            metering: None,
            on_abort: tag.on_abort,
            access_ms: tag.access_ms,
            title: tag.title,
            mime: tag.mime,
            page: false,
            upstream: None,
        }))
    }

    fn demand<RB>(&self, demand: &Demand, head: &request::Parts) -> Response<LayerBody<RB>> {
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let scheme = head.uri.scheme_str().unwrap_or("http");
        let origin = self.0.origin.clone().unwrap_or_else(|| format!("{scheme}://{}", host(head)));
        let url = format!("{origin}{target}");
        // An address holds no quotation mark that ends one in a shell.
        let command = format!("weir fetch '{}'", url.replace('\'', "%27"));
        demand.response(self.0.desk.options().accept, &url, &command).map(LayerBody::full)
    }
}

fn host(head: &request::Parts) -> &str {
    let named = head.uri.authority().map(http::uri::Authority::as_str);
    named.or_else(|| head.headers.get(HOST).and_then(|host| host.to_str().ok())).unwrap_or("localhost")
}

fn refusal(status: StatusCode, code: &'static str, detail: &str) -> Refusal {
    Refusal { status, code, detail: detail.to_owned(), retry_after_seconds: None }
}

fn say<RB>(refusal: &Refusal) -> Response<LayerBody<RB>> {
    refusal.response().map(LayerBody::full)
}

/// The handler has answered: charges before the end goes out, or not at all.
async fn finish<RB>(response: Response<RB>, mut guard: Guard, asked: &Asked) -> Response<LayerBody<RB>>
where
    RB: Body<Data = Bytes> + Send + 'static,
    RB::Error: Into<BoxError>,
{
    let (mut head, body) = response.into_parts();
    if !guard.is_paid() {
        return Response::from_parts(head, LayerBody::plain(body));
    }
    if head.status.is_client_error() || head.status.is_server_error() {
        // What failed is not charged for, whoever's fault it is.
        drop(guard);
        return Response::from_parts(head, LayerBody::plain(body));
    }
    let no_body = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED, StatusCode::RESET_CONTENT];
    let is_switch = head.status == StatusCode::SWITCHING_PROTOCOLS;
    if is_switch || asked.is_head || no_body.contains(&head.status) || body.is_end_stream() {
        let used = is_switch.then_some(Used::Most);
        return match guard.settle(used).await {
            Ok(settled) => {
                head.headers.extend(settled.receipt());
                keep_private(&mut head.headers);
                Response::from_parts(head, LayerBody::plain(body))
            }
            Err(error) => withheld(&error),
        };
    }
    let open = match guard.write_head(&mut head.headers).await {
        Ok(open) => open,
        Err(error) => return withheld(&error),
    };
    keep_private(&mut head.headers);
    let length = length(&head, &body);
    if let Some(length) = length.filter(|length| open && *length <= MAX_WHOLE_BYTES) {
        return answer_whole(head, body, length, &guard).await;
    }
    guard.answers(open);
    let hidden = open && asked.chunked_trailers && length.is_some();
    if open {
        // HTTP/1.1 sends trailers only where they were announced.
        head.headers.append(TRAILER, HeaderValue::from_static(names::PAYMENT_RECEIPT));
    }
    if hidden {
        head.headers.remove(CONTENT_LENGTH);
    }
    Response::from_parts(head, LayerBody::relayed(Relayed::new(body, guard, length, hidden)))
}

/// A small metered answer: its head waits for its end, so that it says what it comes to, to every client.
async fn answer_whole<RB>(mut head: response::Parts, body: RB, length: u64, guard: &Guard) -> Response<LayerBody<RB>>
where
    RB: Body<Data = Bytes> + Send + 'static,
    RB::Error: Into<BoxError>,
{
    let whole = match body::read(body, length).await {
        Ok(whole) => whole,
        Err(error) => {
            tracing::error!(%error, "an answer's body broke off");
            let detail = "the answer broke off; nothing is charged for it";
            return say(&refusal(StatusCode::INTERNAL_SERVER_ERROR, "answer-broke", detail));
        }
    };
    match guard.settle(None).await {
        Ok(settled) => {
            head.headers.extend(settled.receipt());
            Response::from_parts(head, LayerBody::whole(whole))
        }
        Err(error) => withheld(&error),
    }
}

/// The length that the client is told.
fn length(head: &response::Parts, body: &impl Body) -> Option<u64> {
    let said = |headers: &HeaderMap| headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    body.size_hint().exact().or_else(|| said(&head.headers))
}

/// The draw is not durable: the answer does not go out.
fn withheld<RB>(error: &ChargeError) -> Response<LayerBody<RB>> {
    tracing::error!(%error, "a draw is not durable: the answer is withheld");
    let detail = "the service cannot account for payments now; what was paid stays".to_owned();
    let refusal = Refusal {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "store-closed",
        detail,
        retry_after_seconds: Some(30),
    };
    say(&refusal)
}
