//! The load: lanes that pay, in a closed loop (the next payment when one is answered) or an open one (when it is due).
//!
//! Pays through `weir-client`'s public interface alone. Decides nothing about when to measure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::runtime::Handle;
use tokio::sync::watch;
use weir_client::{BatchOutcome, Lane, Outcome, PayError, PayOutcomes, PaySink};

use super::meter::Meter;
use super::orders::Orders;

/// Longest wait for the last outcomes.
const DRAIN: Duration = Duration::from_secs(60);
/// How often it is looked whether they have come.
const LOOK: Duration = Duration::from_millis(2);
/// The open loop looks at its clock so often; orders that became due in between go together.
const BEAT: Duration = Duration::from_micros(100);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Shut,
    Open,
    End,
}

/// Lanes under load.
#[derive(Debug)]
pub(super) struct Load {
    meter: Arc<Meter>,
    gate: watch::Sender<Gate>,
}

impl Load {
    /// A closed loop: each lane has up to `window` payments that wait for their outcomes.
    pub(super) fn closed(meter: &Arc<Meter>, lanes: Vec<(Lane, Orders)>, window: usize) -> Self {
        let gate = watch::Sender::new(Gate::Shut);
        for (index, (lane, orders)) in lanes.into_iter().enumerate() {
            let rider = Rider { index, orders, meter: Arc::clone(meter), gate: gate.subscribe() };
            if window == 1 {
                tokio::spawn(rider.one_by_one(lane));
            } else {
                tokio::spawn(rider.many(lane, window));
            }
        }
        Self { meter: Arc::clone(meter), gate }
    }

    /// An open loop: `rate` payments a second, lane after lane.
    pub(super) fn open(meter: &Arc<Meter>, lanes: Vec<(Lane, Orders)>, rate: u32) -> anyhow::Result<Self> {
        let gate = watch::Sender::new(Gate::Shut);
        let mut sinks = Vec::with_capacity(lanes.len());
        for (index, (lane, orders)) in lanes.into_iter().enumerate() {
            let (sink, outcomes) = lane.pay_many();
            sinks.push((sink, orders));
            tokio::spawn(hear(index, outcomes, Arc::clone(meter)));
        }
        let pacer = Pacer { sinks, rate, meter: Arc::clone(meter), gate: gate.subscribe() };
        let runtime = Handle::current();
        std::thread::Builder::new().name("pacer".to_owned()).spawn(move || pacer.run(&runtime))?;
        Ok(Self { meter: Arc::clone(meter), gate })
    }

    /// Payments flow from now on.
    pub(super) fn start(&self) {
        self.gate.send_replace(Gate::Open);
    }

    /// No more payments; waits until all are answered.
    pub(super) async fn stop(&self) -> anyhow::Result<()> {
        self.gate.send_replace(Gate::Shut);
        let until = Instant::now() + DRAIN;
        loop {
            let totals = self.meter.totals();
            if let Some(failure) = self.meter.failure() {
                return Err(anyhow!("{failure}"));
            }
            // Twice, so that an order that was just being given is seen.
            if totals.paid == totals.sent {
                tokio::time::sleep(LOOK).await;
                if self.meter.totals().sent == totals.sent {
                    return Ok(());
                }
            }
            if Instant::now() > until {
                let missing = totals.sent - totals.paid;
                return Err(anyhow!("{missing} payments have no outcome after {} seconds", DRAIN.as_secs()));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.gate.send_replace(Gate::End);
    }
}

/// Whoever makes the payments of one lane in a closed loop.
#[derive(Debug)]
struct Rider {
    index: usize,
    orders: Orders,
    meter: Arc<Meter>,
    gate: watch::Receiver<Gate>,
}

impl Rider {
    /// Waits until the gate is open; `false`: never again.
    async fn admitted(&mut self) -> bool {
        match self.gate.wait_for(|gate| *gate != Gate::Shut).await {
            Ok(gate) => *gate == Gate::Open,
            Err(_) => false,
        }
    }

    async fn one_by_one(mut self, lane: Lane) {
        while self.admitted().await {
            let order = self.orders.next();
            let begun = self.meter.now_ns();
            self.meter.sent(self.index, 1, order.amount.nanos());
            match lane.pay(order).await {
                Ok(Outcome::Paid(paid)) => self.meter.paid(self.index, paid.group(), std::iter::once(begun)),
                Ok(Outcome::Refused(refused)) => {
                    return self.meter.fail(format!("a payment was refused: {}", refused.reject));
                }
                Ok(Outcome::Unknown(_)) => return self.meter.fail("the outcome of a payment is unknown".to_owned()),
                Err(error) => return self.meter.fail(format!("a payment was not tried: {error}")),
            }
        }
    }

    async fn many(mut self, lane: Lane, window: usize) {
        let (sink, mut outcomes) = lane.pay_many();
        let mut waiting = 0;
        loop {
            if waiting == 0 && !self.admitted().await {
                return;
            }
            if waiting < window && *self.gate.borrow() == Gate::Open {
                let (orders, nanos) = self.orders.batch(window - waiting, self.meter.now_ns());
                self.meter.sent(self.index, orders.len() as u64, nanos);
                waiting = window;
                if let Err(error) = sink.send_all(orders).await {
                    return self.meter.fail(format!("payments were not tried: {error}"));
                }
            }
            let Some(outcome) = outcomes.next().await else { return };
            match told(self.index, &self.meter, &outcome) {
                Ok(count) => waiting -= count,
                Err(what) => return self.meter.fail(what),
            }
        }
    }
}

/// Hears the outcomes of one lane of an open loop.
async fn hear(index: usize, mut outcomes: PayOutcomes, meter: Arc<Meter>) {
    while let Some(outcome) = outcomes.next().await {
        if let Err(what) = told(index, &meter, &outcome) {
            return meter.fail(what);
        }
    }
}

/// Counts an outcome; how many payments it paid, or what went wrong.
fn told(index: usize, meter: &Meter, outcome: &BatchOutcome) -> Result<usize, String> {
    match outcome {
        BatchOutcome::Paid { group, payments } => {
            meter.paid(index, group, payments.iter().map(|(_, begun)| *begun));
            Ok(payments.len())
        }
        BatchOutcome::Refused { refused, .. } => Err(format!("a payment was refused: {}", refused.reject)),
        BatchOutcome::Unknown { .. } => Err("the outcome of a payment is unknown".to_owned()),
        BatchOutcome::Failed { error, .. } => Err(format!("a payment was not tried: {error}")),
    }
}

/// Gives orders when they are due, on a thread of its own: the runtime's timers are too coarse, and its threads are busy.
struct Pacer {
    sinks: Vec<(PaySink, Orders)>,
    rate: u32,
    meter: Arc<Meter>,
    gate: watch::Receiver<Gate>,
}

impl Pacer {
    fn run(mut self, runtime: &Handle) {
        while runtime.block_on(self.gate.wait_for(|gate| *gate != Gate::Shut)).is_ok_and(|gate| *gate == Gate::Open) {
            if let Err(error) = self.pace(runtime) {
                return self.meter.fail(format!("payments were not tried: {error}"));
            }
        }
    }

    /// From when the gate opened until it shuts. Order `n` is due `n / rate` seconds after the start and goes to lane
    /// `n mod lanes`; it may be given late, its latency counts from when it was due.
    fn pace(&mut self, runtime: &Handle) -> Result<(), PayError> {
        let start_ns = self.meter.now_ns();
        let due_ns = |n: u64, rate: u32| start_ns + (u128::from(n) * 1_000_000_000 / u128::from(rate)) as u64;
        let lanes = self.sinks.len() as u64;
        let mut given = 0;
        while *self.gate.borrow() == Gate::Open {
            let now_ns = self.meter.now_ns();
            let mut due = given;
            while due_ns(due, self.rate) <= now_ns {
                due += 1;
            }
            // A lane at a time, so that what is due together travels together.
            for lane in 0..lanes.min(due - given) {
                let first = given + lane;
                let Some((sink, orders)) = self.sinks.get_mut((first % lanes) as usize) else { continue };
                let mut nanos = 0;
                let batch: Vec<_> = (first..due)
                    .step_by(lanes as usize)
                    .map(|n| {
                        let order = orders.next();
                        nanos += order.amount.nanos();
                        (due_ns(n, self.rate), order)
                    })
                    .collect();
                self.meter.sent((first % lanes) as usize, batch.len() as u64, nanos);
                runtime.block_on(sink.send_all(batch))?;
            }
            given = due;
            let next = self.meter.instant(due_ns(given, self.rate));
            std::thread::sleep(next.saturating_duration_since(Instant::now()).min(BEAT));
        }
        Ok(())
    }
}
