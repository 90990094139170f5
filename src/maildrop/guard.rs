//! A mass change of unique-ids, noticed before a client hears of it.
//!
//! A unique-id follows the unique name of the message's file. A program that gives
//! all files other names (a copy made with IMAP, a conversion, a restore) would
//! have every client fetch all of its mail again, in one night, at every user. So
//! where most of the messages that a maildrop already had would be announced anew,
//! the login is refused, and nothing is written, until the operator gives the files
//! their names back or says that it is to be so.
//!
//! Which messages are the same under another name? Those of the same sizes whose
//! files were last written before the directories had last changed when they were
//! listed: they were renamed, or copied with their times. Mail that was delivered since is younger, also where a client
//! deletes all and gets as much of the same size again; so an inode, which may be
//! that of a deleted message, proves nothing. A copy without its times is not
//! seen through.
//!
//! Where the index is gone, or a part of it, nothing tells what was announced, and most of it
//! follows from the names and from the lists of an earlier server all the same. What the
//! maildrop keeps of these ([`Cutoffs`]) tells whether they still say what they said: if one
//! is missing, was made anew or lost its end, if `maildrop.uidl` is another by now, or if that
//! itself is damaged, and most messages are from before, the login is refused likewise.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{AtFlags, unlinkat};

use super::earlier::{Cutoffs, Doubt, Sources};
use super::error::{Anew, Cause, OpenError};
use super::index;
use super::listing::Root;
use super::message::Message;
use super::snapshot::Snapshot;
use super::stamps::Time;

/// Fewer than this are no mass.
const FEW: usize = 2;

/// What came of a check of unknown messages that found nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    Good,
    /// The operator accepts what it is, and what the maildrop kept was taken away: it is to
    /// be listed again.
    Forgotten,
}

/// Whether messages that no index knows, of which `known` are none, are announced as before,
/// as far as the maildrop itself tells. BLOCKING.
pub(super) fn check_unknown(
    known: Option<&Snapshot>,
    now: &Snapshot,
    root: &Root,
    sources: &Sources,
) -> Result<Checked, OpenError> {
    let Some(refusal) = doubt(known, now, root, sources)? else {
        return Ok(Checked::Good);
    };
    if !is_accepted(root) {
        return Err(refusal);
    }
    Cutoffs::remove(root);
    Ok(Checked::Forgotten)
}

/// The refusal of a maildrop most of whose messages were announced by what is no more.
pub(super) fn doubt(
    known: Option<&Snapshot>,
    now: &Snapshot,
    root: &Root,
    sources: &Sources,
) -> Result<Option<OpenError>, OpenError> {
    let known = known.into_iter().flat_map(Snapshot::messages);
    let known: HashSet<&[u8]> = known.map(|message| message.unique()).collect();
    let there = now.messages().map(|message| message.unique());
    let unknown: Vec<&[u8]> = there.filter(|unique| !known.contains(unique)).collect();
    let Some(Doubt { what, changed }) = sources.doubt(root, &unknown)? else {
        return Ok(None);
    };
    let of = now.len();
    let is_mass = changed >= FEW && changed > of - changed;
    let cause = Cause::Anew(Anew::Unknown { what, changed, of });
    Ok(is_mass.then(|| OpenError::of(root.path(), cause)))
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

/// Whether `now` may be announced to clients that know `before`. BLOCKING.
pub(super) fn check(before: &Snapshot, now: &Snapshot, root: &Root) -> Result<(), OpenError> {
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
    let is_mass = |gone: usize, new: usize, kept: usize| new >= FEW && new.min(gone) > kept;
    // Most of what there was would have to be there under another name.
    if !is_mass(gone.len(), new.len(), kept) {
        return Ok(());
    }
    let had = gone.len();
    let mut missing: HashMap<_, _> = gone.into_iter().map(|m| (key(&m), m)).collect();
    new.retain(|message| missing.remove(&key(message)).is_none());
    kept += had - missing.len();
    if !is_mass(missing.len(), new.len(), kept) {
        return Ok(());
    }
    let Some(listed) = before.knowledge().newest else {
        return Ok(());
    };
    let changed = same_under_another_name(missing.values(), &new, root, listed);
    if changed < FEW || changed <= kept || is_accepted(root) {
        return Ok(());
    }
    let of = changed + kept;
    Err(OpenError::of(
        root.path(),
        Cause::Anew(Anew::Renamed { changed, of }),
    ))
}

/// Who has the same name and another unique-id is another message.
fn key<'a>(message: &Message<'a>) -> (&'a [u8], &'a [u8]) {
    (message.unique(), message.uidl.octets())
}

fn same_under_another_name<'a>(
    gone: impl Iterator<Item = &'a Message<'a>>,
    new: &[Message<'_>],
    root: &Root,
    listed: Time,
) -> usize {
    let mut sizes = HashMap::new();
    for message in gone {
        let size = (message.facts.stored, message.facts.octets);
        *sizes.entry(size).or_insert(0_usize) += 1;
    }
    let mut changed = 0;
    for message in new {
        let size = (message.facts.stored, message.facts.octets);
        let Some(left) = sizes.get_mut(&size).filter(|left| **left > 0) else {
            continue;
        };
        if modified(root, message).is_some_and(|modified| modified < listed) {
            *left -= 1;
            changed += 1;
        }
    }
    changed
}

/// When a message's file was written last; `None` where it is not there by now.
fn modified(root: &Root, message: &Message<'_>) -> Option<Time> {
    let name = OsStr::from_bytes(message.name);
    let path = root.path().join(message.folder.name()).join(name);
    let facts = fs::symlink_metadata(path).ok()?;
    let nanos = u32::try_from(facts.mtime_nsec()).ok()?;
    Some(Time(facts.mtime(), nanos))
}
