//! The load generator's binary: arguments -> plan -> run -> report.

use std::fs;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use popcore_loadgen::plan::{Args, Plan};
use popcore_loadgen::report::Report;
use popcore_loadgen::run::run;

/// The shell's code for a program ended by SIGINT: 128 and the signal's number.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    match play(&Args::parse()) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("popcore-loadgen: {message}");
            ExitCode::FAILURE
        }
    }
}

fn play(args: &Args) -> Result<ExitCode, String> {
    let plan = match Plan::new(args) {
        Ok(plan) => plan,
        Err(message) => {
            eprintln!("popcore-loadgen: {message}");
            return Ok(ExitCode::from(2));
        }
    };
    let outcome = run(&plan, &args.server_pid)?;
    let report = Report::new(args, &plan, &outcome);
    publish(args, &report)?;
    if let Some(reason) = &report.given_up {
        eprintln!("popcore-loadgen: {reason}");
    }
    Ok(match &report {
        report if report.interrupted => ExitCode::from(INTERRUPTED),
        report if report.is_clean() => ExitCode::SUCCESS,
        report => {
            if report.errors.total == 0 && report.given_up.is_none() {
                eprintln!("popcore-loadgen: no session came to its end");
            }
            ExitCode::FAILURE
        }
    })
}

/// The table goes to the standard output, or beside it when JSON goes there.
fn publish(args: &Args, report: &Report) -> Result<(), String> {
    let shown = |e: io::Error| format!("the result cannot be written: {e}");
    let Some(file) = &args.json else {
        return io::stdout()
            .write_all(report.table().as_bytes())
            .map_err(shown);
    };
    let mut json = serde_json::to_string_pretty(report).map_err(|e| shown(e.into()))?;
    json.push('\n');
    if file == "-" {
        io::stderr()
            .write_all(report.table().as_bytes())
            .map_err(shown)?;
        return io::stdout().write_all(json.as_bytes()).map_err(shown);
    }
    fs::write(file, json).map_err(|e| format!("--json {file}: {e}"))?;
    io::stdout()
        .write_all(report.table().as_bytes())
        .map_err(shown)
}
