//! What the payer shows: the challenge and the hub's receipt for its payment; and what the gate answers with.

use serde::{Deserialize, Serialize};

use super::challenge::{Challenge, ChallengeError, Resource, Secret, rfc3339};
use super::{MAX_ANSWER_BYTES, MAX_CREDENTIAL_BYTES, METHOD, SCHEME, base64url, from_base64url, nanos};
use crate::amount::{Amount, Currency, Time};
use crate::commit::SignedCertificate;
use crate::id::{AccountId, HubId, PaymentId, Reference};
use crate::payment::Payment;
use crate::receipt::{Receipt, ReceiptClaim, ReceiptFile};
use crate::wire;

/// Why a credential does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Not base64url, not JSON, not its shape.
    #[error("not a credential of method `weir`")]
    Malformed,
    /// Longer than [`MAX_CREDENTIAL_BYTES`].
    #[error("a credential of {length} bytes is above the limit of {limit}", limit = MAX_CREDENTIAL_BYTES)]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// The challenge is of somebody else, or was changed.
    #[error("the challenge was not issued here")]
    Challenge,
    /// The challenge is for another realm, payee, hub or currency than is served now.
    #[error("the challenge is for another `{0}`")]
    Other(&'static str),
    /// Less was paid than the challenge asks for.
    #[error("the payment is smaller than the challenge asks for")]
    Insufficient,
    /// The payment was made after the challenge expired, or before it was issued.
    #[error("the payment was made outside the challenge's time")]
    Time,
    /// Hub, certificate, signature, path, payee, amount or reference do not fit.
    #[error("the receipt does not prove the payment")]
    Receipt,
}

/// `payload` of method `weir`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// What was paid: nanos, as a string of digits.
    #[serde(with = "nanos")]
    pub amount: Amount,
    /// The hub's certificate for the key that signed the receipt: its encoding (specification §5) in base64url.
    pub certificate: String,
    /// The receipt: its encoding in base64url.
    pub receipt: String,
}

// Whoever has a receipt and its challenge can show them: they do not go into logs.
impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Payload").field("amount", &self.amount).finish_non_exhaustive()
    }
}

impl Payload {
    /// From a receipt as `weir` keeps it.
    pub fn new(file: &ReceiptFile) -> Self {
        Self { amount: file.amount, certificate: encoded(&file.certificate), receipt: encoded(&file.receipt) }
    }
}

fn encoded(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    wire::encode_into(value, &mut bytes);
    base64url(&bytes)
}

/// A credential: `Authorization: Payment <base64url of its JSON>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// The challenge, as it came.
    pub challenge: Challenge,
    /// Who pays; method `weir` needs none and looks at none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The proof.
    pub payload: Payload,
}

/// What the one who issued the challenge serves.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The realm.
    pub realm: &'a str,
    /// The hub.
    pub hub: HubId,
    /// The payee.
    pub payee: AccountId,
    /// The currency.
    pub currency: Currency,
}

/// A payment that a credential proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proven {
    /// Its public id.
    pub payment_id: PaymentId,
    /// What was paid.
    pub amount: Amount,
    /// Of which currency.
    pub currency: Currency,
    /// Derived from the challenge's id.
    pub reference: Reference,
    /// What the challenge asked for.
    pub asked: Amount,
    /// What the challenge was for.
    pub resource: Resource,
    /// The time of the commit that holds it.
    pub paid_at: Time,
    /// The commit's chain and number, the group's index in it and the payment's in the group: where a refund names it.
    pub place: Place,
}

/// Where a payment is among the hub's commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The commit's chain.
    pub chain: u64,
    /// The commit's number.
    pub commit: u64,
    /// The group's index among the commit's items.
    pub group: u32,
    /// The payment's index in the group.
    pub leaf: u32,
}

impl Credential {
    /// The answer to a challenge.
    pub fn new(challenge: Challenge, file: &ReceiptFile) -> Self {
        Self { challenge, source: None, payload: Payload::new(file) }
    }

    /// As the value of `Authorization`, or of the header that the challenge names.
    pub fn to_header(&self) -> String {
        format!("{SCHEME} {}", base64url(&serde_json::to_vec(self).unwrap_or_default()))
    }

    /// Reads the value of `Authorization`. None when it is of another scheme.
    pub fn from_header(value: &str) -> Option<Result<Self, CredentialError>> {
        let value = value.trim();
        let (scheme, token) = value.split_once([' ', '\t']).unwrap_or((value, ""));
        scheme.eq_ignore_ascii_case(SCHEME).then(|| Self::from_token(token.trim()))
    }

    /// Reads what follows the scheme and one space.
    pub fn from_token(token: &str) -> Result<Self, CredentialError> {
        let length = token.len().saturating_add(SCHEME.len() + 1);
        if length > MAX_CREDENTIAL_BYTES {
            return Err(CredentialError::TooLong { length });
        }
        let bytes = from_base64url(token).ok_or(CredentialError::Malformed)?;
        serde_json::from_slice(&bytes).map_err(|_| CredentialError::Malformed)
    }

    /// Checks the challenge (issued here, for this realm, payee, hub and currency), then the receipt against it. `trusts`
    /// says whether the hub's identity signed the certificate and it is the right one for a commit of that time; it is asked
    /// before the receipt's signature is checked.
    ///
    /// It does not look at what the challenge was for, nor at how much is drawn already: that is the balance's.
    pub fn prove(
        &self,
        secret: &Secret,
        expected: &Expected<'_>,
        trusts: impl FnOnce(&SignedCertificate, Time) -> bool,
    ) -> Result<Proven, CredentialError> {
        let malformed = |_: ChallengeError| CredentialError::Malformed;
        if !self.challenge.is_issued_with(secret) {
            return Err(CredentialError::Challenge);
        }
        // What no challenge of ours has, or lacks: the secret is shared with an issuer that checks other things.
        if self.challenge.digest.is_some() || self.challenge.expires.is_none() {
            return Err(CredentialError::Challenge);
        }
        let request = self.challenge.charge().map_err(malformed)?;
        let same = [
            (self.challenge.realm == expected.realm, "realm"),
            (request.details.hub == expected.hub, "hub"),
            (request.recipient == expected.payee, "payee"),
            (request.currency == expected.currency, "currency"),
        ];
        if let Some((_, name)) = same.into_iter().find(|(same, _)| !same) {
            return Err(CredentialError::Other(name));
        }
        if self.payload.amount < request.amount {
            return Err(CredentialError::Insufficient);
        }
        let (Some(issued_at), Some(resource)) = (request.details.issued_at, request.details.resource) else {
            return Err(CredentialError::Challenge);
        };
        let receipt: Receipt = decoded(&self.payload.receipt).ok_or(CredentialError::Malformed)?;
        let certificate: SignedCertificate = decoded(&self.payload.certificate).ok_or(CredentialError::Malformed)?;
        if receipt.time < issued_at || receipt.time >= self.challenge.expires_at().map_err(malformed)? {
            return Err(CredentialError::Time);
        }
        let reference = self.challenge.reference();
        let payment = Payment { payee: expected.payee, amount: self.payload.amount, reference };
        let claim = ReceiptClaim { hub: expected.hub, currency: expected.currency, payment };
        if !trusts(&certificate, receipt.time) {
            return Err(CredentialError::Receipt);
        }
        receipt.check_certified(&claim, &certificate).map_err(|_| CredentialError::Receipt)?;
        Ok(Proven {
            payment_id: receipt.payment_id,
            amount: self.payload.amount,
            currency: expected.currency,
            reference,
            asked: request.amount,
            resource,
            paid_at: receipt.time,
            place: Place {
                chain: receipt.chain,
                commit: receipt.number,
                group: receipt.group_path.index,
                leaf: receipt.leaf_path.index,
            },
        })
    }

    /// The receipt as a file that `weir verify` reads; none when the parts do not decode. Proves nothing by itself.
    pub fn receipt_file(&self) -> Option<ReceiptFile> {
        let request = self.challenge.charge().ok()?;
        Some(ReceiptFile {
            format: ReceiptFile::FORMAT.to_owned(),
            hub: request.details.hub,
            payee: request.recipient,
            amount: self.payload.amount,
            currency: request.currency,
            reference: self.challenge.reference(),
            certificate: decoded(&self.payload.certificate)?,
            receipt: decoded(&self.payload.receipt)?,
        })
    }
}

fn decoded<T: Serialize + serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    wire::decode(&from_base64url(text)?).ok()
}

/// `Payment-Receipt`: what was taken for this answer, base64url of JSON. Only on answers that were paid for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentReceipt {
    /// Always `success`.
    pub status: String,
    /// Always `weir`.
    pub method: String,
    /// When, RFC 3339.
    pub timestamp: String,
    /// The payment's public id.
    pub reference: PaymentId,
    /// The challenge's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge_id: Option<String>,
    /// The payment: nanos.
    #[serde(with = "nanos")]
    pub amount: Amount,
    /// Of which currency.
    pub currency: Currency,
    /// What this answer cost, or can cost at most where it is metered and still running: nanos.
    #[serde(with = "nanos")]
    pub drawn: Amount,
    /// What is left at the gate after that: nanos.
    #[serde(with = "nanos")]
    pub left: Amount,
    /// `drawn` is the most: the answer is metered, and its trailer says what it came to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub metered: bool,
}

impl PaymentReceipt {
    /// Of a payment at a time, with nothing drawn.
    pub fn new(proven_id: PaymentId, amount: Amount, currency: Currency, now: Time) -> Self {
        Self {
            status: "success".to_owned(),
            method: METHOD.to_owned(),
            timestamp: rfc3339(now),
            reference: proven_id,
            challenge_id: None,
            amount,
            currency,
            drawn: Amount::ZERO,
            left: amount,
            metered: false,
        }
    }

    /// The header's value.
    pub fn to_header(&self) -> String {
        base64url(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads the header's value.
    pub fn from_header(value: &str) -> Option<Self> {
        if value.len() > MAX_ANSWER_BYTES {
            return None;
        }
        serde_json::from_slice(&from_base64url(value)?).ok()
    }
}
