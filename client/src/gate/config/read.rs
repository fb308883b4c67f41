//! Reading single values, and collecting what is wrong with them.

use core::fmt::Display;
use core::num::NonZeroU64;
use core::ops::{Range, RangeInclusive};
use core::str::FromStr;
use std::path::{Path, PathBuf};

use toml::Spanned;
use weir_protocol::amount::Amount;

use super::error::{ConfigError, ConfigErrors};
use super::file::{Number, Text};
use crate::span::Span;

/// What is wrong so far. Reading goes on after a fault, so that all are told at once.
#[derive(Debug)]
pub(super) struct Faults<'t> {
    file: &'t Path,
    text: &'t str,
    errors: Vec<ConfigError>,
}

impl<'t> Faults<'t> {
    pub(super) const fn new(file: &'t Path, text: &'t str) -> Self {
        Self { file, text, errors: Vec::new() }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    pub(super) fn into_errors(mut self) -> ConfigErrors {
        self.errors.sort_by_key(ConfigError::line);
        ConfigErrors(self.errors)
    }

    /// The line of a place, from 1.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        self.text.get(..span.start).map_or(1, |before| 1 + before.matches('\n').count())
    }

    pub(super) fn toml(&mut self, error: &toml::de::Error) {
        let message = error.message().trim_end_matches('.').to_owned();
        let hint = if message.contains("expected a string") {
            "amounts, spans and addresses stand in quotes, such as \"0.05\" or \"10m\""
        } else if message.starts_with("unknown field") {
            "a mistyped key, or a key in another table than its own"
        } else {
            "look at the quotes, brackets and kind of value on this line"
        };
        let line = error.span().map(|span| self.line(&span));
        self.errors.push(ConfigError::Toml { file: self.file.to_path_buf(), line, message, hint });
    }

    /// A value makes no sense.
    pub(super) fn fault(&mut self, span: &Range<usize>, key: &str, what: impl Display, hint: impl Into<String>) {
        let line = Some(self.line(span));
        self.value(line, key, what, hint);
    }

    /// A key that must be there is not, in the whole file.
    pub(super) fn missing(&mut self, key: &str, hint: &str) {
        self.overall(key, "is missing", hint);
    }

    /// What is wrong at no one place.
    pub(super) fn overall(&mut self, key: &str, what: &str, hint: &str) {
        self.value(None, key, what, hint);
    }

    fn value(&mut self, line: Option<usize>, key: &str, what: impl Display, hint: impl Into<String>) {
        let file = self.file.to_path_buf();
        self.errors.push(ConfigError::Value {
            file,
            line,
            key: key.to_owned(),
            what: what.to_string(),
            hint: hint.into(),
        });
    }

    /// A text of some type; `None` when it is absent or wrong.
    pub(super) fn parse<T: FromStr<Err: Display>>(&mut self, key: &str, text: &Text, hint: &str) -> Option<T> {
        let text = text.as_ref()?;
        match text.get_ref().parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(&text.span(), key, format!("is wrong: {error}"), hint);
                None
            }
        }
    }

    /// An amount.
    pub(super) fn amount(&mut self, key: &str, text: &Text) -> Option<Amount> {
        self.parse(
            key,
            text,
            "a price is a decimal number of the currency's units with at most 9 places, such as \"0.05\"",
        )
    }

    /// A span within bounds, in milliseconds, or what holds without the key.
    pub(super) fn span(&mut self, key: &str, text: &Text, default_ms: u64, bounds: RangeInclusive<u64>) -> u64 {
        self.bounded_span(key, text, bounds).unwrap_or(default_ms)
    }

    /// A span within bounds, in milliseconds.
    pub(super) fn bounded_span(&mut self, key: &str, text: &Text, bounds: RangeInclusive<u64>) -> Option<u64> {
        let hint = format!("from {} to {}", Span::Ms(*bounds.start()), Span::Ms(*bounds.end()));
        match (self.parse::<Span>(key, text, &hint)?, text) {
            (Span::Ms(ms), _) if bounds.contains(&ms) => Some(ms),
            (_, Some(text)) => {
                self.fault(&text.span(), key, format!("is out of bounds: `{}`", text.get_ref()), hint);
                None
            }
            (_, None) => None,
        }
    }

    /// A number within bounds; `None` when it is absent or wrong.
    pub(super) fn number(&mut self, key: &str, number: &Number, bounds: RangeInclusive<u64>) -> Option<u64> {
        let number = number.as_ref()?;
        if bounds.contains(number.get_ref()) {
            return Some(*number.get_ref());
        }
        let hint = format!("from {} to {}", bounds.start(), bounds.end());
        self.fault(&number.span(), key, format!("is out of bounds: {}", number.get_ref()), hint);
        None
    }

    /// A number above zero.
    pub(super) fn per(&mut self, key: &str, number: &Number) -> Option<NonZeroU64> {
        NonZeroU64::new(self.number(key, number, 1..=u64::from(u32::MAX))?)
    }

    /// One of several words.
    pub(super) fn word<T: Copy>(&mut self, key: &str, text: &Text, words: &[(&str, T)]) -> Option<T> {
        let text = text.as_ref()?;
        let found = words.iter().find(|(word, _)| word == text.get_ref());
        if found.is_none() {
            let known: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            self.fault(
                &text.span(),
                key,
                format!("is unknown: `{}`", text.get_ref()),
                format!("one of {}", known.join(", ")),
            );
        }
        found.map(|(_, value)| *value)
    }

    /// A text without control characters, of at most so many characters.
    pub(super) fn words(&mut self, key: &str, text: &Text, most: usize) -> Option<String> {
        let text = text.as_ref()?;
        let value = text.get_ref().trim();
        let long = value.chars().count() > most;
        if long || value.is_empty() || value.chars().any(char::is_control) {
            self.fault(&text.span(), key, "cannot be shown", format!("one line of 1 to {most} characters"));
            return None;
        }
        Some(value.to_owned())
    }
}

/// A path, relative to a folder.
pub(super) fn path(folder: &Path, text: &Spanned<String>) -> PathBuf {
    folder.join(text.get_ref())
}
