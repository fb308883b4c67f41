//! What the sandbox bank decides: whether an order can be executed, what it says of it, and how it is booked.

use rust_decimal::Decimal;

use super::behaviour::{Behaviour, Fault};
use super::instruction::{InstructedBatch, Instruction, Ordered};
use super::state::{ComingBack, Detail, Entry, EntryKind, State};
use super::{IncomingTransfer, SandboxError, SandboxOptions};
use crate::bank::calendar::Date;
use crate::bank::transfer::{NOT_PROVIDED, Remittance, is_payable};
use crate::details::Iban;

/// Why an order is not executed: ISO reason code and words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) code: String,
    pub(super) text: &'static str,
}

impl Rejection {
    pub(super) fn new(code: &str, text: &'static str) -> Self {
        Self { code: code.to_owned(), text }
    }
}

/// What becomes of an order, and what is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// Executed, and said so.
    Paid,
    /// Executed, said so, and the money comes back for this reason.
    ComesBack(String),
    /// Not executed, and said so.
    Rejected(Rejection),
    /// Executed; said to be rejected first, then to be settled.
    PaidAfterReject(Rejection),
    /// Not executed; said to be settled first, then to be rejected.
    RejectedAfterPaid(Rejection),
}

impl Fate {
    pub(super) fn is_executed(&self) -> bool {
        matches!(self, Self::Paid | Self::ComesBack(_) | Self::PaidAfterReject(_))
    }

    /// What the first report says: settled, or why not.
    pub(super) fn first_word(&self) -> Result<(), &Rejection> {
        match self {
            Self::Rejected(why) | Self::PaidAfterReject(why) => Err(why),
            Self::Paid | Self::ComesBack(_) | Self::RejectedAfterPaid(_) => Ok(()),
        }
    }

    /// What the second report says, for what is in one.
    pub(super) fn second_word(&self) -> Option<Result<(), &Rejection>> {
        match self {
            Self::PaidAfterReject(_) => Some(Ok(())),
            Self::RejectedAfterPaid(why) => Some(Err(why)),
            Self::Paid | Self::ComesBack(_) | Self::Rejected(_) => None,
        }
    }
}

/// An order and what becomes of it.
#[derive(Debug)]
pub(super) struct Order<'a> {
    pub(super) ordered: &'a Ordered,
    pub(super) fate: Fate,
    /// The other side; there if it is executed.
    other: Option<Iban>,
}

/// What a file booked.
#[derive(Debug, Default)]
pub(super) struct Booked {
    /// To be announced with the first report.
    pub(super) now: Vec<Entry>,
    /// To be announced with the second one.
    pub(super) later: Vec<Entry>,
}

/// By what the bank judges.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) options: &'a SandboxOptions,
    pub(super) behaviour: &'a Behaviour,
}

impl State {
    /// Decides on every order of a file, batch by batch, payments as far as the balance goes.
    pub(super) fn judge<'a>(&self, file: &'a Instruction, rules: Rules<'_>) -> Vec<Vec<Order<'a>>> {
        let mut left = self.balance;
        let partial = partial(file, rules.behaviour);
        let mut number = 0_usize;
        let mut judge_one = |batch: &InstructedBatch, ordered: &'a Ordered| {
            let chosen = partial.get(number).copied().unwrap_or(false);
            number += 1;
            match judge_order(batch, ordered, rules.options, left) {
                Ok(other) => {
                    let fate = rules.fate(ordered, other, chosen);
                    if fate.is_executed() && batch.kind == EntryKind::Transfer {
                        left -= ordered.amount;
                    }
                    Order { ordered, fate, other: Some(other) }
                }
                Err(rejection) => Order { ordered, fate: Fate::Rejected(rejection), other: None },
            }
        };
        file.batches.iter().map(|batch| batch.orders.iter().map(|order| judge_one(batch, order)).collect()).collect()
    }

    /// Books what is executed, and notes what comes back.
    pub(super) fn book_orders(
        &mut self,
        file: &Instruction,
        orders: &[Vec<Order<'_>>],
        rules: Rules<'_>,
        now_ms: u64,
    ) -> Result<Booked, SandboxError> {
        let date = Date::from_unix_ms(now_ms)?;
        let flip = rules.behaviour.strikes(Fault::FlipBatching, &file.message_id);
        let in_one_line = rules.options.batch_booking != flip;
        let mut booked = Booked::default();
        for (batch, orders) in file.batches.iter().zip(orders) {
            let (mut now, mut later) = (Vec::new(), Vec::new());
            for order in orders {
                let into = if matches!(order.fate, Fate::PaidAfterReject(_)) { &mut later } else { &mut now };
                into.extend(self.detail(file, batch, order, rules, now_ms));
            }
            self.book_details(now, batch.kind, in_one_line, date, &mut booked.now);
            self.book_details(later, batch.kind, in_one_line, date, &mut booked.later);
        }
        let any = !booked.now.is_empty() || !booked.later.is_empty();
        if let Some(charge) = rules.behaviour.charge(Fault::Charge, &file.message_id).filter(|_| any) {
            booked.now.push(self.book_charge(charge, date));
        }
        Ok(booked)
    }

    /// Books money that arrives; gives the new entry.
    pub(super) fn book_credit(
        &mut self,
        transfer: &IncomingTransfer,
        debtor_name: String,
        behaviour: &Behaviour,
        now_ms: u64,
    ) -> Result<Entry, SandboxError> {
        let reference = self.take_reference();
        let (structured, text) = match &transfer.remittance {
            _ if behaviour.strikes(Fault::DropReference, &reference) => (None, None),
            Remittance::None => (None, None),
            Remittance::Text(text) => (None, Some(text.clone())),
            Remittance::Reference(reference) => (Some(reference.to_string()), None),
        };
        let charge = deducted(transfer.amount, behaviour.charge(Fault::Deduct, &reference));
        let amount = transfer.amount - charge;
        let entry = Entry {
            reference: reference.clone(),
            credit: true,
            amount,
            date: Date::from_unix_ms(now_ms)?,
            batch: false,
            kind: EntryKind::Transfer,
            details: vec![Detail {
                reference,
                end_to_end_id: None,
                message_id: None,
                batch_id: None,
                amount,
                name: debtor_name,
                iban: transfer.debtor_iban,
                structured,
                text,
                mandate_id: None,
                return_reason: None,
                charge,
            }],
        };
        self.book(entry.clone());
        Ok(entry)
    }

    /// Books everything that comes back by now; gives the new entries.
    pub(super) fn book_returns(&mut self, behaviour: &Behaviour, now_ms: u64) -> Result<Vec<Entry>, SandboxError> {
        let date = Date::from_unix_ms(now_ms)?;
        let (due, waiting) = std::mem::take(&mut self.coming_back).into_iter().partition(|back| back.due_ms <= now_ms);
        self.coming_back = waiting;
        let due: Vec<ComingBack> = due;
        let mut entries = Vec::new();
        for back in due {
            let reference = self.take_reference();
            let id = back.detail.reference.clone();
            // A payout comes back as a credit, a collection as a debit.
            let credit = back.kind == EntryKind::Transfer;
            let charge = if credit { behaviour.charge(Fault::Deduct, &id) } else { None };
            let charge = deducted(back.detail.amount, charge);
            if credit {
                self.received.entry(back.detail.iban).or_default().returned += back.detail.amount;
            }
            let mut detail = Detail {
                reference: reference.clone(),
                amount: back.detail.amount - charge,
                return_reason: Some(back.reason),
                charge,
                ..back.detail
            };
            if behaviour.strikes(Fault::DropReference, &reference) {
                detail.forget();
            }
            let kind = if credit { EntryKind::Returned } else { EntryKind::TakenBack };
            let entry =
                Entry { reference, credit, amount: detail.amount, date, batch: false, kind, details: vec![detail] };
            self.book(entry.clone());
            entries.push(entry);
            if let Some(charge) = behaviour.charge(Fault::Charge, &id) {
                entries.push(self.book_charge(charge, date));
            }
        }
        Ok(entries)
    }

    fn book_charge(&mut self, charge: Decimal, date: Date) -> Entry {
        let entry = Entry {
            reference: self.take_reference(),
            credit: false,
            amount: charge,
            date,
            batch: false,
            kind: EntryKind::Charge,
            details: Vec::new(),
        };
        self.book(entry.clone());
        entry
    }

    /// The transaction of an order that is executed; adds it to what its creditor received.
    fn detail(
        &mut self,
        file: &Instruction,
        batch: &InstructedBatch,
        order: &Order<'_>,
        rules: Rules<'_>,
        now_ms: u64,
    ) -> Option<Detail> {
        let iban = order.other.filter(|_| order.fate.is_executed())?;
        let Ordered { end_to_end_id, amount, name, reference, text, mandate_id, .. } = order.ordered;
        if batch.kind == EntryKind::Transfer {
            let received = self.received.entry(iban).or_default();
            received.amount += *amount;
            received.payments += 1;
        }
        let mut detail = Detail {
            reference: self.take_reference(),
            end_to_end_id: Some(end_to_end_id.clone()).filter(|id| id != NOT_PROVIDED),
            message_id: Some(file.message_id.clone()),
            batch_id: Some(batch.batch_id.clone()),
            amount: *amount,
            name: name.clone(),
            iban,
            structured: reference.clone(),
            text: text.clone(),
            mandate_id: mandate_id.clone(),
            return_reason: None,
            charge: Decimal::ZERO,
        };
        if let Fate::ComesBack(reason) = &order.fate {
            let due_ms = now_ms.saturating_add(rules.behaviour.return_after_ms);
            self.coming_back.push(ComingBack {
                due_ms,
                kind: batch.kind,
                reason: reason.clone(),
                detail: detail.clone(),
            });
        }
        if rules.behaviour.strikes(Fault::DropReference, end_to_end_id) {
            detail.forget();
        }
        Some(detail)
    }

    fn book_details(
        &mut self,
        details: Vec<Detail>,
        kind: EntryKind,
        in_one_line: bool,
        date: Date,
        booked: &mut Vec<Entry>,
    ) {
        if details.is_empty() {
            return;
        }
        let lines = if in_one_line { vec![details] } else { details.into_iter().map(|detail| vec![detail]).collect() };
        for details in lines {
            let reference = match details.as_slice() {
                [only] if !in_one_line => only.reference.clone(),
                _ => self.take_reference(),
            };
            let amount: Decimal = details.iter().map(|detail| detail.amount).sum();
            let credit = kind != EntryKind::Transfer;
            let entry = Entry { reference, credit, amount, date, batch: in_one_line, kind, details };
            self.book(entry.clone());
            booked.push(entry);
        }
    }
}

impl Rules<'_> {
    /// What becomes of an order that could be executed. `partial`: chosen to make its file a partial one.
    fn fate(&self, ordered: &Ordered, other: Iban, partial: bool) -> Fate {
        let behaviour = self.behaviour;
        let id = ordered.end_to_end_id.as_str();
        let by_dice = || Rejection::new(behaviour.reject_code(id), "refused by the dice");
        if partial || behaviour.strikes(Fault::Reject, id) {
            Fate::Rejected(by_dice())
        } else if behaviour.strikes(Fault::PaidAfterReject, id) {
            Fate::PaidAfterReject(by_dice())
        } else if behaviour.strikes(Fault::RejectAfterPaid, id) {
            Fate::RejectedAfterPaid(by_dice())
        } else if let Some(code) = behaviour.returns.get(&other) {
            Fate::ComesBack(code.clone())
        } else if behaviour.strikes(Fault::Return, id) {
            Fate::ComesBack(behaviour.return_code(id).to_owned())
        } else {
            Fate::Paid
        }
    }
}

/// For every order of a file whether it is rejected to make the file a partial one: the first, never the last, of those
/// between about half.
fn partial(file: &Instruction, behaviour: &Behaviour) -> Vec<bool> {
    let count = file.orders().count();
    if count < 2 || !behaviour.strikes(Fault::Partial, &file.message_id) {
        return Vec::new();
    }
    let chosen = |(number, order): (usize, &Ordered)| {
        number == 0 || (number + 1 < count && behaviour.coin("partial order", &order.end_to_end_id))
    };
    (0..).zip(file.orders()).map(chosen).collect()
}

/// What a charge takes of `amount`: all but a cent at most.
fn deducted(amount: Decimal, charge: Option<Decimal>) -> Decimal {
    charge.filter(|charge| *charge < amount).unwrap_or(Decimal::ZERO)
}

/// The other side's account, or why the order is not executed. In the order in which a bank checks.
fn judge_order(
    batch: &InstructedBatch,
    order: &Ordered,
    options: &SandboxOptions,
    balance: Decimal,
) -> Result<Iban, Rejection> {
    let reject = |code: &str, text| Err(Rejection::new(code, text));
    if batch.own_iban.parse() != Ok(options.iban) {
        return reject("AG01", "not an account of this customer");
    }
    if let Some((code, text)) = batch.wrong {
        return reject(code, text);
    }
    if order.currency != options.currency.as_str() {
        return reject("AM03", "not the currency of the account");
    }
    if !is_payable(order.amount) {
        return reject("AM12", "amount out of range");
    }
    let Ok(other) = order.iban.parse::<Iban>() else {
        return reject("AC01", "the account is not a valid IBAN");
    };
    if let Some(code) = options.rejects.get(&other) {
        return reject(code, "refused as configured");
    }
    if batch.kind == EntryKind::Transfer && order.amount > balance {
        return reject("AM04", "insufficient funds");
    }
    Ok(other)
}
