//! Bringing back what users deleted (`maildrop.undelete`). BLOCKING.
//!
//! The index is told of the messages first, so that they are announced as they were
//! when a listing finds them, and then each takes its place again with one rename. An
//! end between any two steps leaves every message in one place or the other, or in both on a
//! file system without such a rename ([`aside::move_beside`]).

use std::collections::HashMap;
use std::time::SystemTime;

use rustix::io::Errno;

use super::aside::{self, Shelf};
use super::commit;
use super::error::{Attempt, OpenError};
use super::listing::Root;
use super::maildrops::{Hold, Location, Maildrops};
use super::message::{self, Message};
use super::scan;
use super::snapshot::Folder;

/// A message that was deleted and is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undeleted {
    /// When it was deleted.
    pub deleted: SystemTime,
    /// The file, from the maildrop on.
    pub file: Vec<u8>,
    /// Octets on the wire, where they are known.
    pub octets: Option<u64>,
    /// The unique-id, where it is known.
    pub uidl: Option<Vec<u8>>,
    /// Why it was not brought back, if that was tried and did not succeed.
    pub fault: Option<String>,
}

/// What was deleted at `since` or later, in the order in which it was deleted; with
/// `restore` it is brought back. BLOCKING.
pub fn undelete(
    maildrops: &Maildrops,
    at: &Location,
    since: SystemTime,
    restore: bool,
) -> Result<Vec<Undeleted>, OpenError> {
    let path = scan::canonical(&at.path)?;
    if restore {
        // An index there is can be read and appended to after that.
        drop(maildrops.open(at)?);
    }
    let Hold { opened, lock } = maildrops.hold(&path)?;
    let Some((root, _)) = opened else {
        return Ok(Vec::new());
    };
    let fault = |attempt, errno| OpenError::system(attempt, &path.join(aside::FOLDER), errno);
    let shelves = aside::shelves(&root, since).map_err(|errno| fault(Attempt::Read, errno))?;
    let mut found = Vec::new();
    for shelf in &shelves {
        let contents = shelf.list();
        let known: HashMap<&[u8], &Message<'_>> =
            contents.gone().iter().map(|m| (m.unique(), m)).collect();
        let mut files = Vec::new();
        for folder in [Folder::New, Folder::Cur] {
            let names = shelf
                .names(folder)
                .map_err(|errno| fault(Attempt::List, errno))?;
            files.extend(names.into_iter().map(|name| (folder, name)));
        }
        let of = |name: &[u8]| known.get(message::unique(name)).copied();
        if restore {
            let messages: Vec<Message<'_>> = files
                .iter()
                .filter_map(|(_, name)| of(name).copied())
                .collect();
            let index = at.index(&path);
            let written = index.remember(&messages);
            written.map_err(|error| index.fault(&error))?;
        }
        let back = if restore { Some(&root) } else { None };
        for (folder, name) in &files {
            found.push(take(shelf, *folder, name, of(name), back));
        }
    }
    if restore {
        let brought = found.iter().filter(|message| message.fault.is_none());
        let octets: Vec<u64> = brought.filter_map(|m| stored(&root, &m.file)).collect();
        if !octets.is_empty() {
            let line = format!("{} {}\n", octets.iter().sum::<u64>(), octets.len());
            commit::note_quota(&root, &line);
        }
        drop(lock);
        maildrops.cache().forget(&at.path);
        // Announced before any client asks.
        drop(maildrops.open(at)?);
    }
    Ok(found)
}

/// Octets of a file below the maildrop.
fn stored(root: &Root, file: &[u8]) -> Option<u64> {
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    let stat = rustix::fs::statat(root, file, flags).ok()?;
    u64::try_from(stat.st_size).ok()
}

/// What is known of a message, and, where there is a maildrop to bring it back to,
/// what became of that.
fn take(
    shelf: &Shelf,
    folder: Folder,
    name: &[u8],
    known: Option<&Message<'_>>,
    back: Option<&Root>,
) -> Undeleted {
    let fault = back.and_then(|root| {
        let folders = root.folders().map_err(|error| error.to_string());
        let put = folders.and_then(|folders| {
            let to = folders
                .fd(folder)
                .ok_or_else(|| "there is no such folder".to_owned())?;
            shelf
                .put_back(to, folder, name)
                .map_err(|errno| match errno {
                    Errno::EXIST => "there is a file of its name in its place".to_owned(),
                    errno => errno.to_string(),
                })
        });
        put.err()
    });
    Undeleted {
        deleted: shelf.at,
        file: [folder.name().as_bytes(), b"/", name].concat(),
        octets: known.map(|message| message.facts.octets),
        uidl: known.map(Message::uidl_text),
        fault,
    }
}
