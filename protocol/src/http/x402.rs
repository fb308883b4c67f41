//! The same demand and credential in x402, version 2: headers of base64 JSON.
//!
//! `scheme` is `exact`, `network` is `weir:<hub id>`, `asset` is the currency, `amount` counts nanos, and `extra` carries what
//! makes the challenge: the method's `request` is built again from the fields, so that nothing is said twice.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::challenge::{Challenge, ChallengeError, ChargeRequest, Details, Resource};
use super::credential::{Credential, CredentialError, Payload};
use super::{
    INTENT, MAX_ANSWER_BYTES, MAX_CHALLENGE_BYTES, MAX_CREDENTIAL_BYTES, METHOD, SCALE, base64url, canonical,
    from_base64_json, nanos, to_base64_json,
};
use crate::amount::{Amount, Currency, Time};
use crate::id::{AccountId, HubId, PaymentId};

/// The version that is spoken.
pub const VERSION: u32 = 2;
/// The scheme that is offered.
pub const EXACT: &str = "exact";
/// What a network's name begins with.
pub const NETWORK_PREFIX: &str = "weir:";
/// Most bytes of a resource's address in a demand of ours.
pub const MAX_URL_BYTES: usize = 200;

/// `PAYMENT-REQUIRED`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequired {
    /// Always 2.
    pub x402_version: u32,
    /// Why there is a demand although something was shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is asked for.
    pub resource: ResourceInfo,
    /// How it can be paid. Those of other networks are kept as they are.
    pub accepts: Vec<Value>,
    /// Extensions that the issuer speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Value>,
}

/// `resource`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceInfo {
    /// Its address.
    pub url: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
}

impl ResourceInfo {
    /// An address, cut where it would make the header too long: at its query, else after its origin. It is for people and
    /// programs to show; the challenge names the resource by `extra.resource`.
    pub fn at(url: &str) -> Self {
        let query = url.split(['?', '#']).next().unwrap_or_default();
        let origin = url.split_inclusive('/').take(3).collect::<String>();
        let url = [url, query, &origin].into_iter().find(|url| url.len() <= MAX_URL_BYTES).unwrap_or_default();
        Self { url: url.to_owned(), description: None, mime_type: None }
    }
}

/// One of `accepts`, on a hub's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requirements {
    /// `exact`.
    pub scheme: String,
    /// `weir:<hub id>`.
    pub network: String,
    /// Nanos.
    #[serde(with = "nanos")]
    pub amount: Amount,
    /// The currency.
    pub asset: Currency,
    /// The payee.
    pub pay_to: AccountId,
    /// How long the challenge can be paid from its issue, in seconds, rounded down.
    pub max_timeout_seconds: u64,
    /// The rest of the challenge.
    pub extra: Extra,
}

/// `extra`: what the challenge has beyond the fields of x402.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Extra {
    /// The challenge's id.
    pub id: String,
    /// Its realm.
    pub realm: String,
    /// Its expiry.
    pub expires: String,
    /// Its opaque part.
    pub opaque: String,
    /// The header that its other dialect names, which is part of the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it was issued.
    pub issued_at: Time,
    /// The amount is the most.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub metered: bool,
    /// What it opens.
    pub resource: Resource,
    /// Decimal places: always 9.
    pub scale: u32,
}

/// `PAYMENT-SIGNATURE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentPayload {
    /// Always 2.
    pub x402_version: u32,
    /// Echoed by clients; not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Value>,
    /// What was chosen of `accepts`.
    pub accepted: Requirements,
    /// The proof.
    pub payload: Payload,
    /// Of these only `payment-identifier` is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Value>,
}

/// `PAYMENT-RESPONSE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentResponse {
    /// Whether it was taken.
    pub success: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<String>,
    /// The payment's public id; empty without one.
    pub transaction: String,
    /// `weir:<hub id>`.
    pub network: String,
    /// What this answer cost: nanos.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
}

/// The name of a hub's network.
pub fn network(hub: &HubId) -> String {
    format!("{NETWORK_PREFIX}{hub}")
}

impl Requirements {
    /// A challenge of ours in x402's words. [`ChallengeError::Request`] when they would not make the same challenge again: it
    /// has parts or a form that ours have not.
    pub fn of(challenge: &Challenge) -> Result<Self, ChallengeError> {
        let found = Self::of_parts(challenge)?;
        if found.challenge()? == *challenge { Ok(found) } else { Err(ChallengeError::Request) }
    }

    fn of_parts(challenge: &Challenge) -> Result<Self, ChallengeError> {
        let request = challenge.charge()?;
        let missing = || ChallengeError::Request;
        let expires_at = challenge.expires_at()?;
        let issued_at = request.details.issued_at.ok_or_else(missing)?;
        Ok(Self {
            scheme: EXACT.to_owned(),
            network: network(&request.details.hub),
            amount: request.amount,
            asset: request.currency,
            pay_to: request.recipient,
            max_timeout_seconds: (expires_at.0.saturating_sub(issued_at.0) / 1000).max(1),
            extra: Extra {
                id: challenge.id.clone(),
                realm: challenge.realm.clone(),
                expires: challenge.expires.clone().ok_or_else(missing)?,
                opaque: challenge.opaque.clone().ok_or_else(missing)?,
                header: challenge.header.clone(),
                description: request.description,
                issued_at,
                metered: request.details.metered,
                resource: request.details.resource.ok_or_else(missing)?,
                scale: SCALE,
            },
        })
    }

    /// The challenge that it says.
    pub fn challenge(&self) -> Result<Challenge, ChallengeError> {
        let hub = self.network.strip_prefix(NETWORK_PREFIX).and_then(|hub| hub.parse().ok());
        let hub = hub.ok_or(ChallengeError::Foreign)?;
        if self.scheme != EXACT || self.extra.scale != SCALE {
            return Err(ChallengeError::Foreign);
        }
        let request = ChargeRequest {
            amount: self.amount,
            currency: self.asset,
            description: self.extra.description.clone(),
            details: Details {
                hub,
                issued_at: Some(self.extra.issued_at),
                metered: self.extra.metered,
                resource: Some(self.extra.resource),
                scale: SCALE,
            },
            recipient: self.pay_to,
        };
        Ok(Challenge {
            id: self.extra.id.clone(),
            realm: self.extra.realm.clone(),
            method: METHOD.to_owned(),
            intent: INTENT.to_owned(),
            request: base64url(canonical(&request).as_bytes()),
            expires: Some(self.extra.expires.clone()),
            digest: None,
            header: self.extra.header.clone(),
            opaque: Some(self.extra.opaque.clone()),
        })
    }
}

impl PaymentRequired {
    /// A demand with one way to pay. Where it does not fit otherwise, the resource's description is left out: `extra` has it.
    /// [`ChallengeError::TooLong`] when the header would pass [`MAX_CHALLENGE_BYTES`] all the same: an address up to
    /// [`MAX_URL_BYTES`] ([`ResourceInfo::at`]), a media type and a short `error` always fit.
    pub fn new(challenge: &Challenge, resource: ResourceInfo, error: Option<String>) -> Result<Self, ChallengeError> {
        let requirements = serde_json::to_value(Requirements::of(challenge)?).map_err(|_| ChallengeError::Request)?;
        let mut made = Self { x402_version: VERSION, error, resource, accepts: vec![requirements], extensions: None };
        let limit = MAX_CHALLENGE_BYTES;
        if made.to_header().len() > limit {
            made.resource.description = None;
        }
        let length = made.to_header().len();
        if length > limit { Err(ChallengeError::TooLong { length, limit }) } else { Ok(made) }
    }

    /// The first way to pay on a Weir hub that makes a challenge whose credential fits a header.
    pub fn requirements(&self) -> Result<Requirements, ChallengeError> {
        let ours = self.accepts.iter().filter(|entry| {
            entry.get("network").and_then(Value::as_str).is_some_and(|network| network.starts_with(NETWORK_PREFIX))
        });
        let mut last = ChallengeError::Foreign;
        for entry in ours {
            let read = serde_json::from_value(entry.clone()).map_err(|_| ChallengeError::Request);
            let fits = |found: Requirements| found.challenge()?.fits().map(|()| found);
            match read.and_then(fits) {
                Ok(requirements) => return Ok(requirements),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The header's value.
    pub fn to_header(&self) -> String {
        to_base64_json(self)
    }

    /// Reads the header's value.
    pub fn from_header(value: &str) -> Result<Self, ChallengeError> {
        if value.len() > MAX_ANSWER_BYTES {
            return Err(ChallengeError::TooLong { length: value.len(), limit: MAX_ANSWER_BYTES });
        }
        let found: Self = from_base64_json(value, MAX_ANSWER_BYTES).ok_or(ChallengeError::Malformed)?;
        if found.x402_version == VERSION { Ok(found) } else { Err(ChallengeError::Foreign) }
    }
}

impl PaymentPayload {
    /// A credential in x402's words.
    pub fn of(credential: &Credential) -> Result<Self, ChallengeError> {
        let accepted = Requirements::of(&credential.challenge)?;
        let payload = credential.payload.clone();
        Ok(Self { x402_version: VERSION, resource: None, accepted, payload, extensions: None })
    }

    /// The credential that it says.
    pub fn credential(&self) -> Result<Credential, CredentialError> {
        let challenge = self.accepted.challenge().map_err(|_| CredentialError::Malformed)?;
        Ok(Credential { challenge, source: None, payload: self.payload.clone() })
    }

    /// The caller's key of one logical request: extension `payment-identifier`, `info.id` or `id`.
    pub fn identifier(&self) -> Option<&str> {
        let extension = self.extensions.as_ref()?.get("payment-identifier")?;
        let info = extension.get("info").unwrap_or(extension);
        info.get("id").or_else(|| info.get("paymentId")).and_then(Value::as_str)
    }

    /// The header's value.
    pub fn to_header(&self) -> String {
        to_base64_json(self)
    }

    /// Reads the header's value.
    pub fn from_header(value: &str) -> Result<Self, CredentialError> {
        if value.len() > MAX_CREDENTIAL_BYTES {
            return Err(CredentialError::TooLong { length: value.len() });
        }
        let found: Self = from_base64_json(value, MAX_CREDENTIAL_BYTES).ok_or(CredentialError::Malformed)?;
        if found.x402_version == VERSION { Ok(found) } else { Err(CredentialError::Malformed) }
    }
}

impl PaymentResponse {
    /// A payment that was taken, and what this answer cost.
    pub fn taken(hub: &HubId, payment_id: &PaymentId, drawn: Amount) -> Self {
        Self {
            success: true,
            error_reason: None,
            transaction: payment_id.to_string(),
            network: network(hub),
            amount: Some(drawn.nanos().to_string()),
        }
    }

    /// A payment that was not taken.
    pub fn refused(hub: &HubId, reason: &str) -> Self {
        Self {
            success: false,
            error_reason: Some(reason.to_owned()),
            transaction: String::new(),
            network: network(hub),
            amount: None,
        }
    }

    /// The header's value.
    pub fn to_header(&self) -> String {
        to_base64_json(self)
    }

    /// Reads the header's value.
    pub fn from_header(value: &str) -> Option<Self> {
        from_base64_json(value, MAX_ANSWER_BYTES)
    }
}
