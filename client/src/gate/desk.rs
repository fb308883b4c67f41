//! The gate's decision about one request: serve it, for what, or ask for money.
//!
//! Reads the request's head, the price table and the balances; knows no connections. The proxy, forward-auth and the layer for
//! services all ask here, so that there is one answer.

mod charge;
mod claims;
mod demand;
mod proofs;
mod shown;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, Method, StatusCode};
use weir_protocol::amount::{Amount, Time};
use weir_protocol::hash::sha256;
use weir_protocol::http::challenge::NONCE_BYTES;
use weir_protocol::http::credential::CredentialError;
use weir_protocol::http::problem::PaymentProblem;
use weir_protocol::http::{Challenge, Credential, Proven, Resource, base64url};
use weir_protocol::id::{PaymentId, Reference};

pub use charge::{Charge, Settled, Used, keep_private};
pub use claims::{BROWSER_MS, ClaimError};
pub use demand::{Demand, Refusal, span};
pub use shown::{BROWSER_CHARS, BadKey, Dialect, MAX_COOKIES, MAX_KEY_BYTES, Reads, Shown, accepts_html, browser};

use super::balance::{self, Balances, Credit, DrawKey, Payment, ReserveError, Reserved, ShowError};
use super::config::Accept;
use super::ops::issued::Issued;
use super::price::{Asked, DeniedWhy, FreeWhy, Metering, OnAbort, People, Price, PriceTable, Priced, Quotas, Quote};
use super::site::{Ask, Site};
use crate::RefundPlace;
use charge::{Face, Taken};
use claims::{Claim, claimed};
use proofs::{Known, Proofs};

/// How often a request with an unsafe method is served again for one payment, after it was charged.
///
/// Enough for every retry that a client makes by itself; few enough that one payment does not buy an action many times.
pub const MAX_REPEATS: u32 = 5;
/// Most requests whose repeats are counted; beyond it the oldest generation is forgotten.
const MAX_COUNTED: usize = 64 * 1024;

/// How the desk decides.
#[derive(Debug, Clone)]
pub struct DeskOptions {
    /// The dialects that are spoken.
    pub accept: Accept,
    /// The cookie's name.
    pub cookie: String,
    /// For so long the same request is served again for its payment, at least, in milliseconds.
    pub grace_ms: u64,
    /// Whether `X-Original-Id` names a request: set by a web server, which may ask several times about one.
    pub named_requests: bool,
    /// Visitors whose free requests are remembered.
    pub quota_visitors: usize,
}

/// Who is paid, what things cost, and what was paid.
#[derive(Debug)]
pub struct Desk {
    site: Site,
    balances: Balances,
    quotas: Mutex<Quotas>,
    proofs: Proofs,
    counted: Mutex<Counted>,
    claims: Mutex<HashMap<Reference, Claim>>,
    issued: Option<Arc<Issued>>,
    options: DeskOptions,
}

/// How often a request was served again: two generations, of which the older is forgotten when the younger is full.
#[derive(Debug, Default)]
struct Counted {
    young: Repeats,
    old: Repeats,
}

type Repeats = HashMap<(PaymentId, DrawKey), u32>;

impl Counted {
    /// Counts one more; how many there were before.
    fn repeat(&mut self, name: (PaymentId, DrawKey)) -> u32 {
        if self.young.len() >= MAX_COUNTED {
            self.old = std::mem::take(&mut self.young);
        }
        let before = self.young.get(&name).or_else(|| self.old.get(&name)).copied().unwrap_or(0);
        self.young.insert(name, before.saturating_add(1));
        before
    }
}

/// What is done with a request.
#[derive(Debug)]
pub enum Verdict {
    /// It costs nothing.
    Free(Free),
    /// It is paid for.
    Serve(Box<Charge>),
    /// It must be paid for.
    Demand(Box<Demand>),
    /// It is not served.
    Refuse(Refusal),
}

/// Why a request costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Free {
    /// The table says so.
    Table(FreeWhy),
    /// It is one of a visitor's free requests.
    Quota,
}

/// What was shown, proven.
#[derive(Debug, Clone)]
struct Paid {
    payment_id: PaymentId,
    /// What it opens, where it is used once; none: it is a balance, or a token that says nothing of it.
    single: Option<Resource>,
    /// What its challenge asked for, for what, and when it was paid.
    asked: Option<(Amount, Resource, Time)>,
    challenge_id: Option<String>,
    dialect: Dialect,
    key: Option<String>,
}

/// What tells one request from another.
#[derive(Debug, Clone, Copy)]
struct Keys<'a> {
    /// The caller's key.
    said: Option<&'a str>,
    /// The web server's name of the request, which may ask about it more than once.
    request_id: Option<&'a str>,
}

/// What a demand is made from, beside the offer.
struct Wanting {
    short: Option<Short>,
    dialect: Option<Dialect>,
    crawler_short: bool,
    /// The random cookie of the browser that gets a page.
    browser: Option<String>,
}

/// Why what was shown does not do.
struct Short {
    problem: PaymentProblem,
    detail: String,
    payment_id: Option<PaymentId>,
}

/// What a request is offered for.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The request's method; `GET` for `HEAD`.
    pub method: Method,
    /// What is bought, in one spelling: host, path and query.
    pub name: String,
    /// The route's name, for metrics and the upstream.
    pub route: Arc<str>,
    /// What it costs.
    pub price: Price,
    /// How its use is read.
    pub metering: Option<Metering>,
    /// What becomes of the charge when the client goes away in the middle of the answer.
    pub on_abort: OnAbort,
    /// For so long the same receipt opens it again.
    pub access_ms: Option<u64>,
    /// What it is called.
    pub title: Option<String>,
    /// Its media type.
    pub mime: Option<String>,
    /// Whether people get a page.
    pub page: bool,
    /// Another upstream than the gate's.
    pub upstream: Option<http::Uri>,
}

impl Offer {
    /// What the table says. What `HEAD` tells is what `GET` tells: one payment opens both.
    pub fn of(method: &Method, priced: &Priced<'_>) -> Self {
        Self {
            method: if *method == Method::HEAD { Method::GET } else { method.clone() },
            name: priced.resource.clone(),
            route: Arc::clone(&priced.route.id),
            price: priced.price.clone(),
            metering: priced.route.metering.clone(),
            on_abort: priced.route.on_abort,
            access_ms: priced.route.access_ms,
            title: priced.route.title.clone().or_else(|| priced.route.description.clone()),
            mime: priced.route.mime.clone(),
            page: priced.route.people == People::Page && !priced.crawler,
            upstream: priced.route.upstream.clone(),
        }
    }

    /// What a challenge names it.
    pub fn resource(&self) -> Resource {
        Resource::of(self.method.as_str(), &self.name)
    }
}

impl Desk {
    /// A desk over an opened store. Payments that were claimed and not yet read are found again in it.
    pub fn new(site: Site, balances: Balances, options: DeskOptions) -> Self {
        let quotas = Mutex::new(Quotas::new(options.quota_visitors));
        let claims = Mutex::new(claimed(&balances));
        let (proofs, counted) = (Proofs::default(), Mutex::default());
        Self { site, balances, quotas, proofs, counted, claims, issued: None, options }
    }

    /// The same, remembering the demands that it makes: so the payee's credits are told from those of others.
    #[must_use]
    pub fn remembering(self, issued: Arc<Issued>) -> Self {
        Self { issued: Some(issued), ..self }
    }

    /// Who is paid.
    pub const fn site(&self) -> &Site {
        &self.site
    }

    /// What was paid.
    pub const fn balances(&self) -> &Balances {
        &self.balances
    }

    /// How it decides.
    pub const fn options(&self) -> &DeskOptions {
        &self.options
    }

    /// Decides. Waits only where the same request is under way already.
    pub async fn judge(&self, table: &PriceTable, asked: &Asked<'_>, now: Time) -> Verdict {
        let priced = match table.quote(asked) {
            Quote::Free(why) => return Verdict::Free(Free::Table(why)),
            Quote::Denied(why) => return Verdict::Refuse(denied(why)),
            Quote::Malformed(why) => {
                return Verdict::Refuse(refusal(StatusCode::BAD_REQUEST, "malformed", why.to_string()));
            }
            Quote::Priced(priced) => priced,
        };
        let shown = match self.shown(asked.headers) {
            Ok(shown) => shown,
            Err(refusal) => return Verdict::Refuse(refusal),
        };
        if shown.credential.is_none() && shown.cookies.is_empty() {
            // Free requests are counted for those who show nothing: who pays is served for his payment.
            if let (Some(quota), Some(visitor)) = (&priced.route.quota, priced.visitor) {
                let mut quotas = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
                if quotas.take(&priced.route.id, visitor, quota, now) {
                    return Verdict::Free(Free::Quota);
                }
            }
        }
        self.judge_shown(&Offer::of(asked.method, &priced), shown, now).await
    }

    /// The same for a request whose offer is known.
    pub async fn judge_offer(&self, offer: &Offer, headers: &HeaderMap, now: Time) -> Verdict {
        match self.shown(headers) {
            Ok(shown) => self.judge_shown(offer, shown, now).await,
            Err(refusal) => Verdict::Refuse(refusal),
        }
    }

    fn shown<'h>(&self, headers: &'h HeaderMap) -> Result<Shown<'h>, Refusal> {
        let reads = Reads {
            cookie: &self.options.cookie,
            payment: self.options.accept.payment,
            x402: self.options.accept.x402,
        };
        let shown = Shown::read(headers, reads);
        match shown.key {
            Some(Err(error)) => Err(refusal(StatusCode::BAD_REQUEST, "bad-idempotency-key", error.to_string())),
            _ => Ok(shown),
        }
    }

    async fn judge_shown(&self, offer: &Offer, shown: Shown<'_>, now: Time) -> Verdict {
        let key = shown.key.and_then(Result::ok);
        let request_id = shown.request_id.filter(|_| self.options.named_requests);
        let keys = Keys { said: key.as_deref(), request_id };
        let (wants_page, browser) = (shown.wants_page, shown.browser);
        let most = offer.price.most();
        let crawler = self.options.accept.crawler && shown.crawler_most.is_some();
        let crawler_short = match shown.crawler_most {
            Some(Ok(price)) => price.currency != self.site.currency || price.amount < most,
            Some(Err(())) => true,
            None => false,
        };
        let mut short = None;
        let mut dialect = None;
        if let Some((said, text)) = shown.credential {
            dialect = Some(said);
            if crawler_short {
                let detail = "the price is above what the crawler's headers allow".to_owned();
                short = Some(Short { problem: PaymentProblem::PaymentRequired, detail, payment_id: None });
            } else {
                match self.prove(said, text, now) {
                    Ok(paid) => match self.draw(offer, paid, keys, crawler, now).await {
                        Ok(verdict) => return verdict,
                        Err(why) => short = Some(why),
                    },
                    Err(Proof::Short(why)) => short = Some(why),
                    Err(Proof::Refused(refusal)) => return Verdict::Refuse(refusal),
                }
            }
        } else {
            for text in shown.cookies {
                let Some(token) = self.site.read_token(text, now) else { continue };
                if token.resource.is_some_and(|opens| opens != offer.resource()) {
                    continue;
                }
                let paid = Paid {
                    payment_id: token.payment_id,
                    single: token.resource,
                    asked: None,
                    challenge_id: None,
                    dialect: Dialect::Cookie,
                    key: None,
                };
                match self.draw(offer, paid, keys, crawler, now).await {
                    Ok(verdict) => return verdict,
                    // What a cookie names is over: the page says what it costs, and no more.
                    Err(_) => dialect = Some(Dialect::Cookie),
                }
            }
        }
        let browser = match browser {
            _ if !(offer.page && wants_page) => None,
            Some(browser) => Some(browser.to_owned()),
            None => random::<16>().ok().map(|bytes| base64url(&bytes)),
        };
        self.demand(offer, Wanting { short, dialect, crawler_short, browser }, now)
    }

    /// What a credential proves, checked once.
    fn prove(&self, dialect: Dialect, text: &str, now: Time) -> Result<Paid, Proof> {
        let name = Proofs::name(text);
        if let Some(known) = self.proofs.find(&name) {
            return Ok(paid(dialect, known));
        }
        let (credential, key) = shown::read(dialect, text).map_err(not_proven)?;
        let known = Known { proven: self.register(&credential, now)?, challenge_id: credential.challenge.id, key };
        self.proofs.keep(name, known.clone());
        Ok(paid(dialect, known))
    }

    /// Proves a credential and notes its receipt as shown.
    fn register(&self, credential: &Credential, now: Time) -> Result<Proven, Proof> {
        let proven = self.site.prove(credential).map_err(not_proven)?;
        let place = RefundPlace {
            chain: proven.place.chain,
            commit: proven.place.commit,
            group: proven.place.group,
            leaf: proven.place.leaf,
            payment_id: proven.payment_id,
        };
        let payment = Payment {
            reference: proven.reference,
            amount: proven.amount,
            currency: proven.currency,
            paid_at: proven.paid_at,
            place,
        };
        let credit = Credit { payment, resource: proven.resource.0 };
        match self.balances.show(&credit, now) {
            Ok(_) => Ok(proven),
            Err(ShowError::TooMany(error)) => Err(Proof::Refused(busy(&error.to_string()))),
            Err(ShowError::Closed(error)) => Err(Proof::Refused(closed(&error))),
            Err(error @ (ShowError::Differs(_) | ShowError::TooOld { .. })) => Err(Proof::Short(Short {
                problem: PaymentProblem::VerificationFailed,
                detail: error.to_string(),
                payment_id: Some(proven.payment_id),
            })),
        }
    }

    /// Takes what the request may cost from what was shown.
    async fn draw(
        &self,
        offer: &Offer,
        paid: Paid,
        keys: Keys<'_>,
        crawler: bool,
        now: Time,
    ) -> Result<Verdict, Short> {
        let short =
            |problem, detail: &str| Short { problem, detail: detail.to_owned(), payment_id: Some(paid.payment_id) };
        let resource = offer.resource();
        if paid.single.is_some_and(|opens| opens != resource) {
            return Err(short(PaymentProblem::InvalidChallenge, "this was paid for something else on this site"));
        }
        let is_safe = offer.method == Method::GET;
        let key = keys.said.or(paid.key.as_deref());
        let single = paid.single.is_some() && !offer.price.is_metered();
        let opens_again = offer.access_ms.is_some() || paid.dialect == Dialect::Cookie;
        // The same request has the same name; what has neither a key nor a payment of its own is a new request each time,
        // unless what it opens stays open.
        let (name, window_ms) = match key {
            Some(key) => (draw_key(1, &resource, key.as_bytes()), self.options.grace_ms),
            None if single || (is_safe && opens_again) => (draw_key(0, &resource, &[]), self.options.grace_ms),
            None if let Some(id) = keys.request_id => (draw_key(3, &resource, id.as_bytes()), self.options.grace_ms),
            None => {
                let random = random::<16>();
                let random = random.map_err(|()| short(PaymentProblem::PaymentRequired, "no randomness"))?;
                (draw_key(2, &resource, &random), 0)
            }
        };
        let window_ms = if is_safe { window_ms.max(offer.access_ms.unwrap_or(0)) } else { window_ms };
        // Who was asked for a smaller amount and paid it is served for it, whatever the price is by now. What was paid beyond
        // it is drawn at the old price as long as the demand could be paid, not for ever.
        let most = offer.price.most();
        let max = match paid.asked {
            Some((asked, opens, paid_at)) if opens == resource && asked < most => {
                let untouched = || {
                    let view = self.balances.balance(paid.payment_id);
                    view.is_some_and(|view| view.drawn.is_zero() && view.reserved.is_zero())
                };
                let holds = single || now < paid_at.plus_ms(self.site.challenge_ttl_ms) || untouched();
                if holds { asked } else { most }
            }
            _ => most,
        };
        let ask = balance::Ask { payment_id: paid.payment_id, key: name, max, window_ms };
        let taken = match self.balances.reserve(&ask, now).await {
            Ok(Reserved::New(reservation)) => Taken::New(reservation),
            Ok(Reserved::Again(drawn)) => {
                if !is_safe {
                    let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
                    if counted.repeat((paid.payment_id, name)) >= MAX_REPEATS {
                        let detail = "this request was served for its payment already, more than once".to_owned();
                        return Ok(Verdict::Refuse(refusal(StatusCode::CONFLICT, "already-served", detail)));
                    }
                }
                Taken::Again(drawn)
            }
            Err(ReserveError::Unknown(_)) => {
                return Err(short(PaymentProblem::VerificationFailed, "no receipt of this payment was shown here"));
            }
            Err(ReserveError::Insufficient { left, reserved, asked }) => {
                let detail =
                    format!("{left} is left of what was paid, {reserved} is held by other requests, {asked} is needed");
                return Err(short(PaymentProblem::PaymentInsufficient, &detail));
            }
            Err(ReserveError::Spent { over }) => {
                let detail = if over.is_some() { "what was paid for is over" } else { "what was paid is used up" };
                return Err(short(PaymentProblem::PaymentExpired, detail));
            }
            Err(ReserveError::TooMany(error)) => return Ok(Verdict::Refuse(busy(&error.to_string()))),
            Err(ReserveError::Closed(error)) => return Ok(Verdict::Refuse(closed(&error))),
        };
        let view = self.balances.balance(paid.payment_id);
        let left = view.map_or(Amount::ZERO, |view| view.left);
        let is_new = matches!(taken, Taken::New(_));
        let runs_low = !single && is_new && left < most && paid.dialect != Dialect::Cookie;
        let next = if runs_low { self.next(offer, now) } else { None };
        let face = Face {
            payment_id: paid.payment_id,
            paid: view.map_or(Amount::ZERO, |view| view.payment.amount),
            currency: self.site.currency,
            hub: self.site.trust.hub(),
            challenge_id: paid.challenge_id,
            dialect: paid.dialect,
            crawler,
        };
        let charge = Charge {
            taken,
            face,
            price: offer.price.clone(),
            metering: offer.metering.clone(),
            left,
            next,
            on_abort: offer.on_abort,
            route: Arc::clone(&offer.route),
            upstream: offer.upstream.clone(),
        };
        Ok(Verdict::Serve(Box::new(charge)))
    }

    /// The demand that the next such request would meet, for who pays ahead.
    fn next(&self, offer: &Offer, now: Time) -> Option<Challenge> {
        if !self.options.accept.payment {
            return None;
        }
        let challenge = self.site.challenge(&asking(offer), now, random().ok()?).ok()?;
        if let Some(issued) = &self.issued {
            issued.remember(&challenge.reference());
        }
        Some(challenge)
    }

    fn demand(&self, offer: &Offer, wanting: Wanting, now: Time) -> Verdict {
        let Wanting { short, dialect, crawler_short, browser } = wanting;
        // Who is asked will pay: never while it could not be accounted for.
        if let Some(error) = self.balances.closed_because() {
            return Verdict::Refuse(closed(&error));
        }
        let amount = offer.price.most();
        let ask = asking(offer);
        let (challenge, is_claimed) = match self.issue(&ask, browser.as_deref(), dialect, now) {
            Ok(issued) => issued,
            Err(refusal) => return Verdict::Refuse(refusal),
        };
        if let Some(issued) = &self.issued {
            issued.remember(&challenge.reference());
        }
        let code = if offer.page { self.site.code(&challenge, &ask) } else { None };
        let (problem, detail, payment_id) = match short {
            Some(short) => (short.problem, Some(short.detail), short.payment_id),
            None => (PaymentProblem::PaymentRequired, None, None),
        };
        Verdict::Demand(Box::new(Demand {
            challenge,
            problem,
            detail,
            amount,
            currency: self.site.currency,
            metered: offer.price.is_metered(),
            title: offer.title.clone(),
            mime: offer.mime.clone(),
            code,
            access_ms: offer.access_ms,
            page: offer.page,
            browser,
            is_claimed,
            dialect,
            payment_id,
            crawler_short,
            hub: self.site.trust.hub(),
            payee: self.site.payee,
        }))
    }

    /// A challenge, and whether it was claimed for this browser's page already.
    ///
    /// A page that is loaded again while somebody pays elsewhere must not ask for a second payment: a browser is shown the
    /// same challenge for half its life, and what was paid for that, or the one before, is found. Who came with a cookie that
    /// does not do is asked anew.
    fn issue(
        &self,
        ask: &Ask<'_>,
        browser: Option<&str>,
        dialect: Option<Dialect>,
        now: Time,
    ) -> Result<(Challenge, bool), Refusal> {
        let failed = |error| {
            tracing::error!(%error, "no challenge can be issued");
            let detail = "the gate cannot ask for money; its log says why".to_owned();
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "no-challenge", detail)
        };
        if let Some(browser) = browser {
            let window_ms = (self.site.challenge_ttl_ms / 2).max(1);
            let issued_at = now.minus_ms(now.0 % window_ms);
            let current = self.site.page_challenge(ask, issued_at, browser).map_err(failed)?;
            let before = self.site.page_challenge(ask, issued_at.minus_ms(window_ms), browser).map_err(failed)?;
            let is_claimed = |challenge: &Challenge| self.claimed(challenge.reference()).is_some();
            if dialect.is_none()
                && let Some(paid) = [&current, &before].into_iter().find(|challenge| is_claimed(challenge))
            {
                return Ok((paid.clone(), true));
            }
            if !is_claimed(&current) {
                return Ok((current, false));
            }
        }
        let nonce = random::<NONCE_BYTES>().map_err(|()| busy("the system gives no random numbers"))?;
        self.site.challenge(ask, now, nonce).map(|challenge| (challenge, false)).map_err(failed)
    }
}

/// Why a credential proves nothing here.
enum Proof {
    Short(Short),
    Refused(Refusal),
}

fn not_proven(error: CredentialError) -> Proof {
    Proof::Short(Short { problem: error.into(), detail: error.to_string(), payment_id: None })
}

fn paid(dialect: Dialect, known: Known) -> Paid {
    let proven = known.proven;
    Paid {
        payment_id: proven.payment_id,
        single: (proven.amount == proven.asked).then_some(proven.resource),
        asked: Some((proven.asked, proven.resource, proven.paid_at)),
        challenge_id: Some(known.challenge_id),
        dialect,
        key: known.key,
    }
}

/// What an offer asks for.
fn asking(offer: &Offer) -> Ask<'_> {
    Ask {
        amount: offer.price.most(),
        metered: offer.price.is_metered(),
        description: offer.title.as_deref(),
        method: offer.method.as_str(),
        target: &offer.name,
    }
}

/// The name of a request within a balance.
fn draw_key(kind: u8, resource: &Resource, key: &[u8]) -> DrawKey {
    let mut text = vec![kind];
    text.extend_from_slice(&resource.0);
    text.extend_from_slice(key);
    DrawKey(sha256(&text).0)
}

fn denied(why: DeniedWhy) -> Refusal {
    let (status, code) = match why {
        DeniedWhy::Crawler => (StatusCode::FORBIDDEN, "crawler-denied"),
        DeniedWhy::Default => (StatusCode::FORBIDDEN, "denied"),
        DeniedWhy::Host => (StatusCode::MISDIRECTED_REQUEST, "other-host"),
        DeniedWhy::Method => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed"),
    };
    refusal(status, code, why.to_string())
}

fn refusal(status: StatusCode, code: &'static str, detail: String) -> Refusal {
    Refusal { status, code, detail, retry_after_seconds: None }
}

/// Full: nothing is charged, and it may be tried again.
fn busy(detail: &str) -> Refusal {
    Refusal {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "busy",
        detail: detail.to_owned(),
        retry_after_seconds: Some(1),
    }
}

/// The store takes nothing more: fail closed.
fn closed(error: &balance::Closed) -> Refusal {
    // The store said so once, as an error; who asks again and again fills no log.
    tracing::debug!(%error, "the balance store is closed: nothing that costs money is served");
    Refusal {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "store-closed",
        detail: "the gate cannot account for payments now; what was paid stays".to_owned(),
        retry_after_seconds: Some(30),
    }
}

fn random<const N: usize>() -> Result<[u8; N], ()> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| ())?;
    Ok(bytes)
}
