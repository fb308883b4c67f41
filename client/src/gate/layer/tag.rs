//! What one request costs, as the program's price function says it.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use weir_protocol::amount::{Amount, AmountError};

use crate::gate::price::{OnAbort, Price, Tier, UnitPrice};

/// A price, and what is said about what it buys.
#[derive(Debug, Clone)]
#[must_use]
pub struct PriceTag {
    /// An error: the most that it comes to is no amount. The request is answered 500, never for nothing.
    pub(super) price: Result<Price, AmountError>,
    pub(super) route: Option<Arc<str>>,
    pub(super) title: Option<String>,
    pub(super) mime: Option<String>,
    pub(super) access_ms: Option<u64>,
    pub(super) on_abort: OnAbort,
}

impl PriceTag {
    /// The same whatever the answer is. Nothing (`0`) is free.
    pub const fn fixed(amount: Amount) -> Self {
        Self::of(Ok(Price::fixed_only(amount)))
    }

    /// So much a unit. The request must be paid for `most_units`; what the handler does not count with
    /// [`Charge::set_units`](super::Charge::set_units) stays the payer's. Units beyond the most are served for nothing.
    pub fn metered(per_unit: Amount, most_units: u64) -> Self {
        Self::stepped(Amount::ZERO, vec![Tier { up_to: None, price: per_unit }], NonZeroU64::MIN, most_units)
    }

    /// `base` for the request, and for `per` units what the step says in which they are; units are counted per balance and
    /// route, so name the [`Self::route`]. Steps are in ascending order, and only the last has no end; none: 500.
    pub fn stepped(base: Amount, tiers: Vec<Tier>, per: NonZeroU64, most_units: u64) -> Self {
        let ends = tiers.iter().map(|tier| tier.up_to.unwrap_or(u64::MAX));
        let ordered = ends.clone().zip(ends.skip(1)).all(|(one, next)| one < next);
        if !ordered || tiers.last().is_none_or(|tier| tier.up_to.is_some()) {
            return Self::of(Err(AmountError::Overflow));
        }
        Self::of(Price::new(base, None, Some(UnitPrice::Plain { tiers, per, max: most_units })))
    }

    const fn of(price: Result<Price, AmountError>) -> Self {
        Self { price, route: None, title: None, mime: None, access_ms: None, on_abort: OnAbort::Release }
    }

    /// What units are counted under, and the handler's [`Charge`](super::Charge) names; without it, the request's path.
    pub fn route(mut self, name: impl Into<Arc<str>>) -> Self {
        self.route = Some(name.into());
        self
    }

    /// What is bought, in a few words: the payer reads it before he pays.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// The media type of the answer.
    pub fn mime(mut self, mime: impl Into<String>) -> Self {
        self.mime = Some(mime.into());
        self
    }

    /// For so long the same receipt reads the same address again, with `GET` or `HEAD`. Not for metered prices: there it
    /// is not heeded.
    pub fn access(mut self, span: Duration) -> Self {
        let metered = self.price.as_ref().is_ok_and(Price::is_metered);
        self.access_ms = (!metered).then(|| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// A client that goes away in the middle of the answer is charged for what was counted until then (a fixed price
    /// whole). Otherwise it is charged nothing, and can read a stream up to its last piece for nothing.
    pub const fn charge_on_abort(mut self) -> Self {
        self.on_abort = OnAbort::Charge;
        self
    }
}
