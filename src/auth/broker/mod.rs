//! The threads that look users up and verify passwords, and the queue before
//! them.
//!
//! One bounded crossbeam channel feeds all threads. A thread that finds it empty
//! puts itself on a stack of sleepers, looks once more, and parks; whoever queues
//! a request takes the topmost sleeper, the one with the warmest caches, and
//! unparks it. A thread that has answered looks into the queue before it sleeps,
//! so under load nobody sleeps and nobody is woken.
//!
//! The channel's own blocking receive was the other way. It spins and yields
//! before it sleeps: of logins that find every thread asleep, each cost 51 to 102
//! us of the process's time with it and 33 to 38 us so (benches/broker.rs,
//! `paced`, in turns on a busy two-core machine, the generator's own sleep
//! included); of logins that come at once, the two cost the same 2 us.
//!
//! No wake-up is lost: the sleeper writes the count of sleepers and then reads
//! the queue, the other side writes the queue and then reads the count, with a
//! sequentially consistent fence between on both sides; one of the two sees the
//! other.
//!
//! A request whose [`Pending`] is gone (the client has left) is skipped before
//! anything is looked up. When the broker stops, what is queued is answered
//! first; what comes later is answered [`Refusal::Unavailable`].

mod sleepers;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};

use crossbeam::channel::{self, Receiver, Sender, TryRecvError, TrySendError};
use futures_channel::oneshot;

use self::sleepers::Sleepers;
use super::directory::{Directory, LoadReport};
use super::judge::Judge;
use super::passwd_file::PasswdFile;
use super::{Account, Credentials, DirectoryError, DirectoryKind, Options, Refusal, Verifier};
use crate::limits;

/// The process's auth threads. Shared by all shards behind an `Arc`.
pub struct Broker {
    queue: Sender<Request>,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// The answer to a login, once there is one. Dropping it withdraws the request.
#[derive(Debug)]
#[must_use = "dropping it withdraws the request"]
pub struct Pending(oneshot::Receiver<Answer>);

/// [`limits::AUTH_QUEUE`] logins wait already: `[SYS/TEMP]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull;

/// What has become of logins since the start. Read with relaxed order.
#[derive(Debug, Default)]
pub struct Counters {
    /// Logins that succeeded.
    pub verified: AtomicU64,
    /// Logins that were [`Refusal::Rejected`] or [`Refusal::Disabled`].
    pub refused: AtomicU64,
    /// Logins that were [`Refusal::Unavailable`].
    pub unavailable: AtomicU64,
    /// Requests that nobody awaited any more.
    pub skipped: AtomicU64,
    /// Logins that were not queued because the queue was full.
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
    from: IpAddr,
    reply: oneshot::Sender<Answer>,
}

struct Shared {
    judge: Judge,
    counters: Counters,
    sleepers: Sleepers,
    stopping: AtomicBool,
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
        Self::with(judge, options.threads, limits::AUTH_QUEUE).map_err(StartError::Thread)
    }

    fn with(judge: Judge, threads: NonZeroUsize, bound: usize) -> io::Result<Self> {
        let (queue, requests) = channel::bounded(bound);
        let shared = Arc::new(Shared {
            judge,
            counters: Counters::default(),
            sleepers: Sleepers::default(),
            stopping: AtomicBool::new(false),
        });
        let broker = Self {
            queue,
            shared,
            threads: Mutex::default(),
        };
        for number in 0..threads.get() {
            let (requests, shared) = (requests.clone(), Arc::clone(&broker.shared));
            // On an error the threads that did start end with the broker.
            let thread = thread::Builder::new()
                .name(format!("auth-{number}"))
                .spawn(move || shared.work(&requests))?;
            broker.lock_threads().push(thread);
        }
        Ok(broker)
    }

    /// Queues a login of a client at the address `from`. Never waits.
    pub fn authenticate(
        &self,
        credentials: Credentials,
        from: IpAddr,
    ) -> Result<Pending, QueueFull> {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            credentials,
            from,
            reply,
        };
        match self.queue.try_send(request) {
            Ok(()) => self.shared.sleepers.wake_one(),
            Err(TrySendError::Full(_)) => {
                let counter = &self.shared.counters.rejected_full;
                counter.fetch_add(1, Ordering::Relaxed);
                return Err(QueueFull);
            }
            // The broker has stopped; the answer says so.
            Err(TrySendError::Disconnected(_)) => {}
        }
        Ok(Pending(answer))
    }

    /// Reads every directory again, in the calling thread, which must not be a
    /// shard. Logins go on meanwhile. A directory that cannot be read keeps the
    /// users it had. Returns, and tells the log, how it went, in the order of the
    /// directories.
    pub fn reload(&self) -> Vec<Result<LoadReport, DirectoryError>> {
        let reloads = self.shared.judge.reload();
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

    /// Logins that wait for a thread now.
    pub fn queue_length(&self) -> usize {
        self.queue.len()
    }

    /// Answers what is queued and ends the threads; blocks until they have
    /// ended. Later logins are answered [`Refusal::Unavailable`]. A second call
    /// does nothing.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.sleepers.wake_all();
        let threads = std::mem::take(&mut *self.lock_threads());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("an auth thread had ended in a panic; please report it");
            }
        }
    }

    fn lock_threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        let threads = self.threads.lock();
        threads.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn work(&self, requests: &Receiver<Request>) {
        loop {
            match requests.try_recv() {
                Ok(request) => self.answer(request),
                Err(TryRecvError::Disconnected) => return,
                // The flag is set before the threads are woken: whatever was
                // queued before it is seen by the check of the queue after it.
                Err(TryRecvError::Empty) if self.stopping.load(Ordering::SeqCst) => {
                    if requests.is_empty() {
                        return;
                    }
                }
                Err(TryRecvError::Empty) => self
                    .sleepers
                    .sleep_unless(|| !requests.is_empty() || self.stopping.load(Ordering::SeqCst)),
            }
        }
    }

    fn answer(&self, request: Request) {
        if request.reply.is_canceled() {
            self.counters.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Request {
            credentials,
            from,
            reply,
        } = request;
        let answer = self.judge.judge(credentials, from, Verifier::verify);
        let counter = match &answer {
            Ok(_) => &self.counters.verified,
            Err(Refusal::Rejected | Refusal::Disabled(_)) => &self.counters.refused,
            Err(Refusal::Unavailable) => &self.counters.unavailable,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        // The client may have left while its password was verified.
        let _ = reply.send(answer);
    }
}

impl Future for Pending {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let answer = Pin::new(&mut self.0).poll(cx);
        // A request that was dropped unanswered: the broker has stopped.
        answer.map(|answer| answer.unwrap_or(Err(Refusal::Unavailable)))
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
