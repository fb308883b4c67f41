//! What a layer is made of.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::request;
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::commit::SignedCertificate;
use weir_protocol::http::challenge::NONCE_BYTES;
use weir_protocol::http::{ChallengeError, Secret};
use weir_protocol::id::{AccountId, HubId};

use std::sync::Arc;

use super::{Inner, PriceTag, WeirLayer};
use crate::gate::balance::{BalanceError, Balances, Limits};
use crate::gate::config::Accept;
use crate::gate::desk::{Desk, DeskOptions};
use crate::gate::service::{StartError, read_secret};
use crate::gate::site::{Ask, Site};
use crate::gate::trust::Trust;

/// How long a demand can be paid, and a paid request is served again, unless it is said.
const DEFAULT_SPAN_MS: u64 = 600_000;

/// Why there is no layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The folder of the state.
    #[error("cannot make the folder `{path}`")]
    Folder {
        /// Which one.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The secret.
    #[error(transparent)]
    Secret(StartError),
    /// The balances.
    #[error(transparent)]
    Balances(#[from] BalanceError),
    /// With these facts no demand can be made.
    #[error("no demand can be made for this realm and header")]
    Demand(#[from] ChallengeError),
    /// Every dialect is off.
    #[error("every dialect is turned off: nobody could pay")]
    NoDialect,
    /// A certificate that the hub did not sign.
    #[error("a certificate is not of hub `{0}`")]
    Certificate(HubId),
}

/// Makes a [`WeirLayer`].
#[derive(Debug)]
#[must_use]
pub struct LayerBuilder {
    payee: AccountId,
    hub: HubId,
    realm: String,
    currency: Currency,
    header: Option<String>,
    accept: Accept,
    challenge_ttl_ms: u64,
    grace_ms: u64,
    origin: Option<String>,
    certificates: Vec<SignedCertificate>,
    balances: Option<Balances>,
    secret: Option<Secret>,
    limits: Limits,
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl LayerBuilder {
    pub(super) fn new(payee: AccountId, hub: HubId, realm: String) -> Self {
        Self {
            payee,
            hub,
            realm,
            currency: Currency::EUR,
            header: None,
            accept: Accept { payment: true, x402: true, crawler: true },
            challenge_ttl_ms: DEFAULT_SPAN_MS,
            grace_ms: DEFAULT_SPAN_MS,
            origin: None,
            certificates: Vec::new(),
            balances: None,
            secret: None,
            limits: Limits::default(),
        }
    }

    /// The currency of all prices; `EUR` unless it is said.
    pub const fn currency(mut self, currency: Currency) -> Self {
        self.currency = currency;
        self
    }

    /// The header for credentials where `Authorization` is the service's own: `payment-authorization`.
    pub fn header(mut self, name: impl Into<String>) -> Self {
        self.header = Some(name.into());
        self
    }

    /// The dialects that are spoken: all unless it is said.
    pub const fn accept(mut self, accept: Accept) -> Self {
        self.accept = accept;
        self
    }

    /// For so long a demand can be paid: 10 minutes unless it is said.
    pub fn challenge_ttl(mut self, span: Duration) -> Self {
        self.challenge_ttl_ms = ms(span).max(1);
        self
    }

    /// For so long a request that was paid is served again, and not charged again: 10 minutes unless it is said.
    pub fn grace(mut self, span: Duration) -> Self {
        self.grace_ms = ms(span);
        self
    }

    /// The service's address as its clients see it, `https://api.example`, for the demand's text; by the request's host
    /// unless it is said.
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.origin = Some(origin.into().trim_end_matches('/').to_owned());
        self
    }

    /// Certificates of the hub's signing keys that are known already. Others are learnt from receipts.
    pub fn certificates(mut self, certificates: impl IntoIterator<Item = SignedCertificate>) -> Self {
        self.certificates.extend(certificates);
        self
    }

    /// A store that is open already, such as another layer's.
    pub fn balances(mut self, balances: Balances) -> Self {
        self.balances = Some(balances);
        self
    }

    /// The store's bounds.
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What challenges are made with, instead of the state's own file. Services that share realm and secret honour each
    /// other's challenges, so they must share one store too.
    pub fn secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Makes the layer. `state` is a folder of its own, made if it is not there; one process holds it at a time. In it are
    /// the balances, which are money, and a secret.
    ///
    /// `price` says what a request costs, from its head; `None`: nothing. It is asked for every request, the ones that pay
    /// too, so it must be quick and say the same to the same request.
    pub fn build(
        self,
        state: impl AsRef<Path>,
        price: impl Fn(&request::Parts) -> Option<PriceTag> + Send + Sync + 'static,
    ) -> Result<WeirLayer, LayerError> {
        let state = state.as_ref();
        if !self.accept.payment && !self.accept.x402 {
            return Err(LayerError::NoDialect);
        }
        if self.secret.is_none() {
            std::fs::create_dir_all(state).map_err(|source| LayerError::Folder { path: state.to_owned(), source })?;
        }
        let secret = match self.secret {
            Some(secret) => secret,
            None => Secret::from(*read_secret(&state.join("secret")).map_err(LayerError::Secret)?),
        };
        let trust = Trust::new(self.hub);
        for certificate in &self.certificates {
            if !trust.trusts(certificate, certificate.certificate.not_before) {
                return Err(LayerError::Certificate(self.hub));
            }
        }
        let site = Site {
            realm: self.realm,
            payee: self.payee,
            currency: self.currency,
            header: self.header,
            challenge_ttl_ms: self.challenge_ttl_ms,
            trust,
            secret,
        };
        // What cannot stand in a demand is told now, not to the first who would pay.
        let ask = Ask { amount: Amount::from_nanos(1), metered: false, description: None, method: "GET", target: "/" };
        site.challenge(&ask, Time(0), [0; NONCE_BYTES])?;
        let balances = match self.balances {
            Some(balances) => balances,
            None => Balances::open(&state.join("balances"), self.limits)?,
        };
        let options = DeskOptions {
            named_requests: false,
            accept: self.accept,
            // No cookies are made here; none is read that another gate made.
            cookie: String::new(),
            grace_ms: self.grace_ms,
            quota_visitors: 1,
        };
        let desk = Desk::new(site, balances, options);
        Ok(WeirLayer(Arc::new(Inner { desk, price: Box::new(price), origin: self.origin })))
    }
}
