//! What an operator sees: metrics, health and log lines.

use std::fs;

use regex::Regex;
use rustix::process::Signal;

use super::client::Client;
use super::mailbox::message;
use super::model;
use super::patience::{until, until_true};
use super::scrape::{self, Scrape};
use super::server::{Server, Site};

fn server() -> Server {
    let site = Site::with_users(&["ann", "bob"]);
    site.mailbox("ann").fill(3);
    site.start()
}

fn octets(number: usize) -> u64 {
    model::counted(&message(number)).len() as u64
}

/// The scrape once no session is open.
fn at_rest(server: &Server) -> Scrape {
    until("all sessions to be over", || {
        let scrape = Scrape::of(server.site.admin());
        (scrape.sum("popcore_sessions_active") == 0).then_some(scrape)
    })
}

#[test]
fn metrics_tell_what_sessions_did_over_all_shards() {
    let server = server();
    // Enough that both shards had some.
    for _ in 0..40 {
        let mut client = server.log_in("ann");
        client.text("RETR 1");
        client.text("RETR 2");
        client.ok("STAT");
        client.err("XYZZY");
        client.quit();
    }
    let mut client = server.log_in("ann");
    client.ok("DELE 3");
    client.quit();
    let mut client = server.connect();
    client.ok("USER ann");
    client.err("PASS wrong");
    let holder = server.log_in("bob");
    client.ok("USER bob");
    client.err("PASS secret");
    drop((client, holder));

    let scrape = at_rest(&server);
    assert_eq!(scrape.sum("popcore_sessions_opened_total"), 43);
    let shards = scrape.values("popcore_sessions_opened_total");
    assert_eq!(shards.len(), 2);
    assert!(shards.iter().all(|shard| *shard > 0), "{shards:?}");
    for (series, value) in [
        ("logins_total{result=\"accepted\"}", 42),
        ("logins_total{result=\"rejected\"}", 1),
        ("logins_total{result=\"in_use\"}", 1),
        ("commands_total{verb=\"RETR\"}", 80),
        ("commands_total{verb=\"STAT\"}", 40),
        ("commands_total{verb=\"DELE\"}", 1),
        ("commands_total{verb=\"QUIT\"}", 41),
        ("command_errors_total", 40),
        ("messages_sent_total{command=\"retr\"}", 80),
        (
            "message_octets_sent_total{command=\"retr\"}",
            40 * (octets(1) + octets(2)),
        ),
        ("messages_deleted_total", 1),
        ("message_octets_deleted_total", octets(3)),
        ("sessions_ended_total{reason=\"quit\"}", 41),
        ("sessions_ended_total{reason=\"client_closed\"}", 2),
        ("login_latency_seconds_count", 44),
        ("session_length_seconds_count", 43),
    ] {
        let series = format!("popcore_{series}");
        assert_eq!(scrape.value(&series), value, "{series}");
    }
}

#[test]
fn the_octets_of_top_are_those_that_were_sent() {
    let server = server();
    let mut client = server.log_in("ann");
    let sent = client.text("TOP 2 1000");
    let octets = model::unstuffed(&sent).len() as u64;
    client.quit();
    server.log_line(&["pop3(ann)", &format!(" top=1/{octets}, ")]);
    let series = "popcore_message_octets_sent_total{command=\"top\"}";
    assert_eq!(at_rest(&server).value(series), octets);
}

#[test]
fn open_sessions_are_counted_while_they_are() {
    let server = server();
    let clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    let scrape = Scrape::of(server.site.admin());
    assert_eq!(scrape.sum("popcore_sessions_active"), 20);
    drop(clients);
    at_rest(&server);
}

#[test]
fn healthz_fails_while_the_server_drains() {
    let server = server();
    let health = || scrape::get(server.site.admin(), "/healthz");
    assert_eq!(health(), ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned()));
    let mut client = server.log_in("ann");
    server.signal(Signal::TERM);
    until_true("health to fail", || {
        health().0 == "HTTP/1.1 503 Service Unavailable"
    });
    client.ok("STAT");
}

#[test]
fn a_session_leaves_one_line_with_every_field() {
    let server = server();
    let mut client = server.log_in("ann");
    client.text("RETR 1");
    client.text("RETR 3");
    client.ok("DELE 2");
    client.quit();
    let line = server.log_line(&["pop3(ann)"]);
    let form = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z pop3\(ann\)<(\d+)><([0-9a-f.]+)>: Info: Disconnected: Logged out top=0/0, retr=2/(\d+), del=1/3, size=(\d+), user=<ann>, rip=127\.0\.0\.1, lip=([0-9.]+), session=<([0-9a-f.]+)>, del-size=(\d+), duration=\d+\.\d{3}$";
    let form = Regex::new(form).expect("a regex");
    let fields = form.captures(&line).unwrap_or_else(|| panic!("{line}"));
    assert_eq!(fields[1], server.pid().to_string());
    assert_eq!(fields[2], fields[6]);
    assert_eq!(fields[3], (octets(1) + octets(3)).to_string());
    assert_eq!(fields[4], (octets(1) + octets(2) + octets(3)).to_string());
    assert_eq!(fields[5], server.site.host().to_string());
    assert_eq!(fields[7], octets(2).to_string());
    assert_eq!(server.log().matches("pop3(ann)").count(), 1);
}

#[test]
fn a_failed_login_leaves_one_line_with_every_field() {
    let server = server();
    let mut client = server.connect();
    client.ok("USER ann");
    client.err("PASS wrong");
    client.ok("USER ann");
    client.err("PASS wrong");
    client.ok("QUIT");
    let line = server.log_line(&["auth failed, 2 attempts"]);
    let form = r"Z pop3-login: Info: Disconnected \(auth failed, 2 attempts in \d+ secs\): user=<ann>, method=PLAIN, rip=127\.0\.0\.1, lip=[0-9.]+, session=<[0-9a-f.]+>$";
    assert!(Regex::new(form).expect("a regex").is_match(&line), "{line}");
    server.log_line(&["Disconnected: Logged out (2 failed logins in ", "user=<>"]);
    assert!(!server.log().contains("wrong"), "no password is logged");
}

#[test]
fn no_line_shows_a_password_or_is_forged() {
    let server = server();
    let mut client = server.connect();
    client.ok("USER x>,rip=192.0.2.1");
    client.err("PASS sesame");
    client.ok("QUIT");
    let line = server.log_line(&["auth failed"]);
    assert!(line.contains("rip=127.0.0.1, lip="), "{line}");
    assert!(!line.contains("x>"), "{line}");
    assert!(!server.log().contains("sesame"));
}

#[test]
fn the_hangup_signal_opens_the_log_anew() {
    let mut site = Site::with_users(&["ann", "bob"]);
    site.log = "popcore.log";
    let (path, rotated) = (site.path().join("popcore.log"), site.path().join("rotated"));
    let server = site.launch(std::process::Command::new(super::server::PROGRAM));
    let in_log = |path: &std::path::Path, text: &str| {
        let log = fs::read_to_string(path).unwrap_or_default();
        log.contains(text)
    };
    until_true("the server to serve", || in_log(&path, " serves on "));
    server.log_in("ann").quit();
    until_true("ann's line", || in_log(&path, "pop3(ann)"));
    fs::rename(&path, &rotated).expect("renamed");
    server.signal(Signal::HUP);
    until_true("a new log", || in_log(&path, "the log continues here"));
    server.log_in("bob").quit();
    until_true("bob's line", || in_log(&path, "pop3(bob)"));
    assert!(in_log(&rotated, "pop3(ann)") && !in_log(&rotated, "pop3(bob)"));
}
