//! What an entry of the bank is: which acts it becomes, judged against the durable books.
//!
//! Pure: the same entry and the same books give the same acts. Every booked entry becomes acts whose amounts add up to it,
//! so that cash is the sum of what the bank booked. What matches nobody goes to suspense, or is unexplained; nothing is
//! dropped.
//!
//! What names a collection (direct debit) by our `EndToEndId` is the bank's word on it: a credit books it, a debit books it
//! back. Whose any other credit is, in this order: a return of a payout (the bank says so, and names it by our `EndToEndId`); the account
//! whose creditor reference stands in `Strd`; a payout with our `EndToEndId`; the account whose reference stands in the
//! text. Two accounts named alike are a case for a person.

use std::sync::Arc;

use rust_decimal::Decimal;
use weir_protocol::act::{
    Act, Collect, Collected, CollectionWord, Debit, DebitCause, Deposit, MAX_TEXT, Outcome, PayoutOutcome,
};
use weir_protocol::amount::{Amount, Currency};
use weir_protocol::hash::sha256;
use weir_protocol::id::{AccountId, HubId};

use super::collect::{collection_id, number_of, number_of_file};
use super::told::{self, Told};
use crate::bank::{
    CreditorReference, Date, Detail, Direction, Entry, EntryStatus, StatementKind, StatusReport, is_charge_code,
};
use crate::engine::books::{Books, PAYOUTS};
use crate::engine::collections::Collection;

/// Most characters of what is noted about an entry for a person.
const ABOUT_CHARS: usize = 200;

/// An entry, and where it stood.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// Which message.
    pub(super) kind: StatementKind,
    /// The bank connector: the account's number.
    pub(super) connector: Arc<str>,
    /// The statement's id.
    pub(super) statement: Arc<str>,
    /// Its place there, from 0.
    pub(super) index: usize,
    /// The entry.
    pub(super) entry: Entry,
}

/// What is odd about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Oddity {
    /// The bank moved more than the payout.
    Over,
    /// Less.
    Under,
    /// The bank booked a payout, or its return, once more.
    Duplicate,
    /// It matches nobody.
    Unmatched,
}

/// Something odd that a person has to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Odd {
    pub(super) oddity: Oddity,
    /// The bank's reference of the act that was posted for it.
    pub(super) reference: String,
    /// Who sent or received it and what they wrote, as the bank says.
    pub(super) about: String,
}

/// What an entry comes to.
#[derive(Debug, Clone, Default)]
pub(super) struct Judged {
    /// To be posted, in this order.
    pub(super) acts: Vec<Act>,
    /// For a person.
    pub(super) odd: Vec<Odd>,
    /// Not money yet: pending, interim, or without the bank's reference.
    pub(super) waits: bool,
}

/// Judges entries against the books as they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judge<'a> {
    /// The durable books.
    pub(super) books: &'a Books,
}

/// The bank's own reference of an entry; `None`: the statement will have one.
pub(super) fn reference_of(line: &Line) -> Option<String> {
    match (&line.entry.account_servicer_reference, line.kind) {
        (Some(reference), _) => Some(short(reference)),
        // Without the bank's own number only the statement says an entry once and for all.
        (None, StatementKind::Statement) => Some(short(&format!("{}#{}", line.statement, line.index))),
        (None, _) => None,
    }
}

/// A text within an act's limit, with room for what is added to it; a longer one by its hash, so that it still names one
/// thing.
pub(super) fn short(text: &str) -> String {
    const ROOM: usize = 24;
    if text.len() + ROOM <= MAX_TEXT { text.to_owned() } else { format!("sha256:{}", sha256(text.as_bytes())) }
}

pub(super) fn amount(decimal: Decimal) -> Result<Amount, String> {
    Amount::from_decimal(decimal).map_err(|error| error.to_string())
}

/// One entry while it is judged.
struct Case<'a> {
    judge: Judge<'a>,
    hub: HubId,
    line: &'a Line,
    reference: String,
    currency: Currency,
    judged: Judged,
}

impl Judge<'_> {
    /// What an entry comes to. The message has been checked whole. `begun`: part of it may have been posted a moment ago,
    /// when the ledger could not bear the rest.
    pub(super) fn entry(self, hub: &HubId, line: &Line, begun: bool) -> Result<Judged, String> {
        // What an interim report books may still change until the statement.
        let waits = line.kind == StatementKind::Report || line.entry.status != EntryStatus::Booked;
        let Some(reference) = reference_of(line).filter(|_| !waits) else {
            return Ok(Judged { waits: true, ..Judged::default() });
        };
        let known = self.books.knows_entry(&line.connector, &reference);
        if line.entry.amount.is_zero() || known && !begun {
            return Ok(Judged::default());
        }
        let currency = line.entry.currency.parse().map_err(|error| format!("{error}"))?;
        let mut case = Case { judge: self, hub: *hub, line, reference, currency, judged: Judged::default() };
        let details: Vec<&Detail> = line.entry.details().collect();
        if details.is_empty() {
            if !known {
                case.whole()?;
            }
        } else {
            // The charge first: an entry whose money is known had its charge posted before.
            if !line.entry.charged.is_zero() {
                case.charge(line.entry.charged, &format!("{}/charge", case.reference))?;
            }
            for (part, detail) in details.iter().enumerate() {
                case.detail(detail, if details.len() == 1 { None } else { Some(part) })?;
            }
        }
        Ok(case.judged)
    }

    fn knows(self, line: &Line, reference: &str) -> bool {
        self.books.knows_entry(&line.connector, reference)
    }

    /// The only account that these references name.
    fn owner(self, references: &[CreditorReference]) -> Option<AccountId> {
        let mut owners: Vec<AccountId> = references
            .iter()
            .filter_map(|reference| {
                let account = self.books.account_by_prefix(&reference.id_prefix()?)?;
                (CreditorReference::from_id(account.as_bytes()) == *reference).then_some(account)
            })
            .collect();
        owners.sort();
        owners.dedup();
        match owners.as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    }

    /// What a pain.002 says of payouts.
    pub(super) fn status(self, hub: &HubId, report: &StatusReport) -> Vec<Act> {
        let verdicts = report.verdicts();
        if let Some(number) = number_of_file(hub, &report.original_message_id) {
            return self.collection_status(hub, report, number);
        }
        let told = told::in_file(self.books, hub, &report.original_message_id);
        told.filter_map(|(end_to_end_id, payout)| {
            let (status, reasons) = verdicts.of(&payout.batch, &end_to_end_id)?;
            let codes: Vec<&str> = reasons.iter().map(|reason| reason.code.as_str()).collect();
            // DU01: the bank has seen the file before; that says nothing about its payouts.
            if codes.contains(&"DU01") {
                None
            } else if status.is_settled() {
                Some(outcome(&payout, PayoutOutcome::Confirmed, short(&report.message_id)))
            } else if status.is_refused() {
                Some(outcome(&payout, PayoutOutcome::Refused, short(&codes.join(" "))))
            } else {
                None
            }
        })
        .collect()
    }

    /// What a pain.002 says of a collection.
    fn collection_status(self, hub: &HubId, report: &StatusReport, number: u64) -> Vec<Act> {
        let verdicts = report.verdicts();
        let Some(told) = self.books.collections().get(number) else { return Vec::new() };
        let verdict = verdicts.of(&report.original_message_id, &collection_id(hub, number));
        let Some((_, reasons)) = verdict.filter(|(status, _)| status.is_refused()) else { return Vec::new() };
        let codes: Vec<&str> = reasons.iter().map(|reason| reason.code.as_str()).collect();
        if codes.contains(&"DU01") || told.words.refused {
            return Vec::new();
        }
        vec![collected(told, CollectionWord::Refused, short(&codes.join(" ")))]
    }
}

impl Case<'_> {
    /// An entry without details: one line for many transactions, or one of the bank's own.
    fn whole(&mut self) -> Result<(), String> {
        let entry = &self.line.entry;
        let taken_apart = format!("{}/0", self.reference);
        if self.judge.knows(self.line, &taken_apart) {
            return Ok(());
        }
        let value = amount(entry.amount)?;
        if let Some(told) = self.collection_of_line(value) {
            let word =
                if entry.direction == Direction::Credit { CollectionWord::Booked } else { CollectionWord::Returned };
            let reference = match word {
                CollectionWord::Returned => format!("- {}", self.reference),
                _ => self.reference.clone(),
            };
            self.judged.acts.push(collected(told, word, reference));
            return Ok(());
        }
        if self.is_payout(&self.reference) {
            return Ok(());
        }
        if entry.direction == Direction::Credit {
            return self.suspense(value, self.reference.clone(), Oddity::Unmatched, about(entry, None));
        }
        let batch = self.batch(value);
        if !batch.is_empty() {
            for payout in batch {
                self.judged.acts.push(outcome(&payout, PayoutOutcome::Settled, self.reference.clone()));
            }
            return Ok(());
        }
        if self.judge.knows(self.line, &format!("{}/charge", self.reference)) || self.is_payout(&taken_apart) {
            return Ok(());
        }
        if self.is_charge(entry.transaction_code.as_deref()) {
            return self.charge(entry.amount, &self.reference.clone());
        }
        self.unknown(value, self.reference.clone(), Oddity::Unmatched, about(entry, None))
    }

    /// The collection that one line without details books, or books back: of the file that it names, and of its amount.
    fn collection_of_line(&self, value: Amount) -> Option<&Collection> {
        let entry = &self.line.entry;
        let credit = entry.direction == Direction::Credit;
        let mut named = entry.batches.iter().flat_map(|batch| [&batch.batch_id, &batch.message_id]).flatten();
        let number = named.find_map(|id| number_of_file(&self.hub, id))?;
        let told = self.judge.books.collections().get(number)?;
        let said = if credit { told.words.booked } else { told.words.returned };
        (!said && told.told.amount == value && told.told.currency == self.currency).then_some(told)
    }

    /// What the bank says of a collection that it names.
    fn collection(&mut self, detail: &Detail, told: &Collection, reference: String) -> Result<(), String> {
        let value = amount(detail.amount)?;
        let about = about(&self.line.entry, Some(detail));
        let ordered = told.told.amount.to_decimal();
        let credit = detail.direction == Direction::Credit;
        let said = if credit { told.words.booked } else { told.words.returned };
        // What the banks took: of what arrived, or on top of what went back.
        let charged = if credit { ordered - detail.amount } else { detail.amount - ordered };
        let fits = charged.is_zero() || charged > Decimal::ZERO && charged == detail.charges;
        if said && self.is_payout(&reference) {
            if fits && !charged.is_zero() {
                self.charge(charged, &format!("{reference}/charge"))?;
            }
            return Ok(());
        }
        let oddity = match (said, detail.amount > ordered) {
            (true, _) => Oddity::Duplicate,
            (false, true) => Oddity::Over,
            (false, false) => Oddity::Under,
        };
        if said || !fits {
            return if credit {
                self.suspense(value, reference, oddity, about)
            } else {
                self.unknown(value, reference, oddity, about)
            };
        }
        let act = if credit {
            collected(told, CollectionWord::Booked, reference.clone())
        } else {
            let code = detail.return_reason.as_deref().unwrap_or("-").replace(char::is_whitespace, "");
            let reason = short(&code).chars().take(16).collect::<String>();
            collected(told, CollectionWord::Returned, format!("{reason} {reference}"))
        };
        self.judged.acts.push(act);
        if !charged.is_zero() {
            self.charge(charged, &format!("{reference}/charge"))?;
        }
        Ok(())
    }

    /// The payouts that one line books: those of the file that it names, or of the only file whose payouts in transit come
    /// to its amount.
    fn batch(&self, value: Amount) -> Vec<Told> {
        let named = self.line.entry.batches.iter().flat_map(|batch| [&batch.batch_id, &batch.message_id]).flatten();
        let mut files: Vec<String> = named.cloned().collect();
        if files.is_empty() {
            files = told::files_in_transit(self.judge.books, &self.hub, self.currency);
        }
        files.dedup();
        let mut fits: Vec<Vec<Told>> = files
            .iter()
            .map(|file| {
                told::in_file(self.judge.books, &self.hub, file)
                    .map(|(_, payout)| payout)
                    .filter(|payout| payout.payout.in_transit && !payout.payout.words.booked)
                    .collect()
            })
            .filter(|payouts: &Vec<Told>| {
                let sum = payouts.iter().try_fold(Amount::ZERO, |sum, one| sum.checked_add(one.amount));
                !payouts.is_empty() && sum == Ok(value)
            })
            .collect();
        if fits.len() == 1 { fits.swap_remove(0) } else { Vec::new() }
    }

    /// Whether a payout was booked, or came back, by this part of the entry, or by the entry as a whole.
    fn is_payout(&self, part: &str) -> bool {
        [part, &self.reference].into_iter().any(|known| self.judge.books.knows_entry(PAYOUTS, known))
    }

    fn is_charge(&self, code: Option<&str>) -> bool {
        code.or(self.line.entry.transaction_code.as_deref()).is_some_and(is_charge_code)
    }

    fn detail(&mut self, detail: &Detail, part: Option<usize>) -> Result<(), String> {
        let reference = part.map_or_else(|| self.reference.clone(), |part| format!("{}/{part}", self.reference));
        let own = detail.account_servicer_reference.as_deref().filter(|_| part.is_some()).map(short);
        // The bank may have booked the part by itself in another message.
        if self.judge.knows(self.line, &reference) || own.is_some_and(|own| self.judge.knows(self.line, &own)) {
            return Ok(());
        }
        let named = detail.end_to_end_id.as_deref().and_then(|id| number_of(&self.hub, id));
        let books = self.judge.books;
        let collection = named.and_then(|number| books.collections().get(number));
        if let Some(told) = collection.filter(|told| told.told.currency == self.currency) {
            return self.collection(detail, told, reference);
        }
        let told = detail.end_to_end_id.as_deref().and_then(|id| told::find(self.judge.books, id));
        let told = told.filter(|told| told.currency == self.currency);
        match detail.direction {
            Direction::Debit => self.debit(detail, told, reference),
            Direction::Credit => self.credit(detail, told, reference),
        }
    }

    fn debit(&mut self, detail: &Detail, told: Option<Told>, reference: String) -> Result<(), String> {
        let value = amount(detail.amount)?;
        let about = about(&self.line.entry, Some(detail));
        let Some(told) = told else {
            if self.is_charge(detail.transaction_code.as_deref()) {
                return self.charge(detail.amount, &reference);
            }
            return self.unknown(value, reference, Oddity::Unmatched, about);
        };
        let more = detail.amount - told.amount.to_decimal();
        if told.payout.words.booked {
            if !self.is_payout(&reference) {
                return self.unknown(value, reference, Oddity::Duplicate, about);
            }
            if more > Decimal::ZERO && more == detail.charges {
                self.charge(more, &format!("{reference}/charge"))?;
            }
            return Ok(());
        }
        if more.is_zero() || more > Decimal::ZERO && more == detail.charges {
            self.judged.acts.push(outcome(&told, PayoutOutcome::Settled, reference.clone()));
            if !more.is_zero() {
                self.charge(more, &format!("{reference}/charge"))?;
            }
            return Ok(());
        }
        let oddity = if more > Decimal::ZERO { Oddity::Over } else { Oddity::Under };
        self.unknown(value, reference, oddity, about)
    }

    fn credit(&mut self, detail: &Detail, told: Option<Told>, reference: String) -> Result<(), String> {
        let value = amount(detail.amount)?;
        let about = || about(&self.line.entry, Some(detail));
        let comes_back = detail.is_return() || self.line.entry.reversal;
        let structured = detail.structured_references();
        let owner = if comes_back && told.is_some() { None } else { self.judge.owner(&structured) };
        if let Some(owner) = owner {
            self.deposit(Some(owner), value, reference);
            return Ok(());
        }
        if let Some(told) = told {
            return self.returned(detail, &told, reference, about());
        }
        // The text is searched where nothing better names an owner: it takes its time.
        let text = detail.references_in_text();
        match self.judge.owner(&text).filter(|_| !names_two(self.judge, &structured)) {
            Some(owner) => {
                self.deposit(Some(owner), value, reference);
                Ok(())
            }
            None => self.suspense(value, reference, Oddity::Unmatched, about()),
        }
    }

    /// A payout that comes back, less what the banks took for it.
    fn returned(&mut self, detail: &Detail, told: &Told, reference: String, about: String) -> Result<(), String> {
        let value = amount(detail.amount)?;
        let less = told.amount.to_decimal() - detail.amount;
        if told.payout.words.booked_back {
            if !self.is_payout(&reference) {
                return self.suspense(value, reference, Oddity::Duplicate, about);
            }
            if less > Decimal::ZERO && less == detail.charges {
                self.charge(less, &format!("{reference}/charge"))?;
            }
            return Ok(());
        }
        if less.is_zero() || less > Decimal::ZERO && less == detail.charges {
            let code = detail.return_reason.as_deref().unwrap_or("-").replace(char::is_whitespace, "");
            let reason = short(&code).chars().take(16).collect::<String>();
            self.judged.acts.push(outcome(told, PayoutOutcome::Returned, format!("{reason} {reference}")));
            if !less.is_zero() {
                self.charge(less, &format!("{reference}/charge"))?;
            }
            return Ok(());
        }
        let oddity = if less > Decimal::ZERO { Oddity::Under } else { Oddity::Over };
        self.suspense(value, reference, oddity, about)
    }

    fn charge(&mut self, value: Decimal, reference: &str) -> Result<(), String> {
        if !self.judge.knows(self.line, reference) {
            let value = amount(value)?;
            self.push_debit(DebitCause::Charge, value, reference.to_owned());
        }
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "callers end with it")]
    fn unknown(&mut self, value: Amount, reference: String, oddity: Oddity, about: String) -> Result<(), String> {
        self.judged.odd.push(Odd { oddity, reference: reference.clone(), about });
        self.push_debit(DebitCause::Unknown, value, reference);
        Ok(())
    }

    fn push_debit(&mut self, cause: DebitCause, amount: Amount, bank_reference: String) {
        let connector = String::from(&*self.line.connector);
        self.judged.acts.push(Act::Debit(Debit { cause, currency: self.currency, amount, connector, bank_reference }));
    }

    #[expect(clippy::unnecessary_wraps, reason = "callers end with it")]
    fn suspense(&mut self, value: Amount, reference: String, oddity: Oddity, about: String) -> Result<(), String> {
        self.judged.odd.push(Odd { oddity, reference: reference.clone(), about });
        self.deposit(None, value, reference);
        Ok(())
    }

    fn deposit(&mut self, account: Option<AccountId>, amount: Amount, bank_reference: String) {
        let connector = String::from(&*self.line.connector);
        self.judged.acts.push(Act::Deposit(Deposit {
            account,
            currency: self.currency,
            amount,
            connector,
            bank_reference,
        }));
    }
}

/// Structured references of two accounts: the text below them cannot decide.
fn names_two(judge: Judge<'_>, structured: &[CreditorReference]) -> bool {
    structured.iter().filter(|reference| judge.owner(std::slice::from_ref(*reference)).is_some()).count() > 1
}

fn collected(told: &Collection, word: CollectionWord, reference: String) -> Act {
    let Collect { collection, account, currency, amount, .. } = told.told;
    Act::Collected(Collected { collection, account, currency, amount, word, reference })
}

fn outcome(told: &Told, outcome: PayoutOutcome, reference: String) -> Act {
    Act::Outcome(Outcome {
        window: told.window,
        account: told.account,
        currency: told.currency,
        amount: told.amount,
        outcome,
        reference,
    })
}

/// What the bank says of an entry, for a person.
fn about(entry: &Entry, detail: Option<&Detail>) -> String {
    let day: Option<Date> = entry.booking_date;
    let mut parts: Vec<String> = day.iter().map(ToString::to_string).collect();
    if let Some(detail) = detail {
        // What comes back names the parties of the original, where the hub is on the other side.
        let back = detail.is_return() || entry.reversal;
        let party = match (detail.direction, back) {
            (Direction::Credit, false) | (Direction::Debit, true) => &detail.debtor,
            (Direction::Debit, false) | (Direction::Credit, true) => &detail.creditor,
        };
        parts.extend(party.name.clone());
        parts.extend(party.iban.clone());
        parts.extend(detail.end_to_end_id.clone());
        parts.extend(detail.structured.iter().cloned());
        parts.extend(detail.unstructured.iter().cloned());
    }
    parts.extend(entry.additional.clone());
    parts.extend(entry.transaction_code.clone().filter(|_| detail.is_none()));
    parts.join(" | ").chars().filter(|c| !c.is_control()).take(ABOUT_CHARS).collect()
}
