//! `popcore migrate`: a move from another server without a message fetched twice.
//!
//! `plan` reads what that server left on the disk and writes nothing. `verify` asks that
//! server while it still runs, and popcore, by a login like any other: what popcore keeps
//! at a first login it keeps then.

mod client;
mod plan;
mod verify;

use std::process::ExitCode;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(super) struct MigrateArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say what popcore would announce, and what of the earlier server's it cannot
    Plan(plan::PlanArguments),
    /// Log in to the earlier server and to popcore, and compare what they say
    Verify(verify::VerifyArguments),
}

pub(super) fn run(arguments: &MigrateArguments) -> ExitCode {
    match &arguments.what {
        What::Plan(arguments) => plan::run(arguments),
        What::Verify(arguments) => verify::run(arguments),
    }
}
