//! Messages in their order, in as few octets as there is need for: what a
//! [`Table`](super::table) is made of.
//!
//! Layout: one array of 15-octet entries and one buffer with all names end to
//! end, each followed by its packed unique-id, so that a message with a name of 50
//! octets and the unique-id of a Dovecot takes 73, and 100,000 of them are two
//! allocations. An entry is packed and read by copying its fields:
//!
//! | octets | field | who needs it |
//! | --- | --- | --- |
//! | 4 | inode, its lower half | the next scan: is this known name still that file? |
//! | 4 | octets on the wire | STAT, LIST, the header of RETR |
//! | 2 | how many of them are not in the file | RETR: how to send it, and whether the file was rewritten; the index |
//! | 4 | end of name and unique-id in the buffer | their start is the end of the entry before |
//! | 1 | marks: in cur/; sendable as stored; sizes from the name; large; spelling of the unique-id | |
//!
//! The upper half of the inodes is that of the first message: a file system numbers
//! the files of one directory near each other. A message of 4 GiB and more, of more than
//! 65,535 lines, or with an inode from elsewhere, has these numbers in a table of its own.
//!
//! Columns of their own, as far as the last message that has one, have: in four octets the
//! sum of a file that was read (a listing: is a file that took this name the same
//! message?), none where names state the sizes; in two octets the place in the order of an
//! earlier server, of which the upper half is kept where it changes, because messages are in
//! that order; in two octets the day of the first retrieval. Columns of their own instead
//! of entries would make LIST denser, and every other access three cache misses.

use super::message::{Facts, Message, compare};
use super::retention::Day;
use super::snapshot::Folder;
use super::uidl::{Form, Packed};

/// What is kept of every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, packed)]
struct Entry {
    /// The lower half.
    inode: u32,
    octets: u32,
    /// How many of the octets on the wire are not in the file.
    added: u16,
    end: u32,
    marks: u8,
}

const _: () = assert!(size_of::<Entry>() == 15);

const IN_CUR: u8 = 1;
const VERBATIM: u8 = 1 << 1;
const STATED: u8 = 1 << 2;
/// Inode and sizes stand in `large`.
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

/// Numbers that an entry does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Large {
    index: u32,
    inode: u64,
    octets: u64,
    stored: u64,
}

/// Of the first messages, the ranks of those that have one.
#[derive(Clone, Debug, Default)]
struct Ranks {
    lower: Vec<u16>,
    /// The upper halves, each with the first message that has it.
    upper: Vec<(u32, u16)>,
}

impl Ranks {
    fn len(&self) -> usize {
        self.lower.len()
    }

    fn push(&mut self, rank: u32) {
        let half = |half: u32| u16::try_from(half & u32::from(u16::MAX)).expect("16 bits");
        let upper = half(rank >> 16);
        if self.upper.last().is_none_or(|(_, last)| *last != upper) {
            let first = u32::try_from(self.len()).expect("bounded by limits");
            self.upper.push((first, upper));
        }
        self.lower.push(half(rank));
    }

    fn get(&self, index: usize) -> Option<u32> {
        let lower = *self.lower.get(index)?;
        let behind = self
            .upper
            .partition_point(|(first, _)| *first as usize <= index);
        let (_, upper) = self.upper[behind - 1];
        Some(u32::from(upper) << 16 | u32::from(lower))
    }
}

/// The messages themselves, while they are laid out and after that.
#[derive(Debug, Default)]
pub(super) struct Columns {
    entries: Vec<Entry>,
    names: Vec<u8>,
    /// The upper half of inodes.
    inodes: u32,
    /// As far as the last file that was read.
    sums: Vec<u32>,
    ranks: Ranks,
    /// As far as the last that was retrieved, where that is of interest.
    retrieved: Vec<Option<Day>>,
    /// The first day of those.
    first_retrieved: Option<Day>,
    large: Vec<Large>,
    total: u64,
    /// A bit for each spelling that there is.
    forms: u8,
}

impl Columns {
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
        let (upper, lower) = halves(message.inode);
        if self.entries.is_empty() {
            self.inodes = upper;
        }
        let added = facts.octets.checked_sub(facts.stored);
        let added = added.and_then(|added| u16::try_from(added).ok());
        let (octets, added, large) = match (u32::try_from(facts.octets), added) {
            (Ok(octets), Some(added)) if upper == self.inodes => (octets, added, false),
            _ => (0, 0, true),
        };
        if large {
            self.large.push(Large {
                index: u32::try_from(self.entries.len()).expect("bounded by limits"),
                inode: message.inode,
                octets: facts.octets,
                stored: facts.stored,
            });
        }
        if let Some(sum) = facts.sum {
            self.sums.resize(self.entries.len(), 0);
            self.sums.push(sum);
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
        self.forms |= 1 << message.uidl.form().to_bits();
        self.entries.push(Entry {
            inode: lower,
            octets,
            added,
            end: u32::try_from(self.names.len()).expect("bounded by limits"),
            marks: mark(message.folder == Folder::Cur, IN_CUR)
                | mark(facts.verbatim, VERBATIM)
                | mark(facts.are_stated(), STATED)
                | mark(large, LARGE)
                | message.uidl.form().to_bits() << FORM,
        });
    }

    /// The same and these beside, which are in the order of messages.
    pub(super) fn with(&self, added: &[Message<'_>]) -> Self {
        let octets = |message: &Message<'_>| message.name.len() + message.uidl.octets().len() + 1;
        let room: usize = added.iter().map(octets).sum();
        let mut made = Self::with_capacity(self.len() + added.len(), self.names.len() + room);
        let behind = self
            .last()
            .zip(added.first())
            .is_none_or(|(l, a)| compare(&l, a).is_lt());
        let mut added = added.iter().peekable();
        if behind {
            // As mail comes: what there was is copied as it is.
            made.entries.extend_from_slice(&self.entries);
            made.names.extend_from_slice(&self.names);
            made.sums.reserve_exact(self.sums.len() + added.len());
            made.sums.extend_from_slice(&self.sums);
            made.inodes = self.inodes;
            made.ranks = self.ranks.clone();
            made.retrieved.clone_from(&self.retrieved);
            made.first_retrieved = self.first_retrieved;
            made.large.clone_from(&self.large);
            made.total = self.total;
            made.forms = self.forms;
        } else {
            for message in self.messages() {
                while let Some(earlier) = added.next_if(|a| compare(a, &message).is_lt()) {
                    made.push(earlier);
                }
                made.push(&message);
            }
        }
        added.for_each(|message| made.push(message));
        made
    }

    /// How many messages both begin with that are the same in every respect.
    pub(super) fn beginning_shared_with(&self, other: &Self) -> usize {
        if self.inodes != other.inodes {
            return 0;
        }
        let mut same = shared(&self.entries, &other.entries);
        // Whose names end at the same place, up to the one in which they differ.
        let end = same
            .checked_sub(1)
            .map_or(0, |last| self.entries[last].end as usize);
        let names = shared(&self.names[..end], &other.names[..end]);
        if names < end {
            same = self
                .entries
                .partition_point(|entry| entry.end as usize <= names);
        }
        // Behind the end of a column nobody is in it; of sums that stands in the marks.
        let sums = shared(&self.sums, &other.sums);
        if sums < self.sums.len().min(other.sums.len()) {
            same = same.min(sums);
        }
        let ranks = shared(&self.ranks.lower, &other.ranks.lower);
        if ranks < self.ranks.len().max(other.ranks.len()) {
            same = same.min(ranks);
        }
        let days = shared(&self.retrieved, &other.retrieved);
        let others = [&self.retrieved, &other.retrieved].map(|column| {
            let behind = column[days..].iter().position(Option::is_some);
            behind.map(|at| days + at)
        });
        same = others.into_iter().flatten().fold(same, usize::min);
        let upper = shared(&self.ranks.upper, &other.ranks.upper);
        let large = shared(&self.large, &other.large);
        let first_upper =
            [&self.ranks.upper, &other.ranks.upper].map(|all| Some(all.get(upper)?.0));
        let first_large = [&self.large, &other.large].map(|all| Some(all.get(large)?.index));
        let first = first_upper.into_iter().chain(first_large).flatten().min();
        first.map_or(same, |first| same.min(first as usize))
    }

    /// Gives back the room that is not used.
    pub(super) fn trim(&mut self) {
        trim(&mut self.entries);
        trim(&mut self.names);
        trim(&mut self.sums);
        trim(&mut self.ranks.lower);
        trim(&mut self.ranks.upper);
        trim(&mut self.retrieved);
        trim(&mut self.large);
    }

    /// How many messages there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The octets of all together.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Octets of all names and unique-ids.
    pub(super) fn names_len(&self) -> usize {
        self.names.len()
    }

    /// All of them, in their order.
    pub(super) fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        (0..self.len()).map(|index| self.message(index))
    }

    /// The first day on which one was retrieved, of those that are of interest.
    pub(super) fn first_retrieved(&self) -> Option<Day> {
        self.first_retrieved
    }

    pub(super) fn is_verbatim(&self, index: usize) -> bool {
        self.entries[index].marks & VERBATIM != 0
    }

    pub(super) fn is_stated(&self, index: usize) -> bool {
        self.entries[index].marks & STATED != 0
    }

    pub(super) fn folder(&self, index: usize) -> Folder {
        self.entries[index].folder()
    }

    /// The spelling of a unique-id.
    pub(super) fn form(&self, index: usize) -> Form {
        self.entries[index].form()
    }

    /// Whether any unique-id may have that spelling.
    pub(super) fn have(&self, form: Form) -> bool {
        self.forms >> form.to_bits() & 1 == 1
    }

    /// How many of them, from the first on, may have a rank: none behind has.
    pub(super) fn ranked(&self) -> usize {
        self.ranks.len()
    }

    pub(super) fn last(&self) -> Option<Message<'_>> {
        self.len().checked_sub(1).map(|last| self.message(last))
    }

    /// Octets of memory beside the table itself.
    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.entries)
            + size_of_val(&*self.names)
            + size_of_val(&*self.sums)
            + size_of_val(&*self.ranks.lower)
            + size_of_val(&*self.ranks.upper)
            + size_of_val(&*self.retrieved)
            + size_of_val(&*self.large)
    }

    /// Name and packed unique-id.
    pub(super) fn texts(&self, index: usize) -> (&[u8], Packed<'_>) {
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

    /// Octets on the wire and in the file.
    pub(super) fn sizes(&self, index: usize) -> (u64, u64) {
        let entry = self.entries[index];
        if entry.marks & LARGE == 0 {
            let octets = u64::from(entry.octets);
            return (octets, octets - u64::from(entry.added));
        }
        let large = self.large(index);
        (large.octets, large.stored)
    }

    pub(super) fn inode(&self, index: usize) -> u64 {
        let entry = self.entries[index];
        if entry.marks & LARGE == 0 {
            return u64::from(self.inodes) << 32 | u64::from(entry.inode);
        }
        self.large(index).inode
    }

    fn large(&self, index: usize) -> Large {
        let own = |large: &Large| large.index as usize;
        let at = self.large.binary_search_by_key(&index, own);
        self.large[at.expect("a marked entry has its numbers")]
    }

    pub(super) fn message(&self, index: usize) -> Message<'_> {
        let entry = self.entries[index];
        let (name, uidl) = self.texts(index);
        let (octets, stored) = self.sizes(index);
        Message {
            name,
            folder: entry.folder(),
            inode: self.inode(index),
            facts: Facts {
                octets,
                stored,
                verbatim: entry.marks & VERBATIM != 0,
                sum: (entry.marks & STATED == 0).then(|| self.sums[index]),
            },
            rank: self.ranks.get(index),
            uidl,
            retrieved: self.retrieved.get(index).copied().flatten(),
        }
    }
}

/// Below this a copy into a piece of the right size is cheap, and an allocator that
/// is asked to shrink a small piece may keep it as it is.
const WORTH_A_COPY: usize = 1 << 20;

/// How many elements both begin with that are the same.
fn shared<T: PartialEq>(ours: &[T], theirs: &[T]) -> usize {
    const CHUNK: usize = 512;
    // Whole chunks are compared at the speed of memory.
    let pairs = ours.chunks(CHUNK).zip(theirs.chunks(CHUNK));
    let whole = pairs.take_while(|(a, b)| a == b).map(|(a, _)| a.len());
    let same: usize = whole.sum();
    let rest = ours[same..].iter().zip(&theirs[same..]);
    same + rest.take_while(|(a, b)| a == b).count()
}

fn halves(inode: u64) -> (u32, u32) {
    let half = |half: u64| u32::try_from(half & u64::from(u32::MAX)).expect("32 bits");
    (half(inode >> 32), half(inode))
}

fn trim<T: Copy>(column: &mut Vec<T>) {
    if column.len() == column.capacity() {
        return;
    }
    if size_of_val(&**column) < WORTH_A_COPY {
        *column = column.as_slice().to_vec();
    } else {
        column.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a message of these tests differs in.
    #[derive(Clone, Debug)]
    struct Made {
        name: String,
        inode: u64,
        facts: Facts,
        rank: Option<u32>,
        text: Option<&'static [u8]>,
        retrieved: Option<Day>,
    }

    impl Made {
        fn message(&self) -> Message<'_> {
            let form = if self.text.is_some() {
                Form::Text
            } else {
                Form::Name
            };
            Message {
                name: self.name.as_bytes(),
                folder: Folder::New,
                inode: self.inode,
                facts: self.facts,
                rank: self.rank,
                uidl: Packed::new(form, self.text.unwrap_or_default()).expect("one or the other"),
                retrieved: self.retrieved,
            }
        }
    }

    fn made() -> impl Strategy<Value = Made> {
        let sizes = prop_oneof![4 => 2_u64..9, 1 => Just(u64::from(u32::MAX) + 9)];
        let inode = prop_oneof![6 => 1_u64..50, 1 => Just(1_u64 << 40)];
        let rank = proptest::option::weighted(0.4, 0_u32..200_000);
        let text = proptest::option::weighted(0.2, Just(b"of-old".as_slice()));
        let day = proptest::option::weighted(0.2, (1_u16..9).prop_map(Day::new));
        let sum = proptest::option::weighted(0.7, 0_u32..3);
        (0_u32..60, inode, sizes, sum, rank, text, day).prop_map(
            |(second, inode, stored, sum, rank, text, day)| Made {
                name: format!("{second}.x"),
                inode,
                facts: Facts {
                    octets: stored + 1,
                    stored,
                    verbatim: false,
                    sum,
                },
                rank,
                text,
                retrieved: day.flatten(),
            },
        )
    }

    fn columns(messages: &[Message<'_>]) -> Columns {
        let mut columns = Columns::default();
        for message in messages {
            columns.push(message);
        }
        columns
    }

    fn in_order(made: &[Made]) -> Vec<Message<'_>> {
        let mut messages: Vec<Message<'_>> = made.iter().map(Made::message).collect();
        messages.sort_by(compare);
        messages.dedup_by(|a, b| compare(a, b).is_eq());
        messages
    }

    proptest! {
        #[test]
        fn what_is_added_is_in_its_place(
            made in proptest::collection::vec(made(), 0..12),
            mask in any::<u16>(),
            behind in any::<bool>(),
        ) {
            let all = in_order(&made);
            let is_added = |at: usize| if behind { at * 2 > all.len() } else { mask >> at & 1 == 1 };
            let (mut added, mut known) = (Vec::new(), Vec::new());
            for (at, message) in all.iter().enumerate() {
                if is_added(at) { &mut added } else { &mut known }.push(*message);
            }
            let grown = columns(&known).with(&added);
            let direct = columns(&all);
            prop_assert!(grown.messages().eq(direct.messages()));
            prop_assert_eq!(grown.total(), direct.total());
            prop_assert_eq!(grown.first_retrieved(), direct.first_retrieved());
            prop_assert_eq!(grown.names_len(), direct.names_len());
            if behind {
                prop_assert_eq!(columns(&known).beginning_shared_with(&grown), known.len());
            }
        }

        #[test]
        fn a_shared_beginning_is_what_is_the_same_and_no_more(
            first in proptest::collection::vec(made(), 0..12),
            change in (0_usize..12, made()),
        ) {
            let mut second = first.clone();
            if let Some(place) = second.get_mut(change.0) {
                *place = change.1;
            } else {
                second.push(change.1);
            }
            let (one, other) = (columns(&in_order(&first)), columns(&in_order(&second)));
            let pairs = one.messages().zip(other.messages());
            let same = pairs.take_while(|(a, b)| a == b).count();
            let told = one.beginning_shared_with(&other);
            prop_assert!(told <= same, "{told} of {same}");
            prop_assert_eq!(one.beginning_shared_with(&one), one.len());
        }
    }
}
