//! `courierpop3dsizelist`, versions 2 and 3.
//!
//! ```text
//! /3 <next n> <uidv>
//! <file name> <size> <n>:<uidv>:<0 or 1>
//! ```
//!
//! Version 2 has no third number behind a line. A name may hold spaces, so a line
//! is read from its end. Messages stand in the order that Courier showed them in.

use std::io::Write as _;

use super::{Announced, ListFault, Point, Row, Rows, lines, number};

pub(super) fn read(octets: &[u8]) -> Result<Option<Rows>, ListFault> {
    let fault = |line, what| Err(ListFault { line, what });
    let mut lines = lines(octets);
    let Some((_, header)) = lines.next() else {
        return Ok(None);
    };
    let counted = header
        .strip_prefix(b"/2 ")
        .or_else(|| header.strip_prefix(b"/3 "));
    let Some(counted) = counted else {
        return fault(1, "it is of no version that popcore reads (2 and 3)");
    };
    let mut numbers = counted.split(|octet| *octet == b' ').map(number);
    let (Some(Some(next)), Some(Some(validity))) = (numbers.next(), numbers.next()) else {
        return fault(1, "the header has no number and uidv");
    };
    let mut rows = Rows::new(Point {
        validity,
        number: next,
    });
    for ((at, text), rank) in lines.zip(0..) {
        let Some((file, number, validity)) = line(text) else {
            return fault(at, "the line is malformed");
        };
        let unique = super::super::message::unique(file);
        rows.add(unique, || Row {
            announced: Announced {
                text: spell(unique, number, validity).into(),
                rank: Some(rank),
            },
            at: (number != 0).then_some(Point { validity, number }),
        });
    }
    Ok(Some(rows))
}

fn line(text: &[u8]) -> Option<(&[u8], u64, u64)> {
    let last = memchr::memrchr(b' ', text)?;
    let mut numbers = text[last + 1..].split(|octet| *octet == b':');
    let (n, validity) = (number(numbers.next()?)?, number(numbers.next()?)?);
    let size = memchr::memrchr(b' ', &text[..last])?;
    number::<u64>(&text[size + 1..last])?;
    (size > 0).then_some((&text[..size], n, validity))
}

fn spell(unique: &[u8], n: u64, validity: u64) -> Vec<u8> {
    let mut out = Vec::new();
    if n != 0 {
        match validity {
            0 => write!(out, "UID{n}"),
            _ => write!(out, "UID{n}-{validity}"),
        }
        .expect("a Vec takes every write");
        return out;
    }
    for octet in unique {
        if octet.is_ascii_graphic() && !b"'\"+".contains(octet) {
            out.push(*octet);
        } else {
            write!(out, "+{octet:02X}").expect("a Vec takes every write");
        }
    }
    out
}
