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
use super::{Announced, Earlier, ListFault, lines, number, word};

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

pub(super) fn read(octets: &[u8], format: &Format, earlier: &mut Earlier) -> Result<(), ListFault> {
    let fault = |line, what| Err(ListFault { line, what });
    let mut lines = lines(octets);
    let Some((_, header)) = lines.next() else {
        // Being written for the first time.
        return Ok(());
    };
    let Some((version, rest)) = word(header) else {
        return fault(1, "the first line is no header");
    };
    let validity = match version {
        b"3" => rest
            .split(|octet| *octet == b' ')
            .find_map(|field| number(field.strip_prefix(b"V")?)),
        b"1" => word(rest).and_then(|(validity, _)| number(validity)),
        _ => return fault(1, "it is of no version that popcore reads (1 and 3)"),
    };
    let Some(validity) = validity else {
        return fault(1, "the header has no uidvalidity");
    };
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
        earlier.add(unique, || Announced {
            text: match line.saved {
                Some(b"") => unique.into(),
                Some(saved) => saved.into(),
                None => format
                    .fill(&Values {
                        uid: line.uid,
                        validity,
                        file: unique,
                        guid: line.guid,
                    })
                    .into(),
            },
            rank: Some(
                line.order
                    .map_or(UNORDERED.saturating_add(line.uid), |order| {
                        order.min(UNORDERED)
                    }),
            ),
        });
    }
    Ok(())
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
