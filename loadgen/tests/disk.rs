//! The real binary with the Maildirs at hand: what is gone by right is not called
//! lost, and a disk that gives way takes no figure with it.

mod server;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use server::{Answer, FakeServer, honest};

/// The messages of the honest server, stored.
fn maildir() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for part in ["new", "cur", "tmp"] {
        fs::create_dir(folder.path().join(part)).expect("own folder");
    }
    let messages = ["abcdefgh\n", "ab\n.cde\n", ".\n12345\n"];
    for (number, text) in (1..).zip(messages) {
        let file = folder.path().join(format!("new/{number}"));
        fs::write(file, text).expect("own folder");
    }
    folder
}

fn generator(server: &FakeServer, maildir: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_popcore-loadgen"));
    command
        .args(["--target", &server.address(), "--password", "pw"])
        .args("--users u --sessions 1 --json - --maildir".split(' '))
        .arg(maildir)
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// One session of these steps with a server that empties the Maildir at QUIT; which
/// kinds of error it comes to.
fn kinds(steps: &str, lie: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static) -> Vec<String> {
    let maildir = maildir();
    let new = maildir.path().join("new");
    let server = FakeServer::start(move |command| {
        if command == "QUIT" {
            fs::remove_dir_all(&new).expect("own folder");
            fs::create_dir(&new).expect("own folder");
        }
        lie(command).unwrap_or_else(|| honest(command))
    });
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = format!("[[session]]\nname = 'one'\nsteps = [{steps}]\n");
    fs::write(file.path(), text).expect("written");
    let scenario = format!(
        "--scenario {} --max-sessions 1 --timeout 1",
        file.path().display()
    );
    let output = generator(&server, maildir.path(), &scenario).output();
    let output = output.expect("the generator starts");
    let shown = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {shown}"));
    assert!(!shown.contains("cannot be compared"), "{shown}");
    let kinds = report["errors"]["kinds"].as_object().expect("kinds");
    kinds.keys().cloned().collect()
}

#[test]
fn what_the_server_deleted_as_it_was_told_is_not_lost() {
    for steps in [
        "'stat', 'dele all'",
        "'stat', 'retr all', 'take all'",
        "'stat', 'retr 1', 'dele all'",
    ] {
        assert_eq!(kinds(steps, |_| None), [""; 0], "{steps}");
    }
    // The proof that it is looked at.
    assert_eq!(kinds("'stat'", |_| None), ["lost"]);
}

#[test]
fn what_an_unanswered_quit_may_have_deleted_is_not_lost() {
    let silent = |command: &str| (command == "QUIT").then(|| Answer::say(""));
    for steps in ["'stat', 'take all'", "'stat', 'dele all'"] {
        assert_eq!(kinds(steps, silent), ["timeout"], "{steps}");
    }
}

/// A run in whose midst a folder of the Maildir is taken away.
fn without(folder: &str, more: &str) -> Value {
    let maildir = maildir();
    let server = FakeServer::start(honest);
    let child = generator(&server, maildir.path(), more).spawn();
    let child = child.expect("the generator starts");
    server.wait_for_sessions(5);
    // Not empty where a delivery is on its way.
    while fs::remove_dir_all(maildir.path().join(folder)).is_err() {}
    let output = child.wait_with_output().expect("an end");
    let shown = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {shown}"));
    assert!(report["sessions"].as_u64() >= Some(5), "{report}");
    let reason = report["given_up"].as_str().expect("a reason");
    assert!(shown.contains(reason), "{shown}");
    report
}

#[test]
fn a_disk_that_gives_way_leaves_the_figures() {
    let report = without("new", "--profile poll --duration 1");
    let reason = report["given_up"].as_str().expect("a reason");
    assert!(reason.contains("cannot be compared: --maildir"), "{reason}");
    let report = without("tmp", "--profile poll --duration 600 --deliver 20/s");
    let reason = report["given_up"].as_str().expect("a reason");
    assert!(reason.contains("--deliver: "), "{reason}");
    assert_eq!(report["errors"]["total"], 0, "{report}");
}
