//! Direct debits: mandates, and what the bank has said of each collection.
//!
//! The bank books a collection, books it back, or refuses it; in any order, repeatedly, and not always all. Only what it
//! books moves money:
//!
//! | said | the account | cash |
//! |---|---|---|
//! | nothing, or refused | | |
//! | booked, B2B | available | + |
//! | booked, CORE | available as far as the operator lets it count at once, the rest provisional | + |
//! | booked back, before it was booked | an entry that nobody owns stands for it until it is booked | − |
//! | booked and booked back | this collection's provisional money, then available, then other provisional money | + − |
//!
//! What a collection that comes back has left of its money nowhere is short: an entry that nobody owns, and the account is
//! frozen. Provisional money becomes available with a cut-off after its refund period.
//!
//! Where the policy asks for approvals, operators agree to a collection before the bank is told of it, as they do to a
//! window's plan. Whether it may be told is decided in one place: `Collections::may_collect`.
//!
//! Pure: judged at commit time by [`super::books::Books`], live and again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use weir_protocol::act::{ApproveCollect, Collect, Collected, CollectionWord, Mandate, MandateScheme, MandateTerms};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::hash::Hash;
use weir_protocol::id::AccountId;
use weir_protocol::keys::PublicKey;
use weir_protocol::reject::Reject;

use super::ledger::{Ledger, LedgerError, Place};
use super::windows::{Rules, payout_of};
use crate::details::{Iban, check_identifier};

/// The connector of what a collection is short of, in place of a bank's own reference; the reference is its number.
pub const SHORT: &str = "direct debit";
/// Most mandates of one account, those that ended included.
pub const MANDATES_MAX: usize = 64;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Where a mandate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MandateState {
    /// For the operator.
    Waiting,
    /// The hub may collect under it.
    Accepted,
    /// Nothing is collected under it any more.
    Ended,
}

/// A mandate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MandateRecord {
    /// The rules.
    pub scheme: MandateScheme,
    /// The bank account that is debited.
    pub iban: String,
    /// When it was signed.
    pub signed_at: Time,
    /// Where it stands.
    pub state: MandateState,
    /// So much of what can be taken back counts at once.
    pub at_once: Amount,
    /// For so many days the rest stays provisional.
    pub provisional_days: u32,
}

/// What the bank has said of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CollectionWords {
    /// It booked the money.
    pub booked: bool,
    /// It booked it back.
    pub returned: bool,
    /// It refused.
    pub refused: bool,
}

/// How far a collection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CollectionState {
    /// The bank was told.
    Told,
    /// It booked the money.
    Booked,
    /// It booked it back.
    Returned,
    /// It refused.
    Refused,
}

/// A collection that the bank was told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collection {
    /// The act that told of it.
    pub told: Collect,
    /// Its mandate's rules.
    pub scheme: MandateScheme,
    /// What the bank has said.
    pub words: CollectionWords,
    /// Of it: provisional still.
    pub provisional: Amount,
    /// Of it: counted as available at once, and can still be taken back.
    pub at_once: Amount,
    /// Until when it is provisional: the first cut-off at or after this makes it available.
    pub until: Time,
    /// What the bank booked back of it and nobody had.
    pub short: Amount,
    /// Who bore what was short, if that was decided; within: none: the hub.
    pub borne_by: Option<Option<AccountId>>,
}

impl Collection {
    /// How far it has come.
    pub const fn state(&self) -> CollectionState {
        match self.words {
            CollectionWords { returned: true, .. } => CollectionState::Returned,
            CollectionWords { booked: true, .. } => CollectionState::Booked,
            CollectionWords { refused: true, .. } => CollectionState::Refused,
            _ => CollectionState::Told,
        }
    }
}

/// A collection that operators agree to before the bank is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectPlan {
    /// The act that will tell of it.
    pub collect: Collect,
    /// Its mandate's rules.
    pub scheme: MandateScheme,
    /// Who agreed first.
    pub planner: PublicKey,
    /// Who else agreed.
    pub approvals: BTreeSet<PublicKey>,
    /// What the file calls the account's owner.
    pub name: String,
}

impl CollectPlan {
    /// How many operators agree who stand and are not the planner.
    pub fn counted(&self, rules: Rules<'_>) -> u32 {
        let counts = |key: &&PublicKey| **key != self.planner && rules.operators.stands(key);
        u32::try_from(self.approvals.iter().filter(counts).count()).unwrap_or(u32::MAX)
    }
}

/// Why the bank cannot be told to collect now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotCollected {
    /// Nobody planned it, and somebody must.
    #[error("it is not planned: {needed} approvals by operators other than the planner are needed")]
    NoPlan {
        /// How many must agree.
        needed: u32,
    },
    /// It is not what was planned.
    #[error("another collection was planned under its number")]
    OtherPlan,
    /// Who planned does not stand any more.
    #[error("the operator who planned it was revoked; give it up and plan it again")]
    Planner,
    /// Too few agree.
    #[error("{given} of {needed} approvals by operators other than the planner are there")]
    Approvals {
        /// Who do.
        given: u32,
        /// Who must.
        needed: u32,
    },
    /// The file names the account's owner as he is called no more.
    #[error("the account's name was changed since it was planned; give it up and plan it again")]
    Name,
    /// The account, the mandate or the collection itself.
    #[error("it is refused: {0}")]
    Refused(#[from] Reject),
}

impl NotCollected {
    /// As an act is refused for it.
    pub const fn reject(self) -> Reject {
        match self {
            Self::NoPlan { .. } | Self::Approvals { .. } => Reject::NotApproved,
            Self::OtherPlan | Self::Name => Reject::Stale,
            Self::Planner => Reject::Unauthenticated,
            Self::Refused(reject) => reject,
        }
    }
}

/// What a collection's short money became when the bank's word was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShortOf {
    /// Nothing.
    Unchanged,
    /// So much is short now: an entry that nobody owns.
    Arose(Amount),
    /// It was booked after all.
    Ended,
}

/// Mandates and collections of all accounts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Collections {
    mandates: BTreeMap<(AccountId, String), MandateRecord>,
    /// Of all accounts: the banks know a mandate by its id alone.
    ids: BTreeSet<String>,
    all: BTreeMap<u64, Collection>,
    /// Of each account: its collections.
    of: BTreeSet<(AccountId, u64)>,
    /// What operators agree to, and the bank was not told of.
    plans: BTreeMap<u64, CollectPlan>,
    /// What can be taken back, by its end.
    open: BTreeSet<(Time, u64)>,
    /// Of each account: what can be taken back.
    open_of: BTreeSet<(AccountId, u64)>,
    /// Accounts that owe what was taken back, and that no act of the operator has answered yet.
    owing: BTreeSet<AccountId>,
}

const fn refused(error: LedgerError) -> Reject {
    match error {
        LedgerError::Insufficient => Reject::Insufficient,
        LedgerError::Overflow => Reject::Overflow,
    }
}

fn less(amount: Amount, part: Amount) -> Result<Amount, Reject> {
    amount.checked_sub(part).map_err(|_| Reject::Overflow)
}

impl Collections {
    /// All mandates, by account and id.
    pub fn mandates(&self) -> impl Iterator<Item = (AccountId, &str, &MandateRecord)> {
        self.mandates.iter().map(|((account, id), record)| (*account, id.as_str(), record))
    }

    /// One mandate.
    pub fn mandate(&self, account: &AccountId, id: &str) -> Option<&MandateRecord> {
        self.mandates.get(&(*account, id.to_owned()))
    }

    /// The mandate under which an account's money is collected.
    pub fn in_force(&self, account: &AccountId) -> Option<(&str, &MandateRecord)> {
        self.mandates_of(account).find(|(_, record)| record.state == MandateState::Accepted)
    }

    /// An account's mandates, by id.
    pub fn mandates_of(&self, account: &AccountId) -> impl Iterator<Item = (&str, &MandateRecord)> {
        let from = (*account, String::new());
        let account = *account;
        let all = self.mandates.range(from..).take_while(move |((of, _), _)| *of == account);
        all.map(|((_, id), record)| (id.as_str(), record))
    }

    /// All collections, by number.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Collection)> {
        self.all.iter().map(|(number, one)| (*number, one))
    }

    /// One collection.
    pub fn get(&self, number: u64) -> Option<&Collection> {
        self.all.get(&number)
    }

    /// An account's collections, the newest first.
    pub fn collections_of(&self, account: &AccountId) -> impl Iterator<Item = (u64, &Collection)> {
        let numbers = self.of.range((*account, 0)..=(*account, u64::MAX)).rev();
        numbers.filter_map(|(_, number)| Some((*number, self.all.get(number)?)))
    }

    /// What operators agree to, and the bank was not told of, by number.
    pub const fn plans(&self) -> &BTreeMap<u64, CollectPlan> {
        &self.plans
    }

    /// The number of the next collection. One that was given up leaves its number to another: the bank never heard of it.
    pub fn next(&self) -> u64 {
        let told = self.all.last_key_value().map_or(0, |(number, _)| *number);
        let planned = self.plans.last_key_value().map_or(0, |(number, _)| *number);
        told.max(planned).saturating_add(1)
    }

    /// Whether a collection under a mandate that the bank is told of now would be its first one: none before it was or may
    /// yet be executed.
    pub fn would_be_first(&self, account: &AccountId, mandate_id: &str) -> bool {
        let told = |one: &Collection| matches!(one.state(), CollectionState::Told | CollectionState::Booked);
        !self.collections_of(account).any(|(_, one)| one.told.mandate_id == mandate_id && told(one))
    }

    /// The same of one that is planned now: those that are planned already come before it.
    pub fn plan_would_be_first(&self, account: &AccountId, mandate_id: &str) -> bool {
        let planned = self.plans.values().any(|plan| plan.collect.mandate_id == mandate_id);
        !planned && self.would_be_first(account, mandate_id)
    }

    /// Accounts whose freeze is still to be committed.
    pub const fn owing(&self) -> &BTreeSet<AccountId> {
        &self.owing
    }

    /// The operator's word on an account's freeze, or the hub's own, answers for what it owes.
    pub(super) fn answered(&mut self, account: &AccountId) {
        self.owing.remove(account);
    }

    /// An entry that a collection was short of got its owner.
    pub(super) fn borne(&mut self, reference: &str, by: Option<AccountId>) {
        if let Some(one) = reference.parse().ok().and_then(|number: u64| self.all.get_mut(&number)) {
            one.borne_by = Some(by);
        }
    }

    /// Judges a mandate; its number and its account have been. A refusal changes nothing.
    pub(super) fn mandate_act(&mut self, act: &Mandate, now: Time, tolerance_ms: u64) -> Result<(), Reject> {
        let key = (act.account, act.mandate_id.clone());
        if act.revoked {
            let record = self.mandates.get_mut(&key).ok_or(Reject::Malformed)?;
            if record.state == MandateState::Ended {
                return Err(Reject::Revoked);
            }
            record.state = MandateState::Ended;
            return Ok(());
        }
        if check_identifier(&act.mandate_id).is_err() {
            return Err(Reject::Malformed);
        }
        let iban = act.iban.parse::<Iban>().map_err(|_| Reject::Iban)?;
        if !iban.is_sepa() {
            return Err(Reject::Iban);
        }
        if act.signed_at > now.plus_ms(tolerance_ms) {
            return Err(Reject::Clock);
        }
        if self.ids.contains(&act.mandate_id) {
            return Err(Reject::Exists);
        }
        if self.mandates_of(&act.account).count() >= MANDATES_MAX {
            return Err(Reject::TooLarge);
        }
        let record = MandateRecord {
            scheme: act.scheme,
            iban: iban.as_str().to_owned(),
            signed_at: act.signed_at,
            state: MandateState::Waiting,
            at_once: Amount::ZERO,
            provisional_days: 0,
        };
        self.ids.insert(act.mandate_id.clone());
        self.mandates.insert(key, record);
        Ok(())
    }

    /// Judges the operator's word on a mandate.
    pub(super) fn terms_act(&mut self, act: &MandateTerms) -> Result<(), Reject> {
        let key = (act.account, act.mandate_id.clone());
        let known = self.mandates.get(&key).ok_or(Reject::Malformed)?;
        if known.state == MandateState::Ended {
            return Err(Reject::Revoked);
        }
        let takes_none = act.at_once.is_zero() && act.provisional_days == 0;
        if (known.scheme == MandateScheme::B2b || !act.accepted) && !takes_none {
            return Err(Reject::Malformed);
        }
        if act.accepted && self.in_force(&act.account).is_some_and(|(id, _)| id != act.mandate_id) {
            return Err(Reject::Exists);
        }
        if let Some(record) = self.mandates.get_mut(&key) {
            record.state = if act.accepted { MandateState::Accepted } else { MandateState::Ended };
            record.at_once = act.at_once;
            record.provisional_days = act.provisional_days;
        }
        Ok(())
    }

    /// Whether the bank may be told of a collection now. Nothing else decides that, live or again; its account and its
    /// currency have been judged. `name`: what the account's owner is called.
    pub(super) fn may_collect(
        &self,
        act: &Collect,
        name: &str,
        rules: Rules<'_>,
        now: Time,
    ) -> Result<&MandateRecord, NotCollected> {
        if let Some(plan) = self.plans.get(&act.collection) {
            if plan.collect != *act {
                return Err(NotCollected::OtherPlan);
            }
            let (given, needed) = (plan.counted(rules), rules.approvals);
            if given < needed {
                return Err(NotCollected::Approvals { given, needed });
            }
            if !rules.operators.stands(&plan.planner) {
                return Err(NotCollected::Planner);
            }
            if plan.name != name {
                return Err(NotCollected::Name);
            }
        } else {
            self.is_next(act)?;
            if rules.approvals > 0 {
                return Err(NotCollected::NoPlan { needed: rules.approvals });
            }
        }
        let mandate = self.judge(act, now)?;
        // Also where it was planned after one that was not told.
        if act.first != self.would_be_first(&act.account, &act.mandate_id) {
            return Err(Reject::Stale.into());
        }
        Ok(mandate)
    }

    fn is_next(&self, act: &Collect) -> Result<(), Reject> {
        match act.collection.cmp(&self.next()) {
            core::cmp::Ordering::Less => Err(Reject::Stale),
            core::cmp::Ordering::Equal => Ok(()),
            core::cmp::Ordering::Greater => Err(Reject::Malformed),
        }
    }

    /// An operator agrees to a collection, which is its plan if nobody did before, or gives it up. Who says it and its number
    /// have been judged; where it is new, its account and its currency too.
    pub(super) fn approve_act(&mut self, act: &ApproveCollect, name: &str, now: Time) -> Result<(), Reject> {
        let number = act.collect.collection;
        if let Some(plan) = self.plans.get_mut(&number) {
            if plan.collect != act.collect {
                return Err(Reject::Stale);
            }
            if !act.approved {
                self.plans.remove(&number);
                return Ok(());
            }
            // Four eyes: nobody agrees with himself.
            if plan.planner == act.operator {
                return Err(Reject::Unauthenticated);
            }
            return if plan.approvals.insert(act.operator) { Ok(()) } else { Err(Reject::Exists) };
        }
        if !act.approved {
            return Err(Reject::Stale);
        }
        self.is_next(&act.collect)?;
        let scheme = self.judge(&act.collect, now)?.scheme;
        if act.collect.first != self.plan_would_be_first(&act.collect.account, &act.collect.mandate_id) {
            return Err(Reject::Stale);
        }
        let plan = CollectPlan {
            collect: act.collect.clone(),
            scheme,
            planner: act.operator,
            approvals: BTreeSet::new(),
            name: name.to_owned(),
        };
        self.plans.insert(number, plan);
        Ok(())
    }

    /// Whether a collection can be: its mandate, its amount, its days. The mandate.
    fn judge(&self, act: &Collect, now: Time) -> Result<&MandateRecord, Reject> {
        let mandate = self.mandate(&act.account, &act.mandate_id).ok_or(Reject::Malformed)?;
        match mandate.state {
            MandateState::Waiting => return Err(Reject::NotApproved),
            MandateState::Ended => return Err(Reject::Revoked),
            MandateState::Accepted => {}
        }
        // The scheme is in euro.
        if act.currency != Currency::EUR {
            return Err(Reject::Currency);
        }
        if act.amount.is_zero() {
            return Err(Reject::Zero);
        }
        let due_fits = act.due.0.is_multiple_of(DAY_MS) && act.due > act.created_at && act.due > mandate.signed_at;
        if payout_of(act.amount, act.currency) != act.amount || act.created_at > now || !due_fits {
            return Err(Reject::Malformed);
        }
        Ok(mandate)
    }

    /// The bank is about to be told of a collection.
    pub(super) fn collect_act(
        &mut self,
        act: &Collect,
        name: &str,
        rules: Rules<'_>,
        now: Time,
    ) -> Result<(), NotCollected> {
        let mandate = self.may_collect(act, name, rules, now)?;
        let one = Collection {
            scheme: mandate.scheme,
            told: act.clone(),
            words: CollectionWords::default(),
            provisional: Amount::ZERO,
            at_once: Amount::ZERO,
            until: Time(0),
            short: Amount::ZERO,
            borne_by: None,
        };
        self.plans.remove(&act.collection);
        self.of.insert((act.account, act.collection));
        self.all.insert(act.collection, one);
        Ok(())
    }

    /// Takes the bank's word. `Stale`: it has said so before. A refusal changes nothing.
    pub(super) fn hear(&mut self, act: &Collected, ledger: &mut Ledger, now: Time) -> Result<ShortOf, Reject> {
        let one = self.all.get(&act.collection).ok_or(Reject::UnknownPayment)?;
        if (one.told.account, one.told.currency, one.told.amount) != (act.account, act.currency, act.amount) {
            return Err(Reject::Malformed);
        }
        let said = match act.word {
            CollectionWord::Booked => one.words.booked,
            CollectionWord::Returned => one.words.returned,
            CollectionWord::Refused => one.words.refused,
        };
        if said {
            return Err(Reject::Stale);
        }
        let short = match act.word {
            CollectionWord::Booked => self.booked(act, ledger, now)?,
            CollectionWord::Returned => self.returned(act, ledger)?,
            CollectionWord::Refused => ShortOf::Unchanged,
        };
        if let Some(one) = self.all.get_mut(&act.collection) {
            match act.word {
                CollectionWord::Booked => one.words.booked = true,
                CollectionWord::Returned => one.words.returned = true,
                CollectionWord::Refused => one.words.refused = true,
            }
        }
        Ok(short)
    }

    /// Of an account: what counts at once and can still be taken back.
    fn exposed(&self, account: &AccountId) -> Amount {
        let open = self.open_of.range((*account, 0)..=(*account, u64::MAX));
        let parts = open.filter_map(|(_, number)| self.all.get(number)).map(|one| one.at_once);
        parts.fold(Amount::ZERO, |sum, part| sum.checked_add(part).unwrap_or(Amount::MAX))
    }

    fn booked(&mut self, act: &Collected, ledger: &mut Ledger, now: Time) -> Result<ShortOf, Reject> {
        let Collected { collection, account, currency, amount, .. } = *act;
        let exposed = self.exposed(&account);
        let one = self.all.get(&collection).ok_or(Reject::UnknownPayment)?;
        // What follows may be several movements: a refusal must change nothing.
        ledger.check_assets(currency, amount).map_err(refused)?;
        if one.words.returned {
            match one.borne_by {
                None => ledger.recover(currency, Place::Unexplained, amount),
                Some(Some(bearer)) => ledger.receive(currency, Place::Available(bearer), amount),
                Some(None) => ledger.receive(currency, Place::Fees, amount),
            }
            .map_err(refused)?;
            let ended = one.borne_by.is_none();
            ledger.cover(currency);
            if let Some(one) = self.all.get_mut(&collection) {
                one.short = Amount::ZERO;
            }
            return Ok(if ended { ShortOf::Ended } else { ShortOf::Unchanged });
        }
        let key = (account, one.told.mandate_id.clone());
        let terms = self.mandates.get(&key).ok_or(Reject::Malformed)?;
        let days = u64::from(terms.provisional_days);
        let counts = match one.scheme {
            MandateScheme::B2b => amount,
            MandateScheme::Core => terms.at_once.checked_sub(exposed).unwrap_or(Amount::ZERO).min(amount),
        };
        let rest = less(amount, counts)?;
        ledger.receive(currency, Place::Available(account), counts).map_err(refused)?;
        ledger.receive(currency, Place::Provisional(account), rest).map_err(refused)?;
        if one.scheme == MandateScheme::Core {
            let until = now.plus_ms(days.saturating_mul(DAY_MS));
            self.open.insert((until, collection));
            self.open_of.insert((account, collection));
            if let Some(one) = self.all.get_mut(&collection) {
                (one.provisional, one.at_once, one.until) = (rest, counts, until);
            }
        }
        Ok(ShortOf::Unchanged)
    }

    fn returned(&mut self, act: &Collected, ledger: &mut Ledger) -> Result<ShortOf, Reject> {
        let Collected { collection, account, currency, amount, .. } = *act;
        let one = self.all.get_mut(&collection).ok_or(Reject::UnknownPayment)?;
        if ledger.read(currency, &Place::Cash) < amount {
            return Err(Reject::Insufficient);
        }
        if !one.words.booked {
            // It moves nobody's money: the booking that it undoes is still to come.
            ledger.advance(currency, Place::Unexplained, amount).map_err(refused)?;
            one.short = amount;
            return Ok(ShortOf::Arose(amount));
        }
        let own = one.provisional.min(amount);
        let left = less(amount, own)?;
        let available = ledger.read(currency, &Place::Available(account)).min(left);
        let left = less(left, available)?;
        ledger.pay_out(currency, Place::Provisional(account), own).map_err(refused)?;
        ledger.pay_out(currency, Place::Available(account), available).map_err(refused)?;
        let until = one.until;
        (one.provisional, one.at_once) = (Amount::ZERO, Amount::ZERO);
        self.open.remove(&(until, collection));
        self.open_of.remove(&(account, collection));
        let short = self.take_provisional(account, currency, left, ledger)?;
        ledger.advance(currency, Place::Unexplained, short).map_err(refused)?;
        if short.is_zero() {
            return Ok(ShortOf::Unchanged);
        }
        if let Some(one) = self.all.get_mut(&collection) {
            one.short = short;
        }
        self.owing.insert(account);
        Ok(ShortOf::Arose(short))
    }

    /// Takes what other collections of an account have provisional, the newest first; what is left to take.
    fn take_provisional(
        &mut self,
        account: AccountId,
        currency: Currency,
        mut left: Amount,
        ledger: &mut Ledger,
    ) -> Result<Amount, Reject> {
        for (_, number) in self.open_of.range((account, 0)..=(account, u64::MAX)).rev() {
            let Some(other) = self.all.get_mut(number).filter(|other| other.told.currency == currency) else {
                continue;
            };
            let part = other.provisional.min(left);
            ledger.pay_out(currency, Place::Provisional(account), part).map_err(refused)?;
            other.provisional = less(other.provisional, part)?;
            left = less(left, part)?;
        }
        Ok(left)
    }

    /// What can be taken back no longer becomes available.
    pub(super) fn mature(&mut self, ledger: &mut Ledger, now: Time) {
        while let Some((_, number)) = self.open.first().copied().filter(|(until, _)| *until <= now) {
            self.open.pop_first();
            let Some(one) = self.all.get_mut(&number) else { continue };
            let (account, currency) = (one.told.account, one.told.currency);
            self.open_of.remove(&(account, number));
            let (from, to) = (Place::Provisional(account), Place::Available(account));
            let moved = ledger.move_owed(currency, from, to, one.provisional);
            assert!(moved.is_ok(), "a collection's provisional money is among its account's");
            (one.provisional, one.at_once) = (Amount::ZERO, Amount::ZERO);
        }
    }

    /// What an account's money at [`Place::Provisional`] must be.
    #[cfg(test)]
    fn provisional_of(&self, account: AccountId) -> u64 {
        self.all.values().filter(|one| one.told.account == account).map(|one| one.provisional.nanos()).sum()
    }

    /// Where the bank's file of a collection is known by: its hash.
    pub fn file_of(&self, number: u64) -> Option<Hash> {
        self.all.get(&number).map(|one| one.told.file)
    }
}

#[cfg(test)]
mod tests;
