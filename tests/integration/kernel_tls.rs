//! `tls.kernel`: records that the kernel makes, and what happens where it cannot.
//!
//! Each test holds on both kinds of kernel, and says what it sees on either. One
//! with TLS is Debian's, which `.ci/kernel` boots.

use std::fs;
use std::sync::Arc;

use rustix::process::Signal;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::{ClientConfig, SupportedCipherSuite};

use super::client::Client;
use super::model;
use super::scrape::Scrape;
use super::server::{Server, Site};
use super::tls::{Secured, own, own_with, secure};

const SUITES: [SupportedCipherSuite; 5] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    // Not one that is handed over.
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// Whether the kernel has TLS, as the kernel says it.
fn kernel_has_tls() -> bool {
    let known = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp");
    known.is_ok_and(|known| known.split_whitespace().any(|name| name == "tls"))
}

/// Three messages, of which the third does not fit into a window.
fn server() -> Server {
    let mut site = Site::with_users(&["ann"]);
    "kernel = \"auto\"".clone_into(&mut site.tls);
    site.drain = "10m";
    let mailbox = site.mailbox("ann");
    mailbox.fill(2);
    mailbox.deliver("new/3.m", large());
    site.start()
}

fn large() -> Vec<u8> {
    (0..60_000)
        .flat_map(|n| format!(".{n:07}\n").into_bytes())
        .collect()
}

fn client(server: &Server, config: Arc<ClientConfig>) -> Client<Secured> {
    let stream = Client::silent(server.site.pop3s()).into_stream();
    let mut client = Client::over(secure(stream, config));
    assert!(client.line().starts_with("+OK popcore ready"));
    client.log_in("ann");
    client
}

/// Sessions that were handed over so far.
fn handed(server: &Server) -> u64 {
    Scrape::of(server.site.admin()).value("popcore_tls_kernel_sessions_total")
}

#[test]
fn whole_sessions_with_every_cipher() {
    let server = server();
    let mut expected = 0;
    for suite in SUITES {
        let provider = CryptoProvider {
            cipher_suites: vec![suite],
            ..default_provider()
        };
        let mut client = client(&server, own_with(provider));
        client.text("RETR 1");
        assert_eq!(handed(&server), expected, "a small message is not worth it");
        assert!(client.text("RETR 3") == model::sent(&large()));
        assert_eq!(client.rows("UIDL").len(), 3);
        // Replies of all lengths in a row.
        client.send("RETR 3\r\nTOP 3 100\r\nNOOP\r\n".repeat(3) + "QUIT\r\n");
        for _ in 0..3 {
            assert!(client.line().starts_with("+OK "));
            assert!(client.lines_to_terminator() == model::sent(&large()));
            assert!(client.line().starts_with("+OK"));
            client.lines_to_terminator();
            assert!(client.line().starts_with("+OK"));
        }
        assert_eq!(client.line(), "+OK popcore signing off");
        client.end().expect("an end that was announced");
        let taken = suite != cipher_suite::TLS13_CHACHA20_POLY1305_SHA256 && kernel_has_tls();
        expected += u64::from(taken);
        assert_eq!(handed(&server), expected, "{suite:?}");
    }
    let warnings = server.log().matches("the kernel has no TLS").count();
    assert_eq!(warnings, usize::from(!kernel_has_tls()));
}

#[test]
fn large_messages_by_every_way_to_the_socket() {
    let stored = [
        large(),
        "Subject: x\r\n\r\nand so on\r\n"
            .repeat(30_000)
            .into_bytes(),
    ];
    for map_from in [1, u64::MAX >> 1] {
        let mut site = Site::with_users(&["ann"]);
        "kernel = \"auto\"".clone_into(&mut site.tls);
        site.map_from = Some(map_from);
        for (octets, number) in stored.iter().zip(1..) {
            let name = format!("new/{number}.m");
            site.mailbox("ann").deliver(&name, octets);
        }
        let server = site.start();
        let mut client = client(&server, own());
        client.send("RETR 1\r\nRETR 2\r\n".repeat(2));
        for round in 0..2 {
            for octets in &stored {
                assert!(client.line().starts_with("+OK "));
                assert!(
                    client.lines_to_terminator() == model::sent(octets),
                    "mapped from {map_from}, round {round}"
                );
            }
        }
        client.quit();
        assert_eq!(handed(&server), u64::from(kernel_has_tls()));
    }
}

#[test]
fn the_end_is_announced_to_a_client_that_still_reads_what_was_before() {
    for kernel in ["auto", "off"] {
        let mut site = Site::with_users(&["ann"]);
        site.tls = format!("kernel = {kernel:?}");
        site.mailbox("ann").deliver("new/1.m", large());
        let server = site.start();
        let mut client = client(&server, own());
        client.send("RETR 1\r\n".repeat(4) + "QUIT\r\n");
        for _ in 0..4 {
            assert!(client.line().starts_with("+OK "));
            client.lines_to_terminator();
        }
        assert_eq!(client.line(), "+OK popcore signing off");
        client.end().expect("an end that was announced");
    }
}

#[test]
fn a_client_that_asks_for_new_keys_comes_to_its_end_or_gets_them() {
    let server = server();
    let mut client = client(&server, own());
    client.text("RETR 3");
    let connection = &mut client.stream_mut().conn;
    connection.refresh_traffic_keys().expect("TLS 1.3");
    if kernel_has_tls() {
        client.send("NOOP\r\n");
        client.end().expect("an end that was announced");
        server.log_line(&["TLS failed: new keys are due", "user=<ann>"]);
    } else {
        client.ok("NOOP");
        assert!(client.text("RETR 3") == model::sent(&large()));
        client.quit();
    }
}

#[test]
fn a_server_that_closes_in_the_midst_damages_nothing() {
    let mut server = server();
    let mut client = client(&server, own());
    client.send("RETR 3\r\n".repeat(50));
    assert!(client.line().starts_with("+OK "));
    server.signal(Signal::TERM);
    server.log_line(&["stopping: no new sessions"]);
    server.signal(Signal::TERM);
    assert_eq!(server.end().code(), Some(0));
    let rest = client.rest();
    assert!(rest.len() < 49 * large().len());
}
