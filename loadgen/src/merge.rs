//! One result from those of several generators that loaded a server together:
//! counts are added, histograms too, and so the percentiles are exact.

use std::path::PathBuf;

use hdrhistogram::Histogram;

use crate::compare::read;
use crate::hdr;
use crate::report::{Errors, Handshakes, Idle, Latency, Misbehaved, Report, float, grown_by};
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
    a.search = a.search.or(b.search);
    a.idle = match (a.idle, b.idle) {
        (Some(a), Some(b)) => Some(merge_idle(&a, &b)),
        (a, b) => a.or(b),
    };
    a.sessions += b.sessions;
    a.failed_sessions += b.failed_sessions;
    a.commands += b.commands;
    a.messages += b.messages;
    a.message_bytes += b.message_bytes;
    a.deleted += b.deleted;
    a.delivered = sum(a.delivered, b.delivered);
    a.received_bytes += b.received_bytes;
    a.sent_bytes += b.sent_bytes;
    let rate = |count: u64| float(count) / a.elapsed_s.max(1e-9);
    a.rates.sessions_per_s = rate(a.sessions);
    a.rates.commands_per_s = rate(a.commands);
    a.rates.messages_per_s = rate(a.messages);
    a.rates.received_mb_per_s = rate(a.received_bytes) / 1e6;
    merge_kinds(&mut a, b.errors, b.tls, b.chaos);
    let all = a.sessions + a.failed_sessions;
    a.generator.cpu_s += b.generator.cpu_s;
    a.generator.cpu_us_per_session = (all > 0).then(|| a.generator.cpu_s * 1e6 / float(all));
    a.generator.busiest_thread = a.generator.busiest_thread.max(b.generator.busiest_thread);
    // Each saw its own machine: what servers used cannot be told apart.
    a.server = a.server.or(b.server);
    if let Some(server) = &mut a.server {
        server.cpu_us_per_session = (all > 0).then(|| server.cpu_s * 1e6 / float(all));
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
    if !a.target.split(", ").any(|target| target == b.target) {
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
        for (name, count) in &theirs.sessions {
            *own.sessions.entry(name.clone()).or_default() += count;
        }
    } else {
        a.chaos = a.chaos.take().or(chaos);
    }
}

fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
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
