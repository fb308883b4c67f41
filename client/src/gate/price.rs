//! The price table: what a request costs.
//!
//! Pure: a request's head goes in, a [`Quote`] comes out. It knows nothing of receipts or balances, reads no clock, and
//! counts no free quota (the quote says that a route has one; [`Quotas`] counts it).
//!
//! In this order a request is judged:
//! 1. A path without a single meaning, or a header that asks the upstream for another resource than the request line
//!    names, is [`Quote::Malformed`] (see [`path`]).
//! 2. A host that the gate does not serve is denied, once any route or `hosts` names hosts: an upstream that ignores the
//!    host would else serve a priced page for the price of another host's.
//! 3. `CONNECT` and `TRACE` are denied. A CORS preflight (`OPTIONS` with `Origin` and `Access-Control-Request-Method`) is
//!    free: browsers send it without credentials, so it could never be paid.
//! 4. The most specific route that takes the method: a host before no host, a literal before a parameter before the rest
//!    of a path, a named method before any method. `HEAD` costs what `GET` costs (RFC 9110 §9.3.2: its headers are those
//!    of the `GET`), so that a client can learn the price without the page; a route that names `HEAD` itself goes first.
//! 5. A default-free path ([`free_path`]), unless the route that was found names its first segment.
//! 6. Without a route: the table's default.

mod charge;
mod crawler;
mod live;
pub mod path;
mod pattern;
mod quota;
mod route;

use std::collections::BTreeSet;
use std::net::IpAddr;

use http::{HeaderMap, Method, header};
use weir_protocol::amount::Amount;

pub use charge::{BytePrice, Counted, Price, Rate, Tier, UnitPrice, Units, Usage};
pub use crawler::{CRAWLER_HEADERS, CRAWLERS, Crawlers};
pub use live::{LiveTable, Reloaded, WATCH_EVERY};
pub use path::PathFault;
pub use pattern::{MAX_PATTERN_BYTES, Pattern, PatternError};
pub use quota::{By, DEFAULT_VISITORS, FreeQuota, Quotas, Visitor};
pub use route::{Conflict, ForCrawlers, Meaning, Metering, OnAbort, People, Report, Route, Unreported};

use pattern::Patterns;

/// The most routes of a table.
pub const MAX_ROUTES: usize = 10_000;

/// What a table makes of a request that no route matches.
#[derive(Debug, Clone)]
pub enum Fallback {
    /// It costs nothing.
    Free,
    /// It is refused.
    Deny,
    /// It costs what this route says, which has no pattern of its own.
    Route(Box<Route>),
}

/// The head of a request.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a Method,
    /// The host that is asked for: of the request's target, else of the `Host` header; empty when neither names one.
    pub host: &'a str,
    /// The request's target in origin form.
    pub path_and_query: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// Where it came from, when known: the visitor of a quota by address.
    pub peer: Option<IpAddr>,
    /// What is known otherwise about its sender, such as by a signature; `None`: judge by the headers.
    pub crawler: Option<bool>,
}

/// What a request costs.
#[derive(Debug)]
pub enum Quote<'t> {
    /// Nothing.
    Free(FreeWhy),
    /// So much.
    Priced(Priced<'t>),
    /// It is refused with 403 (421 for [`DeniedWhy::Host`], 405 for [`DeniedWhy::Method`]).
    Denied(DeniedWhy),
    /// It is refused with 400.
    Malformed(Malformed),
}

/// A request with a price.
#[derive(Debug)]
pub struct Priced<'t> {
    /// The route. Its `quota`, `access_ms`, `title` and so on hold.
    pub route: &'t Route,
    /// The price for this sender.
    pub price: &'t Price,
    /// Whether the sender counts as a crawler.
    pub crawler: bool,
    /// The visitor whose quota by address counts, when the address is known.
    pub visitor: Option<Visitor>,
    /// The resource that a receipt opens: host, path (unescaped but for `%` and `?`), and the query as sent.
    pub resource: String,
}

impl Priced<'_> {
    /// The part that is known before the request is served.
    pub const fn fixed(&self) -> Amount {
        self.price.fixed()
    }

    /// What is reserved.
    pub const fn most(&self) -> Amount {
        self.price.most()
    }
}

/// Why a request is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreeWhy {
    /// A CORS preflight.
    Preflight,
    /// A path that is free by default.
    Path,
    /// Its route is.
    Route,
    /// Its route is, for crawlers.
    Crawler,
    /// No route matches, and the default is free.
    Default,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeniedWhy {
    /// Its route takes no crawlers.
    #[error("this is not for crawlers")]
    Crawler,
    /// No route matches, and the default is to deny.
    #[error("nothing is served at this path")]
    Default,
    /// The host is not one of the gate's.
    #[error("this host is not served here")]
    Host,
    /// `CONNECT` or `TRACE`.
    #[error("this method is not served here")]
    Method,
}

/// Why a request has no single meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Its path has not.
    #[error(transparent)]
    Path(#[from] PathFault),
    /// A header asks the upstream for something else than the request line.
    #[error("the header `{0}` asks for something else than the request line")]
    Header(&'static str),
}

/// Headers by which some servers are asked for another path than the request line's.
const OTHER_PATH: &[&str] = &["x-original-url", "x-rewrite-url"];
/// Headers by which some servers are asked for another method.
const OTHER_METHOD: &[&str] = &["x-http-method-override", "x-http-method", "x-method-override"];

/// What requests cost.
#[derive(Debug)]
pub struct PriceTable {
    routes: Vec<Route>,
    patterns: Patterns,
    fallback: Fallback,
    crawlers: Crawlers,
    hosts: BTreeSet<String>,
    free_paths: bool,
    ignore_case: bool,
}

/// What a table is made of.
#[derive(Debug)]
pub struct TableParts {
    /// The routes, in any order.
    pub routes: Vec<Route>,
    /// For what no route matches.
    pub fallback: Fallback,
    /// Who counts as a crawler.
    pub crawlers: Crawlers,
    /// Hosts that are served besides those that routes name.
    pub hosts: Vec<String>,
    /// Whether [`free_path`] holds.
    pub free_paths: bool,
    /// Whether paths are compared without case, for upstreams that do.
    pub ignore_case: bool,
}

impl PriceTable {
    /// Builds a table; every conflict of two routes is named.
    pub fn new(parts: TableParts) -> Result<Self, Vec<Conflict>> {
        let TableParts { routes, fallback, crawlers, hosts, free_paths, ignore_case } = parts;
        let patterns = Patterns::new(&routes, ignore_case)?;
        let named = routes.iter().filter_map(|route| route.host.clone());
        let hosts = hosts.iter().map(|host| path::host(host)).chain(named).collect();
        Ok(Self { routes, patterns, fallback, crawlers, hosts, free_paths, ignore_case })
    }

    /// The routes, in the file's order.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// For what no route matches.
    #[must_use]
    pub const fn fallback(&self) -> &Fallback {
        &self.fallback
    }

    /// The hosts that are served; any when empty.
    #[must_use]
    pub const fn hosts(&self) -> &BTreeSet<String> {
        &self.hosts
    }

    /// Whether the default-free paths are free.
    #[must_use]
    pub const fn free_paths(&self) -> bool {
        self.free_paths
    }

    /// The route of a request, whether it costs anything or not.
    #[must_use]
    pub fn route(&self, asked: &Asked<'_>) -> Option<&Route> {
        let target = path::target(asked.path_and_query).ok()?;
        let compared = if self.ignore_case { target.path.to_lowercase() } else { target.path };
        let found = self.patterns.find(&path::host(asked.host), asked.method, &compared);
        found.and_then(|index| self.routes.get(index))
    }

    /// What a request costs.
    #[must_use]
    pub fn quote(&self, asked: &Asked<'_>) -> Quote<'_> {
        let target = match path::target(asked.path_and_query) {
            Ok(target) => target,
            Err(fault) => return Quote::Malformed(fault.into()),
        };
        if let Some(name) = other_than_asked(asked) {
            return Quote::Malformed(Malformed::Header(name));
        }
        let host = path::host(asked.host);
        if !self.hosts.is_empty() && !self.hosts.contains(&host) {
            return Quote::Denied(DeniedWhy::Host);
        }
        if asked.method == Method::CONNECT || asked.method == Method::TRACE {
            return Quote::Denied(DeniedWhy::Method);
        }
        if is_preflight(asked.method, asked.headers) {
            return Quote::Free(FreeWhy::Preflight);
        }
        let compared = if self.ignore_case { target.path.to_lowercase() } else { target.path.clone() };
        let found = self.patterns.find(&host, asked.method, &compared).and_then(|index| self.routes.get(index));
        let names_it = found.is_some_and(|route| route.pattern.names_first_segment());
        if self.free_paths && !names_it && is_read(asked.method) && free_path(&compared) {
            return Quote::Free(FreeWhy::Path);
        }
        let route = match (found, &self.fallback) {
            (Some(route), _) => route,
            (None, Fallback::Route(route)) => route.as_ref(),
            (None, Fallback::Free) => return Quote::Free(FreeWhy::Default),
            (None, Fallback::Deny) => return Quote::Denied(DeniedWhy::Default),
        };
        let crawler = asked.crawler.unwrap_or_else(|| self.crawlers.find(asked.headers).is_some());
        let price = match (&route.crawlers, crawler) {
            (ForCrawlers::Deny, true) => return Quote::Denied(DeniedWhy::Crawler),
            (ForCrawlers::Free, true) => return Quote::Free(FreeWhy::Crawler),
            (ForCrawlers::Price(price), true) => Some(price),
            (ForCrawlers::AsPeople, true) | (_, false) => route.price.as_ref(),
        };
        let Some(price) = price else { return Quote::Free(FreeWhy::Route) };
        let query = target.query.map(|query| format!("?{query}")).unwrap_or_default();
        Quote::Priced(Priced {
            route,
            price,
            crawler,
            visitor: asked.peer.map(Visitor::ip),
            resource: format!("{host}{}{query}", unambiguous(&target.path)),
        })
    }
}

/// A path before a query: `/a%3Fb` is another resource than `/a?b`.
fn unambiguous(path: &str) -> String {
    path.replace('%', "%25").replace('?', "%3F")
}

/// The header by which a request asks the upstream for something else than its request line says.
fn other_than_asked(asked: &Asked<'_>) -> Option<&'static str> {
    let path = OTHER_PATH.iter().find(|name| asked.headers.contains_key(**name));
    let method = || {
        OTHER_METHOD.iter().find(|name| {
            let mut values = asked.headers.get_all(**name).iter();
            values.any(|value| !value.as_bytes().eq_ignore_ascii_case(asked.method.as_str().as_bytes()))
        })
    };
    path.or_else(method).copied()
}

pub(in crate::gate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Paths that are free unless the configuration says otherwise.
pub const FREE_PATHS: &[&str] = &[
    "/ads.txt",
    "/apple-touch-icon.png",
    "/atom.xml",
    "/favicon.ico",
    "/feed",
    "/feed.json",
    "/feed.xml",
    "/feed/atom",
    "/feed/rss",
    "/humans.txt",
    "/llms.txt",
    "/openapi.json",
    "/robots.txt",
    "/rss",
    "/rss.xml",
];

/// Whether a normalised path is free by default: [`FREE_PATHS`], what lies below `/.well-known/`, and a site map at the
/// root (`/sitemap*.xml`, `.xml.gz`, `.txt`).
#[must_use]
pub fn free_path(path: &str) -> bool {
    let site_map = path.strip_prefix("/sitemap").is_some_and(|rest| {
        !rest.contains('/') && [".xml", ".xml.gz", ".txt"].iter().any(|ending| rest.ends_with(ending))
    });
    site_map || path.starts_with("/.well-known/") || FREE_PATHS.contains(&path)
}

#[cfg(test)]
mod tests;
