//! The server is killed before each single step that changes something on the disk:
//! of a login that writes the index, and of UPDATE under each rule.
//!
//! strace counts a call of the threads that do such work and sends SIGKILL in place of
//! the nth, for n from 1 on until a session comes to its end, and for each call. Whatever was
//! done by then, every message that was not marked is there as it was, the others are
//! where they were or where they were to go, and none has another unique-id.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use popcore::maildrop::{
    Departure, Location, Maildrops, Retention, Rules, Snapshot, Sources, undelete,
};
use popcore::proto::MessageNumber;
use rustix::process::Signal;

use crate::client::Client;
use crate::site::{PASSWORD, Protection, Site, USER, maildir, signal};

/// All calls that change a file or folder, or make one.
const CHANGES: [&str; 16] = [
    "openat",
    "openat2",
    "write",
    "fdatasync",
    "fsync",
    "ftruncate",
    "mkdir",
    "mkdirat",
    "link",
    "linkat",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
];
/// More steps than any of these sessions has.
const MOST: usize = 200;
/// In the order that the earlier server's list makes.
const NAMES: [&str; 6] = [
    "cur/2.b:2,S",
    "cur/4.d:2,",
    "new/1.a",
    "new/3.\u{e4}",
    "new/5.e",
    "cur/6.f:2,F",
];
/// Numbers of the messages that are marked.
const MARKED: [usize; 3] = [2, 3, 4];
const LIST: &str = "3 V1600000000 N9\n2 :2.b\n4 PUID-of-old :4.d\n";

fn sources() -> Sources {
    Sources::parse(["dovecot", "name"]).expect("sources")
}

fn text(name: &str) -> String {
    format!("Subject: {name}\n\n.{name}\n")
}

fn make(folder: &Path) {
    let mail = maildir(folder);
    for name in NAMES {
        fs::write(mail.join(name), text(name)).expect("own folder");
    }
    fs::write(mail.join("dovecot-uidlist"), LIST).expect("own folder");
    fs::write(mail.join("maildirsize"), "9000S\n300 6\n").expect("own folder");
}

/// A tracer that kills the server in place of the nth such call of one of its threads.
fn killer(site: &Site, call: &str, nth: usize) -> Child {
    let tasks = format!("/proc/{}/task", site.pid());
    let mut command = Command::new("strace");
    command.args(["-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    command.args(["-e", &format!("inject={call}:signal=KILL:when={nth}")]);
    let started = Instant::now();
    // A thread has no name yet when it has just begun.
    let pool = loop {
        let threads: Vec<_> = fs::read_dir(&tasks)
            .expect("it runs")
            .map(|task| {
                let task = task.expect("an entry").path();
                let name = fs::read_to_string(task.join("comm")).expect("it runs");
                (task, name)
            })
            .collect();
        let nameless = threads
            .iter()
            .filter(|(_, name)| name == "popcore\n")
            .count();
        let pool = threads
            .into_iter()
            // A maildrop that nobody knows yet may be far.
            .filter(|(_, name)| name.starts_with("pool-") || name.starts_with("far"));
        let pool: Vec<PathBuf> = pool.map(|(task, _)| task).collect();
        if nameless <= 1 && !pool.is_empty() {
            break pool;
        }
        assert!(
            started.elapsed() < Duration::from_mins(1),
            "no thread of that name"
        );
        std::thread::sleep(Duration::from_millis(2));
    };
    for task in &pool {
        command.arg("-p").arg(task.file_name().expect("a number"));
    }
    let mut tracer = command
        .stderr(Stdio::null())
        .spawn()
        .expect("strace is installed (Debian: strace)");
    let is_traced = |task: &PathBuf| {
        let status = fs::read_to_string(task.join("status")).unwrap_or_default();
        !status.contains("TracerPid:\t0\n")
    };
    while !pool.iter().all(is_traced) {
        assert!(tracer.try_wait().expect("a child").is_none(), "it ended");
        assert!(
            started.elapsed() < Duration::from_mins(1),
            "it does not attach"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    tracer
}

fn numbers(snapshot: &Snapshot) -> impl Iterator<Item = MessageNumber> + use<> {
    (1..).map_while(MessageNumber::new).take(snapshot.len())
}

/// Unique-ids by unique name, as the next server announces them.
fn announced(maildrops: &Maildrops, at: &Location) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let opened = maildrops.open(at).expect("it opens");
    let snapshot = &opened.snapshot;
    let told = numbers(snapshot).map(|number| {
        let mut uidl = Vec::new();
        snapshot.write_uidl(number, &mut uidl);
        (
            snapshot.unique_name(number).expect("in range").to_vec(),
            uidl,
        )
    });
    told.collect()
}

fn unique(name: &str) -> Vec<u8> {
    let name = name.split_once('/').expect("two parts").1;
    name.split(':').next().expect("something").into()
}

/// The messages that are there, each of which is what it was.
fn there(mail: &Path) -> BTreeSet<&'static str> {
    let there = NAMES.into_iter().filter(|name| mail.join(name).exists());
    let there: BTreeSet<_> = there.collect();
    for name in &there {
        let found = fs::read_to_string(mail.join(name)).expect("a message");
        assert_eq!(found, text(name), "{name}");
    }
    let files = |part| fs::read_dir(mail.join(part)).expect("a folder").count();
    assert_eq!(files("new") + files("cur"), there.len(), "nothing else");
    there
}

/// What sessions of one kind do.
struct Trial {
    rules: Rules,
    /// The messages that are to go.
    going: BTreeSet<&'static str>,
    /// The index was damaged before.
    damaged: bool,
}

impl Trial {
    /// What holds after an end at any step.
    fn check(&self, site: &Site, before: &BTreeMap<Vec<u8>, Vec<u8>>, whole: bool) {
        let mail = maildir(site.folder());
        let at = Location::beside(&mail);
        let left = there(&mail);
        let (rules, going) = (self.rules, &self.going);
        let staying = NAMES.iter().filter(|name| !going.contains(*name));
        for name in staying {
            assert!(left.contains(name), "{name} is gone");
        }
        if whole {
            assert!(left.is_disjoint(going), "{left:?}");
        }
        // The list of the earlier server is not there to be asked again.
        let _ = fs::remove_file(mail.join("dovecot-uidlist"));
        let maildrops = Maildrops::new(1 << 20)
            .with_sources(sources())
            .with_rules(rules);
        let now = announced(&maildrops, &at);
        assert_eq!(now.len(), left.len());
        for (name, uidl) in &now {
            assert_eq!(before.get(name), Some(uidl), "{}", name.escape_ascii());
        }
        let torn = maildrops.counters().damaged();
        assert!(torn == 0 || self.damaged, "the index is torn");
        if rules.undelete.is_some() {
            let back = undelete(&maildrops, &at, SystemTime::UNIX_EPOCH, true).expect("it can be");
            assert_eq!(back.len() + left.len(), NAMES.len(), "each is in one place");
            assert!(
                back.iter().all(|message| message.fault.is_none()),
                "{back:?}"
            );
            assert_eq!(announced(&maildrops, &at), *before);
        }
        // The same may be asked for again.
        let opened = maildrops.open(&at).expect("it opens");
        let wanted = |number: &MessageNumber| {
            let name = opened.snapshot.unique_name(*number).expect("in range");
            going.iter().any(|going| unique(going) == name)
        };
        let marked: Vec<_> = numbers(&opened.snapshot).filter(wanted).collect();
        let departure = Departure::Quit(&marked);
        let report = maildrops.update(
            &opened.snapshot,
            &BTreeSet::new(),
            departure,
            SystemTime::now(),
        );
        assert_eq!(report.failed, None);
        assert!(there(&mail).is_disjoint(going));
    }

    /// Plays `session` against servers that end before their first step, their second,
    /// and so on; tells how many steps there were.
    fn at_every_step(
        &self,
        maildrop: &str,
        ready: impl Fn(&Site),
        session: impl Fn(&Site, &dyn Fn()) -> bool,
    ) -> usize {
        let all = |call: &&str| self.at_every_call(call, maildrop, &ready, &session);
        CHANGES.iter().map(all).sum()
    }

    fn at_every_call(
        &self,
        call: &str,
        maildrop: &str,
        ready: &impl Fn(&Site),
        session: &impl Fn(&Site, &dyn Fn()) -> bool,
    ) -> usize {
        for nth in 1..MOST {
            let settings = format!("uidl = [\"dovecot\", \"name\"]\n{maildrop}");
            let site = Site::start_after(&[], &settings, make);
            let at = Location::beside(maildir(site.folder()));
            let fresh = Maildrops::new(1 << 20).with_sources(sources());
            // Announced by a server that was here before.
            let before = announced(&fresh, &at);
            assert_eq!(before[&unique(NAMES[1])], b"UID-of-old");
            ready(&site);
            let tracer = std::cell::RefCell::new(None);
            let attach = || *tracer.borrow_mut() = Some(killer(&site, call, nth));
            let whole = session(&site, &attach);
            let mut tracer = tracer.into_inner().expect("it was asked for");
            if whole {
                signal(&tracer, Signal::INT);
            }
            tracer.wait().expect("a child");
            self.check(&site, &before, whole);
            if whole {
                return nth - 1;
            }
        }
        panic!("more than {MOST} times {call}");
    }
}

/// Sessions that delete, under these rules, and beside which this goes as well.
fn deleting(rules: Rules, over: &[usize]) -> Trial {
    let numbers = MARKED.iter().chain(over);
    Trial {
        rules,
        going: numbers.map(|number| NAMES[number - 1]).collect(),
        damaged: false,
    }
}

/// Deletes some and says QUIT; tells whether that was answered.
fn delete(site: &Site, attach: &dyn Fn()) -> bool {
    let mut client = Client::login(site.port(Protection::Clear), USER, PASSWORD);
    for number in MARKED {
        client.ok(&format!("DELE {number}"));
    }
    attach();
    client.end().starts_with(b"+OK")
}

#[test]
fn a_kill_at_any_step_of_update_loses_nothing() {
    let steps = deleting(Rules::default(), &[]).at_every_step("", |_| {}, delete);
    // The index, three messages and the quota file at least.
    assert!((5..MOST).contains(&steps), "{steps} steps");
}

#[test]
fn a_kill_at_any_step_of_update_loses_nothing_that_is_kept_aside() {
    let rules = Rules {
        undelete: Some(Duration::from_hours(1)),
        ..Rules::default()
    };
    let steps = deleting(rules, &[]).at_every_step("undelete = \"1h\"\n", |_| {}, delete);
    assert!((9..MOST).contains(&steps), "{steps} steps");
}

#[test]
fn a_kill_at_any_step_of_update_removes_only_what_is_marked_or_over() {
    let text = "2 days after first retrieval";
    let rules = Rules {
        retention: Retention::parse(text).ok(),
        ..Rules::default()
    };
    let fetched_long_ago = |site: &Site| {
        let at = Location::beside(maildir(site.folder()));
        let days_ago = |days: u64| SystemTime::now() - Duration::from_hours(days * 24);
        // A clock that stands before the last change is not believed.
        for part in ["new", "cur"] {
            let folder = fs::File::open(at.path.join(part)).expect("a folder");
            folder.set_modified(days_ago(5)).expect("a time");
        }
        let maildrops = Maildrops::new(0).with_rules(rules);
        let opened = maildrops.open(&at).expect("it opens");
        let fifth = |number: &MessageNumber| {
            opened.snapshot.unique_name(*number) == Some(unique(NAMES[4]).as_slice())
        };
        let fetched = numbers(&opened.snapshot).filter(fifth).collect();
        maildrops.update(&opened.snapshot, &fetched, Departure::Lost, days_ago(4));
        drop(opened);
        // A session of yesterday found that its time was over.
        let opened = maildrops.open(&at).expect("it opens");
        let (nothing, quit) = (BTreeSet::new(), Departure::Quit(&[]));
        maildrops.update(&opened.snapshot, &nothing, quit, days_ago(1));
    };
    let setting = format!("retention = \"{text}\"\n");
    let steps = deleting(rules, &[5]).at_every_step(&setting, fetched_long_ago, delete);
    assert!((6..MOST).contains(&steps), "{steps} steps");
}

/// What is wrong with a maildrop that a login finds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Harm {
    None,
    /// The index ends in mid-record, so that it is made anew.
    TornIndex,
    /// What the maildrop keeps of the earlier server's list is gone, and is made anew.
    NoCutoff,
    /// The same for a message that is new to the index: one that was restored from a copy.
    TornCutoff,
}

impl Harm {
    fn befall(self, mail: &Path) {
        let cut = |name: &str, octets: usize| {
            let path = mail.join(name);
            let whole = fs::read(&path).expect("a file");
            fs::write(&path, &whole[..whole.len() - octets]).expect("own folder");
        };
        let cutoff = mail.join("popcore.cutoff");
        match self {
            Self::None => {}
            Self::TornIndex => cut("popcore.index", 3),
            Self::NoCutoff => fs::remove_file(&cutoff).expect("a cutoff"),
            Self::TornCutoff => cut("popcore.cutoff", 7),
        }
        if self == Self::TornCutoff {
            let (copy, place) = (mail.join("tmp.copy"), mail.join(NAMES[4]));
            fs::copy(&place, &copy).expect("a message");
            fs::rename(copy, place).expect("own folder");
        }
    }

    /// Steps that the login has at least.
    fn least(self) -> usize {
        match self {
            Self::None => 1,
            Self::TornIndex => 4,
            // A file made, written, put on the disk and named, its folder put there, and
            // the index told.
            Self::NoCutoff | Self::TornCutoff => 6,
        }
    }
}

#[test]
fn a_kill_at_any_step_of_a_login_loses_nothing() {
    for harm in [
        Harm::None,
        Harm::TornIndex,
        Harm::NoCutoff,
        Harm::TornCutoff,
    ] {
        let change = |site: &Site| {
            let mail = maildir(site.folder());
            fs::rename(mail.join(NAMES[2]), mail.join("new/moved")).expect("a message");
            fs::rename(mail.join("new/moved"), mail.join(NAMES[2])).expect("a message");
            harm.befall(&mail);
        };
        let log_in = |site: &Site, attach: &dyn Fn()| {
            attach();
            let said = format!("USER {USER}\r\nPASS {PASSWORD}\r\nUIDL\r\nQUIT\r\n");
            let mut stream = TcpStream::connect(("127.0.0.1", site.port(Protection::Clear)));
            let stream = stream.as_mut().expect("a server");
            stream.write_all(said.as_bytes()).expect("it is read");
            let mut answers = Vec::new();
            // A server that was killed may end it with a reset.
            let _ = stream.read_to_end(&mut answers);
            let whole = answers.ends_with(b"signing off\r\n");
            let cutoff = maildir(site.folder()).join("popcore.cutoff");
            if whole {
                let text = fs::read_to_string(cutoff).expect("a cutoff");
                let rows: Vec<&str> = text.lines().collect();
                assert!(
                    rows.last().is_some_and(|row| row.starts_with("crc ")),
                    "{text}"
                );
            }
            whole
        };
        let rules = Rules::default();
        let trial = Trial {
            rules,
            going: BTreeSet::new(),
            damaged: harm == Harm::TornIndex,
        };
        let steps = trial.at_every_step("", change, log_in);
        assert!((harm.least()..MOST).contains(&steps), "{steps} steps");
    }
}
