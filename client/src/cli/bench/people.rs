//! Who pays and who is paid: homes, accounts, channels and lanes, made through `weir-client` alone.
//!
//! With a hub of its own, every connection is an account with money from the sandbox bank. At the home's hub, the home
//! opens the channels and grants their lanes to homes of connections that have no account; payees are accounts that stay
//! in the home, so that nothing that they earn is lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, block_in_place};
use weir_client::protocol::act::{Act, Register};
use weir_client::protocol::amount::{Amount, Currency, Time};
use weir_client::protocol::channel::LaneMode;
use weir_client::protocol::id::{AccountId, ChannelId, HubAddress, LaneId};
use weir_client::protocol::keys::{PublicKey, SecretKey};
use weir_client::protocol::reject::Reject;
use weir_client::protocol::wire::Request;
use weir_client::{Client, Error, Grant, Home, Lane, LaneRecord, Opening, PlainKeys};

use super::super::context::now;
use super::super::failure::Failure;
use super::super::money::{SandboxOrder, orders_folder, place, with_minor_digits};
use super::echo::share;
use super::options::Plan;

/// The example account of the IBAN registry: nothing is paid out.
const IBAN: &str = "DE89370400440532013000";
/// People at work at one time: each waits for commits most of the time.
const AT_ONCE: usize = 16;
/// Channels live so long.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Longest wait for money from the sandbox bank.
const DEPOSIT_PATIENCE: Duration = Duration::from_secs(120);
/// Longest wait for a hub that is busy with registrations.
const BUSY_PATIENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(20);
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// Everybody.
#[derive(Debug)]
pub(super) struct People {
    /// Who pays, a connection each.
    pub(super) payers: Vec<Payer>,
    pub(super) payees: Arc<[AccountId]>,
    /// The payee who subscribes.
    pub(super) subscriber: Option<Client>,
}

/// One connection and the lanes that it pays with.
#[derive(Debug)]
pub(super) struct Payer {
    pub(super) client: Client,
    pub(super) lanes: Vec<LaneId>,
}

/// A name and a bank account.
#[derive(Debug, Clone)]
struct Identity {
    name: String,
    iban: String,
}

impl People {
    /// All lanes, attached, in the order of their channels.
    pub(super) async fn lanes(&self, plan: &Plan) -> Result<Vec<Lane>, Failure> {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut attaching = JoinSet::new();
        for (place, (payer, id)) in
            self.payers.iter().flat_map(|payer| payer.lanes.iter().map(move |id| (payer, id))).enumerate()
        {
            let lane = payer.client.lane_with(*id, plan.lane_options())?;
            let turns = Arc::clone(&turns);
            attaching.spawn(async move {
                let _turn = turns.acquire().await?;
                let status = lane.attach().await?;
                anyhow::ensure!(status.open, "a lane does not open: {:?}", status.stopped);
                anyhow::Ok((place, lane))
            });
        }
        let mut lanes = joined(attaching).await?;
        lanes.sort_by_key(|(place, _)| *place);
        Ok(lanes.into_iter().map(|(_, lane)| lane).collect())
    }

    /// Ends every connection.
    pub(super) async fn leave(&self) {
        let mut leaving = JoinSet::new();
        for client in self.payers.iter().map(|payer| &payer.client).chain(&self.subscriber) {
            let client = client.clone();
            leaving.spawn(async move { client.shut_down().await });
        }
        // A client that panicked has nothing left to say.
        while leaving.join_next().await.is_some() {}
    }
}

/// At a hub of the bench's own.
pub(super) async fn found(
    plan: &Plan,
    hub: &HubAddress,
    homes: &Path,
    sandbox: &Path,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<People, Failure> {
    progress("accounts are registered");
    let identity =
        |what: &str, number: usize| Identity { name: format!("Bench {what} {number}"), iban: IBAN.to_owned() };
    let (payees, subscriber) = strangers(plan, hub, &homes.join("payee"), &identity("payee", 1)).await?;
    progress("money is sent and channels are opened");
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut founding = JoinSet::new();
    for index in 0..plan.connections {
        let (turns, plan, hub) = (Arc::clone(&turns), plan.clone(), hub.clone());
        let home = homes.join(format!("payer-{:04}", index + 1));
        let (sandbox, identity) = (sandbox.to_owned(), identity("payer", index + 1));
        founding.spawn(async move {
            let _turn = turns.acquire().await?;
            let payer = settle(&plan, share(plan.channels, plan.connections, index), &home, &hub, &sandbox, &identity);
            // A home syncs many small files: on a thread that may block, so that the disk takes those of several together.
            let payer = block_in_place(|| Handle::current().block_on(payer))?;
            anyhow::Ok((index, payer))
        });
    }
    let mut payers = joined(founding).await?;
    payers.sort_by_key(|(index, _)| *index);
    let payers = payers.into_iter().map(|(_, payer)| payer).collect();
    Ok(People { payers, payees, subscriber })
}

/// Makes an account with money, channels and lanes.
async fn settle(
    plan: &Plan,
    channels: usize,
    home: &Path,
    hub: &HubAddress,
    sandbox: &Path,
    identity: &Identity,
) -> anyhow::Result<Payer> {
    let client = Client::start(Home::create(home, hub, PlainKeys::sealer())?)?;
    client.register(&identity.name, &identity.iban).await?;
    fund(&client, sandbox, times(plan.capacity, channels)?, identity).await?;
    let mut lanes = Vec::new();
    for _ in 0..channels {
        let opened = client.open(opening(plan.capacity)).await?;
        lanes.push(opened.lane.id());
        for _ in 1..plan.lanes {
            lanes.push(client.grant(opened.channel.terms.id(), grant(plan.capacity, None)).await?.id());
        }
    }
    Ok(Payer { client, lanes })
}

/// Registers accounts that are paid at a hub that does not outlive them. The first one's home may listen; nobody needs the
/// keys of the others.
async fn strangers(
    plan: &Plan,
    hub: &HubAddress,
    home: &Path,
    identity: &Identity,
) -> Result<(Arc<[AccountId]>, Option<Client>), Failure> {
    let first = Client::start(Home::create(home, hub, PlainKeys::sealer())?)?;
    first.register(&identity.name, &identity.iban).await?;
    let connection = first.connect().await?;
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut registering = JoinSet::new();
    for _ in 1..plan.payees {
        let (turns, connection, hub) = (Arc::clone(&turns), Arc::clone(&connection), hub.hub);
        let identity = identity.clone();
        registering.spawn(async move {
            let _turn = turns.acquire().await?;
            let mut secret = [0; 32];
            getrandom::fill(&mut secret).map_err(|error| anyhow!("no randomness: {error}"))?;
            let key = SecretKey::from_bytes(&secret)?;
            let account = AccountId(key.public());
            let register = Register { number: 1, account, name: identity.name, iban: identity.iban };
            let signed = Act::Register(register).sign(&hub, &key);
            match connection.request(Request::Act(signed)).await? {
                Ok(_) => Ok(account),
                Err(reject) => Err(anyhow!("cannot register a payee: {reject}")),
            }
        });
    }
    let mut accounts = vec![first.account()];
    accounts.extend(joined(registering).await?);
    if plan.subscribe {
        return Ok((accounts.into(), Some(first)));
    }
    first.shut_down().await;
    Ok((accounts.into(), None))
}

/// At the hub of a home that is held by `owner`.
pub(super) async fn hire(
    plan: &Plan,
    owner: &Client,
    named: &[AccountId],
    opened: &mut Vec<ChannelId>,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<People, Failure> {
    let folder = owner.home().path().join("bench");
    let hub = owner.home().hub().clone();
    let (payees, subscriber) = if named.is_empty() {
        progress("payees are registered; a hub takes them slowly, and only the first time");
        let info = owner.account_info().await?;
        // Whatever they earn is paid out to the home's own bank account.
        let identity = Identity { name: format!("{} (bench)", info.name), iban: info.iban };
        payees(plan, &hub, &folder.join("payees"), &identity).await?
    } else {
        (named.into(), None)
    };
    progress("channels are opened");
    let mut payers = Vec::new();
    for index in 0..plan.connections {
        let home = home(&folder.join(format!("payer-{:04}", index + 1)), &hub)?;
        let mut lanes = Vec::new();
        for _ in 0..share(plan.channels, plan.connections, index) {
            let channel = owner.open(opening(plan.capacity)).await?.channel.terms.id();
            opened.push(channel);
            for _ in 0..plan.lanes {
                let key = home.new_key()?.public();
                let record: LaneRecord = owner.grant(channel, grant(plan.capacity, Some(key))).await?;
                home.keep_lane(&record)?;
                lanes.push(record.id());
            }
        }
        payers.push(Payer { client: Client::start(home)?, lanes });
    }
    Ok(People { payers, payees, subscriber })
}

/// Registers accounts that are paid, each with a home below a folder; those that are there already stay.
async fn payees(
    plan: &Plan,
    hub: &HubAddress,
    folder: &Path,
    identity: &Identity,
) -> Result<(Arc<[AccountId]>, Option<Client>), Failure> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut registering = JoinSet::new();
    for index in 0..plan.payees {
        let (turns, hub, identity) = (Arc::clone(&turns), hub.clone(), identity.clone());
        let path: PathBuf = folder.join(format!("{:05}", index + 1));
        registering.spawn(async move {
            let _turn = turns.acquire().await?;
            let client = Client::start(home(&path, &hub)?)?;
            register(&client, &identity).await.context("cannot register a payee")?;
            anyhow::Ok((index, client))
        });
    }
    let mut registered = joined(registering).await?;
    registered.sort_by_key(|(index, _)| *index);
    let accounts: Vec<AccountId> = registered.iter().map(|(_, client)| client.account()).collect();
    let mut subscriber = None;
    for (_, client) in registered {
        if plan.subscribe {
            subscriber = Some(client);
        } else {
            client.shut_down().await;
        }
    }
    Ok((accounts.into(), subscriber))
}

/// Registers an account that is not registered, with patience for a hub that takes few at a time.
async fn register(client: &Client, identity: &Identity) -> anyhow::Result<()> {
    let until = Instant::now() + BUSY_PATIENCE;
    loop {
        match client.account_info().await {
            Ok(info) if info.approved => return Ok(()),
            Ok(_) => {
                return Err(anyhow!("this hub's operator approves every account: name payees with `--payee ACCOUNT`"));
            }
            Err(Error::Refused(Reject::UnknownAccount | Reject::Unauthenticated)) => {}
            Err(error) => return Err(error.into()),
        }
        match client.register(&identity.name, &identity.iban).await {
            Ok(_) => {}
            Err(Error::Refused(Reject::Busy)) if Instant::now() < until => tokio::time::sleep(BUSY_PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Has the sandbox bank send money, and waits for it.
async fn fund(client: &Client, sandbox: &Path, amount: Amount, identity: &Identity) -> anyhow::Result<()> {
    let instructions = client.deposit_instructions(Currency::EUR).await?;
    let order = SandboxOrder {
        amount: with_minor_digits(amount),
        reference: &instructions.reference,
        name: &identity.name,
        iban: &identity.iban,
    };
    let failed = |failure: Failure| anyhow!("{}", failure.text().trim());
    place(&orders_folder(sandbox, amount).map_err(failed)?, &order).map_err(failed)?;
    let until = Instant::now() + DEPOSIT_PATIENCE;
    loop {
        let info = client.account_info().await?;
        if info.balances.iter().any(|balance| balance.currency == Currency::EUR && balance.available >= amount) {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < until, "the sandbox bank's money has not arrived");
        tokio::time::sleep(PAUSE).await;
    }
}

/// A home, made if it is not there. Homes of an earlier run may name a place where the hub is no more.
fn home(path: &Path, hub: &HubAddress) -> anyhow::Result<Home> {
    if !path.join("config.json").exists() {
        return Ok(Home::create(path, hub, PlainKeys::sealer())?);
    }
    let mut home = Home::open(path, PlainKeys::sealer())?;
    anyhow::ensure!(home.hub().hub == hub.hub, "`{}` is a home at another hub", path.display());
    home.set_hub_place(&hub.host, hub.port)?;
    Ok(home)
}

fn opening(capacity: Amount) -> Opening {
    Opening { currency: Currency::EUR, capacity, expires_at: now().plus_ms(DAY_MS), renew: false }
}

fn grant(limit: Amount, key: Option<PublicKey>) -> Grant {
    Grant { mode: LaneMode::Shared, payee: None, limit, period: 0, expires_at: Time::MAX, key }
}

/// `count` times an amount.
pub(super) fn times(amount: Amount, count: usize) -> anyhow::Result<Amount> {
    let nanos = u64::try_from(count).ok().and_then(|count| amount.nanos().checked_mul(count));
    Ok(Amount::from_nanos(nanos.context("so much money does not fit an account")?))
}

/// Waits for all tasks; the first that fails ends it.
async fn joined<T: 'static>(mut tasks: JoinSet<anyhow::Result<T>>) -> Result<Vec<T>, Failure> {
    let mut done = Vec::with_capacity(tasks.len());
    while let Some(task) = tasks.join_next().await {
        done.push(task??);
    }
    Ok(done)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    #[test]
    fn money_for_several_channels_is_exact_or_refused() {
        let cent: Amount = "0.01".parse().unwrap();
        assert_eq!(times(cent, 250).unwrap(), "2.50".parse().unwrap());
        assert!(times(Amount::MAX, 2).is_err());
    }
}
