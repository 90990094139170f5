//! The task that turns the ring, and the one place where a shard waits.
//!
//! A turn lets the tasks run that are ready, hands what they queued to the kernel
//! and dispatches the completions that this brought, all with one system call.
//! Where no task is ready it waits in that call: for a completion, for another
//! thread (`bell`) or for the first timer (`time`).
//!
//! **glommio never parks here.** Its executor parks when no task is ready, and the
//! driver always is: it sleeps inside its own poll. What glommio's park would do is
//! not needed (timers, wake-ups from other threads and files are the ring's), costs
//! as much as answering a command (a membarrier, two rings entered, an eventfd read
//! by one of them), and goes wrong: `run_task_queues` of glommio 0.9 answers "none
//! ran" also where its preemption timer had fired before it came to the first, and
//! its caller parks on that answer, on a shard whose sockets hold bytes. The price
//! is that nothing of glommio that comes through its reactor works on a shard:
//! its timers, its files, its `spawn_blocking`, and a waker of its own that is
//! used by another thread.
//!
//! Rejected: waking the driver from glommio's ring by an eventfd, which this was
//! before, with a timer beside it against parks that came too early. A shard that
//! slept between two commands paid 60 to 75 us for a poll that cost 37 us under
//! full load.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Instant;

use super::Ring;
use super::core::{Aftermath, Patience, Submitted};
use crate::limits;

impl Ring {
    /// Turns the ring for as long as its shard lives; ends with an error, where
    /// waiting would not help and the shard cannot go on.
    pub(super) async fn drive(self) -> io::Error {
        match self.turn_for_good().await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn turn_for_good(self) -> io::Result<Infallible> {
        let mut after = Aftermath::default();
        let mut keys = Vec::new();
        let mut refused = false;
        loop {
            let quiet = self.let_tasks_run().await;
            let patience = self.patience(quiet, refused);
            let (submitted, dispatched) = {
                let mut core = self.shared.core.borrow_mut();
                let counters = &self.shared.counters;
                let submitted = core.enter(patience, counters);
                self.shared.bell.rise();
                (submitted?, core.dispatch(counters, &mut after))
            };
            refused = submitted == Submitted::Refused && dispatched == 0;
            self.fire_timers(&mut after);
            after.settle();
            self.answer(&mut keys);
        }
    }

    /// Lets every task run that is ready, and those that they wake, for a bounded
    /// number of rounds; says whether none is ready any more.
    async fn let_tasks_run(&self) -> bool {
        for _ in 0..limits::ROUNDS_A_TURN {
            let before = self.shared.polls.get();
            round().await;
            if self.shared.polls.get() == before {
                return true;
            }
        }
        false
    }

    /// How long the kernel may keep the shard.
    fn patience(&self, quiet: bool, refused: bool) -> Patience {
        if refused {
            return Patience::Recover(limits::RING_REST);
        }
        if !quiet {
            return Patience::None;
        }
        let first = self.shared.timers.borrow().first();
        let left = first.map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) || !self.shared.bell.doze() {
            return Patience::None;
        }
        left.map_or(Patience::Endless, Patience::For)
    }

    fn fire_timers(&self, after: &mut Aftermath) {
        let mut timers = self.shared.timers.borrow_mut();
        if timers.first().is_some() {
            timers.fire(Instant::now(), after.woken());
        }
    }
}

/// Lets every other task that is ready run once.
pub(super) async fn round() {
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
