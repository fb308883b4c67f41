//! Reads the journal again and notes every posting: the double entries exactly as the engine books them.

use std::ops::ControlFlow;

use weir_protocol::id::HubId;

use crate::engine::ledger::Posting;
use crate::engine::record::Record;
use crate::engine::state::{Broken, Depth, State};
use crate::pipeline::compact::ReplayError;
use crate::store::StoreError;
use crate::store::journal::JournalReader;
use crate::store::snapshot::Snapshots;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The journal cannot be read or breaks a rule.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The commits that it needs are not kept any more, and no snapshot stands for them.
    #[error("the journal begins at commit {first}, and no snapshot stands for what came before")]
    Pruned {
        /// The first commit kept.
        first: u64,
    },
    /// There is no such thing.
    #[error("there is no {0}")]
    Unknown(String),
    /// It cannot be written.
    #[error("cannot write the report")]
    Write(#[from] std::io::Error),
    /// What was added up is not what the books say: a bug.
    #[error("the report does not add up: {0}")]
    Sums(String),
}

impl From<StoreError> for ReportError {
    fn from(error: StoreError) -> Self {
        Self::Replay(error.into())
    }
}

impl From<Broken> for ReportError {
    fn from(error: Broken) -> Self {
        Self::Replay(error.into())
    }
}

/// Sees each record, what it booked, and the state after it.
pub type Each<'a> = dyn FnMut(&Record, &[Posting], &State) -> Result<(), ReportError> + 'a;

/// A journal with its snapshots.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Whose.
    pub hub: HubId,
    /// The commits.
    pub journal: &'a JournalReader,
    /// States to begin from.
    pub snapshots: &'a Snapshots,
}

impl Source<'_> {
    /// The state at a commit or, where no snapshot is so old, as early as possible: the newest snapshot not after it, or
    /// the empty state when the journal is whole. It notes postings from there on.
    pub fn state_before(&self, commit: u64) -> Result<State, ReportError> {
        let numbers = self.snapshots.numbers()?;
        let mut state = None;
        for number in numbers.iter().rev().filter(|number| **number <= commit) {
            // One that is damaged, or of another version, is passed over.
            let Some(snapshot) = self.snapshots.read(*number)? else { continue };
            let read = State::read(snapshot.state).ok().flatten();
            state =
                read.filter(|state| state.hub() == self.hub && state.last().is_some_and(|last| last.number == *number));
            if state.is_some() {
                break;
            }
        }
        let first = self.journal.first()?.unwrap_or(1);
        let mut state = match state {
            Some(state) => state,
            None if first <= 1 => State::new(self.hub),
            None => return Err(ReportError::Pruned { first }),
        };
        if state.last().map_or(0, |last| last.number) + 1 < first {
            return Err(ReportError::Pruned { first });
        }
        state.record_postings();
        Ok(state)
    }

    /// Takes the state on, commit by commit, to the journal's end.
    pub fn follow(&self, state: &mut State, each: &mut Each<'_>) -> Result<(), ReportError> {
        let from = state.last().map_or(0, |last| last.number) + 1;
        let mut failed = None;
        self.journal.scan(from, &mut |entry| {
            let number = entry.position.number;
            let applied = Record::decode(&entry.payload)
                .map_err(|error| Broken { commit: number, what: error.to_string() })
                .and_then(|record| state.apply(&record, Depth::Rules).map(|()| record));
            let done = applied.map_err(ReportError::from).and_then(|record| {
                let postings = state.take_postings();
                each(&record, &postings, state)
            });
            match done {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(()), Err)
    }
}

/// The day of a time in UTC: `2026-11-23`.
pub fn day(ms: u64) -> String {
    crate::bank::timestamp(ms).map_or_else(|_| "9999-12-31".to_owned(), |text| text.chars().take(10).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn day_is_the_date_in_utc() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(1_790_000_000_000), "2026-09-21");
    }
}
