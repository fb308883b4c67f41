//! A window as people and programs see it: every position, every payout, everybody skipped and why, who agreed, and what
//! netting came to. Reads the books and nothing else; an open window is shown as a cut-off now would leave it.
//!
//! Large windows are read in pages of accounts, each in one look at the books; the first page has the sums.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use weir_protocol::amount::{Amount, Currency};
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, HubId};
use weir_protocol::keys::PublicKey;

use super::Last;
use super::end_to_end_id;
use super::plan::file_names;
use super::split::Splits;
use crate::engine::books::Books;
use crate::engine::ledger::{Balances, Position};
use crate::engine::windows::{PayoutState, PlanRecord, Totals, Window, WindowState, payout_of};

/// One account's part of a window.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PositionLine {
    /// Whose.
    pub account: AccountId,
    /// The currency.
    pub currency: Currency,
    /// Payable from windows before.
    pub carried: Amount,
    /// Earned, less refunds.
    pub earned: Amount,
    /// Payments received.
    pub payments: u64,
    /// Paid to others.
    pub spent: Amount,
    /// The hub's fee.
    pub fee: Amount,
    /// Of the earnings: available again, as the account wishes.
    pub kept: Amount,
    /// Marked for payout.
    pub marked: Amount,
    /// Payable: `carried + earned − fee − kept + marked`.
    pub payable: Amount,
    /// Paid out to the account in the window before.
    pub paid_before: Amount,
}

/// One payout, as reported.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PayoutLine {
    /// Who is paid.
    pub account: AccountId,
    /// How much.
    pub amount: Amount,
    /// The currency.
    pub currency: Currency,
    /// As the bank sees it.
    pub end_to_end_id: String,
    /// How far it has come; none before it is planned.
    pub state: Option<PayoutState>,
    /// Where it goes; none once the bank was told, whose file says it.
    pub iban: Option<String>,
    /// Where the account's last payout went, or would have gone, if that is another bank account: look twice. None once
    /// the bank was told.
    pub iban_before: Option<String>,
}

/// Somebody who is not paid out, and why.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SkippedLine {
    /// Who.
    pub account: AccountId,
    /// What stays on the account.
    pub amount: Amount,
    /// The currency.
    pub currency: Currency,
    /// Why.
    pub why: String,
    /// How much more must become payable; none where that is not the reason.
    pub missing: Option<Amount>,
}

/// A plan, as whoever approves it needs it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanLine {
    /// The currency.
    pub currency: Currency,
    /// The plan's digest.
    pub plan: Hash,
    /// Who planned; none: the hub itself.
    pub operator: Option<PublicKey>,
    /// Whose key that is.
    pub operator_name: Option<String>,
    /// How many payouts.
    pub payouts: u32,
    /// Their sum.
    pub total: Amount,
    /// Root over the payouts.
    pub root: Hash,
    /// Root over the SHA-256 of the files.
    pub file: Hash,
    /// The files, in their order.
    pub files: Vec<String>,
    /// Who agreed.
    pub approvals: Vec<PublicKey>,
    /// Whose keys these are, in the same order.
    pub approval_names: Vec<String>,
    /// How many of them count now.
    pub counted: u32,
    /// Why the bank cannot be told now; none if it can, or was.
    pub waits: Option<String>,
}

/// What a window came to in one currency, and in the one before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SumsLine {
    /// Accounts with a position.
    pub accounts: u64,
    /// Payments received.
    pub payments: u64,
    /// Payable from windows before.
    pub carried: Amount,
    /// Earned, less refunds: the gross.
    pub earned: Amount,
    /// The hub's fees.
    pub fees: Amount,
    /// Available again, as the accounts wish.
    pub kept: Amount,
    /// Marked for payout.
    pub marked: Amount,
    /// Payouts.
    pub payouts: u64,
    /// Their sum.
    pub paid_out: Amount,
    /// Instruction compression: payments for each payout, rounded down; none without payouts.
    pub payments_per_payout: Option<u64>,
    /// Value netting: the share of the gross that need not leave the hub, in basis points, rounded down; none without
    /// earnings.
    pub netted_basis_points: Option<u64>,
    /// What that share would be if everybody netted earnings with spending.
    pub nettable_basis_points: Option<u64>,
}

/// The difference to the window before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangeLine {
    /// The window before.
    pub window: u64,
    /// Its payouts.
    pub payouts: u64,
    /// Their sum.
    pub paid_out: Amount,
    /// Its gross.
    pub earned: Amount,
    /// Accounts paid out now and not then.
    pub new: u64,
    /// Accounts paid out then and not now.
    pub gone: u64,
}

/// A place between two accounts of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The currency.
    pub currency: Currency,
    /// The last account read.
    pub account: AccountId,
}

/// A window.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunReport {
    /// The window.
    pub window: u64,
    /// How far it has come; none (`open`) where it is open.
    #[serde(serialize_with = "state_or_open", deserialize_with = "open_or_state")]
    pub state: Option<WindowState>,
    /// Root over the digests of its plans; with one plan, its digest.
    pub plan_hash: Option<Hash>,
    /// How many operators besides the planner must agree.
    pub approvals_needed: u32,
    /// Its plans.
    pub plans: Vec<PlanLine>,
    /// Plans that were given up.
    pub aborted: u64,
    /// Everybody's part, by account.
    pub positions: Vec<PositionLine>,
    /// What is paid out.
    pub payouts: Vec<PayoutLine>,
    /// Who is not, and why.
    pub skipped: Vec<SkippedLine>,
    /// The files for the bank, by name.
    pub files: Vec<String>,
    /// By currency; on the first page.
    pub sums: BTreeMap<Currency, SumsLine>,
    /// By currency; on the first page, where there is a window before.
    pub change: BTreeMap<Currency, ChangeLine>,
    /// Where the next page begins; none: this is all.
    pub next: Option<Cursor>,
}

#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn state_or_open<S: Serializer>(state: &Option<WindowState>, serializer: S) -> Result<S::Ok, S::Error> {
    match state {
        Some(state) => state.serialize(serializer),
        None => serializer.serialize_str("open"),
    }
}

fn open_or_state<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<WindowState>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Word {
        Open,
        CutOff,
        Planned,
        Approved,
        Instructed,
        Settled,
    }
    Ok(match Word::deserialize(deserializer)? {
        Word::Open => None,
        Word::CutOff => Some(WindowState::CutOff),
        Word::Planned => Some(WindowState::Planned),
        Word::Approved => Some(WindowState::Approved),
        Word::Instructed => Some(WindowState::Instructed),
        Word::Settled => Some(WindowState::Settled),
    })
}

/// Whether the open window would pay nothing out, and nothing is left of it to settle otherwise.
pub(super) fn nothing_to_do(books: &Books) -> bool {
    let window = books.windows().open();
    books.policy().currencies.iter().all(|currency| {
        let look = Look::new(books, window, *currency, None);
        books.ledger().accounts(*currency).all(|(account, held)| look.payout(&account, held).is_none())
    })
}

/// A window's report from a place on; `None` when there is no such window.
pub(super) fn page(
    books: &Books,
    (hub, splits): (&HubId, &Splits),
    number: u64,
    last: Option<Last>,
    after: Option<Cursor>,
    limit: usize,
) -> Option<RunReport> {
    let window = books.windows().get(number);
    if window.is_none() && number != books.windows().open() {
        return None;
    }
    let mut report = RunReport {
        window: number,
        state: window.map(|window| window.state),
        plan_hash: window.and_then(Window::plan_hash),
        approvals_needed: books.policy().approvals,
        plans: Vec::new(),
        aborted: window.map_or(0, |window| window.aborted.len() as u64),
        positions: Vec::new(),
        payouts: Vec::new(),
        skipped: Vec::new(),
        files: Vec::new(),
        sums: BTreeMap::new(),
        change: BTreeMap::new(),
        next: None,
    };
    for (currency, record) in window.into_iter().flat_map(|window| &window.plans) {
        let line = plan_line(books, (hub, splits), number, *currency, record);
        report.files.extend(line.files.iter().cloned());
        report.plans.push(line);
    }
    let mut room = limit;
    for currency in books.ledger().sums().keys() {
        if after.is_some_and(|after| *currency < after.currency) {
            continue;
        }
        let look = Look::new(books, number, *currency, last);
        if after.is_none() {
            look.sum(&mut report);
        }
        let from = after.filter(|after| after.currency == *currency).map(|after| after.account);
        for (account, held) in books.ledger().accounts_after(*currency, from) {
            if room == 0 {
                report.next = report.last_account();
                return Some(report);
            }
            if look.say(&account, held, &mut report) {
                room -= 1;
            }
        }
    }
    Some(report)
}

impl RunReport {
    /// The last account that is mentioned.
    fn last_account(&self) -> Option<Cursor> {
        let positions = self.positions.last().map(|line| (line.currency, line.account));
        let payouts = self.payouts.last().map(|line| (line.currency, line.account));
        let skipped = self.skipped.last().map(|line| (line.currency, line.account));
        let last = positions.max(payouts).max(skipped)?;
        Some(Cursor { currency: last.0, account: last.1 })
    }
}

fn plan_line(
    books: &Books,
    (hub, splits): (&HubId, &Splits),
    window: u64,
    currency: Currency,
    record: &PlanRecord,
) -> PlanLine {
    let waits = if record.instructed { None } else { books.may_instruct(window, currency).err() };
    PlanLine {
        currency,
        plan: record.digest,
        operator: record.plan.operator,
        operator_name: record.plan.operator.map(|key| books.operators().name(&key)),
        payouts: record.plan.payouts,
        total: record.plan.total,
        root: record.plan.root,
        file: record.plan.file,
        files: file_names(hub, window, currency, record.payouts.len(), splits.of(window, currency)),
        approvals: record.approvals.iter().copied().collect(),
        approval_names: record.approvals.iter().map(|key| books.operators().name(key)).collect(),
        counted: record.counted(books.operators()),
        waits: waits.map(|why| why.to_string()),
    }
}

/// One currency of one window.
struct Look<'a> {
    books: &'a Books,
    number: u64,
    currency: Currency,
    window: Option<&'a Window>,
    record: Option<&'a PlanRecord>,
    before: Option<(u64, &'a Window)>,
    last: Option<Last>,
}

impl<'a> Look<'a> {
    fn new(books: &'a Books, number: u64, currency: Currency, last: Option<Last>) -> Self {
        let window = books.windows().get(number);
        let record = window.and_then(|window| window.plans.get(&currency));
        let before = number.checked_sub(1).and_then(|before| Some((before, books.windows().get(before)?)));
        Self { books, number, currency, window, record, before, last }
    }

    /// What the window came to for an account, or would.
    fn position(&self, account: &AccountId, held: &Balances) -> Option<Position> {
        let Some(window) = self.window else {
            return Some(held.position(*account, self.books.split(self.currency, account, held)));
        };
        let positions = window.positions.get(&self.currency)?;
        let found = positions.binary_search_by(|position| position.account.cmp(account)).ok()?;
        positions.get(found).copied()
    }

    /// What would be payable when it is planned.
    fn payable(&self, account: &AccountId, held: &Balances) -> Amount {
        match self.window {
            Some(_) => held.payable,
            None => held.position(*account, self.books.split(self.currency, account, held)).payable(),
        }
    }

    fn least(&self, account: &AccountId) -> Amount {
        let forced = match self.last {
            Some(Last::All) => true,
            Some(Last::One(one)) => one == *account,
            None => false,
        };
        let minimum = self.books.policy().payout_min;
        if forced { Amount::ZERO } else { self.books.windows().least(self.number, account, minimum) }
    }

    /// What a plan would pay an account.
    fn payout(&self, account: &AccountId, held: &Balances) -> Option<Amount> {
        let amount = payout_of(self.payable(account, held), self.currency);
        let due = !amount.is_zero() && amount >= self.least(account) && self.books.can_be_paid_out(account);
        due.then_some(amount)
    }

    fn why(&self, account: &AccountId, payable: Amount) -> (String, Option<Amount>) {
        let amount = payout_of(payable, self.currency);
        let least = self.least(account);
        if amount.is_zero() {
            return (format!("{payable} is less than the bank's smallest unit; it is carried over"), None);
        }
        if amount < least {
            let missing = least.checked_sub(payable).unwrap_or(Amount::ZERO);
            let why = format!("{payable} is below the minimum payout of {least} by {missing}; it is carried over");
            return (why, Some(missing));
        }
        let standing = self.books.account(account).map(|known| known.standing);
        let why = match standing {
            Some(standing) if !standing.approved => "the account is not approved",
            Some(standing) if standing.frozen_outgoing => "the account is frozen",
            // It can be paid out and this window does not.
            Some(_) => return (self.elsewhere(account), None),
            None => "the account is not registered",
        };
        (why.to_owned(), None)
    }

    /// What became of something that this window could have paid out. A plan pays out all that is payable, also from
    /// windows that were cut off meanwhile.
    fn elsewhere(&self, account: &AccountId) -> String {
        let paying = |window: &Window| {
            let payout = window.plans.get(&self.currency)?.payouts.get(account)?;
            Some(match payout.state {
                PayoutState::Planned => "is in the plan of",
                PayoutState::Instructed | PayoutState::Settled => "is paid out with",
                PayoutState::Returned => "came back after it was paid out with",
            })
        };
        let (number, windows) = (self.number, self.books.windows());
        let before = |(other, window)| paying(window).filter(|_| other < number).map(|how| (other, how));
        let after = |(other, window)| paying(window).filter(|_| other > number).map(|how| (other, how));
        // The next one that pays; else the newest before.
        match windows.iter().find_map(after).or_else(|| windows.iter().rev().find_map(before)) {
            Some((number, how)) => format!("it {how} window {number}"),
            None => "it became payable after the plan was made; the next window pays it".to_owned(),
        }
    }

    /// What there is to say of an account; whether there was anything.
    fn say(&self, account: &AccountId, held: &Balances, report: &mut RunReport) -> bool {
        let before = (report.positions.len(), report.payouts.len(), report.skipped.len());
        let planned = self.record.and_then(|record| record.payouts.get(account));
        let (currency, number) = (self.currency, self.number);
        let position = self.position(account, held).filter(|position| !position.is_empty());
        if let Some(position) = position {
            report.positions.push(PositionLine {
                account: *account,
                currency,
                carried: position.carried,
                earned: position.earned,
                payments: position.payments,
                spent: position.spent,
                fee: position.fee,
                kept: position.kept,
                marked: position.marked,
                payable: position.payable(),
                paid_before: self.paid_before(account).unwrap_or(Amount::ZERO),
            });
        }
        let unplanned = self.window.is_none_or(|window| window.state == WindowState::CutOff);
        let computed = if self.record.is_none() && unplanned { self.payout(account, held) } else { None };
        let payout = planned.map(|payout| (payout.amount, Some(payout.state))).or(computed.map(|due| (due, None)));
        if let Some((amount, state)) = payout {
            let end_to_end_id = end_to_end_id(number, account);
            let waits = state.is_none_or(|state| state == PayoutState::Planned);
            let (iban, iban_before) = if waits { self.bank_account(account) } else { (None, None) };
            report.payouts.push(PayoutLine {
                account: *account,
                amount,
                currency,
                end_to_end_id,
                state,
                iban,
                iban_before,
            });
        } else {
            // Once it is planned, what came later is not its.
            let amount = if self.record.is_none() && unplanned {
                self.payable(account, held)
            } else {
                position.map_or(Amount::ZERO, |position| position.payable())
            };
            if !amount.is_zero() {
                let (why, missing) = self.why(account, amount);
                report.skipped.push(SkippedLine { account: *account, amount, currency, why, missing });
            }
        }
        before != (report.positions.len(), report.payouts.len(), report.skipped.len())
    }

    /// Where an account is paid, and where it was before, if that is another bank account.
    fn bank_account(&self, account: &AccountId) -> (Option<String>, Option<String>) {
        let now = self.books.account(account).map(|known| known.iban.clone());
        (now, self.books.iban_before(account).map(str::to_owned))
    }

    fn paid_before(&self, account: &AccountId) -> Option<Amount> {
        let (_, before) = self.before?;
        Some(before.plans.get(&self.currency)?.payouts.get(account)?.amount)
    }

    /// Everybody together. A pass over the accounts where nothing is planned yet.
    fn sum(&self, report: &mut RunReport) {
        let totals = if let Some(window) = self.window {
            window.totals.get(&self.currency).copied().unwrap_or_default()
        } else {
            let mut totals = Totals::default();
            for (account, held) in self.books.ledger().accounts(self.currency) {
                let split = self.books.split(self.currency, &account, held);
                totals.add(&held.position(account, split));
            }
            totals
        };
        let mut paid = Paid::default();
        if let Some(record) = self.record {
            for (account, payout) in &record.payouts {
                paid.add(payout.amount, self.paid_before(account).is_some());
            }
        } else if self.window.is_none_or(|window| window.state == WindowState::CutOff) {
            for (account, held) in self.books.ledger().accounts(self.currency) {
                if let Some(amount) = self.payout(&account, held) {
                    paid.add(amount, self.paid_before(&account).is_some());
                }
            }
        }
        let share = |part: Amount| {
            let whole = u128::from(totals.earned.nanos());
            let share = u128::from(part.nanos()) * 10_000 / whole.max(1);
            (whole > 0).then_some(u64::try_from(share).unwrap_or(u64::MAX))
        };
        report.sums.insert(
            self.currency,
            SumsLine {
                accounts: totals.accounts,
                payments: totals.payments,
                carried: totals.carried,
                earned: totals.earned,
                fees: totals.fees,
                kept: totals.kept,
                marked: totals.marked,
                payouts: paid.payouts,
                paid_out: paid.sum,
                payments_per_payout: totals.payments.checked_div(paid.payouts),
                netted_basis_points: share(totals.kept),
                nettable_basis_points: share(totals.nettable),
            },
        );
        let Some((number, before)) = self.before else { return };
        let then = before.plans.get(&self.currency);
        let payouts = then.map_or(0, |record| record.payouts.len() as u64);
        report.change.insert(
            self.currency,
            ChangeLine {
                window: number,
                payouts,
                paid_out: then.map_or(Amount::ZERO, |record| record.plan.total),
                earned: before.totals.get(&self.currency).map_or(Amount::ZERO, |totals| totals.earned),
                new: paid.payouts - paid.again,
                gone: payouts.saturating_sub(paid.again),
            },
        );
    }
}

/// What is paid out, and how many of those paid before too.
#[derive(Default)]
struct Paid {
    payouts: u64,
    sum: Amount,
    again: u64,
}

impl Paid {
    fn add(&mut self, amount: Amount, again: bool) {
        self.payouts += 1;
        self.sum = self.sum.checked_add(amount).unwrap_or(Amount::MAX);
        self.again += u64::from(again);
    }
}
