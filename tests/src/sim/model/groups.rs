//! The model's view of payments.

use weir_hub::engine::record::GroupRecord;
use weir_protocol::amount::Time;
use weir_protocol::payment::{next_state, payment_id};

use super::{Model, PaymentModel, Pot, nanos};
use crate::sim::log::{Checked, Failure, ensure};

impl Model {
    pub(super) fn group(&mut self, group: &GroupRecord, time: Time, (commit, index): (u64, u32)) -> Checked {
        let lane = self.lanes.get(&group.lane).ok_or_else(|| Failure("payments on an unknown lane".into()))?.clone();
        let channel = self.channels.get(&lane.grant.channel).ok_or_else(|| Failure("no channel".into()))?.clone();
        let payer = channel.terms.account;
        let standing = self.accounts.get(&payer).cloned().unwrap_or_default();
        ensure(!channel.closed, || "payments on a closed channel".into())?;
        ensure(time < channel.expires_at, || "payments on an expired channel".into())?;
        ensure(time < lane.grant.expires_at, || "payments on an expired lane".into())?;
        ensure(!lane.revoked, || "payments on a revoked lane".into())?;
        ensure(!standing.frozen_outgoing, || "payments of a frozen account".into())?;
        let bound = group.head.valid_until;
        ensure(bound.0 == 0 || time < bound, || "payments past their deadline".into())?;
        let payment_max = self.policy.as_ref().map_or(0, |policy| nanos(policy.payment_max));

        let mut next = lane.clone();
        let mut spent = 0;
        for ((sequence, payment), leaf) in group.payments().zip(0_u32..) {
            ensure(sequence > next.head.sequence, || format!("sequence {sequence} does not grow"))?;
            let gone = next.voided.iter().any(|(from, through)| *from < sequence && sequence <= *through);
            ensure(!gone, || format!("sequence {sequence} was given up for ever"))?;
            let amount = nanos(payment.amount);
            ensure(amount > 0, || "a payment of nothing".into())?;
            ensure(payment_max == 0 || amount <= payment_max, || "a payment above the hub's limit".into())?;
            let payee = self.accounts.get(&payment.payee).cloned().unwrap_or_default();
            ensure(payee.approved && !payee.frozen_incoming, || "paid to an account that takes no money".into())?;
            let only = lane.grant.payee;
            ensure(only.is_none_or(|only| only == payment.payee), || "paid to another payee than the lane's".into())?;

            let id = payment_id(&group.lane, sequence);
            let known = PaymentModel {
                payer,
                payee: payment.payee,
                amount,
                refunded: 0,
                time,
                commit,
                reference: payment.reference,
                place: (index, leaf),
            };
            ensure(self.payments.insert(id, known).is_none(), || format!("sequence {sequence} was taken twice"))?;
            self.taken(payment.reference, id)?;
            self.money.add(&payer, Pot::Locked, -amount)?;
            self.money.add(&payment.payee, Pot::Earned, amount)?;
            if let Some(payee) = self.accounts.get_mut(&payment.payee) {
                payee.payments += 1;
            }
            if let Some(payer) = self.accounts.get_mut(&payer) {
                payer.spent += amount;
            }
            next.head.state = next_state(&next.head.state, sequence, &payment);
            next.head.sequence = sequence;
            next.total += amount;
            spent += amount;
        }
        let led = (next.head.state, next.head.sequence, next.total);
        let said = (group.head.state, group.head.sequence, nanos(group.head.total));
        ensure(led == said, || "the payments do not lead to the signed head".into())?;
        let period = match u64::from(lane.grant.period) {
            0 => 0,
            seconds => time.0.saturating_sub(channel.terms.opened_at.0) / (seconds * 1000),
        };
        let in_period = next.by_period.entry(period).or_default();
        *in_period += spent;
        let (in_period, limit) = (*in_period, nanos(lane.grant.limit));
        ensure(in_period <= limit, || format!("{in_period} spent in period {period}, the limit is {limit}"))?;
        next.head = group.head;
        self.lanes.insert(group.lane, next);
        Ok(())
    }
}
