#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

use std::path::Path;

use tokio::sync::mpsc;
use weir_protocol::act::{Certificate, Policy, Register, Withdraw};
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

pub(super) fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes(&[seed; 32]).unwrap()
}

pub(super) fn account(seed: u8) -> AccountId {
    AccountId(key(seed).public())
}

mod windows;

pub(super) fn start(data: &Path) -> Handle {
    start_with(data, 0)
}

fn start_with(data: &Path, approvals: u32) -> Handle {
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
            payout_min: "0.01".parse().unwrap(),
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
