//! The page for people: what it costs, the command that pays, the same as a QR code. One file without requests to others,
//! at most [`MAX_PAGE_BYTES`]. Draws only; knows no request.

use fast_qr::qr::QRBuilder;
use fast_qr::{ECL, Mode};
use std::fmt::Write as _;

use base64::Engine as _;
use weir_protocol::hash::sha256;

/// Most bytes of a page, whatever its title.
pub const MAX_PAGE_BYTES: usize = 10 * 1024;
/// Most characters of a title that are shown.
const MAX_TITLE: usize = 120;

const STYLE: &str = "body{font:17px/1.5 system-ui,sans-serif;max-width:34rem;margin:8vh auto;padding:0 1rem;color:#1b1b1b;background:#fff}\
h1{font-size:1.4rem;margin:0 0 .3rem}.price{font-size:1.6rem;font-weight:600;margin:.2rem 0 1rem}\
pre{white-space:pre-wrap;word-break:break-all;background:#f2f3f5;border:1px solid #d5d7da;border-radius:6px;padding:.7rem;font-size:.85rem;margin:.3rem 0}\
button{font:inherit;padding:.45rem 1rem;border:1px solid #1b1b1b;border-radius:6px;background:#fff;cursor:pointer;color:inherit}\
svg{display:block;width:13rem;height:13rem;margin:1rem 0;background:#fff}.note{color:#555;font-size:.9rem}\
@media(prefers-color-scheme:dark){body{background:#151618;color:#eee}pre{background:#222427;border-color:#3a3d42}button{background:#222427;border-color:#888}.note{color:#aaa}}";

/// Polls the claim's address until the payment is there, then loads the page again. Gives up asking often after a while.
const SCRIPT: &str = "(()=>{const m=document.getElementById('weir'),u=m.dataset.claim,s=document.getElementById('state');let n=0;\
const c=document.getElementById('copy');c.hidden=false;\
c.onclick=()=>{const t=document.getElementById('command').textContent;(navigator.clipboard?navigator.clipboard.writeText(t):Promise.reject())\
.then(()=>{c.textContent='Copied'},()=>{const r=document.createRange();r.selectNodeContents(document.getElementById('command'));const g=getSelection();g.removeAllRanges();g.addRange(r)})};\
const f=()=>fetch(u,{headers:{accept:'application/json'},cache:'no-store'}).then(r=>r.json()).then(j=>{\
if(j.paid){s.textContent='Paid. Loading\u{2026}';location.reload();return}\
if(j.expired){s.textContent='This offer has expired. Reload the page for a new one.';return}\
setTimeout(f,n++<150?1000:5000)},()=>setTimeout(f,5000));setTimeout(f,700)})()";

/// What is on the page.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// What is bought.
    pub title: &'a str,
    /// Whose site it is.
    pub realm: &'a str,
    /// Amount and currency.
    pub price: &'a str,
    /// For how long it opens, in words.
    pub access: &'a str,
    /// The claim's public address: what a payer needs.
    pub claim: &'a str,
    /// The same with the browser's key: what the page polls. A path of this origin.
    pub poll: &'a str,
    /// Something that went wrong before, in words.
    pub notice: Option<&'a str>,
}

impl Page<'_> {
    /// The command that pays.
    pub fn command(&self) -> String {
        format!("weir pay --challenge '{}'", self.claim)
    }

    /// The page as HTML.
    pub fn html(&self) -> String {
        let title: String = self.title.chars().take(MAX_TITLE).collect();
        let title = escape(&title);
        let notice = self.notice.map_or_else(String::new, |text| format!("<p><strong>{}</strong></p>", escape(text)));
        let qr = qr(self.claim).unwrap_or_default();
        format!(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
<meta name=robots content=noindex><title>{title}</title><style>{STYLE}</style><main id=weir data-claim=\"{poll}\">\
<p class=note>{realm}</p><h1>{title}</h1><p class=price>{price}</p>{notice}\
<p>Pay with <code>weir</code>, on this machine or another, and the page opens by itself{access}.</p>\
<pre id=command>{command}</pre><button id=copy hidden>Copy</button>{qr}\
<form action=\"{path}\" method=get>{fields}<button>I have paid</button></form>\
<p class=note id=state role=status>Waiting for the payment.</p></main><script>{SCRIPT}</script></html>",
            poll = escape(self.poll),
            realm = escape(self.realm),
            price = escape(self.price),
            access = escape(self.access),
            command = escape(&self.command()),
            path = escape(self.poll.split('?').next().unwrap_or_default()),
            fields = fields(self.poll),
        )
    }
}

/// A page that only says something.
pub fn notice(title: &str, text: &str, back: &str) -> String {
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
<meta name=robots content=noindex><title>{title}</title><style>{STYLE}</style><main><h1>{title}</h1><p>{text}</p>\
<p><a href=\"{back}\">Back</a></p></main></html>",
        title = escape(title),
        text = escape(text),
        back = escape(back),
    )
}

/// The value of `Content-Security-Policy`: this script and this style, requests to this origin, nothing else.
pub fn content_security_policy() -> String {
    let hash = |text: &str| base64::engine::general_purpose::STANDARD.encode(sha256(text.as_bytes()).as_bytes());
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; form-action 'self'; \
frame-ancestors 'none'; base-uri 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
}

/// A form sends its fields, not the query of its address.
fn fields(address: &str) -> String {
    let query = address.split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.fold(String::new(), |mut html, (name, value)| {
        let _ = write!(html, "<input type=hidden name=\"{}\" value=\"{}\">", escape(name), escape(value));
        html
    })
}

/// Text for HTML, between tags and in quoted attributes.
fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut html, c| {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c if c.is_control() => html.push(' '),
            c => html.push(c),
        }
        html
    })
}

/// A QR code as one SVG path: each run of dark modules of a row is one stroke.
fn qr(text: &str) -> Option<String> {
    let code = QRBuilder::new(text).mode(Mode::Byte).ecl(ECL::L).build().ok()?;
    let size = code.size;
    let mut path = String::new();
    for (row, line) in code.data.chunks(size).take(size).enumerate() {
        let runs = line.chunk_by(|one, next| one.value() == next.value());
        let _ = write!(path, "M0 {row}.5");
        for run in runs {
            // Dark is drawn, light is stepped over; both relative, which is shortest.
            let dark = run.first().is_some_and(|module| module.value());
            let _ = if dark { write!(path, "h{}", run.len()) } else { write!(path, "m{} 0", run.len()) };
        }
    }
    Some(format!(
        "<svg viewBox='-4 -4 {side} {side}' shape-rendering=crispEdges role=img aria-label='The address as a QR code'>\
<path fill='#fff' d='M-4-4h{side}v{side}h-{side}z'/><path stroke='#000' d='{path}'/></svg>",
        side = size + 8
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(claim: &str, title: &str) -> String {
        let page = Page {
            title,
            realm: "news.example",
            price: "0.05 EUR",
            access: " for 24 hours",
            claim,
            poll: "/.weir/claim/abc?c=def&k=ghi",
            notice: None,
        };
        page.html()
    }

    #[test]
    fn page_with_the_longest_usual_address_and_any_title_stays_within_its_bytes() {
        let claim = format!(
            "https://www.a-rather-long-name-of-a-site.example/.weir/claim/{}?c={}",
            "x".repeat(43),
            "y".repeat(140)
        );
        let html = page(&claim, &"<".repeat(500));
        assert!(html.len() <= MAX_PAGE_BYTES, "{} bytes", html.len());
        assert!(html.contains("<path stroke"));
    }

    #[test]
    fn page_shows_what_it_is_given_as_text() {
        let html = page("https://a.example/'><script>alert(1)</script>", "<script>alert(2)</script>");
        assert!(!html.contains("alert(1)</script>") && !html.contains("<script>alert(2)"));
        assert_eq!(html.matches("<script>").count(), 1);
        assert!(html.contains("name=\"c\" value=\"def\""));
    }

    #[test]
    fn page_has_no_address_of_others() {
        let html = page("https://a.example/.weir/claim/x", "t");
        assert_eq!(html.matches("http").count(), 1, "the command and nothing else: {html}");
    }
}
