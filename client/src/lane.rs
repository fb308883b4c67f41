//! Paying: a lane as callers see it. One task per lane drives the payer's machine; callers talk to it through a queue.

mod driver;
mod waiters;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use weir_protocol::commit::SignedCommit;
use weir_protocol::id::{LaneId, PaymentId, Reference};
use weir_protocol::lane::payer::{
    CommitCheck as _, Contradiction, Evidence, Finality, Held, Limits, Order, PaidGroup, ReceiptError, Said,
};
use weir_protocol::payment::{Head, Payment};
use weir_protocol::receipt::ReceiptFile;
use weir_protocol::reject::Reject;

use crate::client::Inner;
use crate::error::{Error, HubEvidence, LaneStopped, MisuseError, PayError};
use driver::{Command, Driver, Word};

/// Orders between callers and the lane's task; more wait.
const QUEUE: usize = 4096;
/// Orders of one [`PaySink`] whose outcomes were not read.
const MANY: usize = 64 * 1024;
/// Orders of a [`PaySink`] that go to the lane's task at once.
const BATCH: usize = 1024;

/// Habits of a lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneOptions {
    /// Bounds of what is in flight; `unlinkable` keeps payments to different payees apart.
    pub limits: Limits,
}

/// A lane that pays. Cheap to clone. It attaches when the first order comes; its task ends with the last clone of it
/// and of its client.
#[derive(Debug, Clone)]
pub struct Lane {
    id: LaneId,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<LaneStatus>,
    client: Arc<Inner>,
}

/// How a lane stands.
#[derive(Debug, Clone)]
pub struct LaneStatus {
    /// Attached, and everything older was read.
    pub open: bool,
    /// The channel is closed.
    pub closed: bool,
    /// Every payment up to this head is answered and kept.
    pub answered: Head,
    /// Orders that wait for a frame.
    pub queued: usize,
    /// Payments signed and not answered.
    pub in_flight: usize,
    /// Payments that are kept.
    pub kept: u64,
    /// Why it does nothing more by itself.
    pub stopped: Option<LaneStopped>,
    /// The last failure to connect, while there is no connection.
    pub failure: Option<Error>,
    /// Its task has ended.
    pub(crate) ended: bool,
}

/// What became of an order.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It is paid, durably, and this proves it.
    Paid(Paid),
    /// It is refused for good and can never be taken. The reference is free again.
    Refused(Refused),
    /// Nobody can say now. Ask again with the same order: it is never paid twice.
    Unknown(Retry),
}

/// A payment that was made.
#[derive(Debug, Clone)]
pub struct Paid {
    group: Arc<PaidGroup>,
    index: usize,
    client: Arc<Inner>,
}

/// A final refusal.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Why.
    pub reject: Reject,
    /// The void or close that makes it final; none when it was never signed.
    pub proof: Option<Arc<Finality>>,
}

/// An order to ask again with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The lane that it was given to: no other lane knows of it.
    pub lane: LaneId,
    /// The order.
    pub order: Order,
}

impl Paid {
    pub(crate) const fn new(group: Arc<PaidGroup>, index: usize, client: Arc<Inner>) -> Self {
        Self { group, index, client }
    }

    /// The group that it is in.
    pub const fn group(&self) -> &Arc<PaidGroup> {
        &self.group
    }

    /// Its place in the group.
    pub const fn index(&self) -> usize {
        self.index
    }

    /// Its sequence on the lane.
    pub fn sequence(&self) -> u64 {
        self.group.payment(self.index).map_or(0, |(sequence, _)| sequence)
    }

    /// Payee, amount and reference.
    pub fn payment(&self) -> Option<Payment> {
        self.group.payment(self.index).map(|(_, payment)| payment)
    }

    /// Its public id.
    pub fn payment_id(&self) -> Option<PaymentId> {
        self.group.payment_id(self.index)
    }

    /// The commit that holds it.
    pub fn commit(&self) -> &SignedCommit {
        &self.group.answer.commit
    }

    /// The receipt, self-contained. The first one of a group computes all its leaves; leaves that the hub did not sign are
    /// evidence, which is kept.
    pub fn receipt(&self) -> Result<ReceiptFile, Error> {
        receipt(&self.client, &self.group, self.index)
    }

    /// Writes the receipt to the home's `receipts` folder; the path is the answer.
    pub fn keep_receipt(&self) -> Result<PathBuf, Error> {
        Ok(self.client.home.keep_receipt(&self.receipt()?)?)
    }
}

fn receipt(client: &Inner, group: &Arc<PaidGroup>, index: usize) -> Result<ReceiptFile, Error> {
    let commit = &group.answer.commit;
    // Checked again, for a group from the log of an earlier process: a receipt with another certificate would be worthless.
    let certificate = match client.proofs.clone().check(commit) {
        Ok(()) => client.proofs.certificate_at(commit.commit.time),
        Err(_) => None,
    };
    let Some(certificate) = certificate else {
        return Err(MisuseError::NoCertificate(commit.commit.number).into());
    };
    match group.receipt_file(index, certificate) {
        Ok(receipt) => Ok(receipt),
        Err(fault @ ReceiptError::Index(_)) => Err(Error::Evidence { what: fault.to_string(), file: None }),
        Err(fault @ ReceiptError::Leaves) => {
            let record = client.home.lane(&group.lane)?;
            let evidence = Evidence {
                hub: group.hub,
                channel: record.grant.channel,
                lane: group.lane,
                key: record.grant.key,
                contradiction: Contradiction::Leaves,
                said: Said::Group(Box::new(PaidGroup::clone(group))),
                held: Held {
                    answered: group.head,
                    answer: Some(group.answer.clone()),
                    finality: None,
                    signed: vec![(group.head, group.signature)],
                    used: group.head.sequence,
                },
            };
            Err(client.evidence(&HubEvidence::Lane(Box::new(evidence)), fault.to_string()))
        }
    }
}

impl Lane {
    pub(crate) fn start(client: Arc<Inner>, id: LaneId, options: LaneOptions) -> Result<Self, Error> {
        let (commands, orders) = mpsc::channel(QUEUE);
        let (driver, status) = Driver::new(Arc::clone(&client), id, options, orders)?;
        tokio::spawn(driver.run());
        Ok(Self { id, commands, status, client })
    }

    /// Its id.
    pub const fn id(&self) -> LaneId {
        self.id
    }

    /// How it stands.
    pub fn status(&self) -> LaneStatus {
        self.status.borrow().clone()
    }

    /// Pays, and waits for the outcome as long as it takes. Any number of calls may run at once; they share signatures.
    ///
    /// The reference is the idempotency key: the same order again gets the outcome of the first, also in a later process.
    /// Dropping the future does not take the order back.
    pub async fn pay(&self, order: Order) -> Result<Outcome, PayError> {
        let (answer, answered) = oneshot::channel();
        if self.commands.send(Command::Pay(order, answer)).await.is_err() {
            return Err(PayError::Stopped(LaneStopped::ShutDown));
        }
        match answered.await {
            Ok(Word::Paid(group, index)) => Ok(Outcome::Paid(Paid::new(group, index, Arc::clone(&self.client)))),
            Ok(Word::Refused(refused)) => Ok(Outcome::Refused(refused)),
            Ok(Word::Failed(error)) => Err(error),
            // The task answers everybody before it ends; if it died, nobody knows.
            Ok(Word::Unknown) | Err(_) => Ok(Outcome::Unknown(Retry { lane: self.id, order })),
        }
    }

    /// The same, with patience: after so long the outcome is [`Outcome::Unknown`], and the order goes on.
    pub async fn pay_within(&self, order: Order, patience: Duration) -> Result<Outcome, PayError> {
        match tokio::time::timeout(patience, self.pay(order)).await {
            Ok(outcome) => outcome,
            Err(_) => Ok(Outcome::Unknown(Retry { lane: self.id, order })),
        }
    }

    /// Pays at high rates: orders in at one end, outcomes in batches out at the other, without a future per payment.
    pub fn pay_many(&self) -> (PaySink, PayOutcomes) {
        let (sender, outcomes) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(MANY));
        let sink = PaySink { lane: self.clone(), outcomes: sender, room: Arc::clone(&room) };
        (sink, PayOutcomes { lane: self.clone(), outcomes, room })
    }

    /// A payment that this lane made, by its reference; `None` when none is kept. Asks nobody.
    pub async fn find(&self, reference: Reference) -> Result<Option<Paid>, Error> {
        let (answer, answered) = oneshot::channel();
        let ended = || Error::Misuse(MisuseError::ShutDown);
        self.commands.send(Command::Find(reference, answer)).await.map_err(|_| ended())?;
        let found = answered.await.map_err(|_| ended())??;
        Ok(found.map(|(group, index)| Paid::new(group, index, Arc::clone(&self.client))))
    }

    /// Every kept group from number `from` on, oldest first, at most `count`; how many there are is in
    /// [`LaneStatus::kept`] as payments.
    pub async fn groups(&self, from: usize, count: usize) -> Result<Vec<PaidGroup>, Error> {
        let (answer, answered) = oneshot::channel();
        let ended = || Error::Misuse(MisuseError::ShutDown);
        self.commands.send(Command::Groups(from, count, answer)).await.map_err(|_| ended())?;
        Ok(answered.await.map_err(|_| ended())??)
    }

    /// Attaches now, reads what was missed, and waits until the lane is open, closed or stopped. The error is the failure
    /// to connect, when there is one; the lane goes on trying.
    pub async fn attach(&self) -> Result<LaneStatus, Error> {
        let (answer, answered) = oneshot::channel();
        let ended = || Error::Misuse(MisuseError::ShutDown);
        self.commands.send(Command::Attach(answer)).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    /// A person's word to a lane that stopped because another process or a newer copy of the home uses its key: it gives
    /// up, for ever, every sequence that the other can have used, and goes on. `false`: it had not stopped, or stopped
    /// over evidence.
    pub async fn recover(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        if self.commands.send(Command::Recover(answer)).await.is_err() {
            return false;
        }
        answered.await.unwrap_or(false)
    }

    /// Waits until the lane's task has ended, after the client was shut down.
    pub(crate) async fn stopped(mut self) {
        // The task may be gone already: then there is nothing to wait for.
        let _ = self.status.wait_for(|status| status.ended).await;
    }
}

/// Where orders of [`Lane::pay_many`] go in. Each has a tag of the caller's choice that comes back with its outcome.
#[derive(Debug, Clone)]
pub struct PaySink {
    lane: Lane,
    outcomes: mpsc::UnboundedSender<BatchOutcome>,
    room: Arc<Semaphore>,
}

/// Where outcomes of [`Lane::pay_many`] come out.
#[derive(Debug)]
pub struct PayOutcomes {
    lane: Lane,
    outcomes: mpsc::UnboundedReceiver<BatchOutcome>,
    room: Arc<Semaphore>,
}

/// What became of orders that were given to a [`PaySink`].
#[derive(Debug, Clone)]
pub enum BatchOutcome {
    /// Paid, in one group.
    Paid {
        /// The group.
        group: Arc<PaidGroup>,
        /// For each of the caller's payments: its place in the group, and its tag.
        payments: Vec<(usize, u64)>,
    },
    /// Refused for good.
    Refused {
        /// The order's tag.
        tag: u64,
        /// Why, and what makes it final.
        refused: Refused,
    },
    /// Nobody can say now: ask again with the same order.
    Unknown {
        /// The order's tag.
        tag: u64,
    },
    /// Not tried at all.
    Failed {
        /// The order's tag.
        tag: u64,
        /// Why.
        error: PayError,
    },
}

impl BatchOutcome {
    /// How many orders it answers.
    pub fn count(&self) -> usize {
        match self {
            Self::Paid { payments, .. } => payments.len(),
            Self::Refused { .. } | Self::Unknown { .. } | Self::Failed { .. } => 1,
        }
    }
}

impl PaySink {
    /// Gives an order to the lane. Waits while too many are on their way or unread.
    pub async fn send(&self, tag: u64, order: Order) -> Result<(), PayError> {
        self.send_all(vec![(tag, order)]).await
    }

    /// Gives orders to the lane: the more at a time the better, for they travel together. Waits while too many are on
    /// their way or unread.
    pub async fn send_all(&self, orders: Vec<(u64, Order)>) -> Result<(), PayError> {
        let ended = || PayError::Stopped(LaneStopped::ShutDown);
        let mut rest = orders.into_iter();
        while rest.len() > 0 {
            let batch: Vec<_> = rest.by_ref().take(BATCH).collect();
            let permits = u32::try_from(batch.len()).unwrap_or(u32::MAX);
            let room = self.room.acquire_many(permits).await.map_err(|_| ended())?;
            let command = Command::PayMany(self.outcomes.clone(), batch);
            self.lane.commands.send(command).await.map_err(|_| ended())?;
            room.forget(); // Given back when the outcomes are read.
        }
        Ok(())
    }
}

impl PayOutcomes {
    /// The next outcomes; `None` when the sink is gone and everything was answered. Cancel-safe.
    pub async fn next(&mut self) -> Option<BatchOutcome> {
        let outcome = self.outcomes.recv().await?;
        self.room.add_permits(outcome.count());
        Some(outcome)
    }

    /// The receipt of a payment in a group.
    pub fn receipt(&self, group: &Arc<PaidGroup>, index: usize) -> Result<ReceiptFile, Error> {
        receipt(&self.lane.client, group, index)
    }
}

impl Drop for PayOutcomes {
    fn drop(&mut self) {
        // A sink whose outcomes nobody reads would wait for ever.
        self.room.close();
    }
}
