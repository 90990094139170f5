//! A stream of octets to lines, in any segmentation, within a bound.
//!
//! A line that lies whole in the input is borrowed from it: the common case
//! copies nothing and allocates nothing. Of an unfinished line up to
//! [`limits::COMMAND_LINE`] octets are kept in a buffer that lives until the
//! line has been handed out, so that a session between two lines owns no heap.
//! The buffer is erased when it goes, since the line may be a password. A response
//! of SASL may be longer, also in the line of `AUTH` itself, and the buffer then grows
//! with what the client has sent, so that nobody takes more than twice that of the
//! server's memory.
//!
//! A line that is too long is skipped without being stored and reported once,
//! when its end is there: the client gets one reply for one line, and what
//! follows is read as commands again. To report it at the limit, as some
//! servers do, would turn the rest of the line into commands or leave the
//! replies one ahead of the client.
//!
//! Lines end at LF; a CR before it is dropped with it. A bare LF is taken as
//! a line end because that is how people type through netcat, and since every
//! line is a command there is no second reader who could disagree.

use memchr::memchr;
use zeroize::Zeroizing;

use crate::limits;

/// Octets that a line may have, its end included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineLimit {
    any: usize,
    /// If it begins with `AUTH` and a space, in any case.
    auth: usize,
}

impl LineLimit {
    /// A command.
    pub const COMMAND: Self = Self {
        any: limits::COMMAND_LINE,
        auth: limits::COMMAND_LINE,
    };

    /// A command before a login. RFC 5034, section 4, has an initial response fit into the
    /// line of a command, and wants a longer one to wait for a challenge; clients with
    /// tokens send it at once.
    pub const OPENING: Self = Self {
        any: limits::COMMAND_LINE,
        auth: limits::SASL_LINE,
    };

    /// A response within AUTH.
    pub const RESPONSE: Self = Self {
        any: limits::SASL_LINE,
        auth: limits::SASL_LINE,
    };

    /// For a line that begins with these.
    fn of(self, kept: &[u8], piece: &[u8]) -> usize {
        let begins = kept.iter().chain(piece).take(AUTH.len());
        if begins.map(u8::to_ascii_uppercase).eq(AUTH) {
            self.auth
        } else {
            self.any
        }
    }
}

const AUTH: [u8; 5] = *b"AUTH ";

/// Finds the lines of one connection.
#[derive(Debug, Default)]
pub struct LineSplitter {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Between,
    /// The beginning of a line whose end has not come: never too long.
    Partial(Zeroizing<Vec<u8>>),
    /// A line that was handed out from the buffer and is due to be erased.
    HandedOut(Zeroizing<Vec<u8>>),
    /// Within a line that is too long.
    Skipping,
}

/// What [`LineSplitter::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// A line without its line end.
    Line(&'a [u8]),
    /// The end of a line longer than it may be.
    TooLong,
    /// The input is used up.
    NeedMore,
}

impl LineSplitter {
    /// A splitter at the beginning of a line.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next command line off the front of `input`. Whatever is not taken
    /// yet stays in `input`, so that the caller may stop after any line.
    pub fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Split<'a> {
        self.next_within(input, LineLimit::COMMAND)
    }

    /// The same with another bound than that of commands. It must be the same from a
    /// line's first octet to its last.
    pub fn next_within<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
        limit: LineLimit,
    ) -> Split<'a> {
        if let State::HandedOut(_) = self.state {
            self.state = State::Between;
        }
        let Some(line_feed) = memchr(b'\n', input) else {
            self.keep(input, limit);
            *input = &[];
            return Split::NeedMore;
        };
        let (line, rest) = input.split_at(line_feed + 1);
        *input = rest;
        match std::mem::take(&mut self.state) {
            State::Skipping => Split::TooLong,
            State::Partial(mut kept) => {
                if kept.len() + line.len() > limit.of(&kept, line) {
                    return Split::TooLong;
                }
                append(&mut kept, line);
                self.state = State::HandedOut(kept);
                match &self.state {
                    State::HandedOut(kept) => Split::Line(without_end(kept)),
                    _ => unreachable!("set in the line above"),
                }
            }
            State::Between | State::HandedOut(_) => {
                if line.len() > limit.of(&[], line) {
                    return Split::TooLong;
                }
                Split::Line(without_end(line))
            }
        }
    }

    /// Whether it holds heap memory, as it does within a line that has not
    /// ended, and until the call after the one that ended it.
    pub fn owns_memory(&self) -> bool {
        matches!(self.state, State::Partial(_) | State::HandedOut(_))
    }

    /// Whether the next octet belongs to a line that has begun.
    pub fn is_within_line(&self) -> bool {
        matches!(self.state, State::Partial(_) | State::Skipping)
    }

    fn keep(&mut self, piece: &[u8], limit: LineLimit) {
        if piece.is_empty() {
            return;
        }
        let mut kept = match std::mem::take(&mut self.state) {
            State::Skipping => {
                self.state = State::Skipping;
                return;
            }
            State::Partial(kept) => kept,
            // Most commands never need more.
            State::Between | State::HandedOut(_) => {
                Zeroizing::new(Vec::with_capacity(limits::COMMAND_LINE))
            }
        };
        // The line end that is still to come is one octet at least.
        self.state = if kept.len() + piece.len() < limit.of(&kept, piece) {
            append(&mut kept, piece);
            State::Partial(kept)
        } else {
            State::Skipping
        };
    }
}

/// Appends, and where there is no room moves to a buffer of twice the size: a vector
/// that grows by itself would leave what it held behind.
fn append(kept: &mut Zeroizing<Vec<u8>>, piece: &[u8]) {
    let length = kept.len() + piece.len();
    if length > kept.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(length.next_power_of_two()));
        larger.extend_from_slice(kept);
        *kept = larger;
    }
    kept.extend_from_slice(piece);
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What came out, owned.
    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Event {
        Line(Vec<u8>),
        TooLong,
    }

    fn split(pieces: &[&[u8]]) -> Vec<Event> {
        let mut splitter = LineSplitter::new();
        let mut events = Vec::new();
        for piece in pieces {
            let mut input = *piece;
            loop {
                match splitter.next(&mut input) {
                    Split::Line(line) => events.push(Event::Line(line.to_vec())),
                    Split::TooLong => events.push(Event::TooLong),
                    Split::NeedMore => break,
                }
            }
            assert!(input.is_empty());
        }
        events
    }

    /// The same, an octet at a time.
    fn model(stream: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        let mut line = Vec::new();
        for &octet in stream {
            line.push(octet);
            if octet == b'\n' {
                let too_long = line.len() > 255;
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                let line = std::mem::take(&mut line);
                events.push(if too_long {
                    Event::TooLong
                } else {
                    Event::Line(line)
                });
            }
        }
        events
    }

    fn lines(lines: &[&str]) -> Vec<Event> {
        let owned = |line: &&str| Event::Line(line.as_bytes().to_vec());
        lines.iter().map(owned).collect()
    }

    #[test]
    fn pipelined_lines_come_one_by_one() {
        let found = split(&[b"STAT\r\nLIST\r\nQU", b"IT\r\n"]);
        assert_eq!(found, lines(&["STAT", "LIST", "QUIT"]));
    }

    #[test]
    fn a_line_end_may_be_torn() {
        assert_eq!(split(&[b"STAT\r", b"\n"]), lines(&["STAT"]));
        assert_eq!(split(&[b"STAT", b"\r\n"]), lines(&["STAT"]));
        assert_eq!(split(&[b"STAT\n\n"]), lines(&["STAT", ""]));
    }

    #[test]
    fn a_whole_line_is_borrowed_from_the_input() {
        let stream = b"NOOP\r\nrest";
        let mut input = &stream[..];
        let mut splitter = LineSplitter::new();
        let Split::Line(line) = splitter.next(&mut input) else {
            panic!("a line is there");
        };
        assert_eq!(line.as_ptr(), stream.as_ptr());
        assert_eq!(input, b"rest");
        assert!(!splitter.owns_memory());
    }

    #[test]
    fn no_heap_between_lines() {
        let mut splitter = LineSplitter::new();
        let mut input = &b"QU"[..];
        assert_eq!(splitter.next(&mut input), Split::NeedMore);
        assert!(splitter.owns_memory() && splitter.is_within_line());
        input = b"IT\r\n";
        assert_eq!(splitter.next(&mut input), Split::Line(b"QUIT"));
        assert!(!splitter.is_within_line());
        assert_eq!(splitter.next(&mut input), Split::NeedMore);
        assert!(!splitter.owns_memory() && !splitter.is_within_line());
    }

    #[test]
    fn the_longest_line_is_taken_and_a_longer_one_is_not() {
        let longest = [vec![b'x'; 253], b"\r\n".to_vec()].concat();
        let longer = [vec![b'x'; 254], b"\r\n".to_vec()].concat();
        assert_eq!(split(&[&longest]), [Event::Line(vec![b'x'; 253])]);
        assert_eq!(split(&[&longer]), [Event::TooLong]);
        for cut in 0..longest.len() {
            let (head, tail) = longest.split_at(cut);
            assert_eq!(split(&[head, tail]), [Event::Line(vec![b'x'; 253])]);
        }
        for cut in 0..longer.len() {
            let (head, tail) = longer.split_at(cut);
            assert_eq!(split(&[head, tail]), [Event::TooLong], "cut at {cut}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_reported_once_and_not_stored() {
        let mut splitter = LineSplitter::new();
        for _ in 0..1000 {
            let mut input = &[b'x'; 100][..];
            assert_eq!(splitter.next(&mut input), Split::NeedMore);
            assert!(splitter.is_within_line());
        }
        assert!(!splitter.owns_memory());
        let mut input = &b"QUIT\r\nSTAT\r\n"[..];
        assert_eq!(splitter.next(&mut input), Split::TooLong);
        assert_eq!(splitter.next(&mut input), Split::Line(b"STAT"));
    }

    #[test]
    fn a_longer_line_is_taken_where_it_may_be_and_there_alone() {
        let longest = [vec![b'x'; limits::SASL_LINE - 2], b"\r\n".to_vec()].concat();
        let longer = [b"x", &longest[..]].concat();
        for piece in [1, 7, 4096, longer.len()] {
            let mut splitter = LineSplitter::new();
            for (line, fits) in [(&longest, true), (&longer, false), (&longest, true)] {
                let mut found = None;
                for part in line.chunks(piece) {
                    let mut input = part;
                    match splitter.next_within(&mut input, LineLimit::RESPONSE) {
                        Split::Line(taken) => found = Some(taken.len() == line.len() - 2),
                        Split::TooLong => found = Some(false),
                        Split::NeedMore => {}
                    }
                }
                assert_eq!(found, Some(fits), "in pieces of {piece}");
                let mut input = &b"NOOP\r\n"[..];
                assert_eq!(splitter.next(&mut input), Split::Line(b"NOOP"));
            }
        }
    }

    #[test]
    fn before_a_login_a_line_of_auth_may_be_as_long_as_a_response() {
        let of = |begin: &str, length: usize| {
            let mut line = begin.as_bytes().to_vec();
            line.resize(length - 2, b'x');
            [&line[..], b"\r\n"].concat()
        };
        let (command, sasl) = (limits::COMMAND_LINE, limits::SASL_LINE);
        for piece in [1, 3, 300, 4096, sasl + 1] {
            let mut splitter = LineSplitter::new();
            for (line, limit, fits) in [
                (of("AUTH XOAUTH2 ", sasl), LineLimit::OPENING, true),
                (of("auth xoauth2 ", sasl), LineLimit::OPENING, true),
                (of("AUTH XOAUTH2 ", sasl + 1), LineLimit::OPENING, false),
                (of("AUTH XOAUTH2 ", command + 1), LineLimit::COMMAND, false),
                (of("AUTHXOAUTH2 ", command + 1), LineLimit::OPENING, false),
                (of("PASS AUTH ", command + 1), LineLimit::OPENING, false),
                (of("PASS ", command), LineLimit::OPENING, true),
                (of("PASS ", command + 1), LineLimit::OPENING, false),
            ] {
                let mut found = None;
                for part in line.chunks(piece) {
                    let mut input = part;
                    match splitter.next_within(&mut input, limit) {
                        Split::Line(taken) => found = Some(taken == &line[..line.len() - 2]),
                        Split::TooLong => found = Some(false),
                        Split::NeedMore => {}
                    }
                }
                let begins = line[..12].escape_ascii();
                assert_eq!(found, Some(fits), "{begins} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn the_buffer_of_a_line_is_no_larger_than_twice_what_came() {
        let mut splitter = LineSplitter::new();
        for sent in (512..limits::SASL_LINE).step_by(512) {
            let mut input = &[b'x'; 512][..];
            let split = splitter.next_within(&mut input, LineLimit::RESPONSE);
            assert_eq!(split, Split::NeedMore);
            let State::Partial(kept) = &splitter.state else {
                panic!("{:?}", splitter.state);
            };
            assert!(kept.len() == sent && kept.capacity() <= 2 * sent);
        }
    }

    #[test]
    fn an_idle_splitter_is_small() {
        assert!(size_of::<LineSplitter>() <= 32);
    }

    proptest! {
        #[test]
        fn any_segmentation_gives_the_same_lines(
            parts in prop::collection::vec(
                (
                    prop::sample::select(vec![0_usize, 1, 4, 60, 250, 252, 253, 254, 255, 256, 600]),
                    prop::sample::select(vec!["\n", "\r\n", "\r", "\r\r\n", "x"]),
                ),
                0..8,
            ),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let mut stream = Vec::new();
            for (length, end) in parts {
                stream.resize(stream.len() + length, b'a');
                stream.extend_from_slice(end.as_bytes());
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut start = 0;
            for cut in cuts {
                pieces.push(&stream[start..cut]);
                start = cut;
            }
            pieces.push(&stream[start..]);
            prop_assert_eq!(split(&pieces), model(&stream));
            let octets: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(split(&octets), model(&stream));
        }
    }
}
