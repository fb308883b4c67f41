//! Paying over HTTP: what a server demands with a 402 is paid within a budget, and what was bought is kept.
//!
//! ```no_run
//! # async fn tour() -> Result<(), Box<dyn std::error::Error>> {
//! use std::collections::BTreeMap;
//! use std::sync::Arc;
//! use weir_client::fetch::{self, LanePurse, Limits, Options, PayMiddleware, Payer, Store};
//! use weir_client::{Client, Home, PlainKeys};
//!
//! let client = Client::start(Home::open("payer", PlainKeys::sealer())?)?;
//! let lane = client.home().lanes()?.first().map(weir_client::LaneRecord::id).ok_or("open a channel first")?;
//! let limits = Limits { per_request: Some("0.05".parse()?), per_period: Some("2.00".parse()?), ..Limits::default() };
//! let store = Store::open(client.home().path(), BTreeMap::from([("EUR".parse()?, limits)]), fetch::DAY_MS)?;
//! let payer = Payer::new(Arc::new(LanePurse::new(&client, lane)?), store, Options::default());
//! let web = reqwest_middleware::ClientBuilder::new(fetch::client(None, None)?).with(PayMiddleware::new(payer)).build();
//!
//! let answer = web.get("http://news.example/article").send().await?;
//! if let Some(paid) = answer.extensions().get::<fetch::Paid>() {
//!     println!("paid {} {}, {} left there", paid.paid, paid.currency, paid.left);
//! }
//! # Ok(()) }
//! ```
//!
//! - [`budget`]: what may be spent. [`wallet`]: what was bought. [`store`]: both on disk, one log in the home.
//! - [`demand`]: which challenge of a 402 is ours. [`purse`]: who pays. [`pay`]: when to pay, and what an answer means.
//! - [`middleware`] sends, with [`web`] underneath, and hears at a metered answer's end what it came to; [`proxy`] does it for
//!   programs in any language.
//!
//! The rule that everything keeps: one logical request is paid for at most once. What was paid and not served is shown
//! again, never paid again; what nobody knows the outcome of is asked about.

pub mod budget;
pub mod demand;
pub mod middleware;
pub mod pay;
pub mod proxy;
pub mod purse;
pub mod store;
mod tail;
#[cfg(test)]
mod tests;
pub mod wallet;
pub mod web;

pub use budget::{Budget, BudgetError, DAY_MS, Limits, Spend};
pub use demand::{Demand, DemandError, Rules};
pub use middleware::{BUFFER_BYTES, PayMiddleware};
pub use pay::{Bought, FetchError, Options, Paid, Payer, Prepay};
pub use purse::{LanePurse, Later, Purse, PurseError, Settled, settle};
pub use store::{BeginError, Store};
pub use wallet::{Dialects, Purchase, Target, Wallet};
pub use web::{WebError, client, switching_client};
