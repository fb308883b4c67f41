//! One run: hub and people, load in slices with the raw limits between them, the end and the audit.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;
use tokio::task::block_in_place;
use weir_client::Client;
use weir_client::protocol::amount::Amount;
use weir_client::protocol::id::ChannelId;

use super::super::context::{Context, Use};
use super::super::failure::Failure;
use super::super::printer::{confirm, say};
use super::echo::{self, EchoCost, Shape};
use super::limits::{Crypto, Disk};
use super::listen::Heard;
use super::load::Load;
use super::meter::{Meter, Totals};
use super::options::{BenchArgs, Mode, Plan};
use super::orders::Orders;
use super::people::{self, People};
use super::process;
use super::report::{
    Audit, CLIENT_HASHES, Credits, HUB_HASHES, Latency, Limits, REFERENCE_BYTES, Ratios, Report, Verdict, round,
};
use super::spawn::{self, Spawned, Status};

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
    /// Removed when it is dropped.
    folder: Option<TempDir>,
    spawned: Option<Spawned>,
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

/// The state of everything at one instant.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    totals: Totals,
    hub_cpu: Option<Duration>,
    own_cpu: Option<Duration>,
    status: Option<Status>,
    credits: u64,
}

/// What slices come to together.
#[derive(Debug, Default)]
struct Sum {
    time: Duration,
    payments: u64,
    groups: u64,
    credits: u64,
    hub_cpu: Option<Duration>,
    own_cpu: Option<Duration>,
    commits: Option<u64>,
    journal_bytes: Option<u64>,
}

impl Sum {
    fn add(&mut self, from: &Sample, to: &Sample) {
        fn plus<T: std::ops::Add<Output = T> + Default>(sum: &mut Option<T>, more: Option<T>) {
            *sum = more.map(|more| sum.take().unwrap_or_default() + more);
        }
        self.time += to.at - from.at;
        self.payments += to.totals.paid - from.totals.paid;
        self.groups += to.totals.groups - from.totals.groups;
        self.credits += to.credits - from.credits;
        let cpu = |from: Option<Duration>, to: Option<Duration>| Some(to?.saturating_sub(from?));
        plus(&mut self.hub_cpu, cpu(from.hub_cpu, to.hub_cpu));
        plus(&mut self.own_cpu, cpu(from.own_cpu, to.own_cpu));
        let statuses = from.status.zip(to.status);
        plus(&mut self.commits, statuses.map(|(from, to)| to.commits() - from.commits()));
        let bytes = statuses.and_then(|(from, to)| Some(to.journal_bytes? - from.journal_bytes?));
        plus(&mut self.journal_bytes, bytes);
    }
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
    let log = site.folder.as_ref().map(|folder| folder.path().join("hub.log"));
    let measured = under_load(&site, plan, bar).await;
    site.people.leave().await;
    let measured = match measured {
        Ok(measured) => measured,
        Err(failure) => {
            if let Some(said) = log.as_deref().and_then(spawn::said) {
                say(&format!("the hub said:\n{said}"));
            }
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

/// A hub of its own with people of its own.
async fn spawned(args: &BenchArgs, plan: &Plan, progress: &(dyn Fn(&str) + Sync)) -> Result<Site, Failure> {
    let binary = spawn::find(args.hub_bin.as_deref())?;
    let folder = spawn::folder(args.data.as_deref())?;
    progress("a hub starts");
    let hub = block_in_place(|| Spawned::start(&binary, folder.path()))?;
    let people = people::found(plan, &hub.address, &folder.path().join("homes"), hub.sandbox(), progress).await?;
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

/// What was measured.
struct Measured {
    sum: Sum,
    totals: Totals,
    latency: hdrhistogram::Histogram<u64>,
    crypto: Crypto,
    disk: Disk,
    echo: EchoCost,
    shape: Option<Shape>,
    rss_start: Option<u64>,
    rss: Option<u64>,
    own_rss: Option<u64>,
    credits: Option<Credits>,
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
    let heard = site.people.subscriber.as_ref().map(Heard::listen).transpose()?;
    let meter = Arc::new(Meter::new());
    let payees = &site.people.payees;
    let riders = lanes.into_iter().enumerate();
    let riders = riders.map(|(index, lane)| (lane, Orders::new(plan.seed, index, Arc::clone(payees)))).collect();
    let load = match plan.rate {
        None => Load::closed(&meter, riders, plan.window),
        Some(rate) => Load::open(&meter, riders, rate)?,
    };
    let rss_start = site.pid.and_then(process::rss_bytes);
    let mut rss = None;

    let mut sum = Sum::default();
    for slice in 0..plan.slices {
        load.start();
        let warm = if slice == 0 {
            Duration::from_secs(plan.warmup.into())
        } else {
            WARM.min(Duration::from_secs(plan.warmup.into()))
        };
        wait(&meter, warm, bar, "warm-up").await?;
        let from = sample(site, &meter, heard.as_deref())?;
        meter.record();
        let time = Duration::from_secs(plan.seconds.into()) / plan.slices;
        let what =
            if plan.slices == 1 { "load".to_owned() } else { format!("load, slice {} of {}", slice + 1, plan.slices) };
        wait(&meter, time, bar, &what).await?;
        let to = sample(site, &meter, heard.as_deref())?;
        rss = site.pid.and_then(process::rss_bytes);
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
    let own_rss = process::rss_bytes(std::process::id());
    let (totals, latency) = (meter.totals(), meter.latencies());
    Ok(Measured { sum, totals, latency, crypto, disk, echo, shape, rss_start, rss, own_rss, credits })
}

/// Frames of a lane that were on their way at one time, about.
fn depth(plan: &Plan, sum: &Sum) -> usize {
    let in_flight = match plan.mode {
        Mode::Single => plan.window as u64,
        Mode::Adaptive => (plan.window as u64 * sum.groups).div_ceil(sum.payments.max(1)),
    };
    in_flight.clamp(1, 64) as usize
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

/// Stops the hub and audits what it leaves behind.
fn audited(hub: Spawned, totals: &Totals) -> Result<(Verdict, Audit), Failure> {
    let (binary, data) = (hub.binary.clone(), hub.data());
    let found = block_in_place(|| {
        hub.stop()?;
        spawn::audit(&binary, &data)
    })?;
    let earned = found.sums.get("EUR").map_or("0", |sums| sums.earned.as_str());
    // Nothing else earns at this hub, and nothing is refunded: what was paid is what was earned.
    let same = found.payments == totals.paid && earned.parse() == Ok(Amount::from_nanos(totals.sent_nanos));
    let verdict = match found.audit.as_str() {
        "clean" if same => Verdict::Clean,
        "clean" => Verdict::Differs,
        _ => Verdict::Broken,
    };
    let details = Audit {
        paid: totals.paid,
        found: Some(found.payments),
        missing: totals.paid.saturating_sub(found.payments),
        paid_amount: Amount::from_nanos(totals.sent_nanos).to_string(),
        found_amount: earned.to_owned(),
        commits: Some(found.commits),
        first_error: found.first_error,
    };
    Ok((verdict, details))
}

/// Compares what the hub says that the channels have spent with what was paid.
async fn compared(owner: &Client, opened: &[ChannelId], totals: &Totals) -> Result<(Verdict, Audit), Failure> {
    let mut spent = Amount::ZERO;
    for channel in opened {
        spent = spent.checked_add(owner.channel(*channel).await?.spent)?;
    }
    let paid = Amount::from_nanos(totals.sent_nanos);
    let details = Audit {
        paid: totals.paid,
        found: None,
        missing: 0,
        paid_amount: paid.to_string(),
        found_amount: spent.to_string(),
        commits: None,
        first_error: None,
    };
    Ok((if spent == paid { Verdict::Agrees } else { Verdict::Differs }, details))
}

/// Closes what the home opened. What cannot be closed now is said.
async fn close(owner: &Client, opened: &mut Vec<ChannelId>) {
    for channel in opened.drain(..) {
        if let Err(error) = owner.close(channel).await {
            say(&format!("channel {channel} stays open: {error}"));
        }
    }
}

fn assemble(args: &BenchArgs, plan: &Plan, measured: &Measured, audit: Verdict, audit_details: Audit) -> Report {
    let Measured { sum, latency, crypto, disk, echo, shape, .. } = measured;
    let seconds = sum.time.as_secs_f64();
    let payments = sum.payments.max(1) as f64;
    let per_payment = |value: Option<f64>| value.map(|value| round(value / payments));
    let us = |time: &Option<Duration>| time.map(|time| time.as_secs_f64() * 1e6);
    let signatures = sum.groups as f64 / payments;
    let (verify, sign, hash) = (crypto.verify.us(), crypto.sign.us(), crypto.hash.us());
    let commits = sum.commits.map(|commits| commits as f64);
    let (hub_echo, own_echo) = (echo.hub_us(), echo.own_us());
    let single = plan.mode == Mode::Single;
    let hub_floor =
        hub_echo.map(|echo| if single { verify + echo } else { (verify + echo) * signatures + HUB_HASHES * hash });
    let client_floor = own_echo.zip(commits).map(|(echo, commits)| {
        let checked = (commits * plan.connections as f64 / payments).min(signatures);
        let hashes = if single { 0.0 } else { CLIENT_HASHES * hash };
        (sign + echo) * signatures + verify * checked + hashes
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = hub_floor.zip(client_floor).map(|(hub, client)| cores as f64 * 1e6 / (hub + client));
    let (sync_p50, sync_p99) = (disk.us(0.5), disk.us(0.99));
    let latency_floor = sync_p50 + verify + 2.0 * sign;
    let quantile = |quantile| latency.value_at_quantile(quantile);
    let latency_us = Latency {
        p50: quantile(0.5),
        p90: quantile(0.9),
        p99: quantile(0.99),
        p999: quantile(0.999),
        max: latency.max(),
    };
    let hub_cpu = per_payment(us(&sum.hub_cpu));
    let client_cpu = per_payment(us(&sum.own_cpu));
    let journal = per_payment(sum.journal_bytes.map(|bytes| bytes as f64));
    let rate = payments / seconds;
    let to = |value: Option<f64>, limit: Option<f64>| value.zip(limit).map(|(value, limit)| round(value / limit));
    let late = |value: u64, limit: f64| round(value as f64 / limit);
    let commits_per_second = commits.map(|commits| commits / seconds);
    Report {
        mode: plan.mode,
        channels: plan.channels,
        lanes: plan.lanes,
        connections: plan.connections,
        payees: if args.payee.is_empty() { plan.payees } else { args.payee.len() },
        window: plan.rate.is_none().then_some(plan.window),
        rate: plan.rate,
        spawned: args.spawn,
        seconds: round(seconds),
        slices: plan.slices,
        payments: sum.payments,
        payments_per_second: round(rate),
        signatures_per_payment: (signatures * 1e6).round() / 1e6,
        latency_us,
        hub_cpu_us_per_payment: hub_cpu,
        client_cpu_us_per_payment: client_cpu,
        hub_cores: sum.hub_cpu.map(|cpu| round(cpu.as_secs_f64() / seconds)),
        client_cores: sum.own_cpu.map(|cpu| round(cpu.as_secs_f64() / seconds)),
        commits_per_second: commits_per_second.map(round),
        payments_per_commit: commits.filter(|commits| *commits > 0.0).map(|commits| round(payments / commits)),
        journal_bytes_per_payment: journal,
        journal_bytes_per_commit: sum
            .journal_bytes
            .zip(commits)
            .filter(|(_, commits)| *commits > 0.0)
            .map(|(bytes, commits)| round(bytes as f64 / commits)),
        hub_rss_bytes: measured.rss,
        hub_rss_start_bytes: measured.rss_start,
        client_rss_bytes: measured.own_rss,
        credits: measured.credits,
        limits: Limits {
            schnorr_verify_us: round(verify),
            schnorr_sign_us: round(sign),
            sha256_us: round(hash),
            fdatasync_us_p50: round(sync_p50),
            fdatasync_us_p99: round(sync_p99),
            append_bytes: disk.append_bytes,
            echo_hub_cpu_us: hub_echo.map(round),
            echo_client_cpu_us: own_echo.map(round),
            echo_bytes_up: shape.map_or(0, |shape| shape.up),
            echo_bytes_down: shape.map_or(0, |shape| shape.down),
            hub_floor_us: hub_floor.map(round),
            client_floor_us: client_floor.map(round),
            payments_per_second: most.map(f64::round),
            latency_floor_us: round(latency_floor),
            cores,
        },
        ratios: Ratios {
            hub_cpu_to_verify: to(hub_cpu, Some(verify)),
            hub_cpu_to_floor: to(hub_cpu, hub_floor),
            client_cpu_to_floor: to(client_cpu, client_floor),
            payments_per_second_to_limit: to(Some(rate), most),
            p50_to_floor: late(latency_us.p50, latency_floor),
            p90_to_floor: late(latency_us.p90, latency_floor),
            p99_to_fdatasync_p99: late(latency_us.p99, sync_p99),
            p999_to_fdatasync_p99: late(latency_us.p999, sync_p99),
            max_to_fdatasync_p99: late(latency_us.max, sync_p99),
            commits_to_fdatasync: to(commits_per_second, Some(1e6 / sync_p50)),
            journal_bytes_to_reference: to(journal, Some(REFERENCE_BYTES)),
        },
        audit,
        audit_details,
    }
}
