//! The price table of a file.

use core::num::NonZeroU64;
use core::ops::Range;
use std::sync::Arc;

use http::Method;
use http::header::HeaderName;
use toml::Spanned;
use weir_protocol::amount::Amount;

use super::Mode;
use super::file::{File, ForCrawlersTable, Free, MeteringTable, QuotaTable, RouteTable, TierTable, UnitTable};
use super::read::Faults;
use super::settings::upstream;
use crate::gate::price::{
    By, BytePrice, Counted, Crawlers, Fallback, ForCrawlers, FreeQuota, MAX_ROUTES, Metering, OnAbort, Pattern, People,
    Price, PriceTable, Rate, Report, Route, TableParts, Tier, UnitPrice, Unreported, path,
};

const DAY_MS: u64 = 86_400_000;
/// The most units or bytes that can be reserved.
const MAX_COUNT: u64 = 1 << 53;
/// The most steps of a price.
const MAX_TIERS: usize = 32;
/// The longest JSON pointer, in tokens.
const MAX_POINTER_TOKENS: usize = 32;

const ON_ABORT: &[(&str, OnAbort)] = &[("release", OnAbort::Release), ("charge", OnAbort::Charge)];
const UNREPORTED: &[(&str, Unreported)] = &[("nothing", Unreported::Nothing), ("most", Unreported::Most)];

pub(super) fn read(file: &File, mode: Mode, grace_ms: u64, faults: &mut Faults<'_>) -> Option<PriceTable> {
    let defaults = Defaults::read(&file.metering, faults);
    let (mut routes, mut spans) = (Vec::new(), Vec::new());
    for table in &file.route {
        let before = routes.len();
        read_route(table, &defaults, &mut routes, faults);
        for route in routes.iter_mut().skip(before) {
            let span = table.span();
            if mode == Mode::ForwardAuth {
                fix(route, grace_ms, &span, faults);
            }
            spans.push(span);
        }
    }
    if routes.len() > MAX_ROUTES {
        faults.overall("route", "stands too often", "a table has up to 10,000 routes");
        return None;
    }
    let parts = TableParts {
        fallback: fallback(file, mode, grace_ms, faults),
        crawlers: Crawlers::new(&file.crawlers.names, &file.crawlers.not),
        hosts: file.hosts.iter().map(|host| host.get_ref().clone()).collect(),
        free_paths: file.free_paths.unwrap_or(true),
        ignore_case: file.ignore_case.unwrap_or(false),
        routes,
    };
    // An empty name would be found in every `User-Agent`.
    if file.crawlers.names.iter().any(|name| name.trim().is_empty()) {
        faults.overall("crawlers", "names nothing", "each name is a word of a `User-Agent`, such as \"GPTBot\"");
    }
    let matches: Vec<Arc<str>> = parts.routes.iter().map(|route| Arc::clone(&route.id)).collect();
    match PriceTable::new(parts) {
        Ok(table) => Some(table),
        Err(conflicts) => {
            for conflict in conflicts {
                let (Some(first), Some(second)) = (spans.get(conflict.first), spans.get(conflict.second)) else {
                    continue;
                };
                let name = matches.get(conflict.second).map(ToString::to_string).unwrap_or_default();
                let what = format!("`{name}` {} as the route on line {}", conflict.meaning, faults.line(first));
                faults.fault(second, "match", what, "leave one of them out, or name a method or a host");
            }
            None
        }
    }
}

/// What holds for routes that do not say it.
struct Defaults {
    per: NonZeroU64,
    max: Option<u64>,
    max_bytes: Option<u64>,
    unreported: Unreported,
}

impl Defaults {
    fn read(table: &MeteringTable, faults: &mut Faults<'_>) -> Self {
        Self {
            per: faults.per("metering.per", &table.per).unwrap_or(NonZeroU64::MIN),
            max: faults.number("metering.max", &table.max, 1..=MAX_COUNT),
            max_bytes: faults.number("metering.max_bytes", &table.max_bytes, 1..=MAX_COUNT),
            unreported: faults.word("metering.unreported", &table.unreported, UNREPORTED).unwrap_or_default(),
        }
    }
}

/// In mode forward-auth nothing is known but the request, and a receipt opens its resource for the grace at least.
fn fix(route: &mut Route, grace_ms: u64, span: &Range<usize>, faults: &mut Faults<'_>) {
    let crawlers = match &route.crawlers {
        ForCrawlers::Price(price) => Some(price),
        _ => None,
    };
    if route.price.iter().chain(crawlers).any(Price::is_metered) {
        let hint = "use `mode = \"proxy\"`, or a `price` per request";
        faults.fault(span, "route", "has a metered price, and `mode = \"forward-auth\"` sees only the request", hint);
    }
    if route.upstream.is_some() {
        let what = "has an `upstream`, and `mode = \"forward-auth\"` forwards nothing";
        faults.fault(span, "route", what, "leave it out: the web server knows its upstream");
    }
    if route.price.is_some() || crawlers.is_some() {
        route.access_ms = Some(route.access_ms.unwrap_or(0).max(grace_ms));
    }
}

fn fallback(file: &File, mode: Mode, grace_ms: u64, faults: &mut Faults<'_>) -> Fallback {
    let Some(text) = &file.default else { return Fallback::Free };
    match text.get_ref().as_str() {
        "free" => return Fallback::Free,
        "deny" => return Fallback::Deny,
        _ => {}
    }
    let price: Option<Amount> =
        faults.parse("default", &file.default, "\"free\", \"deny\", or a price such as \"0.01\"");
    if price == Some(Amount::ZERO) {
        faults.fault(&text.span(), "default", "is a price of nothing", "write \"free\"");
    }
    Fallback::Route(Box::new(Route {
        id: "default".into(),
        line: faults.line(&text.span()),
        methods: Vec::new(),
        host: None,
        pattern: Pattern::everything(),
        price: price.map(Price::fixed_only),
        crawlers: ForCrawlers::AsPeople,
        metering: None,
        quota: None,
        on_abort: OnAbort::Release,
        access_ms: (mode == Mode::ForwardAuth).then_some(grace_ms),
        people: People::Page,
        title: None,
        description: None,
        mime: None,
        upstream: None,
    }))
}

fn read_route(table: &Spanned<RouteTable>, defaults: &Defaults, routes: &mut Vec<Route>, faults: &mut Faults<'_>) {
    let (span, route) = (table.span(), table.get_ref());
    let Some(matches) = &route.matches else {
        faults.fault(&span, "match", "is missing", "what the route is for, such as \"GET /articles/{id}\"");
        return;
    };
    let host = route.host.as_ref().and_then(|text| {
        let host = path::host(text.get_ref());
        let reads = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/*@?#".contains(&byte));
        if !reads {
            faults.fault(
                &text.span(),
                "host",
                format!("names no host: `{}`", text.get_ref()),
                "such as \"news.example\"",
            );
        }
        reads.then_some(host)
    });
    let is_free = matches!(route.free.as_ref().map(Spanned::get_ref), Some(Free::All(true)));
    let (price, metering) = if is_free { (None, None) } else { price(table, defaults, faults) };
    if is_free {
        for (key, text) in [
            ("price", &route.price),
            ("price_per_byte", &route.price_per_byte),
            ("price_per_kb", &route.price_per_kb),
            ("on_abort", if route.crawlers.is_none() { &route.on_abort } else { &None }),
            // Crawlers may pay where people do not.
            ("access", if route.crawlers.is_none() { &route.access } else { &None }),
        ] {
            if let Some(text) = text {
                faults.fault(&text.span(), key, "stands in a route that is free", "leave one of the two out");
            }
        }
        if let Some(unit) = &route.unit {
            faults.fault(&unit.span(), "unit", "stands in a route that is free", "leave one of the two out");
        }
    }
    let quota = match route.free.as_ref().map(|free| (free.span(), free.get_ref())) {
        Some((span, Free::Quota(table))) => quota(table, &span, faults),
        _ => None,
    };
    let access_ms = faults.bounded_span("access", &route.access, 1_000..=3_660 * DAY_MS);
    if let (Some(text), Some(price)) = (&route.access, &price)
        && price.is_metered()
    {
        let what = "cannot hold for a metered price: who read once would use the rest for nothing";
        faults.fault(&text.span(), "access", what, "leave it out, or price by request");
    }
    let crawlers = route.crawlers.as_ref().map(|table| for_crawlers(table, price.as_ref(), faults)).unwrap_or_default();
    let host_name = host.as_ref().map(|host| format!("{host} ")).unwrap_or_default();
    let id: Arc<str> = format!("{host_name}{}", matches.get_ref().0.join(", ")).into();
    let made = Route {
        id,
        line: faults.line(&span),
        methods: Vec::new(),
        host,
        pattern: Pattern::everything(),
        price,
        crawlers,
        metering,
        quota,
        on_abort: faults.word("on_abort", &route.on_abort, ON_ABORT).unwrap_or_default(),
        access_ms,
        people: faults
            .word("people", &route.people, &[("page", People::Page), ("json", People::Json)])
            .unwrap_or_default(),
        title: faults.words("title", &route.title, 200),
        description: faults.words("description", &route.description, 1_000),
        mime: faults.words("mime", &route.mime, 100),
        upstream: upstream("upstream", &route.upstream, faults),
    };
    if matches.get_ref().0.is_empty() {
        faults.fault(&matches.span(), "match", "is empty", "at least one, such as \"GET /articles/{id}\"");
    }
    for text in &matches.get_ref().0 {
        if let Some((methods, pattern)) = methods_and_pattern(text, &matches.span(), faults) {
            routes.push(Route { methods, pattern, ..made.clone() });
        }
    }
}

/// `GET|POST /path`.
fn methods_and_pattern(text: &str, span: &Range<usize>, faults: &mut Faults<'_>) -> Option<(Vec<Method>, Pattern)> {
    let hint = "methods in capitals and a path, such as \"GET|POST /api/{*rest}\", or a path alone";
    let (names, path) = match text.trim().split_once(' ') {
        Some((names, path)) => (Some(names), path.trim_start()),
        None => (None, text.trim()),
    };
    let mut methods = Vec::new();
    for name in names.into_iter().flat_map(|names| names.split('|')) {
        match name.parse::<Method>() {
            Ok(method) if name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') => methods.push(method),
            _ => {
                faults.fault(span, "match", format!("names no method: `{name}`"), hint);
                return None;
            }
        }
    }
    if path == "/.weir" || path.starts_with("/.weir/") {
        faults.fault(span, "match", "is the gate's own: it answers below `/.weir/` itself", "choose another path");
        return None;
    }
    match Pattern::new(path) {
        Ok(pattern) => Some((methods, pattern)),
        Err(error) => {
            faults.fault(span, "match", format!("cannot be read: {error}"), hint);
            None
        }
    }
}

fn quota(table: &QuotaTable, span: &Range<usize>, faults: &mut Faults<'_>) -> Option<FreeQuota> {
    let hint = "write { requests = 5, per = \"1d\", by = \"ip\" }";
    let by = faults.word("free.by", &table.by, &[("ip", By::Ip), ("cookie", By::Cookie)]);
    let per_ms = faults.bounded_span("free.per", &table.per, 1_000..=366 * DAY_MS).and_then(NonZeroU64::new);
    let requests = table.requests.as_ref().map(|requests| *requests.get_ref());
    for (key, is_there) in
        [("free.requests", requests.is_some()), ("free.per", table.per.is_some()), ("free.by", table.by.is_some())]
    {
        if !is_there {
            faults.fault(span, key, "is missing", hint);
        }
    }
    if requests == Some(0) {
        faults.fault(span, "free.requests", "is zero", "leave `free` out");
    }
    Some(FreeQuota { requests: requests?, per_ms: per_ms?, by: by? })
}

fn for_crawlers(table: &Spanned<ForCrawlersTable>, people: Option<&Price>, faults: &mut Faults<'_>) -> ForCrawlers {
    let span = table.span();
    let table = table.get_ref();
    let price = faults.amount("crawlers.price", &table.price);
    match (&table.price, table.deny, table.free) {
        (Some(_), None, None) => {
            let price = price.unwrap_or_default();
            // What is metered stays so: only the part per request is another.
            let (bytes, units) =
                people.map_or((None, None), |people| (people.bytes().copied(), people.units().cloned()));
            if price.is_zero() && bytes.is_none() && units.is_none() && faults.is_empty() {
                faults.fault(&span, "crawlers", "have a price of nothing", "write { free = true }");
            }
            match Price::new(price, bytes, units) {
                Ok(price) => return ForCrawlers::Price(price),
                Err(error) => {
                    faults.fault(&span, "crawlers", format!("cannot be charged: {error}"), "a lower price or maximum");
                }
            }
        }
        (None, Some(true), None) => return ForCrawlers::Deny,
        (None, None, Some(true)) => return ForCrawlers::Free,
        _ => {
            let hint = "one of { price = \"0.01\" }, { deny = true }, { free = true }";
            faults.fault(&span, "crawlers", "says nothing, or more than one thing", hint);
        }
    }
    ForCrawlers::AsPeople
}

fn price(
    table: &Spanned<RouteTable>,
    defaults: &Defaults,
    faults: &mut Faults<'_>,
) -> (Option<Price>, Option<Metering>) {
    let (span, route) = (table.span(), table.get_ref());
    let fixed = faults.amount("price", &route.price).unwrap_or_default();
    let bytes = byte_price(route, &span, defaults, faults);
    let unit = route.unit.as_ref().map(|unit| unit_price(unit, defaults, faults));
    let (units, metering) = unit.flatten().unzip();
    let says_price = route.price_per_byte.is_some() || route.price_per_kb.is_some() || route.unit.is_some();
    if fixed.is_zero() && !says_price {
        let hint = "a `price` above \"0\", a price per byte, `[route.unit]`, or `free = true`";
        match &route.price {
            Some(text) if text.get_ref().parse() == Ok(Amount::ZERO) => {
                faults.fault(&text.span(), "price", "is nothing", hint);
            }
            Some(_) => {}
            None => faults.fault(&span, "price", "is missing", hint),
        }
    }
    match Price::new(fixed, bytes, units) {
        Ok(price) => (Some(price), metering),
        Err(error) => {
            let what = format!("cannot be reserved at its most: {error}");
            faults.fault(&span, "price", what, "lower `max`, `max_bytes` or the prices");
            (None, None)
        }
    }
}

fn byte_price(
    route: &RouteTable,
    span: &Range<usize>,
    defaults: &Defaults,
    faults: &mut Faults<'_>,
) -> Option<BytePrice> {
    let per_byte = faults.amount("price_per_byte", &route.price_per_byte).map(|price| (price, 1));
    let per_kb = faults.amount("price_per_kb", &route.price_per_kb).map(|price| (price, 1_000));
    if let (Some(_), Some(text)) = (&route.price_per_byte, &route.price_per_kb) {
        faults.fault(&text.span(), "price_per_kb", "stands beside `price_per_byte`", "leave one of the two out");
    }
    let kinds = [("request", Counted::Request), ("response", Counted::Response), ("both", Counted::Both)];
    let counted = faults.word("bytes", &route.bytes, &kinds).unwrap_or(Counted::Response);
    let max = faults.number("max_bytes", &route.max_bytes, 1..=MAX_COUNT);
    if route.price_per_byte.is_none() && route.price_per_kb.is_none() {
        let lone = [
            ("bytes", route.bytes.as_ref().map(Spanned::span)),
            ("max_bytes", route.max_bytes.as_ref().map(Spanned::span)),
        ];
        for (key, span) in lone {
            if let Some(span) = span {
                faults.fault(&span, key, "stands without a price for bytes", "add `price_per_kb` or `price_per_byte`");
            }
        }
        return None;
    }
    if route.max_bytes.is_none() && defaults.max_bytes.is_none() {
        let hint = "the most bytes that are reserved and charged, such as 10000000; or `max_bytes` in `[metering]`";
        faults.fault(span, "max_bytes", "is missing", hint);
    }
    let (price, per) = per_byte.or(per_kb)?;
    Some(BytePrice { rate: Rate { price, per: NonZeroU64::new(per)? }, counted, max: max.or(defaults.max_bytes)? })
}

fn unit_price(
    table: &Spanned<UnitTable>,
    defaults: &Defaults,
    faults: &mut Faults<'_>,
) -> Option<(UnitPrice, Metering)> {
    let (span, unit) = (table.span(), table.get_ref());
    let Some(from) = &unit.from else {
        faults.fault(&span, "unit.from", "is missing", FROM_HINT);
        return None;
    };
    let report = report(from, faults)?;
    let per = if unit.per.is_some() { faults.per("unit.per", &unit.per)? } else { defaults.per };
    let max = faults.number("unit.max", &unit.max, 1..=MAX_COUNT).or(defaults.max);
    let unreported = faults.word("unit.unreported", &unit.unreported, UNREPORTED).unwrap_or(defaults.unreported);
    let metering = Metering { report, unreported };
    let price = if matches!(metering.report, Report::OpenAi | Report::Anthropic) {
        tokens(unit, &span, per, max, faults)
    } else {
        let max = if metering.report == Report::Requests { Some(1) } else { max };
        plain(unit, &span, per, max, faults)
    };
    Some((price?, metering))
}

const FROM_HINT: &str =
    "one of \"header:NAME\", \"trailer:NAME\", \"json:/POINTER\", \"openai\", \"anthropic\", \"requests\"";

fn report(from: &Spanned<String>, faults: &mut Faults<'_>) -> Option<Report> {
    let text = from.get_ref();
    let read = match text.split_once(':') {
        None => match text.as_str() {
            "openai" => Some(Report::OpenAi),
            "anthropic" => Some(Report::Anthropic),
            "requests" => Some(Report::Requests),
            _ => None,
        },
        Some(("header", name)) => name.parse::<HeaderName>().ok().map(Report::Header),
        Some(("trailer", name)) => name.parse::<HeaderName>().ok().map(Report::Trailer),
        Some(("json", pointer)) => json_pointer(pointer).map(Report::Json),
        Some(_) => None,
    };
    if read.is_none() {
        faults.fault(&from.span(), "unit.from", format!("is unknown: `{text}`"), FROM_HINT);
    }
    read
}

/// A JSON pointer (RFC 6901), split and unescaped.
fn json_pointer(text: &str) -> Option<Vec<String>> {
    let tokens: Vec<&str> = text.strip_prefix('/')?.split('/').collect();
    if tokens.len() > MAX_POINTER_TOKENS || text.len() > crate::gate::meter::MAX_POINTER_BYTES {
        return None;
    }
    tokens
        .into_iter()
        .map(|token| {
            let strays = token.replace("~0", "").replace("~1", "").contains('~');
            (!strays).then(|| token.replace("~1", "/").replace("~0", "~"))
        })
        .collect()
}

fn plain(
    unit: &UnitTable,
    span: &Range<usize>,
    per: NonZeroU64,
    max: Option<u64>,
    faults: &mut Faults<'_>,
) -> Option<UnitPrice> {
    for (key, text) in [
        ("unit.input", &unit.input),
        ("unit.output", &unit.output),
        ("unit.cached", &unit.cached),
        ("unit.cache_write", &unit.cache_write),
    ] {
        if let Some(text) = text {
            faults.fault(
                &text.span(),
                key,
                "is a price of tokens",
                "use `price`, or `from = \"openai\"` or \"anthropic\"",
            );
        }
    }
    for (key, number) in [("unit.max_input", &unit.max_input), ("unit.max_output", &unit.max_output)] {
        if let Some(number) = number {
            faults.fault(&number.span(), key, "is a number of tokens", "use `max`");
        }
    }
    let price = faults.amount("unit.price", &unit.price);
    let tiers = match (&unit.price, unit.tiers.is_empty()) {
        (Some(_), true) => vec![Tier { up_to: None, price: price? }],
        (None, false) => tiers(&unit.tiers, faults)?,
        _ => {
            faults.fault(
                span,
                "unit.price",
                "or `tiers` must be there, and not both",
                "such as `price = \"0.000002\"`",
            );
            return None;
        }
    };
    if tiers.iter().all(|tier| tier.price.is_zero()) {
        faults.fault(span, "unit.price", "is nothing", "a price above \"0\", or leave `[route.unit]` out");
    }
    if max.is_none() {
        faults.fault(span, "unit.max", "is missing", "the most units that are reserved and charged, such as 4096");
    }
    Some(UnitPrice::Plain { tiers, per, max: max? })
}

fn tiers(tables: &[Spanned<TierTable>], faults: &mut Faults<'_>) -> Option<Vec<Tier>> {
    let mut tiers: Vec<Tier> = Vec::new();
    let hint = "steps with rising `up_to`; only the last has none";
    for (index, table) in tables.iter().enumerate() {
        let price = faults.amount("unit.tiers.price", &table.get_ref().price);
        if table.get_ref().price.is_none() {
            faults.fault(&table.span(), "unit.tiers.price", "is missing", hint);
        }
        let up_to = table.get_ref().up_to.as_ref().map(|number| *number.get_ref());
        let above = tiers.last().and_then(|tier| tier.up_to).unwrap_or(0);
        let is_last = index + 1 == tables.len();
        if up_to.is_none() != is_last || up_to.is_some_and(|up_to| up_to <= above) || index >= MAX_TIERS {
            faults.fault(&table.span(), "unit.tiers", "are not in order, or too many", hint);
            return None;
        }
        tiers.push(Tier { up_to, price: price? });
    }
    Some(tiers)
}

fn tokens(
    unit: &UnitTable,
    span: &Range<usize>,
    per: NonZeroU64,
    max: Option<u64>,
    faults: &mut Faults<'_>,
) -> Option<UnitPrice> {
    if !unit.tiers.is_empty() {
        faults.fault(
            span,
            "unit.tiers",
            "cannot stand with tokens of several kinds",
            "read one number with \"json:/…\"",
        );
    }
    let price = faults.amount("unit.price", &unit.price);
    let input = faults.amount("unit.input", &unit.input).or(price);
    let output = faults.amount("unit.output", &unit.output).or(price);
    let cached = faults.amount("unit.cached", &unit.cached).or(input);
    let cache_write = faults.amount("unit.cache_write", &unit.cache_write).or(input);
    let max_input = faults.number("unit.max_input", &unit.max_input, 1..=MAX_COUNT).or(max);
    let max_output = faults.number("unit.max_output", &unit.max_output, 1..=MAX_COUNT).or(max);
    if unit.price.is_none() && (unit.input.is_none() || unit.output.is_none()) {
        faults.fault(span, "unit.price", "is missing", "`price` for all tokens, or both `input` and `output`");
    }
    if max_input.is_none() || max_output.is_none() {
        let hint = "the most tokens that are reserved and charged: `max`, or `max_input` and `max_output`";
        faults.fault(span, "unit.max", "is missing", hint);
    }
    let (input, output, cached, cache_write) = (input?, output?, cached?, cache_write?);
    if [input, output, cached, cache_write].iter().all(|price| price.is_zero()) {
        faults.fault(span, "unit.price", "is nothing", "a price above \"0\", or leave `[route.unit]` out");
    }
    Some(UnitPrice::Tokens { input, cached, cache_write, output, per, max_input: max_input?, max_output: max_output? })
}
