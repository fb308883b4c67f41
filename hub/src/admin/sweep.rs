//! Channels of which nothing was heard for long: found in the journal, so that nothing is kept of each channel for it, and
//! closed together.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use weir_protocol::act::Act;
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::id::{ChannelId, LaneId};
use weir_protocol::reject::Reject;
use weir_protocol::wire::ChannelInfo;

use super::Fault;
use super::request::PAGE;
use crate::engine::record::{ItemRecord, Record};
use crate::engine::said::{Facts, Query};
use crate::pipeline::Handle;
use crate::store::StoreError;
use crate::store::journal::JournalReader;

/// Channels that are closed at the same time.
const AT_ONCE: usize = 32;
/// How often a hub that closes idle channels by itself looks for them.
const EVERY: Duration = Duration::from_secs(3_600);

/// What a sweep closes, or closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    /// Whether this only says what would be.
    pub dry_run: bool,
    /// Milliseconds in which nothing was heard of them.
    pub idle_ms: u64,
    /// How many open channels are idle.
    pub channels: u64,
    /// What goes back to their accounts, by currency.
    pub returned: BTreeMap<String, String>,
    /// Count and amounts in words: what must be said to have it done.
    pub confirm: String,
    /// How many were closed.
    pub closed: u64,
}

/// What was heard since a time.
#[derive(Debug, Default)]
struct Heard {
    lanes: HashSet<LaneId>,
    channels: HashSet<ChannelId>,
}

impl Heard {
    fn take(&mut self, record: &Record) {
        for item in &record.items {
            match item {
                ItemRecord::Group(group) => {
                    self.lanes.insert(group.lane);
                }
                ItemRecord::Act(act) => match &act.act {
                    Act::Open(terms) => {
                        self.channels.insert(terms.id());
                    }
                    Act::Grant(act) => {
                        self.channels.insert(act.channel);
                    }
                    Act::Revoke(act) => {
                        self.channels.insert(act.channel);
                    }
                    Act::Amend(act) => {
                        self.channels.insert(act.channel);
                    }
                    // Every attach commits one.
                    Act::Void(act) => {
                        self.lanes.insert(act.lane);
                    }
                    _ => {}
                },
            }
        }
    }
}

/// The channels of which nothing was heard for so long, and what a sweep says of them.
async fn find(handle: &Handle, idle: Duration) -> Result<(Vec<ChannelId>, Sweep), Fault> {
    let idle_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
    let since = handle.now()?.minus_ms(idle_ms);
    let reading = handle.clone();
    let heard = tokio::task::spawn_blocking(move || heard_since(reading.journal(), since)).await;
    let heard = heard.map_err(|error| Fault::new("failed", error.to_string()))??;
    let mut idle_channels = Vec::new();
    let mut returned: BTreeMap<Currency, u128> = BTreeMap::new();
    for shard in 0..handle.shards() {
        let mut after = None;
        loop {
            let query = Query::Channels { account: None, after, limit: PAGE };
            let Facts::Channels(page) = handle.ask(shard, query).await? else { break };
            for info in page.iter().filter(|info| !info.closed) {
                if is_idle(handle, shard, info, &heard).await? {
                    let unspent = info.capacity.checked_sub(info.spent).unwrap_or(Amount::ZERO);
                    *returned.entry(info.terms.currency).or_default() += u128::from(unspent.nanos());
                    idle_channels.push(info.channel);
                }
            }
            match page.last() {
                Some(last) if page.len() >= PAGE => after = Some(last.channel),
                _ => break,
            }
        }
    }
    idle_channels.sort_unstable();
    let returned: BTreeMap<String, String> = returned
        .into_iter()
        .map(|(currency, nanos)| (currency.to_string(), crate::engine::ledger::units(nanos)))
        .collect();
    let sweep = Sweep {
        dry_run: true,
        idle_ms,
        channels: idle_channels.len() as u64,
        confirm: words(idle_channels.len(), &returned),
        returned,
        closed: 0,
    };
    Ok((idle_channels, sweep))
}

/// `3 channels, 12.5 EUR`.
fn words(channels: usize, returned: &BTreeMap<String, String>) -> String {
    let amounts = returned.iter().map(|(currency, amount)| format!("{amount} {currency}"));
    core::iter::once(format!("{channels} channels")).chain(amounts).collect::<Vec<_>>().join(", ")
}

async fn is_idle(handle: &Handle, shard: usize, info: &ChannelInfo, heard: &Heard) -> Result<bool, Reject> {
    if heard.channels.contains(&info.channel) || heard.lanes.contains(&info.terms.lane_zero().id()) {
        return Ok(false);
    }
    let mut from = 1;
    while from < info.lanes {
        let Facts::Lanes(lanes) = handle.ask(shard, Query::Lanes { channel: info.channel, from }).await? else {
            return Ok(false);
        };
        if lanes.is_empty() || lanes.iter().any(|lane| heard.lanes.contains(&lane.lane)) {
            return Ok(false);
        }
        from += u32::try_from(lanes.len()).unwrap_or(u32::MAX);
    }
    Ok(true)
}

/// Reads what was committed since a time. Where commits of that time were pruned, nobody can say what was idle.
fn heard_since(journal: &JournalReader, since: Time) -> Result<Heard, Fault> {
    let failed = |error: StoreError| Fault::new("failed", error.to_string());
    let damaged = |number| Fault::new("failed", format!("commit {number} cannot be read"));
    let mut heard = Heard::default();
    let (Some(first), Some(last)) = (journal.first().map_err(failed)?, journal.last().map_err(failed)?) else {
        return Ok(heard);
    };
    let time_of = |number: u64| -> Result<Time, Fault> {
        let entry = journal.read(number).map_err(failed)?.ok_or_else(|| damaged(number))?;
        Ok(Record::decode(&entry.payload).map_err(|_| damaged(number))?.header().time)
    };
    if first > 1 && time_of(first)? > since {
        return Err(Fault::new("pruned", "the journal no longer reaches back so far".to_owned())
            .hint("ask for channels that were idle for a shorter time"));
    }
    // The first commit at or after `since`: times never fall.
    let (mut low, mut high) = (first, last.number + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if time_of(middle)? < since {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if low > last.number {
        return Ok(heard);
    }
    let mut broken = None;
    let scanned = journal.scan(low, &mut |entry| {
        if let Ok(record) = Record::decode(&entry.payload) {
            heard.take(&record);
            return ControlFlow::Continue(());
        }
        broken = Some(entry.position.number);
        ControlFlow::Break(())
    });
    scanned.map_err(failed)?;
    broken.map_or(Ok(heard), |number| Err(damaged(number)))
}

/// Closes what is idle, when `confirm` says what that is; without it, only says it.
///
/// What was paid between the look and the close is paid: each close is over the heads that its channel has then.
pub(super) async fn sweep(handle: &Handle, idle: Duration, confirm: Option<&str>) -> Result<Sweep, Fault> {
    let (channels, mut sweep) = find(handle, idle).await?;
    let Some(confirm) = confirm else { return Ok(sweep) };
    if confirm != sweep.confirm {
        let message = format!("`{confirm}` was confirmed, but it would be `{}`; nothing was closed", sweep.confirm);
        return Err(Fault::new("changed", message).hint("look again with `--dry-run`"));
    }
    sweep.dry_run = false;
    sweep.closed = close(handle, channels).await;
    Ok(sweep)
}

/// Closes channels; how many. One that is closed already, or about to be, is passed over.
async fn close(handle: &Handle, channels: Vec<ChannelId>) -> u64 {
    let mut closed = 0;
    let mut running = JoinSet::new();
    let mut waiting = channels.into_iter();
    loop {
        while running.len() < AT_ONCE {
            let Some(channel) = waiting.next() else { break };
            let handle = handle.clone();
            running.spawn(async move { handle.close(channel).await.map(|_| ()) });
        }
        match running.join_next().await {
            None => return closed,
            Some(Ok(Ok(()))) => closed += 1,
            Some(Ok(Err(Reject::Closed))) => {}
            Some(Ok(Err(reject))) => tracing::warn!(%reject, "an idle channel was not closed"),
            Some(Err(error)) => tracing::warn!(%error, "an idle channel was not closed"),
        }
    }
}

/// Closes what has been idle for so long, as long as the hub runs.
pub async fn schedule(handle: Handle, idle: Duration) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match find(&handle, idle).await {
            Ok((channels, sweep)) if !channels.is_empty() => {
                let closed = close(&handle, channels).await;
                tracing::info!(closed, returned = ?sweep.returned, "idle channels were closed");
            }
            Ok(_) => {}
            Err(fault) => tracing::warn!(%fault, "idle channels cannot be found"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_count_and_amounts() {
        let returned = BTreeMap::from([("EUR".to_owned(), "12.5".to_owned()), ("CHF".to_owned(), "1".to_owned())]);
        assert_eq!(words(3, &returned), "3 channels, 1 CHF, 12.5 EUR");
        assert_eq!(words(0, &BTreeMap::new()), "0 channels");
    }
}
