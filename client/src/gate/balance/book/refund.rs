//! Credits that the hub tells of, balances made durable, and money that is given back.

use weir_protocol::amount::Amount;
use weir_protocol::id::PaymentId;

use super::{Balance, Book, Waiting};
use crate::gate::balance::error::{KeepError, RefundError};
use crate::gate::balance::record::{Facts, Record};
use crate::gate::balance::types::{Payment, RefundDraw};

/// What noting a credit came to.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::gate::balance) enum Note {
    New(Record),
    Known,
    TooOld,
}

pub(super) fn draw<W>(id: PaymentId, balance: &Balance<W>) -> RefundDraw {
    RefundDraw {
        place: balance.facts.payment(id).place,
        currency: balance.facts.currency,
        amount: balance.refunding(),
        refunded_total: balance.refund.total,
    }
}

impl<W: Waiting> Book<W> {
    /// Notes a credit. A record that is handed out counts as queued until [`Self::settled`].
    pub(in crate::gate::balance) fn note(&mut self, payment: &Payment) -> Result<Note, KeepError> {
        let id = payment.payment_id();
        let facts = Facts::of(payment);
        if let Some(balance) = self.balances.get(&id) {
            return if balance.facts == facts { Ok(Note::Known) } else { Err(KeepError::Differs(id)) };
        }
        if facts.paid_at < self.floor {
            return Ok(Note::TooOld);
        }
        self.has_room()?;
        let mut balance = Balance::new(facts);
        let record = Record::Standing(balance.standing(id));
        balance.logged = true;
        balance.queued = 1;
        self.add(id, balance);
        Ok(Note::New(record))
    }

    /// The record that makes a balance durable. Handed out even if it is on its way: what follows it is durable after it.
    pub(in crate::gate::balance) fn persist(&mut self, id: PaymentId) -> Result<Record, KeepError> {
        let balance = self.balances.get_mut(&id).ok_or(KeepError::Unknown(id))?;
        balance.queued += 1;
        balance.logged = true;
        Ok(Record::Standing(balance.standing(id)))
    }

    /// Takes everything that is free for a refund; what is to be written of it, in this order. One that is under way is
    /// handed out again, unchanged. With `only_unshown`, nothing is taken of a balance whose receipt was shown.
    pub(in crate::gate::balance) fn withdraw(
        &mut self,
        id: PaymentId,
        only_unshown: bool,
    ) -> Result<(RefundDraw, Option<Record>, Record), RefundError> {
        self.change(id, |balance| {
            if only_unshown && balance.shown.is_some() && balance.refunding().is_zero() {
                return Err(RefundError::Shown(id));
            }
            let left = balance.left();
            if balance.refunding().is_zero() && left.is_zero() {
                return Err(RefundError::NothingLeft { payment_id: id, reserved: balance.reserved });
            }
            let standing = balance.log(id);
            if balance.refunding().is_zero() {
                // Not above the amount.
                balance.refund.total = balance.refund.total.checked_add(left).unwrap_or(balance.refund.total);
                balance.refund.number += 1;
            }
            balance.queued += 1;
            Ok((draw(id, balance), standing, Record::Refund { payment_id: id, refund: balance.refund }))
        })
        .unwrap_or(Err(RefundError::Unknown(id)))
    }

    /// Ends the refund up to `total`: the hub took it, or refused it for good and the money is free again. What was
    /// confirmed before is handed out again, unchanged.
    pub(in crate::gate::balance) fn end_refund(
        &mut self,
        id: PaymentId,
        total: Amount,
        confirmed: bool,
    ) -> Result<Record, RefundError> {
        self.change(id, |balance| {
            let refund = &mut balance.refund;
            if refund.total == total && refund.total != refund.confirmed {
                refund.number += 1;
                if confirmed {
                    refund.confirmed = total;
                } else {
                    refund.total = refund.confirmed;
                }
            } else if !confirmed || total > refund.confirmed || total.is_zero() {
                return Err(RefundError::NotUnderWay { payment_id: id, total });
            }
            balance.queued += 1;
            Ok(Record::Refund { payment_id: id, refund: balance.refund })
        })
        .unwrap_or(Err(RefundError::Unknown(id)))
    }

    /// A record that was handed out about a balance, other than a draw, is written.
    pub(in crate::gate::balance) fn settled(&mut self, id: PaymentId) {
        if let Some(balance) = self.balances.get_mut(&id) {
            balance.queued = balance.queued.saturating_sub(1);
        }
    }
}
