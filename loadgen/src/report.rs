//! The result of a run: as a table for people, as JSON for programs, and as a
//! page with plots.
//!
//! All are made from one [`Report`], so that they cannot disagree. Field names
//! are stable: fields may be added, none is renamed or changes its unit. Times
//! in `_us` are microseconds, sizes in `_bytes` octets.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::args::{Chaos, RunArgs};
use crate::environment::Environment;
use crate::hdr;
use crate::measure::{Phase, Record};
use crate::plan::{Load, Plan};
use crate::run::{Outcome, ServerUse};
use crate::timeline::Moment;

/// Everything that is reported of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Version of the generator.
    pub version: String,
    /// As on the command line.
    pub target: String,
    /// The profile, or the mix.
    pub profile: String,
    /// `closed` or `open`.
    pub load: String,
    /// As on the command line.
    pub rate: Option<String>,
    /// Sessions at a time; open loop: the most.
    pub concurrent_sessions: usize,
    /// The most connections that were open at a time.
    #[serde(default)]
    pub most_open_sessions: u64,
    /// Threads of the generator.
    pub threads: usize,
    /// Users.
    pub users: usize,
    /// Of whatever is chosen at random.
    pub seed: u64,
    /// When the run began, in seconds of Unix time.
    pub started_unix_s: f64,
    /// The operator ended the run early.
    pub interrupted: bool,
    /// Why the run was given up.
    pub given_up: Option<String>,
    /// Why the figures are the generator's more than the server's.
    pub invalid: Option<String>,
    /// Which single figures are.
    #[serde(default)]
    pub doubtful: Option<String>,
    /// What the server said of itself.
    #[serde(default)]
    pub greeting: Option<String>,
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
    /// Messages deleted, as QUIT confirmed.
    pub deleted: u64,
    /// Messages delivered, with `--deliver`.
    pub delivered: Option<u64>,
    /// Bytes of replies, without TLS.
    pub received_bytes: u64,
    /// Bytes of commands, without TLS.
    pub sent_bytes: u64,
    /// The same by time.
    pub rates: Rates,
    /// What went wrong.
    pub errors: Errors,
    /// By `session`, the names of phases, and `lag`; only what occurred.
    pub latency_us: BTreeMap<String, Latency>,
    /// TLS handshakes.
    pub tls: Option<Handshakes>,
    /// Sessions that misbehaved.
    pub chaos: Option<Misbehaved>,
    /// What the generator itself used.
    pub generator: Generator,
    /// What the server used, where it was named.
    pub server: Option<Server>,
    /// The idle profile's own figures.
    pub idle: Option<Idle>,
    /// How the rate was found, with `--find-max`.
    pub search: Option<Search>,
    /// Second by second.
    pub timeline: Vec<Moment>,
    /// The latencies as histograms in nanoseconds, compressed and in base64.
    pub histograms: BTreeMap<String, String>,
    /// Where and how it was measured.
    pub environment: Environment,
}

/// The search for the highest rate.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Search {
    /// What had to hold.
    pub slo: String,
    /// What a closed loop reached before it.
    pub closed_loop_per_s: f64,
    /// The highest rate that held. `None`: none did.
    pub max_rate_per_s: Option<f64>,
    /// What broke at the lowest rate that did not hold.
    pub gave_way: Option<String>,
    /// In order.
    pub trials: Vec<Trial>,
}

/// One rate of a search.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trial {
    /// Sessions a second.
    pub rate_per_s: f64,
    /// Whether all held.
    pub holds: bool,
    /// What did not.
    pub gave_way: Option<String>,
}

/// TLS handshakes, those of sessions that misbehave left out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Handshakes {
    /// In full.
    pub full: u64,
    /// Of an earlier session.
    pub resumed: u64,
}

/// Sessions that misbehaved: they are in no other figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Misbehaved {
    /// By how.
    pub sessions: BTreeMap<String, u64>,
    /// Those that the server ended or refused, as it may.
    pub ended_by_server: u64,
    /// Those of `reset` that were amid a message and were reset.
    #[serde(default)]
    pub reset_amid_message: u64,
}

/// Counts by time.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Errors {
    /// Occurrences of all kinds.
    pub total: u64,
    /// By kind.
    pub kinds: BTreeMap<String, ErrorKind>,
}

/// One kind of error.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ErrorKind {
    /// Occurrences.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<String>,
}

/// A distribution of latencies in microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Generator {
    /// CPU time.
    pub cpu_s: f64,
    /// CPU time by sessions, failed ones included.
    pub cpu_us_per_session: Option<f64>,
    /// Share of its time that the busiest thread was on a CPU.
    pub busiest_thread: f64,
}

/// The server's use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Server {
    /// CPU time from before the first connection until after the last.
    pub cpu_s: f64,
    /// CPU time by sessions, failed ones included.
    pub cpu_us_per_session: Option<f64>,
    /// CPU time by time: 1 is one CPU fully used.
    pub cpus_used: f64,
    /// Threads at the end, or with all sessions held.
    pub threads: u64,
    /// Processes likewise.
    pub processes: u64,
    /// The most processes that were seen at a time.
    pub most_processes: u64,
    /// Context switches that a thread asked for, of threads that are there still.
    pub voluntary_switches: u64,
    /// Context switches that it did not ask for, likewise.
    pub involuntary_switches: u64,
    /// All context switches of a tree or a cgroup, those of what has ended among
    /// them, where the kernel lets count.
    #[serde(default)]
    pub context_switches: Option<u64>,
    /// The most anonymous memory that was seen during the run.
    pub anonymous_most_bytes: u64,
    /// That less what there was before, by the most sessions that were open at a
    /// time. `None`: there were none.
    pub anonymous_per_concurrent_session_bytes: Option<f64>,
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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
pub fn float(count: u64) -> f64 {
    count as f64
}

impl Report {
    /// The report of this outcome of a run against target number `target`.
    pub fn new(args: &RunArgs, target: usize, plan: &Plan, outcome: &Outcome) -> Self {
        let record = &outcome.record;
        let seconds = outcome.elapsed.as_secs_f64().max(1e-9);
        let all = record.sessions + record.failed;
        let started = outcome.started.duration_since(UNIX_EPOCH);
        let handshakes = (record.tls_full + record.tls_resumed > 0).then_some(Handshakes {
            full: record.tls_full,
            resumed: record.tls_resumed,
        });
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            target: args.target[target].clone(),
            profile: plan.conduct.mix.name(),
            load: match plan.load {
                Load::Closed => "closed".to_owned(),
                Load::Open(..) => "open".to_owned(),
            },
            rate: args.rate.clone(),
            concurrent_sessions: plan.sessions,
            most_open_sessions: record.most_open,
            threads: plan.threads,
            users: plan.logins.len(),
            seed: plan.seed,
            started_unix_s: started.unwrap_or_default().as_secs_f64(),
            interrupted: outcome.interrupted,
            given_up: outcome.given_up.clone(),
            invalid: outcome.invalid.clone(),
            doubtful: outcome.doubtful.clone(),
            greeting: record.greeting.clone(),
            elapsed_s: seconds,
            sessions: record.sessions,
            failed_sessions: record.failed,
            commands: record.commands,
            messages: record.messages,
            message_bytes: record.octets,
            deleted: record.deleted,
            delivered: outcome.delivered,
            received_bytes: record.received,
            sent_bytes: record.sent,
            rates: Rates::new(record, seconds),
            errors: errors(record),
            latency_us: histograms(record)
                .map(|(name, histogram)| (name.to_owned(), Latency::new(histogram)))
                .collect(),
            tls: handshakes,
            chaos: plan.chaos.as_ref().map(|_| Misbehaved::new(record)),
            generator: Generator {
                cpu_s: outcome.own_cpu.as_secs_f64(),
                cpu_us_per_session: per_session(outcome.own_cpu, all),
                busiest_thread: record.busiest,
            },
            server: outcome
                .server
                .as_ref()
                .map(|used| Server::new(used, seconds, all, record.most_open)),
            idle: outcome
                .held
                .map(|held| Idle::new(held, outcome.server.as_ref())),
            search: None,
            timeline: outcome.timeline.clone(),
            histograms: histograms(record)
                .map(|(name, histogram)| (name.to_owned(), hdr::encode(histogram)))
                .collect(),
            environment: Environment::here(),
        }
    }

    /// Whether every session ended as it should, and there was one.
    pub fn is_clean(&self) -> bool {
        self.errors.total == 0 && self.given_up.is_none() && self.sessions > 0
    }
}

impl Server {
    /// Context switches for people.
    pub fn switches(&self) -> String {
        match self.context_switches {
            Some(all) => format!("{all}, ended processes included"),
            None => format!(
                "{} voluntary, {} forced",
                self.voluntary_switches, self.involuntary_switches
            ),
        }
    }

    fn new(used: &ServerUse, seconds: f64, sessions: u64, most_open: u64) -> Self {
        let (most, before) = (used.most.anonymous, used.before.anonymous);
        Self {
            cpu_s: used.cpu.as_secs_f64(),
            cpu_us_per_session: per_session(used.cpu, sessions),
            cpus_used: used.cpu.as_secs_f64() / seconds,
            threads: used.after.threads,
            processes: used.after.processes,
            most_processes: used.most.processes,
            voluntary_switches: used.switches.0,
            involuntary_switches: used.switches.1,
            context_switches: used.all_switches,
            anonymous_most_bytes: used.most.anonymous,
            anonymous_per_concurrent_session_bytes: grown_by(most, before, most_open),
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
        let grown = |used: &ServerUse| grown_by(used.after.anonymous, used.before.anonymous, held);
        Self {
            held,
            server_bytes_per_session: server.and_then(grown),
            server_cpu_s: server
                .and_then(|used| used.idle_cpu)
                .map(|cpu| cpu.as_secs_f64()),
        }
    }
}

/// How much memory has grown for each of so many sessions.
pub fn grown_by(after: u64, before: u64, sessions: u64) -> Option<f64> {
    (sessions > 0).then(|| (float(after) - float(before)) / float(sessions))
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
            .map(|(name, seen)| (name.name().to_owned(), kind(seen)))
            .collect(),
    }
}

/// All latencies that occurred, by name.
fn histograms(record: &Record) -> impl Iterator<Item = (&'static str, &Histogram<u64>)> {
    let phases = Phase::ALL.map(|phase| (phase.name(), record.latencies(phase)));
    [("session", &record.session), ("lag", &record.lag)]
        .into_iter()
        .chain(phases)
        .filter(|(_, histogram)| !histogram.is_empty())
}

/// Names of latencies in the order of a session.
pub fn latency_names() -> impl Iterator<Item = &'static str> {
    std::iter::once("session")
        .chain(Phase::ALL.map(Phase::name))
        .chain(["lag"])
}

impl Rates {
    fn new(record: &Record, seconds: f64) -> Self {
        Self {
            sessions_per_s: float(record.sessions) / seconds,
            commands_per_s: float(record.commands) / seconds,
            messages_per_s: float(record.messages) / seconds,
            received_mb_per_s: float(record.received) / 1e6 / seconds,
        }
    }
}

impl Misbehaved {
    fn new(record: &Record) -> Self {
        use clap::ValueEnum as _;
        let name = |kind: &Chaos| {
            let value = kind.to_possible_value().expect("no kind is hidden");
            value.get_name().to_owned()
        };
        let kinds = Chaos::value_variants().iter();
        Self {
            sessions: kinds
                .map(|kind| (name(kind), record.chaos[*kind as usize]))
                .collect(),
            ended_by_server: record.chaos_failed,
            reset_amid_message: record.chaos_reset,
        }
    }
}

impl Latency {
    /// Of latencies in nanoseconds.
    pub fn new(nanos: &Histogram<u64>) -> Self {
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

/// A result as a generator's file has it, of so many sessions of these latencies.
#[cfg(test)]
pub(crate) fn sample(started_unix_s: f64, latencies_us: &[u64]) -> Report {
    use serde_json::Value;
    let mut nanos = Histogram::new(3).expect("sound");
    for us in latencies_us {
        nanos.record(us * 1000).expect("it grows");
    }
    let sessions = latencies_us.len();
    let text = hdr::encode(&nanos);
    let mut report = serde_json::json!({
        "version": "0", "target": "h:1", "profile": "poll", "load": "closed", "rate": null,
        "concurrent_sessions": 1, "threads": 1, "users": 1, "seed": 1,
        "started_unix_s": started_unix_s, "interrupted": false, "given_up": null, "invalid": null,
        "elapsed_s": 2.0, "sessions": sessions, "failed_sessions": 0, "commands": 0,
        "messages": 0, "message_bytes": 0, "deleted": 0, "delivered": null, "received_bytes": 0,
        "sent_bytes": 0,
    });
    let more = serde_json::json!({
        "rates": {"sessions_per_s": float(sessions as u64) / 2.0, "commands_per_s": 0.0,
                  "messages_per_s": 0.0, "received_mb_per_s": 0.0},
        "errors": {"total": 0, "kinds": {}}, "latency_us": {"session": Latency::new(&nanos)},
        "tls": null, "chaos": null,
        "generator": {"cpu_s": 0.0, "cpu_us_per_session": null, "busiest_thread": 0.1},
        "server": null, "idle": null, "search": null,
        "timeline": [{"from_s": 0.0, "to_s": 1.0, "sessions": sessions, "failed_sessions": 0,
                      "commands": 0, "messages": 0, "message_bytes": 0, "errors": 0,
                      "waiting": 0, "p50_us": 0.0, "p90_us": 0.0, "p99_us": 0.0, "max_us": 0.0,
                      "session_histogram": text}],
        "histograms": {"session": text}, "environment": Environment::default(),
    });
    let (Value::Object(report_fields), Value::Object(more)) = (&mut report, more) else {
        unreachable!("both are objects");
    };
    report_fields.extend(more);
    serde_json::from_value(report).expect("a result")
}
