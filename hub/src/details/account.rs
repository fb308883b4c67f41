//! What names a bank account: IBAN, BIC, currency. Checked once, when made.

use std::fmt;
use std::str::FromStr;

use iban::IbanLike;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Countries whose IBANs can be paid by SEPA credit transfer (EPC409-09), by IBAN prefix.
const SEPA_COUNTRIES: &[&str] = &[
    "AD", "AL", "AT", "BE", "BG", "CH", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GB", "GI", "GR", "HR", "HU",
    "IE", "IS", "IT", "LI", "LT", "LU", "LV", "MC", "MD", "ME", "MK", "MT", "NL", "NO", "PL", "PT", "RO", "RS", "SE",
    "SI", "SK", "SM", "VA",
];

/// Why a text is not an IBAN, BIC or currency. Decode family.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AccountError {
    /// Wrong country, length or check digits (ISO 13616).
    #[error("`{0}` is not a valid IBAN")]
    Iban(String),
    /// Not 8 or 11 characters of ISO 9362.
    #[error("`{0}` is not a valid BIC")]
    Bic(String),
    /// Not three capital letters (ISO 4217).
    #[error("`{0}` is not a currency code")]
    Currency(String),
}

/// An International Bank Account Number whose country, structure and check digits were checked. Shown without spaces.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Iban(iban::Iban);

impl Iban {
    /// The IBAN without spaces, in capitals.
    pub fn as_str(&self) -> &str {
        self.0.electronic_str()
    }

    /// Two letters of the country.
    pub fn country(&self) -> &str {
        self.0.country_code()
    }

    /// Whether SEPA credit transfers reach this account's country.
    pub fn is_sepa(&self) -> bool {
        SEPA_COUNTRIES.binary_search(&self.country()).is_ok()
    }
}

impl FromStr for Iban {
    type Err = AccountError;

    /// Tolerates spaces and lower case, as people type them; anything else is refused.
    fn from_str(text: &str) -> Result<Self, AccountError> {
        // As it is written into files: nothing to take out.
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
        let read = if plain { text.parse() } else { compact(text).parse() };
        read.map(Self).map_err(|_| AccountError::Iban(clip(text)))
    }
}

impl TryFrom<String> for Iban {
    type Error = AccountError;

    fn try_from(text: String) -> Result<Self, AccountError> {
        text.parse()
    }
}

impl From<Iban> for String {
    fn from(iban: Iban) -> Self {
        iban.as_str().to_owned()
    }
}

impl PartialOrd for Iban {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Iban {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl fmt::Display for Iban {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Iban {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Iban({self})")
    }
}

/// A Business Identifier Code, 8 or 11 characters, in capitals.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bic(String);

impl Bic {
    /// The code in capitals.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Bic {
    type Err = AccountError;

    /// `[A-Z0-9]{4}[A-Z]{2}[A-Z0-9]{2}([A-Z0-9]{3})?`, the pattern of `BICFIDec2014Identifier`; lower case is tolerated.
    fn from_str(text: &str) -> Result<Self, AccountError> {
        let code = compact(text);
        let fits = (code.len() == 8 || code.len() == 11)
            && code
                .bytes()
                .enumerate()
                .all(|(index, byte)| byte.is_ascii_uppercase() || (byte.is_ascii_digit() && !(4..6).contains(&index)));
        if fits { Ok(Self(code)) } else { Err(AccountError::Bic(clip(text))) }
    }
}

/// An ISO 4217 code: three capital letters. Whether a bank pays it out is decided where a file is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

impl Currency {
    /// The euro, the only currency of SEPA.
    pub const EUR: Self = Self(*b"EUR");

    /// The three letters.
    pub fn as_str(&self) -> &str {
        // Capital ASCII letters only, by construction.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for Currency {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<Self, AccountError> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(code) if code.iter().all(u8::is_ascii_uppercase) => Ok(Self(code)),
            _ => Err(AccountError::Currency(clip(text))),
        }
    }
}

impl TryFrom<String> for Currency {
    type Error = AccountError;

    fn try_from(text: String) -> Result<Self, AccountError> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.as_str().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `text` without white space, in capitals.
pub(crate) fn compact(text: &str) -> String {
    let mut compact = String::with_capacity(text.len());
    compact.extend(text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_uppercase()));
    compact
}

/// The first characters of `text`, for a message: what comes from outside never fills a log.
pub(crate) fn clip(text: &str) -> String {
    const SHOWN: usize = 64;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn iban_with_spaces_and_lower_case_is_read() {
        let iban: Iban = "de89 3704 0044 0532 0130 00".parse().unwrap();
        assert_eq!(iban.as_str(), "DE89370400440532013000");
        assert!(iban.is_sepa());
    }

    #[test]
    fn iban_wrong_digit_length_or_country_is_refused() {
        for bad in [
            "",
            "DE",
            "DE88370400440532013000",
            "DE8937040044053201300",
            "DE893704004405320130000",
            "ZZ89370400440532013000",
            "DE89-3704-0044-0532-0130-00",
        ] {
            assert!(bad.parse::<Iban>().is_err(), "{bad}");
        }
    }

    #[test]
    fn iban_outside_sepa_is_known_as_such() {
        let brazil: Iban = "BR1800360305000010009795493C1".parse().unwrap();
        assert!(!brazil.is_sepa());
        assert!(SEPA_COUNTRIES.is_sorted());
    }

    #[test]
    fn bic_limits_hold_on_both_sides() {
        for good in ["COBADEFF", "cobadeffxxx", "MARKDEF1100"] {
            assert!(good.parse::<Bic>().is_ok(), "{good}");
        }
        for bad in ["", "COBADEF", "COBADEFFX", "COBADEFFXX", "COBADEFFXXXX", "COBA1EFF"] {
            assert!(bad.parse::<Bic>().is_err(), "{bad}");
        }
    }

    #[test]
    fn currency_takes_three_capitals_only() {
        assert_eq!("EUR".parse::<Currency>().unwrap(), Currency::EUR);
        for bad in ["", "EU", "EURO", "eur", "E R", "€"] {
            assert!(bad.parse::<Currency>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,80}") {
            let _ = text.parse::<Iban>();
            let _ = text.parse::<Bic>();
            let _ = text.parse::<Currency>();
        }
    }
}
