//! The thread on which directories are asked that are away.
//!
//! A look-up waits for a server, not for a processor, so one thread holds as many as
//! there may be: each is a task of a tokio runtime. Their number is bounded, those that
//! wait for a connection included, and what is beyond is refused at once.
//!
//! No network gets more places than it leaves free: one alone has half of them at most,
//! two a third each. So a flood from one network fills its part, is refused what is
//! beyond it, and the others find room.
//!
//! The thread is not pinned: what it does for a login is some tens of microseconds, and
//! the kernel knows best which core has them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::runtime::{self, Handle};
use tokio::sync::Notify;

/// The look-up thread.
pub(super) struct Lookups {
    handle: Handle,
    bound: usize,
    state: Arc<State>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    /// Look-ups that were taken and have not ended.
    open: AtomicUsize,
    /// How many of them each network has.
    shares: Mutex<HashMap<u64, usize>>,
    stopping: AtomicBool,
    /// Told when one ends while it stops.
    news: Notify,
}

/// A look-up that is under way; dropped, it is over.
struct Place {
    state: Arc<State>,
    origin: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let state = &self.state;
        if let Entry::Occupied(mut share) = state.shares().entry(self.origin) {
            *share.get_mut() -= 1;
            if *share.get() == 0 {
                share.remove();
            }
        }
        state.open.fetch_sub(1, Ordering::SeqCst);
        if state.stopping.load(Ordering::SeqCst) {
            state.news.notify_one();
        }
    }
}

impl Lookups {
    /// Starts the thread; at most `bound` look-ups are under way at a time. What `open`
    /// makes is made in the runtime's context.
    pub(super) fn start<T>(bound: usize, open: impl FnOnce() -> T) -> io::Result<(Self, T)> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let made = {
            let _context = handle.enter();
            open()
        };
        let state = Arc::<State>::default();
        let own = Arc::clone(&state);
        let thread = thread::Builder::new()
            .name("lookups".to_owned())
            .spawn(move || {
                runtime.block_on(own.end());
                // A module of PAM that hangs holds nobody up but its own thread.
                runtime.shutdown_background();
            })?;
        let lookups = Self {
            handle,
            bound,
            state,
            thread: Mutex::new(Some(thread)),
        };
        Ok((lookups, made))
    }

    /// Has a look-up done for whoever holds the ticket and is in the network of that
    /// number; gives it back if too many are under way. Never waits. After
    /// [`Lookups::stop`] the ticket is dropped.
    pub(super) fn begin<T, F>(
        &self,
        origin: u64,
        ticket: T,
        lookup: impl FnOnce(T) -> F,
    ) -> Result<(), T>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(place) = self.place(origin) else {
            return Err(ticket);
        };
        if !self.state.stopping.load(Ordering::SeqCst) {
            let lookup = lookup(ticket);
            self.handle.spawn(async move {
                lookup.await;
                drop(place);
            });
        }
        Ok(())
    }

    /// A place for one more of this network, if it may have that.
    fn place(&self, origin: u64) -> Option<Place> {
        let state = &self.state;
        let mut shares = state.shares();
        let free = self.bound.saturating_sub(state.open.load(Ordering::SeqCst));
        let own = shares.get(&origin).copied().unwrap_or_default();
        if own >= free {
            return None;
        }
        shares.insert(origin, own + 1);
        state.open.fetch_add(1, Ordering::SeqCst);
        Some(Place {
            state: Arc::clone(state),
            origin,
        })
    }

    /// Look-ups that are under way.
    pub(super) fn len(&self) -> usize {
        self.state.open.load(Ordering::Relaxed)
    }

    /// Ends what is under way, which its time-outs bound, and then the thread; blocks
    /// until it has ended. A second call does nothing.
    pub(super) fn stop(&self) {
        self.state.stopping.store(true, Ordering::SeqCst);
        self.state.news.notify_one();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a thread had ended in a panic; please report it");
        }
    }
}

impl Drop for Lookups {
    fn drop(&mut self) {
        self.stop();
    }
}

impl State {
    fn shares(&self) -> MutexGuard<'_, HashMap<u64, usize>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it stops and nothing is under way.
    async fn end(&self) {
        while !self.stopping.load(Ordering::SeqCst) || self.open.load(Ordering::SeqCst) > 0 {
            self.news.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn many_wait_at_once_up_to_the_bound() {
        let (lookups, gate) = Lookups::start(100, || Arc::new(Notify::new())).expect("a thread");
        let (done, answers) = mpsc::channel();
        for number in 0..100 {
            let (done, gate) = (done.clone(), Arc::clone(&gate));
            let lookup = |number| async move {
                gate.notified().await;
                done.send(number).expect("awaited");
            };
            assert_eq!(lookups.begin(number, number, lookup), Ok(()));
        }
        assert_eq!(lookups.len(), 100);
        assert_eq!(lookups.begin(100, "back", |_| async {}), Err("back"));
        assert_eq!(lookups.len(), 100);
        for _ in 0..100 {
            gate.notify_one();
            answers
                .recv_timeout(Duration::from_mins(1))
                .expect("an answer");
        }
        // Its place is free a moment after its answer is there.
        while lookups.begin(0, (), |()| async {}).is_err() {
            thread::yield_now();
        }
    }

    #[test]
    fn no_network_has_more_places_than_it_leaves_free() {
        let (lookups, gate) = Lookups::start(90, || Arc::new(Notify::new())).expect("a thread");
        let taken = |origin: u64, wanted: usize| {
            let began = (0..wanted).filter(|_| {
                let gate = Arc::clone(&gate);
                let lookup = |()| async move { gate.notified().await };
                lookups.begin(origin, (), lookup).is_ok()
            });
            began.count()
        };
        assert_eq!(taken(1, 1000), 45, "a flood");
        assert_eq!(taken(2, 1000), 23, "another");
        assert_eq!(taken(3, 5), 5, "somebody");
        assert_eq!(taken(1, 1), 0);
        gate.notify_waiters();
        while lookups.len() > 0 {
            gate.notify_waiters();
            thread::yield_now();
        }
        assert!(lookups.state.shares().is_empty());
    }

    #[test]
    fn stopping_ends_what_is_under_way_and_takes_no_more() {
        let (lookups, ()) = Lookups::start(8, || ()).expect("a thread");
        let (done, answers) = mpsc::channel();
        let lookup = |()| async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            done.send(()).expect("awaited");
        };
        assert_eq!(lookups.begin(0, (), lookup), Ok(()));
        lookups.stop();
        answers.try_recv().expect("it had ended");
        let (late, never) = mpsc::channel::<()>();
        let lookup = |late: mpsc::Sender<()>| async move { late.send(()).expect("awaited") };
        assert!(lookups.begin(0, late, lookup).is_ok());
        assert!(never.recv().is_err(), "it was dropped");
        lookups.stop();
    }
}
