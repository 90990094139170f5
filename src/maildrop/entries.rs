//! What a listing showed, as it came: names end to end, and sixteen octets of each.
//!
//! Nothing is worked out of a name here. Most listings show what was known already, which
//! [`arrivals`](super::arrivals) sees without that; what is laid over what is known goes on
//! a [`Roll`](super::roll::Roll) first.

use super::name::Name;
use super::snapshot::{Folder, Snapshot};
use crate::limits;

/// The entries of directories that can be messages.
#[derive(Debug, Default)]
pub(super) struct Entries {
    names: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    inode: u64,
    /// Of the name; its start is the end of the one before.
    end: u32,
    folder: Folder,
}

/// One entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown<'a> {
    pub(super) name: Name<'a>,
    pub(super) folder: Folder,
    pub(super) inode: u64,
}

impl Entries {
    /// An empty one with room for as many messages as a snapshot has, of which what is not
    /// used is never touched.
    pub(super) fn with_room_of(snapshot: &Snapshot) -> Self {
        Self {
            names: Vec::with_capacity(snapshot.names_len()),
            entries: Vec::with_capacity(snapshot.len()),
        }
    }

    pub(super) fn add(&mut self, name: Name<'_>, folder: Folder, inode: u64) {
        self.names.extend_from_slice(name.as_bytes());
        self.entries.push(Entry {
            inode,
            end: u32::try_from(self.names.len()).expect("bounded by limits"),
            folder,
        });
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Octets of all names together.
    pub(super) fn names_len(&self) -> usize {
        self.names.len()
    }

    /// Whether more messages were added than a snapshot may hold.
    pub(super) fn is_over_full(&self) -> bool {
        self.len() > limits::MAILDROP_MESSAGES
    }

    /// All of them, as they came.
    pub(super) fn entries(&self) -> impl Iterator<Item = Shown<'_>> {
        self.octets().map(|(name, folder, inode)| Shown {
            name: Name::parse(name).expect("it was parsed when it was listed"),
            folder,
            inode,
        })
    }

    /// The same with names as their octets.
    pub(super) fn octets(&self) -> impl Iterator<Item = (&[u8], Folder, u64)> {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let end = entry.end as usize;
            let name = &self.names[start..end];
            start = end;
            (name, entry.folder, entry.inode)
        })
    }
}
