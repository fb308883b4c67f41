//! What one request would cost.

use core::str::FromStr;

use http::{HeaderMap, Method};
use serde::Serialize;
use weir_protocol::amount::{Amount, Currency};

use crate::gate::price::{Asked, DeniedWhy, FreeWhy, PriceTable, Quote, Usage};

/// A request that is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The method; `GET` when the text names none.
    pub method: Method,
    /// The host; empty when the text names none.
    pub host: String,
    /// Path and query.
    pub path_and_query: String,
}

/// Not a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a request: write a method and a path or URL, such as `GET /articles/1`")]
pub struct QuestionError;

impl FromStr for Question {
    type Err = QuestionError;

    fn from_str(text: &str) -> Result<Self, QuestionError> {
        let (method, target) = match text.trim().split_once(' ') {
            Some((method, target)) => (method.parse().map_err(|_| QuestionError)?, target.trim_start()),
            None => (Method::GET, text.trim()),
        };
        if target.is_empty() || target.contains(' ') {
            return Err(QuestionError);
        }
        let Some((scheme, rest)) = target.split_once("://").filter(|_| !target.starts_with('/')) else {
            return Ok(Self { method, host: String::new(), path_and_query: target.to_owned() });
        };
        let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(path_at);
        if host.is_empty() || !matches!(scheme, "http" | "https") {
            return Err(QuestionError);
        }
        let path_and_query = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { method, host: host.to_owned(), path_and_query })
    }
}

/// What becomes of a request without a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is served.
    Free,
    /// It is answered 402.
    Priced,
    /// It is refused.
    Denied,
    /// It is answered 400.
    Malformed,
}

/// What a request would cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The method and the target, as asked.
    pub request: String,
    /// What becomes of it.
    pub outcome: Outcome,
    /// Why, in words.
    pub why: String,
    /// The route's name, when one decides.
    pub route: Option<String>,
    /// The line of the file on which the route starts.
    pub line: Option<usize>,
    /// Whether the sender counts as a crawler, when that is looked at.
    pub crawler: Option<bool>,
    /// The currency of the amounts.
    pub currency: Currency,
    /// The part that is known before the request is served.
    pub fixed: Option<Amount>,
    /// What is reserved.
    pub most: Option<Amount>,
    /// What the use that was asked about costs.
    pub charge: Option<Amount>,
    /// The resource that a receipt opens.
    pub resource: Option<String>,
    /// For so long, in milliseconds; absent: once.
    pub access_ms: Option<u64>,
    /// What is free before the price holds, in words.
    pub quota: Option<String>,
}

/// What a request with these headers would cost; with a use, also what that comes to on a fresh balance.
#[must_use]
pub fn explain(
    table: &PriceTable,
    currency: Currency,
    question: &Question,
    headers: &HeaderMap,
    used: Option<&Usage>,
) -> Explanation {
    let header_host = headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let asked = Asked {
        method: &question.method,
        host: if question.host.is_empty() { header_host } else { &question.host },
        path_and_query: &question.path_and_query,
        headers,
        peer: None,
        crawler: None,
    };
    let mut told = Explanation {
        request: format!("{} {}{}", question.method, question.host, question.path_and_query),
        outcome: Outcome::Priced,
        why: String::new(),
        route: None,
        line: None,
        crawler: None,
        currency,
        fixed: None,
        most: None,
        charge: None,
        resource: None,
        access_ms: None,
        quota: None,
    };
    match table.quote(&asked) {
        Quote::Free(why) => {
            told.outcome = Outcome::Free;
            why_free(why).clone_into(&mut told.why);
        }
        Quote::Denied(why) => {
            told.outcome = Outcome::Denied;
            told.why = why.to_string();
            told.crawler = (why == DeniedWhy::Crawler).then_some(true);
        }
        Quote::Malformed(why) => {
            told.outcome = Outcome::Malformed;
            told.why = why.to_string();
        }
        Quote::Priced(priced) => {
            let sender = if priced.crawler { "a crawler" } else { "a person" };
            told.why = format!("the route `{}` has a price for {sender}", priced.route.id);
            told.route = Some(priced.route.id.to_string());
            told.line = Some(priced.route.line);
            told.crawler = Some(priced.crawler);
            told.fixed = Some(priced.fixed());
            told.most = Some(priced.most());
            told.charge = used.map(|used| priced.price.charge(used, 0));
            told.access_ms = priced.route.access_ms;
            told.quota = priced.route.quota.as_ref().map(super::quota);
            told.resource = Some(priced.resource);
        }
    }
    told
}

const fn why_free(why: FreeWhy) -> &'static str {
    match why {
        FreeWhy::Preflight => "a CORS preflight is free",
        FreeWhy::Path => "the path is free by default",
        FreeWhy::Route => "its route is free",
        FreeWhy::Crawler => "its route is free for crawlers",
        FreeWhy::Default => "no route matches, and the default is free",
    }
}
