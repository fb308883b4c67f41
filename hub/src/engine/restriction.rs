//! What shards must hold to *before* an act is committed, so that nothing that was judged under the old rules follows it.
//!
//! The committer sends every shard a [`Restriction`] with a token, stages the act when the token's marker has come back
//! from each, and then lifts the restriction behind the act's own notice. Between the two the shard judges by the
//! stricter of what the books said last and every restriction that stands, so notices of other acts cannot loosen it.

use std::collections::BTreeMap;

use weir_protocol::act::Act;
use weir_protocol::amount::Amount;
use weir_protocol::id::AccountId;

use super::books::Standing;
use super::shard::Input;

/// A rule that shards follow ahead of the act that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restriction {
    /// An account may do at most this.
    Standing(AccountId, Standing),
    /// One payment may be at most this; zero: no bound.
    PaymentMax(Amount),
    /// One payment of an account's may be at most this; zero: as everybody's.
    PayerMax(AccountId, Amount),
    /// A window is about to be cut off: stage rolls and closes that are due.
    CutOff,
}

impl Restriction {
    /// The restriction that an act needs, if any. Acts that loosen have one too, so that they keep their order.
    pub const fn of(act: &Act) -> Option<Self> {
        match act {
            Act::Freeze(freeze) => {
                let standing = Standing {
                    approved: true,
                    frozen_incoming: freeze.incoming,
                    frozen_outgoing: freeze.outgoing,
                    payment_max: Amount::ZERO,
                };
                Some(Self::Standing(freeze.account, standing))
            }
            Act::Policy(policy) => Some(Self::PaymentMax(policy.payment_max)),
            Act::Limits(limits) => match limits.account {
                Some(account) => Some(Self::PayerMax(account, limits.payment_max)),
                None => None,
            },
            Act::Cutoff(_) => Some(Self::CutOff),
            _ => None,
        }
    }

    /// What each shard is sent.
    pub const fn input<R>(self, token: u64) -> Input<R> {
        Input::Restrict { restriction: self, token }
    }
}

/// The restrictions that stand, by token.
#[derive(Debug, Default)]
pub(super) struct Restrictions(BTreeMap<u64, Restriction>);

impl Restrictions {
    pub(super) fn stand(&mut self, token: u64, restriction: Restriction) {
        self.0.insert(token, restriction);
    }

    pub(super) fn lift(&mut self, token: u64) {
        self.0.remove(&token);
    }

    /// What an account may do, if the books say this.
    pub(super) fn standing(&self, of: &AccountId, mut standing: Standing) -> Standing {
        for restriction in self.0.values() {
            match restriction {
                Restriction::Standing(account, at_most) if account == of => {
                    standing.frozen_incoming |= at_most.frozen_incoming;
                    standing.frozen_outgoing |= at_most.frozen_outgoing;
                }
                _ => {}
            }
        }
        standing
    }

    /// The bound of one payment of an account's, if the books say this of it and of everybody; zero: none.
    pub(super) fn payer_max(&self, of: &AccountId, standing: Standing, everybody: Amount) -> Amount {
        let everybody = self.payment_max(everybody);
        let coming = self.0.values().filter_map(|restriction| match restriction {
            Restriction::PayerMax(account, bound) if account == of => {
                Some(Standing { payment_max: *bound, ..standing }.payment_max(everybody))
            }
            _ => None,
        });
        let bounds = coming.chain([standing.payment_max(everybody)]);
        bounds.filter(|bound| !bound.is_zero()).min().unwrap_or(Amount::ZERO)
    }

    /// The bound of one payment of anybody's, if the books say this; zero: none.
    fn payment_max(&self, payment_max: Amount) -> Amount {
        let bounds = self.0.values().filter_map(|restriction| match restriction {
            Restriction::PaymentMax(bound) => Some(*bound),
            Restriction::Standing(..) | Restriction::PayerMax(..) | Restriction::CutOff => None,
        });
        bounds.chain([payment_max]).filter(|bound| !bound.is_zero()).min().unwrap_or(Amount::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_protocol::keys::PublicKey;

    #[test]
    fn restriction_holds_against_what_the_books_say_until_it_is_lifted() {
        let account = AccountId(PublicKey([1; 32]));
        let free = Standing { approved: true, ..Standing::default() };
        let frozen = Standing { frozen_outgoing: true, ..free };
        let mut restrictions = Restrictions::default();
        restrictions.stand(1, Restriction::Standing(account, free));
        restrictions.stand(2, Restriction::Standing(account, frozen));
        assert_eq!(restrictions.standing(&account, free), frozen);
        assert_eq!(restrictions.standing(&AccountId(PublicKey([2; 32])), free), free);
        restrictions.lift(1);
        assert_eq!(restrictions.standing(&account, free), frozen);
        restrictions.lift(2);
        assert_eq!(restrictions.standing(&account, free), free);
    }

    #[test]
    fn own_bound_of_a_payer_replaces_everybodys_once_it_is_committed() {
        let (amount, account) = (Amount::from_nanos, AccountId(PublicKey([1; 32])));
        let other = AccountId(PublicKey([2; 32]));
        let plain = Standing { approved: true, ..Standing::default() };
        let own = |nanos| Standing { payment_max: amount(nanos), ..plain };
        let mut restrictions = Restrictions::default();
        let max = |restrictions: &Restrictions, standing| restrictions.payer_max(&account, standing, amount(5));
        assert_eq!(max(&restrictions, plain), amount(5));
        assert_eq!(max(&restrictions, own(9)), amount(9));
        assert_eq!(max(&restrictions, own(u64::MAX)), Amount::ZERO, "no bound at all");
        // Before it is committed the stricter of both counts, and only for this account.
        restrictions.stand(1, Restriction::PayerMax(account, amount(3)));
        assert_eq!(max(&restrictions, plain), amount(3));
        assert_eq!(restrictions.payer_max(&other, plain, amount(5)), amount(5));
        restrictions.stand(2, Restriction::PayerMax(account, amount(9)));
        restrictions.lift(1);
        assert_eq!(max(&restrictions, plain), amount(5));
        restrictions.stand(3, Restriction::PayerMax(account, Amount::ZERO));
        assert_eq!(max(&restrictions, own(9)), amount(5));
    }

    #[test]
    fn smallest_bound_of_a_payment_counts_and_zero_is_none() {
        let amount = Amount::from_nanos;
        let mut restrictions = Restrictions::default();
        assert_eq!(restrictions.payment_max(Amount::ZERO), Amount::ZERO);
        restrictions.stand(1, Restriction::PaymentMax(Amount::ZERO));
        assert_eq!(restrictions.payment_max(amount(5)), amount(5));
        restrictions.stand(2, Restriction::PaymentMax(amount(3)));
        assert_eq!(restrictions.payment_max(amount(5)), amount(3));
        assert_eq!(restrictions.payment_max(Amount::ZERO), amount(3));
    }
}
