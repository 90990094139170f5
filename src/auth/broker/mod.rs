//! The threads that look users up and verify passwords, and the queues before
//! them.
//!
//! Each shard has a desk: one thread on the shard's own CPU, behind a bounded
//! crossbeam channel, which looks the name up and verifies what costs a
//! microsecond. A password whose verification is made to be slow goes on to the
//! hashers, which are shared by all shards and run wherever there is room.
//!
//! Why a desk of its own and on the same CPU: a shard that hands a login to a
//! thread on another core interrupts that core, and is interrupted in turn by the
//! answer. On a machine of two cores that made a poll session a third dearer with
//! two shards than with one. On its own core the desk runs when the shard has
//! nothing else to do, finds all logins of that turn at once, and wakes the shard
//! once. A desk that hashed would hold its shard up for tens of milliseconds;
//! that is what the hashers are for.
//!
//! A login that was good a moment ago is answered from the [`LoginCache`] and is
//! never queued: most logins of a server are polls of clients that it knows.
//!
//! A request whose [`Pending`] is gone (the connection was closed) is skipped before
//! anything is looked up or hashed. When the broker stops, what is queued is
//! answered first; what comes later is answered [`Refusal::Unavailable`].

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_channel::oneshot;

use super::cache::{Fingerprint, Generation, LoginCache};
use super::directory::{Directory, LoadReport};
use super::judge::{Case, Judge};
use super::passwd_file::PasswdFile;
use super::{Account, Credentials, DirectoryError, DirectoryKind, Options, Refusal, Verifier};
use crate::crew::{Crew, Plan};
use crate::limits;

/// The process's auth threads. Shared by all shards behind an `Arc`.
pub struct Broker {
    /// One for each shard; they end before the hashers do.
    desks: Vec<Crew<Request>>,
    hashers: Arc<Crew<Hearing>>,
    shared: Arc<Shared>,
}

/// The answer to a login, once there is one. Dropping it withdraws the request.
#[derive(Debug)]
#[must_use = "dropping it withdraws the request"]
pub struct Pending(Wait);

#[derive(Debug)]
enum Wait {
    /// Taken when it has been told.
    Known(Option<Account>),
    Queued(oneshot::Receiver<Answer>),
}

/// [`limits::AUTH_QUEUE`] logins wait at this desk already: `[SYS/TEMP]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull;

/// What has become of logins since the start. Read with relaxed order.
#[derive(Debug, Default)]
pub struct Counters {
    /// Logins whose password was verified and that succeeded.
    pub verified: AtomicU64,
    /// Logins that were [`Refusal::Rejected`] or [`Refusal::Disabled`].
    pub refused: AtomicU64,
    /// Logins that were [`Refusal::Unavailable`].
    pub unavailable: AtomicU64,
    /// Requests that nobody awaited any more.
    pub skipped: AtomicU64,
    /// Logins that were not queued because a queue, that of a desk or that of
    /// the hashers, was full.
    pub rejected_full: AtomicU64,
}

/// Why the auth threads cannot be started.
#[derive(Debug)]
pub enum StartError {
    /// No directory is configured, so nobody could log in.
    NoDirectory,
    /// A directory cannot be read.
    Directory(DirectoryError),
    /// A thread cannot be started.
    Thread(io::Error),
}

type Answer = Result<Account, Refusal>;

struct Request {
    credentials: Credentials,
    fingerprint: Fingerprint,
    from: IpAddr,
    reply: oneshot::Sender<Answer>,
}

/// A login whose password is to be verified, and who waits for the outcome.
struct Hearing {
    case: Case,
    fingerprint: Fingerprint,
    /// Of the directories, before the name was looked up.
    generation: Generation,
    reply: oneshot::Sender<Answer>,
}

struct Shared {
    judge: Judge,
    cache: LoginCache,
    counters: Counters,
}

impl Broker {
    /// Loads the directories, tells their faults to the log, and starts the
    /// threads.
    pub fn start(options: &Options) -> Result<Self, StartError> {
        if options.directories.is_empty() {
            return Err(StartError::NoDirectory);
        }
        let mut directories: Vec<Box<dyn Directory>> = Vec::new();
        for directory in &options.directories {
            let DirectoryKind::PasswdFile { path } = &directory.kind;
            let (file, report) = PasswdFile::open(path).map_err(StartError::Directory)?;
            log(&report);
            directories.push(Box::new(file));
        }
        let judge = Judge::new(directories);
        let bound = limits::AUTH_QUEUE;
        let one = NonZeroUsize::MIN;
        Self::with(judge, &options.desks, one, options.threads, bound).map_err(StartError::Thread)
    }

    fn with(
        judge: Judge,
        desks: &[Option<usize>],
        threads_a_desk: NonZeroUsize,
        hashers: NonZeroUsize,
        bound: usize,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            judge,
            cache: LoginCache::new(),
            counters: Counters::default(),
        });
        let own = Arc::clone(&shared);
        let plan = Plan {
            name: "hasher".into(),
            threads: hashers,
            cpu: None,
            bound: Some(bound),
        };
        let hashers = Arc::new(Crew::start(&plan, move |slow| own.hash(slow))?);
        let desk = |(number, cpu): (usize, &Option<usize>)| {
            let plan = Plan {
                name: format!("desk-{number}"),
                threads: threads_a_desk,
                cpu: *cpu,
                bound: Some(bound),
            };
            let (own, hashers) = (Arc::clone(&shared), Arc::clone(&hashers));
            Crew::start(&plan, move |request| own.receive(request, &hashers))
        };
        let desks = desks.iter().enumerate().map(desk);
        Ok(Self {
            desks: desks.collect::<io::Result<_>>()?,
            hashers,
            shared,
        })
    }

    /// Answers a login of a client at the address `from` that was good before, or
    /// queues it at a shard's desk. Never waits.
    pub fn authenticate(
        &self,
        shard: usize,
        credentials: Credentials,
        from: IpAddr,
    ) -> Result<Pending, QueueFull> {
        let cache = &self.shared.cache;
        let fingerprint = cache.fingerprint(&credentials);
        if let Some(account) = cache.get(&credentials.user, &fingerprint, from) {
            return Ok(Pending(Wait::Known(Some(account))));
        }
        let (reply, answer) = oneshot::channel();
        let request = Request {
            credentials,
            fingerprint,
            from,
            reply,
        };
        if self.desks[shard].queue(request).is_err() {
            let counter = &self.shared.counters.rejected_full;
            counter.fetch_add(1, Ordering::Relaxed);
            return Err(QueueFull);
        }
        Ok(Pending(Wait::Queued(answer)))
    }

    /// Reads every directory again, in the calling thread, which must not be a
    /// shard. Logins go on meanwhile. A directory that cannot be read keeps the
    /// users it had. Returns, and tells the log, how it went, in the order of the
    /// directories.
    pub fn reload(&self) -> Vec<Result<LoadReport, DirectoryError>> {
        let reloads = self.shared.judge.reload();
        self.shared.cache.invalidate();
        for reload in &reloads {
            match reload {
                Ok(report) => log(report),
                Err(error) => tracing::error!("the users loaded before stay in force: {error}"),
            }
        }
        reloads
    }

    /// What has become of logins since the start.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Logins that were answered without a thread, because they were good before.
    pub fn known(&self) -> u64 {
        self.shared.cache.hits()
    }

    /// Logins that wait for a thread now.
    pub fn queue_length(&self) -> usize {
        let desks: usize = self.desks.iter().map(Crew::len).sum();
        desks + self.hashers.len()
    }

    /// Answers what is queued and ends the threads; blocks until they have
    /// ended. Later logins are answered [`Refusal::Unavailable`]. A second call
    /// does nothing.
    pub fn stop(&self) {
        self.desks.iter().for_each(Crew::stop);
        self.hashers.stop();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// The work of a desk.
    fn receive(&self, request: Request, hashers: &Crew<Hearing>) {
        let Request {
            credentials,
            fingerprint,
            from,
            reply,
        } = request;
        if reply.is_canceled() {
            self.counters.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let generation = self.cache.generation();
        let hearing = Hearing {
            case: self.judge.hear(credentials, from),
            fingerprint,
            generation,
            reply,
        };
        if !hearing.case.is_slow() {
            self.answer(hearing);
        } else if let Err(Hearing { reply, .. }) = hashers.queue(hearing) {
            let counter = &self.counters.rejected_full;
            counter.fetch_add(1, Ordering::Relaxed);
            let _ = reply.send(Err(Refusal::Busy));
        }
    }

    /// The work of a hasher.
    fn hash(&self, hearing: Hearing) {
        if hearing.reply.is_canceled() {
            self.counters.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.answer(hearing);
    }

    fn answer(&self, hearing: Hearing) {
        let Hearing {
            case,
            fingerprint,
            generation,
            reply,
        } = hearing;
        let answer = case.decide(Verifier::verify).map(|admission| {
            let account = admission.account.clone();
            self.cache.put(fingerprint, generation, admission);
            account
        });
        let counter = match &answer {
            Ok(_) => &self.counters.verified,
            Err(Refusal::Rejected | Refusal::Disabled(_)) => &self.counters.refused,
            Err(Refusal::Unavailable | Refusal::Busy) => &self.counters.unavailable,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        // The client may have left while its password was verified.
        let _ = reply.send(answer);
    }
}

impl Future for Pending {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        match &mut self.0 {
            Wait::Known(account) => Poll::Ready(Ok(account.take().expect("told once"))),
            Wait::Queued(answer) => {
                let answer = Pin::new(answer).poll(cx);
                // A request that was dropped unanswered: the broker has stopped.
                answer.map(|answer| answer.unwrap_or(Err(Refusal::Unavailable)))
            }
        }
    }
}

/// Tells the log what was loaded.
fn log(report: &LoadReport) {
    for fault in &report.faults {
        tracing::warn!("{fault}");
    }
    let untold = report.fault_count - report.faults.len();
    if untold > 0 {
        tracing::warn!("{untold} further faults of this kind are not told");
    }
    let LoadReport { users, locked, .. } = report;
    tracing::info!(users, locked, memory = report.memory, "directory loaded");
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("queue_length", &self.queue_length())
            .field("counters", self.counters())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for QueueFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many logins wait already")
    }
}

impl std::error::Error for QueueFull {}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDirectory => {
                f.write_str("nobody could log in: add an [[auth.directory]] to the configuration")
            }
            Self::Directory(error) => write!(f, "the users cannot be loaded: {error}"),
            Self::Thread(error) => write!(
                f,
                "an auth thread cannot be started: {error}; raise the limit of threads \
                 (ulimit -u, TasksMax=, pids.max)"
            ),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoDirectory => None,
            Self::Directory(error) => Some(error),
            Self::Thread(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests;
