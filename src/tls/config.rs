//! Certificates from their files to a rustls configuration.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why a certificate cannot be served, for the operator.
#[derive(Debug)]
pub enum CertificateError {
    /// The file cannot be read as PEM.
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// Chain and key do not belong together, or rustls does not take them.
    Refused {
        /// The chain's file.
        chain: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls says.
        cause: String,
    },
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertificateError::Unreadable { file, cause } => write!(
                f,
                "{}: {cause}; put the PEM text of the certificate chain or the private key there, \
                 readable for the server",
                file.display()
            ),
            CertificateError::Refused { chain, key, cause } => write!(
                f,
                "{} with {}: {cause}; the key must be that of the chain's first certificate",
                chain.display(),
                key.display()
            ),
        }
    }
}

impl std::error::Error for CertificateError {}

/// The server's configuration for the certificate chain and key in two files.
///
/// # Errors
///
/// The file that cannot be used, and why.
pub fn server_config(chain: &Path, key: &Path) -> Result<Arc<ServerConfig>, CertificateError> {
    let unreadable = |file: &Path, cause: String| CertificateError::Unreadable {
        file: file.to_owned(),
        cause,
    };
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(chain, error.to_string()))?;
    if certificates.is_empty() {
        return Err(unreadable(chain, "no certificate in it".to_owned()));
    }
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error.to_string()))?;
    let refused = |error: rustls::Error| CertificateError::Refused {
        chain: chain.to_owned(),
        key: key.to_owned(),
        cause: error.to_string(),
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_no_client_auth()
        .with_single_cert(certificates, private)
        .map_err(refused)?;
    Ok(Arc::new(config))
}
