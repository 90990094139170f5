//! Guesses under way, by whose they are, and those that wait for their outcome.
//!
//! There is an entry only for what is under way now, so there are no more than
//! connections that log in. Whoever waits is woken when one ends, and asks again: a wake
//! is no promise, and one that meets nobody is lost without harm, since the last guess to
//! end wakes all. Keys are hashes under a key of this process.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_channel::oneshot;

use super::TooMany;
use crate::limits;

/// All lines, in parts with a lock each.
#[derive(Debug)]
pub(super) struct Lines {
    parts: Box<[Mutex<HashMap<u64, Line>>]>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Line {
    under_way: u32,
    waiting: VecDeque<oneshot::Sender<()>>,
}

/// A guess that is under way until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    lines: Arc<Lines>,
    key: u64,
}

/// Ready when it is time to ask again.
#[derive(Debug)]
#[must_use = "dropping it leaves the line"]
pub struct Waiting(oneshot::Receiver<()>);

impl Future for Waiting {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(context).map(drop)
    }
}

impl Lines {
    pub(super) fn new() -> Self {
        Self {
            parts: (0..limits::SEAT_PARTS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// A place beside those that are under way, if there may be one more than so many; or
    /// one in the line for it.
    pub(super) fn enter(
        self: &Arc<Self>,
        key: &impl Hash,
        may_join: impl FnOnce(u32) -> bool,
    ) -> Result<Result<Place, Waiting>, TooMany> {
        let key = self.hasher.hash_one(key);
        let mut part = self.part(key);
        let line = part.entry(key).or_default();
        // Whoever waits for nobody would wait for ever.
        if line.under_way == 0 || may_join(line.under_way) {
            line.under_way += 1;
            let lines = Arc::clone(self);
            return Ok(Ok(Place { lines, key }));
        }
        if line.waiting.len() >= limits::GUESSES_IN_LINE {
            line.waiting.retain(|waiting| !waiting.is_canceled());
        }
        if line.waiting.len() >= limits::GUESSES_IN_LINE {
            return Err(TooMany);
        }
        let (wake, waiting) = oneshot::channel();
        line.waiting.push_back(wake);
        Ok(Err(Waiting(waiting)))
    }

    /// Has all who wait ask again.
    pub(super) fn wake_all(&self, key: &impl Hash) {
        let key = self.hasher.hash_one(key);
        let mut part = self.part(key);
        let waiting = part
            .get_mut(&key)
            .map(|line| std::mem::take(&mut line.waiting));
        // Dropping them wakes, which is done outside the lock.
        drop(part);
        drop(waiting);
    }

    fn part(&self, key: u64) -> MutexGuard<'_, HashMap<u64, Line>> {
        let at = usize::try_from(key % self.parts.len() as u64).expect("a part");
        self.parts[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Guesses under way and in line.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let lines = |part: &Mutex<HashMap<u64, Line>>| part.lock().expect("whole").len();
        self.parts.iter().map(lines).sum()
    }
}

/// Wakes the next in line; the last to go wakes all.
impl Drop for Place {
    fn drop(&mut self) {
        let mut part = self.lines.part(self.key);
        let Entry::Occupied(mut line) = part.entry(self.key) else {
            unreachable!("it is under way until it is dropped");
        };
        line.get_mut().under_way -= 1;
        let woken = if line.get().under_way == 0 {
            line.remove().waiting
        } else {
            let waiting = &mut line.get_mut().waiting;
            let next = std::iter::from_fn(|| waiting.pop_front());
            next.filter(|next| !next.is_canceled()).take(1).collect()
        };
        drop(part);
        drop(woken);
    }
}
