//! The creditor identifier of SEPA direct debit (EPC262-08): who may collect. Checked once, when made.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::reference::remainder_97;
use crate::details::{clip, compact};

/// Country, check digits, business code.
const PREFIX: usize = 7;
/// Longest identifier.
const MAX_LENGTH: usize = 35;

/// Why a text is no creditor identifier. Decode family.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a valid SEPA creditor identifier")]
pub struct CreditorIdError(String);

/// A creditor identifier whose form and check digits were checked: `DE98ZZZ09999999999`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CreditorId(String);

impl CreditorId {
    /// As it is written, capitals, no spaces.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CreditorId {
    type Err = CreditorIdError;

    /// Tolerates spaces and lower case, as people type them.
    fn from_str(text: &str) -> Result<Self, CreditorIdError> {
        let invalid = || CreditorIdError(clip(text));
        let id = compact(text);
        if !id.is_ascii() || !(PREFIX + 1..=MAX_LENGTH).contains(&id.len()) {
            return Err(invalid());
        }
        let (prefix, national) = id.split_at(PREFIX);
        let (country, rest) = prefix.split_at(2);
        let (digits, business) = rest.split_at(2);
        let well_formed = country.bytes().all(|byte| byte.is_ascii_uppercase())
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && business.bytes().chain(national.bytes()).all(|byte| byte.is_ascii_alphanumeric());
        // The business code is the creditor's own and not part of the check (ISO 7064 MOD 97-10).
        let checked = national.bytes().chain(country.bytes()).chain(digits.bytes());
        if well_formed && remainder_97(checked) == 1 { Ok(Self(id)) } else { Err(invalid()) }
    }
}

impl TryFrom<String> for CreditorId {
    type Error = CreditorIdError;

    fn try_from(text: String) -> Result<Self, CreditorIdError> {
        text.parse()
    }
}

impl From<CreditorId> for String {
    fn from(id: CreditorId) -> Self {
        id.0
    }
}

impl fmt::Display for CreditorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn creditor_id_known_examples_are_valid_whatever_the_business_code() {
        for good in ["DE98ZZZ09999999999", "de98 abc 09999999999", "AT61ZZZ01234567890", "NL79ZZZ999999990000"] {
            assert!(good.parse::<CreditorId>().is_ok(), "{good}");
        }
        assert_eq!("de98zzz09999999999".parse::<CreditorId>().unwrap().as_str(), "DE98ZZZ09999999999");
    }

    #[test]
    fn creditor_id_wrong_form_or_digits_is_refused() {
        for bad in ["", "DE98ZZZ", "DE97ZZZ09999999999", "DE98ZZ-09999999999", "1E98ZZZ09999999999", "DExxZZZ0999", "Ü"]
        {
            assert!(bad.parse::<CreditorId>().is_err(), "{bad}");
        }
        assert!(format!("DE98ZZZ{}", "0".repeat(29)).parse::<CreditorId>().is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,60}") {
            let _ = text.parse::<CreditorId>();
        }
    }
}
