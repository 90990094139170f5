//! The index against the file, reloads under readers, and files nobody wrote.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::auth::Password;
use crate::auth::directory::{Proof, User};

/// A passwd-file in a folder of its own.
struct Fixture {
    _folder: TempDir,
    path: PathBuf,
}

impl Fixture {
    fn new(text: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users");
        fs::write(&path, text).expect("a file");
        Self {
            _folder: folder,
            path,
        }
    }

    /// Replaces the file as an editor or a provisioning tool should.
    fn replace(&self, text: &str) {
        let new = self.path.with_extension("new");
        fs::write(&new, text).expect("a file");
        fs::rename(new, &self.path).expect("a rename");
    }

    fn open(&self) -> (PasswdFile, LoadReport) {
        PasswdFile::open(&self.path).expect("readable")
    }
}

fn lookup(file: &PasswdFile, name: &str) -> Option<Record> {
    let name = UserName::new(name.as_bytes()).expect("a name");
    file.lookup(&name).expect("a file answers")
}

fn user(file: &PasswdFile, name: &str) -> User {
    match lookup(file, name) {
        Some(Record::User(user)) => user,
        other => panic!("{name}: {other:?}"),
    }
}

fn accepts(proof: &Proof, password: &str) -> bool {
    let Proof::Stored(verifier) = proof else {
        panic!("{proof:?}");
    };
    verifier.verify(&Password::new(password.as_bytes()).expect("short"))
}

#[test]
fn good_lines_survive_bad_ones() {
    let fixture = Fixture::new(
        "# users\n\njoe:{PLAIN}one\ngarbage\nann:{NOSUCH}x\r\njoe:{PLAIN}two\n\
         \x01:{PLAIN}x\nbob@example.net:{PLAIN}three::::/home/bob\r\nkim:*\nlast:{PLAIN}four",
    );
    let (file, report) = fixture.open();
    assert!(accepts(&user(&file, "joe").proof, "one"));
    assert_eq!(
        user(&file, "bob@example.net").profile.home,
        Some("/home/bob".into())
    );
    assert!(accepts(&user(&file, "last").proof, "four"));
    assert!(matches!(lookup(&file, "ann"), Some(Record::Locked)));
    assert!(matches!(lookup(&file, "kim"), Some(Record::Locked)));
    for absent in ["JOE", "jo", "joe2", "garbage", "# users", "bob"] {
        assert!(lookup(&file, absent).is_none(), "{absent}");
    }
    assert_eq!((report.users, report.locked), (3, 2));
    let lines: Vec<_> = report.faults.iter().map(|fault| fault.line).collect();
    assert_eq!(lines, [4, 5, 6, 7]);
    assert_eq!(report.fault_count, 4);
    let text = report.faults[1].to_string();
    let place = format!("{}:5: user ann: ", fixture.path.display());
    assert!(
        text.starts_with(&place) && text.contains("NOSUCH"),
        "{text}"
    );
    assert!(text.contains("ARGON2ID"), "no remedy in {text}");
    assert!(report.faults[2].text.contains("earlier line"), "{report:?}");
}

#[test]
fn a_locked_first_line_is_not_opened_by_a_later_one() {
    let (file, report) = Fixture::new("joe:{NOSUCH}x\njoe:{PLAIN}y\n").open();
    assert!(matches!(lookup(&file, "joe"), Some(Record::Locked)));
    assert_eq!((report.users, report.locked, file.decoys()), (0, 1, 0));
}

#[test]
fn decoys_are_the_passwords_that_can_be_verified() {
    let (file, _) = Fixture::new("a:{PLAIN}1\nb:*\nc:{PLAIN}3\na:{PLAIN}4\nd:{PLAIN}5").open();
    let passwords: Vec<_> = (0..file.decoys())
        .map(|index| {
            let decoy = file.decoy(index).expect("below the count");
            (1..=5).find(|n| accepts(&Proof::Stored(decoy.clone()), &n.to_string()))
        })
        .collect();
    assert_eq!(passwords, [Some(1), Some(3), Some(5)]);
    assert!(file.decoy(3).is_none());
}

#[test]
fn an_empty_file_has_no_users() {
    let (file, report) = Fixture::new("").open();
    assert!(lookup(&file, "joe").is_none());
    assert_eq!((report.users, report.fault_count, file.decoys()), (0, 0, 0));
}

#[test]
fn faults_are_counted_beyond_those_told() {
    let lines = limits::PASSWD_FILE_FAULTS + 7;
    let (_, report) = Fixture::new("garbage\n".repeat(lines)).open();
    assert_eq!(report.fault_count, lines);
    assert_eq!(report.faults.len(), limits::PASSWD_FILE_FAULTS);
}

#[test]
fn a_reload_replaces_the_users() {
    let fixture = Fixture::new("joe:{PLAIN}old\nann:{PLAIN}x\n");
    let (file, _) = fixture.open();
    fixture.replace("joe:{PLAIN}new\nkim:{PLAIN}x\n");
    assert!(accepts(&user(&file, "joe").proof, "old"));
    let report = file.reload().expect("readable");
    assert_eq!(report.users, 2);
    assert!(accepts(&user(&file, "joe").proof, "new"));
    assert!(lookup(&file, "ann").is_none());
    assert!(lookup(&file, "kim").is_some());
}

#[test]
fn a_reload_that_fails_keeps_the_users() {
    let fixture = Fixture::new("joe:{PLAIN}x\n");
    let (file, _) = fixture.open();
    fs::remove_file(&fixture.path).expect("removed");
    let error = file.reload().expect_err("no file").to_string();
    assert!(
        error.contains(&fixture.path.display().to_string()),
        "{error}"
    );
    fs::create_dir(&fixture.path).expect("a folder");
    let error = file.reload().expect_err("a folder").to_string();
    assert!(error.contains("not a regular file"), "{error}");
    assert!(accepts(&user(&file, "joe").proof, "x"));
}

#[test]
fn a_file_that_is_too_large_is_refused_unread() {
    let fixture = Fixture::new("joe:{PLAIN}x\n");
    let (file, _) = fixture.open();
    let sparse = File::options()
        .write(true)
        .open(&fixture.path)
        .expect("a file");
    sparse
        .set_len(limits::PASSWD_FILE as u64 + 1)
        .expect("sparse");
    let error = file.reload().expect_err("too large");
    assert!(matches!(error, DirectoryError::TooLarge { .. }), "{error}");
    assert!(accepts(&user(&file, "joe").proof, "x"));
}

#[test]
fn lookups_during_reloads_see_one_table_or_the_other() {
    let users = |password: &str| {
        let lines = (0..500).map(|n| format!("user{n}:{{PLAIN}}{password}{n}\n"));
        lines.collect::<String>()
    };
    let fixture = Fixture::new(users("old"));
    let (file, _) = fixture.open();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for reader in 0..2 {
            let (file, done) = (&file, &done);
            scope.spawn(move || {
                let mut seen = 0;
                while !done.load(Ordering::Relaxed) || seen == 0 {
                    for n in (reader..500).step_by(7) {
                        let proof = user(file, &format!("user{n}")).proof;
                        let old = accepts(&proof, &format!("old{n}"));
                        let new = accepts(&proof, &format!("new{n}"));
                        assert!(old != new, "user{n}");
                        assert!(file.decoy(n).is_some());
                    }
                    seen += 1;
                }
            });
        }
        for round in 0..20 {
            fixture.replace(&users(if round % 2 == 0 { "new" } else { "old" }));
            assert_eq!(file.reload().expect("readable").users, 500);
        }
        done.store(true, Ordering::Relaxed);
    });
}

fn a_name() -> impl Strategy<Value = String> {
    "[a-z0-9.@_-]{1,12}"
}

proptest! {
    #[test]
    fn any_octets_load(text in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let (table, report) = Table::new(Zeroizing::new(text), Path::new("users"));
        prop_assert_eq!(table.decoys(), report.users);
        for index in 0..report.users {
            prop_assert!(table.decoy(index).is_some());
        }
    }

    #[test]
    fn any_lines_load(
        text in "((#|:|a|b|\\{PLAIN\\}|\\{X|x|\\$6\\$|!|=| |allow_nets=|nologin|/|\r)*\n){0,20}",
    ) {
        let (table, report) = Table::new(Zeroizing::new(text.into()), Path::new("users"));
        prop_assert!(report.faults.is_sorted_by_key(|fault| fault.line));
        prop_assert!(table.decoys() == report.users);
    }

    #[test]
    fn what_is_written_reads_back(
        users in proptest::collection::btree_map(
            a_name(),
            ("[ -9;-~]{1,20}", proptest::option::of("/[a-z/]{0,10}")),
            0..40,
        ),
        ending in prop_oneof![Just("\n"), Just("\r\n"), Just("\n\n# comment\n")],
    ) {
        let lines: Vec<_> = users
            .iter()
            .map(|(name, (password, home))| {
                let home = home.as_deref().unwrap_or_default();
                format!("{name}:{{PLAIN}}{password}:8:8::{home}::{ending}")
            })
            .collect();
        let text = lines.concat();
        let (table, report) = Table::new(Zeroizing::new(text.into()), Path::new("users"));
        prop_assert_eq!(report.users, users.len());
        prop_assert_eq!(report.faults, []);
        for (name, (password, home)) in &users {
            let Some(Record::User(user)) = table.lookup(name.as_bytes()) else {
                return Err(TestCaseError::fail(name.clone()));
            };
            prop_assert!(accepts(&user.proof, password));
            prop_assert_eq!(user.profile.home, home.as_ref().map(PathBuf::from));
        }
    }
}
