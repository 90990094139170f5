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

use super::{Announced, Earlier, ListFault, lines, number};

pub(super) fn read(octets: &[u8], earlier: &mut Earlier) -> Result<(), ListFault> {
    let fault = |line, what| Err(ListFault { line, what });
    let mut lines = lines(octets);
    let Some((_, header)) = lines.next() else {
        return Ok(());
    };
    if !header.starts_with(b"/2 ") && !header.starts_with(b"/3 ") {
        return fault(1, "it is of no version that popcore reads (2 and 3)");
    }
    for ((at, text), rank) in lines.zip(0..) {
        let Some((file, n, validity)) = line(text) else {
            return fault(at, "the line is malformed");
        };
        let unique = super::super::message::unique(file);
        earlier.add(unique, || Announced {
            text: spell(unique, n, validity).into(),
            rank: Some(rank),
        });
    }
    Ok(())
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
