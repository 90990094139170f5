//! Where `io_uring` is forbidden or has too little to live on, the server says so.
//!
//! The filter is set by a small C program, since to set one from here would take
//! unsafe code; a C compiler is what building the server takes anyway.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::server::{PROGRAM, Server, Site};

/// The program that forbids; it lives as long as its folder.
struct Forbid(TempDir);

impl Forbid {
    fn build() -> Forbid {
        let folder = tempfile::tempdir().expect("a folder");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/forbid.c");
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let built = Command::new(compiler)
            .args(["-Wall", "-Werror", "-o"])
            .arg(folder.path().join("forbid"))
            .arg(source)
            .status();
        assert!(built.expect("a C compiler").success());
        Forbid(folder)
    }

    fn program(&self) -> PathBuf {
        self.0.path().join("forbid")
    }

    /// The one message of a server that gets this error from one of the calls.
    fn message(&self, errno: i32, call: &str) -> String {
        let mut command = Command::new(self.program());
        command.arg(errno.to_string()).arg(call).arg(PROGRAM);
        let mut server: Server = Site::with_users(&["ann"]).launch(command);
        assert_eq!(server.end().code(), Some(1), "{}", server.log());
        let log = server.log();
        assert_eq!(log.lines().count(), 1, "{log}");
        log
    }
}

const CALLS: [&str; 3] = ["setup", "enter", "register"];

#[test]
fn a_profile_that_forbids_io_uring_is_named_with_its_remedy() {
    let forbid = Forbid::build();
    for call in CALLS {
        let message = forbid.message(libc::EPERM, call);
        assert!(
            message.starts_with("popcore: io_uring is forbidden"),
            "{message}"
        );
        for part in ["seccomp", "kernel.io_uring_disabled"] {
            assert!(message.contains(part), "{message}");
        }
        for call in CALLS {
            assert!(message.contains(&format!("io_uring_{call}")), "{message}");
        }
    }
}

#[test]
fn a_profile_that_hides_io_uring_is_named_with_its_remedy() {
    let forbid = Forbid::build();
    for call in CALLS {
        let message = forbid.message(libc::ENOSYS, call);
        for part in ["no io_uring", "seccomp", "io_uring_setup", "Linux 6.1"] {
            assert!(message.contains(part), "{message}");
        }
    }
}

/// As `RestrictSUIDSGID=` of systemd's units has it: every login would fail.
#[test]
fn a_profile_that_hides_openat2_is_named_with_its_remedy() {
    let message = Forbid::build().message(libc::ENOSYS, "openat2");
    for part in ["openat2 is refused", "RestrictSUIDSGID=", "seccomp"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn too_little_locked_memory_is_named_with_its_remedy() {
    let message = Forbid::build().message(libc::ENOMEM, "setup");
    for part in ["locked-memory", "ulimit -l", "LimitMEMLOCK="] {
        assert!(message.contains(part), "{message}");
    }
}

/// The one message of a server that a shell starts under limits of `ulimit`.
fn message_under(limits: &str) -> String {
    let mut command = Command::new("sh");
    command.arg("-c");
    command.arg(format!("{limits} && exec \"$0\" \"$@\""));
    command.arg(PROGRAM);
    let mut server: Server = Site::with_users(&["ann"]).launch(command);
    assert_eq!(server.end().code(), Some(1), "{}", server.log());
    let log = server.log();
    // The log, where it came to that, begins its lines with the time.
    let mut messages = log.lines().filter(|line| line.starts_with("popcore: "));
    let message = messages
        .next()
        .unwrap_or_else(|| panic!("no message: {log}"));
    assert_eq!(messages.next(), None, "{log}");
    message.to_owned()
}

#[test]
fn a_real_limit_of_locked_memory_is_named_with_its_remedy() {
    let message = message_under("ulimit -l 16");
    for part in ["locked-memory", "ulimit -l", "LimitMEMLOCK="] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_real_limit_of_descriptors_is_named_with_its_remedy() {
    for limit in [12, 16, 24, 40] {
        let message = message_under(&format!("ulimit -n {limit}"));
        for part in ["ulimit -n", "LimitNOFILE="] {
            assert!(message.contains(part), "{limit}: {message}");
        }
    }
}
