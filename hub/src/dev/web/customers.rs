//! Who pays in the demo: a reader of articles and an agent that calls the API, each with a home, a channel and a small
//! budget. They pay as anybody's program would, through `weir_client::fetch`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use weir_client::Client;
use weir_client::fetch::{self, FetchError, LanePurse, Limits, Options, PayMiddleware, Payer, Prepay, Store};
use weir_client::protocol::amount::{Amount, Currency, Time};
use weir_client::protocol::http::{PaymentReceipt, header};
use weir_client::protocol::id::HubAddress;

use super::api::{MODEL, Usage};
use super::news;
use crate::clock::wall_ms;
use crate::dev::bank::DevBank;
use crate::dev::people::Person;

/// What a customer has at the hub, may spend in all and on one request; what the agent prepays. In nanos.
const DEPOSIT_NANOS: u64 = 5_000_000_000;
const BUDGET_NANOS: u64 = 1_000_000_000;
const PER_REQUEST_NANOS: u64 = 50_000_000;
const PREPAID_NANOS: u64 = 100_000_000;
/// Longest wait for a server.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Most bytes of an answer.
const MAX_ANSWER_BYTES: usize = 1 << 20;

const QUESTIONS: [&str; 5] = [
    "Will it rain on the harbour tomorrow?",
    "Explain a payment channel to a goat.",
    "Summarise the history of umbrellas in one breath.",
    "Why do streams have backpressure?",
    "What does a nano of a euro buy?",
];

/// What the agent pays at once.
pub(super) const fn prepaid() -> Amount {
    Amount::from_nanos(PREPAID_NANOS)
}

/// Somebody who buys.
#[derive(Debug, Clone)]
pub(super) struct Customer {
    client: Client,
    web: ClientWithMiddleware,
    url: String,
}

/// What an article cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Read {
    pub(super) paid: Amount,
    pub(super) left: Amount,
}

/// What a call cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Called {
    pub(super) paid: Amount,
    /// What the gate says that it drew.
    pub(super) drawn: Amount,
    pub(super) left: Amount,
    /// What the usage comes to.
    pub(super) costs: Amount,
}

/// Whether a customer's budget was in the way.
pub(super) fn is_spent(error: &anyhow::Error) -> bool {
    // The middleware's errors come in a box of their own.
    error.chain().any(|cause| match cause.downcast_ref::<reqwest_middleware::Error>() {
        Some(reqwest_middleware::Error::Middleware(inner)) => {
            matches!(inner.downcast_ref::<FetchError>(), Some(FetchError::Budget(_)))
        }
        _ => matches!(cause.downcast_ref::<FetchError>(), Some(FetchError::Budget(_))),
    })
}

impl Customer {
    pub(super) async fn reader(homes: &Path, hub: &HubAddress, bank: &DevBank, url: String) -> anyhow::Result<Self> {
        Self::new(Person::register(homes, "reader", "Rosa Reader", 201, hub).await?, bank, Prepay::Exact, url).await
    }

    pub(super) async fn agent(homes: &Path, hub: &HubAddress, bank: &DevBank, url: String) -> anyhow::Result<Self> {
        let person = Person::register(homes, "agent", "Agnes Agent", 202, hub).await?;
        Self::new(person, bank, Prepay::Amount(prepaid()), url).await
    }

    async fn new(person: Person, bank: &DevBank, prepay: Prepay, url: String) -> anyhow::Result<Self> {
        let deposit = Amount::from_nanos(DEPOSIT_NANOS);
        person.transfer(bank, deposit).await?;
        person.wait_for(deposit).await?;
        let opened = person.open(deposit, Time(wall_ms())).await?;
        let limits = Limits {
            per_request: Some(Amount::from_nanos(PER_REQUEST_NANOS)),
            in_all: Some(Amount::from_nanos(BUDGET_NANOS)),
            ..Limits::default()
        };
        let store = Store::open(&person.home, BTreeMap::from([(Currency::EUR, limits)]), fetch::DAY_MS)?;
        let purse = LanePurse::new(&person.client, opened.lane.id())?;
        let payer = Payer::new(Arc::new(purse), store, Options { prepay, ..Options::default() });
        let web = ClientBuilder::new(fetch::client(None, Some(TIMEOUT))?).with(PayMiddleware::new(payer)).build();
        Ok(Self { client: person.client, web, url })
    }

    /// Reads an article.
    pub(super) async fn read(&self, number: u64) -> anyhow::Result<Read> {
        let answer = self.web.get(format!("{}{}", self.url, news::path(number))).send().await?;
        ensure!(answer.status().is_success(), "the news site answered {}", answer.status());
        let paid = answer.extensions().get::<fetch::Paid>().cloned().context("the article was not paid for")?;
        let (text, _) = whole(answer).await?;
        ensure!(text.contains("<h1>"), "what came is no article");
        Ok(Read { paid: paid.paid, left: paid.left })
    }

    /// Calls the API, and reads its stream to the end.
    pub(super) async fn call(&self, turn: u64) -> anyhow::Result<Called> {
        let place = usize::try_from(turn % QUESTIONS.len() as u64).unwrap_or_default();
        let question = QUESTIONS.get(place).copied().unwrap_or_default();
        let ask = serde_json::json!({
            "model": MODEL, "stream": true, "stream_options": {"include_usage": true}, "max_tokens": 30 + 4 * (turn % 5),
            "messages": [{"role": "user", "content": question}],
        });
        let request = self.web.post(&self.url).header("content-type", "application/json").header("te", "trailers");
        let answer = request.body(ask.to_string()).send().await?;
        ensure!(answer.status().is_success(), "the API answered {}", answer.status());
        let paid = answer.extensions().get::<fetch::Paid>().cloned().context("the call was not paid for")?;
        let (text, receipt) = whole(answer).await?;
        let usage = usage(&text).context("the stream ended without usage")?;
        let receipt = receipt.context("the stream ended without a receipt")?;
        Ok(Called { paid: paid.paid, drawn: receipt.drawn, left: receipt.left, costs: usage.cost() })
    }

    pub(super) async fn leave(&self) {
        self.client.shut_down().await;
    }
}

/// An answer to its end, and the receipt in its trailers.
async fn whole(answer: reqwest::Response) -> anyhow::Result<(String, Option<PaymentReceipt>)> {
    let mut body = std::pin::pin!(reqwest::Body::from(answer));
    let (mut text, mut receipt) = (Vec::new(), None);
    while let Some(frame) = std::future::poll_fn(|context| http_body::Body::poll_frame(body.as_mut(), context)).await {
        match frame?.into_data() {
            Ok(data) => text.extend_from_slice(&data),
            Err(frame) => {
                let value = frame.trailers_ref().and_then(|trailers| trailers.get(header::PAYMENT_RECEIPT));
                receipt = value.and_then(|value| value.to_str().ok()).and_then(PaymentReceipt::from_header);
            }
        }
        ensure!(text.len() <= MAX_ANSWER_BYTES, "an answer of more than {MAX_ANSWER_BYTES} bytes");
    }
    Ok((String::from_utf8(text)?, receipt))
}

/// The usage that the last chunks of a stream tell.
fn usage(stream: &str) -> Option<Usage> {
    let data = stream.lines().rev().filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|text| serde_json::from_str::<serde_json::Value>(text).ok())
        .find_map(|chunk| serde_json::from_value(chunk.get("usage")?.clone()).ok())
}
