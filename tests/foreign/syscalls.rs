//! The system calls of a poll of a maildrop in which nothing changed: a lock that is
//! taken and let go, and two stamps, however many messages there are. And those of
//! a server that nobody asks for anything: none.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::Client;
use crate::site::{PASSWORD, Protection, Site, USER, maildir, signal};

/// Sessions that are counted together.
const POLLS: usize = 10;
/// Sessions in a row that may find the directories too young to vouch for.
const PATIENCE: usize = 50;

fn poll(site: &Site, messages: usize) {
    let mut client = Client::login(site.port(Protection::Clear), USER, PASSWORD);
    let total = client.ok("STAT");
    assert_eq!(total.trim_end(), format!("+OK {messages} {}", 3 * messages));
    assert_eq!(client.listing("UIDL").len(), messages);
    client.quit();
}

/// What the server asked of the kernel for files while sessions were played.
fn traced(site: &Site, messages: usize) -> Vec<String> {
    let lines = calls_of(site, || {
        for _ in 0..POLLS {
            poll(site, messages);
        }
    });
    let of_files = |line: &String| {
        let call = call_in(line);
        let lock = call.starts_with("fcntl(") && call.contains("F_OFD_SETLK");
        let ours = call.contains("mail/") || call.starts_with("getdents64(");
        // The files of certificates are looked at where something happens to them.
        let certificates = call.contains(".pem\"");
        lock || ours || (call.starts_with("statx(") && !certificates)
    };
    lines.into_iter().filter(of_files).collect()
}

/// A line of the trace without the thread.
fn call_in(line: &str) -> &str {
    line.split_once(' ')
        .map_or("", |(_, call)| call.trim_start())
}

/// All that the server asked of the kernel for files meanwhile.
fn calls_of(site: &Site, work: impl FnOnce()) -> Vec<String> {
    let output = site.home().join("trace");
    let mut tracer = trace(site, "%file,getdents64,fcntl,read,pread64", &output);
    work();
    signal(&tracer, Signal::INT);
    tracer.wait().expect("a child");
    let lines = BufReader::new(File::open(&output).expect("a trace")).lines();
    lines.map(|line| line.expect("text")).collect()
}

/// Has strace write these calls of the server's threads to a file.
fn trace(site: &Site, calls: &str, output: &Path) -> Child {
    let mut tracer = Command::new("strace")
        .args(["-f", "-qq", "-e"])
        .arg(format!("trace={calls}"))
        .arg("-o")
        .arg(output)
        .arg("-p")
        .arg(site.pid().to_string())
        .env("LC_ALL", "C")
        .stderr(Stdio::piped())
        .spawn()
        .expect("strace is installed (Debian: strace)");
    await_attached(site.pid(), &mut tracer);
    tracer
}

/// Waits until every thread of the server is traced.
fn await_attached(pid: u32, tracer: &mut Child) {
    let started = Instant::now();
    let tasks = format!("/proc/{pid}/task");
    loop {
        let attached = fs::read_dir(&tasks).expect("it runs").all(|task| {
            let status = task.expect("an entry").path().join("status");
            let status = fs::read_to_string(status).unwrap_or_default();
            !status.contains("TracerPid:\t0\n")
        });
        if attached {
            return;
        }
        assert!(
            tracer.try_wait().expect("a child").is_none(),
            "strace ended"
        );
        assert!(started.elapsed().as_secs() < 60, "strace does not attach");
        thread::sleep(Duration::from_millis(5));
    }
}

fn fill(folder: &Path, messages: usize) {
    let mail = maildir(folder);
    for number in 0..messages {
        let (part, flags) = [("new", ""), ("cur", ":2,S")][number % 2];
        let name = format!("17{number:08}.M1P1.host{flags}");
        fs::write(mail.join(part).join(name), "x\n").expect("own folder");
    }
}

#[test]
fn an_unchanged_maildrop_of_any_size_costs_a_lock_and_two_stamps() {
    for messages in [10, 1_000, 100_000] {
        let site = Site::start_after(&[], "", |folder| fill(folder, messages));
        poll(&site, messages);
        let quiet = |calls: &Vec<String>| !calls.iter().any(|call| call.contains("getdents64("));
        // The first sessions find directories that have just been changed.
        let calls = (0..PATIENCE).map(|_| traced(&site, messages)).find(quiet);
        let calls = calls.expect("the directories stand still");
        let count = |part: &str| calls.iter().filter(|call| call.contains(part)).count();
        assert_eq!(count("F_OFD_SETLK, {l_type=F_WRLCK"), POLLS, "{calls:#?}");
        assert_eq!(count("F_OFD_SETLK, {l_type=F_UNLCK"), POLLS, "{calls:#?}");
        assert_eq!(count("statx("), 2 * POLLS, "{calls:#?}");
        assert_eq!(count("/new\""), POLLS, "{calls:#?}");
        assert_eq!(count("/cur\""), POLLS, "{calls:#?}");
        // Each of these and nothing else, of messages least of all.
        assert_eq!(calls.len(), 6 * POLLS, "{calls:#?}");
        site.stop();
    }
}

/// Names that are a path out of the maildrops' folder, or too long for any, and are in
/// the directory of users all the same.
#[test]
fn a_name_that_would_leave_is_refused_before_any_file_is_touched() {
    let long = "x".repeat(1000);
    let names = [
        "a@..", "..@a", "../..@a", "a@../..", "/etc@a", "a/b@a", "a@b/c", ".a@a", "a@.a", "a",
    ];
    let site = Site::start_after(&[], "", |folder| {
        let lines = names.map(|name| format!("{name}:{{PLAIN}}{PASSWORD}\n"));
        let users = folder.join("users");
        let before = fs::read_to_string(&users).expect("own folder");
        fs::write(users, before + &lines.concat()).expect("own folder");
    });
    let output = site.home().join("trace");
    let mut tracer = trace(&site, "%file,getdents64", &output);
    for name in names.iter().copied().chain([&*long]) {
        let port = site.port(Protection::Clear);
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it serves");
        let commands = format!("USER {name}\r\nPASS {PASSWORD}\r\nSTAT\r\nQUIT\r\n");
        stream.write_all(commands.as_bytes()).expect("written");
        let mut replies = String::new();
        stream.read_to_string(&mut replies).expect("an end");
        let refused = replies.lines().filter(|line| line.starts_with("-ERR"));
        assert!(refused.count() >= 2, "{name}: {replies}");
        assert!(!replies.contains("+OK logged in"), "{name}: {replies}");
    }
    // So that the trace is known to see a login.
    let seen = |output: &Path| fs::read_to_string(output).expect("a trace");
    let before = seen(&output);
    poll(&site, 0);
    signal(&tracer, Signal::INT);
    tracer.wait().expect("a child");
    assert_eq!(before, "");
    assert!(seen(&output).contains("example.net/alice"));
}

/// Nothing looks for anything now and then: what an idle machine costs is asleep.
#[test]
fn an_idle_server_makes_no_system_call() {
    const QUIET: Duration = Duration::from_secs(5);
    let site = Site::start_after(&[], "", |folder| fill(folder, 3));
    poll(&site, 3);
    // One that is logged in and says nothing; its autologout is minutes away.
    let idle = Client::login(site.port(Protection::Clear), USER, PASSWORD);
    let output = site.home().join("trace");
    let mut tracer = trace(&site, "all", &output);
    let begun = Instant::now();
    let (mut seen, mut since) = (0, begun);
    // What the start and the session have left to do comes to its end.
    while since.elapsed() < QUIET {
        let told = fs::metadata(&output).expect("a trace").len();
        if told != seen {
            (seen, since) = (told, Instant::now());
        }
        assert!(
            begun.elapsed().as_secs() < 60,
            "{}",
            fs::read_to_string(&output).expect("a trace")
        );
        thread::sleep(Duration::from_millis(20));
    }
    signal(&tracer, Signal::INT);
    tracer.wait().expect("a child");
    idle.quit();
    site.stop();
}

#[test]
fn a_new_message_costs_what_is_new_however_many_there_are() {
    const NEW: usize = 5;
    let mut costs = Vec::new();
    for old in [100, 10_000] {
        let site = Site::start_after(&[], "", |folder| {
            let mail = maildir(folder);
            for number in 0..old + NEW {
                let (part, flags) = if number < old {
                    ("cur", ":2,S")
                } else {
                    ("new", "")
                };
                let name = format!("17{number:08}.M1P1.host{flags}");
                fs::write(mail.join(part).join(name), "x\n").expect("own folder");
            }
        });
        let quiet = |calls: &Vec<String>| !calls.iter().any(|call| call.contains("getdents64("));
        let at_rest = (0..PATIENCE).map(|_| traced(&site, old + NEW)).find(quiet);
        at_rest.expect("the directories stand still");
        let mail = maildir(site.folder());
        let made = mail.join("tmp/1800000000.M1P1.host");
        fs::write(&made, "x\n").expect("own folder");
        fs::rename(&made, mail.join("new/1800000000.M1P1.host")).expect("own folder");
        let calls = calls_of(&site, || poll(&site, old + NEW + 1));
        let count = |part: &str| {
            let found = calls.iter().filter(|line| call_in(line).contains(part));
            found.count()
        };
        // Of messages the new one alone is opened, and new/ alone is listed: it has
        // eight entries with those for itself and what is above.
        assert_eq!(count("\"17"), 0, "{calls:#?}");
        assert_eq!(count("\"1800000000.M1P1.host\""), 1, "{calls:#?}");
        let listed = calls
            .iter()
            .filter(|line| call_in(line).starts_with("getdents64("));
        let listed: Vec<&String> = listed.collect();
        let known = |line: &&String| {
            let entries = [NEW + 3, 0].map(|entries| format!("/* {entries} entries */"));
            entries.iter().any(|entries| line.contains(entries))
        };
        assert!(
            !listed.is_empty() && listed.iter().all(known),
            "{listed:#?}"
        );
        // What was read of the index is what tells where it ends, and no more.
        let ours = |line: &&String| {
            let call = call_in(line);
            !call.contains(".pem\"") && !call.contains("unfinished") && !call.contains("resumed")
        };
        costs.push(calls.iter().filter(ours).count());
        site.stop();
    }
    let more = costs[1].abs_diff(costs[0]);
    assert!(more <= 4, "{costs:?} calls");
}
