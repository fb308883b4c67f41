//! What a person decides about a break: whose an entry is, or that something is accepted as it is.
//!
//! Allocations are acts, and each works once. An acceptance moves no money: it quiets an alarm, and is kept with what was
//! heard.

use serde::{Deserialize, Serialize};
use weir_protocol::act::{Act, Allocate, Debit, DebitCause, Deposit};
use weir_protocol::amount::{Amount, Currency};
use weir_protocol::id::AccountId;
use weir_protocol::reject::Reject;

use super::heard::{Accepted, Heard, Signed};
use super::reconcile::{PAYOUT_PATIENCE_MS, Reconciliation, opening_reference, reconcile};
use super::{Settlement, SettlementError, told};
use crate::clock::wall_ms;
use crate::engine::books::Books;
use crate::engine::unmatched::{EntryKey, UNPAID, Unmatched, payout_name};

/// Shortest beginning of an entry's id that names it.
pub const PREFIX_MIN: usize = 6;

/// To whom an entry is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// The hub itself: its fees bear it, or have it.
    Hub,
    /// An account.
    Account(AccountId),
}

impl Party {
    const fn account(self) -> Option<AccountId> {
        match self {
            Self::Hub => None,
            Self::Account(account) => Some(account),
        }
    }
}

impl core::str::FromStr for Party {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "hub" {
            return Ok(Self::Hub);
        }
        text.parse().map(Self::Account).map_err(|_| format!("`{text}` is neither an account (`weir1…`) nor `hub`"))
    }
}

impl core::fmt::Display for Party {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Hub => f.write_str("hub"),
            Self::Account(account) => account.fmt(f),
        }
    }
}

/// What is decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// An entry gets an owner.
    Allocate(Party),
    /// It stays as it is, for this reason.
    Accept(String),
}

/// An entry that nobody owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspenseRow {
    /// Its id.
    pub entry: String,
    /// `in` or `out`.
    pub direction: String,
    /// How much.
    pub amount: Amount,
    /// Its currency.
    pub currency: Currency,
    /// When it was posted.
    pub since_ms: u64,
    /// Whole days since then.
    pub age_days: u64,
    /// The bank's reference.
    pub bank_reference: String,
    /// Who sent or received it and what they wrote, as far as the bank says.
    pub about: String,
}

/// Entries that nobody owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspenseList {
    /// Oldest first.
    pub entries: Vec<SuspenseRow>,
}

/// What a decision did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// Whether this only says what would be.
    pub dry_run: bool,
    /// The break or entry: deciding it again changes nothing.
    pub id: String,
    /// `allocated` or `accepted`.
    pub done: String,
    /// How much, with the bank account's sign.
    pub amount: Signed,
    /// Its currency.
    pub currency: Option<Currency>,
    /// To whom.
    pub to: Option<String>,
    /// The commit that holds the allocation.
    pub commit: Option<u64>,
}

impl Resolved {
    /// Money that has an owner now; without a commit, that would have one.
    fn allocated(id: String, amount: Signed, currency: Currency, to: &Party, commit: Option<u64>) -> Self {
        Self {
            dry_run: commit.is_none(),
            id,
            done: "allocated".to_owned(),
            amount,
            currency: Some(currency),
            to: Some(to.to_string()),
            commit,
        }
    }
}

/// Why nothing was decided.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// No break or entry is named so.
    #[error("nothing waits under `{0}`")]
    Unknown(String),
    /// Several are.
    #[error("several entries begin with `{0}`")]
    Ambiguous(String),
    /// Its money cannot be allocated.
    #[error("`{0}` is no entry of the bank that could be allocated")]
    NoEntry(String),
    /// Money must get an owner.
    #[error("`{0}` is money that nobody owns: it must be allocated")]
    Money(String),
    /// Nothing says that a payout was not paid, or it is somebody else's.
    #[error(
        "`{0}` can go back to its own account only, while it is in transit, once the bank has contradicted itself or has said nothing for five days"
    )]
    Payout(String),
    /// An acceptance needs a reason.
    #[error("why `{0}` is accepted must be said")]
    NoReason(String),
    /// The hub refused.
    #[error(transparent)]
    Settlement(#[from] SettlementError),
}

impl From<Reject> for ResolveError {
    fn from(reject: Reject) -> Self {
        Self::Settlement(reject.into())
    }
}

/// Lists the entries that nobody owns.
pub fn suspense(books: &Books, heard: &Heard, now_ms: u64) -> SuspenseList {
    let mut entries: Vec<SuspenseRow> = books
        .unmatched()
        .iter()
        .map(|(key, entry)| SuspenseRow {
            entry: key.to_string(),
            direction: if entry.incoming { "in" } else { "out" }.to_owned(),
            amount: entry.amount,
            currency: entry.currency,
            since_ms: entry.posted_at.0,
            age_days: now_ms.saturating_sub(entry.posted_at.0) / 86_400_000,
            bank_reference: entry.bank_reference.clone(),
            about: heard.odd.get(&key.to_string()).map(|odd| odd.about.clone()).unwrap_or_default(),
        })
        .collect();
    entries.sort_by(|a, b| (a.since_ms, &a.entry).cmp(&(b.since_ms, &b.entry)));
    SuspenseList { entries }
}

/// The entry with an id, the beginning of one, or the bank's own reference.
fn entry(books: &Books, name: &str) -> Result<(EntryKey, Unmatched), ResolveError> {
    let by_id = |key: &EntryKey| name.len() >= PREFIX_MIN && key.to_string().starts_with(name);
    let mut found = books.unmatched().iter().filter(|(key, entry)| by_id(key) || entry.bank_reference == name);
    let (key, one) = found.next().ok_or_else(|| ResolveError::Unknown(name.to_owned()))?;
    if found.next().is_some() {
        return Err(ResolveError::Ambiguous(name.to_owned()));
    }
    Ok((*key, one.clone()))
}

/// The end-to-end id in the name of a payout or of its break: `W1-…`, `payout-EUR-W1-…`.
fn payout_id(name: &str) -> Option<&str> {
    let id = name.strip_prefix("payout-").and_then(|rest| rest.split_once('-')).map_or(name, |(_, id)| id);
    let (window, account) = id.strip_prefix('W')?.split_once('-')?;
    let fits = window.bytes().all(|byte| byte.is_ascii_digit()) && account.bytes().all(|byte| byte.is_ascii_hexdigit());
    fits.then_some(id)
}

impl Settlement {
    /// Bank against ledger.
    pub async fn reconcile(&self) -> Result<Reconciliation, SettlementError> {
        let heard = self.heard.lock().await.clone();
        let (now_ms, max_age) = (wall_ms(), self.statement_max_age_ms);
        Ok(self.handle.read(move |view| reconcile(view.books, &heard, now_ms, max_age)).await?)
    }

    /// The entries that nobody owns.
    pub async fn suspense(&self) -> Result<SuspenseList, SettlementError> {
        let heard = self.heard.lock().await.clone();
        Ok(self.handle.read(move |view| suspense(view.books, &heard, wall_ms())).await?)
    }

    /// Carries a decision out, or says what it would do.
    pub async fn resolve(&self, name: &str, decision: Decision, dry_run: bool) -> Result<Resolved, ResolveError> {
        let _turn = self.turn.lock().await;
        match decision {
            Decision::Allocate(party) if name.starts_with("opening-") => self.opening(name, party, dry_run).await,
            Decision::Allocate(party) if payout_id(name).is_some() => self.unpaid(name, party, dry_run).await,
            Decision::Allocate(party) => self.allocate(name, party, dry_run).await,
            Decision::Accept(note) => self.accept(name, note, dry_run).await,
        }
    }

    async fn allocate(&self, name: &str, party: Party, dry_run: bool) -> Result<Resolved, ResolveError> {
        let named = name.to_owned();
        let found = self.handle.read(move |view| entry(view.books, &named)).await?;
        let (key, entry) = match found {
            Err(ResolveError::Unknown(name)) if self.find_break(&name).await?.is_some() => {
                return Err(ResolveError::NoEntry(name));
            }
            found => found?,
        };
        if let Party::Account(account) = party {
            let known = self.handle.read(move |view| view.books.account(&account).is_some()).await?;
            if !known {
                return Err(Reject::UnknownAccount.into());
            }
        }
        let mut commit = None;
        if !dry_run {
            let act = Allocate {
                account: party.account(),
                incoming: entry.incoming,
                currency: entry.currency,
                amount: entry.amount,
                connector: entry.connector.clone(),
                bank_reference: entry.bank_reference.clone(),
            };
            commit = Some(self.order_allocate(act).await?);
        }
        Ok(Resolved::allocated(
            key.to_string(),
            Signed::of(!entry.incoming, entry.amount),
            entry.currency,
            &party,
            commit,
        ))
    }

    /// The commit that holds the allocation.
    async fn order_allocate(&self, act: Allocate) -> Result<u64, Reject> {
        let (done, _) = self.handle.order(Act::Allocate(act)).await?;
        Ok(done.commit().commit.number)
    }

    /// What was in the account before the hub read its first statement becomes an entry, and gets an owner.
    async fn opening(&self, name: &str, party: Party, dry_run: bool) -> Result<Resolved, ResolveError> {
        let (currency, one) = self.find_break(name).await?.ok_or_else(|| ResolveError::Unknown(name.to_owned()))?;
        let nanos = u64::try_from(one.amount.0.unsigned_abs()).map_err(|_| Reject::Overflow)?;
        let (amount, incoming) = (Amount::from_nanos(nanos), one.amount.0 > 0);
        let connector = self.account.iban.to_string();
        let bank_reference = opening_reference(currency);
        let mut commit = None;
        if !dry_run {
            let (to, reference) = (connector.clone(), bank_reference.clone());
            let posted = if incoming {
                let deposit = Deposit { account: None, currency, amount, connector: to, bank_reference: reference };
                self.handle.order(Act::Deposit(deposit)).await
            } else {
                let cause = DebitCause::Unknown;
                self.handle
                    .order(Act::Debit(Debit { cause, currency, amount, connector: to, bank_reference: reference }))
                    .await
            };
            match posted {
                Ok(_) | Err(Reject::Exists) => {}
                Err(reject) => return Err(reject.into()),
            }
            let account = party.account();
            let act = Allocate { account, incoming, currency, amount, connector, bank_reference };
            commit = Some(self.order_allocate(act).await?);
        }
        Ok(Resolved::allocated(name.to_owned(), one.amount, currency, &party, commit))
    }

    /// A payout in transit of which the bank has said, by another way, that it has not paid it, goes back to its account.
    async fn unpaid(&self, name: &str, party: Party, dry_run: bool) -> Result<Resolved, ResolveError> {
        let refused = || ResolveError::Payout(name.to_owned());
        let id = payout_id(name).ok_or_else(refused)?.to_owned();
        let found = self.handle.read(move |view| {
            let told = told::find(view.books, &id)?;
            let since = view.books.windows().get(told.window)?.time;
            let of_currency = view.books.statements().filter(|statement| statement.currency == told.currency);
            let stated = of_currency.map(|statement| statement.closed_at).max();
            let lost = stated.is_some_and(|stated| stated.0 > since.0.saturating_add(PAYOUT_PATIENCE_MS));
            let words = told.payout.words;
            let waits = told.payout.in_transit && !words.booked && !words.booked_back;
            Some((told, waits && (words.refused || lost)))
        });
        let (told, may) = found.await?.ok_or_else(|| ResolveError::Unknown(name.to_owned()))?;
        if !may || party != Party::Account(told.account) {
            return Err(refused());
        }
        let mut commit = None;
        if !dry_run {
            let act = Allocate {
                account: Some(told.account),
                incoming: true,
                currency: told.currency,
                amount: told.amount,
                connector: UNPAID.to_owned(),
                bank_reference: payout_name(told.window, told.currency, &told.account),
            };
            commit = Some(self.order_allocate(act).await?);
        }
        Ok(Resolved::allocated(name.to_owned(), Signed::of(false, told.amount), told.currency, &party, commit))
    }

    async fn accept(&self, name: &str, note: String, dry_run: bool) -> Result<Resolved, ResolveError> {
        let named = name.to_owned();
        if self.handle.read(move |view| entry(view.books, &named).is_ok()).await? {
            return Err(ResolveError::Money(name.to_owned()));
        }
        let (currency, one) = self.find_break(name).await?.ok_or_else(|| ResolveError::Unknown(name.to_owned()))?;
        if note.trim().is_empty() {
            return Err(ResolveError::NoReason(name.to_owned()));
        }
        if !dry_run {
            self.remember(name, note).await?;
        }
        Ok(Resolved {
            dry_run,
            id: name.to_owned(),
            done: "accepted".to_owned(),
            amount: one.amount,
            currency: Some(currency),
            to: None,
            commit: None,
        })
    }

    async fn remember(&self, name: &str, note: String) -> Result<(), SettlementError> {
        let mut heard = self.heard.lock().await;
        heard.accepted.insert(name.to_owned(), Accepted { at_ms: wall_ms(), note });
        heard.save(&self.root)
    }

    async fn find_break(&self, id: &str) -> Result<Option<(Currency, super::reconcile::Break)>, SettlementError> {
        let report = self.reconcile().await?;
        Ok(report.currencies.into_iter().find_map(|(currency, report)| {
            let one = report.breaks.into_iter().find(|one| one.id == id)?;
            Some((currency.parse().ok()?, one))
        }))
    }
}
