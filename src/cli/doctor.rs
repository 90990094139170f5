//! `popcore doctor`: whether the machine is as `tuning/README.md` would have it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::config::{Config, Process};
use crate::doctor::{self, MOST, Machine, Question, Sizes};

/// How long is watched whether what was lost is still being lost: as short as one waits
/// for a command, and at the rates of a busy node thousands of connections.
const APART: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct DoctorArguments {
    /// The configuration file: maildrops, certificates, users and ports are looked at too
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The running server, whose limits then count instead of those of this shell
    #[arg(long, value_name = "NUMBER")]
    pid: Option<u32>,
    /// How many sessions at a time the machine is to bear
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000,
          value_parser = clap::value_parser!(u64).range(1..=MOST))]
    sessions: u64,
    /// Say it for programs
    #[arg(long)]
    json: bool,
    /// Print a script that would mend what was found, instead of the findings
    #[arg(long, conflicts_with = "json")]
    fix_script: bool,
    /// Print the file for /etc/sysctl.d of so many sessions, which takes nothing from what
    /// the machine has
    #[arg(long, value_name = "SESSIONS", value_parser = clap::value_parser!(u64).range(1..=MOST),
          conflicts_with_all = ["config", "pid", "sessions", "json", "fix_script"])]
    sizes: Option<u64>,
    /// The folder that the machine's proc and sys lie in, where that is not this one's
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    root: PathBuf,
}

pub(super) fn run(arguments: &DoctorArguments) -> ExitCode {
    let machine = Machine::at(&arguments.root);
    if let Some(sessions) = arguments.sizes {
        super::say(&Sizes::of(sessions).sysctl_file(Some(&machine)));
        return ExitCode::SUCCESS;
    }
    // Whoever runs this, what is judged is a server that is started by root.
    let process = Process {
        root: true,
        ..Process::current()
    };
    let read = |path: &PathBuf| Config::look(path, &process);
    let question = Question {
        sizes: Sizes::of(arguments.sessions),
        pid: arguments.pid,
        config: arguments.config.as_ref().map(read),
        apart: APART,
    };
    let report = doctor::examine(&machine, &question);
    super::say(&if arguments.json {
        report.json()
    } else if arguments.fix_script {
        report.script()
    } else {
        report.text()
    });
    if report.has_problems() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
