//! Bounds that a run must keep: `p99<50ms,errors<0.1%`.

use std::fmt;

use crate::hdr;
use crate::report::{Report, float, latency_names};

/// One bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    what: What,
    limit: f64,
    /// As it was written.
    text: String,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    /// A percentile of a latency, in microseconds; 100 is the longest.
    Latency { name: String, percentile: f64 },
    /// Sessions with a fault by all sessions.
    Errors,
}

/// What a run came to, by one bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Whether it was kept.
    pub holds: bool,
    /// The bound, and what was measured.
    pub text: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reads bounds with commas between them.
///
/// Errors are for the operator: they say how it is written.
pub fn parse(text: &str) -> Result<Vec<Bound>, String> {
    let form = |part: &str| {
        format!(
            "--slo {text}: {part:?}: write it as p99<50ms, retr.p99.9<1s, session.max<5s or \
             errors<0.1%"
        )
    };
    let bounds = text.split(',').map(|part| {
        let part = part.trim();
        let (left, right) = part.split_once('<').ok_or_else(|| form(part))?;
        let (left, right) = (left.trim(), right.trim().trim_start_matches('='));
        let (what, limit) = if left == "errors" {
            let share = right.strip_suffix('%').map(|n| (n, 100.0));
            let (number, by) = share.unwrap_or((right, 1.0));
            (What::Errors, number.parse::<f64>().ok().map(|n| n / by))
        } else {
            let latency = latency(left).ok_or_else(|| form(part))?;
            (latency, micros(right))
        };
        let limit = limit.filter(|n| n.is_finite() && *n > 0.0);
        Ok(Bound {
            what,
            limit: limit.ok_or_else(|| form(part))?,
            text: part.to_owned(),
        })
    });
    bounds.collect()
}

fn latency(text: &str) -> Option<What> {
    let (name, figure) = match text.split_once('.') {
        Some((name, figure)) if latency_names().any(|known| known == name) => (name, figure),
        _ => ("session", text),
    };
    let percentile = match figure {
        "max" => 100.0,
        figure => figure.strip_prefix('p')?.parse().ok()?,
    };
    (0.0..=100.0).contains(&percentile).then(|| What::Latency {
        name: name.to_owned(),
        percentile,
    })
}

fn micros(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    let (number, unit) = units
        .into_iter()
        .find_map(|(unit, micros)| Some((text.strip_suffix(unit)?, micros)))?;
    number.trim().parse::<f64>().ok().map(|n| n * unit)
}

impl Bound {
    /// Whether a run kept it.
    pub fn judge(&self, report: &Report) -> Verdict {
        let (value, shown) = match &self.what {
            What::Errors => {
                let all = report.sessions + report.failed_sessions;
                let share = float(report.failed_sessions) / float(all.max(1));
                (Some(share), format!("{:.3} %", share * 100.0))
            }
            What::Latency { name, percentile } => {
                let histogram = report.histograms.get(name);
                let value = histogram
                    .and_then(|text| hdr::decode(text).ok())
                    .map(|h| float(h.value_at_percentile(*percentile)) / 1e3);
                let mut shown = value.map_or("none".to_owned(), |us| format!("{:.2} ms", us / 1e3));
                let lag = report.histograms.get("lag").filter(|_| name == "session");
                let late = lag
                    .and_then(|text| hdr::decode(text).ok())
                    .map(|h| float(h.value_at_percentile(*percentile)) / 1e3);
                if late.zip(value).is_some_and(|(late, all)| late > all / 2.0) {
                    shown += ", most of it the generator's own lateness";
                }
                (value, shown)
            }
        };
        Verdict {
            // What never occurred kept no bound.
            holds: value.is_some_and(|value| value < self.limit),
            text: format!("{} ({shown})", self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read() {
        let bounds = parse("p99<50ms, errors<0.1%,retr.p99.9<=1s,stat.max<20us").expect("sound");
        let limits: Vec<f64> = bounds.iter().map(|b| b.limit).collect();
        assert_eq!(limits, [50_000.0, 0.001, 1e6, 20.0]);
        let What::Latency { name, percentile } = &bounds[2].what else {
            panic!("{bounds:?}");
        };
        assert_eq!((name.as_str(), *percentile), ("retr", 99.9));
    }

    #[test]
    fn what_is_no_bound_is_refused() {
        for text in [
            "",
            "p99",
            "p99<",
            "p99<5",
            "p101<5ms",
            "sing.p99<5ms",
            "errors<x%",
            "p99<0ms",
            "p99>5ms",
            "p99<nans",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bound_is_judged_by_its_own_figure() {
        let latencies: Vec<u64> = (1..=1000).map(|n| n * 1000).collect();
        let mut report = crate::report::sample(0.0, &latencies);
        report.failed_sessions = 10;
        for (bound, holds, shown) in [
            ("p50<501ms", true, "p50<501ms (500."),
            ("p50<500ms", false, "p50<500ms (500."),
            ("p99<980ms", false, "(990."),
            ("p99.9<1.01s", true, "("),
            ("max<1s", false, "(100"),
            ("max<1.01s", true, "(100"),
            // Ten of 1,010.
            ("errors<1%", true, "(0.990 %)"),
            ("errors<0.0099", false, "(0.990 %)"),
            // What never occurred kept no bound.
            ("retr.p99<10s", false, "(none)"),
        ] {
            let verdict = parse(bound).expect("sound")[0].judge(&report);
            assert_eq!(verdict.holds, holds, "{bound}: {verdict}");
            assert!(verdict.text.contains(shown), "{bound}: {verdict}");
        }
        let late = report.histograms["session"].clone();
        report.histograms.insert("lag".to_owned(), late);
        let verdict = parse("max<1s").expect("sound")[0].judge(&report);
        assert!(
            verdict.text.contains("the generator's own lateness"),
            "{verdict}"
        );
    }
}
