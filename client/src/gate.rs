//! Being paid over HTTP: the gate in front of a web server, and the same in process for services written in Rust.

pub mod balance;
pub mod page;
pub mod site;
pub mod trust;
