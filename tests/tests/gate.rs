//! A real gate under many at once: each is served, each is charged exactly once. There is no hub.

use weir_client::gate::balance::PageEnd;
use weir_client::gate::config::GateConfig;
use weir_client::gate::service::{self, Running};
use weir_protocol::amount::Amount;
use weir_protocol::http::PaymentReceipt;
use weir_tests::harness::shop::{ANSWER, Connection, PaperHub, showing, upstream};

/// What a public specification's fan-out failed at.
const MANY: usize = 2064;
const PRICE: u64 = 10_000;

/// Both ends of each connection, and the upstream's, are in this process.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let enough = limit.maximum.map_or(65_536, |most| most.min(65_536));
    setrlimit(Resource::Nofile, Rlimit { current: Some(enough), maximum: limit.maximum }).unwrap();
}

async fn gate(hub: &PaperHub, folder: &std::path::Path) -> (Running, String) {
    let upstream = upstream().await.unwrap();
    hub.configuration(folder, &upstream, "0.00001").unwrap();
    let config = GateConfig::load(&folder.join("gate.toml")).unwrap();
    let running = service::start(&config).await.unwrap();
    let address = running.address().to_string();
    (running, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_from_one_balance_are_all_served_and_drawn_exactly() {
    allow_many_files();
    let (hub, folder) = (PaperHub::default(), tempfile::tempdir().unwrap());
    let (running, address) = gate(&hub, folder.path()).await;
    let challenge = Connection::to(&address).await.unwrap().demand("/paid/first").await.unwrap();
    // Exactly enough for all of them.
    let amount = Amount::from_nanos(PRICE * MANY as u64);
    let credential = hub.pay(&challenge, amount);
    let line = showing(&credential);
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..MANY {
        let (address, line) = (address.clone(), line.clone());
        tasks.spawn(async move {
            let mut connection = Connection::to(&address).await?;
            connection.get(&format!("/paid/{at}"), &line).await
        });
    }
    let mut lefts = Vec::new();
    while let Some(answer) = tasks.join_next().await {
        let answer = answer.unwrap().unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, ANSWER));
        let receipt = PaymentReceipt::from_header(answer.header("payment-receipt").unwrap()).unwrap();
        assert_eq!(receipt.drawn, Amount::from_nanos(PRICE));
        lefts.push(receipt.left.nanos());
    }
    assert_eq!(lefts.len(), MANY);
    let balance = running.gate().desk().balances().list(PageEnd::default(), 10);
    assert_eq!(balance.len(), 1);
    assert_eq!((balance[0].drawn, balance[0].left), (amount, Amount::ZERO));
    // One more is not served, and nobody is asked to pay for what was served.
    let more = Connection::to(&address).await.unwrap().get("/paid/more", &line).await.unwrap();
    assert_eq!(more.status, 402);
    assert!(more.body.contains("payment-expired") || more.body.contains("payment-insufficient"), "{}", more.body);
    running.stop().await;
    // What was drawn is there after a restart.
    let config = GateConfig::load(&folder.path().join("gate.toml")).unwrap();
    let again = service::start(&config).await.unwrap();
    let balance = again.gate().desk().balances().list(PageEnd::default(), 10);
    assert!(balance.iter().all(|balance| balance.drawn == amount), "{balance:?}");
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_with_a_payment_each_are_all_served_once() {
    allow_many_files();
    let (hub, folder) = (PaperHub::default(), tempfile::tempdir().unwrap());
    let (running, address) = gate(&hub, folder.path()).await;
    let mut tasks = tokio::task::JoinSet::new();
    let hub = std::sync::Arc::new(hub);
    for at in 0..MANY {
        let (address, hub) = (address.clone(), std::sync::Arc::clone(&hub));
        tasks.spawn(async move {
            let mut connection = Connection::to(&address).await?;
            let path = format!("/paid/{at}");
            let challenge = connection.demand(&path).await?;
            let line = showing(&hub.pay(&challenge, Amount::from_nanos(PRICE)));
            // The same twice at once: one is charged, both are served.
            let mut other = Connection::to(&address).await?;
            let (one, two) = tokio::join!(connection.get(&path, &line), other.get(&path, &line));
            anyhow::Ok((one?.status, two?.status))
        });
    }
    while let Some(statuses) = tasks.join_next().await {
        assert_eq!(statuses.unwrap().unwrap(), (200, 200));
    }
    let totals = running.gate().desk().balances().totals();
    assert_eq!(totals.len(), 1);
    let nanos = u128::from(PRICE) * MANY as u128;
    assert_eq!((totals[0].1.drawn_nanos, totals[0].1.paid_nanos), (nanos, nanos), "{totals:?}");
    running.stop().await;
}
