//! What the index of a maildrop costs and saves: a first login that makes it, one
//! after a restart that reads it, one after a delivery that appends to it, looking
//! messages up, and the listing of unique-ids. Warm page cache.
//!
//! A delivery is measured twice: with mail that came a moment before the login, as it
//! seldom does, and where the listing waits for a tick of the clock to end.
//!
//! Behind these the bounds are held, end to end where a client waits: the first login
//! beside the reading of all files, and one after a delivery beside the bare listing of its
//! directory, in turns; with a server of one shard that is started
//! again and again, PASS and STAT of the first session and of the second, and what a
//! listing of all unique-ids costs the shard.
//!
//! `cargo bench --bench index -- --test` runs each once, with fewer messages behind the
//! socket and without the bounds; every answer is asserted.

use std::cell::Cell;
use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use criterion::{BatchSize, BenchmarkGroup, Criterion, criterion_group};
use popcore::maildrop::{Location, Maildrops, Opened, Standing, locate};
use popcore::proto::MessageNumber;
use rustix::fs::RawDir;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tempfile::TempDir;

const LINE: &str = "A line of a usual message, as long as most lines of mail are here.\n";
const LINES: usize = 61;
/// Octets of a message on the wire: a CR for each line, and none missing.
const OCTETS: u64 = ((LINE.len() + 1) * LINES) as u64;
/// Room for every snapshot here.
const CACHE: usize = 1 << 30;
/// Longer than a tick of any kernel's clock, within which a change is waited for.
const SETTLED: Duration = Duration::from_millis(120);

/// A first login takes at most so many times what reading all files takes.
const COLD: f64 = 3.0;
/// A login after one delivery takes at most so many times what listing its directory takes.
const DELIVERED: f64 = 1.3;
/// PASS and STAT of the first session after a restart, with 100,000 messages.
const RESTARTED: Duration = Duration::from_millis(15);
/// The same with the snapshot in memory.
const REMEMBERED: Duration = Duration::from_millis(1);
/// What a listing of all unique-ids costs the shard.
const UNIQUE_IDS: Duration = Duration::from_millis(12);
/// Octets of memory that a snapshot of them takes.
const MEMORY: usize = 8 << 20;

/// A Maildir with that many messages, half of them in new/. `text` is what each
/// holds; its octets are those of the whole of it in the index alone.
fn maildir(messages: usize, text: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for part in ["new", "cur", "tmp"] {
        fs::create_dir(folder.path().join(part)).expect("a folder");
    }
    for message in 0..messages {
        let (part, flags) = [("new", ""), ("cur", ":2,S")][message % 2];
        let name = format!("{part}/17{message:08}.M1P7890_{message:06}.mx.example.org{flags}");
        fs::write(folder.path().join(name), text).expect("a message");
    }
    folder
}

fn read_all(root: &Path, buffer: &mut Vec<u8>) -> usize {
    let mut octets = 0;
    for part in ["new", "cur"] {
        for entry in fs::read_dir(root.join(part)).expect("a folder") {
            buffer.clear();
            let path = entry.expect("an entry").path();
            let mut file = fs::File::open(path).expect("a message");
            octets += file.read_to_end(buffer).expect("a message");
        }
    }
    octets
}

/// A login in a process that was just started.
fn restarted(at: &Location) -> (Maildrops, Opened) {
    let maildrops = Maildrops::new(CACHE);
    let opened = maildrops.open(at).expect("it opens");
    (maildrops, opened)
}

/// Logs in until the index can vouch for the directories.
fn settle(at: &Location) -> (Maildrops, Opened) {
    loop {
        let (maildrops, opened) = restarted(at);
        if matches!(opened.snapshot.standing(), Standing::Settled { .. }) {
            return (maildrops, opened);
        }
    }
}

fn first_login(criterion: &mut Criterion) {
    const MESSAGES: usize = 10_000;
    let folder = maildir(MESSAGES, &LINE.repeat(LINES));
    let at = Location::beside(folder.path());
    let mut group = criterion.benchmark_group(format!("{MESSAGES} messages of 4 KiB, no index"));
    group.sample_size(20);
    let mut buffer = Vec::new();
    group.bench_function("read all files", |bencher| {
        let whole = LINE.len() * LINES * MESSAGES;
        bencher.iter(|| assert_eq!(read_all(folder.path(), &mut buffer), whole));
    });
    group.bench_function("login that makes the index", |bencher| {
        bencher.iter_batched(
            || fs::remove_file(folder.path().join("popcore.index")),
            |_| {
                let (maildrops, opened) = restarted(&at);
                assert_eq!(opened.snapshot.len(), MESSAGES);
                assert_eq!(opened.snapshot.total().get(), OCTETS * MESSAGES as u64);
                (maildrops, opened)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn later_logins(criterion: &mut Criterion) {
    for messages in [1_000, 100_000] {
        let folder = maildir(messages, "x\n");
        let at = Location::beside(folder.path());
        let (maildrops, opened) = settle(&at);
        assert_eq!(opened.snapshot.total().get(), 3 * messages as u64);
        let memory = opened.snapshot.memory();
        println!("{messages} messages: the snapshot takes {memory} octets");
        assert!(memory <= MEMORY, "{memory} octets");
        drop(opened);
        let mut group = criterion.benchmark_group(format!("{messages} messages, indexed"));
        group.sample_size(20);
        group.bench_function("login after a restart", |bencher| {
            // Each lets go of the lock before the next.
            bencher.iter_batched(
                || (),
                |()| {
                    let (maildrops, opened) = restarted(&at);
                    assert_eq!(opened.snapshot.len(), messages);
                    (maildrops, opened)
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function("login with the snapshot in memory", |bencher| {
            bencher.iter(|| {
                let opened = maildrops.open(&at).expect("it opens");
                assert_eq!(opened.snapshot.len(), messages);
                opened
            });
        });
        listing(&mut group, &maildrops, &at);
        lookup(&mut group, &maildrops, &at);
        delivery(&mut group, &maildrops, &at);
        group.finish();
    }
}

fn listing(
    group: &mut BenchmarkGroup<'_, criterion::measurement::WallTime>,
    maildrops: &Maildrops,
    at: &Location,
) {
    let opened = maildrops.open(at).expect("it opens");
    let snapshot = &opened.snapshot;
    let mut out = Vec::new();
    group.bench_function("unique-ids of all", |bencher| {
        bencher.iter(|| {
            out.clear();
            let mut message = Some(MessageNumber::FIRST);
            while let Some(number) = message
                && snapshot.octets(number).is_some()
            {
                snapshot.write_uidl(number, &mut out);
                out.push(b'\n');
                message = number.next();
            }
            let rows = memchr::memchr_iter(b'\n', &out).count();
            assert_eq!(rows, snapshot.len());
        });
    });
}

fn delivery(
    group: &mut BenchmarkGroup<'_, criterion::measurement::WallTime>,
    maildrops: &Maildrops,
    at: &Location,
) {
    let before = maildrops.open(at).expect("it opens").snapshot.len();
    let there = Cell::new(before);
    let now = || UNIX_EPOCH.elapsed().expect("it is later").as_secs();
    for (what, age) in [("", SETTLED), (" just now", Duration::ZERO)] {
        let what = format!("login after one delivery into new/{what}");
        group.bench_function(what, |bencher| {
            bencher.iter_batched(
                || {
                    // Named like mail that came since, not in the same second.
                    thread::sleep(SETTLED);
                    let listed = now();
                    while now() == listed {
                        thread::sleep(SETTLED);
                    }
                    let name = at.path.join(format!("new/{}.new", now()));
                    fs::write(&name, "x\n").expect("a message");
                    there.set(there.get() + 1);
                    thread::sleep(age);
                },
                |()| {
                    let opened = maildrops.open(at).expect("it opens");
                    assert_eq!(opened.snapshot.len(), there.get());
                    opened
                },
                BatchSize::PerIteration,
            );
        });
    }
    let index = fs::metadata(at.path.join("popcore.index")).expect("an index");
    assert!(
        index.len() < 300 * before as u64 + 16_384,
        "{} octets",
        index.len()
    );
}

/// A message by its number, and the file of one that another program renamed, by its
/// unique name.
fn lookup(
    group: &mut BenchmarkGroup<'_, criterion::measurement::WallTime>,
    maildrops: &Maildrops,
    at: &Location,
) {
    let opened = maildrops.open(at).expect("it opens");
    let snapshot = &opened.snapshot;
    let count = u32::try_from(snapshot.len()).expect("fewer");
    let mut next = 0;
    // Coprime with any number of messages here: all of them, far from each other.
    let mut number = || {
        next = (next + 61_927) % count;
        MessageNumber::new(next + 1).expect("not 0")
    };
    group.bench_function("octets, unique-id and path of a message", |bencher| {
        let mut out = Vec::new();
        bencher.iter(|| {
            let number = number();
            out.clear();
            snapshot.write_uidl(number, &mut out);
            assert_eq!(
                snapshot.octets(number).map(popcore::proto::Octets::get),
                Some(3)
            );
            let path = snapshot.path(number).expect("in range");
            assert_eq!(snapshot.unique_name(number), Some(&*out));
            path
        });
    });
    let renamed = number();
    let (from, to) = {
        let path = snapshot.path(renamed).expect("in range");
        let unique = snapshot.unique_name(renamed).expect("in range");
        let unique = String::from_utf8_lossy(unique).into_owned();
        (path, at.path.join("cur").join(format!("{unique}:2,F")))
    };
    fs::rename(&from, &to).expect("it is there");
    thread::sleep(SETTLED);
    group.bench_function("the file of one that was renamed", |bencher| {
        bencher.iter(|| {
            locate(snapshot, renamed)
                .expect("it can be read")
                .expect("there")
        });
    });
    fs::rename(&to, &from).expect("it is there");
    drop(opened);
    thread::sleep(SETTLED);
    drop(maildrops.open(at).expect("it opens"));
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort();
    values[values.len() / 2]
}

/// First logins and readings of all files, in turns.
fn hold_first_login(test: bool) {
    const MESSAGES: usize = 10_000;
    let folder = maildir(MESSAGES, &LINE.repeat(LINES));
    let at = Location::beside(folder.path());
    let (mut readings, mut logins, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..if test { 1 } else { 9 } {
        let begun = Instant::now();
        let whole = LINE.len() * LINES * MESSAGES;
        assert_eq!(read_all(folder.path(), &mut buffer), whole);
        readings.push(begun.elapsed());
        let begun = Instant::now();
        let (maildrops, opened) = restarted(&at);
        logins.push(begun.elapsed());
        assert_eq!(opened.snapshot.total().get(), OCTETS * MESSAGES as u64);
        drop((opened, maildrops));
        fs::remove_file(folder.path().join("popcore.index")).expect("an index");
    }
    let (reading, login) = (median(readings), median(logins));
    let ratio = login.as_secs_f64() / reading.as_secs_f64();
    println!("first login {login:?}, reading {reading:?}: {ratio:.2} times, {COLD} allowed");
    assert!(test || ratio <= COLD, "{ratio}");
}

/// A login after one delivery and the bare listing of the directory that it came into, in
/// turns. The first login of a process has to go through all that is known once, and is not
/// among them.
fn hold_delivery(test: bool) {
    let (messages, rounds) = if test { (2_000, 1) } else { (100_000, 9) };
    let folder = maildir(messages, "x\n");
    let at = Location::beside(folder.path());
    let (maildrops, opened) = settle(&at);
    drop(opened);
    let new = folder.path().join("new");
    let (mut listings, mut logins, mut buffer) =
        (Vec::new(), Vec::new(), Vec::with_capacity(256 << 10));
    for round in 0..=rounds {
        let second = || UNIX_EPOCH.elapsed().expect("it is later").as_secs();
        let last = second();
        while second() == last {
            thread::sleep(SETTLED);
        }
        fs::write(new.join(format!("{}.new", second())), "x\n").expect("a message");
        thread::sleep(SETTLED);
        let begun = Instant::now();
        let listed = entries(&new, &mut buffer);
        let listing = begun.elapsed();
        assert_eq!(listed, messages / 2 + round + 1);
        let begun = Instant::now();
        let opened = maildrops.open(&at).expect("it opens");
        let login = begun.elapsed();
        assert_eq!(opened.snapshot.len(), messages + round + 1);
        if round > 0 {
            listings.push(listing);
            logins.push(login);
        } else {
            println!("first login after a delivery {login:?}, listing {listing:?}");
        }
    }
    let (listing, login) = (median(listings), median(logins));
    let ratio = login.as_secs_f64() / listing.as_secs_f64();
    println!(
        "login after a delivery {login:?}, listing {listing:?}: {ratio:.2} times, {DELIVERED} allowed"
    );
    assert!(test || ratio <= DELIVERED, "{ratio}");
}

/// How many files a directory shows, read as a listing reads it.
fn entries(folder: &Path, buffer: &mut Vec<u8>) -> usize {
    let folder = fs::File::open(folder).expect("a folder");
    let mut entries = RawDir::new(folder, buffer.spare_capacity_mut());
    let mut files = 0;
    while let Some(entry) = entries.next() {
        let entry = entry.expect("an entry");
        files += usize::from(!entry.file_name().to_bytes().starts_with(b"."));
    }
    files
}

/// A server with one shard on CPU 0, where its other threads are as well.
struct Server {
    child: Child,
    address: SocketAddr,
    /// The CPU time of the shard's thread, in nanoseconds, is the first number there.
    schedule: PathBuf,
}

impl Server {
    fn start(folder: &Path) -> Server {
        let port = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = port.local_addr().expect("bound");
        drop(port);
        let text = format!(
            "[server]\nshards = 1\n[[listener]]\naddress = \"{address}\"\ntls = \"none\"\n\
             [auth]\nplaintext_without_tls = true\n[[auth.directory]]\nkind = \"static\"\n\
             users = [\"ann:{{PLAIN}}secret\"]\n[maildrop]\npath = \"mail/{{user}}\"\n\
             [log]\ntarget = \"log\"\n"
        );
        fs::write(folder.join("popcore.toml"), text).expect("own folder");
        pin(0);
        let child = Command::new(env!("CARGO_BIN_EXE_popcore"))
            .args(["serve", "--config"])
            .arg(folder.join("popcore.toml"))
            .stdin(Stdio::null())
            .spawn()
            .expect("it starts");
        pin(1);
        let mut server = Server {
            child,
            address,
            schedule: PathBuf::new(),
        };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            let waited = started.elapsed();
            assert!(waited < Duration::from_secs(20), "it does not serve");
            thread::sleep(Duration::from_millis(5));
        }
        // Greeted by the shard, which has its name by then.
        drop(Client::connect(&server));
        let tasks = fs::read_dir(format!("/proc/{}/task", server.child.id())).expect("it runs");
        let mut tasks = tasks.map(|task| task.expect("an entry").path());
        let is_shard = |task: &PathBuf| {
            fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("shard-0"))
        };
        server.schedule = tasks.find(is_shard).expect("a shard").join("schedstat");
        server
    }

    fn shard_time(&self) -> Duration {
        let text = fs::read_to_string(&self.schedule).expect("it runs");
        let nanos = text.split(' ').next().expect("a number");
        Duration::from_nanos(nanos.parse().expect("a number"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// On that one of the CPUs that this process may use, where there are as many.
fn pin(at: usize) {
    static ALL: std::sync::OnceLock<CpuSet> = std::sync::OnceLock::new();
    let all = ALL.get_or_init(|| sched_getaffinity(None).expect("an affinity"));
    let allowed: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|cpu| all.is_set(*cpu))
        .collect();
    let mut cpus = CpuSet::new();
    cpus.set(allowed[at.min(allowed.len() - 1)]);
    sched_setaffinity(None, &cpus).expect("an allowed CPU");
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(server: &Server) -> Client {
        let stream = TcpStream::connect(server.address).expect("a server");
        stream.set_nodelay(true).expect("an option");
        let mut client = Client(BufReader::with_capacity(1 << 16, stream));
        client.good();
        client
    }

    fn good(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a reply");
        assert!(line.starts_with("+OK"), "{line}");
        line
    }

    fn say(&mut self, command: &str) -> String {
        let command = format!("{command}\r\n");
        self.0
            .get_mut()
            .write_all(command.as_bytes())
            .expect("open");
        self.good()
    }

    /// A session up to the answer to STAT; how long PASS and STAT took.
    fn log_in(server: &Server, messages: usize) -> (Client, Duration) {
        let mut client = Client::connect(server);
        client.say("USER ann");
        let begun = Instant::now();
        client.say("PASS secret");
        let told = client.say("STAT");
        let took = begun.elapsed();
        assert_eq!(told, format!("+OK {messages} {}\r\n", 3 * messages));
        (client, took)
    }

    /// Rows up to the terminator.
    fn rows(&mut self, command: &str) -> usize {
        self.say(command);
        let (mut rows, mut line) = (0, Vec::new());
        loop {
            line.clear();
            self.0.read_until(b'\n', &mut line).expect("a row");
            if line == b".\r\n" {
                return rows;
            }
            rows += 1;
        }
    }
}

/// Logins over a socket after restarts.
fn hold_restarts(test: bool) {
    let (messages, restarts) = if test { (2_000, 1) } else { (100_000, 9) };
    let folder = tempfile::tempdir().expect("a folder");
    let mail = folder.path().join("mail/ann");
    fs::create_dir_all(folder.path().join("mail")).expect("own folder");
    fs::rename(maildir(messages, "x\n").keep(), &mail).expect("own folder");
    drop(settle(&Location::beside(&mail)));
    let (mut first, mut second, mut listings) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..restarts {
        let server = Server::start(folder.path());
        let (mut client, took) = Client::log_in(&server, messages);
        first.push(took);
        client.say("QUIT");
        let (mut client, took) = Client::log_in(&server, messages);
        second.push(took);
        let before = server.shard_time();
        assert_eq!(client.rows("UIDL"), messages);
        listings.push(server.shard_time().saturating_sub(before));
        client.say("QUIT");
    }
    println!("{messages} messages, PASS and STAT over a socket, {restarts} restarts:");
    for (what, values, bound) in [
        ("first session after a restart", first, RESTARTED),
        ("second session", second, REMEMBERED),
        ("UIDL of all, the shard's CPU time", listings, UNIQUE_IDS),
    ] {
        let most = values.iter().max().copied();
        let median = median(values);
        println!("{what:>36}: median {median:?}, most {most:?}; {bound:?} allowed");
        assert!(test || median <= bound, "{what}: {median:?}");
    }
}

criterion_group!(benches, first_login, later_logins);

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // A name picks measurements; these have none.
    if arguments.iter().all(|argument| argument.starts_with("--")) {
        let test = arguments.iter().any(|argument| argument == "--test");
        hold_first_login(test);
        hold_delivery(test);
        hold_restarts(test);
    }
}
