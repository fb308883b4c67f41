//! Reconciliation: what the bank says that it holds, what the ledger says, what is owed; and everything that explains a
//! difference between them, or waits for a person.
//!
//! Pure: books and what was heard go in, a report comes out. It posts nothing; resolutions are acts, made elsewhere.
//!
//! ```text
//! bank (closing balance of the newest statement) + what no statement shows yet = cash
//! cash + shortfall + unexplained = liabilities + fees + carry + suspense
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::id::AccountId;

use super::end_to_end_id;
use super::heard::{Heard, Signed, StatementHeard};
use super::matching::Oddity;
use crate::engine::books::Books;
use crate::engine::collections::{CollectionState, SHORT};
use crate::engine::ledger::Sums;
use crate::engine::unmatched::TWICE;
use crate::engine::windows::WindowState;

/// Breaks that are listed of one currency; more are counted.
pub const BREAKS_MAX: usize = 20_000;
/// How long a bank may take to say something of a payout before it counts as lost: weekends and holidays.
pub(super) const PAYOUT_PATIENCE_MS: u64 = 5 * DAY_MS;
const DAY_MS: u64 = 86_400_000;

/// What kind of break it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakKind {
    /// Will come by itself: announced and not on a statement yet, told to the bank and not booked yet.
    Expected,
    /// Should be there: a statement of a sequence, an announced entry, what a file that cannot be read says.
    Missing,
    /// The bank moved more than was ordered.
    Over,
    /// The bank moved less.
    Under,
    /// In a currency that the hub does not serve.
    Currency,
    /// The bank booked something once more.
    Duplicate,
    /// At the bank, and nobody's here.
    UnmatchedBank,
    /// Here, and the bank says nothing, or two things, of it.
    UnmatchedHub,
    /// A payout that came back: its account has it again.
    Returned,
}

impl BreakKind {
    /// As in JSON and CSV.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expected => "expected",
            Self::Missing => "missing",
            Self::Over => "over",
            Self::Under => "under",
            Self::Currency => "currency",
            Self::Duplicate => "duplicate",
            Self::UnmatchedBank => "unmatched_bank",
            Self::UnmatchedHub => "unmatched_hub",
            Self::Returned => "returned",
        }
    }
}

/// Something that a person may have to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Break {
    /// Names it, always the same.
    pub id: String,
    /// Which kind.
    pub kind: BreakKind,
    /// How much, with the bank account's sign.
    pub amount: Signed,
    /// How much of `bank − cash` it explains.
    pub explains: Signed,
    /// Since when.
    pub since_ms: u64,
    /// Whole days since then.
    pub age_days: u64,
    /// What it is, for a person.
    pub what: String,
    /// The account that it concerns.
    pub account: Option<AccountId>,
    /// Whether a person accepted it as it is; why.
    pub accepted: Option<String>,
}

/// The newest statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewestStatement {
    /// The bank's id of it.
    pub id: String,
    /// The bank's number of it; 0: it has none.
    pub sequence: u64,
    /// The end of its day.
    pub closed_at_ms: u64,
}

/// One currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrencyReport {
    /// Closing balance of the newest statement; none before the first.
    pub bank: Option<Signed>,
    /// What the ledger says is at the bank.
    pub cash: Signed,
    /// Owed to accounts, without what is carried.
    pub liabilities: Signed,
    /// The hub's own.
    pub fees: Signed,
    /// Payable to accounts, and carried to the next payout.
    pub carry: Signed,
    /// Arrived, and nobody's.
    pub suspense: Signed,
    /// Owed by the hub to its clients' money.
    pub shortfall: Signed,
    /// Left the bank, for nobody knows whom.
    pub unexplained: Signed,
    /// `bank − cash`; none before the first statement.
    pub difference: Option<Signed>,
    /// What of the difference no break explains: not zero is an alarm.
    pub unexplained_difference: Signed,
    /// The statement that `bank` is from.
    pub statement: Option<NewestStatement>,
    /// Breaks in all.
    pub breaks_total: u64,
    /// The breaks, oldest first, at most [`BREAKS_MAX`].
    pub breaks: Vec<Break>,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciliation {
    /// Whether nothing raises an alarm.
    pub healthy: bool,
    /// What does, in words.
    pub alarms: Vec<String>,
    /// By currency.
    pub currencies: BTreeMap<String, CurrencyReport>,
}

/// Reconciles. `statement_max_age_ms`: how old the newest statement may be; 0: as old as it wants.
pub fn reconcile(books: &Books, heard: &Heard, now_ms: u64, statement_max_age_ms: u64) -> Reconciliation {
    let mut alarms = Vec::new();
    let mut currencies = BTreeMap::new();
    let mut all: Vec<Currency> = books.policy().currencies.clone();
    all.extend(books.ledger().sums().keys().filter(|currency| !books.policy().currencies.contains(currency)));
    for currency in all {
        let report = one(books, heard, currency, now_ms);
        alarms_of(currency, &report, heard, (now_ms, statement_max_age_ms), &mut alarms);
        currencies.insert(currency.to_string(), report);
    }
    for (id, file) in &heard.rejected {
        if !heard.accepted.contains_key(&file_id(id)) {
            alarms.push(format!("file `{}` of the bank was set aside: {}", file.name, file.why));
        }
    }
    if !heard.later.is_empty() {
        alarms.push(format!("{} files of the bank wait for others", heard.later.len()));
    }
    Reconciliation { healthy: alarms.is_empty(), alarms, currencies }
}

/// The reference of what was in the account before the first statement, once it has an owner.
pub(super) fn opening_reference(currency: Currency) -> String {
    format!("opening balance {currency}")
}

fn file_id(hash: &str) -> String {
    format!("file-{}", hash.get(..16).unwrap_or(hash))
}

fn alarms_of(
    currency: Currency,
    report: &CurrencyReport,
    heard: &Heard,
    (now_ms, max_age_ms): (u64, u64),
    alarms: &mut Vec<String>,
) {
    if report.unexplained_difference != Signed::default() {
        let by = report.unexplained_difference;
        alarms.push(format!("{currency}: bank and ledger differ by {by}, and nothing explains it"));
    }
    if report.shortfall != Signed::default() {
        alarms.push(format!("{currency}: the hub owes {} to its clients' money", report.shortfall));
    }
    if report.unexplained != Signed::default() {
        alarms.push(format!("{currency}: {} left the bank for nobody knows whom", report.unexplained));
    }
    let missing = report.breaks.iter().filter(|one| one.kind == BreakKind::Missing && one.accepted.is_none());
    for one in missing.filter(|one| !one.id.starts_with("file-")) {
        alarms.push(format!("{currency}: {}", one.what));
    }
    // Before the first statement, the first file counts.
    let first = heard.files.values().map(|file| file.at_ms).min();
    let since = report.statement.as_ref().map(|statement| statement.closed_at_ms).or(first);
    if let Some(since) = since.filter(|since| max_age_ms > 0 && now_ms.saturating_sub(*since) > max_age_ms) {
        let days = now_ms.saturating_sub(since) / DAY_MS;
        alarms.push(format!("{currency}: the newest statement of the bank is {days} days old"));
    }
}

fn signed(nanos: u128) -> Signed {
    Signed(i128::try_from(nanos).unwrap_or(i128::MAX))
}

fn one(books: &Books, heard: &Heard, currency: Currency, now_ms: u64) -> CurrencyReport {
    let sums = books.ledger().sums().get(&currency).copied().unwrap_or_default();
    let Sums { payable, fees, suspense, cash, shortfall, unexplained, .. } = sums;
    let newest = books.statements().filter(|statement| statement.currency == currency);
    let newest = newest.max_by_key(|statement| (statement.closed_at, statement.sequence));
    let bank = newest.map(|statement| Signed::of(statement.closing_overdrawn, statement.closing));
    let difference = bank.map(|bank| Signed(bank.0 - signed(cash).0));
    let mut list = Breaks { now_ms, heard, found: Vec::new() };
    list.entries(books, currency);
    list.announced(currency);
    let allocated = newest.is_some_and(|newest| books.knows_entry(&newest.connector, &opening_reference(currency)));
    list.statements(currency);
    list.payouts(books, currency, newest.map(|statement| statement.closed_at));
    list.collections(books, currency, newest.map(|statement| statement.closed_at));
    if books.policy().currencies.first() == Some(&currency) {
        list.files();
    }
    if let Some(difference) = difference.filter(|_| !allocated) {
        list.opening(currency, difference);
    }
    let explained: i128 = list.found.iter().map(|one| one.explains.0).sum();
    let mut breaks = list.found;
    breaks.sort_by(|a, b| (a.since_ms, &a.id).cmp(&(b.since_ms, &b.id)));
    let breaks_total = breaks.len() as u64;
    breaks.truncate(BREAKS_MAX);
    CurrencyReport {
        bank,
        cash: signed(cash),
        liabilities: signed(sums.liabilities() - fees - payable - suspense),
        fees: signed(fees),
        carry: signed(payable),
        suspense: signed(suspense),
        shortfall: signed(shortfall),
        unexplained: signed(unexplained),
        difference,
        unexplained_difference: difference.map_or_else(Signed::default, |difference| Signed(difference.0 - explained)),
        statement: newest.map(|statement| NewestStatement {
            id: statement.statement.clone(),
            sequence: statement.sequence,
            closed_at_ms: statement.closed_at.0,
        }),
        breaks_total,
        breaks,
    }
}

struct Breaks<'a> {
    now_ms: u64,
    heard: &'a Heard,
    found: Vec<Break>,
}

impl Breaks<'_> {
    fn push(&mut self, id: String, kind: BreakKind, amount: Signed, since_ms: u64, what: String) -> Option<&mut Break> {
        let accepted = self.heard.accepted.get(&id).map(|accepted| accepted.note.clone());
        let age_days = self.now_ms.saturating_sub(since_ms) / DAY_MS;
        let explains = Signed::default();
        self.found.push(Break { id, kind, amount, explains, since_ms, age_days, what, account: None, accepted });
        self.found.last_mut()
    }

    /// Entries that are posted to nobody.
    fn entries(&mut self, books: &Books, currency: Currency) {
        for (key, entry) in books.unmatched().iter().filter(|(_, entry)| entry.currency == currency) {
            let id = key.to_string();
            let odd = self.heard.odd.get(&id);
            let kind = match odd.map(|odd| odd.oddity) {
                _ if entry.connector == TWICE => BreakKind::Duplicate,
                _ if entry.connector == SHORT => BreakKind::Returned,
                Some(Oddity::Over) => BreakKind::Over,
                Some(Oddity::Under) => BreakKind::Under,
                Some(Oddity::Duplicate) => BreakKind::Duplicate,
                Some(Oddity::Unmatched) | None => BreakKind::UnmatchedBank,
            };
            let about = odd.map(|odd| odd.about.clone()).unwrap_or_default();
            let what = match (entry.connector == TWICE, entry.incoming) {
                _ if entry.connector == SHORT => {
                    format!("direct debit {} was taken back, and nobody had its money", entry.bank_reference)
                }
                (true, _) => format!("paid out twice after the bank had refused it: {}", entry.bank_reference),
                (false, true) => format!("arrived for nobody as {}: {about}", entry.bank_reference),
                (false, false) => format!("left for nobody knows whom as {}: {about}", entry.bank_reference),
            };
            self.push(id, kind, Signed::of(!entry.incoming, entry.amount), entry.posted_at.0, what);
        }
    }

    /// What was announced before a statement of its day or a later one came, and does not stand in it, is missing.
    fn announced(&mut self, currency: Currency) {
        let statements = self.heard.statements.iter().filter(|one| one.currency == currency);
        let stated: Vec<(u64, u64)> = statements.map(|one| (one.closed_at_ms, one.at_ms)).collect();
        for (key, announced) in self.heard.announced.iter().filter(|(_, one)| one.currency == currency) {
            let passed = stated
                .iter()
                .rev()
                .take_while(|(closed_ms, _)| announced.booked_at_ms <= *closed_ms)
                .any(|(_, at_ms)| announced.at_ms < *at_ms);
            let kind = if passed { BreakKind::Missing } else { BreakKind::Expected };
            let what = if passed {
                format!("{} was announced, and the statement of its day does not show it", announced.reference)
            } else {
                format!("{} was announced; the next statement will show it", announced.reference)
            };
            let id = format!("announced-{key}");
            if let Some(one) = self.push(id, kind, announced.amount, announced.at_ms, what) {
                one.explains = Signed(-announced.amount.0);
            }
        }
    }

    /// Statements must follow each other: numbers without gaps, each opening where the one before closed.
    fn statements(&mut self, currency: Currency) {
        let of_currency = self.heard.statements.iter().filter(|one| one.currency == currency);
        let known: Vec<&StatementHeard> = of_currency.collect();
        for pair in known.windows(2) {
            let [before, after] = pair else { continue };
            let gap = before.sequence > 0 && after.sequence > before.sequence.saturating_add(1);
            let jump = Signed(after.opening.0 - before.closing.0);
            if !gap && jump == Signed::default() {
                continue;
            }
            let what = if gap && after.sequence == before.sequence + 2 {
                format!("statement {} is missing", before.sequence + 1)
            } else if gap {
                format!("statements {} to {} are missing", before.sequence + 1, after.sequence - 1)
            } else {
                format!("statement `{}` does not open where `{}` closed", after.id, before.id)
            };
            let id = format!("statement-{currency}-{}-{}", before.sequence, after.sequence);
            let id = if gap { id } else { format!("{id}-{}", after.closed_at_ms) };
            if let Some(one) = self.push(id, BreakKind::Missing, jump, after.at_ms, what) {
                one.explains = jump;
            }
        }
    }

    /// What was in the account before the first statement, if that is what is left to explain. What the hub had posted by
    /// then from notifications is not.
    fn opening(&mut self, currency: Currency, difference: Signed) {
        let left = difference.0 - self.found.iter().map(|one| one.explains.0).sum::<i128>();
        let Some(first) = self.heard.statements.iter().find(|one| one.currency == currency) else { return };
        if left == 0 || left != first.opening.0 {
            return;
        }
        let what = format!("the first statement, `{}`, opens with {}", first.id, first.opening);
        if let Some(one) =
            self.push(format!("opening-{currency}"), BreakKind::Missing, first.opening, first.at_ms, what)
        {
            one.explains = first.opening;
        }
    }

    fn payouts(&mut self, books: &Books, currency: Currency, stated: Option<Time>) {
        for (window, record) in books.windows().iter().filter(|(_, window)| window.state != WindowState::Settled) {
            let Some(plan) = record.plans.get(&currency) else { continue };
            let waiting: Vec<Amount> =
                plan.payouts.values().filter(|payout| payout.in_transit).map(|payout| payout.amount).collect();
            if waiting.is_empty() {
                continue;
            }
            let sum: i128 = waiting.iter().map(|amount| i128::from(amount.nanos())).sum();
            let lost = stated.is_some_and(|stated| stated.0 > record.time.0.saturating_add(PAYOUT_PATIENCE_MS));
            let kind = if lost { BreakKind::UnmatchedHub } else { BreakKind::Expected };
            let what = format!("window {window}: {} payouts that the bank has not booked", waiting.len());
            self.push(format!("transit-{currency}-{window}"), kind, Signed(-sum), record.time.0, what);
        }
        for (window, _, account, payout) in books.windows().attention().filter(|(_, of, ..)| *of == currency) {
            let name = end_to_end_id(window, &account);
            let since = books.windows().get(window).map_or(self.now_ms, |window| window.time.0);
            let words = payout.words;
            let settled = words.booked_back || words.unpaid || !words.confirmed;
            let (kind, what) = match (settled, words.booked_back) {
                (true, true) => (BreakKind::Returned, format!("payout {name} came back: the account has it again")),
                (true, false) if words.unpaid => {
                    (BreakKind::Returned, format!("payout {name} was not paid: the account has it again"))
                }
                (true, false) => {
                    (BreakKind::Returned, format!("the bank refused payout {name}: the account has it again"))
                }
                (false, _) => (
                    BreakKind::UnmatchedHub,
                    format!("the bank says of payout {name} that it paid and that it did not"),
                ),
            };
            let amount = Signed::of(false, payout.amount);
            if let Some(one) = self.push(format!("payout-{currency}-{name}"), kind, amount, since, what) {
                one.account = Some(account);
            }
        }
    }

    /// Direct debits that the bank has not booked, and such that came to nothing.
    fn collections(&mut self, books: &Books, currency: Currency, stated: Option<Time>) {
        for (number, one) in books.collections().iter().filter(|(_, one)| one.told.currency == currency) {
            let (kind, what) = match one.state() {
                CollectionState::Told => {
                    let late = stated.is_some_and(|at| at.0 > one.told.due.0.saturating_add(PAYOUT_PATIENCE_MS));
                    let kind = if late { BreakKind::UnmatchedHub } else { BreakKind::Expected };
                    (kind, format!("direct debit {number}: the bank has not booked it"))
                }
                CollectionState::Refused => (BreakKind::Returned, format!("the bank refused direct debit {number}")),
                CollectionState::Booked | CollectionState::Returned => continue,
            };
            let amount = Signed::of(false, one.told.amount);
            if let Some(found) =
                self.push(format!("collection-{currency}-{number}"), kind, amount, one.told.created_at.0, what)
            {
                found.account = Some(one.told.account);
            }
        }
    }

    fn files(&mut self) {
        for (hash, file) in &self.heard.rejected {
            let kind = if file.currency { BreakKind::Currency } else { BreakKind::Missing };
            let what = format!("file `{}` was set aside: {}", file.name, file.why);
            self.push(file_id(hash), kind, Signed::default(), file.at_ms, what);
        }
    }
}
