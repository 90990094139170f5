//! What a run is to do, checked: from arguments to a [`Plan`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::dialogue::Profile;
use crate::users::{self, Login};

/// Loads a POP3 server, checks every reply, and says how fast it was.
///
/// Closed loop: --sessions of them are open at all times, each the successor of
/// the one before; a user has one session at a time. Exit code 0: every session
/// ended as it should; 1: something did not; 2: the arguments are wrong; 130:
/// interrupted, with what was measured until then.
#[derive(Debug, Parser)]
#[command(name = "popcore-loadgen", version)]
pub struct Args {
    /// The server, as HOST:PORT
    #[arg(long, value_name = "HOST:PORT")]
    pub target: String,
    /// Sessions at a time
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub sessions: usize,
    /// How long new sessions are begun, in seconds; for idle, how long they are held
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub duration: f64,
    /// What a session does
    #[arg(long, value_enum)]
    pub profile: ProfileName,
    /// Threads [default: one for each CPU of --cpu, else one for every two CPUs]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Users, such as user{0..199} for user0 to user199
    #[arg(
        long,
        value_name = "TEMPLATE",
        required_unless_present = "users_file",
        conflicts_with = "users_file"
    )]
    pub users: Option<String>,
    /// Users, one user or user:password a line
    #[arg(long, value_name = "FILE")]
    pub users_file: Option<PathBuf>,
    /// Password of users that have none of their own
    #[arg(long, value_name = "TEXT")]
    pub password: Option<String>,
    /// Write the result as JSON to FILE, or to the standard output for -
    #[arg(long, value_name = "FILE")]
    pub json: Option<String>,
    /// Measure the CPU time and memory of these processes of the server
    #[arg(long, value_name = "PID,..", value_delimiter = ',')]
    pub server_pid: Vec<u32>,
    /// Begin no more than N sessions
    #[arg(long, value_name = "N")]
    pub max_sessions: Option<u64>,
    /// Pin the threads to these CPUs, such as 1 or 0,2-3
    #[arg(long, value_name = "LIST", value_parser = parse_cpus)]
    pub cpu: Option<CpuList>,
    /// Messages a session of the fetch profile fetches
    #[arg(long, value_name = "K", default_value_t = 5)]
    pub messages: u32,
    /// Seconds without a byte of an awaited reply until a session is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    pub timeout: f64,
    /// Chooses the messages that fetch fetches
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// The profiles by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProfileName {
    /// USER PASS QUIT
    Login,
    /// USER PASS STAT UIDL QUIT
    Poll,
    /// USER PASS STAT LIST UIDL, RETR of --messages at random, QUIT
    Fetch,
    /// USER PASS STAT LIST, RETR and DELE of every message, QUIT
    Drain,
    /// USER PASS of all sessions, which are then held idle for --duration
    Idle,
}

impl ProfileName {
    /// The name in reports and in JSON.
    pub fn name(self) -> String {
        let value = self.to_possible_value().expect("no profile is hidden");
        value.get_name().to_owned()
    }
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

/// A run, checked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub target: SocketAddr,
    /// What a session does.
    pub profile: Profile,
    /// Sessions at a time.
    pub sessions: usize,
    /// How long sessions are begun, or held.
    pub duration: Duration,
    /// Threads, at most `sessions`.
    pub threads: usize,
    /// At least as many as `sessions`.
    pub logins: Vec<Login>,
    /// Most sessions to begin.
    pub max_sessions: u64,
    /// CPUs to pin threads to; empty: none.
    pub cpus: Vec<usize>,
    /// Without a byte for so long, a session is given up.
    pub timeout: Duration,
    /// Of the choice of messages.
    pub seed: u64,
    /// Source addresses to spread connections over; empty: the kernel's choice.
    pub sources: Vec<Ipv4Addr>,
}

impl Plan {
    /// Errors are for the operator: they name the argument and the remedy.
    pub fn new(args: &Args) -> Result<Self, String> {
        let target = resolve(&args.target)?;
        let logins = match (&args.users, &args.users_file) {
            (_, Some(path)) => users::from_file(path, args.password.as_deref())?,
            (Some(template), None) => {
                let password = args.password.as_deref();
                users::from_template(template, password.ok_or("--users needs --password")?)?
            }
            (None, None) => return Err("--users or --users-file says who logs in".to_owned()),
        };
        let sessions = args.sessions;
        if sessions == 0 {
            return Err("--sessions is at least 1".to_owned());
        }
        if logins.len() < sessions {
            let users = logins.len();
            return Err(format!(
                "{sessions} sessions at a time need {sessions} users, and there are {users}: \
                 a maildrop serves one session at a time; name more with --users or lower --sessions"
            ));
        }
        let cpus = args.cpu.clone().map(|list| list.0).unwrap_or_default();
        let threads = args.threads.unwrap_or_else(|| match cpus.len() {
            0 => std::thread::available_parallelism().map_or(1, |cpus| cpus.get().div_ceil(2)),
            cpus => cpus,
        });
        Ok(Self {
            target,
            profile: match args.profile {
                ProfileName::Login => Profile::Login,
                ProfileName::Poll => Profile::Poll,
                ProfileName::Fetch => Profile::Fetch {
                    messages: args.messages,
                },
                ProfileName::Drain => Profile::Drain,
                ProfileName::Idle => Profile::Idle,
            },
            sessions,
            duration: seconds("--duration", args.duration)?,
            threads: threads.clamp(1, sessions),
            logins,
            max_sessions: args.max_sessions.unwrap_or(u64::MAX),
            cpus,
            timeout: seconds("--timeout", args.timeout)?,
            seed: args.seed,
            sources: sources(target.ip(), args.profile, sessions),
        })
    }
}

fn seconds(name: &str, value: f64) -> Result<Duration, String> {
    let day = 86_400.0;
    let sound = Duration::try_from_secs_f64(value).ok();
    sound
        .filter(|_| (0.001..=day).contains(&value))
        .ok_or_else(|| format!("{name} {value}: from 0.001 to {day} seconds"))
}

fn resolve(target: &str) -> Result<SocketAddr, String> {
    let mut addresses = target
        .to_socket_addrs()
        .map_err(|e| format!("--target {target}: {e}; write it as HOST:PORT"))?;
    addresses
        .next()
        .ok_or_else(|| format!("--target {target}: has no address"))
}

/// Connections that one source address holds before the next is taken: well
/// below the 28,232 ports that Linux gives by default.
const CONNECTIONS_PER_SOURCE: usize = 1_000;

/// Held sessions each need a port of their own, of which an address has fewer
/// than 30,000; on the loopback network there are addresses enough.
fn sources(target: IpAddr, profile: ProfileName, sessions: usize) -> Vec<Ipv4Addr> {
    if profile != ProfileName::Idle || !matches!(target, IpAddr::V4(v4) if v4.is_loopback()) {
        return Vec::new();
    }
    let addresses = u32::try_from(sessions.div_ceil(CONNECTIONS_PER_SOURCE)).unwrap_or(u32::MAX);
    let first = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    (0..addresses.min(60_000))
        .map(|n| Ipv4Addr::from(first + n))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(arguments: &str) -> Result<Plan, String> {
        let line = format!("popcore-loadgen --target 127.0.0.1:1110 {arguments}");
        let args = Args::try_parse_from(line.split_whitespace()).map_err(|e| e.to_string())?;
        Plan::new(&args)
    }

    #[test]
    fn fewer_users_than_sessions_are_refused() {
        let error = plan("--profile poll --sessions 3 --users u{0..1} --password p");
        let error = error.expect_err("two users for three sessions");
        assert!(error.contains("there are 2"), "{error}");
        assert!(plan("--profile poll --sessions 2 --users u{0..1} --password p").is_ok());
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for arguments in [
            "--profile none --users u --password p --sessions 1",
            "--profile poll --users u --sessions 1",
            "--profile poll --sessions 1 --password p",
            "--profile poll --users u --password p --sessions 0",
            "--profile poll --users u --password p --sessions 1 --duration 0",
            "--profile poll --users u --password p --sessions 1 --duration=-1",
            "--profile poll --users u --password p --sessions 1 --timeout nan",
            "--profile poll --users u --password p --sessions 1 --cpu 3-1",
            "--profile poll --users u --password p --sessions 1 --cpu 99999",
        ] {
            assert!(plan(arguments).is_err(), "{arguments}");
        }
        assert!(resolve("127.0.0.1").is_err(), "a port is needed");
    }

    #[test]
    fn cpus_are_numbers_and_ranges() {
        assert_eq!(parse_cpus("1,3-5"), Ok(CpuList(vec![1, 3, 4, 5])));
    }

    #[test]
    fn only_held_sessions_are_spread_over_addresses() {
        let idle = plan("--profile idle --users u{0..10499} --password p --sessions 10500");
        assert_eq!(idle.expect("sound").sources.len(), 11);
        let poll = plan("--profile poll --users u{0..10499} --password p --sessions 10500");
        assert_eq!(poll.expect("sound").sources.len(), 0);
    }
}
