//! TLS as a client: which certificate is believed, and what share of sessions
//! resumes an earlier one.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue, WebPkiServerVerifier, verify_server_name,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, NamedGroup, RootCertStore,
    SignatureScheme,
};

use crate::random::Random;

/// Where TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// No TLS
    None,
    /// From the first octet
    Implicit,
    /// After STLS
    Stls,
}

/// Where Debian and its kin keep the certificates that the system believes.
const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Tickets kept for resumption: more than sessions are ever open at a time.
const KEPT_TICKETS: usize = 65_536;

/// All that new connections need.
#[derive(Clone, Debug)]
pub struct Client {
    fresh: Arc<ClientConfig>,
    resuming: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// Share of sessions that resume where they can.
    share: f64,
}

impl Client {
    /// `ca`: certificates in PEM to believe; `insecure`: believe everyone.
    ///
    /// Errors are for the operator: they name the argument.
    pub fn new(name: &str, ca: Option<&Path>, insecure: bool, share: f64) -> Result<Self, String> {
        let server = ServerName::try_from(name.to_owned())
            .map_err(|_| format!("{name} is no name of a server: give one with --sni"))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("TLS: {e}"))?;
        let mut fresh = if insecure {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
                .with_no_client_auth()
        } else {
            let path = ca.unwrap_or(Path::new(SYSTEM_CA));
            let (roots, certificates) = roots(path)?;
            let inner = WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
                .build()
                .map_err(|e| format!("--ca {}: {e}", path.display()))?;
            let named = if ca.is_some() {
                certificates
            } else {
                Vec::new()
            };
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Believed { inner, named }))
                .with_no_client_auth()
        };
        let mut resuming = fresh.clone();
        fresh.resumption = Resumption::disabled();
        resuming.resumption = Resumption::store(Arc::new(Tickets::default()));
        Ok(Self {
            fresh: Arc::new(fresh),
            resuming: Arc::new(resuming),
            name: server,
            share,
        })
    }

    /// A connection that is about to greet the server.
    pub fn connect(&self, random: &mut Random) -> Result<ClientConnection, rustls::Error> {
        let resumes = self.share > 0.0 && random.fraction() < self.share;
        let config = if resumes { &self.resuming } else { &self.fresh };
        ClientConnection::new(Arc::clone(config), self.name.clone())
    }
}

fn roots(path: &Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), String> {
    let name = path.display();
    let pem = fs::read(path).map_err(|e| {
        format!("--ca {name}: {e}; name a file of certificates in PEM, or use --insecure")
    })?;
    let mut store = RootCertStore::empty();
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| format!("--ca {name}: {e}"))?;
        // Some of a system's certificates may be too old to be read: without
        // them it believes fewer servers, not more.
        let _ = store.add(certificate.clone());
        certificates.push(certificate);
    }
    if store.is_empty() {
        return Err(format!("--ca {name}: holds no certificate"));
    }
    Ok((store, certificates))
}

/// What sessions with the one server leave for others to resume.
///
/// rustls's own store keeps eight tickets of TLS 1.3 a server, whatever its size, and a
/// ticket serves once: of a hundred sessions that begin together eight could resume.
#[derive(Debug)]
struct Tickets {
    /// Of TLS 1.2, where one session serves all that follow, and of the key exchange.
    others: ClientSessionMemoryCache,
    /// The newest last; the oldest goes where there are too many.
    tickets: Mutex<VecDeque<Tls13ClientSessionValue>>,
}

impl Default for Tickets {
    fn default() -> Self {
        Self {
            others: ClientSessionMemoryCache::new(1),
            tickets: Mutex::default(),
        }
    }
}

impl Tickets {
    fn tickets(&self) -> std::sync::MutexGuard<'_, VecDeque<Tls13ClientSessionValue>> {
        self.tickets.lock().expect("nobody panics while holding it")
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.others.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.others.kx_hint(server)
    }

    fn set_tls12_session(&self, server: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.others.set_tls12_session(server, session);
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.others.tls12_session(server)
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.others.remove_tls12_session(server);
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut tickets = self.tickets();
        if tickets.len() == KEPT_TICKETS {
            tickets.pop_front();
        }
        tickets.push_back(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.tickets().pop_back()
    }
}

/// Believes what a chain of certificates proves, and the very certificates that
/// the operator named: one that signed itself is often marked as an authority's,
/// which no server's may be by the rules for chains. Its name must be right; its
/// dates are not looked at.
#[derive(Debug)]
struct Believed {
    inner: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Believed {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.named.iter().any(|named| named == certificate) {
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        let inner = &self.inner;
        inner.verify_server_cert(certificate, between, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Believes any certificate; signatures are checked all the same, so that the
/// work is that of a real client.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_believed_is_refused() {
        let error = Client::new("localhost", Some(Path::new("/nowhere")), false, 0.0);
        assert!(error.expect_err("absent").contains("--ca /nowhere"));
        let empty = tempfile::NamedTempFile::new().expect("a file");
        let error = Client::new("localhost", Some(empty.path()), false, 0.0);
        assert!(error.expect_err("empty").contains("holds no certificate"));
        assert!(Client::new("a b", None, true, 0.0).is_err());
        assert!(Client::new("127.0.0.1", None, true, 0.5).is_ok());
    }
}
