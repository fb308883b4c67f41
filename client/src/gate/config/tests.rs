#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use super::*;
use crate::gate::price::{By, Counted, Fallback, ForCrawlers, OnAbort, People, Report, UnitPrice, Unreported};
use weir_protocol::amount::Amount;
use weir_protocol::keys::PublicKey;

/// What every configuration needs; ids are made, so that their checksums are right.
pub(crate) fn head() -> String {
    let payee = AccountId(PublicKey([7; 32]));
    let hub = HubId(PublicKey([9; 32]));
    format!(
        "payee = \"{payee}\"\nhub = \"weir://{hub}@hub.example:8400\"\nrealm = \"news.example\"\nupstream = \"http://127.0.0.1:3000\"\n"
    )
}

pub(crate) fn config(text: &str) -> GateConfig {
    read(text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn read(text: &str) -> Result<GateConfig, ConfigErrors> {
    GateConfig::read(Path::new("/etc/weir/gate.toml"), &format!("{}{text}", head()))
}

/// The lines of `head()`.
const HEAD_LINES: usize = 4;

fn faults(text: &str) -> Vec<String> {
    let Err(errors) = read(text) else { return Vec::new() };
    errors
        .0
        .iter()
        .map(|error| {
            let hint = error.hint().unwrap_or_else(|| panic!("no hint: {error}"));
            assert!(!hint.is_empty() && !hint.ends_with('.') && !hint.contains('\n'), "{hint}");
            error.to_string().replace("`/etc/weir/gate.toml` ", "")
        })
        .collect()
}

#[test]
fn config_with_the_least_has_the_documented_defaults() {
    let GateConfig { settings, table, .. } = config("");
    assert_eq!(settings.listen, "127.0.0.1:8402".parse().unwrap());
    assert_eq!(settings.mode, Mode::Proxy);
    assert_eq!(settings.hub_address.as_ref().unwrap().port, 8_400);
    assert_eq!(settings.hub, settings.hub_address.as_ref().unwrap().hub);
    assert_eq!(settings.currency, Currency::EUR);
    assert_eq!(settings.state, Path::new("/etc/weir/gate-state"));
    assert_eq!(settings.secret_file, Path::new("/etc/weir/gate-secret"));
    assert_eq!((settings.challenge_ttl_ms, settings.grace_ms), (600_000, 600_000));
    assert_eq!((settings.max_in_flight, settings.quota_visitors), (4_096, 100_000));
    assert_eq!(settings.cookie, "weir");
    assert_eq!(settings.timeouts, Timeouts { connect_ms: 5_000, first_byte_ms: 60_000, idle_ms: 60_000 });
    assert_eq!(settings.accept, Accept { payment: true, x402: true, crawler: true });
    assert!(settings.refund_unshown_after_ms.is_none() && settings.tls.is_none() && settings.metrics.is_none());
    assert!(settings.context_secret_file.is_none() && settings.certificates.is_empty());
    assert!(table.routes().is_empty() && table.free_paths() && matches!(table.fallback(), Fallback::Free));
}

#[test]
fn config_with_everything_is_read() {
    let GateConfig { settings, table, .. } = config(
        r#"
listen = "0.0.0.0:443"
mode = "proxy"
currency = "EUR"
home = "payee"
state = "/var/lib/weir/gate"
secret_file = "secret"
certificates = ["hub.cert"]
challenge_ttl = "5m"
grace = "1s"
refund_unshown_after = "7d"
max_in_flight = 10
cookie = "__Host-weir"
cors = ["https://app.example", "http://localhost:3000", "*"]
trust_forwarded = ["127.0.0.1", "10.0.0.0/8", "::1"]
metrics = "127.0.0.1:9402"
default = "0.01"
free_paths = false
ignore_case = true
hosts = ["Other.Example:443"]
quota_visitors = 5
tls = { certificate = "cert.pem", key = "key.pem" }
timeouts = { connect = "1500ms", first_byte = "1h", idle = "1ms" }
context = { secret_file = "context" }
accept = { x402 = false }
crawlers = { names = ["Foo"], not = ["GPTBot"] }
metering = { per = 1000, max = 100, max_bytes = 5000, unreported = "most" }

[[route]]
match = ["GET /articles/{id}", "/more/{*rest}"]
host = "News.Example"
upstream = "https://127.0.0.2"
price = "0.05"
free = { requests = 5, per = "1d", by = "cookie" }
access = "24h"
crawlers = { price = "0.10" }
people = "json"
title = "An article"
description = "One article of ours."
mime = "text/html"

[[route]]
match = "GET|POST /data"
price_per_kb = "0.000001"
bytes = "both"

[[route]]
match = "POST /v1/chat/completions"
price = "0.001"
crawlers = { deny = true }
[route.unit]
from = "openai"
input = "0.5"
output = "1.5"
cached = "0.05"
max_input = 1000
unreported = "nothing"

[[route]]
match = "/status"
free = true

[[route]]
match = "/tiers"
[route.unit]
from = "header:X-Units"
per = 1
max = 20
tiers = [{ up_to = 10, price = "2" }, { price = "1" }]
"#,
    );
    assert_eq!(settings.home.as_deref(), Some(Path::new("/etc/weir/payee")));
    assert_eq!(settings.state, Path::new("/var/lib/weir/gate"));
    assert_eq!(settings.context_secret_file.as_deref(), Some(Path::new("/etc/weir/context")));
    assert_eq!(settings.refund_unshown_after_ms, Some(604_800_000));
    assert_eq!(settings.trust_forwarded.len(), 3);
    assert_eq!(settings.cors, ["https://app.example", "http://localhost:3000", "*"]);
    assert_eq!(settings.timeouts, Timeouts { connect_ms: 1_500, first_byte_ms: 3_600_000, idle_ms: 1 });
    assert_eq!(settings.accept, Accept { payment: true, x402: false, crawler: true });
    assert!(table.hosts().contains("other.example") && table.hosts().contains("news.example"));

    let [article, more, data, chat, status, tiers] = table.routes() else { panic!("{:?}", table.routes()) };
    assert_eq!(article.id.as_ref(), "news.example GET /articles/{id}, /more/{*rest}");
    assert_eq!((article.id.clone(), article.line), (more.id.clone(), HEAD_LINES + 29));
    assert_eq!((article.methods.len(), more.methods.len()), (1, 0));
    assert_eq!(article.people, People::Json);
    assert_eq!(article.access_ms, Some(86_400_000));
    assert_eq!(article.quota.map(|quota| (quota.requests, quota.by)), Some((5, By::Cookie)));
    assert!(matches!(&article.crawlers, ForCrawlers::Price(price) if price.fixed() == "0.1".parse().unwrap()));
    assert_eq!(article.mime.as_deref(), Some("text/html"));
    let bytes = data.price.as_ref().unwrap().bytes().unwrap();
    assert_eq!((bytes.rate.per.get(), bytes.counted, bytes.max), (1_000, Counted::Both, 5_000));
    assert_eq!(chat.metering.as_ref().unwrap().report, Report::OpenAi);
    assert_eq!(chat.metering.as_ref().unwrap().unreported, Unreported::Nothing);
    let Some(UnitPrice::Tokens { input, cache_write, per, max_input, max_output, .. }) =
        chat.price.as_ref().unwrap().units()
    else {
        panic!("{chat:?}")
    };
    assert_eq!((input, per.get(), *max_input, *max_output), (cache_write, 1_000, 1_000, 100));
    assert!(status.price.is_none());
    assert_eq!(tiers.metering.as_ref().unwrap().unreported, Unreported::Most);
    assert_eq!(tiers.price.as_ref().unwrap().most(), "40".parse::<Amount>().unwrap());
    let Fallback::Route(route) = table.fallback() else { panic!() };
    assert_eq!(route.price.as_ref().unwrap().fixed(), "0.01".parse().unwrap());
}

#[test]
fn fault_names_line_key_and_hint() {
    for (text, expected) in [
        ("sate = \"x\"", "line 5: unknown field `sate`"),
        ("\n\nlisten = 5", "line 7: invalid type: integer `5`, expected a string"),
        ("[[route]]\nmatch = \"/a\"\nprice = 0.05", "line 7: invalid type: floating point"),
        ("[[route]]\nmatch = \"/a\"\nprice = \"x\"", "line 7: `price` is wrong: `x` is not an amount"),
        ("[[route]]\nmatch = \"/a\"\nprice = \"0.0000000001\"", "line 7: `price` is wrong"),
        ("[[route]]\nprice = \"1\"", "line 5: `match` is missing"),
        ("[[route]]\nmatch = 3\nprice = \"1\"", "line 6: invalid type: integer `3`, expected a text such as"),
        ("[[route]]\nmatch = []\nprice = \"1\"", "line 6: `match` is empty"),
        ("[[route]]\nmatch = \"get /a\"\nprice = \"1\"", "line 6: `match` names no method: `get`"),
        (
            "[[route]]\nmatch = \"GET a\"\nprice = \"1\"",
            "line 6: `match` cannot be read: the path does not start with `/`",
        ),
        ("[[route]]\nmatch = \"/a/{b\"\nprice = \"1\"", "line 6: `match` cannot be read: a parameter"),
        ("[[route]]\nmatch = \"/{*a}/b\"\nprice = \"1\"", "line 6: `match` cannot be read: a parameter"),
        ("[[route]]\nmatch = \"/a/../b\"\nprice = \"1\"", "line 6: `match` cannot be read: no request has such a path"),
        ("[[route]]\nmatch = \"/%61\"\nprice = \"1\"", "line 6: `match` cannot be read: no request has such a path"),
        ("[[route]]\nmatch = \"/a?b\"\nprice = \"1\"", "line 6: `match` cannot be read: no request has such a path"),
        ("[[route]]\nmatch = \"/.weir/x\"\nprice = \"1\"", "line 6: `match` is the gate's own"),
        ("[[route]]\nmatch = \"/a\"", "line 5: `price` is missing"),
        ("[[route]]\nmatch = \"/a\"\nprice = \"0\"", "line 7: `price` is nothing"),
        ("[[route]]\nmatch = \"/a\"\nprice = \"1\"\nfree = true", "line 7: `price` stands in a route that is free"),
        (
            "[[route]]\nmatch = \"/a\"\nprice = \"1\"\nfree = 3",
            "line 8: invalid type: integer `3`, expected `true`, or a quota",
        ),
        (
            "[[route]]\nmatch = \"/a\"\nprice = \"1\"\nfree = { requests = 5, per = \"1d\" }",
            "line 8: `free.by` is missing",
        ),
        (
            "[[route]]\nmatch = \"/a\"\nprice = \"1\"\nfree = { requests = 5, per = \"1d\", by = \"ip\", x = 1 }",
            "line 8: unknown field `x`",
        ),
        ("[[route]]\nmatch = \"/a\"\nprice = \"1\"\naccess = \"never\"", "line 8: `access` is out of bounds: `never`"),
        ("[[route]]\nmatch = \"/a\"\nprice_per_kb = \"1\"", "line 5: `max_bytes` is missing"),
        ("[[route]]\nmatch = \"/a\"\nprice_per_kb = \"1\"\nmax_bytes = 0", "line 8: `max_bytes` is out of bounds: 0"),
        (
            "[[route]]\nmatch = \"/a\"\nprice = \"1\"\nmax_bytes = 5",
            "line 8: `max_bytes` stands without a price for bytes",
        ),
        (
            "[[route]]\nmatch = \"/a\"\nprice_per_byte = \"18000000000\"\nmax_bytes = 2",
            "line 5: `price` cannot be reserved at its most: amount overflows",
        ),
        (
            "[[route]]\nmatch = \"/a\"\nprice_per_byte = \"1\"\nmax_bytes = 2\naccess = \"1h\"",
            "line 9: `access` cannot hold for a metered price",
        ),
        ("[[route]]\nmatch = \"/a\"\nunit = { price = \"1\", max = 1 }", "line 7: `unit.from` is missing"),
        (
            "[[route]]\nmatch = \"/a\"\nunit = { from = \"body\", price = \"1\", max = 1 }",
            "line 7: `unit.from` is unknown: `body`",
        ),
        (
            "[[route]]\nmatch = \"/a\"\nunit = { from = \"json:usage\", price = \"1\", max = 1 }",
            "line 7: `unit.from` is unknown",
        ),
        (
            "[[route]]\nmatch = \"/a\"\nunit = { from = \"json:/a~2\", price = \"1\", max = 1 }",
            "line 7: `unit.from` is unknown",
        ),
        (
            "[[route]]\nmatch = \"/a\"\nunit = { from = \"header:x y\", price = \"1\", max = 1 }",
            "line 7: `unit.from` is unknown",
        ),
        ("[[route]]\nmatch = \"/a\"\nunit = { from = \"header:x\", price = \"1\" }", "line 7: `unit.max` is missing"),
        (
            "[[route]]\nmatch = \"/a\"\nunit = { from = \"header:x\", max = 1 }",
            "line 7: `unit.price` or `tiers` must be there",
        ),
        (
            "[[route]]\nmatch = \"/a\"\nunit = { from = \"header:x\", max = 1, price = \"1\", input = \"1\" }",
            "line 7: `unit.input` is a price of tokens",
        ),
        (
            "[[route]]\nmatch = \"/a\"\nunit = { from = \"openai\", max = 1, input = \"1\" }",
            "line 7: `unit.price` is missing",
        ),
        (
            "[[route]]\nmatch = \"/a\"\nunit = { from = \"openai\", max = 1, price = \"0\" }",
            "line 7: `unit.price` is nothing",
        ),
        (
            "[[route]]\nmatch = \"/a\"\nunit = { from = \"header:x\", max = 1, tiers = [{ price = \"1\" }, { price = \"2\" }] }",
            "line 7: `unit.tiers` are not in order",
        ),
        (
            "[[route]]\nmatch = \"/a\"\nunit = { from = \"header:x\", max = 1, tiers = [{ up_to = 1, price = \"1\" }] }",
            "line 7: `unit.tiers` are not in order",
        ),
        ("[[route]]\nmatch = \"/a\"\nprice = \"1\"\ncrawlers = {}", "line 8: `crawlers` says nothing"),
        (
            "[[route]]\nmatch = \"/a\"\nprice = \"1\"\ncrawlers = { free = true, deny = true }",
            "line 8: `crawlers` says nothing, or more",
        ),
        ("[[route]]\nmatch = \"/a\"\nprice = \"1\"\npeople = \"html\"", "line 8: `people` is unknown: `html`"),
        ("[[route]]\nmatch = \"/a\"\nprice = \"1\"\nhost = \"a/b\"", "line 8: `host` names no host"),
        ("[[route]]\nmatch = \"/a\"\nprice = \"1\"\ntitle = \"a\\nb\"", "line 8: `title` cannot be shown"),
        ("mode = \"both\"", "line 5: `mode` is unknown: `both`"),
        ("cookie = \"a b\"", "line 5: `cookie` cannot name a cookie"),
        ("cors = [\"https://app.example/\"]", "line 5: `cors` names no origin"),
        ("trust_forwarded = [\"proxy\"]", "line 5: `trust_forwarded` names no network"),
        ("challenge_ttl = \"29s\"", "line 5: `challenge_ttl` is out of bounds"),
        ("challenge_ttl = \"25h\"", "line 5: `challenge_ttl` is out of bounds"),
        ("refund_unshown_after = \"10m\"", "line 5: `refund_unshown_after` is not longer than `challenge_ttl`"),
        ("refund_unshown_after = \"7d\"", "line 5: `refund_unshown_after` needs `home`"),
        ("max_in_flight = 0", "line 5: `max_in_flight` is out of bounds: 0"),
        ("metrics = \"127.0.0.1:8402\"", "line 5: `metrics` is what readers reach"),
        ("tls = { key = \"k\" }", "line 5: `tls` needs both"),
        (
            "accept = { payment = false, x402 = false, crawler = false }",
            "has a fault: `accept` turns every dialect off",
        ),
        ("default = \"0\"", "line 5: `default` is a price of nothing"),
        ("crawlers = { names = [\"\"] }", "has a fault: `crawlers` names nothing"),
    ] {
        let faults = faults(text);
        assert!(faults.len() == 1 && faults[0].starts_with(expected), "{text}\n{faults:#?}\n{expected}");
    }
}

#[test]
fn all_faults_are_told_at_once_by_line() {
    let errors =
        GateConfig::read(Path::new("gate.toml"), "listen = \"x\"\nupstream = \"127.0.0.1\"\npayee = \"weir1x\"\n");
    let text = errors.unwrap_err().to_string();
    for part in ["`hub` is missing", "`realm` is missing", "line 1: `listen`", "line 2: `upstream`", "line 3: `payee`"]
    {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(text.matches("hint: ").count(), 5, "{text}");
}

#[test]
fn upstream_is_a_scheme_and_a_place() {
    for (url, reads) in [
        ("http://127.0.0.1:3000", true),
        ("https://site.example/", true),
        ("http://[::1]:80", true),
        ("127.0.0.1:3000", false),
        ("ftp://x", false),
        ("http://x/base", false),
        ("http://x/?q", false),
        ("http://user@x", false),
        ("http://", false),
    ] {
        let text = head().replace("http://127.0.0.1:3000", url);
        assert_eq!(GateConfig::read(Path::new("gate.toml"), &text).is_ok(), reads, "{url}");
    }
}

#[test]
fn routes_that_match_alike_are_a_conflict_with_both_lines() {
    let route = |text: &str| format!("[[route]]\nmatch = \"{text}\"\nprice = \"1\"\n");
    for (first, second) in [
        ("/a/{x}", "/a/{y}"),
        ("GET /a/{x}", "GET|POST /a/{y}"),
        ("/a", "/a/"),
        ("/a/{*x}", "/a/{*y}"),
        ("GET /a", "GET /a"),
    ] {
        let faults = faults(&format!("{}{}", route(first), route(second)));
        assert_eq!(faults.len(), 1, "{first} {second} {faults:?}");
        let expected = format!("line 8: `match` `{second}` matches the same requests as the route on line 5");
        assert_eq!(faults[0], expected);
    }
    for (first, second) in [
        ("GET /a", "POST /a"),
        ("GET /a", "/a"),
        ("HEAD /a", "GET /a"),
        ("/a/{x}", "/a/{*y}"),
        ("/a/b", "/a/{x}"),
        ("/a", "/a/{*x}"),
    ] {
        assert_eq!(faults(&format!("{}{}", route(first), route(second))), Vec::<String>::new(), "{first} {second}");
    }
}

#[test]
fn forward_auth_takes_fixed_prices_only_and_opens_for_the_grace() {
    let text = |route: &str| format!("mode = \"forward-auth\"\ngrace = \"5m\"\n[[route]]\nmatch = \"/a\"\n{route}");
    for route in [
        "price_per_kb = \"1\"\nmax_bytes = 5",
        "unit = { from = \"header:x\", max = 1, price = \"1\" }",
        "unit = { from = \"json:/x\", max = 1, price = \"1\" }",
        "unit = { from = \"requests\", price = \"1\" }",
    ] {
        let faults = faults(&text(route));
        assert_eq!(faults.len(), 1, "{route}");
        assert!(faults[0].starts_with("line 7: `route` has a metered price"), "{faults:?}");
    }
    let access = |route: &str| config(&text(route)).table.routes()[0].access_ms;
    assert_eq!(access("price = \"1\""), Some(300_000));
    assert_eq!(access("price = \"1\"\naccess = \"1h\""), Some(3_600_000));
    assert_eq!(access("price = \"1\"\naccess = \"1m\""), Some(300_000));
    assert_eq!(access("free = true"), None);
}

#[test]
fn route_says_what_a_client_that_leaves_pays() {
    let route = |text: &str| format!("[[route]]\nmatch = \"/a\"\nprice = \"1\"\n{text}");
    let on_abort = |text: &str| config(&route(text)).table.routes()[0].on_abort;
    assert_eq!(on_abort(""), OnAbort::Release);
    assert_eq!(on_abort("on_abort = \"release\""), OnAbort::Release);
    assert_eq!(on_abort("on_abort = \"charge\""), OnAbort::Charge);
    assert_eq!(faults(&route("on_abort = \"never\"")).len(), 1);
    let told = faults(&format!("mode = \"forward-auth\"\n{}", route("on_abort = \"charge\"")));
    assert!(told.len() == 1 && told[0].contains("`on_abort`"), "{told:?}");
    let free = faults("[[route]]\nmatch = \"/a\"\nfree = true\non_abort = \"charge\"\n");
    assert_eq!(free.len(), 1, "{free:?}");
}

#[test]
fn file_at_its_largest_is_read_and_a_byte_more_is_not() {
    let mut text = head();
    text.push('#');
    text.push_str(&"x".repeat(MAX_FILE_BYTES - text.len()));
    assert!(GateConfig::read(Path::new("gate.toml"), &text).is_ok());
    text.push('x');
    let errors = GateConfig::read(Path::new("gate.toml"), &text).unwrap_err();
    assert!(matches!(errors.0.as_slice(), [ConfigError::TooLarge { .. }]));
}

#[test]
fn file_that_is_not_there_is_said() {
    let errors = GateConfig::load(Path::new("/nonexistent/gate.toml")).unwrap_err();
    assert!(errors.to_string().starts_with("cannot read `/nonexistent/gate.toml`: "), "{errors}");
}
