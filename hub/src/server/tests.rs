//! The server over real QUIC, with a minimal client of its own.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed test should say where")]

mod client;
mod door;
mod flows;
mod hostile;
mod interop;
