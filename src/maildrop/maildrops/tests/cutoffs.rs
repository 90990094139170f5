//! Unique-ids beside an earlier server that goes on numbering, without the index.

use std::collections::HashMap;
use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

const CUTOFF: &str = "popcore.cutoff";
const FORM: [&str; 3] = ["000000015f5e1000", "UID7-1500000000", "000000035f5e1000"];

fn list(path: &Path, validity: u32, rows: &[&str]) {
    let next = rows.len() + 1;
    let mut list = format!("3 V{validity} N{next} G00\n");
    for (uid, row) in (1..).zip(rows) {
        writeln!(list, "{uid} {row}").expect("a String");
    }
    fs::write(path.join("dovecot-uidlist"), list).expect("a list");
}

/// The rows of [`migrated`].
const ROWS: [&str; 3] = [":5.a", "PUID7-1500000000 :3.b", ":4.c"];

fn deliver(path: &Path, name: &str) {
    fs::write(path.join("new").join(name), format!("{name}\n")).expect("a message");
}

fn forget(path: &Path) {
    fs::remove_file(path.join(INDEX)).expect("an index");
}

fn told(path: &Path) -> Vec<String> {
    let at = Location::beside(path);
    announced(&dovecot_first().open(&at).expect("it opens").snapshot)
}

fn refusal(path: &Path) -> String {
    refusal_of(&dovecot_first(), path)
}

fn refusal_of(maildrops: &Maildrops, path: &Path) -> String {
    match maildrops.open(&Location::beside(path)) {
        Err(OpenError::Temporary(fault)) => fault.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_numbered_after_popcore_announced_it_keeps_its_name_without_the_index() {
    let (_folder, path) = migrated();
    assert_eq!(told(&path), FORM);
    deliver(&path, "6.new");
    let with_new = [&FORM[..], &["6.new"]].concat();
    assert_eq!(told(&path), with_new);
    // Dovecot goes on, and numbers it and another one that popcore has not seen.
    deliver(&path, "7.newer");
    let rows = [&ROWS[..], &[":6.new", ":7.newer"]].concat();
    list(&path, 1_600_000_000, &rows);
    let all = [&with_new[..], &["7.newer"]].concat();
    for _ in 0..2 {
        assert_eq!(told(&path), all);
        forget(&path);
    }
    // Another node, with an index of its own.
    let at = Location {
        index: Some(Elsewhere {
            path: path.join("tmp-index"),
            top: path.as_path().into(),
        }),
        ..Location::beside(&path)
    };
    assert_eq!(
        announced(&dovecot_first().open(&at).expect("it opens").snapshot),
        all
    );
}

#[test]
fn while_the_list_knows_all_both_servers_may_be_in_service() {
    let (_folder, path) = migrated();
    assert_eq!(told(&path), FORM);
    // Delivered and numbered between two sessions: the other server announced it.
    deliver(&path, "6.new");
    list(&path, 1_600_000_000, &[&ROWS[..], &[":6.new"]].concat());
    let all = [&FORM[..], &["000000045f5e1000"]].concat();
    for _ in 0..2 {
        assert_eq!(told(&path), all);
        forget(&path);
    }
}

#[test]
fn a_list_that_is_begun_after_popcore_is_not_believed() {
    let now = seconds(SystemTime::now());
    // Dovecot's clock is right, or that of another time zone.
    for begun in [now + 1, now - 14 * 3600] {
        let (_folder, path) = maildrop();
        assert_eq!(told(&path), ["1.a"]);
        forget(&path);
        let begun = u32::try_from(begun).expect("before 2106");
        list(&path, begun, &[":1.a", ":2.b"]);
        deliver(&path, "2.b");
        for _ in 0..2 {
            assert_eq!(told(&path), ["1.a", "2.b"]);
            forget(&path);
        }
    }
}

#[test]
fn mail_that_comes_behind_what_was_delivered_already_brings_its_list() {
    let (_folder, path) = maildrop();
    assert_eq!(told(&path), ["1.a"]);
    deliver(&path, "0.old");
    list(&path, 1_600_000_000, &[":0.old"]);
    for _ in 0..2 {
        assert_eq!(told(&path), ["000000015f5e1000", "1.a"]);
        forget(&path);
        // Dovecot goes on.
        list(&path, 1_600_000_000, &[":0.old", ":1.a"]);
    }
}

#[test]
fn an_index_without_a_cutoff_keeps_what_it_announced() {
    let (_folder, path) = migrated();
    assert_eq!(told(&path), FORM);
    deliver(&path, "6.new");
    let with_new = [&FORM[..], &["6.new"]].concat();
    assert_eq!(told(&path), with_new);
    list(&path, 1_600_000_000, &[&ROWS[..], &[":6.new"]].concat());
    // As a popcore left it that kept no cutoffs.
    fs::remove_file(path.join(CUTOFF)).expect("a cutoff");
    deliver(&path, "7.newer");
    let all = [&with_new[..], &["7.newer"]].concat();
    for _ in 0..2 {
        assert_eq!(told(&path), all);
        forget(&path);
    }
}

#[test]
fn the_same_beside_courier() {
    let (_folder, path) = maildrop();
    let courier = || {
        let sources = Sources::parse(["courier", "name"]).expect("sources");
        let maildrops = Maildrops::new(1 << 20).with_sources(sources);
        let opened = maildrops.open(&Location::beside(&path)).expect("it opens");
        announced(&opened.snapshot)
    };
    let list = |next: u32, rows: &str| {
        let list = format!("/3 {next} 1600000000\n{rows}");
        fs::write(path.join("courierpop3dsizelist"), list).expect("a list");
    };
    list(2, "1.a 3 1:1600000000:0\n");
    assert_eq!(courier(), ["UID1-1600000000"]);
    deliver(&path, "2.b");
    assert_eq!(courier(), ["UID1-1600000000", "2.b"]);
    list(3, "1.a 3 1:1600000000:0\n2.b 5 2:1600000000:0\n");
    forget(&path);
    assert_eq!(courier(), ["UID1-1600000000", "2.b"]);
}

#[test]
fn without_index_and_list_a_login_is_refused_until_that_is_accepted() {
    let (_folder, path) = migrated();
    assert_eq!(told(&path), FORM);
    forget(&path);
    let good = fs::read(path.join("dovecot-uidlist")).expect("a list");
    fs::remove_file(path.join("dovecot-uidlist")).expect("a list");
    let refused = refusal(&path);
    assert!(
        refused.contains("dovecot-uidlist of validity 1600000000") && refused.contains("3 of 3"),
        "{refused}"
    );
    assert!(!path.join(INDEX).exists());
    // Made anew by Dovecot, with other numbers.
    list(&path, 1_700_000_000, &ROWS);
    assert!(refusal(&path).contains("of validity 1600000000"));
    // Other sources than before.
    let refused = Maildrops::new(1 << 20).open(&Location::beside(&path));
    assert!(
        matches!(&refused, Err(OpenError::Temporary(fault))
        if fault.to_string().contains("maildrop.uidl")),
        "{refused:?}"
    );
    fs::write(path.join("dovecot-uidlist"), good).expect("a list");
    assert_eq!(told(&path), FORM);

    forget(&path);
    list(&path, 1_700_000_000, &ROWS);
    fs::write(path.join("popcore.index.accept"), "").expect("a file");
    let anew = told(&path);
    assert!(
        FORM.iter().zip(&anew).any(|(before, now)| before != now),
        "{anew:?}"
    );
    for _ in 0..2 {
        assert_eq!(told(&path), anew, "accepted once, it is as any other");
        forget(&path);
    }
}

#[test]
fn an_index_that_is_there_and_knows_nothing_is_no_lost_one() {
    let (_folder, path) = migrated();
    let at = Location::beside(&path);
    fetch_and_delete(&dovecot_first(), &at);
    assert!(told(&path).is_empty());
    fs::remove_file(path.join("dovecot-uidlist")).expect("a list");
    for name in ["x", "y", "z"] {
        deliver(&path, name);
    }
    assert_eq!(told(&path), ["x", "y", "z"]);
}

/// The cutoff is of that day still, and might count for them if the list had named them.
#[test]
fn mail_of_the_day_on_which_a_list_goes_is_new_mail() {
    let (_folder, path) = migrated();
    let at = Location::beside(&path);
    fetch_and_delete(&dovecot_first(), &at);
    assert!(told(&path).is_empty());
    let later = seconds(SystemTime::now()) + 3600;
    let names = [1, 2].map(|number| format!("{later}.M{number}P1.mx"));
    for name in &names {
        deliver(&path, name);
    }
    fs::remove_file(path.join("dovecot-uidlist")).expect("a list");
    assert_eq!(told(&path), names);
}

#[test]
fn a_cutoff_that_cannot_be_written_keeps_nobody_out() {
    let (_folder, path) = migrated();
    fs::create_dir_all(path.join("popcore.cutoff.new/in the way")).expect("a folder");
    assert_eq!(told(&path), FORM);
    assert!(!path.join(CUTOFF).exists());
}

#[test]
fn a_damaged_cutoff_is_made_anew_from_the_index() {
    let (_folder, path) = migrated();
    assert_eq!(told(&path), FORM);
    deliver(&path, "6.new");
    let with_new = [&FORM[..], &["6.new"]].concat();
    assert_eq!(told(&path), with_new);
    list(&path, 1_600_000_000, &[&ROWS[..], &[":6.new"]].concat());
    fs::write(path.join(CUTOFF), "popcore cut").expect("written");
    deliver(&path, "7.newer");
    told(&path);
    forget(&path);
    assert_eq!(told(&path), [&with_new[..], &["7.newer"]].concat());
}

fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

/// A name that a message had which was delivered so long ago.
fn named(ago: Duration) -> String {
    format!("{}.M1P1.mx", seconds(SystemTime::now() - ago))
}

/// Has the maildrop keep a cutoff of so long ago.
fn backdate(path: &Path, ago: Duration) {
    date(path, seconds(SystemTime::now() - ago));
}

/// Has the maildrop keep a cutoff of that second.
fn date(path: &Path, since: u64) {
    let said = fs::read_to_string(path.join(CUTOFF)).expect("a cutoff");
    let (said, _) = said.rsplit_once("crc ").expect("a checksum");
    let mut text = String::new();
    for line in said.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        match *fields {
            [list, validity, number, _] => {
                writeln!(text, "{list} {validity} {number} {since}").expect("a String");
            }
            _ => writeln!(text, "{line}").expect("a String"),
        }
    }
    let checksum = crc32fast::hash(text.as_bytes());
    fs::write(path.join(CUTOFF), format!("{text}crc {checksum:08x}\n")).expect("written");
}

fn minutes(number: u64) -> Duration {
    Duration::from_mins(number)
}

fn hours(number: u64) -> Duration {
    Duration::from_hours(number)
}

#[test]
fn an_index_that_lags_behind_the_cutoff_tells_what_others_told() {
    let (_folder, path) = migrated();
    let other = Location {
        index: Some(Elsewhere {
            path: path.join("tmp-index"),
            top: path.as_path().into(),
        }),
        ..Location::beside(&path)
    };
    let others = || announced(&dovecot_first().open(&other).expect("it opens").snapshot);
    for part in ["new", "cur"] {
        let folder = fs::File::open(path.join(part)).expect("a folder");
        let old = SystemTime::now() - hours(2);
        folder.set_modified(old).expect("a time");
    }
    assert_eq!(others(), FORM);
    // Numbered by Dovecot before one that popcore is the first to announce.
    let (numbered, first) = (named(minutes(50)), named(minutes(40)));
    deliver(&path, &numbered);
    list(
        &path,
        1_600_000_000,
        &[&ROWS[..], &[&format!(":{numbered}")]].concat(),
    );
    let all = [&FORM[..], &["000000045f5e1000"]].concat();
    assert_eq!(told(&path), all);
    deliver(&path, &first);
    let all = [&all[..], &[first.as_str()]].concat();
    assert_eq!(told(&path), all);
    assert_eq!(others(), all);
}

#[test]
fn a_number_that_a_restored_list_gives_to_later_mail_does_not_count() {
    let (_folder, path) = migrated();
    deliver(&path, "6.new");
    told(&path);
    backdate(&path, hours(3));
    let later = named(minutes(90));
    deliver(&path, &later);
    let all = [&FORM[..], &["6.new", &later]].concat();
    assert_eq!(told(&path), all);
    // From before the third was numbered, and then Dovecot went on.
    let row = format!(":{later}");
    list(
        &path,
        1_600_000_000,
        &[ROWS[0], ROWS[1], &row, ROWS[2], ":6.new"],
    );
    forget(&path);
    let without_index = told(&path);
    assert!(without_index.contains(&later), "{without_index:?}");
}

#[test]
fn the_guard_knows_what_a_list_named_while_both_servers_ran() {
    let (_folder, path) = migrated();
    assert_eq!(told(&path), FORM);
    backdate(&path, hours(24 * 10));
    let names: Vec<String> = (1..=5).map(|day| named(hours(24 * day))).collect();
    let mut rows = ROWS.map(str::to_owned).to_vec();
    for name in &names {
        deliver(&path, name);
        rows.push(format!(":{name}"));
    }
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    list(&path, 1_600_000_000, &rows);
    let all = told(&path);
    assert!(all.iter().all(|uidl| !names.contains(uidl)), "{all:?}");
    // Written at most once a day.
    let before = fs::metadata(path.join(CUTOFF)).expect("a cutoff").ino();
    let today = named(minutes(1));
    deliver(&path, &today);
    let row = format!(":{today}");
    list(&path, 1_600_000_000, &[&rows[..], &[&row]].concat());
    told(&path);
    let after = fs::metadata(path.join(CUTOFF)).expect("a cutoff").ino();
    assert_eq!(before, after);
    forget(&path);
    fs::remove_file(path.join("dovecot-uidlist")).expect("a list");
    let refused = refusal(&path);
    assert!(refused.contains("9 of 9"), "{refused}");
}

#[test]
fn mail_that_came_since_asks_no_list_whose_cutoff_is_fixed() {
    let (_folder, path) = migrated();
    deliver(&path, "6.new");
    let before = told(&path);
    backdate(&path, hours(2));
    fs::write(path.join("dovecot-uidlist"), "no list, if anybody asks\n").expect("a list");
    let now = named(minutes(1));
    deliver(&path, &now);
    assert_eq!(told(&path), [&before[..], &[now]].concat());
    // One from a backup may be in it.
    deliver(&path, "5.old");
    let refused = dovecot_first().open(&Location::beside(&path));
    assert!(
        matches!(refused, Err(OpenError::Permanent(_))),
        "{refused:?}"
    );
}

/// Has neither the index nor the cutoff be written anew.
fn bar(path: &Path) {
    for file in [CUTOFF, INDEX] {
        let in_the_way = path.join(format!("{file}.new/in the way"));
        fs::create_dir_all(in_the_way).expect("a folder");
    }
}

#[test]
fn what_could_be_kept_nowhere_is_not_announced() {
    let (_folder, path) = migrated();
    list(&path, 1_600_000_000, &ROWS);
    bar(&path);
    // The list says the same the next time.
    assert_eq!(told(&path), FORM);
    // Its number would be its unique-id the next time.
    deliver(&path, "6.new");
    let refused = refusal(&path);
    for part in ["popcore.cutoff", "write permission", "s a directory"] {
        assert!(refused.contains(part), "{refused}");
    }
    assert_eq!(dovecot_first().rebuild(&Location::beside(&path)).ok(), None);
    fs::remove_dir_all(path.join("popcore.cutoff.new")).expect("a folder");
    let all = [&FORM[..], &["6.new"]].concat();
    assert_eq!(told(&path), all);
    // What is on record goes on.
    bar(&path);
    let rows = [&ROWS[..], &[":6.new", ":7.newer"]].concat();
    list(&path, 1_600_000_000, &rows);
    deliver(&path, "7.newer");
    assert!(!path.join(INDEX).exists());
    assert_eq!(told(&path), [&all[..], &["7.newer"]].concat());
}

#[test]
fn without_index_and_cutoff_a_login_is_refused_until_that_is_accepted() {
    let (_folder, path) = migrated();
    list(&path, 1_600_000_000, &ROWS);
    deliver(&path, "6.new");
    let before = told(&path);
    list(&path, 1_600_000_000, &[&ROWS[..], &[":6.new"]].concat());
    let good = fs::read(path.join(CUTOFF)).expect("a cutoff");
    fs::write(path.join(CUTOFF), "popcore cut").expect("written");
    forget(&path);
    for _ in 0..2 {
        let refused = refusal(&path);
        assert!(
            refused.contains("popcore.cutoff") && refused.contains("4 of 4"),
            "{refused}"
        );
    }
    fs::write(path.join(CUTOFF), good).expect("written");
    assert_eq!(told(&path), before);
    forget(&path);
    fs::write(path.join(CUTOFF), "popcore cut").expect("written");
    fs::write(path.join("popcore.index.accept"), "").expect("a file");
    let anew = told(&path);
    assert_ne!(anew, before);
    forget(&path);
    assert_eq!(told(&path), anew);
}

#[test]
fn sources_that_were_others_meanwhile_say_the_same() {
    let (_folder, path) = migrated();
    list(&path, 1_600_000_000, &ROWS);
    deliver(&path, "6.new");
    let before = told(&path);
    deliver(&path, "7.newer");
    let sources = Sources::parse(["courier", "name"]).expect("sources");
    let others = Maildrops::new(1 << 20).with_sources(sources);
    let all = [&before[..], &["7.newer".to_owned()]].concat();
    let opened = others.open(&Location::beside(&path)).expect("it opens");
    assert_eq!(announced(&opened.snapshot), all);
    drop(opened);
    let rows = [&ROWS[..], &[":6.new", ":7.newer"]].concat();
    list(&path, 1_600_000_000, &rows);
    forget(&path);
    others.cache().forget(&path);
    let refused = refusal_of(&others, &path);
    assert!(refused.contains("maildrop.uidl, which was"), "{refused}");
    assert_eq!(told(&path)[..4], before);
}

#[test]
fn a_list_that_lost_its_end_is_missed() {
    for new in [None, Some("6.new")] {
        let (_folder, path) = migrated();
        list(&path, 1_600_000_000, &ROWS);
        if let Some(name) = new {
            deliver(&path, name);
        }
        let before = told(&path);
        forget(&path);
        list(&path, 1_600_000_000, &[]);
        let refused = refusal(&path);
        let all = before.len();
        assert!(
            refused.contains("dovecot-uidlist") && refused.contains(&format!("{all} of {all}")),
            "{refused}"
        );
        // What it has not named yet is new.
        list(&path, 1_600_000_000, &ROWS);
        assert_eq!(told(&path), before);
    }
}

#[test]
fn who_comes_back_while_the_cutoff_is_lost_keeps_the_name() {
    let (_folder, path) = migrated();
    assert_eq!(told(&path), FORM);
    deliver(&path, "6.new");
    let with_new = [&FORM[..], &["6.new"]].concat();
    // The index says that it went, and the server is killed before it does.
    let maildrops = dovecot_first();
    let opened = maildrops.open(&Location::beside(&path)).expect("it opens");
    assert_eq!(announced(&opened.snapshot), with_new);
    let fourth = MessageNumber::from_index(3).expect("there are four");
    let fetched = std::collections::BTreeSet::new();
    let departure = Departure::Quit(&[fourth]);
    let report = maildrops.update(&opened.snapshot, &fetched, departure, SystemTime::now());
    assert_eq!(report.failed, None);
    drop(opened);
    deliver(&path, "6.new");
    list(&path, 1_600_000_000, &[&ROWS[..], &[":6.new"]].concat());
    fs::remove_file(path.join(CUTOFF)).expect("a cutoff");
    for _ in 0..2 {
        assert_eq!(told(&path), with_new);
        forget(&path);
    }
}

#[test]
fn who_never_had_the_unique_id_of_one_that_went_fixes_no_cutoff() {
    let (_folder, path) = migrated();
    list(&path, 1_600_000_000, &["Pa :3.b", "Pa :5.a", ":4.c"]);
    assert_eq!(told(&path), ["a", "5.a", FORM[2]]);
    let maildrops = dovecot_first();
    let opened = maildrops.open(&Location::beside(&path)).expect("it opens");
    let departure = Departure::Quit(&[MessageNumber::FIRST]);
    let fetched = std::collections::BTreeSet::new();
    let report = maildrops.update(&opened.snapshot, &fetched, departure, SystemTime::now());
    assert_eq!(report.failed, None);
    drop(opened);
    deliver(&path, "6.new");
    list(
        &path,
        1_600_000_000,
        &[":gone", "Pa :5.a", ":4.c", ":6.new"],
    );
    assert_eq!(told(&path), ["5.a", FORM[2], "000000045f5e1000"]);
}

#[test]
fn mail_that_came_while_a_list_was_away_keeps_its_name() {
    let later = named(minutes(90));
    for returns in [1_600_000_000, 1_700_000_000] {
        let (_folder, path) = migrated();
        list(&path, 1_600_000_000, &ROWS);
        assert_eq!(told(&path), FORM);
        fs::remove_file(path.join("dovecot-uidlist")).expect("a list");
        if returns != 1_600_000_000 {
            list(&path, returns, &[&ROWS[..], &[":6.new"]].concat());
        }
        deliver(&path, "6.new");
        let all = [&FORM[..], &["6.new"]].concat();
        assert_eq!(told(&path), all);
        backdate(&path, hours(3));
        deliver(&path, &later);
        let all = [&all[..], &[&later]].concat();
        assert_eq!(told(&path), all);
        let row = format!(":{later}");
        list(&path, 1_600_000_000, &[&ROWS[..], &[&row]].concat());
        forget(&path);
        assert_eq!(told(&path), all);
    }
}

#[test]
fn an_index_that_lost_most_is_missed_like_one_that_is_gone() {
    let (_folder, path) = migrated();
    let before = told(&path);
    let good = fs::read(path.join("dovecot-uidlist")).expect("a list");
    fs::remove_file(path.join("dovecot-uidlist")).expect("a list");
    let mut index = fs::read(path.join(INDEX)).expect("an index");
    for name in [b"5.a", b"3.b"] {
        let at_name = memchr::memmem::find(&index, name).expect("a name");
        index[at_name] ^= 4;
    }
    fs::write(path.join(INDEX), &index).expect("an index");
    let refused = refusal(&path);
    assert!(
        refused.contains("dovecot-uidlist of validity 1600000000") && refused.contains("2 of 3"),
        "{refused}"
    );
    let rebuilt = dovecot_first().rebuild(&Location::beside(&path));
    assert!(
        matches!(rebuilt, Err(OpenError::Temporary(_))),
        "{rebuilt:?}"
    );
    fs::write(path.join("dovecot-uidlist"), good).expect("a list");
    assert_eq!(told(&path), before);
}

#[test]
fn a_cutoff_of_a_later_popcore_refuses_the_login_until_it_is_given_up() {
    let (_folder, path) = migrated();
    deliver(&path, "6.new");
    let before = told(&path);
    let later = "popcore cutoff 2\nin another form\n";
    let checksum = crc32fast::hash(later.as_bytes());
    fs::write(path.join(CUTOFF), format!("{later}crc {checksum:08x}\n")).expect("written");
    deliver(&path, "7.newer");
    let refused = refusal(&path);
    assert!(
        refused.contains("popcore.cutoff is of version 2")
            && refused.contains("popcore index rebuild --config"),
        "{refused}"
    );
    let rebuilt = dovecot_first().rebuild(&Location::beside(&path));
    assert_eq!(rebuilt.expect("the operator gives it up").messages, 5);
    assert_eq!(told(&path), [&before[..], &["7.newer".to_owned()]].concat());
}

#[test]
fn a_change_is_accepted_wherever_the_index_is() {
    let (folder, path) = migrated();
    let at = Location {
        index: Some(Elsewhere {
            path: folder.path().join("indexes/ann"),
            top: folder.path().into(),
        }),
        ..Location::beside(&path)
    };
    drop(dovecot_first().open(&at).expect("it opens"));
    fs::remove_dir_all(folder.path().join("indexes")).expect("an index");
    fs::remove_file(path.join("dovecot-uidlist")).expect("a list");
    let refused = dovecot_first().open(&at);
    assert!(
        matches!(refused, Err(OpenError::Temporary(_))),
        "{refused:?}"
    );
    // All that its message says.
    super::super::super::inspect::accept(&path).expect("accepted");
    let opened = dovecot_first().open(&at).expect("it opens");
    assert_eq!(announced(&opened.snapshot), ["3.b", "4.c", "5.a"]);
}

/// Four of a year ago, which Dovecot numbers behind those of [`migrated`].
fn numbered_of_old(path: &Path) -> Vec<String> {
    let names: Vec<String> = (1..=4).map(|n| named(hours(24 * 365 + n))).collect();
    let mut rows = ROWS.map(str::to_owned).to_vec();
    for name in &names {
        deliver(path, name);
        rows.push(format!(":{name}"));
    }
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    list(path, 1_600_000_000, &rows);
    names
}

#[test]
fn an_index_of_an_earlier_day_without_the_list_is_missed_like_one_that_is_gone() {
    for fixed in [false, true] {
        let (_folder, path) = migrated();
        assert_eq!(told(&path), FORM);
        let stale = fs::read(path.join(INDEX)).expect("an index");
        numbered_of_old(&path);
        let mut before = told(&path);
        assert!(
            before[3..].iter().all(|uidl| uidl.ends_with("5f5e1000")),
            "{before:?}"
        );
        if fixed {
            deliver(&path, "6.new");
            before = told(&path);
        }
        let good = fs::read(path.join("dovecot-uidlist")).expect("a list");
        let restore = || fs::write(path.join(INDEX), &stale).expect("an index");
        let refused = |what: &str, count: &str| {
            let refused = refusal(&path);
            assert!(
                refused.contains(what) && refused.contains(count) && refused.contains("older"),
                "{refused}"
            );
            assert_eq!(fs::read(path.join(INDEX)).expect("an index"), stale);
        };
        restore();
        fs::remove_file(path.join("dovecot-uidlist")).expect("a list");
        let gone = if fixed { "5 of 8" } else { "4 of 7" };
        refused("dovecot-uidlist of validity 1600000000", gone);
        // As it was on that day.
        list(&path, 1_600_000_000, &ROWS);
        refused("the end of dovecot-uidlist", gone);
        fs::write(path.join("dovecot-uidlist"), good).expect("a list");
        assert_eq!(told(&path), before);

        restore();
        fs::remove_file(path.join("dovecot-uidlist")).expect("a list");
        fs::write(path.join("popcore.index.accept"), "").expect("a file");
        let anew = told(&path);
        assert_ne!(anew, before);
        for _ in 0..2 {
            assert_eq!(told(&path), anew, "accepted once, it is as any other");
        }
    }
}

#[test]
fn mail_that_comes_back_as_it_was_needs_no_list() {
    let (_folder, path) = migrated();
    let at = Location::beside(&path);
    let names = numbered_of_old(&path);
    let before = fetch_and_delete(&dovecot_first(), &at);
    assert!(told(&path).is_empty());
    fs::remove_file(path.join("dovecot-uidlist")).expect("a list");
    for name in &names {
        deliver(&path, name);
    }
    assert_eq!(told(&path), before[3..]);
}

#[test]
fn where_nodes_have_indexes_of_their_own_the_cutoff_has_to_be_written() {
    let (folder, path) = migrated();
    list(&path, 1_600_000_000, &ROWS);
    let node = |index: &str| Location {
        index: Some(Elsewhere {
            path: folder.path().join(index),
            top: folder.path().into(),
        }),
        ..Location::beside(&path)
    };
    let open = |at: &Location| dovecot_first().open(at).map(|o| announced(&o.snapshot));
    fs::create_dir_all(path.join("popcore.cutoff.new/in the way")).expect("a folder");
    // The list says the same at every node.
    assert_eq!(open(&node("one")).expect("it opens"), FORM);
    deliver(&path, "6.new");
    for _ in 0..2 {
        let Err(OpenError::Temporary(fault)) = open(&node("one")) else {
            panic!("the other node would not hear of it");
        };
        assert!(fault.to_string().contains("popcore.cutoff"), "{fault}");
    }
    fs::remove_dir_all(path.join("popcore.cutoff.new")).expect("a folder");
    let all = [&FORM[..], &["6.new"]].concat();
    assert_eq!(open(&node("one")).expect("it opens"), all);
    list(&path, 1_600_000_000, &[&ROWS[..], &[":6.new"]].concat());
    assert_eq!(open(&node("other")).expect("it opens"), all);
}

#[test]
fn a_lost_cutoff_is_made_anew_by_the_next_look_at_the_maildrop() {
    let lose: [fn(&Path); 3] = [
        |cutoff| fs::remove_file(cutoff).expect("a cutoff"),
        |cutoff| fs::write(cutoff, "popcore cut").expect("written"),
        // It could not be written at first.
        |cutoff| {
            fs::remove_file(cutoff).expect("a cutoff");
            let in_the_way = cutoff.with_file_name("popcore.cutoff.new/in the way");
            fs::create_dir_all(in_the_way).expect("a folder");
        },
    ];
    for (lose, restarts) in lose.into_iter().flat_map(|l| [(l, true), (l, false)]) {
        let (_folder, path) = migrated();
        list(&path, 1_600_000_000, &ROWS);
        deliver(&path, "6.new");
        let running = dovecot_first();
        let open = || {
            let opened = running.open(&Location::beside(&path)).expect("it opens");
            announced(&opened.snapshot)
        };
        let all = open();
        settled(&path);
        lose(&path.join(CUTOFF));
        let look = || {
            if restarts {
                assert_eq!(told(&path), all);
            } else {
                // Another program sets a flag.
                let (seen, unseen) = (path.join("cur/3.b:2,S"), path.join("cur/3.b:2,"));
                let renamed = fs::rename(&seen, &unseen);
                renamed
                    .or_else(|_| fs::rename(unseen, seen))
                    .expect("a message");
                assert_eq!(open(), all);
            }
        };
        look();
        if let Ok(()) = fs::remove_dir_all(path.join("popcore.cutoff.new")) {
            assert!(!path.join(CUTOFF).exists());
            if restarts {
                settled(&path);
            }
            look();
        }
        // Dovecot goes on.
        list(&path, 1_600_000_000, &[&ROWS[..], &[":6.new"]].concat());
        forget(&path);
        assert_eq!(told(&path), all);
    }
}

#[test]
fn a_cutoff_that_could_not_be_corrected_is_not_believed_later() {
    let (_folder, path) = migrated();
    list(&path, 1_600_000_000, &ROWS);
    assert_eq!(told(&path), FORM);
    // Whoever wrote that all of the list counts cannot write that it does no more.
    fs::create_dir_all(path.join("popcore.cutoff.new/in the way")).expect("a folder");
    deliver(&path, "6.new");
    let all = [&FORM[..], &["6.new"]].concat();
    assert_eq!(told(&path), all);
    fs::remove_dir_all(path.join("popcore.cutoff.new")).expect("a folder");
    assert_eq!(told(&path), all);
    list(&path, 1_600_000_000, &[&ROWS[..], &[":6.new"]].concat());
    forget(&path);
    assert_eq!(told(&path), all);
}

#[test]
fn a_source_that_is_new_to_the_configuration_has_its_cutoff_at_once() {
    let (_folder, path) = maildrop();
    settled(&path);
    list(&path, 1_600_000_000, &[":1.a"]);
    assert_eq!(told(&path), ["1.a"]);
    forget(&path);
    assert_eq!(told(&path), ["1.a"]);
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// Another program removes the oldest message.
    Removed,
    Delivered,
    /// Dovecot numbers all that is there.
    Numbered,
    /// A session at one of two nodes, each with an index of its own.
    Opened(bool),
    IndexLost(bool),
}

/// Some days of a Maildir that two nodes and an IMAP server share.
struct Days {
    _folder: tempfile::TempDir,
    path: PathBuf,
    nodes: [Location; 2],
    /// The second in the name of the next message: a virtual clock.
    clock: u64,
    /// Dovecot's, with UIDs.
    numbered: Vec<String>,
    announced: HashMap<String, String>,
}

impl Days {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ann");
        for part in ["new", "cur"] {
            fs::create_dir_all(path.join(part)).expect("a folder");
        }
        let node = |index: &str| Location {
            index: Some(Elsewhere {
                path: folder.path().join(index),
                top: folder.path().into(),
            }),
            ..Location::beside(&path)
        };
        let mut days = Self {
            nodes: [node("one"), node("other")],
            _folder: folder,
            path,
            clock: seconds(SystemTime::now() - hours(24 * 30)),
            numbered: Vec::new(),
            announced: HashMap::new(),
        };
        days.happen(Event::Delivered);
        days.happen(Event::Delivered);
        days.happen(Event::Numbered);
        days
    }

    fn there(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path.join("new")).expect("a folder");
        let name = |entry: io::Result<fs::DirEntry>| {
            let name = entry.expect("an entry").file_name();
            name.into_string().expect("ASCII")
        };
        let mut there: Vec<String> = entries.map(name).collect();
        there.sort();
        there
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Removed => {
                if let Some(name) = self.there().first() {
                    fs::remove_file(self.path.join("new").join(name)).expect("a message");
                }
            }
            Event::Delivered => {
                self.clock += 20 * 60;
                deliver(&self.path, &format!("{}.M1P1.mx", self.clock));
            }
            Event::Numbered => {
                for name in self.there() {
                    if !self.numbered.contains(&name) {
                        self.numbered.push(name);
                    }
                }
                let rows: Vec<String> = self.numbered.iter().map(|n| format!(":{n}")).collect();
                let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
                list(&self.path, 1_600_000_000, &rows);
            }
            Event::Opened(node) => self.open(usize::from(node)),
            Event::IndexLost(node) => {
                // It may not be there yet.
                let index = self.nodes[usize::from(node)].index.as_ref();
                let _ = fs::remove_file(&index.expect("one of its own").path);
            }
        }
    }

    fn open(&mut self, node: usize) {
        let cutoff = || fs::read(self.path.join(CUTOFF)).ok();
        let before = cutoff();
        let opened = dovecot_first().open(&self.nodes[node]).expect("it opens");
        if cutoff() != before {
            date(&self.path, self.clock);
        }
        let told = announced(&opened.snapshot);
        let names = opened.snapshot.messages();
        let names = names.map(|m| String::from_utf8(m.unique().to_vec()).expect("ASCII"));
        for (name, uidl) in names.zip(told) {
            let first = self.announced.entry(name.clone()).or_insert(uidl.clone());
            assert_eq!(*first, uidl, "{name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_was_announced_stays_whatever_happens_beside_and_whatever_index_is_lost(
        events in proptest::collection::vec(prop_oneof![
            1 => Just(Event::Removed),
            3 => Just(Event::Delivered),
            2 => Just(Event::Numbered),
            3 => any::<bool>().prop_map(Event::Opened),
            1 => any::<bool>().prop_map(Event::IndexLost),
        ], 1..40),
    ) {
        let mut days = Days::new();
        for event in events {
            days.happen(event);
        }
        days.open(0);
        days.open(1);
    }
}
