//! A result as one page of HTML: readable without a network, light and dark as
//! the reader's system is, without scripts. Every plot carries the numbers it
//! was drawn from, and the whole result is in the page as JSON.

use std::fmt::Write as _;

use crate::hdr;
use crate::page::plot::{Axis, Plot, Scale, Series};
use crate::report::{Report, float, latency_names};

mod plot;

const STYLE: &str = include_str!("page/style.css");

/// The page.
pub fn html(report: &Report) -> String {
    let mut page = String::new();
    let title = format!("{} against {}", report.profile, report.target);
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{0} - popcore-loadgen</title><style>{STYLE}</style></head><body><main>\
         <h1>{0}</h1>",
        escape(&title)
    );
    page += &warnings(report);
    page += &tiles(report);
    for plot in [
        percentiles(report),
        throughput(report),
        over_time(report),
        errors_over_time(report),
    ] {
        page += &plot.svg();
    }
    page += &phases(report);
    page += &server(report);
    page += &errors(report);
    page += &search(report);
    page += &environment(report);
    let json = serde_json::to_string(report).unwrap_or_default();
    // "</script>" in a string would end the element, and "<!--<script>" keep it from
    // ending; outside of strings JSON has no such sign.
    let json = json.replace('<', "\\u003c");
    let _ = writeln!(
        page,
        "<script type=\"application/json\" id=\"report\">{json}</script></main></body></html>"
    );
    page
}

/// Text that can stand in an element or an attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn warnings(report: &Report) -> String {
    let mut text = String::new();
    let interrupted = report
        .interrupted
        .then_some("Interrupted: the figures are those until then.");
    for (word, reason) in [
        ("Invalid", report.invalid.as_deref()),
        ("Doubtful", report.doubtful.as_deref()),
        ("Given up", report.given_up.as_deref()),
        ("Note", interrupted),
    ] {
        if let Some(reason) = reason {
            let _ = write!(
                text,
                "<p class=\"warning\"><b>{word}.</b> {}</p>",
                escape(reason)
            );
        }
    }
    text
}

/// A length of time in the unit that suits it.
fn time(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{:.2} s", us / 1e6),
        us if us >= 1e3 => format!("{:.2} ms", us / 1e3),
        us => format!("{us:.0} \u{b5}s"),
    }
}

fn tiles(report: &Report) -> String {
    let session = report.latency_us.get("session");
    let latency = |pick: fn(&crate::report::Latency) -> f64| {
        session.map_or("-".to_owned(), |latency| time(pick(latency)))
    };
    let rate = format!("{:.0}", report.rates.sessions_per_s);
    let all = report.sessions + report.failed_sessions;
    let share = float(report.failed_sessions) / float(all.max(1)) * 100.0;
    let server = report
        .server
        .as_ref()
        .and_then(|server| server.cpu_us_per_session);
    let mut tiles = vec![
        ("sessions a second", rate),
        ("median session", latency(|l| l.p50)),
        ("99th percentile", latency(|l| l.p99)),
        ("longest", latency(|l| l.max)),
        ("failed sessions", format!("{share:.2} %")),
    ];
    if let Some(us) = server {
        tiles.push(("server CPU a session", time(us)));
    }
    let mut text = "<div class=\"tiles\">".to_owned();
    for (name, value) in tiles {
        let _ = write!(
            text,
            "<div class=\"tile\"><span class=\"value\">{value}</span><span>{name}</span></div>"
        );
    }
    text + "</div>"
}

/// Percentiles up to which a distribution is drawn: the HDR axis.
const PERCENTILES: [f64; 17] = [
    0.0, 10.0, 25.0, 50.0, 60.0, 75.0, 80.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.9, 99.95, 99.99,
    99.999, 99.9999,
];

/// Where a percentile lies: each nine takes as much room as the one before.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).log10()
}

fn percentiles(report: &Report) -> Plot {
    let mut series = Vec::new();
    let mut last = 1.0_f64;
    let names = ["session", "pass", "uidl", "retr", "connect"];
    for name in names {
        let histogram = report
            .histograms
            .get(name)
            .and_then(|t| hdr::decode(t).ok());
        let Some(histogram) = histogram else {
            continue;
        };
        // A percentile beyond the count would be the longest again.
        let count = float(histogram.len());
        let points: Vec<(f64, f64)> = PERCENTILES
            .iter()
            .filter(|p| (1.0 - *p / 100.0) * count >= 0.999)
            .map(|p| {
                let value = float(histogram.value_at_percentile(*p)) / 1e6;
                (nines(*p), value.max(1e-4))
            })
            .collect();
        last = points.last().map_or(last, |(x, _)| last.max(*x));
        series.push(Series::new(name, points));
    }
    let ticks = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999];
    let ticks = ticks.into_iter().map(|p| (nines(p), format!("{p}")));
    Plot {
        id: "percentiles",
        title: "Latency by percentile",
        x: Axis {
            label: "percentile",
            scale: Scale::Linear,
            from: 0.0,
            to: last,
            ticks: Some(ticks.filter(|(x, _)| *x <= last + 1e-9).collect()),
        },
        y: Axis::logarithmic("ms", &series),
        series,
    }
}

fn seconds(report: &Report) -> Axis {
    let end = report.timeline.last().map_or(1.0, |moment| moment.to_s);
    Axis {
        label: "seconds from the beginning",
        scale: Scale::Linear,
        from: 0.0,
        to: end.max(0.001),
        ticks: None,
    }
}

/// The shortest stretch that is drawn: a run ends in one that is cut short, whose
/// figures are of nothing.
const SHORTEST: f64 = 0.5;

/// A point for each second, in its middle.
fn by_second(report: &Report, value: impl Fn(&crate::timeline::Moment) -> f64) -> Vec<(f64, f64)> {
    let moments = report.timeline.iter();
    moments
        .filter(|m| m.to_s - m.from_s >= SHORTEST)
        .map(|m| (f64::midpoint(m.from_s, m.to_s), value(m)))
        .collect()
}

fn throughput(report: &Report) -> Plot {
    let length = |m: &crate::timeline::Moment| (m.to_s - m.from_s).max(1e-9);
    let mut series = vec![Series::new(
        "sessions",
        by_second(report, |m| float(m.sessions) / length(m)),
    )];
    if report.messages > 0 {
        let points = by_second(report, |m| float(m.messages) / length(m));
        series.push(Series::new("messages", points));
    }
    Plot {
        id: "throughput",
        title: "Throughput",
        x: seconds(report),
        y: Axis::linear("a second", &series),
        series,
    }
}

fn over_time(report: &Report) -> Plot {
    let milliseconds = |pick: fn(&crate::timeline::Moment) -> f64| {
        let points = by_second(report, |m| pick(m) / 1e3);
        points.into_iter().filter(|(_, y)| *y > 0.0).collect()
    };
    let series = vec![
        Series::new("p50", milliseconds(|m| m.p50_us)),
        Series::new("p99", milliseconds(|m| m.p99_us)),
        Series::new("max", milliseconds(|m| m.max_us)),
    ];
    Plot {
        id: "latency",
        title: "Session latency over time",
        x: seconds(report),
        y: Axis::logarithmic("ms", &series),
        series,
    }
}

fn errors_over_time(report: &Report) -> Plot {
    let mut series = vec![Series::new(
        "errors",
        by_second(report, |m| float(m.errors)),
    )];
    if report.load == "open" {
        let waiting = by_second(report, |m| float(m.waiting));
        series.push(Series::new("waiting for a user", waiting));
    }
    Plot {
        id: "errors",
        title: "Errors over time",
        x: seconds(report),
        y: Axis::linear("", &series),
        series,
    }
}

/// A row for each phase, with a bar from p50 to p99 on a scale of its own.
fn phases(report: &Report) -> String {
    let rows: Vec<_> = latency_names()
        .filter_map(|name| Some((name, report.latency_us.get(name)?)))
        .collect();
    let longest = rows.iter().map(|(_, l)| l.p99).fold(1.0, f64::max);
    let least = rows
        .iter()
        .map(|(_, l)| l.p50.max(0.1))
        .fold(longest, f64::min);
    // Of the logarithmic room between the shortest and the longest.
    let room = (longest / least).ln().max(1e-9);
    let place = |us: f64| (us.max(least) / least).ln() / room * 96.0;
    let mut text = "<section><h2>By command</h2><table id=\"phases\"><thead><tr><th></th>\
                    <th>count</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th>\
                    <th class=\"wide\">p50 to p99</th></tr></thead><tbody>"
        .to_owned();
    for (name, l) in rows {
        let (from, to) = (place(l.p50), place(l.p99));
        let _ = write!(
            text,
            "<tr data-name=\"{name}\" data-count=\"{}\" data-p50=\"{}\" data-p99=\"{}\"><th>{name}</th>\
             <td>{0}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td class=\"wide\"><span class=\"bar\" style=\"margin-left:{from:.2}%;width:{:.2}%\"></span></td></tr>",
            l.count,
            l.p50,
            l.p99,
            time(l.p50),
            time(l.p90),
            time(l.p99),
            time(l.p999),
            time(l.max),
            (to - from).max(1.0)
        );
    }
    text + "</tbody></table></section>"
}

fn rows(title: &str, rows: &[(&str, String)]) -> String {
    let mut text = format!("<section><h2>{title}</h2><table class=\"facts\"><tbody>");
    for (name, value) in rows {
        let _ = write!(
            text,
            "<tr><th>{}</th><td>{}</td></tr>",
            escape(name),
            escape(value)
        );
    }
    text + "</tbody></table></section>"
}

fn server(report: &Report) -> String {
    let mib = |bytes: u64| format!("{:.1} MiB", float(bytes) / 1_048_576.0);
    let own = &report.generator;
    let each = |us: Option<f64>| us.map_or("-".to_owned(), time);
    let mut facts = Vec::new();
    if let Some(s) = &report.server {
        facts.extend([
            (
                "server CPU",
                format!("{:.2} s, {:.2} CPUs", s.cpu_s, s.cpus_used),
            ),
            ("server CPU a session", each(s.cpu_us_per_session)),
            ("server memory, most", mib(s.anonymous_most_bytes)),
            ("server memory before", mib(s.anonymous_before_bytes)),
            ("server threads", s.threads.to_string()),
            ("server processes, most", s.most_processes.to_string()),
            ("context switches", s.switches()),
        ]);
        if let Some(bytes) = s.anonymous_per_concurrent_session_bytes {
            let open = report.most_open_sessions;
            facts.push((
                "server memory a session",
                format!("{bytes:.0} bytes, by {open} at a time"),
            ));
        }
    }
    facts.extend([
        ("generator CPU", format!("{:.2} s", own.cpu_s)),
        ("generator CPU a session", each(own.cpu_us_per_session)),
        (
            "busiest generator thread",
            format!("{:.0} %", own.busiest_thread * 100.0),
        ),
    ]);
    rows("What it cost", &facts)
}

fn errors(report: &Report) -> String {
    if report.errors.total == 0 {
        return "<section><h2>Errors</h2><p>None.</p></section>".to_owned();
    }
    let mut text = "<section><h2>Errors</h2><table><thead><tr><th>kind</th><th>count</th>\
                    <th class=\"wide\">examples</th></tr></thead><tbody>"
        .to_owned();
    for (name, kind) in &report.errors.kinds {
        let examples: Vec<String> = kind.examples.iter().map(|e| escape(e)).collect();
        let _ = write!(
            text,
            "<tr><th>{}</th><td>{}</td><td class=\"wide\">{}</td></tr>",
            escape(name),
            kind.count,
            examples.join("<br>")
        );
    }
    text + "</tbody></table></section>"
}

fn search(report: &Report) -> String {
    let Some(search) = &report.search else {
        return String::new();
    };
    let highest = search
        .max_rate_per_s
        .map_or("none".to_owned(), |rate| format!("{rate:.1}/s"));
    let gave_way = search.gave_way.clone().unwrap_or_else(|| "-".to_owned());
    let mut facts = vec![
        ("what had to hold", search.slo.clone()),
        ("highest rate", highest),
        ("first to give way", gave_way),
    ];
    let trials: Vec<(String, String)> = search
        .trials
        .iter()
        .map(|trial| {
            let verdict = trial.gave_way.clone().unwrap_or_else(|| "holds".to_owned());
            (format!("{:.1}/s", trial.rate_per_s), verdict)
        })
        .collect();
    facts.extend(
        trials
            .iter()
            .map(|(rate, verdict)| (rate.as_str(), verdict.clone())),
    );
    rows("Search", &facts)
}

fn environment(report: &Report) -> String {
    let here = &report.environment;
    let gib = float(here.memory_bytes) / 1_073_741_824.0;
    rows(
        "How it was measured",
        &[
            ("command line", here.command_line.clone()),
            ("generator", here.generator.clone()),
            (
                "server's greeting",
                report.greeting.clone().unwrap_or_else(|| "none".to_owned()),
            ),
            (
                "load",
                format!(
                    "{}, {}",
                    report.load,
                    report.rate.as_deref().unwrap_or("as fast as sessions end")
                ),
            ),
            ("sessions at a time", report.concurrent_sessions.to_string()),
            ("threads", report.threads.to_string()),
            ("users", report.users.to_string()),
            ("length", format!("{:.2} s", report.elapsed_s)),
            ("sessions", report.sessions.to_string()),
            (
                "processor",
                format!("{}, {} of them usable", here.cpu, here.cpus),
            ),
            ("memory", format!("{gib:.1} GiB")),
            ("kernel", here.kernel.clone()),
            ("system", here.system.clone()),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_cannot_end_the_result_or_keep_it_from_ending() {
        let mut report = crate::report::sample(0.0, &[1]);
        report.given_up = Some("<!--<script></script>".to_owned());
        let page = html(&report);
        let (_, json) = page.split_once("id=\"report\">").expect("the result");
        let (json, rest) = json.split_once("</script>").expect("its end");
        assert_eq!(rest, "</main></body></html>\n");
        assert!(!json.contains('<'), "{json}");
        let held: Report = serde_json::from_str(json).expect("JSON");
        assert_eq!(held.given_up, report.given_up);
    }

    #[test]
    fn the_page_needs_nothing_but_itself() {
        let page = html(&crate::report::sample(0.0, &[1, 2, 3]));
        // Behind it is the result, which nobody follows.
        let (shown, _) = page.split_once("<script").expect("the result");
        for reference in ["src=", "href=", "url(", "@import", "//", "<link"] {
            assert!(!shown.contains(reference), "{reference}");
        }
    }
}
