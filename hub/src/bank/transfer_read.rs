//! Reading pain.001: what the sandbox bank does with our own files, and what a repeated run compares with.
//!
//! Identifiers and accounts come out as text: a bank answers a wrong IBAN, it does not fail on the file.

use std::io::Read;

use rust_decimal::Decimal;

use super::calendar::Date;
use super::transfer::TransferTotals;
use super::xml::{Block, Node, ReadError, XmlReader, amount, count};

/// A credit transfer file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferFile {
    /// Which message it is: `pain.001.001.09`.
    pub name: String,
    /// `MsgId`
    pub message_id: String,
    /// `CreDtTm`, as written.
    pub created: String,
    /// Its batches, each with at least one payment.
    pub batches: Vec<TransferBatch>,
}

/// One `PmtInf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferBatch {
    /// `PmtInfId`
    pub batch_id: String,
    /// `ReqdExctnDt`
    pub execution_date: Date,
    /// `Dbtr/Nm`
    pub debtor_name: String,
    /// `DbtrAcct/Id/IBAN`, as written.
    pub debtor_iban: String,
    /// The payments.
    pub orders: Vec<TransferOrder>,
}

/// One `CdtTrfTxInf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferOrder {
    /// `EndToEndId`
    pub end_to_end_id: String,
    /// `InstdAmt`
    pub amount: Decimal,
    /// Its `Ccy`.
    pub currency: String,
    /// `Cdtr/Nm`
    pub creditor_name: String,
    /// `CdtrAcct/Id/IBAN`, as written.
    pub creditor_iban: String,
    /// `RmtInf/Strd/CdtrRefInf/Ref`
    pub reference: Option<String>,
    /// `RmtInf/Ustrd`
    pub text: Option<String>,
}

impl TransferFile {
    /// Reads a pain.001 of version .03 or .09 and checks its counts and control sums.
    pub fn read(input: impl Read) -> Result<Self, ReadError> {
        let (mut reader, message) = XmlReader::open(input)?;
        if message.family != "pain.001" || !matches!(message.version, 3 | 9) {
            return Err(ReadError::Unsupported(message.full));
        }
        let file = Self::read_from(&mut reader, message.full)?;
        reader.finish()?;
        Ok(file)
    }

    /// `MsgId` alone, of a pain.001 or pain.008 that may be wrong otherwise: a bank names what it refuses.
    pub fn read_message_id(input: impl Read) -> Option<String> {
        let (mut reader, message) = XmlReader::open(input).ok()?;
        let root = if message.family == "pain.008" { "CstmrDrctDbtInitn" } else { "CstmrCdtTrfInitn" };
        reader.message(root).ok()?;
        let tag = reader.child().ok()?.filter(|tag| tag.name == "GrpHdr")?;
        reader.block(tag).ok()?.root().string_at(&["MsgId"])
    }

    fn read_from(reader: &mut XmlReader<impl Read>, name: String) -> Result<Self, ReadError> {
        let (header, batches) = read_message(reader, "CstmrCdtTrfInitn", read_batch)?;
        let header = header.root();
        let file = Self {
            name,
            message_id: header.required(&["MsgId"], "MsgId")?,
            created: header.required(&["CreDtTm"], "CreDtTm")?,
            batches,
        };
        let amounts = file.batches.iter().flat_map(|batch| batch.orders.iter().map(|order| order.amount));
        check_totals(header, &file.message_id, "PmtInf", amounts)?;
        Ok(file)
    }
}

/// The header of a pain.001 or pain.008 with this root element, and its batches.
pub(super) fn read_message<R: Read, B>(
    reader: &mut XmlReader<R>,
    root: &'static str,
    read_batch: impl Fn(&mut XmlReader<R>) -> Result<B, ReadError>,
) -> Result<(Block, Vec<B>), ReadError> {
    reader.message(root)?;
    let mut header = None;
    let mut batches = Vec::new();
    while let Some(tag) = reader.child()? {
        match tag.name.as_str() {
            "GrpHdr" => header = Some(reader.block(tag)?),
            "PmtInf" => batches.push(read_batch(reader)?),
            _ => reader.skip()?,
        }
    }
    let header = header.ok_or(ReadError::Missing("GrpHdr"))?;
    Ok((header, batches))
}

/// The fields of a batch, which are few, and its orders, which are many and taken one by one.
pub(super) fn read_orders<O>(
    reader: &mut XmlReader<impl Read>,
    element: &'static str,
    read_order: impl Fn(Node<'_>) -> Result<O, ReadError>,
) -> Result<(Block, Vec<O>), ReadError> {
    let mut fields = Block::default();
    let mut order = Block::default();
    let mut orders = Vec::new();
    while let Some(tag) = reader.child()? {
        if tag.name == element {
            reader.fill(&mut order, tag)?;
            orders.push(read_order(order.root())?);
        } else {
            reader.add(&mut fields, tag)?;
        }
    }
    Ok((fields, orders))
}

fn read_batch(reader: &mut XmlReader<impl Read>) -> Result<TransferBatch, ReadError> {
    let (fields, orders) = read_orders(reader, "CdtTrfTxInf", read_order)?;
    let fields = fields.root();
    let batch_id = fields.required(&["PmtInfId"], "PmtInfId")?;
    check_totals(fields, &batch_id, "CdtTrfTxInf", orders.iter().map(|order| order.amount))?;
    // From .09 a choice of date and date with time, before that the date itself.
    let execution = fields
        .text_at(&["ReqdExctnDt", "Dt"])
        .or_else(|| fields.text_at(&["ReqdExctnDt", "DtTm"]))
        .or_else(|| fields.text_at(&["ReqdExctnDt"]))
        .ok_or(ReadError::Missing("ReqdExctnDt"))?;
    Ok(TransferBatch {
        execution_date: Date::from_iso(execution)
            .map_err(|_| ReadError::Invalid { element: "ReqdExctnDt", value: execution.to_owned() })?,
        debtor_name: fields.required(&["Dbtr", "Nm"], "Dbtr/Nm")?,
        debtor_iban: fields.required(&["DbtrAcct", "Id", "IBAN"], "DbtrAcct/Id/IBAN")?,
        batch_id,
        orders,
    })
}

fn read_order(node: Node<'_>) -> Result<TransferOrder, ReadError> {
    let (amount, currency) = node.at(&["Amt", "InstdAmt"]).ok_or(ReadError::Missing("InstdAmt"))?.money("InstdAmt")?;
    Ok(TransferOrder {
        end_to_end_id: node.required(&["PmtId", "EndToEndId"], "EndToEndId")?,
        amount,
        currency: currency.as_str().to_owned(),
        creditor_name: node.required(&["Cdtr", "Nm"], "Cdtr/Nm")?,
        creditor_iban: node.required(&["CdtrAcct", "Id", "IBAN"], "CdtrAcct/Id/IBAN")?,
        reference: node.string_at(&["RmtInf", "Strd", "CdtrRefInf", "Ref"]),
        text: node.string_at(&["RmtInf", "Ustrd"]),
    })
}

/// Checks that a file or batch has anything (`element` is what it would be in), and its count and control sum, where they
/// are given.
pub(super) fn check_totals(
    totals: Node<'_>,
    of: &str,
    element: &'static str,
    amounts: impl Iterator<Item = Decimal>,
) -> Result<(), ReadError> {
    let none = TransferTotals { payments: 0, sum: Decimal::ZERO };
    let found =
        amounts.fold(none, |found, amount| TransferTotals { payments: found.payments + 1, sum: found.sum + amount });
    check_sums(totals, of, element, found)
}

/// The same where they were counted and summed before.
pub(super) fn check_sums(
    totals: Node<'_>,
    of: &str,
    element: &'static str,
    found: TransferTotals,
) -> Result<(), ReadError> {
    let TransferTotals { payments, sum } = found;
    let found = payments as u64;
    if found == 0 {
        return Err(ReadError::Missing(element));
    }
    if let Some(declared) = totals.text_at(&["NbOfTxs"]) {
        let declared = count(declared, "NbOfTxs")?;
        if declared != found {
            return Err(ReadError::Count { element: "NbOfTxs", declared, found });
        }
    }
    if let Some(declared) = totals.text_at(&["CtrlSum"]) {
        let declared = amount(declared, "CtrlSum")?;
        if declared != sum {
            return Err(ReadError::Sum { element: "CtrlSum", of: of.to_owned(), declared, found: sum });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use proptest::prelude::*;

    use super::super::transfer::tests::{header, payments};
    use super::super::transfer::write_transfers;
    use super::super::xml::mutated;
    use super::*;

    const GOLDEN: &str = include_str!("testdata/pain.001.xml");

    #[test]
    fn written_file_reads_back() {
        let mut bytes = Vec::new();
        write_transfers(&mut bytes, &header(), payments).unwrap();
        let file = TransferFile::read(bytes.as_slice()).unwrap();
        assert_eq!(file.message_id, "WEIR-7-EUR-1");
        assert_eq!(file.created, "2026-11-22T10:00:00Z");
        let [batch] = file.batches.as_slice() else { unreachable!() };
        assert_eq!(batch.batch_id, "WEIR-7-EUR-1-B1");
        assert_eq!(batch.debtor_name, "Weir Hub Gruender + Co");
        assert_eq!(batch.execution_date.to_string(), "2026-11-23");
        for (order, payment) in batch.orders.iter().zip(payments()) {
            assert_eq!(order.end_to_end_id, payment.end_to_end_id);
            assert_eq!(order.amount, payment.amount);
            assert_eq!(order.creditor_iban, payment.creditor_iban.as_str());
        }
        assert_eq!(batch.orders.len(), 3);
        assert_eq!(batch.orders[0].creditor_name, "Ada's Groessenwahn (Verlag)");
        assert_eq!(batch.orders[0].text.as_deref(), Some("Weir window 7"));
        assert_eq!(batch.orders[1].reference.as_deref(), Some("RF18539007547034"));
    }

    #[test]
    fn wrong_totals_are_refused() {
        let file = GOLDEN.replacen("<NbOfTxs>3<", "<NbOfTxs>4<", 1);
        assert!(matches!(TransferFile::read(file.as_bytes()), Err(ReadError::Count { .. })));
        let file = GOLDEN.replacen("<CtrlSum>1235.07<", "<CtrlSum>1235.06<", 1);
        assert!(matches!(TransferFile::read(file.as_bytes()), Err(ReadError::Sum { .. })));
        let file = GOLDEN.replace("pain.001.001.09", "pain.008.001.08");
        assert!(matches!(TransferFile::read(file.as_bytes()), Err(ReadError::Unsupported(_))));
    }

    proptest! {
        #[test]
        fn mutated_file_never_panics(bytes in mutated(GOLDEN)) {
            let _ = TransferFile::read(bytes.as_slice());
        }
    }
}
