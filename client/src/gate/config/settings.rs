//! All of the configuration but prices.

use core::net::{IpAddr, SocketAddr};
use std::path::Path;

use http::Uri;
use ipnet::IpNet;
use toml::Spanned;
use weir_protocol::amount::Currency;
use weir_protocol::id::{HubAddress, HubId, IdError};

use super::file::{File, Text};
use super::read::{Faults, path};
use super::{Accept, Mode, Settings, Timeouts, TlsFiles};
use crate::gate::price::DEFAULT_VISITORS;
use crate::span::Span;

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// What holds without the key.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(core::net::Ipv4Addr::LOCALHOST), 8402);
const DEFAULT_TTL_MS: u64 = 10 * MINUTE_MS;
const DEFAULT_IN_FLIGHT: u64 = 4_096;
/// The longest realm; its characters are those of a quoted string that need no escape, without the `|` between the slots
/// of a challenge's MAC.
const MAX_REALM_CHARS: usize = 128;

const MODES: &[(&str, Mode)] = &[("proxy", Mode::Proxy), ("forward-auth", Mode::ForwardAuth)];

/// The mode, for reading the prices even where the settings have a fault.
pub(super) fn mode(file: &File) -> Option<Mode> {
    let text = file.mode.as_ref()?;
    MODES.iter().find(|(word, _)| word == text.get_ref()).map(|(_, mode)| *mode)
}

/// The grace, likewise.
pub(super) fn grace_ms(file: &File) -> u64 {
    match file.grace.as_ref().and_then(|text| text.get_ref().parse().ok()) {
        Some(Span::Ms(ms)) => ms,
        Some(Span::Never) | None => DEFAULT_TTL_MS,
    }
}

pub(super) fn read(file: &File, folder: &Path, faults: &mut Faults<'_>) -> Option<Settings> {
    let mode = faults.word("mode", &file.mode, MODES).unwrap_or(Mode::Proxy);
    let upstream = upstream("upstream", &file.upstream, faults);
    if mode == Mode::Proxy && file.upstream.is_none() {
        faults.missing("upstream", "where requests go, such as \"http://127.0.0.1:3000\"");
    }
    let (realm, payee, hub) = (realm(file, faults), payee(file, faults), hub(file, faults));
    let address = "an address and a port, such as \"127.0.0.1:8402\"";
    let listen = faults.parse("listen", &file.listen, address).unwrap_or(DEFAULT_LISTEN);
    let metrics: Option<SocketAddr> = faults.parse("metrics", &file.metrics, address);
    if let (Some(metrics), Some(text)) = (metrics, &file.metrics)
        && metrics == listen
        && metrics.port() != 0
    {
        faults.fault(&text.span(), "metrics", "is what readers reach: the address of `listen`", "name another port");
    }
    let currency = faults.parse("currency", &file.currency, "such as \"EUR\"").unwrap_or(Currency::EUR);
    let secret_file = file.secret_file.as_ref().map_or_else(|| folder.join("gate-secret"), |text| path(folder, text));
    let challenge_ttl_ms = faults.span("challenge_ttl", &file.challenge_ttl, DEFAULT_TTL_MS, 30 * SECOND_MS..=DAY_MS);
    let context_secret_file = file
        .context
        .as_ref()
        .map(|context| context.secret_file.as_ref().map_or_else(|| secret_file.clone(), |text| path(folder, text)));
    let settings = Settings {
        listen,
        mode,
        upstream,
        currency,
        home: file.home.as_ref().map(|text| path(folder, text)),
        state: file.state.as_ref().map_or_else(|| folder.join("gate-state"), |text| path(folder, text)),
        secret_file,
        certificates: file.certificates.iter().map(|text| path(folder, text)).collect(),
        challenge_ttl_ms,
        grace_ms: faults.span("grace", &file.grace, DEFAULT_TTL_MS, SECOND_MS..=DAY_MS),
        refund_unshown_after_ms: refund_after(file, challenge_ttl_ms, faults),
        max_in_flight: number(faults.number("max_in_flight", &file.max_in_flight, 1..=1_000_000), DEFAULT_IN_FLIGHT),
        cookie: cookie(file, faults),
        cors: file.cors.iter().filter_map(|text| origin(text, faults)).collect(),
        trust_forwarded: file.trust_forwarded.iter().filter_map(|text| network(text, faults)).collect(),
        metrics,
        quota_visitors: number(
            faults.number("quota_visitors", &file.quota_visitors, 1..=10_000_000),
            DEFAULT_VISITORS as u64,
        ),
        tls: tls(file, folder, faults),
        timeouts: Timeouts {
            connect_ms: timeout("timeouts.connect", &file.timeouts.connect, 5 * SECOND_MS, faults),
            first_byte_ms: timeout("timeouts.first_byte", &file.timeouts.first_byte, MINUTE_MS, faults),
            idle_ms: timeout("timeouts.idle", &file.timeouts.idle, MINUTE_MS, faults),
        },
        context_secret_file,
        accept: accept(file, faults),
        // Last, so that what else is wrong is told too.
        realm: realm?,
        payee: payee?,
        hub: hub.as_ref()?.0,
        hub_address: hub.and_then(|(_, address)| address),
    };
    Some(settings)
}

fn number(number: Option<u64>, default: u64) -> usize {
    usize::try_from(number.unwrap_or(default)).unwrap_or(usize::MAX)
}

fn timeout(key: &str, text: &Text, default_ms: u64, faults: &mut Faults<'_>) -> u64 {
    faults.span(key, text, default_ms, 1..=60 * MINUTE_MS)
}

fn realm(file: &File, faults: &mut Faults<'_>) -> Option<String> {
    let hint = "1 to 128 printable ASCII characters without `\"`, `\\` and `|`, such as \"news.example\"";
    let Some(text) = &file.realm else {
        faults.missing("realm", hint);
        return None;
    };
    let realm = text.get_ref();
    let fits = realm.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\' | b'|'));
    if !fits || realm.trim() != realm || realm.is_empty() || realm.len() > MAX_REALM_CHARS {
        faults.fault(&text.span(), "realm", "cannot stand in a challenge", hint);
        return None;
    }
    Some(realm.clone())
}

fn payee(file: &File, faults: &mut Faults<'_>) -> Option<weir_protocol::id::AccountId> {
    if file.payee.is_none() {
        faults.missing("payee", "the account that is paid; `weir id` prints it");
    }
    faults.parse("payee", &file.payee, "an account id, weir1…; `weir id` prints it")
}

fn hub(file: &File, faults: &mut Faults<'_>) -> Option<(HubId, Option<HubAddress>)> {
    let hint = "an address weir://…@host:port, or an id weirhub1…; `weir hub` prints it";
    let Some(text) = &file.hub else {
        faults.missing("hub", hint);
        return None;
    };
    let read: Result<_, IdError> = if text.get_ref().contains("://") {
        text.get_ref().parse::<HubAddress>().map(|address| (address.hub, Some(address)))
    } else {
        text.get_ref().parse::<HubId>().map(|id| (id, None))
    };
    match read {
        Ok(hub) => Some(hub),
        Err(error) => {
            faults.fault(&text.span(), "hub", format!("is wrong: {error}"), hint);
            None
        }
    }
}

/// An upstream's URL, without a path: with one, the gate and the upstream could read a path differently.
pub(super) fn upstream(key: &str, text: &Text, faults: &mut Faults<'_>) -> Option<Uri> {
    let text = text.as_ref()?;
    let uri = text.get_ref().parse::<Uri>().ok().filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri
                .authority()
                .is_some_and(|authority| !authority.as_str().contains('@') && !authority.host().is_empty())
            && uri.path_and_query().is_none_or(|path| path.as_str() == "/")
            && !text.get_ref().contains('#')
    });
    if uri.is_none() {
        let hint = "http:// or https://, a host and perhaps a port, without a path: \"http://127.0.0.1:3000\"";
        faults.fault(&text.span(), key, format!("is no upstream: `{}`", text.get_ref()), hint);
    }
    uri
}

fn refund_after(file: &File, challenge_ttl_ms: u64, faults: &mut Faults<'_>) -> Option<u64> {
    let text = file.refund_unshown_after.as_ref()?;
    let hint = "a span longer than `challenge_ttl`, such as \"7d\", or \"never\"";
    match faults.parse::<Span>("refund_unshown_after", &file.refund_unshown_after, hint)? {
        Span::Never => None,
        Span::Ms(ms) if ms <= challenge_ttl_ms => {
            let what = "is not longer than `challenge_ttl`: payments would be refunded that may still be shown";
            faults.fault(&text.span(), "refund_unshown_after", what, hint);
            None
        }
        Span::Ms(_) if file.home.is_none() => {
            let hint = "name the payee's home folder, or leave it out";
            faults.fault(&text.span(), "refund_unshown_after", "needs `home`: only the payee can refund", hint);
            None
        }
        Span::Ms(ms) => Some(ms),
    }
}

fn cookie(file: &File, faults: &mut Faults<'_>) -> String {
    let Some(text) = &file.cookie else { return "weir".to_owned() };
    let token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.get_ref().is_empty() || text.get_ref().len() > 64 || !text.get_ref().bytes().all(token) {
        let hint = "1 to 64 letters, digits, `-`, `_` and `.`";
        faults.fault(&text.span(), "cookie", "cannot name a cookie", hint);
    }
    text.get_ref().clone()
}

fn origin(text: &Spanned<String>, faults: &mut Faults<'_>) -> Option<String> {
    let origin = text.get_ref();
    if origin == "*" {
        return Some(origin.clone());
    }
    let reads = origin.parse::<Uri>().is_ok_and(|uri| {
        let host = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let scheme = uri.scheme_str().unwrap_or_default();
        matches!(scheme, "http" | "https") && !host.contains('@') && *origin == format!("{scheme}://{host}")
    });
    if !reads || origin.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let hint = "as a browser sends it: a scheme and a host in lower case, without a slash at the end: \"https://app.example\"";
        faults.fault(&text.span(), "cors", format!("names no origin: `{origin}`"), hint);
        return None;
    }
    Some(origin.clone())
}

fn network(text: &Spanned<String>, faults: &mut Faults<'_>) -> Option<IpNet> {
    let network = text.get_ref();
    let read = network.parse().ok().or_else(|| network.parse::<IpAddr>().ok().map(IpNet::from));
    if read.is_none() {
        let hint = "an address or a network, such as \"127.0.0.1\" or \"10.0.0.0/8\"";
        faults.fault(&text.span(), "trust_forwarded", format!("names no network: `{network}`"), hint);
    }
    read
}

fn tls(file: &File, folder: &Path, faults: &mut Faults<'_>) -> Option<TlsFiles> {
    let table = file.tls.as_ref()?;
    let tls = table.get_ref();
    let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) else {
        faults.fault(&table.span(), "tls", "needs both `certificate` and `key`", "name the two PEM files");
        return None;
    };
    Some(TlsFiles { certificate: path(folder, certificate), key: path(folder, key) })
}

fn accept(file: &File, faults: &mut Faults<'_>) -> Accept {
    let table = &file.accept;
    let accept = Accept {
        payment: table.payment.unwrap_or(true),
        x402: table.x402.unwrap_or(true),
        crawler: table.crawler.unwrap_or(true),
    };
    if !accept.payment && !accept.x402 && !accept.crawler {
        faults.overall(
            "accept",
            "turns every dialect off",
            "leave at least one of `payment`, `x402` and `crawler` on, else nobody can pay",
        );
    }
    accept
}
