//! Timers of a shard: the driver sleeps in the kernel until the first is due.
//!
//! There are few of them, for what thousands of sessions wait for is in one wheel
//! (`shard/deadlines`), which asks for one timer: an ordered map is enough.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::Ring;
use super::slot::keep;

/// Who waits until when.
#[derive(Default)]
pub(super) struct Timers {
    waiting: BTreeMap<(Instant, u64), Option<Waker>>,
    /// Tells timers of one instant apart.
    made: u64,
}

impl Timers {
    /// When the first is due.
    pub(super) fn first(&self) -> Option<Instant> {
        self.waiting.keys().next().map(|(at, _)| *at)
    }

    /// Takes off those that are due, and says whom to wake.
    pub(super) fn fire(&mut self, now: Instant, woken: &mut Vec<Waker>) {
        while let Some(first) = self.waiting.first_entry() {
            if first.key().0 > now {
                return;
            }
            woken.extend(first.remove());
        }
    }
}

/// A future that is ready at an instant, or a little later.
#[must_use = "it waits when it is awaited"]
pub struct Sleep {
    ring: Ring,
    until: Instant,
    /// There from the first poll on.
    number: Option<u64>,
}

impl Ring {
    /// Waits until an instant.
    pub fn sleep_until(&self, until: Instant) -> Sleep {
        Sleep {
            ring: self.clone(),
            until,
            number: None,
        }
    }

    /// Waits for that long.
    pub fn sleep(&self, time: Duration) -> Sleep {
        self.sleep_until(Instant::now() + time)
    }
}

impl Sleep {
    /// Until when.
    pub fn until(&self) -> Instant {
        self.until
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let mut timers = this.ring.shared.timers.borrow_mut();
        let Some(number) = this.number else {
            let number = timers.made;
            timers.made += 1;
            let waker = Some(context.waker().clone());
            timers.waiting.insert((this.until, number), waker);
            this.number = Some(number);
            return Poll::Pending;
        };
        let Some(waiting) = timers.waiting.get_mut(&(this.until, number)) else {
            return Poll::Ready(());
        };
        let stale = keep(waiting, context.waker());
        drop(timers);
        drop(stale);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut timers = self.ring.shared.timers.borrow_mut();
        let waker = timers.waiting.remove(&(self.until, number));
        drop(timers);
        drop(waker);
    }
}
