//! A certificate with its key, from their files, and what it says of itself.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::binding;
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
        /// Whether it is only that this process may not read it.
        refused: bool,
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
    /// No cipher suite that is allowed goes with the certificate's key.
    Unserved {
        /// The chain's file.
        chain: PathBuf,
        /// The kind of its key.
        kind: KeyKind,
    },
    /// rustls does not take what the configuration asks for.
    Unsupported(String),
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertificateError::Unreadable { file, cause, .. } => write!(
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
            CertificateError::Unserved { chain, kind } => write!(
                f,
                "{}: no suite of tls.ciphers goes with its {kind} key; allow those of TLS 1.3, or \
                 of TLS 1.2 those with {kind} in their names",
                chain.display()
            ),
            CertificateError::Unsupported(cause) => {
                write!(f, "[tls]: {cause}; allow more cipher suites or versions")
            }
        }
    }
}

impl std::error::Error for CertificateError {}

impl CertificateError {
    /// A file that is not what it should be.
    pub(super) fn wrong(file: &Path, cause: impl Into<String>) -> Self {
        CertificateError::Unreadable {
            file: file.to_owned(),
            cause: cause.into(),
            refused: false,
        }
    }

    /// Whether another user may find it right.
    pub fn is_refusal(&self) -> bool {
        matches!(self, CertificateError::Unreadable { refused: true, .. })
    }
}

/// The octets of a file, as long as it is one of a decent size.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let read = || -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("is not a file"));
        }
        let mut octets = Vec::new();
        file.take(limits::PEM_FILE).read_to_end(&mut octets)?;
        Ok(octets)
    };
    read().map_err(|error| CertificateError::Unreadable {
        file: path.to_owned(),
        cause: error.to_string(),
        refused: error.kind() == io::ErrorKind::PermissionDenied,
    })
}

/// The certificates of a PEM file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let octets = read(path)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&octets).collect();
    let wrong = |error: pem::Error| CertificateError::wrong(path, error.to_string());
    let certificates = parsed.map_err(wrong)?;
    if certificates.is_empty() {
        return Err(CertificateError::wrong(path, "no certificate in it"));
    }
    Ok(certificates)
}

/// A certificate that can be served.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) facts: Facts,
    /// Its digest as a channel binding has it.
    pub(super) end_point: Option<Arc<[u8]>>,
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
    /// What the first certificate of a chain says, whose key may be another's to read.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is none of a chain.
    pub fn read(chain: &Path) -> Result<Self, CertificateError> {
        let certificates = certificates(chain)?;
        let (_, parsed) = X509Certificate::from_der(&certificates[0])
            .map_err(|error| CertificateError::wrong(chain, error.to_string()))?;
        Ok(Self::of(chain, &parsed))
    }

    fn of(chain: &Path, certificate: &X509Certificate<'_>) -> Self {
        let seconds = certificate.validity().not_after.timestamp();
        let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let is_rsa = matches!(certificate.public_key().parsed(), Ok(PublicKey::RSA(_)));
        Self {
            chain: chain.to_owned(),
            names: host_names(certificate),
            kind: if is_rsa {
                KeyKind::Rsa
            } else {
                KeyKind::Elliptic
            },
            expires: SystemTime::UNIX_EPOCH + since,
        }
    }

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
        let private = PrivateKeyDer::from_pem_slice(&read(key)?)
            .map_err(|error| CertificateError::wrong(key, error.to_string()))?;
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
        let end_point = binding::end_point(&leaf, &parsed);
        let facts = Facts::of(chain, &parsed);
        Ok(Certificate {
            certified: Arc::new(certified),
            facts,
            end_point,
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
