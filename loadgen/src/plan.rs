//! What a run is to do, checked: from arguments to a [`Plan`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum as _;
use rustix::process::{Resource, getrlimit};

use crate::args::{Chaos, Close, RunArgs};
use crate::auth::Mechanism;
use crate::dialogue::Conduct;
use crate::pace::{Arrivals, Schedule};
use crate::pool::Choice;
use crate::proxy::{Network, Version};
use crate::scenario::{Mix, Scenario};
use crate::source::Source;
use crate::tls::{Client, Mode};
use crate::users::{self, Login};

/// How sessions come.
#[derive(Clone, Debug, PartialEq)]
pub enum Load {
    /// Each as the successor of the one before.
    Closed,
    /// On a schedule.
    Open(Schedule, Arrivals),
}

/// Sessions that misbehave.
#[derive(Clone, Debug, PartialEq)]
pub struct Misconduct {
    /// Of all sessions.
    pub share: f64,
    /// One of these each; never empty.
    pub kinds: Vec<Chaos>,
}

/// The PROXY protocol's header.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Its form.
    pub version: Version,
    /// Where sources are from; never empty.
    pub sources: Vec<Network>,
}

/// A run, checked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub target: SocketAddr,
    /// How sessions come.
    pub load: Load,
    /// How they behave.
    pub conduct: Arc<Conduct>,
    /// How some misbehave.
    pub chaos: Option<Misconduct>,
    /// Where there is TLS.
    pub tls: Option<Client>,
    /// Where connections begin with it.
    pub header: Option<Header>,
    /// How connections end.
    pub close: Close,
    /// Sessions at a time; open loop: the most.
    pub sessions: usize,
    /// The most of those that misbehave, beside them.
    pub chaotic_sessions: usize,
    /// How long sessions are begun, or held.
    pub duration: Duration,
    /// Threads, at most `sessions`.
    pub threads: usize,
    /// At least as many as `sessions`.
    pub logins: Arc<[Login]>,
    /// How they are chosen.
    pub choice: Choice,
    /// Deliveries a second.
    pub deliver: Option<f64>,
    /// Most sessions to begin.
    pub max_sessions: u64,
    /// CPUs to pin threads to; empty: none.
    pub cpus: Vec<usize>,
    /// Without a byte for so long, a session is given up.
    pub timeout: Duration,
    /// Of whatever is chosen at random.
    pub seed: u64,
    /// Source addresses to spread connections over; empty: the kernel's choice.
    pub sources: Vec<Ipv4Addr>,
}

/// Sessions at a time where nothing is said.
const SESSIONS: usize = 32;

impl Plan {
    /// The run of `args` against its target number `target`.
    ///
    /// Errors are for the operator: they name the argument and the remedy.
    pub fn new(args: &RunArgs, target: usize) -> Result<Self, String> {
        let name = &args.target[target];
        let address = resolve(name)?;
        let logins = logins(args)?;
        let duration = seconds("--duration", args.duration)?;
        let load = match &args.rate {
            Some(text) => Load::Open(Schedule::parse(text, duration)?, args.arrivals),
            None => Load::Closed,
        };
        let open = load != Load::Closed || args.series.find_max;
        let sessions = args.sessions.unwrap_or(if open {
            logins.len().min(most_sessions())
        } else {
            SESSIONS
        });
        enough(sessions, logins.len())?;
        let mix = mix(args)?;
        let chaos = chaos(args, &mix)?;
        if mix.holds() {
            quiet(open, chaos.is_some())?;
        }
        let source = match &args.users.maildir {
            Some(template) => Some(Source::read(template, &logins)?),
            None => None,
        };
        let cpus = args.cpu.clone().map(|list| list.0).unwrap_or_default();
        let threads = args.threads.unwrap_or_else(|| match cpus.len() {
            0 => std::thread::available_parallelism().map_or(1, |cpus| cpus.get().div_ceil(2)),
            cpus => cpus,
        });
        let deliver = args.users.deliver.as_deref().map(deliveries).transpose()?;
        let sources = sources(address.ip(), mix.holds(), sessions);
        let threads = threads.clamp(1, sessions);
        let chaotic_sessions = match chaos {
            Some(_) => chaotic_sessions(open, sessions, logins.len(), threads)?,
            None => 0,
        };
        Ok(Self {
            target: address,
            duration: match &load {
                Load::Open(schedule, _) => schedule.length(),
                Load::Closed => duration,
            },
            load,
            conduct: Arc::new(Conduct {
                mix,
                mechanism: args.link.auth,
                tls: args.link.tls,
                source,
            }),
            chaos,
            tls: tls(args, name)?,
            header: args.link.proxy.map(|version| Header {
                version,
                sources: args.link.proxy_sources.clone(),
            }),
            close: args.link.close,
            sessions,
            chaotic_sessions,
            threads,
            logins,
            choice: args.users.choose,
            deliver,
            max_sessions: args.max_sessions.unwrap_or(u64::MAX),
            cpus,
            timeout: seconds("--timeout", args.timeout)?,
            seed: args.seed,
            sources,
        })
    }
}

fn logins(args: &RunArgs) -> Result<Arc<[Login]>, String> {
    let password = args.users.password.as_deref();
    let logins = if let Some(path) = &args.users.file {
        users::from_file(path, password)?
    } else if let Some(template) = &args.users.template {
        users::from_template(template, password.ok_or("--users needs --password")?)?
    } else if let Some(tree) = &args.users.tree {
        users::from_maildirs(tree, password.ok_or("--users-from needs --password")?)?
    } else {
        return Err("--users, --users-file or --users-from says who logs in".to_owned());
    };
    if args.link.auth == Mechanism::User
        && let Some(long) = logins.iter().find(|l| l.password.len() > users::LONGEST)
    {
        let (user, longest) = (&long.user, users::LONGEST);
        return Err(format!(
            "{user}: a password for PASS has at most {longest} octets"
        ));
    }
    Ok(logins.into())
}

/// Descriptors beside those of the sessions.
pub(crate) const OTHER_DESCRIPTORS: u64 = 32;

/// Sessions that the hard limit of open files lets be open at a time.
fn most_sessions() -> usize {
    let most = getrlimit(Resource::Nofile).maximum;
    let most = most.map(|most| most.saturating_sub(OTHER_DESCRIPTORS).max(1));
    most.and_then(|most| usize::try_from(most).ok())
        .unwrap_or(usize::MAX)
}

fn enough(sessions: usize, users: usize) -> Result<(), String> {
    if sessions == 0 {
        return Err("--sessions is at least 1".to_owned());
    }
    if users < sessions {
        return Err(format!(
            "{sessions} sessions at a time need {sessions} users, and there are {users}: a \
             maildrop serves one session at a time; name more with --users or lower --sessions"
        ));
    }
    Ok(())
}

/// Idle sessions are only held.
fn quiet(open: bool, chaos: bool) -> Result<(), String> {
    match (open, chaos) {
        (true, _) => Err("idle sessions have no rate: leave --rate and --find-max out".to_owned()),
        (false, true) => Err("idle sessions are quiet: leave --chaos out".to_owned()),
        (false, false) => Ok(()),
    }
}

/// The most sessions that misbehave at a time: four hundred half-open ones a second
/// for the ten seconds that each stays.
const MOST_CHAOTIC: usize = 4_096;

/// Sessions that misbehave have places and users beside those of the others, whose
/// number is not theirs to change. In an open loop all have what users there are,
/// and so the others keep half of them.
fn chaotic_sessions(
    open: bool,
    sessions: usize,
    users: usize,
    threads: usize,
) -> Result<usize, String> {
    let beside = if open { users / 2 } else { users - sessions };
    if beside < threads {
        return Err(format!(
            "--chaos needs users of its own, one for each of {threads} threads at the least: \
             {users} users for {sessions} sessions are too few; name more with --users"
        ));
    }
    let places = most_sessions().saturating_sub(sessions).max(threads);
    Ok(beside.min(MOST_CHAOTIC).min(places))
}

fn mix(args: &RunArgs) -> Result<Mix, String> {
    let (messages, pipelining) = (args.messages, args.pipelining);
    match (&args.profile, &args.mix, &args.scenario) {
        (Some(name), _, _) => Scenario::profile(name, messages, pipelining).map(Mix::of),
        (None, Some(text), _) => Mix::parse(text, messages, pipelining),
        (None, None, Some(path)) => Mix::from_file(path, pipelining),
        (None, None, None) => {
            Err("--profile, --mix or --scenario says what a session does".to_owned())
        }
    }
}

fn share(name: &str, value: f64) -> Result<f64, String> {
    (0.0..=1.0)
        .contains(&value)
        .then_some(value)
        .ok_or_else(|| format!("{name} {value}: a share is from 0 to 1"))
}

fn chaos(args: &RunArgs, mix: &Mix) -> Result<Option<Misconduct>, String> {
    let share = share("--chaos", args.chaos)?;
    if share >= 1.0 {
        return Err("--chaos 1: leaves no session to measure; it is below 1".to_owned());
    }
    let kinds = if args.chaos_kinds.is_empty() {
        let kinds = Chaos::value_variants().iter().copied();
        let possible = |kind: &Chaos| *kind != Chaos::Reset || mix.fetches();
        kinds.filter(possible).collect()
    } else if args.chaos_kinds.contains(&Chaos::Reset) && !mix.fetches() {
        return Err(
            "--chaos-kinds reset: resets come amid a message, and no session here fetches one: \
             choose sessions with retr or take"
                .to_owned(),
        );
    } else {
        args.chaos_kinds.clone()
    };
    Ok((share > 0.0).then_some(Misconduct { share, kinds }))
}

fn tls(args: &RunArgs, target: &str) -> Result<Option<Client>, String> {
    let link = &args.link;
    let resumed = share("--resume", link.resume)?;
    if link.tls == Mode::None {
        return Ok(None);
    }
    let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = link.sni.as_deref().unwrap_or(host);
    Client::new(name, link.ca.as_deref(), link.insecure, resumed).map(Some)
}

fn deliveries(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse::<f64>();
    match number {
        // Less than one in a day is none.
        Ok(rate) if (1e-5..=100_000.0).contains(&rate) => Ok(rate),
        _ => Err(format!(
            "--deliver {text}: write it as 100/s, from 0.00001/s to 100000/s"
        )),
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
    let addresses = target
        .to_socket_addrs()
        .map_err(|e| format!("--target {target}: {e}; write it as HOST:PORT"))?;
    let addresses: Vec<SocketAddr> = addresses.collect();
    // A server often listens on one address of a name only, as on 127.0.0.1 of
    // localhost; where there is no choice nobody is asked.
    let listens = |a: &&SocketAddr| TcpStream::connect_timeout(a, PATIENCE).is_ok();
    let chosen = match &addresses[..] {
        [only] => Some(only),
        several => several.iter().find(listens).or(several.first()),
    };
    chosen
        .copied()
        .ok_or_else(|| format!("--target {target}: has no address"))
}

/// How long one of several addresses may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connections that one source address holds before the next is taken: well
/// below the 28,232 ports that Linux gives by default.
const CONNECTIONS_PER_SOURCE: usize = 1_000;

/// Held sessions each need a port of their own, of which an address has fewer
/// than 30,000; on the loopback network there are addresses enough.
fn sources(target: IpAddr, held: bool, sessions: usize) -> Vec<Ipv4Addr> {
    if !held || !matches!(target, IpAddr::V4(v4) if v4.is_loopback()) {
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
    use crate::args::CommandLine;
    use clap::Parser as _;

    fn plan(arguments: &str) -> Result<Plan, String> {
        let line = format!("popcore-loadgen --target 127.0.0.1:1110 {arguments}");
        let args = CommandLine::try_parse_from(line.split_whitespace());
        Plan::new(&args.map_err(|e| e.to_string())?.run, 0)
    }

    #[test]
    fn fewer_users_than_sessions_are_refused() {
        let error = plan("--profile poll --sessions 3 --users u{0..1} --password p");
        let error = error.expect_err("two users for three sessions");
        assert!(error.contains("there are 2"), "{error}");
        assert!(plan("--profile poll --sessions 2 --users u{0..1} --password p").is_ok());
    }

    #[test]
    fn an_open_loop_may_use_all_users() {
        let open = plan("--profile poll --users u{0..99} --password p --rate 5/s:2s,9/s:3s");
        let open = open.expect("sound");
        assert_eq!(
            (open.sessions, open.duration),
            (100, Duration::from_secs(5))
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for arguments in [
            "--profile none --users u --password p --sessions 1",
            "--users u --password p --sessions 1",
            "--profile poll --users u --sessions 1",
            "--profile poll --sessions 1 --password p",
            "--profile poll --users u --password p --sessions 0",
            "--profile poll --users u --password p --sessions 1 --duration 0",
            "--profile poll --users u --password p --sessions 1 --duration=-1",
            "--profile poll --users u --password p --sessions 1 --timeout nan",
            "--profile poll --users u --password p --sessions 1 --cpu 3-1",
            "--profile poll --users u --password p --sessions 1 --cpu 99999",
            "--profile poll --users u --password p --sessions 1 --chaos 2",
            "--profile poll --users u{0..9} --password p --sessions 1 --chaos 0.1 --chaos-kinds reset",
            "--profile poll --users u --password p --sessions 1 --rate 0/s",
            "--profile idle --users u --password p --sessions 1 --rate 5/s",
            "--profile poll --users u --password p --sessions 1 --deliver 5/s",
            "--profile poll --users u --password p --sessions 1 --proxy-sources 10.0.0.0/8",
            "--profile poll --users u --password p --sessions 1 --tls implicit --resume 2",
            "--profile poll --mix poll=1 --users u --password p --sessions 1",
        ] {
            assert!(plan(arguments).is_err(), "{arguments}");
        }
        assert!(resolve("127.0.0.1").is_err(), "a port is needed");
        // So long a gap no clock has.
        assert!(deliveries("1e-20/s").is_err() && deliveries("0.1/s") == Ok(0.1));
    }

    #[test]
    fn resets_need_messages() {
        let kinds = |profile: &str| {
            let line = format!(
                "--profile {profile} --users u{{0..9}} --password p --sessions 1 --threads 1 \
                 --chaos 0.1"
            );
            plan(&line).expect("sound").chaos.expect("some").kinds
        };
        assert!(kinds("fetch").contains(&Chaos::Reset));
        let polls = kinds("poll");
        assert!(polls.len() == 3 && !polls.contains(&Chaos::Reset));
    }

    #[test]
    fn only_held_sessions_are_spread_over_addresses() {
        let idle = plan("--profile idle --users u{0..10499} --password p --sessions 10500");
        assert_eq!(idle.expect("sound").sources.len(), 11);
        let poll = plan("--profile poll --users u{0..10499} --password p --sessions 10500");
        assert_eq!(poll.expect("sound").sources.len(), 0);
    }
}
