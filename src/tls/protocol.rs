//! What of TLS is spoken: versions, cipher suites, key exchange, and whose
//! certificates are believed.
//!
//! Key exchange is X25519MLKEM768, then X25519, then P-256; of those that
//! a client offers rustls takes the client's first. Of cipher suites the server's
//! first is taken that the client has: auditors take the client's order for no
//! order at all. Early data is refused: whoever replays a packet
//! replays a login (RFC 8446, section 8).

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::{
    RootCertStore, ServerConfig, SignatureAlgorithm, SupportedCipherSuite,
    SupportedProtocolVersion, version,
};

use super::binding::Exporters;
use super::certificate::{self, CertificateError, KeyKind};
use super::tickets::Tickets;
use crate::config::{Cipher, ClientCertificates, TlsOptions, TlsVersion};

/// Key exchange groups, those a server likes best first.
const GROUPS: [&dyn SupportedKxGroup; 3] = [
    kx_group::X25519MLKEM768,
    kx_group::X25519,
    kx_group::SECP256R1,
];

/// Tickets after a handshake of TLS 1.3. A maildrop is exclusive, so that
/// a client has one connection at a time, and each brings its own ticket.
const TICKETS: usize = 1;

/// Who may show a client's certificate.
pub(super) struct Authority {
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// What the tickets of sessions under this authority are bound to.
    identity: Vec<u8>,
}

impl Authority {
    pub(super) fn load(options: &TlsOptions) -> Result<Authority, CertificateError> {
        let (file, required) = match &options.clients {
            ClientCertificates::None => {
                return Ok(Authority {
                    verifier: None,
                    identity: Vec::new(),
                });
            }
            ClientCertificates::Optional(file) => (file, false),
            ClientCertificates::Required(file) => (file, true),
        };
        let mut identity = vec![u8::from(required)];
        let roots = roots(file, &mut identity)?;
        let provider = provider(&options.ciphers);
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = if required {
            builder
        } else {
            builder.allow_unauthenticated()
        };
        let verifier = builder
            .build()
            .map_err(|error| CertificateError::wrong(file, error.to_string()))?;
        Ok(Authority {
            verifier: Some(verifier),
            identity,
        })
    }

    pub(super) fn identity(&self) -> &[u8] {
        &self.identity
    }
}

fn roots(file: &Path, identity: &mut Vec<u8>) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificate::certificates(file)? {
        identity.extend_from_slice(&certificate);
        roots
            .add(certificate)
            .map_err(|error| CertificateError::wrong(file, error.to_string()))?;
    }
    Ok(roots)
}

fn suite(cipher: Cipher) -> SupportedCipherSuite {
    match cipher {
        Cipher::Aes128GcmSha256 => cipher_suite::TLS13_AES_128_GCM_SHA256,
        Cipher::Aes256GcmSha384 => cipher_suite::TLS13_AES_256_GCM_SHA384,
        Cipher::Chacha20Poly1305Sha256 => cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        Cipher::EcdheEcdsaAes128GcmSha256 => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        Cipher::EcdheEcdsaAes256GcmSha384 => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        Cipher::EcdheEcdsaChacha20Poly1305 => {
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        Cipher::EcdheRsaAes128GcmSha256 => cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        Cipher::EcdheRsaAes256GcmSha384 => cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        Cipher::EcdheRsaChacha20Poly1305 => {
            cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        }
    }
}

fn provider(ciphers: &[Cipher]) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: ciphers.iter().copied().map(suite).collect(),
        kx_groups: GROUPS.to_vec(),
        ..aws_lc_rs::default_provider()
    })
}

/// Whether any of the suites can be spoken by who has a key of that kind. Those of TLS 1.3
/// leave the kind open.
pub(super) fn serves(ciphers: &[Cipher], kind: KeyKind) -> bool {
    let algorithm = match kind {
        KeyKind::Elliptic => SignatureAlgorithm::ECDSA,
        KeyKind::Rsa => SignatureAlgorithm::RSA,
    };
    let mut suites = ciphers.iter().copied().map(suite);
    suites.any(|suite| suite.usable_for_signature_algorithm(algorithm))
}

fn versions(ciphers: &[Cipher]) -> Vec<&'static SupportedProtocolVersion> {
    let spoken = |version| ciphers.iter().any(|cipher| cipher.version() == version);
    [
        (TlsVersion::Tls13, &version::TLS13),
        (TlsVersion::Tls12, &version::TLS12),
    ]
    .into_iter()
    .filter(|(version, _)| spoken(*version))
    .map(|(_, version)| version)
    .collect()
}

/// A configuration for these certificates, whose tickets are sealed like this.
pub(super) fn server_config(
    options: &TlsOptions,
    authority: &Authority,
    tickets: Arc<Tickets>,
    certificates: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, CertificateError> {
    let builder = ServerConfig::builder_with_provider(provider(&options.ciphers))
        .with_protocol_versions(&versions(&options.ciphers))
        .map_err(|error| CertificateError::Unsupported(error.to_string()))?;
    let builder = match &authority.verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
    };
    let mut config = builder.with_cert_resolver(certificates);
    config.ticketer = tickets;
    // Sessions in memory would be those of one process, shared by its shards.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ignore_client_order = true;
    config.send_tls13_tickets = TICKETS;
    config.max_early_data_size = 0;
    // Nothing is logged: it is how rustls tells what a login can be bound to.
    config.key_log = Arc::new(Exporters);
    config.enable_secret_extraction = options.kernel;
    Ok(config)
}
