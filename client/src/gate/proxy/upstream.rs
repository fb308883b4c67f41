//! The server behind the gate: where it is, and how long it may take.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};

use super::pool::Pool;
use super::tls::TlsError;

/// Where an upstream is: `http://host:port`, `https://host`, `h2c://host:port` (HTTP/2 without TLS, by prior knowledge) or
/// `unix:/run/site.sock` (HTTP/1.1). A path after the host is put before every request's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub(super) place: Place,
    pub(super) protocol: Protocol,
    pub(super) authority: Authority,
    prefix: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1 in the clear.
    Plain,
    /// HTTP/2 in the clear.
    H2c,
    /// TLS; ALPN chooses.
    Tls,
}

/// Not the address of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the address of an upstream ({reason}): write it like `http://127.0.0.1:8080`")]
pub struct TargetError {
    text: String,
    reason: &'static str,
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let error = |reason| TargetError { text: text.to_owned(), reason };
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err(error("the path of a socket begins with a slash"));
            }
            return Ok(Self {
                place: Place::Unix(path.into()),
                protocol: Protocol::Plain,
                authority: Authority::from_static("localhost"),
                prefix: String::new(),
            });
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| error("no scheme"))?;
        let (protocol, default_port) = match scheme {
            "http" => (Protocol::Plain, 80),
            "h2c" => (Protocol::H2c, 80),
            "https" => (Protocol::Tls, 443),
            _ => return Err(error("the scheme is none of http, https, h2c and unix")),
        };
        let uri: Uri = format!("http://{rest}").parse().map_err(|_| error("not a URL"))?;
        let authority = uri.authority().cloned().ok_or_else(|| error("no host"))?;
        if authority.as_str().contains('@') {
            return Err(error("it names a user"));
        }
        if uri.query().is_some() {
            return Err(error("it has a query"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(error("no host"));
        }
        let port = match authority.port() {
            Some(port) => port.as_str().parse().map_err(|_| error("the port is not a number up to 65535"))?,
            None if authority.as_str() != authority.host() => {
                return Err(error("the port is not a number up to 65535"));
            }
            None => default_port,
        };
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { place: Place::Tcp { host, port }, protocol, authority, prefix })
    }
}

impl Target {
    /// The target of a request there: origin form.
    pub(super) fn path(&self, asked: &Uri) -> Option<PathAndQuery> {
        let asked = asked.path_and_query().map_or("/", PathAndQuery::as_str);
        if self.prefix.is_empty() || asked == "*" {
            return asked.parse().ok();
        }
        format!("{}{}{asked}", self.prefix, if asked.starts_with('/') { "" } else { "/" }).parse().ok()
    }

    pub(super) fn scheme(&self) -> Scheme {
        if self.protocol == Protocol::Tls { Scheme::HTTPS } else { Scheme::HTTP }
    }
}

/// The `Host` that the upstream sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostPolicy {
    /// The one that the client sent.
    #[default]
    Client,
    /// The one in the upstream's address.
    Upstream,
}

/// How to speak to an upstream. Defaults are those of [`UpstreamSettings::new`].
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Where it is.
    pub target: Target,
    /// More roots of trust than the system's, as a PEM file: for an upstream with a certificate of one's own authority.
    pub ca_file: Option<PathBuf>,
    /// The `Host` that it sees.
    pub host: HostPolicy,
    /// For name, connection and TLS together: 5 s.
    pub connect_timeout: Duration,
    /// From the last byte of the request to the head of the answer: 60 s.
    pub first_byte_timeout: Duration,
    /// Between two pieces of the answer, and in a tunnel while nothing moves: 60 s.
    pub idle_timeout: Duration,
    /// Between two pieces of the client's request body: 60 s.
    pub request_idle_timeout: Duration,
    /// Bytes of a request body: no limit.
    pub max_request_bytes: u64,
    /// How long an unused connection is kept: 4 s. Keep it below the upstream's own limit (5 s is usual for the shortest):
    /// a request that meets a closing connection is not sent again if it may have been read, and fails.
    pub pool_idle: Duration,
    /// Unused connections that are kept: 256.
    pub max_idle: usize,
    /// Names of cookies that are the gate's own: they neither go up nor come down.
    pub gate_cookies: Vec<String>,
}

impl UpstreamSettings {
    /// The defaults for this target.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            ca_file: None,
            host: HostPolicy::Client,
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            request_idle_timeout: Duration::from_secs(60),
            max_request_bytes: u64::MAX,
            pool_idle: Duration::from_secs(4),
            max_idle: 256,
            gate_cookies: vec!["weir".to_owned(), "weir-claim".to_owned()],
        }
    }
}

/// A server behind the gate and the connections to it. Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct Upstream {
    pub(super) pool: Arc<Pool>,
}

impl Upstream {
    /// Reads the roots of trust of an `https` upstream; connects to nothing yet.
    pub fn new(settings: UpstreamSettings) -> Result<Self, TlsError> {
        Ok(Self { pool: Arc::new(Pool::new(settings)?) })
    }

    /// How it is spoken to.
    pub fn settings(&self) -> &UpstreamSettings {
        self.pool.settings()
    }

    /// The `Host` for a request that came with `host`.
    pub(super) fn host(&self, host: Option<&HeaderValue>) -> HeaderValue {
        let own = || {
            HeaderValue::from_str(self.settings().target.authority.as_str())
                .unwrap_or_else(|_| HeaderValue::from_static("localhost"))
        };
        match (self.settings().host, host) {
            (HostPolicy::Client, Some(host)) => host.clone(),
            _ => own(),
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Upstream").field("settings", self.settings()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use super::*;

    #[test]
    fn targets_are_read_with_ports_and_prefixes() {
        let target: Target = "https://api.example/v1/".parse().unwrap();
        assert_eq!(target.place, Place::Tcp { host: "api.example".into(), port: 443 });
        assert_eq!(target.path(&"/chat?x=1".parse().unwrap()).unwrap().as_str(), "/v1/chat?x=1");
        assert_eq!(target.path(&"http://other/chat".parse().unwrap()).unwrap().as_str(), "/v1/chat");
        assert_eq!(target.path(&"*".parse().unwrap()).unwrap().as_str(), "*");
        let target: Target = "http://[::1]:8080".parse().unwrap();
        assert_eq!(target.place, Place::Tcp { host: "::1".into(), port: 8080 });
        assert_eq!(target.path(&"//x/../y".parse().unwrap()).unwrap().as_str(), "//x/../y");
        assert_eq!("h2c://a:1".parse::<Target>().unwrap().protocol, Protocol::H2c);
        assert_eq!("unix:/run/a.sock".parse::<Target>().unwrap().place, Place::Unix("/run/a.sock".into()));
    }

    #[test]
    fn what_is_no_upstream_is_refused_with_its_reason() {
        for text in [
            "",
            "localhost",
            "ftp://a",
            "http://",
            "http://a:70000",
            "http://a:",
            "http://u@a",
            "http://a/?q",
            "unix:x",
            "://a",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
