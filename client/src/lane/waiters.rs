//! Who waits for which order: a window over the tickets that were given out, oldest first, without a map or a channel for
//! each payment.

use std::collections::{HashMap, VecDeque};

use tokio::sync::{mpsc, oneshot};
use weir_protocol::lane::payer::Ticket;

use super::BatchOutcome;
use super::driver::Word;

/// Who waits for an order.
#[derive(Debug)]
pub(super) enum Waiter {
    /// One call.
    One(oneshot::Sender<Word>),
    /// One order of a [`super::PaySink`], by the sink's place and the caller's tag.
    Many { sink: SinkId, tag: u64 },
}

/// A place in [`Waiters`]' list of sinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SinkId(u32);

/// Where a sink's outcomes go.
pub(super) type Outcomes = mpsc::UnboundedSender<BatchOutcome>;

#[derive(Debug)]
struct Sink {
    outcomes: Outcomes,
    /// Orders without an outcome. With the last one the sink is forgotten, so that its reader hears of the end.
    owed: usize,
}

/// Everybody who waits.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    /// The ticket of the window's first place.
    first: u64,
    window: VecDeque<Option<Waiter>>,
    /// Those who joined an order that somebody waits for already, or came back to one after its first answer.
    others: HashMap<Ticket, Vec<Waiter>>,
    sinks: Vec<Option<Sink>>,
}

impl Waiters {
    /// Notes who waits for a ticket. New tickets come in order.
    pub(super) fn insert(&mut self, ticket: Ticket, waiter: Waiter) {
        if self.window.is_empty() {
            self.first = self.first.max(ticket.0);
        }
        if ticket.0 == self.first + self.window.len() as u64 {
            self.window.push_back(Some(waiter));
        } else {
            self.others.entry(ticket).or_default().push(waiter);
        }
    }

    /// Whoever waits for a ticket: from now on nobody does.
    pub(super) fn take(&mut self, ticket: Ticket) -> (Option<Waiter>, Vec<Waiter>) {
        let place = ticket.0.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        let waiter = place.and_then(|place| self.window.get_mut(place)).and_then(Option::take);
        while self.window.front().is_some_and(Option::is_none) {
            self.window.pop_front();
            self.first += 1;
        }
        let others = if self.others.is_empty() { None } else { self.others.remove(&ticket) };
        (waiter, others.unwrap_or_default())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.window.is_empty() && self.others.is_empty()
    }

    /// Every ticket that somebody waits for, in order.
    pub(super) fn tickets(&self) -> Vec<Ticket> {
        let window = self.window.iter().zip(self.first..).filter(|(waiter, _)| waiter.is_some());
        let mut tickets: Vec<Ticket> = window.map(|(_, ticket)| Ticket(ticket)).collect();
        tickets.extend(self.others.keys());
        tickets.sort_unstable();
        tickets.dedup();
        tickets
    }

    // ---- sinks ------------------------------------------------------------------------------------------------------

    /// The place of a sink that waits for so many more orders.
    pub(super) fn owe(&mut self, outcomes: &Outcomes, orders: usize) -> SinkId {
        let known =
            self.sinks.iter().position(|sink| sink.as_ref().is_some_and(|sink| sink.outcomes.same_channel(outcomes)));
        let free = || self.sinks.iter().position(Option::is_none);
        let place = known.or_else(free).unwrap_or_else(|| {
            self.sinks.push(None);
            self.sinks.len() - 1
        });
        if let Some(sink) = self.sinks.get_mut(place) {
            sink.get_or_insert_with(|| Sink { outcomes: outcomes.clone(), owed: 0 }).owed += orders;
        }
        // A list of sinks is short: each is a live channel.
        SinkId(place as u32)
    }

    /// Tells a sink.
    pub(super) fn tell(&mut self, id: SinkId, outcome: BatchOutcome) {
        let Some(place) = self.sinks.get_mut(id.0 as usize) else { return };
        let Some(sink) = place else { return };
        sink.owed = sink.owed.saturating_sub(outcome.count());
        // A reader that went away wants no answer.
        let _ = sink.outcomes.send(outcome);
        if sink.owed == 0 {
            *place = None;
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "a failed test should say where")]
mod tests {
    use super::*;

    fn tags(taken: (Option<Waiter>, Vec<Waiter>)) -> Vec<u64> {
        let tag = |waiter| match waiter {
            Waiter::Many { tag, .. } => tag,
            Waiter::One(_) => panic!(),
        };
        taken.0.into_iter().chain(taken.1).map(tag).collect()
    }

    #[test]
    fn waiters_are_taken_once_each_in_any_order_and_others_may_join_before_and_after() {
        let mut waiters = Waiters::default();
        let sink = SinkId(0);
        for ticket in 0..10 {
            waiters.insert(Ticket(ticket), Waiter::Many { sink, tag: ticket });
        }
        waiters.insert(Ticket(4), Waiter::Many { sink, tag: 40 });
        assert_eq!(tags(waiters.take(Ticket(4))), [4, 40]);
        assert!(tags(waiters.take(Ticket(4))).is_empty());
        // Somebody asks again for one that was answered "unknown", before and behind the window.
        assert_eq!(tags(waiters.take(Ticket(0))), [0]);
        for ticket in [0, 4] {
            waiters.insert(Ticket(ticket), Waiter::Many { sink, tag: 100 + ticket });
        }
        let expected: Vec<_> = (0..10).map(Ticket).collect();
        assert_eq!(waiters.tickets(), expected);
        for ticket in (0..10).rev() {
            let tag = if ticket == 0 || ticket == 4 { 100 + ticket } else { ticket };
            assert_eq!(tags(waiters.take(Ticket(ticket))), [tag]);
        }
        assert!(waiters.is_empty());
        waiters.insert(Ticket(3), Waiter::Many { sink, tag: 3 });
        waiters.insert(Ticket(10), Waiter::Many { sink, tag: 10 });
        assert_eq!(tags(waiters.take(Ticket(10))), [10]);
        assert_eq!(tags(waiters.take(Ticket(3))), [3]);
        assert!(waiters.is_empty());
    }

    #[test]
    fn sink_is_forgotten_with_its_last_outcome() {
        let mut waiters = Waiters::default();
        let (first, mut reader) = mpsc::unbounded_channel();
        let (second, _other) = mpsc::unbounded_channel();
        let id = waiters.owe(&first, 2);
        assert_ne!(waiters.owe(&second, 1), id);
        assert_eq!(waiters.owe(&first, 1), id);
        drop(first);
        for tag in 0..3 {
            assert!(!reader.is_closed());
            waiters.tell(id, BatchOutcome::Unknown { tag });
            assert!(reader.try_recv().is_ok());
        }
        assert!(matches!(reader.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
        assert_eq!(waiters.owe(&second, 1).0, 1, "a place is given again");
    }
}
