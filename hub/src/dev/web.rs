//! The web of `dev`: a news site and a streaming API, each behind a gate, a reader and an agent who pay there, and a page
//! that shows what passes.
//!
//! DIR: `gates/news.toml` and `gates/api.toml` (the gates' configuration, to read and to edit: prices are read again while
//! the gates run), `gates/news/` and `gates/api/` (their balances and secrets), `homes/reader` and `homes/agent`.
//!
//! Must not touch the hub: everything here has nothing but `weir-client`, as a site and a reader anywhere have.

mod api;
mod customers;
mod debugger;
mod diagram;
mod news;
mod record;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::Router;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use weir_client::PlainKeys;
use weir_client::gate::config::GateConfig;
use weir_client::gate::service::{Running as Gate, start_around};
use weir_client::protocol::amount::Amount;
use weir_client::protocol::id::{AccountId, HubAddress};

use self::customers::Customer;
use self::record::{Board, Recorder};
use super::bank::DevBank;
use super::people::{PATIENCE, Person};
use super::screen::Screen;
use crate::keys::write_durably;

/// Between two articles of the reader.
const READS: Duration = Duration::from_secs(4);
/// Between two calls of the agent.
const CALLS: Duration = Duration::from_secs(6);
/// How long a customer rests when something failed.
const REST: Duration = Duration::from_secs(15);

/// Where everything is.
#[derive(Debug, Clone, Serialize)]
#[expect(clippy::struct_field_names, reason = "the ready line's keys")]
pub(super) struct Urls {
    /// An article that costs something.
    pub(super) article_url: String,
    /// The API's chat completions.
    pub(super) api_url: String,
    /// What passes the gates.
    pub(super) debugger_url: String,
}

/// What one article and one call came to, checked against the books.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Checked {
    /// What the article cost.
    pub(super) article: Amount,
    /// What was prepaid for the API.
    pub(super) prepaid: Amount,
    /// What the call drew of it.
    pub(super) drawn: Amount,
    /// What is left of it at the gate.
    pub(super) left: Amount,
}

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Web {
    pub(super) urls: Urls,
    /// The gates' configurations.
    pub(super) gates: PathBuf,
    news: Gate,
    api: Gate,
    reader: Customer,
    agent: Customer,
    tasks: JoinSet<()>,
}

impl Web {
    /// Starts sites, gates, the debugger's page and the two customers, who do nothing yet.
    pub(super) async fn start(
        dir: &Path,
        hub: &HubAddress,
        payees: &[AccountId],
        bank: &DevBank,
        screen: &Screen,
    ) -> anyhow::Result<Self> {
        screen.step("a news site and a streaming API open, each behind a gate; a reader and an agent register");
        let [gazette, weather, ..] = payees else { anyhow::bail!("two payees are needed") };
        let gates = dir.join("gates");
        std::fs::create_dir_all(&gates)?;
        let board = Board::default();
        let mut tasks = JoinSet::new();
        let site = serve(news::site(), &mut tasks).await?;
        let news = gate(&gates.join("news.toml"), &news::config(site, *gazette, hub), "news site", &board).await?;
        let model = serve(api::service(), &mut tasks).await?;
        let api = gate(&gates.join("api.toml"), &api::config(model, *weather, hub), "API", &board).await?;
        let page = serve(debugger::pages(board), &mut tasks).await?;
        let homes = dir.join("homes");
        let (reader, agent) = tokio::try_join!(
            Customer::reader(&homes, hub, bank, format!("http://{}", news.address())),
            Customer::agent(&homes, hub, bank, format!("http://{}{}", api.address(), api::PATH)),
        )?;
        let urls = Urls {
            article_url: format!("http://{}{}", news.address(), news::path(1)),
            api_url: format!("http://{}{}", api.address(), api::PATH),
            debugger_url: format!("http://{page}/"),
        };
        Ok(Self { urls, gates, news, api, reader, agent, tasks })
    }

    /// One article and one call: paid, served, and in the payees' books to the nano.
    pub(super) async fn check(&self, payees: &[Person], screen: &Screen) -> anyhow::Result<Checked> {
        let [gazette, weather, ..] = payees else { anyhow::bail!("two payees are needed") };
        let before = (earned(gazette).await?, earned(weather).await?);
        let read = self.reader.read(1).await?;
        ensure!(read.paid == news::price(), "the article cost {} and not {}", read.paid, news::price());
        ensure!(read.left.is_zero(), "{} is left of an article's price", read.left);
        let called = self.agent.call(0).await?;
        ensure!(called.paid == customers::prepaid(), "{} was prepaid, not {}", called.paid, customers::prepaid());
        ensure!(called.drawn == called.costs, "the gate drew {}, the usage costs {}", called.drawn, called.costs);
        let balance = called.paid.checked_sub(called.drawn)?;
        ensure!(called.left == balance, "{} is left at the gate, not {balance}", called.left);
        grown(gazette, before.0, read.paid).await?;
        grown(weather, before.1, called.paid).await?;
        screen.done(&format!(
            "a reader paid {} EUR for an article, an agent prepaid {} EUR and its call drew {}: the books say the same",
            read.paid, called.paid, called.drawn
        ));
        Ok(Checked { article: read.paid, prepaid: called.paid, drawn: called.drawn, left: called.left })
    }

    /// The customers begin: until their budgets are spent.
    pub(super) fn open(&mut self) {
        let (reader, agent) = (self.reader.clone(), self.agent.clone());
        self.tasks.spawn(async move {
            let mut tick = ticks(READS);
            for turn in 0.. {
                tick.tick().await;
                if !goes_on("reader", reader.read(news::choice(turn)).await.map(drop)).await {
                    break;
                }
            }
        });
        self.tasks.spawn(async move {
            let mut tick = ticks(CALLS);
            for turn in 0.. {
                tick.tick().await;
                if !goes_on("agent", agent.call(turn).await.map(drop)).await {
                    break;
                }
            }
        });
    }

    /// Ends everything.
    pub(super) async fn stop(mut self) {
        self.tasks.shutdown().await;
        self.reader.leave().await;
        self.agent.leave().await;
        tokio::join!(self.news.stop(), self.api.stop());
    }
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tick
}

/// Whether a customer goes on: not when the budget is spent; after a failure, later.
async fn goes_on(who: &'static str, done: anyhow::Result<()>) -> bool {
    let Err(error) = done else { return true };
    if customers::is_spent(&error) {
        tracing::info!(who, "stops: the budget is spent");
        return false;
    }
    tracing::warn!(who, error = format!("{error:#}"), "nothing was bought");
    tokio::time::sleep(REST).await;
    true
}

/// Serves on a free port of this machine.
async fn serve(router: Router, tasks: &mut JoinSet<()>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "a demo server ended");
        }
    });
    Ok(address)
}

/// Writes a gate's configuration and starts it, with a recorder around it.
async fn gate(file: &Path, text: &str, name: &'static str, board: &Board) -> anyhow::Result<Gate> {
    write_durably(file, text.as_bytes(), 0o644)?;
    std::fs::create_dir_all(file.with_extension(""))?;
    let config = GateConfig::load(file).with_context(|| format!("`{}` is wrong", file.display()))?;
    let board = board.clone();
    Ok(start_around(&config, PlainKeys::sealer(), |gate| Arc::new(Recorder::new(name, gate, board))).await?)
}

async fn earned(person: &Person) -> anyhow::Result<Amount> {
    let info = person.client.account_info().await?;
    Ok(info.balances.first().map(|balance| balance.earned).unwrap_or_default())
}

/// Waits until so much more was earned, and fails when it is anything else.
async fn grown(person: &Person, before: Amount, by: Amount) -> anyhow::Result<()> {
    let wanted = before.checked_add(by)?;
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let now = earned(person).await?;
        if now == wanted {
            return Ok(());
        }
        ensure!(now < wanted, "{} has earned {now}, more than {wanted}", person.name);
        ensure!(tokio::time::Instant::now() < end, "{} has earned {now}, not {wanted}", person.name);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
