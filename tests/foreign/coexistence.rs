//! Dovecot's IMAP server, an MTA's deliveries and popcore on one Maildir at the same
//! time: nobody loses a message, no unique-id changes, and popcore writes none of
//! Dovecot's files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::dovecot::Dovecot;
use crate::site::{NOBODY, PASSWORD, Protection, Site, USER, free_port, maildir};

/// POP3 sessions while the others are at work.
const SESSIONS: usize = 20;
/// Messages before the first of them, and those that come during each.
const FIRST: usize = 30;
const EACH: usize = 3;

struct Imap(BufReader<TcpStream>);

impl Imap {
    fn log_in(port: u16) -> Self {
        let patience = Duration::from_mins(1);
        let started = Instant::now();
        // Dovecot listens for POP3 first, which is what was waited for.
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(error) => assert!(started.elapsed() < patience, "no IMAP: {error}"),
            }
            thread::sleep(Duration::from_millis(20));
        };
        stream.set_read_timeout(Some(patience)).expect("a socket");
        let mut imap = Self(BufReader::new(stream));
        imap.line();
        imap.ok(&format!("LOGIN \"{USER}\" \"{PASSWORD}\""));
        imap.ok("SELECT INBOX");
        imap
    }

    /// A command that has to succeed, and what was said before its end.
    fn ok(&mut self, command: &str) -> Vec<String> {
        write!(self.0.get_mut(), "x {command}\r\n").expect("open");
        let mut said = Vec::new();
        loop {
            let line = self.line();
            if let Some(end) = line.strip_prefix("x ") {
                assert!(end.starts_with("OK"), "{command}: {line}");
                return said;
            }
            said.push(line);
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).expect("a reply");
        assert_ne!(read, 0, "the server closed");
        line
    }
}

/// What an MTA has delivered, by unique name; who was expunged by IMAP or deleted by POP3,
/// or is about to be; and how each was announced.
#[derive(Default)]
struct Ledger {
    delivered: BTreeMap<String, Vec<u8>>,
    removed: BTreeSet<String>,
    announced: BTreeMap<String, String>,
}

impl Ledger {
    /// The names of messages that are announced by these, each as it ever was.
    fn names(&mut self, mail: &Path, unique_ids: &[String]) -> Vec<String> {
        let mut names = Vec::with_capacity(unique_ids.len());
        for unique_id in unique_ids {
            let known = self.announced.iter().find(|(_, known)| *known == unique_id);
            let name = match known {
                Some((name, _)) => name.clone(),
                None if unique_id.contains('.') => unique_id.clone(),
                None => numbered(mail, unique_id),
            };
            let before = self.announced.insert(name.clone(), unique_id.clone());
            assert!(
                before.is_none_or(|before| before == *unique_id),
                "{name}: {unique_id}"
            );
            names.push(name);
        }
        names
    }
}

/// The name of the message that Dovecot announces by this.
fn numbered(mail: &Path, unique_id: &str) -> String {
    let uid = u32::from_str_radix(&unique_id[..8], 16).expect("a uid");
    let list = fs::read_to_string(mail.join("dovecot-uidlist")).expect("Dovecot's list");
    let row = list.lines().find(|row| row.starts_with(&format!("{uid} ")));
    let name = row.and_then(|row| row.split_once(':')).expect("its row").1;
    name.to_owned()
}

fn deliver(mail: &Path, number: usize, ledger: &Mutex<Ledger>) {
    let name = format!("17{number:08}.M1P1.mx");
    let text = format!("Subject: {number}\n\n{}", ".a line\n".repeat(number % 9));
    let made = mail.join("tmp").join(&name);
    fs::write(&made, &text).expect("own folder");
    chown(&made, Some(NOBODY), Some(NOBODY)).expect("root may do that");
    fs::rename(&made, mail.join("new").join(&name)).expect("own folder");
    let mut ledger = ledger.lock().expect("no panic");
    ledger.delivered.insert(name, text.into_bytes());
}

/// Changes flags of everything without pause, and expunges a message at times.
fn read_by_imap(
    port: u16,
    ledger: &Mutex<Ledger>,
    session: &AtomicUsize,
    stop: &AtomicBool,
) -> usize {
    let mut imap = Imap::log_in(port);
    let (mut rounds, mut expunged) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        rounds += 1;
        imap.ok("NOOP");
        for change in [
            "+FLAGS (\\Seen)",
            "+FLAGS (\\Flagged)",
            "-FLAGS (\\Seen)",
            "-FLAGS (\\Flagged)",
        ] {
            imap.ok(&format!("STORE 1:* {change}"));
        }
        if expunged < session.load(Ordering::Relaxed) {
            expunged += 1;
            // Which one that is, only its text tells.
            let said = imap.ok("FETCH 1 BODY.PEEK[HEADER.FIELDS (SUBJECT)]");
            let subject = said.iter().find_map(|line| line.strip_prefix("Subject: "));
            let Some(number) = subject.and_then(|text| text.trim().parse::<usize>().ok()) else {
                continue;
            };
            let mut ledger = ledger.lock().expect("no panic");
            ledger.removed.insert(format!("17{number:08}.M1P1.mx"));
            drop(ledger);
            imap.ok("STORE 1 +FLAGS (\\Deleted)");
            imap.ok("EXPUNGE");
        }
    }
    rounds
}

fn wire(text: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(text)
        .replace('\n', "\r\n")
        .into_bytes()
}

/// A session that must see everybody who was there before and was not removed.
fn poll(port: u16, mail: &Path, ledger: &Mutex<Ledger>, session: usize) {
    let due: BTreeSet<String> = {
        let ledger = ledger.lock().expect("no panic");
        let names = ledger.delivered.keys();
        names
            .filter(|name| !ledger.removed.contains(*name))
            .cloned()
            .collect()
    };
    let mut client = Client::login(port, USER, PASSWORD);
    let unique_ids = client.listing("UIDL");
    let listed = ledger.lock().expect("no panic").names(mail, &unique_ids);
    {
        let ledger = ledger.lock().expect("no panic");
        let shown: BTreeSet<&String> = listed.iter().collect();
        assert_eq!(shown.len(), listed.len());
        for name in due.iter().filter(|name| !ledger.removed.contains(*name)) {
            assert!(shown.contains(name), "session {session} misses {name}");
        }
    }
    for (name, number) in listed.iter().zip(1..) {
        let removed = ledger.lock().expect("no panic").removed.contains(name);
        if !removed && number % 7 == session % 7 {
            let text = ledger.lock().expect("no panic").delivered[name].clone();
            // IMAP may expunge it at this moment, which is no fault of anybody's.
            if let Some(message) = client.try_message(number) {
                assert_eq!(message, wire(&text), "{name}");
            } else {
                assert!(
                    ledger.lock().expect("no panic").removed.contains(name),
                    "{name}"
                );
            }
        }
    }
    if session.is_multiple_of(3)
        && let Some(last) = listed.last()
    {
        ledger
            .lock()
            .expect("no panic")
            .removed
            .insert(last.clone());
        client.ok(&format!("DELE {}", listed.len()));
    }
    client.quit();
}

/// Everything in the maildrop that is Dovecot's.
fn of_dovecot(mail: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(mail).expect("a Maildir");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("ASCII"));
    let own = names.filter(|name| name.starts_with("dovecot"));
    own.map(|name| {
        let octets = fs::read(mail.join(&name)).expect("a file");
        (name, octets)
    })
    .collect()
}

/// A Dovecot that serves a site's mail by IMAP, and where.
fn start_imap(folder: &Path) -> (Dovecot, u16) {
    let imap_port = free_port();
    let settings = format!(
        "protocols = imap pop3\nservice imap-login {{\n  inet_listener imap {{\n    \
         port = {imap_port}\n  }}\n  inet_listener imaps {{\n    port = 0\n  }}\n}}\n"
    );
    (Dovecot::start(folder, &settings), imap_port)
}

#[test]
fn imap_deliveries_and_pop3_share_a_maildir() {
    share("", SESSIONS);
}

#[test]
fn imap_deliveries_and_pop3_share_a_maildir_that_dovecot_numbers() {
    share("uidl = [\"dovecot\"]\n", SESSIONS / 2);
}

fn share(maildrop: &str, sessions: usize) {
    let site = Site::start_after(&[], maildrop, |_| {});
    let mail = maildir(site.folder());
    let (dovecot, imap_port) = start_imap(site.folder());
    let ledger = Mutex::new(Ledger::default());
    let (stop, port) = (AtomicBool::new(false), site.port(Protection::Clear));
    let session = AtomicUsize::new(0);
    for number in 0..FIRST {
        deliver(&mail, number, &ledger);
    }
    thread::scope(|scope| {
        let imap = scope.spawn(|| read_by_imap(imap_port, &ledger, &session, &stop));
        let mta = scope.spawn(|| {
            let mut delivered = FIRST;
            while !stop.load(Ordering::Relaxed) {
                // So many for each session: the maildrop must not outgrow them.
                if delivered < FIRST + EACH * session.load(Ordering::Relaxed) {
                    deliver(&mail, delivered, &ledger);
                    delivered += 1;
                }
                thread::sleep(Duration::from_millis(1));
            }
            delivered
        });
        let stopping = StopAtEnd(&stop);
        for number in 1..=sessions {
            session.store(number, Ordering::Relaxed);
            poll(port, &mail, &ledger, number);
        }
        drop(stopping);
        assert!(imap.join().expect("it ran") > 0);
        assert!(mta.join().expect("it ran") > FIRST);
    });
    // At rest all three agree.
    let left: BTreeSet<String> = {
        let ledger = ledger.lock().expect("no panic");
        let names = ledger.delivered.keys();
        names
            .filter(|name| !ledger.removed.contains(*name))
            .cloned()
            .collect()
    };
    let exists = format!("* {} EXISTS\r\n", left.len());
    let mut imap = Imap::log_in(imap_port);
    assert!(imap.ok("SELECT INBOX").contains(&exists), "{exists}");
    let mut client = Client::login(port, USER, PASSWORD);
    let names = ledger
        .lock()
        .expect("no panic")
        .names(&mail, &client.listing("UIDL"));
    assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), left);
    client.quit();
    drop((imap, dovecot));

    let before = of_dovecot(&mail);
    assert!(before.contains_key("dovecot-uidlist"));
    let mut client = Client::login(port, USER, PASSWORD);
    client.message(1);
    client.ok("DELE 1");
    client.quit();
    assert_eq!(of_dovecot(&mail), before);
    site.stop();
}

/// Another popcore that serves the mail of a site, with an index of its own.
fn start_beside(site: &Site) -> Site {
    let maildrop = "uidl = [\"dovecot\"]\nindex = \"index/{user}\"\n";
    Site::start_after(&[], maildrop, |folder| {
        fs::create_dir(folder.join("index")).expect("own folder");
        fs::remove_dir_all(folder.join("mail")).expect("own folder");
        symlink(site.folder().join("mail"), folder.join("mail")).expect("own folder");
    })
}

/// How a server announces the messages, by the number in each.
fn announced(site: &Site) -> BTreeMap<String, String> {
    let mut client = Client::login(site.port(Protection::Clear), USER, PASSWORD);
    let unique_ids = client.listing("UIDL");
    let mut announced = BTreeMap::new();
    for (number, unique_id) in (1..).zip(unique_ids) {
        let text = String::from_utf8(client.message(number)).expect("ASCII");
        let subject = text.lines().next().expect("a line").to_owned();
        assert!(announced.insert(subject, unique_id).is_none());
    }
    client.quit();
    announced
}

/// Messages are numbered by Dovecot before or after popcore announces them, two nodes have
/// indexes of their own, and one is lost: each is announced by all as by the first.
#[test]
fn unique_ids_are_the_same_on_nodes_whose_indexes_are_their_own() {
    let site = Site::start_after(&[], "uidl = [\"dovecot\"]\n", |_| {});
    let mail = maildir(site.folder());
    let (dovecot, imap_port) = start_imap(site.folder());
    let (other, ledger) = (start_beside(&site), Mutex::default());
    let (mut before, mut numbers) = (BTreeMap::new(), 0..);
    let mut deliver_some = || {
        for number in numbers.by_ref().take(EACH) {
            deliver(&mail, number, &ledger);
        }
    };
    for round in 0..4 {
        deliver_some();
        let first = if round % 2 == 0 {
            // Dovecot is the first to see them.
            drop(Imap::log_in(imap_port));
            &other
        } else {
            &site
        };
        let now = announced(first);
        assert_eq!(now.len(), EACH * (round + 1));
        for (subject, unique_id) in &before {
            assert_eq!(now.get(subject), Some(unique_id), "{subject}");
        }
        before = now;
        let mut imap = Imap::log_in(imap_port);
        imap.ok("STORE 1:* +FLAGS (\\Flagged)");
        for node in [&site, &other] {
            assert_eq!(announced(node), before, "round {round}");
        }
    }
    // What came before the first that popcore announced by name has Dovecot's numbers.
    let by_name = before.values().filter(|unique_id| unique_id.contains('.'));
    assert_eq!(by_name.count(), 3 * EACH, "{before:?}");
    let third = start_beside(&site);
    assert_eq!(announced(&third), before);
    fs::remove_file(mail.join("popcore.index")).expect("an index");
    assert_eq!(announced(&site), before);
    drop(dovecot);
    for site in [third, other, site] {
        site.stop();
    }
}

/// Ends the others also where the test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
