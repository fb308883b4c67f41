//! Whatever can be written passes; whatever a schema lets through and a bank does not, is caught.
#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use proptest::prelude::*;

use super::*;
use crate::bank::collection::tests::{batches, header as collection_header};
use crate::bank::collection::write_collections;
use crate::bank::reference::CreditorReference;
use crate::bank::transfer::tests::{header, payments};
use crate::bank::transfer::{Payment, Remittance, write_transfers};
use crate::bank::transfer_read::TransferFile;
use crate::bank::xml::mutated;

const TRANSFERS: &str = include_str!("../testdata/pain.001.xml");
const COLLECTIONS: &str = include_str!("../testdata/pain.008.xml");

/// IBANs of nobody in particular, one of each length that is common.
const IBANS: [&str; 6] = [
    "NO9386011117947",
    "BE68539007547034",
    "NL91ABNA0417164300",
    "DE89370400440532013000",
    "FR1420041010050500013M02606",
    "MT84MALT011000012345MTLCAST001S",
];

fn payment() -> impl Strategy<Value = Payment> {
    let remittance = prop_oneof![
        Just(Remittance::None),
        "[a-zA-Z0-9/?:().,'+-]([a-zA-Z0-9/?:().,'+ -]{0,138}[a-zA-Z0-9])?".prop_map(Remittance::Text),
        any::<[u8; 32]>().prop_map(|id| Remittance::Reference(CreditorReference::from_id(&id))),
    ];
    let amount = prop_oneof![Just(1), 1..100_000_i64, Just(99_999_999_999), 1..99_999_999_999_i64];
    (".{0,40}[a-z]", amount, 0..IBANS.len(), remittance).prop_map(|(name, cents, iban, remittance)| Payment {
        end_to_end_id: String::new(),
        amount: Decimal::new(cents, 2),
        creditor_name: name,
        creditor_iban: IBANS[iban].parse().unwrap(),
        remittance,
    })
}

proptest! {
    #[test]
    fn whatever_is_written_passes_and_says_the_same(
        payments in prop::collection::vec(payment(), 1..60), days in 0..400_u32,
    ) {
        // A name may transliterate to more than a bank takes: the writer refuses it, and there is no file.
        let mut payments = payments;
        payments.retain(|payment| crate::details::bank_name(&payment.creditor_name).is_ok());
        prop_assume!(!payments.is_empty());
        for (number, payment) in payments.iter_mut().enumerate() {
            payment.end_to_end_id = format!("W7-{number}");
        }
        let mut header = header();
        header.execution_date = header.execution_date.plus_days(days).unwrap().target_day_from().unwrap();
        let mut bytes = Vec::new();
        let written = write_transfers(&mut bytes, &header, || payments.iter()).unwrap();
        prop_assert_eq!(inspect_transfers(bytes.as_slice()).unwrap(), written);
        let file = TransferFile::read(bytes.as_slice()).unwrap();
        prop_assert_eq!(file.batches.len(), 1);
        let orders: Vec<_> = file.batches.iter().flat_map(|batch| &batch.orders).collect();
        prop_assert_eq!(orders.len(), payments.len());
        for (order, payment) in orders.iter().zip(&payments) {
            prop_assert_eq!(order.amount, payment.amount);
            prop_assert_eq!(&order.end_to_end_id, &payment.end_to_end_id);
            prop_assert_eq!(order.creditor_iban.as_str(), payment.creditor_iban.as_str());
        }
        let mut again = Vec::new();
        write_transfers(&mut again, &header, || payments.iter()).unwrap();
        prop_assert_eq!(bytes, again, "the same bytes every time");
    }

    #[test]
    fn mutated_file_never_panics(transfers in mutated(TRANSFERS), collections in mutated(COLLECTIONS)) {
        let _ = inspect_transfers(transfers.as_slice());
        let _ = inspect_collections(collections.as_slice());
    }
}

#[test]
fn golden_files_pass() {
    let totals = inspect_transfers(TRANSFERS.as_bytes()).unwrap();
    assert_eq!((totals.payments, totals.sum.to_string().as_str()), (3, "1235.07"));
    let totals = inspect_collections(COLLECTIONS.as_bytes()).unwrap();
    assert_eq!((totals.payments, totals.sum.to_string().as_str()), (3, "25.51"));
    let mut written = Vec::new();
    write_collections(&mut written, &collection_header(), &batches()).unwrap();
    assert_eq!(inspect_collections(written.as_slice()).unwrap(), totals);
    assert_eq!(payments().len(), 3);
}

/// Each of these is valid against the schemas.
#[test]
fn what_schemas_let_through_is_caught() {
    let address = "<Nm>Weir Hub Gruender + Co</Nm><PstlAdr><Ctry>DE</Ctry></PstlAdr>";
    for (from, to) in [
        ("<IBAN>NL91", "<IBAN>NL92"),
        ("<IBAN>NL91ABNA0417164300", "<IBAN>BR1800360305000010009795493C1"),
        ("Weir window 7", "Weir wíndow 7"),
        ("Weir window 7", "Weir window 7 "),
        ("Weir window 7", "Weir &amp; window 7"),
        ("<CtrlSum>1235.07", "<CtrlSum>1235.08"),
        ("<NbOfTxs>3", "<NbOfTxs>2"),
        ("WEIR-7-EUR-B<", "WEIR-7-EUR-A<"),
        ("WEIR-7-EUR-B<", "NOTPROVIDED<"),
        ("WEIR-7-EUR-B<", "WEIR//7<"),
        ("<MsgId>WEIR-7-EUR-1", "<MsgId>/WEIR-7-EUR-1"),
        ("<Dt>2026-11-23", "<Dt>2026-11-20"),
        ("<Dt>2026-11-23", "<Dt>2026-11-28"),
        ("<Dt>2026-11-23", "<Dt>2026-12-25"),
        ("<Nm>Weir Hub Gruender + Co</Nm>", address),
        ("<Nm>Bo<", "<Nm>NOTPROVIDED<"),
        ("\"EUR\">0.01", "\"CHF\">0.01"),
    ] {
        let changed = TRANSFERS.replacen(from, to, 1);
        assert_ne!(changed, TRANSFERS, "{from}");
        assert!(inspect_transfers(changed.as_bytes()).is_err(), "{from} -> {to}");
    }
    for (from, to) in [
        ("DE98ZZZ09999999999", "DE97ZZZ09999999999"),
        ("<DtOfSgntr>2026-11-01", "<DtOfSgntr>2026-11-30"),
        ("<ReqdColltnDt>2026-11-24", "<ReqdColltnDt>2026-11-29"),
        ("<EndToEndId>D2", "<EndToEndId>D1"),
        ("<CtrlSum>25.50", "<CtrlSum>25.49"),
    ] {
        let changed = COLLECTIONS.replacen(from, to, 1);
        assert_ne!(changed, COLLECTIONS, "{from}");
        assert!(inspect_collections(changed.as_bytes()).is_err(), "{from} -> {to}");
    }
}
