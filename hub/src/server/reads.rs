//! What peers read: accounts, channels, lanes, history, commits. Each needs the keys that the wire's page names.

use weir_protocol::amount::Currency;
use weir_protocol::commit::SignedCommit;
use weir_protocol::id::{AccountId, ChannelId, LaneId};
use weir_protocol::reject::Reject;
use weir_protocol::wire::{
    ChannelInfo, CommitInfo, Cursor, DepositInstructions, HistoryGroup, HubInfo, MAX_PAGE, MandateInfo,
    MandateStanding, Reply,
};

use super::Shared;
use super::connection::{LaneOwner, Peer};
use super::history;
use super::lookup;
use super::rates::{Kind, Who};
use crate::bank::CreditorReference;
use crate::engine::collections::{MandateRecord, MandateState};
use crate::engine::said::{Facts, Query};

/// The rules and the time.
pub(super) async fn hub(peer: &Peer) -> Result<Reply, Reject> {
    let shared = &peer.shared;
    let (policy, time) = shared.handle.read(|view| (view.books.policy().clone(), view.time)).await?;
    Ok(Reply::Hub(Box::new(HubInfo { policy, time, newest: shared.newest() })))
}

/// An account's balances.
pub(super) async fn account(peer: &Peer, account: AccountId) -> Result<Reply, Reject> {
    peer.check_account(&account)?;
    let info = peer.shared.handle.read(move |view| view.books.info(&account)).await?;
    info.map(|info| Reply::Account(Box::new(info))).ok_or(Reject::UnknownAccount)
}

/// An account's mandates.
pub(super) async fn mandates(peer: &Peer, account: AccountId) -> Result<Reply, Reject> {
    peer.check_account(&account)?;
    let read = move |view: &crate::pipeline::View<'_>| {
        let info = |(id, record): (&str, &MandateRecord)| MandateInfo {
            mandate_id: id.to_owned(),
            scheme: record.scheme,
            iban: record.iban.clone(),
            signed_at: record.signed_at,
            standing: match record.state {
                MandateState::Waiting => MandateStanding::Waiting,
                MandateState::Accepted => MandateStanding::Accepted,
                MandateState::Ended => MandateStanding::Ended,
            },
            at_once: record.at_once,
            provisional_days: record.provisional_days,
        };
        view.books.account(&account).map(|_| view.books.collections().mandates_of(&account).map(info).collect())
    };
    peer.shared.handle.read(read).await?.map(Reply::Mandates).ok_or(Reject::UnknownAccount)
}

/// Where to send money for an account.
pub(super) async fn deposit_instructions(peer: &Peer, account: AccountId, currency: Currency) -> Result<Reply, Reject> {
    peer.check_account(&account)?;
    let is_known = peer.shared.handle.read(move |view| view.books.account(&account).is_some()).await?;
    if !is_known {
        return Err(Reject::UnknownAccount);
    }
    let address = peer.shared.bank.get(&currency).ok_or(Reject::Currency)?;
    Ok(Reply::DepositInstructions(DepositInstructions {
        iban: address.iban.clone(),
        name: address.name.clone(),
        bic: address.bic.clone(),
        reference: CreditorReference::from_id(account.as_bytes()).as_str().to_owned(),
        currency,
    }))
}

/// A page of an account's channels.
pub(super) async fn channels(peer: &Peer, account: AccountId, after: Option<ChannelId>) -> Result<Reply, Reject> {
    peer.check_account(&account)?;
    channels_of(&peer.shared, account, after).await.map(Reply::Channels)
}

/// At most [`MAX_PAGE`] channels of an account above an id, by id, from all shards.
pub(super) async fn channels_of(
    shared: &Shared,
    account: AccountId,
    after: Option<ChannelId>,
) -> Result<Vec<ChannelInfo>, Reject> {
    let query = Query::Channels { account: Some(account), after, limit: MAX_PAGE };
    let mut found = Vec::new();
    for shard in 0..shared.handle.shards() {
        if let Facts::Channels(mut channels) = shared.handle.ask(shard, query).await? {
            found.append(&mut channels);
        }
    }
    found.sort_unstable_by_key(|info| info.channel);
    found.truncate(MAX_PAGE);
    Ok(found)
}

/// One channel.
pub(super) async fn channel(peer: &Peer, channel: ChannelId) -> Result<Reply, Reject> {
    let info = channel_info(peer, channel).await?;
    peer.check_channel_or_lane(&channel, &info.terms.account)?;
    Ok(Reply::Channel(Box::new(info)))
}

/// A page of a channel's lanes.
pub(super) async fn lanes(peer: &Peer, channel: ChannelId, from: u32) -> Result<Reply, Reject> {
    let info = channel_info(peer, channel).await?;
    peer.check_channel(&channel, &info.terms.account)?;
    let handle = &peer.shared.handle;
    match handle.ask(handle.shard_of(&channel.0), Query::Lanes { channel, from }).await? {
        Facts::Lanes(lanes) => Ok(Reply::Lanes(lanes)),
        _ => Err(Reject::Stopped),
    }
}

/// The channel, before it is known whether the peer may see it: what is not there is refused like what is not the peer's.
async fn channel_info(peer: &Peer, channel: ChannelId) -> Result<ChannelInfo, Reject> {
    peer.check_any()?;
    let handle = &peer.shared.handle;
    match handle.ask(handle.shard_of(&channel.0), Query::Channel(channel)).await {
        Ok(Facts::Channel(info)) => Ok(info),
        Ok(_) => Err(Reject::Stopped),
        Err(Reject::UnknownChannel) => Err(Reject::Unauthenticated),
        Err(reject) => Err(reject),
    }
}

/// The first group of a lane that reaches beyond a sequence.
pub(super) async fn history(peer: &Peer, lane: LaneId, since: u64) -> Result<Reply, Reject> {
    peer.check_any()?;
    peer.shared.rates.take(Kind::JournalRead, Who::Address(peer.address))?;
    let sequence = match peer.shared.handle.ask_lane(lane).await {
        Ok(Facts::Lane { channel, account, lane: info, .. }) => {
            peer.check_lane(&lane, &LaneOwner { channel, account })?;
            info.head.sequence
        }
        Ok(_) => return Err(Reject::Stopped),
        Err(Reject::UnknownLane) => return Err(Reject::Unauthenticated),
        Err(reject) => return Err(reject),
    };
    if sequence <= since {
        return Ok(Reply::History(None));
    }
    let found = lookup::blocking(&peer.shared, move |shared| history::group_beyond(shared, lane, since)).await?;
    let (commit, index) = found;
    let certificate = peer.shared.certificate_at(commit.commit().commit.time).await?;
    let (Some(group), Some(answer)) = (commit.group(index), commit.answer(index)) else {
        return Err(Reject::Stopped);
    };
    Ok(Reply::History(Some(Box::new(HistoryGroup {
        payments: group.payments().collect(),
        head: group.head,
        signature: group.signature,
        answer,
        certificate,
    }))))
}

/// A commit and its place in the newest history.
pub(super) async fn commit(peer: &Peer, number: u64) -> Result<Reply, Reject> {
    peer.shared.rates.take(Kind::JournalRead, Who::Address(peer.address))?;
    let found = lookup::blocking(&peer.shared, move |shared| placed(shared, number)).await?;
    let certificate = peer.shared.certificate_at(found.commit.commit.time).await?;
    let newest_certificate = peer.shared.certificate_at(found.newest.commit.time).await?;
    Ok(Reply::Commit(Box::new(CommitInfo {
        commit: found.commit,
        certificate,
        newest: found.newest,
        newest_certificate,
        path: found.path,
    })))
}

struct Placed {
    commit: SignedCommit,
    newest: SignedCommit,
    path: Vec<weir_protocol::hash::Hash>,
}

fn placed(shared: &Shared, number: u64) -> Result<Placed, Reject> {
    let Cursor { number: last, .. } = shared.newest();
    let commit = header(shared, number)?;
    let newest = header(shared, last)?;
    let path = if number == last {
        Vec::new()
    } else {
        let ids = |numbers| shared.handle.ids().read(numbers).map_err(|error| lookup::refused(&error));
        shared.history.path(&ids, number - 1, last - 1)?
    };
    Ok(Placed { commit, newest, path })
}

fn header(shared: &Shared, number: u64) -> Result<SignedCommit, Reject> {
    if number == 0 || number > shared.newest().number {
        return Err(Reject::Malformed);
    }
    let entry = shared.handle.journal().read(number).map_err(|error| lookup::refused(&error))?;
    Ok(lookup::decode(&entry.ok_or(Reject::Pruned)?)?.commit)
}
