//! The Weir hub: channels, ledger, journal and settlement. `README.md` beside this crate is the operator's manual.

pub mod bank;
pub mod engine;
pub mod store;
