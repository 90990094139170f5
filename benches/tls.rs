//! What TLS costs: popcore beside a bare rustls server and beside the cipher.
//!
//! Clients are threads of this process on CPU 1, servers processes of their own
//! on CPU 0, and what counts is the CPU time of the server. Rounds alternate and
//! the median is shown, because a shared machine drifts by more than the
//! difference that is looked for. Every reply is checked: one that is wrong ends
//! the bench. See benches/README.md.

#[path = "rig/mod.rs"]
#[expect(dead_code, reason = "the session benches use the rest of it")]
mod rig;
#[path = "tls_rig/mod.rs"]
mod tls_rig;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

use rig::Result;
use rig::arguments::{self, Scale};
use tls_rig::{Bulk, Client, Ending, KeyKind, Openssl, Site, Work};

/// Most CPU of a poll with a full ECDSA handshake, in that of a poll without TLS
/// and of a bare handshake together.
const POLL_RATIO: f64 = 1.25;

/// Most CPU of a resumed handshake in that of a full one.
const RESUMED_RATIO: f64 = 0.5;

/// The same where a full one is cheap, with ECDSA, and a resumed one exchanges
/// keys all the same, as TLS 1.3 has it: what was reached, not what was hoped for.
const RESUMED_RATIO_1_3: f64 = 0.85;

/// Most CPU of RETR over TLS in that of RETR without and of the cipher together.
const BULK_RATIO: f64 = 1.35;

/// Most of the server's own memory that an idle TLS session may take, in octets.
const IDLE_BYTES: f64 = 12.0 * 1024.0;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    bench: Option<Bench>,
    #[command(flatten)]
    scale: Scale,
    /// Sessions that idle
    #[arg(long, global = true, default_value_t = 5000)]
    sessions: usize,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// CPU time of a poll with and without TLS, full and resumed
    Handshakes,
    /// CPU time of resumed handshakes by full ones, popcore's and OpenSSL's, and of
    /// the parts that make the difference
    Resumed,
    /// CPU time by MiB of RETR with and without TLS
    Bulk,
    /// The server's own memory by idle session over TLS
    Idle,
    /// Be the bare TLS server
    Bare {
        /// The folder of its certificate
        folder: std::path::PathBuf,
        /// The kind of its key
        kind: KeyKind,
    },
}

fn main() -> ExitCode {
    let mut arguments: Arguments = arguments::read();
    arguments.scale.cut_trial(0.5);
    if arguments.scale.test {
        arguments.sessions = 50;
    }
    let done = match &arguments.bench {
        None => handshakes(&arguments)
            .and_then(|()| bulk(&arguments))
            .and_then(|()| idle(&arguments)),
        Some(Bench::Handshakes) => handshakes(&arguments),
        Some(Bench::Resumed) => resumed(&arguments),
        Some(Bench::Bulk) => bulk(&arguments),
        Some(Bench::Idle) => idle(&arguments),
        Some(Bench::Bare { folder, kind }) => tls_rig::be_bare(folder, *kind),
    };
    arguments::end("tls", done)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Polls with a full handshake, resumed, and in clear; and the bare handshake.
fn handshakes(arguments: &Arguments) -> Result<()> {
    println!(
        "{:<16}{:>10}{:>10}{:>10}{:>8}{:>12}{:>12}{:>8}",
        "CPU us", "poll", "bare", "full", "ratio", "handshake", "resumed", "ratio"
    );
    let mut faults = Vec::new();
    for kind in [KeyKind::Ecdsa, KeyKind::Rsa] {
        let site = Site::start(kind, 64, 20)?;
        for (version, name) in [(&TLS13, "1.3"), (&TLS12, "1.2")] {
            let plain = Work::Poll(Client::clear());
            let bare = Work::Handshake(Client::full(&site, version));
            let full = Work::Poll(Client::full(&site, version));
            let resumed = Work::Poll(Client::resumed(&site, version));
            let works = [&plain, &bare, &full, &resumed];
            let mut figures = [const { Vec::new() }; 4];
            for work in works {
                site.round(work, arguments.scale.seconds / 4.0)?;
            }
            for _ in 0..arguments.scale.rounds {
                for (work, figures) in works.into_iter().zip(&mut figures) {
                    figures.push(site.round(work, arguments.scale.seconds)?);
                }
            }
            let [plain, bare, full, resumed] = figures.map(median);
            let ratio = full / (plain + bare);
            let (handshake, again) = (full - plain, resumed - plain);
            println!(
                "{:<16}{plain:>10.1}{bare:>10.1}{full:>10.1}{ratio:>8.2}{handshake:>12.1}\
                 {again:>12.1}{:>8.2}",
                format!("{kind:?} TLS {name}"),
                again / handshake
            );
            if matches!(kind, KeyKind::Ecdsa) && ratio > POLL_RATIO {
                faults.push(format!(
                    "a poll over TLS {name}: {ratio:.2} of {POLL_RATIO}"
                ));
            }
            let bound = match (kind, name) {
                (KeyKind::Ecdsa, "1.3") => RESUMED_RATIO_1_3,
                _ => RESUMED_RATIO,
            };
            let ratio = again / handshake;
            if ratio > bound {
                faults.push(format!(
                    "{kind:?} resumed by TLS {name}: {ratio:.2} of {bound}"
                ));
            }
        }
    }
    arguments.scale.held(faults.is_empty(), &faults.join("; "))
}

/// What a resumed handshake saves: with popcore by the poll around it, with OpenSSL
/// by a connection with one line, so that only popcore's is a bare handshake.
fn resumed(arguments: &Arguments) -> Result<()> {
    let time = Duration::from_secs_f64(arguments.scale.seconds);
    for (part, cpu) in tls_rig::parts(time)? {
        println!("{part}: {cpu:.1} us of CPU");
    }
    let site = Site::start(KeyKind::Ecdsa, 64, 20)?;
    let openssl = Openssl::start(&site)?;
    for (version, name) in [(&TLS13, "1.3"), (&TLS12, "1.2")] {
        let plain = Work::Poll(Client::clear());
        let kinds = [HandshakeKind::Full, HandshakeKind::Resumed];
        let polls = kinds.map(|kind| Work::Poll(Client::classical(&site, version, kind)));
        let clients = kinds.map(|kind| Client::classical(&site, version, kind));
        let mut figures = [const { Vec::new() }; 5];
        for _ in 0..=arguments.scale.rounds {
            figures[0].push(site.round(&plain, arguments.scale.seconds)?);
            for (poll, figures) in polls.iter().zip(&mut figures[1..3]) {
                figures.push(site.round(poll, arguments.scale.seconds)?);
            }
            for (client, figures) in clients.iter().zip(&mut figures[3..]) {
                figures.push(openssl.round(client, arguments.scale.seconds)?);
            }
        }
        for figures in &mut figures {
            // The first round warms up.
            figures.remove(0);
        }
        let [plain, full, again, theirs, theirs_again] = figures.map(median);
        let (full, again) = (full - plain, again - plain);
        println!(
            "TLS {name} with X25519, CPU us: a handshake of popcore's {full:.1}, resumed \
             {again:.1}, {:.2}; a connection to OpenSSL {theirs:.1}, resumed {theirs_again:.1}, \
             {:.2}",
            again / full,
            theirs_again / theirs
        );
    }
    Ok(())
}

/// RETR of a large message in clear, over TLS, and its encryption in memory.
fn bulk(arguments: &Arguments) -> Result<()> {
    let site = Site::start(KeyKind::Ecdsa, Ending::ALL.len(), 0)?;
    let octets = if arguments.scale.test {
        1 << 20
    } else {
        32 << 20
    };
    let seconds = arguments.scale.seconds;
    let mut faults = Vec::new();
    for ending in Ending::ALL {
        site.deliver(ending, octets)?;
        let clear = Bulk::new(Client::clear(), ending, octets);
        let tls = Bulk::new(Client::full(&site, &TLS13), ending, octets);
        let mut figures = [const { Vec::new() }; 3];
        for _ in 0..=arguments.scale.rounds {
            figures[0].push(site.bulk(&clear, seconds)?);
            figures[1].push(tls_rig::encryption(Duration::from_secs_f64(seconds / 4.0))?);
            figures[2].push(site.bulk(&tls, seconds)?);
        }
        for figures in &mut figures {
            // The first round warms up.
            figures.remove(0);
        }
        let [clear, cipher, tls] = figures.map(median);
        let ratio = tls / (clear + cipher);
        println!(
            "RETR of text with {ending:?}, CPU us a MiB: {clear:.0} in clear, {cipher:.0} for \
             AES-128-GCM in memory, {tls:.0} over TLS 1.3: {ratio:.2} of their sum"
        );
        if ratio > BULK_RATIO {
            faults.push(format!(
                "RETR over TLS with {ending:?}: {ratio:.2} of {BULK_RATIO}"
            ));
        }
    }
    arguments.scale.held(faults.is_empty(), &faults.join("; "))
}

/// Memory by idle session.
fn idle(arguments: &Arguments) -> Result<()> {
    let sessions = arguments.sessions;
    let site = Site::start(KeyKind::Ecdsa, sessions, 1)?;
    for (version, name) in [(&TLS13, "1.3"), (&TLS12, "1.2")] {
        let client = Client::full(&site, version);
        // Every maildrop is polled first: its listing stays in the cache.
        site.hold(&client, sessions.min(64))?;
        for user in 0..sessions {
            site.poll(&Client::clear(), user)?;
        }
        let bytes = site.hold(&client, sessions)?;
        println!(
            "{sessions} idle sessions over TLS {name}: {bytes:.0} octets of its own memory each"
        );
        let bound = format!("{bytes:.0} octets an idle session over TLS {name}");
        arguments.scale.held(bytes <= IDLE_BYTES, &bound)?;
    }
    Ok(())
}
