//! Threads that wait for work, last in first out.
//!
//! A condition variable would do; this wakes without a second turn for the
//! lock, never wakes the same thread for two requests, and prefers the thread
//! that slept last.

use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};

/// The sleeping threads of one queue.
#[derive(Default)]
pub(super) struct Sleepers {
    /// Length of `stack`, to be read without the lock.
    count: AtomicUsize,
    stack: Mutex<Vec<Thread>>,
}

impl Sleepers {
    /// Sleeps until woken, unless `ready` says that there is work. May return
    /// without cause: the caller looks for work again.
    pub(super) fn sleep_unless(&self, ready: impl FnOnce() -> bool) {
        let own = thread::current();
        let id = own.id();
        {
            let mut stack = self.lock();
            stack.push(own);
            self.count.store(stack.len(), Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        if !ready() {
            thread::park();
        }
        // Still listed if there was work, or if the wake-up was spurious. A
        // thread that was taken off meanwhile has an unpark in store and will
        // look once in vain.
        let mut stack = self.lock();
        stack.retain(|sleeper| sleeper.id() != id);
        self.count.store(stack.len(), Ordering::Relaxed);
    }

    /// Wakes one sleeper, if there is any. Call it after the work is queued.
    pub(super) fn wake_one(&self) {
        fence(Ordering::SeqCst);
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let sleeper = {
            let mut stack = self.lock();
            let sleeper = stack.pop();
            self.count.store(stack.len(), Ordering::Relaxed);
            sleeper
        };
        if let Some(sleeper) = sleeper {
            sleeper.unpark();
        }
    }

    /// Wakes all sleepers.
    pub(super) fn wake_all(&self) {
        fence(Ordering::SeqCst);
        let sleepers = std::mem::take(&mut *self.lock());
        self.count.store(0, Ordering::Relaxed);
        for sleeper in sleepers {
            sleeper.unpark();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Thread>> {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
