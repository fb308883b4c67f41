//! The 402: one demand in all dialects, a page for people, problem details for programs.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use weir_protocol::amount::{Amount, Currency};
use weir_protocol::http::crawler::CrawlerPrice;
use weir_protocol::http::problem::{MEDIA_TYPE, PaymentProblem, Problem};
use weir_protocol::http::x402::{PaymentRequired, PaymentResponse, ResourceInfo};
use weir_protocol::http::{Challenge, MAX_CHALLENGE_BYTES, header as names};
use weir_protocol::id::{AccountId, HubId, PaymentId};

use super::shown::Dialect;
use crate::gate::config::Accept;

/// Most bytes of the address that a demand names; a longer one is named without its query.
const MAX_URL_BYTES: usize = 512;

/// A demand, with what is needed to say it.
#[derive(Debug)]
pub struct Demand {
    /// The challenge.
    pub challenge: Challenge,
    /// Why.
    pub problem: PaymentProblem,
    /// What is wrong with what was shown.
    pub detail: Option<String>,
    /// How much.
    pub amount: Amount,
    /// Of which currency.
    pub currency: Currency,
    /// It is the most that the request can cost.
    pub metered: bool,
    /// What is bought.
    pub title: Option<String>,
    /// Its media type.
    pub mime: Option<String>,
    /// What a claim of it carries; none for requests that have no page.
    pub code: Option<String>,
    /// For how long it opens, in milliseconds.
    pub access_ms: Option<u64>,
    /// Whether people get a page.
    pub page: bool,
    /// The random cookie of the browser that gets a page: the one that it has, or a new one. None: no page.
    pub browser: Option<String>,
    /// The challenge was paid for this browser's page already: what is missing is the cookie that opens it.
    pub is_claimed: bool,
    /// In which words something was shown.
    pub dialect: Option<Dialect>,
    /// The payment that was shown and did not do, for a payer who asks why.
    pub payment_id: Option<PaymentId>,
    /// Whether a crawler named less than it costs.
    pub crawler_short: bool,
    /// The hub.
    pub hub: HubId,
    /// The payee.
    pub payee: AccountId,
}

/// Problem details with what a program needs to decide.
#[derive(Debug, Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    problem: Problem,
    /// The stable word.
    code: &'static str,
    price: String,
    currency: Currency,
    metered: bool,
    payee: AccountId,
    hub: HubId,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment: Option<PaymentId>,
    /// The command that pays.
    pay: &'a str,
}

impl Demand {
    /// The headers of the demand, in every dialect that is on.
    pub fn headers(&self, accept: Accept, url: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut put = |name: HeaderName, text: String| {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        };
        if accept.payment {
            put(header::WWW_AUTHENTICATE, self.challenge.to_header());
        }
        if accept.x402 {
            let url = if url.len() <= MAX_URL_BYTES { url } else { url.split('?').next().unwrap_or(url) };
            let url = if url.len() <= MAX_URL_BYTES { url } else { &self.challenge.realm };
            let resource =
                ResourceInfo { url: url.to_owned(), description: self.title.clone(), mime_type: self.mime.clone() };
            let error = (self.problem != PaymentProblem::PaymentRequired).then(|| self.problem.as_str().to_owned());
            if let Ok(required) = PaymentRequired::new(&self.challenge, resource, error) {
                put(HeaderName::from_static(names::PAYMENT_REQUIRED), required.to_header());
            }
            if self.dialect == Some(Dialect::X402) {
                let refused = PaymentResponse::refused(&self.hub, self.problem.as_str());
                put(HeaderName::from_static(names::PAYMENT_RESPONSE), refused.to_header());
            }
        }
        if accept.crawler {
            let price = CrawlerPrice { currency: self.currency, amount: self.amount };
            put(HeaderName::from_static(names::CRAWLER_PRICE), price.to_string());
            if self.crawler_short {
                put(HeaderName::from_static(names::CRAWLER_ERROR), "price-too-low".to_owned());
            }
        }
        put(header::CACHE_CONTROL, "no-store".to_owned());
        put(header::VARY, "Accept, Authorization, Payment-Authorization, Payment-Signature, Cookie".to_owned());
        debug_assert!(self.challenge.to_header().len() <= MAX_CHALLENGE_BYTES, "a challenge is longer than it may be");
        headers
    }

    /// The answer for programs.
    pub fn json(&self, command: &str) -> (HeaderValue, Bytes) {
        let problem = Problem {
            challenge_id: Some(self.challenge.id.clone()),
            ..Problem::new(self.problem, self.detail.clone())
        };
        let body = Body {
            problem,
            code: self.problem.as_str(),
            price: self.amount.to_string(),
            currency: self.currency,
            metered: self.metered,
            payee: self.payee,
            hub: self.hub,
            payment: self.payment_id,
            pay: command,
        };
        (HeaderValue::from_static(MEDIA_TYPE), Bytes::from(serde_json::to_vec(&body).unwrap_or_default()))
    }

    /// The answer for programs, whole: the demand in every dialect that is on, and problem details. `url` is what was asked
    /// for, `command` what pays it.
    pub fn response(&self, accept: Accept, url: &str, command: &str) -> Response<Bytes> {
        let (kind, body) = self.json(command);
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::PAYMENT_REQUIRED;
        *response.headers_mut() = self.headers(accept, url);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }

    /// What it opens, in words: ` for 24 hours`.
    pub fn access(&self) -> String {
        self.access_ms.map_or_else(String::new, |ms| format!(" for {}", span(ms)))
    }
}

/// A span in words, in its largest whole unit.
pub fn span(ms: u64) -> String {
    let units = [(86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1_000, "second")];
    let whole = units.into_iter().find(|(unit, _)| ms >= *unit && ms.is_multiple_of(*unit));
    let (count, name) = whole.map_or((ms, "millisecond"), |(unit, name)| (ms / unit, name));
    // `24 hours` is what people say for a day.
    if name == "day" && count == 1 {
        "24 hours".to_owned()
    } else if count == 1 {
        format!("1 {name}")
    } else {
        format!("{count} {name}s")
    }
}

/// A refusal that no payment changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// The stable word.
    pub code: &'static str,
    /// What is wrong.
    pub detail: String,
    /// After how many seconds it may be tried again.
    pub retry_after_seconds: Option<u32>,
}

impl Refusal {
    /// The answer: problem details.
    pub fn response(&self) -> Response<Bytes> {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: &'a str,
            title: &'a str,
            status: u16,
            code: &'a str,
            detail: &'a str,
        }
        let body = Body {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Refused"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
        };
        let mut response = Response::new(Bytes::from(serde_json::to_vec(&body).unwrap_or_default()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn span_is_said_in_its_largest_whole_unit() {
        for (ms, words) in [
            (86_400_000, "24 hours"),
            (172_800_000, "2 days"),
            (3_600_000, "1 hour"),
            (600_000, "10 minutes"),
            (1_500, "1500 milliseconds"),
            (1_000, "1 second"),
        ] {
            assert_eq!(span(ms), words);
        }
    }
}
