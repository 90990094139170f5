//! What the octets of a message must be, octet by octet and without haste.
//!
//! It shares no code with the server, and no idea either: lines are taken apart
//! and put together again.

/// The message as RFC 1939 counts it: each line with CRLF, the last one too.
pub(crate) fn counted(stored: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    for line in lines(stored) {
        octets.extend_from_slice(line);
        octets.extend_from_slice(b"\r\n");
    }
    octets
}

/// What follows the first line of RETR: dots doubled, and the terminator.
pub(crate) fn sent(stored: &[u8]) -> Vec<u8> {
    stuffed(lines(stored).into_iter())
}

/// What follows the first line of TOP.
pub(crate) fn top(stored: &[u8], body_lines: usize) -> Vec<u8> {
    let all = lines(stored);
    let blank = all.iter().position(|line| line.is_empty());
    let end = blank.map_or(all.len(), |blank| blank + 1 + body_lines);
    stuffed(all.into_iter().take(end))
}

/// A multi-line reply without its terminator and with its dots single again.
pub(crate) fn unstuffed(reply: &[u8]) -> Vec<u8> {
    let body = reply.strip_suffix(b".\r\n").expect("a terminator");
    let mut octets = Vec::new();
    for line in body.split_inclusive(|octet| *octet == b'\n') {
        octets.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    octets
}

/// Lines without their ends. What follows the last LF is a line if there is any.
fn lines(stored: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut start = 0;
    for (at, octet) in stored.iter().enumerate() {
        if *octet == b'\n' {
            let end = if at > start && stored[at - 1] == b'\r' {
                at - 1
            } else {
                at
            };
            lines.push(&stored[start..end]);
            start = at + 1;
        }
    }
    if start < stored.len() {
        lines.push(&stored[start..]);
    }
    lines
}

fn stuffed<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut octets = Vec::new();
    for line in lines {
        if line.first() == Some(&b'.') {
            octets.push(b'.');
        }
        octets.extend_from_slice(line);
        octets.extend_from_slice(b"\r\n");
    }
    octets.extend_from_slice(b".\r\n");
    octets
}

#[test]
fn the_model_is_right_where_it_can_be_told_by_eye() {
    assert_eq!(counted(b""), b"");
    assert_eq!(counted(b"a\nb\r\nc"), b"a\r\nb\r\nc\r\n");
    assert_eq!(counted(b"a\rb\r\r\n\r"), b"a\rb\r\r\n\r\r\n");
    assert_eq!(sent(b".a\n.\n"), b"..a\r\n..\r\n.\r\n");
    assert_eq!(sent(b""), b".\r\n");
    assert_eq!(top(b"h: 1\n\nb1\nb2\n", 1), b"h: 1\r\n\r\nb1\r\n.\r\n");
    assert_eq!(unstuffed(b"..a\r\nb\r\n.\r\n"), b".a\r\nb\r\n");
}
