//! What the sandbox bank remembers, and how that is kept: JSON, replaced atomically, amounts as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::{SandboxError, write_bytes};
use crate::bank::calendar::Date;
use crate::bank::spool::SpoolError;
use crate::details::{Currency, Iban};

/// Money that one account received from the hub.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Received {
    /// Sum, in major units.
    #[serde(with = "decimal_text")]
    pub amount: Decimal,
    /// Number of payments.
    pub payments: u64,
    /// What of it came back later, before anything was deducted.
    #[serde(default, with = "decimal_text")]
    pub returned: Decimal,
}

/// Everything. `balance` = `opening` + entries, always.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    iban: Iban,
    currency: Currency,
    #[serde(with = "decimal_text")]
    pub(super) opening: Decimal,
    #[serde(with = "decimal_text")]
    pub(super) balance: Decimal,
    /// Since the last statement.
    pub(super) entries: Vec<Entry>,
    /// `MsgId` of every file that was executed.
    pub(super) executed: BTreeSet<String>,
    pub(super) received: BTreeMap<Iban, Received>,
    /// Names of staged messages.
    pub(super) undelivered: Vec<String>,
    /// Names of staged messages that wait for the next round.
    #[serde(default)]
    pub(super) held: Vec<String>,
    /// Money that comes back.
    #[serde(default)]
    pub(super) coming_back: Vec<ComingBack>,
    /// When the last statement was made; 0: none was.
    #[serde(default)]
    pub(super) stated_ms: u64,
    files: u64,
    references: u64,
    statements: u64,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EntryKind {
    /// A credit transfer, in or out.
    #[default]
    Transfer,
    /// A CORE direct debit of ours.
    Core,
    /// A B2B direct debit of ours.
    B2b,
    /// A transfer of ours that came back.
    Returned,
    /// A direct debit of ours that its debtor, or the debtor's bank, took back.
    TakenBack,
    /// What the bank charges.
    Charge,
}

/// Money that comes back later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ComingBack {
    pub(super) due_ms: u64,
    /// As what it was booked.
    pub(super) kind: EntryKind,
    /// ISO return reason code.
    pub(super) reason: String,
    pub(super) detail: Detail,
}

/// One line of the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// `AcctSvcrRef`
    pub(super) reference: String,
    pub(super) credit: bool,
    #[serde(with = "decimal_text")]
    pub(super) amount: Decimal,
    pub(super) date: Date,
    /// The batch that it books as one, if it does.
    pub(super) batch: bool,
    #[serde(default)]
    pub(super) kind: EntryKind,
    /// At least one; more only with `batch`; none for a charge.
    pub(super) details: Vec<Detail>,
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Detail {
    pub(super) reference: String,
    pub(super) end_to_end_id: Option<String>,
    pub(super) message_id: Option<String>,
    pub(super) batch_id: Option<String>,
    #[serde(with = "decimal_text")]
    pub(super) amount: Decimal,
    /// The other side.
    pub(super) name: String,
    pub(super) iban: Iban,
    /// `Strd`
    pub(super) structured: Option<String>,
    /// `Ustrd`
    pub(super) text: Option<String>,
    #[serde(default)]
    pub(super) mandate_id: Option<String>,
    /// `RtrInf/Rsn/Cd`
    #[serde(default)]
    pub(super) return_reason: Option<String>,
    /// What was deducted of it; `amount` is what is left.
    #[serde(default, with = "decimal_text")]
    pub(super) charge: Decimal,
}

impl Detail {
    /// Loses everything by which the customer could match it.
    pub(super) fn forget(&mut self) {
        self.end_to_end_id = None;
        self.message_id = None;
        self.batch_id = None;
        self.mandate_id = None;
        self.structured = None;
        self.text = None;
    }
}

impl State {
    /// The state in `path`, or an empty account if there is none.
    pub(super) fn load(path: &Path, iban: Iban, currency: Currency) -> Result<Self, SandboxError> {
        let invalid = |what: String| SandboxError::State { path: path.to_owned(), what };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::empty(iban, currency));
            }
            Err(error) => return Err(SpoolError::at("read", path)(error).into()),
        };
        let state: Self = serde_json::from_slice(&bytes).map_err(|error| invalid(format!("is damaged: {error}")))?;
        if (state.iban, state.currency) != (iban, currency) {
            return Err(invalid(format!("is of account {} in {}", state.iban, state.currency)));
        }
        let booked: Decimal = state.entries.iter().map(Entry::signed).sum();
        if state.opening + booked != state.balance {
            return Err(invalid("has a balance that is not the sum of its entries".to_owned()));
        }
        Ok(state)
    }

    fn empty(iban: Iban, currency: Currency) -> Self {
        Self {
            iban,
            currency,
            opening: Decimal::ZERO,
            balance: Decimal::ZERO,
            entries: Vec::new(),
            executed: BTreeSet::new(),
            received: BTreeMap::new(),
            undelivered: Vec::new(),
            held: Vec::new(),
            coming_back: Vec::new(),
            stated_ms: 0,
            files: 0,
            references: 0,
            statements: 0,
        }
    }

    pub(super) fn save(&self, dir: &Path, name: &str) -> Result<(), SandboxError> {
        let bytes = serde_json::to_vec_pretty(self).map_err(io::Error::from)?;
        write_bytes(dir, name, &bytes)
    }

    /// Number of the next message.
    pub(super) fn take_message_number(&mut self) -> u64 {
        self.files += 1;
        self.files
    }

    /// The bank's next `AcctSvcrRef`.
    pub(super) fn take_reference(&mut self) -> String {
        self.references += 1;
        format!("SANDBOX{:012}", self.references)
    }

    pub(super) fn take_statement_number(&mut self) -> u64 {
        self.statements += 1;
        self.statements
    }

    /// Adds an entry and moves the balance by it.
    pub(super) fn book(&mut self, entry: Entry) {
        self.balance += entry.signed();
        self.entries.push(entry);
    }

    /// After a statement: the next day starts where this one ended.
    pub(super) fn start_day(&mut self, now_ms: u64) {
        self.stated_ms = now_ms;
        self.opening = self.balance;
        self.entries.clear();
    }
}

impl Entry {
    /// Its amount with the account's sign.
    pub(super) fn signed(&self) -> Decimal {
        if self.credit { self.amount } else { -self.amount }
    }
}

/// Decimals as JSON text: no JSON number goes through a float.
mod decimal_text {
    use rust_decimal::Decimal;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &Decimal, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Decimal, D::Error> {
        let text = String::deserialize(from)?;
        Decimal::from_str_exact(&text).map_err(D::Error::custom)
    }
}
