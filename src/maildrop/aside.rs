//! Deleted messages that are kept for a while (`maildrop.undelete`). BLOCKING.
//!
//! What a session removes moves into a folder of its own below `popcore.deleted` in
//! the maildrop, which is named after the second and nanosecond of its QUIT and is a
//! Maildir in little, with a list that has the form of an index:
//!
//! ```text
//! popcore.deleted/1767607200.551422000/list
//! popcore.deleted/1767607200.551422000/cur/1700000000.M1P2.host:2,S
//! ```
//!
//! One rename moves a message, so it is in one of the two places at any moment; on a file
//! system that cannot rename so that nothing is lost ([`move_beside`]), in both for a moment,
//! and for longer where a crash or a fault comes between: then the user still has it, and
//! what is kept of it goes with its folder. The list is on the disk before the first of them; what it says of messages that were
//! not moved is passed over. A folder whose time is over goes as a whole, at the end
//! of some session. No other server takes such a folder for mail, and Maildir++ does
//! not count it.
//!
//! A maildrop may belong to its user, so no link is followed here.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, RenameFlags, ResolveFlags, linkat, mkdirat, openat2, renameat_with,
    unlinkat,
};
use rustix::io::Errno;

use super::belongings;
use super::index::Contents;
use super::listing::Root;
use super::message::Message;
use super::snapshot::Folder;

/// The folder in a maildrop.
pub(super) const FOLDER: &str = "popcore.deleted";
const LIST: &str = "list";
const HERE: ResolveFlags = ResolveFlags::NO_SYMLINKS.union(ResolveFlags::NO_MAGICLINKS);

/// What one session deletes, while it does.
pub(super) struct Batch {
    fd: OwnedFd,
    path: PathBuf,
    new: Option<OwnedFd>,
    cur: Option<OwnedFd>,
}

impl Batch {
    /// Makes a folder for these messages, and its list.
    pub(super) fn begin(
        root: &Root,
        messages: &[Message<'_>],
        now: SystemTime,
    ) -> io::Result<Self> {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
        let path = root.path().join(FOLDER);
        let all = make(root, FOLDER, &path)?;
        let path = path.join(&name);
        let fd = make(&all, &name, &path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let list = openat2(&fd, LIST, flags, Mode::RUSR | Mode::WUSR, HERE)?;
        belongings::hand_over(&list, &path.join(LIST));
        let mut list = File::from(list);
        list.write_all(&super::index::list(messages))?;
        list.sync_data()?;
        Ok(Self {
            fd,
            path,
            new: None,
            cur: None,
        })
    }

    /// Moves a message here, in place of its removal.
    pub(super) fn take(
        &mut self,
        from: &OwnedFd,
        folder: Folder,
        name: &[u8],
    ) -> Result<(), Errno> {
        let own = match folder {
            Folder::New => &mut self.new,
            Folder::Cur => &mut self.cur,
        };
        let to = if let Some(to) = own {
            to
        } else {
            let path = self.path.join(folder.name());
            let made = make(&self.fd, folder.name(), &path);
            own.insert(made.map_err(|error| errno_of(&error))?)
        };
        move_beside(from, name, to, name)
    }
}

/// Moves a file to where none has its name. NFS, Ceph and others know no such rename: there it
/// is given its second name, and then the first is taken away.
///
/// # Errors
///
/// [`Errno::EXIST`]: one has, or, without such a rename, the file had both names already, by
/// an end between the two steps or an answer of the file server that was lost. Any other error
/// may leave both names there.
pub(super) fn move_beside(
    from: impl AsFd,
    name: &[u8],
    to: impl AsFd,
    new: &[u8],
) -> Result<(), Errno> {
    match renameat_with(&from, name, &to, new, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL) => move_by_link(from, name, to, new),
        done => done,
    }
}

fn move_by_link(from: impl AsFd, name: &[u8], to: impl AsFd, new: &[u8]) -> Result<(), Errno> {
    linkat(&from, name, to, new, AtFlags::empty())?;
    unlinkat(from, name, AtFlags::empty())
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Makes a folder, unless there is one, and opens it.
fn make(within: impl AsFd, name: &str, path: &Path) -> io::Result<OwnedFd> {
    let made = match mkdirat(&within, name, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(errno.into()),
    };
    let fd = open(&within, name)?;
    if made {
        belongings::hand_over(&fd, path);
    }
    Ok(fd)
}

fn open(within: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(within, name, flags, Mode::empty(), HERE)
}

/// The names in a folder.
fn names(folder: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// When a folder of that name was made; `None` for a name of another making.
fn time_of(name: &[u8]) -> Option<SystemTime> {
    let (seconds, nanos) = std::str::from_utf8(name).ok()?.split_once('.')?;
    let nanos = nanos.parse().ok().filter(|nanos| *nanos < 1_000_000_000);
    UNIX_EPOCH.checked_add(Duration::new(seconds.parse().ok()?, nanos?))
}

/// One session's deletions, as they lie there.
struct Kept {
    name: String,
    at: SystemTime,
}

/// All of them, oldest first, and the folder they are in; nothing where there is
/// none.
fn kept(root: &Root) -> Result<Option<(OwnedFd, Vec<Kept>)>, Errno> {
    let all = match open(root, FOLDER) {
        Ok(all) => all,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let mut kept = Vec::new();
    for name in names(&all)? {
        if let (Some(at), Ok(name)) = (time_of(&name), String::from_utf8(name)) {
            kept.push(Kept { name, at });
        }
    }
    kept.sort_by_key(|kept| kept.at);
    Ok(Some((all, kept)))
}

/// When the oldest of what is kept was deleted.
pub(super) fn oldest(root: &Root) -> Option<SystemTime> {
    let (_, kept) = kept(root).ok()??;
    kept.first().map(|kept| kept.at)
}

/// Removes for good what was deleted before `until`; tells how many messages.
pub(super) fn purge(root: &Root, until: SystemTime) -> Result<u64, Errno> {
    let Some((all, kept)) = kept(root)? else {
        return Ok(0);
    };
    let mut removed = 0;
    for old in kept.iter().filter(|kept| kept.at < until) {
        let batch = open(&all, &old.name)?;
        for folder in [Folder::New, Folder::Cur] {
            let within = match open(&batch, folder.name()) {
                Ok(within) => within,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno),
            };
            for name in names(&within)? {
                unlinkat(&within, &*name, AtFlags::empty())?;
                removed += 1;
            }
            unlinkat(&batch, folder.name(), AtFlags::REMOVEDIR)?;
        }
        // The list is the last to go: without it nothing could be brought back.
        match unlinkat(&batch, LIST, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        unlinkat(&all, &*old.name, AtFlags::REMOVEDIR)?;
    }
    // It stays while it is not empty.
    let _ = unlinkat(root, FOLDER, AtFlags::REMOVEDIR);
    Ok(removed)
}

/// The folder of one session's deletions, to bring messages back from.
pub(super) struct Shelf {
    fd: OwnedFd,
    /// When they were deleted.
    pub(super) at: SystemTime,
    list: Vec<u8>,
}

impl Shelf {
    /// What was said of the messages when they were deleted.
    pub(super) fn list(&self) -> Contents<'_> {
        Contents::read(&self.list)
    }

    /// The names of those that are there.
    pub(super) fn names(&self, folder: Folder) -> Result<Vec<Vec<u8>>, Errno> {
        match open(&self.fd, folder.name()) {
            Ok(within) => names(&within),
            Err(Errno::NOENT) => Ok(Vec::new()),
            Err(errno) => Err(errno),
        }
    }

    /// Moves a message back to where it was; it never takes another one's place.
    pub(super) fn put_back(&self, to: &OwnedFd, folder: Folder, name: &[u8]) -> Result<(), Errno> {
        let from = open(&self.fd, folder.name())?;
        move_beside(&from, name, to, name)
    }
}

/// What was deleted at `since` or later, oldest first.
pub(super) fn shelves(root: &Root, since: SystemTime) -> Result<Vec<Shelf>, Errno> {
    let Some((all, kept)) = kept(root)? else {
        return Ok(Vec::new());
    };
    let mut shelves = Vec::new();
    for kept in kept.into_iter().filter(|kept| kept.at >= since) {
        let fd = open(&all, &kept.name)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut list = Vec::new();
        match openat2(&fd, LIST, flags, Mode::empty(), HERE) {
            Ok(file) => {
                let read = io::Read::read_to_end(&mut File::from(file), &mut list);
                read.map_err(|error| errno_of(&error))?;
            }
            // A session that ended there had moved nothing yet.
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        shelves.push(Shelf {
            fd,
            at: kept.at,
            list,
        });
    }
    Ok(shelves)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_takes_no_others_place_however_it_is_moved() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let within = File::open(folder.path()).expect("a folder");
        for by in [move_beside, move_by_link] {
            let _ = fs::remove_file(path("c"));
            for name in ["a", "b"] {
                fs::write(path(name), name).expect("written");
            }
            let result = by(&within, b"a", &within, b"b");
            assert_eq!(result, Err(Errno::EXIST));
            assert_eq!(by(&within, b"a", &within, b"c"), Ok(()));
            assert!(!path("a").exists());
            assert_eq!(fs::read(path("b")).expect("there"), b"b");
            assert_eq!(fs::read(path("c")).expect("there"), b"a");
        }
    }
}
