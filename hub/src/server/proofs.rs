//! Evidence and statements for participants: each of what is its own.

use std::sync::Arc;

use weir_protocol::act::Act;
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, ChannelId, LaneId, PaymentId};
use weir_protocol::reject::Reject;
use weir_protocol::wire::{ChannelInfo, EvidenceSubject, LaneInfo, MAX_MESSAGE, Reply, StatementForm, encode};

use super::connection::{LaneOwner, Peer};
use super::rates::{Kind, Who};
use super::{Shared, lookup};
use crate::engine::record::ActRecord;
use crate::engine::said::{About, Facts, Query};
use crate::engine::shard::about;
use crate::report::evidence::{Archive, EvidenceFault, Finder, PayoutFacts, Refunded, certificates};
use crate::report::replay::{ReportError, Source};
use crate::report::statement::{Span, Statement};

/// Bytes of a reply around what it holds.
const ENVELOPE_BYTES: usize = 64;

/// Evidence of what belongs to the peer.
pub(super) async fn evidence(peer: &Peer, subject: EvidenceSubject) -> Result<Reply, Reject> {
    peer.check_any()?;
    let shared = &peer.shared;
    shared.rates.take(Kind::JournalRead, Who::Address(peer.address))?;
    let evidence = match subject {
        EvidenceSubject::Channel(id) => {
            let (info, lanes) = channel(peer, id).await?;
            make(shared, move |archive, _| archive.channel(&info, &lanes)).await?
        }
        EvidenceSubject::Payment { lane, sequence } => {
            let (info, lane) = lane_of(peer, lane).await?;
            make(shared, move |archive, refunded| archive.payment(&info, &lane, sequence, refunded)).await?
        }
        EvidenceSubject::Receipt { commit, group, leaf } => {
            let at = (commit, group, leaf);
            let (payee, evidence) =
                make(shared, move |archive, refunded| Ok((archive.payee(at)?, archive.receipt(at, refunded)?))).await?;
            peer.check_account(&payee)?;
            evidence
        }
        EvidenceSubject::Payout { account, window, currency } => {
            peer.check_account(&account)?;
            let facts = shared.handle.read(move |view| PayoutFacts::of(view.books.windows(), window, currency)).await?;
            let facts = facts.ok_or(Reject::UnknownPayment)?;
            make(shared, move |archive, _| archive.payout(&facts, account)).await?
        }
        EvidenceSubject::Act { account, commit, item } => {
            peer.check_account(&account)?;
            let (evidence, owner) = make(shared, move |archive, _| {
                let owner = archive.owner(commit, item)?;
                Ok((archive.act(commit, item)?, owner))
            })
            .await?;
            may_see(peer, account, &owner).await?;
            evidence
        }
    };
    fits(Reply::Evidence(Box::new(evidence)))
}

/// A statement of the peer's account.
pub(super) async fn statement(
    peer: &Peer,
    account: AccountId,
    window: Option<u64>,
    form: StatementForm,
) -> Result<Reply, Reject> {
    peer.check_account(&account)?;
    let shared = &peer.shared;
    shared.rates.take(Kind::JournalRead, Who::Address(peer.address))?;
    let span = shared.handle.read(move |view| Span::of(view.books.windows(), window)).await?;
    let span = span.map_err(|_| Reject::UnknownPayment)?;
    // It holds a second copy of the state while it is made: one at a time, and nobody waits in a row.
    let turn = Arc::clone(&shared.statements).try_acquire_owned().map_err(|_| Reject::Busy)?;
    let text = lookup::blocking(shared, move |shared| {
        let _turn = turn;
        let handle = &shared.handle;
        let source = Source { hub: handle.hub(), journal: handle.journal(), snapshots: handle.snapshots() };
        let statement = Statement::make(source, &shared.name, account, span).map_err(|error| told(&error))?;
        Ok(match form {
            StatementForm::Json => serde_json::to_string(&statement).map_err(|_| Reject::Stopped)?,
            StatementForm::Csv => statement.to_csv(),
            StatementForm::Html => statement.to_html(),
        })
    })
    .await?;
    fits(Reply::WindowStatement(text))
}

fn told(error: &ReportError) -> Reject {
    match error {
        ReportError::Pruned { .. } => Reject::Pruned,
        ReportError::Unknown(_) => Reject::UnknownAccount,
        error => {
            tracing::error!(%error, "a statement cannot be made");
            Reject::Stopped
        }
    }
}

/// A reply that is longer than a message can be is not given; the operator's own verbs have no such bound.
fn fits(reply: Reply) -> Result<Reply, Reject> {
    if encode(&reply).len() + ENVELOPE_BYTES <= MAX_MESSAGE { Ok(reply) } else { Err(Reject::Unsupported) }
}

/// A channel that the peer may see, with all its lanes.
async fn channel(peer: &Peer, id: ChannelId) -> Result<(ChannelInfo, Vec<LaneInfo>), Reject> {
    let handle = &peer.shared.handle;
    let shard = handle.shard_of(&id.0);
    let info = match handle.ask(shard, Query::Channel(id)).await {
        Ok(Facts::Channel(info)) => info,
        Err(Reject::UnknownChannel) => return Err(Reject::Unauthenticated),
        Ok(_) => return Err(Reject::Stopped),
        Err(reject) => return Err(reject),
    };
    peer.check_channel(&id, &info.terms.account)?;
    let mut lanes: Vec<LaneInfo> = Vec::new();
    while (lanes.len() as u64) < u64::from(info.lanes) {
        let from = u32::try_from(lanes.len()).unwrap_or(u32::MAX);
        let Facts::Lanes(page) = handle.ask(shard, Query::Lanes { channel: id, from }).await? else {
            return Err(Reject::Stopped);
        };
        if page.is_empty() {
            break;
        }
        lanes.extend(page);
    }
    Ok((info, lanes))
}

/// A lane that the peer may see, and its channel.
async fn lane_of(peer: &Peer, id: LaneId) -> Result<(ChannelInfo, LaneInfo), Reject> {
    let handle = &peer.shared.handle;
    let (channel, account, lane) = match handle.ask_lane(id).await {
        Ok(Facts::Lane { channel, account, lane, .. }) => (channel, account, lane),
        Err(Reject::UnknownLane) => return Err(Reject::Unauthenticated),
        Ok(_) => return Err(Reject::Stopped),
        Err(reject) => return Err(reject),
    };
    peer.check_lane(&id, &LaneOwner { channel, account })?;
    match handle.ask(handle.shard_of(&channel.0), Query::Channel(channel)).await? {
        Facts::Channel(info) => Ok((info, lane)),
        _ => Err(Reject::Stopped),
    }
}

/// Whether an act is the account's own, or the hub's about it, or one of a window.
async fn may_see(peer: &Peer, account: AccountId, record: &ActRecord) -> Result<(), Reject> {
    let by_refund = record.context.is_some_and(|refund| refund.payer == account || refund.payee == account);
    let of_window = matches!(record.act, Act::Cutoff(_) | Act::Plan(_) | Act::Instruct(_) | Act::Settled(_));
    let by_terms = matches!(&record.act, Act::Open(terms) if terms.account == account);
    let by_key = match about(&record.act) {
        About::Account(of) => of == account,
        About::Channel(id) => {
            let handle = &peer.shared.handle;
            let found = handle.ask(handle.shard_of(&id.0), Query::Channel(id)).await;
            matches!(found, Ok(Facts::Channel(info)) if info.terms.account == account)
        }
        About::Lane(id) => {
            matches!(peer.shared.handle.ask_lane(id).await, Ok(Facts::Lane { account: of, .. }) if of == account)
        }
    };
    if by_refund || of_window || by_terms || by_key { Ok(()) } else { Err(Reject::Unauthenticated) }
}

/// Makes something from the journal up to the newest commit.
async fn make<T: Send + 'static>(
    shared: &Arc<Shared>,
    what: impl FnOnce(&Archive<'_>, Refunded<'_>) -> Result<T, EvidenceFault> + Send + 'static,
) -> Result<T, Reject> {
    let certificates = shared.handle.read(|view| certificates(view.books)).await?;
    let runtime = tokio::runtime::Handle::current();
    lookup::blocking(shared, move |shared| {
        let handle = &shared.handle;
        let ids = |numbers| handle.ids().read(numbers).map_err(|error| lookup::refused(&error));
        let history = |index, count| -> Result<Vec<Hash>, EvidenceFault> {
            shared.history.path(&ids, index, count).map_err(|_| EvidenceFault::Unknown("history"))
        };
        let archive = Archive {
            hub: handle.hub(),
            journal: handle.journal(),
            finder: Finder::Index(handle.index()),
            history: &history,
            certificates: &certificates,
            newest: shared.newest().number,
        };
        let refunded = |payment: &PaymentId| {
            let payment = *payment;
            let read = runtime.block_on(handle.read(move |view| view.books.refunded(&payment)));
            read.map_err(|_| EvidenceFault::Unknown("hub that runs"))
        };
        what(&archive, &refunded).map_err(|error| match error {
            EvidenceFault::Store(error) => lookup::refused(&error),
            EvidenceFault::Pruned => Reject::Pruned,
            EvidenceFault::Unknown(_) => Reject::UnknownPayment,
            error @ (EvidenceFault::Damaged(_) | EvidenceFault::Wrong(_)) => {
                tracing::error!(%error, "evidence cannot be made");
                Reject::Stopped
            }
        })
    })
    .await
}
