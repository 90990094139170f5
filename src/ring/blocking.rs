//! Work that waits on a disk, done by threads beside the shard.

use std::any::Any;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use futures_channel::oneshot;

use super::Ring;
use crate::crew::{Crew, Plan};

type Job = Box<dyn FnOnce() + Send>;

/// The threads of one shard that may wait. They end when the last clone is
/// dropped.
#[derive(Clone)]
pub struct Pool(Arc<Crew<Job>>);

impl Pool {
    /// Starts that many threads. They run on the CPUs of the calling thread, so
    /// this is done before that thread is pinned.
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
            bound: None,
        };
        Ok(Pool(Arc::new(Crew::start(&plan, |job: Job| job())?)))
    }

    /// Does what is queued and ends the threads. BLOCKING: not on the shard.
    pub fn finish(&self) {
        self.0.stop();
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
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let (reply, answer) = oneshot::channel::<Result<T, Box<dyn Any + Send>>>();
        let job = move || {
            // Who asked may be gone.
            let _ = reply.send(catch_unwind(AssertUnwindSafe(work)));
        };
        let queued = self.shared.pool.0.queue(Box::new(job));
        assert!(queued.is_ok(), "the queue has no bound");
        match self.abroad(answer).await {
            Ok(Ok(output)) => output,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(oneshot::Canceled) => unreachable!("a pool that a ring has goes on"),
        }
    }

    /// The same where nobody waits for what it gives.
    pub fn detached(&self, work: impl FnOnce() + Send + 'static) {
        // A panic has been told of by then, and is no reason to end the thread.
        let job = move || drop(catch_unwind(AssertUnwindSafe(work)));
        let queued = self.shared.pool.0.queue(Box::new(job));
        assert!(queued.is_ok(), "the queue has no bound");
    }
}
