//! The local proxy: programs in any language send their requests through it, and it pays.
//!
//! - `GET http://host/path` (a forward proxy, as `http_proxy` sets it) is sent on, paid for, and streamed both ways.
//! - `GET /https/host/path`, or `/http/…`: a base URL for programs that take one. The proxy speaks TLS to the server and
//!   checks its certificate. With an upstream, `/path` goes there.
//! - A switch to another protocol (WebSocket) of such a request is asked for, paid for, and then passed as it is.
//! - `CONNECT host:port` is a blind tunnel: TLS is never opened, so nothing in it is ever paid. No certificates are faked.
//!
//! Whoever reaches the proxy spends its budget. So it listens on loopback, looks at `Host` (another name than this
//! machine's is a page that was bound to this address), and refuses what a web page makes a browser send (`Origin`,
//! `Sec-Fetch-Site`). A token shuts out other users of the machine too. Must not know money: that is the middleware's.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use reqwest::{Body, Url};
use reqwest_middleware::ClientWithMiddleware;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use weir_protocol::http::problem::{MEDIA_TYPE, PaymentProblem, Problem};

mod serve;
mod switch;

use super::middleware;
use super::pay::{FetchError, Paid};
use super::wallet::Target;
use serve::Seat;
pub use serve::{DRAIN, MAX_CONNECTIONS, serve};
use switch::{Metered, both_ways, protocol, switched, switches};

/// Longest wait for a tunnel's other end.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(20);
/// Before the path, when a token is needed and the program cannot send `Proxy-Authorization`.
const TOKEN_SEGMENT: &str = "token";

/// How a proxy behaves.
#[derive(Debug, Clone, Default)]
pub struct ProxyOptions {
    /// The only hosts that are reached, as `host` or `host:port`; empty: any.
    pub allow: BTreeSet<String>,
    /// Where requests without a host go.
    pub upstream: Option<Url>,
    /// What every request must show.
    pub token: Option<String>,
    /// Requests may come from other machines: then `Host` may be any name. Only with a token.
    pub remote: bool,
    /// Sends what asks for another protocol: a client that speaks HTTP/1.1 alone, since HTTP/2 has no switch. None: the
    /// same as for all else.
    pub switching: Option<ClientWithMiddleware>,
    /// Is told of each request, of a metered one at its end.
    pub told: Option<UnboundedSender<Served>>,
}

/// A request that was answered.
#[derive(Debug, Clone)]
pub struct Served {
    /// What was requested.
    pub target: Target,
    /// The answer.
    pub status: u16,
    /// What it cost.
    pub paid: Option<Paid>,
}

#[derive(Debug)]
struct Proxy {
    web: ClientWithMiddleware,
    options: ProxyOptions,
}

/// Why a request is not sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error(
        "the proxy's token is missing or wrong: send it as `Proxy-Authorization: Bearer …`, or as `/token/…` before the path"
    )]
    Token,
    #[error("requests that a web page makes are not paid for")]
    Page,
    #[error("`Host` is not this machine")]
    Host,
    #[error("this host is not among those that the proxy may reach")]
    NotAllowed,
    #[error("nowhere to go: use it as a forward proxy, ask for `/https/HOST/PATH`, or start it with `--upstream URL`")]
    Nowhere,
}

impl Refusal {
    const fn status(self) -> StatusCode {
        match self {
            Self::Token => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            Self::Page | Self::Host | Self::NotAllowed => StatusCode::FORBIDDEN,
            Self::Nowhere => StatusCode::BAD_REQUEST,
        }
    }
}

impl Proxy {
    async fn answer(&self, request: Request<Incoming>, seat: Seat) -> Response<Body> {
        if *request.method() == Method::CONNECT {
            return self.tunnel(request, seat);
        }
        match self.destination(&request) {
            Ok(url) => self.forward(request, url, seat).await,
            Err(refusal) => refused(refusal),
        }
    }

    /// Where a request goes, if it may.
    fn destination(&self, request: &Request<Incoming>) -> Result<Url, Refusal> {
        let (uri, headers) = (request.uri(), request.headers());
        let url = if uri.scheme().is_some() {
            self.check_token(headers, None)?;
            let url = Url::parse(&uri.to_string()).map_err(|_| Refusal::Nowhere)?;
            let own = url.origin().ascii_serialization();
            check_page(headers, Some(&own))?;
            url
        } else {
            self.check_host(headers)?;
            let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
            let (token, path) = match &self.options.token {
                Some(_) => split_token(path),
                None => (None, path),
            };
            self.check_token(headers, token)?;
            check_page(headers, None)?;
            place(path, self.options.upstream.as_ref())?
        };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refusal::Nowhere);
        }
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        self.check_allowed(host, port)?;
        Ok(url)
    }

    fn check_allowed(&self, host: &str, port: u16) -> Result<(), Refusal> {
        let allow = &self.options.allow;
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if allow.is_empty() || allow.contains(&host) || allow.contains(&format!("{host}:{port}")) {
            Ok(())
        } else {
            Err(Refusal::NotAllowed)
        }
    }

    fn check_token(&self, headers: &HeaderMap, in_path: Option<&str>) -> Result<(), Refusal> {
        let Some(token) = &self.options.token else { return Ok(()) };
        let shown = headers.get(header::PROXY_AUTHORIZATION).and_then(|value| value.to_str().ok());
        let in_header = shown.and_then(|text| text.split_once(' ')).and_then(|(scheme, rest)| {
            if scheme.eq_ignore_ascii_case("bearer") {
                return Some(rest.trim().to_owned());
            }
            // `http_proxy=http://weir:TOKEN@127.0.0.1:8403`: the password counts.
            let basic = scheme.eq_ignore_ascii_case("basic").then(|| from_base64(rest.trim())).flatten()?;
            Some(basic.split_once(':').map_or(basic.clone(), |(_, password)| password.to_owned()))
        });
        let fits = |shown: &str| same(shown.as_bytes(), token.as_bytes());
        if in_path.is_some_and(fits) || in_header.as_deref().is_some_and(fits) { Ok(()) } else { Err(Refusal::Token) }
    }

    fn check_host(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.options.remote {
            return Ok(());
        }
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let authority: Authority = host.parse().map_err(|_| Refusal::Host)?;
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        let is_here = name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        if is_here { Ok(()) } else { Err(Refusal::Host) }
    }

    async fn forward(&self, mut request: Request<Incoming>, url: Url, seat: Seat) -> Response<Body> {
        let takes_trailers = lists(request.headers(), header::TE, "trailers");
        let protocol = protocol(request.headers());
        let client = protocol.as_ref().map(|_| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let is_head = parts.method == Method::HEAD;
        let mut headers = parts.headers;
        strip(&mut headers);
        headers.remove(header::HOST);
        if takes_trailers && protocol.is_none() {
            middleware::take_trailers(&mut headers, &url);
        }
        let web = self.options.switching.as_ref().filter(|_| protocol.is_some()).unwrap_or(&self.web);
        if let Some(protocol) = protocol {
            switches(&mut headers, protocol);
        }
        let mut sent = reqwest::Request::new(parts.method, url);
        *sent.headers_mut() = headers;
        if !body.is_end_stream() {
            *sent.body_mut() = Some(Body::wrap(body));
        }
        let target = middleware::target(&sent);
        let answer = match web.execute(sent).await {
            Ok(answer) => answer,
            Err(error) => {
                let (status, problem) = fault(&error);
                self.tell(target, status, None);
                return said(status, &problem);
            }
        };
        let mut answer = http::Response::<Body>::from(answer);
        let paid = answer.extensions_mut().remove::<Paid>();
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.tell(target, answer.status(), paid);
            return switched(answer, client, seat);
        }
        let (mut parts, mut body) = answer.into_parts();
        let trailer = parts.headers.remove(header::TRAILER).filter(|_| takes_trailers);
        strip(&mut parts.headers);
        if let Some(trailer) = trailer {
            parts.headers.insert(header::TRAILER, trailer);
        }
        match paid {
            Some(paid) if paid.metered && !is_head => {
                // Of an answer with a length nobody would read on to the trailers.
                parts.headers.remove(header::CONTENT_LENGTH);
                let served = Served { target, status: parts.status.as_u16(), paid: Some(paid) };
                body = Body::wrap(Metered { rest: body, told: self.options.told.clone(), served });
            }
            paid => self.tell(target, parts.status, paid),
        }
        parts.version = http::Version::HTTP_11;
        parts.extensions.clear();
        Response::from_parts(parts, body)
    }

    fn tell(&self, target: Target, status: StatusCode, paid: Option<Paid>) {
        if let Some(told) = &self.options.told {
            // Nobody listens: nothing is lost.
            let _ = told.send(Served { target, status: status.as_u16(), paid });
        }
    }

    /// A blind tunnel: nothing in it is seen, and nothing is paid.
    fn tunnel(&self, request: Request<Incoming>, seat: Seat) -> Response<Body> {
        let checked = self.check_token(request.headers(), None);
        let place = checked.and_then(|()| {
            let authority = request.uri().authority().ok_or(Refusal::Nowhere)?;
            let port = authority.port_u16().ok_or(Refusal::Nowhere)?;
            let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
            self.check_allowed(&host, port)?;
            Ok((host, port))
        });
        let (host, port) = match place {
            Ok(place) => place,
            Err(refusal) => return refused(refusal),
        };
        tokio::spawn(async move {
            let upgraded = match hyper::upgrade::on(request).await {
                Ok(upgraded) => upgraded,
                Err(error) => return tracing::debug!(%error, "a tunnel was not begun"),
            };
            let reached = tokio::time::timeout(TUNNEL_TIMEOUT, TcpStream::connect((host.as_str(), port))).await;
            match reached {
                Ok(Ok(server)) => both_ways(TokioIo::new(upgraded), server, seat).await,
                Ok(Err(error)) => tracing::debug!(%error, "a tunnel's server is not reached"),
                Err(_) => tracing::debug!("a tunnel's server does not answer"),
            }
        });
        Response::new(Body::default())
    }
}

/// `/token/TOKEN/rest` as the token and `/rest`.
fn split_token(path: &str) -> (Option<&str>, &str) {
    let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(TOKEN_SEGMENT));
    let Some(rest) = rest.and_then(|rest| rest.strip_prefix('/')) else { return (None, path) };
    match rest.find('/') {
        Some(at) => {
            let (token, path) = rest.split_at(at);
            (Some(token), path)
        }
        None => (Some(rest), "/"),
    }
}

/// The URL that a path of the proxy's own stands for.
fn place(path: &str, upstream: Option<&Url>) -> Result<Url, Refusal> {
    if let Some(upstream) = upstream {
        let base = upstream.as_str().trim_end_matches('/');
        return Url::parse(&format!("{base}{path}")).map_err(|_| Refusal::Nowhere);
    }
    let (scheme, rest) = path.strip_prefix('/').and_then(|path| path.split_once('/')).ok_or(Refusal::Nowhere)?;
    if !matches!(scheme, "http" | "https") || rest.is_empty() || rest.starts_with('/') {
        return Err(Refusal::Nowhere);
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(Refusal::Nowhere);
    }
    Url::parse(&format!("{scheme}://{rest}")).map_err(|_| Refusal::Nowhere)
}

/// Whether a page in a browser made this request for another site than the one that it goes to.
fn check_page(headers: &HeaderMap, own: Option<&str>) -> Result<(), Refusal> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let fine = |origin: &str| Some(origin) == own;
    if text("origin").is_some_and(|origin| !fine(origin)) {
        return Err(Refusal::Page);
    }
    match text("sec-fetch-site") {
        None | Some("none") => Ok(()),
        Some("same-origin") if own.is_some() => Ok(()),
        Some(_) => Err(Refusal::Page),
    }
}

/// Whether a header that lists words lists this one.
fn lists(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|text| text.split(',')).any(|found| found.trim().eq_ignore_ascii_case(word))
}

/// Takes away what is for one connection only (RFC 9110 §7.6.1), and what is for this proxy.
fn strip(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in listed {
        headers.remove(name);
    }
    for name in [
        header::CONNECTION,
        header::PROXY_AUTHORIZATION,
        header::PROXY_AUTHENTICATE,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
}

/// How a failure is answered.
fn fault(error: &reqwest_middleware::Error) -> (StatusCode, Problem) {
    let found = match error {
        reqwest_middleware::Error::Middleware(error) => error.downcast_ref::<FetchError>(),
        reqwest_middleware::Error::Reqwest(_) => None,
    };
    let status = match found {
        Some(
            FetchError::Demand(_)
            | FetchError::Budget(_)
            | FetchError::Refused(_)
            | FetchError::AuthorizationTaken
            | FetchError::BodyOnce { .. },
        ) => StatusCode::PAYMENT_REQUIRED,
        Some(FetchError::Purse(_) | FetchError::Unknown { .. }) => StatusCode::SERVICE_UNAVAILABLE,
        Some(FetchError::Home(_) | FetchError::Full(_) | FetchError::Task(_)) => StatusCode::INTERNAL_SERVER_ERROR,
        Some(FetchError::NotServed { .. } | FetchError::TooLong) | None => StatusCode::BAD_GATEWAY,
    };
    let detail = Some(error.to_string());
    let problem = if status == StatusCode::PAYMENT_REQUIRED {
        Problem::new(PaymentProblem::PaymentRequired, detail)
    } else {
        plain(status, detail)
    };
    (status, problem)
}

/// A problem that has no name in the payment scheme.
fn plain(status: StatusCode, detail: Option<String>) -> Problem {
    let title = status.canonical_reason().unwrap_or("failed").to_owned();
    Problem { kind: "about:blank".to_owned(), title, status: status.as_u16(), detail, challenge_id: None }
}

fn refused(refusal: Refusal) -> Response<Body> {
    let status = refusal.status();
    let problem = plain(status, Some(refusal.to_string()));
    let mut answer = said(status, &problem);
    if refusal == Refusal::Token {
        let value = HeaderValue::from_static("Basic realm=\"weir proxy\"");
        answer.headers_mut().insert(header::PROXY_AUTHENTICATE, value);
    }
    answer
}

fn said(status: StatusCode, problem: &Problem) -> Response<Body> {
    let body = Bytes::from(serde_json::to_vec(problem).unwrap_or_default());
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Compares without telling by its time how much fits.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

fn from_base64(text: &str) -> Option<String> {
    let plain: String = text
        .chars()
        .map(|c| {
            if c == '+' {
                '-'
            } else if c == '/' {
                '_'
            } else {
                c
            }
        })
        .collect();
    String::from_utf8(weir_protocol::http::from_base64url(&plain)?).ok()
}

/// Whether an address is reached from this machine alone.
pub fn is_local(address: &SocketAddr) -> bool {
    address.ip().is_loopback()
}

/// The base URL for a server behind the proxy: what programs take in place of `upstream`.
pub fn base_url(listen: &SocketAddr, token: Option<&str>, upstream: &Uri) -> String {
    let token = token.map_or_else(String::new, |token| format!("/{TOKEN_SEGMENT}/{token}"));
    let scheme = upstream.scheme_str().unwrap_or("https");
    let authority = upstream.authority().map_or("", Authority::as_str);
    format!("http://{listen}{token}/{scheme}/{authority}{}", upstream.path().trim_end_matches('/'))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    #[test]
    fn path_names_the_server_and_nothing_else_does() {
        let at = |path| place(path, None).map(|url| url.to_string());
        assert_eq!(at("/https/api.example/v1/x?a=b"), Ok("https://api.example/v1/x?a=b".to_owned()));
        assert_eq!(at("/http/api.example:8080"), Ok("http://api.example:8080/".to_owned()));
        for bad in ["/", "/https", "/https/", "/https//x", "/ftp/a/b", "/https/user@host/", "/v1/x"] {
            assert_eq!(at(bad), Err(Refusal::Nowhere), "{bad}");
        }
        let upstream = Url::parse("https://api.example/base/").unwrap();
        let to = place("/v1?q=1", Some(&upstream)).unwrap();
        assert_eq!(to.as_str(), "https://api.example/base/v1?q=1");
        assert_eq!(place("//evil.example/x", Some(&upstream)).unwrap().host_str(), Some("api.example"));
        let root = Url::parse("https://api.example").unwrap();
        assert_eq!(place("/@evil.example/x", Some(&root)).unwrap().host_str(), Some("api.example"));
        assert_eq!(split_token("/token/abc/https/a/b"), (Some("abc"), "/https/a/b"));
        assert_eq!(split_token("/token/abc"), (Some("abc"), "/"));
        assert_eq!(split_token("/https/a"), (None, "/https/a"));
        let listen = "127.0.0.1:8403".parse().unwrap();
        let base = base_url(&listen, Some("abc"), &Uri::from_static("https://api.example/v1"));
        assert_eq!(base, "http://127.0.0.1:8403/token/abc/https/api.example/v1");
    }

    #[test]
    fn what_a_page_sends_is_refused_unless_it_is_the_sites_own() {
        let mut headers = HeaderMap::new();
        assert_eq!(check_page(&headers, None), Ok(()));
        headers.insert("sec-fetch-site", HeaderValue::from_static("same-origin"));
        assert_eq!(check_page(&headers, None), Err(Refusal::Page));
        headers.insert("origin", HeaderValue::from_static("http://news.example"));
        assert_eq!(check_page(&headers, Some("http://news.example")), Ok(()));
        assert_eq!(check_page(&headers, Some("http://other.example")), Err(Refusal::Page));
        headers.insert("sec-fetch-site", HeaderValue::from_static("cross-site"));
        assert_eq!(check_page(&headers, Some("http://news.example")), Err(Refusal::Page));
    }

    #[test]
    fn headers_of_the_connection_are_stripped_with_those_that_it_names() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("x-other", "2"),
            ("proxy-authorization", "Bearer x"),
            ("transfer-encoding", "chunked"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
    }

    #[test]
    fn token_is_compared_whole() {
        assert!(same(b"abc", b"abc") && !same(b"abc", b"abd") && !same(b"ab", b"abc"));
        assert_eq!(from_base64("d2VpcjphYmM=").as_deref(), Some("weir:abc"));
    }
}
