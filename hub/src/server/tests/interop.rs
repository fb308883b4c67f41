//! The real client against the real server.

use std::collections::BTreeSet;

use tempfile::TempDir;
use weir_client::{BatchOutcome, Client, CreditEvent, Home, Opening, Order, PlainKeys};
use weir_protocol::amount::{Amount, Time};
use weir_protocol::id::{HubAddress, Reference};
use weir_protocol::wire::{Cursor, StatementItem};

use super::client::{Hub, eur, units};
use crate::clock::wall_ms;

const IBAN: &str = "DE89370400440532013000";

async fn client(hub: &Hub, directory: &TempDir, name: &str) -> Client {
    let place = hub.server.local_addr();
    let address = HubAddress { hub: hub.id, host: place.ip().to_string(), port: place.port() };
    let home = Home::create(directory.path().join(name), &address, PlainKeys::sealer()).unwrap();
    let client = Client::start(home).unwrap();
    client.register(name, IBAN).await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_pays_thousands_and_payee_sees_each_once_in_credits_and_statement() {
    const COUNT: u64 = 5_000;
    let hub = Hub::start();
    let directory = TempDir::new().unwrap();
    let payer = client(&hub, &directory, "payer").await;
    let payee = client(&hub, &directory, "payee").await;
    hub.deposit(payer.account(), units(100)).await;
    let expires_at = Time(wall_ms()).plus_ms(86_400_000);
    let opening = Opening { currency: eur(), capacity: units(50), expires_at, renew: false };
    let opened = payer.open(opening).await.unwrap();
    let lane = payer.lane(opened.lane.id()).unwrap();

    let (sink, mut outcomes) = lane.pay_many();
    let to = payee.account();
    let orders = tokio::spawn(async move {
        let order = |number: u64| {
            let mut reference = Reference::ZERO;
            reference.0[..8].copy_from_slice(&number.to_le_bytes());
            (number, Order { payee: to, amount: Amount::from_nanos(1_000 + number), reference, deadline: None })
        };
        sink.send_all((0..COUNT).map(order).collect()).await.unwrap();
    });
    let mut paid = 0;
    while let Some(outcome) = outcomes.next().await {
        assert!(matches!(outcome, BatchOutcome::Paid { .. }), "{outcome:?}");
        paid += outcome.count() as u64;
    }
    orders.await.unwrap();
    assert_eq!(paid, COUNT);

    let mut credits = payee.credits_after(Cursor::default());
    let mut seen = BTreeSet::new();
    let mut place = None;
    while (seen.len() as u64) < COUNT {
        if let CreditEvent::Credited(group) = credits.next().await.unwrap() {
            for credited in group.payments() {
                assert!(seen.insert(credited.payment_id));
            }
            place = Some(group);
        }
    }
    let group = place.unwrap();
    let credited = group.payments().next().unwrap();

    let mut earned = BTreeSet::new();
    let mut after = Cursor::default();
    loop {
        let (entries, through) = payee.statement(after).await.unwrap();
        for entry in &entries {
            if let StatementItem::Earned { payment_id, .. } = entry.what {
                assert!(earned.insert(payment_id));
            }
        }
        if through == after {
            break;
        }
        after = through;
    }
    assert_eq!(earned, seen);

    let commit = group.commit.commit;
    payee.refund(credited.place, credited.amount).await.unwrap();
    payer.commit(commit.number).await.unwrap();
    payer.close(opened.lane.grant.channel).await.unwrap();
    let info = payer.account_info().await.unwrap();
    let spent = (0..COUNT).map(|number| 1_000 + number).sum::<u64>();
    let expected = 100 * super::client::UNIT - spent + credited.amount.nanos();
    assert_eq!(info.balances.first().unwrap().available.nanos(), expected);
}
