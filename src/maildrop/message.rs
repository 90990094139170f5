//! One message as scan, snapshot and index hand it to each other.

use std::cmp::Ordering;

use super::name::{self, Moment};
use super::retention::Day;
use super::snapshot::Folder;
use super::uidl::Packed;

/// What is known of a message's octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// On the wire, as RFC 1939 counts them.
    pub(super) octets: u64,
    /// In the file.
    pub(super) stored: u64,
    /// The file can go out as it is.
    pub(super) verbatim: bool,
    /// CRC-32 of the file; `None`: nobody has read it, and both sizes come from its
    /// name.
    pub(super) sum: Option<u32>,
}

impl Facts {
    /// Whether the sizes are those that the file's name states.
    pub(super) fn are_stated(&self) -> bool {
        self.sum.is_none()
    }

    /// Whether these may be of the same message, as far as was looked at. A file
    /// with other line ends is still the same one to a client.
    pub(super) fn may_be_of(&self, other: &Self) -> bool {
        let summed = self.sum.zip(other.sum);
        self.octets == other.octets
            && (self.stored != other.stored || summed.is_none_or(|(ours, theirs)| ours == theirs))
    }
}

/// Whether the sizes in a maildrop's file names are believed. Some sites carry
/// wrong ones, so the first name that states both is held against its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Trust {
    /// No name stated both yet.
    #[default]
    Untested,
    /// The first that did was right.
    Right,
    /// One was wrong: files are read.
    Wrong,
}

/// All that is kept of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// The file's name, one that [`Name::parse`](super::Name::parse) takes.
    pub(super) name: &'a [u8],
    pub(super) folder: Folder,
    pub(super) inode: u64,
    pub(super) facts: Facts,
    /// Its place in the order of an earlier server; those that have none come
    /// behind those that have one.
    pub(super) rank: Option<u32>,
    pub(super) uidl: Packed<'a>,
    /// When a client first fetched it, where that is of interest.
    pub(super) retrieved: Option<Day>,
}

impl<'a> Message<'a> {
    /// What identifies the message: the name up to `:`.
    pub(super) fn unique(&self) -> &'a [u8] {
        unique(self.name)
    }

    /// The unique-id as it is announced.
    pub(super) fn uidl_text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        self.uidl.write(self.unique(), &mut text);
        text
    }
}

/// The order of messages: by rank, those without one last, then by name.
pub(super) fn compare(a: &Message<'_>, b: &Message<'_>) -> Ordering {
    if a.name == b.name && a.inode == b.inode && a.rank == b.rank {
        return Ordering::Equal;
    }
    let rank = |message: &Message<'_>| message.rank.map_or(u64::MAX, u64::from);
    let (ours, theirs) = (a.unique(), b.unique());
    rank(a).cmp(&rank(b)).then_with(|| {
        name::compare((Moment::of(ours), ours), (Moment::of(theirs), theirs))
            .then_with(|| a.inode.cmp(&b.inode))
    })
}

/// The part of a file name up to `:`.
pub(super) fn unique(name: &[u8]) -> &[u8] {
    let end = memchr::memchr(b':', name).unwrap_or(name.len());
    &name[..end]
}
