//! Browsers' scripts of other origins: which may call, and which of the gate's headers they may read.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use crate::gate::proxy::GateBody;

/// What a script may read of an answer.
const EXPOSED: &str = "WWW-Authenticate, Payment-Receipt, PAYMENT-REQUIRED, PAYMENT-RESPONSE, crawler-price, \
crawler-charged, crawler-error, Retry-After";
/// What it may send.
const TAKEN: &str =
    "authorization, payment-authorization, payment-signature, accept-payment, idempotency-key, content-type, accept";
/// How long a browser may remember it.
const MAX_AGE_SECONDS: &str = "600";

/// An origin that may call.
#[derive(Debug, Clone)]
pub(super) struct Cors {
    allowed: HeaderValue,
    /// What a preflight asks for.
    method: Option<HeaderValue>,
    headers: Option<HeaderValue>,
}

impl Cors {
    /// Of a request from a script of an origin that may call.
    pub(super) fn of(headers: &HeaderMap, origins: &[String]) -> Option<Self> {
        let origin = headers.get(ORIGIN)?;
        let named = origins.iter().any(|one| one.as_bytes() == origin.as_bytes());
        let allowed = match (named, origins.iter().any(|one| one == "*")) {
            (true, _) => origin.clone(),
            (false, true) => HeaderValue::from_static("*"),
            (false, false) => return None,
        };
        let (method, headers) =
            (headers.get(ACCESS_CONTROL_REQUEST_METHOD).cloned(), headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned());
        Some(Self { allowed, method, headers })
    }

    /// What a browser needs to hand an answer to the script. What the upstream says about its own headers stays.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.allowed.clone());
        headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }

    /// The answer to a preflight: what the script asks to send, and what payments need.
    pub(super) fn preflight(&self) -> Response<GateBody> {
        let mut response = Response::new(GateBody::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        if let Some(method) = &self.method {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, method.clone());
        }
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(TAKEN));
        if let Some(asked) = &self.headers {
            headers.append(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_SECONDS));
        response
    }
}

/// Whether a browser asks if a script may call.
pub(super) fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}
