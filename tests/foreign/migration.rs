//! A Maildir that Dovecot or Courier has served before: popcore announces what it
//! announced, in its order, and the same octets, with the real ones asked.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::geteuid;

use crate::client::Client;
use crate::dovecot::Dovecot;
use crate::messages::{Message, odd, ordinary};
use crate::site::{PASSWORD, Protection, Site, USER, maildir};

/// Messages on which Dovecot counts the same octets: they end with a line end.
fn messages() -> Vec<Message> {
    let all = ordinary().into_iter().chain(odd());
    all.filter(|message| message.bytes.ends_with(b"\n") && message.bytes[0] != b'.')
        .collect()
}

/// What a server announced: octets and unique-ids.
#[derive(Debug, PartialEq, Eq)]
struct Announced {
    octets: Vec<String>,
    unique_ids: Vec<String>,
}

fn ask(port: u16) -> Announced {
    let mut client = Client::login(port, USER, PASSWORD);
    let announced = Announced {
        octets: client.listing("LIST"),
        unique_ids: client.listing("UIDL"),
    };
    client.quit();
    announced
}

/// Has Dovecot serve the mail with these settings, then popcore with this source.
fn after_dovecot(settings: &str, source: &str) -> Announced {
    assert!(geteuid().is_root(), "Dovecot starts as root only");
    let mut theirs = None;
    let maildrop = format!("uidl = [\"{source}\", \"name\"]\n");
    let site = Site::start_after(&messages(), &maildrop, |folder| {
        let dovecot = Dovecot::start(folder, settings);
        theirs = Some(ask(dovecot.port()));
        // Twice: what it saves, it has saved by the second time.
        assert_eq!(theirs, Some(ask(dovecot.port())));
    });
    let theirs = theirs.expect("it was asked");
    assert_eq!(theirs.unique_ids.len(), messages().len());
    assert_eq!(ask(site.port(Protection::Clear)), theirs, "{settings}");
    // Once announced it stays, whatever becomes of their files.
    fs::remove_file(maildir(site.folder()).join("dovecot-uidlist")).expect("it is there");
    let late = maildir(site.folder()).join("new/1800000000.M1P1.late");
    fs::write(late, "Subject: late\n\nlate\n").expect("own folder");
    let mut later = ask(site.port(Protection::Clear));
    assert_eq!(
        later.unique_ids.pop().as_deref(),
        Some("1800000000.M1P1.late")
    );
    later.octets.pop();
    assert_eq!(later, theirs, "{settings}");
    site.stop();
    theirs
}

#[test]
fn what_dovecot_announced_by_default_is_announced() {
    let theirs = after_dovecot("", "dovecot");
    let hex = |uidl: &String| uidl.len() == 16 && uidl.bytes().all(|c| c.is_ascii_hexdigit());
    assert!(theirs.unique_ids.iter().all(hex), "{theirs:?}");
}

#[test]
fn what_dovecot_announced_in_the_form_of_others_is_announced() {
    for format in ["%08Xv%08Xu", "%v.%u", "%u", "%f", "%Mf", "%g", "UID%u-%v"] {
        let settings = format!("pop3_uidl_format = {format}\n");
        after_dovecot(&settings, &format!("dovecot:{format}"));
    }
}

#[test]
fn what_dovecot_saved_is_announced_whatever_its_format_is_now() {
    let settings = "protocol pop3 {\n  pop3_save_uidl = yes\n}\npop3_uidl_format = x-%v-%u\n";
    let theirs = after_dovecot(settings, "dovecot");
    assert!(
        theirs.unique_ids.iter().all(|uidl| uidl.starts_with("x-")),
        "{theirs:?}"
    );
}

/// Debian's two POP3 servers exclude each other, so that Courier's lies unpacked
/// where `.ci/run packages` has put it.
fn courier() -> PathBuf {
    let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../ci/courier");
    let program = unpacked.join("usr/lib/courier/courier/courierpop3d");
    assert!(
        program.is_file(),
        "{} is not there: run .ci/run packages",
        program.display()
    );
    program
}

/// A session with Courier as its authentication daemon begins it.
fn ask_courier(maildir: &Path) -> Announced {
    let mut server = Command::new(courier())
        .arg(maildir)
        .env("AUTHENTICATED", USER)
        .env("TCPREMOTEIP", "127.0.0.1")
        .env("PROTOCOL", "POP3")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut input = server.stdin.take().expect("piped");
    input
        .write_all(b"LIST\r\nUIDL\r\nQUIT\r\n")
        .expect("it reads");
    drop(input);
    let output = server.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stdout).expect("ASCII");
    let listing = |part: usize| -> Vec<String> {
        // The first is behind the greeting.
        let rows = text.split("\r\n.\r\n").nth(part).expect("a listing");
        let rows = rows.lines().filter(|row| !row.starts_with("+OK"));
        rows.map(|row| row.split_once(' ').expect("a number").1.to_owned())
            .collect()
    };
    Announced {
        octets: listing(0),
        unique_ids: listing(1),
    }
}

#[test]
fn what_courier_announced_is_announced_in_its_order() {
    let mut theirs = None;
    let maildrop = "uidl = [\"courier\", \"name\"]\n";
    // Courier adds an octet for every line end, that of CRLF as well.
    let all = messages().into_iter();
    let messages: Vec<Message> = all.filter(|m| !m.bytes.contains(&b'\r')).collect();
    let site = Site::start_after(&messages, maildrop, |folder| {
        let mail = maildir(folder);
        // Of one second, which Courier orders as text: M10 before M9.
        for micros in [9, 10] {
            let name = format!("new/1750000000.M{micros}P1.mail.example.net");
            fs::write(mail.join(name), format!("Subject: {micros}\n\nx\n")).expect("own folder");
        }
        theirs = Some(ask_courier(&mail));
        assert_eq!(theirs, Some(ask_courier(&mail)));
    });
    let theirs = theirs.expect("it was asked");
    assert!(
        theirs.unique_ids.iter().all(|uidl| uidl.starts_with("UID")),
        "{theirs:?}"
    );
    assert_eq!(theirs.unique_ids.len(), messages.len() + 2);
    assert_eq!(ask(site.port(Protection::Clear)), theirs);
    fs::remove_file(maildir(site.folder()).join("courierpop3dsizelist")).expect("it is there");
    assert_eq!(ask(site.port(Protection::Clear)), theirs);
    site.stop();
}
