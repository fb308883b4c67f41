//! What the operator can ask and do, over one opened store: the same whether a gate runs or not.

use weir_protocol::amount::Time;

use super::refund::Refunds;
use super::shapes::{
    BalancePage, BalanceRow, BalancesAsked, RefundAsked, RefundOutcome, Refunded, Status, StoreStatus, TotalsRow,
};
use crate::gate::balance::{BalanceView, Balances, PAGE_MOST, PageEnd};

/// Most balances that are looked at for one page: what fits may be far between.
const LOOKED_AT: usize = 50 * PAGE_MOST;

/// An opened store, and the payee where there is one.
#[derive(Debug)]
pub struct Till {
    balances: Balances,
    refunds: Option<std::sync::Arc<Refunds>>,
}

/// A question that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadQuestion(pub String);

impl Till {
    /// Over this store; without the payee nothing can be refunded.
    pub const fn new(balances: Balances, refunds: Option<std::sync::Arc<Refunds>>) -> Self {
        Self { balances, refunds }
    }

    /// The store.
    pub const fn balances(&self) -> &Balances {
        &self.balances
    }

    /// Who gives money back.
    pub const fn refunds(&self) -> Option<&std::sync::Arc<Refunds>> {
        self.refunds.as_ref()
    }

    /// A page of balances.
    pub fn page(&self, asked: &BalancesAsked) -> Result<BalancePage, BadQuestion> {
        let fits = |view: &BalanceView| {
            asked.state.is_none_or(|state| view.state == state)
                && asked.condition.is_none_or(|condition| condition.holds(view))
        };
        if let Some(payment_id) = asked.payment {
            let found = self.balances.balance(payment_id).filter(fits);
            return Ok(BalancePage { balances: found.iter().map(BalanceRow::of).collect(), next: None });
        }
        let mut after: PageEnd =
            asked.after.parse().map_err(|error| BadQuestion(format!("`after` is wrong: {error}")))?;
        let most = if asked.most == 0 { PAGE_MOST } else { asked.most.min(PAGE_MOST) };
        let mut balances = Vec::new();
        let mut looked_at = 0;
        loop {
            let page = self.balances.list(after, PAGE_MOST);
            let is_last = page.len() < PAGE_MOST;
            for view in &page {
                if balances.len() >= most {
                    return Ok(BalancePage { balances, next: Some(after.to_string()) });
                }
                after = view.page_end();
                if fits(view) {
                    balances.push(BalanceRow::of(view));
                }
            }
            looked_at += page.len();
            if is_last {
                return Ok(BalancePage { balances, next: None });
            }
            if looked_at >= LOOKED_AT {
                return Ok(BalancePage { balances, next: Some(after.to_string()) });
            }
        }
    }

    /// Refunds one payment, to the end of it.
    pub async fn refund(&self, asked: RefundAsked) -> Refunded {
        let Some(refunds) = self.refunds.clone() else {
            let why = "the configuration names no `home`: only the payee can refund";
            return Refunded { outcome: RefundOutcome::Failed, ..Refunded::skipped(asked.payment, why) };
        };
        // By itself: whoever asked may go away meanwhile.
        let done = tokio::spawn(async move { refunds.refund(asked.payment, asked.condition).await });
        done.await.unwrap_or_else(|_| Refunded {
            outcome: RefundOutcome::Unknown,
            ..Refunded::skipped(asked.payment, "the gate is stopping: it is finished at the next start")
        })
    }

    /// What the store knows of its state; the rest is a running gate's.
    pub fn status(&self) -> Status {
        let load = self.balances.load();
        Status {
            running: false,
            pid: None,
            address: None,
            started_at_ms: None,
            in_flight: None,
            totals: self.balances.totals().iter().map(|(currency, totals)| TotalsRow::of(*currency, totals)).collect(),
            unshown: load.unshown as u64,
            store: StoreStatus {
                balances: load.balances,
                draws: load.draws,
                queued: load.queued,
                closed: self.balances.closed_because().map(|closed| closed.to_string()),
            },
            prices_read_at_ms: None,
            certificate: None,
            credits: None,
        }
    }
}

/// The certificate that counts at a time, of those that are known.
pub(crate) fn certificate_at(trust: &crate::gate::trust::Trust, now: Time) -> Option<super::shapes::CertificateStatus> {
    let known = trust.known().into_iter().map(|one| one.certificate);
    let newest = known.filter(|one| one.not_before <= now).max_by_key(|one| one.not_before)?;
    Some(super::shapes::CertificateStatus {
        key: newest.key.to_string(),
        not_before_ms: newest.not_before.0,
        not_after_ms: newest.not_after.0,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use crate::acts::RefundPlace;
    use crate::gate::balance::{BalanceState, Credit, Limits, Payment};
    use crate::gate::ops::refund::Condition;
    use weir_protocol::amount::{Amount, Currency};
    use weir_protocol::id::{PaymentId, Reference};

    fn payment(number: u32) -> Payment {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let place = RefundPlace { chain: 1, commit: 2, group: 0, leaf: number, payment_id: PaymentId(id) };
        let (reference, amount) = (Reference(id), Amount::from_nanos(1_000));
        Payment { reference, amount, currency: Currency::EUR, paid_at: Time(1_000 + u64::from(number)), place }
    }

    async fn till(folder: &std::path::Path, count: u32) -> Till {
        let balances = Balances::open(folder, Limits::default()).unwrap();
        let payments: Vec<Payment> = (0..count).map(payment).collect();
        for part in payments.chunks(1_000) {
            balances.note(part).await.unwrap();
        }
        for payment in payments.iter().step_by(10) {
            balances.show(&Credit { payment: *payment, resource: [1; 16] }, Time(5_000)).unwrap();
        }
        Till::new(balances, None)
    }

    #[tokio::test]
    async fn pages_hold_what_fits_in_order_and_end() {
        let folder = tempfile::tempdir().unwrap();
        let till = till(folder.path(), 2_500).await;
        let mut asked = BalancesAsked { state: Some(BalanceState::Open), most: 100, ..BalancesAsked::default() };
        let mut seen = Vec::new();
        let mut pages = 0;
        loop {
            let page = till.page(&asked).unwrap();
            pages += 1;
            seen.extend(page.balances.iter().map(|row| row.payment));
            let Some(next) = page.next else { break };
            asked.after = next;
        }
        let wanted: Vec<PaymentId> = (0..2_500).step_by(10).map(|number| payment(number).payment_id()).collect();
        assert_eq!(seen, wanted);
        assert_eq!(pages, 3);
        let bad = BalancesAsked { after: "x".to_owned(), ..BalancesAsked::default() };
        assert!(till.page(&bad).is_err());
    }

    #[tokio::test]
    async fn conditions_are_looked_at_on_both_sides_of_their_time() {
        let folder = tempfile::tempdir().unwrap();
        let till = till(folder.path(), 20).await;
        let count = |condition| {
            let asked = BalancesAsked { condition: Some(condition), ..BalancesAsked::default() };
            till.page(&asked).unwrap().balances.len()
        };
        assert_eq!(count(Condition::NeverShown(Time(1_000))), 0);
        assert_eq!(count(Condition::NeverShown(Time(1_001))), 0, "the first was shown");
        assert_eq!(count(Condition::NeverShown(Time(1_002))), 1);
        assert_eq!(count(Condition::NeverShown(Time::MAX)), 18);
        assert_eq!(count(Condition::UnusedSince(Time(5_000))), 0, "shown at that time");
        assert_eq!(count(Condition::UnusedSince(Time(5_001))), 2);
        assert_eq!(count(Condition::UnderWay), 0);
        assert_eq!(count(Condition::Named), 20);
    }

    #[tokio::test]
    async fn refund_without_a_home_fails_and_takes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let till = till(folder.path(), 2).await;
        let asked = RefundAsked { payment: payment(1).payment_id(), condition: Condition::Named };
        assert_eq!(till.refund(asked).await.outcome, RefundOutcome::Failed);
        assert_eq!(till.balances().balance(asked.payment).unwrap().left, Amount::from_nanos(1_000));
        let status = till.status();
        assert_eq!((status.unshown, status.running, status.totals.len()), (1, false, 1));
    }
}
