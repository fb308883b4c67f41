//! Files as banks write them, in the old and the new shape, and the same with one thing wrong.
#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use proptest::prelude::*;

use super::*;
use crate::bank::xml::{ReadError, mutated};

const NEW: &str = include_str!("../testdata/camt.053.xml");
const OLD: &str = include_str!("../testdata/camt.053-old.xml");
const NOTIFICATION: &str = include_str!("../testdata/camt.054.xml");

fn read(text: &str) -> Result<StatementFile, ReadError> {
    StatementFile::read(text.as_bytes())
}

fn only(text: &str) -> Statement {
    read(text).unwrap().statements.remove(0)
}

/// `NEW` with `from`, which must be there, replaced once.
fn changed(from: &str, to: &str) -> Result<StatementFile, ReadError> {
    assert!(NEW.contains(from), "{from}");
    read(&NEW.replacen(from, to, 1))
}

#[test]
fn statement_of_today_is_read_whole() {
    let file = read(NEW).unwrap();
    assert_eq!(file.kind, StatementKind::Statement);
    assert_eq!(file.message_id, "STMT-1");
    let statement = &file.statements[0];
    assert_eq!(statement.account, "DE89370400440532013000");
    assert_eq!(statement.opening.as_ref().unwrap().amount.to_string(), "1000");
    assert_eq!(statement.closing.as_ref().unwrap().amount.to_string(), "-12.25");
    let [deposit, payout, returned, pending] = statement.entries.as_slice() else { unreachable!() };

    assert_eq!(deposit.account_servicer_reference.as_deref(), Some("REF-1"));
    assert_eq!(deposit.direction, Direction::Credit);
    assert_eq!(deposit.transaction_code.as_deref(), Some("PMNT-RCDT-ESCT"));
    assert_eq!(deposit.booking_date.unwrap().to_string(), "2026-11-22");
    let detail = deposit.details().next().unwrap();
    assert_eq!(detail.end_to_end_id, None);
    assert_eq!(detail.debtor.name.as_deref(), Some("Ada & Söhne"));
    assert_eq!(detail.debtor.iban.as_deref(), Some("NL91ABNA0417164300"));
    assert_eq!(detail.references()[0].as_str(), "RF18539007547034");

    let batch = &payout.batches[0];
    assert_eq!(batch.batch_id.as_deref(), Some("WEIR-7-EUR-1-B1"));
    assert_eq!(batch.transactions, Some(2));
    let ids: Vec<_> = payout.details().map(|detail| detail.end_to_end_id.as_deref().unwrap()).collect();
    assert_eq!(ids, ["A", "B"]);
    assert!(payout.details().all(|detail| detail.direction == Direction::Debit && !detail.is_return()));

    let detail = returned.details().next().unwrap();
    assert_eq!(detail.return_reason.as_deref(), Some("AC04"));
    assert!(detail.is_return());
    assert_eq!(detail.amount, returned.amount);
    assert_eq!(pending.status, EntryStatus::Pending);
}

#[test]
fn statement_of_the_old_shape_is_read_alike() {
    for version in ["02", "03", "04", "06", "10", "14"] {
        let text = OLD.replace("camt.053.001.02", &format!("camt.053.001.{version}"));
        let statement = only(&text);
        let entry = &statement.entries[0];
        assert_eq!(entry.status, EntryStatus::Booked);
        let detail = entry.details().next().unwrap();
        assert_eq!(detail.debtor.name.as_deref(), Some("Ada"));
        assert_eq!(detail.amount.to_string(), "5.5");
        let references = detail.references();
        assert!(references.iter().any(|reference| reference.as_str() == "RF18539007547034"), "{references:?}");
    }
    for version in ["01", "15"] {
        let text = OLD.replace("camt.053.001.02", &format!("camt.053.001.{version}"));
        assert!(matches!(read(&text), Err(ReadError::Unsupported(_))));
    }
}

#[test]
fn notification_needs_no_balance() {
    let statement = only(NOTIFICATION);
    assert_eq!(statement.opening, None);
    assert_eq!(statement.entries.len(), 1);
    assert_eq!(statement.entries[0].batches[0].details, []);
    assert_eq!(statement.entries[0].batches[0].total.unwrap().to_string(), "7");
    let as_report = NOTIFICATION
        .replace("camt.054", "camt.052")
        .replace("BkToCstmrDbtCdtNtfctn", "BkToCstmrAcctRpt")
        .replace("Ntfctn>", "Rpt>");
    assert_eq!(read(&as_report).unwrap().kind, StatementKind::Report);
}

#[test]
fn statement_whose_balances_do_not_add_up_is_refused() {
    assert!(matches!(changed(">12.25<", ">12.24<"), Err(ReadError::Sum { element: "Bal (CLBD)", .. })));
    // One that lacks a balance is read, for whoever wants to know what it says: it proves nothing.
    assert_eq!(changed("OPBD", "OPAV").unwrap().statements[0].opening, None);
    assert_eq!(changed("CLBD", "CLAV").unwrap().statements[0].closing, None);
    assert!(matches!(changed("PDNG", "BOOK"), Err(ReadError::Sum { .. })));
    assert!(matches!(
        changed("<Amt Ccy=\"EUR\">1000.00<", "<Amt Ccy=\"USD\">1000.00<"),
        Err(ReadError::Currency { .. })
    ));
}

#[test]
fn pages_are_checked_by_their_interim_balances() {
    for (opening, closing) in [("OPBD", "ITBD"), ("ITBD", "CLBD"), ("ITBD", "ITBD"), ("PRCD", "CLBD")] {
        let text = NEW.replacen("CLBD", closing, 1).replacen("OPBD", opening, 1);
        assert!(read(&text).is_ok(), "{opening} {closing}");
        let wrong = text.replacen(">12.25<", ">12.24<", 1);
        assert!(matches!(read(&wrong), Err(ReadError::Sum { .. })), "{opening} {closing}");
    }
}

#[test]
fn entry_whose_details_do_not_add_up_is_refused() {
    assert!(matches!(changed(">1000.25<", ">1000.24<"), Err(ReadError::Sum { element: "Btch/TtlAmt", .. })));
    let text = NEW.replacen("<TtlAmt Ccy=\"EUR\">1200.25</TtlAmt>", "", 1).replacen(">1000.25<", ">1000.24<", 1);
    assert!(matches!(read(&text), Err(ReadError::Sum { element: "Ntry/Amt", .. })));
    assert!(matches!(changed("<NbOfTxs>2<", "<NbOfTxs>3<"), Err(ReadError::Count { declared: 3, found: 2, .. })));
    assert!(matches!(changed("<Amt Ccy=\"EUR\">1000.25</Amt>", ""), Err(ReadError::Missing("TxDtls/Amt"))));
    assert!(matches!(
        changed("<Amt Ccy=\"EUR\">1000.25</Amt>", "<Amt Ccy=\"USD\">1000.25</Amt>"),
        Err(ReadError::Currency { .. })
    ));
    assert!(matches!(
        changed("<CdtDbtInd>DBIT</CdtDbtInd></TxDtls>", "<CdtDbtInd>CRDT</CdtDbtInd></TxDtls>"),
        Err(ReadError::Sum { .. })
    ));
    let text = NOTIFICATION.replace("<TtlAmt>7.00</TtlAmt>", "<TtlAmt>7.01</TtlAmt>");
    assert!(matches!(read(&text), Err(ReadError::Sum { .. })));
}

#[test]
fn reference_broken_over_lines_is_found() {
    let text = OLD.replacen(
        "<ns:Ustrd>RF18 5390 0754 7034</ns:Ustrd>",
        "<ns:Ustrd>DEPOSIT RF18 5390</ns:Ustrd><ns:Ustrd>07547034 THX</ns:Ustrd>",
        1,
    );
    assert_ne!(text, OLD);
    let statement = only(&text);
    let references = statement.entries[0].details().next().unwrap().references();
    assert!(references.iter().any(|reference| reference.as_str() == "RF18539007547034"));
}

#[test]
fn negative_and_unreadable_values_are_refused() {
    for (from, to) in [
        (">1000.00<", ">-1000.00<"),
        ("<CdtDbtInd>CRDT</CdtDbtInd>", "<CdtDbtInd>BOTH</CdtDbtInd>"),
        ("<Dt>2026-11-22</Dt>", "<Dt>yesterday</Dt>"),
        ("<Id>S-1</Id>", ""),
    ] {
        assert!(changed(from, to).is_err(), "{to}");
    }
}

proptest! {
    #[test]
    fn mutated_statement_never_panics(bytes in mutated(NEW)) {
        let _ = StatementFile::read(bytes.as_slice());
    }

    #[test]
    fn mutated_old_statement_never_panics(bytes in mutated(OLD)) {
        let _ = StatementFile::read(bytes.as_slice());
    }
}
