//! What a request must say so that a streamed answer of OpenAI's API reports its usage.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};

/// The largest request that is looked into; the gate holds it whole.
pub const MAX_REQUEST_BYTES: usize = 32 * 1024 * 1024;

/// Why a request is not passed on; the answer is 400 (413 for [`RequestError::TooLarge`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Larger than [`MAX_REQUEST_BYTES`].
    #[error("the request is larger than {MAX_REQUEST_BYTES} bytes")]
    TooLarge,
    /// Not an object of JSON, or a member that counts stands in it twice.
    #[error("the request is not a JSON object")]
    NotJson,
    /// The client asks for a stream without usage.
    #[error("this is charged by usage: leave `stream_options` out, or set its `include_usage` to true")]
    NoUsage,
}

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default, deserialize_with = "there")]
    stream_options: Option<StreamOptions>,
}

/// Options that stand there as `null` say nothing of usage; others could not be put beside them.
fn there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<StreamOptions>, D::Error> {
    let options = Option::deserialize(deserializer)?;
    Ok(Some(options.unwrap_or(StreamOptions { include_usage: None })))
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

/// A request of the Chat Completions API that asks for usage: the same bytes, or with `stream_options` put in front when
/// the client asks for a stream and says nothing of them. A client that does not expect the last piece of the stream, which
/// has `usage` and no `choices`, gets it all the same; OpenAI's libraries pass over it.
///
/// `stream_options` that turn usage off are refused, since the answer could not be charged.
pub fn with_usage(body: &[u8]) -> Result<Cow<'_, [u8]>, RequestError> {
    if body.len() > MAX_REQUEST_BYTES {
        return Err(RequestError::TooLarge);
    }
    let start = body.iter().position(|byte| !byte.is_ascii_whitespace());
    let Some(start) = start.filter(|at| body.get(*at) == Some(&b'{')) else { return Err(RequestError::NotJson) };
    let request: Request = serde_json::from_slice(body).map_err(|_| RequestError::NotJson)?;
    if request.stream != Some(true) {
        return Ok(Cow::Borrowed(body));
    }
    match request.stream_options {
        Some(StreamOptions { include_usage: Some(true) }) => Ok(Cow::Borrowed(body)),
        Some(_) => Err(RequestError::NoUsage),
        None => {
            let (before, after) = body.split_at(start + 1);
            Ok(Cow::Owned([before, br#""stream_options":{"include_usage":true},"#, after].concat()))
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn asked(text: &str) -> Result<Value, RequestError> {
        with_usage(text.as_bytes()).map(|body| serde_json::from_slice(&body).unwrap())
    }

    #[test]
    fn stream_without_options_asks_for_usage_and_all_else_stays() {
        let asked = asked(r#" {"stream":true,"messages":[{"content":"x"}]}"#).unwrap();
        let expected =
            json!({"stream": true, "messages": [{"content": "x"}], "stream_options": {"include_usage": true}});
        assert_eq!(asked, expected);
    }

    #[test]
    fn request_that_needs_nothing_keeps_its_bytes() {
        for text in [
            "{}",
            r#"{"stream":false}"#,
            r#"{"stream":null}"#,
            r#"{"model":"m", "temperature":0.10}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        ] {
            assert!(
                matches!(with_usage(text.as_bytes()), Ok(Cow::Borrowed(body)) if body == text.as_bytes()),
                "{text}"
            );
        }
    }

    #[test]
    fn stream_that_turns_usage_off_is_refused() {
        for text in [
            r#"{"stream":true,"stream_options":{"include_usage":false}}"#,
            r#"{"stream":true,"stream_options":{}}"#,
            r#"{"stream":true,"stream_options":null}"#,
            r#"{"stream":true,"stream\u005foptions":null}"#,
        ] {
            assert_eq!(asked(text), Err(RequestError::NoUsage), "{text}");
        }
    }

    #[test]
    fn request_that_is_no_object_or_names_a_member_twice_is_refused() {
        for text in [
            "",
            "[]",
            "[true]",
            "null",
            "{",
            r#"{"stream":"true"}"#,
            r#"{"stream":false,"stream":true}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true},"stream_options":{"include_usage":false}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true,"include_usage":false}}"#,
        ] {
            assert_eq!(asked(text), Err(RequestError::NotJson), "{text}");
        }
    }

    #[test]
    fn request_at_its_largest_is_read_and_a_byte_more_is_not() {
        let mut body = b"{}".to_vec();
        body.resize(MAX_REQUEST_BYTES, b' ');
        assert!(with_usage(&body).is_ok());
        body.push(b' ');
        assert_eq!(with_usage(&body), Err(RequestError::TooLarge));
    }
}
