//! The start of a connection: who the hub is, and which keys the client holds.

use serde::{Deserialize, Serialize};

use crate::amount::Time;
use crate::bytes::byte_newtype;
use crate::commit::{ProofError, SignedCertificate};
use crate::hash::{Fixed, Hash, sha256, tag};
use crate::id::{AccountId, ChannelId, HubId, LaneId};
use crate::keys::{PublicKey, Signature};

byte_newtype!(
    /// Fresh random bytes of the hub, one per connection.
    Nonce, 32
);

/// The first message on every stream that a client opens: what the stream is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Opening {
    /// Requests and replies. The first stream of a connection; the hub answers with [`Welcome`].
    Control {
        /// [`crate::wire::VERSION`].
        version: u16,
    },
    /// Payments of one lane; see [`crate::wire::LaneRequest`].
    Lane(Attach),
    /// Credits of one account; see [`crate::wire::CreditMessage`].
    Credit(Subscribe),
}

/// Makes a stream the one that a lane's frames come from. The first message of a lane's stream, and again the only one
/// heard there after a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The lane.
    pub lane: LaneId,
    /// Every sequence above the head and up to this one is given up for ever.
    pub void_through: u64,
}

/// Asks for an account's credits from a place on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribe {
    /// The account; its key must have been proven.
    pub account: AccountId,
    /// Credits of the commits after this one; `{0, 0}`: from the first that is kept.
    pub after: Cursor,
}

/// A place in the hub's commits. Ordered by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// The commit's chain.
    pub chain: u64,
    /// The commit's number.
    pub number: u64,
}

/// The hub's first message: who it is, proven for this very TLS key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The highest version that the hub speaks.
    pub version: u16,
    /// The hub.
    pub hub: HubId,
    /// Its signing key, by its identity key.
    pub certificate: SignedCertificate,
    /// Until when the TLS key is good.
    pub not_after: Time,
    /// The signing key over [`tls_digest`].
    pub signature: Signature,
    /// For the client's own proofs.
    pub nonce: Nonce,
    /// The hub's time.
    pub time: Time,
    /// The newest durable commit; `{0, 0}` before the first.
    pub newest: Cursor,
}

/// `H("weir/tls", hub ‖ SHA-256(SPKI) ‖ not_after)`, 72 bytes. SPKI: the DER SubjectPublicKeyInfo of the TLS certificate.
pub fn tls_digest(hub: &HubId, spki: &[u8], not_after: Time) -> Hash {
    Fixed::<72>::new().put(hub.as_bytes()).put(&sha256(spki).0).u64(not_after.0).hash(&tag::TLS)
}

impl Welcome {
    /// Checks that the hub behind this connection is the one that the client was given: before saying anything else.
    ///
    /// `spki` is what the client saw in the TLS handshake, `now` the client's time.
    pub fn check(&self, expected: &HubId, spki: &[u8], now: Time) -> Result<(), ProofError> {
        if self.hub != *expected {
            return Err(ProofError::Certificate);
        }
        self.certificate.check(expected)?;
        let certificate = &self.certificate.certificate;
        if now >= self.not_after || now >= certificate.not_after {
            return Err(ProofError::CertificateTime);
        }
        let digest = tls_digest(expected, spki, self.not_after);
        if certificate.key.verify(&digest, &self.signature) { Ok(()) } else { Err(ProofError::Commit) }
    }
}

/// What a proven key may see and do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyScope {
    /// Everything of its account.
    Account(AccountId),
    /// Everything of its channel.
    Channel(ChannelId),
    /// Its lane.
    Lane(LaneId),
}

impl KeyScope {
    /// The number in the preimage of a proof.
    pub const fn code(&self) -> u16 {
        match self {
            Self::Account(_) => 1,
            Self::Channel(_) => 2,
            Self::Lane(_) => 3,
        }
    }
}

/// `H("weir/hello", hub ‖ key ‖ kind ‖ SHA-256(SPKI ‖ nonce))`, 98 bytes: what a client signs with each key that it uses.
pub fn hello_digest(hub: &HubId, key: &PublicKey, scope: &KeyScope, spki: &[u8], nonce: &Nonce) -> Hash {
    let channel = sha256(&[spki, &nonce.0].concat());
    Fixed::<98>::new()
        .put(hub.as_bytes())
        .put(&key.0)
        .put(&scope.code().to_le_bytes())
        .put(&channel.0)
        .hash(&tag::HELLO)
}
