//! `popcore index` on a thousand maildrops, at a terminal of `script` (Debian:
//! bsdutils).

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const MAILDROPS: usize = 1_000;

/// What `popcore index WHAT` told as JSON of all maildrops in the folder, what it drew
/// on the terminal, and whether it found everything good.
fn told(folder: &Path, what: &str) -> (Vec<serde_json::Value>, String, bool) {
    let program = env!("CARGO_BIN_EXE_popcore");
    let command = format!("exec {program} index {what} --json mail/* > told");
    let ended = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .current_dir(folder)
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .expect("script is installed (Debian: bsdutils)");
    let drawn = String::from_utf8_lossy(&ended.stdout).into_owned();
    let json = fs::read(folder.join("told")).expect("a file");
    let all: Vec<serde_json::Value> =
        serde_json::from_slice(&json).unwrap_or_else(|error| panic!("{error}: {drawn}"));
    assert_eq!(all.len(), MAILDROPS);
    (all, drawn, ended.status.success())
}

#[test]
fn a_thousand_indexes_are_made_anew_verified_and_shown_under_a_progress_bar() {
    let folder = tempfile::tempdir().expect("a folder");
    for number in 0..MAILDROPS {
        let mail = folder.path().join(format!("mail/{number:04}"));
        for part in ["new", "cur", "tmp"] {
            fs::create_dir_all(mail.join(part)).expect("a folder");
        }
        for message in 0..=(number % 3) {
            let name = format!("new/{message}.of.{number}");
            fs::write(mail.join(name), "a line\n").expect("a message");
        }
    }
    let (rebuilt, drawn, good) = told(folder.path(), "rebuild");
    assert!(good, "{drawn}");
    let bar = format!(" of {MAILDROPS} maildrops, ");
    assert!(drawn.contains(&bar), "{drawn}");
    for (number, one) in rebuilt.iter().enumerate() {
        assert_eq!(one["path"], format!("mail/{number:04}"));
        assert_eq!(one["messages"], number % 3 + 1, "{one}");
    }
    let (_, drawn, good) = told(folder.path(), "verify");
    assert!(good, "{drawn}");
    assert!(drawn.contains(&bar), "{drawn}");
    let (shown, ..) = told(folder.path(), "show");
    assert_eq!(shown[7]["messages"][1]["uidl"], "1.of.7", "{}", shown[7]);
    assert_eq!(shown[7]["octets"], 2 * 8);

    // One wrong size among all is found, and by its maildrop's name.
    let longer = folder.path().join("mail/0421/new/0.of.421");
    fs::write(&longer, "a longer line\n").expect("a message");
    let (verified, _, good) = told(folder.path(), "verify");
    assert!(!good);
    let wrong = verified.iter().filter(|one| one["good"] != true);
    let paths: Vec<_> = wrong.map(|one| &one["path"]).collect();
    assert_eq!(paths, ["mail/0421"]);
}
