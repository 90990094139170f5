//! The messages that a session sees: an immutable table, shared by all who ask.
//!
//! Layout: one array of 30-octet entries and one buffer with all names end to
//! end, so that a message with a name of 50 octets takes 80, and 100,000 of them
//! are two allocations. An entry is packed to two octets and read by copying its
//! fields:
//!
//! | octets | field | who needs it |
//! | --- | --- | --- |
//! | 8 | inode | the next scan: is this known name still that file? |
//! | 8 | octets on the wire | STAT, LIST, the header of RETR |
//! | 8 | octets in the file | RETR: how to send it, and whether the file was rewritten; the index |
//! | 4 | end of the name in the buffer | the file's path; its start is the entry before |
//! | 1 | length of the unique name | UIDL |
//! | 1 | marks: in cur/; sendable as stored; UIDL is a hash | |
//!
//! A UIDL that is not the unique name (too long, bytes that RFC 1939 forbids, or
//! a second file of that name) stands as 32 hex digits in a table of its own,
//! which a usual maildrop does not have. Columns of their own instead of entries
//! would make LIST denser, and every other access three cache misses.
//!
//! Invariants: entries are in message order; no two UIDLs are equal; the total is
//! the sum of all octets.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::fmt::Write as _;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::roll::{Facts, Roll, Uidl};
use super::stamps::Standing;
use crate::limits;
use crate::proto::{MessageNumber, Octets};

/// Which of a maildrop's directories a message lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// Delivered and not yet seen by any program.
    New,
    /// Seen; the name may carry flags.
    Cur,
}

impl Folder {
    /// The directory's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Cur => "cur",
        }
    }

    pub(super) fn c_name(self) -> &'static CStr {
        match self {
            Self::New => c"new",
            Self::Cur => c"cur",
        }
    }
}

/// What a message's file holds, as far as it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredForm {
    /// The octets of the wire: every line ends with CRLF, the last one too, and
    /// none begins with a dot. The file goes out as it is, but for the terminator.
    Wire,
    /// Text that has to go through the encoder, or that nobody has looked at.
    Text,
}

impl StoredForm {
    fn of(verbatim: bool) -> Self {
        if verbatim { Self::Wire } else { Self::Text }
    }
}

#[derive(Clone, Copy, Debug)]
#[repr(C, packed(2))]
struct Entry {
    inode: u64,
    octets: u64,
    stored: u64,
    name_end: u32,
    unique_len: u8,
    marks: u8,
}

const _: () = assert!(size_of::<Entry>() == 30);

const IN_CUR: u8 = 1;
const VERBATIM: u8 = 1 << 1;
const HASHED: u8 = 1 << 2;

/// The first half of a SHA-256 in lower-case hex.
pub(super) type Hash = [u8; 32];

/// The messages of one maildrop at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// One allocation with the root where no link lies between, and with the
    /// keys of cache and lock.
    asked: Arc<Path>,
    root: Arc<Path>,
    standing: Standing,
    entries: Box<[Entry]>,
    names: Box<[u8]>,
    /// By index, ascending.
    hashes: Box<[(u32, Hash)]>,
    total: u64,
}

/// One message as a scan needs it again.
pub(super) struct Remembered<'a> {
    pub(super) name: &'a [u8],
    pub(super) folder: Folder,
    pub(super) inode: u64,
    pub(super) facts: Facts,
    pub(super) hash: Option<Hash>,
}

impl Snapshot {
    /// A snapshot without any file, for tests of what uses one. `root` counts as
    /// canonical.
    pub fn builder(root: impl Into<PathBuf>) -> Builder {
        Builder {
            root: root.into(),
            roll: Roll::default(),
        }
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The octets of all messages together, as STAT tells them.
    pub fn total(&self) -> Octets {
        Octets::new(self.total)
    }

    /// A message's octets as LIST tells them; `None` where there is no such
    /// message, here and below.
    pub fn octets(&self, message: MessageNumber) -> Option<Octets> {
        self.entry(message).map(|entry| Octets::new(entry.octets))
    }

    /// The size of a message's file in octets. A file of another size was
    /// rewritten since, and what [`octets`](Self::octets) says of it is wrong.
    pub fn stored(&self, message: MessageNumber) -> Option<u64> {
        self.entry(message).map(|entry| entry.stored)
    }

    /// What has to be done to a message's octets before they are sent.
    pub fn as_stored(&self, message: MessageNumber) -> Option<StoredForm> {
        let form = |entry: Entry| StoredForm::of(entry.marks & VERBATIM != 0);
        self.entry(message).map(form)
    }

    /// A message's unique-id: 1 to 70 octets of 0x21 to 0x7E (RFC 1939,
    /// section 7).
    pub fn uidl(&self, message: MessageNumber) -> Option<&[u8]> {
        let entry = self.entry(message)?;
        if entry.marks & HASHED == 0 {
            return self.unique_name(message);
        }
        let index = u32::try_from(message.index()).ok()?;
        let at = self.hashes.binary_search_by_key(&index, |hash| hash.0);
        Some(&self.hashes[at.expect("a marked entry has a hash")].1)
    }

    /// Appends a message's unique-id; at most [`limits::UNIQUE_ID`] octets.
    pub fn write_uidl(&self, message: MessageNumber, out: &mut Vec<u8>) {
        out.extend_from_slice(self.uidl(message).unwrap_or_default());
    }

    /// The part of a message's file name that identifies it.
    pub fn unique_name(&self, message: MessageNumber) -> Option<&[u8]> {
        let unique = usize::from(self.entry(message)?.unique_len);
        Some(&self.name(message)?[..unique])
    }

    /// A message's file name when the maildrop was listed.
    pub fn name(&self, message: MessageNumber) -> Option<&[u8]> {
        let index = message.index();
        (index < self.len()).then(|| &self.names[self.name_range(index)])
    }

    /// Which directory held the message when the maildrop was listed.
    pub fn folder(&self, message: MessageNumber) -> Option<Folder> {
        self.entry(message).map(folder_of)
    }

    /// The inode of the message's file, as the directory told it.
    pub fn inode(&self, message: MessageNumber) -> Option<u64> {
        self.entry(message).map(|entry| entry.inode)
    }

    /// The absolute, canonical path of a message's file.
    pub fn path(&self, message: MessageNumber) -> Option<PathBuf> {
        let folder = self.folder(message)?.name();
        let name = OsStr::from_bytes(self.name(message)?);
        Some(
            [&self.root, Path::new(folder), Path::new(name)]
                .iter()
                .collect(),
        )
    }

    /// The same for a system call.
    pub fn c_path(&self, message: MessageNumber) -> Option<CString> {
        let path = self.path(message)?.into_os_string();
        CString::new(path.into_encoded_bytes()).ok()
    }

    /// The maildrop's path as the template gave it: the cache's key.
    pub fn asked(&self) -> &Arc<Path> {
        &self.asked
    }

    /// The maildrop's path without any link: the lock's key.
    pub fn root(&self) -> &Arc<Path> {
        &self.root
    }

    /// What the listing is worth later.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Memory that the snapshot takes, in octets.
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&*self.entries)
            + size_of_val(&*self.names)
            + size_of_val(&*self.hashes)
            + self.asked.as_os_str().len()
            + self.root.as_os_str().len()
    }

    /// Everything that is known of the messages, in their order.
    pub(super) fn remembered(&self) -> impl Iterator<Item = Remembered<'_>> {
        let mut hashes = self.hashes.iter();
        self.entries.iter().enumerate().map(move |(index, entry)| {
            let hash = (entry.marks & HASHED != 0).then(|| hashes.next().map(|hash| hash.1));
            Remembered {
                name: &self.names[self.name_range(index)],
                folder: folder_of(*entry),
                inode: entry.inode,
                facts: Facts {
                    octets: entry.octets,
                    stored: entry.stored,
                    verbatim: entry.marks & VERBATIM != 0,
                },
                hash: hash.flatten(),
            }
        })
    }

    /// Lays out what a scan found. Messages without facts are left out.
    pub(super) fn assemble(asked: &Path, root: &Path, standing: Standing, mut roll: Roll) -> Self {
        roll.keep_measured();
        let hashes = announce(&roll);
        let mut names = Vec::with_capacity(roll.names_len());
        let mut entries = Vec::with_capacity(roll.len());
        let mut total = 0_u64;
        let mut by_hash = hashes.iter().map(|hash| hash.0).peekable();
        for (index, member) in (0_u32..).zip(roll.members()) {
            let facts = member.facts.expect("only measured ones were kept");
            names.extend_from_slice(member.name);
            total = total.saturating_add(facts.octets);
            let is_hashed = by_hash.next_if_eq(&index).is_some();
            let mark = |set: bool, mark: u8| if set { mark } else { 0 };
            entries.push(Entry {
                inode: member.inode,
                octets: facts.octets,
                stored: facts.stored,
                name_end: u32::try_from(names.len()).expect("bounded by limits"),
                unique_len: u8::try_from(member.unique.len()).expect("bounded by limits"),
                marks: mark(member.folder == Folder::Cur, IN_CUR)
                    | mark(facts.verbatim, VERBATIM)
                    | mark(is_hashed, HASHED),
            });
        }
        let shared: Arc<Path> = asked.into();
        Self {
            root: if asked == root {
                Arc::clone(&shared)
            } else {
                root.into()
            },
            asked: shared,
            standing,
            entries: entries.into(),
            names: names.into(),
            hashes: hashes.into(),
            total,
        }
    }

    fn entry(&self, message: MessageNumber) -> Option<Entry> {
        self.entries.get(message.index()).copied()
    }

    fn name_range(&self, index: usize) -> Range<usize> {
        let end = |index: usize| self.entries[index].name_end as usize;
        let start = index.checked_sub(1).map_or(0, end);
        start..end(index)
    }
}

fn folder_of(entry: Entry) -> Folder {
    if entry.marks & IN_CUR == 0 {
        Folder::New
    } else {
        Folder::Cur
    }
}

/// Whether RFC 1939, section 7, lets the name be a unique-id.
fn is_announceable(unique: &[u8]) -> bool {
    (1..=limits::UNIQUE_ID).contains(&unique.len()) && unique.iter().all(u8::is_ascii_graphic)
}

/// The messages that are announced by a hash, by index, and their hashes.
///
/// What a message was announced by in the snapshot before stays. Of several new
/// files with one unique name the first in order gets the name. A hash is of the
/// unique name, and of an ordinal behind it while another message is announced by
/// the same: a file may be named like the hash of another.
fn announce(roll: &Roll) -> Vec<(u32, Hash)> {
    let members = || (0_u32..).zip(roll.members());
    let mut taken: HashSet<Hash> = roll.known_hashes().collect();
    let known_hash = |unique: &[u8]| Hash::try_from(unique).is_ok_and(|hash| taken.contains(&hash));
    let mut hashed = Vec::new();
    let mut named_group: Option<&[u8]> = None;
    // The holder of a name may stand behind another file of that name.
    let holders: HashSet<&[u8]> = if roll.has_twins() {
        members()
            .filter(|(_, member)| matches!(member.uidl, Uidl::Name))
            .map(|(_, member)| member.unique)
            .collect()
    } else {
        HashSet::new()
    };
    for (index, member) in members() {
        let by_name = match member.uidl {
            Uidl::Name => true,
            Uidl::Hash(_) => false,
            Uidl::New => {
                is_announceable(member.unique)
                    && named_group != Some(member.unique)
                    && !holders.contains(member.unique)
                    && !known_hash(member.unique)
            }
        };
        if by_name {
            named_group = Some(member.unique);
        } else {
            hashed.push((index, member));
        }
    }
    if hashed.is_empty() {
        return Vec::new();
    }
    let mut others = hashed.iter().map(|(index, _)| *index).peekable();
    for (index, member) in members() {
        if others.next_if_eq(&index).is_none() {
            taken.extend(Hash::try_from(member.unique));
        }
    }
    let new_hash = |unique: &[u8], taken: &mut HashSet<Hash>| {
        let mut candidates = (0..).map(|ordinal| hash(unique, ordinal));
        let hash = candidates.find(|hash| taken.insert(*hash));
        hash.expect("ordinals do not end")
    };
    hashed
        .into_iter()
        .map(|(index, member)| match member.uidl {
            Uidl::Hash(hash) => (index, hash),
            Uidl::Name | Uidl::New => (index, new_hash(member.unique, &mut taken)),
        })
        .collect()
}

fn hash(unique: &[u8], ordinal: u64) -> Hash {
    let mut digest = Sha256::new();
    digest.update(unique);
    if ordinal > 0 {
        digest.update([0]);
        digest.update(ordinal.to_string());
    }
    let mut hex = String::with_capacity(size_of::<Hash>());
    for byte in &digest.finalize()[..size_of::<Hash>() / 2] {
        write!(hex, "{byte:02x}").expect("a string takes all");
    }
    hex.into_bytes().try_into().expect("two digits an octet")
}

/// Makes a [`Snapshot`] of messages that need not exist.
#[derive(Debug)]
pub struct Builder {
    root: PathBuf,
    roll: Roll,
}

impl Builder {
    /// Adds a message in cur/ with that file name, whose file holds as many
    /// octets as go over the wire. The order is that of the names.
    #[must_use]
    pub fn message(mut self, name: impl AsRef<[u8]>, octets: u64) -> Self {
        let facts = Facts {
            octets,
            stored: octets,
            verbatim: false,
        };
        let inode = self.roll.len() as u64 + 1;
        let name = super::Name::parse(name.as_ref()).expect("a name that a message can have");
        self.roll.add(name, Folder::Cur, inode, Some(facts));
        self
    }

    /// The snapshot, which no freshness check will call fresh.
    pub fn build(mut self) -> Snapshot {
        self.roll.sort();
        Snapshot::assemble(&self.root, &self.root, Standing::Unsettled, self.roll)
    }
}

#[cfg(test)]
mod tests;
