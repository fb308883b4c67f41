//! `run`: from settings and keys to a hub that serves, and back to a clean stop.
//!
//! [`Running`] is the whole hub in one value: `run` waits beside it, and whoever plays a hub in a process of his own
//! starts one the same way.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use weir_protocol::act::{Act, Limits as AccountLimits};
use weir_protocol::amount::Currency;
use weir_protocol::id::HubAddress;
use weir_protocol::reject::Reject;

use super::printer::{self, Printer};
use super::{Failure, SettingsArgs};
use crate::admin::compactor::{Compactor, Schedule};
use crate::admin::desk::Desk;
use crate::admin::socket::AdminSocket;
use crate::config::Config;
use crate::keys::{KeyFiles, random_secret};
use crate::pipeline::Handle;
use crate::pipeline::handle::Health;
use crate::pipeline::recover::{self, Settings};
use crate::schedule::Schedule as CutoffSchedule;
use crate::server::limits::Limits;
use crate::server::{self, DepositAddress, Server};
use crate::settlement::{BankAccount, Settlement};

/// How often the time of the next cut-off is looked at.
const SCHEDULE_TICK: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Go on with an old copy of the data that ends at this commit. What was promised since is broken.
    #[arg(long, value_name = "COMMIT")]
    accept_rollback: Option<u64>,
}

/// The first line on stdout.
#[derive(Debug, Serialize)]
struct Ready {
    address: String,
    pid: u32,
}

/// A hub that serves: pipeline, door for clients, operator's socket, snapshots, the bank's inbox.
pub struct Running {
    handle: Handle,
    address: HubAddress,
    server: Server,
    settlement: Option<Arc<Settlement>>,
    tasks: Vec<JoinHandle<()>>,
    snapshots: Option<Schedule>,
}

impl core::fmt::Debug for Running {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Running").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Running {
    /// Starts a hub on its data directory. Within a runtime; blocks while the journal is read.
    ///
    /// What can be checked without the data is checked before it is opened.
    pub fn start(data: &Path, config: &Config, accept_rollback: Option<u64>) -> Result<Self, Failure> {
        let keys = KeyFiles::of(data);
        let (key, certificate) = keys.load()?;
        let reset_key = keys.reset_key()?;
        let handle = recover::start(Settings {
            data: data.to_owned(),
            anchor: config.anchor.clone(),
            accept_rollback,
            shards: config.shards,
            segment_bytes: config.segment_bytes,
            policy: config.policy.clone(),
            hub: certificate.hub,
            key,
            certificate: certificate.signed,
            secret: random_secret()?,
        })?;
        // Threads of the pipeline outlive the handle unless they are told.
        Self::serve(data, config, handle.clone(), reset_key).inspect_err(|_| handle.stop())
    }

    fn serve(data: &Path, config: &Config, handle: Handle, reset_key: [u8; 32]) -> Result<Self, Failure> {
        let options = server::Options {
            listen: config.listen,
            reset_key,
            name: config.name.clone(),
            bank: deposit_addresses(config),
            limits: Limits { rates: config.rates, ..Limits::default() },
        };
        let server = Server::bind(handle.clone(), options)?;
        let address = address(&handle, config, server.local_addr());
        let compactor = Compactor::new(handle.clone());
        let settlement = settlement(&handle, config)?;
        let desk = Arc::new(Desk {
            handle: handle.clone(),
            name: config.name.clone(),
            address: Some(address.to_string()),
            compactor: compactor.clone(),
            settlement: settlement.clone(),
            cutoff: config.cutoff.clone(),
        });
        let socket = AdminSocket::bind(data)?;
        let mut tasks =
            vec![tokio::spawn(socket.serve(desk)), tokio::spawn(keep_limits(handle.clone(), config.limits))];
        let serving = server.clone();
        tasks.push(tokio::spawn(async move { serving.run().await }));
        if let Some(settlement) = settlement.clone() {
            tasks.push(tokio::spawn(watch(settlement, config.bank.poll)));
        }
        if let (Some(settlement), Some(schedule)) = (settlement.clone(), config.cutoff.clone()) {
            tasks.push(tokio::spawn(keep_schedule(settlement, schedule)));
        }
        if let Some(idle) = config.idle_close {
            tasks.push(tokio::spawn(crate::admin::sweep::schedule(handle.clone(), idle)));
        }
        let snapshots = config.snapshot_interval.map(|interval| compactor.schedule(interval)).transpose();
        let snapshots = snapshots.context("cannot start a thread")?;
        Ok(Self { handle, address, server, settlement, tasks, snapshots })
    }

    /// Where clients connect.
    pub const fn address(&self) -> &HubAddress {
        &self.address
    }

    /// What settles its windows; none without a bank account.
    pub const fn settlement(&self) -> Option<&Arc<Settlement>> {
        self.settlement.as_ref()
    }

    /// The pipeline.
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits until the pipeline ends by itself; why.
    pub async fn ended(&self) -> String {
        let mut health = self.handle.health();
        match health.wait_for(|health| *health != Health::Running).await.map(|health| health.clone()) {
            Ok(Health::Failed(what)) => what,
            Ok(Health::Running | Health::Stopped) | Err(_) => "the pipeline has stopped".to_owned(),
        }
    }

    /// Says goodbye to clients, commits what was staged, and ends every thread. Everything acknowledged is durable when it
    /// returns.
    pub async fn stop(self) {
        self.server.shutdown().await;
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks {
            // Aborted, or ended before.
            let _ = task.await;
        }
        let handle = self.handle;
        let snapshots = self.snapshots;
        let stopped = tokio::task::spawn_blocking(move || {
            handle.stop();
            drop(snapshots);
        });
        if stopped.await.is_err() {
            tracing::error!("a thread panicked while the hub stopped");
        }
    }
}

/// Where clients send money.
fn deposit_addresses(config: &Config) -> BTreeMap<Currency, DepositAddress> {
    let Some(iban) = config.bank.iban else { return BTreeMap::new() };
    let bic = config.bank.bic.as_ref().map(|bic| bic.as_str().to_owned()).unwrap_or_default();
    let address = DepositAddress { iban: iban.to_string(), name: config.bank.name.clone(), bic };
    config.policy.currencies.iter().map(|currency| (*currency, address.clone())).collect()
}

/// What settles the hub's windows; none without a bank account.
fn settlement(handle: &Handle, config: &Config) -> Result<Option<Arc<Settlement>>, Failure> {
    let Some(iban) = config.bank.iban else { return Ok(None) };
    let account = BankAccount { name: config.bank.name.clone(), iban, bic: config.bank.bic.clone() };
    let settlement = Settlement::open(handle.clone(), &config.bank.directory, account)?;
    Ok(Some(Arc::new(
        settlement
            .with_statement_max_age(config.bank.statement_max_age)
            .with_max_payments_per_file(config.bank.max_payments_per_file)
            .with_debits(config.bank.debits.clone()),
    )))
}

/// Commits everybody's limits, if they are not those of the settings.
async fn keep_limits(handle: Handle, limits: AccountLimits) {
    loop {
        let done = match handle.read(|view| view.books.limits(None)).await {
            Ok(in_force) if in_force == Some(limits) => return,
            Ok(_) => handle.order(Act::Limits(limits)).await.map(|_| ()),
            Err(reject) => Err(reject),
        };
        match done {
            Ok(()) => return,
            Err(Reject::Busy) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the limits of the settings do not hold");
                return;
            }
        }
    }
}

/// Goes on with windows that a stop interrupted, then takes what the bank brings, for as long as the hub runs.
async fn watch(settlement: Arc<Settlement>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut resumed = false;
    let mut trouble = String::new();
    loop {
        ticks.tick().await;
        let done = if resumed { settlement.poll().await.map(Some) } else { settlement.resume().await.map(|()| None) };
        match done {
            Ok(report) => {
                resumed = true;
                trouble.clear();
                if let Some(report) = report.filter(|report| report.files > 0 || report.rejected > 0) {
                    tracing::info!(?report, "the bank has brought something");
                }
            }
            // Said once, not at every look.
            Err(error) if error.to_string() == trouble => {}
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "settlement does not go on");
                trouble = error.to_string();
            }
        }
    }
}

/// Cuts windows off when it is time, for as long as the hub runs.
async fn keep_schedule(settlement: Arc<Settlement>, schedule: CutoffSchedule) {
    let mut ticks = tokio::time::interval(SCHEDULE_TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut trouble = String::new();
    loop {
        ticks.tick().await;
        match settlement.cut_off_if_due(&schedule).await {
            Ok(cut) => {
                trouble.clear();
                if let Some(window) = cut {
                    tracing::info!(window, "a window was cut off on schedule");
                }
            }
            // Said once, not at every look.
            Err(error) if error.to_string() == trouble => {}
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a window could not be cut off on schedule");
                trouble = error.to_string();
            }
        }
    }
}

/// What clients are given: the host that the operator names, or the one that the hub listens on.
fn address(handle: &Handle, config: &Config, local: SocketAddr) -> HubAddress {
    let host = config.public_host.clone().unwrap_or_else(|| {
        match local.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        }
        .to_string()
    });
    HubAddress { hub: handle.hub(), host, port: local.port() }
}

/// Runs the hub until SIGTERM, Ctrl-C, or a failure.
pub(super) fn run(args: &RunArgs, printer: Printer) -> Result<(), Failure> {
    let data: PathBuf = args.settings.data.data.clone();
    let config = args.settings.settings()?.resolve()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(crate::config::io_threads()).enable_all().build()?;
    runtime.block_on(async {
        // Before anything is started: a signal that comes early must not kill a hub half-way.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let running = Running::start(&data, &config, args.accept_rollback)?;
        let ready = Ready { address: running.address().to_string(), pid: std::process::id() };
        printer.print(&ready, |ready| ready.address.clone())?;
        printer::say(&format!("`{}` accepts. Ctrl-C stops it.", config.name));
        let failed = tokio::select! {
            what = running.ended() => Some(what),
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
        };
        tokio::select! {
            () = running.stop() => {}
            // Whoever asks twice does not want to wait: what was acknowledged is durable in any case.
            _ = interrupt.recv() => std::process::exit(130),
        }
        match failed {
            None => Ok(()),
            Some(what) => {
                Err(Failure::from(anyhow!("{what}")).hint("start the hub again: it recovers from its journal"))
            }
        }
    })
}
