//! The process: from a valid configuration to its last session.
//!
//! Everything that can fail is done before the first client is accepted, in an
//! order that the kernel and privileges set: limits first, since everything
//! takes descriptors; then what only root may do (ports, keys); then privileges
//! go; then threads, which must not have had them.
//!
//! The main thread then only waits: for signals and for shards that end. The
//! first SIGTERM or SIGINT drains, a second closes at once, SIGHUP reads the
//! users again and reopens the log. A shard that fails takes the others with it:
//! a supervisor that restarts the process serves everybody, where a process with
//! a dead shard would refuse a part of its clients for as long as it lives.

mod error;

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
use crate::auth::{self, Broker};
use crate::config::{Config, DirectoryOptions, RunAs, Shards, TlsMode};
use crate::conn::{Services, Takeover};
use crate::limits;
use crate::maildrop::{self, Maildrops, Template};
use crate::observe::{self, Log, Metrics, ShardWriter, Sparing};
use crate::ring::{self, RingError};
use crate::session::Policy;
use crate::shard::listener;
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
    raise_descriptor_limit()?;
    ring::probe().map_err(ServerError::Ring)?;
    let cpus = shard_cpus(config.server.shards).map_err(ServerError::Cpus)?;
    let tls = Tls::start(config, cpus.len())?;
    let (listeners, sockets) = listen(config, cpus.len())?;
    if let Some(run_as) = &config.server.run_as {
        drop_privileges(run_as).map_err(ServerError::Privileges)?;
    }
    let log = observe::start_log(&config.log).map_err(ServerError::Log)?;
    let services = services(config, &cpus)?;
    let rings: Rings = cpus.iter().map(|_| Arc::default()).collect();
    let (mut metrics, writers) = metrics(&log, &services, &rings);
    let tls = tls.map(|tls| tls.begin(&mut metrics));
    let health = admin::Health::default();
    let sources = admin::Sources {
        metrics: Arc::new(move || metrics.expose()),
        health: health.clone(),
    };
    let admin = config.admin.map(|options| admin::start(options, sources));
    let admin = admin.transpose().map_err(ServerError::Admin)?;

    let (events, inbox) = channel();
    signals(events.clone()).map_err(ServerError::Signals)?;
    let policy = Arc::new(policy(config));
    let orders: Vec<Arc<Orders>> = cpus.iter().map(|_| Arc::default()).collect();
    let plans = sockets.into_iter().zip(writers).zip(&cpus).enumerate();
    for (number, ((listeners, counters), cpu)) in plans {
        let plan = Plan {
            number,
            cpu: *cpu,
            listeners,
            policy: Arc::clone(&policy),
            write_stall: config.limits.write_stall,
            services: Arc::clone(&services),
            tls: tls.as_ref().map(|shards| shards[number].clone()),
            counters,
            ring: Arc::clone(&rings[number]),
            started,
            orders: Arc::clone(&orders[number]),
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
    };
    let (phase, ended) = server.await_shards(started)?;
    if matches!(phase, Phase::Serving) {
        ready(&Ready {
            listeners,
            admin: admin.as_ref().map(admin::AdminHandle::address),
        });
    }
    server.serve(phase, ended)
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

    fn serve(self, mut phase: Phase, ended: usize) -> Result<(), ServerError> {
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
    fn reload(&self) {
        self.log.reopen();
        // The outcome of each directory is in the log.
        let _ = self.services.broker.reload();
    }
}

/// Sockets for every address and shard: the addresses, and each shard's share.
type Sockets = (Vec<(SocketAddr, TlsMode)>, Vec<Vec<Listener>>);

fn listen(config: &Config, shards: usize) -> Result<Sockets, ServerError> {
    let mut addresses = Vec::new();
    let mut per_shard: Vec<Vec<Listener>> = (0..shards).map(|_| Vec::new()).collect();
    for options in &config.listeners {
        let (address, sockets) =
            listener::listen(options.address, shards).map_err(ServerError::Listen)?;
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

/// Groups first, user last: without the user's rights nothing more can be set.
fn drop_privileges(to: &RunAs) -> io::Result<()> {
    let groups: Vec<Gid> = to.supplementary.iter().map(|g| Gid::from_raw(*g)).collect();
    nix::unistd::setgroups(&groups)?;
    nix::unistd::setgid(Gid::from_raw(to.gid))?;
    nix::unistd::setuid(Uid::from_raw(to.uid))?;
    Ok(())
}

fn services(config: &Config, cpus: &[usize]) -> Result<Arc<Services>, ServerError> {
    let directories = config.auth.directories.iter();
    let directories = directories.map(|DirectoryOptions::PasswdFile { path }| {
        let path = path.clone();
        auth::DirectoryOptions {
            kind: auth::DirectoryKind::PasswdFile { path },
        }
    });
    let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let options = auth::Options {
        directories: directories.collect(),
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
    Ok(Arc::new(Services {
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
        broker: Broker::start(&options).map_err(ServerError::Auth)?,
        strangers: Sparing::default(),
    }))
}

fn policy(config: &Config) -> Policy {
    Policy {
        hostname: config.server.hostname.clone(),
        plaintext_without_tls: config.auth.plaintext_without_tls,
        idle: config.limits.idle,
        login: config.limits.login,
        failure_delay: config.auth.failure_delay,
        retention: config.maildrop.rules.retention,
    }
}

/// A ring's counter: its metric, what it is, and how it is read.
type RingMetric = (&'static str, &'static str, fn(&ring::Counters) -> u64);

const RING_METRICS: [RingMetric; 8] = [
    (
        "ring_enters",
        "System calls into the shards' rings",
        ring::Counters::enters,
    ),
    (
        "ring_completions",
        "Operations of the shards' rings that ended",
        ring::Counters::completions,
    ),
    (
        "ring_queue_full",
        "Operations that waited for room in a ring's submission queue",
        ring::Counters::queue_full,
    ),
    (
        "ring_buffers_exhausted",
        "Receives that found no provided buffer and were started again",
        ring::Counters::buffers_exhausted,
    ),
    (
        "ring_overflows",
        "Turns that found a ring's completion queue overflown",
        ring::Counters::overflows,
    ),
    (
        "ring_ended_early",
        "Accepts and receives that the kernel ended by itself and that were started again",
        ring::Counters::ended_early,
    ),
    (
        "ring_throttled",
        "Clients held back because they sent further ahead than they may",
        ring::Counters::throttled,
    ),
    (
        "ring_cancelled",
        "Operations given up before they ended",
        ring::Counters::cancelled,
    ),
];

/// A counter of maildrops: its metric, what it is, and how it is read.
type MaildropMetric = (&'static str, &'static str, fn(&maildrop::Counters) -> u64);

const MAILDROP_METRICS: [MaildropMetric; 5] = [
    (
        "index_damaged",
        "Indexes of maildrops that were found damaged and made anew",
        maildrop::Counters::damaged,
    ),
    (
        "index_unwritten",
        "Indexes of maildrops that could not be written",
        maildrop::Counters::unwritten,
    ),
    (
        "message_sizes_corrected",
        "Messages whose size was not what name or index said",
        maildrop::Counters::corrected,
    ),
    (
        "messages_expired",
        "Messages removed because they had been kept long enough",
        maildrop::Counters::expired,
    ),
    (
        "uidl_guard_refusals",
        "Logins refused because most unique-ids would have changed",
        maildrop::Counters::guarded,
    ),
];

/// The counters of each shard's ring.
type Rings = Arc<[Arc<ring::Counters>]>;

fn metrics(log: &Log, services: &Arc<Services>, rings: &Rings) -> (Metrics, Vec<ShardWriter>) {
    let (mut metrics, writers) = Metrics::new(rings.len());
    for (name, help, read) in RING_METRICS {
        let rings = Arc::clone(rings);
        let sum = move || rings.iter().map(|counters| read(counters)).sum();
        metrics.register_counter(name, help, sum);
    }
    let dropped = "Log lines that found the log's queue full";
    metrics.register_counter("log_lines_dropped", dropped, log.dropped());
    let own = Arc::clone(services);
    let full = "Logins refused because the queue before the auth threads was full";
    metrics.register_counter("auth_queue_full", full, move || {
        let counters = own.broker.counters();
        counters
            .rejected_full
            .load(std::sync::atomic::Ordering::Relaxed)
    });
    let own = Arc::clone(services);
    let waiting = "Logins that wait for an auth thread";
    metrics.register_gauge("auth_queue_length", waiting, move || {
        own.broker.queue_length() as u64
    });
    let own = Arc::clone(services);
    let octets = "Octets of memory that cached snapshots of maildrops take";
    metrics.register_gauge("snapshot_cache_bytes", octets, move || {
        own.maildrops.cache().memory() as u64
    });
    for (name, help, read) in MAILDROP_METRICS {
        let counters = Arc::clone(services.maildrops.counters());
        metrics.register_counter(name, help, move || read(&counters));
    }
    (metrics, writers)
}
