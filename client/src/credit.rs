//! A payee's credits: every payment once, each proven by its commit, resumable across processes.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::commit::{SignedCertificate, SignedCommit};
use weir_protocol::id::{AccountId, PaymentId, Reference};
use weir_protocol::reject::Reaction;
use weir_protocol::wire::{CreditGroup, CreditMessage, Cursor, MAX_MESSAGE, Opening, Subscribe, encode};

use crate::acts::RefundPlace;
use crate::client::{Backoff, Client};
use crate::connection::Connection;
use crate::error::{Error, HubEvidence, InfraError};
use crate::framing::{Reader, now_or_never};

/// What a payee hears.
#[derive(Debug, Clone)]
pub enum CreditEvent {
    /// Payments to this account.
    Credited(Arc<CreditedGroup>),
    /// Everything up to here was told: acknowledge it when it is dealt with.
    Through(Cursor),
}

/// The account's payments of one group, proven.
#[derive(Debug, Clone)]
pub struct CreditedGroup {
    /// The account.
    pub payee: AccountId,
    /// The commit.
    pub commit: SignedCommit,
    /// Which key signed it.
    pub certificate: SignedCertificate,
    /// The payments and what proves them.
    pub group: CreditGroup,
}

/// One payment to the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credited {
    /// The payment.
    pub payment_id: PaymentId,
    /// How much.
    pub amount: Amount,
    /// The currency.
    pub currency: Currency,
    /// What for.
    pub reference: Reference,
    /// The commit's time.
    pub time: Time,
    /// What a refund names.
    pub place: RefundPlace,
}

impl CreditedGroup {
    /// The payments, in order.
    pub fn payments(&self) -> impl Iterator<Item = Credited> + '_ {
        let commit = &self.commit.commit;
        self.group.credits.iter().map(|credit| Credited {
            payment_id: credit.payment_id,
            amount: credit.amount,
            currency: self.group.currency,
            reference: credit.reference,
            time: commit.time,
            place: RefundPlace {
                chain: commit.chain,
                commit: commit.number,
                group: self.group.path.index,
                leaf: credit.leaf,
                payment_id: credit.payment_id,
            },
        })
    }
}

/// A subscription. It connects again by itself and tells nothing twice while it lives.
///
/// Across processes each payment is told at least once: what was told after the cursor that was last acknowledged is told
/// again, under the same payment ids.
#[derive(Debug)]
pub struct Credits {
    client: Client,
    /// The last place up to which everything was told.
    through: Cursor,
    /// The groups told after it: commit number and index in the commit.
    told: BTreeSet<(u64, u32)>,
    stream: Option<Stream>,
    /// A message that is being checked: kept when the caller goes away meanwhile.
    pending: Option<CreditMessage>,
    backoff: Backoff,
    hearing: watch::Sender<Hearing>,
}

/// Whether a subscription hears its hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hearing {
    /// Not yet.
    Connecting,
    /// The hub has answered on this stream.
    Connected,
    /// It broke, and is made again.
    Lost(
        /// Why.
        String,
    ),
}

#[derive(Debug)]
struct Stream {
    connection: Arc<Connection>,
    reader: Reader,
    /// Our side stays open as long as we listen.
    _send: quinn::SendStream,
    /// The commit that the next groups belong to, checked.
    commit: Option<(SignedCommit, SignedCertificate)>,
}

impl Client {
    /// This account's credits from where they were last acknowledged.
    pub fn credits(&self) -> Result<Credits, Error> {
        Ok(self.credits_after(self.home().credit_cursor()?))
    }

    /// This account's credits of the commits after one; [`Cursor::default`]: from the first that the hub keeps.
    pub fn credits_after(&self, after: Cursor) -> Credits {
        Credits {
            client: self.clone(),
            through: after,
            told: BTreeSet::new(),
            stream: None,
            pending: None,
            backoff: Backoff::new(),
            hearing: watch::Sender::new(Hearing::Connecting),
        }
    }
}

impl Credits {
    /// The next event. Waits for ever when nothing comes, and through broken connections; fails when the hub refuses the
    /// subscription, is not the hub, or proves nothing. Cancel-safe.
    pub async fn next(&mut self) -> Result<CreditEvent, Error> {
        loop {
            match self.step().await {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(error) => {
                    self.after(error)?;
                    tokio::time::sleep(self.backoff.wait()).await;
                }
            }
        }
    }

    /// Waits for an event as [`Credits::next`] does, and appends it with those that have come and need no more waiting, up to
    /// `most`. For high rates: one wait for many groups. What was appended before an error counts. Cancel-safe.
    pub async fn next_many(&mut self, events: &mut Vec<CreditEvent>, most: usize) -> Result<(), Error> {
        events.push(self.next().await?);
        let mut more = most.saturating_sub(1);
        while more > 0 && self.stream.is_some() {
            match now_or_never(self.step()).await {
                Some(Ok(Some(event))) => {
                    events.push(event);
                    more -= 1;
                }
                Some(Ok(None)) => {}
                Some(Err(error)) => return self.after(error),
                None => break,
            }
        }
        Ok(())
    }

    /// What follows from a failure: `Ok` when the stream is to be made again.
    fn after(&mut self, error: Error) -> Result<(), Error> {
        self.stream = None;
        self.pending = None;
        let again = match &error {
            Error::Infra(InfraError::WrongHub { .. } | InfraError::Decode(_)) => false,
            Error::Infra(_) => true,
            Error::Refused(reject) => reject.reaction() == Reaction::Retry,
            _ => false,
        };
        if !again {
            return Err(error);
        }
        tracing::debug!(%error, "the credit stream broke and is made again");
        self.hear(Hearing::Lost(error.to_string()));
        Ok(())
    }

    /// Whether the hub is heard, for as long as this subscription lives.
    pub fn hearing(&self) -> watch::Receiver<Hearing> {
        self.hearing.subscribe()
    }

    fn hear(&self, hearing: Hearing) {
        self.hearing.send_if_modified(|last| {
            let changed = *last != hearing;
            if changed {
                *last = hearing;
            }
            changed
        });
    }

    /// Everything up to this cursor is dealt with: a later process goes on from here. Durable when it returns.
    pub fn acknowledge(&self, cursor: Cursor) -> Result<(), Error> {
        Ok(self.client.home().keep_credit_cursor(cursor)?)
    }

    /// The last place up to which everything was told.
    pub const fn through(&self) -> Cursor {
        self.through
    }

    /// Reads one message, unless one is kept, and checks it.
    async fn step(&mut self) -> Result<Option<CreditEvent>, Error> {
        if self.stream.is_none() {
            self.stream = Some(self.subscribe().await?);
        }
        let Some(stream) = &mut self.stream else { return Err(InfraError::Lost.into()) };
        while self.pending.is_none() {
            self.pending = stream.reader.next()?;
            if self.pending.is_none() {
                stream.reader.more().await?;
            }
        }
        if !matches!(self.pending, Some(CreditMessage::Refused(_))) && *self.hearing.borrow() != Hearing::Connected {
            self.hear(Hearing::Connected);
        }
        let Some(stream) = &mut self.stream else { return Err(InfraError::Lost.into()) };
        if let Some(CreditMessage::Commit { commit, certificate }) = self.pending {
            self.client.inner.admit(&certificate)?;
            self.client.inner.check_commit(&stream.connection, &commit).await?;
            stream.commit = Some((commit, certificate));
        }
        match self.pending.take() {
            Some(CreditMessage::Group(group)) => self.take_group(group),
            Some(CreditMessage::Through(cursor)) => {
                self.backoff = Backoff::new();
                if cursor.number <= self.through.number {
                    return Ok(None);
                }
                self.through = cursor;
                self.told.retain(|(number, _)| *number > cursor.number);
                Ok(Some(CreditEvent::Through(cursor)))
            }
            Some(CreditMessage::Refused(reject)) => Err(Error::Refused(reject)),
            Some(CreditMessage::Commit { .. }) | None => Ok(None),
        }
    }

    async fn subscribe(&self) -> Result<Stream, Error> {
        let connection = self.client.connect().await?;
        self.client.inner.prove_account(&connection).await?;
        let (mut send, recv) = connection.open_stream().await?;
        let opening = Opening::Credit(Subscribe { account: self.client.account(), after: self.through });
        send.write_all(&encode(&opening)).await.map_err(|_| InfraError::Lost)?;
        Ok(Stream { connection, reader: Reader::new(recv, MAX_MESSAGE), _send: send, commit: None })
    }

    fn take_group(&mut self, group: CreditGroup) -> Result<Option<CreditEvent>, Error> {
        let commit = self.stream.as_ref().and_then(|stream| stream.commit);
        let payee = self.client.account();
        let fault = match &commit {
            Some((commit, _)) => group.check(&payee, commit).map_err(|fault| fault.to_string()),
            None => Err("a credit came before its commit".to_owned()),
        };
        let (Ok(()), Some((commit, certificate))) = (&fault, commit) else {
            let fault = fault.err().unwrap_or_default();
            let message = Box::new(CreditMessage::Group(group));
            let commit = commit.map(|(commit, _)| commit);
            let what = fault.clone();
            return Err(self.client.inner.evidence(&HubEvidence::Credit { commit, message, fault }, what));
        };
        let number = commit.commit.number;
        if number <= self.through.number || !self.told.insert((number, group.path.index)) {
            return Ok(None);
        }
        Ok(Some(CreditEvent::Credited(Arc::new(CreditedGroup { payee, commit, certificate, group }))))
    }
}
