//! What a login costs that a directory is asked about, among a thousand users and among a
//! million, who all come: the look-up in a file of `SQLite`, the journey to the look-up thread
//! and back, the verification; and the same login once it is remembered, and what memory that
//! takes.
//!
//! The two directories are asked by turns, a round of logins each, so that whatever else
//! the machine does falls on both. What is compared is the processor time of the whole
//! process for a login, which a server pays, and the wall time of one login at a time.
//! Each answer is held against what it must be.
//!
//! `server` measures the same from outside: sessions of the load generator, by the
//! processor time of popcore, whose directory is the one or the other. With `--postgresql`
//! both are tables of a server of `PostgreSQL`, which the bench starts and ends.

#[path = "rig/postgres.rs"]
mod postgres;
#[path = "rig/mod.rs"]
#[allow(dead_code, reason = "other benches use the rest of it")]
mod rig;
#[path = "rig/waiting.rs"]
mod waiting;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::task::Waker;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use popcore::auth::{
    Broker, Credentials, Database, DirectoryKind, DirectoryOptions, Options, Password, Pending,
    Protocol, RemoteOptions, SqlOptions, SqlServer, Statement, Terms, UserName,
};
use postgres::Cluster;
use rig::{Load, PASSWORD, Result, Server, Threads, arguments};
use rustix::time::{ClockId, clock_gettime};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tokio::runtime::Builder;
use waiting::{block_on, waker};

const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Logins of one round.
const ROUND: usize = 500;

/// Rounds before those that count: connections are made and have read what they keep.
const WARM_UP: usize = 10;

/// Users of the two directories, and rounds of each kind.
struct Scale {
    users: [usize; 2],
    rounds: usize,
}

const FULL: Scale = Scale {
    users: [1_000, 1_000_000],
    rounds: 40,
};

/// Enough to see that it works.
const TRIAL: Scale = Scale {
    users: [1_000, 5_000],
    rounds: 1,
};

/// Users for the look-ups: no two have the same password.
const APART: &str =
    "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)
                     INSERT INTO users SELECT 'user' || i || '@example.net', '{PLAIN}secret' || i,
                     '/var/mail/user' || i FROM n";

/// Users for the load generator, which has one password for all.
const ALIKE: &str =
    "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)
                     INSERT INTO users SELECT 'user' || i, '{PLAIN}pw', NULL FROM n";

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    bench: Option<Bench>,
    #[command(flatten)]
    scale: arguments::Scale,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Bench {
    /// CPU time of a session of a server, by the size of its directory
    Server {
        /// The directories are tables of `PostgreSQL`
        #[arg(long)]
        postgresql: bool,
    },
}

/// Makes a database of so many users.
fn make(path: &Path, users: usize, fill: &'static str) {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&options)
            .await
            .expect("a file");
        for statement in [
            "CREATE TABLE users (name TEXT PRIMARY KEY, password TEXT, home TEXT)",
            "PRAGMA synchronous = OFF",
        ] {
            let done = sqlx::query(statement).execute(&mut connection).await;
            done.expect("done");
        }
        let count = i64::try_from(users).expect("few");
        let done = sqlx::query(fill).bind(count).execute(&mut connection).await;
        assert_eq!(done.expect("done").rows_affected(), users as u64);
        connection.close().await.expect("closed");
    });
}

fn broker(path: &Path) -> Broker {
    let query = "SELECT password, home FROM users WHERE name = {user}";
    let url = format!("sqlite:{}", path.display());
    let server = SqlServer::parse(&url, None, Path::new("/"), false);
    let options = RemoteOptions {
        label: "bench".into(),
        timeout: Duration::from_secs(5),
        node: "bench".into(),
        protocol: Protocol::Sql(SqlOptions {
            server: server.expect("a URL"),
            query: Statement::query(query, Database::Sqlite).expect("a query"),
            update: None,
            connections: 4,
        }),
    };
    let kind = DirectoryKind::Away(Box::new(options));
    Broker::start(&Options {
        directories: vec![DirectoryOptions { kind }],
        masters: Vec::new(),
        scram_secret: None,
        oauth: None,
        desks: vec![None],
        threads: NonZeroUsize::MIN,
    })
    .expect("started")
}

fn login(broker: &Broker, number: usize) -> Pending {
    let user = UserName::new(format!("user{number}@example.net").as_bytes()).expect("a name");
    let password = Password::new(format!("secret{number}").as_bytes()).expect("short");
    let credentials = Credentials::new(user, password);
    let candidate = broker.recall(credentials, FROM);
    broker.authenticate(0, candidate).expect("room")
}

fn process_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("not negative")
}

/// What a login of a round cost: processor time, wall time.
type Cost = [Duration; 2];

/// Logs these users in, so many at a time.
fn round(broker: &Broker, numbers: &[usize], at_once: usize, waker: &Waker) -> Cost {
    let (cpu, wall) = (process_time(), Instant::now());
    for batch in numbers.chunks(at_once) {
        let pending: Vec<_> = batch.iter().map(|n| (*n, login(broker, *n))).collect();
        for (number, pending) in pending {
            let account = block_on(pending, waker).expect("the password is right");
            let home = account.home.expect("a home");
            assert_eq!(home.as_os_str(), format!("/var/mail/user{number}").as_str());
        }
    }
    let count = u32::try_from(numbers.len()).expect("few");
    [
        process_time().saturating_sub(cpu) / count,
        wall.elapsed() / count,
    ]
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn main() -> ExitCode {
    let Arguments { bench, mut scale } = arguments::read();
    scale.cut_trial(0.5);
    let done = match bench {
        // The gate runs the bench once, and wants both.
        None if scale.test => {
            look_ups(&TRIAL);
            serve(&TRIAL, &scale, false)
        }
        None => {
            look_ups(&FULL);
            Ok(())
        }
        Some(Bench::Server { postgresql }) => {
            let directories = if scale.test { &TRIAL } else { &FULL };
            serve(directories, &scale, postgresql)
        }
    };
    arguments::end("directories", done)
}

fn look_ups(scale: &Scale) {
    let folder = tempfile::tempdir().expect("a folder");
    let paths = ["few", "many"].map(|name| folder.path().join(name));
    for (path, users) in paths.iter().zip(scale.users) {
        let begun = Instant::now();
        make(path, users, APART);
        println!("{users} users made in {} ms", begun.elapsed().as_millis());
    }
    let waker = waker();
    for (kind, at_once, is_cold) in [
        // First, in a heap that nothing was taken from and given back to yet.
        ("remembered", 64, false),
        ("asked, one at a time", 1, true),
        ("asked, 64 at a time", 64, true),
    ] {
        let mut costs: [[Vec<Duration>; 2]; 2] = Default::default();
        let brokers = [0, 1].map(|side| broker(&paths[side]));
        if is_cold {
            // Nobody is remembered: each login asks the directory.
            let never = Terms {
                good: Duration::ZERO,
                bad: Duration::ZERO,
                stale: Duration::ZERO,
            };
            for broker in &brokers {
                broker.set_terms(never);
            }
        } else {
            for (broker, users) in brokers.iter().zip(scale.users) {
                remember_all(broker, users, at_once, &waker);
            }
        }
        for number in 0..WARM_UP + scale.rounds {
            for side in [0, 1] {
                let users = scale.users[side];
                // Spread over all of them: the stride shares no factor with either.
                let first = number * ROUND;
                let numbers = (first..first + ROUND).map(|n| n * 7_919 % users);
                let numbers: Vec<_> = numbers.collect();
                let cost = round(&brokers[side], &numbers, at_once, &waker);
                if number >= WARM_UP {
                    for (list, time) in costs[side].iter_mut().zip(cost) {
                        list.push(time);
                    }
                }
            }
        }
        for broker in &brokers {
            let logins = (WARM_UP + scale.rounds) * ROUND;
            let remembered = if is_cold { 0 } else { logins as u64 };
            assert_eq!(broker.cached().good, remembered, "{kind}");
        }
        let [few, many] = costs.map(|lists| lists.map(median));
        for (what, index) in [("processor time", 0), ("wall time", 1)] {
            let (few, many) = (few[index], many[index]);
            println!(
                "{kind}: {what} of a login {few:.1} us among {}, {many:.1} us among {}, {:.2} times",
                scale.users[0],
                scale.users[1],
                many / few
            );
        }
    }
}

/// Has everybody log in once, and tells what it takes to remember them.
fn remember_all(broker: &Broker, users: usize, at_once: usize, waker: &Waker) {
    let before = heap();
    let all: Vec<usize> = (0..users).collect();
    round(broker, &all, at_once, waker);
    let each = heap().saturating_sub(before) / users;
    println!("{users} users are remembered in {each} octets each");
}

/// Octets of this process's memory that are no file's.
fn heap() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("this process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    kib.expect("a number") * 1024
}

/// popcore on CPU 0 that asks for its users there; a login is believed for this long.
fn start(
    folder: &Path,
    name: &'static str,
    url: &str,
    cache_ttl: &str,
    users: usize,
) -> Result<(Server, SocketAddr)> {
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    let free = || TcpListener::bind("127.0.0.1:0")?.local_addr();
    let (address, admin) = (free().map_err(failed)?, free().map_err(failed)?);
    let text = rig::popcore_config(address, 1)
        .replace(
            "failure_delay = \"0s\"\n",
            &format!("failure_delay = \"0s\"\ncache_ttl = \"{cache_ttl}\"\n"),
        )
        .replace(
            "kind = \"passwd-file\"\npath = \"users\"\n",
            &format!(
                "kind = \"sql\"\nurl = \"{url}\"\n\
                 query = \"SELECT password FROM users WHERE name = {{user}}\"\n"
            ),
        );
    if !text.contains("query") || !text.contains("cache_ttl") {
        return Err("the rig has another configuration than this bench knows".to_owned());
    }
    let text = format!("{text}\n[admin]\nlisten = \"{admin}\"\n");
    let config = folder.join(format!("popcore-{cache_ttl}.toml"));
    fs::write(&config, text).map_err(failed)?;
    let server = rig::start_configured(name, &config, address, 1, users)?;
    Ok((server, admin))
}

/// Sessions of profile login, of a directory and of the other by turns.
fn serve(directories: &Scale, scale: &arguments::Scale, postgresql: bool) -> Result<()> {
    assert_eq!(PASSWORD, "pw", "as the users have it");
    let folders = [0; 2].map(|_| tempfile::tempdir().expect("a folder"));
    for folder in &folders {
        fs::create_dir(folder.path().join("mail")).expect("own folder");
    }
    let cluster = postgresql
        .then(|| Cluster::start(directories.users))
        .transpose()?;
    if cluster.is_none() {
        for (folder, users) in folders.iter().zip(directories.users) {
            make(&folder.path().join("users.db"), users, ALIKE);
        }
    }
    for (kind, cache_ttl) in [("remembered", "1h"), ("asked each time", "0s")] {
        let servers = [0, 1].map(|side| {
            let users = directories.users[side];
            let url = cluster.as_ref().map_or_else(
                || "sqlite:users.db".to_owned(),
                |cluster| cluster.url(users),
            );
            start(
                folders[side].path(),
                ["few", "many"][side],
                &url,
                cache_ttl,
                users,
            )
        });
        let [few, many] = servers;
        let [few, many] = compare(kind, cache_ttl == "0s", &[few?, many?], directories, scale)?;
        let [fewer, more] = directories.users;
        println!(
            "{kind}: {few:.1} us among {fewer}, {many:.1} us among {more}: {:.2} times",
            many / few
        );
    }
    Ok(())
}

/// Logins by the generator, so many at a time as one core keeps busy.
fn logins<'a>(seconds: f64, more: &'a [&'a str]) -> Load<'a> {
    Load {
        profile: "login",
        sessions: 32,
        rate: None,
        seconds,
        generator: Threads::Apart,
        more,
    }
}

/// Everybody logs in once.
fn all_come(server: &Server, users: usize) -> Result<()> {
    let count = users.to_string();
    let came = rig::load(server, &logins(600.0, &["--max-sessions", &count]))?;
    if came.sessions.to_string() != count {
        return Err(format!("{} of {users} users came", came.sessions));
    }
    let (us, memory) = (came.server_us, came.memory_mib);
    println!("{users} users came: {us:.1} us of CPU a session, {memory:.0} MiB then");
    Ok(())
}

/// The median of each server's rounds.
fn compare(
    kind: &str,
    is_cold: bool,
    servers: &[(Server, SocketAddr); 2],
    directories: &Scale,
    scale: &arguments::Scale,
) -> Result<[f64; 2]> {
    let mut costs: [Vec<f64>; 2] = Default::default();
    let mut remembered = [0.0; 2];
    for ((server, _), users) in servers.iter().zip(directories.users) {
        if !is_cold {
            all_come(server, users)?;
        }
        // No page has been read yet.
        rig::load(server, &logins(scale.seconds, &["--choose", "uniform"]))?;
    }
    for _ in 0..scale.rounds {
        for (side, (server, admin)) in servers.iter().enumerate() {
            let good = || rig::counter(*admin, "popcore_auth_cache_good_total");
            let before = good()?;
            let round = rig::load(server, &logins(scale.seconds, &["--choose", "uniform"]))?;
            costs[side].push(round.server_us);
            remembered[side] = (good()? - before) / round.sessions;
        }
    }
    for (costs, share) in costs.iter().zip(remembered) {
        let shown: Vec<_> = costs.iter().map(|us| format!("{us:.1}")).collect();
        println!(
            "{kind}: us of CPU a session: {}; {:.0} of 100 logins were remembered",
            shown.join(" "),
            share * 100.0
        );
    }
    Ok(costs.map(|mut costs| {
        costs.sort_by(f64::total_cmp);
        costs[costs.len() / 2]
    }))
}
