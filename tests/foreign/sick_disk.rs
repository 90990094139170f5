//! Half of the users on a file system that takes 200 ms for everything, and one user on
//! a file system whose disk goes bad: the others, on the same shard, must not notice.
//!
//! Root alone may mount them.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::fuse;
use crate::site::free_port;

/// Users of each half.
const USERS: usize = 8;
/// Sessions of each user of the fast half in one measurement.
const SESSIONS: usize = 60;
/// How long the slow disk takes for each.
const DELAY: Duration = Duration::from_millis(200);
/// What 99 of 100 of the fast half's commands must stay under.
const BOUND: Duration = Duration::from_millis(10);

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only where it has ended, which the test has noticed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn message(number: usize) -> Vec<u8> {
    let line = format!("line of message {number}\n");
    format!("Subject: {number}\n\n{}", line.repeat(300)).into_bytes()
}

fn deliver(maildir: &Path, name: &str) {
    let made = maildir.join("tmp").join(name);
    fs::write(&made, message(0)).expect("own folder");
    fs::rename(&made, maildir.join("new").join(name)).expect("own folder");
}

/// Times of one command in all sessions, the longest last.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() * 99 / 100]
}

/// Login, RETR and QUIT with a removal of every fast user, at the same time.
fn fast_half(folder: &Path, port: u16, round: usize) -> [Duration; 3] {
    let all: Vec<[Vec<Duration>; 3]> = thread::scope(|scope| {
        let users = (0..USERS).map(|user| {
            scope.spawn(move || {
                let mut times = [Vec::new(), Vec::new(), Vec::new()];
                for session in 0..SESSIONS {
                    let maildir = folder.join(format!("fast{user}"));
                    deliver(&maildir, &format!("{round}.{session}.near"));
                    let mut client = Client::connect(port);
                    client.ok(&format!("USER fast{user}"));
                    let begun = Instant::now();
                    client.ok("PASS pw");
                    times[0].push(begun.elapsed());
                    let begun = Instant::now();
                    client.message(1);
                    times[1].push(begun.elapsed());
                    client.ok("DELE 1");
                    let begun = Instant::now();
                    client.ok("QUIT");
                    times[2].push(begun.elapsed());
                }
                times
            })
        });
        let users: Vec<_> = users.collect();
        users
            .into_iter()
            .map(|user| user.join().expect("no panic"))
            .collect()
    });
    [0, 1, 2].map(|command| p99(all.iter().flat_map(|user| user[command].clone()).collect()))
}

fn slow_session(port: u16, user: &str) {
    let mut client = Client::connect(port);
    client.ok(&format!("USER {user}"));
    client.ok("PASS pw");
    let stat = client.ok("STAT");
    let messages: usize = stat
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("STAT");
    if messages > 0 {
        client.message(1);
        client.ok("DELE 1");
    }
    client.ok("QUIT");
}

/// Users with a home each, half of them below `point`; and a server for them, with
/// these `keys` of its maildrops.
fn serve(path: &Path, point: &Path, far: &[String], keys: &str) -> (Running, u16) {
    let mut users = String::new();
    let mut add = |name: &str, home: &Path| {
        // Writing to a String cannot fail.
        let _ = writeln!(users, "{name}:{{PLAIN}}pw::::{}:", home.display());
    };
    for (user, name) in far.iter().enumerate() {
        let near = path.join(format!("fast{user}"));
        for part in ["new", "cur", "tmp"] {
            fs::create_dir_all(near.join(part)).expect("own folder");
        }
        add(&format!("fast{user}"), &near);
        add(name, &point.join(name));
    }
    fs::write(path.join("users"), users).expect("own folder");
    fs::create_dir(path.join("index")).expect("own folder");
    let port = free_port();
    let config = format!(
        "[server]\nhostname = \"localhost\"\nshards = 1\n\
         [[listener]]\naddress = \"127.0.0.1:{port}\"\ntls = \"none\"\n\
         [auth]\nplaintext_without_tls = true\n\
         [[auth.directory]]\nkind = \"passwd-file\"\npath = \"users\"\n\
         [maildrop]\npath = \"{{home}}\"\nindex = \"index/{{user}}\"\n{keys}[log]\ntarget = \"log\"\n"
    );
    fs::write(path.join("popcore.toml"), config).expect("own folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_popcore"));
    command
        .args(["serve", "--config"])
        .arg(path.join("popcore.toml"));
    let child = command.stdin(Stdio::null()).spawn();
    let running = Running(child.expect("popcore starts"));
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(
            begun.elapsed() < Duration::from_mins(1),
            "popcore is not there"
        );
        thread::sleep(Duration::from_millis(10));
    }
    (running, port)
}

#[test]
fn half_of_the_users_on_a_slow_disk_do_not_slow_the_other_half() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().canonicalize().expect("own folder");
    let point = path.join("far");
    fs::create_dir(&point).expect("own folder");
    let far: Vec<String> = (0..USERS).map(|user| format!("slow{user}")).collect();
    let messages: Vec<Vec<u8>> = (0..40).map(message).collect();
    let (mounted, _) = fuse::mount(&point, &far, &messages, DELAY);
    let (server, port) = serve(&path, &point, &far, "");
    // What this machine gives when nobody is slow; the first round makes snapshots.
    fast_half(&path, port, 0);
    let alone = fast_half(&path, port, 1);
    let done = AtomicBool::new(false);
    let slow_sessions = AtomicUsize::new(0);
    let beside = thread::scope(|scope| {
        let slow = far.iter().map(|user| {
            let (done, slow_sessions) = (&done, &slow_sessions);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    slow_session(port, user);
                    slow_sessions.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let slow: Vec<_> = slow.collect();
        let mut rounds: Vec<[Duration; 3]> = Vec::new();
        // Until every slow user has done everything there is.
        while slow_sessions.load(Ordering::Relaxed) < 2 * USERS || rounds.len() < 3 {
            let failed = slow.iter().any(thread::ScopedJoinHandle::is_finished);
            assert!(!failed, "a session of the slow half failed");
            rounds.push(fast_half(&path, port, 2 + rounds.len()));
        }
        done.store(true, Ordering::Relaxed);
        rounds.sort();
        rounds[rounds.len() / 2]
    });
    for (command, (beside, alone)) in ["login", "RETR", "QUIT"]
        .iter()
        .zip(beside.iter().zip(alone))
    {
        println!("{command}: p99 {beside:?}, with nobody slow {alone:?}");
        // On a machine where others work too, not more than it takes without.
        let bound = BOUND.max(3 * alone);
        assert!(
            *beside < bound,
            "{command}: {beside:?}, with nobody slow {alone:?}"
        );
        assert!(*beside < DELAY, "{command}: {beside:?}");
    }
    drop(server);
    drop(mounted);
}

/// What comes back for `RETR 1` until the server ends the connection: replies, and the
/// last one's, to QUIT.
fn retr(port: u16, user: &str) -> Vec<u8> {
    let begun = Instant::now();
    loop {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a server");
        let commands = format!("USER {user}\r\nPASS pw\r\nRETR 1\r\nQUIT\r\n");
        stream.write_all(commands.as_bytes()).expect("a server");
        let mut all = Vec::new();
        stream
            .read_to_end(&mut all)
            .expect("an end without a reset");
        let mut replies = all.split_inclusive(|octet| *octet == b'\n');
        let before: usize = replies.by_ref().take(2).map(<[u8]>::len).sum();
        let login = replies.next().expect("a reply to PASS");
        if login.starts_with(b"+OK") {
            return all.split_off(before + login.len());
        }
        // The session that the disk ended lets go of the maildrop a moment later.
        assert!(
            login.starts_with(b"-ERR [IN-USE]"),
            "{}",
            login.escape_ascii()
        );
        assert!(begun.elapsed() < Duration::from_mins(1), "never free");
    }
}

fn unique_id(port: u16, user: &str) -> String {
    let mut client = Client::login(port, user, "pw");
    let unique_id = client.ok("UIDL 1");
    client.quit();
    unique_id
}

#[test]
fn a_disk_that_goes_bad_in_mid_retr_ends_one_session_and_loses_nothing() {
    const LENGTH: usize = 2 << 20;
    for (line, map_from) in [
        ("text\n", 1),
        ("text\n", u32::MAX),
        ("text\r\n", 1),
        ("text\r\n", u32::MAX),
    ] {
        let case = format!("{line:?} mapped from {map_from}");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().canonicalize().expect("own folder");
        let point = path.join("far");
        fs::create_dir(&point).expect("own folder");
        let message = format!("Subject: large\n\n{}", line.repeat(LENGTH / line.len()));
        let message = if line.ends_with("\r\n") {
            message.replacen("large\n\n", "large\r\n\r\n", 1)
        } else {
            message
        };
        let far = ["ann".to_owned()];
        let (mounted, bad_from) =
            fuse::mount(&point, &far, &[message.into_bytes()], Duration::ZERO);
        let keys = format!("map_text_from = {map_from}\nmap_wire_from = {map_from}\n");
        let (server, port) = serve(&path, &point, &far, &keys);
        deliver(&path.join("fast0"), "1.near");
        let mut other = Client::login(port, "fast0", "pw");
        let whole = retr(port, "ann");
        assert!(whole.starts_with(b"+OK ") && whole.len() > LENGTH, "{case}");
        let announced = unique_id(port, "ann");

        // Somewhere in the midst, and from the first octet on.
        bad_from.store(LENGTH as u64 / 2, Ordering::Relaxed);
        let got = retr(port, "ann");
        assert!(whole.starts_with(&got), "{case}: {} octets", got.len());
        assert!(got.starts_with(b"+OK ") && got.len() < LENGTH, "{case}");
        bad_from.store(0, Ordering::Relaxed);
        let got = retr(port, "ann");
        assert!(got.starts_with(b"-ERR"), "{case}: {}", got.escape_ascii());

        let near = other.message(1);
        assert!(near.starts_with(b"Subject: 0\r\n"), "{case}");
        bad_from.store(u64::MAX, Ordering::Relaxed);
        assert!(
            retr(port, "ann") == whole,
            "{case}: it is another message now"
        );
        assert_eq!(unique_id(port, "ann"), announced, "{case}");
        drop(server);
        drop(mounted);
    }
}
