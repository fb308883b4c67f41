//! The demand: a challenge of the `Payment` authentication scheme (draft-ryan-httpauth-payment) with method `weir`.
//!
//! ```text
//! WWW-Authenticate: Payment id="…", realm="…", method="weir", intent="charge", request="…", expires="…", opaque="…"
//! ```
//!
//! The issuer keeps nothing: the id is a MAC over everything else, so that what comes back is known to be its own.

use std::time::{Duration, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{
    INTENT, MAX_ANSWER_BYTES, MAX_CREDENTIAL_BYTES, METHOD, SCALE, SCHEME, auth, base64url, canonical, from_base64url,
    header, nanos,
};
use crate::amount::{Amount, Currency, Time};
use crate::hash::tag;
use crate::id::{AccountId, HubId, Reference};

/// Most bytes of a realm.
pub const MAX_REALM_BYTES: usize = 128;
/// Most bytes of a description.
pub const MAX_DESCRIPTION_BYTES: usize = 120;
/// Most bytes of the name of a header for the credential.
pub const MAX_HEADER_NAME_BYTES: usize = 32;
/// Random bytes in a challenge: no two are alike.
pub const NONCE_BYTES: usize = 16;

/// Why something is not a challenge that we can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// Not the scheme's grammar, or a parameter is missing or doubled.
    #[error("not a challenge of the scheme `Payment`")]
    Malformed,
    /// The header is longer than we write or read.
    #[error("a challenge of {length} bytes is above the limit of {limit}")]
    TooLong {
        /// Its length.
        length: usize,
        /// [`MAX_CHALLENGE_BYTES`](super::MAX_CHALLENGE_BYTES) or [`MAX_ANSWER_BYTES`].
        limit: usize,
    },
    /// Its credential could be longer than [`MAX_CREDENTIAL_BYTES`]: what is paid might not be shown.
    #[error("its credential could take {length} bytes, above the limit of {limit}", limit = MAX_CREDENTIAL_BYTES)]
    Unshowable {
        /// What the credential takes at most.
        length: usize,
    },
    /// Another method or intent.
    #[error("a challenge for another payment method than `weir` with intent `charge`")]
    Foreign,
    /// `request` is not what method `weir` asks with.
    #[error("the challenge's `request` is not one of method `weir`")]
    Request,
    /// A text that does not fit or does not go into a header.
    #[error("`{0}` is too long, or has characters that a header cannot carry")]
    Text(&'static str),
}

/// What a challenge's MAC is made with: 32 secret bytes of its issuer.
#[derive(Clone)]
pub struct Secret(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl From<[u8; 32]> for Secret {
    fn from(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl Secret {
    /// HMAC-SHA256 (RFC 2104) of a text. A challenge's text begins with its realm, in which no control character can be: every
    /// other use puts a word of its own and a zero byte in front.
    pub fn mac(&self, text: &[u8]) -> [u8; 32] {
        self.hmac(text).finalize().into_bytes().into()
    }

    /// Whether it is, in constant time. At least 16 bytes of it must be given.
    #[must_use]
    pub fn is_mac(&self, text: &[u8], mac: &[u8]) -> bool {
        mac.len() >= 16 && self.hmac(text).verify_truncated_left(mac).is_ok()
    }

    fn hmac(&self, text: &[u8]) -> Hmac<Sha256> {
        // A key is filled up with zeros to a block (RFC 2104 §2).
        let mut block = Zeroizing::new([0; 64]);
        block.iter_mut().zip(self.0.iter()).for_each(|(to, from)| *to = *from);
        let mut hmac = Hmac::<Sha256>::new((&*block).into());
        hmac.update(text);
        hmac
    }
}

/// What a challenge is for: the first 16 bytes of `H("weir/resource", method ‖ one space ‖ path and query)`, in base64url.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource(pub [u8; 16]);

impl Resource {
    /// Of a request's method and target, as the issuer normalises them.
    pub fn of(method: &str, target: &str) -> Self {
        let hash = tag::RESOURCE.hash(format!("{method} {target}").as_bytes());
        let mut short = [0; 16];
        short.iter_mut().zip(hash.0).for_each(|(to, from)| *to = from);
        Self(short)
    }
}

impl Serialize for Resource {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&base64url(&self.0))
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return <[u8; 16]>::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        let bytes = from_base64url(&text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("a resource is 16 bytes in base64url"))
    }
}

/// What is asked for: the content of `request`, JSON with sorted keys in base64url.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChargeRequest {
    /// How much must be there: nanos, as a string of digits. With more, the rest stays at the gate as a balance.
    #[serde(with = "nanos")]
    pub amount: Amount,
    /// Of which currency.
    pub currency: Currency,
    /// For people: what is bought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What the method adds.
    #[serde(rename = "methodDetails")]
    pub details: Details,
    /// Who is paid.
    pub recipient: AccountId,
}

/// `methodDetails` of method `weir`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// The hub whose receipts count.
    pub hub: HubId,
    /// When it was issued: a receipt of an earlier commit does not count. Absent at issuers that do not look.
    #[serde(rename = "issuedAt", default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<Time>,
    /// The amount is the most that the request can cost: what is not used stays as a balance.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub metered: bool,
    /// What it opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Resource>,
    /// Decimal places of `amount`: always 9.
    pub scale: u32,
}

/// A challenge: its texts as they stand in the header, unchanged, since the MAC is over them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// The MAC over the rest, in base64url. A payment's reference is derived from it.
    pub id: String,
    /// Whose protection space it is.
    pub realm: String,
    /// The payment method.
    pub method: String,
    /// The intent.
    pub intent: String,
    /// [`ChargeRequest`] in base64url.
    pub request: String,
    /// Until when it can be paid, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Of the request's body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The header for the credential, when it is not `Authorization`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The issuer's own: here 16 random bytes in base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opaque: Option<String>,
}

impl Challenge {
    /// A new challenge. `nonce` is random; `header` names another one than `Authorization` for the credential:
    /// `…-authorization`.
    ///
    /// The request must be one that can be paid and shown ([`ChallengeError::Request`]): an amount above zero, a resource, a
    /// time of issue before `expires`, and the scale 9. Realm and description have limits ([`ChallengeError::Text`]) which keep
    /// the header below 2 KiB and every credential below 4 KiB.
    pub fn issue(
        secret: &Secret,
        realm: &str,
        request: &ChargeRequest,
        expires: Time,
        nonce: [u8; NONCE_BYTES],
        header: Option<&str>,
    ) -> Result<Self, ChallengeError> {
        let printable = |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'|');
        if realm.is_empty() || realm.len() > MAX_REALM_BYTES || !printable(realm) {
            return Err(ChallengeError::Text("realm"));
        }
        // It is one line for people's eyes. Control characters would also take six bytes each.
        let one_line = |text: &String| text.len() <= MAX_DESCRIPTION_BYTES && !text.chars().any(char::is_control);
        if !request.description.iter().all(one_line) {
            return Err(ChallengeError::Text("description"));
        }
        let header = header.filter(|name| !name.eq_ignore_ascii_case(header::AUTHORIZATION));
        if header.is_some_and(|name| !carries_credentials(name)) {
            return Err(ChallengeError::Text("header"));
        }
        let in_time = request.details.issued_at.is_some_and(|at| at.0 < expires.0.min(LAST_MS));
        let whole = request.details.resource.is_some() && request.details.scale == SCALE && !request.amount.is_zero();
        if !in_time || !whole {
            return Err(ChallengeError::Request);
        }
        let request = canonical(request);
        let mut challenge = Self {
            id: String::new(),
            realm: realm.to_owned(),
            method: METHOD.to_owned(),
            intent: INTENT.to_owned(),
            request: base64url(request.as_bytes()),
            expires: Some(rfc3339(expires)),
            digest: None,
            header: header.map(str::to_owned),
            opaque: Some(base64url(&nonce)),
        };
        challenge.id = base64url(&secret.mac(challenge.bound().as_bytes()));
        Ok(challenge)
    }

    /// What the id is the MAC of: the seven slots of the draft, an eighth before the last where a header is named.
    fn bound(&self) -> String {
        let text = |field: &'_ Option<String>| field.as_deref().unwrap_or_default().to_owned();
        let mut slots = [&self.realm, &self.method, &self.intent, &self.request].map(String::as_str).join("|");
        for slot in [text(&self.expires), text(&self.digest)].iter().chain(&self.header).chain([&text(&self.opaque)]) {
            slots.push('|');
            slots.push_str(slot);
        }
        slots
    }

    /// Whether it was issued with this secret and nothing in it was changed.
    #[must_use]
    pub fn is_issued_with(&self, secret: &Secret) -> bool {
        // Two ways to split the slots would be two challenges with one id.
        let split = [&self.realm, &self.method, &self.intent, &self.request].into_iter();
        let optional = [&self.expires, &self.digest, &self.header, &self.opaque].into_iter().flatten();
        let whole = !split.chain(optional).any(|text| text.contains('|'));
        // The id's text is what references are derived from: only its one canonical form counts.
        let mac = from_base64url(&self.id).filter(|mac| mac.len() == 32 && base64url(mac) == self.id);
        whole && mac.is_some_and(|mac| secret.is_mac(self.bound().as_bytes(), &mac))
    }

    /// What it asks for.
    pub fn charge(&self) -> Result<ChargeRequest, ChallengeError> {
        if self.method != METHOD || self.intent != INTENT {
            return Err(ChallengeError::Foreign);
        }
        let bytes = from_base64url(&self.request).ok_or(ChallengeError::Request)?;
        let request: ChargeRequest = serde_json::from_slice(&bytes).map_err(|_| ChallengeError::Request)?;
        if request.details.scale == SCALE { Ok(request) } else { Err(ChallengeError::Request) }
    }

    /// Until when it can be paid; without a bound: for ever.
    pub fn expires_at(&self) -> Result<Time, ChallengeError> {
        self.expires.as_deref().map_or(Ok(Time::MAX), |text| from_rfc3339(text).ok_or(ChallengeError::Malformed))
    }

    /// The reference of the payment that answers it: `H("weir/reference", the id's ASCII bytes)`.
    pub fn reference(&self) -> Reference {
        Reference(tag::REFERENCE.hash(self.id.as_bytes()).0)
    }

    /// As the value of `WWW-Authenticate`.
    pub fn to_header(&self) -> String {
        let fields = [
            ("id", Some(&self.id)),
            ("realm", Some(&self.realm)),
            ("method", Some(&self.method)),
            ("intent", Some(&self.intent)),
            ("request", Some(&self.request)),
            ("expires", self.expires.as_ref()),
            ("digest", self.digest.as_ref()),
            ("header", self.header.as_ref()),
            ("opaque", self.opaque.as_ref()),
        ];
        let fields = fields.into_iter().filter_map(|(name, text)| text.map(|text| (name, text)));
        let fields =
            fields.map(|(name, text)| format!("{name}=\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")));
        format!("{SCHEME} {}", fields.collect::<Vec<_>>().join(", "))
    }

    /// The header that its credential goes into, in the issuer's spelling. [`ChallengeError::Text`] when it names one that is
    /// not for credentials: an issuer must not choose a payer's `Host` or `Cookie`.
    pub fn credential_header(&self) -> Result<&str, ChallengeError> {
        let name = self.header.as_deref().unwrap_or(header::AUTHORIZATION);
        if carries_credentials(name) { Ok(name) } else { Err(ChallengeError::Text("header")) }
    }

    /// What its credential takes at most as a header's value: with the deepest receipt and the largest numbers, as this crate
    /// writes it in the scheme `Payment`; x402 takes less, but for what a client adds.
    pub fn credential_bytes(&self) -> usize {
        let challenge = serde_json::to_string(self).map_or(usize::MAX, |json| json.len());
        let json = challenge.saturating_add(MAX_PAYLOAD_JSON + r#"{"challenge":,"payload":}"#.len());
        json.saturating_mul(4).div_ceil(3).saturating_add(SCHEME.len() + 1)
    }

    /// The challenges of the scheme `Payment` in one value of `WWW-Authenticate`, whatever their method. Other schemes are
    /// passed over, and so is a challenge that cannot be read where another one can.
    pub fn all_from_header(value: &str) -> Result<Vec<Self>, ChallengeError> {
        if value.len() > MAX_ANSWER_BYTES {
            return Err(ChallengeError::TooLong { length: value.len(), limit: MAX_ANSWER_BYTES });
        }
        let found = auth::challenges(value, SCHEME);
        let read: Vec<Self> = found.iter().cloned().filter_map(|params| Self::of_params(params?)).collect();
        if read.is_empty() && !found.is_empty() { Err(ChallengeError::Malformed) } else { Ok(read) }
    }

    fn of_params(mut params: auth::Params) -> Option<Self> {
        Some(Self {
            id: params.remove("id").filter(|id| !id.is_empty())?,
            realm: params.remove("realm")?,
            method: params.remove("method")?,
            intent: params.remove("intent")?,
            request: params.remove("request")?,
            expires: params.remove("expires"),
            digest: params.remove("digest"),
            header: params.remove("header"),
            opaque: params.remove("opaque"),
        })
    }

    /// The first challenge with method `weir` in one value of `WWW-Authenticate` whose credential fits a header.
    pub fn from_header(value: &str) -> Result<Self, ChallengeError> {
        let all = Self::all_from_header(value)?;
        let mut last = if all.is_empty() { ChallengeError::Malformed } else { ChallengeError::Foreign };
        for found in all.into_iter().filter(|found| found.method == METHOD && found.intent == INTENT) {
            match found.fits() {
                Ok(()) => return Ok(found),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Whether every credential for it fits a header; else [`ChallengeError::Unshowable`].
    pub(super) fn fits(&self) -> Result<(), ChallengeError> {
        let length = self.credential_bytes();
        if length <= MAX_CREDENTIAL_BYTES { Ok(()) } else { Err(ChallengeError::Unshowable { length }) }
    }
}

/// Most bytes of a payload's JSON: an amount of 20 digits, a certificate of 116 bytes, a receipt of 904.
pub(super) const MAX_PAYLOAD_JSON: usize = r#"{"amount":"","certificate":"","receipt":""}"#.len() + 20 + 155 + 1206;

/// `authorization` and what ends so, but for the proxy's.
fn carries_credentials(name: &str) -> bool {
    let small = name.to_ascii_lowercase();
    let ends = small == header::AUTHORIZATION || small.ends_with("-authorization") && small != "proxy-authorization";
    ends && name.len() <= MAX_HEADER_NAME_BYTES && !name.contains('|') && auth::is_token(name)
}

/// The last millisecond of the year 9999: RFC 3339 has no later one.
const LAST_MS: u64 = 253_402_300_799_999;

/// A time as RFC 3339 in UTC with milliseconds. A time beyond the year 9999 is its last millisecond.
pub fn rfc3339(time: Time) -> String {
    let moment = UNIX_EPOCH + Duration::from_millis(time.0.min(LAST_MS));
    humantime::format_rfc3339_millis(moment).to_string()
}

/// Reads RFC 3339 in UTC (`Z`); what is finer than a millisecond is cut.
pub fn from_rfc3339(text: &str) -> Option<Time> {
    let moment = humantime::parse_rfc3339(text).ok()?;
    let since = moment.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok().map(Time)
}
