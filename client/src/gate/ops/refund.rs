//! Giving money back: out of the balance first, durably; then by the hub, whose act is cumulative; then noted as done.
//!
//! ```text
//! free ──withdraw──► refunding ──the hub took it───────► refunded
//!   ▲                    │ ▲──no answer: again, later
//!   └──the hub refused, and never took it──┘
//! ```
//!
//! A crash anywhere leaves the money `refunding`, which is never drawn, and the same act is sent again: it works once.
//! Money is made free again only when the hub cannot have taken the act.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use weir_protocol::amount::Time;
use weir_protocol::id::PaymentId;
use weir_protocol::reject::{Reaction, Reject};

use super::shapes::{RefundOutcome, Refunded};
use crate::client::Client;
use crate::error::Error;
use crate::gate::balance::{BalanceState, BalanceView, Balances, PAGE_MOST, PageEnd, RefundDraw, RefundError};

/// Most payments that the hub refused to refund and that are not tried again by themselves before a restart.
const MAX_REFUSED: usize = 65_536;

/// What a payment must be to be refunded, looked at again when its turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It was named: whatever is free of it.
    Named,
    /// A refund of it is under way: that one, and no more.
    UnderWay,
    /// Shown, and neither paid, shown nor drawn from since this time; no request holds a part of it.
    UnusedSince(
        /// Milliseconds since 1970.
        Time,
    ),
    /// Never shown, and paid before this time.
    NeverShown(
        /// Milliseconds since 1970.
        Time,
    ),
}

impl Condition {
    /// Whether a balance is meant. What is being refunded already always is.
    pub fn holds(&self, view: &BalanceView) -> bool {
        if view.state == BalanceState::Refunding {
            return true;
        }
        match self {
            Self::Named => true,
            Self::UnderWay => false,
            Self::UnusedSince(since) => {
                let shown = view.shown.map(|(at, _)| at);
                let last = view.payment.paid_at.max(view.used_at).max(shown.unwrap_or_default());
                shown.is_some() && view.reserved.is_zero() && !view.left.is_zero() && last < *since
            }
            Self::NeverShown(before) => view.state == BalanceState::Unshown && view.payment.paid_at < *before,
        }
    }
}

/// Gives money back, one payment at a time.
#[derive(Debug)]
pub struct Refunds {
    balances: Balances,
    client: Client,
    /// One at a time: a refund under way is never mistaken for one that a crash left.
    turn: tokio::sync::Mutex<()>,
    refused: Mutex<HashSet<PaymentId>>,
}

/// What is told of each refund that came to an end or not.
pub type Heard = Arc<dyn Fn(&Refunded) + Send + Sync>;

impl Refunds {
    /// Out of this store, by this payee.
    pub fn new(balances: Balances, client: Client) -> Self {
        Self { balances, client, turn: tokio::sync::Mutex::new(()), refused: Mutex::default() }
    }

    /// The payee's client.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Refunds what is free of a payment, if it is still what it must be. Nothing is taken from the balance while the hub
    /// is out of reach.
    ///
    /// Run it to its end: given up in between, the refund is finished by [`Self::resume`].
    pub async fn refund(&self, payment_id: PaymentId, condition: Condition) -> Refunded {
        let _turn = self.turn.lock().await;
        let Some(view) = self.balances.balance(payment_id) else {
            let why = "not a payment of this gate: it was never shown here, and answers no demand that it remembers";
            return Refunded::skipped(payment_id, why);
        };
        if !condition.holds(&view) {
            return Refunded::skipped_of(&view, "it was used meanwhile");
        }
        if view.left.is_zero() && view.refunding.is_zero() {
            return Refunded::skipped_of(&view, "nothing is left of it");
        }
        if let Err(error) = self.client.connect().await {
            return Refunded { outcome: RefundOutcome::Unreachable, ..Refunded::skipped_of(&view, &error.to_string()) };
        }
        let under_way = !view.refunding.is_zero();
        let withdrawn = match condition {
            Condition::NeverShown(_) => self.balances.withdraw_unshown_for_refund(payment_id).await,
            Condition::Named | Condition::UnderWay | Condition::UnusedSince(_) => {
                self.balances.withdraw_for_refund(payment_id).await
            }
        };
        match withdrawn {
            Ok(draw) => self.send(draw, under_way).await,
            Err(error @ (RefundError::NothingLeft { .. } | RefundError::Shown(_) | RefundError::Unknown(_))) => {
                Refunded::skipped_of(&view, &error.to_string())
            }
            Err(error @ (RefundError::TooMany(_) | RefundError::Closed(_) | RefundError::NotUnderWay { .. })) => {
                // Whether it was taken shows after a restart; the hub was told nothing.
                Refunded { outcome: RefundOutcome::Failed, ..Refunded::skipped_of(&view, &error.to_string()) }
            }
        }
    }

    /// Sends a refund that was taken from its balance. `again`: it may have been sent before.
    async fn send(&self, draw: RefundDraw, again: bool) -> Refunded {
        let payment_id = draw.place.payment_id;
        let told = |outcome, why: Option<String>| Refunded {
            outcome,
            why,
            amount: Some(draw.amount),
            currency: Some(draw.currency),
            refunded: Some(draw.refunded_total),
            ..Refunded::skipped(payment_id, "")
        };
        let (outcome, why, done) = match self.client.refund(draw.place, draw.refunded_total).await {
            Ok(done) => (RefundOutcome::Refunded, None, Some(done)),
            // Never above the payment, so the hub has given back more than this: of what was refunded by other means,
            // nothing must become free.
            Err(Error::Refused(Reject::RefundAmount)) => {
                tracing::error!(%payment_id, "the hub has given back more of a payment than this gate: `weir refund` is for payments that are not the gate's");
                (RefundOutcome::Refunded, Some("it was refunded by other means before".to_owned()), None)
            }
            Err(Error::Refused(reject)) if reject.reaction() != Reaction::Retry => {
                // Looked at after what was taken before: so it was not taken.
                let never_taken = !again || reject == Reject::Insufficient;
                let why = reject.to_string();
                if !never_taken {
                    tracing::error!(%payment_id, %reject, "whether a refund was taken is not known, and the hub says no more: its money stays held");
                    self.refuse(payment_id);
                    return told(RefundOutcome::Unknown, Some(why));
                }
                if reject != Reject::Insufficient {
                    self.refuse(payment_id);
                }
                if let Err(error) = self.balances.restore_refund(payment_id, draw.refunded_total).await {
                    tracing::error!(%payment_id, %error, "a refund that the hub refused is not noted");
                    return told(RefundOutcome::Unknown, Some(format!("{why}; {error}")));
                }
                let outcome =
                    if reject == Reject::Insufficient { RefundOutcome::Insufficient } else { RefundOutcome::Refused };
                return told(outcome, Some(why));
            }
            Err(error) => {
                tracing::warn!(%payment_id, %error, "a refund was not answered: it is sent again");
                return told(RefundOutcome::Unknown, Some(error.to_string()));
            }
        };
        if let Err(error) = self.balances.confirm_refund(payment_id, draw.refunded_total).await {
            // The hub has it. It is sent again after a restart, and works once.
            tracing::error!(%payment_id, %error, "a refund that the hub took is not noted");
        }
        let (act, commit) = done.map_or((None, None), |done| {
            (Some(done.act.digest(&self.client.hub())), Some(done.proof.commit.commit.number))
        });
        Refunded { act, commit, ..told(outcome, why) }
    }

    fn refuse(&self, payment_id: PaymentId) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() < MAX_REFUSED {
            refused.insert(payment_id);
        }
    }

    fn is_refused(&self, payment_id: &PaymentId) -> bool {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).contains(payment_id)
    }

    /// Finishes refunds that a crash or the network left under way. Stops where the hub is out of reach.
    pub async fn resume(&self, heard: &Heard) {
        let mut after = None;
        loop {
            let page = self.balances.unconfirmed_refunds(after, PAGE_MOST);
            let Some(last) = page.last() else { return };
            after = Some(last.place.payment_id);
            for draw in page.iter().filter(|draw| !self.is_refused(&draw.place.payment_id)) {
                let done = self.refund(draw.place.payment_id, Condition::UnderWay).await;
                heard(&done);
                if matches!(done.outcome, RefundOutcome::Unreachable | RefundOutcome::Unknown | RefundOutcome::Failed) {
                    return;
                }
            }
        }
    }

    /// Refunds payments whose receipt was never shown and that were made before a time. Stops at the first that the hub
    /// cannot be told of, or that the payee has no money for.
    pub async fn refund_unshown(&self, paid_before: Time, heard: &Heard) {
        let mut after = PageEnd::default();
        loop {
            let page = self.balances.never_shown(paid_before, after, PAGE_MOST);
            let Some(last) = page.last() else { return };
            after = last.page_end();
            for view in page.iter().filter(|view| !self.is_refused(&view.payment.payment_id())) {
                let done = self.refund(view.payment.payment_id(), Condition::NeverShown(paid_before)).await;
                heard(&done);
                match done.outcome {
                    RefundOutcome::Refunded
                    | RefundOutcome::Refused
                    | RefundOutcome::Skipped
                    | RefundOutcome::Planned => {}
                    RefundOutcome::Insufficient => {
                        tracing::warn!(
                            "payments that were never shown cannot be refunded: the payee has too little balance"
                        );
                        return;
                    }
                    RefundOutcome::Unreachable | RefundOutcome::Unknown | RefundOutcome::Failed => return,
                }
            }
        }
    }
}
