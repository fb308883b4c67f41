//! What the doctor finds in one answer, in plain words. Reads heads and bodies that were fetched; sends nothing.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, AGE, CACHE_CONTROL,
    CONTENT_TYPE,
};
use http::{HeaderMap, StatusCode};
use weir_client::protocol::amount::{Amount, Time};
use weir_client::protocol::http::crawler::CrawlerPrice;
use weir_client::protocol::http::problem::{MEDIA_TYPE, Problem};
use weir_client::protocol::http::x402::PaymentRequired;
use weir_client::protocol::http::{
    Challenge, ChargeRequest, INTENT, MAX_CHALLENGE_BYTES, METHOD, PaymentReceipt, header,
};

/// What is right, or what is wrong and what to change.
pub(super) type Finding = Result<String, String>;

/// Most bytes of a 402's head: nginx takes 8 KiB of an upstream's head where the guide says so, and others not much more.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Most bytes of x402's header: base64 of what the challenge says, with the names around it.
const MAX_X402_BYTES: usize = 3 * 1024;
/// Most bytes of the page for people.
const MAX_PAGE_BYTES: usize = 10 * 1024;
/// A demand that ends sooner can hardly be paid.
const MIN_LIFE_MS: u64 = 20_000;
/// The longest that a gate's demand lives.
const MAX_LIFE_MS: u64 = 24 * 60 * 60 * 1000;
/// By so much two clocks may differ.
const MAX_SKEW_MS: u64 = 30_000;

/// An answer, read.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// A header that is there once.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, String> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match values.count() {
        0 => value.to_str().map(Some).map_err(|_| format!("`{name}` is not plain ASCII")),
        more => Err(format!(
            "`{name}` is there {} times: gate and web server both write it; the web server must pass it on once",
            more + 1
        )),
    }
}

/// The words of a list header.
fn words(headers: &HeaderMap, name: &http::HeaderName) -> Vec<String> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(|word| word.trim().to_ascii_lowercase()).collect()
}

/// The first answer, to somebody who shows nothing.
pub(super) fn unpaid(seen: &Seen) -> Finding {
    let hint = match seen.status.as_u16() {
        402 => {
            return match one(&seen.headers, header::PAYMENT_RECEIPT)? {
                None => Ok("answers 402".to_owned()),
                Some(_) => Err("a 402 carries `Payment-Receipt`: only answers that were paid for may".to_owned()),
            };
        }
        200..=299 => {
            "nothing is charged for this address. Ask `weir gate check --request 'GET /…'` which route matches; where a web \
             server asks the gate, see that `auth_request` or the check stands in the location that serves this address"
        }
        300..=399 => "it redirects before it demands: give the address that it leads to",
        401 => "nginx passes on the check's 401: add `error_page 401 = @pay` beside `auth_request`",
        403 => {
            "the gate refuses: its log and the answer's `code` say why; a web server that asks must say what it was asked for"
        }
        404 => "nothing is there: give the address of something that is sold",
        500 => "nginx makes a 500 of a check that fails: see that it asks `/.weir/check/nginx`, and that the gate runs",
        502..=504 => "the web server does not reach the gate: see that it runs, and on which address",
        _ => "a 402 is expected",
    };
    Err(format!("answers {} instead of 402: {hint}", seen.status))
}

/// The demand in the scheme `Payment`.
pub(super) fn payment(headers: &HeaderMap) -> Result<(Challenge, ChargeRequest), String> {
    let mut ours = Vec::new();
    let mut fault = None;
    for value in headers.get_all(header::WWW_AUTHENTICATE) {
        let read = value.to_str().map_err(|_| "is not plain ASCII".to_owned());
        match read.and_then(|text| Challenge::all_from_header(text).map_err(|error| error.to_string())) {
            Ok(challenges) => {
                ours.extend(challenges.into_iter().filter(|one| one.method == METHOD && one.intent == INTENT));
            }
            Err(error) => fault = Some(error),
        }
    }
    let mut ours = ours.into_iter();
    let challenge = match (ours.next(), ours.next(), fault) {
        (Some(only), None, _) => only,
        (Some(_), Some(_), _) => {
            return Err(
                "`WWW-Authenticate` demands more than once: the check's 401 must carry none, or nginx adds it to \
                        the gate's"
                    .to_owned(),
            );
        }
        (None, _, Some(error)) => return Err(format!("`WWW-Authenticate` cannot be read: {error}")),
        (None, _, None) => {
            return Err(
                "no `WWW-Authenticate: Payment … method=\"weir\"`: a 402 without machine headers can be paid by \
                        nobody. Something between drops it, or answers 402 by itself"
                    .to_owned(),
            );
        }
    };
    let request =
        challenge.charge().map_err(|error| format!("the demand in `WWW-Authenticate` cannot be read: {error}"))?;
    Ok((challenge, request))
}

/// The same demand in x402. `offered`: whether the gate says that it speaks it; none: it does not say.
pub(super) fn x402(headers: &HeaderMap, challenge: &Challenge, offered: Option<bool>) -> Finding {
    let Some(text) = one(headers, header::PAYMENT_REQUIRED)? else { return missing("PAYMENT-REQUIRED", offered) };
    let read = PaymentRequired::from_header(text).and_then(|required| required.requirements());
    let same = read.and_then(|wanted| wanted.challenge());
    match same {
        Ok(same) if same.id == challenge.id && same.request == challenge.request => {
            Ok("`PAYMENT-REQUIRED` says the same".to_owned())
        }
        Ok(_) => Err("`PAYMENT-REQUIRED` is another demand than `WWW-Authenticate`".to_owned()),
        Err(error) => Err(format!("`PAYMENT-REQUIRED` cannot be read: {error}")),
    }
}

/// The price for crawlers.
pub(super) fn crawler(headers: &HeaderMap, request: &ChargeRequest, offered: Option<bool>) -> Finding {
    let Some(text) = one(headers, header::CRAWLER_PRICE)? else { return missing("crawler-price", offered) };
    let price: CrawlerPrice =
        text.parse().map_err(|_| format!("`crawler-price: {text}` is not a currency and a price"))?;
    if (price.amount, price.currency) == (request.amount, request.currency) {
        Ok(format!("`crawler-price: {text}`"))
    } else {
        Err(format!(
            "`crawler-price: {text}` is another price than the {} {} of `WWW-Authenticate`",
            request.amount, request.currency
        ))
    }
}

fn missing(name: &str, offered: Option<bool>) -> Finding {
    match offered {
        Some(true) => Err(format!("no `{name}`, and the gate speaks it: something between drops the header")),
        Some(false) | None => Ok(format!("no `{name}`: this dialect is not spoken")),
    }
}

/// When the demand was made and when it ends.
pub(super) fn expiry(challenge: &Challenge, request: &ChargeRequest, now: Time) -> Finding {
    let expires = challenge.expires_at().map_err(|error| format!("`expires` cannot be read: {error}"))?;
    if let Some(issued) = request.details.issued_at {
        let skew = now.0.abs_diff(issued.0);
        if skew > MAX_SKEW_MS {
            let side = if issued > now { "ahead of" } else { "behind" };
            return Err(format!(
                "the demand was made {} s {side} this clock: a receipt counts only between the two times of its demand, so \
                 set the clocks (NTP), or find the cache that keeps old demands",
                skew / 1000
            ));
        }
    }
    let left = expires.0.saturating_sub(now.0);
    if left < MIN_LIFE_MS {
        return Err(format!("it ends in {} s: nobody can pay in time; set `challenge_ttl` or the clock", left / 1000));
    }
    if left > MAX_LIFE_MS + MAX_SKEW_MS {
        return Err("it ends in more than a day: set `challenge_ttl` or the clock".to_owned());
    }
    Ok(format!("can be paid for {} s", left / 1000))
}

/// Whether a shared cache could keep a demand. `other`: a second one for the same.
pub(super) fn demand_cache(headers: &HeaderMap, challenge: &Challenge, other: Option<&Challenge>) -> Finding {
    if headers.contains_key(AGE) {
        return Err("the 402 carries `Age`: a cache answers. Let it keep no 402".to_owned());
    }
    let said = words(headers, &CACHE_CONTROL);
    if !said.iter().any(|word| word == "no-store") || said.iter().any(|word| word == "public") {
        let said = said.join(", ");
        return Err(format!(
            "`Cache-Control: {said}` on the 402: it must be `no-store`, or a cache shows it to who paid"
        ));
    }
    if other.is_some_and(|other| other.id == challenge.id) {
        return Err(
            "two requests got the same demand: a cache keeps it, or the gate's random numbers repeat".to_owned()
        );
    }
    Ok("`no-store`, and each demand is new".to_owned())
}

/// Whether everything on the way takes the headers.
pub(super) fn sizes(headers: &HeaderMap) -> Finding {
    let all: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if all > MAX_HEAD_BYTES {
        return Err(format!(
            "the 402's headers are {all} bytes, above {MAX_HEAD_BYTES}: proxies on the way may refuse them"
        ));
    }
    for (name, most) in [(header::WWW_AUTHENTICATE, MAX_CHALLENGE_BYTES), (header::PAYMENT_REQUIRED, MAX_X402_BYTES)] {
        let length = headers.get_all(name).iter().map(http::HeaderValue::len).max().unwrap_or_default();
        if length > most {
            return Err(format!("`{name}` is {length} bytes, above {most}: shorten `title` and `realm`"));
        }
    }
    Ok(format!("{all} bytes of headers"))
}

/// The body for programs.
pub(super) fn body(seen: &Seen, request: &ChargeRequest) -> Finding {
    let kind = one(&seen.headers, CONTENT_TYPE.as_str())?.unwrap_or_default();
    if !kind.starts_with(MEDIA_TYPE) {
        return Err(format!(
            "the 402's body for programs is `{kind}` instead of `{MEDIA_TYPE}`: an error page took its place"
        ));
    }
    let problem: Problem =
        serde_json::from_slice(&seen.body).map_err(|error| format!("the 402's body is no problem+json: {error}"))?;
    if problem.status != 402 {
        return Err(format!("the 402's body says status {}", problem.status));
    }
    let told: serde_json::Value = serde_json::from_slice(&seen.body).unwrap_or_default();
    match told.get("price").and_then(serde_json::Value::as_str).map(str::parse::<Amount>) {
        Some(Ok(price)) if price != request.amount => {
            Err(format!("the body's price {price} is another than the {} of `WWW-Authenticate`", request.amount))
        }
        Some(Err(_)) => Err("the body's `price` is no amount".to_owned()),
        Some(Ok(_)) | None => Ok(problem.kind),
    }
}

/// The page for people. It must carry the machine headers too: `payment` was looked at before.
pub(super) fn page(seen: &Seen) -> Finding {
    if seen.status != StatusCode::PAYMENT_REQUIRED {
        return Err(format!("a browser (`Accept: text/html`) is answered {} instead of 402", seen.status));
    }
    payment(&seen.headers).map_err(|error| format!("the page for people: {error}"))?;
    let kind = one(&seen.headers, CONTENT_TYPE.as_str())?.unwrap_or_default();
    if !kind.starts_with("text/html") {
        return Ok(format!("people get `{kind}`: `people = \"json\"`, or a request that has no page"));
    }
    if !words(&seen.headers, &CACHE_CONTROL).iter().any(|word| word == "no-store") {
        return Err("the page for people lacks `Cache-Control: no-store`".to_owned());
    }
    if seen.body.len() > MAX_PAGE_BYTES {
        return Err(format!("the page for people is {} bytes, above {MAX_PAGE_BYTES}", seen.body.len()));
    }
    let text = String::from_utf8_lossy(&seen.body);
    if !text.contains("weir pay --challenge") {
        return Err("the page for people is not the gate's: it shows no `weir pay --challenge …`".to_owned());
    }
    Ok(format!("{} bytes, with the machine headers", seen.body.len()))
}

/// Whether a browser lets a script of the origin send what payments need.
pub(super) fn preflight(seen: &Seen, origin: &str) -> Finding {
    if !seen.status.is_success() {
        return Err(format!("a preflight is answered {}: the web server must pass `OPTIONS` to the gate", seen.status));
    }
    allowed(&seen.headers, origin)?;
    let taken = words(&seen.headers, &ACCESS_CONTROL_ALLOW_HEADERS);
    for name in [header::AUTHORIZATION, header::PAYMENT_SIGNATURE, header::IDEMPOTENCY_KEY] {
        if !taken.iter().any(|one| one == name) {
            return Err(format!("the preflight's `Access-Control-Allow-Headers` lacks `{name}`: scripts cannot pay"));
        }
    }
    Ok(format!("`{origin}` may send payments"))
}

/// Whether a browser hands the demand to a script of the origin.
pub(super) fn exposed(headers: &HeaderMap, origin: &str) -> Finding {
    allowed(headers, origin)?;
    let shown = words(headers, &ACCESS_CONTROL_EXPOSE_HEADERS);
    for name in [header::WWW_AUTHENTICATE, header::PAYMENT_REQUIRED, header::PAYMENT_RECEIPT] {
        if !shown.iter().any(|one| one == name) {
            return Err(format!(
                "the 402's `Access-Control-Expose-Headers` lacks `{name}`: scripts cannot see the demand"
            ));
        }
    }
    Ok(format!("`{origin}` may read the demand"))
}

fn allowed(headers: &HeaderMap, origin: &str) -> Result<(), String> {
    match one(headers, ACCESS_CONTROL_ALLOW_ORIGIN.as_str())? {
        Some(allowed) if allowed == origin || allowed == "*" => Ok(()),
        Some(allowed) => Err(format!("`Access-Control-Allow-Origin: {allowed}` is not `{origin}`: add it to `cors`")),
        None => Err(format!("no `Access-Control-Allow-Origin`: add `{origin}` to `cors` in gate.toml")),
    }
}

/// An answer to somebody who paid.
pub(super) fn served(seen: &Seen) -> Result<PaymentReceipt, String> {
    if seen.status == StatusCode::PAYMENT_REQUIRED {
        let problem: Option<Problem> = serde_json::from_slice(&seen.body).ok();
        let told =
            problem.map_or_else(String::new, |problem| format!(" ({})", problem.detail.unwrap_or(problem.title)));
        return Err(format!(
            "it was paid, and the gate demands again{told}: where nothing is said, the web server drops `Authorization` or \
             `Payment-Signature` on the way to the gate. The payment is kept: `weir fetch` shows it again"
        ));
    }
    if !seen.status.is_success() && !seen.status.is_redirection() {
        return Err(format!(
            "it was paid, and what stands behind the gate answers {}. A gate in mode proxy charges nothing for it",
            seen.status
        ));
    }
    let Some(text) = one(&seen.headers, header::PAYMENT_RECEIPT)? else {
        return Err(
            "no `Payment-Receipt`: the web server keeps what the gate says from the payer. nginx: `auth_request_set` \
                    and `add_header`; Caddy: `copy_response_headers`"
                .to_owned(),
        );
    };
    let receipt = PaymentReceipt::from_header(text).ok_or_else(|| "`Payment-Receipt` cannot be read".to_owned())?;
    let said = words(&seen.headers, &CACHE_CONTROL);
    if said.iter().any(|word| word == "public" || word.starts_with("s-maxage"))
        || !said.iter().any(|word| word == "private" || word == "no-store")
    {
        return Err(format!(
            "`Cache-Control: {}` on an answer that was paid for: it must be `private`, or a shared cache gives it away",
            said.join(", ")
        ));
    }
    if seen.headers.contains_key(AGE) {
        return Err("the paid answer carries `Age`: a shared cache keeps it, and gives it away".to_owned());
    }
    Ok(receipt)
}

/// An answer to something that must not open anything. `what`: how it was shown.
pub(super) fn refused(seen: &Seen, what: &str) -> Finding {
    match seen.status.as_u16() {
        402 => {
            let problem: Option<Problem> = serde_json::from_slice(&seen.body).ok();
            let code = problem.and_then(|problem| problem.kind.rsplit('/').next().map(str::to_owned));
            Ok(format!("{what} is refused{}", code.map(|code| format!(": {code}")).unwrap_or_default()))
        }
        200..=399 => Err(format!(
            "{what} is served ({}): whoever does this reads for nothing. Stop, and see who answers: not the gate",
            seen.status
        )),
        _ => Ok(format!("{what} is not served ({})", seen.status)),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use weir_client::protocol::amount::Currency;
    use weir_client::protocol::http::challenge::Details;
    use weir_client::protocol::http::x402::ResourceInfo;
    use weir_client::protocol::http::{Resource, Secret};
    use weir_client::protocol::id::{AccountId, HubId, PaymentId};
    use weir_client::protocol::keys::PublicKey;

    const NOW: Time = Time(1_800_000_000_000);

    fn demand(amount: u64, nonce: u8, issued: Time, expires: Time) -> (Challenge, ChargeRequest) {
        let request = ChargeRequest {
            amount: Amount::from_nanos(amount),
            currency: Currency::EUR,
            description: None,
            details: Details {
                hub: HubId(PublicKey([1; 32])),
                issued_at: Some(issued),
                metered: false,
                resource: Some(Resource::of("GET", "/a")),
                scale: 9,
            },
            recipient: AccountId(PublicKey([9; 32])),
        };
        let challenge = Challenge::issue(&Secret::from([1; 32]), "news", &request, expires, [nonce; 16], None);
        (challenge.unwrap(), request)
    }

    fn usual() -> (Challenge, ChargeRequest) {
        demand(50_000_000, 1, NOW, NOW.plus_ms(600_000))
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, text) in fields {
            headers.append(*name, text.parse().unwrap());
        }
        headers
    }

    fn seen(status: u16, fields: &[(&'static str, &str)], body: &str) -> Seen {
        let status = StatusCode::from_u16(status).unwrap();
        Seen { status, headers: headers(fields), body: body.as_bytes().to_vec() }
    }

    #[test]
    fn demand_is_found_once_or_named_as_missing_doubled_or_odd() {
        let (challenge, request) = usual();
        let text = challenge.to_header();
        let found = payment(&headers(&[("www-authenticate", "Basic realm=\"x\""), ("www-authenticate", &text)]));
        assert_eq!(found.unwrap().1, request);
        for (fields, word) in [
            (vec![], "without machine headers"),
            (vec![("www-authenticate", text.as_str()), ("www-authenticate", text.as_str())], "more than once"),
            (vec![("www-authenticate", "Payment id=\"a")], "cannot be read"),
        ] {
            let error = payment(&headers(&fields)).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn other_dialects_must_say_the_same() {
        let ((challenge, request), (other, _)) = (usual(), demand(60_000_000, 1, NOW, NOW.plus_ms(600_000)));
        let required = |challenge| PaymentRequired::new(challenge, ResourceInfo::at("/a"), None).unwrap().to_header();
        let same = headers(&[("payment-required", &required(&challenge)), ("crawler-price", "EUR 0.05")]);
        assert!(x402(&same, &challenge, Some(true)).is_ok());
        assert!(crawler(&same, &request, Some(true)).is_ok());
        let differs = headers(&[("payment-required", &required(&other)), ("crawler-price", "EUR 0.06")]);
        assert!(x402(&differs, &challenge, None).unwrap_err().contains("another demand"));
        assert!(crawler(&differs, &request, None).unwrap_err().contains("another price"));
        let none = HeaderMap::new();
        assert!(x402(&none, &challenge, None).is_ok() && crawler(&none, &request, Some(false)).is_ok());
        assert!(x402(&none, &challenge, Some(true)).is_err() && crawler(&none, &request, Some(true)).is_err());
    }

    #[test]
    fn demand_has_sane_times_on_both_sides_of_each_bound() {
        let at = |issued: Time, expires: Time| {
            let (challenge, request) = demand(1, 1, issued, expires);
            expiry(&challenge, &request, NOW).is_ok()
        };
        assert!(at(NOW, NOW.plus_ms(MIN_LIFE_MS)) && !at(NOW, NOW.plus_ms(MIN_LIFE_MS - 1)));
        let later = NOW.plus_ms(600_000);
        assert!(at(NOW.plus_ms(MAX_SKEW_MS), later) && !at(NOW.plus_ms(MAX_SKEW_MS + 1), later));
        assert!(at(NOW.minus_ms(MAX_SKEW_MS), later) && !at(NOW.minus_ms(MAX_SKEW_MS + 1), later));
        let longest = NOW.plus_ms(MAX_LIFE_MS + MAX_SKEW_MS);
        assert!(at(NOW, longest) && !at(NOW, longest.plus_ms(1)));
    }

    #[test]
    fn demand_that_a_cache_keeps_is_named() {
        let ((challenge, _), (second, _)) = (usual(), demand(50_000_000, 2, NOW, NOW.plus_ms(600_000)));
        let fine = headers(&[("cache-control", "no-store")]);
        assert!(demand_cache(&fine, &challenge, Some(&second)).is_ok());
        assert!(demand_cache(&fine, &challenge, Some(&challenge)).is_err());
        for fields in [
            vec![("cache-control", "no-store"), ("age", "3")],
            vec![("cache-control", "public, max-age=60")],
            vec![("cache-control", "no-store, public")],
            vec![],
        ] {
            assert!(demand_cache(&headers(&fields), &challenge, Some(&second)).is_err(), "{fields:?}");
        }
    }

    #[test]
    fn sizes_hold_on_both_sides() {
        let most = "x".repeat(MAX_CHALLENGE_BYTES);
        assert!(sizes(&headers(&[("www-authenticate", &most)])).is_ok());
        assert!(sizes(&headers(&[("www-authenticate", &format!("{most}x"))])).is_err());
        let rest = MAX_HEAD_BYTES - "x-a".len() - 4;
        assert!(sizes(&headers(&[("x-a", &"x".repeat(rest))])).is_ok());
        assert!(sizes(&headers(&[("x-a", &"x".repeat(rest + 1))])).is_err());
    }

    #[test]
    fn body_of_an_error_page_or_another_price_is_named() {
        let (_, request) = usual();
        let kind = ("content-type", "application/problem+json");
        let text = |price: &str, status: u16| {
            format!(r#"{{"type":"https://x/payment-required","title":"t","status":{status},"price":"{price}"}}"#)
        };
        assert!(body(&seen(402, &[kind], &text("0.05", 402)), &request).is_ok());
        assert!(body(&seen(402, &[kind], &text("0.06", 402)), &request).unwrap_err().contains("another"));
        assert!(body(&seen(402, &[kind], &text("0.05", 200)), &request).unwrap_err().contains("200"));
        assert!(body(&seen(402, &[("content-type", "text/html")], ""), &request).unwrap_err().contains("error page"));
    }

    #[test]
    fn paid_answer_needs_its_receipt_and_no_shared_cache() {
        let paid = PaymentReceipt::new(PaymentId([1; 32]), Amount::from_nanos(5), Currency::EUR, NOW).to_header();
        let receipt = ("payment-receipt", paid.as_str());
        assert!(served(&seen(200, &[receipt, ("cache-control", "private")], "")).is_ok());
        assert!(served(&seen(304, &[receipt, ("cache-control", "no-store")], "")).is_ok());
        for (answer, word) in [
            (seen(200, &[("cache-control", "private")], ""), "no `Payment-Receipt`"),
            (seen(200, &[receipt], ""), "must be `private`"),
            (seen(200, &[receipt, ("cache-control", "private"), ("cache-control", "public")], ""), "must be `private`"),
            (seen(200, &[receipt, ("cache-control", "private"), ("age", "1")], ""), "`Age`"),
            (seen(200, &[receipt, receipt, ("cache-control", "private")], ""), "2 times"),
            (seen(402, &[], ""), "demands again"),
            (seen(502, &[], ""), "answers 502"),
        ] {
            let error = served(&answer).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        assert!(refused(&seen(402, &[], ""), "x").is_ok() && refused(&seen(400, &[], ""), "x").is_ok());
        assert!(refused(&seen(200, &[], ""), "x").is_err() && refused(&seen(304, &[], ""), "x").is_err());
    }

    #[test]
    fn scripts_of_an_origin_may_call_or_the_line_is_named() {
        let origin = ("access-control-allow-origin", "https://app.example");
        let taken = ("access-control-allow-headers", "Authorization, payment-signature, idempotency-key");
        assert!(preflight(&seen(204, &[origin, taken], ""), "https://app.example").is_ok());
        assert!(preflight(&seen(204, &[origin], ""), "https://app.example").is_err());
        assert!(preflight(&seen(204, &[origin, taken], ""), "https://b.example").is_err());
        assert!(preflight(&seen(402, &[origin, taken], ""), "https://app.example").is_err());
        let shown = ("access-control-expose-headers", "WWW-Authenticate, PAYMENT-REQUIRED, Payment-Receipt");
        assert!(exposed(&headers(&[("access-control-allow-origin", "*"), shown]), "https://app.example").is_ok());
        assert!(exposed(&headers(&[origin]), "https://app.example").is_err());
        assert!(exposed(&headers(&[shown]), "https://app.example").is_err());
    }
}
