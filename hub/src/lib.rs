//! The Weir hub.

pub mod bank;
