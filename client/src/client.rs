//! A client of one hub: the connection that is made again when it breaks, and what everything else shares.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir_protocol::commit::{SignedCertificate, SignedCommit};
use weir_protocol::id::{AccountId, HubId, LaneId};
use weir_protocol::keys::SecretKey;
use weir_protocol::lane::payer::{CommitCheck, CommitFault};
use weir_protocol::wire::{Cursor, KeyScope, Reply, Request};

use crate::connection::{Connection, lock};
use crate::error::{Error, HubEvidence, InfraError, MisuseError};
use crate::home::Home;
use crate::lane::{Lane, LaneOptions};
use crate::proofs::SharedProofs;

/// How often the newest commit is written, when there is a newer one.
const KEEP_NEWEST: Duration = Duration::from_secs(10);
/// First wait before something is tried again; it doubles.
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// Longest such wait.
pub(crate) const BACKOFF_MOST: Duration = Duration::from_secs(5);

/// A client of the hub that its home names. Cheap to clone; all clones share one connection.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
    /// Kept running as long as a client lives. Not in `inner`, which the lanes' tasks hold.
    lanes: Arc<Mutex<HashMap<LaneId, Lane>>>,
    /// Writes the newest commit now and then, until the client is shut down.
    keeper: Arc<Mutex<Option<JoinHandle<()>>>>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) home: Home,
    pub(crate) proofs: SharedProofs,
    pub(crate) account: SecretKey,
    current: tokio::sync::Mutex<Option<Arc<Connection>>>,
    /// The newest commit that an earlier process saw.
    held: Option<SignedCommit>,
    /// Acts of this client's keys go one after the other: each carries a greater number.
    pub(crate) acting: tokio::sync::Mutex<()>,
    shut: watch::Sender<bool>,
}

impl Client {
    /// A client for this home. Nothing is sent before it is asked for something. Needs a tokio runtime.
    pub fn start(home: Home) -> Result<Self, Error> {
        let account = home.account_key()?;
        let proofs = SharedProofs::new(home.hub().hub, &home.certificates()?);
        let held = home.newest()?;
        let inner = Arc::new(Inner {
            home,
            proofs,
            account,
            current: tokio::sync::Mutex::new(None),
            held,
            acting: tokio::sync::Mutex::new(()),
            shut: watch::Sender::new(false),
        });
        let keeper = inner.home.is_held().then(|| tokio::spawn(keep_newest(Arc::downgrade(&inner))));
        Ok(Self { inner, lanes: Arc::default(), keeper: Arc::new(Mutex::new(keeper)) })
    }

    /// What it keeps on disk.
    pub fn home(&self) -> &Home {
        &self.inner.home
    }

    /// The hub.
    pub fn hub(&self) -> HubId {
        self.inner.home.hub().hub
    }

    /// The account.
    pub fn account(&self) -> AccountId {
        self.inner.home.account()
    }

    /// Checked certificates and commits.
    pub fn proofs(&self) -> &SharedProofs {
        &self.inner.proofs
    }

    /// The connection; makes one when there is none. Fails at once when the hub cannot be reached.
    pub async fn connect(&self) -> Result<Arc<Connection>, Error> {
        self.inner.connection().await
    }

    /// A lane of this home, ready to pay. The same lane asked for again is the same one.
    pub fn lane(&self, lane: LaneId) -> Result<Lane, Error> {
        self.lane_with(lane, LaneOptions::default())
    }

    /// The same with options; those of the first call stay as long as the client lives.
    pub fn lane_with(&self, lane: LaneId, options: LaneOptions) -> Result<Lane, Error> {
        if *self.inner.shut.borrow() {
            return Err(MisuseError::ShutDown.into());
        }
        self.inner.home.writable()?;
        let mut lanes = lock(&self.lanes);
        if let Some(running) = lanes.get(&lane) {
            return Ok(running.clone());
        }
        let started = Lane::start(Arc::clone(&self.inner), lane, options)?;
        lanes.insert(lane, started.clone());
        Ok(started)
    }

    /// Stops all lanes, keeps what is to be kept, and ends the connection. Whoever waits for a payment hears that its
    /// outcome is unknown; nothing is lost by that. The home is free once the last handle of the client and its lanes is
    /// dropped.
    pub async fn shut_down(&self) {
        self.inner.shut.send_replace(true);
        let running = std::mem::take(&mut *lock(&self.lanes));
        for lane in running.into_values() {
            lane.stopped().await;
        }
        let keeper = lock(&self.keeper).take();
        if let Some(keeper) = keeper {
            keeper.abort();
            // It was aborted, or had panicked: either way it is gone.
            let _ = keeper.await;
        }
        self.inner.keep_newest();
        let current = self.inner.current.lock().await.take();
        if let Some(connection) = current {
            connection.finish().await;
        }
    }
}

impl Inner {
    pub(crate) fn shut(&self) -> watch::Receiver<bool> {
        self.shut.subscribe()
    }

    pub(crate) async fn connection(&self) -> Result<Arc<Connection>, Error> {
        let mut current = self.current.lock().await;
        if let Some(connection) = current.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(Arc::clone(connection));
        }
        if *self.shut.borrow() {
            return Err(MisuseError::ShutDown.into());
        }
        let connection = Arc::new(Connection::connect(self.home.hub()).await?);
        let welcome = *connection.welcome();
        self.admit(&welcome.certificate)?;
        self.check_not_rolled_back(welcome.newest)?;
        *current = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// The newest commit that the hub signed for this client, in this process or an earlier one.
    fn newest(&self) -> Option<SignedCommit> {
        let seen = self.proofs.newest();
        self.held.into_iter().chain(seen).max_by_key(|commit| commit.commit.number)
    }

    fn check_not_rolled_back(&self, newest: Cursor) -> Result<(), Error> {
        match self.newest() {
            Some(held) if newest.number < held.commit.number => {
                let what = format!(
                    "its newest commit is {}, and it signed {} before: it runs on an old copy of its data",
                    newest.number, held.commit.number
                );
                Err(self.evidence(&HubEvidence::RolledBack { held, newest }, what))
            }
            _ => Ok(()),
        }
    }

    /// Learns a certificate, and keeps it when it is new.
    pub(crate) fn admit(&self, certificate: &SignedCertificate) -> Result<(), Error> {
        let known = self.proofs.certificates();
        if known.contains(certificate) {
            return Ok(());
        }
        let address = self.home.hub().to_string();
        self.proofs
            .clone()
            .admit(certificate)
            .map_err(|cause| Error::Infra(InfraError::WrongHub { address, cause }))?;
        if self.home.is_held() {
            self.home.keep_certificates(&self.proofs.certificates())?;
        }
        Ok(())
    }

    /// Makes sure that the certificate of a commit is known, asking the hub when it is not, and checks the commit.
    pub(crate) async fn check_commit(&self, connection: &Connection, commit: &SignedCommit) -> Result<(), Error> {
        self.fetch_certificate(connection, commit).await;
        self.proofs.clone().check(commit).map_err(|fault| {
            let what = fault.to_string();
            self.evidence(&HubEvidence::Commit { commit: *commit, fault }, what)
        })
    }

    /// Asks for the certificate of a commit that does not check with those that are known. What comes of it shows when the
    /// commit is checked again.
    pub(crate) async fn fetch_certificate(&self, connection: &Connection, commit: &SignedCommit) {
        if !matches!(self.proofs.clone().check(commit), Err(CommitFault::NoCertificate | CommitFault::Proof(_))) {
            return;
        }
        let request = Request::Commit { number: commit.commit.number };
        if let Ok(Ok(Reply::Commit(info))) = connection.request(request).await {
            for certificate in [&info.certificate, &info.newest_certificate] {
                if let Err(error) = self.admit(certificate) {
                    tracing::warn!(%error, "a certificate that the hub sent is not used");
                }
            }
        }
    }

    /// Keeps a contradiction; the error names the file.
    pub(crate) fn evidence(&self, evidence: &HubEvidence, what: String) -> Error {
        let file = match self.home.keep_evidence(evidence) {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::error!(%error, "evidence against the hub could not be kept");
                None
            }
        };
        Error::Evidence { what, file }
    }

    /// Proves the account's key on this connection.
    pub(crate) async fn prove_account(&self, connection: &Connection) -> Result<(), Error> {
        connection.prove(KeyScope::Account(self.home.account()), &self.account).await
    }

    fn keep_newest(&self) {
        let Some(newest) = self.newest().filter(|_| self.home.is_held()) else { return };
        if let Err(error) = self.home.keep_newest(&newest) {
            tracing::warn!(%error, "the newest commit could not be kept");
        }
    }
}

async fn keep_newest(client: Weak<Inner>) {
    let mut kept = None;
    loop {
        tokio::time::sleep(KEEP_NEWEST).await;
        let Some(client) = client.upgrade() else { return };
        let newest = client.newest().map(|commit| commit.commit.number);
        if newest != kept {
            client.keep_newest();
            kept = newest;
        }
    }
}

/// Waits that double, up to a most.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self { next: BACKOFF_FIRST }
    }

    /// The next wait: between half and all of a doubling time, so that clients do not come back together.
    pub(crate) fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(BACKOFF_MOST);
        let mut random = [0_u8; 1];
        // Without randomness clients come back together: slower, not wrong.
        let _ = getrandom::fill(&mut random);
        let [random] = random;
        whole / 2 + whole * u32::from(random) / 510
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_most_and_never_waits_less_than_half() {
        let mut backoff = Backoff::new();
        let mut whole = BACKOFF_FIRST;
        for _ in 0..20 {
            let wait = backoff.wait();
            assert!(wait >= whole / 2 && wait <= whole, "{wait:?} of {whole:?}");
            whole = (whole * 2).min(BACKOFF_MOST);
        }
        assert_eq!(whole, BACKOFF_MOST);
    }
}
