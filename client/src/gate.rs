//! Being paid over HTTP: the gate in front of a web server, and the same in process for services written in Rust.
//!
//! ```text
//! request ─► proxy ─► service ─► desk: price table, what is shown, balances ─► serve │ demand │ refuse
//!                        └────► proxy: forward, count with a meter, draw before the answer's end
//! ```
//!
//! What a request costs is [`price`]'s, what the answer used [`meter`]'s; [`config`] reads both from a file, and [`check`]
//! tells people what the file means. [`balance`] keeps what each receipt still buys, durably. [`site`] issues challenges and
//! proves what is shown; [`page`] is what people see. [`desk`] decides, [`proxy`] moves bytes, [`service`] is the running gate,
//! [`layer`] the same in process, [`ops`] what its operator sees of it and does.

pub mod balance;
pub mod check;
pub mod config;
pub mod desk;
pub mod layer;
pub mod meter;
pub mod ops;
pub mod page;
pub mod price;
pub mod proxy;
pub mod service;
pub mod site;
#[cfg(test)]
mod testing;
pub mod trust;
