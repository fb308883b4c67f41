//! Claims: payments that came by another way than their request, from the machine that paid, and wait for their page.

use std::collections::HashMap;
use std::sync::PoisonError;

use weir_protocol::amount::Time;
use weir_protocol::http::problem::PaymentProblem;
use weir_protocol::http::{Credential, Resource};
use weir_protocol::id::{PaymentId, Reference};

use super::{Desk, MAX_COUNTED, Proof, Refusal, busy};
use crate::gate::balance::{self, Balances, PageEnd};
use crate::gate::site::Token;

/// How long a browser keeps the random cookie that its claims need, in milliseconds.
pub const BROWSER_MS: u64 = 86_400_000;

/// A payment that came by another way than its request: from the machine that paid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) payment_id: PaymentId,
    pub(super) paid_at: Time,
}

impl Desk {
    /// Takes a credential that was posted for a challenge's claim. Returns when it is durable: a cookie may name it then.
    pub async fn claim(&self, id: &str, credential: &Credential, now: Time) -> Result<(), ClaimError> {
        if credential.challenge.id != id {
            return Err(ClaimError::Other);
        }
        let proven = self.register(credential, now).map_err(|proof| match proof {
            Proof::Short(short) => ClaimError::Short(short.problem, short.detail),
            Proof::Refused(refusal) => ClaimError::Refused(refusal),
        })?;
        self.balances
            .persist(proven.payment_id)
            .await
            .map_err(|error| ClaimError::Refused(busy(&error.to_string())))?;
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        if claims.len() >= MAX_COUNTED {
            // A claim is asked for within minutes of its payment.
            let newest = claims.values().map(|claim| claim.paid_at).max().unwrap_or_default();
            claims.retain(|_, claim| claim.paid_at > newest.minus_ms(self.site.challenge_ttl_ms));
        }
        if claims.len() >= MAX_COUNTED {
            return Err(ClaimError::Refused(busy("too many payments wait for their pages")));
        }
        claims.insert(proven.reference, Claim { payment_id: proven.payment_id, paid_at: proven.paid_at });
        Ok(())
    }

    /// The payment that was claimed for a challenge.
    pub fn claimed(&self, reference: Reference) -> Option<PaymentId> {
        let claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        claims.get(&reference).map(|claim| claim.payment_id)
    }

    /// A cookie's text for a payment: it opens one resource where the payment is used once, else whatever the rest pays for.
    /// It ends with the access, or with the grace.
    pub fn cookie(
        &self,
        payment_id: PaymentId,
        resource: Option<Resource>,
        access_ms: Option<u64>,
        now: Time,
    ) -> String {
        let until = now.plus_ms(access_ms.unwrap_or(0).max(self.options.grace_ms));
        self.site.token(&Token { payment_id, resource, until })
    }
}

/// Why a claim is not taken.
#[derive(Debug)]
pub enum ClaimError {
    /// The credential is for another challenge.
    Other,
    /// It does not prove the payment.
    Short(PaymentProblem, String),
    /// Not now.
    Refused(Refusal),
}

/// Payments that were shown and may still be asked for by their pages: those never drawn from, and of the others what a
/// browser can still hold its random cookie for. What was drawn opens its page again only as long as that lasts: the claim
/// gives a browser the lost cookie, and the balance decides.
pub(super) fn claimed(balances: &Balances) -> HashMap<Reference, Claim> {
    let mut claims = HashMap::new();
    let mut drawn = Vec::new();
    let mut newest = Time::default();
    let mut after = PageEnd::default();
    while claims.len() < MAX_COUNTED {
        let page = balances.list(after, balance::PAGE_MOST);
        let Some(last) = page.last() else { break };
        after = last.page_end();
        for view in page.iter().filter(|view| view.shown.is_some()) {
            let claim = Claim { payment_id: view.payment.payment_id(), paid_at: view.payment.paid_at };
            newest = newest.max(claim.paid_at);
            if view.drawn.is_zero() {
                claims.insert(view.payment.reference, claim);
            } else if claim.paid_at > newest.minus_ms(BROWSER_MS) {
                drawn.push((view.payment.reference, claim));
            }
            if drawn.len() >= 2 * MAX_COUNTED {
                keep_newest(&mut drawn);
            }
        }
    }
    drawn.retain(|(_, claim)| claim.paid_at > newest.minus_ms(BROWSER_MS));
    keep_newest(&mut drawn);
    drawn.truncate(MAX_COUNTED.saturating_sub(claims.len()));
    claims.extend(drawn);
    claims
}

/// Those that were paid last, up to the bound.
fn keep_newest(claims: &mut Vec<(Reference, Claim)>) {
    claims.sort_unstable_by_key(|(_, claim)| std::cmp::Reverse(claim.paid_at));
    claims.truncate(MAX_COUNTED);
}
