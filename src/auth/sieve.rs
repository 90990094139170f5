//! A table of a fixed size for what is known of strangers: who failed, who came lately.
//!
//! Anybody can add entries to such a table by failing under ever new names, so it must
//! not grow, must not be walked, and must not let what matters be washed out by what
//! does not. Each key has eight places; where they are taken, the value that is least
//! [worth keeping](Keep) gives way. Keys are hashes under a key of this process: nobody
//! can choose names that meet in the same eight places, and no name is kept.
//!
//! A value that was dropped is as one that never was: this is for what may be forgotten.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Places of a key.
const WAYS: usize = 8;

/// What a sieve keeps.
pub trait Keep: Default + Clone {
    /// How much would be lost with it; of two that are worth the same, either goes.
    fn worth(&self, now: Moment) -> u64;
}

/// Milliseconds since the sieve was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// So much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// How long ago `earlier` was; zero if it is to come.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// For an order of values by their age.
    pub fn millis(self) -> u64 {
        self.0
    }
}

/// Values by key, at most as many as it was made for.
#[derive(Debug)]
pub struct Sieve<V> {
    buckets: Box<[Mutex<Bucket<V>>]>,
    hasher: RandomState,
    origin: Instant,
}

#[derive(Debug)]
struct Bucket<V>([Option<(u64, V)>; WAYS]);

impl<V: Keep> Sieve<V> {
    /// Room for `entries`, rounded up to eight.
    pub fn new(entries: usize, now: Instant) -> Self {
        let empty = || Mutex::new(Bucket(std::array::from_fn(|_| None)));
        Self {
            buckets: (0..entries.div_ceil(WAYS).max(1))
                .map(|_| empty())
                .collect(),
            hasher: RandomState::new(),
            origin: now,
        }
    }

    /// That instant as a moment of this sieve.
    pub fn moment(&self, now: Instant) -> Moment {
        let millis = now.saturating_duration_since(self.origin).as_millis();
        Moment(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// What is kept under this key.
    pub fn get(&self, key: &impl Hash) -> Option<V> {
        let hash = self.hasher.hash_one(key);
        let bucket = self.bucket(hash);
        let found = bucket.0.iter().flatten().find(|(own, _)| *own == hash);
        found.map(|(_, value)| value.clone())
    }

    /// Changes what is kept under this key, or what is new there.
    pub fn change<R>(
        &self,
        key: &impl Hash,
        now: Instant,
        change: impl FnOnce(&mut V, Moment) -> R,
    ) -> R {
        let hash = self.hasher.hash_one(key);
        let now = self.moment(now);
        let mut bucket = self.bucket(hash);
        let at = bucket.place(hash, now);
        let (_, value) = bucket.0[at].get_or_insert_with(|| (hash, V::default()));
        change(value, now)
    }

    /// The same where something is kept under it.
    pub fn change_if_kept<R>(
        &self,
        key: &impl Hash,
        now: Instant,
        change: impl FnOnce(&mut V, Moment) -> R,
    ) -> Option<R> {
        let hash = self.hasher.hash_one(key);
        let now = self.moment(now);
        let mut bucket = self.bucket(hash);
        let found = bucket.0.iter_mut().flatten().find(|(own, _)| *own == hash);
        found.map(|(_, value)| change(value, now))
    }

    /// Forgets what is kept under this key.
    pub fn forget(&self, key: &impl Hash) {
        let hash = self.hasher.hash_one(key);
        let mut bucket = self.bucket(hash);
        let own =
            |place: &&mut Option<(u64, V)>| place.as_ref().is_some_and(|(own, _)| *own == hash);
        if let Some(place) = bucket.0.iter_mut().find(own) {
            *place = None;
        }
    }

    fn bucket(&self, hash: u64) -> MutexGuard<'_, Bucket<V>> {
        let at = usize::try_from(hash % self.buckets.len() as u64).expect("a bucket");
        let bucket = self.buckets[at].lock();
        bucket.unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: Keep> Bucket<V> {
    /// Where the value of this key is or is to be: its place, or an empty one, or that
    /// of the value that is worth least, which goes.
    fn place(&mut self, hash: u64, now: Moment) -> usize {
        let own = |place: &Option<(u64, V)>| place.as_ref().is_some_and(|(own, _)| *own == hash);
        if let Some(at) = self.0.iter().position(own) {
            return at;
        }
        let worth = |place: &Option<(u64, V)>| place.as_ref().map(|(_, value)| value.worth(now));
        let least = (0..WAYS).min_by_key(|at| worth(&self.0[*at]));
        let at = least.expect("some places");
        self.0[at] = None;
        at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, Default, PartialEq)]
    struct Weight(u64);

    impl Keep for Weight {
        fn worth(&self, _: Moment) -> u64 {
            self.0
        }
    }

    #[test]
    fn what_weighs_stays_whatever_comes() {
        let now = Instant::now();
        let sieve = Sieve::new(64, now);
        for heavy in 0..4_u32 {
            sieve.change(&heavy, now, |weight: &mut Weight, _| weight.0 = 1000);
        }
        for light in 100..100_000_u32 {
            sieve.change(&light, now, |weight, _| weight.0 = 1);
        }
        assert!((0..4_u32).all(|heavy| sieve.get(&heavy) == Some(Weight(1000))));
        let kept = (0..100_000_u32).filter(|key| sieve.get(key).is_some());
        assert!(kept.count() <= 64);
    }

    #[test]
    fn a_moment_is_told_in_milliseconds() {
        let begin = Instant::now();
        let sieve: Sieve<Weight> = Sieve::new(1, begin);
        let then = sieve.moment(begin + Duration::from_millis(1500));
        assert_eq!(then.millis(), 1500);
        assert_eq!(sieve.moment(begin), Moment(0));
        assert_eq!(then.since(Moment(500)), Duration::from_secs(1));
        assert_eq!(Moment(500).since(then), Duration::ZERO);
        assert_eq!(then.after(Duration::from_secs(1)).millis(), 2500);
    }

    proptest! {
        #[test]
        fn as_long_as_there_is_room_it_is_a_map(
            steps in prop::collection::vec((0_u8..6, 0_u64..100, any::<bool>()), 0..60),
        ) {
            let now = Instant::now();
            let (sieve, mut model) = (Sieve::new(8, now), std::collections::HashMap::new());
            for (key, value, keeps) in steps {
                if keeps {
                    sieve.change(&key, now, |weight: &mut Weight, _| weight.0 = value);
                    model.insert(key, value);
                } else {
                    sieve.forget(&key);
                    model.remove(&key);
                }
                for key in 0..6 {
                    let found = sieve.get(&key).map(|weight| weight.0);
                    prop_assert_eq!(found, model.get(&key).copied());
                    let touched = sieve.change_if_kept(&key, now, |weight, _| weight.0);
                    prop_assert_eq!(touched, model.get(&key).copied());
                }
            }
        }
    }
}
