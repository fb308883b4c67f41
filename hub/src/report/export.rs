//! The journal as a ledger for other programs: one transaction a commit and currency, or a day and currency, streamed.
//!
//! What the hub has is positive, what it owes is negative, so each transaction is zero in all. At the end every account's sum
//! is compared with the hub's own ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use serde::Serialize;
use weir_protocol::act::Act;
use weir_protocol::amount::Currency;

use super::replay::{ReportError, Source, day};
use crate::engine::ledger::{Ledger, Place, Posting, signed_units};
use crate::engine::record::{ItemRecord, Record};
use crate::engine::state::State;

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A journal of hledger.
    Hledger,
    /// A line a posting.
    Csv,
    /// One object with all transactions.
    Json,
}

/// What makes one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A commit.
    Commit,
    /// A day in UTC.
    Day,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exported {
    /// Transactions.
    pub transactions: u64,
    /// Commits that they come from.
    pub commits: u64,
}

/// The name of a place in a chart of accounts.
pub fn account_name(place: &Place) -> String {
    let of = |account: &weir_protocol::id::AccountId, part| format!("liabilities:participants:{account}:{part}");
    match place {
        Place::Available(account) => of(account, "available"),
        Place::Locked(account) => of(account, "locked"),
        Place::Earned(account) => of(account, "earned"),
        Place::Payable(account) => of(account, "payable"),
        Place::Marked(account) => of(account, "marked"),
        Place::InTransit(account) => of(account, "in transit"),
        Place::Provisional(account) => of(account, "provisional"),
        Place::Fees => "income:fees".to_owned(),
        Place::Suspense => "liabilities:suspense".to_owned(),
        Place::Cash => "assets:bank:cash".to_owned(),
        Place::Shortfall => "assets:shortfall".to_owned(),
        Place::Unexplained => "assets:unexplained".to_owned(),
    }
}

/// Whether a place is something that the hub has.
const fn is_asset(place: &Place) -> bool {
    matches!(place, Place::Cash | Place::Shortfall | Place::Unexplained)
}

/// What is added to an account: positive is had, negative is owed.
fn signed(posting: &Posting) -> i128 {
    let nanos = i128::from(posting.amount.nanos());
    if posting.grows == is_asset(&posting.place) { nanos } else { -nanos }
}

type Sums = BTreeMap<(Currency, String), i128>;

/// A transaction before it is written.
#[derive(Debug, Default)]
struct Pending {
    day: String,
    time_ms: u64,
    first: u64,
    last: u64,
    words: BTreeMap<&'static str, u64>,
    sums: Sums,
}

#[derive(Serialize)]
struct JsonPosting<'a> {
    account: &'a str,
    amount: String,
}

#[derive(Serialize)]
struct JsonTransaction<'a> {
    date: &'a str,
    time_ms: u64,
    first_commit: u64,
    last_commit: u64,
    what: String,
    currency: Currency,
    postings: Vec<JsonPosting<'a>>,
}

/// Writes the whole journal; compares the sums with the ledger at its end. `progress` hears the last commit written.
pub fn export(
    source: Source<'_>,
    (format, by): (Format, By),
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
) -> Result<Exported, ReportError> {
    let first = source.journal.first()?.unwrap_or(1);
    let mut state = source.state_before(first.saturating_sub(1).max(oldest(source, first)?))?;
    let mut writer = Writer { format, out, done: Exported::default(), totals: Sums::new() };
    writer.head(source)?;
    let mut pending = opening(&state);
    source.follow(&mut state, &mut |record, postings, _| {
        let header = record.header();
        let day = day(header.time.0);
        let same = by == By::Day && pending.day == day && !pending.words.contains_key("opening balances");
        if !same {
            writer.flush(&mut pending)?;
            pending = Pending { day, first: header.number, ..Pending::default() };
        }
        pending.time_ms = header.time.0;
        pending.last = header.number;
        if !postings.is_empty() {
            count_words(record, postings, &mut pending.words);
        }
        for posting in postings {
            *pending.sums.entry((posting.currency, account_name(&posting.place))).or_default() += signed(posting);
        }
        writer.done.commits += 1;
        progress(header.number);
        Ok(())
    })?;
    writer.flush(&mut pending)?;
    writer.tail()?;
    let ledger = balances(state.books().ledger());
    writer.totals.retain(|_, sum| *sum != 0);
    if writer.totals != ledger {
        return Err(ReportError::Sums("the postings do not give the balances of the books".to_owned()));
    }
    Ok(writer.done)
}

/// Where a journal whose beginning was pruned can begin: at the oldest snapshot that leads up to it.
fn oldest(source: Source<'_>, first: u64) -> Result<u64, ReportError> {
    if first <= 1 {
        return Ok(0);
    }
    let numbers = source.snapshots.numbers()?;
    numbers.into_iter().find(|number| *number + 1 >= first).ok_or(ReportError::Pruned { first })
}

/// What was there before the first commit that is read.
fn opening(state: &State) -> Pending {
    let Some(last) = state.last() else { return Pending::default() };
    Pending {
        day: day(last.time.0),
        time_ms: last.time.0,
        first: last.number,
        last: last.number,
        words: BTreeMap::from([("opening balances", 1)]),
        sums: balances(state.books().ledger()),
    }
}

/// Every balance of a ledger under its name, zeros left out.
pub fn balances(ledger: &Ledger) -> Sums {
    let mut sums = Sums::new();
    for currency in ledger.sums().keys() {
        let mut put = |place: Place| {
            let nanos = i128::from(ledger.read(*currency, &place).nanos());
            if nanos != 0 {
                let signed = if is_asset(&place) { nanos } else { -nanos };
                sums.insert((*currency, account_name(&place)), signed);
            }
        };
        for (account, _) in ledger.accounts(*currency) {
            let places = [
                Place::Available(account),
                Place::Locked(account),
                Place::Earned(account),
                Place::Payable(account),
                Place::Marked(account),
                Place::InTransit(account),
                Place::Provisional(account),
            ];
            places.into_iter().for_each(&mut put);
        }
        let own = [Place::Fees, Place::Suspense, Place::Cash, Place::Shortfall, Place::Unexplained];
        own.into_iter().for_each(&mut put);
    }
    sums
}

/// What a commit did, as words for people.
fn count_words(record: &Record, postings: &[Posting], words: &mut BTreeMap<&'static str, u64>) {
    let items: BTreeSet<u32> = postings.iter().map(|posting| posting.item).collect();
    for (item, index) in record.items.iter().zip(0_u32..) {
        if !items.contains(&index) {
            continue;
        }
        match item {
            ItemRecord::Group(group) => *words.entry("payments").or_default() += u64::from(group.count()),
            ItemRecord::Act(act) => *words.entry(word(&act.act)).or_default() += 1,
        }
    }
}

/// An act's kind as one word or two.
pub fn word(act: &Act) -> &'static str {
    match act {
        Act::Open(_) => "open",
        Act::Grant(_) => "grant",
        act => act.tag().name().trim_start_matches("weir/"),
    }
}

impl Pending {
    fn what(&self) -> String {
        let words = self.words.iter().map(
            |(word, count)| {
                if *count == 1 { (*word).to_owned() } else { format!("{count} {word}") }
            },
        );
        words.collect::<Vec<_>>().join(", ")
    }

    fn commits(&self) -> String {
        if self.first == self.last {
            format!("commit {}", self.last)
        } else {
            format!("commits {} to {}", self.first, self.last)
        }
    }
}

struct Writer<'a> {
    format: Format,
    out: &'a mut dyn Write,
    done: Exported,
    totals: Sums,
}

impl Writer<'_> {
    fn head(&mut self, source: Source<'_>) -> Result<(), ReportError> {
        match self.format {
            Format::Hledger => writeln!(
                self.out,
                "; Journal of the Weir hub {}\n; What the hub has is positive, what it owes is negative.\ndecimal-mark .\n",
                source.hub
            )?,
            Format::Csv => writeln!(self.out, "date,time_ms,first_commit,last_commit,what,currency,account,amount")?,
            Format::Json => write!(self.out, "{{\"hub\":\"{}\",\"transactions\":[", source.hub)?,
        }
        Ok(())
    }

    fn tail(&mut self) -> Result<(), ReportError> {
        if self.format == Format::Json {
            writeln!(self.out, "]}}")?;
        }
        self.out.flush()?;
        Ok(())
    }

    /// Writes what is pending, a transaction a currency.
    fn flush(&mut self, pending: &mut Pending) -> Result<(), ReportError> {
        let sums = core::mem::take(&mut pending.sums);
        let currencies: BTreeSet<Currency> = sums.keys().map(|(currency, _)| *currency).collect();
        for currency in currencies {
            let postings: Vec<(&str, i128)> = sums
                .iter()
                .filter(|((of, _), nanos)| *of == currency && **nanos != 0)
                .map(|((_, name), nanos)| (name.as_str(), *nanos))
                .collect();
            if postings.iter().map(|(_, nanos)| nanos).sum::<i128>() != 0 {
                return Err(ReportError::Sums(format!("{} is not zero in {currency}", pending.commits())));
            }
            if postings.is_empty() {
                continue;
            }
            self.transaction(pending, currency, &postings)?;
        }
        for (account, nanos) in sums {
            *self.totals.entry(account).or_default() += nanos;
        }
        Ok(())
    }

    fn transaction(
        &mut self,
        pending: &Pending,
        currency: Currency,
        postings: &[(&str, i128)],
    ) -> Result<(), ReportError> {
        let (what, day) = (pending.what(), &pending.day);
        match self.format {
            Format::Hledger => {
                writeln!(self.out, "{day} {}: {what}  ; time_ms:{}", pending.commits(), pending.time_ms)?;
                for (account, nanos) in postings {
                    writeln!(self.out, "    {account}  {} {currency}", signed_units(*nanos))?;
                }
                writeln!(self.out)?;
            }
            Format::Csv => {
                for (account, nanos) in postings {
                    let Pending { time_ms, first, last, .. } = pending;
                    let amount = signed_units(*nanos);
                    writeln!(self.out, "{day},{time_ms},{first},{last},\"{what}\",{currency},{account},{amount}")?;
                }
            }
            Format::Json => {
                let transaction = JsonTransaction {
                    date: day,
                    time_ms: pending.time_ms,
                    first_commit: pending.first,
                    last_commit: pending.last,
                    what,
                    currency,
                    postings: postings
                        .iter()
                        .map(|(account, nanos)| JsonPosting { account, amount: signed_units(*nanos) })
                        .collect(),
                };
                if self.done.transactions > 0 {
                    write!(self.out, ",")?;
                }
                writeln!(self.out)?;
                serde_json::to_writer(&mut *self.out, &transaction).map_err(std::io::Error::from)?;
            }
        }
        self.done.transactions += 1;
        Ok(())
    }
}
