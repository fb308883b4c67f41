//! The HTTP client underneath: TLS by the system's own roots, no redirects, nothing unpacked.

use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// A file of certificates holds none, or others.
    #[error("not certificates in PEM: {0}")]
    Certificates(String),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// The client library refuses.
    #[error(transparent)]
    Client(#[from] reqwest::Error),
}

/// A client to pay with: it follows no redirects, since a credential belongs to one origin. `roots` are certificates in
/// PEM that are trusted beside the system's.
pub fn client(roots: Option<&[u8]>, timeout: Option<Duration>) -> Result<reqwest::Client, WebError> {
    let mut builder = builder(tls(roots)?);
    if let Some(timeout) = timeout {
        builder = builder.timeout(timeout);
    }
    Ok(builder.build()?)
}

/// The same for requests that switch to another protocol, such as WebSocket: HTTP/1.1 alone, since HTTP/2 has no switch.
pub fn switching_client(roots: Option<&[u8]>) -> Result<reqwest::Client, WebError> {
    let mut tls = tls(roots)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(builder(tls).http1_only().build()?)
}

fn builder(tls: rustls::ClientConfig) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
}

/// TLS 1.2 and 1.3 with ring, and the platform's judgement of certificates.
fn tls(roots: Option<&[u8]>) -> Result<rustls::ClientConfig, WebError> {
    let fault = |error: rustls::Error| WebError::Tls(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = roots.map(certificates).transpose()?.unwrap_or_default();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(fault)?;
    let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(roots, provider);
    let mut config = match verifier {
        Ok(verifier) => builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth(),
        Err(error) => {
            // A machine without any roots can still speak plain HTTP: `https` fails there, and says why.
            tracing::warn!(%error, "no certificates of authorities are known: `https` will fail");
            builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, WebError> {
    let fault = |error: rustls::pki_types::pem::Error| WebError::Certificates(error.to_string());
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(fault)?;
    if found.is_empty() { Err(WebError::Certificates("there is none".to_owned())) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_is_made_without_any_setting_and_refuses_what_is_no_certificate() {
        assert!(client(None, Some(Duration::from_secs(1))).is_ok());
        assert!(matches!(client(Some(b"hello"), None), Err(WebError::Certificates(_))));
        let damaged = b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n";
        assert!(matches!(client(Some(damaged), None), Err(WebError::Certificates(_))));
    }
}
