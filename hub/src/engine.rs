//! The engine: channels, lanes, ledger. Pure and synchronous: inputs → effects. No clock, no random source, no I/O:
//! time, secrets and keys are arguments. The pipeline's threads drive it live, the simulator drives the same code.
//!
//! - [`channel`], [`channels`]: what a shard owns; the rules of lanes, closes, rolls.
//! - [`books`], [`ledger`], [`limits`], [`windows`]: what the committer owns; accounts, balances, the operator's bounds,
//!   settlement windows.
//! - [`shard`]: judges and stages what arrives for its channels.
//! - [`restriction`]: what shards hold to before an act is committed.
//! - [`committer`]: decides what debits an account, orders everything into commits, and lets answers out once they are
//!   durable.
//! - [`operators`], [`fees`]: who may say what about settlement, and what the hub takes.
//! - [`record`]: a commit as it is journaled.
//! - [`said`]: what the hub says to somebody, once it may.
//! - [`state`]: all of it together, for recovery, snapshots and audit.
//!
//! What is absent: streams and sockets (`server`), files (`store`, `bank`), threads and queues (`pipeline`).

pub mod books;
pub mod channel;
pub mod channels;
pub mod collections;
pub mod committer;
pub mod fees;
pub mod ledger;
pub mod limits;
pub mod operators;
pub mod payout;
pub mod record;
pub mod restriction;
pub mod said;
pub mod shard;
pub mod state;
pub mod unmatched;
pub mod windows;

pub use weir_protocol::reject::Reject;
