//! Limits of time that no configuration may make short, on the whole server.
//!
//! RFC 1939 allows no autologout below ten minutes, and a client that does not
//! read is given a minute. So the server runs in this process, as the binary runs
//! it, with a valid configuration in which nothing but these limits is changed.
//! There is one test because a process has one log and one set of signals.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use popcore::config::Config;
use popcore::server;
use rustix::process::{Signal, getpid, kill_process};
use tempfile::TempDir;

const IDLE: Duration = Duration::from_secs(3);
const STALL: Duration = Duration::from_secs(2);
const LOGIN: Duration = Duration::from_secs(4);

/// How long a condition may take on a machine under load.
const PATIENCE: Duration = Duration::from_mins(1);

/// Octets of the large message: more than the buffers of a connection hold, and
/// more than one that reads [`PIECE`] each [`PAUSE`] takes within [`STALL`].
const LARGE: usize = 48 << 20;
const PIECE: usize = 1 << 20;
const PAUSE: Duration = Duration::from_millis(100);

const USERS: [&str; 3] = ["idle", "stalled", "slow"];

struct Running {
    folder: TempDir,
    pop3: SocketAddr,
    admin: SocketAddr,
}

type Server = thread::JoinHandle<Result<(), server::ServerError>>;

fn write_site(folder: &Path) {
    let mut users = String::new();
    for user in USERS {
        writeln!(users, "{user}:{{PLAIN}}secret").expect("a String");
        for part in ["new", "cur"] {
            fs::create_dir_all(folder.join("mail").join(user).join(part)).expect("a folder");
        }
        let new = folder.join("mail").join(user).join("new");
        fs::write(new.join("1.m"), vec![b'x'; LARGE]).expect("written");
        fs::write(new.join("2.m"), "x\n").expect("written");
    }
    fs::write(folder.join("users"), users).expect("written");
    let text = "[server]\nshards = 2\n\
                [[listener]]\naddress = \"127.0.0.1:0\"\n\
                [auth]\nplaintext_without_tls = true\n\
                [[auth.directory]]\nkind = \"passwd-file\"\npath = \"users\"\n\
                [maildrop]\npath = \"mail/{user}\"\n\
                [log]\ntarget = \"log\"\n\
                [admin]\nlisten = \"127.0.0.1:0\"\n";
    fs::write(folder.join("popcore.toml"), text).expect("written");
}

fn start() -> (Running, Server) {
    let folder = tempfile::tempdir().expect("a folder");
    write_site(folder.path());
    let mut config = Config::load(&folder.path().join("popcore.toml")).expect("valid");
    config.limits.idle = IDLE;
    config.limits.write_stall = STALL;
    config.limits.login = LOGIN;
    let (told, ready) = mpsc::channel();
    let server = thread::spawn(move || {
        server::run(&config, |ready| {
            let admin = ready.admin.expect("configured");
            told.send((ready.listeners[0].0, admin)).expect("awaited");
        })
    });
    let (pop3, admin) = ready.recv_timeout(PATIENCE).expect("it serves");
    let running = Running {
        folder,
        pop3,
        admin,
    };
    (running, server)
}

impl Running {
    fn connect(&self) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(self.pop3).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        let mut client = BufReader::with_capacity(4096, stream);
        assert!(line(&mut client).starts_with("+OK popcore ready"));
        client
    }

    /// A login and what follows it in one segment, and the answer to the login.
    fn log_in(&self, user: &str, more: &str) -> (BufReader<TcpStream>, String) {
        let mut client = self.connect();
        let text = format!("USER {user}\r\nPASS secret\r\n{more}");
        client.get_mut().write_all(text.as_bytes()).expect("sent");
        assert!(line(&mut client).starts_with("+OK"));
        let reply = line(&mut client);
        (client, reply)
    }

    /// The first line of the log with both parts, once there is one.
    fn log_line(&self, user: &str, reason: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let found = log
                .lines()
                .find(|line| line.contains(user) && line.contains(reason));
            if let Some(line) = found {
                return line.to_owned();
            }
            assert!(Instant::now() < end, "no {user} {reason} in\n{log}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// How many sessions ended so.
    fn ended(&self, reason: &str) -> u64 {
        let mut stream = TcpStream::connect(self.admin).expect("a connection");
        let request = "GET /metrics HTTP/1.1\r\nHost: popcore\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let series = format!("popcore_sessions_ended_total{{reason=\"{reason}\"}} ");
        let value = answer.lines().find_map(|line| line.strip_prefix(&series));
        let value = value.unwrap_or_else(|| panic!("no {series} in\n{answer}"));
        value.parse().expect("a number")
    }

    fn mail(&self, user: &str) -> usize {
        let new = self.folder.path().join("mail").join(user).join("new");
        fs::read_dir(new).expect("a folder").count()
    }
}

fn line(client: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    client.read_line(&mut line).expect("a line");
    line
}

/// RFC 1939, section 3: no response, and no UPDATE state.
fn autologout_ends_a_silent_session_and_deletes_nothing(server: &Running) {
    let begun = Instant::now();
    let (mut client, reply) = server.log_in("idle", "DELE 1\r\nDELE 2\r\n");
    assert!(reply.starts_with("+OK"), "{reply}");
    for _ in 0..2 {
        assert!(line(&mut client).starts_with("+OK"));
    }
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("an orderly end");
    assert!(rest.is_empty(), "{}", rest.escape_ascii());
    assert!(begun.elapsed() >= IDLE, "{:?}", begun.elapsed());
    let line = server.log_line("pop3(idle)", "Disconnected for inactivity");
    assert!(line.contains(" del=0/2, "), "{line}");
    assert_eq!(server.ended("autologout"), 1);
    assert_eq!(server.mail("idle"), 2);
}

fn a_client_that_stops_reading_is_closed_and_loses_its_lock(server: &Running) {
    let begun = Instant::now();
    let (mut client, reply) = server.log_in("stalled", "DELE 2\r\nRETR 1\r\n");
    assert!(reply.starts_with("+OK"), "{reply}");
    let line = server.log_line("pop3(stalled)", "Client stopped reading");
    assert!(begun.elapsed() >= STALL, "{:?}", begun.elapsed());
    assert!(line.contains(" retr=0/0, del=0/2, "), "{line}");
    assert_eq!(server.ended("stalled"), 1);
    assert_eq!(server.mail("stalled"), 2);
    // The lock went before the line was written.
    let (_, reply) = server.log_in("stalled", "QUIT\r\n");
    assert!(reply.starts_with("+OK"), "{reply}");
    // What came through is no whole message.
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest);
    assert!(rest.len() < LARGE, "{} octets", rest.len());
    assert!(!rest.ends_with(b"\r\n.\r\n"));
}

/// The limit is on each piece, not on the message.
fn a_client_that_reads_slowly_gets_its_message(server: &Running) {
    let begun = Instant::now();
    let (mut client, reply) = server.log_in("slow", "RETR 1\r\nQUIT\r\n");
    assert!(reply.starts_with("+OK"), "{reply}");
    let announced = line(&mut client);
    let octets = LARGE + "\r\n".len();
    assert!(announced.contains(&octets.to_string()), "{announced}");
    let mut left = octets + ".\r\n".len();
    let mut piece = vec![0; PIECE];
    while left > 0 {
        let length = left.min(PIECE);
        client.read_exact(&mut piece[..length]).expect("octets");
        left -= length;
        thread::sleep(PAUSE);
    }
    assert!(piece.windows(5).any(|octets| octets == b"\r\n.\r\n"));
    assert!(begun.elapsed() > 2 * STALL, "{:?}", begun.elapsed());
    assert!(line(&mut client).starts_with("+OK"));
    server.log_line("pop3(slow)", "Logged out");
}

fn a_login_that_takes_too_long_ends_without_a_word(server: &Running) {
    let begun = Instant::now();
    let mut client = server.connect();
    // No command moves this limit.
    client.get_mut().write_all(b"USER idle\r\n").expect("sent");
    assert!(line(&mut client).starts_with("+OK"));
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("an orderly end");
    assert!(rest.is_empty(), "{}", rest.escape_ascii());
    assert!(begun.elapsed() >= LOGIN, "{:?}", begun.elapsed());
    server.log_line("Login timed out", "no auth attempts");
    assert_eq!(server.ended("login_timeout"), 1);
}

#[test]
fn limits_of_time_end_those_they_are_for_and_no_others() {
    let (running, server) = start();
    thread::scope(|scope| {
        let parts = [
            autologout_ends_a_silent_session_and_deletes_nothing,
            a_client_that_stops_reading_is_closed_and_loses_its_lock,
            a_client_that_reads_slowly_gets_its_message,
            a_login_that_takes_too_long_ends_without_a_word,
        ];
        for part in parts {
            let running = &running;
            scope.spawn(move || part(running));
        }
    });
    assert_eq!(running.ended("connection_lost"), 0);
    kill_process(getpid(), Signal::TERM).expect("it is us");
    server.join().expect("no panic").expect("an orderly end");
}
