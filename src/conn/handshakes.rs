//! TLS handshakes under way on a shard, and no more of them than it can bear.
//!
//! A client in its handshake has proved nothing and costs some ten kibioctets.
//! A handshake takes as long as two or three journeys of a packet, so that
//! where many are under way for long, most of them stand still, and nobody
//! knows better than their age which: the oldest makes room, if it is old
//! enough to have stalled. Where none is, the shard is merely busy, and the new
//! client is turned away: to end those who are nearly through instead would
//! have nobody come through.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use crate::limits;
use crate::shard::deadlines::Watch;

/// The handshakes of one shard.
#[derive(Debug, Default)]
pub struct Handshakes {
    /// By the order of their beginning.
    under_way: RefCell<BTreeMap<u64, Begun>>,
    next: Cell<u64>,
}

#[derive(Debug)]
struct Begun {
    since: Instant,
    watch: Rc<Watch>,
}

/// A handshake's place, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    handshakes: Rc<Handshakes>,
    key: u64,
}

impl Handshakes {
    /// A place for a handshake whose connection waits on `watch`; nothing where
    /// there is none.
    pub(super) fn enter(self: &Rc<Self>, watch: &Rc<Watch>, now: Instant) -> Option<Place> {
        let mut under_way = self.under_way.borrow_mut();
        if under_way.len() >= limits::HANDSHAKES {
            let oldest = under_way.first_entry().expect("there are many");
            let age = now.saturating_duration_since(oldest.get().since);
            if age < limits::HANDSHAKE_STALLED {
                return None;
            }
            oldest.remove().watch.expire();
        }
        let key = self.next.get();
        self.next.set(key + 1);
        let begun = Begun {
            since: now,
            watch: Rc::clone(watch),
        };
        under_way.insert(key, begun);
        Some(Place {
            handshakes: Rc::clone(self),
            key,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // It may have had to make room.
        self.handshakes.under_way.borrow_mut().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::deadlines::Signal;

    fn full(since: Instant) -> (Rc<Handshakes>, Vec<(Rc<Watch>, Place)>) {
        let handshakes = Rc::new(Handshakes::default());
        let places = (0..limits::HANDSHAKES).map(|_| {
            let watch = Rc::<Watch>::default();
            let place = handshakes.enter(&watch, since).expect("room");
            (watch, place)
        });
        let places = places.collect();
        (handshakes, places)
    }

    #[test]
    fn a_busy_shard_turns_new_clients_away_until_one_is_through() {
        let now = Instant::now();
        let (handshakes, mut places) = full(now);
        let watch = Rc::<Watch>::default();
        let soon = now + limits::HANDSHAKE_STALLED / 2;
        assert!(handshakes.enter(&watch, soon).is_none());
        assert!(places.iter().all(|(watch, _)| watch.signal().is_none()));
        places.pop();
        assert!(handshakes.enter(&watch, soon).is_some());
    }

    #[test]
    fn the_oldest_makes_room_once_it_has_stalled() {
        let now = Instant::now();
        let (handshakes, places) = full(now);
        let watch = Rc::<Watch>::default();
        let later = now + limits::HANDSHAKE_STALLED;
        let first = handshakes.enter(&watch, later).expect("room");
        let second = handshakes.enter(&watch, later).expect("room");
        let signals: Vec<_> = places.iter().map(|(watch, _)| watch.signal()).collect();
        assert_eq!(
            signals[..3],
            [Some(Signal::Deadline), Some(Signal::Deadline), None]
        );
        drop((first, second, places));
        assert!(handshakes.under_way.borrow().is_empty());
    }
}
