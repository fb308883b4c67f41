//! The demo news site: a free front page, and articles that its gate charges for. It knows nothing of money.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::get;
use weir_client::protocol::amount::Amount;
use weir_client::protocol::id::{AccountId, HubAddress};

/// Articles of the archive.
const ARTICLES: u64 = 60;
/// The price of one, in nanos: 0.05 EUR.
const PRICE_NANOS: u64 = 50_000_000;

const STYLE: &str = "<style>:root{color-scheme:light dark}body{max-width:38rem;margin:2rem auto;padding:0 1rem;font:1.05rem/1.6 \
    Georgia,serif}h1{line-height:1.2}small{opacity:.7}</style>";

/// What happens, where, and what is said about it: articles take them by turns.
const THINGS: [&str; 6] =
    ["The harbour crane", "A lost umbrella", "The night train", "The town clock", "A stubborn goat", "The old weir"];
const PLACES: [&str; 5] =
    ["by the fish market", "behind the library", "at platform three", "below the castle", "on the ring road"];
const WORDS: [&str; 4] = [
    "Witnesses agree on little, except that it was louder than usual and that somebody should write it down.",
    "The mayor calls it a matter for the council; the council calls it a matter for the mayor.",
    "A retired engineer explained the mechanism with two spoons and a napkin, and was believed.",
    "By noon there was coffee, by evening there was a committee, and by night there was quiet again.",
];

pub(super) const fn price() -> Amount {
    Amount::from_nanos(PRICE_NANOS)
}

/// Where an article is.
pub(super) fn path(number: u64) -> String {
    format!("/article/{number}")
}

/// What the reader opens at a turn: a new article, and each third time the one before again.
pub(super) const fn choice(turn: u64) -> u64 {
    (turn - turn.div_ceil(3)) % ARTICLES + 1
}

/// The gate's configuration.
pub(super) fn config(upstream: SocketAddr, payee: AccountId, hub: &HubAddress) -> String {
    let price = price();
    format!(
        r#"# The gate before the demo news site, written by `weir-hub dev`. Prices are read again when this file changes.
listen = "127.0.0.1:0"
upstream = "http://{upstream}"
realm = "gazette.example"
payee = "{payee}"
hub = "{hub}"
state = "news/balances"
secret_file = "news/secret"
default = "free"

[[route]]
match = "GET /article/{{id}}"
price = "{price}"
title = "An article of the Morning Gazette"
access = "24h"
"#
    )
}

/// The site.
pub(super) fn site() -> Router {
    Router::new().route("/", get(async || Html(front()))).route("/article/{number}", get(article))
}

fn pick<'a>(list: &[&'a str], number: u64) -> &'a str {
    let place = usize::try_from(number % list.len() as u64).unwrap_or_default();
    list.get(place).copied().unwrap_or_default()
}

fn title(number: u64) -> String {
    format!("{} {}", pick(&THINGS, number), pick(&PLACES, number))
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title}</title><link rel=icon href=\"data:,\">{STYLE}{body}"
    )
}

fn front() -> String {
    let list: String = (1..=ARTICLES)
        .flat_map(|number| {
            ["<li><a href=\"".to_owned(), path(number), "\">".to_owned(), title(number), "</a>".to_owned()]
        })
        .collect();
    let lead = format!("<p>This page is free. An article costs {} EUR and stays open for a day.", price());
    page(
        "Morning Gazette",
        &format!("<h1>Morning Gazette</h1>{lead}<ol>{list}</ol><p><small>A demo of `weir-hub dev`.</small>"),
    )
}

async fn article(Path(number): Path<String>) -> (StatusCode, Html<String>) {
    let number = number.parse().ok().filter(|number| (1..=ARTICLES).contains(number));
    let Some(number) = number else {
        return (
            StatusCode::NOT_FOUND,
            Html(page("Not found", "<h1>There is no such article</h1><a href=\"/\">Home</a>")),
        );
    };
    let text: String = (0..4).flat_map(|part| ["<p>", pick(&WORDS, number + part)]).collect();
    let title = title(number);
    (StatusCode::OK, Html(page(&title, &format!("<p><a href=\"/\">Morning Gazette</a><h1>{title}</h1>{text}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reader_opens_each_article_and_every_third_time_one_again() {
        let turns: Vec<u64> = (0..7).map(choice).collect();
        assert_eq!(turns, [1, 1, 2, 3, 3, 4, 5]);
        assert!((0..1_000).all(|turn| (1..=ARTICLES).contains(&choice(turn))));
    }
}
