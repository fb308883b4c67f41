//! One set of checked certificates and commits for all lanes and streams of a client.

use std::sync::{Arc, Mutex, PoisonError};

use weir_protocol::amount::Time;
use weir_protocol::commit::{ProofError, SignedCertificate, SignedCommit};
use weir_protocol::id::HubId;
use weir_protocol::lane::payer::{CommitCheck, CommitFault, HubProofs};

/// [`HubProofs`] shared between tasks: each commit's signature is checked once, whoever sees it first.
#[derive(Debug, Clone)]
pub struct SharedProofs(Arc<Mutex<HubProofs>>);

impl SharedProofs {
    /// Knows these certificates so far. One that is not the hub's is left out.
    pub fn new(hub: HubId, certificates: &[SignedCertificate]) -> Self {
        let mut proofs = HubProofs::new(hub);
        for certificate in certificates {
            if proofs.admit(certificate).is_err() {
                tracing::warn!("a kept certificate is not the hub's, it is left out");
            }
        }
        Self(Arc::new(Mutex::new(proofs)))
    }

    fn with<T>(&self, what: impl FnOnce(&mut HubProofs) -> T) -> T {
        // Nothing inside panics half way through a change.
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The certificate that covers a commit of this time.
    pub fn certificate_at(&self, time: Time) -> Option<SignedCertificate> {
        self.with(|proofs| proofs.certificate_at(time).copied())
    }

    /// All certificates, oldest first.
    pub fn certificates(&self) -> Vec<SignedCertificate> {
        self.with(|proofs| proofs.certificates().to_vec())
    }

    /// The commit with the greatest number that was checked.
    pub fn newest(&self) -> Option<SignedCommit> {
        self.with(|proofs| proofs.newest().copied())
    }
}

impl CommitCheck for SharedProofs {
    fn check(&mut self, commit: &SignedCommit) -> Result<(), CommitFault> {
        self.with(|proofs| proofs.check(commit))
    }

    fn admit(&mut self, certificate: &SignedCertificate) -> Result<(), ProofError> {
        self.with(|proofs| proofs.admit(certificate))
    }
}
