//! The people of `dev`: payers and payees with homes of their own, who have nothing but `weir-client` over real QUIC.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::sync::watch;
use weir_client::protocol::amount::{Amount, Currency, Time};
use weir_client::protocol::channel::LaneMode;
use weir_client::protocol::id::{AccountId, HubAddress, Reference};
use weir_client::{
    BatchOutcome, Client, CreditEvent, Credited, Credits, Grant, Home, LaneRecord, Opened, Opening, Order, PlainKeys,
};

use super::bank::{DevBank, nobodys_iban};
use super::random::Random;
use crate::bank::{IncomingTransfer, Remittance};

/// Longest wait for something that must come.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Somebody with a home.
#[derive(Debug, Clone)]
pub(super) struct Person {
    pub(super) name: &'static str,
    pub(super) home: PathBuf,
    pub(super) iban: String,
    pub(super) client: Client,
}

/// Somebody who has left the home to others.
#[derive(Debug, Clone)]
pub(super) struct Left {
    pub(super) name: &'static str,
    pub(super) home: PathBuf,
    pub(super) account: AccountId,
}

impl Left {
    /// The name of the home's folder.
    pub(super) fn folder(&self) -> String {
        self.home.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

impl Person {
    /// Makes a home and registers.
    pub(super) async fn register(
        homes: &Path,
        folder: &'static str,
        name: &'static str,
        number: u64,
        hub: &HubAddress,
    ) -> anyhow::Result<Self> {
        let home = homes.join(folder);
        let client = Client::start(Home::create(&home, hub, PlainKeys::sealer())?)?;
        let iban = nobodys_iban(number);
        client.register(name, &iban).await.with_context(|| format!("{name} cannot register"))?;
        Ok(Self { name, home, iban, client })
    }

    /// What remains when the client is gone.
    pub(super) fn left(&self) -> Left {
        Left { name: self.name, home: self.home.clone(), account: self.account() }
    }

    pub(super) fn account(&self) -> AccountId {
        self.client.account()
    }

    /// Orders a bank transfer to the hub, as the hub's deposit instructions say.
    pub(super) async fn transfer(&self, bank: &DevBank, amount: Amount) -> anyhow::Result<()> {
        let instructions = self.client.deposit_instructions(Currency::EUR).await?;
        bank.transfer(IncomingTransfer {
            amount: amount.to_decimal(),
            debtor_name: self.name.to_owned(),
            debtor_iban: self.iban.parse()?,
            remittance: Remittance::Reference(instructions.reference.parse()?),
        })
        .await
    }

    /// Waits until so much is available.
    pub(super) async fn wait_for(&self, amount: Amount) -> anyhow::Result<()> {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let info = self.client.account_info().await?;
            if info.balances.iter().any(|balance| balance.available >= amount) {
                return Ok(());
            }
            if tokio::time::Instant::now() > end {
                bail!("{}: the deposit of {amount} EUR did not arrive", self.name);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Opens a channel that may roll.
    pub(super) async fn open(&self, capacity: Amount, now: Time) -> anyhow::Result<Opened> {
        let opening = Opening { currency: Currency::EUR, capacity, expires_at: now.plus_ms(30 * DAY_MS), renew: true };
        Ok(self.client.open(opening).await?)
    }

    /// Grants a lane of a channel.
    pub(super) async fn grant(
        &self,
        opened: &Opened,
        mode: LaneMode,
        payee: Option<AccountId>,
        limit: Amount,
        period: u32,
    ) -> anyhow::Result<LaneRecord> {
        let grant = Grant { mode, payee, limit, period, expires_at: opened.channel.terms.expires_at, key: None };
        Ok(self.client.grant(opened.channel.terms.id(), grant).await?)
    }
}

/// A stretch of payments on one lane.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) payer: Person,
    pub(super) lane: LaneRecord,
    pub(super) payees: Vec<AccountId>,
    pub(super) count: u64,
    pub(super) random: Random,
}

/// What a stretch came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Paid {
    pub(super) payments: u64,
    pub(super) nanos: u64,
}

impl Job {
    /// Pays everything, through the library's stream for high rates; `each` hears how many were answered.
    pub(super) async fn run(mut self, each: impl Fn(u64)) -> anyhow::Result<Paid> {
        let lane = self.payer.client.lane(self.lane.id())?;
        let (sink, mut outcomes) = lane.pay_many();
        let orders: Vec<(u64, Order)> = (0..self.count).map(|tag| (tag, self.order())).collect();
        let amounts: Vec<u64> = orders.iter().map(|(_, order)| order.amount.nanos()).collect();
        let sending = tokio::spawn(async move { sink.send_all(orders).await });
        let mut paid = Paid::default();
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                BatchOutcome::Paid { payments, .. } => {
                    paid.payments += payments.len() as u64;
                    for (_, tag) in &payments {
                        let nanos = usize::try_from(*tag).ok().and_then(|tag| amounts.get(tag));
                        paid.nanos += nanos.copied().unwrap_or_default();
                    }
                    each(payments.len() as u64);
                }
                BatchOutcome::Refused { refused, .. } => bail!("a payment was refused: {}", refused.reject),
                BatchOutcome::Unknown { .. } => bail!("the outcome of a payment is unknown"),
                BatchOutcome::Failed { error, .. } => return Err(error.into()),
            }
            if paid.payments == self.count {
                break;
            }
        }
        sending.await??;
        Ok(paid)
    }

    /// From a nano to about a cent, to one of the payees.
    fn order(&mut self) -> Order {
        let place = self.random.between(0, self.payees.len() as u64);
        let payee = usize::try_from(place).ok().and_then(|place| self.payees.get(place)).copied();
        Order {
            payee: payee.unwrap_or(AccountId::ZERO),
            amount: Amount::from_nanos(self.random.between(1, 2_000_000)),
            reference: Reference(self.random.bytes()),
            deadline: None,
        }
    }
}

/// A payee who listens: counts and sums what is credited, and keeps the first payment for a refund.
#[derive(Debug, Default, Clone)]
pub(super) struct Heard {
    pub(super) payments: u64,
    pub(super) nanos: u64,
    pub(super) first: Option<Credited>,
}

/// Listens until `total`, which all payees count up together, has reached `wanted`.
pub(super) async fn listen(mut credits: Credits, total: watch::Sender<u64>, wanted: u64) -> anyhow::Result<Heard> {
    let mut heard = Heard::default();
    let mut seen = total.subscribe();
    while *seen.borrow_and_update() < wanted {
        let event = tokio::select! {
            event = credits.next() => event?,
            _ = seen.changed() => continue,
            () = tokio::time::sleep(PATIENCE) => bail!("credits did not come"),
        };
        if let CreditEvent::Credited(group) = event {
            let mut count = 0;
            for credit in group.payments() {
                count += 1;
                heard.nanos += credit.amount.nanos();
                heard.first.get_or_insert(credit);
            }
            heard.payments += count;
            total.send_modify(|total| *total += count);
        }
    }
    Ok(heard)
}
