//! Tests of the whole store, and what they share.

mod crash;
mod limits;
mod model;
mod store;

use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::id::{PaymentId, Reference};

use super::book::Book;
use super::log::Log;
use super::types::{Ask, Credit, DrawKey, Limits, Payment};
use super::writer::Waiter;
use crate::acts::RefundPlace;

pub(super) const PAID_AT: u64 = 1_000_000;
pub(super) const NOW: Time = Time(PAID_AT + 10);

pub(super) fn nanos(nanos: u64) -> Amount {
    Amount::from_nanos(nanos)
}

pub(super) fn id(number: u32) -> PaymentId {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    PaymentId(bytes)
}

pub(super) fn key(number: u32) -> DrawKey {
    let mut bytes = [9; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    DrawKey(bytes)
}

pub(super) fn payment(number: u32, amount: u64) -> Payment {
    let place = RefundPlace { chain: 3, commit: 5, group: 1, leaf: number, payment_id: id(number) };
    Payment {
        reference: Reference([number as u8; 32]),
        amount: nanos(amount),
        currency: Currency::EUR,
        paid_at: Time(PAID_AT),
        place,
    }
}

pub(super) fn credit(number: u32, amount: u64) -> Credit {
    Credit { payment: payment(number, amount), resource: [4; 16] }
}

pub(super) fn ask(number: u32, request: u32, max: u64) -> Ask {
    Ask { payment_id: id(number), key: key(request), max: nanos(max), window_ms: 1_000 }
}

/// The book that a store would start with, from its folder; the error's text.
pub(super) fn replay(directory: &std::path::Path) -> Result<Book<Waiter>, super::BalanceError> {
    let mut book = Book::new(Limits::default());
    Log::open(directory, &mut |record| book.apply(record))?;
    Ok(book)
}
