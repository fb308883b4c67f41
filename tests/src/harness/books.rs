//! What a hub's journal holds, read without the hub.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use weir_hub::engine::record::{ItemRecord, Record};
use weir_hub::store::journal::JournalReader;
use weir_protocol::act::Act;
use weir_protocol::id::{AccountId, LaneId, PaymentId, Reference};
use weir_protocol::payment::{Payment, payment_id};

/// A payment as it is journaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Booked {
    /// The lane that paid.
    pub lane: LaneId,
    /// Its sequence there.
    pub sequence: u64,
    /// Payee, amount, reference.
    pub payment: Payment,
    /// The commit that holds it.
    pub commit: u64,
}

/// Every payment of a journal.
#[derive(Debug, Default)]
pub struct Books {
    /// By payment id.
    pub by_id: HashMap<PaymentId, Booked>,
    /// By lane and reference.
    pub by_reference: HashMap<(LaneId, Reference), PaymentId>,
    /// Lanes of the voids, in order, with what they give up.
    pub voids: Vec<(LaneId, u64)>,
}

impl Books {
    /// Reads a data directory. No payment id and no reference of a lane may be there twice, and nothing voided may be
    /// taken.
    pub fn read(data: &Path) -> Self {
        let mut books = Self::default();
        let mut voided: HashMap<LaneId, u64> = HashMap::new();
        let reader = JournalReader::open(&data.join("journal")).unwrap();
        let read = reader.scan(1, &mut |entry| {
            let record = Record::decode(&entry.payload).unwrap();
            for item in &record.items {
                match item {
                    ItemRecord::Group(group) => {
                        for (sequence, payment) in group.payments() {
                            let (lane, commit) = (group.lane, entry.position.number);
                            let floor = voided.get(&lane).copied().unwrap_or_default();
                            assert!(sequence > floor, "{lane}: sequence {sequence} was given up through {floor}");
                            let id = payment_id(&lane, sequence);
                            let twice = books.by_id.insert(id, Booked { lane, sequence, payment, commit });
                            assert!(twice.is_none(), "payment {id} is in the journal twice");
                            let twice = books.by_reference.insert((lane, payment.reference), id);
                            assert!(twice.is_none(), "reference {} was paid twice", payment.reference);
                        }
                    }
                    ItemRecord::Act(act) => {
                        if let Act::Void(void) = &act.act {
                            books.voids.push((void.lane, void.void_through));
                            let floor = voided.entry(void.lane).or_default();
                            *floor = (*floor).max(void.void_through);
                        }
                    }
                }
            }
            ControlFlow::Continue(())
        });
        read.unwrap();
        books
    }

    /// How many payments an account received, and their sum in nanos.
    pub fn received(&self, payee: AccountId) -> (usize, u64) {
        let amounts = self.by_id.values().filter(|booked| booked.payment.payee == payee);
        amounts.fold((0, 0), |(count, sum), booked| (count + 1, sum + booked.payment.amount.nanos()))
    }

    /// How many payments a lane made.
    pub fn paid(&self, lane: LaneId) -> usize {
        self.by_id.values().filter(|booked| booked.lane == lane).count()
    }
}
