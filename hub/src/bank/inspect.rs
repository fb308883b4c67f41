//! A second look at a file for the bank, after it was written and before it may be sent: what official schemas do not
//! catch. It reads the bytes alone, by another way than they were written, and knows nothing of what they should be.
//!
//! Caught here and not by a schema: sums and counts, characters outside the banks' set, IBANs with wrong check digits or
//! outside SEPA, amounts beyond the scheme's bounds, identifiers that are used twice or are the banks' word for none, days
//! in the past or on which TARGET is closed, mandates signed in the future or used for the first time twice, an address of the
//! initiating party.

use std::collections::HashSet;
use std::io::{self, BufReader, Read};

use quick_xml::events::Event;
use rust_decimal::Decimal;
use thiserror::Error;

use super::calendar::{Date, DateError};
use super::collection_read::CollectionFile;
use super::creditor_id::CreditorId;
use super::transfer::{NOT_PROVIDED, TransferTotals, is_payable};
use super::transfer_read::TransferFile;
use super::xml::ReadError;
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

/// Inspects a pain.001; its totals. `open` is called twice and gives the file from its beginning.
pub fn inspect_transfers<R: Read>(open: impl Fn() -> io::Result<R>) -> Result<TransferTotals, InspectError> {
    inspect_texts(open().map_err(ReadError::Io)?)?;
    let file = TransferFile::read(open().map_err(ReadError::Io)?)?;
    let created = Date::from_iso(&file.created)?;
    let mut seen = Seen::default();
    check_identifier(&file.message_id)?;
    for batch in &file.batches {
        check_identifier(&batch.batch_id)?;
        check_account(&batch.debtor_iban)?;
        check_day(batch.execution_date, created)?;
        for order in &batch.orders {
            check_account(&order.creditor_iban)?;
            seen.take(&order.end_to_end_id, order.amount, &order.currency)?;
        }
    }
    Ok(seen.totals())
}

/// Inspects a pain.008; its totals. `open` is called twice and gives the file from its beginning.
pub fn inspect_collections<R: Read>(open: impl Fn() -> io::Result<R>) -> Result<TransferTotals, InspectError> {
    inspect_texts(open().map_err(ReadError::Io)?)?;
    let file = CollectionFile::read(open().map_err(ReadError::Io)?)?;
    let created = Date::from_iso(&file.created)?;
    let mut seen = Seen::default();
    let mut alone = HashSet::new();
    check_identifier(&file.message_id)?;
    for batch in &file.batches {
        check_identifier(&batch.batch_id)?;
        check_account(&batch.creditor_iban)?;
        let id = batch.creditor_id.as_deref().unwrap_or_default();
        id.parse::<CreditorId>().map_err(|_| InspectError::Account(clip(id)))?;
        check_day(batch.collection_date, created)?;
        for order in &batch.orders {
            check_identifier(&order.mandate_id)?;
            check_account(&order.debtor_iban)?;
            if order.signed_on > batch.collection_date.min(created) {
                return Err(InspectError::Day(order.signed_on));
            }
            // One mandate's first, only or last collection stands alone in a file.
            if batch.sequence != "RCUR" && !alone.insert(order.mandate_id.as_str()) {
                return Err(InspectError::Duplicate(clip(&order.mandate_id)));
            }
            seen.take(&order.end_to_end_id, order.amount, &order.currency)?;
        }
    }
    Ok(seen.totals())
}

/// What was seen of a file's orders. 16 bytes an order, so that the inspection of a large file stays small: two different
/// identifiers of one file that share 128 bits of SHA-256 do not happen.
#[derive(Default)]
struct Seen {
    ids: HashSet<[u8; 16]>,
    sum: Decimal,
}

impl Seen {
    fn take(&mut self, id: &str, amount: Decimal, currency: &str) -> Result<(), InspectError> {
        use sha2::Digest as _;
        check_identifier(id)?;
        let hash: [u8; 32] = sha2::Sha256::digest(id).into();
        let (short, _) = hash.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        if id == NOT_PROVIDED || !self.ids.insert(*short) {
            return Err(InspectError::Duplicate(clip(id)));
        }
        if !is_payable(amount) || currency != "EUR" {
            return Err(InspectError::Amount { amount, currency: clip(currency) });
        }
        self.sum += amount;
        Ok(())
    }

    fn totals(&self) -> TransferTotals {
        TransferTotals { payments: self.ids.len(), sum: self.sum }
    }
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

/// Every text of the file, one by one, wherever it stands.
fn inspect_texts(input: impl Read) -> Result<(), InspectError> {
    let malformed = |error: &dyn std::fmt::Display| {
        InspectError::Read(ReadError::Malformed { at: 0, what: clip(&error.to_string()) })
    };
    let mut reader = quick_xml::Reader::from_reader(BufReader::new(input));
    let mut buffer = Vec::new();
    let mut path: Vec<String> = Vec::new();
    let mut text = String::new();
    loop {
        buffer.clear();
        match reader.read_event_into(&mut buffer).map_err(|error| malformed(&error))? {
            Event::Start(start) => {
                text.clear();
                path.push(start.local_name().as_ref().to_owned());
            }
            Event::Text(part) => text.push_str(&part.xml10_content()),
            Event::GeneralRef(reference) => {
                let entity = quick_xml::escape::resolve_xml_entity(&reference);
                text.push_str(entity.ok_or_else(|| malformed(&"an entity of its own"))?);
            }
            Event::End(_) => {
                check_text(&path, &text)?;
                text.clear();
                path.pop();
            }
            Event::Eof => return Ok(()),
            _ => {}
        }
    }
}

fn check_text(path: &[String], text: &str) -> Result<(), InspectError> {
    let (Some(element), outer) = (path.last(), path.iter().rev().nth(1)) else { return Ok(()) };
    let named = |name: &str| outer.is_some_and(|outer| outer == name);
    if element == "PstlAdr" || (text == NOT_PROVIDED && !(element == "Id" && named("Othr"))) {
        return Err(InspectError::Element(element.clone()));
    }
    // White space between elements is no text of anybody's.
    let bare = text.trim_matches(['\n', ' ']);
    let fits = bare.is_empty() || (bare.len() == text.len() && text.chars().all(is_bank_char));
    if fits { Ok(()) } else { Err(InspectError::Text { element: element.clone(), text: clip(text) }) }
}

#[cfg(test)]
mod tests;
