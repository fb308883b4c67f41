//! Hearing of the payee's credits while the gate runs: each is noted in the store before the cursor moves on. Nothing that
//! serves requests waits for any of it.
//!
//! The gate keeps a cursor of its own, `credits.json` in its state: `weir listen` on the same home moves on by itself. A gate
//! that has none yet begins with the hub's newest commit: what was paid before it existed is not its business.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use weir_protocol::wire::Cursor;

use super::issued::Issued;
use super::shapes::CreditsStatus;
use crate::client::Client;
use crate::credit::{CreditEvent, Credited, Hearing};
use crate::error::{Error, HomeError, InfraError};
use crate::gate::balance::{Balances, KeepError, Payment};
use crate::home::files;

/// How long the first start of a gate waits for the hub.
pub const FIRST_PATIENCE: Duration = Duration::from_secs(5);
/// Most events that are taken at once.
const EVENTS: usize = 256;
/// How often the cursor is written at most: what was told after it is told again, and known.
const ACKNOWLEDGE_EVERY: Duration = Duration::from_secs(1);
/// Between tries, when the hub refuses or proves nothing, or the store is full.
const PAUSE: Duration = Duration::from_secs(10);
/// Of so many parts of the store, one is kept free of credits whose receipt was never shown: readers must find room.
const FREE_PART: usize = 4;

/// Follows the credits of one payee.
#[derive(Debug)]
pub struct Follower {
    client: Client,
    balances: Balances,
    issued: Arc<Issued>,
    path: PathBuf,
    status: Mutex<CreditsStatus>,
}

/// Why an attempt to follow ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Hub(#[from] Error),
    #[error(transparent)]
    File(#[from] HomeError),
    #[error(transparent)]
    Store(#[from] KeepError),
}

impl Follower {
    /// With the cursor in this folder.
    pub fn new(client: Client, balances: Balances, issued: Arc<Issued>, state: &std::path::Path) -> Self {
        let path = state.join("credits.json");
        Self { client, balances, issued, path, status: Mutex::default() }
    }

    /// How far it is.
    pub fn status(&self) -> CreditsStatus {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, CreditsStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At the first start of a gate, finds out where it begins, so that nothing is missed that is paid for its first demands.
    /// Waits for the hub as long as [`FIRST_PATIENCE`]; later starts do not wait.
    pub async fn begin(&self) -> Result<(), Error> {
        if files::read_json::<Cursor>(&self.path)?.is_some() {
            return Ok(());
        }
        let newest = tokio::time::timeout(FIRST_PATIENCE, self.client.connect()).await;
        match newest {
            Ok(Ok(connection)) => Ok(files::write_json(&self.path, &connection.welcome().newest)?),
            // Said by what follows.
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }

    /// Follows until `stopped` is true. What goes wrong is logged once, and tried again.
    pub async fn run(&self, mut stopped: watch::Receiver<bool>) {
        let mut said: Option<String> = None;
        loop {
            let ended = tokio::select! {
                ended = self.follow(&mut said) => ended,
                _ = stopped.wait_for(|stopped| *stopped) => return,
            };
            let Err(error) = ended else { return };
            let why = error.to_string();
            {
                let mut status = self.lock();
                status.connected = false;
                status.why = Some(why.clone());
            }
            if said.as_ref() != Some(&why) {
                tracing::error!("the payee's credits are not followed: {why}");
                said = Some(why);
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
        }
    }

    async fn follow(&self, said: &mut Option<String>) -> Result<(), Ended> {
        let start = if let Some(cursor) = files::read_json::<Cursor>(&self.path)? {
            cursor
        } else {
            let newest = self.newest(said).await?;
            self.acknowledge(newest).await?;
            newest
        };
        self.at(start);
        let mut credits = self.client.credits_after(start);
        let mut hearing = credits.hearing();
        let mut events = Vec::new();
        let mut written = (Instant::now(), start);
        loop {
            let late = written.1 != credits.through();
            tokio::select! {
                heard = credits.next_many(&mut events, EVENTS) => {
                    let kept = self.keep(&events).await;
                    events.clear();
                    kept?;
                    heard?;
                }
                _ = hearing.changed() => {
                    let hearing = hearing.borrow_and_update().clone();
                    self.heard(&hearing, said);
                    continue;
                }
                () = tokio::time::sleep_until(written.0 + ACKNOWLEDGE_EVERY), if late => {}
            }
            let through = credits.through();
            // Everything that was told is noted when nothing of it is in hand.
            if events.is_empty() && through != written.1 && written.0.elapsed() >= ACKNOWLEDGE_EVERY {
                self.acknowledge(through).await?;
                written = (Instant::now(), through);
                self.at(through);
            }
        }
    }

    /// The hub's newest commit, as soon as the hub can be reached.
    async fn newest(&self, said: &mut Option<String>) -> Result<Cursor, Error> {
        loop {
            match self.client.connect().await {
                Ok(connection) => return Ok(connection.welcome().newest),
                Err(error @ Error::Infra(_)) => {
                    self.heard(&Hearing::Lost(error.to_string()), said);
                    tokio::time::sleep(crate::client::BACKOFF_MOST).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes the cursor, apart from what serves requests.
    async fn acknowledge(&self, cursor: Cursor) -> Result<(), Ended> {
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || files::write_json(&path, &cursor)).await;
        match written {
            Ok(written) => Ok(written?),
            // The runtime ends.
            Err(_) => Err(Error::Infra(InfraError::Lost).into()),
        }
    }

    fn at(&self, cursor: Cursor) {
        let mut status = self.lock();
        status.chain = Some(cursor.chain);
        status.number = Some(cursor.number);
    }

    /// Says once that the hub went or came back.
    fn heard(&self, hearing: &Hearing, said: &mut Option<String>) {
        let mut status = self.lock();
        status.connected = *hearing == Hearing::Connected;
        match hearing {
            Hearing::Connecting => {}
            Hearing::Connected => {
                status.why = None;
                if said.take().is_some() {
                    tracing::info!("the hub is heard again");
                }
            }
            Hearing::Lost(why) => {
                status.why = Some(why.clone());
                if said.is_none() {
                    tracing::warn!("the hub is not heard: {why}; what was paid before goes on being served");
                    *said = Some(why.clone());
                }
            }
        }
    }

    /// Notes what was told. Returns when it is durable.
    async fn keep(&self, events: &[CreditEvent]) -> Result<(), KeepError> {
        for event in events {
            let CreditEvent::Credited(group) = event else { continue };
            let limits = self.balances.limits();
            let (mut ours, mut foreign) = (Vec::new(), 0);
            for credited in group.payments() {
                // What was shown is known by more than its reference.
                let is_ours = self.issued.contains(&credited.reference);
                if is_ours || self.balances.balance(credited.payment_id).is_some() {
                    ours.push(payment(&credited));
                } else {
                    foreign += 1;
                }
            }
            self.lock().foreign += foreign;
            if self.balances.load().unshown.saturating_add(ours.len())
                > limits.most_balances - limits.most_balances / FREE_PART
            {
                tracing::error!(
                    payments = ours.len(),
                    "too many payments were never shown: more are left out, and not refunded by themselves"
                );
                continue;
            }
            match self.balances.note(&ours).await {
                Ok(noted) => self.lock().noted += noted.new as u64,
                Err(KeepError::Differs(_)) => self.keep_singly(&ours).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One by one, around one that does not fit what a receipt proved.
    async fn keep_singly(&self, payments: &[Payment]) -> Result<(), KeepError> {
        for payment in payments {
            match self.balances.note(std::slice::from_ref(payment)).await {
                Ok(noted) => self.lock().noted += noted.new as u64,
                Err(error @ KeepError::Differs(_)) => {
                    tracing::error!(%error, "the hub tells of a payment otherwise than its receipt did: the receipt counts");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn payment(credited: &Credited) -> Payment {
    Payment {
        reference: credited.reference,
        amount: credited.amount,
        currency: credited.currency,
        paid_at: credited.time,
        place: credited.place,
    }
}
