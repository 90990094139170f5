//! The load generator's binary: arguments -> plan -> runs -> reports.

use std::process::ExitCode;

use clap::Parser as _;
use popcore_loadgen::args::{Command, CommandLine};
use popcore_loadgen::interrupt::Interrupt;
use popcore_loadgen::{compare, merge, series, tell};

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let done = match line.command {
        Some(Command::Compare { a, b }) => compare::compare(&a, &b),
        Some(Command::Merge { files, json }) => merge::merge(&files, &json),
        None => interruptible().and_then(|wish| series::play(&line.run, &wish)),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            tell::aside(format_args!("popcore-loadgen: {failure}"));
            ExitCode::from(failure.code())
        }
    }
}

/// SIGINT and SIGTERM end a run early.
fn interruptible() -> Result<Interrupt, series::Failure> {
    Interrupt::install()
        .map_err(|e| series::Failure::Run(format!("signals cannot be handled: {e}")))
}
