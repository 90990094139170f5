use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, Instant, SystemTime};

use super::super::index::Noted;
use super::super::update::Departure;
use super::*;
use crate::limits;

fn maildrop() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ann");
    for part in ["new", "cur"] {
        fs::create_dir_all(path.join(part)).expect("a folder");
    }
    fs::write(path.join("new/1.a"), "a\n").expect("a message");
    (folder, path)
}

#[test]
fn an_unknown_maildrop_takes_the_pool() {
    let (_folder, path) = maildrop();
    let maildrops = Maildrops::new(1 << 20);
    assert!(maildrops.open_unchanged(&path).expect("free").is_none());
    assert_eq!(maildrops.locks().held(), 0);
    let opened = maildrops.open(&Location::beside(&path)).expect("it opens");
    assert_eq!(opened.snapshot.len(), 1);
}

#[test]
fn users_whose_paths_meet_exclude_each_other() {
    let (folder, path) = maildrop();
    let alias = folder.path().join("alias");
    symlink(&path, &alias).expect("a link");
    let maildrops = Maildrops::new(1 << 20);
    let opened = maildrops.open(&Location::beside(&path)).expect("it opens");
    assert!(matches!(
        maildrops.open(&Location::beside(&alias)),
        Err(OpenError::InUse(_))
    ));
    assert!(maildrops.open_unchanged(&path).is_err());
    drop(opened);
    let opened = maildrops
        .open(&Location::beside(&alias))
        .expect("free by now");
    assert_eq!(opened.snapshot.len(), 1);
}

#[test]
fn a_scan_knows_what_the_one_before_read() {
    let (_folder, path) = maildrop();
    let maildrops = Maildrops::new(1 << 20);
    drop(maildrops.open(&Location::beside(&path)).expect("it opens"));
    fs::write(path.join("new/2.b"), "b\n").expect("a message");
    // Rewritten in place: were it read again, the octets would differ.
    fs::write(path.join("new/1.a"), "a longer message\n").expect("a message");
    let opened = maildrops.open(&Location::beside(&path)).expect("it opens");
    let octets = |n| {
        let number = MessageNumber::new(n).expect("not 0");
        opened
            .snapshot
            .octets(number)
            .map(crate::proto::Octets::get)
    };
    assert_eq!([octets(1), octets(2), octets(3)], [Some(3), Some(3), None]);
}

const INDEX: &str = "popcore.index";

/// Opens as a process that was just started, with the index alone to go by.
fn reopened(path: &Path) -> (Maildrops, Arc<Snapshot>) {
    let maildrops = Maildrops::new(1 << 20);
    let opened = maildrops.open(&Location::beside(path)).expect("it opens");
    (maildrops, opened.snapshot)
}

/// The same, until the index can vouch for the directories.
fn settled(path: &Path) -> Arc<Snapshot> {
    let end = Instant::now() + Duration::from_mins(1);
    loop {
        let (_, snapshot) = reopened(path);
        if matches!(snapshot.standing(), Standing::Settled { .. }) {
            return snapshot;
        }
        assert!(Instant::now() < end, "the directories stay young");
    }
}

fn octets(snapshot: &Snapshot) -> Vec<u64> {
    snapshot.messages().map(|m| m.facts.octets).collect()
}

#[test]
fn a_restart_reads_no_message_that_the_index_knows() {
    let (_folder, path) = maildrop();
    reopened(&path);
    fs::write(path.join("new/1.a"), "a longer message\n").expect("a message");
    fs::write(path.join("new/2.b"), "b\n").expect("a message");
    assert_eq!(octets(&reopened(&path).1), [3, 3]);
}

#[test]
fn an_unchanged_maildrop_is_neither_listed_nor_written() {
    let (_folder, path) = maildrop();
    settled(&path);
    let before = fs::metadata(path.join(INDEX)).expect("an index");
    // Nobody may see this change: the directory's times are those of before.
    let (maildrops, snapshot) = reopened(&path);
    assert!(matches!(snapshot.standing(), Standing::Settled { .. }));
    let again = maildrops
        .open_unchanged(&path)
        .expect("free")
        .expect("unchanged");
    assert!(Arc::ptr_eq(&again.snapshot, &snapshot));
    let after = fs::metadata(path.join(INDEX)).expect("an index");
    assert_eq!((before.ino(), before.len()), (after.ino(), after.len()));
    assert_eq!(before.mtime_nsec(), after.mtime_nsec());
}

#[test]
fn an_index_grows_with_what_is_new_and_is_made_anew_in_time() {
    let (_folder, path) = maildrop();
    let maildrops = Maildrops::new(1 << 20);
    let at = Location::beside(&path);
    let (mut longest, mut files) = (0, std::collections::HashSet::new());
    for round in 0..400 {
        let name = path.join(format!("new/{}.x", 100 + round));
        fs::write(&name, "x\n").expect("a message");
        assert_eq!(maildrops.open(&at).expect("it opens").snapshot.len(), 2);
        fs::remove_file(&name).expect("a message");
        assert_eq!(maildrops.open(&at).expect("it opens").snapshot.len(), 1);
        let index = fs::metadata(path.join(INDEX)).expect("an index");
        longest = longest.max(index.len());
        files.insert(index.ino());
    }
    assert!(longest < 17 << 10, "{longest} octets for one message");
    assert_eq!(octets(&reopened(&path).1), [3]);
    assert_eq!(maildrops.counters().damaged(), 0);
}

#[test]
fn another_process_that_wrote_is_heeded() {
    let (_folder, path) = maildrop();
    let (ours, theirs) = (Maildrops::new(1 << 20), Maildrops::new(1 << 20));
    let at = Location::beside(&path);
    drop(ours.open(&at).expect("it opens"));
    fs::write(path.join("new/2.b"), "b\n").expect("a message");
    drop(theirs.open(&at).expect("it opens"));
    // Rewritten in place: what is in the index is believed.
    fs::write(path.join("new/2.b"), "longer\n").expect("a message");
    fs::write(path.join("new/3.c"), "c\n").expect("a message");
    let opened = ours.open(&at).expect("it opens");
    assert_eq!(octets(&opened.snapshot), [3, 3, 3]);
    drop(opened);
    assert_eq!(
        octets(&theirs.open(&at).expect("it opens").snapshot),
        [3, 3, 3]
    );
    let counted = [&ours, &theirs].map(|side| side.counters().damaged());
    assert_eq!(counted, [0, 0]);
}

/// Each damage keeps every unique-id that can be read, those too that follow from no name
/// and from no list that is still there.
#[test]
fn a_damaged_index_is_mended_once_and_keeps_what_can_be_read() {
    let (_folder, path) = migrated();
    let at = Location::beside(&path);
    let before = announced(&dovecot_first().open(&at).expect("it opens").snapshot);
    fs::remove_file(path.join("dovecot-uidlist")).expect("a list");
    fs::remove_file(path.join("popcore.cutoff")).expect("a cutoff");
    let good = fs::read(path.join(INDEX)).expect("an index");
    let mut flipped = good.clone();
    // In the name of the first message.
    let at_name = memchr::memmem::find(&good, b"5.a").expect("a name");
    flipped[at_name] ^= 4;
    let mut version = good.clone();
    version[12] = 9;
    let checksum = crc32fast::hash(&version[..16]).to_le_bytes();
    version[16..20].copy_from_slice(&checksum);
    let mut head = good.clone();
    head[3] ^= 1;
    let names = ["3.b", "4.c", "5.a"];
    let forms: [(&[u8], &[&str]); 6] = [
        (&[], &names),
        (b"a foreign file", &names),
        // The state alone is torn off.
        (
            &good[..good.len() - 7],
            &["000000015f5e1000", "UID7-1500000000", "000000035f5e1000"],
        ),
        (&flipped, &["UID7-1500000000", "000000035f5e1000", "5.a"]),
        (
            &version,
            &["000000015f5e1000", "UID7-1500000000", "000000035f5e1000"],
        ),
        (
            &head,
            &["000000015f5e1000", "UID7-1500000000", "000000035f5e1000"],
        ),
    ];
    assert_eq!(before, forms[2].1);
    for (octets, expected) in forms {
        fs::write(path.join(INDEX), octets).expect("an index");
        let (maildrops, snapshot) = reopened(&path);
        assert_eq!(announced(&snapshot), expected);
        assert_eq!(maildrops.counters().damaged(), 1);
        let aside = fs::read(path.join("popcore.index.damaged"));
        assert_eq!(aside.expect("it is kept"), octets);
        let (maildrops, snapshot) = reopened(&path);
        assert_eq!(announced(&snapshot), expected);
        assert_eq!(maildrops.counters().damaged(), 0);
    }
}

#[test]
fn an_index_that_only_a_later_popcore_can_read_refuses_the_login() {
    let (_folder, path) = maildrop();
    let mut later = b"popcore.idx\n\x09\0\0\0".to_vec();
    later.extend_from_slice(&crc32fast::hash(&later).to_le_bytes());
    later.extend_from_slice(b"in another form");
    fs::write(path.join(INDEX), &later).expect("an index");
    let maildrops = Maildrops::new(1 << 20);
    let at = Location::beside(&path);
    let Err(OpenError::Temporary(fault)) = maildrops.open(&at) else {
        panic!("what it knows would be lost");
    };
    assert!(
        fault.to_string().contains("index rebuild --config"),
        "{fault}"
    );
    assert_eq!(fs::read(path.join(INDEX)).expect("an index"), later);
    maildrops.rebuild(&at).expect("the operator gives it up");
    assert_eq!(
        announced(&maildrops.open(&at).expect("it opens").snapshot),
        ["1.a"]
    );
}

#[test]
fn an_index_of_any_length_takes_no_more_than_what_was_written() {
    let (_folder, path) = maildrop();
    let before = octets(&settled(&path));
    let index = path.join("popcore.index");
    let written = fs::metadata(&index).expect("an index").len();
    let file = fs::OpenOptions::new().write(true).open(&index);
    file.expect("an index").set_len(1 << 42).expect("sparse");
    let (maildrops, snapshot) = reopened(&path);
    assert_eq!(octets(&snapshot), before);
    assert_eq!(maildrops.counters().damaged(), 1);
    assert!(fs::metadata(&index).expect("an index").len() < written + 1000);
}

#[test]
fn an_index_that_was_taken_away_is_written_again() {
    let (_folder, path) = maildrop();
    let maildrops = Maildrops::new(1 << 20);
    let at = Location::beside(&path);
    drop(maildrops.open(&at).expect("it opens"));
    fs::remove_file(path.join(INDEX)).expect("an index");
    fs::write(path.join("new/2.b"), "b\n").expect("a message");
    drop(maildrops.open(&at).expect("it opens"));
    assert!(path.join(INDEX).exists());
    assert_eq!(reopened(&path).1.len(), 2);
}

#[test]
fn what_is_no_file_in_the_place_of_the_index_refuses_the_login() {
    let (folder, path) = maildrop();
    let index = path.join(INDEX);
    let other = folder.path().join("other");
    fs::write(&other, "not mail").expect("a file");
    symlink(&other, &index).expect("a link");
    let maildrops = Maildrops::new(1 << 20);
    let refused = maildrops.open(&Location::beside(&path));
    assert!(
        matches!(refused, Err(OpenError::Permanent(_))),
        "{refused:?}"
    );
    fs::remove_file(&index).expect("a link");
    fs::create_dir(&index).expect("a folder");
    let refused = maildrops.open(&Location::beside(&path));
    assert!(
        matches!(refused, Err(OpenError::Permanent(_))),
        "{refused:?}"
    );
    assert_eq!(fs::read(other).expect("a file"), b"not mail");
}

#[test]
fn an_index_may_be_elsewhere_and_its_folders_are_made() {
    let (folder, path) = maildrop();
    let fast = folder.path().join("fast");
    let at = Location {
        index: Some(Elsewhere {
            path: fast.join("disk/ann"),
            top: fast.as_path().into(),
        }),
        ..Location::beside(&path)
    };
    let maildrops = Maildrops::new(1 << 20);
    // A disk that is not mounted: what it knows would be announced by other unique-ids.
    let Err(OpenError::Temporary(fault)) = maildrops.open(&at) else {
        panic!("the folder is the operator's to make");
    };
    assert!(fault.to_string().contains("maildrop.index"), "{fault}");
    assert!(!fast.exists());
    fs::create_dir(&fast).expect("a folder");
    drop(maildrops.open(&at).expect("it opens"));
    assert!(folder.path().join("fast/disk/ann").is_file());
    assert!(!path.join(INDEX).exists());
    fs::write(path.join("new/1.a"), "longer\n").expect("a message");
    let opened = Maildrops::new(1 << 20).open(&at).expect("it opens");
    assert_eq!(octets(&opened.snapshot), [3]);
}

#[test]
fn a_maildrop_is_not_taken_for_empty_where_its_disk_is_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let top = folder.path().join("disk");
    fs::create_dir(&top).expect("a folder");
    let at = |user| Location {
        top: Some(top.as_path().into()),
        ..Location::beside(top.join(user))
    };
    let maildrops = Maildrops::new(1 << 20);
    maildrops.share_locks(&top).expect("a folder for locks");
    let opened = maildrops.open(&at("ann")).expect("no mail yet");
    assert!(opened.snapshot.is_empty());
    // Nothing is there, and then what the disk was mounted on.
    fs::remove_dir_all(&top).expect("own folder");
    for _ in 0..2 {
        let Err(OpenError::Temporary(fault)) = maildrops.open(&at("bob")) else {
            panic!("the disk is away");
        };
        assert!(fault.to_string().contains("maildrop.path"), "{fault}");
        fs::create_dir_all(&top).expect("own folder");
    }
}

/// Fault "a stale listing": a session that ends between another one's look at the cache
/// and its hold on the locks.
#[test]
fn what_was_seen_last_is_not_what_a_session_has_removed_since() {
    let (_folder, path) = maildrop();
    let maildrops = Maildrops::new(1 << 20);
    let at = Location::beside(&path);
    let end = Instant::now() + Duration::from_mins(1);
    let seen = loop {
        let seen = maildrops.open(&at).expect("it opens").snapshot;
        if matches!(seen.standing(), Standing::Settled { .. }) {
            break seen;
        }
        assert!(Instant::now() < end, "the directories stay young");
    };
    let held = maildrops.hold_known(Arc::clone(&seen)).expect("free");
    assert!(maildrops.is_seen_last(&held.expect("known")));
    assert!(maildrops.open_as_seen_last(&path).expect("free").is_some());
    assert_eq!(fetch_and_delete(&maildrops, &at), ["1.a"]);
    let held = maildrops.hold_known(seen).expect("free").expect("known");
    assert!(!maildrops.is_seen_last(&held), "1.a is no more");
}

#[test]
fn an_empty_maildrop_leaves_no_file() {
    let (_folder, path) = maildrop();
    fs::remove_file(path.join("new/1.a")).expect("a message");
    reopened(&path);
    assert!(!path.join(INDEX).exists());
}

#[test]
fn a_wrong_size_in_a_name_is_corrected_for_the_next_session() {
    let (_folder, path) = maildrop();
    fs::remove_file(path.join("new/1.a")).expect("a message");
    fs::write(path.join("new/1.a,S=2,W=3"), "a\n").expect("a message");
    fs::write(path.join("new/2.b,S=2,W=9"), "b\n").expect("a message");
    let maildrops = Maildrops::new(1 << 20);
    let at = Location::beside(&path);
    let opened = maildrops.open(&at).expect("it opens");
    assert_eq!(octets(&opened.snapshot), [3, 9]);
    let second = MessageNumber::new(2).expect("not 0");
    maildrops.recount(&opened.snapshot, second);
    assert_eq!(octets(&opened.snapshot), [3, 9]);
    drop(opened);
    assert_eq!(
        octets(&maildrops.open(&at).expect("it opens").snapshot),
        [3, 3]
    );
    fs::write(path.join("new/3.c,S=2,W=9"), "c\n").expect("a message");
    // Names of this maildrop are not believed any more.
    assert_eq!(octets(&reopened(&path).1), [3, 3, 3]);
    assert_eq!(maildrops.counters().damaged(), 0);
}

/// Messages that an earlier Dovecot knew, with its list.
fn migrated() -> (tempfile::TempDir, PathBuf) {
    let (folder, path) = maildrop();
    fs::remove_file(path.join("new/1.a")).expect("a message");
    for (name, text) in [
        ("cur/5.a:2,S", "one\n"),
        ("cur/3.b:2,", "three\n"),
        ("new/4.c", "22\n"),
    ] {
        fs::write(path.join(name), text).expect("a message");
        // As old as mail that an earlier server had; clocks tick slowly.
        let file = fs::File::options()
            .write(true)
            .open(path.join(name))
            .expect("a message");
        let old = SystemTime::now() - Duration::from_hours(1);
        file.set_modified(old).expect("a time");
    }
    let list = "3 V1600000000 N9 G00\n1 :5.a\n2 PUID7-1500000000 :3.b\n3 :4.c\n";
    fs::write(path.join("dovecot-uidlist"), list).expect("a list");
    (folder, path)
}

fn dovecot_first() -> Maildrops {
    let sources = Sources::parse(["dovecot", "name"]).expect("sources");
    Maildrops::new(1 << 20).with_sources(sources)
}

fn announced(snapshot: &Snapshot) -> Vec<String> {
    let text = |message: Message<'_>| {
        let mut text = Vec::new();
        message.uidl.write(message.unique(), &mut text);
        String::from_utf8(text).expect("ASCII")
    };
    snapshot.messages().map(text).collect()
}

#[test]
fn what_an_earlier_server_announced_stays_when_its_list_goes() {
    let (_folder, path) = migrated();
    let at = Location::beside(&path);
    let before = announced(&dovecot_first().open(&at).expect("it opens").snapshot);
    let expected = ["000000015f5e1000", "UID7-1500000000", "000000035f5e1000"];
    assert_eq!(before, expected, "in its order");
    fs::remove_file(path.join("dovecot-uidlist")).expect("a list");
    fs::write(path.join("new/1.new"), "new\n").expect("a message");
    fs::rename(path.join("new/4.c"), path.join("cur/4.c:2,S")).expect("a message");
    let with_new: Vec<&str> = expected.into_iter().chain(["1.new"]).collect();
    for _ in 0..3 {
        let opened = dovecot_first().open(&at).expect("it opens");
        assert_eq!(announced(&opened.snapshot), with_new);
    }
    // Other sources do not matter to what is known.
    let opened = Maildrops::new(1 << 20).open(&at).expect("it opens");
    assert_eq!(announced(&opened.snapshot), with_new);
}

#[test]
fn a_list_that_cannot_be_understood_refuses_the_login() {
    let (_folder, path) = migrated();
    fs::write(path.join("dovecot-uidlist"), "3 V1 N2\nnonsense\n").expect("a list");
    let at = Location::beside(&path);
    let Err(OpenError::Permanent(fault)) = dovecot_first().open(&at) else {
        panic!("it is no list");
    };
    assert!(fault.to_string().contains("dovecot-uidlist:2: "), "{fault}");
    assert!(!path.join(INDEX).exists());
    // Who does not ask it is not refused.
    assert!(Maildrops::new(1 << 20).open(&at).is_ok());
    // What is known needs no list.
    assert!(dovecot_first().open(&at).is_ok());
}

#[test]
fn other_names_for_most_messages_are_refused_until_they_are_accepted() {
    let (_folder, path) = migrated();
    let at = Location::beside(&path);
    let maildrops = dovecot_first();
    let before = announced(&maildrops.open(&at).expect("it opens").snapshot);
    for (old, other) in [("cur/5.a:2,S", "cur/8.x:2,S"), ("cur/3.b:2,", "cur/9.y:2,")] {
        fs::rename(path.join(old), path.join(other)).expect("a message");
    }
    let index = fs::read(path.join(INDEX)).expect("an index");
    for _ in 0..2 {
        let Err(OpenError::Temporary(fault)) = maildrops.open(&at) else {
            panic!("most would be fetched again");
        };
        assert!(fault.to_string().contains("2 of 3 messages"), "{fault}");
    }
    assert_eq!(maildrops.counters().guarded(), 2);
    assert_eq!(fs::read(path.join(INDEX)).expect("an index"), index);
    fs::rename(path.join("cur/8.x:2,S"), path.join("cur/5.a:2,S")).expect("a message");
    fs::rename(path.join("cur/9.y:2,"), path.join("cur/3.b:2,")).expect("a message");
    assert_eq!(
        announced(&maildrops.open(&at).expect("as before").snapshot),
        before
    );

    for (old, other) in [("cur/5.a:2,S", "cur/8.x:2,S"), ("cur/3.b:2,", "cur/9.y:2,")] {
        fs::rename(path.join(old), path.join(other)).expect("a message");
    }
    fs::write(path.join("popcore.index.accept"), "").expect("a file");
    let after = announced(&maildrops.open(&at).expect("accepted").snapshot);
    assert_eq!(after, ["000000035f5e1000", "8.x", "9.y"]);
    assert!(
        !path.join("popcore.index.accept").exists(),
        "it stands for one change"
    );
}

#[test]
fn ordinary_mail_of_the_same_size_is_no_mass_change() {
    let (_folder, path) = maildrop();
    let maildrops = Maildrops::new(1 << 20);
    let at = Location::beside(&path);
    for round in 0..20 {
        for n in 0..5 {
            let text = format!("as long as others {round:02}{n}\n");
            fs::write(path.join(format!("new/{round}.{n}")), text).expect("a message");
        }
        let opened = maildrops.open(&at).expect("it opens");
        let numbers = (1..)
            .map_while(MessageNumber::new)
            .take(opened.snapshot.len());
        let report = super::super::remove(&opened.snapshot, numbers);
        assert_eq!(report.failed, None);
    }
    assert_eq!(maildrops.counters().guarded(), 0);
}

fn numbers(snapshot: &Snapshot) -> impl Iterator<Item = MessageNumber> + use<> {
    (1..).map_while(MessageNumber::new).take(snapshot.len())
}

/// Logs in, deletes everything, and tells how it was announced.
fn fetch_and_delete(maildrops: &Maildrops, at: &Location) -> Vec<String> {
    let opened = maildrops.open(at).expect("it opens");
    let told = announced(&opened.snapshot);
    let marked: Vec<MessageNumber> = numbers(&opened.snapshot).collect();
    let departure = Departure::Quit(&marked);
    let fetched = std::collections::BTreeSet::new();
    let report = maildrops.update(&opened.snapshot, &fetched, departure, SystemTime::now());
    assert_eq!(report.failed, None);
    told
}

/// Fault "reused UIDs" (cyrus-imapd #374): a client takes a message that is
/// announced like one it has for that one, and never fetches it.
#[test]
fn reused_uids_another_text_under_the_name_of_a_message_that_went() {
    let (_folder, path) = maildrop();
    let (at, name) = (Location::beside(&path), path.join("new/1.a"));
    let maildrops = Maildrops::new(1 << 20);
    let mut told = fetch_and_delete(&maildrops, &at);
    assert_eq!(told, ["1.a"]);
    // As long as the first, so that only what they say tells them apart.
    for text in ["b\n", "c\n", "d\n"] {
        fs::write(&name, text).expect("a message");
        let now = if text == "c\n" {
            // As well after a restart, and whoever removes it.
            let now = announced(&reopened(&path).1);
            fs::remove_file(&name).expect("a message");
            assert!(announced(&reopened(&path).1).is_empty());
            now
        } else {
            fetch_and_delete(&maildrops, &at)
        };
        assert!(now.iter().all(|uidl| !told.contains(uidl)), "{now:?}");
        told.extend(now);
    }
    // Each is announced as it was when it comes back from a backup.
    for (text, uidl) in ["a\n", "b\n", "c\n", "d\n"].into_iter().zip(&told) {
        fs::write(&name, text).expect("a message");
        assert_eq!(fetch_and_delete(&maildrops, &at), [uidl.as_str()]);
    }
    assert_eq!(maildrops.counters().damaged(), 0);
}

/// The same with the file's inode, which file systems hand out again.
#[test]
fn reused_uids_another_text_under_name_and_inode_of_a_message_that_went() {
    let (folder, path) = maildrop();
    let at = Location::beside(&path);
    let (name, other) = (path.join("new/1.a"), folder.path().join("other"));
    fs::hard_link(&name, &other).expect("a link");
    let maildrops = Maildrops::new(1 << 20);
    assert_eq!(fetch_and_delete(&maildrops, &at), ["1.a"]);
    fs::write(&other, "longer\n").expect("a message");
    fs::rename(&other, &name).expect("a message");
    let opened = maildrops.open(&at).expect("it opens");
    assert_eq!(octets(&opened.snapshot), [8]);
    assert_ne!(announced(&opened.snapshot), ["1.a"]);
}

#[test]
fn reused_uids_within_one_pause_between_sessions() {
    let (_folder, path) = maildrop();
    let (maildrops, before) = reopened(&path);
    fs::write(path.join("new/2.b"), "b\n").expect("a message");
    for (name, text) in [("new/1.a", "x\n"), ("new/2.b", "y\n")] {
        let made = path.join("made");
        fs::write(&made, text).expect("a message");
        fs::rename(&made, path.join(name)).expect("a message");
    }
    let opened = maildrops.open(&Location::beside(&path)).expect("no mass");
    let after = announced(&opened.snapshot);
    drop(opened);
    assert_eq!(after[1], "2.b", "nobody was told of another one");
    assert!(!announced(&before).contains(&after[0]), "{after:?}");
    assert_eq!(announced(&reopened(&path).1), after);
}

/// A program whose clock is ahead, or that gives all files the same names, and a message
/// that another program removed.
#[test]
fn reused_uids_a_name_from_the_time_to_come() {
    let (_folder, path) = maildrop();
    let (at, name) = (Location::beside(&path), path.join("new/9999999999.b"));
    let maildrops = Maildrops::new(1 << 20);
    fs::write(&name, "b\n").expect("a message");
    let told = announced(&maildrops.open(&at).expect("it opens").snapshot);
    assert_eq!(told[1], "9999999999.b");
    fs::remove_file(&name).expect("a message");
    assert_eq!(maildrops.open(&at).expect("it opens").snapshot.len(), 1);
    fs::write(&name, "c\n").expect("a message");
    let now = announced(&maildrops.open(&at).expect("it opens").snapshot);
    assert!(!told.contains(&now[1]), "{now:?}");
}

/// Fault "UIDL without uidvalidity" (James): numbers that begin anew stand for
/// other messages.
#[test]
fn uidl_without_uidvalidity_numbers_of_another_incarnation_are_not_taken() {
    let (_folder, path) = maildrop();
    let at = Location::beside(&path);
    let sources = || Sources::parse(["dovecot:%u"]).expect("sources");
    let list = |validity: u32, name: &str| {
        let list = format!("3 V{validity} N2\n1 :{name}\n");
        fs::write(path.join("dovecot-uidlist"), list).expect("a list");
    };
    list(7, "1.a");
    let maildrops = Maildrops::new(1 << 20).with_sources(sources());
    assert_eq!(fetch_and_delete(&maildrops, &at), ["1"]);
    list(8, "9999999999.b");
    fs::write(path.join("new/9999999999.b"), "b\n").expect("a message");
    let opened = maildrops.open(&at).expect("it opens");
    assert_eq!(announced(&opened.snapshot), ["9999999999.b"]);
}

#[test]
fn as_many_are_remembered_as_limits_say_and_an_index_does_not_outgrow_them() {
    let (_folder, path) = maildrop();
    let at = Location::beside(&path);
    let maildrops = Maildrops::new(1 << 20);
    let most = limits::GONE_MESSAGES;
    for round in 0..6 {
        for n in 0..most {
            fs::write(path.join(format!("new/{round}.{n:03}")), "x\n").expect("a message");
        }
        fetch_and_delete(&maildrops, &at);
    }
    drop(maildrops.open(&at).expect("it opens"));
    let index = fs::read(path.join(INDEX)).expect("an index");
    assert!(index.len() < 24 << 10, "{} octets", index.len());
    let contents = Contents::read(&index);
    assert_eq!(contents.damage(), None);
    assert!((most..4 * most).contains(&contents.gone().len()));
    let last = contents.gone().last().expect("many");
    assert_eq!(last.unique(), format!("5.{:03}", most - 1).as_bytes());
}

#[test]
fn a_server_that_ends_before_it_removes_what_it_noted_has_removed_nothing() {
    let (_folder, path) = migrated();
    let at = Location::beside(&path);
    let opened = dovecot_first().open(&at).expect("it opens");
    let before = announced(&opened.snapshot);
    let all: Vec<Message<'_>> = opened.snapshot.messages().collect();
    let position = indexed(&opened.snapshot).expect("there is one");
    let index = Index::beside(&path);
    let noted = Noted {
        retrieved: Vec::new(),
        gone: all[..2].to_vec(),
        due: None,
    };
    let written = index.note(position, &opened.snapshot, &noted);
    written.expect("it can be written");
    drop(opened);
    fs::remove_file(path.join("dovecot-uidlist")).expect("a list");
    let (maildrops, after) = reopened(&path);
    assert_eq!(announced(&after), before, "in the same order");
    assert_eq!(maildrops.counters().damaged(), 0);
}

mod cutoffs;
mod guarded;
