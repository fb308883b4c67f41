//! Acts of clients: counted, brought to the shard that judges them, and answered, also a second time.

use std::sync::Arc;

use weir_protocol::act::{Act, Refund, SignedAct};
use weir_protocol::payment::payment_id;
use weir_protocol::reject::Reject;
use weir_protocol::wire::{Done, Reply};

use super::connection::Peer;
use super::rates::{Kind, Who};
use super::{Shared, lookup};
use crate::engine::record::{GroupRecord, RefundContext};
use crate::engine::said::{Again, Facts, Said};
use crate::engine::shard::Input;
use crate::pipeline::recover::act_key;

/// Has an act judged, and answers when it is durable.
pub(super) async fn act(peer: &Peer, signed: SignedAct) -> Result<Reply, Reject> {
    if !signed.act.within_limits() {
        return Err(Reject::Malformed);
    }
    let shared = &peer.shared;
    let by_address = Who::Address(peer.address);
    let mut refund = None;
    let owner = match &signed.act {
        Act::Grant(grant) => {
            shared.rates.take(Kind::Grant, peer.counted_for(&grant.channel))?;
            grant.channel.0
        }
        Act::Revoke(revoke) => {
            shared.rates.take(Kind::Grant, peer.counted_for(&revoke.channel))?;
            revoke.channel.0
        }
        Act::Register(register) => {
            shared.rates.take(Kind::Register, by_address)?;
            *register.account.as_bytes()
        }
        Act::Amend(amend) => amend.channel.0,
        Act::CloseRequest(request) => request.channel.0,
        Act::Open(terms) => terms.id().0,
        Act::Withdraw(withdraw) => *withdraw.account.as_bytes(),
        Act::Earnings(earnings) => *earnings.account.as_bytes(),
        Act::Mandate(mandate) => *mandate.account.as_bytes(),
        Act::Refund(asked) => {
            shared.rates.take(Kind::JournalRead, by_address)?;
            let context = refund_context(shared, *asked).await?;
            refund = Some(context);
            *context.payee.as_bytes()
        }
        _ => return Err(Reject::Unsupported),
    };
    shared.rates.take(Kind::Act, by_address)?;
    let is_close_request = matches!(signed.act, Act::CloseRequest(_));
    let shard = shared.handle.shard_of(&owner);
    let input = |reply| Input::Act { signed: Box::new(signed), refund, reply };
    let said = shared.handle.request(shard, input).await?;
    let done = done(shared, said, is_close_request).await?;
    peer.vouch();
    Ok(Reply::Done(Box::new(done)))
}

async fn done(shared: &Arc<Shared>, said: Said, is_close_request: bool) -> Result<Done, Reject> {
    match said {
        Said::Done { commit, index } => {
            let act = commit.act(index).ok_or(Reject::Stopped)?.act.clone();
            let proof = commit.act_proof(index).ok_or(Reject::Stopped)?;
            Ok(Done { act, proof })
        }
        Said::Again(again) => lookup::blocking(shared, move |shared| done_again(shared, again, is_close_request)).await,
        Said::Refused(reject) => Err(reject),
        // Nothing else answers an act.
        _ => Err(Reject::Stopped),
    }
}

/// The answer that was given before; of a close request: the close that it led to.
fn done_again(shared: &Shared, again: Again, is_close_request: bool) -> Result<Done, Reject> {
    let hub = shared.handle.hub();
    let found = lookup::find_act(&shared.handle, act_key(&again.digest), &|record| match &record.act {
        Act::Close(close) if is_close_request => close.request == again.digest,
        act => !is_close_request && act.digest(&hub) == again.digest,
    })?;
    if let Some((act, proof)) = found {
        return Ok(Done { act, proof });
    }
    // A request that was taken and not carried out yet can be asked for again; what is not there at all was pruned.
    let request =
        lookup::find_act(&shared.handle, act_key(&again.digest), &|record| record.act.digest(&hub) == again.digest)?;
    Err(if request.is_some() { Reject::Busy } else { Reject::Pruned })
}

/// The payment that a refund gives back, read from the commit that it names.
async fn refund_context(shared: &Arc<Shared>, asked: Refund) -> Result<RefundContext, Reject> {
    let (group, context) = lookup::blocking(shared, move |shared| paid(shared, &asked)).await?;
    match shared.handle.ask_lane(group).await {
        Ok(Facts::Lane { account, .. }) => Ok(RefundContext { payer: account, ..context }),
        Ok(_) | Err(Reject::UnknownLane) => Err(Reject::UnknownPayment),
        Err(reject) => Err(reject),
    }
}

fn paid(shared: &Shared, asked: &Refund) -> Result<(weir_protocol::id::LaneId, RefundContext), Reject> {
    let journal = shared.handle.journal();
    let Some(entry) = journal.read(asked.commit).map_err(|error| lookup::refused(&error))? else {
        let first = journal.first().map_err(|error| lookup::refused(&error))?;
        let is_pruned = asked.commit > 0 && first.is_some_and(|first| asked.commit < first);
        return Err(if is_pruned { Reject::Pruned } else { Reject::UnknownPayment });
    };
    if entry.position.chain != asked.chain {
        return Err(Reject::UnknownPayment);
    }
    let record = lookup::decode(&entry)?;
    let paid_at = record.header().time;
    let group: Option<&GroupRecord> = record.groups().find(|(index, _)| *index == asked.group).map(|(_, group)| group);
    let group = group.ok_or(Reject::UnknownPayment)?;
    let (sequence, payment) = group.payments().nth(asked.leaf as usize).ok_or(Reject::UnknownPayment)?;
    if payment_id(&group.lane, sequence) != asked.payment_id {
        return Err(Reject::UnknownPayment);
    }
    let context = RefundContext {
        lane: group.lane,
        payer: weir_protocol::id::AccountId::ZERO,
        payee: payment.payee,
        currency: group.currency,
        paid: payment.amount,
        paid_at,
    };
    Ok((group.lane, context))
}
