//! One run or many: repetitions, two targets in turn, the search for the highest
//! rate that an objective holds at; and the files that are written of them.

use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{Access, access};
use serde::Serialize;

use crate::args::{OutputArgs, RunArgs};
use crate::compare::{self, Medians, Ratio, Series, medians, ratios};
use crate::hdr::{self, Line};
use crate::interrupt::Interrupt;
use crate::live::View;
use crate::pace::Schedule;
use crate::page;
use crate::plan::{Load, Plan};
use crate::report::{Report, Search, Trial, latency_names};
use crate::run::run;
use crate::server_process::Watched;
use crate::slo::{self, Bound};
use crate::tell;
use crate::timeline;

/// The shell's code for a program ended by SIGINT: 128 and the signal's number.
const INTERRUPTED: u8 = 130;
/// The generator fell behind its schedule.
const INVALID: u8 = 3;

/// Why there is no result.
#[derive(Debug)]
pub enum Failure {
    /// The arguments are wrong.
    Arguments(String),
    /// Something else.
    Run(String),
}

impl Failure {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Arguments(_) => 2,
            Self::Run(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arguments(text) | Self::Run(text) => f.write_str(text),
        }
    }
}

/// Does what the arguments ask for, and says with which code to end.
pub fn play(args: &RunArgs, interrupt: &Interrupt) -> Result<u8, Failure> {
    let targets = args.target.len();
    let repeated = args.series.repeat;
    if targets > 2 || (targets == 2 && repeated.is_none()) {
        return Err(Failure::Arguments(
            "two --target are for --repeat, which compares them; more than two for nobody".into(),
        ));
    }
    if args.series.slo.is_some() && !args.series.find_max {
        return Err(Failure::Arguments("--slo is for --find-max".to_owned()));
    }
    writable(&args.output, repeated.is_some()).map_err(Failure::Arguments)?;
    if let Some(times) = repeated {
        return repeat(args, times, interrupt);
    }
    let plan = Plan::new(args, 0).map_err(Failure::Arguments)?;
    let report = if args.series.find_max {
        find_max(args, &plan, interrupt)?
    } else {
        one(args, 0, &plan, "", interrupt)?
    };
    publish(args, &report)?;
    Ok(code(&report))
}

/// Whether the files can be written: better told before a run than after it.
fn writable(output: &OutputArgs, numbered: bool) -> Result<(), String> {
    let json = output.json.as_deref().filter(|file| *file != "-");
    let json = json.map(|file| ("--json", PathBuf::from(file)));
    let others = [
        ("--csv", &output.csv),
        ("--hdr", &output.hdr),
        ("--html", &output.html),
    ];
    let others = others.into_iter().filter_map(|(argument, path)| {
        let path = path.as_ref()?;
        let first = if numbered {
            with_number(path, 1)
        } else {
            path.clone()
        };
        Some((argument, first))
    });
    let mut named: Vec<(&str, PathBuf)> = Vec::new();
    for (argument, path) in json.into_iter().chain(others) {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let place = if path.exists() { &path } else { folder };
        access(place, Access::WRITE_OK)
            .map_err(|e| format!("{argument} {}: {}", path.display(), io::Error::from(e)))?;
        if path.is_dir() {
            return Err(format!("{argument} {}: is a folder", path.display()));
        }
        // By its folder's own name; what is no file (a pipe, say) may take two.
        let own = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let own = own.join(path.file_name().unwrap_or_default());
        if let Some((other, _)) = named.iter().find(|(_, taken)| *taken == own)
            && (path.is_file() || !path.exists())
        {
            let path = path.display();
            return Err(format!("{argument} {path}: is the file of {other} too"));
        }
        named.push((argument, own));
    }
    Ok(())
}

fn code(report: &Report) -> u8 {
    if let Some(reason) = &report.given_up {
        tell::aside(format_args!("popcore-loadgen: {reason}"));
    }
    if report.interrupted {
        INTERRUPTED
    } else if !report.is_clean() {
        if report.errors.total == 0 && report.given_up.is_none() {
            tell::aside("popcore-loadgen: no session came to its end");
        }
        1
    } else if let Some(search) = &report.search
        && search.max_rate_per_s.is_none()
    {
        let slo = &search.slo;
        tell::aside(format_args!("popcore-loadgen: no rate holds {slo}"));
        1
    } else if report.load == "open" && report.invalid.is_some() {
        INVALID
    } else {
        0
    }
}

/// The server's processes: all of them, or one for each of two targets.
fn watched(args: &RunArgs, target: usize) -> Result<Option<Watched>, Failure> {
    let server = &args.server;
    let two = args.target.len() == 2;
    let wanted = if two { 2 } else { 1 };
    let given = server
        .server_tree
        .len()
        .max(server.server_cgroup.len())
        .max(if two { server.server_pid.len() } else { 0 });
    if given != 0 && given != wanted {
        return Err(Failure::Arguments(format!(
            "{wanted} targets need {wanted} --server-pid, --server-tree or --server-cgroup, and \
             there are {given}"
        )));
    }
    Ok(if let Some(root) = server.server_tree.get(target) {
        Some(Watched::Tree(*root))
    } else if let Some(folder) = server.server_cgroup.get(target) {
        Some(Watched::Cgroup(folder.clone()))
    } else if server.server_pid.is_empty() {
        None
    } else if two {
        Some(Watched::Processes(vec![server.server_pid[target]]))
    } else {
        Some(Watched::Processes(server.server_pid.clone()))
    })
}

fn one(
    args: &RunArgs,
    target: usize,
    plan: &Plan,
    label: &str,
    interrupt: &Interrupt,
) -> Result<Report, Failure> {
    let watched = watched(args, target)?;
    // JSON on the standard output is for a program, which needs no view.
    let quiet = args.output.quiet || args.output.json.as_deref() == Some("-");
    let view = View::new(quiet, label, plan.duration);
    let outcome = run(plan, watched.as_ref(), interrupt, view).map_err(Failure::Run)?;
    Ok(Report::new(args, target, plan, &outcome))
}

/// Which target's turn it is, run by run.
fn order(interleave: bool, targets: Range<usize>, times: u32) -> Vec<usize> {
    if interleave {
        (0..times).flat_map(|_| targets.clone()).collect()
    } else {
        targets
            .flat_map(|target| std::iter::repeat_n(target, times as usize))
            .collect()
    }
}

/// Runs each target so many times, in turn or one after the other.
fn repeat(args: &RunArgs, times: u32, interrupt: &Interrupt) -> Result<u8, Failure> {
    let plans: Vec<Plan> = (0..args.target.len())
        .map(|target| Plan::new(args, target).map_err(Failure::Arguments))
        .collect::<Result<_, _>>()?;
    let targets = 0..plans.len();
    let order = order(args.series.interleave, targets.clone(), times);
    let mut runs: Vec<(usize, Report)> = Vec::new();
    let mut broken = None;
    for (number, target) in order.iter().enumerate() {
        let label = format!("run {} of {}", number + 1, order.len());
        let report = match one(args, *target, &plans[*target], &label, interrupt) {
            Ok(report) => report,
            Err(failure) if runs.is_empty() => return Err(failure),
            // What was measured before is told all the same.
            Err(failure) => {
                tell::aside(format_args!("popcore-loadgen: {label}: {failure}"));
                broken = Some(failure.code());
                break;
            }
        };
        let (rate, name) = (report.rates.sessions_per_s, &report.target);
        tell::aside(format_args!(
            "{label}: {name}: {rate:.1} sessions/s, {} errors",
            report.errors.total
        ));
        runs.push((*target, report));
        if interrupt.wished() {
            break;
        }
    }
    // A run that was cut short is no match for whole ones.
    let whole = runs.iter().any(|(_, run)| !run.interrupted);
    let of = |target: usize| -> Vec<&Report> {
        let counts = |run: &Report| !(whole && run.interrupted);
        let own = runs.iter().filter(|(whose, _)| *whose == target);
        own.map(|(_, run)| run).filter(|run| counts(run)).collect()
    };
    let medians: Vec<_> = targets.map(|t| medians(&args.target[t], &of(t))).collect();
    let ratios = match (of(0).is_empty(), plans.len() > 1 && !of(1).is_empty()) {
        (false, true) => ratios(&of(0), &of(1)),
        _ => Vec::new(),
    };
    let shown = summary(args, &medians, &ratios);
    let codes = runs.iter().map(|(_, run)| code(run)).chain(broken);
    let worst = codes.max().unwrap_or(1);
    let series = Series {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        runs: runs.into_iter().map(|(_, run)| run).collect(),
        medians,
        ratios,
    };
    for (number, run) in series.runs.iter().enumerate() {
        let numbered = |path: &Option<PathBuf>| path.as_ref().map(|p| with_number(p, number + 1));
        let output = &args.output;
        publish_files(
            run,
            numbered(&output.csv),
            numbered(&output.hdr),
            numbered(&output.html),
        )?;
    }
    match &args.output.json {
        Some(file) => publish_json(file, &series, &shown)?,
        None => tell::result(&shown)?,
    }
    Ok(worst)
}

/// Medians and ratios for people.
fn summary(args: &RunArgs, medians: &[Medians], ratios: &[Ratio]) -> String {
    let mut shown = String::new();
    // Writing to a String cannot fail.
    for Medians {
        target,
        runs,
        figures,
    } in medians
    {
        let _ = writeln!(shown, "{target}: medians of {runs} runs");
        for (name, value) in figures {
            let _ = writeln!(shown, "  {name:<28}{value:>14.1}");
        }
    }
    if !ratios.is_empty() {
        shown += "\n";
        shown += &compare::table(&args.target[0], &args.target[1], ratios);
    }
    shown
}

/// `report.html` becomes `report-3.html`.
fn with_number(path: &Path, number: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = match path.extension() {
        Some(extension) => format!("{stem}-{number}.{}", extension.to_string_lossy()),
        None => format!("{stem}-{number}"),
    };
    path.with_file_name(name)
}

/// The search ends when what holds and what does not are so near.
const NEAR: f64 = 0.05;
/// Most runs of a search.
const MOST_TRIALS: usize = 24;
/// Where the search begins, by what a closed loop reaches.
const FIRST_SHARE: f64 = 0.5;
/// The next rate after one that held, while none has failed.
const GROWTH: f64 = 1.4;
/// Sessions at a time of the closed loop that the search begins with.
const PROBE: usize = 32;

/// The highest rate that the objective holds at, and the run at it.
fn find_max(args: &RunArgs, plan: &Plan, interrupt: &Interrupt) -> Result<Report, Failure> {
    let text = args.series.slo.clone().unwrap_or_default();
    let bounds = slo::parse(&text).map_err(Failure::Arguments)?;
    let mut probe = plan.clone();
    probe.load = Load::Closed;
    probe.sessions = plan.sessions.min(PROBE);
    probe.threads = plan.threads.min(probe.sessions);
    let probed = one(args, 0, &probe, "closed loop", interrupt)?;
    let capacity = probed.rates.sessions_per_s;
    tell::aside(format_args!("closed loop: {capacity:.1} sessions/s"));
    if interrupt.wished() || probed.given_up.is_some() || probed.sessions == 0 {
        return Ok(probed);
    }
    let mut search = Search {
        slo: text,
        closed_loop_per_s: capacity,
        ..Search::default()
    };
    let (mut low, mut high) = (0.0_f64, f64::INFINITY);
    let mut best: Option<Report> = None;
    let mut last = probed;
    let mut rate = (capacity * FIRST_SHARE).max(1.0);
    while search.trials.len() < MOST_TRIALS && !interrupt.wished() {
        let mut report = at_rate(args, plan, rate, interrupt)?;
        let mut failed = gave_way(&bounds, &report);
        if failed.is_some() && !report.interrupted {
            // Once more: on a machine that is not alone one run proves little.
            report = at_rate(args, plan, rate, interrupt)?;
            failed = gave_way(&bounds, &report);
        }
        if report.interrupted {
            // What was cut short proves nothing, neither way.
            last = report;
            break;
        }
        let verdict = failed.as_deref().unwrap_or("holds");
        tell::aside(format_args!("{rate:.1}/s: {verdict}"));
        search.trials.push(Trial {
            rate_per_s: rate,
            holds: failed.is_none(),
            gave_way: failed.clone(),
        });
        if failed.is_none() {
            low = rate;
            best = Some(report);
        } else {
            high = rate;
            search.gave_way = failed;
            last = report;
        }
        rate = match (low > 0.0, high.is_finite()) {
            (true, false) => low * GROWTH,
            (false, _) => high / 2.0,
            (true, true) => f64::midpoint(low, high),
        };
        if (high.is_finite() && high - low <= NEAR * high) || rate < 0.5 {
            break;
        }
    }
    search.max_rate_per_s = (low > 0.0).then_some(low);
    let mut report = best.unwrap_or(last);
    report.interrupted |= interrupt.wished();
    report.search = Some(search);
    Ok(report)
}

fn at_rate(
    args: &RunArgs,
    plan: &Plan,
    rate: f64,
    interrupt: &Interrupt,
) -> Result<Report, Failure> {
    // What the run before has left behind is not this one's.
    std::thread::sleep(Duration::from_millis(200));
    let mut plan = plan.clone();
    plan.load = Load::Open(Schedule::even(rate, plan.duration), args.arrivals);
    let mut report = one(args, 0, &plan, &format!("{rate:.0}/s"), interrupt)?;
    report.rate = Some(format!("{rate:.1}/s"));
    Ok(report)
}

/// What broke first. A generator that fell behind proves nothing of the server.
fn gave_way(bounds: &[Bound], report: &Report) -> Option<String> {
    if let Some(reason) = &report.given_up {
        return Some(reason.clone());
    }
    let broken = bounds.iter().map(|bound| bound.judge(report));
    let broken = broken
        .filter(|verdict| !verdict.holds)
        .map(|v| v.to_string());
    let broken = broken.collect::<Vec<_>>().join(", ");
    match &report.invalid {
        Some(reason) => Some(format!("the generator, not the server: {reason}")),
        None if broken.is_empty() => None,
        None => Some(broken),
    }
}

/// Writes what is asked for; the table goes to the standard output, or beside
/// it when JSON goes there.
fn publish(args: &RunArgs, report: &Report) -> Result<(), Failure> {
    let output = &args.output;
    // Files first: nobody may be reading the standard output any more.
    publish_files(
        report,
        output.csv.clone(),
        output.hdr.clone(),
        output.html.clone(),
    )?;
    match &output.json {
        Some(file) => publish_json(file, report, &report.table()),
        None => tell::result(&report.table()),
    }
}

/// Writes JSON to a file, or to the standard output for `-`; the table goes to
/// the other.
pub fn publish_json(file: &str, value: &impl Serialize, table: &str) -> Result<(), Failure> {
    let mut json = serde_json::to_string_pretty(value)
        .map_err(|e| Failure::Run(format!("the result cannot be written: {e}")))?;
    json.push('\n');
    if file == "-" {
        tell::aside(table.trim_end_matches('\n'));
        return tell::result(&json);
    }
    write(Path::new(file), "--json", json.as_bytes())?;
    tell::result(table)
}

fn write(path: &Path, argument: &str, octets: &[u8]) -> Result<(), Failure> {
    fs::write(path, octets).map_err(|e| Failure::Run(format!("{argument} {}: {e}", path.display())))
}

fn publish_files(
    report: &Report,
    csv: Option<PathBuf>,
    hdr: Option<PathBuf>,
    html: Option<PathBuf>,
) -> Result<(), Failure> {
    if let Some(path) = csv {
        write(&path, "--csv", timeline::csv(&report.timeline).as_bytes())?;
    }
    if let Some(path) = hdr {
        write(&path, "--hdr", &log(report)?)?;
    }
    if let Some(path) = html {
        write(&path, "--html", page::html(report).as_bytes())?;
    }
    Ok(())
}

/// Sessions second by second, and the other latencies over the whole run.
fn log(report: &Report) -> Result<Vec<u8>, Failure> {
    let mut lines = Vec::new();
    let unreadable = |e: String| Failure::Run(format!("--hdr: {e}"));
    let seconds = |s: f64| Duration::try_from_secs_f64(s).unwrap_or_default();
    for moment in &report.timeline {
        lines.push(Line {
            tag: "session",
            from: seconds(moment.from_s),
            length: seconds(moment.to_s - moment.from_s),
            histogram: hdr::decode(&moment.session_histogram).map_err(unreadable)?,
        });
    }
    for name in latency_names().filter(|name| *name != "session") {
        if let Some(text) = report.histograms.get(name) {
            lines.push(Line {
                tag: name,
                from: Duration::ZERO,
                length: seconds(report.elapsed_s),
                histogram: hdr::decode(text).map_err(unreadable)?,
            });
        }
    }
    let mut octets = Vec::new();
    let started = UNIX_EPOCH + seconds(report.started_unix_s);
    hdr::write_log(&mut octets, started, &lines)
        .map_err(|e| Failure::Run(format!("--hdr: {e}")))?;
    Ok(octets)
}
