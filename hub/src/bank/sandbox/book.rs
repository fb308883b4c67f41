//! What the sandbox bank decides: whether a payment can be made, and how it is booked.

use rust_decimal::Decimal;

use super::state::{Detail, Entry, State};
use super::{IncomingTransfer, SandboxError, SandboxOptions};
use crate::bank::calendar::Date;
use crate::bank::transfer::{NOT_PROVIDED, Remittance, is_payable};
use crate::bank::transfer_read::{TransferBatch, TransferFile, TransferOrder};
use crate::details::Iban;

/// Why a payment is not made: ISO reason code and words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) code: String,
    pub(super) text: &'static str,
}

/// A payment and what becomes of it.
#[derive(Debug)]
pub(super) struct Order<'a> {
    pub(super) ordered: &'a TransferOrder,
    pub(super) rejection: Option<Rejection>,
    /// `Some` unless rejected.
    creditor: Option<Iban>,
}

impl State {
    /// Decides on every payment of a file, batch by batch, as far as the balance goes.
    pub(super) fn judge<'a>(&self, file: &'a TransferFile, options: &SandboxOptions) -> Vec<Vec<Order<'a>>> {
        let mut left = self.balance;
        let mut judge_one =
            |batch: &TransferBatch, order: &'a TransferOrder| match judge_order(batch, order, options, left) {
                Ok(creditor) => {
                    left -= order.amount;
                    Order { ordered: order, rejection: None, creditor: Some(creditor) }
                }
                Err(rejection) => Order { ordered: order, rejection: Some(rejection), creditor: None },
            };
        file.batches.iter().map(|batch| batch.orders.iter().map(|order| judge_one(batch, order)).collect()).collect()
    }

    /// Books what was not rejected; gives the new entries.
    pub(super) fn book_debits(
        &mut self,
        file: &TransferFile,
        orders: &[Vec<Order<'_>>],
        batch_booking: bool,
        now_ms: u64,
    ) -> Result<Vec<Entry>, SandboxError> {
        let date = Date::from_unix_ms(now_ms)?;
        let mut entries = Vec::new();
        for (batch, orders) in file.batches.iter().zip(orders) {
            let mut details = Vec::new();
            for order in orders {
                details.extend(self.debit_detail(file, batch, order));
            }
            if batch_booking && !details.is_empty() {
                entries.push(self.debit_entry(details, true, date));
            } else {
                entries.extend(details.into_iter().map(|detail| self.debit_entry(vec![detail], false, date)));
            }
        }
        for entry in &entries {
            self.book(entry.clone());
        }
        Ok(entries)
    }

    /// Books money that arrives; gives the new entry.
    pub(super) fn book_credit(
        &mut self,
        transfer: &IncomingTransfer,
        debtor_name: String,
        now_ms: u64,
    ) -> Result<Entry, SandboxError> {
        let reference = self.take_reference();
        let (structured, text) = match &transfer.remittance {
            Remittance::None => (None, None),
            Remittance::Text(text) => (None, Some(text.clone())),
            Remittance::Reference(reference) => (Some(reference.to_string()), None),
        };
        let entry = Entry {
            reference: reference.clone(),
            credit: true,
            amount: transfer.amount,
            date: Date::from_unix_ms(now_ms)?,
            batch: false,
            details: vec![Detail {
                reference,
                end_to_end_id: None,
                message_id: None,
                batch_id: None,
                amount: transfer.amount,
                name: debtor_name,
                iban: transfer.debtor_iban,
                structured,
                text,
            }],
        };
        self.book(entry.clone());
        Ok(entry)
    }

    /// The transaction of a payment that was not rejected; adds it to what its creditor received.
    fn debit_detail(&mut self, file: &TransferFile, batch: &TransferBatch, order: &Order<'_>) -> Option<Detail> {
        let iban = order.creditor?;
        let TransferOrder { end_to_end_id, amount, creditor_name, reference, text, .. } = order.ordered;
        let received = self.received.entry(iban).or_default();
        received.amount += *amount;
        received.payments += 1;
        Some(Detail {
            reference: self.take_reference(),
            end_to_end_id: Some(end_to_end_id.clone()).filter(|id| id != NOT_PROVIDED),
            message_id: Some(file.message_id.clone()),
            batch_id: Some(batch.batch_id.clone()),
            amount: *amount,
            name: creditor_name.clone(),
            iban,
            structured: reference.clone(),
            text: text.clone(),
        })
    }

    fn debit_entry(&mut self, details: Vec<Detail>, batch: bool, date: Date) -> Entry {
        let reference = match details.as_slice() {
            [only] if !batch => only.reference.clone(),
            _ => self.take_reference(),
        };
        let amount: Decimal = details.iter().map(|detail| detail.amount).sum();
        Entry { reference, credit: false, amount, date, batch, details }
    }
}

/// The creditor's account, or why the payment is not made. In the order in which a bank checks.
fn judge_order(
    batch: &TransferBatch,
    order: &TransferOrder,
    options: &SandboxOptions,
    balance: Decimal,
) -> Result<Iban, Rejection> {
    let reject = |code: &str, text| Err(Rejection { code: code.to_owned(), text });
    if batch.debtor_iban.parse() != Ok(options.iban) {
        return reject("AG01", "not an account of this customer");
    }
    if order.currency != options.currency.as_str() {
        return reject("AM03", "not the currency of the account");
    }
    if !is_payable(order.amount) {
        return reject("AM12", "amount out of range");
    }
    let Ok(creditor) = order.creditor_iban.parse::<Iban>() else {
        return reject("AC01", "creditor account is not a valid IBAN");
    };
    if let Some(code) = options.rejects.get(&creditor) {
        return reject(code, "refused as configured");
    }
    if order.amount > balance {
        return reject("AM04", "insufficient funds");
    }
    Ok(creditor)
}
