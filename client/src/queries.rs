//! What a client asks the hub: answers from the last durable commit, nothing changes.

use std::time::Duration;

use tokio::time::Instant;
use weir_protocol::amount::Currency;
use weir_protocol::evidence::Evidence;
use weir_protocol::id::{ChannelId, LaneId};
use weir_protocol::keys::SecretKey;
use weir_protocol::reject::Reject;
use weir_protocol::wire::{
    AccountInfo, ChannelInfo, CommitInfo, Cursor, DepositInstructions, EvidenceSubject, HistoryGroup, HubInfo,
    KeyScope, LaneInfo, MAX_PAGE, MandateInfo, Reply, Request, StatementEntry, StatementForm,
};

use crate::client::{Backoff, Client};
use crate::connection::Connection;
use crate::error::{Error, InfraError};

/// How long something is asked again while the network fails or the hub is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Takes the one kind of reply that fits the request.
macro_rules! expect_reply {
    ($reply:expr, $kind:ident) => {
        match $reply {
            Reply::$kind(inner) => Ok(inner),
            _ => Err(Error::from(InfraError::UnexpectedReply)),
        }
    };
}

impl Client {
    /// The hub's rules and time.
    pub async fn hub_info(&self) -> Result<HubInfo, Error> {
        Ok(*expect_reply!(self.ask(Request::Hub).await?, Hub)?)
    }

    /// All mandates of the account, by id.
    pub async fn mandates(&self) -> Result<Vec<MandateInfo>, Error> {
        expect_reply!(self.ask(Request::Mandates(self.account())).await?, Mandates)
    }

    /// The account and its balances.
    pub async fn account_info(&self) -> Result<AccountInfo, Error> {
        Ok(*expect_reply!(self.ask(Request::Account(self.account())).await?, Account)?)
    }

    /// Where to send money for this account.
    pub async fn deposit_instructions(&self, currency: Currency) -> Result<DepositInstructions, Error> {
        let request = Request::DepositInstructions { account: self.account(), currency };
        expect_reply!(self.ask(request).await?, DepositInstructions)
    }

    /// All channels of the account, as the hub sees them.
    pub async fn channels(&self) -> Result<Vec<ChannelInfo>, Error> {
        let mut channels: Vec<ChannelInfo> = Vec::new();
        loop {
            let after = channels.last().map(|info| info.channel);
            let page = expect_reply!(self.ask(Request::Channels { account: self.account(), after }).await?, Channels)?;
            let last = page.len() < MAX_PAGE;
            // A hub that repeats a page would hold us here for ever.
            let grows = page.first().is_none_or(|info| after.is_none_or(|after| info.channel > after));
            channels.extend(page);
            if last || !grows {
                return Ok(channels);
            }
        }
    }

    /// One channel of the account.
    pub async fn channel(&self, channel: ChannelId) -> Result<ChannelInfo, Error> {
        Ok(*expect_reply!(self.ask(Request::Channel(channel)).await?, Channel)?)
    }

    /// All lanes of a channel, by number.
    pub async fn lanes(&self, channel: ChannelId) -> Result<Vec<LaneInfo>, Error> {
        let mut lanes: Vec<LaneInfo> = Vec::new();
        loop {
            let from = lanes.last().map_or(0, |info| info.grant.lane.saturating_add(1));
            let page = expect_reply!(self.ask(Request::Lanes { channel, from }).await?, Lanes)?;
            let last = page.len() < MAX_PAGE;
            let grows = page.first().is_none_or(|info| info.grant.lane >= from);
            lanes.extend(page);
            if last || !grows {
                return Ok(lanes);
            }
        }
    }

    /// The first group of a lane that reaches beyond `since`, as the hub gives it: not checked against the lane's states. A
    /// lane that pays reads and checks its own.
    pub async fn history(&self, lane: LaneId, since: u64) -> Result<Option<HistoryGroup>, Error> {
        let record = self.home().lane(&lane)?;
        let is_own = self.home().has_key(&record.grant.key);
        let key = is_own.then(|| self.home().key(&record.grant.key)).transpose()?;
        let also = key.as_ref().map(|key| (KeyScope::Lane(lane), key));
        let page = expect_reply!(self.ask_with(Request::History { lane, since }, also).await?, History)?;
        let page = page.map(|page| *page);
        if let Some(page) = &page {
            let connection = self.connect().await?;
            self.inner.admit(&page.certificate)?;
            self.inner.check_commit(&connection, &page.answer.commit).await?;
        }
        Ok(page)
    }

    /// What happened to the account after a commit, oldest first, and where to go on: whole commits. The same cursor back:
    /// nothing more.
    pub async fn statement(&self, after: Cursor) -> Result<(Vec<StatementEntry>, Cursor), Error> {
        let mut all = Vec::new();
        let (mut after, mut skip) = (after, 0);
        loop {
            let request = Request::Statement { account: self.account(), after, skip };
            let Reply::Statement { entries, through, skip: given } = self.ask(request).await? else {
                return Err(InfraError::UnexpectedReply.into());
            };
            let grows = !entries.is_empty();
            all.extend(entries);
            if given == 0 || !grows {
                return Ok((all, through));
            }
            (after, skip) = (through, given);
        }
    }

    /// A commit's header and its place in the newest history; both commits are checked.
    pub async fn commit(&self, number: u64) -> Result<CommitInfo, Error> {
        let info = *expect_reply!(self.ask(Request::Commit { number }).await?, Commit)?;
        let connection = self.connect().await?;
        self.inner.admit(&info.certificate)?;
        self.inner.admit(&info.newest_certificate)?;
        self.inner.check_commit(&connection, &info.commit).await?;
        self.inner.check_commit(&connection, &info.newest).await?;
        Ok(info)
    }

    /// Evidence from the hub, checked like a stranger's. A payment's needs the lane in this home.
    pub async fn evidence(&self, subject: EvidenceSubject) -> Result<Evidence, Error> {
        let key = match subject {
            EvidenceSubject::Payment { lane, .. } => {
                let record = self.home().lane(&lane)?;
                let is_own = self.home().has_key(&record.grant.key);
                is_own.then(|| self.home().key(&record.grant.key)).transpose()?.map(|key| (KeyScope::Lane(lane), key))
            }
            _ => None,
        };
        let also = key.as_ref().map(|(scope, key)| (*scope, key));
        let evidence = *expect_reply!(self.ask_with(Request::Evidence(subject), also).await?, Evidence)?;
        if evidence.hub != self.hub() || evidence.check().is_err() {
            return Err(InfraError::UnexpectedReply.into());
        }
        Ok(evidence)
    }

    /// The account's statement of a window, as text in a form.
    pub async fn window_statement(&self, window: Option<u64>, form: StatementForm) -> Result<String, Error> {
        let request = Request::WindowStatement { account: self.account(), window, form };
        expect_reply!(self.ask(request).await?, WindowStatement)
    }

    /// Asks with the account's key proven; again while the hub is busy or the connection breaks. A hub that cannot be
    /// reached at all is told at once.
    pub(crate) async fn ask(&self, request: Request) -> Result<Reply, Error> {
        self.ask_with(request, None).await
    }

    /// The same with one more key proven.
    async fn ask_with(&self, request: Request, also: Option<(KeyScope, &SecretKey)>) -> Result<Reply, Error> {
        let until = Instant::now() + PATIENCE;
        let mut backoff = Backoff::new();
        loop {
            let connection = self.connect().await?;
            let error = match self.ask_once(&connection, request.clone(), also).await {
                Err(error) if error.retry_is_safe() => error,
                answered => return answered,
            };
            if matches!(error, Error::Infra(InfraError::Timeout)) {
                connection.close();
            }
            let wait = backoff.wait();
            if Instant::now() + wait > until {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn ask_once(
        &self,
        connection: &Connection,
        request: Request,
        also: Option<(KeyScope, &SecretKey)>,
    ) -> Result<Reply, Error> {
        self.inner.prove_account(connection).await.or_else(|error| match error {
            // An account that is not registered yet can still ask what needs no account.
            Error::Refused(Reject::UnknownAccount | Reject::Unauthenticated) => Ok(()),
            other => Err(other),
        })?;
        if let Some((scope, key)) = also {
            connection.prove(scope, key).await?;
        }
        connection.request(request).await?.map_err(Error::Refused)
    }
}
