//! What a maildrop of 100,000 messages does to the other sessions of its shard: one
//! session logs in without an index, lists everything, logs in again, marks every
//! message and says QUIT, while another client polls small maildrops on the same
//! shard and notes how long each command takes.
//!
//! Not criterion: what is measured is the server's answers to others. The server has
//! one shard on CPU 0, the clients run on CPU 1. The machine itself pauses at times,
//! so the same is noted while nobody else is there. Every answer is asserted.
//!
//! `cargo bench --bench pauses -- --test` runs one round with fewer messages.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

const SMALL: usize = 8;
const SMALL_MESSAGES: usize = 20;
/// How long others are watched while nobody works on the large maildrop.
const IDLE: Duration = Duration::from_secs(5);

fn main() {
    let test = std::env::args().any(|argument| argument == "--test");
    let (rounds, messages) = if test { (1, 2_000) } else { (5, 100_000) };
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    pin(1);
    let idle = watch(&server, || {
        thread::sleep(if test { IDLE / 10 } else { IDLE });
    });
    println!(
        "{:>28} {:>10} {:>10}",
        "the large session", "wall ms", "shard ms"
    );
    let mut others = Vec::new();
    for round in 0..rounds {
        fill(&folder.path().join("mail/large"), messages);
        let noted = watch(&server, || large(&server, messages, round == 0));
        others.extend(noted);
    }
    println!(
        "{:>28} {:>8} {:>8} {:>8} {:>8}",
        "commands of others", "count", "p50 ms", "p99 ms", "max ms"
    );
    show("nobody else there", idle);
    let p99 = show("the large session at work", others);
    assert!(test || p99 < Duration::from_millis(10), "{p99:?}");
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

/// Notes how long the commands of polls take while something else is done.
fn watch(server: &Server, work: impl FnOnce()) -> Vec<Duration> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let polling = scope.spawn(|| {
            let mut noted = Vec::new();
            for small in (0..SMALL).cycle() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let mut client = Client::connect(server);
                let mut note = |work: &mut dyn FnMut(&mut Client)| {
                    let begun = Instant::now();
                    work(&mut client);
                    noted.push(begun.elapsed());
                };
                note(&mut |c| drop(c.say(&format!("USER small{small}"))));
                note(&mut |c| drop(c.say("PASS secret")));
                note(&mut |c| drop(c.say("STAT")));
                note(&mut |c| assert_eq!(c.rows("UIDL"), SMALL_MESSAGES));
                note(&mut |c| drop(c.say("QUIT")));
            }
            noted
        });
        work();
        done.store(true, Ordering::Relaxed);
        polling.join().expect("no panic")
    })
}

/// Two sessions of the large maildrop, after which it is empty.
fn large(server: &Server, messages: usize, tell: bool) {
    let step = |what: &str, work: &mut dyn FnMut()| {
        let (begun, before) = (Instant::now(), server.shard_time());
        work();
        let (wall, shard) = (begun.elapsed(), server.shard_time().saturating_sub(before));
        if tell {
            println!("{what:>28} {:>10.1} {:>10.1}", millis(wall), millis(shard));
        }
    };
    let mut client = Client::connect(server);
    client.say("USER large");
    step("login without an index", &mut || {
        drop(client.say("PASS secret"));
    });
    step("STAT", &mut || {
        assert_eq!(
            client.say("STAT"),
            format!("+OK {messages} {}\r\n", 3 * messages)
        );
    });
    step("LIST", &mut || assert_eq!(client.rows("LIST"), messages));
    step("UIDL", &mut || assert_eq!(client.rows("UIDL"), messages));
    step("QUIT", &mut || drop(client.say("QUIT")));
    let mut client = Client::connect(server);
    client.say("USER large");
    step("login", &mut || drop(client.say("PASS secret")));
    step("DELE of all, in one breath", &mut || {
        let mut numbers = 1..=messages;
        loop {
            let burst: Vec<String> = numbers
                .by_ref()
                .take(500)
                .map(|n| format!("DELE {n}\r\n"))
                .collect();
            if burst.is_empty() {
                return;
            }
            client
                .0
                .get_mut()
                .write_all(burst.concat().as_bytes())
                .expect("open");
            for _ in &burst {
                client.good();
            }
        }
    });
    step("QUIT that removes them", &mut || drop(client.say("QUIT")));
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn show(what: &str, mut noted: Vec<Duration>) -> Duration {
    noted.sort();
    let of = |part: usize| noted[(noted.len() - 1) * part / 1000];
    println!(
        "{what:>28} {:>8} {:>8.3} {:>8.3} {:>8.3}",
        noted.len(),
        millis(of(500)),
        millis(of(990)),
        millis(of(1000))
    );
    of(990)
}
