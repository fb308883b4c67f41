//! The reverse proxy under the gate: it listens, forwards, streams both bodies, tunnels upgrades and keeps headers clean.
//!
//! It knows nothing of money. Whoever charges wraps it: a [`Handler`] decides about each request, and [`forward`] tells
//! [`Hooks`] what passes and holds the end of the answer back until they let it go.
//!
//! ```text
//! client ─► Listener ─► Handler (the gate's logic) ─► forward ─► Upstream
//!                                                       │ Hooks: head, pieces, trailers, end (held)
//! ```
//!
//! - Every exchange reports exactly one [`Ending`], also when the client goes away at any point.
//! - No client sees a whole answer before the hook's future for [`Ending::Complete`] has let it go. Where that is refused the
//!   answer is broken off: HTTP/1 connections are reset, HTTP/2 streams too.
//! - A request that may have reached an upstream is never sent again.
//! - Memory does not grow with bodies: no piece is read before the one before it was taken.
//!
//! Limits of the HTTP library that show: 1xx answers other than 100 and 101 are not passed on; a request with both
//! `Transfer-Encoding` and `Content-Length` is read by the first, the second is dropped, and the connection is closed after it
//! (RFC 9112 §6.1 permits this); what cannot be parsed at all is answered 400 or 431 with no body. WebSocket over HTTP/2
//! (extended CONNECT, RFC 8441) is not offered: clients fall back to HTTP/1.1.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, request};
use http_body::Body;
use hyper::body::Incoming;

mod body;
mod headers;
mod hooks;
mod listener;
mod peer;
mod pool;
mod problem;
mod relay;
mod socket;
#[cfg(test)]
mod tests;
mod tls;
mod tunnel;
mod upload;
mod upstream;

pub use body::{BodyError, BoxError, GateBody};
pub(in crate::gate) use headers::wants_trailers;
pub use headers::{MAX_HOPS, strip_faked_headers, strip_payment_headers};
pub use hooks::{
    Ending, Hold, Hooks, NoHooks, Passed, Place, Release, ReleaseFuture, RequestChunks, RequestFault, Wait, Withheld,
};
pub use listener::{Handler, Limits, Listener, ListenerSettings};
pub use peer::{Network, NetworkError, Peer, TrustedPeers};
pub use pool::MAX_RESPONSE_HEADER_BYTES;
pub use problem::{Problem, RETRY_AFTER_SECONDS};
pub use tls::{Certificates, TlsError, TlsFiles};
pub use upload::CONTINUE_WAIT;
pub use upstream::{HostPolicy, Target, TargetError, Upstream, UpstreamSettings};

use hooks::{Guard, settle};
use pool::{Lease, Outbound, SendError};
use relay::{Early, Relay, RelayParts};
use tunnel::Tunnel;
use upload::{UploadBody, UploadLimits};

/// Bytes of a request's head, target included (nginx: four buffers of 8 KB).
pub const MAX_HEADER_BYTES: usize = 32 * 1024;

/// Answers of a known length up to this are waited for before their head is sent.
const SMALL_BYTES: u64 = 16 * 1024;

/// Bytes of a request target.
pub const MAX_TARGET_BYTES: usize = 8 * 1024;

/// Judges a request before anything else sees it, and writes its host into `Host` whatever form it came in.
///
/// [`Listener`] does this for its own requests.
pub fn admit(head: &mut request::Parts) -> Result<(), Problem> {
    if head.method == Method::CONNECT || head.method == Method::TRACE {
        return Err(Problem::MethodNotAllowed);
    }
    if headers::target_bytes(&head.uri) > MAX_TARGET_BYTES {
        return Err(Problem::TargetTooLong);
    }
    if headers::head_bytes(&head.uri, &head.headers) > MAX_HEADER_BYTES {
        return Err(Problem::HeadersTooLarge);
    }
    if head.uri.scheme_str().is_some_and(|scheme| scheme != "http" && scheme != "https") {
        return Err(Problem::BadRequest);
    }
    let has_length = head.headers.contains_key(CONTENT_LENGTH);
    let mut encodings = head.headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(encoding) = encodings.next() {
        let only_chunked = encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
        if has_length || !only_chunked || encodings.next().is_some() || head.version != Version::HTTP_11 {
            return Err(Problem::BadFraming);
        }
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(Problem::BadRequest);
    }
    let named = head.uri.authority();
    if let Some(host) = host {
        let authority = Authority::try_from(host.as_bytes()).map_err(|_| Problem::BadRequest)?;
        if authority.as_str().contains('@') {
            return Err(Problem::BadRequest);
        }
        // HTTP/1.1 says which one holds (RFC 9112 §3.2.2); in HTTP/2 they must not differ (RFC 9113 §8.3.1).
        if head.version == Version::HTTP_2 && named.is_some_and(|named| *named != authority) {
            return Err(Problem::BadRequest);
        }
    } else if named.is_none() && head.version != Version::HTTP_10 {
        return Err(Problem::BadRequest);
    }
    if let Some(named) = named {
        if named.as_str().contains('@') {
            return Err(Problem::BadRequest);
        }
        let host = HeaderValue::from_str(named.as_str()).map_err(|_| Problem::BadRequest)?;
        head.headers.insert(HOST, host);
    }
    if headers::hops(&head.headers) >= MAX_HOPS {
        return Err(Problem::Loop);
    }
    Ok(())
}

/// Forwards one request and returns the upstream's answer, or a [`Problem`]'s.
///
/// The request must have been through [`admit`]. The answer's body runs on after this returns: `hooks` hear of it until they
/// hear of the end.
pub async fn forward<B>(
    request: Request<B>,
    upstream: &Upstream,
    peer: &Peer,
    hooks: Box<dyn Hooks>,
) -> Response<GateBody>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let mut guard = Guard::new(hooks);
    let (outbound, client) = match prepare(request, upstream, peer, &mut guard) {
        Ok(prepared) => prepared,
        Err(problem) => {
            guard.fail(Ending::NotSent);
            return problem.response();
        }
    };
    match upstream.pool.send(outbound).await {
        Ok((response, lease)) => answer(response, lease, guard, client, upstream).await,
        Err(error) => {
            let (ending, problem) = match error {
                SendError::UpgradeUnavailable => (Ending::NotSent, Problem::UpgradeUnavailable),
                SendError::Ended(ending) => (ending, problem_of(ending)),
            };
            guard.fail(ending);
            problem.response()
        }
    }
}

fn problem_of(ending: Ending) -> Problem {
    match ending {
        Ending::ConnectFailed => Problem::UpstreamUnreachable,
        Ending::TimedOut(_) => Problem::UpstreamTimeout,
        Ending::RequestFailed(RequestFault::TooSlow) => Problem::RequestTimeout,
        Ending::RequestFailed(RequestFault::TooLarge) => Problem::TooLarge,
        Ending::RequestFailed(RequestFault::Broken) | Ending::NotSent => Problem::BadRequest,
        Ending::Stopped => Problem::Withheld,
        Ending::UpstreamFailed(_) | Ending::Complete | Ending::ClientGone | Ending::ShutDown => Problem::UpstreamFailed,
    }
}

/// What of the request is needed when the answer comes.
struct Client {
    version: Version,
    is_head: bool,
    takes_trailers: bool,
    upgrade: Option<(HeaderValue, hyper::upgrade::OnUpgrade)>,
    chunks: Option<RequestChunks>,
    peer: Peer,
}

fn prepare<B>(
    mut request: Request<B>,
    upstream: &Upstream,
    peer: &Peer,
    guard: &mut Guard,
) -> Result<(Outbound, Client), Problem>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let version = request.version();
    let protocol = (version == Version::HTTP_11 && request.body().is_end_stream())
        .then(|| headers::upgrade(request.headers()))
        .flatten();
    let upgrade = protocol.map(|protocol| (protocol, hyper::upgrade::on(&mut request)));
    let (mut head, body) = request.into_parts();
    if head.method == Method::CONNECT || head.method == Method::TRACE {
        return Err(Problem::MethodNotAllowed);
    }
    let path = upstream.settings().target.path(&head.uri).ok_or(Problem::BadRequest)?;
    let takes_trailers = headers::wants_trailers(&head.headers);
    let asked_host = head.headers.get(HOST).cloned();
    headers::strip_hop_by_hop(&mut head.headers);
    strip_payment_headers(&mut head.headers, &upstream.settings().gate_cookies);
    headers::set_forwarded(&mut head.headers, peer, asked_host.as_ref());
    headers::add_via(&mut head.headers, version);
    let chunks = match guard.hooks() {
        Some(hooks) => {
            let chunks = hooks.request_chunks();
            hooks.on_request_head(&mut head);
            chunks
        }
        None => None,
    };
    let held = head.headers.get(EXPECT).is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let mut outbound = Request::new(UploadBody::Empty);
    *outbound.method_mut() = head.method.clone();
    *outbound.headers_mut() = head.headers;
    if !body.is_end_stream() {
        let settings = upstream.settings();
        let limits = UploadLimits { max_bytes: settings.max_request_bytes, idle: settings.request_idle_timeout };
        if body.size_hint().lower() > limits.max_bytes {
            return Err(Problem::TooLarge);
        }
        let (body, state) = UploadBody::stream(body, limits, chunks.clone(), held);
        if held {
            let state = std::sync::Arc::clone(&state);
            hyper::ext::on_informational(&mut outbound, move |answer| {
                if answer.status() == StatusCode::CONTINUE {
                    state.go_on();
                }
            });
        }
        *outbound.body_mut() = body;
        guard.upload = Some(state);
    }
    let outbound = Outbound {
        request: outbound,
        host: upstream.host(asked_host.as_ref()),
        path,
        upgrade: upgrade.as_ref().map(|(protocol, _)| protocol.clone()),
        takes_trailers,
        upload: guard.upload.clone(),
    };
    let is_head = head.method == Method::HEAD;
    let client = Client { version, is_head, takes_trailers, upgrade, chunks, peer: peer.clone() };
    Ok((outbound, client))
}

async fn answer(
    mut response: Response<Incoming>,
    lease: Lease,
    mut guard: Guard,
    client: Client,
    upstream: &Upstream,
) -> Response<GateBody> {
    let idle = upstream.settings().idle_timeout;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switch(response, guard, client, upstream).await;
    }
    if !is_framed_clearly(&response) || response.status().is_informational() {
        guard.fail(Ending::UpstreamFailed(Place::Head));
        return Problem::UpstreamFailed.response();
    }
    let has_both = response.headers().contains_key(TRANSFER_ENCODING);
    clean(&mut response, upstream);
    if has_both {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    let (mut head, body) = response.into_parts();
    if let Some(hooks) = guard.hooks() {
        hooks.on_response_head(&mut head);
    }
    let bodiless = client.is_head
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::RESET_CONTENT);
    if bodiless || body.is_end_stream() {
        drop(body);
        lease.release();
        return match settle(guard.end(Ending::Complete)).await {
            Ok(extra) => {
                head.headers.extend(extra.unwrap_or_default());
                Response::from_parts(head, GateBody::empty())
            }
            Err(Withheld) => Problem::Withheld.response(),
        };
    }
    let reset = (client.version != Version::HTTP_2).then(|| client.peer.connection().cloned()).flatten();
    let length = body.size_hint().exact();
    // HTTP/1.1 has trailers only behind chunks: where some are announced, and the client takes them, no length is told.
    let hides_length =
        client.version == Version::HTTP_11 && client.takes_trailers && head.headers.contains_key(TRAILER);
    if hides_length {
        head.headers.remove(CONTENT_LENGTH);
    }
    let mut relay = Relay::new(body, RelayParts { guard, lease, length, hides_length, idle, reset });
    if !hides_length && length.is_some_and(|length| length <= SMALL_BYTES) {
        match relay.early().await {
            Early::Whole(data, extra) => {
                if let Some(extra) = extra {
                    head.headers.remove(TRAILER);
                    head.headers.extend(extra);
                }
                return Response::from_parts(head, GateBody::full(data));
            }
            Early::Begun => {}
            Early::Failed(ending) => return problem_of(ending).response(),
            Early::Withheld => return Problem::Withheld.response(),
        }
    }
    Response::from_parts(head, GateBody::relay(relay))
}

/// Whether the answer's body can be passed on as it is: no transfer coding but chunked.
fn is_framed_clearly(response: &Response<Incoming>) -> bool {
    let mut encodings = response.headers().get_all(TRANSFER_ENCODING).iter();
    encodings.next().is_none_or(|encoding| encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
        && encodings.next().is_none()
}

/// Makes the upstream's head the proxy's own.
fn clean(response: &mut Response<Incoming>, upstream: &Upstream) {
    let version = response.version();
    *response.version_mut() = Version::HTTP_11;
    let headers = response.headers_mut();
    headers::strip_hop_by_hop(headers);
    strip_faked_headers(headers, &upstream.settings().gate_cookies);
    headers::add_via(headers, version);
}

/// The upstream agreed to an upgrade: lets the hook settle first, then passes the 101 on and tunnels.
async fn switch(
    mut response: Response<Incoming>,
    mut guard: Guard,
    client: Client,
    upstream: &Upstream,
) -> Response<GateBody> {
    let idle = upstream.settings().idle_timeout;
    let same = |(asked, _): &(HeaderValue, _)| {
        response.headers().get(UPGRADE).is_some_and(|given| given.as_bytes().eq_ignore_ascii_case(asked.as_bytes()))
    };
    let Some((protocol, client_end)) = client.upgrade.filter(same) else {
        guard.fail(Ending::UpstreamFailed(Place::Head));
        return Problem::UpstreamFailed.response();
    };
    let upstream_end = hyper::upgrade::on(&mut response);
    clean(&mut response, upstream);
    let (mut head, _) = response.into_parts();
    let Some(hooks) = guard.hooks() else { return Problem::Withheld.response() };
    hooks.on_response_head(&mut head);
    let hold = hooks.on_switch();
    let Ok(extra) = settle(hold).await else {
        guard.fail(Ending::Stopped);
        return Problem::Withheld.response();
    };
    head.headers.extend(extra.unwrap_or_default());
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.insert(UPGRADE, protocol);
    let connection = client.peer.connection().cloned();
    let tunnel = Tunnel { client: client_end, upstream: upstream_end, guard, chunks: client.chunks, idle, connection };
    tokio::spawn(tunnel.run());
    Response::from_parts(head, GateBody::empty())
}
