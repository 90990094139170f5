//! The generator against Courier, which makes a process for each session: what
//! those used is counted although they have ended.
//!
//! Courier reads its configuration and its socket from fixed places, so a
//! private instance has a mount namespace, and a process namespace that ends
//! with it; root only. Debian's courier-pop cannot be installed beside Dovecot:
//! `.ci/run` unpacks it below the target folder.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

const USERS: usize = 4;
const MESSAGES: usize = 5;
const NOBODY: u32 = 65_534;

/// Courier asks `authdaemond` who a user is, and that asks a database of its own.
const START: &str = r#"set -e
mount --bind "$FOLDER/etc" /etc/courier
mount --bind "$FOLDER/run" /run/courier
makeuserdb
set -a; . /etc/courier/authdaemonrc; set +a
/usr/lib/courier/courier-authlib/authdaemond &
export POP3AUTH= POP3_TLS=0 AUTHMODULES=
exec couriertcpd -address=127.0.0.1 -maxprocs=40 -maxperip=40 -nodnslookup -noidentlookup \
    "$PORT" "$COURIER/courierpop3login" "$COURIER/courierpop3d" Maildir
"#;

const DAEMON: &str = "authmodulelist=\"authuserdb\"\nauthmodulelistorig=\"authuserdb\"\ndaemons=2\n\
                      authdaemonvar=/run/courier/authdaemon\nDEBUG_LOGIN=0\nDEFAULTOPTIONS=\"\"\n";

struct Courier {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Courier {
    fn drop(&mut self) {
        // unshare takes the whole process namespace with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn programs() -> PathBuf {
    let own = Path::new(env!("CARGO_BIN_EXE_popcore-loadgen"));
    let target = own.ancestors().nth(2).expect("below the target folder");
    let folder = target.join("ci/courier/usr/lib/courier/courier");
    assert!(
        folder.join("courierpop3d").exists(),
        "{} is missing: `.ci/run packages` unpacks Debian's courier-pop there",
        folder.display()
    );
    folder
}

fn hashed(password: &str) -> String {
    let command = format!("echo '{password}' | userdbpw -md5");
    let output = Command::new("sh").args(["-c", &command]).output();
    let output = output.expect("userdbpw is installed (Debian: courier-authlib-userdb)");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Courier {
    fn start() -> Self {
        let courier = programs();
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).expect("own folder");
        fs::create_dir_all(root.join("etc")).expect("own folder");
        fs::create_dir_all(root.join("run/authdaemon")).expect("own folder");
        fs::write(root.join("etc/authdaemonrc"), DAEMON).expect("own folder");
        let hash = hashed("p w");
        let users = (0..USERS).map(|n| {
            let home = make_mail(root, &format!("user{n}"));
            let home = home.display();
            format!("user{n}\tuid={NOBODY}|gid={NOBODY}|home={home}|mail={home}|systempw={hash}\n")
        });
        let userdb = root.join("etc/userdb");
        fs::write(&userdb, users.collect::<String>()).expect("own folder");
        fs::set_permissions(&userdb, fs::Permissions::from_mode(0o600)).expect("own file");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let mut child = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "sh", "-c", START])
            .env("FOLDER", root)
            .env("PORT", port.to_string())
            .env("COURIER", courier)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(root.join("log")).expect("own folder"))
            .spawn()
            .expect("unshare is installed (Debian: util-linux)");
        let started = Instant::now();
        let socket = root.join("run/authdaemon/socket");
        while TcpStream::connect(("127.0.0.1", port)).is_err() || !socket.exists() {
            let log = fs::read_to_string(root.join("log")).unwrap_or_default();
            let ended = child.try_wait().expect("a child");
            assert!(ended.is_none(), "courier ended: {ended:?}\n{log}");
            assert!(
                started.elapsed() < Duration::from_mins(1),
                "no courier\n{log}"
            );
            thread::sleep(Duration::from_millis(20));
        }
        Self {
            child,
            port,
            _folder: folder,
        }
    }

    fn run(&self, arguments: &str) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_popcore-loadgen"))
            .args([
                "--target",
                &format!("127.0.0.1:{}", self.port),
                "--json",
                "-",
            ])
            .args(["--users", "user{0..3}", "--password", "p w"])
            .args(["--server-tree", &self.child.id().to_string()])
            .args(arguments.split_whitespace())
            .output()
            .expect("the generator starts");
        let shown = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments}: {shown}");
        serde_json::from_slice(&output.stdout).expect("a report")
    }
}

fn make_mail(root: &Path, user: &str) -> PathBuf {
    let home = root.join("mail").join(user);
    for part in ["new", "cur", "tmp"] {
        fs::create_dir_all(home.join(part)).expect("own folder");
    }
    for number in 0..MESSAGES {
        let text = format!(
            "Subject: {number}\n\n.\n..\ntext {}\n",
            "long ".repeat(500 * number)
        );
        fs::write(home.join(format!("new/17000000{number}.M1P1.test")), text).expect("own folder");
    }
    own(&root.join("mail"));
    home
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
fn courier_passes_every_check_and_its_ended_processes_are_counted() {
    let courier = Courier::start();
    for (profile, messages) in [("poll", 0), ("fetch", 3), ("leave-on-server", 5)] {
        let users = if profile == "leave-on-server" { 4 } else { 12 };
        let report = courier.run(&format!(
            "--profile {profile} --sessions 2 --max-sessions {users} --messages 3 --duration 60"
        ));
        assert_eq!(report["sessions"], users, "{report}");
        assert_eq!(report["messages"], users * messages, "{report}");
    }
    let report = courier.run("--profile login --sessions 2 --max-sessions 60 --duration 60");
    let used = report
        .pointer("/server/cpu_us_per_session")
        .and_then(Value::as_f64);
    // A process that executes two programs takes longer than this anywhere.
    assert!(used > Some(300.0), "{}", report["server"]);
    // A session's process waits for its commands, at least for one; root may count.
    let switches = report["server"]["context_switches"].as_u64();
    assert!(switches >= Some(60), "{}", report["server"]);
    let report = courier.run("--profile drain --sessions 4 --max-sessions 8 --duration 60");
    assert_eq!(report["messages"], USERS * MESSAGES, "{report}");
    assert_eq!(report["deleted"], USERS * MESSAGES, "{report}");
}
