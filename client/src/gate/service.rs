//! The running gate: each request is judged at the [`Desk`], then forwarded, asked for money, or refused; under `/.weir/` it
//! answers itself. Owns the HTTP around the decision. The decision is the desk's, the bytes are the proxy's.

mod claims;
mod cors;
mod discovery;
mod forward_auth;
mod hooks;
mod metrics;
mod operate;
mod own;
mod start;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, request};
use hyper::body::Incoming;
use weir_protocol::amount::Time;
use weir_protocol::http::Secret;
use weir_protocol::http::problem::PaymentProblem;

pub use forward_auth::{CHECK_PATH, DEMAND_PATH, ENVOY_PREFIX, NGINX_CHECK_PATH};
pub use metrics::{Metrics, Outcome};
pub(in crate::gate) use start::secret as read_secret;
pub use start::{Running, StartError, open_balances, payee, start, start_around, start_with};

use super::config::{Mode, Settings};
use super::desk::{Demand, Desk, Free, Refusal, Verdict, accepts_html};
use super::page::{self, Page};
use super::price::{Asked, LiveTable};
use super::proxy::{GateBody, Handler, NoHooks, Peer, Target, TrustedPeers, Upstream, UpstreamSettings, forward};
use hooks::PaidHooks;

/// What the gate keeps for itself of every site's paths.
pub const OWN_PREFIX: &str = "/.weir/";
/// Most bytes of a body that the gate reads itself.
const MAX_OWN_BODY_BYTES: usize = 16 * 1024;

/// The gate.
#[derive(Debug)]
pub struct Gate {
    desk: Arc<Desk>,
    table: Arc<LiveTable>,
    settings: Settings,
    trusted: TrustedPeers,
    upstreams: Mutex<HashMap<Uri, Upstream>>,
    context: Option<Secret>,
    metrics: Arc<Metrics>,
}

/// Where a request came from, as links and cookies need it.
#[derive(Debug, Clone)]
struct Origin {
    /// `https://host`, without a slash at the end.
    origin: String,
}

impl Origin {
    fn of(head: &request::Parts, peer: &Peer) -> Self {
        let said = |name: &'static str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let forwarded = said("x-forwarded-proto").filter(|_| peer.is_trusted());
        let scheme = if peer.is_secure() || forwarded == Some("https") { "https" } else { "http" };
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = said("x-forwarded-host").filter(|_| peer.is_trusted()).or(host).unwrap_or("localhost");
        Self { origin: format!("{scheme}://{host}") }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }
}

impl Handler for Gate {
    async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<GateBody> {
        let cors = cors::Cors::of(request.headers(), &self.settings.cors);
        let mut response = self.answer(request, &peer, cors.as_ref()).await;
        if let Some(cors) = cors {
            cors.write(response.headers_mut());
        }
        response
    }
}

impl Gate {
    /// What the desk decides with.
    pub const fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    /// The prices in force.
    pub const fn table(&self) -> &Arc<LiveTable> {
        &self.table
    }

    /// What happened.
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The configuration, without prices.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    async fn answer(&self, request: Request<Incoming>, peer: &Peer, cors: Option<&cors::Cors>) -> Response<GateBody> {
        let path = request.uri().path();
        if path.starts_with(OWN_PREFIX) {
            return self.own(request, peer).await;
        }
        if request.method() == Method::GET || request.method() == Method::HEAD {
            match path {
                discovery::WELL_KNOWN => return discovery::well_known(self, &origin_of(&request, peer)),
                discovery::OPENAPI => return discovery::openapi(self, &origin_of(&request, peer)),
                _ => {}
            }
        }
        if self.settings.mode == Mode::ForwardAuth {
            let detail = "this gate answers for a web server: ask it under `/.weir/`".to_owned();
            return refused(StatusCode::NOT_FOUND, "not-a-proxy", detail);
        }
        if let Some(cors) = cors.filter(|_| cors::is_preflight(&request)) {
            return cors.preflight();
        }
        self.serve(request, peer).await
    }

    /// Judges a request and forwards it.
    async fn serve(&self, request: Request<Incoming>, peer: &Peer) -> Response<GateBody> {
        let table = self.table.table();
        let (mut head, body) = request.into_parts();
        let verdict = {
            let asked = self.asked(&head, peer);
            self.desk.judge(&table, &asked, crate::connection::now()).await
        };
        match verdict {
            Verdict::Free(free) => {
                let other = table.route(&self.asked(&head, peer)).and_then(|route| route.upstream.clone());
                drop(table);
                self.metrics.count(match free {
                    Free::Table(_) => Outcome::Free,
                    Free::Quota => Outcome::Quota,
                });
                match self.upstream(other) {
                    Ok(upstream) => forward(Request::from_parts(head, body), &upstream, peer, Box::new(NoHooks)).await,
                    Err(response) => *response,
                }
            }
            Verdict::Serve(charge) => {
                drop(table);
                let upstream = match self.upstream(charge.upstream().cloned()) {
                    Ok(upstream) => upstream,
                    Err(response) => return *response,
                };
                let must_ask = usage::must_ask(&charge, &head);
                let mut hooks = Box::new(PaidHooks::new(*charge, Arc::clone(&self.metrics), self.context.clone()));
                if !must_ask {
                    return forward(Request::from_parts(head, body), &upstream, peer, hooks).await;
                }
                let idle = Duration::from_millis(self.settings.timeouts.idle_ms);
                match usage::asking(&mut head, body, idle).await {
                    Ok(asking) => {
                        hooks.added(asking.added_bytes);
                        forward(Request::from_parts(head, asking.body), &upstream, peer, hooks).await
                    }
                    Err(refusal) => {
                        self.metrics.count(Outcome::Refused);
                        say(&refusal)
                    }
                }
            }
            Verdict::Demand(demand) => {
                self.metrics.demanded(demand.problem);
                self.demand(
                    &demand,
                    &Origin::of(&head, peer),
                    head.uri.path_and_query().map_or("/", |path| path.as_str()),
                )
            }
            Verdict::Refuse(refusal) => {
                self.metrics.count(Outcome::Refused);
                say(&refusal)
            }
        }
    }

    /// The head of a request, for the table.
    fn asked<'r>(&self, head: &'r request::Parts, peer: &Peer) -> Asked<'r> {
        let host = head.uri.authority().map(http::uri::Authority::as_str);
        let host = host.or_else(|| head.headers.get(HOST).and_then(|host| host.to_str().ok())).unwrap_or_default();
        Asked {
            method: &head.method,
            host,
            path_and_query: head.uri.path_and_query().map_or("/", |path| path.as_str()),
            headers: &head.headers,
            peer: Some(peer.client_address(&head.headers, &self.trusted)),
            crawler: None,
        }
    }

    /// The upstream of a route, or the gate's own. Each is made once.
    fn upstream(&self, other: Option<Uri>) -> Result<Upstream, Box<Response<GateBody>>> {
        let Some(uri) = other.or_else(|| self.settings.upstream.clone()) else {
            let detail = "no upstream is configured".to_owned();
            return Err(Box::new(refused(StatusCode::BAD_GATEWAY, "no-upstream", detail)));
        };
        let mut upstreams = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upstream) = upstreams.get(&uri) {
            return Ok(upstream.clone());
        }
        match make_upstream(&uri, &self.settings) {
            Ok(upstream) => {
                upstreams.insert(uri, upstream.clone());
                Ok(upstream)
            }
            Err(error) => {
                tracing::error!(%uri, %error, "an upstream cannot be used");
                let detail = "an upstream cannot be used; the gate's log says why".to_owned();
                Err(Box::new(refused(StatusCode::BAD_GATEWAY, "bad-upstream", detail)))
            }
        }
    }

    /// The 402: machine headers always, and a page for people who ask for one.
    fn demand(&self, demand: &Demand, origin: &Origin, path: &str) -> Response<GateBody> {
        let mut claim = origin.url(path);
        let mut page_of = None;
        if let Some(code) = &demand.code {
            let address = format!("{}claim/{}?c={code}", OWN_PREFIX, demand.challenge.id);
            claim = origin.url(&address);
            if let Some(browser) = &demand.browser {
                let key = self.desk.site().claim_key(&demand.challenge.id, browser);
                page_of = Some((browser, format!("{address}&k={key}")));
            }
        }
        if let Some((_, poll)) = page_of.as_ref().filter(|_| demand.is_claimed) {
            // It is paid: there the browser gets its cookie, and comes back.
            return claims::see_other(poll);
        }
        let price = format!("{} {}", demand.amount, demand.currency);
        let page = Page {
            title: demand.title.as_deref().unwrap_or(path),
            realm: &self.settings.realm,
            price: &price,
            access: &demand.access(),
            claim: &claim,
            poll: page_of.as_ref().map_or("", |(_, poll)| poll),
            notice: notice(demand),
        };
        let mut response =
            demand.response(self.settings.accept, &origin.url(path), &page.command()).map(GateBody::full);
        if let Some((browser, _)) = page_of {
            *response.body_mut() = GateBody::full(page.html());
            let to = response.headers_mut();
            to.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            protect(to);
            claims::set_browser(to, &self.settings.cookie, browser);
        }
        response
    }
}

/// Why a payment did not do, for people.
const fn notice(demand: &Demand) -> Option<&'static str> {
    match demand.problem {
        PaymentProblem::PaymentRequired => None,
        PaymentProblem::PaymentExpired => Some("What you paid for here is over."),
        PaymentProblem::PaymentInsufficient => Some("What is left of your payment is not enough."),
        PaymentProblem::VerificationFailed | PaymentProblem::MalformedCredential | PaymentProblem::InvalidChallenge => {
            Some("The payment that you showed does not count here.")
        }
    }
}

fn make_upstream(uri: &Uri, settings: &Settings) -> Result<Upstream, StartError> {
    let target: Target = uri.to_string().parse().map_err(StartError::Target)?;
    let timeouts = settings.timeouts;
    Upstream::new(UpstreamSettings {
        connect_timeout: Duration::from_millis(timeouts.connect_ms),
        first_byte_timeout: Duration::from_millis(timeouts.first_byte_ms),
        idle_timeout: Duration::from_millis(timeouts.idle_ms),
        request_idle_timeout: Duration::from_millis(timeouts.idle_ms),
        gate_cookies: vec![settings.cookie.clone(), format!("{}-claim", settings.cookie)],
        ..UpstreamSettings::new(target)
    })
    .map_err(StartError::Tls)
}

fn origin_of(request: &Request<Incoming>, peer: &Peer) -> Origin {
    let mut empty = Request::new(());
    empty.headers_mut().clone_from(request.headers());
    Origin::of(&empty.into_parts().0, peer)
}

fn refused(status: StatusCode, code: &'static str, detail: String) -> Response<GateBody> {
    say(&Refusal { status, code, detail, retry_after_seconds: None })
}

fn say(refusal: &Refusal) -> Response<GateBody> {
    refusal.response().map(GateBody::full)
}

/// Headers of the gate's own pages.
fn protect(headers: &mut HeaderMap) {
    let policy = HeaderValue::try_from(page::content_security_policy());
    if let Ok(policy) = policy {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
}

fn set_cookie(headers: &mut HeaderMap, text: &str) {
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.append(SET_COOKIE, value);
    }
}

fn json_response(status: StatusCode, body: &impl serde::Serialize) -> Response<GateBody> {
    let mut response = Response::new(GateBody::full(serde_json::to_vec(body).unwrap_or_default()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn now() -> Time {
    crate::connection::now()
}
