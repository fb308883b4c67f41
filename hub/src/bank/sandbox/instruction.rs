//! What a customer tells the sandbox bank to do, whichever message it came in: pay (pain.001) or collect (pain.008).

use std::io::Read;

use rust_decimal::Decimal;

use super::state::EntryKind;
use crate::bank::collection_read::{CollectionFile, CollectionFileBatch};
use crate::bank::creditor_id::CreditorId;
use crate::bank::transfer_read::{TransferBatch, TransferFile};
use crate::bank::xml::ReadError;

/// A file.
#[derive(Debug)]
pub(super) struct Instruction {
    /// `MsgId`
    pub(super) message_id: String,
    /// `pain.001.001.09`
    pub(super) name: String,
    pub(super) batches: Vec<InstructedBatch>,
}

/// One `PmtInf`.
#[derive(Debug)]
pub(super) struct InstructedBatch {
    pub(super) batch_id: String,
    /// Transfer, or which collection.
    pub(super) kind: EntryKind,
    /// The customer's account, as written.
    pub(super) own_iban: String,
    /// What is wrong with every order of the batch: reason code and words.
    pub(super) wrong: Option<(&'static str, &'static str)>,
    pub(super) orders: Vec<Ordered>,
}

/// One payment or collection.
#[derive(Debug)]
pub(super) struct Ordered {
    pub(super) end_to_end_id: String,
    pub(super) amount: Decimal,
    pub(super) currency: String,
    /// The other side.
    pub(super) name: String,
    pub(super) iban: String,
    pub(super) mandate_id: Option<String>,
    pub(super) reference: Option<String>,
    pub(super) text: Option<String>,
}

impl Instruction {
    /// Reads a pain.001 or pain.008. `open` may be called twice.
    pub(super) fn read<R: Read, E: From<ReadError>>(open: impl Fn() -> Result<R, E>) -> Result<Self, E> {
        match TransferFile::read(open()?) {
            Ok(file) => Ok(file.into()),
            Err(ReadError::Unsupported(name)) if name.starts_with("pain.008.") => {
                Ok(Self::collect(CollectionFile::read(open()?)?, name))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn orders(&self) -> impl Iterator<Item = &Ordered> {
        self.batches.iter().flat_map(|batch| &batch.orders)
    }

    fn collect(file: CollectionFile, name: String) -> Self {
        let batches = file.batches.into_iter().map(InstructedBatch::from).collect();
        Self { message_id: file.message_id, name, batches }
    }
}

impl From<TransferFile> for Instruction {
    fn from(file: TransferFile) -> Self {
        let batches = file.batches.into_iter().map(InstructedBatch::from).collect();
        Self { message_id: file.message_id, name: file.name, batches }
    }
}

impl From<TransferBatch> for InstructedBatch {
    fn from(batch: TransferBatch) -> Self {
        let orders = batch.orders.into_iter().map(|order| Ordered {
            end_to_end_id: order.end_to_end_id,
            amount: order.amount,
            currency: order.currency,
            name: order.creditor_name,
            iban: order.creditor_iban,
            mandate_id: None,
            reference: order.reference,
            text: order.text,
        });
        Self {
            batch_id: batch.batch_id,
            kind: EntryKind::Transfer,
            own_iban: batch.debtor_iban,
            wrong: None,
            orders: orders.collect(),
        }
    }
}

impl From<CollectionFileBatch> for InstructedBatch {
    fn from(batch: CollectionFileBatch) -> Self {
        let (kind, wrong) = match batch.scheme.as_str() {
            "CORE" => (EntryKind::Core, None),
            "B2B" => (EntryKind::B2b, None),
            _ => (EntryKind::Core, Some(("FF05", "local instrument is neither CORE nor B2B"))),
        };
        let id = batch.creditor_id.as_deref().unwrap_or_default().parse::<CreditorId>();
        let wrong = wrong.or(id.is_err().then_some(("BE17", "creditor identifier is missing or wrong")));
        let orders = batch.orders.into_iter().map(|order| Ordered {
            end_to_end_id: order.end_to_end_id,
            amount: order.amount,
            currency: order.currency,
            name: order.debtor_name,
            iban: order.debtor_iban,
            mandate_id: Some(order.mandate_id),
            reference: order.reference,
            text: order.text,
        });
        Self { batch_id: batch.batch_id, kind, own_iban: batch.creditor_iban, wrong, orders: orders.collect() }
    }
}
