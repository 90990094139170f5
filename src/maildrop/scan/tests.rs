use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use super::super::snapshot::{Folder, StoredForm};
use super::super::stamps::{Freshness, current, current_without_blocking};
use super::*;

struct Maildrop {
    _folder: TempDir,
    path: PathBuf,
}

impl Maildrop {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().canonicalize().expect("a path").join("ann");
        for part in ["new", "cur", "tmp"] {
            fs::create_dir_all(path.join(part)).expect("a folder");
        }
        Self {
            _folder: folder,
            path,
        }
    }

    fn write(&self, name: impl AsRef<OsStr>, content: impl AsRef<[u8]>) {
        fs::write(self.path.join(name.as_ref()), content).expect("a message");
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path.join(from), self.path.join(to)).expect("a message");
    }

    fn open(&self) -> Snapshot {
        open(&self.path, None).expect("it opens")
    }

    fn reopen(&self, previous: &Snapshot) -> Snapshot {
        open(&self.path, Some(previous)).expect("it opens")
    }

    /// Opens until the stamps are old enough to be believed.
    fn open_settled(&self) -> Snapshot {
        loop {
            let snapshot = self.open();
            if matches!(snapshot.standing(), Standing::Settled { .. }) {
                return snapshot;
            }
            thread::yield_now();
        }
    }
}

fn number(n: usize) -> MessageNumber {
    MessageNumber::new(u32::try_from(n).expect("small")).expect("not 0")
}

fn numbers(snapshot: &Snapshot) -> impl Iterator<Item = MessageNumber> {
    (1..=snapshot.len()).map(number)
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    let name = |n| String::from_utf8_lossy(snapshot.name(n).expect("in range")).into_owned();
    numbers(snapshot).map(name).collect()
}

fn octets(snapshot: &Snapshot) -> Vec<u64> {
    let octets = |n| snapshot.octets(n).expect("in range").get();
    numbers(snapshot).map(octets).collect()
}

#[test]
fn octets_count_every_line_end_as_two() {
    let big_lf = b"a line\n".repeat(60_000);
    let big_crlf = b"a line\r\n".repeat(60_000);
    let forms: [(&[u8], u64); 14] = [
        (b"", 0),
        (b"a\nb\n", 6),
        (b"a\r\nb\r\n", 6),
        (b"a\nb\r\n", 6),
        (b"a\rb\n", 5),
        (b"a\r", 4),
        (b"a", 3),
        (b"a\r\r\n", 4),
        (b"\n", 2),
        (b"Subject: headers only\n", 23),
        (b"a\0b\n\0", 8),
        (b".\n..\n", 7),
        (&big_lf, 480_000),
        (&big_crlf, 480_000),
    ];
    let maildrop = Maildrop::new();
    for (at, (content, _)) in forms.iter().enumerate() {
        let folder = if at % 2 == 0 { "new" } else { "cur" };
        maildrop.write(format!("{folder}/{at}.x"), content);
    }
    let snapshot = maildrop.open();
    let expected: Vec<u64> = forms.iter().map(|form| form.1).collect();
    assert_eq!(octets(&snapshot), expected);
    assert_eq!(snapshot.total().get(), expected.iter().sum::<u64>());
    for (n, (content, _)) in numbers(&snapshot).zip(forms) {
        assert_eq!(snapshot.stored(n), Some(content.len() as u64));
        let path = snapshot.path(n).expect("in range");
        assert_eq!(fs::read(path).expect("it is there"), content);
    }
    assert_eq!(snapshot.as_stored(number(3)), Some(StoredForm::Wire));
    assert_eq!(snapshot.as_stored(number(2)), Some(StoredForm::Text));
}

#[test]
fn order_is_that_of_the_names_over_both_folders() {
    let maildrop = Maildrop::new();
    for name in [
        "cur/20.M5P1.mx:2,S",
        "new/20.M6P1.mx",
        "new/3.mx",
        "cur/20.M10P1.mx:2,",
        "new/20.a",
    ] {
        maildrop.write(name, "x\n");
    }
    let expected = [
        "3.mx",
        "20.a",
        "20.M5P1.mx:2,S",
        "20.M6P1.mx",
        "20.M10P1.mx:2,",
    ];
    assert_eq!(names(&maildrop.open()), expected);
}

#[test]
fn names_of_any_bytes_are_messages() {
    let maildrop = Maildrop::new();
    let odd = [b"new/1.\xff\xfe".as_slice(), b"new/2.a b", b"new/3.\n"];
    for name in odd {
        maildrop.write(OsStr::from_bytes(name), "x\n");
    }
    let snapshot = maildrop.open();
    assert_eq!(snapshot.len(), odd.len());
    for n in numbers(&snapshot) {
        assert!(fs::read(snapshot.path(n).expect("in range")).is_ok());
    }
}

#[test]
fn what_is_not_there_is_empty() {
    let maildrop = Maildrop::new();
    let missing = maildrop.path.with_file_name("bob").join("deeper");
    let snapshot = open(&missing, None).expect("an empty maildrop");
    assert!(snapshot.is_empty() && **snapshot.root() == *missing);
    assert_eq!(current(&snapshot), Freshness::Fresh);
    fs::create_dir_all(missing.join("new")).expect("a folder");
    assert_eq!(current(&snapshot), Freshness::Changed);

    maildrop.write("new/1.a", "x\n");
    fs::remove_dir(maildrop.path.join("cur")).expect("it was empty");
    assert_eq!(maildrop.open().len(), 1);
    fs::remove_dir_all(maildrop.path.join("new")).expect("it is there");
    assert!(maildrop.open().is_empty());
}

#[test]
fn only_regular_files_with_plain_names_count() {
    let maildrop = Maildrop::new();
    maildrop.write("new/1.a", "x\n");
    maildrop.write("new/.hidden", "x\n");
    fs::create_dir(maildrop.path.join("cur/2.folder")).expect("a folder");
    let fifo = maildrop.path.join("new/3.fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).expect("a FIFO");
    let _socket = UnixListener::bind(maildrop.path.join("new/4.socket")).expect("a socket");
    symlink("/etc/passwd", maildrop.path.join("cur/5.link")).expect("a link");
    symlink("../new/1.a", maildrop.path.join("cur/6.link")).expect("a link");
    assert_eq!(names(&maildrop.open()), ["1.a"]);
}

#[test]
fn what_became_something_else_after_the_listing_is_not_read() {
    let maildrop = Maildrop::new();
    let new = maildrop.path.join("new");
    mknodat(CWD, new.join("1.fifo"), FileType::Fifo, Mode::RWXU, 0).expect("a FIFO");
    symlink("/etc/passwd", new.join("2.link")).expect("a link");
    let _socket = UnixListener::bind(new.join("3.socket")).expect("a socket");
    let root = Root::open(&maildrop.path)
        .expect("no error")
        .expect("there");
    let folders = root.folders().expect("they open");
    let fd = folders.fd(Folder::New).expect("it is there");
    let mut buffers = Buffers::new();
    for name in ["1.fifo", "2.link", "3.socket"] {
        let measured = listing::measure(fd, name.as_bytes(), &mut buffers);
        assert_eq!(measured, Ok(Measured::Foreign), "{name}");
    }
    let measured = listing::measure(fd, b"4.gone", &mut buffers);
    assert_eq!(measured, Ok(Measured::Vanished));
    let measured = listing::measure(fd, b"../../etc/passwd", &mut buffers);
    assert!(measured.is_ok_and(|m| m == Measured::Vanished) || measured.is_err());
}

#[test]
fn a_maildrop_may_be_reached_through_the_operators_links() {
    let maildrop = Maildrop::new();
    maildrop.write("new/1.a", "x\n");
    let link = maildrop.path.with_file_name("link");
    symlink(&maildrop.path, &link).expect("a link");
    let snapshot = open(&link, None).expect("it opens");
    assert_eq!(snapshot.len(), 1);
    assert_eq!(**snapshot.root(), *maildrop.path);
    assert_eq!(**snapshot.asked(), *link);
}

fn fault(result: Result<Snapshot, OpenError>) -> (bool, String) {
    match result.expect_err("it is refused") {
        OpenError::Permanent(fault) => (true, fault.to_string()),
        OpenError::Temporary(fault) => (false, fault.to_string()),
        OpenError::InUse(_) => panic!("nobody uses it"),
    }
}

#[test]
fn a_folder_that_is_a_link_is_refused_by_name() {
    let elsewhere = Maildrop::new();
    elsewhere.write("cur/1.secret", "x\n");
    let maildrop = Maildrop::new();
    let cur = maildrop.path.join("cur");
    fs::remove_dir(&cur).expect("it was empty");
    symlink(elsewhere.path.join("cur"), &cur).expect("a link");
    let (permanent, text) = fault(open(&maildrop.path, None));
    assert!(
        permanent && text.contains(cur.to_str().expect("UTF-8")),
        "{text}"
    );
    assert!(text.contains("symbolic link"), "{text}");
}

#[test]
fn what_is_no_directory_is_refused_by_name() {
    let maildrop = Maildrop::new();
    let mbox = maildrop.path.with_file_name("mbox");
    fs::write(&mbox, "From ann\n").expect("a file");
    let (permanent, text) = fault(open(&mbox, None));
    assert!(
        permanent && text.contains("mbox") && text.contains("Maildir"),
        "{text}"
    );

    let cur = maildrop.path.join("cur");
    fs::remove_dir(&cur).expect("it was empty");
    fs::write(&cur, "").expect("a file");
    let (permanent, text) = fault(open(&maildrop.path, None));
    assert!(
        permanent && text.contains(cur.to_str().expect("UTF-8")),
        "{text}"
    );

    let (permanent, _) = fault(open(&mbox.join("below"), None));
    assert!(permanent);
}

#[test]
fn a_link_to_nothing_is_no_empty_maildrop() {
    let maildrop = Maildrop::new();
    let link = maildrop.path.with_file_name("volume");
    symlink("/nonexistent/volume", &link).expect("a link");
    for path in [link.clone(), link.join("ann")] {
        let (permanent, text) = fault(open(&path, None));
        assert!(!permanent && text.contains("mount"), "{text}");
    }
}

#[test]
fn a_message_that_may_not_be_read_fails_the_login() {
    let maildrop = Maildrop::new();
    maildrop.write("new/1.a", "x\n");
    let path = maildrop.path.join("new/1.a");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("it is ours");
    match open(&maildrop.path, None) {
        Ok(snapshot) => {
            assert!(rustix::process::geteuid().is_root(), "only root reads it");
            assert_eq!(snapshot.len(), 1);
        }
        Err(error) => assert!(matches!(error, OpenError::Permanent(_)), "{error}"),
    }
}

/// What the shard's check tells once it tells something: a rename anywhere on the
/// machine at the wrong moment makes the kernel's cache miss, and a link that has just
/// been made is not followed there until its time of access was set.
fn told(snapshot: &Snapshot) -> Freshness {
    loop {
        match current_without_blocking(snapshot) {
            Freshness::Unknown => drop(current(snapshot)),
            told => return told,
        }
    }
}

#[test]
fn an_unchanged_maildrop_is_fresh_and_any_change_is_seen() {
    type Change = fn(&Maildrop);
    let changes: [Change; 6] = [
        |m| m.write("new/2.b", "x\n"),
        |m| fs::remove_file(m.path.join("cur/1.a:2,")).expect("it is there"),
        |m| m.rename("cur/1.a:2,", "cur/1.a:2,S"),
        |m| {
            m.rename("new", "old");
            fs::create_dir(m.path.join("new")).expect("a folder");
        },
        |m| m.rename("cur", "gone"),
        |m| {
            // As a backup tool leaves it: changed, and the time set back.
            let cur = fs::File::open(m.path.join("cur")).expect("it is there");
            let before = cur.metadata().and_then(|data| data.modified());
            m.write("cur/3.c", "x\n");
            cur.set_modified(before.expect("a time"))
                .expect("it is ours");
        },
    ];
    for (at, change) in changes.iter().enumerate() {
        let maildrop = Maildrop::new();
        maildrop.write("cur/1.a:2,", "x\n");
        let snapshot = maildrop.open_settled();
        assert_eq!(told(&snapshot), Freshness::Fresh);
        assert_eq!(current(&snapshot), Freshness::Fresh);
        change(&maildrop);
        // A name that is gone may be gone from the kernel's cache as well.
        assert_ne!(
            current_without_blocking(&snapshot),
            Freshness::Fresh,
            "{at}"
        );
        assert_eq!(current(&snapshot), Freshness::Changed, "{at}");
    }
}

#[test]
fn a_link_that_leads_elsewhere_by_now_is_a_change() {
    let (one, other) = (Maildrop::new(), Maildrop::new());
    let link = one.path.with_file_name("link");
    symlink(&one.path, &link).expect("a link");
    let snapshot = loop {
        let snapshot = open(&link, None).expect("it opens");
        if snapshot.standing() != Standing::Unsettled {
            break snapshot;
        }
        thread::yield_now();
    };
    assert_eq!(told(&snapshot), Freshness::Fresh);
    fs::remove_file(&link).expect("it is there");
    symlink(&other.path, &link).expect("a link");
    assert_ne!(current_without_blocking(&snapshot), Freshness::Fresh);
    assert_eq!(current(&snapshot), Freshness::Changed);
}

#[test]
fn known_messages_are_not_read_again_and_replaced_ones_are() {
    let maildrop = Maildrop::new();
    maildrop.write("new/1.a", "x\n");
    maildrop.write("new/2.b", "x\n");
    let before = maildrop.open();
    maildrop.rename("new/1.a", "cur/1.a:2,S");
    maildrop.write("cur/1.a:2,S", "rewritten in place\n");
    maildrop.write("tmp/2.b", "replaced by rename\n");
    maildrop.rename("tmp/2.b", "new/2.b");
    let after = maildrop.reopen(&before);
    assert_eq!(names(&after), ["1.a:2,S", "2.b"]);
    assert_eq!(octets(&after), [3, 20]);
    assert_eq!(after.stored(number(1)), Some(2), "which tells the sender");
}

#[test]
fn a_message_that_was_removed_is_believed_gone() {
    let maildrop = Maildrop::new();
    maildrop.write("new/1.a", "x\n");
    maildrop.write("new/2.b", "x\n");
    let before = maildrop.open();
    fs::remove_file(maildrop.path.join("new/1.a")).expect("it is there");
    assert_eq!(names(&maildrop.reopen(&before)), ["2.b"]);
}

#[test]
fn a_renamed_message_is_located_and_a_removed_one_is_not() {
    let maildrop = Maildrop::new();
    for name in ["new/1.a", "cur/2.b:2,", "cur/3.c:2,", "cur/3.c:2,S"] {
        maildrop.write(name, name);
    }
    let snapshot = maildrop.open();
    maildrop.rename("new/1.a", "cur/1.a:2,FS");
    fs::remove_file(maildrop.path.join("cur/2.b:2,")).expect("it is there");
    let found = |n| {
        let file = locate(&snapshot, number(n)).expect("it can be listed");
        file.map(|file| fs::File::from(file).metadata().expect("its status").ino())
    };
    assert_eq!(found(1), snapshot.inode(number(1)));
    assert_eq!(found(2), None);
    for n in [3, 4] {
        assert_eq!(found(n), snapshot.inode(number(n)), "each twin is itself");
    }
    assert_eq!(found(5), None);
    fs::remove_dir_all(&maildrop.path).expect("it is there");
    assert_eq!(found(3), None);
}

#[test]
fn sizes_in_names_save_reading_once_one_was_right() {
    let maildrop = Maildrop::new();
    maildrop.write("new/1.a,S=2,W=3", "a\n");
    // Were it read, its octets would be others.
    maildrop.write("cur/2.b,S=100,W=110:2,S", "b\n");
    maildrop.write("new/3.c,S=100", "c\n");
    let snapshot = maildrop.open();
    assert_eq!(octets(&snapshot), [3, 110, 3]);
    assert_eq!(snapshot.stored(number(2)), Some(100));
    let stated = [1, 2, 3].map(|n| snapshot.is_stated(number(n)));
    assert_eq!(stated, [Some(false), Some(true), Some(false)]);
    assert_eq!(snapshot.as_stored(number(2)), Some(StoredForm::Text));
    // Once tested, the first of the next ones is not read either.
    maildrop.write("new/4.d,S=7,W=8", "d\n");
    assert_eq!(octets(&maildrop.reopen(&snapshot)), [3, 110, 3, 8]);
}

#[test]
fn sizes_in_names_are_not_believed_where_the_first_was_wrong() {
    let maildrop = Maildrop::new();
    maildrop.write("new/1.a,S=2,W=2", "a\n");
    maildrop.write("new/2.b,S=9,W=9", "b\n");
    let snapshot = maildrop.open();
    assert_eq!(octets(&snapshot), [3, 3]);
    maildrop.write("new/3.c,S=2,W=3", "c\n");
    maildrop.write("new/4.d,S=9,W=9", "d\n");
    assert_eq!(octets(&maildrop.reopen(&snapshot)), [3, 3, 3, 3]);
}

#[test]
fn a_directory_that_did_not_change_is_not_listed() {
    let maildrop = Maildrop::new();
    maildrop.write("cur/1.a:2,S", "a\n");
    maildrop.write("new/2.b", "b\n");
    let before = maildrop.open_settled();
    maildrop.write("new/3.c", "c\n");
    let root = Root::open(&maildrop.path)
        .expect("no error")
        .expect("there");
    let now = root.stamps().expect("stamps");
    assert!(before.standing().holds(Folder::Cur, &now));
    assert!(!before.standing().holds(Folder::New, &now));
    let after = maildrop.reopen(&before);
    assert_eq!(names(&after), ["1.a:2,S", "2.b", "3.c"]);
    // The old half of it is still good when the young half is not.
    assert!(after.standing().holds(Folder::Cur, &now));
    maildrop.rename("cur/1.a:2,S", "new/1.a");
    assert_eq!(names(&maildrop.reopen(&after)), ["1.a", "2.b", "3.c"]);
}

#[test]
fn who_arrives_is_announced_by_what_nobody_has_who_is_known() {
    let maildrop = Maildrop::new();
    let long = "x".repeat(80);
    maildrop.write("cur/1.a:2,S", "one\n");
    maildrop.write("new/2.b", "two\n");
    maildrop.write(format!("new/3.{long}"), "three\n");
    let uidls = |snapshot: &Snapshot| -> Vec<Vec<u8>> {
        let uidl = |n| {
            let mut out = Vec::new();
            snapshot.write_uidl(n, &mut out);
            out
        };
        numbers(snapshot).map(uidl).collect()
    };
    let before = maildrop.open_settled();
    // Twins of two who are known, one of them in the directory that is not listed.
    maildrop.write("new/1.a", "a twin\n");
    maildrop.write(format!("new/3.{long}:2,"), "a twin\n");
    maildrop.write("new/0.z", "first\n");
    let after = maildrop.reopen(&before);
    assert_eq!(after.len(), 6);
    let (was, is) = (uidls(&before), uidls(&after));
    assert!(was.iter().all(|uidl| is.contains(uidl)));
    let distinct: HashSet<&Vec<u8>> = is.iter().collect();
    assert_eq!(distinct.len(), is.len(), "no two are the same");
    assert_eq!(names(&after)[0], "0.z");
    // As if all had been laid over each other.
    fs::remove_file(maildrop.path.join("new/0.z")).expect("it is there");
    let left = maildrop.reopen(&after);
    let kept: Vec<&Vec<u8>> = is[1..].iter().collect();
    assert_eq!(uidls(&left).iter().collect::<Vec<_>>(), kept);
}

#[test]
fn a_maildrop_restored_from_a_copy_keeps_its_unique_ids() {
    let maildrop = Maildrop::new();
    let long = format!("new/2.{}", "x".repeat(80));
    maildrop.write("new/1.a", "one\n");
    maildrop.write(&long, "two\n");
    maildrop.write("cur/1.a:2,S", "a twin\n");
    let before = maildrop.open();
    let texts = |snapshot: &Snapshot| -> Vec<(u64, Vec<u8>)> {
        let text = |n| {
            let mut out = Vec::new();
            snapshot.write_uidl(n, &mut out);
            (snapshot.stored(n).expect("in range"), out)
        };
        let mut texts: Vec<_> = numbers(snapshot).map(text).collect();
        texts.sort();
        texts
    };
    // Other inodes for all, and the twins' the other way round.
    let copies = ["cur/1.a:2,S", long.as_str(), "new/1.a"].map(|name| {
        let content = fs::read(maildrop.path.join(name)).expect("a message");
        (name.to_owned(), content)
    });
    for (name, content) in copies {
        maildrop.write(format!("{name}.copy"), &content);
        let (copy, place) = (format!("{name}.copy"), name.clone());
        fs::remove_file(maildrop.path.join(&place)).expect("a message");
        maildrop.rename(&copy, &place);
    }
    assert_eq!(texts(&maildrop.reopen(&before)), texts(&before));
}

mod races;
