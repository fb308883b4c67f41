//! Commits: what the hub makes durable together, and the proofs that hang from its one signature (DESIGN §4.5).

use serde::{Deserialize, Serialize};

use crate::act::{Act, Certificate};
use crate::amount::Time;
use crate::bytes::byte_newtype;
use crate::hash::{Fixed, Hash, tag};
use crate::id::HubId;
use crate::keys::{Signature, VerifyingKey};
use crate::merkle::Path;

/// Groups and acts in one commit.
pub const MAX_ITEMS: usize = 4096;

/// The header that the hub's signing key signs: everything else hangs from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The hub.
    pub hub: HubId,
    /// Process number (upper 16 bits) and its start in ms (lower 48): every start of the hub opens a new chain.
    pub chain: u64,
    /// Counts the kept commits from 1 without gaps, across chains.
    pub number: u64,
    /// Every expiry, period and cut-off inside is judged at this time.
    pub time: Time,
    /// Merkle root over the ids of commits 1 … number − 1.
    pub history: Hash,
    /// How many items.
    pub items: u32,
    /// Merkle root over the items in the order in which they took effect.
    pub root: Hash,
}

impl Commit {
    /// `id = H("weir/commit", hub ‖ chain ‖ number ‖ time ‖ history ‖ items ‖ root)`, 124 bytes: what is signed.
    pub fn id(&self) -> Hash {
        Fixed::<124>::new()
            .put(self.hub.as_bytes())
            .u64(self.chain)
            .u64(self.number)
            .u64(self.time.0)
            .put(&self.history.0)
            .u32(self.items)
            .put(&self.root.0)
            .hash(&tag::COMMIT)
    }
}

/// A commit with the hub's signature over its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedCommit {
    /// The header.
    pub commit: Commit,
    /// By the signing key that was certified for its time.
    pub signature: Signature,
}

/// Why a proof from the hub does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ProofError {
    /// The certificate is not signed by the hub's identity key, or is for another hub.
    #[error("certificate is not the hub's")]
    Certificate,
    /// The commit's time is outside the certificate's.
    #[error("commit is outside the certificate's time")]
    CertificateTime,
    /// The commit is not signed by the certified key, or is of another hub.
    #[error("commit is not signed by the hub")]
    Commit,
    /// The path does not lead to the commit's root.
    #[error("path does not lead to the commit")]
    Path,
    /// The proof is for something else than was asked.
    #[error("proof is for something else")]
    Content,
}

/// A certificate with the identity key's signature: what a receipt is checked with, against the hub id alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedCertificate {
    /// Which key signs commits, and when.
    pub certificate: Certificate,
    /// By the identity key.
    pub signature: Signature,
}

impl SignedCertificate {
    /// Whether the hub's identity key signed it.
    pub fn check(&self, hub: &HubId) -> Result<(), ProofError> {
        let digest = Act::Certificate(self.certificate).digest(hub);
        if hub.key().verify(&digest, &self.signature) { Ok(()) } else { Err(ProofError::Certificate) }
    }
}

impl SignedCommit {
    /// Checks hub, time and signature. The certificate must have been checked: [`SignedCertificate::check`].
    pub fn check(&self, hub: &HubId, certificate: &Certificate) -> Result<(), ProofError> {
        match certificate.key.parse() {
            Ok(key) => self.check_with(hub, certificate, &key),
            // A key that is none signs nothing; what else is wrong is said first.
            Err(_) => self.check_bounds(hub, certificate).and(Err(ProofError::Commit)),
        }
    }

    /// The same with the certificate's key parsed: for many commits under one certificate.
    pub fn check_with(&self, hub: &HubId, certificate: &Certificate, key: &VerifyingKey) -> Result<(), ProofError> {
        self.check_bounds(hub, certificate)?;
        let signed = key.public() == certificate.key && key.verify(&self.commit.id(), &self.signature);
        if signed { Ok(()) } else { Err(ProofError::Commit) }
    }

    fn check_bounds(&self, hub: &HubId, certificate: &Certificate) -> Result<(), ProofError> {
        if self.commit.hub != *hub {
            return Err(ProofError::Commit);
        }
        if self.commit.time < certificate.not_before || self.commit.time >= certificate.not_after {
            return Err(ProofError::CertificateTime);
        }
        Ok(())
    }

    /// Whether the item is at the path's place under this commit's root.
    pub fn includes(&self, item: &Hash, path: &Path) -> Result<(), ProofError> {
        let fits = path.count == self.commit.items && path.root(item) == Some(self.commit.root);
        if fits { Ok(()) } else { Err(ProofError::Path) }
    }
}

/// `group = H("weir/group", head ‖ count ‖ Merkle(leaves))`, 68 bytes.
pub fn group_item(head: &Hash, count: u32, leaves: &Hash) -> Hash {
    Fixed::<68>::new().put(&head.0).u32(count).put(&leaves.0).hash(&tag::GROUP)
}

byte_newtype!(
    /// The 16 bytes that keep an act's content from whoever sees its neighbour's path.
    Blind, 16
);

impl Blind {
    /// First 16 bytes of `H("weir/blind", secret ‖ chain ‖ number ‖ index)`, 52 bytes.
    pub fn derive(secret: &[u8; 32], chain: u64, number: u64, index: u32) -> Self {
        let hash = Fixed::<52>::new().put(secret).u64(chain).u64(number).u32(index).hash(&tag::BLIND);
        let mut blind = [0; 16];
        blind.copy_from_slice(hash.0.split_at(16).0);
        Self(blind)
    }
}

/// `act = H("weir/act", blind ‖ kind ‖ digest)`, 50 bytes.
pub fn act_item(blind: &Blind, kind: u16, digest: &Hash) -> Hash {
    Fixed::<50>::new().put(&blind.0).put(&kind.to_le_bytes()).put(&digest.0).hash(&tag::ACT)
}

/// Proof that an act is in a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActProof {
    /// The commit.
    pub commit: SignedCommit,
    /// The act's blind.
    pub blind: Blind,
    /// The act's place.
    pub path: Path,
}

impl ActProof {
    /// Whether the act is in the commit; the commit's signature is checked too.
    pub fn check(&self, hub: &HubId, certificate: &Certificate, act: &Act) -> Result<(), ProofError> {
        self.commit.check(hub, certificate)?;
        self.includes(hub, act)
    }

    /// Whether the act is at the path's place; the commit itself must have been checked.
    pub fn includes(&self, hub: &HubId, act: &Act) -> Result<(), ProofError> {
        self.commit.includes(&act_item(&self.blind, act.kind(), &act.digest(hub)), &self.path)
    }
}

/// The hub's answer to the payments of one group: checked at once; the leaves only when a receipt is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The first payment's sequence.
    pub first_sequence: u64,
    /// The last payment's sequence: the head that the group leads to.
    pub through_sequence: u64,
    /// How many payments.
    pub count: u32,
    /// Merkle root of the payments' leaves.
    pub leaves: Hash,
    /// The commit.
    pub commit: SignedCommit,
    /// The group's place in the commit.
    pub path: Path,
}

impl Answer {
    /// Whether the group that leads to this head is in the commit; the commit itself must have been checked.
    pub fn includes(&self, head: &Hash) -> Result<(), ProofError> {
        self.commit.includes(&group_item(head, self.count, &self.leaves), &self.path)
    }
}
