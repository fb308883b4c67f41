//! Payers and payees with homes of their own, who have nothing but `weir-client` over real QUIC.

use std::time::{Duration, Instant};

use weir_client::{Client, Home, LaneRecord, Opening, PlainKeys};
use weir_hub::clock::wall_ms;
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::id::HubAddress;

use super::bank::{self, PERSON_IBAN};
use super::place::Place;

/// Longest wait for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(60);
const DAY_MS: u64 = 86_400_000;

/// Makes a home, registers, and leaves the client running.
pub async fn registered(place: &Place, name: &str, hub: &HubAddress) -> Client {
    let home = Home::create(place.path(name), hub, PlainKeys::sealer()).unwrap();
    let client = Client::start(home).unwrap();
    client.register(name, PERSON_IBAN).await.unwrap();
    client
}

/// Money comes in through the bank's file and is available.
pub async fn funded(place: &Place, client: &Client, amount: Amount) {
    let instructions = client.deposit_instructions(Currency::EUR).await.unwrap();
    bank::transfer(place, &instructions.reference, amount);
    let end = Instant::now() + PATIENCE;
    loop {
        let info = client.account_info().await.unwrap();
        if info.balances.iter().any(|balance| balance.available >= amount) {
            return;
        }
        assert!(Instant::now() < end, "the deposit did not arrive: {}", place.said());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Opens a channel for a month; its lane 0.
pub async fn opened(client: &Client, capacity: Amount) -> LaneRecord {
    let expires_at = Time(wall_ms() + 30 * DAY_MS);
    let opening = Opening { currency: Currency::EUR, capacity, expires_at, renew: false };
    client.open(opening).await.unwrap().lane
}

/// A registered payer with a channel of so many euros; its client and lane 0.
pub async fn payer(place: &Place, name: &str, hub: &HubAddress, euros: u64) -> (Client, LaneRecord) {
    let client = registered(place, name, hub).await;
    let amount = euro(euros);
    funded(place, &client, amount).await;
    let lane = opened(&client, amount).await;
    (client, lane)
}

/// Whole euros.
pub fn euro(euros: u64) -> Amount {
    Amount::from_nanos(euros * 1_000_000_000)
}
