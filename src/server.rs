//! The process: from a valid configuration to its last session.
//!
//! Everything that can fail is done before the first client is accepted, in an
//! order that the kernel and privileges set: limits first, since everything
//! takes descriptors; then what only root may do (ports, keys); then privileges
//! go; then threads, which must not have had them.
//!
//! The main thread then only waits: for signals and for shards that end. The
//! first SIGTERM or SIGINT drains, a second closes at once, SIGHUP reads users and
//! limits again and reopens the log. A shard that fails takes the others with it:
//! a supervisor that restarts the process serves everybody, where a process with
//! a dead shard would refuse a part of its clients for as long as it lives.

mod error;
mod metrics;
mod reload;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::unistd::{Gid, Uid};
use rustix::process::{Resource, Rlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::admin;
use crate::auth::throttle::Throttle;
use crate::auth::{self, Broker};
use crate::config::{Config, RunAs, Shards, Steering, TlsMode};
use crate::conn::{CurrentRules, Services, Takeover, Thresholds};
use crate::limits;
use crate::maildrop::{self, Maildrops, Template};
use crate::observe::{self, Log, Metrics, Sparing};
use crate::ring::{self, Pool, RingError};
use crate::shard::admission::{Admission, Visits};
use crate::shard::listener;
use crate::shard::steering;
use crate::shard::{self, Listener, Order, Orders, Plan, Running};
use crate::tls::{self, CertificateMetrics, Keeper, Watch};

pub use self::error::ServerError;

/// What the server listens on, with the ports the kernel chose for port 0.
#[derive(Debug)]
pub struct Ready {
    /// The listeners, in the order of the configuration.
    pub listeners: Vec<(SocketAddr, TlsMode)>,
    /// The administrator's listener.
    pub admin: Option<SocketAddr>,
}

/// What the main thread waits for.
enum Event {
    Signal(i32),
    /// A shard accepts connections.
    Accepting,
    /// A shard has ended.
    Ended(usize, io::Result<()>),
}

/// How far the server is on its way to its end.
#[derive(Clone, Copy)]
enum Phase {
    Serving,
    /// No new sessions; open ones may finish until then.
    Draining {
        until: Instant,
    },
    Closing,
}

/// Serves until told to stop; `ready` is called once every shard accepts.
///
/// # Errors
///
/// Why the server could not start, or which shard failed.
pub fn run(config: &Config, ready: impl FnOnce(&Ready)) -> Result<(), ServerError> {
    let started = SystemTime::now();
    forbid_core_dumps();
    raise_descriptor_limit()?;
    maildrop::probe().map_err(ServerError::Opening)?;
    let cpus = shard_cpus(config.server.shards).map_err(ServerError::Cpus)?;
    let tls = Tls::start(config, cpus.len())?;
    let (listeners, sockets) = listen(config, &cpus)?;
    become_server(config.server.run_as.as_ref())?;
    // Before what takes time: who sees the ports open may tell the server to end.
    let (events, inbox) = channel();
    signals(events.clone()).map_err(ServerError::Signals)?;
    let log = observe::start_log(&config.log).map_err(ServerError::Log)?;
    let services = services(config, &cpus)?;
    let rings: metrics::Rings = cpus.iter().map(|_| Arc::default()).collect();
    let (mut metrics, writers) = metrics::metrics(&log, &services, &rings);
    let tls = tls.map(|tls| tls.begin(&mut metrics));
    let health = admin::Health::default();
    let sources = admin::Sources {
        metrics: Arc::new(move || metrics.expose()),
        health: health.clone(),
    };
    let admin = config.admin.map(|at| admin::start(at, sources)).transpose();
    let admin = admin.map_err(ServerError::Admin)?;

    let rules = reload::for_shards(config, cpus.len()).map_err(ServerError::BlockList)?;
    let orders: Vec<Arc<Orders>> = cpus.iter().map(|_| Arc::default()).collect();
    let far = Pool::start("far", limits::FAR_THREADS).map_err(|error| not_started(0, error))?;
    let plans = sockets.into_iter().zip(writers).zip(&cpus).enumerate();
    for (number, ((listeners, counters), cpu)) in plans {
        let plan = Plan {
            number,
            cpu: *cpu,
            listeners,
            rules: Arc::clone(&rules[number]),
            write_stall: config.limits.write_stall,
            services: Arc::clone(&services),
            tls: tls.as_ref().map(|shards| shards[number].clone()),
            counters,
            ring: Arc::clone(&rings[number]),
            started,
            orders: Arc::clone(&orders[number]),
            far: far.clone(),
            thresholds: thresholds(config),
        };
        start_shard(plan, events.clone())?;
    }
    let server = Server {
        inbox,
        orders,
        services,
        log,
        health,
        drain: config.server.drain,
        config: config.clone(),
        rules,
    };
    let (phase, ended) = server.await_shards(started)?;
    if matches!(phase, Phase::Serving) {
        ready(&Ready {
            listeners,
            admin: admin.as_ref().map(admin::AdminHandle::address),
        });
    }
    let end = server.serve(phase, ended);
    far.finish();
    end
}

fn thresholds(config: &Config) -> Thresholds {
    Thresholds {
        text: config.maildrop.map_text_from,
        wire: config.maildrop.map_wire_from,
    }
}

/// TLS, where there is any, before privileges are dropped.
struct Tls {
    shards: Vec<tls::Current>,
    metrics: CertificateMetrics,
    watch: Watch,
    /// Why the kernel does not make records although it was asked to.
    no_kernel: Option<io::Error>,
}

impl Tls {
    fn start(config: &Config, shards: usize) -> Result<Option<Tls>, ServerError> {
        if config.tls.certificates.is_empty() {
            return Ok(None);
        }
        let mut options = config.tls.clone();
        let asked = options.kernel.then(ring::kernel_tls::probe);
        let no_kernel = asked.and_then(Result::err);
        options.kernel &= no_kernel.is_none();
        let keeper = Keeper::load(&options, shards, SystemTime::now());
        let keeper = keeper.map_err(ServerError::Certificate)?;
        Ok(Some(Tls {
            shards: (0..shards).map(|shard| keeper.current(shard)).collect(),
            metrics: CertificateMetrics::of(&keeper),
            watch: Watch::start(keeper, config.server.run_as.is_some())
                .map_err(ServerError::Watch)?,
            no_kernel,
        }))
    }

    /// Privileges are gone and there is a log: files are watched from now on.
    fn begin(self, metrics: &mut Metrics) -> Vec<tls::Current> {
        metrics.register(self.metrics);
        if let Some(error) = self.no_kernel {
            tracing::warn!(
                "tls.kernel: the kernel has no TLS ({error}), and popcore goes on without; load \
                 its module (modprobe tls), or set tls.kernel = \"off\""
            );
        }
        self.watch.begin();
        self.shards
    }
}

/// The running server as its main thread sees it.
struct Server {
    inbox: Receiver<Event>,
    orders: Vec<Arc<Orders>>,
    services: Arc<Services>,
    log: Log,
    health: admin::Health,
    drain: Duration,
    /// What is in force.
    config: Config,
    /// Of each shard.
    rules: Vec<Arc<CurrentRules>>,
}

impl Server {
    /// Waits until every shard accepts; says in which phase the server then is, and
    /// how many of them have ended.
    fn await_shards(&self, started: SystemTime) -> Result<(Phase, usize), ServerError> {
        let (mut phase, mut accepting, mut ended) = (Phase::Serving, 0, 0);
        while accepting < self.orders.len() {
            match self.next() {
                Event::Accepting => accepting += 1,
                Event::Ended(_, Ok(())) if matches!(phase, Phase::Closing) => ended += 1,
                Event::Ended(number, result) => {
                    self.order(Order::Close);
                    let error = result
                        .err()
                        .unwrap_or_else(|| io::Error::other("ended early"));
                    return Err(not_started(number, error));
                }
                // A signal during the start is one to stop: nobody is served yet.
                Event::Signal(SIGHUP) => {}
                Event::Signal(_) => phase = self.close(),
            }
        }
        if matches!(phase, Phase::Closing) {
            return Ok((phase, ended));
        }
        let took = started.elapsed().unwrap_or_default();
        tracing::info!(
            "popcore {} serves on {accepting} shards, {} ms after its start",
            env!("CARGO_PKG_VERSION"),
            took.as_millis()
        );
        Ok((phase, ended))
    }

    fn serve(mut self, mut phase: Phase, ended: usize) -> Result<(), ServerError> {
        let mut running = self.orders.len() - ended;
        let mut failed = None;
        while running > 0 {
            let Some(event) = self.next_in(phase) else {
                tracing::warn!("the time to drain is over; open sessions are closed");
                phase = self.close();
                continue;
            };
            match (event, phase) {
                (Event::Signal(SIGHUP), _) => self.reload(),
                (Event::Signal(_), Phase::Serving) => phase = self.drain(),
                (Event::Signal(_), Phase::Draining { .. }) => {
                    tracing::info!("stopping at once");
                    phase = self.close();
                }
                (Event::Ended(number, result), _) => {
                    running -= 1;
                    if let Err(error) = result {
                        tracing::error!("shard {number} failed: {error}; the server stops");
                        phase = self.close();
                        failed = Some(ServerError::Shard(number, error));
                    }
                }
                (Event::Signal(_), Phase::Closing) | (Event::Accepting, _) => {}
            }
        }
        self.services.broker.stop();
        tracing::info!("stopped");
        failed.map_or(Ok(()), Err)
    }

    /// The next event; nothing if the time to drain is over first.
    fn next_in(&self, phase: Phase) -> Option<Event> {
        let Phase::Draining { until } = phase else {
            return Some(self.next());
        };
        let wait = until.saturating_duration_since(Instant::now());
        self.inbox.recv_timeout(wait).ok()
    }

    fn drain(&self) -> Phase {
        tracing::info!("stopping: no new sessions; open ones have {:?}", self.drain);
        self.health.drain();
        self.order(Order::Drain);
        Phase::Draining {
            until: Instant::now() + self.drain,
        }
    }

    fn close(&self) -> Phase {
        self.health.drain();
        self.order(Order::Close);
        Phase::Closing
    }

    fn next(&self) -> Event {
        let event = self.inbox.recv();
        event.expect("the thread that receives signals never lets go of its end")
    }

    fn order(&self, order: Order) {
        for orders in &self.orders {
            orders.give(order);
        }
    }

    /// What SIGHUP asks for. Shards go on meanwhile.
    fn reload(&mut self) {
        self.log.reopen();
        reload::reload(&mut self.config, &self.rules, &self.services.broker);
        // The outcome of each directory is in the log.
        let _ = self.services.broker.reload();
    }
}

/// Sockets for every address and shard: the addresses, and each shard's share.
type Sockets = (Vec<(SocketAddr, TlsMode)>, Vec<Vec<Listener>>);

fn listen(config: &Config, cpus: &[usize]) -> Result<Sockets, ServerError> {
    let shards = cpus.len();
    let mut addresses = Vec::new();
    let mut per_shard: Vec<Vec<Listener>> = (0..shards).map(|_| Vec::new()).collect();
    for options in &config.listeners {
        let (address, sockets) =
            listener::listen(options.address, shards).map_err(ServerError::Listen)?;
        if config.server.steering == Steering::Cpu {
            steering::by_cpu(&sockets, cpus).map_err(ServerError::Steering)?;
        }
        let tls = options.tls;
        addresses.push((address, tls));
        for (own, socket) in per_shard.iter_mut().zip(sockets) {
            own.push(Listener {
                socket,
                address,
                tls,
            });
        }
    }
    Ok((addresses, per_shard))
}

fn not_started(number: usize, error: io::Error) -> ServerError {
    RingError::of_start(error)
        .map_or_else(|error| ServerError::Shard(number, error), ServerError::Ring)
}

/// Starts a shard, and a thread that says when it has ended.
fn start_shard(plan: Plan, events: Sender<Event>) -> Result<(), ServerError> {
    let number = plan.number;
    let fail = |error| not_started(number, error);
    let accepting = events.clone();
    let shard: Running = shard::start(plan, move || {
        // Nobody listens only where the server has given up already.
        let _ = accepting.send(Event::Accepting);
    })
    .map_err(fail)?;
    let wait = move || {
        let _ = events.send(Event::Ended(number, shard.join()));
    };
    let name = format!("join-{number}");
    let thread = thread::Builder::new().name(name).spawn(wait);
    thread.map(drop).map_err(fail)
}

/// Has SIGTERM, SIGINT and SIGHUP turned into events, from now on.
fn signals(events: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let receive = move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("signals".into()).spawn(receive);
    thread.map(drop)
}

/// Has the kernel write no core dump, in which mail and what proves names would be: one
/// octet is less than any takes (`core(5)`), and is what the kernel also heeds where
/// dumps go to a program, unlike 0. The hard limit stays, so that an operator who wants
/// one sets it for the running process (`prlimit(1)`). `PR_SET_DUMPABLE` would do more
/// than is wanted: who may look at a process of the own, by perf or in /proc, could not.
fn forbid_core_dumps() {
    let hard = rustix::process::getrlimit(Resource::Core).maximum;
    let lowered = Rlimit {
        current: Some(hard.map_or(1, |hard| hard.min(1))),
        maximum: hard,
    };
    let _ = rustix::process::setrlimit(Resource::Core, lowered);
}

/// Raises the soft limit of open files to the hard one; where even that fails,
/// the listeners back off at the limit there is. One that a start alone would meet
/// is refused here: glommio panics where it meets it.
fn raise_descriptor_limit() -> Result<(), ServerError> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    if limit.maximum.is_some_and(|most| most < limits::DESCRIPTORS) {
        let error = io::Error::from_raw_os_error(libc::EMFILE);
        return Err(ServerError::Ring(RingError::Descriptors(error)));
    }
    Ok(())
}

/// One CPU for each shard: those of the affinity mask in turn.
fn shard_cpus(shards: Shards) -> io::Result<Vec<usize>> {
    // The executors read there which CPUs the machine has, and panic without it.
    if !Path::new("/sys/devices/system/cpu").exists() {
        let text = "/sys/devices/system/cpu is missing; mount sysfs on /sys";
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    let mask = rustix::thread::sched_getaffinity(None)?;
    let allowed: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|cpu| mask.is_set(*cpu))
        .collect();
    let count = match shards {
        Shards::Auto => allowed.len(),
        Shards::Count(count) => count.get(),
    };
    Ok(allowed.into_iter().cycle().take(count).collect())
}

/// Rings are tried only then: where `io_uring` is for one group, that is the server's, and
/// root may make rings that the server may not.
fn become_server(run_as: Option<&RunAs>) -> Result<(), ServerError> {
    if let Some(run_as) = run_as {
        drop_privileges(run_as).map_err(ServerError::Privileges)?;
    }
    ring::probe().map_err(ServerError::Ring)
}

/// Groups first, user last: without the user's rights nothing more can be set.
fn drop_privileges(to: &RunAs) -> io::Result<()> {
    let groups: Vec<Gid> = to.supplementary.iter().map(|g| Gid::from_raw(*g)).collect();
    nix::unistd::setgroups(&groups)?;
    nix::unistd::setgid(Gid::from_raw(to.gid))?;
    nix::unistd::setuid(Uid::from_raw(to.uid))?;
    Ok(())
}

fn services(config: &Config, cpus: &[usize]) -> Result<Arc<Services>, ServerError> {
    let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let options = auth::Options {
        directories: config.auth.directories.clone(),
        masters: config.auth.masters.clone(),
        scram_secret: config.auth.scram_secret.clone(),
        oauth: config.auth.oauth.clone(),
        desks: cpus.iter().copied().map(Some).collect(),
        threads,
    };
    let template = Template::parse(&config.maildrop.path).map_err(ServerError::Template)?;
    let maildrops = Maildrops::new(limits::SNAPSHOT_CACHE)
        .with_sources(config.maildrop.uidl.clone())
        .with_rules(config.maildrop.rules);
    if let Some(top) = template.beginning()
        && let Err(error) = maildrops.share_locks(&top)
    {
        tracing::info!(
            "{}: no folder for locks: {error}; each session takes a descriptor for the lock of \
             its maildrop",
            top.display()
        );
    }
    let broker = Broker::start(&options).map_err(ServerError::Auth)?;
    reload::set(&broker, config);
    let now = Instant::now();
    Ok(Arc::new(Services {
        admission: Admission::new(now),
        visits: Visits::new(now),
        throttle: Throttle::new(now),
        template,
        maildrops,
        index: config
            .maildrop
            .index
            .as_deref()
            .map(Template::parse)
            .transpose()
            .map_err(ServerError::Index)?,
        takeover: config
            .maildrop
            .takeover
            .map(|silence| Takeover::new(silence, cpus.len())),
        broker,
        strangers: Sparing::default(),
    }))
}
