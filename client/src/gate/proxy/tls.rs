//! TLS of both sides: the gate's certificate, read again without a restart, and whom the gate trusts upstream.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file could not be read.
    #[error("cannot read `{path}`: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        reason: String,
    },
    /// There is no certificate in the file.
    #[error("no certificate in `{0}`")]
    NoCertificate(PathBuf),
    /// The key does not belong to the certificate, or is of a kind that is not known.
    #[error("certificate and key do not work together: {0}")]
    Pair(#[source] rustls::Error),
    /// The roots of trust could not be loaded.
    #[error("cannot load the roots of trust: {0}")]
    Roots(#[source] rustls::Error),
    /// The provider does not know the protocol versions.
    #[error("cannot set up TLS: {0}")]
    Setup(#[source] rustls::Error),
}

/// Where the gate's certificate chain and its private key are, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the gate's own certificate first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The gate's certificate. Connections that begin after [`Certificates::reload`] see the new one.
#[derive(Debug)]
pub struct Certificates {
    files: TlsFiles,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    stamp: Stamp,
}

/// What changes when a file is replaced.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Certificates {
    /// Reads both files.
    pub fn load(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let current = Current { stamp: stamp(&files), key: read(&files)? };
        Ok(Arc::new(Self { files, current: RwLock::new(current) }))
    }

    /// Reads both files again. On an error the certificate in use stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let current = Current { stamp: stamp(&self.files), key: read(&self.files)? };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        Ok(())
    }

    /// Reads both files again if either was replaced; whether it did. Half a replacement (the key of another certificate) is
    /// an error and tried again at the next call.
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        if self.current.read().unwrap_or_else(PoisonError::into_inner).stamp == stamp(&self.files) {
            return Ok(false);
        }
        self.reload().map(|()| true)
    }

    pub(super) fn server_config(self: &Arc<Self>) -> Result<rustls::ServerConfig, TlsError> {
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).key))
    }
}

fn stamp(files: &TlsFiles) -> Stamp {
    [&files.certificate, &files.key].map(|path| {
        let data = std::fs::metadata(path).ok()?;
        Some((data.modified().ok()?, data.len()))
    })
}

fn read(files: &TlsFiles) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| file_error(&files.key, &error))?;
    let key = CertifiedKey::from_der(chain, key, &provider()).map_err(TlsError::Pair)?;
    Ok(Arc::new(key))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| file_error(path, &error))?;
    if chain.is_empty() { Err(TlsError::NoCertificate(path.to_owned())) } else { Ok(chain) }
}

fn file_error(path: &Path, error: &rustls::pki_types::pem::Error) -> TlsError {
    let reason = match error {
        rustls::pki_types::pem::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            "no such file".to_owned()
        }
        rustls::pki_types::pem::Error::NoItemsFound => "nothing of that kind in it".to_owned(),
        error => error.to_string(),
    };
    TlsError::File { path: path.to_owned(), reason }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// TLS towards an upstream: the system's roots, and those in `ca_file` besides. There is no way to skip the check.
pub(super) fn client_config(ca_file: Option<&Path>, alpn: &[&[u8]]) -> Result<rustls::ClientConfig, TlsError> {
    let roots = ca_file.map(certificates).transpose()?.unwrap_or_default();
    let verifier =
        rustls_platform_verifier::Verifier::new_with_extra_roots(roots, provider()).map_err(TlsError::Roots)?;
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}
