//! Cipher suites by their names.
//!
//! Operators know those of TLS 1.2 by OpenSSL's names and those of TLS 1.3 by
//! IANA's; both are understood for both.

/// A cipher suite that popcore speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what its name in NAMES says")]
pub enum Cipher {
    Aes128GcmSha256,
    Aes256GcmSha384,
    Chacha20Poly1305Sha256,
    EcdheEcdsaAes128GcmSha256,
    EcdheEcdsaAes256GcmSha384,
    EcdheEcdsaChacha20Poly1305,
    EcdheRsaAes128GcmSha256,
    EcdheRsaAes256GcmSha384,
    EcdheRsaChacha20Poly1305,
}

/// Each suite with its version of TLS, OpenSSL's name and IANA's.
const NAMES: [(Cipher, TlsVersion, &str, &str); 9] = [
    (
        Cipher::Aes128GcmSha256,
        TlsVersion::Tls13,
        "TLS_AES_128_GCM_SHA256",
        "TLS13_AES_128_GCM_SHA256",
    ),
    (
        Cipher::Aes256GcmSha384,
        TlsVersion::Tls13,
        "TLS_AES_256_GCM_SHA384",
        "TLS13_AES_256_GCM_SHA384",
    ),
    (
        Cipher::Chacha20Poly1305Sha256,
        TlsVersion::Tls13,
        "TLS_CHACHA20_POLY1305_SHA256",
        "TLS13_CHACHA20_POLY1305_SHA256",
    ),
    (
        Cipher::EcdheEcdsaAes128GcmSha256,
        TlsVersion::Tls12,
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    ),
    (
        Cipher::EcdheRsaAes128GcmSha256,
        TlsVersion::Tls12,
        "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    ),
    (
        Cipher::EcdheEcdsaAes256GcmSha384,
        TlsVersion::Tls12,
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    ),
    (
        Cipher::EcdheRsaAes256GcmSha384,
        TlsVersion::Tls12,
        "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    ),
    (
        Cipher::EcdheEcdsaChacha20Poly1305,
        TlsVersion::Tls12,
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    ),
    (
        Cipher::EcdheRsaChacha20Poly1305,
        TlsVersion::Tls12,
        "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    ),
];

/// A version of TLS that popcore speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl Cipher {
    /// All of them, in the order of Mozilla's intermediate profile.
    pub fn all() -> impl Iterator<Item = Cipher> {
        NAMES.iter().map(|(cipher, ..)| *cipher)
    }

    /// The one version of TLS that it is for.
    pub fn version(self) -> TlsVersion {
        let row = NAMES.iter().find(|(cipher, ..)| *cipher == self);
        row.map(|(_, version, ..)| *version)
            .expect("every one is listed")
    }

    /// The suite of that name.
    pub(super) fn named(name: &str) -> Option<Cipher> {
        let row = NAMES.iter().find(|(_, _, openssl, iana)| {
            [openssl, iana]
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known))
        });
        row.map(|(cipher, ..)| *cipher)
    }

    /// The names that messages suggest.
    pub(super) fn names() -> [&'static str; NAMES.len()] {
        NAMES.map(|(_, _, openssl, _)| openssl)
    }
}
