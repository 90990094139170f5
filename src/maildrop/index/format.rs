//! The octets of an index: a header, then records.
//!
//! ```text
//! header   12 "popcore.idx\n" | 2 version | 2 zero | 4 checksum
//! record   1 0xa7 | 1 kind | 2 length | length octets | 4 checksum
//! ```
//!
//! Numbers are little-endian, checksums CRC-32 over all before them in the header
//! or record. Kinds:
//!
//! ```text
//! 1 message   8 inode | 8 octets | 8 stored | 1 marks | [4 sum] | [4 rank] | [2 day] | 1 n | n name
//!             | unique-id
//! 2 removed   8 inode | unique name
//! 3 retired   16 digest
//! 4 state     new | cur | 1 trust | 4 messages | 8 octets of all | [12 newest | [2 due]]
//! 5 gone      as of a message
//! ```
//!
//! `new` and `cur` are 0 (unsettled), 1 (absent) or 2 and 32 octets of stamp, and
//! `newest` is when either directory had last changed. `due` is the day on which a session
//! found that something was to go by itself. A message's marks: 1 in cur/, 2 sendable as stored, 4 sizes from the name and so
//! without a sum, 8 has a rank, 128 was retrieved that day since 1970, and the
//! spelling of the unique-id in the three bits from 16 on.
//!
//! A record says of itself how long it is, so a flipped bit in a length would lose
//! all that follows. It does not: behind a record that is damaged the next one is
//! looked for, by its first octet and then by its checksum.

use super::super::Name;
use super::super::announce::Digest;
use super::super::message::{Facts, Message, Trust};
use super::super::retention::Day;
use super::super::snapshot::Folder;
use super::super::stamps::{Kept, KeptFolder, Time};
use super::super::uidl::{Form, Packed, is_announceable};

const MAGIC: &[u8; 12] = b"popcore.idx\n";
/// The version that is written, and the only one that is read.
pub(super) const VERSION: u16 = 2;
/// Octets of the header.
pub(super) const HEADER: usize = 20;
const MARKER: u8 = 0xa7;
/// Octets of a record around what it holds.
const FRAME: usize = 8;
/// Octets that a message's record takes at least, but for its name.
pub(super) const LEAST_MESSAGE: usize = FRAME + 26;

const MESSAGE: u8 = 1;
const REMOVED: u8 = 2;
const RETIRED: u8 = 3;
const STATE: u8 = 4;
const GONE: u8 = 5;

const IN_CUR: u8 = 1;
const VERBATIM: u8 = 1 << 1;
const STATED: u8 = 1 << 2;
const RANKED: u8 = 1 << 3;
const FORM: u32 = 4;
const FORMS: u8 = 7;
const RETRIEVED: u8 = 1 << 7;

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// A message is there, in place of what an earlier record said of it.
    Message(Message<'a>),
    /// A message is gone.
    Removed { unique: &'a [u8], inode: u64 },
    /// A digest is not to be announced again.
    Retired(Digest),
    /// All records before this one together are the maildrop's messages.
    State(State),
    /// A message is gone, and this is what it was.
    Gone(Message<'a>),
}

/// What was true of the whole maildrop when it was last listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) kept: Kept,
    pub(super) trust: Trust,
    pub(super) messages: u32,
    pub(super) octets: u64,
    pub(super) newest: Option<Time>,
    /// Kept with `newest` alone: a maildrop without directories has nothing that could go.
    pub(super) due: Option<Day>,
}

/// What stands where the header should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    Good,
    Version(u16),
    Foreign,
}

pub(super) fn write_header(out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    let checksum = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}

pub(super) fn read_header(octets: &[u8]) -> Header {
    let Some((head, checksum)) = octets
        .split_at_checked(HEADER)
        .and_then(|(header, _)| header.split_last_chunk::<4>())
    else {
        return Header::Foreign;
    };
    if !head.starts_with(MAGIC) || crc32fast::hash(head) != u32::from_le_bytes(*checksum) {
        return Header::Foreign;
    }
    match u16::from_le_bytes([head[12], head[13]]) {
        VERSION => Header::Good,
        other => Header::Version(other),
    }
}

pub(super) fn write(record: &Record<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    let kind = match record {
        Record::Message(_) => MESSAGE,
        Record::Removed { .. } => REMOVED,
        Record::Retired(_) => RETIRED,
        Record::State(_) => STATE,
        Record::Gone(_) => GONE,
    };
    out.extend_from_slice(&[MARKER, kind, 0, 0]);
    match record {
        Record::Message(message) | Record::Gone(message) => write_message(message, out),
        Record::Removed { unique, inode } => {
            out.extend_from_slice(&inode.to_le_bytes());
            out.extend_from_slice(unique);
        }
        Record::Retired(digest) => out.extend_from_slice(digest),
        Record::State(state) => write_state(state, out),
    }
    let length = u16::try_from(out.len() - start - 4).expect("names and unique-ids are bounded");
    out[start + 2..start + 4].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}

fn write_message(message: &Message<'_>, out: &mut Vec<u8>) {
    let facts = message.facts;
    let mark = |set: bool, mark: u8| if set { mark } else { 0 };
    out.extend_from_slice(&message.inode.to_le_bytes());
    out.extend_from_slice(&facts.octets.to_le_bytes());
    out.extend_from_slice(&facts.stored.to_le_bytes());
    out.push(
        mark(message.folder == Folder::Cur, IN_CUR)
            | mark(facts.verbatim, VERBATIM)
            | mark(facts.are_stated(), STATED)
            | mark(message.rank.is_some(), RANKED)
            | mark(message.retrieved.is_some(), RETRIEVED)
            | message.uidl.form().to_bits() << FORM,
    );
    if let Some(sum) = facts.sum {
        out.extend_from_slice(&sum.to_le_bytes());
    }
    if let Some(rank) = message.rank {
        out.extend_from_slice(&rank.to_le_bytes());
    }
    if let Some(day) = message.retrieved {
        out.extend_from_slice(&day.get().to_le_bytes());
    }
    out.push(u8::try_from(message.name.len()).expect("a name is bounded"));
    out.extend_from_slice(message.name);
    out.extend_from_slice(message.uidl.octets());
}

fn write_state(state: &State, out: &mut Vec<u8>) {
    for kept in [state.kept.new, state.kept.cur] {
        match kept {
            KeptFolder::Unsettled => out.push(0),
            KeptFolder::Absent => out.push(1),
            KeptFolder::At {
                inode,
                modified,
                changed,
            } => {
                out.push(2);
                out.extend_from_slice(&inode.to_le_bytes());
                for time in [modified, changed] {
                    out.extend_from_slice(&time.0.to_le_bytes());
                    out.extend_from_slice(&time.1.to_le_bytes());
                }
            }
        }
    }
    out.push(match state.trust {
        Trust::Untested => 0,
        Trust::Right => 1,
        Trust::Wrong => 2,
    });
    out.extend_from_slice(&state.messages.to_le_bytes());
    out.extend_from_slice(&state.octets.to_le_bytes());
    if let Some(time) = state.newest {
        out.extend_from_slice(&time.0.to_le_bytes());
        out.extend_from_slice(&time.1.to_le_bytes());
        if let Some(day) = state.due {
            out.extend_from_slice(&day.get().to_le_bytes());
        }
    }
}

/// Reads the record at the beginning of `octets`; `None` where there is none, or
/// not a whole one. Tells how long it is.
pub(super) fn read(octets: &[u8]) -> Option<(Record<'_>, usize)> {
    let (&[marker, kind, low, high], rest) = octets.split_first_chunk::<4>()?;
    if marker != MARKER {
        return None;
    }
    let length = usize::from(u16::from_le_bytes([low, high]));
    let (payload, rest) = rest.split_at_checked(length)?;
    let checksum = u32::from_le_bytes(*rest.first_chunk::<4>()?);
    if crc32fast::hash(&octets[..4 + length]) != checksum {
        return None;
    }
    let mut fields = Fields(payload);
    let record = match kind {
        MESSAGE => Record::Message(fields.message()?),
        REMOVED => {
            let inode = fields.u64()?;
            let unique = fields.0;
            Name::parse(unique).filter(|name| name.unique() == unique)?;
            Record::Removed { unique, inode }
        }
        RETIRED => Record::Retired(fields.0.try_into().ok()?),
        STATE => Record::State(fields.state()?),
        GONE => Record::Gone(fields.message()?),
        _ => return None,
    };
    Some((record, FRAME + length))
}

/// Where the next record may begin, at `from` or behind it.
pub(super) fn next_marker(octets: &[u8], from: usize) -> Option<usize> {
    let found = memchr::memchr(MARKER, octets.get(from..)?)?;
    Some(from + found)
}

/// What is still to be read of a record.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.chunk().map(|[octet]| octet)
    }

    fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }

    fn message(&mut self) -> Option<Message<'a>> {
        let inode = self.u64()?;
        let octets = self.u64()?;
        let stored = self.u64()?;
        let marks = self.u8()?;
        let sum = if marks & STATED == 0 {
            Some(self.u32()?)
        } else {
            None
        };
        let rank = if marks & RANKED == 0 {
            None
        } else {
            Some(self.u32()?)
        };
        let retrieved = if marks & RETRIEVED == 0 {
            None
        } else {
            Some(Day::new(self.chunk().map(u16::from_le_bytes)?)?)
        };
        let length = self.u8()?;
        let name = self.take(usize::from(length))?;
        let unique = Name::parse(name)?.unique();
        let uidl = Packed::new(Form::from_bits(marks >> FORM & FORMS)?, self.0)?;
        if uidl.form() == Form::Name && !is_announceable(unique) {
            return None;
        }
        Some(Message {
            name,
            folder: if marks & IN_CUR == 0 {
                Folder::New
            } else {
                Folder::Cur
            },
            inode,
            facts: Facts {
                octets,
                stored,
                verbatim: marks & VERBATIM != 0,
                sum,
            },
            rank,
            uidl,
            retrieved,
        })
    }

    fn state(&mut self) -> Option<State> {
        let kept = Kept {
            new: self.kept()?,
            cur: self.kept()?,
        };
        let trust = match self.u8()? {
            0 => Trust::Untested,
            1 => Trust::Right,
            2 => Trust::Wrong,
            _ => return None,
        };
        let state = State {
            kept,
            trust,
            messages: self.u32()?,
            octets: self.u64()?,
            newest: if self.0.is_empty() {
                None
            } else {
                Some(self.time()?)
            },
            due: if self.0.is_empty() {
                None
            } else {
                Some(Day::new(self.chunk().map(u16::from_le_bytes)?)?)
            },
        };
        self.0.is_empty().then_some(state)
    }

    fn kept(&mut self) -> Option<KeptFolder> {
        Some(match self.u8()? {
            0 => KeptFolder::Unsettled,
            1 => KeptFolder::Absent,
            2 => KeptFolder::At {
                inode: self.u64()?,
                modified: self.time()?,
                changed: self.time()?,
            },
            _ => return None,
        })
    }

    fn time(&mut self) -> Option<Time> {
        let seconds = self.chunk().map(i64::from_le_bytes)?;
        Some(Time(seconds, self.u32()?))
    }
}
