//! A second look at a file for the bank, after it was written and before it may be sent: what official schemas do not
//! catch. It reads the bytes alone, by another way than they were written, and knows nothing of what they should be.
//!
//! Caught here and not by a schema: sums and counts, characters outside the banks' set, IBANs with wrong check digits or
//! outside SEPA, amounts beyond the scheme's bounds, identifiers that are used twice or are the banks' word for none, days
//! in the past or on which TARGET is closed, mandates signed in the future or used for the first time twice, an address of the
//! initiating party.

use std::collections::HashSet;
use std::io::Read;

use rust_decimal::Decimal;
use thiserror::Error;

use super::calendar::{Date, DateError};
use super::creditor_id::CreditorId;
use super::transfer::{NOT_PROVIDED, TransferTotals, is_payable};
use super::transfer_read::check_sums;
use super::xml::{Block, Node, ReadError, Word, XmlReader};
use crate::details::{Iban, TextError, check_identifier, clip, is_bank_char};

/// Why a file must not be sent. Bug family: whoever wrote it should have refused.
#[derive(Debug, Error)]
pub enum InspectError {
    /// Not a whole file, or its counts or sums are wrong.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A text that banks do not take.
    #[error("`{element}` has the text `{text}`, which banks refuse")]
    Text {
        /// The element.
        element: String,
        /// Its text, shortened.
        text: String,
    },
    /// An identifier that banks do not take.
    #[error("an identifier does not fit")]
    Identifier(#[from] TextError),
    /// An IBAN or creditor identifier that is none, or an account outside SEPA.
    #[error("`{0}` is no account that SEPA reaches, or no creditor identifier")]
    Account(String),
    /// An amount or currency that cannot be transferred.
    #[error("{amount} {currency} cannot be transferred")]
    Amount {
        /// The amount.
        amount: Decimal,
        /// The currency.
        currency: String,
    },
    /// An identifier used twice, or the banks' word for none.
    #[error("identifier `{0}` is not unique")]
    Duplicate(String),
    /// A day on which nothing can be executed.
    #[error("{0} is no day on which the bank executes")]
    Day(Date),
    /// The creation is no time.
    #[error("the creation is no time")]
    Created(#[from] DateError),
    /// Other elements than ours: an address, or `NOTPROVIDED` where it must not be.
    #[error("`{0}` must not be there")]
    Element(String),
}

/// Inspects a pain.001; its totals.
pub fn inspect_transfers(input: impl Read) -> Result<TransferTotals, InspectError> {
    let shape = Shape {
        family: "pain.001",
        version: 9,
        message: "CstmrCdtTrfInitn",
        order: "CdtTrfTxInf",
        batch: transfer_batch,
        one: transfer_order,
    };
    inspect(input, &shape)
}

/// Inspects a pain.008; its totals.
pub fn inspect_collections(input: impl Read) -> Result<TransferTotals, InspectError> {
    let shape = Shape {
        family: "pain.008",
        version: 8,
        message: "CstmrDrctDbtInitn",
        order: "DrctDbtTxInf",
        batch: collection_batch,
        one: collection_order,
    };
    inspect(input, &shape)
}

/// How two messages differ that are alike otherwise.
struct Shape {
    family: &'static str,
    version: u16,
    message: &'static str,
    order: &'static str,
    /// Looks at what a batch says before its orders; the day of execution.
    batch: fn(Node<'_>) -> Result<Date, InspectError>,
    /// Looks at an order of a file that was made on a day.
    one: for<'a> fn(Node<'a>, Date) -> Result<Order<'a>, InspectError>,
}

/// What is compared with other orders.
struct Order<'a> {
    id: &'a str,
    amount: Decimal,
    currency: Word,
    /// The mandate of a collection.
    mandate: Option<&'a str>,
}

/// One pass over the file, one order after the other.
fn inspect(input: impl Read, shape: &Shape) -> Result<TransferTotals, InspectError> {
    let (mut reader, message) = XmlReader::open(input)?;
    if (message.family.as_str(), message.version) != (shape.family, shape.version) {
        return Err(ReadError::Unsupported(message.full).into());
    }
    reader.message(shape.message)?;
    let mut header = None;
    let mut seen = Seen::default();
    while let Some(tag) = reader.child()? {
        match (tag.name.as_str(), &header) {
            ("GrpHdr", None) => {
                let block = reader.block(tag)?;
                check_texts(&block)?;
                let created = Date::from_iso(text(block.root(), &["CreDtTm"], "CreDtTm")?)?;
                header = Some((block, created));
            }
            ("PmtInf", Some((_, created))) => inspect_batch(&mut reader, shape, *created, &mut seen)?,
            (name, _) => return Err(InspectError::Element(name.to_owned())),
        }
    }
    reader.finish()?;
    if reader.has_stray_text() {
        return Err(InspectError::Text { element: shape.message.to_owned(), text: String::new() });
    }
    let (header, _) = header.ok_or(ReadError::Missing("GrpHdr"))?;
    let id = text(header.root(), &["MsgId"], "MsgId")?;
    check_identifier(id)?;
    let totals = seen.totals();
    check_sums(header.root(), id, "PmtInf", totals)?;
    Ok(totals)
}

fn inspect_batch(
    reader: &mut XmlReader<impl Read>,
    shape: &Shape,
    created: Date,
    seen: &mut Seen,
) -> Result<(), InspectError> {
    let before = seen.totals();
    let mut fields = Block::default();
    let mut order = Block::default();
    // Once the batch's own fields are read: whether it collects from its mandates again and again.
    let mut again = None;
    while let Some(tag) = reader.child()? {
        if tag.name == shape.order {
            let again = if let Some(again) = again {
                again
            } else {
                check_texts(&fields)?;
                check_identifier(text(fields.root(), &["PmtInfId"], "PmtInfId")?)?;
                check_day((shape.batch)(fields.root())?, created)?;
                *again.insert(fields.root().text_at(&["PmtTpInf", "SeqTp"]) == Some("RCUR"))
            };
            reader.fill(&mut order, tag)?;
            check_texts(&order)?;
            let one = (shape.one)(order.root(), created)?;
            seen.take(&one)?;
            // One mandate's first, only or last collection stands alone in a file.
            if let Some(mandate) = one.mandate.filter(|_| !again) {
                seen.take_alone(mandate)?;
            }
        } else if again.is_none() {
            reader.add(&mut fields, tag)?;
        } else {
            // What a batch says stands before its orders.
            return Err(InspectError::Element(tag.name.as_str().to_owned()));
        }
    }
    let after = seen.totals();
    let found = TransferTotals { payments: after.payments - before.payments, sum: after.sum - before.sum };
    check_sums(fields.root(), text(fields.root(), &["PmtInfId"], "PmtInfId")?, shape.order, found)?;
    Ok(())
}

fn transfer_batch(fields: Node<'_>) -> Result<Date, InspectError> {
    text(fields, &["Dbtr", "Nm"], "Dbtr/Nm")?;
    check_account(text(fields, &["DbtrAcct", "Id", "IBAN"], "DbtrAcct/Id/IBAN")?)?;
    date(fields, &["ReqdExctnDt", "Dt"], "ReqdExctnDt")
}

fn transfer_order(node: Node<'_>, _: Date) -> Result<Order<'_>, InspectError> {
    text(node, &["Cdtr", "Nm"], "Cdtr/Nm")?;
    check_account(text(node, &["CdtrAcct", "Id", "IBAN"], "CdtrAcct/Id/IBAN")?)?;
    order_of(node, &["Amt", "InstdAmt"])
}

fn collection_batch(fields: Node<'_>) -> Result<Date, InspectError> {
    text(fields, &["PmtTpInf", "LclInstrm", "Cd"], "LclInstrm/Cd")?;
    text(fields, &["PmtTpInf", "SeqTp"], "SeqTp")?;
    check_account(text(fields, &["CdtrAcct", "Id", "IBAN"], "CdtrAcct/Id/IBAN")?)?;
    let id = fields.text_at(&["CdtrSchmeId", "Id", "PrvtId", "Othr", "Id"]).unwrap_or_default();
    id.parse::<CreditorId>().map_err(|_| InspectError::Account(clip(id)))?;
    date(fields, &["ReqdColltnDt"], "ReqdColltnDt")
}

fn collection_order(node: Node<'_>, created: Date) -> Result<Order<'_>, InspectError> {
    text(node, &["Dbtr", "Nm"], "Dbtr/Nm")?;
    check_account(text(node, &["DbtrAcct", "Id", "IBAN"], "DbtrAcct/Id/IBAN")?)?;
    let mandate = text(node, &["DrctDbtTx", "MndtRltdInf", "MndtId"], "MndtId")?;
    check_identifier(mandate)?;
    let signed_on = date(node, &["DrctDbtTx", "MndtRltdInf", "DtOfSgntr"], "DtOfSgntr")?;
    if signed_on > created {
        return Err(InspectError::Day(signed_on));
    }
    Ok(Order { mandate: Some(mandate), ..order_of(node, &["InstdAmt"])? })
}

fn order_of<'a>(node: Node<'a>, amount: &[&str]) -> Result<Order<'a>, InspectError> {
    let id = text(node, &["PmtId", "EndToEndId"], "EndToEndId")?;
    let (amount, currency) = node.at(amount).ok_or(ReadError::Missing("InstdAmt"))?.money("InstdAmt")?;
    Ok(Order { id, amount, currency, mandate: None })
}

fn text<'a>(node: Node<'a>, path: &[&str], element: &'static str) -> Result<&'a str, ReadError> {
    node.text_at(path).ok_or(ReadError::Missing(element))
}

fn date(node: Node<'_>, path: &[&str], element: &'static str) -> Result<Date, InspectError> {
    let text = text(node, path, element)?;
    Ok(Date::from_iso(text).map_err(|_| ReadError::Invalid { element, value: clip(text) })?)
}

/// What was seen of a file's orders. 16 bytes an order, so that the inspection of a large file stays small: two different
/// identifiers of one file that share 128 bits of SHA-256 do not happen.
#[derive(Default)]
struct Seen {
    ids: HashSet<[u8; 16]>,
    /// Mandates that were used for the first, only or last time.
    alone: HashSet<[u8; 16]>,
    sum: Decimal,
}

impl Seen {
    fn take(&mut self, order: &Order<'_>) -> Result<(), InspectError> {
        let Order { id, amount, currency, .. } = *order;
        check_identifier(id)?;
        if id == NOT_PROVIDED || !self.ids.insert(short(id)) {
            return Err(InspectError::Duplicate(clip(id)));
        }
        if !is_payable(amount) || currency != "EUR" {
            return Err(InspectError::Amount { amount, currency: currency.as_str().to_owned() });
        }
        self.sum += amount;
        Ok(())
    }

    fn take_alone(&mut self, mandate: &str) -> Result<(), InspectError> {
        if self.alone.insert(short(mandate)) { Ok(()) } else { Err(InspectError::Duplicate(clip(mandate))) }
    }

    fn totals(&self) -> TransferTotals {
        TransferTotals { payments: self.ids.len(), sum: self.sum }
    }
}

fn short(id: &str) -> [u8; 16] {
    use sha2::Digest as _;
    let hash: [u8; 32] = sha2::Sha256::digest(id).into();
    hash.first_chunk::<16>().copied().unwrap_or_default()
}

fn check_account(iban: &str) -> Result<(), InspectError> {
    match iban.parse::<Iban>() {
        // As it is to be written: no spaces, no lower case.
        Ok(parsed) if parsed.is_sepa() && parsed.as_str() == iban => Ok(()),
        _ => Err(InspectError::Account(clip(iban))),
    }
}

fn check_day(day: Date, created: Date) -> Result<(), InspectError> {
    if day < created || !day.is_target_day() { Err(InspectError::Day(day)) } else { Ok(()) }
}

/// Every text of a block, one by one, wherever it stands.
fn check_texts(block: &Block) -> Result<(), InspectError> {
    block.nodes().try_for_each(|(outer, node)| check_text(outer, node))
}

fn check_text(outer: Word, node: Node<'_>) -> Result<(), InspectError> {
    let (element, text) = (node.name(), node.raw());
    if element == "PstlAdr" || (text == NOT_PROVIDED && !(element == "Id" && outer == "Othr")) {
        return Err(InspectError::Element(element.as_str().to_owned()));
    }
    // What is not ASCII has bytes that are no character of the set.
    let bare = text.trim_matches(['\n', ' ']);
    let fits = bare.is_empty() || (bare.len() == text.len() && text.bytes().all(|byte| is_bank_char(char::from(byte))));
    if fits { Ok(()) } else { Err(InspectError::Text { element: element.as_str().to_owned(), text: clip(text) }) }
}

#[cfg(test)]
mod tests;
