//! The integration tests of the workspace, in one binary: one module a subject.
#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

mod architecture;
mod axum_service;
mod bench;
mod concurrency;
mod debit;
mod faults;
mod fetch;
mod gate;
mod gate_ops;
mod hostile;
mod kill;
mod main_job;
mod proofs;
mod recovery;
mod round_trips;
mod scale;
mod sim;
mod tour;

/// The hub's command line.
const HUB: &str = env!("CARGO_BIN_EXE_e2e_hub");
/// A payer's process.
const PAYER: &str = env!("CARGO_BIN_EXE_e2e_payer");
