//! The load generator's binary: arguments -> plan -> runs -> reports.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser as _;
use popcore_loadgen::args::{Command, CommandLine};
use popcore_loadgen::{compare, merge, series};
use signal_hook::consts::{SIGINT, SIGTERM};

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
            eprintln!("popcore-loadgen: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

/// SIGINT and SIGTERM end a run early.
fn interruptible() -> Result<Arc<AtomicBool>, series::Failure> {
    let wish = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&wish))
            .map_err(|e| series::Failure::Run(format!("signal {signal} cannot be handled: {e}")))?;
    }
    Ok(wish)
}
