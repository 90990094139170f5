//! The rules of the wire an octet at a time: slow, short, and written from the
//! text of the rules alone, for the tests of the parts that are fast.

use proptest::prelude::*;

/// Line ends as CRLF, the last one added if it is missing.
pub(super) fn crlf(text: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for (at, &octet) in text.iter().enumerate() {
        if octet == b'\n' && (at == 0 || text[at - 1] != b'\r') {
            wire.push(b'\r');
        }
        wire.push(octet);
    }
    if text.last().is_some_and(|&last| last != b'\n') {
        wire.extend_from_slice(b"\r\n");
    }
    wire
}

/// What RETR sends behind its first line.
pub(super) fn wire(text: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut line_start = true;
    for octet in crlf(text) {
        if line_start && octet == b'.' {
            wire.push(b'.');
        }
        wire.push(octet);
        line_start = octet == b'\n';
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

/// How much of the text TOP sends.
pub(super) fn top(text: &[u8], body_lines: u64) -> usize {
    let mut length = 0;
    let mut body: Option<u64> = None;
    for line in text.split_inclusive(|&octet| octet == b'\n') {
        if body == Some(body_lines) {
            break;
        }
        length += line.len();
        body = match body {
            Some(sent) => Some(sent + 1),
            None if line == b"\n" || line == b"\r\n" => Some(0),
            None => None,
        };
    }
    length
}

/// Text in which all that matters to the rules is frequent.
pub(super) fn text() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![
        4 => Just(b'\n'), 4 => Just(b'\r'), 4 => Just(b'.'), 2 => Just(b'a'),
        1 => Just(0), 1 => any::<u8>(),
    ];
    let dense = prop::collection::vec(octet, 0..60);
    let pieces = prop::sample::select(vec![
        &b"a line of prose that goes on for a while, as lines do"[..],
        b"\r\n",
        b"\n",
        b".",
        b"..",
        b"\r",
        b"short",
        b"",
    ]);
    let long = prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat());
    prop_oneof![dense, long]
}

/// Texts that have been got wrong somewhere.
pub(super) const HARD: [&[u8]; 22] = [
    b"",
    b"\n",
    b"\r\n",
    b"\r",
    b"\r\r",
    b"\r\r\n",
    b"\n\r",
    b".",
    b".\n",
    b".\r\n",
    b"..",
    b"\n.",
    b"\n.\n",
    b"\r.\n",
    b"\r\n.\r\n",
    b"\n.\r",
    b"a",
    b"a\r",
    b"a\0b\n\0",
    b"Subject: x\n\n.dot\n..two\nlast",
    b"Subject: x\r\n\r\n.dot\r\n..two\r\nlast\r\n",
    b"a\nb\r\nc\rd\n\n\r\n.\xFF",
];
