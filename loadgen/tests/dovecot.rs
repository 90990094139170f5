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
    /// Wants a PROXY header.
    proxied: u16,
    /// TLS from the first octet.
    tls: u16,
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
        make_certificate(path);
        let [port, proxied, tls] = free_ports();
        fs::write(path.join("dovecot.conf"), config(path, port, proxied, tls)).expect("written");
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
            proxied,
            tls,
            folder,
        }
    }

    fn run(&self, profile: &str, more: &str) -> Value {
        self.run_at(self.port, profile, more)
    }

    fn run_at(&self, port: u16, profile: &str, more: &str) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_popcore-loadgen"))
            .args(["--target", &format!("localhost:{port}"), "--json", "-"])
            .args([
                "--profile",
                profile,
                "--users",
                "user{0..7}",
                "--password",
                "p w",
            ])
            .args(["--server-tree", &self.child.id().to_string()])
            .args(more.split_whitespace())
            .output()
            .expect("the generator starts");
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let shown = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{profile}: {shown}\n{log}");
        serde_json::from_slice(&output.stdout).expect("a report")
    }
}

fn free_ports<const N: usize>() -> [u16; N] {
    // All are taken before any is given back, so that they differ.
    let taken = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    taken.map(|listener| listener.local_addr().expect("an address").port())
}

fn make_certificate(folder: &Path) {
    let status = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .args(["-noenc", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .arg("-keyout")
        .arg(folder.join("key.pem"))
        .arg("-out")
        .arg(folder.join("certificate.pem"))
        .stderr(Stdio::null())
        .status();
    assert!(status.expect("openssl is installed").success());
}

fn config(folder: &Path, port: u16, proxied: u16, tls: u16) -> String {
    let folder = folder.display();
    format!(
        "protocols = pop3\nlisten = 127.0.0.1\nbase_dir = {folder}/run\nstate_dir = {folder}/state\n\
         instance_name = popcore-loadgen-test\nlog_path = {folder}/log\nssl = yes\n\
         ssl_cert = <{folder}/certificate.pem\nssl_key = <{folder}/key.pem\n\
         auth_mechanisms = plain scram-sha-256\nhaproxy_trusted_networks = 127.0.0.0/8\n\
         disable_plaintext_auth = no\nmail_max_userip_connections = 0\n\
         mail_location = maildir:{folder}/mail/%u\npop3_lock_session = yes\n\
         passdb {{\n  driver = passwd-file\n  args = scheme=PLAIN username_format=%u {folder}/users\n}}\n\
         userdb {{\n  driver = static\n  args = uid={NOBODY} gid={NOBODY} home={folder}/mail/%u\n}}\n\
         service pop3-login {{\n  inet_listener pop3 {{\n    port = {port}\n  }}\n  \
         inet_listener pop3s {{\n    port = {tls}\n    ssl = yes\n  }}\n  \
         inet_listener proxied {{\n    port = {proxied}\n    haproxy = yes\n  }}\n}}\n"
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
    // Each new message once, every one in each session, and none.
    for (profile, least) in [("leave-on-server", 1), ("webmail", 24), ("abusive", 0)] {
        let report = dovecot.run(profile, "--sessions 4 --max-sessions 24 --duration 60");
        assert_eq!(number(&report, "/sessions"), Some(24), "{report}");
        assert!(number(&report, "/messages") >= Some(least), "{report}");
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

#[test]
fn dovecot_takes_every_login_and_every_way_there() {
    let dovecot = Dovecot::start();
    let ca = dovecot.folder.path().join("certificate.pem");
    let ca = format!("--ca {}", ca.display());
    let few = "--sessions 4 --max-sessions 24 --duration 60";
    let count = |report: &Value, pointer: &str| report.pointer(pointer).and_then(Value::as_u64);
    for auth in ["plain", "scram-sha-256"] {
        let report = dovecot.run("poll", &format!("{few} --auth {auth}"));
        assert_eq!(
            count(&report, "/latency_us/auth/count"),
            Some(24),
            "{report}"
        );
    }
    let report = dovecot.run("fetch", &format!("{few} --tls stls {ca} --pipelining"));
    assert_eq!(count(&report, "/tls/full"), Some(24), "{report}");
    let report = dovecot.run_at(
        dovecot.tls,
        "fetch",
        &format!("{few} --tls implicit {ca} --resume 1 --auth scram-sha-256"),
    );
    // A login process of Dovecot's serves one client and keeps its keys to itself:
    // what is offered for resumption is declined, and that is no fault.
    assert_eq!(count(&report, "/tls/full"), Some(24), "{report}");
}

/// Each version of the header with networks of its own, of both families: the log has
/// every session of that version from them, and none from elsewhere.
#[test]
fn dovecot_believes_the_source_of_each_proxy_header() {
    let dovecot = Dovecot::start();
    let logged = || fs::read_to_string(dovecot.folder.path().join("log")).expect("a log");
    for (version, networks, sources) in [
        (
            "v1",
            "198.51.100.0/24,2001:db8:1::/64",
            ["rip=198.51.100.", "rip=2001:db8:1:"],
        ),
        (
            "v2",
            "203.0.113.0/24,2001:db8:2::/64",
            ["rip=203.0.113.", "rip=2001:db8:2:"],
        ),
    ] {
        let before = logged().len();
        let more = format!(
            "--sessions 4 --max-sessions 24 --duration 60 --proxy {version} \
             --proxy-sources {networks}"
        );
        let report = dovecot.run_at(dovecot.proxied, "poll", &more);
        assert_eq!(report["sessions"], 24, "{report}");
        // Login processes write their lines in their own time.
        let started = Instant::now();
        let logins = loop {
            let log = logged();
            let lines = log[before..]
                .lines()
                .filter(|line| line.contains("Login: "));
            let lines: Vec<String> = lines.map(str::to_owned).collect();
            if lines.len() >= 24 {
                break lines;
            }
            let waited = started.elapsed();
            assert!(waited < Duration::from_mins(1), "{version}: {log}");
            thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(logins.len(), 24, "{version}");
        for source in sources {
            let from = logins.iter().filter(|line| line.contains(source)).count();
            assert!(from > 0, "{version}: nobody from {source}: {logins:?}");
        }
        for line in &logins {
            let known = sources.iter().any(|source| line.contains(source));
            assert!(known, "{version}: {line}");
        }
    }
}

#[test]
fn mail_that_arrives_under_a_drain_is_neither_lost_nor_doubled() {
    let dovecot = Dovecot::start();
    let maildir = dovecot.folder.path().join("mail/{user}");
    let report = dovecot.run(
        "drain",
        &format!(
            "--sessions 4 --duration 3 --deliver 100/s --maildir {}",
            maildir.display()
        ),
    );
    let count = |name: &str| report[name].as_u64().expect(name);
    assert!(count("delivered") > 150, "{report}");
    assert!(count("deleted") >= (USERS * MESSAGES) as u64, "{report}");
    assert_eq!(count("deleted"), count("messages"), "{report}");
    assert_eq!(report["errors"]["total"], 0, "{report}");
}

#[test]
fn two_targets_in_turn_give_medians_and_ratios() {
    let dovecot = Dovecot::start();
    let proxied = format!("--target localhost:{}", dovecot.port);
    let report = dovecot.run(
        "poll",
        &format!(
            "{proxied} --sessions 4 --max-sessions 12 --duration 60 --repeat 2 --interleave \
                  --server-tree {}",
            dovecot.child.id()
        ),
    );
    assert_eq!(report["runs"].as_array().map(Vec::len), Some(4), "{report}");
    assert_eq!(report["medians"][1]["runs"], 2);
    let ratio = &report["ratios"][0];
    assert_eq!(ratio["figure"], "sessions/s");
    assert!(ratio["least"].as_f64() <= ratio["ratio"].as_f64() && ratio["most"].is_f64());
}
