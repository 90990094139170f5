//! How other threads wake tasks of a shard.
//!
//! A waker that leaves the shard leaves a key in a list and says that it did. A
//! driver that is awake looks at the list in each turn; one that sleeps in the
//! kernel is woken by an eventfd, which its ring polls (`eventfd(2)`). So a busy
//! shard is never signalled, and the other thread makes no system call.
//!
//! **No wake-up is lost.** The driver says that it goes to sleep and then looks
//! whether the bell was rung; the other thread rings and then looks whether the
//! driver sleeps; between the two steps both have a sequentially consistent fence,
//! so one of the two sees the other. A key may outlive its task: its number may be
//! another's by then, who is woken for nothing.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

use rustix::event::{EventfdFlags, eventfd};

use super::Ring;

/// What other threads share with a shard.
pub(super) struct Bell {
    /// Whether there are keys; to be read without the lock.
    rung: AtomicBool,
    /// The driver sleeps, or is about to.
    asleep: AtomicBool,
    keys: Mutex<Vec<usize>>,
    eventfd: OwnedFd,
}

impl Bell {
    pub(super) fn new() -> io::Result<Bell> {
        // Nobody reads it, and it does not fill: writers wait at 2^64 - 1 only.
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Bell {
            rung: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            keys: Mutex::default(),
            eventfd,
        })
    }

    /// What the ring polls.
    pub(super) fn descriptor(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }

    /// Asks for a signal from now on; says whether the driver may sleep.
    pub(super) fn doze(&self) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        !self.rung.load(Ordering::Relaxed)
    }

    /// The driver is awake: no signal is needed.
    pub(super) fn rise(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Moves the keys there are into `keys`, which is empty.
    pub(super) fn take(&self, keys: &mut Vec<usize>) {
        if self.rung.load(Ordering::Relaxed) {
            // Before the keys are taken: who adds one afterwards sets it again.
            self.rung.store(false, Ordering::Relaxed);
            std::mem::swap(&mut *self.lock(), keys);
        }
    }

    fn ring(&self, key: usize) {
        {
            let mut keys = self.lock();
            keys.push(key);
            // Under the lock, so that `take` does not put it out for good between
            // the two.
            self.rung.store(true, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::Relaxed) {
            // It fails only where the counter is full, and then it is readable.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<usize>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A waker that any thread may use.
struct Cord {
    bell: Arc<Bell>,
    key: usize,
}

impl Wake for Cord {
    fn wake(self: Arc<Self>) {
        self.bell.ring(self.key);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.bell.ring(self.key);
    }
}

/// A task's place among those that wait for other threads.
struct Guest<'a> {
    ring: &'a Ring,
    key: usize,
}

impl<'a> Guest<'a> {
    fn new(ring: &'a Ring) -> Self {
        let key = ring.shared.guests.borrow_mut().insert(None);
        Guest { ring, key }
    }

    /// Keeps whom to wake when the bell is rung for this place.
    fn keep(&self, waker: &Waker) {
        let mut guests = self.ring.shared.guests.borrow_mut();
        let stale = super::slot::keep(&mut guests[self.key], waker);
        drop(guests);
        drop(stale);
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let waker = self.ring.shared.guests.borrow_mut().remove(self.key);
        drop(waker);
    }
}

impl Ring {
    /// Awaits what another thread completes, such as the receiving end of a
    /// channel. Awaited in any other way it would not wake the shard: nothing
    /// looks at what threads tell glommio.
    pub async fn abroad<F: Future>(&self, future: F) -> F::Output {
        let guest = Guest::new(self);
        let cord = Waker::from(Arc::new(Cord {
            bell: Arc::clone(&self.shared.bell),
            key: guest.key,
        }));
        let mut future = pin!(future);
        poll_fn(|context| {
            guest.keep(context.waker());
            future.as_mut().poll(&mut Context::from_waker(&cord))
        })
        .await
    }

    /// Wakes those for whom other threads rang. `keys` is memory for them, empty
    /// before and after.
    pub(super) fn answer(&self, keys: &mut Vec<usize>) {
        self.shared.bell.take(keys);
        for key in keys.drain(..) {
            let mut guests = self.shared.guests.borrow_mut();
            let waker = guests.get_mut(key).and_then(Option::take);
            drop(guests);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}
