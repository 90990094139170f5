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
    /// From there until the greeting.
    Greeting,
    /// A command: from its sending until the end of its reply.
    User,
    /// See [`Phase::User`].
    Pass,
    /// See [`Phase::User`].
    Stat,
    /// See [`Phase::User`].
    List,
    /// See [`Phase::User`].
    Uidl,
    /// See [`Phase::User`].
    Retr,
    /// See [`Phase::User`].
    Dele,
    /// See [`Phase::User`].
    Quit,
}

impl Phase {
    /// All of them, in the order of a session.
    pub const ALL: [Self; 10] = [
        Self::Connect,
        Self::Greeting,
        Self::User,
        Self::Pass,
        Self::Stat,
        Self::List,
        Self::Uidl,
        Self::Retr,
        Self::Dele,
        Self::Quit,
    ];

    /// The name in reports and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Greeting => "greeting",
            Self::User => "user",
            Self::Pass => "pass",
            Self::Stat => "stat",
            Self::List => "list",
            Self::Uidl => "uidl",
            Self::Retr => "retr",
            Self::Dele => "dele",
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
    /// Bytes read from sockets.
    pub received: u64,
    /// Bytes written to sockets.
    pub sent: u64,
    /// From `connect` to the reply to QUIT, sessions without a fault.
    pub session: Histogram<u64>,
    phases: Vec<Histogram<u64>>,
    /// What went wrong.
    pub faults: Faults,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            sessions: 0,
            failed: 0,
            commands: 0,
            messages: 0,
            octets: 0,
            received: 0,
            sent: 0,
            session: latencies(),
            phases: vec![latencies(); Phase::ALL.len()],
            faults: Faults::default(),
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
        self.received += other.received;
        self.sent += other.sent;
        let same = "both have the bounds of latencies()";
        self.session.add(other.session).expect(same);
        for (own, theirs) in self.phases.iter_mut().zip(other.phases) {
            own.add(theirs).expect(same);
        }
        self.faults.merge(other.faults);
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
