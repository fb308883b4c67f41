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
figure{margin:0 auto;text-align:center}img{display:block;max-width:100%;height:auto;border-radius:8px;image-rendering:pixelated}figcaption{margin-top:.4rem}\
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

/// Light modules around a code, on each side.
const QUIET: u32 = 4;
/// About so many pixels wide is a code shown.
const QR_PIXELS: u32 = 232;

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

    /// The page as HTML. Without the code where it would be too long: with an address of many hundred bytes.
    pub fn html(&self) -> String {
        let page = self.with(qr(self.claim));
        if page.len() <= MAX_PAGE_BYTES { page } else { self.with(None) }
    }

    fn with(&self, code: Option<String>) -> String {
        let title: String = self.title.chars().take(MAX_TITLE).collect();
        let title = escape(&title);
        let notice =
            self.notice.map_or_else(String::new, |text| format!("<p class=notice><b>{}</b></p>", escape(text)));
        let opens = if self.access.is_empty() { String::new() } else { format!(", opens{}", escape(self.access)) };
        let qr = code.map_or_else(String::new, |code| {
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

/// A QR code as an image of one bit a pixel, which is a fifth of what it takes as vectors. Four light modules around it.
fn qr(text: &str) -> Option<String> {
    let code = QRBuilder::new(text).mode(Mode::Byte).ecl(ECL::L).build().ok()?;
    let rows: Vec<Vec<bool>> = code
        .data
        .chunks(code.size)
        .take(code.size)
        .map(|row| row.iter().map(|module| module.value()).collect())
        .collect();
    let side = u32::try_from(rows.len()).ok()? + 2 * QUIET;
    // Whole pixels a module, so that edges are sharp.
    let shown = side * (QR_PIXELS / side).max(2);
    let image = base64::engine::general_purpose::STANDARD.encode(bitmap(&rows, side));
    Some(format!("<img width={shown} height={shown} alt='The address as a QR code' src=data:image/bmp;base64,{image}>"))
}

/// A bitmap file (BITMAPINFOHEADER, two colours, rows from below, each filled up to four bytes).
fn bitmap(rows: &[Vec<bool>], side: u32) -> Vec<u8> {
    const HEADER: u32 = 14 + 40 + 8;
    let stride = side.div_ceil(32) * 4;
    let mut file = b"BM".to_vec();
    let mut put = |numbers: &[u32]| file.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    put(&[HEADER + stride * side, 0, HEADER]);
    // Planes and bits a pixel are halves of one number.
    put(&[40, side, side, 1 | 1 << 16, 0, 0, 0, 0, 2, 0]);
    put(&[0x00ff_ffff, 0]);
    let blank = || std::iter::repeat_n(&[][..], QUIET as usize);
    let lines = blank().chain(rows.iter().rev().map(Vec::as_slice)).chain(blank());
    for line in lines {
        let mut bytes = vec![0_u8; stride as usize];
        for (at, _) in line.iter().enumerate().filter(|(_, dark)| **dark) {
            let at = at + QUIET as usize;
            if let Some(byte) = bytes.get_mut(at / 8) {
                *byte |= 0x80 >> (at % 8);
            }
        }
        file.extend(bytes);
    }
    file
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
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

    fn claim(code_bytes: usize) -> String {
        let id = "x".repeat(43);
        format!("https://www.a-rather-long-name-of-a-site.example/.weir/claim/{id}?c={}", "y".repeat(code_bytes))
    }

    #[test]
    fn page_with_the_longest_usual_address_and_any_title_stays_within_its_bytes() {
        let html = page(&claim(140), &"<".repeat(500));
        assert!(html.len() <= MAX_PAGE_BYTES, "{} bytes", html.len());
        assert!(html.contains("<figure><img "));
    }

    #[test]
    fn page_stays_within_its_bytes_with_everything_at_its_longest() {
        // A claim's code holds 41 bytes and a target of at most 512.
        let claim = claim(738);
        let poll = format!(
            "{}&k={}",
            claim.strip_prefix("https://www.a-rather-long-name-of-a-site.example").unwrap(),
            "z".repeat(22)
        );
        for text in ["\"", "\u{1f4b6}", "a"] {
            let (title, realm) = (text.repeat(200), text.repeat(128 / text.len()));
            let notice = Some("What is left of your payment is not enough.");
            let access = " for 18446744073709551615 milliseconds";
            let price = "18446744073.709551615 EUR";
            let html = Page { title: &title, realm: &realm, price, access, claim: &claim, poll: &poll, notice }.html();
            assert!(html.len() <= MAX_PAGE_BYTES, "{} bytes", html.len());
            assert!(html.contains(&format!("weir pay --challenge &#39;{claim}&#39;")));
        }
    }

    #[test]
    fn bitmap_has_its_size_and_its_dark_pixels_in_their_places() {
        // Rows come from below: the first of the code is the last but four.
        let image = bitmap(&[vec![true, false], vec![false, false]], 10);
        assert_eq!(image.len(), 62 + 4 * 10);
        assert_eq!(image.get(2..6), Some(&102_u32.to_le_bytes()[..]));
        let dark: Vec<usize> =
            image.iter().enumerate().skip(62).filter(|(_, byte)| **byte != 0).map(|(at, _)| at).collect();
        assert_eq!(dark, [62 + 4 * 5]);
        assert_eq!(image.get(82), Some(&0b0000_1000));
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
