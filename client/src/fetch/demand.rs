//! Reading a demand: which challenge of a 402 is ours to pay.
//!
//! Only headers count. A demand comes as `WWW-Authenticate: Payment` or as `PAYMENT-REQUIRED`, or as both with one id.
//! Must not pay; what may be spent is the budget's.

use http::HeaderMap;
use http::header::HeaderName;
use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::http::challenge::ChargeRequest;
use weir_protocol::http::problem::{BASE, PaymentProblem, Problem};
use weir_protocol::http::x402::PaymentRequired;
use weir_protocol::http::{Challenge, ChallengeError, INTENT, METHOD, header};
use weir_protocol::id::{AccountId, HubId};

use super::wallet::{Asked, Dialects};

/// Most challenges of one answer that are looked at.
pub const MAX_CHALLENGES: usize = 16;
/// Time that must be left to pay in and to come back.
pub const EXPIRY_MARGIN_MS: u64 = 2_000;

/// Why a demand is not one that this payer can meet. Nothing was paid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DemandError {
    /// There is no challenge of method `weir`, or none that can be read.
    #[error("the server asks for a payment, and not by method `weir`: {0}")]
    Foreign(ChallengeError),
    /// No demand at all.
    #[error("the answer is a 402 without a demand that can be read")]
    None,
    /// The receipts of another hub are asked for.
    #[error("the server wants a receipt of the hub {asked}, and this home is at {ours}")]
    Hub {
        /// Theirs.
        asked: HubId,
        /// Ours.
        ours: HubId,
    },
    /// A payee that is not on the list of those that may be paid.
    #[error("the payee {0} is not among those that may be paid here")]
    Payee(AccountId),
    /// The challenge is over, or nearly.
    #[error("the challenge expired, or does so within {EXPIRY_MARGIN_MS} ms: is this machine's clock right?")]
    Expired,
    /// Nothing is asked for.
    #[error("the amount that is asked for is zero")]
    Zero,
    /// The credential is wanted in a header that does not carry credentials.
    #[error("the challenge names `{0}` as the header for the credential")]
    Header(String),
}

/// A demand that can be met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// The challenge, as it came.
    pub challenge: Challenge,
    /// What it asks for.
    pub request: ChargeRequest,
    /// Until when it can be paid.
    pub expires_at: Time,
    /// How it was said.
    pub dialects: Dialects,
}

/// What must hold for a demand to be ours.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The only payees that may be paid; empty: any.
    pub payees: Vec<AccountId>,
}

impl Demand {
    /// The first demand of an answer's headers that this payer can meet; the reason for the first that it cannot.
    pub fn of(headers: &HeaderMap, hub: HubId, rules: &Rules, now: Time) -> Result<Self, DemandError> {
        let mut reason = None;
        let (found, unread) = Self::all(headers);
        for (challenge, dialects) in found {
            match Self::single(challenge, dialects, hub, rules, now) {
                Ok(demand) => return Ok(demand),
                Err(error) => {
                    reason.get_or_insert(error);
                }
            }
        }
        Err(reason.or(unread.map(DemandError::Foreign)).unwrap_or(DemandError::None))
    }

    /// Every challenge of method `weir` with the dialects that say it; why something was not read.
    fn all(headers: &HeaderMap) -> (Vec<(Challenge, Dialects)>, Option<ChallengeError>) {
        let mut found: Vec<(Challenge, Dialects)> = Vec::new();
        let mut unread = None;
        for value in headers.get_all(header::WWW_AUTHENTICATE).iter().take(MAX_CHALLENGES) {
            match value.to_str().map_err(|_| ChallengeError::Malformed).and_then(Challenge::all_from_header) {
                Ok(challenges) => {
                    for challenge in challenges.into_iter().take(MAX_CHALLENGES) {
                        if challenge.method == METHOD && challenge.intent == INTENT {
                            found.push((challenge, Dialects { payment: true, x402: false }));
                        } else {
                            unread.get_or_insert(ChallengeError::Foreign);
                        }
                    }
                }
                // Another scheme that our grammar does not know is nobody's fault.
                Err(error) => {
                    unread.get_or_insert(error);
                }
            }
        }
        if let Some(value) = headers.get(header::PAYMENT_REQUIRED) {
            let read = value.to_str().map_err(|_| ChallengeError::Malformed).and_then(PaymentRequired::from_header);
            match read.and_then(|required| required.requirements()).and_then(|wanted| wanted.challenge()) {
                Ok(challenge) => match found.iter_mut().find(|(known, _)| *known == challenge) {
                    Some((_, dialects)) => dialects.x402 = true,
                    None => found.push((challenge, Dialects { payment: false, x402: true })),
                },
                Err(error) => {
                    unread.get_or_insert(error);
                }
            }
        }
        (found, unread)
    }

    /// A demand of one challenge, as `weir pay --challenge` has it.
    pub fn single(
        challenge: Challenge,
        dialects: Dialects,
        hub: HubId,
        rules: &Rules,
        now: Time,
    ) -> Result<Self, DemandError> {
        let request = challenge.charge().map_err(DemandError::Foreign)?;
        let expires_at = challenge.expires_at().map_err(DemandError::Foreign)?;
        if request.details.hub != hub {
            return Err(DemandError::Hub { asked: request.details.hub, ours: hub });
        }
        if request.amount.is_zero() {
            return Err(DemandError::Zero);
        }
        if !rules.payees.is_empty() && !rules.payees.contains(&request.recipient) {
            return Err(DemandError::Payee(request.recipient));
        }
        if expires_at <= now.plus_ms(EXPIRY_MARGIN_MS) {
            return Err(DemandError::Expired);
        }
        if dialects.payment {
            credential_header(&challenge)?;
        }
        Ok(Self { challenge, request, expires_at, dialects })
    }

    /// As the wallet compares it.
    pub fn asked(&self) -> Asked<'_> {
        Asked {
            price: self.request.amount,
            currency: self.request.currency,
            payee: self.request.recipient,
            hub: self.request.details.hub,
            realm: &self.challenge.realm,
        }
    }

    /// The price.
    pub const fn price(&self) -> Amount {
        self.request.amount
    }

    /// Its currency.
    pub const fn currency(&self) -> Currency {
        self.request.currency
    }
}

/// The header that a challenge wants its credential in. A server cannot choose any other.
pub fn credential_header(challenge: &Challenge) -> Result<HeaderName, DemandError> {
    match challenge.header.as_deref() {
        None => Ok(http::header::AUTHORIZATION),
        Some(name) if name.eq_ignore_ascii_case(header::AUTHORIZATION) => Ok(http::header::AUTHORIZATION),
        Some(name) if name.eq_ignore_ascii_case(header::PAYMENT_AUTHORIZATION) => {
            Ok(HeaderName::from_static(header::PAYMENT_AUTHORIZATION))
        }
        Some(name) => Err(DemandError::Header(name.chars().take(64).collect())),
    }
}

/// Which problem an answer names: in its body, or in x402's `error`. None: it does not say.
pub fn problem(headers: &HeaderMap, body: &[u8]) -> Option<PaymentProblem> {
    let by_code = |code: &str| PaymentProblem::ALL.into_iter().find(|problem| problem.as_str() == code);
    let told: Option<Problem> = serde_json::from_slice(body).ok();
    if let Some(found) = told.and_then(|told| told.kind.strip_prefix(BASE).and_then(by_code)) {
        return Some(found);
    }
    let required = PaymentRequired::from_header(headers.get(header::PAYMENT_REQUIRED)?.to_str().ok()?).ok()?;
    let error = required.error?;
    PaymentProblem::ALL.into_iter().find(|problem| error.contains(problem.as_str()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;
    use weir_protocol::http::challenge::{Details, Resource, Secret};
    use weir_protocol::http::x402::ResourceInfo;
    use weir_protocol::keys::PublicKey;

    const NOW: Time = Time(1_800_000_000_000);

    fn hub(byte: u8) -> HubId {
        HubId(PublicKey([byte; 32]))
    }

    fn challenge(hub: HubId, amount: u64, expires: Time, header: Option<&str>) -> Challenge {
        let request = ChargeRequest {
            amount: Amount::from_nanos(amount),
            currency: Currency::EUR,
            description: None,
            details: Details {
                hub,
                issued_at: Some(NOW),
                metered: false,
                resource: Some(Resource::of("GET", "/a")),
                scale: 9,
            },
            recipient: AccountId(PublicKey([9; 32])),
        };
        Challenge::issue(&Secret::from([1; 32]), "news", &request, expires, [amount as u8; 16], header).unwrap()
    }

    fn headers(challenges: &[Challenge], x402: Option<&Challenge>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for challenge in challenges {
            headers.append("www-authenticate", challenge.to_header().parse().unwrap());
        }
        if let Some(challenge) = x402 {
            let resource = ResourceInfo { url: "/a".to_owned(), description: None, mime_type: None };
            let required = PaymentRequired::new(challenge, resource, Some("payment-insufficient".to_owned())).unwrap();
            headers.insert("payment-required", required.to_header().parse().unwrap());
        }
        headers
    }

    fn of(headers: &HeaderMap) -> Result<Demand, DemandError> {
        Demand::of(headers, hub(1), &Rules::default(), NOW)
    }

    #[test]
    fn first_demand_that_can_be_met_is_taken_and_both_dialects_of_one_are_known() {
        let later = NOW.plus_ms(60_000);
        let (foreign, ours, second) =
            (challenge(hub(2), 1, later, None), challenge(hub(1), 2, later, None), challenge(hub(1), 3, later, None));
        let demand = of(&headers(&[foreign.clone(), ours.clone(), second], Some(&ours))).unwrap();
        assert_eq!(demand.challenge, ours);
        assert_eq!(demand.dialects, Dialects { payment: true, x402: true });
        let demand = of(&headers(&[], Some(&ours))).unwrap();
        assert_eq!(demand.dialects, Dialects { payment: false, x402: true });
        assert!(matches!(of(&headers(&[foreign], None)), Err(DemandError::Hub { .. })));
        assert_eq!(of(&HeaderMap::new()), Err(DemandError::None));
        let mut basic = headers(&[], None);
        basic.insert("www-authenticate", HeaderValue::from_static("Basic realm=\"x\""));
        assert_eq!(of(&basic), Err(DemandError::None));
        basic.append("www-authenticate", ours.to_header().parse().unwrap());
        assert_eq!(of(&basic).unwrap().challenge, ours);
        assert_eq!(problem(&headers(&[], Some(&ours)), b""), Some(PaymentProblem::PaymentInsufficient));
        let body = serde_json::to_vec(&Problem::new(PaymentProblem::PaymentExpired, None)).unwrap();
        assert_eq!(problem(&HeaderMap::new(), &body), Some(PaymentProblem::PaymentExpired));
        assert_eq!(problem(&HeaderMap::new(), b"{}"), None);
    }

    #[test]
    fn demand_that_is_over_or_odd_is_refused_on_the_right_side_of_each_bound() {
        let margin = NOW.plus_ms(EXPIRY_MARGIN_MS);
        assert_eq!(of(&headers(&[challenge(hub(1), 1, margin, None)], None)), Err(DemandError::Expired));
        assert!(of(&headers(&[challenge(hub(1), 1, margin.plus_ms(1), None)], None)).is_ok());
        let later = NOW.plus_ms(60_000);
        // Nobody can issue one that asks for nothing, or in another header; a stranger can write one.
        let good = challenge(hub(1), 1, later, None);
        let text = String::from_utf8(weir_protocol::http::from_base64url(&good.request).unwrap()).unwrap();
        let nothing = text.replace("\"amount\":\"1\"", "\"amount\":\"0\"");
        assert_ne!(text, nothing);
        let nothing = Challenge { request: weir_protocol::http::base64url(nothing.as_bytes()), ..good.clone() };
        assert!(of(&headers(&[nothing], None)).is_err());
        let host = Challenge { header: Some("Host".to_owned()), ..good };
        assert_eq!(credential_header(&host), Err(DemandError::Header("Host".to_owned())));
        assert!(of(&headers(&[host], None)).is_err());
        assert!(of(&headers(&[challenge(hub(1), 1, later, Some("Payment-Authorization"))], None)).is_ok());
        let rules = Rules { payees: vec![AccountId(PublicKey([3; 32]))] };
        let demand = headers(&[challenge(hub(1), 1, later, None)], None);
        assert!(matches!(Demand::of(&demand, hub(1), &rules, NOW), Err(DemandError::Payee(_))));
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(text in "[ -~]{0,300}", prefix in 0_usize..3) {
            let text = [String::new(), "Payment ".to_owned(), "Payment id=\"a\", ".to_owned()][prefix].clone() + &text;
            let mut headers = HeaderMap::new();
            headers.insert("www-authenticate", text.parse().unwrap());
            headers.insert("payment-required", text.parse().unwrap());
            prop_assert!(of(&headers).is_err());
            let _ = problem(&headers, text.as_bytes());
        }
    }
}
