//! Any octets where a client of TLS begins: its true hello up to some octet, then
//! noise, cut into records or not, in pieces of any length. Nothing panics, no
//! clear text comes out of it, no more is taken than the bound allows, and what is
//! said in turn are whole records.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use popcore::config::{CertificateOptions, Cipher, ClientCertificates, TlsOptions};
use popcore::limits;
use popcore::tls::{Current, Keeper, Secured};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// A server's configuration, and a hello of each of a few clients.
static SITE: LazyLock<(Current, Vec<Vec<u8>>)> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("popcore-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
    std::fs::write(&chain, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let options = TlsOptions {
        certificates: vec![CertificateOptions { chain, key }],
        ciphers: Cipher::all().collect(),
        clients: ClientCertificates::None,
        kernel: false,
        ticket_keys: Vec::new(),
        ticket_lifetime: Duration::from_secs(3600),
    };
    let keeper = Keeper::load(&options, 1, SystemTime::now()).expect("right");
    std::fs::remove_dir_all(&folder).expect("own folder");
    let versions = [&rustls::version::TLS12, &rustls::version::TLS13];
    let hellos = versions.map(|version| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("a vector");
        hello
    });
    (keeper.current(0), hellos.to_vec())
});

fuzz_target!(|data: &[u8]| {
    let [setting, piece, kept_high, kept_low, noise @ ..] = data else {
        return;
    };
    let (current, hellos) = &*SITE;
    let kept = usize::from(u16::from_be_bytes([*kept_high, *kept_low]));
    let hello = &hellos[usize::from(setting & 1)];
    let mut octets = hello[..kept.min(hello.len())].to_vec();
    if setting & 2 == 0 {
        octets.extend_from_slice(noise);
    } else {
        // As records of any type, so that more than their heads is looked at.
        for record in noise.chunks(64) {
            let (kind, text) = record.split_first().expect("chunks are not empty");
            let length = u8::try_from(text.len()).expect("below 64");
            octets.extend_from_slice(&[20 + kind % 4, 3, 3, 0, length]);
            octets.extend_from_slice(text);
        }
    }
    let mut server = Secured::new(current.get()).expect("a server");
    let (mut clear, mut records) = (Vec::new(), Vec::new());
    let mut taken = 0;
    for piece in octets.chunks(usize::from(*piece) + 1) {
        if server
            .receive(piece.to_vec(), &mut clear, &mut records)
            .is_err()
        {
            break;
        }
        taken += piece.len();
        assert!(taken <= limits::HANDSHAKE_OCTETS);
    }
    assert!(clear.is_empty() && server.is_handshaking());
    // What is said in turn is records, whole ones.
    let mut said = &*records;
    while let [kind, 3, _, high, low, rest @ ..] = said {
        assert!((20..=23).contains(kind));
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        said = rest.get(length..).expect("a whole record");
    }
    assert!(said.is_empty());
});
