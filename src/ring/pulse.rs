//! A timer that stands as long as the shard is at work.
//!
//! glommio 0.9 may park with tasks that are ready: `run_task_queues` answers "none
//! ran" both where there was nothing to run and where its preemption timer had
//! fired before it came to the first, and its caller parks on that answer. On a
//! machine that takes the CPU from the shard at that moment this is a shard that
//! sleeps while its sockets hold bytes; it was seen twice on a busy one. What parks
//! wakes for the next timer, and so there is always one while the ring turns: a
//! parked shard loses [`limits::PULSE`] and not its sessions.
//! Once the ring has stood still for that long the timer goes, and an idle shard
//! uses no CPU; from then on the driver's own looks at growing distances stand in.

use std::future::poll_fn;
use std::task::Poll;

use super::Ring;
use crate::limits;

impl Ring {
    /// Keeps the timer. Never ends.
    pub(super) async fn pulse(self) {
        let mut seen = self.shared.turns.get();
        loop {
            glommio::timer::sleep(limits::PULSE).await;
            let turns = self.shared.turns.get();
            if turns == seen {
                poll_fn(|context| {
                    if self.shared.turns.get() != turns {
                        return Poll::Ready(());
                    }
                    *self.shared.resting.borrow_mut() = Some(context.waker().clone());
                    Poll::Pending
                })
                .await;
            }
            seen = self.shared.turns.get();
        }
    }

    /// The driver takes a turn.
    pub(super) fn beat(&self) {
        self.shared.turns.set(self.shared.turns.get() + 1);
        let resting = self.shared.resting.borrow_mut().take();
        if let Some(waker) = resting {
            waker.wake();
        }
    }
}
