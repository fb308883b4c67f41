//! Reading pain.008: what the sandbox bank does with our own files. Identifiers and accounts come out as text: a bank
//! answers a wrong IBAN, it does not fail on the file.

use std::io::Read;

use rust_decimal::Decimal;

use super::calendar::Date;
use super::transfer_read::{check_totals, read_message, read_orders};
use super::xml::{Node, ReadError, XmlReader};

/// A direct debit file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionFile {
    /// `MsgId`
    pub message_id: String,
    /// `CreDtTm`, as written.
    pub created: String,
    /// Its batches, each with at least one collection.
    pub batches: Vec<CollectionFileBatch>,
}

/// One `PmtInf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionFileBatch {
    /// `PmtInfId`
    pub batch_id: String,
    /// `LclInstrm/Cd`: CORE or B2B.
    pub scheme: String,
    /// `SeqTp`: FRST, RCUR, FNAL or OOFF.
    pub sequence: String,
    /// `ReqdColltnDt`
    pub collection_date: Date,
    /// `CdtrAcct/Id/IBAN`, as written.
    pub creditor_iban: String,
    /// `CdtrSchmeId`, of the batch.
    pub creditor_id: Option<String>,
    /// The collections.
    pub orders: Vec<CollectionOrder>,
}

/// One `DrctDbtTxInf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionOrder {
    /// `EndToEndId`
    pub end_to_end_id: String,
    /// `InstdAmt`
    pub amount: Decimal,
    /// Its `Ccy`.
    pub currency: String,
    /// `MndtId`
    pub mandate_id: String,
    /// `DtOfSgntr`
    pub signed_on: Date,
    /// `Dbtr/Nm`
    pub debtor_name: String,
    /// `DbtrAcct/Id/IBAN`, as written.
    pub debtor_iban: String,
    /// `RmtInf/Strd/CdtrRefInf/Ref`
    pub reference: Option<String>,
    /// `RmtInf/Ustrd`
    pub text: Option<String>,
}

impl CollectionFile {
    /// Reads a pain.008 of version .02 or .08 and checks its counts and control sums.
    pub fn read(input: impl Read) -> Result<Self, ReadError> {
        let (mut reader, message) = XmlReader::open(input)?;
        if message.family != "pain.008" || !matches!(message.version, 2 | 8) {
            return Err(ReadError::Unsupported(message.full));
        }
        let file = Self::read_from(&mut reader)?;
        reader.finish()?;
        Ok(file)
    }

    fn read_from(reader: &mut XmlReader<impl Read>) -> Result<Self, ReadError> {
        let (header, batches) = read_message(reader, "CstmrDrctDbtInitn", read_batch)?;
        let header = header.root();
        let file = Self {
            message_id: header.required(&["MsgId"], "MsgId")?,
            created: header.required(&["CreDtTm"], "CreDtTm")?,
            batches,
        };
        let amounts = file.batches.iter().flat_map(|batch| batch.orders.iter().map(|order| order.amount));
        check_totals(header, &file.message_id, "PmtInf", amounts)?;
        Ok(file)
    }
}

fn read_batch(reader: &mut XmlReader<impl Read>) -> Result<CollectionFileBatch, ReadError> {
    let (fields, orders) = read_orders(reader, "DrctDbtTxInf", read_order)?;
    let fields = fields.root();
    let batch_id = fields.required(&["PmtInfId"], "PmtInfId")?;
    check_totals(fields, &batch_id, "DrctDbtTxInf", orders.iter().map(|order| order.amount))?;
    Ok(CollectionFileBatch {
        batch_id,
        scheme: fields.required(&["PmtTpInf", "LclInstrm", "Cd"], "LclInstrm/Cd")?,
        sequence: fields.required(&["PmtTpInf", "SeqTp"], "SeqTp")?,
        collection_date: date(fields, &["ReqdColltnDt"], "ReqdColltnDt")?,
        creditor_iban: fields.required(&["CdtrAcct", "Id", "IBAN"], "CdtrAcct/Id/IBAN")?,
        creditor_id: fields.string_at(&["CdtrSchmeId", "Id", "PrvtId", "Othr", "Id"]),
        orders,
    })
}

fn read_order(node: Node<'_>) -> Result<CollectionOrder, ReadError> {
    const MANDATE: [&str; 2] = ["DrctDbtTx", "MndtRltdInf"];
    let [transaction, mandate] = MANDATE;
    let (amount, currency) = node.at(&["InstdAmt"]).ok_or(ReadError::Missing("InstdAmt"))?.money("InstdAmt")?;
    Ok(CollectionOrder {
        end_to_end_id: node.required(&["PmtId", "EndToEndId"], "EndToEndId")?,
        amount,
        currency: currency.as_str().to_owned(),
        mandate_id: node.required(&[transaction, mandate, "MndtId"], "MndtId")?,
        signed_on: date(node, &[transaction, mandate, "DtOfSgntr"], "DtOfSgntr")?,
        debtor_name: node.required(&["Dbtr", "Nm"], "Dbtr/Nm")?,
        debtor_iban: node.required(&["DbtrAcct", "Id", "IBAN"], "DbtrAcct/Id/IBAN")?,
        reference: node.string_at(&["RmtInf", "Strd", "CdtrRefInf", "Ref"]),
        text: node.string_at(&["RmtInf", "Ustrd"]),
    })
}

fn date(node: Node<'_>, path: &[&str], element: &'static str) -> Result<Date, ReadError> {
    let text = node.required(path, element)?;
    Date::from_iso(&text).map_err(|_| ReadError::Invalid { element, value: crate::details::clip(&text) })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use proptest::prelude::*;

    use super::super::xml::mutated;
    use super::*;

    const GOLDEN: &str = include_str!("testdata/pain.008.xml");

    #[test]
    fn written_file_reads_back() {
        let file = CollectionFile::read(GOLDEN.as_bytes()).unwrap();
        assert_eq!(file.message_id, "WEIR-D-7");
        let [core, b2b] = file.batches.as_slice() else { unreachable!() };
        assert_eq!((core.scheme.as_str(), core.sequence.as_str()), ("CORE", "FRST"));
        assert_eq!((b2b.scheme.as_str(), b2b.sequence.as_str()), ("B2B", "RCUR"));
        assert_eq!(core.creditor_id.as_deref(), Some("DE98ZZZ09999999999"));
        assert_eq!(core.collection_date.to_string(), "2026-11-24");
        let order = &core.orders[0];
        assert_eq!((order.end_to_end_id.as_str(), order.mandate_id.as_str()), ("D1", "M-D1"));
        assert_eq!((order.amount.to_string(), order.currency.as_str()), ("20".to_owned(), "EUR"));
        assert_eq!(order.signed_on.to_string(), "2026-11-01");
    }

    #[test]
    fn wrong_totals_are_refused() {
        let file = GOLDEN.replacen("<NbOfTxs>3<", "<NbOfTxs>4<", 1);
        assert!(matches!(CollectionFile::read(file.as_bytes()), Err(ReadError::Count { .. })));
        let file = GOLDEN.replacen("<CtrlSum>25.51<", "<CtrlSum>25.50<", 1);
        assert!(matches!(CollectionFile::read(file.as_bytes()), Err(ReadError::Sum { .. })));
        let file = GOLDEN.replace("pain.008.001.08", "pain.001.001.09");
        assert!(matches!(CollectionFile::read(file.as_bytes()), Err(ReadError::Unsupported(_))));
    }

    proptest! {
        #[test]
        fn mutated_file_never_panics(bytes in mutated(GOLDEN)) {
            let _ = CollectionFile::read(bytes.as_slice());
        }
    }
}
