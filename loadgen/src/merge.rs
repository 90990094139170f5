//! One result from those of several generators that loaded a server together:
//! counts are added, histograms too, and so the percentiles are exact.

use std::path::PathBuf;

use hdrhistogram::Histogram;

use crate::compare::read;
use crate::hdr;
use crate::report::{Errors, Handshakes, Latency, Misbehaved, Report, float};
use crate::series::{Failure, publish_json};
use crate::timeline::Moment;

/// The subcommand.
pub fn merge(files: &[PathBuf], json: &str) -> Result<u8, Failure> {
    let mut all: Option<Report> = None;
    for path in files {
        for run in read(path)? {
            all = Some(match all {
                None => run,
                Some(before) => add(before, run)
                    .map_err(|e| Failure::Arguments(format!("{}: {e}", path.display())))?,
            });
        }
    }
    let all = all.ok_or_else(|| Failure::Arguments("no run to merge".to_owned()))?;
    publish_json(json, &all, &all.table())?;
    Ok(0)
}

/// Both together.
pub fn add(mut a: Report, b: Report) -> Result<Report, String> {
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
    if !a.target.split(", ").any(|target| target == b.target) {
        a.target = format!("{}, {}", a.target, b.target);
    }
    if a.profile != b.profile {
        a.profile = format!("{}; {}", a.profile, b.profile);
    }
    a.concurrent_sessions += b.concurrent_sessions;
    a.threads += b.threads;
    a.users += b.users;
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
    }
    merge_timelines(&mut a.timeline, b.timeline, ends[1].0 - ends[0].0)?;
    Ok(a)
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
