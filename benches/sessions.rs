//! Whole sessions end to end: popcore beside the floor ([`bare`]), load from
//! popcore-loadgen.
//!
//! Not criterion: what is measured is CPU time of another process, over seconds
//! of load. Rounds of the servers alternate, because a shared machine drifts by
//! more than the difference that is looked for, and the median round is shown.
//! Every reply of every session is checked by the generator; a single failed
//! session fails the bench. See benches/README.md for the commands.

#[path = "bare/mod.rs"]
mod bare;
#[path = "calls/mod.rs"]
mod calls;
#[path = "rig/mod.rs"]
mod rig;
#[path = "sockets/mod.rs"]
mod sockets;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use rig::arguments::{self, Scale};
use rig::{Load, Result, Round, Server, Threads};

/// The CPU of a server with one shard, and of the floor.
const SERVER_CPU: usize = 0;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    bench: Option<Bench>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Clone, Debug, Args)]
struct Settings {
    #[command(flatten)]
    scale: Scale,
    /// Sessions at a time [default: 32; idle: 15000]
    #[arg(long, global = true)]
    sessions: Option<usize>,
    /// Messages in each mailbox
    #[arg(long, global = true, default_value_t = 20)]
    messages: usize,
    /// Measure this server, which runs already, in popcore's place
    #[arg(long, global = true, value_name = "ADDRESS", requires_all = ["subject_pid", "subject_users", "subject_password"])]
    subject: Option<SocketAddr>,
    /// Its process
    #[arg(long, global = true, value_name = "PID")]
    subject_pid: Option<u32>,
    /// Its users, as the generator's --users
    #[arg(long, global = true, value_name = "TEMPLATE")]
    subject_users: Option<String>,
    /// Their password
    #[arg(long, global = true, value_name = "TEXT")]
    subject_password: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Be the floor
    Bare {
        /// 0: any; the address is printed
        #[arg(long)]
        port: u16,
    },
    /// Be popcore's sessions on glommio's sockets
    Sockets {
        /// With users and mail/
        folder: PathBuf,
    },
    /// The server's own memory by idle session
    Idle,
    /// Latency at half of the highest rate
    Half,
    /// System calls by session; needs strace
    Calls,
    /// CPU time by poll session with one shard and with two
    Shards,
    /// The generator's own CPU time, beside a bare client's and popcore's
    Generator,
    /// Be the bare client
    Client {
        /// The server
        #[arg(long)]
        target: SocketAddr,
        /// Of every user
        #[arg(long)]
        password: String,
        /// How it asks the kernel
        #[arg(long)]
        io: rig::Client,
    },
}

fn main() -> ExitCode {
    let Arguments {
        bench,
        mut settings,
    } = arguments::read();
    settings.scale.cut_trial(2.0);
    let settings = &settings;
    let done = match bench {
        None => compare(settings),
        Some(Bench::Bare { port }) => be_bare(port, settings.messages),
        Some(Bench::Sockets { folder }) => {
            sockets::serve(&folder, SERVER_CPU).map_err(|e| format!("sockets: {e}"))
        }
        Some(Bench::Half) => half(settings),
        Some(Bench::Calls) => count_calls(settings),
        Some(Bench::Idle) => idle(settings),
        Some(Bench::Shards) => shards(settings),
        Some(Bench::Generator) => generator(settings),
        Some(Bench::Client {
            target,
            password,
            io,
        }) => be_client(settings, target, &password, io),
    };
    arguments::end("sessions", done)
}

fn be_bare(port: u16, messages: usize) -> Result<()> {
    let failed = |e: std::io::Error| format!("bare: {e}");
    let listener = TcpListener::bind(("127.0.0.1", port)).map_err(failed)?;
    println!("{}", listener.local_addr().map_err(failed)?);
    let canned = bare::Canned::new(messages, rig::message_octets()).map_err(failed)?;
    bare::serve(&listener, &canned).map_err(failed)
}

fn be_client(
    settings: &Settings,
    target: SocketAddr,
    password: &str,
    io: rig::Client,
) -> Result<()> {
    let length = Duration::from_secs_f64(settings.scale.seconds);
    let sessions = settings.sessions.unwrap_or(32);
    let played = match io {
        rig::Client::Epoll => bare::client::play(target, sessions, password, length),
        rig::Client::Uring => bare::ring_client::play(target, sessions, password, length),
    };
    let played = played.map_err(|e| format!("the bare client: {e}"))?;
    let (elapsed, cpu) = (played.elapsed.as_secs_f64(), played.cpu.as_secs_f64());
    println!("{} {elapsed} {cpu}", played.sessions);
    Ok(())
}

/// Users for so many sessions at a time: twice as many, so that no user logs in
/// again in the moment after the last QUIT.
fn users_for(sessions: usize) -> usize {
    sessions * 2
}

impl Settings {
    /// The server that somebody else started, where one is named.
    fn subject(&self) -> Option<Server> {
        let (users, password) = (self.subject_users.clone()?, self.subject_password.clone()?);
        Some(rig::already_running(
            self.subject?,
            self.subject_pid?,
            users,
            password,
        ))
    }
}

/// popcore and the floor, profiles poll and login.
fn compare(settings: &Settings) -> Result<()> {
    let sessions = settings.sessions.unwrap_or(32);
    let users = users_for(sessions);
    let folder = tempfile::tempdir().map_err(|e| format!("a temporary folder: {e}"))?;
    rig::make_mail(folder.path(), users, settings.messages)?;
    let server = match settings.subject() {
        Some(subject) => subject,
        None => rig::start_popcore("popcore", folder.path(), 1, users)?,
    };
    let servers = [
        rig::start_bare(SERVER_CPU, users, settings.messages)?,
        server,
        rig::start_sockets(SERVER_CPU, folder.path(), users)?,
    ];
    for profile in ["poll", "login"] {
        let load = Load {
            profile,
            sessions,
            rate: None,
            seconds: settings.scale.seconds,
            generator: Threads::Apart,
            more: &[],
        };
        let results = interleave(&servers, &load, settings.scale.rounds)?;
        print_table(profile, &results);
        let [floor, popcore] = [0, 1].map(|at| rig::median(&results[at].1).server_us);
        settings
            .scale
            .held(popcore <= CPU_RATIO * floor, "CPU beside bare")?;
    }
    Ok(())
}

/// How long a round is that is thrown away. On a busy machine a generator may
/// need most of a second to begin.
fn warm_up(load: &Load<'_>) -> f64 {
    (load.seconds / 5.0).max(1.0)
}

/// One shard and two, profile poll, each shard with as many sessions and each CPU
/// with a thread of the generator: a shard that has less to do serves fewer
/// sessions in a turn and sleeps between, which costs, and is not what is asked.
fn shards(settings: &Settings) -> Result<()> {
    let each = settings.sessions.unwrap_or(32);
    let users = users_for(2 * each);
    let folder = tempfile::tempdir().map_err(|e| format!("a temporary folder: {e}"))?;
    rig::make_mail(folder.path(), users, settings.messages)?;
    let mut results = Vec::new();
    // The two never serve at a time, and each is there for its round only: a
    // shard more that sleeps would be a shard less of cache.
    for _ in 0..settings.scale.rounds {
        for (at, (name, shards)) in [("1 shard", 1), ("2 shards", 2)].into_iter().enumerate() {
            let load = Load {
                profile: "poll",
                sessions: shards * each,
                rate: None,
                seconds: settings.scale.seconds,
                generator: Threads::Among(&[0, 1]),
                more: &[],
            };
            let server = rig::start_popcore(name, folder.path(), shards, users)?;
            // The first logins make the snapshots, which is not what is asked.
            let warm = Load {
                seconds: warm_up(&load),
                ..load
            };
            rig::load(&server, &warm)?;
            let round = rig::load(&server, &load)?;
            if results.len() <= at {
                results.push((name, Vec::new()));
            }
            results[at].1.push(round);
        }
    }
    print_table("poll", &results);
    let [one, two] = [0, 1].map(|at| rig::median(&results[at].1).server_us);
    settings
        .scale
        .held(two <= SHARDS_RATIO * one, "CPU with two shards")
}

/// How long polls take at half of the highest rate. The bare server takes the same
/// load beside: what it needs is the machine's and the generator's.
fn half(settings: &Settings) -> Result<()> {
    let sessions = settings.sessions.unwrap_or(32);
    // Room for the sessions that a pause of the machine leaves open.
    let open = 256;
    let users = users_for(open);
    let folder = tempfile::tempdir().map_err(|e| format!("a temporary folder: {e}"))?;
    rig::make_mail(folder.path(), users, settings.messages)?;
    let servers = [
        rig::start_bare(SERVER_CPU, users, settings.messages)?,
        rig::start_popcore("popcore", folder.path(), 1, users)?,
    ];
    let full = Load {
        profile: "poll",
        sessions,
        rate: None,
        seconds: settings.scale.seconds,
        generator: Threads::Apart,
        more: &[],
    };
    rig::load(&servers[1], &full)?;
    let highest = rig::load(&servers[1], &full)?.rate;
    let load = Load {
        sessions: open,
        // A trial says nothing of time, and a busy machine cannot keep to a rate.
        rate: (!settings.scale.test).then_some(highest / 2.0),
        ..full
    };
    let mut results = interleave(&servers, &load, settings.scale.rounds)?;
    println!("{highest:.0} polls a second at most; at half of it:");
    let mut medians = Vec::new();
    for (name, rounds) in &mut results {
        rounds.sort_by(|a, b| a.p99_us.total_cmp(&b.p99_us));
        let p99s: Vec<String> = rounds.iter().map(|r| format!("{:.0}", r.p99_us)).collect();
        let middle = rounds[rounds.len() / 2].p99_us;
        println!("{name:<10}p99 {middle:.0} us, median of {}", p99s.join(" "));
        medians.push(middle);
    }
    let kept = medians[1] <= HALF_P99_US.max(HALF_BESIDE_BARE * medians[0]);
    settings.scale.held(kept, "p99 at half of the rate")
}

/// System calls of a poll.
fn count_calls(settings: &Settings) -> Result<()> {
    let sessions = settings.sessions.unwrap_or(32);
    let users = users_for(sessions);
    let folder = tempfile::tempdir().map_err(|e| format!("a temporary folder: {e}"))?;
    rig::make_mail(folder.path(), users, settings.messages)?;
    let (server, admin) = rig::start_with_metrics("popcore", folder.path(), 1, users)?;
    let load = Load {
        profile: "poll",
        sessions,
        rate: None,
        seconds: settings.scale.seconds,
        generator: Threads::Apart,
        more: &[],
    };
    rig::load(&server, &load)?;
    let enters = || rig::counter(admin, "popcore_ring_enters_total");
    let before = enters()?;
    let round = rig::load(&server, &load)?;
    let at_full_speed = (enters()? - before) / round.sessions;
    let table = folder.path().join("strace");
    let trace = calls::Trace::attach(server.pid, &table)?;
    let round = rig::load(&server, &load)?;
    let counted = trace.detach(&table)?;
    let mut all = 0.0;
    for (name, calls) in counted {
        // Rust has no conversion of its own from u64 to f64; the figures are small.
        let each = f64::from(u32::try_from(calls).map_err(|e| e.to_string())?) / round.sessions;
        all += each;
        if each >= 0.01 {
            println!("{name:<20}{each:>8.2} a poll");
        }
    }
    println!("{:<20}{all:>8.2} a poll, traced", "all");
    println!(
        "io_uring_enter      {at_full_speed:>8.2} a poll at full speed, by the server's counter"
    );
    settings.scale.held(all <= CALLS, "system calls a poll")
}

/// The generator beside the bare client, both against popcore, profile poll.
fn generator(settings: &Settings) -> Result<()> {
    let sessions = settings.sessions.unwrap_or(32);
    let users = users_for(sessions);
    let folder = tempfile::tempdir().map_err(|e| format!("a temporary folder: {e}"))?;
    rig::make_mail(folder.path(), users, settings.messages)?;
    let server = rig::start_popcore("popcore", folder.path(), 1, users)?;
    let lockstep = Load {
        profile: "poll",
        sessions,
        rate: None,
        seconds: settings.scale.seconds,
        generator: Threads::Apart,
        more: &[],
    };
    let fin = Load {
        more: &["--close", "fin"],
        ..lockstep
    };
    let pipelined = Load {
        more: &["--pipelining"],
        ..lockstep
    };
    let mut results: Results = ["bare", "bare ring", "lockstep", "fin", "pipelined"]
        .into_iter()
        .map(|name| (name, Vec::new()))
        .collect();
    let warm = Load {
        seconds: warm_up(&lockstep),
        ..lockstep
    };
    rig::load(&server, &warm)?;
    for _ in 0..settings.scale.rounds {
        for (at, io) in [rig::Client::Epoll, rig::Client::Uring]
            .into_iter()
            .enumerate()
        {
            results[at].1.push(rig::load_bare(&server, &lockstep, io)?);
        }
        for (at, load) in [&lockstep, &fin, &pipelined].into_iter().enumerate() {
            results[at + 2].1.push(rig::load(&server, load)?);
        }
    }
    println!(
        "{:<10}{:>14}{:>12}{:>8}{:>14}",
        "client", "client us", "server us", "ratio", "sessions/s"
    );
    let mut medians = Vec::new();
    for (name, rounds) in &results {
        let of = |figure: fn(&Round) -> f64| {
            let mut all: Vec<f64> = rounds.iter().map(figure).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let (client, server) = (of(|r| r.generator_us), of(|r| r.server_us));
        // Of each round, so that a machine that slows down slows both.
        let ratio = of(|r| r.server_us / r.generator_us);
        let rate = of(|r| r.rate);
        println!("{name:<10}{client:>14.1}{server:>12.1}{ratio:>8.2}{rate:>14.0}");
        medians.push((client, ratio));
    }
    let above = medians[2].0 / medians[0].0;
    println!("the generator takes {above:.2} of the bare client's CPU time");
    settings
        .scale
        .held(above <= GENERATOR_RATIO, "CPU beside a bare client")?;
    settings.scale.held(
        medians[4].1 >= PIPELINED_RATIO,
        "popcore's CPU beside that of a generator that pipelines",
    )
}

/// Memory by idle session.
fn idle(settings: &Settings) -> Result<()> {
    let sessions = settings
        .sessions
        .unwrap_or(if settings.scale.test { 100 } else { 15_000 });
    let folder = tempfile::tempdir().map_err(|e| format!("a temporary folder: {e}"))?;
    let server = if let Some(subject) = settings.subject() {
        subject
    } else {
        rig::make_mail(folder.path(), sessions, settings.messages)?;
        rig::start_popcore("popcore", folder.path(), 1, sessions)?
    };
    let load = Load {
        profile: "idle",
        sessions,
        rate: None,
        seconds: settings.scale.seconds,
        generator: Threads::Apart,
        more: &[],
    };
    // Every maildrop is polled first: its listing stays in the cache when the
    // session has gone, and is not the session's.
    let polls = Load {
        profile: "poll",
        sessions: sessions.min(32),
        ..load
    };
    let fresh = own_memory(server.pid)?;
    rig::load(&server, &polls)?;
    let polled = own_memory(server.pid)?;
    let round = rig::load(&server, &load)?;
    // Rust has no conversion of its own from usize to f64; both are small.
    let users = f64::from(u32::try_from(sessions).map_err(|e| e.to_string())?);
    println!(
        "{}: {sessions} idle sessions of {} messages: {:.0} bytes of its own memory each; {:.1} MiB \
         in all, {:.1} MiB before, when each maildrop had been polled; a first poll leaves {:.0} bytes \
         of its user in the caches",
        server.name,
        settings.messages,
        round.idle_bytes,
        round.memory_mib,
        polled / 1_048_576.0,
        (polled - fresh) / users
    );
    settings
        .scale
        .held(round.idle_bytes <= IDLE_BYTES, "bytes an idle session")
}

/// Memory of a process that no file is behind, in octets: `RssAnon` of proc(5).
fn own_memory(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kibioctets = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kibioctets = kibioctets.and_then(|number| number.parse::<f64>().ok());
    Ok(kibioctets.ok_or(format!("{path}: no RssAnon"))? * 1024.0)
}

/// Most of the server's own memory that an idle session may take, in octets: the
/// goal of the design.
const IDLE_BYTES: f64 = 1536.0;

/// Most CPU that a session may take, in sessions of the bare server: the goal.
const CPU_RATIO: f64 = 1.5;

/// Most CPU that a poll session may take with two shards, in those with one.
const SHARDS_RATIO: f64 = 1.1;

/// The time in microseconds within which 99 of 100 polls must be over at half of
/// the highest rate.
const HALF_P99_US: f64 = 2000.0;

/// Where the machine itself takes longer: most of it beside the bare server.
const HALF_BESIDE_BARE: f64 = 1.25;

/// Most system calls of a poll.
const CALLS: f64 = 12.0;

/// Most CPU that the generator may take for a poll session in lockstep, in those
/// of a client that checks nothing: seen at 1.06 to 1.13, the rest for noise.
const GENERATOR_RATIO: f64 = 1.25;

/// Least that popcore takes for a poll session, in those of the generator when it
/// pipelines: 1.5 is the goal, and noise is a tenth.
const PIPELINED_RATIO: f64 = 1.35;

type Results = Vec<(&'static str, Vec<Round>)>;

/// A B A B and so on, after one short round of each that is thrown away.
fn interleave(servers: &[Server], load: &Load<'_>, rounds: usize) -> Result<Results> {
    let mut results: Results = servers
        .iter()
        .map(|server| (server.name, Vec::new()))
        .collect();
    let warm = Load {
        seconds: warm_up(load),
        ..*load
    };
    for server in servers {
        rig::load(server, &warm)?;
    }
    for _ in 0..rounds {
        for (server, (_, rounds)) in servers.iter().zip(&mut results) {
            rounds.push(rig::load(server, load)?);
        }
    }
    Ok(results)
}

/// A row a server; ratios are to the first.
fn print_table(profile: &str, results: &[(&'static str, Vec<Round>)]) {
    println!(
        "{profile:<10}{:>16}{:>8}{:>14}{:>18}{:>14}",
        "server us", "ratio", "sessions/s", "generator us", "own MiB"
    );
    let Some(floor) = results
        .first()
        .map(|(_, rounds)| rig::median(rounds).server_us)
    else {
        return;
    };
    for (name, rounds) in results {
        let round = rig::median(rounds);
        println!(
            "{name:<10}{:>16.1}{:>8.2}{:>14.0}{:>18.1}{:>14.1}",
            round.server_us,
            round.server_us / floor,
            round.rate,
            round.generator_us,
            round.memory_mib
        );
    }
    println!();
}
