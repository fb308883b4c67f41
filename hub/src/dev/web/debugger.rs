//! The payment debugger: what passed the demo's gates, newest first, each exchange drawn and decoded.
//!
//! Drawn in the server, without scripts; it asks for nothing from anywhere else. It shows ids shortened and no credential.

use std::fmt::{Display, Write as _};

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use axum::response::IntoResponse;
use axum::routing::get;
use weir_client::protocol::http::PaymentReceipt;

use super::diagram::{clock, escaped, short, svg};
use super::record::{Board, Exchange, MAX_EXCHANGES};

/// Exchanges that are drawn on the first page; the others are rows.
const DRAWN: usize = 12;
/// The page is loaded again after so many seconds.
const REFRESH_SECONDS: u64 = 4;

const HEADERS: [(HeaderName, &str); 4] = [
    (CONTENT_TYPE, "text/html; charset=utf-8"),
    (CACHE_CONTROL, "no-store"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

const STYLE: &str = ":root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#667;--line:#ccd;--ask:#57606a;--pay:#9a6700;\
    --ok:#1a7f37;--bad:#b3261e}\
    @media(prefers-color-scheme:dark){:root{--bg:#14171c;--fg:#e6e9ee;--dim:#99a;--line:#3a404b;--ask:#a8b3c0;--pay:#e3b341;\
    --ok:#56d364;--bad:#ff8a80}}\
    *{box-sizing:border-box}body{margin:0 auto;max-width:76rem;padding:.8rem;background:var(--bg);color:var(--fg);\
    font:15px/1.45 system-ui,sans-serif}h1{font-size:1.3rem;margin:.2rem 0}h2{font-size:1rem;margin:0;overflow-wrap:anywhere}\
    p{margin:.3rem 0}a{color:inherit}small,.dim{color:var(--dim)}\
    main{display:grid;gap:.8rem;align-items:start;grid-template-columns:repeat(auto-fill,minmax(min(100%,24rem),1fr))}\
    article{border:1px solid var(--line);border-radius:8px;padding:.6rem;min-width:0}\
    svg{display:block;width:100%;max-width:36rem;font:11px system-ui,sans-serif}\
    svg text{fill:var(--c,var(--fg));paint-order:stroke;stroke:var(--bg);stroke-width:4px;stroke-linejoin:round}\
    svg .who{text-anchor:middle;font-weight:600;fill:var(--dim)}svg .lane{stroke:var(--line);stroke-dasharray:3 3}\
    g line{stroke:var(--c);stroke-width:1.5}g polygon,g circle{fill:var(--c)}\
    .ask{--c:var(--ask)}.challenge{--c:var(--bad)}.payment,.receipt{--c:var(--pay)}.credential{--c:var(--fg)}\
    .answer,.draw,.check{--c:var(--ok)}\
    details{margin-top:.4rem}summary{cursor:pointer}h3{font-size:.85rem;margin:.6rem 0 .1rem}\
    dl{display:grid;grid-template-columns:minmax(5.5rem,auto) 1fr;gap:0 .6rem;margin:0;font-size:.85rem}dt{color:var(--dim)}\
    dd{margin:0;overflow-wrap:anywhere;font-family:ui-monospace,monospace}\
    ul{padding-left:1.1rem}li{overflow-wrap:anywhere}";

/// The pages.
pub(super) fn pages(board: Board) -> Router {
    Router::new().route("/", get(list)).route("/exchange/{number}", get(single)).with_state(board)
}

fn page(title: &str, refresh: bool, body: &str) -> String {
    let refresh =
        if refresh { format!("<meta http-equiv=\"refresh\" content=\"{REFRESH_SECONDS}\">") } else { String::new() };
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">{refresh}<title>{title}</title>\
         <link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style></head><body>{body}</body></html>"
    )
}

async fn list(State(board): State<Board>, RawQuery(query): RawQuery) -> impl IntoResponse {
    let holds = query.as_deref() == Some("hold");
    let (newest, count) = board.newest();
    let mut body = String::from("<header><h1>Payment debugger</h1><p class=\"dim\">");
    let _ = write!(body, "{count} exchanges passed the gates of this demo; the newest {MAX_EXCHANGES} are kept. ");
    body.push_str(if holds {
        "<a href=\"/\">Go on</a></p></header>"
    } else {
        "The page renews itself. <a href=\"/?hold\">Hold it</a></p></header>"
    });
    if newest.is_empty() {
        body.push_str("<p>Nothing yet: fetch an article.</p>");
    }
    body.push_str("<main>");
    for one in newest.iter().take(DRAWN) {
        body.push_str(&article(one, false));
    }
    body.push_str("</main>");
    if newest.len() > DRAWN {
        body.push_str("<h2>Earlier</h2><ul>");
        for one in newest.iter().skip(DRAWN) {
            let _ = write!(body, "<li>{} <small>{}</small></li>", title(one), escaped(&outcome(one)));
        }
        body.push_str("</ul>");
    }
    (HEADERS, page("Payment debugger", !holds, &body))
}

async fn single(State(board): State<Board>, Path(number): Path<String>) -> impl IntoResponse {
    let back = "<p><a href=\"/\">All exchanges</a></p>";
    match number.parse().ok().and_then(|number| board.find(number)) {
        Some(one) => {
            (StatusCode::OK, HEADERS, page("Exchange", one.end.is_none(), &(back.to_owned() + &article(&one, true))))
        }
        None => (
            StatusCode::NOT_FOUND,
            HEADERS,
            page("Not kept", false, &format!("{back}<p>This exchange is not kept.</p>")),
        ),
    }
}

fn title(one: &Exchange) -> String {
    format!("<a href=\"/exchange/{0}\">#{0} {1} {2}</a>", one.number, escaped(&one.method), escaped(&one.path))
}

/// What became of it, in a few words.
fn outcome(one: &Exchange) -> String {
    match (&one.answer, &one.end) {
        (None, _) if one.shown.is_some() => "what was shown was not taken".to_owned(),
        (None, _) => "not paid yet".to_owned(),
        (Some(answer), Some(end)) if !end.whole => format!("{}, broken off", answer.status.as_u16()),
        (Some(answer), Some(end)) => {
            let receipt = end.trailer.as_ref().or(answer.receipt.as_ref());
            let drawn = receipt.map(|receipt| format!(", {} {} drawn", receipt.drawn, receipt.currency));
            format!("{}{}", answer.status.as_u16(), drawn.unwrap_or_default())
        }
        (Some(answer), None) if answer.receipt.is_some() => format!("{}, under way", answer.status.as_u16()),
        (Some(answer), None) => answer.status.to_string(),
    }
}

fn article(one: &Exchange, open: bool) -> String {
    let mut html = format!("<article id=\"x{}\" data-site=\"{}\"><h2>{}</h2>", one.number, one.site, title(one));
    let _ = write!(
        html,
        "<p><small>{} · {} · {}</small> <b>{}</b></p>",
        one.site,
        clock(one.began),
        escaped(&one.agent),
        escaped(&outcome(one))
    );
    html.push_str(&svg(one));
    let _ = write!(html, "<details{}><summary>Decoded headers</summary>", if open { " open" } else { "" });
    decoded(&mut html, one);
    html.push_str("</details></article>");
    html
}

fn part(html: &mut String, title: &str, rows: &[(&str, &dyn Display)]) {
    let _ = write!(html, "<h3>{title}</h3><dl>");
    for (name, value) in rows {
        let value = value.to_string();
        if !value.is_empty() {
            let _ = write!(html, "<dt>{name}</dt><dd>{}</dd>", escaped(&value));
        }
    }
    html.push_str("</dl>");
}

fn decoded(html: &mut String, one: &Exchange) {
    if let Some(demand) = &one.demand {
        let (charge, details) = (&demand.request, &demand.request.details);
        let amount = format!("{} {}", charge.amount, charge.currency);
        let kind = if details.metered { "metered: the most that it can cost" } else { "the price" };
        let resource = details.resource.and_then(|resource| serde_json::to_value(resource).ok());
        let resource = resource.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
        part(
            html,
            "Challenge (WWW-Authenticate)",
            &[
                ("at", &clock(demand.at)),
                ("id", &short(&demand.id)),
                ("realm", &demand.realm),
                ("amount", &amount),
                ("which is", &kind),
                ("for", &charge.description.as_deref().unwrap_or_default()),
                ("payee", &charge.recipient),
                ("hub", &details.hub),
                ("resource", &resource),
                ("expires", &demand.expires),
                ("reference", &short(&demand.reference.to_string())),
            ],
        );
    }
    if let Some(shown) = &one.shown {
        let title = format!("Credential ({})", shown.header);
        part(
            html,
            &title,
            &[
                ("at", &clock(shown.at)),
                ("challenge", &short(&shown.challenge)),
                ("paid", &shown.amount),
                ("reference", &short(&shown.reference.to_string())),
            ],
        );
        if let Some(receipt) = &shown.receipt {
            part(
                html,
                "Receipt of the hub, inside",
                &[
                    ("payment", &receipt.payment_id),
                    ("commit", &format_args!("{} of chain {}", receipt.commit, receipt.chain)),
                    ("committed", &clock(receipt.time)),
                    ("signed by", &short(&receipt.key)),
                ],
            );
        }
    }
    if let Some(answer) = &one.answer {
        part(html, "Answer", &[("at", &clock(answer.at)), ("status", &answer.status)]);
        if let Some(receipt) = &answer.receipt {
            said(html, "Payment-Receipt", receipt);
        }
    }
    if let Some(end) = &one.end {
        if let Some(trailer) = &end.trailer {
            said(html, "Payment-Receipt in the trailers", trailer);
        }
        let how = if end.whole { "whole" } else { "broken off" };
        part(html, "End", &[("at", &clock(end.at)), ("body", &format_args!("{} bytes, {how}", end.bytes))]);
        if let Some((paid, drawn, left)) = &end.balance {
            part(html, "Balance at the gate", &[("paid", paid), ("drawn", drawn), ("left", left)]);
        }
    }
}

fn said(html: &mut String, title: &str, receipt: &PaymentReceipt) {
    let most = if receipt.metered { " at most" } else { "" };
    part(
        html,
        title,
        &[
            ("status", &receipt.status),
            ("payment", &receipt.reference),
            ("challenge", &short(receipt.challenge_id.as_deref().unwrap_or_default())),
            ("amount", &format_args!("{} {}", receipt.amount, receipt.currency)),
            ("drawn", &format_args!("{}{most}", receipt.drawn)),
            ("left", &receipt.left),
            ("at", &receipt.timestamp),
        ],
    );
}
