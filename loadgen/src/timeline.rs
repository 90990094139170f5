//! The run second by second.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::hdr;
use crate::measure::Interval;

/// A second of the run, of all threads together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Moment {
    /// From the run's beginning.
    pub from_s: f64,
    /// The same; the last one is shorter, and all are as long as the busiest
    /// thread took for them.
    pub to_s: f64,
    /// Sessions without a fault that ended.
    pub sessions: u64,
    /// Sessions with one.
    pub failed_sessions: u64,
    /// Replies read to their end.
    pub commands: u64,
    /// Messages fetched whole.
    pub messages: u64,
    /// Their octets.
    pub message_bytes: u64,
    /// Errors of all kinds.
    pub errors: u64,
    /// Open loop: sessions that were due and waited for a free user.
    pub waiting: u64,
    /// Of sessions without a fault.
    pub p50_us: f64,
    /// The same.
    pub p90_us: f64,
    /// The same.
    pub p99_us: f64,
    /// The same.
    pub max_us: f64,
    /// The same as a histogram in nanoseconds, compressed and in base64.
    pub session_histogram: String,
}

/// All of them, in order.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    moments: Vec<Moment>,
}

impl Timeline {
    /// Adds what one thread counted in a second.
    pub fn add(&mut self, interval: &Interval) {
        // Threads cut their seconds within milliseconds of each other.
        let at = self
            .moments
            .iter()
            .rposition(|moment| (moment.from_s - interval.from).abs() < 0.5);
        let moment = if let Some(at) = at {
            &mut self.moments[at]
        } else {
            self.moments.push(Moment {
                from_s: interval.from,
                ..Moment::default()
            });
            self.moments.last_mut().expect("just pushed")
        };
        moment.from_s = moment.from_s.min(interval.from);
        moment.to_s = moment.to_s.max(interval.to);
        moment.sessions += interval.session.len();
        moment.failed_sessions += interval.failed;
        moment.commands += interval.commands;
        moment.messages += interval.messages;
        moment.message_bytes += interval.octets;
        moment.errors += interval.faults;
        moment.waiting += interval.waiting;
        let mut all = interval.session.clone();
        if let Ok(others) = hdr::decode(&moment.session_histogram) {
            all.add(others).expect("both have the bounds of a record's");
        }
        let at = |percentile| micros(all.value_at_percentile(percentile));
        (moment.p50_us, moment.p90_us, moment.p99_us) = (at(50.0), at(90.0), at(99.0));
        moment.max_us = micros(all.max());
        moment.session_histogram = hdr::encode(&all);
    }

    /// In order.
    pub fn moments(mut self) -> Vec<Moment> {
        self.moments.sort_by(|a, b| a.from_s.total_cmp(&b.from_s));
        self.moments
    }

    /// The last one that is there.
    pub fn last(&self) -> Option<&Moment> {
        self.moments.last()
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "latencies in nanoseconds stay far below 2^53"
)]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// The time line as comma-separated values, a header first.
pub fn csv(moments: &[Moment]) -> String {
    let mut text = "from_s,to_s,sessions,failed_sessions,sessions_per_s,commands,messages,\
                    message_bytes,errors,waiting,p50_us,p90_us,p99_us,max_us\n"
        .to_owned();
    for m in moments {
        #[allow(
            clippy::cast_precision_loss,
            reason = "sessions of a second stay far below 2^53"
        )]
        let rate = m.sessions as f64 / (m.to_s - m.from_s).max(1e-9);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:.3},{:.3},{},{},{:.1},{},{},{},{},{},{:.1},{:.1},{:.1},{:.1}",
            m.from_s,
            m.to_s,
            m.sessions,
            m.failed_sessions,
            rate,
            m.commands,
            m.messages,
            m.message_bytes,
            m.errors,
            m.waiting,
            m.p50_us,
            m.p90_us,
            m.p99_us,
            m.max_us
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Record;
    use std::time::Duration;

    #[test]
    fn seconds_of_several_threads_are_one() {
        let mut timeline = Timeline::default();
        for from in [1.0, 0.0] {
            for thread in [0.0, 0.004] {
                let mut record = Record::default();
                record.cut_interval(from + thread);
                record.session(Duration::from_millis(5));
                record.session(Duration::from_millis(9));
                timeline.add(&record.cut_interval(from + thread + 1.0));
            }
        }
        let moments = timeline.moments();
        assert_eq!(moments.len(), 2);
        assert!(moments[0].from_s < moments[1].from_s);
        for moment in &moments {
            assert_eq!(moment.sessions, 4);
            let all = hdr::decode(&moment.session_histogram).expect("sound");
            assert_eq!(all.len(), 4);
            assert!((moment.max_us - 9_000.0).abs() < 10.0);
        }
        let csv = csv(&moments);
        assert_eq!(csv.lines().count(), 3);
        let columns = |line: &str| line.split(',').count();
        assert!(csv.lines().all(|line| columns(line) == 14), "{csv}");
    }
}
