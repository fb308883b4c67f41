//! Why a request was not served, for programs: problem details (RFC 9457) of the payment scheme.

use serde::{Deserialize, Serialize};

use super::credential::CredentialError;

/// Where the types of problems are named.
pub const BASE: &str = "https://paymentauth.org/problems/";
/// Its media type.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// The kinds of problems that have a name in the scheme. `as_str` is the end of the type's address and the stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PaymentProblem {
    /// Nothing was shown.
    PaymentRequired,
    /// Too little is left of what was shown.
    PaymentInsufficient,
    /// What was bought is over, or the payment was made too late.
    PaymentExpired,
    /// The receipt does not prove it.
    VerificationFailed,
    /// What was shown cannot be read.
    MalformedCredential,
    /// The challenge is not ours or not for this.
    InvalidChallenge,
}

impl PaymentProblem {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::PaymentRequired,
        Self::PaymentInsufficient,
        Self::PaymentExpired,
        Self::VerificationFailed,
        Self::MalformedCredential,
        Self::InvalidChallenge,
    ];

    /// Its code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PaymentRequired => "payment-required",
            Self::PaymentInsufficient => "payment-insufficient",
            Self::PaymentExpired => "payment-expired",
            Self::VerificationFailed => "verification-failed",
            Self::MalformedCredential => "malformed-credential",
            Self::InvalidChallenge => "invalid-challenge",
        }
    }

    /// For people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::PaymentRequired => "Payment required",
            Self::PaymentInsufficient => "Too little was paid",
            Self::PaymentExpired => "What was paid for is over",
            Self::VerificationFailed => "The payment is not proven",
            Self::MalformedCredential => "The credential cannot be read",
            Self::InvalidChallenge => "The challenge does not belong here",
        }
    }
}

impl From<CredentialError> for PaymentProblem {
    fn from(error: CredentialError) -> Self {
        match error {
            CredentialError::Malformed | CredentialError::TooLong { .. } => Self::MalformedCredential,
            CredentialError::Challenge | CredentialError::Other(_) => Self::InvalidChallenge,
            CredentialError::Insufficient => Self::PaymentInsufficient,
            CredentialError::Time => Self::PaymentExpired,
            CredentialError::Receipt => Self::VerificationFailed,
        }
    }
}

/// The body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// [`BASE`] and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// For people.
    pub title: String,
    /// The answer's status.
    pub status: u16,
    /// What is wrong with this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The challenge's id, when there is one.
    #[serde(rename = "challengeId", default, skip_serializing_if = "Option::is_none")]
    pub challenge_id: Option<String>,
}

impl Problem {
    /// Of a kind, with status 402.
    pub fn new(kind: PaymentProblem, detail: Option<String>) -> Self {
        Self {
            kind: format!("{BASE}{}", kind.as_str()),
            title: kind.title().to_owned(),
            status: 402,
            detail,
            challenge_id: None,
        }
    }
}
