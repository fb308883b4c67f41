//! What a window pays out, and the file that says so to the bank. Pure: the same window gives the same bytes.

use std::collections::BTreeMap;

use weir_protocol::amount::{Amount, Currency};
use weir_protocol::id::{AccountId, HubId};

use super::{BankAccount, PayoutLine, RunReport, SettlementError, SkippedLine};
use crate::bank::{Currency as BankCurrency, Date, Debtor, Iban, Payment, Remittance, TransferHeader, write_transfers};
use crate::engine::books::Books;
use crate::engine::ledger::Balances;
use crate::engine::windows::{fee, minor_digits};

/// One payout with what the bank needs.
#[derive(Debug, Clone)]
pub(super) struct DraftPayout {
    amount: Amount,
    name: String,
    iban: String,
}

/// A window's payouts in one currency, before they are fixed.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    hub: HubId,
    window: u64,
    currency: Currency,
    created_ms: u64,
    account: BankAccount,
    pub(super) payouts: BTreeMap<AccountId, DraftPayout>,
}

/// `EndToEndId` of a payout: window and account, so that it is the same however often it is made. At most 35 characters.
pub fn end_to_end_id(window: u64, account: &AccountId) -> String {
    let id = hex::encode(account.as_bytes().get(..11).unwrap_or_default());
    format!("W{window}-{id}")
}

fn message_id(hub: &HubId, window: u64, currency: Currency) -> String {
    let hub = hex::encode(hub.as_bytes().get(..5).unwrap_or_default());
    format!("WEIR-{hub}-{window}-{currency}")
}

/// The name of a window's file.
pub(super) fn file_name(hub: &HubId, window: u64, currency: Currency) -> String {
    format!("{}.pain001.xml", message_id(hub, window, currency))
}

/// The payouts that a window still has to fix; `None` when they are fixed.
pub(super) fn draft(
    books: &Books,
    hub: &HubId,
    number: u64,
    currency: Currency,
    account: &BankAccount,
) -> Option<Draft> {
    let window = books.windows().get(number)?;
    if window.plans.contains_key(&currency) {
        return None;
    }
    let payouts = books
        .payouts(currency)
        .into_iter()
        .filter_map(|(id, amount)| {
            let details = books.account(&id)?;
            Some((id, DraftPayout { amount, name: details.name.clone(), iban: details.iban.clone() }))
        })
        .collect();
    let created_ms = window.time.0;
    Some(Draft { hub: *hub, window: number, currency, created_ms, account: account.clone(), payouts })
}

impl Draft {
    pub(super) fn file_name(&self) -> String {
        file_name(&self.hub, self.window, self.currency)
    }

    pub(super) fn amounts(&self) -> BTreeMap<AccountId, Amount> {
        self.payouts.iter().map(|(id, payout)| (*id, payout.amount)).collect()
    }

    /// The bytes of the file.
    pub(super) fn write(&self) -> Result<Vec<u8>, SettlementError> {
        let created = Date::from_unix_ms(self.created_ms)?;
        let currency: BankCurrency = self.currency.as_str().parse()?;
        let header = TransferHeader {
            message_id: message_id(&self.hub, self.window, self.currency),
            batch_id: message_id(&self.hub, self.window, self.currency),
            created_ms: self.created_ms,
            debtor: Debtor { name: self.account.name.clone(), iban: self.account.iban, bic: self.account.bic.clone() },
            execution_date: created,
            currency,
        };
        let payments = self
            .payouts
            .iter()
            .map(|(id, payout)| {
                Ok(Payment {
                    end_to_end_id: end_to_end_id(self.window, id),
                    amount: payout.amount.to_decimal(),
                    creditor_name: payout.name.clone(),
                    creditor_iban: payout.iban.parse::<Iban>()?,
                    remittance: Remittance::Text(format!("Weir payout window {}", self.window)),
                })
            })
            .collect::<Result<Vec<Payment>, SettlementError>>()?;
        let mut bytes = Vec::new();
        write_transfers(&mut bytes, &header, || payments.iter())?;
        Ok(bytes)
    }
}

/// What a cut-off now would pay out.
pub(super) fn preview(books: &Books) -> RunReport {
    let window = books.windows().open();
    let mut report = RunReport { window, state: None, payouts: Vec::new(), skipped: Vec::new(), files: Vec::new() };
    for currency in &books.policy().currencies {
        for (account, balances) in books.ledger().accounts(*currency) {
            let due = due(books, balances);
            let amount = due.floor_to_minor(minor_digits(*currency));
            match why_skipped(books, &account, due, amount) {
                None => report.payouts.push(PayoutLine {
                    account,
                    amount,
                    currency: *currency,
                    end_to_end_id: end_to_end_id(window, &account),
                    state: None,
                }),
                Some(why) if !due.is_zero() => {
                    report.skipped.push(SkippedLine { account, amount: due, currency: *currency, why });
                }
                Some(_) => {}
            }
        }
    }
    report
}

/// What would be payable after a cut-off: carried over, earned less the fee, marked by its owner.
fn due(books: &Books, balances: &Balances) -> Amount {
    let fee = fee(balances.earned, books.policy().fee_basis_points);
    let parts = [balances.payable, balances.marked, balances.earned.checked_sub(fee).unwrap_or(Amount::ZERO)];
    // Balances are parts of the bank's cash, which fits.
    parts.iter().try_fold(Amount::ZERO, |sum, part| sum.checked_add(*part)).unwrap_or(Amount::MAX)
}

fn why_skipped(books: &Books, account: &AccountId, due: Amount, amount: Amount) -> Option<String> {
    let minimum = books.policy().payout_min;
    if amount.is_zero() {
        Some(format!("{due} is less than the bank's smallest unit; it stays on the account"))
    } else if amount < minimum {
        Some(format!("{amount} is below the minimum payout of {minimum}; it is carried over"))
    } else if books.can_be_paid_out(account) {
        None
    } else {
        Some("the account is not approved, or frozen".into())
    }
}

/// How far a window has come.
pub(super) fn report(books: &Books, hub: &HubId, number: u64) -> Option<RunReport> {
    let window = books.windows().get(number)?;
    let mut report = RunReport {
        window: number,
        state: Some(window.state),
        payouts: Vec::new(),
        skipped: Vec::new(),
        files: Vec::new(),
    };
    for (currency, record) in &window.plans {
        if !record.payouts.is_empty() {
            report.files.push(file_name(hub, number, *currency));
        }
        report.payouts.extend(record.payouts.iter().map(|(account, payout)| PayoutLine {
            account: *account,
            amount: payout.amount,
            currency: *currency,
            end_to_end_id: end_to_end_id(number, account),
            state: Some(payout.state),
        }));
        for (account, balances) in books.ledger().accounts(*currency) {
            let paid = record.payouts.contains_key(&account);
            let amount = balances.payable.floor_to_minor(minor_digits(*currency));
            match why_skipped(books, &account, balances.payable, amount) {
                Some(why) if !paid && !balances.payable.is_zero() => {
                    report.skipped.push(SkippedLine { account, amount: balances.payable, currency: *currency, why });
                }
                _ => {}
            }
        }
    }
    Some(report)
}
