//! From a configuration to a running gate: secret, store, certificates, listeners.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir_protocol::commit::SignedCertificate;
use weir_protocol::http::Secret;
use weir_protocol::id::{AccountId, HubId};
use weir_protocol::receipt::ReceiptFile;
use zeroize::Zeroizing;

use super::operate::Operated;
use super::{Gate, Metrics, refused};
use crate::client::Client;
use crate::error::{Error, HomeError};
use crate::gate::balance::{BalanceError, Balances, Limits as StoreLimits};
use crate::gate::config::{GateConfig, Mode, Settings};
use crate::gate::desk::{Desk, DeskOptions};
use crate::gate::ops::certificates::{KnownCertificates, learn};
use crate::gate::ops::follow::Follower;
use crate::gate::price::LiveTable;
use crate::gate::proxy::{
    GateBody, Handler, Limits, Listener, ListenerSettings, Network, Peer, TargetError, TlsError, TlsFiles, TrustedPeers,
};
use crate::gate::site::Site;
use crate::gate::trust::Trust;
use crate::home::{Home, PlainKeys, Sealer};

/// Why a gate does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file.
    #[error("cannot {verb} `{path}`")]
    File {
        /// What was tried.
        verb: &'static str,
        /// Which one.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file of a secret with another length.
    #[error("`{path}` does not hold 32 bytes")]
    Secret {
        /// Which one.
        path: PathBuf,
    },
    /// A file that is no certificate of this hub.
    #[error("`{path}` is no certificate of the hub: neither one in JSON, nor a receipt that holds one")]
    Certificate {
        /// Which one.
        path: PathBuf,
    },
    /// The store.
    #[error(transparent)]
    Balances(#[from] BalanceError),
    /// The payee's home, or a file of the state.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The payee's home belongs to somebody else, or to another hub.
    #[error("the home `{}` is of account `{account}` at hub `{hub}`: `payee` and `hub` of the configuration are others", .path.display())]
    OtherHome {
        /// The folder.
        path: PathBuf,
        /// Its account.
        account: AccountId,
        /// Its hub.
        hub: HubId,
    },
    /// The payee's client.
    #[error(transparent)]
    Client(#[from] Error),
    /// An address cannot be listened on.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// An upstream's address.
    #[error(transparent)]
    Target(TargetError),
    /// TLS to an upstream.
    #[error(transparent)]
    Tls(TlsError),
}

/// A gate that runs until it is stopped.
#[derive(Debug)]
pub struct Running {
    gate: Arc<Gate>,
    address: SocketAddr,
    metrics: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    watching: JoinHandle<()>,
    operated: JoinHandle<()>,
}

impl Running {
    /// The gate.
    pub const fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its metrics are.
    pub const fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Lets answers end, takes no new requests, and returns.
    pub async fn stop(self) {
        self.watching.abort();
        let _ = self.stop.send(true);
        for task in self.tasks {
            let _ = task.await;
        }
        let _ = self.operated.await;
    }
}

/// Starts a gate whose payee's keys are under no passphrase.
pub async fn start(config: &GateConfig) -> Result<Running, StartError> {
    start_with(config, PlainKeys::sealer()).await
}

/// Opens the store of a configuration, held alone: for a gate, or for its operator when none runs.
pub fn open_balances(settings: &Settings) -> Result<Balances, BalanceError> {
    Balances::open(&settings.state, StoreLimits::default())
}

/// The payee of a configuration, where it names a home. The home is opened beside other processes.
pub fn payee(settings: &Settings, sealer: Sealer) -> Result<Option<Client>, StartError> {
    let Some(path) = &settings.home else { return Ok(None) };
    let home = Home::open_shared(path, sealer)?;
    let (account, hub) = (home.account(), home.hub().hub);
    if account != settings.payee || hub != settings.hub {
        return Err(StartError::OtherHome { path: path.clone(), account, hub });
    }
    Ok(Some(Client::start(home)?))
}

/// Starts a gate.
pub async fn start_with(config: &GateConfig, sealer: Sealer) -> Result<Running, StartError> {
    start_around(config, sealer, |gate| gate).await
}

/// Starts a gate whose requests go through a handler of the caller's, which hands them to the gate: to watch what passes.
/// What is not for its eyes is in there, too: credentials are as good as money.
pub async fn start_around<H: Handler>(
    config: &GateConfig,
    sealer: Sealer,
    around: impl FnOnce(Arc<Gate>) -> Arc<H> + Send,
) -> Result<Running, StartError> {
    let settings = config.settings.clone();
    let secret = Secret::from(*secret(&settings.secret_file)?);
    let context =
        settings.context_secret_file.as_deref().map(self::secret).transpose()?.map(|bytes| Secret::from(*bytes));
    let balances = open_balances(&settings)?;
    let client = payee(&settings, sealer)?;
    let trust = Trust::new(settings.hub);
    let certificates = KnownCertificates::open(&settings.state, &trust)?;
    for certificate in client.iter().flat_map(|client| client.proofs().certificates()) {
        learn(&trust, &certificate);
    }
    for path in &settings.certificates {
        let certificate = certificate(path)?;
        if !trust.trusts(&certificate, certificate.certificate.not_before) {
            return Err(StartError::Certificate { path: path.clone() });
        }
    }
    let site = Site {
        realm: settings.realm.clone(),
        payee: settings.payee,
        currency: settings.currency,
        header: None,
        challenge_ttl_ms: settings.challenge_ttl_ms,
        trust,
        secret,
    };
    let options = DeskOptions {
        accept: settings.accept,
        cookie: settings.cookie.clone(),
        grace_ms: settings.grace_ms,
        named_requests: settings.mode == Mode::ForwardAuth,
        quota_visitors: settings.quota_visitors,
    };
    let networks: Vec<Network> =
        settings.trust_forwarded.iter().filter_map(|network| network.to_string().parse().ok()).collect();
    let trusted = TrustedPeers::new(networks);
    let tls = settings.tls.clone().map(|files| TlsFiles { certificate: files.certificate, key: files.key });
    let limits = Limits { max_in_flight: settings.max_in_flight, ..Limits::default() };
    let listen = ListenerSettings { address: settings.listen, tls, limits, trusted: trusted.clone() };
    let listener = bind(listen).await?;
    let address = listener.local_address().map_err(|source| StartError::Listen { address: settings.listen, source })?;
    let operated = Operated::new(&settings, balances.clone(), client)?;
    let desk = Desk::new(site, balances, options);
    let desk = match operated.issued() {
        Some(issued) => desk.remembering(Arc::clone(issued)),
        None => desk,
    };
    let gate = Arc::new(Gate {
        desk: Arc::new(desk),
        table: Arc::new(LiveTable::new(config)),
        trusted,
        upstreams: std::sync::Mutex::default(),
        context,
        metrics: Arc::new(Metrics::new(settings.home.is_some())),
        settings,
    });
    let (stop, stopped) = watch::channel(false);
    let follower = operated.follower();
    if let Some(follower) = &follower {
        follower.begin().await?;
    }
    let mut tasks = vec![tokio::spawn(listener.serve(around(Arc::clone(&gate)), until(stopped.clone())))];
    let mut metrics = None;
    if let Some(wanted) = gate.settings.metrics {
        let listener = bind(ListenerSettings::new(wanted)).await?;
        metrics = Some(listener.local_address().map_err(|source| StartError::Listen { address: wanted, source })?);
        tasks.push(tokio::spawn(
            listener.serve(Arc::new(MetricsPage(Arc::clone(&gate), follower)), until(stopped.clone())),
        ));
    }
    let table = Arc::clone(&gate.table);
    let watching = tokio::spawn(async move { table.watch().await });
    let operated = operated.run(&gate, address, certificates, stopped);
    Ok(Running { gate, address, metrics, stop, tasks, watching, operated })
}

async fn bind(settings: ListenerSettings) -> Result<Listener, StartError> {
    let address = settings.address;
    Listener::bind(settings).await.map_err(|source| StartError::Listen { address, source })
}

async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// The secret in a file, made when there is none.
pub(in crate::gate) fn secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, StartError> {
    let failed = |verb: &'static str| move |source| StartError::File { verb, path: path.to_owned(), source };
    match std::fs::read(path).map(Zeroizing::new) {
        Ok(bytes) => {
            let bytes = <[u8; 32]>::try_from(bytes.as_slice());
            bytes.map(Zeroizing::new).map_err(|_| StartError::Secret { path: path.to_owned() })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut bytes = Zeroizing::new([0; 32]);
            getrandom::fill(&mut *bytes).map_err(|error| failed("make")(std::io::Error::other(error)))?;
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(path).map_err(failed("make"))?;
            file.write_all(&*bytes).and_then(|()| file.sync_all()).map_err(failed("write"))?;
            Ok(bytes)
        }
        Err(error) => Err(failed("read")(error)),
    }
}

/// A certificate in JSON, or the one inside of a receipt's file.
fn certificate(path: &Path) -> Result<SignedCertificate, StartError> {
    let text =
        std::fs::read(path).map_err(|source| StartError::File { verb: "read", path: path.to_owned(), source })?;
    let inside = || serde_json::from_slice::<ReceiptFile>(&text).map(|file| file.certificate);
    serde_json::from_slice(&text).or_else(|_| inside()).map_err(|_| StartError::Certificate { path: path.to_owned() })
}

/// `/metrics` and `/healthz`, on an address of their own.
struct MetricsPage(Arc<Gate>, Option<Arc<Follower>>);

impl Handler for MetricsPage {
    async fn handle(&self, request: Request<Incoming>, _peer: Peer) -> Response<GateBody> {
        let balances = self.0.desk().balances();
        match request.uri().path() {
            "/metrics" => {
                if let Some(follower) = &self.1 {
                    self.0.metrics().hub_connected(follower.status().connected);
                }
                let mut response = Response::new(GateBody::full(Bytes::from(self.0.metrics().text(balances))));
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                response
            }
            "/healthz" => Response::new(GateBody::full("ok\n")),
            "/readyz" if balances.closed_because().is_none() => Response::new(GateBody::full("ok\n")),
            "/readyz" => refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "store-closed",
                "the balance store takes nothing more: restart the gate".to_owned(),
            ),
            _ => refused(StatusCode::NOT_FOUND, "not-found", "`/metrics`, `/healthz` or `/readyz`".to_owned()),
        }
    }
}
