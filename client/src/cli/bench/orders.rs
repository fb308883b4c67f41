//! Orders: random payees, amounts and references, from a seed.
//!
//! The generator is wyrand (crate `fastrand`): fast, seeded, not for secrets. A reference is 32 of its bytes, drawn anew
//! for every order.

use weir_client::Order;
use weir_client::protocol::amount::Amount;
use weir_client::protocol::id::{AccountId, Reference};

/// Largest payment.
pub(super) const AMOUNT_MAX_NANOS: u64 = 1_000;

/// Makes the orders of one lane.
#[derive(Debug, Clone)]
pub(super) struct Orders {
    random: fastrand::Rng,
    payees: std::sync::Arc<[AccountId]>,
}

impl Orders {
    /// Different lanes and different seeds give different orders.
    pub(super) fn new(seed: u64, lane: usize, payees: std::sync::Arc<[AccountId]>) -> Self {
        // Neighbouring seeds of wyrand give sequences that overlap: the lane's own seed is drawn.
        let mut seeds = fastrand::Rng::with_seed(seed);
        let mut lane = fastrand::Rng::with_seed(seeds.u64(..) ^ (lane as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self { random: fastrand::Rng::with_seed(lane.u64(..)), payees }
    }

    pub(super) fn next(&mut self) -> Order {
        let mut reference = [0; 32];
        self.random.fill(&mut reference);
        let payee = self.payees.get(self.random.usize(..self.payees.len().max(1))).copied();
        Order {
            payee: payee.unwrap_or(AccountId::ZERO),
            amount: Amount::from_nanos(self.random.u64(1..=AMOUNT_MAX_NANOS)),
            reference: Reference(reference),
            deadline: None,
        }
    }

    /// So many at once, each with the tag, and their sum in nanos.
    pub(super) fn batch(&mut self, count: usize, tag: u64) -> (Vec<(u64, Order)>, u64) {
        let mut nanos = 0;
        let orders = (0..count).map(|_| {
            let order = self.next();
            nanos += order.amount.nanos();
            (tag, order)
        });
        (orders.collect(), nanos)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn orders_are_the_same_for_a_seed_and_never_share_a_reference() {
        let payees: std::sync::Arc<[AccountId]> = vec![AccountId::ZERO; 3].into();
        let make = |seed, lane| Orders::new(seed, lane, std::sync::Arc::clone(&payees)).batch(1_000, 0).0;
        assert_eq!(make(1, 0), make(1, 0));
        let mut seen = HashSet::new();
        for (seed, lane) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
            for (_, order) in make(seed, lane) {
                assert!((1..=AMOUNT_MAX_NANOS).contains(&order.amount.nanos()));
                assert!(seen.insert(order.reference));
            }
        }
    }
}
