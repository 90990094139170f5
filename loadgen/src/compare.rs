//! Two results side by side: ratios, and how far they spread.
//!
//! Of repeated runs the ratio is that of the medians, and the spread is from the
//! smallest to the largest ratio of runs that followed each other. Of single
//! runs it is from second to second, where there are seconds to compare.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::report::{Report, float};
use crate::series::Failure;
use crate::tell;

/// Runs that belong together, as `--repeat` writes them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Series {
    /// Version of the generator.
    pub version: String,
    /// In the order in which they were made.
    pub runs: Vec<Report>,
    /// Medians, a target each.
    pub medians: Vec<Medians>,
    /// The second target by the first.
    pub ratios: Vec<Ratio>,
}

/// Medians over the runs of a target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Medians {
    /// As on the command line.
    pub target: String,
    /// Its runs.
    pub runs: usize,
    /// By the name of the figure.
    pub figures: Vec<(String, f64)>,
}

/// One figure of two results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// What is compared.
    pub figure: String,
    /// Median of the first.
    pub a: f64,
    /// Median of the second.
    pub b: f64,
    /// The second by the first. `None`: the first is 0.
    pub ratio: Option<f64>,
    /// The smallest single ratio, where there are several.
    pub least: Option<f64>,
    /// The largest.
    pub most: Option<f64>,
}

type Figure = (&'static str, fn(&Report) -> Option<f64>);

fn latency(report: &Report, name: &str) -> Option<(f64, f64, f64)> {
    let latency = report.latency_us.get(name)?;
    Some((latency.p50, latency.p99, latency.p999))
}

/// What is compared, in order.
const FIGURES: [Figure; 16] = [
    ("sessions/s", |r| Some(r.rates.sessions_per_s)),
    ("commands/s", |r| Some(r.rates.commands_per_s)),
    ("messages/s", |r| Some(r.rates.messages_per_s)),
    ("MB/s", |r| Some(r.rates.received_mb_per_s)),
    ("session p50 us", |r| latency(r, "session").map(|l| l.0)),
    ("session p99 us", |r| latency(r, "session").map(|l| l.1)),
    ("session p99.9 us", |r| latency(r, "session").map(|l| l.2)),
    ("pass p50 us", |r| latency(r, "pass").map(|l| l.0)),
    ("uidl p50 us", |r| latency(r, "uidl").map(|l| l.0)),
    ("retr p50 us", |r| latency(r, "retr").map(|l| l.0)),
    ("retr p99 us", |r| latency(r, "retr").map(|l| l.1)),
    ("errors", |r| Some(float(r.errors.total))),
    ("server CPU us/session", |r| {
        r.server.as_ref()?.cpu_us_per_session
    }),
    ("server memory MiB", |r| {
        Some(float(r.server.as_ref()?.anonymous_most_bytes) / 1_048_576.0)
    }),
    ("server bytes/idle session", |r| {
        r.idle.as_ref()?.server_bytes_per_session
    }),
    ("generator CPU us/session", |r| {
        r.generator.cpu_us_per_session
    }),
];

/// The number in the middle, or the mean of the two there.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

fn values(runs: &[&Report], figure: fn(&Report) -> Option<f64>) -> Vec<f64> {
    runs.iter().filter_map(|run| figure(run)).collect()
}

/// The medians of a target's runs.
pub fn medians(target: &str, runs: &[&Report]) -> Medians {
    let figures = FIGURES.iter().filter_map(|(name, figure)| {
        let median = median(&values(runs, *figure))?;
        Some(((*name).to_owned(), median))
    });
    Medians {
        target: target.to_owned(),
        runs: runs.len(),
        figures: figures.collect(),
    }
}

/// The second's figures by the first's.
pub fn ratios(a: &[&Report], b: &[&Report]) -> Vec<Ratio> {
    let mut all = Vec::new();
    for (name, figure) in FIGURES {
        let (of_a, of_b) = (values(a, figure), values(b, figure));
        let (Some(middle_a), Some(middle_b)) = (median(&of_a), median(&of_b)) else {
            continue;
        };
        if middle_a == 0.0 && middle_b == 0.0 {
            continue;
        }
        let single: Vec<f64> = if a.len() > 1 && b.len() > 1 {
            let pairs = of_a.iter().zip(&of_b);
            pairs.filter_map(|(a, b)| finite(b / a)).collect()
        } else {
            seconds(name, a[0], b[0])
        };
        let several = single.len() > 1;
        all.push(Ratio {
            figure: name.to_owned(),
            a: middle_a,
            b: middle_b,
            ratio: finite(middle_b / middle_a),
            least: several.then(|| single.iter().copied().fold(f64::INFINITY, f64::min)),
            most: several.then(|| single.iter().copied().fold(0.0, f64::max)),
        });
    }
    all
}

/// A ratio that JSON can hold: by nothing there is none.
fn finite(ratio: f64) -> Option<f64> {
    ratio.is_finite().then_some(ratio)
}

/// Ratios second by second, but for the last, which is cut short.
fn seconds(figure: &str, a: &Report, b: &Report) -> Vec<f64> {
    let value = |report: &Report, at: usize| -> Option<f64> {
        let moment = report.timeline.get(at)?;
        let length = moment.to_s - moment.from_s;
        match figure {
            "sessions/s" => Some(float(moment.sessions) / length),
            "commands/s" => Some(float(moment.commands) / length),
            "messages/s" => Some(float(moment.messages) / length),
            "session p50 us" => Some(moment.p50_us),
            "session p99 us" => Some(moment.p99_us),
            _ => None,
        }
    };
    let whole = a.timeline.len().min(b.timeline.len()).saturating_sub(1);
    (0..whole)
        .filter_map(|at| Some(value(b, at)? / value(a, at).filter(|a| *a > 0.0)?))
        .collect()
}

/// A table of ratios.
pub fn table(name_a: &str, name_b: &str, ratios: &[Ratio]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "A {name_a}\nB {name_b}\n");
    let _ = writeln!(
        text,
        "{:<28}{:>14}{:>14}{:>9}   spread of B/A",
        "median", "A", "B", "B/A"
    );
    for ratio in ratios {
        let Ratio { figure, a, b, .. } = ratio;
        let spread = match (ratio.least, ratio.most) {
            (Some(least), Some(most)) => format!("{least:.3} to {most:.3}"),
            _ => "-".to_owned(),
        };
        let middle = ratio
            .ratio
            .map_or("-".to_owned(), |ratio| format!("{ratio:.3}"));
        let _ = writeln!(text, "{figure:<28}{a:>14.1}{b:>14.1}{middle:>9}   {spread}");
    }
    text
}

/// The runs of a file: of one run, or of `--repeat`.
pub fn read(path: &Path) -> Result<Vec<Report>, Failure> {
    let name = path.display();
    let failed = |e: String| Failure::Arguments(format!("{name}: {e}"));
    let text = fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| failed(format!("is no JSON: {e}")))?;
    let unknown =
        |e: serde_json::Error| failed(format!("is no result of popcore-loadgen --json: {e}"));
    let runs = if value.get("runs").is_some() {
        serde_json::from_value::<Series>(value)
            .map_err(unknown)?
            .runs
    } else {
        vec![serde_json::from_value(value).map_err(unknown)?]
    };
    if runs.is_empty() {
        return Err(failed("holds no run".to_owned()));
    }
    Ok(runs)
}

/// The subcommand: prints ratios.
pub fn compare(a: &Path, b: &Path) -> Result<u8, Failure> {
    let (runs_a, runs_b) = (read(a)?, read(b)?);
    let (refs_a, refs_b): (Vec<_>, Vec<_>) = (runs_a.iter().collect(), runs_b.iter().collect());
    let label = |path: &Path, runs: &[Report]| {
        let first = &runs[0];
        let count = runs.len();
        format!(
            "{}: {} against {}, {count} runs",
            path.display(),
            first.profile,
            first.target
        )
    };
    for (path, runs) in [(a, &runs_a), (b, &runs_b)] {
        if let Some(other) = runs.iter().find(|run| run.target != runs[0].target) {
            return Err(Failure::Arguments(format!(
                "{}: holds runs against {} and {}, and their ratios: compare files of one \
                 target each",
                path.display(),
                runs[0].target,
                other.target
            )));
        }
    }
    let ratios = ratios(&refs_a, &refs_b);
    let mut shown = table(&label(a, &runs_a), &label(b, &runs_b), &ratios);
    // Writing to a String cannot fail.
    for (name, runs) in [("A", &runs_a), ("B", &runs_b)] {
        if let Some(reason) = runs.iter().find_map(|run| run.invalid.as_ref()) {
            let _ = writeln!(shown, "{name} is INVALID: {reason}");
        }
    }
    if ratios.iter().any(|ratio| ratio.least.is_none()) {
        let _ = writeln!(
            shown,
            "-: one run has no spread of this; --repeat on both sides has"
        );
    }
    if runs_a[0].profile != runs_b[0].profile {
        let _ = writeln!(
            shown,
            "The two did different things: A {}, B {}",
            runs_a[0].profile, runs_b[0].profile
        );
    }
    tell::result(&shown)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::Moment;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn what_is_no_result_is_refused_with_its_name() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for text in ["", "{}", "[]", "{\"runs\": []}"] {
            fs::write(file.path(), text).expect("written");
            let error = read(file.path()).expect_err(text).to_string();
            assert!(
                error.contains(&file.path().display().to_string()),
                "{error}"
            );
        }
    }

    /// Runs of so many sessions in two seconds, and so many errors.
    fn runs(counts: &[(usize, u64)]) -> Vec<Report> {
        let run = |(sessions, errors): &(usize, u64)| {
            let mut report = crate::report::sample(0.0, &vec![1000; *sessions]);
            report.errors.total = *errors;
            report
        };
        counts.iter().map(run).collect()
    }

    fn of<'a>(all: &'a [Ratio], figure: &str) -> &'a Ratio {
        let found = all.iter().find(|ratio| ratio.figure == figure);
        found.unwrap_or_else(|| panic!("no {figure} in {all:?}"))
    }

    #[test]
    fn ratios_are_those_of_medians_and_spread_from_pair_to_pair() {
        let a = runs(&[(100, 0), (300, 0), (200, 0)]);
        let b = runs(&[(150, 1), (150, 2), (400, 3)]);
        let (refs_a, refs_b): (Vec<_>, Vec<_>) = (a.iter().collect(), b.iter().collect());
        let all = ratios(&refs_a, &refs_b);
        let expected = Ratio {
            figure: "sessions/s".to_owned(),
            a: 100.0,
            b: 75.0,
            ratio: Some(0.75),
            least: Some(0.5),
            most: Some(2.0),
        };
        assert_eq!(of(&all, "sessions/s"), &expected);
        assert_eq!(of(&all, "session p50 us").ratio, Some(1.0));
        assert!(all.iter().all(|ratio| ratio.figure != "retr p50 us"));
        // Nothing can be a multiple of no errors.
        let errors = of(&all, "errors");
        assert_eq!((errors.a, errors.b, errors.ratio), (0.0, 2.0, None));
        assert_eq!((errors.least, errors.most), (None, None));
        let shown = table("x", "y", &all);
        let row = shown
            .lines()
            .find(|row| row.starts_with("errors"))
            .expect("a row");
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            ["errors", "0.0", "2.0", "-", "-"]
        );
    }

    #[test]
    fn single_runs_have_the_spread_of_their_seconds() {
        let second = |at: f64, commands: u64| -> Moment {
            let mut moment = crate::report::sample(0.0, &[1]).timeline.remove(0);
            (moment.from_s, moment.to_s, moment.commands) = (at, at + 1.0, commands);
            moment
        };
        let (mut a, mut b) = (runs(&[(1, 0)]), runs(&[(1, 0)]));
        // The last second is cut short and says nothing.
        a[0].timeline = vec![second(0.0, 100), second(1.0, 200), second(2.0, 1)];
        b[0].timeline = vec![second(0.0, 150), second(1.0, 100), second(2.0, 900)];
        (a[0].rates.commands_per_s, b[0].rates.commands_per_s) = (150.0, 125.0);
        let all = ratios(&[&a[0]], &[&b[0]]);
        let commands = of(&all, "commands/s");
        assert_eq!((commands.least, commands.most), (Some(0.5), Some(1.5)));
        assert_eq!(of(&all, "session p50 us").least, None, "of no sessions");
    }

    #[test]
    fn runs_of_two_targets_are_not_one_side() {
        let mut both = runs(&[(5, 0), (5, 0)]);
        "other:1".clone_into(&mut both[1].target);
        let series =
            serde_json::json!({ "version": "0", "runs": both, "medians": [], "ratios": [] });
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), series.to_string()).expect("written");
        let refused = compare(file.path(), file.path()).expect_err("two targets");
        assert!(refused.to_string().contains("h:1 and other:1"), "{refused}");
    }

    #[test]
    fn what_repeat_writes_is_read_back() {
        let (a, b) = (runs(&[(5, 0), (6, 0)]), runs(&[(5, 1), (6, 1)]));
        let (refs_a, refs_b): (Vec<_>, Vec<_>) = (a.iter().collect(), b.iter().collect());
        let series = Series {
            version: "0".to_owned(),
            ratios: ratios(&refs_a, &refs_b),
            medians: vec![medians("x", &refs_a), medians("y", &refs_b)],
            runs: a.clone(),
        };
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), serde_json::to_vec(&series).expect("JSON")).expect("written");
        assert_eq!(read(file.path()).expect("a result").len(), 2);
    }
}
