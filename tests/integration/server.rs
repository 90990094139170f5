//! A server of the test's own: the real binary on an address of its own.
//!
//! The address is one of 127.0.0.0/8 that no other test uses, so that ports are
//! fixed and no two servers can take each other's.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tempfile::TempDir;

use super::client::{Client, PASSWORD};
use super::mailbox::Mailbox;
use super::patience::until;
use super::tls;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_popcore");

const POP3: u16 = 10_110;
const POP3S: u16 = 10_995;
const ADMIN: u16 = 10_080;

/// The section of the passwd-file that a site has.
pub(crate) const PASSWD_FILE: &str =
    "[[auth.directory]]\nkind = \"passwd-file\"\npath = \"users\"\n";

/// What is configured, and the folder it is in.
pub(crate) struct Site {
    folder: TempDir,
    host: Ipv4Addr,
    /// As in the configuration: a number, or `"auto"` with its quotes.
    pub(crate) shards: String,
    pub(crate) plaintext: bool,
    pub(crate) failure_delay: &'static str,
    /// Further keys of `[auth]`.
    pub(crate) auth: &'static str,
    pub(crate) login: &'static str,
    pub(crate) drain: &'static str,
    pub(crate) maildrop: &'static str,
    pub(crate) log: &'static str,
    /// Further keys of `[limits]`.
    pub(crate) limits: String,
    pub(crate) log_level: &'static str,
    /// Further keys of `[server]`.
    pub(crate) server: &'static str,
    /// The sections of directories.
    pub(crate) directories: String,
    /// Further sections of the configuration.
    pub(crate) more: &'static str,
    /// Keys of `[tls]`.
    pub(crate) tls: String,
    /// Certificates behind the first.
    pub(crate) certificates: String,
    /// Stored octets from which on messages are mapped, where not the default.
    pub(crate) map_from: Option<u64>,
}

impl Site {
    /// A site with these users, whose password is [`PASSWORD`] and whose
    /// maildrops are empty.
    pub(crate) fn with_users(users: &[&str]) -> Site {
        static LIMIT: Once = Once::new();
        LIMIT.call_once(raise_descriptor_limit);
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("mail")).expect("a folder");
        tls::write_certificate(folder.path());
        let site = Site {
            folder,
            host: unused_address(),
            shards: "2".into(),
            plaintext: true,
            failure_delay: "0s",
            auth: "",
            login: "60s",
            drain: "30s",
            maildrop: "mail/{user}",
            log: "stderr",
            limits: String::new(),
            log_level: "info",
            server: "",
            directories: PASSWD_FILE.to_owned(),
            more: "",
            tls: String::new(),
            certificates: String::new(),
            map_from: None,
        };
        let mut lines = String::new();
        for user in users {
            site.mailbox(user);
            writeln!(lines, "{user}:{{PLAIN}}{PASSWORD}").expect("a String");
        }
        site.write_users(&lines);
        site
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The maildrop of a user under the template that is the default here.
    pub(crate) fn mailbox(&self, user: &str) -> Mailbox {
        Mailbox::make(self.path().join("mail").join(user))
    }

    /// Replaces the passwd-file.
    pub(crate) fn write_users(&self, lines: &str) {
        fs::write(self.path().join("users"), lines).expect("written");
    }

    pub(crate) fn pop3(&self) -> SocketAddr {
        (self.host, POP3).into()
    }

    pub(crate) fn pop3s(&self) -> SocketAddr {
        (self.host, POP3S).into()
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        (self.host, ADMIN).into()
    }

    pub(crate) fn host(&self) -> Ipv4Addr {
        self.host
    }

    /// Changes keys of `[limits]` for the next reload.
    pub(crate) fn limit(&mut self, keys: &str) {
        keys.clone_into(&mut self.limits);
        self.configure();
    }

    /// Writes the configuration and gives its path.
    pub(crate) fn configure(&self) -> PathBuf {
        let path = self.path().join("popcore.toml");
        fs::write(&path, self.configuration()).expect("written");
        path
    }

    pub(crate) fn configuration(&self) -> String {
        let map_from = self.map_from.map_or(String::new(), |octets| {
            format!("map_text_from = {octets}\nmap_wire_from = {octets}\n")
        });
        format!(
            "[server]\nhostname = \"pop.example.net\"\nshards = {}\ndrain = \"{}\"\n{}\
             [[listener]]\naddress = \"{}\"\ntls = \"starttls\"\n\
             [[listener]]\naddress = \"{}\"\ntls = \"implicit\"\n\
             [tls]\n{}\n\
             [[tls.certificate]]\nchain = \"chain.pem\"\nkey = \"key.pem\"\n{}\
             [auth]\nplaintext_without_tls = {}\nfailure_delay = \"{}\"\n{}\
             {}\
             [maildrop]\npath = \"{}\"\n{map_from}\
             [limits]\nlogin = \"{}\"\n{}\n\
             [log]\ntarget = \"{}\"\nlevel = \"{}\"\n\
             [admin]\nlisten = \"{}\"\n{}",
            self.shards,
            self.drain,
            self.server,
            self.pop3(),
            self.pop3s(),
            self.tls,
            self.certificates,
            self.plaintext,
            self.failure_delay,
            self.auth,
            self.directories,
            self.maildrop,
            self.login,
            self.limits,
            self.log,
            self.log_level,
            self.admin(),
            self.more,
        )
    }

    /// Starts the server and waits until it serves.
    pub(crate) fn start(self) -> Server {
        self.start_by(Command::new(PROGRAM))
    }

    /// Starts the server through a command that the program's arguments are
    /// appended to, and waits until it serves.
    pub(crate) fn start_by(self, command: Command) -> Server {
        let server = self.launch(command);
        server.await_ready();
        server
    }

    /// Starts the server and waits for nothing.
    pub(crate) fn launch(self, command: Command) -> Server {
        let child = self.spawn(command);
        Server { site: self, child }
    }

    fn spawn(&self, mut command: Command) -> Child {
        let config = self.configure();
        let stderr = File::create(self.path().join("stderr")).expect("a file");
        command
            .args(["serve", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("it starts")
    }
}

/// Raises this process's own limit: a test may hold 500 connections, and others
/// run beside it.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("the hard limit stays");
}

/// An address of this machine that nothing else in this run listens on, nor in another of
/// the 32,767 runs that were started before it.
fn unused_address() -> Ipv4Addr {
    /// Addresses that differ in their last octet, of which .0, .1 and .255 are left out.
    const BLOCK: u16 = 253;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < 2 * BLOCK, "more servers than addresses");
    let [.., high, low] = std::process::id().to_be_bytes();
    let second_block = if number < BLOCK { 0 } else { 0x80 };
    let last = u8::try_from(number % BLOCK).expect("below 253");
    Ipv4Addr::new(127, high & 0x7f | second_block, low, last + 2)
}

/// A running server. Dropping it ends it.
pub(crate) struct Server {
    pub(crate) site: Site,
    child: Child,
}

impl Server {
    /// Starts it again after its end. Of a process that was killed the kernel may
    /// close the sockets a little later than it tells of its end.
    pub(crate) fn restart(&mut self) {
        assert!(!self.runs(), "it has not ended");
        until("the server to start again", || {
            self.child = self.site.spawn(Command::new(PROGRAM));
            let said = until("the server to say something", || {
                let log = self.log();
                let ended = log.starts_with("popcore: ") && log.ends_with('\n');
                let said = log.contains(" serves on ") || ended;
                said.then_some(log)
            });
            if said.contains("Address already in use") {
                self.end();
                return None;
            }
            Some(())
        });
        self.await_ready();
    }

    fn await_ready(&self) {
        until("the server to serve", || {
            let log = self.log();
            let failed = log.lines().any(|line| line.starts_with("popcore: "));
            assert!(!failed, "{log}");
            log.contains(" serves on ").then_some(())
        });
    }

    /// A client that has read the greeting.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.site.pop3())
    }

    /// A client that is logged in.
    pub(crate) fn log_in(&self, user: &str) -> Client {
        Client::logged_in(self.site.pop3(), user)
    }

    /// A login as soon as the maildrop is free.
    pub(crate) fn log_in_once_free(&self, user: &str) -> Client {
        until("the maildrop to be free", || {
            let mut client = self.connect();
            let reply = client.try_log_in(user);
            if reply.starts_with("+OK") {
                return Some(client);
            }
            assert!(reply.starts_with("-ERR [IN-USE] "), "{reply}");
            None
        })
    }

    pub(crate) fn mailbox(&self, user: &str) -> Mailbox {
        self.site.mailbox(user)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to stderr so far.
    pub(crate) fn log(&self) -> String {
        let octets = fs::read(self.site.path().join("stderr")).expect("a log");
        String::from_utf8(octets).expect("a log is UTF-8")
    }

    /// The first line of the log with all of these parts, as soon as there is one.
    pub(crate) fn log_line(&self, parts: &[&str]) -> String {
        until(&format!("a log line with {parts:?}"), || {
            let log = self.log();
            // A line without its end may still be written to.
            let whole = &log[..=log.rfind('\n')?];
            let mut lines = whole.lines();
            let found = lines.find(|line| parts.iter().all(|part| line.contains(part)));
            found.map(str::to_owned)
        })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        let pid = Pid::from_raw(pid).expect("a process id");
        kill_process(pid, signal).expect("it runs");
    }

    /// Waits for the server to end of its own accord.
    pub(crate) fn end(&mut self) -> ExitStatus {
        until("the server to end", || {
            self.child.try_wait().expect("a child")
        })
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended, which is all that is wanted here.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}
