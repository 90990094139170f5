//! The roll of a maildrop while it is being read: who was seen, and when last.
//!
//! A listing that races with renames may show a message under two names or under
//! none, so several listings are laid over each other here. A message is one
//! unique name with one inode: the name alone would let a second file of that
//! name hide, and the inode alone would join hard links of different names. A
//! file rewritten by rename has another inode, and its facts are counted anew.
//!
//! Invariant once [`Roll::sort`] ran: members are in message order (by name, then
//! inode) and no two are the same message.

use std::cmp::Ordering;
use std::mem;

use super::entries::Entries;
use super::message::{Facts, Message};
use super::name::{self, Moment, Name};
use super::retention::Day;
use super::snapshot::{Folder, Snapshot};
use super::uidl::{Form, Packed};

#[derive(Clone, Copy, Debug)]
enum State {
    Unmeasured,
    Measured(Facts),
    /// No regular file after all; kept so that it is not opened again.
    Foreign,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    moment: Moment,
    inode: u64,
    start: u32,
    len: u8,
    unique_len: u8,
    folder: Folder,
    state: State,
    /// The last listing that showed it; 0: only the snapshot before knows it.
    seen: u32,
    rank: Option<u32>,
    retrieved: Option<Day>,
    /// How it was announced; `None` for one that is new.
    uidl: Option<Slot>,
}

/// Where in `names` a packed unique-id stands.
#[derive(Clone, Copy, Debug)]
struct Slot {
    form: Form,
    start: u32,
    len: u8,
}

/// One member, to look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) name: &'a [u8],
    pub(super) unique: &'a [u8],
    pub(super) folder: Folder,
    pub(super) inode: u64,
    pub(super) facts: Option<Facts>,
    pub(super) rank: Option<u32>,
    pub(super) retrieved: Option<Day>,
    /// `None` for one that is new.
    pub(super) uidl: Option<Packed<'a>>,
}

#[derive(Debug, Default)]
pub(super) struct Roll {
    /// Names, and unique-ids that are no names.
    names: Vec<u8>,
    members: Vec<Member>,
}

impl Roll {
    /// The roll that a snapshot remembers.
    pub(super) fn recall(snapshot: &Snapshot) -> Self {
        let mut roll = Self {
            names: Vec::with_capacity(snapshot.names_len()),
            members: Vec::with_capacity(snapshot.len()),
        };
        for message in snapshot.messages() {
            roll.remember(&message);
        }
        // A snapshot's order may be that of an earlier server.
        if !roll
            .members
            .is_sorted_by(|a, b| roll.compare(a, &roll, b).is_le())
        {
            roll.sort();
        }
        roll
    }

    /// The roll of a listing.
    pub(super) fn of(listed: &Entries) -> Self {
        let mut roll = Self {
            names: Vec::with_capacity(listed.names_len()),
            members: Vec::with_capacity(listed.len()),
        };
        for shown in listed.entries() {
            roll.add(shown.name, shown.folder, shown.inode, None);
        }
        roll
    }

    fn remember(&mut self, message: &Message<'_>) {
        let name = Name::parse(message.name).expect("a message has a name that was parsed");
        self.add(name, message.folder, message.inode, Some(message.facts));
        let at = self.members.len() - 1;
        self.announce(at, message.uidl, message.rank);
        self.members[at].retrieved = message.retrieved;
    }

    /// Sets how the member at `at` is announced, and its rank.
    pub(super) fn announce(&mut self, at: usize, uidl: Packed<'_>, rank: Option<u32>) {
        let slot = Slot {
            form: uidl.form(),
            start: u32::try_from(self.names.len()).expect("bounded by limits"),
            len: u8::try_from(uidl.octets().len()).expect("a unique-id is bounded"),
        };
        self.names.extend_from_slice(uidl.octets());
        let member = &mut self.members[at];
        (member.uidl, member.rank) = (Some(slot), rank);
    }

    pub(super) fn add(&mut self, name: Name<'_>, folder: Folder, inode: u64, facts: Option<Facts>) {
        let start = u32::try_from(self.names.len()).expect("bounded by limits");
        let octet = |len: usize| u8::try_from(len).expect("a name is bounded");
        self.names.extend_from_slice(name.as_bytes());
        self.members.push(Member {
            moment: name.moment(),
            inode,
            start,
            len: octet(name.as_bytes().len()),
            unique_len: octet(name.unique().len()),
            folder,
            state: facts.map_or(State::Unmeasured, State::Measured),
            seen: 0,
            rank: None,
            retrieved: None,
            uidl: None,
        });
    }

    /// Has every member measured again.
    pub(super) fn forget_facts(&mut self) {
        let members = self.members.iter_mut();
        members.for_each(|member| member.state = State::Unmeasured);
    }

    /// Notes that every member was seen by this listing.
    pub(super) fn mark_seen(&mut self, listing: u32) {
        self.members.iter_mut().for_each(|m| m.seen = listing);
    }

    /// The same for what is known of one directory, which did not change.
    pub(super) fn mark_unchanged(&mut self, folder: Folder, listing: u32) {
        let members = self.members.iter_mut();
        let there = members.filter(|m| m.folder == folder);
        there.for_each(|m| m.seen = listing);
    }

    /// Brings the members into message order and joins what was seen twice. Of two
    /// names of one message the one added later stays: cur/ is listed last.
    pub(super) fn sort(&mut self) {
        let mut members = mem::take(&mut self.members);
        members.sort_by(|a, b| self.compare(a, self, b));
        members.dedup_by(|later, kept| {
            let same = self.compare(kept, self, later).is_eq();
            if same {
                *kept = *later;
            }
            same
        });
        self.members = members;
    }

    /// Lays a sorted listing over the roll: names and places are the listing's,
    /// facts the roll's. Nobody leaves. Tells how many are new.
    pub(super) fn lay_over(self, listed: Self) -> (Self, usize) {
        if self.members.is_empty() {
            let new = listed.len();
            return (listed, new);
        }
        let mut joined = Self {
            names: Vec::with_capacity(self.names.len().max(listed.names.len())),
            members: Vec::with_capacity(self.len().max(listed.len())),
        };
        let mut new = 0;
        let (mut ours, mut theirs) = (
            self.members.iter().peekable(),
            listed.members.iter().peekable(),
        );
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (Some(a), Some(b)) => self.compare(a, &listed, b),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return (joined, new),
            };
            match order {
                Ordering::Less => joined.copy(&self, ours.next().expect("peeked")),
                Ordering::Greater => {
                    new += 1;
                    joined.copy(&listed, theirs.next().expect("peeked"));
                }
                Ordering::Equal => {
                    let known = ours.next().expect("peeked");
                    let (folder, seen) = {
                        let listed_as = theirs.next().expect("peeked");
                        joined.copy(&listed, listed_as);
                        (listed_as.folder, listed_as.seen)
                    };
                    let uidl = joined.copy_uidl(&self, known.uidl);
                    let member = joined.members.last_mut().expect("just copied");
                    let (start, len) = (member.start, member.len);
                    *member = Member {
                        start,
                        len,
                        folder,
                        seen,
                        uidl,
                        ..*known
                    };
                }
            }
        }
    }

    /// Strikes out whoever no listing since `listing` has shown.
    pub(super) fn keep_seen_since(&mut self, listing: u32) {
        self.members.retain(|member| member.seen >= listing);
    }

    /// Strikes out whoever has no facts.
    pub(super) fn keep_measured(&mut self) {
        self.members
            .retain(|m| matches!(m.state, State::Measured(_)));
    }

    /// Members not yet measured that a listing since `listing` has shown.
    pub(super) fn unmeasured_since(&self, listing: u32) -> usize {
        let open = |m: &&Member| matches!(m.state, State::Unmeasured) && m.seen >= listing;
        self.members.iter().filter(open).count()
    }

    /// Asks `measure` about every unmeasured member; tells how many were settled.
    pub(super) fn measure_with<E>(
        &mut self,
        mut measure: impl FnMut(Folder, &[u8]) -> Result<Measured, E>,
    ) -> Result<usize, E> {
        let mut settled = 0;
        for index in 0..self.members.len() {
            let member = self.members[index];
            if !matches!(member.state, State::Unmeasured) {
                continue;
            }
            let state = match measure(member.folder, self.name(&member))? {
                Measured::Facts(facts) => State::Measured(facts),
                Measured::Foreign => State::Foreign,
                Measured::Vanished => continue,
            };
            self.members[index].state = state;
            settled += 1;
        }
        Ok(settled)
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Octets of all names together, those of struck members included.
    pub(super) fn names_len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = View<'_>> {
        self.members.iter().map(|member| self.view(member))
    }

    fn view(&self, member: &Member) -> View<'_> {
        View {
            name: self.name(member),
            unique: self.unique(member),
            folder: member.folder,
            inode: member.inode,
            facts: member.state.facts(),
            rank: member.rank,
            retrieved: member.retrieved,
            uidl: self.uidl(member),
        }
    }

    /// The unique names of those that are new.
    pub(super) fn newcomers(&self) -> impl Iterator<Item = &[u8]> {
        let new = self.members.iter().filter(|member| member.uidl.is_none());
        new.map(|member| self.unique(member))
    }

    /// The measured members in the order that sessions see: those of an earlier
    /// server's order first, all others by name.
    pub(super) fn in_order(&self) -> impl Iterator<Item = View<'_>> {
        let mut order: Vec<usize> = (0..self.members.len()).collect();
        if self.members.iter().any(|member| member.rank.is_some()) {
            order.sort_by_key(|at| self.members[*at].rank.map_or(u64::MAX, u64::from));
        }
        order.into_iter().map(|at| self.view(&self.members[at]))
    }

    fn copy(&mut self, from: &Self, member: &Member) {
        let start = u32::try_from(self.names.len()).expect("bounded by limits");
        self.names.extend_from_slice(from.name(member));
        let uidl = self.copy_uidl(from, member.uidl);
        self.members.push(Member {
            start,
            uidl,
            ..*member
        });
    }

    fn copy_uidl(&mut self, from: &Self, slot: Option<Slot>) -> Option<Slot> {
        let slot = slot?;
        let start = u32::try_from(self.names.len()).expect("bounded by limits");
        let octets = &from.names[slot.start as usize..][..usize::from(slot.len)];
        self.names.extend_from_slice(octets);
        Some(Slot { start, ..slot })
    }

    fn uidl(&self, member: &Member) -> Option<Packed<'_>> {
        let slot = member.uidl?;
        let octets = &self.names[slot.start as usize..][..usize::from(slot.len)];
        Some(Packed::new(slot.form, octets).expect("it was packed"))
    }

    fn name(&self, member: &Member) -> &[u8] {
        &self.names[member.start as usize..][..usize::from(member.len)]
    }

    fn unique(&self, member: &Member) -> &[u8] {
        &self.names[member.start as usize..][..usize::from(member.unique_len)]
    }

    fn compare(&self, ours: &Member, other: &Self, theirs: &Member) -> Ordering {
        let a = (ours.moment, self.unique(ours));
        let b = (theirs.moment, other.unique(theirs));
        name::compare(a, b).then_with(|| ours.inode.cmp(&theirs.inode))
    }
}

impl State {
    fn facts(self) -> Option<Facts> {
        match self {
            Self::Measured(facts) => Some(facts),
            Self::Unmeasured | Self::Foreign => None,
        }
    }
}

/// What came of opening a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measured {
    Facts(Facts),
    /// Not under this name any more.
    Vanished,
    /// No regular file.
    Foreign,
}
