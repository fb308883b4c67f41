//! Carries the operator's verbs out on a running hub.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use weir_protocol::act::{Abort, Act, Approve, Freeze, Limits, MAX_TEXT};
use weir_protocol::amount::{Amount, Time};
use weir_protocol::id::{AccountId, ChannelId};
use weir_protocol::reject::Reject;
use weir_protocol::wire::ChannelInfo;

use super::Fault;
use super::compactor::Compactor;
use super::report::{
    AccountPage, ChannelPage, ChannelRow, ClockRow, Closed, LimitsRow, Process, Standing as StandingRow, Status,
};
use super::request::{LimitSet, PAGE, Request};
use crate::clock::{ClockFault, wall_ms};
use crate::engine::books::Standing;
use crate::engine::said::{Facts, Query};
use crate::pipeline::Handle;
use crate::pipeline::handle::Health;
use crate::schedule::Schedule;
use crate::settlement::collect::mandates;
use crate::settlement::resolve::ResolveError;
use crate::settlement::{Settlement, SettlementError, with_causes};

/// Everything that verbs need.
#[derive(Debug)]
pub struct Desk {
    /// The hub.
    pub handle: Handle,
    /// What its operator calls it.
    pub name: String,
    /// Where clients connect.
    pub address: Option<String>,
    /// Writes snapshots.
    pub compactor: Compactor,
    /// When windows are cut off by themselves.
    pub cutoff: Option<Schedule>,
    /// Settles windows; none when the hub has no bank.
    pub settlement: Option<Arc<Settlement>>,
}

impl Desk {
    /// Carries a verb out; the answer's JSON.
    pub async fn answer(&self, request: Request) -> Result<serde_json::Value, Fault> {
        match request {
            Request::Status {} => json(&self.status().await?),
            Request::Reconcile {} => json(&self.bank()?.reconcile().await.map_err(super::settle::fault)?),
            Request::SuspenseList {} => json(&self.bank()?.suspense().await.map_err(super::settle::fault)?),
            Request::ReconcileResolve { id, decision, dry_run } => {
                json(&self.bank()?.resolve(&id, decision, dry_run).await.map_err(undecided)?)
            }
            Request::AccountsList { after, waiting } => {
                json(&self.handle.read(move |view| AccountPage::read(view.books, after, waiting, PAGE)).await?)
            }
            Request::AccountsApprove { account } => json(&self.approve(account).await?),
            Request::AccountsLimits { account, set } => json(&self.limits(account, set).await?),
            Request::AccountsFreeze { account, incoming, outgoing, reason } => {
                json(&self.freeze(Freeze { account, incoming, outgoing, reason }).await?)
            }
            Request::ChannelsList { after, account } => json(&self.channels(after, account).await?),
            Request::ChannelsClose { channel, dry_run } => json(&self.close(channel, dry_run).await?),
            Request::ChannelsCloseIdle { idle_ms, confirm } => {
                json(&super::sweep::sweep(&self.handle, Duration::from_millis(idle_ms), confirm.as_deref()).await?)
            }
            Request::SettleRun { window, last, dry_run } => self.settle_run(window, last, dry_run).await,
            Request::SettleReport { window, usual, last, after } => {
                self.settle_report(window, usual, last, after).await
            }
            Request::SettleCutoff {} => self.settle_cutoff().await,
            Request::SettleProposal { window, currency } => self.settle_proposal(window, currency).await,
            Request::SettleStaged {} => self.settle_staged(),
            Request::SettleAbort { window, currency, plan, reason } => {
                self.settle_abort(Abort { number: 0, operator: None, window, currency, plan, reason }).await
            }
            Request::Sign { signed } => self.signed(*signed).await,
            Request::OperatorsList {} => self.operators().await,
            Request::OperatorsChange { key, stands, name } => self.operators_change(key, stands, name).await,
            Request::FeesShow { account } => self.fees(account).await,
            Request::FeesChange { fees } => self.fees_change(fees).await,
            Request::MandatesList {} => json(&self.handle.read(|view| mandates(view.books)).await?),
            Request::MandatesAccept { mandate, at_once } => json(&self.accept_mandate(&mandate, at_once).await?),
            Request::MandatesEnd { mandate } => json(&self.end_mandate(&mandate).await?),
            Request::DebitList {} => self.debits().await,
            Request::DebitCollect { wish, dry_run } => self.collect(wish, dry_run).await,
            Request::DebitProposal { wish } => self.debit_proposal(wish).await,
            Request::DebitPlanned { collection } => self.debit_planned(collection).await,
            Request::DebitRun { collection, dry_run } => self.debit_run(collection, dry_run).await,
            Request::Snapshot {} => self.snapshot().await,
            Request::ClockConfirm {} => json(&self.confirm_clock()),
        }
    }

    async fn status(&self) -> Result<Status, Fault> {
        let health = match &*self.handle.health().borrow() {
            Health::Running => "running".to_owned(),
            Health::Failed(what) => format!("failed: {what}"),
            Health::Stopped => "stopped".to_owned(),
        };
        let process = Process {
            name: self.name.clone(),
            running: true,
            health,
            address: self.address.clone(),
            pid: Some(std::process::id()),
            clock_trusted: Some(!matches!(self.handle.clock().now(), Err(ClockFault::Set(_)))),
            snapshot: self.handle.snapshots().numbers().ok().and_then(|numbers| numbers.last().copied()),
            journal_bytes: self.handle.journal().appended_bytes(),
            next_cutoff_ms: None,
            bank: match &self.settlement {
                Some(settlement) => Some(settlement.reconcile().await.map_err(super::settle::fault)?),
                None => None,
            },
        };
        let hub = self.handle.hub();
        let cutoff = self.cutoff.clone();
        let status = self.handle.read(move |view| {
            let began = view.books.windows().opened_at();
            let next = cutoff.zip(began).and_then(|(cutoff, began)| cutoff.next_after(began));
            let process = Process { next_cutoff_ms: next.map(|next| next.0), ..process };
            let head = view.newest.map(|newest| newest.commit().commit);
            Status::of(hub, process, view.books, head.as_ref())
        });
        Ok(status.await?)
    }

    pub(super) fn bank(&self) -> Result<&Settlement, Fault> {
        self.settlement.as_deref().ok_or_else(|| {
            Fault::new("unavailable", "this hub has no bank account")
                .hint("set `bank.iban` in `hub.toml`, then restart the hub")
        })
    }

    pub(super) async fn standing(&self, account: AccountId) -> Result<Standing, Reject> {
        let standing = move |view: &crate::pipeline::View<'_>| view.books.account(&account).map(|known| known.standing);
        self.handle.read(standing).await?.ok_or(Reject::UnknownAccount)
    }

    async fn approve(&self, account: AccountId) -> Result<StandingRow, Reject> {
        let before = self.standing(account).await?;
        let commit = if before.approved { None } else { Some(self.order(Act::Approve(Approve { account })).await?) };
        Ok(row(account, Standing { approved: true, ..before }, commit))
    }

    async fn freeze(&self, freeze: Freeze) -> Result<StandingRow, Fault> {
        if freeze.reason.len() > MAX_TEXT {
            return Err(Fault::new("malformed", format!("a reason has at most {MAX_TEXT} bytes")));
        }
        let account = freeze.account;
        let before = self.standing(account).await?;
        let after = Standing { frozen_incoming: freeze.incoming, frozen_outgoing: freeze.outgoing, ..before };
        let commit = if before == after { None } else { Some(self.order(Act::Freeze(freeze)).await?) };
        Ok(row(account, after, commit))
    }

    async fn limits(&self, account: AccountId, set: Option<LimitSet>) -> Result<LimitsRow, Reject> {
        self.standing(account).await?;
        let none = Limits {
            account: Some(account),
            payment_max: Amount::ZERO,
            balance_max: Amount::ZERO,
            day_max: Amount::ZERO,
            iban_wait_s: 0,
        };
        let before = self.handle.read(move |view| view.books.limits(Some(&account))).await?.unwrap_or(none);
        let after = set.map_or(before, |set| Limits {
            payment_max: set.payment_max,
            balance_max: set.balance_max,
            day_max: set.day_max,
            ..none
        });
        let commit = if before == after { None } else { Some(self.order(Act::Limits(after)).await?) };
        let waiting = self.handle.read(move |view| {
            let waiting = view.books.waiting_iban(&account)?;
            Some((waiting.clone(), view.books.iban_agreed(waiting)))
        });
        let waiting = waiting.await?;
        Ok(LimitsRow {
            account,
            payment_max: after.payment_max,
            balance_max: after.balance_max,
            day_max: after.day_max,
            waiting_until_ms: waiting.as_ref().map(|(waiting, _)| waiting.from.0),
            waiting_approved: waiting.as_ref().map(|(_, agreed)| *agreed),
            waiting_iban: waiting.map(|(waiting, _)| waiting.iban),
            commit,
        })
    }

    pub(super) async fn order(&self, act: Act) -> Result<u64, Reject> {
        let (commit, _) = self.handle.order(act).await?;
        Ok(commit.commit().commit.number)
    }

    async fn channels(&self, after: Option<ChannelId>, account: Option<AccountId>) -> Result<ChannelPage, Reject> {
        let mut rows = Vec::new();
        for shard in 0..self.handle.shards() {
            // One more than a page holds tells whether there is another.
            let found = self.handle.ask(shard, Query::Channels { account, after, limit: PAGE + 1 }).await?;
            let Facts::Channels(found) = found else { return Err(Reject::Unsupported) };
            rows.extend(found.iter().map(ChannelRow::from));
        }
        Ok(ChannelPage::of(rows, PAGE))
    }

    async fn channel(&self, id: ChannelId) -> Result<ChannelInfo, Reject> {
        match self.handle.ask(self.handle.shard_of(&id.0), Query::Channel(id)).await? {
            Facts::Channel(info) => Ok(info),
            _ => Err(Reject::UnknownChannel),
        }
    }

    async fn close(&self, id: ChannelId, dry_run: bool) -> Result<Closed, Reject> {
        let info = self.channel(id).await?;
        if info.closed {
            return Err(Reject::Closed);
        }
        let planned = Closed {
            dry_run,
            channel: id,
            account: info.terms.account,
            currency: info.terms.currency,
            spent: info.spent,
            returned: info.capacity.checked_sub(info.spent).unwrap_or(Amount::ZERO),
            commit: None,
        };
        if dry_run {
            return Ok(planned);
        }
        let (commit, index) = self.handle.close(id).await?;
        // Payments may have been taken in between: the act says what became of the money.
        let Some(Act::Close(close)) = commit.act(index).map(|record| &record.act) else {
            return Err(Reject::Unsupported);
        };
        Ok(Closed {
            spent: close.spent,
            returned: close.returned,
            commit: Some(commit.commit().commit.number),
            ..planned
        })
    }

    async fn snapshot(&self) -> Result<serde_json::Value, Fault> {
        let compactor = self.compactor.clone();
        let written = tokio::task::spawn_blocking(move || compactor.run()).await;
        let failed = |error: &dyn std::error::Error| Fault::new("failed", with_causes(error));
        match written {
            Ok(Ok(row)) => json(&row),
            Ok(Err(error)) => Err(failed(&error)),
            Err(error) => Err(failed(&error)),
        }
    }

    fn confirm_clock(&self) -> ClockRow {
        let departure_ms = match self.handle.clock().now() {
            Err(ClockFault::Set(departure_ms)) => departure_ms,
            Ok(_) | Err(ClockFault::Ended) => 0,
        };
        self.handle.clock().confirm();
        ClockRow::new(departure_ms, Time(wall_ms()))
    }
}

const fn row(account: AccountId, standing: Standing, commit: Option<u64>) -> StandingRow {
    StandingRow {
        account,
        approved: standing.approved,
        frozen_incoming: standing.frozen_incoming,
        frozen_outgoing: standing.frozen_outgoing,
        commit,
    }
}

pub(super) fn json(answer: &impl Serialize) -> Result<serde_json::Value, Fault> {
    serde_json::to_value(answer).map_err(|error| Fault::new("failed", error.to_string()))
}

fn undecided(error: ResolveError) -> Fault {
    let text = error.to_string();
    match error {
        ResolveError::Settlement(SettlementError::Refused(Reject::Stale)) => {
            Fault::new("Stale", "it was allocated before").hint("`weir-hub suspense list` shows what waits")
        }
        ResolveError::Settlement(error) => super::settle::fault(error),
        ResolveError::Unknown(_) => {
            Fault::new("unknown_entry", text).hint("`weir-hub suspense list` and `weir-hub reconcile` show what waits")
        }
        ResolveError::Ambiguous(_) => Fault::new("ambiguous", text).hint("give more of its id"),
        ResolveError::NoEntry(_) => Fault::new("no_entry", text).hint("it can be accepted, with a reason"),
        ResolveError::Money(_) => Fault::new("money", text).hint("allocate it to an account, or to `hub`"),
        ResolveError::Payout(_) => Fault::new("payout", text)
            .hint("`weir-hub reconcile` shows what the bank says; give it to the account only when the bank says that it has not paid"),
        ResolveError::NoReason(_) => Fault::new("no_reason", text),
    }
}
