//! The system calls of a poll of a maildrop in which nothing changed: a lock that is
//! taken and let go, and two stamps, however many messages there are. And those of
//! a server that nobody asks for anything: none.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::process::Signal;

use crate::client::Client;
use crate::site::{PASSWORD, Protection, Site, USER, maildir, signal};

/// Sessions that are counted together.
const POLLS: usize = 10;
/// How often they are.
const BATCHES: usize = 5;

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
    let mut tracer = trace(
        site,
        "%file,getdents64,fcntl,read,pread64,fsync,fdatasync",
        &output,
    );
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

/// What is opened in new/ and cur/, and which of these two is listed, whoever asks for it and
/// how: the kernel tells of both where files are opened, and a ring's operation is none of
/// the calls that strace sees.
struct Openings {
    told: OwnedFd,
    /// Which watch is which directory's.
    watches: Vec<(i32, &'static str)>,
}

impl Openings {
    fn watch(mail: &Path) -> Self {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let told = inotify::init(flags).expect("inotify");
        let events = inotify::WatchFlags::OPEN | inotify::WatchFlags::ACCESS;
        let watches = ["new", "cur"].map(|part| {
            let watch = inotify::add_watch(&told, mail.join(part), events);
            (watch.expect("a folder"), part)
        });
        Self {
            told,
            watches: watches.into(),
        }
    }

    /// All since the last look. Reads of messages are left out: each was opened before.
    fn seen(&mut self) -> Vec<String> {
        let mut buffer = [MaybeUninit::uninit(); 1 << 12];
        let mut reader = inotify::Reader::new(&self.told, &mut buffer);
        let mut seen = Vec::new();
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return seen,
                Err(error) => panic!("{error}"),
            };
            assert!(!event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW));
            let part = self.watches.iter().find(|(watch, _)| *watch == event.wd());
            let (_, part) = part.expect("one of the two");
            let opened = event.events().contains(inotify::ReadFlags::OPEN);
            match event.file_name() {
                Some(name) if opened => seen.push(format!("open {}", name.to_string_lossy())),
                Some(_) => {}
                None if opened => seen.push(format!("open {part}")),
                None => seen.push(format!("list {part}")),
            }
        }
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

/// Has the index vouch for directories that nothing changes any more: a session that began
/// once their last change was older than the grain of any clock.
fn settle(site: &Site, messages: usize) {
    const GRAIN: Duration = Duration::from_millis(500);
    let mail = maildir(site.folder());
    let is_old = |part: &str| {
        let changed = fs::metadata(mail.join(part)).and_then(|folder| folder.modified());
        let age = SystemTime::now().duration_since(changed.expect("own folder"));
        age.is_ok_and(|age| age > GRAIN)
    };
    while !is_old("new") || !is_old("cur") {
        thread::sleep(Duration::from_millis(20));
    }
    poll(site, messages);
}

#[test]
fn an_unchanged_maildrop_of_any_size_costs_a_lock_and_two_stamps() {
    for messages in [10, 1_000, 100_000] {
        let site = Site::start_after(&[], "", |folder| fill(folder, messages));
        settle(&site, messages);
        let mut openings = Openings::watch(&maildir(site.folder()));
        let batches: Vec<Vec<String>> = (0..BATCHES).map(|_| traced(&site, messages)).collect();
        for calls in &batches {
            for never in ["getdents64(", "M1P1.host", "popcore.index"] {
                let found = calls.iter().find(|line| call_in(line).contains(never));
                assert!(found.is_none(), "{messages} messages: {found:?}");
            }
        }
        // A rename elsewhere on the machine may have the pool ask for the stamps again.
        let calls = batches
            .iter()
            .min_by_key(|calls| calls.len())
            .expect("some");
        let count = |part: &str| calls.iter().filter(|call| call.contains(part)).count();
        assert_eq!(count("F_OFD_SETLK, {l_type=F_WRLCK"), POLLS, "{calls:#?}");
        assert_eq!(count("F_OFD_SETLK, {l_type=F_UNLCK"), POLLS, "{calls:#?}");
        assert_eq!(count("statx("), 2 * POLLS, "{calls:#?}");
        assert_eq!(count("/new\""), POLLS, "{calls:#?}");
        assert_eq!(count("/cur\""), POLLS, "{calls:#?}");
        // Each of these and nothing else: as many whatever the number of messages is.
        assert_eq!(calls.len(), 6 * POLLS, "{calls:#?}");
        // Nor did the ring open anything, whose operations are no calls.
        assert_eq!(openings.seen(), Vec::<String>::new());
        let mut client = Client::login(site.port(Protection::Clear), USER, PASSWORD);
        assert_eq!(client.message(1), b"x\r\n");
        client.quit();
        assert_eq!(openings.seen(), ["open 1700000000.M1P1.host"]);
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
        settle(&site, old + NEW);
        let mail = maildir(site.folder());
        let name = name_of_a_later_second(&mail);
        let made = mail.join("tmp").join(&name);
        fs::write(&made, "x\n").expect("own folder");
        fs::rename(&made, mail.join("new").join(&name)).expect("own folder");
        let mut openings = Openings::watch(&mail);
        let calls = calls_of(&site, || poll(&site, old + NEW + 1));
        let count = |part: &str| {
            let found = calls.iter().filter(|line| call_in(line).contains(part));
            found.count()
        };
        // Of messages the new one alone is opened, and new/ alone is listed: it has
        // eight entries with those for itself and what is above.
        assert_eq!(count("\"170"), 0, "{calls:#?}");
        assert_eq!(count(&format!("\"{name}\"")), 1, "{calls:#?}");
        let opened = openings.seen();
        let ours = |one: &&String| !one.ends_with(" new") && !one.ends_with(" cur");
        let files: Vec<&String> = opened.iter().filter(ours).collect();
        assert_eq!(files, [&format!("open {name}")]);
        let listed = |what: &str| opened.iter().any(|one| one == what);
        assert!(listed("list new") && !listed("list cur"), "{opened:?}");
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
    // Threads of the pool that have nothing to do with it make some at times; a call for
    // each of the others would be ten thousand.
    let more = costs[1].abs_diff(costs[0]);
    assert!(more <= 16, "{costs:?} calls");
}

/// What a power loss may take from the index follows from the names of files and from lists
/// that stay, but for a unique-id that had to be made up.
#[test]
fn what_the_index_alone_remembers_is_on_the_disk_before_it_is_announced() {
    let site = Site::start_after(&[], "", |folder| fill(folder, 3));
    settle(&site, 3);
    let mail = maildir(site.folder());
    let mut synced = Vec::new();
    for (messages, file) in [
        (4, "new/1700000009.M1P1.host"),
        (5, "cur/1700000009.M1P1.host:2,S"),
    ] {
        fs::write(mail.join(file), "x\n").expect("own folder");
        let calls = calls_of(&site, || poll(&site, messages));
        let count = |part| {
            calls
                .iter()
                .filter(|line| call_in(line).starts_with(part))
                .count()
        };
        synced.push((count("fdatasync("), count("fsync(")));
        settle(&site, messages);
    }
    // Two files of one name: one of them is announced by what is no name.
    assert_eq!(synced, [(0, 0), (1, 1)]);
    site.stop();
}

/// The name that an MTA gives a message now, once a second has passed since the Maildir
/// last changed.
fn name_of_a_later_second(mail: &Path) -> String {
    let changed = ["new", "cur"].map(|part| {
        let folder = fs::metadata(mail.join(part)).expect("own folder");
        folder.modified().expect("a time")
    });
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).expect("now").as_secs();
    let last = changed.map(seconds).into_iter().max().expect("two");
    loop {
        let now = seconds(SystemTime::now());
        if now > last {
            return format!("{now}.M1P1.host");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Where `io_uring` is for one group (`kernel.io_uring_disabled` 1), that is the server's: no
/// ring may be made before the server has become whom it serves as.
#[test]
fn rings_are_made_by_whom_the_server_serves_as() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("popcore.toml");
    fs::write(folder.path().join("users"), "").expect("own folder");
    fs::create_dir(folder.path().join("mail")).expect("own folder");
    // It ends by itself once it has begun: its folder is closed to that user, and its log
    // is to lie there.
    let text = "[server]\nhostname = \"localhost\"\nshards = 1\nuser = 65534\ngroup = 65534\n\
                [[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"none\"\n\
                [auth]\nplaintext_without_tls = true\n\
                [[auth.directory]]\nkind = \"passwd-file\"\npath = \"users\"\n\
                [maildrop]\npath = \"mail/{user}\"\n[log]\ntarget = \"log\"\n";
    fs::write(&config, text).expect("own folder");
    let trace = folder.path().join("trace");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=setuid,io_uring_setup", "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_popcore"))
        .args(["serve", "--config"])
        .arg(&config)
        .output()
        .expect("strace is installed (Debian: strace)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let calls = fs::read_to_string(trace).expect("a trace");
    let first = |call| {
        calls
            .find(call)
            .unwrap_or_else(|| panic!("no {call}: {calls}{said}"))
    };
    assert!(first("setuid(65534)") < first("io_uring_setup("), "{calls}");
}
