//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::auth::Mechanism;
use crate::pace::Arrivals;
use crate::pool::Choice;
use crate::proxy::{Network, Version};
use crate::tls::Mode;

/// Loads a POP3 server, checks every reply, and says how fast it was.
///
/// Closed loop: --sessions of them are open at all times, each the successor of
/// the one before. Open loop, with --rate: sessions begin on a schedule, and
/// their time counts from when they were meant to begin. A user has one session
/// at a time.
#[derive(Debug, Parser)]
#[command(
    name = "popcore-loadgen",
    version,
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true,
    after_long_help = AFTER
)]
pub struct CommandLine {
    /// Something else than a run
    #[command(subcommand)]
    pub command: Option<Command>,
    /// A run
    #[command(flatten)]
    pub run: RunArgs,
}

const AFTER: &str = "\
From nothing to a report, where popcore's sources are:
  cargo build --release --workspace
  target/release/popcore demo > demo.log 2>&1 & until grep -qs self-signed demo.log; do sleep 0.2; done
  target/release/popcore-loadgen --target 127.0.0.1:1110 --users 'user{0..199}' --password demo \\
      --profile poll --find-max --slo 'p99<50ms,errors<0.1%' --duration 5 --html report.html

Examples:
  popcore-loadgen --target mail:110 --users 'user{0..199}' --password x --profile poll
  popcore-loadgen --target mail:110 --users 'user{0..199}' --password x --profile poll \\
      --rate 2000/s --arrivals poisson --duration 30 --html report.html
  popcore-loadgen --target mail:110 --users 'user{0..199}' --password x --profile poll \\
      --find-max --slo 'p99<50ms,errors<0.1%'
  popcore-loadgen --target a:110 --target b:110 --users-file u --profile fetch \\
      --repeat 5 --interleave --json both.json
  popcore-loadgen compare a.json b.json

A session of --profile fetch with --messages 5: USER PASS STAT LIST UIDL, RETR of 5 messages at
random, QUIT. The README has all profiles and the language of --scenario files.

Exit codes: 0 every session ended as it should; 1 something did not; 2 the arguments are wrong;
3 the generator fell behind its schedule, so that the figures are not the server's; 130
interrupted, after what was measured was printed. --find-max that finds no rate ends with 1.";

/// What else there is to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ratios of two results, with their spread
    Compare {
        /// JSON of a run, or of --repeat
        a: PathBuf,
        /// The same; ratios are B by A
        b: PathBuf,
    },
    /// One result from those of several generators that ran at a time
    Merge {
        /// JSON of runs
        #[arg(required = true, num_args = 2..)]
        files: Vec<PathBuf>,
        /// Write the result as JSON to FILE, or to the standard output for -
        #[arg(long, value_name = "FILE", default_value = "-")]
        json: String,
    },
}

/// A run, as asked for.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// The server, as HOST:PORT; twice for two that are compared
    #[arg(long, value_name = "HOST:PORT", required = true)]
    pub target: Vec<String>,
    /// Sessions at a time [default: 32]; with --rate and --find-max the most [default: as many as
    /// users]
    #[arg(long, value_name = "N")]
    pub sessions: Option<usize>,
    /// How long new sessions are begun, in seconds; for idle, how long they are held
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub duration: f64,
    /// What a session does
    #[arg(long, value_name = "NAME", value_parser = profile_name(), group = "what")]
    pub profile: Option<String>,
    /// Profiles with their weights, as poll=70,fetch=30
    #[arg(long, value_name = "LIST", group = "what")]
    pub mix: Option<String>,
    /// Sessions from a TOML file
    #[arg(long, value_name = "FILE", group = "what")]
    pub scenario: Option<PathBuf>,
    /// Send commands without waiting for replies that they do not need
    #[arg(long)]
    pub pipelining: bool,
    /// Open loop: sessions a second, as 5000/s, 100..5000/s or 1000/s:10s,2000/s:10s
    #[arg(long, value_name = "RATE")]
    pub rate: Option<String>,
    /// How sessions lie within --rate
    #[arg(long, value_enum, default_value_t = Arrivals::Constant)]
    pub arrivals: Arrivals,
    /// Share of sessions that misbehave, from 0 to below 1; beside --sessions, with users of
    /// their own
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub chaos: f64,
    /// How they misbehave [default: in all ways; reset where messages are fetched]
    #[arg(long, value_enum, value_name = "KIND,..", value_delimiter = ',')]
    pub chaos_kinds: Vec<Chaos>,
    /// Threads [default: one for each CPU of --cpu, else one for every two CPUs]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Pin the threads to these CPUs, such as 1 or 0,2-3
    #[arg(long, value_name = "LIST", value_parser = parse_cpus)]
    pub cpu: Option<CpuList>,
    /// Messages a session of the fetch profile fetches
    #[arg(long, value_name = "K", default_value_t = 5)]
    pub messages: u32,
    /// Seconds without a byte of an awaited reply until a session is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    pub timeout: f64,
    /// Chooses whatever is chosen at random
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Begin no more than N sessions
    #[arg(long, value_name = "N")]
    pub max_sessions: Option<u64>,
    /// Who logs in
    #[command(flatten)]
    pub users: UserArgs,
    /// How
    #[command(flatten)]
    pub link: LinkArgs,
    /// What is measured of the server
    #[command(flatten)]
    pub server: ServerArgs,
    /// What is written
    #[command(flatten)]
    pub output: OutputArgs,
    /// Runs over runs
    #[command(flatten)]
    pub series: SeriesArgs,
}

/// Who logs in.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Users")]
pub struct UserArgs {
    /// Users, such as user{0..199} for user0 to user199
    #[arg(long = "users", value_name = "TEMPLATE", group = "who")]
    pub template: Option<String>,
    /// Users, one user or user:password a line
    #[arg(long = "users-file", value_name = "FILE", group = "who")]
    pub file: Option<PathBuf>,
    /// Users who have a Maildir in FOLDER, as NAME or DOMAIN/NAME
    #[arg(long = "users-from", value_name = "FOLDER", group = "who")]
    pub tree: Option<PathBuf>,
    /// Password of users that have none of their own
    #[arg(long, value_name = "TEXT")]
    pub password: Option<String>,
    /// How users are chosen: in-turn, uniform, zipf or zipf:EXPONENT
    #[arg(long, value_name = "HOW", default_value = "in-turn", value_parser = Choice::parse)]
    pub choose: Choice,
    /// Their Maildirs, as /var/mail/{domain}/{local} or with {user}: every message that is
    /// fetched is compared with what is stored, and what is left after the run
    #[arg(long, value_name = "TEMPLATE")]
    pub maildir: Option<String>,
    /// Deliver mail into the Maildirs during the run, as 100/s
    #[arg(long, value_name = "RATE", requires = "maildir")]
    pub deliver: Option<String>,
}

/// How a connection is made and a login done.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection and login")]
pub struct LinkArgs {
    /// Where TLS begins
    #[arg(long, value_enum, default_value_t = Mode::None)]
    pub tls: Mode,
    /// Name of the server in TLS [default: the host of --target]
    #[arg(long, value_name = "NAME")]
    pub sni: Option<String>,
    /// Certificates to believe, PEM [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Believe any certificate
    #[arg(long, conflicts_with = "ca")]
    pub insecure: bool,
    /// Share of sessions that resume an earlier TLS session, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub resume: f64,
    /// How to log in
    #[arg(long, value_enum, default_value_t = Mechanism::User)]
    pub auth: Mechanism,
    /// Begin connections with a header of the PROXY protocol
    #[arg(long, value_enum, value_name = "VERSION")]
    pub proxy: Option<Version>,
    /// Source addresses in that header
    #[arg(long, value_name = "NETWORK,..", value_delimiter = ',', value_parser = Network::parse,
          default_value = "192.0.2.0/24", requires = "proxy")]
    pub proxy_sources: Vec<Network>,
    /// How a connection ends when the server has closed it after QUIT
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Close::Reset)]
    pub close: Close,
}

/// What is measured of the server.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "The server's own figures")]
pub struct ServerArgs {
    /// CPU time, memory and context switches of these processes; for two targets the first's
    /// and the second's
    #[arg(long, value_name = "PID,..", value_delimiter = ',')]
    pub server_pid: Vec<u32>,
    /// The same of a process and all its descendants, also those that end during the run
    #[arg(
        long,
        value_name = "PID,..",
        value_delimiter = ',',
        conflicts_with = "server_pid"
    )]
    pub server_tree: Vec<u32>,
    /// The same of a cgroup (version 2), as /sys/fs/cgroup/system.slice/dovecot.service
    #[arg(long, value_name = "FOLDER,..", value_delimiter = ',',
          conflicts_with_all = ["server_pid", "server_tree"])]
    pub server_cgroup: Vec<PathBuf>,
}

/// What is written.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Write the result as JSON to FILE, or to the standard output for -
    #[arg(long, value_name = "FILE")]
    pub json: Option<String>,
    /// Write the time line, a row a second
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write a log that `HdrHistogram`'s tools read
    #[arg(long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// No view of the run while it goes on
    #[arg(long)]
    pub quiet: bool,
}

/// Runs over runs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Series of runs")]
pub struct SeriesArgs {
    /// Find the highest rate that --slo holds at, by runs of --duration
    #[arg(long, requires = "slo", conflicts_with_all = ["rate", "repeat", "interleave"])]
    pub find_max: bool,
    /// What must hold, as 'p99<50ms,errors<0.1%'; also `retr.p99<1s`, `session.max<5s`
    #[arg(long, value_name = "BOUNDS")]
    pub slo: Option<String>,
    /// Run N times, and give medians
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: Option<u32>,
    /// With two targets: A B A B instead of A A B B
    #[arg(long, requires = "repeat")]
    pub interleave: bool,
}

/// How a session misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Chaos {
    /// Reads few octets at a time, and rarely
    SlowReader,
    /// Falls silent after the login; its end, ten seconds later, is a FIN without QUIT
    HalfOpen,
    /// Sends its commands octet by octet
    OneByteWriter,
    /// Resets the connection in the midst of a message
    Reset,
}

/// How a connection ends that the server has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Close {
    /// By a reset: no port waits on either side, and the socket is used again
    Reset,
    /// As a mail client does
    Fin,
}

fn profile_name() -> clap::builder::PossibleValuesParser {
    let names = crate::scenario::PROFILES.iter().map(|(name, steps)| {
        let help = match *steps {
            "" => "USER PASS QUIT".to_owned(),
            "hold" => "USER PASS, then held for --duration, then QUIT".to_owned(),
            steps => steps.to_owned(),
        };
        clap::builder::PossibleValue::new(*name).help(help)
    });
    names.collect::<Vec<_>>().into()
}

/// CPUs by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(pub Vec<usize>);

fn parse_cpus(text: &str) -> Result<CpuList, String> {
    let number = |n: &str| match n.parse::<usize>() {
        Ok(n) if n < rustix::thread::CpuSet::MAX_CPU => Ok(n),
        _ => Err(format!("{n} is not the number of a CPU")),
    };
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return Err(format!("{part} counts downwards"));
        }
        cpus.extend(first..=last);
    }
    Ok(CpuList(cpus))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    /// As a shell would split them; no argument here has a space.
    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(line.replace('\'', "").split_whitespace())
    }

    #[test]
    fn the_examples_of_the_manual_are_sound() {
        let readme = include_str!("../../README.md");
        let text = format!("{AFTER}\n{readme}").replace("\\\n", " ");
        let lines = text.lines().map(str::trim);
        let typed = |line: &&str| {
            let program = line.split(' ').next().unwrap_or_default();
            program.ends_with("popcore-loadgen") && line.contains(" --target ")
        };
        let mut examples = 0;
        for line in lines.filter(typed) {
            let line = line.replace("$!", "1");
            parse(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
            examples += 1;
        }
        assert!(examples >= 6, "{examples} examples");
        let first = parse(
            "x --target 127.0.0.1:1110 --users 'user{0..199}' --password demo --profile poll",
        );
        let first = Plan::new(&first.expect("sound").run, 0).expect("sound");
        assert_eq!(first.logins.len(), 200);
    }

    #[test]
    fn cpus_are_numbers_and_ranges() {
        assert_eq!(parse_cpus("1,3-5"), Ok(CpuList(vec![1, 3, 4, 5])));
        assert!(parse_cpus("3-1").is_err() && parse_cpus("99999").is_err());
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        CommandLine::command().debug_assert();
    }

    #[test]
    fn a_subcommand_needs_nothing_of_a_run() {
        let line = "popcore-loadgen compare a.json b.json";
        let parsed = CommandLine::try_parse_from(line.split(' ')).expect("sound");
        assert!(matches!(parsed.command, Some(Command::Compare { .. })));
        let line = "popcore-loadgen --target h:1 --profile poll --users u --password p";
        let parsed = CommandLine::try_parse_from(line.split(' ')).expect("sound");
        assert!(parsed.command.is_none() && parsed.run.target == ["h:1"]);
        assert!(CommandLine::try_parse_from(["popcore-loadgen"]).is_err());
    }
}
