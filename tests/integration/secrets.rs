//! Where a password stays when it has been used: nowhere. The memory of a running server
//! is searched, which is what a core dump would hold, and what `ps` shows of it.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use popcore::auth::{NewScheme, Password};
use rustix::process::Signal;

use super::client::{Client, PASSWORD};
use super::issuer::Issuer;
use super::oauth::{by_introspection, shown};
use super::patience::until;
use super::scrape::Scrape;
use super::server::{PROGRAM, Server, Site};

/// Nothing else in a server holds this.
const SECRET: &str = "Kw7-vXq2-Tz9-Lm4";
const WRONG: &str = "Jd3-bNs8-Rf5-Gh1";

/// Comes behind them where a thread's stack still holds registers of the last one, as it
/// does in a build that is not optimised: they are where those of the next one will be.
const NEXT: &str = "Pc6-mWq4-Yk2-Zt0";

/// Octets of a page on every machine that the tests run on; larger ones are several.
const PAGE: u64 = 4096;

/// Ranges of addresses that a process may write and that are there: in memory or swapped
/// out (`proc_pid_pagemap(5)`, bits 63 and 62).
fn ranges(pid: u32) -> Vec<Range<u64>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("own child");
    let pages = File::open(format!("/proc/{pid}/pagemap")).expect("own child");
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (range, mode) = (
            fields.next().expect("a range"),
            fields.next().expect("a mode"),
        );
        if !mode.starts_with("rw") {
            continue;
        }
        let (first, last) = range.split_once('-').expect("two addresses");
        let page = |text| u64::from_str_radix(text, 16).expect("an address") / PAGE;
        let (first, last) = (page(first), page(last));
        let count = usize::try_from(last - first).expect("fits");
        let mut entries = vec![0; 8 * count];
        let read = pages.read_at(&mut entries, 8 * first).expect("own child");
        for (entry, page) in entries[..read].as_chunks::<8>().0.iter().zip(first..) {
            if u64::from_ne_bytes(*entry) >> 62 == 0 {
                continue;
            }
            let (start, end) = (page * PAGE, (page + 1) * PAGE);
            match ranges.last_mut() {
                Some(range) if range.end == start => range.end = end,
                _ => ranges.push(start..end),
            }
        }
    }
    ranges
}

/// Where a text stands in the memory that a process may write, with what is around it.
fn found(pid: u32, text: &[u8]) -> Vec<String> {
    let memory = File::open(format!("/proc/{pid}/mem")).expect("own child");
    let mut places = Vec::new();
    for range in ranges(pid) {
        let mut octets = vec![0; usize::try_from(range.end - range.start).expect("fits")];
        // Some of what is mapped is a device's, and no memory.
        let Ok(length) = memory.read_at(&mut octets, range.start) else {
            continue;
        };
        octets.truncate(length);
        for at in memchr::memmem::find_iter(&octets, text) {
            let around = at.saturating_sub(24)..(at + text.len() + 8).min(length);
            let at = range.start + at as u64;
            places.push(format!("{at:x}: {}", octets[around].escape_ascii()));
        }
    }
    places
}

fn users(site: &Site) {
    let password = Password::new(SECRET.as_bytes()).expect("short");
    let stored = NewScheme::Argon2id.store(&password);
    site.write_users(&format!("ann:{}\n", *stored));
}

fn base64(text: &str) -> String {
    use base64ct::{Base64, Encoding as _};
    Base64::encode_string(text.as_bytes())
}

fn log_in_and_out(mut client: Client) {
    client.ok("USER ann");
    assert!(
        client
            .say(&format!("PASS {WRONG}"))
            .starts_with("-ERR [AUTH]")
    );
    client.ok("USER ann");
    client.ok(&format!("PASS {SECRET}"));
    client.ok("NOOP");
    client.quit();
}

fn all_have_left(server: &Server) {
    until("the sessions to be over", || {
        let scrape = Scrape::of(server.site.admin());
        (scrape.sum("popcore_sessions_active") == 0).then_some(())
    });
}

#[test]
fn a_password_that_was_used_is_nowhere_in_memory() {
    let site = Site::with_users(&[]);
    users(&site);
    let server = site.start();
    log_in_and_out(server.connect());
    all_have_left(&server);
    for secret in [SECRET, WRONG] {
        let places = found(server.pid(), secret.as_bytes());
        assert!(places.is_empty(), "{secret}:\n{}", places.join("\n"));
    }
}

#[test]
fn nor_is_one_of_sasl() {
    let site = Site::with_users(&[]);
    users(&site);
    let server = site.start();
    let mut client = server.connect();
    let response = base64(&format!("\0ann\0{SECRET}"));
    client.ok(&format!("AUTH PLAIN {response}"));
    client.quit();
    all_have_left(&server);
    let tail = &response[response.len() / 2..];
    for secret in [SECRET, tail] {
        let places = found(server.pid(), secret.as_bytes());
        assert!(places.is_empty(), "{secret}:\n{}", places.join("\n"));
    }
}

/// Nor what is sent to a web service that verifies passwords, or tokens.
#[test]
fn nor_is_one_that_was_sent_to_a_web_service() {
    let issuer = Issuer::start();
    issuer.show(Some(format!(
        "{{\"result\":\"stored\",\"password\":\"{{PLAIN}}{PASSWORD}\"}}"
    )));
    let mut site = Site::with_users(&["ann"]);
    site.directories = format!(
        "[[auth.directory]]\nkind = \"http\"\nform = \"json\"\nurl = \"{}\"\n",
        issuer.url("/users")
    );
    let server = site.start();
    for secret in [SECRET, WRONG, NEXT] {
        let mut client = server.connect();
        client.ok("USER ann");
        client.err(&format!("PASS {secret}"));
        client.quit();
    }
    assert_eq!(issuer.asked(), 3);
    all_have_left(&server);
    for secret in [SECRET, WRONG] {
        let places = found(server.pid(), secret.as_bytes());
        assert!(places.is_empty(), "{secret}:\n{}", places.join("\n"));
    }
}

#[test]
fn nor_is_a_token_that_its_issuer_was_asked_about() {
    let issuer = Issuer::start();
    let server = by_introspection(&issuer).start();
    let said = serde_json::json!({"active": true, "username": "ann@example.net"});
    issuer.know(SECRET, said);
    for (token, is_let_in) in [(SECRET, true), (WRONG, false), (NEXT, false)] {
        let shown = shown(&server, "XOAUTH2", "ann@example.net", token);
        assert_eq!(shown.starts_with("+OK"), is_let_in, "{shown}");
    }
    all_have_left(&server);
    for secret in [SECRET, WRONG] {
        let places = found(server.pid(), secret.as_bytes());
        assert!(places.is_empty(), "{secret}:\n{}", places.join("\n"));
    }
}

/// Where the system would have one, and by whoever popcore is started.
#[test]
fn a_server_that_dies_leaves_no_core_dump() {
    let allowing = "ulimit -S -c \"$(ulimit -H -c)\"; exec \"$0\" \"$@\"";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", allowing, PROGRAM]);
    let mut server = Site::with_users(&["ann"]).start_by(command);
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).expect("own child");
    let limit = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let soft = limit.and_then(|line| line.split_ascii_whitespace().nth(4));
    assert!(matches!(soft, Some("0" | "1")), "{limits}");
    server.signal(Signal::ABORT);
    assert!(!server.end().core_dumped());
}

/// The search finds what is there: the name, which is no secret.
#[test]
fn the_search_finds_what_is_there() {
    let site = Site::with_users(&[]);
    site.write_users("somebody-with-a-long-name:{PLAIN}x\n");
    let server = site.start();
    assert!(!found(server.pid(), b"somebody-with-a-long-name").is_empty());
    // What everybody on the machine may see of a process.
    for file in ["cmdline", "comm"] {
        let shown = fs::read(format!("/proc/{}/{file}", server.pid())).expect("own child");
        assert!(memchr::memmem::find(&shown, b"{PLAIN}").is_none(), "{file}");
    }
}
