//! Direct debits: what is collected under mandates, and the files that say so to the bank.
//!
//! Like a plan's file, a collection's is staged before its act is committed, moves to the outbox only after the act is
//! durable, and is never made again once it has left the stage. All that the bank is told follows from the act, so the same
//! collection gives the same bytes. Where operators must agree, the file is staged before the first of them is taken at his
//! word, looked at again before each other one is, and before the bank is told.

use std::io::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use weir_protocol::act::{Act, ApproveCollect, Collect, Freeze, MandateScheme, SignedAct};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, HubId};
use weir_protocol::keys::PublicKey;
use weir_protocol::reject::Reject;

use super::plan::hub_part;
use super::{BankAccount, Settlement, SettlementError, blocking, io};
use crate::bank::{
    Collection, CollectionBatch, CollectionHeader, Creditor, CreditorId, Date, Remittance, Scheme, Sequence,
    inspect_collections, write_atomically, write_collections,
};
use crate::engine::books::Books;
use crate::engine::collections::{CollectPlan, CollectionState, MandateState, NotCollected};
use crate::engine::windows::payout_of;

/// The furthest day on which a collection can be due.
const AHEAD_DAYS: u32 = 365;
const DAY_MS: u64 = 86_400_000;
/// What the owner of an account reads when a collection came back that was spent.
const FROZEN: &str = "a direct debit was taken back by its debtor's bank after its money was spent";

/// What the operator sets for direct debits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debits {
    /// The right to collect; without it nothing is.
    pub creditor_id: Option<CreditorId>,
    /// How many days before it is due the account's owner is told.
    pub lead_days: u32,
    /// When a mandate is accepted: how much CORE money counts at once.
    pub at_once: Amount,
    /// For how many days the rest stays provisional.
    pub provisional_days: u32,
}

impl Default for Debits {
    fn default() -> Self {
        Self { creditor_id: None, lead_days: 14, at_once: Amount::ZERO, provisional_days: 56 }
    }
}

/// Why nothing is collected.
#[derive(Debug, thiserror::Error)]
pub enum DebitError {
    /// Not set up.
    #[error("this hub has no creditor identifier")]
    NoCreditorId,
    /// No mandate in force.
    #[error("account `{0}` has no accepted mandate")]
    NoMandate(AccountId),
    /// Not a whole number of cents above zero, or too much for one transfer.
    #[error("`{0}` cannot be collected: an amount has whole cents, from 0.01 to 999999999.99")]
    Amount(Amount),
    /// Banks are closed.
    #[error("{due} is no day on which banks collect; {next} is")]
    Closed {
        /// As wished.
        due: Date,
        /// The next day that is one.
        next: Date,
    },
    /// The owner must be told earlier, or it is absurdly late.
    #[error("{due} cannot be: a collection is due from {from} to {to}")]
    Due {
        /// As wished.
        due: Date,
        /// The first day.
        from: Date,
        /// The last one.
        to: Date,
    },
    /// The bank cannot be told now.
    #[error("direct debit {collection} cannot be told: {why}")]
    NotNow {
        /// Its number.
        collection: u64,
        /// Why not.
        why: NotCollected,
    },
    /// Nobody planned it, or it was given up.
    #[error("direct debit {0} is not planned")]
    NotPlanned(u64),
    /// What an operator signed is not what would be told now.
    #[error("direct debit {0} is not what was signed any more")]
    Overtaken(u64),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] crate::bank::CollectError),
    /// Settlement.
    #[error(transparent)]
    Settlement(#[from] SettlementError),
}

impl From<Reject> for DebitError {
    fn from(reject: Reject) -> Self {
        Self::Settlement(reject.into())
    }
}

impl From<crate::bank::DateError> for DebitError {
    fn from(error: crate::bank::DateError) -> Self {
        Self::Settlement(error.into())
    }
}

impl From<crate::bank::AccountError> for DebitError {
    fn from(error: crate::bank::AccountError) -> Self {
        Self::Settlement(error.into())
    }
}

/// What is to be collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// From whom.
    pub account: AccountId,
    /// How much.
    pub amount: Amount,
    /// When; none: as soon as may be.
    #[serde(default)]
    pub due: Option<Date>,
}

/// A collection as people and programs see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionRow {
    /// Its number.
    pub collection: u64,
    /// `planned` (a dry run), `told`, `booked`, `returned` or `refused`.
    pub state: String,
    /// The account.
    pub account: AccountId,
    /// Its mandate.
    pub mandate_id: String,
    /// `core` or `b2b`.
    pub scheme: Scheme,
    /// The currency.
    pub currency: Currency,
    /// How much.
    pub amount: Amount,
    /// When its debtor is debited.
    pub due: Date,
    /// `first` or `recurring`.
    pub sequence: Sequence,
    /// Its id at the bank.
    pub end_to_end_id: String,
    /// Its file.
    pub file: String,
    /// Of it: not to be spent yet.
    pub provisional: Amount,
    /// Of it: counted at once, and can still be taken back.
    pub at_once: Amount,
    /// Until when it is provisional; none: it is not.
    pub until_ms: Option<u64>,
    /// Of it: taken back, and nobody had it.
    pub short: Amount,
    /// The operator who planned it; none: nobody need, or the bank was told.
    pub planned_by: Option<PublicKey>,
    /// Whose key that is.
    pub planned_by_name: Option<String>,
    /// Operators who agreed besides.
    pub approved_by: Vec<PublicKey>,
    /// Whose keys these are, in the same order.
    pub approved_by_names: Vec<String>,
    /// What it waits for; none: for nothing but being told, or it was told.
    pub waits: Option<String>,
}

/// A collection for an operator to sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectProposal {
    /// What it is.
    pub row: CollectionRow,
    /// The act that will tell of it; none: it is planned or told already.
    pub collect: Option<Collect>,
    /// From which bank account.
    pub debtor_iban: String,
    /// Where its file waits, once it is planned.
    pub staged: std::path::PathBuf,
}

/// All collections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionList {
    /// By number.
    pub collections: Vec<CollectionRow>,
}

/// A mandate as people and programs see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MandateRow {
    /// The account.
    pub account: AccountId,
    /// Its id.
    pub mandate_id: String,
    /// `waiting`, `accepted` or `ended`.
    pub state: MandateState,
    /// `core` or `b2b`.
    pub scheme: Scheme,
    /// Whose bank account it is, as registered.
    pub name: String,
    /// The bank account that is debited.
    pub iban: String,
    /// The day on which it was signed.
    pub signed_on: Option<Date>,
    /// How much CORE money counts at once.
    pub at_once: Amount,
    /// For how many days the rest stays provisional.
    pub provisional_days: u32,
    /// The commit of the operator's word, where one was just given.
    #[serde(default)]
    pub commit: Option<u64>,
}

/// All mandates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MandateList {
    /// By account and id.
    pub mandates: Vec<MandateRow>,
}

const fn scheme(scheme: MandateScheme) -> Scheme {
    match scheme {
        MandateScheme::Core => Scheme::Core,
        MandateScheme::B2b => Scheme::B2b,
    }
}

/// `EndToEndId` of a collection.
pub fn collection_id(hub: &HubId, number: u64) -> String {
    format!("DD{number}-{}", hub_part(hub))
}

/// `MsgId` and `PmtInfId` of its file.
fn message_id(hub: &HubId, number: u64) -> String {
    format!("WEIRDD-{}-{number}", hub_part(hub))
}

fn file_name(hub: &HubId, number: u64) -> String {
    format!("{}.pain008.xml", message_id(hub, number))
}

/// The number in an `EndToEndId`, if it is one of this hub's collections.
pub(super) fn number_of(hub: &HubId, end_to_end_id: &str) -> Option<u64> {
    let number = end_to_end_id.strip_prefix("DD")?.split_once('-')?.0.parse().ok()?;
    (collection_id(hub, number) == end_to_end_id).then_some(number)
}

/// The number in a `MsgId` or `PmtInfId`.
pub(super) fn number_of_file(hub: &HubId, message: &str) -> Option<u64> {
    let number = message.rsplit_once('-')?.1.parse().ok()?;
    (message_id(hub, number) == message).then_some(number)
}

/// Lists collections.
pub fn collections(books: &Books, hub: &HubId) -> CollectionList {
    let told = books.collections().iter().filter_map(|(_, one)| told_row(hub, one));
    let planned = books.collections().plans().values().filter_map(|plan| planned_row(books, hub, plan).ok());
    let mut rows: Vec<CollectionRow> = told.chain(planned).collect();
    rows.sort_by_key(|row| row.collection);
    CollectionList { collections: rows }
}

fn told_row(hub: &HubId, one: &crate::engine::collections::Collection) -> Option<CollectionRow> {
    let state = match one.state() {
        CollectionState::Told => "told",
        CollectionState::Booked => "booked",
        CollectionState::Returned => "returned",
        CollectionState::Refused => "refused",
    };
    let open = !one.provisional.is_zero() || !one.at_once.is_zero();
    Some(CollectionRow {
        provisional: one.provisional,
        at_once: one.at_once,
        until_ms: open.then_some(one.until.0),
        short: one.short,
        ..row(hub, &one.told, scheme(one.scheme), state).ok()?
    })
}

fn planned_row(books: &Books, hub: &HubId, plan: &CollectPlan) -> Result<CollectionRow, crate::bank::DateError> {
    // When it is told is decided by the clock then; here it is enough that it is not before it was planned.
    let waits = books.may_collect(&plan.collect, plan.collect.created_at).err();
    Ok(CollectionRow {
        planned_by: Some(plan.planner),
        planned_by_name: Some(books.operators().name(&plan.planner)),
        approved_by: plan.approvals.iter().copied().collect(),
        approved_by_names: plan.approvals.iter().map(|key| books.operators().name(key)).collect(),
        waits: waits.map(|why| why.to_string()),
        ..row(hub, &plan.collect, scheme(plan.scheme), "planned")?
    })
}

fn row(hub: &HubId, told: &Collect, scheme: Scheme, state: &str) -> Result<CollectionRow, crate::bank::DateError> {
    Ok(CollectionRow {
        collection: told.collection,
        state: state.to_owned(),
        account: told.account,
        mandate_id: told.mandate_id.clone(),
        scheme,
        currency: told.currency,
        amount: told.amount,
        due: Date::from_unix_ms(told.due.0)?,
        sequence: sequence(told),
        end_to_end_id: collection_id(hub, told.collection),
        file: file_name(hub, told.collection),
        provisional: Amount::ZERO,
        at_once: Amount::ZERO,
        until_ms: None,
        short: Amount::ZERO,
        planned_by: None,
        planned_by_name: None,
        approved_by: Vec::new(),
        approved_by_names: Vec::new(),
        waits: None,
    })
}

const fn sequence(told: &Collect) -> Sequence {
    if told.first { Sequence::First } else { Sequence::Recurring }
}

/// Lists mandates.
pub fn mandates(books: &Books) -> MandateList {
    let rows = books.collections().mandates().map(|(account, id, record)| MandateRow {
        account,
        mandate_id: id.to_owned(),
        state: record.state,
        scheme: scheme(record.scheme),
        name: books.account(&account).map(|known| known.name.clone()).unwrap_or_default(),
        iban: record.iban.clone(),
        signed_on: Date::from_unix_ms(record.signed_at.0).ok(),
        at_once: record.at_once,
        provisional_days: record.provisional_days,
        commit: None,
    });
    MandateList { mandates: rows.collect() }
}

/// What a wish comes to.
enum Wished {
    /// It was wished before.
    Known(CollectionRow),
    /// A collection that would be, and how people see it.
    New(Draft, CollectionRow),
}

/// A collection with all that its file says.
struct Draft {
    told: Collect,
    scheme: Scheme,
    debtor_name: String,
    debtor_iban: String,
    signed_at: Time,
}

impl Draft {
    fn bytes(&self, hub: &HubId, account: &BankAccount, creditor_id: CreditorId) -> Result<Vec<u8>, DebitError> {
        let number = self.told.collection;
        let name = account.name.clone();
        let header = CollectionHeader {
            message_id: message_id(hub, number),
            created_ms: self.told.created_at.0,
            creditor: Creditor { name, iban: account.iban, bic: account.bic.clone(), id: creditor_id },
        };
        let collection = Collection {
            end_to_end_id: collection_id(hub, number),
            amount: self.told.amount.to_decimal(),
            mandate_id: self.told.mandate_id.clone(),
            signed_on: Date::from_unix_ms(self.signed_at.0)?,
            debtor_name: self.debtor_name.clone(),
            debtor_iban: self.debtor_iban.parse()?,
            remittance: Remittance::Text(format!("Weir top-up {number}")),
        };
        let batch = CollectionBatch {
            batch_id: message_id(hub, number),
            scheme: self.scheme,
            sequence: sequence(&self.told),
            collection_date: Date::from_unix_ms(self.told.due.0)?,
            collections: vec![collection],
        };
        let mut bytes = Vec::new();
        write_collections(&mut bytes, &header, &[batch])?;
        inspect_collections(bytes.as_slice()).map_err(SettlementError::from)?;
        Ok(bytes)
    }
}

impl Settlement {
    /// With direct debits as the operator wants them.
    #[must_use]
    pub fn with_debits(self, debits: Debits) -> Self {
        Self { debits, ..self }
    }

    /// What the operator sets for direct debits.
    pub const fn debits(&self) -> &Debits {
        &self.debits
    }

    /// Tells the bank to collect where nobody need agree, or says what it would be told. A wish that was carried out already, for the same account,
    /// amount and day, is answered with what became of it.
    pub async fn collect(&self, wish: Wish, dry_run: bool) -> Result<CollectionRow, DebitError> {
        let _turn = self.turn.lock().await;
        self.release_collections().await?;
        let (draft, planned) = match self.wished(wish, false).await? {
            Wished::Known(row) => return Ok(row),
            Wished::New(draft, planned) => (draft, planned),
        };
        let told = draft.told.clone();
        let may = move |view: &crate::pipeline::View<'_>| view.books.may_collect(&told, view.time);
        let may = self.handle.read(may).await?;
        if let Err(why) = may {
            return match why {
                // What it would be, though operators must agree before it is.
                NotCollected::NoPlan { .. } if dry_run => Ok(CollectionRow { waits: Some(why.to_string()), ..planned }),
                NotCollected::Refused(reject) => Err(reject.into()),
                why => Err(DebitError::NotNow { collection: planned.collection, why }),
            };
        }
        if dry_run {
            return Ok(planned);
        }
        self.stage_collection(&draft, &planned.file).await?;
        self.order(Act::Collect(draft.told)).await?;
        self.stage.release(&planned.file)?;
        Ok(CollectionRow { state: "told".to_owned(), ..planned })
    }

    /// What an operator signs to plan a collection; nothing is written.
    pub async fn propose_collection(&self, wish: Wish) -> Result<CollectProposal, DebitError> {
        let _turn = self.turn.lock().await;
        self.release_collections().await?;
        let staged = self.stage.directory().to_owned();
        match self.wished(wish, true).await? {
            Wished::Known(row) => {
                let number = row.collection;
                let planned = move |view: &crate::pipeline::View<'_>| {
                    let iban = |of: &Collect| {
                        view.books.collections().mandate(&of.account, &of.mandate_id).map(|known| known.iban.clone())
                    };
                    let told = view.books.collections().get(number).map(|one| &one.told);
                    told.or(view.books.collections().plans().get(&number).map(|plan| &plan.collect)).and_then(iban)
                };
                let debtor_iban = self.handle.read(planned).await?.unwrap_or_default();
                Ok(CollectProposal { row, collect: None, debtor_iban, staged })
            }
            Wished::New(draft, row) => {
                Ok(CollectProposal { row, collect: Some(draft.told), debtor_iban: draft.debtor_iban, staged })
            }
        }
    }

    /// A planned collection, for another operator to agree to, or to be given up.
    pub async fn planned_collection(&self, collection: u64) -> Result<CollectProposal, DebitError> {
        let hub = self.handle.hub();
        let read = move |view: &crate::pipeline::View<'_>| {
            let plan = view.books.collections().plans().get(&collection)?;
            let of = &plan.collect;
            let mandate = view.books.collections().mandate(&of.account, &of.mandate_id)?;
            Some((planned_row(view.books, &hub, plan), plan.collect.clone(), mandate.iban.clone()))
        };
        let found = self.handle.read(read).await?.ok_or(DebitError::NotPlanned(collection))?;
        let (row, collect, debtor_iban) = found;
        let staged = self.stage.directory().to_owned();
        Ok(CollectProposal { row: row?, collect: Some(collect), debtor_iban, staged })
    }

    /// Takes an operator's word on a collection; whether it was new.
    pub async fn record_collection(&self, signed: SignedAct) -> Result<bool, DebitError> {
        let _turn = self.turn.lock().await;
        self.release_collections().await?;
        let Act::ApproveCollect(ApproveCollect { approved, collect, .. }) = &signed.act else {
            return Err(Reject::Unsupported.into());
        };
        let (number, approved) = (collect.collection, *approved);
        if approved {
            // Also where it is planned already: the file that lies there is the one that is agreed to.
            let draft = self.draft_of(collect).await?;
            self.stage_collection(&draft, &file_name(&self.handle.hub(), number)).await?;
        }
        self.fuse.burn()?;
        let new = self.handle.order_signed(signed).await;
        self.fuse.burn()?;
        // What was refused or given up leaves no file.
        self.release_collections().await?;
        Ok(new?.is_some())
    }

    /// Tells the bank of a collection that is planned and approved, or says what it waits for.
    pub async fn run_collection(&self, collection: u64, dry_run: bool) -> Result<CollectionRow, DebitError> {
        let _turn = self.turn.lock().await;
        self.release_collections().await?;
        let hub = self.handle.hub();
        let read = move |view: &crate::pipeline::View<'_>| {
            if let Some(one) = view.books.collections().get(collection) {
                return Some((told_row(&hub, one)?, None));
            }
            let plan = view.books.collections().plans().get(&collection)?;
            let may = view.books.may_collect(&plan.collect, view.time);
            Some((planned_row(view.books, &hub, plan).ok()?, Some((plan.collect.clone(), may))))
        };
        let (row, plan) = self.handle.read(read).await?.ok_or(DebitError::NotPlanned(collection))?;
        let Some((collect, may)) = plan else { return Ok(row) };
        // The account's owner is told so many days before: not fewer because operators took their time.
        let due = self.due(self.handle.now()?, Some(row.due))?;
        if dry_run {
            return Ok(CollectionRow { due, ..row });
        }
        may.map_err(|why| DebitError::NotNow { collection, why })?;
        let draft = self.draft_of(&collect).await?;
        self.stage_collection(&draft, &row.file).await?;
        self.order(Act::Collect(collect)).await?;
        self.stage.release(&row.file)?;
        Ok(CollectionRow {
            state: "told".to_owned(),
            planned_by: None,
            planned_by_name: None,
            approved_by: Vec::new(),
            approved_by_names: Vec::new(),
            waits: None,
            ..row
        })
    }

    /// The file of a collection waits for the bank, and is the one that its act names.
    async fn stage_collection(&self, draft: &Draft, name: &str) -> Result<(), DebitError> {
        let creditor_id = self.debits.creditor_id.clone().ok_or(DebitError::NoCreditorId)?;
        let bytes = draft.bytes(&self.handle.hub(), &self.account, creditor_id)?;
        if Hash(Sha256::digest(&bytes).into()) != draft.told.file {
            return Err(DebitError::Overtaken(draft.told.collection));
        }
        let path = self.stage.directory().join(name);
        if path.exists() {
            if super::sha256_of(&path).map_err(io("read", &path))? != draft.told.file {
                return Err(SettlementError::OtherCollection { collection: draft.told.collection, path }.into());
            }
            return Ok(());
        }
        let (staged, name) = (self.stage.directory().to_owned(), name.to_owned());
        self.fuse.burn()?;
        blocking(move || {
            write_atomically(&staged, &name, |out| out.write_all(&bytes).map_err(io("write into", &staged)))
        })
        .await?;
        Ok(())
    }

    /// What the file of a collection says, as the books are now.
    async fn draft_of(&self, collect: &Collect) -> Result<Draft, DebitError> {
        let told = collect.clone();
        let read = move |view: &crate::pipeline::View<'_>| {
            let mandate = view.books.collections().mandate(&told.account, &told.mandate_id)?;
            Some(Draft {
                scheme: scheme(mandate.scheme),
                debtor_name: view.books.account(&told.account).map(|known| known.name.clone()).unwrap_or_default(),
                debtor_iban: mandate.iban.clone(),
                signed_at: mandate.signed_at,
                told,
            })
        };
        self.handle.read(read).await?.ok_or(DebitError::NoMandate(collect.account))
    }

    /// What a wish comes to, told now or planned first.
    async fn wished(&self, wish: Wish, plan: bool) -> Result<Wished, DebitError> {
        let creditor_id = self.debits.creditor_id.clone().ok_or(DebitError::NoCreditorId)?;
        if wish.amount.is_zero() || payout_of(wish.amount, Currency::EUR) != wish.amount {
            return Err(DebitError::Amount(wish.amount));
        }
        let now = self.handle.now()?;
        let due = self.due(now, wish.due)?;
        let hub = self.handle.hub();
        let (known, draft) = self.handle.read(move |view| draft(view.books, &hub, (wish, plan), due, now)).await?;
        if let Some(known) = known {
            return Ok(Wished::Known(known));
        }
        let mut draft = draft.ok_or(DebitError::NoMandate(wish.account))?;
        let bytes = draft.bytes(&hub, &self.account, creditor_id)?;
        draft.told.file = Hash(Sha256::digest(&bytes).into());
        let planned = row(&hub, &draft.told, draft.scheme, "planned")?;
        Ok(Wished::New(draft, planned))
    }

    /// The day of a collection: as wished, if that may be, else the first that may.
    fn due(&self, now: Time, wished: Option<Date>) -> Result<Date, DebitError> {
        let today = Date::from_unix_ms(now.0)?;
        // A file made late in the day may reach the bank on the next: one day more than the banks ask for at least.
        let from = today.plus_days(self.debits.lead_days.max(1))?.target_day_from()?;
        let to = today.plus_days(AHEAD_DAYS)?;
        let due = wished.unwrap_or(from);
        if due < from || due > to {
            return Err(DebitError::Due { due, from, to });
        }
        if !due.is_target_day() {
            return Err(DebitError::Closed { due, next: due.target_day_from()? });
        }
        Ok(due)
    }

    /// What was begun is finished: a file whose act is durable goes to the bank, one whose act is not is removed.
    pub(super) async fn release_collections(&self) -> Result<(), SettlementError> {
        let hub = self.handle.hub();
        let mut staged = Vec::new();
        for entry in std::fs::read_dir(self.stage.directory()).map_err(io("list", self.stage.directory()))? {
            let name = entry.map_err(io("list", self.stage.directory()))?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".pain008.xml"));
            staged.extend(number.and_then(|id| number_of_file(&hub, id)));
        }
        for number in staged {
            let name = file_name(&hub, number);
            let path = self.stage.directory().join(&name);
            let read = move |view: &crate::pipeline::View<'_>| {
                let all = view.books.collections();
                (all.file_of(number), all.plans().contains_key(&number))
            };
            match self.handle.read(read).await? {
                // It waits for operators, or for being told.
                (None, true) => {}
                (None, false) => {
                    self.fuse.burn()?;
                    std::fs::remove_file(&path).map_err(io("remove", &path))?;
                }
                (Some(file), _) => {
                    if super::sha256_of(&path).map_err(io("read", &path))? != file {
                        return Err(SettlementError::OtherCollection { collection: number, path });
                    }
                    self.stage.release(&name)?;
                }
            }
        }
        Ok(())
    }

    /// Accounts that owe what their debtors took back are frozen: the books refuse them already, shards learn it so.
    pub(super) async fn freeze_owing(&self) -> Result<(), SettlementError> {
        let owing = |view: &crate::pipeline::View<'_>| -> Vec<(AccountId, bool)> {
            let of = |id: &AccountId| {
                let incoming = view.books.account(id).is_some_and(|known| known.standing.frozen_incoming);
                (*id, incoming)
            };
            view.books.collections().owing().iter().map(of).collect()
        };
        for (account, incoming) in self.handle.read(owing).await? {
            tracing::error!(%account, "a direct debit was taken back after its money was spent; the account is frozen");
            self.order(Act::Freeze(Freeze { account, incoming, outgoing: true, reason: FROZEN.to_owned() })).await?;
        }
        Ok(())
    }
}

fn draft(
    books: &Books,
    hub: &HubId,
    (wish, plan): (Wish, bool),
    due: Date,
    now: Time,
) -> (Option<CollectionRow>, Option<Draft>) {
    let due = Time(due.end_ms() - DAY_MS);
    let wished = |told: &Collect| (told.account, told.amount, told.due) == (wish.account, wish.amount, due);
    let told = books
        .collections()
        .collections_of(&wish.account)
        .find(|(_, one)| wished(&one.told) && one.state() != CollectionState::Refused);
    if let Some(known) = told.and_then(|(_, one)| told_row(hub, one)) {
        return (Some(known), None);
    }
    let planned = books.collections().plans().values().find(|plan| wished(&plan.collect));
    if let Some(known) = planned.and_then(|plan| planned_row(books, hub, plan).ok()) {
        return (Some(known), None);
    }
    let Some((mandate_id, mandate)) = books.collections().in_force(&wish.account) else { return (None, None) };
    let number = books.collections().next();
    let told = Collect {
        collection: number,
        account: wish.account,
        mandate_id: mandate_id.to_owned(),
        currency: Currency::EUR,
        amount: wish.amount,
        // The file says whole seconds.
        created_at: Time(now.0 - now.0 % 1000),
        due,
        first: if plan {
            books.collections().plan_would_be_first(&wish.account, mandate_id)
        } else {
            books.collections().would_be_first(&wish.account, mandate_id)
        },
        file: Hash::ZERO,
    };
    let debtor_name = books.account(&wish.account).map(|known| known.name.clone()).unwrap_or_default();
    let draft = Draft {
        told,
        scheme: scheme(mandate.scheme),
        debtor_name,
        debtor_iban: mandate.iban.clone(),
        signed_at: mandate.signed_at,
    };
    (None, Some(draft))
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_protocol::keys::PublicKey;

    #[test]
    fn ids_of_this_hub_only_are_taken_apart() {
        let hub = HubId(PublicKey([0xab; 32]));
        assert_eq!(collection_id(&hub, u64::MAX).len(), 33, "35 at most");
        assert!(message_id(&hub, 10_u64.pow(16)).len() <= 35);
        assert_eq!(number_of(&hub, "DD7-ababababab"), Some(7));
        assert_eq!(number_of_file(&hub, "WEIRDD-ababababab-7"), Some(7));
        for bad in ["", "DD07-ababababab", "DD7-acababacab", "W7-ababababab", "DD7", "DD-ababababab"] {
            assert_eq!(number_of(&hub, bad), None, "{bad}");
        }
        for bad in ["", "WEIRDD-ababababab-07", "WEIR-ababababab-7", "WEIRDD-acababacab-7", "7"] {
            assert_eq!(number_of_file(&hub, bad), None, "{bad}");
        }
    }
}
