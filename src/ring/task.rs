//! Tasks of a shard, and how the driver knows that none of them is ready.
//!
//! glommio does not say whether a task is ready, so the tasks say when they run:
//! each poll counts. The executor's queue is first in, first out. A driver that
//! puts itself at its end and comes round without a poll in between therefore knows
//! that the queue was empty, and as nothing but a task, the driver and the kernel
//! wakes tasks here (other threads go by the `bell`), that nobody will be ready
//! before the kernel has something.
//!
//! **So every task of a shard must be spawned by [`Ring::spawn`]**: one that does
//! not count may be slept upon. The end of a task counts too, for its destructors
//! may wake others.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::{Counters, Pool, Ring, Sizes};

pin_project! {
    /// A future whose polls count.
    struct Counted<F> {
        ring: Ring,
        #[pin]
        future: F,
    }

    impl<F> PinnedDrop for Counted<F> {
        fn drop(this: Pin<&mut Self>) {
            this.ring.count_poll();
        }
    }
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.ring.count_poll();
        this.future.poll(context)
    }
}

/// A task that runs. Dropped, it ends; [detach](glommio::Task::detach) lets it go on.
pub type Task<T> = glommio::Task<T>;

impl Ring {
    /// Starts a task on the shard.
    pub fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Task<T> {
        glommio::spawn_local(Counted {
            ring: self.clone(),
            future,
        })
    }

    fn count_poll(&self) {
        let polls = &self.shared.polls;
        polls.set(polls.get() + 1);
    }
}

/// Makes the ring of the calling executor, which must be a new one, and runs `body`
/// on it to its end.
///
/// # Errors
///
/// Whatever `io_uring_setup(2)` or the registrations say, which
/// [`probe`](super::probe) turns into causes and remedies before any shard starts;
/// and what `io_uring_enter(2)` says later where the shard cannot go on.
pub async fn run<T: 'static, F: Future<Output = T> + 'static>(
    counters: Arc<Counters>,
    pool: Pool,
    body: impl FnOnce(Ring) -> F,
) -> io::Result<T> {
    run_with(counters, pool, &Sizes::default(), body).await
}

pub(super) async fn run_with<T: 'static, F: Future<Output = T> + 'static>(
    counters: Arc<Counters>,
    pool: Pool,
    sizes: &Sizes,
    body: impl FnOnce(Ring) -> F,
) -> io::Result<T> {
    let ring = Ring::with_sizes(counters, pool, sizes)?;
    let last = ring.clone();
    let mut body = ring.spawn(body(ring.clone()));
    // Neither this future nor the driver counts; neither is waited for by the
    // driver's sleep, since both are at their ends when they wake one another.
    let mut driver = glommio::spawn_local(ring.drive());
    let result = std::future::poll_fn(|context| {
        if let Poll::Ready(output) = Pin::new(&mut body).poll(context) {
            return Poll::Ready(Ok(output));
        }
        let Poll::Ready(error) = Pin::new(&mut driver).poll(context) else {
            return Poll::Pending;
        };
        Poll::Ready(Err(error))
    })
    .await;
    driver.cancel().await;
    last.let_go();
    result
}
