//! Which headers pass, which are dropped, and which the proxy writes itself.
//!
//! Owns four rules: hop-by-hop headers end here (RFC 9110 §7.6.1), payment headers never reach the upstream, an upstream
//! cannot fake them, and what a client claims of its own address holds only when the peer is trusted.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, FORWARDED, HOST, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::peer::Peer;

/// This many gates may stand one behind the other before a request is taken to run in a circle.
pub const MAX_HOPS: usize = 8;

/// The name in `Via` (RFC 9110 §7.6.3: a pseudonym).
const PSEUDONYM: &str = "weir";

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Headers of the payment dialects. Their words belong to the gate and the client, in both directions.
const PAYMENT_HEADERS: [HeaderName; 18] = [
    HeaderName::from_static("payment-authorization"),
    HeaderName::from_static("payment-signature"),
    HeaderName::from_static("x-payment"),
    HeaderName::from_static("payment-context"),
    HeaderName::from_static("payment-identifier"),
    HeaderName::from_static("accept-payment"),
    HeaderName::from_static("payment-required"),
    HeaderName::from_static("payment-response"),
    HeaderName::from_static("x-payment-response"),
    HeaderName::from_static("payment-receipt"),
    HeaderName::from_static("payment-need-voucher"),
    HeaderName::from_static("crawler-exact-price"),
    HeaderName::from_static("crawler-max-price"),
    HeaderName::from_static("crawler-price"),
    HeaderName::from_static("crawler-charged"),
    HeaderName::from_static("crawler-error"),
    HeaderName::from_static("crawler-id"),
    HeaderName::from_static("crawler-signature"),
];

/// Takes everything out of a request's headers that has to do with paying, the gate's cookies of these names included. What belongs to the
/// upstream stays: other `Authorization` schemes, other cookies.
pub fn strip_payment_headers(headers: &mut HeaderMap, cookies: &[String]) {
    for name in &PAYMENT_HEADERS {
        headers.remove(name);
    }
    keep_values(headers, &AUTHORIZATION, without_payment_credential);
    keep_values(headers, &COOKIE, |value| without_cookies(value, cookies));
}

/// Takes everything out of an upstream's headers by which it could pass for the gate.
pub fn strip_faked_headers(headers: &mut HeaderMap, cookies: &[String]) {
    for name in &PAYMENT_HEADERS {
        headers.remove(name);
    }
    keep_values(headers, &WWW_AUTHENTICATE, without_payment_credential);
    keep_values(headers, &SET_COOKIE, |value| {
        let name = value.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        if is_named(name, cookies) { Kept::Nothing } else { Kept::All }
    });
}

/// What is left of a header line.
enum Kept {
    All,
    Nothing,
    Some(HeaderValue),
}

/// Rewrites the lines of one header; nothing is copied where nothing changes.
fn keep_values(headers: &mut HeaderMap, name: &HeaderName, keep: impl Fn(&[u8]) -> Kept) {
    if !headers.get_all(name).iter().any(|value| !matches!(keep(value.as_bytes()), Kept::All)) {
        return;
    }
    let mut kept = Vec::new();
    for value in headers.get_all(name) {
        match keep(value.as_bytes()) {
            Kept::All => kept.push(value.clone()),
            Kept::Nothing => {}
            Kept::Some(rest) => kept.push(rest),
        }
    }
    headers.remove(name);
    for value in kept {
        headers.append(name.clone(), value);
    }
}

/// Cuts at the first `Payment` scheme, at the start of the line or after a comma: whatever follows may be its parameters.
fn without_payment_credential(value: &[u8]) -> Kept {
    let mut start = 0;
    loop {
        let piece = &value[start..];
        let blank = piece.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == b',').count();
        let word = &piece[blank..];
        let len = word.iter().take_while(|byte| !byte.is_ascii_whitespace() && **byte != b',').count();
        if word[..len].eq_ignore_ascii_case(b"payment") {
            let rest = value[..start].trim_ascii().strip_suffix(b",").unwrap_or(&value[..start]).trim_ascii();
            return match HeaderValue::from_bytes(rest) {
                Ok(rest) if !rest.is_empty() => Kept::Some(rest),
                _ => Kept::Nothing,
            };
        }
        match piece[blank..].iter().position(|byte| *byte == b',') {
            Some(comma) => start += blank + comma + 1,
            None => return Kept::All,
        }
    }
}

fn is_named(name: &[u8], cookies: &[String]) -> bool {
    cookies.iter().any(|cookie| cookie.as_bytes() == name)
}

fn without_cookies(value: &[u8], cookies: &[String]) -> Kept {
    let is_ours = |pair: &[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        is_named(name, cookies)
    };
    if !value.split(|byte| *byte == b';').any(is_ours) {
        return Kept::All;
    }
    let others: Vec<&[u8]> = value
        .split(|byte| *byte == b';')
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty() && !is_ours(pair))
        .collect();
    match HeaderValue::from_bytes(&others.join(&b"; "[..])) {
        Ok(rest) if !rest.is_empty() => Kept::Some(rest),
        _ => Kept::Nothing,
    }
}

/// Removes what is meant for one connection only, also what `Connection` names. Names that carry a message's framing or
/// target are kept even then: a client must not unmake them by naming them.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .filter(|name| ![HOST, CONTENT_LENGTH, CONTENT_TYPE].contains(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
        HTTP2_SETTINGS,
    ] {
        headers.remove(name);
    }
}

/// Whether the client takes trailers.
pub(in crate::gate) fn wants_trailers(headers: &HeaderMap) -> bool {
    tokens(headers, &TE).any(|token| token.split(';').next().is_some_and(|name| name.trim() == "trailers"))
}

/// The protocol that an HTTP/1.1 request asks to switch to. HTTP/2 and TLS are never passed on: behind the gate's back, the
/// upstream would be spoken to directly.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    if !tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    let mut asked = headers.get_all(UPGRADE).iter();
    let value = asked.next()?;
    if asked.next().is_some() {
        return None;
    }
    let word = value.to_str().ok()?.split('/').next()?.trim().to_ascii_lowercase();
    let one = !word.is_empty() && !value.as_bytes().contains(&b',');
    (one && !["h2c", "h2", "http", "tls"].contains(&word.as_str())).then(|| value.clone())
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// How often the request has passed a gate before.
pub(super) fn hops(headers: &HeaderMap) -> usize {
    tokens(headers, &VIA).filter(|hop| hop.split_ascii_whitespace().nth(1) == Some(PSEUDONYM)).count()
}

/// Adds this hop to `Via`; `version` is that of the message as it was received.
pub(super) fn add_via(headers: &mut HeaderMap, version: Version) {
    let hop = match version {
        Version::HTTP_2 => HeaderValue::from_static("2 weir"),
        Version::HTTP_10 => HeaderValue::from_static("1.0 weir"),
        _ => HeaderValue::from_static("1.1 weir"),
    };
    headers.append(VIA, hop);
}

/// Says who asked, by which scheme and for which host. What the message claims of this already is kept in front only when
/// the peer is trusted.
pub(super) fn set_forwarded(headers: &mut HeaderMap, peer: &Peer, host: Option<&HeaderValue>) {
    let address = peer.address().ip().to_canonical();
    let scheme = if peer.is_secure() { "https" } else { "http" };
    if !peer.is_trusted() {
        for name in [FORWARDED, X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST] {
            headers.remove(name);
        }
    }
    let mut forwarded = match address {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("for=\"[{address}]\""),
    };
    let _ = write!(forwarded, ";proto={scheme}");
    if let Some(host) = host.and_then(|host| host.to_str().ok()) {
        let _ = write!(forwarded, ";host=\"{host}\"");
    }
    append_to_list(headers, FORWARDED, &forwarded);
    append_to_list(headers, X_FORWARDED_FOR, &address.to_string());
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    if !headers.contains_key(X_FORWARDED_HOST)
        && let Some(host) = host
    {
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
}

/// Makes one line of a list header of what is there and what is new: many readers look at one line only.
fn append_to_list(headers: &mut HeaderMap, name: HeaderName, item: &str) {
    let mut line = String::new();
    for value in headers.get_all(&name) {
        if let Ok(value) = value.to_str() {
            line.push_str(value);
            line.push_str(", ");
        }
    }
    line.push_str(item);
    if let Ok(line) = HeaderValue::from_str(&line) {
        headers.insert(name, line);
    }
}

/// The client's address as the chain of trusted proxies tells it: the rightmost in `X-Forwarded-For` that is not trusted
/// itself. None: nobody told, the peer is the client.
pub(super) fn forwarded_for(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let mut last = None;
    let chain: Vec<&str> = tokens(headers, &X_FORWARDED_FOR).collect();
    for hop in chain.iter().rev() {
        let Ok(address) = hop.parse::<IpAddr>() else { break };
        last = Some(address.to_canonical());
        if !is_trusted(address.to_canonical()) {
            break;
        }
    }
    last
}

/// Bytes of a head: what `MAX_HEADER_BYTES` counts.
pub(super) fn head_bytes(target: &http::Uri, headers: &HeaderMap) -> usize {
    // Each line has a colon, a blank, CR and LF in HTTP/1.1.
    let lines: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    target_bytes(target) + lines
}

/// Bytes of a request target.
pub(super) fn target_bytes(target: &http::Uri) -> usize {
    target.path_and_query().map_or(0, |path| path.as_str().len())
        + target.authority().map_or(0, |name| name.as_str().len())
}

/// Trailers may not carry framing, routing or credentials (RFC 9110 §6.5.1).
pub(super) fn clean_request_trailers(trailers: &mut HeaderMap) {
    clean_trailers(trailers);
    strip_payment_headers(trailers, &[]);
    for name in [AUTHORIZATION, COOKIE, FORWARDED, X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST] {
        trailers.remove(name);
    }
}

/// As [`clean_request_trailers`], for an upstream's.
pub(super) fn clean_response_trailers(trailers: &mut HeaderMap) {
    clean_trailers(trailers);
    strip_faked_headers(trailers, &[]);
    trailers.remove(SET_COOKIE);
}

fn clean_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    for name in [HOST, CONTENT_LENGTH, CONTENT_TYPE, TRAILER] {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        map
    }

    fn lines(map: &HeaderMap) -> Vec<(String, String)> {
        let mut lines: Vec<_> =
            map.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        lines.sort();
        lines
    }

    fn owned(lines: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut lines: Vec<_> = lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        lines.sort();
        lines
    }

    #[test]
    fn payment_headers_of_requests_are_taken_out_and_nothing_else() {
        type Lines<'a> = &'a [(&'a str, &'a str)];
        let table: &[(Lines, Lines)] = &[
            (&[("authorization", "Payment eyJ9")], &[]),
            (&[("authorization", "pAyMeNT eyJ9")], &[]),
            (&[("authorization", "Payment")], &[]),
            (&[("authorization", "  Payment\teyJ9")], &[]),
            (&[("authorization", "Payments eyJ9")], &[("authorization", "Payments eyJ9")]),
            (&[("authorization", "Bearer payment")], &[("authorization", "Bearer payment")]),
            (&[("authorization", "Bearer abc, Payment eyJ9")], &[("authorization", "Bearer abc")]),
            (&[("authorization", "Bearer abc,Payment eyJ9, x=1")], &[("authorization", "Bearer abc")]),
            (&[("authorization", "Digest a=\"b\", c=d")], &[("authorization", "Digest a=\"b\", c=d")]),
            (&[("authorization", "Payment a"), ("authorization", "Basic b")], &[("authorization", "Basic b")]),
            (&[("authorization", "")], &[("authorization", "")]),
            (&[("payment-authorization", "x"), ("PAYMENT-SIGNATURE", "x"), ("X-PAYMENT", "x")], &[]),
            (&[("payment-context", "x"), ("crawler-exact-price", "x"), ("crawler-max-price", "x")], &[]),
            (&[("accept-payment", "x"), ("payment-identifier", "x"), ("payment-receipt", "x")], &[]),
            (&[("cookie", "weir_gate=secret")], &[]),
            (&[("cookie", "a=b; weir_gate=secret; c=d")], &[("cookie", "a=b; c=d")]),
            (&[("cookie", "a=b;weir_gate = secret ;c=d")], &[("cookie", "a=b; c=d")]),
            (&[("cookie", "weir_gate=1; weir_gate=2; x=y")], &[("cookie", "x=y")]),
            (&[("cookie", "weir_gate"), ("cookie", "x=y")], &[("cookie", "x=y")]),
            (
                &[("cookie", "a=b"), ("cookie", "weir_gate=s"), ("cookie", "c=d")],
                &[("cookie", "a=b"), ("cookie", "c=d")],
            ),
            (&[("cookie", "my_weir_gate=1; weir_gate2=2")], &[("cookie", "my_weir_gate=1; weir_gate2=2")]),
            (&[("cookie", "a=weir_gate=1")], &[("cookie", "a=weir_gate=1")]),
            (&[("accept", "*/*"), ("x-payment-id", "mine")], &[("accept", "*/*"), ("x-payment-id", "mine")]),
        ];
        for (before, after) in table {
            let mut headers = map(before);
            strip_payment_headers(&mut headers, &["weir_gate".to_owned()]);
            assert_eq!(lines(&headers), owned(after), "{before:?}");
        }
    }

    #[test]
    fn headers_by_which_an_upstream_passes_for_the_gate_are_taken_out() {
        let mut headers = map(&[
            ("payment-receipt", "fake"),
            ("payment-response", "fake"),
            ("payment-required", "fake"),
            ("x-payment-response", "fake"),
            ("crawler-charged", "EUR 0"),
            ("crawler-price", "EUR 0"),
            ("www-authenticate", "Payment id=\"x\", method=\"weir\""),
            ("www-authenticate", "Basic realm=\"a\""),
            ("set-cookie", "weir_gate=x; Path=/"),
            ("set-cookie", "session=weir_gate=x"),
            ("content-type", "text/plain"),
        ]);
        strip_faked_headers(&mut headers, &["weir_gate".to_owned()]);
        assert_eq!(
            lines(&headers),
            owned(&[
                ("www-authenticate", "Basic realm=\"a\""),
                ("set-cookie", "session=weir_gate=x"),
                ("content-type", "text/plain"),
            ])
        );
    }

    #[test]
    fn hop_by_hop_headers_end_here_and_framing_cannot_be_named_away() {
        let mut headers = map(&[
            ("connection", "close, X-Mine , content-length"),
            ("connection", "keep-alive, host"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("proxy-authorization", "Basic x"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("content-length", "3"),
            ("host", "a"),
            ("trailer", "x-sum"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(lines(&headers), owned(&[("content-length", "3"), ("host", "a"), ("trailer", "x-sum")]));
    }

    #[test]
    fn upgrades_to_http_or_tls_are_not_passed_on() {
        let upgraded =
            |connection, protocol| upgrade(&map(&[("connection", connection), ("upgrade", protocol)])).is_some();
        assert!(upgraded("Upgrade", "websocket"));
        assert!(upgraded("keep-alive, upgrade", "WebSocket"));
        assert!(upgraded("upgrade", "irc/6.9"));
        for refused in ["h2c", "H2C", "h2", "TLS/1.2", "HTTP/2.0", "websocket, h2c", ""] {
            assert!(!upgraded("upgrade", refused), "{refused}");
        }
        assert!(!upgraded("close", "websocket"));
        assert!(upgrade(&map(&[("upgrade", "websocket")])).is_none());
        assert!(upgrade(&map(&[("connection", "upgrade"), ("upgrade", "a"), ("upgrade", "b")])).is_none());
    }

    #[test]
    fn address_of_an_untrusted_peer_replaces_what_it_claims() {
        let claims = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=1.1.1.1"),
            ("x-forwarded-host", "evil"),
        ];
        let host: HeaderValue = "site".parse().unwrap();
        let address = "[2001:db8::1]:9".parse().unwrap();
        let mut headers = map(&claims);
        set_forwarded(&mut headers, &Peer::new(address), Some(&host));
        assert_eq!(
            lines(&headers),
            owned(&[
                ("x-forwarded-for", "2001:db8::1"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "site"),
                ("forwarded", "for=\"[2001:db8::1]\";proto=http;host=\"site\""),
            ])
        );
        let mut headers = map(&claims);
        set_forwarded(&mut headers, &Peer::new("[::ffff:10.0.0.1]:9".parse().unwrap()).trusted(), Some(&host));
        assert_eq!(
            lines(&headers),
            owned(&[
                ("x-forwarded-for", "1.1.1.1, 10.0.0.1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "evil"),
                ("forwarded", "for=1.1.1.1, for=10.0.0.1;proto=http;host=\"site\""),
            ])
        );
    }

    #[test]
    fn client_behind_trusted_proxies_is_the_rightmost_stranger() {
        let trusted = |address: IpAddr| address.to_string().starts_with("10.");
        let told =
            |chain| forwarded_for(&map(&[("x-forwarded-for", chain)]), trusted).map(|address| address.to_string());
        assert_eq!(told("6.6.6.6, 1.2.3.4, 10.0.0.2").as_deref(), Some("1.2.3.4"));
        assert_eq!(told("10.0.0.9, 10.0.0.2").as_deref(), Some("10.0.0.9"));
        assert_eq!(told("1.2.3.4, junk, 10.0.0.2").as_deref(), Some("10.0.0.2"));
        assert_eq!(told("junk"), None);
        assert_eq!(forwarded_for(&HeaderMap::new(), trusted), None);
    }

    proptest::proptest! {
        #[test]
        fn stripping_any_line_leaves_no_payment_word_and_never_panics(value in "[ -~\t]{0,60}", gate in "[ ;,a-z=]{0,12}") {
            for line in [value.clone(), format!("{gate}Payment {value}"), format!("{gate};weir_gate={value}")] {
                let Ok(parsed) = HeaderValue::from_str(&line) else { continue };
                for name in [AUTHORIZATION, COOKIE, CONNECTION] {
                    let mut headers = HeaderMap::new();
                    headers.append(name, parsed.clone());
                    strip_payment_headers(&mut headers, &["weir_gate".to_owned()]);
                    strip_faked_headers(&mut headers, &["weir_gate".to_owned()]);
                    strip_hop_by_hop(&mut headers);
                    if let Some(left) = headers.get(AUTHORIZATION) {
                        let first = left.to_str().unwrap_or_default().trim().split([' ', '\t', ',']).next().unwrap_or_default();
                        proptest::prop_assert!(!first.eq_ignore_ascii_case("payment"));
                    }
                    for pair in headers.get(COOKIE).and_then(|left| left.to_str().ok()).unwrap_or_default().split(';') {
                        proptest::prop_assert!(pair.split('=').next().unwrap_or_default().trim() != "weir_gate");
                    }
                }
            }
        }
    }
}
