//! The command line: one file per subcommand.
//!
//! A subcommand says what went wrong on stderr in one line with its remedy, and
//! ends with exit code 1. Exit code 2 is clap's, for a command line it cannot
//! read.

mod account;
mod check;
mod demo;
mod doctor;
mod index;
mod migrate;
mod parallel;
mod passwd;
mod serve;
mod undelete;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// A POP3 server: one pinned executor per CPU core, on `io_uring`.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve mail as a configuration file says
    Serve(ConfigArguments),
    /// Say what is wrong with a configuration file: key, line and remedy
    Check(ConfigArguments),
    /// Serve made-up mail on loopback, without any configuration
    Demo(demo::DemoArguments),
    /// Hold this machine against the tuning guide; changes nothing
    Doctor(doctor::DoctorArguments),
    /// Look at the indexes of maildrops, or make them anew
    Index(index::IndexArguments),
    /// Plan a move from another server, or compare it with popcore
    Migrate(migrate::MigrateArguments),
    /// Make what is stored of a password, which is asked for or read from stdin
    Passwd(passwd::PasswdArguments),
    /// Bring back what a user deleted, where maildrop.undelete keeps it
    Undelete(undelete::UndeleteArguments),
}

/// Which configuration file.
#[derive(Debug, Args)]
struct ConfigArguments {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Reads the command line and does what it says.
pub fn run() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(&arguments.config),
        Command::Check(arguments) => check::run(&arguments.config),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Index(arguments) => index::run(&arguments),
        Command::Migrate(arguments) => migrate::run(&arguments),
        Command::Passwd(arguments) => passwd::run(&arguments),
        Command::Undelete(arguments) => undelete::run(&arguments),
    }
}

/// Writes to stdout. A reader that went away is no fault of the server, and
/// `println!` would end the process for it.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_documented_forms_are_read() {
        for line in [
            "popcore serve --config popcore.toml",
            "popcore check --config popcore.toml",
            "popcore demo",
            "popcore doctor",
            "popcore doctor --config popcore.toml --pid 7 --sessions 100000 --json",
            "popcore doctor --fix-script --root host",
            "popcore doctor --sizes 1000000",
            "popcore index show m",
            "popcore index verify --json m n",
            "popcore index rebuild --index i m",
            "popcore index accept m",
            "popcore migrate plan --config popcore.toml",
            "popcore migrate plan --config popcore.toml --json ann bob",
            "popcore migrate verify --against old:110 --users u",
            "popcore migrate verify --against old:995 --tls implicit --authority a --users u",
            "popcore migrate verify --against old:110 --users u --server new:110 --content --json",
            "popcore passwd",
            "popcore passwd --scheme scram-sha256 --user ann@example.net",
            "popcore undelete --config popcore.toml --since 3d ann",
            "popcore undelete --config popcore.toml --since 2h --list --json ann",
            "popcore demo --load --folder x --pop3-port 0 --pop3s-port 0 --admin-port 0",
        ] {
            let read = Arguments::try_parse_from(line.split(' '));
            assert!(read.is_ok(), "{line}: {read:?}");
        }
        assert!(Arguments::try_parse_from(["popcore", "serve"]).is_err());
    }
}
