//! What a collection file may be, on both sides of each rule.
#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use super::super::transfer::tests::NOW_MS;
use super::*;

pub(crate) fn header() -> CollectionHeader {
    CollectionHeader {
        message_id: "WEIR-D-7".to_owned(),
        created_ms: NOW_MS,
        creditor: Creditor {
            name: "Weir Hub Gründer & Co".to_owned(),
            iban: "DE89370400440532013000".parse().unwrap(),
            bic: None,
            id: "DE98ZZZ09999999999".parse().unwrap(),
        },
    }
}

fn collection(id: &str, cents: i64) -> Collection {
    Collection {
        end_to_end_id: id.to_owned(),
        amount: Decimal::new(cents, 2),
        mandate_id: format!("M-{id}"),
        signed_on: "2026-11-01".parse().unwrap(),
        debtor_name: "Ada Größe".to_owned(),
        debtor_iban: "NL91ABNA0417164300".parse().unwrap(),
        remittance: Remittance::Text("Weir top-up".to_owned()),
    }
}

pub(crate) fn batches() -> Vec<CollectionBatch> {
    vec![
        CollectionBatch {
            batch_id: "WEIR-D-7-1".to_owned(),
            scheme: Scheme::Core,
            sequence: Sequence::First,
            collection_date: "2026-11-24".parse().unwrap(),
            collections: vec![collection("D1", 2000), collection("D2", 550)],
        },
        CollectionBatch {
            batch_id: "WEIR-D-7-2".to_owned(),
            scheme: Scheme::B2b,
            sequence: Sequence::Recurring,
            collection_date: "2026-11-25".parse().unwrap(),
            collections: vec![collection("D3", 1)],
        },
    ]
}

fn write(header: &CollectionHeader, batches: &[CollectionBatch]) -> Result<String, CollectError> {
    let mut out = Vec::new();
    write_collections(&mut out, header, batches)?;
    Ok(String::from_utf8(out).unwrap())
}

fn write_with(change: impl FnOnce(&mut Vec<CollectionBatch>)) -> Result<String, CollectError> {
    let mut batches = batches();
    change(&mut batches);
    write(&header(), &batches)
}

#[test]
fn file_is_the_golden_one() {
    let written = write(&header(), &batches()).unwrap();
    assert_eq!(written, include_str!("../testdata/pain.008.xml"));
    assert_eq!(written, write(&header(), &batches()).unwrap());
}

#[test]
fn collection_date_is_a_target_day_from_the_creation_and_the_signature_on() {
    let dated = |date: &str| write_with(|batches| batches[0].collection_date = date.parse().unwrap());
    assert!(dated("2026-11-23").is_ok());
    // A Friday before the creation, a Saturday after it.
    for bad in ["2026-11-20", "2026-11-28"] {
        assert!(matches!(dated(bad), Err(CollectError::Date { .. })), "{bad}");
    }
    let signed = |date: &str| write_with(|batches| batches[0].collections[0].signed_on = date.parse().unwrap());
    assert!(signed("2026-11-22").is_ok());
    assert!(matches!(signed("2026-11-23"), Err(CollectError::Date { .. })), "after the file was made");
}

#[test]
fn identifiers_are_unique_in_the_file() {
    let twice = write_with(|batches| batches[1].collections[0].end_to_end_id = "D1".to_owned());
    assert!(matches!(twice, Err(CollectError::Duplicate { field: "EndToEndId", .. })));
    let none = write_with(|batches| batches[1].collections[0].end_to_end_id = NOT_PROVIDED.to_owned());
    assert!(matches!(none, Err(CollectError::Duplicate { field: "EndToEndId", .. })));
    let batch = write_with(|batches| batches[1].batch_id = "WEIR-D-7-1".to_owned());
    assert!(matches!(batch, Err(CollectError::Duplicate { field: "PmtInfId", .. })));
    let first_twice = write_with(|batches| batches[0].collections[1].mandate_id = "M-D1".to_owned());
    assert!(matches!(first_twice, Err(CollectError::Duplicate { field: "MndtId", .. })));
    let recurring_twice = write_with(|batches| {
        let again = Collection { end_to_end_id: "D4".to_owned(), ..batches[1].collections[0].clone() };
        batches[1].collections.push(again);
    });
    assert!(recurring_twice.is_ok());
}

#[test]
fn what_a_bank_would_refuse_is_refused_before_a_byte_is_written() {
    let refuse = |change: fn(&mut Collection)| {
        let mut batches = batches();
        change(&mut batches[1].collections[0]);
        let mut out = Vec::new();
        let refused = write_collections(&mut out, &header(), &batches).unwrap_err();
        assert!(out.is_empty());
        refused
    };
    assert!(matches!(refuse(|c| c.amount = Decimal::ZERO), CollectError::Amount { .. }));
    assert!(matches!(refuse(|c| c.amount = Decimal::new(1, 3)), CollectError::Amount { .. }));
    assert!(matches!(refuse(|c| c.mandate_id = "a//b".to_owned()), CollectError::Text { field: "MndtId", .. }));
    assert!(matches!(refuse(|c| c.mandate_id = "x".repeat(36)), CollectError::Text { field: "MndtId", .. }));
    assert!(matches!(refuse(|c| c.debtor_name = "…".to_owned()), CollectError::Text { field: "Dbtr/Nm", .. }));
    let brazil = |c: &mut Collection| c.debtor_iban = "BR1800360305000010009795493C1".parse().unwrap();
    assert!(matches!(refuse(brazil), CollectError::OutsideSepa { .. }));
    assert!(matches!(write(&header(), &[]), Err(CollectError::Empty)));
    assert!(matches!(write_with(|batches| batches[0].collections.clear()), Err(CollectError::Empty)));
}
