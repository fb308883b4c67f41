//! Weir in HTTP: the payment method `weir` as text in headers (specification §17).
//!
//! One demand is said in three dialects: a challenge of the `Payment` authentication scheme ([`challenge`]), x402 version 2
//! ([`x402`]) and `crawler-price` ([`crawler`]). What the payer shows comes back in the first two and is one thing here: a
//! [`Credential`]. Owns text and its limits. Must not do HTTP, read a clock or keep anything.

mod auth;
pub mod challenge;
pub mod crawler;
pub mod credential;
pub mod problem;
#[cfg(test)]
mod tests;
pub mod x402;

pub use challenge::{Challenge, ChallengeError, ChargeRequest, Resource, Secret};
pub use credential::{Credential, CredentialError, Expected, Payload, PaymentReceipt, Proven};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Serialize;

use crate::amount::Amount;

/// The payment method's name.
pub const METHOD: &str = "weir";
/// The intent that is spoken: pay once, before the answer.
pub const INTENT: &str = "charge";
/// The authentication scheme.
pub const SCHEME: &str = "Payment";
/// Decimal places of an amount in HTTP: it counts nanos, not cents.
pub const SCALE: u32 = crate::amount::NANO_DIGITS;
/// Most bytes of a credential in either dialect, as the value of its header: what fits a header line of 4 KiB.
pub const MAX_CREDENTIAL_BYTES: usize = 4096;
/// Most bytes of a challenge, as the value of its header.
pub const MAX_CHALLENGE_BYTES: usize = 2048;
/// Most bytes of a header's value that is read from an answer: demands of others may stand beside ours.
pub const MAX_ANSWER_BYTES: usize = 4 * MAX_CHALLENGE_BYTES;

/// Names of headers that carry payments, in lower case.
pub mod header {
    /// The demand, in the scheme `Payment`.
    pub const WWW_AUTHENTICATE: &str = "www-authenticate";
    /// The credential, in the scheme `Payment`.
    pub const AUTHORIZATION: &str = "authorization";
    /// The same, where `authorization` is taken.
    pub const PAYMENT_AUTHORIZATION: &str = "payment-authorization";
    /// What was taken.
    pub const PAYMENT_RECEIPT: &str = "payment-receipt";
    /// Which methods a client speaks.
    pub const ACCEPT_PAYMENT: &str = "accept-payment";
    /// The demand, in x402.
    pub const PAYMENT_REQUIRED: &str = "payment-required";
    /// The credential, in x402.
    pub const PAYMENT_SIGNATURE: &str = "payment-signature";
    /// What was taken, in x402.
    pub const PAYMENT_RESPONSE: &str = "payment-response";
    /// The price, for crawlers.
    pub const CRAWLER_PRICE: &str = "crawler-price";
    /// The price that a crawler pays, exactly.
    pub const CRAWLER_EXACT_PRICE: &str = "crawler-exact-price";
    /// The most that a crawler pays.
    pub const CRAWLER_MAX_PRICE: &str = "crawler-max-price";
    /// What a crawler was charged.
    pub const CRAWLER_CHARGED: &str = "crawler-charged";
    /// Why a crawler was not served.
    pub const CRAWLER_ERROR: &str = "crawler-error";
    /// Who paid what, from the gate to the upstream.
    pub const PAYMENT_CONTEXT: &str = "payment-context";
    /// The caller's key of one logical request.
    pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
}

/// Base64url without padding (RFC 4648 §5).
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads base64url without padding; a trailing `=` or two is forgiven, since other clients write them. Bits beyond the last
/// byte must be zero.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    let plain = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    URL_SAFE_NO_PAD.decode(plain).ok()
}

/// JSON in canonical form (RFC 8785), for values whose fields are declared in the order of their names, in ASCII, and whose
/// numbers are whole and below 2^53: those of this module. Strings are written as that RFC wants them.
fn canonical(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Standard base64 of JSON: how x402 fills its headers.
fn to_base64_json(value: &impl Serialize) -> String {
    STANDARD.encode(serde_json::to_vec(value).unwrap_or_default())
}

/// The other way round, up to a length; either alphabet is read.
fn from_base64_json<T: serde::de::DeserializeOwned>(text: &str, most: usize) -> Option<T> {
    if text.len() > most {
        return None;
    }
    let plain = text.replace('+', "-").replace('/', "_");
    serde_json::from_slice(&from_base64url(&plain)?).ok()
}

/// An amount as a decimal string of nanos, for serde's `with`.
mod nanos {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{Amount, whole};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
    pub(super) fn serialize<S: Serializer>(amount: &Amount, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&amount.nanos())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Amount, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        whole(&text).ok_or_else(|| serde::de::Error::custom("an amount is a whole number of nanos, as a string"))
    }
}

/// Digits only, without leading zeros.
fn whole(text: &str) -> Option<Amount> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok().map(Amount::from_nanos) } else { None }
}
