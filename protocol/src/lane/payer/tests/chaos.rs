//! Any order of drops, crashes, delays and refusals: what a caller was told stays true, and nothing is paid twice.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    Submit {
        reference: u16,
        bad: bool,
        deadline: Option<u8>,
    },
    /// One message from the payer reaches the hub.
    ToHub,
    /// One message from the hub reaches the payer.
    ToPayer,
    Send,
    History,
    Drop,
    /// The payer's process dies; this many of its newest groups were not written.
    Crash {
        lost: usize,
    },
    Refuse(Reject),
    Tick(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u16..24, 0_u8..8, proptest::option::weighted(0.2, any::<u8>())).prop_map(|(reference, bad, deadline)| {
            Step::Submit { reference, bad: bad == 0, deadline }
        }),
        8 => Just(Step::ToHub),
        8 => Just(Step::ToPayer),
        8 => Just(Step::Send),
        4 => Just(Step::History),
        1 => Just(Step::Drop),
        1 => (0_usize..3).prop_map(|lost| Step::Crash { lost }),
        1 => prop_oneof![Just(Reject::Busy), Just(Reject::Conflict), Just(Reject::Signature), Just(Reject::Capacity)]
            .prop_map(Step::Refuse),
        2 => any::<u8>().prop_map(Step::Tick),
    ]
}

#[derive(Default)]
struct World {
    to_hub: VecDeque<LaneRequest>,
    to_payer: VecDeque<LaneReply>,
    now: u64,
    /// Tickets of this process that nobody was answered for, with their reference.
    open: BTreeMap<Ticket, Reference>,
    told_paid: BTreeSet<Reference>,
    told_refused: BTreeSet<Reference>,
}

impl World {
    fn hear(&mut self, home: &mut Home, hub: &Hub) {
        home.drain();
        for event in std::mem::take(&mut home.events) {
            match event {
                Event::Paid { group, tickets } => {
                    for (index, ticket) in tickets.iter().enumerate() {
                        let reference = group.payment(index).unwrap().1.reference;
                        assert!(ticket.is_none_or(|ticket| self.open.remove(&ticket) == Some(reference)));
                        self.told_paid.insert(reference);
                    }
                    let file = group.receipt_file(0, hub.certificate).unwrap();
                    assert!(file.check().is_ok());
                }
                Event::Refused { ticket, .. } => {
                    let reference = self.open.remove(&ticket).unwrap();
                    let taken = hub.payments().any(|payment| payment.reference == reference);
                    assert!(!taken, "refused what the hub took");
                    self.told_refused.insert(reference);
                }
                Event::ReferenceTaken { ticket } => {
                    let reference = self.open.remove(&ticket).unwrap();
                    assert!(hub.payments().any(|payment| payment.reference == reference));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn lose_stream(&mut self, home: &mut Home, hub: &mut Hub) {
        home.payer.connection_lost();
        self.to_hub.clear();
        self.to_payer.clear();
        hub.listening = false;
    }

    fn take(&mut self, step: Step, home: &mut Home, hub: &mut Hub) {
        match step {
            Step::Submit { reference, bad, deadline } => {
                let deadline = deadline.map(|ms| Time(self.now + u64::from(ms)));
                let bad = if bad { payee(200) } else { payee(9) };
                let order = Order { payee: bad, deadline, ..order(reference, 1) };
                // What was paid is for the owner to look up, as the machine says.
                let paid = home.groups.iter().any(|group| group.find(&order.reference).is_some());
                if !paid && let Ok(ticket) = home.payer.submit(order) {
                    // Asked for again: a refusal of the earlier try says nothing about this one.
                    self.told_refused.remove(&order.reference);
                    self.open.insert(ticket, order.reference);
                }
            }
            Step::ToHub => {
                if let Some(request) = self.to_hub.pop_front() {
                    self.to_payer.extend(hub.handle(request));
                }
            }
            Step::ToPayer => {
                if let Some(reply) = self.to_payer.pop_front() {
                    home.payer.handle_reply(reply, Time(self.now), &mut home.proofs).unwrap();
                }
            }
            Step::Send => {
                home.payer.expire(Time(self.now));
                home.payer.connected();
                self.hear(home, hub);
                self.to_hub.extend(home.payer.poll_send(Time(self.now), &lane_key()));
            }
            Step::History => {
                if let Some(since) = home.payer.poll_history(Time(self.now)) {
                    home.payer.handle_history(hub.read(since), Time(self.now), &mut home.proofs).unwrap();
                }
            }
            Step::Drop => self.lose_stream(home, hub),
            Step::Crash { lost } => {
                self.lose_stream(home, hub);
                home.restart(hub, small(), lost);
                self.open.clear();
            }
            Step::Refuse(reject) => hub.next_refusal = Some(reject),
            Step::Tick(ms) => {
                self.now += u64::from(ms);
                hub.bounds.now = Time(self.now);
            }
        }
        self.hear(home, hub);
        self.check(hub);
    }

    fn check(&self, hub: &Hub) {
        let mut paid = BTreeSet::new();
        for payment in hub.payments() {
            assert!(paid.insert(payment.reference), "paid twice");
        }
        assert!(self.told_paid.is_subset(&paid), "told paid, and it is not");
        assert!(self.told_refused.is_disjoint(&paid), "told refused, and it was taken");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn lane_under_any_faults_pays_each_reference_at_most_once_and_comes_to_rest(
        steps in proptest::collection::vec(step(), 1..200)
    ) {
        let mut hub = Hub::new();
        let mut home = Home::new(&hub, small());
        let mut world = World { now: 1_000, ..World::default() };
        for step in steps {
            world.take(step, &mut home, &mut hub);
        }
        hub.next_refusal = None;
        for _ in 0..2_000 {
            if world.open.is_empty() && world.to_payer.is_empty() {
                break;
            }
            for step in [Step::Tick(50), Step::Send, Step::ToHub, Step::ToPayer, Step::History] {
                world.take(step, &mut home, &mut hub);
            }
        }
        prop_assert!(world.open.is_empty(), "{:?} never came to rest: {:?}", world.open, home.payer);
    }
}
