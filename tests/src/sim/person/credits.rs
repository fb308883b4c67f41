//! What a participant is paid: its credits, each with its proof, resumable.

use weir_protocol::wire::{CreditGroup, CreditMessage};

use super::{Person, Received};
use crate::sim::cx::Cx;
use crate::sim::log::{Checked, Failure, ensure};
use crate::sim::net::{ConnId, ToHub};

impl Person {
    pub(super) fn subscribe(&mut self, cx: &mut Cx, conn: ConnId) {
        self.credit_stream = cx.stream();
        self.credit_commit = None;
        let stream = self.credit_stream;
        cx.tell_hub(conn, stream, ToHub::Subscribe { stream, account: self.account, after: self.cursor });
    }

    pub(super) fn credit(&mut self, cx: &mut Cx, message: CreditMessage) -> Checked {
        match message {
            CreditMessage::Commit { commit, certificate } => {
                let checked = commit.check(&cx.hub, &certificate.certificate);
                checked.map_err(|error| Failure(format!("a credit's commit: {error}")))?;
                self.credit_commit = Some(commit);
                Ok(())
            }
            CreditMessage::Group(group) => self.credit_group(cx, &group),
            CreditMessage::Through(cursor) => {
                self.cursor = cursor;
                Ok(())
            }
            CreditMessage::Refused(reject) => Err(Failure(format!("a subscription is refused: {reject}"))),
        }
    }

    fn credit_group(&mut self, cx: &Cx, group: &CreditGroup) -> Checked {
        let commit = self.credit_commit.ok_or_else(|| Failure("credits without their commit".into()))?;
        let checked = group.check(&self.account, &commit);
        checked.map_err(|error| Failure(format!("a credit's proof does not hold: {error}")))?;
        for credit in &group.credits {
            let known = cx.model.payments.get(&credit.payment_id);
            let fits = known.is_some_and(|payment| {
                payment.payee == self.account
                    && payment.amount == i128::from(credit.amount.nanos())
                    && payment.reference == credit.reference
            });
            ensure(fits, || "a payee is told of a payment that is not there".into())?;
            let received = Received {
                chain: commit.commit.chain,
                commit: commit.commit.number,
                group: group.path.index,
                leaf: credit.leaf,
                amount: credit.amount.nanos(),
                refunded: 0,
            };
            self.received.entry(credit.payment_id).or_insert(received);
        }
        Ok(())
    }

    /// At the end: every payment to this account has been heard of. How many are missing.
    pub(crate) fn missing_credits(&self, cx: &Cx) -> usize {
        let mine = cx.model.payments.iter().filter(|(_, payment)| payment.payee == self.account);
        mine.filter(|(id, _)| !self.received.contains_key(id)).count()
    }
}
