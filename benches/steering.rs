//! Which shard gets a connection: how evenly the kernel's hash spreads them, and what
//! `server.steering = "cpu"` changes where connections come in on the CPU that serves
//! them, and where they all come in on one.
//!
//! Loopback delivers on the CPU that sends, so that the generator's threads stand for
//! the queues of a network interface. Rounds alternate; every reply is checked by the
//! generator, and the spread is that of the server's own counters.

#[path = "rig/mod.rs"]
#[expect(dead_code, reason = "what other benches need of the rig")]
mod rig;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use rig::{Load, Result, Round, Server, Threads};

/// Shards of the servers that are compared, each on a CPU of its own.
const SHARDS: usize = 2;

/// Shards whose spread is looked at; they share the CPUs.
const SPREAD_SHARDS: usize = 8;

/// Where the generator's threads run, and what that stands for.
const PLACES: [(&str, Threads); 2] = [
    ("on both", Threads::Among(&[0, 1])),
    ("on one", Threads::Apart),
];

fn main() -> ExitCode {
    let test = std::env::args().any(|argument| argument == "--test");
    match spread(test).and_then(|()| compare(test)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// How many connections the busiest of the shards gets of so many.
fn spread(test: bool) -> Result<()> {
    let folder = tempfile::tempdir().map_err(|e| format!("a temporary folder: {e}"))?;
    rig::make_mail(folder.path(), 1, 1)?;
    let (server, admin) = rig::start_with_metrics("popcore", folder.path(), SPREAD_SHARDS, 1)?;
    println!("connections of {SPREAD_SHARDS} shards, the busiest beside an even share");
    println!(
        "{:>12}{:>10}{:>10}{:>10}",
        "connections", "median", "worst", "even"
    );
    let counts: &[usize] = if test {
        &[16]
    } else {
        &[16, 64, 256, 1024, 4096]
    };
    let rounds = if test { 1 } else { 21 };
    for count in counts {
        let mut most = Vec::new();
        for _ in 0..rounds {
            most.push(busiest(&server, admin, *count)?);
        }
        most.sort_unstable();
        let (middle, worst) = (most[most.len() / 2], most[most.len() - 1]);
        println!(
            "{count:>12}{middle:>10}{worst:>10}{:>10}",
            count / SPREAD_SHARDS
        );
    }
    println!();
    Ok(())
}

fn busiest(server: &Server, admin: SocketAddr, count: usize) -> Result<usize> {
    let failed = |e: std::io::Error| format!("a connection: {e}");
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = TcpStream::connect(server.address).map_err(failed)?;
        // Greeted: a shard has it.
        client.read_exact(&mut [0; 3]).map_err(failed)?;
        clients.push(client);
    }
    let active = active(admin)?;
    if active.iter().sum::<usize>() != count {
        return Err(format!("{active:?} are not {count} sessions"));
    }
    drop(clients);
    let began = Instant::now();
    while self::active(admin)?.iter().any(|count| *count > 0) {
        if began.elapsed() > Duration::from_secs(30) {
            return Err("sessions outlive their clients".to_owned());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(active.into_iter().max().unwrap_or(0))
}

/// Open sessions of each shard, as the server counts them.
fn active(admin: SocketAddr) -> Result<Vec<usize>> {
    let failed = |e: std::io::Error| format!("{admin}: {e}");
    let mut stream = TcpStream::connect(admin).map_err(failed)?;
    let request = "GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(failed)?;
    let rows = text
        .lines()
        .filter(|line| line.starts_with("popcore_sessions_active{"));
    let counts: Vec<usize> = rows
        .filter_map(|row| row.rsplit(' ').next()?.parse().ok())
        .collect();
    if counts.len() == SPREAD_SHARDS {
        Ok(counts)
    } else {
        Err(format!("{} shards tell their sessions", counts.len()))
    }
}

/// The hash beside the CPU, with connections from both CPUs and from one.
fn compare(test: bool) -> Result<()> {
    let folder = tempfile::tempdir().map_err(|e| format!("a temporary folder: {e}"))?;
    let users = 256;
    rig::make_mail(folder.path(), users, 20)?;
    let servers = [
        start("hash", folder.path(), users)?,
        start("cpu", folder.path(), users)?,
    ];
    let (rounds, seconds) = if test { (1, 0.2) } else { (7, 3.0) };
    println!(
        "{:<10}{:<8}{:>12}{:>14}{:>16}{:>14}{:>12}",
        "received",
        "steered",
        "server us",
        "generator us",
        "of both, ratio",
        "sessions/s",
        "p99 us"
    );
    for (place, generator) in PLACES {
        let load = Load {
            profile: "poll",
            sessions: 64,
            rate: None,
            seconds,
            generator,
            more: &[],
        };
        let mut results: [Vec<Round>; 2] = Default::default();
        for _ in 0..rounds {
            for (server, results) in servers.iter().zip(&mut results) {
                results.push(rig::load(server, &load)?);
            }
        }
        let floor = both(rig::median(&results[0]));
        for (server, results) in servers.iter().zip(&results) {
            let round = rig::median(results);
            println!(
                "{place:<10}{:<8}{:>12.1}{:>14.1}{:>16.2}{:>14.0}{:>12.0}",
                server.name,
                round.server_us,
                round.generator_us,
                both(round) / floor,
                round.rate,
                round.p99_us
            );
        }
    }
    Ok(())
}

/// CPU of a session on both sides: the kernel's work of receiving is booked on
/// whoever is interrupted by it.
fn both(round: Round) -> f64 {
    round.server_us + round.generator_us
}

/// popcore that steers in this way.
fn start(steering: &'static str, folder: &Path, users: usize) -> Result<Server> {
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = free.map_err(failed)?;
    let text = rig::popcore_config(address, SHARDS);
    let text = text.replacen(
        "[server]\n",
        &format!("[server]\nsteering = \"{steering}\"\n"),
        1,
    );
    let config = folder.join(format!("{steering}.toml"));
    fs::write(&config, text).map_err(failed)?;
    rig::start_configured(steering, &config, address, SHARDS, users)
}
