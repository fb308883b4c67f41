//! Meters: how much an answer used, read as it passes. Pure, in constant memory whatever the size of the answer.
//!
//! What is counted: the bytes of both bodies, by the gate itself; and units where the upstream reports them: in a header,
//! a trailer, at a place of a JSON body, or in `usage` as OpenAI's and Anthropic's APIs report it, streamed or not.
//!
//! A body is read by its `Content-Type`: `text/event-stream` as server-sent events whose data are JSON, `…/x-ndjson`,
//! `…/jsonl` and their like line by line, everything else as JSON. **The last report counts:** streams report cumulative
//! counts, and some repeat them. Data that is not JSON (`[DONE]`, comments, pings) says nothing.
//!
//! | the upstream reports | what is charged |
//! |---|---|
//! | a whole number up to the route's `max` | the units |
//! | more than `max` | `max`: never more than what was reserved ([`Price::exceeds`] tells, for the log and a metric) |
//! | nothing, twice in a header, text, a fraction, a negative or too large number, or what contradicts itself | no units ([`MeterError`], for the log and a metric); or the most, where the route says `unreported = "most"` |
//! | in a body that cannot be read: compressed, broken JSON, deeper than 128 levels | the same |
//!
//! The price per request and the bytes are charged in every case: the gate knows them itself.
//!
//! Compressed bodies cannot be read, so the gate must ask the upstream for plain ones: [`needs_plain_body`]. What OpenAI's
//! API streams has `usage` only if the request says `stream_options.include_usage`: [`with_usage`] says it for a client
//! that did not.

mod json;
mod request;
mod sse;
mod usage;

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};

pub use request::{MAX_REQUEST_BYTES, RequestError, with_usage};

use super::price::{Metering, Price, Report, UnitPrice, Units, Unreported, Usage};
use json::{Broken, Found, Scanner};
use sse::{Events, Sse};
use usage::{Kind, Reading};

/// The longest JSON pointer that a body can be read with, as it stands in the configuration.
pub const MAX_POINTER_BYTES: usize = json::MAX_KEY_BYTES;

/// Why no units are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MeterError {
    /// There is no report.
    #[error("the upstream reported no usage")]
    Missing,
    /// More than one header or trailer of the name.
    #[error("the upstream reported usage twice")]
    Repeated,
    /// A report that is no number.
    #[error("the upstream reported usage that is not a number")]
    NotANumber,
    /// A report below zero.
    #[error("the upstream reported usage below zero")]
    Negative,
    /// A report that is not whole.
    #[error("the upstream reported usage that is not a whole number")]
    Fraction,
    /// A report beyond 64 bits.
    #[error("the upstream reported usage that is too large")]
    TooLarge,
    /// A part that is larger than its whole.
    #[error("the upstream reported more cached tokens than tokens")]
    Contradiction,
    /// The body is compressed.
    #[error("the upstream compressed the answer, so its usage cannot be read")]
    Encoded,
    /// The body is no JSON, or ended in the middle.
    #[error("the answer is not whole JSON, so its usage cannot be read")]
    NotJson,
    /// The body is nested too deep.
    #[error("the answer is nested deeper than {} levels, so its usage cannot be read", json::MAX_DEPTH)]
    TooDeep,
}

/// What a meter has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Metered {
    /// What is to be charged for: with no units, or the most, where none are known.
    pub usage: Usage,
    /// Why no units are known, when the price needs them.
    pub fault: Option<MeterError>,
}

/// Counts what one request uses.
#[derive(Debug)]
pub struct Meter {
    usage: Usage,
    reader: Reader,
    /// What is charged for without a report.
    without_report: Units,
}

#[derive(Debug)]
enum Reader {
    /// The price needs no units.
    None,
    /// Known from the start, or from a header or trailer.
    Known(Result<u64, MeterError>),
    Header(HeaderName),
    Trailer(HeaderName),
    Body(Box<Body>),
}

#[derive(Debug)]
struct Body {
    scanner: Scanner,
    reading: Reading,
    framing: Framing,
    fault: Option<MeterError>,
}

#[derive(Debug)]
enum Framing {
    Json,
    Lines,
    Events(Sse),
}

impl Meter {
    /// A meter for one request of a route.
    #[must_use]
    pub fn new(price: &Price, metering: Option<&Metering>) -> Self {
        let metering = price.units().and(metering);
        let reader = match metering.map(|metering| &metering.report) {
            None => Reader::None,
            Some(Report::Requests) => Reader::Known(Ok(1)),
            Some(Report::Header(name)) => Reader::Header(name.clone()),
            Some(Report::Trailer(name)) => Reader::Trailer(name.clone()),
            Some(Report::Json(place)) => Body::boxed(Kind::Plain(place.clone())),
            Some(Report::OpenAi) => Body::boxed(Kind::OpenAi),
            Some(Report::Anthropic) => Body::boxed(Kind::Anthropic),
        };
        let without_report = match metering.map(|metering| metering.unreported) {
            Some(Unreported::Most) => most_units(price),
            Some(Unreported::Nothing) | None => Units::default(),
        };
        Self { usage: Usage::default(), reader, without_report }
    }

    /// The answer's head has come.
    pub fn head(&mut self, headers: &HeaderMap) {
        match &mut self.reader {
            Reader::Header(name) => self.reader = Reader::Known(field(headers, name)),
            Reader::Body(body) => body.head(headers),
            Reader::None | Reader::Known(_) | Reader::Trailer(_) => {}
        }
    }

    /// So many bytes of the request's body went by.
    pub const fn request_body(&mut self, bytes: usize) {
        self.usage.request_bytes = self.usage.request_bytes.saturating_add(bytes as u64);
    }

    /// A piece of the answer's body went by.
    pub fn body(&mut self, piece: &[u8]) {
        self.usage.response_bytes = self.usage.response_bytes.saturating_add(piece.len() as u64);
        if let Reader::Body(body) = &mut self.reader {
            body.feed(piece);
        }
    }

    /// The answer's trailers have come.
    pub fn trailers(&mut self, trailers: &HeaderMap) {
        if let Reader::Trailer(name) = &self.reader {
            self.reader = Reader::Known(field(trailers, name));
        }
    }

    /// The answer has ended.
    pub fn finish(self) -> Metered {
        let Self { mut usage, reader, without_report } = self;
        let units = match reader {
            Reader::None => return Metered { usage, fault: None },
            Reader::Known(count) => count.map(Units::plain),
            Reader::Header(_) | Reader::Trailer(_) => Err(MeterError::Missing),
            Reader::Body(body) => body.finish(),
        };
        usage.units = units.unwrap_or(without_report);
        Metered { usage, fault: units.err() }
    }
}

/// Whether the answer's body must come uncompressed: the gate then removes `Accept-Encoding` (or sends `identity`) and
/// `Range` (a part of a JSON body is no JSON) from the request that it forwards.
#[must_use]
pub fn needs_plain_body(metering: Option<&Metering>) -> bool {
    metering.is_some_and(|metering| metering.report.is_in_body())
}

/// Whether the gate must say `TE: trailers` to the upstream.
#[must_use]
pub fn needs_trailers(metering: Option<&Metering>) -> bool {
    metering.is_some_and(|metering| matches!(metering.report, Report::Trailer(_)))
}

/// What costs the most that a price reserves for units.
fn most_units(price: &Price) -> Units {
    match price.units() {
        None => Units::default(),
        Some(UnitPrice::Plain { max, .. }) => Units::plain(*max),
        Some(UnitPrice::Tokens { input, cached, cache_write, max_input, max_output, .. }) => {
            let mut units = Units { output: *max_output, ..Units::default() };
            let dearest = (*input).max(*cached).max(*cache_write);
            if dearest == *input {
                units.input = *max_input;
            } else if dearest == *cached {
                units.cached = *max_input;
            } else {
                units.cache_write = *max_input;
            }
            units
        }
    }
}

/// A count in a header or trailer.
fn field(headers: &HeaderMap, name: &HeaderName) -> Result<u64, MeterError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(MeterError::Missing)?;
    if values.next().is_some() {
        return Err(MeterError::Repeated);
    }
    let text = value.to_str().map_err(|_| MeterError::NotANumber)?.trim();
    let found = json::number(text.as_bytes()).unwrap_or(Found::Other);
    count(found)
}

/// The count that was found.
fn count(found: Found) -> Result<u64, MeterError> {
    match found {
        Found::Count(count) => Ok(count),
        Found::Negative => Err(MeterError::Negative),
        Found::Fraction => Err(MeterError::Fraction),
        Found::TooLarge => Err(MeterError::TooLarge),
        Found::Other => Err(MeterError::NotANumber),
    }
}

impl Body {
    fn boxed(kind: Kind) -> Reader {
        let reading = Reading::new(kind);
        Reader::Body(Box::new(Self {
            scanner: Scanner::new(reading.places()),
            reading,
            framing: Framing::Json,
            fault: None,
        }))
    }

    fn head(&mut self, headers: &HeaderMap) {
        let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
        if encodings.any(|value| !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity")) {
            self.fault = Some(MeterError::Encoded);
        }
        let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        self.framing = match kind.as_str() {
            "text/event-stream" => Framing::Events(Sse::new()),
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/jsonlines"
            | "application/x-jsonlines"
            | "application/stream+json" => Framing::Lines,
            _ => Framing::Json,
        };
    }

    fn feed(&mut self, piece: &[u8]) {
        if self.fault.is_some() {
            return;
        }
        let Self { scanner, reading, framing, fault: _ } = self;
        match framing {
            Framing::Json => scanner.feed(piece, &mut |place, found| reading.report(place, found)),
            Framing::Lines => {
                for line in piece.split_inclusive(|byte| *byte == b'\n') {
                    scanner.feed(line, &mut |place, found| reading.report(place, found));
                    if line.ends_with(b"\n") {
                        // A line that is no JSON says nothing; the next may.
                        let _ = scanner.end(&mut |place, found| reading.report(place, found));
                    }
                }
            }
            Framing::Events(sse) => sse.feed(piece, &mut InEvents { scanner, reading }),
        }
    }

    fn finish(mut self) -> Result<Units, MeterError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let Self { scanner, reading, framing, .. } = &mut self;
        let end = scanner.end(&mut |place, found| reading.report(place, found));
        match (end, framing) {
            (Err(Broken::Syntax), Framing::Json) => Err(MeterError::NotJson),
            (Err(Broken::Depth), Framing::Json) => Err(MeterError::TooDeep),
            // The stream's last event or line was cut off: what came before was said.
            _ => reading.units(),
        }
    }
}

struct InEvents<'a> {
    scanner: &'a mut Scanner,
    reading: &'a mut Reading,
}

impl Events for InEvents<'_> {
    fn data(&mut self, bytes: &[u8]) {
        let Self { scanner, reading } = self;
        scanner.feed(bytes, &mut |place, found| reading.report(place, found));
    }

    fn end(&mut self) {
        let Self { scanner, reading } = self;
        // Data that is no JSON says nothing, such as `[DONE]`.
        let _ = scanner.end(&mut |place, found| reading.report(place, found));
    }
}

#[cfg(test)]
mod tests;
