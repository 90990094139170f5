//! The result of a run: as a table for people and as JSON for programs.
//!
//! Both are made from one [`Report`], so that they cannot disagree. Field names
//! are stable: fields may be added, none is renamed or changes its unit. Times
//! in `_us` are microseconds, sizes in `_bytes` octets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::measure::{Phase, Record};
use crate::plan::{Args, Plan};
use crate::run::{Outcome, ServerUse};

/// Everything that is reported of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Version of the generator.
    pub version: &'static str,
    /// As on the command line.
    pub target: String,
    /// As on the command line.
    pub profile: String,
    /// Sessions at a time.
    pub concurrent_sessions: usize,
    /// Threads of the generator.
    pub threads: usize,
    /// Users.
    pub users: usize,
    /// Of the choice of messages.
    pub seed: u64,
    /// The operator ended the run early.
    pub interrupted: bool,
    /// Why the run was given up.
    pub given_up: Option<String>,
    /// From the first connection to the end of the last session.
    pub elapsed_s: f64,
    /// Sessions without a fault.
    pub sessions: u64,
    /// Sessions with at least one fault.
    pub failed_sessions: u64,
    /// Replies read to their end, without greetings.
    pub commands: u64,
    /// Messages fetched whole.
    pub messages: u64,
    /// Octets of those as LIST counts them.
    pub message_bytes: u64,
    /// Bytes read from sockets.
    pub received_bytes: u64,
    /// Bytes written to sockets.
    pub sent_bytes: u64,
    /// The same by time.
    pub rates: Rates,
    /// What went wrong.
    pub errors: Errors,
    /// By `session` and the names of phases; only what occurred.
    pub latency_us: BTreeMap<&'static str, Latency>,
    /// What the generator itself used.
    pub generator: Generator,
    /// What the server used, with `--server-pid`.
    pub server: Option<Server>,
    /// The idle profile's own figures.
    pub idle: Option<Idle>,
}

/// Counts by time.
#[derive(Debug, Serialize)]
pub struct Rates {
    /// Sessions without a fault, a second.
    pub sessions_per_s: f64,
    /// Commands a second.
    pub commands_per_s: f64,
    /// Messages a second.
    pub messages_per_s: f64,
    /// Millions of bytes read a second.
    pub received_mb_per_s: f64,
}

/// What went wrong.
#[derive(Debug, Serialize)]
pub struct Errors {
    /// Occurrences of all kinds.
    pub total: u64,
    /// By kind.
    pub kinds: BTreeMap<&'static str, ErrorKind>,
}

/// One kind of error.
#[derive(Debug, Serialize)]
pub struct ErrorKind {
    /// Occurrences.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<String>,
}

/// A distribution of latencies in microseconds.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Longest.
    pub max: f64,
}

/// The generator's own use.
#[derive(Debug, Serialize)]
pub struct Generator {
    /// CPU time.
    pub cpu_s: f64,
    /// CPU time by sessions, failed ones included.
    pub cpu_us_per_session: Option<f64>,
}

/// The server's use.
#[derive(Debug, Serialize)]
pub struct Server {
    /// CPU time from before the first connection until after the last.
    pub cpu_s: f64,
    /// CPU time by sessions, failed ones included.
    pub cpu_us_per_session: Option<f64>,
    /// CPU time by time: 1 is one CPU fully used.
    pub cpus_used: f64,
    /// Threads at the end.
    pub threads: u64,
    /// Resident before the first connection.
    pub resident_before_bytes: u64,
    /// Resident at the end, or with all sessions held idle.
    pub resident_bytes: u64,
    /// The most that was ever resident.
    pub resident_peak_bytes: u64,
    /// Resident and backed by no file, before the first connection.
    pub anonymous_before_bytes: u64,
    /// Resident and backed by no file, at the end or with all sessions held.
    pub anonymous_bytes: u64,
    /// Proportional share (Pss), where it may be read.
    pub proportional_bytes: Option<u64>,
}

/// The idle profile.
#[derive(Debug, Serialize)]
pub struct Idle {
    /// Sessions held together when the time was up.
    pub held: u64,
    /// The server's own memory by held session: anonymous memory with them less
    /// that before the first.
    pub server_bytes_per_session: Option<f64>,
    /// The server's CPU time while nothing happened.
    pub server_cpu_s: Option<f64>,
}

/// A count as a number that can be divided; exact below 2^53.
#[allow(
    clippy::cast_precision_loss,
    reason = "counts and sizes of a run stay far below 2^53"
)]
fn float(count: u64) -> f64 {
    count as f64
}

impl Report {
    /// The report of this outcome.
    pub fn new(args: &Args, plan: &Plan, outcome: &Outcome) -> Self {
        let record = &outcome.record;
        let seconds = outcome.elapsed.as_secs_f64().max(1e-9);
        let all = record.sessions + record.failed;
        Self {
            version: env!("CARGO_PKG_VERSION"),
            target: args.target.clone(),
            profile: args.profile.name(),
            concurrent_sessions: plan.sessions,
            threads: plan.threads,
            users: plan.logins.len(),
            seed: plan.seed,
            interrupted: outcome.interrupted,
            given_up: outcome.given_up.clone(),
            elapsed_s: seconds,
            sessions: record.sessions,
            failed_sessions: record.failed,
            commands: record.commands,
            messages: record.messages,
            message_bytes: record.octets,
            received_bytes: record.received,
            sent_bytes: record.sent,
            rates: Rates {
                sessions_per_s: float(record.sessions) / seconds,
                commands_per_s: float(record.commands) / seconds,
                messages_per_s: float(record.messages) / seconds,
                received_mb_per_s: float(record.received) / 1e6 / seconds,
            },
            errors: errors(record),
            latency_us: latencies(record),
            generator: Generator {
                cpu_s: outcome.own_cpu.as_secs_f64(),
                cpu_us_per_session: per_session(outcome.own_cpu, all),
            },
            server: outcome
                .server
                .as_ref()
                .map(|used| Server::new(used, seconds, all)),
            idle: outcome
                .held
                .map(|held| Idle::new(held, outcome.server.as_ref())),
        }
    }

    /// Whether every session ended as it should, and there was one.
    pub fn is_clean(&self) -> bool {
        self.errors.total == 0 && self.given_up.is_none() && self.sessions > 0
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_to(&mut text);
        text
    }

    fn write_to(&self, out: &mut String) -> std::fmt::Result {
        let (profile, target) = (&self.profile, &self.target);
        let (sessions, threads, seconds) = (self.concurrent_sessions, self.threads, self.elapsed_s);
        writeln!(
            out,
            "{profile} against {target}: {sessions} sessions at a time on {threads} threads, {seconds:.2} s"
        )?;
        if self.interrupted {
            writeln!(out, "interrupted: the figures are those until then")?;
        }
        writeln!(out)?;
        let rates = &self.rates;
        writeln!(out, "{:<10}{:>14}{:>16}", "", "count", "a second")?;
        for (name, count, rate) in [
            ("sessions", self.sessions, rates.sessions_per_s),
            ("commands", self.commands, rates.commands_per_s),
            ("messages", self.messages, rates.messages_per_s),
            (
                "MB read",
                self.received_bytes / 1_000_000,
                rates.received_mb_per_s,
            ),
        ] {
            writeln!(out, "{name:<10}{count:>14}{rate:>16.1}")?;
        }
        self.write_latencies(out)?;
        self.write_use(out)?;
        self.write_errors(out)
    }

    fn write_latencies(&self, out: &mut String) -> std::fmt::Result {
        write!(out, "\n{:<10}", "latency us")?;
        for column in ["count", "p50", "p90", "p99", "p99.9", "max"] {
            write!(out, "{column:>12}")?;
        }
        writeln!(out)?;
        let names = std::iter::once("session").chain(Phase::ALL.map(Phase::name));
        for name in names {
            if let Some(row) = self.latency_us.get(name) {
                write!(out, "{name:<10}{:>12}", row.count)?;
                for value in [row.p50, row.p90, row.p99, row.p999, row.max] {
                    write!(out, "{value:>12.1}")?;
                }
                writeln!(out)?;
            }
        }
        Ok(())
    }

    fn write_use(&self, out: &mut String) -> std::fmt::Result {
        let each = |us: Option<f64>| us.map_or("-".to_owned(), |us| format!("{us:.1} us"));
        let mib = |bytes: u64| float(bytes) / 1_048_576.0;
        let own = &self.generator;
        let session = each(own.cpu_us_per_session);
        writeln!(
            out,
            "\ngenerator {:.2} s of CPU, {session} a session",
            own.cpu_s
        )?;
        if let Some(server) = &self.server {
            let session = each(server.cpu_us_per_session);
            writeln!(
                out,
                "server    {:.2} s of CPU, {session} a session, {:.2} CPUs used; \
                 {:.1} MiB resident ({:.1} before), {:.1} MiB of it anonymous, {} threads",
                server.cpu_s,
                server.cpus_used,
                mib(server.resident_bytes),
                mib(server.resident_before_bytes),
                mib(server.anonymous_bytes),
                server.threads
            )?;
        }
        if let Some(idle) = &self.idle {
            write!(out, "idle      {} sessions held", idle.held)?;
            if let (Some(bytes), Some(cpu)) = (idle.server_bytes_per_session, idle.server_cpu_s) {
                write!(
                    out,
                    ", {bytes:.0} bytes of the server's own memory each, {cpu:.3} s of its CPU meanwhile"
                )?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn write_errors(&self, out: &mut String) -> std::fmt::Result {
        if self.errors.total == 0 {
            return writeln!(out, "errors    none");
        }
        let (total, failed) = (self.errors.total, self.failed_sessions);
        writeln!(out, "errors    {total} in {failed} sessions")?;
        for (name, kind) in &self.errors.kinds {
            writeln!(out, "  {name:<16}{:>10}", kind.count)?;
            for example in &kind.examples {
                writeln!(out, "    {example}")?;
            }
        }
        Ok(())
    }
}

impl Server {
    fn new(used: &ServerUse, seconds: f64, sessions: u64) -> Self {
        Self {
            cpu_s: used.cpu.as_secs_f64(),
            cpu_us_per_session: per_session(used.cpu, sessions),
            cpus_used: used.cpu.as_secs_f64() / seconds,
            threads: used.after.threads,
            resident_before_bytes: used.before.resident,
            resident_bytes: used.after.resident,
            resident_peak_bytes: used.after.peak,
            anonymous_before_bytes: used.before.anonymous,
            anonymous_bytes: used.after.anonymous,
            proportional_bytes: used.after.proportional,
        }
    }
}

impl Idle {
    fn new(held: u64, server: Option<&ServerUse>) -> Self {
        let grown = |used: &ServerUse| {
            let bytes = float(used.after.anonymous) - float(used.before.anonymous);
            (held > 0).then(|| bytes / float(held))
        };
        Self {
            held,
            server_bytes_per_session: server.and_then(grown),
            server_cpu_s: server
                .and_then(|used| used.idle_cpu)
                .map(|cpu| cpu.as_secs_f64()),
        }
    }
}

fn per_session(cpu: Duration, sessions: u64) -> Option<f64> {
    (sessions > 0).then(|| cpu.as_secs_f64() * 1e6 / float(sessions))
}

fn errors(record: &Record) -> Errors {
    let kind = |seen: &crate::measure::Seen| ErrorKind {
        count: seen.count,
        examples: seen.examples.clone(),
    };
    Errors {
        total: record.faults.total(),
        kinds: record
            .faults
            .kinds()
            .map(|(name, seen)| (name.name(), kind(seen)))
            .collect(),
    }
}

fn latencies(record: &Record) -> BTreeMap<&'static str, Latency> {
    let phases = Phase::ALL.map(|phase| (phase.name(), record.latencies(phase)));
    std::iter::once(("session", &record.session))
        .chain(phases)
        .filter(|(_, histogram)| !histogram.is_empty())
        .map(|(name, histogram)| (name, Latency::new(histogram)))
        .collect()
}

impl Latency {
    fn new(nanos: &Histogram<u64>) -> Self {
        let at = |percentile: f64| float(nanos.value_at_percentile(percentile)) / 1e3;
        Self {
            count: nanos.len(),
            mean: nanos.mean() / 1e3,
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p999: at(99.9),
            max: float(nanos.max()) / 1e3,
        }
    }
}
