//! The task that turns the ring.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{Ordering, fence};
use std::task::{Poll, Waker};

use super::Ring;
use super::sleeper::Sleeper;
use crate::limits;

impl Ring {
    /// Turns the ring for as long as its shard lives. Runs as one task of the
    /// shard's executor and ends only with an error.
    ///
    /// # Errors
    ///
    /// What `io_uring_enter(2)` says where waiting would not help; the shard
    /// cannot go on then.
    pub async fn drive(self) -> io::Result<()> {
        let mut sleeper = Sleeper::new(&self.shared.eventfd)?;
        let mut woken: Vec<Waker> = Vec::new();
        self.shared.core.borrow_mut().notify_completions(false);
        loop {
            let dispatched = {
                let mut core = self.shared.core.borrow_mut();
                core.submit(&self.shared.counters)?;
                core.dispatch(
                    limits::COMPLETIONS_A_TURN,
                    &self.shared.counters,
                    &mut woken,
                )
            };
            // Woken outside the borrow: what a waker runs may use the ring.
            for waker in woken.drain(..) {
                waker.wake();
            }
            if dispatched > 0 {
                // The tasks just woken run before the next turn, and so do
                // glommio's own; their submissions go out together.
                yield_now().await;
            } else {
                self.sleep(&mut sleeper).await?;
            }
        }
    }

    /// Waits until a task queues a submission or the kernel has a completion.
    async fn sleep(&self, sleeper: &mut Sleeper) -> io::Result<()> {
        let result = poll_fn(|context| {
            let mut core = self.shared.core.borrow_mut();
            // On before the look, not after it: a completion that arrives
            // between the two must find the signal on. The kernel signals only
            // when its list was empty before, hence no sleep while it is not.
            core.notify_completions(true);
            // Either we see the completion or the kernel sees the signal on.
            fence(Ordering::SeqCst);
            if core.has_work() {
                return Poll::Ready(Ok(()));
            }
            drop(core);
            *self.shared.driver.borrow_mut() = Some(context.waker().clone());
            sleeper.poll_signalled(context)
        })
        .await;
        self.shared.core.borrow_mut().notify_completions(false);
        self.shared.driver.borrow_mut().take();
        result
    }
}

/// Lets every other task that is ready run first.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
