//! Snapshots kept between sessions, bounded in octets of memory.
//!
//! Split by the key's hash, touched once or twice in a session's life, and never
//! trusted: whoever takes a snapshot checks it. One bound holds for all parts
//! together, so that one large maildrop fits as long as the cache could hold it;
//! room is made first in the part that took the new snapshot, least recently used
//! first, then in the others in turn. So the order of eviction is exact within a
//! part and roughly right across them, and no two parts are ever locked at once.
//! Snapshots are dropped outside the locks: an 8 MiB table goes back to the
//! system, which takes time.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;

use super::snapshot::Snapshot;
use crate::limits;

/// What an entry takes besides its snapshot: key, links, slots of map and slab.
const ENTRY_OCTETS: usize = 160;

/// The snapshots that sessions to come may use.
#[derive(Debug)]
pub struct SnapshotCache {
    parts: Box<[Mutex<Part>]>,
    hasher: RandomState,
    bound: usize,
    memory: AtomicUsize,
}

/// Entries in a slab, linked from the least to the most recently used.
#[derive(Debug, Default)]
struct Part {
    index: HashMap<Arc<Path>, usize>,
    entries: Slab<Entry>,
    oldest: Option<usize>,
    newest: Option<usize>,
}

#[derive(Debug)]
struct Entry {
    key: Arc<Path>,
    snapshot: Arc<Snapshot>,
    memory: usize,
    older: Option<usize>,
    newer: Option<usize>,
}

impl SnapshotCache {
    /// A cache that takes at most `bound` octets.
    pub fn new(bound: usize) -> Self {
        let parts = (0..limits::SNAPSHOT_CACHE_PARTS).map(|_| Mutex::default());
        Self {
            parts: parts.collect(),
            hasher: RandomState::new(),
            bound,
            memory: AtomicUsize::new(0),
        }
    }

    /// The snapshot last put for the maildrop at `key`, the path that the template
    /// gave.
    pub fn get(&self, key: &Path) -> Option<Arc<Snapshot>> {
        let mut part = self.part(self.part_of(key));
        let at = *part.index.get(key)?;
        part.unlink(at);
        part.link_newest(at);
        Some(Arc::clone(&part.entries[at].snapshot))
    }

    /// Keeps a snapshot under [`Snapshot::asked`], in place of an earlier one. One
    /// larger than the cache is not kept, nor is the one it replaces.
    pub fn put(&self, snapshot: Arc<Snapshot>) {
        let own = self.part_of(snapshot.asked());
        let memory = snapshot.memory() + snapshot.asked().as_os_str().len() + ENTRY_OCTETS;
        let replaced = {
            let mut part = self.part(own);
            let replaced = part.take(snapshot.asked());
            // Counted under the lock: an entry is never evicted before it counts.
            if let Some(entry) = &replaced {
                self.memory.fetch_sub(entry.memory, Ordering::Relaxed);
            }
            if memory <= self.bound {
                part.insert(snapshot, memory);
                self.memory.fetch_add(memory, Ordering::Relaxed);
            }
            replaced
        };
        drop(replaced);
        let parts = self.parts.len();
        (0..parts).for_each(|step| self.make_room((own + step) % parts, step == 0));
    }

    /// Drops what is kept under `key`: it was found to be wrong.
    pub fn forget(&self, key: &Path) {
        let forgotten = self.part(self.part_of(key)).take(key);
        if let Some(entry) = &forgotten {
            self.memory.fetch_sub(entry.memory, Ordering::Relaxed);
        }
    }

    /// Octets that the cache takes now.
    pub fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }

    /// How many snapshots are kept.
    pub fn len(&self) -> usize {
        (0..self.parts.len())
            .map(|at| self.part(at).entries.len())
            .sum()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Evicts from one part until the cache is within its bound or the part is
    /// empty; `spare_newest` keeps what was just put.
    fn make_room(&self, at: usize, spare_newest: bool) {
        while self.memory() > self.bound {
            let evicted = {
                let mut part = self.part(at);
                let oldest = part
                    .oldest
                    .filter(|oldest| !spare_newest || part.newest != Some(*oldest));
                let Some(oldest) = oldest else { return };
                let entry = part.remove(oldest);
                self.memory.fetch_sub(entry.memory, Ordering::Relaxed);
                entry
            };
            drop(evicted);
        }
    }

    fn part_of(&self, key: &Path) -> usize {
        let hash = self.hasher.hash_one(key);
        usize::try_from(hash % self.parts.len() as u64).expect("below a length")
    }

    fn part(&self, at: usize) -> MutexGuard<'_, Part> {
        // Nothing below panics but on a bug in this file.
        self.parts[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    fn insert(&mut self, snapshot: Arc<Snapshot>, memory: usize) {
        let key = Arc::clone(snapshot.asked());
        let at = self.entries.insert(Entry {
            key: Arc::clone(&key),
            snapshot,
            memory,
            older: None,
            newer: None,
        });
        self.index.insert(key, at);
        self.link_newest(at);
    }

    fn take(&mut self, key: &Path) -> Option<Entry> {
        let at = *self.index.get(key)?;
        Some(self.remove(at))
    }

    fn remove(&mut self, at: usize) -> Entry {
        self.unlink(at);
        let entry = self.entries.remove(at);
        self.index.remove(&entry.key);
        entry
    }

    fn unlink(&mut self, at: usize) {
        let (older, newer) = {
            let entry = &mut self.entries[at];
            (entry.older.take(), entry.newer.take())
        };
        match older {
            Some(older) => self.entries[older].newer = newer,
            None => self.oldest = newer,
        }
        match newer {
            Some(newer) => self.entries[newer].older = older,
            None => self.newest = older,
        }
    }

    fn link_newest(&mut self, at: usize) {
        self.entries[at].older = self.newest;
        match self.newest {
            Some(newest) => self.entries[newest].newer = Some(at),
            None => self.oldest = Some(at),
        }
        self.newest = Some(at);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn snapshot(root: &str, messages: usize) -> Arc<Snapshot> {
        let mut builder = Snapshot::builder(root);
        for message in 0..messages {
            builder = builder.message(format!("{message}.x"), 1);
        }
        Arc::new(builder.build())
    }

    #[test]
    fn what_was_put_is_found_and_replaced() {
        let cache = SnapshotCache::new(1 << 20);
        assert!(cache.get(Path::new("/m/a")).is_none());
        cache.put(snapshot("/m/a", 1));
        cache.put(snapshot("/m/a", 2));
        let found = cache.get(Path::new("/m/a")).expect("it was put");
        assert_eq!((found.len(), cache.len()), (2, 1));
    }

    #[test]
    fn one_part_forgets_the_least_recently_used_first() {
        let mut part = Part::default();
        for root in ["/a", "/b", "/c"] {
            part.insert(snapshot(root, 0), 1);
        }
        let at = part.index[Path::new("/a")];
        part.unlink(at);
        part.link_newest(at);
        let order: Vec<_> = std::iter::from_fn(|| part.oldest.map(|at| part.remove(at)))
            .map(|entry| entry.key.display().to_string())
            .collect();
        assert_eq!(order, ["/b", "/c", "/a"]);
        assert!(part.newest.is_none() && part.index.is_empty());
    }

    #[test]
    fn a_snapshot_larger_than_the_cache_is_not_kept_and_one_as_large_as_a_part_is() {
        let cache = SnapshotCache::new(64 << 10);
        cache.put(snapshot("/m/a", 1));
        cache.put(snapshot("/m/a", 4_000));
        assert!(cache.get(Path::new("/m/a")).is_none());
        assert_eq!(cache.memory(), 0);
        cache.put(snapshot("/m/a", 2_000));
        assert!(cache.get(Path::new("/m/a")).is_some());
    }

    #[test]
    fn threads_that_put_and_get_leave_it_within_its_bound() {
        let cache = SnapshotCache::new(32 << 10);
        thread::scope(|scope| {
            for thread in 0..4 {
                let cache = &cache;
                scope.spawn(move || {
                    for round in 0..500_usize {
                        let root = format!("/m/{}", (round * 7 + thread) % 90);
                        cache.put(snapshot(&root, round % 9));
                        let found = cache.get(Path::new(&root));
                        assert!(found.is_none_or(|found| **found.asked() == *Path::new(&root)));
                    }
                });
            }
        });
        assert!(cache.memory() <= 32 << 10, "{}", cache.memory());
        let counted: usize = (0..cache.parts.len())
            .map(|at| {
                cache
                    .part(at)
                    .entries
                    .iter()
                    .map(|(_, e)| e.memory)
                    .sum::<usize>()
            })
            .sum();
        assert_eq!(cache.memory(), counted);
    }

    proptest! {
        #[test]
        fn any_order_of_puts_stays_within_the_bound(
            puts in proptest::collection::vec((0_u8..20, 0_usize..60), 1..60),
        ) {
            let cache = SnapshotCache::new(8 << 10);
            for (key, messages) in puts {
                let root = format!("/m/{key}");
                let put = snapshot(&root, messages);
                let fits = put.memory() + root.len() + ENTRY_OCTETS <= 8 << 10;
                cache.put(put);
                prop_assert!(cache.memory() <= 8 << 10);
                let found = cache.get(Path::new(&root)).map(|found| found.len());
                prop_assert_eq!(found, fits.then_some(messages));
            }
        }
    }
}
