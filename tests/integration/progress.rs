//! Bars of programs that work on many mailboxes: drawn where somebody looks on, and only there.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::server::PROGRAM;

/// Runs a program whose errors go to a terminal, and tells what that showed.
pub(super) fn before_a_terminal(command: &mut Command) -> (Output, String) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let screen = openpt(flags).expect("a terminal");
    grantpt(&screen)
        .and_then(|()| unlockpt(&screen))
        .expect("own terminal");
    let name = ptsname(&screen, Vec::new()).expect("own terminal");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal: OwnedFd = rustix::fs::open(name, flags, Mode::empty()).expect("own terminal");
    let size = Winsize {
        ws_row: 24,
        ws_col: 120,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&terminal, size).expect("own terminal");
    command.env("TERM", "xterm").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(terminal);
    let child = command.spawn().expect("it starts");
    // Ours closes with what was to be run: then the screen ends with the child.
    command.stderr(Stdio::null());
    let watcher = thread::spawn(move || {
        let (mut screen, mut shown) = (File::from(screen), Vec::new());
        // The end of a terminal is an error (EIO).
        let _ = screen.read_to_end(&mut shown);
        String::from_utf8(shown).expect("text")
    });
    let output = child.wait_with_output().expect("a child");
    (output, watcher.join().expect("no panic"))
}

/// How many were done each time that a bar of `of` was drawn.
pub(super) fn drawn(shown: &str, of: &str) -> Vec<usize> {
    let rows = shown.split(['\r', '\n']);
    let done = rows.filter_map(|row| {
        let (before, _) = row.split_once(of)?;
        // A bar stands before the number.
        let (bar, done) = before.trim_end().rsplit_once(' ')?;
        assert!(
            bar.contains('\u{2588}') || bar.contains('\u{2591}'),
            "{row}"
        );
        Some(done.parse().expect("a number"))
    });
    done.collect()
}

#[test]
fn a_thousand_indexes_are_made_anew_with_a_bar_on_a_terminal_alone() {
    const MAILDROPS: usize = 1_000;
    let folder = tempfile::tempdir().expect("a folder");
    let paths: Vec<PathBuf> = (0..MAILDROPS)
        .map(|number| folder.path().join(number.to_string()))
        .collect();
    for path in &paths {
        for part in ["new", "cur"] {
            fs::create_dir_all(path.join(part)).expect("own folder");
        }
        fs::write(path.join("new/1.a"), "x\n").expect("own folder");
    }
    let mut command = Command::new(PROGRAM);
    command.args(["index", "rebuild"]).args(&paths);
    let (output, shown) = before_a_terminal(&mut command);
    assert!(output.status.success(), "{shown}");
    let done = drawn(&shown, &format!("of {MAILDROPS} maildrops"));
    assert!(!done.is_empty() && done.is_sorted(), "{done:?}");
    assert!(done.iter().all(|done| *done <= MAILDROPS), "{done:?}");
    let rows = |output: &Output| String::from_utf8_lossy(&output.stdout).lines().count();
    assert_eq!(rows(&output), MAILDROPS);

    let output = command.stderr(Stdio::piped()).output().expect("it starts");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(rows(&output), MAILDROPS);
}
