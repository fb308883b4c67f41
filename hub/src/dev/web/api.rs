//! The demo API: chat completions in the shape that OpenAI's API made common, streamed or whole, with `usage`. A toy: its
//! words are made by rule from the prompt. It knows nothing of money; its gate counts the tokens.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Response, StatusCode};
use axum::routing::post;
use http_body::Frame;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;
use weir_client::protocol::amount::Amount;
use weir_client::protocol::id::{AccountId, HubAddress};

/// Where it answers.
pub(super) const PATH: &str = "/v1/chat/completions";
/// What the toy calls itself.
pub(super) const MODEL: &str = "weir-toy-1";
/// Most tokens of a prompt and of an answer: what the gate reserves.
const MAX_INPUT: u64 = 500;
const MAX_OUTPUT: u64 = 200;
/// Tokens of an answer when the request does not say.
const USUAL_OUTPUT: u64 = 48;
/// Prices of a token, in nanos: 20 and 60 EUR for a million.
const INPUT_NANOS: u64 = 20_000;
const OUTPUT_NANOS: u64 = 60_000;
/// Between two words.
const WORD_PAUSE: Duration = Duration::from_millis(4);

const PHRASES: [&str; 5] = [
    "water finds its level, and so does",
    "a small amount of patience goes into",
    "nobody measures it, yet everybody pays for",
    "between two gates there is room for",
    "the shortest answer is often just",
];

/// What was used: a word is a token.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the API's names")]
pub(super) struct Usage {
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
    pub(super) total_tokens: u64,
}

impl Usage {
    /// What the gate's prices make of it.
    pub(super) const fn cost(self) -> Amount {
        let input = self.prompt_tokens.saturating_mul(INPUT_NANOS);
        Amount::from_nanos(input.saturating_add(self.completion_tokens.saturating_mul(OUTPUT_NANOS)))
    }
}

#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default)]
    messages: Vec<Message>,
    #[serde(default)]
    stream: bool,
    max_tokens: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Message {
    #[serde(default)]
    content: String,
}

/// The gate's configuration.
pub(super) fn config(upstream: SocketAddr, payee: AccountId, hub: &HubAddress) -> String {
    let millions = |nanos: u64| Amount::from_nanos(nanos.saturating_mul(1_000_000));
    let (input, output) = (millions(INPUT_NANOS), millions(OUTPUT_NANOS));
    format!(
        r#"# The gate before the demo API, written by `weir-hub dev`. Prices are read again when this file changes.
listen = "127.0.0.1:0"
upstream = "http://{upstream}"
realm = "api.example"
payee = "{payee}"
hub = "{hub}"
state = "api/balances"
secret_file = "api/secret"
default = "free"

[[route]]
match = "POST {PATH}"
title = "Words of a toy model"
[route.unit]
from = "openai"
input = "{input}"
output = "{output}"
per = 1000000
max_input = {MAX_INPUT}
max_output = {MAX_OUTPUT}
"#
    )
}

/// The service.
pub(super) fn service() -> Router {
    Router::new().route(PATH, post(complete))
}

async fn complete(body: Bytes) -> Response<Body> {
    let Ok(asked) = serde_json::from_slice::<Asked>(&body) else {
        return refused("the body is no request for chat completions");
    };
    let prompt: Vec<&str> = asked.messages.iter().flat_map(|message| message.content.split_whitespace()).collect();
    let prompt_tokens = prompt.len() as u64;
    if prompt_tokens > MAX_INPUT {
        return refused("the prompt is longer than 500 words");
    }
    let words = words(&prompt, asked.max_tokens.unwrap_or(USUAL_OUTPUT).clamp(1, MAX_OUTPUT));
    let completion_tokens = words.len() as u64;
    let usage = Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens };
    if asked.stream {
        return streamed(words, usage);
    }
    let answer = json!({
        "id": "chatcmpl-toy", "object": "chat.completion", "created": 0, "model": MODEL, "usage": usage,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": words.join(" ")}}],
    });
    answered(StatusCode::OK, "application/json", Body::from(answer.to_string()))
}

fn answered(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, axum::http::HeaderValue::from_static(kind));
    response
}

fn refused(what: &str) -> Response<Body> {
    let error = json!({"error": {"message": what, "type": "invalid_request_error"}});
    answered(StatusCode::BAD_REQUEST, "application/json", Body::from(error.to_string()))
}

/// So many words about the longest word of the prompt.
fn words(prompt: &[&str], count: u64) -> Vec<String> {
    let plain = |word: &&str| word.chars().filter(|letter| letter.is_alphanumeric()).collect::<String>();
    let topic = prompt.iter().map(plain).max_by_key(String::len).filter(|topic| !topic.is_empty());
    let topic = topic.unwrap_or_else(|| "silence".to_owned());
    let phrases =
        PHRASES.iter().cycle().flat_map(|phrase| phrase.split(' ').map(str::to_owned).chain([format!("{topic}.")]));
    phrases.take(usize::try_from(count).unwrap_or_default()).collect()
}

/// A word a chunk, as server-sent events; the last one carries `usage`.
fn streamed(words: Vec<String>, usage: Usage) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let chunk = |choices: serde_json::Value, usage: Option<Usage>| {
            let mut chunk = json!({
                "id": "chatcmpl-toy", "object": "chat.completion.chunk", "created": 0, "model": MODEL, "choices": choices,
            });
            if let (Some(usage), Some(fields)) = (usage, chunk.as_object_mut()) {
                fields.insert("usage".to_owned(), json!(usage));
            }
            Bytes::from(format!("data: {chunk}\n\n"))
        };
        for word in words {
            let choice = json!([{"index": 0, "finish_reason": null, "delta": {"content": format!("{word} ")}}]);
            if sender.send(chunk(choice, None)).await.is_err() {
                return;
            }
            tokio::time::sleep(WORD_PAUSE).await;
        }
        let stop = json!([{"index": 0, "finish_reason": "stop", "delta": {}}]);
        for last in [chunk(stop, None), chunk(json!([]), Some(usage)), Bytes::from_static(b"data: [DONE]\n\n")] {
            if sender.send(last).await.is_err() {
                return;
            }
        }
    });
    answered(StatusCode::OK, "text/event-stream", Body::new(Pieces(receiver)))
}

/// A body of what a channel hands over.
struct Pieces(mpsc::Receiver<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_many_as_asked_and_about_the_prompt() {
        let words = words(&["Why", "umbrellas?"], 20);
        assert_eq!(words.len(), 20);
        assert!(words.iter().any(|word| word == "umbrellas."));
        assert_eq!(super::words(&[], 1).len(), 1);
    }

    #[test]
    fn usage_costs_what_its_tokens_cost() {
        let usage = Usage { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 };
        assert_eq!(usage.cost(), Amount::from_nanos(3 * 20_000 + 2 * 60_000));
    }
}
