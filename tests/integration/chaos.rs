//! Many clients that behave as no client should, all at once.
//!
//! What each of them does comes from a seed; how they meet does not. Afterwards
//! nothing of them may be left: no descriptor, no lock, no session, and of the
//! mail nothing may be missing but what a QUIT was said for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use super::client::Client;
use super::descriptors::of_sessions;
use super::model;
use super::patience::{DEADLINE, until_true};
use super::random::Random;
use super::scrape::Scrape;
use super::server::{Server, Site};

const CLIENTS: u64 = 64;
const USERS: usize = 24;
const MESSAGES: usize = 8;
const SPAN: Duration = Duration::from_secs(4);

/// Messages by their user and unique name.
type Names = BTreeSet<(usize, String)>;

/// What clients know of deletions.
#[derive(Default)]
struct Deletions {
    /// A QUIT was said for them.
    asked: Mutex<Names>,
    /// And it was answered with success.
    told: Mutex<Names>,
}

fn user(number: usize) -> String {
    format!("user{number}")
}

fn site(random: &mut Random) -> Site {
    let names: Vec<String> = (0..USERS).map(user).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let site = Site::with_users(&names);
    for name in names {
        let mailbox = site.mailbox(name);
        for message in 1..=MESSAGES {
            let most = [4, 400, 40_000][random.below(3)];
            let lines = random.below(most);
            let mut octets = format!("Subject: {message}\n\n").into_bytes();
            for line in 0..lines {
                let ends: [&[u8]; 4] = [b"\n", b"\r\n", b"\n.\n", b"\r.\0\n"];
                octets.extend_from_slice(line.to_string().as_bytes());
                octets.extend_from_slice(ends[random.below(4)]);
            }
            mailbox.deliver(&format!("new/{message}.m"), octets);
        }
    }
    site
}

/// Commands that ask for nothing that lasts.
fn command(random: &mut Random) -> String {
    let number = random.below(MESSAGES + 2);
    match random.below(12) {
        0 => "STAT".to_owned(),
        1 => "LIST".to_owned(),
        2 => "UIDL".to_owned(),
        3 => format!("DELE {number}"),
        4 => "RSET".to_owned(),
        5 => "NOOP".to_owned(),
        6 => format!("TOP {number} {}", random.below(30)),
        7 => "CAPA".to_owned(),
        8 => "x".repeat(random.below(900)),
        9 => "USER nobody".to_owned(),
        _ => format!("RETR {number}"),
    }
}

/// Logs in and sends commands in segments of any size, reads or does not, and
/// never says QUIT.
fn blind(server: &Server, random: &mut Random) {
    let mut client = Client::silent(server.site.pop3());
    let mut script = format!("USER {}\r\nPASS secret\r\n", user(random.below(USERS)));
    for _ in 0..random.below(30) {
        script += &command(random);
        script += ["\r\n", "\r\n", "\n"][random.below(3)];
    }
    if random.below(2) == 0 {
        script += "QUI";
    }
    let mut rest = script.as_bytes();
    while !rest.is_empty() {
        let length = (1 + random.below(300)).min(rest.len());
        let (segment, behind) = rest.split_at(length);
        rest = behind;
        if client.try_send(segment).is_err() {
            return;
        }
        if random.below(8) == 0 {
            thread::sleep(Duration::from_millis(random.next() % 20));
        }
    }
    end(client, random);
}

/// Ends a connection in one of the ways there are.
fn end(mut client: Client, random: &mut Random) {
    match random.below(5) {
        0 => client.reset(),
        1 => {
            client.half_close();
            client.rest();
        }
        2 => {
            // Nobody reads for a while what is sent all the same.
            thread::sleep(Duration::from_millis(random.next() % 400));
            client.reset();
        }
        _ => drop(client),
    }
}

/// Fetches, marks and quits as a client should, unless it drops the connection
/// before the end.
fn tidy(server: &Server, originals: &Originals, deletions: &Deletions, random: &mut Random) {
    let number = random.below(USERS);
    let mut client = server.connect();
    let reply = client.try_log_in(&user(number));
    if !reply.starts_with("+OK") {
        assert!(reply.starts_with("-ERR [IN-USE] "), "{reply}");
        return end(client, random);
    }
    let rows = client.rows("UIDL");
    let mut marked = Names::new();
    for row in &rows {
        let (message, name) = row.split_once(' ').expect("a row");
        if random.below(3) == 0 {
            let sent = client.text(&format!("RETR {message}"));
            let key = (number, name.to_owned());
            assert!(sent == model::sent(&originals[&key]), "{key:?}");
        }
        if random.below(16) == 0 {
            client.ok(&format!("DELE {message}"));
            marked.insert((number, name.to_owned()));
        }
    }
    if random.below(3) == 0 {
        return end(client, random);
    }
    deletions
        .asked
        .lock()
        .expect("no panic")
        .extend(marked.clone());
    client.send("QUIT\r\n");
    if random.below(8) == 0 {
        return client.reset();
    }
    let reply = client.line();
    assert!(reply.starts_with("+OK"), "{reply}");
    deletions.told.lock().expect("no panic").extend(marked);
}

/// Every message as it was delivered.
type Originals = BTreeMap<(usize, String), Vec<u8>>;

/// What is on disk now, by unique name.
fn stored(server: &Server) -> Originals {
    let mut all = Originals::new();
    for number in 0..USERS {
        for (place, octets) in server.mailbox(&user(number)).files() {
            let name = place.rsplit('/').next().expect("a name").to_owned();
            all.insert((number, name), octets);
        }
    }
    all
}

/// Nothing of the clients is left.
fn settle(server: &mut Server, before: usize) {
    until_true("sessions to be over", || {
        Scrape::of(server.site.admin()).sum("popcore_sessions_active") == 0
    });
    let end = Instant::now() + DEADLINE;
    while of_sessions(server.pid()).len() != before {
        let open = of_sessions(server.pid());
        assert!(
            Instant::now() < end,
            "{before} descriptors became {open:#?}"
        );
        thread::sleep(Duration::from_millis(5));
    }
    assert!(server.runs());
    let log = server.log();
    assert!(!log.contains("panicked") && !log.contains("Error"), "{log}");
}

#[test]
fn after_chaos_nothing_is_left_and_nothing_is_lost() {
    let mut random = Random::new(0x000D_1CE5);
    let mut server = site(&mut random).start();
    let (originals, deletions) = (stored(&server), Deletions::default());
    let before = of_sessions(server.pid()).len();
    let until = Instant::now() + SPAN;
    thread::scope(|scope| {
        for seed in 0..CLIENTS {
            let (server, originals, deletions) = (&server, &originals, &deletions);
            scope.spawn(move || {
                let mut random = Random::new(seed);
                while Instant::now() < until {
                    if random.below(2) == 0 {
                        blind(server, &mut random);
                    } else {
                        tidy(server, originals, deletions, &mut random);
                    }
                }
            });
        }
    });
    settle(&mut server, before);

    let left = stored(&server);
    let asked = deletions.asked.into_inner().expect("no panic");
    let told = deletions.told.into_inner().expect("no panic");
    assert!(!told.is_empty(), "some deletions came to their end");
    for (key, octets) in &originals {
        match left.get(key) {
            Some(found) => {
                assert!(found == octets, "{key:?} has changed");
                assert!(!told.contains(key), "{key:?} was said to be deleted");
            }
            None => assert!(asked.contains(key), "{key:?} is lost"),
        }
    }
    assert!(left.keys().all(|key| originals.contains_key(key)));
    for number in 0..USERS {
        let mut client = server.log_in(&user(number));
        for row in client.rows("UIDL") {
            let (message, name) = row.split_once(' ').expect("a row");
            let sent = client.text(&format!("RETR {message}"));
            assert!(sent == model::sent(&left[&(number, name.to_owned())]));
        }
        client.quit();
    }
    settle(&mut server, before);
}
