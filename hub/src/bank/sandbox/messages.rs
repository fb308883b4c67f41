//! The bank's side of the formats: pain.002.001.10, camt.054.001.08, camt.053.001.08.

use rust_decimal::Decimal;

use super::book::{Order, Rejection};
use super::state::{Detail, Entry, State};
use super::{SandboxError, SandboxOptions};
use crate::bank::calendar::{Date, timestamp};
use crate::bank::transfer::NOT_PROVIDED;
use crate::bank::transfer_read::{TransferBatch, TransferFile};
use crate::bank::xml_write::XmlWriter;
use crate::details::is_bank_char;

type Xml = XmlWriter<Vec<u8>>;
type Written = Result<(), std::io::Error>;

/// `AddtlInf` takes 105 characters.
const MAX_WORDS: usize = 105;

/// pain.002 with a status for every payment of the file. `file_name` makes its `MsgId`.
pub(super) fn status_report(
    file_name: &str,
    file: &TransferFile,
    orders: &[Vec<Order<'_>>],
    now_ms: u64,
) -> Result<Vec<u8>, SandboxError> {
    let mut xml = start_status_report(file_name, &file.message_id, now_ms)?;
    let all: Vec<&Order<'_>> = orders.iter().flatten().collect();
    xml.leaf("OrgnlNbOfTxs", &all.len().to_string())?;
    xml.leaf("OrgnlCtrlSum", &format!("{:.2}", sum(&all)))?;
    xml.leaf("GrpSts", summary(&all))?;
    xml.close()?;
    for (batch, orders) in file.batches.iter().zip(orders) {
        batch_status(&mut xml, batch, orders)?;
    }
    Ok(xml.finish()?)
}

/// pain.002 that rejects a file as a whole, without any transaction.
pub(super) fn file_rejection(
    file_name: &str,
    message_id: Option<&str>,
    why: &str,
    now_ms: u64,
) -> Result<Vec<u8>, SandboxError> {
    let mut xml = start_status_report(file_name, message_id.unwrap_or(NOT_PROVIDED), now_ms)?;
    xml.leaf("GrpSts", "RJCT")?;
    reason(&mut xml, "FF01", why)?;
    Ok(xml.finish()?)
}

/// camt.054 with new entries.
pub(super) fn notification(
    options: &SandboxOptions,
    file_name: &str,
    entries: &[Entry],
    now_ms: u64,
) -> Result<Vec<u8>, SandboxError> {
    let id = message_id(file_name);
    let created = timestamp(now_ms)?;
    let mut xml = XmlWriter::new(Vec::new(), "camt.054.001.08")?;
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

/// camt.053 with every entry of the day.
pub(super) fn statement(
    options: &SandboxOptions,
    state: &State,
    number: u64,
    now_ms: u64,
) -> Result<Vec<u8>, SandboxError> {
    let id = format!("SANDBOX-STMT-{number:010}");
    let created = timestamp(now_ms)?;
    let closing = Date::from_unix_ms(now_ms)?;
    let opening = state.entries.iter().map(|entry| entry.date).min().unwrap_or(closing).min(closing);
    let mut xml = XmlWriter::new(Vec::new(), "camt.053.001.08")?;
    xml.open("BkToCstmrStmt")?;
    group_header(&mut xml, &id, &created)?;
    xml.open("Stmt")?;
    xml.leaf("Id", &id)?;
    xml.leaf("ElctrncSeqNb", &number.to_string())?;
    xml.leaf("CreDtTm", &created)?;
    account(&mut xml, options)?;
    balance(&mut xml, options, ("OPBD", state.opening, opening))?;
    balance(&mut xml, options, ("CLBD", state.balance, closing))?;
    for item in &state.entries {
        entry(&mut xml, options, item)?;
    }
    Ok(xml.finish()?)
}

/// `0000000001-camt.054.xml` gives `SANDBOX-0000000001`.
fn message_id(file_name: &str) -> String {
    format!("SANDBOX-{}", file_name.split('-').next().unwrap_or_default())
}

fn group_header(xml: &mut Xml, id: &str, created: &str) -> Written {
    xml.open("GrpHdr")?;
    xml.leaf("MsgId", id)?;
    xml.leaf("CreDtTm", created)?;
    xml.close()
}

/// Up to and into `OrgnlGrpInfAndSts`.
fn start_status_report(file_name: &str, original: &str, now_ms: u64) -> Result<Xml, SandboxError> {
    let mut xml = XmlWriter::new(Vec::new(), "pain.002.001.10")?;
    xml.open("CstmrPmtStsRpt")?;
    group_header(&mut xml, &message_id(file_name), &timestamp(now_ms)?)?;
    xml.open("OrgnlGrpInfAndSts")?;
    xml.leaf("OrgnlMsgId", original)?;
    xml.leaf("OrgnlMsgNmId", "pain.001.001.09")?;
    Ok(xml)
}

fn batch_status(xml: &mut Xml, batch: &TransferBatch, orders: &[Order<'_>]) -> Written {
    let all: Vec<&Order<'_>> = orders.iter().collect();
    xml.open("OrgnlPmtInfAndSts")?;
    xml.leaf("OrgnlPmtInfId", &batch.batch_id)?;
    xml.leaf("OrgnlNbOfTxs", &all.len().to_string())?;
    xml.leaf("OrgnlCtrlSum", &format!("{:.2}", sum(&all)))?;
    xml.leaf("PmtInfSts", summary(&all))?;
    for order in orders {
        xml.open("TxInfAndSts")?;
        xml.leaf("OrgnlEndToEndId", &order.ordered.end_to_end_id)?;
        match &order.rejection {
            None => xml.leaf("TxSts", "ACSC")?,
            Some(Rejection { code, text }) => {
                xml.leaf("TxSts", "RJCT")?;
                reason(xml, code, text)?;
            }
        }
        xml.close()?;
    }
    xml.close()
}

fn sum(orders: &[&Order<'_>]) -> Decimal {
    orders.iter().map(|order| order.ordered.amount).sum()
}

fn summary(orders: &[&Order<'_>]) -> &'static str {
    let rejected = orders.iter().filter(|order| order.rejection.is_some()).count();
    match rejected {
        0 => "ACSC",
        all if all == orders.len() => "RJCT",
        _ => "PART",
    }
}

fn reason(xml: &mut Xml, code: &str, words: &str) -> Written {
    xml.open("StsRsnInf")?;
    xml.nested(&["Rsn", "Cd"], code)?;
    let words: String = words.chars().take(MAX_WORDS).map(|c| if is_bank_char(c) { c } else { '.' }).collect();
    xml.leaf("AddtlInf", &words)?;
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
    xml.leaf("Cd", "PMNT")?;
    xml.open("Fmly")?;
    xml.leaf("Cd", if entry.credit { "RCDT" } else { "ICDT" })?;
    xml.leaf("SubFmlyCd", "ESCT")?;
    xml.close()?;
    xml.close()?;
    xml.close()?;
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
    xml.close()?;
    xml.money("Amt", options.currency.as_str(), detail.amount)?;
    xml.leaf("CdtDbtInd", direction(entry.credit))?;
    xml.open("RltdPties")?;
    let own = (options.name.as_str(), options.iban.as_str());
    let other = (detail.name.as_str(), detail.iban.as_str());
    let (debtor, creditor) = if entry.credit { (other, own) } else { (own, other) };
    xml.nested(&["Dbtr", "Pty", "Nm"], debtor.0)?;
    xml.nested(&["DbtrAcct", "Id", "IBAN"], debtor.1)?;
    xml.nested(&["Cdtr", "Pty", "Nm"], creditor.0)?;
    xml.nested(&["CdtrAcct", "Id", "IBAN"], creditor.1)?;
    xml.close()?;
    remittance(xml, detail)?;
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
