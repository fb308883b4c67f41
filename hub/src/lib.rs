//! The Weir hub: channels, ledger, journal and settlement. `README.md` beside this crate is the operator's manual.

pub mod admin;
pub mod audit;
pub mod bank;
pub mod cli;
pub mod clock;
pub mod config;
pub mod details;
pub mod dev;
pub mod engine;
pub mod keys;
pub mod pipeline;
pub mod report;
pub mod schedule;
pub mod server;
pub mod settlement;
pub mod store;
