//! What happened: a hash over all of it, and the last of it in words.

use core::fmt;
use std::collections::VecDeque;
use std::fmt::Write as _;

/// Events that a failure shows.
const SHOWN: usize = 40;

/// A rule that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a step or a check leads to.
pub(crate) type Checked<T = ()> = Result<T, Failure>;

/// Fails with words when something does not hold.
pub(crate) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Failure(what())) }
}

/// The events so far.
#[derive(Debug, Default)]
pub(crate) struct Log {
    hash: u64,
    last: VecDeque<String>,
    line: String,
}

impl Log {
    /// Notes an event at a time in microseconds.
    pub(crate) fn note(&mut self, at_us: u64, what: fmt::Arguments<'_>) {
        self.line.clear();
        // Writing to a string cannot fail.
        let _ = write!(self.line, "{:>9}.{:03} ms  {what}", at_us / 1000, at_us % 1000);
        for byte in self.line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let mut kept = if self.last.len() == SHOWN { self.last.pop_front().unwrap_or_default() } else { String::new() };
        kept.clone_from(&self.line);
        self.last.push_back(kept);
    }

    /// The hash over all events.
    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    /// The last ones, oldest first.
    pub(crate) fn last(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }
}
