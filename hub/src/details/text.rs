//! The characters that SEPA banks take, and what may stand in identifiers, names and remittance texts.
//!
//! Identifiers are never changed, only refused: a changed identifier would no longer find its payment. Names are
//! transliterated, because people have names that banks cannot write.

use thiserror::Error;

use super::account::clip;

/// Longest identifier (`Max35Text`).
pub(super) const MAX_IDENTIFIER: usize = 35;
/// Longest name in SEPA (EPC132-08).
pub(super) const MAX_NAME: usize = 70;
/// Longest unstructured remittance line in SEPA.
pub(super) const MAX_REMITTANCE: usize = 140;

/// Why a bank would refuse a text. Misuse family: the caller made it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TextError {
    /// Nothing is left of it.
    #[error("`{0}` is empty or has nothing a bank can read")]
    Empty(String),
    /// Longer than the field, counted in characters.
    #[error("`{text}` has {length} characters, the field takes {limit}")]
    TooLong {
        /// What was given, shortened.
        text: String,
        /// Its characters, after transliteration if it is a name.
        length: usize,
        /// What the field takes.
        limit: usize,
    },
    /// Outside `a-zA-Z0-9/-?:().,'+` and space (space not in identifiers).
    #[error("`{text}` has the character {found:?}, which banks refuse")]
    Character {
        /// What was given, shortened.
        text: String,
        /// The first one that does not fit.
        found: char,
    },
    /// A slash at an end, or two in a row (EPC230-15).
    #[error("`{0}` starts or ends with a slash or has two in a row")]
    Slash(String),
    /// A space at an end, which banks cut off.
    #[error("`{0}` starts or ends with a space")]
    Space(String),
}

/// The SEPA character set (EPC132-08 §1.4).
pub(crate) fn is_bank_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '?' | ':' | '(' | ')' | '.' | ',' | '\'' | '+' | ' ')
}

/// Whether `text` can be an identifier as it is: 1 to 35 characters of the set, no space, no slash at the ends, no `//`.
pub fn check_identifier(text: &str) -> Result<(), TextError> {
    check(text, MAX_IDENTIFIER, |c| c != ' ' && is_bank_char(c))?;
    if text.starts_with('/') || text.ends_with('/') || text.contains("//") {
        return Err(TextError::Slash(clip(text)));
    }
    Ok(())
}

/// Whether `text` can be an unstructured remittance line as it is: 1 to 140 characters of the set, no space at the ends.
pub fn check_remittance(text: &str) -> Result<(), TextError> {
    check(text, MAX_REMITTANCE, is_bank_char)?;
    if text.starts_with(' ') || text.ends_with(' ') {
        return Err(TextError::Space(clip(text)));
    }
    Ok(())
}

/// `name` as a bank takes it: transliterated, white space folded, 1 to 70 characters, at least one letter or digit.
///
/// Stable: a name that was made by it comes out unchanged.
pub fn bank_name(name: &str) -> Result<String, TextError> {
    let mut written = String::with_capacity(name.len());
    for word in name.split_whitespace() {
        if !written.is_empty() {
            written.push(' ');
        }
        for c in word.chars() {
            if is_bank_char(c) {
                written.push(c);
            } else {
                written.push_str(transliteration(c));
            }
        }
    }
    if !written.contains(|c: char| c.is_ascii_alphanumeric()) {
        return Err(TextError::Empty(clip(name)));
    }
    check(&written, MAX_NAME, is_bank_char)?;
    Ok(written)
}

fn check(text: &str, limit: usize, takes: impl Fn(char) -> bool) -> Result<(), TextError> {
    if text.is_empty() {
        return Err(TextError::Empty(String::new()));
    }
    let length = text.chars().count();
    if length > limit {
        return Err(TextError::TooLong { text: clip(text), length, limit });
    }
    match text.chars().find(|c| !takes(*c)) {
        Some(found) => Err(TextError::Character { text: clip(text), found }),
        None => Ok(()),
    }
}

/// What stands for a character outside the set: EPC217-08 with the German two-letter umlauts (DFÜ-Abkommen, annex 3);
/// a full stop where there is nothing.
fn transliteration(c: char) -> &'static str {
    match c {
        'Ä' => "Ae",
        'Ö' => "Oe",
        'Ü' => "Ue",
        'ä' => "ae",
        'ö' => "oe",
        'ü' => "ue",
        'ß' => "ss",
        'ẞ' => "SS",
        'À'..='Ã' | 'Å' | 'Ā' | 'Ă' | 'Ą' | 'Æ' | 'Ǎ' | 'Α' | 'Ά' | 'А' | 'Ъ' => "A",
        'à'..='ã' | 'å' | 'ā' | 'ă' | 'ą' | 'æ' | 'ǎ' | 'α' | 'ά' | 'а' | 'ъ' | 'ª' => "a",
        'Б' | 'Β' => "B",
        'б' | 'β' => "b",
        'Ç' | 'Ć' | 'Ĉ' | 'Ċ' | 'Č' | '©' => "C",
        'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' => "c",
        'Ð' | 'Ď' | 'Đ' | 'Δ' | 'Д' => "D",
        'ð' | 'ď' | 'đ' | 'δ' | 'д' => "d",
        'È'..='Ë' | 'Ē' | 'Ĕ' | 'Ė' | 'Ę' | 'Ě' | 'Ε' | 'Έ' | 'Е' | 'Ё' | 'Э' | 'Є' | '€' => "E",
        'è'..='ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' | 'ε' | 'έ' | 'е' | 'ё' | 'э' | 'є' => "e",
        'Φ' | 'Ф' => "F",
        'φ' | 'ф' => "f",
        'Ĝ' | 'Ğ' | 'Ġ' | 'Ģ' | 'Γ' | 'Г' | 'Ґ' => "G",
        'ĝ' | 'ğ' | 'ġ' | 'ģ' | 'γ' | 'г' | 'ґ' => "g",
        'Ĥ' | 'Ħ' | 'Х' => "H",
        'ĥ' | 'ħ' | 'х' => "h",
        'Ì'..='Ï' | 'Ĩ' | 'Ī' | 'Ĭ' | 'Į' | 'İ' | 'Ι' | 'Ί' | 'Ϊ' | 'Η' | 'Ή' | 'И' | 'І' | 'Ї' => "I",
        'ì'..='ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' | 'ı' | 'ι' | 'ί' | 'ϊ' | 'ΐ' | 'η' | 'ή' | 'и' | 'і' | 'ї' => {
            "i"
        }
        'Ĵ' | 'Ј' | 'Й' => "J",
        'ĵ' | 'ј' | 'й' => "j",
        'Ķ' | 'Κ' | 'К' => "K",
        'ķ' | 'κ' | 'к' => "k",
        'Ĺ' | 'Ļ' | 'Ľ' | 'Ŀ' | 'Ł' | 'Λ' | 'Л' => "L",
        'ĺ' | 'ļ' | 'ľ' | 'ŀ' | 'ł' | 'λ' | 'л' => "l",
        'Μ' | 'М' => "M",
        'μ' | 'м' => "m",
        'Ñ' | 'Ń' | 'Ņ' | 'Ň' | 'Ŋ' | 'Ν' | 'Н' => "N",
        'ñ' | 'ń' | 'ņ' | 'ň' | 'ŋ' | 'ν' | 'н' => "n",
        'Ò'..='Õ' | 'Ø' | 'Ō' | 'Ŏ' | 'Ő' | 'Œ' | 'Ο' | 'Ό' | 'Ω' | 'Ώ' | 'О' => "O",
        'ò'..='õ' | 'ø' | 'ō' | 'ŏ' | 'ő' | 'œ' | 'ο' | 'ό' | 'ω' | 'ώ' | 'о' | 'º' => "o",
        'Π' | 'П' => "P",
        'π' | 'п' => "p",
        'Ŕ' | 'Ŗ' | 'Ř' | 'Ρ' | 'Р' => "R",
        'ŕ' | 'ŗ' | 'ř' | 'ρ' | 'р' => "r",
        'Ś' | 'Ŝ' | 'Ş' | 'Š' | 'Ș' | 'Σ' | 'С' => "S",
        'ś' | 'ŝ' | 'ş' | 'š' | 'ș' | 'σ' | 'ς' | 'с' => "s",
        'Ţ' | 'Ť' | 'Ŧ' | 'Ț' | 'Τ' | 'Т' => "T",
        'ţ' | 'ť' | 'ŧ' | 'ț' | 'τ' | 'т' => "t",
        'Þ' | 'Θ' => "TH",
        'þ' | 'θ' => "th",
        'Ù'..='Û' | 'Ũ' | 'Ū' | 'Ŭ' | 'Ů' | 'Ű' | 'Ų' | 'У' => "U",
        'ù'..='û' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' | 'у' => "u",
        'В' => "V",
        'в' => "v",
        'Ŵ' => "W",
        'ŵ' => "w",
        'Ξ' => "X",
        'ξ' => "x",
        'Ý' | 'Ŷ' | 'Ÿ' | 'Υ' | 'Ύ' | 'Ϋ' | 'Ь' | 'Ы' => "Y",
        'ý' | 'ŷ' | 'ÿ' | 'υ' | 'ύ' | 'ϋ' | 'ΰ' | 'ь' | 'ы' => "y",
        'Ź' | 'Ż' | 'Ž' | 'Ζ' | 'З' => "Z",
        'ź' | 'ż' | 'ž' | 'ζ' | 'з' => "z",
        'Χ' | 'Ч' => "CH",
        'χ' | 'ч' => "ch",
        'Ψ' => "PS",
        'ψ' => "ps",
        'Ж' => "ZH",
        'ж' => "zh",
        'Ц' => "TS",
        'ц' => "ts",
        'Ш' => "SH",
        'ш' => "sh",
        'Щ' => "SHT",
        'щ' => "sht",
        'Ю' => "YU",
        'ю' => "yu",
        'Я' => "YA",
        'я' => "ya",
        '&' => "+",
        '_' | '~' | '–' | '—' | '‐' | '‑' => "-",
        '"' | '‘' | '’' | '“' | '”' | '„' | '`' | '´' | 'ʼ' => "'",
        '<' | '[' | '{' => "(",
        '>' | ']' | '}' => ")",
        ';' => ",",
        '\\' | '|' => "/",
        _ => ".",
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn identifier_limits_hold_on_both_sides() {
        for good in ["A", "a/b-c?d:e(f)g.h,i'j+k", &"x".repeat(35)] {
            assert_eq!(check_identifier(good), Ok(()), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "a b", "a&b", "ä", "a_b", &"x".repeat(36)] {
            assert!(check_identifier(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn remittance_limits_hold_on_both_sides() {
        for good in ["x", "Weir window 7", "/RFB/1//2/", &"x".repeat(140)] {
            assert_eq!(check_remittance(good), Ok(()), "{good}");
        }
        for bad in ["", " x", "x ", "größe", "x\ny", &"x".repeat(141)] {
            assert!(check_remittance(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn name_is_written_with_what_banks_have() {
        for (name, written) in [
            ("Müller & Söhne GmbH", "Mueller + Soehne GmbH"),
            ("  Łukasz\tŻółć ", "Lukasz Zolc"),
            ("Ωνάσης", "Onasis"),
            ("Щукин", "SHTukin"),
            ("O’Brien [IE]", "O'Brien (IE)"),
            ("Li 李", "Li ."),
        ] {
            assert_eq!(bank_name(name).unwrap(), written);
        }
    }

    #[test]
    fn name_without_a_readable_character_is_refused() {
        for bad in ["", "   ", "李", "???", "-"] {
            assert!(matches!(bank_name(bad), Err(TextError::Empty(_))), "{bad}");
        }
    }

    #[test]
    fn name_length_counts_after_transliteration() {
        assert!(bank_name(&"x".repeat(70)).is_ok());
        assert!(bank_name(&"x".repeat(71)).is_err());
        assert!(bank_name(&"ß".repeat(35)).is_ok());
        assert!(bank_name(&"ß".repeat(36)).is_err());
    }

    proptest! {
        #[test]
        fn name_that_was_written_is_stable(name in ".{0,80}") {
            if let Ok(written) = bank_name(&name) {
                prop_assert!(written.chars().all(is_bank_char));
                prop_assert!(written.len() <= MAX_NAME);
                prop_assert_eq!(bank_name(&written), Ok(written.clone()));
            }
        }
    }
}
