//! Payments, the chain of states that commits to them, heads, and frames (DESIGN §4.4).

pub mod codec;

use core::hash::BuildHasher as _;

use hashbrown::{HashTable, hash_table};
use serde::{Deserialize, Serialize};

use crate::amount::{Amount, Currency, Time};
use crate::hash::{Fixed, Hash, tag};
use crate::id::{AccountId, LaneId, PaymentId, Reference};
use crate::keys::Signature;

/// Payments in one frame, and in one group.
pub const MAX_PAYMENTS: usize = 1024;
/// How far above the head or the last void a sequence may skip.
pub const MAX_SKIP: u64 = 1 << 32;

/// One increment on a lane. Its sequence is its place in the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Who is paid.
    pub payee: AccountId,
    /// How much; never zero.
    pub amount: Amount,
    /// What for.
    pub reference: Reference,
}

/// The hash that a lane reaches after a payment. The first one is the lane's id.
pub type State = Hash;

/// `state_n = H("weir/payment", state_(n-1) ‖ sequence ‖ amount ‖ payee ‖ reference)`, 112 bytes.
pub fn next_state(state: &State, sequence: u64, payment: &Payment) -> State {
    Fixed::<112>::new()
        .put(&state.0)
        .u64(sequence)
        .u64(payment.amount.nanos())
        .put(payment.payee.as_bytes())
        .put(&payment.reference.0)
        .hash(&tag::PAYMENT)
}

/// `payment_id = H("weir/id", lane_id ‖ sequence)`, 40 bytes: opaque to the payee.
pub fn payment_id(lane: &LaneId, sequence: u64) -> PaymentId {
    PaymentId(Fixed::<40>::new().put(&lane.0).u64(sequence).hash(&tag::ID).0)
}

/// `leaf = H("weir/receipt", payment_id ‖ payee ‖ amount ‖ currency ‖ reference)`, 108 bytes.
pub fn receipt_leaf(id: &PaymentId, payment: &Payment, currency: Currency) -> Hash {
    Fixed::<108>::new()
        .put(&id.0)
        .put(payment.payee.as_bytes())
        .u64(payment.amount.nanos())
        .put(&currency.to_bytes())
        .put(&payment.reference.0)
        .hash(&tag::RECEIPT)
}

/// What a lane key signs: how far the lane has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The state after the newest payment; the lane's id before the first.
    pub state: State,
    /// The newest payment's sequence; 0 before the first.
    pub sequence: u64,
    /// Sum of all payments of the lane.
    pub total: Amount,
    /// Not taken from this time on; 0: no bound.
    pub valid_until: Time,
}

impl Head {
    /// The head of a lane without payments.
    pub const fn empty(lane: &LaneId) -> Self {
        Self { state: Hash(lane.0), sequence: 0, total: Amount::ZERO, valid_until: Time(0) }
    }

    /// `head = H("weir/head", lane_id ‖ state ‖ sequence ‖ total ‖ valid_until)`, 88 bytes.
    pub fn digest(&self, lane: &LaneId) -> Hash {
        Fixed::<88>::new()
            .put(&lane.0)
            .put(&self.state.0)
            .u64(self.sequence)
            .u64(self.total.nanos())
            .u64(self.valid_until.0)
            .hash(&tag::HEAD)
    }
}

/// Consecutive payments of a lane. Payees travel once: `payees` lists them in order of first use, an entry names its
/// payee by the place in that list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    first_sequence: u64,
    payees: Vec<AccountId>,
    entries: Vec<Entry>,
}

/// A payment inside a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    payee: u32,
    amount: Amount,
    reference: Reference,
}

/// A run that breaks its shape: empty, too long, past the last sequence, or with payees out of order of first use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("frame has a wrong shape")]
pub struct RunShape;

impl Run {
    /// Lays out payments from a sequence on. At least one and at most [`MAX_PAYMENTS`], and the last sequence must fit
    /// 64 bits.
    pub fn new(first_sequence: u64, payments: &[Payment]) -> Result<Self, RunShape> {
        let mut run = RunBuilder::new(first_sequence, payments.len());
        payments.iter().for_each(|payment| run.push(payment));
        run.finish()
    }

    /// At least so many bytes as its encoding has.
    pub const fn encoded_room(&self) -> usize {
        20 + self.payees.len() * 32 + self.entries.len() * 46
    }

    /// Checks what decoding cannot: counts, the last sequence, and payees in order of first use, each used.
    pub fn check_shape(&self) -> Result<(), RunShape> {
        let count = self.entries.len() as u64;
        if count == 0 || self.entries.len() > MAX_PAYMENTS || self.first_sequence.checked_add(count - 1).is_none() {
            return Err(RunShape);
        }
        let mut seen = 0;
        for entry in &self.entries {
            if entry.payee > seen {
                return Err(RunShape);
            }
            seen = seen.max(entry.payee + 1);
        }
        if seen as usize == self.payees.len() { Ok(()) } else { Err(RunShape) }
    }

    /// How many payments it holds.
    #[expect(clippy::len_without_is_empty, reason = "a run that passed its shape is never empty")]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// The sequence of the first payment.
    pub const fn first_sequence(&self) -> u64 {
        self.first_sequence
    }

    /// The sequence of the last payment.
    pub const fn last_sequence(&self) -> u64 {
        self.first_sequence.saturating_add((self.entries.len() as u64).saturating_sub(1))
    }

    /// The distinct payees, in order of first use.
    pub fn payees(&self) -> &[AccountId] {
        &self.payees
    }

    /// The payment at a place, with its sequence.
    pub fn payment(&self, place: usize) -> Option<(u64, Payment)> {
        let entry = self.entries.get(place)?;
        let payee = *self.payees.get(entry.payee as usize)?;
        let payment = Payment { payee, amount: entry.amount, reference: entry.reference };
        Some((self.first_sequence.checked_add(place as u64)?, payment))
    }

    /// The references, in order.
    pub fn references(&self) -> impl Iterator<Item = &Reference> + '_ {
        self.entries.iter().map(|entry| &entry.reference)
    }

    /// The payments with their sequences, in order.
    pub fn payments(&self) -> impl Iterator<Item = (u64, Payment)> + '_ {
        self.indexed().map(|(sequence, _, payment)| (sequence, payment))
    }

    /// The payments with their sequences and the places of their payees, in order.
    pub fn indexed(&self) -> impl Iterator<Item = (u64, usize, Payment)> + '_ {
        self.entries.iter().zip(self.first_sequence..=u64::MAX).filter_map(|(entry, sequence)| {
            let place = entry.payee as usize;
            let payee = *self.payees.get(place)?;
            Some((sequence, place, Payment { payee, amount: entry.amount, reference: entry.reference }))
        })
    }
}

/// A run that grows payment by payment.
#[derive(Debug)]
pub struct RunBuilder {
    run: Run,
    /// Places of payees in the run's list, by a keyed hash: whoever chooses payees cannot make them collide.
    places: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
}

impl RunBuilder {
    /// A run that begins with this sequence, with room for so many payments.
    pub fn new(first_sequence: u64, room: usize) -> Self {
        let run = Run { first_sequence, payees: Vec::new(), entries: Vec::with_capacity(room.min(MAX_PAYMENTS)) };
        Self { run, places: HashTable::new(), hasher: foldhash::fast::RandomState::default() }
    }

    /// How many payments it holds.
    pub const fn len(&self) -> usize {
        self.run.entries.len()
    }

    /// Whether it holds none.
    pub const fn is_empty(&self) -> bool {
        self.run.entries.is_empty()
    }

    /// Appends a payment.
    pub fn push(&mut self, payment: &Payment) {
        let Self { run: Run { payees, entries, .. }, places, hasher } = self;
        let hash = |payee: &AccountId| hasher.hash_one(payee.as_bytes());
        let found = places.entry(
            hash(&payment.payee),
            |place| payees.get(*place as usize) == Some(&payment.payee),
            |place| payees.get(*place as usize).map_or(0, hash),
        );
        let payee = match found {
            hash_table::Entry::Occupied(found) => *found.get(),
            hash_table::Entry::Vacant(free) => {
                // A run past its longest is refused at the end, long before this narrows.
                let place = payees.len() as u32;
                free.insert(place);
                payees.push(payment.payee);
                place
            }
        };
        entries.push(Entry { payee, amount: payment.amount, reference: payment.reference });
    }

    /// The run, if it has at least one and at most [`MAX_PAYMENTS`] and its last sequence fits 64 bits.
    pub fn finish(self) -> Result<Run, RunShape> {
        self.run.check_shape()?;
        Ok(self.run)
    }
}

/// A run under one signature over the head that it leads to; taken whole or refused whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The sequence that the frame follows: the head's.
    pub previous_sequence: u64,
    /// The payments: on the wire, first sequence, payees, entries.
    pub run: Run,
    /// Not taken from this time on; 0: no bound. Signed.
    pub valid_until: Time,
    /// The lane key's signature over the head after the last payment.
    pub signature: Signature,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use crate::keys::PublicKey;

    fn payment(payee: u8) -> Payment {
        Payment {
            payee: AccountId(PublicKey([payee; 32])),
            amount: Amount::from_nanos(5),
            reference: Reference([payee; 32]),
        }
    }

    #[test]
    fn run_names_each_payee_once_and_gives_payments_back() {
        let payments = [payment(1), payment(2), payment(1)];
        let run = Run::new(9, &payments).unwrap();
        assert_eq!(run.payees().len(), 2);
        assert_eq!(run.last_sequence(), 11);
        let back: Vec<_> = run.payments().collect();
        assert_eq!(back, [(9, payments[0]), (10, payments[1]), (11, payments[2])]);
    }

    #[test]
    fn run_laid_out_by_hand_equals_postcards_bytes() {
        for first in [0, 127, 128, 1 << 40, u64::MAX - 400] {
            let payments: Vec<_> = (0..300_u64)
                .map(|at| Payment { amount: Amount::from_nanos(1 << (at % 64)), ..payment((at % 200) as u8) })
                .collect();
            let run = Run::new(first, &payments).unwrap();
            let mut bytes = vec![7];
            run.encode_into(&mut bytes);
            assert_eq!(bytes[1..], postcard::to_stdvec(&run).unwrap());
            assert_eq!(run.payment(299), Some((first + 299, payments[299])));
            assert_eq!(run.payment(300), None);
            assert_eq!(run.references().count(), 300);
        }
    }

    #[test]
    fn run_of_wrong_shape_is_refused_on_both_sides_of_each_limit() {
        let many = vec![payment(1); MAX_PAYMENTS + 1];
        let make = |payments: &[Payment], first| Run::new(first, payments);
        assert!(make(&many[..MAX_PAYMENTS], 1).is_ok());
        assert!(make(&many, 1).is_err());
        assert!(make(&[], 1).is_err());
        assert!(make(&many[..1], u64::MAX).is_ok());
        assert!(make(&many[..2], u64::MAX).is_err());
        let mut run = make(&[payment(1), payment(2)], 1).unwrap();
        run.payees.push(AccountId::ZERO);
        assert!(run.check_shape().is_err(), "an unused payee");
        run.payees.truncate(1);
        assert!(run.check_shape().is_err(), "a payee past the list");
        run.payees.push(AccountId::ZERO);
        run.entries.reverse();
        assert!(run.check_shape().is_err(), "payees out of order");
    }
}
