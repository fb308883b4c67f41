//! Requests that must ask for their usage: OpenAI's API streams an answer without `usage` unless the request wants it. Such
//! a request is read whole, and goes up changed. What is asked of it is the meter's.

use std::borrow::Cow;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, TRAILER, TRANSFER_ENCODING};
use http::{HeaderValue, Method, StatusCode, request};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};

use crate::gate::desk::{Charge, Refusal};
use crate::gate::meter::{MAX_REQUEST_BYTES, RequestError, with_usage};
use crate::gate::price::Report;

/// Whether a request is one of those: of a route that is charged by OpenAI's `usage`, to `/…/completions`.
pub(super) fn must_ask(charge: &Charge, head: &request::Parts) -> bool {
    let by_usage = charge.metering().is_some_and(|metering| metering.report == Report::OpenAi);
    by_usage && head.method == Method::POST && head.uri.path().trim_end_matches('/').ends_with("/completions")
}

/// A request that asks for its usage.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) body: Full<Bytes>,
    /// Bytes of it that are not the client's.
    pub(super) added_bytes: usize,
}

/// Reads the body, of which each piece must come within `idle`, and makes it ask. The head is changed to fit.
pub(super) async fn asking<B>(head: &mut request::Parts, body: B, idle: Duration) -> Result<Asking, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut encodings = head.headers.get_all(CONTENT_ENCODING).iter();
    if encodings.any(|encoding| !encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity")) {
        let detail = "this is charged by usage: send the request uncompressed".to_owned();
        return Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoded-request", detail));
    }
    let bytes = read(body, idle).await?;
    let asked = with_usage(&bytes).map_err(not_asked)?;
    let (body, added_bytes) = match asked {
        Cow::Borrowed(_) => (bytes, 0),
        Cow::Owned(asked) => {
            let added = asked.len().saturating_sub(bytes.len());
            (Bytes::from(asked), added)
        }
    };
    for name in [TRANSFER_ENCODING, EXPECT, TRAILER] {
        head.headers.remove(name);
    }
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    Ok(Asking { body: Full::new(body), added_bytes })
}

async fn read<B>(mut body: B, idle: Duration) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.size_hint().lower() > MAX_REQUEST_BYTES as u64 {
        return Err(not_asked(RequestError::TooLarge));
    }
    let mut bytes = BytesMut::new();
    loop {
        let Ok(frame) = tokio::time::timeout(idle, body.frame()).await else {
            let detail = "the request's body did not come in time".to_owned();
            return Err(refusal(StatusCode::REQUEST_TIMEOUT, "request-timeout", detail));
        };
        match frame {
            None => return Ok(bytes.freeze()),
            Some(Err(_)) => {
                let detail = "the request's body broke off".to_owned();
                return Err(refusal(StatusCode::BAD_REQUEST, "broken-request", detail));
            }
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                if bytes.len() + data.len() > MAX_REQUEST_BYTES {
                    return Err(not_asked(RequestError::TooLarge));
                }
                bytes.extend_from_slice(&data);
            }
        }
    }
}

fn not_asked(error: RequestError) -> Refusal {
    let (status, code) = match error {
        RequestError::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "request-too-large"),
        RequestError::NotJson => (StatusCode::BAD_REQUEST, "not-json"),
        RequestError::NoUsage => (StatusCode::BAD_REQUEST, "no-usage"),
    };
    refusal(status, code, error.to_string())
}

fn refusal(status: StatusCode, code: &'static str, detail: String) -> Refusal {
    Refusal { status, code, detail, retry_after_seconds: None }
}
