//! What a client does besides paying: signed acts, each proven by the commit that holds it.
//!
//! No act works twice, so an act whose answer was lost is sent again byte for byte. What makes a new thing each time it is
//! signed (a channel, a lane) is kept in the home before it is sent, and finished before a new one is signed.

use tokio::time::Instant;
use weir_protocol::act::{
    Act, Amend, CloseRequest, Earnings, EarningsUse, Mandate, MandateScheme, Refund, Register, Revoke, SignedAct,
    Withdraw,
};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::channel::{ChannelTerms, LaneGrant, LaneMode, SCHEME_BIP340};
use weir_protocol::id::{AccountId, ChannelId, LaneId, PaymentId};
use weir_protocol::keys::{PublicKey, SecretKey};
use weir_protocol::reject::{Reaction, Reject};
use weir_protocol::wire::{Done, Reply, Request};

use crate::client::{Backoff, Client};
use crate::connection::now;
use crate::error::{Error, HomeError, HubEvidence, InfraError};
use crate::home::{ChannelRecord, LaneRecord, RecordState};
use crate::queries::PATIENCE;

/// A mandate as its owner signs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMandate {
    /// The rules.
    pub scheme: MandateScheme,
    /// What names it at the banks: 1 to 35 of their characters, never used before.
    pub mandate_id: String,
    /// The bank account that is debited.
    pub iban: String,
    /// When it is signed.
    pub signed_at: Time,
}

/// What a new channel should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// The currency.
    pub currency: Currency,
    /// How much is locked for spending.
    pub capacity: Amount,
    /// No payment is taken from this time on.
    pub expires_at: Time,
    /// Whether the channel may roll at a window's end.
    pub renew: bool,
}

/// A channel that the hub has opened.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The channel.
    pub channel: ChannelRecord,
    /// Its lane 0, ready to pay.
    pub lane: LaneRecord,
}

/// What a new lane should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// How it takes part in the capacity.
    pub mode: LaneMode,
    /// The only payee, or any.
    pub payee: Option<AccountId>,
    /// Most it may spend: in its life, or in a period.
    pub limit: Amount,
    /// Seconds of a period; 0 when the limit is for life.
    pub period: u32,
    /// No payment is taken from this time on.
    pub expires_at: Time,
    /// Somebody else's lane key, who then pays with it; none: a fresh key of this home.
    pub key: Option<PublicKey>,
}

/// Where a payment stands in the hub's commits: what a refund names. From a credit or a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefundPlace {
    /// The commit's chain.
    pub chain: u64,
    /// The commit's number.
    pub commit: u64,
    /// The group's index in the commit.
    pub group: u32,
    /// The payment's index in the group.
    pub leaf: u32,
    /// The payment.
    pub payment_id: PaymentId,
}

impl Client {
    /// Registers the account, or changes its name and bank account.
    pub async fn register(&self, name: &str, iban: &str) -> Result<Done, Error> {
        let _turn = self.inner.acting.lock().await;
        let number = self.next_account_number().await?;
        let register = Register { number, account: self.account(), name: name.to_owned(), iban: iban.to_owned() };
        self.act("register", self.by_account(Act::Register(register))).await
    }

    /// Opens a channel. When an earlier opening of the same kind was left without an answer, that one is finished instead:
    /// a call made again after a failure opens one channel.
    pub async fn open(&self, opening: Opening) -> Result<Opened, Error> {
        let _turn = self.inner.acting.lock().await;
        self.home().writable()?;
        for pending in self.home().channels()?.into_iter().filter(|record| record.state == RecordState::Pending) {
            let terms = &pending.terms;
            let same = Opening {
                currency: terms.currency,
                capacity: terms.capacity,
                expires_at: terms.expires_at,
                renew: terms.renew,
            } == opening;
            if let Some(opened) = self.finish_opening(pending).await?
                && same
            {
                return Ok(opened);
            }
        }
        let key = self.home().new_key()?;
        let terms = ChannelTerms {
            hub: self.hub(),
            account: self.account(),
            scheme: SCHEME_BIP340,
            key: key.public(),
            currency: opening.currency,
            capacity: opening.capacity,
            opened_at: now(),
            expires_at: opening.expires_at,
            renew: opening.renew,
            salt: random()?,
        };
        let record = ChannelRecord { terms, state: RecordState::Pending };
        self.home().keep_channel(&record)?;
        match self.act("open", self.by_account(Act::Open(terms))).await {
            Ok(_) => self.opened(terms),
            Err(error) => {
                if let Error::Refused(reject) = &error
                    && reject.reaction() != Reaction::Retry
                {
                    self.home().forget_channel(&terms.id())?;
                }
                Err(error)
            }
        }
    }

    /// Finds out what became of an opening without an answer, by sending it again.
    async fn finish_opening(&self, record: ChannelRecord) -> Result<Option<Opened>, Error> {
        let terms = record.terms;
        match self.act("open", self.by_account(Act::Open(terms))).await {
            Ok(_) => self.opened(terms).map(Some),
            Err(Error::Refused(reject)) if reject.reaction() == Reaction::Retry => Err(Error::Refused(reject)),
            Err(Error::Refused(_)) => match self.channel(terms.id()).await {
                Ok(_) => self.opened(terms).map(Some),
                Err(Error::Refused(Reject::UnknownChannel)) => {
                    self.home().forget_channel(&terms.id())?;
                    Ok(None)
                }
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    fn opened(&self, terms: ChannelTerms) -> Result<Opened, Error> {
        let channel = ChannelRecord { terms, state: RecordState::Done };
        let lane = LaneRecord { terms, grant: terms.lane_zero(), state: RecordState::Done };
        self.home().keep_lane(&lane)?;
        self.home().keep_channel(&channel)?;
        Ok(Opened { channel, lane })
    }

    /// Changes a channel: capacity and expiry are absolute and only grow.
    pub async fn amend(
        &self,
        channel: ChannelId,
        capacity: Amount,
        expires_at: Time,
        renew: bool,
    ) -> Result<Done, Error> {
        let _turn = self.inner.acting.lock().await;
        let number = self.next_account_number().await?;
        let amend = Amend { number, channel, capacity, expires_at, renew };
        self.act("amend", self.by_account(Act::Amend(amend))).await
    }

    /// Grants a lane of a channel of this home. A grant of the same kind that was left without an answer is finished
    /// instead.
    pub async fn grant(&self, channel: ChannelId, grant: Grant) -> Result<LaneRecord, Error> {
        let _turn = self.inner.acting.lock().await;
        self.home().writable()?;
        let terms = self.home().channel(&channel)?.terms;
        let channel_key = self.home().key(&terms.key)?;
        let pending = self.home().lanes()?.into_iter();
        for pending in pending.filter(|lane| lane.state == RecordState::Pending && lane.grant.channel == channel) {
            if let Some(done) = self.finish_grant(&pending, &channel_key).await?
                && self.is_same_grant(&done.grant, &grant)
            {
                return Ok(done);
            }
        }
        let lane = self.channel(channel).await?.lanes;
        let key = match grant.key {
            Some(key) => key,
            None => self.home().new_key()?.public(),
        };
        let Grant { mode, payee, limit, period, expires_at, .. } = grant;
        let signed = LaneGrant { channel, lane, scheme: SCHEME_BIP340, key, mode, payee, limit, period, expires_at };
        let record = LaneRecord { terms, grant: signed, state: RecordState::Pending };
        self.home().keep_lane(&record)?;
        match self.act("grant", Act::Grant(signed).sign(&self.hub(), &channel_key)).await {
            Ok(_) => self.granted(&record),
            Err(error) => {
                if let Error::Refused(reject) = &error
                    && reject.reaction() != Reaction::Retry
                {
                    self.home().forget_lane(&record.id())?;
                }
                Err(error)
            }
        }
    }

    async fn finish_grant(&self, record: &LaneRecord, channel_key: &SecretKey) -> Result<Option<LaneRecord>, Error> {
        match self.act("grant", Act::Grant(record.grant).sign(&self.hub(), channel_key)).await {
            Ok(_) => self.granted(record).map(Some),
            Err(Error::Refused(reject)) if reject.reaction() == Reaction::Retry => Err(Error::Refused(reject)),
            Err(Error::Refused(_)) => {
                let known = self.lanes(record.grant.channel).await?;
                if known.iter().any(|info| info.lane == record.id()) {
                    return self.granted(record).map(Some);
                }
                self.home().forget_lane(&record.id())?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn is_same_grant(&self, signed: &LaneGrant, wanted: &Grant) -> bool {
        let key_fits = match wanted.key {
            Some(key) => key == signed.key,
            None => self.home().has_key(&signed.key),
        };
        key_fits
            && (signed.mode, signed.payee, signed.limit, signed.period, signed.expires_at)
                == (wanted.mode, wanted.payee, wanted.limit, wanted.period, wanted.expires_at)
    }

    fn granted(&self, record: &LaneRecord) -> Result<LaneRecord, Error> {
        let record = LaneRecord { state: RecordState::Done, ..*record };
        self.home().keep_lane(&record)?;
        Ok(record)
    }

    /// Ends a lane by its number in the channel. Signed with the channel's key, which this home must have.
    pub async fn revoke(&self, channel: ChannelId, lane: u32) -> Result<Done, Error> {
        let _turn = self.inner.acting.lock().await;
        let key = self.home().key(&self.home().channel(&channel)?.terms.key)?;
        let number = self.channel(channel).await?.number.saturating_add(1);
        let revoke = Revoke { number, channel, lane };
        self.act("revoke", Act::Revoke(revoke).sign(&self.hub(), &key)).await
    }

    /// Gives money back for a payment: `refunded_total` is all that was given back of it, with this.
    pub async fn refund(&self, place: RefundPlace, refunded_total: Amount) -> Result<Done, Error> {
        let _turn = self.inner.acting.lock().await;
        let RefundPlace { chain, commit, group, leaf, payment_id } = place;
        let refund = Refund { chain, commit, group, leaf, payment_id, refunded_total };
        self.act("refund", self.by_account(Act::Refund(refund))).await
    }

    /// Marks balance for payout at the next cut-off: absolute, so zero takes the mark back.
    pub async fn withdraw(&self, currency: Currency, marked: Amount) -> Result<Done, Error> {
        let _turn = self.inner.acting.lock().await;
        let number = self.next_account_number().await?;
        let withdraw = Withdraw { number, account: self.account(), currency, marked };
        self.act("withdraw", self.by_account(Act::Withdraw(withdraw))).await
    }

    /// Says what becomes of what this account earns, from the open window on.
    pub async fn use_earnings(&self, currency: Currency, becomes: EarningsUse) -> Result<Done, Error> {
        let _turn = self.inner.acting.lock().await;
        let number = self.next_account_number().await?;
        let earnings = Earnings { number, account: self.account(), currency, becomes };
        self.act("earnings", self.by_account(Act::Earnings(earnings))).await
    }

    /// Lets the hub collect from a bank account, once its operator has accepted, or ends that for good.
    pub async fn mandate(&self, mandate: NewMandate, revoked: bool) -> Result<Done, Error> {
        let _turn = self.inner.acting.lock().await;
        let number = self.next_account_number().await?;
        let NewMandate { scheme, mandate_id, iban, signed_at } = mandate;
        let act = Mandate { number, account: self.account(), scheme, mandate_id, iban, signed_at, revoked };
        self.act("mandate", self.by_account(Act::Mandate(act))).await
    }

    /// Closes a channel for good; the answer holds the close with what was spent and returned.
    pub async fn close(&self, channel: ChannelId) -> Result<Done, Error> {
        let _turn = self.inner.acting.lock().await;
        let number = self.next_account_number().await?;
        let request = CloseRequest { number, channel };
        self.act("close", self.by_account(Act::CloseRequest(request))).await
    }

    /// Whether a lane of this home was answered by the hub.
    pub fn is_granted(&self, lane: LaneId) -> Result<bool, Error> {
        Ok(self.home().lane(&lane)?.state == RecordState::Done)
    }

    async fn next_account_number(&self) -> Result<u64, Error> {
        match self.account_info().await {
            Ok(info) => Ok(info.number.saturating_add(1)),
            // Not registered yet. If it is, and the key is another, the hub finds this number stale.
            Err(Error::Refused(Reject::UnknownAccount | Reject::Unauthenticated)) => Ok(1),
            Err(error) => Err(error),
        }
    }

    fn by_account(&self, act: Act) -> SignedAct {
        act.sign(&self.hub(), &self.inner.account)
    }

    /// Sends an act until it is answered, and checks what the answer proves. An act that was heard and not answered is
    /// [`InfraError::Unfinished`].
    async fn act(&self, name: &'static str, signed: SignedAct) -> Result<Done, Error> {
        let until = Instant::now() + PATIENCE;
        let mut backoff = Backoff::new();
        let mut sent = false;
        loop {
            let error = match self.connect().await {
                Ok(connection) => match connection.request(Request::Act(signed.clone())).await {
                    Ok(Ok(Reply::Done(done))) => {
                        self.inner.fetch_certificate(&connection, &done.proof.commit).await;
                        return self.check_done(&signed, *done);
                    }
                    Ok(Ok(_)) => return Err(InfraError::UnexpectedReply.into()),
                    Ok(Err(reject)) if reject.reaction() == Reaction::Retry => Error::Refused(reject),
                    Ok(Err(reject)) => return Err(Error::Refused(reject)),
                    Err(error) => {
                        sent = true;
                        if matches!(error, InfraError::Timeout) {
                            connection.close();
                        }
                        Error::Infra(error)
                    }
                },
                Err(error @ Error::Infra(_)) if sent => error,
                Err(error) => return Err(error),
            };
            let wait = backoff.wait();
            if Instant::now() + wait > until {
                return Err(if sent { InfraError::Unfinished { act: name }.into() } else { error });
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn check_done(&self, asked: &SignedAct, done: Done) -> Result<Done, Error> {
        use weir_protocol::lane::payer::CommitCheck as _;
        let fits = match (&asked.act, &done.act) {
            (Act::CloseRequest(request), Act::Close(close)) => close.channel == request.channel,
            (asked, done) => asked == done,
        };
        let fault = if fits {
            let commit = self.inner.proofs.clone().check(&done.proof.commit).map_err(|fault| fault.to_string());
            commit.and_then(|()| done.proof.includes(&self.hub(), &done.act).map_err(|fault| fault.to_string()))
        } else {
            Err("it proves another act than was asked for".to_owned())
        };
        match fault {
            Ok(()) => Ok(done),
            Err(fault) => {
                let what = fault.clone();
                let evidence = HubEvidence::Act { asked: Box::new(asked.clone()), answered: Box::new(done), fault };
                Err(self.inner.evidence(&evidence, what))
            }
        }
    }
}

fn random() -> Result<[u8; 32], HomeError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|cause| HomeError::Key { path: "salt".into(), cause: cause.to_string() })?;
    Ok(bytes)
}
