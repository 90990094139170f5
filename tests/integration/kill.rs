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
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
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
/// What an earlier server keeps there.
const LIST: &str = "dovecot-uidlist";

/// What a message is known by from its delivery on: the number in its text.
type Identity = usize;

/// What is expected of the maildrop.
#[derive(Default)]
struct Expected {
    /// How many were ever delivered.
    last: Identity,
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

/// Delivers a message, if there is room for one.
fn deliver(expected: &Mutex<Expected>, mailbox: &Mailbox, random: &mut Random) {
    let mut expected = expected.lock().expect("no panic");
    if expected.texts.len() < MOST {
        expected.last += 1;
        let identity = expected.last;
        mailbox.deliver(&name(identity, random), text(identity));
        expected.texts.insert(identity, text(identity));
    }
}

/// Delivers all the time until it is told to stop.
fn deliver_until(
    stop: &AtomicBool,
    expected: &Mutex<Expected>,
    mailbox: &Mailbox,
    mut random: Random,
) {
    while !stop.load(Ordering::Relaxed) {
        deliver(expected, mailbox, &mut random);
        thread::sleep(Duration::from_micros(random.below(1_500) as u64));
    }
}

/// An earlier server that goes on, and numbers what popcore has announced or not.
struct Dovecot {
    next: usize,
    numbered: BTreeSet<String>,
}

impl Dovecot {
    fn new(mailbox: &Mailbox) -> Self {
        let mut list = "3 V1600000000 N100000\n".to_owned();
        for identity in 1..9_000 {
            writeln!(list, "{identity} :{identity}.listed").expect("a String");
        }
        fs::write(mailbox.path().join(LIST), list).expect("written");
        Self {
            next: 100_000,
            numbered: BTreeSet::new(),
        }
    }

    fn number_all(&mut self, mailbox: &Mailbox) {
        let mut list = fs::read_to_string(mailbox.path().join(LIST)).expect("a list");
        for file in mailbox.names() {
            let unique = file[4..].split(':').next().expect("a name").to_owned();
            if !unique.ends_with(".listed") && self.numbered.insert(unique.clone()) {
                writeln!(list, "{} :{unique}", self.next).expect("a String");
                self.next += 1;
            }
        }
        let made = mailbox.path().join("dovecot-uidlist.tmp");
        fs::write(&made, list).expect("written");
        fs::rename(made, mailbox.path().join(LIST)).expect("written");
    }
}

impl Expected {
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
}

/// A session that is shown all that was there before it began, each message announced as
/// before.
fn look(server: &Server, expected: &Mutex<Expected>) -> (Client, Vec<Identity>) {
    let due: Vec<Identity> = {
        let expected = expected.lock().expect("no panic");
        expected.texts.keys().copied().collect()
    };
    let mut client = server.log_in_once_free("ann");
    let rows = client.rows("UIDL");
    let mut identities = Vec::new();
    for (number, row) in (1..).zip(&rows) {
        let sent = client.text(&format!("RETR {number}"));
        let identity = identity(&sent);
        assert_eq!(sent, model::sent(&text(identity)));
        let unique_id = row.split_once(' ').expect("a number").1.to_owned();
        let mut expected = expected.lock().expect("no panic");
        assert!(expected.texts.contains_key(&identity), "{row}");
        let before = expected.unique_ids.insert(identity, unique_id.clone());
        assert!(
            before.is_none_or(|before| before == unique_id),
            "{identity}: {row}"
        );
        identities.push(identity);
    }
    for identity in due {
        assert!(identities.contains(&identity), "{identity} is not shown");
    }
    let unique_ids = &expected.lock().expect("no panic").unique_ids;
    let distinct: BTreeSet<&String> = unique_ids.values().collect();
    assert_eq!(distinct.len(), unique_ids.len(), "one for two messages");
    (client, identities)
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

/// What tells, beside the names, how messages were announced. Either is enough to make
/// the other anew, so the next is harmed when the last is whole again.
const KEPT: [&str; 2] = ["popcore.index", "popcore.cutoff"];

/// What was harmed last, and what is left of it.
#[derive(Default)]
struct Harm {
    last: Option<(&'static str, Option<Vec<u8>>)>,
    /// How often the second was harmed.
    cutoffs: usize,
}

impl Harm {
    /// Damages the index or the cutoff, or takes it away.
    fn befall(&mut self, mailbox: &Mailbox, random: &mut Random) {
        let read = |name: &str| fs::read(mailbox.path().join(name)).ok();
        let is_mended = |(name, left): &(&str, Option<Vec<u8>>)| read(name) != *left;
        if !self.last.as_ref().is_none_or(is_mended) {
            return;
        }
        let name = KEPT[random.below(2)];
        let (Some(octets), true) = (read(name), KEPT.iter().all(|name| read(name).is_some()))
        else {
            return;
        };
        let path = mailbox.path().join(name);
        match random.below(4) {
            0 => fs::remove_file(&path).expect("it is there"),
            1 => fs::write(&path, "").expect("written"),
            2 => {
                let mut octets = octets.clone();
                let at = random.below(octets.len());
                octets[at] ^= 1 << random.below(7);
                fs::write(&path, octets).expect("written");
            }
            _ => {
                let kept = octets.len() - (1 + random.below(20)).min(octets.len());
                fs::write(&path, &octets[..kept]).expect("written");
            }
        }
        self.cutoffs += usize::from(name == KEPT[1]);
        self.last = Some((name, read(name)));
    }
}

#[test]
fn two_hundred_kills_amid_deliveries_lose_nothing_and_change_no_unique_id() {
    let mut random = Random::new(0x6b69_6c6c);
    let mut site = Site::with_users(&["ann"]);
    site.maildrop = "mail/{user}\"\nuidl = [\"dovecot\", \"name\"]\n#\"";
    let mailbox = site.mailbox("ann");
    let mut dovecot = Dovecot::new(&mailbox);
    let mut server = site.start();
    let expected = Mutex::new(Expected::default());
    let (mut amid, mut harm) = (0, Harm::default());
    for round in 0..KILLS {
        for _ in 0..random.below(3) {
            deliver(&expected, &mailbox, &mut random);
        }
        if random.below(3) == 0 {
            dovecot.number_all(&mailbox);
        }
        let before = expected.lock().expect("no panic").last;
        let stop = AtomicBool::new(false);
        let seed = Random::new(random.next());
        let session = thread::scope(|scope| {
            scope.spawn(|| deliver_until(&stop, &expected, &mailbox, seed));
            let _stopping = StopAtEnd(&stop);
            let session = match round % 4 {
                // In the midst of a login that writes the index.
                0 => {
                    log_in_and_vanish(&server);
                    None
                }
                // With an index or a cutoff that has just been damaged, or taken away.
                1 => {
                    harm.befall(&mailbox, &mut random);
                    None
                }
                _ => {
                    let (client, identities) = look(&server, &expected);
                    let (client, marked) = delete_some(client, &identities, &mut random);
                    expected.lock().expect("no panic").doubtful = marked;
                    Some(client)
                }
            };
            kill_at_any_moment(&mut server, &mut random);
            session
        });
        drop(session);
        let mut known = expected.lock().expect("no panic");
        amid += usize::from(known.last > before);
        known.check_files(&mailbox);
        drop(known);
        server.restart();
    }
    drop(look(&server, &expected));
    assert!(amid > KILLS / 4, "{amid} kills were amid deliveries");
    assert!(
        harm.cutoffs > KILLS / 20,
        "{} cutoffs were harmed",
        harm.cutoffs
    );
    let known = expected.lock().expect("no panic");
    let of = |kind: fn(&str) -> bool| known.unique_ids.values().filter(|id| kind(id)).count();
    // By Dovecot's numbers, by names, and by digests of names that cannot be announced.
    for kind in [
        |id: &str| id.ends_with("5f5e1000"),
        |id: &str| id.contains(".M1P1."),
        |id: &str| id.len() == 32,
    ] {
        assert!(of(kind) > KILLS / 8, "{}", of(kind));
    }
}

/// Ends the deliveries also where the test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
