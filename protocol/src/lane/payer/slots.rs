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
    all: Vec<Slot>,
    free: Vec<SlotId>,
    /// Places by reference: small, for it is looked into at random.
    by_reference: HashTable<u32>,
    hasher: RandomState,
}

impl Slots {
    pub(super) fn find(&self, reference: &Reference) -> Option<SlotId> {
        let hash = self.hasher.hash_one(reference.0);
        let slot = |place: &u32| self.all.get(*place as usize);
        let found =
            self.by_reference.find(hash, |place| slot(place).is_some_and(|slot| slot.order.reference == *reference));
        found.and_then(|place| Some(SlotId { place: *place, turn: slot(place)?.turn }))
    }

    pub(super) fn get(&self, id: SlotId) -> Option<&Slot> {
        self.all.get(id.place as usize).filter(|slot| slot.turn == id.turn)
    }

    pub(super) fn get_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.all.get_mut(id.place as usize).filter(|slot| slot.turn == id.turn)
    }

    /// Takes an order whose reference is not there. `None`: there are four billion already.
    pub(super) fn insert(&mut self, order: Order, ticket: Ticket) -> Option<SlotId> {
        let slot = |turn| Slot { turn, order, ticket, state: SlotState::Wanted, voided: None };
        let id = if let Some(id) = self.free.pop() {
            *self.get_mut(id)? = slot(id.turn);
            id
        } else {
            let id = SlotId { place: u32::try_from(self.all.len()).ok()?, turn: 0 };
            self.all.push(slot(id.turn));
            id
        };
        let Self { all, by_reference, hasher, .. } = self;
        let rehash = |place: &u32| all.get(*place as usize).map_or(0, |slot| hasher.hash_one(slot.order.reference.0));
        by_reference.insert_unique(hasher.hash_one(order.reference.0), id.place, rehash);
        Some(id)
    }

    /// Looks at what belongs to many references at once, and forgets what it saw: looks that depend on nothing wait for
    /// memory together, and what is done with the references next finds it near.
    pub(super) fn touch<'a>(&self, references: impl Iterator<Item = &'a Reference>) {
        let mut seen = 0;
        for reference in references {
            let found = self.by_reference.find(self.hasher.hash_one(reference.0), |place| {
                seen ^= *place;
                false
            });
            debug_assert!(found.is_none());
        }
        core::hint::black_box(seen);
    }

    /// Forgets an order.
    pub(super) fn remove(&mut self, id: SlotId) {
        let Some(slot) = self.get_mut(id) else { return };
        slot.turn = slot.turn.wrapping_add(1);
        slot.voided = None;
        let next = SlotId { turn: slot.turn, ..id };
        let reference = slot.order.reference;
        let hash = self.hasher.hash_one(reference.0);
        if let Ok(found) = self.by_reference.find_entry(hash, |place| *place == id.place) {
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
