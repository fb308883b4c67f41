//! Who pays: a seam between what is bought over HTTP and the hub, so that each can be tested without the other.

use std::fmt::Debug;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::id::{AccountId, HubId, LaneId};
use weir_protocol::lane::payer::Order;
use weir_protocol::receipt::ReceiptFile;
use weir_protocol::reject::Reject;

use crate::client::Client;
use crate::error::{Error, PayError};
use crate::home::LaneRecord;
use crate::lane::{Lane, Outcome};

/// How long after an order's deadline the hub's last word on it is waited for.
pub const GRACE: Duration = Duration::from_secs(10);
/// A deadline that is over: an order that is asked about with it is never paid by the asking.
pub const OVER: Time = Time(1);

/// A future of a [`Purse`].
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What became of an order.
#[derive(Debug, Clone)]
pub enum Settled {
    /// It is paid; the receipt, and where it is kept.
    Paid(Box<ReceiptFile>, Option<PathBuf>),
    /// Refused for good.
    Refused(Reject),
    /// Nobody can say now.
    Unknown,
}

/// Why nothing was paid, or nobody could be asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PurseError {
    /// Hub, network or home.
    #[error(transparent)]
    Client(#[from] Error),
    /// The lane.
    #[error(transparent)]
    Pay(#[from] PayError),
    /// No lane may pay this.
    #[error("{0}")]
    NoLane(String),
}

/// Pays orders.
pub trait Purse: Debug + Send + Sync + 'static {
    /// The hub that it pays through.
    fn hub(&self) -> HubId;

    /// The lane that pays this. The hub was reached: a purchase begins only when it can be paid.
    fn lane_for(&self, currency: Currency, payee: AccountId, amount: Amount) -> Later<'_, Result<LaneId, PurseError>>;

    /// Pays, until a little after the order's deadline. The same order again is the same payment.
    fn pay(&self, lane: LaneId, order: Order) -> Later<'_, Result<Settled, PurseError>>;
}

/// Asks what became of an order. It is not paid by that.
pub(super) async fn ask(purse: &dyn Purse, lane: LaneId, order: Order) -> Result<Settled, PurseError> {
    purse.pay(lane, Order { deadline: Some(OVER), ..order }).await
}

/// Pays with one lane of a running client.
#[derive(Debug, Clone)]
pub struct LanePurse {
    client: Client,
    record: LaneRecord,
}

impl LanePurse {
    /// With a lane of the client's home.
    pub fn new(client: &Client, lane: LaneId) -> Result<Self, Error> {
        Ok(Self { client: client.clone(), record: client.home().lane(&lane)? })
    }
}

impl Purse for LanePurse {
    fn hub(&self) -> HubId {
        self.client.hub()
    }

    fn lane_for(&self, currency: Currency, payee: AccountId, _amount: Amount) -> Later<'_, Result<LaneId, PurseError>> {
        Box::pin(async move {
            if self.record.terms.currency != currency {
                return Err(PurseError::NoLane(format!(
                    "the lane pays {}, and {currency} is asked for",
                    self.record.terms.currency
                )));
            }
            if self.record.grant.payee.is_some_and(|only| only != payee) {
                return Err(PurseError::NoLane(format!("the lane may not pay {payee}")));
            }
            self.client.connect().await?;
            Ok(self.record.id())
        })
    }

    fn pay(&self, lane: LaneId, order: Order) -> Later<'_, Result<Settled, PurseError>> {
        Box::pin(async move { settle(&self.client.lane(lane)?, order).await })
    }
}

/// Pays with a lane, and keeps the receipt.
pub async fn settle(lane: &Lane, order: Order) -> Result<Settled, PurseError> {
    let left_ms = order.deadline.map_or(0, |deadline| deadline.0.saturating_sub(crate::connection::now().0));
    match lane.pay_within(order, Duration::from_millis(left_ms).saturating_add(GRACE)).await? {
        Outcome::Paid(paid) => {
            let kept = match paid.keep_receipt() {
                Ok(path) => Some(path),
                Err(error) => {
                    tracing::warn!(%error, "a receipt could not be kept");
                    None
                }
            };
            Ok(Settled::Paid(Box::new(paid.receipt()?), kept))
        }
        Outcome::Refused(refused) => Ok(Settled::Refused(refused.reject)),
        Outcome::Unknown(_) => Ok(Settled::Unknown),
    }
}
