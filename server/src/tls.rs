//! TLS, and which HTTP is spoken inside: HTTP/2 where the client asks for it (ALPN), else HTTP/1.1. The operator's calls speak
//! HTTP/1.1.

use std::{path::Path, sync::Arc};

use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// What is offered in the handshake, in the order of preference.
pub(crate) const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// Why the certificate or the key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file is no PEM of what it should be.
    #[error("{path}: {error}")]
    Pem {
        /// The file.
        path: String,
        /// Why.
        error: rustls::pki_types::pem::Error,
    },
    /// The operating system trusts nobody, as far as can be read.
    #[error("no certificates of the operating system can be read: name those to trust with --ca-cert")]
    NoRoots,
    /// Certificate and key are not for each other, or of a kind that is not known.
    #[error("{certificates} and {key} cannot be used: {error}")]
    Pair {
        /// The file of the certificate chain.
        certificates: String,
        /// The file of the key.
        key: String,
        /// Why.
        error: rustls::Error,
    },
    /// Something that is not about a file.
    #[error("TLS cannot be used: {0}")]
    Other(#[from] rustls::Error),
}

/// Reads a certificate chain and its private key, both PEM.
///
/// # Errors
/// [`TlsError`] naming the file.
pub fn read(certificates: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let failed = |path: &Path, error| TlsError::Pem {
        path: path.display().to_string(),
        error,
    };
    let chain = CertificateDer::pem_file_iter(certificates)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(certificates, error))?;
    #[cfg(unix)]
    if let Ok(file) = std::fs::metadata(key)
        && std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o007 != 0
    {
        tracing::warn!(key = %key.display(), "everybody on this machine may read the private key: chmod o= it");
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| TlsError::Pair {
            certificates: certificates.display().to_string(),
            key: key.display().to_string(),
            error,
        })?;
    config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
    Ok(Arc::new(config))
}

/// For calls to a relay: whom to trust, by a file of certificates (PEM), or as the operating system does.
///
/// # Errors
/// [`TlsError`] naming the file, or [`TlsError::NoRoots`].
pub fn client(trusted: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    match trusted {
        Some(path) => {
            let failed = |error| TlsError::Pem {
                path: path.display().to_string(),
                error,
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
                roots.add(certificate.map_err(failed)?)?;
            }
        }
        None => {
            // Some of a system's certificates may be unreadable; the others do.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
