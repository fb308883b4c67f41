//! Direct debits: the operator accepts mandates and collects; the bank books, books back, refuses, repeats itself, says it in
//! any order, and names other amounts and accounts.

use weir_hub::engine::collections::{Collection, CollectionState, MandateRecord, MandateState, NotCollected};
use weir_protocol::act::{
    Act, ApproveCollect, Collect, Collected, CollectionWord, Freeze, MandateScheme, MandateTerms,
};
use weir_protocol::amount::{Amount, Time};
use weir_protocol::hash::Hash;
use weir_protocol::id::AccountId;

use super::say;
use crate::sim::cx::Cx;
use crate::sim::hub::Hub;
use crate::sim::model::EUR;

const CENT: u64 = 10_000_000;
const DAY_MS: u64 = 86_400_000;

/// One look at mandates and collections.
pub(super) fn debits(cx: &mut Cx, hub: &mut Hub) {
    freeze(cx, hub);
    accept(cx, hub);
    if cx.busy() && cx.rng.once_in(4) {
        collect(cx, hub);
    }
    if cx.busy() && cx.rng.once_in(2) {
        agree(cx, hub);
    }
    if cx.rng.once_in(3) {
        bank(cx, hub);
    }
}

/// Who owes what was taken back is frozen.
fn freeze(cx: &mut Cx, hub: &mut Hub) {
    let Some(books) = hub.durable() else { return };
    let owing: Vec<AccountId> = books.collections().owing().iter().copied().collect();
    for account in owing {
        if !cx.busy() || cx.rng.once_in(3) {
            cx.reach("direct debit: spent and taken back");
            let (incoming, reason) = (cx.rng.once_in(4), "taken back".into());
            hub.order(cx, Act::Freeze(Freeze { account, incoming, outgoing: true, reason }));
        }
    }
}

/// Mandates that wait are accepted; some that are in force change or end.
fn accept(cx: &mut Cx, hub: &mut Hub) {
    if cx.calm {
        return;
    }
    let Some(books) = hub.durable() else { return };
    let all: Vec<(AccountId, String, MandateRecord)> = books
        .collections()
        .mandates()
        .filter(|(account, _, record)| {
            let first = books.collections().in_force(account).is_none();
            (record.state == MandateState::Waiting && first) || (cx.busy() && cx.rng.once_in(20))
        })
        .map(|(account, id, record)| (account, id.to_owned(), record.clone()))
        .collect();
    let Some((account, mandate_id, record)) = cx.rng.pick(&all).cloned() else { return };
    let core = record.scheme == MandateScheme::Core;
    let accepted = record.state == MandateState::Waiting || cx.rng.once_in(2);
    let takes = core && accepted;
    let terms = MandateTerms {
        account,
        mandate_id,
        accepted,
        at_once: Amount::from_nanos(if takes { cx.rng.below(4) * 80 * CENT } else { 0 }),
        // The days of a run are too short: what can be taken back either becomes available with the next cut-off, or never.
        provisional_days: u32::from(takes && cx.rng.once_in(2)),
    };
    hub.order(cx, Act::MandateTerms(terms));
}

/// The bank is told of one more collection; now and then of one that is wrong.
fn collect(cx: &mut Cx, hub: &mut Hub) {
    let Some(books) = hub.durable() else { return };
    let all = books.collections();
    let mandates: Vec<(AccountId, String)> = all
        .mandates()
        .filter(|(_, _, record)| record.state == MandateState::Accepted || cx.rng.once_in(30))
        .map(|(account, id, _)| (account, id.to_owned()))
        .collect();
    let Some((account, mandate_id)) = cx.rng.pick(&mandates).cloned() else { return };
    let wrong = if cx.rng.once_in(6) { cx.rng.below(6) } else { u64::MAX };
    cx.operations += 1;
    // Some are more than the account has, so that it cannot give them back once they are spent.
    let most = if cx.rng.once_in(3) { 500 } else { 90 };
    // The hub's clock may be behind.
    let created_at = cx.now().minus_ms(10_000);
    let alone = (books.policy().approvals == 0 && cx.rng.once_in(2)) || cx.rng.once_in(12);
    let first =
        if alone { all.would_be_first(&account, &mandate_id) } else { all.plan_would_be_first(&account, &mandate_id) };
    let act = Collect {
        collection: if wrong == 0 { all.next() + 1 } else { all.next() },
        account,
        currency: EUR,
        amount: Amount::from_nanos(cx.rng.range(1, most) * CENT + u64::from(wrong == 1)),
        created_at: if wrong == 2 { cx.now().plus_ms(DAY_MS) } else { created_at },
        due: Time((cx.now().0 / DAY_MS + 14) * DAY_MS + u64::from(wrong == 3)),
        first: first != (wrong == 4),
        mandate_id: if wrong == 5 { "M-of-nobody".into() } else { mandate_id },
        file: Hash([8; 32]),
    };
    // Also when it may not: then it is refused.
    if alone {
        hub.order(cx, Act::Collect(act));
    } else {
        say(cx, hub, &|_| false, |operator, number| {
            Act::ApproveCollect(ApproveCollect { number, operator, approved: true, collect: act })
        });
    }
}

/// What is planned is agreed to, given up, or told, whether it may be or not.
fn agree(cx: &mut Cx, hub: &mut Hub) {
    let Some(books) = hub.durable() else { return };
    let plans: Vec<_> = books.collections().plans().values().cloned().collect();
    let Some(plan) = cx.rng.pick(&plans).cloned() else { return };
    let may = books.may_collect(&plan.collect, cx.now());
    let meddles = cx.rng.once_in(6);
    let mut collect = plan.collect.clone();
    if meddles && cx.rng.once_in(2) {
        collect.amount = Amount::from_nanos(collect.amount.nanos() + CENT);
    }
    if (may.is_ok() && !meddles) || cx.rng.once_in(8) {
        cx.reach("direct debit: told after operators agreed");
        return hub.order(cx, Act::Collect(collect));
    }
    let approved = !meddles && !matches!(may, Err(NotCollected::Planner | NotCollected::Name));
    say(
        cx,
        hub,
        &|key| !meddles && approved && (plan.planner == *key || plan.approvals.contains(key)),
        |key, number| Act::ApproveCollect(ApproveCollect { number, operator: key, approved, collect }),
    );
}

/// The bank says something of a collection.
fn bank(cx: &mut Cx, hub: &mut Hub) {
    let Some(books) = hub.durable() else { return };
    let lies = cx.busy() && cx.rng.once_in(4);
    let all: Vec<Collection> = books
        .collections()
        .iter()
        .map(|(_, one)| one)
        .filter(|one| lies || one.state() == CollectionState::Told || (cx.busy() && !one.words.returned))
        .cloned()
        .collect();
    let Some(one) = cx.rng.pick(&all) else { return };
    let word = match cx.rng.below(6) {
        0 => CollectionWord::Refused,
        1 if cx.busy() => CollectionWord::Returned,
        2 if one.words.booked && cx.busy() => CollectionWord::Returned,
        _ => CollectionWord::Booked,
    };
    match (word, one.words.booked, one.until == Time(0), one.at_once.is_zero() && one.provisional.is_zero()) {
        (CollectionWord::Returned, false, ..) => cx.reach("direct debit: taken back before it is booked"),
        (CollectionWord::Returned, true, false, true) => cx.reach("direct debit: taken back after its period"),
        (CollectionWord::Returned, true, false, false) => cx.reach("direct debit: taken back within its period"),
        (CollectionWord::Returned, true, true, _) => cx.reach("direct debit: taken back, B2B"),
        (CollectionWord::Booked, ..) if one.words.refused => cx.reach("direct debit: booked after it was refused"),
        _ => {}
    }
    let wrong = u64::from(lies && cx.rng.once_in(3));
    let account = if lies && cx.rng.once_in(6) {
        let accounts: Vec<AccountId> = cx.model.accounts.keys().copied().collect();
        cx.rng.pick(&accounts).copied().unwrap_or(one.told.account)
    } else {
        one.told.account
    };
    let collected = Collected {
        collection: one.told.collection,
        account,
        currency: EUR,
        amount: Amount::from_nanos(one.told.amount.nanos() + wrong),
        word,
        reference: format!("- debit {}", cx.rng.below(1000)),
    };
    hub.order(cx, Act::Collected(collected));
}
