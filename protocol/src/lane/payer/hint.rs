//! What a refusal means for each payment that was voided after it: told "refused", or signed again.

use super::{Hint, Order, SlotId};
use crate::amount::Time;
use crate::reject::{Reaction, Reject};

/// A voided payment: its old sequence, and the `valid_until` of the frame that it was in.
#[derive(Debug)]
pub(super) struct Voided {
    pub(super) sequence: u64,
    pub(super) valid_until: Time,
    pub(super) slot: SlotId,
    pub(super) order: Order,
}

impl Hint {
    /// Whether each of the voided payments is refused for good (`true`) or signed again.
    ///
    /// The payment at fault is refused when the reaction is to give up. So is whatever the same reason must refuse too, for
    /// otherwise a thousand orders beyond a channel's capacity would cost a thousand voids. Fault 0: no payment could pass.
    pub(super) fn judge(self, voided: &[Voided]) -> Vec<bool> {
        if matches!(self.reject.reaction(), Reaction::Retry | Reaction::Attach) {
            return vec![false; voided.len()];
        }
        if self.fault == 0 {
            return vec![true; voided.len()];
        }
        let Some(at) = voided.iter().find(|at| at.sequence == self.fault) else {
            // The fault was taken, or never sent: the hint means nothing.
            return vec![false; voided.len()];
        };
        voided.iter().map(|other| self.same_reason(at, other)).collect()
    }

    fn same_reason(self, at: &Voided, other: &Voided) -> bool {
        let (fault, order) = (&at.order, &other.order);
        match self.reject {
            // The frame was late: by the hub's clock every deadline up to the frame's bound has passed. A frame without a
            // bound cannot be late: then it is the lane.
            Reject::Expired => at.valid_until.0 == 0 || order.deadline.is_some_and(|until| until <= at.valid_until),
            _ if at.sequence == other.sequence => true,
            Reject::Capacity | Reject::Limit | Reject::Overflow => {
                other.sequence > at.sequence && order.amount >= fault.amount
            }
            Reject::TooLarge => order.amount >= fault.amount,
            Reject::UnknownPayee | Reject::WrongPayee | Reject::Frozen => order.payee == fault.payee,
            Reject::Closed
            | Reject::Revoked
            | Reject::UnknownLane
            | Reject::UnknownChannel
            | Reject::UnknownAccount
            | Reject::NotApproved => true,
            _ => false,
        }
    }
}
