//! What a request shows: credentials in either dialect, the gate's cookies, and the caller's key of the request. Reads
//! headers; judges nothing.

use http::{HeaderMap, HeaderName, header};
use weir_protocol::http::crawler::CrawlerPrice;
use weir_protocol::http::credential::CredentialError;
use weir_protocol::http::x402::PaymentPayload;
use weir_protocol::http::{Credential, MAX_CREDENTIAL_BYTES, SCHEME, header as names};

/// Most bytes of a caller's key of a request.
pub const MAX_KEY_BYTES: usize = 255;
/// Most cookies of the gate's name that are looked at in one request.
pub const MAX_COOKIES: usize = 8;

/// Where a web server that asks says which of its requests it means.
pub(super) const REQUEST_ID: &str = "x-original-id";
/// Characters of a browser's random cookie: 16 bytes in base64url.
pub const BROWSER_CHARS: usize = 22;

/// In which words something was shown, and is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `Authorization: Payment` and `Payment-Receipt`.
    Payment,
    /// `PAYMENT-SIGNATURE` and `PAYMENT-RESPONSE`.
    X402,
    /// The gate's cookie; nothing is answered.
    Cookie,
}

/// What a request shows.
#[derive(Debug, Default)]
pub struct Shown<'h> {
    /// The text of a credential, and its dialect. With both, the first one of the `Payment` scheme counts.
    pub credential: Option<(Dialect, &'h str)>,
    /// The gate's cookies, as they came.
    pub cookies: Vec<&'h str>,
    /// The caller's key of the request; an error when it cannot be one.
    pub key: Option<Result<String, BadKey>>,
    /// The name that a web server gave the request that it asks about.
    pub request_id: Option<&'h str>,
    /// The least of what crawlers' headers say that they pay at most; the error: not a price.
    pub crawler_most: Option<Result<CrawlerPrice, ()>>,
    /// Whether it asks for a page: programs do not.
    pub wants_page: bool,
    /// The browser's random cookie.
    pub browser: Option<&'h str>,
}

/// Not a key of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key of a request is 1 to {MAX_KEY_BYTES} printable characters, said once")]
pub struct BadKey;

/// What is read of a request.
#[derive(Debug, Clone, Copy)]
pub struct Reads<'a> {
    /// The cookie's name.
    pub cookie: &'a str,
    /// Whether the `Payment` scheme is spoken.
    pub payment: bool,
    /// Whether x402 is.
    pub x402: bool,
}

impl<'h> Shown<'h> {
    /// What the headers show.
    pub fn read(headers: &'h HeaderMap, reads: Reads<'_>) -> Self {
        let mut shown = Self::default();
        if reads.payment {
            let fields = [names::PAYMENT_AUTHORIZATION, names::AUTHORIZATION];
            let mut texts =
                fields.iter().flat_map(|name| headers.get_all(*name)).filter_map(|value| value.to_str().ok());
            shown.credential = texts.find_map(payment).map(|text| (Dialect::Payment, text));
        }
        if reads.x402 && shown.credential.is_none() {
            let text = headers.get(names::PAYMENT_SIGNATURE).and_then(|value| value.to_str().ok());
            shown.credential = text.map(|text| (Dialect::X402, text));
        }
        let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        shown.cookies =
            pairs.filter(|(name, _)| *name == reads.cookie).map(|(_, text)| text).take(MAX_COOKIES).collect();
        shown.key = key(headers);
        let id = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        shown.request_id = id.filter(|id| !id.is_empty() && id.len() <= MAX_KEY_BYTES);
        shown.wants_page = accepts_html(headers);
        shown.browser = browser(headers, reads.cookie);
        let prices = [names::CRAWLER_EXACT_PRICE, names::CRAWLER_MAX_PRICE].map(|name| headers.get(name));
        let prices =
            prices.into_iter().flatten().map(|value| value.to_str().ok().and_then(|text| text.parse().ok()).ok_or(()));
        shown.crawler_most = prices.reduce(|one: Result<CrawlerPrice, ()>, other| match (one, other) {
            (Ok(one), Ok(other)) if one.currency == other.currency => {
                Ok(if other.amount < one.amount { other } else { one })
            }
            _ => Err(()),
        });
        shown
    }
}

/// Whether a browser asks.
pub fn accepts_html(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.any(|value| value.split(',').any(|kind| kind.trim().to_ascii_lowercase().starts_with("text/html")))
}

/// A browser's random cookie, if it has one: its name is that of the gate's cookie, and `-claim`.
pub fn browser<'h>(headers: &'h HeaderMap, cookie: &str) -> Option<&'h str> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let found = pairs.find(|(name, _)| name.strip_prefix(cookie) == Some("-claim")).map(|(_, text)| text)?;
    let plain = found.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    (found.len() == BROWSER_CHARS && plain).then_some(found)
}

/// What follows the scheme `Payment`.
fn payment(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim())
}

fn key(headers: &HeaderMap) -> Option<Result<String, BadKey>> {
    let mut values = headers.get_all(HeaderName::from_static(names::IDEMPOTENCY_KEY)).iter();
    let value = values.next()?;
    let text = value.to_str().ok().map(str::trim).unwrap_or_default();
    let fits = !text.is_empty() && text.len() <= MAX_KEY_BYTES && values.next().is_none();
    Some(if fits { Ok(text.to_owned()) } else { Err(BadKey) })
}

/// Reads a credential, and the key of the request that x402 carries in it.
pub(super) fn read(dialect: Dialect, text: &str) -> Result<(Credential, Option<String>), CredentialError> {
    if text.len() > MAX_CREDENTIAL_BYTES {
        return Err(CredentialError::TooLong { length: text.len() });
    }
    match dialect {
        Dialect::X402 => {
            let payload = PaymentPayload::from_header(text)?;
            let key = payload.identifier().filter(|key| !key.is_empty() && key.len() <= MAX_KEY_BYTES);
            Ok((payload.credential()?, key.map(str::to_owned)))
        }
        Dialect::Payment | Dialect::Cookie => Credential::from_token(text).map(|credential| (credential, None)),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    const READS: Reads<'static> = Reads { cookie: "weir", payment: true, x402: true };

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, text) in fields {
            headers.append(*name, text.parse().unwrap());
        }
        headers
    }

    #[test]
    fn credential_is_found_beside_other_schemes_and_in_its_own_header() {
        let all = headers(&[("authorization", "Bearer x"), ("authorization", "payment abc")]);
        assert_eq!(Shown::read(&all, READS).credential, Some((Dialect::Payment, "abc")));
        let own = headers(&[("authorization", "Bearer x"), ("payment-authorization", "Payment def")]);
        assert_eq!(Shown::read(&own, READS).credential, Some((Dialect::Payment, "def")));
        let both = headers(&[("payment-signature", "xyz"), ("authorization", "Payment abc")]);
        assert_eq!(Shown::read(&both, READS).credential, Some((Dialect::Payment, "abc")));
        let off = Reads { payment: false, ..READS };
        assert_eq!(Shown::read(&both, off).credential, Some((Dialect::X402, "xyz")));
        assert_eq!(Shown::read(&headers(&[("authorization", "Bearer x")]), READS).credential, None);
    }

    #[test]
    fn cookies_are_found_in_any_line_up_to_their_bound() {
        let all = headers(&[("cookie", "a=1; weir=x; weirs=no"), ("cookie", "weir=y")]);
        assert_eq!(Shown::read(&all, READS).cookies, ["x", "y"]);
        let many = (0..=MAX_COOKIES).map(|at| format!("weir={at}")).collect::<Vec<_>>().join("; ");
        assert_eq!(Shown::read(&headers(&[("cookie", &many)]), READS).cookies.len(), MAX_COOKIES);
    }

    #[test]
    fn browser_is_known_by_a_cookie_of_its_length_and_alphabet() {
        let random = "A-_9".repeat(6).split_off(2);
        let one = |text: &str| headers(&[("cookie", text)]);
        let found = |text: &str| browser(&one(text), "weir").map(str::to_owned);
        assert_eq!(found(&format!("a=b; weir=x; weir-claim={random}")), Some(random.clone()));
        assert_eq!(found(&format!("weir-claim={random}A")), None);
        assert_eq!(found(&format!("weir-claim={}", random.replace('_', "%"))), None);
        assert_eq!(found(&format!("weirs-claim={random}")), None);
    }

    #[test]
    fn page_is_wanted_by_what_accepts_html() {
        for (accept, wanted) in
            [("text/html,application/xhtml+xml;q=0.9", true), ("a/b, TEXT/HTML;q=0.5", true), ("*/*", false)]
        {
            assert_eq!(Shown::read(&headers(&[("accept", accept)]), READS).wants_page, wanted, "{accept}");
        }
        assert!(!Shown::read(&HeaderMap::new(), READS).wants_page);
    }

    #[test]
    fn key_of_a_request_has_its_bounds_and_is_said_once() {
        let one = |text: &str| Shown::read(&headers(&[("idempotency-key", text)]), READS).key;
        assert_eq!(one("k"), Some(Ok("k".to_owned())));
        assert_eq!(one(&"k".repeat(MAX_KEY_BYTES)), Some(Ok("k".repeat(MAX_KEY_BYTES))));
        assert_eq!(one(&"k".repeat(MAX_KEY_BYTES + 1)), Some(Err(BadKey)));
        assert_eq!(one(" "), Some(Err(BadKey)));
        let twice = headers(&[("idempotency-key", "a"), ("idempotency-key", "a")]);
        assert_eq!(Shown::read(&twice, READS).key, Some(Err(BadKey)));
        assert_eq!(Shown::read(&HeaderMap::new(), READS).key, None);
    }

    #[test]
    fn crawler_pays_the_least_that_it_says() {
        let both = headers(&[("crawler-exact-price", "EUR 0.02"), ("crawler-max-price", "EUR 0.01")]);
        assert_eq!(Shown::read(&both, READS).crawler_most.unwrap().unwrap().to_string(), "EUR 0.01");
        let odd = headers(&[("crawler-exact-price", "EUR 0.02"), ("crawler-max-price", "USD 0.01")]);
        assert_eq!(Shown::read(&odd, READS).crawler_most, Some(Err(())));
        assert_eq!(Shown::read(&headers(&[("crawler-max-price", "free")]), READS).crawler_most, Some(Err(())));
    }
}
