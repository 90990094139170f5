use std::io::{Read as _, Write as _};
use std::sync::{Arc, LazyLock, Mutex};

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use proptest::prelude::*;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::crypto::cipher::{AeadKey, MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::crypto::tls13::OkmBlock;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, KeyLog, RootCertStore, ServerConfig, version};

use super::*;
use crate::tls::Secured;

const SUITES: [SupportedCipherSuite; 4] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
];

static CERTIFICATE: LazyLock<(CertificateDer<'static>, PrivateKeyDer<'static>)> =
    LazyLock::new(|| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        let certificate = CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).expect("PEM");
        let key = made.signing_key.serialize_pem();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
        (certificate, key)
    });

/// Keeps the secret from which a client of TLS 1.3 derives the keys it sends with.
#[derive(Debug, Default)]
struct Kept(Mutex<Vec<u8>>);

impl KeyLog for Kept {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if label == "CLIENT_TRAFFIC_SECRET_0" {
            *self.0.lock().expect("no panic") = secret.to_vec();
        }
    }
}

/// A server and a client of this suite, behind their handshake.
fn established(suite: SupportedCipherSuite, enabled: bool) -> (Secured, ClientConnection, Vec<u8>) {
    let (certificate, key) = &*CERTIFICATE;
    let server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.clone_key());
    let mut server = server.expect("a pair");
    server.enable_secret_extraction = enabled;
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a certificate");
    let mut provider = default_provider();
    provider.cipher_suites = vec![suite];
    let version = match suite {
        SupportedCipherSuite::Tls13(_) => &version::TLS13,
        SupportedCipherSuite::Tls12(_) => &version::TLS12,
    };
    let mut client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.resumption = rustls::client::Resumption::disabled();
    client.enable_secret_extraction = true;
    let kept = Arc::new(Kept::default());
    client.key_log = Arc::clone(&kept) as Arc<dyn KeyLog>;
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::new(client), name).expect("a client");
    let mut server = Secured::new(Arc::new(server)).expect("a server");
    while client.is_handshaking() || server.is_handshaking() {
        assert!(!server.may_be_handed(), "in the handshake");
        let (mut octets, mut records, mut clear) = (Vec::new(), Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut octets).expect("a vector");
        }
        let taken = server.receive(octets, &mut clear, &mut records);
        taken.expect("no fault");
        hear(&mut client, &records);
    }
    let secret = kept.0.lock().expect("no panic").clone();
    (server, client, secret)
}

fn handed(suite: SupportedCipherSuite) -> (Handed, Sealer, ClientConnection, Vec<u8>) {
    let (server, client, secret) = established(suite, true);
    assert!(server.may_be_handed());
    let (handed, keys) = server.hand_over().expect("whole");
    (handed, Sealer::new(&keys), client, secret)
}

/// The client takes records; the text in them.
fn hear(client: &mut ClientConnection, mut records: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    while !records.is_empty() {
        client.read_tls(&mut records).expect("a slice");
        client.process_new_packets().expect("right records");
        let _ = client.reader().read_to_end(&mut heard);
    }
    heard
}

/// What the kernel does with its keys (`net/tls/tls_sw.c`).
struct Sealer {
    old: bool,
    explicit: u64,
    salt: [u8; 4],
    number: u64,
    key: LessSafeKey,
}

impl Sealer {
    fn new(keys: &[u8]) -> Sealer {
        let version = u16::from_ne_bytes([keys[0], keys[1]]);
        let (octets, cipher, algorithm) = match u16::from_ne_bytes([keys[2], keys[3]]) {
            51 => (
                16,
                size_of::<libc::tls12_crypto_info_aes_gcm_128>(),
                &AES_128_GCM,
            ),
            52 => (
                32,
                size_of::<libc::tls12_crypto_info_aes_gcm_256>(),
                &AES_256_GCM,
            ),
            other => panic!("cipher {other}"),
        };
        assert_eq!(keys.len(), cipher);
        let (explicit, rest) = keys[4..].split_at(8);
        let (key, rest) = rest.split_at(octets);
        let (salt, number) = rest.split_at(4);
        Sealer {
            old: match version {
                0x0303 => true,
                0x0304 => false,
                other => panic!("version {other:x}"),
            },
            explicit: u64::from_be_bytes(explicit.try_into().expect("8 octets")),
            salt: salt.try_into().expect("4 octets"),
            number: u64::from_be_bytes(number.try_into().expect("8 octets")),
            key: LessSafeKey::new(UnboundKey::new(algorithm, key).expect("a key")),
        }
    }

    fn record(&mut self, kind: u8, text: &[u8]) -> Vec<u8> {
        let mut body = text.to_vec();
        let explicit = if self.old {
            self.explicit
        } else {
            body.push(kind);
            self.explicit ^ self.number
        };
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..].copy_from_slice(&explicit.to_be_bytes());
        let length = |octets: usize| u16::try_from(octets).expect("a record").to_be_bytes();
        let outer = if self.old { kind } else { 23 };
        let header = if self.old {
            [&[outer, 3, 3][..], &length(8 + body.len() + 16)].concat()
        } else {
            [&[outer, 3, 3][..], &length(body.len() + 16)].concat()
        };
        let aad = if self.old {
            [
                &self.number.to_be_bytes()[..],
                &[kind, 3, 3],
                &length(text.len()),
            ]
            .concat()
        } else {
            header.clone()
        };
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = self
            .key
            .seal_in_place_append_tag(nonce, Aad::from(aad), &mut body);
        sealed.expect("sealed");
        self.number += 1;
        if self.old {
            self.explicit += 1;
            [header, explicit.to_be_bytes().to_vec(), body].concat()
        } else {
            [header, body].concat()
        }
    }
}

/// A client of TLS 1.3 that makes its records itself.
struct Crafted {
    suite: &'static rustls::Tls13CipherSuite,
    secret: Vec<u8>,
    sealer: Box<dyn MessageEncrypter>,
    number: u64,
}

impl Crafted {
    fn new(client: ClientConnection, secret: Vec<u8>) -> Crafted {
        let suite = client
            .negotiated_cipher_suite()
            .and_then(|suite| suite.tls13());
        let suite = suite.expect("TLS 1.3");
        let secrets = client.dangerous_extract_secrets().expect("whole");
        let (number, secrets) = secrets.tx;
        let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }) = secrets
        else {
            panic!("AES-GCM");
        };
        Crafted {
            suite,
            secret,
            sealer: suite.aead_alg.encrypter(key, iv),
            number,
        }
    }

    fn record(&mut self, kind: ContentType, text: &[u8]) -> Vec<u8> {
        let message = OutboundPlainMessage {
            typ: kind,
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(text),
        };
        let sealed = self.sealer.encrypt(message, self.number);
        self.number += 1;
        sealed.expect("sealed").encode()
    }

    fn say(&mut self, text: &[u8]) -> Vec<u8> {
        self.record(ContentType::ApplicationData, text)
    }

    /// HKDF-Expand-Label of RFC 8446, section 7.1.
    fn expand(&self, label: &str, octets: usize) -> Vec<u8> {
        let label = format!("tls13 {label}");
        let mut info = u16::try_from(octets).expect("few").to_be_bytes().to_vec();
        info.push(u8::try_from(label.len()).expect("short"));
        info.extend_from_slice(label.as_bytes());
        info.push(0);
        let block = OkmBlock::new(&self.secret);
        let expander = self.suite.hkdf_provider.expander_for_okm(&block);
        let mut out = vec![0; octets];
        expander.expand_slice(&[&info], &mut out).expect("short");
        out
    }

    /// A key update, and the keys behind it.
    fn update(&mut self, request: u8) -> Vec<u8> {
        let record = self.record(ContentType::Handshake, &[24, 0, 0, 1, request]);
        self.secret = self.expand("traffic upd", self.secret.len());
        let key = self.expand("key", self.suite.aead_alg.key_len());
        let mut padded = [0; 32];
        padded[..key.len()].copy_from_slice(&key);
        let iv: [u8; 12] = self.expand("iv", 12).try_into().expect("12 octets");
        let key = match key.len() {
            32 => AeadKey::from(padded),
            _ => panic!("a key of 32 octets is what can be made from outside"),
        };
        self.sealer = self.suite.aead_alg.encrypter(key, iv.into());
        self.number = 0;
        record
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn text_travels_both_ways_with_every_suite(
        piece in 1_usize..20_000,
        there in prop::collection::vec(any::<u8>(), 1..40_000),
        back in prop::collection::vec(any::<u8>(), 1..40_000),
    ) {
        for suite in SUITES {
            let (mut handed, mut sealer, mut client, _) = handed(suite);
            for _ in 0..2 {
                client.writer().write_all(&there).expect("room");
                let mut octets = Vec::new();
                while client.wants_write() {
                    client.write_tls(&mut octets).expect("a vector");
                }
                let mut clear = Vec::new();
                for piece in octets.chunks(piece) {
                    handed.receive(piece.to_vec(), &mut clear).expect("no fault");
                }
                prop_assert_eq!(&clear, &there);
                prop_assert_eq!(handed.held.capacity(), 0);
                for text in back.chunks(TEXT) {
                    let record = sealer.record(23, text);
                    prop_assert_eq!(hear(&mut client, &record), text);
                }
            }
            client.send_close_notify();
            let mut octets = Vec::new();
            client.write_tls(&mut octets).expect("a vector");
            let mut clear = Vec::new();
            handed.receive(octets, &mut clear).expect("no fault");
            prop_assert!(handed.is_closed() && clear.is_empty());
            let notice = sealer.record(ALERT, &handed.close().expect("nothing is under way"));
            hear(&mut client, &notice);
            prop_assert_eq!(client.reader().read(&mut [0]).expect("an end"), 0);
        }
    }
}

#[test]
fn nonces_of_tls_1_2_are_not_those_that_were_used() {
    for begin in [
        0,
        1,
        1 << 63,
        u64::MAX,
        u64::MAX >> 1,
        0x0123_4567_89ab_cdef,
    ] {
        let mut iv = [7; 12];
        iv[4..].copy_from_slice(&u64::to_be_bytes(begin));
        let secrets = ConnectionTrafficSecrets::Aes256Gcm {
            key: AeadKey::from([9; 32]),
            iv: iv.into(),
        };
        let keys = kernel_keys(ProtocolVersion::TLSv1_2, 5, &secrets);
        let first = Sealer::new(&keys).explicit;
        // The kernel counts up; rustls had the number in the low bits.
        let last = first
            .checked_add(limits::RECORDS_OF_A_KEY)
            .expect("no wrap");
        for low in [0, 1, limits::RECORDS_OF_A_KEY] {
            assert!(!(first..=last).contains(&(begin ^ low)), "{begin:x}");
        }
        assert_ne!(first >> 63, begin >> 63);
        assert_eq!(first >> 63, last >> 63);
    }
}

#[test]
fn a_client_that_changes_its_keys_is_followed() {
    let (mut handed, _, client, secret) = handed(cipher_suite::TLS13_AES_256_GCM_SHA384);
    let mut client = Crafted::new(client, secret);
    let mut clear = Vec::new();
    for round in 0..5 {
        let text = format!("NOOP {round}");
        let octets = [
            client.say(text.as_bytes()),
            client.update(0),
            client.say(text.as_bytes()),
        ];
        handed
            .receive(octets.concat(), &mut clear)
            .expect("no fault");
        assert_eq!(String::from_utf8_lossy(&clear), text.repeat(2));
        clear.clear();
    }
}

#[test]
fn a_client_that_asks_for_new_keys_of_ours_is_told_the_end() {
    let (mut handed, _, client, secret) = handed(cipher_suite::TLS13_AES_256_GCM_SHA384);
    let mut client = Crafted::new(client, secret);
    let octets = [client.say(b"STAT"), client.update(1)].concat();
    let mut clear = Vec::new();
    let fault = handed.receive(octets, &mut clear).expect_err("a request");
    assert!(matches!(fault, TlsFault::Renewal), "{fault}");
    assert_eq!(clear, b"STAT");
    assert_eq!(handed.alert(&fault), None);
    assert_eq!(handed.close(), Some(CLOSE_NOTIFY));
}

#[test]
fn what_is_damaged_or_out_of_place_is_told_and_ends_it() {
    let fault_of = |make: &dyn Fn(&mut Crafted) -> Vec<u8>| {
        let (mut handed, _, client, secret) = handed(cipher_suite::TLS13_AES_256_GCM_SHA384);
        let mut client = Crafted::new(client, secret);
        let octets = make(&mut client);
        let fault = handed.receive(octets, &mut Vec::new());
        let fault = fault.expect_err("a fault");
        let alert = handed.alert(&fault);
        // Behind a fatal alert there is nothing to say.
        assert_eq!(handed.close().is_none(), alert.is_some(), "{fault}");
        alert.map(|[level, alert]| {
            assert_eq!(level, 2);
            alert
        })
    };
    let damaged = |client: &mut Crafted| {
        let mut record = client.say(b"QUIT");
        record[7] ^= 1;
        record
    };
    assert_eq!(fault_of(&damaged), Some(20));
    let again = |client: &mut Crafted| client.say(b"QUIT").repeat(2);
    assert_eq!(fault_of(&again), Some(20));
    assert_eq!(fault_of(&|_| vec![23, 3, 3, 0xff, 0xff]), Some(22));
    assert_eq!(fault_of(&|_| vec![20, 3, 3, 0, 1, 1]), Some(10));
    let message = |text: &'static [u8]| {
        move |client: &mut Crafted| client.record(ContentType::Handshake, text)
    };
    for text in [&[24, 0, 0, 1, 2][..], &[24, 0, 0, 1], &[1, 0, 0, 0], &[]] {
        assert_eq!(fault_of(&message(text)), Some(10));
    }
    let alert = |client: &mut Crafted| client.record(ContentType::Alert, &[2, 80]);
    assert_eq!(fault_of(&alert), None);
}

#[test]
fn a_connection_is_handed_over_whole_or_not_at_all() {
    let suite = cipher_suite::TLS13_AES_128_GCM_SHA256;
    assert!(!established(suite, false).0.may_be_handed(), "not enabled");
    let chacha = cipher_suite::TLS13_CHACHA20_POLY1305_SHA256;
    assert!(
        !established(chacha, true).0.may_be_handed(),
        "another cipher"
    );
    let (mut server, mut client, _) = established(suite, true);
    client.writer().write_all(b"NOOP").expect("room");
    let mut octets = Vec::new();
    client.write_tls(&mut octets).expect("a vector");
    let (mut clear, mut records) = (Vec::new(), Vec::new());
    let half = octets.split_off(octets.len() / 2);
    server
        .receive(octets, &mut clear, &mut records)
        .expect("half");
    assert!(!server.may_be_handed(), "half a record is held");
    server
        .receive(half, &mut clear, &mut records)
        .expect("whole");
    assert_eq!(clear, b"NOOP");
    server.sending();
    assert!(!server.may_be_handed(), "records are under way");
    server.sent();
    assert!(server.may_be_handed());
}

#[test]
fn a_key_seals_so_many_records_and_no_more() {
    let (mut handed, ..) = handed(SUITES[0]);
    for _ in 0..(limits::RECORDS_OF_A_KEY - handed.sealed) / 2 {
        handed.sending(TEXT).expect("two records at most");
        handed.sent();
    }
    handed
        .sending(1)
        .and_then(|()| handed.sending(1))
        .expect_err("worn out");
}
