//! What was heard from the bank and is not money: which files were read, which statements are there, what a notification
//! announced that no statement has shown yet, what is odd, what a person has accepted.
//!
//! It is derived, in `heard.json` beside `inbox/`. Every entry that moves money and every statement's closing balance are
//! acts in the journal, each under a key of the bank's own, so they are there once whatever becomes of this file. Without
//! it files would be read again and change nothing, and differences would be seen and not be explained. Entries are many
//! and statements are few: in the journal they cost an act each, and nobody has to believe a file that nobody signed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weir_protocol::amount::{Amount, Currency};

use super::SettlementError;
use super::matching::Oddity;
use crate::bank::{InboxFile, write_atomically};

/// The file.
const NAME: &str = "heard.json";
/// Files that are remembered by their content. Older ones would change nothing: their entries are known.
const FILES_MAX: usize = 20_000;
/// Statements that are remembered, the newest.
const STATEMENTS_MAX: usize = 1_000;
/// Entries that are explained to a person, the newest.
const ODD_MAX: usize = 100_000;

/// A signed number of nanos, as a decimal of the major unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Signed(pub i128);

impl Signed {
    /// An amount with its sign.
    pub fn of(negative: bool, amount: Amount) -> Self {
        let nanos = i128::from(amount.nanos());
        Self(if negative { -nanos } else { nanos })
    }
}

impl core::fmt::Display for Signed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&crate::engine::ledger::signed_units(self.0))
    }
}

impl core::str::FromStr for Signed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let amount: Amount = digits.parse().map_err(|_| format!("`{text}` is not an amount"))?;
        Ok(Self::of(negative, amount))
    }
}

impl Serialize for Signed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Signed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHeard {
    /// Under which name it came.
    pub name: String,
    /// When it was taken.
    pub at_ms: u64,
    /// Entries that were posted from it.
    pub posted: u64,
    /// Entries that were known.
    pub known: u64,
    /// Entries that are not money yet.
    pub waiting: u64,
}

/// A statement that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementHeard {
    /// Its currency.
    pub currency: Currency,
    /// The bank's id of it.
    pub id: String,
    /// The bank's number of it; 0: it has none.
    pub sequence: u64,
    /// The end of the day of its closing balance.
    pub closed_at_ms: u64,
    /// Balance with which it begins.
    pub opening: Signed,
    /// Balance with which it ends.
    pub closing: Signed,
    /// When it was taken.
    pub at_ms: u64,
}

/// An entry that a notification announced and no statement has shown yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// Its currency.
    pub currency: Currency,
    /// With the account's sign.
    pub amount: Signed,
    /// The end of the day on which it was booked.
    pub booked_at_ms: u64,
    /// When it was taken.
    pub at_ms: u64,
    /// The bank's reference.
    pub reference: String,
}

/// Something for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OddHeard {
    /// What is odd.
    pub oddity: Oddity,
    /// What the bank says of it.
    pub about: String,
    /// The file in which it stood.
    pub file: String,
}

/// A file that was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedFile {
    /// Under which name it came.
    pub name: String,
    /// Why.
    pub why: String,
    /// Whether it was the currency.
    pub currency: bool,
    /// When.
    pub at_ms: u64,
}

/// What a person accepted as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// When.
    pub at_ms: u64,
    /// Why.
    pub note: String,
}

/// All that was heard.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Heard {
    /// Files by the SHA-256 of their content.
    pub files: BTreeMap<String, FileHeard>,
    /// Statements in the order of their days and numbers.
    pub statements: Vec<StatementHeard>,
    /// Entries that no statement has shown yet, by the key of the entry.
    pub announced: BTreeMap<String, Announced>,
    /// What is known of entries that are posted to nobody, by the key of the entry.
    pub odd: BTreeMap<String, OddHeard>,
    /// Files that were set aside, by the SHA-256 of their content.
    pub rejected: BTreeMap<String, RejectedFile>,
    /// Breaks that a person accepted, by their id.
    pub accepted: BTreeMap<String, Accepted>,
    /// Files in the inbox that wait for others.
    #[serde(skip)]
    pub later: BTreeSet<InboxFile>,
}

impl Heard {
    /// What was written, or nothing.
    pub fn load(root: &Path) -> Result<Self, SettlementError> {
        let path = root.join(NAME);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::error!(path = %path.display(), %error, "what was heard from the bank cannot be read: forgotten");
                Self::default()
            })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(SettlementError::Io { action: "read", path, source }),
        }
    }

    /// Writes it whole or not at all.
    pub fn save(&self, root: &Path) -> Result<(), SettlementError> {
        let path: PathBuf = root.join(NAME);
        write_atomically(root, NAME, |out| {
            serde_json::to_writer(out, self).map_err(|error| SettlementError::Io {
                action: "write",
                path: path.clone(),
                source: error.into(),
            })
        })
    }

    /// Remembers a statement, in the order of days and numbers.
    pub fn add_statement(&mut self, statement: StatementHeard) {
        let order = |known: &StatementHeard| (known.closed_at_ms, known.sequence);
        let same = |known: &StatementHeard| order(known) == order(&statement) && known.id == statement.id;
        if self.statements.iter().any(|known| known.currency == statement.currency && same(known)) {
            return;
        }
        let at = self.statements.partition_point(|known| order(known) <= order(&statement));
        self.statements.insert(at, statement);
        if self.statements.len() > STATEMENTS_MAX {
            self.statements.remove(0);
        }
    }

    /// Forgets what has grown beyond its bounds.
    pub fn trim(&mut self) {
        while self.files.len() > FILES_MAX {
            let oldest = self.files.iter().min_by_key(|(_, file)| file.at_ms).map(|(hash, _)| hash.clone());
            if let Some(hash) = oldest {
                self.files.remove(&hash);
            }
        }
        while self.odd.len() > ODD_MAX {
            self.odd.pop_first();
        }
    }
}
