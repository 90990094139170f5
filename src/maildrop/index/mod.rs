//! The index of a maildrop: what its last listing told, kept on the disk.
//!
//! With it the first login after a restart lists nothing and opens nothing where
//! nothing changed, and opens only what is new where something did. It can be
//! built anew from the Maildir at any time, but for one thing: the unique-ids that
//! were announced. So whatever can be read of a damaged index is used.
//!
//! It is a log: a whole table first, then what changed, each change ended by a
//! record that says for which stamps of new/ and cur/ all before it is true. It is
//! written under the maildrop's lock, each change with one write, and written anew
//! in a file that takes its place once it has become twice as long as it need be.
//!
//! **Crashes.** Nothing has to be written when messages are delivered, or removed by
//! others: either changes the stamps, and an index whose stamps are not those of the
//! directories is taken for what it is, a memory of names, sizes and unique-ids. What
//! a session removes is noted before that, with a state that holds for no directory
//! from which something was to be removed: the next login lists it, and what is found
//! there after all has its unique-id as before. So are the last messages remembered
//! that are gone, because no other one may be announced as they were, not even one
//! that was given name and inode of one of them.
//! A write that was cut off leaves a tail that no checksum fits, which is cut off
//! with the next write. A new index takes the old one's name only when all of it
//! is on the disk. So there is no order of steps in which it could lie.
//!
//! **Power.** What is appended is not waited for to be on the disk, but for one thing. A
//! machine that loses its power may lose an end of the index, which is then found torn or
//! short of what the directories hold; who is missing there is new once more, and announced
//! as before: by its file's name, or by an earlier server's list, which stays. A unique-id
//! that was made up, because another message has or had what the name gives, follows from
//! the index alone, and that is on the disk before it is announced.
//!
//! Rejected: a database (a process-wide cache and lock of its own, for a table
//! that is read whole); one index for all maildrops (a maildrop that is moved or
//! restored would leave its unique-ids behind); a memory map (a file that is cut
//! short would end the process).

mod file;
mod format;

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fmt;

use super::announce::Digest;
use super::columns::Columns;
use super::message::{Message, Trust, compare};
use super::retention::Day;
use super::snapshot::{Folder, Snapshot};
use super::stamps::{Kept, KeptFolder, Time};
use super::table::Table;
use crate::limits;

pub(super) use file::{Index, Position};
use format::{Header, Record, State};

/// What the octets of an index say.
#[derive(Debug)]
pub struct Contents<'a> {
    /// Kept as a snapshot keeps them: a list of what stands in the octets would be
    /// larger than the octets, and to make it and then the table cost a large
    /// maildrop's login half as much again.
    table: Table,
    /// Those that went, as far as they are still in there, oldest first.
    gone: Vec<Message<'a>>,
    retired: Vec<Digest>,
    /// There where it is true of all the others.
    state: Option<State>,
    /// There was a record, or no need of any.
    any: bool,
    damage: Option<Damage>,
}

/// What is wrong with an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It has no octets.
    Empty,
    /// Its head is not that of an index.
    Foreign,
    /// Another version of popcore wrote it.
    Version(u16),
    /// Octets that are no records, or not whole ones.
    Records {
        /// Where the first of them are.
        at: usize,
        /// How many there are.
        octets: usize,
    },
    /// The records are good and are not all that were written.
    Missing,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::Foreign => f.write_str("its head is damaged, or it is no index"),
            Self::Version(version) => write!(
                f,
                "it is of version {version}, and this popcore reads version {}",
                format::VERSION
            ),
            Self::Records { at, octets } => {
                write!(f, "{octets} octets from octet {at} on cannot be read")
            }
            Self::Missing => f.write_str("records are missing"),
        }
    }
}

/// One message of an index, to look at.
#[derive(Clone, Copy, Debug)]
pub struct Indexed<'a> {
    message: Message<'a>,
}

impl<'a> Indexed<'a> {
    /// The file's name.
    pub fn name(&self) -> &'a [u8] {
        self.message.name
    }

    /// The directory it was in.
    pub fn folder(&self) -> Folder {
        self.message.folder
    }

    /// Octets on the wire.
    pub fn octets(&self) -> u64 {
        self.message.facts.octets
    }

    pub(super) fn message(&self) -> Message<'a> {
        self.message
    }

    /// Octets in the file.
    pub fn stored(&self) -> u64 {
        self.message.facts.stored
    }

    /// The unique-id.
    pub fn uidl(&self) -> Vec<u8> {
        let mut text = Vec::new();
        self.message.uidl.write(self.message.unique(), &mut text);
        text
    }
}

impl<'a> Contents<'a> {
    /// Reads an index, whatever is left of it.
    pub fn read(octets: &'a [u8]) -> Self {
        let (damage, start) = match format::read_header(octets) {
            _ if octets.is_empty() => (Some(Damage::Empty), 0),
            Header::Good => (None, format::HEADER),
            // A record whose checksum holds and that has the form of this version says what
            // it says in this one.
            Header::Version(version) => (Some(Damage::Version(version)), format::HEADER),
            Header::Foreign => (Some(Damage::Foreign), 0),
        };
        let mut replay = Replay::new(octets.len());
        let broken = replay.run(octets, start);
        let mut contents = replay.finish();
        contents.damage = damage.or(broken).or(contents.damage);
        if contents.damage.is_some() {
            contents.state = None;
        }
        contents
    }

    /// How many messages it knows.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// What is wrong with it.
    pub fn damage(&self) -> Option<Damage> {
        self.damage
    }

    /// The version of the popcore that wrote it, if that is another one and none of what it
    /// wrote can be read: all that is known of the maildrop would be lost with it.
    pub(super) fn foreign_version(&self) -> Option<u16> {
        match self.damage {
            Some(Damage::Version(version)) if !self.any => Some(version),
            _ => None,
        }
    }

    /// The messages, in their order.
    pub fn messages(&self) -> impl Iterator<Item = Indexed<'_>> {
        self.table.messages().map(|message| Indexed { message })
    }

    /// An index that says the same and nothing else.
    pub fn to_octets(&self) -> Vec<u8> {
        let mut out = Vec::new();
        format::write_header(&mut out);
        for message in self.table.messages() {
            format::write(&Record::Message(message), &mut out);
        }
        for message in &self.gone {
            format::write(&Record::Gone(*message), &mut out);
        }
        for digest in &self.retired {
            format::write(&Record::Retired(*digest), &mut out);
        }
        if let Some(state) = self.state {
            format::write(&Record::State(state), &mut out);
        }
        out
    }

    /// The messages, and those that were announced and went: their unique-ids are those
    /// of no other message, and theirs again should they come back.
    pub(super) fn into_parts(self) -> (Table, Vec<Message<'a>>) {
        (self.table, self.gone)
    }

    pub(super) fn kept(&self) -> Option<Kept> {
        self.state.map(|state| state.kept)
    }

    pub(super) fn trust(&self) -> Trust {
        self.state.map_or(Trust::Untested, |state| state.trust)
    }

    pub(super) fn newest(&self) -> Option<Time> {
        self.state.and_then(|state| state.newest)
    }

    pub(super) fn due(&self) -> Option<Day> {
        self.state.and_then(|state| state.due)
    }

    pub(super) fn retired(&self) -> Box<[Digest]> {
        self.retired.as_slice().into()
    }

    /// The second of [`into_parts`](Self::into_parts).
    pub(super) fn gone(&self) -> &[Message<'a>] {
        &self.gone
    }
}

/// Which message a record is about.
type Key<'a> = (u64, &'a [u8]);

/// The records of an index, while they are read.
struct Replay<'a> {
    /// Those before the first state, in order if nobody wrote nonsense.
    columns: Columns,
    /// What became of others since: `None` for those that are gone.
    changes: HashMap<Key<'a>, Option<Message<'a>>>,
    gone: Vec<Message<'a>>,
    retired: Vec<Digest>,
    /// The last record, if it is one.
    state: Option<State>,
    states: bool,
    any: bool,
}

impl<'a> Replay<'a> {
    /// For records that take that many octets.
    fn new(octets: usize) -> Self {
        Self {
            // So much that it never grows; what is not touched is not there.
            columns: Columns::with_capacity(octets / format::LEAST_MESSAGE, octets),
            changes: HashMap::new(),
            gone: Vec::new(),
            retired: Vec::new(),
            state: None,
            states: false,
            any: octets <= format::HEADER,
        }
    }

    /// Takes every record from `at` on, and tells what had to be passed over.
    fn run(&mut self, octets: &'a [u8], mut at: usize) -> Option<Damage> {
        let mut passed_over: Option<(usize, usize)> = None;
        while at < octets.len() {
            if let Some((record, length)) = format::read(&octets[at..]) {
                self.take(record);
                at += length;
                continue;
            }
            let next = format::next_marker(octets, at + 1).unwrap_or(octets.len());
            let (first, count) = passed_over.unwrap_or((at, 0));
            passed_over = Some((first, count + next - at));
            // Whether this was a state is not known, and nothing is lost by
            // taking what follows for changes.
            self.states = true;
            at = next;
        }
        passed_over.map(|(at, octets)| Damage::Records { at, octets })
    }

    fn take(&mut self, record: Record<'a>) {
        self.any = true;
        self.state = None;
        match record {
            Record::Message(message) if self.states => {
                let key = (message.inode, message.unique());
                self.changes.insert(key, Some(message));
            }
            Record::Message(message) => self.columns.push(&message),
            Record::Removed { unique, inode } => {
                self.changes.insert((inode, unique), None);
            }
            Record::Gone(message) => {
                if self.states {
                    self.changes.insert((message.inode, message.unique()), None);
                }
                self.gone.push(message);
            }
            Record::Retired(digest) => self.retired.push(digest),
            Record::State(state) => {
                self.state = Some(state);
                self.states = true;
            }
        }
    }

    fn finish(mut self) -> Contents<'a> {
        let mut columns = std::mem::take(&mut self.columns);
        if !self.changes.is_empty() {
            columns = changed(&columns, &self.changes);
        }
        let table = Table::from(columns);
        let whole = self.state.is_none_or(|state| {
            state.messages as usize == table.len() && state.octets == table.total()
        });
        Contents {
            table,
            gone: last_of_each(self.gone),
            retired: self.retired,
            state: self.state,
            any: self.any,
            damage: (!whole).then_some(Damage::Missing),
        }
    }
}

/// A table with what became of its messages, in order if the table is.
fn changed(table: &Columns, changes: &HashMap<Key<'_>, Option<Message<'_>>>) -> Columns {
    let mut made = Columns::with_capacity(table.len() + changes.len(), table.names_len());
    let stays = |message: &Message<'_>| !changes.contains_key(&(message.inode, message.unique()));
    let mut added: Vec<&Message<'_>> = changes.values().flatten().collect();
    added.sort_by(|a, b| compare(a, b));
    let mut added = added.into_iter().peekable();
    for message in table.messages().filter(stays) {
        while let Some(earlier) = added.next_if(|added| compare(added, &message).is_lt()) {
            made.push(earlier);
        }
        made.push(&message);
    }
    added.for_each(|message| made.push(message));
    made
}

/// Those that went, each as it was when it last did.
fn last_of_each(gone: Vec<Message<'_>>) -> Vec<Message<'_>> {
    let mut known = HashSet::new();
    let latest = gone.into_iter().rev();
    let mut kept: Vec<Message<'_>> = latest
        .filter(|message| known.insert((message.unique(), message.uidl.octets())))
        .collect();
    kept.reverse();
    kept
}

/// A list of messages that went, which has the form of an index.
pub(super) fn list(gone: &[Message<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    format::write_header(&mut out);
    for message in gone {
        format::write(&Record::Gone(*message), &mut out);
    }
    out
}

/// An index of a whole maildrop, and of messages that are gone.
fn whole(snapshot: &Snapshot, gone: &[Message<'_>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(snapshot.names_len() + 40 * snapshot.len() + 256);
    format::write_header(&mut out);
    for message in snapshot.messages() {
        format::write(&Record::Message(message), &mut out);
    }
    for message in &gone[gone.len().saturating_sub(limits::GONE_MESSAGES)..] {
        format::write(&Record::Gone(*message), &mut out);
    }
    for digest in &*snapshot.knowledge().retired {
        format::write(&Record::Retired(*digest), &mut out);
    }
    format::write(&Record::State(state(snapshot)), &mut out);
    out
}

/// Two snapshots in one walk: how many messages they begin with that are the same, and of
/// the others each as it was and as it is. One whose place in the order changed comes twice.
pub(super) fn side_by_side<'a>(
    old: &'a Snapshot,
    new: &'a Snapshot,
) -> (
    usize,
    impl Iterator<Item = (Option<Message<'a>>, Option<Message<'a>>)>,
) {
    let same = old.beginning_shared_with(new);
    let mut ours = old.messages_from(same).peekable();
    let mut theirs = new.messages_from(same).peekable();
    let pairs = std::iter::from_fn(move || {
        let order = match (ours.peek(), theirs.peek()) {
            (Some(a), Some(b)) => compare(a, b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        let before = if order.is_le() { ours.next() } else { None };
        let now = if order.is_ge() { theirs.next() } else { None };
        Some((before, now))
    });
    (same, pairs)
}

/// The records that make an index of `old` one of `new`: none, if it is.
fn changes(old: &Snapshot, new: &Snapshot) -> Vec<u8> {
    // Who is gone comes first: a message whose place in the order changed is both.
    let (mut left, mut there) = (Vec::new(), Vec::new());
    for pair in side_by_side(old, new).1 {
        match pair {
            (Some(message), None) => left.push(message),
            (before, Some(message)) if before != Some(message) => {
                format::write(&Record::Message(message), &mut there);
            }
            _ => {}
        }
    }
    let mut gone = departure(&left);
    gone.append(&mut there);
    let known: HashSet<&Digest> = old.knowledge().retired.iter().collect();
    for digest in &*new.knowledge().retired {
        if !known.contains(digest) {
            format::write(&Record::Retired(*digest), &mut gone);
        }
    }
    if !gone.is_empty() || state(old) != state(new) {
        format::write(&Record::State(state(new)), &mut gone);
    }
    gone
}

/// The records of messages that are there no more. Those that cannot be remembered
/// because there are too many are only struck out.
fn departure(left: &[Message<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    let first_kept = left.len().saturating_sub(limits::GONE_MESSAGES);
    for (at, message) in left.iter().enumerate() {
        let (unique, inode) = (message.unique(), message.inode);
        if at < first_kept {
            format::write(&Record::Removed { unique, inode }, &mut out);
        } else {
            format::write(&Record::Gone(*message), &mut out);
        }
    }
    out
}

/// What a session did to messages that the index knows.
pub(super) struct Noted<'a> {
    /// Those that it fetched, with the day.
    pub(super) retrieved: Vec<Message<'a>>,
    /// Those that are about to be removed.
    pub(super) gone: Vec<Message<'a>>,
    /// The day, where something is to go by itself.
    pub(super) due: Option<Day>,
}

impl<'a> Noted<'a> {
    /// The same of what another index knows, and nothing of what it does not know.
    fn among<'b>(&self, known: &'b Table) -> Noted<'b> {
        let keys = |messages: &[Message<'a>]| -> HashMap<Key<'a>, Option<Day>> {
            let key = |message: &Message<'a>| (message.inode, message.unique());
            messages.iter().map(|m| (key(m), m.retrieved)).collect()
        };
        let find = |wanted: &[Message<'a>]| {
            let wanted = keys(wanted);
            let found = known.messages().filter_map(|message| {
                let retrieved = *wanted.get(&(message.inode, message.unique()))?;
                Some(Message {
                    retrieved,
                    ..message
                })
            });
            found.collect()
        };
        Noted {
            retrieved: find(&self.retrieved),
            gone: find(&self.gone),
            due: self.due,
        }
    }

    /// The records that say so. Directories from which something is removed are to be
    /// listed before anything is believed of them: should some of it stay, it is
    /// found there, and is what it was.
    fn records(&self, before: State) -> Vec<u8> {
        let mut out = Vec::new();
        for message in &self.retrieved {
            format::write(&Record::Message(*message), &mut out);
        }
        out.append(&mut departure(&self.gone));
        let from = |folder| self.gone.iter().any(|message| message.folder == folder);
        let octets = self.gone.iter().map(|message| message.facts.octets);
        let mut kept = before.kept;
        if from(Folder::New) {
            kept.new = KeptFolder::Unsettled;
        }
        if from(Folder::Cur) {
            kept.cur = KeptFolder::Unsettled;
        }
        let gone = u32::try_from(self.gone.len()).expect("bounded by limits");
        let state = State {
            kept,
            messages: before.messages.saturating_sub(gone),
            octets: octets.fold(before.octets, u64::saturating_sub),
            due: self.due.or(before.due),
            ..before
        };
        format::write(&Record::State(state), &mut out);
        out
    }
}

/// One message as it is by now, and the state again, if the index has both.
fn correction(contents: &Contents<'_>, message: &Message<'_>, distrust: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let key = (message.inode, message.unique());
    let mut messages = contents.table.messages();
    let Some(known) = messages.find(|known| (known.inode, known.unique()) == key) else {
        return out;
    };
    if contents.damage.is_some() {
        return out;
    }
    let corrected = Message {
        facts: message.facts,
        ..known
    };
    format::write(&Record::Message(corrected), &mut out);
    if let Some(state) = contents.state {
        let others = state.octets.saturating_sub(known.facts.octets);
        let state = State {
            trust: if distrust { Trust::Wrong } else { state.trust },
            octets: others.saturating_add(message.facts.octets),
            ..state
        };
        format::write(&Record::State(state), &mut out);
    }
    out
}

fn state(snapshot: &Snapshot) -> State {
    let knowledge = snapshot.knowledge();
    State {
        kept: knowledge.standing.keep(),
        trust: knowledge.trust,
        messages: u32::try_from(snapshot.len()).expect("bounded by limits"),
        octets: snapshot.total().get(),
        newest: knowledge.newest,
        due: knowledge.due,
    }
}

/// Octets that an index of the snapshot takes at least, nearly.
fn least(snapshot: &Snapshot) -> u64 {
    let messages = format::LEAST_MESSAGE * snapshot.len() + snapshot.names_len();
    (messages + format::HEADER + 24 * snapshot.knowledge().retired.len() + 128) as u64
}

#[cfg(test)]
mod tests;
