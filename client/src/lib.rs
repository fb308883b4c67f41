//! Pay and be paid through a Weir hub.
//!
//! ```no_run
//! # async fn tour() -> Result<(), Box<dyn std::error::Error>> {
//! use weir_client::{Client, Home, Order, Outcome, PlainKeys};
//!
//! let home = Home::open("payer", PlainKeys::sealer())?;
//! let client = Client::start(home)?;
//! let lane = client.lane("3f…".parse()?)?;
//! let order = Order { payee: "weir1…".parse()?, amount: "0.05".parse()?, reference: "7d…".parse()?, deadline: None };
//! match lane.pay(order).await? {
//!     Outcome::Paid(paid) => println!("{}", paid.receipt()?.amount),
//!     Outcome::Refused(refused) => println!("refused for good: {}", refused.reject),
//!     Outcome::Unknown(again) => println!("ask again with {}", again.order.reference),
//! }
//! # Ok(()) }
//! ```
//!
//! - [`Home`] is what a client keeps on disk: keys, channels, lanes with their marks and paid groups. One process holds it.
//! - [`Client`] talks to the hub that the home names, over one connection that it makes again when it breaks.
//! - [`Lane`] pays. The reference of an order is its idempotency key: a retry never pays twice, across crashes too.
//! - [`Credits`] tells a payee of every payment, each once, resumable.
//!
//! Owns connections, files and tasks. The rules of a lane are [`weir_protocol::lane::payer`]'s; nothing here decides what
//! becomes of a payment.

mod acts;
mod client;
mod connection;
mod credit;
mod error;
#[cfg(test)]
mod fake;
#[cfg(feature = "fetch")]
pub mod fetch;
mod framing;
#[cfg(feature = "gate")]
pub mod gate;
mod home;
mod lane;
mod proofs;
mod queries;
mod span;
mod tls;

pub use acts::{Grant, NewMandate, Opened, Opening, RefundPlace};
pub use client::Client;
pub use connection::{Connection, REQUEST_TIMEOUT, quic_config, quic_endpoint};
pub use credit::{CreditEvent, Credited, CreditedGroup, Credits, Hearing};
pub use error::{Error, HomeError, HubEvidence, InfraError, LaneStopped, MisuseError, PayError};
pub use home::{ChannelRecord, Home, KeySealer, LaneRecord, PlainKeys, RecordState, Sealer};
pub use lane::{BatchOutcome, Lane, LaneOptions, LaneStatus, Outcome, Paid, PayOutcomes, PaySink, Refused, Retry};
pub use proofs::SharedProofs;
pub use span::{Span, SpanError};
pub use weir_protocol as protocol;
pub use weir_protocol::lane::payer::{Finality, Order, PaidGroup};

/// The guide's code is compiled with the documentation's tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Guide;
