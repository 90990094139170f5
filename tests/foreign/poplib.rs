//! Python's poplib, by a script of a few lines beside this file.
//!
//! poplib gives lines without their ends; the script puts CRLF behind each, so
//! that nothing is changed.

use std::fs;
use std::path::Path;

use crate::compare::assert_same;
use crate::messages::{Message, odd, ordinary};
use crate::program::run;
use crate::site::{HOST, PASSWORD, PROTECTIONS, Protection, Settings, Site, USER};

const SCRIPT: &str = include_str!("fetch_by_poplib.py");

/// Fetches what is new and returns how many messages that were.
fn fetch(site: &Site, protection: Protection, mode: &str) -> usize {
    let protected = match protection {
        Protection::Clear => "clear",
        Protection::Stls => "stls",
        Protection::Tls => "tls",
    };
    let port = site.port(protection).to_string();
    let (certificate, folder) = (site.authority(), site.destination());
    let paths = [&certificate, &folder].map(|path| path.display().to_string());
    let arguments = [
        "-c", SCRIPT, HOST, &port, protected, &paths[0], USER, PASSWORD, &paths[1], mode,
    ];
    let ended = run("python3", "python3", &site.home(), arguments).well();
    ended.lines()[0].parse().expect("a number")
}

/// APOP, as poplib has it.
const APOP: &str = "
import poplib, ssl, sys
host, port, authority, user, password = sys.argv[1:]
box = poplib.POP3_SSL(host, int(port), context=ssl.create_default_context(cafile=authority))
print(box.apop(user, password).decode())
print(len(box.list()[1]))
box.quit()
";

#[test]
fn poplib_logs_in_by_apop() {
    let settings = Settings {
        auth: "apop = true",
        ..Settings::default()
    };
    let site = Site::start_by(&ordinary(), settings, |_| {});
    let (port, authority) = (site.port(Protection::Tls).to_string(), site.authority());
    let authority = authority.display().to_string();
    let fetch = |password: &str| {
        let arguments = ["-c", APOP, HOST, &port, &authority, USER, password];
        run("python3", "python3", &site.home(), arguments)
    };
    let listed = fetch(PASSWORD).well();
    let count = ordinary().len().to_string();
    assert_eq!(listed.lines(), ["+OK logged in", count.as_str()]);
    let refused = fetch("three words").with_code(1);
    let told = refused.stderr.contains("-ERR [AUTH] ");
    assert!(told, "{}", refused.stderr);
}

/// The files that the script wrote, in the order of the maildrop.
fn assert_fetched(destination: &Path, messages: &[Message]) {
    let mut files: Vec<_> = fs::read_dir(destination.join("new"))
        .expect("own folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert_eq!(files.len(), messages.len());
    for (file, message) in files.iter().zip(messages) {
        let arrived = fs::read(file).expect("own file");
        assert_same(message.name, &arrived, &message.on_the_wire());
    }
}

#[test]
fn poplib_leaves_mail_and_fetches_it_once_and_then_deletes_it() {
    let messages: Vec<_> = ordinary().into_iter().chain(odd()).collect();
    for protection in PROTECTIONS {
        let site = Site::start(&messages);
        assert_eq!(fetch(&site, protection, "leave"), messages.len());
        assert_eq!(fetch(&site, protection, "leave"), 0);
        assert_fetched(&site.destination(), &messages);
        assert_eq!(site.remaining(), messages.len());
        assert_eq!(fetch(&site, protection, "delete"), 0);
        assert_eq!(site.remaining(), 0);
        site.stop_after(protection);
    }
}

#[test]
fn poplib_fetches_and_deletes() {
    let messages: Vec<_> = ordinary().into_iter().chain(odd()).collect();
    for protection in PROTECTIONS {
        let site = Site::start(&messages);
        assert_eq!(fetch(&site, protection, "delete"), messages.len());
        assert_fetched(&site.destination(), &messages);
        assert_eq!(site.remaining(), 0);
        site.stop_after(protection);
    }
}
