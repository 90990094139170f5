//! TLS from the first byte and by STLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::client::Client;
use super::model;
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
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
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

fn own() -> Arc<ClientConfig> {
    trusting(CERTIFICATE.trusted.clone())
}

/// A client on the port with implicit TLS that has read the greeting.
fn implicit(server: &Server) -> Client<Secured> {
    let stream = Client::silent(server.site.pop3s()).into_stream();
    let mut client = Client::over(secure(stream, own()));
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
    assert!(!server.log().contains("user=<ann>"), "{}", server.log());
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
    let alert = client.rest();
    assert!(
        !alert.starts_with(b"+OK") && alert.len() < 64,
        "{}",
        alert.escape_ascii()
    );
    server.log_line(&["TLS failed", "no auth attempts in 0 secs"]);
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
    server.log_line(&["Connection ", "no auth attempts"]);
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
