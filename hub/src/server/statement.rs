//! Statements: what happened to an account, from the journal, in pages that end where they must, also inside a commit.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use weir_protocol::act::Act;
use weir_protocol::amount::Amount;
use weir_protocol::id::{AccountId, ChannelId, LaneId};
use weir_protocol::payment::payment_id;
use weir_protocol::reject::Reject;
use weir_protocol::wire::{Cursor, MAX_MESSAGE, MAX_PAGE, Reply, StatementEntry, StatementItem, encode};

use super::connection::Peer;
use super::rates::{Kind, Who};
use super::{Shared, lookup, reads};
use crate::engine::record::{ActRecord, GroupRecord, ItemRecord, Record};
use crate::engine::said::{About, Facts, Query};
use crate::engine::shard::about;
use crate::pipeline::recover::index_key;
use crate::store::Entry;

/// Things looked up in the index for one page; an account with more is read from the journal itself.
const LOOKUPS_MAX: usize = 64;
/// Commits looked at for one page.
const SCAN_COMMITS: usize = 2_048;
/// Room in a message for everything but the entries.
const ENVELOPE_BYTES: usize = 256;

/// What belongs to an account.
#[derive(Debug)]
struct Estate {
    account: AccountId,
    channels: BTreeSet<ChannelId>,
    lanes: HashMap<LaneId, (ChannelId, u32)>,
}

/// What happened to an account after a place.
pub(super) async fn statement(peer: &Peer, account: AccountId, after: Cursor, skip: u32) -> Result<Reply, Reject> {
    peer.check_account(&account)?;
    let shared = &peer.shared;
    shared.rates.take(Kind::JournalRead, Who::Address(peer.address))?;
    let is_known = shared.handle.read(move |view| view.books.account(&account).is_some()).await?;
    if !is_known {
        return Err(Reject::UnknownAccount);
    }
    // Asked before the estate: nothing in these commits belongs to a channel or lane that the shards do not know yet.
    let newest = shared.newest();
    let estate = estate(shared, account).await?;
    lookup::blocking(shared, move |shared| {
        lookup::check_cursor(shared, after)?;
        page(shared, &estate, (after, skip), newest)
    })
    .await
}

async fn estate(shared: &Arc<Shared>, account: AccountId) -> Result<Estate, Reject> {
    let mut estate = Estate { account, channels: BTreeSet::new(), lanes: HashMap::new() };
    let mut after = None;
    loop {
        let channels = reads::channels_of(shared, account, after).await?;
        for info in &channels {
            estate.channels.insert(info.channel);
            let shard = shared.handle.shard_of(&info.channel.0);
            let mut from = 0;
            while from < info.lanes {
                let query = Query::Lanes { channel: info.channel, from };
                let Facts::Lanes(lanes) = shared.handle.ask(shard, query).await? else { break };
                let Some(last) = lanes.last() else { break };
                from = last.grant.lane + 1;
                estate.lanes.extend(lanes.iter().map(|lane| (lane.lane, (info.channel, lane.grant.lane))));
            }
        }
        match channels.last() {
            Some(last) if channels.len() == MAX_PAGE => after = Some(last.channel),
            _ => return Ok(estate),
        }
    }
}

/// As many entries as fit, and the place up to which they go.
fn page(shared: &Shared, estate: &Estate, (after, skip): (Cursor, u32), newest: Cursor) -> Result<Reply, Reject> {
    let mut page = Page {
        estate,
        entries: Vec::new(),
        bytes: ENVELOPE_BYTES,
        through: after,
        known: skip as usize,
        given: 0,
        is_full: false,
    };
    let keys = 1 + estate.channels.len() + estate.lanes.len();
    let read = if keys <= LOOKUPS_MAX {
        let (numbers, horizon) = candidates(shared, estate, after.number + 1, newest.number)?;
        for number in numbers {
            let Some(entry) = shared.handle.journal().read(number).map_err(|error| lookup::refused(&error))? else {
                continue;
            };
            page.take(&entry)?;
            if page.is_full {
                break;
            }
        }
        horizon
    } else {
        scan(shared, &mut page, after.number + 1, newest.number)?
    };
    if !page.is_full && read >= newest.number && newest.number > page.through.number {
        page.through = newest;
    } else if !page.is_full && read > page.through.number {
        // Nothing of the account's lies between.
        let entry = shared.handle.journal().read(read).map_err(|error| lookup::refused(&error))?;
        page.through = entry.map_or(page.through, |entry| lookup::cursor(entry.position));
    }
    Ok(Reply::Statement { entries: page.entries, through: page.through, skip: page.given })
}

/// The commits that the index has for the account and what belongs to it, and up to which number they are all.
fn candidates(shared: &Shared, estate: &Estate, from: u64, newest: u64) -> Result<(BTreeSet<u64>, u64), Reject> {
    let keys = core::iter::once(About::Account(estate.account))
        .chain(estate.channels.iter().copied().map(About::Channel))
        .chain(estate.lanes.keys().copied().map(About::Lane));
    let mut numbers = BTreeSet::new();
    let mut horizon = newest;
    for key in keys {
        let mut found = 0;
        let each = &mut |entry: Entry| {
            if entry.position.number > horizon {
                return ControlFlow::Break(());
            }
            numbers.insert(entry.position.number);
            found += 1;
            if found == MAX_PAGE {
                horizon = entry.position.number;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        };
        let read = shared.handle.index().commits_of(index_key(&key), from, each);
        read.map_err(|error| lookup::refused(&error))?;
    }
    numbers.retain(|number| *number <= horizon);
    Ok((numbers, horizon))
}

/// Looks at the commits themselves; the number of the last one seen.
fn scan(shared: &Shared, page: &mut Page<'_>, from: u64, newest: u64) -> Result<u64, Reject> {
    let first = shared.handle.journal().first().map_err(|error| lookup::refused(&error))?.unwrap_or(1);
    let mut seen = 0;
    let mut last = from.saturating_sub(1);
    let mut failed = None;
    let each = &mut |entry: Entry| {
        if entry.position.number > newest || seen == SCAN_COMMITS {
            return ControlFlow::Break(());
        }
        if let Err(reject) = page.take(&entry) {
            failed = Some(reject);
        }
        if failed.is_some() || page.is_full {
            return ControlFlow::Break(());
        }
        seen += 1;
        last = entry.position.number;
        ControlFlow::Continue(())
    };
    shared.handle.journal().scan(from.max(first), each).map_err(|error| lookup::refused(&error))?;
    failed.map_or(Ok(last), Err)
}

struct Page<'a> {
    estate: &'a Estate,
    entries: Vec<StatementEntry>,
    bytes: usize,
    through: Cursor,
    /// Entries of the first commit that has any, which the peer has already.
    known: usize,
    /// Entries of the commit after `through` that the peer has with this page.
    given: u32,
    is_full: bool,
}

impl Page<'_> {
    /// Takes a commit's entries, as many as fit.
    fn take(&mut self, entry: &Entry) -> Result<(), Reject> {
        let record = lookup::decode(entry)?;
        let at = lookup::cursor(entry.position);
        let time = record.header().time;
        let items = self.estate.items(&record);
        let known = if items.is_empty() { 0 } else { core::mem::take(&mut self.known) };
        for (what, place) in items.into_iter().zip(0_u32..).skip(known) {
            let item = StatementEntry { at, time, what };
            let bytes = encode(&item).len();
            if self.entries.len() == MAX_PAGE || self.bytes + bytes > MAX_MESSAGE {
                self.given = place;
                self.is_full = true;
                return Ok(());
            }
            self.bytes += bytes;
            self.entries.push(item);
        }
        self.through = at;
        Ok(())
    }
}

impl Estate {
    /// What a commit holds for the account, in its order.
    fn items(&self, record: &Record) -> Vec<StatementItem> {
        let mut items = Vec::new();
        for (item, index) in record.items.iter().zip(0_u32..) {
            match item {
                ItemRecord::Group(group) => self.group(group, index, &mut items),
                ItemRecord::Act(act) if self.concerns(act) => items.push(StatementItem::Act(act.act.clone())),
                ItemRecord::Act(_) => {}
            }
        }
        items
    }

    fn group(&self, group: &GroupRecord, index: u32, items: &mut Vec<StatementItem>) {
        if let Some((channel, lane)) = self.lanes.get(&group.lane) {
            // The lane's total bounds the sum.
            let amount = group
                .payments()
                .fold(Amount::ZERO, |sum, (_, payment)| sum.checked_add(payment.amount).unwrap_or(Amount::MAX));
            items.push(StatementItem::Paid {
                channel: *channel,
                lane: *lane,
                count: group.count(),
                amount,
                currency: group.currency,
            });
        }
        if !group.pays(&self.account) {
            return;
        }
        let earned = group.payments().zip(0_u32..).filter(|((_, payment), _)| payment.payee == self.account);
        items.extend(earned.map(|((sequence, payment), leaf)| StatementItem::Earned {
            group: index,
            leaf,
            payment_id: payment_id(&group.lane, sequence),
            amount: payment.amount,
            currency: group.currency,
            reference: payment.reference,
        }));
    }

    /// Whether an act is the account's own, or the hub's about it or one of its channels. Voids move nothing, and their
    /// lane's stream has them.
    fn concerns(&self, record: &ActRecord) -> bool {
        let by_refund =
            record.context.is_some_and(|refund| refund.payer == self.account || refund.payee == self.account);
        let by_key = match about(&record.act) {
            About::Account(account) => account == self.account,
            About::Channel(channel) => self.channels.contains(&channel),
            About::Lane(_) => false,
        };
        let by_terms = matches!(&record.act, Act::Open(terms) if terms.account == self.account);
        by_refund || by_key || by_terms
    }
}
