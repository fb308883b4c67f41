//! The bank connector: ISO 20022 files in two directories, and a sandbox bank that speaks through the same ones.
//!
//! It owns the formats (pain.001 out; pain.002 and camt.052/053/054 in), the identifiers in them (IBAN, creditor
//! reference) and the directories. It knows files, not channels: it must not know accounts of the hub, its ledger, nanos,
//! or windows, and imports nothing from the rest of the hub but `details`. Amounts here are decimals of the major unit, as banks write
//! them. It has no clock: every time is an argument.
//!
//! Written strictly, read leniently: what a bank would refuse is refused here before a byte is written, and what a bank
//! sends is taken in any version in use, but only whole and only when its sums add up.

mod calendar;
mod message;
mod reference;
mod sandbox;
mod spool;
mod statement;
mod status;
mod transfer;
mod transfer_read;
mod xml;
mod xml_write;

pub use crate::details::{AccountError, Bic, Currency, Iban};
pub use crate::details::{TextError, bank_name, check_identifier, check_remittance};
pub use calendar::{Date, DateError, timestamp};
pub use message::{BankMessage, read_message, scan_message};
pub use reference::{CreditorReference, ReferenceError};
pub use sandbox::{IncomingTransfer, Received, RunReport, SandboxBank, SandboxError, SandboxOptions};
pub use spool::{InboxFile, Spool, SpoolError, write_atomically};
pub use statement::{
    Balance, Batch, Detail, Direction, Entry, EntrySink, EntryStatus, Party, Statement, StatementFile, StatementKind,
    is_charge_code,
};
pub use status::{BatchReport, Reason, Status, StatusReport, TransactionReport, Verdicts};
pub use transfer::{
    Debtor, MAX_AMOUNT, MAX_PAYMENTS, MIN_AMOUNT, Payment, Remittance, TransferHeader, TransferTotals, WriteError,
    write_transfers,
};
pub use transfer_read::{TransferBatch, TransferFile, TransferOrder};
pub use xml::{MAX_FILE_BYTES, ReadError};
