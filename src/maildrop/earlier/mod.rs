//! Unique-ids that an earlier server announced, read in place from its own files.
//!
//! `maildrop.uidl` names the sources in order; what the first of them knows of a
//! message counts. They are asked when a message is new to popcore, and never
//! again for that message: what was announced once is in the index. So the files
//! may go when the earlier server has gone and every maildrop has been opened.
//!
//! An earlier server may go on, as an IMAP server, and number what popcore has announced
//! by name: see [`cutoff`] for which of its numbers count.
//!
//! A file that is there and cannot be read, or does not have the form it should
//! have, refuses the login: to go on without it would announce every message by
//! another name, and every client would fetch all of its mail again.

mod courier;
mod cutoff;
mod dovecot;
mod format;

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use md5::{Digest as _, Md5};

use super::error::{Cause, OpenError};
use super::listing::Root;
use super::name::Moment;
use super::scan::Gone;
use super::snapshot::Snapshot;
use crate::limits;

use cutoff::{Bound, Cutoff, Kept};
pub(super) use cutoff::{Cutoffs, Doubt};
pub use format::{Format, FormatError};

/// How an earlier server announced a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    /// The unique-id, as it was sent.
    pub(super) text: Box<[u8]>,
    /// Its place in that server's order, if it has one of its own.
    pub(super) rank: Option<u32>,
}

/// What earlier servers announced, by unique name.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    messages: HashMap<Box<[u8]>, Announced>,
}

impl Earlier {
    pub(super) fn get(&self, unique: &[u8]) -> Option<&Announced> {
        self.messages.get(unique)
    }
}

/// A place in a server's count of a maildrop's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    /// Which count it is; a count that begins anew has a higher one.
    validity: u64,
    /// From 1.
    number: u64,
}

impl Point {
    /// Behind all that a count will ever give.
    fn behind(validity: u64) -> Self {
        Self {
            validity,
            number: u64::MAX,
        }
    }
}

/// A message in a server's list.
#[derive(Debug)]
struct Row {
    announced: Announced,
    /// `None`: its unique-id has no number.
    at: Option<Point>,
}

/// What one server's list says.
#[derive(Debug)]
struct Rows {
    messages: HashMap<Box<[u8]>, Row>,
    /// What the next message would be.
    next: Point,
}

impl Rows {
    fn new(next: Point) -> Self {
        Self {
            messages: HashMap::new(),
            next,
        }
    }

    /// The first that is said of a message counts.
    fn add(&mut self, unique: &[u8], row: impl FnOnce() -> Row) {
        if !self.messages.contains_key(unique) {
            self.messages.insert(unique.into(), row());
        }
    }

    /// When the last of the new messages that are in it was delivered.
    fn newest(&self, question: &Question<'_>) -> Option<u64> {
        let new = question.newcomers.iter();
        let named = new.filter(|unique| self.messages.contains_key(**unique));
        named.map(seconds).max()
    }

    /// The first number of a message that is announced by something else than this list
    /// says of it, though that could be announced. One that went counts: it may be back.
    fn first_otherwise(&self, question: &Question<'_>) -> Result<Option<Point>, OpenError> {
        let known = || question.previous.into_iter().flat_map(Snapshot::messages);
        let gone = question.gone.announced()?;
        let differs = |unique: &[u8], told: &[u8]| {
            let row = self.messages.get(unique)?;
            let text = &row.announced.text;
            let fits = super::uidl::is_announceable(text);
            (fits && **text != *told).then_some((row.at?, text))
        };
        let mut differing: Vec<_> = known()
            .filter_map(|message| differs(message.unique(), &message.uidl_text()))
            .collect();
        differing.extend(
            gone.iter()
                .filter_map(|one| differs(&one.unique, &one.told)),
        );
        if differing.is_empty() {
            return Ok(None);
        }
        // Where two would have the same, one of them never had it.
        let mut taken: HashSet<Vec<u8>> = known().map(|message| message.uidl_text()).collect();
        taken.extend(gone.into_iter().map(|one| one.told));
        let free = differing
            .iter()
            .filter(|(_, text)| !taken.contains(&***text));
        Ok(free.map(|(at, _)| *at).min())
    }
}

/// A question about new messages.
pub(super) struct Question<'a> {
    pub(super) root: &'a Root,
    /// Their unique names.
    pub(super) newcomers: &'a [&'a [u8]],
    /// What was known of the maildrop.
    pub(super) previous: Option<&'a Snapshot>,
    /// What was known, and went.
    pub(super) gone: &'a Gone<'a>,
}

/// What the sources say.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) earlier: Earlier,
    /// `None` where what the maildrop keeps is right.
    pub(super) change: Option<Change>,
    /// How many of the new messages are in no list and of a time when one named all.
    pub(super) missed: usize,
}

/// What a maildrop is to keep before any of an answer is announced.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) cutoffs: Cutoffs,
    /// Without it a message that no list counts for might be announced by a list later.
    pub(super) binds: bool,
}

/// Where unique-ids come from, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    lists: Box<[List]>,
    last: Last,
}

/// A file of an earlier server.
#[derive(Clone, Debug, PartialEq, Eq)]
enum List {
    /// `dovecot-uidlist`: saved unique-ids, else numbers in that format.
    Dovecot(Format),
    /// `courierpop3dsizelist`.
    Courier,
}

impl List {
    fn file(&self) -> &'static str {
        match self {
            Self::Dovecot(_) => "dovecot-uidlist",
            Self::Courier => "courierpop3dsizelist",
        }
    }

    /// `None`: there is none, or not yet. BLOCKING.
    fn read(&self, root: &Root) -> Result<Option<Rows>, OpenError> {
        let Some(octets) = root.read_file(self.file(), limits::UIDL_LIST)? else {
            return Ok(None);
        };
        let read = match self {
            Self::Dovecot(format) => dovecot::read(&octets, format),
            Self::Courier => courier::read(&octets),
        };
        read.map_err(|fault| OpenError::of(&root.path().join(self.file()), Cause::List(fault)))
    }
}

impl fmt::Display for List {
    /// As in `maildrop.uidl`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dovecot(format) => write!(f, "dovecot:{format}"),
            Self::Courier => f.write_str("courier"),
        }
    }
}

/// What every message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Name,
    Tpop3d,
}

impl fmt::Display for Last {
    /// As in `maildrop.uidl`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "name",
            Self::Tpop3d => "tpop3d",
        })
    }
}

/// What is wrong with `maildrop.uidl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourcesError {
    /// No such source.
    Unknown(String),
    /// A source behind one that knows every message, or the same one twice.
    Unreachable(String),
    /// A format for Dovecot's numbers that cannot be used.
    Format(FormatError),
}

impl fmt::Display for SourcesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(
                f,
                "{name:?} is no source: use \"dovecot\", \"dovecot:FORMAT\", \"courier\", \
                 \"tpop3d\" or \"name\""
            ),
            Self::Unreachable(name) => write!(f, "{name:?} is never asked where it stands"),
            Self::Format(error) => error.fmt(f),
        }
    }
}

impl Error for SourcesError {}

impl Sources {
    /// The unique name alone.
    pub fn name() -> Self {
        Self {
            lists: Box::default(),
            last: Last::Name,
        }
    }

    /// Reads the value of `maildrop.uidl`. `name` ends every list, said or not.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, SourcesError> {
        let mut lists: Vec<List> = Vec::new();
        let mut end = None;
        for name in names {
            let list = match name.split_once(':') {
                Some(("dovecot", format)) => Some(List::Dovecot(
                    Format::parse(format).map_err(SourcesError::Format)?,
                )),
                _ => match name {
                    "dovecot" => Some(List::Dovecot(Format::default())),
                    "courier" => Some(List::Courier),
                    "tpop3d" | "name" => None,
                    other => return Err(SourcesError::Unknown(other.to_owned())),
                },
            };
            let same = |known: &List, list: &List| {
                std::mem::discriminant(known) == std::mem::discriminant(list)
            };
            match list {
                _ if end.is_some() => return Err(SourcesError::Unreachable(name.to_owned())),
                Some(list) if lists.iter().any(|known| same(known, &list)) => {
                    return Err(SourcesError::Unreachable(name.to_owned()));
                }
                Some(list) => lists.push(list),
                None if name == "tpop3d" => end = Some(Last::Tpop3d),
                None => end = Some(Last::Name),
            }
        }
        Ok(Self {
            lists: lists.into(),
            last: end.unwrap_or(Last::Name),
        })
    }

    /// Whether none of them is a list, so that every unique-id follows from a name.
    pub(super) fn are_names(&self) -> bool {
        self.lists.is_empty()
    }

    /// Asks the sources about new messages. Where `kept` is what the maildrop keeps of
    /// them, and says nothing of a list, that list is met for the first time. BLOCKING.
    pub(super) fn ask(
        &self,
        question: &Question<'_>,
        kept: Option<&Cutoffs>,
    ) -> Result<Answer, OpenError> {
        let mut answer = Answer::default();
        let newcomers = question.newcomers;
        let in_no_list = kept.is_some_and(|kept| kept.exclude(self, newcomers));
        if !self.are_names() && !in_no_list {
            let mut cutoffs = Vec::with_capacity(self.lists.len());
            for list in &self.lists {
                let before = kept.and_then(|kept| kept.of(list));
                let rows = list.read(question.root)?;
                cutoffs.push(answer.earlier.take(rows, before, question)?);
            }
            let made = Cutoffs::updated(kept, self, cutoffs);
            let earlier = &answer.earlier;
            let unnamed = newcomers
                .iter()
                .filter(|unique| earlier.get(unique).is_none());
            answer.missed = kept.map_or(0, |kept| unnamed.filter(|u| kept.has_named(u)).count());
            if kept != Some(&made) {
                answer.change = Some(Change {
                    binds: newcomers.iter().any(|unique| earlier.get(unique).is_none())
                        && !kept.is_some_and(|kept| kept.bounds_like(&made)),
                    cutoffs: made,
                });
            }
        }
        if self.last == Last::Tpop3d {
            for unique in newcomers {
                let md5 = || Announced {
                    text: md5_hex(unique).into(),
                    rank: None,
                };
                let messages = &mut answer.earlier.messages;
                if !messages.contains_key(*unique) {
                    messages.insert((*unique).into(), md5());
                }
            }
        }
        Ok(answer)
    }

    /// What the maildrop keeps of the lists, with a line in the log where that is lost.
    /// BLOCKING.
    pub(super) fn kept(&self, root: &Root) -> Result<Option<Cutoffs>, OpenError> {
        if self.are_names() {
            return Ok(None);
        }
        Ok(Cutoffs::read(root)?.or_warn(root))
    }

    /// Whether the maildrop keeps how far each of the lists counts, or what cannot be read
    /// and is another's to say. BLOCKING.
    pub(super) fn have_cutoffs(&self, root: &Root) -> bool {
        self.are_names()
            || match Cutoffs::read(root) {
                Ok(Kept::Whole(kept)) => self.lists.iter().all(|list| kept.of(list).is_some()),
                Ok(Kept::Nothing | Kept::Damaged) => false,
                Err(_) => true,
            }
    }

    /// Why messages of which no index says anything might not be announced as before, as
    /// far as the maildrop itself tells. BLOCKING.
    pub(super) fn doubt(&self, root: &Root, unknown: &[&[u8]]) -> Result<Option<Doubt>, OpenError> {
        match Cutoffs::read(root)? {
            Kept::Nothing => Ok(None),
            Kept::Damaged => Ok(Some(Doubt::of_all(unknown))),
            Kept::Whole(kept) => {
                let found: Result<Vec<_>, _> =
                    self.lists.iter().map(|list| list.read(root)).collect();
                Ok(kept.doubt(self, &found?, unknown))
            }
        }
    }
}

impl Earlier {
    /// Takes of a list what counts, and tells how far that is.
    fn take(
        &mut self,
        rows: Option<Rows>,
        before: Option<Cutoff>,
        question: &Question<'_>,
    ) -> Result<Cutoff, OpenError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        let Some(mut rows) = rows else {
            return Ok(self.without_list(before, question, now));
        };
        rows.messages
            .retain(|unique, _| !self.messages.contains_key(unique));
        let bound = self.bound(&rows, before.map(|before| before.bound), question)?;
        let cutoff = match before {
            Some(before) if before.bound == bound => before.naming(rows.newest(question), now),
            // It was restored: what was delivered later was in it no sooner.
            Some(before) if before.bound.is_in_one_list_with(bound) => Cutoff { bound, ..before },
            // Whatever the clock says, what the list names by now was named before.
            _ => Cutoff {
                bound,
                since: rows.messages.keys().map(seconds).fold(now, u64::max),
            },
        };
        let counting = rows
            .messages
            .into_iter()
            .filter(|(unique, row)| row.at.is_none_or(|at| cutoff.counts(unique, at)));
        self.messages
            .extend(counting.map(|(unique, row)| (unique, row.announced)));
        Ok(cutoff)
    }

    /// How far a list counts that is not there.
    fn without_list(&self, before: Option<Cutoff>, question: &Question<'_>, now: u64) -> Cutoff {
        let mut newcomers = question.newcomers.iter();
        let bound = match before.map(|before| before.bound) {
            // One that is made from now on is of a server that came later.
            None => Bound::Before(Point {
                validity: now.saturating_sub(cutoff::DAY),
                number: 0,
            }),
            // Should it come back, it names what came meanwhile.
            Some(Bound::All { validity }) if newcomers.any(|unique| self.get(unique).is_none()) => {
                Bound::Before(Point::behind(validity))
            }
            Some(bound) => bound,
        };
        match before {
            Some(before) if before.bound == bound => before,
            _ => Cutoff {
                bound,
                since: before.map_or(now, |before| before.since.max(now)),
            },
        }
    }

    /// How far a list counts: as far as before, unless it is an older one by now, or one
    /// of its numbers is that of a message which is announced by something else.
    fn bound(
        &self,
        rows: &Rows,
        before: Option<Bound>,
        question: &Question<'_>,
    ) -> Result<Bound, OpenError> {
        let start = match before {
            Some(before) => before.meeting(rows.next),
            None => Bound::All {
                validity: rows.next.validity,
            },
        };
        if before == Some(start) && matches!(start, Bound::Before(_)) {
            return Ok(start);
        }
        let otherwise = rows.first_otherwise(question)?;
        let start = otherwise.map_or(start, |first| start.until(first));
        let Bound::All { validity } = start else {
            return Ok(start);
        };
        let counts = |row: &Row| row.at.is_none_or(|at| start.counts(at));
        let unanswered = |unique: &[u8]| {
            !rows.messages.get(unique).is_some_and(counts) && self.get(unique).is_none()
        };
        let mut known = question.previous.into_iter().flat_map(Snapshot::messages);
        let others = question.newcomers.iter().any(|unique| unanswered(unique))
            || before.is_none() && known.any(|message| unanswered(message.unique()));
        Ok(if others {
            // One of another count was begun since.
            Bound::Before(rows.next.min(Point::behind(validity)))
        } else {
            start
        })
    }
}

/// When a message was delivered, by its name: seconds since 1970.
fn seconds(unique: impl AsRef<[u8]>) -> u64 {
    Moment::of(unique.as_ref()).seconds
}

fn md5_hex(octets: &[u8]) -> Vec<u8> {
    let digest = Md5::digest(octets);
    let digits = digest.iter().flat_map(|octet| [octet >> 4, octet & 15]);
    digits
        .map(|digit| b"0123456789abcdef"[usize::from(digit)])
        .collect()
}

/// A line of an earlier server's file that does not have the form it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListFault {
    /// From 1.
    pub(super) line: usize,
    pub(super) what: &'static str,
}

/// The lines of a file, with their numbers. Text behind the last line end is a
/// line that is just being written, and none yet.
fn lines(octets: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let whole = memchr::memrchr(b'\n', octets).map_or(0, |end| end + 1);
    let lines = octets[..whole].split_inclusive(|octet| *octet == b'\n');
    (1..).zip(lines.map(|line| &line[..line.len() - 1]))
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| plain)?;
    text.parse().ok()
}

/// A space and what is before and behind it.
fn word(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b' ', line)?;
    Some((&line[..at], &line[at + 1..]))
}

#[cfg(test)]
mod tests;
