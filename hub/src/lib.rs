//! The Weir hub: channels, ledger, journal and settlement. `README.md` beside this crate is the operator's manual.

pub mod bank;
pub mod clock;
pub mod details;
pub mod engine;
pub mod pipeline;
pub mod server;
pub mod settlement;
pub mod store;
