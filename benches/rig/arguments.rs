//! What all benches of whole servers are told on their command line, and how they end.

use std::process::ExitCode;

use clap::{Args, Parser};

use super::Result;

/// How much is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Scale {
    /// Rounds of each measurement
    #[arg(long, global = true, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Seconds of a round
    #[arg(long, global = true, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// One short round of each, to see that it works
    #[arg(long, global = true)]
    pub(crate) test: bool,
}

impl Scale {
    /// A trial is one round of at most so many seconds.
    pub(crate) fn cut_trial(&mut self, seconds: f64) {
        if self.test {
            self.rounds = 1;
            self.seconds = self.seconds.min(seconds);
        }
    }

    /// A bound that a run must keep; trials are too noisy for it.
    pub(crate) fn held(&self, kept: bool, bound: &str) -> Result<()> {
        if kept || self.test {
            Ok(())
        } else {
            Err(format!("the bound was not kept: {bound}"))
        }
    }
}

/// The command line, without what `cargo bench` adds behind it, where clap would take it
/// for the name of a bench.
pub(crate) fn read<A: Parser>() -> A {
    A::parse_from(std::env::args().filter(|argument| argument != "--bench"))
}

/// Says what went wrong, if something did.
pub(crate) fn end(bench: &str, done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{bench}: {message}");
            ExitCode::FAILURE
        }
    }
}
