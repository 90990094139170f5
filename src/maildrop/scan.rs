//! Reading a maildrop into a snapshot. BLOCKING: for pool threads only.
//!
//! How listings that race with renames are believed is told in [`survey`](super::survey).
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
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::io::Errno;

use super::announce::{self, Digest};
use super::earlier::{Answer, Change, Earlier, Question, Sources};
use super::entries::Entries;
use super::error::{Attempt, Cause, OpenError};
use super::index::{Contents, Index};
use super::listing::{self, Buffers, Root};
use super::message::{Facts, Message, Trust};
use super::name::Moment;
use super::roll::{Measured, Roll};
use super::snapshot::{Folder, Knowledge, Snapshot};
use super::stamps::{self, Stamps, Standing, Time};
use super::survey::{Disk, Ground as _, Look, Patience, Survey, Surveyed};
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
            let listed = list(asked, &opened, previous, &sources, Reading::New, &gone)?;
            Ok(listed.snapshot)
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

/// What a listing found.
pub(super) struct Listed {
    pub(super) snapshot: Snapshot,
    /// To be kept in the maildrop before any of it is announced, if anything.
    pub(super) change: Option<Change>,
    /// How many messages are new of whom a list may have known that knows them no more.
    pub(super) missed: usize,
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
) -> Result<Listed, OpenError> {
    let disk = Disk::new(root, Buffers::new());
    let survey = Survey::new(root, disk, previous);
    let mut surveyed = match reading {
        Reading::New => survey.run()?,
        Reading::All => Surveyed {
            trust: Trust::Untested,
            ..survey.reading_all().run()?
        },
    };
    let before = previous.map(|snapshot| &*snapshot.knowledge().retired);
    let mut retired = before.unwrap_or_default().to_vec();
    surveyed.roll.keep_measured();
    let (mut change, mut missed) = (None, 0);
    let mut made_up = previous.is_some_and(|previous| previous.knowledge().made_up);
    if surveyed.roll.newcomers().next().is_some() {
        let since = previous.and_then(|previous| previous.knowledge().newest);
        let meanwhile = since.zip(surveyed.newest).and_then(between);
        let newcomers: Vec<&[u8]> = surveyed.roll.newcomers().collect();
        let answer = ask(root, sources, &newcomers, previous, gone)?;
        made_up |= introduce(
            &mut surveyed.roll,
            surveyed.beside,
            previous,
            &answer.earlier,
            &retired,
            gone,
            meanwhile.as_ref(),
        )?;
        (change, missed) = (answer.change, answer.missed);
    } else if !surveyed.is_empty() && !sources.have_cutoffs(root) {
        // Whoever is known is what he was, whatever a list says.
        match ask(root, sources, &[], previous, gone) {
            Ok(answer) => change = answer.change,
            Err(error) => tracing::warn!("popcore.cutoff is not made anew: {error}"),
        }
    }
    if let (Some(previous), None) = (previous, surveyed.beside) {
        retired.extend(announce::retire(previous, &surveyed.roll));
    }
    let most = limits::RETIRED_UNIQUE_IDS;
    retired.drain(..retired.len().saturating_sub(most));
    let knowledge = Knowledge {
        standing: surveyed.standing,
        trust: surveyed.trust,
        newest: surveyed.newest,
        due: previous.and_then(|previous| previous.knowledge().due),
        retired: retired.into(),
        made_up,
        ..Knowledge::none()
    };
    let snapshot = surveyed.snapshot(asked, root.path(), knowledge);
    Ok(Listed {
        snapshot,
        change,
        missed,
    })
}

/// Asks the sources about who is new.
fn ask(
    root: &Root,
    sources: &Sources,
    newcomers: &[&[u8]],
    previous: Option<&Snapshot>,
    gone: &Gone<'_>,
) -> Result<Answer, OpenError> {
    let question = Question {
        root,
        newcomers,
        previous,
        gone,
    };
    let kept = sources.kept(root)?;
    sources.ask(&question, kept.as_ref())
}

fn is_named_in(meanwhile: Option<&RangeInclusive<u64>>, unique: &[u8]) -> bool {
    meanwhile.is_some_and(|span| span.contains(&Moment::of(unique).seconds))
}

/// Messages that are gone, as far as the index remembers them.
#[derive(Clone, Copy)]
pub(super) enum Gone<'a> {
    /// These.
    Known(&'a [Message<'a>]),
    /// Those in there: it has not been read.
    Unread(&'a Index),
}

/// How a message that went was announced.
pub(super) struct Former {
    pub(super) unique: Vec<u8>,
    /// Its unique-id.
    pub(super) told: Vec<u8>,
}

impl Gone<'_> {
    /// How they were announced.
    pub(super) fn announced(&self) -> Result<Vec<Former>, OpenError> {
        let former = |message: &Message<'_>| Former {
            unique: message.unique().to_vec(),
            told: message.uidl_text(),
        };
        let announced = |gone: &[Message<'_>]| gone.iter().map(former).collect();
        Ok(match self {
            Self::Known(messages) => announced(messages),
            Self::Unread(index) => announced(Contents::read(&index.octets()?).gone()),
        })
    }
}

/// The seconds after one listing and up to another.
fn between((listed, now): (Time, Time)) -> Option<RangeInclusive<u64>> {
    let first = u64::try_from(listed.0).ok()?.checked_add(1)?;
    Some(first..=u64::try_from(now.0).ok()?)
}

/// Announces who is new.
///
/// Most mail that comes bears the time of its delivery in its name, and what was
/// named after the last listing was announced by none. So the index is read for
/// others alone, for those that are named after a time that is still to come, and for
/// those that an earlier server is said to have announced. Tells whether a unique-id was
/// made up.
fn introduce(
    roll: &mut Roll,
    beside: Option<&Snapshot>,
    previous: Option<&Snapshot>,
    earlier: &Earlier,
    retired: &[Digest],
    gone: &Gone<'_>,
    meanwhile: Option<&RangeInclusive<u64>>,
) -> Result<bool, OpenError> {
    let is_fresh = |unique: &[u8]| is_named_in(meanwhile, unique) && earlier.get(unique).is_none();
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
    let namesakes = previous.map_or_else(Vec::new, |previous| previous.named(&names));
    let former: Vec<Message<'_>> = remembered.iter().copied().chain(namesakes).collect();
    Ok(announce::announce(roll, beside, earlier, &former, retired))
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
    let mut disk = Disk::new(&root, Buffers::new());
    let mut patience = Patience::new();
    let (mut listings, mut unseen) = (0, 0);
    while unseen < limits::QUIET_LISTINGS {
        if listings == limits::LISTINGS {
            return Err(OpenError::of(root.path(), Cause::Restless));
        }
        listings += 1;
        // It is mostly there, and to find it proves nothing else.
        let look = match unseen {
            0 => Look::now(&mut disk)?,
            _ => patience.look(&mut disk)?,
        };
        disk.open()?;
        let mut listed = Entries::default();
        for folder in [Folder::New, Folder::Cur] {
            disk.list(folder, &mut listed)?;
        }
        let mut entries = listed.entries();
        let found = entries.find(|m| m.inode == inode && m.name.unique() == unique);
        let Some((fd, found)) = found.and_then(|m| Some((disk.folders().fd(m.folder)?, m))) else {
            if look.holds(&mut disk)? {
                break;
            }
            unseen += 1;
            continue;
        };
        match listing::open_message(fd, found.name.as_bytes()) {
            Ok(file) => return Ok(Some(file)),
            // Renamed once more. It is there, so it is looked for again.
            Err(Errno::NOENT) => unseen = 0,
            Err(errno) => {
                let folder = root.path().join(found.folder.name());
                let path = folder.join(OsStr::from_bytes(found.name.as_bytes()));
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
