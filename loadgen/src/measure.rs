//! What a thread counted: sessions, octets, latencies, faults.
//!
//! Each thread owns one [`Record`] and nobody else sees it before the thread
//! ends; records are then merged, histograms exactly.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::fault::{Fault, Kind};

/// A part of a session that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// From `connect` until the connection stands.
    Connect,
    /// The TLS handshake, from the client's first octet until it may send.
    Tls,
    /// From there until the greeting.
    Greeting,
    /// A command: from its sending until the end of its reply.
    Capa,
    /// See [`Phase::Capa`].
    Stls,
    /// AUTH with all its challenges.
    Auth,
    /// See [`Phase::Capa`].
    User,
    /// See [`Phase::Capa`].
    Pass,
    /// See [`Phase::Capa`].
    Stat,
    /// See [`Phase::Capa`].
    List,
    /// See [`Phase::Capa`].
    Uidl,
    /// RETR, until the first line of its reply was read.
    RetrFirst,
    /// RETR, until the last octet.
    Retr,
    /// See [`Phase::Capa`].
    Top,
    /// See [`Phase::Capa`].
    Dele,
    /// See [`Phase::Capa`].
    Noop,
    /// See [`Phase::Capa`].
    Rset,
    /// See [`Phase::Capa`].
    Quit,
}

impl Phase {
    /// All of them, in the order of a session.
    pub const ALL: [Self; 18] = [
        Self::Connect,
        Self::Tls,
        Self::Greeting,
        Self::Capa,
        Self::Stls,
        Self::Auth,
        Self::User,
        Self::Pass,
        Self::Stat,
        Self::List,
        Self::Uidl,
        Self::RetrFirst,
        Self::Retr,
        Self::Top,
        Self::Dele,
        Self::Noop,
        Self::Rset,
        Self::Quit,
    ];

    /// The name in reports and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Greeting => "greeting",
            Self::Capa => "capa",
            Self::Stls => "stls",
            Self::Auth => "auth",
            Self::User => "user",
            Self::Pass => "pass",
            Self::Stat => "stat",
            Self::List => "list",
            Self::Uidl => "uidl",
            Self::RetrFirst => "retr-first",
            Self::Retr => "retr",
            Self::Top => "top",
            Self::Dele => "dele",
            Self::Noop => "noop",
            Self::Rset => "rset",
            Self::Quit => "quit",
        }
    }
}

/// Latencies from 0.1 us to 10 minutes, in nanoseconds, to three digits.
fn latencies() -> Histogram<u64> {
    let longest = u64::try_from(Duration::from_mins(10).as_nanos()).expect("fits 64 bits");
    Histogram::new_with_bounds(100, longest, 3).expect("sound bounds")
}

/// Adds a latency; what is longer than the histogram holds counts as its longest.
fn add(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
}

/// Faults by kind, the first few with their text.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    kinds: BTreeMap<Kind, Seen>,
}

/// How often a kind of fault came up, and examples of it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Occurrences.
    pub count: u64,
    /// The first of them, with the user.
    pub examples: Vec<String>,
}

/// Examples kept of each kind.
const EXAMPLES: usize = 3;

impl Faults {
    fn add(&mut self, fault: &Fault, user: &str) {
        let seen = self.kinds.entry(fault.kind).or_default();
        seen.count += 1;
        if seen.examples.len() < EXAMPLES {
            seen.examples.push(format!("{user}: {}", fault.text));
        }
    }

    fn merge(&mut self, other: Self) {
        for (kind, seen) in other.kinds {
            let own = self.kinds.entry(kind).or_default();
            own.count += seen.count;
            own.examples.extend(seen.examples);
            own.examples.truncate(EXAMPLES);
        }
    }

    /// All kinds that occurred.
    pub fn kinds(&self) -> impl Iterator<Item = (Kind, &Seen)> {
        self.kinds.iter().map(|(kind, seen)| (*kind, seen))
    }

    /// Occurrences of all kinds.
    pub fn total(&self) -> u64 {
        self.kinds.values().map(|seen| seen.count).sum()
    }
}

/// Characters of a greeting that are kept.
const GREETING: usize = 200;

/// What was counted.
#[derive(Clone, Debug)]
pub struct Record {
    /// Sessions that ended as they should.
    pub sessions: u64,
    /// Sessions with at least one fault.
    pub failed: u64,
    /// Replies to commands, read to their end; the greeting is none.
    pub commands: u64,
    /// Messages fetched whole.
    pub messages: u64,
    /// Octets of those, as LIST counts them.
    pub octets: u64,
    /// Messages deleted: DELE and QUIT were answered with `+OK`.
    pub deleted: u64,
    /// Bytes read from sockets.
    pub received: u64,
    /// Bytes written to sockets.
    pub sent: u64,
    /// From `connect` to the reply to QUIT, sessions without a fault.
    pub session: Histogram<u64>,
    phases: Vec<Histogram<u64>>,
    /// Open loop: by how much the generator began sessions later than it
    /// should, whatever the server did.
    pub lag: Histogram<u64>,
    /// What went wrong.
    pub faults: Faults,
    /// TLS handshakes that resumed an earlier session.
    pub tls_resumed: u64,
    /// TLS handshakes in full.
    pub tls_full: u64,
    /// Sessions that misbehaved, by [`crate::args::Chaos`].
    pub chaos: [u64; 4],
    /// Of those, sessions that the server ended or refused.
    pub chaos_failed: u64,
    /// Of those, connections that were reset in the midst of a message.
    pub chaos_reset: u64,
    /// What the server said of itself, to whoever came first.
    pub greeting: Option<String>,
    /// The share of its time that the busiest thread was on a CPU.
    pub busiest: f64,
    /// The most connections of all threads that were open at a time.
    pub most_open: u64,
    /// Since the last cut.
    recent: Histogram<u64>,
    before: Totals,
}

/// Counts up to the last cut of the time line.
#[derive(Clone, Debug, Default)]
struct Totals {
    from: f64,
    failed: u64,
    commands: u64,
    messages: u64,
    octets: u64,
    faults: u64,
}

/// A second of the run, more or less.
#[derive(Clone, Debug)]
pub struct Interval {
    /// From the run's beginning, in seconds.
    pub from: f64,
    /// The same.
    pub to: f64,
    /// Sessions that ended with a fault.
    pub failed: u64,
    /// Replies.
    pub commands: u64,
    /// Messages fetched whole.
    pub messages: u64,
    /// Their octets.
    pub octets: u64,
    /// Faults.
    pub faults: u64,
    /// Open loop: sessions that are due and wait, at its end.
    pub waiting: u64,
    /// Of sessions without a fault, in nanoseconds.
    pub session: Histogram<u64>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            sessions: 0,
            failed: 0,
            commands: 0,
            messages: 0,
            octets: 0,
            deleted: 0,
            received: 0,
            sent: 0,
            session: latencies(),
            phases: vec![latencies(); Phase::ALL.len()],
            lag: latencies(),
            faults: Faults::default(),
            tls_resumed: 0,
            tls_full: 0,
            chaos: [0; 4],
            chaos_failed: 0,
            chaos_reset: 0,
            greeting: None,
            busiest: 0.0,
            most_open: 0,
            recent: latencies(),
            before: Totals::default(),
        }
    }
}

impl Record {
    /// A phase took this long.
    pub fn phase(&mut self, phase: Phase, latency: Duration) {
        add(&mut self.phases[phase as usize], latency);
    }

    /// A session without a fault took this long.
    pub fn session(&mut self, latency: Duration) {
        self.sessions += 1;
        add(&mut self.session, latency);
        add(&mut self.recent, latency);
    }

    /// The generator began a session so late.
    pub fn late(&mut self, lag: Duration) {
        add(&mut self.lag, lag);
    }

    /// What was counted since the last cut, up to `now` seconds of the run.
    pub fn cut_interval(&mut self, now: f64) -> Interval {
        let totals = Totals {
            from: now,
            failed: self.failed,
            commands: self.commands,
            messages: self.messages,
            octets: self.octets,
            faults: self.faults.total(),
        };
        let before = std::mem::replace(&mut self.before, totals);
        let session = self.recent.clone();
        self.recent.reset();
        Interval {
            from: before.from,
            to: now,
            failed: self.failed - before.failed,
            commands: self.commands - before.commands,
            messages: self.messages - before.messages,
            octets: self.octets - before.octets,
            faults: self.faults.total() - before.faults,
            waiting: 0,
            session,
        }
    }

    /// The server greeted a session, by a line of any length.
    pub fn greeted(&mut self, text: &[u8]) {
        if self.greeting.is_none() {
            let text = String::from_utf8_lossy(text);
            self.greeting = Some(text.chars().take(GREETING).collect());
        }
    }

    /// Something went wrong in a session of this user.
    pub fn fault(&mut self, fault: &Fault, user: &str) {
        self.faults.add(fault, user);
    }

    /// The latencies of a phase in nanoseconds.
    pub fn latencies(&self, phase: Phase) -> &Histogram<u64> {
        &self.phases[phase as usize]
    }

    /// Adds what another thread counted.
    pub fn merge(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.failed += other.failed;
        self.commands += other.commands;
        self.messages += other.messages;
        self.octets += other.octets;
        self.deleted += other.deleted;
        self.received += other.received;
        self.sent += other.sent;
        let same = "both have the bounds of latencies()";
        self.session.add(other.session).expect(same);
        for (own, theirs) in self.phases.iter_mut().zip(other.phases) {
            own.add(theirs).expect(same);
        }
        self.lag.add(other.lag).expect(same);
        self.faults.merge(other.faults);
        self.tls_resumed += other.tls_resumed;
        self.tls_full += other.tls_full;
        for (own, theirs) in self.chaos.iter_mut().zip(other.chaos) {
            *own += theirs;
        }
        self.chaos_failed += other.chaos_failed;
        self.chaos_reset += other.chaos_reset;
        self.greeting = self.greeting.take().or(other.greeting);
        self.busiest = self.busiest.max(other.busiest);
        self.most_open = self.most_open.max(other.most_open);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_keeps_every_count_and_the_first_examples() {
        let one = |phase: Phase, micros: u64, kind: Kind| {
            let mut record = Record::default();
            record.phase(phase, Duration::from_micros(micros));
            record.session(Duration::from_micros(micros));
            for n in 0..2 {
                record.fault(&Fault::new(kind, format!("fault {n}")), "ann");
            }
            record.octets = 7;
            record
        };
        let mut all = one(Phase::Stat, 10, Kind::Octets);
        all.merge(one(Phase::Stat, 30, Kind::Octets));
        all.merge(one(Phase::Quit, 5, Kind::Stat));
        assert_eq!((all.sessions, all.octets), (3, 21));
        assert_eq!(all.latencies(Phase::Stat).len(), 2);
        assert_eq!(all.latencies(Phase::Quit).len(), 1);
        assert_eq!(all.session.len(), 3);
        assert_eq!(all.faults.total(), 6);
        let (kind, seen) = all.faults.kinds().next().expect("a kind");
        assert_eq!((kind, seen.count), (Kind::Stat, 2));
        let (kind, seen) = all.faults.kinds().nth(1).expect("a second kind");
        assert_eq!((kind, seen.count), (Kind::Octets, 4));
        assert_eq!(
            seen.examples,
            ["ann: fault 0", "ann: fault 1", "ann: fault 0"]
        );
    }

    #[test]
    fn a_latency_beyond_the_histogram_counts_as_its_longest() {
        let mut record = Record::default();
        record.phase(Phase::Retr, Duration::from_hours(5));
        record.phase(Phase::Retr, Duration::ZERO);
        assert_eq!(record.latencies(Phase::Retr).len(), 2);
        assert!(record.latencies(Phase::Retr).max() >= 600_000_000_000);
    }

    #[test]
    fn phases_are_numbered_as_they_are_listed() {
        for (index, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, index, "{}", phase.name());
        }
    }
}
