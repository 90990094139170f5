//! Opening a maildrop for a session: lock first, then the cheapest true snapshot.
//!
//! A shard calls [`Maildrops::open_unchanged`], which never waits. Only where it
//! has no answer does the connection send [`Maildrops::open`] to the pool.

use std::path::Path;
use std::sync::Arc;

use super::cache::SnapshotCache;
use super::error::OpenError;
use super::lock::{InUse, LockGuard, LockTable};
use super::scan;
use super::snapshot::Snapshot;
use super::stamps::{self, Freshness};

/// All maildrops of the process. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Maildrops {
    cache: Arc<SnapshotCache>,
    locks: LockTable,
}

/// A maildrop that belongs to one session until this is dropped.
#[derive(Debug)]
pub struct Opened {
    /// The messages.
    pub snapshot: Arc<Snapshot>,
    /// The hold on the maildrop.
    pub lock: LockGuard,
}

impl Maildrops {
    /// Maildrops whose cached snapshots take at most `cache` octets together.
    pub fn new(cache: usize) -> Self {
        Self {
            cache: Arc::new(SnapshotCache::new(cache)),
            locks: LockTable::new(),
        }
    }

    /// Opens a maildrop that is known and did not change, without waiting; `None`
    /// where it takes [`open`](Self::open) to tell.
    pub fn open_unchanged(&self, path: &Path) -> Result<Option<Opened>, InUse> {
        let Some(snapshot) = self.cache.get(path) else {
            return Ok(None);
        };
        // The lock comes first: what is listed while another session may still
        // delete would be wrong at once.
        let lock = self.locks.try_lock(Arc::clone(snapshot.root()))?;
        Ok(match stamps::current_without_blocking(&snapshot) {
            Freshness::Fresh => Some(Opened { snapshot, lock }),
            Freshness::Changed | Freshness::Unknown => None,
        })
    }

    /// Opens a maildrop whatever it takes, and remembers what it read. BLOCKING.
    pub fn open(&self, path: &Path) -> Result<Opened, OpenError> {
        let root = scan::canonical(path)?;
        let lock = self.locks.try_lock(root.as_path())?;
        let known = self.cache.get(path).filter(|known| **known.root() == *root);
        if let Some(snapshot) = &known
            && stamps::current(snapshot) == Freshness::Fresh
        {
            let snapshot = Arc::clone(snapshot);
            return Ok(Opened { snapshot, lock });
        }
        let snapshot = Arc::new(scan::open_canonical(path, &root, known.as_deref())?);
        self.cache.put(Arc::clone(&snapshot));
        Ok(Opened { snapshot, lock })
    }

    /// The cached snapshots.
    pub fn cache(&self) -> &SnapshotCache {
        &self.cache
    }

    /// The locks.
    pub fn locks(&self) -> &LockTable {
        &self.locks
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn maildrop() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ann");
        for part in ["new", "cur"] {
            fs::create_dir_all(path.join(part)).expect("a folder");
        }
        fs::write(path.join("new/1.a"), "a\n").expect("a message");
        (folder, path)
    }

    #[test]
    fn an_unknown_maildrop_takes_the_pool() {
        let (_folder, path) = maildrop();
        let maildrops = Maildrops::new(1 << 20);
        assert!(maildrops.open_unchanged(&path).expect("free").is_none());
        assert_eq!(maildrops.locks().held(), 0);
        let opened = maildrops.open(&path).expect("it opens");
        assert_eq!(opened.snapshot.len(), 1);
    }

    #[test]
    fn users_whose_paths_meet_exclude_each_other() {
        let (folder, path) = maildrop();
        let alias = folder.path().join("alias");
        std::os::unix::fs::symlink(&path, &alias).expect("a link");
        let maildrops = Maildrops::new(1 << 20);
        let opened = maildrops.open(&path).expect("it opens");
        assert!(matches!(maildrops.open(&alias), Err(OpenError::InUse(_))));
        assert!(maildrops.open_unchanged(&path).is_err());
        drop(opened);
        let opened = maildrops.open(&alias).expect("free by now");
        assert_eq!(opened.snapshot.len(), 1);
    }

    #[test]
    fn a_scan_knows_what_the_one_before_read() {
        let (_folder, path) = maildrop();
        let maildrops = Maildrops::new(1 << 20);
        drop(maildrops.open(&path).expect("it opens"));
        fs::write(path.join("new/2.b"), "b\n").expect("a message");
        // Rewritten in place: were it read again, the octets would differ.
        fs::write(path.join("new/1.a"), "a longer message\n").expect("a message");
        let opened = maildrops.open(&path).expect("it opens");
        let octets = |n| {
            let number = crate::proto::MessageNumber::new(n).expect("not 0");
            opened
                .snapshot
                .octets(number)
                .map(crate::proto::Octets::get)
        };
        assert_eq!([octets(1), octets(2), octets(3)], [Some(3), Some(3), None]);
    }
}
