#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use super::*;
use crate::gate::config::GateConfig;
use crate::gate::config::tests::config;
use proptest::prelude::*;

fn ask_with<T>(config: &GateConfig, request: &str, headers: &[(&str, &str)], look: impl FnOnce(Quote<'_>) -> T) -> T {
    let (method, target) = request.split_once(' ').unwrap();
    let (host, path) = match target.find('/') {
        Some(at) => target.split_at(at),
        None => ("", target),
    };
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    let method: Method = method.parse().unwrap();
    look(config.table.quote(&Asked {
        method: &method,
        host,
        path_and_query: path,
        headers: &map,
        peer: None,
        crawler: None,
    }))
}

/// The quote in a word.
fn ask(config: &GateConfig, request: &str, headers: &[(&str, &str)]) -> String {
    ask_with(config, request, headers, |quote| match quote {
        Quote::Free(why) => format!("free: {why:?}"),
        Quote::Priced(priced) => priced.fixed().to_string(),
        Quote::Denied(why) => format!("denied: {why:?}"),
        Quote::Malformed(_) => "malformed".to_owned(),
    })
}

fn site() -> GateConfig {
    config(
        r#"
[[route]]
match = "GET /articles/{id}"
price = "0.05"
crawlers = { price = "0.2" }

[[route]]
match = "/articles/preview"
free = true

[[route]]
match = "POST /articles/{id}"
price = "0.5"

[[route]]
match = "/articles/{id}/comments"
price = "0.01"
crawlers = { deny = true }

[[route]]
match = "/files/{*rest}"
price = "0.3"
crawlers = { free = true }

[[route]]
match = "HEAD /files/{*rest}"
free = true

[[route]]
match = "/feed/{id}"
price = "0.7"

[[route]]
match = "/{page}"
price = "0.9"
"#,
    )
}

#[test]
fn most_specific_route_holds() {
    let site = site();
    for (request, expected) in [
        ("GET /articles/1", "0.05"),
        ("GET /articles/1?page=2", "0.05"),
        ("GET /articles/preview", "free: Route"),
        ("POST /articles/1", "0.5"),
        ("POST /articles/preview", "free: Route"),
        ("PUT /articles/1", "free: Default"),
        ("GET /articles/1/comments", "0.01"),
        ("DELETE /articles/1/comments", "0.01"),
        ("GET /articles", "0.9"),
        ("GET /files", "0.3"),
        ("GET /files/", "0.3"),
        ("GET /files/a/b/c", "0.3"),
        ("GET /", "free: Default"),
        ("GET /articles/1/2/3", "free: Default"),
    ] {
        assert_eq!(ask(&site, request, &[]), expected, "{request}");
    }
}

#[test]
fn head_costs_what_get_costs_unless_a_route_names_it() {
    let site = site();
    assert_eq!(ask(&site, "HEAD /articles/1", &[]), "0.05");
    assert_eq!(ask(&site, "HEAD /files/a", &[]), "free: Route");
    assert_eq!(ask(&site, "HEAD /files", &[]), "free: Route");
}

#[test]
fn preflight_is_free_and_other_options_are_not() {
    let site = site();
    let preflight = [("origin", "https://app.example"), ("access-control-request-method", "GET")];
    assert_eq!(ask(&site, "OPTIONS /files/a", &preflight), "free: Preflight");
    assert_eq!(ask(&site, "OPTIONS /files/a", &preflight[..1]), "0.3");
    assert_eq!(ask(&site, "GET /files/a", &preflight), "0.3");
    assert_eq!(ask(&site, "TRACE /files/a", &[]), "denied: Method");
    assert_eq!(ask(&site, "CONNECT /files/a", &[]), "denied: Method");
}

#[test]
fn no_spelling_of_a_path_is_cheaper() {
    let site = site();
    for path in [
        "/articles/%31",
        "//articles/1",
        "/articles//1",
        "/articles/1/",
        "/%61rticles/1",
        "/./articles/1",
        "/x/../articles/1",
        "/articles%2f1",
        "/articles/%2531",
        "/articles/1;x",
        "/articles\\1",
        "/articles/1%00",
        "/articles/preview/../1",
        "/articles/1/.",
        "/articles/%2e%2e/articles/1",
        "/articles/1#x",
    ] {
        let quote = ask(&site, &format!("GET {path}"), &[]);
        assert!(quote == "0.05" || quote == "malformed", "{path}: {quote}");
    }
}

#[test]
fn case_counts_unless_the_configuration_says_otherwise() {
    let route = "[[route]]\nmatch = \"/Articles/{id}\"\nprice = \"1\"\n";
    assert_eq!(ask(&config(route), "GET /articles/1", &[]), "free: Default");
    assert_eq!(ask(&config(route), "GET /Articles/1", &[]), "1");
    let ignoring = config(&format!("ignore_case = true\n{route}"));
    for path in ["/articles/1", "/ARTICLES/1", "/Articles/X"] {
        assert_eq!(ask(&ignoring, &format!("GET {path}"), &[]), "1");
    }
    // What differs for the upstream differs for the receipt.
    let resource = |path: &str| {
        ask_with(&ignoring, &format!("GET {path}"), &[], |quote| match quote {
            Quote::Priced(priced) => priced.resource,
            _ => String::new(),
        })
    };
    assert_ne!(resource("/articles/x"), resource("/articles/X"));
}

#[test]
fn header_that_asks_the_upstream_for_something_else_is_refused() {
    let site = site();
    for header in [
        ("x-original-url", "/articles/1"),
        ("x-rewrite-url", "/articles/1"),
        ("x-http-method-override", "GET"),
        ("x-http-method", "GET"),
        ("x-method-override", "GET"),
    ] {
        assert_eq!(ask(&site, "PUT /articles/1", &[header]), "malformed", "{header:?}");
    }
    assert_eq!(ask(&site, "GET /articles/1", &[("x-http-method-override", "get")]), "0.05");
}

#[test]
fn default_free_paths_are_free_to_read_unless_a_route_names_them() {
    let site = site();
    for path in [
        "/robots.txt",
        "/favicon.ico",
        "/sitemap.xml",
        "/sitemap-2.xml",
        "/sitemap_index.xml.gz",
        "/.well-known/weir",
        "/.well-known/a/b",
        "/feed",
        "/feed/",
        "/rss.xml",
        "/openapi.json",
        "//robots.txt",
    ] {
        assert_eq!(ask(&site, &format!("GET {path}"), &[]), "free: Path", "{path}");
    }
    assert_eq!(ask(&site, "HEAD /robots.txt", &[]), "free: Path");
    assert_eq!(ask(&site, "POST /robots.txt", &[]), "0.9");
    assert_eq!(ask(&site, "GET /feed/atom", &[]), "0.7");
    for path in ["/sitemapper", "/sitemap.html", "/robots.txt.html", "/feedback"] {
        assert_eq!(ask(&site, &format!("GET {path}"), &[]), "0.9", "{path}");
    }
    let strict = config("free_paths = false\ndefault = \"deny\"\n");
    assert_eq!(ask(&strict, "GET /robots.txt", &[]), "denied: Default");
}

#[test]
fn crawlers_are_apart() {
    let site = site();
    for bot in
        [("user-agent", "GPTBot/1.2"), ("crawler-max-price", "EUR 1"), ("signature-agent", "\"https://bot.example\"")]
    {
        assert_eq!(ask(&site, "GET /articles/1", &[bot]), "0.2");
        assert_eq!(ask(&site, "GET /articles/1/comments", &[bot]), "denied: Crawler");
        assert_eq!(ask(&site, "GET /files/a", &[bot]), "free: Crawler");
        assert_eq!(ask(&site, "POST /articles/1", &[bot]), "0.5");
    }
}

#[test]
fn host_of_a_route_goes_first_and_unknown_hosts_are_denied() {
    let hosts = config(
        "hosts = [\"www.example\"]\n[[route]]\nmatch = \"/a\"\nhost = \"api.example\"\nprice = \"2\"\n[[route]]\nmatch = \"/{*x}\"\nprice = \"1\"\n",
    );
    for (request, expected) in [
        ("GET api.example/a", "2"),
        ("GET API.Example.:443/a", "2"),
        ("GET api.example/b", "1"),
        ("GET www.example/a", "1"),
        ("GET www.example/", "1"),
        ("GET other.example/a", "denied: Host"),
        ("GET /a", "denied: Host"),
    ] {
        assert_eq!(ask(&hosts, request, &[]), expected, "{request}");
    }
    // Without any host named, any host is served.
    assert_eq!(ask(&site(), "GET other.example/articles/1", &[]), "0.05");
}

#[test]
fn default_is_free_denied_or_a_price() {
    assert_eq!(ask(&config(""), "GET /x", &[]), "free: Default");
    assert_eq!(ask(&config("default = \"deny\""), "GET /x", &[]), "denied: Default");
    assert_eq!(ask(&config("default = \"0.3\""), "GET /x", &[]), "0.3");
    assert_eq!(ask(&config("default = \"0.3\""), "GET /", &[]), "0.3");
}

#[test]
fn live_table_keeps_the_old_prices_when_the_file_turns_bad() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.toml");
    let head = crate::gate::config::tests::head();
    let write = |text: &str| std::fs::write(&path, format!("{head}{text}")).unwrap();
    write("default = \"0.1\"\n");
    let live = LiveTable::new(&GateConfig::load(&path).unwrap());
    let price = || match live.table().fallback() {
        Fallback::Route(route) => route.price.as_ref().unwrap().fixed().to_string(),
        _ => String::new(),
    };
    let held = live.table();
    write("default = \"0.2\"\n");
    assert_eq!(price(), "0.1");
    assert_eq!(live.reload().unwrap(), Reloaded { prices: true, needs_restart: false });
    assert_eq!(price(), "0.2");
    assert!(
        matches!(held.fallback(), Fallback::Route(route) if route.price.as_ref().unwrap().fixed() == "0.1".parse().unwrap())
    );
    write("default = \"cheap\"\n");
    assert!(live.reload().unwrap_err().to_string().contains("`default`"));
    assert_eq!(price(), "0.2");
    write("default = \"0.3\"\nlisten = \"127.0.0.1:1\"\n");
    assert_eq!(live.reload().unwrap(), Reloaded { prices: true, needs_restart: true });
    assert_eq!(price(), "0.3");
    write("default = \"0.4\"\nmode = \"forward-auth\"\n");
    assert_eq!(live.reload().unwrap(), Reloaded { prices: false, needs_restart: true });
    assert_eq!(price(), "0.3");
    std::fs::remove_file(&path).unwrap();
    assert!(live.reload().is_err());
    assert_eq!(price(), "0.3");
}

#[test]
fn resource_of_a_path_with_an_escaped_query_is_another_than_that_with_a_query() {
    let site = site();
    let resource = |path: &str| {
        ask_with(&site, &format!("GET news.example{path}"), &[], |quote| match quote {
            Quote::Priced(priced) => priced.resource,
            _ => String::new(),
        })
    };
    assert_eq!(resource("/files/a?b=1"), "news.example/files/a?b=1");
    assert_eq!(resource("/files/%61?b=1"), "news.example/files/a?b=1");
    assert_eq!(resource("/files/a%3Fb=1"), "news.example/files/a%3Fb=1");
    assert_eq!(resource("/files/100%25"), "news.example/files/100%25");
    assert_ne!(resource("/files/a"), resource("/files/a?"));
}

/// How specific patterns are compared, written down without a router: from the left, a literal before a parameter before
/// the rest.
fn naive<'p>(patterns: &'p [String], path: &str) -> Option<&'p String> {
    fn rank(pattern: &str, path: &str) -> Option<Vec<u8>> {
        let mut segments = path.split('/').skip(1).filter(|segment| !segment.is_empty());
        let mut ranks = Vec::new();
        for part in pattern.split('/').skip(1).filter(|part| !part.is_empty()) {
            if part.starts_with("{*") {
                ranks.push(2);
                return Some(ranks);
            }
            let segment = segments.next()?;
            match part.starts_with('{') {
                true => ranks.push(1),
                false if part == segment => ranks.push(0),
                false => return None,
            }
        }
        segments.next().is_none().then_some(ranks)
    }
    let found = patterns.iter().filter_map(|pattern| rank(pattern, path).map(|rank| (rank, pattern)));
    found.min().map(|(_, pattern)| pattern)
}

proptest! {
    #[test]
    fn router_finds_what_a_plain_reading_finds(
        patterns in proptest::collection::btree_set("(/(a|b|\\{x\\})){1,3}(/\\{\\*r\\})?|/\\{\\*r\\}", 1..8),
        path in "(/(a|b|c)){0,4}/?",
    ) {
        let patterns: Vec<String> = patterns.into_iter().collect();
        let routes: Vec<String> = patterns.iter().map(|pattern| format!("[[route]]\nmatch = \"{pattern}\"\nprice = \"1\"\n")).collect();
        let config = config(&routes.concat());
        let path = if path.starts_with('/') { path } else { "/".to_owned() };
        let found = ask_with(&config, &format!("GET {path}"), &[], |quote| match quote {
            Quote::Priced(priced) => Some(priced.route.pattern.as_str().to_owned()),
            _ => None,
        });
        prop_assert_eq!(found.as_ref(), naive(&patterns, &path), "{:?}", patterns);
    }

    #[test]
    fn quote_takes_any_path(path in "\\PC{0,40}", agent in "[ -~]{0,20}") {
        let headers = [("user-agent", agent.as_str())];
        let site = site();
        let _ = ask_with(&site, &format!("GET /{path}"), &headers, |quote| format!("{quote:?}"));
    }
}
