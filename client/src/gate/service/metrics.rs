//! What happened at the gate, for Prometheus: counts and sums, without names of payers or paths.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use weir_protocol::amount::Amount;
use weir_protocol::http::problem::PaymentProblem;

use crate::gate::balance::Balances;
use crate::gate::ops::shapes::{RefundOutcome, Refunded};
use crate::gate::proxy::Ending;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// It cost nothing.
    Free,
    /// It was one of a visitor's free requests.
    Quota,
    /// It was charged.
    Served,
    /// It was paid before.
    Again,
    /// It was refused.
    Refused,
    /// Its charge was not durable: the answer was broken off.
    Withheld,
    /// Its units were not known.
    Unreported,
    /// A person's payment was claimed.
    Claimed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    why: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefundLabel {
    outcome: &'static str,
}

/// The counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<OutcomeLabel, Counter>,
    demands: Family<Why, Counter>,
    released: Family<Why, Counter>,
    drawn_nanos: Counter,
    in_flight: Gauge,
    balances: Gauge<u64, AtomicU64>,
    closed: Gauge,
    queued: Gauge<u64, AtomicU64>,
    refunds: Family<RefundLabel, Counter>,
    refunded_nanos: Counter,
    unshown: Gauge<u64, AtomicU64>,
    unshown_nanos: Gauge<u64, AtomicU64>,
    hub_connected: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(false)
    }
}

impl Metrics {
    /// Nothing yet. `follows`: the gate hears of the payee's credits.
    pub fn new(follows: bool) -> Self {
        let mut registry = Registry::with_prefix("weir_gate");
        let metrics = Self {
            requests: Family::default(),
            demands: Family::default(),
            released: Family::default(),
            drawn_nanos: Counter::default(),
            in_flight: Gauge::default(),
            balances: Gauge::default(),
            closed: Gauge::default(),
            queued: Gauge::default(),
            refunds: Family::default(),
            refunded_nanos: Counter::default(),
            unshown: Gauge::default(),
            unshown_nanos: Gauge::default(),
            hub_connected: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("requests", "Requests by what became of them", metrics.requests.clone());
        registry.register("demands", "Demands by what was wrong with what was shown", metrics.demands.clone());
        registry.register(
            "released",
            "Paid requests that were not charged, by how they ended",
            metrics.released.clone(),
        );
        registry.register("drawn_nanos", "What was charged, in nanos of the currency", metrics.drawn_nanos.clone());
        registry.register("paid_in_flight", "Paid requests under way", metrics.in_flight.clone());
        registry.register("balances", "Balances that are known", metrics.balances.clone());
        registry.register("store_closed", "1: the balance store takes nothing more", metrics.closed.clone());
        registry.register("store_queued", "Records on their way to the disk", metrics.queued.clone());
        registry.register("refunds", "Refunds by what became of them", metrics.refunds.clone());
        registry.register(
            "refunded_nanos",
            "What was given back, in nanos of the currency",
            metrics.refunded_nanos.clone(),
        );
        registry.register(
            "unshown",
            "Payments whose receipt was never shown and that were not refunded",
            metrics.unshown.clone(),
        );
        registry.register("unshown_nanos", "What was paid with them, in nanos", metrics.unshown_nanos.clone());
        if follows {
            registry.register("hub_connected", "1: the hub is heard", metrics.hub_connected.clone());
        }
        Self { registry, ..metrics }
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.requests.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(super) fn demanded(&self, problem: PaymentProblem) {
        self.demands.get_or_create(&Why { why: problem.as_str() }).inc();
    }

    pub(super) fn released(&self, ending: Ending) {
        let why = match ending {
            Ending::Complete => "upstream_refused",
            Ending::NotSent => "not_sent",
            Ending::ConnectFailed => "connect_failed",
            Ending::UpstreamFailed(_) => "upstream_failed",
            Ending::TimedOut(_) => "timed_out",
            Ending::RequestFailed(_) => "request_failed",
            Ending::ClientGone => "client_gone",
            Ending::Stopped => "stopped",
            Ending::ShutDown => "shut_down",
        };
        self.released.get_or_create(&Why { why }).inc();
    }

    pub(super) fn drawn(&self, amount: Amount) {
        self.drawn_nanos.inc_by(amount.nanos());
    }

    pub(super) fn began(&self) {
        self.in_flight.inc();
    }

    pub(super) fn ended(&self) {
        self.in_flight.dec();
    }

    /// Paid requests under way.
    pub fn in_flight(&self) -> i64 {
        self.in_flight.get()
    }

    pub(super) fn refunded(&self, done: &Refunded) {
        self.refunds.get_or_create(&RefundLabel { outcome: done.outcome.as_str() }).inc();
        // With a commit the hub has done it now; without one it was done before.
        if let (RefundOutcome::Refunded, Some(amount), Some(_)) = (done.outcome, done.amount, done.commit) {
            self.refunded_nanos.inc_by(amount.nanos());
        }
    }

    pub(super) fn hub_connected(&self, connected: bool) {
        self.hub_connected.set(i64::from(connected));
    }

    /// All of it as text, with the store's state of this moment.
    pub fn text(&self, balances: &Balances) -> String {
        let load = balances.load();
        self.balances.set(load.balances as u64);
        self.queued.set(load.queued as u64);
        self.closed.set(i64::from(load.closed));
        self.unshown.set(load.unshown as u64);
        let unshown: u128 = balances.totals().iter().map(|(_, totals)| totals.unshown_nanos).sum();
        self.unshown_nanos.set(u64::try_from(unshown).unwrap_or(u64::MAX));
        let mut text = String::new();
        // Writing to memory does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
