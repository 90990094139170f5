//! The messages that a session sees: an immutable table, shared by all who ask.
//!
//! Layout: one array of 25-octet entries and one buffer with all names end to
//! end, each followed by its packed unique-id, so that a message with a name of 50
//! octets and the unique-id of a Dovecot takes 83, and 100,000 of them are two
//! allocations. An entry is packed and read by copying its fields:
//!
//! | octets | field | who needs it |
//! | --- | --- | --- |
//! | 8 | inode | the next scan: is this known name still that file? |
//! | 4 | octets on the wire | STAT, LIST, the header of RETR |
//! | 4 | octets in the file | RETR: how to send it, and whether the file was rewritten; the index |
//! | 4 | end of name and unique-id in the buffer | their start is the end of the entry before |
//! | 4 | sum of the file, if it was read | a listing: is a file that took this name the same message? |
//! | 1 | marks: in cur/; sendable as stored; sizes from the name; large; spelling of the unique-id | |
//!
//! A message of 4 GiB and more has its sizes in a table of its own. So have the
//! places in the order of an earlier server, four octets each, where a maildrop
//! has such an order. Columns of their own instead of entries would make LIST
//! denser, and every other access three cache misses.
//!
//! Invariants: entries are in message order; no two UIDLs are equal; the total is
//! the sum of all octets.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::announce::{self, Digest};
use super::earlier::Earlier;
use super::index::Position;
use super::lock::LockPlace;
use super::message::{self, Facts, Message, Trust};
use super::retention::Day;
use super::roll::Roll;
use super::stamps::{Standing, Time};
use super::uidl::{Form, Packed};
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
#[repr(C, packed)]
struct Entry {
    inode: u64,
    octets: u32,
    stored: u32,
    end: u32,
    sum: u32,
    marks: u8,
}

const _: () = assert!(size_of::<Entry>() == 25);

const IN_CUR: u8 = 1;
const VERBATIM: u8 = 1 << 1;
const STATED: u8 = 1 << 2;
/// The sizes stand in `large`.
const LARGE: u8 = 1 << 3;
/// The spelling of the unique-id takes the bits from here on.
const FORM: u32 = 4;

impl Entry {
    fn form(self) -> Form {
        Form::from_bits(self.marks >> FORM).expect("only forms are stored")
    }

    fn folder(self) -> Folder {
        if self.marks & IN_CUR == 0 {
            Folder::New
        } else {
            Folder::Cur
        }
    }
}

/// Sizes that 32 bits do not hold.
#[derive(Clone, Copy, Debug)]
struct Large {
    index: u32,
    octets: u64,
    stored: u64,
}

/// The messages themselves, while they are laid out and after that.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: Vec<Entry>,
    names: Vec<u8>,
    /// Of the first messages, those that have one.
    ranks: Vec<u32>,
    /// As far as the last that was retrieved, where that is of interest.
    retrieved: Vec<Option<Day>>,
    /// The first day of those.
    first_retrieved: Option<Day>,
    large: Vec<Large>,
    total: u64,
}

impl Table {
    pub(super) fn with_capacity(messages: usize, names: usize) -> Self {
        Self {
            entries: Vec::with_capacity(messages),
            names: Vec::with_capacity(names),
            ..Self::default()
        }
    }

    /// Appends a message, which comes behind all that were appended before.
    pub(super) fn push(&mut self, message: &Message<'_>) {
        let facts = message.facts;
        let mark = |set: bool, mark: u8| if set { mark } else { 0 };
        let sizes = (u32::try_from(facts.octets), u32::try_from(facts.stored));
        let (octets, stored, large) = match sizes {
            (Ok(octets), Ok(stored)) => (octets, stored, false),
            _ => (0, 0, true),
        };
        if large {
            self.large.push(Large {
                index: u32::try_from(self.entries.len()).expect("bounded by limits"),
                octets: facts.octets,
                stored: facts.stored,
            });
        }
        // Ranked ones come first; one that does not is as good without its rank.
        if let Some(rank) = message.rank
            && self.ranks.len() == self.entries.len()
        {
            self.ranks.push(rank);
        }
        if let Some(day) = message.retrieved {
            self.retrieved.resize(self.entries.len(), None);
            self.retrieved.push(Some(day));
            let first = self.first_retrieved.unwrap_or(day);
            self.first_retrieved = Some(first.min(day));
        }
        self.names.extend_from_slice(message.name);
        let uidl = message.uidl.octets();
        self.names.extend_from_slice(uidl);
        if message.uidl.form() == Form::Text {
            self.names
                .push(u8::try_from(uidl.len()).expect("a unique-id is bounded"));
        }
        self.total = self.total.saturating_add(facts.octets);
        self.entries.push(Entry {
            inode: message.inode,
            octets,
            stored,
            end: u32::try_from(self.names.len()).expect("bounded by limits"),
            sum: facts.sum.unwrap_or_default(),
            marks: mark(message.folder == Folder::Cur, IN_CUR)
                | mark(facts.verbatim, VERBATIM)
                | mark(facts.are_stated(), STATED)
                | mark(large, LARGE)
                | message.uidl.form().to_bits() << FORM,
        });
    }

    fn trim(&mut self) {
        self.entries.shrink_to_fit();
        self.names.shrink_to_fit();
        self.ranks.shrink_to_fit();
        self.retrieved.shrink_to_fit();
        self.large.shrink_to_fit();
    }

    fn memory(&self) -> usize {
        size_of_val(&*self.entries)
            + size_of_val(&*self.names)
            + size_of_val(&*self.ranks)
            + size_of_val(&*self.retrieved)
            + size_of_val(&*self.large)
    }

    /// Name and packed unique-id.
    fn texts(&self, index: usize) -> (&[u8], Packed<'_>) {
        let end = |index: usize| self.entries[index].end as usize;
        let start = index.checked_sub(1).map_or(0, end);
        let both = &self.names[start..end(index)];
        let form = self.entries[index].form();
        let (both, len) = if let Some(len) = form.packed_len() {
            (both, len)
        } else {
            let (len, both) = both.split_last().expect("the length of a text");
            (both, usize::from(*len))
        };
        let (name, octets) = both.split_at(both.len() - len);
        (name, Packed::new(form, octets).expect("it was packed"))
    }

    fn sizes(&self, index: usize) -> (u64, u64) {
        let entry = self.entries[index];
        if entry.marks & LARGE == 0 {
            return (entry.octets.into(), entry.stored.into());
        }
        let own = |large: &Large| large.index as usize;
        let at = self.large.binary_search_by_key(&index, own);
        let large = self.large[at.expect("a marked entry has its sizes")];
        (large.octets, large.stored)
    }

    fn message(&self, index: usize) -> Message<'_> {
        let entry = self.entries[index];
        let (name, uidl) = self.texts(index);
        let (octets, stored) = self.sizes(index);
        Message {
            name,
            folder: entry.folder(),
            inode: entry.inode,
            facts: Facts {
                octets,
                stored,
                verbatim: entry.marks & VERBATIM != 0,
                sum: (entry.marks & STATED == 0).then_some(entry.sum),
            },
            rank: self.ranks.get(index).copied(),
            uidl,
            retrieved: self.retrieved.get(index).copied().flatten(),
        }
    }
}

/// The messages of one maildrop at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// One allocation with the root where no link lies between, and with the
    /// keys of cache and lock.
    asked: Arc<Path>,
    root: Arc<Path>,
    table: Table,
    knowledge: Knowledge,
}

/// What is known of a maildrop beside its messages.
#[derive(Clone, Debug)]
pub(super) struct Knowledge {
    /// What the listing is worth later.
    pub(super) standing: Standing,
    /// Whether sizes in names are believed.
    pub(super) trust: Trust,
    /// When its directories had last changed by then, in their own clock.
    pub(super) newest: Option<Time>,
    /// Digests that were announced and are not to be announced again.
    pub(super) retired: Box<[Digest]>,
    /// What the index held when it was last read or written; `None` where it did
    /// not hold this.
    pub(super) index: Option<Position>,
    /// Where the index is, unless beside the messages.
    pub(super) elsewhere: Option<Arc<Path>>,
    /// Where its lock is.
    pub(super) lock: LockPlace,
    /// When the oldest message that is kept aside was deleted, as far as that is of
    /// interest.
    pub(super) aside: Option<SystemTime>,
}

impl Knowledge {
    pub(super) fn none() -> Self {
        Self {
            standing: Standing::Unsettled,
            trust: Trust::Untested,
            newest: None,
            retired: Box::default(),
            index: None,
            elsewhere: None,
            lock: LockPlace::default(),
            aside: None,
        }
    }
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
        self.table.entries.len()
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.table.entries.is_empty()
    }

    /// The octets of all messages together, as STAT tells them.
    pub fn total(&self) -> Octets {
        Octets::new(self.table.total)
    }

    /// A message's octets as LIST tells them; `None` where there is no such
    /// message, here and below.
    pub fn octets(&self, message: MessageNumber) -> Option<Octets> {
        let index = self.index_of(message)?;
        Some(Octets::new(self.table.sizes(index).0))
    }

    /// The size of a message's file in octets. A file of another size was
    /// rewritten since, and what [`octets`](Self::octets) says of it is wrong;
    /// unless nobody has read it yet ([`is_stated`](Self::is_stated)).
    pub fn stored(&self, message: MessageNumber) -> Option<u64> {
        Some(self.table.sizes(self.index_of(message)?).1)
    }

    /// What has to be done to a message's octets before they are sent.
    pub fn as_stored(&self, message: MessageNumber) -> Option<StoredForm> {
        let entry = self.entry(message)?;
        Some(StoredForm::of(entry.marks & VERBATIM != 0))
    }

    /// Whether a message's sizes are those that its file's name states, and its
    /// file has not been read.
    pub fn is_stated(&self, message: MessageNumber) -> Option<bool> {
        self.entry(message).map(|entry| entry.marks & STATED != 0)
    }

    /// Appends a message's unique-id: 1 to [`UNIQUE_ID`](crate::limits::UNIQUE_ID)
    /// octets of 0x21 to 0x7E (RFC 1939, section 7).
    pub fn write_uidl(&self, message: MessageNumber, out: &mut Vec<u8>) {
        if let Some(index) = self.index_of(message) {
            let (name, uidl) = self.table.texts(index);
            uidl.write(message::unique(name), out);
        }
    }

    /// The part of a message's file name that identifies it.
    pub fn unique_name(&self, message: MessageNumber) -> Option<&[u8]> {
        self.name(message).map(message::unique)
    }

    /// A message's file name when the maildrop was listed.
    pub fn name(&self, message: MessageNumber) -> Option<&[u8]> {
        Some(self.table.texts(self.index_of(message)?).0)
    }

    /// Which directory held the message when the maildrop was listed.
    pub fn folder(&self, message: MessageNumber) -> Option<Folder> {
        self.entry(message).map(Entry::folder)
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
        self.knowledge.standing
    }

    /// Memory that the snapshot takes, in octets.
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + self.table.memory()
            + size_of_val(&*self.knowledge.retired)
            + self.asked.as_os_str().len()
            + self.root.as_os_str().len()
    }

    /// The day on which the first of its messages was fetched, of those days that
    /// are of interest.
    pub(super) fn first_retrieved(&self) -> Option<Day> {
        self.table.first_retrieved
    }

    /// Octets of all names and unique-ids.
    pub(super) fn names_len(&self) -> usize {
        self.table.names.len()
    }

    /// Everything that is known of the messages, in their order.
    pub(super) fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        (0..self.len()).map(|index| self.table.message(index))
    }

    /// Everything that is known of one.
    pub(super) fn message(&self, message: MessageNumber) -> Option<Message<'_>> {
        Some(self.table.message(self.index_of(message)?))
    }

    pub(super) fn knowledge(&self) -> &Knowledge {
        &self.knowledge
    }

    /// Lays out what a scan found. Messages without facts are left out.
    pub(super) fn assemble(
        asked: &Path,
        root: &Path,
        knowledge: Knowledge,
        mut roll: Roll,
    ) -> Self {
        roll.keep_measured();
        announce::announce(&mut roll, &Earlier::default(), &[], &knowledge.retired);
        let mut table = Table::with_capacity(roll.len(), roll.names_len());
        for member in roll.in_order() {
            table.push(&Message {
                name: member.name,
                folder: member.folder,
                inode: member.inode,
                facts: member.facts.expect("only measured ones were kept"),
                rank: member.rank,
                retrieved: member.retrieved,
                uidl: member.uidl.expect("all were announced"),
            });
        }
        Self::new(asked, root, knowledge, table)
    }

    pub(super) fn new(asked: &Path, root: &Path, knowledge: Knowledge, mut table: Table) -> Self {
        table.trim();
        let shared: Arc<Path> = asked.into();
        Self {
            root: if asked == root {
                Arc::clone(&shared)
            } else {
                root.into()
            },
            asked: shared,
            table,
            knowledge,
        }
    }

    /// The same, after the index was written.
    pub(super) fn with_index(mut self, index: Option<Position>) -> Self {
        self.knowledge.index = index;
        self
    }

    /// The same, with the places of its index, unless beside it, and of its lock.
    pub(super) fn with_places(mut self, index: Option<Arc<Path>>, lock: LockPlace) -> Self {
        self.knowledge.elsewhere = index;
        self.knowledge.lock = lock;
        self
    }

    /// The same, with what is kept aside.
    pub(super) fn with_aside(mut self, oldest: Option<SystemTime>) -> Self {
        self.knowledge.aside = oldest;
        self
    }

    fn index_of(&self, message: MessageNumber) -> Option<usize> {
        Some(message.index()).filter(|index| *index < self.len())
    }

    fn entry(&self, message: MessageNumber) -> Option<Entry> {
        self.table.entries.get(message.index()).copied()
    }
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
            sum: Some(0),
        };
        let inode = self.roll.len() as u64 + 1;
        let name = super::Name::parse(name.as_ref()).expect("a name that a message can have");
        self.roll.add(name, Folder::Cur, inode, Some(facts));
        self
    }

    /// The snapshot, which no freshness check will call fresh.
    pub fn build(mut self) -> Snapshot {
        self.roll.sort();
        Snapshot::assemble(&self.root, &self.root, Knowledge::none(), self.roll)
    }
}

#[cfg(test)]
mod tests;
