//! `dovecot-uidlist`, version 3, and version 1, which is Courier IMAP's
//! `courierimapuiddb` as well.
//!
//! ```text
//! 3 V<uidvalidity> N<nextuid> G<guid> ...
//! <uid>[ K<value> ...] :<file name>
//! ```
//!
//! Dovecot writes it anew and renames it, or appends; it is read without a lock.
//! Lines of messages that are gone stay for a while and do no harm.

use super::format::{Format, Values};
use super::{Announced, ListFault, Point, Row, Rows, lines, number, word};

/// The first rank of messages without an order of their own (`O`): behind all that
/// have one.
const UNORDERED: u32 = 1 << 31;

/// What a line says.
#[derive(Default)]
struct Line<'a> {
    uid: u32,
    saved: Option<&'a [u8]>,
    order: Option<u32>,
    guid: Option<&'a [u8]>,
    file: &'a [u8],
}

impl Line<'_> {
    fn announced(&self, unique: &[u8], validity: u32, format: &Format) -> Announced {
        let text = match self.saved {
            Some(b"") => unique.to_owned(),
            Some(saved) => saved.to_owned(),
            None => format.fill(&Values {
                uid: self.uid,
                validity,
                file: unique,
                guid: self.guid,
            }),
        };
        let behind = UNORDERED.saturating_add(self.uid);
        Announced {
            text: text.into(),
            rank: Some(self.order.map_or(behind, |order| order.min(UNORDERED))),
        }
    }
}

pub(super) fn read(octets: &[u8], format: &Format) -> Result<Option<Rows>, ListFault> {
    let fault = |line, what| Err(ListFault { line, what });
    let mut lines = lines(octets);
    let Some((_, header)) = lines.next() else {
        // Being written for the first time.
        return Ok(None);
    };
    let Some((version, rest)) = word(header) else {
        return fault(1, "the first line is no header");
    };
    let (validity, next): (Option<u32>, Option<u32>) = match version {
        b"3" => {
            let field = |key: u8| {
                let mut fields = rest.split(|octet| *octet == b' ');
                fields.find_map(|field| number(field.strip_prefix(&[key])?))
            };
            (field(b'V'), field(b'N'))
        }
        b"1" => {
            let numbers = word(rest);
            let validity = numbers.and_then(|(validity, _)| number(validity));
            (validity, numbers.and_then(|(_, next)| number(next)))
        }
        _ => return fault(1, "it is of no version that popcore reads (1 and 3)"),
    };
    let Some(validity) = validity else {
        return fault(1, "the header has no uidvalidity");
    };
    let point = |number: u32| Point {
        validity: validity.into(),
        number: number.into(),
    };
    let mut rows = Rows::new(point(next.unwrap_or(1)));
    let mut before = 0;
    for (at, text) in lines {
        let line = if version == b"3" {
            third(text)
        } else {
            first(text)
        };
        let Some(line) = line else {
            return fault(at, "the line is malformed");
        };
        if line.uid <= before {
            return fault(at, "UIDs do not rise");
        }
        before = line.uid;
        // The names of Dovecot have no flags; Courier's have.
        let unique = super::super::message::unique(line.file);
        rows.add(unique, || Row {
            announced: line.announced(unique, validity, format),
            at: Some(point(line.uid)),
        });
        // What is appended does not change the header.
        rows.next = rows.next.max(point(line.uid.saturating_add(1)));
    }
    Ok(Some(rows))
}

fn third(text: &[u8]) -> Option<Line<'_>> {
    let (uid, mut rest) = word(text)?;
    let mut line = Line {
        uid: number(uid)?,
        ..Line::default()
    };
    loop {
        if let Some(file) = rest.strip_prefix(b":") {
            line.file = file;
            let good = !file.is_empty() && !file.contains(&b'/');
            return good.then_some(line);
        }
        let (field, behind) = word(rest)?;
        let (key, value) = field.split_first()?;
        match key {
            b'P' => line.saved = Some(value),
            b'O' => line.order = Some(number(value)?),
            b'G' => line.guid = Some(value),
            b'A'..=b'Z' => {}
            _ => return None,
        }
        rest = behind;
    }
}

fn first(text: &[u8]) -> Option<Line<'_>> {
    let (uid, file) = word(text)?;
    let good = !file.is_empty() && !file.contains(&b'/');
    good.then_some(Line {
        uid: number(uid)?,
        file,
        ..Line::default()
    })
}
