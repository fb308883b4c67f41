#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use super::*;
use crate::gate::config::tests::{config, head};
use crate::gate::price::{Units, Usage};

fn asked(config: &GateConfig, request: &str, headers: &[(&str, &str)], used: Option<Usage>) -> Explanation {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    explain(&config.table, config.settings.currency, &request.parse().unwrap(), &map, used.as_ref())
}

const SITE: &str = r#"
certificates = ["hub.cert"]
[[route]]
match = "/articles/{id}"
price = "0.05"
access = "24h"
free = { requests = 3, per = "7d", by = "ip" }
crawlers = { price = "0.1" }

[[route]]
match = "/v1/chat/completions"
price = "0.001"
[route.unit]
from = "openai"
input = "0.5"
cached = "0.05"
output = "1.5"
per = 1000000
max_input = 128000
max_output = 4096

[[route]]
match = "/data"
price_per_kb = "0.00001"
max_bytes = 1000000

[[route]]
match = "/calls"
[route.unit]
from = "requests"
tiers = [{ up_to = 1000, price = "0.002" }, { price = "0.001" }]
"#;

#[test]
fn report_says_what_each_route_costs() {
    let report = check(&config(SITE));
    assert!(report.ok && report.errors.is_empty());
    assert_eq!(report.warnings, []);
    let words: Vec<(String, &str)> =
        report.routes.iter().map(|route| (route.matches(), route.people.as_str())).collect();
    assert_eq!(
        words,
        [
            ("any /articles/{id}".to_owned(), "0.05 EUR"),
            (
                "any /v1/chat/completions".to_owned(),
                "0.001 EUR + input 0.5, cached 0.05, output 1.5 EUR per 1000000 tokens; at most 0.071144002 EUR"
            ),
            ("any /data".to_owned(), "0.00001 EUR per 1000 bytes of the answer; at most 0.01 EUR"),
            ("any /calls".to_owned(), "0.002 EUR up to 1000, 0.001 EUR beyond per request; at most 0.002 EUR"),
        ]
    );
    assert_eq!(report.routes[0].crawlers, "0.1 EUR");
    assert_eq!(report.routes[0].quota.as_deref(), Some("3 in 7d for each address"));
    assert_eq!(report.default.as_deref(), Some("free"));
}

#[test]
fn report_as_json_has_one_shape() {
    let good = serde_json::to_value(check(&config(SITE))).unwrap();
    let bad = GateConfig::read(std::path::Path::new("gate.toml"), "default = \"cheap\"").unwrap_err();
    let bad = serde_json::to_value(failed(std::path::Path::new("gate.toml"), &bad)).unwrap();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&good), keys(&bad));
    assert_eq!(good["routes"][0]["most"], "0.05");
    assert_eq!((&good["ok"], &bad["ok"]), (&true.into(), &false.into()));
    let error = bad["errors"].as_array().unwrap().iter().find(|error| error["line"] == 1).unwrap();
    assert!(error["text"].as_str().unwrap().starts_with("`gate.toml` line 1: `default` is wrong: "), "{error}");
}

#[test]
fn warning_is_given_for_what_may_not_be_meant() {
    let warnings = |text: &str| {
        let report = check(&config(&format!("certificates = [\"c\"]\n{text}")));
        report.warnings.into_iter().map(|note| note.text).collect::<Vec<_>>()
    };
    let route = |text: &str| format!("[[route]]\nprice = \"1\"\n{text}");
    for (text, expected) in [
        (String::new(), "nothing costs anything"),
        (route("match = \"GET /a/{id}\""), "`GET /a/{id}` has a price, and `POST /a/x` is free"),
        (route("match = \"GET|POST /a\""), "`GET|POST /a` has a price, and `PUT /a` is free"),
        (route("match = \"/a\"\ncrawlers = { free = true }"), "`/a` costs crawlers less than people"),
        (route("match = \"/a\"\ncrawlers = { price = \"0.5\" }"), "`/a` costs crawlers less than people"),
        (
            route("match = \"/a\"\nfree = { requests = 1, per = \"1d\", by = \"cookie\" }"),
            "`/a` counts free requests by cookie",
        ),
        (route("match = \"/a\"\nunit = { from = \"json:/n\", price = \"1\", max = 1 }"), "`/a` charges no units"),
        (format!("listen = \"0.0.0.0:80\"\n{}", route("match = \"/a\"")), "`listen` is `0.0.0.0:80` without `[tls]`"),
        (format!("mode = \"forward-auth\"\n{}", route("match = \"/a\"")), "`trust_forwarded` is empty"),
    ] {
        let found = warnings(&text);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{text}: {found:?}");
    }
    for text in [
        format!("default = \"deny\"\n{}", route("match = \"GET /a\"")),
        "default = \"0.1\"".to_owned(),
        route("match = \"/a\"\ncrawlers = { price = \"2\" }"),
    ] {
        assert_eq!(warnings(&text), Vec::<String>::new(), "{text}");
    }
    let none = GateConfig::read(std::path::Path::new("gate.toml"), &format!("{}default = \"1\"", head())).unwrap();
    assert!(check(&none).warnings[0].text.starts_with("neither `certificates` nor `home`"));
}

#[test]
fn explanation_says_what_a_request_costs_and_why() {
    let site = config(SITE);
    let told = asked(&site, "GET https://news.example/articles/1?a=b", &[], None);
    assert_eq!(told.outcome, Outcome::Priced);
    assert_eq!(told.why, "the route `/articles/{id}` has a price for a person");
    assert_eq!(
        (told.fixed, told.most, told.charge),
        (Some("0.05".parse().unwrap()), Some("0.05".parse().unwrap()), None)
    );
    assert_eq!(told.resource.as_deref(), Some("news.example/articles/1?a=b"));
    assert_eq!(told.access_ms, Some(86_400_000));
    let bot = asked(&site, "/articles/1", &[("user-agent", "GPTBot/1.0")], None);
    assert_eq!((bot.crawler, bot.fixed), (Some(true), Some("0.1".parse().unwrap())));
    for (request, outcome, why) in [
        ("GET /robots.txt", Outcome::Free, "the path is free by default"),
        ("GET /x", Outcome::Free, "no route matches, and the default is free"),
        ("GET /articles/%2e%2e", Outcome::Malformed, "the path holds `.` or `..` as a segment"),
        ("TRACE /x", Outcome::Denied, "this method is not served here"),
    ] {
        let told = asked(&site, request, &[], None);
        assert_eq!((told.outcome, told.why.as_str()), (outcome, why));
        assert_eq!(told.most, None);
    }
}

#[test]
fn explanation_of_a_use_says_what_it_comes_to() {
    let site = config(SITE);
    let units = Units { input: 1_000, output: 500, ..Units::default() };
    let told = asked(&site, "POST /v1/chat/completions", &[], Some(Usage { units, ..Usage::default() }));
    assert_eq!(told.charge.unwrap().to_string(), "0.00225");
    let told = asked(&site, "GET /data", &[], Some(Usage { response_bytes: 2_500, ..Usage::default() }));
    assert_eq!(told.charge.unwrap().to_string(), "0.000025");
    let json = serde_json::to_value(&told).unwrap();
    assert_eq!(
        (&json["outcome"], &json["charge"], &json["currency"]),
        (&"priced".into(), &"0.000025".into(), &"EUR".into())
    );
}

#[test]
fn question_is_a_method_and_a_place() {
    let read =
        |text: &str| text.parse::<Question>().map(|asked| (asked.method.to_string(), asked.host, asked.path_and_query));
    let is = |method: &str, host: &str, path: &str| Ok((method.to_owned(), host.to_owned(), path.to_owned()));
    assert_eq!(read("GET /a?b"), is("GET", "", "/a?b"));
    assert_eq!(read("/a"), is("GET", "", "/a"));
    assert_eq!(read("POST https://x.example:8443/a/../b"), is("POST", "x.example:8443", "/a/../b"));
    assert_eq!(read("https://x.example"), is("GET", "x.example", "/"));
    assert_eq!(read("https://x.example?q"), is("GET", "x.example", "/?q"));
    assert_eq!(read("/to?u=https://x"), is("GET", "", "/to?u=https://x"));
    for bad in ["", "GET", "G=T /a", "GET /a b", "ftp://x/a", "https:///a"] {
        assert!(bad == "GET" || read(bad).is_err(), "{bad}");
    }
}
