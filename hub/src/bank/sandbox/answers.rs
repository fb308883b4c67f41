//! What the sandbox bank says about a file: pain.002.001.10 and .03.

use rust_decimal::Decimal;

use super::SandboxError;
use super::behaviour::{Behaviour, StatusVersion};
use super::book::{Order, Rejection};
use super::instruction::{InstructedBatch, Instruction};
use super::messages::{Xml, group_header, message_id};
use crate::bank::calendar::timestamp;
use crate::bank::transfer::NOT_PROVIDED;
use crate::bank::xml_write::XmlWriter;
use crate::details::is_bank_char;

type Written = Result<(), std::io::Error>;

/// `AddtlInf` takes 105 characters.
const MAX_WORDS: usize = 105;

/// What is said of one order: settled, or why not.
type Word<'a> = (&'a Order<'a>, Result<(), &'a Rejection>);

/// How a report is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// Makes its `MsgId`.
    pub(super) number: u64,
    /// pain.002.001.03 instead of .10.
    pub(super) old: bool,
    pub(super) now_ms: u64,
}

impl Form {
    pub(super) fn new(behaviour: &Behaviour, number: u64, now_ms: u64) -> Self {
        let old = match behaviour.status_version {
            StatusVersion::V10 => false,
            StatusVersion::V03 => true,
            StatusVersion::Mixed => behaviour.coin("status version", &number.to_string()),
        };
        Self { number, old, now_ms }
    }

    fn start(self, original: &str, original_name: &str) -> Result<Xml, SandboxError> {
        let message = if self.old { "pain.002.001.03" } else { "pain.002.001.10" };
        let mut xml = XmlWriter::new(Vec::new(), message);
        xml.open("CstmrPmtStsRpt")?;
        group_header(&mut xml, &message_id(self.number), &timestamp(self.now_ms)?)?;
        xml.open("OrgnlGrpInfAndSts")?;
        xml.leaf("OrgnlMsgId", original)?;
        xml.leaf("OrgnlMsgNmId", original_name)?;
        Ok(xml)
    }
}

/// The first report: on every order of the file, or, with `only_rejected`, on those that are not executed.
pub(super) fn first_report(
    form: Form,
    file: &Instruction,
    orders: &[Vec<Order<'_>>],
    only_rejected: bool,
) -> Result<Vec<u8>, SandboxError> {
    let all: Vec<Vec<Word<'_>>> =
        orders.iter().map(|orders| orders.iter().map(|order| (order, order.fate.first_word())).collect()).collect();
    report(form, file, &all, only_rejected)
}

/// The second report, on what became otherwise than the first one said; `None` if nothing did.
pub(super) fn second_report(
    form: Form,
    file: &Instruction,
    orders: &[Vec<Order<'_>>],
) -> Result<Option<Vec<u8>>, SandboxError> {
    let words = |orders: &'_ [Order<'_>]| -> bool { orders.iter().any(|order| order.fate.second_word().is_some()) };
    if !orders.iter().any(|orders| words(orders)) {
        return Ok(None);
    }
    let changed: Vec<Vec<Word<'_>>> = orders
        .iter()
        .map(|orders| orders.iter().filter_map(|order| Some((order, order.fate.second_word()?))).collect())
        .collect();
    report(form, file, &changed, false).map(Some)
}

/// A word on the file as a whole, without any transaction: accepted (`why` is none), or rejected.
pub(super) fn file_report(
    form: Form,
    message_id: Option<&str>,
    name: &str,
    why: Option<(&str, &str)>,
) -> Result<Vec<u8>, SandboxError> {
    let mut xml = form.start(message_id.unwrap_or(NOT_PROVIDED), name)?;
    match why {
        None => xml.leaf("GrpSts", "ACTC")?,
        Some((code, words)) => {
            xml.leaf("GrpSts", "RJCT")?;
            reason(&mut xml, code, words)?;
        }
    }
    Ok(xml.finish()?)
}

fn report(
    form: Form,
    file: &Instruction,
    words: &[Vec<Word<'_>>],
    only_rejected: bool,
) -> Result<Vec<u8>, SandboxError> {
    let mut xml = form.start(&file.message_id, &file.name)?;
    totals(&mut xml, file.orders().count(), file.orders().map(|order| order.amount).sum())?;
    xml.leaf("GrpSts", summary(words.iter().flatten()))?;
    xml.close()?;
    for (batch, words) in file.batches.iter().zip(words) {
        if !words.is_empty() {
            batch_status(&mut xml, batch, words, only_rejected)?;
        }
    }
    Ok(xml.finish()?)
}

fn batch_status(xml: &mut Xml, batch: &InstructedBatch, words: &[Word<'_>], only_rejected: bool) -> Written {
    xml.open("OrgnlPmtInfAndSts")?;
    xml.leaf("OrgnlPmtInfId", &batch.batch_id)?;
    totals(xml, batch.orders.len(), batch.orders.iter().map(|order| order.amount).sum())?;
    xml.leaf("PmtInfSts", summary(words.iter()))?;
    for (order, word) in words.iter().filter(|(_, word)| !only_rejected || word.is_err()) {
        xml.open("TxInfAndSts")?;
        xml.leaf("OrgnlEndToEndId", &order.ordered.end_to_end_id)?;
        match word {
            Ok(()) => xml.leaf("TxSts", "ACSC")?,
            Err(Rejection { code, text }) => {
                xml.leaf("TxSts", "RJCT")?;
                reason(xml, code, text)?;
            }
        }
        xml.close()?;
    }
    xml.close()
}

fn totals(xml: &mut Xml, count: usize, sum: Decimal) -> Written {
    xml.leaf("OrgnlNbOfTxs", &count.to_string())?;
    xml.leaf("OrgnlCtrlSum", &format!("{sum:.2}"))
}

fn summary<'a>(words: impl Iterator<Item = &'a Word<'a>> + Clone) -> &'static str {
    let rejected = words.clone().filter(|(_, word)| word.is_err()).count();
    match rejected {
        0 => "ACSC",
        all if all == words.count() => "RJCT",
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
