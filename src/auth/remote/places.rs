//! Places at a server, which networks take in turns.
//!
//! A server is asked so many questions at a time as it has connections. Who finds no
//! place waits in the line of the own network, so that a flood from one network holds up
//! that network and lets one of its questions in between two of somebody else's.
//!
//! Invariant: nobody waits while a place is free.

use std::sync::{Arc, Mutex};

use futures_channel::oneshot;

use super::lock;
use crate::crew::{Lines, Queued};
use crate::limits;

/// The places of one server.
pub(super) struct Places(Arc<Mutex<State>>);

struct State {
    free: u32,
    waiting: Lines<oneshot::Sender<Place>>,
}

/// A question that may be asked. Dropped, it makes room for the next.
pub(super) struct Place(Arc<Mutex<State>>);

/// Somebody who waits for a place, or has been given one and does not know yet.
struct Waiting {
    turn: oneshot::Receiver<Place>,
    origin: u64,
    state: Arc<Mutex<State>>,
}

impl Places {
    pub(super) fn new(count: u32) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: count,
            waiting: Lines::new(limits::LOOKUPS),
        })))
    }

    /// A place, when it is the turn of this network; `None` if so many wait already that
    /// others have to come before it. Dropped, the future waits for nothing.
    pub(super) async fn take(&self, origin: u64) -> Option<Place> {
        let mut waiting = {
            let mut state = lock(&self.0);
            if let Some(left) = state.free.checked_sub(1) {
                state.free = left;
                return Some(Place(Arc::clone(&self.0)));
            }
            let (to, turn) = oneshot::channel();
            match state.waiting.queue(origin, to) {
                // Whose place in the line it was is told so by being dropped.
                Queued::Waits | Queued::InPlaceOf(_) => {}
                Queued::Refused(_) | Queued::Closed(_) => return None,
            }
            Waiting {
                turn,
                origin,
                state: Arc::clone(&self.0),
            }
        };
        (&mut waiting.turn).await.ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.turn.close();
        let waits = |to: &oneshot::Sender<Place>| !to.is_canceled();
        lock(&self.state).waiting.retain(self.origin, waits);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let next = {
            let mut state = lock(&self.0);
            let Some(next) = state.waiting.take() else {
                state.free += 1;
                return;
            };
            next
        };
        // Whoever has left meanwhile drops it in turn, for the one after.
        drop(next.send(Self(Arc::clone(&self.0))));
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_flood_lets_one_of_its_own_in_between_two_of_others() {
        let places = Places::new(1);
        let mut held = poll(pin!(places.take(1))).flatten().expect("a place");
        let mut flood: Vec<_> = (0..100).map(|_| Box::pin(places.take(1))).collect();
        for waiting in &mut flood {
            assert!(poll(waiting.as_mut()).is_none());
        }
        for _ in 0..10 {
            let mut other = pin!(places.take(2));
            assert!(poll(other.as_mut()).is_none());
            drop(held);
            let next = flood.remove(0);
            let mut next = pin!(next);
            held = poll(next.as_mut()).flatten().expect("the flood's turn");
            assert!(poll(other.as_mut()).is_none());
            drop(held);
            held = poll(other.as_mut()).flatten().expect("the other's turn");
        }
    }

    #[test]
    fn beyond_the_bound_the_longest_line_gives_way() {
        let places = Places::new(1);
        let held = poll(pin!(places.take(1))).flatten().expect("a place");
        let mut flood: Vec<_> = (0..limits::LOOKUPS)
            .map(|_| Box::pin(places.take(1)))
            .collect();
        for waiting in &mut flood {
            assert!(poll(waiting.as_mut()).is_none());
        }
        assert!(matches!(poll(pin!(places.take(1))), Some(None)));
        let mut other = pin!(places.take(2));
        assert!(poll(other.as_mut()).is_none());
        let last = flood.last_mut().expect("a flood");
        assert!(matches!(poll(last.as_mut()), Some(None)), "it gave way");
        drop((held, flood));
        assert!(poll(other).flatten().is_some());
    }

    proptest! {
        /// Whoever comes, waits, leaves and ends, no place is lost and none is made.
        #[test]
        fn there_are_as_many_places_as_there_were(
            steps in prop::collection::vec((0_u8..3, 0_u64..3, any::<prop::sample::Index>()), 0..80),
        ) {
            let places = Places::new(2);
            let (mut held, mut waiting) = (Vec::new(), Vec::new());
            for (step, origin, which) in steps {
                match step {
                    0 => waiting.push(Box::pin(places.take(origin))),
                    1 if !held.is_empty() => drop(held.swap_remove(which.index(held.len()))),
                    2 if !waiting.is_empty() => drop(waiting.swap_remove(which.index(waiting.len()))),
                    _ => {}
                }
                waiting.retain_mut(|one| match poll(one.as_mut()) {
                    Some(place) => {
                        held.push(place.expect("few wait"));
                        false
                    }
                    None => true,
                });
                prop_assert!(held.len() <= 2);
                prop_assert!(held.len() == 2 || waiting.is_empty());
            }
            drop((held, waiting));
            let state = lock(&places.0);
            prop_assert_eq!((state.free, state.waiting.len()), (2, 0));
        }
    }
}
