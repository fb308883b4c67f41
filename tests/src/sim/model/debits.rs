//! The model's view of direct debits: who lets the hub collect, what the bank said, what may be spent of it.

use std::collections::BTreeSet;

use weir_protocol::act::{ApproveCollect, Collect, Collected, CollectionWord, Mandate, MandateScheme, MandateTerms};
use weir_protocol::amount::Time;
use weir_protocol::id::AccountId;
use weir_protocol::keys::PublicKey;

use super::acts::{CENT, DAY_MS, missing};
use super::{Model, Pot, nanos};
use crate::sim::log::{Checked, ensure};

/// A permission to collect.
#[derive(Debug, Clone)]
pub(crate) struct MandateModel {
    account: AccountId,
    core: bool,
    accepted: bool,
    ended: bool,
    at_once: i128,
    days: u64,
}

/// A collection.
#[derive(Debug, Clone)]
pub(crate) struct DebitModel {
    account: AccountId,
    mandate: String,
    amount: i128,
    words: BTreeSet<u16>,
    /// Cannot be spent yet.
    provisional: i128,
    /// Can be spent, and still be taken back.
    counted: i128,
    /// While it can be taken back: until when.
    until: Option<Time>,
    /// Who bears what was short of it, once that is settled.
    bearer: Option<Bearer>,
}

/// Who bears what a collection was short of.
#[derive(Debug, Clone, Copy)]
enum Bearer {
    Account(AccountId),
    Hub,
}

/// What operators agree to collect.
#[derive(Debug, Clone)]
pub(crate) struct DebitPlanModel {
    collect: Collect,
    /// As its account was called.
    name: String,
    planner: PublicKey,
    agreed: BTreeSet<PublicKey>,
}

impl DebitModel {
    fn said(&self, word: CollectionWord) -> bool {
        self.words.contains(&word.code())
    }
}

fn short_name(collection: u64) -> String {
    format!("direct debit/{collection}")
}

impl Model {
    pub(super) fn mandate(&mut self, act: &Mandate, key: Option<PublicKey>) -> Checked {
        self.number(act.account.key(), None, act.number, key)?;
        if act.revoked {
            let known = self.mandates.get_mut(&act.mandate_id).ok_or_else(missing("mandate"))?;
            ensure(known.account == act.account && !known.ended, || "a mandate ended twice".into())?;
            known.ended = true;
            return Ok(());
        }
        let core = act.scheme == MandateScheme::Core;
        let new = MandateModel { account: act.account, core, accepted: false, ended: false, at_once: 0, days: 0 };
        let known = self.mandates.insert(act.mandate_id.clone(), new);
        ensure(known.is_none(), || "a mandate's id was used twice".into())
    }

    pub(super) fn mandate_terms(&mut self, act: &MandateTerms) -> Checked {
        let others = |(id, known): (&String, &MandateModel)| {
            *id != act.mandate_id && known.account == act.account && known.accepted && !known.ended
        };
        let others = self.mandates.iter().any(others);
        ensure(!act.accepted || !others, || "two mandates of one account are in force".into())?;
        let known = self.mandates.get_mut(&act.mandate_id).ok_or_else(missing("mandate"))?;
        ensure(known.account == act.account && !known.ended, || "terms of a mandate that ended".into())?;
        (known.accepted, known.ended) = (act.accepted, !act.accepted);
        (known.at_once, known.days) = (nanos(act.at_once), u64::from(act.provisional_days));
        Ok(())
    }

    pub(super) fn approve_collect(&mut self, act: &ApproveCollect) -> Checked {
        let number = act.collect.collection;
        let name = self.accounts.get(&act.collect.account).ok_or_else(missing("account"))?.name.clone();
        let Some(plan) = self.debit_plans.get_mut(&number) else {
            ensure(act.approved, || "a direct debit was given up that nobody planned".into())?;
            ensure(!self.debits.contains_key(&number), || "a direct debit was planned after it was told".into())?;
            let (planner, agreed) = (act.operator, BTreeSet::new());
            self.debit_plans.insert(number, DebitPlanModel { collect: act.collect.clone(), name, planner, agreed });
            return Ok(());
        };
        ensure(plan.collect == act.collect, || "an agreement to another direct debit".into())?;
        if !act.approved {
            self.debit_plans.remove(&number);
            return Ok(());
        }
        ensure(plan.planner != act.operator, || "a planner agreed with himself".into())?;
        ensure(plan.agreed.insert(act.operator), || "an operator agreed twice".into())
    }

    /// Four eyes: what is told is what enough operators agreed to who stand, one of whom planned it.
    fn told_as_agreed(&mut self, act: &Collect) -> Checked {
        let Some(plan) = self.debit_plans.remove(&act.collection) else {
            return ensure(self.approvals() == 0, || "a direct debit was told that nobody planned".into());
        };
        ensure(plan.collect == *act, || "another direct debit was told than was planned".into())?;
        let agreed = plan.agreed.iter().filter(|key| self.stands(key)).count();
        ensure(agreed >= self.approvals() as usize, || format!("a direct debit was told with {agreed} approvals"))?;
        ensure(self.stands(&plan.planner), || "who planned a direct debit does not stand".into())?;
        let name = self.accounts.get(&act.account).map(|account| &account.name);
        ensure(name == Some(&plan.name), || "a direct debit was told though its account was renamed".into())
    }

    pub(super) fn collect(&mut self, act: &Collect, time: Time) -> Checked {
        self.active(&act.account)?;
        self.told_as_agreed(act)?;
        ensure(!self.debits.contains_key(&act.collection), || "a direct debit was told twice".into())?;
        let mandate = self.mandates.get(&act.mandate_id).ok_or_else(missing("mandate"))?;
        let stands = mandate.accepted && !mandate.ended && mandate.account == act.account;
        ensure(stands, || "collected without a mandate".into())?;
        let amount = nanos(act.amount);
        ensure(amount > 0 && amount % CENT == 0, || format!("{amount} was collected"))?;
        let day = act.due.0.is_multiple_of(DAY_MS) && act.due > act.created_at && act.created_at <= time;
        ensure(day, || "collected on no day".into())?;
        let before = |debit: &DebitModel| {
            let refused = debit.said(CollectionWord::Refused) && !debit.said(CollectionWord::Booked);
            debit.mandate == act.mandate_id && !debit.said(CollectionWord::Returned) && !refused
        };
        ensure(act.first != self.debits.values().any(before), || "FRST and RCUR were mistaken".into())?;
        let debit = DebitModel {
            account: act.account,
            mandate: act.mandate_id.clone(),
            amount,
            words: BTreeSet::new(),
            provisional: 0,
            counted: 0,
            until: None,
            bearer: None,
        };
        self.debits.insert(act.collection, debit);
        Ok(())
    }

    pub(super) fn collected(&mut self, act: &Collected, time: Time) -> Checked {
        let debit = self.debits.get_mut(&act.collection).ok_or_else(missing("direct debit"))?;
        let same = (debit.account, debit.amount) == (act.account, nanos(act.amount));
        ensure(same, || "the bank's word on another direct debit".into())?;
        ensure(debit.words.insert(act.word.code()), || "the bank's word on a direct debit was taken twice".into())?;
        match act.word {
            CollectionWord::Refused => Ok(()),
            CollectionWord::Booked => self.debit_booked(act.collection, time),
            CollectionWord::Returned => self.debit_returned(act.collection),
        }
    }

    fn debit_booked(&mut self, number: u64, time: Time) -> Checked {
        let debit = self.debits.get(&number).ok_or_else(missing("direct debit"))?.clone();
        let (account, amount) = (debit.account, debit.amount);
        self.money.cash += amount;
        if debit.said(CollectionWord::Returned) {
            match debit.bearer {
                None => {
                    self.money.unexplained -= amount;
                    self.waiting.remove(&short_name(number)).ok_or_else(missing("entry"))?;
                }
                Some(Bearer::Account(bearer)) => self.money.add(&bearer, Pot::Available, amount)?,
                Some(Bearer::Hub) => self.money.fees += amount,
            }
            self.money.cover();
            return Ok(());
        }
        let mandate = self.mandates.get(&debit.mandate).ok_or_else(missing("mandate"))?;
        if !mandate.core {
            return self.money.add(&account, Pot::Available, amount);
        }
        let limit = mandate.at_once;
        let until = time.plus_ms(mandate.days * DAY_MS);
        let open = self.debits.values().filter(|other| other.account == account && other.until.is_some());
        let exposed: i128 = open.map(|other| other.counted).sum();
        let counted = (limit - exposed).max(0).min(amount);
        ensure(counted == 0 || exposed + counted <= limit, || "more counts at once than the operator lets".into())?;
        self.money.add(&account, Pot::Available, counted)?;
        self.money.add(&account, Pot::Provisional, amount - counted)?;
        if let Some(debit) = self.debits.get_mut(&number) {
            (debit.provisional, debit.counted, debit.until) = (amount - counted, counted, Some(until));
        }
        Ok(())
    }

    fn debit_returned(&mut self, number: u64) -> Checked {
        let debit = self.debits.get_mut(&number).ok_or_else(missing("direct debit"))?;
        let (account, amount) = (debit.account, debit.amount);
        let mut missing_nanos = amount;
        self.money.cash -= amount;
        if debit.said(CollectionWord::Booked) {
            let own = std::mem::take(&mut debit.provisional);
            (debit.counted, debit.until) = (0, None);
            self.money.add(&account, Pot::Provisional, -own)?;
            let spendable = self.money.of(&account, Pot::Available).min(amount - own);
            self.money.add(&account, Pot::Available, -spendable)?;
            missing_nanos = amount - own - spendable;
            let others = self.debits.values_mut().rev().filter(|other| other.account == account);
            for other in others.filter(|other| other.until.is_some()) {
                let part = other.provisional.min(missing_nanos);
                other.provisional -= part;
                missing_nanos -= part;
                self.money.add(&account, Pot::Provisional, -part)?;
            }
            if missing_nanos > 0 {
                self.owing.insert(account);
            }
        }
        self.money.unexplained += missing_nanos;
        if missing_nanos > 0 {
            self.waiting.insert(short_name(number), -missing_nanos);
        }
        Ok(())
    }

    /// An entry that a collection was short of got its owner.
    pub(super) fn debit_borne(&mut self, entry: &str, by: Option<AccountId>) {
        let number = entry.strip_prefix("direct debit/").and_then(|number| number.parse().ok());
        if let Some(debit) = number.and_then(|number: u64| self.debits.get_mut(&number)) {
            debit.bearer = Some(by.map_or(Bearer::Hub, Bearer::Account));
        }
    }

    /// What cannot be taken back any more can be spent.
    pub(super) fn debits_mature(&mut self, time: Time) -> Checked {
        for debit in self.debits.values_mut().filter(|debit| debit.until.is_some_and(|until| until <= time)) {
            let provisional = std::mem::take(&mut debit.provisional);
            (debit.counted, debit.until) = (0, None);
            self.money.shift(&debit.account, Pot::Provisional, Pot::Available, provisional)?;
        }
        Ok(())
    }

    /// What an account has provisional is what its collections have.
    pub(super) fn invariant_provisional(&self) -> Checked {
        let accounts: BTreeSet<AccountId> = self.debits.values().map(|debit| debit.account).collect();
        for account in accounts {
            let of = self.debits.values().filter(|debit| debit.account == account);
            let sum: i128 = of.map(|debit| debit.provisional).sum();
            let held = self.money.of(&account, Pot::Provisional);
            ensure(sum == held, || format!("{held} of {account} is provisional, its direct debits have {sum}"))?;
        }
        Ok(())
    }
}
