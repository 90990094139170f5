//! A certificate with its key, from their files, and what it says of itself.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::SignatureAlgorithm;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::CertificateOptions;
use crate::limits;

/// Why something that TLS needs cannot be used, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateError {
    /// A file cannot be read, or is not what it should be.
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
    /// rustls does not take what the configuration asks for.
    Unsupported(String),
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
            CertificateError::Unsupported(cause) => {
                write!(f, "[tls]: {cause}; allow more cipher suites or versions")
            }
        }
    }
}

impl std::error::Error for CertificateError {}

/// The octets of a file, as long as it is one of a decent size.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let unreadable = |cause: String| CertificateError::Unreadable {
        file: path.to_owned(),
        cause,
    };
    let read = || -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("is not a file"));
        }
        let mut octets = Vec::new();
        file.take(limits::PEM_FILE).read_to_end(&mut octets)?;
        Ok(octets)
    };
    read().map_err(|error| unreadable(error.to_string()))
}

/// The certificates of a PEM file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let unreadable = |cause: String| CertificateError::Unreadable {
        file: path.to_owned(),
        cause,
    };
    let octets = read(path)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&octets).collect();
    let certificates = parsed.map_err(|error| unreadable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unreadable("no certificate in it".to_owned()));
    }
    Ok(certificates)
}

/// A certificate that can be served.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) facts: Facts,
}

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The file of its chain.
    pub chain: PathBuf,
    /// The host names it is for, in lower case; `*.` before those that are for
    /// all hosts of a domain.
    pub names: Vec<String>,
    /// The kind of its key.
    pub kind: KeyKind,
    /// The last moment at which it is valid.
    pub expires: SystemTime,
}

/// The kind of a certificate's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Elliptic curves: cheap for the server.
    Elliptic,
    /// RSA: for old clients.
    Rsa,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyKind::Elliptic => "ECDSA",
            KeyKind::Rsa => "RSA",
        })
    }
}

impl Facts {
    /// Whole days until it expires; negative where it has.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        const DAY: u64 = 24 * 60 * 60;
        let days = |left: Duration| i64::try_from(left.as_secs() / DAY).unwrap_or(i64::MAX);
        match self.expires.duration_since(now) {
            Ok(left) => days(left),
            Err(over) => -1 - days(over.duration()),
        }
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names.join(", ");
        write!(f, "{} ({}, {names})", self.chain.display(), self.kind)
    }
}

impl Certificate {
    /// Reads a chain and its key.
    pub(super) fn load(options: &CertificateOptions) -> Result<Certificate, CertificateError> {
        let CertificateOptions { chain, key } = options;
        let certificates = certificates(chain)?;
        let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| {
            CertificateError::Unreadable {
                file: key.clone(),
                cause: error.to_string(),
            }
        })?;
        let refused = |cause: String| CertificateError::Refused {
            chain: chain.clone(),
            key: key.clone(),
            cause,
        };
        let leaf = certificates[0].clone();
        let certified =
            CertifiedKey::from_der(certificates, private, &aws_lc_rs::default_provider())
                .map_err(|error| refused(error.to_string()))?;
        let (_, parsed) = X509Certificate::from_der(&leaf)
            .map_err(|error| refused(format!("the certificate cannot be read: {error}")))?;
        let kind = match certified.key.algorithm() {
            SignatureAlgorithm::RSA => KeyKind::Rsa,
            _ => KeyKind::Elliptic,
        };
        let seconds = parsed.validity().not_after.timestamp();
        let expires =
            SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let facts = Facts {
            chain: chain.clone(),
            names: host_names(&parsed),
            kind,
            expires,
        };
        Ok(Certificate {
            certified: Arc::new(certified),
            facts,
        })
    }
}

/// The names of RFC 6125: those of the extension, and the subject's common name
/// where there is none.
fn host_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut names = Vec::new();
    if let Ok(Some(alternative)) = certificate.subject_alternative_name() {
        for name in &alternative.value.general_names {
            if let GeneralName::DNSName(name) = name {
                names.push(name.to_ascii_lowercase());
            }
        }
    }
    if names.is_empty() {
        names.extend(common_name(certificate).map(|name| name.to_ascii_lowercase()));
    }
    names
}

fn common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

/// The name that a client's certificate vouches for: its mail address where it
/// has one (RFC 4422's EXTERNAL wants an identity, RFC 8550 says where it is),
/// otherwise the subject's common name.
pub(super) fn client_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    if let Ok(Some(alternative)) = certificate.subject_alternative_name() {
        for name in &alternative.value.general_names {
            if let GeneralName::RFC822Name(address) = name {
                return Some((*address).to_owned());
            }
        }
    }
    common_name(&certificate)
}
