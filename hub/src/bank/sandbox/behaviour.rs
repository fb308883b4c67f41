//! How the sandbox bank misbehaves: which faults, how often, and the dice that say when.
//!
//! Deterministic: a fault strikes by the seed, its own name and the id of what it would strike (a payment's
//! `EndToEndId`, a file's `MsgId`, a message's number), and by nothing else. It must not book or write anything.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::details::{Iban, clip};

/// Reason codes for refusals that nobody chose (ISO 20022 external status reason codes).
const REJECT_CODES: [&str; 4] = ["AC04", "AC06", "AG01", "MS03"];
/// Reason codes for money that comes back.
const RETURN_CODES: [&str; 4] = ["AC01", "AC04", "MD07", "MS03"];

/// One way to misbehave. The names of the command line and of `bank.toml` are in [`Fault::name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A payment or collection is rejected.
    Reject,
    /// A payment is made and comes back later; a collection is taken back by its debtor.
    Return,
    /// A payment is reported rejected, then reported settled, and was made.
    PaidAfterReject,
    /// A payment is reported settled, then reported rejected, and was never made.
    RejectAfterPaid,
    /// A whole file is rejected, without a word on its payments.
    RejectFile,
    /// Some payments of a file are rejected, and only those are listed (PART).
    Partial,
    /// A file is first reported accepted (ACTC), which is not money.
    Interim,
    /// A file is never reported on: only entries tell.
    Silent,
    /// A file is booked the other way: line by line, or in one line.
    FlipBatching,
    /// An entry carries no reference by which it could be matched.
    DropReference,
    /// A file, or a return, costs a charge, booked as a line of its own.
    Charge,
    /// What arrives or comes back is less a charge.
    Deduct,
    /// A message is delivered twice, under two names.
    DuplicateFile,
    /// An entry is in its notification twice.
    DuplicateEntry,
    /// A message is delivered one round later.
    Late,
    /// The messages about a file are named in the wrong order.
    Reorder,
    /// A message arrives cut off first, and whole one round later.
    Garble,
    /// A statement is made and never delivered: its number is missing from the sequence.
    LoseStatement,
}

impl Fault {
    /// Every fault, in the order of the manual.
    pub const ALL: [Self; 18] = [
        Self::Reject,
        Self::Return,
        Self::PaidAfterReject,
        Self::RejectAfterPaid,
        Self::RejectFile,
        Self::Partial,
        Self::Interim,
        Self::Silent,
        Self::FlipBatching,
        Self::DropReference,
        Self::Charge,
        Self::Deduct,
        Self::DuplicateFile,
        Self::DuplicateEntry,
        Self::Late,
        Self::Reorder,
        Self::Garble,
        Self::LoseStatement,
    ];

    /// Its name outside.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Return => "return",
            Self::PaidAfterReject => "paid-after-reject",
            Self::RejectAfterPaid => "reject-after-paid",
            Self::RejectFile => "reject-file",
            Self::Partial => "partial",
            Self::Interim => "interim",
            Self::Silent => "silent",
            Self::FlipBatching => "flip-batching",
            Self::DropReference => "drop-reference",
            Self::Charge => "charge",
            Self::Deduct => "deduct",
            Self::DuplicateFile => "duplicate-file",
            Self::DuplicateEntry => "duplicate-entry",
            Self::Late => "late",
            Self::Reorder => "reorder",
            Self::Garble => "garble",
            Self::LoseStatement => "lose-statement",
        }
    }

    /// What it does, for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Reject => "rejects a payment or collection",
            Self::Return => "makes a payment, and has it come back later",
            Self::PaidAfterReject => "reports a payment rejected, then settled, and makes it",
            Self::RejectAfterPaid => "reports a payment settled, then rejected, and does not make it",
            Self::RejectFile => "rejects a whole file",
            Self::Partial => "rejects some payments of a file and lists only those (PART)",
            Self::Interim => "reports a file accepted (ACTC) before it says more",
            Self::Silent => "never reports on a file",
            Self::FlipBatching => "books a file the other way: one line, or many",
            Self::DropReference => "leaves every reference out of an entry",
            Self::Charge => "books a charge for a file or a return",
            Self::Deduct => "deducts a charge from what arrives or comes back",
            Self::DuplicateFile => "delivers a message twice",
            Self::DuplicateEntry => "has an entry in its notification twice",
            Self::Late => "delivers a message one round later",
            Self::Reorder => "names the messages about a file in the wrong order",
            Self::Garble => "delivers a message cut off, and whole one round later",
            Self::LoseStatement => "makes a statement and never delivers it",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a text is no fault or chance. Decode family.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BehaviourError {
    /// No such fault.
    #[error("`{0}` is no fault that the sandbox bank knows")]
    Fault(String),
    /// Not `always`, `never`, or 0 to 100 percent with at most one digit behind the point.
    #[error("`{0}` is no chance: `always`, `never`, or a percentage such as `12.5%`")]
    Chance(String),
}

impl FromStr for Fault {
    type Err = BehaviourError;

    fn from_str(text: &str) -> Result<Self, BehaviourError> {
        Self::ALL.into_iter().find(|fault| fault.name() == text).ok_or_else(|| BehaviourError::Fault(clip(text)))
    }
}

/// How often a fault strikes, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Chance(u16);

impl Chance {
    /// Whenever it can.
    pub const ALWAYS: Self = Self(1000);
}

impl FromStr for Chance {
    type Err = BehaviourError;

    /// `always`, `never`, `12.5%`.
    fn from_str(text: &str) -> Result<Self, BehaviourError> {
        let invalid = || BehaviourError::Chance(clip(text));
        match text {
            "always" => return Ok(Self::ALWAYS),
            "never" => return Ok(Self(0)),
            _ => {}
        }
        let percent = text.strip_suffix('%').ok_or_else(invalid)?;
        let percent = Decimal::from_str_exact(percent).map_err(|_| invalid())?;
        let thousandths = percent.checked_mul(Decimal::TEN).ok_or_else(invalid)?.normalize();
        let fits = thousandths.scale() == 0 && (Decimal::ZERO..=Decimal::ONE_THOUSAND).contains(&thousandths);
        fits.then(|| u16::try_from(thousandths).ok()).flatten().map(Self).ok_or_else(invalid)
    }
}

/// Which pain.002 the bank writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum StatusVersion {
    /// pain.002.001.10
    #[default]
    #[serde(rename = "10")]
    V10,
    /// pain.002.001.03
    #[serde(rename = "03")]
    V03,
    /// One or the other, by the dice.
    #[serde(rename = "mixed")]
    Mixed,
}

/// How a bank behaves. The default is a bank that does what it should.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// Of the dice.
    pub seed: u64,
    /// How often each fault strikes; one that is not there never does.
    pub chances: BTreeMap<Fault, Chance>,
    /// Accounts that pay everything back, each with the ISO reason code that it gives: a payout to one is returned, a
    /// collection from one is taken back.
    pub returns: BTreeMap<Iban, String>,
    /// How long after the booking money comes back; at the earliest in the next round.
    pub return_after_ms: u64,
    /// What a charge is, in major units; none: faults that charge do nothing.
    pub charge: Decimal,
    /// Which pain.002 it writes.
    pub status_version: StatusVersion,
    /// Reports entries during the day too (camt.052), after every round that booked something.
    pub intraday: bool,
}

impl Behaviour {
    /// Sets a fault's chance.
    #[must_use]
    pub fn with(mut self, fault: Fault, chance: Chance) -> Self {
        self.chances.insert(fault, chance);
        self
    }

    /// Whether a fault strikes `id`.
    pub(super) fn strikes(&self, fault: Fault, id: &str) -> bool {
        let chance = self.chances.get(&fault).copied().unwrap_or_default();
        self.dice(fault.name(), id) % 1000 < u64::from(chance.0)
    }

    /// The reason that is given for refusing `id`.
    pub(super) fn reject_code(&self, id: &str) -> &'static str {
        self.choose(&REJECT_CODES, "reject code", id)
    }

    /// The reason with which `id` comes back.
    pub(super) fn return_code(&self, id: &str) -> &'static str {
        self.choose(&RETURN_CODES, "return code", id)
    }

    /// Of two, by the dice.
    pub(super) fn coin(&self, what: &str, id: &str) -> bool {
        self.dice(what, id).is_multiple_of(2)
    }

    /// The charge, if the fault strikes and there is one.
    pub(super) fn charge(&self, fault: Fault, id: &str) -> Option<Decimal> {
        (self.charge > Decimal::ZERO && self.strikes(fault, id)).then_some(self.charge)
    }

    fn choose(&self, from: &[&'static str; 4], what: &str, id: &str) -> &'static str {
        let [first, second, third, fourth] = *from;
        match self.dice(what, id) % 4 {
            0 => first,
            1 => second,
            2 => third,
            _ => fourth,
        }
    }

    fn dice(&self, what: &str, id: &str) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.seed.to_le_bytes());
        hash.update(what.as_bytes());
        hash.update([0]);
        hash.update(id.as_bytes());
        let bytes: [u8; 32] = hash.finalize().into();
        let (first, _) = bytes.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        u64::from_le_bytes(*first)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test should say where")]

    use super::*;

    #[test]
    fn fault_names_are_read_back() {
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse(), Ok(fault));
        }
        assert!(matches!("nothing".parse::<Fault>(), Err(BehaviourError::Fault(_))));
    }

    #[test]
    fn chance_bounds_hold_on_both_sides() {
        for (text, thousandths) in
            [("always", 1000), ("never", 0), ("0%", 0), ("0.1%", 1), ("12.5%", 125), ("100%", 1000)]
        {
            assert_eq!(text.parse(), Ok(Chance(thousandths)), "{text}");
        }
        for bad in ["", "5", "%", "-1%", "100.1%", "0.01%", "1e9%", "often", "99999999999999999999999999999%"] {
            assert!(bad.parse::<Chance>().is_err(), "{bad}");
        }
    }

    #[test]
    fn dice_follow_the_seed_and_keep_to_the_chance() {
        let behaviour = Behaviour { seed: 7, ..Behaviour::default() }.with(Fault::Reject, "10%".parse().unwrap());
        let struck = |behaviour: &Behaviour| -> Vec<u32> {
            (0..10_000).filter(|id| behaviour.strikes(Fault::Reject, &id.to_string())).collect()
        };
        let first = struck(&behaviour);
        assert_eq!(first, struck(&behaviour));
        assert!((900..1100).contains(&first.len()), "{}", first.len());
        assert_ne!(first, struck(&Behaviour { seed: 8, ..behaviour.clone() }));
        assert!(!behaviour.strikes(Fault::Late, "1"), "what was not asked for never strikes");
        let always = Behaviour::default().with(Fault::Late, Chance::ALWAYS);
        assert!((0..1000).all(|id| always.strikes(Fault::Late, &id.to_string())));
    }
}
