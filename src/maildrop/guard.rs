//! A mass change of unique-ids, noticed before a client hears of it.
//!
//! A unique-id follows the unique name of the message's file. A program that gives
//! all files other names (a copy made with IMAP, a conversion, a restore) would
//! have every client fetch all of its mail again, in one night, at every user. So
//! where most of the messages that a maildrop already had would be announced anew,
//! the login is refused, and nothing is written, until the operator gives the files
//! their names back or says that it is to be so.
//!
//! Which messages are the same under another name? Those of the same sizes and the same
//! sum, whenever their files were written: they were renamed or copied. Mail that is
//! delivered again differs at least in its `Received` lines, also where a client deletes
//! all and gets as much of the same size. Where nobody has read the message that went,
//! because its name said how long it is, there is no sum, and those of the same sizes count
//! whose files were last written before the directories had last changed when they were
//! listed: renamed, or copied with their times. An inode, which may be that of a deleted
//! message, proves nothing.
//!
//! Not seen through: a copy without times of files that nobody has read; one with other line
//! ends, or whose text was changed otherwise; and a maildrop that was listed while most of it
//! was away.
//!
//! Where the index is gone, or a part of it, nothing tells what was announced, and most of it
//! follows from the names and from the lists of an earlier server all the same. What the
//! maildrop keeps of these ([`Cutoffs`]) tells whether they still say what they said: if one
//! is missing, was made anew or lost its end, if `maildrop.uidl` is another by now, or if that
//! itself is damaged, and most messages are from before, the login is refused likewise. So is
//! one whose index is whole and does not know most messages, all of them of a time when
//! a list named whatever there was: it is of an earlier day than they. What a list had named
//! in its last day is taken for new mail there, as it is where a list merely lost its end.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{AtFlags, unlinkat};

use super::earlier::{Cutoffs, Doubt, Sources};
use super::error::{Anew, Cause, OpenError};
use super::index;
use super::listing::{self, Buffers, Folders, Root};
use super::message::Message;
use super::roll::Measured;
use super::scan::{Gone, Listed};
use super::snapshot::Snapshot;
use super::stamps::Time;
use crate::limits;

/// Fewer than this are no mass.
const FEW: usize = 2;

/// What came of a check that found nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    Good,
    /// The operator accepts what it is, and what the maildrop kept was taken away: it is to
    /// be listed again.
    Forgotten,
}

/// What a listing is held against.
pub(super) struct Before<'a> {
    /// What was known of the maildrop.
    pub(super) known: Option<&'a Snapshot>,
    /// What was known, and went.
    pub(super) gone: &'a Gone<'a>,
    /// No index says all that was announced.
    pub(super) unknown: bool,
}

/// Whether what was listed may be announced to clients that know what was before. BLOCKING.
pub(super) fn check(
    before: &Before<'_>,
    listed: &Listed,
    root: &Root,
    sources: &Sources,
) -> Result<Checked, OpenError> {
    let renamed = match before.known {
        Some(known) => renamed(known, &listed.snapshot, root)?,
        None => None,
    };
    let doubt = doubt(before, listed, root, sources)?;
    let checked = match doubt {
        Some(_) => Checked::Forgotten,
        None => Checked::Good,
    };
    match renamed.or(doubt) {
        Some(refusal) if !is_accepted(root) => return Err(refusal),
        _ => {}
    }
    if checked == Checked::Forgotten {
        Cutoffs::remove(root);
    }
    Ok(checked)
}

/// Whether so many of these messages are most of them.
fn is_mass(changed: usize, of: usize) -> bool {
    changed >= FEW && changed > of - changed
}

/// The refusal of a maildrop most of whose messages were announced by what is no more.
pub(super) fn doubt(
    before: &Before<'_>,
    listed: &Listed,
    root: &Root,
    sources: &Sources,
) -> Result<Option<OpenError>, OpenError> {
    let now = &listed.snapshot;
    if !before.unknown && !is_mass(listed.missed, now.len()) {
        return Ok(None);
    }
    let known = before.known.into_iter().flat_map(Snapshot::messages);
    let gone = before.gone.announced()?;
    let gone = gone.iter().map(|one| &*one.unique);
    let known: HashSet<&[u8]> = known.map(|message| message.unique()).chain(gone).collect();
    let there = now.messages().map(|message| message.unique());
    let unknown: Vec<&[u8]> = there.filter(|unique| !known.contains(unique)).collect();
    let Some(Doubt { what, changed }) = sources.doubt(root, &unknown)? else {
        return Ok(None);
    };
    let of = now.len();
    let cause = Cause::Anew(Anew::Unknown { what, changed, of });
    Ok(is_mass(changed, of).then(|| OpenError::of(root.path(), cause)))
}

/// In the maildrop itself, wherever its index is: all that an operator has to name.
pub(super) const ACCEPTANCE: &str = "popcore.index.accept";

/// Whether the operator has accepted a change. The file that says so is removed once it
/// was heeded: it stands for one change.
fn is_accepted(root: &Root) -> bool {
    let accepted = unlinkat(root, ACCEPTANCE, AtFlags::empty()).is_ok();
    if accepted {
        tracing::warn!(
            "{}: messages are announced anew, as the operator accepted",
            root.path().display()
        );
    }
    accepted
}

/// The refusal of a maildrop most of whose messages are there under other names.
fn renamed(before: &Snapshot, now: &Snapshot, root: &Root) -> Result<Option<OpenError>, OpenError> {
    // One walk through both, because each login after a delivery asks. What it tells may
    // be too much: who has another inode or place in the order is gone and new to it.
    let (mut gone, mut new) = (Vec::new(), Vec::new());
    let (mut kept, others) = index::side_by_side(before, now);
    for pair in others {
        match pair {
            (Some(was), Some(is)) if key(&was) == key(&is) => kept += 1,
            (was, is) => {
                gone.extend(was);
                new.extend(is);
            }
        }
    }
    let may_be_mass = |gone: usize, new: usize, kept: usize| {
        let most = gone.min(new);
        is_mass(most, most + kept)
    };
    // Most of what there was would have to be there under another name.
    if !may_be_mass(gone.len(), new.len(), kept) {
        return Ok(None);
    }
    let had = gone.len();
    let mut missing: HashMap<_, _> = gone.into_iter().map(|m| (key(&m), m)).collect();
    new.retain(|message| missing.remove(&key(message)).is_none());
    kept += had - missing.len();
    if !may_be_mass(missing.len(), new.len(), kept) {
        return Ok(None);
    }
    let listed = before.knowledge().newest;
    let changed = same_under_another_name(missing.values(), &new, root, listed)?;
    let of = changed + kept;
    let cause = Cause::Anew(Anew::Renamed { changed, of });
    Ok(is_mass(changed, of).then(|| OpenError::of(root.path(), cause)))
}

/// Who has the same name and another unique-id is another message.
fn key<'a>(message: &Message<'a>) -> (&'a [u8], &'a [u8]) {
    (message.unique(), message.uidl.octets())
}

fn same_under_another_name<'a>(
    gone: impl Iterator<Item = &'a Message<'a>>,
    new: &[Message<'_>],
    root: &Root,
    listed: Option<Time>,
) -> Result<usize, OpenError> {
    let size = |message: &Message<'_>| (message.facts.stored, message.facts.octets);
    // How many of each size have which sum; those without one come first.
    let mut missing: HashMap<_, BTreeMap<Option<u32>, usize>> = HashMap::new();
    for message in gone {
        let sums = missing.entry(size(message)).or_default();
        *sums.entry(message.facts.sum).or_default() += 1;
    }
    let mut reader = Reader::new(root)?;
    let mut changed = 0;
    for message in new {
        let Some(sums) = missing.get_mut(&size(message)) else {
            continue;
        };
        let asked = || sums.keys().any(Option::is_some);
        let sum = message.facts.sum;
        let sum = sum.or_else(|| asked().then(|| reader.sum(message)).flatten());
        let same = if sum.is_some() && sums.contains_key(&sum) {
            Some(sum)
        } else {
            let first = sums.keys().next().copied();
            let first = first.filter(|first| sum.is_none() || first.is_none());
            let is_older = |listed| modified(root, message).is_some_and(|time| time < listed);
            first.filter(|_| listed.is_some_and(is_older))
        };
        let Some(left) = same.and_then(|same| sums.get_mut(&same)) else {
            continue;
        };
        changed += 1;
        *left -= 1;
        sums.retain(|_, left| *left > 0);
    }
    Ok(changed)
}

/// Reads messages whose sum nobody knows, as many as may be.
struct Reader {
    folders: Folders,
    buffers: Buffers,
    left: u64,
}

impl Reader {
    fn new(root: &Root) -> Result<Self, OpenError> {
        Ok(Self {
            folders: root.folders()?,
            buffers: Buffers::new(),
            left: limits::GUARD_READS,
        })
    }

    fn sum(&mut self, message: &Message<'_>) -> Option<u32> {
        self.left = self.left.checked_sub(message.facts.stored)?;
        let folder = self.folders.fd(message.folder)?;
        match listing::measure(folder, message.name, &mut self.buffers) {
            Ok(Measured::Facts(facts)) => facts.sum,
            Ok(Measured::Vanished | Measured::Foreign) | Err(_) => None,
        }
    }
}

/// When a message's file was written last; `None` where it is not there by now.
fn modified(root: &Root, message: &Message<'_>) -> Option<Time> {
    let name = OsStr::from_bytes(message.name);
    let path = root.path().join(message.folder.name()).join(name);
    let facts = fs::symlink_metadata(path).ok()?;
    let nanos = u32::try_from(facts.mtime_nsec()).ok()?;
    Some(Time(facts.mtime(), nanos))
}
