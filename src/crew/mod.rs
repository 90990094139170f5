//! Threads that do one kind of work from one queue.
//!
//! A queue without a bound is a crossbeam channel. One with a bound is a [`Line`], in
//! which origins take turns: where there may be too many jobs it matters whose.
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

mod line;
mod sleepers;

use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam::channel::{self, Receiver, Sender};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

use self::line::Line;
pub(crate) use self::line::{Lines, Queued};
use self::sleepers::Sleepers;

/// The threads of one queue.
pub(crate) struct Crew<J> {
    queue: Queue<J>,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    sleepers: Sleepers,
    stopping: AtomicBool,
}

/// Where jobs are put.
enum Queue<J> {
    Channel(Sender<J>),
    Line(Arc<Line<J>>, fn(&J) -> u64, Displaced<J>),
}

/// Where a thread takes them from.
enum Jobs<J> {
    Channel(Receiver<J>),
    Line(Arc<Line<J>>),
}

/// What becomes of a job that waited and has to make room for that of another origin.
type Displaced<J> = Box<dyn Fn(J) + Send + Sync>;

/// In which order jobs are done.
pub(crate) enum Order<J> {
    /// As they come, and as many as come.
    AsTheyCome,
    /// One of each origin in turn.
    InTurn {
        /// How many may wait.
        bound: usize,
        /// Where a job is from.
        origin: fn(&J) -> u64,
        /// Told of a job that waited and makes room for that of another origin.
        displaced: Displaced<J>,
    },
}

/// What a crew's threads are to the others of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// As any.
    Ordinary,
    /// They run when no other thread wants the CPU, and leave it at once to one that
    /// does (`SCHED_IDLE`, sched(7)). They must hold nothing that others wait for.
    Background,
}

/// How a crew is made.
pub(crate) struct Plan<J> {
    /// The threads' name, to which their number is added.
    pub(crate) name: String,
    /// How many there are.
    pub(crate) threads: NonZeroUsize,
    /// The CPU they are pinned to, if they are.
    pub(crate) cpu: Option<usize>,
    /// Which job is next.
    pub(crate) order: Order<J>,
    /// When the threads run.
    pub(crate) class: Class,
}

impl<J: Send + 'static> Crew<J> {
    pub(crate) fn start(
        plan: Plan<J>,
        work: impl Fn(J) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (queue, jobs) = match plan.order {
            Order::AsTheyCome => {
                let (queue, jobs) = channel::unbounded();
                (Queue::Channel(queue), Jobs::Channel(jobs))
            }
            Order::InTurn {
                bound,
                origin,
                displaced,
            } => {
                let line = Arc::new(Line::new(bound));
                let queue = Queue::Line(Arc::clone(&line), origin, displaced);
                (queue, Jobs::Line(line))
            }
        };
        let crew = Self {
            queue,
            shared: Arc::default(),
            threads: Mutex::default(),
        };
        let work = Arc::new(work);
        for number in 0..plan.threads.get() {
            let (jobs, shared) = (jobs.clone(), Arc::clone(&crew.shared));
            let (work, cpu, class) = (Arc::clone(&work), plan.cpu, plan.class);
            // On an error the threads that did start end with the crew.
            let thread = thread::Builder::new()
                .name(format!("{}-{number}", plan.name))
                .spawn(move || {
                    if let Some(cpu) = cpu {
                        pin(cpu);
                    }
                    if class == Class::Background {
                        recede();
                    }
                    shared.run(&jobs, &*work);
                })?;
            crew.lock_threads().push(thread);
        }
        Ok(crew)
    }

    /// Queues a job; gives it back if there is no room for it. Never waits. After
    /// [`Crew::stop`] the job is dropped.
    pub(crate) fn queue(&self, job: J) -> Result<(), J> {
        match &self.queue {
            // Whether somebody still works: the job is dropped where nobody does.
            Queue::Channel(queue) => drop(queue.send(job)),
            Queue::Line(line, origin, displaced) => match line.queue(origin(&job), job) {
                Queued::Waits => {}
                Queued::InPlaceOf(other) => displaced(other),
                Queued::Refused(job) => return Err(job),
                Queued::Closed(job) => {
                    drop(job);
                    return Ok(());
                }
            },
        }
        self.shared.sleepers.wake_one();
        Ok(())
    }

    /// Jobs that wait.
    pub(crate) fn len(&self) -> usize {
        match &self.queue {
            Queue::Channel(queue) => queue.len(),
            Queue::Line(line, ..) => line.len(),
        }
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

impl<J> Clone for Jobs<J> {
    fn clone(&self) -> Self {
        match self {
            Self::Channel(jobs) => Self::Channel(jobs.clone()),
            Self::Line(line) => Self::Line(Arc::clone(line)),
        }
    }
}

impl<J> Jobs<J> {
    fn take(&self) -> Option<J> {
        match self {
            Self::Channel(jobs) => jobs.try_recv().ok(),
            Self::Line(line) => line.take(),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Channel(jobs) => jobs.is_empty(),
            Self::Line(line) => line.len() == 0,
        }
    }

    /// Whether there is none, and none will come that anybody waits for: a channel
    /// drops what is sent when its last receiver has gone.
    fn are_over(&self) -> bool {
        match self {
            Self::Channel(jobs) => jobs.is_empty(),
            Self::Line(line) => line.close_if_empty(),
        }
    }
}

impl Shared {
    fn run<J>(&self, jobs: &Jobs<J>, work: &impl Fn(J)) {
        loop {
            if let Some(job) = jobs.take() {
                work(job);
            } else if !self.stopping.load(Ordering::SeqCst) {
                self.sleepers
                    .sleep_unless(|| !jobs.is_empty() || self.stopping.load(Ordering::SeqCst));
            } else if jobs.are_over() {
                // The flag is set before the threads are woken: whatever was queued
                // before it is seen by this check of the queue after it.
                return;
            }
        }
    }
}

/// Has the calling thread run only when no other one wants to. Where that fails (a
/// seccomp profile forbids it) it runs as the others do.
pub(crate) fn recede() {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
}

/// Pins the calling thread. Where that fails (the CPU was taken from the process
/// meanwhile) the thread runs where the kernel puts it, a little dearer.
fn pin(cpu: usize) {
    let mut cpus = rustix::thread::CpuSet::new();
    cpus.set(cpu);
    let _ = rustix::thread::sched_setaffinity(None, &cpus);
}
