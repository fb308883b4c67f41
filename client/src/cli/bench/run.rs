//! One run: hub and people, load in slices with the raw limits between them, the end and the audit.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;
use tokio::task::block_in_place;
use weir_client::Client;
use weir_client::protocol::id::ChannelId;

use super::super::context::{Context, Use};
use super::super::failure::Failure;
use super::super::printer::{confirm, say};
use super::books::{audited, close, compared};
use super::echo::{self, EchoCost, Shape};
use super::figures::{Measured, Sample, Sum, assemble, depth};
use super::limits::{Crypto, Disk};
use super::listen::Heard;
use super::load::Load;
use super::meter::Meter;
use super::options::{BenchArgs, Plan};
use super::orders::Orders;
use super::people::{self, People};
use super::process;
use super::report::{Credits, Report, round};
use super::spawn::{self, Spawned};

/// Each signature and hash is measured so long, before and after each slice.
const CRYPTO: Duration = Duration::from_millis(400);
/// Appends and syncs are, after each slice.
const DISK: Duration = Duration::from_secs(1);
/// The bare transport is, after each slice.
const ECHO: Duration = Duration::from_millis(1_500);
/// Warm-up of a slice that is not the first.
const WARM: Duration = Duration::from_millis(500);
/// How often the run looks at itself.
const LOOK: Duration = Duration::from_millis(100);

/// Where the load goes, and what is known of the hub.
struct Site {
    /// Ended when it is dropped, and so before the folder is removed.
    spawned: Option<Spawned>,
    /// Removed when it is dropped.
    folder: Option<TempDir>,
    /// The program `weir-hub`, if there is one.
    binary: Option<PathBuf>,
    /// The hub's data directory, if it is on this machine.
    data: Option<PathBuf>,
    pid: Option<u32>,
    /// Where syncs are measured.
    disk: PathBuf,
    /// The home's client; none with a hub of its own.
    owner: Option<Client>,
    people: People,
}

/// Runs, prints, and fails when a payment is missing.
pub(super) async fn run(context: &Context, args: &BenchArgs, plan: &Plan) -> Result<(), Failure> {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    let mut opened = Vec::new();
    let done = measure(context, args, plan, &bar, &mut opened).await;
    bar.finish_and_clear();
    let report = done?;
    context.printer.print(&report, Report::show)?;
    let complete = report.credits.is_none_or(|credits| credits.complete);
    if report.audit.is_good() && complete { Ok(()) } else { Err(Failure::said()) }
}

async fn measure(
    context: &Context,
    args: &BenchArgs,
    plan: &Plan,
    bar: &ProgressBar,
    opened: &mut Vec<ChannelId>,
) -> Result<Report, Failure> {
    let progress = |what: &str| bar.set_message(what.to_owned());
    let mut site = if args.spawn {
        spawned(args, plan, &progress).await?
    } else {
        at_home(context, args, plan, bar, opened).await?
    };
    let measured = under_load(&site, plan, bar).await;
    site.people.leave().await;
    let measured = match measured {
        Ok(measured) => measured,
        Err(failure) => {
            tell(site.folder.as_ref().map(TempDir::path));
            if let Some(owner) = &site.owner {
                close(owner, opened).await;
            }
            return Err(failure);
        }
    };
    progress("the books are compared");
    let (verdict, details) = match (site.spawned.take(), &site.owner) {
        (Some(hub), _) => audited(hub, &measured.totals)?,
        (None, Some(owner)) => compared(owner, opened, &measured.totals).await?,
        (None, None) => return Err(anyhow!("neither a hub nor a home").into()),
    };
    if let Some(owner) = &site.owner {
        close(owner, opened).await;
        owner.shut_down().await;
        context.unfinished(None);
    }
    if args.keep
        && let Some(folder) = site.folder.take()
    {
        let kept = folder.keep();
        say(&format!("everything is kept in {}", kept.display()));
    }
    Ok(assemble(args, plan, &measured, verdict, details))
}

/// Says what the hub in a folder said last, if it said anything.
fn tell(folder: Option<&Path>) {
    if let Some(said) = folder.and_then(|folder| spawn::said(&folder.join(spawn::LOG))) {
        say(&format!("the hub said:\n{said}"));
    }
}

/// A hub of its own with people of its own.
async fn spawned(args: &BenchArgs, plan: &Plan, progress: &(dyn Fn(&str) + Sync)) -> Result<Site, Failure> {
    let binary = spawn::find(args.hub_bin.as_deref())?;
    let folder = spawn::folder(args.data.as_deref())?;
    progress("a hub starts");
    let hub = block_in_place(|| Spawned::start(&binary, folder.path()))?;
    let people = people::found(plan, &hub.address, &folder.path().join("homes"), hub.sandbox(), progress).await;
    let people = people.inspect_err(|_| tell(Some(folder.path())))?;
    Ok(Site {
        binary: Some(binary),
        data: Some(hub.data()),
        pid: Some(hub.pid),
        disk: folder.path().to_owned(),
        folder: Some(folder),
        spawned: Some(hub),
        owner: None,
        people,
    })
}

/// The home's hub, with channels of the home.
async fn at_home(
    context: &Context,
    args: &BenchArgs,
    plan: &Plan,
    bar: &ProgressBar,
    opened: &mut Vec<ChannelId>,
) -> Result<Site, Failure> {
    let binary = spawn::find(args.hub_bin.as_deref()).ok();
    let (mut pid, mut disk) = (None, context.home().to_owned());
    if let Some(data) = &args.hub_data {
        let Some(binary) = &binary else {
            return Err(spawn::find(args.hub_bin.as_deref()).err().unwrap_or_else(Failure::said));
        };
        pid = block_in_place(|| spawn::status(binary, data))?.pid;
        disk = data.parent().unwrap_or(Path::new(".")).to_owned();
    }
    let owner = context.client(Use::Alone).await?;
    let capacity = people::times(plan.capacity, plan.channels)?;
    if !args.yes {
        let to = if args.payee.is_empty() { "accounts that it keeps for this" } else { "the payees that you named" };
        bar.suspend(|| confirm(&format!("Lock {capacity} EUR of this home and pay some of it to {to}?")))?;
    }
    context.unfinished(Some("channels may be open: `weir channels` lists them, `weir close` closes them".to_owned()));
    let progress = |what: &str| bar.set_message(what.to_owned());
    let hired = people::hire(plan, &owner, &args.payee, opened, &progress).await;
    let people = match hired {
        Ok(people) => people,
        Err(failure) => {
            close(&owner, opened).await;
            return Err(failure);
        }
    };
    Ok(Site { folder: None, spawned: None, binary, data: args.hub_data.clone(), pid, disk, owner: Some(owner), people })
}

async fn under_load(site: &Site, plan: &Plan, bar: &ProgressBar) -> Result<Measured, Failure> {
    bar.set_message("raw limits are measured");
    let mut crypto = Crypto::new(plan.all_lanes())?;
    block_in_place(|| crypto.measure(CRYPTO))?;
    let mut disk = block_in_place(|| Disk::new(&site.disk))?;
    let mut echo = EchoCost::default();
    let mut shape = None;

    bar.set_message("lanes attach");
    let lanes = site.people.lanes(plan).await?;
    let heard = match &site.people.subscriber {
        Some(client) => Some(Heard::listen(client).await?),
        None => None,
    };
    let meter = Arc::new(Meter::new());
    let payees = &site.people.payees;
    let riders = lanes.into_iter().enumerate();
    let riders = riders.map(|(index, lane)| (lane, Orders::new(plan.seed, index, Arc::clone(payees)))).collect();
    let load = match (plan.rate, plan.burst) {
        (Some(rate), _) => Load::open(&meter, riders, rate)?,
        (None, Some(payments)) => Load::burst(&meter, riders, payments as usize),
        (None, None) => Load::closed(&meter, riders, plan.window),
    };
    let rss_start = site.pid.and_then(process::rss_bytes);
    let (mut rss, mut own_rss) = (None, None);

    let mut sum = Sum::default();
    for slice in 0..plan.slices {
        let (from, to) = if let Some(payments) = plan.burst {
            let from = sample(site, &meter, heard.as_deref())?;
            let from = Sample { at: Instant::now(), ..from };
            meter.record();
            load.start();
            bar.set_message("a burst");
            let at = answered(&meter, payments.into()).await?;
            (from, Sample { at, ..sample(site, &meter, heard.as_deref())? })
        } else {
            load.start();
            let first = Duration::from_secs(plan.warmup.into());
            wait(&meter, if slice == 0 { first } else { WARM.min(first) }, bar, "warm-up").await?;
            let from = sample(site, &meter, heard.as_deref())?;
            meter.record();
            let what = match plan.slices {
                1 => "load".to_owned(),
                slices => format!("load, slice {} of {slices}", slice + 1),
            };
            wait(&meter, Duration::from_secs(plan.seconds.into()) / plan.slices, bar, &what).await?;
            (from, sample(site, &meter, heard.as_deref())?)
        };
        (rss, own_rss) = (site.pid.and_then(process::rss_bytes), process::rss_bytes(std::process::id()));
        bar.set_message("the last payments are answered");
        load.stop().await?;
        meter.rest();
        if let Some(heard) = &heard {
            heard.wait_for(meter.totals().paid).await?;
        }
        sum.add(&from, &to);

        bar.set_message("raw limits are measured");
        block_in_place(|| crypto.measure(CRYPTO))?;
        let append = match (sum.journal_bytes, sum.commits) {
            (Some(bytes), Some(commits)) if commits > 0 => bytes / commits,
            // Of a hub whose journal cannot be seen: a small commit.
            _ => 4096,
        };
        block_in_place(|| disk.measure(append, DISK))?;
        if let (Some(binary), Some((up, down))) = (&site.binary, meter.sizes().mean()) {
            let now =
                Shape { connections: plan.connections, streams: plan.all_lanes(), depth: depth(plan, &sum), up, down };
            echo.add(echo::measure(binary, now, ECHO).await?);
            shape = Some(now);
        }
    }
    let credits = heard.map(|heard| Credits {
        payments: heard.credits(),
        per_second: round(sum.credits as f64 / sum.time.as_secs_f64()),
        lag_ms_p50: heard.lag_ms(0.5),
        lag_ms_p99: heard.lag_ms(0.99),
        lag_ms_max: heard.lag_ms(1.0),
        complete: heard.credits() == meter.totals().paid && heard.nanos() == meter.totals().sent_nanos,
    });
    let (totals, latency) = (meter.totals(), meter.latencies());
    Ok(Measured { sum, totals, latency, crypto, disk, echo, shape, rss_start, rss, own_rss, credits })
}

/// Waits until so many payments are answered; when they were.
async fn answered(meter: &Meter, payments: u64) -> Result<Instant, Failure> {
    while meter.totals().paid < payments {
        if let Some(failure) = meter.failure() {
            return Err(anyhow!("{failure}").into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(Instant::now())
}

/// Waits, and says how it goes; ends early when something went wrong.
async fn wait(meter: &Meter, time: Duration, bar: &ProgressBar, what: &str) -> Result<(), Failure> {
    let (start, from) = (Instant::now(), meter.totals().paid);
    loop {
        let left = time.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        tokio::time::sleep(left.min(LOOK)).await;
        if let Some(failure) = meter.failure() {
            let failure = Failure::from(anyhow!("{failure}"));
            return Err(failure.hint("if a channel's capacity is used up, give more with `--capacity`"));
        }
        let rate = (meter.totals().paid - from) as f64 / start.elapsed().as_secs_f64();
        bar.set_message(format!("{what}: {:.0} s left, {rate:.0} payments/s", left.as_secs_f64()));
    }
}

fn sample(site: &Site, meter: &Meter, heard: Option<&Heard>) -> Result<Sample, Failure> {
    // First, because it takes longest.
    let status = match (&site.binary, &site.data) {
        (Some(binary), Some(data)) => Some(block_in_place(|| spawn::status(binary, data))?),
        _ => None,
    };
    Ok(Sample {
        at: Instant::now(),
        totals: meter.totals(),
        hub_cpu: site.pid.and_then(process::cpu),
        own_cpu: process::cpu(std::process::id()),
        status,
        credits: heard.map_or(0, Heard::credits),
    })
}
