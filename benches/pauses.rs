//! What a maildrop of 100,000 messages does to the other sessions of its shard: one
//! session logs in without an index and lists everything, mail comes, it logs in again;
//! after a restart it logs in with the index, lists everything, marks every message and
//! says QUIT; while another client polls small maildrops on the same shard and notes how
//! long each command takes. What the steps cost the shard is its thread's CPU time.
//!
//! Not criterion: what is measured is the server's answers to others. The server has
//! one shard on CPU 0, where its other threads are as well, the clients run on CPU 1.
//! The machine itself pauses at times, so the same is noted while nobody else is there.
//! Every answer is asserted, and so are the bounds.
//!
//! `cargo bench --bench pauses -- --test` runs one round with fewer messages.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use rustix::thread::{CpuSet, sched_setaffinity};

const SMALL: usize = 8;
const SMALL_MESSAGES: usize = 20;
/// How long others are watched while nobody works on the large maildrop.
const IDLE: Duration = Duration::from_secs(5);

/// Of 100 commands of others 99 are answered within this.
const PATIENCE: Duration = Duration::from_millis(10);
/// What a listing of all unique-ids may cost the shard.
const LISTING: Duration = Duration::from_millis(12);

fn main() {
    let test = std::env::args().any(|argument| argument == "--test");
    let (rounds, messages) = if test { (1, 2_000) } else { (5, 100_000) };
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    pin(1);
    let idle = watch(&server, |_| {
        thread::sleep(if test { IDLE / 10 } else { IDLE });
    });
    drop(server);
    let (mut others, mut costs) = (Vec::new(), Costs::default());
    for _ in 0..rounds {
        let mail = folder.path().join("mail/large");
        fill(&mail, messages);
        for part in [Part::Cold, Part::Warm] {
            pin(0);
            let server = Server::start(folder.path());
            pin(1);
            let noted = watch(&server, |step| {
                let large = Large {
                    server: &server,
                    messages,
                    mail: &mail,
                };
                large.play(part, &mut Meter(&server, step, &mut costs));
            });
            others.extend(noted);
        }
    }
    let unique_ids = costs.show();
    println!(
        "{:>28} {:>8} {:>8} {:>8} {:>8}",
        "commands of others", "count", "p50 ms", "p99 ms", "max ms"
    );
    show("nobody else there", idle);
    let longest = others.iter().max().expect("some").1;
    let p99 = show("the large session at work", others);
    println!("the longest in the midst of: {longest}");
    assert!(test || p99 < PATIENCE, "{p99:?}");
    assert!(test || unique_ids < LISTING, "{unique_ids:?}");
}

/// What the steps of the large session took, in all and of the shard's CPU, in order.
#[derive(Default)]
struct Costs(Vec<(&'static str, Vec<(Duration, Duration)>)>);

impl Costs {
    fn add(&mut self, step: &'static str, cost: (Duration, Duration)) {
        if let Some((_, costs)) = self.0.iter_mut().find(|(known, _)| *known == step) {
            costs.push(cost);
        } else {
            self.0.push((step, vec![cost]));
        }
    }

    /// Prints medians; tells the most that a listing of unique-ids cost the shard.
    fn show(self) -> Duration {
        println!(
            "{:>28} {:>10} {:>10} {:>10}",
            "the large session", "wall ms", "shard ms", "most"
        );
        let mut unique_ids = Duration::ZERO;
        for (step, costs) in self.0 {
            let (mut walls, mut shards): (Vec<_>, Vec<_>) = costs.into_iter().unzip();
            walls.sort();
            shards.sort();
            let most = *shards.last().expect("one at least");
            if step == UNIQUE_IDS {
                unique_ids = most;
            }
            println!(
                "{step:>28} {:>10.1} {:>10.1} {:>10.1}",
                millis(walls[walls.len() / 2]),
                millis(shards[shards.len() / 2]),
                millis(most)
            );
        }
        unique_ids
    }
}

/// Times the steps and says which one it is.
struct Meter<'a>(&'a Server, &'a Mutex<&'static str>, &'a mut Costs);

impl Meter<'_> {
    fn step(&mut self, what: &'static str, work: &mut dyn FnMut()) {
        let Self(server, step, costs) = self;
        *step.lock().expect("no panic") = what;
        let (begun, before) = (Instant::now(), server.shard_time());
        work();
        let (wall, shard) = (begun.elapsed(), server.shard_time().saturating_sub(before));
        costs.add(what, (wall, shard));
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

/// A command's time and what the large session was at when it was answered.
type Noted = (Duration, &'static str);

/// Notes how long the commands of polls take while something else is done.
fn watch(server: &Server, work: impl FnOnce(&Mutex<&'static str>)) -> Vec<Noted> {
    let (done, step) = (AtomicBool::new(false), Mutex::new("nothing"));
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
                    let took = begun.elapsed();
                    noted.push((took, *step.lock().expect("no panic")));
                };
                note(&mut |c| drop(c.say(&format!("USER small{small}"))));
                note(&mut |c| drop(c.say("PASS secret")));
                note(&mut |c| drop(c.say("STAT")));
                note(&mut |c| assert_eq!(c.rows("UIDL"), SMALL_MESSAGES));
                note(&mut |c| drop(c.say("QUIT")));
            }
            noted
        });
        work(&step);
        done.store(true, Ordering::Relaxed);
        polling.join().expect("no panic")
    })
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
                let mut client = self.log_in(meter, "login");
                let dele = "DELE of all, in one breath";
                meter.step(dele, &mut || client.delete_up_to(self.messages + 1));
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
        meter.step("STAT", &mut || {
            assert_eq!(
                client.say("STAT"),
                format!("+OK {messages} {}\r\n", 3 * messages)
            );
        });
        meter.step("LIST", &mut || assert_eq!(client.rows("LIST"), messages));
        let uidl = &mut || assert_eq!(client.rows("UIDL"), messages);
        meter.step(UNIQUE_IDS, uidl);
        quit(client, meter, "QUIT");
    }
}

fn quit(mut client: Client, meter: &mut Meter<'_>, what: &'static str) {
    meter.step(what, &mut || drop(client.say("QUIT")));
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn show(what: &str, mut noted: Vec<Noted>) -> Duration {
    noted.sort();
    let of = |part: usize| noted[(noted.len() - 1) * part / 1000].0;
    println!(
        "{what:>28} {:>8} {:>8.3} {:>8.3} {:>8.3}",
        noted.len(),
        millis(of(500)),
        millis(of(990)),
        millis(of(1000))
    );
    of(990)
}
