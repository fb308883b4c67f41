//! The bank end to end: both sides in one temporary directory, every message read back by the hub's reader.
#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

mod faults;

use super::*;
use crate::bank::collection::tests::{batches, header as collection_header};
use crate::bank::collection::{CollectionBatch, CollectionHeader, write_collections};
use crate::bank::message::{BankMessage, read_message};
use crate::bank::reference::CreditorReference;
use crate::bank::spool::Spool;
use crate::bank::statement::{Direction, Entry, StatementFile, StatementKind};
use crate::bank::status::StatusReport;
use crate::bank::transfer::tests::{NOW_MS, header, payments};
use crate::bank::transfer::{Payment, TransferHeader, write_transfers};

/// Both sides.
struct Bench {
    root: tempfile::TempDir,
    spool: Spool,
    bank: SandboxBank,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut SandboxOptions)) -> Self {
        Self::misbehaving(change, Behaviour::default())
    }

    fn misbehaving(change: impl FnOnce(&mut SandboxOptions), behaviour: Behaviour) -> Self {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path()).unwrap();
        let mut options = options(root.path(), &spool);
        change(&mut options);
        let bank = SandboxBank::open_with(options, behaviour).unwrap();
        Self { root, spool, bank }
    }

    fn reopen(&mut self) {
        self.bank = SandboxBank::open_with(self.bank.options.clone(), self.bank.behaviour.clone()).unwrap();
    }

    fn deposit(&mut self, amount: &str, remittance: Remittance) -> String {
        let transfer = IncomingTransfer {
            amount: amount.parse().unwrap(),
            debtor_name: "Ada Größe".to_owned(),
            debtor_iban: "NL91ABNA0417164300".parse().unwrap(),
            remittance,
        };
        self.bank.receive_transfer(&transfer, NOW_MS).unwrap()
    }

    fn pay(&self, header: &TransferHeader, payments: &[Payment]) {
        self.spool
            .write_outbox(&format!("{}.xml", header.message_id), |out| write_transfers(out, header, || payments.iter()))
            .unwrap();
    }

    fn collect(&self, header: &CollectionHeader, batches: &[CollectionBatch]) {
        let name = format!("{}.xml", header.message_id);
        write_atomically::<_, crate::bank::CollectError>(self.spool.outbox(), &name, |out| {
            write_collections(out, header, batches).map(|_| ())
        })
        .unwrap();
    }

    /// Takes everything out of the inbox.
    fn take(&self) -> Vec<BankMessage> {
        let files = self.spool.inbox_files().unwrap();
        files
            .iter()
            .map(|file| {
                let message = read_message(file.open().unwrap()).unwrap();
                self.spool.mark_processed(file).unwrap();
                message
            })
            .collect()
    }

    fn take_statement(&self) -> StatementFile {
        match self.take().pop().unwrap() {
            BankMessage::Statement(file) => file,
            BankMessage::Status(report) => unreachable!("{report:?}"),
        }
    }

    /// The answer to one file: its report, and the notification if money moved.
    fn take_answer(&self) -> (StatusReport, Option<StatementFile>) {
        let mut messages = self.take().into_iter();
        let Some(BankMessage::Status(report)) = messages.next() else { unreachable!() };
        let notification = messages.next().map(|message| match message {
            BankMessage::Statement(file) => file,
            BankMessage::Status(report) => unreachable!("{report:?}"),
        });
        assert!(messages.next().is_none());
        (report, notification)
    }
}

pub(super) fn options(root: &Path, spool: &Spool) -> SandboxOptions {
    SandboxOptions {
        dir: root.join("bank"),
        outbox: spool.outbox().to_owned(),
        inbox: spool.inbox().to_owned(),
        name: "Weir Hub".to_owned(),
        iban: header().debtor.iban,
        currency: Currency::EUR,
        rejects: BTreeMap::new(),
        batch_booking: false,
    }
}

fn statuses(report: &StatusReport, ids: &[&str]) -> Vec<String> {
    let verdicts = report.verdicts();
    ids.iter()
        .map(|id| match verdicts.of("WEIR-7-EUR-1-B1", id) {
            Some((status, _)) if status.is_settled() => "settled".to_owned(),
            Some((_, [reason, ..])) => reason.code.clone(),
            other => unreachable!("{other:?}"),
        })
        .collect()
}

const IDS: [&str; 3] = ["WEIR-7-EUR-A", "WEIR-7-EUR-B", "WEIR-7-EUR-C"];

#[test]
fn deposit_is_announced_with_its_reference() {
    let mut bench = Bench::new();
    let reference = CreditorReference::from_id(&[7; 32]);
    let number = bench.deposit("25.50", Remittance::Reference(reference.clone()));
    let file = bench.take_statement();
    assert_eq!(file.kind, StatementKind::Notification);
    assert_eq!(file.statements[0].account, header().debtor.iban.as_str());
    let entry = &file.statements[0].entries[0];
    assert_eq!(entry.direction, Direction::Credit);
    assert_eq!(entry.amount.to_string(), "25.5");
    assert_eq!(entry.account_servicer_reference.as_deref(), Some(number.as_str()));
    let detail = entry.details().next().unwrap();
    assert_eq!(detail.references()[0], reference);
    assert_eq!(detail.debtor.name.as_deref(), Some("Ada Groesse"));
    assert_eq!(detail.end_to_end_id, None);

    bench.deposit("1", Remittance::Text(format!("deposit {}", reference.grouped())));
    let file = bench.take_statement();
    let detail = file.statements[0].entries[0].details().next().unwrap();
    assert!(detail.references().contains(&reference));
}

#[test]
fn payments_are_made_reported_booked_and_stated() {
    for batch_booking in [false, true] {
        let mut bench = Bench::with(|options| options.batch_booking = batch_booking);
        bench.deposit("2000", Remittance::None);
        bench.take();
        bench.pay(&header(), &payments());
        let run = bench.bank.run_once(NOW_MS).unwrap();
        assert_eq!((run.executed, run.rejected, run.fetched.len()), (3, 0, 1));
        assert!(run.fetched[0].is_file());

        let (report, notification) = bench.take_answer();
        assert_eq!(report.original_message_id, "WEIR-7-EUR-1");
        assert_eq!(statuses(&report, &IDS), ["settled", "settled", "settled"]);
        let notification = notification.unwrap();
        let entries = &notification.statements[0].entries;
        assert_eq!(entries.len(), if batch_booking { 1 } else { 3 });
        let ids: Vec<_> =
            entries.iter().flat_map(Entry::details).map(|detail| detail.end_to_end_id.clone().unwrap()).collect();
        assert_eq!(ids, IDS);

        assert_eq!(bench.bank.balance().to_string(), "764.93");
        let account: Iban = "FR1420041010050500013M02606".parse().unwrap();
        assert_eq!(bench.bank.received()[&account].payments, 1);
        assert_eq!(bench.bank.received()[&account].amount.to_string(), "0.01");

        bench.bank.end_of_day(NOW_MS).unwrap();
        let file = bench.take_statement();
        let statement = &file.statements[0];
        assert_eq!(file.kind, StatementKind::Statement);
        assert_eq!(statement.opening.as_ref().unwrap().amount.to_string(), "0");
        assert_eq!(statement.closing.as_ref().unwrap().amount.to_string(), "764.93");
        // The same entries under the same numbers: the hub sees that it has them.
        assert_eq!(&statement.entries[1..], entries.as_slice());

        bench.bank.end_of_day(NOW_MS + 86_400_000).unwrap();
        let file = bench.take_statement();
        assert_eq!(file.statements[0].entries, []);
        assert_eq!(file.statements[0].opening.as_ref().unwrap().amount.to_string(), "764.93");
    }
}

#[test]
fn payments_that_cannot_be_made_are_rejected_one_by_one() {
    let mut bench = Bench::with(|options| {
        options.rejects.insert("NL91ABNA0417164300".parse().unwrap(), "AC04".to_owned());
    });
    bench.deposit("0.30", Remittance::None);
    bench.take();
    bench.pay(&header(), &payments());
    let run = bench.bank.run_once(NOW_MS).unwrap();
    assert_eq!((run.executed, run.rejected), (1, 2));
    let (report, notification) = bench.take_answer();
    assert_eq!(statuses(&report, &IDS), ["AC04", "settled", "AM04"]);
    assert_eq!(notification.unwrap().statements[0].entries.len(), 1);
    assert_eq!(bench.bank.balance().to_string(), "0.29");
}

#[test]
fn wrong_iban_currency_and_debtor_are_rejected_without_booking() {
    let golden = include_str!("../testdata/pain.001.xml");
    for (from, to, code) in [
        ("NL91ABNA0417164300", "NL92ABNA0417164300", "AC01"),
        ("Ccy=\"EUR\">1234.56", "Ccy=\"CHF\">1234.56", "AM03"),
        ("DE89370400440532013000", "NL91ABNA0417164300", "AG01"),
    ] {
        let mut bench = Bench::new();
        bench.deposit("5000", Remittance::None);
        bench.take();
        let path = bench.spool.outbox().join("a.xml");
        fs::write(path, golden.replacen(from, to, 1)).unwrap();
        bench.bank.run_once(NOW_MS).unwrap();
        let (report, notification) = bench.take_answer();
        assert_eq!(statuses(&report, &IDS[..1]), [code]);
        let booked: usize = notification.iter().map(|file| file.statements[0].entries.len()).sum();
        assert_eq!(booked, if code == "AG01" { 0 } else { 2 });
    }
}

#[test]
fn file_with_a_known_message_id_is_executed_once() {
    let mut bench = Bench::new();
    bench.deposit("5000", Remittance::None);
    bench.pay(&header(), &payments());
    bench.bank.run_once(NOW_MS).unwrap();
    bench.take();
    let balance = bench.bank.balance();
    bench.reopen();
    bench.pay(&header(), &payments());
    let run = bench.bank.run_once(NOW_MS).unwrap();
    assert_eq!((run.executed, run.duplicates, run.fetched.len()), (0, 1, 1));
    assert_eq!(bench.bank.balance(), balance);
    let (report, notification) = bench.take_answer();
    assert_eq!((report.original_message_id.as_str(), report.reasons[0].code.as_str()), ("WEIR-7-EUR-1", "DU01"));
    assert!(report.batches.is_empty() && notification.is_none());
}

#[test]
fn unreadable_file_is_rejected_as_a_whole() {
    let mut bench = Bench::new();
    let wrong_sum = include_str!("../testdata/pain.001.xml").replacen("1235.07", "1235.08", 1);
    for (content, original) in [("no xml", "NOTPROVIDED"), (wrong_sum.as_str(), "WEIR-7-EUR-1")] {
        fs::write(bench.spool.outbox().join("a.xml"), content).unwrap();
        let run = bench.bank.run_once(NOW_MS).unwrap();
        assert_eq!((run.unreadable, run.fetched.len()), (1, 1));
        let (report, notification) = bench.take_answer();
        assert_eq!(report.original_message_id, original);
        assert!(report.status.unwrap().is_refused());
        assert!(report.batches.is_empty() && notification.is_none());
    }
}

#[test]
fn message_that_could_not_be_delivered_follows_once() {
    let mut bench = Bench::new();
    let away = bench.root.path().join("away");
    fs::rename(bench.spool.inbox(), &away).unwrap();
    let transfer = IncomingTransfer {
        amount: Decimal::ONE,
        debtor_name: "Ada".to_owned(),
        debtor_iban: "NL91ABNA0417164300".parse().unwrap(),
        remittance: Remittance::None,
    };
    assert!(bench.bank.receive_transfer(&transfer, NOW_MS).is_err());
    fs::rename(&away, bench.spool.inbox()).unwrap();
    assert_eq!(bench.bank.balance(), Decimal::ONE);
    bench.reopen();
    assert_eq!(bench.take().len(), 1);
    bench.reopen();
    assert!(bench.take().is_empty());
    assert_eq!(fs::read_dir(bench.root.path().join("bank/staged")).unwrap().count(), 0);
}

#[test]
fn damaged_foreign_or_unbalanced_state_is_refused() {
    let mut bench = Bench::new();
    bench.deposit("5", Remittance::None);
    let path = bench.root.path().join("bank").join(STATE_FILE);
    let good = fs::read_to_string(&path).unwrap();
    for bad in [
        String::new(),
        good.replacen("\"balance\": \"5\"", "\"balance\": \"6\"", 1),
        good.replacen("\"balance\": \"5\"", "\"balance\": 5", 1),
        good.replacen("DE89370400440532013000", "NL91ABNA0417164300", 1),
    ] {
        assert_ne!(bad, good);
        fs::write(&path, bad).unwrap();
        let result = SandboxBank::open(bench.bank.options.clone());
        assert!(matches!(result, Err(SandboxError::State { .. })));
    }
}

#[test]
fn transfer_that_no_bank_carries_is_refused() {
    let mut bench = Bench::new();
    let transfer = IncomingTransfer {
        amount: Decimal::ONE,
        debtor_name: "Ada".to_owned(),
        debtor_iban: "NL91ABNA0417164300".parse().unwrap(),
        remittance: Remittance::None,
    };
    for bad in [
        IncomingTransfer { amount: Decimal::ZERO, ..transfer.clone() },
        IncomingTransfer { amount: Decimal::new(1, 3), ..transfer.clone() },
        IncomingTransfer { debtor_name: String::new(), ..transfer.clone() },
        IncomingTransfer { remittance: Remittance::Text("x".repeat(141)), ..transfer.clone() },
    ] {
        assert!(bench.bank.receive_transfer(&bad, NOW_MS).is_err());
    }
    assert_eq!(bench.bank.balance(), Decimal::ZERO);
    assert!(bench.take().is_empty());
}

/// Writes one of every file that this module makes, into `WEIR_SCHEMA_FILES` if that is set: `.ci/xsd` validates them.
#[test]
fn every_kind_of_file_is_written_for_the_schema_check() {
    let temporary = tempfile::tempdir().unwrap();
    let target = std::env::var_os("WEIR_SCHEMA_FILES").map_or(temporary.path().to_owned(), PathBuf::from);
    let mut number = 0;
    let mut keep = |path: &Path| {
        number += 1;
        fs::copy(path, target.join(format!("{number:02}.xml"))).unwrap();
    };
    for batch_booking in [false, true] {
        let mut bench = Bench::with(|options| {
            options.batch_booking = batch_booking;
            options.rejects.insert("CZ6508000000192000145399".parse().unwrap(), "AC04".to_owned());
        });
        bench.deposit("2000", Remittance::Reference(CreditorReference::from_id(&[1; 32])));
        bench.deposit("0.5", Remittance::Text("RF18 5390 0754 7034 thanks".to_owned()));
        let mut header = header();
        if batch_booking {
            header.debtor.bic = Some("COBADEFFXXX".parse().unwrap());
        }
        bench.pay(&header, &payments());
        header.message_id.push('2');
        bench.pay(&header, &payments()[2..]);
        fs::write(bench.spool.outbox().join("z.xml"), "no xml at all").unwrap();
        let run = bench.bank.run_once(NOW_MS).unwrap();
        for path in run.fetched.iter().filter(|path| !path.ends_with("z.xml")) {
            keep(path);
        }
        bench.bank.end_of_day(NOW_MS).unwrap();
        bench.bank.end_of_day(NOW_MS).unwrap();
        keep_inbox(&mut keep, &bench);
    }
    // Both forms of the report, the day so far, collections, charges, what comes back.
    for status_version in [StatusVersion::V10, StatusVersion::V03] {
        let behaviour = Behaviour {
            status_version,
            intraday: true,
            charge: Decimal::new(35, 2),
            returns: [("NL91ABNA0417164300".parse().unwrap(), "MD07".to_owned())].into(),
            ..Behaviour::default()
        };
        let behaviour = [Fault::Charge, Fault::Deduct, Fault::Interim, Fault::Partial, Fault::PaidAfterReject]
            .into_iter()
            .fold(behaviour, |behaviour, fault| behaviour.with(fault, "50%".parse().unwrap()));
        let mut bench = Bench::misbehaving(|_| (), behaviour);
        bench.deposit("2000", Remittance::None);
        bench.pay(&header(), &payments());
        bench.collect(&collection_header(), &batches());
        let run = bench.bank.run_once(NOW_MS).unwrap();
        run.fetched.iter().for_each(|path| keep(path));
        bench.pay(&header(), &payments());
        bench.bank.run_once(NOW_MS).unwrap();
        bench.bank.run_once(NOW_MS).unwrap();
        bench.bank.end_of_day(NOW_MS).unwrap();
        keep_inbox(&mut keep, &bench);
    }
    assert!(fs::read_dir(&target).unwrap().count() > 40);
}

fn keep_inbox(keep: &mut impl FnMut(&Path), bench: &Bench) {
    for file in bench.spool.inbox_files().unwrap() {
        keep(file.path());
    }
}
