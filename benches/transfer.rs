//! What sending messages costs: popcore beside the floor ([`bare`]), which sends
//! prepared files by sendfile(2) and deletes nothing.
//!
//! There are two floors. One has as many mailboxes of prepared files as popcore has
//! users, and opens and closes a file for each message, as every server has to that
//! has more messages than descriptors: bounds are against it. The other has the files
//! of one mailbox, open since its start, and shows what the names of files cost.
//!
//! Beside small messages, which no server is known to send without a copy, the floor is
//! also measured with text as it is stored: *between* sends CRLF text by sendfile(2)
//! between the first line and the terminator, *read* reads, encodes where it must, and
//! sends all at once. They do nothing else, so that popcore cannot be cheaper.
//!
//! As in `sessions`: CPU time of the server's process over rounds of load from
//! popcore-loadgen, which checks every reply; rounds alternate; medians. See
//! benches/README.md for the commands.

#[allow(dead_code, reason = "sessions uses more of it")]
#[path = "bare/mod.rs"]
mod bare;
#[allow(dead_code, reason = "sessions uses more of it")]
#[path = "rig/mod.rs"]
mod rig;

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use bare::{Prepared, Way};
use rig::arguments::{self, Scale};
use rig::{Load, Result, Round, Server};

/// The CPU of both servers; the generator has the other.
const SERVER_CPU: usize = 0;

/// KiB of the messages of the demo's load users: the shape of a provider's mailbox.
const MIX: [usize; 20] = [
    1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 6, 6, 8, 10, 14, 20, 36, 64,
];

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    scale: Scale,
    /// Only profiles whose name begins so
    #[arg(long, default_value = "")]
    only: String,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Be the floor
    Bare {
        /// 0: any; the address is printed
        #[arg(long)]
        port: u16,
        /// Octets of each message
        #[arg(long, value_delimiter = ',')]
        sizes: Vec<usize>,
        /// Where to make mailboxes, to open a file for each message that is sent
        #[arg(long)]
        prepared: Option<PathBuf>,
        /// How many mailboxes
        #[arg(long, default_value_t = 1)]
        mailboxes: usize,
        /// What the files hold
        #[arg(long, default_value = "whole")]
        way: Way,
    },
}

/// One comparison.
struct Profile {
    name: &'static str,
    /// The generator's profile.
    load: &'static str,
    /// Octets of each message as they are sent.
    sizes: Vec<usize>,
    line_end: &'static str,
    sessions: usize,
    /// Messages a session of the fetch profile fetches.
    fetched: usize,
    /// Most of the server's CPU time, in those of the floor.
    bound: f64,
}

fn profiles(test: bool) -> Vec<Profile> {
    let mix = MIX.map(|kib| kib * 1024).to_vec();
    let large = if test { 1 << 20 } else { 10 << 20 };
    let profile = |name, load, sizes, line_end, sessions, fetched, bound| Profile {
        name,
        load,
        sizes,
        line_end,
        sessions,
        fetched,
        bound,
    };
    vec![
        profile("fetch mix LF", "fetch", mix.clone(), "\n", 32, 5, 1.4),
        profile("fetch mix CRLF", "fetch", mix.clone(), "\r\n", 32, 5, 1.4),
        profile("8 KiB LF", "fetch", vec![8 << 10; 20], "\n", 32, 20, 1.4),
        profile(
            "8 KiB CRLF",
            "fetch",
            vec![8 << 10; 20],
            "\r\n",
            32,
            20,
            1.4,
        ),
        profile("bulk LF", "fetch", vec![large; 4], "\n", 4, 4, 1.0 / 0.8),
        profile(
            "bulk CRLF",
            "fetch",
            vec![large; 4],
            "\r\n",
            4,
            4,
            1.0 / 0.9,
        ),
        profile("drain LF", "drain", mix, "\n", 32, 0, 2.5),
    ]
}

fn main() -> ExitCode {
    let mut arguments: Arguments = arguments::read();
    let done = if let Some(Part::Bare {
        port,
        sizes,
        prepared,
        mailboxes,
        way,
    }) = arguments.part
    {
        let prepared = prepared.map(|folder| Prepared {
            folder,
            mailboxes,
            way,
        });
        be_bare(port, &sizes, prepared.as_ref())
    } else {
        arguments.scale.cut_trial(0.5);
        run(&arguments)
    };
    arguments::end("transfer", done)
}

fn be_bare(port: u16, sizes: &[usize], prepared: Option<&Prepared>) -> Result<()> {
    let failed = |e: io::Error| format!("bare: {e}");
    let listener = TcpListener::bind(("127.0.0.1", port)).map_err(failed)?;
    println!("{}", listener.local_addr().map_err(failed)?);
    let canned = bare::Canned::of(sizes, prepared).map_err(failed)?;
    bare::serve(&listener, &canned).map_err(failed)
}

fn run(arguments: &Arguments) -> Result<()> {
    println!(
        "{:<16}{:>10}{:>10}{:>12}{:>10}{:>12}{:>8}{:>8}{:>8}{:>8}{:>12}{:>14}",
        "profile",
        "kept us",
        "bare us",
        "between us",
        "read us",
        "popcore us",
        "to kept",
        "to read",
        "ratio",
        "bound",
        "bare MB/s",
        "popcore MB/s"
    );
    let mut missed = Vec::new();
    for profile in profiles(arguments.scale.test) {
        if !profile.name.starts_with(&arguments.only) {
            continue;
        }
        let compared = compare(&profile, arguments)?;
        let of = |name| {
            let one = compared.iter().find(|(other, _)| *other == name);
            one.map(|(_, round)| round.server_us)
        };
        let known = |name| of(name).ok_or_else(|| format!("{name} was not measured"));
        let (kept, bare, popcore) = (known("kept")?, known("bare")?, known("popcore")?);
        let shown = |figure: Option<f64>, digits| {
            figure.map_or("-".to_owned(), |figure| format!("{figure:.digits$}"))
        };
        let ratio = popcore / bare;
        let octets = octets_of(&profile);
        println!(
            "{:<16}{kept:>10.1}{bare:>10.1}{:>12}{:>10}{popcore:>12.1}{:>8.2}{:>8}{ratio:>8.2}\
             {:>8.2}{:>12.0}{:>14.0}",
            profile.name,
            shown(of("between"), 1),
            shown(of("read"), 1),
            popcore / kept,
            shown(of("read").map(|read| popcore / read), 2),
            profile.bound,
            octets / bare,
            octets / popcore,
        );
        if ratio > profile.bound && !arguments.scale.test {
            missed.push(profile.name);
        }
    }
    if missed.is_empty() {
        Ok(())
    } else {
        Err(format!("bounds that were not kept: {}", missed.join(", ")))
    }
}

/// Octets of the messages of a session, on average.
#[allow(clippy::cast_precision_loss, reason = "figures of three digits")]
fn octets_of(profile: &Profile) -> f64 {
    let all: usize = profile.sizes.iter().sum();
    let share = if profile.fetched == 0 {
        1.0
    } else {
        profile.fetched as f64 / profile.sizes.len() as f64
    };
    all as f64 * share
}

/// The median rounds of each floor and of popcore.
fn compare(profile: &Profile, arguments: &Arguments) -> Result<Vec<(&'static str, Round)>> {
    let drains = profile.load == "drain";
    // A drained maildrop is empty: each user is drained once a round.
    let users = match (drains, arguments.scale.test) {
        (true, false) => 2000,
        (true, true) => 50,
        (false, _) => profile.sessions * 2,
    };
    let folder = tempfile::tempdir().map_err(|e| format!("a temporary folder: {e}"))?;
    make_users(folder.path(), users)?;
    fill(folder.path(), users, profile)?;
    let sizes: Vec<String> = profile.sizes.iter().map(usize::to_string).collect();
    let sizes = sizes.join(",");
    let mut servers = vec![(
        "kept",
        rig::start_bare_with(SERVER_CPU, users, &["--sizes", &sizes])?,
    )];
    for (name, way) in floors(profile) {
        let prepared = folder.path().join(name);
        fs::create_dir(&prepared).map_err(|e| format!("{}: {e}", prepared.display()))?;
        let prepared = prepared
            .to_str()
            .ok_or("a temporary folder of odd letters")?;
        let mailboxes = users.to_string();
        let told = [
            "--sizes",
            &sizes,
            "--prepared",
            prepared,
            "--mailboxes",
            &mailboxes,
            "--way",
            way,
        ];
        servers.push((name, rig::start_bare_with(SERVER_CPU, users, &told)?));
    }
    let popcore = rig::start_popcore("popcore", folder.path(), 1, users)?;
    servers.push(("popcore", popcore));
    let number = if drains { users } else { profile.fetched }.to_string();
    let bound = if drains {
        "--max-sessions"
    } else {
        "--messages"
    };
    let load = Load {
        profile: profile.load,
        sessions: profile.sessions,
        rate: None,
        seconds: if drains {
            60.0
        } else {
            arguments.scale.seconds
        },
        generator: rig::Threads::Apart,
        more: &[bound, &number],
    };
    let round = |server: &Server| rig::load(server, &load);
    let mut rounds: Vec<Vec<Round>> = servers.iter().map(|_| Vec::new()).collect();
    for number in 0..=arguments.scale.rounds {
        for ((_, server), rounds) in servers.iter().zip(&mut rounds) {
            let played = round(server)?;
            // The first is thrown away.
            if number > 0 || arguments.scale.test {
                rounds.push(played);
            }
        }
        if drains {
            fill(folder.path(), users, profile)?;
        }
    }
    let medians = rounds.iter().map(|rounds| rig::median(rounds));
    Ok(servers.iter().map(|(name, _)| *name).zip(medians).collect())
}

/// The floors with files of mailboxes, and the ways of their replies.
fn floors(profile: &Profile) -> Vec<(&'static str, &'static str)> {
    let mut floors = vec![("bare", "whole")];
    let is_small = profile.sizes.iter().all(|octets| *octets <= 64 << 10);
    if is_small && profile.load == "fetch" {
        floors.extend(match profile.line_end {
            "\n" => vec![("read", "encoded")],
            _ => vec![("between", "between"), ("read", "copied")],
        });
    }
    floors
}

fn make_users(folder: &Path, users: usize) -> Result<()> {
    let failed = |e: io::Error| format!("{}: {e}", folder.display());
    let mut passwords = String::new();
    for user in 0..users {
        // Writing to a String cannot fail.
        let _ = writeln!(passwords, "user{user}:{{PLAIN}}{}::::::", rig::PASSWORD);
        let root = folder.join("mail").join(format!("user{user}"));
        for part in ["new", "cur", "tmp"] {
            fs::create_dir_all(root.join(part)).map_err(failed)?;
        }
    }
    fs::write(folder.join("users"), passwords).map_err(failed)
}

/// Puts the messages that are not there into every mailbox. Equal ones in a row are
/// names of one file.
fn fill(folder: &Path, users: usize, profile: &Profile) -> Result<()> {
    let failed = |e: io::Error| format!("{}: {e}", folder.display());
    for (number, octets) in profile.sizes.iter().enumerate() {
        let source = folder.join(format!("message{octets}"));
        if !source.exists() {
            fs::write(&source, text(*octets, profile.line_end)).map_err(failed)?;
        }
        for user in 0..users {
            let name = format!("1700000000.M{number:06}P4242.mail.example.net:2,S");
            let path = folder
                .join("mail")
                .join(format!("user{user}"))
                .join("cur")
                .join(name);
            match fs::hard_link(&source, path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed(error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// A message that is `octets` long when it is sent, with lines of 64 octets.
fn text(octets: usize, line_end: &str) -> Vec<u8> {
    let mut text = format!("Subject: bench{line_end}{line_end}");
    let mut sent = "Subject: bench\r\n\r\n".len();
    while sent < octets {
        let left = octets - sent;
        let line = if left < 128 { left } else { 64 };
        // Writing to a String cannot fail.
        let _ = write!(text, "{:x>width$}{line_end}", "", width = line - 2);
        sent += line;
    }
    text.into_bytes()
}
