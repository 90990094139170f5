//! Reading a maildrop into a snapshot. BLOCKING: for pool threads only.
//!
//! **The race.** Another program may rename messages while they are listed: from
//! new/ to cur/, or to other flags. `readdir` then may show a message twice or
//! not at all, and a client that is not shown a message believes that it is gone.
//! So a listing counts as whole only if both directories carried the same stamps
//! before and after it, and if those were old enough to prove it; on a stamp too
//! young for that, two listings in a row must agree. Otherwise the maildrop is
//! listed again and the listings are laid over each other: nobody who was seen
//! leaves, nor anybody whom the snapshot before knew, until a whole listing does
//! not show them. A maildrop that never stands still is taken as it is after
//! [`limits::QUIET_LISTINGS`] in a row that brought nothing new. The error that
//! is left is a message too many, which answers `-ERR` when it is fetched.
//!
//! A directory whose stamp is that of the snapshot before, and was old enough then,
//! is not listed: a delivery into new/ costs nothing for what is in cur/.
//!
//! **Facts.** The octets of a message are counted by reading its file once; a
//! later scan believes them if unique name and inode are the same. Size and time
//! are not asked for: a stat for each message costs more than the listing itself
//! (an inode from the disk each, on a cold cache), and a Maildir's files are
//! never rewritten in place by the rules of the format. A file that was replaced
//! by rename has another inode and is counted anew. One that was rewritten in
//! place is found when it is sent: the sender has it open, and its size differs
//! from [`Snapshot::stored`].
//!
//! Where names state both sizes (`,S=` and `,W=`), the first such file is read and
//! held against its name. If that was right, others of the maildrop are believed
//! and not opened; a wrong one is found out when it is sent.
//!
//! **Vanished between listing and opening.** Such a message is not left out: it
//! is looked for in a further listing, and if it is there each time and never
//! under the name just read, the open fails for now instead.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fd::OwnedFd;
use rustix::io::Errno;

use super::announce::{self, Digest};
use super::earlier::{Earlier, Sources};
use super::error::{Attempt, Cause, OpenError};
use super::index::{Contents, Index};
use super::listing::{self, Buffers, Folders, Root};
use super::message::{Facts, Message, Trust};
use super::name::{Moment, Name};
use super::roll::{Measured, Roll};
use super::snapshot::{Folder, Knowledge, Snapshot};
use super::stamps::{self, Stamps, Standing, Time};
use crate::limits;
use crate::proto::MessageNumber;

/// Reads the maildrop at `root`, which may be reached through links of the
/// operator's making. One that does not exist, or lacks new/ or cur/, has no
/// messages there: it never got mail.
pub fn open(root: &Path, previous: Option<&Snapshot>) -> Result<Snapshot, OpenError> {
    open_canonical(root, &canonical(root)?, previous)
}

/// The path of a maildrop without any link: what its lock is keyed by. What does
/// not exist yet keeps its name below what does.
pub fn canonical(root: &Path) -> Result<PathBuf, OpenError> {
    let mut existing = root;
    loop {
        match existing.canonicalize() {
            Ok(path) => {
                let missing = root.strip_prefix(existing).expect("one of its ancestors");
                // Not joined when empty: that would add a slash.
                let whole = missing.as_os_str().is_empty();
                return Ok(if whole { path } else { path.join(missing) });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if existing.is_symlink() {
                    return Err(OpenError::of(existing, Cause::DanglingLink));
                }
                existing = existing
                    .parent()
                    .ok_or_else(|| OpenError::system(Attempt::Resolve, root, Errno::NOENT))?;
            }
            Err(error) => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                return Err(match errno {
                    Errno::NOTDIR => OpenError::of(existing, Cause::NotADirectory),
                    _ => OpenError::system(Attempt::Resolve, existing, errno),
                });
            }
        }
    }
}

/// The same for a path without links, which was asked for as `asked`.
pub(super) fn open_canonical(
    asked: &Path,
    root: &Path,
    previous: Option<&Snapshot>,
) -> Result<Snapshot, OpenError> {
    match Root::open(root)? {
        Some(opened) => {
            let (sources, gone) = (Sources::name(), Gone::Known(&[]));
            list(asked, &opened, previous, &sources, Reading::New, &gone)
        }
        None => Ok(absent(asked, root)),
    }
}

/// The snapshot of a maildrop that does not exist.
pub(super) fn absent(asked: &Path, root: &Path) -> Snapshot {
    let existing = root.ancestors().find(|path| path.is_dir());
    let standing = Standing::Settled {
        stamps: Stamps::default(),
        local: existing.is_some_and(stamps::is_local),
    };
    let knowledge = Knowledge {
        standing,
        ..Knowledge::none()
    };
    Snapshot::assemble(asked, root, knowledge, Roll::default())
}

/// Which messages a listing reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Those that are new.
    New,
    /// All, whatever was known of them, and whatever their names state.
    All,
}

/// Lists a maildrop, of which `previous` is what was known before, and asks the
/// sources how those that are new were announced.
pub(super) fn list(
    asked: &Path,
    root: &Root,
    previous: Option<&Snapshot>,
    sources: &Sources,
    reading: Reading,
    gone: &Gone<'_>,
) -> Result<Snapshot, OpenError> {
    let mut scan = Scan::new(root, previous, Buffers::new());
    if reading == Reading::All {
        scan.roll.forget_facts();
        scan.trust = Trust::Wrong;
    }
    let mut scanned = scan.run()?;
    if reading == Reading::All {
        scanned.trust = Trust::Untested;
    }
    let before = previous.map(|snapshot| &*snapshot.knowledge().retired);
    let mut retired = before.unwrap_or_default().to_vec();
    scanned.roll.keep_measured();
    if scanned.roll.newcomers().next().is_some() {
        let earlier = sources.ask(root, scanned.roll.newcomers())?;
        introduce(&mut scanned.roll, previous, &earlier, &retired, gone)?;
    }
    retired.extend(
        previous
            .into_iter()
            .flat_map(|previous| announce::retire(previous, &scanned.roll)),
    );
    let most = limits::RETIRED_UNIQUE_IDS;
    retired.drain(..retired.len().saturating_sub(most));
    let knowledge = Knowledge {
        standing: scanned.standing,
        trust: scanned.trust,
        newest: scanned.newest,
        retired: retired.into(),
        ..Knowledge::none()
    };
    Ok(Snapshot::assemble(
        asked,
        root.path(),
        knowledge,
        scanned.roll,
    ))
}

/// Messages that are gone, as far as the index remembers them.
#[derive(Clone, Copy)]
pub(super) enum Gone<'a> {
    /// These.
    Known(&'a [Message<'a>]),
    /// Those in there: it has not been read.
    Unread(&'a Index),
}

/// Announces who is new.
///
/// Most mail that comes bears the time of its delivery in its name, and what was
/// named after the last listing was announced by none. So the index is read for
/// others alone, and for those that an earlier server is said to have announced.
fn introduce(
    roll: &mut Roll,
    previous: Option<&Snapshot>,
    earlier: &Earlier,
    retired: &[Digest],
    gone: &Gone<'_>,
) -> Result<(), OpenError> {
    let listed = previous.and_then(|previous| previous.knowledge().newest);
    let seconds = listed.and_then(|listed| u64::try_from(listed.0).ok());
    let is_fresh = |unique: &[u8]| {
        let named = Moment::of(unique).seconds;
        seconds.is_some_and(|listed| named > listed) && earlier.get(unique).is_none()
    };
    let octets = match gone {
        Gone::Unread(index) if !roll.newcomers().all(is_fresh) => index.octets()?,
        Gone::Unread(_) | Gone::Known(_) => Vec::new(),
    };
    let contents = Contents::read(&octets);
    let remembered = match gone {
        Gone::Known(messages) => messages,
        Gone::Unread(_) => contents.gone(),
    };
    let names: HashSet<&[u8]> = roll.newcomers().collect();
    let namesakes = previous.into_iter().flat_map(Snapshot::messages);
    let namesakes = namesakes.filter(|message| names.contains(message.unique()));
    let former: Vec<Message<'_>> = remembered.iter().copied().chain(namesakes).collect();
    announce::announce(roll, earlier, &former, retired);
    Ok(())
}

/// How far one listing can be believed.
enum Verdict {
    /// Whole, and its stamps show every later change.
    Settled(Standing),
    /// Both stamps agree and are too young to prove it.
    Young(Stamps, Standing),
    /// Something changed meanwhile.
    Torn,
}

struct Scan<'a> {
    root: &'a Root,
    roll: Roll,
    /// What the snapshot before was worth.
    before: Standing,
    trust: Trust,
    local: bool,
    buffers: Buffers,
    /// When the directories had last changed, at the last listing.
    newest: Option<Time>,
    /// Listings made so far.
    listings: u32,
    /// Those in a row that brought nothing new.
    quiet: u32,
    /// The last listing's stamps, if they agreed and were young.
    young: Option<Stamps>,
}

/// What a scan found.
struct Scanned {
    roll: Roll,
    standing: Standing,
    trust: Trust,
    newest: Option<Time>,
}

impl<'a> Scan<'a> {
    fn new(root: &'a Root, previous: Option<&Snapshot>, buffers: Buffers) -> Self {
        let knowledge = previous.map(Snapshot::knowledge);
        Self {
            root,
            roll: previous.map(Roll::recall).unwrap_or_default(),
            before: knowledge.map_or(Standing::Unsettled, |known| known.standing),
            trust: knowledge.map_or(Trust::Untested, |known| known.trust),
            local: stamps::is_local(root.path()),
            buffers,
            newest: None,
            listings: 0,
            quiet: 0,
            young: None,
        }
    }

    /// Lists until the listings can be believed. The stamps are those to check
    /// later, if any are worth it.
    fn run(mut self) -> Result<Scanned, OpenError> {
        loop {
            let (whole_since, standing) = match self.pass()? {
                Verdict::Settled(standing) => {
                    self.young = None;
                    (Some(self.listings), standing)
                }
                Verdict::Young(stamps, standing) => {
                    let agreed = self.young.replace(stamps) == Some(stamps);
                    (agreed.then_some(self.listings - 1), standing)
                }
                Verdict::Torn => {
                    self.young = None;
                    (None, Standing::Unsettled)
                }
            };
            if let Some(since) = whole_since {
                self.roll.keep_seen_since(since);
                if self.roll.unmeasured_since(0) == 0 {
                    return Ok(self.end(standing));
                }
            }
            if self.quiet >= limits::QUIET_LISTINGS || self.listings >= limits::LISTINGS {
                let recent = self.listings.saturating_sub(self.quiet);
                if self.roll.unmeasured_since(recent) > 0 {
                    return Err(OpenError::of(self.root.path(), Cause::Restless));
                }
                return Ok(self.end(Standing::Unsettled));
            }
        }
    }

    fn end(self, standing: Standing) -> Scanned {
        Scanned {
            roll: self.roll,
            standing,
            trust: self.trust,
            newest: self.newest,
        }
    }

    /// One listing, laid over what is known, and a reading of who is new.
    fn pass(&mut self) -> Result<Verdict, OpenError> {
        self.listings += 1;
        let now = SystemTime::now();
        let before = self.root.stamps()?;
        self.newest = before.newest();
        let folders = self.root.folders()?;
        let held = |folder: Folder| self.before.holds(folder, &before);
        let mut listed =
            folders.list_those(self.root.path(), &mut self.buffers, |folder| !held(folder))?;
        let after = self.root.stamps()?;
        for folder in [Folder::New, Folder::Cur] {
            if held(folder) {
                self.roll.mark_unchanged(folder, self.listings);
            }
        }
        listed.mark_seen(self.listings);
        listed.sort();
        let (roll, new) = std::mem::take(&mut self.roll).lay_over(listed);
        self.roll = roll;
        let measured = self.measure(&folders)?;
        // Who was seen and was gone when it was to be opened has another name by now.
        let renamed = self.roll.unmeasured_since(self.listings);
        self.quiet = if new + measured + renamed > 0 {
            0
        } else {
            self.quiet + 1
        };
        let standing = Standing::of(before, now, self.local);
        Ok(if before != after {
            Verdict::Torn
        } else if matches!(standing, Standing::Settled { .. }) {
            Verdict::Settled(standing)
        } else {
            Verdict::Young(before, standing)
        })
    }

    fn measure(&mut self, folders: &Folders) -> Result<usize, OpenError> {
        let (root, buffers, trust) = (self.root.path(), &mut self.buffers, &mut self.trust);
        self.roll.measure_with(|folder, name| {
            let Some(fd) = folders.fd(folder) else {
                return Ok(Measured::Vanished);
            };
            let stated = Name::parse(name).and_then(|name| stated(&name));
            if let (Some(facts), Trust::Right) = (stated, *trust) {
                return Ok(Measured::Facts(facts));
            }
            let measured = listing::measure(fd, name, buffers).map_err(|(attempt, errno)| {
                let path = root.join(folder.name()).join(OsStr::from_bytes(name));
                OpenError::system(attempt, &path, errno)
            })?;
            if let (Some(stated), Measured::Facts(counted)) = (stated, measured)
                && *trust == Trust::Untested
            {
                let right = (stated.octets, stated.stored) == (counted.octets, counted.stored);
                *trust = if right { Trust::Right } else { Trust::Wrong };
            }
            Ok(measured)
        })
    }
}

/// The sizes that a name states, if it states both.
fn stated(name: &Name<'_>) -> Option<Facts> {
    Some(Facts {
        octets: name.stated_octets()?,
        stored: name.stated_size()?,
        verbatim: false,
        sum: None,
    })
}

/// Opens the file of a message that is not under its name any more: another
/// program changed its flags or moved it to cur/. `None`: it is gone.
///
/// The file is the one with the message's unique name and inode. A file of that
/// name with another inode is not it: its octets are not those announced.
///
/// Listing and opening are one trip: what is renamed without pause has its next
/// name within a tenth of a millisecond, and a name that is carried from one
/// thread to another first is too often an old one. BLOCKING.
pub fn locate(snapshot: &Snapshot, message: MessageNumber) -> Result<Option<OwnedFd>, OpenError> {
    let (Some(unique), Some(inode)) = (snapshot.unique_name(message), snapshot.inode(message))
    else {
        return Ok(None);
    };
    let Some(root) = Root::open(snapshot.root())? else {
        return Ok(None);
    };
    let mut buffers = Buffers::new();
    let (mut listings, mut unseen) = (0, 0);
    while unseen < limits::QUIET_LISTINGS {
        if listings == limits::LISTINGS {
            return Err(OpenError::of(root.path(), Cause::Restless));
        }
        listings += 1;
        let now = SystemTime::now();
        let before = root.stamps()?;
        let folders = root.folders()?;
        let listed = folders.list(root.path(), &mut buffers)?;
        let mut members = listed.members();
        let found = members.find(|m| m.inode == inode && m.unique == unique);
        let Some((fd, found)) = found.and_then(|m| Some((folders.fd(m.folder)?, m))) else {
            if before == root.stamps()? && before.are_settled(now) {
                break;
            }
            unseen += 1;
            continue;
        };
        match listing::open_message(fd, found.name) {
            Ok(file) => return Ok(Some(file)),
            // Renamed once more. It is there, so it is looked for again.
            Err(Errno::NOENT) => unseen = 0,
            Err(errno) => {
                let folder = root.path().join(found.folder.name());
                let path = folder.join(OsStr::from_bytes(found.name));
                return Err(OpenError::system(Attempt::Open, &path, errno));
            }
        }
    }
    Ok(None)
}

/// Counts a message's octets once more, whatever its file is called by now. `None`:
/// it is gone. BLOCKING.
pub(super) fn count(
    snapshot: &Snapshot,
    message: MessageNumber,
) -> Result<Option<Facts>, OpenError> {
    let Some(file) = locate(snapshot, message)? else {
        return Ok(None);
    };
    match listing::measure_open(&file, &mut Buffers::new()) {
        Ok(Measured::Facts(facts)) => Ok(Some(facts)),
        Ok(Measured::Vanished | Measured::Foreign) => Ok(None),
        Err((attempt, errno)) => {
            let path = snapshot.path(message).unwrap_or_default();
            Err(OpenError::system(attempt, &path, errno))
        }
    }
}

#[cfg(test)]
mod tests;
