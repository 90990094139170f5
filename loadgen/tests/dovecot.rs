//! The generator against Dovecot, which it was not written for.
//!
//! A private instance: own configuration, own folder, own mailboxes, a port of
//! the loopback network; ended by its own process id. Dovecot starts as root
//! only, and without it (Debian: dovecot-pop3d) the test fails.

use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Users and the messages of each.
const USERS: usize = 8;
const MESSAGES: usize = 6;
/// Debian's `nobody`: Dovecot serves no mail as root.
const NOBODY: u32 = 65_534;

struct Dovecot {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        // The master ends its children; killing it would leave them behind.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _ = kill_process(pid.expect("a pid"), Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Dovecot {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("own folder");
        make_mail(path);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        fs::write(path.join("dovecot.conf"), config(path, port)).expect("written");
        let mut child = Command::new("dovecot")
            .arg("-F")
            .arg("-c")
            .arg(path.join("dovecot.conf"))
            .stdin(Stdio::null())
            .spawn()
            .expect("dovecot is installed (Debian: dovecot-pop3d)");
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = fs::read_to_string(path.join("log")).unwrap_or_default();
            let ended = child.try_wait().expect("a child");
            assert!(ended.is_none(), "dovecot ended: {ended:?}\n{log}");
            let waited = started.elapsed();
            assert!(
                waited < Duration::from_mins(1),
                "dovecot does not listen\n{log}"
            );
            thread::sleep(Duration::from_millis(20));
        }
        Self {
            child,
            port,
            folder,
        }
    }

    fn run(&self, profile: &str, more: &str) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_popcore-loadgen"))
            .args([
                "--target",
                &format!("127.0.0.1:{}", self.port),
                "--json",
                "-",
            ])
            .args([
                "--profile",
                profile,
                "--users",
                "user{0..7}",
                "--password",
                "p w",
            ])
            .args(["--server-pid", &self.child.id().to_string()])
            .args(more.split_whitespace())
            .output()
            .expect("the generator starts");
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let shown = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{profile}: {shown}\n{log}");
        serde_json::from_slice(&output.stdout).expect("a report")
    }
}

fn config(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        "protocols = pop3\nlisten = 127.0.0.1\nbase_dir = {folder}/run\nstate_dir = {folder}/state\n\
         instance_name = popcore-loadgen-test\nlog_path = {folder}/log\nssl = no\n\
         disable_plaintext_auth = no\nmail_max_userip_connections = 0\n\
         mail_location = maildir:{folder}/mail/%u\npop3_lock_session = yes\n\
         passdb {{\n  driver = passwd-file\n  args = scheme=PLAIN username_format=%u {folder}/users\n}}\n\
         userdb {{\n  driver = static\n  args = uid={NOBODY} gid={NOBODY} home={folder}/mail/%u\n}}\n\
         service pop3-login {{\n  inet_listener pop3 {{\n    port = {port}\n  }}\n  \
         inet_listener pop3s {{\n    port = 0\n  }}\n}}\n"
    )
}

fn make_mail(folder: &Path) {
    let mut passwords = String::new();
    for user in 0..USERS {
        // Writing to a String cannot fail.
        let _ = writeln!(passwords, "user{user}:p w");
        let root = folder.join("mail").join(format!("user{user}"));
        for part in ["new", "cur", "tmp"] {
            fs::create_dir_all(root.join(part)).expect("own folder");
        }
        for number in 0..MESSAGES {
            // Dots at the head of lines and both kinds of line end.
            let end = if number % 2 == 0 { "\n" } else { "\r\n" };
            let body = [".", "..", "text", "", ".x", &"long ".repeat(4_000 * number)];
            let text = ["Subject: t", ""]
                .iter()
                .chain(&body)
                .map(|line| format!("{line}{end}"));
            let name = format!("17000000{number:02}.M1P1.test");
            fs::write(root.join("new").join(name), text.collect::<String>()).expect("own folder");
        }
    }
    fs::write(folder.join("users"), passwords).expect("own folder");
    own(&folder.join("mail"));
}

fn own(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).expect("this test runs as root");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("own folder") {
            own(&entry.expect("own folder").path());
        }
    }
}

#[test]
fn dovecot_passes_every_check_in_every_profile() {
    let dovecot = Dovecot::start();
    let number = |report: &Value, pointer: &str| report.pointer(pointer).and_then(Value::as_u64);
    for (profile, messages) in [("login", 0), ("poll", 0), ("fetch", 3)] {
        let report = dovecot.run(
            profile,
            "--sessions 4 --max-sessions 24 --messages 3 --duration 60",
        );
        assert_eq!(number(&report, "/sessions"), Some(24), "{report}");
        assert_eq!(
            number(&report, "/messages"),
            Some(24 * messages),
            "{report}"
        );
        assert!(
            number(&report, "/server/resident_bytes") > Some(0),
            "{report}"
        );
    }
    let report = dovecot.run("idle", "--sessions 8 --duration 0.2");
    assert_eq!(number(&report, "/idle/held"), Some(8), "{report}");
    let report = dovecot.run("drain", "--sessions 8 --max-sessions 8 --duration 60");
    let all = (USERS * MESSAGES) as u64;
    assert_eq!(number(&report, "/messages"), Some(all), "{report}");
    let report = dovecot.run("drain", "--sessions 8 --max-sessions 8 --duration 60");
    assert_eq!(
        number(&report, "/messages"),
        Some(0),
        "all is drained: {report}"
    );
}
