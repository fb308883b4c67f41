//! What the sandbox bank says of the account: camt.054.001.08, camt.053.001.08, camt.052.001.08.

use rust_decimal::Decimal;

use super::state::{Detail, Entry, EntryKind, State};
use super::{SandboxError, SandboxOptions};
use crate::bank::calendar::{Date, timestamp};
use crate::bank::transfer::NOT_PROVIDED;
use crate::bank::xml_write::XmlWriter;

pub(super) type Xml = XmlWriter<Vec<u8>>;
type Written = Result<(), std::io::Error>;

/// camt.054 with new entries.
pub(super) fn notification(
    options: &SandboxOptions,
    number: u64,
    entries: &[Entry],
    now_ms: u64,
) -> Result<Vec<u8>, SandboxError> {
    let id = message_id(number);
    let created = timestamp(now_ms)?;
    let mut xml = XmlWriter::new(Vec::new(), "camt.054.001.08");
    xml.open("BkToCstmrDbtCdtNtfctn")?;
    group_header(&mut xml, &id, &created)?;
    xml.open("Ntfctn")?;
    xml.leaf("Id", &id)?;
    xml.leaf("CreDtTm", &created)?;
    account(&mut xml, options)?;
    for item in entries {
        entry(&mut xml, options, item)?;
    }
    Ok(xml.finish()?)
}

/// Which message lists the day's entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listing {
    /// camt.053, with the number in the sequence of statements.
    Statement(u64),
    /// camt.052, with the number of the message.
    Intraday(u64),
}

/// camt.053 or camt.052 with every entry since the last statement.
pub(super) fn listing(
    options: &SandboxOptions,
    state: &State,
    listing: Listing,
    now_ms: u64,
) -> Result<Vec<u8>, SandboxError> {
    let (message, root, block, closing_code, id) = match listing {
        Listing::Statement(number) => {
            ("camt.053.001.08", "BkToCstmrStmt", "Stmt", "CLBD", format!("SANDBOX-STMT-{number:010}"))
        }
        Listing::Intraday(number) => ("camt.052.001.08", "BkToCstmrAcctRpt", "Rpt", "ITBD", message_id(number)),
    };
    let created = timestamp(now_ms)?;
    let closing = Date::from_unix_ms(now_ms)?;
    let opening = state.entries.iter().map(|entry| entry.date).min().unwrap_or(closing).min(closing);
    let mut xml = XmlWriter::new(Vec::new(), message);
    xml.open(root)?;
    group_header(&mut xml, &id, &created)?;
    xml.open(block)?;
    xml.leaf("Id", &id)?;
    if let Listing::Statement(number) = listing {
        xml.leaf("ElctrncSeqNb", &number.to_string())?;
    }
    xml.leaf("CreDtTm", &created)?;
    account(&mut xml, options)?;
    balance(&mut xml, options, ("OPBD", state.opening, opening))?;
    balance(&mut xml, options, (closing_code, state.balance, closing))?;
    for item in &state.entries {
        entry(&mut xml, options, item)?;
    }
    Ok(xml.finish()?)
}

/// `MsgId` of a message.
pub(super) fn message_id(number: u64) -> String {
    format!("SANDBOX-{number:010}")
}

pub(super) fn group_header(xml: &mut Xml, id: &str, created: &str) -> Written {
    xml.open("GrpHdr")?;
    xml.leaf("MsgId", id)?;
    xml.leaf("CreDtTm", created)?;
    xml.close()
}

fn account(xml: &mut Xml, options: &SandboxOptions) -> Written {
    xml.open("Acct")?;
    xml.nested(&["Id", "IBAN"], options.iban.as_str())?;
    xml.leaf("Ccy", options.currency.as_str())?;
    xml.nested(&["Ownr", "Nm"], &options.name)?;
    xml.close()
}

fn balance(xml: &mut Xml, options: &SandboxOptions, (code, amount, date): (&str, Decimal, Date)) -> Written {
    xml.open("Bal")?;
    xml.nested(&["Tp", "CdOrPrtry", "Cd"], code)?;
    xml.money("Amt", options.currency.as_str(), amount.abs())?;
    xml.leaf("CdtDbtInd", direction(amount >= Decimal::ZERO))?;
    xml.nested(&["Dt", "Dt"], &date.to_string())?;
    xml.close()
}

fn direction(credit: bool) -> &'static str {
    if credit { "CRDT" } else { "DBIT" }
}

fn entry(xml: &mut Xml, options: &SandboxOptions, entry: &Entry) -> Written {
    let date = entry.date.to_string();
    xml.open("Ntry")?;
    xml.money("Amt", options.currency.as_str(), entry.amount)?;
    xml.leaf("CdtDbtInd", direction(entry.credit))?;
    xml.nested(&["Sts", "Cd"], "BOOK")?;
    xml.nested(&["BookgDt", "Dt"], &date)?;
    xml.nested(&["ValDt", "Dt"], &date)?;
    xml.leaf("AcctSvcrRef", &entry.reference)?;
    xml.open("BkTxCd")?;
    xml.open("Domn")?;
    let (domain, family, sub_family) = transaction_code(entry);
    xml.leaf("Cd", domain)?;
    xml.open("Fmly")?;
    xml.leaf("Cd", family)?;
    xml.leaf("SubFmlyCd", sub_family)?;
    xml.close()?;
    xml.close()?;
    xml.close()?;
    if entry.details.is_empty() {
        xml.leaf("AddtlNtryInf", "charges")?;
        return xml.close();
    }
    xml.open("NtryDtls")?;
    if entry.batch {
        batch(xml, options, entry)?;
    }
    for item in &entry.details {
        detail(xml, options, entry, item)?;
    }
    xml.close()?;
    xml.close()
}

/// ISO 20022 external bank transaction codes: domain, family, sub-family.
fn transaction_code(entry: &Entry) -> (&'static str, &'static str, &'static str) {
    match entry.kind {
        EntryKind::Transfer if entry.credit => ("PMNT", "RCDT", "ESCT"),
        EntryKind::Transfer => ("PMNT", "ICDT", "ESCT"),
        EntryKind::Core => ("PMNT", "IDDT", "ESDD"),
        EntryKind::B2b => ("PMNT", "IDDT", "BBDD"),
        EntryKind::Returned => ("PMNT", "ICDT", "RRTN"),
        EntryKind::TakenBack => ("PMNT", "IDDT", "UPDD"),
        EntryKind::Charge => ("ACMT", "MDOP", "CHRG"),
    }
}

fn batch(xml: &mut Xml, options: &SandboxOptions, entry: &Entry) -> Written {
    let first = entry.details.first();
    xml.open("Btch")?;
    if let Some(id) = first.and_then(|detail| detail.message_id.as_deref()) {
        xml.leaf("MsgId", id)?;
    }
    if let Some(id) = first.and_then(|detail| detail.batch_id.as_deref()) {
        xml.leaf("PmtInfId", id)?;
    }
    xml.leaf("NbOfTxs", &entry.details.len().to_string())?;
    xml.money("TtlAmt", options.currency.as_str(), entry.amount)?;
    xml.leaf("CdtDbtInd", direction(entry.credit))?;
    xml.close()
}

fn detail(xml: &mut Xml, options: &SandboxOptions, entry: &Entry, detail: &Detail) -> Written {
    xml.open("TxDtls")?;
    xml.open("Refs")?;
    if let Some(id) = &detail.message_id {
        xml.leaf("MsgId", id)?;
    }
    xml.leaf("AcctSvcrRef", &detail.reference)?;
    if let Some(id) = &detail.batch_id {
        xml.leaf("PmtInfId", id)?;
    }
    xml.leaf("EndToEndId", detail.end_to_end_id.as_deref().unwrap_or(NOT_PROVIDED))?;
    if let Some(id) = &detail.mandate_id {
        xml.leaf("MndtId", id)?;
    }
    xml.close()?;
    xml.money("Amt", options.currency.as_str(), detail.amount)?;
    xml.leaf("CdtDbtInd", direction(entry.credit))?;
    if detail.charge > Decimal::ZERO {
        deduction(xml, options, detail)?;
    }
    xml.open("RltdPties")?;
    let own = (options.name.as_str(), options.iban.as_str());
    let other = (detail.name.as_str(), detail.iban.as_str());
    // What comes back names the parties of the original.
    let back = matches!(entry.kind, EntryKind::Returned | EntryKind::TakenBack);
    let (debtor, creditor) = if entry.credit == back { (own, other) } else { (other, own) };
    xml.nested(&["Dbtr", "Pty", "Nm"], debtor.0)?;
    xml.nested(&["DbtrAcct", "Id", "IBAN"], debtor.1)?;
    xml.nested(&["Cdtr", "Pty", "Nm"], creditor.0)?;
    xml.nested(&["CdtrAcct", "Id", "IBAN"], creditor.1)?;
    xml.close()?;
    remittance(xml, detail)?;
    if let Some(code) = &detail.return_reason {
        xml.nested(&["RtrInf", "Rsn", "Cd"], code)?;
    }
    xml.close()
}

/// What it was before a charge was deducted, and the charge.
fn deduction(xml: &mut Xml, options: &SandboxOptions, detail: &Detail) -> Written {
    let currency = options.currency.as_str();
    xml.open("AmtDtls")?;
    xml.open("InstdAmt")?;
    xml.money("Amt", currency, detail.amount + detail.charge)?;
    xml.close()?;
    xml.close()?;
    xml.open("Chrgs")?;
    xml.open("Rcrd")?;
    xml.money("Amt", currency, detail.charge)?;
    xml.leaf("CdtDbtInd", "DBIT")?;
    xml.leaf("ChrgInclInd", "true")?;
    xml.close()?;
    xml.close()
}

fn remittance(xml: &mut Xml, detail: &Detail) -> Written {
    if let Some(text) = &detail.text {
        return xml.nested(&["RmtInf", "Ustrd"], text);
    }
    let Some(reference) = &detail.structured else {
        return Ok(());
    };
    xml.open("RmtInf")?;
    xml.structured_reference(reference)?;
    xml.close()
}
