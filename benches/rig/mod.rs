//! What the session benches stand on: pinned processes, mailboxes, a round of
//! the load generator.
//!
//! A process started here ends with the value that holds it, by its own id. The
//! server and the generator have a CPU each, so that a figure of the server's
//! CPU time is not one of the generator's caches.

pub(crate) mod arguments;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;

/// The password of every user here.
pub(crate) const PASSWORD: &str = "pw";
/// Octets of every message here, as stored and as sent.
const MESSAGE_OCTETS: usize = 2048;
/// Names that one file is given before the next file is made: a file system may
/// allow as few as 65,000.
const LINKS: usize = 50_000;
/// How long a server may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// What goes wrong in a bench ends it with this text.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// A server under measurement.
pub(crate) struct Server {
    /// For the table.
    pub(crate) name: &'static str,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its process.
    pub(crate) pid: u32,
    /// Its users, as the generator's template.
    pub(crate) users: String,
    /// The password of all of them.
    pub(crate) password: String,
    /// Held for its end.
    _process: Option<Process>,
}

/// A child that ends with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only for a process that has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a command on these CPUs only. The calling thread goes there for the
/// moment, because a child inherits the mask of the thread that starts it.
pub(crate) fn spawn_on(cpus: &[usize], command: &mut Command) -> Result<Child> {
    let affinity = |e: rustix::io::Errno| format!("CPUs {cpus:?}: {e}; the benches need 0 and 1");
    let before = sched_getaffinity(None).map_err(affinity)?;
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu);
    }
    sched_setaffinity(None, &set).map_err(affinity)?;
    let child = command.spawn();
    sched_setaffinity(None, &before).map_err(affinity)?;
    child.map_err(|e| format!("{}: {e}", command.get_program().display()))
}

/// The floor, as a process of this program.
pub(crate) fn start_bare(cpu: usize, users: usize, messages: usize) -> Result<Server> {
    start_bare_with(cpu, users, &["--messages", &messages.to_string()])
}

/// The same with what this program wants to be told.
pub(crate) fn start_bare_with(cpu: usize, users: usize, told: &[&str]) -> Result<Server> {
    let mut command = Command::new(this_program()?);
    command.args(["bare", "--port", "0"]).args(told);
    start_own("bare", command, cpu, users)
}

/// popcore's sessions on glommio's sockets, with the mailboxes of `folder`.
pub(crate) fn start_sockets(cpu: usize, folder: &Path, users: usize) -> Result<Server> {
    let mut command = Command::new(this_program()?);
    command.arg("sockets").arg(folder);
    start_own("sockets", command, cpu, users)
}

fn this_program() -> Result<PathBuf> {
    std::env::current_exe().map_err(|e| format!("this program: {e}"))
}

/// A server of this program, which prints where it listens.
fn start_own(name: &'static str, mut command: Command, cpu: usize, users: usize) -> Result<Server> {
    let child = spawn_on(&[cpu], command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let mut process = Process(child);
    let mut line = String::new();
    let stdout = process.0.stdout.take().ok_or("no output")?;
    let read = BufReader::new(stdout).read_line(&mut line);
    let address = read
        .ok()
        .and_then(|_| line.trim_end().parse().ok())
        .ok_or_else(|| format!("{name} did not say where it listens: {line:?}"))?;
    Ok(Server {
        name,
        address,
        pid: process.0.id(),
        users: template(users),
        password: PASSWORD.to_owned(),
        _process: Some(process),
    })
}

/// A server that somebody else started.
pub(crate) fn already_running(
    address: SocketAddr,
    pid: u32,
    users: String,
    password: String,
) -> Server {
    Server {
        name: "subject",
        address,
        pid,
        users,
        password,
        _process: None,
    }
}

/// popcore with `shards` shards on as many CPUs, serving the mailboxes of `folder`.
pub(crate) fn start_popcore(
    name: &'static str,
    folder: &Path,
    shards: usize,
    users: usize,
) -> Result<Server> {
    let failed = |e: io::Error| format!("{}: {e}", folder.display());
    // The port is free now; nobody else on this machine takes it by chance.
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    drop(listener);
    let config = folder.join(format!("popcore-{shards}.toml"));
    fs::write(&config, popcore_config(address, shards)).map_err(failed)?;
    start_configured(name, &config, address, shards, users)
}

/// The same, with metrics at the second address.
pub(crate) fn start_with_metrics(
    name: &'static str,
    folder: &Path,
    shards: usize,
    users: usize,
) -> Result<(Server, SocketAddr)> {
    let failed = |e: io::Error| format!("{}: {e}", folder.display());
    let free = || TcpListener::bind("127.0.0.1:0")?.local_addr();
    let (address, admin) = (free().map_err(failed)?, free().map_err(failed)?);
    let text = popcore_config(address, shards) + &format!("\n[admin]\nlisten = \"{admin}\"\n");
    let config = folder.join("popcore-metrics.toml");
    fs::write(&config, text).map_err(failed)?;
    let server = start_configured(name, &config, address, shards, users)?;
    Ok((server, admin))
}

/// popcore with the configuration of this file, which listens on `address`.
pub(crate) fn start_configured(
    name: &'static str,
    config: &Path,
    address: SocketAddr,
    shards: usize,
    users: usize,
) -> Result<Server> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_popcore"));
    command.arg("serve").arg("--config").arg(config);
    let cpus: Vec<usize> = (0..shards).collect();
    let child = spawn_on(&cpus, command.stdin(Stdio::null()).stdout(Stdio::null()))?;
    let mut process = Process(child);
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        if let Ok(Some(status)) = process.0.try_wait() {
            return Err(format!("popcore ended before it listened: {status}"));
        }
        if started.elapsed() > PATIENCE {
            return Err(format!("popcore does not listen on {address}"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(Server {
        name,
        address,
        pid: process.0.id(),
        users: template(users),
        password: PASSWORD.to_owned(),
        _process: Some(process),
    })
}

/// What such a configuration holds.
pub(crate) fn popcore_config(address: SocketAddr, shards: usize) -> String {
    format!(
        "[server]\nhostname = \"bench.example.net\"\nshards = {shards}\ndrain = \"1s\"\n\n\
         [[listener]]\naddress = \"{address}\"\ntls = \"none\"\n\n\
         [auth]\nplaintext_without_tls = true\nfailure_delay = \"0s\"\n\n\
         [[auth.directory]]\nkind = \"passwd-file\"\npath = \"users\"\n\n\
         [maildrop]\npath = \"mail/{{user}}\"\n\n\
         [limits]\nsessions_per_address = 0\n\n\
         [log]\ntarget = \"log\"\nlevel = \"info\"\n"
    )
}

fn template(users: usize) -> String {
    format!("user{{0..{}}}", users - 1)
}

/// Makes `users` users with a Maildir of `messages` messages each, under
/// `folder`. The messages are names of a few files, so that ten thousand
/// mailboxes are made in seconds.
pub(crate) fn make_mail(folder: &Path, users: usize, messages: usize) -> Result<()> {
    let failed = |e: io::Error| format!("{}: {e}", folder.display());
    let mut passwords = String::new();
    let mut source = PathBuf::new();
    for user in 0..users {
        // Writing to a String cannot fail.
        let _ = writeln!(passwords, "user{user}:{{PLAIN}}{PASSWORD}::::::");
        let root = folder.join("mail").join(format!("user{user}"));
        for part in ["new", "cur", "tmp"] {
            fs::create_dir_all(root.join(part)).map_err(failed)?;
        }
        for number in 0..messages {
            let link = user * messages + number;
            if link.is_multiple_of(LINKS) {
                source = folder.join(format!("message{link}"));
                fs::write(&source, message()).map_err(failed)?;
            }
            let name = format!("1700000000.M{number:06}P4242.mail.example.net:2,S");
            fs::hard_link(&source, root.join("cur").join(name)).map_err(failed)?;
        }
    }
    fs::write(folder.join("users"), passwords).map_err(failed)
}

/// A message with CRLF line ends of [`MESSAGE_OCTETS`] octets.
fn message() -> Vec<u8> {
    let mut text = b"From: a@example.net\r\nTo: b@example.net\r\nSubject: bench\r\n\r\n".to_vec();
    while text.len() < MESSAGE_OCTETS {
        let left = MESSAGE_OCTETS - text.len();
        // The last line takes what would be too little for one more.
        let line = if left < 128 { left } else { 64 };
        text.resize(text.len() + line - 2, b'x');
        text.extend_from_slice(b"\r\n");
    }
    text
}

/// Octets of a message, for the floor's prepared one.
pub(crate) const fn message_octets() -> usize {
    MESSAGE_OCTETS
}

/// What one round of the generator is to do.
pub(crate) struct Load<'a> {
    /// The generator's profile.
    pub(crate) profile: &'static str,
    /// Sessions at a time.
    pub(crate) sessions: usize,
    /// Sessions a second, whether they are answered or not; otherwise one begins
    /// when another ends.
    pub(crate) rate: Option<f64>,
    /// How long.
    pub(crate) seconds: f64,
    /// The generator's threads.
    pub(crate) generator: Threads,
    /// Other arguments of the generator.
    pub(crate) more: &'a [&'a str],
}

/// Where the generator runs.
#[derive(Clone, Copy)]
pub(crate) enum Threads {
    /// One thread on CPU 1.
    Apart,
    /// One on each of these CPUs, wherever the kernel puts them among these.
    Among(&'static [usize]),
}

impl Threads {
    fn cpus(self) -> &'static [usize] {
        match self {
            Threads::Apart => &[1],
            Threads::Among(cpus) => cpus,
        }
    }
}

/// What one round showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// The server's CPU time by session.
    pub(crate) server_us: f64,
    /// Sessions played.
    pub(crate) sessions: f64,
    /// Sessions a second.
    pub(crate) rate: f64,
    /// The time in which 99 of 100 sessions were over, from when each was due, in
    /// microseconds.
    pub(crate) p99_us: f64,
    /// The generator's CPU time by session.
    pub(crate) generator_us: f64,
    /// The server's own memory.
    pub(crate) memory_mib: f64,
    /// The server's own memory by held session; 0 for other profiles.
    pub(crate) idle_bytes: f64,
}

/// One round of load. An error where any session failed, or none was played.
pub(crate) fn load(server: &Server, load: &Load<'_>) -> Result<Round> {
    let program = Path::new(env!("CARGO_BIN_EXE_popcore")).with_file_name("popcore-loadgen");
    if !program.exists() {
        let profile = if cfg!(debug_assertions) {
            ""
        } else {
            " --release"
        };
        return Err(format!(
            "{} is missing: run `cargo build{profile} -p popcore-loadgen` first",
            program.display()
        ));
    }
    let mut command = Command::new(&program);
    command
        .args(["--profile", load.profile, "--json", "-"])
        .args(["--target", &server.address.to_string()])
        .args(["--users", &server.users, "--password", &server.password])
        .args(["--sessions", &load.sessions.to_string()])
        .args(["--duration", &load.seconds.to_string()])
        .args(["--threads", &load.generator.cpus().len().to_string()])
        .args(["--server-pid", &server.pid.to_string()])
        .args(load.more);
    if let Some(rate) = load.rate {
        command.args(["--rate", &format!("{rate:.0}/s")]);
    }
    let child = spawn_on(
        load.generator.cpus(),
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )?;
    let output = child.wait_with_output();
    let output = output.map_err(|e| format!("{}: {e}", program.display()))?;
    let table = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("{}: the report: {e}\n{table}", server.name))?;
    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64);
    let errors = number("/errors/total").ok_or("the report counts no errors")?;
    let sessions = number("/sessions").ok_or("the report counts no sessions")?;
    if !output.status.success() || errors > 0.0 || sessions <= 0.0 {
        return Err(format!("{}: sessions failed:\n{table}", server.name));
    }
    let needed = |pointer: &str| number(pointer).ok_or(format!("the report has no {pointer}"));
    let idle = load.profile == "idle";
    Ok(Round {
        server_us: needed("/server/cpu_us_per_session")?,
        sessions,
        rate: needed("/rates/sessions_per_s")?,
        p99_us: needed("/latency_us/session/p99")?,
        generator_us: needed("/generator/cpu_us_per_session")?,
        memory_mib: needed("/server/anonymous_bytes")? / 1_048_576.0,
        idle_bytes: if idle {
            needed("/idle/server_bytes_per_session")?
        } else {
            0.0
        },
    })
}

/// How a bare client asks the kernel.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Client {
    /// epoll, and a system call for each thing
    Epoll,
    /// `io_uring`
    Uring,
}

/// A round of a bare client, on CPU 1, in the generator's place.
pub(crate) fn load_bare(server: &Server, load: &Load<'_>, io: Client) -> Result<Round> {
    let program = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
    let mut command = Command::new(program);
    command
        .args(["client", "--target", &server.address.to_string()])
        .args(["--password", &server.password])
        .args(["--sessions", &load.sessions.to_string()])
        .args(["--seconds", &load.seconds.to_string()])
        .arg("--io")
        .arg(match io {
            Client::Epoll => "epoll",
            Client::Uring => "uring",
        });
    let before = cpu_time(server.pid)?;
    let child = spawn_on(&[1], command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let output = child.wait_with_output();
    let output = output.map_err(|e| format!("the bare client: {e}"))?;
    let used = cpu_time(server.pid)?.saturating_sub(before);
    let said = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> = said
        .split_whitespace()
        .filter_map(|w| w.parse().ok())
        .collect();
    let [sessions, elapsed_s, cpu_s] = numbers[..] else {
        return Err(format!("the bare client ended with {}", output.status));
    };
    Ok(Round {
        server_us: used.as_secs_f64() * 1e6 / sessions,
        sessions,
        rate: sessions / elapsed_s,
        p99_us: 0.0,
        generator_us: cpu_s * 1e6 / sessions,
        memory_mib: 0.0,
        idle_bytes: 0.0,
    })
}

/// The CPU time of all threads of a process, to the nanosecond (schedstat, of
/// which the first number is time on a CPU).
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let failed = |e: &io::Error| format!("CPU time of process {pid}: {e}");
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| failed(&e))? {
        let path = task.map_err(|e| failed(&e))?.path().join("schedstat");
        let text = fs::read_to_string(path).map_err(|e| failed(&e))?;
        let time: u64 = text
            .split(' ')
            .next()
            .and_then(|number| number.parse().ok())
            .ok_or("schedstat has no time")?;
        sum += time;
    }
    Ok(Duration::from_nanos(sum))
}

/// The sum of a counter over its labels, as the server's metrics tell it.
pub(crate) fn counter(admin: SocketAddr, name: &str) -> Result<f64> {
    let failed = |e: io::Error| format!("{admin}: {e}");
    let mut stream = TcpStream::connect(admin).map_err(failed)?;
    let request = b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
    stream.write_all(request).map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    let values = answer.lines().filter_map(|line| {
        let (metric, value) = line.rsplit_once(' ')?;
        let bare = metric.split('{').next()?;
        (bare == name).then(|| value.parse::<f64>().ok())?
    });
    let values: Vec<f64> = values.collect();
    if values.is_empty() {
        return Err(format!("{admin}: no metric {name}"));
    }
    Ok(values.iter().sum())
}

/// The round in the middle by the server's CPU time.
pub(crate) fn median(rounds: &[Round]) -> Round {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(|a, b| a.server_us.total_cmp(&b.server_us));
    sorted[sorted.len() / 2]
}
