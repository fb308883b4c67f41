//! Which of the hub's signing keys count. Checks a certificate once and remembers it; no I/O.

use std::sync::{PoisonError, RwLock};

use weir_protocol::amount::Time;
use weir_protocol::commit::SignedCertificate;
use weir_protocol::id::HubId;

/// Most certificates that are remembered: a hub changes its signing key a few times a year.
pub const MAX_CERTIFICATES: usize = 64;

/// The certificates of one hub that are known, each signed by the hub's identity key.
#[derive(Debug)]
pub struct Trust {
    hub: HubId,
    known: RwLock<Vec<SignedCertificate>>,
}

impl Trust {
    /// Nothing is known yet but the hub.
    pub const fn new(hub: HubId) -> Self {
        Self { hub, known: RwLock::new(Vec::new()) }
    }

    /// The hub.
    pub const fn hub(&self) -> HubId {
        self.hub
    }

    /// Whether a commit of that time may be checked with this certificate: the hub's identity signed it, and no newer one
    /// that was in force at that time is known (DESIGN §4.1). One that is new here is remembered.
    ///
    /// A key that was retired signs nothing more that counts as soon as its successor's certificate was seen once.
    pub fn trusts(&self, certificate: &SignedCertificate, time: Time) -> bool {
        let newest = |known: &[SignedCertificate]| {
            let before = |one: &&SignedCertificate| one.certificate.not_before <= time;
            known.iter().filter(before).map(|one| one.certificate.not_before).max()
        };
        let judge = |known: &[SignedCertificate]| {
            let found = known.contains(certificate);
            found.then(|| newest(known).is_none_or(|newest| certificate.certificate.not_before >= newest))
        };
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(judged) = judge(&known) {
            return judged;
        }
        drop(known);
        if certificate.check(&self.hub).is_err() {
            return false;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(certificate) {
            if known.len() >= MAX_CERTIFICATES {
                // The oldest has the least to say.
                let oldest = known.iter().enumerate().min_by_key(|(_, one)| one.certificate.not_before);
                if let Some(at) = oldest.map(|(at, _)| at) {
                    known.swap_remove(at);
                }
            }
            known.push(*certificate);
        }
        judge(&known).unwrap_or(false)
    }

    /// What is known, for a file or a report.
    pub fn known(&self) -> Vec<SignedCertificate> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_protocol::act::{Act, Certificate};
    use weir_protocol::keys::SecretKey;

    fn certificate(identity: &SecretKey, seed: u8, not_before: u64) -> SignedCertificate {
        let certificate =
            Certificate { key: key(seed).public(), not_before: Time(not_before), not_after: Time(u64::MAX) };
        let digest = Act::Certificate(certificate).digest(&HubId(identity.public()));
        SignedCertificate { certificate, signature: identity.sign(&digest) }
    }

    #[expect(clippy::unwrap_used, reason = "a failed test should say where")]
    fn key(seed: u8) -> SecretKey {
        SecretKey::from_bytes(&[seed; 32]).unwrap()
    }

    #[test]
    fn certificate_of_a_retired_key_counts_only_for_its_own_time() {
        let identity = key(1);
        let trust = Trust::new(HubId(identity.public()));
        let old = certificate(&identity, 2, 100);
        let new = certificate(&identity, 3, 200);
        assert!(trust.trusts(&old, Time(250)), "nothing newer is known");
        assert!(trust.trusts(&new, Time(250)));
        assert!(!trust.trusts(&old, Time(250)), "a newer one was in force");
        assert!(!trust.trusts(&old, Time(200)), "from its first moment");
        assert!(trust.trusts(&old, Time(199)));
    }

    #[test]
    fn certificate_of_another_hub_is_never_trusted_nor_kept() {
        let trust = Trust::new(HubId(key(1).public()));
        let foreign = certificate(&key(9), 2, 100);
        assert!(!trust.trusts(&foreign, Time(150)));
        assert!(trust.known().is_empty());
    }

    #[test]
    fn certificates_beyond_the_bound_push_out_the_oldest() {
        let identity = key(1);
        let trust = Trust::new(HubId(identity.public()));
        for at in 0..=MAX_CERTIFICATES as u64 {
            assert!(trust.trusts(&certificate(&identity, 2, 100 + at), Time(100 + at)));
        }
        let known = trust.known();
        assert_eq!(known.len(), MAX_CERTIFICATES);
        assert!(known.iter().all(|one| one.certificate.not_before > Time(100)));
    }
}
