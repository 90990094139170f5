//! What guesses cost the others, and what ARGON2ID costs those who are known.
//!
//! One shard and its one hasher have CPU 0 to themselves, which is the worst there is:
//! a hasher that took anything from its shard would show. From one network come 2,000
//! bad logins a second, no two alike, for users with ARGON2ID; the failure delay is off,
//! so that nothing but the queues holds them up. From another one come polls of users
//! who are known, at a fixed rate, and downloads at a fixed pace. Rounds with and without
//! the flood alternate. See benches/README.md for the commands.

#[path = "rig/mod.rs"]
#[allow(dead_code, reason = "other benches use the rest of it")]
mod rig;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher as _};
use clap::{Parser, Subcommand};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use rig::arguments::{self, Scale};
use rig::{Load, PASSWORD, Result, Round, Server, Threads};

/// Bad logins a second.
const GUESSES: u32 = 2000;
/// Polls a second beside them.
const POLLS: f64 = 400.0;
/// How much longer than without the flood 99 of 100 polls may take.
const P99_RATIO: f64 = 3.0;
/// The same for the median download: what two rounds of nothing differ by here.
const DOWNLOAD_RATIO: f64 = 1.1;
/// CPU time of a login with a known ARGON2ID password by that of one with a plain one.
const HASH_RATIO: f64 = 1.1;
/// Users of each server.
const USERS: usize = 64;
/// Guesses that are left waiting for their answer at a time.
const WAITING: usize = 2048;
/// Octets of the message that is downloaded.
const DOWNLOAD: usize = 1 << 20;
/// From one download to the next.
const PACE: Duration = Duration::from_millis(40);

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    bench: Option<Bench>,
    #[command(flatten)]
    scale: Scale,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Bench {
    /// CPU time of a login: ARGON2ID, known, beside plain passwords
    Hashes,
}

fn main() -> ExitCode {
    let Arguments { bench, mut scale } = arguments::read();
    scale.cut_trial(2.0);
    let done = match bench {
        // The gate runs the bench once, and wants both.
        None if scale.test => flood(&scale).and_then(|()| hashes(&scale)),
        None => flood(&scale),
        Some(Bench::Hashes) => hashes(&scale),
    };
    arguments::end("flood", done)
}

/// A line of the passwd-file for each user, with the password hashed as OWASP has it
/// (19 MiB, two passes).
fn hashed_users() -> Result<String> {
    let hash = Argon2::default().hash_password_with_salt(PASSWORD.as_bytes(), b"popcore's bench.");
    let hash: PasswordHash = hash.map_err(|error| format!("a hash: {error}"))?;
    let mut lines = String::new();
    for user in 0..=USERS {
        writeln!(lines, "user{user}:{{ARGON2ID}}{hash}").expect("a String");
    }
    Ok(lines)
}

/// Mailboxes of users with hashed passwords; that of the last one holds what is
/// downloaded.
fn make_site(folder: &Path) -> Result<()> {
    rig::make_mail(folder, USERS, 20)?;
    let failed = |error| format!("{}: {error}", folder.display());
    let cur = folder.join(format!("mail/user{USERS}/cur"));
    fs::create_dir_all(&cur).map_err(failed)?;
    fs::create_dir_all(cur.with_file_name("new")).map_err(failed)?;
    let line = [&[b'x'; 62][..], b"\r\n"].concat();
    fs::write(cur.join("1.large:2,S"), line.repeat(DOWNLOAD / 64)).map_err(failed)?;
    fs::write(folder.join("users"), hashed_users()?).map_err(failed)
}

/// popcore with one shard, and its users known to it.
fn start(name: &'static str, folder: &Path) -> Result<Server> {
    let server = rig::start_popcore(name, folder, 1, USERS)?;
    for user in 0..=USERS {
        drop(logged_in(server.address, user)?);
    }
    Ok(server)
}

/// What one round showed.
struct Outcome {
    polls: Round,
    /// The median time of a download.
    download: Duration,
    downloads: usize,
    /// Bad logins a second that were sent, and how many of them were answered.
    guesses: f64,
    refused: usize,
}

fn flood(scale: &Scale) -> Result<()> {
    let folder = tempfile::tempdir().map_err(|e| format!("a temporary folder: {e}"))?;
    make_site(folder.path())?;
    let server = start("popcore", folder.path())?;
    let mut outcomes: [Vec<Outcome>; 2] = Default::default();
    for _ in 0..scale.rounds {
        for (floods, outcomes) in [false, true].into_iter().zip(&mut outcomes) {
            outcomes.push(round(&server, floods, scale)?);
        }
    }
    println!("round  polls p99 us  download us  of them  guesses/s  refused");
    for (name, outcomes) in ["quiet", "flood"].iter().zip(&outcomes) {
        for outcome in outcomes {
            println!(
                "{name}  {:12.0}  {:11}  {:7}  {:9.0}  {:7}",
                outcome.polls.p99_us,
                outcome.download.as_micros(),
                outcome.downloads,
                outcome.guesses,
                outcome.refused
            );
        }
    }
    let [quiet, flood] = &outcomes;
    let p99 = |of: &[Outcome]| middle(of.iter().map(|outcome| outcome.polls.p99_us));
    let download = |of: &[Outcome]| middle(of.iter().map(|o| o.download.as_secs_f64() * 1e6));
    let polls = p99(flood) / p99(quiet);
    let downloads = download(flood) / download(quiet);
    println!("p99 of polls: {polls:.2} times; median download: {downloads:.2} times");
    let rate = middle(flood.iter().map(|outcome| outcome.guesses));
    scale.held(rate >= 0.95 * f64::from(GUESSES), "the flood is one")?;
    if flood.iter().any(|outcome| outcome.refused == 0) {
        return Err("no guess was refused".to_owned());
    }
    scale.held(polls <= P99_RATIO, "p99 of polls beside a flood")?;
    scale.held(downloads <= DOWNLOAD_RATIO, "downloads beside a flood")
}

/// Polls and downloads, with guesses beside them or without.
fn round(server: &Server, floods: bool, scale: &Scale) -> Result<Outcome> {
    let load = Load {
        profile: "poll",
        sessions: 32,
        // A trial says nothing of time, and a busy machine cannot keep to a rate.
        rate: (!scale.test).then_some(POLLS),
        seconds: scale.seconds,
        generator: Threads::Apart,
        more: &[],
    };
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let guesses = scope.spawn(|| {
            if floods {
                guess(server.address, &over)
            } else {
                Ok((0.0, 0))
            }
        });
        let downloads = scope.spawn(|| download(server.address, &over));
        let polls = rig::load(server, &load);
        over.store(true, Ordering::Relaxed);
        let joined = "a thread of the bench ended in a panic";
        let (guesses, refused) = guesses.join().map_err(|_| joined)??;
        let mut times = downloads.join().map_err(|_| joined)??;
        times.sort_unstable();
        Ok(Outcome {
            polls: polls?,
            download: *times.get(times.len() / 2).ok_or("no download")?,
            downloads: times.len(),
            guesses,
            refused,
        })
    })
}

/// Guesses from 254 addresses of one network until it is over: how many a second, and
/// how many of them were seen to be refused.
fn guess(to: SocketAddr, over: &AtomicBool) -> Result<(f64, usize)> {
    let failed = |what: &str, e: &dyn std::fmt::Display| format!("a guess: {what}: {e}");
    let begun = Instant::now();
    let (mut sent, mut refused) = (0_u32, 0);
    let mut waiting: VecDeque<TcpStream> = VecDeque::new();
    while !over.load(Ordering::Relaxed) {
        let due = begun + Duration::from_secs(1) / GUESSES * sent;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let host = u8::try_from(sent % 254 + 1).expect("a host");
        let from = SocketAddr::from((Ipv4Addr::new(127, 99, 99, host), 0));
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None);
        let socket = socket.map_err(|e| failed("socket", &e))?;
        bind(&socket, &from).map_err(|e| failed("bind", &e))?;
        connect(&socket, &to).map_err(|e| failed("connect", &e))?;
        let mut stream = TcpStream::from(socket);
        let user = sent as usize % USERS;
        let lines = format!("USER user{user}\r\nPASS guess{sent}\r\n");
        stream
            .write_all(lines.as_bytes())
            .map_err(|e| failed("write", &e))?;
        stream
            .set_nonblocking(true)
            .map_err(|e| failed("option", &e))?;
        waiting.push_back(stream);
        sent += 1;
        if waiting.len() > WAITING
            && let Some(oldest) = waiting.pop_front()
        {
            refused += usize::from(is_refused(oldest)?);
        }
    }
    let rate = f64::from(sent) / begun.elapsed().as_secs_f64();
    for stream in waiting {
        refused += usize::from(is_refused(stream)?);
    }
    Ok((rate, refused))
}

/// Whether a guess has been refused by now. None may be taken for right.
fn is_refused(mut stream: TcpStream) -> Result<bool> {
    let mut said = [0; 512];
    // Nothing there is nothing said.
    let count = stream.read(&mut said).unwrap_or_default();
    let said = String::from_utf8_lossy(&said[..count]);
    if said.contains("logged in") {
        return Err(format!("a guess was right: {said}"));
    }
    Ok(said.contains("-ERR"))
}

/// A user who is logged in, behind the replies.
fn logged_in(to: SocketAddr, user: usize) -> Result<BufReader<TcpStream>> {
    let failed = |e: std::io::Error| format!("user{user}: {e}");
    let stream = TcpStream::connect(to).map_err(failed)?;
    let mut client = BufReader::new(stream);
    let lines = format!("USER user{user}\r\nPASS {PASSWORD}\r\n");
    client
        .get_mut()
        .write_all(lines.as_bytes())
        .map_err(failed)?;
    for _ in 0..3 {
        let mut line = String::new();
        client.read_line(&mut line).map_err(failed)?;
        if !line.starts_with("+OK") {
            return Err(format!("user{user}: {line}"));
        }
    }
    Ok(client)
}

/// One download after the other, at their pace, until it is over.
fn download(to: SocketAddr, over: &AtomicBool) -> Result<Vec<Duration>> {
    let failed = |e: std::io::Error| format!("a download: {e}");
    let mut client = logged_in(to, USERS)?;
    let mut times = Vec::new();
    let mut message = Vec::with_capacity(DOWNLOAD + 128);
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        client.get_mut().write_all(b"RETR 1\r\n").map_err(failed)?;
        let mut first = String::new();
        client.read_line(&mut first).map_err(failed)?;
        if !first.starts_with("+OK") {
            return Err(format!("a download: {first}"));
        }
        message.resize(DOWNLOAD + 3, 0);
        client.read_exact(&mut message).map_err(failed)?;
        if !message.ends_with(b"\r\n.\r\n") {
            return Err("a download: it does not end where it should".into());
        }
        times.push(begun.elapsed());
        thread::sleep(PACE.saturating_sub(begun.elapsed()));
    }
    client.get_mut().write_all(b"QUIT\r\n").map_err(failed)?;
    client.read_to_end(&mut Vec::new()).map_err(failed)?;
    Ok(times)
}

/// Logins of known users, with ARGON2ID and with plain passwords.
fn hashes(scale: &Scale) -> Result<()> {
    let folders = [0; 2].map(|_| tempfile::tempdir());
    let [plain, hashed] = folders.map(|made| made.map_err(|e| format!("a temporary folder: {e}")));
    let (plain, hashed) = (plain?, hashed?);
    for folder in [&plain, &hashed] {
        make_site(folder.path())?;
    }
    let lines: String = (0..=USERS).fold(String::new(), |mut lines, user| {
        writeln!(lines, "user{user}:{{PLAIN}}{PASSWORD}").expect("a String");
        lines
    });
    fs::write(plain.path().join("users"), lines).map_err(|e| format!("users: {e}"))?;
    let servers = [
        start("plain", plain.path())?,
        start("argon2id", hashed.path())?,
    ];
    let load = Load {
        profile: "login",
        sessions: 32,
        rate: None,
        seconds: scale.seconds,
        generator: Threads::Apart,
        more: &[],
    };
    let mut rounds: [Vec<f64>; 2] = Default::default();
    for _ in 0..scale.rounds {
        for (server, rounds) in servers.iter().zip(&mut rounds) {
            rounds.push(rig::load(server, &load)?.server_us);
        }
    }
    let [plain, hashed] = rounds.map(|rounds| {
        let shown: Vec<_> = rounds.iter().map(|us| format!("{us:.1}")).collect();
        println!("us of CPU a login: {}", shown.join(" "));
        middle(rounds.into_iter())
    });
    let ratio = hashed / plain;
    println!("plain {plain:.1}, argon2id and known {hashed:.1}: {ratio:.2} times");
    scale.held(ratio <= HASH_RATIO, "CPU of a known hash")
}

fn middle(of: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = of.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
