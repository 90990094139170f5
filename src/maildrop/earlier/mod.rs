//! Unique-ids that an earlier server announced, read in place from its own files.
//!
//! `maildrop.uidl` names the sources in order; what the first of them knows of a
//! message counts. They are asked when a message is new to popcore, and never
//! again for that message: what was announced once is in the index. So the files
//! may go when the earlier server has gone and every maildrop has been opened.
//!
//! A file that is there and cannot be read, or does not have the form it should
//! have, refuses the login: to go on without it would announce every message by
//! another name, and every client would fetch all of its mail again.

mod courier;
mod dovecot;
mod format;

use std::collections::HashMap;
use std::error::Error;
use std::fmt;

use md5::{Digest as _, Md5};

use super::error::{Cause, OpenError};
use super::listing::Root;
use crate::limits;

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

    fn add(&mut self, unique: &[u8], announced: impl FnOnce() -> Announced) {
        if !self.messages.contains_key(unique) {
            self.messages.insert(unique.into(), announced());
        }
    }
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

/// What every message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Name,
    Tpop3d,
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

    /// Asks the sources about new messages, by unique name. BLOCKING.
    pub(super) fn ask<'a>(
        &self,
        root: &Root,
        newcomers: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Earlier, OpenError> {
        let mut earlier = Earlier::default();
        for list in &self.lists {
            let name = match list {
                List::Dovecot(_) => "dovecot-uidlist",
                List::Courier => "courierpop3dsizelist",
            };
            let Some(octets) = root.read_file(name, limits::UIDL_LIST)? else {
                continue;
            };
            let read = match list {
                List::Dovecot(format) => dovecot::read(&octets, format, &mut earlier),
                List::Courier => courier::read(&octets, &mut earlier),
            };
            read.map_err(|fault| OpenError::of(&root.path().join(name), Cause::List(fault)))?;
        }
        if self.last == Last::Tpop3d {
            for unique in newcomers {
                earlier.add(unique, || Announced {
                    text: md5_hex(unique).into(),
                    rank: None,
                });
            }
        }
        Ok(earlier)
    }
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
