//! A popcore with the directories of a test, and a client that logs in.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::{PATIENCE, STRANGERS, end, stranger, until};
use crate::site::free_port;

/// A running popcore.
pub(super) struct Served {
    folder: TempDir,
    child: Child,
    port: u16,
    /// How many of the users whom nobody has heard of have logged in.
    strangers: AtomicU32,
}

impl Served {
    /// Serves with these sections of directories. Files they name are in `folder`.
    pub(super) fn start(folder: TempDir, directories: &str) -> Self {
        Self::start_as(&[], "{mail}/{user}", folder, directories)
    }

    /// The same behind a command that becomes popcore, with mail in another place.
    pub(super) fn start_as(
        command: &[&str],
        mail_path: &str,
        folder: TempDir,
        directories: &str,
    ) -> Self {
        for _ in 0..10 {
            let port = free_port();
            let text = format!(
                "[server]\nhostname = \"pop.example.net\"\nshards = 2\n\
                 [[listener]]\naddress = \"127.0.0.1:{port}\"\n\
                 [auth]\nplaintext_without_tls = true\nfailure_delay = \"0s\"\n\
                 {directories}\n\
                 [maildrop]\npath = \"{mail_path}\"\n\
                 [limits]\nlongest_login_delay = \"1h\"\n\
                 [log]\ntarget = \"log\"\n"
            );
            let mail = folder.path().join("mail");
            fs::create_dir_all(&mail).expect("own folder");
            let text = text.replace("{mail}", mail.to_str().expect("UTF-8"));
            fs::write(folder.path().join("popcore.toml"), text).expect("own folder");
            let popcore = popcore("serve", folder.path());
            let mut child = behind(command, popcore, folder.path())
                .spawn()
                .expect("it starts");
            let up = until("popcore to serve", || {
                if child.try_wait().expect("a child").is_some() {
                    return Some(false);
                }
                let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
                log.contains(" serves on ").then_some(true)
            });
            if up {
                return Self {
                    folder,
                    child,
                    port,
                    strangers: AtomicU32::default(),
                };
            }
            let said = fs::read_to_string(folder.path().join("stderr")).expect("own folder");
            assert!(said.contains("cannot listen on"), "{said}");
        }
        panic!("no port stays free");
    }

    /// What `popcore check` says, and whether it ends well.
    pub(super) fn check(&self) -> (String, bool) {
        let output = popcore("check", self.folder.path())
            .stdout(Stdio::piped())
            .output()
            .expect("it starts");
        let said = String::from_utf8(output.stdout).expect("UTF-8");
        (said, output.status.success())
    }

    pub(super) fn pop3(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).expect("a log")
    }

    /// The answer to a login.
    pub(super) fn reply(&self, user: &str, password: &str) -> String {
        let mut client = Client::connect(self.pop3());
        let reply = client.log_in(user, password);
        client.quit();
        reply
    }

    /// A user who has never logged in, as long as there are any.
    pub(super) fn stranger(&self) -> String {
        stranger(self.strangers.fetch_add(1, Ordering::Relaxed) % STRANGERS)
    }

    /// The line of CAPA behind a login.
    pub(super) fn login_delay(&self, user: &str, password: &str) -> String {
        let mut client = Client::connect(self.pop3());
        let reply = client.log_in(user, password);
        assert!(reply.starts_with("+OK"), "{user}: {reply}");
        let mut line = client.say("CAPA");
        let mut told = String::new();
        while line != "." {
            line = client.line();
            if line.starts_with("LOGIN-DELAY") {
                told.clone_from(&line);
            }
        }
        client.quit();
        told
    }

    /// A login that must succeed, once the one before it has ended.
    pub(super) fn log_in(&self, user: &str, password: &str) {
        until("the maildrop to be free", || {
            let reply = self.reply(user, password);
            let taken = reply.starts_with("-ERR [IN-USE]");
            assert!(taken || reply.starts_with("+OK"), "{user}: {reply}");
            (!taken).then_some(())
        });
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        end(&mut self.child);
        if std::thread::panicking() {
            let log = self.log();
            let told: Vec<_> = log
                .lines()
                .filter(|line| !line.contains("Logged out"))
                .collect();
            eprintln!("{}", told[told.len().saturating_sub(60)..].join("\n"));
        }
    }
}

/// A command that is given another one to become.
fn behind(command: &[&str], other: Command, folder: &Path) -> Command {
    let [program, arguments @ ..] = command else {
        return other;
    };
    let mut command = Command::new(program);
    command.args(arguments).arg(other.get_program());
    command.args(other.get_args());
    quiet(&mut command, folder);
    command
}

fn popcore(command: &str, folder: &Path) -> Command {
    let mut popcore = Command::new(env!("CARGO_BIN_EXE_popcore"));
    popcore
        .args([command, "--config"])
        .arg(folder.join("popcore.toml"));
    quiet(&mut popcore, folder);
    popcore
}

fn quiet(command: &mut Command, folder: &Path) {
    let errors = fs::File::create(folder.join("stderr")).expect("own folder");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors);
}

/// One connection.
pub(super) struct Client(BufReader<TcpStream>);

impl Client {
    /// Connects and takes the greeting.
    pub(super) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        stream.set_nodelay(true).expect("an option");
        let mut client = Self(BufReader::new(stream));
        let greeting = client.line();
        assert!(greeting.starts_with("+OK"), "{greeting}");
        client
    }

    /// The answer to PASS.
    pub(super) fn log_in(&mut self, user: &str, password: &str) -> String {
        self.say(&format!("USER {user}"));
        self.say(&format!("PASS {password}"))
    }

    pub(super) fn quit(mut self) {
        self.say("QUIT");
    }

    pub(super) fn say(&mut self, command: &str) -> String {
        let sent = self
            .0
            .get_mut()
            .write_all(format!("{command}\r\n").as_bytes());
        sent.expect("an open connection");
        self.line()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }
}
