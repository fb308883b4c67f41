//! Keys under a passphrase: each secret in its file, encrypted with a key that argon2id makes from the passphrase.
//!
//! ```json
//! {"format": "weir-key/1", "kdf": "argon2id", "memory_kib": 65536, "passes": 3, "parallelism": 1, "salt": "…",
//!  "cipher": "chacha20poly1305", "nonce": "…", "sealed": "…"}
//! ```
//!
//! One salt serves all keys of a home, so that a command pays for argon2id once; every key has a random nonce.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use serde::{Deserialize, Serialize};
use weir_client::KeySealer;
use zeroize::Zeroizing;

const FORMAT: &str = "weir-key/1";
const KDF: &str = "argon2id";
const CIPHER: &str = "chacha20poly1305";
/// What new keys are made with: 64 MiB and three passes, about a tenth of a second.
const COST: Cost = Cost { memory_kib: 64 * 1024, passes: 3, parallelism: 1 };
/// Most that a file may ask for: a file from elsewhere must not hold the machine.
const MOST: Cost = Cost { memory_kib: 1024 * 1024, passes: 64, parallelism: 16 };
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    parallelism: u32,
}

#[derive(Serialize, Deserialize)]
struct SealedKey {
    format: String,
    kdf: String,
    #[serde(flatten)]
    cost: Cost,
    salt: String,
    cipher: String,
    nonce: String,
    sealed: String,
}

/// A key that encrypts keys, and what it was made from.
struct Derived {
    cost: Cost,
    salt: [u8; SALT_BYTES],
    key: Zeroizing<[u8; 32]>,
}

/// Seals keys under a passphrase.
pub(super) struct PassphraseKeys {
    passphrase: Zeroizing<String>,
    cost: Cost,
    derived: Mutex<Option<Derived>>,
}

impl PassphraseKeys {
    pub(super) const fn new(passphrase: Zeroizing<String>) -> Self {
        Self { passphrase, cost: COST, derived: Mutex::new(None) }
    }

    /// Whether a key's file is in this format, rather than plain.
    pub(super) fn made(file: &[u8]) -> bool {
        file.first() == Some(&b'{')
    }

    /// Uses the key that a salt and cost lead to; without them, the last one, or one under a new salt.
    fn with_key<T>(
        &self,
        wanted: Option<(Cost, [u8; SALT_BYTES])>,
        use_it: impl FnOnce(&Derived) -> Result<T, String>,
    ) -> Result<T, String> {
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = derived.as_ref().is_some_and(|held| wanted.is_none_or(|wanted| wanted == (held.cost, held.salt)));
        if !fits {
            let (cost, salt) = match wanted {
                Some(wanted) => wanted,
                None => (self.cost, random()?),
            };
            *derived = Some(self.derive(cost, salt)?);
        }
        derived.as_ref().map_or_else(|| Err("no key was derived".to_owned()), use_it)
    }

    fn derive(&self, cost: Cost, salt: [u8; SALT_BYTES]) -> Result<Derived, String> {
        let Cost { memory_kib, passes, parallelism } = cost;
        if memory_kib > MOST.memory_kib || passes > MOST.passes || parallelism > MOST.parallelism {
            return Err("it asks for more memory or time than is allowed".to_owned());
        }
        let params = Params::new(memory_kib, passes, parallelism, Some(32)).map_err(|error| error.to_string())?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(self.passphrase.as_bytes(), &salt, key.as_mut_slice())
            .map_err(|error| error.to_string())?;
        Ok(Derived { cost, salt, key })
    }
}

impl KeySealer for PassphraseKeys {
    fn seal(&self, secret: &[u8; 32]) -> Result<Vec<u8>, String> {
        let nonce: [u8; NONCE_BYTES] = random()?;
        self.with_key(None, |derived| {
            let payload = Payload { msg: secret, aad: FORMAT.as_bytes() };
            let sealed = cipher(derived)
                .encrypt(&Nonce::from(nonce), payload)
                .map_err(|_| "the key cannot be encrypted".to_owned())?;
            let file = SealedKey {
                format: FORMAT.to_owned(),
                kdf: KDF.to_owned(),
                cost: derived.cost,
                salt: hex::encode(derived.salt),
                cipher: CIPHER.to_owned(),
                nonce: hex::encode(nonce),
                sealed: hex::encode(sealed),
            };
            let mut bytes = serde_json::to_vec(&file).map_err(|error| error.to_string())?;
            bytes.push(b'\n');
            Ok(bytes)
        })
    }

    fn open(&self, sealed: &[u8]) -> Result<Zeroizing<[u8; 32]>, String> {
        let file: SealedKey =
            serde_json::from_slice(sealed).map_err(|error| format!("it is not a key under a passphrase: {error}"))?;
        if (file.format.as_str(), file.kdf.as_str(), file.cipher.as_str()) != (FORMAT, KDF, CIPHER) {
            return Err(format!("format `{}` with `{}` and `{}` is not known", file.format, file.kdf, file.cipher));
        }
        let salt: [u8; SALT_BYTES] = bytes(&file.salt, "salt")?;
        let nonce: [u8; NONCE_BYTES] = bytes(&file.nonce, "nonce")?;
        let sealed: [u8; 48] = bytes(&file.sealed, "sealed")?;
        self.with_key(Some((file.cost, salt)), |derived| {
            let payload = Payload { msg: &sealed, aad: FORMAT.as_bytes() };
            let opened = cipher(derived)
                .decrypt(&Nonce::from(nonce), payload)
                .map_err(|_| "the passphrase is wrong, or the file is damaged".to_owned())?;
            let opened = Zeroizing::new(opened);
            let mut secret = Zeroizing::new([0; 32]);
            if opened.len() != secret.len() {
                return Err("it holds no key".to_owned());
            }
            secret.copy_from_slice(&opened);
            Ok(secret)
        })
    }
}

impl fmt::Debug for PassphraseKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassphraseKeys").finish_non_exhaustive()
    }
}

fn cipher(derived: &Derived) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(&Key::from(*derived.key))
}

fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn bytes<const N: usize>(text: &str, name: &str) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| format!("`{name}` is not {N} bytes of hex"))?;
    Ok(bytes)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    fn sealer(passphrase: &str) -> PassphraseKeys {
        // The least that argon2 allows: the tests are about the file.
        let cost = Cost { memory_kib: 8, passes: 1, parallelism: 1 };
        PassphraseKeys { cost, ..PassphraseKeys::new(Zeroizing::new(passphrase.to_owned())) }
    }

    #[test]
    fn key_sealed_is_opened_with_the_same_passphrase_alone() {
        let one = sealer("correct horse");
        let sealed = one.seal(&[7; 32]).unwrap();
        assert!(PassphraseKeys::made(&sealed));
        assert!(!String::from_utf8_lossy(&sealed).contains(&hex::encode([7; 32])));
        assert_eq!(*one.open(&sealed).unwrap(), [7; 32]);
        assert_eq!(*sealer("correct horse").open(&sealed).unwrap(), [7; 32]);
        assert!(sealer("battery staple").open(&sealed).unwrap_err().contains("passphrase is wrong"));
    }

    #[test]
    fn keys_of_one_home_share_a_salt_and_never_a_nonce() {
        let sealer = sealer("p");
        let files: Vec<SealedKey> =
            (0..3).map(|_| serde_json::from_slice(&sealer.seal(&[1; 32]).unwrap()).unwrap()).collect();
        assert!(files.windows(2).all(|pair| matches!(pair, [a, b] if a.salt == b.salt && a.nonce != b.nonce)));
    }

    #[test]
    fn file_changed_anywhere_is_refused() {
        let sealer = sealer("p");
        let sealed = sealer.seal(&[9; 32]).unwrap();
        for at in 0..sealed.len() {
            let mut bytes = sealed.clone();
            bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1);
            assert!(sealer.open(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn file_that_asks_for_too_much_is_refused_before_any_work() {
        let sealer = sealer("p");
        let text = String::from_utf8(sealer.seal(&[9; 32]).unwrap()).unwrap();
        for (from, to) in [("\"memory_kib\":8", "\"memory_kib\":4000000"), ("\"passes\":1", "\"passes\":65")] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text);
            assert!(sealer.open(changed.as_bytes()).unwrap_err().contains("more memory or time"));
        }
        let other = text.replace("weir-key/1", "weir-key/2");
        assert!(sealer.open(other.as_bytes()).unwrap_err().contains("not known"));
    }
}
