//! Threads that do one kind of work from one queue.
//!
//! The channel's blocking receive is not used: it spins before it sleeps, which
//! costs more than a login with a plain password does. Instead a thread that
//! finds the queue empty puts itself on a stack of [`Sleepers`], looks once more,
//! and parks; whoever queues work takes the topmost sleeper, the one with the
//! warmest caches, and unparks it. A thread that has finished looks into the
//! queue before it sleeps, so under load nobody sleeps and nobody is woken.
//!
//! No wake-up is lost: the sleeper writes the count of sleepers and then reads
//! the queue, the other side writes the queue and then reads the count, with a
//! sequentially consistent fence between on both sides; one of the two sees the
//! other.

mod sleepers;

use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam::channel::{self, Receiver, Sender, TryRecvError, TrySendError};

use self::sleepers::Sleepers;

/// The threads of one queue.
pub(crate) struct Crew<J> {
    queue: Sender<J>,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    sleepers: Sleepers,
    stopping: AtomicBool,
}

/// How a crew is made.
pub(crate) struct Plan {
    /// The threads' name, to which their number is added.
    pub(crate) name: String,
    /// How many there are.
    pub(crate) threads: NonZeroUsize,
    /// The CPU they are pinned to, if they are.
    pub(crate) cpu: Option<usize>,
    /// How many jobs may wait; as many as come, where it is not said.
    pub(crate) bound: Option<usize>,
}

impl<J: Send + 'static> Crew<J> {
    pub(crate) fn start(plan: &Plan, work: impl Fn(J) + Send + Sync + 'static) -> io::Result<Self> {
        let (queue, jobs) = plan.bound.map_or_else(channel::unbounded, channel::bounded);
        let crew = Self {
            queue,
            shared: Arc::default(),
            threads: Mutex::default(),
        };
        let work = Arc::new(work);
        for number in 0..plan.threads.get() {
            let (jobs, shared) = (jobs.clone(), Arc::clone(&crew.shared));
            let (work, cpu) = (Arc::clone(&work), plan.cpu);
            // On an error the threads that did start end with the crew.
            let thread = thread::Builder::new()
                .name(format!("{}-{number}", plan.name))
                .spawn(move || {
                    if let Some(cpu) = cpu {
                        pin(cpu);
                    }
                    shared.run(&jobs, &*work);
                })?;
            crew.lock_threads().push(thread);
        }
        Ok(crew)
    }

    /// Queues a job; gives it back if the queue is full. Never waits. After
    /// [`Crew::stop`] the job is dropped.
    pub(crate) fn queue(&self, job: J) -> Result<(), J> {
        match self.queue.try_send(job) {
            Ok(()) => {
                self.shared.sleepers.wake_one();
                Ok(())
            }
            Err(TrySendError::Full(job)) => Err(job),
            Err(TrySendError::Disconnected(_)) => Ok(()),
        }
    }

    /// Jobs that wait.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Does what is queued and ends the threads; blocks until they have ended. A
    /// second call does nothing.
    pub(crate) fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.sleepers.wake_all();
        let threads = std::mem::take(&mut *self.lock_threads());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread had ended in a panic; please report it");
            }
        }
    }

    fn lock_threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        let threads = self.threads.lock();
        threads.unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> Drop for Crew<J> {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.sleepers.wake_all();
    }
}

impl Shared {
    fn run<J>(&self, jobs: &Receiver<J>, work: &impl Fn(J)) {
        loop {
            match jobs.try_recv() {
                Ok(job) => work(job),
                Err(TryRecvError::Disconnected) => return,
                // The flag is set before the threads are woken: whatever was
                // queued before it is seen by the check of the queue after it.
                Err(TryRecvError::Empty) if self.stopping.load(Ordering::SeqCst) => {
                    if jobs.is_empty() {
                        return;
                    }
                }
                Err(TryRecvError::Empty) => self
                    .sleepers
                    .sleep_unless(|| !jobs.is_empty() || self.stopping.load(Ordering::SeqCst)),
            }
        }
    }
}

/// Pins the calling thread. Where that fails (the CPU was taken from the process
/// meanwhile) the thread runs where the kernel puts it, a little dearer.
fn pin(cpu: usize) {
    let mut cpus = rustix::thread::CpuSet::new();
    cpus.set(cpu);
    let _ = rustix::thread::sched_setaffinity(None, &cpus);
}
