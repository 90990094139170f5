//! The lock of a maildrop against other processes and nodes: an open-file-
//! description lock (`F_OFD_SETLK`, fcntl(2)) on a file of its own beside new/ and
//! cur/.
//!
//! Such a lock belongs to an open file, not to a process: any number of sessions
//! in one process hold theirs apart, closing one descriptor frees one lock, and
//! whatever ends the process frees all of them at once. It holds between nodes
//! wherever `fcntl` locks do (NFS 4, Ceph). The file is never written and never
//! removed: another process could then lock a second file of the same name.
//!
//! **Since when.** Nothing is written, and yet a process that is refused can say
//! since when: the lock covers the octets from 0 up to the second it was taken at,
//! counted from 1970. All such locks meet in octet 0, so they exclude each other,
//! and `F_OFD_GETLK` tells how long the other one is.
//!
//! Rejected: `flock(2)`, which NFS turns into something else, and which says
//! nothing of its holder; dot-locks, which outlive their holder.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::{FcntlArg, fcntl};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::error::{Attempt, OpenError};
use super::lock::InUse;

/// The file's name.
const NAME: &str = "popcore.lock";

/// A held lock. Dropping it lets go.
#[derive(Debug)]
pub(super) struct LockFile {
    _fd: OwnedFd,
}

/// Why a lock could not be had.
enum Refusal {
    Held(InUse),
    Failed(Errno),
}

impl LockFile {
    /// Takes the lock of a maildrop on a local file system; `None` where that
    /// cannot be told without waiting. Never waits.
    pub(super) fn try_without_blocking(root: &Path) -> Result<Option<Self>, InUse> {
        let path = root.join(NAME);
        let flags = OFlags::RDWR | FLAGS;
        let Ok(fd) = openat2(
            CWD,
            &path,
            flags,
            Mode::empty(),
            ResolveFlags::CACHED | HERE,
        ) else {
            return Ok(None);
        };
        match take(fd) {
            Ok(held) => Ok(Some(held)),
            Err(Refusal::Held(holder)) => Err(holder),
            Err(Refusal::Failed(_)) => Ok(None),
        }
    }

    /// Takes the lock of a maildrop that exists, and makes its file where there is
    /// none; `None` on a file system that takes no writes, where nothing can be
    /// deleted either. Waits for the file system and for no other session.
    /// BLOCKING.
    pub(super) fn try_lock(root: &Path) -> Result<Option<Self>, OpenError> {
        let path = root.join(NAME);
        let flags = OFlags::RDWR | OFlags::CREATE | FLAGS;
        let mode = Mode::RUSR | Mode::WUSR;
        let fault = |errno| OpenError::system(Attempt::Lock, &path, errno);
        let fd = match openat2(CWD, &path, flags, mode, HERE) {
            Ok(fd) => fd,
            Err(Errno::ROFS) => return Ok(None),
            Err(errno) => return Err(fault(errno)),
        };
        match take(fd) {
            Ok(held) => Ok(Some(held)),
            Err(Refusal::Held(holder)) => Err(holder.into()),
            Err(Refusal::Failed(errno)) => Err(fault(errno)),
        }
    }
}

const FLAGS: OFlags = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);
const HERE: ResolveFlags = ResolveFlags::NO_SYMLINKS.union(ResolveFlags::NO_MAGICLINKS);

fn take(fd: OwnedFd) -> Result<LockFile, Refusal> {
    let now = SystemTime::now();
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH);
    let wanted = range(seconds.map_or(1, |since| since.as_secs().max(1)));
    match fcntl(fd.as_fd(), FcntlArg::F_OFD_SETLK(&wanted)) {
        Ok(_) => Ok(LockFile { _fd: fd }),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Err(Refusal::Held(InUse {
            since: holder(&fd, now),
        })),
        Err(error) => Err(Refusal::Failed(Errno::from_raw_os_error(error as i32))),
    }
}

/// When the lock that is in the way was taken; now, where it is gone already.
fn holder(fd: &OwnedFd, now: SystemTime) -> Instant {
    let mut found = range(1);
    let asked = fcntl(fd.as_fd(), FcntlArg::F_OFD_GETLK(&mut found));
    let held = asked.is_ok() && i32::from(found.l_type) != libc::F_UNLCK;
    let taken = u64::try_from(found.l_len).ok().filter(|_| held);
    let age = taken.and_then(|seconds| {
        let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
        now.duration_since(at).ok()
    });
    let here = Instant::now();
    age.and_then(|age| here.checked_sub(age)).unwrap_or(here)
}

/// A write lock on that many octets from the first on.
fn range(octets: u64) -> libc::flock {
    let kind = |kind: i32| libc::c_short::try_from(kind).expect("a small number");
    libc::flock {
        l_type: kind(libc::F_WRLCK),
        l_whence: kind(libc::SEEK_SET),
        l_start: 0,
        l_len: i64::try_from(octets).unwrap_or(i64::MAX),
        // An open file has no process.
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn two_holders_exclude_each_other_and_the_second_is_told_since_when() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        assert!(matches!(LockFile::try_without_blocking(&root), Ok(None)));
        let held = LockFile::try_lock(&root).expect("free").expect("writable");
        let Err(OpenError::InUse(refused)) = LockFile::try_lock(&root) else {
            panic!("it is held");
        };
        // Whole seconds are kept.
        assert!(refused.since.elapsed() < Duration::from_mins(1));
        assert!(LockFile::try_without_blocking(&root).is_err());
        drop(held);
        let held = LockFile::try_without_blocking(&root).expect("free");
        assert!(held.is_some());
        assert!(LockFile::try_lock(&root).is_err());
        assert_eq!(fs::metadata(root.join(NAME)).expect("a file").len(), 0);
    }

    #[test]
    fn a_lock_taken_an_hour_ago_is_an_hour_old() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let file = fs::File::create(&path).expect("a file");
        let hour = Duration::from_hours(1);
        let now = SystemTime::now();
        let then = now - hour;
        let seconds = then.duration_since(SystemTime::UNIX_EPOCH).expect("after");
        let taken = range(seconds.as_secs());
        fcntl(&file, FcntlArg::F_OFD_SETLK(&taken)).expect("free");
        let other = OwnedFd::from(fs::File::options().write(true).open(&path).expect("a file"));
        let age = holder(&other, now).elapsed();
        assert!(
            age >= hour && age < hour + Duration::from_mins(1),
            "{age:?}"
        );
    }

    #[test]
    fn what_is_no_file_is_an_error_and_no_link_is_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        let other = root.join("other");
        symlink(&other, root.join(NAME)).expect("a link");
        let refused = LockFile::try_lock(&root);
        assert!(
            matches!(refused, Err(OpenError::Permanent(_))),
            "{refused:?}"
        );
        assert!(!other.exists());
        fs::remove_file(root.join(NAME)).expect("a link");
        fs::create_dir(root.join(NAME)).expect("a folder");
        assert!(LockFile::try_lock(&root).is_err());
    }
}
