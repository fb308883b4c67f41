//! The gate beside a web server that asks it about each request: nginx's `auth_request`, Caddy's `forward_auth` and their
//! like. It sees the request's head only, so prices are fixed and drawn at the check; the same receipt opens the same
//! resource again for the grace.

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, request};

use super::metrics::Outcome;
use super::{Gate, Origin, now, refused, say};
use crate::gate::desk::{Free, Refusal, Used, Verdict};
use crate::gate::proxy::{GateBody, Peer};

/// Where Caddy and Traefik ask: 2xx passes, everything else is the answer.
pub const CHECK_PATH: &str = "/.weir/check";
/// Where nginx asks: 401 in place of all else, since it makes a 500 of every other status but 403.
pub const NGINX_CHECK_PATH: &str = "/.weir/check/nginx";
/// Where nginx gets the demand: `error_page 401 = @pay`.
pub const DEMAND_PATH: &str = "/.weir/demand";
/// What Envoy puts before the path that it asks about.
pub const ENVOY_PREFIX: &str = "/.weir/envoy";

/// How a web server says what it was asked for. One way each: a header that one server writes is the client's own word where
/// another server asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    /// `X-Forwarded-Method`, `-Uri` and `-Host`.
    Forwarded,
    /// `X-Original-Method` and `-URI`, and the check's own `Host`.
    Nginx,
    /// The check's own method and `Host`, and its path behind [`ENVOY_PREFIX`].
    Envoy,
}

/// A header that is said once.
fn once<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// The request that is asked about. None when the web server does not say it, or when it is said twice.
fn original(head: &request::Parts, asks: Asks) -> Option<request::Parts> {
    let headers = &head.headers;
    let path_and_query = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let (method, target, host) = match asks {
        Asks::Forwarded => (
            once(headers, "x-forwarded-method")?.parse().ok()?,
            once(headers, "x-forwarded-uri")?,
            once(headers, "x-forwarded-host")?,
        ),
        Asks::Nginx => {
            (once(headers, "x-original-method")?.parse().ok()?, once(headers, "x-original-uri")?, own_host(head)?)
        }
        Asks::Envoy => (head.method.clone(), path_and_query.strip_prefix(ENVOY_PREFIX)?, own_host(head)?),
    };
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = target.parse().ok().filter(|_| target.starts_with('/'))?;
    let host = HeaderValue::from_str(host).ok()?;
    let mut headers = headers.clone();
    for name in ["x-original-method", "x-original-uri", "x-forwarded-method", "x-forwarded-uri"] {
        headers.remove(name);
    }
    headers.insert(HOST, host);
    *request.headers_mut() = headers;
    Some(request.into_parts().0)
}

/// The host that the check itself names.
fn own_host(head: &request::Parts) -> Option<&str> {
    head.uri.authority().map(Authority::as_str).or_else(|| once(&head.headers, HOST.as_str()))
}

fn no_original() -> Response<GateBody> {
    let detail = "the web server must say once what it was asked for: `X-Original-Method` and `X-Original-URI` (nginx), or \
                  `X-Forwarded-Method`, `X-Forwarded-Uri` and `X-Forwarded-Host`";
    refused(StatusCode::FORBIDDEN, "no-original-request", detail.to_owned())
}

impl Gate {
    /// Judges the request that a web server has, and draws.
    pub(super) async fn check(&self, head: &request::Parts, peer: &Peer, asks: Asks) -> Response<GateBody> {
        let Some(original) = original(head, asks) else { return no_original() };
        let nginx = asks == Asks::Nginx;
        let table = self.table.table();
        let verdict = self.desk.judge(&table, &self.asked(&original, peer), now()).await;
        drop(table);
        match verdict {
            Verdict::Free(free) => {
                self.metrics.count(match free {
                    Free::Table(_) => Outcome::Free,
                    Free::Quota => Outcome::Quota,
                });
                passed(HeaderMap::new())
            }
            Verdict::Serve(charge) => {
                let mut headers = HeaderMap::new();
                charge.write_head(&mut headers, now());
                let again = charge.is_again();
                match charge.commit(Used::Most, now()).await {
                    Ok(settled) => {
                        self.metrics.count(if again { Outcome::Again } else { Outcome::Served });
                        self.metrics.drawn(settled.drawn.drawn);
                        passed(headers)
                    }
                    Err(error) => {
                        tracing::error!(%error, "a draw is not durable: the request is refused");
                        self.metrics.count(Outcome::Withheld);
                        unavailable(nginx)
                    }
                }
            }
            Verdict::Demand(demand) if nginx => {
                self.metrics.demanded(demand.problem);
                bare(StatusCode::UNAUTHORIZED)
            }
            Verdict::Demand(demand) => {
                self.metrics.demanded(demand.problem);
                let path = original.uri.path_and_query().map_or("/", |path| path.as_str());
                self.demand(&demand, &Origin::of(&original, peer), path)
            }
            Verdict::Refuse(refusal) => {
                self.metrics.count(Outcome::Refused);
                // nginx fetches the demand then, and with it the reason.
                if nginx { bare(StatusCode::UNAUTHORIZED) } else { say(&refusal) }
            }
        }
    }

    /// The demand for the request that nginx could not pass. Draws nothing.
    pub(super) async fn demand_for(&self, head: &request::Parts, peer: &Peer) -> Response<GateBody> {
        let Some(original) = original(head, Asks::Nginx) else { return no_original() };
        let table = self.table.table();
        let verdict = self.desk.judge(&table, &self.asked(&original, peer), now()).await;
        drop(table);
        match verdict {
            Verdict::Demand(demand) => {
                let path = original.uri.path_and_query().map_or("/", |path| path.as_str());
                self.demand(&demand, &Origin::of(&original, peer), path)
            }
            Verdict::Refuse(refusal) => say(&refusal),
            // It could be served by now.
            Verdict::Free(_) | Verdict::Serve(_) => unavailable(false),
        }
    }
}

fn passed(headers: HeaderMap) -> Response<GateBody> {
    let mut response = bare(StatusCode::OK);
    response.headers_mut().extend(headers);
    response
}

fn unavailable(nginx: bool) -> Response<GateBody> {
    if nginx {
        return bare(StatusCode::UNAUTHORIZED);
    }
    let refusal = Refusal {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "busy",
        detail: "try again: nothing is charged twice".to_owned(),
        retry_after_seconds: Some(1),
    };
    say(&refusal)
}

fn bare(status: StatusCode) -> Response<GateBody> {
    let mut response = Response::new(GateBody::empty());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    fn head(method: &str, target: &str, fields: &[(&'static str, &str)]) -> request::Parts {
        let mut request = Request::builder().method(method).uri(target);
        for (name, text) in fields {
            request = request.header(*name, *text);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn said(parts: Option<request::Parts>) -> Option<(String, String, String)> {
        let parts = parts?;
        let host = parts.headers.get(HOST).unwrap().to_str().unwrap().to_owned();
        Some((parts.method.to_string(), parts.uri.to_string(), host))
    }

    const FORWARDED: [(&str, &str); 3] =
        [("x-forwarded-method", "GET"), ("x-forwarded-uri", "/a?x=1"), ("x-forwarded-host", "news.example")];
    const ORIGINAL: [(&str, &str); 3] =
        [("x-original-method", "HEAD"), ("x-original-uri", "/robots.txt"), ("host", "gate.example")];

    #[test]
    fn each_server_is_heard_by_its_own_headers_only() {
        let both = head("GET", CHECK_PATH, &[&FORWARDED[..], &ORIGINAL[..]].concat());
        let is = |method: &str, uri: &str, host: &str| Some((method.to_owned(), uri.to_owned(), host.to_owned()));
        assert_eq!(said(original(&both, Asks::Forwarded)), is("GET", "/a?x=1", "news.example"));
        assert_eq!(said(original(&both, Asks::Nginx)), is("HEAD", "/robots.txt", "gate.example"));
        let envoy = head("POST", "/.weir/envoy/b?y=2", &[&FORWARDED[..], &ORIGINAL[..]].concat());
        assert_eq!(said(original(&envoy, Asks::Envoy)), is("POST", "/b?y=2", "gate.example"));
        assert_eq!(said(original(&head("GET", CHECK_PATH, &ORIGINAL), Asks::Forwarded)), None);
        assert_eq!(said(original(&head("GET", NGINX_CHECK_PATH, &FORWARDED), Asks::Nginx)), None);
    }

    #[test]
    fn request_that_is_missing_odd_or_said_twice_is_not_judged() {
        for missing in 0..FORWARDED.len() {
            let mut fields = FORWARDED.to_vec();
            fields.remove(missing);
            assert_eq!(said(original(&head("GET", CHECK_PATH, &fields), Asks::Forwarded)), None, "{missing}");
        }
        for twice in FORWARDED {
            let fields = [&FORWARDED[..], &[twice]].concat();
            assert_eq!(said(original(&head("GET", CHECK_PATH, &fields), Asks::Forwarded)), None, "{twice:?}");
        }
        for target in ["", "a", "*", "http://other.example/a", "/a b"] {
            let fields = [FORWARDED[0], ("x-forwarded-uri", target), FORWARDED[2]];
            assert_eq!(said(original(&head("GET", CHECK_PATH, &fields), Asks::Forwarded)), None, "{target}");
        }
        for target in ["/.weir/envoy", "/.weir/envoyb", "/.weir/envoy?x"] {
            assert_eq!(said(original(&head("GET", target, &[("host", "h")]), Asks::Envoy)), None, "{target}");
        }
        assert_eq!(said(original(&head("GET", "/.weir/envoy/a", &[]), Asks::Envoy)), None);
    }
}
