//! The hub's threads: shards judge, one committer makes durable, and nothing is said before (DESIGN §5).
//!
//! ```text
//! server ──Input──► shard thread ──Bundle──► committer thread ──► journal, then answers and credits
//!                      ▲                          │
//!                      └──── notices, decisions ──┘
//! ```
//!
//! - [`recover`]: from the data directory to a running pipeline.
//! - `shard`, `committer`: the two loops. They own their state; a message is a value.
//! - `gate`: keeps a commit's time at or before every judgement that will join it.
//! - [`handle`]: what the server, the operator's socket and settlement hold.
//! - [`compact`]: writes snapshots from the journal, away from the hot path.

mod committer;
pub mod compact;
mod gate;
pub mod handle;
pub mod recover;
mod shard;

pub use handle::{Handle, ReplyTo, View};
