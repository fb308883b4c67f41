//! Being paid over HTTP: the gate before a web server.
//!
//! What a request costs is [`price`]'s, what the answer used [`meter`]'s; [`config`] reads both from a file, and [`check`]
//! tells people what the file means.

pub mod check;
pub mod config;
pub mod meter;
pub mod price;
