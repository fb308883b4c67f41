//! Money: unsigned nanos of a currency. Checked arithmetic only, no floats, no silent rounding.

use core::fmt;
use core::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Nanos in one major unit.
pub const NANOS_PER_UNIT: u64 = 1_000_000_000;
/// Decimal places of a nano.
pub const NANO_DIGITS: u32 = 9;

/// What arithmetic on money can refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// The result does not fit.
    #[error("amount overflows")]
    Overflow,
    /// More is taken than is there.
    #[error("amount would fall below zero")]
    Underflow,
    /// The text is not a decimal number with at most nine places.
    #[error("`{0}` is not an amount: expected a decimal number with at most 9 places, such as `0.05`")]
    Text(ShortText),
}

/// The first characters of a text that could not be read, for messages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ShortText {
    bytes: [u8; 24],
    len: u8,
}

impl ShortText {
    fn new(text: &str) -> Self {
        let mut bytes = [0; 24];
        let mut len = 0;
        for (slot, byte) in bytes.iter_mut().zip(text.bytes().filter(u8::is_ascii_graphic)) {
            *slot = byte;
            len += 1;
        }
        Self { bytes, len }
    }
}

impl fmt::Display for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        f.write_str(core::str::from_utf8(bytes).unwrap_or_default())
    }
}

impl fmt::Debug for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An unsigned number of nanos (10^-9 of a currency's major unit), 64 bits: at most about 18.4 billion units.
///
/// Text and JSON are decimal units (`"0.05"`); postcard is the varint of the nanos.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[must_use]
pub struct Amount(u64);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount.
    pub const MAX: Self = Self(u64::MAX);

    /// From nanos.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The number of nanos.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Whether it is nothing.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Sum, or [`AmountError::Overflow`].
    pub const fn checked_add(self, other: Self) -> Result<Self, AmountError> {
        match self.0.checked_add(other.0) {
            Some(nanos) => Ok(Self(nanos)),
            None => Err(AmountError::Overflow),
        }
    }

    /// Difference, or [`AmountError::Underflow`].
    pub const fn checked_sub(self, other: Self) -> Result<Self, AmountError> {
        match self.0.checked_sub(other.0) {
            Some(nanos) => Ok(Self(nanos)),
            None => Err(AmountError::Underflow),
        }
    }

    /// The amount in major units, exactly.
    #[must_use]
    pub fn to_decimal(self) -> Decimal {
        Decimal::from_i128_with_scale(i128::from(self.0), NANO_DIGITS).normalize()
    }

    /// From major units, exactly: more than nine places or a negative number is refused, never rounded.
    pub fn from_decimal(units: Decimal) -> Result<Self, AmountError> {
        let units = units.normalize();
        if units.is_sign_negative() && !units.is_zero() {
            return Err(AmountError::Underflow);
        }
        let missing = NANO_DIGITS
            .checked_sub(units.scale())
            .ok_or_else(|| AmountError::Text(ShortText::new(&units.to_string())))?;
        let nanos = 10_i128
            .checked_pow(missing)
            .and_then(|factor| units.mantissa().checked_mul(factor))
            .ok_or(AmountError::Overflow)?;
        u64::try_from(nanos).map(Self).map_err(|_| AmountError::Overflow)
    }

    /// The largest multiple of the currency's minor unit (`minor_digits` places) that is not above this amount.
    ///
    /// Used at settlement only; what is left over stays with its owner.
    pub const fn floor_to_minor(self, minor_digits: u32) -> Self {
        if minor_digits >= NANO_DIGITS {
            return self;
        }
        let step = 10_u64.pow(NANO_DIGITS - minor_digits);
        Self(self.0 - self.0 % step)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_decimal().to_string())
    }
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let unreadable = || AmountError::Text(ShortText::new(text));
        if !plain || text.is_empty() || text.starts_with('.') || text.ends_with('.') {
            return Err(unreadable());
        }
        let units = Decimal::from_str_exact(text).map_err(|_| unreadable())?;
        Self::from_decimal(units)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_u64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            u64::deserialize(deserializer).map(Self)
        }
    }
}

/// An ISO 4217 code: three capital letters; four bytes in a preimage (a zero byte follows).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// The euro.
    pub const EUR: Self = Self(*b"EUR");

    /// The four bytes of a preimage.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 4] {
        [self.0[0], self.0[1], self.0[2], 0]
    }

    /// The three letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Not three capital ASCII letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a currency is three capital letters, such as `EUR`")]
pub struct CurrencyError;

impl TryFrom<[u8; 3]> for Currency {
    type Error = CurrencyError;
    fn try_from(letters: [u8; 3]) -> Result<Self, CurrencyError> {
        if letters.iter().all(u8::is_ascii_uppercase) { Ok(Self(letters)) } else { Err(CurrencyError) }
    }
}

impl FromStr for Currency {
    type Err = CurrencyError;
    fn from_str(text: &str) -> Result<Self, CurrencyError> {
        <[u8; 3]>::try_from(text.as_bytes()).map_err(|_| CurrencyError)?.try_into()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(self.as_str())
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 3]>::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
        }
    }
}

/// Milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// No bound: an expiry that never comes.
    pub const MAX: Self = Self(u64::MAX);

    /// This time moved on by so many milliseconds; stops at [`Time::MAX`].
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// This time moved back by so many milliseconds; stops at zero.
    #[must_use]
    pub const fn minus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amount_text_reads_down_to_a_nano_and_no_further() {
        assert_eq!("0.000000001".parse::<Amount>().unwrap(), Amount::from_nanos(1));
        assert_eq!("18446744073.709551615".parse::<Amount>().unwrap(), Amount::MAX);
        assert_eq!("1.0000000000".parse::<Amount>().unwrap(), Amount::from_nanos(NANOS_PER_UNIT));
        for bad in ["", ".", "1.", ".5", "-1", "+1", "1e3", "0.0000000001", "18446744073.709551616", "1,5", "1_0", " 1"]
        {
            assert!(bad.parse::<Amount>().is_err(), "{bad}");
        }
    }

    #[test]
    fn amount_floor_keeps_whole_minor_units() {
        assert_eq!(Amount::from_nanos(19_999_999).floor_to_minor(2), Amount::from_nanos(10_000_000));
        assert_eq!(Amount::from_nanos(9_999_999).floor_to_minor(2), Amount::ZERO);
        assert_eq!(Amount::from_nanos(7).floor_to_minor(9), Amount::from_nanos(7));
    }

    #[test]
    fn currency_outside_capital_letters_is_refused() {
        assert!("EUR".parse::<Currency>().is_ok());
        for bad in ["eur", "EU", "EURO", "E1R", ""] {
            assert!(bad.parse::<Currency>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn amount_text_round_trips(nanos in any::<u64>()) {
            let amount = Amount::from_nanos(nanos);
            prop_assert_eq!(amount.to_string().parse::<Amount>().unwrap(), amount);
        }
    }
}
