//! curl: one command by URL and `-X`, octets as they are on the wire.
//!
//! Without `-X`, a URL with a number is RETR and one without is LIST. curl
//! unstuffs, and leaves out the line of the dot; nothing else is changed. It
//! looks for that line as CRLF, dot, CRLF, and where nothing is before the dot
//! it takes the first CRLF from the reply's own line: an empty message comes out
//! as one CRLF.

use crate::compare::assert_same;
use crate::messages::{Message, odd, ordinary};
use crate::program::{Ended, run};
use crate::site::{HOST, PASSWORD, PROTECTIONS, Protection, Site, USER};

/// Runs curl for one URL below the maildrop's.
fn curl(site: &Site, protection: Protection, path: &str, more: &[&str]) -> Ended {
    let (scheme, flag) = match protection {
        Protection::Clear => ("pop3", None),
        Protection::Stls => ("pop3", Some("--ssl-reqd")),
        Protection::Tls => ("pop3s", None),
    };
    let certificate = site.authority().display().to_string();
    let user = format!("{USER}:{PASSWORD}");
    let url = format!("{scheme}://{HOST}:{}/{path}", site.port(protection));
    let fixed = [
        "--no-progress-meter",
        "--cacert",
        &certificate,
        "--user",
        &user,
    ];
    let arguments = fixed.into_iter().chain(flag).chain(more.iter().copied());
    run("curl", "curl", &site.home(), arguments.chain([&*url]))
}

/// What curl makes of a reply of many lines.
fn given(lines: Vec<u8>) -> Vec<u8> {
    if lines.is_empty() {
        b"\r\n".to_vec()
    } else {
        lines
    }
}

fn all() -> Vec<Message> {
    ordinary().into_iter().chain(odd()).collect()
}

#[test]
fn curl_retrieves_every_message_as_it_is() {
    let messages = all();
    for protection in PROTECTIONS {
        let site = Site::start(&messages);
        for (message, number) in messages.iter().zip(1..) {
            let fetched = curl(&site, protection, &number.to_string(), &[]).well();
            let expected = given(message.on_the_wire());
            assert_same(message.name, &fetched.stdout, &expected);
        }
        assert_eq!(site.remaining(), messages.len());
        site.stop_after(protection);
    }
}

#[test]
fn curl_lists_the_octets_it_then_gets() {
    let messages = all();
    for protection in PROTECTIONS {
        let site = Site::start(&messages);
        let listed = curl(&site, protection, "", &[]).well();
        let rows = messages.iter().zip(1..).map(|(message, number)| {
            let octets = message.on_the_wire().len();
            format!("{number} {octets}")
        });
        assert_eq!(listed.lines(), rows.collect::<Vec<_>>());
        site.stop_after(protection);
    }
}

#[test]
fn curl_sees_the_same_unique_ids_in_every_session() {
    let messages = all();
    let site = Site::start(&messages);
    let listings = PROTECTIONS.map(|protection| {
        let listed = curl(&site, protection, "", &["-X", "UIDL"]).well();
        let lines = listed.lines().into_iter().map(str::to_owned);
        lines.collect::<Vec<_>>()
    });
    assert_eq!(listings[0].len(), messages.len());
    assert_eq!(listings[0], listings[1]);
    assert_eq!(listings[0], listings[2]);
    site.stop();
}

#[test]
fn curl_gets_the_top_of_every_message() {
    let messages = all();
    let site = Site::start(&messages);
    for (message, number) in messages.iter().zip(1..) {
        for body_lines in [0, 1, 3, 1_000_000] {
            let command = format!("TOP {number} {body_lines}");
            let fetched = curl(&site, Protection::Stls, "", &["-X", &command]).well();
            let expected = given(top(&message.on_the_wire(), body_lines));
            let what = format!("{}: {command}", message.name);
            assert_same(&what, &fetched.stdout, &expected);
        }
    }
    site.stop();
}

/// Headers, the blank line and so many lines of the body.
fn top(wire: &[u8], body_lines: usize) -> Vec<u8> {
    let lines: Vec<&[u8]> = wire.split_inclusive(|byte| *byte == b'\n').collect();
    let blank = lines.iter().position(|line| *line == b"\r\n");
    let wanted = blank.map_or(lines.len(), |at| at + 1 + body_lines);
    lines[..wanted.min(lines.len())].concat()
}

#[test]
fn curl_deletes_what_it_is_told_to_and_nothing_else() {
    for protection in PROTECTIONS {
        let messages = ordinary();
        let site = Site::start(&messages);
        curl(&site, protection, "2", &["--head", "-X", "DELE"]).well();
        assert_eq!(site.remaining(), messages.len() - 1);
        let first = curl(&site, protection, "1", &[]).well();
        assert_same(messages[0].name, &first.stdout, &messages[0].on_the_wire());
        let second = curl(&site, protection, "2", &[]).well();
        assert_same(messages[2].name, &second.stdout, &messages[2].on_the_wire());
        // One session for them all: curl keeps the connection from URL to URL.
        let rest = format!("[1-{}]", messages.len() - 1);
        curl(&site, protection, &rest, &["--head", "-X", "DELE"]).well();
        assert_eq!(site.remaining(), 0);
        let log = site.stop_after(protection);
        let both = format!("del={0}/{0}", messages.len() - 1);
        assert!(log.contains(&both), "{log}");
    }
}

#[test]
fn curl_is_told_what_is_wrong() {
    let site = Site::start(&ordinary());
    // 8: a weird server reply; 78: no such resource; 67: login denied.
    let absent = ordinary().len() + 1;
    curl(&site, Protection::Clear, &absent.to_string(), &[]).with_code(8);
    curl(&site, Protection::Clear, "1", &["--user", "alice:two"]).with_code(67);
    // The certificate is not one that this machine trusts.
    let strangers = ["--capath", "/nonexistent", "--cacert", "/dev/null"];
    let refused = curl(&site, Protection::Stls, "1", &strangers);
    assert!([Some(60), Some(77)].contains(&refused.code), "{refused:?}");
    assert_eq!(site.remaining(), ordinary().len());
}
