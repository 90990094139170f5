//! Work that waits on a disk, done by threads beside the shard.
//!
//! There are two kinds of threads, because there are two kinds of waiting. A disk of
//! this machine answers in milliseconds, and a few threads of the shard's own do all
//! there is to do on it. A file system behind a network, or one that nobody knows yet,
//! may take seconds for everything, and whoever waits for it must not stand before
//! those who do not: it has threads of its own, for all shards together.

use std::any::Any;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use futures_channel::oneshot;

use super::Ring;
use crate::crew::{Class, Crew, Order, Plan};

type Job = Box<dyn FnOnce() + Send>;

/// Whom work waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A disk of this machine.
    Local,
    /// Another machine, or nobody knows.
    Far,
}

/// The threads of one shard that may wait. They end when the last clone is
/// dropped.
#[derive(Clone)]
pub struct Pool {
    local: Arc<Crew<Job>>,
    far: Arc<Crew<Job>>,
}

impl Pool {
    /// Starts that many threads, for work of all kinds. They run on the CPUs of the
    /// calling thread, so this is done before that thread is pinned.
    ///
    /// # Errors
    ///
    /// What the system says when it has no thread for us.
    pub fn start(name: &str, threads: NonZeroUsize) -> io::Result<Pool> {
        let plan = Plan {
            name: name.into(),
            threads,
            cpu: None,
            // One for each session at most, and there it ends.
            order: Order::AsTheyCome,
            class: Class::Ordinary,
        };
        let crew = Arc::new(Crew::start(plan, |job: Job| job())?);
        let far = Arc::clone(&crew);
        Ok(Pool { local: crew, far })
    }

    /// The same, with what waits for other machines left to the threads of `far`.
    #[must_use]
    pub fn with_far(self, far: &Pool) -> Pool {
        let far = Arc::clone(&far.local);
        Pool { far, ..self }
    }

    fn queue(&self, place: Place, job: Job) {
        let crew = match place {
            Place::Local => &self.local,
            Place::Far => &self.far,
        };
        assert!(crew.queue(job).is_ok(), "the queue has no bound");
    }

    /// Does what is queued for its own threads and ends them; those of `far` are not
    /// its own. BLOCKING: not on the shard.
    pub fn finish(&self) {
        self.local.stop();
    }
}

impl Ring {
    /// Runs `work` on a thread of the shard's pool and resolves to what it gave. For
    /// what the ring has no operation for: listing a directory, and removals, of
    /// which one trip to a thread does a whole session's.
    ///
    /// # Panics
    ///
    /// As `work` does.
    pub async fn blocking<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let (reply, answer) = oneshot::channel::<Result<T, Box<dyn Any + Send>>>();
        let job = move || {
            // Who asked may be gone.
            let _ = reply.send(catch_unwind(AssertUnwindSafe(work)));
        };
        self.shared.pool.queue(place, Box::new(job));
        match self.abroad(answer).await {
            Ok(Ok(output)) => output,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(oneshot::Canceled) => unreachable!("a pool that a ring has goes on"),
        }
    }

    /// The same where nobody waits for what it gives.
    pub fn detached(&self, place: Place, work: impl FnOnce() + Send + 'static) {
        // A panic has been told of by then, and is no reason to end the thread.
        let job = move || drop(catch_unwind(AssertUnwindSafe(work)));
        self.shared.pool.queue(place, Box::new(job));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn work_on_far_places_does_not_stand_before_the_near() {
        let start = |name| Pool::start(name, NonZeroUsize::MIN).expect("a thread");
        let pool = start("near").with_far(&start("far"));
        let (go, wait) = mpsc::channel::<()>();
        let (done, near) = mpsc::channel();
        let far_done = done.clone();
        pool.queue(
            Place::Far,
            Box::new(move || {
                wait.recv().expect("the test lets it go");
                far_done.send(Place::Far).expect("awaited");
            }),
        );
        let work = move || done.send(Place::Local).expect("awaited");
        pool.queue(Place::Local, Box::new(work));
        let patience = Duration::from_mins(1);
        assert_eq!(near.recv_timeout(patience), Ok(Place::Local));
        go.send(()).expect("it waits");
        assert_eq!(near.recv_timeout(patience), Ok(Place::Far));
    }
}
