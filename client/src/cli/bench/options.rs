//! What `weir bench` is told, and what follows from it. Everything that can be refused is refused here, before anything is
//! started.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use serde::Serialize;
use weir_client::LaneOptions;
use weir_client::protocol::amount::Amount;
use weir_client::protocol::id::AccountId;
use weir_client::protocol::lane::payer::Limits;

use super::super::failure::Failure;

/// Lanes that one connection carries: a hub gives a connection 256 streams, and some are for other things.
const LANES_PER_CONNECTION: u64 = 250;
/// Connections at most: a hub lets one address have 1,024.
const CONNECTIONS_MAX: u32 = 1_000;
/// Orders of a lane whose outcomes are awaited, over all lanes, when nobody says otherwise (adaptive).
const ADAPTIVE_OUTSTANDING: u64 = 256 * 1024;
/// Most and least of them on one lane. Most: a quarter of what [`weir_client::PaySink`] lets wait.
const ADAPTIVE_WINDOW: (u64, u64) = (64, 16 * 1024);
/// Largest window: what [`weir_client::PaySink`] lets wait.
const WINDOW_MAX: u32 = 64 * 1024;
/// The most that one bank transfer carries (ISO 20022, two decimal places).
const TRANSFER_MAX: &str = "999999999.99";
const TRANSFER_MAX_NANOS: u64 = 999_999_999_990_000_000;
/// A slice is about so long when nobody says otherwise.
const SLICE_S: u32 = 5;

/// How payments share signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    /// One signature for each payment, no batching: a frame holds one payment.
    Single,
    /// The library's habit: payments that wait share a signature.
    Adaptive,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weir bench --spawn\n  weir bench --spawn --mode single --channels 1000 --seconds 20 --json\n  weir bench --spawn --channels 1 --subscribe\n  weir bench --channels 4 --capacity 0.10   (from this home, at its hub)\n\nHow to read the result: client/README.md, \"Measuring a hub\"."
)]
pub(crate) struct BenchArgs {
    /// Start a hub of its own with a sandbox bank, and stop and audit it afterwards. Without this: the home's hub.
    #[arg(long)]
    pub(super) spawn: bool,
    /// The program `weir-hub` [default: the one beside `weir`, then the one on the PATH].
    #[arg(long, value_name = "FILE", env = "WEIR_HUB_BIN")]
    pub(super) hub_bin: Option<PathBuf>,
    /// Where the spawned hub's data go, in a folder that is removed at the end; a real disk [default: the current
    /// folder].
    #[arg(long, value_name = "DIR", requires = "spawn")]
    pub(super) data: Option<PathBuf>,
    /// Leave the spawned hub's data and the homes there.
    #[arg(long, requires = "spawn")]
    pub(super) keep: bool,
    /// Channels that pay.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) channels: u32,
    /// Lanes of each channel.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) lanes: u32,
    /// Accounts that are paid.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) payees: u32,
    /// Connections over which channels are spread, each from a home of its own [default: a channel each, at most 8].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX)))]
    pub(super) connections: Option<u32>,
    /// How long is measured.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(super) seconds: u32,
    /// Seconds under load before measuring begins.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=3_600))]
    pub(super) warmup: u32,
    /// Slices of the measured time; the raw limits are measured between them [default: one; in mode single without
    /// `--rate`, one each 5 seconds].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) slices: Option<u32>,
    /// How payments share signatures.
    #[arg(long, value_enum, default_value_t = Mode::Adaptive)]
    pub(super) mode: Mode,
    /// Payments of a lane that wait for their outcomes: the next is given when one is answered [default: single: 1;
    /// adaptive: 262,144 over all lanes, 64 to 16,384 on each].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(WINDOW_MAX)))]
    pub(super) window: Option<u32>,
    /// Open loop: so many payments a second over all lanes, answered or not. Latency counts from the instant at which a
    /// payment was due, so no pause is hidden.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) rate: Option<u32>,
    /// So many payments at once, over all lanes, and no more: how long until all are answered.
    #[arg(long, value_name = "N", conflicts_with_all = ["rate", "slices"], value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) burst: Option<u32>,
    /// Every payment goes to one payee, who subscribes and checks every credit.
    #[arg(long)]
    pub(super) subscribe: bool,
    /// An account to pay; may be repeated [default: accounts of its own, kept in the home].
    #[arg(long, value_name = "ACCOUNT", conflicts_with_all = ["spawn", "subscribe", "payees"])]
    pub(super) payee: Vec<AccountId>,
    /// What each channel can spend, in units [default: 1000 with `--spawn`, else 1]. A payment is at most 1,000 nanos.
    #[arg(long, value_name = "AMOUNT")]
    pub(super) capacity: Option<Amount>,
    /// Makes payees, amounts and references the same again.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(super) seed: u64,
    /// The data directory of the home's hub, if it runs on this machine: then its CPU, memory and journal are measured.
    #[arg(long, value_name = "DIR", conflicts_with = "spawn")]
    pub(super) hub_data: Option<PathBuf>,
    /// Do not ask before money of the home is spent.
    #[arg(long)]
    pub(super) yes: bool,
}

/// What follows from the options.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) mode: Mode,
    pub(super) channels: usize,
    pub(super) lanes: usize,
    pub(super) connections: usize,
    pub(super) payees: usize,
    pub(super) seconds: u32,
    pub(super) warmup: u32,
    pub(super) slices: u32,
    /// Orders of a lane whose outcomes are awaited, in a closed loop.
    pub(super) window: usize,
    pub(super) rate: Option<u32>,
    /// Payments at once, and no more.
    pub(super) burst: Option<u32>,
    pub(super) subscribe: bool,
    pub(super) capacity: Amount,
    pub(super) seed: u64,
}

impl BenchArgs {
    /// Whether it pays from the home.
    pub(crate) const fn needs_home(&self) -> bool {
        !self.spawn
    }

    pub(super) fn plan(&self) -> Result<Plan, Failure> {
        let connections = self.connections.unwrap_or(self.channels.min(8));
        if connections > self.channels {
            let error = anyhow!("{connections} connections need as many channels, not {}", self.channels);
            return Err(Failure::usage(error).hint(format!("give `--channels {connections}`, or fewer connections")));
        }
        let lanes = u64::from(self.channels) * u64::from(self.lanes);
        let busiest = u64::from(self.channels.div_ceil(connections)) * u64::from(self.lanes);
        if busiest > LANES_PER_CONNECTION {
            let error = anyhow!("{busiest} lanes on a connection are more than the {LANES_PER_CONNECTION} that fit");
            let needed = lanes.div_ceil(LANES_PER_CONNECTION);
            return Err(Failure::usage(error).hint(format!("give `--connections {needed}` or more")));
        }
        let slices = self.slices.unwrap_or(match self.mode {
            Mode::Single if self.rate.is_none() && self.burst.is_none() => (self.seconds / SLICE_S).max(1),
            _ => 1,
        });
        if slices > self.seconds && self.burst.is_none() {
            return Err(Failure::usage(anyhow!("a slice is at least a second: `--slices` is above `--seconds`")));
        }
        let (least, most) = ADAPTIVE_WINDOW;
        let window = match (self.window, self.mode) {
            (Some(window), _) => u64::from(window),
            (None, Mode::Single) => 1,
            (None, Mode::Adaptive) => (ADAPTIVE_OUTSTANDING / lanes).clamp(least, most),
        };
        let usual = if self.spawn { 1_000 } else { 1 };
        let capacity = self.capacity.unwrap_or(Amount::from_nanos(usual * 1_000_000_000));
        if capacity.is_zero() || capacity.floor_to_minor(2) != capacity {
            return Err(Failure::usage(anyhow!("`--capacity` is above zero, with at most two decimal places")));
        }
        let held = u64::from(self.channels.div_ceil(connections)).saturating_mul(capacity.nanos());
        if self.spawn && held > TRANSFER_MAX_NANOS {
            let error =
                anyhow!("the channels of a connection hold more than the {TRANSFER_MAX} that a bank transfers at once");
            return Err(Failure::usage(error).hint("give a smaller `--capacity`, or more connections"));
        }
        Ok(Plan {
            mode: self.mode,
            channels: self.channels as usize,
            lanes: self.lanes as usize,
            connections: connections as usize,
            payees: if self.subscribe { 1 } else { self.payees as usize },
            seconds: self.seconds,
            warmup: self.warmup,
            slices,
            window: window as usize,
            rate: self.rate,
            burst: self.burst,
            subscribe: self.subscribe,
            capacity,
            seed: self.seed,
        })
    }
}

impl Plan {
    /// Lanes in all.
    pub(super) const fn all_lanes(&self) -> usize {
        self.channels * self.lanes
    }

    /// What the lanes are asked to keep to.
    pub(super) fn lane_options(&self) -> LaneOptions {
        let limits = match self.mode {
            Mode::Single => {
                Limits { frames: self.window, payments: self.window, frame_payments: 1, ..Limits::default() }
            }
            Mode::Adaptive => Limits::default(),
        };
        LaneOptions { limits }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn plan(line: &str) -> Result<Plan, Failure> {
        Line::try_parse_from(std::iter::once("bench").chain(line.split_whitespace())).unwrap().bench.plan()
    }

    #[test]
    fn defaults_follow_from_channels_and_mode() {
        let usual = plan("--spawn").unwrap();
        assert_eq!((usual.channels, usual.connections, usual.payees, usual.slices), (100, 8, 100, 1));
        let few = plan("--spawn --channels 3").unwrap();
        assert_eq!((few.connections, few.window), (3, 16 * 1024));
        let single = plan("--spawn --mode single --seconds 20").unwrap();
        assert_eq!((single.window, single.slices), (1, 4));
        assert_eq!(single.lane_options().limits.frame_payments, 1);
        assert_eq!(plan("--spawn --mode single --seconds 20 --rate 9").unwrap().slices, 1);
        assert_eq!(plan("--spawn --subscribe").unwrap().payees, 1);
    }

    #[test]
    fn plans_that_cannot_be_are_refused_on_both_sides_of_each_limit() {
        let good = [
            "--channels 250 --connections 1",
            "--channels 8 --connections 8",
            "--seconds 2 --slices 2",
            "--spawn --capacity 999999999.99 --channels 2 --connections 2",
        ];
        for good in good {
            assert!(plan(good).is_ok(), "{good}");
        }
        let bad = [
            "--channels 251 --connections 1",
            "--channels 126 --lanes 2 --connections 1",
            "--channels 8 --connections 9",
            "--seconds 2 --slices 3",
            "--capacity 0",
            "--capacity 0.001",
            "--spawn --capacity 999999999.99 --channels 2 --connections 1",
        ];
        for bad in bad {
            assert!(plan(bad).is_err(), "{bad}");
        }
    }
}
