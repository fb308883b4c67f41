//! The real binary, as an operator uses it: processes, sockets, files, kills.
#![expect(clippy::unwrap_used, reason = "a failed test should say where")]

mod bank;
mod books;
mod hub;
mod life;
mod operators;
mod refused;
mod window;
