//! Opening a maildrop for a session: lock first, then the cheapest true snapshot.
//!
//! A shard calls [`Maildrops::open_unchanged`], which never waits. Only where it
//! has no answer does the connection send [`Maildrops::open`] to the pool. There
//! the index takes the place of the snapshot in memory, if it has one that is as
//! new, and a listing the place of both; what it found is in the index before the
//! session sees it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::aside;
use super::cache::SnapshotCache;
use super::earlier::{Cutoffs, Sources};
use super::error::{Anew, Cause, OpenError};
use super::guard::{self, Before, Checked};
use super::index::{Contents, Index, Position};
use super::listing::Root;
use super::lock::{Holder, InUse, LockGuard, LockPlace, LockPlaces, LockTable};
use super::message::Message;
use super::scan::{self, Gone, Reading};
use super::snapshot::{Knowledge, Snapshot};
use super::stamps::{self, Freshness, Standing};
use super::template::Template;
use super::update::Rules;
use crate::auth::Account;
use crate::proto::MessageNumber;

/// Where a user's mail is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The maildrop.
    pub path: PathBuf,
    /// The folder that is there wherever maildrops are, if that is known.
    pub top: Option<Arc<Path>>,
    /// Its index, where that is not beside new/ and cur/.
    pub index: Option<Elsewhere>,
}

/// Where an index is that is not beside its maildrop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The file.
    pub path: PathBuf,
    /// A folder that it is below, which is the operator's to make: where it is missing a
    /// disk is not mounted. Folders below it are made.
    pub top: Arc<Path>,
}

/// All maildrops of the process. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Maildrops {
    cache: Arc<SnapshotCache>,
    locks: LockTable,
    places: Arc<LockPlaces>,
    sources: Arc<Sources>,
    rules: Rules,
    counters: Arc<Counters>,
}

/// What happened to indexes. Touched where a file is read or written anyway.
#[derive(Debug, Default)]
pub struct Counters {
    damaged: AtomicU64,
    unwritten: AtomicU64,
    corrected: AtomicU64,
    guarded: AtomicU64,
    pub(super) expired: AtomicU64,
}

impl Counters {
    /// Indexes that were found damaged.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Indexes and cutoffs that could not be written.
    pub fn unwritten(&self) -> u64 {
        self.unwritten.load(Ordering::Relaxed)
    }

    /// Logins that were refused because most unique-ids would have changed.
    pub fn guarded(&self) -> u64 {
        self.guarded.load(Ordering::Relaxed)
    }

    /// Messages removed because they had been kept long enough.
    pub fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    /// Messages whose size was not what their name or the index said.
    pub fn corrected(&self) -> u64 {
        self.corrected.load(Ordering::Relaxed)
    }
}

/// A maildrop whose locks are held.
pub(super) struct Hold {
    pub(super) lock: LockGuard,
    /// Its folder, where it exists, and where its lock is.
    pub(super) opened: Option<(Root, LockPlace)>,
}

/// A maildrop that is being opened.
pub(super) struct Place<'a> {
    pub(super) asked: &'a Path,
    pub(super) root: &'a Root,
    pub(super) index: &'a Index,
    /// No index says all that was announced.
    pub(super) unknown: bool,
    /// The index is for every node that serves the maildrop.
    pub(super) shared: bool,
}

/// Whether the index holds the snapshot that a listing begins with.
#[derive(Clone, Copy)]
enum Stored {
    /// There is no index.
    Nowhere,
    /// There is one that cannot be appended to.
    Damaged,
    /// It does.
    At(Position),
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
            places: Arc::default(),
            sources: Arc::new(Sources::name()),
            rules: Rules::default(),
            counters: Arc::default(),
        }
    }

    /// The same, with unique-ids from these sources.
    #[must_use]
    pub fn with_sources(self, sources: Sources) -> Self {
        Self {
            sources: Arc::new(sources),
            ..self
        }
    }

    /// The same, with these rules for the end of sessions.
    #[must_use]
    pub fn with_rules(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// Opens a maildrop that is known and did not change, without waiting; `None`
    /// where it takes [`open`](Self::open) to tell.
    pub fn open_unchanged(&self, path: &Path) -> Result<Option<Opened>, InUse> {
        let Some(known) = self.cache.get(path) else {
            return Ok(None);
        };
        let opened = self.hold_known(known)?;
        Ok(opened.filter(|opened| {
            matches!(
                stamps::current_without_blocking(&opened.snapshot),
                Freshness::Fresh
            )
        }))
    }

    /// Opens a maildrop that is known, without a look at it and without waiting; `None`
    /// where it takes [`open`](Self::open).
    ///
    /// The session is as one that began when the maildrop was looked at: the listing was
    /// true then, and the lock is its own now. What other programs removed since is told
    /// as gone when it is asked for, what they renamed is found by its unique name, what
    /// they delivered is shown to a later session, and what popcore itself removed is in
    /// no listing that is kept. So it may fetch and delete as any other.
    pub fn open_as_seen_last(&self, path: &Path) -> Result<Option<Opened>, InUse> {
        let Some(known) = self.cache.get(path) else {
            return Ok(None);
        };
        let opened = self.hold_known(known)?;
        Ok(opened.filter(|opened| self.is_seen_last(opened)))
    }

    /// Whether what is held is as it was last seen. A session that ended between the look
    /// at the cache and the hold on the locks may have removed what is listed.
    fn is_seen_last(&self, opened: &Opened) -> bool {
        let last = self.cache.get(opened.snapshot.asked());
        last.is_some_and(|last| Arc::ptr_eq(&last, &opened.snapshot))
    }

    /// Takes the locks of a maildrop that is known, without waiting.
    fn hold_known(&self, snapshot: Arc<Snapshot>) -> Result<Option<Opened>, InUse> {
        // The locks come first: what is listed while another session may still
        // delete would be wrong at once.
        let mut lock = self.locks.try_lock(Arc::clone(snapshot.root()))?;
        let standing = snapshot.standing();
        if !matches!(standing, Standing::Settled { local: true, .. }) {
            return Ok(None);
        }
        if !standing.is_nothing() {
            let Some(file) = snapshot
                .knowledge()
                .lock
                .try_without_blocking(snapshot.root())?
            else {
                return Ok(None);
            };
            lock = lock.with(Some(file));
        }
        Ok(Some(Opened { snapshot, lock }))
    }

    /// Opens a maildrop whatever it takes, and remembers what it read. BLOCKING.
    pub fn open(&self, at: &Location) -> Result<Opened, OpenError> {
        let root = scan::canonical(&at.path)?;
        let Hold { lock, opened } = self.hold(&root)?;
        let known = self.cache.get(&at.path);
        let known = known.filter(|known| **known.root() == *root);
        if let Some(snapshot) = &known
            && stamps::current(snapshot) == Freshness::Fresh
        {
            let snapshot = Arc::clone(snapshot);
            return Ok(Opened { snapshot, lock });
        }
        let snapshot = if let Some((opened, place)) = opened {
            let snapshot = self.refresh(at, &opened, known.as_deref())?;
            let kept = self.rules.undelete.and_then(|_| aside::oldest(&opened));
            let elsewhere = at.index.as_ref().map(|index| (*index.path).into());
            snapshot.with_places(elsewhere, place).with_aside(kept)
        } else {
            self.is_there(at)?;
            scan::absent(&at.path, &root)
        };
        let snapshot = Arc::new(snapshot);
        self.cache.put(Arc::clone(&snapshot));
        Ok(Opened { snapshot, lock })
    }

    /// That a maildrop does not exist means that its user never got mail only where what
    /// is above all maildrops is there. BLOCKING.
    fn is_there(&self, at: &Location) -> Result<(), OpenError> {
        let Some(top) = &at.top else { return Ok(()) };
        let missing = if top.is_dir() {
            self.places.missing()
        } else {
            Some(top.to_path_buf())
        };
        match missing {
            None => Ok(()),
            Some(folder) => Err(OpenError::of(&folder, Cause::NotMounted("maildrop.path"))),
        }
    }

    /// Takes both locks of the maildrop at a canonical path, and opens it if it is
    /// there. BLOCKING.
    pub(super) fn hold(&self, root: &Path) -> Result<Hold, OpenError> {
        let lock = self.locks.try_lock(root)?;
        let Some(opened) = Root::open(root)? else {
            return Ok(Hold { lock, opened: None });
        };
        let place = self.places.find(root)?;
        let held = place.try_lock(root)?;
        Ok(Hold {
            lock: lock.with(held),
            opened: Some((opened, place)),
        })
    }

    /// Has maildrops below `top` share the files that their locks are in: the fixed
    /// beginning of all paths, where there is one. BLOCKING, and before the first
    /// session.
    pub fn share_locks(&self, top: &Path) -> io::Result<()> {
        self.places.share_below(top)
    }

    /// A true snapshot in place of `known`, which is none.
    fn refresh(
        &self,
        at: &Location,
        root: &Root,
        known: Option<&Snapshot>,
    ) -> Result<Snapshot, OpenError> {
        let index = at.index(root.path());
        let there = Place {
            asked: &at.path,
            root,
            index: &index,
            unknown: false,
            shared: at.index.is_none(),
        };
        match index.open()? {
            Some(file) if known.and_then(indexed) == Some(file.position) => self.list(
                &there,
                known,
                Stored::At(file.position),
                &Gone::Unread(&index),
            ),
            Some(file) => {
                let (octets, position) = index.read(file)?;
                self.recall(&there, known, &octets, position)
            }
            // It was never there, or taken away: what is known goes into a new one.
            None => {
                let unknown = known.is_none();
                let there = Place { unknown, ..there };
                self.list(&there, known, Stored::Nowhere, &Gone::Known(&[]))
            }
        }
    }

    /// What an index that this process did not write last says, or a listing that
    /// begins with it.
    fn recall(
        &self,
        there: &Place<'_>,
        known: Option<&Snapshot>,
        octets: &[u8],
        position: Position,
    ) -> Result<Snapshot, OpenError> {
        let contents = Contents::read(octets);
        if let Some(version) = contents.foreign_version() {
            let cause = Cause::Anew(Anew::Newer { version });
            return Err(OpenError::of(there.index.path(), cause));
        }
        if let Some(damage) = contents.damage() {
            self.counters.damaged.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                "{}: {damage}; what it says of {} messages is used, and it is made anew; it is \
                 kept beside it as .damaged",
                there.index.path().display(),
                contents.len()
            );
            there.index.set_aside();
        }
        let root = there.root;
        let standing = match contents.kept() {
            Some(kept) => kept.standing(root.stamps()?, stamps::is_local(root.path())),
            None => Standing::Unsettled,
        };
        let knowledge = Knowledge {
            standing,
            trust: contents.trust(),
            retired: contents.retired(),
            newest: contents.newest(),
            due: contents.due(),
            index: Some(position),
            ..Knowledge::none()
        };
        let damaged = contents.damage().is_some();
        let (table, gone) = contents.into_parts();
        let recalled = Snapshot::new(there.asked, root.path(), knowledge, table);
        let gone = Gone::Known(&gone);
        if damaged {
            // What is in memory was whole.
            let best = known.filter(|known| known.len() >= recalled.len());
            let unknown = best.is_none();
            let there = Place { unknown, ..*there };
            let previous = best.unwrap_or(&recalled);
            return self.list(&there, Some(previous), Stored::Damaged, &gone);
        }
        let is_kept = recalled.is_empty() || self.sources.have_cutoffs(root);
        if matches!(standing, Standing::Settled { .. }) && is_kept {
            return Ok(recalled);
        }
        self.list(there, Some(&recalled), Stored::At(position), &gone)
    }

    /// Lists the maildrop and has the index say so.
    fn list(
        &self,
        there: &Place<'_>,
        previous: Option<&Snapshot>,
        stored: Stored,
        gone: &Gone<'_>,
    ) -> Result<Snapshot, OpenError> {
        let index = there.index;
        let (snapshot, unkept) = self.announce(there, previous, Reading::New, gone)?;
        let old = match stored {
            Stored::Nowhere if snapshot.is_empty() => return Ok(snapshot),
            Stored::Nowhere | Stored::Damaged => None,
            Stored::At(position) => previous.zip(Some(position)),
        };
        let remembered = match gone {
            Gone::Known(messages) => messages,
            Gone::Unread(_) => &[][..],
        };
        match index.save(old, &snapshot, remembered) {
            Ok(position) => {
                if unkept.is_some() {
                    // What it says by now is wrong; a later listing makes it from the index.
                    Cutoffs::remove(there.root);
                }
                Ok(snapshot.with_index(Some(position)))
            }
            Err(error) => {
                self.unwritten(index, &error);
                unkept.map_or(Ok(snapshot), Err)
            }
        }
    }

    /// Lists the maildrop, asks the guard, and has the maildrop keep how far the lists of
    /// earlier servers count. Where it cannot, though it ought to, all that remembers is an
    /// index that every node has, if there is one: tells why.
    pub(super) fn announce(
        &self,
        there: &Place<'_>,
        previous: Option<&Snapshot>,
        reading: Reading,
        gone: &Gone<'_>,
    ) -> Result<(Snapshot, Option<OpenError>), OpenError> {
        let (asked, root) = (there.asked, there.root);
        let list = || scan::list(asked, root, previous, &self.sources, reading, gone);
        let mut listed = list()?;
        let before = Before {
            known: previous,
            gone,
            unknown: there.unknown,
        };
        let checked = guard::check(&before, &listed, root, &self.sources);
        let checked = checked.inspect_err(|_| {
            self.counters.guarded.fetch_add(1, Ordering::Relaxed);
        });
        if checked? == Checked::Forgotten {
            listed = list()?;
        }
        let mut unkept = None;
        if let Some(change) = &listed.change
            && let Err(error) = change.cutoffs.write(root)
        {
            self.counters.unwritten.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("{error}");
            unkept = change.binds.then_some(error);
        }
        if !there.shared
            && let Some(error) = unkept
        {
            return Err(error);
        }
        Ok((listed.snapshot, unkept))
    }

    /// Counts a message again whose file is not what the snapshot says, and has the
    /// index say so. The session goes on with what it was told; the next one is told
    /// the truth. BLOCKING, and for the session that holds the maildrop.
    pub fn recount(&self, snapshot: &Snapshot, message: MessageNumber) {
        // Whatever becomes of this, nobody is to be told the same again.
        self.cache.forget(snapshot.asked());
        let (Some(known), Ok(Some(facts))) =
            (snapshot.message(message), scan::count(snapshot, message))
        else {
            // It is gone, or cannot be read: the next listing says so.
            return;
        };
        self.counters.corrected.fetch_add(1, Ordering::Relaxed);
        let index = index_of(snapshot);
        if let Err(error) = index.correct(&Message { facts, ..known }, known.facts.are_stated()) {
            self.counters.unwritten.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("{}: cannot be corrected: {error}", index.path().display());
        }
    }

    pub(super) fn unwritten(&self, index: &Index, error: &io::Error) {
        self.counters.unwritten.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            "{}: cannot be written: {error}; the maildrop is served without, and read again \
             after the next start: give the user that popcore runs as write permission on the \
             folder, or set maildrop.index",
            index.path().display()
        );
    }

    /// Which session of this process has a maildrop, if it said so. BLOCKING.
    pub fn holder(&self, at: &Location) -> Option<Holder> {
        self.locks.holder(&scan::canonical(&at.path).ok()?)
    }

    /// Whether the maildrop at `path` is known to lie on a file system of this
    /// machine. Never waits.
    pub fn is_local(&self, path: &Path) -> bool {
        self.cache.get(path).is_some_and(|known| known.is_local())
    }

    pub(super) fn rules(&self) -> Rules {
        self.rules
    }

    /// The cached snapshots.
    pub fn cache(&self) -> &SnapshotCache {
        &self.cache
    }

    /// The locks.
    pub fn locks(&self) -> &LockTable {
        &self.locks
    }

    /// What happened to indexes.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

impl Location {
    /// Where the mail of a user is, and its index unless that is beside it.
    pub fn of(
        account: Account,
        mail: &Template,
        index: Option<&Template>,
    ) -> Result<Self, OpenError> {
        let (user, home) = (account.user, account.home);
        let expand = |template: &Template| {
            let path = template.expand(&user, home.as_deref());
            path.map_err(|error| OpenError::no_path(&user, error))
        };
        let elsewhere = |template: &Template| -> Result<_, OpenError> {
            let path = expand(template)?;
            let top = match (template.top(), &home) {
                (Some(top), _) => Arc::clone(top),
                (None, Some(home)) => home.as_path().into(),
                (None, None) => Path::new("/").into(),
            };
            Ok(Elsewhere { path, top })
        };
        let (path, top) = match account.mail {
            Some(path) => (path, None),
            None => (expand(mail)?, mail.top().cloned()),
        };
        Ok(Self {
            path,
            top,
            index: index.map(elsewhere).transpose()?,
        })
    }

    /// A maildrop whose index is beside it.
    pub fn beside(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            top: None,
            index: None,
        }
    }

    pub(super) fn index(&self, root: &Path) -> Index {
        match &self.index {
            None => Index::beside(root),
            Some(Elsewhere { path, top }) => Index::below(Arc::clone(top), path.clone()),
        }
    }
}

/// The index of a maildrop that is open.
pub(super) fn index_of(snapshot: &Snapshot) -> Index {
    match &snapshot.knowledge().elsewhere {
        None => Index::beside(snapshot.root()),
        Some(path) => Index::at(path.to_path_buf()),
    }
}

/// Where the index holds a snapshot, if it does.
fn indexed(snapshot: &Snapshot) -> Option<Position> {
    snapshot.knowledge().index
}

#[cfg(test)]
mod tests;
