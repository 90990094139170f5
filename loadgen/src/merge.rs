//! One result from those of several generators that loaded a server together:
//! counts are added, histograms too, and so the percentiles are exact.

use std::path::PathBuf;

use hdrhistogram::Histogram;

use crate::compare::read;
use crate::hdr;
use crate::report::{
    Errors, Handshakes, Idle, Latency, Misbehaved, Report, Server, float, grown_by,
};
use crate::series::{Failure, publish_json};
use crate::timeline::Moment;

/// The subcommand.
pub fn merge(files: &[PathBuf], json: &str) -> Result<u8, Failure> {
    let mut runs = Vec::new();
    for path in files {
        runs.extend(read(path)?.into_iter().map(|run| (path, run)));
    }
    // By when they began, whatever their files are called.
    runs.sort_by(|(_, a), (_, b)| a.started_unix_s.total_cmp(&b.started_unix_s));
    let mut all: Option<Report> = None;
    for (path, run) in runs {
        all = Some(match all {
            None => run,
            Some(before) => add(before, run)
                .map_err(|e| Failure::Arguments(format!("{}: {e}", path.display())))?,
        });
    }
    let all = all.ok_or_else(|| Failure::Arguments("no run to merge".to_owned()))?;
    publish_json(json, &all, &all.table())?;
    Ok(0)
}

/// Both together; `a` began first.
pub fn add(mut a: Report, b: Report) -> Result<Report, String> {
    let unseen = if is_target_of(&a, &b) {
        Unseen::At(outside(&a, &b))
    } else {
        Unseen::All
    };
    merge_setup(&mut a, &b);
    for (name, text) in b.histograms {
        let mut sum = hdr::decode(&text)?;
        if let Some(own) = a.histograms.get(&name) {
            let own = hdr::decode(own)?;
            sum.add(own)
                .map_err(|e| format!("histograms of different bounds: {e:?}"))?;
        }
        a.latency_us.insert(name.clone(), Latency::new(&sum));
        a.histograms.insert(name, hdr::encode(&sum));
    }
    let ends = [
        (a.started_unix_s, a.elapsed_s),
        (b.started_unix_s, b.elapsed_s),
    ];
    a.started_unix_s = a.started_unix_s.min(b.started_unix_s);
    let end = ends.iter().map(|(from, length)| from + length);
    a.elapsed_s = end.fold(0.0, f64::max) - a.started_unix_s;
    a.interrupted |= b.interrupted;
    a.given_up = a.given_up.or(b.given_up);
    a.invalid = a.invalid.or(b.invalid);
    a.doubtful = a.doubtful.or(b.doubtful);
    a.greeting = a.greeting.or(b.greeting);
    a.search = a.search.or(b.search);
    a.idle = match (a.idle, b.idle) {
        (Some(a), Some(b)) => Some(merge_idle(&a, &b)),
        (a, b) => a.or(b),
    };
    a.sessions = a.sessions.saturating_add(b.sessions);
    a.failed_sessions = a.failed_sessions.saturating_add(b.failed_sessions);
    a.commands = a.commands.saturating_add(b.commands);
    a.messages = a.messages.saturating_add(b.messages);
    a.message_bytes = a.message_bytes.saturating_add(b.message_bytes);
    a.deleted = a.deleted.saturating_add(b.deleted);
    a.delivered = sum(a.delivered, b.delivered);
    a.received_bytes = a.received_bytes.saturating_add(b.received_bytes);
    a.sent_bytes = a.sent_bytes.saturating_add(b.sent_bytes);
    let rate = |count: u64| float(count) / a.elapsed_s.max(1e-9);
    a.rates.sessions_per_s = rate(a.sessions);
    a.rates.commands_per_s = rate(a.commands);
    a.rates.messages_per_s = rate(a.messages);
    a.rates.received_mb_per_s = rate(a.received_bytes) / 1e6;
    merge_kinds(&mut a, b.errors, b.tls, b.chaos);
    let all = a.sessions.saturating_add(a.failed_sessions);
    a.generator.cpu_s += b.generator.cpu_s;
    a.generator.cpu_us_per_session = (all > 0).then(|| a.generator.cpu_s * 1e6 / float(all));
    a.generator.busiest_thread = a.generator.busiest_thread.max(b.generator.busiest_thread);
    a.server = match (a.server, b.server) {
        (Some(a), Some(b)) => Some(merge_server(&a, &b, unseen)),
        (a, b) => a.or(b),
    };
    if let Some(server) = &mut a.server {
        server.cpu_us_per_session = (all > 0).then(|| server.cpu_s * 1e6 / float(all));
        server.cpus_used = server.cpu_s / a.elapsed_s.max(1e-9);
        server.anonymous_per_concurrent_session_bytes = grown_by(
            server.anonymous_most_bytes,
            server.anonymous_before_bytes,
            a.most_open_sessions,
        );
    }
    merge_timelines(&mut a.timeline, b.timeline, ends[1].0 - ends[0].0)?;
    Ok(a)
}

/// What was run.
fn merge_setup(a: &mut Report, b: &Report) {
    if !is_target_of(a, b) {
        a.target = format!("{}, {}", a.target, b.target);
    }
    if a.profile != b.profile {
        a.profile = format!("{}; {}", a.profile, b.profile);
    }
    if a.load != b.load {
        "mixed".clone_into(&mut a.load);
    }
    if a.rate != b.rate {
        let named =
            |rate: &Option<String>| rate.clone().unwrap_or_else(|| "closed loop".to_owned());
        let both = [named(&a.rate), named(&b.rate)];
        a.rate = Some(both.join(" + "));
    }
    a.concurrent_sessions += b.concurrent_sessions;
    a.most_open_sessions += b.most_open_sessions;
    a.threads += b.threads;
    a.users += b.users;
}

/// Whether `b` loaded a server that `a` did too.
fn is_target_of(a: &Report, b: &Report) -> bool {
    a.target.split(", ").any(|target| target == b.target)
}

/// The share of `b`'s time in which `a` was over; it did not begin later.
fn outside(a: &Report, b: &Report) -> f64 {
    let (end, length) = (a.started_unix_s + a.elapsed_s, b.elapsed_s.max(1e-9));
    ((b.started_unix_s + b.elapsed_s - end) / length).clamp(0.0, 1.0)
}

/// What of the second run's server the first did not see.
#[derive(Clone, Copy)]
enum Unseen {
    /// Everything: it is another server.
    All,
    /// It is the same, at work for both: what it used in this share of the second's time.
    At(f64),
}

/// What servers used. A server that generators load at a time is seen by each of them
/// at work for all; it is counted once.
fn merge_server(a: &Server, b: &Server, unseen: Unseen) -> Server {
    let share = match unseen {
        Unseen::All => 1.0,
        Unseen::At(share) => share,
    };
    // What lasts: of two servers the sum, of one the larger.
    let both = |a: u64, b: u64| match unseen {
        Unseen::All => a + b,
        Unseen::At(_) => a.max(b),
    };
    // What adds up by the time.
    let counted = |a: u64, b: u64| a + part(b, share);
    let all = |a: Option<u64>, b: Option<u64>, add: &dyn Fn(u64, u64) -> u64| match (a, b) {
        (Some(a), Some(b)) => Some(add(a, b)),
        // What one of them does not know is not known of both.
        _ => None,
    };
    Server {
        cpu_s: a.cpu_s + b.cpu_s * share,
        cpu_us_per_session: None,
        cpus_used: 0.0,
        threads: both(a.threads, b.threads),
        processes: both(a.processes, b.processes),
        most_processes: both(a.most_processes, b.most_processes),
        voluntary_switches: counted(a.voluntary_switches, b.voluntary_switches),
        involuntary_switches: counted(a.involuntary_switches, b.involuntary_switches),
        context_switches: all(a.context_switches, b.context_switches, &counted),
        anonymous_most_bytes: both(a.anonymous_most_bytes, b.anonymous_most_bytes),
        anonymous_per_concurrent_session_bytes: None,
        resident_before_bytes: match unseen {
            Unseen::All => a.resident_before_bytes + b.resident_before_bytes,
            Unseen::At(_) => a.resident_before_bytes,
        },
        resident_bytes: both(a.resident_bytes, b.resident_bytes),
        resident_peak_bytes: both(a.resident_peak_bytes, b.resident_peak_bytes),
        anonymous_before_bytes: match unseen {
            Unseen::All => a.anonymous_before_bytes + b.anonymous_before_bytes,
            Unseen::At(_) => a.anonymous_before_bytes,
        },
        anonymous_bytes: both(a.anonymous_bytes, b.anonymous_bytes),
        proportional_bytes: all(a.proportional_bytes, b.proportional_bytes, &both),
    }
}

/// A share of a count, from 0 to 1.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a count is no larger than the count and not negative"
)]
fn part(count: u64, share: f64) -> u64 {
    (float(count) * share).round() as u64
}

/// Sessions held at one server: each saw it grow by those of both.
fn merge_idle(a: &Idle, b: &Idle) -> Idle {
    let held = a.held + b.held;
    let grown = |idle: &Idle| Some(idle.server_bytes_per_session? * float(idle.held));
    let most = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) => Some(a.max(b)),
        (a, b) => a.or(b),
    };
    Idle {
        held,
        server_bytes_per_session: most(grown(a), grown(b))
            .filter(|_| held > 0)
            .map(|bytes| bytes / float(held)),
        server_cpu_s: most(a.server_cpu_s, b.server_cpu_s),
    }
}

/// What is counted by kind.
fn merge_kinds(a: &mut Report, errors: Errors, tls: Option<Handshakes>, chaos: Option<Misbehaved>) {
    a.errors.total += errors.total;
    for (name, kind) in errors.kinds {
        let own = a.errors.kinds.entry(name).or_default();
        own.count += kind.count;
        own.examples.extend(kind.examples);
        own.examples.truncate(3);
    }
    if let (Some(own), Some(theirs)) = (&mut a.tls, &tls) {
        own.full += theirs.full;
        own.resumed += theirs.resumed;
    } else {
        a.tls = a.tls.take().or(tls);
    }
    if let (Some(own), Some(theirs)) = (&mut a.chaos, &chaos) {
        own.ended_by_server += theirs.ended_by_server;
        own.reset_amid_message += theirs.reset_amid_message;
        for (name, count) in &theirs.sessions {
            *own.sessions.entry(name.clone()).or_default() += count;
        }
    } else {
        a.chaos = a.chaos.take().or(chaos);
    }
}

fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (a, b) => a.or(b),
    }
}

/// Seconds that begin nearest to each other become one. `later`: by how much
/// the second run began after the first.
fn merge_timelines(a: &mut Vec<Moment>, b: Vec<Moment>, later: f64) -> Result<(), String> {
    for mut moment in b {
        moment.from_s += later;
        moment.to_s += later;
        let near = a
            .iter_mut()
            .find(|own| (own.from_s - moment.from_s).abs() < 0.5);
        let Some(own) = near else {
            a.push(moment);
            continue;
        };
        own.to_s = own.to_s.max(moment.to_s);
        own.sessions += moment.sessions;
        own.failed_sessions += moment.failed_sessions;
        own.commands += moment.commands;
        own.messages += moment.messages;
        own.message_bytes += moment.message_bytes;
        own.errors += moment.errors;
        own.waiting += moment.waiting;
        let mut all: Histogram<u64> = hdr::decode(&own.session_histogram)?;
        all.add(hdr::decode(&moment.session_histogram)?)
            .map_err(|e| format!("histograms of different bounds: {e:?}"))?;
        let latency = Latency::new(&all);
        (own.p50_us, own.p90_us) = (latency.p50, latency.p90);
        (own.p99_us, own.max_us) = (latency.p99, latency.max);
        own.session_histogram = hdr::encode(&all);
    }
    a.sort_by(|x, y| x.from_s.total_cmp(&y.from_s));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn percentiles_are_those_of_all_sessions_together() {
        let (fast, slow): (Vec<u64>, Vec<u64>) = ((1..=600).collect(), (601..=1000).collect());
        let all: Vec<u64> = (1..=1000).collect();
        let both = add(sample(100.0, &fast), sample(101.0, &slow)).expect("alike");
        let (merged, whole) = (&both.latency_us["session"], sample(0.0, &all));
        let whole = &whole.latency_us["session"];
        let figures = |l: &Latency| [l.p50, l.p90, l.p99, l.p999, l.max].map(f64::to_bits);
        assert_eq!(figures(merged), figures(whole), "{merged:?} {whole:?}");
        assert_eq!((merged.count, both.sessions), (1000, 1000));
        // Two seconds each, the second one later.
        assert!((both.elapsed_s - 3.0).abs() < 1e-9, "{}", both.elapsed_s);
        let from: Vec<f64> = both.timeline.iter().map(|m| m.from_s).collect();
        assert_eq!(from, [0.0, 1.0]);
    }

    #[test]
    fn counts_that_no_run_has_are_no_panic() {
        let (mut a, b) = (sample(100.0, &[1]), sample(101.0, &[2]));
        a.sessions = u64::MAX;
        assert_eq!(add(a, b).expect("alike").sessions, u64::MAX);
    }

    fn server(cpu_s: f64, anonymous: u64) -> Server {
        Server {
            cpu_s,
            cpu_us_per_session: Some(1.0),
            cpus_used: 9.0,
            threads: 3,
            processes: 1,
            most_processes: 2,
            voluntary_switches: 100,
            involuntary_switches: 10,
            context_switches: Some(1_000),
            anonymous_most_bytes: anonymous,
            anonymous_per_concurrent_session_bytes: None,
            resident_before_bytes: 5,
            resident_bytes: 7,
            resident_peak_bytes: 9,
            anonymous_before_bytes: 1_000,
            anonymous_bytes: 2_000,
            proportional_bytes: None,
        }
    }

    /// Two runs of two seconds and four sessions, the second so many seconds later.
    fn with_servers(later: f64, target: &str) -> Server {
        let mut a = sample(100.0, &[1, 2, 3, 4]);
        let mut b = sample(100.0 + later, &[1, 2, 3, 4]);
        target.clone_into(&mut b.target);
        (a.server, b.server) = (Some(server(1.0, 4_000)), Some(server(3.0, 6_000)));
        (a.most_open_sessions, b.most_open_sessions) = (2, 3);
        let both = add(a, b).expect("alike");
        both.server.expect("both saw one")
    }

    #[test]
    fn what_servers_used_is_added_and_one_server_counted_once() {
        // CPU seconds, CPUs, microseconds a session, switches, threads, memory a session.
        let figures = |s: &Server| {
            let each = s.cpu_us_per_session.expect("sessions");
            let memory = s.anonymous_per_concurrent_session_bytes;
            [
                s.cpu_s,
                s.cpus_used,
                each,
                float(s.context_switches.expect("counted")),
                float(s.voluntary_switches),
                float(s.threads),
                memory.expect("sessions"),
            ]
        };
        for (later, target, expected) in [
            // Two servers at a time, and what they had both before.
            (
                0.0,
                "other:1",
                [4.0, 2.0, 500_000.0, 2_000.0, 200.0, 6.0, 1_600.0],
            ),
            // One server, which each saw at work for both.
            (
                0.0,
                "h:1",
                [1.0, 0.5, 125_000.0, 1_000.0, 100.0, 3.0, 1_000.0],
            ),
            // Half of the second's time was the second's alone.
            (
                1.0,
                "h:1",
                [2.5, 2.5 / 3.0, 312_500.0, 1_500.0, 150.0, 3.0, 1_000.0],
            ),
            // One after the other.
            (
                5.0,
                "h:1",
                [4.0, 4.0 / 7.0, 500_000.0, 2_000.0, 200.0, 3.0, 1_000.0],
            ),
        ] {
            let merged = figures(&with_servers(later, target));
            for (found, wanted) in merged.iter().zip(expected) {
                assert!(
                    (found - wanted).abs() < 1e-6,
                    "{later} {target}: {merged:?}"
                );
            }
        }
    }

    #[test]
    fn what_was_run_and_what_was_held_are_those_of_both() {
        let (mut a, mut b) = (sample(0.0, &[1]), sample(0.0, &[1]));
        a.rate = Some("5/s".to_owned());
        b.rate = Some("7/s".to_owned());
        let idle = |held: u64, bytes: f64| Idle {
            held,
            server_bytes_per_session: Some(bytes),
            server_cpu_s: Some(0.5),
        };
        // Each saw the server grow by the 3,000 octets of both.
        a.idle = Some(idle(10, 300.0));
        b.idle = Some(idle(20, 150.0));
        let both = add(a, b).expect("alike");
        assert_eq!(both.rate.as_deref(), Some("5/s + 7/s"));
        let idle = both.idle.expect("both held");
        assert_eq!(
            (idle.held, idle.server_bytes_per_session),
            (30, Some(100.0))
        );
    }
}
