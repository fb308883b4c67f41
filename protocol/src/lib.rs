//! Weir's protocol: the bytes that are signed, the messages that carry them, and the lane as a state machine on both
//! sides. `README.md` beside this crate is the same as a specification.
//!
//! Owns every signed preimage and every wire message. Must not do I/O, read a clock, or draw random numbers: time,
//! seeds and keys are arguments.
#![warn(missing_docs, clippy::indexing_slicing)]

pub mod act;
pub mod amount;
mod bytes;
pub mod channel;
pub mod commit;
pub mod evidence;
pub mod hash;
pub mod http;
pub mod id;
pub mod keys;
pub mod lane;
pub mod merkle;
pub mod payment;
#[cfg(feature = "planted-bugs")]
pub mod planted;
pub mod receipt;
pub mod reject;
pub mod wire;

pub use bytes::HexError;
