//! Payments with known references: what a payer's process pays, and what the test that started it expects, from the same
//! few numbers.

use weir_client::Order;
use weir_protocol::amount::Amount;
use weir_protocol::id::{AccountId, Reference};

use super::random::Random;

/// A series of payments; number `index` is always the same one.
#[derive(Debug, Clone)]
pub struct Series {
    /// Tells the series of one test apart.
    pub seed: u64,
    /// Who is paid, in turn.
    pub payees: Vec<AccountId>,
}

impl Series {
    /// One payment of it: up to 2,000,000 nanos.
    pub fn order(&self, index: u64) -> Order {
        let place = usize::try_from(index).unwrap() % self.payees.len();
        Order {
            payee: self.payees[place],
            amount: Amount::from_nanos(1 + Random::new(self.seed ^ index << 8).below(2_000_000)),
            reference: reference(self.seed, index),
            deadline: None,
        }
    }
}

/// The reference of a payment.
pub fn reference(seed: u64, index: u64) -> Reference {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&index.to_le_bytes());
    Reference(bytes)
}

/// Seed and number of the payment that a reference names.
pub fn index_of(reference: &Reference) -> (u64, u64) {
    let part = |from: usize| u64::from_le_bytes(reference.0[from..from + 8].try_into().unwrap());
    (part(0), part(8))
}
