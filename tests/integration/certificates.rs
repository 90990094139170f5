//! Certificates, their renewal, resumption, versions, clients' certificates.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup,
    ProtocolVersion, SignatureScheme, StreamOwned, SupportedProtocolVersion, version,
};

use super::client::PASSWORD;
use super::patience::until_true;
use super::scrape::Scrape;
use super::server::{PROGRAM, Server, Site};

/// A client that takes every certificate and looks at it afterwards.
#[derive(Debug)]
struct Anybody(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Anybody {
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
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// How a client of these tests is made.
struct Wish<'a> {
    versions: &'a [&'static SupportedProtocolVersion],
    /// Its certificate with the key.
    own: Option<(CertificateDer<'static>, &'a KeyPair)>,
}

const BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

fn config(wish: &Wish<'_>) -> Arc<ClientConfig> {
    let crypto = Arc::new(provider::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    let any = rcgen::generate_simple_self_signed(["any.example".to_owned()]).expect("made");
    roots.add(any.cert.der().clone()).expect("a certificate");
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&crypto));
    let verifier = Arc::new(Anybody(verifier.build().expect("a root")));
    let builder = ClientConfig::builder_with_provider(crypto)
        .with_protocol_versions(wish.versions)
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &wish.own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
            let chain = vec![certificate.clone()];
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
    };
    config.enable_early_data = true;
    Arc::new(config)
}

fn both() -> Arc<ClientConfig> {
    config(&Wish {
        versions: &BOTH,
        own: None,
    })
}

/// What a session showed of its handshake.
struct Seen {
    kind: HandshakeKind,
    version: ProtocolVersion,
    group: Option<NamedGroup>,
    cipher: CipherSuite,
    certificate: CertificateDer<'static>,
}

/// A login over TLS and QUIT, up to the announced end.
fn session(
    address: SocketAddr,
    name: &str,
    config: &Arc<ClientConfig>,
    user: &str,
) -> Result<Seen, String> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| format!("{what}: {error}")
    };
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut client = ClientConnection::new(Arc::clone(config), name).expect("a client");
    assert!(client.early_data().is_none(), "early data was offered");
    let socket = TcpStream::connect(address).map_err(failed("connect"))?;
    client.set_buffer_limit(None);
    let text = format!("USER {user}\r\nPASS {PASSWORD}\r\nSTAT\r\nQUIT\r\n");
    client.writer().write_all(text.as_bytes()).expect("room");
    let mut stream = StreamOwned::new(client, socket);
    let mut told = String::new();
    stream.read_to_string(&mut told).map_err(failed("read"))?;
    let replies = told.lines().filter(|line| line.starts_with("+OK")).count();
    if replies != 5 {
        return Err(told);
    }
    let client = &stream.conn;
    Ok(Seen {
        kind: client.handshake_kind().expect("it is over"),
        version: client.protocol_version().expect("it is over"),
        cipher: client
            .negotiated_cipher_suite()
            .expect("it is over")
            .suite(),
        group: client
            .negotiated_key_exchange_group()
            .map(rustls::crypto::SupportedKxGroup::name),
        certificate: client.peer_certificates().expect("one")[0]
            .clone()
            .into_owned(),
    })
}

fn visit(server: &Server, name: &str, config: &Arc<ClientConfig>) -> Seen {
    let seen = session(server.site.pop3s(), name, config, "ann");
    seen.unwrap_or_else(|fault| panic!("{fault}\n{}", server.log()))
}

fn rsa_key() -> KeyPair {
    let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("a key");
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).expect("DER");
    KeyPair::try_from(der.as_ref()).expect("a key")
}

/// Writes a pair for these names, and gives the certificate.
fn write_pair(folder: &Path, stem: &str, names: &[&str], key: &KeyPair) -> CertificateDer<'static> {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let params = CertificateParams::new(names).expect("names");
    let made = params.self_signed(key).expect("made");
    fs::write(folder.join(format!("{stem}.chain")), made.pem()).expect("written");
    fs::write(folder.join(format!("{stem}.key")), key.serialize_pem()).expect("written");
    made.der().clone()
}

fn elliptic() -> KeyPair {
    KeyPair::generate().expect("a key")
}

/// A site whose further certificates have these stems.
fn site(stems: &[&str]) -> Site {
    let mut site = Site::with_users(&["ann"]);
    for stem in stems {
        writeln!(
            site.certificates,
            "[[tls.certificate]]\nchain = \"{stem}.chain\"\nkey = \"{stem}.key\""
        )
        .expect("a String");
    }
    site
}

#[test]
fn certificates_are_chosen_by_name_and_by_kind() {
    let site = site(&["wild", "rsa", "both"]);
    let folder = site.path().to_owned();
    let wild = write_pair(&folder, "wild", &["*.example.net"], &elliptic());
    write_pair(&folder, "rsa", &["pop.example.org"], &rsa_key());
    let both_kinds = write_pair(&folder, "both", &["pop.example.org"], &elliptic());
    let server = site.start();
    let any = both();
    let first = visit(&server, "localhost", &any);
    assert_eq!(visit(&server, "mail.example.net", &any).certificate, wild);
    assert_eq!(
        visit(&server, "pop.example.org", &any).certificate,
        both_kinds
    );
    for name in ["unknown.example", "a.b.example.net", "127.0.0.1"] {
        assert_eq!(visit(&server, name, &any).certificate, first.certificate);
    }
    let scrape = Scrape::of(server.site.admin());
    let series = |name: &str, stem: &str| {
        let file = folder.join(stem).display().to_string();
        scrape.value(&format!(
            "popcore_tls_certificate_{name}{{certificate=\"{file}\"}}"
        ))
    };
    assert_eq!(series("served_total", "wild.chain"), 1);
    assert_eq!(series("served_total", "rsa.chain"), 0);
    assert_eq!(series("served_total", "chain.pem"), 4);
    assert!(series("days_left", "rsa.chain") > 300);
}

#[test]
fn check_tells_names_kinds_and_days() {
    let site = site(&["rsa"]);
    write_pair(
        site.path(),
        "rsa",
        &["pop.example.org", "*.example.net"],
        &rsa_key(),
    );
    let config = site.configure();
    let check = || {
        let mut command = Command::new(PROGRAM);
        let output = command.args(["check", "--config"]).arg(&config).output();
        let output = output.expect("it starts");
        (
            output.status.success(),
            String::from_utf8(output.stdout).expect("UTF-8"),
        )
    };
    let (right, told) = check();
    assert!(right, "{told}");
    let chain = site.path().join("rsa.chain");
    let line = format!(
        "certificate {} (RSA, pop.example.org, *.example.net): ",
        chain.display()
    );
    assert!(
        told.contains(&line) && told.contains(" days left"),
        "{told}"
    );
    fs::copy(site.path().join("key.pem"), site.path().join("rsa.key")).expect("copied");
    let (right, told) = check();
    assert!(!right);
    assert!(
        told.contains("the key must be that of the chain's first certificate"),
        "{told}"
    );
}

/// What a client would refuse is a fault before a client sees it.
#[test]
fn check_and_doctor_find_what_has_expired_and_what_no_suite_goes_with() {
    let mut site = site(&["rsa"]);
    write_pair(site.path(), "rsa", &["pop.example.org"], &rsa_key());
    let run = |site: &Site, subcommand: &str| {
        let mut command = Command::new(PROGRAM);
        let output = command
            .args([subcommand, "--config"])
            .arg(site.configure())
            .output();
        let output = output.expect("it starts");
        let told = String::from_utf8(output.stdout).expect("UTF-8");
        (output.status.success(), told)
    };
    site.tls = "ciphers = [\"ECDHE-ECDSA-AES128-GCM-SHA256\"]".to_owned();
    let (right, told) = run(&site, "check");
    assert!(!right, "{told}");
    let chain = site.path().join("rsa.chain");
    let fault = format!(
        "{}: no suite of tls.ciphers goes with its RSA key; ",
        chain.display()
    );
    assert!(
        told.starts_with(&fault) && told.lines().count() == 1,
        "{told}"
    );
    let (_, told) = run(&site, "doctor");
    assert!(told.contains(&format!("problem certificate: found cannot be used, wanted files that can be read and belong together: what cannot be used is served to nobody; mend: {fault}")), "{told}");

    site.tls.clear();
    assert!(run(&site, "check").0);
    let key = rsa_key();
    let mut params = CertificateParams::new(["pop.example.org".to_owned()]).expect("a name");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let made = params.self_signed(&key).expect("made");
    fs::write(&chain, made.pem()).expect("written");
    fs::write(site.path().join("rsa.key"), key.serialize_pem()).expect("written");
    let (right, told) = run(&site, "check");
    assert!(!right, "{told}");
    assert!(
        told.contains(" (RSA, pop.example.org): HAS EXPIRED: renew it\n"),
        "{told}"
    );
    let (right, told) = run(&site, "doctor");
    assert!(!right, "{told}");
    assert!(
        told.contains("problem certificate.pop.example.org: found it has expired, "),
        "{told}"
    );
    // Who serves by it serves on: mail over TLS that is refused by some is more than none.
    let server = site.start();
    server.log_in("ann").quit();
}

/// Sessions one after the other by each of these users, until told to stop; how
/// many there were, and what went wrong.
fn traffic(
    address: SocketAddr,
    users: &[&'static str],
    stop: &Arc<AtomicBool>,
) -> Vec<thread::JoinHandle<(usize, Vec<String>)>> {
    let threads = users.iter().map(|user| {
        let (stop, user) = (Arc::clone(stop), *user);
        thread::spawn(move || {
            let config = both();
            let (mut sessions, mut faults) = (0, Vec::new());
            while !stop.load(Ordering::Relaxed) {
                match session(address, "localhost", &config, user) {
                    Ok(_) => sessions += 1,
                    Err(fault) => faults.push(fault),
                }
            }
            (sessions, faults)
        })
    });
    threads.collect()
}

#[test]
fn renewal_and_rotation_under_load_fail_no_session() {
    const RENEWALS: usize = 4;
    let mut site = Site::with_users(&["ann", "bob", "cid"]);
    site.tls = "ticket_lifetime = \"2s\"".to_owned();
    let folder = site.path().to_owned();
    let server = site.start();
    let address = server.site.pop3s();
    let stop = Arc::default();
    let threads = traffic(address, &["ann", "bob"], &stop);
    let mut held = super::tls::started(&server);
    let mut before = HashSet::new();
    for _ in 0..RENEWALS {
        let seen = session(address, "localhost", &both(), "cid").expect("a session");
        assert!(before.insert(seen.certificate), "it was not renewed");
        let renewed = write_pair(&folder, "new", &["localhost"], &elliptic());
        // As programs do: one after the other, in place.
        fs::copy(folder.join("new.chain"), folder.join("chain.pem")).expect("copied");
        fs::copy(folder.join("new.key"), folder.join("key.pem")).expect("copied");
        until_true("the renewed certificate", || {
            let fresh = both();
            let seen = session(address, "localhost", &fresh, "cid").expect("a session");
            seen.certificate == renewed
        });
    }
    // A session of the first certificate, to its end.
    held.ok("QUIT");
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        let (sessions, faults) = thread.join().expect("no panic");
        assert!(faults.is_empty(), "{faults:?}");
        assert!(sessions > RENEWALS);
    }
    let scrape = Scrape::of(server.site.admin());
    let loaded = scrape.value("popcore_tls_reloads_total{result=\"loaded\"}");
    assert_eq!(loaded, RENEWALS as u64);
    let resumed = scrape.value("popcore_tls_handshakes_total{result=\"resumed\"}");
    let failed = scrape.value("popcore_tls_handshakes_total{result=\"failed\"}");
    assert!(
        resumed > 0 && failed == 0,
        "{resumed} resumed, {failed} failed"
    );
}

/// How certbot and Kubernetes renew: no octet of a file that was read changes, and
/// nothing happens in the folder of the files that are configured.
#[test]
fn a_pair_behind_links_is_renewed_at_once() {
    let site = Site::with_users(&["ann"]);
    let folder = site.path().to_owned();
    for version in 1..=3 {
        fs::create_dir_all(folder.join(format!("..{version}"))).expect("made");
    }
    let first = write_pair(&folder.join("..1"), "pop", &["localhost"], &elliptic());
    let second = write_pair(&folder.join("..2"), "pop", &["localhost"], &elliptic());
    let third = write_pair(&folder.join("..3"), "pop", &["localhost"], &elliptic());
    symlink("..1", folder.join("..data")).expect("linked");
    fs::create_dir(folder.join("live")).expect("made");
    for (part, configured) in [("chain", "chain.pem"), ("key", "key.pem")] {
        let live = folder.join("live").join(part);
        symlink(format!("../..data/pop.{part}"), &live).expect("linked");
        fs::remove_file(folder.join(configured)).expect("removed");
        symlink(live, folder.join(configured)).expect("linked");
    }
    let server = site.start();
    let await_pair = |wanted: &CertificateDer<'_>| {
        until_true("the pair to be served", || {
            visit(&server, "localhost", &both()).certificate == *wanted
        });
    };
    let replace = |link: &Path, target: &Path| {
        symlink(target, folder.join("new")).expect("linked");
        fs::rename(folder.join("new"), folder.join(link)).expect("renamed");
    };
    await_pair(&first);
    replace(Path::new("..data"), Path::new("..2"));
    await_pair(&second);
    for part in ["chain", "key"] {
        let archived = Path::new("../..3").join(format!("pop.{part}"));
        replace(&Path::new("live").join(part), &archived);
    }
    await_pair(&third);
    // A folder that is replaced as a whole, and was missing for a while.
    fs::rename(folder.join("..3"), folder.join("old")).expect("renamed");
    server.log_line(&["Error: ", "what was there before is served on"]);
    fs::rename(folder.join("..1"), folder.join("..3")).expect("renamed");
    await_pair(&first);
}

#[test]
fn a_broken_pair_keeps_the_old_one_and_says_so() {
    let site = Site::with_users(&["ann"]);
    let folder = site.path().to_owned();
    let server = site.start();
    let before = visit(&server, "localhost", &both()).certificate;
    write_pair(&folder, "new", &["localhost"], &elliptic());
    fs::copy(folder.join("new.key"), folder.join("key.pem")).expect("copied");
    let line = server.log_line(&["Error: ", "key.pem", "what was there before is served on"]);
    assert!(line.contains("the key must be that of the chain"), "{line}");
    assert_eq!(visit(&server, "localhost", &both()).certificate, before);
    fs::copy(folder.join("new.chain"), folder.join("chain.pem")).expect("copied");
    server.log_line(&["renewed, and served from now on"]);
    assert_ne!(visit(&server, "localhost", &both()).certificate, before);
}

#[test]
fn sessions_resume_on_every_shard_and_early_data_is_refused() {
    let mut site = Site::with_users(&["ann"]);
    site.shards = "4".into();
    let server = site.start();
    for version in BOTH {
        let config = config(&Wish {
            versions: &[version],
            own: None,
        });
        let seen = visit(&server, "localhost", &config);
        assert_eq!(
            (seen.kind, seen.version),
            (HandshakeKind::Full, version.version)
        );
        // The kernel spreads connections by their ports.
        for _ in 0..20 {
            let seen = visit(&server, "localhost", &config);
            assert_eq!(
                (seen.kind, seen.version),
                (HandshakeKind::Resumed, version.version)
            );
        }
    }
    let scrape = Scrape::of(server.site.admin());
    let opened = scrape.values("popcore_sessions_opened_total");
    assert!(
        opened.iter().filter(|sessions| **sessions > 0).count() > 1,
        "{opened:?}"
    );
    assert_eq!(
        scrape.value("popcore_tls_handshakes_total{result=\"resumed\"}"),
        40
    );
    assert_eq!(
        scrape.value("popcore_tls_handshakes_total{result=\"full\"}"),
        2
    );
}

#[test]
fn a_shared_secret_resumes_after_a_restart_and_on_another_node() {
    let secrets = [[1; 80], [2; 80]];
    let node = |first: usize| {
        let mut site = Site::with_users(&["ann"]);
        site.tls = "ticket_keys = [\"first\", \"second\"]".to_owned();
        fs::write(site.path().join("first"), secrets[first]).expect("written");
        fs::write(site.path().join("second"), secrets[1 - first]).expect("written");
        site.start()
    };
    // While secrets are changed, nodes seal with different ones.
    let (mut one, two) = (node(0), node(1));
    let config = both();
    assert_eq!(visit(&one, "localhost", &config).kind, HandshakeKind::Full);
    assert_eq!(
        visit(&two, "localhost", &config).kind,
        HandshakeKind::Resumed
    );
    assert_eq!(
        visit(&one, "localhost", &config).kind,
        HandshakeKind::Resumed
    );
    one.signal(rustix::process::Signal::TERM);
    assert!(one.end().success());
    one.restart();
    assert_eq!(
        visit(&one, "localhost", &config).kind,
        HandshakeKind::Resumed
    );
    // New secrets are taken without a restart, and old tickets end with the old.
    for name in ["first", "second"] {
        fs::write(one.site.path().join(name), [3; 80]).expect("written");
    }
    one.log_line(&["the keys of TLS tickets were read again"]);
    assert_eq!(visit(&one, "localhost", &config).kind, HandshakeKind::Full);
    assert_eq!(
        visit(&one, "localhost", &config).kind,
        HandshakeKind::Resumed
    );
}

#[test]
fn the_first_cipher_of_the_operators_that_a_client_has_is_taken() {
    let mut site = Site::with_users(&["ann"]);
    let wanted = "TLS_CHACHA20_POLY1305_SHA256";
    site.tls = format!("ciphers = [\"{wanted}\", \"TLS_AES_128_GCM_SHA256\"]");
    let server = site.start();
    let seen = visit(&server, "localhost", &both());
    assert_eq!(seen.cipher, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
}

#[test]
fn key_exchange_is_hybrid_and_versions_are_the_operators() {
    let mut site = Site::with_users(&["ann"]);
    site.tls = "profile = \"modern\"".to_owned();
    let server = site.start();
    let seen = visit(&server, "localhost", &both());
    assert_eq!(seen.version, ProtocolVersion::TLSv1_3);
    assert_eq!(seen.group, Some(NamedGroup::X25519MLKEM768));
    let old = config(&Wish {
        versions: &[&version::TLS12],
        own: None,
    });
    assert!(session(server.site.pop3s(), "localhost", &old, "ann").is_err());
    server.log_line(&["TLS handshake failed", "client offers TLSv1.2"]);
}

/// An authority and a certificate of its, for a person with this address.
pub(crate) fn person(address: &str) -> (String, CertificateDer<'static>, KeyPair) {
    let authority = elliptic();
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "an authority");
    let root = params.self_signed(&authority).expect("made").pem();
    let issuer = Issuer::new(params, authority);
    let key = elliptic();
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params
        .distinguished_name
        .push(DnType::CommonName, "a person");
    let name = address.try_into().expect("an address");
    params.subject_alt_names = vec![SanType::Rfc822Name(name)];
    let made = params.signed_by(&key, &issuer).expect("made");
    (root, made.der().clone(), key)
}

#[test]
fn a_clients_certificate_gives_the_session_its_verified_name() {
    let (root, certificate, key) = person("ann@example.net");
    let (_, stranger, strangers_key) = person("eve@example.net");
    for (mode, anonymous) in [("optional", true), ("required", false)] {
        let mut site = Site::with_users(&["ann"]);
        site.tls = format!("client_certificates = \"{mode}\"\nclient_ca = \"ca.pem\"");
        fs::write(site.path().join("ca.pem"), &root).expect("written");
        let server = site.start();
        let try_with = |own| {
            let config = config(&Wish {
                versions: &BOTH,
                own,
            });
            let address = server.site.pop3s();
            let first = session(address, "localhost", &config, "ann");
            first.and_then(|_| session(address, "localhost", &config, "ann"))
        };
        let own = try_with(Some((certificate.clone(), &key))).expect("a session");
        // The name comes with the ticket, too.
        assert_eq!(own.kind, HandshakeKind::Resumed);
        until_true("two log lines", || {
            server.log().matches(", cert=<ann@example.net>").count() == 2
        });
        assert!(try_with(Some((stranger.clone(), &strangers_key))).is_err());
        assert_eq!(try_with(None).is_ok(), anonymous);
        assert!(!server.log().contains("cert=<eve"), "{}", server.log());
    }
}

/// Root's files are read after the server has become another user.
#[test]
fn a_key_for_root_alone_is_renewed_after_privileges_are_gone() {
    if !rustix::process::geteuid().is_root() {
        // Nobody else can change to another user, and `check` says so.
        return;
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    let site = Site::with_users(&["ann"]);
    let folder = site.path().to_owned();
    let text =
        site.configuration()
            .replacen("[server]\n", "[server]\nuser = 65534\ngroup = 65534\n", 1);
    let config = folder.join("dropped.toml");
    fs::write(&config, text).expect("written");
    fs::set_permissions(&folder, mode(0o755)).expect("a mode");
    let private = folder.join("private");
    fs::create_dir(&private).expect("made");
    fs::set_permissions(&private, mode(0o700)).expect("a mode");
    for file in ["chain.pem", "key.pem"] {
        fs::rename(folder.join(file), private.join(file)).expect("renamed");
        symlink(Path::new("private").join(file), folder.join(file)).expect("linked");
    }
    fs::set_permissions(private.join("key.pem"), mode(0o600)).expect("a mode");
    let stderr = fs::File::create(folder.join("stderr")).expect("a file");
    let child = Command::new(PROGRAM)
        .args(["serve", "--config"])
        .arg(&config)
        .stderr(stderr)
        .spawn();
    let mut child = child.expect("it starts");
    until_true("the server to serve", || {
        TcpStream::connect(site.pop3s()).is_ok()
    });
    let renewed = write_pair(&private, "new", &["localhost"], &elliptic());
    fs::set_permissions(private.join("new.key"), mode(0o600)).expect("a mode");
    fs::rename(private.join("new.chain"), private.join("chain.pem")).expect("renamed");
    fs::rename(private.join("new.key"), private.join("key.pem")).expect("renamed");
    until_true("the renewed certificate", || {
        let seen = session(site.pop3s(), "localhost", &both(), "ann");
        seen.is_ok_and(|seen| seen.certificate == renewed)
    });
    // One thread has one right, and the others none.
    let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).expect("it runs");
    let rights: Vec<_> = tasks
        .map(|task| {
            let status = task.expect("a thread").path().join("status");
            let status = fs::read_to_string(status).expect("a status");
            let line = status.lines().find(|line| line.starts_with("CapPrm:"));
            line.expect("capabilities").to_owned()
        })
        .filter(|line| !line.ends_with("0000000000000000"))
        .collect();
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert_eq!(rights, ["CapPrm:\t0000000000000004"]);
}
