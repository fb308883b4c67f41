//! pain.002: what the bank says about a file of ours. It owns the meaning of the levels (file, batch, transaction).

use std::collections::HashMap;
use std::io::Read;

use rust_decimal::Decimal;

use super::xml::{Block, MessageName, Node, ReadError, XmlReader};

/// ISO 20022 external payment status codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// RCVD: arrived.
    Received,
    /// ACTC: well-formed. Not money.
    Technical,
    /// ACCP: the customer may do this. Not money.
    Profile,
    /// ACSP: being executed.
    InProcess,
    /// ACWC: accepted with a change.
    WithChange,
    /// ACSC: settled on the debtor's account.
    Settled,
    /// ACCC: settled on the creditor's account.
    Credited,
    /// PDNG: waits.
    Pending,
    /// PART: look at the levels below.
    Partial,
    /// RJCT: nothing was or will be paid.
    Rejected,
    /// CANC: cancelled before it was paid.
    Cancelled,
    /// Any other code.
    Other(String),
}

impl Status {
    fn from_code(code: &str) -> Self {
        match code {
            "RCVD" => Self::Received,
            "ACTC" => Self::Technical,
            "ACCP" => Self::Profile,
            "ACSP" => Self::InProcess,
            "ACWC" => Self::WithChange,
            "ACSC" => Self::Settled,
            "ACCC" => Self::Credited,
            "PDNG" => Self::Pending,
            "PART" => Self::Partial,
            "RJCT" => Self::Rejected,
            "CANC" => Self::Cancelled,
            other => Self::Other(crate::details::clip(other)),
        }
    }

    /// The bank says that the money has left the debtor's account.
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::Settled | Self::Credited)
    }

    /// The bank says that it has not and will not.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Rejected | Self::Cancelled)
    }
}

/// Why a status is what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// `Cd` or `Prtry`: AC01, AM04, DU01…; empty if the bank gave words only.
    pub code: String,
    /// `AddtlInf`
    pub text: Vec<String>,
}

/// One transaction of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionReport {
    /// `OrgnlEndToEndId`
    pub end_to_end_id: Option<String>,
    /// `OrgnlInstrId`
    pub instruction_id: Option<String>,
    /// `TxSts`
    pub status: Option<Status>,
    /// `StsRsnInf`
    pub reasons: Vec<Reason>,
    /// `AcctSvcrRef`
    pub account_servicer_reference: Option<String>,
    /// `OrgnlTxRef/Amt/InstdAmt`, where the bank repeats it.
    pub amount: Option<Decimal>,
}

/// One batch of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchReport {
    /// `OrgnlPmtInfId`
    pub batch_id: String,
    /// `PmtInfSts`
    pub status: Option<Status>,
    /// `StsRsnInf`
    pub reasons: Vec<Reason>,
    /// Those that the bank lists: all, some or none.
    pub transactions: Vec<TransactionReport>,
}

/// One pain.002.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusReport {
    /// `MsgId` of the report.
    pub message_id: String,
    /// `OrgnlMsgId`: the file that it is about.
    pub original_message_id: String,
    /// `OrgnlMsgNmId`: `pain.001.001.09`.
    pub original_name: String,
    /// `GrpSts`
    pub status: Option<Status>,
    /// `StsRsnInf` of the whole file.
    pub reasons: Vec<Reason>,
    /// Those that the bank lists; none when it rejects the file as a whole.
    pub batches: Vec<BatchReport>,
}

impl StatusReport {
    /// Reads a pain.002 from version .03 on.
    pub fn read(input: impl Read) -> Result<Self, ReadError> {
        let (reader, message) = XmlReader::open(input)?;
        Self::read_from(reader, &message)
    }

    pub(super) fn read_from(mut reader: XmlReader<impl Read>, message: &MessageName) -> Result<Self, ReadError> {
        if message.family != "pain.002" || !(3..=15).contains(&message.version) {
            return Err(ReadError::Unsupported(message.full.clone()));
        }
        reader.message("CstmrPmtStsRpt")?;
        let mut header = None;
        let mut group = None;
        let mut batches = Vec::new();
        while let Some(tag) = reader.child()? {
            match tag.name.as_str() {
                "GrpHdr" => header = Some(reader.block(tag)?),
                "OrgnlGrpInfAndSts" => group = Some(reader.block(tag)?),
                "OrgnlPmtInfAndSts" => batches.push(read_batch(&mut reader)?),
                _ => reader.skip()?,
            }
        }
        reader.finish()?;
        let header = header.ok_or(ReadError::Missing("GrpHdr"))?;
        let group = group.ok_or(ReadError::Missing("OrgnlGrpInfAndSts"))?;
        let (header, group) = (header.root(), group.root());
        Ok(Self {
            message_id: header.required(&["MsgId"], "MsgId")?,
            original_message_id: group.required(&["OrgnlMsgId"], "OrgnlMsgId")?,
            original_name: group.required(&["OrgnlMsgNmId"], "OrgnlMsgNmId")?,
            status: group.text_at(&["GrpSts"]).map(Status::from_code),
            reasons: reasons(group),
            batches,
        })
    }

    /// What the report says about single transactions, for many look-ups.
    pub fn verdicts(&self) -> Verdicts<'_> {
        let transactions = self
            .batches
            .iter()
            .flat_map(|batch| {
                batch.transactions.iter().filter_map(move |transaction| {
                    Some(((batch.batch_id.as_str(), transaction.end_to_end_id.as_deref()?), transaction))
                })
            })
            .collect();
        let batches = self.batches.iter().map(|batch| (batch.batch_id.as_str(), batch)).collect();
        Verdicts { report: self, batches, transactions }
    }
}

/// A report by transaction.
#[derive(Debug)]
pub struct Verdicts<'a> {
    report: &'a StatusReport,
    batches: HashMap<&'a str, &'a BatchReport>,
    transactions: HashMap<(&'a str, &'a str), &'a TransactionReport>,
}

impl<'a> Verdicts<'a> {
    /// What is said about one transaction: its own status, else its batch's, else the file's. PART says nothing about a
    /// transaction that is not listed. `None`: nothing is said.
    pub fn of(&self, batch_id: &str, end_to_end_id: &str) -> Option<(&'a Status, &'a [Reason])> {
        let own = self
            .transactions
            .get(&(batch_id, end_to_end_id))
            .map(|transaction| (transaction.status.as_ref(), transaction.reasons.as_slice()));
        let batch = self.batches.get(batch_id).map(|batch| (batch.status.as_ref(), batch.reasons.as_slice()));
        let file = Some((self.report.status.as_ref(), self.report.reasons.as_slice()));
        // The nearest level that has a status decides; PART above it is only a pointer back down.
        let (status, reasons) = [own, batch, file]
            .into_iter()
            .flatten()
            .find_map(|(status, reasons)| status.map(|status| (status, reasons)))?;
        (*status != Status::Partial).then_some((status, reasons))
    }
}

fn read_batch(reader: &mut XmlReader<impl Read>) -> Result<BatchReport, ReadError> {
    let mut fields = Block::default();
    let mut transaction = Block::default();
    let mut transactions = Vec::new();
    while let Some(tag) = reader.child()? {
        if tag.name == "TxInfAndSts" {
            reader.fill(&mut transaction, tag)?;
            transactions.push(read_transaction(transaction.root())?);
        } else {
            reader.add(&mut fields, tag)?;
        }
    }
    let fields = fields.root();
    Ok(BatchReport {
        batch_id: fields.required(&["OrgnlPmtInfId"], "OrgnlPmtInfId")?,
        status: fields.text_at(&["PmtInfSts"]).map(Status::from_code),
        reasons: reasons(fields),
        transactions,
    })
}

fn read_transaction(node: Node<'_>) -> Result<TransactionReport, ReadError> {
    let amount = node.at(&["OrgnlTxRef", "Amt", "InstdAmt"]).map(|amount| amount.money("InstdAmt")).transpose()?;
    Ok(TransactionReport {
        end_to_end_id: node.string_at(&["OrgnlEndToEndId"]),
        instruction_id: node.string_at(&["OrgnlInstrId"]),
        status: node.text_at(&["TxSts"]).map(Status::from_code),
        reasons: reasons(node),
        account_servicer_reference: node.string_at(&["AcctSvcrRef"]),
        amount: amount.map(|(amount, _)| amount),
    })
}

fn reasons(node: Node<'_>) -> Vec<Reason> {
    node.all("StsRsnInf")
        .map(|reason| Reason {
            code: reason.string_at(&["Rsn", "Cd"]).or_else(|| reason.string_at(&["Rsn", "Prtry"])).unwrap_or_default(),
            text: reason.all("AddtlInf").filter_map(Node::text).map(str::to_owned).collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use proptest::prelude::*;

    use super::super::xml::mutated;
    use super::*;

    const PARTIAL: &str = include_str!("testdata/pain.002-partial.xml");
    const WHOLE: &str = include_str!("testdata/pain.002-rejected.xml");

    #[test]
    fn report_says_what_became_of_each_transaction() {
        let report = StatusReport::read(PARTIAL.as_bytes()).unwrap();
        assert_eq!(report.original_message_id, "WEIR-7-EUR-1");
        assert_eq!(report.status, Some(Status::Partial));
        let verdicts = report.verdicts();
        assert!(verdicts.of("B1", "A").unwrap().0.is_settled());
        let (status, reasons) = verdicts.of("B1", "B").unwrap();
        assert!(status.is_refused());
        assert_eq!(reasons[0].code, "AC01");
        assert_eq!(reasons[0].text, ["Format of the account number is wrong"]);
        assert_eq!(verdicts.of("B1", "not listed"), None);
        assert!(verdicts.of("B2", "any").unwrap().0.is_refused());
        assert_eq!(verdicts.of("B3", "any"), None);
    }

    #[test]
    fn whole_file_rejection_counts_for_every_transaction() {
        let report = StatusReport::read(WHOLE.as_bytes()).unwrap();
        assert!(report.batches.is_empty());
        let verdicts = report.verdicts();
        let (status, reasons) = verdicts.of("B1", "A").unwrap();
        assert_eq!(*status, Status::Rejected);
        assert_eq!(reasons[0].code, "FF01");
    }

    #[test]
    fn technical_acceptance_is_not_money() {
        let report = WHOLE.replace("RJCT", "ACTC");
        let report = StatusReport::read(report.as_bytes()).unwrap();
        let status = report.verdicts().of("B1", "A").unwrap().0;
        assert!(!status.is_settled() && !status.is_refused());
    }

    #[test]
    fn other_versions_and_messages_are_refused() {
        for name in ["pain.002.001.02", "pain.002.001.16", "pain.001.001.09"] {
            let file = WHOLE.replace("xsd:pain.002.001.03", &format!("xsd:{name}"));
            assert!(matches!(StatusReport::read(file.as_bytes()), Err(ReadError::Unsupported(_))), "{name}");
        }
    }

    proptest! {
        #[test]
        fn mutated_report_never_panics(bytes in mutated(PARTIAL)) {
            if let Ok(report) = StatusReport::read(bytes.as_slice()) {
                let _ = report.verdicts().of("B1", "A");
            }
        }
    }
}
