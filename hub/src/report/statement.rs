//! A participant's statement of one window: what there was, what moved, what is left, from the postings that the engine
//! books. Opening + movements = closing is checked, to the nano, place by place, when it is made.
//!
//! It covers the commits after the last cut-off up to the window's own; the open window reaches to the newest commit. A payee
//! is not told who paid; a payer is told whom it paid.

mod csv;
mod html;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_protocol::act::{Act, CollectionWord, PayoutOutcome};
use weir_protocol::amount::{Amount, Currency};
use weir_protocol::evidence::end_to_end_id;
use weir_protocol::id::{AccountId, HubId};

use super::export::word;
use super::replay::{ReportError, Source, day};
use crate::engine::ledger::{Balances, Ledger, Place, Posting, signed_units};
use crate::engine::record::{GroupRecord, ItemRecord, Record};
use crate::engine::state::State;
use crate::engine::windows::{PayoutState, Windows};

/// Rows of one table: what comes beyond is added up in one row a day.
pub const ROWS_MAX: usize = 1_000;

/// A statement. Amounts are units of their currency as text, movements with a sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// [`Statement::FORMAT`].
    pub format: String,
    /// The hub.
    pub hub: HubId,
    /// What its operator calls it.
    pub hub_name: String,
    /// Whose.
    pub account: AccountId,
    /// As registered.
    pub name: String,
    /// Where payouts go.
    pub iban: String,
    /// The window.
    pub window: u64,
    /// Whether the window is still open: then this is not final.
    pub open: bool,
    /// After this commit; 0: from the beginning.
    pub after: Edge,
    /// Up to and with this commit.
    pub through: Edge,
    /// Per currency.
    pub currencies: Vec<Section>,
}

/// A commit as a boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Edge {
    /// Its number.
    pub commit: u64,
    /// Its time.
    pub time_ms: u64,
}

/// One currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// The currency.
    pub currency: Currency,
    /// What there was.
    pub opening: BalanceRow,
    /// Every movement of one act, in order; payments are added up below.
    pub lines: Vec<Line>,
    /// Payments made, by day and payee.
    pub paid: Vec<PaidRow>,
    /// Payments received, by day.
    pub earned: Vec<EarnedRow>,
    /// All movements by kind, signed: they lead from the opening total to the closing one.
    pub totals: BTreeMap<String, String>,
    /// What is left.
    pub closing: BalanceRow,
    /// What the window's plan pays out; none while there is no plan or nothing for this account.
    pub payout: Option<PayoutRow>,
    /// Payable and not paid out by this window: carried into the next one.
    pub carry: Amount,
}

/// An account's money at a boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BalanceRow {
    /// Free.
    pub available: Amount,
    /// In open channels and not spent.
    pub locked: Amount,
    /// Earned in the open window.
    pub earned: Amount,
    /// Earned in earlier windows, less fees, not yet paid out.
    pub payable: Amount,
    /// Marked for payout.
    pub marked: Amount,
    /// On its way to the bank account.
    pub in_transit: Amount,
    /// Collected by direct debit, not to be spent yet.
    #[serde(default)]
    pub provisional: Amount,
    /// All of it.
    pub total: Amount,
}

/// A movement by one act; `commit` and `item` are its path: `weir-hub evidence act COMMIT:ITEM` proves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The time of its commit.
    pub time_ms: u64,
    /// The commit.
    pub commit: u64,
    /// The item in it.
    pub item: u32,
    /// The kind.
    pub kind: String,
    /// What the total changed by, signed; `0` when money only changed its place.
    pub amount: String,
    /// How much changed its place inside the account; zero when it came or went.
    pub moved: Amount,
    /// What it says: an end-to-end id, a bank reference, a channel, a payment.
    pub detail: String,
}

/// Payments made to one payee on one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaidRow {
    /// In UTC.
    pub day: String,
    /// Whom; none: several, added up.
    pub payee: Option<AccountId>,
    /// How many.
    pub payments: u64,
    /// How much.
    pub amount: String,
    /// The first and the last commit that holds any.
    pub commits: (u64, u64),
}

/// Payments received on one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarnedRow {
    /// In UTC.
    pub day: String,
    /// How many.
    pub payments: u64,
    /// How much.
    pub amount: String,
    /// The first and the last commit that holds any.
    pub commits: (u64, u64),
}

/// The window's payout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayoutRow {
    /// How much.
    pub amount: Amount,
    /// Of it: what became payable after this window's end. One plan pays for all windows that wait.
    pub later: Amount,
    /// As the bank sees it.
    pub end_to_end_id: String,
    /// How far it has come by now.
    pub state: PayoutState,
}

/// Where a window lies among the commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The window.
    pub window: u64,
    /// The commit of the cut-off before; 0: none.
    pub after: u64,
    /// The commit of its own cut-off; none while it is open.
    pub cutoff: Option<u64>,
}

impl Span {
    /// A window; `None`: the one that was cut off last, or the open one when there is none.
    pub fn of(windows: &Windows, window: Option<u64>) -> Result<Self, ReportError> {
        let open = windows.open();
        let window = window.unwrap_or_else(|| if open > 1 { open - 1 } else { open });
        if window == 0 || window > open {
            return Err(ReportError::Unknown(format!("window {window}; the open one is {open}")));
        }
        let commit = |number: u64| windows.get(number).map(|window| window.commit);
        Ok(Self { window, after: commit(window - 1).unwrap_or(0), cutoff: commit(window) })
    }
}

impl Statement {
    /// The value of `format`.
    pub const FORMAT: &'static str = "weir-statement/1";

    /// Makes the statement of an account for a window.
    pub fn make(source: Source<'_>, hub_name: &str, account: AccountId, span: Span) -> Result<Self, ReportError> {
        let mut state = source.state_before(span.after)?;
        let began = state.last().map_or(0, |last| last.number);
        if began > span.after {
            return Err(ReportError::Pruned { first: began + 1 });
        }
        let mut book = Book::new(account);
        let (mut after, mut through) = (Edge::default(), Edge::default());
        let edge = |state: &State| {
            state.last().map_or(Edge::default(), |last| Edge { commit: last.number, time_ms: last.time.0 })
        };
        let mut closing = None;
        if began == span.after {
            after = edge(&state);
            book.open(state.books().ledger());
        }
        source.follow(&mut state, &mut |record, postings, state| {
            let number = record.header().number;
            if number <= span.after {
                if number == span.after {
                    after = edge(state);
                    book.open(state.books().ledger());
                }
            } else if span.cutoff.is_none_or(|cutoff| number <= cutoff) {
                through = edge(state);
                book.take(record, postings, state);
                if span.cutoff == Some(number) {
                    closing = Some(book.close(state.books().ledger())?);
                }
            }
            // What came after the cut-off is read on: it says what became of the payout.
            Ok(())
        })?;
        let mut currencies = match closing {
            Some(closing) => closing,
            None => book.close(state.books().ledger())?,
        };
        for section in &mut currencies {
            section.settle(state.books().windows(), span, account);
        }
        let known = state.books().account(&account);
        let known = known.ok_or_else(|| ReportError::Unknown(format!("account {account}")))?;
        Ok(Self {
            format: Self::FORMAT.to_owned(),
            hub: source.hub,
            hub_name: hub_name.to_owned(),
            account,
            name: known.name.clone(),
            iban: known.iban.clone(),
            window: span.window,
            open: span.cutoff.is_none(),
            after,
            through,
            currencies,
        })
    }

    /// As comma-separated values, one table.
    pub fn to_csv(&self) -> String {
        csv::write(self)
    }

    /// As one page that needs nothing else and prints on A4.
    pub fn to_html(&self) -> String {
        html::write(self)
    }
}

impl Section {
    /// What the window's plan made of what was payable at the cut-off.
    fn settle(&mut self, windows: &Windows, span: Span, account: AccountId) {
        let payout = windows
            .get(span.window)
            .and_then(|window| window.plans.get(&self.currency))
            .and_then(|plan| plan.payouts.get(&account));
        self.payout = payout.map(|payout| PayoutRow {
            amount: payout.amount,
            later: payout.amount.checked_sub(self.closing.payable).unwrap_or(Amount::ZERO),
            end_to_end_id: end_to_end_id(span.window, &account),
            state: payout.state,
        });
        let paid_out = payout.map_or(Amount::ZERO, |payout| payout.amount);
        self.carry = self.closing.payable.checked_sub(paid_out).unwrap_or(Amount::ZERO);
    }
}

impl BalanceRow {
    fn of(balances: &Balances) -> Result<Self, ReportError> {
        let Balances { available, locked, earned, payable, marked, in_transit, provisional, .. } = *balances;
        let parts = [available, locked, earned, payable, marked, in_transit, provisional];
        let total = parts.iter().try_fold(Amount::ZERO, |sum, part| sum.checked_add(*part));
        let total = total.map_err(|_| ReportError::Sums("an account has more than 64 bits hold".to_owned()))?;
        Ok(Self { available, locked, earned, payable, marked, in_transit, provisional, total })
    }

    const fn places(&self) -> [Amount; 7] {
        let Self { available, locked, earned, payable, marked, in_transit, provisional, .. } = *self;
        [available, locked, earned, payable, marked, in_transit, provisional]
    }
}

/// Payments of a day, and the commits that hold them.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    payments: u64,
    nanos: i128,
    commits: (u64, u64),
}

impl Sum {
    fn add(&mut self, commit: u64, payments: u64, nanos: i128) {
        if self.payments == 0 {
            self.commits.0 = commit;
        }
        self.payments += payments;
        self.nanos += nanos;
        self.commits.1 = commit;
    }

    fn join(&mut self, other: &Self) {
        if self.payments == 0 {
            self.commits = other.commits;
        }
        self.payments += other.payments;
        self.nanos += other.nanos;
        self.commits = (self.commits.0.min(other.commits.0), self.commits.1.max(other.commits.1));
    }
}

/// What happens to an account in one currency.
#[derive(Debug, Default)]
struct Page {
    opening: BalanceRow,
    moved: [i128; 7],
    lines: Vec<Line>,
    paid: BTreeMap<(String, AccountId), Sum>,
    earned: BTreeMap<String, Sum>,
    totals: BTreeMap<String, i128>,
}

#[derive(Debug)]
struct Book {
    account: AccountId,
    pages: BTreeMap<Currency, Page>,
}

impl Book {
    const fn new(account: AccountId) -> Self {
        Self { account, pages: BTreeMap::new() }
    }

    /// What there is before the first commit of the window.
    fn open(&mut self, ledger: &Ledger) {
        for (currency, balances) in ledger.balances(&self.account) {
            // A total beyond 64 bits is told when the page is closed.
            self.pages.entry(currency).or_default().opening = BalanceRow::of(&balances).unwrap_or_default();
        }
    }

    /// The place of a posting among the account's own.
    fn place(&self, place: &Place) -> Option<usize> {
        let (of, at) = match place {
            Place::Available(of) => (of, 0),
            Place::Locked(of) => (of, 1),
            Place::Earned(of) => (of, 2),
            Place::Payable(of) => (of, 3),
            Place::Marked(of) => (of, 4),
            Place::InTransit(of) => (of, 5),
            Place::Provisional(of) => (of, 6),
            Place::Fees | Place::Suspense | Place::Cash | Place::Shortfall | Place::Unexplained => return None,
        };
        (*of == self.account).then_some(at)
    }

    /// Takes what a commit booked.
    fn take(&mut self, record: &Record, postings: &[Posting], state: &State) {
        let mut items: BTreeMap<(u32, Currency), [i128; 7]> = BTreeMap::new();
        for posting in postings {
            let Some(at) = self.place(&posting.place) else { continue };
            let nanos = i128::from(posting.amount.nanos());
            let moved = items.entry((posting.item, posting.currency)).or_default();
            if let Some(place) = moved.get_mut(at) {
                *place += if posting.grows { nanos } else { -nanos };
            }
        }
        for ((item, currency), moved) in items {
            let page = self.pages.entry(currency).or_default();
            page.moved.iter_mut().zip(moved).for_each(|(sum, part)| *sum += part);
            match record.items.get(item as usize) {
                Some(ItemRecord::Group(group)) => page.group(record, group, self.account, state),
                Some(ItemRecord::Act(act)) => page.act(record, (item, &act.act), moved, self.account),
                None => {}
            }
        }
    }

    /// The pages with their closing balances, which must be what the movements lead to.
    fn close(&self, ledger: &Ledger) -> Result<Vec<Section>, ReportError> {
        let mut sections = Vec::new();
        for (currency, page) in &self.pages {
            let balances = ledger.balances(&self.account).find(|(of, _)| of == currency);
            let closing = BalanceRow::of(&balances.map(|(_, balances)| balances).unwrap_or_default())?;
            sections.push(page.close(*currency, closing)?);
        }
        Ok(sections)
    }
}

impl Page {
    fn group(&mut self, record: &Record, group: &GroupRecord, account: AccountId, state: &State) {
        let header = record.header();
        let (day, commit) = (day(header.time.0), header.number);
        let payer = state.channels().lane(&group.lane).map(|(channel, _, _)| channel.account());
        for (_, payment) in group.payments() {
            let nanos = i128::from(payment.amount.nanos());
            if payer == Some(account) {
                self.paid.entry((day.clone(), payment.payee)).or_default().add(commit, 1, -nanos);
                *self.totals.entry("paid".to_owned()).or_default() -= nanos;
            }
            if payment.payee == account {
                self.earned.entry(day.clone()).or_default().add(commit, 1, nanos);
                *self.totals.entry("earned".to_owned()).or_default() += nanos;
            }
        }
    }

    fn act(&mut self, record: &Record, (item, act): (u32, &Act), moved: [i128; 7], account: AccountId) {
        let total: i128 = moved.iter().sum();
        let inside: i128 = moved
            .iter()
            .filter(|part| **part > 0)
            .sum::<i128>()
            .min(-moved.iter().filter(|part| **part < 0).sum::<i128>());
        let kind = kind(act, total);
        if total != 0 {
            *self.totals.entry(kind.to_owned()).or_default() += total;
        }
        let header = record.header();
        self.lines.push(Line {
            time_ms: header.time.0,
            commit: header.number,
            item,
            kind: kind.to_owned(),
            amount: signed_units(total),
            moved: Amount::from_nanos(u64::try_from(inside).unwrap_or(u64::MAX)),
            detail: detail(act, &account),
        });
    }

    fn close(&self, currency: Currency, closing: BalanceRow) -> Result<Section, ReportError> {
        let wrong = |what: &str| ReportError::Sums(format!("{what} in {currency}"));
        let before = self.opening.places().map(|amount| i128::from(amount.nanos()));
        let after = closing.places().map(|amount| i128::from(amount.nanos()));
        let fits = before.iter().zip(&self.moved).zip(&after).all(|((before, moved), after)| before + moved == *after);
        if !fits {
            return Err(wrong("opening and movements do not give the closing balance"));
        }
        let named: i128 = self.totals.values().sum();
        let total = |row: &BalanceRow| i128::from(row.total.nanos());
        if total(&self.opening) + named != total(&closing) {
            return Err(wrong("the kinds of movements do not give the closing total"));
        }
        Ok(Section {
            currency,
            opening: self.opening,
            lines: self.lines.clone(),
            paid: self.paid_rows(),
            earned: self.earned_rows(),
            totals: self.totals.iter().map(|(kind, nanos)| (kind.clone(), signed_units(*nanos))).collect(),
            closing,
            payout: None,
            carry: Amount::ZERO,
        })
    }

    fn paid_rows(&self) -> Vec<PaidRow> {
        let mut rows = Vec::new();
        let mut rest: BTreeMap<&str, Sum> = BTreeMap::new();
        let row = |day: &str, payee, sum: &Sum| PaidRow {
            day: day.to_owned(),
            payee,
            payments: sum.payments,
            amount: signed_units(sum.nanos),
            commits: sum.commits,
        };
        for ((day, payee), sum) in &self.paid {
            if rows.len() < ROWS_MAX {
                rows.push(row(day, Some(*payee), sum));
            } else {
                rest.entry(day).or_default().join(sum);
            }
        }
        rows.extend(rest.into_iter().map(|(day, sum)| row(day, None, &sum)));
        rows
    }

    fn earned_rows(&self) -> Vec<EarnedRow> {
        let row = |(day, sum): (&String, &Sum)| EarnedRow {
            day: day.clone(),
            payments: sum.payments,
            amount: signed_units(sum.nanos),
            commits: sum.commits,
        };
        self.earned.iter().map(row).collect()
    }
}

/// What a line is called.
fn kind(act: &Act, total: i128) -> &'static str {
    match act {
        Act::Refund(_) if total > 0 => "refund_received",
        Act::Refund(_) => "refund_given",
        Act::Cutoff(_) if total < 0 => "fee",
        Act::Instruct(_) => "payout_instructed",
        Act::Outcome(outcome) => match outcome.outcome {
            PayoutOutcome::Settled => "payout",
            PayoutOutcome::Returned => "payout_returned",
            PayoutOutcome::Refused => "payout_refused",
            PayoutOutcome::Confirmed => "payout_confirmed",
        },
        Act::Collected(collected) => match collected.word {
            CollectionWord::Booked => "direct_debit",
            CollectionWord::Returned => "direct_debit_returned",
            CollectionWord::Refused => "direct_debit_refused",
        },
        Act::Open(_) => "channel_opened",
        Act::Amend(_) => "channel_amended",
        Act::Close(_) => "channel_closed",
        act => word(act),
    }
}

/// What else a line says.
fn detail(act: &Act, account: &AccountId) -> String {
    match act {
        Act::Deposit(act) => act.bank_reference.clone(),
        Act::Open(terms) => format!("channel {}", terms.id()),
        Act::Amend(act) => format!("channel {}", act.channel),
        Act::Close(act) => format!("channel {}", act.channel),
        Act::Refund(act) => format!("payment {}", act.payment_id),
        Act::Cutoff(act) => format!("window {}", act.window),
        Act::Instruct(act) => end_to_end_id(act.window, account),
        Act::Collected(act) => format!("direct debit {} {}", act.collection, act.reference),
        Act::Outcome(act) => format!("{} {}", end_to_end_id(act.window, account), act.reference),
        _ => String::new(),
    }
}
