//! What a use costs: integer arithmetic on nanos, and the most that a request can cost.
//!
//! A price has up to three parts: a fixed amount per request, a rate on bytes that the gate counts itself, and a rate on
//! units that the upstream reports. Each rate is rounded **up** to the next nano once per request (for tokens once per
//! kind), so a charge is never below the exact price and less than one nano a part above it. A charge is never above
//! [`Price::most`], which is what the gate reserves before the upstream is asked: what goes beyond the reserved maximum is
//! the operator's loss, by the `max` that he chose.

use core::num::NonZeroU64;

use weir_protocol::amount::{Amount, AmountError};

/// So much for every `per` of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The price of `per` of them.
    pub price: Amount,
    /// How many the price is for.
    pub per: NonZeroU64,
}

impl Rate {
    /// `count × price`, not yet divided by `per`. Two 64-bit numbers always fit.
    fn scaled(self, count: u64) -> u128 {
        u128::from(count) * u128::from(self.price.nanos())
    }

    /// What `count` of them cost, rounded up to the next nano.
    pub fn cost(self, count: u64) -> Result<Amount, AmountError> {
        divided(self.scaled(count), self.per)
    }
}

fn divided(scaled: u128, per: NonZeroU64) -> Result<Amount, AmountError> {
    let nanos = scaled.div_ceil(u128::from(per.get()));
    u64::try_from(nanos).map(Amount::from_nanos).map_err(|_| AmountError::Overflow)
}

/// Which bytes are counted: those of the bodies, without headers and without the framing of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// The request's body.
    Request,
    /// The answer's body, as the upstream sent it.
    Response,
    /// Both.
    Both,
}

/// A price for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BytePrice {
    /// The price of so many bytes.
    pub rate: Rate,
    /// Which bytes.
    pub counted: Counted,
    /// The most bytes that are reserved, and so charged.
    pub max: u64,
}

/// A step of a price that changes with what was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// The step holds for units of one balance up to this one; `None` for the last step.
    pub up_to: Option<u64>,
    /// The price of `per` units.
    pub price: Amount,
}

/// A price for what the upstream reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitPrice {
    /// One kind of unit.
    Plain {
        /// At least one; ascending, and only the last without end. Units are counted per balance: a balance that was drawn
        /// down by 990 units of this route pays its next 20 units partly in the step that ends at 1,000, partly in the next.
        tiers: Vec<Tier>,
        /// How many units a tier's price is for.
        per: NonZeroU64,
        /// The most units that are reserved for one request.
        max: u64,
    },
    /// Tokens of a language model.
    Tokens {
        /// For `per` tokens of the prompt.
        input: Amount,
        /// For `per` tokens of the prompt that the model's cache held.
        cached: Amount,
        /// For `per` tokens of the prompt that were written to the cache.
        cache_write: Amount,
        /// For `per` tokens of the answer.
        output: Amount,
        /// How many tokens the prices are for.
        per: NonZeroU64,
        /// The most tokens of the prompt, of all three kinds together, that are reserved.
        max_input: u64,
        /// The most tokens of the answer that are reserved.
        max_output: u64,
    },
}

/// What the upstream reports. A kind that it does not know is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Units {
    /// Units of a route with one kind.
    pub plain: u64,
    /// Tokens of the prompt that were neither read from the cache nor written to it.
    pub input: u64,
    /// Tokens of the prompt that were read from the cache.
    pub cached: u64,
    /// Tokens of the prompt that were written to the cache.
    pub cache_write: u64,
    /// Tokens of the answer.
    pub output: u64,
}

impl Units {
    /// So many of the one kind.
    #[must_use]
    pub const fn plain(count: u64) -> Self {
        Self { plain: count, input: 0, cached: 0, cache_write: 0, output: 0 }
    }

    /// All kinds together; stops at the largest number.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.plain.saturating_add(self.prompt()).saturating_add(self.output)
    }

    /// All tokens of the prompt; stops at the largest number.
    const fn prompt(&self) -> u64 {
        self.input.saturating_add(self.cached).saturating_add(self.cache_write)
    }
}

/// What one request used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the answer's body, as the upstream sent it.
    pub response_bytes: u64,
    /// What the upstream reported.
    pub units: Units,
}

/// What a request of a route costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    fixed: Amount,
    bytes: Option<BytePrice>,
    units: Option<UnitPrice>,
    most: Amount,
}

impl Price {
    /// A price of up to three parts. [`AmountError::Overflow`] when the most that it can come to does not fit an amount.
    pub fn new(fixed: Amount, bytes: Option<BytePrice>, units: Option<UnitPrice>) -> Result<Self, AmountError> {
        let mut most = fixed;
        if let Some(bytes) = &bytes {
            most = most.checked_add(bytes.rate.cost(bytes.max)?)?;
        }
        if let Some(units) = &units {
            most = most.checked_add(most_of(units)?)?;
        }
        Ok(Self { fixed, bytes, units, most })
    }

    /// The same whatever is used.
    pub const fn fixed_only(fixed: Amount) -> Self {
        Self { fixed, bytes: None, units: None, most: fixed }
    }

    /// The part that is known before the request is served.
    pub const fn fixed(&self) -> Amount {
        self.fixed
    }

    /// What is reserved: no charge is ever above it.
    pub const fn most(&self) -> Amount {
        self.most
    }

    /// The part that depends on bytes.
    #[must_use]
    pub const fn bytes(&self) -> Option<&BytePrice> {
        self.bytes.as_ref()
    }

    /// The part that depends on what the upstream reports.
    #[must_use]
    pub const fn units(&self) -> Option<&UnitPrice> {
        self.units.as_ref()
    }

    /// Whether it is known only when the answer has ended.
    #[must_use]
    pub const fn is_metered(&self) -> bool {
        self.bytes.is_some() || self.units.is_some()
    }

    /// What a use costs, for a balance that had `drawn_units_before` units of this route before. At least
    /// [`Price::fixed`], at most [`Price::most`]; more use never costs less.
    pub fn charge(&self, used: &Usage, drawn_units_before: u64) -> Amount {
        // A part that overflows is above what is reserved, and so is the sum.
        self.exact(used, drawn_units_before).map_or(self.most, |exact| exact.min(self.most))
    }

    /// Whether a use went beyond what is reserved: the upstream served more than its route is paid for.
    #[must_use]
    pub fn exceeds(&self, used: &Usage) -> bool {
        let beyond_bytes = self.bytes.is_some_and(|bytes| counted(bytes.counted, used) > bytes.max);
        let beyond_units = match &self.units {
            None => false,
            Some(UnitPrice::Plain { max, .. }) => used.units.plain > *max,
            Some(UnitPrice::Tokens { max_input, max_output, .. }) => {
                used.units.prompt() > *max_input || used.units.output > *max_output
            }
        };
        beyond_bytes || beyond_units
    }

    fn exact(&self, used: &Usage, before: u64) -> Result<Amount, AmountError> {
        let mut sum = self.fixed;
        if let Some(bytes) = &self.bytes {
            sum = sum.checked_add(bytes.rate.cost(counted(bytes.counted, used).min(bytes.max))?)?;
        }
        let part = match &self.units {
            None => return Ok(sum),
            Some(UnitPrice::Plain { tiers, per, max }) => tiered(tiers, *per, before, used.units.plain.min(*max))?,
            Some(UnitPrice::Tokens { input, cached, cache_write, output, per, max_input, max_output }) => {
                let at = |price: Amount, count: u64| Rate { price, per: *per }.cost(count);
                let units = &used.units;
                let prompt = at(*input, units.input)
                    .and_then(|sum| sum.checked_add(at(*cached, units.cached)?))
                    .and_then(|sum| sum.checked_add(at(*cache_write, units.cache_write)?));
                // A prompt beyond its maximum costs its maximum, and takes nothing from what is reserved for the answer.
                let most_prompt = most_of_prompt([*input, *cached, *cache_write], *per, *max_input)?;
                let prompt = prompt.map_or(most_prompt, |prompt| prompt.min(most_prompt));
                prompt.checked_add(at(*output, units.output.min(*max_output))?)?
            }
        };
        sum.checked_add(part)
    }
}

fn counted(counted: Counted, used: &Usage) -> u64 {
    match counted {
        Counted::Request => used.request_bytes,
        Counted::Response => used.response_bytes,
        Counted::Both => used.request_bytes.saturating_add(used.response_bytes),
    }
}

/// The cost of the units `before + 1` to `before + count`, each in its own tier, rounded up once.
fn tiered(tiers: &[Tier], per: NonZeroU64, before: u64, count: u64) -> Result<Amount, AmountError> {
    let (mut at, mut left, mut scaled) = (before, count, 0_u128);
    for tier in tiers {
        let room = tier.up_to.map_or(u64::MAX, |up_to| up_to.saturating_sub(at));
        let here = room.min(left);
        // The counts of all tiers together are `count`, so the sum is below 2^128.
        scaled += Rate { price: tier.price, per }.scaled(here);
        at = at.saturating_add(here);
        left -= here;
    }
    divided(scaled, per)
}

/// The most that a request's units can cost, whatever was drawn before.
fn most_of(units: &UnitPrice) -> Result<Amount, AmountError> {
    match units {
        UnitPrice::Plain { tiers, per, max } => {
            let dearest = tiers.iter().map(|tier| tier.price).max().unwrap_or_default();
            Rate { price: dearest, per: *per }.cost(*max)
        }
        UnitPrice::Tokens { input, cached, cache_write, output, per, max_input, max_output } => {
            let prompt = most_of_prompt([*input, *cached, *cache_write], *per, *max_input)?;
            prompt.checked_add(Rate { price: *output, per: *per }.cost(*max_output)?)
        }
    }
}

/// The most that a prompt can cost: all of it at the dearest price, and a nano for each further kind, since each kind is
/// rounded up by itself.
fn most_of_prompt(prices: [Amount; 3], per: NonZeroU64, max: u64) -> Result<Amount, AmountError> {
    let dearest = prices.into_iter().max().unwrap_or_default();
    let roundings = if dearest.is_zero() || per.get() == 1 || max == 0 { 0 } else { 2 };
    Rate { price: dearest, per }.cost(max)?.checked_add(Amount::from_nanos(roundings))
}

#[cfg(test)]
#[path = "charge_tests.rs"]
mod tests;
