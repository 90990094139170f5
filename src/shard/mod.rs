//! One executor on one core, with everything its connections need.
//!
//! A shard shares no hot memory with another: it has its own listening sockets,
//! ring, buffers, deadlines, counters and session names. From outside it hears
//! only [`Order`]s, which a task of its own waits for.

pub mod admission;
pub mod deadlines;
mod drain;
pub mod listener;
pub mod steering;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use glommio::{LocalExecutorBuilder, Placement};
use rustix::net::SendFlags;

use crate::config::TlsMode;
use crate::conn::{self, Accepted, Buffers, CurrentRules, Services, Thresholds};
use crate::limits;
use crate::observe::{AcceptError, Limit, SessionIds, ShardWriter};
use crate::ring::{self, Handle, Pool, Ring, Sleep};
use crate::tls;

use self::admission::{Full, Seat};
use self::deadlines::{Alarm, Deadlines};
pub use self::drain::{Order, Orders};
use self::drain::{Phase, Roster};

/// A socket of this shard's and what its connections are to be.
pub struct Listener {
    /// The listening socket.
    pub socket: OwnedFd,
    /// The address it listens on.
    pub address: SocketAddr,
    /// What the configuration says of TLS there.
    pub tls: TlsMode,
}

/// What a shard is made of. It moves to the shard's thread.
pub struct Plan {
    /// Which shard it is, from 0.
    pub number: usize,
    /// The CPU it is pinned to.
    pub cpu: usize,
    /// Its sockets.
    pub listeners: Vec<Listener>,
    /// What the operator decided.
    pub rules: Arc<CurrentRules>,
    /// How long a client may take to read one buffer.
    pub write_stall: Duration,
    /// What all shards share.
    pub services: Arc<Services>,
    /// What TLS is made of, where there is any.
    pub tls: Option<tls::Current>,
    /// Its counters.
    pub counters: ShardWriter,
    /// Its ring's counters.
    pub ring: Arc<ring::Counters>,
    /// When the process started.
    pub started: SystemTime,
    /// What it is told.
    pub orders: Arc<Orders>,
    /// The threads of all shards that wait for other machines.
    pub far: Pool,
    /// How messages are taken from their files.
    pub thresholds: Thresholds,
}

/// A shard that runs.
pub struct Running {
    thread: glommio::ExecutorJoinHandle<io::Result<()>>,
    pool: Pool,
}

impl Running {
    /// Waits for the shard's end, and for what its last sessions left to be done.
    ///
    /// # Errors
    ///
    /// Why it could not start, or why its ring failed.
    pub fn join(self) -> io::Result<()> {
        let ended = self.thread.join();
        self.pool.finish();
        ended.unwrap_or_else(|error| Err(io::Error::from(error)))
    }
}

/// Starts a shard on its CPU; `accepting` is called there once it accepts.
///
/// # Errors
///
/// What the executor says: memlock, descriptors, a CPU that is not ours.
pub fn start(plan: Plan, accepting: impl FnOnce() + Send + 'static) -> io::Result<Running> {
    // Before the shard is pinned: its threads are not.
    let pool = Pool::start(&format!("pool-{}", plan.number), limits::POOL_THREADS)?;
    let own = pool.clone();
    let pool = pool.with_far(&plan.far);
    let thread = LocalExecutorBuilder::new(Placement::Fixed(plan.cpu))
        .name(&format!("shard-{}", plan.number))
        // The ring beside glommio's moves the octets; glommio's own buffers
        // stay at their least.
        .io_memory(64 * 1024)
        .preempt_timer(limits::PREEMPTION)
        .spawn(move || {
            let counters = Arc::clone(&plan.ring);
            ring::run(counters, pool, |ring| run(ring, plan, accepting))
        })
        .map_err(io::Error::from)?;
    Ok(Running { thread, pool: own })
}

async fn run(ring: Ring, plan: Plan, accepting: impl FnOnce()) {
    let deadlines = Rc::new(Deadlines::new(Instant::now()));
    // Ends with the shard.
    let _turning = ring.spawn(turn(ring.clone(), Rc::clone(&deadlines)));
    let number = u16::try_from(plan.number).expect("shards are counted in CPUs");
    let context = Rc::new(conn::Context {
        shard: plan.number,
        ring: ring.clone(),
        deadlines,
        rules: plan.rules,
        write_stall: plan.write_stall,
        services: plan.services,
        tls: plan.tls,
        handshakes: Rc::default(),
        counters: plan.counters,
        names: RefCell::new(SessionIds::new(plan.started, number)),
        buffers: Buffers::default(),
        thresholds: plan.thresholds,
    });
    let roster = Rc::new(Roster::default());
    let passing = pass_on(ring.clone(), Rc::clone(&context), Rc::clone(&roster));
    // Ends with the shard.
    let _passing = ring.spawn(passing);
    for listener in plan.listeners {
        let serving = accept(Rc::clone(&context), Rc::clone(&roster), listener);
        ring.spawn(serving).detach();
    }
    accepting();
    ring.abroad(drain::obey(&plan.orders, &roster)).await;
}

/// Passes on what other sessions ask those of this shard, where they may.
async fn pass_on(ring: Ring, context: Rc<conn::Context>, roster: Rc<Roster>) {
    if let Some(takeover) = &context.services.takeover {
        let passing = drain::pass_on(takeover, context.shard, &roster);
        ring.abroad(passing).await;
    }
}

/// Turns the wheel of deadlines whenever one is due.
async fn turn(ring: Ring, deadlines: Rc<Deadlines>) {
    loop {
        let mut timer: Option<Sleep> = None;
        poll_fn(|context| {
            let Some(next) = deadlines.next(context) else {
                timer = None;
                return Poll::Pending;
            };
            let timer = match &mut timer {
                Some(timer) if timer.until() == next => timer,
                other => other.insert(ring.sleep_until(next)),
            };
            pin!(timer).poll(context)
        })
        .await;
        deadlines.advance(Instant::now());
    }
}

/// Accepts on one socket until the shard drains.
async fn accept(context: Rc<conn::Context>, roster: Rc<Roster>, listener: Listener) {
    let Listener {
        socket,
        address,
        tls,
    } = listener;
    let mut acceptor = context.ring.accept(Handle::new(socket));
    let mut said: Option<Instant> = None;
    loop {
        let accepted = {
            let mut next = pin!(acceptor.connection());
            poll_fn(|task| match roster.poll_phase(task) {
                Phase::Serving => next.as_mut().poll(task).map(Some),
                Phase::Draining | Phase::Closing => Poll::Ready(None),
            })
            .await
        };
        match accepted {
            None => return,
            Some(Ok(socket)) => welcome(&context, &roster, socket, address, tls),
            Some(Err(error)) => {
                let fault = classify(&error);
                context.counters.accept_error(fault);
                // Where the peer gave up, the next connection is as good as ever.
                // Otherwise it waits in the listen queue, and asking again at once
                // would only be told the same.
                if fault != AcceptError::Aborted {
                    context.counters.listener_backoff();
                    if said.is_none_or(|said| said.elapsed() >= limits::SHORTAGE_LINE) {
                        said = Some(Instant::now());
                        tracing::warn!(
                            "{address}: {error}; no connection is accepted for {} ms: raise the \
                             limit of open files (LimitNOFILE=), or add memory",
                            ACCEPT_BACKOFF.as_millis()
                        );
                    }
                    context.ring.sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }
}

/// How long a listener waits after the system had no descriptor or memory for a
/// connection: short enough for a client in its first retry, long enough to cost
/// nothing.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(200);

fn classify(error: &io::Error) -> AcceptError {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => AcceptError::Descriptors,
        Some(libc::ENOMEM | libc::ENOBUFS) => AcceptError::Memory,
        Some(libc::ECONNABORTED | libc::EPROTO | libc::ENOTCONN) => AcceptError::Aborted,
        _ => AcceptError::Other,
    }
}

/// Whether an address may have a connection more.
fn seat(context: &conn::Context, from: IpAddr) -> Result<Option<Seat>, Limit> {
    let rules = context.rules.get();
    if rules.exempts(from) {
        return Ok(None);
    }
    if rules.blocked.contains(from) {
        return Err(Limit::Blocked);
    }
    if rules.sessions.per_address == 0 {
        return Ok(None);
    }
    let admission = &context.services.admission;
    let seat = admission.connect(from, &rules.sessions, Instant::now());
    seat.map_err(|Full| Limit::Address)
}

/// Closes a connection that is not let in. It costs one call: whoever has too many is
/// told so in clear text, where that is spoken and the socket takes it at once; who is
/// blocked is told nothing.
fn turn_away(context: &conn::Context, socket: Handle, tls: TlsMode, limit: Limit) {
    if limit == Limit::Address && tls != TlsMode::Implicit {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        // It is a courtesy.
        let _ = rustix::net::send(&socket, TOO_MANY, flags);
    }
    context.ring.close(socket);
}

/// In place of a greeting.
const TOO_MANY: &[u8] = b"-ERR [SYS/TEMP] too many sessions from your address\r\n";

/// Starts the task of a new connection.
fn welcome(
    context: &Rc<conn::Context>,
    roster: &Rc<Roster>,
    socket: Handle,
    address: SocketAddr,
    tls: TlsMode,
) {
    // A peer that is gone already has no name.
    let peer = rustix::net::getpeername(&socket).ok().flatten();
    let Some(remote) = peer.and_then(|peer| SocketAddr::try_from(peer).ok()) else {
        context.counters.accept_error(AcceptError::Aborted);
        context.ring.close(socket);
        return;
    };
    let local = if address.ip().is_unspecified() {
        let own = rustix::net::getsockname(&socket).map(SocketAddr::try_from);
        own.ok().and_then(Result::ok).unwrap_or(address)
    } else {
        address
    };
    let seat = match seat(context, remote.ip()) {
        Ok(seat) => seat,
        Err(limit) => {
            context.counters.limit(limit);
            turn_away(context, socket, tls, limit);
            return;
        }
    };
    let alarm = Alarm::new(&context.deadlines);
    let entry = Roster::enter(roster, alarm.watch());
    let accepted = Accepted {
        socket,
        remote,
        local,
        tls,
        alarm,
        seat,
    };
    let serving = conn::serve(Rc::clone(context), accepted, entry);
    context.ring.spawn(serving).detach();
}

#[cfg(test)]
mod tests;
