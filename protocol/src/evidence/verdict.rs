//! What a file proves, in plain words.

use super::Checked;
use crate::amount::Time;

/// What was found in evidence that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `channel`, `payment`, `receipt`, `payout` or `act`.
    pub kind: &'static str,
    /// When what is claimed became so: the time of its last commit, as the hub signed it.
    pub time: Time,
    /// The number of that commit.
    pub commit: u64,
    /// The newest commit whose history covers all of it.
    pub newest: u64,
    /// Names and values of what is claimed.
    pub facts: Vec<(&'static str, String)>,
    /// What is proven, a sentence each.
    pub proven: Vec<String>,
    /// What is not, a sentence each.
    pub open: Vec<String>,
}

impl Verdict {
    pub(super) fn new(kind: &'static str, commit: u64) -> Self {
        Self { kind, time: Time(0), commit, newest: 0, facts: Vec::new(), proven: Vec::new(), open: Vec::new() }
    }

    #[expect(clippy::needless_pass_by_value, reason = "what is shown is mostly made for it")]
    pub(super) fn fact(&mut self, name: &'static str, value: impl ToString) {
        self.facts.push((name, value.to_string()));
    }

    pub(super) fn proven(&mut self, sentence: impl Into<String>) {
        self.proven.push(sentence.into());
    }

    pub(super) fn open(&mut self, sentence: impl Into<String>) {
        self.open.push(sentence.into());
    }

    /// What holds for every kind.
    pub(super) fn seal(&mut self, checked: &Checked<'_>) {
        self.time = checked.time(self.commit);
        self.newest = checked.newest.commit.number;
        let count = checked.commits.len();
        self.proven(format!(
            "The hub signed each of the {count} commits of this file, and the history of commit {} covers all before it: the \
             hub cannot take them back without signing two histories.",
            self.newest
        ));
        self.open(format!("What happened after commit {}.", self.newest));
        self.open("That the hub shows the same history to everyone: compare the newest commit with what others hold.");
    }
}
