//! Secret keys in files of their own, sealed by whoever opens the home.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_protocol::keys::{PublicKey, SecretKey};
use zeroize::Zeroizing;

use super::files;
use crate::error::HomeError;

/// Turns secrets into what is written to a key's file, and back. The plain one writes hex; a passphrase is the binary's.
pub trait KeySealer: Debug + Send + Sync {
    /// What is written.
    fn seal(&self, secret: &[u8; 32]) -> Result<Vec<u8>, String>;

    /// The secret again, or why not.
    fn open(&self, sealed: &[u8]) -> Result<Zeroizing<[u8; 32]>, String>;
}

/// A sealer as a home holds it.
pub type Sealer = Arc<dyn KeySealer>;

/// Hex, protected by the file's mode alone.
#[derive(Debug, Clone, Copy)]
pub struct PlainKeys;

impl PlainKeys {
    /// Ready for a home.
    pub fn sealer() -> Sealer {
        Arc::new(Self)
    }
}

impl KeySealer for PlainKeys {
    fn seal(&self, secret: &[u8; 32]) -> Result<Vec<u8>, String> {
        let mut text = Zeroizing::new(hex::encode(secret));
        text.push('\n');
        Ok(text.as_bytes().to_vec())
    }

    fn open(&self, sealed: &[u8]) -> Result<Zeroizing<[u8; 32]>, String> {
        let mut secret = Zeroizing::new([0; 32]);
        let text = sealed.strip_suffix(b"\n").unwrap_or(sealed);
        hex::decode_to_slice(text, secret.as_mut_slice()).map_err(|_| "not 32 bytes of hex".to_owned())?;
        Ok(secret)
    }
}

pub(super) fn path(home: &Path, public: &PublicKey) -> PathBuf {
    home.join("keys").join(public.to_string())
}

/// A fresh key, durable before it is given.
pub(super) fn create(home: &Path, sealer: &Sealer) -> Result<SecretKey, HomeError> {
    let folder = home.join("keys");
    let fail = |cause: String| HomeError::Key { path: folder.clone(), cause };
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut_slice()).map_err(|cause| fail(cause.to_string()))?;
    let key = SecretKey::from_bytes(&secret).map_err(|cause| fail(cause.to_string()))?;
    let sealed = Zeroizing::new(sealer.seal(&secret).map_err(fail)?);
    files::write(&path(home, &key.public()), &sealed)?;
    Ok(key)
}

pub(super) fn read(home: &Path, sealer: &Sealer, public: &PublicKey) -> Result<SecretKey, HomeError> {
    let path = path(home, public);
    let fail = |cause: String| HomeError::Key { path: path.clone(), cause };
    let sealed = Zeroizing::new(files::read(&path)?.ok_or_else(|| fail("there is no such key".to_owned()))?);
    let secret = sealer.open(&sealed).map_err(fail)?;
    let key = SecretKey::from_bytes(&secret).map_err(|cause| fail(cause.to_string()))?;
    if key.public() == *public { Ok(key) } else { Err(fail("it is another key".to_owned())) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;

    #[test]
    fn key_is_written_for_its_owner_alone_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        files::create_folder(&folder.path().join("keys")).unwrap();
        let sealer = PlainKeys::sealer();
        let key = create(folder.path(), &sealer).unwrap();
        let again = read(folder.path(), &sealer, &key.public()).unwrap();
        assert_eq!(again.public(), key.public());
        let place = path(folder.path(), &key.public());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let other = create(folder.path(), &sealer).unwrap();
        std::fs::copy(path(folder.path(), &other.public()), &place).unwrap();
        assert!(matches!(read(folder.path(), &sealer, &key.public()), Err(HomeError::Key { .. })));
        std::fs::write(&place, "short").unwrap();
        assert!(matches!(read(folder.path(), &sealer, &key.public()), Err(HomeError::Key { .. })));
    }
}
