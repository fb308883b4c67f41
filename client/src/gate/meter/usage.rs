//! Where usage stands in the answers that are known, and how it becomes units.
//!
//! OpenAI (Chat Completions, Completions, Embeddings: `usage.prompt_tokens`, `usage.completion_tokens`; Responses:
//! `usage.input_tokens`, `usage.output_tokens`, streamed inside `response` of the event `response.completed`): the
//! prompt's tokens **include** the cached ones of `…_tokens_details.cached_tokens`. Streamed, `usage` is `null` until the
//! last piece.
//!
//! Anthropic (Messages): `usage.input_tokens` **excludes** `cache_read_input_tokens` and `cache_creation_input_tokens`.
//! Streamed, `message_start` has them inside `message`, and `message_delta` has the cumulative `usage.output_tokens`.

use super::json::Found;
use super::{MeterError, count};
use crate::gate::price::Units;

/// The shape of a report.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// One number.
    Plain(Vec<String>),
    OpenAi,
    Anthropic,
}

/// What a number says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Plain,
    Input,
    Cached,
    CacheWrite,
    Output,
}

const OPENAI: &[(&str, Slot)] = &[
    ("usage/prompt_tokens", Slot::Input),
    ("usage/input_tokens", Slot::Input),
    ("response/usage/input_tokens", Slot::Input),
    ("usage/completion_tokens", Slot::Output),
    ("usage/output_tokens", Slot::Output),
    ("response/usage/output_tokens", Slot::Output),
    ("usage/prompt_tokens_details/cached_tokens", Slot::Cached),
    ("usage/input_tokens_details/cached_tokens", Slot::Cached),
    ("response/usage/input_tokens_details/cached_tokens", Slot::Cached),
];

const ANTHROPIC: &[(&str, Slot)] = &[
    ("usage/input_tokens", Slot::Input),
    ("message/usage/input_tokens", Slot::Input),
    ("usage/cache_read_input_tokens", Slot::Cached),
    ("message/usage/cache_read_input_tokens", Slot::Cached),
    ("usage/cache_creation_input_tokens", Slot::CacheWrite),
    ("message/usage/cache_creation_input_tokens", Slot::CacheWrite),
    ("usage/output_tokens", Slot::Output),
    ("message/usage/output_tokens", Slot::Output),
];

/// Collects what an answer says.
#[derive(Debug)]
pub(super) struct Reading {
    kind: Kind,
    plain: Option<Found>,
    input: Option<Found>,
    cached: Option<Found>,
    cache_write: Option<Found>,
    output: Option<Found>,
}

impl Reading {
    pub(super) const fn new(kind: Kind) -> Self {
        Self { kind, plain: None, input: None, cached: None, cache_write: None, output: None }
    }

    const fn known(&self) -> &'static [(&'static str, Slot)] {
        match self.kind {
            Kind::Plain(_) => &[],
            Kind::OpenAi => OPENAI,
            Kind::Anthropic => ANTHROPIC,
        }
    }

    /// The places to look at.
    pub(super) fn places(&self) -> Vec<Vec<String>> {
        match &self.kind {
            Kind::Plain(place) => vec![place.clone()],
            _ => self.known().iter().map(|(place, _)| place.split('/').map(str::to_owned).collect()).collect(),
        }
    }

    /// What stands at a place; a later report replaces an earlier one.
    pub(super) fn report(&mut self, place: usize, found: Found) {
        let slot = self.known().get(place).map_or(Slot::Plain, |(_, slot)| *slot);
        let kept = match slot {
            Slot::Plain => &mut self.plain,
            Slot::Input => &mut self.input,
            Slot::Cached => &mut self.cached,
            Slot::CacheWrite => &mut self.cache_write,
            Slot::Output => &mut self.output,
        };
        *kept = Some(found);
    }

    /// The units that were reported.
    pub(super) fn units(&self) -> Result<Units, MeterError> {
        let or_none = |found: Option<Found>| found.map_or(Ok(0), count);
        if matches!(self.kind, Kind::Plain(_)) {
            return count(self.plain.ok_or(MeterError::Missing)?).map(Units::plain);
        }
        if self.input.is_none() && self.output.is_none() {
            return Err(MeterError::Missing);
        }
        let mut units = Units {
            plain: 0,
            input: or_none(self.input)?,
            cached: or_none(self.cached)?,
            cache_write: or_none(self.cache_write)?,
            output: or_none(self.output)?,
        };
        if matches!(self.kind, Kind::OpenAi) {
            units.input = units.input.checked_sub(units.cached).ok_or(MeterError::Contradiction)?;
        }
        Ok(units)
    }
}
