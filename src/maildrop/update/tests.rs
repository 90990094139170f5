use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::super::undelete::{Undeleted, undelete};
use super::super::{Location, OpenError};
use super::*;

const DAY: Duration = Duration::from_hours(24);

/// A maildrop of some messages under these rules, at a time that the test says.
struct Site {
    _folder: tempfile::TempDir,
    path: PathBuf,
    at: Location,
    rules: Rules,
    now: SystemTime,
}

impl Site {
    fn new(rules: Rules, names: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ann");
        for part in ["new", "cur"] {
            fs::create_dir_all(path.join(part)).expect("a folder");
        }
        for name in names {
            fs::write(path.join(name), format!("{name}\n")).expect("a message");
        }
        let today = SystemTime::now().duration_since(UNIX_EPOCH);
        let today = today.expect("after 1970").as_secs() / DAY.as_secs();
        let today = u32::try_from(today).expect("a day");
        Self {
            _folder: folder,
            at: Location::beside(&path),
            path,
            rules,
            now: UNIX_EPOCH + DAY * (today + 1),
        }
    }

    /// A server that was just started.
    fn maildrops(&self) -> Maildrops {
        Maildrops::new(1 << 20).with_rules(self.rules)
    }

    fn open(&self, maildrops: &Maildrops) -> Arc<Snapshot> {
        let opened = maildrops.open(&self.at).expect("it opens");
        Arc::clone(&opened.snapshot)
    }

    /// A session of a server that was just started, or of one that goes on.
    fn session(&self, server: &Maildrops, fetched: &[u32], marked: Option<&[u32]>) -> CommitReport {
        let opened = server.open(&self.at).expect("it opens");
        let number = |n: &u32| MessageNumber::new(*n).expect("not 0");
        let fetched: BTreeSet<_> = fetched.iter().map(number).collect();
        let follows = |n: &MessageNumber| server.follows(&opened.snapshot, *n);
        let fetched: BTreeSet<_> = fetched.into_iter().filter(follows).collect();
        let marked: Option<Vec<_>> = marked.map(|marked| marked.iter().map(number).collect());
        let departure = marked
            .as_ref()
            .map_or(Departure::Lost, |marked| Departure::Quit(marked));
        let due = server.is_due(&opened.snapshot, self.now) && marked.is_some();
        let nothing = fetched.is_empty() && marked.as_ref().is_none_or(Vec::is_empty) && !due;
        if nothing {
            return CommitReport::default();
        }
        server.update(&opened.snapshot, &fetched, departure, self.now)
    }

    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for part in ["cur", "new"] {
            for entry in fs::read_dir(self.path.join(part)).expect("a folder") {
                let name = entry.expect("an entry").file_name();
                left.push(format!("{part}/{}", name.to_str().expect("ASCII")));
            }
        }
        left.sort();
        left
    }

    fn undelete(&self, since: SystemTime, restore: bool) -> Result<Vec<Undeleted>, OpenError> {
        undelete(&self.maildrops(), &self.at, since, restore)
    }
}

fn uidls(snapshot: &Snapshot) -> Vec<String> {
    let text = |message: Message<'_>| String::from_utf8(message.uidl_text()).expect("ASCII");
    snapshot.messages().map(text).collect()
}

fn kept_for(days: u16) -> Rules {
    let unit = if days == 1 { "day" } else { "days" };
    let text = format!("{days} {unit} after first retrieval");
    Rules {
        retention: Some(Retention::parse(&text).expect("a retention")),
        ..Rules::default()
    }
}

fn aside_for(kept: Duration) -> Rules {
    Rules {
        undelete: Some(kept),
        ..Rules::default()
    }
}

#[test]
fn what_was_fetched_goes_when_its_time_is_over_at_the_end_of_a_session() {
    let mut site = Site::new(kept_for(2), &["new/1.a", "new/2.b", "cur/3.c:2,"]);
    site.session(&site.maildrops(), &[1], Some(&[]));
    site.now += DAY;
    // Fetched a second time, and another one for the first.
    site.session(&site.maildrops(), &[1, 3], None);
    for _ in 0..2 {
        site.session(&site.maildrops(), &[], Some(&[]));
        assert_eq!(site.left().len(), 3);
        site.now += DAY;
    }
    // Two whole days have passed since the first. Without QUIT nothing goes, nor before
    // another day.
    let server = site.maildrops();
    for departure in [None, Some(&[][..]), Some(&[][..])] {
        site.session(&server, &[], departure);
        assert_eq!(site.left().len(), 3);
    }
    site.now += DAY;
    site.session(&server, &[], None);
    assert_eq!(site.left().len(), 3);
    let report = site.session(&server, &[], Some(&[]));
    assert_eq!(report, CommitReport::default(), "no client asked for it");
    assert_eq!(site.left(), ["cur/3.c:2,", "new/2.b"]);
    assert_eq!(server.counters().expired(), 1);
    site.now += 400 * DAY;
    let report = site.session(&site.maildrops(), &[], Some(&[1]));
    assert_eq!((report.removed, report.failed), (1, None));
    assert_eq!(site.left(), Vec::<String>::new(), "one marked, one over");
}

#[test]
fn who_is_fetched_and_deleted_is_gone_and_what_nobody_fetches_stays() {
    let mut site = Site::new(kept_for(1), &["new/1.a", "new/2.b"]);
    let report = site.session(&site.maildrops(), &[1], Some(&[1]));
    assert_eq!((report.removed, report.failed), (1, None));
    site.now += 1_000 * DAY;
    site.session(&site.maildrops(), &[], Some(&[]));
    assert_eq!(site.left(), ["new/2.b"]);
}

#[test]
fn the_day_of_the_first_retrieval_outlives_restarts_rebuilds_and_changes() {
    let mut site = Site::new(kept_for(3), &["new/1.a", "new/2.b"]);
    let server = site.maildrops();
    site.session(&server, &[1, 2], None);
    fs::rename(site.path.join("new/1.a"), site.path.join("cur/1.a:2,F")).expect("a message");
    fs::write(site.path.join("new/3.c"), "c\n").expect("a message");
    site.session(&server, &[], Some(&[]));
    let rebuilt = site.maildrops().rebuild(&site.at).expect("it can be");
    assert_eq!(rebuilt.messages, 3);
    // The last octets of the index are lost; what is read of it is used.
    let index = site.path.join("popcore.index");
    let octets = fs::read(&index).expect("an index");
    fs::write(&index, &octets[..octets.len() - 5]).expect("an index");
    for _ in 0..2 {
        site.now += 4 * DAY;
        site.session(&site.maildrops(), &[], Some(&[]));
    }
    assert_eq!(site.left(), ["new/3.c"]);
}

#[test]
fn without_its_index_a_message_is_kept_from_the_next_retrieval_on() {
    type Loss = fn(&Path);
    let losses: [Loss; 3] = [
        |index| fs::remove_file(index).expect("an index"),
        |index| fs::write(index, "").expect("an index"),
        |index| fs::write(index, "something else").expect("an index"),
    ];
    for loss in losses {
        let mut site = Site::new(kept_for(2), &["new/1.a", "new/2.b"]);
        site.session(&site.maildrops(), &[1, 2], Some(&[]));
        loss(&site.path.join("popcore.index"));
        site.now += 3 * DAY;
        // It would be over by now. Nobody knows, so nothing goes.
        site.session(&site.maildrops(), &[1], Some(&[]));
        for _ in 0..2 {
            assert_eq!(site.left(), ["new/1.a", "new/2.b"]);
            site.now += 3 * DAY;
            site.session(&site.maildrops(), &[], Some(&[]));
        }
        assert_eq!(site.left(), ["new/2.b"]);
    }
}

/// The clock of a machine that was just started says what it likes until a time server
/// has been asked.
#[test]
fn a_clock_that_is_ahead_for_some_sessions_removes_nothing() {
    let rules = Rules {
        undelete: Some(DAY),
        ..kept_for(30)
    };
    let mut site = Site::new(rules, &["new/1.a", "new/2.b"]);
    site.session(&site.maildrops(), &[1], Some(&[2]));
    let aside = site.path.join(aside::FOLDER);
    for _ in 0..2 {
        let right = site.now;
        site.now += 365 * DAY;
        for _ in 0..3 {
            site.session(&site.maildrops(), &[], Some(&[]));
        }
        site.now = right;
        // Not even if it was so twice.
        site.session(&site.maildrops(), &[], Some(&[]));
        assert_eq!(site.left(), ["new/1.a"]);
        assert!(aside.exists());
        site.now += DAY;
    }
    // When the time has come, it goes.
    for _ in 0..2 {
        site.now += 31 * DAY;
        site.session(&site.maildrops(), &[], Some(&[]));
    }
    assert_eq!(site.left(), Vec::<String>::new());
    assert!(!aside.exists());
}

/// It begins where it was switched off, or in 1970.
#[test]
fn a_clock_that_is_behind_at_the_first_retrieval_makes_nothing_go_early() {
    let rules = Rules {
        undelete: Some(20 * DAY),
        ..kept_for(30)
    };
    for behind in [SystemTime::now() - 90 * DAY, UNIX_EPOCH + 2 * DAY] {
        let mut site = Site::new(rules, &["new/1.a", "new/2.b"]);
        let right = site.now;
        site.now = behind;
        site.session(&site.maildrops(), &[1], Some(&[2]));
        let aside = site.path.join(aside::FOLDER);
        site.now = right;
        for _ in 0..20 {
            site.session(&site.maildrops(), &[], Some(&[]));
            assert_eq!(site.left(), ["new/1.a"]);
            assert!(aside.exists());
            site.now += DAY;
        }
        for _ in 0..2 {
            site.now += 11 * DAY;
            site.session(&site.maildrops(), &[], Some(&[]));
        }
        assert_eq!(site.left(), Vec::<String>::new());
        assert!(!aside.exists());
    }
}

#[test]
fn a_size_that_is_corrected_in_the_same_session_takes_no_note_away() {
    let mut site = Site::new(kept_for(1), &[]);
    for (name, text) in [
        ("1.a,S=2,W=3", "a\n"),
        ("2.b,S=2,W=9", "b\n"),
        ("3.c,S=2,W=9", "c\n"),
    ] {
        fs::write(site.path.join("new").join(name), text).expect("a message");
    }
    let server = site.maildrops();
    let snapshot = site.open(&server);
    let number = |n| MessageNumber::new(n).expect("not 0");
    server.recount(&snapshot, number(2));
    let fetched = BTreeSet::from([number(1), number(2)]);
    let departure = Departure::Quit(&[MessageNumber::FIRST]);
    server.update(&snapshot, &fetched, departure, site.now);
    let server = site.maildrops();
    for _ in 0..2 {
        site.now += 2 * DAY;
        site.session(&server, &[], Some(&[]));
    }
    assert_eq!(site.left(), ["new/3.c,S=2,W=9"]);
    assert_eq!(server.counters().damaged(), 0);
}

#[test]
fn what_was_deleted_comes_back_with_its_unique_ids() {
    let names = ["cur/1.a:2,S", "new/2.b", "new/3.\u{e4}", "new/4.d"];
    let mut site = Site::new(aside_for(7 * DAY), &names);
    let quota = site.path.join("maildirsize");
    fs::write(&quota, "1000S\n48 4\n").expect("a file");
    let server = site.maildrops();
    let before = uidls(&site.open(&server));
    let first = site.now;
    let report = site.session(&server, &[], Some(&[1]));
    assert_eq!((report.removed, report.failed), (1, None));
    site.now += DAY;
    // By another server, which is killed before the next listing.
    site.session(&site.maildrops(), &[], Some(&[2, 3]));
    assert_eq!(site.left(), ["new/2.b"]);

    let listed = site.undelete(first, false).expect("it can be read");
    let files = |found: &[Undeleted]| -> Vec<String> {
        let file = |m: &Undeleted| String::from_utf8(m.file.clone()).expect("UTF-8");
        found.iter().map(file).collect()
    };
    assert_eq!(files(&listed).len(), 3);
    assert!(
        listed
            .iter()
            .all(|m| m.uidl.is_some() && m.octets.is_some())
    );
    assert_eq!((listed[0].deleted, listed[1].deleted), (first, site.now));
    assert_eq!(site.left().len(), 1, "it was only asked");

    // Of the later session alone.
    let back = site.undelete(site.now, true).expect("it can be");
    assert!(back.iter().all(|m| m.fault.is_none()), "{back:?}");
    assert_eq!(site.left(), ["new/2.b", "new/3.\u{e4}", "new/4.d"]);
    fs::write(site.path.join("cur/1.a:2,S"), "in its place\n").expect("a message");
    let back = site.undelete(first, true).expect("it can be");
    assert_eq!(files(&back), ["cur/1.a:2,S"]);
    assert!(back[0].fault.is_some(), "nothing is overwritten");
    fs::remove_file(site.path.join("cur/1.a:2,S")).expect("a message");
    site.undelete(first, true).expect("it can be");
    assert_eq!(site.left(), names);
    assert_eq!(uidls(&site.open(&site.maildrops())), before);
    let octets: usize = names.iter().map(|name| name.len() + 1).sum();
    let booked: i64 = fs::read_to_string(&quota)
        .expect("a file")
        .lines()
        .skip(2)
        .map(|line| {
            line.split(' ')
                .next()
                .expect("octets")
                .parse::<i64>()
                .expect("a number")
        })
        .sum();
    assert_eq!((booked, octets > 0), (0, true), "what went came back");
}

#[test]
fn more_than_are_remembered_come_back_as_they_were() {
    const MESSAGES: usize = 3 * limits::GONE_MESSAGES;
    let site = Site::new(aside_for(DAY), &[]);
    for n in 0..MESSAGES {
        fs::write(site.path.join(format!("new/{n}.\u{e4}")), "x\n").expect("a message");
    }
    let list = (0..MESSAGES).fold("3 V1 N9999\n".to_owned(), |list, n| {
        format!("{list}{} P{:x} :{n}.\u{e4}\n", n + 1, 77 * n + 1)
    });
    fs::write(site.path.join("dovecot-uidlist"), list).expect("a list");
    let sources = super::super::Sources::parse(["dovecot"]).expect("a source");
    let server = site.maildrops().with_sources(sources);
    let before = uidls(&site.open(&server));
    let all: Vec<u32> = (1..).take(MESSAGES).collect();
    site.session(&server, &[], Some(&all));
    fs::remove_file(site.path.join("dovecot-uidlist")).expect("a list");
    let back = site.undelete(UNIX_EPOCH, true).expect("it can be");
    assert_eq!(back.len(), MESSAGES);
    let mut after = uidls(&site.open(&site.maildrops()));
    let mut before = before;
    after.sort();
    before.sort();
    assert_eq!(after, before);
}

#[test]
fn what_was_kept_long_enough_goes_for_good_with_some_later_session() {
    let mut site = Site::new(aside_for(7 * DAY), &["new/1.a", "new/2.b", "new/3.c"]);
    let server = site.maildrops();
    let aside = site.path.join(aside::FOLDER);
    let batches = |aside: &Path| fs::read_dir(aside).map_or(0, Iterator::count);
    site.session(&server, &[], Some(&[1]));
    site.now += 5 * DAY;
    site.session(&server, &[], Some(&[1]));
    assert_eq!(batches(&aside), 2);
    site.now += 2 * DAY;
    site.session(&server, &[], Some(&[]));
    assert_eq!(batches(&aside), 2, "seven days are not over");
    site.now += Duration::from_secs(1);
    site.session(&server, &[], Some(&[]));
    assert_eq!(batches(&aside), 2, "no other day has confirmed it");
    site.now += DAY;
    site.session(&server, &[], None);
    assert_eq!(batches(&aside), 2, "no session said QUIT");
    site.session(&server, &[], Some(&[]));
    assert_eq!(batches(&aside), 1);
    assert_eq!(site.undelete(UNIX_EPOCH, false).expect("read").len(), 1);
    for _ in 0..2 {
        site.now += 30 * DAY;
        site.session(&server, &[], Some(&[]));
    }
    assert!(!aside.exists());
    assert_eq!(site.left(), ["new/3.c"]);
}

#[test]
fn what_cannot_be_kept_aside_is_not_removed() {
    let site = Site::new(aside_for(DAY), &["new/1.a"]);
    // A link that leads out of the maildrop, and a file.
    let aside = site.path.join(aside::FOLDER);
    std::os::unix::fs::symlink(std::env::temp_dir(), &aside).expect("a link");
    for round in 0..2 {
        let report = site.session(&site.maildrops(), &[], Some(&[1]));
        assert_eq!(report.failed.map(|(count, _)| count), Some(1));
        assert_eq!(site.left(), ["new/1.a"]);
        fs::remove_file(&aside).expect("it is there");
        if round == 0 {
            fs::write(&aside, "no folder").expect("a file");
        }
    }
    assert_eq!(uidls(&site.open(&site.maildrops())), ["1.a"]);
}

#[test]
fn a_message_that_another_program_renamed_is_kept_aside_as_it_is_called_by_then() {
    let site = Site::new(aside_for(DAY), &["new/1.a", "new/2.b"]);
    let server = site.maildrops();
    let opened = server.open(&site.at).expect("it opens");
    fs::rename(site.path.join("new/1.a"), site.path.join("cur/1.a:2,S")).expect("a message");
    let departure = Departure::Quit(&[MessageNumber::FIRST]);
    let report = server.update(&opened.snapshot, &BTreeSet::new(), departure, site.now);
    assert_eq!((report.removed, report.failed), (1, None));
    drop(opened);
    let back = site.undelete(UNIX_EPOCH, true).expect("it can be");
    assert_eq!(back[0].uidl.as_deref(), Some(b"1.a".as_slice()));
    assert_eq!(site.left(), ["cur/1.a:2,S", "new/2.b"]);
}
