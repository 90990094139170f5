//! Which certificate a client gets: by the name it asks for (SNI, RFC 6066) and
//! by the signatures it understands.
//!
//! An exact name goes before a wildcard, and a wildcard stands for one label
//! (RFC 6125, section 6.4.3). For one name there may be several certificates
//! with keys of different kinds: elliptic ones are cheaper by a factor of ten
//! for the server, so that RSA is for clients that understand nothing else. A
//! client that names no host, or one that is not served, gets the default: the
//! first certificate, and those beside it for the same name.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::binding::Heard;
use super::certificate::{Certificate, KeyKind};

/// Positions of certificates, elliptic ones first.
type Positions = Vec<usize>;

/// The certificates of all names. It never changes: a renewed certificate makes
/// a new one.
#[derive(Debug)]
pub(super) struct Chooser {
    certificates: Vec<Arc<CertifiedKey>>,
    /// The digests of the same, for channel binding.
    end_points: Vec<Option<Arc<[u8]>>>,
    exact: HashMap<String, Positions>,
    /// By what stands behind `*.`.
    wildcards: HashMap<String, Positions>,
    default: Positions,
}

impl Chooser {
    /// Certificates in the order of the configuration, at least one.
    pub(super) fn new(certificates: &[Certificate]) -> Chooser {
        let mut order: Positions = (0..certificates.len()).collect();
        order.sort_by_key(|at| certificates[*at].facts.kind == KeyKind::Rsa);
        let mut exact: HashMap<String, Positions> = HashMap::new();
        let mut wildcards: HashMap<String, Positions> = HashMap::new();
        for at in &order {
            for name in &certificates[*at].facts.names {
                match name.strip_prefix("*.") {
                    Some(domain) => wildcards.entry(domain.to_owned()).or_default().push(*at),
                    None => exact.entry(name.clone()).or_default().push(*at),
                }
            }
        }
        let first = &certificates[0].facts;
        let beside = |at: &usize| {
            let names = &certificates[*at].facts.names;
            *at == 0 || (!names.is_empty() && names.first() == first.names.first())
        };
        Chooser {
            default: order.iter().copied().filter(beside).collect(),
            certificates: certificates
                .iter()
                .map(|c| Arc::clone(&c.certified))
                .collect(),
            end_points: certificates.iter().map(|c| c.end_point.clone()).collect(),
            exact,
            wildcards,
        }
    }

    /// The certificate for a client; where it understands the signature of none
    /// of them, the default, which its handshake then fails on.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> usize {
        let name = name.map(str::to_ascii_lowercase);
        let named = name.as_deref().map(|name| {
            let wildcard = name
                .split_once('.')
                .and_then(|(_, domain)| self.wildcards.get(domain));
            self.exact.get(name).into_iter().chain(wildcard)
        });
        let lists = named.into_iter().flatten().chain([&self.default]);
        let understood = |at: &usize| self.certificates[*at].key.choose_scheme(schemes).is_some();
        let mut candidates = lists.flatten().copied();
        candidates.find(understood).unwrap_or(self.default[0])
    }
}

/// How often each certificate was chosen by one shard, which alone writes.
#[derive(Debug)]
pub(super) struct Served(Box<[AtomicU64]>);

impl Served {
    pub(super) fn new(certificates: usize) -> Served {
        Served((0..certificates).map(|_| AtomicU64::new(0)).collect())
    }

    pub(super) fn get(&self, certificate: usize) -> u64 {
        self.0[certificate].load(Ordering::Relaxed)
    }
}

/// The certificates as one shard serves them.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) chooser: Arc<Chooser>,
    pub(super) served: Arc<Served>,
}

impl ResolvesServerCert for Counter {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let at = self
            .chooser
            .choose(hello.server_name(), hello.signature_schemes());
        let count = &self.served.0[at];
        // A load and a store: the shard is the one writer.
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Heard::shows(self.chooser.end_points[at].clone());
        Some(Arc::clone(&self.chooser.certificates[at]))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::SystemTime;

    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use rustls::crypto::aws_lc_rs::sign::any_supported_type;
    use rustls::pki_types::PrivateKeyDer;

    use super::super::certificate::Facts;
    use super::*;

    const ECDSA: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;
    const RSA: SignatureScheme = SignatureScheme::RSA_PSS_SHA256;

    fn certificate(kind: KeyKind, names: &[&str]) -> Certificate {
        let der = match kind {
            KeyKind::Elliptic => rcgen::KeyPair::generate().expect("a key").serialize_der(),
            KeyKind::Rsa => {
                let key = KeyPair::generate(KeySize::Rsa2048).expect("a key");
                AsDer::<Pkcs8V1Der<'_>>::as_der(&key)
                    .expect("DER")
                    .as_ref()
                    .to_vec()
            }
        };
        let der = PrivateKeyDer::try_from(der).expect("a key");
        let signing = any_supported_type(&der).expect("a key");
        Certificate {
            certified: Arc::new(CertifiedKey::new(vec![], signing)),
            facts: Facts {
                chain: PathBuf::new(),
                names: names.iter().map(|name| (*name).to_owned()).collect(),
                kind,
                expires: SystemTime::UNIX_EPOCH,
            },
            end_point: None,
        }
    }

    #[test]
    fn names_go_before_wildcards_and_those_before_the_default() {
        let chooser = Chooser::new(&[
            certificate(KeyKind::Elliptic, &["default.example"]),
            certificate(KeyKind::Elliptic, &["*.example.net", "example.net"]),
            certificate(KeyKind::Elliptic, &["pop.example.net"]),
        ]);
        for (name, expected) in [
            (None, 0),
            (Some("default.example"), 0),
            (Some("unknown.example"), 0),
            (Some("example.net"), 1),
            (Some("mail.example.net"), 1),
            (Some("MAIL.Example.NET"), 1),
            (Some("a.mail.example.net"), 0),
            (Some("pop.example.net"), 2),
            (Some("net"), 0),
        ] {
            assert_eq!(chooser.choose(name, &[ECDSA]), expected, "{name:?}");
        }
    }

    #[test]
    fn the_key_is_one_that_the_client_understands_and_elliptic_where_it_may_be() {
        let chooser = Chooser::new(&[
            certificate(KeyKind::Rsa, &["a.example"]),
            certificate(KeyKind::Elliptic, &["a.example"]),
            certificate(KeyKind::Elliptic, &["b.example"]),
            certificate(KeyKind::Rsa, &["*.example"]),
        ]);
        for (name, schemes, expected) in [
            (Some("a.example"), vec![RSA, ECDSA], 1),
            (Some("a.example"), vec![RSA], 0),
            (None, vec![RSA, ECDSA], 1),
            (None, vec![RSA], 0),
            (Some("b.example"), vec![RSA, ECDSA], 2),
            // No RSA for this very name, but one that stands for it.
            (Some("b.example"), vec![RSA], 3),
            (Some("c.example"), vec![ECDSA], 1),
            (None, vec![SignatureScheme::ED25519], 1),
        ] {
            assert_eq!(
                chooser.choose(name, &schemes),
                expected,
                "{name:?} {schemes:?}"
            );
        }
    }
}
