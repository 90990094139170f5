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

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use super::error::{Cause, OpenError};
use super::index::Index;
use super::listing::Root;
use super::message::Message;
use super::snapshot::Snapshot;
use super::stamps::Time;

/// Fewer than this are no mass.
const FEW: usize = 2;

/// Whether `now` may be announced to clients that know `before`. BLOCKING.
pub(super) fn check(
    before: &Snapshot,
    now: &Snapshot,
    root: &Root,
    index: &Index,
) -> Result<(), OpenError> {
    let mut gone: HashMap<(&[u8], &[u8]), Message<'_>> = HashMap::new();
    for message in before.messages() {
        gone.insert(key(&message), message);
    }
    let had = gone.len();
    let mut new = Vec::new();
    for message in now.messages() {
        if gone.remove(&key(&message)).is_none() {
            new.push(message);
        }
    }
    let kept = had - gone.len();
    // Most of what there was would have to be there under another name.
    if new.len() < FEW || new.len().min(gone.len()) <= kept {
        return Ok(());
    }
    let Some(listed) = before.knowledge().newest else {
        return Ok(());
    };
    let changed = same_under_another_name(gone.values(), &new, root, listed);
    if changed < FEW || changed <= kept {
        return Ok(());
    }
    // Removed once it was heeded: it stands for one change.
    if fs::remove_file(index.acceptance()).is_ok() {
        tracing::warn!(
            "{}: {changed} messages are announced anew, as the operator accepted",
            root.path().display()
        );
        return Ok(());
    }
    let of = changed + kept;
    Err(OpenError::of(root.path(), Cause::Renamed { changed, of }))
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
