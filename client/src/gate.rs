//! Being paid over HTTP: the payee's side.
//!
//! - [`balance`] keeps what each receipt still buys, durably.

pub mod balance;
