//! pain.001.001.09: SEPA credit transfers to the bank. It owns what a file must satisfy before it may exist.
//!
//! Everything that a bank would refuse, also beyond the schema (checksums, characters, sums, duplicates, dates), is
//! refused here before the first byte is written. The same input gives the same bytes.
//!
//! Why not the crate `sepa` (0.9.0): it knows these rules well and ships the official schemas, with which `.ci/xsd` judges
//! our files. But it takes every payment of a file as a value before it writes, where this module asks for them one by
//! one; it brings a second version of `quick-xml`; its IBANs, dates and amounts (cents in 64 bits) are types of its own
//! beside ours; its API changed with each of its nine versions so far, while the bytes that we write must not; and naming
//! elements in their order is the smaller part of this module. So it serves as the judge and not as the writer.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::io::{self, Write};

use rust_decimal::Decimal;
use thiserror::Error;

use super::calendar::{Date, DateError, timestamp};
use super::reference::CreditorReference;
use super::spool::SpoolError;
use super::xml_write::XmlWriter;
use crate::details::{Bic, Currency, Iban};
use crate::details::{TextError, bank_name, check_identifier, check_remittance};

/// Most payments in one file; many banks take no more.
pub const MAX_PAYMENTS: usize = 100_000;
/// Smallest amount of one payment: 0.01.
pub const MIN_AMOUNT: Decimal = Decimal::from_parts(1, 0, 0, false, 2);
/// Largest amount of one payment: 999,999,999.99 (EPC132-08).
pub const MAX_AMOUNT: Decimal = Decimal::from_parts(1_215_752_191, 23, 0, false, 2);
/// What banks write where there is no identifier; never an identifier of ours.
pub(super) const NOT_PROVIDED: &str = "NOTPROVIDED";

const MESSAGE: &str = "pain.001.001.09";

/// Whose account pays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debtor {
    /// Its owner; written as [`bank_name`] gives it.
    pub name: String,
    /// The account.
    pub iban: Iban,
    /// Its bank, where that bank wants to be named.
    pub bic: Option<Bic>,
}

/// What all payments of a file share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferHeader {
    /// `MsgId`: of the file. Banks refuse one that they have seen.
    pub message_id: String,
    /// `PmtInfId`: of the one batch in the file.
    pub batch_id: String,
    /// When the file is made, milliseconds since 1970.
    pub created_ms: u64,
    /// Who pays.
    pub debtor: Debtor,
    /// EUR: SEPA has no other.
    pub currency: Currency,
    /// When the bank is to pay: a TARGET day, not before the day of `created_ms` (UTC).
    pub execution_date: Date,
}

/// What the payee is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Remittance {
    /// Nothing.
    #[default]
    None,
    /// Free text, checked by [`check_remittance`].
    Text(String),
    /// A creditor reference, in `Strd`.
    Reference(CreditorReference),
}

/// One payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// `EndToEndId`: reaches the payee's statement, comes back in every report; unique in the file.
    pub end_to_end_id: String,
    /// Major units, at most two digits behind the point, [`MIN_AMOUNT`] to [`MAX_AMOUNT`].
    pub amount: Decimal,
    /// Who is paid; written as [`bank_name`] gives it.
    pub creditor_name: String,
    /// Where.
    pub creditor_iban: Iban,
    /// What for.
    pub remittance: Remittance,
}

/// What a file came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferTotals {
    /// `NbOfTxs`
    pub payments: usize,
    /// `CtrlSum`
    pub sum: Decimal,
}

/// Why a file was not written. Misuse family, except `Io` and `Spool`.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The output failed; what is there is no file.
    #[error("writing failed")]
    Io(#[from] io::Error),
    /// The file could not be put into the outbox.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A field's text does not fit. `payment` is its index, if it is one's.
    #[error("`{field}` does not fit{}", of_payment(*payment))]
    Text {
        /// The element.
        field: &'static str,
        /// Index of the payment, from 0.
        payment: Option<usize>,
        /// Why.
        source: TextError,
    },
    /// Not paid out by SEPA.
    #[error("currency {0} is not EUR")]
    Currency(Currency),
    /// An IBAN of a country that SEPA does not reach.
    #[error("`{iban}` is outside SEPA{}", of_payment(*payment))]
    OutsideSepa {
        /// The account.
        iban: Iban,
        /// Index of the payment, from 0; `None`: the debtor's.
        payment: Option<usize>,
    },
    /// Below, above, or more than two digits behind the point.
    #[error("amount {amount} cannot be paid{}", of_payment(Some(*payment)))]
    Amount {
        /// As given.
        amount: Decimal,
        /// Index of the payment, from 0.
        payment: usize,
    },
    /// Used twice in the file, or the banks' word for none.
    #[error("`EndToEndId` `{id}` is not unique{}", of_payment(Some(*payment)))]
    Duplicate {
        /// The identifier.
        id: String,
        /// Index of the second payment, from 0.
        payment: usize,
    },
    /// The creation time is out of range.
    #[error("creation time is out of range")]
    Created(#[from] DateError),
    /// The execution date is before the creation.
    #[error("execution date {execution} is before the creation on {created}")]
    PastDate {
        /// As given.
        execution: Date,
        /// Day of the creation time, UTC.
        created: Date,
    },
    /// TARGET is closed on the execution date.
    #[error("execution date {0} is no TARGET day")]
    ClosedDay(Date),
    /// A file needs a payment.
    #[error("no payments")]
    Empty,
    /// More than [`MAX_PAYMENTS`].
    #[error("more than {MAX_PAYMENTS} payments")]
    TooMany,
    /// The second pass over the payments gave others than the first; what was written is no file.
    #[error("payments changed between the two passes")]
    Changed,
}

fn of_payment(payment: Option<usize>) -> String {
    payment.map_or_else(String::new, |index| format!(" in payment {index}"))
}

/// Writes one file with one batch.
///
/// `payments` is called twice and must give the same payments both times: once to check and sum everything before the
/// first byte, once to write. So memory does not grow with the payments, except for the duplicate check: their
/// identifiers, at most 35 bytes each.
///
/// On an error after the first byte ([`WriteError::Io`], [`WriteError::Changed`]) the output is incomplete: write to a
/// temporary file, as [`super::Spool::write_outbox`] does.
pub fn write_transfers<W, I, P>(
    out: W,
    header: &TransferHeader,
    payments: impl Fn() -> I,
) -> Result<TransferTotals, WriteError>
where
    W: Write,
    I: IntoIterator<Item = P>,
    P: Borrow<Payment>,
{
    let checked = CheckedHeader::new(header)?;
    let totals = check_payments(payments())?;
    let mut xml = XmlWriter::new(out, MESSAGE);
    xml.open("CstmrCdtTrfInitn")?;
    write_header(&mut xml, header, &checked, totals)?;
    let mut written = TransferTotals { payments: 0, sum: Decimal::ZERO };
    for payment in payments() {
        let payment = payment.borrow();
        let name = check_payment(payment, written.payments)?;
        write_payment(&mut xml, header.currency, payment, &name)?;
        written.payments += 1;
        written.sum += payment.amount;
        if written.payments > totals.payments {
            break;
        }
    }
    if written != totals {
        return Err(WriteError::Changed);
    }
    xml.finish()?.flush()?;
    Ok(totals)
}

/// What of the header is not written as it is.
struct CheckedHeader {
    debtor_name: String,
    created: String,
}

impl CheckedHeader {
    fn new(header: &TransferHeader) -> Result<Self, WriteError> {
        let in_field = |field| move |source| WriteError::Text { field, payment: None, source };
        check_identifier(&header.message_id).map_err(in_field("MsgId"))?;
        check_identifier(&header.batch_id).map_err(in_field("PmtInfId"))?;
        let debtor_name = bank_name(&header.debtor.name).map_err(in_field("Dbtr/Nm"))?;
        if header.currency != Currency::EUR {
            return Err(WriteError::Currency(header.currency));
        }
        if !header.debtor.iban.is_sepa() {
            return Err(WriteError::OutsideSepa { iban: header.debtor.iban, payment: None });
        }
        let created = Date::from_unix_ms(header.created_ms)?;
        if header.execution_date < created {
            return Err(WriteError::PastDate { execution: header.execution_date, created });
        }
        if !header.execution_date.is_target_day() {
            return Err(WriteError::ClosedDay(header.execution_date));
        }
        Ok(Self { debtor_name, created: timestamp(header.created_ms)? })
    }
}

fn check_payments<P: Borrow<Payment>>(payments: impl IntoIterator<Item = P>) -> Result<TransferTotals, WriteError> {
    let mut seen = HashSet::new();
    let mut totals = TransferTotals { payments: 0, sum: Decimal::ZERO };
    for payment in payments {
        let payment = payment.borrow();
        if totals.payments == MAX_PAYMENTS {
            return Err(WriteError::TooMany);
        }
        check_payment(payment, totals.payments)?;
        if !seen.insert(Box::<str>::from(payment.end_to_end_id.as_str())) {
            return Err(WriteError::Duplicate { id: payment.end_to_end_id.clone(), payment: totals.payments });
        }
        totals.payments += 1;
        // Exact: 10^5 payments of at most 10^9 with two digits.
        totals.sum += payment.amount;
    }
    if totals.payments == 0 {
        return Err(WriteError::Empty);
    }
    Ok(totals)
}

/// Checks one payment; gives the creditor's name as it is written.
fn check_payment(payment: &Payment, index: usize) -> Result<String, WriteError> {
    let in_field = |field| move |source| WriteError::Text { field, payment: Some(index), source };
    check_identifier(&payment.end_to_end_id).map_err(in_field("EndToEndId"))?;
    if payment.end_to_end_id == NOT_PROVIDED {
        return Err(WriteError::Duplicate { id: payment.end_to_end_id.clone(), payment: index });
    }
    if !is_payable(payment.amount) {
        return Err(WriteError::Amount { amount: payment.amount, payment: index });
    }
    if !payment.creditor_iban.is_sepa() {
        return Err(WriteError::OutsideSepa { iban: payment.creditor_iban, payment: Some(index) });
    }
    if let Remittance::Text(text) = &payment.remittance {
        check_remittance(text).map_err(in_field("Ustrd"))?;
    }
    bank_name(&payment.creditor_name).map_err(in_field("Cdtr/Nm"))
}

/// Whether `amount` can be one payment.
pub(super) fn is_payable(amount: Decimal) -> bool {
    (MIN_AMOUNT..=MAX_AMOUNT).contains(&amount) && (amount.scale() <= 2 || amount.normalize().scale() <= 2)
}

fn write_header<W: Write>(
    xml: &mut XmlWriter<W>,
    header: &TransferHeader,
    checked: &CheckedHeader,
    totals: TransferTotals,
) -> io::Result<()> {
    xml.open("GrpHdr")?;
    xml.leaf("MsgId", &header.message_id)?;
    xml.leaf("CreDtTm", &checked.created)?;
    write_totals(xml, totals)?;
    xml.nested(&["InitgPty", "Nm"], &checked.debtor_name)?;
    xml.close()?;
    write_batch(xml, header, checked, totals)
}

/// `NbOfTxs` and `CtrlSum`, of a file or a batch.
pub(super) fn write_totals<W: Write>(xml: &mut XmlWriter<W>, totals: TransferTotals) -> io::Result<()> {
    xml.leaf("NbOfTxs", &totals.payments.to_string())?;
    xml.leaf("CtrlSum", &format!("{:.2}", totals.sum))
}

/// Up to a batch's payments.
fn write_batch<W: Write>(
    xml: &mut XmlWriter<W>,
    header: &TransferHeader,
    checked: &CheckedHeader,
    totals: TransferTotals,
) -> io::Result<()> {
    xml.open("PmtInf")?;
    xml.leaf("PmtInfId", &header.batch_id)?;
    xml.leaf("PmtMtd", "TRF")?;
    write_totals(xml, totals)?;
    xml.nested(&["PmtTpInf", "SvcLvl", "Cd"], "SEPA")?;
    xml.nested(&["ReqdExctnDt", "Dt"], &header.execution_date.to_string())?;
    xml.nested(&["Dbtr", "Nm"], &checked.debtor_name)?;
    xml.nested(&["DbtrAcct", "Id", "IBAN"], header.debtor.iban.as_str())?;
    match &header.debtor.bic {
        Some(bic) => xml.nested(&["DbtrAgt", "FinInstnId", "BICFI"], bic.as_str())?,
        None => xml.nested(&["DbtrAgt", "FinInstnId", "Othr", "Id"], NOT_PROVIDED)?,
    }
    xml.leaf("ChrgBr", "SLEV")
}

fn write_payment<W: Write>(
    xml: &mut XmlWriter<W>,
    currency: Currency,
    payment: &Payment,
    creditor_name: &str,
) -> io::Result<()> {
    xml.open("CdtTrfTxInf")?;
    xml.nested(&["PmtId", "EndToEndId"], &payment.end_to_end_id)?;
    xml.open("Amt")?;
    xml.money("InstdAmt", currency.as_str(), payment.amount)?;
    xml.close()?;
    xml.nested(&["Cdtr", "Nm"], creditor_name)?;
    xml.nested(&["CdtrAcct", "Id", "IBAN"], payment.creditor_iban.as_str())?;
    write_remittance(xml, &payment.remittance)?;
    xml.close()
}

pub(super) fn write_remittance<W: Write>(xml: &mut XmlWriter<W>, remittance: &Remittance) -> io::Result<()> {
    match remittance {
        Remittance::None => Ok(()),
        Remittance::Text(text) => xml.nested(&["RmtInf", "Ustrd"], text),
        Remittance::Reference(reference) => {
            xml.open("RmtInf")?;
            xml.structured_reference(reference.as_str())?;
            xml.close()
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use super::*;

    /// 2026-11-22 10:00:00 UTC.
    pub(crate) const NOW_MS: u64 = 1_795_341_600_000;

    pub(crate) fn header() -> TransferHeader {
        TransferHeader {
            message_id: "WEIR-7-EUR-1".to_owned(),
            batch_id: "WEIR-7-EUR-1-B1".to_owned(),
            created_ms: NOW_MS,
            debtor: Debtor {
                name: "Weir Hub Gründer & Co".to_owned(),
                iban: "DE89370400440532013000".parse().unwrap(),
                bic: None,
            },
            currency: Currency::EUR,
            execution_date: "2026-11-23".parse().unwrap(),
        }
    }

    pub(crate) fn payments() -> Vec<Payment> {
        vec![
            Payment {
                end_to_end_id: "WEIR-7-EUR-A".to_owned(),
                amount: Decimal::new(123_456, 2),
                creditor_name: "Ada's Größenwahn <Verlag>".to_owned(),
                creditor_iban: "NL91ABNA0417164300".parse().unwrap(),
                remittance: Remittance::Text("Weir window 7".to_owned()),
            },
            Payment {
                end_to_end_id: "WEIR-7-EUR-B".to_owned(),
                amount: Decimal::new(1, 2),
                creditor_name: "Bo".to_owned(),
                creditor_iban: "FR1420041010050500013M02606".parse().unwrap(),
                remittance: Remittance::Reference("RF18539007547034".parse().unwrap()),
            },
            Payment {
                end_to_end_id: "WEIR-7-EUR-C".to_owned(),
                amount: Decimal::new(5, 1),
                creditor_name: "Čapek".to_owned(),
                creditor_iban: "CZ6508000000192000145399".parse().unwrap(),
                remittance: Remittance::None,
            },
        ]
    }

    fn write(header: &TransferHeader, payments: &[Payment]) -> Result<String, WriteError> {
        let mut out = Vec::new();
        write_transfers(&mut out, header, || payments.iter())?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn write_one(change: impl FnOnce(&mut Payment)) -> Result<String, WriteError> {
        let mut payment = payments().remove(0);
        change(&mut payment);
        write(&header(), &[payment])
    }

    fn write_header_with(change: impl FnOnce(&mut TransferHeader)) -> Result<String, WriteError> {
        let mut header = header();
        change(&mut header);
        write(&header, &payments())
    }

    #[test]
    fn file_is_the_golden_one() {
        let written = write(&header(), &payments()).unwrap();
        assert_eq!(written, include_str!("testdata/pain.001.xml"));
    }

    #[test]
    fn bounds_of_amounts_are_what_they_say() {
        assert_eq!(MIN_AMOUNT.to_string(), "0.01");
        assert_eq!(MAX_AMOUNT.to_string(), "999999999.99");
    }

    #[test]
    fn amount_limits_hold_on_both_sides() {
        for (amount, fits) in [
            ("0.01", true),
            ("0.009", false),
            ("0", false),
            ("-1", false),
            ("1.230", true),
            ("1.234", false),
            ("999999999.99", true),
            ("1000000000", false),
            ("1", true),
        ] {
            let result = write_one(|payment| payment.amount = amount.parse().unwrap());
            assert_eq!(result.is_ok(), fits, "{amount}");
        }
    }

    #[test]
    fn payment_that_a_bank_would_refuse_is_refused() {
        assert!(matches!(
            write_one(|p| p.end_to_end_id = "a/".to_owned()),
            Err(WriteError::Text { field: "EndToEndId", .. })
        ));
        assert!(matches!(write_one(|p| p.end_to_end_id = "NOTPROVIDED".to_owned()), Err(WriteError::Duplicate { .. })));
        assert!(matches!(
            write_one(|p| p.creditor_name = "x".repeat(71)),
            Err(WriteError::Text { field: "Cdtr/Nm", .. })
        ));
        assert!(matches!(
            write_one(|p| p.remittance = Remittance::Text("ä".to_owned())),
            Err(WriteError::Text { field: "Ustrd", .. })
        ));
        assert!(matches!(
            write_one(|p| p.creditor_iban = "BR1800360305000010009795493C1".parse().unwrap()),
            Err(WriteError::OutsideSepa { payment: Some(0), .. })
        ));
        let mut twice = payments();
        twice[2].end_to_end_id = twice[0].end_to_end_id.clone();
        assert!(matches!(write(&header(), &twice), Err(WriteError::Duplicate { payment: 2, .. })));
        assert!(matches!(write(&header(), &[]), Err(WriteError::Empty)));
    }

    #[test]
    fn header_that_a_bank_would_refuse_is_refused() {
        assert!(matches!(
            write_header_with(|h| h.message_id = "ü".to_owned()),
            Err(WriteError::Text { field: "MsgId", .. })
        ));
        assert!(matches!(
            write_header_with(|h| h.batch_id = "x".repeat(36)),
            Err(WriteError::Text { field: "PmtInfId", .. })
        ));
        assert!(matches!(
            write_header_with(|h| h.debtor.name = String::new()),
            Err(WriteError::Text { field: "Dbtr/Nm", .. })
        ));
        assert!(matches!(write_header_with(|h| h.currency = "CHF".parse().unwrap()), Err(WriteError::Currency(_))));
        assert!(matches!(write_header_with(|h| h.created_ms = u64::MAX), Err(WriteError::Created(_))));
        assert!(write_header_with(|h| h.execution_date = "2026-11-23".parse().unwrap()).is_ok());
        // The day of the creation itself is a Sunday; Christmas is closed too.
        for closed in ["2026-11-22", "2026-12-25"] {
            let written = write_header_with(|h| h.execution_date = closed.parse().unwrap());
            assert!(matches!(written, Err(WriteError::ClosedDay(_))), "{closed}");
        }
        assert!(matches!(
            write_header_with(|h| h.execution_date = "2026-11-21".parse().unwrap()),
            Err(WriteError::PastDate { .. })
        ));
    }

    #[test]
    fn nothing_is_written_when_a_later_payment_is_wrong() {
        let mut payments = payments();
        payments[2].amount = Decimal::ZERO;
        let mut out = Vec::new();
        assert!(write_transfers(&mut out, &header(), || payments.iter()).is_err());
        assert!(out.is_empty());
    }

    #[test]
    fn payments_that_change_between_the_passes_are_noticed() {
        let payments = payments();
        let pass = std::cell::Cell::new(0);
        for second in [&payments[..2], &payments[1..], &[][..]] {
            pass.set(0);
            let result = write_transfers(io::sink(), &header(), || {
                pass.set(pass.get() + 1);
                if pass.get() == 1 { payments.iter() } else { second.iter() }
            });
            assert!(matches!(result, Err(WriteError::Changed)));
        }
    }

    #[test]
    fn count_limit_holds_on_both_sides() {
        let template = payments().remove(1);
        let many = |n: usize| {
            let template = &template;
            move || (0..n).map(move |index| Payment { end_to_end_id: format!("P{index}"), ..template.clone() })
        };
        let totals = write_transfers(io::sink(), &header(), many(MAX_PAYMENTS)).unwrap();
        assert_eq!(totals.sum.to_string(), "1000.00");
        assert!(matches!(write_transfers(io::sink(), &header(), many(MAX_PAYMENTS + 1)), Err(WriteError::TooMany)));
    }
}
