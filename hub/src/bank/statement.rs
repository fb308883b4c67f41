//! camt.052, .053, .054: what the bank says happened on the account.
//!
//! It owns the two checks without which nothing may be posted: opening balance + booked entries = closing balance, and
//! the details of an entry sum to the entry. A file that fails one is refused whole. What an entry is for, and whether it
//! was seen before (account and `AcctSvcrRef`), the caller decides.

mod read;

pub use self::read::EntrySink;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::calendar::Date;
use super::reference::CreditorReference;

/// Decimals as their 16 bytes.
mod exact {
    use rust_decimal::Decimal;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
        <[u8; 16]>::deserialize(deserializer).map(Decimal::deserialize)
    }

    pub(super) mod option {
        use super::{Decimal, Deserialize, Deserializer, Serialize, Serializer};

        #[expect(clippy::ref_option, reason = "as serde calls it")]
        pub(in super::super) fn serialize<S: Serializer>(
            value: &Option<Decimal>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            value.map(|value| value.serialize()).serialize(serializer)
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Decimal>, D::Error> {
            Ok(Option::<[u8; 16]>::deserialize(deserializer)?.map(Decimal::deserialize))
        }
    }
}

/// Most references that one detail yields.
const MAX_REFERENCES: usize = 64;

/// Which message a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatementKind {
    /// camt.052: during the day. What it books may still change until the statement.
    Report,
    /// camt.053: the account's statement. One without both balances proves nothing, and must not be posted.
    Statement,
    /// camt.054: single credits and debits.
    Notification,
}

/// One file, one or more accounts or pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementFile {
    /// Which message.
    pub kind: StatementKind,
    /// `GrpHdr/MsgId`; empty where the bank leaves it out.
    pub message_id: String,
    /// `GrpHdr/CreDtTm`, as written.
    pub created: Option<String>,
    /// `Stmt`, `Rpt` or `Ntfctn`.
    pub statements: Vec<Statement>,
}

/// One statement, report or notification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// `Id`
    pub id: String,
    /// `ElctrncSeqNb`
    pub sequence: Option<String>,
    /// `Acct/Id/IBAN` without spaces in capitals, or the account's other number as written.
    pub account: String,
    /// Balance with which it starts.
    pub opening: Option<Balance>,
    /// Balance with which it ends.
    pub closing: Option<Balance>,
    /// In the bank's order.
    pub entries: Vec<Entry>,
}

/// A booked balance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// OPBD, PRCD, CLBD or ITBD.
    pub code: String,
    /// Negative when the account is overdrawn.
    #[serde(with = "exact")]
    pub amount: Decimal,
    /// Its currency.
    pub currency: String,
    /// Its day.
    pub date: Option<Date>,
}

/// Which way money went, seen from the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// CRDT: it came.
    Credit,
    /// DBIT: it left.
    Debit,
}

impl Direction {
    /// `amount` with the account's sign.
    fn signed(self, amount: Decimal) -> Decimal {
        match self {
            Self::Credit => amount,
            Self::Debit => -amount,
        }
    }
}

/// Whether an entry is money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryStatus {
    /// BOOK: it is.
    Booked,
    /// PDNG: not yet.
    Pending,
    /// INFO, FUTR or a code of the bank's: it is not.
    Other(String),
}

/// One line of the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// `AcctSvcrRef`: the bank's own number of it; with the account it says whether the entry was seen before.
    pub account_servicer_reference: Option<String>,
    /// `NtryRef`: the line's number in this file.
    pub entry_reference: Option<String>,
    /// Never negative.
    #[serde(with = "exact")]
    pub amount: Decimal,
    /// Its currency.
    pub currency: String,
    /// Which way; already turned round where `reversal` is set.
    pub direction: Direction,
    /// `RvslInd`: takes an earlier entry back.
    pub reversal: bool,
    /// Whether it is money.
    pub status: EntryStatus,
    /// `BookgDt`
    pub booking_date: Option<Date>,
    /// `ValDt`
    pub value_date: Option<Date>,
    /// `BkTxCd`: `PMNT-RCDT-ESCT`, or the bank's own code.
    pub transaction_code: Option<String>,
    /// `AddtlNtryInf`
    pub additional: Option<String>,
    /// `Chrgs` of the whole entry: positive, where the bank charges them.
    #[serde(with = "exact")]
    pub charges: Decimal,
    /// What the entry is less than its details, because the bank took its charges at once; usually zero.
    #[serde(with = "exact")]
    pub charged: Decimal,
    /// `NtryDtls`; may be empty, and one without details.
    pub batches: Vec<Batch>,
}

impl Entry {
    /// The details of all batches.
    pub fn details(&self) -> impl Iterator<Item = &Detail> {
        self.batches.iter().flat_map(|batch| &batch.details)
    }
}

/// ISO 20022 sub-families of entries that are the bank's own charges: charges, fees, commissions, taxes, interest.
const CHARGE_CODES: [&str; 7] = ["CHRG", "FEES", "COMM", "COME", "COMT", "TAXE", "INTR"];

/// Whether a `BkTxCd` says that an entry is a charge of the bank.
pub fn is_charge_code(code: &str) -> bool {
    // Domain, family, sub-family; a bank's own codes have other shapes.
    let mut parts = code.split('-');
    let sub_family = (parts.next(), parts.next(), parts.next(), parts.next());
    matches!(sub_family, (Some(_), Some(_), Some(sub), None) if CHARGE_CODES.contains(&sub))
}

/// One `NtryDtls`: a file or batch that the bank booked in one line, or a single transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// `Btch/MsgId`
    pub message_id: Option<String>,
    /// `Btch/PmtInfId`
    pub batch_id: Option<String>,
    /// `Btch/NbOfTxs`
    pub transactions: Option<u64>,
    /// `Btch/TtlAmt`
    #[serde(with = "exact::option")]
    pub total: Option<Decimal>,
    /// `TxDtls`
    pub details: Vec<Detail>,
}

/// One `TxDtls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// `EndToEndId`; none for `NOTPROVIDED`.
    pub end_to_end_id: Option<String>,
    /// `InstrId`
    pub instruction_id: Option<String>,
    /// `TxId`
    pub transaction_id: Option<String>,
    /// `MsgId` of the file that ordered it.
    pub message_id: Option<String>,
    /// `PmtInfId` of the batch that ordered it.
    pub batch_id: Option<String>,
    /// `AcctSvcrRef` of the single transaction.
    pub account_servicer_reference: Option<String>,
    /// In the entry's currency, never negative.
    #[serde(with = "exact")]
    pub amount: Decimal,
    /// `Chrgs`: positive, where the bank charges them. What was taken of the amount, or on top of it, is among them.
    #[serde(with = "exact")]
    pub charges: Decimal,
    /// Which way.
    pub direction: Direction,
    /// Who paid.
    pub debtor: Party,
    /// Who was paid.
    pub creditor: Party,
    /// `Strd/CdtrRefInf/Ref`, as written.
    pub structured: Vec<String>,
    /// `Ustrd`, line by line.
    pub unstructured: Vec<String>,
    /// `RtrInf/Rsn`: the money comes back, and why (AC04, MD07…).
    pub return_reason: Option<String>,
    /// `BkTxCd` of the single transaction, else the entry's.
    pub transaction_code: Option<String>,
}

impl Detail {
    /// The creditor references that it may name, best first: structured ones, then those in the text, line by line and
    /// joined (banks break lines anywhere). The caller takes those that it knows; two known ones are a case for a person.
    pub fn references(&self) -> Vec<CreditorReference> {
        let joined = self.unstructured.concat();
        let exact = self.structured.iter().filter_map(|text| text.parse().ok());
        let texts = self.structured.iter().chain(&self.unstructured).chain([&joined]);
        let inside = texts.flat_map(|text| CreditorReference::candidates_in(text));
        let mut found: Vec<CreditorReference> = Vec::new();
        for reference in exact.chain(inside) {
            if found.len() == MAX_REFERENCES {
                break;
            }
            if !found.contains(&reference) {
                found.push(reference);
            }
        }
        found
    }

    /// The structured references only.
    pub fn structured_references(&self) -> Vec<CreditorReference> {
        self.structured.iter().filter_map(|text| text.parse().ok()).collect()
    }

    /// Those that may stand in the text, best first, without the structured ones.
    pub fn references_in_text(&self) -> Vec<CreditorReference> {
        let exact = self.structured_references();
        self.references().into_iter().filter(|reference| !exact.contains(reference)).collect()
    }

    /// The money of an earlier payment comes back: the bank gives a reason, or its code says so.
    pub fn is_return(&self) -> bool {
        self.return_reason.is_some() || self.transaction_code.as_deref().is_some_and(|code| code.ends_with("-RRTN"))
    }
}

/// The other side of a payment, as far as the bank says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Party {
    /// `Nm`
    pub name: Option<String>,
    /// `IBAN` without spaces in capitals; not checked.
    pub iban: Option<String>,
}

#[cfg(test)]
mod tests;
