//! Seeded runs of splitter, session and encoder against a simple model.
//!
//! Each seed makes a maildrop, a configuration, a script of good and bad
//! commands in any segmentation, and what the world does about them: refused
//! logins, locked maildrops, vanished messages, failed removals, silence. Every
//! reply, the end and what is left in the store must be the model's.
//!
//! `POPCORE_SIMULATION_SEEDS` says how many seeds are run, and
//! `POPCORE_SIMULATION_FIRST` with which one they begin.

mod connection;
mod model;
mod random;
mod script;

use std::collections::BTreeMap;
use std::env;

use popcore::session;

use connection::Connection;
use model::{End, Reply, Verdict};
use random::Random;
use script::Script;

/// Seeds of a run that says nothing else.
const SEEDS: u64 = 3000;

/// Names the seed if a check fails in its run.
struct Announce(u64);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!(
                "seed {seed} failed; again: POPCORE_SIMULATION_FIRST={seed} \
                 POPCORE_SIMULATION_SEEDS=1 cargo test --test simulation"
            );
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().expect("a number of seeds"))
}

#[test]
fn every_reply_is_the_models() {
    let first = number("POPCORE_SIMULATION_FIRST").unwrap_or(0);
    let seeds = number("POPCORE_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let mut ends: BTreeMap<End, u64> = BTreeMap::new();
    let (mut replies, mut removed) = (0, 0);
    for seed in first..first + seeds {
        let _announce = Announce(seed);
        let verdict = run(seed);
        *ends.entry(verdict.end).or_default() += 1;
        replies += verdict.replies.len();
        removed += verdict.totals.removed.len();
    }
    println!("{seeds} seeds, {replies} replies, {removed} removals, ends: {ends:?}");
    // The scripts must reach every end, or the checks above check little.
    if seeds >= SEEDS {
        assert_eq!(ends.len(), 7, "{ends:?}");
        assert!(ends.values().all(|&runs| runs >= seeds / 300), "{ends:?}");
        assert!(removed > 0);
    }
}

fn run(seed: u64) -> Verdict {
    let mut random = Random::new(seed);
    let script = Script::new(&mut random);
    let verdict = model::judge(&script);
    let mut connection = Connection::new(&script, &mut random);
    connection.play();
    let mut heard = &connection.heard[..];
    check(&mut heard, &Reply::Ok);
    for reply in &verdict.replies {
        check(&mut heard, reply);
    }
    assert!(
        heard.is_empty(),
        "more than was asked: {}",
        heard.escape_ascii()
    );
    assert_eq!(connection.end, expected(verdict.end));
    assert_eq!(connection.removed, verdict.totals.removed);
    let summary = connection.session().summary();
    let tally = summary.tally;
    let pair = |traffic: session::Traffic| (traffic.messages, traffic.octets.get());
    assert_eq!(pair(tally.retrieved), verdict.totals.retrieved);
    assert_eq!(pair(tally.topped), verdict.totals.topped);
    assert_eq!(
        tally.removed.messages as usize,
        verdict.totals.removed.len()
    );
    assert_eq!(summary.failed_logins, verdict.totals.failed_logins);
    verdict
}

fn expected(end: End) -> Option<session::End> {
    match end {
        End::Dropped => None,
        End::Quit => Some(session::End::Quit),
        End::NotAllRemoved => Some(session::End::NotAllRemoved),
        End::Autologout => Some(session::End::Autologout),
        End::LoginTimeout => Some(session::End::LoginTimeout),
        End::TooManyBadCommands => Some(session::End::TooManyBadCommands),
        End::TooManyAuthFailures => Some(session::End::TooManyAuthFailures),
    }
}

/// Takes one reply off the front.
fn check(heard: &mut &[u8], reply: &Reply) {
    let shown = heard[..heard.len().min(200)].escape_ascii().to_string();
    let fault = format!("wanted {reply:?}, got {shown}");
    match reply {
        Reply::Exactly(octets) => take(heard, octets, &fault),
        Reply::Ok => {
            let status = line(heard, &fault);
            assert!(status.starts_with("+OK "), "{fault}");
        }
        Reply::Err(code) => {
            let status = line(heard, &fault);
            let text = status.strip_prefix("-ERR ").expect(&fault);
            match code {
                Some(code) => assert!(text.starts_with(&format!("[{code}] ")), "{fault}"),
                None => assert!(!text.starts_with('['), "{fault}"),
            }
        }
        Reply::ErrText(code, text) => {
            let status = line(heard, &fault);
            let begins = format!("-ERR [{code}] {text}");
            assert!(status.starts_with(&begins), "{fault}");
        }
        Reply::Multi(octets) => {
            let status = line(heard, &fault);
            assert!(status.starts_with("+OK "), "{fault}");
            take(heard, octets, &fault);
        }
        Reply::Words(words) => {
            let status = line(heard, &fault);
            assert!(status.starts_with("+OK "), "{fault}");
            let mut left = words.clone();
            while !left.is_empty() {
                let word = line(heard, &fault);
                assert!(left.remove(&*word), "{word}: {fault}");
            }
            take(heard, b".\r\n", &fault);
        }
    }
}

fn take(heard: &mut &[u8], octets: &[u8], fault: &str) {
    *heard = heard.strip_prefix(octets).expect(fault);
}

/// Takes one line, which must be at most 512 octets with its CRLF.
fn line(heard: &mut &[u8], fault: &str) -> String {
    let end = heard
        .windows(2)
        .position(|pair| pair == b"\r\n")
        .expect(fault);
    assert!(end + 2 <= 512, "{fault}");
    let line = String::from_utf8(heard[..end].to_vec()).expect(fault);
    *heard = &heard[end + 2..];
    line
}
