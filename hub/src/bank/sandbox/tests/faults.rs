//! Every fault alone, and all of them together: what the bank says is wrong as ordered, what it books is right.

use proptest::prelude::*;

use super::*;
use crate::bank::status::{Status, TransactionReport};

fn behaviour(faults: &[Fault]) -> Behaviour {
    let start = Behaviour { seed: 1, charge: Decimal::new(35, 2), ..Behaviour::default() };
    faults.iter().fold(start, |behaviour, fault| behaviour.with(*fault, Chance::ALWAYS))
}

/// A bank with 2,000 on the account that was told of it, and a file of three payments in the outbox.
fn bench(faults: &[Fault]) -> Bench {
    let mut bench = Bench::misbehaving(|_| (), Behaviour::default());
    bench.deposit("2000", Remittance::None);
    bench.take();
    bench.bank.behaviour = behaviour(faults);
    bench.pay(&header(), &payments());
    bench
}

impl Bench {
    fn round(&mut self) -> (RunReport, Vec<StatusReport>, Vec<StatementFile>) {
        let run = self.bank.run_once(NOW_MS).unwrap();
        let (mut reports, mut statements) = (Vec::new(), Vec::new());
        for message in self.take() {
            match message {
                BankMessage::Status(report) => reports.push(report),
                BankMessage::Statement(file) => statements.push(file),
            }
        }
        (run, reports, statements)
    }

    fn names(&self) -> Vec<String> {
        self.spool.inbox_files().unwrap().iter().map(|file| file.name().into_owned()).collect()
    }
}

fn transactions(report: &StatusReport) -> Vec<&TransactionReport> {
    report.batches.iter().flat_map(|batch| &batch.transactions).collect()
}

fn all_are(report: &StatusReport, status: &Status) -> bool {
    transactions(report).len() == 3 && transactions(report).iter().all(|one| one.status.as_ref() == Some(status))
}

#[test]
fn rejected_payments_move_nothing() {
    let mut bench = bench(&[Fault::Reject]);
    let (run, reports, statements) = bench.round();
    assert_eq!((run.executed, run.rejected), (0, 3));
    assert!(all_are(&reports[0], &Status::Rejected) && statements.is_empty());
    assert_eq!(bench.bank.balance().to_string(), "2000");
}

#[test]
fn payments_come_back_when_their_time_has_come_across_a_restart() {
    let mut bench = bench(&[Fault::Return]);
    bench.bank.behaviour.return_after_ms = 1000;
    assert!(all_are(&bench.round().1[0], &Status::Settled));
    bench.reopen();
    assert_eq!(bench.bank.run_once(NOW_MS + 999).unwrap().returned, 0);
    assert_eq!(bench.bank.pending(), 3);
    assert_eq!(bench.bank.run_once(NOW_MS + 1000).unwrap().returned, 3);
    let file = bench.take_statement();
    let entries = &file.statements[0].entries;
    assert_eq!(entries.len(), 3);
    for (entry, id) in entries.iter().zip(IDS) {
        let detail = entry.details().next().unwrap();
        assert_eq!(entry.direction, Direction::Credit);
        assert!(detail.is_return() && detail.return_reason.is_some());
        assert_eq!(detail.end_to_end_id.as_deref(), Some(id));
    }
    assert_eq!(bench.bank.balance().to_string(), "2000.00");
    assert_eq!(bench.bank.run_once(u64::from(u32::MAX)).unwrap().returned, 0);
}

#[test]
fn account_that_pays_everything_back_does_so_with_its_reason() {
    let mut bench = bench(&[]);
    bench.bank.behaviour.returns.insert("NL91ABNA0417164300".parse().unwrap(), "MD07".to_owned());
    bench.round();
    let (run, _, statements) = bench.round();
    assert_eq!(run.returned, 1);
    let detail = statements[0].statements[0].entries[0].details().next().unwrap();
    assert_eq!((detail.return_reason.as_deref(), detail.end_to_end_id.as_deref()), (Some("MD07"), Some(IDS[0])));
}

#[test]
fn success_after_a_failure_is_reported_and_booked_one_round_later() {
    let mut bench = bench(&[Fault::PaidAfterReject]);
    let (run, reports, statements) = bench.round();
    assert_eq!(run.executed, 3);
    assert!(all_are(&reports[0], &Status::Rejected) && statements.is_empty());
    let (_, reports, statements) = bench.round();
    assert!(all_are(&reports[0], &Status::Settled));
    assert_eq!(statements[0].statements[0].entries.len(), 3);
    assert_eq!(bench.bank.balance().to_string(), "764.93");
}

#[test]
fn failure_after_a_success_moves_nothing() {
    let mut bench = bench(&[Fault::RejectAfterPaid]);
    let (run, reports, statements) = bench.round();
    assert_eq!((run.executed, run.rejected), (0, 3));
    assert!(all_are(&reports[0], &Status::Settled) && statements.is_empty());
    assert!(all_are(&bench.round().1[0], &Status::Rejected));
    assert_eq!(bench.bank.balance().to_string(), "2000");
}

#[test]
fn rejected_file_has_no_word_on_its_payments() {
    let mut bench = bench(&[Fault::RejectFile]);
    let (run, reports, statements) = bench.round();
    assert_eq!((run.executed, run.rejected), (0, 3));
    assert_eq!(reports[0].status, Some(Status::Rejected));
    assert!(reports[0].batches.is_empty() && statements.is_empty());
}

#[test]
fn partial_report_lists_only_what_is_rejected() {
    let mut bench = bench(&[Fault::Partial]);
    let (run, reports, statements) = bench.round();
    assert!(run.rejected >= 1 && run.executed >= 1);
    assert_eq!(reports[0].status, Some(Status::Partial));
    assert_eq!(transactions(&reports[0]).len() as u64, run.rejected);
    assert_eq!(statements[0].statements[0].entries.len() as u64, run.executed);
    let verdicts = reports[0].verdicts();
    assert!(verdicts.of("WEIR-7-EUR-1-B1", IDS[2]).is_none(), "nothing is said of what was accepted");
}

#[test]
fn file_is_accepted_before_it_is_settled_or_never_reported_on() {
    let mut with_interim = bench(&[Fault::Interim]);
    let (_, reports, _) = with_interim.round();
    assert_eq!((reports[0].status.clone(), reports.len()), (Some(Status::Technical), 2));
    let mut silent = bench(&[Fault::Silent]);
    let (run, reports, statements) = silent.round();
    assert_eq!((run.executed, reports.len()), (3, 0));
    assert_eq!(statements[0].statements[0].entries.len(), 3);
}

#[test]
fn batch_is_booked_the_other_way_and_without_references() {
    let mut bench = bench(&[Fault::FlipBatching, Fault::DropReference]);
    let (_, _, statements) = bench.round();
    let [entry] = statements[0].statements[0].entries.as_slice() else { unreachable!() };
    assert_eq!(entry.details().count(), 3);
    assert!(entry.details().all(|detail| detail.end_to_end_id.is_none() && detail.references().is_empty()));
    assert_eq!((entry.batches[0].message_id.as_deref(), entry.batches[0].batch_id.as_deref()), (None, None));
}

#[test]
fn charges_are_a_line_of_their_own_or_deducted() {
    let mut with_line = bench(&[Fault::Charge]);
    let (_, _, statements) = with_line.round();
    let line = statements[0].statements[0].entries.last().unwrap();
    assert_eq!(line.transaction_code.as_deref(), Some("ACMT-MDOP-CHRG"));
    assert_eq!((line.amount.to_string(), line.direction, line.details().count()), ("0.35".into(), Direction::Debit, 0));
    assert_eq!(with_line.bank.balance().to_string(), "764.58");

    let mut deducting = bench(&[Fault::Return, Fault::Deduct]);
    deducting.round();
    let (_, _, statements) = deducting.round();
    let amounts: Vec<String> =
        statements[0].statements[0].entries.iter().map(|entry| entry.amount.to_string()).collect();
    // A charge never eats the whole of what comes back.
    assert_eq!(amounts, ["1234.21", "0.01", "0.15"]);
    deducting.deposit("5", Remittance::None);
    assert_eq!(deducting.take_statement().statements[0].entries[0].amount.to_string(), "4.65");
}

#[test]
fn messages_come_twice_late_cut_off_and_in_the_wrong_order() {
    let mut twice = bench(&[Fault::DuplicateFile]);
    let (_, reports, statements) = twice.round();
    assert_eq!(reports[0], reports[1]);
    assert_eq!(statements[0], statements[1]);

    let mut late = bench(&[Fault::Late]);
    let (run, reports, statements) = late.round();
    assert_eq!((run.executed, reports.len(), statements.len(), late.bank.pending()), (3, 0, 0, 2));
    late.reopen();
    let (_, reports, statements) = late.round();
    assert_eq!((reports.len(), statements.len()), (1, 1));

    let mut cut_off = bench(&[Fault::Garble]);
    cut_off.bank.run_once(NOW_MS).unwrap();
    let files = cut_off.spool.inbox_files().unwrap();
    assert_eq!(files.len(), 2);
    for file in &files {
        assert!(read_message(file.open().unwrap()).is_err());
        fs::remove_file(file.path()).unwrap();
    }
    let (_, reports, statements) = cut_off.round();
    assert_eq!((reports.len(), statements.len()), (1, 1));

    let mut turned = bench(&[Fault::Reorder]);
    turned.bank.run_once(NOW_MS).unwrap();
    let names = turned.names();
    assert!(names[0].contains("camt.054") && names[1].contains("pain.002"), "{names:?}");
}

#[test]
fn entry_is_twice_in_its_notification_and_once_in_the_statement() {
    let mut bench = bench(&[Fault::DuplicateEntry]);
    let (_, _, statements) = bench.round();
    let entries = &statements[0].statements[0].entries;
    assert_eq!(entries.len(), 6);
    assert_eq!(entries[0].account_servicer_reference, entries[1].account_servicer_reference);
    bench.bank.end_of_day(NOW_MS).unwrap();
    assert_eq!(bench.take_statement().statements[0].entries.len(), 4);
}

#[test]
fn lost_statement_is_missing_from_the_sequence() {
    let mut bench = bench(&[Fault::LoseStatement]);
    bench.round();
    bench.bank.end_of_day(NOW_MS).unwrap();
    assert!(bench.take().is_empty());
    bench.bank.behaviour = Behaviour::default();
    bench.bank.end_of_day(NOW_MS).unwrap();
    let file = bench.take_statement();
    assert_eq!(file.statements[0].sequence.as_deref(), Some("2"));
    assert_eq!(file.statements[0].opening.as_ref().unwrap().amount.to_string(), "764.93");
}

#[test]
fn collections_are_credited_and_taken_back() {
    let mut bench = Bench::new();
    bench.bank.behaviour.intraday = true;
    bench.bank.behaviour.returns.insert("NL91ABNA0417164300".parse().unwrap(), "MD06".to_owned());
    bench.collect(&collection_header(), &batches());
    let (run, reports, statements) = bench.round();
    assert_eq!((run.executed, run.rejected), (3, 0));
    assert_eq!(reports[0].original_name, "pain.008.001.08");
    assert!(all_are(&reports[0], &Status::Settled));
    let [notification, intraday] = statements.as_slice() else { unreachable!() };
    assert_eq!((notification.kind, intraday.kind), (StatementKind::Notification, StatementKind::Report));
    assert_eq!(notification.statements[0].entries, intraday.statements[0].entries);
    let entries = &notification.statements[0].entries;
    let codes: Vec<_> = entries.iter().map(|entry| entry.transaction_code.clone().unwrap()).collect();
    assert_eq!(codes, ["PMNT-IDDT-ESDD", "PMNT-IDDT-ESDD", "PMNT-IDDT-BBDD"]);
    assert!(entries.iter().all(|entry| entry.direction == Direction::Credit));
    assert_eq!(bench.bank.balance().to_string(), "25.51");

    let (run, _, statements) = bench.round();
    assert_eq!(run.returned, 3);
    let entry = &statements[0].statements[0].entries[0];
    let detail = entry.details().next().unwrap();
    assert_eq!((entry.direction, entry.transaction_code.as_deref()), (Direction::Debit, Some("PMNT-IDDT-UPDD")));
    assert_eq!((detail.return_reason.as_deref(), detail.end_to_end_id.as_deref()), (Some("MD06"), Some("D1")));
    assert_eq!(detail.debtor.name.as_deref(), Some("Ada Groesse"));
    assert_eq!(bench.bank.balance().to_string(), "0.00");
}

#[test]
fn collections_that_cannot_be_made_are_rejected() {
    let golden = include_str!("../../testdata/pain.008.xml");
    for (from, to, code) in [
        ("NL91ABNA0417164300", "NL92ABNA0417164300", "AC01"),
        ("DE98ZZZ09999999999", "DE99ZZZ09999999999", "BE17"),
        ("<Cd>CORE", "<Cd>COR1", "FF05"),
        ("DE89370400440532013000", "NL91ABNA0417164300", "AG01"),
    ] {
        let mut bench = Bench::new();
        fs::write(bench.spool.outbox().join("a.xml"), golden.replacen(from, to, 1)).unwrap();
        let (run, reports, _) = bench.round();
        assert!(run.rejected >= 1);
        assert_eq!(transactions(&reports[0])[0].reasons[0].code, code);
    }
}

/// Plays a fixed course of business against a bank; gives every file of the inbox.
fn play(behaviour: &Behaviour) -> Vec<(String, Vec<u8>)> {
    let mut bench = Bench::misbehaving(|_| (), behaviour.clone());
    bench.deposit("2000", Remittance::Reference(CreditorReference::from_id(&[1; 32])));
    bench.pay(&header(), &payments());
    bench.collect(&collection_header(), &batches());
    for round in 0..4 {
        bench.bank.run_once(NOW_MS + round).unwrap();
        if round == 2 {
            bench.bank.end_of_day(NOW_MS + round).unwrap();
        }
        // Its books are checked when they are loaded.
        bench.reopen();
    }
    assert_eq!(bench.bank.pending(), 0);
    let files = bench.spool.inbox_files().unwrap();
    files.iter().map(|file| (file.name().into_owned(), fs::read(file.path()).unwrap())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_combination_is_played_the_same_twice_and_ends_with_right_books(
        seed: u64,
        faults in prop::collection::vec(prop::sample::select(Fault::ALL.to_vec()), 0..8),
        percent in 1_u8..=100,
        batch in prop::sample::select(vec![StatusVersion::V10, StatusVersion::V03, StatusVersion::Mixed]),
    ) {
        let behaviour = Behaviour { seed, status_version: batch, intraday: true, ..behaviour(&[]) };
        let chance: Chance = format!("{percent}%").parse().unwrap();
        let behaviour = faults.iter().fold(behaviour, |behaviour, fault| behaviour.with(*fault, chance));
        let first = play(&behaviour);
        prop_assert_eq!(&first, &play(&behaviour));
        let whole = first.iter().filter(|(_, bytes)| read_message(bytes.as_slice()).is_ok()).count();
        prop_assert!(whole == first.len() || faults.contains(&Fault::Garble));
    }
}
