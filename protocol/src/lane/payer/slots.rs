//! Orders that are not answered, each in one place from the call until its answer, and found by reference.
//!
//! Owns nothing of what becomes of an order. A place is given again once its order is gone; an id that was kept too long
//! finds nothing.

use core::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::{Finality, Order, Ticket};
use crate::amount::Time;
use crate::id::Reference;
use crate::payment::Payment;

/// A place in [`Slots`], and which of the orders that were there one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SlotId {
    place: u32,
    turn: u32,
}

#[derive(Debug)]
pub(super) struct Slot {
    turn: u32,
    pub(super) order: Order,
    pub(super) ticket: Ticket,
    pub(super) state: SlotState,
    /// It was signed before, and that is given up for ever.
    pub(super) voided: Option<Arc<Finality>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotState {
    /// In the queue or in flight, and somebody waits.
    Wanted,
    /// In flight; its caller was told "unknown" and nobody asked again since.
    Told,
    /// Signed long ago; the hub no longer keeps what became of it.
    Pruned,
    /// Paid; the event waits to be polled.
    Paid,
}

impl Slot {
    pub(super) const fn payment(&self) -> Payment {
        Payment { payee: self.order.payee, amount: self.order.amount, reference: self.order.reference }
    }

    pub(super) fn is_past(&self, now: Time) -> bool {
        self.order.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// The orders. References are hashed under a key of this process: whoever chooses them cannot make them collide.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<SlotId>,
    by_reference: HashTable<SlotId>,
    hasher: RandomState,
}

impl Slots {
    pub(super) fn find(&self, reference: &Reference) -> Option<SlotId> {
        let hash = self.hasher.hash_one(reference.0);
        self.by_reference.find(hash, |id| self.get(*id).is_some_and(|slot| slot.order.reference == *reference)).copied()
    }

    pub(super) fn get(&self, id: SlotId) -> Option<&Slot> {
        self.slots.get(id.place as usize).filter(|slot| slot.turn == id.turn)
    }

    pub(super) fn get_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.slots.get_mut(id.place as usize).filter(|slot| slot.turn == id.turn)
    }

    /// Takes an order whose reference is not there. `None`: there are four billion already.
    pub(super) fn insert(&mut self, order: Order, ticket: Ticket) -> Option<SlotId> {
        let state = SlotState::Wanted;
        let id = match self.free.pop() {
            Some(id) => {
                *self.get_mut(id)? = Slot { turn: id.turn, order, ticket, state, voided: None };
                id
            }
            None => {
                let id = SlotId { place: u32::try_from(self.slots.len()).ok()?, turn: 0 };
                self.slots.push(Slot { turn: id.turn, order, ticket, state, voided: None });
                id
            }
        };
        let Self { slots, by_reference, hasher, .. } = self;
        let rehash =
            |id: &SlotId| slots.get(id.place as usize).map_or(0, |slot| hasher.hash_one(slot.order.reference.0));
        by_reference.insert_unique(hasher.hash_one(order.reference.0), id, rehash);
        Some(id)
    }

    /// Forgets an order.
    pub(super) fn remove(&mut self, id: SlotId) {
        let Some(slot) = self.get_mut(id) else { return };
        slot.turn = slot.turn.wrapping_add(1);
        slot.voided = None;
        let next = SlotId { turn: slot.turn, ..id };
        let reference = slot.order.reference;
        let hash = self.hasher.hash_one(reference.0);
        if let Ok(found) = self.by_reference.find_entry(hash, |other| *other == id) {
            found.remove();
        }
        self.free.push(next);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use crate::amount::Amount;
    use crate::id::AccountId;

    fn order(byte: u8) -> Order {
        let amount = Amount::from_nanos(1);
        Order { payee: AccountId::ZERO, amount, reference: Reference([byte; 32]), deadline: None }
    }

    #[test]
    fn orders_are_found_until_they_are_removed_and_their_places_are_given_again() {
        let mut slots = Slots::default();
        let ids: Vec<_> = (0..100).map(|byte| slots.insert(order(byte), Ticket(byte.into())).unwrap()).collect();
        for (byte, id) in (0..100).zip(&ids) {
            assert_eq!(slots.find(&Reference([byte; 32])), Some(*id));
            assert_eq!(slots.get(*id).unwrap().ticket, Ticket(byte.into()));
        }
        let gone = *ids.get(7).unwrap();
        slots.remove(gone);
        slots.remove(gone);
        assert_eq!(slots.find(&Reference([7; 32])), None);
        let new = slots.insert(order(200), Ticket(200)).unwrap();
        assert_eq!(new.place, gone.place);
        assert_ne!(slots.insert(order(201), Ticket(201)).unwrap().place, gone.place, "a freed place is given once");
        assert_eq!(slots.find(&Reference([200; 32])), Some(new));
        assert!(slots.get(gone).is_none(), "the old id finds nothing of the new order");
        slots.remove(gone);
        assert!(slots.get(new).is_some());
    }
}
