//! popcore and Dovecot on one Maildir: the same messages in the same order,
//! the same octets by LIST and by RETR.
//!
//! A private instance: own configuration, own folder, a port of the loopback
//! network; ended by its own process id. Dovecot starts as root only, and so
//! does this test.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::Client;
use crate::compare::assert_same;
use crate::messages::{Message, odd, ordinary};
use crate::site::{
    NOBODY, PASSWORD, Protection, Site, USER, free_port, give_to_nobody, maildir, signal,
};

/// A Dovecot of the test's own.
pub(crate) struct Dovecot {
    master: Child,
    port: u16,
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        // The master ends its children; killing it would leave them behind.
        signal(&self.master, Signal::TERM);
        let _ = self.master.wait();
    }
}

impl Dovecot {
    /// Serves the mail in a site's folder, which it then owns, with further settings.
    pub(crate) fn start(folder: &Path, more: &str) -> Self {
        give_to_nobody(&folder.join("mail"));
        let port = free_port();
        let settings = folder.join("dovecot.conf");
        let text = configuration(folder, port) + more;
        fs::write(&settings, text).expect("own folder");
        let mut master = Command::new("dovecot")
            .arg("-F")
            .arg("-c")
            .arg(settings)
            .stdin(Stdio::null())
            .spawn()
            .expect("dovecot is installed (Debian: dovecot-pop3d)");
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = fs::read_to_string(folder.join("dovecot.log")).unwrap_or_default();
            let ended = master.try_wait().expect("a child");
            assert!(ended.is_none(), "dovecot ended: {ended:?}\n{log}");
            let waited = started.elapsed();
            assert!(waited < Duration::from_mins(1), "no dovecot\n{log}");
            thread::sleep(Duration::from_millis(20));
        }
        Self { master, port }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

fn configuration(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        "protocols = pop3\nlisten = 127.0.0.1\nbase_dir = {folder}/run\nstate_dir = {folder}/state\n\
         instance_name = popcore-test\nlog_path = {folder}/dovecot.log\nssl = no\n\
         disable_plaintext_auth = no\n\
         mail_location = maildir:{folder}/mail/%d/%n\npop3_lock_session = yes\n\
         passdb {{\n  driver = passwd-file\n  args = username_format=%u {folder}/users\n}}\n\
         userdb {{\n  driver = static\n  args = uid={NOBODY} gid={NOBODY} home={folder}/home\n}}\n\
         service pop3-login {{\n  inet_listener pop3 {{\n    port = {port}\n  }}\n  \
         inet_listener pop3s {{\n    port = 0\n  }}\n}}\n"
    )
}

/// What a server says of a maildrop.
struct Seen {
    octets: Vec<usize>,
    messages: Vec<Vec<u8>>,
    unique_ids: Vec<String>,
}

fn look(port: u16) -> Seen {
    let mut client = Client::login(port, USER, PASSWORD);
    let listed = client.listing("LIST");
    let octets = listed.iter().map(|octets| octets.parse().expect("octets"));
    let octets: Vec<usize> = octets.collect();
    let total: usize = octets.iter().sum();
    let stat = client.ok("STAT");
    assert_eq!(stat.trim_end(), format!("+OK {} {total}", octets.len()));
    let messages = (1..=octets.len()).map(|n| client.message(n)).collect();
    let unique_ids = client.listing("UIDL");
    client.quit();
    Seen {
        octets,
        messages,
        unique_ids,
    }
}

/// Where the rules differ, curl and poplib show popcore's, and Dovecot 2.3 is
/// not asked: it does not stuff a dot that is the first octet of a message, so
/// that clients lose it or take it for the end, and it sends an empty file as an
/// empty line.
fn comparable() -> Vec<Message> {
    let all = ordinary().into_iter().chain(odd());
    all.filter(|message| !message.bytes.is_empty() && message.bytes[0] != b'.')
        .collect()
}

#[test]
fn popcore_and_dovecot_serve_the_same_octets_from_one_maildir() {
    let messages = comparable();
    let site = Site::start(&messages);
    let before = look(site.port(Protection::Clear));
    let dovecot = Dovecot::start(site.folder(), "");
    let theirs = look(dovecot.port);
    let names: Vec<_> = messages.iter().map(|m| m.name).collect();
    assert_eq!(before.messages.len(), names.len());
    assert_eq!(theirs.messages.len(), names.len());
    for (at, name) in names.iter().enumerate() {
        assert_same(name, &before.messages[at], &theirs.messages[at]);
        // Dovecot sends the line end that a file lacks and does not count it.
        let uncounted = if messages[at].bytes.ends_with(b"\n") {
            0
        } else {
            2
        };
        assert_eq!(before.octets[at], theirs.octets[at] + uncounted, "{name}");
        assert_eq!(before.octets[at], before.messages[at].len(), "{name}");
    }
    // Dovecot has moved new/ to cur/, which changes no message and no unique-id.
    let new = maildir(site.folder()).join("new");
    assert_eq!(fs::read_dir(new).expect("a Maildir").count(), 0);
    let after = look(site.port(Protection::Clear));
    assert_eq!(before.unique_ids, after.unique_ids);
    assert_eq!(before.octets, after.octets);
    assert!(before.messages == after.messages);
    drop(dovecot);
    site.stop();
}
