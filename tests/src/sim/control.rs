//! A client's acts: one at a time, kept until they are answered, sent again as they are after a lost connection.

use std::collections::VecDeque;

use weir_protocol::act::{Act, SignedAct};
use weir_protocol::commit::ActProof;
use weir_protocol::reject::{Reaction, Reject};

use super::cx::Cx;
use super::log::{Checked, Failure, ensure};
use super::net::{ConnId, ToHub};

/// What an act is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To have an account.
    Register,
    /// To open the channel at this place.
    Open(usize),
    /// To grant the lane that waits at this place of the channels.
    Grant(usize),
    /// To change a channel.
    Amend(usize),
    /// To end a lane.
    Revoke(usize),
    /// To close a channel.
    Close(usize),
    /// To mark balance.
    Withdraw,
    /// To say what becomes of earnings.
    Earnings,
    /// To give back a payment.
    Refund,
    /// To let the hub collect, or no more.
    Mandate,
}

/// An act on its way.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    /// The act.
    pub(crate) signed: SignedAct,
    /// What it is for.
    pub(crate) purpose: Purpose,
    /// How often it was refused for now.
    pub(crate) tries: u32,
}

/// The acts of one client.
#[derive(Debug, Default)]
pub(crate) struct Control {
    queue: VecDeque<Pending>,
    in_flight: Option<u64>,
    waits_until: u64,
}

/// What became of an act.
#[derive(Debug)]
pub(crate) struct Settled {
    /// The act.
    pub(crate) pending: Pending,
    /// The act in its commit, or why not.
    pub(crate) result: Result<Act, Reject>,
}

impl Control {
    /// One more act.
    pub(crate) fn push(&mut self, signed: SignedAct, purpose: Purpose) {
        self.queue.push_back(Pending { signed, purpose, tries: 0 });
    }

    /// How many are not answered.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether an act for this purpose waits.
    pub(crate) fn has(&self, purpose: Purpose) -> bool {
        self.queue.iter().any(|pending| pending.purpose == purpose)
    }

    /// The connection is gone.
    pub(crate) const fn lost(&mut self) {
        self.in_flight = None;
    }

    /// Sends the first, if nothing is under way. Now and then it is sent twice.
    pub(crate) fn pump(&mut self, cx: &mut Cx, conn: ConnId) {
        if self.in_flight.is_some() || cx.now_us < self.waits_until {
            return;
        }
        let Some(first) = self.queue.front() else { return };
        if !cx.calm && cx.rng.once_in(12) {
            let id = cx.request();
            cx.tell_hub(conn, 0, ToHub::Act { id, signed: Box::new(first.signed.clone()) });
        }
        let id = cx.request();
        self.in_flight = Some(id);
        cx.tell_hub(conn, 0, ToHub::Act { id, signed: Box::new(first.signed.clone()) });
    }

    /// It is done.
    pub(crate) fn done(&mut self, cx: &Cx, id: u64, act: Act, proof: &ActProof) -> Checked<Option<Settled>> {
        if self.in_flight != Some(id) {
            return Ok(None);
        }
        self.in_flight = None;
        let Some(pending) = self.queue.pop_front() else { return Ok(None) };
        proof
            .check(&cx.hub, &cx.certificate.certificate, &act)
            .map_err(|error| Failure(format!("the proof of an act does not hold: {error}")))?;
        let same = match (&pending.signed.act, &act) {
            (Act::CloseRequest(asked), Act::Close(close)) => close.channel == asked.channel,
            // A refund of which a part was taken before is answered with what is taken in all.
            (asked, done) => asked == done,
        };
        ensure(same, || format!("asked for {:?}, done is {act:?}", pending.signed.act))?;
        Ok(Some(Settled { pending, result: Ok(act) }))
    }

    /// It is refused, for good or for now.
    pub(crate) fn refused(&mut self, cx: &mut Cx, id: u64, reject: Reject) -> Option<Settled> {
        if self.in_flight != Some(id) {
            return None;
        }
        self.in_flight = None;
        let first = self.queue.front_mut()?;
        first.tries += 1;
        let again = match reject.reaction() {
            Reaction::Retry => true,
            Reaction::First => !cx.calm && first.tries < 8 && reject != Reject::Unauthenticated,
            Reaction::GiveUp | Reaction::Attach => false,
        };
        if again {
            self.waits_until = cx.now_us + cx.rng.range(5_000, 200_000);
            self.queue.rotate_left(1);
            return None;
        }
        self.queue.pop_front().map(|pending| Settled { pending, result: Err(reject) })
    }
}
