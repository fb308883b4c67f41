//! The Weir hub: channels, ledger, journal and settlement.

pub mod store;
