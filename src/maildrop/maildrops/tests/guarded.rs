//! Which messages the guard knows again under other names.

use super::*;

const TEXTS: [&str; 4] = ["a\n", "b\n", "cc\n", "ddd\n"];

/// Files of these texts, by names that this makes up.
fn filled(name: impl Fn(usize, &str) -> String) -> (tempfile::TempDir, PathBuf) {
    let (folder, path) = maildrop();
    fs::remove_file(path.join("new/1.a")).expect("a message");
    for (at, text) in (1..).zip(TEXTS) {
        fs::write(path.join("new").join(name(at, text)), text).expect("a message");
    }
    (folder, path)
}

/// Each file in turn is another one of the same octets, written now, with such a name.
fn copy_all(path: &Path, name: impl Fn(usize, &str) -> String) {
    let files = fs::read_dir(path.join("new")).expect("a folder");
    let mut files: Vec<PathBuf> = files.map(|file| file.expect("an entry").path()).collect();
    files.sort();
    for (at, file) in (1..).zip(files) {
        let text = fs::read_to_string(&file).expect("a message");
        fs::write(path.join("cur").join(name(at, &text)), text).expect("a message");
        fs::remove_file(file).expect("a message");
    }
}

fn plain(at: usize, _: &str) -> String {
    format!("{at}.a")
}

fn other(at: usize, _: &str) -> String {
    format!("9{at}.x:2,S")
}

fn sized(name: &str, text: &str) -> String {
    let (stored, octets) = (text.len(), text.len() + 1);
    format!("{name},S={stored},W={octets}")
}

fn refusal(maildrops: &Maildrops, path: &Path) -> String {
    match maildrops.open(&Location::beside(path)) {
        Err(OpenError::Temporary(fault)) => fault.to_string(),
        other => panic!("{other:?}"),
    }
}

/// `cp -r`, a backup that was brought back without times, a copy made with IMAP.
#[test]
fn a_copy_with_fresh_times_is_refused() {
    let (_folder, path) = filled(plain);
    let maildrops = Maildrops::new(1 << 20);
    drop(maildrops.open(&Location::beside(&path)).expect("it opens"));
    copy_all(&path, other);
    for maildrops in [&maildrops, &Maildrops::new(1 << 20)] {
        let refused = refusal(maildrops, &path);
        assert!(refused.contains("4 of 4 messages"), "{refused}");
    }
}

/// The names say how long the files are, so nobody has read them yet.
#[test]
fn a_copy_by_a_program_that_states_sizes_is_read_and_refused() {
    let (_folder, path) = filled(plain);
    let maildrops = Maildrops::new(1 << 20);
    drop(maildrops.open(&Location::beside(&path)).expect("it opens"));
    copy_all(&path, |at, text| sized(&format!("9{at}.x"), text));
    let refused = refusal(&maildrops, &path);
    assert!(refused.contains("4 of 4 messages"), "{refused}");
}

#[test]
fn where_nobody_read_the_files_their_times_tell() {
    let (_folder, path) = filled(|at, text| sized(&format!("{at}.a"), text));
    let maildrops = Maildrops::new(1 << 20);
    drop(maildrops.open(&Location::beside(&path)).expect("it opens"));
    let before = SystemTime::now() - Duration::from_hours(1);
    copy_all(&path, |at, text| sized(&format!("9{at}.x"), text));
    // Of the first alone the sum is known: it was read, to see whether names tell the truth.
    drop(
        maildrops
            .open(&Location::beside(&path))
            .expect("mail of now"),
    );
    for (at, text) in (1..).zip(TEXTS) {
        let (old, new) = (
            sized(&format!("9{at}.x"), text),
            sized(&format!("8{at}.y"), text),
        );
        let new = path.join("cur").join(new);
        fs::rename(path.join("cur").join(old), &new).expect("a message");
        let file = fs::File::options()
            .write(true)
            .open(new)
            .expect("a message");
        file.set_modified(before).expect("a time");
    }
    let refused = refusal(&maildrops, &path);
    assert!(refused.contains("4 of 4 messages"), "{refused}");
}

#[test]
fn other_mail_of_the_same_sizes_is_no_copy() {
    let (_folder, path) = filled(plain);
    let maildrops = Maildrops::new(1 << 20);
    let at = Location::beside(&path);
    drop(maildrops.open(&at).expect("it opens"));
    for (number, text) in (1..).zip(TEXTS) {
        fs::remove_file(path.join(format!("new/{number}.a"))).expect("a message");
        let text = text.replace(|c: char| c.is_ascii_lowercase(), "x");
        let new = path.join(format!("new/9{number}.x"));
        fs::write(&new, text).expect("a message");
        // Whenever a program says that it was written.
        let file = fs::File::options()
            .write(true)
            .open(new)
            .expect("a message");
        let old = SystemTime::now() - Duration::from_hours(1);
        file.set_modified(old).expect("a time");
    }
    let opened = maildrops.open(&at).expect("it opens");
    assert_eq!(
        announced(&opened.snapshot),
        ["91.x", "92.x", "93.x", "94.x"]
    );
    assert_eq!(maildrops.counters().guarded(), 0);
}
