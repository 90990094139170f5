//! Which of an earlier server's numbers count: those that it gave before popcore took
//! over from it.
//!
//! A Dovecot that goes on as an IMAP server numbers in its list what popcore has announced
//! by name. The index remembers what was announced; but an index can be lost, and another
//! node may have one of its own, and then the same message would be announced by its
//! number. So a file in the maildrop, `popcore.cutoff`, says of each list where popcore
//! took over. It is written under the maildrop's lock, before the first message is announced
//! that it matters to, and from then on every unique-id follows from what lies in the
//! maildrop: from the list for numbers before the cutoff, from the name for all others. It
//! moves with the maildrop and comes back with it from a backup.
//!
//! ```text
//! popcore cutoff 1
//! dovecot:%08Xu%08Xv 1600000000 57 1763800000
//! name
//! crc 89abcdef
//! ```
//!
//! A line has a source as in `maildrop.uidl`, the list's validity, the first number that
//! does not count (or `all`), and when that was written, in seconds since 1970, or the
//! latest delivery that the list had named by then, where that is later.
//!
//! **Mail that was named later** has no number that counts, whatever number it has: it was
//! in no list yet. So for it no list is read, and it does not matter which index is asked,
//! one that lags behind included, or what a list is restored to.
//!
//! **All** is what is written while a list knows every message there is: whatever it is
//! asked then, it says again later. The earlier server may still be in service, as when
//! `migrate verify` compares both. The cutoff is fixed when popcore first announces a message
//! that the list does not know. Until then its second moves along, once a day, with what the
//! list names.
//!
//! **It only moves down.** A list with a higher validity was made later, and none of it
//! counts. One with a lower one, or with fewer numbers, was restored, or has come behind the
//! mail that was delivered here first: it counts as far as it goes by then. A maildrop
//! without a list has its cutoff a day before its first login, because a validity is the time
//! at which its list was begun, by a clock that may be wrong. Where a list is gone that counted
//! as a whole, or another count was begun, all of it counts that is of messages of before.
//!
//! **Where there is an index and no such file**, as after an update of popcore, the cutoff
//! is the first number of a message that the index announces by something else, or did
//! before that went: a server that was killed may not have removed it yet.
//!
//! **Other sources**: lines of sources that `maildrop.uidl` has no more stay, and the last
//! source is the first that ever was, because the messages of that time may still be there.
//!
//! **Where it cannot be written** the session goes on, with a line in the log, if the index
//! can that lies beside it: a user whose quota is full has to be able to delete. Without either
//! a message that no list knows would be remembered by nothing, and where the index lies
//! elsewhere, by one node alone; the login is refused. What the file said before is taken away
//! then, and while it is missing or damaged, each listing and each index that is loaded tries to
//! have it made.
//!
//! **When the index is gone, or a part of it,** or when it does not know most of what the lists
//! may have named, the file says what popcore would have to find to announce all as before:
//! [`Cutoffs::doubt`]. If that is not there, or if the file is damaged as well, the login is
//! refused. What is not seen through: a list that was restored to an earlier state has given
//! its numbers again by then, or the file itself is missing or of that earlier day as well.

use std::fmt::{self, Write as _};

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use super::super::error::{Anew, Cause, OpenError};
use super::super::listing::Root;
use super::{List, Point, Rows, Sources, seconds};

/// The file's name.
const FILE: &str = "popcore.cutoff";
const MAGIC: &str = "popcore cutoff ";
const VERSION: u16 = 1;
/// Octets that it may have: a dozen lines of the longest formats.
const MOST: u64 = 16 << 10;

/// Seconds by which the clocks of who names files and of who keeps cutoffs may differ.
const APART: u64 = 60 * 60;
/// Seconds that a cutoff may be behind what its list names, so that it is not written at
/// each delivery; and by which a server's clock may be wrong when it begins a list, which
/// covers other time zones.
pub(super) const DAY: u64 = 24 * 60 * 60;

/// How far a list counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// All of it, and of lists before it.
    All { validity: u64 },
    /// What comes before that.
    Before(Point),
}

impl Bound {
    pub(super) fn counts(self, at: Point) -> bool {
        match self {
            Self::All { validity } => at.validity <= validity,
            Self::Before(first) => at < first,
        }
    }

    /// The same with a list whose next message would be `next`.
    pub(super) fn meeting(self, next: Point) -> Self {
        match self {
            Self::All { validity } => Self::All {
                validity: validity.min(next.validity),
            },
            Self::Before(first) => Self::Before(first.min(next)),
        }
    }

    /// The same without that number and all behind it.
    pub(super) fn until(self, first: Point) -> Self {
        match self {
            Self::Before(before) => Self::Before(before.min(first)),
            Self::All { validity } if first.validity <= validity => Self::Before(first),
            Self::All { .. } => self,
        }
    }

    /// Whether more may have counted than a list has whose next message would be `next`.
    fn exceeds(self, next: Point) -> bool {
        match self {
            Self::All { .. } => true,
            Self::Before(first) => first > next,
        }
    }

    /// Whether both are numbers of one list.
    pub(super) fn is_in_one_list_with(self, other: Self) -> bool {
        match (self, other) {
            (Self::Before(one), Self::Before(other)) => one.validity == other.validity,
            _ => false,
        }
    }

    /// The list that the last of the numbers which count are in, if any does.
    fn validity(self) -> Option<u64> {
        match self {
            Self::All { validity } => Some(validity),
            // Numbers begin with 1.
            Self::Before(first) => (first.number > 1).then_some(first.validity),
        }
    }
}

/// How far a list counts, and the latest second in the name of a message that it had named
/// by then: since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cutoff {
    pub(super) bound: Bound,
    pub(super) since: u64,
}

impl Cutoff {
    /// Whether a number that the list gave to that message counts.
    pub(super) fn counts(self, unique: &[u8], at: Point) -> bool {
        self.bound.counts(at) && !self.excludes(unique)
    }

    /// Whether no number counts that this message has, because it was delivered when
    /// popcore had taken over.
    fn excludes(self, unique: &[u8]) -> bool {
        match self.bound {
            Bound::All { .. } => false,
            Bound::Before(_) => seconds(unique) > self.since.saturating_add(APART),
        }
    }

    /// Of what second the last message may be that was announced by it.
    fn named_until(self) -> u64 {
        match self.bound {
            Bound::All { .. } => self.since.saturating_add(DAY),
            Bound::Before(_) => self.since,
        }
    }

    /// The same, where the list names new messages, the last of them of that second.
    pub(super) fn naming(self, newest: Option<u64>, now: u64) -> Self {
        match (self.bound, newest) {
            (Bound::All { .. }, Some(newest)) if newest.max(now) >= self.named_until() => Self {
                since: newest.max(now),
                ..self
            },
            _ => self,
        }
    }
}

/// How far the lists of a maildrop count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Cutoffs {
    /// All that ever counted, those that are in `maildrop.uidl` no more included: what
    /// they named may be there still.
    lists: Vec<(String, Cutoff)>,
    /// What comes behind all lists.
    last: String,
}

/// What a maildrop keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Kept {
    Nothing,
    /// What it said is lost.
    Damaged,
    Whole(Cutoffs),
}

impl Kept {
    /// What it says, with a line in the log where that is lost.
    pub(in super::super) fn or_warn(self, root: &Root) -> Option<Cutoffs> {
        match self {
            Self::Nothing => None,
            Self::Damaged => {
                tracing::warn!(
                    "{}: it is damaged, and made anew from what the index says",
                    root.path().join(FILE).display()
                );
                None
            }
            Self::Whole(cutoffs) => Some(cutoffs),
        }
    }
}

/// Why messages that no index knows would not be announced as before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Doubt {
    /// What is there no more.
    pub(in super::super) what: String,
    /// How many were announced by it.
    pub(in super::super) changed: usize,
}

impl Doubt {
    /// Nothing tells which of them lists had named.
    pub(super) fn of_all(unknown: &[&[u8]]) -> Self {
        Self {
            what: FILE.to_owned(),
            changed: unknown.len(),
        }
    }
}

impl Cutoffs {
    /// What was kept, with a cutoff for each list of the sources.
    pub(super) fn updated(kept: Option<&Self>, sources: &Sources, cutoffs: Vec<Cutoff>) -> Self {
        let mut made = kept.cloned().unwrap_or_else(|| Self {
            lists: Vec::new(),
            last: sources.last.to_string(),
        });
        for (list, cutoff) in sources.lists.iter().zip(cutoffs) {
            let name = list.to_string();
            match made.lists.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = cutoff,
                None => made.lists.push((name, cutoff)),
            }
        }
        made
    }

    /// Whether both count the same of all lists.
    pub(super) fn bounds_like(&self, other: &Self) -> bool {
        let bounds = |cutoffs: &[(String, Cutoff)]| -> Vec<Bound> {
            cutoffs.iter().map(|(_, cutoff)| cutoff.bound).collect()
        };
        // What was kept stays where it is.
        bounds(&self.lists) == bounds(&other.lists)
    }

    pub(super) fn of(&self, list: &List) -> Option<Cutoff> {
        let name = list.to_string();
        let found = self.lists.iter().find(|(known, _)| *known == name);
        found.map(|(_, cutoff)| *cutoff)
    }

    /// Whether a list that counted must have named this message, by the time in its name: what
    /// came in the list's last day may as well be mail that it never heard of.
    pub(super) fn has_named(&self, unique: &[u8]) -> bool {
        let at = seconds(unique);
        let counted = |cutoff: &Cutoff| cutoff.bound.validity().is_some();
        let mut cutoffs = self.lists.iter().map(|(_, cutoff)| cutoff);
        at > 0 && cutoffs.any(|cutoff| counted(cutoff) && at <= cutoff.since)
    }

    /// Whether no list counts for any of these messages.
    pub(super) fn exclude(&self, sources: &Sources, newcomers: &[&[u8]]) -> bool {
        let mut cutoffs = sources.lists.iter().map(|list| self.of(list));
        cutoffs.all(|cutoff| {
            cutoff.is_some_and(|cutoff| newcomers.iter().all(|unique| cutoff.excludes(unique)))
        })
    }

    /// What keeps these sources, whose lists are `found`, from saying what was said before
    /// of messages that no index knows.
    pub(super) fn doubt(
        &self,
        sources: &Sources,
        found: &[Option<Rows>],
        unknown: &[&[u8]],
    ) -> Option<Doubt> {
        let named_until = |until| unknown.iter().filter(|m| seconds(m) <= until).count();
        let counted = || {
            let lists = self.lists.iter();
            lists.filter(|(_, cutoff)| cutoff.bound.validity().is_some())
        };
        let until = counted().map(|(_, cutoff)| cutoff.named_until()).max()?;
        let lists = || sources.lists.iter().zip(found);
        let counting = lists().filter(|(list, rows)| match self.of(list) {
            Some(cutoff) => cutoff.bound.validity().is_some(),
            None => rows.is_some(),
        });
        let names = counting.map(|(list, _)| list.to_string());
        if !names.eq(counted().map(|(name, _)| name.clone()))
            || self.last != sources.last.to_string()
        {
            let mut before: Vec<&str> = self.lists.iter().map(|(name, _)| &**name).collect();
            before.push(&self.last);
            return Some(Doubt {
                what: format!("maildrop.uidl, which was {before:?},"),
                changed: named_until(until),
            });
        }
        let is_named = |unique: &[u8]| {
            lists().any(|(list, rows)| {
                let row = rows.as_ref().and_then(|rows| rows.messages.get(unique));
                let cutoff = self.of(list);
                row.zip(cutoff)
                    .is_some_and(|(row, cutoff)| row.at.is_none_or(|at| cutoff.counts(unique, at)))
            })
        };
        let doubts = lists().filter_map(|(list, rows)| {
            let cutoff = self.of(list)?;
            let validity = cutoff.bound.validity()?;
            let file = list.file();
            match rows {
                Some(rows) if rows.next.validity == validity => {
                    let missing =
                        |unique: &&&[u8]| seconds(unique) <= cutoff.since && !is_named(unique);
                    cutoff.bound.exceeds(rows.next).then(|| Doubt {
                        what: format!("the end of {file}"),
                        changed: unknown.iter().filter(missing).count(),
                    })
                }
                _ => Some(Doubt {
                    what: format!("{file} of validity {validity}"),
                    changed: named_until(cutoff.named_until()),
                }),
            }
        });
        doubts
            .filter(|doubt| doubt.changed > 0)
            .max_by_key(|doubt| doubt.changed)
    }

    /// What the maildrop keeps. BLOCKING.
    pub(in super::super) fn read(root: &Root) -> Result<Kept, OpenError> {
        let Some(octets) = root.read_file(FILE, MOST)? else {
            return Ok(Kept::Nothing);
        };
        match Self::parse(&octets) {
            Ok(cutoffs) => Ok(Kept::Whole(cutoffs)),
            Err(Unreadable::Damaged) => Ok(Kept::Damaged),
            Err(Unreadable::Version(version)) => {
                let path = root.path().join(FILE);
                Err(OpenError::of(&path, Cause::Anew(Anew::Newer { version })))
            }
        }
    }

    /// Has the maildrop keep nothing where a later popcore wrote what it keeps. BLOCKING,
    /// and under its lock.
    pub(in super::super) fn give_up_newer(root: &Root) -> Result<(), OpenError> {
        let octets = root.read_file(FILE, MOST)?;
        let read = octets.map(|octets| Self::parse(&octets));
        if matches!(read, Some(Err(Unreadable::Version(_)))) {
            Self::remove(root);
        }
        Ok(())
    }

    /// Has the maildrop keep nothing. BLOCKING, and under its lock.
    pub(in super::super) fn remove(root: &Root) {
        // Where it cannot be removed it cannot be written either, and is what it was.
        let _ = unlinkat(root, FILE, AtFlags::empty());
    }

    /// Keeps it in the maildrop. BLOCKING, and under its lock.
    pub(in super::super) fn write(&self, root: &Root) -> Result<(), OpenError> {
        let written = root.replace_file(FILE, self.to_string().as_bytes());
        written.map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            OpenError::of(&root.path().join(FILE), Cause::Anew(Anew::Unkept(errno)))
        })
    }

    fn parse(octets: &[u8]) -> Result<Self, Unreadable> {
        let text = std::str::from_utf8(octets).map_err(|_| Unreadable::Damaged)?;
        let (said, crc) = text.rsplit_once("crc ").ok_or(Unreadable::Damaged)?;
        if crc != checksum(said) {
            return Err(Unreadable::Damaged);
        }
        let mut lines = said.lines();
        let version = lines.next().and_then(|line| line.strip_prefix(MAGIC));
        let version: u16 = version
            .and_then(|version| version.parse().ok())
            .ok_or(Unreadable::Damaged)?;
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        let mut lists = Vec::new();
        for line in lines {
            let fields: Vec<&str> = line.split(' ').collect();
            match *fields {
                [last] => {
                    return Ok(Self {
                        lists,
                        last: last.to_owned(),
                    });
                }
                [list, validity, number, since] => {
                    let cutoff = parse_cutoff(validity, number, since);
                    lists.push((list.to_owned(), cutoff.ok_or(Unreadable::Damaged)?));
                }
                _ => break,
            }
        }
        Err(Unreadable::Damaged)
    }
}

fn parse_cutoff(validity: &str, number: &str, since: &str) -> Option<Cutoff> {
    let validity = validity.parse().ok()?;
    let bound = match number {
        "all" => Bound::All { validity },
        number => Bound::Before(Point {
            validity,
            number: number.parse().ok()?,
        }),
    };
    Some(Cutoff {
        bound,
        since: since.parse().ok()?,
    })
}

/// Why a file says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unreadable {
    Damaged,
    Version(u16),
}

fn checksum(text: &str) -> String {
    format!("{:08x}\n", crc32fast::hash(text.as_bytes()))
}

impl fmt::Display for Cutoffs {
    /// The file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{MAGIC}{VERSION}\n");
        for (list, Cutoff { bound, since }) in &self.lists {
            match bound {
                Bound::All { validity } => writeln!(text, "{list} {validity} all {since}")?,
                Bound::Before(Point { validity, number }) => {
                    writeln!(text, "{list} {validity} {number} {since}")?;
                }
            }
        }
        writeln!(text, "{}", self.last)?;
        write!(f, "{text}crc {}", checksum(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(names: &[&str]) -> Sources {
        Sources::parse(names.iter().copied()).expect("sources")
    }

    fn at(validity: u64, number: u64) -> Point {
        Point { validity, number }
    }

    fn fixed(validity: u64, number: u64) -> Cutoff {
        Cutoff {
            bound: Bound::Before(at(validity, number)),
            since: 100,
        }
    }

    fn two() -> Cutoffs {
        let all = Cutoff {
            bound: Bound::All { validity: 7 },
            since: 90,
        };
        let sources = sources(&["dovecot", "courier"]);
        Cutoffs::updated(None, &sources, vec![fixed(5, 9), all])
    }

    #[test]
    fn what_was_written_is_read_and_what_was_damaged_is_not() {
        let said = two().to_string();
        assert_eq!(Cutoffs::parse(said.as_bytes()), Ok(two()));
        for length in 0..said.len() {
            let torn = Cutoffs::parse(&said.as_bytes()[..length]);
            assert_eq!(torn, Err(Unreadable::Damaged), "{length}");
        }
        for bit in 0..8 * said.len() {
            let mut flipped = said.clone().into_bytes();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Cutoffs::parse(&flipped), Err(Unreadable::Damaged), "{bit}");
        }
        let text = format!("{MAGIC}2\nwhatever\n");
        let later = format!("{text}crc {}", checksum(&text));
        let read = Cutoffs::parse(later.as_bytes());
        assert_eq!(read, Err(Unreadable::Version(2)));
    }

    #[test]
    fn a_bound_only_moves_down() {
        let bound = Bound::Before(at(5, 9));
        assert!(bound.counts(at(5, 8)) && bound.counts(at(4, 100)));
        assert!(!bound.counts(at(5, 9)) && !bound.counts(at(6, 1)));
        for (next, expected) in [
            (at(5, 20), at(5, 9)),
            (at(6, 1), at(5, 9)),
            (at(5, 4), at(5, 4)),
            (at(4, 30), at(4, 30)),
        ] {
            assert_eq!(bound.meeting(next), Bound::Before(expected));
        }
        let all = Bound::All { validity: 5 };
        assert!(all.counts(at(5, 1 << 40)) && !all.counts(at(6, 1)));
        assert_eq!(all.meeting(at(6, 1)), all);
        assert_eq!(all.until(at(6, 1)), all);
        assert_eq!(all.until(at(5, 3)), Bound::Before(at(5, 3)));
        assert_eq!(bound.until(at(5, 3)), Bound::Before(at(5, 3)));
        assert_eq!(bound.until(at(5, 30)), bound);
    }

    #[test]
    fn what_is_missing_to_say_the_same_is_named() {
        let both = sources(&["dovecot", "courier"]);
        let found = |validity, number| Some(Rows::new(at(validity, number)));
        let unknown: [&[u8]; 4] = [b"100.a", b"101.b", b"86490.c", b"86491.d"];
        let doubt = |sources: &Sources, found: &[_]| {
            let doubt = two().doubt(sources, found, &unknown);
            doubt.map(|doubt| (doubt.what, doubt.changed))
        };
        let told = |what: &str, changed| Some((what.to_owned(), changed));
        assert_eq!(doubt(&both, &[found(5, 9), found(7, 1)]), None);
        assert_eq!(
            doubt(&both, &[None, found(7, 1)]),
            told("dovecot-uidlist of validity 5", 1)
        );
        assert_eq!(
            doubt(&both, &[found(5, 8), found(7, 1)]),
            told("the end of dovecot-uidlist", 1)
        );
        // Its second moves along once a day.
        assert_eq!(
            doubt(&both, &[found(5, 9), found(8, 1)]),
            told("courierpop3dsizelist of validity 7", 3)
        );
        let was = "\"dovecot:%08Xu%08Xv\", \"courier\", \"name\"";
        for (others, lists) in [
            (
                sources(&["courier", "dovecot"]),
                vec![found(7, 1), found(5, 9)],
            ),
            (sources(&["dovecot"]), vec![found(5, 9)]),
            (
                sources(&["dovecot", "courier", "tpop3d"]),
                vec![found(5, 9), found(7, 1)],
            ),
            (Sources::name(), vec![]),
        ] {
            let (what, changed) = doubt(&others, &lists).expect("a doubt");
            assert!(what.contains(was), "{what}");
            assert_eq!(changed, 3);
        }
        // A list that never counted is not missed.
        let one = sources(&["dovecot"]);
        let none = Cutoffs::updated(None, &one, vec![fixed(500, 0)]);
        assert_eq!(none.doubt(&one, &[None], &unknown), None);
        // One that stands in maildrop.uidl no more counted, and is remembered.
        let courier = sources(&["courier"]);
        let kept = Cutoffs::updated(Some(&two()), &courier, vec![fixed(7, 3)]);
        assert_eq!(kept.of(&both.lists[0]), Some(fixed(5, 9)));
        assert_eq!(kept.of(&both.lists[1]), Some(fixed(7, 3)));
    }
}
