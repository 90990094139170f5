//! The server is killed at any moment of deliveries, deletions and index writes.
//!
//! Nothing is lost that was not marked, what survives is octet for octet what was
//! delivered, and no unique-id is another one afterwards. A kill here is `kill -9`:
//! the machine goes on, so what was written stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::client::{Client, PASSWORD};
use super::mailbox::Mailbox;
use super::model;
use super::random::Random;
use super::server::{Server, Site};

const KILLS: usize = 200;
/// Messages that the maildrop has at most.
const MOST: usize = 30;

/// What a message is known by from its delivery on: the number in its text.
type Identity = usize;

/// What is expected of the maildrop.
#[derive(Default)]
struct Expected {
    /// Every message delivered and not known to be removed.
    texts: BTreeMap<Identity, Vec<u8>>,
    /// Of those, who was marked in a session that said QUIT and got no answer.
    doubtful: BTreeSet<Identity>,
    /// The unique-id of every message that was ever announced.
    unique_ids: BTreeMap<Identity, String>,
}

fn text(identity: Identity) -> Vec<u8> {
    let body = "a line\n.a dot\n".repeat(identity % 7);
    format!("Subject: {identity}\n\n{body}").into_bytes()
}

fn identity(text: &[u8]) -> Identity {
    let rest = text
        .strip_prefix(b"Subject: ")
        .expect("a message of this test");
    let digits = rest
        .iter()
        .take_while(|octet| octet.is_ascii_digit())
        .count();
    let digits = std::str::from_utf8(&rest[..digits]).expect("digits");
    digits.parse().expect("a number")
}

/// A name that can be a unique-id, one that cannot, or one of a list of Dovecot's.
fn name(identity: Identity, random: &mut Random) -> String {
    match random.below(3) {
        0 => format!("new/{identity}.M1P1.host"),
        1 => format!("new/{identity}.\u{e4}"),
        _ => format!("cur/{identity}.listed:2,S"),
    }
}

impl Expected {
    fn deliver(&mut self, mailbox: &Mailbox, next: &mut Identity, random: &mut Random) {
        for _ in 0..=random.below(3) {
            if self.texts.len() >= MOST {
                return;
            }
            *next += 1;
            mailbox.deliver(&name(*next, random), text(*next));
            self.texts.insert(*next, text(*next));
        }
    }

    /// What lies there is what was delivered, less what was to be removed.
    fn check_files(&mut self, mailbox: &Mailbox) {
        let mut found = BTreeMap::new();
        for (name, octets) in mailbox.files() {
            let identity = identity(&octets);
            assert_eq!(octets, text(identity), "{name}");
            assert!(found.insert(identity, octets).is_none(), "{name}");
        }
        for identity in std::mem::take(&mut self.doubtful) {
            if !found.contains_key(&identity) {
                self.texts.remove(&identity);
            }
        }
        assert!(found.keys().eq(self.texts.keys()), "unmarked mail is gone");
    }

    /// What is announced is what was announced before.
    fn check_unique_ids(&mut self, client: &mut Client) -> Vec<Identity> {
        let rows = client.rows("UIDL");
        assert_eq!(rows.len(), self.texts.len());
        let mut identities = Vec::new();
        for (number, row) in (1..).zip(&rows) {
            let sent = client.text(&format!("RETR {number}"));
            let identity = identity(&sent);
            assert_eq!(sent, model::sent(&text(identity)));
            let unique_id = row.split_once(' ').expect("a number").1.to_owned();
            let before = self.unique_ids.insert(identity, unique_id.clone());
            assert!(
                before.is_none_or(|before| before == unique_id),
                "{identity}: {row}"
            );
            identities.push(identity);
        }
        let distinct: BTreeSet<&String> = self.unique_ids.values().collect();
        assert_eq!(
            distinct.len(),
            self.unique_ids.len(),
            "one for two messages"
        );
        identities
    }
}

/// Marks some, says QUIT, and does not wait for the answer.
fn delete_some(
    mut client: Client,
    identities: &[Identity],
    random: &mut Random,
) -> (Client, BTreeSet<Identity>) {
    let mut marked = BTreeSet::new();
    for (number, identity) in (1..).zip(identities) {
        if random.below(2) == 0 {
            client.ok(&format!("DELE {number}"));
            marked.insert(*identity);
        }
    }
    client.send("QUIT\r\n");
    (client, marked)
}

fn kill_at_any_moment(server: &mut Server, random: &mut Random) {
    let wait = Duration::from_micros(random.below(3_000) as u64);
    thread::sleep(wait);
    server.signal(Signal::KILL);
    server.end();
}

/// A session that may be cut off anywhere, for what it makes the server write.
fn log_in_and_vanish(server: &Server) {
    let Ok(mut stream) = TcpStream::connect(server.site.pop3()) else {
        return;
    };
    let said = format!("USER ann\r\nPASS {PASSWORD}\r\nUIDL\r\n");
    let _ = stream.write_all(said.as_bytes());
    let _ = stream.read(&mut [0; 16]);
}

#[test]
fn two_hundred_kills_lose_nothing_and_change_no_unique_id() {
    let mut random = Random::new(0x6b69_6c6c);
    let mut site = Site::with_users(&["ann"]);
    site.maildrop = "mail/{user}\"\nuidl = [\"dovecot\", \"name\"]\n#\"";
    let mailbox = site.mailbox("ann");
    let mut list = "3 V1600000000 N100000\n".to_owned();
    for identity in 1..9_000 {
        writeln!(list, "{identity} :{identity}.listed").expect("a String");
    }
    fs::write(mailbox.path().join("dovecot-uidlist"), list).expect("written");
    let mut server = site.start();
    let (mut expected, mut next) = (Expected::default(), 0);
    for round in 0..KILLS {
        expected.deliver(&mailbox, &mut next, &mut random);
        match round % 4 {
            // In the midst of a login that writes the index.
            0 => log_in_and_vanish(&server),
            // With a list that has just been damaged, or taken away.
            1 => {
                let index = mailbox.path().join("popcore.index");
                if let Ok(octets) = fs::read(&index) {
                    let kept = octets.len() - random.below(20).min(octets.len());
                    fs::write(&index, &octets[..kept]).expect("written");
                }
            }
            _ => {
                let mut client = server.log_in_once_free("ann");
                let identities = expected.check_unique_ids(&mut client);
                let (client, marked) = delete_some(client, &identities, &mut random);
                expected.doubtful = marked;
                kill_at_any_moment(&mut server, &mut random);
                drop(client);
                server.restart();
                expected.check_files(&mailbox);
                continue;
            }
        }
        kill_at_any_moment(&mut server, &mut random);
        server.restart();
        expected.check_files(&mailbox);
    }
    let mut client = server.log_in_once_free("ann");
    expected.check_unique_ids(&mut client);
    assert!(next > KILLS / 2, "{next} messages were delivered");
}
