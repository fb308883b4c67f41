//! Which of the hub's keys signed what, and when: certificates and commits, each checked once and remembered.
//!
//! Owns the rule "a commit is checked with the newest certificate known whose `not_before` ≤ its time" and notices two
//! contents under one number. Must not fetch anything: whoever calls it brings certificates.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::amount::Time;
use crate::commit::{ProofError, SignedCertificate, SignedCommit};
use crate::id::HubId;
use crate::keys::{PublicKey, VerifyingKey};

/// Commits that are remembered as checked.
pub const RECENT_COMMITS: usize = 64;
/// Certificates that are kept; the oldest goes first.
pub const MAX_CERTIFICATES: usize = 256;

/// Why a commit is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CommitFault {
    /// No certificate that is known covers its time: a newer one may.
    #[error("no certificate is known for the commit's time")]
    NoCertificate,
    /// The signature, the hub or the certificate does not fit.
    #[error("{0}")]
    Proof(#[source] ProofError),
    /// The hub signed another content under the same chain and number: a portable proof of fraud.
    #[error("the hub signed two contents for commit {} of chain {}", .first.commit.number, .first.commit.chain)]
    Two {
        /// What it signed before.
        first: Box<SignedCommit>,
    },
}

/// Checks what hangs from the hub's signature. [`HubProofs`] is the plain one; a program with several lanes shares one.
pub trait CommitCheck {
    /// Checks hub, time and signature; a commit that was checked before costs a comparison.
    fn check(&mut self, commit: &SignedCommit) -> Result<(), CommitFault>;

    /// Learns a certificate once it is known to be the identity key's.
    fn admit(&mut self, certificate: &SignedCertificate) -> Result<(), ProofError>;
}

/// The certificates and commits of one hub that were checked.
#[derive(Debug, Clone)]
pub struct HubProofs {
    hub: HubId,
    /// By `not_before`, ascending.
    certificates: Vec<SignedCertificate>,
    /// The key that checked last, parsed.
    key: Option<(PublicKey, VerifyingKey)>,
    recent: VecDeque<SignedCommit>,
    newest: Option<SignedCommit>,
}

impl HubProofs {
    /// Knows nothing yet but who the hub is.
    pub const fn new(hub: HubId) -> Self {
        Self { hub, certificates: Vec::new(), key: None, recent: VecDeque::new(), newest: None }
    }

    /// The hub.
    pub const fn hub(&self) -> HubId {
        self.hub
    }

    /// The newest certificate known whose `not_before` is not after this time.
    pub fn certificate_at(&self, time: Time) -> Option<&SignedCertificate> {
        self.certificates.iter().rev().find(|known| known.certificate.not_before <= time)
    }

    /// All certificates, oldest first.
    pub fn certificates(&self) -> &[SignedCertificate] {
        &self.certificates
    }

    /// The commit with the greatest number that was checked.
    pub const fn newest(&self) -> Option<&SignedCommit> {
        self.newest.as_ref()
    }

    fn verify(&mut self, commit: &SignedCommit) -> Result<(), CommitFault> {
        let certificate = self.certificate_at(commit.commit.time).ok_or(CommitFault::NoCertificate)?.certificate;
        let key = match self.key {
            Some((public, parsed)) if public == certificate.key => parsed,
            _ => certificate.key.parse().map_err(|_| CommitFault::Proof(ProofError::Commit))?,
        };
        self.key = Some((certificate.key, key));
        commit.check_with(&self.hub, &certificate, &key).map_err(CommitFault::Proof)
    }
}

impl CommitCheck for HubProofs {
    fn check(&mut self, commit: &SignedCommit) -> Result<(), CommitFault> {
        let same_place = |known: &&SignedCommit| {
            (known.commit.chain, known.commit.number) == (commit.commit.chain, commit.commit.number)
        };
        let known = self.recent.iter().rev().find(same_place).copied();
        if known.is_some_and(|known| known == *commit) {
            return Ok(());
        }
        self.verify(commit)?;
        if let Some(first) = known {
            // Another signature over the same content is no fraud, only unexpected.
            return if first.commit == commit.commit {
                Ok(())
            } else {
                Err(CommitFault::Two { first: Box::new(first) })
            };
        }
        if self.recent.len() >= RECENT_COMMITS {
            self.recent.pop_front();
        }
        self.recent.push_back(*commit);
        if self.newest.is_none_or(|newest| newest.commit.number < commit.commit.number) {
            self.newest = Some(*commit);
        }
        Ok(())
    }

    fn admit(&mut self, certificate: &SignedCertificate) -> Result<(), ProofError> {
        if self.certificates.contains(certificate) {
            return Ok(());
        }
        certificate.check(&self.hub)?;
        let not_before = certificate.certificate.not_before;
        let place = self.certificates.partition_point(|known| known.certificate.not_before <= not_before);
        self.certificates.insert(place, *certificate);
        if self.certificates.len() > MAX_CERTIFICATES {
            self.certificates.remove(0);
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use crate::act::{Act, Certificate};
    use crate::commit::Commit;
    use crate::hash::Hash;
    use crate::keys::SecretKey;

    fn certificate(identity: &SecretKey, key: &SecretKey, from: u64, until: u64) -> SignedCertificate {
        let hub = HubId(identity.public());
        let certificate = Certificate { key: key.public(), not_before: Time(from), not_after: Time(until) };
        let signature = identity.sign(&Act::Certificate(certificate).digest(&hub));
        SignedCertificate { certificate, signature }
    }

    fn commit(hub: HubId, key: &SecretKey, number: u64, time: u64, root: u8) -> SignedCommit {
        let root = Hash([root; 32]);
        let commit = Commit { hub, chain: 1, number, time: Time(time), history: Hash::ZERO, items: 1, root };
        SignedCommit { commit, signature: key.sign(&commit.id()) }
    }

    #[test]
    fn commit_is_checked_with_the_newest_certificate_that_had_begun() {
        let [identity, old, new] = [1, 2, 3].map(|byte| SecretKey::from_bytes(&[byte; 32]).unwrap());
        let hub = HubId(identity.public());
        let mut proofs = HubProofs::new(hub);
        let first = commit(hub, &old, 1, 150, 1);
        assert_eq!(proofs.check(&first), Err(CommitFault::NoCertificate));
        proofs.admit(&certificate(&identity, &new, 200, 300)).unwrap();
        proofs.admit(&certificate(&identity, &old, 100, 300)).unwrap();
        assert_eq!(proofs.check(&first), Ok(()));
        assert_eq!(proofs.check(&commit(hub, &new, 2, 200, 1)), Ok(()));
        assert!(proofs.check(&commit(hub, &old, 3, 200, 1)).is_err(), "the old key after its successor began");
        assert!(proofs.check(&commit(hub, &new, 3, 300, 1)).is_err(), "at not_after");
        assert_eq!(proofs.newest().unwrap().commit.number, 2);
        let foreign = certificate(&old, &old, 0, 1000);
        assert!(proofs.admit(&foreign).is_err());
    }

    #[test]
    fn commit_with_two_contents_under_one_number_is_a_fault() {
        let [identity, key] = [1, 2].map(|byte| SecretKey::from_bytes(&[byte; 32]).unwrap());
        let hub = HubId(identity.public());
        let mut proofs = HubProofs::new(hub);
        proofs.admit(&certificate(&identity, &key, 0, 1000)).unwrap();
        let first = commit(hub, &key, 7, 10, 1);
        proofs.check(&first).unwrap();
        assert_eq!(proofs.check(&first), Ok(()));
        assert_eq!(proofs.check(&commit(hub, &key, 7, 10, 2)), Err(CommitFault::Two { first: Box::new(first) }));
        let forged = SignedCommit { signature: first.signature, ..commit(hub, &key, 7, 10, 2) };
        assert_eq!(proofs.check(&forged), Err(CommitFault::Proof(ProofError::Commit)));
    }
}
