//! ISO 11649 creditor references (`RF…`): how money that arrives says for whom it is.
//!
//! It owns the form of a reference and where to look for one. Whose reference it is, the caller looks up.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::details::{clip, compact};

/// Longest reference, with `RF` and the check digits.
pub(super) const MAX_LENGTH: usize = 25;
/// Shortest: `RF`, two check digits, one character.
pub(super) const MIN_LENGTH: usize = 5;
/// Most candidates that one text yields.
const MAX_CANDIDATES: usize = 32;
/// Digits and capitals without I, L, O, U, which people misread (Crockford's base 32).
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Why a text is not a creditor reference. Decode family.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReferenceError {
    /// Not `RF`, two digits and 1 to 21 letters and digits.
    #[error("`{0}` is not an ISO 11649 reference")]
    Form(String),
    /// The check digits do not fit.
    #[error("check digits of reference `{0}` are wrong")]
    CheckDigits(String),
}

/// A valid ISO 11649 reference, in capitals and without spaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CreditorReference(String);

impl CreditorReference {
    /// The reference of a 32-byte id, always the same one: its first 105 bits in base 32. Always 25
    /// characters, the longest that ISO 11649 has.
    ///
    /// 105 bits make it infeasible to find a second id with a given reference.
    pub fn from_id(id: &[u8; 32]) -> Self {
        let body: String = (0..MAX_LENGTH - 4)
            .map(|index| {
                let bit = index * 5;
                let pair = u16::from_be_bytes([id[bit / 8], id[bit / 8 + 1]]);
                let digit = (pair >> (11 - bit % 8)) & 31;
                char::from(ALPHABET[usize::from(digit)])
            })
            .collect();
        Self::with_check_digits(&body)
    }

    /// The first 13 bytes of the id that [`Self::from_id`] made it of; `None` for one of another form.
    pub fn id_prefix(&self) -> Option<[u8; 13]> {
        let body = self.0.as_bytes().get(4..MAX_LENGTH)?;
        let mut bits = 0_u128;
        for digit in body {
            let value = ALPHABET.iter().position(|known| known == digit)?;
            bits = (bits << 5) | value as u128;
        }
        // 105 bits: all but the last.
        let mut prefix = [0; 13];
        prefix.copy_from_slice((bits >> 1).to_be_bytes().get(3..)?);
        Some(prefix)
    }

    /// Every valid reference that may stand in free text, best first, without repetition.
    ///
    /// People put spaces inside and words behind, and one in 97 wrong cuts passes the check: so each start `RF` may give
    /// several, the longest first. The caller takes the one that it knows.
    pub fn candidates_in(text: &str) -> Vec<Self> {
        let chars: Vec<char> = text.chars().collect();
        let mut found = Vec::new();
        for start in 0..chars.len() {
            if !matches!(chars.get(start), Some('R' | 'r')) {
                continue;
            }
            let run: String = chars
                .get(start..)
                .unwrap_or_default()
                .iter()
                .filter(|c| !c.is_whitespace())
                .take(MAX_LENGTH)
                .take_while(|c| c.is_ascii_alphanumeric())
                .map(char::to_ascii_uppercase)
                .collect();
            if !run.starts_with("RF") {
                continue;
            }
            for length in (MIN_LENGTH..=run.len()).rev() {
                let Some(Ok(reference)) = run.get(..length).map(str::parse::<Self>) else {
                    continue;
                };
                if !found.contains(&reference) {
                    found.push(reference);
                }
                if found.len() == MAX_CANDIDATES {
                    return found;
                }
            }
        }
        found
    }

    /// As banks want it: capitals, no spaces.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As people read it: groups of four.
    pub fn grouped(&self) -> String {
        let mut grouped = String::with_capacity(self.0.len() * 5 / 4);
        for (index, c) in self.0.chars().enumerate() {
            if index > 0 && index % 4 == 0 {
                grouped.push(' ');
            }
            grouped.push(c);
        }
        grouped
    }

    fn with_check_digits(body: &str) -> Self {
        let check = 98 - remainder_97(body.bytes().chain(*b"RF00"));
        let reference = Self(format!("RF{check:02}{body}"));
        debug_assert!(reference.0.parse::<Self>().is_ok());
        reference
    }
}

/// ISO 7064 MOD 97-10 over letters (A = 10 … Z = 35) and digits; callers pass nothing else.
pub(super) fn remainder_97(bytes: impl Iterator<Item = u8>) -> u32 {
    bytes.fold(0, |rest, byte| match byte {
        b'A'..=b'Z' => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
        _ => (rest * 10 + u32::from(byte.wrapping_sub(b'0'))) % 97,
    })
}

impl FromStr for CreditorReference {
    type Err = ReferenceError;

    /// Tolerates spaces and lower case; the rest is strict.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let compact = compact(text);
        let bytes = compact.as_bytes();
        let well_formed = (MIN_LENGTH..=MAX_LENGTH).contains(&bytes.len())
            && bytes.starts_with(b"RF")
            && bytes.iter().all(u8::is_ascii_alphanumeric)
            && bytes.iter().skip(2).take(2).all(u8::is_ascii_digit);
        if !well_formed {
            return Err(ReferenceError::Form(clip(text)));
        }
        let check = u32::from(bytes[2] - b'0') * 10 + u32::from(bytes[3] - b'0');
        let rotated = bytes.iter().skip(4).chain(bytes.iter().take(4)).copied();
        // 00, 01 and 99 have the remainder of 97, 98 and 02; ISO 7064 makes 02 to 98 only.
        if !(2..=98).contains(&check) || remainder_97(rotated) != 1 {
            return Err(ReferenceError::CheckDigits(clip(text)));
        }
        Ok(Self(compact))
    }
}

impl fmt::Display for CreditorReference {
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
    fn reference_known_examples_are_valid() {
        for good in ["RF18539007547034", "rf18 5390 0754 7034", "RF471234567890", "RF45G72UUR", "RF6518K5"] {
            assert!(good.parse::<CreditorReference>().is_ok(), "{good}");
        }
    }

    #[test]
    fn reference_wrong_form_is_refused() {
        for bad in [
            "",
            "RF",
            "RF18",
            "RF185",
            "RF19539007547034",
            "XF18539007547034",
            "RFA8539007547034",
            "RF18-5390-0754-7034",
            "RF18539007547034Ü",
            "RF00ABC",
            "RF01ABC",
            "RF99ABC",
        ] {
            assert!(bad.parse::<CreditorReference>().is_err(), "{bad}");
        }
    }

    #[test]
    fn reference_length_limits_hold_on_both_sides() {
        for (body, fits) in [("", false), ("A", true), (&"7".repeat(21)[..], true), (&"7".repeat(22)[..], false)] {
            let check = 98 - remainder_97(body.bytes().chain(*b"RF00"));
            let text = format!("RF{check:02}{body}");
            assert_eq!(text.parse::<CreditorReference>().is_ok(), fits, "{text}");
        }
    }

    #[test]
    fn reference_of_an_id_is_fixed() {
        let mut id = [0_u8; 32];
        assert_eq!(CreditorReference::from_id(&id).as_str(), "RF04000000000000000000000");
        id[0] = 0x80;
        assert_eq!(CreditorReference::from_id(&id).as_str().get(4..6), Some("G0"));
        assert_eq!(CreditorReference::from_id(&[0xFF; 32]).as_str().get(4..), Some("ZZZZZZZZZZZZZZZZZZZZZ"));
    }

    #[test]
    fn reference_is_found_in_what_people_type() {
        let wanted: CreditorReference = "RF18539007547034".parse().unwrap();
        for text in [
            "RF18539007547034",
            "Deposit rf18 5390 0754 7034, thanks",
            "SVWZ+RF18539007547034 EREF+NOTPROVIDED",
            "/RFB/RF18 5390 0754 7034",
            "RF18 5390 0754 7034 danke",
            "RRF18539007547034",
            "RF\n18539007547034",
        ] {
            let found = CreditorReference::candidates_in(text);
            assert!(found.contains(&wanted), "{text}: {found:?}");
        }
        assert!(CreditorReference::candidates_in("nothing of ours").is_empty());
    }

    proptest! {
        #[test]
        fn reference_of_any_id_reads_back_and_shows_one_wrong_character(
            id: [u8; 32], at in 4_usize..25, other in 0_usize..32,
        ) {
            let reference = CreditorReference::from_id(&id);
            prop_assert_eq!(reference.as_str().len(), MAX_LENGTH);
            prop_assert_eq!(reference.id_prefix(), id[..13].try_into().ok());
            prop_assert_eq!(&reference.grouped().to_lowercase().parse::<CreditorReference>().unwrap(), &reference);
            let mut bytes = reference.as_str().as_bytes().to_vec();
            // A letter counts as two digits, so a digit taken for a letter escapes in one case of 97.
            if bytes[at] != ALPHABET[other] && bytes[at].is_ascii_digit() == ALPHABET[other].is_ascii_digit() {
                bytes[at] = ALPHABET[other];
                prop_assert!(String::from_utf8(bytes).unwrap().parse::<CreditorReference>().is_err());
            }
        }

        #[test]
        fn reference_is_found_between_any_words(id: [u8; 32], before in "[ -~]{0,40}", after in "[ -~]{0,40}") {
            let reference = CreditorReference::from_id(&id);
            let text = format!("{} {}{}", before.replace(['R', 'r'], "x"), reference.grouped(), after);
            prop_assert!(CreditorReference::candidates_in(&text).contains(&reference));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,200}") {
            let _ = text.parse::<CreditorReference>();
            prop_assert!(CreditorReference::candidates_in(&text).len() <= MAX_CANDIDATES);
        }
    }
}
