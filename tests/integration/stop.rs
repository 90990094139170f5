//! Signals to stop: what becomes of sessions, and of the process.

use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;

use super::mailbox::message;
use super::model;
use super::patience::until_true;
use super::server::{PROGRAM, Server, Site};

fn server(drain: &'static str) -> Server {
    let mut site = Site::with_users(&["ann", "bob"]);
    site.drain = drain;
    let mailbox = site.mailbox("ann");
    mailbox.fill(2);
    mailbox.deliver("new/3.m", b"a large message\n".repeat(1 << 20));
    site.start()
}

/// New connections are refused, on every shard.
fn refused(server: &Server) {
    let address = server.site.pop3();
    until_true("connections to be refused", || {
        TcpStream::connect(address).is_err()
    });
    for _ in 0..20 {
        TcpStream::connect(address).expect_err("nobody listens");
    }
}

fn drains(signal: Signal) {
    let mut server = server("10m");
    let mut client = server.log_in("ann");
    client.send("RETR 3\r\n");
    server.signal(signal);
    refused(&server);
    // What was begun is finished, and so is what comes after it.
    assert!(client.line().starts_with("+OK"));
    assert!(client.lines_to_terminator() == model::sent(&b"a large message\n".repeat(1 << 20)));
    assert_eq!(client.text("RETR 1"), model::sent(&message(1)));
    client.ok("DELE 1");
    assert!(server.runs());
    client.quit();
    assert_eq!(server.end().code(), Some(0));
    assert_eq!(server.mailbox("ann").names(), ["new/2.m", "new/3.m"]);
}

/// While shards start there is nobody to wait for, and to stop is no failure.
#[test]
fn a_signal_during_the_start_stops_it_without_an_error() {
    for round in 0..10 {
        let mut site = Site::with_users(&["ann"]);
        site.shards = "16".into();
        let mut server = site.launch(Command::new(PROGRAM));
        // Its thread is there once signals are received.
        let tasks = format!("/proc/{}/task", server.pid());
        until_true("signals to be received", || {
            let tasks = fs::read_dir(&tasks).expect("it runs");
            let mut names = tasks.filter_map(|task| {
                let name = task.expect("an entry").path().join("comm");
                // A thread may have ended since.
                fs::read_to_string(name).ok()
            });
            names.any(|name| name == "signals\n")
        });
        let signal = [Signal::TERM, Signal::INT][round % 2];
        server.signal(signal);
        assert_eq!(server.end().code(), Some(0));
        let log = server.log();
        assert!(log.contains("Info: stopped"), "{log}");
        assert!(!log.contains("popcore: shard"), "{log}");
    }
}

#[test]
fn sigterm_lets_sessions_finish() {
    drains(Signal::TERM);
}

#[test]
fn sigint_lets_sessions_finish() {
    drains(Signal::INT);
}

#[test]
fn a_server_without_sessions_ends_at_once() {
    let mut server = server("10m");
    server.log_in("ann").quit();
    server.signal(Signal::TERM);
    assert_eq!(server.end().code(), Some(0));
    let log = server.log();
    assert!(log.ends_with("stopped\n"), "{log}");
}

#[test]
fn the_time_to_drain_ends_and_deletes_nothing() {
    let mut server = server("1s");
    let mut client = server.log_in("ann");
    client.ok("DELE 1");
    let begun = Instant::now();
    server.signal(Signal::TERM);
    client.ends();
    assert!(begun.elapsed().as_millis() >= 1000);
    assert_eq!(server.end().code(), Some(0));
    server.log_line(&["pop3(ann)", "Server shutting down", "del=0/3"]);
    assert_eq!(server.mailbox("ann").names().len(), 3);
}

#[test]
fn a_second_signal_closes_at_once() {
    let mut server = server("10m");
    let mut client = server.log_in("ann");
    let mut stranger = server.connect();
    let mut stalled = server.log_in("bob");
    stalled.ok("STAT");
    client.ok("DELE 1");
    client.ok("RETR 3");
    server.signal(Signal::TERM);
    refused(&server);
    server.signal(Signal::TERM);
    assert_eq!(server.end().code(), Some(0));
    stranger.ends();
    stalled.ends();
    let rest = client.rest();
    assert!(
        !rest.ends_with(b"\r\n.\r\n"),
        "cut short, it has no terminator"
    );
    assert_eq!(server.mailbox("ann").names().len(), 3);
}

#[test]
fn a_login_under_way_is_drained_too() {
    let mut server = server("10m");
    let mut client = server.connect();
    client.ok("USER ann");
    server.signal(Signal::TERM);
    refused(&server);
    client.ok("PASS secret");
    client.quit();
    assert_eq!(server.end().code(), Some(0));
}

#[test]
fn what_the_last_sessions_left_to_be_done_is_done_before_the_end() {
    const MESSAGES: usize = 300;
    let mut site = Site::with_users(&["ann"]);
    site.maildrop = "mail/{user}\"\nmark_seen = true\n#\"";
    site.mailbox("ann").fill(MESSAGES);
    let mut server = site.start();
    let mut client = server.log_in("ann");
    for number in 1..=MESSAGES {
        client.text(&format!("RETR {number}"));
    }
    // The second closes the session, whose messages are marked on a thread.
    server.signal(Signal::TERM);
    server.signal(Signal::INT);
    assert!(server.end().success());
    let names = server.mailbox("ann").names();
    assert_eq!(names.len(), MESSAGES);
    assert!(
        names.iter().all(|name| name.starts_with("cur/")),
        "{names:?}"
    );
}
