#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use std::path::Path;

use tokio::sync::mpsc;
use weir_protocol::act::{Certificate, Limits, Policy, Register, Withdraw};
use weir_protocol::amount::{Amount, Time};
use weir_protocol::channel::ChannelTerms;
use weir_protocol::commit::SignedCertificate;
use weir_protocol::id::{HubId, LaneId, Reference};
use weir_protocol::keys::{SecretKey, Signature};
use weir_protocol::payment::{Frame, Head, Run, next_state};

use super::*;
use crate::bank::{CreditorReference, IncomingTransfer, Remittance, SandboxBank, SandboxOptions};
use crate::clock::wall_ms;
use crate::engine::said::Said;
use crate::engine::shard::{Input, StreamId};
use crate::engine::state::{Depth, State};
use crate::pipeline::{ReplyTo, compact, recover};
use crate::report::evidence::{Archive, EvidenceFault, Finder, PayoutFacts};

pub(super) fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes(&[seed; 32]).unwrap()
}

pub(super) fn account(seed: u8) -> AccountId {
    AccountId(key(seed).public())
}

mod lying;
mod windows;

pub(super) fn start(data: &Path) -> Handle {
    start_with(data, 0, "0.01")
}

fn start_with(data: &Path, approvals: u32, payout_min: &str) -> Handle {
    let hub = HubId(key(1).public());
    let certificate = Certificate { key: key(2).public(), not_before: Time(0), not_after: Time::MAX };
    let signature = key(1).sign(&Act::Certificate(certificate).digest(&hub));
    recover::start(recover::Settings {
        data: data.to_owned(),
        anchor: Some(data.with_extension("anchor")),
        accept_rollback: None,
        shards: 2,
        segment_bytes: 1 << 20,
        policy: Policy {
            open_registration: true,
            refund_days: 90,
            payment_max: Amount::ZERO,
            payout_min: payout_min.parse().unwrap(),
            fee_basis_points: 100,
            fee_per_payment: Amount::ZERO,
            fee_minimum: Amount::ZERO,
            approvals,
            currencies: vec![Currency::EUR],
        },
        hub,
        key: key(2),
        certificate: SignedCertificate { certificate, signature },
        secret: [9; 32],
    })
    .unwrap()
}

pub(super) async fn act(handle: &Handle, act: Act, by: u8) -> Said {
    let shard = match &act {
        Act::Open(terms) => handle.shard_of(&terms.id().0),
        _ => handle.shard_of(account(by).as_bytes()),
    };
    let signed = Box::new(act.sign(&handle.hub(), &key(by)));
    handle.request(shard, |reply| Input::Act { signed, refund: None, reply }).await.unwrap()
}

async fn pay(handle: &Handle, terms: &ChannelTerms, lane_key: &SecretKey, amounts: &[&str], payee: AccountId) {
    let lane = LaneId(terms.lane_zero().id().0);
    let shard = handle.shard_of(&terms.id().0);
    let (queue, mut answers) = mpsc::unbounded_channel();
    let stream = StreamId(7);
    let reply = ReplyTo::new(0, queue);
    handle.send(shard, Input::Attach { lane, stream, void_through: 0, reply }).await.unwrap();
    let (_, Said::Attached { head, .. }) = answers.recv().await.unwrap() else { panic!("not attached") };
    let payments: Vec<_> = amounts
        .iter()
        .map(|amount| weir_protocol::payment::Payment {
            payee,
            amount: amount.parse().unwrap(),
            reference: Reference([5; 32]),
        })
        .collect();
    let run = Run::new(head.sequence + 1, &payments).unwrap();
    let mut next: Head = head;
    for (sequence, payment) in run.payments() {
        next.state = next_state(&next.state, sequence, &payment);
        next.sequence = sequence;
        next.total = next.total.checked_add(payment.amount).unwrap();
    }
    let signature: Signature = lane_key.sign(&next.digest(&lane));
    let frame = Frame { previous_sequence: head.sequence, run, valid_until: Time(0), signature };
    handle.send(shard, Input::Frame { lane, stream, frame }).await.unwrap();
    let (_, said) = answers.recv().await.unwrap();
    assert!(matches!(said, Said::Taken { .. }), "{said:?}");
    let weir_protocol::wire::LaneReply::Taken(answer) = said.lane_reply().unwrap() else { panic!("no answer") };
    answer.includes(&next.digest(&lane)).unwrap();
    answer.commit.check(&handle.hub(), &handle.certificate().certificate).unwrap();
}

pub(super) async fn register(handle: &Handle, by: u8, name: &str, iban: &str) {
    let register = Register { number: 1, account: account(by), name: name.into(), iban: iban.into() };
    assert!(matches!(act(handle, Act::Register(register), by).await, Said::Done { .. }));
}

async fn balance(handle: &Handle, id: AccountId) -> weir_protocol::wire::Balance {
    handle.read(move |view| view.books.info(&id)).await.unwrap().unwrap().balances[0]
}

pub(super) fn audit(handle: &Handle) -> State {
    let mut state = State::new(handle.hub());
    let journal = handle.journal();
    compact::replay(&mut state, Depth::Everything, |from, each| journal.scan(from, each), &mut |_| ()).unwrap();
    state
}

#[tokio::test(flavor = "multi_thread")]
async fn money_goes_from_a_bank_file_through_payments_to_a_bank_file_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (data, bank) = (dir.path().join("data"), dir.path().join("bank"));
    let handle = start(&data);
    let hub_iban: Iban = "DE89370400440532013000".parse().unwrap();
    let own = BankAccount { name: "Weir".into(), iban: hub_iban, bic: None };
    let settlement = Settlement::open(handle.clone(), &bank, own.clone()).unwrap();
    let mut sandbox = SandboxBank::open(SandboxOptions {
        dir: dir.path().join("sandbox"),
        outbox: settlement.spool().outbox().to_owned(),
        inbox: settlement.spool().inbox().to_owned(),
        name: "Weir".into(),
        iban: hub_iban,
        currency: crate::bank::Currency::EUR,
        rejects: std::collections::BTreeMap::default(),
        batch_booking: false,
    })
    .unwrap();
    register(&handle, 3, "Payer", "DE02120300000000202051").await;
    register(&handle, 4, "Payee", "DE02500105170137075030").await;
    sandbox
        .receive_transfer(
            &IncomingTransfer {
                amount: "10".parse().unwrap(),
                debtor_name: "Payer".into(),
                debtor_iban: "DE02120300000000202051".parse().unwrap(),
                remittance: Remittance::Reference(CreditorReference::from_id(account(3).as_bytes())),
            },
            wall_ms(),
        )
        .unwrap();
    let report = settlement.poll().await.unwrap();
    assert_eq!((report.files, report.deposits, report.suspense), (1, 1, 0));
    assert_eq!(balance(&handle, account(3)).await.available, "10".parse().unwrap());

    let channel_key = key(30);
    let terms = ChannelTerms {
        hub: handle.hub(),
        account: account(3),
        scheme: 0,
        key: channel_key.public(),
        currency: Currency::EUR,
        capacity: "5".parse().unwrap(),
        opened_at: Time(wall_ms()),
        expires_at: Time(wall_ms() + 3_600_000),
        renew: true,
        salt: [1; 32],
    };
    assert!(matches!(act(&handle, Act::Open(terms), 3).await, Said::Done { .. }));
    assert!(matches!(act(&handle, Act::Open(terms), 3).await, Said::Again(_)), "the same open gets the same answer");
    pay(&handle, &terms, &channel_key, &["1.5", "0.000000001", "0.25"], account(4)).await;
    let withdraw = Withdraw { number: 2, account: account(3), currency: Currency::EUR, marked: "2".parse().unwrap() };
    assert!(matches!(act(&handle, Act::Withdraw(withdraw), 3).await, Said::Done { .. }));

    let preview = settlement.preview().await.unwrap();
    assert_eq!(preview.payouts.len(), 2);
    let run = settlement.run().await.unwrap();
    assert_eq!(run.state, Some(WindowState::Instructed));
    let amounts: Vec<String> = run.payouts.iter().map(|payout| payout.amount.to_string()).collect();
    assert_eq!(amounts, preview.payouts.iter().map(|payout| payout.amount.to_string()).collect::<Vec<_>>());
    assert!(amounts.contains(&"2".to_owned()) && amounts.contains(&"1.73".to_owned()), "{amounts:?}");
    assert_eq!(balance(&handle, account(4)).await.in_transit, "1.73".parse().unwrap());

    let bank_report = sandbox.run_once(wall_ms()).unwrap();
    assert_eq!(bank_report.executed, 2);
    settlement.poll().await.unwrap();
    sandbox.end_of_day(wall_ms()).unwrap();
    let again = settlement.poll().await.unwrap();
    assert_eq!((again.settled, again.deposits), (0, 0), "the statement repeats what was posted: {again:?}");
    assert_eq!(settlement.report(run.window).await.unwrap().state, Some(WindowState::Settled));
    let payee = balance(&handle, account(4)).await;
    assert_eq!(payee.in_transit, Amount::ZERO);
    assert_eq!(payee.payable, "0.002500001".parse().unwrap());

    let before = audit(&handle);
    handle.stop();
    drop(settlement);
    drop(handle);
    let handle = start(&data);
    assert_eq!(balance(&handle, account(4)).await, payee);
    pay(&handle, &terms, &channel_key, &["0.5"], account(4)).await;
    compact::compact(handle.hub(), handle.journal(), handle.snapshots()).unwrap().unwrap();
    let after = audit(&handle);
    assert!(after.last().unwrap().number > before.last().unwrap().number);
    handle.stop();
    drop(handle);
    let handle = start(&data);
    pay(&handle, &terms, &channel_key, &["0.5"], account(4)).await;
    audit(&handle);
    handle.stop();
}

/// A hub with a payer and a payee, a settlement, and the bank.
fn bench(dir: &Path) -> (Handle, Settlement, SandboxBank) {
    let handle = start(&dir.join("data"));
    let iban: Iban = "DE89370400440532013000".parse().unwrap();
    let own = BankAccount { name: "Weir".into(), iban, bic: None };
    let settlement = Settlement::open(handle.clone(), &dir.join("bank"), own).unwrap();
    let sandbox = SandboxBank::open(SandboxOptions {
        dir: dir.join("sandbox"),
        outbox: settlement.spool().outbox().to_owned(),
        inbox: settlement.spool().inbox().to_owned(),
        name: "Weir".into(),
        iban,
        currency: crate::bank::Currency::EUR,
        rejects: std::collections::BTreeMap::default(),
        batch_booking: false,
    })
    .unwrap();
    (handle, settlement, sandbox)
}

fn transfer(sandbox: &mut SandboxBank, amount: &str, to: u8) {
    let transfer = IncomingTransfer {
        amount: amount.parse().unwrap(),
        debtor_name: "Payer".into(),
        debtor_iban: "DE02120300000000202051".parse().unwrap(),
        remittance: Remittance::Reference(CreditorReference::from_id(account(to).as_bytes())),
    };
    sandbox.receive_transfer(&transfer, wall_ms()).unwrap();
}

fn limits(of: Option<u8>, payment_max: &str, balance_max: &str, day_max: &str) -> Limits {
    Limits {
        account: of.map(account),
        payment_max: payment_max.parse().unwrap(),
        balance_max: balance_max.parse().unwrap(),
        day_max: day_max.parse().unwrap(),
        iban_wait_s: if of.is_some() { 0 } else { crate::engine::limits::IBAN_WAIT_S },
    }
}

fn terms(handle: &Handle, by: u8, capacity: &str, salt: u8) -> ChannelTerms {
    ChannelTerms {
        hub: handle.hub(),
        account: account(by),
        scheme: 0,
        key: key(30).public(),
        currency: Currency::EUR,
        capacity: capacity.parse().unwrap(),
        opened_at: Time(wall_ms()),
        expires_at: Time(wall_ms() + 3_600_000),
        renew: true,
        salt: [salt; 32],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_bound_deposits_openings_and_payments_and_the_journal_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, settlement, mut sandbox) = bench(dir.path());
    register(&handle, 3, "Payer", "DE02120300000000202051").await;
    register(&handle, 4, "Payee", "DE02500105170137075030").await;
    handle.order(Act::Limits(limits(None, "0", "10", "6"))).await.unwrap();
    let foreign = handle.order(Act::Limits(limits(Some(9), "1", "0", "0"))).await;
    assert_eq!(foreign.map(|_| ()), Err(Reject::UnknownAccount));
    let malformed = handle.order(Act::Limits(limits(None, "1", "0", "0"))).await;
    assert_eq!(malformed.map(|_| ()), Err(Reject::Malformed));

    // Ten fit, a cent more is there and waits for the operator.
    transfer(&mut sandbox, "10.00", 3);
    transfer(&mut sandbox, "0.01", 3);
    let report = settlement.poll().await.unwrap();
    assert_eq!((report.deposits, report.suspense, report.rejected), (1, 1, 0), "{report:?}");
    assert_eq!(balance(&handle, account(3)).await.available, "10".parse().unwrap());

    let opened = |capacity: &'static str, salt| act(&handle, Act::Open(terms(&handle, 3, capacity, salt)), 3);
    assert!(matches!(opened("6.000000001", 1).await, Said::Refused(Reject::TooLarge)));
    let first = terms(&handle, 3, "4", 2);
    assert!(matches!(act(&handle, Act::Open(first), 3).await, Said::Done { .. }));
    assert!(matches!(opened("2.000000001", 3).await, Said::Refused(Reject::TooLarge)));
    handle.order(Act::Limits(limits(Some(3), "1", "0", "18446744073.709551615"))).await.unwrap();
    assert!(matches!(opened("2.000000001", 4).await, Said::Done { .. }), "its own bound lifts everybody's");

    pay(&handle, &first, &key(30), &["1"], account(4)).await;
    let lane = LaneId(first.lane_zero().id().0);
    let (queue, mut answers) = mpsc::unbounded_channel();
    let shard = handle.shard_of(&first.id().0);
    let (stream, reply) = (StreamId(8), ReplyTo::new(0, queue));
    handle.send(shard, Input::Attach { lane, stream, void_through: 0, reply }).await.unwrap();
    let (_, Said::Attached { head, .. }) = answers.recv().await.unwrap() else { panic!("not attached") };
    let amount = "1.000000001".parse().unwrap();
    let payment = weir_protocol::payment::Payment { payee: account(4), amount, reference: Reference([6; 32]) };
    let run = Run::new(head.sequence + 1, &[payment]).unwrap();
    let next = Head {
        state: next_state(&head.state, head.sequence + 1, &payment),
        sequence: head.sequence + 1,
        total: head.total.checked_add(amount).unwrap(),
        valid_until: Time(0),
    };
    let signature = key(30).sign(&next.digest(&lane));
    let frame = Frame { previous_sequence: head.sequence, run, valid_until: Time(0), signature };
    handle.send(shard, Input::Frame { lane, stream, frame }).await.unwrap();
    let (_, said) = answers.recv().await.unwrap();
    assert!(!matches!(said, Said::Taken { .. }), "{said:?}");
    assert!(format!("{said:?}").contains("TooLarge"), "{said:?}");
    audit(&handle);
    handle.stop();
}

/// The bank account in the evidence of account 3's payout with a window.
async fn proven_iban(handle: &Handle, window: u64) -> String {
    let facts = handle.read(move |view| PayoutFacts::of(view.books.windows(), window, Currency::EUR)).await.unwrap();
    let newest = audit(handle).last().unwrap().number;
    let mut ids = Vec::new();
    let see = &mut |entry: crate::store::Entry| {
        ids.push(Hash(entry.position.id));
        std::ops::ControlFlow::Continue(())
    };
    handle.journal().scan(1, see).unwrap();
    let history = |index: u64, count: u64| {
        let path = weir_protocol::merkle::history_path(&ids[..count as usize], index as usize);
        path.ok_or(EvidenceFault::Unknown("commit"))
    };
    let archive = Archive {
        hub: handle.hub(),
        journal: handle.journal(),
        finder: Finder::Scan,
        history: &history,
        certificates: &[handle.certificate()],
        newest,
    };
    let evidence = serde_json::to_value(archive.payout(&facts.unwrap(), account(3)).unwrap()).unwrap();
    evidence["proof"]["payout"]["registration"]["act"]["register"]["iban"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_bank_account_is_paid_only_after_its_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, settlement, mut sandbox) = bench(dir.path());
    let (old, new) = ("DE02120300000000202051", "DE02500105170137075030");
    register(&handle, 3, "Owner", old).await;
    transfer(&mut sandbox, "10", 3);
    settlement.poll().await.unwrap();
    let change = |number| Register { number, account: account(3), name: "Owner".into(), iban: new.into() };
    let mark = |number, marked: &str| {
        let marked = marked.parse().unwrap();
        Act::Withdraw(Withdraw { number, account: account(3), currency: Currency::EUR, marked })
    };
    assert!(matches!(act(&handle, Act::Register(change(2)), 3).await, Said::Done { .. }));
    let waiting = handle.read(|view| view.books.waiting_iban(&account(3)).cloned()).await.unwrap().unwrap();
    assert_eq!(waiting.iban, new);
    assert!(waiting.from.0 > wall_ms() + 200_000_000);
    assert!(matches!(act(&handle, mark(3, "3"), 3).await, Said::Done { .. }));
    settlement.run().await.unwrap();
    sandbox.run_once(wall_ms()).unwrap();
    settlement.poll().await.unwrap();
    let received = |sandbox: &SandboxBank, iban: &str| -> String {
        sandbox.received().get(&iban.parse().unwrap()).map_or("0".into(), |received| received.amount.to_string())
    };
    assert_eq!((received(&sandbox, old), received(&sandbox, new)), ("3".into(), "0".into()));
    assert_eq!(proven_iban(&handle, 1).await, old, "not the newest one, which still waits");

    // Without a wait a change counts at once.
    handle.order(Act::Limits(Limits { iban_wait_s: 0, ..limits(None, "0", "0", "0") })).await.unwrap();
    assert!(matches!(act(&handle, Act::Register(change(4)), 3).await, Said::Done { .. }));
    assert!(matches!(act(&handle, mark(5, "2"), 3).await, Said::Done { .. }));
    let ibans = |report: &RunReport| (report.payouts[0].iban.clone(), report.payouts[0].iban_before.clone());
    let shown = settlement.preview().await.unwrap();
    assert_eq!(ibans(&shown), (Some(new.to_owned()), Some(old.to_owned())), "whoever approves looks twice");
    assert_eq!(ibans(&settlement.run().await.unwrap()), (None, None), "the bank was told");
    sandbox.run_once(wall_ms()).unwrap();
    assert_eq!((received(&sandbox, old), received(&sandbox, new)), ("3".into(), "2".into()));
    assert!(matches!(act(&handle, mark(6, "1"), 3).await, Said::Done { .. }));
    assert_eq!(ibans(&settlement.preview().await.unwrap()), (Some(new.to_owned()), None), "it was paid there before");
    assert_eq!((proven_iban(&handle, 1).await.as_str(), proven_iban(&handle, 2).await.as_str()), (old, new));
    audit(&handle);
    handle.stop();
}
