//! One session at a time: exclusive locks on maildrops (RFC 1939, section 8).
//!
//! A lock lives in this process's memory, and behind that in an open file
//! ([`place`]), so nothing is left behind when its session ends, however that
//! ends: the guard's drop is the release, also in an unwind. The key is the
//! maildrop's canonical path, not the user's name: two users whose paths meet share
//! one lock.
//!
//! The table is split by the key's hash and touched twice in a session's life;
//! no lock of it is ever held across anything but a hash map's operation.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::error::Error;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::auth::UserName;
use crate::limits;

mod place;
mod range;

pub(super) use place::{Held, LockPlace, LockPlaces};

type Holds = HashMap<Arc<Path>, Hold>;
type Part = Mutex<Holds>;

/// A maildrop that is held.
#[derive(Debug)]
struct Hold {
    since: Instant,
    by: Option<Box<Holder>>,
}

/// Who has a maildrop, where that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Whose session it is.
    pub user: UserName,
    /// The client's address.
    pub from: IpAddr,
    /// Where the session is.
    pub berth: Berth,
}

/// A session's place in the process, which no other session ever has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Berth {
    /// The shard.
    pub shard: usize,
    /// The place on that shard's roster.
    pub key: usize,
    /// How many had come to the shard by then.
    pub number: u64,
}

/// The maildrops that sessions of this process hold. Cloning shares the table.
#[derive(Clone, Debug)]
pub struct LockTable {
    table: Arc<Table>,
}

#[derive(Debug)]
struct Table {
    parts: Box<[Part]>,
    hasher: RandomState,
}

impl Table {
    fn part(&self, key: &Path) -> MutexGuard<'_, Holds> {
        let hash = self.hasher.hash_one(key);
        let index = usize::try_from(hash % self.parts.len() as u64).expect("below a length");
        // Every operation under the mutex leaves the map whole.
        self.parts[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl LockTable {
    /// A table in which nothing is locked.
    pub fn new() -> Self {
        Self {
            table: Arc::new(Table {
                parts: (0..limits::LOCK_TABLE_PARTS)
                    .map(|_| Part::default())
                    .collect(),
                hasher: RandomState::new(),
            }),
        }
    }

    /// Takes the lock of the maildrop at `key`, a canonical path, or says since
    /// when another session has it. Never waits for that session.
    pub fn try_lock(&self, key: impl Into<Arc<Path>>) -> Result<LockGuard, InUse> {
        let key = key.into();
        match self.table.part(&key).entry(Arc::clone(&key)) {
            Entry::Occupied(held) => Err(InUse {
                since: held.get().since,
            }),
            Entry::Vacant(free) => {
                free.insert(Hold {
                    since: Instant::now(),
                    by: None,
                });
                Ok(LockGuard {
                    table: Arc::clone(&self.table),
                    key,
                    file: None,
                })
            }
        }
    }

    /// Who has the maildrop at a canonical path, if that was said.
    pub fn holder(&self, key: &Path) -> Option<Holder> {
        let part = self.table.part(key);
        part.get(key)?.by.as_deref().cloned()
    }

    /// How many maildrops are locked.
    pub fn held(&self) -> usize {
        let parts = self.table.parts.iter();
        parts
            .map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).len())
            .sum()
    }
}

impl Default for LockTable {
    fn default() -> Self {
        Self::new()
    }
}

/// A session's hold on its maildrop. Dropping it, on any thread, lets go.
#[derive(Debug)]
#[must_use = "the lock is held only as long as its guard"]
pub struct LockGuard {
    table: Arc<Table>,
    key: Arc<Path>,
    /// `None` where there is nothing on the disk to hold.
    file: Option<Held>,
}

impl LockGuard {
    /// The same, with the hold on the file.
    pub(super) fn with(mut self, file: Option<Held>) -> Self {
        self.file = file;
        self
    }

    /// Says whose hold this is.
    pub fn identify(&self, holder: Holder) {
        if let Some(held) = self.table.part(&self.key).get_mut(&*self.key) {
            held.by = Some(Box::new(holder));
        }
    }

    /// Whether letting go may have to wait for a file server: then it is not for a
    /// shard to do.
    pub fn may_wait(&self) -> bool {
        self.file.as_ref().is_some_and(Held::may_wait)
    }

    /// The canonical path of the maildrop.
    pub fn key(&self) -> &Path {
        &self.key
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        // Who finds the table free must find the file free.
        self.file = None;
        let held = self.table.part(&self.key).remove(&self.key);
        debug_assert!(held.is_some(), "a guard stands for an entry");
    }
}

/// Another session has the maildrop, of this process or of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse {
    /// When that session took it.
    pub since: Instant,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "another session has the maildrop: it ends with QUIT, a closed connection or the \
             idle limit (limits.idle)",
        )
    }
}

impl Error for InUse {}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn a_second_session_is_told_since_when() {
        let before = Instant::now();
        let table = LockTable::new();
        let guard = table.try_lock(Path::new("/m/a")).expect("free");
        let held = table.try_lock(Path::new("/m/a")).expect_err("held");
        assert!(held.since >= before && held.since <= Instant::now());
        assert_eq!(guard.key(), Path::new("/m/a"));
        let other = table.try_lock(Path::new("/m/b")).expect("another maildrop");
        drop(guard);
        let again = table.try_lock(Path::new("/m/a")).expect("free again");
        drop((again, other));
        assert_eq!(table.held(), 0);
    }

    #[test]
    fn a_guard_dropped_by_an_unwind_frees() {
        let table = LockTable::new();
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _guard = table.try_lock(Path::new("/m/a")).expect("free");
            resume_unwind(Box::new(()));
        }));
        assert!(unwound.is_err());
        assert_eq!(table.held(), 0);
        assert!(table.try_lock(Path::new("/m/a")).is_ok());
    }

    #[test]
    fn a_guard_moves_to_another_thread_and_frees_there() {
        let table = LockTable::new();
        let guard = table.try_lock(Path::new("/m/a")).expect("free");
        thread::spawn(move || drop(guard)).join().expect("no panic");
        assert_eq!(table.held(), 0);
    }

    #[test]
    fn one_of_many_threads_has_a_lock_at_a_time() {
        const THREADS: usize = 8;
        let table = LockTable::new();
        let inside = AtomicU32::new(0);
        let won = AtomicU32::new(0);
        let start = Barrier::new(THREADS);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (table, inside, won, start) = (&table, &inside, &won, &start);
                scope.spawn(move || {
                    start.wait();
                    for round in 0..2_000 {
                        let own = format!("/m/own-{thread}-{round}");
                        let _own = table.try_lock(Path::new(&own)).expect("nobody else's");
                        if let Ok(guard) = table.try_lock(Path::new("/m/shared")) {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            won.fetch_add(1, Ordering::SeqCst);
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(guard);
                        }
                    }
                });
            }
        });
        assert!(won.load(Ordering::SeqCst) > 0);
        assert_eq!(table.held(), 0);
    }
}
