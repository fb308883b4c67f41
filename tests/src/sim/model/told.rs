//! What callers were told, against what is durable: "paid" stays paid, exactly once; "refused" is never credited.

use weir_protocol::amount::Amount;
use weir_protocol::hash::Hash;
use weir_protocol::id::{AccountId, PaymentId, Reference};

use super::{Model, nanos};
use crate::sim::log::{Checked, Failure, ensure};

/// The last word to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// Paid: this payment.
    Paid(PaymentId),
    /// Refused for good.
    Refused,
}

impl Model {
    /// A payment with this reference is durable.
    pub(super) fn taken(&mut self, reference: Reference, id: PaymentId) -> Checked {
        let payments = self.by_reference.entry(reference).or_default();
        payments.push(id);
        ensure(payments.len() == 1, || "a reference was paid twice".into())?;
        ensure(self.told.get(&reference) != Some(&Told::Refused), || {
            "a payment was credited whose caller had been told that it is refused for good".into()
        })?;
        match self.forbidden.get(&reference) {
            Some(why) => Err(Failure(format!("a payment was taken that must not be: {why}"))),
            None => Ok(()),
        }
    }

    /// Something with this reference must never be taken.
    pub(crate) fn forbid(&mut self, reference: Reference, why: &'static str) {
        self.forbidden.insert(reference, why);
    }

    /// A caller is told "paid".
    pub(crate) fn tell_paid(&mut self, reference: Reference, id: PaymentId, to: &AccountId, amount: Amount) -> Checked {
        let before = self.told.insert(reference, Told::Paid(id));
        ensure(before.is_none_or(|before| before == Told::Paid(id)), || {
            format!("a caller was told {before:?} and then that it is paid")
        })?;
        let payment = self.payments.get(&id).ok_or_else(|| {
            Failure("a caller was told that a payment is paid, and a crash right now would forget it".into())
        })?;
        let same = (payment.reference, payment.payee, payment.amount) == (reference, *to, nanos(amount));
        ensure(same, || "a caller was told of another payment than was made".into())
    }

    /// A caller is told "refused for good".
    pub(crate) fn tell_refused(&mut self, reference: Reference) -> Checked {
        let before = self.told.insert(reference, Told::Refused);
        ensure(before.is_none_or(|before| before == Told::Refused), || {
            format!("a caller was told {before:?} and then that it is refused")
        })?;
        ensure(!self.by_reference.contains_key(&reference), || {
            "a caller was told that a payment is refused for good, and it was credited".into()
        })
    }

    /// Somebody was shown a commit: a crash right now must keep it.
    pub(crate) fn shown(&self, number: u64, id: &Hash) -> Checked {
        let kept = usize::try_from(number).ok().and_then(|number| self.ids.get(number.checked_sub(1)?));
        ensure(kept == Some(id), || {
            format!("commit {number} was shown to somebody, and a crash right now would lose it")
        })
    }

    /// Keeps a receipt that was checked, to look at again at the end.
    pub(crate) fn keep_receipt(&mut self, number: u64, id: Hash) {
        self.receipts.push((number, id));
    }

    /// Every receipt ever given is of a commit that is still there.
    pub(crate) fn invariant_receipts(&self) -> Checked<usize> {
        for (number, id) in &self.receipts {
            self.shown(*number, id)?;
        }
        Ok(self.receipts.len())
    }

    /// What was told last must hold at the end as well.
    pub(crate) fn invariant_told(&self) -> Checked {
        for (reference, told) in &self.told {
            let paid = self.by_reference.get(reference).map_or(&[][..], Vec::as_slice);
            let holds = match told {
                Told::Paid(id) => paid == [*id],
                Told::Refused => paid.is_empty(),
            };
            ensure(holds, || format!("a caller was told {told:?}, and the payments are {paid:?}"))?;
        }
        Ok(())
    }
}
