//! Keys and signatures: BIP-340 Schnorr over secp256k1 with x-only public keys. No randomness in here.

mod context;

use core::fmt;

use secp256k1::{Keypair, XOnlyPublicKey, schnorr};
use zeroize::Zeroizing;

use crate::bytes::{byte_newtype, hex_display};
use crate::hash::Hash;

byte_newtype!(
    /// An x-only public key as it travels: 32 bytes, not yet known to be on the curve.
    PublicKey, 32
);
hex_display!(PublicKey);

byte_newtype!(
    /// A BIP-340 signature, 64 bytes.
    Signature, 64
);
hex_display!(Signature);

/// The bytes are no valid key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid secp256k1 key")]
pub struct KeyError;

impl PublicKey {
    /// Parses the key for checking signatures (4–5 µs: do it once per lane).
    pub fn parse(&self) -> Result<VerifyingKey, KeyError> {
        XOnlyPublicKey::from_byte_array(self.0).map(VerifyingKey).map_err(|_| KeyError)
    }

    /// Parses and checks at once: for what happens rarely.
    #[must_use]
    pub fn verify(&self, digest: &Hash, signature: &Signature) -> bool {
        self.parse().is_ok_and(|key| key.verify(digest, signature))
    }
}

/// A parsed public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyingKey(XOnlyPublicKey);

impl VerifyingKey {
    /// Whether the signature over the 32-byte digest is this key's.
    #[must_use]
    pub fn verify(&self, digest: &Hash, signature: &Signature) -> bool {
        schnorr::verify(&schnorr::Signature::from_byte_array(signature.0), &digest.0, &self.0).is_ok()
    }

    /// The key as it travels.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.to_byte_array())
    }
}

/// A secret key. Its bytes are wiped when it goes; it is never printed.
pub struct SecretKey {
    keypair: Keypair,
}

impl SecretKey {
    /// From 32 secret bytes. Zero and values past the curve's order are refused.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        Keypair::from_secret_bytes(*bytes).map(|keypair| Self { keypair }).map_err(|_| KeyError)
    }

    /// The secret bytes, for storing.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.keypair.to_secret_bytes())
    }

    /// The public key.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.keypair.x_only_public_key().0.to_byte_array())
    }

    /// Signs a digest with auxiliary data of zeros: signing again gives the same bytes.
    pub fn sign(&self, digest: &Hash) -> Signature {
        Signature(context::sign(&digest.0, &self.keypair))
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.keypair.non_secure_erase();
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    #[test]
    fn signature_is_deterministic_and_bound_to_digest_and_key() {
        let key = SecretKey::from_bytes(&[7; 32]).unwrap();
        let other = SecretKey::from_bytes(&[8; 32]).unwrap();
        let digest = Hash([1; 32]);
        let signature = key.sign(&digest);
        assert_eq!(signature, key.sign(&digest));
        assert!(key.public().verify(&digest, &signature));
        assert!(!key.public().verify(&Hash([2; 32]), &signature));
        assert!(!other.public().verify(&digest, &signature));
    }

    #[test]
    fn signature_equals_the_librarys_whatever_the_context_has_signed_before() {
        let key = SecretKey::from_bytes(&[9; 32]).unwrap();
        for round in 0..600_u16 {
            let mut digest = Hash([3; 32]);
            digest.0.iter_mut().zip(round.to_le_bytes()).for_each(|(to, from)| *to = from);
            let library = schnorr::sign_no_aux_rand(&digest.0, &key.keypair).to_byte_array();
            assert_eq!(key.sign(&digest).0, library, "round {round}");
        }
    }

    #[test]
    fn key_off_the_curve_is_refused() {
        assert_eq!(PublicKey([0x55; 32]).parse(), Err(KeyError));
        assert!(SecretKey::from_bytes(&[0; 32]).is_err());
        assert!(SecretKey::from_bytes(&[0xff; 32]).is_err());
    }
}
