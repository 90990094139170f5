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

use super::name::{self, Moment, Name};
use super::snapshot::{Folder, Hash, Snapshot};
use crate::limits;

/// What reading a message's file told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) octets: u64,
    pub(super) stored: u64,
    pub(super) verbatim: bool,
}

/// How a message was announced before.
#[derive(Clone, Copy, Debug)]
pub(super) enum Uidl {
    New,
    Name,
    Hash(Hash),
}

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
    /// In `hashes`; told apart from "by name" by `known`.
    hash: Option<u32>,
    known: bool,
}

/// One member, to look at.
pub(super) struct View<'a> {
    pub(super) name: &'a [u8],
    pub(super) unique: &'a [u8],
    pub(super) folder: Folder,
    pub(super) inode: u64,
    pub(super) facts: Option<Facts>,
    pub(super) uidl: Uidl,
}

#[derive(Debug, Default)]
pub(super) struct Roll {
    names: Vec<u8>,
    members: Vec<Member>,
    hashes: Vec<Hash>,
}

impl Roll {
    /// The roll that a snapshot remembers.
    pub(super) fn recall(snapshot: &Snapshot) -> Self {
        let mut roll = Self::default();
        for message in snapshot.remembered() {
            let name = Name::parse(message.name).expect("a snapshot holds parsed names");
            roll.add(name, message.folder, message.inode, Some(message.facts));
            let hash = message.hash.map(|hash| roll.keep_hash(hash));
            let member = roll.members.last_mut().expect("just added");
            (member.known, member.hash) = (true, hash);
        }
        roll
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
            hash: None,
            known: false,
        });
    }

    /// Notes that every member was seen by this listing.
    pub(super) fn mark_seen(&mut self, listing: u32) {
        self.members.iter_mut().for_each(|m| m.seen = listing);
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
            hashes: Vec::new(),
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
                (None, None) => {
                    return (
                        Self {
                            hashes: self.hashes,
                            ..joined
                        },
                        new,
                    );
                }
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
                    let member = joined.members.last_mut().expect("just copied");
                    let (start, len) = (member.start, member.len);
                    *member = Member {
                        start,
                        len,
                        folder,
                        seen,
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

    /// Whether more messages were added than a snapshot may hold.
    pub(super) fn is_over_full(&self) -> bool {
        self.members.len() > limits::MAILDROP_MESSAGES
    }

    /// Octets of all names together, those of struck members included.
    pub(super) fn names_len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = View<'_>> {
        self.members.iter().map(|member| View {
            name: self.name(member),
            unique: self.unique(member),
            folder: member.folder,
            inode: member.inode,
            facts: match member.state {
                State::Measured(facts) => Some(facts),
                State::Unmeasured | State::Foreign => None,
            },
            uidl: match (member.known, member.hash) {
                (false, _) => Uidl::New,
                (true, None) => Uidl::Name,
                (true, Some(index)) => Uidl::Hash(self.hashes[index as usize]),
            },
        })
    }

    /// Hashes that members still here were announced by.
    pub(super) fn known_hashes(&self) -> impl Iterator<Item = Hash> {
        let indices = self.members.iter().filter_map(|member| member.hash);
        indices.map(|index| self.hashes[index as usize])
    }

    /// Whether two members share a unique name.
    pub(super) fn has_twins(&self) -> bool {
        let twins = |pair: &[Member]| {
            pair[0].moment == pair[1].moment && self.unique(&pair[0]) == self.unique(&pair[1])
        };
        self.members.windows(2).any(twins)
    }

    fn keep_hash(&mut self, hash: Hash) -> u32 {
        self.hashes.push(hash);
        u32::try_from(self.hashes.len() - 1).expect("bounded by limits")
    }

    fn copy(&mut self, from: &Self, member: &Member) {
        let start = u32::try_from(self.names.len()).expect("bounded by limits");
        self.names.extend_from_slice(from.name(member));
        self.members.push(Member { start, ..*member });
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

/// What came of opening a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measured {
    Facts(Facts),
    /// Not under this name any more.
    Vanished,
    /// No regular file.
    Foreign,
}
