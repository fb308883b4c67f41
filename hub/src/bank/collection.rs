//! pain.008.001.08: SEPA direct debits, CORE and B2B. It owns what a collection file must satisfy before it may exist.
//!
//! Like [`super::transfer`]: everything that a bank would refuse is refused before the first byte is written, and the same
//! input gives the same bytes. Whether a mandate is in force, and when its debtor was told of the collection, the caller
//! knows.

use std::collections::HashSet;
use std::io::{self, Write};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::calendar::{Date, DateError, timestamp};
use super::creditor_id::CreditorId;
use super::spool::SpoolError;
use super::transfer::{
    MAX_PAYMENTS, NOT_PROVIDED, Remittance, TransferTotals, is_payable, write_remittance, write_totals,
};
use super::xml_write::XmlWriter;
use crate::details::{Bic, Currency, Iban};
use crate::details::{TextError, bank_name, check_identifier, check_remittance};

const MESSAGE: &str = "pain.008.001.08";

/// Which rules a debtor's mandate stands under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// CORE: a refund within eight weeks, no questions asked.
    Core,
    /// B2B: between companies, no refund of what was authorised.
    B2b,
}

impl Scheme {
    /// `LclInstrm/Cd`
    pub const fn code(self) -> &'static str {
        match self {
            Self::Core => "CORE",
            Self::B2b => "B2B",
        }
    }
}

/// Where a collection stands in the life of its mandate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sequence {
    /// FRST: the first one of several.
    First,
    /// RCUR: a later one.
    Recurring,
    /// FNAL: the last one.
    Final,
    /// OOFF: the only one.
    OneOff,
}

impl Sequence {
    /// `SeqTp`
    pub const fn code(self) -> &'static str {
        match self {
            Self::First => "FRST",
            Self::Recurring => "RCUR",
            Self::Final => "FNAL",
            Self::OneOff => "OOFF",
        }
    }
}

/// Who collects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Creditor {
    /// Its name; written as [`bank_name`] gives it.
    pub name: String,
    /// The account that is credited.
    pub iban: Iban,
    /// Its bank, where that bank wants to be named.
    pub bic: Option<Bic>,
    /// The right to collect.
    pub id: CreditorId,
}

/// What all batches of a file share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionHeader {
    /// `MsgId`: of the file. Banks refuse one that they have seen.
    pub message_id: String,
    /// When the file is made, milliseconds since 1970.
    pub created_ms: u64,
    /// Who collects.
    pub creditor: Creditor,
}

/// Collections that share scheme, sequence and day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionBatch {
    /// `PmtInfId`; unique in the file.
    pub batch_id: String,
    /// The rules.
    pub scheme: Scheme,
    /// In the mandates' lives.
    pub sequence: Sequence,
    /// When debtors are debited: a TARGET day, not before the day of the creation (UTC).
    pub collection_date: Date,
    /// The collections.
    pub collections: Vec<Collection>,
}

/// One collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    /// `EndToEndId`; unique in the file.
    pub end_to_end_id: String,
    /// Major units, at most two digits behind the point, within the bounds of a payment.
    pub amount: Decimal,
    /// `MndtId`
    pub mandate_id: String,
    /// When the mandate was signed; not after the file's creation, nor after the collection.
    pub signed_on: Date,
    /// Who pays; written as [`bank_name`] gives it.
    pub debtor_name: String,
    /// From where.
    pub debtor_iban: Iban,
    /// What for.
    pub remittance: Remittance,
}

/// Why a file was not written. Misuse family, except `Io` and `Spool`.
#[derive(Debug, Error)]
pub enum CollectError {
    /// The output failed; what is there is no file.
    #[error("writing failed")]
    Io(#[from] io::Error),
    /// The file could not be put into its directory.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A field's text does not fit. `collection` is its `EndToEndId`, if it is one's.
    #[error("`{field}` does not fit{}", of_collection(collection.as_deref()))]
    Text {
        /// The element.
        field: &'static str,
        /// Of which collection.
        collection: Option<String>,
        /// Why.
        source: TextError,
    },
    /// An IBAN of a country that SEPA does not reach.
    #[error("`{iban}` is outside SEPA{}", of_collection(collection.as_deref()))]
    OutsideSepa {
        /// The account.
        iban: Iban,
        /// Of which collection; `None`: the creditor's.
        collection: Option<String>,
    },
    /// Below, above, or more than two digits behind the point.
    #[error("amount {amount} cannot be collected{}", of_collection(Some(collection)))]
    Amount {
        /// As given.
        amount: Decimal,
        /// Of which collection.
        collection: String,
    },
    /// An identifier is used twice in the file, or is the banks' word for none; or a mandate is used for the first time
    /// twice.
    #[error("`{field}` `{id}` is not unique")]
    Duplicate {
        /// The element.
        field: &'static str,
        /// The identifier.
        id: String,
    },
    /// A time out of range.
    #[error("time is out of range")]
    Created(#[from] DateError),
    /// The collection date is before the creation, before the mandate was signed, or no TARGET day.
    #[error("{date} cannot be the collection date: {why}")]
    Date {
        /// As given.
        date: Date,
        /// Why not.
        why: &'static str,
    },
    /// A file needs a batch, a batch a collection.
    #[error("no collections")]
    Empty,
    /// More than [`MAX_PAYMENTS`].
    #[error("more than {MAX_PAYMENTS} collections")]
    TooMany,
}

fn of_collection(id: Option<&str>) -> String {
    id.map_or_else(String::new, |id| format!(" in collection `{id}`"))
}

/// Writes one file.
///
/// Everything is checked before the first byte. On an error after it ([`CollectError::Io`]) the output is incomplete:
/// write to a temporary file, as [`super::write_atomically`] does.
pub fn write_collections<W: Write>(
    out: W,
    header: &CollectionHeader,
    batches: &[CollectionBatch],
) -> Result<TransferTotals, CollectError> {
    let created = timestamp(header.created_ms)?;
    let creditor_name = check_header(header)?;
    let totals = check_batches(header, batches)?;
    let mut xml = XmlWriter::new(out, MESSAGE);
    xml.open("CstmrDrctDbtInitn")?;
    xml.open("GrpHdr")?;
    xml.leaf("MsgId", &header.message_id)?;
    xml.leaf("CreDtTm", &created)?;
    write_totals(&mut xml, totals)?;
    xml.nested(&["InitgPty", "Nm"], &creditor_name)?;
    xml.close()?;
    for batch in batches {
        write_batch(&mut xml, header, &creditor_name, batch)?;
    }
    xml.finish()?.flush()?;
    Ok(totals)
}

fn check_header(header: &CollectionHeader) -> Result<String, CollectError> {
    let in_field = |field| move |source| CollectError::Text { field, collection: None, source };
    check_identifier(&header.message_id).map_err(in_field("MsgId"))?;
    if !header.creditor.iban.is_sepa() {
        return Err(CollectError::OutsideSepa { iban: header.creditor.iban, collection: None });
    }
    bank_name(&header.creditor.name).map_err(in_field("Cdtr/Nm"))
}

fn check_batches(header: &CollectionHeader, batches: &[CollectionBatch]) -> Result<TransferTotals, CollectError> {
    let created = Date::from_unix_ms(header.created_ms)?;
    let mut seen = Seen::default();
    let mut totals = TransferTotals { payments: 0, sum: Decimal::ZERO };
    for batch in batches {
        check_identifier(&batch.batch_id).map_err(|source| CollectError::Text {
            field: "PmtInfId",
            collection: None,
            source,
        })?;
        if !seen.batches.insert(&batch.batch_id) {
            return Err(CollectError::Duplicate { field: "PmtInfId", id: batch.batch_id.clone() });
        }
        check_date(batch.collection_date, created)?;
        if batch.collections.is_empty() {
            return Err(CollectError::Empty);
        }
        for collection in &batch.collections {
            if totals.payments == MAX_PAYMENTS {
                return Err(CollectError::TooMany);
            }
            if collection.signed_on > created {
                return Err(CollectError::Date {
                    date: collection.signed_on,
                    why: "a mandate is signed after the creation",
                });
            }
            check_collection(collection, batch, &mut seen)?;
            totals.payments += 1;
            totals.sum += collection.amount;
        }
    }
    if totals.payments == 0 {
        return Err(CollectError::Empty);
    }
    Ok(totals)
}

/// What may be in a file once only.
#[derive(Default)]
struct Seen<'a> {
    batches: HashSet<&'a str>,
    end_to_end_ids: HashSet<&'a str>,
    /// Mandates that are used for the first, last or only time.
    mandates: HashSet<&'a str>,
}

fn check_date(date: Date, created: Date) -> Result<(), CollectError> {
    let why = if date < created {
        "it is before the creation"
    } else if !date.is_target_day() {
        "it is no TARGET day"
    } else {
        return Ok(());
    };
    Err(CollectError::Date { date, why })
}

fn check_collection<'a>(
    collection: &'a Collection,
    batch: &CollectionBatch,
    seen: &mut Seen<'a>,
) -> Result<(), CollectError> {
    let id = &collection.end_to_end_id;
    let in_field = |field| move |source| CollectError::Text { field, collection: Some(id.clone()), source };
    check_identifier(id).map_err(in_field("EndToEndId"))?;
    check_identifier(&collection.mandate_id).map_err(in_field("MndtId"))?;
    if id == NOT_PROVIDED || !seen.end_to_end_ids.insert(id) {
        return Err(CollectError::Duplicate { field: "EndToEndId", id: id.clone() });
    }
    if batch.sequence != Sequence::Recurring && !seen.mandates.insert(&collection.mandate_id) {
        return Err(CollectError::Duplicate { field: "MndtId", id: collection.mandate_id.clone() });
    }
    if !is_payable(collection.amount) {
        return Err(CollectError::Amount { amount: collection.amount, collection: id.clone() });
    }
    if !collection.debtor_iban.is_sepa() {
        return Err(CollectError::OutsideSepa { iban: collection.debtor_iban, collection: Some(id.clone()) });
    }
    if collection.signed_on > batch.collection_date {
        return Err(CollectError::Date { date: batch.collection_date, why: "it is before the mandate was signed" });
    }
    if let Remittance::Text(text) = &collection.remittance {
        check_remittance(text).map_err(in_field("Ustrd"))?;
    }
    bank_name(&collection.debtor_name).map_err(in_field("Dbtr/Nm"))?;
    Ok(())
}

fn write_batch<W: Write>(
    xml: &mut XmlWriter<W>,
    header: &CollectionHeader,
    creditor_name: &str,
    batch: &CollectionBatch,
) -> Result<(), CollectError> {
    let creditor = &header.creditor;
    let sum = batch.collections.iter().map(|collection| collection.amount).sum();
    xml.open("PmtInf")?;
    xml.leaf("PmtInfId", &batch.batch_id)?;
    xml.leaf("PmtMtd", "DD")?;
    write_totals(xml, TransferTotals { payments: batch.collections.len(), sum })?;
    xml.open("PmtTpInf")?;
    xml.nested(&["SvcLvl", "Cd"], "SEPA")?;
    xml.nested(&["LclInstrm", "Cd"], batch.scheme.code())?;
    xml.leaf("SeqTp", batch.sequence.code())?;
    xml.close()?;
    xml.leaf("ReqdColltnDt", &batch.collection_date.to_string())?;
    xml.nested(&["Cdtr", "Nm"], creditor_name)?;
    xml.nested(&["CdtrAcct", "Id", "IBAN"], creditor.iban.as_str())?;
    match &creditor.bic {
        Some(bic) => xml.nested(&["CdtrAgt", "FinInstnId", "BICFI"], bic.as_str())?,
        None => xml.nested(&["CdtrAgt", "FinInstnId", "Othr", "Id"], NOT_PROVIDED)?,
    }
    xml.leaf("ChrgBr", "SLEV")?;
    for name in ["CdtrSchmeId", "Id", "PrvtId", "Othr"] {
        xml.open(name)?;
    }
    xml.leaf("Id", creditor.id.as_str())?;
    xml.nested(&["SchmeNm", "Prtry"], "SEPA")?;
    for _ in 0..4 {
        xml.close()?;
    }
    for collection in &batch.collections {
        write_collection(xml, collection)?;
    }
    xml.close()?;
    Ok(())
}

fn write_collection<W: Write>(xml: &mut XmlWriter<W>, collection: &Collection) -> Result<(), CollectError> {
    let debtor_name = bank_name(&collection.debtor_name).map_err(|source| CollectError::Text {
        field: "Dbtr/Nm",
        collection: Some(collection.end_to_end_id.clone()),
        source,
    })?;
    xml.open("DrctDbtTxInf")?;
    xml.nested(&["PmtId", "EndToEndId"], &collection.end_to_end_id)?;
    xml.money("InstdAmt", Currency::EUR.as_str(), collection.amount)?;
    xml.open("DrctDbtTx")?;
    xml.open("MndtRltdInf")?;
    xml.leaf("MndtId", &collection.mandate_id)?;
    xml.leaf("DtOfSgntr", &collection.signed_on.to_string())?;
    xml.close()?;
    xml.close()?;
    xml.nested(&["DbtrAgt", "FinInstnId", "Othr", "Id"], NOT_PROVIDED)?;
    xml.nested(&["Dbtr", "Nm"], &debtor_name)?;
    xml.nested(&["DbtrAcct", "Id", "IBAN"], collection.debtor_iban.as_str())?;
    write_remittance(xml, &collection.remittance)?;
    xml.close()?;
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
