//! One route: what matches it, what it costs, and what is said about it.

use std::sync::Arc;

use http::Method;
use http::header::HeaderName;

use super::charge::Price;
use super::pattern::Pattern;
use super::quota::FreeQuota;

/// A route of the price table.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name: `match` as the file has it, with the host in front. What is counted for a route is counted under it, so it
    /// survives a reload.
    pub id: Arc<str>,
    /// The line of the file on which it starts, from 1.
    pub line: usize,
    /// The methods; any when empty.
    pub methods: Vec<Method>,
    /// The host, lower case and without port; any when absent.
    pub host: Option<String>,
    /// The path.
    pub pattern: Pattern,
    /// What people pay; `None`: nothing.
    pub price: Option<Price>,
    /// What crawlers pay.
    pub crawlers: ForCrawlers,
    /// How usage is read from the answer, when the price depends on it.
    pub metering: Option<Metering>,
    /// Requests that are free before the price holds.
    pub quota: Option<FreeQuota>,
    /// What becomes of the charge when the client goes away in the middle of the answer.
    pub on_abort: OnAbort,
    /// For so long a receipt that paid for a resource opens it again, in milliseconds; `None`: it pays once.
    pub access_ms: Option<u64>,
    /// How a person without a receipt is answered.
    pub people: People,
    /// What is for sale, in a few words.
    pub title: Option<String>,
    /// What is for sale, in a sentence.
    pub description: Option<String>,
    /// The media type of what is for sale.
    pub mime: Option<String>,
    /// Another upstream for this route.
    pub upstream: Option<http::Uri>,
}

/// What crawlers pay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ForCrawlers {
    /// What people pay.
    #[default]
    AsPeople,
    /// Another price.
    Price(Price),
    /// They are refused.
    Deny,
    /// Nothing.
    Free,
}

/// How a person without a receipt is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum People {
    /// With the page, when `Accept` has `text/html`.
    #[default]
    Page,
    /// With problem+json, as programs are.
    Json,
}

/// How usage is read from an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metering {
    /// Where the upstream says it.
    pub report: Report,
    /// What an answer without a report costs.
    pub unreported: Unreported,
}

/// Where an upstream says what was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Nowhere: each request is one unit (for tiers by the number of requests).
    Requests,
    /// In a header of the answer.
    Header(HeaderName),
    /// In a trailer of the answer. The proxy must send `TE: trailers`.
    Trailer(HeaderName),
    /// At a place in the JSON body (RFC 6901), split and unescaped.
    Json(Vec<String>),
    /// In `usage` as OpenAI's APIs report it.
    OpenAi,
    /// In `usage` as Anthropic's Messages API reports it.
    Anthropic,
}

impl Report {
    /// Whether the body must be read. Then the upstream must send it uncompressed: see [`crate::gate::meter`].
    #[must_use]
    pub const fn is_in_body(&self) -> bool {
        matches!(self, Self::Json(_) | Self::OpenAi | Self::Anthropic)
    }
}

/// What an answer costs in which the upstream reports no usage, or nonsense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unreported {
    /// No units: only what the gate knows itself, the price per request and its own count of bytes. Nobody is charged for
    /// what cannot be shown.
    #[default]
    Nothing,
    /// The most that is reserved. For upstreams whose report the client can turn off.
    Most,
}

/// What an answer costs whose client goes away in the middle of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnAbort {
    /// Nothing. A client can then read most of a stream, break it off before its end, and have it for nothing.
    #[default]
    Release,
    /// What was counted so far; a fixed price whole, once the head of a good answer has gone out.
    Charge,
}

/// What is matched by two routes alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// The index of the route that stands first.
    pub first: usize,
    /// The index of the one that conflicts with it.
    pub second: usize,
    /// Why.
    pub meaning: Meaning,
}

/// How two routes conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Meaning {
    /// They match the same requests.
    #[error("matches the same requests")]
    Same,
    /// Neither is more specific, and there are requests that both match.
    #[error("cannot be told apart by how specific they are")]
    Overlap,
}
