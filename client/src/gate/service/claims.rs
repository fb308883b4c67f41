//! Claims: a person reads a page in a browser and pays with `weir` on any machine; the receipt finds its way to the browser.
//!
//! The page's address names the challenge and holds what is needed to make it again; a random cookie of the browser and a key
//! in what the page polls bind the two. `weir` gets the demand from the address without the key and posts the credential
//! there; who polls with cookie and key gets the cookie that opens the page.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, request};
use serde::Serialize;
use weir_protocol::amount::{Amount, Currency};
use weir_protocol::http::problem::Problem;
use weir_protocol::http::{Challenge, Credential, Resource};
use weir_protocol::id::{AccountId, HubId};

use super::metrics::Outcome;
use super::{Gate, OWN_PREFIX, Origin, accepts_html, json_response, now, protect, refused, say, set_cookie};
use crate::gate::desk::{BROWSER_MS, ClaimError, browser, span};
use crate::gate::page::Notice;
use crate::gate::price::{Asked, Quote};
use crate::gate::proxy::GateBody;

/// What a payer is told.
#[derive(Debug, Serialize)]
struct Told<'a> {
    /// The value of `WWW-Authenticate`.
    challenge: String,
    price: Amount,
    currency: Currency,
    title: Option<String>,
    realm: &'a str,
    payee: AccountId,
    hub: HubId,
    /// What it opens.
    url: String,
    /// For how long, in words; empty: once.
    access: String,
    /// Where the credential is posted: here.
    claim: String,
    expires: Option<String>,
}

/// What a page is told.
#[derive(Debug, Serialize)]
struct State {
    paid: bool,
    expired: bool,
}

pub(super) fn set_browser(headers: &mut HeaderMap, cookie: &str, random: &str) {
    let text =
        format!("{cookie}-claim={random}; Path=/; Max-Age={}; HttpOnly; Secure; SameSite=Lax", BROWSER_MS / 1_000);
    set_cookie(headers, &text);
}

/// A value of an address's query.
fn field<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(found, _)| *found == name).map(|(_, text)| text)
}

/// A demand that an address is about.
struct Asking {
    challenge: Challenge,
    /// Host, path and query, in the table's one spelling.
    target: String,
    title: Option<String>,
    access_ms: Option<u64>,
}

impl Asking {
    /// The path and query, as a browser would send them.
    fn path(&self) -> String {
        let path = self.target.find('/').and_then(|at| self.target.get(at..)).unwrap_or("/");
        escaped(path)
    }
}

/// A path in the table's one spelling, as it stands in an address: what is not plain there is escaped. `%` is: the table
/// escapes it and `?`, and nothing else.
fn escaped(path: &str) -> String {
    use std::fmt::Write as _;
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut text = path.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'='
            | b':' | b'@' | b'%' => text.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => text.push(char::from(byte)),
            byte => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
        text
    });
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    text
}

impl Gate {
    fn asking(&self, id: &str, query: &str) -> Option<Asking> {
        let table = self.table.table();
        let mut described = (None, None);
        let describe = |target: &str| {
            let at = target.find('/')?;
            let (host, path) = target.split_at_checked(at)?;
            let path = escaped(path);
            let headers = HeaderMap::new();
            let asked = Asked {
                method: &Method::GET,
                host,
                path_and_query: &path,
                headers: &headers,
                peer: None,
                crawler: Some(false),
            };
            let Quote::Priced(priced) = table.quote(&asked) else { return None };
            let title = priced.route.title.clone().or_else(|| priced.route.description.clone());
            described = (title.clone(), priced.route.access_ms);
            title
        };
        let (challenge, target) = self.desk.site().from_code(id, field(query, "c")?, describe)?;
        let (title, access_ms) = described;
        Some(Asking { challenge, target, title, access_ms })
    }

    /// A payer asks what is to be paid, or a page whether it was.
    pub(super) fn claim_asked(&self, id: &str, head: &request::Parts, origin: &Origin) -> Response<GateBody> {
        let query = head.uri.query().unwrap_or_default();
        let Some(asking) = self.asking(id, query) else {
            return refused(
                StatusCode::GONE,
                "no-such-demand",
                "this demand is not known: prices or titles changed, or the address was cut; load the page again"
                    .to_owned(),
            );
        };
        match field(query, "k") {
            Some(key) => self.page_asks(id, key, &asking, head),
            None if accepts_html(&head.headers) => {
                show_command(&origin.url(&format!("{OWN_PREFIX}claim/{id}?{query}")), &asking)
            }
            None => self.payer_asks(id, query, &asking, origin),
        }
    }

    fn payer_asks(&self, id: &str, query: &str, asking: &Asking, origin: &Origin) -> Response<GateBody> {
        let Ok(request) = asking.challenge.charge() else {
            return refused(StatusCode::GONE, "no-such-demand", "this demand cannot be read".to_owned());
        };
        let told = Told {
            challenge: asking.challenge.to_header(),
            price: request.amount,
            currency: request.currency,
            title: asking.title.clone(),
            realm: &self.settings.realm,
            payee: request.recipient,
            hub: request.details.hub,
            url: origin.url(&asking.path()),
            access: asking.access_ms.map_or_else(String::new, span),
            claim: origin.url(&format!("{OWN_PREFIX}claim/{id}?{query}")),
            expires: asking.challenge.expires.clone(),
        };
        json_response(StatusCode::OK, &told)
    }

    fn page_asks(&self, id: &str, key: &str, asking: &Asking, head: &request::Parts) -> Response<GateBody> {
        let random = browser(&head.headers, &self.settings.cookie);
        if !random.is_some_and(|random| self.desk.site().is_claim_key(id, random, key)) {
            let detail = "this page belongs to another browser: load it again here".to_owned();
            return refused(StatusCode::FORBIDDEN, "other-browser", detail);
        }
        let now = now();
        let paid = self.desk.claimed(asking.challenge.reference());
        let html = accepts_html(&head.headers);
        let mut response = match (paid, html) {
            (_, false) => {
                let expired = paid.is_none() && asking.challenge.expires_at().is_ok_and(|expires| now >= expires);
                json_response(StatusCode::OK, &State { paid: paid.is_some(), expired })
            }
            (Some(_), true) => see_other(&asking.path()),
            (None, true) => not_yet(head.uri.path_and_query().map_or("/", |path| path.as_str()), &asking.path()),
        };
        if let Some(payment_id) = paid {
            // A payment of exactly the price opens its page; a larger one is a balance for the site.
            let asked = asking.challenge.charge().ok();
            let view = self.desk.balances().balance(payment_id);
            let single = asked.zip(view).is_some_and(|(asked, view)| view.payment.amount == asked.amount);
            let resource = single.then(|| Resource::of("GET", &asking.target));
            let path = if single { asking.path() } else { "/".to_owned() };
            let path = path.split(['?', ';']).next().unwrap_or("/").to_owned();
            let token = self.desk.cookie(payment_id, resource, asking.access_ms, now);
            let age = asking.access_ms.unwrap_or(0).max(self.desk.options().grace_ms) / 1000;
            let name = &self.settings.cookie;
            set_cookie(
                response.headers_mut(),
                &format!("{name}={token}; Path={path}; Max-Age={age}; HttpOnly; Secure; SameSite=Lax"),
            );
        }
        response
    }

    /// A payer shows the receipt.
    pub(super) async fn claim_posted(&self, id: &str, body: &[u8]) -> Response<GateBody> {
        #[derive(Serialize)]
        struct Claimed {
            claimed: bool,
        }
        let Ok(credential) = serde_json::from_slice::<Credential>(body) else {
            let detail = "the body is not a credential: JSON {challenge, payload}".to_owned();
            return refused(StatusCode::BAD_REQUEST, "malformed-credential", detail);
        };
        match self.desk.claim(id, &credential, now()).await {
            Ok(()) => {
                self.metrics.count(Outcome::Claimed);
                json_response(StatusCode::OK, &Claimed { claimed: true })
            }
            Err(ClaimError::Other) => {
                let detail = "the credential is for another demand than this address".to_owned();
                refused(StatusCode::CONFLICT, "invalid-challenge", detail)
            }
            Err(ClaimError::Short(problem, detail)) => {
                self.metrics.demanded(problem);
                let mut response = json_response(
                    StatusCode::FORBIDDEN,
                    &Problem { status: 403, ..Problem::new(problem, Some(detail)) },
                );
                response
                    .headers_mut()
                    .insert(CONTENT_TYPE, HeaderValue::from_static(weir_protocol::http::problem::MEDIA_TYPE));
                response
            }
            Err(ClaimError::Refused(refusal)) => say(&refusal),
        }
    }
}

/// Somebody opened the payer's address in a browser: a camera read the code.
fn show_command(claim: &str, asking: &Asking) -> Response<GateBody> {
    let command = format!("weir pay --challenge '{claim}'");
    let notice = Notice {
        title: asking.title.as_deref().unwrap_or("This page"),
        text: "This address is for weir. Where weir is, run:",
        command: Some(&command),
        again: None,
        back: &asking.path(),
    };
    html(StatusCode::OK, notice.html())
}

fn not_yet(again: &str, back: &str) -> Response<GateBody> {
    let notice = Notice {
        title: "Not paid yet",
        text: "The payment has not arrived here. When weir says that it has paid, look again: nothing is paid twice.",
        command: None,
        again: Some(again),
        back,
    };
    html(StatusCode::OK, notice.html())
}

fn html(status: StatusCode, text: String) -> Response<GateBody> {
    let mut response = Response::new(GateBody::full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    protect(headers);
    response
}

pub(super) fn see_other(path: &str) -> Response<GateBody> {
    let mut response = Response::new(GateBody::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    // Two slashes would name another host.
    let path = format!("/{}", path.trim_start_matches('/'));
    if let Ok(value) = HeaderValue::try_from(path) {
        response.headers_mut().insert(LOCATION, value);
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_escaped_as_browsers_do() {
        assert_eq!(escaped("/a b/ü?x=1&y=%20"), "/a%20b/%C3%BC?x=1&y=%20");
        for spelled in ["/100%25", "/a%3Fb", "/a%3Fb?c"] {
            assert_eq!(escaped(spelled), spelled);
        }
        assert_eq!(escaped("/a\"b<c>"), "/a%22b%3Cc%3E");
    }

    #[test]
    fn field_is_found_by_its_name_only() {
        assert_eq!(field("c=1&k=2", "k"), Some("2"));
        assert_eq!(field("ck=1", "k"), None);
        assert_eq!(field("", "k"), None);
    }
}
