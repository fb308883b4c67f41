//! The hub's certificates across restarts: a key that was retired while the gate ran stays retired after it.
//!
//! `certificates.json` in the state holds those that are known. Losing it is losing that memory, so a damaged one stops the
//! start.

use std::path::{Path, PathBuf};

use weir_protocol::commit::SignedCertificate;

use crate::error::HomeError;
use crate::gate::trust::Trust;
use crate::home::files;

/// Keeps what a [`Trust`] knows.
#[derive(Debug)]
pub struct KnownCertificates {
    path: PathBuf,
    /// As they are in the file.
    kept: Vec<SignedCertificate>,
}

impl KnownCertificates {
    /// Reads the file in this folder, and teaches it what is there. One that is not the hub's is damage.
    pub fn open(state: &Path, trust: &Trust) -> Result<Self, HomeError> {
        let path = state.join("certificates.json");
        let kept: Vec<SignedCertificate> = files::read_json(&path)?.unwrap_or_default();
        for certificate in &kept {
            if certificate.check(&trust.hub()).is_err() {
                let cause = "it holds a certificate that is not the hub's; was `hub` changed?".to_owned();
                return Err(HomeError::Damaged { path, cause });
            }
            learn(trust, certificate);
        }
        Ok(Self { path, kept })
    }

    /// Writes what is known, if it is more than what the file has. Blocking.
    pub fn keep(&mut self, trust: &Trust) -> Result<(), HomeError> {
        let mut known = trust.known();
        known.sort_by_key(|one| (one.certificate.not_before, one.certificate.not_after));
        if known != self.kept {
            files::write_json(&self.path, &known)?;
            self.kept = known;
        }
        Ok(())
    }
}

/// Teaches a trust a certificate of its hub; another is left out.
pub fn learn(trust: &Trust, certificate: &SignedCertificate) {
    trust.trusts(certificate, certificate.certificate.not_before);
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use weir_protocol::act::{Act, Certificate};
    use weir_protocol::amount::Time;
    use weir_protocol::id::HubId;
    use weir_protocol::keys::SecretKey;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_bytes(&[seed; 32]).unwrap()
    }

    fn certificate(identity: &SecretKey, seed: u8, not_before: u64) -> SignedCertificate {
        let certificate =
            Certificate { key: key(seed).public(), not_before: Time(not_before), not_after: Time(u64::MAX) };
        let digest = Act::Certificate(certificate).digest(&HubId(identity.public()));
        SignedCertificate { certificate, signature: identity.sign(&digest) }
    }

    #[test]
    fn key_retired_before_a_restart_stays_retired_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let identity = key(1);
        let hub = HubId(identity.public());
        let (old, new) = (certificate(&identity, 2, 100), certificate(&identity, 3, 200));
        let trust = Trust::new(hub);
        let mut known = KnownCertificates::open(folder.path(), &trust).unwrap();
        assert!(trust.trusts(&old, Time(250)) && trust.trusts(&new, Time(250)));
        known.keep(&trust).unwrap();
        let trust = Trust::new(hub);
        KnownCertificates::open(folder.path(), &trust).unwrap();
        assert!(!trust.trusts(&old, Time(250)));
        assert!(trust.trusts(&old, Time(150)));
    }

    #[test]
    fn file_that_is_damaged_or_of_another_hub_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let identity = key(1);
        let trust = Trust::new(HubId(identity.public()));
        let mut known = KnownCertificates::open(folder.path(), &trust).unwrap();
        learn(&trust, &certificate(&identity, 2, 100));
        known.keep(&trust).unwrap();
        let other = Trust::new(HubId(key(9).public()));
        assert!(matches!(KnownCertificates::open(folder.path(), &other), Err(HomeError::Damaged { .. })));
        std::fs::write(folder.path().join("certificates.json"), "[").unwrap();
        assert!(matches!(KnownCertificates::open(folder.path(), &trust), Err(HomeError::Damaged { .. })));
    }
}
