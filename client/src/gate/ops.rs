//! The operator's side of a gate: balances, refunds, payments that were never shown, the hub's certificates.
//!
//! A store has one owner, so a running gate answers its operator on a socket ([`socket`]); when none runs, the same code
//! ([`till`]) works on the opened store. Money goes back by [`refund`] alone. [`follow`] notes the payee's credits, and
//! [`issued`] says which of them are the gate's. Nothing here is on the way of a request.

pub mod certificates;
pub mod follow;
pub mod issued;
pub mod refund;
pub mod shapes;
#[cfg(unix)]
pub mod socket;
pub mod till;
