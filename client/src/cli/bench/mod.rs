//! `weir bench`: a hub under load, measured from outside by a client that believes nothing it has not checked.
//!
//! - `options`: what it is told. `spawn`: a hub of its own. `people`: homes, accounts, channels, lanes.
//! - `load`: closed and open loops; `orders`: what is paid; `meter`: what is counted; `listen`: the payee who subscribes.
//! - `limits`, `echo`: what the machine can do at best, between the slices of the load. `process`: CPU and memory.
//! - `run`: one run from its beginning to its audit. `report`: the result.
//!
//! Measures, and decides nothing about payments.
#![expect(clippy::cast_precision_loss, reason = "figures for people: three digits of them count")]

mod echo;
mod limits;
mod listen;
mod load;
mod meter;
mod options;
mod orders;
mod people;
mod process;
mod report;
mod run;
mod spawn;

use tokio::signal::unix::{SignalKind, signal};

pub(super) use options::BenchArgs;

use super::context::Context;
use super::failure::{Failure, INTERRUPTED};

/// Runs the command.
pub(super) fn bench(context: &Context, args: &BenchArgs) -> Result<(), Failure> {
    let plan = args.plan()?;
    if args.needs_home() {
        context.unlock()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        // Whatever was started ends when the run is dropped.
        tokio::select! {
            done = run::run(context, args, &plan) => done,
            _ = interrupt.recv() => Err(interrupted(context)),
            _ = terminate.recv() => Err(interrupted(context)),
        }
    });
    runtime.shutdown_background();
    done
}

fn interrupted(context: &Context) -> Failure {
    let failure = Failure::from(anyhow::anyhow!("interrupted")).exit_with(INTERRUPTED);
    match context.interruption() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
