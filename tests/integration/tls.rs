//! TLS from the first byte and by STLS.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;
use rustls::client::WantsClientCert;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

use super::client::Client;
use super::load::await_rest;
use super::model;
use super::patience::until_true;
use super::scrape::Scrape;
use super::server::{Server, Site};

pub(crate) type Secured = StreamOwned<ClientConnection, TcpStream>;

/// A certificate for "localhost", its key, and the certificate as clients trust it.
struct Certificate {
    chain: String,
    key: String,
    trusted: CertificateDer<'static>,
}

static CERTIFICATE: LazyLock<Certificate> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
    let made = made.expect("a certificate");
    Certificate {
        chain: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
        trusted: made.cert.der().clone(),
    }
});

/// Writes the certificate and its key where a site's configuration names them.
pub(crate) fn write_certificate(folder: &Path) {
    std::fs::write(folder.join("chain.pem"), &CERTIFICATE.chain).expect("written");
    std::fs::write(folder.join("key.pem"), &CERTIFICATE.key).expect("written");
}

/// Trusts one certificate.
pub(crate) fn trusting(certificate: CertificateDer<'static>) -> Arc<ClientConfig> {
    trusting_with(certificate, default_provider())
}

fn trusting_with(
    certificate: CertificateDer<'static>,
    provider: CryptoProvider,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// TLS over a connection; the handshake happens with the first octets.
pub(crate) fn secure(stream: TcpStream, config: Arc<ClientConfig>) -> Secured {
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(config, name).expect("a connection");
    StreamOwned::new(connection, stream)
}

/// Trusts the certificate of every site.
pub(crate) fn own() -> Arc<ClientConfig> {
    trusting(CERTIFICATE.trusted.clone())
}

/// The same with these ciphers.
pub(crate) fn own_with(provider: CryptoProvider) -> Arc<ClientConfig> {
    trusting_with(CERTIFICATE.trusted.clone(), provider)
}

/// Trusts the certificate of every site, and speaks one version.
pub(crate) fn own_of(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let config = builder(&[version]).with_no_client_auth();
    Arc::new(config)
}

/// The same with a certificate of the client's own.
pub(crate) fn own_showing(
    certificate: CertificateDer<'static>,
    key: &rcgen::KeyPair,
) -> Arc<ClientConfig> {
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let builder = builder(rustls::ALL_VERSIONS);
    let config = builder.with_client_auth_cert(vec![certificate], key);
    Arc::new(config.expect("a pair"))
}

fn builder(
    versions: &[&'static SupportedProtocolVersion],
) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let provider = default_provider();
    let mut roots = RootCertStore::empty();
    let trusted = CERTIFICATE.trusted.clone();
    roots.add(trusted).expect("a certificate");
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
}

/// A client on the port with implicit TLS that has read the greeting.
fn implicit(server: &Server) -> Client<Secured> {
    implicit_with(server, own())
}

/// The same, by this configuration.
pub(crate) fn implicit_with(server: &Server, config: Arc<ClientConfig>) -> Client<Secured> {
    let stream = Client::silent(server.site.pop3s()).into_stream();
    let mut client = Client::over(secure(stream, config));
    let greeting = client.line();
    assert!(greeting.starts_with("+OK popcore ready"), "{greeting}");
    client
}

/// A client that has said STLS.
pub(crate) fn started(server: &Server) -> Client<Secured> {
    let mut client = server.connect();
    client.ok("STLS");
    Client::over(secure(client.into_stream(), own()))
}

fn server() -> Server {
    let site = Site::with_users(&["ann"]);
    let mailbox = site.mailbox("ann");
    mailbox.fill(2);
    mailbox.deliver("new/3.m", large());
    site.start()
}

/// Three megabytes with dots and bare LF.
fn large() -> Vec<u8> {
    (0..300_000)
        .flat_map(|n| format!(".{n:07}\n").into_bytes())
        .chain((0..60_000).flat_map(|n| format!("{n}\r\n").into_bytes()))
        .collect()
}

#[test]
fn a_session_over_implicit_tls() {
    let server = server();
    let mut client = implicit(&server);
    assert!(!client.rows("CAPA").contains(&"STLS".to_owned()));
    client.err("STLS");
    client.log_in("ann");
    assert!(client.text("RETR 3") == model::sent(&large()));
    client.ok("DELE 1");
    client.quit();
    assert_eq!(server.mailbox("ann").names(), ["new/2.m", "new/3.m"]);
    server.log_line(&["Logged out", "retr=1/", "del=1/3", ", TLS, "]);
}

#[test]
fn a_session_over_stls() {
    let server = server();
    let mut client = started(&server);
    let capabilities = client.rows("CAPA");
    assert!(
        !capabilities.contains(&"STLS".to_owned()),
        "{capabilities:?}"
    );
    client.err("STLS");
    client.log_in("ann");
    assert!(client.text("RETR 3") == model::sent(&large()));
    client.quit();
}

#[test]
fn pipelined_commands_work_over_tls() {
    let server = server();
    let mut client = implicit(&server);
    client.send("USER ann\r\nPASS secret\r\nSTAT\r\nUIDL 2\r\nQUIT\r\n");
    let replies = String::from_utf8(client.rest()).expect("ASCII");
    let replies: Vec<_> = replies.lines().collect();
    assert_eq!(replies.len(), 5, "{replies:?}");
    assert_eq!(replies[3], "+OK 2 2.m");
}

#[test]
fn commands_behind_stls_are_not_executed() {
    let server = server();
    for injected in [
        "CAPA\r\n",
        "USER ann\r\n",
        "US",
        "\r\n",
        "NOOP\r\nUSER ann\r\nPASS secret\r\n",
    ] {
        let mut client = server.connect();
        client.send(format!("STLS\r\n{injected}"));
        // At most the answer to STLS comes; nothing that was sent in clear is
        // answered, in clear or otherwise, and no handshake follows.
        let rest = client.rest();
        let rest = String::from_utf8(rest).expect("no TLS record");
        assert!(rest.lines().count() <= 1, "{injected:?}: {rest:?}");
        assert!(!rest.contains("logged in"), "{rest:?}");
    }
    server.log_line(&["Clear text behind STLS", "user=<>"]);
    assert_eq!(handshakes(&server, "injected"), 5);
    assert!(!server.log().contains("user=<ann>"), "{}", server.log());
}

#[test]
fn clear_text_in_place_of_a_handshake_is_not_executed() {
    let server = server();
    let mut client = server.connect();
    client.ok("STLS");
    client.send("USER ann\r\nPASS secret\r\n");
    let rest = client.rest();
    assert!(rest.is_empty(), "{}", rest.escape_ascii());
    server.log_line(&["Clear text behind STLS", "user=<>"]);
    assert_eq!(handshakes(&server, "injected"), 1);
}

#[test]
fn every_group_of_the_key_exchange_will_do() {
    let server = server();
    let groups = [
        kx_group::X25519MLKEM768,
        kx_group::X25519,
        kx_group::SECP256R1,
    ];
    for group in groups {
        let provider = CryptoProvider {
            kx_groups: vec![group],
            ..default_provider()
        };
        let stream = Client::silent(server.site.pop3s()).into_stream();
        let mut client = Client::over(secure(stream, own_with(provider)));
        assert!(client.line().starts_with("+OK"));
        let taken = client.stream_mut().conn.negotiated_key_exchange_group();
        assert_eq!(taken.map(SupportedKxGroup::name), Some(group.name()));
    }
}

#[test]
fn what_was_said_before_stls_is_forgotten() {
    let server = server();
    let mut client = server.connect();
    client.ok("USER ann");
    client.ok("STLS");
    let mut client = Client::over(secure(client.into_stream(), own()));
    client.err("PASS secret");
    client.log_in("ann");
    client.quit();
}

#[test]
fn clear_text_on_the_tls_port_ends_at_once() {
    let server = server();
    let mut client = Client::silent(server.site.pop3s());
    // It ends by the first octets, long before the time for a login is over.
    client.send("USER ann\r\nPASS secret\r\n");
    let told = String::from_utf8(client.rest()).expect("ASCII");
    assert_eq!(told, "-ERR TLS is spoken here from the first octet\r\n");
    server.log_line(&["Clear text where TLS begins", "no auth attempts in 0 secs"]);
    assert_eq!(handshakes(&server, "not_tls"), 1);
}

#[test]
fn a_failed_handshake_is_told_once_a_second_for_an_address() {
    const TRIES: usize = 40;
    let server = server();
    let begun = Instant::now();
    for _ in 0..TRIES {
        let mut client = Client::silent(server.site.pop3s());
        client.send(hello_of_tls_1_0());
        // A fatal alert, handshake_failure, and a clean end.
        assert_eq!(client.rest(), [21, 3, 3, 0, 2, 2, 40]);
    }
    until_true("all to be counted", || {
        handshakes(&server, "failed") == TRIES as u64
    });
    server.log_line(&["TLS handshake failed: ", "; client offers TLSv1.0 (no auth"]);
    let seconds = usize::try_from(begun.elapsed().as_secs()).expect("few");
    let lines = server.log().matches("TLS handshake failed").count();
    assert!(lines <= 1 + seconds, "{lines} lines in {seconds} seconds");
}

#[test]
fn connections_that_are_reset_in_the_handshake_are_told_once_a_second() {
    const TRIES: usize = 40;
    let server = server();
    let begun = Instant::now();
    let stopped_in_hello = |_| {
        let mut client = Client::silent(server.site.pop3s());
        client.send(&hello_of_tls_1_0()[..20]);
        client
    };
    let clients: Vec<_> = (0..TRIES).map(stopped_in_hello).collect();
    // What is reset before it is accepted was never there.
    until_true("all to be accepted", || {
        Scrape::of(server.site.admin()).sum("popcore_sessions_opened_total") == TRIES as u64
    });
    for client in clients {
        client.reset();
    }
    until_true("all to be counted", || {
        handshakes(&server, "abandoned") == TRIES as u64
    });
    server.log_line(&["in the TLS handshake", "no auth attempts"]);
    let seconds = usize::try_from(begun.elapsed().as_secs()).expect("few");
    let lines = server.log().matches("no auth attempts").count();
    assert!(lines <= 1 + seconds, "{lines} lines in {seconds} seconds");
}

/// A hello with one cipher suite and without extensions.
fn hello_of_tls_1_0() -> Vec<u8> {
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 1];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    hello
}

/// Handshakes that came out like this.
fn handshakes(server: &Server, result: &str) -> u64 {
    let series = format!("popcore_tls_handshakes_total{{result=\"{result}\"}}");
    Scrape::of(server.site.admin()).value(&series)
}

#[test]
fn a_client_that_stalls_in_its_hello_ends_with_the_time_for_it() {
    let mut site = Site::with_users(&["ann"]);
    site.login = "1s";
    let server = site.start();
    let hello = hello_of_tls_1_0();
    for part in [1, 5, 20, hello.len() - 1] {
        let mut client = Client::silent(server.site.pop3s());
        client.send(&hello[..part]);
        client.ends();
    }
    server.log_line(&["TLS handshake timed out"]);
    assert_eq!(handshakes(&server, "timed_out"), 4);
}

/// The time for a login is a minute here; that for a handshake is shorter.
#[test]
fn a_handshake_has_a_time_of_its_own() {
    let site = Site::with_users(&["ann"]);
    let server = site.start();
    let begun = Instant::now();
    let mut in_hello = Client::silent(server.site.pop3s());
    in_hello.send(&hello_of_tls_1_0()[..20]);
    // A client that says its hello, and nothing to the server's.
    let mut behind_hello = Client::silent(server.site.pop3s());
    let name = "localhost".try_into().expect("a name");
    let mut connection = ClientConnection::new(own(), name).expect("a client");
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).expect("a hello");
    behind_hello.send(hello);
    assert!(!behind_hello.rest().is_empty());
    in_hello.ends();
    assert!(
        begun.elapsed() < Duration::from_secs(50),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(handshakes(&server, "timed_out"), 2);
}

#[test]
fn a_missing_close_notify_is_no_fault() {
    let server = server();
    let client = implicit(&server);
    drop(client.into_stream().sock);
    let line = server.log_line(&["Connection closed (no auth"]);
    assert!(line.contains(", TLS, "), "{line}");
}

#[test]
fn tls_on_the_clear_port_fails_at_the_client_and_costs_nothing() {
    let server = server();
    let stream = Client::silent(server.site.pop3()).into_stream();
    let mut secured = secure(stream, own());
    let error = secured
        .write_all(b"CAPA\r\n")
        .and_then(|()| secured.read_exact(&mut [0]));
    assert!(error.is_err());
    drop(secured);
    server.log_line(&["TLS without STLS", "no auth attempts"]);
    implicit(&server).ok("QUIT");
}

#[test]
fn a_handshake_that_does_not_come_ends_with_the_login_time() {
    let mut site = Site::with_users(&["ann"]);
    site.login = "1s";
    let server = site.start();
    let mut silent = Client::silent(server.site.pop3s());
    silent.ends();
    server.log_line(&["TLS handshake timed out"]);
}

#[test]
fn close_notify_ends_the_stream() {
    let server = server();
    let mut client = implicit(&server);
    client.ok("QUIT");
    // A stream cut short would be an error here and not an end.
    let mut rest = Vec::new();
    let end = client.into_stream().read_to_end(&mut rest);
    assert_eq!(end.expect("an end that was announced"), 0);
}

/// Whoever reads the last record can see in the same moment that nothing follows.
#[test]
fn the_last_reply_its_notice_and_the_end_come_in_one_segment() {
    let server = server();
    for session in 0..100 {
        let mut client = implicit(&server);
        client.send("QUIT\r\n");
        let socket = &client.stream().sock;
        let mut watched = [PollFd::new(socket, PollFlags::IN | PollFlags::RDHUP)];
        rustix::event::poll(&mut watched, None).expect("something comes");
        let seen = watched[0].revents();
        assert!(
            seen.contains(PollFlags::IN | PollFlags::RDHUP),
            "{session}: {seen:?}"
        );
        assert_eq!(client.line(), "+OK popcore signing off");
        client.end().expect("an end that was announced");
    }
}

/// What was promised is done and told, also when the server closes meanwhile.
#[test]
fn the_answer_to_quit_comes_though_the_server_closes_at_once() {
    const MESSAGES: usize = 20_000;
    let mut site = Site::with_users(&["ann"]);
    site.drain = "10m";
    let mailbox = site.mailbox("ann");
    mailbox.fill(MESSAGES);
    let mut server = site.start();
    let mut client = implicit(&server);
    client.log_in("ann");
    for first in (1..=MESSAGES).step_by(1000) {
        let commands = (first..first + 1000).map(|number| format!("DELE {number}\r\n"));
        client.send(commands.collect::<Vec<_>>().concat());
        for _ in 0..1000 {
            assert!(client.line().starts_with("+OK"));
        }
    }
    client.send("QUIT\r\n");
    let new = mailbox.path().join("new");
    until_true("the removal to begin", || {
        std::fs::read_dir(&new).expect("a folder").count() < MESSAGES
    });
    server.signal(Signal::TERM);
    server.log_line(&["stopping: no new sessions"]);
    server.signal(Signal::TERM);
    assert_eq!(client.line(), "+OK popcore signing off");
    client.end().expect("an end that was announced");
    assert_eq!(server.end().code(), Some(0));
    assert_eq!(mailbox.names().len(), 0);
    server.log_line(&["pop3(ann)", "Logged out", "del=20000/20000"]);
}

/// In the midst of a record nothing can be announced: the end of what is cut short
/// is seen to be none, and nothing that comes is taken for a part of the record.
#[test]
fn a_message_that_is_cut_short_ends_without_notice() {
    let mut site = Site::with_users(&["ann"]);
    site.drain = "10m";
    site.mailbox("ann")
        .deliver("new/1.m", b"a large message\n".repeat(1 << 21));
    let mut server = site.start();
    let mut client = implicit(&server);
    client.log_in("ann");
    client.ok("RETR 1");
    // The socket is full: the server waits within a record, not between two.
    await_rest(server.pid());
    server.signal(Signal::TERM);
    server.log_line(&["stopping: no new sessions"]);
    server.signal(Signal::TERM);
    assert_eq!(server.end().code(), Some(0));
    let end = client.end().expect_err("it was cut short");
    assert_eq!(end.kind(), ErrorKind::UnexpectedEof, "{end}");
}

/// With TLS 1.3 the ticket, with TLS 1.2 the end of the handshake: a segment of its
/// own would cost both sides as much as another command.
#[test]
fn the_greeting_comes_with_the_last_of_the_handshake() {
    let server = server();
    for round in 0..40 {
        let provider = CryptoProvider {
            cipher_suites: vec![match round % 2 {
                0 => cipher_suite::TLS13_AES_128_GCM_SHA256,
                _ => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            }],
            ..default_provider()
        };
        let mut stream = Client::silent(server.site.pop3s()).into_stream();
        let mut client = secure(
            stream.try_clone().expect("a descriptor"),
            own_with(provider),
        )
        .conn;
        // A hello, an answer, and what the client says to that.
        client.write_tls(&mut stream).expect("written");
        while client.wants_read() && !client.wants_write() {
            client.read_tls(&mut stream).expect("an answer");
            client.process_new_packets().expect("right records");
        }
        while client.wants_write() {
            client.write_tls(&mut stream).expect("written");
        }
        client.read_tls(&mut stream).expect("the last of it");
        client.process_new_packets().expect("right records");
        let mut greeting = [0; 17];
        let read = client.reader().read_exact(&mut greeting);
        read.unwrap_or_else(|error| panic!("{round}: {error}"));
        assert_eq!(&greeting, b"+OK popcore ready");
    }
}
