//! The gate's configuration, `gate.toml`.
//!
//! Reads one file and nothing else: what the file names (certificates, keys, the state) is opened by what uses it. All
//! that is wrong is told at once, each with its line and a hint. Relative paths are relative to the file's folder. Spans
//! are a number and a unit (`1500ms`, `30s`, `10m`, `24h`, `30d`); amounts are texts in units of the currency, down to
//! nine places (`"0.05"`). Unknown keys are refused.
//!
//! ## The gate
//! | key | default | meaning |
//! |---|---|---|
//! | `listen` | `"127.0.0.1:8402"` | the address that the gate listens on |
//! | `mode` | `"proxy"` | `"proxy"`: the gate stands before the upstream. `"forward-auth"`: a web server asks it about each request (nginx `auth_request`, Caddy `forward_auth`); it sees only the request, so prices must be fixed |
//! | `upstream` | required in mode proxy | where requests go: `http://…` or `https://…`, without a path |
//! | `realm` | required | the name under which receipts count, up to 128 printable characters; two gates with one realm and one secret honour each other's challenges |
//! | `payee` | required | who is paid: an account id, `weir1…` |
//! | `hub` | required | the hub: its address `weir://…@host:port`, or its id `weirhub1…` |
//! | `currency` | `"EUR"` | of all prices |
//! | `home` | none | the payee's home folder; needed for refunds, to hear of payments that are never shown, and to fetch the hub's certificates |
//! | `state` | `"gate-state"` | the folder of the balances; one process at a time |
//! | `secret_file` | `"gate-secret"` | 32 bytes for the gate's MACs; made at the first start, mode 0600 |
//! | `certificates` | `[]` | files with certificates of the hub's signing keys |
//! | `challenge_ttl` | `"10m"` | for so long a demand can be paid: 30 s to 24 h |
//! | `grace` | `"10m"` | in mode forward-auth, for so long a receipt opens the resource again that it paid for: 1 s to 24 h |
//! | `refund_unshown_after` | `"never"` | payments for demands of this gate whose receipt was not shown for so long are refunded; longer than `challenge_ttl`; needs `home`. Not for gates that share a secret |
//! | `max_in_flight` | 4096 | requests that are served at once; more are answered 503 |
//! | `cookie` | `"weir"` | the name of the reader's cookie |
//! | `cors` | `[]` | origins that may call from a browser, such as `"https://app.example"`, or `"*"` |
//! | `trust_forwarded` | `[]` | addresses and networks of proxies whose `X-Forwarded-…` headers count |
//! | `metrics` | none | an address for `/metrics`, apart from what readers reach |
//! | `quota_visitors` | 100000 | visitors whose free quota is remembered, about 100 bytes each |
//! | `[tls]` `certificate`, `key` | none | PEM files: the gate speaks HTTPS itself |
//! | `[timeouts]` `connect` | `"5s"` | to reach the upstream |
//! | `[timeouts]` `first_byte` | `"60s"` | until the head of its answer |
//! | `[timeouts]` `idle` | `"60s"` | between two pieces of a body |
//! | `[context]` `secret_file` | `secret_file` of the gate | with this table, the upstream is told who paid what in `PAYMENT-CONTEXT`, signed with this secret |
//! | `[accept]` `payment`, `x402`, `crawler` | all `true` | the dialects that are spoken; at least one |
//!
//! ## Prices
//! | key | default | meaning |
//! |---|---|---|
//! | `default` | `"free"` | for what no route matches: `"free"`, `"deny"`, or a price per request |
//! | `free_paths` | `true` | `robots.txt`, `favicon.ico`, site maps, feeds, `/.well-known/…` and `/openapi.json` are free to read, unless a route names their first segment |
//! | `ignore_case` | `false` | compare paths without case; set it when the upstream does |
//! | `hosts` | `[]` | hosts that are served besides those that routes name; with any named, all others are refused |
//! | `[crawlers]` `names`, `not` | `[]` | words of a `User-Agent` to add to the list of crawlers, and to take from it |
//! | `[metering]` `per`, `max`, `max_bytes`, `unreported` | | for routes that do not say it themselves |
//!
//! ## `[[route]]`
//! | key | default | meaning |
//! |---|---|---|
//! | `match` | required | `"GET /articles/{id}"`, `"GET|POST /api/{*rest}"`, `"/files/{*rest}"` for all methods; or a list. `{name}` is one segment, `{*rest}` the rest of a path or nothing. The most specific route holds; a route for `GET` holds for `HEAD`, at the same price |
//! | `host` | any | only for this host |
//! | `upstream` | the gate's | another upstream |
//! | `free` | | `true`: costs nothing. `{ requests = 5, per = "1d", by = "ip" }`: so many requests are free in each period, for each address (`"ip"`) or cookie (`"cookie"`: for honest readers only, since a cookie is easily dropped; who sends none has no quota); periods start at midnight UTC |
//! | `price` | `"0"` | for each request |
//! | `price_per_byte`, `price_per_kb` | | for each byte, or 1,000 bytes, of bodies; rounded up to the next nano, once a request; one of the two |
//! | `bytes` | `"response"` | which bodies are counted: `"request"`, `"response"`, `"both"` |
//! | `max_bytes` | required with a price for bytes | the most that is reserved and charged |
//! | `access` | none | for so long the same receipt opens the same resource again, up to 3660 d; not for metered prices |
//! | `crawlers` | as people | `{ price = "0.01" }` (takes the place of `price`), `{ deny = true }`, `{ free = true }` |
//! | `people` | `"page"` | how a person without a receipt is answered: `"page"` or `"json"` |
//! | `title`, `description`, `mime` | none | what is for sale: up to 200, 1,000 and 100 characters |
//!
//! ## `[route.unit]`
//! | key | default | meaning |
//! |---|---|---|
//! | `from` | required | where the upstream reports usage: `"header:x-units"`, `"trailer:x-units"`, `"json:/usage/total_tokens"` (a JSON pointer), `"openai"`, `"anthropic"`; or `"requests"`: each request is one unit |
//! | `price` | | of `per` units; for tokens, of every kind that has no price of its own |
//! | `input`, `output`, `cached`, `cache_write` | `price`; `cached` and `cache_write`: `input` | for `"openai"` and `"anthropic"`: of `per` tokens of the kind |
//! | `per` | 1 | how many units a price is for; rounded up to the next nano, once a request and kind |
//! | `max` | required (1 for `"requests"`) | the most units that are reserved and charged; for tokens, of the prompt and of the answer, each |
//! | `max_input`, `max_output` | `max` | for tokens: of the prompt, of the answer |
//! | `tiers` | none | instead of `price`: `[{ up_to = 1000, price = "0.002" }, { price = "0.001" }]`. Units count per balance: the first 1,000 that are drawn from one receipt at the first price, and so on |
//! | `unreported` | `"nothing"` | what an answer without readable usage costs in units: `"nothing"`, or `"most"`, for upstreams whose report the client can turn off |

mod error;
mod file;
mod read;
mod routes;
mod settings;

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Uri;
use ipnet::IpNet;
use weir_protocol::amount::Currency;
use weir_protocol::id::{AccountId, HubAddress, HubId};

pub use error::{ConfigError, ConfigErrors};

use super::price::PriceTable;
use read::Faults;

/// The largest file that is read.
pub const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;

/// The gate's configuration.
#[derive(Debug, Clone)]
pub struct GateConfig {
    /// The file that it was read from.
    pub file: PathBuf,
    /// All but prices. A change needs a restart.
    pub settings: Settings,
    /// The prices. They can be read anew while the gate runs: [`super::price::LiveTable`].
    pub table: Arc<PriceTable>,
}

/// All of the configuration but the prices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The address that the gate listens on.
    pub listen: SocketAddr,
    /// How the gate sees requests.
    pub mode: Mode,
    /// Where requests go, without a path; always there in [`Mode::Proxy`].
    pub upstream: Option<Uri>,
    /// The name under which receipts count.
    pub realm: String,
    /// Who is paid.
    pub payee: AccountId,
    /// The hub's identity.
    pub hub: HubId,
    /// Where the hub is, when the file says it.
    pub hub_address: Option<HubAddress>,
    /// Of all prices.
    pub currency: Currency,
    /// The payee's home folder.
    pub home: Option<PathBuf>,
    /// The folder of the balances.
    pub state: PathBuf,
    /// The file of 32 bytes for the gate's MACs.
    pub secret_file: PathBuf,
    /// Files with certificates of the hub's signing keys.
    pub certificates: Vec<PathBuf>,
    /// For so long a demand can be paid, in milliseconds.
    pub challenge_ttl_ms: u64,
    /// For so long a receipt opens its resource again in [`Mode::ForwardAuth`], in milliseconds.
    pub grace_ms: u64,
    /// Payments whose receipt was not shown for so long are refunded, in milliseconds; `None`: never.
    pub refund_unshown_after_ms: Option<u64>,
    /// Requests that are served at once.
    pub max_in_flight: usize,
    /// The name of the reader's cookie.
    pub cookie: String,
    /// Origins that may call from a browser; `*` for all.
    pub cors: Vec<String>,
    /// Proxies whose `X-Forwarded-…` headers count.
    pub trust_forwarded: Vec<IpNet>,
    /// An address for `/metrics`.
    pub metrics: Option<SocketAddr>,
    /// Visitors whose free quota is remembered.
    pub quota_visitors: usize,
    /// The certificate and key with which the gate speaks HTTPS itself.
    pub tls: Option<TlsFiles>,
    /// How long the upstream is waited for.
    pub timeouts: Timeouts,
    /// The file of the secret that signs `PAYMENT-CONTEXT`; `None`: the upstream is told nothing.
    pub context_secret_file: Option<PathBuf>,
    /// The dialects that are spoken.
    pub accept: Accept,
}

/// How the gate sees requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It stands before the upstream.
    Proxy,
    /// A web server asks it about each request's head.
    ForwardAuth,
}

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// How long the upstream is waited for, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To reach it.
    pub connect_ms: u64,
    /// Until the head of its answer.
    pub first_byte_ms: u64,
    /// Between two pieces of a body.
    pub idle_ms: u64,
}

/// The dialects that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept {
    /// The `Payment` authentication scheme.
    pub payment: bool,
    /// x402.
    pub x402: bool,
    /// `crawler-price` and its answers.
    pub crawler: bool,
}

impl GateConfig {
    /// Reads the configuration from a file.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let file = path.to_path_buf();
        let mut text = String::new();
        let read =
            std::fs::File::open(path).and_then(|open| open.take(MAX_FILE_BYTES as u64 + 1).read_to_string(&mut text));
        if let Err(source) = read {
            return Err(ConfigErrors(vec![ConfigError::Read { file, source }]));
        }
        Self::read(path, &text)
    }

    /// Reads the configuration from the text of a file that is called so.
    pub fn read(path: &Path, text: &str) -> Result<Self, ConfigErrors> {
        if text.len() > MAX_FILE_BYTES {
            return Err(ConfigErrors(vec![ConfigError::TooLarge { file: path.to_path_buf() }]));
        }
        let mut faults = Faults::new(path, text);
        let file: file::File = match toml::from_str(text) {
            Ok(file) => file,
            Err(error) => {
                faults.toml(&error);
                return Err(faults.into_errors());
            }
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        let settings = settings::read(&file, folder, &mut faults);
        let mode = settings::mode(&file).unwrap_or(Mode::Proxy);
        let table = routes::read(&file, mode, settings::grace_ms(&file), &mut faults);
        match (settings, table, faults.is_empty()) {
            (Some(settings), Some(table), true) => {
                Ok(Self { file: path.to_path_buf(), settings, table: Arc::new(table) })
            }
            _ => Err(faults.into_errors()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
