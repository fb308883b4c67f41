//! The simulator: payers, payees, an operator with its bank, a malicious peer and the hub's own engine, lanes and store,
//! driven from one seed over a simulated network, clock and disk. See `World`.
//!
//! A `model` written apart from the engine checks the invariants after every commit and keeps everything that callers
//! were told. At the end the faults stop, and everything must come to rest settled.

mod control;
mod cx;
mod hub;
mod log;
mod model;
mod net;
mod operator;
mod person;
mod random;
mod rogue;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use weir_protocol::act::Act;

pub use log::Failure;
use world::World;

/// What to simulate.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// Operations of callers, clients and the operator.
    pub operations: u64,
    /// Run with this bug in the product.
    #[cfg(feature = "planted-bugs")]
    pub bug: Option<weir_protocol::planted::Bug>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Operations made.
    pub operations: u64,
    /// Commits.
    pub commits: u64,
    /// Payments in them.
    pub payments: u64,
    /// Crashes of the hub.
    pub crashes: u64,
    /// Hash of all events.
    pub hash: u64,
    /// Situations that came up, with how often.
    pub reached: BTreeMap<String, u64>,
    /// What did not hold, and the last events.
    pub failure: Option<(Failure, Vec<String>)>,
}

/// Runs one seed.
pub fn run(options: Options) -> Report {
    #[cfg(feature = "planted-bugs")]
    weir_protocol::planted::plant(options.bug);
    let mut world = match World::new(options) {
        Ok(world) => world,
        Err(failure) => return Report::failed_early(options.seed, failure),
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    let failure = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("something that is no text");
            Some(Failure(format!("an assertion in the product failed: {text}")))
        }
    };
    world.report(failure)
}

impl Report {
    const fn failed_early(seed: u64, failure: Failure) -> Self {
        let reached = BTreeMap::new();
        let failure = Some((failure, Vec::new()));
        Self { seed, operations: 0, commits: 0, payments: 0, crashes: 0, hash: 0, reached, failure }
    }
}

/// The first bytes of an id.
fn brief(id: &[u8; 32]) -> String {
    let [a, b, c, ..] = id;
    format!("{a:02x}{b:02x}{c:02x}")
}

/// An act in a few words.
fn short(act: &Act) -> String {
    match act {
        Act::Chain(_) => "chain".into(),
        Act::Certificate(_) => "certificate".into(),
        Act::Policy(act) => format!("policy: at most {}", act.payment_max),
        Act::Register(act) => format!("register {} as {}", brief(act.account.as_bytes()), act.number),
        Act::Approve(act) => format!("approve {}", brief(act.account.as_bytes())),
        Act::Freeze(act) => {
            format!("freeze {}: in {}, out {}", brief(act.account.as_bytes()), act.incoming, act.outgoing)
        }
        Act::Deposit(act) => format!("deposit {} ({})", act.amount, act.bank_reference),
        Act::Open(terms) => format!("open {} with {}", brief(&terms.id().0), terms.capacity),
        Act::Grant(grant) => format!("grant lane {} of {}", grant.lane, brief(&grant.channel.0)),
        Act::Revoke(act) => format!("revoke lane {} of {}", act.lane, brief(&act.channel.0)),
        Act::Amend(act) => format!("amend {} to {}", brief(&act.channel.0), act.capacity),
        Act::Void(act) => format!("void through {}", act.void_through),
        Act::CloseRequest(act) => format!("close {}", brief(&act.channel.0)),
        Act::Close(act) => format!("closed {}", brief(&act.channel.0)),
        Act::Roll(act) => format!("roll {}", brief(&act.channel.0)),
        Act::Refund(act) => format!("refund {} to {}", brief(&act.payment_id.0), act.refunded_total),
        Act::Withdraw(act) => format!("withdraw {}", act.marked),
        Act::Cutoff(act) => format!("cut off {}", act.window),
        Act::Plan(act) => format!("plan {}: {} payouts", act.window, act.payouts),
        Act::Instruct(act) => format!("instruct {}", act.window),
        Act::Outcome(act) => format!("outcome in {}: {:?} {}", act.window, act.outcome, act.amount),
        Act::Settled(act) => format!("settled {}", act.window),
        Act::Debit(act) => format!("debit {} ({:?}, {})", act.amount, act.cause, act.bank_reference),
        Act::Allocate(act) => format!("allocate {} ({})", act.amount, act.bank_reference),
        Act::Statement(act) => format!("statement {}", act.statement),
        Act::Operator(act) => format!("operator {}: {}", brief(&act.key.0), act.stands),
        Act::Approval(act) => format!("approval of {} by {}", act.window, brief(&act.operator.0)),
        Act::Abort(act) => format!("abort {}", act.window),
        Act::Fees(act) => format!("fees of {}: {}", brief(act.account.as_bytes()), act.schedule.basis_points),
        Act::ForceFinal(act) => format!("last payouts in {}", act.window),
        Act::Limits(act) => {
            format!("limits: {} a payment, {} in all, {} a day", act.payment_max, act.balance_max, act.day_max)
        }
        Act::Mandate(act) => {
            format!("mandate {} of {}: ends {}", act.mandate_id, brief(act.account.as_bytes()), act.revoked)
        }
        Act::MandateTerms(act) => format!("mandate {}: accepted {}", act.mandate_id, act.accepted),
        Act::Collect(act) => format!("collect {} as {}", act.amount, act.collection),
        Act::Collected(act) => format!("collected {}: {:?}", act.collection, act.word),
        Act::ApproveCollect(act) => {
            format!("agree to direct debit {}: {}", act.collect.collection, act.approved)
        }
        Act::ApproveIban(act) => format!("approve the bank account of {}", brief(act.account.as_bytes())),
        Act::Earnings(act) => format!("earnings of {}: {:?}", brief(act.account.as_bytes()), act.becomes),
    }
}
