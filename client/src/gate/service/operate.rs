//! What a running gate does for its operator beside serving: answers on the admin socket, follows the payee's credits,
//! finishes refunds, writes certificates and issued demands behind. None of it is on the way of a request.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir_protocol::amount::Time;

use super::start::StartError;
use super::{Gate, Metrics, now};
use crate::client::Client;
use crate::gate::balance::Balances;
use crate::gate::config::Settings;
use crate::gate::ops::certificates::{KnownCertificates, learn};
use crate::gate::ops::follow::Follower;
use crate::gate::ops::issued::Issued;
use crate::gate::ops::refund::{Heard, Refunds};
use crate::gate::ops::shapes::{
    BalancePage, BalancesAsked, RefundAsked, RefundOutcome, Refunded, ReloadReport, Status,
};
#[cfg(unix)]
use crate::gate::ops::socket::{AdminSocket, Answers};
use crate::gate::ops::till::{BadQuestion, Till, certificate_at};

/// How often what is written behind is written.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// How often refunds without an answer are sent again, and payments that were never shown are looked for.
const REFUNDS_EVERY: Duration = Duration::from_secs(30);

/// The parts, before the gate runs.
#[derive(Debug)]
pub(super) struct Operated {
    till: Till,
    payee: Option<Payee>,
    state: PathBuf,
    refund_unshown_after_ms: Option<u64>,
}

/// What there is with a `home`.
#[derive(Debug)]
struct Payee {
    client: Client,
    issued: Arc<Issued>,
    follower: Arc<Follower>,
}

impl Operated {
    /// Over an opened store, which holds the folder of the state.
    pub(super) fn new(settings: &Settings, balances: Balances, client: Option<Client>) -> Result<Self, StartError> {
        let state = settings.state.clone();
        let payee = match client {
            None => None,
            Some(client) => {
                let issued = Issued::open(&state);
                let issued = Arc::new(issued.map_err(|source| StartError::File {
                    verb: "read the issued demands in",
                    path: state.clone(),
                    source,
                })?);
                let follower = Follower::new(client.clone(), balances.clone(), Arc::clone(&issued), &state);
                Some(Payee { client, issued, follower: Arc::new(follower) })
            }
        };
        let refunds = payee.as_ref().map(|payee| Arc::new(Refunds::new(balances.clone(), payee.client.clone())));
        let refund_unshown_after_ms = settings.refund_unshown_after_ms;
        Ok(Self { till: Till::new(balances, refunds), payee, state, refund_unshown_after_ms })
    }

    /// Where demands are remembered.
    pub(super) fn issued(&self) -> Option<&Arc<Issued>> {
        self.payee.as_ref().map(|payee| &payee.issued)
    }

    /// What follows the credits.
    pub(super) fn follower(&self) -> Option<Arc<Follower>> {
        self.payee.as_ref().map(|payee| Arc::clone(&payee.follower))
    }

    /// Runs until `stopped` is true.
    pub(super) fn run(
        self,
        gate: &Arc<Gate>,
        address: SocketAddr,
        certificates: KnownCertificates,
        stopped: watch::Receiver<bool>,
    ) -> JoinHandle<()> {
        let Self { till, payee, state, refund_unshown_after_ms } = self;
        let mut tasks = Vec::new();
        let heard = heard(gate.metrics());
        if let Some(refunds) = till.refunds() {
            let (refunds, heard) = (Arc::clone(refunds), Arc::clone(&heard));
            tasks.push(tokio::spawn(refund_behind(refunds, heard, refund_unshown_after_ms, stopped.clone())));
        }
        let mut follower = None;
        if let Some(payee) = &payee {
            let following = Arc::clone(&payee.follower);
            follower = Some(Arc::clone(&payee.follower));
            let stopped = stopped.clone();
            tasks.push(tokio::spawn(async move { following.run(stopped).await }));
        }
        #[cfg(unix)]
        match AdminSocket::bind(&state) {
            Ok(socket) => {
                let answering = Answering { gate: Arc::clone(gate), till, follower, address, started_at: now(), heard };
                tasks.push(tokio::spawn(socket.serve(Arc::new(answering), stopped.clone())));
            }
            // Readers are served all the same.
            Err(error) => {
                let path = crate::gate::ops::socket::path(&state);
                tracing::error!(path = %path.display(), %error, "no admin socket: balances cannot be seen while the gate runs");
            }
        }
        #[cfg(not(unix))]
        drop((till, follower, address, heard, state));
        let client = payee.as_ref().map(|payee| payee.client.clone());
        let issued = payee.map(|payee| payee.issued);
        tasks.push(tokio::spawn(write_behind(Arc::clone(gate), issued, client.clone(), certificates, stopped)));
        tokio::spawn(async move {
            for task in tasks {
                let _ = task.await;
            }
            if let Some(client) = client {
                client.shut_down().await;
            }
        })
    }
}

/// Counts refunds, and says those that came by themselves.
fn heard(metrics: &Arc<Metrics>) -> Heard {
    let metrics = Arc::clone(metrics);
    Arc::new(move |done| {
        metrics.refunded(done);
        let (payment, amount, why) = (&done.payment, done.amount.unwrap_or_default(), done.why.as_deref());
        match done.outcome {
            RefundOutcome::Refunded => tracing::info!(%payment, %amount, why, "refunded"),
            outcome => tracing::debug!(%payment, outcome = outcome.as_str(), why, "not refunded"),
        }
    })
}

async fn refund_behind(
    refunds: Arc<Refunds>,
    heard: Heard,
    unshown_after_ms: Option<u64>,
    mut stopped: watch::Receiver<bool>,
) {
    let work = async {
        loop {
            refunds.resume(&heard).await;
            if let Some(after_ms) = unshown_after_ms {
                refunds.refund_unshown(now().minus_ms(after_ms), &heard).await;
            }
            tokio::time::sleep(REFUNDS_EVERY).await;
        }
    };
    // Given up in the middle, a refund is finished at the next start.
    tokio::select! {
        () = work => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
}

/// Learns what the payee's client learnt, and writes what is known.
async fn write_behind(
    gate: Arc<Gate>,
    issued: Option<Arc<Issued>>,
    client: Option<Client>,
    mut certificates: KnownCertificates,
    mut stopped: watch::Receiver<bool>,
) {
    let mut failing = false;
    loop {
        let last = tokio::select! {
            () = tokio::time::sleep(WRITE_EVERY) => false,
            _ = stopped.wait_for(|stopped| *stopped) => true,
        };
        let (gate, issued) = (Arc::clone(&gate), issued.clone());
        let learnt = client.as_ref().map(|client| client.proofs().certificates()).unwrap_or_default();
        let written = tokio::task::spawn_blocking(move || {
            let trust = &gate.desk().site().trust;
            for certificate in &learnt {
                learn(trust, certificate);
            }
            let kept = certificates.keep(trust).map_err(|error| error.to_string());
            let flushed = issued.map_or(Ok(()), |issued| issued.flush()).map_err(|error| error.to_string());
            (certificates, kept.and(flushed))
        });
        let Ok((back, result)) = written.await else { return };
        certificates = back;
        match result {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                tracing::error!(%error, "certificates or issued demands are not written to the state");
                failing = true;
            }
            Err(_) => {}
        }
        if last {
            return;
        }
    }
}

/// Answers on the admin socket.
#[cfg(unix)]
struct Answering {
    gate: Arc<Gate>,
    till: Till,
    follower: Option<Arc<Follower>>,
    address: SocketAddr,
    started_at: Time,
    heard: Heard,
}

#[cfg(unix)]
impl Answers for Answering {
    fn status(&self) -> Status {
        Status {
            running: true,
            pid: Some(std::process::id()),
            address: Some(self.address.to_string()),
            started_at_ms: Some(self.started_at.0),
            in_flight: Some(self.gate.metrics().in_flight()),
            prices_read_at_ms: Some(self.gate.table().read_at().0),
            certificate: certificate_at(&self.gate.desk().site().trust, now()),
            credits: self.follower.as_ref().map(|follower| follower.status()),
            ..self.till.status()
        }
    }

    fn balances(&self, asked: &BalancesAsked) -> Result<BalancePage, BadQuestion> {
        self.till.page(asked)
    }

    async fn refund(&self, asked: RefundAsked) -> Refunded {
        let done = self.till.refund(asked).await;
        (self.heard)(&done);
        done
    }

    fn reload(&self) -> ReloadReport {
        match self.gate.table().reload() {
            Ok(done) => ReloadReport { prices: done.prices, needs_restart: done.needs_restart, error: None },
            Err(errors) => ReloadReport { prices: false, needs_restart: false, error: Some(errors.to_string()) },
        }
    }
}
