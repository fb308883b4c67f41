//! Prices for crawlers: `crawler-price: EUR 0.01` and its kin. A currency, a space, an amount in units.

use crate::amount::{Amount, Currency};

/// Most bytes of a price that is read.
pub const MAX_PRICE_BYTES: usize = 64;

/// A price as crawlers' headers say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrawlerPrice {
    /// The currency.
    pub currency: Currency,
    /// The amount.
    pub amount: Amount,
}

impl std::fmt::Display for CrawlerPrice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.currency, self.amount)
    }
}

impl std::str::FromStr for CrawlerPrice {
    type Err = NotAPrice;

    fn from_str(text: &str) -> Result<Self, NotAPrice> {
        if text.len() > MAX_PRICE_BYTES {
            return Err(NotAPrice);
        }
        let (currency, amount) = text.trim().split_once(' ').ok_or(NotAPrice)?;
        let currency = currency.parse().map_err(|_| NotAPrice)?;
        Ok(Self { currency, amount: amount.trim_start().parse().map_err(|_| NotAPrice)? })
    }
}

/// Not a currency and an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a price: expected a currency and an amount, such as `EUR 0.01`")]
pub struct NotAPrice;
