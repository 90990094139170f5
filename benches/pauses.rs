//! What a maildrop of 100,000 messages does to the other sessions of its shard: one
//! session logs in without an index and lists everything, mail comes, it logs in again;
//! after a restart it logs in with the index, lists everything, marks every message and
//! says QUIT. What the steps cost the shard is its thread's CPU time.
//!
//! Meanwhile other sessions of the shard are asked something at fixed times, whether what
//! was asked before is answered or not, and what is noted is the time from when a question
//! was due to its answer: who waited for the answers would ask least where it takes longest.
//! Questions are told apart by the step in which they were unanswered, and short steps are
//! repeated until there are enough of them for a quantile.
//!
//! Not criterion: what is measured is the server's answers to others. The server has
//! one shard on CPU 0, where its other threads are as well, the clients run on CPU 1, those
//! that ask before all others there where the system lets them (`SCHED_FIFO`, root).
//! The machine itself pauses at times, so the same is noted while nobody else is there.
//! Every answer is asserted, and so are the bounds, for each step by itself.
//!
//! `cargo bench --bench pauses -- --test` runs one round with fewer messages.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use rustix::thread::{CpuSet, sched_setaffinity};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Sessions that are asked, one after the other.
const SMALL: usize = 8;
const SMALL_MESSAGES: usize = 20;
/// From one question to the next.
const EVERY: Duration = Duration::from_micros(500);
/// What they are asked. The answers have one line each.
const QUESTIONS: [&str; 4] = ["NOOP\r\n", "STAT\r\n", "UIDL 7\r\n", "LIST 20\r\n"];
/// How long others are watched while nobody works on the large maildrop.
const IDLE: Duration = Duration::from_secs(5);

/// Of 100 questions in a step 99 are answered within this.
const PATIENCE: Duration = Duration::from_millis(10);
/// Fewer questions tell nothing of the hundredth.
const ENOUGH: usize = 200;
/// What a listing of all unique-ids may cost the shard.
const LISTING: Duration = Duration::from_millis(12);

fn main() {
    let test = std::env::args().any(|argument| argument == "--test");
    let (rounds, messages) = if test { (1, 2_000) } else { (5, 100_000) };
    let folder = tempfile::tempdir().expect("a folder");
    let mut costs = Costs::default();
    let server = Server::start(folder.path());
    pin(1);
    watch(&server, &mut costs, |costs| {
        let idle = if test { IDLE / 10 } else { IDLE };
        Meter(&server, costs).step("nobody else there", &mut || thread::sleep(idle));
    });
    drop(server);
    for _ in 0..rounds {
        let mail = folder.path().join("mail/large");
        fill(&mail, messages);
        for part in [Part::Cold, Part::Warm] {
            pin(0);
            let server = Server::start(folder.path());
            pin(1);
            watch(&server, &mut costs, |costs| {
                let large = Large {
                    server: &server,
                    messages,
                    mail: &mail,
                    again: if test { 1 } else { 8 },
                };
                large.play(part, &mut Meter(&server, costs));
            });
        }
    }
    costs.show();
    assert!(test || costs.are_kept());
}

/// One time that a step was gone through.
struct Once {
    from: Instant,
    to: Instant,
    shard: Duration,
}

/// A step of the large session.
struct Step {
    name: &'static str,
    times: Vec<Once>,
    /// How long others waited for an answer meanwhile.
    waits: Vec<Duration>,
}

/// What the steps of the large session took, in order.
#[derive(Default)]
struct Costs(Vec<Step>);

impl Costs {
    fn add(&mut self, name: &'static str, once: Once) {
        match self.0.iter_mut().find(|step| step.name == name) {
            Some(step) => step.times.push(once),
            None => self.0.push(Step {
                name,
                times: vec![once],
                waits: Vec::new(),
            }),
        }
    }

    /// Notes a question with every step in which it was unanswered.
    fn note(&mut self, asked: Instant, answered: Instant) {
        for step in &mut self.0 {
            let mut latest = step.times.iter().rev();
            if latest.any(|once| asked <= once.to && answered >= once.from) {
                step.waits.push(answered - asked);
            }
        }
    }

    fn show(&mut self) {
        println!(
            "{:>28} {:>6} {:>9} {:>9} {:>9} | {:>9} {:>8} {:>8} {:>8}",
            "step",
            "times",
            "wall ms",
            "shard ms",
            "most",
            "questions",
            "p50 ms",
            "p99 ms",
            "max ms"
        );
        for step in &mut self.0 {
            let mut walls: Vec<_> = step.times.iter().map(|once| once.to - once.from).collect();
            walls.sort();
            step.waits.sort();
            println!(
                "{:>28} {:>6} {:>9.1} {:>9.1} {:>9.1} | {:>9} {:>8.3} {:>8.3} {:>8.3}",
                step.name,
                walls.len(),
                millis(walls[walls.len() / 2]),
                millis(step.shard(500)),
                millis(step.shard(1000)),
                step.waits.len(),
                millis(of(&step.waits, 500)),
                millis(of(&step.waits, 990)),
                millis(of(&step.waits, 1000)),
            );
        }
    }

    /// Whether the bounds are; says which is not.
    fn are_kept(&self) -> bool {
        let mut kept = true;
        for step in &self.0 {
            let p99 = of(&step.waits, 990);
            if p99 >= PATIENCE || step.waits.len() < ENOUGH {
                println!("{}: {p99:?}, {} questions", step.name, step.waits.len());
                kept = false;
            }
            let shard = step.shard(1000);
            if step.name == UNIQUE_IDS && shard >= LISTING {
                println!("{}: {shard:?} of the shard", step.name);
                kept = false;
            }
        }
        kept
    }
}

impl Step {
    /// The shard's time in that part of a thousand of the times that took it least.
    fn shard(&self, part: usize) -> Duration {
        let mut shards: Vec<_> = self.times.iter().map(|once| once.shard).collect();
        shards.sort();
        of(&shards, part)
    }
}

/// The value that so many of a thousand are at most; nothing where there is none.
fn of(sorted: &[Duration], part: usize) -> Duration {
    let at = (sorted.len() * part).div_ceil(1000).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

/// Times the steps.
struct Meter<'a>(&'a Server, &'a mut Costs);

impl Meter<'_> {
    fn step(&mut self, what: &'static str, work: &mut dyn FnMut()) {
        let Self(server, costs) = self;
        let (from, before) = (Instant::now(), server.shard_time());
        work();
        let (to, shard) = (Instant::now(), server.shard_time().saturating_sub(before));
        costs.add(what, Once { from, to, shard });
    }
}

fn pin(cpu: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus).expect("two CPUs");
}

fn fill(path: &Path, messages: usize) {
    for part in ["new", "cur", "tmp"] {
        fs::create_dir_all(path.join(part)).expect("own folder");
    }
    let _ = fs::remove_file(path.join("popcore.index"));
    for message in 0..messages {
        let (part, flags) = [("new", ""), ("cur", ":2,S")][message % 2];
        let name = format!("{part}/17{message:08}.M1P7890_{message:06}.mx.example.org{flags}");
        fs::write(path.join(name), "x\n").expect("own folder");
    }
}

/// The server with its users.
struct Server {
    child: Child,
    address: SocketAddr,
    /// The CPU time of the shard's thread, in nanoseconds, is the first number there.
    schedule: PathBuf,
}

impl Server {
    fn start(folder: &Path) -> Server {
        let mut users = "large:{PLAIN}secret\n".to_owned();
        for small in 0..SMALL {
            writeln!(users, "small{small}:{{PLAIN}}secret").expect("a String");
            fill(&folder.join(format!("mail/small{small}")), SMALL_MESSAGES);
        }
        fs::write(folder.join("users"), users).expect("own folder");
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = port.local_addr().expect("bound");
        drop(port);
        let text = format!(
            "[server]\nshards = 1\n[[listener]]\naddress = \"{address}\"\ntls = \"none\"\n\
             [auth]\nplaintext_without_tls = true\n[[auth.directory]]\nkind = \"passwd-file\"\n\
             path = \"users\"\n[maildrop]\npath = \"mail/{{user}}\"\n[log]\ntarget = \"log\"\n"
        );
        fs::write(folder.join("popcore.toml"), text).expect("own folder");
        pin(0);
        let child = Command::new(env!("CARGO_BIN_EXE_popcore"))
            .args(["serve", "--config"])
            .arg(folder.join("popcore.toml"))
            .stdin(Stdio::null())
            .spawn()
            .expect("it starts");
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
        let shard = tasks
            .map(|task| task.expect("an entry").path())
            .find(|task| {
                fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("shard-0"))
            });
        server.schedule = shard.expect("a shard").join("schedstat");
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
        let stream = self.0.get_mut();
        stream
            .write_all(format!("{command}\r\n").as_bytes())
            .expect("open");
        self.good()
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

impl Client {
    fn delete_up_to(&mut self, last: usize) {
        let mut numbers = 1..=last;
        loop {
            let burst: Vec<String> = numbers
                .by_ref()
                .take(500)
                .map(|n| format!("DELE {n}\r\n"))
                .collect();
            if burst.is_empty() {
                return;
            }
            let stream = self.0.get_mut();
            stream.write_all(burst.concat().as_bytes()).expect("open");
            for _ in &burst {
                self.good();
            }
        }
    }
}

/// Notes how long others wait for answers while something else is done.
fn watch(server: &Server, costs: &mut Costs, work: impl FnOnce(&mut Costs)) {
    let streams: Vec<TcpStream> = (0..SMALL)
        .map(|small| {
            let mut client = Client::connect(server);
            client.say(&format!("USER small{small}"));
            client.say("PASS secret");
            client.0.into_inner()
        })
        .collect();
    // How many questions there are in all, once that is known.
    let last = AtomicUsize::new(usize::MAX);
    let begun = Instant::now();
    let due = |question: usize| begun + EVERY * u32::try_from(question).expect("a short bench");
    let noted = thread::scope(|scope| {
        let answers: Vec<_> = streams
            .iter()
            .enumerate()
            .map(|(first, stream)| {
                let last = &last;
                scope.spawn(move || {
                    come_first();
                    let stream = stream.try_clone().expect("a descriptor");
                    let mut client = Client(BufReader::new(stream));
                    let mut answered = Vec::new();
                    let mut question = first;
                    while question < last.load(Ordering::Acquire) {
                        client.good();
                        answered.push((due(question), Instant::now()));
                        question += SMALL;
                    }
                    answered
                })
            })
            .collect();
        let asking = scope.spawn(|| {
            come_first();
            for question in 0.. {
                thread::sleep(due(question).saturating_duration_since(Instant::now()));
                let mut stream = &streams[question % SMALL];
                let text = QUESTIONS[question / SMALL % QUESTIONS.len()];
                stream.write_all(text.as_bytes()).expect("open");
                // Nobody is left to wait for an answer to what is not asked.
                if question >= last.load(Ordering::Acquire).saturating_sub(1) {
                    return;
                }
            }
        });
        work(costs);
        let asked = usize::try_from(begun.elapsed().as_nanos() / EVERY.as_nanos()).expect("short");
        last.store(asked + 4 * SMALL, Ordering::Release);
        asking.join().expect("no panic");
        let answers = answers.into_iter();
        let noted = answers.flat_map(|answers| answers.join().expect("no panic"));
        noted.collect::<Vec<_>>()
    });
    for (asked, answered) in noted {
        costs.note(asked, answered);
    }
}

/// Has this thread run before all others of its CPU that are not like it, if it may.
fn come_first() {
    let priority = ThreadPriorityValue::try_from(10_u8).expect("a priority");
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let priority = ThreadPriority::Crossplatform(priority);
    // Without it what the others' client waits for its CPU is in the figures.
    let _ = set_thread_priority_and_policy(thread_native_id(), priority, policy);
}

/// What the large session does with one server.
#[derive(Clone, Copy)]
enum Part {
    /// There is no index, and mail comes.
    Cold,
    /// There is one, and all is removed.
    Warm,
}

const UNIQUE_IDS: &str = "UIDL";

struct Large<'a> {
    server: &'a Server,
    messages: usize,
    mail: &'a Path,
    /// How often a step is gone through that takes a tenth of a second; those that take less
    /// so much oftener.
    again: usize,
}

impl Large<'_> {
    fn play(&self, part: Part, meter: &mut Meter<'_>) {
        match part {
            Part::Cold => {
                self.list(meter, "login without an index", self.messages);
                let now = UNIX_EPOCH.elapsed().expect("it is later").as_secs();
                let name = format!("new/{now}.M1P1.mx");
                fs::write(self.mail.join(name), "x\n").expect("own folder");
                let client = self.log_in(meter, "login after a delivery");
                quit(client, meter, "QUIT");
            }
            Part::Warm => {
                self.list(meter, "login after a restart", self.messages + 1);
                for _ in 0..30 * self.again {
                    let client = self.log_in(meter, "login");
                    quit(client, meter, "QUIT");
                }
                let mut client = self.log_in(meter, "login");
                for _ in 0..self.again {
                    let dele = "DELE of all, in one breath";
                    meter.step(dele, &mut || client.delete_up_to(self.messages + 1));
                    client.say("RSET");
                }
                client.delete_up_to(self.messages + 1);
                quit(client, meter, "QUIT that removes them");
            }
        }
    }

    fn log_in(&self, meter: &mut Meter<'_>, what: &'static str) -> Client {
        let mut client = Client::connect(self.server);
        client.say("USER large");
        meter.step(what, &mut || drop(client.say("PASS secret")));
        client
    }

    fn list(&self, meter: &mut Meter<'_>, what: &'static str, messages: usize) {
        let mut client = self.log_in(meter, what);
        for _ in 0..15 * self.again {
            meter.step("STAT", &mut || {
                assert_eq!(
                    client.say("STAT"),
                    format!("+OK {messages} {}\r\n", 3 * messages)
                );
            });
            meter.step("LIST", &mut || assert_eq!(client.rows("LIST"), messages));
            let uidl = &mut || assert_eq!(client.rows("UIDL"), messages);
            meter.step(UNIQUE_IDS, uidl);
        }
        quit(client, meter, "QUIT");
    }
}

fn quit(mut client: Client, meter: &mut Meter<'_>, what: &'static str) {
    meter.step(what, &mut || drop(client.say("QUIT")));
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
