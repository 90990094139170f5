//! Open-file-description locks (`F_OFD_SETLK`, fcntl(2)) on ranges of a file.
//!
//! Such a lock belongs to an open file, not to a process: closing its last
//! descriptor frees it, whatever ends the process frees all of them at once, and it
//! holds between nodes wherever `fcntl` locks do (NFS 4, Ceph).
//!
//! **Since when.** Nothing is written, and yet a process that is refused can say
//! since when. A lock stands for one maildrop in a lane of 4 Gi octets of a file
//! that never has any: it covers the octets from the lane's first one up to the
//! second it was taken at, counted from 1970. All locks of a lane meet in its first
//! octet, so they exclude each other; none reaches the next lane before 2106; and
//! `F_OFD_GETLK` tells how long the other one is.
//!
//! Rejected: `flock(2)`, which NFS turns into something else, and which says
//! nothing of its holder; dot-locks, which outlive their holder.

use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::{FcntlArg, fcntl};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;

use super::InUse;

/// Bits of an offset within a lane, and of a lane's number: together those of a
/// file's greatest offset.
const SECONDS: u32 = 32;
pub(super) const LANES: u32 = 31;

/// Part of a file that stands for one maildrop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Lane(u32);

impl Lane {
    /// The one of a file that serves one maildrop alone.
    pub(super) const FIRST: Self = Self(0);

    /// The lane of that number, of which the low [`LANES`] bits count.
    pub(super) fn new(number: u32) -> Self {
        Self(number & ((1 << LANES) - 1))
    }

    fn range(self, kind: i32, octets: i64) -> libc::flock {
        let small = |number: i32| libc::c_short::try_from(number).expect("a small number");
        libc::flock {
            l_type: small(kind),
            l_whence: small(libc::SEEK_SET),
            l_start: i64::from(self.0) << SECONDS,
            l_len: octets,
            // An open file has no process.
            l_pid: 0,
        }
    }
}

/// Why a lock could not be had.
#[derive(Debug)]
pub(super) enum Refusal {
    Held(InUse),
    Failed(Errno),
}

/// Takes a lane. Waits for the file system and for no other holder.
pub(super) fn take(fd: &OwnedFd, lane: Lane) -> Result<(), Refusal> {
    let now = SystemTime::now();
    match lock(fd, lane, now) {
        Ok(()) => Ok(()),
        Err(Errno::AGAIN | Errno::ACCESS) => Err(Refusal::Held(InUse {
            since: holder(fd, lane, now),
        })),
        Err(errno) => Err(Refusal::Failed(errno)),
    }
}

/// Lets go of a lane.
pub(super) fn release(fd: &OwnedFd, lane: Lane) -> Result<(), Errno> {
    let all = lane.range(libc::F_UNLCK, 1 << SECONDS);
    let done = fcntl(fd.as_fd(), FcntlArg::F_OFD_SETLK(&all));
    done.map(drop).map_err(errno)
}

fn lock(fd: &OwnedFd, lane: Lane, at: SystemTime) -> Result<(), Errno> {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = seconds.map_or(1, |since| since.as_secs().clamp(1, u32::MAX.into()));
    let octets = i64::try_from(seconds).expect("32 bits");
    let wanted = lane.range(libc::F_WRLCK, octets);
    let done = fcntl(fd.as_fd(), FcntlArg::F_OFD_SETLK(&wanted));
    done.map(drop).map_err(errno)
}

/// When the lock that is in the way was taken; now, where it is gone already.
fn holder(fd: &OwnedFd, lane: Lane, now: SystemTime) -> Instant {
    let mut found = lane.range(libc::F_WRLCK, 1);
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

fn errno(error: nix::Error) -> Errno {
    Errno::from_raw_os_error(error as i32)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn open(folder: &tempfile::TempDir) -> OwnedFd {
        let path = folder.path().join("lock");
        let options = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        options.expect("a file").into()
    }

    #[test]
    fn a_lane_has_one_holder_and_its_neighbours_are_free() {
        let folder = tempfile::tempdir().expect("a folder");
        let (first, second) = (open(&folder), open(&folder));
        let last = Lane::new(u32::MAX);
        for lane in [Lane::new(7), last] {
            take(&first, lane).expect("free");
            let Err(Refusal::Held(held)) = take(&second, lane) else {
                panic!("it is held");
            };
            // Whole seconds are kept.
            assert!(held.since.elapsed() < Duration::from_mins(1));
        }
        for lane in [Lane::new(6), Lane::new(8), Lane::FIRST] {
            take(&second, lane).expect("free");
        }
        // Neighbours of one holder stay two locks.
        release(&second, Lane::new(6)).expect("held");
        assert!(matches!(take(&first, Lane::new(8)), Err(Refusal::Held(_))));
        release(&first, Lane::new(7)).expect("held");
        take(&second, Lane::new(7)).expect("free by now");
        drop(first);
        take(&second, last).expect("free with its descriptor");
    }

    #[test]
    fn a_lock_taken_an_hour_ago_is_an_hour_old() {
        let folder = tempfile::tempdir().expect("a folder");
        let (first, second) = (open(&folder), open(&folder));
        let hour = Duration::from_hours(1);
        let now = SystemTime::now();
        lock(&first, Lane::new(3), now - hour).expect("free");
        let age = holder(&second, Lane::new(3), now).elapsed();
        assert!(
            age >= hour && age < hour + Duration::from_mins(1),
            "{age:?}"
        );
    }
}
