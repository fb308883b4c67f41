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

const STYLE: &str = ":root{color-scheme:light dark;--ink:#1b1c1e;--soft:#5c6066;--line:#d9dbdf;--box:#f4f5f7;--page:#fff;--go:#0b57d0;--on:#fff}\
@media(prefers-color-scheme:dark){:root{--ink:#ececee;--soft:#a6abb3;--line:#3b3f45;--box:#212429;--page:#16181b;--go:#8ab4f8;--on:#10131a}}\
*{box-sizing:border-box}[hidden]{display:none!important}body{font:17px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:0}\
main{max-width:40rem;margin:0 auto;padding:min(9vh,4.5rem) 1.1rem 3rem}h1{font-size:1.55rem;line-height:1.25;margin:.15rem 0 .6rem;overflow-wrap:anywhere}\
p{margin:.7rem 0}.soft{color:var(--soft);font-size:.92rem}.price{font-size:1.15rem;margin:0 0 1.3rem}.price b{font-size:1.7rem}\
.notice{border-left:4px solid var(--go);padding-left:.8rem}\
#pay{display:flex;flex-wrap:wrap;gap:1.2rem;align-items:flex-start;border:1px solid var(--line);border-radius:12px;padding:1.1rem;margin:1.2rem 0}\
#pay>div{flex:1 1 15rem;min-width:0}pre{font-size:.82rem;line-height:1.45;white-space:pre-wrap;word-break:break-all;background:var(--box);border-radius:8px;padding:.75rem;margin:0 0 .7rem}\
figure{margin:0 auto;text-align:center}svg{display:block;width:14rem;max-width:100%;height:auto;border-radius:8px}figcaption{margin-top:.4rem}\
button{font:inherit;font-weight:600;color:var(--on);background:var(--go);border:1px solid var(--go);border-radius:8px;padding:.5rem 1.1rem;cursor:pointer;text-decoration:none;display:inline-block}\
#copy{color:inherit;background:none;border-color:var(--line)}form{display:flex;flex-wrap:wrap;gap:.4rem 1rem;align-items:center}\
form p{margin:0}.over #pay,.over #how,.paid #pay,.paid #how{display:none}";

/// Polls the claim's address until the payment is there, then loads the page again. Gives up asking often after a while.
const SCRIPT: &str = "(()=>{const e=i=>document.getElementById(i),m=e('weir'),s=e('state'),b=e('done'),c=e('copy'),k=e('command');let n=0,t,busy;\
const over=(x,y)=>{m.className='over';s.textContent=x;b.textContent=y;b.form.onsubmit=v=>{v.preventDefault();location.reload()}};\
const wait=()=>{t=setTimeout(ask,n++<150?1000:5000)};\
const ask=()=>{if(busy||m.className)return;busy=1;clearTimeout(t);\
fetch(m.dataset.claim,{headers:{accept:'application/json'},cache:'no-store'})\
.then(r=>r.ok?r.json():{code:r.status}).then(j=>{busy=0;\
if(j.paid){m.className='paid';s.textContent='Paid. Loading\u{2026}';location.reload()}\
else if(j.expired||j.code==410)over('This offer is over.','Show a new one');\
else if(j.code==403)over('Nothing can be opened here without cookies. Allow them for this site, then try again.','Try again');\
else wait()}).catch(()=>{busy=0;wait()})};\
c.hidden=false;s.textContent='Waiting for the payment: the page opens by itself.';\
c.onclick=()=>{(navigator.clipboard?navigator.clipboard.writeText(k.textContent):Promise.reject())\
.then(()=>{c.textContent='Copied'},()=>{const r=document.createRange(),g=getSelection();r.selectNodeContents(k);g.removeAllRanges();g.addRange(r)})};\
document.addEventListener('visibilitychange',()=>{if(!document.hidden)ask()});t=setTimeout(ask,700)})()";

/// How every page begins.
const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8>\
<meta name=viewport content='width=device-width,initial-scale=1'><meta name=robots content=noindex><link rel=icon href=data:,>";

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
        let notice =
            self.notice.map_or_else(String::new, |text| format!("<p class=notice><b>{}</b></p>", escape(text)));
        let opens = if self.access.is_empty() { String::new() } else { format!(", opens{}", escape(self.access)) };
        let qr = qr(self.claim).map_or_else(String::new, |code| {
            format!("<figure>{code}<figcaption class=soft>The same, for another device</figcaption></figure>")
        });
        format!(
            "{HEAD}<title>{title}</title><style>{STYLE}</style><main id=weir data-claim=\"{poll}\">\
<p class=soft>{realm}</p><h1>{title}</h1><p class=price><b>{price}</b>{opens}</p>{notice}\
<p id=how>Pay with <code>weir</code>, here or on another device.</p>\
<div id=pay><div><pre id=command>{command}</pre><button id=copy type=button hidden>Copy</button></div>{qr}</div>\
{form}<p class=soft id=state role=status>After paying, press the button.</p></form></main><script>{SCRIPT}</script></html>",
            poll = escape(self.poll),
            realm = escape(self.realm),
            price = escape(self.price),
            command = escape(&self.command()),
            form = form(self.poll, "I have paid"),
        )
    }
}

/// A page that only says something.
#[derive(Debug, Clone, Copy)]
pub struct Notice<'a> {
    /// Its heading.
    pub title: &'a str,
    /// What it says.
    pub text: &'a str,
    /// A command to run.
    pub command: Option<&'a str>,
    /// A path of this origin to ask again.
    pub again: Option<&'a str>,
    /// A path of this origin to go back to.
    pub back: &'a str,
}

impl Notice<'_> {
    /// The page as HTML.
    pub fn html(&self) -> String {
        let command = self.command.map_or_else(String::new, |text| format!("<pre>{}</pre>", escape(text)));
        let again = self.again.map_or_else(String::new, |address| format!("{}</form>", form(address, "Look again")));
        format!(
            "{HEAD}<title>{title}</title><style>{STYLE}</style><main><h1>{title}</h1><p>{text}</p>{command}{again}\
<p><a href=\"{back}\">Back to the page</a></p></main></html>",
            title = escape(self.title),
            text = escape(self.text),
            back = escape(self.back),
        )
    }
}

/// The beginning of a form that asks an address; its end is the caller's.
fn form(address: &str, button: &str) -> String {
    let path = escape(address.split('?').next().unwrap_or_default());
    format!("<form action=\"{path}\" method=get>{}<button id=done>{button}</button>", fields(address))
}

/// The value of `Content-Security-Policy`: this script and this style, requests to this origin, nothing else.
pub fn content_security_policy() -> String {
    let hash = |text: &str| base64::engine::general_purpose::STANDARD.encode(sha256(text.as_bytes()).as_bytes());
    format!(
        "default-src 'none'; img-src data:; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; form-action 'self'; \
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
        "<svg viewBox='-4 -4 {side} {side}' width=224 height=224 shape-rendering=crispEdges role=img aria-label='The address as a QR code'>\
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
