//! The messages of a snapshot: what was laid out once and is shared by the snapshots that
//! came of each other, and beside it the few messages that came since.
//!
//! Most changes of a large maildrop are a few messages behind all others. So these go into
//! columns of their own, and the rest is neither copied nor compared: that two tables begin
//! with the same messages is told by their sharing them. Once there are [`MOST_RECENT`] of
//! the recent ones, all is laid out anew.
//!
//! Invariants: messages are in message order; the recent ones come behind all others.

use std::collections::HashSet;
use std::sync::Arc;

use super::columns::Columns;
use super::message::{Message, compare};
use super::name::{self, Moment};
use super::retention::Day;
use super::snapshot::Folder;
use super::uidl::{self, Form, Packed};

/// Recent messages are copied with each that comes, and all others once in so many: a
/// hundred thousand take two milliseconds. A table that is no larger is laid out anew each time.
const MOST_RECENT: usize = 512;

/// The messages, which do not change.
#[derive(Debug, Default)]
pub(super) struct Table {
    bulk: Arc<Columns>,
    recent: Option<Box<Columns>>,
}

impl From<Columns> for Table {
    fn from(mut columns: Columns) -> Self {
        columns.trim();
        Self {
            bulk: Arc::new(columns),
            recent: None,
        }
    }
}

impl Table {
    /// The same and these beside, which are in the order of messages.
    pub(super) fn with(&self, added: &[Message<'_>]) -> Self {
        let mut recent = match &self.recent {
            Some(recent) => recent.with(added),
            None => Columns::default().with(added),
        };
        let behind = |last: &Message<'_>| {
            let first = recent.messages().next();
            first.is_none_or(|first| compare(last, &first).is_lt())
        };
        let few = recent.len() <= MOST_RECENT && self.bulk.len() > MOST_RECENT;
        if few && self.bulk.last().as_ref().is_none_or(behind) {
            recent.trim();
            return Self {
                bulk: Arc::clone(&self.bulk),
                recent: Some(Box::new(recent)),
            };
        }
        let recent: Vec<Message<'_>> = recent.messages().collect();
        self.bulk.with(&recent).into()
    }

    /// How many messages both begin with that are the same in every respect.
    pub(super) fn beginning_shared_with(&self, other: &Self) -> usize {
        let mut same = if Arc::ptr_eq(&self.bulk, &other.bulk) {
            self.bulk.len()
        } else {
            self.bulk.beginning_shared_with(&other.bulk)
        };
        // Behind the end of one there may be more of the same, in columns of other lengths.
        if same == self.bulk.len().min(other.bulk.len()) {
            let pairs = self.messages_from(same).zip(other.messages_from(same));
            same += pairs.take_while(|(ours, theirs)| ours == theirs).count();
        }
        same
    }

    /// Those that have one of these unique names.
    pub(super) fn named(&self, names: &HashSet<&[u8]>) -> Vec<Message<'_>> {
        let ranked = self.bulk.ranked() + self.recent().map_or(0, Columns::ranked);
        let first = (0..ranked).map(|at| self.message(at));
        let mut found: Vec<_> = first.filter(|m| names.contains(m.unique())).collect();
        for name in names {
            let wanted = (Moment::of(name), *name);
            let is_before = |at: usize| {
                let unique = self.message(at).unique();
                name::compare((Moment::of(unique), unique), wanted).is_lt()
            };
            let (mut from, mut to) = (ranked, self.len());
            while from < to {
                let middle = from.midpoint(to);
                if is_before(middle) {
                    from = middle + 1;
                } else {
                    to = middle;
                }
            }
            let same = self.messages_from(from);
            found.extend(same.take_while(|message| message.unique() == *name));
        }
        found
    }

    /// Of these unique-ids those that messages have.
    pub(super) fn announced_among(&self, texts: &HashSet<&[u8]>) -> Vec<Vec<u8>> {
        let named = self.named(texts).into_iter();
        let named = named.filter(|message| message.uidl.form() == Form::Name);
        let mut found: Vec<Vec<u8>> = named.map(|message| message.unique().to_vec()).collect();
        let (mut wanted, mut forms) = (HashSet::new(), [false; Form::COUNT]);
        for text in texts {
            let mut packed = Vec::new();
            let form = uidl::pack(text, b"", &mut packed);
            // Most maildrops have no other than names.
            if !self.bulk.have(form) && !self.recent().is_some_and(|recent| recent.have(form)) {
                continue;
            }
            forms[usize::from(form.to_bits())] = true;
            wanted.insert((form.to_bits(), packed));
        }
        if wanted.is_empty() {
            return found;
        }
        let mut packed = (0, Vec::new());
        for at in 0..self.len() {
            let (columns, own) = self.part(at);
            let form = columns.form(own);
            if form == Form::Name || !forms[usize::from(form.to_bits())] {
                continue;
            }
            let (name, uidl) = columns.texts(own);
            packed.0 = form.to_bits();
            packed.1.clear();
            packed.1.extend_from_slice(uidl.octets());
            if wanted.contains(&packed) {
                let mut text = Vec::new();
                uidl.write(super::message::unique(name), &mut text);
                found.push(text);
            }
        }
        found
    }

    /// How many messages there are.
    pub(super) fn len(&self) -> usize {
        self.bulk.len() + self.recent().map_or(0, Columns::len)
    }

    /// The octets of all together.
    pub(super) fn total(&self) -> u64 {
        let recent = self.recent().map_or(0, Columns::total);
        self.bulk.total().saturating_add(recent)
    }

    /// Octets of all names and unique-ids.
    pub(super) fn names_len(&self) -> usize {
        self.bulk.names_len() + self.recent().map_or(0, Columns::names_len)
    }

    /// All of them, in their order.
    pub(super) fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        self.messages_from(0)
    }

    /// The same from that one on.
    pub(super) fn messages_from(&self, first: usize) -> impl Iterator<Item = Message<'_>> {
        (first..self.len()).map(|index| self.message(index))
    }

    /// The first day on which one was retrieved, of those that are of interest.
    pub(super) fn first_retrieved(&self) -> Option<Day> {
        let recent = self.recent().and_then(Columns::first_retrieved);
        let both = self.bulk.first_retrieved().into_iter().chain(recent);
        both.min()
    }

    pub(super) fn is_verbatim(&self, index: usize) -> bool {
        let (columns, index) = self.part(index);
        columns.is_verbatim(index)
    }

    pub(super) fn is_stated(&self, index: usize) -> bool {
        let (columns, index) = self.part(index);
        columns.is_stated(index)
    }

    pub(super) fn folder(&self, index: usize) -> Folder {
        let (columns, index) = self.part(index);
        columns.folder(index)
    }

    /// Octets of memory beside the table itself.
    pub(super) fn memory(&self) -> usize {
        let of = |columns: &Columns| size_of::<Columns>() + columns.memory();
        of(&self.bulk) + self.recent().map_or(0, of)
    }

    /// Name and packed unique-id.
    pub(super) fn texts(&self, index: usize) -> (&[u8], Packed<'_>) {
        let (columns, index) = self.part(index);
        columns.texts(index)
    }

    /// Octets on the wire and in the file.
    pub(super) fn sizes(&self, index: usize) -> (u64, u64) {
        let (columns, index) = self.part(index);
        columns.sizes(index)
    }

    pub(super) fn inode(&self, index: usize) -> u64 {
        let (columns, index) = self.part(index);
        columns.inode(index)
    }

    pub(super) fn message(&self, index: usize) -> Message<'_> {
        let (columns, index) = self.part(index);
        columns.message(index)
    }

    fn recent(&self) -> Option<&Columns> {
        self.recent.as_deref()
    }

    /// The columns that a message is in, and its place there.
    fn part(&self, index: usize) -> (&Columns, usize) {
        match (index.checked_sub(self.bulk.len()), &self.recent) {
            (Some(index), Some(recent)) => (recent, index),
            _ => (&self.bulk, index),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::message::Facts;
    use super::*;

    /// The `at`th message: every second one is announced by a text of its own.
    fn with<R>(at: usize, rank: Option<u32>, f: impl FnOnce(Message<'_>) -> R) -> R {
        let name = format!("{}.x:2,S", 1_000_000 + at);
        let (form, text) = match at % 2 {
            0 => (Form::Name, String::new()),
            _ => (Form::Text, format!("old/{at}")),
        };
        f(Message {
            name: name.as_bytes(),
            folder: Folder::Cur,
            inode: at as u64 + 1,
            facts: Facts {
                octets: 3,
                stored: 2,
                verbatim: false,
                sum: Some(9),
            },
            rank,
            uidl: Packed::new(form, text.as_bytes()).expect("one or the other"),
            retrieved: None,
        })
    }

    /// Those of these, in this order; the first `ranked` of them have ranks.
    fn columns(of: &[usize], ranked: usize) -> Columns {
        let mut columns = Columns::default();
        for (place, at) in of.iter().enumerate() {
            let rank = u32::try_from(place).ok().filter(|_| place < ranked);
            with(*at, rank, |message| columns.push(&message));
        }
        columns
    }

    /// One after the other comes to the first that many.
    fn grown(first: usize, last: usize) -> Table {
        let all: Vec<usize> = (0..first).collect();
        let table = Table::from(columns(&all, 0));
        (first..last).fold(table, |table, at| {
            with(at, None, |message| table.with(&[message]))
        })
    }

    #[test]
    fn what_comes_behind_all_others_is_told_without_a_look_at_them() {
        let many = MOST_RECENT + 100;
        let first = grown(many, many);
        let next = with(many, None, |message| first.with(&[message]));
        assert!(Arc::ptr_eq(&first.bulk, &next.bulk));
        assert_eq!(
            (next.len(), next.beginning_shared_with(&first)),
            (many + 1, many)
        );
        // Before all others, and where the recent ones have become many.
        let early = columns(&[1, 2], 0);
        let before = Table::from(early).with(&[]);
        let before = with(0, None, |message| before.with(&[message]));
        assert_eq!(before.len(), 3);
        with(0, None, |first| assert_eq!(before.message(0), first));
        let last = grown(many, 2 * many);
        let all: Vec<usize> = (0..2 * many).collect();
        assert!(last.messages().eq(columns(&all, 0).messages()));
        assert!(
            last.recent()
                .is_some_and(|recent| recent.len() <= MOST_RECENT)
        );
        assert_eq!(first.beginning_shared_with(&last), many);
        assert_eq!(last.beginning_shared_with(&first), many);
        assert_eq!((last.total(), last.names_len()), {
            let whole = columns(&all, 0);
            (whole.total(), whole.names_len())
        });
    }

    proptest! {
        #[test]
        fn messages_are_found_by_name_and_by_unique_id(
            ranked in proptest::sample::select(vec![0_usize, 3, 9]),
            wanted in proptest::collection::vec((0_usize..14, any::<bool>()), 0..6),
        ) {
            // An earlier server's order is another than that of the names.
            let order = [5, 3, 8, 0, 1, 2, 4, 6, 7];
            let order: Vec<usize> = if ranked == 0 {
                (0..9).collect()
            } else if ranked == 3 {
                order.to_vec()
            } else {
                order.into_iter().rev().collect()
            };
            let table = Table::from(columns(&order, ranked));
            let texts: Vec<String> = wanted.iter().map(|(at, named)| {
                if *named { format!("{}.x", 1_000_000 + at) } else { format!("old/{at}") }
            }).collect();
            let texts: HashSet<&[u8]> = texts.iter().map(String::as_bytes).collect();
            let sorted = |mut found: Vec<Vec<u8>>| { found.sort(); found };
            let named = table.named(&texts).iter().map(|m| m.unique().to_vec()).collect();
            let with_name = table.messages().filter(|m| texts.contains(m.unique()));
            let with_name = with_name.map(|m| m.unique().to_vec()).collect();
            prop_assert_eq!(sorted(named), sorted(with_name));
            let announced = table.messages().map(|m| m.uidl_text());
            let announced = announced.filter(|text| texts.contains(&**text)).collect();
            prop_assert_eq!(sorted(table.announced_among(&texts)), sorted(announced));
        }
    }
}
