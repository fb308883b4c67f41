//! What the proxy answers when it cannot forward: small problem documents (RFC 9457) with a stable `code`.
//!
//! Must not say anything of the inside: no addresses, no upstream's words.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use super::body::GateBody;

/// Seconds after which a client that met a full gate may come again.
pub const RETRY_AFTER_SECONDS: u32 = 1;

/// Why the proxy itself answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Problem {
    /// The request is not one that can be forwarded: its target, `Host` or `Connection`.
    BadRequest,
    /// Its framing could be read in two ways, or is one that cannot be passed on.
    BadFraming,
    /// CONNECT or TRACE.
    MethodNotAllowed,
    /// The next piece of the request body did not come in time.
    RequestTimeout,
    /// The request body is longer than the route takes.
    TooLarge,
    /// The request target is longer than [`super::MAX_TARGET_BYTES`].
    TargetTooLong,
    /// The headers are longer than [`super::MAX_HEADER_BYTES`].
    HeadersTooLarge,
    /// The upstream cannot switch protocols, as it is spoken to in HTTP/2 only.
    UpgradeUnavailable,
    /// No connection to the upstream.
    UpstreamUnreachable,
    /// The upstream broke off, or its answer was not HTTP.
    UpstreamFailed,
    /// The upstream took too long.
    UpstreamTimeout,
    /// More requests in flight than the gate takes.
    Overloaded,
    /// A hook would not let the answer go.
    Withheld,
    /// The request has been through too many proxies like this one.
    Loop,
}

impl Problem {
    /// The answer's status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::BadFraming => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UpgradeUnavailable => StatusCode::NOT_IMPLEMENTED,
            Self::UpstreamUnreachable | Self::UpstreamFailed => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Overloaded | Self::Withheld => StatusCode::SERVICE_UNAVAILABLE,
            Self::Loop => StatusCode::LOOP_DETECTED,
        }
    }

    /// A stable word for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::BadFraming => "bad-framing",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::RequestTimeout => "request-timeout",
            Self::TooLarge => "request-too-large",
            Self::TargetTooLong => "target-too-long",
            Self::HeadersTooLarge => "headers-too-large",
            Self::UpgradeUnavailable => "upgrade-unavailable",
            Self::UpstreamUnreachable => "upstream-unreachable",
            Self::UpstreamFailed => "upstream-failed",
            Self::UpstreamTimeout => "upstream-timeout",
            Self::Overloaded => "overloaded",
            Self::Withheld => "answer-withheld",
            Self::Loop => "proxy-loop",
        }
    }

    /// One sentence for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "The request cannot be forwarded: check its target and its Host.",
            Self::BadFraming => "The length of the request's body is not clear.",
            Self::MethodNotAllowed => "This method is not served here.",
            Self::RequestTimeout => "The request's body did not arrive in time.",
            Self::TooLarge => "The request's body is too long.",
            Self::TargetTooLong => "The request's address is too long.",
            Self::HeadersTooLarge => "The request's headers are too long.",
            Self::UpgradeUnavailable => "The server behind this gate cannot switch protocols.",
            Self::UpstreamUnreachable => "The server behind this gate cannot be reached.",
            Self::UpstreamFailed => "The server behind this gate did not answer properly.",
            Self::UpstreamTimeout => "The server behind this gate did not answer in time.",
            Self::Overloaded => "Too many requests are being served; try again.",
            Self::Withheld => "The answer could not be accounted for and is withheld; try again.",
            Self::Loop => "The request has passed this kind of gate too often.",
        }
    }

    /// The whole answer. The connection is closed where what follows on it could not be trusted.
    pub fn response(self) -> Response<GateBody> {
        let status = self.status();
        let body = format!(
            "{{\"type\":\"about:blank\",\"title\":\"{}\",\"status\":{},\"code\":\"{}\"}}",
            self.title(),
            status.as_u16(),
            self.code()
        );
        let mut response = Response::new(GateBody::full(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self {
            Self::Overloaded | Self::Withheld => {
                headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
            }
            Self::MethodNotAllowed => {
                headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
            }
            Self::BadFraming | Self::RequestTimeout | Self::TooLarge => {
                // HTTP/2 has no such header; the listener takes it out there.
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}
