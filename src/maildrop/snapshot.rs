//! The messages that a session sees: an immutable [`Table`], shared by all who ask.
//!
//! Invariants: entries are in message order; no two UIDLs are equal; the total is
//! the sum of all octets.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use super::announce::{self, Digest};
use super::census::{Census, Mark};
use super::columns::Columns;
use super::earlier::Earlier;
use super::index::Position;
use super::lock::LockPlace;
use super::message::{self, Facts, Message, Trust};
use super::retention::Day;
use super::roll::{Roll, View};
use super::stamps::{self, Standing, Time};
use super::table::Table;
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

/// The messages of one maildrop at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// One allocation with the root where no link lies between, and with the
    /// keys of cache and lock.
    asked: Arc<Path>,
    root: Arc<Path>,
    table: Table,
    /// Of new/ and of cur/, as soon as somebody asks.
    censuses: OnceLock<[Census; 2]>,
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
    /// The day on which a session found that something was to go by itself.
    pub(super) due: Option<Day>,
    /// Digests that were announced and are not to be announced again.
    pub(super) retired: Box<[Digest]>,
    /// The index, which may not be on the disk, is all that remembers how one of the
    /// messages is announced.
    pub(super) made_up: bool,
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
    /// It is known to lie on a file system of this machine.
    pub(super) local: bool,
}

impl Knowledge {
    pub(super) fn none() -> Self {
        Self {
            standing: Standing::Unsettled,
            trust: Trust::Untested,
            newest: None,
            due: None,
            retired: Box::default(),
            made_up: false,
            index: None,
            elsewhere: None,
            lock: LockPlace::default(),
            aside: None,
            local: false,
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
        self.table.len()
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// The octets of all messages together, as STAT tells them.
    pub fn total(&self) -> Octets {
        Octets::new(self.table.total())
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
        let verbatim = self.table.is_verbatim(self.index_of(message)?);
        Some(StoredForm::of(verbatim))
    }

    /// Whether a message's sizes are those that its file's name states, and its
    /// file has not been read.
    pub fn is_stated(&self, message: MessageNumber) -> Option<bool> {
        Some(self.table.is_stated(self.index_of(message)?))
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
        Some(self.table.folder(self.index_of(message)?))
    }

    /// The inode of the message's file, as the directory told it.
    pub fn inode(&self, message: MessageNumber) -> Option<u64> {
        Some(self.table.inode(self.index_of(message)?))
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

    /// Whether the maildrop is known to lie on a file system of this machine.
    pub fn is_local(&self) -> bool {
        self.knowledge.local
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
        self.table.first_retrieved()
    }

    /// Octets of all names and unique-ids.
    pub(super) fn names_len(&self) -> usize {
        self.table.names_len()
    }

    /// Everything that is known of the messages, in their order.
    pub(super) fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        self.table.messages()
    }

    /// The same from that one on, counted from 0.
    pub(super) fn messages_from(&self, first: usize) -> impl Iterator<Item = Message<'_>> {
        self.table.messages_from(first)
    }

    /// How many messages both begin with that are the same in every respect.
    pub(super) fn beginning_shared_with(&self, other: &Self) -> usize {
        self.table.beginning_shared_with(&other.table)
    }

    /// Those that have one of these unique names.
    pub(super) fn named(&self, names: &HashSet<&[u8]>) -> Vec<Message<'_>> {
        self.table.named(names)
    }

    /// Of these unique-ids those that messages have.
    pub(super) fn announced_among(&self, texts: &HashSet<&[u8]>) -> Vec<Vec<u8>> {
        self.table.announced_among(texts)
    }

    /// Who is in one of the directories.
    pub(super) fn census(&self, folder: Folder) -> Census {
        self.censuses()[at(folder)]
    }

    fn censuses(&self) -> [Census; 2] {
        *self.censuses.get_or_init(|| {
            let mut censuses = [Census::default(); 2];
            for message in self.messages() {
                let mark = Mark::of(message.name, message.folder, message.inode);
                censuses[at(message.folder)] += mark;
            }
            censuses
        })
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
        announce::announce(
            &mut roll,
            None,
            &Earlier::default(),
            &[],
            &knowledge.retired,
        );
        let mut columns = Columns::with_capacity(roll.len(), roll.names_len());
        for member in roll.in_order() {
            columns.push(&laid_out(member));
        }
        Self::new(asked, root, knowledge, columns.into())
    }

    /// The same of what arrived beside the messages of `known`, all of which are there as
    /// they were. Messages without facts are left out.
    pub(super) fn extend(
        known: &Self,
        asked: &Path,
        root: &Path,
        knowledge: Knowledge,
        mut roll: Roll,
    ) -> Self {
        roll.keep_measured();
        let (none, retired) = (Earlier::default(), &knowledge.retired);
        announce::announce(&mut roll, Some(known), &none, &[], retired);
        let arrived: Vec<Message<'_>> = roll.in_order().map(laid_out).collect();
        let extended = Self::new(asked, root, knowledge, known.table.with(&arrived));
        let mut censuses = known.censuses();
        for message in &arrived {
            censuses[at(message.folder)] += Mark::of(message.name, message.folder, message.inode);
        }
        Self {
            censuses: OnceLock::from(censuses),
            ..extended
        }
    }

    pub(super) fn new(asked: &Path, root: &Path, knowledge: Knowledge, table: Table) -> Self {
        let shared: Arc<Path> = asked.into();
        Self {
            root: if asked == root {
                Arc::clone(&shared)
            } else {
                root.into()
            },
            asked: shared,
            table,
            censuses: OnceLock::new(),
            knowledge,
        }
    }

    /// The same, after the index was written.
    pub(super) fn with_index(mut self, index: Option<Position>) -> Self {
        self.knowledge.index = index;
        self.knowledge.made_up &= index.is_none();
        self
    }

    /// The same, with the places of its index, unless beside it, and of its lock,
    /// and whether all of it is on this machine. BLOCKING.
    pub(super) fn with_places(mut self, index: Option<Arc<Path>>, lock: LockPlace) -> Self {
        self.knowledge.elsewhere = index;
        self.knowledge.lock = lock;
        self.knowledge.local = match self.standing() {
            Standing::Settled { local, .. } => local,
            Standing::Partly { .. } | Standing::Unsettled => stamps::is_local(self.root()),
        };
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
}

/// The place of a directory's census.
fn at(folder: Folder) -> usize {
    match folder {
        Folder::New => 0,
        Folder::Cur => 1,
    }
}

/// A member of a roll that was measured and announced.
fn laid_out(member: View<'_>) -> Message<'_> {
    Message {
        name: member.name,
        folder: member.folder,
        inode: member.inode,
        facts: member.facts.expect("only measured ones were kept"),
        rank: member.rank,
        retrieved: member.retrieved,
        uidl: member.uidl.expect("all were announced"),
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
