//! The gate's configuration, `gate.toml`.
//!
//! Reads one file and nothing else: what the file names (certificates, keys, the state) is opened by what uses it. All
//! that is wrong is told at once, each with its line and a hint. Relative paths are relative to the file's folder. Spans
//! are a number and a unit (`1500ms`, `30s`, `10m`, `24h`, `30d`); amounts are texts in units of the currency, down to
//! nine places (`"0.05"`). Unknown keys are refused.
//!
//! The keys, their defaults and bounds are in the guide (`client/README.md`): "gate.toml" and "Prices".

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
