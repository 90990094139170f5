//! Has a maildrop changed since it was listed? Told by two directory stamps.
//!
//! Every delivery, removal and rename changes the directory it happens in, and
//! with it the directory's times. So a listing is still true while new/ and cur/
//! are the directories that were listed (device and inode) and carry the times
//! they had before that. The change time stands beside the modification time
//! because nothing can set it back: rsync and backup tools restore the latter.
//!
//! **Trust.** A clock that ticks every few milliseconds gives two changes in one
//! tick the same time, so a stamp proves nothing until the clock that made it has
//! moved on: a later change may leave it as it is. On a local file system that clock
//! is this kernel's, which can be read (`CLOCK_REALTIME_COARSE`), so it is known to
//! the tick. Elsewhere a stamp is believed at the age of [`GRAIN`], for the clocks
//! of file servers; one that runs behind ours by more than that is not seen through.
//! Where a time has no nanoseconds the file system is taken to keep whole seconds, and
//! the bound is [`COARSE_GRAIN`].
//!
//! A listing made on a younger stamp serves its session and is never called fresh
//! ([`Standing::Unsettled`]); where only one of the two is young, the other need not
//! be listed again ([`Standing::Partly`]). How to wait for a stamp's time is
//! [`survey`](super::survey)'s affair.
//!
//! Rejected: to tell by the kernel's version that there is nothing to wait for. From
//! Linux 6.13 on a change behind a look at the stamp gets another time in any case, on
//! ext4, xfs, btrfs and tmpfs, and not on an ext3 of the same driver and the same number
//! in `statfs(2)`. What could be saved is a part of a tick, where mail has come just then.
//!
//! **Waiting.** The check runs on a shard and must never wait. `RESOLVE_CACHED`
//! makes the open give up where a name is not in the kernel's cache, and
//! `O_PATH` opens nothing; `statx` of an inode in memory waits on a local file
//! system for nothing. A network file system may ask its server, and one told
//! not to (`AT_STATX_DONT_SYNC`) answers with old times, so there the shard does
//! not ask at all: [`Freshness::Unknown`], and the pool asks ([`current`]).
//!
//! The check goes by the path that the template gave, not by the canonical one,
//! and follows the operator's links: where they lead elsewhere by now, device
//! and inode differ. Keeping a descriptor per maildrop would save the opens, and
//! cost a million descriptors and the knowledge of a replaced directory.

use std::path::Path;
use std::time::Duration;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::snapshot::{Folder, Snapshot};

/// The longest that a kernel's clock stands still: its slowest tick (`CONFIG_HZ=100`;
/// the others that kernel/Kconfig.hz offers are 250, 300 and 1000).
pub(super) const TICK: Duration = Duration::from_millis(10);

/// Age at which a stamp of another machine is believed: a tick of its, and the rest
/// for the difference of the clocks, which NTP keeps below that.
const GRAIN: Duration = Duration::from_millis(100);

/// The same wherever times are whole seconds; two, because FAT counts in twos.
const COARSE_GRAIN: Duration = Duration::from_secs(2);

/// One directory's identity and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: (u32, u32),
    inode: u64,
    modified: Time,
    changed: Time,
}

/// Seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time(pub(super) i64, pub(super) u32);

/// What a clock says that stamps are held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// The one that gives the stamps their times: a later change gets this or more.
    Own(Time),
    /// Ours, beside another machine's stamps.
    Foreign(Time),
}

impl Reading {
    /// For the stamps of a local file system, or of another one.
    pub(super) fn now(local: bool) -> Self {
        let read = |clock| {
            let now = clock_gettime(clock);
            Time(now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or_default())
        };
        if local {
            Self::Own(read(ClockId::RealtimeCoarse))
        } else {
            Self::Foreign(read(ClockId::Realtime))
        }
    }

    fn is_local(self) -> bool {
        matches!(self, Self::Own(_))
    }
}

impl Stamp {
    fn of(stat: &Statx) -> Self {
        let time = |at: &fs::StatxTimestamp| Time(at.tv_sec, at.tv_nsec);
        Self {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            modified: time(&stat.stx_mtime),
            changed: time(&stat.stx_ctime),
        }
    }

    /// Whether every change behind this reading gives another stamp.
    fn is_settled(&self, now: Reading) -> bool {
        let latest = self.modified.max(self.changed);
        let (at, grain) = match now {
            Reading::Own(at) | Reading::Foreign(at) if self.is_coarse() => (at, COARSE_GRAIN),
            Reading::Own(at) => return at > latest,
            Reading::Foreign(at) => (at, GRAIN),
        };
        at >= latest.after(grain)
    }

    /// Whether the file system seems to keep whole seconds.
    fn is_coarse(&self) -> bool {
        self.modified.1 == 0 && self.changed.1 == 0
    }
}

impl Time {
    fn after(self, time: Duration) -> Self {
        const SECOND: u32 = 1_000_000_000;
        let nanos = self.1 + time.subsec_nanos();
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let seconds = self.0.saturating_add(seconds);
        Self(
            seconds.saturating_add(i64::from(nanos / SECOND)),
            nanos % SECOND,
        )
    }
}

/// The stamps of new/ and cur/; `None` for one that does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    new: Option<Stamp>,
    cur: Option<Stamp>,
}

impl Stamps {
    /// Reads both below an open maildrop. Follows no link: a link has a stamp of
    /// its own.
    pub(super) fn below(root: impl AsFd) -> Result<Self, (Folder, Errno)> {
        let read = |folder: Folder| {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            match fs::statx(&root, folder.c_name(), flags, MASK) {
                Ok(stat) => Ok(Some(Stamp::of(&stat))),
                Err(Errno::NOENT) => Ok(None),
                Err(errno) => Err((folder, errno)),
            }
        };
        Ok(Self {
            new: read(Folder::New)?,
            cur: read(Folder::Cur)?,
        })
    }

    /// When either of them last changed.
    pub(super) fn newest(&self) -> Option<Time> {
        let both = self.new.iter().chain(&self.cur);
        both.map(|stamp| stamp.modified).max()
    }

    /// Whether both show every change behind this reading, which was taken before
    /// them.
    pub(super) fn are_settled(&self, now: Reading) -> bool {
        let mut both = self.new.iter().chain(&self.cur);
        both.all(|stamp| stamp.is_settled(now))
    }

    /// Whether one of them is of whole seconds.
    pub(super) fn are_coarse(&self) -> bool {
        self.new.iter().chain(&self.cur).any(Stamp::is_coarse)
    }

    /// Those of two directories that last changed then.
    #[cfg(test)]
    pub(super) fn at(new: Time, cur: Time) -> Self {
        let stamp = |inode, at| Stamp {
            device: (8, 1),
            inode,
            modified: at,
            changed: at,
        };
        Self {
            new: Some(stamp(1, new)),
            cur: Some(stamp(2, cur)),
        }
    }

    fn of(&self, folder: Folder) -> Option<Stamp> {
        match folder {
            Folder::New => self.new,
            Folder::Cur => self.cur,
        }
    }
}

/// What a snapshot's listing is worth later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// True as long as the stamps are these.
    Settled {
        /// Taken before the listing.
        stamps: Stamps,
        /// Whether asking for them never waits: a local file system.
        local: bool,
    },
    /// The same for one of the two alone: the other had just changed, so that the
    /// whole is never fresh.
    Partly {
        /// The one that was old enough.
        folder: Folder,
        /// Taken before the listing.
        stamps: Stamps,
    },
    /// Good for the session that asked; never fresh.
    Unsettled,
}

impl Standing {
    /// What a whole listing is worth that was made at `now` on these stamps.
    pub(super) fn of(stamps: Stamps, now: Reading) -> Self {
        let settled = |folder| stamps.of(folder).is_none_or(|stamp| stamp.is_settled(now));
        Self::by(stamps, settled, now.is_local())
    }

    fn by(stamps: Stamps, settled: impl Fn(Folder) -> bool, local: bool) -> Self {
        match (settled(Folder::New), settled(Folder::Cur)) {
            (true, true) => Self::Settled { stamps, local },
            (true, false) => Self::Partly {
                folder: Folder::New,
                stamps,
            },
            (false, true) => Self::Partly {
                folder: Folder::Cur,
                stamps,
            },
            (false, false) => Self::Unsettled,
        }
    }

    /// Whether there was a directory at all.
    pub(super) fn is_nothing(&self) -> bool {
        match self {
            Self::Settled { stamps, .. } => *stamps == Stamps::default(),
            Self::Partly { .. } | Self::Unsettled => false,
        }
    }

    /// Whether what was listed of `folder` is still true at the stamps `now`.
    pub(super) fn holds(&self, folder: Folder, now: &Stamps) -> bool {
        match self {
            Self::Settled { stamps, .. } => stamps.of(folder) == now.of(folder),
            Self::Partly {
                folder: settled,
                stamps,
            } => *settled == folder && stamps.of(folder) == now.of(folder),
            Self::Unsettled => false,
        }
    }

    /// What the index keeps of it.
    pub(super) fn keep(&self) -> Kept {
        let keep = |folder: Folder| match self {
            Self::Settled { stamps, .. } => KeptFolder::of(stamps.of(folder)),
            Self::Partly {
                folder: settled,
                stamps,
            } if *settled == folder => KeptFolder::of(stamps.of(folder)),
            Self::Partly { .. } | Self::Unsettled => KeptFolder::Unsettled,
        };
        Kept {
            new: keep(Folder::New),
            cur: keep(Folder::Cur),
        }
    }
}

/// A standing as the index keeps it: without the devices, whose numbers may be
/// others after a restart and on another node. Inode and change time are enough
/// beside a path: no copy of a directory has the change time of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) new: KeptFolder,
    pub(super) cur: KeptFolder,
}

/// One directory of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeptFolder {
    /// Its stamp proved nothing.
    Unsettled,
    /// It did not exist.
    Absent,
    /// Its stamp.
    At {
        inode: u64,
        modified: Time,
        changed: Time,
    },
}

impl KeptFolder {
    fn of(stamp: Option<Stamp>) -> Self {
        stamp.map_or(Self::Absent, |stamp| Self::At {
            inode: stamp.inode,
            modified: stamp.modified,
            changed: stamp.changed,
        })
    }
}

impl Kept {
    /// What it is worth for directories whose stamps are these `now`.
    pub(super) fn standing(&self, now: Stamps, local: bool) -> Standing {
        let holds = |folder| {
            let kept = match folder {
                Folder::New => self.new,
                Folder::Cur => self.cur,
            };
            kept == KeptFolder::of(now.of(folder))
        };
        Standing::by(now, holds, local)
    }
}

/// Whether a snapshot still tells the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Nothing changed.
    Fresh,
    /// List the maildrop again.
    Changed,
    /// It cannot be told without waiting: ask on the pool. Also, seldom, because
    /// a rename elsewhere on the machine made the kernel's cache miss.
    Unknown,
}

/// Checks a snapshot on a shard: two opens by path in the kernel's cache, two
/// stats and two closes, none of which waits.
pub fn current_without_blocking(snapshot: &Snapshot) -> Freshness {
    match snapshot.standing() {
        Standing::Unsettled | Standing::Partly { .. } => Freshness::Changed,
        Standing::Settled { local: false, .. } => Freshness::Unknown,
        Standing::Settled { stamps, .. } => {
            compare(snapshot.asked(), stamps, ResolveFlags::CACHED, DONT_WAIT)
        }
    }
}

/// The same, whatever it takes. BLOCKING: for a pool thread.
pub fn current(snapshot: &Snapshot) -> Freshness {
    match snapshot.standing() {
        Standing::Unsettled | Standing::Partly { .. } => Freshness::Changed,
        Standing::Settled { stamps, .. } => {
            let (resolve, flags) = (ResolveFlags::empty(), AtFlags::empty());
            match compare(snapshot.asked(), stamps, resolve, flags) {
                // An error is the next listing's to name.
                Freshness::Unknown => Freshness::Changed,
                told => told,
            }
        }
    }
}

const MASK: StatxFlags = StatxFlags::INO
    .union(StatxFlags::MTIME)
    .union(StatxFlags::CTIME);
const DONT_WAIT: AtFlags = AtFlags::STATX_DONT_SYNC;

fn compare(root: &Path, stamps: Stamps, resolve: ResolveFlags, flags: AtFlags) -> Freshness {
    for folder in [Folder::New, Folder::Cur] {
        match stamp_of(&root.join(folder.name()), resolve, flags) {
            Ok(now) if now == stamps.of(folder) => {}
            Ok(_) => return Freshness::Changed,
            Err(_) => return Freshness::Unknown,
        }
    }
    Freshness::Fresh
}

fn stamp_of(path: &Path, resolve: ResolveFlags, flags: AtFlags) -> Result<Option<Stamp>, Errno> {
    match open_path(path, resolve) {
        Ok(fd) => {
            let flags = flags | AtFlags::EMPTY_PATH;
            let stat = fs::statx(fd, c"", flags, MASK)?;
            Ok(Some(Stamp::of(&stat)))
        }
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn open_path(path: &Path, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
    fs::openat2(CWD, path, flags, Mode::empty(), resolve)
}

/// Whether `path` lies on a file system of this machine, by the numbers of
/// `statfs(2)`. One that is not in the list only costs a trip to the pool.
pub(super) fn is_local(path: &Path) -> bool {
    /// bcachefs, btrfs, ext2 to ext4, f2fs, overlayfs, ramfs, tmpfs, xfs, zfs.
    const LOCAL: [u64; 9] = [
        0xca45_1a4e,
        0x9123_683e,
        0xef53,
        0xf2f5_2010,
        0x794c_7630,
        0x8584_58f6,
        0x0102_1994,
        0x5846_5342,
        0x2fc1_2fc1,
    ];
    fs::statfs(path).is_ok_and(|stat| u64::try_from(stat.f_type).is_ok_and(|t| LOCAL.contains(&t)))
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::Knowledge;
    use super::*;
    use crate::maildrop::open;

    fn stamp(modified: Time, changed: Time) -> Stamp {
        Stamp {
            device: (8, 1),
            inode: 1,
            modified,
            changed,
        }
    }

    fn here(seconds: i64, nanos: u32) -> Reading {
        Reading::Own(Time(seconds, nanos))
    }

    fn elsewhere(seconds: i64, nanos: u32) -> Reading {
        Reading::Foreign(Time(seconds, nanos))
    }

    #[test]
    fn a_stamp_is_trusted_once_its_clock_has_moved_on() {
        let fine = stamp(Time(1_000, 7), Time(1_000, 7));
        assert!(!fine.is_settled(here(1_000, 7)));
        assert!(fine.is_settled(here(1_000, 8)));
    }

    #[test]
    fn a_stamp_of_another_machine_within_the_grain_is_not_trusted() {
        let fine = stamp(Time(1_000, 900_000_001), Time(1_000, 900_000_001));
        assert!(!fine.is_settled(elsewhere(1_000, 900_000_002)));
        assert!(!fine.is_settled(elsewhere(1_001, 0)));
        assert!(fine.is_settled(elsewhere(1_001, 1)));
    }

    #[test]
    fn whole_seconds_take_two_of_them() {
        let coarse = stamp(Time(1_000, 0), Time(1_000, 0));
        for at in [here, elsewhere] {
            assert!(!coarse.is_settled(at(1_001, 999_999_999)));
            assert!(coarse.is_settled(at(1_002, 0)));
        }
    }

    #[test]
    fn the_later_time_decides_and_one_to_come_is_not_trusted() {
        for at in [here, elsewhere] {
            let set_back = stamp(Time(10, 5), Time(1_000, 1));
            assert!(!set_back.is_settled(at(1_000, 1)));
            let ahead = stamp(Time(2_000, 5), Time(1_000, 1));
            assert!(!ahead.is_settled(at(1_500, 0)));
            assert!(stamp(Time(-5, 1), Time(-5, 1)).is_settled(at(1, 0)));
        }
    }

    #[test]
    fn the_clock_of_local_stamps_is_the_one_that_makes_them() {
        let folder = tempfile::tempdir().expect("a folder");
        for part in ["new", "cur"] {
            std::fs::create_dir(folder.path().join(part)).expect("a folder");
        }
        let root = std::fs::File::open(folder.path()).expect("a folder");
        let before = Reading::now(true);
        std::fs::write(folder.path().join("new/1"), "").expect("a file");
        let stamps = Stamps::below(&root).expect("stamps");
        assert!(!stamps.are_settled(before), "{stamps:?} {before:?}");
        while !stamps.are_settled(Reading::now(true)) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_kept_standing_holds_for_the_same_directories_alone() {
        let new = stamp(Time(1_000, 1), Time(1_000, 1));
        let stamps = Stamps {
            new: Some(new),
            cur: None,
        };
        let standing = Standing::of(stamps, here(2_000, 0));
        let settled = Standing::Settled {
            stamps,
            local: true,
        };
        assert_eq!(standing, settled);
        assert_eq!(standing.keep().standing(stamps, true), settled);
        let elsewhere = Stamps {
            new: Some(Stamp {
                device: (9, 9),
                ..new
            }),
            cur: None,
        };
        assert!(matches!(
            standing.keep().standing(elsewhere, true),
            Standing::Settled { stamps, .. } if stamps == elsewhere
        ));
        let changed = Stamps {
            new: Some(stamp(Time(1_000, 1), Time(1_000, 2))),
            cur: None,
        };
        let partly = Standing::Partly {
            folder: Folder::Cur,
            stamps: changed,
        };
        assert_eq!(standing.keep().standing(changed, true), partly);
        assert!(partly.holds(Folder::Cur, &stamps) && !partly.holds(Folder::New, &changed));
        let young = Standing::of(stamps, here(1_000, 1));
        assert_eq!(young.keep().new, KeptFolder::Unsettled);
        assert!(!young.holds(Folder::New, &stamps) && young.holds(Folder::Cur, &stamps));
    }

    #[test]
    fn an_unsettled_snapshot_is_never_fresh() {
        let snapshot = Snapshot::builder("/nonexistent").build();
        assert_eq!(current_without_blocking(&snapshot), Freshness::Changed);
        assert_eq!(current(&snapshot), Freshness::Changed);
    }

    #[test]
    fn a_name_that_is_not_in_the_cache_is_left_to_the_pool() {
        // Nobody looked this up before, so the kernel would have to ask the disk.
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("never/looked/up");
        let missing = open_path(&path, ResolveFlags::CACHED);
        assert_eq!(missing.err(), Some(Errno::AGAIN));
        let waited = open_path(&path, ResolveFlags::empty());
        assert_eq!(waited.err(), Some(Errno::NOENT));
    }

    #[test]
    fn a_folder_of_another_machine_is_left_to_the_pool() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("ann");
        let snapshot = open(&missing, None).expect("an empty maildrop");
        let Standing::Settled { stamps, local } = snapshot.standing() else {
            panic!("nothing that could be young");
        };
        assert_eq!(local, is_local(folder.path()));
        assert!(!is_local(Path::new("/proc")));
        let standing = Standing::Settled {
            stamps,
            local: false,
        };
        let roll = crate::maildrop::roll::Roll::default();
        let knowledge = Knowledge {
            standing,
            ..Knowledge::none()
        };
        let remote = Snapshot::assemble(&missing, &missing, knowledge, roll);
        assert_eq!(current_without_blocking(&remote), Freshness::Unknown);
        assert_eq!(current(&remote), Freshness::Fresh);
    }
}
