//! Where the lock of a maildrop lies, so that every process and node that reaches
//! the maildrop finds the same one, whatever its configuration says.
//!
//! The lock is held as long as the session: it is what tells two nodes apart that
//! would serve one maildrop at the same time (RFC 1939, section 8). A file of its
//! own beside new/ and cur/ (`popcore.lock`) is simplest, and costs each session a
//! descriptor and three system calls. A server with many sessions shares a few
//! files instead: a folder `.popcore.locks` above the maildrops holds
//! [`limits::LOCK_FILES`] of them, each a process opens once, and a maildrop is a
//! lane of one of them ([`range`](super::range)), told by the inode of its directory.
//!
//! **Which of the two** is told by the disk alone: the nearest folder of that name
//! in a directory above the maildrop and on its file system, else the file beside.
//! So a command that was given a path, a server with another template and a node
//! that mounts the file system elsewhere all agree. A server makes the folder where
//! `maildrop.path` has its first placeholder, before its first session; made by hand
//! elsewhere, it is made while no popcore runs, because sessions that began without
//! it are not seen by those that come with it.
//!
//! **One lane for two maildrops** happens only on a file system with inodes of more
//! than 39 bits, once in half a billion pairs that are open at the same time. Then
//! the second session is refused as if the maildrop were in use.
//!
//! **Why so many files.** The kernel keeps the locks of a file in a list. Measured,
//! one lock taken and let go beside others: 0.4 us alone, 0.6 us beside 60, 3.6 us
//! beside 400, 14 us beside 1,000 and 885 us beside 15,000. With 256 files, 15,000
//! sessions are 60 in each, and 100,000 are 400. A file of its own that is opened
//! and closed took 1.3 us.
//!
//! **Where no file can be made.** A server that may not write beside new/ and cur/, and
//! to these it may, could still remove messages: there the file is in cur/, or in new/,
//! under a name with a dot, which no reader of a Maildir takes for a message. All
//! servers that have no more rights find it there; the file beside, once it exists and
//! may not be opened, refuses the session. Who may write to neither can remove nothing,
//! and so has the maildrop within its own process alone
//! ([`LockTable`](super::LockTable)), as on a file system that takes no writes.
//!
//! Rejected: the place of the index, which may be a disk of one node; a setting,
//! which two servers may have differently; descriptors kept in the ring's table of
//! files, which before Linux 6.13 frees a lock some time after it was let go.
//!
//! No file is ever written, and none removed: another process could then lock a
//! second file of the same name.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::super::belongings;
use super::super::error::{Attempt, OpenError};
use super::super::stamps;
use super::InUse;
use super::range::{self, LANES, Lane, Refusal};
use crate::limits;

/// The file beside new/ and cur/.
const BESIDE: &str = "popcore.lock";
/// The same in cur/ or new/.
const WITHIN: &str = ".popcore.lock";
/// The folder above maildrops. No part of a user's name begins with a dot.
const FOLDER: &str = ".popcore.locks";

const FLAGS: OFlags = OFlags::RDWR
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);
const HERE: ResolveFlags = ResolveFlags::NO_SYMLINKS.union(ResolveFlags::NO_MAGICLINKS);

/// Where the lock of one maildrop is.
#[derive(Clone, Debug, Default)]
pub(in super::super) enum LockPlace {
    /// In a file of its own.
    #[default]
    Beside,
    /// In a file that others share.
    Above(Arc<Folder>, Seat),
}

/// A maildrop's lane, and the file it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Seat {
    file: u8,
    lane: Lane,
}

const _: () = assert!(limits::LOCK_FILES == 1 << u8::BITS);

impl Seat {
    /// Another one for each inode of up to 39 bits.
    fn of(inode: u64) -> Self {
        const BITS: u32 = u8::BITS + LANES;
        let folded = inode ^ (inode >> BITS);
        // An odd factor: neighbours spread over the files, and none meet.
        let mixed = folded.wrapping_mul(0x9E37_79B9_7F4A_7C15) & ((1 << BITS) - 1);
        Self {
            file: u8::try_from(mixed >> LANES).expect("eight bits"),
            lane: Lane::new(u32::try_from(mixed & u64::from(u32::MAX)).expect("masked")),
        }
    }
}

/// The folders that maildrops of this process have their locks in.
#[derive(Debug, Default)]
pub(in super::super) struct LockPlaces {
    folders: Mutex<HashMap<Identity, Weak<Folder>>>,
    /// The server's own, which is there as long as the server.
    own: Mutex<Option<Arc<Folder>>>,
}

/// Device and inode.
type Identity = (u64, u64);

impl LockPlaces {
    /// Where the lock of the maildrop at a canonical path is, which exists.
    /// BLOCKING.
    pub(in super::super) fn find(&self, root: &Path) -> Result<LockPlace, OpenError> {
        let fault = |error: &io::Error| {
            let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
            OpenError::system(Attempt::Lock, root, errno)
        };
        let there = fs::metadata(root).map_err(|error| fault(&error))?;
        let above = root.parent().map(|above| nearest(above, there.dev()));
        match above.transpose().map_err(|error| fault(&error))?.flatten() {
            Some((identity, path)) => {
                let folder = self.folder(identity, path);
                Ok(LockPlace::Above(folder, Seat::of(there.ino())))
            }
            None => Ok(LockPlace::Beside),
        }
    }

    /// Has maildrops below `top`, which exists, share files from now on, and makes
    /// the folder unless there is one already. BLOCKING, and before the first
    /// session.
    pub(in super::super) fn share_below(&self, top: &Path) -> io::Result<()> {
        let top = fs::canonicalize(top)?;
        let device = fs::metadata(&top)?.dev();
        let found = if let Some(found) = nearest(&top, device)? {
            found
        } else {
            let path = top.join(FOLDER);
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            nearest(&top, device)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotADirectory))?
        };
        let folder = self.folder(found.0, found.1);
        *lock(&self.own) = Some(folder);
        Ok(())
    }

    /// The server's own folder, if it is there no more: then no maildrop beside it is.
    /// BLOCKING.
    pub(in super::super) fn missing(&self) -> Option<PathBuf> {
        let own = lock(&self.own).clone()?;
        let missing = fs::symlink_metadata(&own.path).is_err();
        missing.then(|| own.path.clone())
    }

    fn folder(&self, identity: Identity, path: PathBuf) -> Arc<Folder> {
        let mut folders = lock(&self.folders);
        if let Some(known) = folders.get(&identity).and_then(Weak::upgrade) {
            return known;
        }
        folders.retain(|_, folder| folder.strong_count() > 0);
        let folder = Arc::new(Folder::new(path));
        folders.insert(identity, Arc::downgrade(&folder));
        folder
    }
}

/// The nearest folder of locks in `path` or above it on that device.
fn nearest(path: &Path, device: u64) -> io::Result<Option<(Identity, PathBuf)>> {
    for above in path.ancestors() {
        let path = above.join(FOLDER);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() && found.dev() == device => {
                return Ok(Some(((found.dev(), found.ino()), path)));
            }
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// What is done under these locks leaves what they guard whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder of files that many maildrops have their locks in.
#[derive(Debug)]
pub(in super::super) struct Folder {
    path: PathBuf,
    files: Box<[Mutex<Shared>]>,
}

/// One file of them, as this process uses it.
#[derive(Debug, Default)]
struct Shared {
    /// Open once it was needed. Its lanes do not exclude each other within one
    /// process: that is what `held` is for.
    fd: Option<Arc<OwnedFd>>,
    held: HashMap<Lane, Instant>,
}

impl Folder {
    fn new(path: PathBuf) -> Self {
        let files = (0..limits::LOCK_FILES).map(|_| Mutex::default());
        Self {
            path,
            files: files.collect(),
        }
    }

    fn file(&self, seat: Seat) -> MutexGuard<'_, Shared> {
        lock(&self.files[usize::from(seat.file)])
    }

    fn path_of(&self, seat: Seat) -> PathBuf {
        self.path.join(format!("{:02x}", seat.file))
    }

    /// The file, if it is open.
    fn opened(&self, seat: Seat) -> Option<Arc<OwnedFd>> {
        self.file(seat).fd.clone()
    }

    /// The file, which is made where there is none. BLOCKING.
    fn open(&self, seat: Seat) -> Result<Option<Arc<OwnedFd>>, OpenError> {
        if let Some(fd) = self.opened(seat) {
            return Ok(Some(fd));
        }
        let Some(fd) = open(&self.path_of(seat))? else {
            return Ok(None);
        };
        // Another thread may have opened it meanwhile: two descriptions of one
        // process would exclude each other.
        let mut shared = self.file(seat);
        Ok(Some(Arc::clone(
            shared.fd.get_or_insert_with(|| Arc::new(fd)),
        )))
    }

    /// Takes a lane of an open file, which waits for nothing on a local file
    /// system.
    fn take(self: Arc<Self>, seat: Seat, fd: &OwnedFd, local: bool) -> Result<Held, Refusal> {
        match self.file(seat).held.entry(seat.lane) {
            Entry::Occupied(held) => return Err(Refusal::Held(InUse { since: *held.get() })),
            Entry::Vacant(free) => free.insert(Instant::now()),
        };
        if let Err(refusal) = range::take(fd, seat.lane) {
            self.file(seat).held.remove(&seat.lane);
            return Err(refusal);
        }
        Ok(Held::Above {
            local,
            file: seat.file,
            lane: seat.lane,
            folder: self,
        })
    }
}

/// A held lock. Dropping it lets go.
///
/// Small, because every session has one: parts of a [`Seat`] lie side by side.
#[derive(Debug)]
pub(in super::super) enum Held {
    /// A file of its own, whose lock goes with its descriptor.
    Beside { local: bool, _fd: OwnedFd },
    /// A lane.
    Above {
        local: bool,
        file: u8,
        lane: Lane,
        folder: Arc<Folder>,
    },
}

const _: () = assert!(size_of::<Option<Held>>() == 16);

impl Held {
    /// Whether letting go may have to wait for a file server.
    pub(super) fn may_wait(&self) -> bool {
        match self {
            Self::Beside { local, .. } | Self::Above { local, .. } => !local,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Self::Above {
            folder, file, lane, ..
        } = self
        else {
            return;
        };
        let seat = Seat {
            file: *file,
            lane: *lane,
        };
        let fd = folder.opened(seat).expect("a held lane's file is open");
        if let Err(errno) = range::release(&fd, seat.lane) {
            let path = folder.path_of(seat);
            tracing::warn!(
                "{}: a lock cannot be let go: {errno}; other servers see a maildrop in use",
                path.display()
            );
        }
        folder.file(seat).held.remove(&seat.lane);
    }
}

impl LockPlace {
    /// Takes the lock of the maildrop at `root` on a local file system; `None` where
    /// that cannot be told without waiting. Never waits.
    pub(in super::super) fn try_without_blocking(
        &self,
        root: &Path,
    ) -> Result<Option<Held>, InUse> {
        let taken = match self {
            Self::Beside => {
                let path = root.join(BESIDE);
                let cached = ResolveFlags::CACHED | HERE;
                let Ok(fd) = openat2(CWD, &path, FLAGS, Mode::empty(), cached) else {
                    return Ok(None);
                };
                range::take(&fd, Lane::FIRST).map(|()| Held::Beside {
                    local: true,
                    _fd: fd,
                })
            }
            Self::Above(folder, seat) => {
                let Some(fd) = folder.opened(*seat) else {
                    return Ok(None);
                };
                Arc::clone(folder).take(*seat, &fd, true)
            }
        };
        match taken {
            Ok(held) => Ok(Some(held)),
            Err(Refusal::Held(holder)) => Err(holder),
            Err(Refusal::Failed(_)) => Ok(None),
        }
    }

    /// Takes the lock of a maildrop that exists, and makes its file where there is
    /// none; `None` where this process may write nowhere, so that it can delete nothing
    /// either. Waits for the file system and for no other session. BLOCKING.
    pub(in super::super) fn try_lock(&self, root: &Path) -> Result<Option<Held>, OpenError> {
        let local = stamps::is_local(root);
        let (path, taken) = match self {
            Self::Beside => {
                let Some((fd, path)) = open_within(root)? else {
                    return Ok(None);
                };
                let taken = range::take(&fd, Lane::FIRST).map(|()| Held::Beside { local, _fd: fd });
                (path, taken)
            }
            Self::Above(folder, seat) => {
                let Some(fd) = folder.open(*seat)? else {
                    return Ok(None);
                };
                let path = folder.path_of(*seat);
                (path, Arc::clone(folder).take(*seat, &fd, local))
            }
        };
        match taken {
            Ok(held) => Ok(Some(held)),
            Err(Refusal::Held(holder)) => Err(holder.into()),
            Err(Refusal::Failed(errno)) => Err(OpenError::system(Attempt::Lock, &path, errno)),
        }
    }
}

/// Opens the file of a maildrop's own lock, where it is or can be; `None` where this
/// process may make none.
fn open_within(root: &Path) -> Result<Option<(OwnedFd, PathBuf)>, OpenError> {
    let within = |folder: &str| {
        (
            root.join(folder).join(WITHIN),
            &[Errno::ACCESS, Errno::NOENT][..],
        )
    };
    let beside = (root.join(BESIDE), &[Errno::ACCESS][..]);
    for (path, refusals) in [beside, within("cur"), within("new")] {
        match open(&path) {
            Ok(fd) => return Ok(fd.map(|fd| (fd, path))),
            Err(error) if is_none_to_make(&error, &path, refusals) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether the file is not there and cannot be made by this process.
fn is_none_to_make(error: &OpenError, path: &Path, refusals: &[Errno]) -> bool {
    let refused = |errno: &Errno| *error == OpenError::system(Attempt::Lock, path, *errno);
    let absent =
        fs::symlink_metadata(path).is_err_and(|missing| missing.kind() == io::ErrorKind::NotFound);
    absent && refusals.iter().any(refused)
}

/// Opens a lock's file and makes it where there is none; `None` on a file system
/// that takes no writes.
fn open(path: &Path) -> Result<Option<OwnedFd>, OpenError> {
    let flags = FLAGS | OFlags::CREATE;
    match openat2(CWD, path, flags, Mode::RUSR | Mode::WUSR, HERE) {
        Ok(fd) => {
            belongings::hand_over(&fd, path);
            Ok(Some(fd))
        }
        Err(Errno::ROFS) => Ok(None),
        Err(errno) => Err(OpenError::system(Attempt::Lock, path, errno)),
    }
}

#[cfg(test)]
mod tests;
