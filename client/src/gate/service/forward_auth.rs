//! The gate beside a web server that asks it about each request: nginx's `auth_request`, Caddy's `forward_auth` and their
//! like. It sees the request's head only, so prices are fixed and drawn at the check; the same receipt opens the same
//! resource again for the grace.

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, request};

use super::metrics::Outcome;
use super::{Gate, Origin, now, refused, say};
use crate::gate::desk::{Free, Refusal, Used, Verdict};
use crate::gate::proxy::{GateBody, Peer};

/// Where Caddy, Traefik and Envoy ask: 2xx passes, everything else is the answer.
pub const CHECK_PATH: &str = "/.weir/check";
/// Where nginx asks: 401 in place of 402, since it makes a 500 of every other status but 403.
pub const NGINX_CHECK_PATH: &str = "/.weir/check/nginx";
/// Where nginx gets the demand: `error_page 401 = @pay`.
pub const DEMAND_PATH: &str = "/.weir/demand";

/// The request that is asked about, out of the headers that the web server sets.
fn original(head: &request::Parts) -> Option<request::Parts> {
    let said = |names: &[&'static str]| {
        names.iter().find_map(|name| head.headers.get(*name)).and_then(|value| value.to_str().ok())
    };
    let method: Method = said(&["x-original-method", "x-forwarded-method"])?.parse().ok()?;
    let target = said(&["x-original-uri", "x-forwarded-uri"])?;
    let host = said(&["x-original-host", "x-forwarded-host"]);
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = target.parse().ok().filter(|_| target.starts_with('/'))?;
    let mut headers = head.headers.clone();
    for name in ["x-original-method", "x-original-uri", "x-original-host", "x-forwarded-method", "x-forwarded-uri"] {
        headers.remove(name);
    }
    if let Some(host) = host.and_then(|host| HeaderValue::from_str(host).ok()) {
        headers.insert(HOST, host);
    }
    *request.headers_mut() = headers;
    Some(request.into_parts().0)
}

fn no_original() -> Response<GateBody> {
    let detail = "the web server must say `X-Original-Method` and `X-Original-URI`, or `X-Forwarded-Method` and \
                  `X-Forwarded-Uri`";
    refused(StatusCode::FORBIDDEN, "no-original-request", detail.to_owned())
}

impl Gate {
    /// Judges the request that a web server has, and draws.
    pub(super) async fn check(&self, head: &request::Parts, peer: &Peer, nginx: bool) -> Response<GateBody> {
        let Some(original) = original(head) else { return no_original() };
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
                if nginx && refusal.status != StatusCode::FORBIDDEN {
                    bare(StatusCode::UNAUTHORIZED)
                } else {
                    say(&refusal)
                }
            }
        }
    }

    /// The demand for the request that nginx could not pass. Draws nothing.
    pub(super) async fn demand_for(&self, head: &request::Parts, peer: &Peer) -> Response<GateBody> {
        let Some(original) = original(head) else { return no_original() };
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
