//! From what was counted to what is printed: samples, their differences, and every figure beside its limit.

use std::time::{Duration, Instant};

use super::echo::{EchoCost, Shape};
use super::limits::{Crypto, Disk};
use super::meter::Totals;
use super::options::{BenchArgs, Mode, Plan};
use super::report::{
    Audit, CLIENT_HASHES, Credits, HUB_HASHES, Latency, Limits, REFERENCE_BYTES, Ratios, Report, Verdict, round,
};
use super::spawn::Status;

/// The state of everything at one instant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) totals: Totals,
    pub(super) hub_cpu: Option<Duration>,
    pub(super) own_cpu: Option<Duration>,
    pub(super) status: Option<Status>,
    pub(super) credits: u64,
}

/// What slices come to together.
#[derive(Debug, Default)]
pub(super) struct Sum {
    pub(super) time: Duration,
    pub(super) payments: u64,
    pub(super) frames: u64,
    pub(super) groups: u64,
    pub(super) credits: u64,
    pub(super) hub_cpu: Option<Duration>,
    pub(super) own_cpu: Option<Duration>,
    pub(super) commits: Option<u64>,
    pub(super) journal_bytes: Option<u64>,
}

impl Sum {
    pub(super) fn add(&mut self, from: &Sample, to: &Sample) {
        fn plus<T: std::ops::Add<Output = T> + Default>(sum: &mut Option<T>, more: Option<T>) {
            *sum = more.map(|more| sum.take().unwrap_or_default() + more);
        }
        self.time += to.at - from.at;
        self.payments += to.totals.paid - from.totals.paid;
        self.frames += to.totals.frames - from.totals.frames;
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

/// What was measured.
pub(super) struct Measured {
    pub(super) sum: Sum,
    pub(super) totals: Totals,
    pub(super) latency: hdrhistogram::Histogram<u64>,
    pub(super) crypto: Crypto,
    pub(super) disk: Disk,
    pub(super) echo: EchoCost,
    pub(super) shape: Option<Shape>,
    pub(super) rss_start: Option<u64>,
    pub(super) rss: Option<u64>,
    pub(super) own_rss: Option<u64>,
    pub(super) credits: Option<Credits>,
}

/// Frames of a lane that were on their way at one time, about.
pub(super) fn depth(plan: &Plan, sum: &Sum) -> usize {
    let in_flight = match plan.mode {
        Mode::Single => plan.window as u64,
        Mode::Adaptive => (plan.window as u64 * sum.frames).div_ceil(sum.payments.max(1)),
    };
    in_flight.clamp(1, 64) as usize
}

/// Puts the result together.
pub(super) fn assemble(
    args: &BenchArgs,
    plan: &Plan,
    measured: &Measured,
    audit: Verdict,
    audit_details: Audit,
) -> Report {
    let Measured { sum, latency, crypto, disk, echo, shape, .. } = measured;
    let seconds = sum.time.as_secs_f64();
    let payments = sum.payments.max(1) as f64;
    let per_payment = |value: Option<f64>| value.map(|value| round(value / payments));
    let us = |time: &Option<Duration>| time.map(|time| time.as_secs_f64() * 1e6);
    let (frames, signatures) = (sum.frames as f64 / payments, sum.groups as f64 / payments);
    let (verify, sign, hash) = (crypto.verify.us(), crypto.sign.us(), crypto.hash.us());
    let commits = sum.commits.map(|commits| commits as f64);
    let (hub_echo, own_echo) = (echo.hub_us(), echo.own_us());
    let single = plan.mode == Mode::Single;
    let hub_floor = hub_echo
        .map(|echo| if single { verify + echo } else { verify * signatures + echo * frames + HUB_HASHES * hash });
    let client_floor = own_echo.zip(commits).map(|(echo, commits)| {
        let checked = (commits * plan.connections as f64 / payments).min(signatures);
        let hashes = if single { 0.0 } else { CLIENT_HASHES * hash };
        (sign + echo) * frames + verify * checked + hashes
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
        window: (plan.rate.is_none() && plan.burst.is_none()).then_some(plan.window),
        rate: plan.rate,
        burst: plan.burst,
        spawned: args.spawn,
        seconds: round(seconds),
        slices: plan.slices,
        payments: sum.payments,
        payments_per_second: round(rate),
        frames_per_payment: (frames * 1e6).round() / 1e6,
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
