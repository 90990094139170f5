//! What a SASL exchange is bound to: the exporter of TLS 1.3 (RFC 9266) and the digest
//! of the certificate that was shown (RFC 5929, section 4).
//!
//! rustls tells neither of a connection whose records are handled outside it. It does
//! hand the exporter's secret to its key log, though, and asks [`Counter`] for the
//! certificate, both within a call on the connection and on the calling thread. So what
//! comes there is left in the thread's [`Heard`], and whoever made the call takes it
//! from there at once. Nothing is written anywhere, and no other secret is asked for.
//!
//! [`Counter`]: super::chooser::Counter

use std::cell::RefCell;
use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use rustls::KeyLog;
use x509_parser::oid_registry::{
    OID_PKCS1_MD5WITHRSAENC, OID_PKCS1_SHA1WITHRSA, OID_PKCS1_SHA256WITHRSA,
    OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512,
};
use x509_parser::prelude::X509Certificate;
use zeroize::Zeroizing;

use crate::sasl::Bindings;

/// What was told during one call.
#[derive(Default)]
pub(super) struct Heard {
    exporter: Option<Zeroizing<[u8; 32]>>,
    end_point: Option<Arc<[u8]>>,
}

thread_local! {
    static HEARD: RefCell<Heard> = RefCell::default();
}

impl Heard {
    /// Takes what was told on this thread since the last call.
    pub(super) fn take() -> Heard {
        HEARD.take()
    }

    /// Adds what was told later.
    pub(super) fn add(&mut self, later: Heard) {
        self.exporter = later.exporter.or(self.exporter.take());
        self.end_point = later.end_point.or(self.end_point.take());
    }

    /// The bindings of a connection on which all this was told. Where an earlier session
    /// was resumed it is that one's certificate which the client knows, and it may have
    /// been another.
    pub(super) fn bindings(self, resumed: bool) -> Bindings {
        let end_point = self.end_point.filter(|_| !resumed);
        Bindings {
            exporter: self.exporter,
            end_point: end_point.map(|digest| (*digest).into()),
        }
    }

    /// A certificate with this digest was chosen.
    pub(super) fn shows(end_point: Option<Arc<[u8]>>) {
        HEARD.with_borrow_mut(|heard| heard.end_point = end_point);
    }
}

/// Where rustls tells the exporter's secret.
#[derive(Debug)]
pub(super) struct Exporters;

/// The label of that secret in key logs (draft-ietf-tls-keylogfile).
const EXPORTER_SECRET: &str = "EXPORTER_SECRET";

impl KeyLog for Exporters {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if label == EXPORTER_SECRET {
            HEARD.with_borrow_mut(|heard| heard.exporter = exporter(secret));
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == EXPORTER_SECRET
    }
}

/// The exporter for SASL (RFC 8446, section 7.5, with the label of RFC 9266 and no
/// context). The secret is as long as the hash of the connection's cipher suite.
fn exporter(secret: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let (hash, algorithm) = match secret.len() {
        32 => (&digest::SHA256, hmac::HMAC_SHA256),
        48 => (&digest::SHA384, hmac::HMAC_SHA384),
        _ => return None,
    };
    let nothing = digest::digest(hash, b"");
    let length = u8::try_from(secret.len()).expect("48 at most");
    let label = b"EXPORTER-Channel-Binding";
    let derived = expand(algorithm, secret, label, nothing.as_ref(), length);
    let value = expand(
        algorithm,
        derived.as_ref(),
        b"exporter",
        nothing.as_ref(),
        32,
    );
    let (value, _) = value.as_ref().split_first_chunk::<32>()?;
    Some(Zeroizing::new(*value))
}

/// HKDF-Expand-Label (RFC 8446, section 7.1) of no more than the hash gives at once; what
/// is longer than `length` is cut off by the caller.
fn expand(
    algorithm: hmac::Algorithm,
    secret: &[u8],
    label: &[u8],
    context: &[u8],
    length: u8,
) -> hmac::Tag {
    const PREFIX: &[u8] = b"tls13 ";
    let octets = |part: &[u8]| u8::try_from(part.len()).expect("short");
    let mut info = vec![0, length];
    info.push(octets(PREFIX) + octets(label));
    info.extend_from_slice(PREFIX);
    info.extend_from_slice(label);
    info.push(octets(context));
    info.extend_from_slice(context);
    info.push(1);
    hmac::sign(&hmac::Key::new(algorithm, secret), &info)
}

/// The digest of a certificate by the hash of its signature, SHA-256 in the place of
/// older ones; none where the signature has no hash of its own.
pub(super) fn end_point(der: &[u8], parsed: &X509Certificate<'_>) -> Option<Arc<[u8]>> {
    let oid = &parsed.signature_algorithm.algorithm;
    let among = |oids: &[_]| oids.contains(oid);
    let hash = if among(&[
        OID_PKCS1_MD5WITHRSAENC,
        OID_PKCS1_SHA1WITHRSA,
        OID_PKCS1_SHA256WITHRSA,
        OID_SIG_ECDSA_WITH_SHA256,
    ]) {
        &digest::SHA256
    } else if among(&[OID_PKCS1_SHA384WITHRSA, OID_SIG_ECDSA_WITH_SHA384]) {
        &digest::SHA384
    } else if among(&[OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA512]) {
        &digest::SHA512
    } else {
        return None;
    };
    Some(digest::digest(hash, der).as_ref().into())
}
