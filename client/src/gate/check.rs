//! What a configuration means, for people: every route with its price, what to beware of, and what one request would
//! cost. Pure; `weir gate check` prints it.

mod explain;

use http::{HeaderMap, Method};
use serde::Serialize;
use weir_protocol::amount::{Amount, Currency};

pub use explain::{Explanation, Outcome, Question, QuestionError, explain};

use super::config::{ConfigErrors, GateConfig, Mode};
use super::price::{
    Asked, By, Counted, Fallback, ForCrawlers, FreeQuota, FreeWhy, Metering, Price, Quote, Report as From, Route,
    UnitPrice, Unreported,
};
use crate::span::Span;

/// What a configuration means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether the gate starts with it.
    pub ok: bool,
    /// The file.
    pub file: String,
    /// `proxy` or `forward-auth`; absent when the file has errors.
    pub mode: Option<&'static str>,
    /// Of all prices; absent when the file has errors.
    pub currency: Option<Currency>,
    /// The routes, in the file's order.
    pub routes: Vec<RouteReport>,
    /// What a request costs that no route matches.
    pub default: Option<String>,
    /// What works, and may not be meant.
    pub warnings: Vec<Note>,
    /// What keeps the gate from starting.
    pub errors: Vec<Note>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteReport {
    /// The line of the file on which it starts.
    pub line: usize,
    /// The methods; all when empty.
    pub methods: Vec<String>,
    /// The host; any when absent.
    pub host: Option<String>,
    /// The pattern.
    pub path: String,
    /// What people pay, in words.
    pub people: String,
    /// What crawlers pay, in words.
    pub crawlers: String,
    /// The part of people's price that is known before the request is served.
    pub fixed: Option<Amount>,
    /// What is reserved of it.
    pub most: Option<Amount>,
    /// For so long a receipt opens the same resource again, in milliseconds.
    pub access_ms: Option<u64>,
    /// What is free before the price holds, in words.
    pub quota: Option<String>,
}

/// A warning or an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The line, when it is known.
    pub line: Option<usize>,
    /// What is the matter.
    pub text: String,
    /// What to do.
    pub hint: Option<String>,
}

/// What a good configuration means.
#[must_use]
pub fn check(config: &GateConfig) -> Report {
    let currency = config.settings.currency;
    let default = match config.table.fallback() {
        Fallback::Free => "free".to_owned(),
        Fallback::Deny => "denied".to_owned(),
        Fallback::Route(route) => people(route, currency),
    };
    Report {
        ok: true,
        file: config.file.display().to_string(),
        mode: Some(match config.settings.mode {
            Mode::Proxy => "proxy",
            Mode::ForwardAuth => "forward-auth",
        }),
        currency: Some(currency),
        routes: config.table.routes().iter().map(|route| RouteReport::new(route, currency)).collect(),
        default: Some(default),
        warnings: warnings(config),
        errors: Vec::new(),
    }
}

/// What is wrong with a bad one.
#[must_use]
pub fn failed(file: &std::path::Path, errors: &ConfigErrors) -> Report {
    let note = |error: &super::config::ConfigError| {
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        Note { line: error.line(), text: format!("{error}{source}"), hint: error.hint().map(str::to_owned) }
    };
    Report {
        ok: false,
        file: file.display().to_string(),
        mode: None,
        currency: None,
        routes: Vec::new(),
        default: None,
        warnings: Vec::new(),
        errors: errors.0.iter().map(note).collect(),
    }
}

impl RouteReport {
    fn new(route: &Route, currency: Currency) -> Self {
        let crawlers = match &route.crawlers {
            ForCrawlers::AsPeople => people(route, currency),
            ForCrawlers::Price(price) => cost(price, route.metering.as_ref(), currency),
            ForCrawlers::Deny => "denied".to_owned(),
            ForCrawlers::Free => "free".to_owned(),
        };
        Self {
            line: route.line,
            methods: route.methods.iter().map(ToString::to_string).collect(),
            host: route.host.clone(),
            path: route.pattern.as_str().to_owned(),
            people: people(route, currency),
            crawlers,
            fixed: route.price.as_ref().map(Price::fixed),
            most: route.price.as_ref().map(Price::most),
            access_ms: route.access_ms,
            quota: route.quota.as_ref().map(quota),
        }
    }

    /// What it matches, in one word or two.
    #[must_use]
    pub fn matches(&self) -> String {
        let methods = if self.methods.is_empty() { "any".to_owned() } else { self.methods.join("|") };
        format!("{methods} {}{}", self.host.as_deref().unwrap_or_default(), self.path)
    }
}

fn people(route: &Route, currency: Currency) -> String {
    route.price.as_ref().map_or_else(|| "free".to_owned(), |price| cost(price, route.metering.as_ref(), currency))
}

fn quota(quota: &FreeQuota) -> String {
    let by = match quota.by {
        By::Ip => "address",
        By::Cookie => "cookie",
    };
    format!("{} in {} for each {by}", quota.requests, Span::Ms(quota.per_ms.get()))
}

/// A price in words.
fn cost(price: &Price, metering: Option<&Metering>, currency: Currency) -> String {
    let mut parts = Vec::new();
    if !price.fixed().is_zero() {
        parts.push(format!("{} {currency}", price.fixed()));
    }
    if let Some(bytes) = price.bytes() {
        let of = match bytes.counted {
            Counted::Request => "the request",
            Counted::Response => "the answer",
            Counted::Both => "request and answer",
        };
        let per = if bytes.rate.per.get() == 1 { "byte".to_owned() } else { format!("{} bytes", bytes.rate.per) };
        parts.push(format!("{} {currency} per {per} of {of}", bytes.rate.price));
    }
    let per = |per: core::num::NonZeroU64, one: &str| {
        if per.get() == 1 { one.to_owned() } else { format!("{per} {one}s") }
    };
    match price.units() {
        None => {}
        Some(UnitPrice::Plain { tiers, per: count, .. }) => {
            let prices: Vec<String> = tiers
                .iter()
                .map(|tier| match tier.up_to {
                    Some(up_to) => format!("{} {currency} up to {up_to}", tier.price),
                    None if tiers.len() > 1 => format!("{} {currency} beyond", tier.price),
                    None => format!("{} {currency}", tier.price),
                })
                .collect();
            parts.push(format!("{} per {}", prices.join(", "), per(*count, unit_word(metering))));
        }
        Some(UnitPrice::Tokens { input, cached, cache_write, output, per: count, .. }) => {
            let mut kinds = vec![format!("input {input}")];
            if cached != input {
                kinds.push(format!("cached {cached}"));
            }
            if cache_write != input {
                kinds.push(format!("cache write {cache_write}"));
            }
            kinds.push(format!("output {output} {currency}"));
            parts.push(format!("{} per {}", kinds.join(", "), per(*count, "token")));
        }
    }
    let words = if parts.is_empty() { format!("0 {currency}") } else { parts.join(" + ") };
    if price.is_metered() { format!("{words}; at most {} {currency}", price.most()) } else { words }
}

fn unit_word(metering: Option<&Metering>) -> &'static str {
    match metering.map(|metering| &metering.report) {
        Some(From::Requests) => "request",
        _ => "unit",
    }
}

fn warnings(config: &GateConfig) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut warn = |line: Option<usize>, text: String, hint: &str| {
        notes.push(Note { line, text, hint: Some(hint.to_owned()) });
    };
    let settings = &config.settings;
    let loopback = settings.listen.ip().is_loopback();
    if !loopback && settings.tls.is_none() && settings.trust_forwarded.is_empty() {
        let text = format!("`listen` is `{}` without `[tls]`: receipts and cookies travel in clear", settings.listen);
        warn(None, text, "add `[tls]`, or listen on 127.0.0.1 behind a web server");
    }
    if settings.mode == Mode::ForwardAuth && settings.trust_forwarded.is_empty() {
        let text = "`trust_forwarded` is empty: in mode forward-auth the web server says in headers what is asked for"
            .to_owned();
        warn(None, text, "name the web server's address, such as \"127.0.0.1\"");
    }
    if settings.certificates.is_empty() && settings.home.is_none() {
        let text =
            "neither `certificates` nor `home` is there: receipts without a certificate inside cannot be checked";
        warn(None, text.to_owned(), "name the payee's home folder, or files with the hub's certificates");
    }
    let routes = config.table.routes();
    let priced = |route: &Route| route.price.is_some() || matches!(route.crawlers, ForCrawlers::Price(_));
    if !routes.iter().any(priced) && !matches!(config.table.fallback(), Fallback::Route(_)) {
        warn(None, "nothing costs anything".to_owned(), "add a `[[route]]` with a `price`");
    }
    for route in routes {
        let line = Some(route.line);
        if route.price.is_some() {
            dodged(config, route, &mut warn);
        }
        let cheaper = match (&route.crawlers, &route.price) {
            (ForCrawlers::Free, Some(_)) => true,
            (ForCrawlers::Price(crawlers), Some(people)) => crawlers.most() < people.most(),
            _ => false,
        };
        if cheaper {
            let text =
                format!("`{}` costs crawlers less than people, and anybody can say that he is a crawler", route.id);
            warn(line, text, "give crawlers a price that is not lower");
        }
        if route.quota.is_some_and(|quota| quota.by == By::Cookie) {
            let text = format!("`{}` counts free requests by cookie, and a cookie is easily dropped", route.id);
            warn(line, text, "`by = \"ip\"` counts by address");
        }
        let reports = route.metering.as_ref().map(|metering| (&metering.report, metering.unreported));
        if let Some((From::Json(_), Unreported::Nothing)) = reports {
            let text = format!("`{}` charges no units when the answer has none", route.id);
            warn(line, text, "`unreported = \"most\"`, if a client can turn the report off");
        }
    }
    notes
}

/// A priced route whose path is free under another method: many servers answer any method as they answer GET.
fn dodged(config: &GateConfig, route: &Route, warn: &mut impl FnMut(Option<usize>, String, &str)) {
    let others = [Method::GET, Method::POST, Method::PUT];
    let Some(other) = others.into_iter().find(|method| !route.methods.contains(method)) else { return };
    if route.methods.is_empty() {
        return;
    }
    let path = sample(route.pattern.as_str());
    let headers = HeaderMap::new();
    let asked = Asked {
        method: &other,
        host: route.host.as_deref().or(config.table.hosts().first().map(String::as_str)).unwrap_or_default(),
        path_and_query: &path,
        headers: &headers,
        peer: None,
        crawler: Some(false),
    };
    if let Quote::Free(FreeWhy::Default) = config.table.quote(&asked) {
        let text = format!("`{}` has a price, and `{other} {path}` is free: many servers answer it alike", route.id);
        warn(Some(route.line), text, "leave the method out of `match`, or set `default = \"deny\"`");
    }
}

/// A path that a pattern matches.
fn sample(pattern: &str) -> String {
    let mut path = String::new();
    let mut rest = pattern;
    while let Some((before, inside)) = rest.split_once('{') {
        path.push_str(before);
        path.push('x');
        rest = inside.split_once('}').map_or("", |(_, after)| after);
    }
    path.push_str(rest);
    path
}

#[cfg(test)]
mod tests;
