//! The hub's key files: who the hub is, and what it signs with.
//!
//! ```text
//! DATA/keys/identity.key      signs certificates only; may be kept elsewhere, the hub runs without it
//! DATA/keys/signing.key       signs commits and the TLS key
//! DATA/keys/certificate.json  the identity key's word for the signing key; public
//! DATA/keys/reset.key         lets clients notice a restart at once; no money hangs from it
//! ```
//! A key file is 64 hexadecimal digits and a line feed, readable by its owner alone: anything wider is refused. Nothing
//! here prints or logs a secret.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weir_protocol::act::{Act, Certificate};
use weir_protocol::amount::Time;
use weir_protocol::commit::SignedCertificate;
use weir_protocol::id::HubId;
use weir_protocol::keys::{PublicKey, SecretKey, Signature};
use zeroize::Zeroizing;

/// A key file is no longer than this; what is, is not read.
const KEY_BYTES_MAX: u64 = 256;
/// A certificate's file is no longer than this.
const CERTIFICATE_BYTES_MAX: u64 = 4096;
/// Permissions of a secret file.
const SECRET_MODE: u32 = 0o600;
/// Permissions of a public file.
const PUBLIC_MODE: u32 = 0o644;
/// Permissions of a directory that holds secrets.
const SECRET_DIRECTORY_MODE: u32 = 0o700;
/// Milliseconds in a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Why a key file cannot be used. Infra and misuse families: none of these texts holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The operating system refused.
    #[error("cannot {doing} `{}`", path.display())]
    Io {
        /// A verb.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Others can read a secret.
    #[error("`{}` can be read by others (mode {mode:03o}); a key must be its owner's alone", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Not a key.
    #[error("`{}` is not a key: expected 64 hexadecimal digits of a secp256k1 secret key", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// Not a certificate.
    #[error("`{}` is not a certificate", path.display())]
    NotACertificate {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// The certificate's signature does not hold.
    #[error("the certificate in `{}` is not signed by hub {hub}", path.display())]
    Unsigned {
        /// The file.
        path: PathBuf,
        /// The hub that it names.
        hub: HubId,
    },
    /// The certificate is for another key than the signing key.
    #[error("the certificate in `{}` is not for the signing key that lies beside it", path.display())]
    OtherKey {
        /// The file.
        path: PathBuf,
    },
    /// The identity key is another hub's.
    #[error("`{}` is the identity key of another hub", path.display())]
    OtherHub {
        /// The file.
        path: PathBuf,
    },
    /// There is no source of random bytes.
    #[error("cannot make a key: {0}")]
    Random(getrandom::Error),
}

impl KeyFileError {
    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exposed { path, .. } => Some(format!("chmod 600 {}", path.display())),
            Self::OtherKey { .. } => Some("run `weir-hub certify` where the identity key is".into()),
            Self::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                if path.ends_with(IDENTITY) {
                    Some("bring the identity key back for this, or name it with `--identity FILE`".into())
                } else {
                    let own = [SIGNING, CERTIFICATE, RESET].iter().any(|name| path.ends_with(name));
                    own.then(|| "`weir-hub init --data DIR` makes a new hub".into())
                }
            }
            _ => None,
        }
    }

    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

const IDENTITY: &str = "identity.key";
const SIGNING: &str = "signing.key";
const CERTIFICATE: &str = "certificate.json";
const RESET: &str = "reset.key";

/// The keys' directory of a data directory.
#[derive(Debug, Clone)]
pub struct KeyFiles {
    directory: PathBuf,
}

/// A certificate with the hub that it is for, as its file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubCertificate {
    /// The hub.
    pub hub: HubId,
    /// Its word for the signing key.
    pub signed: SignedCertificate,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateFile {
    hub: HubId,
    key: PublicKey,
    not_before_ms: u64,
    not_after_ms: u64,
    signature: Signature,
}

impl KeyFiles {
    /// Of a data directory.
    pub fn of(data: &Path) -> Self {
        Self { directory: data.join("keys") }
    }

    /// Where the identity key is, unless it was taken away.
    pub fn identity_path(&self) -> PathBuf {
        self.directory.join(IDENTITY)
    }

    /// Where the signing key is.
    pub fn signing_path(&self) -> PathBuf {
        self.directory.join(SIGNING)
    }

    /// Where the certificate is.
    pub fn certificate_path(&self) -> PathBuf {
        self.directory.join(CERTIFICATE)
    }

    /// Makes the keys of a new hub and the first certificate, in a directory that only its owner can enter.
    ///
    /// The certificate begins an hour before `now`, for clients whose clocks are behind.
    pub fn create(&self, now: Time, days: u32) -> Result<HubCertificate, KeyFileError> {
        make_private_directory(&self.directory)?;
        let identity = generate()?;
        let signing = generate()?;
        write_secret(&self.identity_path(), &identity)?;
        write_secret(&self.signing_path(), &signing)?;
        let certificate = certify(&identity, &signing, now.minus_ms(60 * 60 * 1000), now.plus_ms(days_ms(days)));
        self.write_certificate(&certificate)?;
        Ok(certificate)
    }

    /// A new certificate for the same signing key. It begins when the old one did, so that it covers every commit of the
    /// key.
    pub fn renew(&self, identity: &Path, now: Time, days: u32) -> Result<HubCertificate, KeyFileError> {
        let signing = read_secret(&self.signing_path())?;
        let old = self.certificate()?;
        let from = if old.signed.certificate.key == signing.public() {
            old.signed.certificate.not_before
        } else {
            // A new key whose certificate was not written: it has signed nothing yet.
            now
        };
        let identity = identity_of(old.hub, identity)?;
        let certificate = certify(&identity, &signing, from, now.plus_ms(days_ms(days)));
        self.write_certificate(&certificate)?;
        Ok(certificate)
    }

    /// A new signing key with its certificate, from a time on which no commit of the old key has; the old key is
    /// destroyed. The caller holds the data directory's lock: a hub that signed on with the old key would sign outside of
    /// its certificate.
    pub fn replace(&self, identity: &Path, from: Time, now: Time, days: u32) -> Result<HubCertificate, KeyFileError> {
        let old = self.certificate()?;
        let identity = identity_of(old.hub, identity)?;
        let signing = generate()?;
        let certificate = certify(&identity, &signing, from, now.plus_ms(days_ms(days)));
        write_secret(&self.signing_path(), &signing)?;
        self.write_certificate(&certificate)?;
        Ok(certificate)
    }

    /// The certificate; its signature holds.
    pub fn certificate(&self) -> Result<HubCertificate, KeyFileError> {
        let path = self.certificate_path();
        let file = File::open(&path).map_err(KeyFileError::io("open", &path))?;
        let mut text = Vec::new();
        file.take(CERTIFICATE_BYTES_MAX).read_to_end(&mut text).map_err(KeyFileError::io("read", &path))?;
        let parsed: CertificateFile = serde_json::from_slice(&text)
            .map_err(|source| KeyFileError::NotACertificate { path: path.clone(), source })?;
        let signed = SignedCertificate {
            certificate: Certificate {
                key: parsed.key,
                not_before: Time(parsed.not_before_ms),
                not_after: Time(parsed.not_after_ms),
            },
            signature: parsed.signature,
        };
        match signed.check(&parsed.hub) {
            Ok(()) => Ok(HubCertificate { hub: parsed.hub, signed }),
            Err(_) => Err(KeyFileError::Unsigned { path, hub: parsed.hub }),
        }
    }

    /// What the hub runs with: the signing key and the certificate that is for it.
    pub fn load(&self) -> Result<(SecretKey, HubCertificate), KeyFileError> {
        let certificate = self.certificate()?;
        let signing = read_secret(&self.signing_path())?;
        if signing.public() == certificate.signed.certificate.key {
            Ok((signing, certificate))
        } else {
            Err(KeyFileError::OtherKey { path: self.certificate_path() })
        }
    }

    /// The key of QUIC's stateless resets, the same at every start. Made when it is not there.
    pub fn reset_key(&self) -> Result<[u8; 32], KeyFileError> {
        let path = self.directory.join(RESET);
        match read_hex(&path) {
            Ok(key) => Ok(*key),
            Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let key = random_secret()?;
                write_hex(&path, &key)?;
                Ok(key)
            }
            Err(error) => Err(error),
        }
    }

    fn write_certificate(&self, certificate: &HubCertificate) -> Result<(), KeyFileError> {
        let HubCertificate { hub, signed } = certificate;
        let file = CertificateFile {
            hub: *hub,
            key: signed.certificate.key,
            not_before_ms: signed.certificate.not_before.0,
            not_after_ms: signed.certificate.not_after.0,
            signature: signed.signature,
        };
        let path = self.certificate_path();
        let mut text =
            serde_json::to_vec_pretty(&file).map_err(io::Error::from).map_err(KeyFileError::io("write", &path))?;
        text.push(b'\n');
        write_durably(&path, &text, PUBLIC_MODE)
    }
}

fn days_ms(days: u32) -> u64 {
    u64::from(days) * DAY_MS
}

fn certify(identity: &SecretKey, signing: &SecretKey, not_before: Time, not_after: Time) -> HubCertificate {
    let hub = HubId(identity.public());
    let certificate = Certificate { key: signing.public(), not_before, not_after };
    let signature = identity.sign(&Act::Certificate(certificate).digest(&hub));
    HubCertificate { hub, signed: SignedCertificate { certificate, signature } }
}

/// The identity key of a hub.
fn identity_of(hub: HubId, path: &Path) -> Result<SecretKey, KeyFileError> {
    let identity = read_secret(path)?;
    if identity.public() == hub.key() { Ok(identity) } else { Err(KeyFileError::OtherHub { path: path.to_owned() }) }
}

/// 32 random bytes that are never stored.
pub fn random_secret() -> Result<[u8; 32], KeyFileError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(KeyFileError::Random)?;
    Ok(bytes)
}

fn generate() -> Result<SecretKey, KeyFileError> {
    loop {
        let bytes = Zeroizing::new(random_secret()?);
        // All but 2^-128 of the values are keys.
        if let Ok(key) = SecretKey::from_bytes(&bytes) {
            return Ok(key);
        }
    }
}

/// Makes a directory, and those above it, that only its owner can enter.
pub fn make_private_directory(path: &Path) -> Result<(), KeyFileError> {
    DirBuilder::new().recursive(true).mode(SECRET_DIRECTORY_MODE).create(path).map_err(KeyFileError::io("create", path))
}

fn write_secret(path: &Path, key: &SecretKey) -> Result<(), KeyFileError> {
    write_hex(path, &key.to_bytes())
}

fn write_hex(path: &Path, bytes: &[u8; 32]) -> Result<(), KeyFileError> {
    let mut text = Zeroizing::new(hex::encode(bytes));
    text.push('\n');
    write_durably(path, text.as_bytes(), SECRET_MODE)
}

/// Makes a key file that nobody but its owner can read; the public key. What is there is never replaced.
pub fn create_key_file(path: &Path) -> Result<PublicKey, KeyFileError> {
    let key = generate()?;
    // Whoever comes second loses: a key that somebody uses must not be written over.
    let options = OpenOptions::new().write(true).create_new(true).mode(SECRET_MODE).open(path);
    drop(options.map_err(KeyFileError::io("create", path))?);
    write_secret(path, &key)?;
    Ok(key.public())
}

/// Reads a secret key that nobody but its owner can read.
pub fn read_secret(path: &Path) -> Result<SecretKey, KeyFileError> {
    let bytes = read_hex(path)?;
    SecretKey::from_bytes(&bytes).map_err(|_| KeyFileError::NotAKey { path: path.to_owned() })
}

fn read_hex(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let file = File::open(path).map_err(KeyFileError::io("open", path))?;
    let mode = file.metadata().map_err(KeyFileError::io("read", path))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
    }
    let not_a_key = || KeyFileError::NotAKey { path: path.to_owned() };
    let mut text = Zeroizing::new(Vec::new());
    file.take(KEY_BYTES_MAX).read_to_end(&mut text).map_err(KeyFileError::io("read", path))?;
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_ascii_end(), &mut *bytes).map_err(|_| not_a_key())?;
    Ok(bytes)
}

/// Puts a whole file with these permissions in its place, or leaves what was there: temporary file, sync, rename, sync of
/// the directory.
pub fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyFileError> {
    let temporary = path.with_extension("tmp");
    // A left-over file may have other permissions.
    let _ = std::fs::remove_file(&temporary);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(KeyFileError::io("create", &temporary))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(KeyFileError::io("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(KeyFileError::io("rename", &temporary))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(KeyFileError::io("sync", parent))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use std::fs::Permissions;

    use super::*;

    fn files() -> (tempfile::TempDir, KeyFiles) {
        let directory = tempfile::tempdir().unwrap();
        let files = KeyFiles::of(directory.path());
        (directory, files)
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn keys_are_their_owners_alone_and_load_again() {
        let (_directory, files) = files();
        let made = files.create(Time(DAY_MS), 1).unwrap();
        assert_eq!((mode(&files.identity_path()), mode(&files.signing_path())), (0o600, 0o600));
        assert_eq!(mode(&files.directory), 0o700);
        let (key, loaded) = files.load().unwrap();
        assert_eq!(loaded, made);
        assert_eq!(key.public(), made.signed.certificate.key);
        assert_eq!(made.signed.certificate.not_after, Time(2 * DAY_MS));
        assert_eq!(files.reset_key().unwrap(), files.reset_key().unwrap());
        std::fs::remove_file(files.identity_path()).unwrap();
        assert!(files.load().is_ok(), "the hub runs without its identity key");
    }

    #[test]
    fn key_that_others_can_read_is_refused() {
        let (_directory, files) = files();
        files.create(Time(0), 1).unwrap();
        for bad in [0o640, 0o604, 0o660, 0o644] {
            std::fs::set_permissions(files.signing_path(), Permissions::from_mode(bad)).unwrap();
            let error = files.load().unwrap_err();
            assert!(matches!(error, KeyFileError::Exposed { mode, .. } if mode == bad));
            assert!(error.hint().unwrap().starts_with("chmod 600"));
        }
        std::fs::set_permissions(files.signing_path(), Permissions::from_mode(0o400)).unwrap();
        assert!(files.load().is_ok());
    }

    #[test]
    fn renewal_covers_the_old_commits_and_replacement_does_not_overlap_them() {
        let (_directory, files) = files();
        let first = files.create(Time(10 * DAY_MS), 1).unwrap();
        let renewed = files.renew(&files.identity_path(), Time(12 * DAY_MS), 5).unwrap();
        assert_eq!(renewed.signed.certificate.key, first.signed.certificate.key);
        assert_eq!(renewed.signed.certificate.not_before, first.signed.certificate.not_before);
        assert_eq!(renewed.signed.certificate.not_after, Time(17 * DAY_MS));
        let from = Time(13 * DAY_MS);
        let replaced = files.replace(&files.identity_path(), from, from, 5).unwrap();
        assert_eq!(replaced.hub, first.hub);
        assert_ne!(replaced.signed.certificate.key, first.signed.certificate.key);
        assert_eq!(replaced.signed.certificate.not_before, from);
        assert_eq!(files.load().unwrap().1, replaced);
    }

    #[test]
    fn key_or_certificate_of_another_hub_is_refused() {
        let (_one, one) = files();
        let (_two, two) = files();
        one.create(Time(0), 1).unwrap();
        two.create(Time(0), 1).unwrap();
        let error = one.renew(&two.identity_path(), Time(1), 1).unwrap_err();
        assert!(matches!(error, KeyFileError::OtherHub { .. }));
        std::fs::copy(two.certificate_path(), one.certificate_path()).unwrap();
        assert!(matches!(one.load(), Err(KeyFileError::OtherKey { .. })));
        let text = std::fs::read_to_string(two.certificate_path())
            .unwrap()
            .replace("\"not_after_ms\": 8", "\"not_after_ms\": 9");
        std::fs::write(two.certificate_path(), text).unwrap();
        assert!(matches!(two.certificate(), Err(KeyFileError::Unsigned { .. })));
    }

    #[test]
    fn anything_else_than_a_key_is_refused_and_never_printed() {
        let (directory, _) = files();
        let path = directory.path().join("key");
        for text in ["", "00", &"0".repeat(64), &"f".repeat(64), &"g".repeat(64), &"a".repeat(66)] {
            write_durably(&path, text.as_bytes(), SECRET_MODE).unwrap();
            let error = read_secret(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::NotAKey { .. }));
            assert!(text.is_empty() || !format!("{error} {error:?}").contains(&format!("{text}\"")));
        }
    }
}
